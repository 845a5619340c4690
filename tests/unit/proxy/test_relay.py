"""A whole answer whose head is known goes through a relay in one step, whatever has happened to its request meanwhile."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest
from receiving import LOCAL

from engines import openai
from engines.http1 import Connection
from engines.model import Operation
from engines.transport import Transport
from engines.turns import Turns
from proxy.addressing import Timeouts
from proxy.deadlines import Deadlines
from proxy.relay import Relay
from proxy.session import WholeSession

BODY = b'{"id":"c","model":"m","choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}]}'
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)


class Sink:
    """A client's side that writes down what it gets."""

    def __init__(self) -> None:
        self.got: list[bytes] = []

    def whole(self, status: int, head: bytes, body: bytes) -> None:
        self.got.append(body)


def relay_on(connection: Connection, deadlines: Deadlines, loop: asyncio.AbstractEventLoop) -> tuple[Relay, Sink]:
    raw = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
    dialect = openai.DIALECT
    session = WholeSession(
        dialect.parse(Operation.CHAT, raw, {}), dialect, dialect, answer_id="a", created=1, restore_model=False, limit=1000
    )  # fmt: skip
    sink: Any = Sink()
    timeouts = Timeouts(connect=5, first_event=5, idle=5, total=5)
    relay = Relay(
        session, sink, connection, deadlines, timeouts, lambda headers: b"", loop, loop.time(), Turns(loop, 1)
    )
    return relay, sink


@pytest.mark.parametrize("known", [False, True])
async def test_law_09_an_answer_that_comes_as_its_client_leaves_is_no_fault(known: bool) -> None:
    """The request is cancelled, and before its task is told the answer comes: nobody wants it any more."""
    loop = asyncio.get_running_loop()
    faults: list[Any] = []
    loop.set_exception_handler(lambda _, context: faults.append(context))
    transport, deadlines = Transport(loop), Deadlines(loop, tick=0.1)
    ours, theirs = socket.socketpair()
    connection = Connection(loop, transport, LOCAL, "http://a", b"a", b"")
    await loop.create_connection(lambda: connection, sock=theirs)
    if known:
        relay, sink = relay_on(connection, deadlines, loop)
        connection.request(b"POST", b"/", b"", b"", relay, resend=False)
        await asyncio.sleep(0)  # it is sent at the end of this turn
        connection.data_received(ANSWER)
        assert sink.got == [BODY]
    relay, sink = relay_on(connection, deadlines, loop)

    async def attempt() -> None:
        connection.request(b"POST", b"/", b"", b"", relay, resend=False)
        try:
            await relay.finished
        finally:
            relay.abandon()

    task = loop.create_task(attempt())
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # its request is sent
    task.cancel()
    connection.data_received(ANSWER)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sink.got == [] and faults == []
    deadlines.close()
    await transport.close()
    ours.close()
