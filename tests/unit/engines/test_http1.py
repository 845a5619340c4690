"""One connection: every form that an answer can take, and every way in which it can break."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from receiving import LOCAL, Collector, certificates, exchange, until
from scripted import END, Play, Received, Script, ScriptedEngine, answering, chunk, json_answer

from engines.errors import ConnectionLost, EngineError, MalformedAnswer
from engines.http1 import Header
from engines.transport import Transport
from engines.turns import Turns

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"


async def _close(received: Received, play: Play) -> bool:
    return False


async def _reset(received: Received, play: Play) -> bool:
    play.reset()
    return False


def _sending(data: bytes) -> Script:
    async def script(received: Received, play: Play) -> bool:
        await play.send(data)
        return False

    return script


def _resetting(data: bytes) -> Script:
    """Sends this, waits until it has been read, and resets."""

    async def script(received: Received, play: Play) -> bool:
        await play.send(data)
        await asyncio.sleep(0.03)  # an earlier reset would overtake the bytes
        play.reset()
        return False

    return script


BROKEN = {
    "closed before the head": (_close, ConnectionLost),
    "reset before the head": (_reset, ConnectionLost),
    "reset in the body": (_resetting(json_answer({"a": 1})[:-3]), ConnectionLost),
    "reset in a chunk": (_resetting(CHUNKED + b"10\r\nabc"), ConnectionLost),
    "reset in a body without a length": (_resetting(OK + b"\r\nhello"), ConnectionLost),
    "closed after an interim answer": (_sending(b"HTTP/1.1 100 Continue\r\n\r\n"), ConnectionLost),
    "closed in the head": (_sending(OK + b"x: "), ConnectionLost),
    "closed in the body": (_sending(json_answer({"a": 1})[:-3]), ConnectionLost),
    "closed in a chunk": (_sending(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n10\r\nabc"), ConnectionLost),
    "closed between chunks": (
        _sending(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(b"abc")),
        ConnectionLost,
    ),
    "a head over the limit, in one piece": (_sending(OK + b"x: " + b"y" * 66_000 + b"\r\n\r\n"), MalformedAnswer),
    "interim answers without end": (_sending(b"HTTP/1.1 103 X\r\nlink: x\r\n\r\n" * 10_000), MalformedAnswer),
    "trailers without end": (_sending(CHUNKED + chunk(b"a") + b"0\r\n" + b"x: y\r\n" * 60_000), MalformedAnswer),
    "both lengths": (
        _sending(OK + b"content-length: 3\r\n" + CHUNKED[len(OK) :] + chunk(b"abc") + END),
        MalformedAnswer,
    ),
    "another transfer coding": (_sending(OK + b"transfer-encoding: gzip, chunked\r\n\r\n"), MalformedAnswer),
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
        await until(lambda: transport.open_connections == 0)


async def test_law_11_an_error_quotes_nothing_of_the_engine(transport: Transport) -> None:
    for data in (b"secret-1\r\n\r\n", OK + b"secret-1\r\n\r\n", OK + b"content-encoding: secret-1\r\n\r\n"):
        async with ScriptedEngine(_sending(data)) as engine:
            assert "secret-1" not in repr((await exchange(transport, engine.url)).error)


async def test_a_head_just_inside_the_limit_passes(transport: Transport) -> None:
    async with ScriptedEngine(_sending(OK + b"x: " + b"y" * 60_000 + b"\r\ncontent-length: 2\r\n\r\nok")) as engine:
        assert (await exchange(transport, engine.url)).body == b"ok"


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


@pytest.mark.parametrize(
    "body", [b"content-length: 4\r\n\r\nbody", b"transfer-encoding: chunked\r\n\r\n" + chunk(b"body") + END]
)
@pytest.mark.parametrize("status", [103, 104])
async def test_the_body_of_an_interim_answer_is_nobodys(status: int, body: bytes, transport: Transport) -> None:
    """RFC 9110, section 15.2: it has none; what is said to be one would be told before the answer's head."""
    async with ScriptedEngine(_sending(b"HTTP/1.1 %d X\r\n%b%b" % (status, body, json_answer({})))) as engine:
        got = await exchange(transport, engine.url)
        assert (got.status, got.body) == (0, b"")
        assert str(got.error) == "the engine sent an interim answer with a body"


