"""Laws 1 and 12 over declared decisions: whatever they say, nothing goes where compliance does not let it."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from signalling import facts, signals

from policies.conditions import STRUCTURES, Node, compiled, parse, reads
from policies.decide import decide
from policies.declared import declared, first, places
from policies.model import Candidate, Steering
from policies.semantic import Placed
from policies.shadows import Row, unreached
from policies.signals import Found, SignalFailed, Who

TARGETS = ("cpu/s", "gpu/l", "sky/g", "far/c")
BOUNDARY = {"cpu/s": "local", "gpu/l": "local", "sky/g": "cloud", "far/c": "cloud"}
numbers = st.integers(0, 6)
comparisons = st.dictionaries(st.sampled_from(["over", "under", "at_least", "at_most"]), numbers, min_size=1)
leaves: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.fixed_dictionaries({"tokens": comparisons}),
    st.fixed_dictionaries({"messages": comparisons}),
    st.fixed_dictionaries({"max_output": comparisons}),
    st.fixed_dictionaries({"route": st.lists(st.sampled_from(["coding", "maths", "none"]), min_size=1, max_size=2)}),
    st.fixed_dictionaries({"stream": st.booleans()}),
    st.fixed_dictionaries({"language": st.sampled_from(["en", "de"])}),
    st.fixed_dictionaries({"structure": st.lists(st.sampled_from(STRUCTURES[:4]), min_size=1, max_size=2)}),
    st.fixed_dictionaries({"found": st.lists(st.sampled_from(["ssn", "card"]), min_size=1)}),
    st.fixed_dictionaries({"expr": st.sampled_from(["tokens > 3", 'stream && tenant == "a"'])}),
    st.just({}),
)
conditions = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"all": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"any": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"not": inner}),
    ),
    max_leaves=5,
)
texts = st.sampled_from(["how do I fix this in the code", "wie geht das und was ist die", "```x```", '{"a": 1}', "zzz"])


def node_of(when: dict[str, Any]) -> Node:
    node, mistakes = parse(when)
    assert not mistakes
    return node


@st.composite
def requests(draw: st.DrawFn) -> Any:
    route = draw(st.sampled_from(["coding", "maths", None, "broken"]))

    def place(_: str) -> Placed:
        if route == "broken":
            raise RuntimeError
        return Placed(route, 0.5, 0.1, (), ("coding", 0, 0.5), 0.0)

    return signals(
        draw(texts),
        found=Found(tuple(draw(st.lists(st.sampled_from(["ssn", "card", "opaque"]), unique=True)))),
        who=Who(tenant=draw(st.sampled_from(["a", "b"]))),
        place=place,
        prompt_tokens=draw(numbers),
        messages=draw(numbers),
        max_output=draw(st.none() | numbers),
        stream=draw(st.booleans()),
    )


@given(
    st.lists(
        st.tuples(conditions, st.lists(st.sampled_from(TARGETS), unique=True, min_size=1)), min_size=1, max_size=4
    ),
    requests(),
    st.dictionaries(st.sampled_from(TARGETS), st.booleans()),
)
def test_law_01_no_decision_brings_a_cloud_target_to_what_must_stay(
    rows: list[tuple[dict[str, Any], list[str]]], read: Any, healthy: dict[str, bool]
) -> None:
    """A verdict of keep_local permits local candidates alone; no condition, order or failure adds another."""
    decisions = [declared(str(n), node_of(when), use) for n, (when, use) in enumerate(rows)]
    choice = first(decisions, read)
    use = choice.declared.use if choice.declared is not None else ("sky/g",)  # a default may be anything, too
    candidates = [
        Candidate(
            name,
            name.partition("/")[0],
            where,
            frozenset({"chat"}),
            None,
            where == "local",
            healthy=healthy.get(name, True),
        )
        for name, where in BOUNDARY.items()
    ]
    decision = decide(facts(action="keep_local"), candidates, steering=Steering("decision: x", places(use)))
    assert all([BOUNDARY[name] == "local" for name in decision.ranked])
    assert {veto.target for veto in decision.vetoes if veto.reason == "boundary"} == {"sky/g", "far/c"}
    # Law 12: every candidate is ranked, or it is said why it is not.
    assert {*decision.ranked, *[veto.target for veto in decision.vetoes]} == set(TARGETS)


few = st.integers(0, 2)
bounds = st.dictionaries(st.sampled_from(["over", "under", "at_least", "at_most"]), few, min_size=1, max_size=2)
narrow = st.recursive(
    st.one_of(
        st.fixed_dictionaries({"tokens": bounds}),
        st.fixed_dictionaries({"max_output": bounds}),
        st.fixed_dictionaries({"stream": st.booleans()}),
        st.fixed_dictionaries({"language": st.sampled_from(["en", "de"])}),
        st.fixed_dictionaries({"structure": st.lists(st.sampled_from(["code", "json"]), min_size=1, unique=True)}),
    ),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"all": st.lists(inner, min_size=2, max_size=2)}),
        st.fixed_dictionaries({"any": st.lists(inner, min_size=2, max_size=2)}),
        st.fixed_dictionaries({"not": inner}),
    ),
    max_leaves=3,
)
EVERY = [
    signals(said + marked, prompt_tokens=tokens, max_output=most, stream=stream)
    for tokens, most, stream, said, marked in itertools.product(
        range(4), (None, 0, 1, 2, 3), (True, False), ("how is the x", "wie ist das", "comment est la", "zzz"), ("", "```x```", '{"a": 1}', '{"a": 1} ```x```')
    )
]  # fmt: skip
"""Every request that `narrow` conditions can tell from another."""


@given(st.lists(narrow, min_size=1, max_size=4))
def test_law_12_a_decision_is_called_unreached_only_where_no_request_reaches_it(whens: list[dict[str, Any]]) -> None:
    """Asked of every request that differs; what is not called so is reached by some."""
    nodes = [node_of(when) for when in whens]
    dead = {one.decision for one in unreached([Row(node, frozenset({"auto"})) for node in nodes])}
    decisions = [declared(str(number), node, ["cpu/s"]) for number, node in enumerate(nodes)]
    reached = set()
    for read in EVERY:
        chosen = first(decisions, read).declared
        if chosen is not None:
            reached.add(int(chosen.name))
    assert not reached & dead
    assert reached | dead == set(range(len(whens)))


@given(conditions, requests())
def test_not_turns_what_is_known_and_leaves_what_is_not(when: dict[str, Any], read: Any) -> None:
    try:
        plain = compiled(node_of(when))(read)
    except SignalFailed:
        return
    turned = compiled(node_of({"not": when}))(read)
    assert turned is (None if plain is None else not plain)


@given(conditions, requests())
def test_only_what_is_said_to_be_read_is_read(when: dict[str, Any], read: Any) -> None:
    node = node_of(when)
    try:
        compiled(node)(read)
    except SignalFailed:
        pass
    known = {name.partition(".")[0] for name in read.read_so_far}
    assert known <= reads(node)


@given(st.fixed_dictionaries({"tokens": comparisons}), requests())
def test_comparisons_are_what_they_say(when: dict[str, Any], read: Any) -> None:
    asked, tokens = when["tokens"], read.facts.prompt_tokens
    expected = (
        (asked.get("over", -1) < tokens)
        and tokens < asked.get("under", 99)
        and asked.get("at_least", 0) <= tokens
        and tokens <= asked.get("at_most", 99)
    )
    assert compiled(node_of(when))(read) is expected
