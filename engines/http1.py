"""One upstream connection: an asyncio protocol over httptools' response parser.

It holds at most one request at a time.  Its receiver is called from `data_received`, without a task switch; where
much comes for many at once, in one of the next turns of the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import httptools

from engines.errors import ConnectionLost, EngineError, MalformedAnswer
from engines.heads import FLEETING, Heads, length_of
from engines.model import Target
from engines.turns import Turns

Header = tuple[bytes, bytes]
_FLEETING = frozenset([name.encode() for name in FLEETING])
MAX_HEAD = 64 * 1024
"""Bytes of an answer's head, all its headers together; and of what else carries no body, such as trailers."""
MAX_BEHIND = 64 * 1024
"""Bytes that wait for their turn, above which a connection is not read from."""


def header_block(headers: Iterable[Header]) -> bytes:
    """Header lines as they go on the wire: made once where they are the same for many requests."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


class Receiver(Protocol):
    """What an answer is told to, in this order: head, body pieces, then end or error, once.

    A receiver that raises is a fault of its own: its connection is closed, and `on_error` tells it so, because
    nobody else would ever end its wait.
    """

    __slots__ = ()

    def on_head(self, status: int, headers: Sequence[Header]) -> None: ...
    def on_body(self, data: bytes) -> None: ...
    def on_end(self) -> None: ...
    def on_error(self, error: EngineError) -> None: ...
    def on_answer(self, headers: Sequence[Header], body: bytes) -> None:
        """The whole of an answer of status 200 in one: its connection is not used any more."""
        self.on_head(200, headers)
        if body:
            self.on_body(body)
        self.on_end()

    def moved(self, connection: Connection) -> bool:
        """The request goes on another connection, since the first was dead; False: it is no longer wanted."""
        ...


class Owner(Protocol):
    """Where connections come from and go back to."""

    heads: Heads[tuple[Header, ...]]  # of answers with status 200 whose connections were kept
    turns: Turns  # in which answers are read
    outbox: Turns  # in which requests wait for the end of a turn

    def give_back(self, connection: Connection) -> None: ...
    def forget(self, connection: Connection) -> None: ...
    def send_again(self, connection: Connection, data: bytes, receiver: Receiver, reusable: bool) -> asyncio.Task[None]:
        """The pooled connection was dead: the same bytes, once, on a fresh one."""
        ...


class Connection:
    """A socket to one origin.  The pool owns it while it is idle, its user while it is not.

    An asyncio protocol by its methods.  It derives from none: so it can be compiled to a native class.
    """

    __slots__ = (
        "_again", "_behind", "_bodiless", "_dirty", "_done", "_failed", "_headers", "_host", "_interim", "_loop", "_owner", "_parser",
        "_paused", "_prefix", "_receiver", "_resend", "_reusable", "_silent", "_started", "_transport", "_unsent", "closed",
        "idle_since", "key", "origin", "peer", "reused", "target",
    )  # fmt: skip

    def __init__(
        self, loop: asyncio.AbstractEventLoop, owner: Owner, target: Target, origin: str, host: bytes, prefix: bytes
    ) -> None:
        self._loop = loop
        self._owner = owner
        self.target = target
        self.origin = origin
        self.key = (origin, target.boundary, target.allowed_peers)  # of those that may take each other's place
        self._host = b"host: " + host + b"\r\n"
        self._prefix = prefix  # the origin's own path, before the request's
        self._transport: Any = None  # an asyncio.Transport, which uvloop's does not derive from
        self._parser: httptools.HttpResponseParser | None = None
        self._receiver: Receiver | None = None
        self._headers: list[Header] = []
        self._behind: list[bytes] = []  # what came and waits for its turn
        self._silent = 0  # bytes since the last that the receiver was told of
        self._bodiless = False  # HEAD: its answer has a length and no body
        self._interim = False
        self._started = False  # the head of the answer has come
        self._done = True
        self._failed = False  # the receiver has been told an error
        self._dirty = False  # bytes came that nobody asked for
        self._paused = False
        self._reusable = True
        self._resend: tuple[bytes, bool] | None = None
        self._unsent = b""  # a request that waits for the end of this turn
        self._again: asyncio.Task[None] | None = None  # opens the connection that replaces this dead one
        self.closed = False  # no longer usable; the socket itself may take a turn of the loop to go
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
        """Send a request that is bytes already, at the end of this turn of the event loop."""
        self._receiver = receiver
        self._parser = None
        self._bodiless = data.startswith(b"HEAD ")
        self._started = self._done = False
        self._reusable = reusable
        self._resend = (data, reusable) if self.reused and resend else None
        if self.closed or self._transport is None:
            self._loop.call_soon(self._lost, None)
        else:
            self._unsent = data
            self._owner.outbox.add(self._transmit)

    def _transmit(self) -> None:
        data, self._unsent = self._unsent, b""
        if data and not self.closed and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def pause_reading(self) -> None:
        if not self._paused and not self.closed and self._transport is not None:
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
        self._behind = []
        self._done = True
        if self._again is not None:
            self._again.cancel()
        self._close()

    def release(self) -> None:
        """Opened but not used: back to the pool."""
        self._owner.give_back(self)

    # --- asyncio's callbacks ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self.peer = str(peer[0]) if isinstance(peer, tuple) else ""
        if self.closed:  # given up while it was being opened
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._done or self._unsent:  # nobody asked for these bytes; a request that waits goes on a fresh connection
            self._close()
            return
        behind = self._behind
        turns = self._owner.turns
        if not behind and turns.room():
            self._read(data)
            turns.done()
            return
        if not behind:
            turns.add(self._catch_up)
        behind.append(data)
        if len(behind) > 1 and not self._paused and sum(map(len, behind)) > MAX_BEHIND and self._transport is not None:
            self._transport.pause_reading()

    def _catch_up(self) -> None:
        """It is this connection's turn."""
        data, self._behind = b"".join(self._behind), []
        if data and not self._done:
            self._read(data)
        if not self._paused and not self.closed and self._transport is not None:
            self._transport.resume_reading()

    def _read(self, data: bytes) -> None:
        self._resend = None
        receiver, parser = self._receiver, self._parser
        first = parser is None
        if parser is None:
            if not self._bodiless and (known := self._owner.heads.find(data)) is not None:
                self._whole(*known)
                return
            parser = self._parser = httptools.HttpResponseParser(self)
            self._headers = []
            self._silent = 0
            self._interim = self._failed = False
        self._silent += len(data)
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(MalformedAnswer("the engine switched protocols"))
        except httptools.HttpParserCallbackError as error:
            self._receiver_raised(receiver, error)
        except httptools.HttpParserError:
            if self._done:
                self._close()  # the answer is out, and what came behind it is none
            else:
                self._fail(MalformedAnswer("the engine's answer is not HTTP"))
        else:
            if self._done:
                self._return()
                if first and not self.closed and length_of(data) == len(data) and data[8:12] == b" 200":
                    self._learn(data)
            elif self._silent > MAX_HEAD:
                self._fail(MalformedAnswer("the engine's answer has too many bytes that are not its body"))

    def _learn(self, data: bytes) -> None:
        headers = tuple(self._headers)
        if _FLEETING.isdisjoint([name for name, _ in headers]):
            self._owner.heads.learn(data, headers)

    def _whole(self, headers: tuple[Header, ...], body: bytes) -> None:
        """A whole answer whose head is known: what the parser would say of it."""
        receiver, self._receiver = self._receiver, None
        transport = self._transport
        self._started = self._done = True
        if not self._reusable or transport is None or transport.get_write_buffer_size():
            self._close()
        if receiver is not None:
            try:
                receiver.on_answer(headers, body)
            except Exception as error:  # noqa: BLE001  the receiver's own fault, as where httptools calls it
                self._receiver_raised(receiver, error)
        if not self.closed:
            self.resume_reading()
            self._owner.give_back(self)

    def eof_received(self) -> None:
        return None

    def pause_writing(self) -> None:
        """A request is written in one, whatever waits."""

    def resume_writing(self) -> None:
        """As above."""

    def connection_lost(self, exc: Exception | None) -> None:
        if self._behind:
            self._catch_up()  # what came before it was lost
        self.closed = True
        self._owner.forget(self)
        self._lost(exc)
        self._transport = None

    def _lost(self, exc: Exception | None) -> None:
        """The connection is gone: before its answer was, unless its end is the answer's end."""
        receiver = self._receiver
        if receiver is None or self._done:
            return
        if self._resend is not None:
            (data, reusable), self._resend = self._resend, None
            self._receiver = None
            self._done = True
            self._again = self._owner.send_again(self, data, receiver, reusable)
        elif exc is None and self._started and self._close_delimited():  # a reset is never an end (law 5)
            self._receiver = None
            self._done = True
            ended = False
            try:
                receiver.on_end()
                ended = True
            finally:
                if not ended:
                    receiver.on_error(MalformedAnswer("the engine's answer could not be read"))
        else:
            self._fail(ConnectionLost("the engine closed the connection before its answer was complete"))

    def _close_delimited(self) -> bool:
        """A body without a length ends with the connection (RFC 9112, section 6.3)."""
        names = {name for name, _ in self._headers}
        return b"content-length" not in names and b"transfer-encoding" not in names

    def _receiver_raised(self, receiver: Receiver | None, error: Exception) -> None:
        """httptools wraps what its callbacks raise, here: what the receiver did."""
        cause = error.__context__ or error
        self._loop.call_exception_handler(  # never the exception itself: its message may quote the answer
            {"message": f"the reader of an engine's answer raised {type(cause).__name__} in {_where(cause)}"}
        )
        self._receiver = None if self._failed else receiver
        self._fail(MalformedAnswer("the engine's answer could not be read"))

    def _fail(self, error: EngineError) -> None:
        receiver, self._receiver = self._receiver, None
        self._done = self._failed = True
        self._close()
        if receiver is not None:
            receiver.on_error(error)

    def _close(self) -> None:
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    # --- httptools' callbacks ---------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._done:
            self._dirty = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._started:  # trailers are nothing that a client is told
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        parser = self._parser
        assert parser is not None
        status = parser.get_status_code()
        if 100 <= status < 200:
            self._interim = True
            if _announces_body(self._headers):  # RFC 9110, section 15.2: it has none
                self._fail(MalformedAnswer("the engine sent an interim answer with a body"))
            return
        self._started = True
        if self._silent > MAX_HEAD and sum(len(name) + len(value) + 4 for name, value in self._headers) > MAX_HEAD:
            self._fail(MalformedAnswer("the head of the engine's answer is too large"))
            return
        self._silent = 0
        for name, value in self._headers:
            if name == b"content-encoding":
                if value.lower() not in (b"identity", b""):
                    self._fail(MalformedAnswer("the engine compressed its answer although it was asked not to"))
                    return
            elif name == b"transfer-encoding" and value.lower() != b"chunked":
                self._fail(MalformedAnswer("the engine's answer has a transfer coding that was not asked for"))
                return
        if self._receiver is not None:
            self._receiver.on_head(status, self._headers)
        if self._bodiless and not self._done:
            self._complete(False)

    def on_body(self, data: bytes) -> None:
        self._silent = 0
        if self._receiver is not None:
            self._receiver.on_body(data)

    def on_message_complete(self) -> None:
        if self._interim:  # 100 Continue, 103 Early Hints: the answer is still to come
            self._interim = False
            self._headers = []
            return
        if self._done:
            return
        parser = self._parser
        assert parser is not None
        self._complete(self._reusable and parser.should_keep_alive())

    def _complete(self, keep: bool) -> None:
        receiver, self._receiver = self._receiver, None
        transport = self._transport
        self._done = True
        if keep and transport is not None and not transport.get_write_buffer_size():
            self.resume_reading()  # and `_return` follows when this chunk is read: bytes behind the answer close it
        else:  # not to be kept, or the engine answered before it had read the request
            self._close()
        if receiver is not None:
            receiver.on_end()

    def _return(self) -> None:
        """The answer is complete, and the chunk that ended it is read."""
        if self._dirty:
            self._close()
        elif not self.closed:
            self._owner.give_back(self)


def _announces_body(headers: Sequence[Header]) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0") != b"")
        for name, value in headers
    )


def _where(error: BaseException) -> str:
    """The function and line that raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_qualname}, line {trace.tb_lineno}" if trace is not None else "native code"
