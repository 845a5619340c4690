"""Feedback over real sockets: any worker takes it, for the application's own requests alone, and it outlives a crash."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from client import Answer, ask
from scripted import ScriptedEngine, answering, completion
from stack import Command, Running, command, running
from typer.testing import CliRunner

from compliance.journal import read, slots
from compliance.records import Feedback
from proxy.cli import app
from proxy.feedback import BURST, FEEDBACK_PATH, LARGEST_BODY, MOST
from proxy.projections.ledger import Ledger

PATH = "/v1/chat/completions"
TOKENS = {name: f"spw_{name}" for name in ("triage", "triage2", "billing", "lone")}


def config(engine: str, **more: Any) -> dict[str, Any]:
    def key(name: str, **rest: Any) -> dict[str, Any]:
        return {"hash": "sha256:" + hashlib.sha256(TOKENS[name].encode()).hexdigest(), **rest}

    return {
        "engines": {"gpu": {"kind": "vllm", "replicas": [engine], "models": {"m": {}}}},
        "keys": {
            "triage": key("triage", team="care", project="triage"),
            "triage2": key("triage2", team="care", project="triage"),
            "billing": key("billing", team="care", project="billing"),
            "lone": key("lone"),
        },
        **more,
    }


def auth(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {TOKENS[name]}"}


async def chat(port: int, name: str = "triage") -> str:
    body = {"model": "m", "max_tokens": 4, "messages": [{"role": "user", "content": "hello"}]}
    answer = await ask(port, PATH, body, auth(name))
    assert answer.status == 200
    return answer.headers["x-spillway-request-id"]


async def give(port: int, body: Any, name: str = "triage") -> Answer:
    return await ask(port, FEEDBACK_PATH, body, auth(name))


def given(directory: Path) -> list[Feedback]:
    found = [record for slot in slots(directory / "audit") for record in read(slot) if isinstance(record, Feedback)]
    return sorted(found, key=lambda record: record.at)


def index(directory: Path) -> dict[tuple[str, str], float]:
    ledger = Ledger(directory / "state" / "ledger.db")
    try:
        return {(row[1], row[0]): row[2] for row in ledger.trials()["feedback"]}
    finally:
        ledger.close()


async def test_any_worker_takes_it_at_once_and_the_last_value_holds(tmp_path: Path) -> None:
    async with ScriptedEngine(answering(completion())) as engine:
        async with running(config(engine.url), tmp_path) as one, running(config(engine.url), tmp_path, slot=1) as two:
            request = await chat(one.port)
            first = await give(two.port, {"request_id": request, "metric": "accepted", "value": True})
            assert (first.status, first.json()) == (200, {"object": "feedback", "accepted": 1})
            assert [(r.request, r.metric, r.value, r.project, r.key) for r in given(tmp_path)] == [
                (request, "accepted", "true", "triage", "config:triage")  # on the disk before the answer
            ]
            await give(one.port, {"request_id": request, "metric": "accepted", "value": False}, "triage2")
            await give(two.port, {"request_id": request, "metric": "minutes.saved", "value": 2.5})
            await give(two.port, {"request_id": request, "metric": "minutes.saved", "value": 2.5})
        async with running(config(engine.url), tmp_path, slot=1) as again:  # after a restart, too
            late = await give(again.port, {"request_id": request, "metric": "late", "value": 1})
            assert late.status == 200
    assert [(r.metric, r.value) for r in given(tmp_path)] == [
        ("accepted", "true"), ("accepted", "false"), ("minutes.saved", "2.5"), ("minutes.saved", "2.5"), ("late", "1"),
    ]  # fmt: skip
    assert index(tmp_path) == {("accepted", request): 0.0, ("minutes.saved", request): 2.5, ("late", request): 1.0}


async def test_what_is_not_ones_own_does_not_exist(tmp_path: Path) -> None:
    async with ScriptedEngine(answering(completion())) as engine:
        async with running(config(engine.url), tmp_path) as spillway:
            request = await chat(spillway.port)
            alone = await chat(spillway.port, "lone")
            answers = [
                await give(spillway.port, {"request_id": name, "metric": "m", "value": 1}, who)
                for name, who in ((request, "billing"), ("feedfacefeedface", "billing"), (alone, "triage"), (request, "lone"))
            ]  # fmt: skip
            assert {(a.status, a.body) for a in answers} == {(404, answers[0].body)}
            error = answers[0].json()["error"]
            assert (error["code"], error["param"]) == ("not_found", "request_id")
            assert not given(tmp_path)
            mixed = [{"request_id": name, "metric": "m", "value": 1} for name in (alone, request, "feedfacefeedface")]
            assert (await give(spillway.port, mixed)).json() == {
                "object": "feedback",
                "accepted": 1,
                "not_found": [0, 2],
            }
            assert (await give(spillway.port, mixed, "billing")).status == 404
            own = await give(spillway.port, {"request_id": alone, "metric": "m", "value": 1}, "lone")
            assert own.status == 200
            nobody = await ask(spillway.port, FEEDBACK_PATH, mixed[0], {"authorization": "Bearer spw_wrong"})
            assert (nobody.status, nobody.json()["error"]["code"]) == (401, "unauthenticated")
            dialect = await ask(
                spillway.port, FEEDBACK_PATH, b"[]", {**auth("lone"), "anthropic-version": "2023-06-01"}
            )
            assert (dialect.status, dialect.json()["type"]) == (400, "error")
            got = await ask(spillway.port, FEEDBACK_PATH, b"", auth("lone"), "GET")
            assert got.status == 405


async def test_its_size_and_rate_are_bounded(tmp_path: Path) -> None:
    async with ScriptedEngine(answering(completion())) as engine:
        async with running(config(engine.url), tmp_path) as spillway:
            request = await chat(spillway.port)
            item = {"request_id": request, "metric": "m", "value": 1}
            large = await ask(spillway.port, FEEDBACK_PATH, b" " * (LARGEST_BODY + 1), auth("triage"))
            assert (large.status, large.json()["error"]["code"]) == (413, "request_too_large")
            taken = 0
            while (answer := await give(spillway.port, [item] * MOST)).status == 200:
                taken += MOST
            assert (answer.status, answer.json()["error"]["code"]) == (429, "rate_limited")
            assert float(answer.headers["retry-after"]) >= 1
            assert taken >= BURST - MOST
            other = await chat(spillway.port, "lone")  # and nobody else is held up
            assert (await give(spillway.port, {**item, "request_id": other}, "lone")).status == 200


async def test_no_text_of_a_feedback_is_kept(tmp_path: Path) -> None:
    async with ScriptedEngine(answering(completion())) as engine:
        async with running(config(engine.url), tmp_path) as spillway:
            request = await chat(spillway.port)
            for body in (
                {"request_id": request, "metric": "patient Mandrake", "value": 1},
                {"request_id": request, "metric": "m", "value": "patient Mandrake"},
                {"request_id": request, "metric": "m", "value": 1, "comment": "patient Mandrake"},
                {"request_id": "patient-Mandrake", "metric": "m", "value": 1},
            ):
                answer = await give(spillway.port, body)
                assert answer.status in (400, 404)
                assert b"Mandrake" not in answer.body
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"Mandrake" not in kept


async def _on_the_disk(spillway: Running) -> None:
    until = time.monotonic() + 10
    while spillway.worker.journal.unwritten and time.monotonic() < until:
        await asyncio.sleep(0.005)


async def test_the_index_is_the_same_when_it_is_made_anew(tmp_path: Path) -> None:
    async with ScriptedEngine(answering(completion())) as engine:
        async with running(config(engine.url), tmp_path) as one, running(config(engine.url), tmp_path, slot=1) as two:
            requests = [await chat(port) for port in (one.port, two.port) * 3]
            for number, request in enumerate(requests * 2):
                port = (one.port, two.port)[number % 3 == 0]
                await give(port, {"request_id": request, "metric": "m", "value": number})
            await _on_the_disk(one)
    before = index(tmp_path)
    assert len(before) == len(requests)
    settings = tmp_path / "spillway.yaml"
    settings.write_text(json.dumps({**config("http://127.0.0.1:1"), "state": {"dir": str(tmp_path / "state")},
                                    "audit": {"dir": str(tmp_path / "audit")}}))  # fmt: skip
    (tmp_path / "state" / "ledger.db").unlink()
    assert CliRunner().invoke(app, ["spend", "--rebuild", "--config", str(settings)]).exit_code == 0
    assert index(tmp_path) == before


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_law_13_what_was_acknowledged_is_there_after_a_kill(number: signal.Signals, tmp_path: Path) -> None:
    """Both workers are killed right after the answer; what they acknowledged is in the index of the next start."""
    acknowledged: dict[str, int] = {}
    async with ScriptedEngine(answering(completion())) as engine:
        with command(config(engine.url), tmp_path) as spillway:
            for value in range(12):
                request = await chat(spillway.port)
                answer = await give(spillway.port, {"request_id": request, "metric": "m", "value": value})
                assert answer.status == 200
                acknowledged[request] = value
            _kill(spillway, number)
        spillway.log.unlink()  # so that the next one is ready when all of its workers are
        with command(config(engine.url), tmp_path) as spillway:
            request = next(iter(acknowledged))
            again = await give(spillway.port, {"request_id": request, "metric": "m", "value": 99})
            assert again.status == 200
            acknowledged[request] = 99
    assert index(tmp_path) == {("m", request): float(value) for request, value in acknowledged.items()}


def _kill(spillway: Command, number: signal.Signals) -> None:
    if number is signal.SIGTERM:
        spillway.stop()
        return
    workers = spillway.workers()
    spillway.process.kill()
    for pid in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    spillway.process.wait()


async def test_a_lost_index_is_no_reason_to_wave_anything_through(tmp_path: Path) -> None:
    async with ScriptedEngine(answering(completion())) as engine:
        async with running(config(engine.url), tmp_path) as spillway:
            request = await chat(spillway.port)
            await _on_the_disk(spillway)
            path = tmp_path / "state" / "ledger.db"
            kept = path.rename(tmp_path / "away.db")
            answer = await give(spillway.port, {"request_id": request, "metric": "m", "value": 1})
            assert (answer.status, answer.json()["error"]["code"]) == (503, "audit_unavailable")
            kept.rename(path)
    with sqlite3.connect(tmp_path / "state" / "ledger.db") as db:
        assert db.execute("SELECT count(*) FROM feedback").fetchone() == (0,)
