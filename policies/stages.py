"""Of which texts the second stage of routes may be asked: a share of the latest, never exceeded; and what became of it."""

from __future__ import annotations

from math import floor

WINDOW = 1000
"""Texts over which a share holds."""
ASKED = "asked"
"""The second stage answered."""
SPENT, BUSY, LATE, BROKEN, RESTING = "share spent", "busy", "late", "broken", "resting"
"""It was not asked, or did not answer in time: the first stage's answer holds.  `broken (ValueError)` names what it raised."""


class Share:
    """Of any `window` texts, one after the other, at most `share` get it.  One thread at a time.

    The window is full from the start with texts that did not get it, so that a quiet worker need not wait for its first.
    """

    def __init__(self, share: float, window: int = WINDOW) -> None:
        """`share` from 0 to 1."""
        self._latest = bytearray(window)  # 1: it got it
        self._at = 0
        self._left = floor(share * window + 1e-9)

    def pass_by(self) -> None:
        """A text that does not need it."""
        at = self._at
        latest = self._latest
        if latest[at]:
            latest[at] = 0
            self._left += 1
        self._at = at + 1 if at + 1 < len(latest) else 0

    def take(self) -> bool:
        """A text that needs it: does it get it?"""
        at = self._at
        self.pass_by()
        if self._left <= 0:
            return False
        self._left -= 1
        self._latest[at] = 1
        return True


def outcome_of(second: str) -> str:
    """The word that is counted, of what a `Placed` says of its second stage."""
    return second.partition(" (")[0]


def words_of(second: str) -> str:
    """What became of the second stage, as records and people are told; "" where the first was sure, or there is no other."""
    if not second:
        return ""
    asked = outcome_of(second) in (ASKED, LATE, BROKEN)
    return f"second stage: {second}" if asked else f"second stage: not asked: {second}"
