from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
from growth import linear

from compliance.detectors.automaton import Automaton
from compliance.detectors.patterns import MAX_SPANS, Patterns, TooMany
from compliance.detectors.patterns import PATTERNS as SHAPES
from compliance.identifiers import FAMILY, IDENTIFIERS

PATTERNS = Patterns()
DATA = Path(os.environ.get("SPILLWAY_EVAL_DATA", Path(__file__).parents[4] / "shared" / "data")) / "phi"


def found(text: str) -> list[tuple[str, str]]:
    """(type, the text of the span) of everything found."""
    return [(span.type, text[span.start : span.end]) for span in PATTERNS.find(text)]


SECRETS = [
    "-----BEGIN PRIVATE KEY-----",
    "-----BEGIN RSA PRIVATE KEY-----",
    "-----BEGIN OPENSSH PRIVATE KEY-----",
    "-----BEGIN PGP PRIVATE KEY BLOCK-----",
    "AKIA" + "IOSFODNN7EXAMPLE",
    "sk-" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0u1V2w3X4",
    "sk-proj-" + "Ab3_dE5-gH7jK9_mN1pQ",
    "sk-ant-api03-" + "x" * 93 + "AA",
    "ghp_" + "a1B2" * 9,
    "github_pat_" + "A1b2" * 6,
    "xoxb-" + "123456789012-abcdefABCDEF",
    "AIza" + "Sy" + "D1a2b3c4d5e6f7g8h9i0j1k2l3m4n5o6p",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dBjftJeZ4CVPmB92K27uhbUJU1p1r",
    "eyJhbGciOiJub25lIn0x.eyJzdWIiOiIxMjM0In0.",
    "spw_" + "Ab1-" * 10 + "xyz",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_secrets(secret: str) -> None:
    assert found(f"use {secret} here") == [("secret", secret)]
    assert found(json.dumps({"key": secret}))[0][0] == "secret"


@pytest.mark.parametrize(
    "number",
    ["4111111111111111", "4111 1111 1111 1111", "4111-1111-1111-1111", "4111.1111.1111.1111", "378282246310005",
     "3782 822463 10005", "30569309025904", "3056 930902 5904", "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1"],
)  # fmt: skip
@pytest.mark.parametrize(
    "around",
    ["pay with {} now", "{}", "({})", "{}, thanks", "x{}y", "{} 12/26 123", "{} exp 12/26", "qty 1 {}", "2024 {}", "1. {}",
     "id-{}", "{}\n123", "{}.", "a:{};"],
)  # fmt: skip
def test_a_card_is_found_whatever_stands_beside_it(number: str, around: str) -> None:
    if " " in number and len(number) == 31 and around[-6:] in ("26 123", "1 {}", "24 {}", " 1 {}"):
        pytest.skip("single digits next to digits have no border")
    assert ("card", number) in found(around.format(number))


def test_a_19_digit_card_and_one_with_its_code() -> None:
    assert ("card", "4111 1111 1111 1111") in found("4111 1111 1111 1111 123")
    assert found("6221 2612 3456 7890 004")[0][0] == "card"


@pytest.mark.parametrize(
    "label",
    ["card number: ", "Card No. ", "card #", "card is ", "credit_card_number=", '"cardNumber": "', "cc: ", "PAN: ", "VISA ",
     "customer_card: ", "cards: ", "card\n", "my Mastercard number is "],
)  # fmt: skip
def test_a_labelled_card_counts_without_luhn(label: str) -> None:
    assert [kind for kind, _ in found(label + "4111 1111 1111 1112")] == ["card"]
    assert found("order " + "4111 1111 1111 1112") == []


@pytest.mark.parametrize("text", ["123-45-6789", "123 45 6789", "123.45.6789", "912-70-1234"])
@pytest.mark.parametrize("around", ["{}", "it is {}.", "John-{}", "ID-{}-x", "({})", "{},", "a {} b", "—{}—"])
def test_ssn_shapes(text: str, around: str) -> None:
    assert (("itin" if text[0] == "9" else "ssn"), text) in found(around.format(text))


@pytest.mark.parametrize(
    ("text", "part"),
    [("the last four of her SSN are 6789", "6789"), ("SSN ending in 6789", "6789"), ("SSN: XXX-XX-6789", "XXX-XX-6789"),
     ("social security number, last 4 digits: 6789", "6789"), ("***-**-6789", "***-**-6789")],
)  # fmt: skip
def test_a_part_of_a_social_security_number(text: str, part: str) -> None:
    assert ("ssn", part) in found(text)


@pytest.mark.parametrize(
    "text",
    ["000-12-3456", "666-12-3456", "912-12-3456", "123-00-4567", "123-45-0000", "978-123-45-6789-1", "1123-45-67890",
     "123456789", "the sum of 123456789 and 1"],
)  # fmt: skip
def test_what_is_no_ssn(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize(
    "label",
    ["SSN ", "ssn: ", "SSN# ", "S.S.N. ", "social security number is ", "Social Security No. ", "soc sec ",
     "patient_ssn=", "ssn_value: ", '"ssn": ', "patientSsn: ", "patientSSN: ", "socialSecurityNumber: ", "SS# ",
     "ssn\nvalue\n"],
)  # fmt: skip
@pytest.mark.parametrize(
    "number", ["123456789", "123-45-6789", "000-12-3456", "9 8 7 - 6 5 - 4 3 2 1", "123.-45.-67.89"]
)
def test_a_label_makes_nine_digits_an_ssn(label: str, number: str) -> None:
    assert ("ssn", number) in found(label + number)
    assert ("itin", number) in found("ITIN: " + number)


@pytest.mark.parametrize(
    "text", ["className: 123456789", "business 123456789", "waiting 123456789", "session: 123456789"]
)
def test_a_label_is_a_word_of_its_own(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize(
    "address", ["a@b.co", "john.doe+tag@mail.example.org", "x_y-z%1@sub.domain.museum", "jürgen@exämple.de"]
)
def test_email(address: str) -> None:
    for text in (address, f"mail {address}.", f"<{address}>", f"mailto:{address}?x", f"({address})", f"to={address},"):
        assert ("email", address) in found(text)


CLEAN = [
    "It cost $1,234,567.89 and then 0.4111111111111111 of it.",
    "Order 4111111111111112 was shipped; tracking 1Z999AA10123456784.",
    "Due 2026-11-24, 24/11/2026 and 11.24.2026 at 12:34:56.789.",
    "ISBN 978-3-16-148410-0, ISBN-10 0-306-40615-2.",
    "version 10.15.7, build 19H2, numpy==1.26.4, lodash@4.17.21, python@3.11",
    "123e4567-e89b-12d3-a456-426614174000",
    "x = 123456789 * 987654321 + 3.14159265358979; y = 2 ** 64 = 18446744073709551616",
    "1700000000 1700000000123 1700000000123456 are timestamps",
    "call f(a @ b.T) and images/icon@2x.png, @decorator.name",
    "sk-learn-pipeline-with-many-words and class='sk-fading-circle-item-two'",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "call 555-867-5309 or +1 (212) 555-0199; fax 1-800-555-0100",
    "-----BEGIN CERTIFICATE-----",
    "the matrix is 12 34 56 78 90 12 34 56 78",
]


@pytest.mark.parametrize("text", CLEAN)
def test_what_is_clean(text: str) -> None:
    assert [kind for kind, _ in found(text) if FAMILY[kind] == "always"] == []


# --- places ----------------------------------------------------------------------------------------------------


def test_an_invisible_character_cannot_unmake_what_is_in_plain_sight() -> None:
    assert found("123-45-6789\u200b0")[0] == ("ssn", "123-45-6789")


def test_offsets_are_code_points() -> None:
    text = "😀 é 患 \ud800 a@b.co ü 123-45-6789"
    assert found(text) == [("email", "a@b.co"), ("ssn", "123-45-6789")]


# --- bounds ----------------------------------------------------------------------------------------------------

HOSTILE = {
    "spaced digits": "4 " * 150_000,
    "groups": "4111 " * 60_000,
    "digits": "1" * 300_000,
    "emails": "a@b.co " * 40_000,
    "half emails": "a@a." * 75_000,
    "ssns": "123-45-6789 " * 25_000,
    "labels": "ssn card number is " * 15_000,
    "tokens": "sk-a" * 75_000,
    "jwt": "eyJaaaaaaaaaa" * 23_000,
    "zero width": "4\u200b" * 150_000,
    "phones": "555-867-5309 " * 23_000,
    "dates": "1/2/2020 " * 33_000,
    "months": "May 5 " * 50_000,
    "web": "http://" * 42_000,
    "long web": "http://a.b/" + "x" * 300_000,
    "passwords in web": "a://b:c" * 42_000,
    "machines": "1.2.3.4." * 37_000,
    "machines of six": "a:b:" * 75_000,
    "at": "a@" * 150_000,
    "streets": "12 Aa Bb Cc St " * 20_000,
    "half streets": "1 A " * 75_000,
    "cities": "Aa, TX " * 43_000,
    "records": "mrn:1 patient id:2 insurance policy no 3 account no 4 " * 6_500,
    "spelled": " at x dot com" * 23_000,
    "long token": "secret=" + "aB3" * 100_000,
    "noise": "".join(random.Random(3).choices("ABCDEFGHabcxyz0123456789 -.:@/", k=300_000)),
    "digits and dashes": "".join(random.Random(2).choices("0123456789 -./", k=300_000)),
    "mixed": "".join(random.Random(1).choices("sk-ant@.0123456789eyJghpxoAIzaKcardn :_", k=300_000)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_text_is_slow(name: str) -> None:
    def look(text: str) -> None:
        try:
            assert len(PATTERNS.find(text)) <= 20 * MAX_SPANS
        except TooMany:
            pass

    text = HOSTILE[name]
    linear(look, text[: len(text) // 4], text)


def test_more_candidates_than_are_tried_is_not_clean() -> None:
    with pytest.raises(TooMany):
        PATTERNS.find("4111 " * 60_000)


# --- measured on data that stays outside ------------------------------------------------------------------------


def rows(name: str) -> list[dict[str, str]]:
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"no evaluation data at {path}; SPILLWAY_EVAL_DATA says where it is")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_benign_prompts_are_not_flagged() -> None:
    texts = [row["text"] for row in rows("negatives.jsonl")]
    flagged = sum(any(FAMILY[kind] == "always" for kind, _ in found(text)) for text in texts)
    assert flagged / len(texts) <= 0.001


NAMED = {
    "CREDIT_CARD": "card", "US_SSN": "ssn", "US_ITIN": "itin", "US_NPI": "npi", "US_DEA": "dea", "US_MBI": "mbi",
    "US_ABA_ROUTING": "routing", "UK_NHS": "uk_nhs", "IBAN": "iban", "VIN": "vin", "UDI_GTIN14": "udi", "IMEI": "imei",
    "CA_SIN": "ca_sin", "ES_NIF": "es_nif", "PL_PESEL": "pl_pesel", "NL_BSN": "nl_bsn", "FR_NIR": "fr_nir",
    "DE_STEUERID": "de_tax",
}  # fmt: skip
UNLABELLED = {"CREDIT_CARD", "US_SSN", "US_ITIN", "US_DEA", "US_MBI", "IBAN", "ES_NIF", "FR_NIR"}


def test_labelled_vectors_are_all_found() -> None:
    vectors = rows("checksum_vectors.jsonl")
    missed = [
        row["entity"]
        for row in vectors
        if (NAMED[row["entity"]], row["value"]) not in found(f"{row['context']}: {row['value']}")
        or (row["valid"] and row["entity"] in UNLABELLED and not found(f"It says {row['value']} there"))
    ]
    assert vectors
    assert missed == []


# --- the table ----------------------------------------------------------------------------------------------------


def test_every_kind_that_is_found_is_in_the_table() -> None:
    kinds = {shape.type for shape in SHAPES}
    assert kinds <= FAMILY.keys()
    assert FAMILY.keys() - kinds == {"name", "place"}  # found by other detectors
    assert len({kind.name for kind in IDENTIFIERS}) == len(IDENTIFIERS)


def test_every_shape_compiles_though_most_are_compiled_when_they_are_met() -> None:
    patterns, at_once = Patterns(), Automaton(SHAPES)
    waiting = list(patterns._located)
    text = "card 4111 1111 1111 1111"
    assert patterns.find(text) == at_once.find(text) and patterns.find(text)
    met = [index for index, search in enumerate(waiting) if patterns._located[index] is not search]
    assert 0 < len(met) < 20
