"""Budgets and rate limits through the whole way of a request, with the official SDKs; and real load over processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anthropic
import openai
import pytest
from client import ask
from scripted import Play, Received, ScriptedEngine, answering, completion, json_answer, message
from stack import Command, command, running

from compliance.journal import read
from compliance.records import BudgetAlert, Decision, Outcome
from proxy.alerts import signature
from proxy.auth import digest
from proxy.state.charges import spent_by

NURSE, CLERK = "spw_" + "n" * 43, "spw_" + "c" * 43
KEYS = {
    "nurse": {"hash": f"sha256:{digest(NURSE)}", "team": "heart", "project": "triage"},
    "clerk": {"hash": f"sha256:{digest(CLERK)}", "team": "admin"},
}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
PRICES = {"sky/m": {"input": "$10/M", "output": "$100/M"}, "sky/small": {"input": "$1/M", "output": "$1/M"}}
UNUSED = {"p": "$9"}


def cloud(url: str, **models: Any) -> dict[str, Any]:
    return {
        "kind": "openai",
        "replicas": [url],
        "boundary": "cloud",
        "key": {"env": "K"},
        "models": models or {"m": {}},
    }


def config(sky: str, budgets: list[dict[str, Any]], home: str | None = None, **more: Any) -> dict[str, Any]:
    engines: dict[str, Any] = {"sky": cloud(sky, m={"max_output": 50}, small={"max_output": 50})}
    if home is not None:
        engines["home"] = {"kind": "vllm", "replicas": [home], "models": {"m": {"max_output": 50}}}
    candidates = ["home/m", "sky/m"] if home is not None else ["sky/m"]
    return {"engines": engines, "models": {"m": candidates}, "prices": PRICES, "keys": KEYS, "budgets": budgets, **more}


async def said(port: int, token: str = NURSE, body: dict[str, Any] = CHAT) -> Any:
    return await ask(port, "/v1/chat/completions", body, {"authorization": f"Bearer {token}"})


def records(directory: Path, kind: type) -> list[Any]:
    return [one for slot in (directory / "audit").glob("slot-*") for one in read(slot) if isinstance(one, kind)]


async def test_law_03_a_team_is_stopped_and_another_goes_on(tmp_path: Path) -> None:
    budgets = [{"scope": "org", "limit": "$10"}, {"scope": "team/heart", "limit": "$0.02", "window": "day"}]
    async with ScriptedEngine(answering(completion())) as sky:
        async with running(config(sky.url, budgets), tmp_path, environ={"K": "x"}) as spillway:
            assert (await said(spillway.port)).status == 200
            dear = {**CHAT, "max_tokens": 500}
            refused = await said(spillway.port, body=dear)
            assert (refused.status, refused.json()["error"]["code"]) == (429, "budget_exceeded")
            assert refused.headers["x-should-retry"] == "false"
            assert "team/heart" in refused.json()["error"]["message"]
            assert (await said(spillway.port, CLERK, dear)).status == 200
    assert len(sky.requests) == 2
    (first, second) = records(tmp_path, Decision)
    assert [label.partition("|")[0] for label in first.scopes] == ["org", "team/heart"]
    assert [label.partition("|")[0] for label in second.scopes] == ["org"]


async def test_what_is_reserved_for_the_output_is_asked_of_the_engine(tmp_path: Path) -> None:
    """Without a limit of its own a request holds the operator's cap, so it must be one (law 7: a named edit)."""
    async with ScriptedEngine(answering(completion())) as sky:
        async with running(config(sky.url, [{"limit": "$1"}]), tmp_path, environ={"K": "x"}) as spillway:
            assert (await said(spillway.port)).status == 200
            assert (await said(spillway.port, body={**CHAT, "max_tokens": 7})).status == 200
            assert (await said(spillway.port, body={**CHAT, "max_tokens": None})).status == 200
    bodies = [received.json() for received in sky.requests]
    assert bodies[0].pop("max_completion_tokens") == 50
    assert bodies[0] == CHAT
    assert (bodies[1]["max_tokens"], bodies[2]["max_tokens"]) == (7, 50)
    assert [one.edits for one in records(tmp_path, Decision)] == [("output_cap",), (), ("output_cap",)]


