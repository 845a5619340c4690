"""How much better the strong model would do on a prompt: a ridge over named features and the static embedding.

It is fitted on the *gain* (the strong model's outcome less the weak one's), not on whether the weak model fails: where
both fail, the dearer failure is no better.  A raw score means little, so it is turned into a percentile of the
operator's own traffic; a threshold then is a share of strong calls.  Without such a calibration a scorer says
`uncalibrated`: it gives no percentile, and nothing may be decided by it.

The head is linear over standardised, clipped features, so a score is exactly the sum of its contributions.
Ridge: Hoerl and Kennard, 1970; the penalty is chosen by the leave-one-out error in closed form (Allen's PRESS, 1974).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Struct

from policies import doubt, features
from policies.doubt import Answer, doubts
from policies.embedding import Floats

Numbers = npt.NDArray[np.float64]

WORDING = 0.6
"""Weight of the embedding beside the prompt's named features, each block of length one on average."""
ANSWERED = 1.5
"""Weight of the answer's named features beside the prompt's: they say more."""
PENALTIES = (3.0, 10.0, 30.0, 100.0, 300.0)
CLIP = 3.0
"""Standard deviations: beyond them a feature counts no more, so that no odd text has an endless score."""
SPARSE = 1e-4
"""Standard deviation below which a feature is taken for constant, and has no weight."""
LEAST_LABELS = 50
LEAST_REFERENCE = 100
"""Prompts below which a percentile would be a guess; a thousand set a share within two points."""
MOST_REFERENCE = 2001
"""Scores kept of the reference traffic; of more, as many quantiles."""
FOLDS = 5
FORM = "scorer 1"


class Origin(Struct, frozen=True, forbid_unknown_fields=True):
    """What a scorer was made from; its header.  Nothing of any text."""

    form: str
    kind: str  # prompt, or answer: it reads the weak model's answer, too
    features: str  # versions of the features
    embedding: str  # hash of the embedding's table
    made: str  # ISO day
    labels: int  # prompts whose outcomes it was fitted on
    penalty: float
    calibrated: int | None = None  # prompts of the reference traffic; None: uncalibrated
    calibrated_on: str | None = None  # ISO day
    strong_share: float | None = None  # the share of strong calls that was asked for, or that quality asked for
    quality: float | None = None  # of always-strong, where that was asked for
    gate: dict[str, float] = {}  # what the promotion gate measured: apgr, low, high, words, ...


class Scorer(Struct, frozen=True):
    """A fitted head and its reference traffic."""

    origin: Origin
    mean: Numbers  # of each named feature
    spread: Numbers
    weights: Numbers  # of each named feature, standardised and clipped
    wording: Numbers  # (width of the embedding,)
    bias: float
    reference: Numbers | None  # ascending scores of the operator's own traffic; None: uncalibrated

    @property
    def names(self) -> tuple[str, ...]:
        return names_of(self.origin.kind)

    def score(self, named: Floats, vector: Floats) -> float:
        """The gain that is expected; `named` as `named_features` gives it."""
        return self.bias + float(self._shown(named) @ self.weights) + float(vector @ self.wording)

    def percentile(self, score: float) -> float | None:
        """The share of the reference traffic that scores lower (of equals, half), 0 to 1; None: uncalibrated."""
        if self.reference is None:
            return None
        low, high = np.searchsorted(self.reference, score), np.searchsorted(self.reference, score, "right")
        return float(low + high) / (2 * len(self.reference))

    def contributions(self, named: Floats, vector: Floats) -> list[tuple[str, float]]:
        """What the score is the sum of, the largest first; `base` is what an average prompt gets."""
        parts = [("base", self.bias), ("wording", float(vector @ self.wording))]
        parts += zip(self.names, (self._shown(named) * self.weights).tolist(), strict=True)
        return sorted(parts, key=lambda part: -abs(part[1]))

    def _shown(self, named: Floats) -> Numbers:
        return _standard(named, self.mean, self.spread)


class Scored(Struct, frozen=True):
    """A prompt's score, and why."""

    score: float
    percentile: float | None  # None: uncalibrated
    strong: bool | None  # None: nothing is decided by an uncalibrated scorer
    contributions: tuple[tuple[str, float], ...]  # the five largest beside the base


def names_of(kind: str) -> tuple[str, ...]:
    """The named features that a kind of scorer reads."""
    return (*features.NAMES, *[f"answer: {name}" for name in doubt.NAMES]) if kind == "answer" else features.NAMES


def versions_of(kind: str) -> str:
    return f"{features.VERSION}, {doubt.VERSION}" if kind == "answer" else features.VERSION


def named_features(text: str, answer: Answer | None = None) -> Floats:
    """The named features of a prompt, and of the weak model's answer to it."""
    found = features.features(text)
    return found if answer is None else np.concatenate((found, doubts(text, answer)))


