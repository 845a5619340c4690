"""Counting tokens by tiktoken in a process of its own.

An encoding takes a second to load, 45 to 80 MB, and the interpreter meanwhile: too much for a process that relays streams.
So `python -m engines.tokens` counts for a worker over its pipes, begins at the first question and ends when nobody has
asked for a while.  It has no network, writes nothing, and ends with the worker: its questions come from the worker's pipe.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from proxy.background import step_back

log = logging.getLogger("spillway")

IDLE = 120.0
"""Seconds without a question after which the process ends."""
LONGEST_LINE = 1024 * 1024
NICENESS = 19
"""Of the process: loading takes half a second, and where it shares a core with workers, requests go before it."""


class Counted(Struct):
    """The process's answer: a count for each text, or why there is none."""

    counts: list[int] = []
    failure: str = ""


_counted = msgspec.json.Decoder(Counted).decode


class TokenProcess:
    """One worker's counter; questions are put one after another."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, idle: float = IDLE) -> None:
        self._loop = loop
        self._idle = idle
        self._turn = asyncio.Lock()
        self._process: Process | None = None
        self._reaping: set[asyncio.Task[int]] = set()  # processes that have been ended
        self._timer: asyncio.TimerHandle | None = None
        self._failure = ""  # for good: it is said once, and not tried again
        self._closed = False

    async def count(self, encoding: str, texts: Sequence[str]) -> list[int] | None:
        """How many tokens each text has, about; None where they cannot be counted.  Whoever is cancelled while it counts ends
        the process, whose answer nobody would read."""
        async with self._turn:
            if self._failure or self._closed:
                return None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            answered = False
            try:
                answer = await self._ask(msgspec.json.encode({"encoding": encoding, "texts": texts}) + b"\n")
                answered = True
            except (OSError, ValueError, msgspec.DecodeError) as error:  # it ended, or said what is no answer
                log.warning("the token counter failed: %s", type(error).__name__)
                return None
            finally:
                if not answered:
                    self._end()
            if answer.failure:
                self._failure = answer.failure
                log.warning("tokens cannot be counted: %s", answer.failure)
                self._end()
                return None
            if self._idle < math.inf:
                self._timer = self._loop.call_later(self._idle, self._end)
            return answer.counts if len(answer.counts) == len(texts) else None

    @property
    def running(self) -> bool:
        return self._process is not None

    async def close(self) -> None:
        """Nothing more is counted."""
        self._closed = True
        self._end()
        if self._reaping:
            await asyncio.wait(list(self._reaping))

    async def _ask(self, question: bytes) -> Counted:
        process = self._process
        if process is None or process.returncode is not None:
            process = self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "engines.tokens", stdin=PIPE, stdout=PIPE, stderr=DEVNULL, limit=LONGEST_LINE
            )
            step_back(process.pid, NICENESS)
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(question)
        await process.stdin.drain()
        return _counted(await process.stdout.readline())

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        process, self._process = self._process, None
        if process is not None:
            if process.returncode is None:
                process.kill()
            reaping = self._loop.create_task(process.wait())
            self._reaping.add(reaping)
            reaping.add_done_callback(self._reaping.discard)
