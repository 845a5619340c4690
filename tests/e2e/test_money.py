"""What reaches the ledger through the whole way of a request, and what it is worth there."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from client import ask
from scripted import Play, Received, ScriptedEngine, answering, completion, json_answer
from stack import running

from engines.ratecard import RateCard
from proxy.auth import digest
from proxy.finance import report
from proxy.projections.ledger import Ledger

TOKEN = "spw_" + "m" * 43
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
CARD = {"purchase": "$1000", "watts": {"idle": 10, "load": 100}, "kwh": "$0.10"}


async def slowly(received: Received, play: Play) -> None:
    await asyncio.sleep(0.1)
    await play.send(json_answer(completion()))


async def test_an_answer_is_charged_to_its_tenant_by_the_time_that_its_engine_took(tmp_path: Path) -> None:
    """The time of the engine that failed before it is not the second engine's."""
    before = time.time_ns() // 1000
    busy = answering({"error": {"message": "busy", "type": "x", "code": 503}}, 503)
    async with ScriptedEngine(slowly) as slow, ScriptedEngine(busy) as failing:
        config: dict[str, Any] = {
            "engines": {
                "one": {"kind": "vllm", "replicas": [failing.url], "models": {"m": {}}},
                "two": {"kind": "vllm", "replicas": [slow.url], "models": {"m": {}}, "cost": CARD},
            },
            "models": {"m": ["one/m", "two/m"]},
            "keys": {"app": {"hash": f"sha256:{digest(TOKEN)}", "tenant": "care", "team": "heart"}},
        }
        async with running(config, tmp_path) as spillway:
            answer = await ask(spillway.port, "/v1/chat/completions", CHAT, {"authorization": f"Bearer {TOKEN}"})
            assert answer.status == 200
        (path,) = tmp_path.rglob("ledger.db")
    ledger = Ledger(path)
    span = (before, time.time_ns() // 1000 + 1)
    rows = {row["names"]: row for row in ledger.sums(("tenant", "team", "target"), *span)}
    assert set(rows) == {("care", "heart", "one/m"), ("care", "heart", "two/m")}
    assert 95_000 < rows["care", "heart", "two/m"]["engine_us"] < 2_000_000
    assert rows["care", "heart", "one/m"]["engine_us"] < rows["care", "heart", "two/m"]["engine_us"]
    card = RateCard(purchase=10**15, watts_idle=10, watts_load=100, kwh=10**11)
    found = report(("tenant",), span, ledger.sums(("tenant",), *span), ledger.intervals(*span), {"two": card})
    ledger.close()
    assert found.total.own == found.pools[0].spent.busy > 0
    assert found.spent == found.pools[0].spent.total
