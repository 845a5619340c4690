"""Checksums of national identifiers.  Pure; each takes the digits, or the letters as capitals and digits, alone."""

from __future__ import annotations

from compliance.detectors.checksums import luhn

_NIF_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"


def _weighed(digits: str, weights: tuple[int, ...]) -> int:
    return sum((ord(digit) - 48) * weight for digit, weight in zip(digits, weights, strict=False))


def uk_nhs(digits: str) -> bool:
    """A UK NHS number: weights 10 to 2, mod 11 (NHS Data Dictionary)."""
    check = 11 - _weighed(digits, (10, 9, 8, 7, 6, 5, 4, 3, 2)) % 11
    return len(digits) == 10 and len(set(digits)) > 1 and (0 if check == 11 else check) == int(digits[9])


def uk_nino(text: str) -> bool:
    """A UK national insurance number's prefix and suffix; it has no check digit (HMRC NIM39110)."""
    return (
        len(text) == 9
        and text[0] not in "DFIQUV"
        and text[1] not in "DFIOQUV"
        and text[:2] not in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ")
        and text[2:8].isdecimal()
        and text[8] in "ABCD"
    )


def ca_sin(digits: str) -> bool:
    """A Canadian social insurance number: nine digits, no leading 8, Luhn."""
    return len(digits) == 9 and digits[0] not in "08" and luhn(digits)


def de_tax(digits: str) -> bool:
    """A German tax identification number: one digit twice or three times in ten, and ISO 7064 MOD 11,10."""
    if len(digits) != 11 or digits[0] == "0" or len(set(digits[:10])) not in (8, 9):
        return False
    product = 10
    for digit in digits[:10]:
        total = (int(digit) + product) % 10 or 10
        product = total * 2 % 11
    return (11 - product) % 10 == int(digits[10])


def fr_nir(text: str) -> bool:
    """A French NIR with its key: 97 less the rest mod 97; Corsica's 2A and 2B count as 19 and 18 (INSEE)."""
    if len(text) != 15:
        return False
    number = text[:13].replace("2A", "19", 1) if text[5:7] == "2A" else text[:13]
    number = number.replace("2B", "18", 1) if text[5:7] == "2B" else number
    if not (number + text[13:]).isdecimal():
        return False
    month = int(text[3:5])
    return (1 <= month <= 12 or 20 <= month <= 42 or month >= 50) and 97 - int(number) % 97 == int(text[13:])


def es_nif(text: str) -> bool:
    """A Spanish DNI or NIE: the letter is the number mod 23, X, Y and Z before it counting as 0, 1 and 2."""
    if len(text) != 9 or not text[1:8].isdecimal():
        return False
    first = {"X": "0", "Y": "1", "Z": "2"}.get(text[0], text[0])
    return first.isdecimal() and _NIF_LETTERS[int(first + text[1:8]) % 23] == text[8]


def es_nuss(digits: str) -> bool:
    """A Spanish social security number: province, number and their rest mod 97 (TGSS)."""
    if len(digits) != 12:
        return False
    province, number, control = digits[:2], int(digits[2:10]), int(digits[10:])
    whole = int(province) * 10_000_000 + number if number < 10_000_000 else int(province + digits[2:10])
    return whole % 97 == control


_CF_FIRST = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21)
_CF_LETTERS = (*_CF_FIRST, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)
_CF_ODD = dict(zip("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", _CF_FIRST + _CF_LETTERS, strict=True))


def it_cf(text: str) -> bool:
    """An Italian codice fiscale: its last letter (decree of 23 December 1976)."""
    if len(text) != 16 or not text.isalnum() or not text.isascii():
        return False
    total = sum(
        _CF_ODD[c] if at % 2 == 0 else (int(c) if c.isdigit() else ord(c) - 65) for at, c in enumerate(text[:15])
    )
    return chr(65 + total % 26) == text[15]


def pl_pesel(digits: str) -> bool:
    """A Polish PESEL: weights 1, 3, 7, 9 and a month of one of its centuries."""
    month = int(digits[2:4]) % 20
    return (
        len(digits) == 11
        and 1 <= month <= 12
        and 1 <= int(digits[4:6]) <= 31
        and (10 - _weighed(digits, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3)) % 10) % 10 == int(digits[10])
    )


def nl_bsn(digits: str) -> bool:
    """A Dutch BSN: weights 9 to 2 and -1, mod 11 (the `elfproef`)."""
    return (
        len(digits) == 9 and len(set(digits)) > 1 and _weighed(digits, (9, 8, 7, 6, 5, 4, 3, 2, -1)) % 11 == 0
    )  # fmt: skip


def au_medicare(digits: str) -> bool:
    """An Australian Medicare number: first digit 2 to 6, the ninth checks the first eight."""
    weights = (1, 3, 7, 9, 1, 3, 7, 9)
    return len(digits) in (10, 11) and digits[0] in "23456" and _weighed(digits, weights) % 10 == int(digits[8])


def au_tfn(digits: str) -> bool:
    """An Australian tax file number of nine digits: mod 11 (ATO)."""
    weights = (1, 4, 3, 7, 5, 8, 6, 9, 10)
    return len(digits) == 9 and len(set(digits)) > 1 and _weighed(digits, weights) % 11 == 0


_D5 = tuple(
    tuple(map(int, row))
    for row in (
        "0123456789", "1234067895", "2340178956", "3401289567", "4012395678",
        "5987604321", "6598710432", "7659821043", "8765932104", "9876543210",
    )
)  # fmt: skip
_P8 = tuple(
    tuple(map(int, row))
    for row in (
        "0123456789", "1576283094", "5803796142", "8916043527",
        "9453126870", "4286573901", "2793806415", "7046913258",
    )
)  # fmt: skip


def verhoeff(digits: str) -> bool:
    """J. Verhoeff, Error Detecting Decimal Codes (1969): the dihedral group D5."""
    check = 0
    for at, digit in enumerate(reversed(digits)):
        check = _D5[check][_P8[at % 8][ord(digit) - 48]]
    return check == 0


def in_aadhaar(digits: str) -> bool:
    """An Indian Aadhaar number: twelve digits, the first 2 to 9, Verhoeff (UIDAI)."""
    return len(digits) == 12 and digits[0] in "23456789" and verhoeff(digits)
