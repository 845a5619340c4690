"""The comparison of two arms: its interval holds what it promises, by simulation, and its words follow from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from policies.parity import (
    API,
    FEWEST,
    LOCAL,
    UNLIKELY,
    Margin,
    chance_of,
    chance_of_split,
    compare,
    mean,
    more_needed,
)

RELATIVE = Margin(0.05, relative=True)
Sample = Callable[[np.random.Generator], tuple[Any, Any, Any, Any]]


def by_request(rng: np.random.Generator) -> tuple[Any, Any, Any, Any]:
    """Yes or no, each request a unit: 90 % against 88 %."""
    count = 300
    arms = rng.integers(0, 2, count)
    values = (rng.random(count) < np.where(arms == LOCAL, 0.88, 0.90)).astype(float)
    return np.arange(count), np.zeros(count, int), arms, values


def by_unit(rng: np.random.Generator) -> tuple[Any, Any, Any, Any]:
    """Forty users of unequal size, each with a rate of their own."""
    size = rng.geometric(0.08, 40)
    rate = rng.beta(6, 2, 40)
    arm = np.arange(40) % 2
    units = np.repeat(np.arange(40), size)
    values = (rng.random(len(units)) < rate[units]).astype(float)
    return units, np.zeros(len(units), int), arm[units], values


def skewed(rng: np.random.Generator) -> tuple[Any, Any, Any, Any]:
    """Minutes, with a long tail."""
    arms = np.repeat([LOCAL, API], 120)
    return np.arange(240), np.zeros(240, int), arms, rng.lognormal(1.0, 0.8, 240)


def in_phases(rng: np.random.Generator) -> tuple[Any, Any, Any, Any]:
    """Two phases with other shares and other levels: what is pooled over them is wrong by far."""
    strata = np.repeat([0, 1], 250)
    arms = np.where(rng.random(500) < np.where(strata == 0, 0.2, 0.8), LOCAL, API)
    values = np.where(strata == 0, 0.3, 0.8) + rng.normal(0, 0.3, 500)
    return np.arange(500), strata, arms, values


@pytest.mark.parametrize(
    ("sample", "truth", "least"), [(by_request, -0.02, 0.925), (by_unit, 0.0, 0.915), (skewed, 0.0, 0.915), (in_phases, 0.0, 0.925)]
)  # fmt: skip
def test_the_interval_covers_the_truth_as_often_as_it_says(sample: Sample, truth: float, least: float) -> None:
    """Of 300 seeded experiments about 285 intervals hold the truth: less than 3 standard deviations of that proportion off."""
    rng = np.random.default_rng(11)
    held = width = 0
    trials = 300
    for number in range(trials):
        found = compare(*sample(rng), RELATIVE, replicates=300, seed=number)
        assert found is not None and found.difference is not None
        held += found.difference.low <= truth <= found.difference.high
        width += found.difference.high - found.difference.low
    assert least <= held / trials <= 0.985
    assert width / trials < 4  # nor by being wide


def test_a_bootstrap_of_requests_would_promise_too_much() -> None:
    """The reason for resampling units: the same data as if each request stood alone."""
    rng = np.random.default_rng(12)
    alone = together = 0
    for number in range(150):
        units, strata, arms, values = by_unit(rng)
        apart = compare(np.arange(len(units)), strata, arms, values, RELATIVE, replicates=300, seed=number)
        whole = compare(units, strata, arms, values, RELATIVE, replicates=300, seed=number)
        assert apart is not None and apart.difference is not None and whole is not None and whole.difference is not None
        alone += apart.difference.low <= 0 <= apart.difference.high
        together += whole.difference.low <= 0 <= whole.difference.high
    assert alone / 150 < 0.85 < together / 150


def test_a_margin_that_is_kept_exactly_is_seldom_shown() -> None:
    """At the edge of what is allowed, parity is claimed in about one of forty experiments."""
    rng = np.random.default_rng(13)
    shown = 0
    for number in range(300):
        count = 400
        arms = rng.integers(0, 2, count)
        values = (rng.random(count) < np.where(arms == LOCAL, 0.95 * 0.8, 0.8)).astype(float)
        found = compare(np.arange(count), np.zeros(count, int), arms, values, RELATIVE, replicates=400, seed=number)
        assert found is not None and found.room is not None
        shown += found.room.low > 0
    assert shown / 300 <= 0.05


def test_the_same_data_give_the_same_interval() -> None:
    sample = by_unit(np.random.default_rng(1))
    assert compare(*sample, RELATIVE) == compare(*sample, RELATIVE)
    order = np.random.default_rng(2).permutation(len(sample[0]))
    assert compare(*[part[order] for part in sample], RELATIVE) == compare(*sample, RELATIVE)


def test_estimates_are_the_means_and_phases_are_not_pooled() -> None:
    units, strata, arms, values = in_phases(np.random.default_rng(3))
    found = compare(units, strata, arms, values, RELATIVE)
    assert found is not None and found.difference is not None and found.ratio is not None
    assert abs(found.difference.estimate) < 0.1 < values[arms == LOCAL].mean() - values[arms == API].mean()
    assert math.isclose(found.local - found.api, found.difference.estimate)
    assert math.isclose(found.local / found.api, found.ratio.estimate)
    one = compare(units, np.zeros(500, int), arms, values, RELATIVE)
    assert one is not None and math.isclose(one.local, values[arms == LOCAL].mean())


def test_margins_in_either_form_and_direction() -> None:
    rng = np.random.default_rng(4)
    arms = rng.integers(0, 2, 2_000)
    values = np.where(arms == LOCAL, 9.5, 10.0) + rng.normal(0, 0.5, 2_000)
    sample = (np.arange(2_000), np.zeros(2_000, int), arms, values)

    def shown(amount: float, relative: bool, higher: bool) -> bool:
        found = compare(*sample, Margin(amount, relative, higher))
        assert found is not None and found.room is not None
        return found.room.low > 0

    assert shown(0.10, True, True) and not shown(0.04, True, True)
    assert shown(1.0, False, True) and not shown(0.3, False, True)
    assert shown(0.01, True, False)  # where lower is better, local is better


def test_too_few_units_have_no_interval() -> None:
    arms = np.array([LOCAL, API] * 200)
    values = np.random.default_rng(5).random(400)
    found = compare(np.arange(400) % (2 * (FEWEST - 1)), np.zeros(400, int), arms, values, RELATIVE)
    assert found is not None and found.difference is None and found.room is None
    assert (found.units, found.measured) == ((FEWEST - 1, FEWEST - 1), (200, 200))


def test_nothing_to_compare() -> None:
    assert compare(np.arange(4), np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1]), np.ones(4), RELATIVE) is None
    assert compare(*[np.zeros(0, int)] * 3, np.zeros(0), RELATIVE) is None


def test_arms_without_a_single_failure_are_not_sure_yet() -> None:
    arms = np.array([LOCAL, API] * 40)
    found = compare(np.arange(80), np.zeros(80, int), arms, np.ones(80), RELATIVE)
    assert found is not None and found.room is not None and found.levelled
    assert (found.local, found.api) == (1.0, 1.0)
    assert found.room.low < 0.05 and found.room.high - found.room.low > 0.02
    flat = compare(np.arange(80), np.zeros(80, int), arms, np.where(arms == LOCAL, 3.5, 4.0), RELATIVE)
    assert flat is not None and flat.room is None


def test_units_that_are_good_as_a_whole_say_as_much_as_there_are_of_them() -> None:
    """One local unit of seven is bad in all it asks: where none was among so few, nothing is shown."""
    rng = np.random.default_rng(15)
    units = np.repeat(np.arange(20), 200)
    arms = units % 2
    shown = levelled = 0
    for number in range(120):
        good = rng.random(20) < np.where(np.arange(20) % 2 == LOCAL, 0.85, 1.0)
        found = compare(
            units, np.zeros(4_000, int), arms, good[units].astype(float), RELATIVE, replicates=200, seed=number
        )
        assert found is not None
        levelled += found.levelled
        shown += found.room is not None and found.room.low > 0
    assert levelled > 10
    assert shown <= 6
    flat = compare(units, np.zeros(4_000, int), arms, np.ones(4_000), RELATIVE)
    assert flat is not None and (flat.local, flat.api, flat.units, flat.measured) == (
        1.0,
        1.0,
        (10, 10),
        (2_000, 2_000),
    )


def test_what_is_rounding_is_no_spread() -> None:
    """The same five values of each unit, in another order each: all that differs are the sums' last digits."""
    rng = np.random.default_rng(16)
    values = np.concatenate([rng.permutation([0.1, 0.2, 0.3, 0.7, 1.1]) for _ in range(16)])
    sample = (np.repeat(np.arange(16), 5), np.zeros(80, int), np.repeat([LOCAL, API] * 8, 5))
    found = compare(*sample, values, RELATIVE)
    assert found is not None and found.difference is None and found.ratio is None and found.room is None
    other = compare(*sample, values + np.repeat(rng.normal(0, 1e-6, 16), 5), RELATIVE)
    assert other is not None and other.difference is not None


