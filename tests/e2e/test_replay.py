"""`spillway policy replay`: what another policy would have done with recorded traffic, exactly where records tell it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from client import ask
from scripted import ScriptedEngine, answering, completion
from stack import running
from typer.testing import CliRunner

from compliance.journal import read
from compliance.records import Decision, LogAccess
from proxy.cli import app

PATH = "/v1/chat/completions"
SSN = "123-45-6789"
KEYS = {
    name: {"hash": f"sha256:{hashlib.sha256(f'spw_{name}'.encode()).hexdigest()}", "tenant": tenant, "project": name}
    for name, tenant in (("ward", "clinic"), ("lab", "lab"))
}
DECISIONS: list[dict[str, Any]] = [
    {"name": "code", "when": {"structure": "code"}, "use": ["home/big"]},
    {"name": "long", "when": {"tokens": {"over": 100}}, "use": ["sky/gpt-4o"]},
    {"name": "rest", "use": ["home/small"]},
]
TEXTS = {
    "plain": "what is a zebra",
    "long": "zebra umbrella weather " * 40,
    "code": "what about this?\n```\nx = 1\n```",
    "ssn": f"my ssn is {SSN}, " + "please look at this for me " * 30,
    "name": "Dear Maria Gonzalez, " + "thank you for the flowers that came today " * 20,
    "health": "The patient was diagnosed with asthma. " * 20,
}


def config(home: str, sky: str, **more: Any) -> dict[str, Any]:
    return {
        "engines": {
            "home": {"kind": "vllm", "replicas": [home], "models": {"small": {}, "big": {}}},
            "sky": {
                "kind": "openai", "replicas": [sky], "boundary": "cloud", "models": {"gpt-4o": {}, "gpt-4o-mini": {}},
                "contract": {"baa": {"until": "2099-01-01"}},
            },
            "other": {"kind": "openai", "replicas": [sky], "boundary": "cloud", "models": {"x": {}}},
        },
        "models": {"auto": {"route": True}, "gpt-4o": ["home/big", "sky/gpt-4o"]},
        "decisions": DECISIONS,
        "keys": KEYS,
        "prices": {"other/x": {"input": "$1/M", "output": "$1/M"}},
        **more,
    }  # fmt: skip


class Bench:
    """A worker's traffic, and policies to replay over it."""

    def __init__(self, directory: Path, whole: dict[str, Any]) -> None:
        self.directory = directory
        self.whole = whole

    async def say(self, spillway: Any, text: str, model: str = "auto", key: str = "ward") -> Any:
        body = {"model": model, "messages": [{"role": "user", "content": text}]}
        return await ask(spillway.port, PATH, body, {"authorization": f"Bearer spw_{key}"})

    def file(self, name: str, whole: dict[str, Any]) -> str:
        path = self.directory / name
        places = {"state": {"dir": str(self.directory / "state")}, "audit": {"dir": str(self.directory / "audit")}}
        path.write_text(yaml.safe_dump({**places, **whole}))
        return str(path)

    def replay(self, *arguments: str, **changes: Any) -> tuple[int, dict[str, Any]]:
        file = self.file("new.yaml", {**self.whole, **changes})
        run = CliRunner().invoke(app, ["policy", "replay", "-c", file, "--json", *arguments])
        assert run.exception is None or isinstance(run.exception, SystemExit), run.exception
        return run.exit_code, json.loads(run.stdout) if run.stdout else {"error": run.stderr}

    def recorded(self) -> list[Decision]:
        return [r for slot in (self.directory / "audit").glob("slot-*") for r in read(slot) if isinstance(r, Decision)]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Six kinds of text for two keys, through two models; some of it to the cloud."""
    return asyncio.run(_served(tmp_path_factory.mktemp("replay")))


async def _served(tmp_path: Path) -> Bench:
    async with ScriptedEngine(answering(completion())) as home, ScriptedEngine(answering(completion())) as sky:
        whole = config(home.url, sky.url)
        made = Bench(tmp_path, whole)
        async with running(whole, tmp_path) as spillway:
            for text in TEXTS.values():
                for model in ("auto", "gpt-4o"):
                    for key in KEYS:
                        answer = await made.say(spillway, text, model, key)
                        assert answer.status == 200, answer.body
        return made


def test_the_policy_in_force_changes_nothing(bench: Bench) -> None:
    code, row = bench.replay()
    assert (code, row["requests"], row["replayed"], row["moved"]) == (0, 24, 24, 0)
    assert row["before"] == row["after"] and row["decisions"] == [] and row["targets"] == []
    assert row["egress"]["newly"] == row["egress"]["elsewhere"] == [] and row["egress"]["no_longer"] == {}
    boundaries = [record.boundary for record in bench.recorded()]
    assert row["before"]["cloud"] == boundaries.count("cloud") > 0
    looks = [r for r in read(bench.directory / "audit" / "cli") if isinstance(r, LogAccess)]
    assert ("policy replay", 24) in [(look.command, look.found) for look in looks]


ROUTES = [
    {
        "name": name,
        "description": f"questions about {name}",
        "utterances": [f"{word} {name} {n}" for n, word in enumerate(("my", "the", "a", "some", "any"))],
    }
    for name in ("gardens", "engines")
]
POLICIES: list[dict[str, Any]] = [
    {  # what is read of the text: routes, words, languages, expressions, and what is found
        "routes": ROUTES,
        "decisions": [
            {"name": "words", "when": {"keywords": ["flowers"], "not": {"health": True}}, "use": ["sky/gpt-4o"]},
            {"name": "routes", "when": {"route": "engines", "probability": {"over": 0.2}}, "use": ["home/big"]},
            {"name": "english", "when": {"language": "en", "messages": {"at_most": 1}}, "use": ["sky/gpt-4o", "home/small"]},
            {"name": "found", "when": {"expr": '"ssn" in found || "code" in structure'}, "use": ["home/big"], "otherwise": "refuse"},
        ],
        "routing": {"default": ["home/small"]},
    },
    {  # size, and rules that redact, keep and speak of contracts
        "models": {"auto": {"route": {"small": ["home/small"], "large": ["sky/gpt-4o", "home/big"], "long_at": 60}}, "gpt-4o": ["sky/gpt-4o"]},
        "decisions": [],
        "compliance": {"rules": [
            {"name": "hide", "when": {"found": ["ssn"], "target": {"contract": "baa"}}, "action": "redact"},
            {"name": "lab", "when": {"cel": 'tenant == "lab" && health'}, "action": "block"},
            {"name": "people", "when": {"found": ["name"]}, "action": "keep_local"},
        ]},
    },
    {  # a tenant whose every request is under health context, and embeddings of identifiers that are redacted
        "decisions": [
            {"name": "tagged", "when": {"health": True, "found": "pii"}, "use": ["sky/gpt-4o", "home/big"]},
            {"name": "phi", "when": {"found": "phi"}, "use": ["home/big"]},
            {"name": "who", "when": {"any": [{"tenant": "lab"}, {"structure": ["tools", "json"]}]}, "use": ["other/x"]},
        ],
        "compliance": {"tenants": {"clinic": {"context": "health"}}, "rules": [
            {"name": "hide", "when": {"found": ["pii"], "target": {"contract": "baa"}}, "action": "redact"},
        ]},
    },
]  # fmt: skip


@pytest.mark.parametrize("policy", POLICIES, ids=["read", "ruled", "tagged"])
async def test_law_12_whatever_the_policy_its_own_replay_changes_nothing(
    policy: dict[str, Any], tmp_path: Path
) -> None:
    texts = [*TEXTS.values(), "my engines", "Wie geht es den Blumen heute?", "my ssn is 123-45-6789", "x" * 3000]
    async with ScriptedEngine(answering(completion())) as home, ScriptedEngine(answering(completion())) as sky:
        whole = config(home.url, sky.url, **policy)
        made = Bench(tmp_path, whole)
        statuses = []
        async with running(whole, tmp_path) as spillway:
            for text in texts:
                for model in ("auto", "gpt-4o"):
                    for key in KEYS:
                        statuses.append((await made.say(spillway, text, model, key)).status)
    code, row = made.replay()
    assert (code, row["requests"], row["replayed"], row["moved"]) == (0, len(statuses), len(statuses), 0), row
    assert row["decisions"] == [] and row["before"] == row["after"]
    assert row["before"]["refused"] == len([status for status in statuses if status != 200])
    assert row["before"]["cloud"] and row["before"]["local"]
    assert not any(row["egress"].values())


def test_a_moved_threshold_shows_exactly_what_moves(bench: Bench) -> None:
    """Under `over: 3`, plain requests leave as well: two keys, one model; what is found stays where it was."""
    decisions = [DECISIONS[0], {**DECISIONS[1], "when": {"tokens": {"over": 3}}}, DECISIONS[2]]
    code, row = bench.replay(decisions=decisions)
    assert code == 0
    assert row["targets"] == [{"before": "home/small", "after": "sky/gpt-4o", "requests": 2}]
    assert {(one["before"], one["after"], one["requests"]) for one in row["decisions"]} == {
        ("decision: rest", "decision: long", 2)
    }
    assert row["after"]["cloud"] == row["before"]["cloud"] + 2
    models = {one["model"]: one for one in row["models"]}
    assert models["gpt-4o"]["before"] == models["gpt-4o"]["after"]
    plain = next(r for r in bench.recorded() if r.target == "sky/gpt-4o")
    assert plain.shape.split()[1:] == ["1", "0"]
    assert float(row["after"]["cost"]) > float(row["before"]["cost"])  # three tokens in, three out, at the list's price


def test_what_would_newly_leave_is_told_and_ends_in_1(bench: Bench) -> None:
    rules = [{"name": "numbers may leave", "when": {"found": ["ssn"]}, "action": "allow"}]
    code, row = bench.replay(compliance={"rules": rules})
    assert code == 1
    (leak,) = row["egress"]["newly"]
    assert (leak["type"], leak["requests"], leak["targets"]) == ("ssn", 2, {"sky/gpt-4o": 2})
    told = {record.request for record in bench.recorded() if "ssn" in " ".join(record.findings)}
    assert set(leak["examples"]) <= told
    run = CliRunner().invoke(
        app, ["policy", "replay", "-c", bench.file("n.yaml", {**bench.whole, "compliance": {"rules": rules}})]
    )
    assert run.exit_code == 1 and "NEWLY LEAVES" in run.stdout and "more sensitive data would leave" in run.stderr
    rules[0]["action"] = "redact"  # then the number stays, and the request goes
    code, row = bench.replay(compliance={"rules": rules})
    assert (code, row["egress"]["newly"], row["after"]["cloud"]) == (0, [], row["before"]["cloud"] + 2)


def test_a_stricter_policy_shows_refusals_and_what_stays(bench: Bench) -> None:
    rules = [{"name": "no cloud", "when": {"target": {"boundary": "cloud"}}, "action": "keep_local"}]
    decisions = [DECISIONS[0], {**DECISIONS[1], "otherwise": "refuse"}, DECISIONS[2]]
    code, row = bench.replay(compliance={"rules": rules}, decisions=decisions)
    assert code == 0 and row["after"]["cloud"] == 0
    long = [r for r in bench.recorded() if r.decision == "long"]
    assert row["after"]["refused"] == len(long)
    assert set(row["egress"]["no_longer"]) <= {"name", "health context", "date", "place"}
    code, row = bench.replay(compliance={"rules": [{"name": "block", "when": {"found": ["ssn"]}, "action": "block"}]})
    assert {(one["after"], one["requests"]) for one in row["targets"]} == {("refused: policy_blocked", 4)}


def test_an_expression_and_who_asks_are_replayed(bench: Bench) -> None:
    rules = [{"name": "clinic", "when": {"cel": 'tenant == "clinic" && target.boundary == "cloud"'}, "action": "block"}]
    _, row = bench.replay(compliance={"rules": rules})
    clinic = [r for r in bench.recorded() if r.boundary == "cloud" and r.tenant == "clinic"]
    assert clinic and row["after"]["cloud"] == row["before"]["cloud"] - len(clinic)
    decisions = [
        {"name": "lab", "when": {"expr": 'tenant == "lab" && tokens > 3 && messages == 1'}, "use": ["sky/gpt-4o"]},
        DECISIONS[2],
    ]
    _, row = bench.replay(decisions=decisions)
    rules_after = {one["after"] for one in row["decisions"]}
    assert rules_after == {"decision: lab", "decision: rest"} and row["replayed"] == 24


def test_what_records_do_not_hold_is_counted_and_never_guessed(bench: Bench) -> None:
    decisions = [
        {"name": "asked", "when": {"keywords": ["zebra"]}, "use": ["sky/gpt-4o"]},
        {"name": "german", "when": {"language": "de", "tokens": {"under": 3}}, "use": ["sky/gpt-4o"]},
        DECISIONS[2],
    ]
    code, row = bench.replay(decisions=decisions)
    assert code == 0 and row["not_replayed"] == {"records do not hold its keywords": 12}
    assert row["replayed"] == 12  # of the model without decisions
    code, row = bench.replay(decisions=decisions[1:])  # the tokens alone rule it out, whatever the language
    assert (row["not_replayed"], row["replayed"]) == ({}, 24)
    loose = {"rules": [{"name": "all", "when": {"found": ["ssn"]}, "action": "allow"}]}
    code, row = bench.replay(decisions=decisions, compliance=loose)
    assert code == 0 and {leak["type"] for leak in row["egress"]["may"]} >= {"ssn"}
    assert bench.replay("--strict", decisions=decisions, compliance=loose)[0] == 1


def test_names_that_were_not_looked_for_then_are_not_taken_to_be_absent(bench: Bench) -> None:
    rules = [{"name": "names stay", "when": {"found": ["name"]}, "action": "keep_local"}]
    _, row = bench.replay(compliance={"rules": rules})
    cloud = [r for r in bench.recorded() if r.boundary == "cloud" and not r.health]
    assert row["not_replayed"] == {"a rule speaks of names or places, which were not looked for in it then": len(cloud)}


def test_a_target_under_less_of_a_contract_is_told(bench: Bench) -> None:
    decisions = [DECISIONS[0], {**DECISIONS[1], "use": ["other/x"]}, DECISIONS[2]]
    code, row = bench.replay(decisions=decisions)
    left = {kind for r in bench.recorded() if r.boundary == "cloud" for kind in [f.split(":")[0] for f in r.findings]}
    left |= {"health context" for r in bench.recorded() if r.boundary == "cloud" and r.health}
    assert {leak["type"] for leak in row["egress"]["weaker_contract"]} == left
    assert code == (1 if left else 0) and row["egress"]["newly"] == []
    cloud = [r for r in bench.recorded() if r.boundary == "cloud"]
    assert float(row["after"]["cost"]) == pytest.approx(
        len(cloud) * 10e-6, rel=0.5
    )  # some ten tokens each, $1 a million


def test_wrong_use(bench: Bench, tmp_path: Path) -> None:
    assert bench.replay("--since", "yesterday")[0] == 2
    assert bench.replay("--since", "2099-01-01")[0] == 2
    code, row = bench.replay("--until", "2000-01-02")
    assert code == 0 and row["requests"] == 0
    run = CliRunner().invoke(app, ["policy", "replay", "-c", str(tmp_path / "none.yaml")])
    assert run.exit_code == 1 and "cannot be read" in run.stderr
    empty = tmp_path / "empty"
    empty.mkdir()
    file = tmp_path / "bare.yaml"
    file.write_text(yaml.safe_dump({"audit": {"dir": str(empty)}, "state": {"dir": str(empty)}}))
    run = CliRunner().invoke(app, ["policy", "replay", "-c", str(file)])
    assert run.exit_code == 1 and "there is no log" in run.stderr


async def test_engines_that_failed_fail_again_and_the_rest_is_the_next_choice(tmp_path: Path) -> None:
    """The local engine answers 500: the request went to the cloud after it, and would again."""
    async with ScriptedEngine(answering({"error": {}}, 500)) as home, ScriptedEngine(answering(completion())) as sky:
        whole = config(home.url, sky.url, models={"gpt-4o": ["home/big", "sky/gpt-4o"]}, decisions=[])
        made = Bench(tmp_path, whole)
        async with running(whole, tmp_path) as spillway:
            assert (await made.say(spillway, TEXTS["plain"], "gpt-4o")).headers["x-spillway-target"] == "sky/gpt-4o"
    code, row = made.replay()
    assert (code, row["same"], row["before"]["cloud"], row["after"]["cloud"]) == (0, 1, 1, 1)
    code, row = made.replay(models={"gpt-4o": ["home/big", "home/small"]})
    assert row["targets"][0]["after"] != "sky/gpt-4o"
    code, row = made.replay(models={"gpt-4o": ["other/x"]})
    assert row["targets"] == [{"before": "sky/gpt-4o", "after": "other/x", "requests": 1}]


NUMBERS_MAY_LEAVE = {"rules": [{"name": "numbers may leave", "when": {"found": ["ssn"]}, "action": "allow"}]}


async def test_law_01_what_is_asked_after_a_failed_first_choice_is_told_as_well(tmp_path: Path) -> None:
    """The first choice is the same, and failed: another policy's second one would get the text."""
    async with ScriptedEngine(answering({"error": {}}, 500)) as home, ScriptedEngine(answering(completion())) as sky:
        whole = config(home.url, sky.url, models={"gpt-4o": ["home/big"]}, decisions=[], compliance=NUMBERS_MAY_LEAVE)
        made = Bench(tmp_path, whole)
        async with running(whole, tmp_path) as spillway:
            assert (await made.say(spillway, TEXTS["ssn"], "gpt-4o")).status >= 500
    code, row = made.replay()
    assert (code, row["same"], row["moved"]) == (0, 1, 0)
    code, row = made.replay(models={"gpt-4o": ["home/big", "sky/gpt-4o"]})
    assert code == 1 and row["egress"]["newly"][0]["targets"] == {"sky/gpt-4o": 1}
    code, row = made.replay(models={"gpt-4o": ["home/big", "sky/gpt-4o"]}, limits={"attempts": 1})
    assert (code, row["after"]["cloud"]) == (0, 0)


