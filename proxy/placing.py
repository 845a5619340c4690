"""Asking the classifier what a prompt is about, without ever waiting for it longer than a deadline.

It takes a tenth of a millisecond, so it is asked in place, as long as it has been as quick as that.  What cannot be
interrupted cannot be trusted: a classifier that failed or took too long is asked in a thread from then on, one request
after the other, and each waits until its own deadline; after so many good answers it is asked in place again.

That is the first stage.  Where there is a second, and the first is unsure, the second is waited for: `proxy.second_stage`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from policies.signals import Pending, SignalFailed

if TYPE_CHECKING:
    from policies.semantic import Placed
    from proxy.second_stage import SecondStage

TRUST = 8
"""Good answers, one after the other, from which it is asked in place."""


class Placing:
    """One worker's way to the classifier."""

    def __init__(self, place: Callable[[str], Placed], deadline: float, second: SecondStage | None = None) -> None:
        self._place = place
        self._second = second
        self._deadline = deadline  # seconds
        self._good = 0
        self._asked: asyncio.Future[Placed] | None = None  # by the thread
        self._thread: ThreadPoolExecutor | None = None

    @property
    def trusted(self) -> bool:
        return self._good >= TRUST

    def prove(self, texts: Sequence[str]) -> None:
        """Ask it of these, so that a good one is trusted from the start.  For the start only: it blocks."""
        with contextlib.suppress(Exception):  # whatever is wrong with it, requests will be told
            for text in texts:
                self(text, proving=True)

    def __call__(self, text: str, *, proving: bool = False) -> Placed:
        """What a text is about, at once; raises what the classifier raises, or `Pending` where it is to be asked by
        `later`."""
        if not proving and (not self.trusted or self._asked is not None):
            raise Pending("route", text)
        good, self._good = self._good, 0  # what stands if it raises
        began = time.perf_counter()
        placed = self._place(text)
        # An answer that came late is still an answer: what it cost is spent.  The next is waited for, not longer.
        if time.perf_counter() - began <= self._deadline:
            self._good = good + 1
        second = self._second
        if second is None or proving:
            return placed
        settled = second.settled(placed)
        if settled is None:
            raise Pending("route", text, placed)
        return settled

    async def answer(self, pending: Pending) -> Placed:
        """What a text is about, of which only the second stage is still to be asked, or both; raises `SignalFailed` where
        the first has none."""
        placed, second = pending.placed, self._second
        if placed is None:
            placed = await self.later(pending.text)
            settled = placed if second is None else second.settled(placed)
            if settled is not None:
                return settled
        assert second is not None
        return await second.ask(pending.text, placed)

    async def later(self, text: str) -> Placed:
        """What a text is about, from a thread and after those that asked before, until the deadline; raises
        `SignalFailed`."""
        try:
            async with asyncio.timeout(self._deadline):
                while self._asked is not None:
                    await asyncio.wait({self._asked})
                asked = self._ask(text)
                await asyncio.wait({asked})  # which leaves it running where nobody waits any more
        except TimeoutError:
            self._good = 0
            raise SignalFailed("route", f"took longer than {self._deadline * 1000:.0f} ms") from None
        error = asked.exception()
        if error is not None:
            self._good = 0
            raise SignalFailed("route", f"failed ({type(error).__name__})")
        self._good += 1
        return asked.result()

    def _ask(self, text: str) -> asyncio.Future[Placed]:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "route")
        asked = self._asked = asyncio.get_running_loop().run_in_executor(self._thread, self._place, text)
        asked.add_done_callback(self._answered)
        return asked

    def close(self) -> None:
        if self._second is not None:
            self._second.close()
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _answered(self, asked: asyncio.Future[Placed]) -> None:
        self._asked = None
        if not asked.cancelled():
            asked.exception()  # it was told to whoever waited; nobody may
