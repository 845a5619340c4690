"""Signals: right, lazy, and failing in the open."""

from __future__ import annotations

from typing import Any

import pytest
from signalling import CODING, facts, signals

from policies.conditions import compiled, parse
from policies.languages import language
from policies.semantic import Placed
from policies.signals import (
    SAMPLE,
    Found,
    SignalFailed,
    Who,
    has_code,
    has_diff,
    has_json,
    has_maths,
    kinds_found,
    last_said,
    told,
    uses_tools,
)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"messages": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]}, "one"),
        (
            {
                "messages": [
                    {"role": "user", "content": "one"},
                    {"role": "user", "content": [{"type": "text", "text": "a"}]},
                ]
            },
            "a",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": "what is asked"},
                    {"role": "user", "content": [{"type": "tool_result", "content": "42"}]},
                ]
            },
            "what is asked",
        ),
        ({"messages": [{"role": "system", "content": "be brief"}]}, ""),
        ({"input": ["first", "second"]}, "first\nsecond"),
        ({"messages": "broken"}, ""),
        ({"messages": [None, {"role": "user", "content": {"text": 1}}]}, ""),
    ],
)
def test_what_the_user_said_last(body: dict[str, Any], said: str) -> None:
    assert last_said(body) == said


def test_no_more_than_the_sample_is_looked_at() -> None:
    asked: list[str] = []

    def place(text: str) -> Placed:
        asked.append(text)
        return CODING

    assert signals("x" * 5000, place=place).read("route") == "coding"
    assert asked == ["x" * SAMPLE]


@pytest.mark.parametrize(
    ("look", "yes", "no"),
    [
        (has_code, "fix ```x = 1```", "I like classes of wine"),
        (has_maths, r"evaluate \frac{1}{2} + x", "it costs 5 dollars on 2026-01-31"),
        (has_maths, "solve for x: 3x + 4 = 10", "call 555 now"),
        (has_maths, "what is 12 * 13 - 4", "the meeting is at 10, room 4"),
        (has_maths, "what is 3 + 4 + 5", "ssn 123-45-6789, call +1 555-0100 or 24/7"),
        (has_json, 'parse {"name": "x", "n": 1}', "he said {sic} it"),
        (has_diff, "review\n@@ -1,2 +1,3 @@\n-a\n+b", "a - b + c"),
        (has_diff, "diff --git a/x b/x", "what is the difference?"),
    ],
)
def test_structure(look: Any, yes: str, no: str) -> None:
    assert look(yes)
    assert not look(no)


def test_a_conversation_with_a_tool_call_in_it_uses_tools() -> None:
    plain = {"messages": [{"role": "user", "content": "hi"}]}
    called = {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]}
    anthropic = {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": "1"}]}]}
    assert not uses_tools(facts(), plain)
    assert uses_tools(facts(has_tools=True), plain)
    assert uses_tools(facts(), called)
    assert uses_tools(facts(), anthropic)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("What is the capital of France?", "en"),
        ("Wie kann ich bitte meine Karte sperren?", "de"),
        ("Comment puis-je annuler ma carte ?", "fr"),
        ("¿Cómo puedo cancelar mi tarjeta de crédito?", "es"),
        ("今日は天気がいいですね", "ja"),
        ("请帮我写一封信", "zh"),
        ("Как мне заблокировать карту?", "ru"),
        ("Як мені заблокувати картку?", "uk"),
        ("How do I say 谢谢 in a letter to my friend in Beijing?", "en"),
        ("ok", None),
        ("x = y + 1", None),
        ("", None),
    ],
)
def test_language_is_told_or_honestly_not(text: str, name: str | None) -> None:
    assert language(text) == name


def test_findings_are_types_and_the_words_for_many() -> None:
    assert kinds_found(Found()) == frozenset()
    assert kinds_found(Found(("ssn",))) == {"ssn", "pii"}
    assert kinds_found(Found(("ssn",), health=True)) == {"ssn", "pii", "phi"}
    assert kinds_found(Found(("opaque",), health=True)) == {"opaque"}  # nobody knows what is in it


class Counting:
    """A classifier that counts how often it is asked."""

    def __init__(self, answer: Any) -> None:
        self.asked = 0
        self.answer = answer

    def __call__(self, text: str) -> Any:
        self.asked += 1
        return self.answer


@pytest.mark.parametrize(
    ("when", "route", "complexity"),
    [
        ({"tokens": {"over": 10}}, 0, 0),
        ({"tokens": {"over": 1000}, "route": "coding", "complexity": {"over": 50}}, 0, 0),  # what is cheap says no
        ({"any": [{"route": "coding"}, {"stream": False}]}, 0, 0),  # what is cheap says yes
        ({"route": "coding", "probability": {"over": 0.5}, "not": {"route": "maths"}}, 1, 0),
        ({"complexity": {"over": 50}, "route": "coding"}, 1, 1),
    ],
)
def test_a_signal_that_nothing_asks_for_costs_nothing_and_any_other_is_had_once(
    when: dict[str, Any], route: int, complexity: int
) -> None:
    place, score = Counting(CODING), Counting(70.0)
    node, mistakes = parse(when)
    assert not mistakes
    read = signals(place=place, complexity=score)
    assert (place.asked, score.asked) == (0, 0)
    holds = compiled(node)
    assert holds(read) == holds(read)
    assert (place.asked, score.asked) == (route, complexity)


def test_a_classifier_that_fails_says_so_without_the_text() -> None:
    def broken(text: str) -> Placed:
        raise ValueError(text)

    with pytest.raises(SignalFailed) as failed:
        signals("my secret", place=broken).read("route")
    assert str(failed.value) == "route failed (ValueError)"
    assert failed.value.__cause__ is None
    with pytest.raises(SignalFailed, match="no routes"):
        signals().read("route")


def test_an_uncalibrated_complexity_is_not_known_rather_than_small() -> None:
    read = signals()
    assert read.read("complexity") is None
    holds = compiled(parse({"complexity": {"under": 50}})[0])
    turned = compiled(parse({"not": {"complexity": {"under": 50}}})[0])
    assert (holds(read), turned(read)) == (None, None)


def test_records_hold_what_was_read_but_not_who_asks_and_no_text() -> None:
    read = signals("invoice 4711 please", who=Who(tenant="clinic"), found=Found(("ssn",)), place=lambda _: CODING)
    for name in ("tokens", "tenant", "found", "route", "probability", "structure.code", "complexity"):
        read.read(name)
    compiled(parse({"keywords": "invoice"})[0])(read)
    rows = told(read.read_so_far)
    assert rows == (
        "tokens=100", "found=pii,ssn", "route=coding", "probability=0.9", "structure.code=no", "complexity=unknown",
        "keywords(invoice)=yes",
    )  # fmt: skip
    assert "4711" not in str(rows)
    assert "tenant=clinic" in told(read.read_so_far, identity=True)


def test_the_route_that_an_application_names_is_not_classified() -> None:
    place = Counting(CODING)
    read = signals(place=place)
    read.take_route("maths")
    assert (read.read("route"), read.read("probability"), place.asked) == ("maths", 1.0, 0)
