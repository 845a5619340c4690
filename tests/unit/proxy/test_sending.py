"""Answers, events and requests are sent at the end of a turn of the event loop: in order, and before their connection is closed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from receiving import LOCAL

from engines.http1 import Connection
from engines.transport import Transport
from engines.turns import Turns
from proxy import ingress
from proxy.ingress import HELD, Door

GET = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"
Serve = Callable[[Any], Awaitable[None]]


class Recording:
    """A transport that keeps what is done with it."""

    def __init__(self) -> None:
        self.done: list[bytes | str] = []
        self.closing = False

    def write(self, data: bytes) -> None:
        assert not self.closing
        self.done.append(data)

    def close(self) -> None:
        self.closing = True
        self.done.append("closed")

    def abort(self) -> None:
        self.closing = True
        self.done.append("aborted")

    def is_closing(self) -> bool:
        return self.closing

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else None

    def set_write_buffer_limits(self, high: int) -> None: ...
    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...

    @property
    def written(self) -> list[bytes]:
        return [one for one in self.done if isinstance(one, bytes)]

    @property
    def bodies(self) -> bytes:
        """The bodies of the answers that were written, one letter each."""
        return bytes([part[0] for part in b"".join(self.written).split(b"\r\n\r\n")[1:] if part])


async def turns(count: int = 12) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def connected(serve: Serve) -> tuple[Any, Recording, Door]:
    async def called(_inbound: Any, sink: Any) -> None:
        await serve(sink)

    door = Door(called, asyncio.get_running_loop(), body_limit=1000, header_timeout=9.0, body_timeout=9.0)
    client, transport = door(), Recording()
    client.connection_made(transport)  # type: ignore[arg-type]
    await turns()
    return client, transport, door


async def test_an_answer_goes_out_at_the_end_of_its_turn() -> None:
    seen: list[bytes] = []

    async def serve(sink: Any) -> None:
        sink.whole(200, b"", b"a")
        seen.append(transport.bodies)

    client, transport, door = await connected(serve)
    client.data_received(GET)
    await turns()
    assert seen == [b""] and transport.bodies == b"a"
    await door.shutdown(1)


@pytest.mark.parametrize("second", ["stream", "whole", "last", "cut"])
async def test_what_was_answered_is_whole_and_in_order_whatever_comes_behind_it(second: str, never: Turns) -> None:
    """Also where no turn of the loop ends between two requests that came together."""
    sinks: list[Any] = []

    async def serve(sink: Any) -> None:
        sinks.append(sink)
        if len(sinks) == 1:
            sink.whole(200, b"", b"a")
        elif second == "stream":
            sink.begin(200, b"", b"b")
            sink.write(b"c")
            sink.finish()
        elif second == "cut":
            sink.begin(200, b"", b"b")
            sink.write(b"c")
            sink.abort()
        else:
            sink.keep_alive = second == "whole"
            sink.whole(200, b"", b"b")

    client, transport, door = await connected(serve)
    client.door.outbox = never  # no turn of the loop sends what waits: only what comes behind it does
    client.data_received(GET + GET)
    await turns()
    assert len(sinks) == 2
    if second in ("stream", "whole"):
        client.close()
    assert transport.done[-1] == "closed" if second != "cut" else "aborted" in transport.done
    written = b"".join(transport.written)
    first, behind = written.index(b"\r\n\r\na"), written[written.index(b"\r\n\r\na") + 5 :]
    assert first > 0 and behind.startswith(b"HTTP/1.1 200")
    if second in ("stream", "cut"):
        assert behind.endswith(b"1\r\nb\r\n1\r\nc\r\n" + (b"0\r\n\r\n" if second == "stream" else b""))
    else:
        assert behind.endswith(b"\r\n\r\nb")
    await door.shutdown(1)


async def test_law_10_much_is_sent_at_once() -> None:
    """What waits for the end of a turn is bounded, and so is what it takes to join it."""

    async def serve(sink: Any) -> None:
        sink.begin(200, b"", b"")
        for _ in range(100):
            sink.write(b"x" * 1000)
            most.append(len(client._unsent))
        sink.finish()

    most: list[int] = []
    client, transport, door = await connected(serve)
    client.data_received(GET)
    await turns()
    assert max(most) <= HELD + 2000 and b"".join(transport.written).count(b"x") == 100_000
    await door.shutdown(1)


async def test_what_waits_is_sent_before_the_connection_is_closed(never: Turns) -> None:
    async def serve(sink: Any) -> None:
        sink.whole(200, b"", b"a")

    client, transport, door = await connected(serve)
    client.door.outbox = never
    client.data_received(GET)
    await turns()
    assert transport.bodies == b""
    client.close()
    assert transport.bodies == b"a" and transport.done[-1] == "closed"
    await door.shutdown(1)


async def test_a_client_that_left_takes_nothing_with_it() -> None:
    raised: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
    clients = []

    async def serve(sink: Any) -> None:
        sink.whole(200, b"", b"a")
        clients[0][1].closing = True  # the socket is gone, and asyncio tells so in a later turn

    for _ in range(2):
        clients.append(await connected(serve))
    clients[1][0].door.outbox = clients[0][0].door.outbox
    for client, _, _ in clients:
        client.data_received(GET)
    await turns()
    assert clients[0][1].bodies == b"" and clients[1][1].bodies == b"a" and not raised
    for client, _, door in clients:
        client.connection_lost(None)
        await door.shutdown(1)


@pytest.fixture
def never() -> Iterator[Turns]:
    """An outbox whose turn does not come: its event loop does not run."""
    loop = asyncio.new_event_loop()
    yield Turns(loop)
    loop.close()


class _Heard:
    """Who gets an answer."""

    def __init__(self) -> None:
        self.answers: list[Any] = []

    def on_answer(self, headers: Any, body: bytes) -> None:
        self.answers.append(headers)

    def on_head(self, status: int, headers: Any) -> None:
        self.answers.append(headers)

    def on_body(self, data: bytes) -> None: ...
    def on_end(self) -> None: ...
    def on_error(self, error: Any) -> None: ...
    def moved(self, connection: Any) -> bool:
        return True


async def asked() -> tuple[Connection, Recording, _Heard, Transport]:
    owner = Transport(asyncio.get_running_loop())
    connection = Connection(asyncio.get_running_loop(), owner, LOCAL, "http://127.0.0.1:1", b"x", b"")
    transport = Recording()
    connection.connection_made(transport)  # type: ignore[arg-type]
    heard = _Heard()
    connection.request(b"POST", b"/", b"", b"{}", heard)
    assert transport.done == []
    return connection, transport, heard, owner


async def test_a_request_goes_out_at_the_end_of_its_turn() -> None:
    _, transport, _, owner = await asked()
    await turns(2)
    assert len(transport.done) == 1
    await owner.close()


async def test_what_came_before_a_request_was_sent_is_not_its_answer() -> None:
    connection, transport, heard, owner = await asked()
    connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nstale")
    await turns()
    assert heard.answers == [] and transport.done == ["aborted"]
    await owner.close()


async def test_law_09_a_request_that_is_given_up_in_its_turn_is_never_sent() -> None:
    connection, transport, _, owner = await asked()
    connection.abort()
    await turns()
    assert transport.done == ["aborted"]
    await owner.close()


@contextlib.asynccontextmanager
async def served(body: bytes, **options: Any) -> AsyncIterator[tuple[socket.socket, list[Any], Door]]:
    """A client's socket, and the connection that it has to a door which answers everything with `body`."""
    loop, made = asyncio.get_running_loop(), []

    async def serve(_inbound: Any, sink: Any) -> None:
        sink.whole(200, b"", body)

    door = Door(serve, loop, body_limit=1000, header_timeout=9.0, body_timeout=9.0, **options)

    def protocol() -> Any:
        made.append(door())
        return made[-1]

    server = await loop.create_server(protocol, "127.0.0.1", 0)
    with socket.socket() as client:
        client.setblocking(False)
        await loop.sock_connect(client, server.sockets[0].getsockname())
        yield client, made, door
    server.close()
    await door.shutdown(1)


