"""Automata are compiled once: compiling them all takes a second of CPU, loading what was compiled a millisecond.

Compiled automata are the same for the same expressions, library and kind of processor.  Within a process they are
shared; between processes a `Shelf` keeps them.  What a shelf holds is believed only as far as Hyperscan checks it
(version, processor, CRC-32), so a shelf must be nobody else's: see `proxy.state.shelf`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import version
from typing import Any, Protocol

import hyperscan


class Shelf(Protocol):
    """Where compiled automata outlive a process.  Neither call raises: a shelf that fails only costs time."""

    def get(self, key: str) -> bytes | None:
        """What was put there under this key of 64 hex digits."""
        ...

    def put(self, key: str, data: bytes) -> None:
        """Keep it, or not."""
        ...

    def __hash__(self) -> int: ...


def database(expressions: Sequence[bytes], flags: Sequence[int], shelf: Shelf | None = None) -> Any:
    """The automaton of these expressions, whose ids are their places.  Raises `hyperscan.error`."""
    return _database(tuple(expressions), tuple(flags), shelf)


@lru_cache(maxsize=16)
def _database(expressions: tuple[bytes, ...], flags: tuple[int, ...], shelf: Shelf | None) -> Any:
    key = hashlib.sha256(repr((version("hyperscan"), expressions, flags)).encode()).hexdigest()
    kept = shelf.get(key) if shelf is not None else None
    if kept is not None:
        try:
            return hyperscan.loadb(kept, hyperscan.HS_MODE_BLOCK)
        except hyperscan.error:  # of another processor, or damaged
            pass
    made = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    made.compile(expressions=list(expressions), ids=list(range(len(expressions))), flags=list(flags))
    if shelf is not None:
        shelf.put(key, hyperscan.dumpb(made))
    return made