async def test_law_01_another_second_choice_under_less_of_a_contract_is_told(tmp_path: Path) -> None:
    async with ScriptedEngine(answering({"error": {}}, 500)) as home, ScriptedEngine(answering(completion())) as sky:
        models = {"gpt-4o": ["home/big", "sky/gpt-4o"]}
        whole = config(home.url, sky.url, models=models, decisions=[], compliance=NUMBERS_MAY_LEAVE)
        made = Bench(tmp_path, whole)
        async with running(whole, tmp_path) as spillway:
            assert (await made.say(spillway, TEXTS["ssn"], "gpt-4o")).headers["x-spillway-target"] == "sky/gpt-4o"
    assert made.replay()[0] == 0
    code, row = made.replay(models={"gpt-4o": ["home/big", "other/x"]})
    assert code == 1 and [leak["type"] for leak in row["egress"]["weaker_contract"]] == ["ssn"]
    code, row = made.replay(models={"gpt-4o": ["home/big"]})
    assert (code, row["after"]["cloud"], row["egress"]["no_longer"]) == (0, 0, {"ssn": 1})


async def test_law_08_what_was_refused_unseen_is_not_told_to_stay_refused(tmp_path: Path) -> None:
    """A model that was not there then, and is now: nobody looked at what was asked of it."""
    async with ScriptedEngine(answering(completion())) as home, ScriptedEngine(answering(completion())) as sky:
        whole = config(home.url, sky.url, models={"gpt-4o": ["home/big"]}, decisions=[])
        made = Bench(tmp_path, whole)
        async with running(whole, tmp_path) as spillway:
            assert (await made.say(spillway, TEXTS["ssn"], "new")).status == 404
    code, row = made.replay("--strict", prices={})
    assert (code, row["same"], row["not_replayed"]) == (0, 1, {})
    code, row = made.replay(models={"gpt-4o": ["home/big"], "new": ["sky/gpt-4o"]})
    assert (
        code == 0
        and row["replayed"] == 0
        and [leak["type"] for leak in row["egress"]["may"]] == ["what was not looked at"]
    )
    assert made.replay("--strict", models={"gpt-4o": ["home/big"], "new": ["sky/gpt-4o"]})[0] == 1


