"""Evidence packs and what may be done to them: for tests that change them and see whether it is noticed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from compliance import checkpoints

Pack = dict[str, bytes]


def load(pack: Path) -> Pack:
    return {file.relative_to(pack).as_posix(): file.read_bytes() for file in pack.rglob("*") if file.is_file()}


@contextmanager
def changed(pack: Path, before: Pack, after: Pack) -> Iterator[None]:
    """The pack on the disk as `after` has it; as it was, in the end."""
    try:
        for name in before.keys() | after.keys():
            put(pack / name, before.get(name), after.get(name))
        yield
    finally:
        for name in before.keys() | after.keys():
            put(pack / name, after.get(name), before.get(name))


def put(file: Path, old: bytes | None, new: bytes | None) -> None:
    if new is None:
        file.unlink()
    elif new != old:
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(new)


def mutate(content: bytes, dice: random.Random, others: list[bytes]) -> bytes:
    """One change of bytes or of lines; another content than before."""
    changed_ = content
    while changed_ == content:
        data, lines = bytearray(content), content.splitlines(keepends=True)
        at = dice.randrange(len(data) + 1)
        how = dice.choice(
            ("flip", "byte", "insert", "delete", "cut", "line end", "swap", "drop", "repeat", "truncate", "other")
        )
        if how in ("insert", "line end") or not data:
            data.insert(at, 10 if how == "line end" else dice.randrange(256))
        elif how == "flip":
            data[at % len(data)] ^= 1 << dice.randrange(8)
        elif how == "byte":
            data[at % len(data)] = dice.randrange(256)
        elif how == "delete":
            del data[at % len(data)]
        elif how == "cut":
            del data[at:]
        elif how == "other":
            data = bytearray(dice.choice(others))
        else:
            i, j = dice.randrange(len(lines)), dice.randrange(len(lines))
            if how == "swap":
                lines[i], lines[j] = lines[j], lines[i]
            elif how == "drop":
                del lines[i]
            elif how == "repeat":
                lines.insert(j, lines[i])
            else:
                lines[i] = lines[i][: dice.randrange(len(lines[i]))] + b"\n"
            data = bytearray(b"".join(lines))
        changed_ = bytes(data)
    return changed_


def rehash(pack: Pack, edit: Callable[[dict[str, Any]], None] = lambda manifest: None) -> None:
    """The manifest says again what the files are."""
    manifest = json.loads(pack["manifest.json"])
    manifest["files"] = {
        name: sha256(content).hexdigest() for name, content in pack.items() if not name.startswith("manifest.")
    }
    edit(manifest)
    pack["manifest.json"] = json.dumps(manifest, sort_keys=True, indent=1).encode() + b"\n"


def sign(pack: Pack, key: Ed25519PrivateKey) -> None:
    manifest = pack["manifest.json"]
    pack["manifest.note"] = checkpoints.sign("inst/evidence", len(manifest), sha256(manifest).digest(), key)
