"""A second stage whose every answer waits until a test lets it go, on a clock that the test moves."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from hand_clock import HandClock
from msgspec.structs import replace

from policies.semantic import Placed
from proxy.second_stage import SecondStage

FIRST = Placed("coding", 0.4, 0.1, (("coding", 0.4), ("cards", 0.3)), ("coding", 2, 0.7), 0.5)
SURE = replace(FIRST, margin=0.9)
DEADLINE = 0.025
REAL_PATIENCE = 20.0
"""Real seconds after which a test that waits for a thread gives up."""


@dataclass
class Asked:
    """One request that asks."""

    text: str
    task: asyncio.Task[Placed]
    at: float
    ended: float | None = None


@dataclass
class Gated:
    """The stage, and the hand on its gate."""

    clock: HandClock
    share: float = 1.0
    window: int = 10
    broken: bool = False
    began: list[tuple[str, float]] = field(default_factory=list)
    counted: list[str] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stage = SecondStage(
            lambda placed: placed.margin < 0.2, self._again, share=self.share, deadline=DEADLINE, window=self.window,
            clock=self.clock, count=self.counted.append,
        )  # fmt: skip
        self._gate = threading.Semaphore(0)
        self._at_gate = threading.Event()
        self._done = 0

    def _again(self, text: str, placed: Placed) -> Placed:
        self.began.append((text, self.clock.now))
        self._at_gate.set()
        assert self._gate.acquire(timeout=REAL_PATIENCE)
        if self.broken:
            raise RuntimeError(text)
        return replace(placed, route=f"second of {text}", second="asked")

    def ask(self, text: str, placed: Placed = FIRST) -> Placed | Asked:
        """The first stage's answer where it holds, else a request that waits."""
        settled = self.stage.settled(placed)
        if settled is not None:
            return settled
        asked = Asked(text, asyncio.get_running_loop().create_task(self.stage.ask(text, placed)), self.clock.now)
        asked.task.add_done_callback(lambda _: setattr(asked, "ended", self.clock.now))
        self.asked.append(asked)
        return asked

    async def settle(self) -> None:
        """Until the thread is at the gate, or has nothing to do."""
        until = time.monotonic() + REAL_PATIENCE
        for _ in range(5):
            await asyncio.sleep(0)
        while not self._at_gate.is_set() and self.stage._waiting:
            await asyncio.sleep(0)
            time.sleep(0.0002)
            assert time.monotonic() < until
        for _ in range(5):
            await asyncio.sleep(0)

    async def let_go(self) -> None:
        """The answer that the thread is at."""
        await self.settle()
        if self._at_gate.is_set():
            before = self.stage._waiting
            self.release()
            until = time.monotonic() + REAL_PATIENCE
            while self.stage._waiting == before:
                await asyncio.sleep(0)
                time.sleep(0.0002)
                assert time.monotonic() < until
        await self.settle()

    def release(self) -> None:
        """Open the gate for one, and do not wait for anything."""
        self._at_gate.clear()
        self._gate.release()

    async def pass_time(self, seconds: float) -> None:
        await self.settle()
        self.clock.now += seconds
        await self.settle()

    async def end(self) -> None:
        for asked in self.asked:
            asked.task.cancel()
        while self.stage._waiting:
            await self.let_go()
        self.stage.close()


def answers(asked: list[Any]) -> list[str]:
    """What became of the second stage, of placed texts and of requests that have ended."""
    return [one.second if isinstance(one, Placed) else one.task.result().second for one in asked]
