"""Dates of every shape but a year alone, and ages over 89."""

from __future__ import annotations

from compliance.detectors.labels import label, labelled
from compliance.detectors.model import Pattern

_MONTH = (
    r"(?:jan(?:uary|uar|vier|\.)?|feb(?:ruary|ruar|\.)?|mar(?:ch|\.)?|apr(?:il|\.)?|(?-i:May|MAY)|june?|july?|aug(?:ust|\.)?|sept?(?:ember|\.)?|"
    r"oct(?:ober|\.)?|nov(?:ember|\.)?|dec(?:ember|\.)?|"
    r"enero|febrero|marzo|abril|mayo|junio|julio|agosto|septiembre|setiembre|octubre|noviembre|diciembre|"
    r"f\xc3\xa9vrier|mars|avril|mai|juin|juillet|ao\xc3\xbbt|septembre|octobre|novembre|d\xc3\xa9cembre|"
    r"januari|februari|m\xc3\xa4rz|maart|juni|juli|augustus|oktober|okt|dezember|dez|"
    r"gennaio|febbraio|aprile|maggio|giugno|luglio|settembre|ottobre|dicembre|janeiro|fevereiro|mar\xc3\xa7o|maio|junho|julho|setembro|outubro|novembro|dezembro)"
)
_FULL = r"(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_YEAR = r"(?:(?:18|19|20)\d{2}|['\x92]\d{2}|\xe2\x80\x99\d{2})"
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_ORDINAL = r"(?:st|nd|rd|th)"
_TIME = r"(?:[T ]\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d{1,9})?)?(?: ?(?:Z|[+\-]\d{2}:?\d{2}))?)?"
_BEFORE = r"(?:^|[^\w./\-]|[^\w][./\-])"
_END = r"(?:\z|[^\w/.\-]|[/.\-](?:\z|\D)|_)"


def _date(text: str) -> bool:
    """Parts that are a day, a month and a year in some order."""
    parts = [
        int(part)
        for part in text.replace("/", "-").replace(".", "-").replace(" ", "-").split("-")[:3]
        if part.isdecimal()
    ]
    if len(parts) != 3:
        return False
    if parts[0] > 31:
        year, one, two = parts
    else:
        one, two, year = parts
    return 1 <= one <= 31 and 1 <= two <= 31 and min(one, two) <= 12 and (year <= 99 or 1800 <= year <= 2199)


def _compact(text: str) -> bool:
    """Eight digits as a date: year first or last."""
    year, month, day = int(text[:4]), int(text[4:6]), int(text[6:8])
    if 1850 <= year <= 2199 and 1 <= month <= 12 and 1 <= day <= 31:
        return True
    one, two, year = int(text[:2]), int(text[2:4]), int(text[4:])
    return 1850 <= year <= 2199 and 1 <= one <= 31 and 1 <= two <= 31 and min(one, two) <= 12


_MONTH_END = r"(?:\z|[^\w%$.,:]|[.,:](?:\z|\D))"
_MONTHLY = 0.5
"""Confidence in a month of a year: it identifies only in company (`company.py`)."""
_RELATIVE = 0.4
"""Confidence in a date that counts from today."""
_NUMERIC = r"\d[/.\-]\d{1,2}[/.\-]\d{2}"
_NEAR = r"[ ,.\-]{1,3}(?:of |de |del )?(?:a\xc3\xb1o )?(?:['\x92]|\xe2\x80\x99)?\d"

SHAPES = (
    Pattern(
        "date",
        rf"{_BEFORE}((?:18|19|20|21)\d{{2}}[/.\-]\d{{1,2}}[/.\-]\d{{1,2}}{_TIME}){_END}",
        lambda text: _date(text[:10].rstrip(" T")),
        trigger=r"\d{4}[/.\-]\d{1,2}[/.\-]\d",
        back=16,
        ahead=48,
    ),
    Pattern(
        "date",
        rf"{_BEFORE}(\d{{1,2}}[/\-]\d{{1,2}}[/\-](?:\d{{4}}|\d{{2}})|\d{{1,2}}\.\d{{1,2}}\.\d{{4}}|\d{{2}}\.\d{{2}}\.\d{{2}}){_END}",
        _date,
        trigger=_NUMERIC,
        back=16,
        ahead=16,
    ),
    Pattern(
        "date",
        rf"(?:^|[^\w])((?i:{_MONTH}),? {{0,2}}(?i:{_DAY}(?: ?{_ORDINAL})?)(?:,? {{0,2}}(?:of )?{_YEAR})?){_MONTH_END}",
        trigger=rf"(?i:{_MONTH}){_NEAR}",
        back=24,
        ahead=32,
    ),
    Pattern(
        "date",
        rf"(?:^|[^\w])((?i:{_MONTH}[ ,\-]{{1,2}}(?:of |de |del )?(?:a\xc3\xb1o )?){_YEAR}){_MONTH_END}",
        None,
        _MONTHLY,
        trigger=rf"(?i:{_MONTH}){_NEAR}",
        back=24,
        ahead=32,
    ),
    Pattern("date", rf"\b(may {_DAY}(?:{_ORDINAL}|,? {_YEAR}))", trigger=r"\bmay \d", back=16, ahead=24),
    Pattern(
        "date",
        rf"(?:^|[^\w.,$])((?i:{_DAY} ?{_ORDINAL}?(?:[ \-]| of | de |\. ?){_MONTH})\b(?:(?i:,|[ \-]|of |de |del )*{_YEAR})?)(?:\z|\W)",
        trigger=rf"\d(?i: ?{_ORDINAL}?(?:[ \-]| of | de |\. ?){_MONTH})\b",
        back=32,
        ahead=32,
    ),
    Pattern(
        "date",
        rf"(?:^|[^\w])(\d{{1,2}}-(?i:{_MONTH})-(?:\d{{4}}|\d{{2}}))(?:\z|\W)",
        trigger=rf"-(?i:{_MONTH})-\d",
        back=24,
        ahead=16,
    ),
    Pattern(
        "date",
        rf"\b((?i:last|since|this|next|early|late|mid|until|till)[ \-]{_FULL}(?:,? {_YEAR})?)\b",
        None,
        _MONTHLY,
        back=32,
        ahead=16,
    ),
    Pattern(
        "date",
        r"\b((?i:(?:last|this past) (?:week|weekend|month|year|spring|summer|fall|autumn|winter|christmas|(?:mon|tues|wednes|thurs|fri|satur|sun)day)"
        r"|(?:the day before )?yesterday))\b",
        None,
        _RELATIVE,
        trigger=r"(?i:\b(?:last|past) (?:we|mo|ye|sp|su|fa|au|wi|ch|tu|th|fr|sa)|yesterday)",
        back=20,
        ahead=16,
    ),
    Pattern(
        "date",
        r"(?:^|[^\w./])((?:0?[1-9]|1[0-2])/(?:19|20)\d{2})(?:\z|[^\w/])",
        None,
        _MONTHLY,
        trigger=r"\d/(?:19|20)\d{2}",
        back=16,
        ahead=8,
    ),
    Pattern(
        "date",
        rf"\b(?i:on|since|from|until|by|dated?|dob|seen|admitted|discharged)[: ]{{1,2}}((?:0?[1-9]|1[0-2])/{_DAY})(?:\z|[^\w/.%]|[.](?:\z|\D))",
        None,
        0.7,
        trigger=r"[A-Za-z][: ]{1,2}\d{1,2}/\d",
        back=32,
        ahead=8,
    ),
    labelled(
        "date",
        label(
            "dob",
            r"d\.o\.b\.?",
            r"date[ _]of[ _](?:birth|death|admission|discharge|service|visit)",
            r"birth ?date",
            r"birth_?date",
            "born",
            r"geboren(?: am)?",
            r"geburtsdatum",
            r"fecha",
            r"date de naissance",
            r"n\xc3\xa9e? le",
            r"data di nascita",
        ),
        r"(\d(?:[\s./\-]{0,3}\d){4,8})(?:\z|\D)",
        lambda text: _compact(text) if len(text) == 8 and text.isdecimal() else True,
        gap=r"(?:(?i:[\W_]{0,4}(?:de \w{1,15}|is|was|on|am|le|the))?[\W_]{0,12})",
        digits=4,
    ),
    # Ages over 89: with the unit that makes them ages, or with their label.
    Pattern(
        "age",
        r"(?:^|[^\d.,$\-/]|[^\d][\-/.])((?:9\d|1[0-2]\d)(?:[\s\-]{0,2}(?:(?i:(?:years?|yrs?)[\s\-]{0,2}(?:of age|old|o\b)|y[./]?o\b|y/o|yo[mf]\b)"
        r"|[ya]\xc3\xb1os|a\xc3\xb1os|ans\b|Jahre)))",
        trigger=r"(?:9\d|1[0-2]\d)[\s\-]{0,2}(?i:y|a\xc3|ans|jahre)",
        back=16,
        ahead=24,
    ),
    Pattern(
        "age",
        r"(?i:\b(?:aged?|ages|edad|alter|\xc3\xa2ge)[\s:=\-\"'_]{1,4}(?:of |is |over |at )?)((?:9\d|1[0-2]\d))(?:\z|[^\d.,%]|[.,](?:\z|\D))",
        trigger=r"(?i:\b(?:aged?|ages|edad|alter|\xc3\xa2ge)[\s:=\-\"'_]{1,4}(?:of |is |over |at )?)(?:9|1[0-2])\d",
        back=32,
        ahead=8,
    ),
    Pattern("age", r"\b((?i:nonagenarian|centenarian|supercentenarian))", None, 0.8),
)
