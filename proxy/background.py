"""Threads that may come late: what they do is read later, so the event loop goes first."""

from __future__ import annotations

import os
import queue
import threading
from typing import Protocol, TypeVar

NICENESS = 5
"""A third of the event loop's weight.  A thread with much less (10 is a tenth) that holds the interpreter's lock when another
process wants its core kept the event loop waiting for up to 55 ms."""
Item = TypeVar("Item", covariant=True)


class Source(Protocol[Item]):
    """A queue's reading end; None in it says that nothing more comes."""

    def get(self, block: bool = True, timeout: float | None = None) -> Item | None: ...
    def get_nowait(self) -> Item | None: ...


def gather(source: Source[Item], most: int, pause: float) -> tuple[list[Item], bool]:
    """(at most so many of what waits, after `pause` seconds at the latest; whether it was the last)."""
    batch: list[Item] = []
    try:
        item = source.get(timeout=pause)
        while item is not None:
            batch.append(item)
            if len(batch) == most:
                return batch, False
            item = source.get_nowait()
        return batch, True
    except queue.Empty:
        return batch, False


def step_back(process: int = 0, niceness: int = NICENESS) -> None:
    """Lower the priority of a process; 0: of the calling thread (on Linux, niceness is a thread's own; sched(7))."""
    try:
        os.setpriority(os.PRIO_PROCESS, process or threading.get_native_id(), niceness)
    except OSError:
        pass  # where it is not allowed, they share as they did; or the process has ended
