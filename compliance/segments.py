"""The files that one slot's records stand in: an open segment, and sealed ones that never change again (effects: files).

    segment-000000020000.jsonl                 open: records are appended to it
    segment-000000000000-000000009999.jsonl    sealed, mode 0444, named by its first and its last record
    segment-000000000000-000000009999.leaves   sealed once; retention removed its records and kept their leaf hashes

A sealed segment can be copied to write-once storage as it is.  Sequences have no gap over segments; records have one
where retention removed them.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from msgspec import Struct

_NAME = re.compile(r"segment-(\d{12,})(?:-(\d{12,}))?\.(jsonl|leaves)")
_SEALED_MODE = 0o444
LEAF = 32
"""Bytes of a leaf hash."""


class Segment(Struct, frozen=True):
    """One segment; `last` is -1 while it is open."""

    path: Path
    first: int
    last: int = -1

    @property
    def sealed(self) -> bool:
        return self.last >= 0

    @property
    def removed(self) -> bool:
        """Are its records gone, and only their leaf hashes here?"""
        return self.path.suffix == ".leaves"


def segments(directory: Path) -> list[Segment]:
    """Every segment of a slot, in order.  Where retention was interrupted, records count and not their leaf hashes."""
    found: dict[int, Segment] = {}
    for name in os.listdir(directory):
        match = _NAME.fullmatch(name)
        if match is None or (match[3] == "leaves" and not match[2]):
            continue
        segment = Segment(directory / name, int(match[1]), int(match[2]) if match[2] else -1)
        other = found.get(segment.first)
        if other is None or other.removed:
            found[segment.first] = segment
    return [found[first] for first in sorted(found)]


def open_path(directory: Path, first: int) -> Path:
    """Where the open segment that begins with this record stands."""
    return directory / f"segment-{first:012d}.jsonl"


def seal(segment: Segment, last: int) -> Segment:
    """Give an open segment its last name: nothing is written to it from here on.  The caller syncs the directory."""
    path = segment.path.with_name(f"segment-{segment.first:012d}-{last:012d}.jsonl")
    segment.path.rename(path)
    with contextlib.suppress(OSError):  # a file system without modes
        path.chmod(_SEALED_MODE)
    return Segment(path, segment.first, last)


def unseal(segment: Segment) -> Segment:
    """Take the last name back, of a segment whose end was not this log's.  The caller syncs the directory."""
    path = open_path(segment.path.parent, segment.first)
    with contextlib.suppress(OSError):
        segment.path.chmod(0o600)
    segment.path.rename(path)
    return Segment(path, segment.first)


def sync_directory(directory: Path) -> None:
    """Until the names in a directory are on the disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_numbered(directory: Path, start: int = 0, *, stop: int | None = None) -> Iterator[tuple[int, bytes]]:
    """(sequence, canonical line without its line end) of a slot's records from `start` on, up to `stop` (not included).

    Without opening the log for writing.  What retention removed is passed over.
    """
    found = segments(directory)
    for number, segment in enumerate(found):
        if number + 1 < len(found) and found[number + 1].first <= start:
            continue
        seq = segment.first
        if segment.removed or (stop is not None and seq >= stop):
            continue
        with opened(segment) as file:
            for line in file:
                if (stop is not None and seq >= stop) or not line.endswith(b"\n"):
                    return
                if seq >= start:
                    yield seq, line[:-1]
                seq += 1


def read_lines(directory: Path, start: int = 0, *, stop: int | None = None) -> Iterator[bytes]:
    """The same records without their sequence."""
    return (line for _, line in read_numbered(directory, start, stop=stop))


def segment_starts(directory: Path) -> Iterator[tuple[int, bytes]]:
    """(sequence, first record's line) of each segment that holds a record, oldest first: where to begin to read."""
    for segment in segments(directory):
        if segment.removed:
            continue
        with opened(segment) as file:
            line = file.readline()
        if line.endswith(b"\n"):
            yield segment.first, line[:-1]


def opened(segment: Segment) -> IO[bytes]:
    """A segment for reading, also where its writer sealed it since it was looked for."""
    try:
        return open(segment.path, "rb")
    except FileNotFoundError:
        for now in segments(segment.path.parent):
            if now.first == segment.first and not now.removed:
                return open(now.path, "rb")
        raise
