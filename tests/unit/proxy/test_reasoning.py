"""What `explain` gives as reasons: what was rejected, what weighed most, what a score was calibrated on, and which models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from outcomes_made import made_rows
from routes_made import CODING_AND_CARDS as ROUTES
from typer.testing import CliRunner

from proxy.cli import app
from proxy.config import load
from proxy.config_errors import ConfigInvalid

WHOLE: dict[str, Any] = {
    "engines": {
        "small": {"kind": "llama.cpp", "replicas": ["http://127.0.0.1:9"], "models": {"s": {}}},
        "large": {"kind": "vllm", "replicas": ["http://127.0.0.1:9"], "models": {"l": {}}},
    },
    "models": {"auto": {"route": True}},
    "routes": ROUTES,
    "decisions": [
        {"name": "long", "when": {"tokens": {"over": 5000}}, "use": ["large/l"]},
        {"name": "hard code", "when": {"route": "coding", "complexity": {"over": 99.9}}, "use": ["large/l"]},
        {"name": "cards", "when": {"route": "cards"}, "use": ["small/s"]},
        {"name": "never asked", "when": {"stream": True}, "use": ["small/s"]},
        {"name": "rest", "when": {"complexity": {"at_least": 0}}, "use": ["large/l"]},
    ],
}


def explain(directory: Path, text: str, *arguments: str, **more: Any) -> str:
    file = directory / "spillway.yaml"
    file.write_text(yaml.safe_dump({**WHOLE, **more, "state": {"dir": str(directory / "state")}}))
    body = {"model": "auto", "messages": [{"role": "user", "content": text}]}
    made = CliRunner().invoke(app, ["explain", "-c", str(file), *arguments], input=json.dumps(body))
    assert made.exit_code in (0, 1), made.output
    return made.stdout


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_what_was_rejected_and_what_weighed_most(tmp_path: Path) -> None:
    decided = json.loads(explain(tmp_path, "somebody stole my card", "--json"))["decided"]
    assert decided["matched"] == "cards"
    assert [one["decision"] for one in decided["rejected"]] == ["long", "hard code"]
    assert decided["rejected"][0]["does_not_hold"] == "tokens at least 5001"
    about = decided["about"]
    assert (about["stage"], about["second_stage"]) == ("first", None)
    assert len(about["contributions"]) == 5
    assert "card" in [one["of"] for one in about["contributions"][:3]]
    assert set(decided["classifiers"]) == {"embedding", "routes"}
    assert ("complexity" in decided["signals"]) is (decided["complexity"] is not None)
    assert not (tmp_path / "state").exists()  # a command leaves no state behind
    words = explain(tmp_path, "somebody stole my card")
    assert "  not     long: only for tokens at least 5001" in words
    assert "  by      the first stage" in words
    assert sum([line.startswith("  weighs ") for line in words.splitlines()]) == 5


def test_an_uncalibrated_gain_says_so(tmp_path: Path) -> None:
    decided = json.loads(explain(tmp_path, "please write a parser", "--json"))["decided"]
    assert decided["complexity"] == {"percentile": None, "calibrated": None}
    assert "gain    uncalibrated" in explain(tmp_path, "please write a parser")


def test_a_calibrated_gain_comes_with_its_date_its_size_and_its_reasons(tmp_path: Path) -> None:
    labels, scorer = tmp_path / "labels.jsonl", tmp_path / "scorer.npz"
    labels.write_text("".join([json.dumps(row) + "\n" for row in made_rows(300)]))
    made = CliRunner().invoke(app, ["calibrate", "--strong-share", "30%", "--labels", str(labels), "-o", str(scorer)])
    assert made.exit_code == 0, made.output
    complexity = {"scorer": str(scorer)}
    row = json.loads(explain(tmp_path, "please write a parser", "--json", complexity=complexity))
    decided, gain = row["decided"], row["decided"]["complexity"]
    assert decided["matched"] == "rest"
    assert (gain["calibrated"], gain["labels"], gain["strong_from"]) == (300, 300, 70.0)
    assert gain["calibrated_on"] and gain["strong"] is (gain["percentile"] >= 70)
    assert float(decided["signals"]["complexity"]) == pytest.approx(gain["percentile"], abs=0.06)
    assert len(gain["contributions"]) == 5
    words = explain(tmp_path, "please write a parser", complexity=complexity)
    assert f"calibrated on 300 prompts on {gain['calibrated_on']}, learnt from 300 labels" in words
    assert "the large model from 70" in words


def test_another_classifier_is_another_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those alone that a decision asks."""
    text = yaml.safe_dump(WHOLE)
    unasked = yaml.safe_dump({**WHOLE, "decisions": [WHOLE["decisions"][0]]})
    before, unasked_before = load(text, {}).policy_hash, load(unasked, {}).policy_hash
    assert json.loads(load(text, {}).policy_material)["classifiers"].keys() == {"embedding", "routes"}
    monkeypatch.setattr("proxy.routing_names.VERSION", "routes 0")
    assert load(text, {}).policy_hash != before
    assert load(unasked, {}).policy_hash == unasked_before


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ("5", "must be true, false, or a mapping"),
        ("{share: 0%}", "must be more than 0"),
        ("{deadline: 0ms}", "must be more than 0"),
        ("{shares: 20%}", "is not a setting"),
    ],
)
def test_a_second_stage_that_makes_no_sense_is_a_mistake(given: str, wrong: str) -> None:
    with pytest.raises(ConfigInvalid) as invalid:
        load(f"routing: {{second_stage: {given}}}", {}, secrets=False)
    (mistake,) = invalid.value.mistakes
    assert mistake.path.startswith("routing.second_stage") and mistake.wrong.startswith(wrong)


@pytest.mark.parametrize(
    ("given", "found"),
    [("false", None), ("true", (0.2, 0.025)), ("{share: 35%, deadline: 8ms}", (0.35, 0.008)), ("{}", (0.2, 0.025))],
)
def test_a_second_stage_is_asked_for_in_a_word_or_in_numbers(given: str, found: tuple[float, float] | None) -> None:
    second = load(f"routing: {{second_stage: {given}}}", {}, secrets=False).routing.second
    assert found == (None if second is None else (second.share, second.deadline))
