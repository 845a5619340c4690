"""The order of those that can serve."""

from __future__ import annotations

from collections.abc import Mapping

from policies.model import Candidate, Facts

LOCAL = "local"


def home_first(facts: Facts, candidate: Candidate) -> float:
    """Local before everything else: the cloud is the overflow."""
    return 0.0 if candidate.boundary == LOCAL else 1.0


def of_size(wanted: str, candidate: Candidate) -> float:
    """The size that complexity chose before the other one; a candidate of no declared size suits either."""
    return 0.0 if candidate.size is None or candidate.size == wanted else 1.0


def as_declared(places: Mapping[str, int], candidate: Candidate) -> float:
    """The targets that a decision names, in its order, before all others."""
    return places.get(candidate.target, float("inf"))
