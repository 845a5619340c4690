"""Captures and master keys for tests of the vault, and every byte that a directory holds."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from compliance.captures import Capture
from compliance.masterkeys import FileMaster
from compliance.sealing import PARTS

AT = 1_795_000_000_000_000


class Spy(FileMaster):
    """Remembers every wrapped key: the bytes that must be gone afterwards."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.wrapped: list[bytes] = []

    def wrap(self, key: bytes) -> bytes:
        blob = super().wrap(key)
        self.wrapped.append(blob)
        return blob


def capture(request: str, *, subject: str = "s1", tenant: str = "clinic", at: int = AT, attempt: int = 0) -> Capture:
    parts = {part: f"{part} of {request}, about {subject}".encode() for part in PARTS}
    return Capture(request, attempt, at, "org", tenant, subject, parts)


def everything(directory: Path) -> bytes:
    """Every byte of every file, SQLite's log and free pages included."""
    return b"\0".join(path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file())


def sealed_keys(path: Path) -> dict[str, bytes]:
    with sqlite3.connect(path) as db:
        found = dict(db.execute("SELECT request, sealed FROM records").fetchall())
    db.close()
    return found
