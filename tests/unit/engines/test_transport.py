"""The way to engines: the boundary at connect, the pool, and every way in which a connection can break."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from scripted import END, Play, Received, ScriptedEngine, answering, chunk, json_answer

from engines import transport as module
from engines.errors import (
    BoundaryViolation,
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    EngineError,
    FirstEventTimeout,
    MalformedAnswer,
)
from engines.http1 import Connection, Header, header_block
from engines.model import Target
from engines.transport import Transport, address_of, peer_allowed

LOCAL = Target("e/m", "e", "vllm", "m", "local", (), frozenset())
CLOUD = Target("c/m", "c", "openai", "m", "cloud", (), frozenset())


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1", True), ("127.8.9.1", True), ("10.1.2.3", True), ("172.16.0.1", True), ("172.32.0.1", False), ("192.168.1.1", True),
        ("169.254.1.1", True), ("100.64.0.1", False), ("8.8.8.8", False), ("0.0.0.0", False), ("::1", True), ("fd00::1", True),
        ("fe80::1%eth0", True), ("2001:db8::1", False), ("::ffff:10.0.0.1", True), ("::ffff:8.8.8.8", False), ("", False), ("name", False),
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
    for bad in ("ftp://x", "nonsense", "http://"):
        with pytest.raises(ConnectFailed):
            address_of(bad)


class Collector:
    """A receiver that writes everything down."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[Header] = []
        self.body = bytearray()
        self.error: EngineError | None = None
        self.over = asyncio.get_running_loop().create_future()
        self.moves = 0

    def on_head(self, status: int, headers: list[Header]) -> None:
        assert self.status == 0
        self.status, self.headers = status, headers

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_end(self) -> None:
        self.over.set_result(None)

    def on_error(self, error: EngineError) -> None:
        self.error = error
        self.over.set_result(None)

    def moved(self, connection: Connection) -> bool:
        self.moves += 1
        return True


async def exchange(transport: Transport, url: str, target: Target = LOCAL, **options: Any) -> Collector:
    connection = await transport.open(target, url, timeout=1)
    collector = Collector()
    connection.request(b"POST", b"/v1/x", header_block([(b"a", b"b")]), b"hello", collector, **options)
    await asyncio.wait_for(collector.over, 3)
    return collector


@pytest.fixture
async def transport() -> Any:
    made = Transport(asyncio.get_running_loop())
    yield made
    await made.close()


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
        await asyncio.sleep(0.05)
        assert not engine.requests and transport.open_connections == 0


async def test_law_01_a_clouds_connection_never_serves_a_local_target(transport: Transport) -> None:
    async with ScriptedEngine(answering({})) as engine:
        await exchange(transport, engine.url, CLOUD)
        await asyncio.sleep(0)
        assert transport.try_pooled(LOCAL, engine.url) is None
        assert transport.try_pooled(CLOUD, engine.url) is not None


async def test_nobody_there(transport: Transport) -> None:
    with pytest.raises(ConnectFailed, match="refused"):
        await transport.open(LOCAL, "http://127.0.0.1:1", timeout=1)


async def test_nobody_accepts(transport: Transport) -> None:
    import socket

    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        filling = [socket.socket() for _ in range(4)]
        for filler in filling:
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())
        with pytest.raises(ConnectTimeout):
            await transport.open(LOCAL, f"http://127.0.0.1:{deaf.getsockname()[1]}", timeout=0.1)
        for filler in filling:
            filler.close()
    assert transport.open_connections == 0


async def _close(received: Received, play: Play) -> bool:
    return False


async def _reset(received: Received, play: Play) -> bool:
    play.reset()
    return False


def _sending(data: bytes) -> Any:
    async def script(received: Received, play: Play) -> bool:
        await play.send(data)
        return False

    return script


