from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from policies.complexity import Routing
from policies.decide import decide
from policies.model import Candidate, Facts, Veto

FACTS = Facts("m", "chat", frozenset({"tools"}), 400, 100, None)
LARGE, SMALL = Routing("large", "uses tools"), Routing("small", "plain")


def local(name: str, **changes: Any) -> Candidate:
    return _candidate(name, "local", changes)


def cloud(name: str, **changes: Any) -> Candidate:
    return _candidate(name, "cloud", changes)


def _candidate(name: str, boundary: str, changes: dict[str, Any]) -> Candidate:
    base: dict[str, Any] = {"target": f"{boundary}/{name}", "engine": boundary, "boundary": boundary,
                            "capabilities": frozenset({"tools"}), "context": 8192, "permitted": True}  # fmt: skip
    return Candidate(**base | changes)


def test_declared_order_with_local_first() -> None:
    decision = decide(FACTS, [cloud("a"), local("b"), cloud("c"), local("d")])
    assert decision.ranked == ("local/b", "local/d", "cloud/a", "cloud/c")
    assert decision.vetoes == ()
    assert decision.overflow is None
    assert decision.rule == "candidates in order, local first"


def test_the_first_reason_in_the_fixed_order_is_given() -> None:
    wrong = local("x", permitted=False, healthy=False, capabilities=frozenset(), in_flight=9, concurrency=1)
    assert decide(FACTS, [wrong]).vetoes[0].reason == "boundary"
    sick = local("x", healthy=False, in_flight=9, concurrency=1)
    assert decide(FACTS, [sick]).vetoes == (Veto("local/x", "unhealthy", "no replica answers"),)


def test_overflow_is_why_the_first_local_one_cannot() -> None:
    full, sick = local("a", in_flight=4, concurrency=4), local("b", healthy=False)
    assert decide(FACTS, [full, sick, cloud("c")]).overflow == "saturated"
    assert decide(FACTS, [cloud("c"), sick, full]).overflow == "unhealthy"
    assert decide(FACTS, [local("a", capabilities=frozenset()), cloud("c")]).overflow == "capability"
    assert decide(FACTS, [full, local("d"), cloud("c")]).overflow is None  # it stayed home
    assert decide(FACTS, [cloud("c")]).overflow is None  # there is no home to leave
    assert decide(FACTS, [cloud("a", healthy=False), cloud("c")]).overflow is None


def test_law_01_a_forbidden_boundary_is_never_ranked() -> None:
    decision = decide(FACTS, [local("a", healthy=False), cloud("c", permitted=False)])
    assert decision.ranked == ()
    assert [veto.reason for veto in decision.vetoes] == ["unhealthy", "boundary"]
    assert decision.overflow is None


def test_the_wanted_size_comes_first_and_the_other_may_serve() -> None:
    small, large = local("s", size="small"), local("l", size="large")
    assert decide(FACTS, [small, large], routing=LARGE).ranked == ("local/l", "local/s")
    assert decide(FACTS, [large, small], routing=SMALL).ranked == ("local/s", "local/l")
    assert decide(FACTS, [small, local("l", size="large", healthy=False)], routing=LARGE).ranked == ("local/s",)
    assert decide(FACTS, [small, large], routing=LARGE).rule == "complexity: large (uses tools)"


def test_local_before_cloud_within_a_size() -> None:
    candidates = [cloud("L", size="large"), local("l", size="large"), local("s", size="small")]
    decision = decide(FACTS, candidates, routing=LARGE)
    assert decision.ranked == ("local/l", "cloud/L", "local/s")
    assert decision.overflow is None


def test_a_large_model_in_the_cloud_is_chosen_over_a_small_one_at_home_and_says_why() -> None:
    small, large = local("s", size="small"), cloud("L", size="large")
    decision = decide(FACTS, [small, large], routing=LARGE)
    assert decision.ranked == ("cloud/L", "local/s")
    assert decision.overflow == "size"
    full = local("l", size="large", in_flight=1, concurrency=1)
    assert decide(FACTS, [small, full, large], routing=LARGE).overflow == "saturated"
    assert decide(FACTS, [small, large], routing=SMALL).ranked == ("local/s", "cloud/L")
    kept = decide(FACTS, [small, cloud("L", size="large", permitted=False)], routing=LARGE)
    assert kept.ranked == ("local/s",)  # what may not leave is answered by what there is


candidates = st.lists(
    st.builds(
        lambda number, boundary, **changes: _candidate(str(number), boundary, changes),
        st.integers(0, 10**9),
        st.sampled_from(["local", "cloud", "partner"]),
        permitted=st.booleans(),
        healthy=st.booleans(),
        priced=st.booleans(),
        translatable=st.booleans(),
        in_flight=st.integers(0, 3),
        concurrency=st.none() | st.integers(1, 3),
        context=st.none() | st.sampled_from([50, 200]),
        size=st.sampled_from([None, "small", "large"]),
    ),
    max_size=6,
    unique_by=lambda candidate: candidate.target,
)


@given(candidates, st.sampled_from([None, LARGE, SMALL]))
def test_law_12_every_candidate_is_ranked_or_has_its_reason(given: list[Candidate], routing: Routing | None) -> None:
    decision = decide(FACTS, given, routing=routing)
    vetoed = [veto.target for veto in decision.vetoes]
    assert sorted([*decision.ranked, *vetoed]) == sorted(candidate.target for candidate in given)
    assert vetoed == [candidate.target for candidate in given if candidate.target in set(vetoed)]
    by_name = {candidate.target: candidate for candidate in given}
    assert all(by_name[name].permitted and by_name[name].healthy for name in decision.ranked)
    at_home = [candidate for candidate in given if candidate.boundary == "local"]
    left_home = bool(decision.ranked and at_home) and by_name[decision.ranked[0]].boundary != "local"
    assert (decision.overflow is not None) == left_home
    assert decide(FACTS, given, routing=routing) == decision
