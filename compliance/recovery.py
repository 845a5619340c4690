"""Opening a log again: what stands on the disk, checked against what was signed, and what a crash left (effects: files).

JournalError
└── JournalDamaged     the files are not what the last signed checkpoint says

Records that no checkpoint covers are taken over as far as the key vouches for them (`compliance.tails`).  What comes after
is half a group, which a crash left and nobody was promised, or somebody else's: it is set aside in a file
`unauthenticated-SEQUENCE.jsonl` beside the log, which nothing reads, and the start record counts it.
"""

from __future__ import annotations

import errno
import hmac
import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Struct

from compliance import checkpoints, notes
from compliance.checkpoints import Checkpoint
from compliance.merkle import Frontier
from compliance.records import Decision, Outcome, UnknownRecord, decode
from compliance.segments import LEAF, Segment, read_lines, seal, segments, sync_directory, unseal
from compliance.tails import Chain, NotSigned, Voucher

_BLOCK = 1 << 20  # bytes that are copied at once


class JournalError(Exception):
    """The log cannot take what it should: nothing may leave (law 2)."""


class JournalDamaged(JournalError):
    """The files are not what the last signed checkpoint says."""


class _Read(Struct):
    """What one segment holds."""

    segment: Segment
    end: int = 0  # bytes of whole lines
    vouched: int = 0  # bytes of those that are signed or vouched for
    until: int = 0  # the sequence after the last of these
    rest: int = 0  # lines after them
    torn: bool = False  # half of a line follows


