"""Declared decisions over real engines: routes and structure choose between a small and a large llama.cpp server and a
recording cloud; what must stay stays, and a classifier that is broken or slow costs its deadline at most."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from client import Answer, ask
from outcomes_made import made_rows
from routes_made import CODING_AND_CARDS as ROUTES
from scripted import Play, Received, ScriptedEngine, answering, completion
from stack import Running, llamacpp, running
from typer.testing import CliRunner

from compliance.journal import read
from compliance.records import Decision, Refused
from policies.semantic import Placed
from proxy.cli import app
from proxy.placing import TRUST

PATH = "/v1/chat/completions"
DECISIONS: list[dict[str, Any]] = [
    {"name": "code", "when": {"any": [{"route": "coding"}, {"structure": ["code", "diff"]}]},
     "use": ["large/smoke-test", "sky/gpt-4o"], "otherwise": "refuse"},
    {"name": "cards", "models": ["auto", "gpt-4o"], "when": {"route": "cards"}, "use": ["small/smoke-test"]},
    {"name": "long", "when": {"tokens": {"over": 500}}, "use": ["sky/gpt-4o"]},
]  # fmt: skip
SSN = "123-45-6789"


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    directory = tmp_path_factory.mktemp("engines")
    with llamacpp(directory) as small, llamacpp(directory) as large:
        yield small, large


def chat(text: str, model: str = "auto", **more: Any) -> dict[str, Any]:
    return {"model": model, "max_tokens": 4, "messages": [{"role": "user", "content": text}], **more}


def config(small: str, large: str, cloud: str, **more: Any) -> dict[str, Any]:
    return {
        "engines": {
            "small": {"kind": "llama.cpp", "replicas": [small], "models": {"smoke-test": {}}},
            "large": {"kind": "llama.cpp", "replicas": [large], "models": {"smoke-test": {}}},
            "sky": {"kind": "openai", "replicas": [cloud], "boundary": "cloud", "models": {"gpt-4o": {}}},
        },
        "models": {"auto": {"route": True}, "gpt-4o": ["sky/gpt-4o", "large/smoke-test"]},
        "routes": ROUTES,
        "decisions": DECISIONS,
        **more,
    }


def recorded(directory: Path) -> dict[str, Any]:
    """Decisions and refusals by request."""
    found: dict[str, Any] = {}
    for slot in (directory / "audit").glob("slot-*"):
        found.update({r.request: r for r in read(slot) if isinstance(r, (Decision, Refused))})
    return found


async def test_routes_and_structure_decide_between_real_engines(engines: tuple[str, str], tmp_path: Path) -> None:
    cases = [
        (chat("please fix a bug in my module"), "large/smoke-test", "coding", "code"),
        (chat("I lost my card yesterday"), "small/smoke-test", "cards", "cards"),
        (chat("what about this?\n```\nx = 1\n```"), "large/smoke-test", None, "code"),
        (chat("zebra umbrella weather " * 100), "sky/gpt-4o", "none", "long"),
        (chat("I lost my card yesterday", "gpt-4o"), "small/smoke-test", "cards", "cards"),  # a name always used
        (chat("what is a zebra", "gpt-4o"), "large/smoke-test", "none", ""),  # its own candidates, local first
        (chat("anything at all", "coding"), "large/smoke-test", "coding", "code"),  # a route's name
        (chat("anything at all", "auto:best"), "sky/gpt-4o", None, ""),
        (chat("anything at all", "auto:cheap"), "large/smoke-test", None, ""),
    ]
    async with ScriptedEngine(answering(completion())) as cloud:
        async with running(config(*engines, cloud.url), tmp_path) as spillway:
            answers = [await ask(spillway.port, PATH, body) for body, *_ in cases]
    records = recorded(tmp_path)
    for (_, target, route, decision), answer in zip(cases, answers, strict=True):
        assert (answer.status, answer.headers["x-spillway-target"]) == (200, target)
        assert answer.headers.get("x-spillway-route") == route
        record = records[answer.headers["x-spillway-request-id"]]
        assert (record.decision, record.route) == (decision, route or "")
    first = records[answers[0].headers["x-spillway-request-id"]]
    assert first.routing == "decision: code"
    assert [row.partition("=")[0] for row in first.signals] == ["structure.code", "structure.diff", "route", "about"]
    assert first.signals[-1].startswith("about=coding ")
    assert "route=coding" in first.signals


@pytest.mark.parametrize("model", ["auto", "gpt-4o", "auto:best", "coding"])
async def test_law_01_what_must_stay_stays_whatever_the_classifier_and_the_decisions_say(
    model: str, engines: tuple[str, str], tmp_path: Path
) -> None:
    """Every decision sends it to the cloud, and the classifier is sure: it is served at home, or refused."""
    decisions = [
        {"name": "phi", "models": ["auto", "gpt-4o"], "when": {"found": "ssn"}, "use": ["sky/gpt-4o"], "priority": 1},
        {"name": "all", "models": ["auto", "gpt-4o"], "use": ["sky/gpt-4o"], "otherwise": "others"},
    ]
    texts = [
        f"fix this code for the patient with ssn {SSN}",
        f"I lost my card, my ssn is {SSN}",
        f"```{SSN} is the ssn```",
    ]
    async with ScriptedEngine(answering(completion())) as cloud:
        whole = config(
            *engines, cloud.url, decisions=decisions, routing={"default": ["sky/gpt-4o", "large/smoke-test"]}
        )
        async with running(whole, tmp_path) as spillway:
            for text in texts:
                answer = await ask(spillway.port, PATH, chat(text, model))
                assert (answer.status, answer.headers["x-spillway-target"]) == (200, "large/smoke-test")
            harmless = await ask(spillway.port, PATH, chat("hello", model))
            assert harmless.headers["x-spillway-target"] == "sky/gpt-4o"
        assert SSN.encode() not in cloud.raw
        assert len(cloud.requests) == 1
    assert SSN not in str(recorded(tmp_path))


async def test_refuse_refuses_where_only_the_cloud_is_named(engines: tuple[str, str], tmp_path: Path) -> None:
    decisions = [{"name": "all", "use": ["sky/gpt-4o"], "otherwise": "refuse"}]
    async with ScriptedEngine(answering(completion())) as cloud:
        models = {"auto": {"route": True, "cheap": ["small/smoke-test"]}}
        async with running(config(*engines, cloud.url, decisions=decisions, models=models), tmp_path) as spillway:
            answer = await ask(spillway.port, PATH, chat(f"my ssn is {SSN}"))
            assert (answer.status, answer.json()["error"]["code"]) == (403, "no_eligible_target")
        assert not cloud.requests
    record = recorded(tmp_path)[answer.headers["x-spillway-request-id"]]
    assert "small/smoke-test:decision:decision: all does not use it" in record.vetoes


async def _slow(received: Received, play: Play) -> None:
    await asyncio.sleep(0.15)
    await answering(completion())(received, play)


@pytest.mark.parametrize(("otherwise", "target"), [("others", "cpu/s"), ("wait", "gpu/l"), ("refuse", None)])
async def test_otherwise_says_what_happens_where_its_own_are_busy(
    otherwise: str, target: str | None, tmp_path: Path
) -> None:
    async with ScriptedEngine(_slow) as gpu, ScriptedEngine(answering(completion())) as cpu:
        whole = {
            "engines": {
                "gpu": {"kind": "vllm", "replicas": [gpu.url], "models": {"l": {}}, "concurrency": 1},
                "cpu": {"kind": "llama.cpp", "replicas": [cpu.url], "models": {"s": {}}},
            },
            "models": {"auto": ["cpu/s"]},
            "decisions": [{"name": "all", "models": ["auto"], "use": ["gpu/l"], "otherwise": otherwise}],
            "listen": {"workers": 1},
        }
        async with running(whole, tmp_path) as spillway:
            busy = asyncio.create_task(ask(spillway.port, PATH, chat("one")))
            while not gpu.requests:
                await asyncio.sleep(0.005)
            second = await ask(spillway.port, PATH, chat("two"))
            assert second.headers.get("x-spillway-target") == target
            assert (second.status == 200) is (target is not None)
            assert (await busy).status == 200


def _with(spillway: Running, place: Any) -> Any:
    """The worker's classifier, replaced by another."""
    placing = spillway.worker.pipeline._chooser._steering.place
    placing._place = place
    return placing


