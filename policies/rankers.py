"""The order of those that can serve."""

from __future__ import annotations

from policies.model import Candidate, Facts

LOCAL = "local"


def home_first(facts: Facts, candidate: Candidate) -> float:
    """Local before everything else: the cloud is the overflow."""
    return 0.0 if candidate.boundary == LOCAL else 1.0
