"""What a prompt is about: the operator's routes, each learnt from a line of description and some example utterances.

A linear classifier gives each route a score; of texts unlike any example, the likeness to the descriptions is added to
it.  Beside it stands the likeness to the nearest utterance.  Whether a text is any route's business at all is a question of
its own (out of scope), answered by the best score and the nearest utterance together.  How much each says, and where
the line runs, is fitted on held-out examples: a part of every route's utterances, and for what lies out of scope whole
routes that the classifier has not seen.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from policies.embedding import Embedding, Floats, Integers
from policies.linear import Head, Read, fit, softmax
from policies.stages import ASKED

SHARE = 0.2
BORDER = 0.05
"""Of the scope's line, on either side: there, too, the second stage is asked."""
BEST = 3
"""Routes that are named, and among whose utterances the nearest is looked for."""
KEEP = 0.97
"""Of held-out examples stay in scope: what `threshold: auto` promises."""
FOLDS = 5
MANY, FEWER_FOLDS = 4000, 3
"""From so many utterances on, three folds say as much, and take a minute less."""
MOST_EXAMPLES = 20_000
"""Utterances of all routes together; the fit needs some 5 KB of memory for each."""
FEW = 12
"""Held-out examples below which nothing is fitted and the defaults below stand."""
SHARPNESS, FROM_BEST, FROM_NEAREST, LINE = 4.0, 0.75, 2.0, 1.1
"""Of CLINC150's 150 routes, about."""
WORTH = 30
"""Held-out examples that `LINE` counts as much as, where the weights are not fitted: a line by a few is a guess."""
NEAR, FAR = 0.8, 0.4
"""Likeness to the nearest utterance from which descriptions say nothing, and below which they say most."""
MOST_PHRASES = 16
"""Of a description that are read one by one."""
_PHRASE = re.compile(r"[,;:.()\u3001\u3002\uff0c\uff1b]+|\band\b|\bor\b", re.IGNORECASE)


class Route(Struct, frozen=True):
    """One route as it is declared.  `threshold`: the probability from which it counts; None: chosen by itself."""

    name: str
    description: str
    utterances: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    threshold: float | None = None


class Placed(Struct, frozen=True):
    """Where a text belongs, and why."""

    route: str | None  # None: out of scope, or below the route's own threshold
    probability: float  # of the best route
    margin: float  # between the two best probabilities
    best: tuple[tuple[str, float], ...]  # the three best and their probabilities
    nearest: tuple[str, int, float]  # route, number of its utterance, likeness
    scope: float  # zero and more: in scope
    second: str = ""  # what became of the second stage, where the first was unsure; see `policies.stages`


class Held(Struct, frozen=True):
    """What the classifier makes of examples that it was not fitted on: (route, route it was taken for) and how often."""

    examples: int
    right: int
    confusions: tuple[tuple[str, str, int], ...]
    margins: tuple[float, ...] = ()  # a thousand quantiles of the probabilities' margins


class Fitted(Struct, frozen=True):
    """Routes ready to place texts.  Arrays: see `Head`; `vectors` (utterances, width) and the route of each."""

    names: tuple[str, ...]
    thresholds: tuple[float | None, ...]
    head: Head
    vectors: Floats
    owners: Integers
    firsts: Integers  # number of each route's first utterance, and the number of all
    descriptions: Floats  # (phrases, width): what each lists
    phrases: Integers  # number of each route's first
    says: float  # what full likeness to a description adds to the score of a text like no utterance
    sharpness: float
    scope: tuple[float, float, float]  # of the best score, of the nearest utterance, and the line
    held: Held


class Semantics:
    """Places texts among fitted routes.  One thread at a time."""

    def __init__(self, fitted: Fitted, embedding: Embedding) -> None:
        self.fitted = fitted
        self._embedding = embedding
        self._firsts: list[int] = fitted.firsts.tolist()

    def place(self, text: str) -> Placed:
        fitted = self.fitted
        read = self._embedding.read(text)
        scores = fitted.head.scores(read)
        order = _best(scores)
        nearest, near = _nearest(order, read[0], fitted.vectors, self._firsts)
        scope = scope_of(float(scores[order[0]]), near, fitted.scope)
        if unlike(near):
            scores = self._joined(scores, read[0], near)
            order = _best(scores)
        powers = np.exp(np.float32(fitted.sharpness) * (scores - scores[order[0]]))
        chances = (powers.take(order) / powers.sum()).tolist()
        best = tuple([(fitted.names[route], round(chance, 4)) for route, chance in zip(order, chances, strict=True)])
        first = order[0]
        probability = chances[0]
        threshold = fitted.thresholds[first]
        inside = scope >= 0 if threshold is None else probability >= threshold
        owner = int(fitted.owners[nearest])
        return Placed(
            route=fitted.names[first] if inside else None,
            probability=round(probability, 4),
            margin=round(probability - chances[1], 4),
            best=best,
            nearest=(fitted.names[owner], nearest - self._firsts[owner], round(near, 3)),
            scope=round(scope, 3),
        )

    def _joined(self, scores: Floats, vector: Floats, near: float) -> Floats:
        """What the classifier says, and of texts unlike every utterance also the descriptions."""
        fitted = self.fitted
        say = np.float32(fitted.says * unlike(near))
        return np.asarray(scores + say * described(fitted.descriptions, fitted.phrases, vector), np.float32)


