"""Evidence packs: the records of a period, with all that a stranger needs to check them (effects: files).

A pack is a directory:

    manifest.json      format, period, what records were chosen by, slots, and the SHA-256 of every other file
    manifest.note      the log's key over the manifest, in the form of a checkpoint: name, length in bytes, SHA-256
    pack.pub           the key (C2SP verifier key)
    roster, roster.pub the newest roster of the logs, and its key (`compliance.roster`)
    retention.jsonl    {"index", "origin", "path", "record"}: the records that name what retention removed of the period
    policies/HASH.json what a policy's hash was taken over, where it is kept
    SLOT/key.pub       the slot's key, under its origin
    SLOT/checkpoints   signed notes: the last before the period, the first and the last of the period, that of the
                       roster, those that the auditor brought, and the newest, which everything is proved against
    SLOT/consistency.jsonl   {"first", "path"}: each of the other checkpoints is a prefix of the newest (RFC 6962, 2.1.2)
    SLOT/records.jsonl records as they are stored
    SLOT/proofs.jsonl  {"index", "path"}: the inclusion proof of each record, a line each (RFC 6962, 2.1.1)
    SLOT/edges.jsonl   {"index", "path", "record"}: the log's records just before and just after, which show that
                       nothing of the period was left out; none where records were chosen by more than their time
    SLOT/records.csv   the same records as a table, where asked for

Hashes of paths are base64.  What is checked stands in `compliance.verify`, in numbered steps.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Struct

from compliance import checkpoints, verify
from compliance.checkpoints import BadNote, Checkpoint
from compliance.lookup import Query, rows
from compliance.merkle import Tree, leaf_hash, verify_consistency
from compliance.roster import Roster, RosterError, open_roster
from compliance.segments import LEAF, Segment, opened, read_numbered, segments


class EvidenceError(Exception):
    """No pack can be made of this log; why, in words."""


class SlotExport(Struct, frozen=True):
    """What was exported of one slot."""

    folder: str
    origin: str
    size: int  # records under the newest checkpoint
    records: int
    unsigned: int  # records of the log that no checkpoint covers yet, and that no pack can prove


class _Named(Struct):
    """What is read of a record here."""

    at: int
    policy: str = ""
    policy_before: str = ""
    request: str = ""


_named = msgspec.json.Decoder(_Named).decode


def export(
    logs: Sequence[Path],
    out: Path,
    *,
    key: Ed25519PrivateKey,
    query: Query,
    csv: bool = False,
    since: bytes = b"",
    policy: Callable[[str], bytes | None] = lambda hash_: None,
) -> list[SlotExport]:
    """Write a pack of these slots' logs to `out`, which must not hold anything yet.

    `since`: signed checkpoints that the auditor kept; the pack proves that the log continues each of them.
    `policy` gives what a policy's hash was taken over, where it is kept.  Raises `EvidenceError`; then nothing is left.
    """
    out = out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise EvidenceError(f"{out} is there already; a pack gets a directory of its own")
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        done = _write_pack(logs, part, key, query, csv, since, policy)
        part.rename(out)
    except OSError as error:
        raise EvidenceError(f"{error.filename or out} cannot be used: {error.strerror}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return done


def newest(log: Path) -> tuple[bytes, Checkpoint] | None:
    """The newest signed checkpoint of a slot, and what it says; raises `EvidenceError` where its signature does not fit."""
    notes = _signed(log)
    return notes[-1] if notes else None


def marks(log: Path) -> list[Checkpoint]:
    """What each signed checkpoint of a slot says, the oldest first; raises `EvidenceError`."""
    return [mark for _, mark in _signed(log)]


def newest_roster(logs: Path) -> tuple[str, str, Roster] | None:
    """The newest roster over the slots below `logs`, its name, and what it says; raises `EvidenceError` where it does not fit."""
    note = _newest_roster(logs)
    if not note:
        return None
    try:
        name, public, _ = verify.read_key(logs / "roster.pub")
        return note.decode(), name, open_roster(note, public)
    except (verify.Broken, RosterError, OSError) as error:
        raise EvidenceError(f"{logs / 'roster'}: {error}; `spillway audit verify` says more") from None


def _write_pack(
    logs: Sequence[Path],
    part: Path,
    key: Ed25519PrivateKey,
    query: Query,
    csv: bool,
    since: bytes,
    policy: Callable[[str], bytes | None],
) -> list[SlotExport]:
    if not logs:
        raise EvidenceError("there is no log")
    part.mkdir(parents=True, mode=0o700)
    (part / "policies").mkdir()
    brought = _brought(since, key)
    note = _newest_roster(logs[0].parent)  # before the logs' own checkpoints, which are then no older
    slots = [_Slot(log, part / log.name, key) for log in logs]
    for entry in _copy_roster(note, logs[0].parent, part, key):
        brought.setdefault(entry.origin, []).append((b"", entry))
    done, parts = [], []
    for slot in slots:
        first = slot.write(query, brought.pop(slot.origin, []), csv)
        done.append(SlotExport(slot.name, slot.origin, slot.size, slot.records, slot.unsigned))
        parts.append({
            "first": first, "folder": slot.name, "origin": slot.origin, "records": slot.records, "removed": slot.removed,
            "size": slot.size,
        })  # fmt: skip
    for origin in brought:
        raise EvidenceError(f"a roster or your checkpoint names {origin}, and its log is not among these")
    _write_retentions(slots, part)
    named = {policy for slot in slots for policy in slot.policies}
    for hash_ in sorted(named):
        content = policy(hash_)
        if content is not None and hashlib.sha256(content).hexdigest()[:32] == hash_:
            (part / "policies" / f"{hash_}.json").write_bytes(content)
    name = f"{done[0].origin.rpartition('/')[0]}/evidence"
    (part / "pack.pub").write_text(checkpoints.verifier_key(name, key.public_key()) + "\n")
    manifest = {
        "chosen": query.chosen(),
        "files": {file.relative_to(part).as_posix(): _digest(file) for file in part.rglob("*") if file.is_file()},
        "format": verify.FORMAT,
        "from": query.begin,
        "slots": parts,
        "to": query.end,
    }
    sign_manifest(part, json.dumps(manifest, sort_keys=True, indent=1).encode() + b"\n", name, key)
    return done


def _newest_roster(logs: Path) -> bytes:
    path = logs / "roster"
    return path.read_bytes() if path.exists() else b""


def _copy_roster(note: bytes, logs: Path, part: Path, key: Ed25519PrivateKey) -> list[Checkpoint]:
    """The newest roster into the pack; what it says of each slot that holds something."""
    if not note:
        return []
    try:
        roster: Roster = open_roster(note, key.public_key())
    except RosterError as error:
        raise EvidenceError(f"{logs / 'roster'}: {error}; `spillway audit verify` says more") from None
    (part / "roster").write_bytes(note)
    shutil.copy(logs / "roster.pub", part / "roster.pub")
    return [entry for entry in roster.entries if entry.size]


def _write_retentions(slots: Sequence[_Slot], part: Path) -> None:
    """The record of each removal that the pack speaks of, with its proof; it may stand in any log."""
    wanted = {(slot.origin, first, last) for slot in slots for first, last in slot.removed}
    if not wanted:
        return
    with open(part / "retention.jsonl", "w") as file:
        for slot in slots:
            for row in slot.retentions(wanted):
                file.write(_json(row))


def sign_manifest(pack: Path, manifest: bytes, name: str, key: Ed25519PrivateKey) -> None:
    """Write a pack's manifest and its signature."""
    (pack / "manifest.json").write_bytes(manifest)
    note = checkpoints.sign(name, len(manifest), hashlib.sha256(manifest).digest(), key)
    (pack / "manifest.note").write_bytes(note)


