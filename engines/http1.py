"""One upstream connection: an asyncio protocol over httptools' response parser.

It holds at most one request at a time.  Its receiver is called from `data_received`, without a task switch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol, cast

import httptools

from engines.errors import ConnectionLost, EngineError, MalformedAnswer
from engines.model import Target

Header = tuple[bytes, bytes]
MAX_HEAD = 64 * 1024
"""Bytes of an answer's head, all its headers together."""


def header_block(headers: Iterable[Header]) -> bytes:
    """Header lines as they go on the wire: made once where they are the same for many requests."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


class Receiver(Protocol):
    """What an answer is told to, in this order: head, body pieces, then end or error, once."""

    def on_head(self, status: int, headers: list[Header]) -> None: ...
    def on_body(self, data: bytes) -> None: ...
    def on_end(self) -> None: ...
    def on_error(self, error: EngineError) -> None: ...
    def moved(self, connection: Connection) -> bool:
        """The request goes on another connection, since the first was dead; False: it is no longer wanted."""
        ...


class Owner(Protocol):
    """Where connections come from and go back to."""

    def give_back(self, connection: Connection) -> None: ...
    def forget(self, connection: Connection) -> None: ...
    def send_again(self, connection: Connection, data: bytes, receiver: Receiver, reusable: bool) -> None:
        """The pooled connection was dead: the same bytes, once, on a fresh one."""
        ...


class Connection(asyncio.Protocol):
    """A socket to one origin.  The pool owns it while it is idle, its user while it is not."""

    __slots__ = (
        "_dirty", "_done", "_head_bytes", "_headers", "_host", "_interim", "_loop", "_owner", "_parser", "_paused", "_prefix",
        "_receiver", "_resend", "_reusable", "_started", "_transport", "closed", "idle_since", "origin",
        "peer", "reused", "target",
    )  # fmt: skip

    def __init__(
        self, loop: asyncio.AbstractEventLoop, owner: Owner, target: Target, origin: str, host: bytes, prefix: bytes
    ) -> None:
        self._loop = loop
        self._owner = owner
        self.target = target
        self.origin = origin
        self._host = b"host: " + host + b"\r\n"
        self._prefix = prefix  # the origin's own path, before the request's
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._receiver: Receiver | None = None
        self._headers: list[Header] = []
        self._head_bytes = 0
        self._interim = False
        self._started = False  # the head of the answer has come
        self._done = True
        self._dirty = False  # bytes came that nobody asked for
        self._paused = False
        self._reusable = True
        self._resend: tuple[bytes, bool] | None = None
        self.closed = False
        self.reused = False
        self.peer = ""
        self.idle_since = 0.0

    # --- what the user of a connection calls ------------------------------------------------------------

    def request(
        self,
        method: bytes,
        path: bytes,
        headers: bytes,
        body: bytes,
        receiver: Receiver,
        *,
        reusable: bool = True,
        resend: bool = True,
    ) -> None:
        """Send one request, with `headers` as `header_block` makes them; its answer goes to `receiver`.

        `reusable=False` closes the connection after the answer.  With `resend`, a pooled connection that turns
        out to be dead before any byte of an answer came is replaced by a fresh one, once.
        """
        data = b"%b %b%b HTTP/1.1\r\n%bcontent-length: %d\r\n%b\r\n%b" % (
            method, self._prefix, path, self._host, len(body), headers, body,
        )  # fmt: skip
        self.send(data, receiver, reusable=reusable, resend=resend)

    def send(self, data: bytes, receiver: Receiver, *, reusable: bool, resend: bool) -> None:
        """Send a request that is bytes already."""
        self._receiver = receiver
        self._parser = httptools.HttpResponseParser(self)
        self._headers = []
        self._head_bytes = 0
        self._started = self._done = self._interim = False
        self._reusable = reusable
        self._resend = (data, reusable) if self.reused and resend else None
        if self.closed or self._transport is None:
            self._loop.call_soon(self._lost)
        else:
            self._transport.write(data)

    def pause_reading(self) -> None:
        if not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._paused:
            self._paused = False
            if self._transport is not None and not self.closed:
                self._transport.resume_reading()

    def abort(self) -> None:
        """Close now; the receiver hears nothing more."""
        self._receiver = None
        self._resend = None
        self._done = True
        if self._transport is not None:
            self._transport.abort()

    def release(self) -> None:
        """Opened but not used: back to the pool."""
        self._owner.give_back(self)

    # --- asyncio's callbacks ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.peer = str(peer[0]) if isinstance(peer, tuple) else ""

    def data_received(self, data: bytes) -> None:
        parser = self._parser
        if parser is None or self._done:
            self._close()  # nobody asked for these bytes
            return
        self._resend = None
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(MalformedAnswer("the engine switched protocols"))
        except httptools.HttpParserError:
            if not self._done:
                self._fail(MalformedAnswer("the engine's answer is not HTTP"))
            else:
                self._close()
        else:
            if not self._started:
                self._head_bytes += len(data)
                if self._head_bytes > MAX_HEAD:
                    self._fail(MalformedAnswer("the head of the engine's answer is too large"))

    def eof_received(self) -> None:
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._owner.forget(self)
        if self._receiver is not None and not self._done:
            self._lost()
        self._transport = None

    def _lost(self) -> None:
        """The connection is gone before its answer was."""
        if self._resend is not None and not self._started:
            (data, reusable), self._resend = self._resend, None
            receiver, self._receiver = self._receiver, None
            self._done = True
            if receiver is not None:
                self._owner.send_again(self, data, receiver, reusable)
            return
        receiver = self._receiver
        if receiver is None or self._done:
            return
        if self._started and self._close_delimited():
            self._done = True
            self._receiver = None
            receiver.on_end()
        else:
            self._fail(ConnectionLost("the engine closed the connection before its answer was complete"))

    def _close_delimited(self) -> bool:
        """A body without a length ends with the connection (RFC 9112, section 6.3)."""
        names = {name for name, _ in self._headers}
        return b"content-length" not in names and b"transfer-encoding" not in names

    def _fail(self, error: EngineError) -> None:
        receiver, self._receiver = self._receiver, None
        self._done = True
        self._close()
        if receiver is not None:
            receiver.on_error(error)

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # --- httptools' callbacks ---------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._done:
            self._dirty = True

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        parser = self._parser
        assert parser is not None
        status = parser.get_status_code()
        if 100 <= status < 200:
            self._interim = True
            return
        self._started = True
        for name, value in self._headers:
            if name == b"content-encoding" and value.lower() not in (b"identity", b""):
                self._fail(MalformedAnswer("the engine compressed its answer although it was asked not to"))
                return
        if self._receiver is not None:
            self._receiver.on_head(status, self._headers)

    def on_body(self, data: bytes) -> None:
        if self._receiver is not None:
            self._receiver.on_body(data)

    def on_message_complete(self) -> None:
        if self._interim:  # 100 Continue, 103 Early Hints: the answer is still to come
            self._interim = False
            self._headers = []
            return
        if self._done:
            return
        self._done = True
        receiver, self._receiver = self._receiver, None
        parser = self._parser
        assert parser is not None
        keep = self._reusable and parser.should_keep_alive()
        if receiver is not None:
            receiver.on_end()
        if keep:
            self.resume_reading()
            self._loop.call_soon(self._return)  # after this chunk: bytes behind the answer close the connection
        else:
            self._close()

    def _return(self) -> None:
        if self._dirty:
            self._close()
        elif not self.closed and self._done:
            self._owner.give_back(self)
