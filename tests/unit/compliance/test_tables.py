"""Values below the header of their column."""

from __future__ import annotations

import pytest

from compliance.detectors.patterns import Patterns

PATTERNS = Patterns()


def found(text: str) -> list[tuple[str, str]]:
    return [(span.type, text[span.start : span.end]) for span in PATTERNS.find(text)]


@pytest.mark.parametrize(
    "text",
    ["name,ssn,city\nAda,623417208,X\nBo,623417209,Y\n", '"name","ssn"\n"Quell, Ada","623417208"\n"Bo","623417209"', "name\tSSN\nA\t623417208\nB\t623417209",
     "| Name | SSN |\n|------|-----|\n| A | 623417208 |\n| B | 623417209 |\n", "id;ssn\n1;623417208\n2;623417209",
     "| SSN | Name |\n|---|---|\n| 623417208 | A |\n| 623417209 | B |", "SSN\n623417208\n623417209"],
)  # fmt: skip
def test_columns(text: str) -> None:
    assert found(text) == [("ssn", "623417208"), ("ssn", "623417209")]


def test_two_columns_and_a_list() -> None:
    text = "patient,mrn,member id\nA,51703268,QX-5170\nB,51703269,QX-5171\n\nB,51703270,QX-5172"
    assert found(text) == [("mrn", "51703268"), ("plan", "QX-5170"), ("mrn", "51703269"), ("plan", "QX-5171")]
    assert found("mrns\n51703268\n51703269\nnotes\n51703270") == [("mrn", "51703268"), ("mrn", "51703269")]


@pytest.mark.parametrize(
    "text",
    ["name,ssn\nAda,none\nshort\nBo,623417208", "a,b\n1,623417208", "The MRN, as we said,\nis kept, see page 51703268, line 2", "mrn,x\n", "mrn",
     "ssn,count\nyes,623417208"],
)  # fmt: skip
def test_no_columns(text: str) -> None:
    assert found(text) == []


def test_headers_are_never_reported_and_rows_are_bounded() -> None:
    text = "x,mrn\n" + "a,51703268\n" * 500
    assert {span.type for span in PATTERNS.find(text)} == {"mrn"}
    assert len(PATTERNS.find(text)) <= 257
    assert len(PATTERNS.find(text, most=10_000)) == 500