class Recovery:
    """What one slot's log holds.  Cuts off what a crash left unfinished; raises `JournalDamaged` and `OSError`."""

    def __init__(self, directory: Path, origin: str, key: Ed25519PrivateKey) -> None:
        self._directory = directory
        self._voucher = Voucher(key, origin)
        self.cut_bytes = 0  # of a torn last line
        notes.cut_torn(directory / "checkpoints")
        self._signed = self._newest_checkpoint(origin, key.public_key())
        found = self._contiguous()
        mark = self._load_mark()
        self.checkpointed: int = mark["size"]
        self.last_kind: str = mark["last_kind"]
        self.last_at: int = mark["last_at"]
        self.lag_us: int | None = mark.get("lag_us")  # how far local requests might run ahead of their records
        try:
            self._replay_all(found, mark)
        except NotSigned as wrong:
            raise JournalDamaged(str(wrong)) from None
        self.clean = self.last_kind in ("stopped", "")  # the last writer stopped, or there was none
        self.interrupted = self._without_outcome(mark["oldest_open"])
        found = segments(directory)
        self.segment = found[-1] if found and not found[-1].sealed else None  # the open one, which goes on

    def _replay_all(self, found: list[Segment], mark: dict[str, Any]) -> None:
        frontier = Frontier(mark["size"], [bytes.fromhex(h) for h in mark["frontier"]])
        self._chain = Chain(self._voucher, frontier, self._signed, marked="mac" in mark)
        self._last_line = b""
        there = 0
        reads: list[_Read] = []
        for segment in found:
            there = segment.last + 1
            if not segment.sealed or there > self.checkpointed:
                reads.append(self._replay(segment))
        if self._chain.end():
            self._vouch_for_all(reads)
        self.frontier = self._chain.frontier
        promised = max(self.checkpointed, self._signed.size)
        there = min(self.frontier.size, reads[-1].until if reads else there)
        if there < promised:
            raise JournalDamaged(f"the log has {there} records, its checkpoint says {promised}")
        self.unsigned = there - self._signed.size  # records that no checkpoint covers, taken over
        self.unvouched = self._chain.unvouched  # of these, such as an earlier version left, which vouched for none
        self.unauthenticated = sum(read.rest for read in reads)
        for read in reads:
            if read.rest or read.torn:
                self._clear(read)

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

    def _replay(self, segment: Segment) -> _Read:
        """Hash what came after the checkpoint."""
        read = _Read(segment, until=segment.first)
        if segment.removed:
            self._replay_leaves(segment)
            read.until = segment.last + 1
            return read
        with open(segment.path, "rb") as file:
            seq = segment.first
            for line in file:
                if not line.endswith(b"\n") or b"\0" in line:  # half of a line, or a hole that a power cut left
                    break
                read.end += len(line)
                read.rest += 1
                seq += 1
                if seq <= self._chain.frontier.size or self._take(line[:-1], segment):
                    read.vouched, read.until, read.rest = read.end, seq, 0
            size = file.seek(0, os.SEEK_END)
            if segment.sealed and (seq != segment.last + 1 or size > read.end):
                raise JournalDamaged(f"{segment.path.name} does not hold the records that its name says")
        self.cut_bytes += size - read.end
        read.torn = size > read.end
        return read

    def _take(self, line: bytes, segment: Segment) -> bool:
        """Is everything up to it signed, or vouched for?"""
        if not self._chain.line(line):
            self._last_line = line
            return False
        if self._chain.frontier.size >= self._signed.size:  # of all that was signed, only what the last says is needed
            self._follow(line, segment.path.name)
        return True

    def _follow(self, line: bytes, name: str) -> None:
        try:
            record = decode(line)
        except UnknownRecord:
            where = f"record {self._chain.frontier.size - 1} of {name}"
            raise JournalDamaged(f"{where} is none; `audit verify` says more") from None
        self.last_kind = record.kind
        self.last_at = max(self.last_at, record.at)

    def _vouch_for_all(self, reads: list[_Read]) -> None:
        """What a version left that vouched for nothing is taken over as it stands, and the start record says so."""
        for read in reads:
            read.vouched, read.until, read.rest = read.end, read.until + read.rest, 0
        self._follow(self._last_line, reads[-1].segment.path.name)

    def _clear(self, read: _Read) -> None:
        """Take from a segment what nothing vouches for; whole lines are kept where nothing reads them."""
        path = read.segment.path
        try:
            if read.rest:
                self._set_aside(path, read.vouched, read.end - read.vouched)
        except OSError as error:  # nobody was promised these, and on a full disk the log goes on without them
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
        if read.segment.first > self.frontier.size:
            path.unlink()
        else:
            if read.segment.sealed:
                path = unseal(read.segment).path
            with open(path, "r+b") as file:
                file.truncate(read.vouched)
                os.fsync(file.fileno())
        sync_directory(self._directory)

    def _set_aside(self, path: Path, begin: int, size: int) -> None:
        aside = self._directory / f"unauthenticated-{self.frontier.size:012d}.jsonl"
        with open(path, "rb") as file, open(aside, "ab") as kept:
            file.seek(begin)
            while block := file.read(min(size, _BLOCK)):
                kept.write(block)
                size -= len(block)
            kept.flush()
            os.fsync(kept.fileno())
        sync_directory(self._directory)

    def _replay_leaves(self, segment: Segment) -> None:
        """The same of records that retention removed: their leaf hashes are there."""
        leaves = segment.path.read_bytes()
        if len(leaves) != (segment.last + 1 - segment.first) * LEAF:
            raise JournalDamaged(f"{segment.path.name} does not hold the leaf hashes that its name says")
        for number in range(self._chain.frontier.size - segment.first, segment.last + 1 - segment.first):
            self._chain.leaf(leaves[number * LEAF : (number + 1) * LEAF])

    def _newest_checkpoint(self, origin: str, key: Ed25519PublicKey) -> Checkpoint:
        note = notes.last(self._directory / "checkpoints")
        if not note:
            return Checkpoint(origin, 0, Frontier().root())
        try:
            return checkpoints.open_note(note, origin, key)
        except checkpoints.BadNote as bad:
            raise JournalDamaged(f"the newest checkpoint is not this log's own: {bad}") from None

    def _load_mark(self) -> dict[str, Any]:
        """Where the tree stood.  Only a short cut: where a crash left none, or the key does not vouch for it, all records
        are hashed again."""
        nothing: dict[str, Any] = {"size": 0, "frontier": [], "last_kind": "", "last_at": 0, "oldest_open": 0}
        try:
            mark: dict[str, Any] = json.loads((self._directory / "frontier.json").read_text())
            genuine = hmac.compare_digest(mark["mac"], self._voucher.mark_mac(mark))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return nothing
        return mark if genuine else nothing

    def _without_outcome(self, start: int) -> list[Decision]:
        still_open: dict[tuple[str, int], Decision] = {}
        for number, line in enumerate(read_lines(self._directory, start), start):
            try:
                record = decode(line)
            except UnknownRecord:
                raise JournalDamaged(f"record {number} is none; `audit verify` says more") from None
            if isinstance(record, Decision):
                still_open[record.request, record.attempt] = record
            elif isinstance(record, Outcome):
                still_open.pop((record.request, record.attempt), None)
        return list(still_open.values())