class _Slot:
    """One slot's folder in the making."""

    def __init__(self, log: Path, folder: Path, key: Ed25519PrivateKey) -> None:
        self._log = log
        self._folder = folder
        self.name = folder.name
        self._notes = _signed(log)
        written = (log / "key.pub").read_text()
        self.origin = written.split("+", 1)[0]
        if written.strip() != checkpoints.verifier_key(self.origin, key.public_key()):
            raise EvidenceError(f"{log} was signed by another key than the one that would sign the pack")
        self.size = self._notes[-1][1].size if self._notes else 0
        self.records = 0
        self.unsigned = 0
        self.policies: set[str] = set()
        self.removed: list[tuple[int, int]] = []  # first and last of what retention removed of the period
        self._tree = Tree(b"")

    def write(self, query: Query, brought: list[tuple[bytes, Checkpoint]], csv: bool) -> int | None:
        """Write everything; the sequence of the first record of the period, where it is exported whole."""
        self._folder.mkdir()
        shutil.copy(self._log / "key.pub", self._folder / "key.pub")
        low, high = self._read(query)
        whole = not query.chosen()
        wanted: Iterable[int] = range(low, high)
        if not whole:
            wanted = self._chosen(query)
        self._write_checkpoints(low, high, brought)
        self._write_records(wanted)
        edges = [index for index in (low - 1, high) if whole and 0 <= index < self.size]
        with open(self._folder / "edges.jsonl", "w") as file:
            for index in edges:
                _, line = next(read_numbered(self._log, index))
                file.write(_json(self._proof(index) | {"record": line.decode()}))
        if csv:
            with open(self._folder / "records.csv", "wb") as table:
                table.writelines(verify.table(self._folder / "records.jsonl"))
        return low if whole else None

    def retentions(self, wanted: set[tuple[str, int, int]]) -> Iterator[dict[str, Any]]:
        """The records of this log that name these removals: each of one is enough, and the first is taken."""
        for seq, line in read_numbered(self._log, stop=self.size):
            if b'"kind":"retention"' in line:
                record = json.loads(line)
                named = record["origin"], record["first"], record["last"]
                if record["kind"] == "retention" and named in wanted:
                    wanted.discard(named)
                    yield self._proof(seq) | {"origin": self.origin, "record": line.decode()}

    def _read(self, query: Query) -> tuple[int, int]:
        """Hash what the newest checkpoint covers; the period's first record and the one after its last.

        What retention removed is of the period where the record before it is not later, and that after it not earlier.
        """
        leaves = bytearray()
        low, high, ended = 0, 0, False
        for segment in segments(self._log):
            if segment.removed:
                leaves += segment.path.read_bytes()
                high = high if ended else segment.last + 1
                continue
            for line in _lines(segment):
                index = len(leaves) // LEAF
                if index == self.size:
                    self.unsigned += 1
                    continue
                leaves += leaf_hash(line)
                at = _named(line).at
                if at < query.begin:
                    low = index + 1
                ended = ended or at >= query.end
                if not ended:
                    high = index + 1
        self._tree = Tree(leaves)
        if self._notes and (self._tree.size, self._tree.root()) != (self.size, self._notes[-1][1].root):
            raise EvidenceError(f"{self._log} is not what its checkpoint says; `spillway audit verify` says more")
        high = max(low, high)
        if not query.chosen():
            gone = [segment for segment in segments(self._log) if segment.removed]
            self.removed = [(gap.first, gap.last) for gap in gone if low <= gap.first < high]
        return low, high

    def _chosen(self, query: Query) -> list[int]:
        """Every record of the requests that began in the period and match, and of events that match."""
        requests: set[str] = set()
        alone: set[int] = set()
        for row in rows(self._log, query, stop=self.size):
            if row.request:
                requests.add(row.request)
            else:
                alone.update(row.seqs)
        for seq, line in read_numbered(self._log, stop=self.size) if requests else ():
            if _named(line).request in requests:
                alone.add(seq)
        return sorted(alone)

    def _write_checkpoints(self, low: int, high: int, brought: list[tuple[bytes, Checkpoint]]) -> None:
        own = {mark.size: note for note, mark in self._notes}
        before = [size for size in own if size <= low]
        of_period = [size for size in own if low < size <= high]
        sizes = {*before[-1:], *of_period[:1], *of_period[-1:], *([self.size] if own else [])}
        notes = {size: own[size] for size in sizes}
        for note, mark in brought:
            if mark.size and not note and mark.size in own:  # of a roster, which repeats what a checkpoint says
                note = own[mark.size]
            if mark.size > self.size:
                raise EvidenceError(f"the checkpoint of {mark.size} records is newer than the log of {self.origin}")
            proof = self._tree.consistency(mark.size) if mark.size else []
            if not verify_consistency(mark.size, mark.root, self.size, self._tree.root(), proof):
                raise EvidenceError(f"the log of {self.origin} is no continuation of the checkpoint given")
            if not note:
                raise EvidenceError(
                    f"the roster's checkpoint of {mark.size} records is not in the log of {self.origin}"
                )
            notes.setdefault(mark.size, note)
        ordered = sorted(notes)
        (self._folder / "checkpoints").write_bytes(b"".join(notes[size] + b"\n" for size in ordered))
        with open(self._folder / "consistency.jsonl", "w") as file:
            for size in ordered[:-1]:
                file.write(_json({"first": size, "path": _base64(self._tree.consistency(size))}))

    def _write_records(self, wanted: Iterable[int]) -> None:
        left = iter(wanted)
        index = next(left, None)
        with open(self._folder / "records.jsonl", "wb") as records, open(self._folder / "proofs.jsonl", "w") as proofs:
            for seq, line in read_numbered(self._log, index or 0):
                while index is not None and index < seq:  # retention removed it
                    index = next(left, None)
                if index is None:
                    break
                if seq != index:
                    continue
                records.write(line + b"\n")
                proofs.write(_json(self._proof(seq)))
                self.records += 1
                named = _named(line)
                self.policies |= {named.policy, named.policy_before} - {""}
                index = next(left, None)

    def _proof(self, index: int) -> dict[str, Any]:
        return {"index": index, "path": _base64(self._tree.inclusion(index))}


