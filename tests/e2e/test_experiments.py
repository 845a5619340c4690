"""Experiments over real sockets: copies off the client's path, splits in phases, and what must stay stays in both."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from client import Answer, ask
from scripted import Play, Received, ScriptedEngine, answering, chat_chunks, completion, streaming
from stack import Running, command, llamacpp, running, settings_from
from typer.testing import CliRunner

from compliance.journal import read, slots
from compliance.records import Assigned, Decision, Outcome, Shadowed
from proxy import experiment_checks
from proxy.cli import app
from proxy.explaining import Explainer
from proxy.projections.ledger import Ledger

PATH = "/v1/chat/completions"
SSN = "123-45-6789"
TOKEN = "spw_triage"
PRICE = {"sky/gpt-4o": {"input": "$2.50/M", "output": "$10/M"}}


def chat(text: str = "hello", **more: Any) -> dict[str, Any]:
    return {"model": "gpt-4o", "max_tokens": 4, "messages": [{"role": "user", "content": text}], **more}


def config(local: str, cloud: str, *experiments: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "engines": {
            "gpu": {"kind": "vllm", "replicas": [local], "models": {"l": {}}},
            "sky": {"kind": "openai", "replicas": [cloud], "boundary": "cloud", "models": {"gpt-4o": {}}},
        },
        "models": {"gpt-4o": ["sky/gpt-4o"], "small": ["gpu/l"]},
        "prices": PRICE,
        "experiments": list(experiments),
        "keys": {
            "triage": {
                "hash": "sha256:" + hashlib.sha256(TOKEN.encode()).hexdigest(),
                "team": "care",
                "project": "triage",
            }
        },
        **more,
    }


def shadow(**more: Any) -> dict[str, Any]:
    return {"name": "try-local", "shadow": {"to": "gpu/l", "share": "100%", "compare": "exact", **more}}


def split(**more: Any) -> dict[str, Any]:
    whole = {"by": "request", "local": ["gpu/l"], "api": ["sky/gpt-4o"], "phases": ["0%", "50%", "80%", "95%"], **more}
    return {"name": "cutover", "models": ["gpt-4o"], "split": whole}


async def post(port: int, body: dict[str, Any], **headers: str) -> Answer:
    return await ask(port, PATH, body, {"authorization": f"Bearer {TOKEN}", **headers})


async def quiet(spillway: Running) -> None:
    """Until no copy is under way and all records are on the disk."""
    until = time.monotonic() + 20
    shadowing, journal = spillway.worker.shadowing, spillway.worker.journal
    while time.monotonic() < until:
        if (shadowing is None or not shadowing.running) and not journal.unwritten:
            return
        await asyncio.sleep(0.005)
    raise AssertionError("copies are still under way")


def records(directory: Path, kind: type[Any]) -> list[Any]:
    found = [record for slot in slots(directory / "audit") for record in read(slot) if isinstance(record, kind)]
    return sorted(found, key=lambda record: record.at)


# --- shadow ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_a_copy_is_sent_compared_and_charged_to_the_experiment(stream: bool, tmp_path: Path) -> None:
    words = ["four ", "patients"]
    script = streaming(chat_chunks(words)) if stream else answering(completion("four  patients"))
    async with ScriptedEngine(answering(completion("four patients"))) as plain, ScriptedEngine(script) as cloud:
        local = plain
        if stream:
            local = await ScriptedEngine(streaming(chat_chunks(["four patients"]))).__aenter__()
        async with running(config(local.url, cloud.url, shadow()), tmp_path) as spillway:
            answer = await post(spillway.port, chat("how many?", stream=stream))
            assert answer.headers["x-spillway-target"] == "sky/gpt-4o"
            await quiet(spillway)
            await spillway.settled()
        assert [r.json()["messages"][0]["content"] for r in local.requests] == ["how many?"]
        if stream:
            await local.__aexit__()
    request = answer.headers["x-spillway-request-id"]
    (told,) = records(tmp_path, Shadowed)
    assert (told.request, told.copy, told.target, told.how, told.score, told.why) == (
        request, f"{request}-try-local", "gpu/l", "exact", 1000, "",
    )  # fmt: skip
    assert (told.propensity, told.experiment, told.project) == (1_000_000, "try-local", "triage")
    decided = {record.request: record for record in records(tmp_path, Decision)}
    copy = decided[told.copy]
    assert (copy.project, copy.key, copy.team, copy.surface) == (
        "experiment:try-local",
        "experiment:try-local",
        "",
        "shadow",
    )
    assert copy.routing == "experiment: try-local"
    assert {record.request for record in records(tmp_path, Outcome)} == {request, told.copy}
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"patients" not in kept
    assert b"how many" not in kept


async def _drawn(spillway: Running, count: int, body: dict[str, Any]) -> list[str]:
    """Ask until so many requests were drawn; the ids of all."""
    asked = []
    for _ in range(400 + 200 * count):  # at 5 % the chance that none is drawn of 600 is 4e-14
        asked.append((await post(spillway.port, body)).headers["x-spillway-request-id"])
        await quiet(spillway)
        if spillway.worker.journal.next_seq and len(asked) % 10 == 0:
            directory = spillway.worker.journal.directory
            if sum(isinstance(record, Shadowed) for record in read(directory)) >= count:
                break
    return asked


async def test_law_02_a_copy_that_leaves_is_recorded_before_it_does(tmp_path: Path) -> None:
    """The cloud looks into the log when the copy comes: its decision is there."""
    seen: list[list[str]] = []

    async def script(received: Received, play: Play) -> None:
        known = [r.request for r in records(tmp_path, Decision) if r.target == "sky/gpt-4o"]
        seen.append(known)
        await answering(completion())(received, play)

    experiment = {"name": "up", "models": ["small"], "shadow": {"to": "sky/gpt-4o", "share": "5%", "cap": "$1"}}
    async with ScriptedEngine(answering(completion())) as local, ScriptedEngine(script) as cloud:
        async with running(config(local.url, cloud.url, experiment), tmp_path) as spillway:
            await _drawn(spillway, 2, chat(model="small"))
    told = [record for record in records(tmp_path, Shadowed) if record.copy]
    assert len(told) == len(seen) >= 1
    for record, known in zip(told, seen, strict=True):
        assert record.copy in known
        assert record.propensity == 50_000


async def test_law_01_nothing_that_must_stay_is_copied_to_a_cloud(tmp_path: Path) -> None:
    experiment = {"name": "up", "models": ["small"], "shadow": {"to": "sky/gpt-4o", "share": "5%", "cap": "$1"}}
    async with ScriptedEngine(answering(completion())) as local, ScriptedEngine(answering(completion())) as cloud:
        more = {"compliance": {"scan": "needed"}}
        async with running(config(local.url, cloud.url, experiment, **more), tmp_path) as spillway:
            await _drawn(spillway, 3, chat(f"the ssn is {SSN}", model="small"))
        assert not cloud.requests
        assert SSN.encode() not in cloud.raw
    told = records(tmp_path, Shadowed)
    assert {(record.why, record.copy, record.score) for record in told} == {("boundary", "", -1)}
    assert len(told) >= 3


async def test_what_would_have_to_be_redacted_is_not_copied(tmp_path: Path) -> None:
    experiment = {"name": "up", "models": ["small"], "shadow": {"to": "sky/gpt-4o", "share": "5%", "cap": "$1"}}
    rules = [{"name": "out", "when": {"found": ["ssn"]}, "action": "redact"}]
    async with ScriptedEngine(answering(completion())) as local, ScriptedEngine(answering(completion())) as cloud:
        async with running(config(local.url, cloud.url, experiment, compliance={"rules": rules}), tmp_path) as spillway:
            await _drawn(spillway, 1, chat(f"the ssn is {SSN}", model="small"))
        assert not cloud.requests
    assert {record.why for record in records(tmp_path, Shadowed)} == {"redacted"}


async def test_the_cap_holds_and_the_application_is_not_charged(tmp_path: Path) -> None:
    """Money for some copies; the application's own budget is as if there were none."""
    experiment = {"name": "up", "models": ["small"], "shadow": {"to": "sky/gpt-4o", "share": "5%", "cap": "$1"}}
    budgets = [{"scope": "project/triage", "window": "month", "limit": "$0.000001"}]
    async with ScriptedEngine(answering(completion())) as local, ScriptedEngine(answering(completion())) as cloud:
        whole = config(local.url, cloud.url, experiment, budgets=budgets, listen={"workers": 1})
        whole["prices"] = {"sky/gpt-4o": {"input": "$2/M", "output": "$120000/M"}}  # a hold of $0.48, a copy of $0.24
        async with running(whole, tmp_path) as spillway:
            await _drawn(spillway, 6, chat(model="small"))
    told = records(tmp_path, Shadowed)
    assert {record.why for record in told} == {"", "budget"}
    spent = [record for record in records(tmp_path, Outcome) if record.project == "experiment:up"]
    assert 0 < sum(record.cost for record in spent) <= 10**12
    assert all(any("project/experiment:up" in scope for scope in record.scopes) for record in spent)
    assert not any("triage" in scope for record in spent for scope in record.scopes)


