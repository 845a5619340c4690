"""`spillway route` and `spillway routes`: what people and scripts see."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from proxy.cli import app

CONFIG = """\
routes:
  - name: cards
    description: lost, stolen or blocked payment cards
    utterances: [I lost my card, my credit card was stolen, please block my debit card, someone took my card, unblock my card]
  - name: weather
    description: weather forecasts, rain and sun
    utterances: [will it rain tomorrow, do I need an umbrella, how hot will it get, is it going to snow, is a storm coming]
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "spillway.yaml"
    file.write_text(CONFIG)
    return str(file)


def run(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments), input=stdin)
    return result.exit_code, result.stdout, result.stderr


def test_rows_in_rows_out(config: str) -> None:
    rows = '{"id": 7, "text": "my card has been stolen"}\n{"id": "b", "text": "rain tomorrow?"}\n{"id": 3, "text": "zzzz"}\n'
    code, out, _ = run("route", "--config", config, stdin=rows)
    found = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [(row["id"], row["route"]) for row in found] == [(7, "cards"), ("b", "weather"), (3, None)]
    assert set(found[0]) == {"id", "route", "probability", "complexity", "percentile", "us"}
    assert found[0]["probability"] > 0.5 and found[0]["us"] > 0
    assert found[0]["complexity"] is None  # nothing is calibrated, and it says so


def test_a_text_answers_with_its_exit_code(config: str) -> None:
    assert run("route", "--config", config, stdin="I lost my card")[0] == 0
    assert run("route", "--config", config, stdin="prove Fermat's last theorem")[0] == 1


def test_a_broken_row_is_named_and_the_others_are_routed(config: str) -> None:
    code, out, err = run("route", "--config", config, stdin='{"text": "rain tomorrow?"}\n{"text": 5}\n')
    assert code == 2
    assert json.loads(out)["route"] == "weather"
    assert "standard input:2:" in err


def test_without_routes_it_says_how_to_declare_one(tmp_path: Path) -> None:
    empty = tmp_path / "empty.yaml"
    empty.write_text("")
    code, _, err = run("route", "--config", str(empty), stdin="x")
    assert code == 2 and "routes:" in err and "utterances" in err


def test_the_report_is_quiet_about_good_routes_and_names_doubts(config: str, tmp_path: Path) -> None:
    code, out, _ = run("routes", "report", "--config", config)
    assert code == 0 and "2 routes, 10 utterances" in out and "held out" in out
    doubtful = tmp_path / "doubtful.yaml"
    doubtful.write_text(
        CONFIG + "  - {name: theft, description: stolen things, utterances: [My credit card was STOLEN]}\n"
    )
    code, out, _ = run("routes", "report", "--config", str(doubtful))
    assert code == 1 and "cards and theft: My credit card was STOLEN" in out and "theft: 1" in out
    listed = json.loads(run("routes", "report", "--config", str(doubtful), "--json")[1])
    assert listed["thin"] == [{"route": "theft", "utterances": 1}]
    assert listed["repeated"] == [{"route": "cards", "also": "theft", "utterance": "My credit card was STOLEN"}]


def test_cases_of_one_s_own(config: str, tmp_path: Path) -> None:
    cases = tmp_path / "cases.jsonl"
    cases.write_text('{"text": "my card was taken", "route": "cards"}\n{"text": "qwerty", "route": null}\n')
    assert run("routes", "test", str(cases), "--config", config)[0] == 0
    cases.write_text('{"text": "my card was taken", "route": "weather"}\n')
    code, out, _ = run("routes", "test", str(cases), "--config", config)
    assert code == 1 and "weather was taken for cards: my card was taken" in out and "0 of 1" in out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nonsense", "is not JSON"),
        ('{"text": "x"}', "is not an object"),
        ('{"text": "x", "route": "wether"}', "there is no route 'wether'; there are cards, weather"),
        ("", "holds no cases"),
    ],
)
def test_broken_cases_are_named(config: str, tmp_path: Path, line: str, words: str) -> None:
    cases = tmp_path / "cases.jsonl"
    cases.write_text(line + "\n")
    code, _, err = run("routes", "test", str(cases), "--config", config)
    assert code == 2 and words in err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("routes: [{name: a, description: b, threshold: 0.5x}]", "percent"),
        ("routes: [{name: a, description: b, threshold: 3}]", "a probability"),
        ("routes: [{name: '', description: b}]", "name"),
        ("routes: [{name: a, description: ''}]", "description"),
    ],
)
def test_wrong_routes_are_mistakes_with_their_path(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(text)
    code, _, err = run("route", "--config", str(file), stdin="x")
    assert code == 1 and "routes[0]" in err and words in err
