"""The only module that opens sockets to engines: a pool per origin, TLS, an egress proxy, and the boundary.

A boundary is checked, not believed: a target that is called `local` must really be reached at a loopback or
private address, or one that its operator listed.  The check looks at the connected socket's peer, so that no
name and no redirect can lead elsewhere; not one request byte is sent before it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections import deque
from collections.abc import Sequence
from typing import Any

from engines.addresses import Address, address_of
from engines.errors import (
    AnswerTooLarge,
    BoundaryViolation,
    ConnectFailed,
    ConnectTimeout,
    EngineError,
    FirstEventTimeout,
)
from engines.heads import Heads
from engines.http1 import Connection, Header, Receiver, header_block
from engines.model import Target
from engines.peers import LOCAL, peer_allowed
from engines.turns import Turns

__all__ = ["Connection", "Header", "Receiver", "Transport", "header_block", "peer_allowed"]

FETCH_LIMIT = 8 * 1024 * 1024
STEPS = 32
"""Answers that are read, or ended and recorded, in one turn of the event loop where more of them wait."""
RESEND_TIMEOUT = 2.0
"""Seconds to connect again after a pooled connection was found dead."""


class Transport:
    """The pool.  `max_idle` connections are kept for each origin, for `idle_timeout` seconds."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        tls: ssl.SSLContext | None = None,
        egress_proxy: str | None = None,
        max_idle: int = 256,
        idle_timeout: float = 30.0,
    ) -> None:
        self._loop = loop
        self._tls = tls
        self._egress_proxy = egress_proxy
        self._max_idle = max_idle
        self._idle_timeout = idle_timeout
        self._idle: dict[tuple[str, str, tuple[str, ...]], deque[Connection]] = {}  # the one used last on the right
        self._sweeper: asyncio.TimerHandle | None = None  # one for all, while any is idle
        self._open: set[Connection] = set()
        self._resending: set[asyncio.Task[None]] = set()
        self._closed = False
        self.heads: Heads[tuple[Header, ...]] = Heads()
        self.turns = Turns(loop, STEPS)
        self.outbox = Turns(loop)

    def try_pooled(self, target: Target, origin: str) -> Connection | None:
        """An idle connection, the one used last; None where there is none."""
        idle = self._idle.get((origin, target.boundary, target.allowed_peers))
        oldest = self._loop.time() - self._idle_timeout
        while idle:
            connection = idle.pop()
            if connection.closed:
                continue
            if connection.idle_since < oldest:
                connection.abort()
                continue
            connection.reused = True
            return connection
        return None

    async def open(self, target: Target, origin: str, *, timeout: float) -> Connection:
        """A connection whose peer is inside the target's boundary; raises `ConnectFailed` and its kinds."""
        return self.try_pooled(target, origin) or await self._connect(target, origin, timeout)

    async def fetch(
        self,
        target: Target,
        origin: str,
        method: bytes,
        path: bytes,
        headers: list[Header],
        body: bytes = b"",
        *,
        timeout: float,
        limit: int = FETCH_LIMIT,
    ) -> tuple[int, list[Header], bytes]:
        """One small request as a whole, for probes: (status, headers, body of at most `limit` bytes)."""
        deadline = self._loop.time() + timeout
        connection = await self.open(target, origin, timeout=timeout)
        collector = _Collector(self._loop.create_future(), connection, limit)
        connection.request(method, path, header_block(headers), body, collector)
        try:
            async with asyncio.timeout_at(deadline):
                return await collector.answer
        except TimeoutError:
            raise FirstEventTimeout("the engine sent no whole answer in time") from None
        finally:
            collector.leave()

    async def close(self) -> None:
        """Abort everything; nothing can be opened afterwards."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for task in self._resending:
            task.cancel()
        for connection in list(self._open):
            connection.abort()
        self._idle.clear()

    @property
    def open_connections(self) -> int:
        return len(self._open)

    @property
    def idle_connections(self) -> int:
        return sum(len(idle) for idle in self._idle.values())

    # --- what connections call --------------------------------------------------------------------------

    def give_back(self, connection: Connection) -> None:
        if connection.closed:
            return
        idle = self._idle.get(connection.key)
        if idle is None:
            idle = self._idle[connection.key] = deque()
        if len(idle) >= self._max_idle:
            connection.abort()
            return
        connection.idle_since = self._loop.time()
        idle.append(connection)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(self._idle_timeout, self._sweep)

    def forget(self, connection: Connection) -> None:
        self._open.discard(connection)
        idle = self._idle.get(connection.key)
        if idle and connection in idle:
            idle.remove(connection)

    def send_again(self, connection: Connection, data: bytes, receiver: Receiver, reusable: bool) -> asyncio.Task[None]:
        task = self._loop.create_task(self._send_again(connection, data, receiver, reusable))
        self._resending.add(task)
        task.add_done_callback(self._resending.discard)
        return task

    def _sweep(self) -> None:
        """Close what was idle for too long: the connections that the last-used-first order never reaches."""
        now = self._loop.time()
        self._sweeper = None
        following = now + self._idle_timeout
        for key, idle in list(self._idle.items()):
            while idle and idle[0].idle_since + self._idle_timeout <= now:
                idle.popleft().abort()
            if idle:
                following = min(following, idle[0].idle_since + self._idle_timeout)
            else:
                del self._idle[key]
        if self._idle:
            self._sweeper = self._loop.call_at(following, self._sweep)

    # --- connecting -------------------------------------------------------------------------------------

    async def _connect(self, target: Target, origin: str, timeout: float) -> Connection:
        address = address_of(origin)
        connection = Connection(self._loop, self, target, origin, address.header, address.prefix)
        usable = False
        try:
            async with asyncio.timeout(timeout):
                await self._open_socket(address, target, connection)
            self._check(connection)
            usable = True
        except TimeoutError:
            raise ConnectTimeout("the engine did not accept the connection in time") from None
        except ssl.SSLError as error:
            raise ConnectFailed(f"the engine's TLS {_tls_reason(error)}") from None
        except OSError as error:
            raise ConnectFailed(f"the engine cannot be reached ({_reason(error)})") from None
        except UnicodeError:  # from the IDNA encoding of a name
            raise ConnectFailed("the engine's name is not a host's name") from None
        finally:
            if not usable:
                connection.abort()
        self._open.add(connection)
        return connection

    def _check(self, connection: Connection) -> None:
        """A connection that stands and whose peer is inside the boundary."""
        target = connection.target
        if not self._through_proxy(target) and not peer_allowed(connection.peer, target.boundary, target.allowed_peers):
            raise BoundaryViolation(f"the engine's address lies outside the boundary {target.boundary!r}")
        if connection.closed or self._closed:
            raise ConnectFailed("the connection was closed as soon as it was open")

    async def _open_socket(self, address: Address, target: Target, connection: Connection) -> None:
        context = await self._context() if address.tls else None
        protocol: Any = connection
        if not self._through_proxy(target):
            server_name = address.host if address.tls else None
            await self._loop.create_connection(
                lambda: protocol, address.host, address.port, ssl=context, server_hostname=server_name
            )
            return
        transport = await self._tunnel(address)
        if context is None:
            transport.set_protocol(protocol)
            connection.connection_made(transport)
        else:
            upgraded = await self._loop.start_tls(transport, protocol, context, server_hostname=address.host)
            if upgraded is None:  # it closed meanwhile
                raise ConnectFailed("the egress proxy closed the connection")
            connection.connection_made(upgraded)

    async def _tunnel(self, address: Address) -> asyncio.Transport:
        """A connection through the egress proxy (RFC 9110, section 9.3.6)."""
        assert self._egress_proxy is not None
        proxy = address_of(self._egress_proxy)
        tunnel = _Tunnel(self._loop.create_future())
        transport, _ = await self._loop.create_connection(
            lambda: tunnel,
            proxy.host,
            proxy.port,
            ssl=await self._context() if proxy.tls else None,
            server_hostname=proxy.host if proxy.tls else None,
        )
        headers = [(b"host", address.authority)]
        if proxy.credentials:
            headers.append((b"proxy-authorization", proxy.credentials))
        try:
            transport.write(b"CONNECT %b HTTP/1.1\r\n%b\r\n" % (address.authority, header_block(headers)))
            await tunnel.ready
        except BaseException:
            transport.abort()
            raise
        return transport

    async def _context(self) -> ssl.SSLContext:
        """The authorities of this host are read in a thread: it takes 20 ms."""
        if self._tls is None:
            self._tls = await self._loop.run_in_executor(None, ssl.create_default_context)
        return self._tls

    def _through_proxy(self, target: Target) -> bool:
        return self._egress_proxy is not None and target.boundary != LOCAL

    async def _send_again(self, dead: Connection, data: bytes, receiver: Receiver, reusable: bool) -> None:
        try:
            connection = await self._connect(dead.target, dead.origin, RESEND_TIMEOUT)
        except EngineError as error:
            receiver.on_error(error)
            return
        if receiver.moved(connection):
            connection.send(data, receiver, reusable=reusable, resend=False)
        else:
            connection.abort()


class _Tunnel(asyncio.Protocol):
    """Waits for an egress proxy's answer to CONNECT."""

    __slots__ = ("_head", "ready")

    def __init__(self, ready: asyncio.Future[None]) -> None:
        self.ready = ready
        self._head = b""

    def data_received(self, data: bytes) -> None:
        if self.ready.done():
            return
        self._head += data
        if b"\r\n\r\n" in self._head:
            if self._head.startswith((b"HTTP/1.1 2", b"HTTP/1.0 2")):
                self.ready.set_result(None)
            else:
                self.ready.set_exception(ConnectFailed("the egress proxy refused the connection"))
        elif len(self._head) > 16384:
            self.ready.set_exception(ConnectFailed("the egress proxy's answer is too large"))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ready.done():
            self.ready.set_exception(ConnectFailed("the egress proxy closed the connection"))