async def test_a_broken_classifier_falls_to_the_default_and_says_so(engines: tuple[str, str], tmp_path: Path) -> None:
    def broken(text: str) -> Placed:
        raise RuntimeError(text)

    async with ScriptedEngine(answering(completion())) as cloud:
        whole = config(*engines, cloud.url, routing={"default": ["large/smoke-test"]})
        async with running(whole, tmp_path) as spillway:
            _with(spillway, broken)
            answers = [await ask(spillway.port, PATH, chat("I lost my card")) for _ in range(3)]
            structure = await ask(spillway.port, PATH, chat("```x = 1```"))  # needs no classifier
    assert {(answer.status, answer.headers["x-spillway-target"]) for answer in answers} == {(200, "large/smoke-test")}
    records = recorded(tmp_path)
    for answer in answers:
        record = records[answer.headers["x-spillway-request-id"]]
        assert (record.routing, record.decision, record.route) == ("routing default", "", "")
        assert any([row.endswith("route failed (RuntimeError)") for row in record.signals])
        assert "lost" not in str(record)
    assert records[structure.headers["x-spillway-request-id"]].decision == "code"


async def test_a_slow_classifier_costs_its_deadline_at_most(engines: tuple[str, str], tmp_path: Path) -> None:
    """It never answers, and every request is answered all the same; when it is quick again, it is asked again."""
    free = threading.Event()

    async with ScriptedEngine(answering(completion())) as cloud:
        whole = config(*engines, cloud.url, routing={"default": ["large/smoke-test"], "deadline": "50ms"})
        async with running(whole, tmp_path) as spillway:
            placing = _with(spillway, None)
            sound = Placed("cards", 0.9, 0.8, (("cards", 0.9),), ("cards", 0, 0.9), 1.0)

            def slow(_: str) -> Placed:
                free.wait(30)
                return sound

            placing._place = slow
            placing._good = 0
            try:
                answers = await asyncio.gather(*[ask(spillway.port, PATH, chat("I lost my card")) for _ in range(4)])
            finally:
                free.set()
            later: list[Answer] = []
            while len(later) < 200 and not placing.trusted:
                later.append(await ask(spillway.port, PATH, chat("I lost my card")))
            assert placing.trusted
    assert {(answer.status, answer.headers["x-spillway-target"]) for answer in answers} == {(200, "large/smoke-test")}
    assert len([one for one in later if one.headers["x-spillway-target"] == "small/smoke-test"]) >= TRUST
    records = recorded(tmp_path)
    faults = {
        row for answer in answers for row in records[answer.headers["x-spillway-request-id"]].signals if "fault" in row
    }
    assert faults == {"fault=route took longer than 50 ms"}


