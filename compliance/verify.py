#!/usr/bin/env python3
"""Verify a Spillway audit log or evidence pack offline: Python 3.11, its standard library and `cryptography`.

    python verify.py PATH [--key sha256:FINGERPRINT] [--since CHECKPOINTS] [--json]

PATH is an evidence pack (`spillway audit export`), one slot's directory, or a directory that holds several.
CHECKPOINTS is a file of one or more signed checkpoints and rosters that you kept (`spillway audit checkpoint`).  This
file imports nothing of Spillway and may be copied to another machine; it repeats the tree hashing of RFC 6962 on
purpose.  For each slot of a log, in order:

    1. the files are there and readable: key, checkpoints, segments that follow each other; of several logs, each
       stands in the folder of its name
    2. every line is a canonical record: compact JSON, keys in byte order, no floats
    3. the sequence has no gap, no repetition and no reordering; a sealed segment holds what its name says
    4. time never runs backwards
    5. every checkpoint is signed by the key, and its root is the root over the records it covers
    6. what the auditor brought fits: the key's fingerprint, and earlier checkpoints as prefixes of the log
    7. every decision has its outcome; those still open are listed

Over a directory of several:

    8. every roster is signed by the key of all slots, none is missing between two, and each slot that one names is
       here, with the root that it says (without a roster a whole slot could be missing unseen: not anchored)
    9. records that retention removed, and left the leaf hashes of, are named by a signed record of it
    10. every attestation is signed by the key that it names, and over roots that were signed
    11. no log goes on for long after the newest roster: those of after, and a log that they named, would be gone

For an evidence pack:

    P1. the manifest is signed; every file that it names is there with its SHA-256, and no other file is
    P2. every slot's key is the one that signed the manifest
    P3. every checkpoint is signed by the key, and is a prefix of the newest one by its consistency proof
    P4. what the auditor brought fits: the key's fingerprint, and earlier checkpoints as prefixes of the newest
    P5. every record is canonical, and by its inclusion proof it is the one of its sequence in the newest tree
    P6. the sequence has no repetition and no reordering, and time never runs backwards
    P7. the pack is complete: no gap but what a signed record of retention names, and the log's records on either
        side lie outside the period (a pack of chosen records only shows that these are in the log, not that they
        are all; the report says so)
    P8. a table, where there is one, says what the records say; each policy has the hash that it is named by,
        and policies that records name and the pack does not hold are listed
    P9. the roster is signed by the key, each slot that it names is here, and what it says of it is a prefix of the
        newest checkpoint (without a roster a whole slot could be missing unseen: not anchored)

Exit status: 0 verified, against what the auditor brought; 3 consistent but unanchored (no fingerprint and no
earlier checkpoint was given, or nothing is signed yet, so a log rewritten by the owner of the key would look the
same); 1 not verified; 2 wrong use.
"""

from __future__ import annotations

import argparse
import base64
import collections
import csv
import errno
import functools
import hashlib
import io
import itertools
import json
import multiprocessing
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

VERIFIED, NOT_VERIFIED, WRONG_USE, UNANCHORED = 0, 1, 2, 3
FORMAT = "spillway-evidence-pack/1"
SIGNED = ("manifest.json", "manifest.note", "pack.pub")
ROSTER = ("roster.pub", "roster", "rosters")  # the key, the newest, and those kept of before
_BEHIND = 60_000_000  # microseconds that a log may be ahead of the newest roster; it is signed within seconds
SHORTEST_FINGERPRINT = 32  # hexadecimal digits that a pinned fingerprint must have at least


class Broken(Exception):
    """What is wrong, and where."""


@dataclass
class Slot:
    """The result for one slot's log, or its part of a pack."""

    directory: str
    origin: str = ""
    fingerprint: str = ""
    records: int = 0
    covered: int = 0  # by the newest checkpoint
    root: str = ""
    checkpoints: int = 0
    open_decisions: list[str] = field(default_factory=list)
    continues: bool = False  # an earlier checkpoint of this log that the auditor brought
    anchored: bool = False
    problem: str | None = None
    signed_at: int = 0  # of the last record that a checkpoint covers, microseconds since the epoch
    removed: list[tuple[int, int]] = field(default_factory=list)  # first and last of what retention removed
    retentions: list[tuple[str, int, int]] = field(default_factory=list)  # (origin, first, last) that its records name
    attested: list[Attestation] = field(default_factory=list)


@dataclass
class Attestation:
    """A reviewer's word for a period, as a record of the log holds it."""

    seq: int
    at: int
    begin: int
    end: int
    reviewer: str
    own_key: bool  # signed with a key of the reviewer; else by whoever had the log's key
    fingerprint: str
    roots: list[tuple[str, int, str]]  # origin, size, root in hexadecimal: what the reviewer had before them


@dataclass
class Rosters:
    """What the supervisor said of all slots together."""

    count: int = 0
    number: int = 0  # of the newest
    at: int = 0  # microseconds since the epoch
    fingerprint: str = ""
    marks: dict[str, list[tuple[int, str]]] = field(default_factory=dict)  # by origin: size, and root in hexadecimal
    problem: str | None = None


@dataclass
class Pack:
    """What a pack says of itself; believed once its manifest's signature is."""

    directory: str
    begin: int = 0  # microseconds since the epoch, included
    end: int = 0  # not included
    chosen: dict[str, Any] = field(default_factory=dict)  # by which fields records were chosen; empty: the whole period
    policies: list[str] = field(default_factory=list)
    policies_missing: list[str] = field(default_factory=list)
    problem: str | None = None


@dataclass
class Report:
    """The result over all slots."""

    slots: list[Slot]
    pack: Pack | None = None
    missing: list[str] = field(default_factory=list)  # logs that a roster or the auditor names, and that are not here
    rosters: Rosters | None = None
    alone: bool = False  # one slot's directory: nothing is said of others

    @property
    def status(self) -> int:
        problems = [slot.problem for slot in self.slots]
        problems += [part.problem for part in (self.pack, self.rosters) if part is not None]
        if not self.slots or self.missing or any(problems):
            return NOT_VERIFIED
        whole = self.alone or self.rosters is not None
        return VERIFIED if whole and all(slot.anchored for slot in self.slots) else UNANCHORED


@dataclass
class _Brought:
    """What the auditor trusts already."""

    fingerprint: str | None
    notes: list[bytes]

    def check(self, slot: Slot, key: Ed25519PublicKey) -> list[tuple[int, bytes]]:
        """(size, root) of the auditor's earlier checkpoints of this slot; the pinned fingerprint is compared."""
        if self.fingerprint is not None:
            wanted = self.fingerprint.lower().removeprefix("sha256:")
            if len(wanted) < SHORTEST_FINGERPRINT or not slot.fingerprint.startswith(wanted):
                raise Broken("the key is not the one whose fingerprint was given")
        earlier = []
        for note in self.notes:
            name = _origin(note)
            if name == slot.origin:
                earlier.append(_open(note, slot.origin, key))
            elif name == _roster_name(slot.origin) and slot.origin in (
                entries := _open_roster(note, name, key).entries
            ):
                earlier.append(entries[slot.origin])
        return [(size, root) for size, root in earlier if size]

    def origins(self) -> set[str]:
        """Every log that they speak of."""
        found: set[str] = set()
        for note in self.notes:
            name = _origin(note)
            found |= {line.rsplit(" ", 2)[0] for line in _roster_lines(note)} if name == _roster_name(name) else {name}
        return found