async def test_a_slow_target_delays_nobody_and_copies_are_bounded(tmp_path: Path) -> None:
    """The target never answers: every client has its answer, as many copies wait as may, the others are left out."""
    hold = asyncio.Event()

    async def stuck(received: Received, play: Play) -> None:
        await hold.wait()

    async with ScriptedEngine(stuck) as local, ScriptedEngine(answering(completion("sky says"))) as cloud:
        async with running(config(local.url, cloud.url, shadow(running=2)), tmp_path) as spillway:
            answers = [await post(spillway.port, chat()) for _ in range(6)]
            assert {answer.body for answer in answers} == {answers[0].body}
            assert {answer.status for answer in answers} == {200}
            assert spillway.worker.shadowing is not None
            assert spillway.worker.shadowing.running == 2
        hold.set()
    told = records(tmp_path, Shadowed)
    assert [record.why for record in told] == ["busy"] * 4
    ends = {record.request: record.ending for record in records(tmp_path, Outcome)}
    assert (
        sorted(ends.values()) == ["abandoned"] * 2 + ["completed"] * 6
    )  # those under way at the stop are settled, too


async def test_a_copy_takes_no_place_that_somebody_may_need(tmp_path: Path) -> None:
    async def slow(received: Received, play: Play) -> None:
        await asyncio.sleep(0.3)
        await answering(completion())(received, play)

    async with ScriptedEngine(slow) as local, ScriptedEngine(answering(completion())) as cloud:
        whole = config(local.url, cloud.url, shadow(), listen={"workers": 1})
        whole["engines"]["gpu"]["concurrency"] = 2
        async with running(whole, tmp_path) as spillway:
            client = asyncio.create_task(post(spillway.port, chat(model="small")))
            while not local.requests:
                await asyncio.sleep(0.005)
            await post(spillway.port, chat())
            await client
            await quiet(spillway)
    assert [record.why for record in records(tmp_path, Shadowed) if record.target == "gpu/l"] == ["busy"]


