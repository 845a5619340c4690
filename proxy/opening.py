"""What opening a capture needs besides its vault: an operator's credential, and the commitments that the log holds."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Struct

from compliance.journal import read_lines, slots
from compliance.records import Captured, decode
from compliance.sealing import PARTS
from proxy.config import Settings

LONGEST = 4096
"""Bytes of a credential's file."""


class CredentialInvalid(Exception):
    """A file that is no operator's credential, or that others can read."""


class Credential(Struct, frozen=True):
    """An operator's name and Ed25519 key."""

    name: str
    key: Ed25519PrivateKey

    def __repr__(self) -> str:
        return f"Credential({self.name!r})"

    @classmethod
    def new(cls, name: str) -> Credential:
        return cls(name, Ed25519PrivateKey.generate())

    @classmethod
    def read(cls, path: Path) -> Credential:
        """Of a file that only its owner may read; raises `CredentialInvalid`."""
        try:
            with open(path, "rb") as file:
                if os.fstat(file.fileno()).st_mode & 0o077:
                    raise CredentialInvalid(f"{path} can be read by others; chmod 600 {path}")
                row = json.loads(file.read(LONGEST))
            key = Ed25519PrivateKey.from_private_bytes(base64.b64decode(row["private"], validate=True))
            return cls(str(row["operator"]), key)
        except OSError as error:
            raise CredentialInvalid(f"{path} cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError):
            raise CredentialInvalid(f"{path} is no operator's key file") from None

    def write(self, path: Path) -> None:
        """To a new file, mode 0600; raises `FileExistsError`, `OSError`."""
        row = {"operator": self.name, "private": base64.b64encode(self.key.private_bytes_raw()).decode()}
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())


def commitments(settings: Settings, request: str) -> dict[tuple[int, str], str]:
    """(attempt, part) -> the commitment in the log, of a request."""
    found = {}
    mark = f'"request":"{request}"'.encode()
    for log in slots(Path(settings.audit.dir)):
        for line in read_lines(log):
            if mark in line and b'"kind":"captured"' in line and isinstance(record := decode(line), Captured):
                for part in PARTS:
                    if commitment := getattr(record, part):
                        found[record.attempt, part] = commitment
    return found
