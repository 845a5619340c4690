"""A scripted engine on a real socket: it keeps every byte that it receives, and answers as its script says.

In a test's own loop as `async with ScriptedEngine(script) as engine`, or in a process of its own that records
what it receives: `python tests/support/scripted.py --port N --record FILE`.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import socket
import ssl
import struct
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any


class Received:
    """One request as it came."""

    def __init__(
        self, method: str, path: str, headers: dict[str, str], body: bytes, raw: bytes, connection: int
    ) -> None:
        self.method = method
        self.path = path
        self.headers = headers  # lower case
        self.body = body
        self.raw = raw
        self.connection = connection
        self.at = time.perf_counter()

    def json(self) -> Any:
        return json.loads(self.body)


class _Keeping(asyncio.StreamReader):
    """Keeps every byte until it is part of a whole request: half a request is evidence as well."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.kept = bytearray()

    def feed_data(self, data: Any) -> None:
        self.kept += data
        super().feed_data(data)


class Play:
    """What a script may do with a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def pieces(self, pieces: Sequence[bytes]) -> None:
        """Each in a segment of its own, as far as TCP lets one choose."""
        for piece in pieces:
            await self.send(piece)
            await asyncio.sleep(0)

    async def left(self) -> float:
        """Until the client closes; when (perf_counter)."""
        with contextlib.suppress(ConnectionError):
            while await self._reader.read(65536):
                pass
        return time.perf_counter()

    def reset(self) -> None:
        """RST instead of FIN."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def close(self) -> None:
        self._writer.close()


Script = Callable[[Received, Play], Awaitable[bool | None]]
"""Answers one request; False closes the connection after it."""


TOKENIZERS = ("/tokenize", "/v1/chat/completions/input_tokens")


