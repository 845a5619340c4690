"""Laws of experiments: whom the draw takes, what a later phase keeps, and that no arm is a permission."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from policies.decide import decide
from policies.experiment import API, LOCAL, MILLION, draw, number
from policies.model import Candidate, Decision, Facts, Steering, Veto
from proxy.comparing import FULL, NOT_COMPARED, Said, score
from proxy.drawing import excluded

keys = st.binary(min_size=16, max_size=32)
names = st.text(min_size=1, max_size=20)
shares = st.floats(0, 1)


@given(key=keys, experiment=names, kind=names, unit=names, share=shares)
def test_a_draw_is_the_same_each_time_and_says_its_chance(
    key: bytes, experiment: str, kind: str, unit: str, share: float
) -> None:
    drawn = draw(key, experiment, kind, unit, share)
    assert drawn == draw(key, experiment, kind, unit, share)
    found, pseudonym = number(key, experiment, kind, unit)
    assert 0 <= found < 1
    assert drawn.unit == pseudonym
    assert drawn.arm == (LOCAL if found < share else API)
    assert drawn.propensity == round((share if drawn.arm == LOCAL else 1 - share) * MILLION)


@given(key=keys, unit=names, steps=st.lists(shares, min_size=2, max_size=6).map(sorted))
def test_who_is_local_stays_local_as_shares_rise(key: bytes, unit: str, steps: list[float]) -> None:
    arms = [draw(key, "cutover", "user", unit, share).arm for share in steps]
    assert arms == sorted(arms, key=[API, LOCAL].index)


@given(key=keys, share=st.sampled_from([0.0, 0.05, 0.2, 0.5, 0.8, 0.95, 1.0]))
def test_the_share_of_units_is_the_one_that_was_asked_for(key: bytes, share: float) -> None:
    count = 2_000
    local = sum(draw(key, "cutover", "request", f"r{n}", share).arm == LOCAL for n in range(count))
    spread = (count * share * (1 - share)) ** 0.5
    assert abs(local - count * share) <= 6 * spread  # once in five hundred million


@given(key=keys)
def test_experiments_draw_apart_from_each_other(key: bytes) -> None:
    """Who is local in one experiment is no likelier to be so in another, nor under another key."""
    pairs = Counter(
        (draw(key, "one", "user", f"u{n}", 0.5).arm, draw(key, "two", "user", f"u{n}", 0.5).arm) for n in range(1_000)
    )
    assert min(pairs[a, b] for a in (LOCAL, API) for b in (LOCAL, API)) > 150
    other = sum(
        draw(key, "one", "user", f"u{n}", 0.5).arm == draw(key + b"x", "one", "user", f"u{n}", 0.5).arm
        for n in range(1_000)
    )
    assert 350 < other < 650


TARGETS = {"gpu/l": "local", "cpu/s": "local", "sky/a": "cloud", "sky/b": "cloud"}
ARMS = {LOCAL: ("gpu/l", "cpu/s"), API: ("sky/a", "sky/b")}
states = st.fixed_dictionaries(
    {name: st.tuples(st.booleans(), st.booleans(), st.integers(0, 3), st.booleans()) for name in TARGETS}
)


def decided(arm: str, world: dict[str, tuple[bool, bool, int, bool]]) -> Decision:
    candidates = [
        Candidate(
            name, name.partition("/")[0], boundary, frozenset({"chat"} if can else ()), None, permitted, healthy=healthy,
            in_flight=busy, concurrency=3,
        )
        for name, boundary in TARGETS.items()
        for permitted, healthy, busy, can in [world[name]]
    ]  # fmt: skip
    facts = Facts("m", "chat", frozenset({"chat"}), 10, 3, None)
    places = {name: place for place, name in enumerate(ARMS[arm])}
    return decide(facts, candidates, steering=Steering(f"experiment: x, {arm}", places))


@given(arm=st.sampled_from([LOCAL, API]), world=states)
def test_law_01_an_arm_orders_and_never_permits(arm: str, world: dict[str, tuple[bool, bool, int, bool]]) -> None:
    decision = decided(arm, world)
    able = {
        name for name, (permitted, healthy, busy, can) in world.items() if permitted and healthy and busy < 3 and can
    }
    assert set(decision.ranked) == able
    own = [name in ARMS[arm] for name in decision.ranked]
    assert own == sorted(own, reverse=True)  # the arm's own come first


@given(world=states)
def test_what_is_left_out_is_left_out_of_both_arms(world: dict[str, tuple[bool, bool, int, bool]]) -> None:
    """Whether a request is compared does not depend on the arm that it was drawn into, nor on how busy anybody is."""
    found = {excluded(decided(arm, world), ARMS) for arm in (LOCAL, API)}
    assert len(found) == 1
    calm = {name: (permitted, True, 0, can) for name, (permitted, _, _, can) in world.items()}
    lasting = {name for name, (permitted, _, _, can) in world.items() if not (permitted and can)}
    hopeless = any(set(arm) <= lasting for arm in ARMS.values())
    assert bool(excluded(decided(LOCAL, calm), ARMS)) is hopeless
    assert excluded(decided(LOCAL, calm), ARMS) == excluded(decided(API, calm), ARMS)


def test_nothing_is_left_out_for_what_passes() -> None:
    vetoes = tuple(Veto(name, "saturated") for name in ARMS[LOCAL]) + tuple(
        Veto(name, "unhealthy") for name in ARMS[API]
    )
    assert excluded(Decision((), vetoes, "x"), ARMS) == ""
    one = (Veto("sky/a", "boundary"), Veto("sky/b", "saturated"))
    assert excluded(Decision((), one, "x"), ARMS) == ""  # its other target could have served
    assert excluded(Decision((), (Veto("sky/a", "boundary"), Veto("sky/b", "context")), "x"), ARMS) == "boundary"
    assert excluded(None, ARMS) == ""


said = st.builds(Said, st.text(max_size=60), st.lists(st.tuples(names, st.text(max_size=20)), max_size=2).map(tuple))


@given(reference=said, other=said, how=st.sampled_from(["exact", "json", "number"]))
def test_a_score_is_bounded_and_equal_answers_agree(reference: Said, other: Said, how: str) -> None:
    points = score(how, reference, other)
    assert points == NOT_COMPARED or 0 <= points <= FULL
    assert score(how, reference, reference) in (FULL, NOT_COMPARED)
    assert score("exact", reference, reference) == FULL