class _Collector(Receiver):
    """A receiver that keeps a whole small answer."""

    __slots__ = ("_connection", "_ended", "_headers", "_limit", "_parts", "_size", "_status", "answer")

    def __init__(
        self, answer: asyncio.Future[tuple[int, list[Header], bytes]], connection: Connection, limit: int
    ) -> None:
        self.answer = answer
        self._ended = False
        self._limit = limit
        self._connection = connection
        self._status = 0
        self._headers: list[Header] = []
        self._parts: list[bytes] = []
        self._size = 0

    def leave(self) -> None:
        """Nobody waits any more: the connection goes, if the answer is not over."""
        if not self._ended:
            self._connection.abort()

    def moved(self, connection: Connection) -> bool:
        self._connection = connection
        return not self.answer.done()

    def on_head(self, status: int, headers: Sequence[Header]) -> None:
        self._status, self._headers = status, list(headers)

    def on_body(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._limit:
            self._connection.abort()
            self.on_error(AnswerTooLarge("the engine's answer is too large"))
        else:
            self._parts.append(data)

    def on_end(self) -> None:
        self._ended = True
        if not self.answer.done():
            self.answer.set_result((self._status, self._headers, b"".join(self._parts)))

    def on_error(self, error: EngineError) -> None:
        self._ended = True
        if not self.answer.done():
            self.answer.set_exception(error)


_CERTIFICATE_FAULTS = {
    10: "has expired",
    18: "is self-signed",
    19: "is signed by an authority that is not trusted",
    20: "is signed by an authority that is not trusted",
    62: "is for another name",
    64: "is for another address",
}
"""By X509_V_ERR_* (OpenSSL, X509_STORE_CTX_get_error)."""


def _tls_reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate {_CERTIFICATE_FAULTS.get(error.verify_code, 'was not accepted')}"
    return "handshake failed"


def _reason(error: OSError) -> str:
    """In this system's words: an exception's own may quote the peer."""
    if isinstance(error, socket.gaierror):
        return "its name is not known"
    if error.errno and error.errno > 0:
        return os.strerror(error.errno)
    return "no address of its name answered"  # asyncio joins the faults of several addresses
