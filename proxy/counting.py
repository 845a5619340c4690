"""Tokens that an engine did not say: they are counted off the path, a local engine's by itself, a cloud's by tiktoken.

An attempt that ended without usage (its client left, its stream broke after the commit, its engine sends none) waits here
until its prompt and what came of its answer are counted: by the tokenizer of the local engine that answered, or by
tiktoken in a process of its own (`proxy.tokenizing`).  Then it is settled and recorded once, as every attempt is: its hold
stands meanwhile, so the limit does (law 3), and one attempt stays one line (law 4).  After a crash meanwhile it is
`interrupted`, as any attempt that had not ended; a local one waits no longer than local requests may run ahead of their
records anyway (law 13), and a cloud's decision is on the disk.

Text goes to the very replica that wrote it, or stays on this host, and is taken along for that long only.  Whatever
hinders the count (the engine is down, or slow, or has no such endpoint, too much waits already) leaves the estimate that
there would be without it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec.structs import replace

from compliance.model import LOCAL
from engines.errors import EngineError
from engines.kinds import Tokenizer, kind
from engines.model import Operation, Target, TokenCount
from engines.tokens import encoding_of
from engines.transport import Transport
from policies.slices import Hold
from proxy.addressing import Address
from proxy.counts import NOT_COUNTED, Counts
from proxy.estimates import counted_by_text, question, well_formed
from proxy.exchange import Attempt, Exchange
from proxy.faults import describe
from proxy.session import KEPT_LIMIT, Session
from proxy.tokenizing import TokenProcess

log = logging.getLogger("spillway")

PATIENCE = 1.0
"""Seconds that a local attempt waits for its count, its turn included."""
LOADING = 60.0
"""Seconds that a cloud's waits: tiktoken may have to be loaded first, by a process that requests go before."""
AT_ONCE = 8
"""Attempts of one worker that are counted at a time."""
MAX_WAITING = 256
"""Attempts that wait; past it, and past `MAX_BYTES`, what comes is settled at once by the estimate."""
MAX_BYTES = 32 * 1024 * 1024
"""Of the requests and answers of all that wait."""
MAX_PROMPT = 1024 * 1024
"""Bytes of a request whose prompt is counted; one that is longer is not taken."""
ANSWER_LIMIT = 16 * 1024 * 1024
"""Bytes of an engine's count: some list every token."""

Finish = Callable[[Exchange, Attempt, Hold | None, Session, Counts], None]
"""Settles and records an attempt; never waits."""
_Count = TokenCount | list[Any]


class _Waiting:
    """One attempt, and what is known of it so far."""

    __slots__ = (
        "address",
        "attempt",
        "body",
        "counts",
        "exchange",
        "hold",
        "origin",
        "session",
        "size",
        "tokenizer",
    )

    def __init__(
        self, exchange: Exchange, attempt: Attempt, session: Session, hold: Hold | None, address: Address,
        tokenizer: Tokenizer | None, origin: str, body: bytes, size: int,
    ) -> None:  # fmt: skip
        self.exchange = exchange
        self.attempt = attempt
        self.session = session
        self.hold = hold
        self.address = address
        self.tokenizer = tokenizer
        self.origin = origin
        self.body = body
        self.size = size  # of what is held in memory, about
        self.counts = NOT_COUNTED


