"""An event loop whose clock a test moves by hand: a deadline passes when the test says so, however slow the machine is."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class HandClock:
    """Seconds; read by the loop and, where a test hands it over, by threads."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class HandLoop(asyncio.SelectorEventLoop):
    """Timers fire when the clock has been moved past them."""

    def __init__(self, clock: HandClock) -> None:
        self._hand = clock
        super().__init__()

    def time(self) -> float:
        return self._hand.now


def run(clock: HandClock, main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=lambda: HandLoop(clock)) as runner:
        runner.run(main)
