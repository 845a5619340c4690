"""`spillway calibrate` in this process: files, exit codes, and what people type wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from outcomes_made import made_rows
from typer.testing import CliRunner

from policies.doubt import Answer
from policies.gain import judge, named_features
from proxy.cli import app
from proxy.complexity_models import ScorerInvalid, load_complexity, load_scorer
from proxy.config import load
from proxy.config_errors import ConfigInvalid
from proxy.routing_models import load_embedding


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "labels.jsonl", made_rows(300))
    write(tmp_path / "prompts.jsonl", [{"text": row["text"]} for row in made_rows(500, seed=9)])
    return tmp_path


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join([json.dumps(row) + "\n" for row in rows]))


def run(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["calibrate", *arguments], input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def test_labels_and_prompts_make_a_scorer_whose_threshold_is_a_share(here: Path) -> None:
    code, out, err = run("--strong-share", "30%", "--labels", "labels.jsonl", "prompts.jsonl", "-o", "c.npz")
    assert code == 0, err
    assert "word count" in out and "<- chosen" in out and "written to c.npz" in err and "fewer than 1,000" in err
    embedding, version = load_embedding()
    scorer = load_scorer(here / "c.npz", version)
    assert (scorer.origin.kind, scorer.origin.labels, scorer.origin.calibrated) == ("prompt", 300, 500)
    texts = [row["text"] for row in made_rows(500, seed=9)]
    scored = [judge(scorer, named_features(text), embedding.read(text)[0]) for text in texts]
    assert sum([one.strong is True for one in scored]) / 500 == pytest.approx(0.3, abs=0.02)


def test_no_text_is_kept(here: Path) -> None:
    secret = [dict(row, text=f"Zyxomma {row['text']}") for row in made_rows(300)]
    write(here / "labels.jsonl", secret)
    assert run("--strong-share", "0.3", "--labels", "labels.jsonl", "-o", "c.npz")[0] == 0
    import numpy as np

    with np.load(here / "c.npz", allow_pickle=False) as kept:
        whole = b"".join([kept[name].tobytes() for name in kept.files])
    assert b"yxomma" not in whole and b"yxomma" not in (here / "c.npz").read_bytes()


def test_the_scorer_that_is_there_is_calibrated_anew(here: Path) -> None:
    (here / "spillway.yaml").write_text("complexity: {scorer: c.npz}\n")
    assert run("--quality", "95%", "labels.jsonl")[0] == 0
    _, version = load_embedding()
    before = load_scorer(here / "c.npz", version)
    assert before.origin.quality == 0.95
    stdin = (here / "prompts.jsonl").read_text()
    code, out, _ = run("--strong-share", "20%", "--json", stdin=stdin)
    found = json.loads(out)
    assert (code, found["share"], found["calibrated"], found["labels"], found["table"]) == (0, 0.2, 500, 300, [])
    after = load_scorer(here / "c.npz", version)
    assert (after.weights == before.weights).all()
    assert (after.origin.strong_share, after.origin.quality) == (0.2, None)


def test_quality_picks_the_least_share_that_keeps_it() -> None:
    code, out, _ = run("--quality", "0.95", "labels.jsonl", "-o", "c.npz", "--json")
    found = json.loads(out)
    chosen = next(row for row in found["table"] if row["share"] == found["share"])
    assert code == 0 and 0 < found["share"] < 1
    assert chosen["low"] <= chosen["quality"] <= chosen["high"] and chosen["quality"] >= 0.95
    assert found["promoted"] and found["low"] > 0.5 and found["words"] is not None


def test_what_chance_could_do_is_refused_and_nothing_is_written(here: Path) -> None:
    write(here / "noise.jsonl", made_rows(300, noise=True))
    code, out, err = run("--strong-share", "30%", "--labels", "noise.jsonl", "-o", "c.npz")
    assert code == 1 and "refused" in err and "random" in err and out == ""
    assert not (here / "c.npz").exists()
    code, out, _ = run("--strong-share", "30%", "--labels", "noise.jsonl", "-o", "c.npz", "--json")
    assert code == 1 and json.loads(out)["promoted"] is False and json.loads(out)["written"] is None


def test_what_the_route_says_alone_is_no_scorer(here: Path) -> None:
    rows = [dict(row, route=f"steps {row['steps']}") for row in made_rows(300)]
    write(here / "labels.jsonl", rows)
    code, _, err = run("--strong-share", "30%", "--labels", "labels.jsonl", "-o", "c.npz")
    assert code == 1 and "each route's mean gain" in err


def test_answers_are_read_where_they_are_given(here: Path) -> None:
    rows = [dict(row, weak_answer="2 + 2 = 4" if row["weak"] else "2 + 2 = 5") for row in made_rows(300)]
    write(here / "labels.jsonl", rows)
    (here / "spillway.yaml").write_text("complexity: {answers: a.npz}\n")
    code, out, err = run("--quality", "95%", "--answers", "labels.jsonl", "--json")
    assert code == 0, err
    assert json.loads(out)["kind"] == "answer" and json.loads(out)["apgr"] > 0.8
    assert run("--strong-share", "30%", "prompts.jsonl", "-o", "a.npz")[0] == 2  # it reads answers
    code, _, err = run("--strong-share", "30%", "--answers", "prompts.jsonl")
    assert code == 2 and "prompts.jsonl:1:" in err and "weak_answer" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "say one of"),
        (("--strong-share", "30%", "--quality", "95%"), "say one of"),
        (("--strong-share", "130%", "prompts.jsonl", "-o", "c"), "such as 30%"),
        (("--strong-share", "nan", "prompts.jsonl", "-o", "c"), "such as 30%"),
        (("--strong-share", "30%", "prompts.jsonl"), "complexity: {scorer"),
        (("--strong-share", "30%", "prompts.jsonl", "-o", "c"), "--labels LABELS learns"),
        (("--strong-share", "30%", "--labels", "none.jsonl", "-o", "c"), "cannot be read"),
        (("--quality", "95%", "prompts.jsonl", "-o", "c"), "prompts.jsonl:1: needs a number from 0 as 'strong'"),
        (("--quality", "95%", "-o", "c"), "--quality needs labels"),
        (("--quality", "95%", "broken.jsonl", "-o", "c"), "3 lines of broken.jsonl"),
        (("--quality", "95%", "few.jsonl", "-o", "c"), "too few to learn"),
        (("--strong-share", "30%", "--labels", "labels.jsonl", "few.jsonl", "-o", "c"), "too few to calibrate"),
        (("--strong-share", "30%", "--labels", "labels.jsonl", "-o", "prompts.jsonl"), "it is left as it is"),
    ],
)
def test_wrong_use_says_what_to_do(here: Path, arguments: tuple[str, ...], words: str) -> None:
    (here / "broken.jsonl").write_bytes(b'{"text": 7}\nno json\n\xff\xfe\n{"text": "fine", "strong": 1, "weak": 0}\n')
    write(here / "few.jsonl", made_rows(20))
    before = (here / "prompts.jsonl").read_bytes()
    code, out, err = run(*arguments)
    assert (code, out) == (2, "") and words in err
    assert not (here / "c").exists() and (here / "prompts.jsonl").read_bytes() == before


def test_a_file_that_is_no_scorer_is_named(here: Path) -> None:
    for data in (b"", b"PK\x03\x04 and then nothing", b"\x93NUMPY", b"[]" * 100):
        (here / "c.npz").write_bytes(data)
        with pytest.raises(ScorerInvalid, match=r"c\.npz: it is no scorer"):
            load_scorer(here / "c.npz", "e")
    code, _, err = run("--strong-share", "30%", "prompts.jsonl", "-o", "c.npz")
    assert code == 1 and "no scorer" in err


def test_a_scorer_that_is_not_there_is_a_mistake_of_the_configuration(here: Path) -> None:
    (here / "s.yaml").write_text("complexity: {scorer: none.npz, strong_share: 30%}\n")
    with pytest.raises(ConfigInvalid) as caught:
        load(here / "s.yaml", {})
    assert [(mistake.path, mistake.line) for mistake in caught.value.mistakes] == [("complexity.scorer", 1)]
    assert load(here / "s.yaml", {}, secrets=False).complexity.strong_share == 0.3


def test_what_the_configuration_names_is_loaded_for_use(here: Path) -> None:
    rows = [dict(row, weak_answer="2 + 2 = 4" if row["weak"] else "2 + 2 = 5") for row in made_rows(300)]
    write(here / "labels.jsonl", rows)
    (here / "spillway.yaml").write_text("complexity: {scorer: c.npz, answers: a.npz, strong_share: 10%}\n")
    assert run("--strong-share", "30%", "--labels", "labels.jsonl")[0] == 0
    assert run("--strong-share", "30%", "--answers", "--labels", "labels.jsonl")[0] == 0
    part = load(here / "spillway.yaml", {}).complexity
    prompts, answers = load_complexity(part, *load_embedding())
    assert prompts is not None and answers is not None
    assert (prompts.share, answers.share) == (0.1, 0.3)
    found = prompts.percentile(rows[0]["text"])
    assert found is not None and 0 <= found <= 100
    good, bad = (answers.judge(rows[0]["text"], Answer(f"2 + 2 = {worth}")) for worth in (4, 5))
    assert good.percentile is not None and bad.percentile is not None
    assert good.percentile < 0.5 < bad.percentile and good.strong is False
    assert any(name.startswith("answer: ") for name, _ in bad.contributions)
    with pytest.raises(ValueError):
        prompts.judge("x", Answer("y"))
    swapped = part.model_copy(update={"scorer": "a.npz", "answers": None})
    with pytest.raises(ScorerInvalid, match=r"complexity\.answers"):
        load_complexity(swapped, *load_embedding())


def test_other_traffic_than_was_calibrated_on_raises_the_alarm(here: Path) -> None:
    (here / "spillway.yaml").write_text("complexity: {scorer: c.npz}\n")
    assert run("--strong-share", "30%", "--labels", "labels.jsonl", "prompts.jsonl")[0] == 0
    part = load(here / "spillway.yaml", {}).complexity
    like, _ = load_complexity(part, *load_embedding())
    unlike, _ = load_complexity(part, *load_embedding())
    assert like is not None and unlike is not None and not like.drift().alarm
    rows = made_rows(600, seed=5)
    for row in rows:
        like.percentile(row["text"])
        unlike.percentile(rows[0]["text"] + row["text"] * 2)
    assert not like.drift().alarm and like.drift().seen == 600
    assert unlike.drift().alarm


def test_without_scorers_there_is_none() -> None:
    assert load_complexity(load("{}", {}).complexity, *load_embedding()) == (None, None)