async def test_a_spent_budget_downgrades_to_the_cheaper_model(tmp_path: Path) -> None:
    budgets = [{"limit": "$0.015", "at_limit": {"downgrade": ["sky/small"]}}]
    async with ScriptedEngine(answering(completion())) as sky:
        async with running(config(sky.url, budgets), tmp_path, environ={"K": "x"}) as spillway:
            answer = await said(spillway.port, body={**CHAT, "max_tokens": 200})
            assert (answer.status, answer.headers["x-spillway-target"]) == (200, "sky/small")
            refused = await said(spillway.port, body={**CHAT, "max_tokens": 20_000})
            assert refused.json()["error"]["code"] == "budget_exceeded"
    assert [received.json()["model"] for received in sky.requests] == ["small"]
    (decided,) = records(tmp_path, Decision)
    assert decided.routing == "budget spent: downgrade"
    assert any(veto.startswith("sky/m:budget") for veto in decided.vetoes)


async def test_a_spent_budget_waits_for_a_local_engine(tmp_path: Path) -> None:
    """It overflowed because home was busy; there is no money, so it waits for its place."""
    free = asyncio.Event()

    async def slow(received: Received, play: Play) -> None:
        await free.wait()
        await play.send(json_answer(completion("at home")))

    budgets = [{"limit": "$0", "at_limit": "local_only"}]
    async with ScriptedEngine(slow) as home, ScriptedEngine(answering(completion())) as sky:
        whole = config(sky.url, budgets, home.url)
        whole["engines"]["home"]["concurrency"] = 1
        whole["listen"] = {"workers": 1}
        whole["limits"] = {"queue": {"max_wait": "30s", "length": 10}}
        async with running(whole, tmp_path, environ={"K": "x"}) as spillway:
            asking = [asyncio.create_task(said(spillway.port)) for _ in range(3)]
            while not home.requests:
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.05)
            free.set()
            answers = await asyncio.gather(*asking)
    assert [answer.headers.get("x-spillway-target") for answer in answers] == ["home/m"] * 3
    assert sky.requests == []


async def test_rate_limits_are_said_as_the_sdks_know_them(tmp_path: Path) -> None:
    budgets = [{"scope": "each key", "window": "minute", "requests": 2}]
    async with ScriptedEngine(answering(completion())) as home, ScriptedEngine(answering(message())) as claude:
        whole = {
            "engines": {
                "home": {"kind": "vllm", "replicas": [home.url], "models": {"m": {}}},
                "claude": {
                    "kind": "anthropic",
                    "replicas": [claude.url],
                    "boundary": "cloud",
                    "key": {"env": "K"},
                    "models": {"claude-haiku-4-5": {}},
                },
            },
            "keys": KEYS,
            "budgets": budgets,
        }
        async with running(whole, tmp_path, environ={"K": "x"}) as spillway:
            async with openai.AsyncOpenAI(base_url=f"{spillway.url}/v1", api_key=NURSE, max_retries=0) as client:
                for _ in range(2):
                    await client.chat.completions.create(**CHAT)
                with pytest.raises(openai.RateLimitError) as limited:
                    await client.chat.completions.create(**CHAT)
            headers = limited.value.response.headers
            assert limited.value.code == "rate_limited"
            assert 1 <= int(headers["retry-after"]) <= 60
            assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("2", "0")
            assert headers["x-ratelimit-reset-requests"].endswith("s")
            assert "x-should-retry" not in headers
            async with anthropic.AsyncAnthropic(base_url=spillway.url, api_key=CLERK, max_retries=0) as client:
                talk: dict[str, Any] = {"model": "claude-haiku-4-5", "max_tokens": 5, "messages": CHAT["messages"]}
                for _ in range(2):
                    await client.messages.create(**talk)
                with pytest.raises(anthropic.RateLimitError) as stopped:
                    await client.messages.create(**talk)
            headers = stopped.value.response.headers
            assert stopped.value.response.json()["error"]["type"] == "rate_limit_error"
            assert headers["anthropic-ratelimit-requests-limit"] == "2"
            assert headers["anthropic-ratelimit-requests-reset"].endswith("Z")
    assert (len(home.requests), len(claude.requests)) == (2, 2)


