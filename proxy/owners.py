"""Whose request that was, by its id: from the ledger's index and the logs behind it, and from the logs' ends.

Any worker of this instance can answer for all of them, at once and after a restart: nothing is kept in memory.  The index
says where a request's record stands; it is found there by halving the segment, not by reading it.  What the index does not
have yet, half a second's worth, is looked for at the end of each log.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct

from compliance.journal import slots
from compliance.records import UnknownRecord, decode
from compliance.segments import Segment, opened, segments
from proxy.auth import Principal

MOST_UNREAD = 20_000
"""Records at a log's end that are looked through: far more than are ever missing from the index, while it is filled."""
_SEQ = re.compile(rb'"seq":(\d+)')
_REQUEST = re.compile(rb'"request":"([^"\\]{1,128})"')
_TRAFFIC = (b'"kind":"decision"', b'"kind":"refused"')


class Owner(Struct, frozen=True):
    """Who asked."""

    key: str
    organisation: str
    team: str
    project: str
    tenant: str

    def is_also(self, principal: Principal) -> bool:
        """Is this caller the same key, or another key of the same application?"""
        if (self.organisation, self.tenant) != (principal.organisation, principal.tenant or ""):
            return False
        if self.key == principal.key:
            return True
        return bool(self.project) and (self.team, self.project) == (principal.team, principal.project)


class Owners:
    """Looks requests up.  Blocks: for a thread of its own, and one at a time."""

    def __init__(self, ledger: Path, audit: Path) -> None:
        self._ledger = ledger
        self._audit = audit

    def find(self, requests: Collection[str], principal: Principal) -> dict[str, Owner]:
        """The owner of each request that is the caller's; whatever is not is looked for as if it were not there.

        Raises `sqlite3.Error`, `OSError`.
        """
        wanted = set(requests)
        logs = {log.name: log for log in slots(self._audit)}
        found: dict[str, Owner] = {}
        positions: dict[str, int] = {}
        db = sqlite3.connect(f"file:{self._ledger}?mode=ro", uri=True, timeout=5.0)
        try:
            positions = {_slot(origin): seq for origin, seq in db.execute("SELECT origin, seq FROM positions")}
            for request in wanted:
                rows = db.execute(
                    "SELECT origin, seq FROM requests WHERE request = ? AND kind != 'outcome'", (request,)
                )
                for origin, seq in rows:
                    log = logs.get(_slot(origin))
                    line = None if log is None else record_at(log, seq)
                    if line is not None and (owner := _owner(line, request)) is not None and owner.is_also(principal):
                        found[request] = owner
        finally:
            db.close()
        missing = wanted - found.keys()
        for name, log in logs.items():
            if not missing:
                break
            seen = _at_the_end(log, positions.get(name, -1) + 1, missing)
            found.update({request: owner for request, owner in seen.items() if owner.is_also(principal)})
            missing = wanted - found.keys()
        return found


def _slot(origin: str) -> str:
    return origin.rpartition("/")[2]


def _owner(line: bytes, request: str) -> Owner | None:
    try:
        record: Any = decode(line)
    except UnknownRecord:
        return None
    if record.request != request:
        return None
    return Owner(record.key, record.organisation, record.team, record.project, record.tenant)


def _at_the_end(log: Path, start: int, wanted: Collection[str]) -> dict[str, Owner]:
    found: dict[str, Owner] = {}
    asked = {request.encode() for request in wanted}
    for line in _lines_from(log, start):
        named = _REQUEST.search(line)
        if named is None or named[1] not in asked or not any(mark in line for mark in _TRAFFIC):
            continue
        request = named[1].decode()
        if (owner := _owner(line, request)) is not None:
            found[request] = owner
    return found


def _lines_from(log: Path, start: int) -> Iterator[bytes]:
    """The lines of records from `start` on, as far as they are whole; at most `MOST_UNREAD`."""
    left = MOST_UNREAD
    kept = [segment for segment in segments(log) if not segment.removed]
    for number, segment in enumerate(kept):
        if number + 1 < len(kept) and kept[number + 1].first <= start:
            continue
        with opened(segment) as file:
            file.seek(_offset(file, segment, start))
            for line in file:
                if not line.endswith(b"\n") or not left:
                    return
                left -= 1
                yield line[:-1]


def record_at(log: Path, seq: int) -> bytes | None:
    """The canonical line of one record; None where it is not there (any more)."""
    holding: Segment | None = None
    for segment in segments(log):
        if segment.first <= seq:
            holding = segment
    if holding is None or holding.removed:
        return None
    with opened(holding) as file:
        file.seek(_offset(file, holding, seq))
        line: bytes = file.readline()
    found = _SEQ.search(line)
    return line[:-1] if line.endswith(b"\n") and found is not None and int(found[1]) == seq else None


def _offset(file: Any, segment: Segment, seq: int) -> int:
    """Where the line of the first record that is not before `seq` begins in a segment."""
    if seq <= segment.first:
        return 0
    low, high = 0, file.seek(0, 2)
    while low < high:  # the first place from which the next line to begin is not before it lies in [low, high]
        middle = (low + high) // 2
        begin = _line_start(file, middle)
        line = file.readline()
        found = _SEQ.search(line)
        if found is None or int(found[1]) >= seq:
            high = middle
        else:
            low = begin + len(line)
    return _line_start(file, low)


def _line_start(file: Any, place: int) -> int:
    """Where the first line begins that does not begin before this place; the file stands there."""
    file.seek(max(0, place - 1))
    if place:
        file.readline()
    return int(file.tell())
