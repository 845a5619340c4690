"""What an answer tells of itself."""

from __future__ import annotations

import pytest
from growth import linear

from policies import doubt
from policies.doubt import READ, Answer, doubts, evaluate, plain_fault


def value(
    name: str, said: str, prompt: str = "A box holds 16 eggs and 3 break. How many are left?", **known: object
) -> float:
    return float(doubts(prompt, Answer(said, **known))[doubt.NAMES.index(name)])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ("16 - 3 = <<16-3=13>>13 eggs.\n#### 13", False),
        ("16 - 3 = <<16-3=14>>14 eggs.\n#### 14", True),
        ("16 - 3 = 13, so 13 * 2 = $26.", False),
        ("16 - 3 = 13, so 13 x 2 = $27.", True),
        ("20% of 50 is 20% * 50 = 10", False),
        ("1,200 + 300 = 1,500 in all", False),
        ("10 / 3 = 3.33", False),
        ("it is 5 = 5", False),
        ("no sums at all", False),
    ],
)
def test_sums_are_checked(said: str, wrong: bool) -> None:
    assert (value("wrong equations", said) > 0) == wrong


def test_sums_nearly_right_are_told_apart() -> None:
    assert value("loose equations", "10 / 3 = 3.33") > 0 == value("loose equations", "9 / 3 = 3")


def test_the_last_marked_answer_counts() -> None:
    assert value("final answer", "so 13.\n#### 13") == 1
    assert value("final answer is a number", "The answer is: forty") == 0
    assert value("negative final number", "#### -4") == 1
    assert value("last result is the answer", "16 - 3 = <<16-3=13>>13\n#### 13") == 1
    assert value("last result is the answer", "16 - 3 = <<16-3=13>>13\n#### 12") == 0


def test_what_is_known_of_an_answer_is_a_feature() -> None:
    assert value("cut short", "16 - ", finish="length") == value("cut short", "16 - ", finish="max_tokens") == 1
    assert value("finished", "13", finish="end_turn") == 1
    assert value("schema broken", "{}", schema=False) == 1 and value("schema held", "{}", schema=True) == 1
    assert value("mean log-probability", "13", logprob=-0.5) == -0.5
    assert value("log-probability known", "13") == 0 == value("log-probability known", "13", logprob=float("nan"))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer("  \n"), "it is empty"),
        (Answer("16 - ", "length"), "it is cut short"),
        (Answer("...", "content_filter"), "it was filtered"),
        (Answer("{}", "stop", schema=False), "it breaks its schema"),
        (Answer("I'm sorry, but I cannot help with that.", "stop"), "it refuses"),
        (Answer("13 eggs are left.", "stop", schema=True), None),
        (Answer("13 eggs are left. " * 20 + "I'm sorry for the hen.", "stop"), None),
    ],
)
def test_plain_faults_need_no_scorer(answer: Answer, words: str | None) -> None:
    assert plain_fault(answer) == words


@pytest.mark.parametrize(
    "text", ["", "1 +", "(1", "1)", "1 2", "2 ** 3", "1/0", "abs(1)", "1" * 300, "(" * 60 + "1" + ")" * 60]
)
def test_what_is_no_sum_has_no_worth(text: str) -> None:
    assert evaluate(text) is None


def test_long_answers_are_read_at_both_ends() -> None:
    middle = "<<1+1=3>>" + "." * READ
    assert value("equations", "." * READ + "<<1+1=2>>") > 0
    assert value("wrong equations", "." * READ + middle + "." * READ) == 0


@pytest.mark.parametrize("unit", ["1+", "(", "1 ", "<<1+1=", "####", "9", "1 = ", "-", "I am "])
def test_a_longer_answer_costs_no_more_than_its_length(unit: str) -> None:
    linear(lambda text: [doubts(text, Answer(text)) for _ in range(20)], unit * 1000, unit * 4000)
