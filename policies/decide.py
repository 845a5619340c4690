"""Facts and candidates in, a decision that explains itself out."""

from __future__ import annotations

from collections.abc import Sequence

from policies.complexity import Routing
from policies.filters import why_not
from policies.model import Candidate, Decision, Facts, Steering, Veto
from policies.rankers import LOCAL, as_declared, home_first, of_size

IN_ORDER = "candidates in order, local first"


def decide(
    facts: Facts, candidates: Sequence[Candidate], *, routing: Routing | None = None, steering: Steering | None = None
) -> Decision:
    """Rank who can serve and say why each other cannot: the wanted size first, in it local before cloud, then as declared.

    The wanted size is a preference: where nobody of it can serve, the other size does, and where it fails, too.  What a
    declared decision names comes before everything else, in its order; it permits nothing that a filter does not.
    """
    vetoes: list[Veto] = []
    able: list[Candidate] = []
    for candidate in candidates:
        found = why_not(facts, candidate)
        if found is None:
            able.append(candidate)
        else:
            vetoes.append(Veto(candidate.target, *found))
    if not vetoes and len(able) == 1 and steering is None and routing is None and able[0].boundary == LOCAL:
        return Decision((able[0].target,), (), IN_ORDER)  # the usual case
    if len(able) > 1:
        able.sort(key=lambda candidate: home_first(facts, candidate))
        if routing is not None:
            able.sort(key=lambda candidate: of_size(routing.size, candidate))
        if steering is not None:
            able.sort(key=lambda candidate: as_declared(steering.places, candidate))
    if steering is not None:
        return _steered(candidates, able, vetoes, steering)
    rule = IN_ORDER if routing is None else f"complexity: {routing.size} ({routing.why})"
    overflow = None
    if able and able[0].boundary != LOCAL:
        overflow = _overflow(candidates, able, vetoes, routing)
    return Decision(tuple([candidate.target for candidate in able]), tuple(vetoes), rule, overflow)


def _steered(
    candidates: Sequence[Candidate], able: Sequence[Candidate], vetoes: Sequence[Veto], steering: Steering
) -> Decision:
    overflow = None
    if able and able[0].boundary != LOCAL:
        reasons = {veto.target: veto.reason for veto in vetoes}
        first = as_declared(steering.places, able[0])
        before = [c for c in candidates if c.boundary == LOCAL and as_declared(steering.places, c) < first]
        before.sort(key=lambda candidate: as_declared(steering.places, candidate))
        overflow = next((reasons[c.target] for c in before if c.target in reasons), "decision")
    return Decision(tuple([candidate.target for candidate in able]), tuple(vetoes), steering.rule, overflow)


def _overflow(
    candidates: Sequence[Candidate], able: Sequence[Candidate], vetoes: Sequence[Veto], routing: Routing | None
) -> str | None:
    """Why the first choice left home: the reason of the first local candidate that would have come before it.

    Where a local candidate could serve and is only of the other size, that is the reason: `size`.
    """
    reasons = {veto.target: veto.reason for veto in vetoes}
    at_home = [candidate for candidate in candidates if candidate.boundary == LOCAL]
    if routing is not None and any(candidate.boundary == LOCAL for candidate in able):
        wanted = [candidate for candidate in at_home if not of_size(routing.size, candidate)]
        return next((reasons[candidate.target] for candidate in wanted if candidate.target in reasons), "size")
    return next((reasons[candidate.target] for candidate in at_home if candidate.target in reasons), None)
