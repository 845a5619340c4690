"""The fast tier: who, and where where somebody is meant."""

from __future__ import annotations

import pytest

from compliance.detectors.names import Names

NAMES = Names()


def found(text: str) -> list[tuple[str, str]]:
    return [(span.type, text[span.start : span.end]) for span in NAMES.find(text)]


@pytest.mark.parametrize(
    ("text", "name"),
    [("seen by Dr. Harrow today", "Harrow"), ("named Julia M. from", "Julia M."), ("Patient: Kowalska, female", "Kowalska"),
     ("the note of Maria Lopez says", "Maria Lopez"), ("Can John Smith come?", "John Smith"), ("por José Álvarez ayer", "José Álvarez"), ("a patient named Quellima, who", "Quellima"), ("her son, named Marcus, came", "Marcus")],
)  # fmt: skip
def test_names(text: str, name: str) -> None:
    assert ("name", name) in found(text)


@pytest.mark.parametrize(
    "text",
    ["Addison's disease", "the Framingham score", "Hodgkin Smith type 2", "Can May come?", "mRNA Smith", "New York", "Sprague Dawley rats",
     "The Patient was seen",
     "a drug called Quellinra", "a protein called Qdc42", "a parasite named Quellima", "Patient: Qdc42", "called Quell's membrane", "Monday Morning"],
)  # fmt: skip
def test_no_names(text: str) -> None:
    assert not found(text)


@pytest.mark.parametrize(
    ("text", "place"),
    [("a 54-year-old seen at Harrow General Hospital", "Harrow General Hospital"),
     ("an infant with reflux, seen at Children's Hospital", "Children's Hospital"), ("John Smith lives in Chicago.", "Chicago")],
)  # fmt: skip
def test_places_where_somebody_is_meant(text: str, place: str) -> None:
    assert ("place", place) in found(text)


def test_no_places_where_nobody_is() -> None:
    assert found("A survey at the Harrow General Hospital in Chicago.") == []
    assert found("a 54-year-old from the Chicago metro area") == []


def test_words_are_taken_whole() -> None:
    """A capital in the middle of a word begins none."""
    assert found("xJohn Smith") == []
