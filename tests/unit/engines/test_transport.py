"""The way to engines: the boundary at connect, the pool, TLS, an egress proxy, and what cannot be reached."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from receiving import CLOUD, LOCAL, Collector, certificates, exchange, until
from scripted import Play, Received, ScriptedEngine, answering, json_answer

from engines import transport as module
from engines.addresses import address_of
from engines.errors import (
    AnswerTooLarge,
    BoundaryViolation,
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    FirstEventTimeout,
)
from engines.transport import Transport, peer_allowed


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1", True), ("127.8.9.1", True), ("10.1.2.3", True), ("172.16.0.1", True), ("172.32.0.1", False), ("192.168.1.1", True),
        ("169.254.1.1", True), ("100.64.0.1", False), ("8.8.8.8", False), ("0.0.0.0", False), ("::1", True), ("fd00::1", True),
        ("fe80::1%eth0", True), ("2001:db8::1", False), ("::", False), ("64:ff9b::a00:1", False), ("2002:a00:1::", False), ("::10.0.0.1", False), ("::ffff:10.0.0.1", True), ("::ffff:8.8.8.8", False), ("", False), ("name", False),
    ],
)  # fmt: skip
def test_law_01_who_is_inside_the_boundary(address: str, local: bool) -> None:
    assert peer_allowed(address, "local") is local
    assert peer_allowed(address, "cloud")


def test_a_listed_network_is_inside() -> None:
    assert peer_allowed("100.64.3.4", "local", ("100.64.0.0/10",))
    assert not peer_allowed("100.128.0.1", "local", ("100.64.0.0/10",))


def test_addresses() -> None:
    address = address_of("https://api.example.com/openai")
    assert (address.host, address.port, address.tls, address.prefix, address.header) == (
        "api.example.com",
        443,
        True,
        b"/openai",
        b"api.example.com",
    )
    assert address_of("http://[::1]:8000").header == b"[::1]:8000"
    assert address_of("https://[::1]").authority == b"[::1]:443"
    proxy = address_of("http://me:p%40ss@proxy:3128")
    assert base64.b64decode(proxy.credentials.removeprefix(b"Basic ")) == b"me:p@ss"
    assert proxy.credentials.decode() not in repr(proxy)
    for bad in ("ftp://x", "nonsense", "http://", "http://[::1", "http://h:99999"):
        with pytest.raises(ConnectFailed):
            address_of(bad)


async def test_a_request_and_its_answer(transport: Transport) -> None:
    async with ScriptedEngine(answering({"a": 1}, headers=[("X-Thing", "Y")])) as engine:
        for turn in range(3):
            got = await exchange(transport, engine.url + "/base")
            assert (got.status, got.body, got.error) == (200, b'{"a": 1}', None)
            assert (b"x-thing", b"Y") in got.headers
            await asyncio.sleep(0)
            assert transport.idle_connections == 1, turn
        received = engine.requests[0]
        assert (received.method, received.path, received.body) == ("POST", "/base/v1/x", b"hello")
        assert received.headers["host"] == f"127.0.0.1:{engine.port}"
        assert engine.connections == 1  # kept and used again


async def test_law_01_the_peer_is_checked_before_a_byte_is_sent(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "peer_allowed", lambda *_: False)  # as if the name had led outside
    async with ScriptedEngine(answering({})) as engine:
        with pytest.raises(BoundaryViolation):
            await transport.open(LOCAL, engine.url, timeout=1)
        await until(lambda: engine.connections and not engine.alive)
        assert engine.raw == b"" and transport.open_connections == 0


async def test_law_01_the_boundary_is_checked_again_when_a_request_is_sent_again(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(received: Received, play: Play) -> bool:
        if len(engine.requests) == 1:
            await play.send(json_answer({}))
        return len(engine.requests) == 1

    async with ScriptedEngine(script) as engine:
        await exchange(transport, engine.url)
        await asyncio.sleep(0)
        monkeypatch.setattr(module, "peer_allowed", lambda *_: False)  # the name leads elsewhere now
        got = await exchange(transport, engine.url)
        assert isinstance(got.error, BoundaryViolation)
        assert len(engine.requests) == 2


async def test_law_01_a_clouds_connection_never_serves_a_local_target(transport: Transport) -> None:
    async with ScriptedEngine(answering({})) as engine:
        await exchange(transport, engine.url, CLOUD)
        await asyncio.sleep(0)
        assert transport.try_pooled(LOCAL, engine.url) is None
        assert transport.try_pooled(CLOUD, engine.url) is not None


async def test_nobody_there(transport: Transport) -> None:
    with pytest.raises(ConnectFailed, match="refused"):
        await transport.open(LOCAL, "http://127.0.0.1:1", timeout=1)


@pytest.mark.parametrize("origin", ["http://a..b", "http://" + "a" * 70 + ".x", "http://h:99999"])
async def test_what_is_no_name_is_a_failed_connection(origin: str, transport: Transport) -> None:
    with pytest.raises(ConnectFailed):
        await transport.open(CLOUD, origin, timeout=1)


@contextlib.contextmanager
def deaf() -> Iterator[str]:
    """The URL of a listener whose backlog is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def sockets() -> int:
    """Sockets that this process holds."""
    links = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            links.append(os.readlink(f"/proc/self/fd/{number}"))
    return sum(link.startswith("socket:") for link in links)


