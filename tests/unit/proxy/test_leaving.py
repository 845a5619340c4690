"""Many clients that leave at once do not keep the others waiting, and none of their requests is forgotten."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from proxy.ingress import LEAVING, Door

CLIENTS = 3 * LEAVING + 1
RESETS = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset


class Served:
    """A door whose requests wait until they are ended, and its clients."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self.begun = self.ended = 0
        self.clients: list[socket.socket] = []

    def leave(self, *, reset: bool) -> None:
        for client in self.clients:
            if reset:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESETS)
            client.close()


@asynccontextmanager
async def served() -> AsyncIterator[Served]:
    loop = asyncio.get_running_loop()

    async def serve(inbound: object, sink: object) -> None:
        one.begun += 1
        try:
            await asyncio.Event().wait()
        finally:
            one.ended += 1

    one = Served(Door(serve, loop, body_limit=1, header_timeout=60, body_timeout=60))
    server = await loop.create_server(one.door, "127.0.0.1", 0, backlog=CLIENTS)
    try:
        for _ in range(CLIENTS):
            client = socket.create_connection(server.sockets[0].getsockname())
            client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            one.clients.append(client)
        while one.begun < CLIENTS:
            await asyncio.sleep(0)
        yield one
    finally:
        server.close()
        one.leave(reset=False)
        await one.door.shutdown(30)


@pytest.mark.parametrize("reset", [False, True])
async def test_law_09_of_many_that_leave_at_once_a_turn_ends_but_some(reset: bool) -> None:
    async with served() as one:
        one.leave(reset=reset)
        before = 0
        while one.ended < CLIENTS:
            await asyncio.sleep(0)
            assert one.ended - before <= LEAVING
            before = one.ended


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("turns", range(8))
async def test_law_09_who_left_just_before_the_end_is_waited_for(reset: bool, turns: int) -> None:
    async with served() as one:
        one.leave(reset=reset)
        for _ in range(turns):
            await asyncio.sleep(0)
        await one.door.shutdown(30)
        assert one.ended == CLIENTS and not one.door._connections
