"""Facts and candidates in, a decision that explains itself out."""

from __future__ import annotations

from collections.abc import Sequence

from policies.complexity import Routing
from policies.filters import FILTERS
from policies.model import Candidate, Decision, Facts, Veto
from policies.rankers import LOCAL, home_first


def decide(facts: Facts, candidates: Sequence[Candidate], *, routing: Routing | None = None) -> Decision:
    """Rank who can serve: local before cloud, then the wanted size, then as declared; and say why each other cannot.

    The wanted size is a preference: where nobody of it can serve, the other size does.
    """
    vetoes: list[Veto] = []
    able: list[Candidate] = []
    for candidate in candidates:
        for check in FILTERS:
            found = check(facts, candidate)
            if found is not None:
                vetoes.append(Veto(candidate.target, *found))
                break
        else:
            able.append(candidate)
    if routing is not None:
        able.sort(key=lambda candidate: candidate.size is not None and candidate.size != routing.size)
    if len(able) > 1:
        able.sort(key=lambda candidate: home_first(facts, candidate))
    rule = "candidates in order, local first" if routing is None else f"complexity: {routing.size} ({routing.why})"
    return Decision(
        tuple([candidate.target for candidate in able]), tuple(vetoes), rule, _overflow(candidates, able, vetoes)
    )


def _overflow(candidates: Sequence[Candidate], able: Sequence[Candidate], vetoes: Sequence[Veto]) -> str | None:
    """Why the first choice left home: the reason of the first local candidate that cannot serve."""
    if not able or able[0].boundary == LOCAL or not vetoes:
        return None
    local = {candidate.target for candidate in candidates if candidate.boundary == LOCAL}
    return next((veto.reason for veto in vetoes if veto.target in local), None)
