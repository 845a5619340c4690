"""What makes an answer doubtful, with a scorer and without one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from policies.doubt import Answer, wrong_sum
from policies.escalation import Call, Judgement, Said, Share, Wanted, fault_of, judge
from policies.gain import Scored

PLAIN = Wanted("what is it")
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
TOOLS = Wanted("add", tools={"add": SCHEMA, "free": None})


@pytest.mark.parametrize(
    ("said", "wanted", "fault"),
    [
        (Said("Paris.", "stop"), PLAIN, ""),
        (Said("", "stop"), PLAIN, "it is empty"),
        (Said(" \n", "stop"), PLAIN, "it is empty"),
        (Said("Paris is", "length"), PLAIN, "it is cut short"),
        (Said("Paris", "content_filter"), PLAIN, "it was filtered"),
        (Said("I'm sorry, I can't help.", "stop"), PLAIN, "it refuses"),
        (Said("No.", "stop", refused=True), PLAIN, "it refuses"),
        (Said("7 * 8 = 54", "stop"), PLAIN, "it reckons wrong"),
        (Said('{"n": 1}', "stop"), Wanted("", True, SCHEMA), ""),
        (Said('{"n": "1"}', "stop"), Wanted("", True, SCHEMA), "it breaks its schema"),
        (Said("n is 1", "stop"), Wanted("", True, None), "it breaks its schema"),
        (Said("n is 1", "stop"), Wanted("", False, None), ""),
        (Said("", "tool_calls", calls=[Call("add", '{"n": 1}')]), TOOLS, ""),
        (Said("", "tool_calls", calls=[Call("free", "{}"), Call("add", "{}")]), TOOLS,
         "it calls a tool with arguments that do not fit"),
        (Said("", "tool_calls", calls=[Call("free", "")]), TOOLS, ""),
        (Said("", "tool_calls", calls=[Call("free", '{"a": ')]), TOOLS, "it calls a tool with arguments that do not fit"),
        (Said("", "tool_calls", calls=[Call("other", "{}")]), TOOLS, "it calls a tool that was not offered"),
        (Said("", "tool_calls", calls=[Call("other", "{}")]), Wanted(""), ""),
    ],
)  # fmt: skip
def test_plain_faults(said: Said, wanted: Wanted, fault: str) -> None:
    assert fault_of(said, wanted) == fault
    assert judge([said], wanted, None, 0.8) == Judgement(bool(fault), fault)


def scorer(percentile: float | None, seen: list[tuple[str, Answer]] | None = None) -> Any:
    def score(prompt: str, answer: Answer) -> Scored:
        if seen is not None:
            seen.append((prompt, answer))
        return Scored(0.5, percentile, None, (("answer: equations", 0.3),))

    return score


def test_a_calibrated_scorer_doubts_from_its_threshold_on() -> None:
    good = Said("Paris.", "stop", logprob=-0.5)
    for percentile, doubtful in ((0.79, False), (0.8, True), (1.0, True)):
        found = judge([good], PLAIN, scorer(percentile), 0.8)
        assert (found.doubtful, found.calibrated, found.fault) == (doubtful, True, "")
    seen: list[tuple[str, Answer]] = []
    judge([good], PLAIN, scorer(0.1, seen), 0.8)
    assert seen == [("what is it", Answer("Paris.", "stop", None, -0.5))]


def test_an_uncalibrated_scorer_decides_nothing_and_a_plain_fault_counts_whatever_is_scored() -> None:
    found = judge([Said("Paris.", "stop")], PLAIN, scorer(None), 0.0)
    assert (found.doubtful, found.calibrated) == (False, False)
    found = judge([Said("", "stop")], PLAIN, scorer(0.0), 0.8)
    assert (found.doubtful, found.fault) == (True, "it is empty")


def test_a_scorer_that_fails_is_done_without() -> None:
    def broken(prompt: str, answer: Answer) -> Scored:
        raise KeyError(prompt)

    assert judge([Said("Paris.", "stop")], PLAIN, broken, 0.0) == Judgement(False, "", None, "KeyError")
    assert judge([Said("", "stop")], PLAIN, broken, 0.0).doubtful


def test_of_several_choices_the_best_one_counts_and_none_at_all_is_empty() -> None:
    assert not judge([Said("", "stop"), Said("Paris.", "stop")], PLAIN, None, 0.8).doubtful
    assert judge([Said("", "length"), Said("Par", "length")], PLAIN, None, 0.8) == Judgement(True, "it is empty")
    assert judge([], PLAIN, None, 0.8).doubtful


def test_a_scorer_reads_prose_not_calls() -> None:
    assert not judge([Said("", "tool_calls", calls=[Call("add", '{"n": 1}')])], TOOLS, scorer(1.0), 0.5).doubtful


@pytest.mark.parametrize("right", [
    "7 * 8 = 56", "1/3 = 0.33", "2/3 = 0.7", "3x - 5 = 10", "100 - 20% = 80", "on 2024-05-01 = 18", "10 + 68 / 2 = 10 + 34 = 44",
    "1,200 + 300 = 1,500", "a == b", "", "f(2) = 3", "0.1 + 0.2 = 0.3", "12 * $2 = $24", "x = 5 = 5",
])  # fmt: skip
def test_sums_that_are_right_or_none(right: str) -> None:
    assert not wrong_sum(right)


@pytest.mark.parametrize(
    "wrong", ["7 * 8 = 54", "so 4/2 = 3 boxes", "3 x 4 = 13", "12 * $2 = $26", "(3 + 4) * 2 = 11."]
)
def test_sums_that_are_wrong(wrong: str) -> None:
    assert wrong_sum(wrong)


def test_a_share_refills_as_answers_go_by() -> None:
    share = Share(0.5, 4)
    assert [share.take() for _ in range(8)] == [False, True] * 4
    assert share.taken == 0.5
    assert not Share(0.0, 10).take()
    always = Share(1.0, 3)
    assert all([always.take() for _ in range(9)])


ROWS = Path(os.environ.get("SPILLWAY_EVAL_DATA", "../shared/data")) / "routing" / "routellm_gsm8k.jsonl"


@pytest.mark.skipif(not ROWS.exists(), reason="the data of the evaluations are not here")
def test_plain_faults_alone_win_more_than_chance_on_other_peoples_answers() -> None:
    """What the guide says of GSM8K: 6.5 % go up, and win some 22 % of what always asking the strong model would."""
    rows = [json.loads(line) for line in ROWS.read_text().splitlines()]
    up = [judge([Said(row["weak_answer"], "stop")], Wanted(row["text"]), None, 0.8).doubtful for row in rows]
    weak, strong = (sum([row[name] for row in rows]) for name in ("weak", "strong"))
    reached = sum([row["strong"] if goes else row["weak"] for row, goes in zip(rows, up, strict=True)])
    assert 0.05 < sum(up) / len(rows) < 0.09
    assert (reached - weak) / (strong - weak) > 0.2
