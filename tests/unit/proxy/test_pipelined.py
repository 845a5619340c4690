"""Requests of one connection that come shortly after one another: all are answered, and the connection is kept."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from proxy.ingress import Door

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
