#!/usr/bin/env python3
"""Verify a Spillway audit log offline, with nothing but the standard library and `cryptography`.

    python verify.py LOG [--key FINGERPRINT] [--since CHECKPOINT] [--json]

LOG is one slot's directory, or a directory that holds several.  This file imports nothing of Spillway and may
be copied to another machine; it repeats the tree hashing of RFC 6962 on purpose.  For each slot, in order:

    1. the files are there and readable: key, checkpoints, segments in sequence
    2. every line is a canonical record: compact JSON, keys in byte order, no floats
    3. the sequence has no gap, no repetition and no reordering
    4. time never runs backwards
    5. every checkpoint is signed by the key, and its root is the root over the records it covers
    6. what the auditor brought fits: the key's fingerprint, and an earlier checkpoint as a prefix of the log
    7. every decision has its outcome; those still open are listed

Exit status: 0 verified, against what the auditor brought; 3 consistent but unanchored (no fingerprint and no
earlier checkpoint was given, so a log rewritten by the owner of the key would look the same); 1 not verified;
2 wrong use.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

VERIFIED, NOT_VERIFIED, WRONG_USE, UNANCHORED = 0, 1, 2, 3


class Broken(Exception):
    """What is wrong, and where."""


@dataclass
class Slot:
    """The result for one slot's log."""

    directory: str
    origin: str = ""
    fingerprint: str = ""
    records: int = 0
    covered: int = 0  # by the newest checkpoint
    root: str = ""
    checkpoints: int = 0
    open_decisions: list[str] = field(default_factory=list)
    anchored: bool = False
    problem: str | None = None


@dataclass
class Report:
    """The result over all slots."""

    slots: list[Slot]

    @property
    def status(self) -> int:
        if not self.slots or any(slot.problem for slot in self.slots):
            return NOT_VERIFIED
        return VERIFIED if all(slot.anchored for slot in self.slots) else UNANCHORED


def verify_directory(path: Path, *, fingerprint: str | None = None, since: bytes | None = None) -> Report:
    """Verify one slot's directory, or every slot directory below `path`."""
    found = [path] if (path / "key.pub").exists() else sorted(key.parent for key in path.glob("*/key.pub"))
    slots = []
    for directory in found:
        slot = Slot(str(directory))
        try:
            _verify_slot(directory, slot, fingerprint, since)
        except Broken as broken:
            slot.problem = str(broken)
        except (OSError, UnicodeDecodeError) as error:
            slot.problem = f"cannot be read: {error}"
        slots.append(slot)
    return Report(slots)


def _verify_slot(directory: Path, slot: Slot, fingerprint: str | None, since: bytes | None) -> None:
    # 1. the files
    slot.origin, key, slot.fingerprint = _read_key(directory / "key.pub")
    notes = _read_notes(directory / "checkpoints")
    segments = sorted(directory.glob("segment-*.jsonl"))
    # 5a. signatures, before anything is believed
    marks = [_open(note, slot.origin, key) for note in notes]
    slot.checkpoints = len(marks)
    sizes = [size for size, _ in marks]
    if sizes != sorted(sizes):
        raise Broken("checkpoints: a later one covers fewer records than an earlier one")
    earlier = _open(since, slot.origin, key) if since is not None and _origin(since) == slot.origin else None
    wanted = dict(marks)
    for size, root in marks:
        if wanted[size] != root:
            raise Broken(f"checkpoints: two different roots for {size} records: the log was forked")
    # 2, 3, 4, 5b, 7: one pass over the records
    tree = _Tree()
    still_open: dict[tuple[str, int], int] = {}
    last_at = 0
    _check(wanted, tree, earlier)
    for where, line in _lines(segments):
        record = _canonical(line, where)
        if record.get("seq") != tree.size:
            raise Broken(f"{where}: sequence {record.get('seq')} where {tree.size} belongs")
        at = record.get("at")
        if not isinstance(at, int) or at < last_at:
            raise Broken(f"{where}: time runs backwards")
        last_at = at
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
    # 6. what the auditor brought
    if earlier is not None and earlier[0] > tree.size:
        raise Broken(
            f"the earlier checkpoint covers {earlier[0]} records, but only {tree.size} are there: the log was cut"
        )
    if fingerprint is not None:
        wanted_print = fingerprint.lower().removeprefix("sha256:")
        if len(wanted_print) < 16 or not slot.fingerprint.startswith(wanted_print):
            raise Broken("the key is not the one whose fingerprint was given")
    slot.anchored = fingerprint is not None or earlier is not None


