"""Cards, bank accounts and their routes."""

from __future__ import annotations

from compliance.detectors import checksums
from compliance.detectors.labels import GAP, SIGN_GAP, TOKEN, has_digit, label, labelled, number, parted
from compliance.detectors.model import Pattern

_NOT_A_DECIMAL = r"(?:^|[^\d.]|[^\d]\.)"
_SEP = r"[ .\-]"
_RUN = r"(?:^|\D)\d{12}"
_FOURS = r"\d{4}[ .\-]\d{4}[ .\-]\d{4}"
_ODD = r"[ ]?(?:[_/:~=\xc2\xb7]{1,3}|[\xe2\xf0][\x80-\xff]{2,14})[ ]?"
"""What cards' groups are parted by and rows of numbers are not."""
_FOURS_APART = rf"\d{{4}}{_ODD}\d{{4}}{_ODD}\d{{4}}"
_CARD_LABEL = (
    r"(?i:card|visa|master ?card|amex|american express|discover|maestro|diners|jcb|\bcc|_cc|\bpan|_pan)"
    r"(?i:s|_?no|[ _]?num|\#)?"
)


def _card(text: str) -> bool:
    return checksums.card(checksums.digits(text))


def _iban(text: str) -> bool:
    return checksums.iban(checksums.alnum(text))


def _iban_form(text: str) -> bool:
    return sum(c.isdigit() for c in text) >= 8


SHAPES = (
    # Cards: whole, or in the groups that they are printed in; what stands beside them (an expiry, a count) is apart.
    Pattern("card", rf"{_NOT_A_DECIMAL}(\d{{12,19}})(?:\z|\D)", _card, trigger=_RUN),
    Pattern("card", rf"{_NOT_A_DECIMAL}([2-6]\d{{3}}(?:{_SEP}\d{{4}}){{3}})(?:\z|\D)", _card, trigger=_FOURS),
    Pattern(
        "card", rf"{_NOT_A_DECIMAL}([2-6]\d{{3}}(?:{_SEP}\d{{4}}){{3}}{_SEP}\d{{1,3}})(?:\z|\D)", _card, trigger=_FOURS
    ),
    Pattern(
        "card",
        rf"{_NOT_A_DECIMAL}(3\d{{3}}{_SEP}\d{{6}}{_SEP}\d{{4,5}})(?:\z|\D)",
        _card,
        trigger=rf"3\d{{3}}{_SEP}\d{{6}}{_SEP}\d{{4}}",
    ),
    Pattern(
        "card", rf"{_NOT_A_DECIMAL}([2-6]\d{{5,7}}{_SEP}\d{{8,13}})(?:\z|\D)", _card, trigger=rf"\d{{6}}{_SEP}\d{{8}}"
    ),
    Pattern(
        "card",
        rf"{_NOT_A_DECIMAL}([2-6]{_SEP}{{1,3}}\d(?:{_SEP}{{1,3}}\d){{10,17}})(?:\z|\D)",
        _card,
        trigger=rf"(?:\d{_SEP}{{1,3}}){{11}}\d",
    ),
    labelled("card", _CARD_LABEL, r"(\d(?:[\s.\-]{0,3}\d){11,18})(?:\z|\D)", confidence=0.9),
    # With anything between, where the check digit is right.
    labelled("card", _CARD_LABEL, parted(15, 16), _card, digits=14),
    Pattern("card", rf"{_NOT_A_DECIMAL}([2-6]\d{{3}}(?:{_ODD}\d{{4}}){{3}})(?:\z|\D)", _card, trigger=_FOURS_APART),
    Pattern(
        "iban",
        r"(?:^|[^A-Za-z0-9])((?i:[a-z]{2}\d{2}(?:[a-z0-9]{11,30}|(?:[ \-][a-z0-9]{4}){2,7}(?:[ \-][a-z0-9]{1,4})?)))(?:\z|[^A-Za-z0-9])",
        _iban,
        trigger=r"(?:^|[^A-Za-z0-9])[A-Za-z]{2}\d{2}[ \-]?[A-Za-z0-9]{4}[ \-]?[A-Za-z0-9]{3}",
    ),
    labelled(
        "iban",
        label("iban", r"bank account"),
        r"((?i:[a-z](?:[\s.\-]{0,3}[a-z])(?:[\s.\-]{0,3}\d){2}(?:[\s.\-]?[a-z0-9]){11,30}))(?:\z|[^A-Za-z0-9])",
        _iban_form,
    ),
    labelled(
        "routing",
        label(r"routing", "aba", "rtn", r"transit"),
        number(9),
        gap=GAP,
    ),
    labelled(
        "account",
        label(
            r"acct",
            r"a/c",
            r"(?:bank|checking|savings|billing|patient) account",
            r"account[ _]?(?:number|num|no|nbr|id|\#)",
            r"konto\w{0,8}",
            r"cuenta",
        ),
        TOKEN,
        has_digit,
        gap=r"(?i:[\W_]{0,3}(?:number|num|nbr|no|nr|id|ids)?[\W_]{0,3}(?:is)?[\s:#=.\-\"'(]{1,8})",
    ),
    labelled(
        "account",
        label(r"account", camel=False),
        r"([A-Za-z]{0,5}[\-/]?\d{5,17}(?:[\-/]\d{1,6})?)(?:\z|[^A-Za-z0-9])",
        has_digit,
        gap=SIGN_GAP,
    ),
)
