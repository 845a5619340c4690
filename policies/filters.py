"""Why a candidate cannot serve."""

from __future__ import annotations

from policies.model import Candidate, Facts


def why_not(facts: Facts, candidate: Candidate) -> tuple[str, str] | None:
    """The first reason against it: (stable word, detail in words); None: it can serve.

    One function, because it is asked for every candidate of every request.  The boundary comes first: the verdict and
    the key must both allow it, and nothing else may overrule them (law 1).  Of the context the prompt's estimate alone
    counts: an output limit may be far above what is used, and engines clip it themselves.
    """
    if not candidate.permitted:
        if candidate.barred is not None:
            return candidate.barred
        return "boundary", f"{candidate.boundary} is not allowed for this request ({facts.rule})"
    if not facts.needs <= candidate.capabilities:
        return "capability", "lacks " + ", ".join(sorted(facts.needs - candidate.capabilities))
    if not candidate.translatable:
        return "untranslatable", f"{facts.operation} has no form in its dialect"
    if candidate.context is not None and facts.prompt_tokens > candidate.context:
        return "context", f"about {facts.prompt_tokens} tokens of {candidate.context}"
    if not candidate.priced:
        return "unpriced", "no price is known for it, and budgets cannot hold without one"
    if not candidate.healthy:
        return "unhealthy", "no replica answers"
    if candidate.concurrency is not None and candidate.in_flight >= candidate.concurrency:
        return "saturated", f"{candidate.in_flight} in flight of {candidate.concurrency}"
    return None
