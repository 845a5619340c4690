"""The gate and its measures, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from policies import promotion
from policies.drift import LEAST, drift
from policies.promotion import apgr, cpt, promote, qualities, route_means, share_for


def test_apgr_by_hand() -> None:
    assert apgr([3, 2, 1, 0], [1, 0, 0, 0]) == pytest.approx(1 - 1 / 8)  # the one that gains goes up first
    assert apgr([0, 1, 2, 3], [1, 0, 0, 0]) == pytest.approx(1 / 8)
    assert apgr([5, 5, 5, 5], [1, 0, 0, 1]) == pytest.approx(0.5)
    assert apgr([1, 2], [0, 0]) is None
    assert apgr([1, 2], [-1, 0]) is None


def test_cpt_by_hand() -> None:
    gains = [1, 1, 0, 0]
    assert cpt([4, 3, 2, 1], gains, 0.5) == pytest.approx(0.25)
    assert cpt([4, 3, 2, 1], gains, 1.0) == pytest.approx(0.5)
    assert cpt([1, 1, 1, 1], gains, 0.8) == pytest.approx(0.8)  # chance: as much of the gap as of the calls
    assert cpt([1, 1], [0, 0], 0.5) is None


def test_each_routes_mean_is_of_other_rows() -> None:
    gains = np.array([1.0, 0.0, 1.0, 0.5, 0.0])
    found = route_means(["a", "a", "b", "b", "c"], gains, np.array([0, 1, 2]), np.array([3, 4]))
    assert found.tolist() == [1.0, pytest.approx(2 / 3)]


def test_a_scorer_that_knows_no_more_than_the_route_is_refused() -> None:
    dice = np.random.default_rng(1)
    hard = np.arange(600) % 2
    gains = (dice.random(600) < np.where(hard == 1, 0.6, 0.1)).astype(float)
    assert promote(hard.astype(float), gains, [1] * 600).promoted
    gate = promote(hard + 0.2 * dice.normal(size=600), gains, [1] * 600, hard.astype(float))
    assert not gate.promoted and "each route's mean gain" in gate.why
    assert promote(hard + 0.5 * gains, gains, [1] * 600, hard.astype(float)).promoted


def test_without_a_gap_nothing_is_promoted() -> None:
    gate = promote(np.arange(100.0), np.zeros(100), [1] * 100)
    assert not gate.promoted and gate.apgr is None and "no better" in gate.why


def test_the_words_stand_beside_and_decide_nothing() -> None:
    dice = np.random.default_rng(2)
    gains = (dice.random(500) < 0.3).astype(float)
    gate = promote(gains + dice.normal(size=500), gains, (gains * 100).astype(int).tolist())
    assert gate.promoted and gate.words is not None and gate.words > (gate.apgr or 1)


def test_quality_at_a_share() -> None:
    ranks = np.array([0.9, 0.7, 0.3, 0.1])
    strong, weak = np.ones(4), np.array([0.0, 0.0, 1.0, 1.0])
    found = qualities(ranks, strong, weak, [0, 0.2, 1])
    assert [row.quality for row in found] == [0.5, 0.75, 1.0]
    assert found[-1].low == found[-1].high == 1
    assert share_for(ranks, strong, weak, 0.75) == pytest.approx(0.1)
    assert share_for(ranks, strong, weak, 1.0) == pytest.approx(0.3)
    assert share_for(ranks, strong, weak, 0.5) == 0
    assert share_for(ranks, strong, weak, 1.1) is None


def test_the_share_for_a_quality_holds_at_all_larger_shares() -> None:
    ranks = np.array([0.95, 0.75, 0.55, 0.35])
    strong, weak = np.array([1.0, 0.0, 1.0, 1.0]), np.array([0.0, 1.0, 0.0, 1.0])
    share = share_for(ranks, strong, weak, 0.95)
    assert share is not None
    for row in qualities(ranks, strong, weak, [at / 100 for at in range(round(share * 100), 101)]):
        assert row.quality >= 0.95


def test_a_strong_model_without_success_is_no_measure() -> None:
    with pytest.raises(ValueError, match="none of these"):
        qualities(np.zeros(3), np.zeros(3), np.ones(3), [0.5])


def test_like_traffic_raises_no_alarm_and_unlike_does() -> None:
    dice = np.random.default_rng(4)
    like = drift(dice.random(2000).tolist(), 1000, 0.3)
    assert not like.alarm and like.index is not None and like.index < 0.05
    assert like.strong_share == pytest.approx(0.3, abs=0.04)
    unlike = drift((dice.random(2000) ** 0.4).tolist(), 1000, 0.3)
    assert unlike.alarm and (unlike.gap or 0) > (unlike.chance or 1)
    assert (unlike.strong_share or 0) > 0.5


def test_too_little_traffic_says_nothing() -> None:
    found = drift([1.0] * (LEAST - 1), 1000, 0.3)
    assert (found.alarm, found.index, found.seen) == (False, None, LEAST - 1)
    assert drift([1.0] * LEAST, 1000).alarm
    assert drift([1.0] * LEAST, 0).index is None


def test_a_large_index_by_chance_alone_raises_no_alarm() -> None:
    """A calibration on few prompts is uncertain itself."""
    skewed = [at / 400 * 0.9 for at in range(400)]
    assert not drift(skewed, 60).alarm


def test_resamples_are_the_same_each_time() -> None:
    dice = np.random.default_rng(5)
    scores, gains = dice.normal(size=200), (dice.random(200) < 0.4).astype(float)
    assert promote(scores, gains, [1] * 200) == promote(scores, gains, [1] * 200)
    assert promotion.promote(scores, gains, [1] * 200, seed=1).low != promote(scores, gains, [1] * 200).low
