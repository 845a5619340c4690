"""The first decision that matches decides; one that cannot be asked ends the asking."""

from __future__ import annotations

from typing import Any

from signalling import CODING, signals

from policies.conditions import parse
from policies.decide import decide
from policies.declared import Declared, always, declared, first, in_order, places
from policies.model import Candidate, Steering
from policies.semantic import Placed


def one(name: str, when: dict[str, Any]) -> Declared:
    return declared(name, parse(when)[0], ["gpu/a"])


def test_the_first_that_matches_decides() -> None:
    rows = [one("long", {"tokens": {"over": 1000}}), one("coding", {"route": "coding"}), always("all", ["gpu/b"])]
    chosen = first(rows, signals(place=lambda _: CODING)).declared
    assert chosen is not None and chosen.name == "coding"


def test_priority_comes_before_place() -> None:
    assert in_order([(0, "a"), (5, "b"), (0, "c"), (5, "d"), (-1, "e")]) == ["b", "d", "a", "c", "e"]


def test_none_matches() -> None:
    choice = first([one("long", {"tokens": {"over": 1000}})], signals())
    assert (choice.declared, choice.fault) == (None, "")


def test_what_is_not_known_does_not_match() -> None:
    rows = [one("simple", {"complexity": {"under": 50}}), one("rest", {})]
    chosen = first(rows, signals()).declared
    assert chosen is not None and chosen.name == "rest"


def test_a_decision_that_cannot_be_asked_ends_the_asking_with_its_reason() -> None:
    def broken(_: str) -> Placed:
        raise RuntimeError

    choice = first([one("about", {"route": "coding"}), always("all", ["gpu/b"])], signals(place=broken))
    assert (choice.declared, choice.fault) == (None, "about: route failed (RuntimeError)")


def test_one_before_it_is_not_touched_by_that() -> None:
    def broken(_: str) -> Placed:
        raise RuntimeError

    chosen = first(
        [one("short", {"tokens": {"under": 500}}), one("about", {"route": "x"})], signals(place=broken)
    ).declared
    assert chosen is not None and chosen.name == "short"


def candidate(target: str, boundary: str = "local", *, permitted: bool = True, healthy: bool = True) -> Candidate:
    return Candidate(target, target.partition("/")[0], boundary, frozenset({"chat"}), None, permitted, healthy=healthy)


def test_a_decisions_order_holds_also_where_the_cloud_stands_first() -> None:
    rows = [candidate("gpu/a"), candidate("sky/g", "cloud"), candidate("cpu/s")]
    facts = signals().facts
    decision = decide(facts, rows, steering=Steering("decision: x", places(["sky/g", "cpu/s"])))
    assert decision.ranked == ("sky/g", "cpu/s", "gpu/a")
    assert (decision.rule, decision.overflow) == ("decision: x", "decision")


def test_why_it_left_home_is_the_local_one_that_stood_before() -> None:
    rows = [candidate("gpu/a", healthy=False), candidate("sky/g", "cloud")]
    decision = decide(signals().facts, rows, steering=Steering("decision: x", places(["gpu/a", "sky/g"])))
    assert (decision.ranked, decision.overflow) == (("sky/g",), "unhealthy")