async def test_from_and_when_say_which_requests_are_copied(tmp_path: Path) -> None:
    experiment = {**shadow(**{"from": "sky"}), "when": {"stream": False, "application": "triage"}}
    async with (
        ScriptedEngine(answering(completion())) as local,
        ScriptedEngine(answering(completion("other"))) as cloud,
    ):
        async with running(config(local.url, cloud.url, experiment), tmp_path) as spillway:
            await post(spillway.port, chat(model="small"))  # answered by the target itself
            await post(spillway.port, chat())
            await quiet(spillway)
            cloud.script = streaming(chat_chunks(["x"]))
            await post(spillway.port, chat(stream=True))
            await quiet(spillway)
    (told,) = records(tmp_path, Shadowed)
    assert (told.score, told.why) == (0, "")


async def test_a_failed_copy_is_nobodys_failure(tmp_path: Path) -> None:
    async with ScriptedEngine(answering({"error": {"message": "no"}}, 500)) as local:
        async with ScriptedEngine(answering(completion())) as cloud:
            async with running(config(local.url, cloud.url, shadow()), tmp_path) as spillway:
                assert (await post(spillway.port, chat())).status == 200
                await quiet(spillway)
    (told,) = records(tmp_path, Shadowed)
    assert (told.why, told.score, bool(told.copy)) == ("failed", -1, True)


