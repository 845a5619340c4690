#!/usr/bin/env python3
"""Verify a Spillway audit log or evidence pack offline: Python 3.11, its standard library and `cryptography`.

    python verify.py PATH [--key sha256:FINGERPRINT] [--since CHECKPOINTS] [--json]

PATH is an evidence pack (`spillway audit export`), one slot's directory, or a directory that holds several.
CHECKPOINTS is a file of one or more signed checkpoints that you kept (`spillway audit checkpoint`).  This file
imports nothing of Spillway and may be copied to another machine; it repeats the tree hashing of RFC 6962 on
purpose.  For each slot of a log, in order:

    1. the files are there and readable: key, checkpoints, segments in sequence
    2. every line is a canonical record: compact JSON, keys in byte order, no floats
    3. the sequence has no gap, no repetition and no reordering
    4. time never runs backwards
    5. every checkpoint is signed by the key, and its root is the root over the records it covers
    6. what the auditor brought fits: the key's fingerprint, and earlier checkpoints as prefixes of the log
    7. every decision has its outcome; those still open are listed

For an evidence pack:

    P1. the manifest is signed; every file that it names is there with its SHA-256, and no other file is
    P2. every slot's key is the one that signed the manifest
    P3. every checkpoint is signed by the key, and is a prefix of the newest one by its consistency proof
    P4. what the auditor brought fits: the key's fingerprint, and earlier checkpoints as prefixes of the newest
    P5. every record is canonical, and by its inclusion proof it is the one of its sequence in the newest tree
    P6. the sequence has no repetition and no reordering, and time never runs backwards
    P7. the pack is complete: no gap, and the log's records on either side lie outside the period (a pack of
        chosen records only shows that these are in the log, not that they are all; the report says so)
    P8. a table, where there is one, says what the records say; each policy has the hash that it is named by,
        and policies that records name and the pack does not hold are listed

Exit status: 0 verified, against what the auditor brought; 3 consistent but unanchored (no fingerprint and no
earlier checkpoint was given, or nothing is signed yet, so a log rewritten by the owner of the key would look the
same); 1 not verified; 2 wrong use.
"""

from __future__ import annotations

import argparse
import base64
import csv
import functools
import hashlib
import io
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

VERIFIED, NOT_VERIFIED, WRONG_USE, UNANCHORED = 0, 1, 2, 3
FORMAT = "spillway-evidence-pack/1"
SIGNED = ("manifest.json", "manifest.note", "pack.pub")
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
    missing: list[str] = field(
        default_factory=list
    )  # logs of which the auditor has a checkpoint, and that are not here

    @property
    def status(self) -> int:
        broken = any(slot.problem for slot in self.slots) or (self.pack is not None and self.pack.problem is not None)
        if not self.slots or broken or self.missing:
            return NOT_VERIFIED
        return VERIFIED if all(slot.anchored for slot in self.slots) else UNANCHORED


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
        return [_open(note, slot.origin, key) for note in self.notes if _origin(note) == slot.origin]


def verify_directory(path: Path, *, fingerprint: str | None = None, since: bytes | None = None) -> Report:
    """Verify an evidence pack, one slot's directory, or every slot directory below `path`."""
    brought = _Brought(fingerprint, [])
    try:
        brought.notes = split_notes(since, "the earlier checkpoint") if since is not None else []
    except Broken as broken:
        return Report([Slot(str(path), problem=str(broken))])
    if any((path / name).exists() for name in SIGNED):
        report = _verify_pack(path, brought)
    else:
        alone = (path / "key.pub").exists()
        found = [path] if alone else sorted(key.parent for key in path.glob("*/key.pub"))
        report = Report([])
        for directory in found:
            slot = Slot(str(directory))
            report.slots.append(slot)
            try:
                _verify_slot(directory, slot, brought)
            except Broken as broken:
                slot.problem = str(broken)
            except (OSError, UnicodeDecodeError) as error:
                slot.problem = f"cannot be read: {error}"
        if alone:
            return report
    # a log that began after the auditor's visit has no earlier checkpoint, but the key that signed the others'
    keys = {slot.fingerprint for slot in report.slots if slot.continues and not slot.problem}
    for slot in report.slots:
        slot.anchored = slot.anchored or (slot.fingerprint in keys and slot.covered > 0 and not slot.problem)
    here = {slot.origin for slot in report.slots}
    report.missing = sorted({_origin(note) for note in brought.notes} - here)
    return report


# --- a log --------------------------------------------------------------------------------------------------


