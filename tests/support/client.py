"""A small HTTP/1.1 client on a raw socket: it shows what is really on the wire, a broken end included."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from typing import Any

import httptools


class BrokenEnd(Exception):
    """The connection ended before the answer did."""


class Answer:
    """A whole answer."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        return json.loads(self.body)


class _Collector:
    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode().lower()] = value.decode()

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.complete = True


class Stream:
    """An open request, read piece by piece."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def until(self, mark: bytes) -> bytes:
        return await asyncio.wait_for(self._reader.readuntil(mark), 5)

    async def read_some(self, size: int) -> bytes:
        """Read until `size` bytes have come."""
        got = b""
        while len(got) < size:
            piece = await asyncio.wait_for(self._reader.read(65536), 5)
            if not piece:
                break
            got += piece
        return got

    def close(self) -> None:
        self._writer.transport.abort()


def request_bytes(path: str, body: Any, headers: Mapping[str, str] | None = None, method: str = "POST") -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = {
        "host": "127.0.0.1",
        "content-type": "application/json",
        "content-length": str(len(raw)),
        **(headers or {}),
    }
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"
    return head.encode() + raw


async def open_stream(port: int, path: str, body: Any, headers: Mapping[str, str] | None = None) -> Stream:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=65536)
    writer.write(request_bytes(path, body, headers))
    return Stream(reader, writer)


async def ask(
    port: int, path: str, body: Any = b"", headers: Mapping[str, str] | None = None, method: str = "POST"
) -> Answer:
    """One request on a connection of its own; raises `BrokenEnd` where the answer's framing breaks off."""
    return await raw(port, request_bytes(path, body, headers, method))


async def raw(port: int, data: bytes) -> Answer:
    """These bytes, and the one answer to them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    collector = _Collector()
    parser = httptools.HttpResponseParser(collector)
    try:
        writer.write(data)
        while not collector.complete:
            piece = await asyncio.wait_for(reader.read(65536), 10)
            if not piece:
                raise BrokenEnd(bytes(collector.body))
            parser.feed_data(piece)
        return Answer(parser.get_status_code(), collector.headers, bytes(collector.body))
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
