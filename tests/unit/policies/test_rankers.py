from __future__ import annotations

from policies.model import Candidate, Facts
from policies.rankers import home_first, of_size

FACTS = Facts("m", "chat", frozenset(), 4, 1, None)


def candidate(boundary: str, size: str | None = None) -> Candidate:
    return Candidate("e/m", "e", boundary, frozenset(), None, True, size=size)


def test_local_before_every_other_boundary() -> None:
    assert home_first(FACTS, candidate("local")) < home_first(FACTS, candidate("partner"))
    assert home_first(FACTS, candidate("partner")) == home_first(FACTS, candidate("cloud"))


def test_the_wanted_size_before_the_other_and_no_size_suits_both() -> None:
    assert of_size("small", candidate("local", "small")) < of_size("small", candidate("local", "large"))
    assert of_size("small", candidate("local")) == of_size("large", candidate("local")) == 0