async def test_law_03_tokens_of_local_attempts_count_where_a_budget_says_so(tmp_path: Path) -> None:
    """Nine tokens an answer, and a bound of 1,141 (the body's bytes, 1,024 and the cap of 50): it fits 18 times into 1,300."""
    budgets = [{"scope": "team/heart", "window": "day", "tokens": 1_300}]
    async with ScriptedEngine(answering(completion())) as home, ScriptedEngine(answering(completion())) as sky:
        async with running(config(sky.url, budgets, home.url), tmp_path, environ={"K": "x"}) as spillway:
            served = 0
            async with asyncio.timeout(60):
                while served < 18:  # what an answer did not use is free again when its record is durable
                    served += (await said(spillway.port)).status == 200
            await asyncio.sleep(0.3)
            refused = await said(spillway.port)
            assert (await said(spillway.port, CLERK)).status == 200
    assert (refused.status, refused.json()["error"]["code"]) == (429, "budget_exceeded")
    outcomes = [one for one in records(tmp_path, Outcome) if one.team == "heart"]
    ((account, spent),) = spent_by(outcomes).items()
    assert account[0] == "team/heart#tokens-all"
    assert spent == 9 * served <= 1_300
    with contextlib.closing(sqlite3.connect(tmp_path / "state" / "budgets.db")) as db:
        rows = db.execute("SELECT scope, sum(settled), sum(outstanding) FROM shares GROUP BY 1").fetchall()
    assert rows == [("team/heart#tokens-all", 9 * served, 0)]


async def test_a_limit_on_local_attempts_does_not_spill_a_request_to_the_cloud(tmp_path: Path) -> None:
    """A local request without a limit of its own may hold more tokens than one to the cloud, which would fit and cost money."""
    budgets = [{"scope": "each key", "window": "minute", "tokens": 10_000}, {"limit": "$10"}]
    async with ScriptedEngine(answering(completion())) as home, ScriptedEngine(answering(completion())) as sky:
        whole = config(sky.url, budgets, home.url)
        whole["engines"]["home"]["models"]["m"] = {"context": 131_072}  # and no max_output
        async with running(whole, tmp_path, environ={"K": "x"}) as spillway:
            refused = await said(spillway.port)
            assert (refused.status, refused.json()["error"]["code"]) == (429, "rate_limited")
            assert (await said(spillway.port, body={**CHAT, "max_tokens": 50})).headers["x-spillway-target"] == "home/m"
    assert (len(home.requests), len(sky.requests)) == (1, 0)


async def test_law_03_what_is_held_is_for_the_request_as_it_is_sent(tmp_path: Path) -> None:
    """Pseudonyms are longer than what they hide, so the redacted request may have more tokens than the client's has bytes."""
    text = " ".join(f"a{number}@b.co" for number in range(1_000))
    async with ScriptedEngine(answering(completion())) as sky:
        whole = config(sky.url, [{"limit": "$10"}])
        whole["compliance"] = {
            "rules": [{"name": "hide", "when": {"found": ["pii"]}, "action": "redact"}],
            "tier": "fast",
        }
        async with running(whole, tmp_path, environ={"K": "x"}) as spillway:
            answer = await said(spillway.port, body={**CHAT, "messages": [{"role": "user", "content": text}]})
            assert (answer.status, answer.headers["x-spillway-action"]) == (200, "redact")
    (received,) = sky.requests
    assert len(received.body) > len(text) + 2_000
    (decided,) = records(tmp_path, Decision)
    assert decided.hold >= len(received.body) * 10_000_000 + 50 * 100_000_000


