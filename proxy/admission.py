"""Waiting for a place in a local engine: a bounded queue with a deadline for each engine.

Only a request that has nowhere else to go waits here: where the cloud may take it, it overflows instead.
"""

from __future__ import annotations

import asyncio
from collections import deque

from proxy.errors import Refusal
from proxy.health import EngineState


class Admission:
    """The queues of one worker.  `length` waiting requests at most for each engine, `max_wait` seconds each."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, length: int, max_wait: float) -> None:
        self._loop = loop
        self._length = length
        self._max_wait = max_wait
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    def enter(self, engine: EngineState) -> None:
        engine.in_flight += 1

    def leave(self, engine: EngineState) -> None:
        """Give the place back and wake the first that waits for it."""
        engine.in_flight -= 1
        if self._waiting:
            self._wake(engine.name)

    async def wait(self, engine: EngineState) -> None:
        """Until a place may be free; the caller decides again.  Raises `Refusal("queue_timeout")`."""
        queue = self._waiting.setdefault(engine.name, deque())
        if len(queue) >= self._length:
            raise Refusal("queue_timeout", f"The queue of engine {engine.name!r} is full.", retry_after=1)
        waiter = self._loop.create_future()
        queue.append(waiter)
        try:
            async with asyncio.timeout(self._max_wait):
                await waiter
        except TimeoutError:
            raise Refusal(
                "queue_timeout", f"Engine {engine.name!r} had no place free in time.", retry_after=1
            ) from None
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():  # woken and cancelled at once: the place is the next one's
                self._wake(engine.name)
            raise
        finally:
            if waiter in queue:
                queue.remove(waiter)
            if not queue and self._waiting.get(engine.name) is queue:
                del self._waiting[engine.name]

    def _wake(self, engine: str) -> None:
        queue = self._waiting.get(engine)
        while queue:
            waiter = queue.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def waiting(self, engine: str) -> int:
        return len(self._waiting.get(engine, ()))
