"""Signed checkpoints of a log.  Pure but for the signature.

Formats: C2SP tlog-checkpoint (origin, size, root in base64, a line each) inside a C2SP signed-note
(a blank line, then `— <name> <base64 of key hash and signature>`), with Ed25519 (algorithm 0x01).
"""

from __future__ import annotations

import base64
import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Struct

_ED25519 = b"\x01"


class BadNote(ValueError):
    """Not a checkpoint signed by the expected key."""


class Checkpoint(Struct, frozen=True):
    """A tree's state that was signed."""

    origin: str
    size: int
    root: bytes


def sign(origin: str, size: int, root: bytes, key: Ed25519PrivateKey) -> bytes:
    """A signed note over a checkpoint."""
    return sign_text(origin, f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n", key)


def sign_text(name: str, text: str, key: Ed25519PrivateKey) -> bytes:
    """A signed note over a text, which ends with a line end."""
    signature = key_hash(name, key.public_key()) + key.sign(text.encode())
    return f"{text}\n— {name} {base64.b64encode(signature).decode()}\n".encode()


def open_note(note: bytes, name: str, key: Ed25519PublicKey) -> Checkpoint:
    """The checkpoint of a note, once its signature by `key` is verified; raises `BadNote`."""
    return _parse(open_text(note, name, key))


def open_text(note: bytes, name: str, key: Ed25519PublicKey) -> str:
    """The text of a note, once its signature by `key` is verified; raises `BadNote`."""
    text, separator, signatures = note.decode("utf-8", "replace").rpartition("\n\n")
    text += "\n"
    expected = key_hash(name, key)
    for line in signatures.split("\n") if separator else ():
        parts = line.split(" ")
        if len(parts) == 3 and parts[0] == "—" and parts[1] == name:
            signature = _decoded(parts[2])
            if signature[:4] == expected:
                try:
                    key.verify(signature[4:], text.encode())
                except InvalidSignature:
                    raise BadNote("the signature does not fit") from None
                return text
    raise BadNote("there is no signature by the expected key")


def _parse(text: str) -> Checkpoint:
    lines = text.split("\n")
    if len(lines) < 4 or not lines[1].isdigit():
        raise BadNote("not a checkpoint: origin, size and root are its first three lines")
    return Checkpoint(lines[0], int(lines[1]), _decoded(lines[2]))


def _decoded(text: str) -> bytes:
    """Base64 in its one canonical form."""
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        raise BadNote("not base64") from None
    if base64.b64encode(raw).decode() != text:
        raise BadNote("not canonical base64")
    return raw


def key_hash(name: str, key: Ed25519PublicKey) -> bytes:
    """The four bytes that tell keys apart: SHA-256(name || LF || algorithm || key), cut (signed-note, "Signatures")."""
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + key.public_bytes_raw()).digest()[:4]


def verifier_key(name: str, key: Ed25519PublicKey) -> str:
    """`name+hash+base64(algorithm || key)` (signed-note, "Verifier keys")."""
    return f"{name}+{key_hash(name, key).hex()}+{base64.b64encode(_ED25519 + key.public_bytes_raw()).decode()}"
