"""What becomes of identifiers in an answer: by the rules, the target's contract, and the request's own context."""

from __future__ import annotations

from typing import Any, cast

import pytest
from held import OPENINGS, SCANNER

from compliance.pseudonyms import Scope
from compliance.rules import CLOUD, HOME, Facts, Labels, Rule, Where
from compliance.rulings import Ruleset
from compliance.scan import Scanner
from engines import openai
from engines.model import Operation
from proxy.answering import Answers, Found
from proxy.exchange import Exchange

TODAY = 20_000
RULESET = Ruleset(
    [
        Rule("agreed", "allow", frozenset({"ssn"}), target=Where(contracts=frozenset({"baa"}))),
        Rule("hide", "redact", frozenset({"mrn"})),
    ]
)
AGREED = Labels("cloud", baa_until=TODAY)


def exchange(health: bool = False, operation: Operation = Operation.CHAT) -> Exchange:
    made = Exchange("1", cast(Any, None), cast(Any, None), 0, 0.0)
    body = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"input":"hi"}'
    made.request = openai.DIALECT.parse(operation, body, {})
    made.facts = Facts(health=health, today=TODAY)
    return made


def scope(*, issued: bool) -> Scope:
    made = Scope("a", b"k" * 32)
    if issued:
        made.pseudonym("ssn", "219-09-9999")
    return made


@pytest.mark.parametrize(
    ("kind", "health", "labels", "passes"),
    [
        ("ssn", False, CLOUD, False), ("ssn", False, HOME, False), ("ssn", True, AGREED, True), ("card", False, AGREED, False),
        ("email", False, CLOUD, True), ("email", True, CLOUD, False), ("mrn", False, CLOUD, False), ("mrn", False, HOME, False),
        ("opaque", False, CLOUD, False), ("scan_failed", False, AGREED, False), ("held", False, AGREED, False), ("own_kind", False, CLOUD, False),
    ],
)  # fmt: skip
def test_a_kind_passes_where_it_might_have_left_for_the_target(
    kind: str, health: bool, labels: Labels, passes: bool
) -> None:
    scan, answering = Answers(SCANNER, RULESET, "mask", OPENINGS.find).of(exchange(health), labels, None)
    assert scan is None and answering is not None and answering.guard is not None
    assert answering.guard.allowed(kind) is passes
    assert answering.guard.people is health and not answering.guard.stops and answering.original is None


@pytest.mark.parametrize("found", ["pass", "mask", "stop"])
def test_a_request_that_was_redacted_gets_its_own_back(found: Found) -> None:
    of = Answers(SCANNER, RULESET, found, OPENINGS.find).of
    own = scope(issued=True)
    (pseudonym,) = [known.pseudonym for known in own.added]
    for one, turned in ((own, "219-09-9999"), (scope(issued=False), None), (None, None)):
        _, answering = of(exchange(), CLOUD, one)
        if answering is None:
            assert found == "pass" and turned is None
            continue
        original = answering.original(pseudonym) if answering.original is not None else None
        assert original == turned
        assert (answering.guard is None) == (found == "pass")


@pytest.mark.parametrize("scanner", [SCANNER, None])
def test_an_answer_that_passes_costs_its_count_and_nothing_more(scanner: Scanner | None) -> None:
    scan, answering = Answers(scanner, RULESET).of(exchange(), CLOUD, None)
    assert answering is None and (scan is None) == (scanner is None)
    scan, answering = Answers(scanner, RULESET).of(exchange(), CLOUD, scope(issued=True))
    assert answering is not None and answering.guard is None and (answering.passed is None) == (scanner is None)


def test_vectors_have_no_text() -> None:
    _, answering = Answers(SCANNER, RULESET, "stop", OPENINGS.find).of(
        exchange(operation=Operation.EMBEDDINGS), CLOUD, None
    )
    assert answering is None


def test_what_the_scanner_does_not_bear_is_not_looked_at() -> None:
    small = Scanner(max_chars=10)
    _, answering = Answers(small, RULESET, "mask", OPENINGS.find).of(exchange(), CLOUD, None)
    assert answering is not None and answering.guard is not None
    assert answering.guard.look("x" * 11) is None and answering.guard.look("x") == []