def _judge(likes: str) -> Any:
    """A judge that prefers the answer in which a word stands, wherever it is shown; without a word, the first."""

    async def script(received: Received, play: Play) -> None:
        shown = received.json()["messages"][-1]["content"]
        first, _, second = shown.partition("ANSWER 1")[2].partition("ANSWER 2")
        word = "same" if likes == "same" else "1" if not likes or likes in first else "2" if likes in second else "hm"
        await answering(completion(f"Answer: {word}."))(received, play)

    return script


@pytest.mark.parametrize(
    ("likes", "points", "why"), [("gpu", 1000, ""), ("sky", 0, ""), ("same", 500, ""), ("", 500, ""), ("moon", -1, "unreadable")]
)  # fmt: skip
async def test_a_local_judge_is_asked_in_both_orders(likes: str, points: int, why: str, tmp_path: Path) -> None:
    """A judge that always likes what it reads first says nothing."""
    async with (
        ScriptedEngine(answering(completion("gpu says"))) as local,
        ScriptedEngine(answering(completion("sky says"))) as cloud,
        ScriptedEngine(_judge(likes)) as judge,
    ):
        whole = config(local.url, cloud.url, shadow(compare="judge", judge="bench/j"))
        whole["engines"]["bench"] = {"kind": "llama.cpp", "replicas": [judge.url], "models": {"j": {}}}
        async with running(whole, tmp_path) as spillway:
            await post(spillway.port, chat("which is it?"))
            await quiet(spillway)
        assert len(judge.requests) == (2 if points >= 0 else 1)
        assert "which is it?" in judge.requests[0].json()["messages"][-1]["content"]
        assert judge.requests[0].json()["model"] == "j"
        assert len(cloud.requests) == 1
    (told,) = records(tmp_path, Shadowed)
    assert (told.score, told.why, told.how) == (points, why, "judge" if points >= 0 else "")
    asked = [record for record in records(tmp_path, Decision) if record.target == "bench/j"]
    assert {record.project for record in asked} == {"experiment:try-local"}
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"says" not in kept and b"which is it" not in kept


async def test_copies_to_a_real_engine(tmp_path: Path) -> None:
    """Streamed and whole, the copies are answered, metered and compared."""
    with llamacpp(tmp_path) as url:
        async with ScriptedEngine(answering(completion("7"))) as cloud:
            whole = config(url, cloud.url, shadow(compare="number"))
            whole["engines"]["gpu"] = {"kind": "llama.cpp", "replicas": [url], "models": {"l": {"id": "smoke-test"}}}
            async with running(whole, tmp_path / "spillway") as spillway:
                await post(spillway.port, chat())
                await quiet(spillway)
                cloud.script = streaming(chat_chunks(["7"]))
                await post(spillway.port, chat(stream=True))
                await quiet(spillway)
                await spillway.settled()
                await quiet(spillway)
    told = records(tmp_path / "spillway", Shadowed)
    assert [(record.why, bool(record.copy), record.score) for record in told] == [("", True, 0)] * 2
    copies = {record.copy for record in told}
    ends = [record for record in records(tmp_path / "spillway", Outcome) if record.request in copies]
    assert [(end.target, end.ending, end.quality, end.cost) for end in ends] == [("gpu/l", "completed", "exact", 0)] * 2
    assert all(0 < end.output <= 4 for end in ends)