def verify_directory(
    path: Path, *, fingerprint: str | None = None, since: bytes | None = None, processes: int = 1
) -> Report:
    """Verify an evidence pack, one slot's directory, or every slot directory below `path`.

    A long log is read by several processes where that is said; whoever says so guards its main module, as
    `multiprocessing` wants it.
    """
    brought = _Brought(fingerprint, [])
    try:
        brought.notes = split_notes(since, "the earlier checkpoint") if since is not None else []
    except Broken as broken:
        return Report([Slot(str(path), problem=str(broken))])
    if any((path / name).exists() for name in SIGNED):
        report = _verify_pack(path, brought)
    else:
        report = _verify_logs(path, brought, processes)
        if report.alone:
            return report
    # a log that began after the auditor's visit has no earlier checkpoint, but the key that signed the others'
    keys = {slot.fingerprint for slot in report.slots if slot.continues and not slot.problem}
    for slot in report.slots:
        slot.anchored = slot.anchored or (slot.fingerprint in keys and slot.covered > 0 and not slot.problem)
    known = brought.origins() | (report.rosters.marks.keys() if report.rosters is not None else set())
    report.missing = sorted(known - {slot.origin for slot in report.slots})
    return report


# --- a log --------------------------------------------------------------------------------------------------


def _verify_logs(path: Path, brought: _Brought, processes: int) -> Report:
    report = Report([], alone=(path / "key.pub").exists())
    signed: dict[str, dict[int, bytes]] = {}  # by origin: roots of signed checkpoints by their size
    # 8a. the rosters
    if not report.alone and any((path / name).exists() for name in ROSTER):
        report.rosters = _read_rosters(path, brought, processes=processes)
    for directory in [path] if report.alone else sorted(key.parent for key in path.glob("*/key.pub")):
        slot = Slot(str(directory))
        report.slots.append(slot)
        try:
            _verify_slot(directory, slot, brought, report.rosters, signed, processes)
        except Broken as broken:
            slot.problem = str(broken)
        except (OSError, UnicodeDecodeError) as error:
            slot.problem = f"cannot be read: {error}"
    for origin, count in collections.Counter(slot.origin for slot in report.slots if slot.origin).items():
        for slot in report.slots if count > 1 else ():
            if slot.origin == origin:
                slot.problem = slot.problem or f"there are two logs of {origin} here"
    # 1b. each stands in its own place
    for slot in report.slots:
        folder, own = Path(slot.directory).name, slot.origin.rpartition("/")[2]
        if slot.origin and not slot.problem and not report.alone and folder != own:
            slot.problem = (
                f"this folder is called {folder}, and holds the log of {slot.origin}: it was put in another's place"
            )
    # 9. what retention removed
    _check_removed(report)
    # 10. what reviewers signed
    for slot in report.slots:
        for attestation in slot.attested if not slot.problem else ():
            for origin, size, root in attestation.roots:
                if size and origin in signed and signed[origin].get(size, b"").hex() != root:
                    slot.problem = f"record {attestation.seq}: attests to a root of {origin} that was never signed"
    # 11. rosters go on as long as the logs
    _check_rosters_go_on(path, report, brought)
    return report


def _verify_slot(
    directory: Path, slot: Slot, brought: _Brought, rosters: Rosters | None, all_signed: dict[str, dict[int, bytes]], processes: int
) -> None:  # fmt: skip
    # 1. the files
    slot.origin, key, slot.fingerprint = read_key(directory / "key.pub")
    notes = read_notes(directory / "checkpoints")
    segments = _segments(directory)
    # 5a. signatures, before anything is believed
    chunks = [notes[at : at + _CHUNK] for at in range(0, len(notes), _CHUNK)]
    opened = functools.partial(_open_chunk, name=slot.origin, key=key.public_bytes_raw())
    marks = [mark for part in _each(opened, chunks, processes if len(notes) >= _MUCH_NOTES else 1) for mark in part]
    slot.checkpoints = len(marks)
    slot.covered = marks[-1][0] if marks else 0
    if any(after < before for (before, _), (after, _) in itertools.pairwise(marks)):
        raise Broken("checkpoints: a later one covers fewer records than an earlier one")
    signed = all_signed[slot.origin] = dict(marks)
    for size, root in marks:
        if signed[size] != root:
            raise Broken(f"checkpoints: two different roots for {size} records: the log was forked")
    # 6a, 8b. what the auditor brought, and what rosters say
    wanted = _Wanted()
    wanted.add(marks, "those that were signed", f"the newest checkpoint covers {slot.covered} records")
    earlier = brought.check(slot, key)
    wanted.add(
        earlier, "those of the earlier checkpoint: the log was rewritten", "the earlier checkpoint covers {} records"
    )
    if rosters is not None and rosters.problem is None:
        if rosters.fingerprint != slot.fingerprint:
            raise Broken("key.pub: not the key that signed the roster")
        of_rosters = [(size, bytes.fromhex(root)) for size, root in rosters.marks.get(slot.origin, [])]
        for size, _ in of_rosters:
            if size and size not in signed:
                raise Broken(f"checkpoints: that of {size} records is missing, which the roster repeats")
        wanted.add(of_rosters, "those of the roster", "the roster says {} records")
    # 2, 3, 4, 5b, 7: one pass over the records
    tree = _Tree()
    still_open: dict[bytes, None] = {}
    last_at = 0
    wanted.check(tree)
    for segment, part in zip(segments, _parts(segments, processes), strict=True):
        if part.leaves and not segment.removed and part.first_at < last_at:
            raise Broken(f"{segment.path.name}: time runs backwards")
        _grow(tree, part.leaves, wanted)
        if segment.removed:
            slot.removed.append((segment.first, segment.last))
            continue
        last_at = part.last_at
        for decision in part.closed:
            still_open.pop(decision, None)
        still_open |= part.opened
        slot.retentions += [named for seq, *named in part.retentions if seq < slot.covered]  # type: ignore[misc]
        slot.attested += [_checked(one, slot) for one in part.attested if one.seq < slot.covered]
    # 5c, 6b, 8c. nothing that was signed is gone
    wanted.none_left(tree.size)
    slot.records = tree.size
    slot.root = tree.root().hex()
    slot.open_decisions = [decision.decode() for decision in still_open]
    slot.signed_at = _signed_at(segments, slot.covered)
    slot.continues = bool(earlier)
    slot.anchored = slot.continues or (brought.fingerprint is not None and slot.covered > 0)


def _signed_at(segments: list[_Segment], covered: int) -> int:
    """Time of the last record that a checkpoint covers; 0 where it is not here any more."""
    for segment in reversed(segments):
        if segment.first < covered and not segment.removed and segment.path.exists():
            with open(segment.path, "rb") as file:
                line = next(itertools.islice(file, covered - 1 - segment.first, None), b"")
            return _facts(_canonical(line[:-1], segment.path.name), segment.path.name)[2] if line else 0
    return 0


