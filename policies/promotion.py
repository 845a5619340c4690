"""Whether a scorer may decide: what it recovers of the strong model's lead, with an interval, against simple rivals.

The measures are RouteLLM's (Ong et al., 2024, arXiv:2406.18665): the performance gap recovered (PGR) at a share of
strong calls is what of the way from always-weak to always-strong quality is gone; APGR is its mean over all shares;
CPT(x) is the least share at which x of the gap is recovered.  Chance has APGR .5, whatever the models.  A scorer's
scores must be held out: of rows that it was not fitted on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

Numbers = npt.NDArray[np.float64]

RESAMPLES = 1000
INTERVAL = 0.95
RANDOM = 0.5
_AT_ONCE = 100


class Promotion(Struct, frozen=True):
    """What the gate measured, and what it says."""

    promoted: bool
    why: str
    apgr: float | None  # None: the strong model is no better, so there is no gap to recover
    low: float | None  # of the interval
    high: float | None
    words: float | None  # APGR of sending the longest prompts to the strong model
    routes: float | None  # APGR of each route's mean gain; None: no routes given


class Quality(Struct, frozen=True):
    """What a share of strong calls gives, relative to always asking the strong model."""

    share: float
    quality: float
    low: float
    high: float


def apgr(scores: Sequence[float] | Numbers, gains: Sequence[float] | Numbers) -> float | None:
    """The performance gap recovered, averaged over all shares; equal scores are sent up in no order.

    None where the strong model is no better than the weak one.
    """
    return _one(_Ranked(scores, gains).apgr(None))


def cpt(scores: Sequence[float] | Numbers, gains: Sequence[float] | Numbers, gap: float) -> float | None:
    """The least share of strong calls, 0 to 1, that recovers this part of the gap; None where there is no gap."""
    shares, recovered = curve(scores, gains)
    if recovered is None:
        return None
    first = int(np.argmax(recovered >= gap - 1e-9))
    if first == 0:
        return float(shares[0])
    rise = recovered[first] - recovered[first - 1]
    part = (gap - recovered[first - 1]) / rise if rise > 0 else 1.0
    return float(shares[first - 1] + part * (shares[first] - shares[first - 1]))


def curve(scores: Sequence[float] | Numbers, gains: Sequence[float] | Numbers) -> tuple[Numbers, Numbers | None]:
    """(shares of strong calls, part of the gap recovered at each), from none to all; None where there is no gap."""
    ranked = _Ranked(scores, gains)
    counts, sums = ranked.groups(None)
    shares = np.concatenate(([0.0], np.cumsum(counts[0]))) / max(1, len(ranked.gains))
    total = float(sums.sum())
    return shares, np.concatenate(([0.0], np.cumsum(sums[0]))) / total if total > 0 else None


def promote(
    scores: Numbers,
    gains: Numbers,
    words: Sequence[float],
    routes: Numbers | None = None,
    *,
    seed: int = 0,
    clusters: Sequence[str] | None = None,
) -> Promotion:
    """The gate: promoted where the interval's lower end beats random, and each route's mean gain where routes are given.

    `scores` are held out, and so is `routes`, the mean gain of each row's route; `words` counts each prompt's words.
    The word count is shown beside and decides nothing.  Rows of one cluster (of one user, say, whose arm was drawn once)
    are drawn together, since they are not so many pieces of evidence.
    """
    ranked = _Ranked(scores, gains)
    value = _one(ranked.apgr(None))
    by_words = apgr(np.asarray(words, np.float64), gains)
    by_route = apgr(routes, gains) if routes is not None else None
    if value is None:
        why = "the strong model did no better than the weak one on these prompts: there is nothing to gain by asking it"
        return Promotion(False, why, None, None, None, None, None)
    low, high = _interval(ranked.resampled(seed, clusters))
    rival, name = RANDOM, "sending prompts up at random"
    if by_route is not None and by_route > rival:
        rival, name = by_route, "each route's mean gain"
    promoted = low > rival
    words_of = "beats" if promoted else "does not beat"
    why = f"its APGR is {value:.3f} ({low:.3f} to {high:.3f}); the lower end {words_of} {name} ({rival:.3f})"
    return Promotion(promoted, why, value, low, high, by_words, by_route)


def route_means(routes: Sequence[str], gains: Numbers, learnt: Any, tried: Any) -> Numbers:
    """The mean gain that the routes of some rows have among others; of a route that is not there, the mean of all.

    Never a mean that only leaves the row itself out: that is low just where the row's own gain is high.
    """
    _, numbers = np.unique(np.array(routes), return_inverse=True)
    size = int(numbers.max()) + 1
    sums = np.bincount(numbers[learnt], gains[learnt], minlength=size)
    counts = np.bincount(numbers[learnt], minlength=size)
    average = float(gains[learnt].mean())
    return np.asarray(np.where(counts > 0, sums / np.maximum(1, counts), average)[numbers[tried]], np.float64)


def qualities(
    ranks: Numbers, strong: Numbers, weak: Numbers, shares: Sequence[float], *, seed: int = 0
) -> list[Quality]:
    """The quality at each share, with its interval; `ranks` are held-out percentiles, 0 to 1.

    Quality is the mean outcome where the share of highest rank asks the strong model and the rest the weak one,
    relative to the mean outcome of the strong model alone.  Raises ValueError where the strong model has no success.
    """
    if not float(strong.sum()) > 0:
        raise ValueError("the strong model succeeded on none of these prompts")
    mixes = [np.where(_up(ranks, share), strong, weak) for share in shares]
    several: list[list[Numbers]] = [[] for _ in mixes]
    for draw in _draws(len(ranks), seed):
        whole = np.maximum(draw @ strong, 1e-9)
        for mixed, found in zip(mixes, several, strict=True):
            found.append((draw @ mixed) / whole)
    return [
        Quality(float(share), float(mixed.sum() / strong.sum()), *_interval(np.concatenate(found)))
        for share, mixed, found in zip(shares, mixes, several, strict=True)
    ]


def share_for(ranks: Numbers, strong: Numbers, weak: Numbers, quality: float) -> float | None:
    """The least share, in whole percent, from which the expected quality is at least this, and stays so.

    None where even the strong model alone does not reach it, as where more than its own quality is asked for.
    """
    shares = [percent / 100 for percent in range(101)]
    found = [_quality(ranks, strong, weak, share) for share in shares]
    best = None
    for share, value in zip(reversed(shares), reversed(found), strict=True):
        if value < quality - 1e-12:
            break
        best = share
    return best


def _up(ranks: Numbers, share: float) -> Any:
    """Which rows ask the strong model at this share."""
    return ranks >= 1 - share if share > 0 else np.zeros(len(ranks), bool)


def _quality(ranks: Numbers, strong: Numbers, weak: Numbers, share: float) -> float:
    total = float(strong.sum())
    return float(np.where(_up(ranks, share), strong, weak).sum()) / total if total > 0 else 0.0


class _Ranked:
    """Gains in the order of their scores, the highest first; equal scores are one group."""

    def __init__(self, scores: Any, gains: Any) -> None:
        values = np.asarray(scores, np.float64)
        order = self._order = np.argsort(-values, kind="stable")
        self.gains: Numbers = np.asarray(gains, np.float64)[order]
        falls = np.flatnonzero(np.diff(values[order])) + 1
        self._starts = np.concatenate(([0], falls)).astype(np.int64) if len(values) else np.zeros(0, np.int64)

    def groups(self, draws: Numbers | None) -> tuple[Numbers, Numbers]:
        """(rows, gain) of each group, for each draw of rows; None: each row once."""
        counts = np.ones((1, len(self.gains))) if draws is None else draws
        if not len(self._starts):
            return np.zeros((len(counts), 0)), np.zeros((len(counts), 0))
        sums = np.add.reduceat(counts * self.gains, self._starts, axis=1)
        return np.add.reduceat(counts, self._starts, axis=1), sums

    def apgr(self, draws: Numbers | None) -> Numbers:
        """Of each draw; NaN where it has no gap.  A row at place p (0 first, 1 last) adds its gain over 1 - p of shares."""
        counts, sums = self.groups(draws)
        drawn = np.maximum(1, counts.sum(axis=1, keepdims=True))  # of clusters, not always as many rows
        places = (np.cumsum(counts, axis=1) - counts / 2) / drawn
        total = sums.sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(total > 0, 1 - (sums * places).sum(axis=1) / total, np.nan)

    def resampled(self, seed: int, clusters: Sequence[str] | None = None) -> Numbers:
        """Of `RESAMPLES` bootstrap draws (Efron, 1979), of rows or of whole clusters; one without a gap counts as the worst."""
        if clusters is None:
            draws = _draws(len(self.gains), seed)
        else:
            names, numbers = np.unique(np.array(clusters), return_inverse=True)
            owner = numbers[self._order]
            draws = (draw[:, owner] for draw in _draws(len(names), seed))
        several = np.concatenate([self.apgr(draw) for draw in draws])
        return np.where(np.isnan(several), -np.inf, several)


def _draws(rows: int, seed: int) -> Iterator[Numbers]:
    """How often each row is drawn, `_AT_ONCE` draws a time."""
    generator = np.random.default_rng(seed)
    chances = np.full(rows, 1 / rows)
    for _ in range(RESAMPLES // _AT_ONCE):
        yield generator.multinomial(rows, chances, _AT_ONCE).astype(np.float64)


def _interval(values: Numbers) -> tuple[float, float]:
    ends = np.sort(values)[[int(len(values) * (1 - INTERVAL) / 2), int(np.ceil(len(values) * (1 + INTERVAL) / 2)) - 1]]
    return float(ends[0]), float(ends[1])


def _one(values: Numbers) -> float | None:
    return None if np.isnan(values[0]) else float(values[0])