@pytest.mark.interpreted
async def test_law_03_an_attempt_over_midnight_costs_what_it_was_held_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dearer price that begins meanwhile is that of the next attempt."""
    clock = SimpleNamespace(time=time.time, strftime=time.strftime, gmtime=time.gmtime)
    monkeypatch.setattr("proxy.spending.time", clock)
    days = [time.strftime("%Y-%m-%d", time.gmtime(time.time() + ahead * 86_400)) for ahead in (-1, 1)]

    async def over_midnight(received: Received, play: Play) -> None:
        clock.time = lambda: time.time() + 86_400
        await play.send(json_answer(completion()))

    async with ScriptedEngine(over_midnight) as sky:
        whole = config(sky.url, [{"limit": "$10"}])
        prices = [
            {"from": days[0], "input": "$10/M", "output": "$10/M"},
            {"from": days[1], "input": "$900/M", "output": "$900/M"},
        ]
        whole["prices"] = {"sky/m": prices}
        async with running(whole, tmp_path, environ={"K": "x"}) as spillway:
            for _ in range(2):
                assert (await said(spillway.port)).status == 200
    costs = [one.cost for one in records(tmp_path, Outcome)]
    assert costs == [9 * 10_000_000, 9 * 900_000_000]


async def test_law_03_what_is_billed_by_the_call_has_no_price_of_tokens(tmp_path: Path) -> None:
    async with ScriptedEngine(answering(completion())) as sky:
        async with running(config(sky.url, [{"limit": "$10"}]), tmp_path, environ={"K": "x"}) as spillway:
            refused = await said(spillway.port, body={**CHAT, "web_search_options": {}})
            assert "unpriced" in refused.json()["error"]["message"]
            assert (await said(spillway.port, body={**CHAT, "web_search_options": None})).status == 200
    assert len(sky.requests) == 1


@pytest.mark.parametrize(("going", "status"), [("stop", 503), ("go_on", 200)])
async def test_a_store_that_fails_behaves_as_declared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, going: str, status: int
) -> None:
    """Cloud stops unless the operator says otherwise; local goes on, also where it is counted."""
    monkeypatch.setattr("proxy.state.sqlite.BUSY_SECONDS", 0.02)
    budgets = [{"limit": "$10"}, {"scope": "each key", "window": "minute", "requests": 100}]
    async with ScriptedEngine(answering(completion())) as home, ScriptedEngine(answering(completion())) as sky:
        whole = config(sky.url, budgets, home.url)
        whole["models"]["away"] = ["sky/m"]
        whole["state"] = {"dir": str(tmp_path / "state"), "on_failure": going}
        async with running(whole, tmp_path, environ={"K": "x"}) as spillway:
            other = sqlite3.connect(tmp_path / "state" / "budgets.db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            away = await said(spillway.port, body={**CHAT, "model": "away"})
            assert away.status == status
            if status == 503:
                assert away.json()["error"]["code"] == "budget_unavailable"
            at_home = await said(spillway.port)
            assert (at_home.status, at_home.headers["x-spillway-target"]) == (200, "home/m")
            other.execute("ROLLBACK")
            other.close()
            async with asyncio.timeout(20):
                while (await said(spillway.port, body={**CHAT, "model": "away"})).status != 200:
                    await asyncio.sleep(0.05)
    outcomes = records(tmp_path, Outcome)
    with contextlib.closing(sqlite3.connect(tmp_path / "state" / "budgets.db")) as db:
        settled = dict(db.execute("SELECT scope || window, sum(settled) FROM shares GROUP BY 1").fetchall())
    assert settled == {name + window: amount for (name, window), amount in spent_by(outcomes).items()}


async def test_thresholds_are_told_once_signed_and_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first try of each is not taken, and is made again."""
    monkeypatch.setattr("proxy.alerts.FIRST_PAUSE", 0.05)
    monkeypatch.setattr("proxy.state.clerk.LOOK_INTERVAL", 0.05)
    tries: dict[str, int] = {}

    async def hook(received: Received, play: Play) -> bool:
        name = received.headers["webhook-id"]
        tries[name] = tries.get(name, 0) + 1
        await play.send(json_answer({}, 500 if tries[name] == 1 else 204 if False else 200))
        return False

    budgets = [{"scope": "team/heart", "limit": "$0.05", "soft": ["1%", "2%", "100%"], "window": "day"}]
    async with ScriptedEngine(answering(completion())) as sky, ScriptedEngine(hook) as ear:
        alerts = {"url": f"{ear.url}/hook", "secret": {"env": "S"}}
        whole = config(sky.url, budgets, alerts=alerts)
        async with running(whole, tmp_path, environ={"K": "x", "S": "shared"}) as spillway:
            for _ in range(5):  # 0.00027 each
                assert (await said(spillway.port)).status == 200
            async with asyncio.timeout(20):
                while len(ear.requests) < 4:
                    await asyncio.sleep(0.02)
            await asyncio.sleep(0.3)
    assert len(ear.requests) == 4
    assert sorted(tries.values()) == [2, 2]
    for received in ear.requests:
        stamp = int(received.headers["webhook-timestamp"])
        expected = signature("shared", received.headers["webhook-id"], stamp, received.body)
        assert received.headers["webhook-signature"] == expected
    told = {received.json()["data"]["threshold"] for received in ear.requests}
    assert told == {1, 2}
    data = ear.requests[0].json()["data"]
    assert (data["scope"], data["limit"], data["unit"]) == ("team/heart", "0.050000000000", "usd")
    found = records(tmp_path, BudgetAlert)
    assert [(one.scope, one.threshold) for one in found] == [("team/heart", "1"), ("team/heart", "2")]