async def test_nobody_accepts(transport: Transport) -> None:
    with deaf() as url:
        before = sockets()
        with pytest.raises(ConnectTimeout):
            await transport.open(LOCAL, url, timeout=0.1)
        await until(lambda: sockets() == before)
    assert transport.open_connections == 0


async def test_law_09_giving_up_while_connecting_leaves_no_socket(transport: Transport) -> None:
    with deaf() as url:
        before = sockets()
        opening = asyncio.create_task(transport.open(LOCAL, url, timeout=5))
        await until(lambda: sockets() == before + 1)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await until(lambda: sockets() == before, 0.1)


@pytest.mark.parametrize("tls", [False, True])
async def test_giving_up_at_any_moment_of_connecting_leaves_no_socket(tls: bool, tmp_path: Path) -> None:
    server, client = certificates(tmp_path) if tls else (None, None)
    transport = Transport(asyncio.get_running_loop(), tls=client)
    async with ScriptedEngine(answering({}), tls=server) as engine:
        before = sockets()
        for turns in range(25):
            opening = asyncio.create_task(transport.open(LOCAL, engine.url, timeout=1))
            for _ in range(turns):
                await asyncio.sleep(0)
            if turns > 15:
                await asyncio.sleep(0.0004 * (turns - 15))  # into and past the TLS handshake
            opening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                (await opening).abort()
        await until(lambda: sockets() == before and not engine.alive)
        assert transport.open_connections == 0
    await transport.close()


async def test_nothing_opens_once_it_is_closed(transport: Transport) -> None:
    async with ScriptedEngine(answering({})) as engine:
        kept = await transport.open(LOCAL, engine.url, timeout=1)
        opening = asyncio.create_task(transport.open(LOCAL, engine.url, timeout=1))
        await asyncio.sleep(0)
        await transport.close()
        with pytest.raises(ConnectFailed):
            await opening
        kept.release()
        await until(lambda: transport.open_connections == 0 and not engine.alive)
        assert transport.idle_connections == 0


async def test_a_dead_pooled_connection_is_replaced_once_if_no_byte_came(transport: Transport) -> None:
    """llama.cpp says keep-alive and closes: the next request on that connection must not fail."""
    answers = 0

    async def script(received: Received, play: Play) -> bool:
        nonlocal answers
        answers += 1
        if answers == 2:
            return False  # it reads the request and closes without a word
        await play.send(json_answer({"n": answers}))
        return True

    async with ScriptedEngine(script) as engine:
        assert (await exchange(transport, engine.url)).body == b'{"n": 1}'
        await asyncio.sleep(0)
        second = await exchange(transport, engine.url)
        assert (second.body, second.error, second.moves) == (b'{"n": 3}', None, 1)
        assert engine.requests[1].body == engine.requests[2].body


