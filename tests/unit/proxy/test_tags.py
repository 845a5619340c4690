"""Labels that clients send for reports: bounded, and no text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.tags import LONGEST, MOST, REMEMBERED, Labels


def tags(header: str) -> tuple[str, ...]:
    return Labels(b"key").tags({"x-spillway-tags": header})


def test_tags_are_names_and_values_in_order_of_their_names() -> None:
    assert tags("stage=prod, cost-centre=CC-4711,stage=test") == ("cost-centre=CC-4711", "stage=test")
    assert tags("job=") == ("job=",)
    assert Labels(b"key").tags({}) == tags("") == ()


@pytest.mark.parametrize(
    "value",
    ["John Smith", "j.smith@example.org", "123-45-6789", "4111111111111111", "Ünal", "x" * 49, "a\tb", "(555)1234567"],
)
def test_what_is_no_short_name_is_a_pseudonym(value: str) -> None:
    (tag,) = tags(f"who={value}")
    assert value not in tag and tag.startswith("who=~") and len(tag) == len("who=~") + 16
    assert tags(f"who={value}") == (tag,)  # lines can be summed by it
    assert Labels(b"other").tags({"x-spillway-tags": f"who={value}"}) != (tag,)


@pytest.mark.parametrize("header", ["=x", "1a=x", "a b=x", "n" * 33 + "=x", "p1234567=x", "é=x", "no equals sign here"])
def test_what_is_no_name_is_left_out(header: str) -> None:
    assert tags(header) == ()


def test_law_10_a_header_is_bounded() -> None:
    many = tags(",".join(f"n{chr(97 + place)}=1" for place in range(26)))
    assert len(many) == MOST
    assert tags("a=1," + " " * LONGEST + "b=2") == ("a=1",)
    labels = Labels(b"key")
    for number in range(REMEMBERED + 50):
        assert labels.tags({"x-spillway-tags": f"n={number}"}) == (f"n={number}",)
    assert len(labels._known) == REMEMBERED
    labels.tags({"x-spillway-tags": "a=" + "b" * LONGEST})
    assert len(labels._known) == REMEMBERED


def test_a_class_is_a_name_or_a_pseudonym() -> None:
    labels = Labels(b"key")
    assert labels.request_class({"x-spillway-class": "interactive"}) == "interactive"
    assert labels.request_class({"x-spillway-class": "for John Smith"}).startswith("~")
    assert labels.request_class({}) == ""


@given(st.text(max_size=300))
def test_law_11_whatever_the_header_holds_a_tag_is_short_and_plain(header: str) -> None:
    for tag in tags(header):
        name, _, value = tag.partition("=")
        assert tag.isascii() and tag.isprintable() and " " not in tag
        assert len(name) <= 32 and len(value) <= 48
        assert sum(map(str.isdigit, name)) <= 6
        assert value.startswith("~") or sum(map(str.isdigit, value)) <= 6