def judge(scorer: Scorer, named: Floats, vector: Floats, share: float | None = None) -> Scored:
    """What a scorer makes of a prompt.  `share`: of strong calls, instead of the scorer's own."""
    score = scorer.score(named, vector)
    percentile = scorer.percentile(score)
    parts = [part for part in scorer.contributions(named, vector) if part[0] != "base"]
    share = scorer.origin.strong_share if share is None else share
    decided = None if percentile is None or share is None else wants_strong(percentile, share)
    return Scored(score, percentile, decided, tuple(parts[:5]))


def wants_strong(percentile: float, share: float) -> bool:
    """Is a prompt among this share of the traffic that gains most from the strong model?"""
    return share > 0 and percentile >= 1 - share


def fit(kind: str, named: Numbers, vectors: Numbers, gains: Numbers, *, embedding: str, made: str) -> Scorer:
    """The ridge of least leave-one-out error, uncalibrated.

    `named` (n, features of the kind), `vectors` (n, width), `gains` (n,) in -1 ... 1.  Raises ValueError for fewer than
    `LEAST_LABELS`, for what is no number, and where every gain is the same.
    """
    if len(gains) < LEAST_LABELS:
        raise ValueError(f"{len(gains)} labelled prompts are too few to learn from; at least {LEAST_LABELS} are needed")
    if not (np.isfinite(named).all() and np.isfinite(vectors).all() and np.isfinite(gains).all()):
        raise ValueError("a feature or a gain is no finite number")
    if float(np.ptp(gains)) == 0:
        raise ValueError("every prompt has the same gain: there is nothing to learn")
    mean, spread = named.mean(axis=0), named.std(axis=0)
    weigh = _weights_of(kind, named.shape[1])
    centre = vectors.mean(axis=0)
    length = math.sqrt(max(float(((vectors - centre) ** 2).sum(axis=1).mean()), 1e-12))
    shown = _standard(named, mean, spread)
    level = shown.mean(axis=0)
    inputs = np.hstack(((shown - level) * weigh, (vectors - centre) * (WORDING / length)))
    average = float(gains.mean())
    found, penalty = _ridge(inputs, gains - average)
    weights, wording = found[: len(weigh)] * weigh, found[len(weigh) :] * (WORDING / length)
    origin = Origin(FORM, kind, versions_of(kind), embedding, made, len(gains), penalty)
    bias = average - float(level @ weights) - float(centre @ wording)
    return Scorer(origin, mean, spread, weights, wording, bias, None)


def calibrated(scorer: Scorer, scores: Sequence[float] | Numbers, *, day: str, share: float) -> Scorer:
    """The scorer with the scores of its operator's traffic as reference.  Raises ValueError for too few of them."""
    found = np.sort(np.asarray(scores, np.float64))
    if len(found) < LEAST_REFERENCE:
        raise ValueError(f"{len(found)} prompts are too few to calibrate on; at least {LEAST_REFERENCE} are needed")
    if not np.isfinite(found).all():
        raise ValueError("a score is no finite number")
    if not 0 <= share <= 1:
        raise ValueError("a share is between 0 and 1")
    origin = msgspec.structs.replace(scorer.origin, calibrated=len(found), calibrated_on=day, strong_share=share)
    if len(found) > MOST_REFERENCE:
        found = np.quantile(found, np.linspace(0, 1, MOST_REFERENCE))
    return msgspec.structs.replace(scorer, origin=origin, reference=found)


def folds(
    groups: Sequence[str], seed: int, count: int = FOLDS, *, clusters: Sequence[str] | None = None
) -> Iterator[tuple[Any, Any]]:
    """(rows to learn from, rows to try on), `count` times; rows of one group or one cluster are never on both sides.

    A cluster is tried as a whole: who knows a user's other prompts, all of one arm, knows how the arm did with that user.
    Raises ValueError where nothing is left to learn from.
    """
    names, numbers = np.unique(np.array(groups if clusters is None else clusters), return_inverse=True)
    turn = np.random.default_rng(seed).permutation(len(names))[numbers] % count
    _, same = np.unique(np.array(groups), return_inverse=True)
    for fold in range(count):
        tried = np.flatnonzero(turn == fold)
        learnt = turn != fold if clusters is None else (turn != fold) & ~np.isin(same, same[tried])
        if not learnt.any():
            raise ValueError(
                "too few different prompts, or too few units that were drawn, to try on others than were learnt from"
            )
        yield np.flatnonzero(learnt), tried


