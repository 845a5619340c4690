"""What identifies only in company, and how what several detectors saw becomes one."""

from __future__ import annotations

import pytest

from compliance.detectors.company import together, united
from compliance.detectors.model import Span
from compliance.detectors.patterns import Patterns
from compliance.scan import Scanner

STUDY = "A retrospective cohort of 212 patients with asthma; outcomes were analysed, p < 0.01. "


def spans(text: str, *parts: tuple[str, str, float]) -> list[Span]:
    return [Span(kind, text.index(part), text.index(part) + len(part), sure) for kind, part, sure in parts]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("on warfarin since March 2021", [("date", "March 2021", 0.5)]),
        ("seen last week", [("date", "last week", 0.4)]),
        ("treated near Torvik", [("place", "Torvik", 0.51)]),
        ("James takes two tablets: how many mg is that?", [("name", "James", 1.0)]),
        ("James takes two tablets", [("name", "James", 0.85)]),
        ("Petrov needs insulin", [("name", "Petrov", 0.85)]),
        ("L-Carnitine helps", [("name", "L-Carnitine", 0.8)]),
        ("the Smith Jones society", [("name", "Smith Jones", 0.58)]),
        ("a parasite called Quellima", [("name", "Quellima", 0.95)]),
        ("in E. hirae", [("name", "E. hirae", 0.97)]),
        ("the Smith Jones syndrome", [("name", "Smith Jones", 0.9)]),
        ("seen at the hospital", [("place", "hospital", 0.8)]),
        (STUDY + "From 1 May 2007 in Torvik, Maine", [("date", "1 May 2007", 1.0), ("address", "Torvik, Maine", 0.8)]),
        (STUDY + "From 1 May 2007, Pentosidine", [("date", "1 May 2007", 1.0), ("name", "Pentosidine", 0.96)]),
    ],
)
def test_alone_it_is_nothing(text: str, parts: list[tuple[str, str, float]]) -> None:
    assert together(text, spans(text, *parts)) == []


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("on warfarin since 3 March 2021", [("date", "3 March 2021", 1.0)]),
        ("John Smith, last week", [("name", "John Smith", 0.9), ("date", "last week", 0.4)]),
        ("MRN 4827193, last week", [("mrn", "4827193", 0.9), ("date", "last week", 0.4)]),
        ("Petrov needs insulin", [("name", "Petrov", 0.99)]),
        ("James takes two tablets", [("name", "James", 1.0)]),
        ("Mr. James is better", [("name", "James", 0.9)]),
        ("Patient: James", [("name", "James", 0.7)]),
        ("a 54-year-old, Kowalska, is better", [("name", "Kowalska", 0.9)]),
        ("lives at 12 Main St", [("address", "12 Main St", 0.9)]),
        (STUDY + "John Smith took part", [("name", "John Smith", 0.9)]),
        (STUDY + "He is a 54-year-old, seen 1 May 2007", [("date", "1 May 2007", 1.0)]),
        (STUDY + "12 Main St", [("address", "12 Main St", 0.9)]),
    ],
)
def test_it_counts_where_somebody_is_meant(text: str, parts: list[tuple[str, str, float]]) -> None:
    found = spans(text, *parts)
    assert together(text, found) == found


def test_in_a_tagged_tenant_only_what_counts_from_today_needs_company() -> None:
    text = "James since March 2021"
    found = spans(text, ("name", "James", 1.0), ("date", "March 2021", 0.5))
    assert together(text, found, tagged=True) == found
    text = "seen last week"
    assert together(text, spans(text, ("date", "last week", 0.4)), tagged=True) == []


def test_nothing_stays_nothing() -> None:
    assert together("a text", []) == []


def test_the_parts_of_one_address_are_one() -> None:
    parts = [
        Span("address", 0, 10, 0.9),
        Span("address", 6, 20, 0.8),
        Span("name", 6, 9, 0.5),
        Span("address", 20, 25, 0.7),
    ]
    assert united(parts) == [Span("address", 0, 20, 0.9), Span("name", 6, 9, 0.5), Span("address", 20, 25, 0.7)]


def test_numbers_that_overlap_stay_two() -> None:
    """Of two readings of the same digits the surer one is taken, not the longer."""
    parts = [Span("card", 0, 10, 0.9), Span("card", 6, 20, 0.8)]
    assert united(parts) == parts


def test_the_scanner_asks_for_company() -> None:
    scanner = Scanner(Patterns())
    body = {"messages": [{"role": "user", "content": "Hypertension since March 2021, what now?"}]}
    assert scanner.inspect(body).findings == ()
    body["messages"].append({"role": "user", "content": "MRN: 4827193"})
    assert {finding.type for finding in scanner.inspect(body).findings} == {"date", "mrn"}


def test_many_unsure_names_cost_one_look_at_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    monkeypatch.setattr("compliance.detectors.company.cues", lambda text: looks.append(text) or (False, 0))
    text = "Quellima " * 500
    assert together(text, [Span("name", at * 9, at * 9 + 8, 0.9) for at in range(500)]) == []
    assert len(looks) == 1
