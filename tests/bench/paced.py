"""Paced streams: an engine that stamps the time into every event, and a load that reads how old it is on arrival.

`engine` writes 50 events a second on each stream, each a write of its own; `load` opens the streams and prints
`{"p50_ms", "p99_ms", "events", "streams_ended"}`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from typing import ClassVar

import uvloop

EVENTS_PER_SECOND = 50
PHASES = 20
LONGEST = 600  # seconds: an engine whose benchmark was killed ends by itself
_STAMP = re.compile(rb'"content":"([a-j]+) ')
# The time in letters, as prose would be: long numbers would be looked at as card numbers are.
_LETTERS = str.maketrans("0123456789", "abcdefghij")
_DIGITS = bytes.maketrans(b"abcdefghij", b"0123456789")
_EVENT = b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"%b "},"finish_reason":null}]}\n\n'
_LAST = b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


class Engine(asyncio.Protocol):
    """Streams are spread over `PHASES` phases of a period, so that the load is even."""

    phases: ClassVar[list[set[Engine]]] = [set() for _ in range(PHASES)]
    count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.received = b""
        self.phase = -1

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, separator, body = self.received.partition(b"\r\n\r\n")
        if not separator:
            return
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        if length is not None and len(body) < int(length.group(1)):
            return
        self.received = b""
        if b"/chat/" not in head:
            self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")  # type: ignore[attr-defined]
            return
        self.transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )  # type: ignore[attr-defined]
        self.phase = Engine.count % PHASES
        Engine.count += 1
        Engine.phases[self.phase].add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.phase >= 0:
            Engine.phases[self.phase].discard(self)

    def event(self) -> None:
        data = _EVENT % str(time.monotonic_ns()).translate(_LETTERS).encode()
        self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))  # type: ignore[attr-defined]


async def engine(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Engine, "127.0.0.1", port, backlog=4096)
    phase, due = 0, loop.time()
    async with server:
        end = due + LONGEST
        while due < end:
            for stream in list(Engine.phases[phase]):
                stream.event()
            phase = (phase + 1) % PHASES
            due += 1 / EVENTS_PER_SECOND / PHASES
            await asyncio.sleep(max(0.0, due - loop.time()))


class Reader(asyncio.Protocol):
    """One stream's client."""

    ages: ClassVar[list[int]] = []
    counting = False
    seen = 0
    ended = 0

    def __init__(self, request: bytes) -> None:
        self.request = request

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(self.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        stamps = _STAMP.findall(data)
        Reader.seen += len(stamps)
        if Reader.counting:
            Reader.ages.extend([now - int(stamp.translate(_DIGITS)) for stamp in stamps])

    def connection_lost(self, exc: Exception | None) -> None:
        Reader.ended += 1


async def load(port: int, streams: int, seconds: float, key: str) -> None:
    loop = asyncio.get_running_loop()
    body = json.dumps(
        {"model": "paced", "stream": True, "messages": [{"role": "user", "content": "tell me of water " * 20}]}
    ).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\nauthorization: Bearer {key}\r\ncontent-length: {len(body)}\r\n\r\n"
    for _ in range(streams):
        await loop.create_connection(lambda: Reader(head.encode() + body), "127.0.0.1", port)
        await asyncio.sleep(0.002)
    await asyncio.sleep(1.5)
    Reader.counting = True
    await asyncio.sleep(seconds)
    Reader.counting = False
    ages = sorted(Reader.ages)
    result = {"events": len(ages), "all_events": Reader.seen, "streams_ended": Reader.ended}
    result |= (
        {f"p{int(share * 100)}_ms": round(ages[int(len(ages) * share)] / 1e6, 3) for share in (0.5, 0.99)}
        if ages
        else {"p50_ms": -1, "p99_ms": -1}
    )
    print(json.dumps(result))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["engine", "load"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--key", default="")
    options = parser.parse_args()
    uvloop.run(
        engine(options.port)
        if options.what == "engine"
        else load(options.port, options.streams, options.seconds, options.key)
    )


if __name__ == "__main__":
    main()
