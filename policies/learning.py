"""From labelled prompts to a scorer with its proof: fitted, held out in turn, and past the gate or not.

Prompts that say the same words are one question, and are never both learnt from and tried on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from policies import gain, promotion
from policies.doubt import Answer
from policies.embedding import StaticEmbedding
from policies.gain import Numbers, Scorer
from policies.promotion import Promotion, Quality

MOST_LABELS = 50_000
"""Rows; a fit needs about 10 KB of memory for each."""
SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Of the table that is shown."""


class Labelled(Struct, frozen=True):
    """A prompt and how both models did on it: 0 to 1, or any measure of which more is better and none is below zero."""

    text: str
    strong: float
    weak: float
    answer: Answer | None = None  # the weak model's
    route: str | None = None


class Learnt(Struct, frozen=True):
    """A scorer, and what was measured on rows that it was not fitted on."""

    scorer: Scorer
    scores: Numbers  # held out, raw
    ranks: Numbers  # held out, percentiles
    strong: Numbers
    weak: Numbers
    promotion: Promotion


class Examples(Struct, frozen=True):
    """What is learnt from, as numbers: a row for each prompt."""

    kind: str  # prompt, or answer
    named: Numbers  # (rows, features of the kind)
    vectors: Numbers
    strong: Numbers  # how each model did, or an unbiased guess of it (`policies.weighing`)
    weak: Numbers
    groups: Sequence[str]  # rows of one are never both learnt from and tried on
    routes: Sequence[str]  # "" where none is known
    words: Sequence[float]
    clusters: Sequence[str] | None = None  # rows of one stand or fall together; None: each for itself


def learn(rows: Sequence[Labelled], embedding: StaticEmbedding, version: str, *, made: str, seed: int = 0) -> Learnt:
    """The scorer of all rows, uncalibrated; it reads answers where every row has one.

    `version` is the embedding's hash, `made` an ISO day.  Raises ValueError for too few rows or too many, and for rows
    that hold nothing to learn.
    """
    _few_enough(len(rows))
    kind = kind_of(rows)
    named = np.array([gain.named_features(row.text, row.answer if kind == "answer" else None) for row in rows], float)
    vectors = embedding.vectors([row.text for row in rows]).astype(np.float64)
    strong, weak = (np.array([getattr(row, side) for row in rows], np.float64) for side in ("strong", "weak"))
    groups = [same_text(row.text) for row in rows]
    routes = [row.route or "" for row in rows]
    words = [float(len(row.text.split())) for row in rows]
    return learn_from(
        Examples(kind, named, vectors, strong, weak, groups, routes, words), version, made=made, seed=seed
    )


def learn_from(examples: Examples, version: str, *, made: str, seed: int = 0) -> Learnt:
    """The same of what was kept of prompts; raises ValueError, too."""
    rows = len(examples.strong)
    _few_enough(rows)
    named, vectors, gains = examples.named, examples.vectors, examples.strong - examples.weak

    def make(at: Any) -> Scorer:
        return gain.fit(examples.kind, named[at], vectors[at], gains[at], embedding=version, made=made)

    scorer = make(np.arange(rows))
    scores, ranks = gain.held_out(make, named, vectors, examples.groups, seed, examples.clusters)
    routes = _by_route(examples, gains, seed)
    gate = promotion.promote(ranks, gains, examples.words, routes, seed=seed, clusters=examples.clusters)
    measured = {name: getattr(gate, name) for name in ("apgr", "low", "high", "words", "routes")}
    origin = msgspec.structs.replace(
        scorer.origin, gate={name: round(value, 4) for name, value in measured.items() if value is not None}
    )
    made_of = msgspec.structs.replace(scorer, origin=origin)
    return Learnt(made_of, scores, ranks, examples.strong, examples.weak, gate)


def _few_enough(rows: int) -> None:
    if rows > MOST_LABELS:
        raise ValueError(f"{rows:,} labelled prompts are more than {MOST_LABELS:,}")


def kind_of(rows: Sequence[Labelled]) -> str:
    return "answer" if rows and all(row.answer is not None for row in rows) else "prompt"


def _by_route(examples: Examples, gains: Numbers, seed: int) -> Numbers | None:
    """What the routes alone would score, held out in the same parts; None where there are no two routes."""
    routes = examples.routes
    if len(set(routes)) < 2:
        return None
    found = np.zeros(len(routes))
    for learnt, tried in gain.folds(examples.groups, seed, clusters=examples.clusters):
        if len(tried):
            found[tried] = gain.ranked(promotion.route_means(routes, gains, learnt, tried))
    return found


def table(learnt: Learnt, chosen: float, *, seed: int = 0) -> list[Quality]:
    """What each share of strong calls gives, the chosen one among them."""
    shares = sorted({*SHARES, round(chosen, 4)})
    return promotion.qualities(learnt.ranks, learnt.strong, learnt.weak, shares, seed=seed)


def same_text(text: str) -> str:
    """Its letters and digits alone, in words: what two spellings of one question share."""
    return " ".join("".join([char if char.isalnum() else " " for char in text.lower()]).split())