@pytest.mark.parametrize("behind", [OK + b"content-length: 0\r\n\r\n", OK, b"garbage\r\n", b"HTT"])
async def test_bytes_behind_an_answer_end_the_connection(behind: bytes, transport: Transport) -> None:
    """They would be taken for the answer to the next request."""

    async def script(received: Received, play: Play) -> None:
        await play.send(json_answer({}) + behind)

    async with ScriptedEngine(script) as engine:
        assert (await exchange(transport, engine.url)).error is None
        await until(lambda: transport.open_connections == 0 and not engine.alive)


async def test_answers_without_a_body(transport: Transport) -> None:
    for data in (b"HTTP/1.1 204 No\r\n\r\n", b"HTTP/1.1 304 Same\r\ncontent-length: 9\r\n\r\n"):

        async def script(received: Received, play: Play, data: bytes = data) -> None:
            await play.send(data)

        async with ScriptedEngine(script) as engine:
            got = await exchange(transport, engine.url)
            assert (got.status, got.body, got.error) == (int(data[9:12]), b"", None)


async def test_head_has_a_length_and_no_body(transport: Transport) -> None:
    async def script(received: Received, play: Play) -> None:
        await play.send(OK + b"content-length: 9\r\n\r\n")

    async with ScriptedEngine(script) as engine:
        connection = await transport.open(LOCAL, engine.url, timeout=1)
        collector = Collector()
        connection.request(b"HEAD", b"/", b"", b"", collector)
        await asyncio.wait_for(collector.over, 1)
        assert (collector.status, collector.body, collector.error) == (200, b"", None)


async def test_an_offer_of_another_protocol_is_only_a_header(transport: Transport) -> None:
    data = OK + b"upgrade: h2,h2c\r\nconnection: Upgrade\r\ncontent-length: 2\r\n\r\nok"
    async with ScriptedEngine(_sending(data)) as engine:
        assert (await exchange(transport, engine.url)).body == b"ok"


async def test_trailers_are_read_and_told_to_nobody(transport: Transport) -> None:
    async def script(received: Received, play: Play) -> None:
        await play.send(CHUNKED + chunk(b"abc") + b"0\r\nx-trailer: y\r\n\r\n")

    async with ScriptedEngine(script) as engine:
        for _ in range(2):
            got = await exchange(transport, engine.url)
            assert (got.body, got.error) == (b"abc", None)
            assert got.headers == [(b"transfer-encoding", b"chunked")]
            await asyncio.sleep(0)
        assert engine.connections == 1


