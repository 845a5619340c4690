"""Routes learnt from a handful of utterances, on the embedding in the box."""

from functools import cache

import pytest
from msgspec.structs import replace

from policies.embedding import StaticEmbedding
from policies.overlap import doubts
from policies.semantic import FAR, NEAR, Route, Semantics, described, learn, phrases_of, unlike
from proxy.routing_models import load_embedding

CARDS = Route(
    "cards",
    "lost, stolen or blocked payment cards",
    (
        "I lost my card", "my credit card was stolen", "please block my debit card", "the card was swallowed by the machine",
        "I can't find my bank card anywhere", "someone took my card", "freeze my card at once", "my card is missing",
        "how do I report a stolen card", "unblock my card please",
    ),
)  # fmt: skip
WEATHER = Route(
    "weather",
    "weather forecasts, rain, sun and temperature",
    (
        "will it rain tomorrow", "what's the weather in Paris", "do I need an umbrella today", "how hot will it get this weekend",
        "is it going to snow", "temperature outside right now", "forecast for next week", "is a storm coming",
        "will the sun shine on Sunday", "how windy is it at the coast",
    ),
)  # fmt: skip
RECIPES = Route(
    "recipes",
    "cooking, ingredients and recipes",
    (
        "how do I bake bread", "what can I cook with eggs and rice", "recipe for tomato soup", "how long do I boil an egg",
        "which spices go into a curry", "how much flour for pancakes", "can I replace butter with oil in a cake",
        "how to roast a chicken", "what goes well with salmon", "ideas for a vegetarian dinner",
    ),
)  # fmt: skip
ROUTES = [CARDS, WEATHER, RECIPES]


@cache
def embedding() -> StaticEmbedding:
    return load_embedding()[0]


@cache
def placed() -> Semantics:
    return Semantics(learn(ROUTES, embedding()), embedding())


@pytest.mark.parametrize(
    ("text", "route"),
    [
        ("my visa card has been stolen, block it", "cards"),
        ("I have lost my bank card", "cards"),
        ("will it rain in London this weekend", "weather"),
        ("what temperature will it be tomorrow", "weather"),
        ("how do I cook rice", "recipes"),
        ("a recipe for chicken soup", "recipes"),
    ],
)
def test_texts_like_the_examples_find_their_route(text: str, route: str) -> None:
    found = placed().place(text)
    assert found.route == route
    assert found.best[0][0] == route and found.probability == found.best[0][1]
    assert found.nearest[0] == route
    assert found.margin > 0 and found.scope >= 0


@pytest.mark.parametrize(
    "text", ["prove that the square root of two is irrational", "SELECT name FROM users WHERE id = 7", "", "qqqq zzzz"]
)
def test_what_is_no_route_s_business_is_out_of_scope(text: str) -> None:
    found = placed().place(text)
    assert found.route is None and found.scope < 0


def test_probabilities_are_probabilities() -> None:
    found = placed().place("my card")
    assert sum(chance for _, chance in found.best) == pytest.approx(1, abs=1e-3)


def test_held_out_examples_are_counted_and_mostly_right() -> None:
    held = placed().fitted.held
    assert held.examples == 30
    assert held.right >= 24
    assert held.right + sum(count for *_, count in held.confusions) == held.examples


def test_a_route_s_own_threshold_stands_for_the_scope() -> None:
    strict = [Route(r.name, r.description, r.utterances, threshold=0.999999) for r in ROUTES]
    found = Semantics(learn(strict, embedding()), embedding()).place("how cold is a glacier")
    assert found.best[0][0] == "weather" and found.route is None


def test_a_negative_keeps_its_like_out() -> None:
    said = "play cards with me, a game of poker"
    with_negative = [
        Route(CARDS.name, CARDS.description, CARDS.utterances, (said, "shuffle the deck and deal the cards")),
        *ROUTES[1:],
    ]
    before = placed().place(said).scope
    assert Semantics(learn(with_negative, embedding()), embedding()).place(said).scope < before


def test_a_route_without_utterances_is_known_by_its_description() -> None:
    routes = [*ROUTES, Route("travel", "booking flights, trains and hotels for a journey", ())]
    found = Semantics(learn(routes, embedding()), embedding()).place("book me a flight and a hotel")
    assert found.best[0][0] == "travel"


def test_descriptions_speak_of_texts_unlike_every_utterance_only() -> None:
    assert unlike(NEAR) == unlike(1.0) == 0
    assert unlike(FAR) == unlike(-1.0) == 1
    assert 0 < unlike((NEAR + FAR) / 2) < 1
    utterance = CARDS.utterances[0]
    loud = replace(placed().fitted, says=1000.0)  # were descriptions asked, no score could stand against them
    for text in (utterance, WEATHER.utterances[3]):
        assert Semantics(loud, embedding()).place(text).best == placed().place(text).best
    unheard = Semantics(replace(loud, says=0.0), embedding()).place("ingredients")
    assert Semantics(loud, embedding()).place("ingredients").probability > unheard.probability


def test_a_description_is_read_by_what_it_lists() -> None:
    assert phrases_of("cooking, ingredients and recipes") == ["cooking", "ingredients", "recipes"]
    assert phrases_of("sand or Orders AND andante") == ["sand", "Orders", "andante"]
    assert phrases_of("\u5929\u6c17\u3001\u96e8") == ["\u5929\u6c17", "\u96e8"]
    assert phrases_of("") == [""] and phrases_of(".,") == [".,"]
    assert len(phrases_of(", ".join(map(str, range(100))))) == 16


def test_a_text_is_as_like_a_description_as_the_phrase_most_like_it() -> None:
    fitted = placed().fitted
    assert fitted.phrases.tolist() == [0, 3, 7]
    assert len(fitted.descriptions) == 10
    vector = embedding().read("recipes")[0]
    assert described(fitted.descriptions, fitted.phrases, vector)[2] == pytest.approx(1, abs=1e-5)


def test_the_order_of_routes_changes_nothing_that_matters() -> None:
    turned = Semantics(learn(ROUTES[::-1], embedding()), embedding())
    for text in ("I have lost my bank card", "how do I cook rice"):
        assert turned.place(text).route == placed().place(text).route
        assert turned.place(text).probability == pytest.approx(placed().place(text).probability, abs=0.02)


def test_too_few_routes_and_too_many_utterances_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="at least two routes"):
        learn([CARDS], embedding())
    monkeypatch.setattr("policies.semantic.MOST_EXAMPLES", 20)
    with pytest.raises(ValueError, match="30 utterances together, more than 20"):
        learn(ROUTES, embedding())


def test_doubts_name_what_a_person_should_look_at() -> None:
    routes = [
        CARDS,
        Route("theft", "stolen things", ("my credit card was stolen", "My Card is MISSING", "somebody took my bag")),
        WEATHER,
    ]
    found = doubts(routes, learn(routes, embedding()))
    assert [(a, b) for a, b, _ in found.repeated] == [("cards", "theft"), ("cards", "theft")]
    assert found.thin == (("theft", 3),)
    assert doubts(ROUTES, placed().fitted).repeated == ()
