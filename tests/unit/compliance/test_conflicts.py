from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compliance.conflicts import Conflict, conflicts
from compliance.expressions import Cel
from compliance.identifiers import NAMES
from compliance.model import Finding
from compliance.rules import Facts, Labels, Rule, Where
from compliance.rulings import Ruleset


def some(*names: str) -> frozenset[str]:
    return frozenset(names)


def test_rules_that_can_each_decide_are_no_conflict() -> None:
    rules = [
        Rule("a", "block", found=some("card"), tenants=some("x")),
        Rule("b", "allow", found=some("card")),
        Rule("c", "redact", found=some("pii"), target=Where(contracts=some("baa"))),
        Rule("d", "keep_local", found=some("pii")),
        Rule("e", "keep_local", health=True),
        Rule("f", "allow"),
    ]
    assert conflicts(rules) == []


@pytest.mark.parametrize(
    ("earlier", "later", "why"),
    [
        (Rule("a", "block", found=some("card")), Rule("b", "allow", found=some("card")), "contradicts"),
        (Rule("a", "block"), Rule("b", "allow", found=some("card")), "is never reached, because of"),
        (Rule("a", "block", found=some("pii")), Rule("b", "allow", found=some("phi")), "is never reached, because of"),
        (
            Rule("a", "block", tenants=some("x", "y")),
            Rule("b", "allow", tenants=some("y")),
            "is never reached, because of",
        ),
        (
            Rule("a", "allow", target=Where(contracts=some("baa"))),
            Rule("b", "block", target=Where(contracts=some("baa", "zero_retention"))),
            "is never reached, because of",
        ),
        (Rule("a", "block"), Rule("b", "allow", expression=Cel("health")), "is never reached, because of"),
    ],
)
def test_one_rule_hides_another(earlier: Rule, later: Rule, why: str) -> None:
    assert conflicts([earlier, later]) == [Conflict(1, (0,), why)]


def test_several_rules_together_hide_another() -> None:
    rules = [
        Rule("cards", "block", found=some("card", "iban")),
        Rule("secrets", "block", found=some("secret")),
        Rule("sick", "keep_local", found=some("ssn"), health=True),
        Rule("well", "redact", found=some("ssn"), health=False),
        Rule("late", "allow", found=some("card", "secret", "ssn")),
    ]
    assert conflicts(rules) == [Conflict(4, (0, 1, 2, 3), "is never reached, because of")]
    assert conflicts([*rules[:3], rules[4]]) == []


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (Rule("a", "block", found=some("phi"), health=False), "without health context"),
        (Rule("a", "allow", found=some("scan_failed")), "could not be scanned"),
        (Rule("a", "redact", found=some("opaque")), "has no text"),
        (Rule("a", "redact", target=Where(boundaries=some("local"))), "as it is"),
    ],
)
def test_a_rule_may_be_impossible_in_itself(rule: Rule, said: str) -> None:
    [conflict] = conflicts([rule])
    assert conflict.because == () and said in conflict.why


def test_an_expression_hides_nothing_since_it_is_not_looked_into() -> None:
    assert conflicts([Rule("a", "block", expression=Cel("true")), Rule("b", "allow")]) == []


def test_what_would_take_too_long_is_not_said() -> None:
    many = frozenset(str(number) for number in range(50))
    rules = [
        Rule("a", "block"),
        Rule("b", "allow", tenants=many, keys=many, models=many, applications=many),
    ]
    assert conflicts(rules) == []


few = st.frozensets(st.sampled_from(["a", "b"]), max_size=2)
rules_of_any_kind = st.builds(
    Rule, st.just("r"), st.sampled_from(["allow", "keep_local", "block"]),
    found=st.frozensets(st.sampled_from(["ssn", "name", "pii", "phi", "opaque"]), max_size=2), tenants=few,
    health=st.none() | st.booleans(), target=st.builds(Where, contracts=st.frozensets(st.sampled_from(["baa", "zero_retention"]), max_size=2)),
)  # fmt: skip


@given(st.lists(rules_of_any_kind, min_size=1, max_size=4), st.data())
def test_a_rule_in_conflict_never_decides(given_rules: list[Rule], data: st.DataObject) -> None:
    named = [Rule(**{**{f: getattr(rule, f) for f in rule.__struct_fields__}, "name": f"r{n}"}) for n, rule in enumerate(given_rules)]  # fmt: skip
    dead = {f"r{conflict.rule}" for conflict in conflicts(named)}
    kinds = data.draw(st.lists(st.sampled_from([*NAMES[:3], "name", "opaque", "scan_failed", "custom"]), max_size=3))
    about = Facts(tenant=data.draw(st.sampled_from("abc")), health=data.draw(st.booleans()))
    target = Labels("cloud", "k", "", data.draw(st.none() | st.just(5)), data.draw(st.booleans()))
    verdict = Ruleset(named).judge([Finding(kind, "", 0, 0) for kind in kinds], about).on(target)
    assert verdict.rule not in dead


@given(st.lists(rules_of_any_kind, min_size=1, max_size=3))
def test_a_rule_without_conflict_decides_some_case(given_rules: list[Rule]) -> None:
    named = [Rule(**{**{f: getattr(rule, f) for f in rule.__struct_fields__}, "name": f"r{n}"}) for n, rule in enumerate(given_rules)]  # fmt: skip
    dead = {conflict.rule for conflict in conflicts(named)}
    deciding = set()
    for kind in ("ssn", "name", "opaque", "custom", ""):
        for tenant in "abc":
            for health in (True, False):
                for baa in (None, 5):
                    for zero in (True, False):
                        ruling = Ruleset(named).judge(
                            [Finding(kind, "", 0, 0)] if kind else [], Facts(tenant=tenant, health=health)
                        )
                        labels = Labels("cloud", "k", "", baa, zero)
                        suitable = [rule for rule in ruling._rules if rule.target.matches(labels, 0)]
                        deciding.add(ruling._decide(kind, suitable, labels)[1])
    alive = {f"r{index}" for index in range(len(named)) if index not in dead}
    assert alive <= deciding
