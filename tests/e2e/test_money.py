"""What reaches the ledger through the whole way of a request, and what it is worth there."""

from __future__ import annotations

import asyncio
import csv
import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from client import ask
from scripted import Play, Received, ScriptedEngine, answering, completion, json_answer
from stack import running
from typer.testing import CliRunner

from engines.ratecard import RateCard
from proxy.auth import digest
from proxy.cli import app
from proxy.finance import busy_times, report
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
    found = report(
        ("tenant",), span, ledger.sums(("tenant",), *span), busy_times(ledger.intervals(*span)), {"two": card}
    )
    ledger.close()
    assert found.total.own == found.pools[0].spent.busy > 0
    assert found.spent == found.pools[0].spent.total


SAID = "Marguerite"
"""In the prompt, the user's name, a tag, a class and the model's answer: nowhere else."""


async def test_law_11_who_and_what_for_is_in_the_ledger_and_no_text_in_any_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(received: Received, play: Play) -> None:
        await asyncio.sleep(0.02)  # no engine reports more time than passed
        row = completion(f"Hello {SAID}")
        await play.send(json_answer({**row, "timings": {"prompt_ms": 0.25, "predicted_ms": 0.5}}))

    async with ScriptedEngine(answer) as engine:
        config: dict[str, Any] = {
            "engines": {"two": {"kind": "llama.cpp", "replicas": [engine.url], "models": {"m": {}}, "cost": CARD}},
            "keys": {"app": {"hash": f"sha256:{digest(TOKEN)}", "tenant": "care", "team": "heart"}},
        }
        async with running(config, tmp_path) as spillway:
            body = {"model": "m", "user": SAID, "messages": [{"role": "user", "content": f"I am {SAID}"}]}
            headers = {
                "authorization": f"Bearer {TOKEN}", "x-spillway-class": "batch",
                "x-spillway-tags": f"cost-centre=CC-41, who={SAID}@example.org, stage=prod",
            }  # fmt: skip
            assert (await ask(spillway.port, "/v1/chat/completions", body, headers)).status == 200
        assert not [name for name in engine.requests[0].headers if name.startswith("x-spillway")]
        (path,) = tmp_path.rglob("ledger.db")
    ledger = Ledger(path)
    (line,) = ledger.lines()
    assert (line["class"], line["tenant"], line["team"], line["surface"]) == ("batch", "care", "heart", "openai.chat")
    assert len(line["user"]) == 16 and line["user"].isalnum()
    cost_centre, stage, who = line["tags"].split("\n")
    assert (cost_centre, stage) == ("cost-centre=CC-41", "stage=prod") and who.startswith("who=~")
    assert (line["prefill_us"], line["decode_us"], line["timing"]) == (250, 500, "engine")
    assert 0 < line["connect_us"] < line["first_us"] <= line["total_us"]
    ledger.close()
    (tmp_path / "spillway.yaml").write_text(
        yaml.safe_dump({"state": {"dir": "state"}, "audit": {"dir": "audit"}, **config})
    )
    monkeypatch.chdir(tmp_path)
    common = ["--config", "spillway.yaml"]
    before = [line]
    path.unlink()  # it can be thrown away
    done = CliRunner().invoke(app, ["spend", "--rebuild", *common], catch_exceptions=False)
    assert done.exit_code == 0 and "1 lines from 1 logs" in done.stderr
    ledger = Ledger(path)
    assert list(ledger.lines()) == before
    ledger.close()
    for command in (
        ["spend", "--by", "user,tag,class", "--html", "a.html", "--csv", "a.csv"],
        ["scorecard", "--html", "b.html"],
    ):
        done = CliRunner().invoke(
            app, [*command, *common, "--against", "openai/gpt-4o", "--json"], catch_exceptions=False
        )
        assert done.exit_code == 0, done.output
        assert SAID not in done.output and json.loads(done.stdout)
    for name in ("a.html", "a.csv", "b.html", path):
        assert SAID.encode() not in (tmp_path / name).read_bytes()
    with open("a.csv", newline="") as file:
        usage, idle = csv.DictReader(file)
    assert (usage["user"], usage["class"], idle["line"]) == (line["user"], "batch", "idle")
