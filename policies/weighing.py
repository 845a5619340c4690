"""From one model's outcome for each prompt to an unbiased guess of both, where it was chance that chose the model.

The guess is augmented inverse propensity weighting (Robins, Rotnitzky and Zhao, 1994) with a constant as its model:

    guess(arm) = mean(arm) + [the arm was drawn] (outcome - mean(arm)) / propensity(arm)

Its mean over prompts of one kind is their true mean in that arm, so a scorer that is fitted on the difference of both
guesses learns the true gain.  Where no chance chose (a decision did), there is no such guess: prompts that went to the
strong model were others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from policies.promotion import Numbers

LEAST = 0.01
"""Propensity below which a draw says too little: one such row would count for more than a hundred."""


def usable(propensity: float) -> bool:
    """Had both arms a fair chance?  `propensity` is that of the arm which was drawn."""
    return LEAST <= propensity <= 1 - LEAST


def both(
    outcomes: Sequence[float] | Numbers, strong: Sequence[bool], propensities: Sequence[float] | Numbers
) -> tuple[Numbers, Numbers]:
    """(guesses of the strong arm's outcomes, of the weak one's).

    `strong` says which arm each row drew, `propensities` how likely that arm was.  Raises ValueError where an arm is
    empty, or a propensity not `usable`.
    """
    values, drawn = np.asarray(outcomes, np.float64), np.asarray(strong, bool)
    chances = np.asarray(propensities, np.float64)
    if not all(map(usable, chances.tolist())):
        raise ValueError("a row's arm was all but certain, so it says nothing of the other")
    if not drawn.any() or drawn.all():
        raise ValueError("all rows drew one arm: nothing is known of the other")
    return _guesses(values, drawn, chances), _guesses(values, ~drawn, chances)


def _guesses(values: Numbers, drawn: Numbers, chances: Numbers) -> Numbers:
    weights = np.where(drawn, 1 / chances, 0.0)
    mean = float((weights * values).sum() / weights.sum())  # Hajek's: it does not hang on how many were drawn
    return np.asarray(mean + weights * (values - mean), np.float64)
