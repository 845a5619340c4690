"""How long the event loop was kept from its work: a histogram, for benchmarks and for the metric.

A timer asks to be called every `PERIOD`; what it comes late by is a stall.
"""

from __future__ import annotations

import asyncio

PERIOD = 0.002  # seconds
_BOUNDS_MS = (0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 25.0, 50.0, 100.0, 250.0, 1000.0)


class StallMeter:
    """Counts late calls by bucket; a quantile is the upper bound of its bucket, in milliseconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._counts = [0] * (len(_BOUNDS_MS) + 1)
        self._due = 0.0
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._due = self._loop.time() + PERIOD
        self._handle = self._loop.call_at(self._due, self._tick)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()

    def _tick(self) -> None:
        now = self._loop.time()
        late = (now - self._due) * 1000
        bucket = 0
        while bucket < len(_BOUNDS_MS) and late > _BOUNDS_MS[bucket]:
            bucket += 1
        self._counts[bucket] += 1
        self._due = now + PERIOD
        self._handle = self._loop.call_at(self._due, self._tick)

    def quantile_ms(self, share: float) -> float:
        """The stall that `share` of the calls stayed under; infinity past the last bucket."""
        total = sum(self._counts)
        reached = 0
        for bucket, count in enumerate(self._counts):
            reached += count
            if total and reached >= share * total:
                return _BOUNDS_MS[bucket] if bucket < len(_BOUNDS_MS) else float("inf")
        return 0.0

    def report(self) -> dict[str, float | int]:
        """`{"calls", "p50_ms", "p99_ms", "p999_ms"}`."""
        return {
            "calls": sum(self._counts),
            "p50_ms": self.quantile_ms(0.5),
            "p99_ms": self.quantile_ms(0.99),
            "p999_ms": self.quantile_ms(0.999),
        }
