"""From one outcome a prompt to an unbiased guess of both."""

from __future__ import annotations

import numpy as np
import pytest

from policies import promotion
from policies.gain import folds, names_of
from policies.learning import Examples, learn_from
from policies.weighing import both, usable


def drawn(count: int, seed: int, chance: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(true strong outcomes, true weak ones, which arm was drawn, the arm's propensity): the gain grows with the row."""
    dice = np.random.default_rng(seed)
    hard = np.linspace(0, 1, count)
    strong, weak = np.full(count, 0.9), 0.9 - 0.8 * hard
    arm = dice.random(count) < chance
    return strong, weak, arm, np.where(arm, chance, 1 - chance)


@pytest.mark.parametrize("chance", [0.5, 0.2, 0.05])
def test_the_guess_is_right_on_average_whatever_the_propensity(chance: float) -> None:
    found = []
    for seed in range(200):
        strong, weak, arm, propensities = drawn(400, seed, chance)
        guesses = both(np.where(arm, strong, weak), arm, propensities)
        gain = guesses[0] - guesses[1]
        found.append((gain.mean(), gain[:200].mean(), gain[200:].mean()))
    mean, easy, hard = np.mean(found, axis=0)
    assert mean == pytest.approx(0.4, abs=0.02)
    assert easy == pytest.approx(0.2, abs=0.03) and hard == pytest.approx(0.6, abs=0.03)


def test_without_weights_a_skewed_draw_would_mislead_and_with_them_it_does_not() -> None:
    """Two phases: hard prompts came mostly while little was local, so that plain means of the arms compare unlike prompts."""
    dice = np.random.default_rng(3)
    hard = np.repeat([0.0, 1.0], 4000)
    chance = np.where(hard > 0, 0.9, 0.1)  # of the strong arm
    arm = dice.random(8000) < chance
    outcome = np.where(arm, 0.9 - 0.5 * hard, 0.9 - 0.5 * hard)  # both models are alike
    naive = outcome[arm].mean() - outcome[~arm].mean()
    strong, weak = both(outcome, arm, np.where(arm, chance, 1 - chance))
    assert abs(naive) > 0.3 and abs((strong - weak).mean()) < 0.05


def test_what_chance_did_not_choose_is_refused() -> None:
    assert [usable(chance) for chance in (0.0, 0.005, 0.01, 0.5, 0.99, 0.995, 1.0)] == [
        False,
        False,
        True,
        True,
        True,
        False,
        False,
    ]
    with pytest.raises(ValueError, match="all but certain"):
        both([1.0, 0.0], [True, False], [1.0, 0.5])
    for arms in ([True, True], [False, False]):
        with pytest.raises(ValueError, match="one arm"):
            both([1.0, 0.0], arms, [0.5, 0.5])


def test_clusters_widen_the_interval_and_change_no_measure() -> None:
    """Rows of one user stand or fall together: ten users are not a thousand pieces of evidence."""
    dice = np.random.default_rng(5)
    users = np.repeat(np.arange(20), 50)
    lean = dice.normal(size=20)[users]
    gains = 2 + lean + dice.normal(size=1000)
    scores = lean + dice.normal(size=1000)
    alone = promotion.promote(scores, gains, [1.0] * 1000)
    together = promotion.promote(scores, gains, [1.0] * 1000, clusters=[str(user) for user in users])
    assert alone.apgr == together.apgr and alone.low is not None and together.low is not None
    assert alone.high is not None and together.high is not None
    assert together.high - together.low > 1.5 * (alone.high - alone.low)
    each = promotion.promote(scores, gains, [1.0] * 1000, clusters=[str(row) for row in range(1000)])
    assert each.low == pytest.approx(alone.low, abs=0.03)


def test_noise_is_seldom_promoted() -> None:
    """The interval's lower end is passed by chance in one case of forty; of sixty draws a few at most."""
    passed = 0
    for seed in range(60):
        dice = np.random.default_rng(seed)
        arm = dice.random(300) < 0.5
        outcome = np.where(arm, dice.random(300) < 0.8, dice.random(300) < 0.6).astype(float)
        strong, weak = both(outcome, arm, np.full(300, 0.5))
        passed += promotion.promote(dice.random(300), strong - weak, [1.0] * 300).promoted
    assert passed <= 5


def test_noise_of_users_is_seldom_promoted() -> None:
    """A user's prompts are alike and all drew one arm: to have learnt from some of them is to know how that arm did with the
    others, and says nothing of anybody else."""
    passed = 0
    for seed in range(20):
        dice = np.random.default_rng(seed)
        arm, lucky, style = dice.random(150) < 0.5, dice.normal(0.5, 0.2, 150), dice.normal(size=(150, 64))
        user = np.repeat(np.arange(150), 6)
        outcome = (dice.random(900) < np.clip(lucky + 0.25 * arm, 0, 1)[user]).astype(float)
        strong, weak = both(outcome, arm[user], np.full(900, 0.5))
        vectors = style[user] + 0.5 * dice.normal(size=(900, 64))
        examples = Examples(
            kind="prompt", named=dice.random((900, len(names_of("prompt")))), vectors=vectors / np.linalg.norm(vectors, axis=1)[:, None],
            strong=strong, weak=weak, groups=[str(row) for row in range(900)], routes=[""] * 900, words=[1.0] * 900,
            clusters=[str(one) for one in user],
        )  # fmt: skip
        passed += learn_from(examples, "", made="2026-01-01").promotion.promoted
    assert passed <= 3


def test_no_row_is_tried_by_what_knows_its_prompt_or_its_user() -> None:
    groups, users = list("aabbccddeeffgghh"), list("1234123412341234")
    rows = []
    for learnt, tried in folds(groups, 1, clusters=users):
        rows += tried.tolist()
        assert not {groups[row] for row in learnt} & {groups[row] for row in tried}
        assert not {users[row] for row in learnt} & {users[row] for row in tried}
    assert sorted(rows) == list(range(16))
    with pytest.raises(ValueError, match="too few"):
        list(folds(groups, 1, clusters=["1"] * 16))