@pytest.mark.parametrize(
    "data",
    [OK + b"connection: close\r\ncontent-length: 2\r\n\r\nok", b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok"],
)
async def test_an_engine_that_will_close_is_not_kept(data: bytes, transport: Transport) -> None:
    async def script(received: Received, play: Play) -> None:
        await play.send(data)

    async with ScriptedEngine(script) as engine:
        assert (await exchange(transport, engine.url)).body == b"ok"
        await until(lambda: transport.open_connections == 0 and not engine.alive)


async def test_an_answer_before_the_request_was_read_is_not_followed_by_another(transport: Transport) -> None:
    """What is still to be written would stand before the next request."""

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 413 Too large\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        gone.append(writer)

    gone: list[asyncio.StreamWriter] = []
    async with await asyncio.start_server(early, "127.0.0.1", 0, limit=1024) as server:
        connection = await transport.open(LOCAL, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout=1)
        collector = Collector()
        connection.request(b"POST", b"/", b"", b"x" * 30_000_000, collector)
        await asyncio.wait_for(collector.over, 2)
        assert (collector.status, collector.error) == (413, None)
        try:
            await until(lambda: transport.open_connections == 0)
        finally:
            for writer in gone:
                writer.transport.abort()


class Raising(Collector):
    """A receiver with a fault of its own."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self._where = where

    def on_head(self, status: int, headers: list[Header]) -> None:
        super().on_head(status, headers)
        self._raise("head")

    def on_body(self, data: bytes) -> None:
        super().on_body(data)
        self._raise("body")

    def on_end(self) -> None:
        self._raise("end")
        super().on_end()

    def _raise(self, where: str) -> None:
        if where == self._where:
            raise KeyError("secret-1")


@pytest.mark.parametrize("where", ["head", "body", "end", "end of the connection"])
async def test_a_receiver_that_raises_is_told_so_and_waits_for_nothing(where: str, transport: Transport) -> None:
    printed: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: printed.append(context))
    script = _sending(OK + b"\r\nhello") if where == "end of the connection" else answering({})
    async with ScriptedEngine(script) as engine:
        connection = await transport.open(LOCAL, engine.url, timeout=1)
        collector = Raising(where.split()[0])
        connection.request(b"POST", b"/", b"", b"", collector)
        await asyncio.wait_for(collector.over, 1)
        assert isinstance(collector.error, MalformedAnswer)
        await until(lambda: transport.open_connections == 0)
    assert len(printed) == 1
    if where != "end of the connection":
        assert "KeyError in Raising._raise, line" in printed[0]["message"]
        assert "secret-1" not in repr(printed)  # law 11: the exception quotes the answer


PIECES = [b"", OK, b"HTTP/1.1 100 Continue\r\n\r\n", b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n", b"connection: close\r\n",
          b"\r\n", b"hello", chunk(b"hello"), END, b"\n", b"\x00", b"5\r\n", b"content-length: 6\r\n", b"HTTP/1.0 204 X\r\n"]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=9), st.integers(1, 60), st.booleans())
def test_law_05_whatever_an_engine_sends_there_is_one_end(pieces: list[bytes], size: int, reset: bool) -> None:
    """Any bytes, in any pieces, closed or reset behind them: one end or one error, and nothing is left open."""
    data = b"".join(pieces)

    async def script(received: Received, play: Play) -> bool:
        await play.pieces([data[at : at + size] for at in range(0, len(data), size)])
        if reset:
            play.reset()
        return False

    async def run() -> None:
        transport = Transport(asyncio.get_running_loop())
        async with ScriptedEngine(script) as engine:
            got = await exchange(transport, engine.url)  # the collector insists on the order
            assert got.error is None or isinstance(got.error, ConnectionLost | MalformedAnswer)
            await until(lambda: transport.open_connections == 0)
            assert transport.idle_connections == 0
        await transport.close()

    asyncio.run(run())


@given(st.binary(max_size=200), st.lists(st.integers(1, 40), max_size=6), st.integers(1, 50))
def test_a_body_arrives_whole_however_it_is_cut(body: bytes, chunks: list[int], size: int) -> None:
    parts, at = [], 0
    for length in chunks:
        parts.append(chunk(body[at : at + length]))
        at += length
    data = CHUNKED + b"".join(parts) + chunk(body[at:]) + END

    async def script(received: Received, play: Play) -> None:
        await play.pieces([data[at : at + size] for at in range(0, len(data), size)])

    async def run() -> None:
        transport = Transport(asyncio.get_running_loop())
        async with ScriptedEngine(script) as engine:
            got = await exchange(transport, engine.url)
            assert (bytes(got.body), got.error) == (body, None)
        await transport.close()

    asyncio.run(run())


Phase = Callable[[Play], Any]


async def _silence(play: Play) -> None:
    pass


async def _in_the_head(play: Play) -> None:
    await play.send(OK)


async def _in_the_body(play: Play) -> None:
    await play.send(CHUNKED + chunk(b"hello"))


async def _flooding(play: Play) -> None:
    await play.send(CHUNKED + chunk(b"x" * 300_000))


@pytest.mark.parametrize("phase", [_silence, _in_the_head, _in_the_body, _flooding])
@pytest.mark.parametrize("tls", [False, True])
async def test_law_09_abort_is_seen_by_the_engine_at_once(phase: Phase, tls: bool, tmp_path: Path) -> None:
    left: list[float] = []
    server, client = certificates(tmp_path) if tls else (None, None)
    transport = Transport(asyncio.get_running_loop(), tls=client)

    async def script(received: Received, play: Play) -> bool:
        await phase(play)
        left.append(await play.left())
        return False

    async with ScriptedEngine(script, tls=server) as engine:
        connection = await transport.open(LOCAL, engine.url, timeout=1)
        collector = Collector()
        connection.request(b"POST", b"/", b"", b"", collector)
        await until(lambda: collector.body if phase in (_in_the_body, _flooding) else engine.requests)
        if phase is _flooding:
            connection.pause_reading()
        began = time.perf_counter()
        connection.abort()
        await until(lambda: left)
        assert left[0] - began < 0.1
        assert transport.open_connections == 0
        assert not collector.over.done()  # it hears nothing more
        connection.abort()  # again, on what is gone: nothing happens
        connection.pause_reading()
        connection.resume_reading()
        connection.release()
        assert transport.idle_connections == 0
    await transport.close()


async def test_law_09_abort_inside_a_callback(transport: Transport) -> None:
    class Leaving(Collector):
        def on_body(self, data: bytes) -> None:
            super().on_body(data)
            connection.abort()

    async with ScriptedEngine(answering({"a": 1})) as engine:
        connection = await transport.open(LOCAL, engine.url, timeout=1)
        collector = Leaving()
        connection.request(b"POST", b"/", b"", b"", collector)
        await until(lambda: collector.body and transport.open_connections == 0 and not engine.alive)
        assert not collector.over.done()


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


async def test_an_answer_that_ends_while_paused_leaves_a_connection_that_reads(transport: Transport) -> None:
    class Pausing(Collector):
        def on_body(self, data: bytes) -> None:
            super().on_body(data)
            connection.pause_reading()

    async with ScriptedEngine(answering({"a": 1})) as engine:
        connection = await transport.open(LOCAL, engine.url, timeout=1)
        collector = Pausing()
        connection.request(b"POST", b"/", b"", b"", collector)
        await asyncio.wait_for(collector.over, 1)
        await asyncio.sleep(0)
        assert (await exchange(transport, engine.url)).body == b'{"a": 1}'
        assert engine.connections == 1


def holding(monkeypatch: pytest.MonkeyPatch, transport: Transport, waiting: list[object]) -> None:
    """Answers wait for their turn in `waiting`; requests are sent."""
    add = Turns.add
    monkeypatch.setattr(
        Turns, "add", lambda turns, step: waiting.append(step) if turns is transport.turns else add(turns, step)
    )


@pytest.mark.interpreted
async def test_who_waits_for_a_turn_is_not_read_from_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a bound waits in the socket; all of it arrives, in order."""
    monkeypatch.setattr("engines.http1.MAX_BEHIND", 1000)
    monkeypatch.setattr("engines.turns.Turns.room", lambda turns: False)
    body = bytes(range(256)) * 4000
    transport, collector = Transport(asyncio.get_running_loop()), Collector()
    async with ScriptedEngine(_sending(OK + b"content-length: %d\r\n\r\n" % len(body) + body)) as engine:
        connection = await transport.open(LOCAL, engine.url, timeout=1)
        waiting: list[object] = []
        holding(monkeypatch, transport, waiting)
        connection.request(b"POST", b"/", b"", b"", collector)
        await until(lambda: len(connection._behind) > 1)
        held = sum(map(len, connection._behind))
        await asyncio.sleep(0.05)
        assert sum(map(len, connection._behind)) == held < len(body), "it is read from while it waits"
        while not collector.over.done():
            if waiting:
                waiting.clear()
                connection._catch_up()
            await asyncio.sleep(0)
        assert collector.body == body
    await transport.close()


@pytest.mark.interpreted
async def test_what_came_before_the_connection_was_lost_is_told_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.turns.Turns.room", lambda turns: False)
    transport, collector = Transport(asyncio.get_running_loop()), Collector()
    async with ScriptedEngine(_sending(OK + b"\r\nall of it")) as engine:
        connection = await transport.open(LOCAL, engine.url, timeout=1)
        holding(monkeypatch, transport, [])  # its turn never comes
        connection.request(b"POST", b"/", b"", b"", collector)
        await asyncio.wait_for(collector.over, 3)
        assert (collector.body, collector.error) == (b"all of it", None)
    await transport.close()
