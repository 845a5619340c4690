"""The second stage of routes for live requests: asked in a thread of its own, of a share of them, until a deadline.

Only a request whose decisions read the route, and whose first stage is unsure, comes here.  Where the share is spent,
the thread is behind, late or broken, the first stage's answer holds and says why.  The event loop never waits: a
request's own task does, with a timer of the loop.  What nobody waits for any more is dropped before it is begun, and
while one answer takes longer than the deadline nobody else asks, so that no backlog grows.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec.structs import replace

from policies.stages import ASKED, BROKEN, BUSY, LATE, RESTING, SPENT, WINDOW, Share, outcome_of

if TYPE_CHECKING:
    from policies.semantic import Placed

WAITING = 8
"""Questions that may wait or be at work at once: a dozen milliseconds of work."""
PATIENCE = 3
"""Failures in a row after which it is asked less often: each doubles how many unsure texts are not asked about."""
LONGEST_REST = 256
LAST_MOMENT = 0.1
"""Seconds that a worker's end waits for the answer at work."""


class _Question:
    """One text, asked by one request.  The thread sets what it found, or why not; all else is the loop's."""

    __slots__ = ("answer", "found", "late", "placed", "text", "until", "why")

    def __init__(self, text: str, placed: Placed, until: float, answer: asyncio.Future[None]) -> None:
        self.text = text
        self.placed = placed
        self.until = until
        self.answer = answer  # done: nobody waits any more
        self.late = False
        self.found: Placed | None = None
        self.why = LATE


class SecondStage:
    """One worker's second stage.  `settled` and `ask` are for the event loop's thread."""

    def __init__(
        self,
        unsure: Callable[[Placed], bool],
        again: Callable[[str, Placed], Placed],
        *,
        share: float,
        deadline: float,
        window: int = WINDOW,
        clock: Callable[[], float] = time.monotonic,
        count: Callable[[str], None] | None = None,
    ) -> None:
        """`unsure` says whether a first answer needs a second, `again` gives it and is called in the thread alone.
        `share` of the texts placed; `deadline` in seconds, the wait for a turn included; `clock` is asked by both sides;
        `count` hears what became of each text of which the first stage was unsure."""
        self._unsure = unsure
        self._again = again
        self._share = Share(share, window)
        self._deadline = deadline
        self._clock = clock
        self._count = count
        self._questions: queue.SimpleQueue[_Question | None] = queue.SimpleQueue()
        self._waiting = 0
        self._began: float | None = None  # when the thread began what it is at; None: it is idle
        self._failures = 0  # in a row
        self._rest = 0  # unsure texts that are still not asked about
        self._thread: threading.Thread | None = None

    def settled(self, placed: Placed) -> Placed | None:
        """The first stage's answer where it holds; None: `ask` is next, and a place in the share is taken for it."""
        if not self._unsure(placed):
            self._share.pass_by()
            return placed
        why = self._why_not()
        if why:
            self._share.pass_by()
            return self._told(placed, why)
        return None if self._share.take() else self._told(placed, SPENT)

    def _told(self, placed: Placed, second: str) -> Placed:
        if self._count is not None:
            self._count(outcome_of(second))
        return placed if placed.second == second else replace(placed, second=second)

    def _why_not(self) -> str:
        if self._rest:
            self._rest -= 1
            return RESTING
        began = self._began
        stuck = began is not None and self._clock() - began > self._deadline
        return BUSY if stuck or self._waiting >= WAITING else ""

    async def ask(self, text: str, placed: Placed) -> Placed:
        """What the second stage says, or the first stage's answer with why not; after the deadline at the latest."""
        loop = asyncio.get_running_loop()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, args=(loop,), name="second stage", daemon=True)
            self._thread.start()
        question = _Question(text, placed, self._clock() + self._deadline, loop.create_future())
        self._waiting += 1
        self._questions.put(question)
        try:
            async with asyncio.timeout(self._deadline):  # which cancels the future, as a client that leaves does
                await question.answer
        except TimeoutError:
            question.late = True
        found = question.found
        return self._told(placed, question.why) if found is None else self._told(found, ASKED)

    def close(self) -> None:
        """Nobody asks any more; the thread ends after what it is at, and is waited for only a moment."""
        self._questions.put(None)
        if self._thread is not None:
            self._thread.join(min(self._deadline, LAST_MOMENT))

    def _answered(self, question: _Question) -> None:
        """On the loop: the thread is done with it, whether somebody waits or not."""
        self._waiting -= 1
        if question.why != LATE or (question.found is not None and question.late):
            self._failures += 1
            if self._failures >= PATIENCE:
                self._rest = min(2 ** (self._failures - PATIENCE), LONGEST_REST)
        elif question.found is not None and not question.answer.cancelled():
            self._failures = self._rest = 0
        if not question.answer.done():
            question.answer.set_result(None)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        """The thread: one question after the other."""
        while (question := self._questions.get()) is not None:
            if not question.answer.done() and self._clock() < question.until:
                self._work(question)
            try:
                loop.call_soon_threadsafe(self._answered, question)
            except RuntimeError:  # the loop is closed
                return

    def _work(self, question: _Question) -> None:
        self._began = self._clock()
        try:
            question.found = self._again(question.text, question.placed)
        except Exception as error:  # noqa: BLE001  a model may be broken in any way: the first stage's answer holds
            question.why = f"{BROKEN} ({type(error).__name__})"
        finally:
            self._began = None
