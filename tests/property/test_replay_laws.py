"""A replay tells what was, or says that it cannot: hidden facts never make it tell something else."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from policies.conditions import Node, compiled, parse
from policies.replaying import FAULT, Recorded, first, possible
from policies.signals import SignalFailed

CODE = ("code", "maths", "json")
FACTS = st.fixed_dictionaries(
    {
        "tokens": st.integers(0, 12),
        "stream": st.booleans(),
        "language": st.sampled_from([None, "de", "en"]),
        "complexity": st.sampled_from([None, 10.0, 50.0, 90.0]),
        "tenant": st.sampled_from(["a", "b"]),
        **{f"structure.{name}": st.booleans() for name in CODE},
    }
)
FAILING = st.sets(st.sampled_from(["complexity", "route"]), max_size=1)
TABLES = st.one_of(
    st.builds(lambda low: {"tokens": {"over": low}}, st.integers(0, 12)),
    st.builds(lambda value: {"stream": value}, st.booleans()),
    st.builds(lambda value: {"language": value}, st.sampled_from(["de", "en"])),
    st.builds(lambda low: {"complexity": {"at_least": low}}, st.sampled_from([0, 30, 70])),
    st.builds(lambda value: {"tenant": value}, st.sampled_from(["a", "b"])),
    st.builds(lambda names: {"structure": names}, st.lists(st.sampled_from(CODE), min_size=1, max_size=3, unique=True)),
    st.just({"route": "coding"}),
    st.just({"expr": 'tokens > 4 && tenant == "a"'}),
    st.just({"expr": "complexity != null && complexity > 40.0"}),
)


def tree(table: Any) -> Node:
    node, mistakes = parse(table)
    assert not mistakes
    return node


NODES = st.recursive(
    TABLES,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"all": parts}),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"any": parts}),
        inner.map(lambda part: {"not": part}),
    ),
    max_leaves=8,
)


def live(node: Node, recorded: Recorded) -> Any:
    try:
        return compiled(node)(recorded)  # type: ignore[arg-type]
    except SignalFailed:
        return FAULT


def known(facts: dict[str, Any], failing: set[str]) -> tuple[dict[str, Any], frozenset[str]]:
    facts = {"route": "coding", **facts}
    return {name: value for name, value in facts.items() if name not in failing}, frozenset(failing)


@settings(max_examples=400, deadline=None)
@given(NODES, FACTS, FAILING)
def test_law_12_with_every_fact_a_replay_tells_what_was(table: Any, facts: dict[str, Any], failing: set[str]) -> None:
    node = tree(table)
    recorded = Recorded(known(facts, failing)[0], {}, known(facts, failing)[1])
    assert possible(node, recorded) == {live(node, recorded)}


@settings(max_examples=600, deadline=None)
@given(NODES, FACTS, FAILING, st.data())
def test_law_12_a_hidden_fact_never_changes_what_is_told(
    table: Any, facts: dict[str, Any], failing: set[str], data: Any
) -> None:
    node = tree(table)
    there, failed = known(facts, failing)
    whole = Recorded(there, {}, failed)
    hidden = data.draw(st.sets(st.sampled_from(sorted({*there, *failed}))))
    part = Recorded({name: value for name, value in there.items() if name not in hidden}, {}, failed - hidden)
    assert live(node, whole) in possible(node, part)


@settings(max_examples=300, deadline=None)
@given(st.lists(NODES, min_size=1, max_size=4), FACTS, FAILING, st.data())
def test_law_12_the_decision_that_is_told_is_the_one_that_matched(
    tables: list[Any], facts: dict[str, Any], failing: set[str], data: Any
) -> None:
    nodes = [tree(table) for table in tables]
    there, failed = known(facts, failing)
    whole = Recorded(there, {}, failed)
    matched: Any = None
    for number, node in enumerate(nodes):
        found = live(node, whole)
        if found:
            matched = FAULT if found == FAULT else number
            break
    told = first(nodes, whole)
    assert (FAULT if told.fault else told.decision) == matched and not told.missing
    hidden = data.draw(st.sets(st.sampled_from(sorted({*there, *failed}))))
    part = Recorded({name: value for name, value in there.items() if name not in hidden}, {}, failed - hidden)
    told = first(nodes, part)
    assert told.missing or (FAULT if told.fault else told.decision) == matched
    assert not told.missing or set(told.missing) <= hidden
