"""Checksums and ranges of identifiers.  Pure; each takes the digits alone (`digits` extracts them)."""

from __future__ import annotations

import re

_NO_DIGIT = re.compile(r"[^0-9]")
_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)


def digits(text: str) -> str:
    """The ASCII digits of `text`."""
    return _NO_DIGIT.sub("", text)


def luhn(digits: str) -> bool:
    """ISO/IEC 7812-1, annex B."""
    total = 0
    double = False
    for digit in reversed(digits):
        value = ord(digit) - 48
        total += _DOUBLED[value] if double else value
        double = not double
    return total % 10 == 0


def card(digits: str) -> bool:
    """A payment card's number: an issuer's range with one of its lengths, and Luhn."""
    return _issuer(digits) and luhn(digits) and len(set(digits)) > 1


def _issuer(digits: str) -> bool:
    length = len(digits)
    two, three, four = int(digits[:2]), int(digits[:3]), int(digits[:4])
    if digits[0] == "4":  # Visa
        return length in (13, 16, 19)
    if 51 <= two <= 55 or 2221 <= four <= 2720:  # Mastercard
        return length == 16
    if two in (34, 37):  # American Express
        return length == 15
    if four == 6011 or two in (64, 65) or two == 62:  # Discover, UnionPay
        return 16 <= length <= 19
    if 3528 <= four <= 3589:  # JCB
        return 16 <= length <= 19
    if 300 <= three <= 305 or two in (36, 38, 39):  # Diners Club
        return 14 <= length <= 19
    return two in (50, 56, 57, 58, 63, 67) and 12 <= length <= 19  # Maestro


def ssn(digits: str) -> bool:
    """A US social security number that can have been issued (SSA: area, group and serial rules)."""
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    return area not in ("000", "666") and area[0] != "9" and group != "00" and serial != "0000"


def itin(digits: str) -> bool:
    """A US individual taxpayer number: 9xx with a group of 50-65, 70-88, 90-92 or 94-99 (IRS)."""
    group = int(digits[3:5])
    return digits[0] == "9" and (50 <= group <= 65 or 70 <= group <= 88 or 90 <= group <= 92 or 94 <= group <= 99)
