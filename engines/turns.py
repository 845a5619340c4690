"""Work that comes for many at once, some of it in each turn of the event loop: who is served meanwhile is not kept waiting.

libuv hands over all that is ready in one turn: at saturation a request or an answer of every client.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic

SHARE = 0.002
"""Seconds of a turn for the steps of one queue."""


class Turns:
    """A queue of steps: in one turn at most `most` of them, and as many as are begun within `SHARE`; `most` bounds what they
    set off, such as the tasks that go on.  None is left out."""

    __slots__ = ("_due", "_loop", "_most", "_steps", "_until")

    def __init__(self, loop: asyncio.AbstractEventLoop, most: int) -> None:
        self._loop = loop
        self._most = most
        self._due = False  # the next turn begins a share of its own
        self._until = 0.0  # the end of this turn's share
        self._steps: deque[Callable[[], object]] = deque()

    def add(self, step: Callable[[], object]) -> None:
        """Take `step` in one of the next turns."""
        self._steps.append(step)
        if not self._due:
            self._due = True
            self._loop.call_soon(self._take)

    def room(self) -> bool:
        """May something be done at once?  Not where steps wait, or this turn's share is used."""
        if self._due:
            return not self._steps and monotonic() < self._until
        self._due = True
        self._until = monotonic() + SHARE
        self._loop.call_soon(self._take)
        return True

    def _take(self) -> None:
        steps = self._steps
        if not steps:
            self._due = False
            return
        until = self._until = monotonic() + SHARE
        self._loop.call_soon(self._take)  # first: a step that raises keeps no other from its turn
        for _ in range(min(self._most, len(steps))):
            steps.popleft()()
            if monotonic() >= until:
                break
