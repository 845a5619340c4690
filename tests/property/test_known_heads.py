"""Heads that are known byte for byte: whatever comes, in whatever pieces, is taken as the strict parser alone takes it."""

from __future__ import annotations

import asyncio
import json
import socket
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from receiving import LOCAL, Collector

from engines.heads import Heads, length_of
from engines.http1 import Connection
from engines.transport import Transport
from proxy.errors import Refusal
from proxy.ingress import Door

BODIES = (b"", b"{}", b'{"model":"m"}', b"x" * 300, b"POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc", b"\r\n\r\n")
NAMES = (b"content-length", b"Content-Length", b"CONTENT-LENGTH", b"content-length ", b"Transfer-Encoding")
LINES = (
    b"host: a\r\n",
    b"authorization: Bearer k\r\n",
    b"content-type: application/json\r\n",
    b"content-encoding: identity\r\n",
    b"connection: close\r\n",
    b"connection: keep-alive\r\n",
    b"expect: 100-continue\r\n",
    b"content-length: \r\n",
    b"content-length: 2\r\n",
    b"transfer-encoding: chunked\r\n",
    b"x: y\r\n z\r\n",
    b"x: content-length: 7\r\n",
    b"x:\x00\r\n",
    b"upgrade: h2c\r\nconnection: upgrade\r\n",
)
VERSIONS = (b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0")
TARGETS = (b"POST /v1/chat/completions", b"GET /v1/models?key=a", b"HEAD /", b"CONNECT a:1")


@st.composite
def messages(draw: st.DrawFn, first_lines: tuple[bytes, ...]) -> bytes:
    """One message, mostly right; its length stands somewhere in its head, and may be wrong."""
    body = draw(st.sampled_from(BODIES))
    wrong = draw(st.sampled_from((0, 0, 0, 0, 0, 1, -1)))
    digits = draw(st.sampled_from((b"%d", b"%d", b"%d", b"0%d", b"+%d", b" %d", b"%d ")))
    length = draw(st.sampled_from(NAMES[:2] * 4 + NAMES)) + b": " + digits % max(0, len(body) + wrong) + b"\r\n"
    lines = draw(st.lists(st.sampled_from(LINES[:5] * 3 + LINES), max_size=4))
    lines.insert(draw(st.integers(0, len(lines))), length)
    return draw(st.sampled_from(first_lines)) + b"\r\n" + b"".join(lines) + b"\r\n" + body


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    marks = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in pairwise(marks)]


class Forgetful(Heads[Any]):
    """Knows no head, so that everything is parsed."""

    def find(self, data: bytes) -> None:
        return None


async def at_the_door(parts: list[bytes], *, parse_all: bool) -> tuple[list[Any], bytes]:
    """What a door gives its pipeline, and the bytes that it answers, when these pieces come one after another."""
    loop = asyncio.get_running_loop()
    seen: list[Any] = []
    faults: list[Any] = []
    loop.set_exception_handler(lambda _, context: faults.append(context))

    async def serve(inbound: Any, sink: Any) -> None:
        headers = sorted(
            (name.lower(), value) for name, value in inbound.headers.items() if name.lower() != "content-length"
        )
        try:
            body = inbound.arrived()
            body = await inbound.body() if body is None else body
        except Refusal as refusal:
            seen.append(refusal.code)
            sink.whole(400, b"", b"refused")
            return
        head = inbound.head
        said = [
            head.method,
            head.path,
            head.query,
            headers,
            body.decode("latin-1"),
            head.http10,
            head.closes,
            head.digest,
        ]
        seen.append(said)
        sink.whole(200, b"content-type: application/json\r\n", json.dumps(said).encode())

    door = Door(serve, loop, body_limit=1000, header_timeout=5, body_timeout=0.05)
    if parse_all:
        door.heads = Forgetful()
    protocol = door()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    await loop.create_connection(lambda: protocol, sock=theirs)
    for part in parts:
        protocol.data_received(part)
        for _ in range(12):
            await asyncio.sleep(0)
    answered = b""
    until = loop.time() + 0.1
    while loop.time() < until:
        try:
            more = await asyncio.wait_for(loop.sock_recv(ours, 65536), 0.02)
        except TimeoutError:
            break
        if not more:
            answered += b"<closed>"
            break
        answered += more
    ours.close()
    protocol.close()
    task = protocol.task
    await door.shutdown(0)
    assert not faults and (task is None or not task.done() or task.cancelled() or task.exception() is None)
    return seen, answered


