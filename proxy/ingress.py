"""HTTP in and out, on aiohttp's request parser.  No decisions.

aiohttp's C parser reads requests (its strictness is what keeps smuggled ones out); what drives it is an
asyncio protocol of our own, because `aiohttp.web`'s server spends two tasks and a dozen objects on each
request.  One task a connection answers its requests in turn and is cancelled when the client leaves.

Answers go to the connection's transport without a task switch: head and body, or the events of a stream, in one
write at the end of a turn of the event loop, together with those of all others (`engines.turns`).  `_Sink` is the
only writer, and a connection whose answer was not finished is closed, never reused (a half-written answer on a kept
connection would be read as the next one's head).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from engines.heads import FLEETING, Heads, length_of
from engines.http1 import header_block
from engines.turns import Turns
from proxy.aiohttp_parts import (
    HttpProcessingError,
    HttpRequestParser,
    HttpVersion10,
    RequestPayloadError,
    StreamReader,
)
from proxy.deadlines import Deadlines
from proxy.encodings import decode_body
from proxy.errors import Refusal
from proxy.exchange import Header
from proxy.heads import Head

Serve = Callable[["HttpInbound", "_Sink"], Awaitable[None]]

READ_AHEAD = 64 * 1024
"""Bytes of a body that are read before somebody asks for them."""
PIPELINED = 16
"""Requests of one connection that wait for their turn; more of them wait in the socket."""
KEPT_HEADERS = 48
"""Headers of a head that is kept; official SDKs send fifteen."""
LINGER = 10.0
"""Seconds that the rest of an unwanted body is read and dropped, so that its sender gets to see the answer; and in which a
client that is to be left must read something of what it was sent."""
TURN = 8
"""Requests begun in one turn of the event loop.  However many come together, streams are served between them."""
LEAVING = 32
"""Clients that left whose connections are closed, or whose requests are ended, in one turn."""
TICK = 0.25
"""Granularity of the timeouts of idle connections, in seconds."""

HELD = 16 * 1024
"""Bytes that wait on one connection for the end of a turn."""
_MAX_WRITE_BUFFER = 64 * 1024
_NOT_HTTP = b'{"error":{"message":"The request is not valid HTTP.","type":"invalid_request_error","param":null,"code":"invalid_request"}}'
_JSON = b"content-type: application/json\r\n"


class _Sink:
    """The client's side of one answer; see `proxy.exchange.ClientSink`."""

    __slots__ = ("_chunked", "_http10", "_protocol", "bytes_out", "finished", "keep_alive", "on_resume", "started")

    def __init__(self, protocol: _Connection, http10: bool, keep_alive: bool) -> None:
        self._protocol = protocol
        self._http10 = http10
        self._chunked = False
        self.keep_alive = keep_alive
        self.started = False
        self.finished = False
        self.bytes_out = 0
        self.on_resume: Callable[[], None] | None = None

    def whole(self, status: int, head: bytes, body: bytes) -> None:
        self.started = self.finished = True
        length = len(body)
        if self._protocol.head_only:
            body = b""
        self._send(
            b"%b%b%bcontent-length: %d\r\n\r\n%b"
            % (self._status(status), head, self._connection_header(), length, body)
        )

    def begin(self, status: int, head: bytes, first: bytes) -> bool:
        self.started = True
        if self._http10:
            self.keep_alive = False  # the end of the connection is the end of the answer
            return self._send(b"%b%b%b\r\n%b" % (self._status(status), head, self._connection_header(), first))
        self._chunked = True
        if first:
            first = b"%x\r\n%b\r\n" % (len(first), first)
        return self._send(
            b"%b%b%btransfer-encoding: chunked\r\n\r\n%b"
            % (self._status(status), head, self._connection_header(), first)
        )

    def write(self, data: bytes) -> bool:
        if data and self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        return self._send(data)

    def finish(self) -> None:
        if not self.finished:
            self.finished = True
            if self._chunked:
                self._send(b"0\r\n\r\n")

    def abort(self) -> None:
        self.keep_alive = False
        self._protocol.transmit()  # what was said before stands
        transport = self._protocol.transport
        if transport is not None:
            transport.abort()

    def _status(self, status: int) -> bytes:
        """The status line, and what stands in every answer."""
        lines = self._protocol.door.status_lines
        return lines.get(status) or b"HTTP/1.1 %d \r\n%b" % (status, self._protocol.door.stamp)

    def _connection_header(self) -> bytes:
        if not self.keep_alive:
            return b"connection: close\r\n"
        return b"connection: keep-alive\r\n" if self._http10 else b""

    def _send(self, data: bytes) -> bool:
        protocol = self._protocol
        if protocol.transport is not None:
            self.bytes_out += len(data)
            protocol.send(data)
        return protocol.clogged


