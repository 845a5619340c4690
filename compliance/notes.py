"""Files of signed notes, each ended by a blank line; they are only appended to (effects: files).

A crash may leave the last note unfinished: it was never promised to anyone, and the next must not run together with it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

_END = re.compile("^— .*\n\n".encode(), re.MULTILINE)
_TAILS = (1 << 12, 1 << 16)
"""Bytes that hold the last whole note, as a rule; looked at before the whole file is."""


def cut_torn(path: Path) -> None:
    """Cut off a note that a crash left unfinished."""
    if not path.exists():
        return
    with open(path, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        for start in _starts(size):
            file.seek(start)
            whole = [match.end() for match in _END.finditer(file.read())]
            if whole or not start:
                end = start + whole[-1] if whole else 0
                if end < size:
                    file.truncate(end)
                    os.fsync(file.fileno())
                return


def _starts(size: int) -> list[int]:
    return list(dict.fromkeys([*(max(0, size - tail) for tail in _TAILS), 0]))


def last(path: Path) -> bytes:
    """The last whole note of a file, without the blank line after it; nothing where there is none."""
    if not path.exists():
        return b""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        for start in _starts(size):
            file.seek(start)
            data = file.read()
            ends = [match.end() for match in _END.finditer(data)]
            if len(ends) > 1:
                return data[ends[-2] : ends[-1] - 1]
            if ends and not start:
                return data[: ends[-1] - 1]
    return b""
