"""What `escalate` of a decision says of the rest of the configuration: somebody must answer first, and something must be able
to go up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from compliance.identifiers import FAMILY, NAMES
from compliance.rules import Rule, Where
from compliance.rulings import default
from engines.kinds import UnknownKind, kind
from proxy.config_errors import Location
from proxy.config_rules import rule_of
from proxy.decision_checks import named_targets, uses_in

if TYPE_CHECKING:
    from proxy.config import Settings
    from proxy.config_decisions import DecisionPart, EscalatePart

Found = Iterator[tuple[Location, str, str]]
Wrong = Callable[[str], tuple[str, str] | None]
_OPEN = ("allow", "redact")
_SHUT = ("keep_local", "block")


def problems(settings: Settings, wrong_target: Wrong, whole: Callable[[str], bool]) -> Found:
    """Every mistake in what decisions say of escalation; the arguments are as of `proxy.decision_checks.problems`."""
    for index, part in enumerate(settings.decisions):
        if part.escalate is None:
            continue
        path: Location = ("decisions", index, "escalate")
        wrong = list(uses_in(settings, (*path, "to"), part.escalate.to, wrong_target, needed=True))
        yield from wrong
        yield from _bounds(path, part.escalate)
        if settings.limits.attempts < 2:
            yield path, "leaves no attempt for further up", "limits.attempts must be 2 at least"
        if wrong or not whole("engines"):
            continue
        to = named_targets(settings, part.escalate.to)
        if not set(named_targets(settings, part.use)) - set(to):
            yield path, "leaves nobody who answers first", "name a smaller target in use, which is not in to"
        elif whole("compliance") and all([_shut(settings, part, target) for target in to]):
            yield (
                (*path, "to"),
                "can never be asked: what this decision is for stays local by the rules",
                "name a larger local target, or allow it by a rule of compliance",
            )


def _bounds(path: Location, part: EscalatePart) -> Found:
    if round(part.share * 1_000_000) * part.window < 1_000_000:
        yield (*path, "share"), f"lets none of {part.window} answers go up", "such as share: 20%, or a longer window"


def _shut(settings: Settings, part: DecisionPart, target: str) -> bool:
    """Is it certain that the rules never let a request of this decision go to this target?"""
    engine = settings.engines[target.partition("/")[0]]
    try:
        row = kind(engine.kind)
    except UnknownKind:
        return False
    boundary = engine.boundary or row.boundary
    if boundary == "local":
        return False
    rules = [rule_of(one) for one in settings.compliance.rules]
    rules = [rule for rule in rules if _may_speak(rule.target, boundary, engine.kind, engine.contract.region)]
    return _all_shut(rules) or _found_shut(rules, part.when.get("found"))


def _may_speak(where: Where, boundary: str, provider: str, region: str) -> bool:
    """Contracts come and go: a rule about one may speak of the target at some time."""
    return (
        (not where.boundaries or boundary in where.boundaries)
        and (not where.providers or provider in where.providers)
        and (not where.regions or region in where.regions)
    )


def _all_shut(rules: Sequence[Rule]) -> bool:
    """Does a rule without conditions keep everything local, and none before it let anything leave?"""
    for rule in rules:
        if rule.found:
            continue
        if rule.action in _OPEN:
            return False
        if rule == Rule(rule.name, rule.action, target=rule.target) and not rule.target.contracts:
            return True
    return False


def _found_shut(rules: Sequence[Rule], found: object) -> bool:
    """Is the decision only for requests in which something was found that no rule lets leave?"""
    kinds = [found] if isinstance(found, str) else found
    if not isinstance(kinds, (list, tuple)) or not kinds:
        return False
    for one in kinds:
        if one != "phi" and one not in FAMILY:
            return False
        for name in NAMES if one == "phi" else (one,):
            health = one == "phi"
            if default(name, health)[0] not in _SHUT:
                return False
            if any([rule.action in _OPEN and rule.speaks_of(name, True) for rule in rules]):
                return False
    return True