def test_numbers_too_large_to_square_give_no_interval() -> None:
    values = np.where(np.arange(40) % 3, 1e299, -1e299)
    found = compare(np.arange(40), np.zeros(40, int), np.array([LOCAL, API] * 20), values, RELATIVE)
    assert found is not None and found.difference is None and found.room is None


def test_a_few_scores_that_are_almost_alike_do_not_show_much() -> None:
    """One copy of ten agrees in nothing: where eight are all that there are, and none of them is such a one."""
    rng = np.random.default_rng(17)
    shown = 0
    for number in range(200):
        found = mean(
            np.where(rng.random(FEWEST) < 0.1, 0.0, rng.uniform(0.97, 1.0, FEWEST)), replicates=200, seed=number
        )
        assert found is not None and found.low <= found.estimate <= found.high
        shown += found.low > 0.95
    assert shown <= 10


def test_the_mean_of_scores() -> None:
    rng = np.random.default_rng(6)
    held = 0
    for number in range(300):
        found = mean((rng.random(250) < 0.93).astype(float), replicates=400, seed=number)
        assert found is not None
        held += found.low <= 0.93 <= found.high
    assert 0.91 <= held / 300 <= 0.985
    assert mean(np.ones(FEWEST - 1)) is None
    sure = mean(np.ones(50))
    assert sure is not None and sure.low < 1.0


