"""Server-sent events: incremental framing, no I/O (WHATWG HTML, section 9.2).

A frame keeps every byte it came in, so that what passes unchanged passes byte for byte.
"""

from __future__ import annotations

import re

from engines.errors import MalformedAnswer
from engines.model import Frame

LIMIT = 4 * 1024 * 1024
"""Bytes of the largest single event; past it the stream is broken."""

_BOM = b"\xef\xbb\xbf"
# Two line ends in a row (a blank line) end an event.  Each is LF, CRLF or CR; a CRLF is one, not two.
_BLANK = re.compile(rb"\r\n(?:\r\n|\n|\r)|\n(?:\r\n|\n|\r)|\r(?:\r\n|\r)")
_LINES = re.compile(rb"\r\n|\n|\r")


class Framer:
    """Cuts a stream of bytes into events, however it arrives in pieces.

    For any cutting, the raw bytes of all frames and then `rest` are the input.
    """

    __slots__ = ("_buffer", "_limit", "_searched")

    def __init__(self, limit: int = LIMIT) -> None:
        self._buffer = bytearray()  # grows in place: a large event in small pieces is not copied at each
        self._searched = 0  # bytes of the buffer that are known to hold no event's end
        self._limit = limit

    def feed(self, chunk: bytes) -> list[Frame]:
        """The events that are complete now.  Raises `MalformedAnswer` past the limit."""
        if (
            not self._buffer
            and len(chunk) <= self._limit
            and chunk.endswith(b"\n\n")
            and b"\r" not in chunk
            and chunk.startswith(b"data: ")
        ):
            return self._plain(chunk)
        return self._general(chunk)

    def flush(self) -> list[Frame]:
        """At the end of the stream: an event whose blank line was a CR that might have become a CRLF."""
        buffer = self._buffer
        if buffer.endswith(b"\r") and _BLANK.search(buffer) is not None:
            self._buffer = bytearray()
            return [parse(bytes(buffer))]
        return []

    @property
    def rest(self) -> bytes:
        """What is left of an event that was never ended; by the specification it is none."""
        return bytes(self._buffer)

    def _plain(self, chunk: bytes) -> list[Frame]:
        """Whole events of one `data: ` line each, ended by LF LF: how nearly every engine sends them."""
        if chunk.find(b"\n") == len(chunk) - 2:
            return [Frame(chunk, "", chunk[6:-2])]
        frames = []
        for part in chunk.split(b"\n\n"):
            if part:
                raw = part + b"\n\n"
                if b"\n" not in part and part.startswith(b"data: "):
                    frames.append(Frame(raw, "", part[6:]))
                else:
                    return self._general(chunk)
        if sum(len(frame.raw) for frame in frames) != len(chunk):
            return self._general(chunk)  # more than one blank line in a row
        return frames

    def _general(self, chunk: bytes) -> list[Frame]:
        held = self._buffer
        waiting = bool(held)
        if waiting:
            held += chunk
        buffer: bytes | bytearray = held if waiting else chunk
        frames = []
        start = 0
        at = self._searched
        while (match := _BLANK.search(buffer, at)) is not None:
            end = match.end()
            if end == len(buffer) and buffer[end - 1] == 13:
                break  # CR at the very end: an LF may follow and belong to it
            self._check(end - start)
            frames.append(parse(bytes(buffer[start:end])))
            start = at = end
        if waiting:
            del held[:start]
        else:
            held += chunk[start:]
        self._searched = max(0, len(held) - 3)
        self._check(len(held))
        return frames

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise MalformedAnswer(f"an event is larger than {self._limit} bytes")


def parse(raw: bytes) -> Frame:
    """One event's fields.  `data` is None where there is no data line (a comment, a keep-alive)."""
    text = raw[3:] if raw.startswith(_BOM) else raw
    event = ""
    data: list[bytes] = []
    for line in _LINES.split(text):
        if not line or line[0] == 58:  # a comment begins with a colon
            continue
        name, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if name == b"data":
            data.append(value)
        elif name == b"event":
            event = value.decode("utf-8", "replace")
    return Frame(raw, event, b"\n".join(data) if data else None)


def event_bytes(data: bytes, event: str = "") -> bytes:
    """One event on the wire.  `data` must hold no line end (JSON encoders write none)."""
    if event:
        return b"event: %b\ndata: %b\n\n" % (event.encode(), data)
    return b"data: %b\n\n" % data