def _check_rosters_go_on(path: Path, report: Report, brought: _Brought) -> None:
    """Rosters are signed as checkpoints are: a log that is ahead of the newest means that those of after were taken away,
    with what they named."""
    rosters = report.rosters
    latest = max(report.slots, key=lambda slot: 0 if slot.problem else slot.signed_at, default=None)
    if rosters is None or rosters.problem or latest is None or latest.problem:
        return
    if latest.signed_at > rosters.at + _BEHIND:
        now = _read_rosters(path, brought)  # of a log that is being written, a newer one is there by now
        if now.problem is None and latest.signed_at > now.at + _BEHIND:
            rosters.problem = (
                f"rosters: the newest is of {_moment(now.at)}, and {latest.origin} has signed records up to"
                f" {_moment(latest.signed_at)} (UTC): later ones are missing, with the logs that only they named"
            )


def _grow(tree: _Tree, leaves: bytes, wanted: _Wanted) -> None:
    """5b, 6b, 8c. Append leaf hashes, and compare the root wherever one is wanted."""
    stops = sorted(size for size in wanted if tree.size < size <= tree.size + len(leaves) // 32)
    done = 0
    for stop in [*stops, tree.size + len(leaves) // 32]:
        count = 32 * (stop - tree.size)
        tree.extend(leaves[done : done + count])
        done += count
        wanted.check(tree)


class _Wanted(dict[int, list[tuple[bytes, str, str]]]):
    """Roots that the tree must have, by its size; and what to say where it has not, or is not as large."""

    def add(self, marks: list[tuple[int, bytes]], whose: str, says: str) -> None:
        for size, root in marks:
            self.setdefault(size, []).append((root, whose, says.format(size)))

    def check(self, tree: _Tree) -> None:
        for root, whose, _ in self.get(tree.size, ()):
            if tree.root() != root:
                raise Broken(f"the first {tree.size} records are not {whose}")

    def none_left(self, size: int) -> None:
        largest = max(self, default=0)
        if largest > size:
            raise Broken(f"{self[largest][0][2]}, but only {size} are there: the log was cut")


def _check_removed(report: Report) -> None:
    """Retention leaves a record for each segment that it removes; it may stand in any slot."""
    named = {tuple(row) for slot in report.slots if not slot.problem for row in slot.retentions}
    for slot in report.slots:
        for first, last in slot.removed if not slot.problem else ():
            if (slot.origin, first, last) not in named:
                where = "here: verify the directory of all logs" if report.alone else "in these logs"
                slot.problem = f"records {first} to {last} are gone, and no signed record of their removal is {where}"
                break


# --- segments -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Segment:
    path: Path
    first: int
    last: int  # -1: open

    @property
    def removed(self) -> bool:
        return self.path.suffix == ".leaves"


@dataclass
class _Part:
    """What one segment says by itself."""

    leaves: bytes = b""
    first_at: int = 0
    last_at: int = 0
    opened: dict[bytes, None] = field(default_factory=dict)  # decisions without an outcome in it
    closed: set[bytes] = field(default_factory=set)  # outcomes of decisions before it
    retentions: list[tuple[int, str, int, int]] = field(default_factory=list)  # seq, origin, first, last
    attested: list[Attestation] = field(default_factory=list)


def _segments(directory: Path) -> list[_Segment]:
    """The segments, which follow each other; where retention was interrupted, records count and not their hashes."""
    found: dict[int, _Segment] = {}
    for path in sorted(directory.glob("segment-*")):  # .jsonl before .leaves
        name = _SEGMENT.fullmatch(path.name)
        if name is None or (path.suffix == ".leaves" and not name[2]):
            raise Broken(f"{path.name}: not the name of a segment")
        segment = _Segment(path, int(name[1]), int(name[2] or -1))
        other = found.setdefault(segment.first, segment)
        if other is not segment and (other.last != segment.last or other.removed or not segment.removed):
            raise Broken(f"{path.name}: there are two segments of these records")
    ordered = [found[first] for first in sorted(found)]
    expected = 0
    for segment in ordered:
        if segment.first != expected:
            raise Broken(f"{segment.path.name}: a segment is missing before it, or it is not sealed")
        expected = segment.last + 1
    return ordered


_SEGMENT = re.compile(r"segment-(\d{12,})(?:-(\d{12,}))?\.(?:jsonl|leaves)")
_BLOCK = 1 << 18  # bytes: what a processor's cache holds
_CONTROLS = [bytes([code]) for code in range(32) if code != 10]
_MUCH_BYTES, _MUCH_NOTES, _CHUNK = 64 << 20, 20_000, 2_000
"""Of records and checkpoints, from which on several processes read them; and checkpoints at once."""
_Given = TypeVar("_Given")
_Found = TypeVar("_Found")


def _parts(segments: list[_Segment], processes: int) -> Iterator[_Part]:
    """What each segment says, in order; read by so many processes, where it is much."""
    much = sum(segment.path.stat().st_size for segment in segments) >= _MUCH_BYTES
    return _each(_read_segment, segments, processes if much else 1)


def _each(work: Callable[[_Given], _Found], given: Sequence[_Given], processes: int) -> Iterator[_Found]:
    """The work's results, in order, done by so many processes."""
    done = 0
    if processes > 1:
        try:
            with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
                try:
                    for found in pool.map(work, given):
                        yield found
                        done += 1
                finally:
                    pool.shutdown(cancel_futures=True)  # where something is wrong, the rest is not waited for
        except (BrokenExecutor, OSError):
            pass  # no processes here: what is left is done by this one
    yield from map(work, given[done:])


def _read_segment(segment: _Segment) -> _Part:
    part = _Part()
    if segment.removed:
        part.leaves = segment.path.read_bytes()
        if len(part.leaves) != 32 * (segment.last + 1 - segment.first):
            raise Broken(f"{segment.path.name}: does not hold the leaf hashes that its name says")
        return part
    if segment.last < 0 and not segment.path.exists():  # a log that is being written: it was sealed meanwhile
        segment = next(filter(lambda now: now.first == segment.first, _segments(segment.path.parent)), segment)
    leaves: list[bytes] = []
    shapes: list[_Shape] = []
    with open(segment.path, "rb") as file:
        while block := file.read(_BLOCK):
            block += file.readline()
            torn = block.rpartition(b"\n")[2]
            if torn and segment.last >= 0:  # a torn last line of the open segment was never acknowledged
                raise Broken(f"{segment.path.name}: torn")
            _read_block(block[: len(block) - len(torn)], segment, part, leaves, shapes)
    if segment.last >= 0 and len(leaves) != segment.last + 1 - segment.first:
        raise Broken(f"{segment.path.name}: does not hold the records that its name says")
    part.leaves = b"".join(leaves)
    left = segment.path.with_suffix(".leaves")
    if segment.last >= 0 and left.exists() and left.read_bytes() != part.leaves:
        raise Broken(f"{left.name}: not the hashes of these records")
    return part


def _read_block(block: bytes, segment: _Segment, part: _Part, leaves: list[bytes], shapes: list[_Shape]) -> None:
    """2, 3, 4, 7. canonical, in sequence, in time; what it opens and closes."""
    plain = _is_utf8(block) and not any([code in block for code in _CONTROLS])
    escapes = b"\\" in block
    sha256, last_at, seq = hashlib.sha256, part.last_at, segment.first + len(leaves)
    for line in block.split(b"\n")[:-1]:
        found = _quickly(line, shapes) if plain and not (escapes and b"\\" in line) else None
        kind, said, at, key = found or _slowly(line, seq, f"{segment.path.name}, record {seq}", part, shapes)
        if said != seq:
            raise Broken(f"{segment.path.name}, record {seq}: sequence {said} where {seq} belongs")
        if at < last_at:
            raise Broken(f"{segment.path.name}, record {seq}: time runs backwards")
        if kind == "decision":
            part.opened[key] = None
        elif kind == "outcome" and part.opened.pop(key, key) is key:
            part.closed.add(key)
        leaves.append(sha256(b"\x00" + line).digest())
        seq, last_at = seq + 1, at
        if len(leaves) == 1:
            part.first_at = at
    part.last_at = last_at


def _is_utf8(block: bytes) -> bool:
    try:
        block.decode()
    except UnicodeDecodeError:
        return False
    return True


# --- an evidence pack ---------------------------------------------------------------------------------------


def _verify_pack(path: Path, brought: _Brought) -> Report:
    pack = Pack(str(path))
    report = Report([], pack)
    named: set[str] = set()  # policies that records name
    try:
        manifest, fingerprint = _read_manifest(path)
        pack.begin, pack.end, pack.chosen = manifest["from"], manifest["to"], manifest["chosen"]
        # P9a. the roster
        if any((path / name).exists() for name in ROSTER):
            report.rosters = _read_rosters(path, brought, chained=False)
            if report.rosters.fingerprint != fingerprint:
                raise Broken("roster.pub: not the key that signed the pack")
        for part in manifest["slots"]:
            slot = Slot(part["folder"])
            report.slots.append(slot)
            try:
                named |= _verify_part(path / part["folder"], slot, part, report, brought, fingerprint)
            except Broken as broken:
                slot.problem = str(broken)
        # P7c. what retention removed
        _read_retentions(path / "retention.jsonl", report)
        _check_removed(report)
        # P8b. the policies
        for policy in sorted((path / "policies").glob("*")):
            if hashlib.sha256(policy.read_bytes()).hexdigest()[:32] != policy.stem:
                raise Broken(f"policies/{policy.name}: is not the policy of that hash")
            pack.policies.append(policy.stem)
        pack.policies_missing = sorted(named - set(pack.policies))
    except Broken as broken:
        pack.problem = str(broken)
    except OSError as error:
        pack.problem = f"cannot be read: {error}"
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        pack.problem = f"not in the form of a pack ({type(error).__name__})"
    return report


def _read_manifest(path: Path) -> tuple[dict[str, Any], str]:
    """The manifest and the fingerprint of the key that signed it, once every file is what it says."""
    # P1. the manifest's signature, then the files
    for name in SIGNED:
        if not (path / name).is_file():
            raise Broken(f"{name} is missing")
    name, key, fingerprint = read_key(path / "pack.pub")
    content = (path / "manifest.json").read_bytes()
    note = (path / "manifest.note").read_bytes()
    if open_single(note, name, key) != (len(content), hashlib.sha256(content).digest()):
        raise Broken("manifest.note: signs another manifest")
    manifest: dict[str, Any] = json.loads(content)
    if manifest["format"] != FORMAT:
        raise Broken("manifest.json: not a manifest of a format that is known here")
    there = set()
    for file in path.rglob("*"):
        if file.is_symlink() or not (file.is_file() or file.is_dir()):
            raise Broken(f"{file.name}: is not a plain file")
        if file.is_file():
            there.add(file.relative_to(path).as_posix())
    files: dict[str, str] = manifest["files"]
    for odd in sorted(there ^ {*files, "manifest.json", "manifest.note"}):
        raise Broken(f"{odd}: {'is not in the manifest' if odd in there else 'is missing'}")
    for name, digest in files.items():
        with open(path / name, "rb") as content_of:
            if hashlib.file_digest(content_of, "sha256").hexdigest() != digest:
                raise Broken(f"{name}: was changed")
    times = [manifest["from"], manifest["to"]]
    lists = [*manifest["chosen"].values(), manifest["slots"]]
    if any(type(at) is not int for at in times) or any(type(values) is not list for values in lists):
        raise Broken("manifest.json: not in the form of a manifest")
    folders = [part["folder"] for part in manifest["slots"]]
    if len(set(folders)) != len(folders) or {*folders, "policies"} != {
        *(name.partition("/")[0] for name in files if "/" in name),
        "policies",
    }:
        raise Broken("manifest.json: its slots are not the folders")
    return manifest, fingerprint


def _verify_part(
    folder: Path, slot: Slot, part: dict[str, Any], report: Report, brought: _Brought, fingerprint: str
) -> set[str]:
    """One slot's part of a pack; the policies that its records name."""
    # P2. the key
    slot.origin, key, slot.fingerprint = read_key(folder / "key.pub")
    if slot.fingerprint != fingerprint or slot.origin != part["origin"]:
        raise Broken("key.pub: not the key that signed the pack")
    # P3. the checkpoints
    notes = read_notes(folder / "checkpoints")
    marks = [open_single(note, slot.origin, key) for note in notes]
    slot.checkpoints = len(marks)
    size, root = marks[-1] if marks else (0, _Tree().root())
    slot.covered, slot.root = size, root.hex()
    proofs = list(_json_lines(folder / "consistency.jsonl"))
    whole = b"".join(note + b"\n" for note in notes) == (folder / "checkpoints").read_bytes()
    if not whole or size != part["size"] or [proof["first"] for proof in proofs] != [first for first, _ in marks[:-1]]:
        raise Broken("checkpoints: not those that the manifest and the proofs speak of")
    for (first, first_root), proof in zip(marks[:-1], proofs, strict=True):
        if not _consistent(first, first_root, size, root, _path(proof)):
            raise Broken(f"the checkpoint of {first} records is no prefix of that of {size}: the log was forked")
    # P4, P9b. what the auditor brought, and what the roster says
    known = {first: _path(proof) for (first, _), proof in zip(marks[:-1], proofs, strict=True)} | {size: []}
    earlier = brought.check(slot, key)
    listed = report.rosters.marks.get(slot.origin, []) if report.rosters is not None else []
    of_roster = [(first, bytes.fromhex(first_root)) for first, first_root in listed if first]
    for whose, them in (("your checkpoint", earlier), ("the roster", of_roster)):
        for first, first_root in them:
            if first > size:
                raise Broken(
                    f"{whose} covers {first} records, the pack's only {size}: the pack was made before it, or the log"
                    " was cut; ask for a new export"
                )
            if first not in known:
                raise Broken(f"there is no proof from {whose} of {first} records: ask for an export with --since")
            if not _consistent(first, first_root, size, root, known[first]):
                raise Broken(f"the log is no continuation of {whose} of {first} records: it was rewritten")
    # P5, P6, P7
    policies = _verify_records(folder, slot, part, report.pack, size, root)
    # P8a. the table
    if (folder / "records.csv").exists():
        said = hashlib.sha256()
        for row in table(folder / "records.jsonl"):
            said.update(row)
        if hashlib.sha256((folder / "records.csv").read_bytes()).digest() != said.digest():
            raise Broken("records.csv: does not say what the records say")
    slot.continues = bool(earlier)
    slot.anchored = slot.continues or (brought.fingerprint is not None and size > 0)
    return policies


def _verify_records(
    folder: Path, slot: Slot, part: dict[str, Any], pack: Pack | None, size: int, root: bytes
) -> set[str]:
    assert pack is not None
    first, count, whole = part["first"], part["records"], not pack.chosen
    slot.removed = [(low, high) for low, high in part["removed"]] if whole else []
    gaps = {low: high + 1 for low, high in slot.removed}
    after = first + count + sum(high - low for low, high in gaps.items()) if whole else 0
    if any(type(at) is not int for at in [*gaps, *gaps.values()]) or any(low >= high for low, high in gaps.items()):
        raise Broken("manifest.json: not in the form of a manifest")
    edges = list(_json_lines(folder / "edges.jsonl"))
    # P7a. the records on either side are those that belong there
    if [edge["index"] for edge in edges] != ([i for i in (first - 1, after) if 0 <= i < size] if whole else []):
        raise Broken("edges.jsonl: not the records on either side of the period")
    policies: set[str] = set()
    still_open: dict[bytes, None] = {}
    last_at, last_index, expected = 0, -1, first
    for line, proof, is_edge in _proved(folder, edges, first):
        # P5. canonical, and in the tree
        index: int = proof["index"]
        where = f"record {index}"
        record = _canonical(line, where)
        if not _included(hashlib.sha256(b"\x00" + line).digest(), index, size, _path(proof), root):
            raise Broken(f"{where}: is not what the log holds there")
        # P6. in order
        if index <= last_index:
            raise Broken(f"{where}: stands after record {last_index}")
        kind, last_at, key = _in_order(record, index, last_at, where)
        last_index = index
        # P7b. nothing between but what was removed, and nothing beyond
        if whole and (pack.begin <= last_at < pack.end) == is_edge:
            raise Broken(f"{where}: its time is {'in' if is_edge else 'not in'} the period")
        if is_edge:
            continue
        if whole:
            expected = _past(gaps, expected)
            if index != expected:
                raise Broken(f"record {expected}: is missing")
            expected += 1
        slot.records += 1
        if kind == "attested":  # P5b. and what it says is signed
            slot.attested.append(_checked(_attestation(record, where), slot))
        if kind == "decision":
            still_open[key] = None
        elif kind == "outcome":
            still_open.pop(key, None)
        if record.get("policy"):
            policies.add(record["policy"])
    if slot.records != count or (whole and _past(gaps, expected) != after) or gaps:
        raise Broken(f"{slot.records} records where the manifest says {count}")
    slot.open_decisions = [decision.decode() for decision in still_open]
    return policies


def _past(gaps: dict[int, int], expected: int) -> int:
    """The sequence after what was removed there."""
    while expected in gaps:
        expected = gaps.pop(expected)
    return expected


def _read_retentions(path: Path, report: Report) -> None:
    """The records that name what retention removed, each proved in its log; one for each removal, in the logs' order."""
    places = {slot.origin: (number, slot) for number, slot in enumerate(report.slots)}
    wanted = {(slot.origin, first, last) for slot in report.slots for first, last in slot.removed}
    last_place = (-1, -1)
    for number, row in enumerate(_json_lines(path) if path.exists() else (), start=1):
        where, line, index = f"{path.name}, line {number}", row["record"].encode(), row["index"]
        place, slot = places[row["origin"]]
        if slot.problem:
            continue
        leaf = hashlib.sha256(b"\x00" + line).digest()
        if not _included(leaf, index, slot.covered, _path(row), bytes.fromhex(slot.root)):
            raise Broken(f"{where}: is not what the log holds there")
        record = _canonical(line, where)
        kind, _, _ = _in_order(record, index, 0, where)
        removal = _removal(record, where)
        if kind != "retention" or removal not in wanted or (place, index) <= last_place:
            raise Broken(f"{where}: not a record of what retention removed here")
        wanted.discard(removal)
        last_place = place, index
        slot.retentions.append(removal)


def _proved(folder: Path, edges: list[dict[str, Any]], first: int) -> Iterator[tuple[bytes, dict[str, Any], bool]]:
    """(line, proof, is it an edge) of the record before, the records, and the record after."""
    for edge in edges:
        if edge["index"] < first:
            yield edge["record"].encode(), edge, True
    proofs = _json_lines(folder / "proofs.jsonl")
    for line in _whole_lines(folder / "records.jsonl"):
        proof = next(proofs, None)
        if proof is None:
            raise Broken("proofs.jsonl: a record has no proof")
        yield line, proof, False
    if next(proofs, None) is not None:
        raise Broken("proofs.jsonl: a proof has no record")
    for edge in edges:
        if edge["index"] >= first:
            yield edge["record"].encode(), edge, True


def _whole_lines(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                raise Broken(f"{path.name}: its last line is cut off")
            yield line[:-1]


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_whole_lines(path), start=1):
        yield _canonical(line, f"{path.name}, line {number}")


def _path(proof: dict[str, Any]) -> list[bytes]:
    return [_decoded(hash_) for hash_ in proof["path"]]


def table(records: Path) -> Iterator[bytes]:
    """CSV of records, a line each: a column for every field, in byte order; a list's parts are separated by semicolons."""
    columns = sorted({name for record in _json_lines(records) for name in record})
    for record in itertools.chain([dict(zip(columns, columns, strict=True))], _json_lines(records)):
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerow([_cell(record.get(name, "")) for name in columns])
        yield out.getvalue().encode()


def _cell(value: Any) -> str:
    """Text that a spreadsheet takes for text: what would begin a formula gets an apostrophe."""
    if isinstance(value, list):
        value = ";".join(map(str, value))
    if isinstance(value, str):
        return "'" + value if value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
    return json.dumps(value)


# --- records ------------------------------------------------------------------------------------------------


def _canonical(line: bytes, where: str) -> dict[str, Any]:
    try:
        text = line.decode()
        record = _DECODER.decode(text)
        again = _ENCODER.encode(record)
    except (ValueError, RecursionError):
        raise Broken(f"{where}: not JSON, or a float in it") from None
    if not isinstance(record, dict) or again != text:
        raise Broken(f"{where}: not in canonical form")
    return record


def _no_float(text: str) -> Any:
    raise ValueError(text)


_DECODER = json.JSONDecoder(parse_float=_no_float, parse_constant=_no_float)
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _facts(record: dict[str, Any], where: str) -> tuple[str, int, int, bytes]:
    """(kind, sequence, time, request and attempt) of a record."""
    kind, seq, at = record.get("kind"), record.get("seq"), record.get("at")
    request, attempt = record.get("request", ""), record.get("attempt", 0)
    if type(kind) is not str or [type(value) for value in (seq, at, attempt)] != [int] * 3 or type(request) is not str:
        raise Broken(f"{where}: not a record")
    return kind, seq, at, f"{request}/{attempt}".encode()  # type: ignore[return-value]


def _in_order(record: dict[str, Any], index: int, last_at: int, where: str) -> tuple[str, int, bytes]:
    """(kind, time, request and attempt) of a record whose sequence is `index` and whose time is not before the last."""
    kind, seq, at, key = _facts(record, where)
    if seq != index:
        raise Broken(f"{where}: sequence {seq} where {index} belongs")
    if at < last_at:
        raise Broken(f"{where}: time runs backwards")
    return kind, at, key


@dataclass(frozen=True)
class _Shape:
    """Canonical records of one kind with the same fields in the same types, as a pattern.

    The pattern has the keys in their order, and for values only what canonical JSON has without an escape: a line
    without backslashes and control characters, in UTF-8, that matches it is canonical.  Other lines are not wrong, but
    decoded and encoded again.
    """

    kind: str
    pattern: re.Pattern[bytes]
    follows: bool  # has it a request and an attempt?


_STRING = rb'"[^"]*"'
_VALUES = {
    int: rb"(?:0|[1-9][0-9]{0,17})",
    bool: b"(?:true|false)",
    str: _STRING,
    list: rb"\[(?:%b(?:,%b)*)?\]" % (_STRING, _STRING),
}
_ASKED = {
    "at": rb"([1-9][0-9]{0,17}|0)",
    "attempt": rb"([1-9][0-9]{0,17}|0)",
    "request": rb'"([^"]*)"',
    "seq": rb"([1-9][0-9]{0,17}|0)",
}
_KEY = re.compile(r"[a-z0-9_]+")


@functools.lru_cache(256)
def _shape(kind: str, fields: tuple[tuple[str, type], ...]) -> _Shape | None:
    """The shape of records with these fields; None for those that only decoding can judge."""
    names = [name for name, _ in fields]
    follows = kind in ("decision", "outcome")
    asked = ("at", "attempt", "request", "seq") if follows else ("at", "seq")
    if (
        kind in ("retention", "attested")
        or not _KEY.fullmatch(kind)
        or names != sorted(names)
        or not {*asked} <= {*names}
    ):
        return None
    parts = []
    for name, type_ in fields:
        value = b'"%b"' % kind.encode() if name == "kind" else _ASKED[name] if name in asked else _VALUES.get(type_)
        if value is None or not _KEY.fullmatch(name):
            return None
        parts.append(b'"%b":%b' % (name.encode(), value))
    return _Shape(kind, re.compile(rb"\{%b\}" % b",".join(parts)), follows)


def _quickly(line: bytes, shapes: list[_Shape]) -> tuple[str, int, int, bytes] | None:
    """`_facts` of a line of a known shape; None: look closer."""
    for shape in shapes:
        if match := shape.pattern.fullmatch(line):
            if shape.follows:
                at, attempt, request, seq = match.groups()
                return shape.kind, int(seq), int(at), request + b"/" + attempt
            at, seq = match.groups()
            return shape.kind, int(seq), int(at), b""
    return None


def _slowly(line: bytes, seq: int, where: str, part: _Part, shapes: list[_Shape]) -> tuple[str, int, int, bytes]:
    """`_facts` of any record; its shape is known from here on."""
    record = _canonical(line, where)
    facts = _facts(record, where)
    if facts[0] == "retention":
        part.retentions.append((seq, *_removal(record, where)))
    if facts[0] == "attested":
        part.attested.append(_attestation(record, where))
    plain = all(type(item) is str for value in record.values() if type(value) is list for item in value)
    shape = _shape(facts[0], tuple((name, type(value)) for name, value in record.items())) if plain else None
    if shape is not None and shape not in shapes:
        shapes.append(shape)
    return facts


def _removal(record: dict[str, Any], where: str) -> tuple[str, int, int]:
    """(origin, first, last) of what a record of retention says was removed."""
    named = record.get("origin"), record.get("first"), record.get("last")
    if [type(value) for value in named] != [str, int, int]:
        raise Broken(f"{where}: not a record of retention")
    return named  # type: ignore[return-value]


def _attestation(record: dict[str, Any], where: str) -> Attestation:
    """What a record of kind `attested` says, once its signature is verified: Ed25519 by the key that it names, over
    `spillway attestation`, a line end, and the record without its place, its time and the signature."""
    kept_ = {name: value for name, value in record.items() if name not in ("at", "seq", "seq_mac", "signature")}
    try:
        raw = _decoded(record["signer_key"])
        text = b"spillway attestation\n" + _ENCODER.encode(kept_).encode()
        Ed25519PublicKey.from_public_bytes(raw).verify(_decoded(record["signature"]), text)
        if [type(record[name]) for name in ("begin", "end", "reviewer", "signer")] != [int, int, str, str]:
            raise ValueError
        roots = [(*row.rsplit(" ", 2), "", "")[:3] for row in record["roots"]]
        return Attestation(
            record["seq"], record["at"], record["begin"], record["end"], record["reviewer"], record["signer"] == "reviewer",
            hashlib.sha256(raw).hexdigest(), [(origin, int(size), root) for origin, size, root in roots],
        )  # fmt: skip
    except (InvalidSignature, ValueError, KeyError, TypeError, AttributeError):
        raise Broken(f"{where}: an attestation whose signature does not fit") from None


def _checked(one: Attestation, slot: Slot) -> Attestation:
    """Whose word it is: a reviewer's who has a key of their own, or that of whoever had the log's."""
    of_log = one.fingerprint == slot.fingerprint
    if not one.own_key and not of_log:
        raise Broken(f"record {one.seq}: attests with another key than the log's, and names no reviewer's")
    one.own_key = not of_log
    return one


# --- keys and signed checkpoints ----------------------------------------------------------------------------


def read_key(path: Path) -> tuple[str, Ed25519PublicKey, str]:
    """(name, key, fingerprint) of a C2SP verifier key `name+hash+base64(0x01 || key)`."""
    text = path.read_bytes().decode("utf-8", "replace")  # then its hash does not fit
    parts = text.removesuffix("\n").split("+", 2)  # base64 may hold a plus, a name may not
    if len(parts) != 3 or not text.endswith("\n"):
        raise Broken(f"{path.name}: not a verifier key")
    name, hash_hex, encoded = parts
    try:
        raw = _decoded(encoded)
    except ValueError:
        raise Broken(f"{path.name}: not a verifier key") from None
    if len(raw) != 33 or raw[0] != 1 or hashlib.sha256(name.encode() + b"\n" + raw).digest()[:4].hex() != hash_hex:
        raise Broken(f"{path.name}: not an Ed25519 verifier key, or its hash does not fit")
    return name, Ed25519PublicKey.from_public_bytes(raw[1:]), hashlib.sha256(raw[1:]).hexdigest()


def read_notes(path: Path) -> list[bytes]:
    return split_notes(path.read_bytes(), path.name) if path.exists() else []


def kept(path: Path) -> bytes:
    """Signed notes that somebody kept: a file of them, or a directory in which a witness holds a file `*.note` for each."""
    if not path.is_dir():
        return path.read_bytes()
    found = sorted(path.rglob("*.note"))
    if not found:
        raise FileNotFoundError(errno.ENOENT, "it holds no file *.note", str(path))
    return b"".join(note.read_bytes().rstrip(b"\n") + b"\n\n" for note in found)


def split_notes(data: bytes, where: str = "checkpoints") -> list[bytes]:
    """Signed notes, each ended by a blank line: text, blank line, signature.  A last one without its line end was
    torn by a crash, and never finished; anything else that is no note is an error."""
    blocks = data.split(b"\n\n")
    if len(blocks) % 2 == 0 and data.endswith(b"\n"):  # a single note, as it is, ends with one line end
        blocks = [*(data + b"\n").split(b"\n\n")]
    if blocks[-1]:
        if data.endswith(b"\n"):
            raise Broken(f"{where}: not a signed note")
        blocks = blocks[: (len(blocks) - 1) // 2 * 2 + 1]
    if len(blocks) % 2 == 0:
        if data.endswith(b"\n"):
            raise Broken(f"{where}: not a signed note")
        blocks.pop()
    pairs = zip(blocks[0:-1:2], blocks[1::2], strict=True)
    return [text + b"\n\n" + signature + b"\n" for text, signature in pairs]


def _origin(note: bytes) -> str:
    return note.decode("utf-8", "replace").split("\n", 1)[0]


def _verified(note: bytes, name: str, key: Ed25519PublicKey) -> list[str]:
    """The lines of a signed note's text, once its signature is verified."""
    text, _, signatures = note.decode("utf-8", "replace").rpartition("\n\n")
    text += "\n"
    for line in signatures.removesuffix("\n").split("\n"):
        parts = line.split(" ")
        if parts[0] != "—":
            break
        if len(parts) == 3 and parts[1] == name:
            try:
                signature = _decoded(parts[2])
                if signature[:4] != hashlib.sha256(name.encode() + b"\n\x01" + key.public_bytes_raw()).digest()[:4]:
                    continue
                key.verify(signature[4:], text.encode())
                return text.split("\n")[:-1]
            except (InvalidSignature, ValueError):
                pass
    raise Broken(f"{name}: a signature does not fit")


def _open(note: bytes, name: str, key: Ed25519PublicKey) -> tuple[int, bytes]:
    """(size, root) of a signed checkpoint."""
    lines = _verified(note, name, key)
    if len(lines) != 3 or lines[0] != name:
        raise Broken("checkpoints: not a checkpoint")
    return _number(lines[1]), _hash(lines[2])


def open_single(note: bytes, name: str, key: Ed25519PublicKey) -> tuple[int, bytes]:
    """The same of a note with this one signature: nothing is in it that is not verified."""
    if note.count(b"\n") != 5 or not note.endswith(b"\n"):
        raise Broken("checkpoints: more in a note than its text and one signature")
    return _open(note, name, key)


def _open_chunk(notes: list[bytes], *, name: str, key: bytes) -> list[tuple[int, bytes]]:
    public = Ed25519PublicKey.from_public_bytes(key)
    return [open_single(note, name, public) for note in notes]


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18 or str(int(text)) != text:
        raise Broken("not a number in a signed note")
    return int(text)


def _hash(text: str) -> bytes:
    try:
        hash_ = _decoded(text)
    except ValueError:
        hash_ = b""
    if len(hash_) != 32:
        raise Broken("not a hash in a signed note")
    return hash_


# --- the roster ---------------------------------------------------------------------------------------------


@dataclass
class _Roster:
    """`NAME / number / time / hash of the one kept before`, then `origin size root` of each slot, a line each."""

    number: int
    at: int
    previous: bytes
    entries: dict[str, tuple[int, bytes]]


def _roster_name(origin: str) -> str:
    return f"{origin.rpartition('/')[0]}/roster"


def _roster_lines(note: bytes) -> list[str]:
    """The lines of a roster's slots, whoever signed it."""
    return note.decode("utf-8", "replace").partition("\n\n")[0].split("\n")[4:]


def _open_roster(note: bytes, name: str, key: Ed25519PublicKey) -> _Roster:
    lines = _verified(note, name, key)
    if note.count(b"\n") != len(lines) + 2 or not note.endswith(b"\n") or len(lines) < 4 or lines[0] != name:
        raise Broken("roster: not a roster with one signature")
    entries = {}
    for line in lines[4:]:
        origin, size, root = (*line.rsplit(" ", 2), "", "")[:3]
        if _roster_name(origin) != name or origin in entries:
            raise Broken("roster: not a roster of this instance")
        entries[origin] = _number(size), _hash(root)
    return _Roster(_number(lines[1]), _number(lines[2]), _hash(lines[3]), entries)


def _open_rosters(notes: list[bytes], *, name: str, key: bytes) -> list[_Roster]:
    public = Ed25519PublicKey.from_public_bytes(key)
    return [_open_roster(note, name, public) for note in notes]


def _read_rosters(path: Path, brought: _Brought, *, chained: bool = True, processes: int = 1) -> Rosters:
    """Every roster of a directory: signed, chained to the one kept before, and never of fewer slots or records."""
    rosters = Rosters()
    try:
        name, key, rosters.fingerprint = read_key(path / "roster.pub")
        notes = read_notes(path / "rosters")
        newest = (path / "roster").read_bytes()
        if not notes or notes[-1] != newest:
            notes.append(newest)
        last, before = _Roster(0, 0, b"", {}), b""
        chunks = [notes[at : at + _CHUNK] for at in range(0, len(notes), _CHUNK)]
        opened = functools.partial(_open_rosters, name=name, key=key.public_bytes_raw())
        rows = [row for part in _each(opened, chunks, processes if len(notes) >= _MUCH_NOTES else 1) for row in part]
        for note, roster in zip(notes, rows, strict=True):
            if chained and roster.previous != hashlib.sha256(before).digest():
                raise Broken(f"rosters: one is missing before number {roster.number}, or was changed")
            shrunk = [
                origin for origin, (size, _) in last.entries.items() if roster.entries.get(origin, (-1,))[0] < size
            ]
            if roster.number <= last.number or roster.at < last.at or shrunk:
                raise Broken(f"rosters: number {roster.number} takes back what {last.number} said")
            for origin, (size, root) in roster.entries.items():
                if last.entries.get(origin) != (size, root):
                    rosters.marks.setdefault(origin, []).append((size, root.hex()))
            last, before = roster, note
        rosters.count, rosters.number, rosters.at = len(notes), last.number, last.at
        for note in brought.notes:
            if _origin(note) == name and _open_roster(note, name, key).number > last.number:
                raise Broken(
                    "rosters: the newest is older than the one that you have: this was made before it, or was cut"
                )
    except Broken as broken:
        rosters.problem = str(broken)
    except OSError as error:
        rosters.problem = f"cannot be read: {error}"
    return rosters


@functools.lru_cache(1 << 12)
def _decoded(text: str) -> bytes:
    """Base64 in its one canonical form: no other text decodes to the same bytes."""
    raw = base64.b64decode(text, validate=True)
    if base64.b64encode(raw).decode() != text:
        raise ValueError("not canonical base64")
    return raw


# --- RFC 6962 -----------------------------------------------------------------------------------------------


@functools.lru_cache(1 << 12)  # proofs of neighbours share most of their nodes
def _node(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def _included(leaf: bytes, index: int, size: int, path: list[bytes], root: bytes) -> bool:
    """RFC 9162, 2.1.3.2: is `leaf` entry `index` of the tree of `size` with this root?"""
    if not 0 <= index < size or len(leaf) != 32:
        return False
    node, last, result = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return False
        if node & 1 or node == last:
            result = _node(sibling, result)
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            result = _node(result, sibling)
        node >>= 1
        last >>= 1
    return last == 0 and result == root


def _consistent(first: int, first_root: bytes, second: int, second_root: bytes, path: list[bytes]) -> bool:
    """RFC 9162, 2.1.4.2: is the tree of `first` leaves a prefix of that of `second`?"""
    if first == second > 0:
        return not path and first_root == second_root
    if not 0 < first < second or not path:
        return False
    whole = [first_root, *path] if first & (first - 1) == 0 else path
    node, last = first - 1, second - 1
    while node & 1:
        node >>= 1
        last >>= 1
    old = new = whole[0]
    for sibling in whole[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            old = _node(sibling, old)
            new = _node(sibling, new)
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            new = _node(new, sibling)
        node >>= 1
        last >>= 1
    return last == 0 and old == first_root and new == second_root


def _perfect(nodes: bytes) -> bytes:
    """The root over a power of two of hashes."""
    sha256 = hashlib.sha256
    while len(nodes) > 32:
        nodes = b"".join([sha256(b"\x01" + nodes[at : at + 64]).digest() for at in range(0, len(nodes), 64)])
    return nodes


class _Tree:
    """The roots of the perfect subtrees, largest first."""

    def __init__(self) -> None:
        self.size = 0
        self._hashes: list[bytes] = []

    def extend(self, leaves: bytes) -> None:
        """Append leaf hashes, one after another; perfect subtrees of them as a whole."""
        at = 0
        while at < len(leaves):
            height = min(
                (self.size & -self.size).bit_length() - 1 if self.size else 64, (len(leaves) - at).bit_length() - 6
            )
            self._append(_perfect(leaves[at : at + (32 << height)]), height)
            at += 32 << height

    def _append(self, subtree: bytes, height: int) -> None:
        carry = self.size >> height
        while carry & 1:
            subtree = hashlib.sha256(b"\x01" + self._hashes.pop() + subtree).digest()
            carry >>= 1
        self._hashes.append(subtree)
        self.size += 1 << height

    def root(self) -> bytes:
        if not self._hashes:
            return hashlib.sha256(b"").digest()
        result = self._hashes[-1]
        for subtree in reversed(self._hashes[:-1]):
            result = hashlib.sha256(b"\x01" + subtree + result).digest()
        return result


# --- words --------------------------------------------------------------------------------------------------


def words(report: Report) -> str:
    """The report for people.  Names of files and of fields may be anybody's: they neither move a cursor nor begin a line."""
    return "\n".join(
        part if part.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in part)
        for part in _words(report)
    )


def _words(report: Report) -> list[str]:
    out = []
    pack = report.pack
    if pack is not None:
        out.append(f"evidence pack {pack.directory}")
        if pack.problem:
            out.append(f"  NOT VERIFIED: {pack.problem}")
        else:
            out.append(
                f"  period      {_moment(pack.begin) if pack.begin else 'the beginning'} up to {_moment(pack.end)} (UTC)"
            )
            if pack.chosen:
                by = ", ".join(f"{name} {' or '.join(values)}" for name, values in sorted(pack.chosen.items()))
                out.append(
                    f"  chosen by   {by}: what is here is in the log; that nothing else belongs here is not proved"
                )
            else:
                but = ", but for what retention removed" if any(slot.removed for slot in report.slots) else ""
                until = report.rosters.at if report.rosters is not None else 0
                to = f" up to {_moment(until)}, when its logs were signed last," if 0 < until < pack.end else ""
                out.append(f"  complete    every signed record of the period{to} is here{but}")
            out.append(f"  policies    {len(pack.policies)} here, {len(pack.policies_missing)} named and not kept")
    for slot in report.slots:
        out.append(f"{slot.directory}")
        if slot.problem:
            out.append(f"  NOT VERIFIED: {slot.problem}")
            continue
        out.append(f"  origin      {slot.origin}")
        out.append(f"  key         sha256:{slot.fingerprint}")
        of = f"{slot.records} proved by a tree of" if pack is not None else f"{slot.records}, of which"
        out.append(f"  records     {of} {slot.covered} under {slot.checkpoints} signed checkpoints")
        out.append(f"  root        {slot.root}")
        if slot.records > slot.covered and pack is None:
            out.append(
                f"  unsigned    {slot.records - slot.covered} at the end, which no checkpoint covers yet: anybody could have"
                " written them"
            )
        if slot.removed:
            gone = sum(last + 1 - first for first, last in slot.removed)
            out.append(
                f"  removed     {gone} records removed by retention, as signed records say; their hashes are in the tree"
            )
        for one in slot.attested:
            how = (
                f"signed with their key sha256:{one.fingerprint}"
                if one.own_key
                else "as whoever had the log's key says"
            )
            out.append(f"  attested    {_moment(one.begin)} up to {_moment(one.end)} by {one.reviewer!r}, {how}")
        if slot.open_decisions:
            out.append(
                f"  open        {len(slot.open_decisions)} decisions without an outcome here: {', '.join(slot.open_decisions[:5])}"
            )
        out.append(
            "  verified"
            if slot.anchored
            else "  consistent, but unanchored: give --key or --since to rule out a rewritten log"
            if slot.covered
            else "  consistent, but unanchored: nothing is signed yet"
        )
    out += _roster_words(report)
    out += [
        f"NOT VERIFIED: a roster or your checkpoint names {origin}, and its log is not here"
        for origin in report.missing
    ]
    if not report.slots and pack is None:
        out.append("no log here: a slot's directory has a file key.pub, an evidence pack a file manifest.json")
    return out


def _roster_words(report: Report) -> list[str]:
    rosters = report.rosters
    if rosters is None:
        lacking = "roster: none, so a whole log could be missing unseen: not anchored"
        return [lacking] if report.slots and not report.alone else []
    if rosters.problem:
        return ["roster", f"  NOT VERIFIED: {rosters.problem}"]
    return [f"roster: number {rosters.number} of {_moment(rosters.at)} (UTC) names {len(rosters.marks)} logs"]


def _moment(at: int) -> str:
    try:
        return datetime.fromtimestamp(at / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "any time"


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="verify.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("path", type=Path, help="an evidence pack, a slot's log, or a directory of logs")
    parser.add_argument("--key", help="SHA-256 fingerprint of the public key, which you know from elsewhere")
    parser.add_argument(
        "--since",
        "--earlier",
        type=Path,
        help="checkpoints that you kept from an earlier visit, or a witness's directory",
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    try:
        since = kept(options.since) if options.since else None
    except OSError as error:
        print(f"{options.since} cannot be read: {error.strerror}", file=sys.stderr)
        return WRONG_USE
    report = verify_directory(options.path, fingerprint=options.key, since=since, processes=os.cpu_count() or 1)
    if options.json:
        print(json.dumps({"status": report.status, **asdict(report)}))
    else:
        print(words(report))
    return report.status


if __name__ == "__main__":
    sys.exit(main())