def _signed(log: Path) -> list[tuple[bytes, Checkpoint]]:
    """A slot's signed checkpoints, oldest first; the newest one's signature is verified, which covers what came before."""
    try:
        name, public, _ = verify.read_key(log / "key.pub")
        notes = verify.read_notes(log / "checkpoints")
        marks = [(note, _mark(note)) for note in notes]
        if notes:
            checkpoints.open_note(notes[-1], name, public)
    except (verify.Broken, BadNote) as error:
        raise EvidenceError(f"{log}: {error}; `spillway audit verify` says more") from None
    return marks


def _lines(segment: Segment) -> Iterator[bytes]:
    """A segment's records; what is torn off the open one's end does not count."""
    with opened(segment) as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line[:-1]


def _brought(since: bytes, key: Ed25519PrivateKey) -> dict[str, list[tuple[bytes, Checkpoint]]]:
    """What an auditor kept, by log: checkpoints, and what rosters say of each."""
    found: dict[str, list[tuple[bytes, Checkpoint]]] = {}
    try:
        for note in verify.split_notes(since, "the earlier checkpoint"):
            origin = note.partition(b"\n")[0].decode("utf-8", "replace")
            if origin.endswith("/roster"):
                for entry in open_roster(note, key.public_key()).entries:
                    if entry.size:
                        found.setdefault(entry.origin, []).append((b"", entry))
                continue
            mark = _mark(note)
            found.setdefault(mark.origin, []).append((note, mark))
    except (verify.Broken, BadNote, RosterError) as error:
        raise EvidenceError(str(error)) from None
    return found


def _mark(note: bytes) -> Checkpoint:
    """What a note says, whoever signed it."""
    lines = note.decode("utf-8", "replace").split("\n")
    try:
        return Checkpoint(lines[0], int(lines[1]), base64.b64decode(lines[2]))
    except (IndexError, ValueError):
        raise BadNote("not a checkpoint") from None


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _base64(hashes: Sequence[bytes]) -> list[str]:
    return [base64.b64encode(hash_).decode() for hash_ in hashes]


def _json(row: Mapping[str, Any]) -> str:
    return json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"
