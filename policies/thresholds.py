"""When somebody should be told how a budget stands.  Pure."""

from __future__ import annotations

from collections.abc import Sequence

SOONEST = 10
"""A forecast needs this share of its window behind it, in percent: before, it would be noise."""


def crossed(spent: int, limit: int, soft: Sequence[int]) -> tuple[int, ...]:
    """Which of the thresholds (percent of the limit) have been reached."""
    return tuple([percent for percent in soft if 0 < spent * 100 >= limit * percent])


def forecast(spent: int, start: float, end: float, now: float) -> int | None:
    """What will be spent at the window's end if it goes on as it did so far; None: too early to say."""
    length, past = round(end - start), round(now - start)
    if length <= 0 or past * 100 < length * SOONEST:
        return None
    return spent * length // max(1, min(past, length))