async def test_law_10_a_client_that_asks_and_does_not_read_grows_no_buffer() -> None:
    loop = asyncio.get_running_loop()
    async with served(b"a" * 20_000) as (client, made, _):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(3):
                for _ in range(5):
                    await loop.sock_sendall(client, GET * 250)
                    await asyncio.sleep(0.2)
        assert made[0].transport.get_write_buffer_size() < 1_000_000
        got = 0
        async with asyncio.timeout(20):  # it is answered once it reads
            while got < 500 * 20_000:
                got += len(await loop.sock_recv(client, 1 << 20))


@pytest.mark.parametrize("reads", [False, True])
async def test_law_10_a_client_that_reads_nothing_is_cut_off_and_one_that_is_slow_is_not(
    reads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingress, "LINGER", 0.3)
    monkeypatch.setattr(ingress, "TICK", 0.1)
    loop, size = asyncio.get_running_loop(), 20_000_000
    async with served(b"a" * size, keepalive_timeout=0.3) as (client, made, door):
        await loop.sock_sendall(client, GET)
        while not made or not made[0].transport or not made[0].transport.get_write_buffer_size():
            await asyncio.sleep(0.01)
        got = 0
        async with asyncio.timeout(20):
            while got < size if reads else door._connections:
                if reads:
                    data = await loop.sock_recv(client, 1 << 20)
                    assert data, "it was cut off"
                    got += len(data)
                await asyncio.sleep(0.05)
