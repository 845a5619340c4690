"""Checksums and ranges of US, payment and device identifiers.  Pure; each takes the digits (or capitals) alone."""

from __future__ import annotations

import re

_NO_DIGIT = re.compile(r"[^0-9]")
_NO_ALNUM = re.compile(r"[^0-9A-Z]")
_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)


def digits(text: str) -> str:
    """The ASCII digits of `text`."""
    return _NO_DIGIT.sub("", text)


def alnum(text: str) -> str:
    """The ASCII letters, as capitals, and digits of `text`."""
    return _NO_ALNUM.sub("", text.upper())


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


def npi(digits: str) -> bool:
    """A US national provider identifier: Luhn with the issuer's prefix 80840 (45 CFR 162.406; CMS)."""
    return len(digits) == 10 and digits[0] in "12" and luhn("80840" + digits)


def dea(text: str) -> bool:
    """A DEA registration number, letters as capitals: the sum of digits 1, 3, 5 and twice that of 2, 4, 6."""
    d = [int(digit) for digit in text[2:]] if len(text) == 9 and text[2:].isdecimal() else []
    return bool(d) and (d[0] + d[2] + d[4] + 2 * (d[1] + d[3] + d[5])) % 10 == d[6]


_MBI_LETTER = "ACDEFGHJKMNPQRTUVWXY"


def mbi(text: str) -> bool:
    """The form of a Medicare beneficiary identifier: C A AN N A AN N A A N N (CMS); it has no check digit."""
    if len(text) != 11 or text[0] not in "123456789":
        return False
    wanted = "0LB0LB0LL00"
    return all(
        (c.isdigit() if w == "0" else c in _MBI_LETTER if w == "L" else c.isdigit() or c in _MBI_LETTER)
        for c, w in zip(text[1:], wanted[1:], strict=True)
    )


def aba(digits: str) -> bool:
    """A US bank routing number: prefix 00-12, 21-32, 61-72 or 80, and the weights 3, 7, 1 (ANSI X9.9)."""
    prefix = int(digits[:2])
    if len(digits) != 9 or not (prefix <= 12 or 21 <= prefix <= 32 or 61 <= prefix <= 72 or prefix == 80):
        return False
    return digits != "000000000" and sum(int(d) * w for d, w in zip(digits, (3, 7, 1) * 3, strict=True)) % 10 == 0


_IBAN_LENGTHS = {
    country: int(length)
    for country, length in (
        entry.split(":")
        for entry in (  # noqa: SIM905  a table reads best as words
            "AD:24 AE:23 AL:28 AT:20 AZ:28 BA:20 BE:16 BG:22 BH:22 BI:27 BR:29 BY:28 CH:21 CR:22 CY:28 CZ:24 DE:22 DJ:27 "
            "DK:18 DO:28 EE:20 EG:29 ES:24 FI:18 FK:18 FO:18 FR:27 GB:22 GE:22 GI:23 GL:18 GR:27 GT:28 HN:28 HR:21 HU:28 "
            "IE:22 IL:23 IQ:23 IS:26 IT:27 JO:30 KW:30 KZ:20 LB:28 LC:32 LI:21 LT:20 LU:20 LV:21 LY:25 MC:27 MD:24 ME:22 "
            "MK:19 MN:20 MR:27 MT:31 MU:30 NI:28 NL:18 NO:15 OM:23 PK:24 PL:28 PS:29 PT:25 QA:29 RO:24 RS:22 RU:33 SA:24 "
            "SC:31 SD:18 SE:24 SI:19 SK:24 SM:27 SO:23 ST:25 SV:28 TL:23 TN:24 TR:26 UA:29 VA:22 VG:24 XK:20 YE:30"
        ).split()
    )
}
"""Countries and lengths of the SWIFT registry of IBANs."""


def iban(text: str) -> bool:
    """An IBAN, letters as capitals: a registered country with its length, and mod 97 (ISO 13616, ISO 7064)."""
    return iban_form(text) and int("".join(str(int(c, 36)) for c in text[4:] + text[:4])) % 97 == 1


def iban_form(text: str) -> bool:
    """The country, the length and the place of the check digits alone."""
    return _IBAN_LENGTHS.get(text[:2]) == len(text) and text[2:4].isdecimal() and text.isascii() and text.isalnum()


_VIN_VALUES = dict(zip("0123456789ABCDEFGHJKLMNPRSTUVWXYZ", map(int, "012345678912345678123457923456789"), strict=True))
_VIN_WEIGHTS = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)


def vin(text: str) -> bool:
    """A vehicle identification number, letters as capitals: position 9 is the sum mod 11 (49 CFR 565.15)."""
    values = [_VIN_VALUES.get(c) for c in text]
    if len(text) != 17 or None in values:
        return False
    check = sum((v or 0) * w for v, w in zip(values, _VIN_WEIGHTS, strict=True)) % 11
    return text[8] == ("X" if check == 10 else str(check))


def gtin(digits: str) -> bool:
    """A GTIN: weights 3 and 1 from the right (GS1 General Specifications, 7.9)."""
    total = sum((ord(d) - 48) * (1 if at % 2 == 0 else 3) for at, d in enumerate(reversed(digits)))
    return total % 10 == 0 and len(set(digits)) > 1


def imei(digits: str) -> bool:
    """An IMEI: 15 digits, Luhn (3GPP TS 23.003, annex B)."""
    return len(digits) == 15 and luhn(digits) and len(set(digits)) > 1
