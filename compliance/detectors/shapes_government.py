"""Numbers that US authorities issue, passports, licences, certificates, vehicles."""

from __future__ import annotations

from compliance.detectors import checksums
from compliance.detectors.labels import SIGN_GAP, TOKEN, WORD_GAP, called, has_digit, label, labelled, spread, tagged
from compliance.detectors.model import Pattern
from compliance.detectors.tables import header

_SSN_LABEL = (
    r"(?:(?i:(?:\b|_)ssn[a-z_]{0,12})|[a-z]S[Ss][Nn][A-Za-z_]{0,12}"
    r"|(?i:s[. ]s[. ]n|\bss ?\#|\bss (?:no|num)|soc(?:ial)?[ ._\-]{0,2}sec(?:ur?i?ty)?"
    r"|\b(?:my|his|her|their|your) social(?: (?:is|number|no)|:)))"
)
_ITIN_LABEL = r"(?:(?i:(?:\b|_)itin[a-z_]{0,12}|tax(?:payer)?[ _]?id[a-z]{0,12})|[a-z]I[Tt][Ii][Nn])"
_LAST_FOUR = r"(?i:[\W_]{1,4}(?:[a-z]{1,9}[\W_]{1,3}){0,3}(?:last (?:4|four)(?: digits)?|ending(?: in| with)?|ends in)"
_BEFORE = r"(?:^|[^\d.\-]|[^\d][.\-])"
_APART_TRIGGER = r"\d{3}[ .\-]\d{2}[ .\-]\d{4}"
_APART = r"(\d{3}-\d{2}-\d{4}|\d{3} \d{2} \d{4}|\d{3}\.\d{2}\.\d{4})(?:-?\z|[^\d\-]|-\D)"
_PASSPORT = label("passport", "pasaporte", r"reisepass\w*", r"passeport")


def _ssn(text: str) -> bool:
    return checksums.ssn(checksums.digits(text))


def _itin(text: str) -> bool:
    return checksums.itin(checksums.digits(text))


def _vin(text: str) -> bool:
    return sum(c.isdigit() for c in text) >= 3 and sum(c.isalpha() for c in text) >= 3 and checksums.vin(text)


def _vin_form(text: str) -> bool:
    return sum(c.isdigit() for c in text) >= 2


SHAPES = (
    # Social security and individual taxpayer numbers: dashed, spaced or dotted; bare only with a label.
    Pattern("ssn", _BEFORE + _APART, _ssn, trigger=_APART_TRIGGER),
    labelled("ssn", _SSN_LABEL, tagged(9)),
    called("ssn", _SSN_LABEL, r"\d(?:[ .\-]?\d){8}"),
    Pattern(
        "ssn",
        rf"{_SSN_LABEL}{_LAST_FOUR}[\W_]{{0,6}}(?:is |are )?)(\d{{4}})(?:\z|\D)",
        None,
        0.8,
        trigger=_SSN_LABEL,
        digits=4,
    ),
    Pattern(
        "ssn",
        rf"(?i:last (?:4|four)(?: digits)?(?: [a-z]{{1,9}}){{0,3}} ?){_SSN_LABEL}[\W_]{{0,6}}(?i:is |are |was )?(\d{{4}})(?:\z|\D)",
        None,
        0.8,
        trigger=_SSN_LABEL,
        digits=4,
    ),
    Pattern(
        "ssn",
        r"(?:^|[^A-Za-z0-9*])((?:[Xx]{3}|\*{3})[\- ](?:[Xx]{2}|\*{2})[\- ]\d{4})(?:\z|\D)",
        None,
        0.8,
        trigger=r"[Xx*]{2}[\- ]\d{4}",
    ),
    Pattern(
        "itin",
        _BEFORE + r"(9\d{2}-\d{2}-\d{4}|9\d{2} \d{2} \d{4}|9\d{2}\.\d{2}\.\d{4})(?:-?\z|[^\d\-]|-\D)",
        _itin,
        trigger=_APART_TRIGGER,
    ),
    labelled("itin", _ITIN_LABEL, tagged(9)),
    labelled("passport", _PASSPORT, TOKEN, has_digit, gap=WORD_GAP),
    labelled("passport", _PASSPORT, r"([A-Za-z]{0,2}(?:[ \-]?\d){7,9})(?:\z|[^A-Za-z0-9])", gap=WORD_GAP, digits=7),
    labelled(
        "licence",
        label(
            r"driver\W{0,3}s? licen[cs]e",
            r"driving licen[cs]e",
            r"licen[cs]e (?:number|no|num|id|\#)\.?",
            r"(?:medical|nursing|pharmacy|state|professional) licen[cs]e",
            r"(?:driver|drivers|driving)_?licen[cs]e\w{0,7}",
            r"licen[cs]e_?(?:number|no|id)",
            r"dl ?(?:\#|no|number)",
            r"n\W{0,4}col",
            r"n\W{0,4} ?(?:de )?colegiado",
            r"colegiado",
            r"f\xc3\xbchrerschein\w*",
            r"permiso de conducir",
            r"carnet de conducir",
        ),
        r"([A-Za-z0-9](?:[A-Za-z0-9]|[\- ./][A-Za-z0-9]*\d){3,19})(?:\z|[^A-Za-z0-9])",
        has_digit,
        gap=WORD_GAP,
    ),
    labelled("licence", label(r"(?-i:DL)"), r"([A-Za-z]{0,2}\d{5,13})(?:\z|[^A-Za-z0-9])", gap=WORD_GAP, digits=5),
    labelled("certificate", label(r"certificate", r"certification", r"certificado"), TOKEN, has_digit, gap=SIGN_GAP),
    Pattern(
        "vin",
        r"(?:^|[^A-Za-z0-9])([A-HJ-NPR-Z0-9]{13}\d{4})(?:\z|[^A-Za-z0-9])",
        _vin,
        trigger=r"[A-Z]\d{4,9}(?:\z|\W)",
        back=24,
    ),
    labelled(
        "vin", label("vin", r"vehicle identification", r"chassis"), spread("(?i:[a-hj-npr-z0-9]{17})", 17), _vin_form
    ),
    labelled(
        "plate",
        label(r"licen[cs]e plates?", r"plate (?:number|no|\#)", r"registration plate", r"number plate"),
        r"([A-Z0-9]{1,4}[\- ]?[A-Z0-9]{2,5})(?:\z|[^A-Za-z0-9])",
        has_digit,
        gap=WORD_GAP,
    ),
)

HEADERS = (header("ssn", _SSN_LABEL),)
