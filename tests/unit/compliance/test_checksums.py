from __future__ import annotations

import pytest

from compliance.detectors import checksums

# Published test numbers of the card networks.
CARDS = [
    "4111111111111111",
    "4012888888881881",
    "4222222222222",
    "5555555555554444",
    "2223003122003222",
    "378282246310005",
    "371449635398431",
    "6011111111111117",
    "3530111333300000",
    "30569309025904",
    "6304000000000000",
]


@pytest.mark.parametrize("number", CARDS)
def test_published_test_cards_pass(number: str) -> None:
    assert checksums.luhn(number)
    assert checksums.card(number)


@pytest.mark.parametrize("number", CARDS)
def test_any_single_wrong_digit_fails_luhn(number: str) -> None:
    for at, digit in enumerate(number):
        for other in "0123456789":
            if other != digit:
                assert not checksums.luhn(number[:at] + other + number[at + 1 :])


@pytest.mark.parametrize(
    ("number", "why"),
    [
        ("411111111111111", "Visa has no 15 digits"),
        ("5555555555554", "Mastercard has 16 digits only"),
        ("9999999999999995", "no issuer's range"),
        ("1111111111111117", "no issuer's range"),
        ("0000000000000000", "one digit repeated"),
        ("4111111111111112", "fails Luhn"),
    ],
)
def test_a_card_needs_range_length_and_luhn(number: str, why: str) -> None:
    assert not checksums.card(number), why


@pytest.mark.parametrize(
    ("digits", "valid"),
    [
        ("123456789", True),
        ("001010001", True),
        ("899999999", True),
        ("000123456", False),
        ("666123456", False),
        ("900123456", False),
        ("123004567", False),
        ("123450000", False),
    ],
)
def test_ssn_area_group_and_serial(digits: str, valid: bool) -> None:
    assert checksums.ssn(digits) is valid


@pytest.mark.parametrize(
    ("group", "valid"),
    [("49", False), ("50", True), ("65", True), ("66", False), ("70", True), ("88", True), ("89", False),
     ("90", True), ("92", True), ("93", False), ("94", True), ("99", True)],
)  # fmt: skip
def test_itin_groups(group: str, valid: bool) -> None:
    assert checksums.itin(f"912{group}1234") is valid
    assert not checksums.itin(f"812{group}1234")


def test_digits_are_the_ascii_ones() -> None:
    assert checksums.digits("4111 1111-1111.1111x") == "4111111111111111"
