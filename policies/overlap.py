"""What is wrong with a set of routes before any prompt comes: duplicates, near-duplicates, routes that are alike."""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from policies.embedding import split
from policies.semantic import Fitted, Route

ALIKE = 0.92
"""Likeness of two routes' utterances from which somebody should look."""
ENOUGH = 5
"""Utterances from which a route is learnt rather than guessed."""


class Alike(Struct, frozen=True):
    """Two utterances of different routes that mean the same, as far as the embedding sees."""

    first: tuple[str, int]  # route, number of its utterance
    second: tuple[str, int]
    likeness: float


class Doubts(Struct, frozen=True):
    """What a person should look at."""

    repeated: tuple[tuple[str, str, str], ...]  # route, other route (or the same), the utterance
    alike: tuple[Alike, ...]
    thin: tuple[tuple[str, int], ...]  # route, utterances: too few to learn from


def doubts(routes: list[Route], fitted: Fitted, *, most: int = 20) -> Doubts:
    """Repeated utterances, the `most` alike pairs over routes, and routes with too few utterances."""
    seen: dict[tuple[str, ...], str] = {}
    repeated = []
    for route in routes:
        for text in route.utterances:
            words = tuple(split(text))
            if words in seen:
                repeated.append((seen[words], route.name, text))
            else:
                seen[words] = route.name
    thin = tuple([(route.name, len(route.utterances)) for route in routes if len(route.utterances) < ENOUGH])
    return Doubts(tuple(repeated), tuple(_alike(fitted, most)), thin)


def _alike(fitted: Fitted, most: int) -> list[Alike]:
    found = []
    for number, name in enumerate(fitted.names):
        first, end = int(fitted.firsts[number]), int(fitted.firsts[number + 1])
        likeness = fitted.vectors[first:end] @ fitted.vectors[end:].T  # each pair of routes once
        for mine, other in zip(*np.nonzero((likeness >= ALIKE) & (likeness < 1 - 1e-6)), strict=True):
            there = end + int(other)
            owner = int(fitted.owners[there])
            pair = (fitted.names[owner], there - int(fitted.firsts[owner]))
            found.append(Alike((name, int(mine)), pair, round(float(likeness[mine, other]), 3)))
    return sorted(found, key=lambda pair: -pair.likeness)[:most]