def _verify_slot(directory: Path, slot: Slot, brought: _Brought) -> None:
    # 1. the files
    slot.origin, key, slot.fingerprint = read_key(directory / "key.pub")
    notes = read_notes(directory / "checkpoints")
    segments = sorted(directory.glob("segment-*.jsonl"))
    # 5a. signatures, before anything is believed
    marks = [_open(note, slot.origin, key) for note in notes]
    slot.checkpoints = len(marks)
    sizes = [size for size, _ in marks]
    if sizes != sorted(sizes):
        raise Broken("checkpoints: a later one covers fewer records than an earlier one")
    wanted = dict(marks)
    for size, root in marks:
        if wanted[size] != root:
            raise Broken(f"checkpoints: two different roots for {size} records: the log was forked")
    # 6a. what the auditor brought
    earlier = brought.check(slot, key)
    # 2, 3, 4, 5b, 7: one pass over the records
    tree = _Tree()
    still_open: dict[tuple[str, int], int] = {}
    last_at = 0
    _check(wanted, tree, earlier)
    for where, line in _lines(segments):
        record = _canonical(line, where)
        last_at = _in_order(record, tree.size, last_at, where)
        _follow(record, still_open)
        tree.append(hashlib.sha256(b"\x00" + line).digest())
        _check(wanted, tree, earlier)
    slot.records = tree.size
    slot.covered = sizes[-1] if sizes else 0
    slot.root = tree.root().hex()
    slot.open_decisions = [f"{request}/{attempt}" for request, attempt in still_open]
    if slot.covered > tree.size:
        raise Broken(
            f"the newest checkpoint covers {slot.covered} records, but only {tree.size} are there: the log was cut"
        )
    # 6b. nothing that the auditor saw is gone
    for size, _ in earlier:
        if size > tree.size:
            raise Broken(
                f"the earlier checkpoint covers {size} records, but only {tree.size} are there: the log was cut"
            )
    slot.continues = bool(earlier)
    slot.anchored = slot.continues or (brought.fingerprint is not None and slot.covered > 0)


def _check(wanted: dict[int, bytes], tree: _Tree, earlier: Sequence[tuple[int, bytes]]) -> None:
    """The tree's root at this size against every checkpoint of this size."""
    size = tree.size
    if size in wanted and tree.root() != wanted[size]:
        raise Broken(f"the first {size} records are not those that were signed")
    for earlier_size, root in earlier:
        if size == earlier_size and tree.root() != root:
            raise Broken(f"the first {size} records are not those of the earlier checkpoint: the log was rewritten")


