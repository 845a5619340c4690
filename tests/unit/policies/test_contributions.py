"""The contributions of a text's words add up to the score by which it was placed."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from policies.contributions import BASE, DESCRIPTION, REST, SENTENCE, Wordwise, route_contributions
from policies.embedding import Floats, Integers, StaticEmbedding
from policies.linear import softmax
from policies.semantic import NEAR, Fitted, Placed, Route, Semantics, learn
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


def chances(found: Fitted, placed: Placed, embedding: Wordwise, text: str) -> dict[str, float]:
    """The routes' probabilities, of the sums of their contributions alone."""
    sums = [
        sum([amount for _, amount in route_contributions(found, placed, embedding, text, route)])
        for route in range(len(found.names))
    ]
    return dict(
        zip(found.names, softmax(np.float32(found.sharpness) * np.array(sums, np.float32)).tolist(), strict=True)
    )


@pytest.mark.parametrize("text", TEXTS)
def test_they_add_up_to_what_the_text_was_placed_by_and_the_largest_stand_first(text: str) -> None:
    found, embedding = fitted()
    placed = Semantics(found, embedding).place(text)
    assert chances(found, placed, embedding, text) == pytest.approx(dict(placed.best), abs=2e-4)
    parts = route_contributions(found, placed, embedding, text)
    assert [abs(amount) for _, amount in parts] == sorted([abs(amount) for _, amount in parts], reverse=True)
    assert REST not in dict(parts)  # every part has a name


def test_the_words_that_matter_weigh_most() -> None:
    found, embedding = fitted()
    placed = Semantics(found, embedding).place("I lost my card in the rain")
    named = dict(route_contributions(found, placed, embedding, "I lost my card in the rain", 0))
    assert named["card"] > 0 > named["rain"]
    assert {"lost my", "my card"} <= set(named)
    assert max(named, key=lambda name: abs(named[name])) in ("card", "my card", "lost", BASE)


def test_a_text_like_no_utterance_is_also_placed_by_what_the_routes_describe() -> None:
    found, embedding = fitted()
    text = "snowfall expected"
    placed = Semantics(found, embedding).place(text)
    near = DESCRIPTION in dict(route_contributions(found, placed, embedding, text))
    assert near is (placed.nearest[2] < NEAR)
    assert DESCRIPTION not in dict(
        route_contributions(found, Semantics(found, embedding).place("block my card"), embedding, "block my card")
    )


class Longer:
    """An embedding with more behind the words, as the second stage's is."""

    says = 1.0

    def __init__(self, first: StaticEmbedding) -> None:
        self._first = first

    def read(self, text: str) -> tuple[Floats, Integers]:
        vector, grams = self._first.read(text)
        return np.concatenate((vector, np.full(8, len(text) / 100, np.float32))), grams

    def parts(self, text: str) -> tuple[list[str], Floats]:
        return self._first.parts(text)


def test_what_no_word_adds_is_the_sentence_s() -> None:
    embedding = Longer(fitted()[1])
    found = learn(ROUTES, embedding)
    for text in TEXTS:
        placed = Semantics(found, embedding).place(text)
        assert chances(found, placed, embedding, text) == pytest.approx(dict(placed.best), abs=2e-4)
        parts = dict(route_contributions(found, placed, embedding, text))
        assert SENTENCE in parts and REST not in parts