REQUEST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}"


@pytest.mark.interpreted
@given(
    st.lists(messages(tuple(b"%b %b" % (t, v) for v in VERSIONS[:1] * 4 + VERSIONS for t in TARGETS[:1] * 4 + TARGETS)), min_size=1, max_size=4),
    st.lists(st.integers(0, 2000), max_size=4),
    st.booleans(),
)  # fmt: skip
@example([REQUEST, REQUEST, REQUEST], [], True)
@example([REQUEST, REQUEST[:-2] + b"{}GET / HTTP/1.1\r\n\r\n"], [], True)
@settings(max_examples=120, deadline=None)
def test_a_known_head_is_taken_as_the_parser_takes_it(sent: list[bytes], cuts: list[int], whole: bool) -> None:
    parts = sent if whole else pieces(b"".join(sent), cuts)
    known = asyncio.run(at_the_door(parts * 2, parse_all=False))
    assert known == asyncio.run(at_the_door(parts * 2, parse_all=True))


async def from_an_engine(parts: list[bytes], *, parse_all: bool) -> list[Any]:
    """What a connection tells of each answer, when it comes in these pieces, and whether it is kept after it."""
    loop = asyncio.get_running_loop()
    transport = Transport(loop)
    if parse_all:
        transport.heads = Forgetful()
    told: list[Any] = []
    for _ in range(3):
        ours, theirs = socket.socketpair()
        connection = Connection(loop, transport, LOCAL, "http://a", b"a", b"")
        await loop.create_connection(lambda connection=connection: connection, sock=theirs)
        for again in range(2):
            if connection.closed:
                break
            collector = Collector()
            connection.request(b"POST", b"/", b"", b"", collector, resend=False)
            for part in parts:
                if not connection.closed:
                    connection.data_received(part)
                while connection._behind:  # on a slow machine it may wait for its turn
                    await asyncio.sleep(0)
            if not collector.over.done():
                connection.connection_lost(None)
            told.append(
                (
                    again,
                    collector.status,
                    list(collector.headers),
                    bytes(collector.body),
                    str(collector.error),
                    connection.closed,
                )
            )
        connection.abort()
        ours.close()
    await transport.close()
    await asyncio.sleep(0)
    return told


ANSWER = b"HTTP/1.1 200 OK\r\ndate: x\r\ncontent-length: 2\r\n\r\n{}"


@pytest.mark.interpreted
@given(
    messages((b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK", b"HTTP/1.0 200 OK", b"HTTP/1.1 404 no", b"HTTP/1.1 100 go")),
    st.lists(st.integers(0, 2000), max_size=3),
    st.sampled_from((b"", b"", b"", b"x", ANSWER)),
)  # fmt: skip
@example(ANSWER, [], b"")
@example(ANSWER, [], ANSWER)
@example(b"HTTP/1.1 103 early\r\ncontent-length: %d\r\n\r\n" % len(ANSWER), [], ANSWER)
@settings(max_examples=150, deadline=None)
def test_a_known_answer_is_told_as_the_parser_tells_it(answer: bytes, cuts: list[int], behind: bytes) -> None:
    parts = pieces(answer + behind, cuts)
    assert asyncio.run(from_an_engine(parts, parse_all=False)) == asyncio.run(from_an_engine(parts, parse_all=True))


def test_what_is_kept_is_bounded() -> None:
    heads: Heads[int] = Heads()
    for number in range(2000):
        heads.learn(b"POST / HTTP/1.1\r\nx: %d\r\ncontent-length: 2\r\n\r\n{}" % number, number)
    assert heads.find(b"POST / HTTP/1.1\r\nx: 0\r\ncontent-length: 2\r\n\r\n{}") is None
    assert heads.find(b"POST / HTTP/1.1\r\nx: 1999\r\ncontent-length: 3\r\n\r\n{ }") == (1999, b"{ }")
    heads.learn(b"POST / HTTP/1.1\r\nx: %b\r\ncontent-length: 2\r\n\r\n{}" % (b"y" * 5000), 1)
    assert heads.find(b"POST / HTTP/1.1\r\nx: %b\r\ncontent-length: 2\r\n\r\n{}" % (b"y" * 5000)) is None
    assert length_of(b"GET / HTTP/1.1\r\n\r\n") == 0
