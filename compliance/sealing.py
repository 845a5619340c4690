"""How a captured byte is sealed, and bound to its record: AES-256-GCM under keys that can each be destroyed.

    master key            of a file, or of a key management service (`compliance.masterkeys`)
      wraps data key      one for each subject, else for each tenant
        seals record key  one for each attempt
          -> content key  seals what was sent and answered, each part for itself
          -> commitment key   of the HMACs that stand in the log

What is sealed opens only in its own place: kind, request, attempt, part and data key are authenticated with it.
"""

from __future__ import annotations

import hmac
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct

KEY_BYTES = 32
NONCE_BYTES = 12
PARTS = ("original", "sent", "answered")
"""As the client sent it; as it went to the engine, redacted or translated; as the engine answered."""


class SealBroken(Exception):
    """The bytes were changed, moved to another place, or sealed under another key."""


class Place(Struct, frozen=True):
    """Where sealed bytes belong."""

    key: str  # the id of the data key
    request: str
    attempt: int

    def bound(self, what: str) -> bytes:
        """What is authenticated with bytes in this place."""
        return framed("spillway vault 1", what, self.key, self.request, str(self.attempt))


def new_key() -> bytes:
    return os.urandom(KEY_BYTES)


def seal_record_key(data_key: bytes, record_key: bytes, place: Place) -> bytes:
    return seal(data_key, record_key, place.bound("record key"))


def open_record_key(data_key: bytes, sealed: bytes, place: Place) -> bytes:
    """Raises `SealBroken`."""
    return unseal(data_key, sealed, place.bound("record key"))


def seal_part(record_key: bytes, part: str, data: bytes, place: Place) -> bytes:
    return seal(_derived(record_key, b"content"), data, place.bound(f"part {part}"))


def open_part(record_key: bytes, part: str, sealed: bytes, place: Place) -> bytes:
    """Raises `SealBroken`."""
    return unseal(_derived(record_key, b"content"), sealed, place.bound(f"part {part}"))


def commitment(record_key: bytes, part: str, data: bytes, place: Place) -> str:
    """Says which bytes a part had, to whom the record's key is given, and nothing to anybody else; hex."""
    return hmac.digest(_derived(record_key, b"commitment"), place.bound(f"commitment {part}") + data, "sha256").hex()


def seal(key: bytes, plain: bytes, bound: bytes) -> bytes:
    """Nonce (random, 96 bits), ciphertext, tag."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, bound)


def unseal(key: bytes, sealed: bytes, bound: bytes) -> bytes:
    """Raises `SealBroken`."""
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound)
    except (InvalidTag, ValueError):
        raise SealBroken("sealed bytes do not belong here, or were changed") from None


def framed(*parts: str) -> bytes:
    """Texts one after another, so that no two lists of them give the same bytes."""
    return b"".join([len(data := part.encode()).to_bytes(8, "big") + data for part in parts])


def _derived(key: bytes, use: bytes) -> bytes:
    """A key for one use (NIST SP 800-108, one block of HMAC-SHA256)."""
    return hmac.digest(key, b"spillway vault 1\0" + use, "sha256")
