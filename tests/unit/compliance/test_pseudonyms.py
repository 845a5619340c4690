"""Pseudonyms: one for each value of a scope, the way back, and what looks like one without being one."""

from __future__ import annotations

import pytest

from compliance.identifiers import NAMES
from compliance.pseudonyms import MAX_PSEUDONYM, PSEUDONYM, Known, Scope, ScopeFull, normalised, type_of

KEY = b"k" * 32


def scope(*known: Known, key: bytes = KEY, limit: int = 10_000) -> Scope:
    return Scope("s", key, known, limit=limit)


@pytest.mark.parametrize("kind", [*NAMES, "badge number", "9lives", "\u00e9\u00e9", "x" * 80])
def test_every_kind_has_pseudonyms_that_are_seen_as_such(kind: str) -> None:
    made = scope().pseudonym(kind, "some value")
    assert PSEUDONYM.fullmatch(made)
    assert len(made) <= MAX_PSEUDONYM
    assert '"' not in made and "\\" not in made


def test_a_value_has_one_pseudonym_in_a_scope_and_another_elsewhere() -> None:
    first = scope()
    made = first.pseudonym("ssn", "219-09-9999")
    assert made == first.pseudonym("ssn", "219 09 9999") == scope().pseudonym("ssn", "219099999")
    assert made != scope(key=b"o" * 32).pseudonym("ssn", "219-09-9999")
    assert made != first.pseudonym("ssn", "219-09-9998")
    assert made.rpartition("_")[2] != first.pseudonym("mrn", "219-09-9999").rpartition("_")[2]


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("date", "1/12/2020", "11/2/2020"),
        ("ip", "1.11.1.1", "11.1.1.1"),
        ("secret", "sk-aB", "sk-ab"),
        ("url", "h/A", "h/a"),
    ],
)
def test_different_values_are_not_taken_for_one(kind: str, one: str, other: str) -> None:
    assert normalised(kind, one) != normalised(kind, other)


def test_spellings_of_a_name_are_one() -> None:
    assert normalised("name", "Ann  LEE") == normalised("name", "ann lee")


def test_the_way_back_is_of_this_exchange_alone() -> None:
    """A model that guesses the pseudonyms of other exchanges is told nothing."""
    earlier = scope()
    made = earlier.pseudonym("name", "Ann Lee")
    later = scope(*earlier.added)
    assert earlier.original(made) == "Ann Lee"
    assert later.original(made) is None
    assert later.pseudonym("name", "ANN LEE") == made
    assert later.original(made) == "ANN LEE"  # as it is spelled now
    assert later.added == [] and later.issued == 1


def test_what_looks_like_a_pseudonym_is_escaped_and_comes_back() -> None:
    one = scope()
    real = one.pseudonym("name", "Ann Lee")
    escaped = one.escape(f"see {real} and [not_one] and [NAME_zzzzz].")
    assert real not in escaped
    assert "[not_one]" in escaped
    assert (
        PSEUDONYM.sub(lambda match: one.original(match.group()) or "?", escaped)
        == f"see {real} and [not_one] and [NAME_zzzzz]."
    )
    assert one.escape("nothing here") == "nothing here"


def test_a_collision_makes_the_later_one_longer() -> None:
    made = scope().pseudonym("name", "Ann Lee")
    other = scope(Known(made, "name", "Somebody Else"))
    longer = other.pseudonym("name", "Ann Lee")
    assert longer.startswith(made[:-1]) and len(longer) == len(made) + 1
    assert scope(Known(made, "name", "Somebody Else"), *other.added).pseudonym("name", "Ann Lee") == longer


def test_a_scope_has_a_limit() -> None:
    full = scope(limit=2)
    full.pseudonym("name", "a")
    full.pseudonym("name", "b")
    with pytest.raises(ScopeFull):
        full.pseudonym("name", "c")
    assert full.pseudonym("name", "a")


def test_ten_thousand_values_are_all_different_and_hold_a_letter() -> None:
    many = scope()
    made = {many.pseudonym("ssn", f"{number:09}") for number in range(10_000)}
    assert len(made) == 10_000
    assert all(any(map(str.isalpha, one.rpartition("_")[2])) for one in made)


def test_what_is_known_is_not_printed() -> None:
    assert "Ann" not in repr(Known("[NAME_abcd]", "name", "Ann Lee"))


def test_types_are_words() -> None:
    assert [type_of(kind) for kind in ("name", "uk_nhs", "badge number", "9lives")] == [
        "NAME",
        "UK_NHS",
        "BADGE_NUMBER",
        "X_9LIVES",
    ]
