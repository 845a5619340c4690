"""A reviewer's signature over a period: what exactly is signed, and whether it fits.  Pure.

Ed25519 over `spillway attestation`, a line end, and the record's canonical line without `at`, `seq`, `seq_mac` and
`signature` (the log itself sets the first three).  `compliance.verify` can check the same from the stored line.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from compliance.records import Attested

CONTEXT = b"spillway attestation\n"
_UNSIGNED = frozenset({"at", "seq", "seq_mac", "signature"})


def signed_text(record: Mapping[str, Any]) -> bytes:
    """What is signed of a record."""
    kept = {name: value for name, value in record.items() if name not in _UNSIGNED}
    return CONTEXT + json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def sign(record: Attested, key: Ed25519PrivateKey) -> Attested:
    """The record under this key."""
    record.signer_key = base64.b64encode(key.public_key().public_bytes_raw()).decode()
    record.signature = base64.b64encode(key.sign(signed_text(msgspec.to_builtins(record)))).decode()
    return record


def fits(record: Mapping[str, Any]) -> bool:
    """Is it signed by the key that it names?"""
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(record["signer_key"], validate=True))
        key.verify(base64.b64decode(record["signature"], validate=True), signed_text(record))
    except (InvalidSignature, ValueError, KeyError, TypeError):
        return False
    return True
