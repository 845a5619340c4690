"""Published examples of each scheme, and that a wrong digit fails."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from compliance.detectors import checksums
from compliance.detectors import checksums_national as national

EXAMPLES: list[tuple[Callable[[str], bool], str]] = [
    (checksums.npi, "1234567893"),
    (checksums.dea, "AB1234563"),
    (checksums.aba, "021000021"),
    (checksums.iban, "DE89370400440532013000"),
    (checksums.vin, "1M8GDM9AXKP042788"),
    (checksums.gtin, "00643169007222"),
    (checksums.imei, "490154203237518"),
    (national.uk_nhs, "9434765919"),
    (national.ca_sin, "130692544"),
    (national.de_tax, "86095742719"),
    (national.fr_nir, "255081416802538"),
    (national.es_nif, "12345678Z"),
    (national.es_nif, "X1234567L"),
    (national.es_nuss, "281234567840"),
    (national.it_cf, "RSSMRA85T10A562S"),
    (national.pl_pesel, "44051401359"),
    (national.nl_bsn, "111222333"),
    (national.au_medicare, "2123456701"),
    (national.au_tfn, "123456782"),
    (national.in_aadhaar, "234123412346"),
    (national.verhoeff, "2363"),
]


@pytest.mark.parametrize(("check", "number"), EXAMPLES)
def test_published_examples_pass(check: Callable[[str], bool], number: str) -> None:
    assert check(number)


@pytest.mark.parametrize(("check", "number"), EXAMPLES)
def test_most_wrong_digits_fail(check: Callable[[str], bool], number: str) -> None:
    wrong = [
        number[:at] + other + number[at + 1 :]
        for at, digit in enumerate(number)
        if digit.isdigit()
        for other in "0123456789"
        if other != digit
    ]
    assert sum(map(check, wrong)) <= len(wrong) * 0.12


@pytest.mark.parametrize("text", ["1EG4TE5MK73", "1EG4TE5MK72"])
def test_the_form_of_an_mbi(text: str) -> None:
    assert checksums.mbi(text)


@pytest.mark.parametrize("text", ["0EG4TE5MK73", "1SG4TE5MK73", "1EG4TE5MK7", "1EGATE5MK73", "1EG4TE5M073"])
def test_what_is_no_mbi(text: str) -> None:
    assert not checksums.mbi(text)


@pytest.mark.parametrize("text", ["AB123456C", "JG103759A"])
def test_the_form_of_a_national_insurance_number(text: str) -> None:
    assert national.uk_nino(text)


@pytest.mark.parametrize("text", ["DA123456C", "GB123456A", "AB123456E", "AB12345C", "QQ123456C"])
def test_what_is_no_national_insurance_number(text: str) -> None:
    assert not national.uk_nino(text)
