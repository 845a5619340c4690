"""Rules that can never decide: contradicted by an earlier one, shadowed by several, or impossible in themselves.  Pure.

The first rule that matches decides.  So a rule is reachable if there is one case (a kind of finding, a tenant, ... a
target) that it matches and no earlier rule does.  Conditions are sets of names, so finitely many cases stand for all:
each name that the rule lists, and one name that nobody lists where it lists none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from msgspec import Struct

from compliance.identifiers import NAMES
from compliance.rules import UNREAD, Rule

MAX_CASES = 100_000
"""Cases looked at of one rule; of one with more nothing is said."""

_NOBODYS = "\0"  # a name that no rule lists
_SETS = ("tenants", "applications", "keys", "surfaces", "models")
_PLACES = ("boundaries", "providers", "regions")


class Conflict(Struct, frozen=True):
    """One rule that can never decide.  Indexes count from 0; `why` reads on from the rule's name."""

    rule: int
    because: tuple[int, ...]  # the earlier rules; none where it is impossible in itself
    why: str


def conflicts(rules: Sequence[Rule]) -> list[Conflict]:
    """Every rule that can never decide, in order.

    Rules with an expression are only ever hidden, never hiding: what it says is not looked into.
    """
    found = []
    for index, rule in enumerate(rules):
        wrong = impossible(rule)
        if wrong is not None:
            found.append(Conflict(index, (), wrong))
            continue
        hiding = _hiding(rule, rules[:index])
        if hiding:
            first = rules[hiding[0]]
            same = len(hiding) == 1 and _conditions(first) == _conditions(rule) and first.action != rule.action
            found.append(Conflict(index, hiding, "contradicts" if same else "is never reached, because of"))
    return found


def impossible(rule: Rule) -> str | None:
    """Why no request could ever be decided by this rule; None: one could."""
    if rule.found and rule.found <= {"phi"} and rule.health is False:
        return "asks for phi without health context, and phi is found only with it"
    if rule.found and rule.found <= {"scan_failed"} and rule.action in ("allow", "redact"):
        return "would let out what could not be scanned, which no rule can"
    if rule.found and rule.found <= set(UNREAD) and rule.action == "redact":
        return "would redact what has no text"
    if rule.action == "redact" and rule.target.boundaries == {"local"}:
        return "redacts for local targets alone, which get the text as it is"
    return None


def _hiding(rule: Rule, earlier: Sequence[Rule]) -> tuple[int, ...]:
    """The rules that match first in every case that `rule` matches; none if there is a case left."""
    plain = [(index, other) for index, other in enumerate(earlier) if other.expression is None]
    if not plain:
        return ()
    hiding: set[int] = set()
    for count, case in enumerate(_cases(rule)):
        if count >= MAX_CASES:
            return ()
        by = next((index for index, other in plain if _matches(other, case, rule.target.contracts)), None)
        if by is None:
            return ()
        hiding.add(by)
    return tuple(sorted(hiding))


_Case = tuple[str, bool, tuple[str, ...], tuple[str, ...]]


def _cases(rule: Rule) -> Iterator[_Case]:
    """(kind, health, names of the request, names of the target) of each case."""
    names = [sorted(getattr(rule, name)) or [_NOBODYS] for name in _SETS]
    places = [sorted(getattr(rule.target, name)) or [_NOBODYS] for name in _PLACES]
    for health in (True, False) if rule.health is None else (rule.health,):
        kinds = _kinds(rule, health)
        for kind, *rest in product(kinds, *names, *places):
            yield kind, health, tuple(rest[: len(_SETS)]), tuple(rest[len(_SETS) :])


def _kinds(rule: Rule, health: bool) -> list[str]:
    """The kinds of findings that it speaks of; "" is the request as a whole."""
    every = (*NAMES, _NOBODYS)
    if not rule.found:
        return ["", *every, *UNREAD]
    kinds = rule.found - {"pii", "phi"}
    if "pii" in rule.found or (health and "phi" in rule.found):
        kinds |= set(every)
    return sorted(kinds)


def _matches(rule: Rule, case: _Case, contracts: frozenset[str]) -> bool:
    """Does the rule match the case, at a target that has these contracts and no other?"""
    kind, health, names, places = case
    return (
        (rule.speaks_of(kind, health) if kind else not rule.found)
        and (rule.health is None or rule.health == health)
        and all(
            [not (wanted := getattr(rule, name)) or value in wanted for name, value in zip(_SETS, names, strict=True)]
        )
        and all(
            [
                not (wanted := getattr(rule.target, name)) or value in wanted
                for name, value in zip(_PLACES, places, strict=True)
            ]
        )
        and rule.target.contracts <= contracts
    )


def _conditions(rule: Rule) -> tuple[object, ...]:
    return (rule.found, *[getattr(rule, name) for name in _SETS], rule.health, rule.target, rule.expression)
