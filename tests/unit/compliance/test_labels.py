"""Labels and their values, however far apart and however the digits are set."""

from __future__ import annotations

import pytest

from compliance.detectors.labels import evenly
from compliance.detectors.patterns import Patterns

PATTERNS = Patterns()


def found(text: str) -> list[tuple[str, str]]:
    return [(span.type, text[span.start : span.end]) for span in PATTERNS.find(text)]


@pytest.mark.parametrize(
    "mark", ["_", ",", ":", "|", "+", "*", "~", "=", "•", "→", "🙂", "👩‍⚕️", "<br>", "**", "}{", " / ", "\u00a0"]
)
def test_digits_with_anything_between(mark: str) -> None:
    assert ("ssn", f"623{mark}41{mark}7208") in found(f"SSN: 623{mark}41{mark}7208")
    assert ("itin", f"923{mark}71{mark}7208") in found(f"ITIN: 923{mark}71{mark}7208.")
    if mark != "<br>":
        assert ("mrn", f"51{mark}70{mark}32{mark}68") in found(f"MRN: 51{mark}70{mark}32{mark}68")
        card = mark.join(("5555", "5555", "5555", "4444"))
        assert ("card", card) in found(f"card {card}")


@pytest.mark.parametrize("value", ["6,2,3,4,1,7,2,0,8", "6}{2}{3}{4}{1}{7}{2}{0}{8", "6 2 3-4 1-7 2 0 8"])
def test_single_digits(value: str) -> None:
    assert ("ssn", value) in found("SSN: {" + value + "}")


@pytest.mark.parametrize("mark", ["_", "/", " 🙂 ", "·"])
def test_cards_without_a_label(mark: str) -> None:
    card = mark.join(("5555", "5555", "5555", "4444"))
    assert found(f"it is {card} now") == [("card", card)]
    assert found(f"it is {card[:-1]}5 now") == []


@pytest.mark.parametrize(
    "text", ["4012, 5011, 6033, 1111", "| 4012 | 5011 | 6033 | 1111 |", "[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7]"]
)
def test_rows_of_numbers_are_no_cards(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize(
    ("text", "even"),
    [("51_70_32", True), ("51🙂70🙂32", True), ("10, 20, 30", False), ("2019 (20), 45", False), ("51703268", False), ("1_2-3", False)],
)  # fmt: skip
def test_evenly(text: str, even: bool) -> None:
    assert evenly(text) is even


@pytest.mark.parametrize(
    ("before", "after"),
    [("<td>{}</td><td>", "</td>"), ('<dt>{}</dt><dd class="x">', "</dd>"), ('<tr><th scope="row">{}</th><td class="v">', "</td>"),
     ('<{0} type="x">', "</{0}>"), ('{{"{}": {{"system": "urn:x", "value": "', '"}}'), ("{}\nsystem\nurn:x\nvalue\n", ""),
     ('{{"{}": {{"use": "usual", "value": "', '"}}'), ("{}" + " " * 30, ""), ("{}" + "." * 40, ""), ("{} on file: ", ""),
     ("{} (verified by the clerk): ", ""), ("My {}, which is ", ", was read"), ("{} of the patient is ", "."), ("{} for the patient is ", "."),
     ("{} would be ", ""), ("{}:\n\n\n", "")],
)  # fmt: skip
def test_gaps(before: str, after: str) -> None:
    for label, kind, value in (("SSN", "ssn", "623417208"), ("mrn", "mrn", "51703268"), ("MRN", "mrn", "QX-517032")):
        text = before.format(label) + value + after.format(label)
        assert (kind, value) in found(text), text


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("mrn", "M.R.N. 51703268", "51703268"), ("mrn", "MR# 51703268", "51703268"), ("mrn", "FIN: 51703268", "51703268"),
        ("mrn", "accession: S-23-51703", "S-23-51703"), ("mrn", "encounter 517032", "517032"), ("mrn", "Rx# 5170326", "5170326"),
        ("ssn", "S S N 623417208", "623417208"), ("ssn", "my social is 623417208", "623417208"), ("ssn", "Social Securty Number 623417208", "623417208"),
        ("itin", "Tax ID: 923717208", "923717208"), ("licence", "DL D5170326", "D5170326"), ("passport", "Passport: C 0517 0326", "C 0517 0326"),
        ("plan", "group# 51703", "51703"), ("serial", "SN: QX12-3456", "QX12-3456"), ("mbi", "it is 1eg4-te5-mk73", "1eg4-te5-mk73"),
    ],
)  # fmt: skip
def test_labels(kind: str, text: str, value: str) -> None:
    assert (kind, value) in found(text)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [("ssn", "623417208 is my SSN", "623417208"), ("ssn", "623-41-7208 is the patient's SSN", "623-41-7208"), ("ssn", "623417208 (SSN)", "623417208"),
     ("mrn", "51703268 is her MRN", "51703268"), ("mrn", "QX-517032 was the patient's medical record number", "QX-517032")],
)  # fmt: skip
def test_a_label_behind_its_value(kind: str, text: str, value: str) -> None:
    assert (kind, value) in found(text)


@pytest.mark.parametrize(
    "text",
    ["medical records of 2061 patients", "DL models like ResNet50", "FIN 2023", "std::vector<int> sn = 12", "the encounter was in 2019",
     "MRN is unknown", "error 500123 for patient id missing", "their social media has 623417 followers"],
)  # fmt: skip
def test_no_labels(text: str) -> None:
    assert found(text) == []


def test_a_patients_segment() -> None:
    text = "PID|1||51703268^^^H^MR||QUELL^ADA||19450312|F||||||||||5170326|623417208\rPV1|1|O"
    assert found(text) == [("mrn", "51703268"), ("date", "19450312"), ("account", "5170326"), ("ssn", "623417208")]
