"""The parity report: what it says in each case, in words, numbers and as a page; and that the look is recorded."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from experiments_made import shadow_records, split_records, written
from typer.testing import CliRunner

from compliance.journal import read, slots
from compliance.records import LogAccess
from proxy.cli import app

ENGINES: dict[str, Any] = {
    "gpu": {
        "kind": "vllm", "replicas": ["http://127.0.0.1:1"], "models": {"l": {}, "j": {}},
        "cost": {"purchase": "$60000", "watts": {"idle": 200, "load": 1400}, "kwh": "$0.12"},
    },
    "sky": {"kind": "openai", "replicas": ["http://127.0.0.1:2"], "boundary": "cloud", "models": {"gpt-4o": {}}},
}  # fmt: skip


def made(directory: Path, records: list[Any], *, by: str = "request", cost: bool = True, **more: Any) -> Path:
    """A state directory with these records and its configuration file."""
    if records:
        written(directory, records)
    gpu = {name: value for name, value in ENGINES["gpu"].items() if cost or name != "cost"}
    split = {"by": by, "local": ["gpu/l"], "api": ["sky/gpt-4o"], "phases": ["50%", "80%"]}
    file = directory / "spillway.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "state": {"dir": str(directory / "state")}, "audit": {"dir": str(directory / "audit")},
                "engines": {**ENGINES, "gpu": gpu}, "models": {"gpt-4o": ["sky/gpt-4o"]},
                "experiments": [
                    {"name": "cutover", "models": ["gpt-4o"], "metric": "accepted", "split": split, **more},
                    {"name": "try-local", "shadow": {"to": "gpu/l", "share": "50%", "compare": "json"}},
                    {"name": "judged", "shadow": {"to": "gpu/l", "share": "50%", "compare": "judge", "judge": "gpu/j"}},
                    {"name": "blind", "shadow": {"to": "gpu/l", "share": "50%"}},
                ],
            }
        )
    )  # fmt: skip
    return file


def run(file: Path, *arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["parity", *arguments, "--config", str(file)])
    return result.exit_code, result.stdout, result.stderr


def looked(file: Path) -> list[LogAccess]:
    return [r for log in slots(file.parent / "audit") for r in read(log) if isinstance(r, LogAccess)]


def test_parity_that_is_shown(tmp_path: Path) -> None:
    file = made(tmp_path, split_records(4_000, 1, phases=(0.5, 0.8)))
    code, out, _ = run(file, "cutover", "--html", str(tmp_path / "page.html"))
    assert code == 0
    assert re.search(r"Parity is shown: on accepted, local reaches \d+\.\d% \(with 95% confidence between", out)
    body = [
        line
        for line in out.splitlines()
        if line.startswith(("requests compared", "accepted", "cost a request", "latency"))
    ]
    assert len(body) == 5
    assert len({len(line) for line in body}) == 1  # it lines up
    assert "phase 2" in out and "80.0% was declared" in out and "as it was declared" in out
    assert "requests: the rules or the key keep them local" in out
    page = (tmp_path / "page.html").read_text()
    assert (
        "<svg" in page
        and "parity is shown" in page
        and "<script" not in page
        and "http" not in page.replace("http-equiv", "")
    )
    (look,) = looked(file)
    assert (look.command, look.result, look.filters) == ("parity", "shown", ("experiment", "metric"))
    assert look.found == 4_000


def test_the_numbers_for_scripts(tmp_path: Path) -> None:
    records = split_records(3_000, 2)
    file = made(tmp_path, records)
    code, out, _ = run(file, "cutover", "--json")
    found = json.loads(out)
    assert found["shown"] is (code == 0)
    drawn = [r for r in records if r.kind == "assigned" and not r.excluded]
    values = {r.request: r.value == "true" for r in records if r.kind == "feedback"}
    for arm in ("local", "api"):
        own = [r for r in drawn if r.arm == arm]
        measured = [values[r.request] for r in own if r.request in values]
        assert (found[arm]["requests"], found[arm]["measured"]) == (len(own), len(measured))
        assert found[arm]["value"] == pytest.approx(sum(measured) / len(measured))
        costs = {r.request: r.cost for r in records if r.kind == "outcome"}
        assert found[arm]["billed"] == pytest.approx(sum(costs[r.request] for r in own) / len(own))
    assert found["local"]["own"] > 0 and found["api"]["own"] == 0
    assert found["ratio"]["low"] < found["ratio"]["estimate"] < found["ratio"]["high"]
    assert found["excluded"] == {"boundary": 3_000 - len(drawn)}
    again = json.loads(run(file, "cutover", "--json")[1])
    assert again["ratio"] == found["ratio"]  # seeded


@pytest.mark.parametrize(
    ("records", "by", "state", "words"),
    [
        (split_records(300, 3), "request", "open", r"Not shown yet: .* About [\d,]+ more measured requests would show it"),
        (split_records(2_000, 4, rates=(0.6, 0.93)), "request", "worse", "Local is worse than allowed"),
        (split_records(300, 5, rates=(0.84, 0.93)), "request", "below", "more of the same will not show it"),
        (split_records(600, 6, users=9), "user", "few", r"arm has \d users, and below 8 no interval is drawn"),
        (split_records(4_000, 8, broken=True), "request", "doubtful", "the arms are not as chance would have made them"),
        (split_records(4_000, 9, missing=(0.05, 0.4)), "request", "doubtful", r"Feedback is missing for \d"),
        (split_records(200, 10, missing=(1.0, 1.0)), "request", "nothing", "no feedback on 'accepted'"),
        (split_records(200, 11, phases=(1.0,)), "request", "nothing", "no request was drawn into the API arm"),
        (split_records(3_000, 12, users=150, rates=(0.9, 0.9)), "user", "shown", "Parity is shown"),
    ],
)  # fmt: skip
def test_what_it_says_otherwise(records: list[Any], by: str, state: str, words: str, tmp_path: Path) -> None:
    file = made(tmp_path, records, by=by)
    code, out, _ = run(file, "cutover")
    assert re.search(words, " ".join(out.split())), out
    assert code == (0 if state == "shown" else 1)
    assert json.loads(run(file, "cutover", "--json")[1])["state"] == state
    assert run(file, "cutover", "--html", str(tmp_path / "page.html"))[0] == code


def test_nothing_was_drawn_yet_and_no_ledger_yet(tmp_path: Path) -> None:
    file = made(tmp_path, shadow_records(20, 1))
    code, out, _ = run(file, "cutover")
    assert code == 1 and "took no request in this period" in out
    bare = made(tmp_path / "bare" if (tmp_path / "bare").mkdir() is None else tmp_path, [])
    code, _, err = run(bare, "cutover")
    assert code == 1 and "no ledger" in err


def test_lower_is_better_and_a_margin_of_ones_own(tmp_path: Path) -> None:
    file = made(tmp_path, split_records(3_000, 13, rates=(0.5, 0.6)), better="lower")
    code, out, _ = run(file, "cutover", "--margin", "3%")
    assert code == 0 and "at most 103.0% is allowed, since lower is better" in " ".join(out.split())
    code, out, _ = run(file, "cutover", "--margin", "0.2", "--html", str(tmp_path / "page.html"))
    assert code == 0 and "local differs from the API by -0." in out


def test_a_shadow_is_judged_on_agreement(tmp_path: Path) -> None:
    file = made(tmp_path, shadow_records(1_200, 14))
    code, out, _ = run(file, "try-local", "--html", str(tmp_path / "page.html"))
    assert code == 0 and "local agrees with the API on 9" in out
    assert "copies: not sent, the rules or the key keep them local" in out
    found = json.loads(run(file, "try-local", "--json")[1])
    assert found["local"]["billed"] == 0 < found["api"]["billed"]
    assert found["local"]["requests"] == found["api"]["requests"] > 400
    assert found["left_out"].keys() == {"boundary", "busy"}


@pytest.mark.parametrize(("users", "said"), [(30, True), (400, False)])
def test_few_units_are_said_to_be_few(users: int, said: bool, tmp_path: Path) -> None:
    file = made(tmp_path, split_records(3_000, 12, users=users), by="user")
    found = json.loads(run(file, "cutover", "--json")[1])
    fewest = min(found["local"]["units"], found["api"]["units"])
    notes = [note for note in found["notes"] if f"An arm has only {fewest} users" in note]
    assert bool(notes) is said
    assert all(f"may still be {1 - 0.05 ** (1 / fewest):.0%} of all" in note for note in notes)


def test_copies_that_had_no_answer_put_it_in_doubt(tmp_path: Path) -> None:
    """Local fails on every fifth: what it answers agrees, and what it would have answered nobody knows."""
    records = shadow_records(1_200, 14, agree=0.99)
    for number, record in enumerate(r for r in records if r.kind == "shadowed" and r.copy):
        if number % 5 == 0:
            record.how, record.score, record.why = "", -1, "failed"
    code, out, _ = run(made(tmp_path, records), "try-local")
    assert code == 1 and "In doubt" in out and "too many copies were not answered" in " ".join(out.split())
    assert re.search(r"20\.\d% of the copies had no answer", out)


@pytest.mark.parametrize("change", [{"how": "exact"}, {"target": "gpu/other"}])
def test_copies_of_before_a_change_are_not_counted(change: dict[str, str], tmp_path: Path) -> None:
    records = shadow_records(1_200, 14, agree=0.99)
    copied = [r for r in records if r.kind == "shadowed" and r.copy]
    for record in copied[: len(copied) // 2]:
        record.score = 0
        for name, value in change.items():
            setattr(record, name, value)
    found = json.loads(run(made(tmp_path, records), "try-local", "--json")[1])
    assert found["state"] == "shown"
    assert found["left_out"]["changed"] == len(copied) // 2
    assert found["local"]["measured"] == len(copied) - len(copied) // 2


def test_a_phase_that_is_given_another_share_as_it_runs_is_compared_apart(tmp_path: Path) -> None:
    """A fifth local and easy questions first, four fifths and hard ones then, under one number: arms are alike all the time."""
    records = split_records(4_000, 21, phases=(0.2, 0.8), rates=(0.9, 0.9), missing=(0, 0))
    easy = {r.request for r in records if r.kind == "assigned" and r.phase == 1}
    values = {True: "1", False: "0.1"}
    for record in records:
        if record.kind == "feedback" and record.value == "true":
            record.value = values[record.request in easy]
        elif record.kind == "assigned":
            record.phase = 1
    found = json.loads(run(made(tmp_path, records), "cutover", "--json")[1])
    assert [(phase["number"], phase["share"]) for phase in found["phases"]] == [(1, 0.2), (1, 0.8)]
    assert found["split_chance"] > 0.01
    assert 0.9 < found["ratio"]["estimate"] < 1.1


def test_a_judges_preference_is_measured_from_even(tmp_path: Path) -> None:
    records = shadow_records(2_500, 20)
    for number, record in enumerate(r for r in records if r.kind == "shadowed" and r.copy):
        record.experiment, record.how, record.score = "judged", "judge", (0, 500, 500, 1000)[number % 4]
    file = made(tmp_path, records)
    code, out, _ = run(file, "judged", "--margin", "10%", "--html", str(tmp_path / "page.html"))
    assert code == 0
    assert "by its judge, local wins 50.0%" in out and "at least 45.0% was asked for" in out
    assert "Comparisons that local wins" in (tmp_path / "page.html").read_text()


def test_a_pool_without_a_rate_card_is_said_to_be_free(tmp_path: Path) -> None:
    file = made(tmp_path, split_records(400, 15), cost=False)
    assert "No rate card says what gpu costs" in " ".join(run(file, "cutover")[1].split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["cutovr"], "did you mean 'cutover'"),
        (["cutover", "--margin", "much"], "a margin is a share, or a number"),
        (["cutover", "--margin", "0"], "a margin is more than nothing"),
        (["cutover", "--margin", "nan"], "a margin is more than nothing"),
        (["cutover", "--margin", "0%"], "a margin is more than nothing and less than all"),
        (["cutover", "--since", "yesterday-ish"], "spillway:"),
        (["try-local", "--margin", "5"], "a margin of 5.0 asks nothing of try-local"),
        (["try-local", "--metric", "accepted"], "it is judged on how far answers agree"),
        (["blind"], "does not compare answers"),
    ],
)
def test_wrong_use_says_what_to_do(arguments: list[str], words: str, tmp_path: Path) -> None:
    file = made(tmp_path, split_records(50, 16))
    code, out, err = run(file, *arguments)
    assert (code, out) == (2, "") and words in err
    assert not looked(file)


def test_without_a_measure_it_tells_which_there_are(tmp_path: Path) -> None:
    file = made(tmp_path, split_records(200, 17), metric=None)
    code, _, err = run(file, "cutover")
    assert code == 2 and "its requests have accepted" in err
    assert run(file, "cutover", "--metric", "accepted")[0] in (0, 1)


def test_nothing_is_shown_where_the_look_cannot_be_recorded(tmp_path: Path) -> None:
    file = made(tmp_path, split_records(200, 18))
    (tmp_path / "audit" / "key").unlink()
    code, out, err = run(file, "cutover")
    assert (code, out) == (1, "") and "this look cannot be recorded" in err
    assert run(file, "cutover", "--unrecorded")[1]


def test_the_scorecard_has_its_line(tmp_path: Path) -> None:
    file = made(tmp_path, split_records(3_000, 19))
    result = CliRunner().invoke(app, ["scorecard", "--json", "--config", str(file)])
    (line,) = [figure for figure in json.loads(result.stdout)["figures"] if figure["name"] == "parity"]
    found = json.loads(run(file, "cutover", "--json")[1])
    assert line["value"] == pytest.approx(found["ratio"]["estimate"], abs=0.002)
    assert (line["goal"], line["how"].startswith("experiment cutover: ")) == (">= 95.0%", True)


def test_a_requests_story_tells_of_its_experiment(tmp_path: Path) -> None:
    records = [*split_records(30, 21), *[r for r in shadow_records(60, 22) if r.kind == "shadowed"]]
    file = made(tmp_path, sorted(records, key=lambda record: record.at))
    wanted = [r for r in records if r.kind == "assigned" and r.arm == "api" and not r.excluded]
    measured = {r.request for r in records if r.kind == "feedback"}
    request = next(r.request for r in wanted if r.request in measured)
    out = CliRunner().invoke(app, ["audit", "show", request, "--config", str(file)]).stdout
    assert "experiment cutover drew the API arm, of a chance of 50 %" in out
    assert "feedback by key k1: accepted = " in out
    copied = next(r for r in records if r.kind == "shadowed" and r.copy)
    out = CliRunner().invoke(app, ["audit", "show", copied.request, "--config", str(file)]).stdout
    assert f"experiment try-local drew it for a copy to gpu/l\n  copy        {copied.copy}\n  compared    " in out
