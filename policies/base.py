"""What a filter and a ranker are: the smallest pieces that a decision is made of."""

from __future__ import annotations

from collections.abc import Callable

from policies.model import Candidate, Facts

Filter = Callable[[Facts, Candidate], tuple[str, str] | None]
"""Why a candidate cannot serve: (stable reason, detail in words); None: it can."""

Ranker = Callable[[Facts, Candidate], float]
"""Lower is better; ties keep the declared order.  Both kinds are pure: all they know comes in as arguments."""
