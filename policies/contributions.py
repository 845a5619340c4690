"""Why a text was placed where it was: what each of its words adds to the score of a route.

The heads are linear, so the parts and what is named `rest` add up to the score exactly.  They hold words of the text:
for whoever has the text before them, never for records.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol
from zlib import crc32

import numpy as np

from policies.embedding import Embedding, Floats, Integers, buckets, ngrams
from policies.linear import Head
from policies.semantic import Fitted, Placed, described, unlike

BASE, SENTENCE, REST = "(every text)", "(the sentence as a whole)", "(all else)"
DESCRIPTION = "(likeness to its description)"


class Wordwise(Embedding, Protocol):
    """An embedding that says what each word adds."""

    def parts(self, text: str) -> tuple[list[str], Floats]:
        """The words that are read, and (words, width): what each adds to the front of the vector."""
        ...


def route_contributions(
    fitted: Fitted, placed: Placed, embedding: Wordwise, text: str, route: int | None = None
) -> list[tuple[str, float]]:
    """What the score of a route is the sum of, the largest first.  `placed`: where this stage placed the text; `route`: by
    its number, instead of the best."""
    if route is None:
        route = fitted.names.index(placed.best[0][0])
    head = fitted.head
    dense, grams = embedding.read(text)
    words, parts = embedding.parts(text)
    amounts: dict[str, float] = defaultdict(float)
    amounts[BASE] = float(head.bias[route])
    weights = head.dense[:, route]
    width = parts.shape[1]
    for word, part in zip(words, parts, strict=True):
        amounts[word] += float(part @ weights[:width])
    if len(dense) > width:
        amounts[SENTENCE] = float(dense[width:] @ weights[width:])
    for name, amount in _of_grams(head, route, words, grams):
        amounts[name] += amount
    rest = float(head.scores((dense, grams))[route]) - sum(amounts.values())
    if abs(rest) > 1e-4:
        amounts[REST] += rest
    owner, number, _ = placed.nearest
    near = float(fitted.vectors[int(fitted.firsts[fitted.names.index(owner)]) + number] @ dense)
    say = fitted.says * unlike(near)
    if say:
        amounts[DESCRIPTION] = say * float(described(fitted.descriptions, fitted.phrases, dense)[route])
    return sorted(amounts.items(), key=lambda item: -abs(item[1]))


def _of_grams(head: Head, route: int, words: Sequence[str], grams: Integers) -> list[tuple[str, float]]:
    """Of words and pairs of words, by their hashes; `REST` where a hash is of neither."""
    if not len(grams):
        return []
    columns, signs = buckets(grams)
    values = signs * head.idf[columns]
    values /= np.sqrt(max(float(values @ values), 1e-12))
    amounts = values * head.hashed[columns, route]
    names = _names(words)
    return [(names.get(int(gram), REST), float(amount)) for gram, amount in zip(grams, amounts, strict=True)]


def _names(words: Sequence[str]) -> dict[int, str]:
    hashes = [crc32(word.encode("utf-8", "replace")) for word in words]
    names = {}
    for at in range(len(words) - 1):
        for gram in ngrams(hashes[at : at + 2]):
            names[int(gram)] = f"{words[at]} {words[at + 1]}"
    return names | dict(zip(hashes, words, strict=True))
