"""A worker's budgets over a real Redis that waits for another worker."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from redis_server import redis_server

from policies.scopes import Budget
from policies.slices import Hold
from proxy.auth import LOCAL_OPEN
from proxy.state.leases import BudgetUnavailable, Leases
from proxy.state.redis import RedisBudgets, connect


async def test_law_03_while_another_is_waited_for_nothing_is_granted_and_the_log_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("proxy.state.clerk.SETTLE_INTERVAL", 0.01)
    monkeypatch.setattr("proxy.state.clerk.LOOK_INTERVAL", 0.02)
    memory = tmp_path / "slots.json"
    memory.write_text('["here", "gone"]')
    with redis_server(tmp_path / "redis", fsync=None) as server, caplog.at_level(logging.WARNING, "spillway"):
        store = RedisBudgets(connect(server.url), memory=memory, grace=0)
        loop = asyncio.get_running_loop()
        leases = Leases(store, "here", [Budget("org", "month", 1_000)], loop, history=lambda start: ())
        await asyncio.to_thread(leases.recover, 0)
        leases.start()
        for _ in range(20):
            with pytest.raises(BudgetUnavailable):
                await leases.reserve(LOCAL_OPEN, "", (5, 5, 1))
            await asyncio.sleep(0.03)  # a look at the store, which answers
        assert [record.message for record in caplog.records if "waits for what gone spent" in record.message]
        assert len(caplog.records) <= 2
        operator = RedisBudgets(connect(server.url))
        assert operator.retire("gone")
        operator.close()
        hold: Hold | None = None
        async with asyncio.timeout(20):
            while hold is None:
                try:
                    hold = await leases.reserve(LOCAL_OPEN, "", (5, 5, 1))
                except BudgetUnavailable:
                    await asyncio.sleep(0.02)
        leases.settle(hold, (0, 0, 0))
        await asyncio.to_thread(leases.close)