def test_how_many_more_are_needed_comes_true() -> None:
    """With as many as it says, parity is shown in most repetitions, and with a quarter of them in few."""
    rng = np.random.default_rng(7)

    def sample(count: int) -> Any:
        arms = rng.integers(0, 2, count)
        values = (rng.random(count) < np.where(arms == LOCAL, 0.88, 0.9)).astype(float)
        return compare(np.arange(count), np.zeros(count, int), arms, values, RELATIVE, replicates=200)

    pilot = sample(4_000)
    more = more_needed(pilot.room, 4_000)
    assert more is not None
    enough = sum(sample(4_000 + more).room.low > 0 for _ in range(40))
    few = sum(sample((4_000 + more) // 6).room.low > 0 for _ in range(40))
    assert few < 20 < enough


@pytest.mark.parametrize("count", [500, 5_000])  # added up one by one, and by a normal curve
def test_a_division_that_was_not_drawn_is_seen(count: int) -> None:
    apart = {(0.5,): count, (0.8,): count}
    assert chance_of_split(round(1.302 * count), apart) > 0.1
    assert chance_of_split(round(1.44 * count), apart) < UNLIKELY
    assert chance_of_split(0, {(0.0,): count}) == 1.0
    assert chance_of_split(count, {(1.0,): count}) == 1.0
    assert chance_of_split(count - 1, {(1.0,): count}) == 0.0  # a draw that cannot have been


def test_chance_of_a_division() -> None:
    assert math.isclose(
        chance_of_split(7, {(0.95,): 10}), 2 * 0.01150, rel_tol=1e-3
    )  # not as a normal curve has it, 0.0003
    assert chance_of_split(9, {(0.95,): 10}) > 0.5


@pytest.mark.parametrize("count", [60, 800])
def test_a_unit_that_is_in_several_phases_was_drawn_once(count: int) -> None:
    """Its draws are alike, and a sum of what is alike spreads further: chance is called a fault as seldom as it says."""
    rng = np.random.default_rng(14)
    shares = (0.5, 0.8, 0.95)
    found = [
        chance_of_split(int((rng.random(count)[:, None] < np.array(shares)).sum()), {shares: count})
        for _ in range(1_000)
    ]
    assert sum(chance < 0.02 for chance in found) <= 35  # 20, and more than three standard deviations; apart: about 80
    assert sum(chance < 0.3 for chance in found) > 150
    assert chance_of(0.0) == 1.0
    assert math.isclose(chance_of(-1.96), chance_of(1.96)) and math.isclose(chance_of(1.96), 0.05, abs_tol=0.0005)
