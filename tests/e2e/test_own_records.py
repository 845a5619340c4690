"""From one's own traffic to a scorer: requests, draws and feedback, then `spillway train`, then a worker that uses it."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from captures import everything
from client import ask
from outcomes_made import made_rows
from receiving import until
from scripted import Play, Received, ScriptedEngine, answering, completion, json_answer
from stack import Running, running
from typer.testing import CliRunner

from compliance.journal import read
from compliance.records import PolicyChanged, ScorerPromoted
from proxy.cli import app
from proxy.complexity_models import load_scorer
from proxy.routing_models import load_embedding

PATH, FEEDBACK = "/v1/chat/completions", "/spillway/v1/feedback"
REQUESTS = 240


def config(home: str, sky: str, directory: Path, **more: Any) -> dict[str, Any]:
    return {
        "engines": {
            "home": {"kind": "vllm", "replicas": [home], "models": {"m": {}}},
            "sky": {"kind": "openai", "replicas": [sky], "boundary": "cloud", "models": {"gpt-4o": {}}},
        },
        "models": {"auto": ["home/m", "sky/gpt-4o"]},
        "experiments": [
            {"name": "trial", "models": ["auto"], "metric": "resolved",
             "split": {"local": ["home/m"], "api": ["sky/gpt-4o"], "phases": ["50%"]}},
        ],
        "complexity": {"scorer": str(directory / "complexity.npz"), "remember": {"share": "100%"}},
        **more,
    }  # fmt: skip


async def say(spillway: Running, text: str, **headers: str) -> Any:
    return await ask(spillway.port, PATH, {"model": "auto", "messages": [{"role": "user", "content": text}]}, headers)


async def _traffic(directory: Path, *, noise: bool) -> Bench:
    """Requests whose answers the application measures: the API always does well, the local model on what is easy."""
    rows = made_rows(REQUESTS, seed=5)
    dice = random.Random(7)
    async with ScriptedEngine(answering(completion())) as home, ScriptedEngine(answering(completion())) as sky:
        whole = config(home.url, sky.url, directory)
        (directory / "audit").mkdir()
        (directory / "audit" / "key").write_bytes(base64.b64encode(b"k" * 32) + b"\n")
        (directory / "audit" / "key").chmod(0o600)
        async with running(whole, directory) as spillway:  # there is no scorer yet
            count = itertools.count()
            spillway.worker.pipeline._next_id = lambda: (
                f"r{next(count):08x}"
            )  # with the key, the same draws in each run
            given = []
            for row in rows:
                answer = await say(spillway, row["text"])
                assert answer.status == 200
                api = answer.headers["x-spillway-target"] == "sky/gpt-4o"
                value = dice.random() < (0.85 if api else 0.55) if noise else api or dice.random() > row["steps"] / 8
                given.append(
                    {"request_id": answer.headers["x-spillway-request-id"], "metric": "resolved", "value": value}
                )
            given.pop()  # of one nothing is heard
            for start in range(0, len(given), 100):
                told = await ask(spillway.port, FEEDBACK, given[start : start + 100])
                assert told.status < 300, told.body
    return Bench(directory, whole)


class Bench:
    def __init__(self, directory: Path, whole: dict[str, Any]) -> None:
        self.directory = directory
        self.whole = whole
        self.scorer = directory / "complexity.npz"

    def file(self, **changes: Any) -> str:
        path = self.directory / "spillway.yaml"
        places = {"state": {"dir": str(self.directory / "state")}, "audit": {"dir": str(self.directory / "audit")}}
        path.write_text(yaml.safe_dump({**places, **self.whole, **changes}))
        return str(path)

    def train(self, *arguments: str, **changes: Any) -> tuple[int, str, str]:
        run = CliRunner().invoke(app, ["train", "-c", self.file(**changes), *arguments])
        assert run.exception is None or isinstance(run.exception, SystemExit), run.exception
        return run.exit_code, run.stdout, run.stderr

    def promotions(self) -> list[ScorerPromoted]:
        slot = self.directory / "audit" / "cli"
        return [r for r in read(slot) if isinstance(r, ScorerPromoted)] if slot.exists() else []


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return asyncio.run(_traffic(tmp_path_factory.mktemp("taught"), noise=False))


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return asyncio.run(_traffic(tmp_path_factory.mktemp("noisy"), noise=True))


def test_noise_is_refused_in_words_and_nothing_is_written(noisy: Bench) -> None:
    code, out, err = noisy.train("--strong-share", "30%")
    assert code == 1
    assert "refused: " in err and "What it would take: " in err and "Nothing was written" in err
    assert f"{REQUESTS} drawn, 1 without a measure, {REQUESTS - 1} used" in out
    assert not noisy.scorer.exists() and noisy.promotions() == []
    code, out, _ = noisy.train("--strong-share", "30%", "--json")
    row = json.loads(out)
    assert code == 1 and row["promoted"] is False and row["written"] is None and row["needed"]
    assert row["low"] < max(0.5, row["routes"] or 0) < row["high"]


async def test_a_real_signal_is_promoted_recorded_and_used_by_the_next_worker(taught: Bench) -> None:
    code, out, err = taught.train("--strong-share", "40%", "--dry-run", "--json")
    assert code == 0 and json.loads(out)["written"] is None and not taught.scorer.exists(), err
    assert taught.promotions() == []
    code, out, err = taught.train("--strong-share", "40%")
    assert code == 0, err
    assert "<- chosen" in out and "word count" in out and "promoted: " in err
    scorer = load_scorer(taught.scorer, load_embedding()[1])
    assert (scorer.origin.labels, scorer.origin.calibrated) == (REQUESTS - 1, REQUESTS)
    (record,) = taught.promotions()
    assert (record.experiment, record.metric, record.option) == ("trial", "resolved", "scorer")
    assert record.low > 500_000 and record.hash_before == "" and record.bytes == taught.scorer.stat().st_size
    assert record.strong_share == 400_000 and record.labels == REQUESTS - 1
    again = json.loads(taught.train("--strong-share", "40%", "--json")[1])
    assert again["hash_before"] == record.hash and taught.promotions()[-1].hash == again["hash"]
    decisions = [
        {"name": "hard", "models": ["auto"], "when": {"complexity": {"at_least": 60}}, "use": ["sky/gpt-4o"]},
        {"name": "easy", "models": ["auto"], "when": {"complexity": {"under": 60}}, "use": ["home/m"]},
    ]
    rows = made_rows(60, seed=77)
    served: dict[str, list[int]] = {"sky/gpt-4o": [], "home/m": []}
    async with ScriptedEngine(answering(completion())) as home, ScriptedEngine(answering(completion())) as sky:
        whole = config(home.url, sky.url, taught.directory, decisions=decisions, experiments=[])
        async with running(whole, taught.directory) as spillway:
            for row in rows:
                answer = await say(spillway, row["text"])
                served[answer.headers["x-spillway-target"]].append(row["steps"])
    hard, easy = served["sky/gpt-4o"], served["home/m"]
    assert hard and easy and sum(hard) / len(hard) > sum(easy) / len(easy) + 2
    changed = [r for r in read(taught.directory / "audit" / "slot-0") if isinstance(r, PolicyChanged)]
    assert "complexity.files" in " ".join(changed[-1].changed)  # which scorer decides is part of the policy


def test_the_report_of_policies_tells_of_it(taught: Bench) -> None:
    if not taught.promotions():
        assert taught.train("--strong-share", "40%")[0] == 0
    run = CliRunner().invoke(app, ["audit", "report", "policy", "-c", taught.file()])
    assert run.exit_code == 0, run.output
    assert "Scorers that were promoted" in run.stdout and taught.promotions()[-1].hash in run.stdout
    verified = CliRunner().invoke(app, ["audit", "verify", "-c", taught.file()])
    assert verified.exit_code in (0, 3), verified.output  # 3: consistent, and nothing is pinned


def test_no_text_lies_anywhere_after_training(taught: Bench) -> None:
    raw = everything(taught.directory)
    assert b"apples" not in raw and b"How many are left" not in raw


async def test_a_replay_asks_the_scorer_about_what_is_remembered(taught: Bench) -> None:
    """Traffic of an experiment is not replayed; that which a decision sent is, by a complexity it was never asked for."""
    if not taught.scorer.exists():
        assert taught.train("--strong-share", "40%")[0] == 0
    rows = made_rows(30, seed=123)
    directory = taught.directory / "later"
    async with ScriptedEngine(answering(completion())) as home, ScriptedEngine(answering(completion())) as sky:
        whole = config(home.url, sky.url, taught.directory, experiments=[])
        async with running(whole, directory) as spillway:
            for row in rows:
                assert (await say(spillway, row["text"])).headers["x-spillway-target"] == "home/m"
    decisions = [{"name": "hard", "models": ["auto"], "when": {"complexity": {"at_least": 60}}, "use": ["sky/gpt-4o"]}]
    later = Bench(directory, {**whole, "decisions": decisions})
    run = CliRunner().invoke(app, ["policy", "replay", "-c", later.file(), "--json"])
    row = json.loads(run.stdout)
    assert row["replayed"] == 30, row
    from policies.gain import named_features

    embedding, version = load_embedding()
    scorer = load_scorer(taught.scorer, version)
    scores = [scorer.percentile(scorer.score(named_features(r["text"]), embedding.read(r["text"])[0])) for r in rows]
    assert row["after"]["cloud"] == len([score for score in scores if score is not None and score >= 0.6])
    del whole["complexity"]["remember"]
    features = directory / "state" / "features.db"
    features.unlink()
    run = CliRunner().invoke(app, ["policy", "replay", "-c", later.file(), "--json"])
    assert json.loads(run.stdout)["not_replayed"] == {"records do not hold its complexity": 30}


def test_wrong_use_and_what_is_missing_is_said_in_words(taught: Bench, tmp_path: Path) -> None:
    assert taught.train("--strong-share", "30%", "--quality", "95%")[0] == 2
    assert taught.train("--strong-share", "lots")[0] == 2
    code, _, err = taught.train("other", "--strong-share", "30%")
    assert code == 1 and "there are trial" in err
    code, _, err = taught.train("--metric", "liked", "--strong-share", "30%")
    assert code == 1 and "there is resolved" in err
    code, _, err = taught.train("--answers", "--strong-share", "30%", complexity={"answers": str(tmp_path / "a.npz")})
    assert code == 1 and "shadow" in err
    code, _, err = taught.train("--strong-share", "30%", complexity={"remember": {}})
    assert code == 2 and "name the file in the configuration" in err
    code, _, err = taught.train("--strong-share", "30%", "--since", "2099-01-01")
    assert code == 2
    code, _, err = taught.train("--strong-share", "30%", "--until", "2001-01-01")
    assert code == 1 and "the period holds no draw" in err
    code, _, err = taught.train(complexity={"scorer": str(tmp_path / "new.npz"), "remember": {}})
    assert code == 2 and "Say --strong-share" in err
    empty = Bench(tmp_path, taught.whole)
    code, _, err = empty.train("--strong-share", "30%")
    assert code == 1 and "there is no ledger" in err


@pytest.mark.parametrize(("shifted", "rings"), [(False, False), (True, True)])
async def test_the_alarm_rings_on_other_traffic_and_not_on_the_calibrations(
    shifted: bool, rings: bool, taught: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if not taught.scorer.exists():
        assert taught.train("--strong-share", "40%")[0] == 0
    rows = made_rows(220, seed=31)
    if shifted:  # nothing but what is hard
        rows = [row for seed in (31, 32, 33, 34) for row in made_rows(400, seed=seed) if row["steps"] >= 6][:220]
    decisions = [{"name": "hard", "models": ["auto"], "when": {"complexity": {"over": 60}}, "use": ["home/m"]}]
    async with (
        ScriptedEngine(answering(completion())) as home,
        ScriptedEngine(answering({}, 204)) as ear,
    ):
        whole = config(home.url, home.url, taught.directory, decisions=decisions, experiments=[])
        whole["alerts"] = {"url": ear.url, "secret": {"env": "HOOK"}}
        whole["complexity"] = {"scorer": str(taught.scorer)}
        async with running(whole, tmp_path, environ={"HOOK": "s"}) as spillway:
            watch = spillway.worker.watch
            assert watch is not None
            for row in rows:
                await say(spillway, row["text"])
            found = await asyncio.to_thread(watch.look)
            assert (found.alarm, found.seen) == (rings, 220)
            await asyncio.to_thread(watch.look)  # once a period, however often it is looked
            if rings:
                await until(lambda: ear.requests, 20)
            await until(lambda: spillway.worker.pipeline.drift, 20)
            health = await ask(spillway.port, "/health", None, method="GET")
            body = health.json()
            assert (health.status, body["status"]) == (200, "degraded" if rings else "ok")
            assert body["complexity"]["alarm"] is rings and body["complexity"]["seen"] == 220
    assert len(ear.requests) == int(rings)
    if rings:
        message = json.loads(ear.requests[0].body)
        assert message["type"] == "complexity.drift" and message["data"]["index"] >= 0.25
        assert ear.requests[0].headers["webhook-signature"].startswith("v1,")
        assert b"apples" not in ear.raw
    said = [r.getMessage() for r in caplog.records if "no longer like its calibration" in r.getMessage()]
    assert len(said) == int(rings)
    bench = Bench(tmp_path, whole)
    run = CliRunner().invoke(app, ["calibrate", "--status", "-c", bench.file()])
    assert run.exit_code == int(rings) and "slot-0" in run.stdout
    assert ("no longer like" in run.stdout) is rings


async def test_nothing_is_watched_where_no_decision_reads_complexity(taught: Bench, tmp_path: Path) -> None:
    async with ScriptedEngine(answering(completion())) as home:
        whole = config(home.url, home.url, taught.directory, experiments=[])
        whole["complexity"] = {"scorer": str(taught.scorer)} if taught.scorer.exists() else {}
        async with running(whole, tmp_path) as spillway:
            await say(spillway, "hello")
            assert spillway.worker.watch is None
            assert type(spillway.worker.pipeline._recorder).__name__ == "Recorder"  # nor is anything remembered
    assert not (tmp_path / "state" / "drift").exists() and not (tmp_path / "state" / "features.db").exists()


async def _unsure(received: Received, play: Play) -> None:
    """A small model: the more steps, the more often it is wrong, and where it is, it sounds so."""
    if received.method != "POST":  # a probe
        await play.send(json_answer({"data": []}))
        return
    text = received.json()["messages"][0]["content"]
    steps, number = text.count("If box"), int(text.split()[1].rstrip(":"))
    right = (number * 7919) % 8 >= steps
    said = "It is 42. #### 42" if right else "Perhaps it is about 17, I think. It might be 17"
    await play.send(json_answer(completion(said)))


async def test_a_shadow_teaches_both_scorers(tmp_path: Path) -> None:
    """Copies go to the small model at home; how far it agrees with the API is the label, and its answers are read as well."""
    rows = made_rows(160, seed=8)
    async with ScriptedEngine(_unsure) as home, ScriptedEngine(answering(completion("#### 42"))) as sky:
        whole = config(home.url, sky.url, tmp_path)
        whole["models"] = {"auto": ["sky/gpt-4o"]}
        whole["experiments"] = [
            {
                "name": "shade",
                "shadow": {"from": "sky", "to": "home/m", "share": "100%", "compare": "number", "running": 64},
            }
        ]
        serving = {**whole, "complexity": {"remember": {"share": "100%"}}}
        async with running(serving, tmp_path) as spillway:
            for row in rows:
                assert (await say(spillway, row["text"])).status == 200
                await until(lambda: spillway.worker.shadowing.running == 0, 20)
    bench = Bench(tmp_path, {**whole, "complexity": {**whole["complexity"], "answers": str(tmp_path / "answers.npz")}})
    code, out, err = bench.train("--strong-share", "30%", "--json")
    prompts = json.loads(out)
    assert code == 0 and (prompts["metric"], prompts["draws"]["used"]) == (None, 160), err
    code, out, err = bench.train("--strong-share", "30%", "--json", "--answers")
    answers = json.loads(out)
    assert code == 0 and answers["kind"] == "answer" and answers["draws"]["used"] == 160, err
    assert answers["apgr"] > prompts["apgr"]  # it reads what the prompt alone does not say
    version = load_embedding()[1]
    assert load_scorer(tmp_path / "answers.npz", version).origin.calibrated == 160
    assert [record.option for record in bench.promotions()] == ["scorer", "answers"]
    code, _, err = bench.train("--metric", "resolved", "--strong-share", "30%")
    assert code == 1 and "no --metric is asked" in err
    assert b"Perhaps" not in everything(tmp_path) and b"apples" not in everything(tmp_path)


def test_decisions_of_an_experiment_are_not_replayed(taught: Bench) -> None:
    run = CliRunner().invoke(app, ["policy", "replay", "-c", taught.file(), "--json"])
    row = json.loads(run.stdout)
    assert row["not_replayed"]["an experiment drew its target"] == REQUESTS
