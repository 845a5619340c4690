"""The unforeseen, in words that hold no content: an exception's type and where it was raised, never its message.

A message may quote a prompt (a decoding error does), and so may the values that a traceback shows (law 11).
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from typing import Any

log = logging.getLogger("spillway")


def describe(error: BaseException) -> str:
    """`ValueError at pipeline.py:81 in serve, session.py:120 in feed`: the innermost six places."""
    places = [
        f"{frame.filename.rpartition('/')[2]}:{frame.lineno} in {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
    ]
    return f"{type(error).__name__} at {', '.join(places[-6:])}" if places else type(error).__name__


def on_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """The event loop's handler for what no task was there to hear."""
    error = context.get("exception")
    log.error("unforeseen in a callback: %s", describe(error) if error is not None else "no exception")