async def test_nothing_is_sent_twice_once_a_byte_came(transport: Transport) -> None:
    turn = 0

    async def script(received: Received, play: Play) -> bool:
        nonlocal turn
        turn += 1
        await play.send(json_answer({}) if turn == 1 else b"HTTP/1.1 2")
        return turn == 1

    async with ScriptedEngine(script) as engine:
        await exchange(transport, engine.url)
        await asyncio.sleep(0)
        got = await exchange(transport, engine.url)
        assert isinstance(got.error, ConnectionLost) and len(engine.requests) == 2


async def test_a_request_is_sent_again_once_and_no_more(transport: Transport) -> None:
    async def script(received: Received, play: Play) -> bool:
        if len(engine.requests) == 1:
            await play.send(json_answer({}))
        return len(engine.requests) == 1

    async with ScriptedEngine(script) as engine:
        await exchange(transport, engine.url)
        await asyncio.sleep(0)
        got = await exchange(transport, engine.url)
        assert isinstance(got.error, ConnectionLost)
        assert [received.connection for received in engine.requests] == [1, 1, 2]


@pytest.mark.parametrize("pooled", [False, True])
async def test_nothing_is_sent_again_on_a_fresh_connection_or_where_nobody_wants_it(
    pooled: bool, transport: Transport
) -> None:
    async def script(received: Received, play: Play) -> bool:
        if pooled and len(engine.requests) == 1:
            await play.send(json_answer({}))
            return True
        return False

    async with ScriptedEngine(script) as engine:
        if pooled:
            await exchange(transport, engine.url)
            await asyncio.sleep(0)
        got = await exchange(transport, engine.url, resend=not pooled)
        assert isinstance(got.error, ConnectionLost)
        assert len(engine.requests) == 1 + pooled


async def test_law_09_leaving_while_a_request_is_about_to_be_sent_again(transport: Transport) -> None:
    async def script(received: Received, play: Play) -> bool:
        if len(engine.requests) == 1:
            await play.send(json_answer({}))
            return True
        return False

    async with ScriptedEngine(script) as engine:
        await exchange(transport, engine.url)
        await asyncio.sleep(0)
        connection = await transport.open(LOCAL, engine.url, timeout=1)
        collector = Collector()
        connection.request(b"POST", b"/", b"", b"", collector)
        while not connection.closed:
            await asyncio.sleep(0)  # each turn: the very one before the new connection stands
        assert collector.moves == 0
        connection.abort()
        await asyncio.sleep(0.05)  # for what must not come
        assert len(engine.requests) == 2 and not engine.alive  # the third was never sent
        assert not collector.over.done() and collector.moves == 0 and transport.open_connections == 0


