"""Who is drawn into which arm: a keyed hash of the unit, so that it is the same each time and nobody can choose it.  Pure.

A unit's number lies in [0, 1) and does not change; a unit is local where it lies below the share of local.  So a phase with
a larger share keeps every unit local that was, and which unit was drawn can be worked out again from the key.
"""

from __future__ import annotations

import hashlib
import hmac

from msgspec import Struct

LOCAL, API = "local", "api"
MILLION = 1_000_000
_BITS = 53  # as many as a float tells apart


class Draw(Struct, frozen=True):
    """What came up for a unit.  `unit` is its pseudonym; `propensity` is the chance of the arm, in millionths."""

    arm: str
    unit: str
    propensity: int


def number(key: bytes, experiment: str, kind: str, unit: str) -> tuple[float, str]:
    """(the unit's number, its pseudonym: 64 bits in hex) in an experiment; `kind` is what units are: key, user, ..."""
    parts = [part.encode("utf-8", "replace") for part in (experiment, kind, unit)]
    message = b"".join([len(part).to_bytes(4, "big") + part for part in parts])
    mac = hmac.new(key, message, hashlib.sha256).digest()
    return (int.from_bytes(mac[:7], "big") >> (56 - _BITS)) / (1 << _BITS), mac[8:16].hex()


def draw(key: bytes, experiment: str, kind: str, unit: str, share: float) -> Draw:
    """The arm of a unit where this share of units is local."""
    found, pseudonym = number(key, experiment, kind, unit)
    chance = round(share * MILLION)
    if found < share:
        return Draw(LOCAL, pseudonym, chance)
    return Draw(API, pseudonym, MILLION - chance)


def experiment_key(instance_key: bytes) -> bytes:
    """The key of all draws of an instance, from its key for pseudonyms."""
    return hmac.new(instance_key, b"spillway experiments", hashlib.sha256).digest()
