"""National identifiers of countries other than the US.

What a strong form or checksum tells from other numbers is found anywhere; bare digits only with their label.
"""

from __future__ import annotations

from collections.abc import Callable

from compliance.detectors import checksums_national as national
from compliance.detectors.checksums import alnum, digits
from compliance.detectors.labels import label, labelled, number, spread
from compliance.detectors.model import Pattern

_WORD = r"(?:^|[^A-Za-z0-9])"
_END = r"(?:\z|[^A-Za-z0-9])"


def _digits(check: Callable[[str], bool]) -> Callable[[str], bool]:
    return lambda text: check(digits(text))


def _alnum(check: Callable[[str], bool]) -> Callable[[str], bool]:
    return lambda text: check(alnum(text))


_NIR_LABEL = label(
    r"num\xc3\xa9ro de s\xc3\xa9curit\xc3\xa9 sociale",
    r"numero de securite sociale",
    r"s\xc3\xa9curit\xc3\xa9 sociale",
    "nir",
    "insee",
    r"n\W{1,3}(?:de )?s\xc3\xa9cu",
)

SHAPES = (
    labelled("uk_nhs", label("nhs", r"national health service"), number(10)),
    Pattern(
        "uk_nino",
        _WORD + r"([A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z](?:\d{6}| \d{2} \d{2} \d{2} )[A-D])" + _END,
        _alnum(national.uk_nino),
        trigger=r"[A-Z]{2}(?:\d{6}| \d{2} \d{2} \d{2} )[A-D]",
    ),
    labelled(
        "uk_nino",
        label(r"national insurance", r"ni (?:number|no)", "nino"),
        r"((?i:[a-z]{2}(?:[\s.\-]{0,3}\d){6}[\s.\-]{0,3}[a-z]))" + _END,
    ),
    labelled(
        "ca_sin", r"(?:(?i:social insurance|\bsin (?:number|no|\#)|\b_?sin_num)|\bSIN|\bsin[\W_]{0,2}[:=\n])", number(9)
    ),
    labelled(
        "de_tax",
        label(r"steuer\W?id\w{0,24}", r"steuernummer", r"steuerliche identifikationsnummer", r"idnr", "tin"),
        number(11),
    ),
    Pattern(
        "fr_nir",
        r"(?:^|[^\d.])([1278] ?\d{2} ?\d{2} ?(?:\d{2}|2[AB]) ?\d{3} ?\d{3} ?\d{2})(?:\z|\D)",
        _alnum(national.fr_nir),
        trigger=r"(?:^|\D)\d{12}|\d{3} \d{3} \d{2}|\d{5} ?2[AB] ?\d{3}",
    ),
    labelled("fr_nir", _NIR_LABEL, r"(\d(?:[\s.\-/]{0,3}\d){5}[\s.\-/]{0,3}[\dAB](?:[\s.\-/]{0,3}\d){6,8})(?:\z|\D)"),
    Pattern(
        "es_nif",
        r"(?:^|[^A-Za-z0-9.])" + r"(\d{8}-?[A-HJ-NP-TV-Z]|[XYZ]-?\d{7}-?[A-HJ-NP-TV-Z])" + _END,
        _alnum(national.es_nif),
        0.9,
        trigger=r"\d{7}-?[A-Z]",
    ),
    labelled(
        "es_nif",
        label("nif", "dni", "nie"),
        r"((?i:[xyz]?(?:[\s.\-]{0,3}\d){7,8}[\s.\-]{0,3}[a-z]))" + _END,
    ),
    Pattern(
        "es_nuss",
        r"(?:^|[^\d.\-/])(\d{2}[ /\-]\d{8}[ /\-]\d{2})(?:\z|[^\d\-/])",
        _digits(national.es_nuss),
        trigger=r"\d{2}[ /\-]\d{8}[ /\-]\d{2}",
        back=16,
        ahead=8,
    ),
    labelled("es_nuss", label("nass", "nuss", r"n\W{0,3}ss", r"seguridad social"), number(6, 14)),
    Pattern(
        "it_cf",
        _WORD + r"([A-Z]{6}\d{2}[A-EHLMPRST]\d{2}[A-Z]\d{3}[A-Z])" + _END,
        national.it_cf,
        trigger=r"\d{2}[A-Z]\d{3}[A-Z]",
    ),
    labelled(
        "it_cf",
        label(r"codice fiscale", r"cod\W{0,2}fisc\w*"),
        spread(r"(?i:[a-z]{6}[a-z0-9]{2}[a-z][a-z0-9]{2}[a-z][a-z0-9]{3}[a-z])", 16),
    ),
    labelled("pl_pesel", label("pesel"), number(11)),
    labelled("nl_bsn", label("bsn", r"burgerservicenummer", r"sofi\W?nummer"), number(9)),
    Pattern(
        "au_medicare",
        r"(?:^|[^\d.])([2-6]\d{3} \d{5} \d(?:[ /\-]\d)?)(?:\z|\D)",
        _digits(national.au_medicare),
        trigger=r"\d{4} \d{5} \d",
    ),
    labelled("au_medicare", label(r"medicare(?: card)?"), number(10, 11)),
    labelled("au_tfn", label("tfn", r"tax file"), number(8, 9)),
    Pattern(
        "in_aadhaar",
        r"(?:^|[^\d.\- ])(?: )?([2-9]\d{3} \d{4} \d{4})(?:\z|[^\d ]| (?:\z|\D))",
        _digits(national.in_aadhaar),
        trigger=r"\d{4} \d{4} \d{4}",
    ),
    labelled("in_aadhaar", label("aadhaar", "aadhar", "uidai"), number(12)),
)
