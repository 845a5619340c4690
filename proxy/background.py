"""Threads that may come late: what they do is read later, so the event loop goes first."""

from __future__ import annotations

import os
import threading

NICENESS = 10


def step_back() -> None:
    """Lower the calling thread's priority (on Linux, niceness is a thread's own; sched(7))."""
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
    except OSError:
        pass  # where it is not allowed, threads share as they did