BROKEN = {
    "closed before the head": (_close, ConnectionLost),
    "reset before the head": (_reset, ConnectionLost),
    "closed in the body": (_sending(json_answer({"a": 1})[:-3]), ConnectionLost),
    "closed in a chunk": (_sending(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n10\r\nabc"), ConnectionLost),
    "closed between chunks": (
        _sending(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(b"abc")),
        ConnectionLost,
    ),
    "not http": (_sending(b"SSH-2.0-OpenSSH\r\n\r\n"), MalformedAnswer),
    "a huge head": (_sending(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000), MalformedAnswer),
    "compressed although asked not to": (
        _sending(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 1\r\n\r\nx"),
        MalformedAnswer,
    ),
    "another protocol": (_sending(b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"), EngineError),
}


@pytest.mark.parametrize("how", BROKEN)
async def test_a_broken_answer_is_an_error_and_never_an_end(how: str, transport: Transport) -> None:
    script, kind = BROKEN[how]
    async with ScriptedEngine(script) as engine:
        got = await exchange(transport, engine.url)
        assert isinstance(got.error, kind)
        await asyncio.sleep(0.02)
        assert transport.open_connections == 0


async def test_a_body_without_a_length_ends_with_the_connection(transport: Transport) -> None:
    async with ScriptedEngine(_sending(b"HTTP/1.1 200 OK\r\n\r\nhello")) as engine:
        got = await exchange(transport, engine.url)
        assert (got.body, got.error) == (b"hello", None)


async def test_interim_answers_are_skipped(transport: Transport) -> None:
    data = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + json_answer({})
    async with ScriptedEngine(_sending(data)) as engine:
        got = await exchange(transport, engine.url)
        assert (got.status, got.body, got.error) == (200, b"{}", None)
        assert b"link" not in dict(got.headers)


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


async def test_bytes_behind_an_answer_end_the_connection(transport: Transport) -> None:
    async with ScriptedEngine(_sending(json_answer({}) + b"HTTP/1.1 200 OK\r\n\r\n")) as engine:
        assert (await exchange(transport, engine.url)).error is None
        await asyncio.sleep(0.02)
        assert transport.idle_connections == 0


async def test_a_connection_that_must_not_be_kept_is_closed(transport: Transport) -> None:
    async with ScriptedEngine(answering({})) as engine:
        await exchange(transport, engine.url, reusable=False)
        await asyncio.sleep(0.02)
        assert transport.open_connections == 0


async def test_law_09_abort_is_seen_by_the_engine_at_once(transport: Transport) -> None:
    left: list[float] = []

    async def script(received: Received, play: Play) -> bool:
        left.append(await play.left())
        return False

    async with ScriptedEngine(script) as engine:
        connection = await transport.open(LOCAL, engine.url, timeout=1)
        connection.request(b"POST", b"/", b"", b"", Collector())
        while not engine.requests:
            await asyncio.sleep(0.005)
        began = time.perf_counter()
        connection.abort()
        while not left:
            await asyncio.sleep(0.005)
        assert left[0] - began < 0.1
        assert transport.open_connections == 0


async def test_law_10_a_paused_connection_holds_the_engine_back(transport: Transport) -> None:
    sent = 0

    async def script(received: Received, play: Play) -> bool:
        nonlocal sent
        await play.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(1000):
            await play.send(chunk(b"x" * 65536))
            sent += 65536
        await play.send(END)
        return True

    async with ScriptedEngine(script) as engine:
        connection = await transport.open(LOCAL, engine.url, timeout=1)
        collector = Collector()
        connection.request(b"POST", b"/", b"", b"", collector)
        while not collector.body:
            await asyncio.sleep(0.001)
        connection.pause_reading()
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.1)
        assert sent < 30_000_000
        connection.resume_reading()
        await asyncio.wait_for(collector.over, 10)
        assert len(collector.body) == 65536 * 1000


async def test_fetch_has_a_deadline_and_leaves_nothing(transport: Transport) -> None:
    async def script(received: Received, play: Play) -> bool:
        await play.left()
        return False

    async with ScriptedEngine(script) as engine:
        with pytest.raises(FirstEventTimeout):
            await transport.fetch(LOCAL, engine.url, b"GET", b"/health", [], timeout=0.1)
        await asyncio.sleep(0.02)
        assert transport.open_connections == 0


def _certificate(directory: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(server's context, client's context that trusts it)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    built = built.not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
    built = built.add_extension(
        x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
    )
    certificate = built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (directory / "tls.pem").write_bytes(certificate + private)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(directory / "tls.pem")
    client = ssl.create_default_context(cadata=certificate.decode())
    return server, client


async def test_tls_is_verified(tmp_path: Path) -> None:
    server, client = _certificate(tmp_path)
    trusting, strict = Transport(asyncio.get_running_loop(), tls=client), Transport(asyncio.get_running_loop())
    async with ScriptedEngine(answering({"a": 1}), tls=server) as engine:
        assert (await exchange(trusting, engine.url, CLOUD)).body == b'{"a": 1}'
        with pytest.raises(ConnectFailed, match="TLS"):
            await strict.open(CLOUD, engine.url, timeout=1)
        assert len(engine.requests) == 1
        await trusting.close()
        await strict.close()
        await asyncio.sleep(0.05)


async def test_clouds_are_reached_through_an_egress_proxy_and_local_engines_never() -> None:
    tunnels: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        tunnels.append(head.split(b"\r\n")[0])
        host, _, port = head.split(b" ")[1].partition(b":")
        other_reader, other_writer = await asyncio.open_connection(host.decode(), int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")

        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                sink.write(data)
            sink.close()

        await asyncio.gather(copy(reader, other_writer), copy(other_reader, writer))

    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    transport = Transport(asyncio.get_running_loop(), egress_proxy=f"http://127.0.0.1:{port}")
    async with ScriptedEngine(answering({"a": 1})) as engine:
        assert (await exchange(transport, engine.url, CLOUD)).body == b'{"a": 1}'
        assert tunnels == [b"CONNECT 127.0.0.1:%d HTTP/1.1" % engine.port]
        assert (await exchange(transport, engine.url, LOCAL)).body == b'{"a": 1}'
        assert len(tunnels) == 1
        await transport.close()
        await asyncio.sleep(0.05)
    server.close()
