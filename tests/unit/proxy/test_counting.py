"""Attempts that wait for their engine's count: each is finished once, whatever becomes of it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from scripted import ScriptedEngine, answering

from compliance.model import Verdict
from compliance.rules import Labels
from engines import openai
from engines.kinds import KINDS
from engines.model import Operation, Target
from engines.transport import Transport
from proxy.addressing import Address, Timeouts
from proxy.counting import AT_ONCE, Counting
from proxy.counts import Counts
from proxy.exchange import Attempt, Exchange
from proxy.session import StreamSession

BODY = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "hello"}]}).encode()


class Waiters:
    """Attempts that ended without usage, as they are handed over."""

    def __init__(self, url: str) -> None:
        self.finished: list[tuple[int, Counts]] = []
        self.transport = Transport(asyncio.get_running_loop())
        self.counting = Counting(asyncio.get_running_loop(), self.transport, self._finish)
        self.url = url
        self.target = Target("gpu/m", "gpu", "vllm", "m", "local", (url,), frozenset())
        self.address = Address(
            self.target, KINDS["vllm"], openai.DIALECT, "/v1/chat/completions", "0", Labels("local"), Timeouts()
        )

    def _finish(self, exchange: Any, attempt: Attempt, hold: Any, session: Any, counts: Counts) -> None:
        self.finished.append((attempt.index, counts))

    def take(self, index: int) -> bool:
        request = openai.DIALECT.parse(Operation.CHAT, BODY, {})
        exchange = Exchange("x", None, None, 0, 0.0)  # type: ignore[arg-type]
        exchange.request = request
        attempt = Attempt(index, self.target, 0, Verdict("allow"))
        attempt.billable = attempt.committed = True
        session = StreamSession(
            request, openai.DIALECT, openai.DIALECT, answer_id="a", created=1, restore_model=False, strip_usage=False
        )
        session.kept = ["some ", "words"]
        session.text_length = 10
        return self.counting.take(exchange, attempt, session, None, self.address, self.url, BODY)


async def test_law_03_an_attempt_is_finished_also_where_its_count_never_began() -> None:
    async with ScriptedEngine(answering({"count": 5}), counts=True) as engine:
        waiters = Waiters(engine.url)
        assert waiters.take(0) and waiters.take(1)
        for task in list(waiters.counting._tasks):
            task.cancel()  # in the same turn of the loop: nothing of them has run
        await waiters.counting.close()
        await waiters.transport.close()
    assert waiters.finished == [(0, Counts()), (1, Counts())]
    assert engine.requests == [] and not waiters.counting.waiting


async def test_law_04_many_are_finished_once_each_and_none_is_taken_after_the_end() -> None:
    async with ScriptedEngine(answering({"count": 5}), counts=True) as engine:
        waiters = Waiters(engine.url)
        assert all([waiters.take(index) for index in range(AT_ONCE * 3)])
        await waiters.counting.close(60)
        assert not waiters.take(99)
        await waiters.transport.close()
    assert sorted(index for index, _ in waiters.finished) == list(range(AT_ONCE * 3))
    assert {counts for _, counts in waiters.finished} == {Counts(prompt=5, output=5, looked_at=10)}
    assert engine.connections <= AT_ONCE
