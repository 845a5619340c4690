"""Retention: whole sealed segments that are older than records are kept lose their bodies (effects: files).

The leaf hashes stay beside the checkpoints, so the tree still verifies, and a record in the operators' log names what
went.  Nothing goes that a legal hold covers, that is not under a signed checkpoint, or of which an attempt has not
ended; the operators' own logs are left alone, since what is in force stands in them (`compliance.control`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from compliance import notes
from compliance.holds import Hold, Holds
from compliance.merkle import leaf_hash
from compliance.records import Record, decode
from compliance.segments import LEAF, Segment, opened, segments, sync_directory

KEPT_OPEN = "an attempt in it has not ended"
KEPT_UNSIGNED = "no signed checkpoint covers it yet"
_TAIL = 1 << 20
"""Bytes that hold the last record of a segment."""
_at = msgspec.json.Decoder(msgspec.defstruct("_At", [("at", int)])).decode


class Removal(Struct, frozen=True):
    """One segment that is old enough to go; `kept` says why it stays all the same."""

    log: Path
    origin: str
    segment: Segment
    since: int  # time of its first record, microseconds since the epoch
    until: int  # of its last
    size: int  # bytes
    kept: str = ""

    @property
    def records(self) -> int:
        return self.segment.last + 1 - self.segment.first


def plan(logs: Sequence[Path], before: int, holds: Holds) -> list[Removal]:
    """Every sealed segment all of whose records are older than `before`, oldest first within each log.

    Raises `OSError`, and `UnknownRecord` where a segment does not hold records.
    """
    return [removal for log in logs for removal in _plan_of(log, before, holds)]


def _plan_of(log: Path, before: int, holds: Holds) -> Iterator[Removal]:
    origin = (log / "key.pub").read_text().split("+", 1)[0]
    signed, oldest_open = _standing(log)
    held: dict[tuple[str, int], Hold] = {}  # attempts under a hold, whose outcomes are, too
    for segment in segments(log):
        if segment.removed:
            continue
        if not segment.sealed:
            return
        since, until = _times(segment)
        if until >= before:
            return
        removal = Removal(log, origin, segment, since, until, segment.path.stat().st_size)
        hold = _held(segment, holds, held) if len(holds) else None
        why = f"hold {hold.id}" if hold is not None else ""
        if segment.last >= oldest_open:
            why = why or KEPT_OPEN
        if segment.last >= signed:
            why = why or KEPT_UNSIGNED
        yield msgspec.structs.replace(removal, kept=why)


def _standing(log: Path) -> tuple[int, int]:
    """How many records a checkpoint covers, and the oldest decision without an outcome."""
    note = notes.last(log / "checkpoints").decode().split("\n")
    mark = log / "frontier.json"
    known: dict[str, Any] = json.loads(mark.read_text()) if mark.exists() else {}
    return int(note[1]) if len(note) > 1 else 0, int(known.get("oldest_open", 0))


def _times(segment: Segment) -> tuple[int, int]:
    """The times of a sealed segment's first and last record."""
    with opened(segment) as file:
        first = file.readline()
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
        last = file.read().rstrip(b"\n").rpartition(b"\n")[2]
    return _at(first).at, _at(last).at  # type: ignore[attr-defined]


def _held(segment: Segment, holds: Holds, held: dict[tuple[str, int], Hold]) -> Hold | None:
    """The first hold that one of its records is under; attempts that are, are added to `held`."""
    found = None
    with opened(segment) as file:
        for line in file:
            record: Record = decode(line[:-1])
            attempt = getattr(record, "request", ""), getattr(record, "attempt", 0)
            hold = holds.blocks_record(record) or held.get(attempt)
            if hold is not None:
                found = found or hold
                if attempt[0]:
                    held[attempt] = hold
    return found


def remove(removal: Removal) -> None:
    """Keep the leaf hashes of a segment and remove its records; its record must be durable already.

    It may be done again where it was interrupted.
    """
    path = removal.segment.path
    with open(path, "rb") as file:
        leaves = b"".join([leaf_hash(line[:-1]) for line in file])
    if len(leaves) != LEAF * removal.records:
        raise ValueError(f"{path} does not hold the records that its name says")
    part = path.with_name("leaves.part")
    with open(part, "wb") as file:
        file.write(leaves)
        file.flush()
        os.fsync(file.fileno())
    part.chmod(0o444)
    part.rename(path.with_suffix(".leaves"))
    sync_directory(path.parent)
    path.unlink()
    sync_directory(path.parent)