async def test_an_idle_connection_that_the_engine_closes_or_speaks_on_leaves_the_pool(transport: Transport) -> None:
    for last_words in (b"", b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n"):
        over = asyncio.Event()

        async def script(received: Received, play: Play, last: bytes = last_words, over: asyncio.Event = over) -> bool:
            await play.send(json_answer({}))
            await over.wait()
            await play.send(last)
            return bool(last)

        async with ScriptedEngine(script) as engine:
            await exchange(transport, engine.url)
            await asyncio.sleep(0)
            assert transport.idle_connections == 1
            over.set()
            await until(lambda: transport.open_connections == 0)
            assert transport.idle_connections == 0


async def test_law_10_the_pool_is_bounded_and_the_last_used_goes_first() -> None:
    transport = Transport(asyncio.get_running_loop(), max_idle=2)
    async with ScriptedEngine(answering({})) as engine:
        opened = [await transport.open(LOCAL, engine.url, timeout=1) for _ in range(4)]
        for connection in opened:
            connection.release()
        await until(lambda: transport.open_connections == 2)
        assert transport.try_pooled(LOCAL, engine.url) is opened[1]
        assert transport.try_pooled(LOCAL, engine.url) is opened[0]
        assert transport.try_pooled(LOCAL, engine.url) is None
        await transport.close()


async def test_connections_that_nobody_needs_are_closed_in_time() -> None:
    """Also those under one that is always in use, and those of an origin that is never asked again."""
    transport = Transport(asyncio.get_running_loop(), idle_timeout=0.15)
    async with ScriptedEngine(answering({})) as busy, ScriptedEngine(answering({})) as quiet:
        for url in (busy.url, busy.url, quiet.url):
            opened = [await transport.open(LOCAL, url, timeout=1) for _ in range(2)]
            for connection in opened:
                connection.release()
        assert transport.idle_connections == 4
        until_then = asyncio.get_running_loop().time() + 0.4
        while asyncio.get_running_loop().time() < until_then:
            await exchange(transport, busy.url)
            await asyncio.sleep(0.005)
        assert transport.open_connections == transport.idle_connections == 1
        assert busy.alive == 1 and not quiet.alive
        await until(lambda: transport.open_connections == 0)
    await transport.close()


async def test_a_connection_that_was_opened_in_vain_is_used_later(transport: Transport) -> None:
    async with ScriptedEngine(answering({})) as engine:
        (await transport.open(LOCAL, engine.url, timeout=1)).release()
        await exchange(transport, engine.url)
        assert engine.connections == 1


async def test_a_connection_that_must_not_be_kept_is_closed(transport: Transport) -> None:
    async with ScriptedEngine(answering({})) as engine:
        await exchange(transport, engine.url, reusable=False)
        await until(lambda: transport.open_connections == 0)


async def test_fetch_has_a_deadline_and_leaves_nothing(transport: Transport) -> None:
    async def script(received: Received, play: Play) -> bool:
        await play.left()
        return False

    async with ScriptedEngine(script) as engine:
        with pytest.raises(FirstEventTimeout):
            await transport.fetch(LOCAL, engine.url, b"GET", b"/health", [], timeout=0.1)
        await until(lambda: transport.open_connections == 0)


async def test_fetch_leaves_nothing_on_the_second_connection_either(transport: Transport) -> None:
    async def script(received: Received, play: Play) -> bool:
        if len(engine.requests) == 1:
            await play.send(json_answer({}))
        elif len(engine.requests) == 3:
            await play.left()
        return len(engine.requests) == 1

    async with ScriptedEngine(script) as engine:
        assert (await transport.fetch(LOCAL, engine.url, b"GET", b"/", [], timeout=1))[0] == 200
        await asyncio.sleep(0)
        with pytest.raises(FirstEventTimeout):
            await transport.fetch(LOCAL, engine.url, b"GET", b"/", [], timeout=0.1)
        assert len(engine.requests) == 3
        await until(lambda: transport.open_connections == 0)


async def test_law_10_fetch_keeps_no_more_than_its_limit(transport: Transport) -> None:
    async with ScriptedEngine(answering({"a": "x" * 1000})) as engine:
        assert len((await transport.fetch(LOCAL, engine.url, b"GET", b"/", [], timeout=1, limit=1009))[2]) == 1009
        with pytest.raises(AnswerTooLarge):
            await transport.fetch(LOCAL, engine.url, b"GET", b"/", [], timeout=1, limit=1008)
        await until(lambda: transport.open_connections == transport.idle_connections)


async def test_tls_is_verified(tmp_path: Path) -> None:
    server, client = certificates(tmp_path)
    loop = asyncio.get_running_loop()
    trusting, strict = Transport(loop, tls=client), Transport(loop)
    async with ScriptedEngine(answering({"a": 1}), tls=server) as engine:
        assert (await exchange(trusting, engine.url, CLOUD)).body == b'{"a": 1}'
        with pytest.raises(ConnectFailed, match="TLS certificate is self-signed"):
            await strict.open(CLOUD, engine.url, timeout=1)
        with pytest.raises(ConnectFailed, match="TLS certificate is for another name"):
            await trusting.open(CLOUD, f"https://localhost:{engine.port}", timeout=1)
        assert len(engine.requests) == 1
        await trusting.close()
        await strict.close()
        await until(lambda: not engine.alive)


async def test_tls_with_an_engine_that_speaks_none(transport: Transport) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 secret-1\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConnectFailed, match="TLS handshake failed") as failure:
            await transport.open(CLOUD, f"https://127.0.0.1:{port}", timeout=1)
        assert "secret-1" not in str(failure.value)


