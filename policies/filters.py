"""Why a candidate cannot serve, one reason each.  Their order in `FILTERS` is the order of reporting."""

from __future__ import annotations

from policies.base import Filter
from policies.model import Candidate, Facts


def boundary(facts: Facts, candidate: Candidate) -> tuple[str, str] | None:
    """The verdict and the key must both allow the target's boundary.  First: nothing else may overrule it."""
    if candidate.permitted:
        return None
    if candidate.barred is not None:
        return candidate.barred
    return "boundary", f"{candidate.boundary} is not allowed for this request ({facts.rule})"


def capability(facts: Facts, candidate: Candidate) -> tuple[str, str] | None:
    if facts.needs <= candidate.capabilities:
        return None
    return "capability", "lacks " + ", ".join(sorted(facts.needs - candidate.capabilities))


def translatable(facts: Facts, candidate: Candidate) -> tuple[str, str] | None:
    return None if candidate.translatable else ("untranslatable", f"{facts.operation} has no form in its dialect")


def context(facts: Facts, candidate: Candidate) -> tuple[str, str] | None:
    """The prompt's estimate alone: an output limit may be far above what is used, and engines clip it themselves."""
    if candidate.context is None or facts.prompt_tokens <= candidate.context:
        return None
    return "context", f"about {facts.prompt_tokens} tokens of {candidate.context}"


def unpriced(facts: Facts, candidate: Candidate) -> tuple[str, str] | None:
    return None if candidate.priced else ("unpriced", "no price is known for it, and budgets cannot hold without one")


def unhealthy(facts: Facts, candidate: Candidate) -> tuple[str, str] | None:
    return None if candidate.healthy else ("unhealthy", "no replica answers")


def saturated(facts: Facts, candidate: Candidate) -> tuple[str, str] | None:
    if candidate.concurrency is None or candidate.in_flight < candidate.concurrency:
        return None
    return "saturated", f"{candidate.in_flight} in flight of {candidate.concurrency}"


FILTERS: tuple[Filter, ...] = (boundary, capability, translatable, context, unpriced, unhealthy, saturated)
