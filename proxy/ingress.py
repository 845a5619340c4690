"""HTTP in and out, on aiohttp's low-level server.  No decisions.

aiohttp parses requests, keeps connections and cancels the handler when a client leaves.  Answers are
written to the connection's transport directly: head and body in one write, and an event of a stream
without a task switch.  That bypasses aiohttp's writer, so its backpressure and framing are kept here:
`_Sink` is the only writer, chunked framing is its own, and a connection whose answer was not finished is
closed, never reused (a half-written answer on a kept connection would be read as the next one's head).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from proxy.encodings import decode_body
from proxy.errors import Refusal
from proxy.exchange import Header

Serve = Callable[["HttpInbound", "_Sink"], Awaitable[None]]

_STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}
_MAX_WRITE_BUFFER = 64 * 1024


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

    def whole(self, status: int, headers: Sequence[Header], body: bytes) -> None:
        self.started = self.finished = True
        parts = self._head(status, headers)
        parts.append(b"content-length: %d\r\n\r\n" % len(body))
        if self._protocol.head_only:
            body = b""
        self._send(b"".join(parts) + body)

    def begin(self, status: int, headers: Sequence[Header], first: bytes) -> bool:
        self.started = True
        parts = self._head(status, headers)
        if self._http10:
            self.keep_alive = False  # the end of the connection is the end of the answer
            parts.append(b"\r\n")
        else:
            self._chunked = True
            parts.append(b"transfer-encoding: chunked\r\n\r\n")
        if first:
            parts.append(self._framed(first))
        return self._send(b"".join(parts))

    def write(self, data: bytes) -> bool:
        return self._send(self._framed(data)) if data else self._protocol.writing_paused

    def finish(self) -> None:
        if not self.finished:
            self.finished = True
            if self._chunked:
                self._send(b"0\r\n\r\n")

    def abort(self) -> None:
        self.keep_alive = False
        transport = self._protocol.transport
        if transport is not None:
            transport.abort()

    def _framed(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data

    def _head(self, status: int, headers: Sequence[Header]) -> list[bytes]:
        parts = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
        parts.extend([b"%b: %b\r\n" % header for header in headers])
        if not self.keep_alive:
            parts.append(b"connection: close\r\n")
        elif self._http10:
            parts.append(b"connection: keep-alive\r\n")
        return parts

    def _send(self, data: bytes) -> bool:
        protocol = self._protocol
        if protocol.transport is not None:
            self.bytes_out += len(data)
            protocol.transport.write(data)
        return protocol.writing_paused


class HttpInbound:
    """A request as the pipeline sees it; see `proxy.exchange.Inbound`."""

    __slots__ = ("_door", "_request", "headers", "method", "path", "peer", "query")

    def __init__(self, request: web.BaseRequest, door: Door) -> None:
        self._request = request
        self._door = door
        self.method = request.method
        self.path, _, self.query = request.raw_path.partition("?")
        self.headers: Mapping[str, str] = request.headers
        self.peer = cast("_Connection", request.protocol).peer

    async def body(self) -> bytes:
        limit = self._door.body_limit
        stated = self.headers.get("content-length")
        if stated is not None and int(stated) > limit:  # the parser has refused what is not a number
            raise Refusal("request_too_large", f"The body is larger than {limit} bytes.")
        content = self._request.content
        if content.is_eof():
            raw = content.read_nowait(-1)
        else:
            raw = await self._read(limit)
        if len(raw) > limit:
            raise Refusal("request_too_large", f"The body is larger than {limit} bytes.")
        encoding = self.headers.get("content-encoding")
        return decode_body(encoding, raw, limit) if encoding else raw

    async def _read(self, limit: int) -> bytes:
        if self.headers.get("expect", "").lower() == "100-continue":
            transport = self._request.transport
            if transport is not None:
                transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._door.body_timeout):
                while data := await self._request.content.readany():
                    parts.append(data)
                    size += len(data)
                    if size > limit:
                        raise Refusal("request_too_large", f"The body is larger than {limit} bytes.")
        except TimeoutError:
            raise Refusal("request_timeout", "The body did not arrive in time.") from None
        except (web.RequestPayloadError, HttpProcessingError):
            raise Refusal("invalid_request", "The body's framing is broken.") from None
        return b"".join(parts)


class _Answered:
    """What the handler hands back to aiohttp: the answer is on the wire already."""

    __slots__ = ("keep_alive",)
    status = 0
    body_length = 0

    def __init__(self, keep_alive: bool) -> None:
        self.keep_alive = keep_alive

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self) -> None:
        return None


class _Connection(web.RequestHandler):
    """aiohttp's connection, and the current sink's ear for its backpressure."""

    __slots__ = ("_head_timer", "head_only", "peer", "sink")

    def __init__(self, manager: Door, **kwargs: Any) -> None:
        super().__init__(manager, **kwargs)
        self.sink: _Sink | None = None
        self.head_only = False
        self.peer = ""
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self.peer = str(peer[0]) if isinstance(peer, tuple) else ""
        cast(asyncio.Transport, transport).set_write_buffer_limits(_MAX_WRITE_BUFFER)
        self._start_head_timer()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head_timer is not None and self._request_count:
            self._head_timer.cancel()
            self._head_timer = None

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.sink is not None and self.sink.on_resume is not None:
            self.sink.on_resume()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """A request that aiohttp's parser refuses (smuggling, oversized heads), in the envelope of our default dialect.

        The parser's own words may quote the head, so they are not passed on.
        """
        body = b'{"error":{"message":"The request is not valid HTTP.","type":"invalid_request_error","param":null,"code":"invalid_request"}}'
        sink = _Sink(self, http10=False, keep_alive=False)
        sink.whole(status, [(b"content-type", b"application/json")], body)
        return cast(web.StreamResponse, _Answered(keep_alive=False))

    def _start_head_timer(self) -> None:
        """A new connection must bring a whole head in time; later ones stand under the keep-alive timeout."""
        door = cast(Door, self._manager)
        self._head_timer = self._loop.call_later(door.header_timeout, self._head_too_slow)

    def _head_too_slow(self) -> None:
        self._head_timer = None
        self.force_close()


class Door(web.Server):
    """The listening side: one per worker.  `serve` gets each request and its sink."""

    def __init__(
        self,
        serve: Serve,
        *,
        body_limit: int,
        header_timeout: float,
        body_timeout: float,
        keepalive_timeout: float = 75.0,
    ) -> None:
        super().__init__(
            self._handle,  # type: ignore[arg-type]  # _Answered quacks as far as finish_response asks
            handler_cancellation=True,  # off by default: engines would go on for clients that left
            keepalive_timeout=keepalive_timeout,
            access_log=None,
            auto_decompress=False,  # decoded with a bound of our own
        )
        self._serve = serve
        self.body_limit = body_limit
        self.header_timeout = header_timeout
        self.body_timeout = body_timeout
        self.draining = False

    def __call__(self) -> _Connection:
        return _Connection(self, loop=self._loop, **self._kwargs)

    async def _handle(self, request: web.BaseRequest) -> _Answered:
        connection = cast(_Connection, request.protocol)
        version = request.version
        http10 = version.major == 1 and version.minor == 0
        sink = _Sink(connection, http10, request.keep_alive and not self.draining)
        connection.sink = sink
        connection.head_only = request.method == "HEAD"
        try:
            await self._serve(HttpInbound(request, self), sink)
        finally:
            connection.sink = None
        if not sink.finished:
            sink.abort()
        elif not request.content.is_eof():
            sink.keep_alive = False  # refused before its body was read: what follows is not a head
        return _Answered(sink.keep_alive)