def _lines(segments: list[Path]) -> Iterator[tuple[str, bytes]]:
    """(where, line) of every record; a torn last line of the last segment was never acknowledged."""
    expected = 0
    for segment in segments:
        first = segment.stem.removeprefix("segment-")
        if not first.isdigit() or int(first) != expected:
            raise Broken(f"{segment.name}: a segment is missing before it")
        with open(segment, "rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    if segment != segments[-1]:
                        raise Broken(f"{segment.name}: torn")
                    return
                yield f"{segment.name}, record {expected}", line[:-1]
                expected += 1


# --- an evidence pack ---------------------------------------------------------------------------------------


def _verify_pack(path: Path, brought: _Brought) -> Report:
    pack = Pack(str(path))
    report = Report([], pack)
    named: set[str] = set()  # policies that records name
    try:
        manifest, fingerprint = _read_manifest(path)
        pack.begin, pack.end, pack.chosen = manifest["from"], manifest["to"], manifest["chosen"]
        for part in manifest["slots"]:
            slot = Slot(part["folder"])
            report.slots.append(slot)
            try:
                named |= _verify_part(path / part["folder"], slot, part, pack, brought, fingerprint)
            except Broken as broken:
                slot.problem = str(broken)
        # P8b. the policies
        for policy in sorted((path / "policies").glob("*")):
            if hashlib.sha256(policy.read_bytes()).hexdigest()[:16] != policy.stem:
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
    folder: Path, slot: Slot, part: dict[str, Any], pack: Pack, brought: _Brought, fingerprint: str
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
    # P4. what the auditor brought
    known = {first: _path(proof) for (first, _), proof in zip(marks[:-1], proofs, strict=True)} | {size: []}
    earlier = brought.check(slot, key)
    for first, first_root in earlier:
        if first > size:
            raise Broken(f"your checkpoint covers {first} records, the pack's only {size}: the log was cut")
        if first not in known:
            raise Broken(f"there is no proof from your checkpoint of {first} records: ask for an export with --since")
        if not _consistent(first, first_root, size, root, known[first]):
            raise Broken(f"the log is no continuation of your checkpoint of {first} records: it was rewritten")
    # P5, P6, P7
    policies = _verify_records(folder, slot, part, pack, size, root)
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


def _verify_records(folder: Path, slot: Slot, part: dict[str, Any], pack: Pack, size: int, root: bytes) -> set[str]:
    first, count, whole = part["first"], part["records"], not pack.chosen
    edges = list(_json_lines(folder / "edges.jsonl"))
    # P7a. the records on either side are those that belong there
    if [edge["index"] for edge in edges] != ([i for i in (first - 1, first + count) if 0 <= i < size] if whole else []):
        raise Broken("edges.jsonl: not the records on either side of the period")
    policies: set[str] = set()
    still_open: dict[tuple[str, int], int] = {}
    last_at, last_index = 0, -1
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
        last_at, last_index = _in_order(record, index, last_at, where), index
        # P7b. nothing between, and nothing beyond
        if whole and (pack.begin <= last_at < pack.end) == is_edge:
            raise Broken(f"{where}: its time is {'in' if is_edge else 'not in'} the period")
        if is_edge:
            continue
        if whole and index != first + slot.records:
            raise Broken(f"record {first + slot.records}: is missing")
        slot.records += 1
        _follow(record, still_open)
        if record.get("policy"):
            policies.add(record["policy"])
    if slot.records != count:
        raise Broken(f"{slot.records} records where the manifest says {count}")
    slot.open_decisions = [f"{request}/{attempt}" for request, attempt in still_open]
    return policies


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


def _in_order(record: dict[str, Any], index: int, last_at: int, where: str) -> int:
    """The record's time, if it is one, its sequence is `index` and its time not before the last."""
    if not isinstance(record.get("kind"), str):
        raise Broken(f"{where}: not a record")
    if record.get("seq") != index:
        raise Broken(f"{where}: sequence {record.get('seq')} where {index} belongs")
    at = record.get("at")
    if not isinstance(at, int) or at < last_at:
        raise Broken(f"{where}: time runs backwards")
    return at


def _follow(record: dict[str, Any], still_open: dict[tuple[str, int], int]) -> None:
    key = (str(record.get("request", "")), int(record.get("attempt", 0)))
    if record["kind"] == "decision":
        still_open[key] = record["seq"]
    elif record["kind"] == "outcome":
        still_open.pop(key, None)


# --- keys and signed checkpoints ----------------------------------------------------------------------------


def read_key(path: Path) -> tuple[str, Ed25519PublicKey, str]:
    """(name, key, fingerprint) of a C2SP verifier key `name+hash+base64(0x01 || key)`."""
    text = path.read_bytes().decode()
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


def _open(note: bytes, name: str, key: Ed25519PublicKey) -> tuple[int, bytes]:
    """(size, root) of a signed checkpoint, once its signature is verified."""
    text, _, signatures = note.decode("utf-8", "replace").partition("\n\n")
    text += "\n"
    lines = text.split("\n")
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
                if len(lines) == 4 and lines[0] == name and lines[1].isdigit() and str(int(lines[1])) == lines[1]:
                    return int(lines[1]), _decoded(lines[2])
            except (InvalidSignature, ValueError):
                pass
    raise Broken("checkpoints: a signature does not fit")


def open_single(note: bytes, name: str, key: Ed25519PublicKey) -> tuple[int, bytes]:
    """The same of a note with this one signature: nothing is in it that is not verified."""
    if note.count(b"\n") != 5 or not note.endswith(b"\n"):
        raise Broken("checkpoints: more in a note than its text and one signature")
    return _open(note, name, key)


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
    if not 0 <= index < size:
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
    if first == second:
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


class _Tree:
    """The roots of the perfect subtrees, largest first."""

    def __init__(self) -> None:
        self.size = 0
        self._hashes: list[bytes] = []

    def append(self, leaf: bytes) -> None:
        carry = self.size
        while carry & 1:
            leaf = hashlib.sha256(b"\x01" + self._hashes.pop() + leaf).digest()
            carry >>= 1
        self._hashes.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        if not self._hashes:
            return hashlib.sha256(b"").digest()
        result = self._hashes[-1]
        for subtree in reversed(self._hashes[:-1]):
            result = hashlib.sha256(b"\x01" + subtree + result).digest()
        return result


# --- words --------------------------------------------------------------------------------------------------


def words(report: Report) -> str:
    """The report for people."""
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
                out.append("  complete    every signed record of the period is here")
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
    out += [f"NOT VERIFIED: you have a checkpoint of {origin}, and its log is not here" for origin in report.missing]
    if not report.slots and pack is None:
        out.append("no log here: a slot's directory has a file key.pub, an evidence pack a file manifest.json")
    return "\n".join(out)


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
    parser.add_argument("--since", type=Path, help="checkpoints that you kept from an earlier visit")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    try:
        since = options.since.read_bytes() if options.since else None
    except OSError as error:
        print(f"{options.since} cannot be read: {error.strerror}", file=sys.stderr)
        return WRONG_USE
    report = verify_directory(options.path, fingerprint=options.key, since=since)
    if options.json:
        print(json.dumps({"status": report.status, **asdict(report)}))
    else:
        print(words(report))
    return report.status


if __name__ == "__main__":
    sys.exit(main())
