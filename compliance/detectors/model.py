"""The vocabulary of detectors: what is looked for, and what was found.  Data only."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct


class Span(Struct, frozen=True):
    """One identifier: code points of the text that was given."""

    type: str
    start: int
    end: int
    confidence: float


class Pattern(Struct, frozen=True):
    """A shape (RE2 syntax, ASCII).  Group 1 is the identifier; `check` gets its text.

    `trigger`, or one of several, occurs in all that `shape` matches (None: the shape itself).  A match begins at most
    `back` bytes before the trigger's end and goes on at most `ahead` bytes after it, where at least `digits` digits must
    stand.
    """

    type: str
    shape: str
    check: Callable[[str], bool] | None = None
    confidence: float = 1.0
    trigger: str | tuple[str, ...] | None = None
    back: int = 96
    ahead: int = 192
    digits: int = 0