# --- split -------------------------------------------------------------------------------------------------


async def test_requests_are_split_and_the_draw_is_written_down_first(tmp_path: Path) -> None:
    async with ScriptedEngine(answering(completion())) as local, ScriptedEngine(answering(completion())) as cloud:
        async with running(config(local.url, cloud.url, split(phase=2)), tmp_path) as spillway:
            answers = [await post(spillway.port, chat()) for _ in range(80)]
            other = await post(spillway.port, chat(model="small"))
        served = {answer.headers["x-spillway-request-id"]: answer.headers["x-spillway-target"] for answer in answers}
        assert len(local.requests) - 1 == list(served.values()).count("gpu/l")
    drawn = {record.request: record for record in records(tmp_path, Assigned)}
    assert drawn.keys() == served.keys()
    assert other.headers["x-spillway-request-id"] not in drawn
    arms = {"gpu/l": "local", "sky/gpt-4o": "api"}
    assert {request: arms[target] for request, target in served.items()} == {k: v.arm for k, v in drawn.items()}
    count = list(served.values()).count("gpu/l")
    assert 15 <= count <= 65  # one in a hundred million would lie outside
    for record in drawn.values():
        assert (record.phase, record.propensity, record.unit_kind, record.excluded) == (2, 500_000, "request", "")
    decided = {record.request: record for record in records(tmp_path, Decision)}
    for request, record in drawn.items():
        assert decided[request].seq > record.seq
        assert decided[request].routing == f"experiment: cutover, {record.arm}"


async def test_law_01_a_unit_of_the_api_arm_stays_where_its_prompt_must(tmp_path: Path) -> None:
    async with ScriptedEngine(answering(completion())) as local, ScriptedEngine(answering(completion())) as cloud:
        async with running(config(local.url, cloud.url, split(phase=2)), tmp_path) as spillway:
            for _ in range(30):
                answer = await post(spillway.port, chat(f"my ssn is {SSN}"))
                assert (answer.status, answer.headers["x-spillway-target"]) == (200, "gpu/l")
        assert SSN.encode() not in cloud.raw
        assert not cloud.requests
    drawn = records(tmp_path, Assigned)
    assert {record.excluded for record in drawn} == {"boundary"}  # of both arms alike
    assert {record.arm for record in drawn} == {"local", "api"}