class EgressProxy:
    """Opens tunnels, and keeps the head of each request for one."""

    def __init__(self, verdict: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n") -> None:
        self.heads: list[bytes] = []
        self._verdict = verdict
        self._writers: list[asyncio.StreamWriter] = []

    @contextlib.asynccontextmanager
    async def serving(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        try:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            for writer in self._writers:
                writer.transport.abort()
            await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        writer.write(self._verdict)
        if b" 200" not in self._verdict:
            writer.close()
            return
        host, _, port = head.split(b" ")[1].partition(b":")
        other_reader, other_writer = await asyncio.open_connection(host.decode(), int(port))
        self._writers.append(other_writer)

        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await source.read(65536):
                    sink.write(data)
            sink.close()

        await asyncio.gather(copy(reader, other_writer), copy(other_reader, writer))


@pytest.mark.parametrize("tls", [False, True])
async def test_clouds_are_reached_through_an_egress_proxy_and_local_engines_never(tls: bool, tmp_path: Path) -> None:
    server, client = certificates(tmp_path)
    proxy = EgressProxy()
    async with proxy.serving() as address:
        async with ScriptedEngine(answering({"a": 1}), tls=server if tls else None) as engine:
            transport = Transport(asyncio.get_running_loop(), tls=client, egress_proxy=f"http://me:secret-1@{address}")
            for _ in range(2):
                assert (await exchange(transport, engine.url, CLOUD)).body == b'{"a": 1}'
                await asyncio.sleep(0)
            assert len(proxy.heads) == 1  # the tunnel is kept
            lines = proxy.heads[0].split(b"\r\n")
            assert lines[:2] == [b"CONNECT 127.0.0.1:%d HTTP/1.1" % engine.port, b"host: 127.0.0.1:%d" % engine.port]
            assert lines[2] == b"proxy-authorization: Basic " + base64.b64encode(b"me:secret-1")
            assert b"proxy-authorization" not in engine.raw.lower()
            assert (await exchange(transport, engine.url, LOCAL)).body == b'{"a": 1}'
            assert len(proxy.heads) == 1
            await transport.close()
            await until(lambda: not engine.alive)


async def test_the_way_to_the_egress_proxy_can_be_tls_itself(tmp_path: Path) -> None:
    server, client = certificates(tmp_path)
    proxy = EgressProxy()
    async with proxy.serving(server) as address, ScriptedEngine(answering({"a": 1}), tls=server) as engine:
        transport = Transport(asyncio.get_running_loop(), tls=client, egress_proxy=f"https://{address}")
        assert (await exchange(transport, engine.url, CLOUD)).body == b'{"a": 1}'
        assert len(proxy.heads) == 1
        await transport.close()
        await until(lambda: not engine.alive)


@pytest.mark.parametrize(
    ("verdict", "word"),
    [
        (b"HTTP/1.1 407 secret-1\r\n\r\n", "refused"),
        (b"HTTP/1.1 407", "closed"),
        (b"x" * 20_000, "too large"),
    ],
)
async def test_an_egress_proxy_that_refuses(verdict: bytes, word: str) -> None:
    proxy = EgressProxy(verdict)
    async with proxy.serving() as address:
        transport = Transport(asyncio.get_running_loop(), egress_proxy=f"http://{address}")
        before = sockets()
        with pytest.raises(ConnectFailed, match=word) as failure:
            await transport.open(CLOUD, "https://api.example.com", timeout=1)
        assert "secret-1" not in str(failure.value)
        await until(lambda: sockets() <= before and transport.open_connections == 0)
        await transport.close()


async def test_an_egress_proxy_that_says_nothing() -> None:
    gone = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1024):
            pass
        gone.set()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        proxy = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        transport = Transport(asyncio.get_running_loop(), egress_proxy=proxy)
        with pytest.raises(ConnectTimeout):
            await transport.open(CLOUD, "https://api.example.com", timeout=0.5)
        await asyncio.wait_for(gone.wait(), 30)
        await transport.close()
