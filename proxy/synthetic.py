"""Synthetic identifiers: generated from a seed, shaped like real ones, and nobody's.

Where an issuer keeps a range for examples or for fiction, they are of that range; where a number has a check digit, a
label vouches for one that fails it, or its range is not issued.  Names are made of syllables, and are in no register.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable

from msgspec import Struct

from compliance.detectors import checksums
from compliance.detectors import checksums_national as national


class Synthetic(Struct, frozen=True):
    """One identifier with the words around it.  `value` is the part of `text` that identifies."""

    kind: str
    text: str
    value: str


Dice = random.Random
_ONSETS = (
    "Bra",
    "Cor",
    "Dre",
    "Fal",
    "Gri",
    "Hel",
    "Jor",
    "Kal",
    "Lor",
    "Mar",
    "Nor",
    "Pel",
    "Ros",
    "Sel",
    "Tor",
    "Vel",
)
_ENDS = ("nika", "vin", "dora", "mund", "lisa", "rek", "wina", "tana")
_HOUSES = ("brack", "field", "hurst", "ington", "moor", "stead", "thorne", "wick")
_FRAME = "Follow-up of a patient with asthma. "
"""Health context, without which names and places identify nobody."""


def _digits(dice: Dice, count: int) -> str:
    return "".join(dice.choices(string.digits, k=count))


def _letters(dice: Dice, count: int) -> str:
    return "".join(dice.choices("ABCDEFGHJKLMNPRSTUVWXYZ", k=count))


def _completed(head: str, passes: Callable[[str], bool], tail: str = "") -> str:
    """`head` with the check digit that makes it pass."""
    return next(f"{head}{digit}{tail}" for digit in string.digits if passes(f"{head}{digit}{tail}"))


def _failing(value: str, passes: Callable[[str], bool]) -> str:
    """`value`, or with another last digit, so that its check fails: such a number was never issued."""
    return value if not passes(value) else f"{value[:-1]}{(int(value[-1]) + 1) % 10}"


def _name(dice: Dice) -> str:
    return f"{dice.choice(_ONSETS)}{dice.choice(_ENDS)} {dice.choice(_ONSETS)}{dice.choice(_HOUSES)}"


def _spaced(number: str, size: int = 4) -> str:
    return " ".join(number[at : at + size] for at in range(0, len(number), size))


def _card(dice: Dice) -> str:
    """Of 4242 42, which payment providers keep for tests."""
    return _spaced(_completed(f"42424242{_digits(dice, 7)}", checksums.card))


def _iban(dice: Dice) -> str:
    """Of bank code 00000000, which Germany does not give out."""
    account = f"00000000{_digits(dice, 10)}"
    check = next(f"{number:02}" for number in range(2, 99) if checksums.iban(f"DE{number:02}{account}"))
    return _spaced(f"DE{check}{account}")


def _mbi(dice: Dice) -> str:
    """The form of the example that CMS prints on its specimen card, 1EG4-TE5-MK7x."""
    return f"1EG4-TE5-MK7{dice.choice(string.digits)}"


def _vin(dice: Dice) -> str:
    """With a wrong check digit, which every VIN of North America has right."""
    head, tail = f"1ZZ{_letters(dice, 5)}", f"X{_digits(dice, 7)}"
    return next(f"{head}{check}{tail}" for check in "0123456789X" if not checksums.vin(f"{head}{check}{tail}"))


def _nhs(dice: Dice) -> str:
    """Of 999 0, the range for tests; some heads have no check digit."""
    while True:
        head = f"9990{_digits(dice, 5)}"
        for digit in string.digits:
            if national.uk_nhs(f"{head}{digit}"):
                return f"{head[:3]} {head[3:6]} {head[6:]}{digit}"


_MADE: dict[str, Callable[[Dice], tuple[str, str]]] = {
    # Not issued: areas 900 and above; ITINs of group 00.
    "ssn": lambda dice: ("SSN {}", f"9{_digits(dice, 2)}-45-{_digits(dice, 4)}"),
    "itin": lambda dice: ("ITIN {}", f"9{_digits(dice, 2)}-00-{_digits(dice, 4)}"),
    "passport": lambda dice: ("passport number {}", f"X0000{_digits(dice, 4)}"),
    "licence": lambda dice: ("driver's license number {}", f"D000-{_digits(dice, 4)}-0000"),
    "certificate": lambda dice: ("certificate number {}", f"ZZ-0000{_digits(dice, 4)}"),
    "plate": lambda dice: ("license plate {}", f"ZZZ-{_digits(dice, 4)}"),
    "vin": lambda dice: ("VIN {}", _vin(dice)),
    "uk_nhs": lambda dice: ("NHS number {}", _nhs(dice)),
    "uk_nino": lambda dice: ("NI number {}", f"QQ {_digits(dice, 2)} 34 56 C"),  # QQ is the prefix of examples
    "ca_sin": lambda dice: ("SIN {}", _spaced(f"0{_digits(dice, 8)}", 3)),  # 0: not issued
    "de_tax": lambda dice: ("Steuer-ID {}", f"0{_digits(dice, 10)}"),  # 0: for tests
    "fr_nir": lambda dice: ("NIR {}", f"9 61 13 99 {_digits(dice, 3)} {_digits(dice, 3)} 00"),
    "es_nif": lambda dice: ("DNI {}", f"0000{_digits(dice, 4)}-I"),
    "es_nuss": lambda dice: ("NUSS {}", f"00{_digits(dice, 10)}"),
    "it_cf": lambda dice: ("codice fiscale {}", f"{_letters(dice, 6)}61T99Z{_digits(dice, 3)}A"),
    "pl_pesel": lambda dice: ("PESEL {}", f"6113{_digits(dice, 7)}"),
    "nl_bsn": lambda dice: ("BSN {}", f"0000{_digits(dice, 5)}"),
    "au_medicare": lambda dice: ("Medicare card number {}", f"0000 {_digits(dice, 5)} 1"),
    "au_tfn": lambda dice: ("TFN {}", f"000 {_digits(dice, 3)} {_digits(dice, 3)}"),
    "in_aadhaar": lambda dice: ("Aadhaar {}", f"0{_digits(dice, 3)} {_digits(dice, 4)} {_digits(dice, 4)}"),
    "udi": lambda dice: ("UDI {}", f"(01)0000000{_digits(dice, 7)}"),
    "record_id": lambda dice: (_FRAME + "Case ID: {}", f"000{_digits(dice, 6)}"),
    # A place is somebody's only in company.
    "place": lambda dice: (
        _FRAME + f"Patient: {_name(dice)}, seen at {{}}.",
        f"{dice.choice(_ONSETS)}{dice.choice(_HOUSES)} Hospital",
    ),
    "mrn": lambda dice: ("MRN {}", f"000{_digits(dice, 5)}"),
    "plan": lambda dice: ("member ID {}", f"ZZX000{_digits(dice, 5)}"),
    "mbi": lambda dice: ("MBI {}", _mbi(dice)),
    "npi": lambda dice: ("NPI {}", _failing(f"19999{_digits(dice, 5)}", checksums.npi)),
    "dea": lambda dice: ("DEA number {}", _failing(f"XX00{_digits(dice, 5)}", checksums.dea)),
    "imei": lambda dice: ("IMEI {}", _completed(f"00000000{_digits(dice, 6)}", checksums.imei)),  # 00: a test TAC
    "serial": lambda dice: ("serial number {}", f"ZZ{_digits(dice, 8)}"),
    "card": lambda dice: ("card {}", _card(dice)),
    "iban": lambda dice: ("IBAN {}", _iban(dice)),
    "routing": lambda dice: ("routing number {}", _failing(f"0210{_digits(dice, 5)}", checksums.aba)),
    "account": lambda dice: ("account number {}", f"000{_digits(dice, 7)}"),
    "secret": lambda dice: ("{}", f"AKIA{_letters(dice, 9)}EXAMPLE"),  # as in Amazon's documentation
    # Under health context.
    "name": lambda dice: (_FRAME + "Patient: {}.", _name(dice)),
    "phone": lambda dice: (_FRAME + "Call {}.", f"(202) 555-01{_digits(dice, 2)}"),  # 555-0100 to 0199: for fiction
    "fax": lambda dice: (_FRAME + "Fax: {}", f"202-555-01{_digits(dice, 2)}"),
    "email": lambda dice: (_FRAME + "Write to {}", f"{_letters(dice, 6).lower()}@example.org"),  # RFC 2606
    "url": lambda dice: (_FRAME + "See {}", f"https://example.org/{_letters(dice, 6).lower()}"),
    "ip": lambda dice: (_FRAME + "From {}", f"203.0.113.{dice.randrange(1, 255)}"),  # RFC 5737
    "mac": lambda dice: (_FRAME + "Device {}", "00:00:5e:00:53:" + f"{dice.randrange(256):02x}"),  # RFC 7042
    "address": lambda dice: (
        _FRAME + "Lives at {}.",
        f"{dice.randrange(9000, 9999)} {dice.choice(_ONSETS)}wick Street",
    ),
    "zip": lambda dice: (_FRAME + "Springfield, IL {}", f"627{_digits(dice, 2)}"),
    "date": lambda dice: (_FRAME + "Admitted on {}.", f"0{dice.randrange(1, 10)}/1{_digits(dice, 1)}/1961"),
    "age": lambda dice: (_FRAME + "{}.", f"{dice.randrange(91, 106)}-year-old woman"),
}
KINDS = tuple(_MADE)


def synthetic(kind: str, seed: int) -> Synthetic:
    """The identifier of this kind and seed; KeyError for a kind that there is no form for."""
    dice = random.Random(f"{seed}/{kind}")
    frame, value = _MADE[kind](dice)
    return Synthetic(kind, frame.format(value), value)
