"""What speaks of care, of its payment and of claims, and what does not."""

from __future__ import annotations

import pytest

from compliance.detectors.health import HealthContext, icd10_category, loinc

HEALTH = HealthContext()


@pytest.mark.parametrize(
    "text",
    ["She has hypertension.", "on metformin 500 mg", "started coumadin", "craniofacial dysplasia", "severe aspergillosis after the injection",
     "isovaleric acidemia", "an arrhythmia", "sleep apnea", "asthma exacerbation", "prophylaxis", "Best practices for a 54-year-old woman",
     "Protocol for managing a 50-year-old male", "Quell's sign", "Quell-Harrow disease", "ICD-10 code E11.9", "K50.9 ", "BP 142/91",
     "denied claim number", "prior authorization", "el paciente", "die Patientin", "vaccination of a pregnant woman"],
)  # fmt: skip
def test_health_context(text: str) -> None:
    assert HEALTH.health_context(text)


@pytest.mark.parametrize(
    "text",
    ["The President signed it", "The Quells sign a player", "Moses led them", "nostalgia", "Ada's test was easy", "Best practices for Python",
     "managing a 9-person team", "an appointment for a severe storm", "depression of the 1930s", "a chronic delay", "the doctor's dog",
     "the clinic on Harrow Street", "24 pills of candy", "a benign bug, refactored", "E11.9mm bolts"],
)  # fmt: skip
def test_no_health_context(text: str) -> None:
    assert not HEALTH.health_context(text)


@pytest.mark.parametrize(
    "text",
    ["she is pregnant", "she miscarried in May", "chlamydia", "he is in rehab", "after an abortion", "she broke her left hip", "tore his acl",
     "the insurance denied the claim for the MRI", "a claim for an MRI was denied"],
)  # fmt: skip
def test_everyday_words_of_care(text: str) -> None:
    assert HEALTH.health_context(text)


@pytest.mark.parametrize(
    "text",
    ["la patiente est enceinte", "die Diagnose", "il paziente", "o tratamento", "pacjent ma cukrzycę", "У пациента диабет", "Диагноз:", "врач в больнице",
     "患者有糖尿病", "医院的医生", "患者は糖尿病です", "환자는 당뇨병", "المريض مصاب بالسكري", "मरीज को मधुमेह है"],
)  # fmt: skip
def test_other_languages(text: str) -> None:
    assert HEALTH.health_context(text)


@pytest.mark.parametrize(
    "text",
    ["std::vector<int> x", "broke the build", "she broke the record", "the insurance denied the claim for the car", "развлечение и футбольной",
     "医生来了", "lost and broken arms race", "врач пришёл"],
)  # fmt: skip
def test_no_words_of_care(text: str) -> None:
    assert not HEALTH.health_context(text)


def test_everyday_words_count_together() -> None:
    """One of them is nothing; several of different kinds are care."""
    assert not HEALTH.health_context("the doctor came")
    assert HEALTH.health_context("the doctor at the clinic said that the pills are for the pain in my liver")


def test_each_signal_counts_once() -> None:
    assert not HEALTH.health_context("doctor " * 1000)


def test_codes_are_checked() -> None:
    assert icd10_category("E11") and icd10_category("C4A")
    assert not icd10_category("U07") and not icd10_category("F00") and not icd10_category("K96")
    assert loinc("4548-4") and not loinc("4548-5")