# --- processes ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def recording_cloud(record: Path) -> Iterator[str]:
    import subprocess
    import sys

    from stack import ROOT, free_port

    port = free_port()
    arguments = [sys.executable, str(ROOT / "tests/support/scripted.py"), "--port", str(port), "--record", str(record)]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdin is not None and process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.stdin.close()
        process.wait(5)
        process.stdout.close()


LIMITS = {"org": 300 * 10**9, "team/heart": 200 * 10**9, "key/config:nurse#requests-all": 120}


def store_of(started: Command) -> sqlite3.Connection:
    return sqlite3.connect(started.log.parent / "state" / "budgets.db", timeout=20)


def within(started: Command) -> dict[str, tuple[int, int]]:
    """(settled, held) of each account; asserts the law."""
    with contextlib.closing(store_of(started)) as db:
        rows = db.execute("SELECT scope, sum(settled), sum(outstanding) FROM shares GROUP BY 1").fetchall()
    for scope, settled, held in rows:
        assert settled + held <= LIMITS[scope], (scope, settled, held)
    return {scope: (settled, held) for scope, settled, held in rows}


async def flood(started: Command, clients: int, kills: int) -> tuple[int, int]:
    """Hundreds at once at a nearly spent budget; (answers, refusals)."""
    served = refused = 0
    stop = asyncio.Event()

    async def client(number: int) -> None:
        nonlocal served, refused
        while not stop.is_set():
            try:
                answer = await said(started.port, NURSE if number % 2 else CLERK)
            except Exception:  # noqa: BLE001  a killed worker breaks connections in every way
                await asyncio.sleep(0.01)
                continue
            served += answer.status == 200
            if answer.status == 429:
                refused += 1
                await asyncio.sleep(0.02)

    tasks = [asyncio.create_task(client(number)) for number in range(clients)]
    dice = random.Random(11)
    try:
        for _ in range(kills):
            await asyncio.sleep(dice.uniform(0.1, 0.4))
            if workers := started.workers():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(dice.choice(workers), signal.SIGKILL)
            within(started)
        until = time.monotonic() + 60
        while refused < 200 and time.monotonic() < until:
            await asyncio.sleep(0.05)
            within(started)
    finally:
        stop.set()
        await asyncio.gather(*tasks)
    return served, refused


def test_law_03_04_13_a_chain_of_scopes_under_load_over_processes_that_are_killed(tmp_path: Path) -> None:
    """Settled and held stay within every limit at every look; at the end the store is what the logs say, to the
    pico-dollar, and nothing is held that nobody uses."""
    record = tmp_path / "cloud.jsonl"
    record.touch()
    budgets = [
        {"scope": "org", "limit": "$0.30", "window": "month"},
        {"scope": "team/heart", "limit": "$0.20", "window": "month"},
        {"scope": "key/config:nurse", "requests": 120, "window": "month"},
    ]
    with recording_cloud(record) as sky:
        whole = config(sky, budgets)
        with command(whole, tmp_path, environ={"K": "x"}) as started:
            served, refused = asyncio.run(flood(started, clients=120, kills=4))
            assert served > 0 and refused >= 200
            time.sleep(1.0)
            started.wait_ready()
            assert started.stop() == 0
            left = within(started)
    outcomes = records(tmp_path, Outcome)
    by_name: dict[str, int] = {}
    for (name, _), amount in spent_by(outcomes).items():
        by_name[name] = by_name.get(name, 0) + amount
    assert {name: settled for name, (settled, _) in left.items()} == by_name
    assert all(held == 0 for _, held in left.values())
    assert by_name["org"] == sum(one.cost for one in outcomes)
    assert len(record.read_text().splitlines()) <= len(outcomes)
    arrivals = [json.loads(line) for line in record.read_text().splitlines()]
    assert len(arrivals) >= served