class Cascade:
    """Two stages: the second is asked where the first is unsure, of at most `share` of the texts.  One thread at a time.

    How unsure is unsure: so that of the held-out examples' margins `share` lie below.
    """

    def __init__(self, first: Semantics, second: Semantics, share: float = SHARE) -> None:
        self.first = first
        self.second = second
        margins = first.fitted.held.margins
        self._line = float(np.quantile(margins, share)) if len(margins) else 0.5

    def unsure(self, placed: Placed) -> bool:
        """Would the second stage be asked?"""
        return placed.margin <= self._line or abs(placed.scope) < BORDER

    def place(self, text: str) -> Placed:
        """By the first stage, or by both."""
        placed = self.first.place(text)
        return self.again(text, placed) if self.unsure(placed) else placed

    def again(self, text: str, placed: Placed) -> Placed:
        """What the second stage says of a text of which the first is unsure.  It may run beside the first, in a thread of
        its own."""
        return replace(self.second.place(text), second=ASKED)


def unlike(near: float) -> float:
    """How unlike every utterance a text is, of the likeness to the nearest: 0 (descriptions say nothing) to 1."""
    return min(1.0, max(0.0, (NEAR - near) / (NEAR - FAR)))


def described(descriptions: Floats, phrases: Integers, vector: Floats) -> Floats:
    """How like a text is to each route's description: to the phrase of it that is most like."""
    return np.asarray(np.maximum.reduceat(descriptions @ vector, phrases), np.float32)


def phrases_of(description: str) -> list[str]:
    """What a description lists: "gases and solutions" is like a text on gases by its first word alone."""
    parts = [part.strip() for part in _PHRASE.split(description)]
    return list(dict.fromkeys([part for part in parts if part]))[:MOST_PHRASES] or [description]


def _best(scores: Floats) -> list[int]:
    """The three best routes, the best first; two where there are no more."""
    order: list[int] = np.argsort(scores)[: -BEST - 1 : -1].tolist()
    return order


def _nearest(routes: Sequence[int], vector: Floats, vectors: Floats, firsts: Sequence[int]) -> tuple[int, float]:
    """The utterance most like a text among those of these routes, and how like it is."""
    nearest, near = 0, -1.0
    for route in routes:
        first, end = firsts[route], firsts[route + 1]
        if first < end:
            likeness = vectors[first:end] @ vector
            at = int(likeness.argmax())
            if likeness[at] > near:
                nearest, near = first + at, float(likeness[at])
    return nearest, near


def scope_of(best: float, near: float, weights: tuple[float, float, float]) -> float:
    return weights[0] * best + weights[1] * near - weights[2]


def learn(routes: Sequence[Route], embedding: Embedding) -> Fitted:
    """Routes, fitted.  Raises ValueError for fewer than two routes, none of their utterances, or too many of them."""
    if len(routes) < 2:
        raise ValueError("at least two routes are needed: one alone cannot be told from others")
    texts: list[str] = []
    owners: list[int] = []
    firsts: list[int] = []
    for number, route in enumerate(routes):
        firsts.append(len(texts))
        texts += route.utterances or (route.description,)
        owners += [number] * (len(texts) - firsts[number])
    if len(texts) > MOST_EXAMPLES:
        raise ValueError(f"the routes have {len(texts):,} utterances together, more than {MOST_EXAMPLES:,}")
    firsts.append(len(texts))
    reads = [embedding.read(text) for text in texts]
    strangers = [embedding.read(text) for route in routes for text in route.negatives]
    descriptions = [embedding.read(route.description) for route in routes]
    spoken = [phrases_of(route.description) for route in routes]
    labels = np.array(owners, np.int64)
    vectors = np.stack([dense for dense, _ in reads])
    tried = _hold_out(reads, labels, len(routes), strangers)
    sharpness = _sharpness(tried)
    scope = _scope(tried)
    head = fit(
        [*reads, *descriptions, *strangers],
        np.concatenate((labels, np.arange(len(routes)), np.full(len(strangers), -1, np.int64))),
        len(routes),
    )
    names = tuple([route.name for route in routes])
    return Fitted(
        names=names,
        thresholds=tuple([route.threshold for route in routes]),
        head=head,
        vectors=vectors,
        owners=labels,
        firsts=np.array(firsts, np.int64),
        descriptions=np.stack([embedding.read(phrase)[0] for phrases in spoken for phrase in phrases]),
        phrases=np.cumsum([0, *[len(phrases) for phrases in spoken[:-1]]]).astype(np.int64),
        says=embedding.says,
        sharpness=sharpness,
        scope=scope,
        held=_held(tried, names, sharpness),
    )


class _Tried(Struct):
    """Held-out texts: (texts, routes) scores, likeness to the nearest example, and the true route (-1: out of scope)."""

    scores: Any
    near: Any
    labels: Any


