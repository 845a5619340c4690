"""Is one person meant, or are many?"""

from __future__ import annotations

import pytest

from compliance.detectors.crowd import about_many, one_person


@pytest.mark.parametrize(
    "text",
    ["a 54-year-old man", "A 54 YEAR OLD", "62yo f", "62 y/o", "pt w/ asthma", "our patient, who", "this patient", "MRN: 12", "mrn 12",
     "an infant with reflux", "Paciente: ...", "DOB 1/2/1980"],
)  # fmt: skip
def test_one_person(text: str) -> None:
    assert one_person(text)


@pytest.mark.parametrize(
    "text",
    [
        "mRNA vaccines",
        "the delayed TPT was shorter",
        "this patient population",
        "our patients",
        "a year older",
        "Dobson",
        "",
    ],
)
def test_no_one_person(text: str) -> None:
    assert not one_person(text)


def test_one_patient_among_a_population() -> None:
    assert one_person("in this patient population, our patient fared well")


@pytest.mark.parametrize(
    "text",
    [
        "A retrospective cohort of adults; the hazard ratio was 1.2.",
        "We evaluated 40 children, randomised to two groups. P = 0.03.",
        "Forty-two consecutive women were treated (12.5%).",
        "Rats were exposed in vitro; the hypothesis was tested on 1,200 samples.",
        "Incidence and prevalence in people with gout.",
    ],
)
def test_prose_about_groups(text: str) -> None:
    assert about_many(text)


@pytest.mark.parametrize(
    "text",
    [
        "A cohort of adults, incidence high.",
        "A retrospective cohort, p < 0.05: what of my patient?",
        "hello",
        "cohort cohort cohort",
    ],
)
def test_no_prose_about_groups(text: str) -> None:
    assert not about_many(text)
