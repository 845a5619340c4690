"""Requests of one connection that come shortly after one another: all are answered, and the connection is kept."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from proxy.ingress import TURN, Door

REQUEST = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}"


@pytest.mark.parametrize("turns", range(6))
async def test_a_second_request_some_turns_of_the_loop_later_ends_nothing(turns: int) -> None:
    loop = asyncio.get_running_loop()

    async def serve(inbound: Any, sink: Any) -> None:
        sink.whole(200, b"", b"ok")

    door = Door(serve, loop, body_limit=9, header_timeout=60, body_timeout=60)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    connection = door()
    await loop.create_connection(lambda: connection, sock=theirs)
    await asyncio.sleep(0)
    try:
        for rounds in range(1, 4):
            connection.data_received(REQUEST)
            for _ in range(turns):
                await asyncio.sleep(0)
            connection.data_received(REQUEST)
            for _ in range(20):
                await asyncio.sleep(0)
            answered = b""
            while answered.count(b"ok") < 2:
                answered += await asyncio.wait_for(loop.sock_recv(ours, 65536), 5)
            assert connection.idle, f"it ended in round {rounds}"
    finally:
        ours.close()
        await door.shutdown(5)


async def test_requests_that_come_before_the_last_ones_are_settled_are_begun_a_few_in_a_turn() -> None:
    loop = asyncio.get_running_loop()
    begun, settled = 0, asyncio.Event()

    async def serve(inbound: Any, sink: Any) -> None:
        nonlocal begun
        begun += 1
        sink.whole(200, b"", b"ok")
        await settled.wait()

    door = Door(serve, loop, body_limit=9, header_timeout=60, body_timeout=60)
    pairs = [socket.socketpair() for _ in range(3 * TURN)]
    connections = [door() for _ in pairs]
    for connection, (_, theirs) in zip(connections, pairs, strict=True):
        await loop.create_connection(lambda connection=connection: connection, sock=theirs)  # type: ignore[misc]
    try:
        for connection in connections:
            connection.data_received(REQUEST)
        while begun < len(pairs):
            await asyncio.sleep(0)
        for connection in connections:
            connection.data_received(REQUEST)
        settled.set()
        while begun < 2 * len(pairs):
            before = begun
            await asyncio.sleep(0)
            assert begun - before <= TURN
    finally:
        for ours, _ in pairs:
            ours.close()
        await door.shutdown(5)
