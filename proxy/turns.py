"""Work that comes for many at once, some of it in each turn of the event loop: who is served meanwhile is not kept waiting."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Turns:
    """A queue of steps, `most` of which are taken in one turn.  None is taken at once, and none is left out."""

    __slots__ = ("_due", "_loop", "_most", "_steps")

    def __init__(self, loop: asyncio.AbstractEventLoop, most: int) -> None:
        self._loop = loop
        self._most = most
        self._due = False  # steps will be taken in the next turn
        self._steps: deque[Callable[[], object]] = deque()

    def add(self, step: Callable[[], object]) -> None:
        """Take `step` in one of the next turns."""
        self._steps.append(step)
        if not self._due:
            self._due = True
            self._loop.call_soon(self._take)

    def _take(self) -> None:
        steps = self._steps
        try:
            for _ in range(min(self._most, len(steps))):
                steps.popleft()()
        finally:  # one that raises keeps no other from its turn
            self._due = bool(steps)
            if steps:
                self._loop.call_soon(self._take)