@pytest.mark.parametrize(("use", "otherwise", "taken"), [
    (["gpu/l"], "refuse", False), (["gpu/l"], "wait", False), (["gpu/l"], "others", True), (["gpu/l", "sky/gpt-4o"], "refuse", True),
])  # fmt: skip
async def test_a_decision_that_lets_nobody_else_be_asked_stands_above_arms_and_copies(
    use: list[str], otherwise: str, taken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it would go to the API arm, and a copy to the API beside it."""
    monkeypatch.setattr(experiment_checks, "MOST_ABROAD", 1.0)
    home = {"name": "home", "models": ["gpt-4o"], "when": {"stream": False}, "use": use, "otherwise": otherwise}
    up = {"name": "up", "models": ["gpt-4o"], "shadow": {"to": "sky/gpt-4o", "share": "100%", "cap": "$1"}}
    async with ScriptedEngine(answering(completion())) as local, ScriptedEngine(answering(completion())) as cloud:
        whole = config(local.url, cloud.url, split(phase=1), up, decisions=[home])
        async with running(whole, tmp_path) as spillway:
            answer = await post(spillway.port, chat())
            await quiet(spillway)
        assert answer.headers["x-spillway-target"] == ("sky/gpt-4o" if taken else "gpu/l")
        assert bool(cloud.requests) is taken
    assert len(records(tmp_path, Assigned)) == taken
    assert [record.why for record in records(tmp_path, Shadowed)] == ([] if taken else ["decision"])
    explainer = Explainer(settings_from(whole, tmp_path), asyncio.get_running_loop())
    found = explainer.explain("openai.chat", json.dumps(chat()).encode())
    assert found["experiments"][0]["takes"] is taken
    assert found["ranked"][0] == answer.headers["x-spillway-target"]


async def test_what_only_one_arm_can_do_is_not_compared(tmp_path: Path) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    async with ScriptedEngine(answering(completion())) as local, ScriptedEngine(answering(completion())) as cloud:
        whole = config(local.url, cloud.url, split(phase=4), compliance={"opaque": "allow"})
        whole["engines"]["gpu"]["models"]["l"] = {"vision": False}
        async with running(whole, tmp_path) as spillway:
            body = chat()
            body["messages"][0]["content"] = [{"type": "text", "text": "what is this"}, image]
            for _ in range(8):
                assert (await post(spillway.port, body)).headers["x-spillway-target"] == "sky/gpt-4o"
    assert {record.excluded for record in records(tmp_path, Assigned)} == {"capability"}


async def test_an_arm_that_cannot_serve_is_passed_over(tmp_path: Path) -> None:
    """Availability comes first; the draw stays what it was, and the report goes by it."""
    async with ScriptedEngine(answering({"error": {"message": "no"}}, 500)) as local:
        async with ScriptedEngine(answering(completion())) as cloud:
            async with running(config(local.url, cloud.url, split(phase=4)), tmp_path) as spillway:
                answers = [await post(spillway.port, chat()) for _ in range(10)]
    assert {(a.status, a.headers["x-spillway-target"]) for a in answers} == {(200, "sky/gpt-4o")}
    assert "local" in {record.arm for record in records(tmp_path, Assigned)}


@pytest.mark.parametrize(("by", "kinds"), [("key", {"key"}), ("application", {"application"}), ("user", {"user", "request"}),
                                           ("session", {"session", "request"})])  # fmt: skip
async def test_a_unit_stays_together_in_every_worker_and_after_a_restart(
    by: str, kinds: set[str], tmp_path: Path
) -> None:
    async with ScriptedEngine(answering(completion())) as local, ScriptedEngine(answering(completion())) as cloud:
        whole = config(local.url, cloud.url, split(phase=2, by=by))

        async def several(ports: list[int]) -> None:
            for number in range(12):
                headers = {"x-spillway-session": f"s{number % 4}"} if number % 4 else {}
                more = {"user": f"u{number % 4}"} if number % 4 else {}
                await post(ports[number % len(ports)], chat(**more), **headers)

        async with running(whole, tmp_path) as one, running(whole, tmp_path, slot=1) as two:
            await several([one.port, two.port])
        async with running(whole, tmp_path) as again:
            await several([again.port])
    drawn = records(tmp_path, Assigned)
    assert {record.unit_kind for record in drawn} == kinds
    arms: dict[str, set[str]] = {}
    for record in drawn:
        arms.setdefault(record.unit, set()).add(record.arm)
    assert all(len(found) == 1 for found in arms.values())
    if by in ("user", "session"):
        assert len([unit for unit in arms if arms[unit]]) >= 3
    assert b"u1" not in b"".join(record.unit.encode() for record in drawn)


async def test_a_later_phase_keeps_local_what_was_local(tmp_path: Path) -> None:
    async with ScriptedEngine(answering(completion())) as local, ScriptedEngine(answering(completion())) as cloud:
        for phase in (1, 2, 3, 4):
            async with running(config(local.url, cloud.url, split(phase=phase, by="user")), tmp_path) as spillway:
                for number in range(24):
                    await post(spillway.port, chat(user=f"user-{number}"))
    by_phase: dict[int, set[str]] = {}
    for record in records(tmp_path, Assigned):
        units = by_phase.setdefault(record.phase, set())
        if record.arm == "local":
            units.add(record.unit)
    assert by_phase[1] == set()
    assert by_phase[1] <= by_phase[2] <= by_phase[3] <= by_phase[4]
    assert 0 < len(by_phase[2]) < len(by_phase[4])


async def test_phases_with_days_begin_on_their_days(tmp_path: Path) -> None:
    dated = split(phases=[{"share": "0%"}, {"from": "2020-01-01", "share": "100%"}])
    ahead = split(phases=[{"from": "2990-01-01", "share": "50%"}])
    async with ScriptedEngine(answering(completion())) as local, ScriptedEngine(answering(completion())) as cloud:
        async with running(config(local.url, cloud.url, dated), tmp_path) as spillway:
            assert (await post(spillway.port, chat())).headers["x-spillway-target"] == "gpu/l"
        async with running(config(local.url, cloud.url, ahead), tmp_path) as spillway:
            assert (await post(spillway.port, chat())).headers["x-spillway-target"] == "sky/gpt-4o"
    assert [record.phase for record in records(tmp_path, Assigned)] == [2]


async def test_two_processes_split_alike_and_a_killed_one_loses_no_draw(tmp_path: Path) -> None:
    async with ScriptedEngine(answering(completion())) as local, ScriptedEngine(answering(completion())) as cloud:
        with command(config(local.url, cloud.url, split(phase=2, by="user")), tmp_path) as spillway:
            served: dict[str, str] = {}
            for number in range(24):
                answer = await post(spillway.port, chat(user=f"u{number % 6}"))
                served[answer.headers["x-spillway-request-id"]] = answer.headers["x-spillway-target"]
            workers = spillway.workers()
            spillway.process.kill()
            for pid in workers:
                os.kill(pid, signal.SIGKILL)
            spillway.process.wait()
        spillway.log.unlink()  # so that the next one is ready when all of its workers are
        with command(config(local.url, cloud.url, split(phase=2, by="user")), tmp_path):
            pass
    left = [record.request for record in records(tmp_path, Decision) if record.boundary != "local"]
    drawn = {record.request: record for record in records(tmp_path, Assigned)}
    assert set(left) <= drawn.keys()  # what left has its draw, whatever a kill took of the rest
    arms: dict[str, set[str]] = {}
    for record in drawn.values():
        arms.setdefault(record.unit, set()).add(record.arm)
    assert all(len(found) == 1 for found in arms.values())
    ledger = Ledger(tmp_path / "state" / "ledger.db")
    rows = ledger.trials()["assigned"]
    ledger.close()
    assert {row[1] for row in rows} == drawn.keys()


# --- both, under rules that nobody thought about ----------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
async def test_law_01_whatever_the_rules_say_holds_for_copies_and_arms(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random rules over random prompts; every request for `small` is copied to the cloud, most for gpt-4o are split to it."""
    monkeypatch.setattr(experiment_checks, "MOST_ABROAD", 1.0)
    dice = random.Random(seed)
    actions = {kind: dice.choice(["allow", "keep_local", "block", "redact", ""]) for kind in ("ssn", "card", "email")}
    rules = [{"name": kind, "when": {"found": [kind]}, "action": action} for kind, action in actions.items() if action]
    dice.shuffle(rules)
    up = {
        "name": "up",
        "models": ["small"],
        "shadow": {"to": "sky/gpt-4o", "share": "100%", "cap": "$1000", "running": 64},
    }
    arms = split(phases=["20%"], by=dice.choice(["request", "user"]))
    bound: list[bytes] = []  # must never be seen outside
    free = 0
    async with ScriptedEngine(answering(completion())) as local, ScriptedEngine(answering(completion())) as cloud:
        whole = config(local.url, cloud.url, up, arms, compliance={"rules": rules, "scan": "needed"})
        async with running(whole, tmp_path) as spillway:
            for number in range(40):
                kinds = dice.sample(["ssn", "card", "email"], dice.randrange(3))
                planted = {kind: _planted(kind, seed * 100 + number) for kind in kinds}
                text = f"please write to them about {' and '.join(f'{kind} {value}' for kind, value in planted.items()) or 'it'}"
                wanted = {kind: actions[kind] or _DEFAULTS[kind] for kind in kinds}
                stays = any(action in ("keep_local", "block") for action in wanted.values())
                hidden = [kind for kind in kinds if stays or wanted[kind] == "redact"]
                bound += [planted[kind].encode() for kind in hidden]
                free += not stays
                await post(spillway.port, chat(text, model=dice.choice(["small", "gpt-4o"]), user=f"u{number % 7}"))
            await quiet(spillway)
        assert not [value for value in bound if value in cloud.raw]
        assert len(cloud.requests) > 0 or free == 0
    told = records(tmp_path, Shadowed)
    assert {record.request for record in told if record.copy} <= {r.request for r in records(tmp_path, Decision)}
    assert all(bool(record.copy) == (record.why == "") for record in told)


_DEFAULTS = {"ssn": "keep_local", "card": "keep_local", "email": "allow"}
"""What holds where no rule is about it: numbers that were issued to somebody stay."""


def _planted(kind: str, number: int) -> str:
    if kind == "ssn":
        return f"{100 + number % 500:03}-{10 + number % 80:02}-{1000 + number:04}"
    if kind == "email":
        return f"person{number}@example-clinic.org"
    body = f"411111{number:09}"
    total = sum(sum(divmod(int(digit) * (2 - place % 2), 10)) for place, digit in enumerate(body))
    return f"{body}{-total % 10}"


# --- the report over real traffic --------------------------------------------------------------------------


async def test_the_report_counts_what_went_through_the_sockets(tmp_path: Path) -> None:
    """Sixty requests through two workers, feedback by whichever worker, and a report that agrees with what clients saw."""
    arms: dict[str, list[str]] = {"gpu/l": [], "sky/gpt-4o": []}
    async with ScriptedEngine(answering(completion())) as local, ScriptedEngine(answering(completion())) as cloud:
        whole = {**split(phase=2), "metric": "accepted", "margin": "50%"}
        with command(config(local.url, cloud.url, whole), tmp_path) as spillway:
            for number in range(60):
                answer = await post(spillway.port, chat(f"my ssn is {SSN}" if number % 12 == 0 else "hello"))
                request = answer.headers["x-spillway-request-id"]
                if number % 12:
                    arms[answer.headers["x-spillway-target"]].append(request)
                value = {"request_id": request, "metric": "accepted", "value": number % 10 != 0}
                told = await ask(spillway.port, "/spillway/v1/feedback", value, {"authorization": f"Bearer {TOKEN}"})
                assert told.status == 200
        assert len(cloud.requests) == len(arms["sky/gpt-4o"])
        assert SSN.encode() not in cloud.raw
    result = CliRunner().invoke(app, ["parity", "cutover", "--json", "--config", str(tmp_path / "spillway.yaml")])
    assert result.exit_code in (0, 1), result.output
    found = json.loads(result.stdout)
    assert (found["local"]["requests"], found["api"]["requests"]) == (len(arms["gpu/l"]), len(arms["sky/gpt-4o"]))
    assert found["excluded"] == {"boundary": 5}
    assert found["local"]["measured"] + found["api"]["measured"] == 55
    assert found["api"]["billed"] > 0 == found["local"]["billed"]
    assert found["local"]["latency"]["p50"] > 0
    shown = CliRunner().invoke(
        app, ["audit", "show", arms["gpu/l"][0], "--config", str(tmp_path / "spillway.yaml"), "--unrecorded"]
    )
    assert "cutover" in shown.stdout and "feedback" in shown.stdout and "accepted" in shown.stdout
    verified = CliRunner().invoke(app, ["audit", "verify", "--config", str(tmp_path / "spillway.yaml")])
    assert verified.exit_code in (0, 3), verified.output