class HttpInbound:
    """A request as the pipeline sees it; see `proxy.exchange.Inbound`."""

    __slots__ = ("_body", "_connection", "head", "peer")

    def __init__(self, head: Head, body: bytes | StreamReader, connection: _Connection) -> None:
        self._body = body
        self._connection = connection
        self.head = head
        self.peer = connection.peer

    @property
    def headers(self) -> Mapping[str, str]:
        return self.head.headers

    def arrived(self) -> bytes | None:
        """A plain body within the limit that came with its head, or right behind it."""
        body = self._body
        limit = self._connection.door.body_limit
        if self.head.encoded:
            return None
        if type(body) is bytes:
            return body if len(body) <= limit else None
        assert isinstance(body, StreamReader)
        return body.read_nowait(-1) if body.is_eof() and body.total_bytes <= limit else None

    def stated_length(self) -> int:
        body = self._body
        return len(body) if isinstance(body, bytes) else int(self.headers.get("content-length", "0"))

    async def body(self) -> bytes:
        limit = self._connection.door.body_limit
        if self.stated_length() > limit:  # the parser has refused what is not a number
            raise Refusal("request_too_large", f"The body is larger than {limit} bytes.")
        raw = self._body
        if not isinstance(raw, bytes):
            raw = raw.read_nowait(-1) if raw.is_eof() else await self._read(raw, limit)
        if len(raw) > limit:
            raise Refusal("request_too_large", f"The body is larger than {limit} bytes.")
        encoding = self.headers.get("content-encoding")
        return decode_body(encoding, raw, limit) if encoding else raw

    async def _read(self, payload: StreamReader, limit: int) -> bytes:
        if self.headers.get("expect", "").lower() == "100-continue":
            self._connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._connection.door.body_timeout):
                while data := await payload.readany():
                    parts.append(data)
                    size += len(data)
                    if size > limit:
                        raise Refusal("request_too_large", f"The body is larger than {limit} bytes.")
        except TimeoutError:
            raise Refusal("request_timeout", "The body did not arrive in time.") from None
        except (RequestPayloadError, HttpProcessingError):
            raise Refusal("invalid_request", "The body's framing is broken.") from None
        return b"".join(parts)


