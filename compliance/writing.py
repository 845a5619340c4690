"""The open segment of a log: records are appended and synced, and after a failure it is mended (effects: files).

What `write` has returned for is on the disk; what it raised for is cut off before anything is written again.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from compliance.records import decode
from compliance.segments import Segment, open_path, seal, sync_directory


class OpenSegment:
    """Where the writer's thread appends.  Every method may raise `OSError`; then `mend` comes before the next `write`."""

    def __init__(self, directory: Path, sync: Callable[[int], None], *, records: int, age: int) -> None:
        self._directory = directory
        self._sync = sync
        self._most = records
        self._age = age  # microseconds that it stays open after its first record
        self._path: Path | None = None
        self._file: IO[bytes] | None = None
        self._records = 0
        self._began = 0  # the time of its first record
        self.offset = 0  # bytes that are on the disk

    def resume(self, segment: Segment, size: int) -> None:
        """Go on with one that was left open; the log has `size` records."""
        self._path = segment.path
        self._file = open(segment.path, "r+b", buffering=0)  # noqa: SIM115
        first = self._file.readline()
        self._began = decode(first[:-1]).at if first else 0
        self.offset = self._file.seek(0, os.SEEK_END)
        self._records = size - segment.first

    def room(self, size: int, at: int) -> int:
        """How many records it takes, a new one being begun where it is full or old; the next is of time `at`."""
        if self._records >= self._most or self.old(at):
            self.seal(size)
        if not self._records:  # a crash may have left it empty
            self._began = at
        if self._path is None:
            path = open_path(self._directory, size)
            self._file = open(path, "ab", buffering=0)  # noqa: SIM115
            self._path, self._records, self.offset, self._began = path, 0, 0, at
            sync_directory(self._directory)
        return self._most - self._records

    def write(self, lines: Sequence[bytes]) -> None:
        """Append these records; on the disk when it returns."""
        assert self._file is not None
        data = memoryview(b"\n".join(lines) + b"\n")
        while data:  # a full disk takes a part, and refuses at the next write
            written = self._file.write(data)  # not in the slice: compiled code may evaluate its bounds twice
            data = data[written:]
        self._sync(self._file.fileno())
        self.offset = self._file.tell()
        self._records += len(lines)

    def old(self, now: int) -> bool:
        """Is there one, and has it been open for long enough?"""
        return self._path is not None and self._records > 0 and now - self._began >= self._age

    def seal(self, size: int) -> None:
        """It never changes again; the log has `size` records."""
        assert self._path is not None and self._file is not None
        seal(Segment(self._path, size - self._records), size - 1)
        self._file.close()
        self._path, self._file, self._records, self.offset = None, None, 0, 0
        sync_directory(self._directory)

    def mend(self) -> None:
        """Open it anew, at the end of what is known to be on the disk.

        After a sync that failed the kernel holds pages for clean that never reached the disk, and a file system that
        was mounted anew has nothing of the old descriptor: so all that was not acknowledged is written again.
        """
        if self._path is None:
            return
        file = open(self._path, "r+b", buffering=0)  # noqa: SIM115
        if self._file is not None:
            self._file.close()
        self._file = file
        self.cut()

    def cut(self) -> None:
        """Take back what was half-written."""
        if self._file is None:
            return
        if self._file.seek(0, os.SEEK_END) < self.offset:
            raise OSError(errno.EIO, "records that were on the disk are gone")
        self._file.truncate(self.offset)
        self._file.seek(self.offset)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