class Counting:
    """One worker's questions to its engines' tokenizers, and to `tiktoken` where it may be asked."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, transport: Transport, finish: Finish, tiktoken: TokenProcess | None = None, *, asks: bool = True
    ) -> None:  # fmt: skip
        self._tiktoken = tiktoken
        self._loop = loop
        self._transport = transport
        self._finish = finish
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._tasks: dict[asyncio.Task[None], _Waiting] = {}
        self._bytes = 0
        self._asks = asks  # False: nothing is taken

    @property
    def waiting(self) -> int:
        """Attempts that are not settled yet."""
        return len(self._tasks)

    def take(
        self, exchange: Exchange, attempt: Attempt, session: Session, hold: Hold | None, address: Address, origin: str, body: bytes
    ) -> bool:  # fmt: skip
        """Shall this attempt, which is over, wait for its count?  True: it is settled and recorded from here.

        `body` is what the engine at `origin` got.  Not taken is what another attempt may follow: lines of one request
        stand in the order of their attempts.
        """
        if session.usage is not None and session.usage_final:
            return False
        request = exchange.request
        tokenizer = tokenizer_of(attempt.target)
        if attempt.target.boundary != LOCAL:
            countable = self._tiktoken is not None
        else:
            countable = (
                tokenizer is not None
                and attempt.scope is None
                and request is not None
                and request.operation is Operation.CHAT
            )
        if request is None or not countable:
            return False
        last = attempt.committed or attempt.ending == "abandoned"
        if not last or not attempt.billable or len(body) > MAX_PROMPT:
            return False
        size = len(body) + (KEPT_LIMIT if session.streamed else attempt.bytes_in)
        if not self._asks or len(self._tasks) >= MAX_WAITING or self._bytes + size > MAX_BYTES:
            return False
        waiting = _Waiting(exchange, attempt, session, hold, address, tokenizer, origin, body, size)
        task = self._loop.create_task(self._count(waiting))
        self._tasks[task] = waiting
        self._bytes += size
        task.add_done_callback(self._end)
        return True

    async def close(self, seconds: float = PATIENCE) -> None:
        """Settle and record all that waits, after so many seconds without its count."""
        self._asks = False
        if self._tasks:
            _, late = await asyncio.wait(list(self._tasks), timeout=seconds)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        if self._tiktoken is not None:
            await self._tiktoken.close()

    def _end(self, task: asyncio.Task[None]) -> None:
        """Whatever became of the count, also where it never began."""
        waiting = self._tasks.pop(task)
        self._bytes -= waiting.size
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("unforeseen while tokens were counted: %s", describe(error))
        self._finish(waiting.exchange, waiting.attempt, waiting.hold, waiting.session, waiting.counts)

    async def _count(self, waiting: _Waiting) -> None:
        tokenizer = waiting.tokenizer
        try:
            if tokenizer is None:
                async with asyncio.timeout(LOADING):
                    await self._estimate(waiting)
                return
            async with asyncio.timeout(PATIENCE), self._turns:
                await self._output(waiting, tokenizer)
                if waiting.session.usage is None:
                    prompt = await self._prompt(waiting, tokenizer)
                    waiting.counts = replace(waiting.counts, prompt=prompt)
        except (EngineError, TimeoutError):
            pass  # what was counted counts

    async def _estimate(self, waiting: _Waiting) -> None:
        """A cloud's attempt, by tiktoken."""
        request, tiktoken = waiting.exchange.request, self._tiktoken
        assert request is not None and tiktoken is not None
        asked = question(request, waiting.session)
        counted = await tiktoken.count(encoding_of(waiting.address.target.model), asked.texts)
        if counted is not None:
            waiting.counts = asked.counts(request, counted)

    async def _output(self, waiting: _Waiting, tokenizer: Tokenizer) -> None:
        text = "".join(waiting.session.kept or ())[:KEPT_LIMIT]  # the last piece may be long
        output: int | None = 0
        if text:
            asked = {"model": waiting.address.target.model, tokenizer.text: well_formed(text), **tokenizer.more}
            output = await self._ask(waiting, tokenizer.path, msgspec.json.encode(asked), tokenizer.count)
        waiting.counts = Counts(None, output, len(text))

    async def _prompt(self, waiting: _Waiting, tokenizer: Tokenizer) -> int | None:
        request = waiting.exchange.request
        if request is None or not counted_by_text(request):
            return None
        body = waiting.body
        if tokenizer.prompt_fields is not None:
            sent = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
            chosen: dict[str, Any] = {name: sent[name] for name in tokenizer.prompt_fields if name in sent}
            body = msgspec.json.encode({"model": waiting.address.target.model, **chosen})
        return await self._ask(waiting, tokenizer.prompt_path, body, tokenizer.prompt_count)

    async def _ask(self, waiting: _Waiting, path: str, body: bytes, field: str) -> int | None:
        address = waiting.address
        status, _, answer = await self._transport.fetch(
            address.target, waiting.origin, b"POST", path.encode(), address.headers, body, timeout=PATIENCE, limit=ANSWER_LIMIT
        )  # fmt: skip
        return _number(answer, field) if status == 200 else None


def tokenizer_of(target: Target) -> Tokenizer | None:
    """What can count for this target; None: nothing may or can."""
    return kind(target.kind).tokenizer if target.boundary == LOCAL else None


def _number(answer: bytes, field: str) -> int | None:
    """The count in an engine's answer; None where there is none that can be believed."""
    try:
        found = msgspec.json.decode(answer, type=dict[str, msgspec.Raw]).get(field)
        counted = None if found is None else msgspec.json.decode(found, type=_Count)
    except msgspec.DecodeError:  # of which a value out of bounds is one
        return None
    return len(counted) if isinstance(counted, list) else counted
