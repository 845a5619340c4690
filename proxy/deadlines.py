"""Timeouts of every attempt in flight, by one timer a worker.

`asyncio.timeout` costs 4 us and a timer handle per attempt; a sweep over what is in flight costs
nothing on the path.  The price is the granularity, `TICK`.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

TICK = 0.05
"""Seconds between two sweeps where nothing else is asked for."""


class Expiring(Protocol):
    deadline: float  # on the loop's clock

    def on_deadline(self, now: float) -> None: ...


class Deadlines:
    """Calls `on_deadline` of what has been added and whose `deadline` has passed, within `tick` seconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, tick: float = TICK) -> None:
        self._loop = loop
        self._tick = tick
        self._watched: set[Expiring] = set()
        self._handle: asyncio.TimerHandle | None = None

    def add(self, item: Expiring) -> None:
        self._watched.add(item)
        if self._handle is None:
            self._handle = self._loop.call_later(self._tick, self._sweep)

    def discard(self, item: Expiring) -> None:
        self._watched.discard(item)

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def __len__(self) -> int:
        return len(self._watched)

    def _sweep(self) -> None:
        now = self._loop.time()
        for item in [w for w in self._watched if w.deadline <= now]:
            item.on_deadline(now)
        self._handle = self._loop.call_later(self._tick, self._sweep) if self._watched else None
