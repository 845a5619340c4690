"""Work that comes for many at once, some of it in each turn of the event loop: who is served meanwhile is not kept waiting.

libuv hands over all that is ready in one turn: at saturation a request or an answer of every client.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator
from time import monotonic

ALL = 1 << 30
"""Steps of one turn where nothing but their share of time bounds them."""
SHARE = 0.0025
"""Seconds of a turn for the steps of one queue."""
PAUSE = 0.0001
"""Seconds between two things that are done at once, from which on the loop did something else: reading a socket takes a
tenth of it.  Asking the loop to say when a turn ends would cost as much as an event of a stream."""


class _NextTurn:
    """`await NEXT_TURN` goes on in the next turn of the event loop, as `asyncio.sleep(0)` does with two calls more."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, None]:
        yield


NEXT_TURN = _NextTurn()


class Turns:
    """A queue of steps: in one turn at most `most` of them, and as many as are begun within `SHARE`; `most` bounds what they
    set off, such as the tasks that go on.  None is left out.

    Without `most` it is an outbox, of steps that set nothing off but send: what all have to send goes out together.  A peer
    on this host is woken by the first of many writes and is awake for the others; between two steps of work it would fall
    asleep again, and to wake it costs as much as to write.
    """

    __slots__ = ("_began", "_done", "_due", "_loop", "_most", "_steps")

    def __init__(self, loop: asyncio.AbstractEventLoop, most: int = ALL) -> None:
        self._loop = loop
        self._most = most
        self._began = self._done = 0.0  # of what is done at once, without a pause
        self._due = False  # steps will be taken in the next turn
        self._steps: deque[Callable[[], object]] = deque()

    def add(self, step: Callable[[], object]) -> None:
        """Take `step` in one of the next turns."""
        self._steps.append(step)
        if not self._due:
            self._due = True
            self._loop.call_soon(self._take)

    def room(self) -> bool:
        """May something that has just come be done at once, before `done` is called?  Not where steps wait, or things were
        done one upon the other for a whole share: the loop has looked for nothing else meanwhile, or had nothing else."""
        if self._steps:
            return False
        now = monotonic()
        if now - self._done > PAUSE:
            self._began = now
            return True
        return now - self._began < SHARE

    def done(self) -> None:
        """What there was room for is done."""
        self._done = monotonic()

    def _take(self) -> None:
        steps = self._steps
        until = monotonic() + SHARE
        try:
            for _ in range(min(self._most, len(steps))):
                steps.popleft()()
                if monotonic() >= until:
                    break
        finally:  # one that raises keeps no other from its turn
            self._due = bool(steps)
            if steps:
                self._loop.call_soon(self._take)