@pytest.mark.parametrize(("otherwise", "target"), [("others", "large/smoke-test"), ("refuse", None)])
async def test_a_spent_budget_leaves_what_the_decision_leaves(
    otherwise: str, target: str | None, engines: tuple[str, str], tmp_path: Path
) -> None:
    decisions = [{"name": "all", "models": ["auto"], "use": ["sky/gpt-4o"], "otherwise": otherwise}]
    async with ScriptedEngine(answering(completion())) as cloud:
        whole = config(*engines, cloud.url, decisions=decisions, models={"auto": ["large/smoke-test"]})
        whole["budgets"] = [{"scope": "org", "window": "month", "limit": "$0", "at_limit": "local_only"}]
        async with running(whole, tmp_path) as spillway:
            answer = await ask(spillway.port, PATH, chat("hello"))
        assert answer.headers.get("x-spillway-target") == target
        assert (answer.status == 200) is (target is not None)
        assert not cloud.requests


async def test_a_calibrated_complexity_decides_and_an_uncalibrated_one_matches_nothing(
    engines: tuple[str, str], tmp_path: Path
) -> None:
    rows = made_rows(300)
    labels, scorer = tmp_path / "labels.jsonl", tmp_path / "scorer.npz"
    labels.write_text("".join([json.dumps(row) + "\n" for row in rows]))
    made = CliRunner().invoke(app, ["calibrate", "--strong-share", "30%", "--labels", str(labels), "-o", str(scorer)])
    assert made.exit_code == 0, made.output
    decisions = [
        {"name": "hard", "when": {"complexity": {"over": 50}}, "use": ["large/smoke-test"]},
        {"name": "easy", "when": {"complexity": {"at_most": 50}}, "use": ["small/smoke-test"]},
        {"name": "not known", "use": ["sky/gpt-4o"]},
    ]
    served: dict[str, set[str]] = {"calibrated": set(), "not": set()}
    async with ScriptedEngine(answering(completion())) as cloud:
        for name, complexity in (("calibrated", {"scorer": str(scorer)}), ("not", {})):
            whole = config(*engines, cloud.url, decisions=decisions, complexity=complexity)
            async with running(whole, tmp_path / name) as spillway:
                for row in rows[:12]:
                    answer = await ask(spillway.port, PATH, chat(row["text"]))
                    assert answer.status == 200
                    served[name].add(answer.headers["x-spillway-target"])
    assert served == {"calibrated": {"small/smoke-test", "large/smoke-test"}, "not": {"sky/gpt-4o"}}
    told = {row.partition("=")[2] for record in recorded(tmp_path / "not").values() for row in record.signals}
    assert told == {"unknown"}
    scales = {row for record in recorded(tmp_path / "calibrated").values() for row in record.signals if "scale" in row}
    (scale,) = scales
    assert scale.startswith("scale=300 prompts on 20") and scale.endswith("; large from 70")
