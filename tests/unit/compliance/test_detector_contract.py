"""Detectors keep their contract, those of this house and Presidio; a plug-in that does not is not taken at its word."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from detector_contract import Broken, check

from compliance.detectors import presidio
from compliance.detectors.learned import Learned
from compliance.detectors.model import Span
from compliance.detectors.names import Names
from compliance.detectors.patterns import Patterns
from compliance.detectors.plugged import Misbehaved, Plugged
from compliance.detectors.presidio import ENTITIES, UNKNOWN, NotInstalled, Presidio
from compliance.identifiers import NAMES
from compliance.scan import FAILED, Scanner

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("make", [Patterns, Names, Learned])
def test_the_detectors_of_this_house(make: Any) -> None:
    check(make())


class Odd:
    """A detector that gives what it was made with."""

    def __init__(self, *spans: Any, error: type[Exception] | None = None) -> None:
        self.spans = list(spans)
        self.error = error

    def find(self, text: str) -> list[Any]:
        if self.error is not None:
            raise self.error
        return self.spans if len(text) > 5 else []


ODD = [
    (Span("nonsense", 0, 2, 1.0), "which no rule can speak of"),
    (Span("ssn", 0, 9_999_999, 1.0), "code points"),
    (Span("ssn", 2, 2, 1.0), "code points"),
    (Span("ssn", 0, 2, 1.5), "confidence"),
    (("ssn", 0, 2), "not Span"),
]


@pytest.mark.parametrize(("span", "words"), ODD)
def test_the_suite_catches_what_is_no_finding(span: Any, words: str) -> None:
    with pytest.raises(Broken, match=words):
        check(Odd(span))
    with pytest.raises(Broken, match="out of order"):
        check(Odd(Span("ssn", 3, 4, 1.0), Span("ssn", 0, 1, 1.0)))


@pytest.mark.parametrize("span", [span for span, words in ODD if "confidence" not in words and "Span" not in words])
def test_law_08_a_plug_in_that_gives_nonsense_keeps_the_text_local(span: Any) -> None:
    with pytest.raises(Misbehaved, match="'odd'"):
        Plugged("odd", Odd(span)).find("a longer text")
    assert Scanner(people=[Plugged("odd", Odd(span))]).inspect({"a": "a longer text"}, health=True) == FAILED


@pytest.mark.parametrize(
    "error", [KeyError, TypeError, OSError, ValueError, AttributeError, ZeroDivisionError, ImportError]
)
def test_law_08_a_plug_in_that_raises_keeps_the_text_local(error: type[Exception]) -> None:
    assert Scanner(people=[Plugged("odd", Odd(error=error))]).inspect({"a": "a text"}, health=True) == FAILED


def test_a_plug_in_adds_what_it_finds() -> None:
    odd = Odd(Span("name", 4, 6, 0.5), Span("name", 2, 4, 0.9))
    assert [span.start for span in Plugged("odd", odd).find("a longer text")] == [2, 4]
    seen = Scanner(people=[Plugged("odd", Odd(Span("mrn", 2, 8, 1.0)))]).inspect({"a": "a longer text"}, health=True)
    assert "mrn" in {finding.type for finding in seen.findings}


def test_the_suite_runs_on_anybodys_detector() -> None:
    command = [
        sys.executable,
        str(ROOT / "tests" / "support" / "detector_contract.py"),
        "compliance.detectors.names:Names",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "holds to the contract" in done.stdout) == (0, True), done.stderr


# --- Presidio ------------------------------------------------------------------------------------------------


class Result(NamedTuple):
    """As presidio_analyzer.RecognizerResult."""

    entity_type: str
    start: int
    end: int
    score: float


class Analyzer:
    def __init__(self, *results: Result) -> None:
        self.results = list(results)
        self.asked: list[tuple[str, str]] = []

    def analyze(self, text: str, language: str) -> list[Result]:
        self.asked.append((text, language))
        return self.results


TEXT = "Brana Corbrack, 93, came on March 3rd, today, for two weeks, 1997"


def found(*rows: tuple[str, str, float]) -> list[tuple[str, str]]:
    results = [Result(kind, TEXT.index(part), TEXT.index(part) + len(part), score) for kind, part, score in rows]
    return [(span.type, TEXT[span.start : span.end]) for span in Presidio(Analyzer(*results)).find(TEXT)]


def test_presidios_entities_get_our_names() -> None:
    assert {kind for kind in ENTITIES.values() if kind} | {UNKNOWN} <= set(NAMES)
    assert found(("AGE", "93", 0.9), ("PERSON", "Brana Corbrack", 0.85)) == [("name", "Brana Corbrack"), ("age", "93")]
    assert found(("SOMEBODYS_OWN", "Corbrack", 0.9)) == [(UNKNOWN, "Corbrack")]
    assert found(("ORGANIZATION", "Corbrack", 0.9), ("US_BANK_NUMBER", "1997", 0.05)) == []


def test_presidios_dates_are_days_and_its_ages_are_over_89() -> None:
    dates = [("DATE_TIME", part, 0.85) for part in ("March 3rd", "today", "two weeks", "1997")]
    assert found(*dates) == [("date", "March 3rd")]
    assert found(("AGE", "97", 0.9)) == [("age", "97")] and found(("AGE", "19", 0.9)) == []


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presidio, "find_spec", lambda name: None)
    for make in (presidio.with_model, presidio.patterns_only):
        with pytest.raises(NotInstalled, match=r"pip install 'spillway\[presidio\]'"):
            make()
    monkeypatch.setattr(presidio, "find_spec", lambda name: None if name in presidio.MODELS else object())
    with pytest.raises(NotInstalled, match="spacy download en_core_web_lg"):
        presidio.with_model()


@pytest.mark.skipif(
    bool(presidio.missing_package()), reason="presidio-analyzer is not installed: its patterns are not tried"
)
def test_presidios_patterns_keep_the_contract() -> None:
    detector = presidio.patterns_only()
    text = "card 4111 1111 1111 1111, mail jane@example.org, IBAN DE89370400440532013000"
    assert {"card", "email", "iban"} <= {span.type for span in detector.find(text)}
    check(Plugged("presidio-patterns", detector))


@pytest.mark.skipif(
    bool(presidio.missing()), reason="presidio-analyzer or a spaCy model is not installed: names are not tried"
)
def test_presidio_with_a_model_finds_names() -> None:
    detector = presidio.with_model()
    assert "name" in {span.type for span in detector.find("My name is Maria Kowalski and I live in Boston.")}