def _hold_out(reads: Sequence[Read], labels: Integers, classes: int, strangers: Sequence[Read]) -> _Tried:
    """Every text once, by a classifier that saw neither it nor, for a part, any of its route."""
    folds = FOLDS if len(labels) < MANY else FEWER_FOLDS
    turn = np.zeros(len(labels), np.int64)
    for number in range(classes):
        mine = np.flatnonzero(labels == number)
        turn[mine] = np.arange(len(mine)) * folds // len(mine)  # in blocks: people write variants one after another
    unseen_turn = np.arange(classes) % folds if classes > FOLDS else np.full(classes, -1)
    scores, near, truth = [], [], []
    for fold in range(folds):
        unseen = unseen_turn == fold
        trained = [int(at) for at in np.flatnonzero((turn != fold) & ~unseen[labels])]
        tested = [int(at) for at in np.flatnonzero(turn == fold)]
        if not trained or not tested:
            continue
        head = fit([reads[at] for at in trained], labels[trained], classes, steps=40)
        examples = np.stack([reads[at][0] for at in trained])  # in the order of their routes, as all are
        firsts = np.searchsorted(labels[trained], np.arange(classes + 1)).tolist()
        absent = np.setdiff1d(np.arange(classes), labels[trained])
        asked = [(reads[at], -1 if unseen[labels[at]] else int(labels[at])) for at in tested]
        asked += [(read, -1) for at, read in enumerate(strangers) if at % folds == fold]
        for read, true in asked:
            row = head.scores(read)
            row[absent] = -4
            scores.append(row)
            near.append(_nearest(_best(row), read[0], examples, firsts)[1])
            truth.append(true)
    return _Tried(np.stack(scores) if scores else np.zeros((0, classes), np.float32), np.array(near), np.array(truth))


def _sharpness(tried: _Tried) -> float:
    """The factor of the scores that makes the probabilities of held-out texts most likely."""
    inside = tried.labels >= 0
    if inside.sum() < FEW:
        return SHARPNESS
    scores, labels = tried.scores[inside], tried.labels[inside]

    def loss(factor: float) -> float:
        chances = softmax(np.float32(factor) * scores)
        return -float(np.log(np.maximum(chances[np.arange(len(labels)), labels], 1e-9)).mean())

    return min((0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0), key=loss)


def _scope(tried: _Tried) -> tuple[float, float, float]:
    """How much the best score and the nearest utterance say of being in scope, and the line that keeps `KEEP`."""
    inside = tried.labels >= 0
    if inside.sum() < FEW:
        return FROM_BEST, FROM_NEAREST, LINE
    best, count = tried.scores.max(axis=1), int(inside.sum())
    weights = (FROM_BEST, FROM_NEAREST)
    fitted = (~inside).sum() >= FEW
    if fitted:
        weights = _logistic(best, tried.near, inside)
    line = float(np.quantile(weights[0] * best[inside] + weights[1] * tried.near[inside], 1 - KEEP))
    return (*weights, line if fitted else (count * line + WORTH * LINE) / (count + WORTH))


def _logistic(best: Any, near: Any, inside: Any) -> tuple[float, float]:
    """Two weights by Newton's method, both sides counting alike; neither below zero."""
    inputs = np.stack((best, near, np.ones(len(best))), axis=1).astype(np.float64)
    counts = np.where(inside, 0.5 / max(1, inside.sum()), 0.5 / max(1, (~inside).sum()))
    weights = np.array([FROM_BEST, FROM_NEAREST, -LINE])
    for _ in range(20):
        chances = 1 / (1 + np.exp(-np.clip(inputs @ weights, -30, 30)))
        gradient = inputs.T @ (counts * (chances - inside)) + 1e-4 * weights
        curve = (inputs * (counts * chances * (1 - chances))[:, None]).T @ inputs + 1e-4 * np.eye(3)
        weights = weights - np.linalg.solve(curve, gradient)
    size = max(abs(float(weights[0])), abs(float(weights[1])), 1e-9)
    return max(0.0, float(weights[0]) / size), max(0.0, float(weights[1]) / size)


def _held(tried: _Tried, names: tuple[str, ...], sharpness: float) -> Held:
    inside = tried.labels >= 0
    taken, true = tried.scores[inside].argmax(axis=1), tried.labels[inside]
    pairs: dict[tuple[str, str], int] = {}
    for mine, other in zip(true, taken, strict=True):
        if mine != other:
            pair = names[mine], names[other]
            pairs[pair] = pairs.get(pair, 0) + 1
    listed = sorted(pairs.items(), key=lambda item: -item[1])
    two = np.sort(softmax(np.float32(sharpness) * tried.scores[inside]), axis=1)[:, -2:]
    margins = np.quantile(two[:, 1] - two[:, 0], np.linspace(0, 1, 1001)) if len(two) else np.zeros(0)
    return Held(
        int(inside.sum()),
        int((taken == true).sum()),
        tuple([(*pair, count) for pair, count in listed]),
        tuple([round(float(margin), 4) for margin in margins]),
    )