class _Connection:
    """A client's connection: requests are parsed as they come and answered in turn.

    An asyncio protocol by its methods, and what aiohttp's parser and its `StreamReader` ask of one: they stop the reading
    when much is read that nobody asked for, and resume it.  It derives from neither's: so it can be compiled to a native
    class.
    """

    __slots__ = (
        "_arriving",
        "_buffer_paused",
        "_closing",
        "_due",
        "_left",
        "_loop",
        "_messages",
        "_parser",
        "_reading_paused",
        "_task",
        "_unsent",
        "_waiter",
        "clogged",
        "deadline",
        "door",
        "head_only",
        "peer",
        "sink",
        "transport",
    )

    def __init__(self, door: Door) -> None:
        protocol: Any = self
        self._parser: Any = HttpRequestParser(
            protocol, door.loop, READ_AHEAD, payload_exception=RequestPayloadError, auto_decompress=False, max_msg_queue_size=PIPELINED
        )  # fmt: skip
        self._loop = door.loop
        self.door = door
        self.transport: Any = None  # an asyncio.Transport, which uvloop's does not derive from
        self._reading_paused = False  # by the parser: a body has come that nobody reads
        self._buffer_paused = False  # by the requests that wait
        self.sink: _Sink | None = None
        self.head_only = False
        self.peer = ""
        self.deadline = math.inf  # of a head, or of idleness
        self._messages: list[tuple[Head, bytes | StreamReader] | None] = []  # None: what came is not HTTP
        self._due = 0  # bytes to the end of the request that the parser is in; -1: not known, so it gets all that comes
        self._closing = False  # nothing more is read
        self._arriving: StreamReader | None = None  # the newest request's body
        self._waiter: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self.clogged = False  # the client does not read
        self._unsent = b""  # what waits for the end of this turn
        self._left = 0  # bytes that waited in the socket's buffer when a deadline had passed

    # --- the transport's callbacks ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        peer = transport.get_extra_info("peername")
        self.peer = str(peer[0]) if isinstance(peer, tuple) else ""
        self.transport.set_write_buffer_limits(_MAX_WRITE_BUFFER)
        self.deadline = self._loop.time() + self.door.header_timeout
        self.door.opened(self)
        self._task = self._loop.create_task(self._run())

    def data_received(self, data: bytes) -> None:
        if self._closing or self._parser is None:
            return
        waits = self.idle
        known = None
        if not self._due and data and (self._arriving is None or self._arriving.is_eof()):
            known = self.door.heads.find(data)
        if known is not None:
            self._messages.append(known)
        else:
            self._parse(data)
        if self._messages:
            if waits:  # else it stands in the queue, or will when the request before this one is settled
                self.door.beginning.add(self.begin)
            if len(self._messages) >= PIPELINED and not self._buffer_paused:
                self._buffer_paused = True
                self._stop_reading()

    def _parse(self, data: bytes) -> None:
        """Give it to the parser, and take what it makes of it."""
        assert self._parser is not None
        first = not self._due
        if first:
            length = length_of(data)
            self._due = length - len(data) if length >= len(data) else -1
        elif self._due > 0:
            self._due = self._due - len(data) if self._due >= len(data) else -1
        try:
            messages, upgraded, _ = self._parser.feed_data(data)
        except HttpProcessingError as error:
            self._closing = True
            if self._arriving is not None and not self._arriving.is_eof():
                self._arriving.set_exception(error)  # its framing is broken: whoever reads the body says so
            else:
                self._messages.append(None)
            return
        for message, payload in messages:
            self._messages.append((_head(message, message.headers), payload))
            self._arriving = payload
        self._closing = upgraded  # the request is answered; another protocol is not spoken here
        if first and not self._due and len(messages) == 1 and not upgraded:
            self._learn(data, messages[0][0])

    def _learn(self, data: bytes, message: Any) -> None:
        headers = message.headers.copy()
        if len(headers) <= KEPT_HEADERS and FLEETING.isdisjoint([name.lower() for name in headers]):
            headers.popall("content-length")  # another in each
            self.door.heads.learn(data, _head(message, headers))

    def eof_received(self) -> bool:
        """The client left.  Closing takes longer than hearing of it, and many may leave at once."""
        self._closing = True
        self.door.leaving.add(self.left)
        return True

    def connection_lost(self, exc: BaseException | None) -> None:
        self.transport = None
        self._parser = None
        self._closing = True
        if self._task is None or self._task.done():
            self.door.closed(self)
        else:
            self.door.leaving.add(self.left)

    def left(self) -> None:
        """The client left, and it is this connection's turn."""
        if self.transport is not None:
            self.close()
        elif self._task is not None:
            self._task.cancel()  # engines would go on for clients that left (law 9)

    def pause_writing(self) -> None:
        self.clogged = True

    def resume_writing(self) -> None:
        self.clogged = False
        if self.sink is not None and self.sink.on_resume is not None:
            self.sink.on_resume()
        if self._waiter is not None and self._messages:
            self.door.beginning.add(self.begin)

    def begin(self) -> None:
        """It is this connection's turn; who does not read the answers before is not given more (law 10)."""
        waiter = self._waiter
        if waiter is not None and not waiter.done() and self._messages and not self.clogged:
            waiter.set_result(None)

    def on_deadline(self, now: float) -> None:
        """The head did not come in time, or nothing did.  Who then reads nothing of what waits is cut off."""
        waits = self.transport.get_write_buffer_size() if self.transport is not None else 0
        if waits and waits == self._left:
            self.transport.abort()
        self._left = waits
        self.deadline = now + LINGER
        self.close()

    # --- what is sent -----------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Write it at the end of this turn of the event loop, or when much waits."""
        if not self._unsent:
            self.door.outbox.add(self.transmit)
        self._unsent += data
        if len(self._unsent) > HELD:
            self.transmit()

    def transmit(self) -> None:
        """Write what waits."""
        data, self._unsent = self._unsent, b""
        if data and self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    # --- what aiohttp's parser asks of a protocol ---------------------------------------------------------

    @property
    def connected(self) -> bool:
        return self.transport is not None

    def pause_reading(self) -> None:
        self._reading_paused = True
        if self._parser is not None:
            self._parser.pause_reading()
        self._stop_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:
        self._reading_paused = False
        if resume_parser:
            self.data_received(b"")  # what the parser has kept; it may pause again
        self._go_on_reading()

    def _stop_reading(self) -> None:
        if self.transport is not None:
            self.transport.pause_reading()

    def _go_on_reading(self) -> None:
        """Unless one of the two reasons to wait remains."""
        if self.transport is not None and not self._reading_paused and not self._buffer_paused:
            self.transport.resume_reading()

    # --- requests in turn -------------------------------------------------------------------------------

    def close(self) -> None:
        """Close once what was answered is written; a request in flight is not waited for."""
        self._closing = True
        self.transmit()
        if self.transport is not None:
            self.transport.close()

    @property
    def idle(self) -> bool:
        return self._waiter is not None and not self._messages

    @property
    def task(self) -> asyncio.Task[None] | None:
        return self._task

    async def _run(self) -> None:
        door, messages = self.door, self._messages
        try:
            while True:
                if self._closing and not messages:
                    return
                self._waiter = self._loop.create_future()
                if messages:  # it came before the last one was settled
                    door.beginning.add(self.begin)
                try:
                    await self._waiter
                finally:
                    self._waiter = None
                self.deadline = math.inf
                item = messages.pop(0)
                if item is None:
                    _Sink(self, False, False).whole(400, _JSON, _NOT_HTTP)
                    return
                head, body = item
                self._consumed(body)
                sink = self.sink = _Sink(self, head.http10, not (head.closes or door.draining))
                self.head_only = head.method == "HEAD"
                try:
                    await door.serve(HttpInbound(head, body, self), sink)
                finally:
                    self.sink = None
                if not sink.finished:
                    sink.abort()
                    return
                if isinstance(body, StreamReader) and not body.is_eof():  # refused unread: what follows is not a head
                    await self._drop(body)
                    return
                if not sink.keep_alive:
                    return
                self.deadline = self._loop.time() + door.keepalive_timeout
        finally:
            if self.transport is None:
                self.door.closed(self)  # the client left before
            else:
                self.close()

    def _consumed(self, body: bytes | StreamReader) -> None:
        """One place is free for a pipelined request."""
        parser = self._parser
        if parser is None:
            return
        if type(body) is not bytes:
            parser.message_consumed()
        if self._buffer_paused and not self._messages:
            self.data_received(b"")
            if len(self._messages) < PIPELINED:
                self._buffer_paused = False
                self._go_on_reading()

    async def _drop(self, payload: StreamReader) -> None:
        """Closing on unread data resets the connection, and the client might never see its answer."""
        self._closing = False
        try:
            async with asyncio.timeout(LINGER):
                while await payload.readany():
                    pass
        except (TimeoutError, RequestPayloadError, HttpProcessingError):
            pass