async def test_law_08_what_was_not_scanned_may_leave_where_a_cloud_comes_in(tmp_path: Path) -> None:
    async with ScriptedEngine(answering(completion())) as home, ScriptedEngine(answering(completion())) as sky:
        needed = {"scan": "needed"}
        whole = config(home.url, sky.url, models={"gpt-4o": ["home/big"]}, decisions=[], compliance=needed)
        made = Bench(tmp_path, whole)
        async with running(whole, tmp_path) as spillway:
            assert (await made.say(spillway, TEXTS["ssn"], "gpt-4o")).status == 200
        assert made.recorded()[0].rule.startswith("not scanned")
    assert made.replay("--strict")[0] == 0
    code, row = made.replay("--strict", models={"gpt-4o": ["sky/gpt-4o"]})
    assert code == 1 and [leak["type"] for leak in row["egress"]["may"]] == ["what was not looked at"]


def test_law_01_an_experiment_that_comes_in_may_let_more_leave(bench: Bench) -> None:
    """Draws are not replayed, so nobody can say that what an arm outside may get stays where it was."""
    split = {"local": ["home/small"], "api": ["sky/gpt-4o"], "phases": ["50%"]}
    experiments = [{"name": "try", "models": ["auto"], "metric": "m", "split": split}]
    code, row = bench.replay("--strict", compliance=NUMBERS_MAY_LEAVE)
    newly = {leak["type"] for leak in row["egress"]["newly"]}
    decisions = [{"name": "rest", "use": ["home/small"]}]
    assert bench.replay("--strict", compliance=NUMBERS_MAY_LEAVE, decisions=decisions)[0] == 0
    more = {"compliance": NUMBERS_MAY_LEAVE, "decisions": decisions, "experiments": experiments}
    code, row = bench.replay("--strict", **more)
    assert code == 1 and "an experiment may draw it, and draws are not replayed" in row["not_replayed"]
    assert newly <= {leak["type"] for leak in row["egress"]["may"]}