class ScriptedEngine:
    """A server on a free port of loopback.  Without `counts` it has no tokenizer, so that scripts need not know of one."""

    def __init__(
        self, script: Script, *, tls: ssl.SSLContext | None = None, port: int = 0, counts: bool = False
    ) -> None:
        self.script = script
        self.requests: list[Received] = []
        self.questions: list[Received] = []  # to a tokenizer that is not there
        self._counts = counts
        self.connections = 0
        self._tls = tls
        self._port = port
        self._tasks: set[asyncio.Task[Any]] = set()
        self._readers: set[_Keeping] = set()
        self._halves: list[bytes] = []

    async def __aenter__(self) -> ScriptedEngine:
        loop = asyncio.get_running_loop()

        def protocol() -> asyncio.StreamReaderProtocol:
            return asyncio.StreamReaderProtocol(_Keeping(loop), self._serve, loop)

        self._server = await loop.create_server(protocol, "127.0.0.1", self._port, ssl=self._tls, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def raw(self) -> bytes:
        """Everything that was received, requests that were cut short included."""
        whole = [request.raw for request in (*self.requests, *self.questions)]
        return b"".join([*whole, *self._halves, *(bytes(reader.kept) for reader in self._readers)])

    @property
    def alive(self) -> int:
        """Connections that are being served."""
        return len(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None and isinstance(reader, _Keeping)
        self._tasks.add(task)
        self._readers.add(reader)
        self.connections += 1
        number = self.connections
        play = Play(reader, writer)
        try:
            while (received := await _read_request(reader, number)) is not None:
                if not self._counts and received.path in TOKENIZERS:
                    self.questions.append(received)
                    await play.send(json_answer({"detail": "Not Found"}, 404))
                    continue
                self.requests.append(received)
                if await self.script(received, play) is False:
                    break
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        except asyncio.CancelledError:
            pass  # the test is over; asyncio's streams would print this
        finally:
            self._tasks.discard(task)
            self._readers.discard(reader)
            if reader.kept:
                self._halves.append(bytes(reader.kept))
            with contextlib.suppress(Exception):
                writer.close()


async def _read_request(reader: _Keeping, number: int) -> Received | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    lines = head.decode("latin-1").split("\r\n")
    method, path, _ = lines[0].split(" ", 2)
    headers = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    del reader.kept[: len(head) + len(body)]
    return Received(method, path, headers, body, head + body, number)


# --- answers -----------------------------------------------------------------------------------------------


def json_answer(value: Any, status: int = 200, headers: Sequence[tuple[str, str]] = ()) -> bytes:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    extra = "".join(f"{name}: {text}\r\n" for name, text in headers)
    return (
        f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{extra}\r\n".encode()
        + body
    )


SSE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


END = b"0\r\n\r\n"


def answering(value: Any, status: int = 200, headers: Sequence[tuple[str, str]] = ()) -> Script:
    """Always this JSON."""
    whole = json_answer(value, status, headers)

    async def script(received: Received, play: Play) -> None:
        await play.send(whole)

    return script


def streaming(events: Sequence[bytes], *, end: bool = True) -> Script:
    """These bytes as a chunked event stream, a chunk each."""

    async def script(received: Received, play: Play) -> bool:
        await play.send(SSE_HEAD)
        await play.pieces([chunk(event) for event in events])
        if end:
            await play.send(END)
        return end

    return script


def chat_chunks(words: Sequence[str], *, usage: bool = True, model: str = "m") -> list[bytes]:
    """A chat completion stream as an OpenAI-compatible engine sends it."""

    def event(choices: list[dict[str, Any]], **more: Any) -> bytes:
        row = {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": model,
            "choices": choices,
            **more,
        }
        return b"data: " + json.dumps(row).encode() + b"\n\n"

    def delta(value: dict[str, Any], finish: str | None = None) -> list[dict[str, Any]]:
        return [{"index": 0, "delta": value, "finish_reason": finish}]

    events = [event(delta({"role": "assistant", "content": None}))]
    events += [event(delta({"content": word})) for word in words]
    events.append(event(delta({}, "stop")))
    if usage:
        events.append(
            event([], usage={"prompt_tokens": 7, "completion_tokens": len(words), "total_tokens": 7 + len(words)})
        )
    return [*events, b"data: [DONE]\n\n"]


def completion(text: str = "hello there", model: str = "m") -> dict[str, Any]:
    """A whole chat completion."""
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
    }  # fmt: skip


def message_events(words: Sequence[str], *, model: str = "m") -> list[bytes]:
    """A message stream as Anthropic sends it."""

    def event(name: str, **fields: Any) -> bytes:
        return f"event: {name}\ndata: {json.dumps({'type': name, **fields})}\n\n".encode()

    usage = {"input_tokens": 7, "output_tokens": 1, "cache_read_input_tokens": 3}
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": [], "stop_reason": None,
            "stop_sequence": None, "usage": usage}  # fmt: skip
    return [
        event("message_start", message=head),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        event("ping"),
        *(event("content_block_delta", index=0, delta={"type": "text_delta", "text": word}) for word in words),
        event("content_block_stop", index=0),
        event(
            "message_delta",
            delta={"stop_reason": "end_turn", "stop_sequence": None},
            usage={"output_tokens": len(words)},
        ),
        event("message_stop"),
    ]


def message(text: str = "hello there", model: str = "m") -> dict[str, Any]:
    """A whole message."""
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 7, "output_tokens": 2},
    }  # fmt: skip


# --- a process of its own ----------------------------------------------------------------------------------


def main() -> None:
    """Answer every chat at once and record each request, flushed, before the answer goes out."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--record", required=True)
    options = parser.parse_args()
    record = open(options.record, "a", buffering=1)  # noqa: SIM115  lives as long as the process
    whole = json_answer(completion())

    async def script(received: Received, play: Play) -> None:
        record.write(json.dumps({"at": time.time_ns(), "body": base64.b64encode(received.body).decode()}) + "\n")
        await play.send(whole)

    async def run() -> None:
        async with ScriptedEngine(script, port=options.port):
            print("ready", flush=True)
            await asyncio.to_thread(sys.stdin.read)

    asyncio.run(run())


if __name__ == "__main__":
    main()