def _check(wanted: dict[int, bytes], tree: _Tree, earlier: tuple[int, bytes] | None) -> None:
    """The tree's root at this size against every checkpoint of this size."""
    size = tree.size
    if size in wanted and tree.root() != wanted[size]:
        raise Broken(f"the first {size} records are not those that were signed")
    if earlier is not None and size == earlier[0] and tree.root() != earlier[1]:
        raise Broken(f"the first {size} records are not those of the earlier checkpoint: the log was rewritten")


def _canonical(line: bytes, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line, parse_float=_no_float, parse_constant=_no_float)
    except ValueError:
        raise Broken(f"{where}: not JSON, or a float in it") from None
    if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
        raise Broken(f"{where}: not a record")
    if json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() != line:
        raise Broken(f"{where}: not in canonical form")
    return record


def _no_float(text: str) -> Any:
    raise ValueError(text)


def _follow(record: dict[str, Any], still_open: dict[tuple[str, int], int]) -> None:
    key = (record.get("request", ""), record.get("attempt", 0))
    if record["kind"] == "decision":
        still_open[key] = record["seq"]
    elif record["kind"] == "outcome":
        still_open.pop(key, None)


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


def _read_key(path: Path) -> tuple[str, Ed25519PublicKey, str]:
    """(name, key, fingerprint) of a C2SP verifier key `name+hash+base64(0x01 || key)`."""
    parts = path.read_text().strip().split("+", 2)  # base64 may hold a plus, a name may not
    if len(parts) != 3:
        raise Broken("key.pub: not a verifier key")
    name, hash_hex, encoded = parts
    try:
        raw = _decoded(encoded)
    except ValueError:
        raise Broken("key.pub: not a verifier key") from None
    if len(raw) != 33 or raw[0] != 1 or hashlib.sha256(name.encode() + b"\n" + raw).digest()[:4].hex() != hash_hex:
        raise Broken("key.pub: not an Ed25519 verifier key, or its hash does not fit")
    return name, Ed25519PublicKey.from_public_bytes(raw[1:]), hashlib.sha256(raw[1:]).hexdigest()


def _read_notes(path: Path) -> list[bytes]:
    """Signed notes, each ended by a blank line: text, blank line, signature.  A last one without its line end was
    torn by a crash, and never finished; anything else that is no note is an error."""
    if not path.exists():
        return []
    data = path.read_bytes()
    blocks = data.split(b"\n\n")
    if blocks[-1]:
        if data.endswith(b"\n"):
            raise Broken("checkpoints: not a signed note")
        blocks = blocks[: (len(blocks) - 1) // 2 * 2 + 1]
    if len(blocks) % 2 == 0:
        if data.endswith(b"\n"):
            raise Broken("checkpoints: not a signed note")
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
        if len(parts) == 3 and parts[0] == "—" and parts[1] == name:
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


def _decoded(text: str) -> bytes:
    """Base64 in its one canonical form: no other text decodes to the same bytes."""
    raw = base64.b64decode(text, validate=True)
    if base64.b64encode(raw).decode() != text:
        raise ValueError("not canonical base64")
    return raw


class _Tree:
    """RFC 6962: the roots of the perfect subtrees, largest first."""

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


def words(report: Report) -> str:
    """The report for people."""
    out = []
    for slot in report.slots:
        out.append(f"{slot.directory}")
        if slot.problem:
            out.append(f"  NOT VERIFIED: {slot.problem}")
            continue
        out.append(f"  origin      {slot.origin}")
        out.append(f"  key         sha256:{slot.fingerprint}")
        out.append(f"  records     {slot.records}, of which {slot.covered} under {slot.checkpoints} signed checkpoints")
        out.append(f"  root        {slot.root}")
        if slot.open_decisions:
            out.append(
                f"  open        {len(slot.open_decisions)} decisions without an outcome: {', '.join(slot.open_decisions[:5])}"
            )
        out.append(
            "  verified"
            if slot.anchored
            else "  consistent, but unanchored: give --key or --since to rule out a rewritten log"
        )
    if not report.slots:
        out.append("no log here: a slot's directory has a file key.pub")
    return "\n".join(out)


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="verify.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("log", type=Path)
    parser.add_argument("--key", help="SHA-256 fingerprint of the public key, which you know from elsewhere")
    parser.add_argument("--since", type=Path, help="a checkpoint that you kept from an earlier visit")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    report = verify_directory(
        options.log, fingerprint=options.key, since=options.since.read_bytes() if options.since else None
    )
    if options.json:
        print(json.dumps({"status": report.status, "slots": [asdict(slot) for slot in report.slots]}))
    else:
        print(words(report))
    return report.status


if __name__ == "__main__":
    sys.exit(main())
