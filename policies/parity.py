"""Is local as good as the API, on a measure of the operator's own?  Means of two arms, and an interval around what lies between.

What was drawn together is resampled together (a cluster bootstrap over units), because answers to one user or application
are alike; arms are compared within a phase and the phases put together, because in each the chance of an arm, and the time,
was another one.  Intervals are studentised: each resample is measured in its own standard error, by linearisation, which
keeps their coverage where units are few or differ in size (Efron and Tibshirani, An Introduction to the Bootstrap, chapter
12; Cameron, Gelbach and Miller, Review of Economics and Statistics 90(3), 2008).  Seeded: the same data give the same
interval.  Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
LOCAL, API = 0, 1
CONFIDENCE = 0.95
REPLICATES = 2_000
SEED = 20_260_101
FEWEST = 8
"""Units of an arm below which no interval is drawn: it would promise more than so few can hold."""
POWER = 0.8
"""Chance of being shown that is aimed at where it is said how many more are needed."""
UNLIKELY = 0.001
"""Chance below which a deviation is called one."""
NOISE = 1e-12
"""Spread, in the largest value, below which it is rounding and says nothing."""
EXACT = 2_000
"""Draws up to which the chance of a division is added up one by one; of more a normal curve is near enough."""
_CELLS = 4_000_000
"""Numbers of one step of the resampling."""


class Interval(Struct, frozen=True):
    """An estimate, and where it lies with a confidence of 95%; `error` is its standard error."""

    estimate: float
    low: float
    high: float
    error: float


class Margin(Struct, frozen=True):
    """How much worse local may be: a share of the API's figure, or a difference in the measure's own units."""

    amount: float
    relative: bool
    higher_is_better: bool = True


class Comparison(Struct, frozen=True):
    """Two arms.  `room` is how far local is above what the margin asks for: parity is shown where all of it is above 0."""

    local: float
    api: float
    difference: Interval | None
    ratio: Interval | None  # of local to API; None where the API's mean is not above 0
    room: Interval | None
    units: tuple[int, int]  # of each arm
    measured: tuple[int, int]  # requests
    levelled: bool = False  # all values of an arm were alike, so that one good and one bad unit were added to each


def compare(
    units: Ints,
    strata: Ints,
    arms: Ints,
    values: Floats,
    margin: Margin,
    *,
    replicates: int = REPLICATES,
    seed: int = SEED,
    whole_units: bool = True,
) -> Comparison | None:
    """Arms compared over measured requests: `units` from 0, `strata` from 0, `arms` 0 and 1.  None: an arm has nothing that
    could be compared, because no stratum holds both.

    Where all values of an arm are alike, what is added is as large as a unit of it is on average, since units may be good or
    bad as a whole; without `whole_units` it is one request, for who would rather see a difference than miss it.
    """
    kept = np.isin(strata, _common(strata, arms))
    units, strata, arms, values = units[kept], strata[kept], arms[kept], values[kept]
    if not len(values):
        return None
    counted = (len(np.unique(units[arms == LOCAL])), len(np.unique(units[arms == API])))
    measured = (int((arms == LOCAL).sum()), int((arms == API).sum()))
    added = 0
    if min(counted) >= FEWEST and _flat(arms, values):
        if not set(np.unique(values)) <= {0.0, 1.0}:
            return _bare(units, strata, arms, values, counted, measured)
        before = len(values)
        units, strata, arms, values = _levelled(units, strata, arms, values, counted if whole_units else measured)
        added = len(values) - before
    cells = _Cells(units, strata, arms, values)
    if min(counted) < FEWEST:
        return _bare(units, strata, arms, values, counted, measured)
    largest = float(np.abs(values).max())
    difference, ratio, room = _intervals(cells, margin, replicates, seed, NOISE * largest)
    if added:
        cells = _Cells(units[:-added], strata[:-added], arms[:-added], values[:-added])
    local, api = cells.means
    return Comparison(local, api, difference, ratio, room, counted, measured, added > 0)


def _bare(
    units: Ints, strata: Ints, arms: Ints, values: Floats, counted: tuple[int, int], measured: tuple[int, int]
) -> Comparison:
    local, api = _Cells(units, strata, arms, values).means
    return Comparison(local, api, None, None, None, counted, measured)


def _common(strata: Ints, arms: Ints) -> Ints:
    return np.intersect1d(strata[arms == LOCAL], strata[arms == API])


def _flat(arms: Ints, values: Floats) -> bool:
    """Are all values of an arm the same, so that nothing tells how they spread?"""
    return any(np.ptp(values[arms == arm]) == 0 for arm in (LOCAL, API))


def _levelled(
    units: Ints, strata: Ints, arms: Ints, values: Floats, counts: tuple[int, int]
) -> tuple[Ints, Ints, Ints, Floats]:
    """One good and one bad unit more in each arm (Agresti and Caffo, The American Statistician 54(4), 2000), which has so
    many requests as there are for each of `counts`."""
    new = int(units.max()) + 1
    largest = int(np.bincount(strata).argmax())
    sizes = [max(1, round(int((arms == arm).sum()) / counts[arm])) for arm in (LOCAL, API)]
    times = np.repeat(sizes, 2)
    return (
        np.concatenate([units, np.repeat(np.arange(new, new + 4), times)]),
        np.concatenate([strata, np.full(int(times.sum()), largest)]),
        np.concatenate([arms, np.repeat([LOCAL, LOCAL, API, API], times)]),
        np.concatenate([values, np.repeat([0.0, 1.0, 0.0, 1.0], times)]),
    )


class _Cells:
    """Sums and counts of each unit in each stratum and arm; units that are alike are one row."""

    def __init__(self, units: Ints, strata: Ints, arms: Ints, values: Floats) -> None:
        _, units = np.unique(units, return_inverse=True)
        names, strata = np.unique(strata, return_inverse=True)
        size, wide = int(units.max()) + 1, 2 * len(names)
        place = units * wide + 2 * strata + arms
        sums = np.bincount(place, values, minlength=size * wide).reshape(size, wide)
        counts = np.bincount(place, minlength=size * wide).reshape(size, wide).astype(np.float64)
        rows, self.times = np.unique(np.hstack([sums, counts]), axis=0, return_counts=True)
        self.sums, self.counts = rows[:, :wide], rows[:, wide:]
        self.units = size
        total = self.times @ self.counts
        local, api = total[0::2], total[1::2]
        weights = local * api / (local + api)
        self.weights = weights / weights.sum()

    @property
    def means(self) -> tuple[float, float]:
        local, api, _, _ = self.moments(self.times[np.newaxis, :].astype(np.float64))
        return float(local[0]), float(api[0])

    def moments(self, drawn: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """(means of local, of API, what each row moves them by: rows x resamples) of resamples, a row each."""
        sums, counts = drawn @ self.sums, drawn @ self.counts
        with np.errstate(divide="ignore", invalid="ignore"):
            means = np.where(counts > 0, sums / counts, 0.0)
            there = (counts[:, 0::2] > 0) & (counts[:, 1::2] > 0)
            weights = self.weights * there
            weights = weights / weights.sum(axis=1, keepdims=True)
            shares = np.where(counts > 0, np.repeat(weights, 2, axis=1) / counts, 0.0)
        moved = []
        found = []
        for arm in (LOCAL, API):
            found.append((weights * means[:, arm::2]).sum(axis=1))
            each = shares[:, arm::2].T
            moved.append(self.sums[:, arm::2] @ each - self.counts[:, arm::2] @ (each * means[:, arm::2].T))
        return found[0], found[1], moved[0], moved[1]


def _intervals(
    cells: _Cells, margin: Margin, replicates: int, seed: int, noise: float
) -> tuple[Interval | None, Interval | None, Interval | None]:
    rng = np.random.default_rng(seed)
    whole = _estimates(cells, cells.times[np.newaxis, :].astype(np.float64), margin)
    chance = cells.times / cells.units
    step = max(1, _CELLS // max(1, len(chance) * 4))
    found = []
    for start in range(0, replicates, step):
        drawn = rng.multinomial(cells.units, chance, size=min(step, replicates - start)).astype(np.float64)
        found.append(_estimates(cells, drawn, margin))
    resampled = [np.concatenate([part[n] for part in found], axis=1) for n in range(3)]
    least = (noise, noise / max(abs(cells.means[1]), noise), noise)
    return tuple([_interval(*each) for each in zip(whole, resampled, least, strict=True)])  # type: ignore[return-value]


def _estimates(cells: _Cells, drawn: Floats, margin: Margin) -> tuple[Floats, Floats, Floats]:
    """(estimate, standard error) of the difference, the ratio and the room, for each resample."""
    local, api, moves_local, moves_api = cells.moments(drawn)
    few = cells.units / max(1, cells.units - 1)

    def error(moves: Floats) -> Floats:
        with np.errstate(over="ignore", invalid="ignore"):
            found: Floats = np.sqrt(few * (drawn.T * moves**2).sum(axis=0))
        return found

    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = local / api
        ratio_error = error((moves_local - ratio * moves_api) / api)
    difference = np.stack([local - api, error(moves_local - moves_api)])
    sign = 1.0 if margin.higher_is_better else -1.0
    least = 1.0 - sign * margin.amount if margin.relative else 1.0
    slack = 0.0 if margin.relative else margin.amount
    room = np.stack([sign * (local - least * api) + slack, error(moves_local - least * moves_api)])
    return difference, np.stack([ratio, ratio_error]), room


def _interval(whole: Floats, resampled: Floats, least: float = 0.0) -> Interval | None:
    """By the spread of resamples, each in units of its own standard error; None where that is not above `least`."""
    estimate, error = float(whole[0, 0]), float(whole[1, 0])
    if not math.isfinite(estimate) or not math.isfinite(error) or not error > least:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        away = (resampled[0] - estimate) / resampled[1]
    away = away[np.isfinite(away)]
    if len(away) < len(resampled[0]) // 2:
        return None
    low, high = np.quantile(away, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(estimate, float(estimate - high * error), float(estimate - low * error), error)


def mean(values: Floats, *, replicates: int = REPLICATES, seed: int = SEED) -> Interval | None:
    """The mean of scores between 0 and 1, each of a request of its own; None where they are too few.

    The interval counts one good and one bad more: where they are few, what was never seen may still be frequent.
    """
    if len(values) < FEWEST:
        return None
    middle_of_all = float(values.mean())
    values = np.concatenate([values, [0.0, 1.0]])
    distinct, times = np.unique(values, return_counts=True)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(values), times / len(values), size=replicates).astype(np.float64)
    few = len(values) / (len(values) - 1)

    def both(weights: Floats) -> Floats:
        middle = weights @ distinct / len(values)
        spread = weights @ distinct**2 / len(values) - middle**2
        return np.stack([middle, np.sqrt(few * np.maximum(spread, 0) / len(values))])

    found = _interval(both(times[np.newaxis, :].astype(np.float64)), both(drawn))
    if found is None:
        return None
    low, high = max(0.0, found.low), min(1.0, found.high)
    return Interval(middle_of_all, min(low, middle_of_all), max(high, middle_of_all), found.error)


def more_needed(room: Interval, count: int) -> int | None:
    """About how many more until parity is shown with a chance of 80%, if it stays as it is; None: it would not be."""
    if room.estimate <= 0:
        return None
    normal = NormalDist()
    wanted = room.estimate / (normal.inv_cdf((1 + CONFIDENCE) / 2) + normal.inv_cdf(POWER))
    return max(0, math.ceil(count * ((room.error / wanted) ** 2 - 1)))


def chance_of_split(local: int, units: Mapping[tuple[float, ...], int]) -> float:
    """How likely a division at least as far from what was declared is, if units were drawn as declared.

    `units` counts those that were drawn with the same shares of local, one for each phase that they were in; `local` is how
    often one of them was local.  A unit has one number for all phases, so it is local in all with a share above that.
    """
    kinds = [(sorted(shares, reverse=True), count) for shares, count in units.items()]
    if sum(len(shares) * count for shares, count in kinds) <= EXACT:
        chances = np.ones(1)
        for shares, count in kinds:
            chances = np.convolve(chances, _power(-np.diff([1.0, *shares, 0.0]), count))
        return float(min(1.0, 2 * min(chances[: local + 1].sum(), chances[local:].sum())))
    spread = sum(
        count * (min(one, other) - one * other) for shares, count in kinds for one in shares for other in shares
    )
    away = local - sum(sum(shares) * count for shares, count in kinds)
    if spread <= 0:
        return float(abs(away) < 0.5)
    return chance_of(away / math.sqrt(spread))


def _power(chances: Floats, times: int) -> Floats:
    """How likely each sum of so many independent numbers is; `chances`: of 0, 1, ... for each of them."""
    found = np.ones(1)
    while times:
        if times & 1:
            found = np.convolve(found, chances)
        chances = np.convolve(chances, chances) if times > 1 else chances
        times >>= 1
    return found


def chance_of(away: float) -> float:
    """How likely chance alone leads at least so many standard errors away, to either side."""
    return math.erfc(abs(away) / math.sqrt(2))