def _head(message: Any, headers: Mapping[str, str]) -> Head:
    return Head(
        message.method, message.path, headers, http10=message.version is HttpVersion10, closes=message.should_close
    )


class Door:
    """The listening side, one per worker: makes a protocol for each connection.  `serve` gets each request and its sink."""

    def __init__(
        self,
        serve: Serve,
        loop: asyncio.AbstractEventLoop,
        *,
        body_limit: int,
        header_timeout: float,
        body_timeout: float,
        keepalive_timeout: float = 75.0,
        stamp: Sequence[Header] = (),
    ) -> None:
        self.serve = serve
        self.stamp = header_block(stamp)  # on every answer
        self.status_lines = {
            one.value: f"HTTP/1.1 {one.value} {one.phrase}\r\n".encode() + self.stamp for one in HTTPStatus
        }
        self.heads: Heads[Head] = Heads()
        self.loop = loop
        self.body_limit = body_limit
        self.header_timeout = header_timeout
        self.body_timeout = body_timeout
        self.keepalive_timeout = keepalive_timeout
        self.draining = False
        self._deadlines = Deadlines(loop, tick=TICK)
        self._connections: set[_Connection] = set()
        self.beginning = Turns(loop, TURN)  # a connection stands in it once
        self.leaving = Turns(loop, LEAVING)
        self.outbox = Turns(loop)  # in which what is sent waits for the end of a turn

    def __call__(self) -> _Connection:
        return _Connection(self)

    def opened(self, connection: _Connection) -> None:
        self._connections.add(connection)
        self._deadlines.add(connection)

    def closed(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        self._deadlines.discard(connection)

    async def shutdown(self, seconds: float) -> None:
        """Close idle connections; let the others end, at most for `seconds`."""
        tasks = set()
        for connection in list(self._connections):
            if connection.idle:
                connection.close()
            elif connection.task is not None:
                tasks.add(connection.task)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=seconds)
        self._deadlines.close()
