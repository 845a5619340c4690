"""Whether traffic is still like that on which a scorer was calibrated.

Percentiles of like traffic are uniform.  Two measures say how far they are from it: the population stability index over
ten equal parts (by convention .1 is worth a look and .25 a new calibration: Siddiqi, Credit Risk Scorecards, 2006), and
the largest gap between the two distributions (Kolmogorov and Smirnov), which says whether chance could do it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from msgspec import Struct

ALARM = 0.25
LEAST = 200
"""Recent prompts below which nothing is said."""
_BY_CHANCE = 1.949
"""Kolmogorov's factor for one in a thousand."""


class Drift(Struct, frozen=True):
    """How unlike the calibration recent traffic is.  `strong_share` is what recent traffic sends up now."""

    alarm: bool
    index: float | None  # population stability index; None: too few prompts to say
    gap: float | None
    chance: float | None  # the gap that chance alone reaches once in a thousand times
    seen: int
    strong_share: float | None


def drift(percentiles: Sequence[float], calibrated: int, share: float | None = None) -> Drift:
    """Recent percentiles (0 to 1) against the calibration on `calibrated` prompts.

    The alarm needs both measures: a large index that chance cannot explain.
    """
    seen = len(percentiles)
    if seen < LEAST or calibrated < 1:
        return Drift(False, None, None, None, seen, None)
    values = np.sort(np.clip(np.asarray(percentiles, np.float64), 0, 1))
    parts = np.bincount(np.minimum((values * 10).astype(np.int64), 9), minlength=10)
    found = (parts + 0.5) / (seen + 5)  # half a prompt more in each part, so that an empty one is no infinity
    index = float(((found - 0.1) * np.log(found / 0.1)).sum())
    steps = np.arange(seen)
    gap = float(max(((steps + 1) / seen - values).max(), (values - steps / seen).max()))
    chance = _BY_CHANCE * math.sqrt(1 / seen + 1 / calibrated)
    up = float((values >= 1 - share).mean()) if share else (0.0 if share == 0 else None)
    return Drift(index >= ALARM and gap > chance, round(index, 4), round(gap, 4), round(chance, 4), seen, up)
