"""The contributions of a text's words add up to the score, exactly."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from policies.contributions import BASE, REST, SENTENCE, route_contributions
from policies.embedding import Floats, Integers, StaticEmbedding
from policies.semantic import Fitted, Route, learn
from proxy.routing_models import load_embedding

ROUTES = [
    Route(
        "cards", "lost cards", ("I lost my card", "my card was stolen", "block my card", "where is my card", "new card")
    ),
    Route(
        "weather", "rain and sun", ("will it rain", "is it sunny", "how hot is it", "a storm is coming", "snow today")
    ),
]
TEXTS = ["I lost my card in the rain", "my my my card card", "", "zzqx", "résumé of the storm, today!", "card"]


@cache
def fitted() -> tuple[Fitted, StaticEmbedding]:
    embedding, _ = load_embedding()
    return learn(ROUTES, embedding), embedding


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("route", [0, 1])
def test_they_add_up_and_the_largest_stand_first(text: str, route: int) -> None:
    found, embedding = fitted()
    parts = route_contributions(found.head, route, embedding, text)
    score = float(found.head.scores(embedding.read(text))[route])
    assert sum([amount for _, amount in parts]) == pytest.approx(score, abs=1e-4)
    assert [abs(amount) for _, amount in parts] == sorted([abs(amount) for _, amount in parts], reverse=True)
    assert REST not in dict(parts)  # every part has a name


def test_the_words_that_matter_weigh_most() -> None:
    found, embedding = fitted()
    parts = route_contributions(found.head, 0, embedding, "I lost my card in the rain")
    named = dict(parts)
    assert named["card"] > 0 > named["rain"]
    assert {"lost my", "my card"} <= set(named)
    assert max(named, key=lambda name: abs(named[name])) in ("card", "my card", "lost", BASE)


class Longer:
    """An embedding with more behind the words, as the second stage's is."""

    def __init__(self, first: StaticEmbedding) -> None:
        self._first = first

    def read(self, text: str) -> tuple[Floats, Integers]:
        vector, grams = self._first.read(text)
        return np.concatenate((vector, np.full(8, len(text) / 100, np.float32))), grams

    def parts(self, text: str) -> tuple[list[str], Floats]:
        return self._first.parts(text)


def test_what_no_word_adds_is_the_sentence_s() -> None:
    embedding = Longer(fitted()[1])
    head = learn(ROUTES, embedding).head
    for text in TEXTS:
        parts = dict(route_contributions(head, 1, embedding, text))
        assert sum(parts.values()) == pytest.approx(float(head.scores(embedding.read(text))[1]), abs=1e-4)
        assert SENTENCE in parts and REST not in parts
