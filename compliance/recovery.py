"""Opening a log again: what stands on the disk, checked against what was signed, and what a crash left (effects: files).

JournalError
└── JournalDamaged     the files are not what the last signed checkpoint says
"""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from compliance import checkpoints, notes
from compliance.checkpoints import Checkpoint
from compliance.merkle import Frontier, leaf_hash
from compliance.records import Decision, Outcome, UnknownRecord, decode
from compliance.segments import LEAF, Segment, read_lines, seal, segments


class JournalError(Exception):
    """The log cannot take what it should: nothing may leave (law 2)."""


class JournalDamaged(JournalError):
    """The files are not what the last signed checkpoint says."""


class Recovery:
    """What one slot's log holds.  Cuts off what a crash left unfinished; raises `JournalDamaged` and `OSError`."""

    def __init__(self, directory: Path, origin: str, key: Ed25519PublicKey) -> None:
        self._directory = directory
        self.cut_bytes = 0  # of a torn last line
        notes.cut_torn(directory / "checkpoints")
        self._signed = self._newest_checkpoint(origin, key)
        found = self._contiguous()
        mark = self._load_mark()
        self.frontier = Frontier(mark["size"], [bytes.fromhex(h) for h in mark["frontier"]])
        if self.frontier.root().hex() != mark["root"]:
            raise JournalDamaged("frontier.json does not fit its own root")
        self._check_signed()
        self.checkpointed: int = mark["size"]
        self.last_kind: str = mark["last_kind"]
        self.last_at: int = mark["last_at"]
        self.lag_us: int | None = mark.get("lag_us")  # how far local requests might run ahead of their records
        there = 0
        for segment in found:
            there = segment.last + 1
            if not segment.sealed or there > self.checkpointed:
                there = self._replay(segment)
        promised = max(self.checkpointed, self._signed.size)
        if there < promised:
            raise JournalDamaged(f"the log has {there} records, its checkpoint says {promised}")
        self.unsigned = there - self._signed.size  # records that no checkpoint covers: taken over as they stand
        self.clean = self.last_kind in ("stopped", "")  # the last writer stopped, or there was none
        self.interrupted = self._without_outcome(mark["oldest_open"])
        self.segment = found[-1] if found and not found[-1].sealed else None  # the open one, which goes on

    def _contiguous(self) -> list[Segment]:
        """The segments; one that was left behind open is sealed."""
        found = segments(self._directory)
        for number, (segment, after) in enumerate(pairwise(found)):
            if not segment.sealed:
                found[number] = segment = seal(segment, after.first - 1)
            if segment.last + 1 != after.first:
                raise JournalDamaged(f"a segment is missing before {after.path.name}")
        if found and found[0].first:
            raise JournalDamaged(f"a segment is missing before {found[0].path.name}")
        return found

    def _replay(self, segment: Segment) -> int:
        """Hash what came after the checkpoint; cut a torn tail off the open segment.  The sequence after its last record."""
        if segment.removed:
            self._replay_leaves(segment)
            return segment.last + 1
        with open(segment.path, "rb" if segment.sealed else "r+b") as file:
            seq = segment.first
            good = 0
            for line in file:
                if not line.endswith(b"\n") or b"\0" in line:  # half of a line, or a hole that a power cut left
                    break
                if seq >= self.frontier.size:
                    self._take(line[:-1], segment)
                seq += 1
                good += len(line)
            file.seek(0, os.SEEK_END)
            if segment.sealed and (seq != segment.last + 1 or file.tell() > good):
                raise JournalDamaged(f"{segment.path.name} does not hold the records that its name says")
            if file.tell() > good:
                self.cut_bytes = file.tell() - good
                file.truncate(good)
                os.fsync(file.fileno())
        return seq

    def _take(self, line: bytes, segment: Segment) -> None:
        try:
            record = decode(line)
        except UnknownRecord:
            where = f"record {self.frontier.size} of {segment.path.name}"
            raise JournalDamaged(f"{where} is none; `audit verify` says more") from None
        self.frontier.append(leaf_hash(line))
        self._check_signed()
        self.last_kind = record.kind
        self.last_at = max(self.last_at, record.at)

    def _replay_leaves(self, segment: Segment) -> None:
        """The same of records that retention removed: their leaf hashes are there."""
        leaves = segment.path.read_bytes()
        if len(leaves) != (segment.last + 1 - segment.first) * LEAF:
            raise JournalDamaged(f"{segment.path.name} does not hold the leaf hashes that its name says")
        for number in range(self.frontier.size - segment.first, segment.last + 1 - segment.first):
            self.frontier.append(leaves[number * LEAF : (number + 1) * LEAF])
            self._check_signed()

    def _newest_checkpoint(self, origin: str, key: Ed25519PublicKey) -> Checkpoint:
        note = notes.last(self._directory / "checkpoints")
        if not note:
            return Checkpoint(origin, 0, Frontier().root())
        try:
            return checkpoints.open_note(note, origin, key)
        except checkpoints.BadNote as bad:
            raise JournalDamaged(f"the newest checkpoint is not this log's own: {bad}") from None

    def _check_signed(self) -> None:
        """What was signed is never continued otherwise."""
        if self.frontier.size == self._signed.size and self.frontier.root() != self._signed.root:
            raise JournalDamaged(f"the first {self._signed.size} records are not those that were signed")

    def _load_mark(self) -> dict[str, Any]:
        """Where the tree stood.  Only a short cut: where a crash left none, all records are hashed again."""
        try:
            mark: dict[str, Any] = json.loads((self._directory / "frontier.json").read_text())
        except (FileNotFoundError, ValueError):
            nothing = {"size": 0, "frontier": [], "root": Frontier().root().hex()}
            return {**nothing, "last_kind": "", "last_at": 0, "oldest_open": 0}
        return mark

    def _without_outcome(self, start: int) -> list[Decision]:
        still_open: dict[tuple[str, int], Decision] = {}
        for record in map(decode, read_lines(self._directory, start)):
            if isinstance(record, Decision):
                still_open[record.request, record.attempt] = record
            elif isinstance(record, Outcome):
                still_open.pop((record.request, record.attempt), None)
        return list(still_open.values())
