from __future__ import annotations

import pytest

from compliance.detectors.custom import MAX_DETECTORS, CustomError, Detector, custom_patterns
from compliance.detectors.patterns import Patterns

EMPLOYEE = Detector("employee", r"E\d{6}", matches=("E123456", "staff E000001."), rejects=("E12345", "123456"))


def found(text: str, *detectors: Detector) -> list[tuple[str, str]]:
    patterns = Patterns(custom=custom_patterns(detectors))
    return [(span.type, text[span.start : span.end]) for span in patterns.find(text)]


def test_a_pattern_alone_counts_wherever_it_matches() -> None:
    assert found("ask E123456 or E654321", EMPLOYEE) == [("employee", "E123456"), ("employee", "E654321")]


def test_a_label_is_plain_words_in_any_case_and_any_script() -> None:
    ward = Detector(
        "ward_bed", r"[A-Z]\d{2}", label="Bett (Nr.) für", matches=("bett (nr.) FüR: C12",), rejects=("C12",)
    )
    assert found("im Bett (Nr.) für C12 und D34", ward) == [("ward_bed", "C12")]


def test_a_checksum_vouches_without_a_label_and_a_label_without_a_checksum() -> None:
    badge = Detector(
        "badge", r"\b\d{8}\b", label="badge", checksum="luhn",
        matches=("badge no 12345678", "it is 12345674"), rejects=("it is 12345678",),
    )  # fmt: skip
    assert found("badge 12345678, 12345678, 12345674", badge) == [("badge", "12345678"), ("badge", "12345674")]


def test_offsets_are_code_points() -> None:
    assert found("é E123456 ü", EMPLOYEE) == [("employee", "E123456")]


@pytest.mark.parametrize(
    ("detector", "field"),
    [
        (Detector("Employee", "x", matches=("x",)), "name"),
        (Detector("ssn", "x", matches=("x",)), "name"),
        (Detector("opaque", "x", matches=("x",)), "name"),
        (Detector("aa", "", matches=("x",)), "pattern"),
        (Detector("aa", "(", matches=("x",)), "pattern"),
        (Detector("aa", r"(?=x)x", matches=("x",)), "pattern"),
        (Detector("aa", r"(a)\1", matches=("aa",)), "pattern"),
        (Detector("aa", r"x*", matches=("x",)), "pattern"),
        (Detector("aa", r"((\d{100}){100}){100}", matches=("x",)), "pattern"),
        (Detector("aa", r"\pN{900}[a-z]{900}\pL{900}\pN{900}", matches=("x",)), "pattern"),
        (Detector("aa", "é", matches=("é",)), "pattern"),
        (Detector("aa", "x" * 2000, matches=("x",)), "pattern"),
        (Detector("aa", "x", label=" ", matches=("x",)), "label"),
        (Detector("aa", "x", checksum="crc", matches=("x",)), "checksum"),
        (Detector("aa", "x"), "matches"),
        (Detector("aa", r"A\d{3}", matches=("A123", "A12")), "matches"),
        (Detector("aa", r"A\d{3}", matches=("A123",), rejects=("A12", "B", "xA1234")), "rejects"),
    ],
)
def test_what_is_refused_says_where(detector: Detector, field: str) -> None:
    with pytest.raises(CustomError) as caught:
        custom_patterns([detector])
    assert caught.value.field == field
    assert caught.value.name == detector.name


def test_the_failing_example_is_named_by_its_place_not_by_its_text() -> None:
    with pytest.raises(CustomError, match="example 3 is found") as caught:
        custom_patterns([Detector("aa", r"A\d{3}", matches=("A123",), rejects=("A12", "B", "xA1234"))])
    assert "xA1234" not in str(caught.value)


def test_names_are_taken_once_and_detectors_are_bounded() -> None:
    with pytest.raises(CustomError, match="is taken"):
        custom_patterns([EMPLOYEE, EMPLOYEE])
    with pytest.raises(CustomError, match=str(MAX_DETECTORS)):
        custom_patterns([EMPLOYEE] * (MAX_DETECTORS + 1))