def held_out(
    make: Callable[[Any], Scorer],
    named: Numbers,
    vectors: Numbers,
    groups: Sequence[str],
    seed: int = 0,
    clusters: Sequence[str] | None = None,
) -> tuple[Numbers, Numbers]:
    """(raw score, percentile among its fold) of every row, by a scorer that saw nothing of its group or cluster.

    `make` fits on the rows that it is given.  Scorers of two folds differ in level, so rows of different folds are
    compared by their percentiles.
    """
    raw, ranks = np.zeros(len(groups)), np.zeros(len(groups))
    for learnt, tried in folds(groups, seed, clusters=clusters):
        if not len(tried):
            continue
        scorer = make(learnt)
        raw[tried] = scores_of(scorer, named[tried], vectors[tried])
        ranks[tried] = ranked(raw[tried])
    return raw, ranks


def ranked(scores: Numbers) -> Numbers:
    """The percentile of each score among them, 0 to 1."""
    ordered = np.sort(scores)
    below, upto = np.searchsorted(ordered, scores), np.searchsorted(ordered, scores, "right")
    return np.asarray((below + upto) / (2 * len(scores)), np.float64)


def scores_of(scorer: Scorer, named: Numbers, vectors: Numbers) -> Numbers:
    """The scores of many prompts."""
    shown = _standard(named, scorer.mean, scorer.spread)
    return np.asarray(shown @ scorer.weights + vectors @ scorer.wording + scorer.bias, np.float64)


_ARRAYS = ("mean", "spread", "weights", "wording")


def pack(scorer: Scorer) -> tuple[bytes, dict[str, Numbers]]:
    """A scorer as a JSON header and arrays."""
    arrays = {name: getattr(scorer, name) for name in _ARRAYS} | {"bias": np.array([scorer.bias])}
    if scorer.reference is not None:
        arrays["reference"] = scorer.reference
    return msgspec.json.encode(scorer.origin), arrays


def unpack(header: bytes, arrays: Mapping[str, Any], *, embedding: str) -> Scorer:
    """What `pack` made.  Raises ValueError, with words for an operator, where it does not fit this version or itself."""
    try:
        origin = msgspec.json.decode(header, type=Origin)
    except msgspec.MsgspecError:
        raise ValueError("it is no scorer of this version") from None
    if origin.form != FORM or origin.kind not in ("prompt", "answer") or origin.features != versions_of(origin.kind):
        raise ValueError("it was made by another version, with other features; calibrate anew from the labels")
    if origin.embedding != embedding:
        raise ValueError("it was made with another embedding; calibrate anew from the labels")
    try:
        found = {name: np.asarray(arrays[name], np.float64) for name in (*_ARRAYS, "bias")}
        reference = np.asarray(arrays["reference"], np.float64) if origin.calibrated is not None else None
    except (KeyError, TypeError, ValueError):
        raise ValueError("it is damaged: a part is missing") from None
    count = len(names_of(origin.kind))
    fits = all(found[name].shape == (count,) for name in ("mean", "spread", "weights")) and found["bias"].shape == (1,)
    fits = fits and found["wording"].ndim == 1 and all(np.isfinite(part).all() for part in found.values())
    if reference is not None:
        fits = fits and reference.ndim == 1 and len(reference) >= LEAST_REFERENCE and bool(np.isfinite(reference).all())
        fits = fits and bool((np.diff(reference) >= 0).all())
    if not fits:
        raise ValueError("it is damaged: its parts do not fit each other")
    return Scorer(
        origin,
        found["mean"],
        found["spread"],
        found["weights"],
        found["wording"],
        float(found["bias"][0]),
        reference,
    )


def _standard(named: Any, mean: Numbers, spread: Numbers) -> Numbers:
    """Standard deviations from the mean, clipped; zero for what never varied."""
    known = spread > SPARSE
    shown = np.where(known, (named - mean) / np.where(known, spread, 1.0), 0.0)
    return np.asarray(np.clip(shown, -CLIP, CLIP), np.float64)


def _weights_of(kind: str, count: int) -> Numbers:
    prompt = len(features.NAMES)
    weights = np.full(count, 1 / math.sqrt(prompt))
    if kind == "answer":
        weights[prompt:] = ANSWERED / math.sqrt(len(doubt.NAMES))
    return weights


def _ridge(inputs: Numbers, targets: Numbers) -> tuple[Numbers, float]:
    """(coefficients, penalty) of the least leave-one-out error; both centred."""
    values, turned = np.linalg.eigh(inputs.T @ inputs)
    values = np.maximum(values, 0)
    projected = inputs @ turned
    aims = projected.T @ targets
    best, chosen = math.inf, PENALTIES[-1]
    for penalty in PENALTIES:
        shrunk = 1 / (values + penalty)
        leverage = (projected**2) @ shrunk + 1 / len(targets)  # the mean is fitted, too
        error = float((((targets - projected @ (aims * shrunk)) / np.maximum(1 - leverage, 1e-6)) ** 2).mean())
        if error < best:
            best, chosen = error, penalty
    return turned @ (aims / (values + chosen)), chosen
