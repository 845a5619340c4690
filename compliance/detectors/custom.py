"""Detectors of an operator's own: a pattern, and examples that prove that it does what was meant.

A detector is tested when it is loaded: one whose examples fail, or that could not be bounded, is refused with
`CustomError`, which names the detector and the example by its place, never its text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from compliance.detectors import checksums
from compliance.detectors import checksums_national as national
from compliance.detectors.checksums import alnum, digits
from compliance.identifiers import NAMES

if TYPE_CHECKING:
    from compliance.detectors.model import Pattern

MAX_DETECTORS = 64
MAX_PATTERN = 1_000
"""Characters of a pattern."""
MAX_PROGRAM = 10_000
"""Instructions of RE2 that one pattern may take; `[0-9]{1000}` takes 1,000."""
MAX_WIDTH = 1_024
"""Bytes of an identifier, and from its label to its end, within which it is found."""

_RESERVED = frozenset({*NAMES, "opaque", "scan_failed", "pii", "phi", "always", "context"})
_NAME = re.compile(r"[a-z][a-z0-9_]{1,31}")


class Detector(Struct, frozen=True):
    """What an operator writes.  All kinds that an operator adds stay local whatever surrounds them.

    `pattern` is RE2 syntax in ASCII.  With a `label` (plain words, any case), the pattern counts right behind it;
    with a `checksum`, wherever that passes; with both, either way: a failed checksum clears no labelled identifier.
    With neither, wherever it matches.
    """

    name: str
    pattern: str
    label: str | None = None
    checksum: str | None = None
    matches: tuple[str, ...] = ()
    rejects: tuple[str, ...] = ()


class CustomError(ValueError):
    """A detector that is not taken: its name, the field that is wrong, and why."""

    def __init__(self, name: str, field: str, problem: str) -> None:
        super().__init__(f"detector {name!r}: {field}: {problem}")
        self.name = name
        self.field = field
        self.problem = problem


def _over(form: Callable[[str], str], check: Callable[[str], bool]) -> Callable[[str], bool]:
    def passes(text: str) -> bool:
        try:
            return check(form(text))
        except (ValueError, IndexError, KeyError):  # not of the length or the letters that it is made for
            return False

    return passes


CHECKSUMS: dict[str, Callable[[str], bool]] = {
    "luhn": _over(digits, lambda number: len(number) > 1 and checksums.luhn(number)),
    "verhoeff": _over(digits, lambda number: len(number) > 1 and national.verhoeff(number)),
    "gtin": _over(digits, lambda number: len(number) > 1 and checksums.gtin(number)),
    "card": _over(digits, checksums.card),
    "npi": _over(digits, checksums.npi),
    "aba": _over(digits, checksums.aba),
    "imei": _over(digits, checksums.imei),
    "dea": _over(alnum, checksums.dea),
    "mbi": _over(alnum, checksums.mbi),
    "iban": _over(alnum, checksums.iban),
    "vin": _over(alnum, checksums.vin),
    "uk_nhs": _over(digits, national.uk_nhs),
    "ca_sin": _over(digits, national.ca_sin),
    "de_tax": _over(digits, national.de_tax),
    "fr_nir": _over(alnum, national.fr_nir),
    "es_nif": _over(alnum, national.es_nif),
    "it_cf": _over(alnum, national.it_cf),
    "pl_pesel": _over(digits, national.pl_pesel),
    "nl_bsn": _over(digits, national.nl_bsn),
    "au_medicare": _over(digits, national.au_medicare),
    "au_tfn": _over(digits, national.au_tfn),
    "in_aadhaar": _over(digits, national.in_aadhaar),
}
"""Checksums by the name that a detector gives."""


def custom_patterns(detectors: Sequence[Detector]) -> tuple[Pattern, ...]:
    """The patterns of these detectors, each proved by its examples.  Raises `CustomError` for the first that fails."""
    if len(detectors) > MAX_DETECTORS:
        raise CustomError(detectors[MAX_DETECTORS].name, "name", f"there may be {MAX_DETECTORS} detectors")
    patterns: list[Pattern] = []
    names: set[str] = set()
    for detector in detectors:
        if not _NAME.fullmatch(detector.name):
            raise CustomError(detector.name, "name", "is 2 to 32 lower-case letters, digits and `_`, a letter first")
        if detector.name in _RESERVED or detector.name in names:
            raise CustomError(detector.name, "name", "is taken")
        names.add(detector.name)
        made = _made(detector)
        _prove(detector, made)
        patterns += made
    return tuple(patterns)


def _made(detector: Detector) -> list[Pattern]:
    from compliance.detectors.model import Pattern  # with the libraries below: most configurations have no detector

    _check_pattern(detector)
    check = None
    if detector.checksum is not None:
        check = CHECKSUMS.get(detector.checksum)
        if check is None:
            raise CustomError(detector.name, "checksum", f"there are {', '.join(CHECKSUMS)}")
    value = f"({detector.pattern})"
    made: list[Pattern] = []
    if detector.label is not None:
        words = detector.label.encode().strip()
        if not 1 <= len(words) <= 64:
            raise CustomError(detector.name, "label", "is 1 to 64 characters")
        trigger = f"(?i:{''.join(_literal(byte) for byte in words)})"
        shape = rf"(?:^|[^A-Za-z0-9]){trigger}[\W_]{{0,12}}(?i:(?:number|no|id|is|was)[\W_]{{1,6}}){{0,3}}{value}"
        made.append(Pattern(detector.name, shape, None, 0.95, trigger=trigger, ahead=MAX_WIDTH))
    if detector.label is None or check is not None:
        made.append(Pattern(detector.name, value, check, 0.95, back=MAX_WIDTH))
    return made


def _check_pattern(detector: Detector) -> None:
    import re2

    from compliance.detectors.automaton import options

    pattern = detector.pattern
    if not pattern.isascii() or not 1 <= len(pattern) <= MAX_PATTERN:
        raise CustomError(detector.name, "pattern", f"is 1 to {MAX_PATTERN} ASCII characters (`\\x..` for other bytes)")
    try:
        compiled = re2.compile(pattern.encode(), options())
    except re2.error as error:
        raise CustomError(detector.name, "pattern", f"is no RE2 syntax: {error}") from None
    if compiled.programsize > MAX_PROGRAM:
        raise CustomError(detector.name, "pattern", "is too large: shorten its repetitions")
    if compiled.fullmatch(b"") is not None:
        raise CustomError(detector.name, "pattern", "matches nothing at all, so it would be everywhere")


def _literal(byte: int) -> str:
    return f"\\x{byte:02x}"


def _prove(detector: Detector, patterns: Sequence[Pattern]) -> None:
    import hyperscan
    import re2

    from compliance.detectors.automaton import Automaton, TooMany

    if not detector.matches:
        raise CustomError(detector.name, "matches", "needs at least one example")
    try:
        automaton = Automaton(patterns)
    except (re2.error, hyperscan.error) as error:
        raise CustomError(detector.name, "pattern", f"is not supported: {error}") from None
    for field, examples, wanted in (("matches", detector.matches, True), ("rejects", detector.rejects, False)):
        for place, example in enumerate(examples, 1):
            try:
                found = bool(automaton.find(example))
            except TooMany:
                raise CustomError(detector.name, field, f"example {place} has too many candidates") from None
            if found is not wanted:
                raise CustomError(detector.name, field, f"example {place} is {'not ' if wanted else ''}found")
