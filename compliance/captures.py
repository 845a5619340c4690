"""What goes into the vault and comes out of it.  Pure."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct


class Capture(Struct):
    """What passed in one attempt.  It holds content: never log it."""

    request: str
    attempt: int
    at: int  # when the request came, microseconds since the epoch
    organisation: str
    tenant: str
    subject: str  # a pseudonym
    parts: Mapping[str, bytes]  # each of PARTS

    def __repr__(self) -> str:  # the default one would print the content
        return f"Capture({self.request!r}, {self.attempt})"


class Kept(Struct, frozen=True):
    """What became of a capture."""

    state: str  # kept, or erased: an erasure came first
    key: str = ""
    commitments: Mapping[str, str] = {}
    parts: tuple[str, ...] = ()


class Item(Struct, frozen=True):
    """What the vault holds of one attempt, by name."""

    request: str
    attempt: int
    at: int
    tenant: str
    subject: str
    key: str


class Opened(Struct, frozen=True):
    """One part in the clear, and its commitment as it must stand in the log."""

    attempt: int
    part: str
    data: bytes
    commitment: str

    def __repr__(self) -> str:
        return f"Opened({self.attempt}, {self.part!r})"


class Removed(Struct, frozen=True):
    """How much an erasure, or the end of the time to keep, removed."""

    keys: int = 0
    records: int = 0
    captures: int = 0
    held: int = 0
