from __future__ import annotations

from typing import Any

import pytest

from policies.filters import why_not
from policies.model import Candidate, Facts


def facts(**changes: Any) -> Facts:
    base: dict[str, Any] = {"model": "m", "operation": "chat", "needs": frozenset(), "prompt_bytes": 400,
                            "prompt_tokens": 100, "max_output": None}  # fmt: skip
    return Facts(**base | changes)


def candidate(**changes: Any) -> Candidate:
    base: dict[str, Any] = {"target": "gpu/a", "engine": "gpu", "boundary": "local", "capabilities": frozenset(),
                            "context": None, "permitted": True}  # fmt: skip
    return Candidate(**base | changes)


def test_nothing_speaks_against_a_plain_candidate() -> None:
    assert why_not(facts(), candidate()) is None


def test_boundary_names_the_place_and_the_rule() -> None:
    found = why_not(facts(rule="phi stays"), candidate(boundary="cloud", permitted=False))
    assert found == ("boundary", "cloud is not allowed for this request (phi stays)")


def test_a_boundary_that_a_request_could_not_be_made_fit_for_has_a_reason_of_its_own() -> None:
    why = ("unredactable", "something was found where nothing can be replaced")
    assert why_not(facts(), candidate(boundary="cloud", permitted=False, barred=why)) == why


def test_capability_names_what_is_missing() -> None:
    needs = frozenset({"tools", "vision", "json_schema"})
    assert why_not(facts(needs=needs), candidate(capabilities=needs | {"more"})) is None
    assert why_not(facts(needs=needs), candidate(capabilities=frozenset({"vision"}))) == (
        "capability",
        "lacks json_schema, tools",
    )


@pytest.mark.parametrize(("tokens", "window", "fits"), [(100, 100, True), (101, 100, False), (10**9, None, True)])
def test_context_holds_the_prompt(tokens: int, window: int | None, fits: bool) -> None:
    found = why_not(facts(prompt_tokens=tokens), candidate(context=window))
    assert (found is None) is fits
    if found is not None:
        assert found == ("context", "about 101 tokens of 100")


@pytest.mark.parametrize(("busy", "places", "free"), [(3, 4, True), (4, 4, False), (5, 4, False), (99, None, True)])
def test_saturated_at_its_concurrency(busy: int, places: int | None, free: bool) -> None:
    found = why_not(facts(), candidate(in_flight=busy, concurrency=places))
    assert (found is None) is free
    if found is not None:
        assert found == ("saturated", f"{busy} in flight of 4")


def test_the_others_are_a_word_each() -> None:
    assert why_not(facts(), candidate(healthy=False))[0] == "unhealthy"  # type: ignore[index]
    assert why_not(facts(), candidate(priced=False))[0] == "unpriced"  # type: ignore[index]
    assert why_not(facts(), candidate(translatable=False))[0] == "untranslatable"  # type: ignore[index]


def test_law_01_the_boundary_is_asked_first() -> None:
    everything_else = {"capabilities": frozenset(), "context": 1, "translatable": False, "priced": False, "healthy": False,
                       "in_flight": 9, "concurrency": 1}  # fmt: skip
    found = why_not(facts(needs=frozenset({"tools"})), candidate(permitted=False, **everything_else))
    assert found is not None
    assert found[0] == "boundary"
