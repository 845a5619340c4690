"""Numbers of care and of its payers, and of devices."""

from __future__ import annotations

from collections.abc import Callable

from compliance.detectors import checksums
from compliance.detectors.labels import (
    GAP,
    MIXED,
    SIGN_GAP,
    TOKEN,
    WORD_GAP,
    called,
    evenly,
    has_digit,
    label,
    labelled,
    number,
    parted,
    spread,
)
from compliance.detectors.model import Pattern
from compliance.detectors.tables import header

_WORD = r"(?:^|[^A-Za-z0-9])"
_END = r"(?:\z|[^A-Za-z0-9])"
_MBI = r"[1-9][AC-HJKMNP-RT-Y][0-9AC-HJKMNP-RT-Y]\d-?[AC-HJKMNP-RT-Y][0-9AC-HJKMNP-RT-Y]\d-?[AC-HJKMNP-RT-Y]{2}\d{2}"

_RECORD = label(
    "mrn",
    r"m\.r\.n",
    r"m\.? ?r\.? ?(?:\#|no)",
    r"med(?:ical)?\W{0,2}rec(?:ord)?s?",
    r"medical_?record",
    r"(?:patient|pt|pat)s?[ _]?(?:id|no|number|num|identifier)s?",
    r"(?:chart|hospital|encounter|visit|accession|episode|specimen|study)[ _]?(?:id|no|number|num|\#)",
    r"hosp(?:ital)? ?no",
    r"health record",
    "nhc",
    "cipa",
    r"n\W{0,3} ?(?:de )?historia",
    r"historia cl\xc3\xadnica n\W{1,3}",
    r"episodio",
    r"patienten?(?:\W|_)?(?:nummer|nr|id)",
    r"fallnummer",
    r"num\xc3\xa9ro de dossier",
    r"site id",
    r"subject id",
    r"participant id",
    r"(?:rx|prescription) ?(?:\#|no|number)",
)
_RECORD_WORD = label(
    "record", "chart", "encounter", "accession", "fin", "specimen", r"case (?:no|number|\#)", r"file (?:no|number|\#)", camel=False,
)  # fmt: skip
_PLAN = label(
    r"(?:insurance|ins|insur|policy|member(?:ship)?|subscriber|beneficiary|health ?plan|plan|payer|medicaid|medicare|claim|coverage)"
    r"[ _.]{0,2}(?:policy[ _]?|plan[ _]?|member[ _]?|card[ _]?|beneficiary[ _]?)?(?:id|no|number|num|nbr|identifier|\#)",
    r"group ?(?:number|no\b|id|\#)",
    r"hicn",
    r"hbn",
    r"hpb?n",
    r"health plan beneficiary",
    r"policy ?holder",
    r"insurance policy",
    r"ins\.? policy",
    r"(?:p\xc3\xb3liza|poliza|versicherten?nummer|versichertennr|krankenversicherungsnummer)",
)
_PLAN_WORD = label(
    r"insurance",
    r"insur",
    r"ins\.?(?: plan)?",
    r"policy",
    r"health plan",
    r"(?:includes )?plan",
    r"member",
    r"subscriber",
    r"beneficiary",
    camel=False,
)


_FIELD = r"([A-Za-z0-9][A-Za-z0-9\-]{2,19})(?:\z|[^A-Za-z0-9\-])"
_SPREAD = r"([A-Z0-9](?:[\s.\-]{1,3}[A-Z0-9]){4,11})(?:\z|[^A-Za-z0-9])"


def _imei(text: str) -> bool:
    return checksums.imei(checksums.digits(text))


def _of_patient(kind: str, place: int, shape: str, check: Callable[[str], bool] | None = None) -> Pattern:
    """A field of the patient's segment of an HL7 version 2 message, by its place (HL7 2.5, section 3.4.2)."""
    before = rf"PID(?:\|[^|\r\n]*){{{place - 1}}}\|"
    return Pattern(kind, before + shape, check, trigger=r"PID\|", back=8, ahead=512)


SHAPES = (
    labelled("mrn", _RECORD, TOKEN, has_digit, gap=WORD_GAP),
    labelled("mrn", _RECORD, number(5, 12), gap=GAP),  # also spread, and right behind the label
    labelled("mrn", _RECORD, parted(5, 12), evenly, gap=GAP),
    called("mrn", _RECORD, r"[A-Za-z]{0,4}-?\d(?:[ .\-]?\d){4,11}"),
    labelled("mrn", _RECORD, _SPREAD, has_digit, gap=GAP),
    labelled("mrn", _RECORD_WORD, r"([A-Za-z]{1,3}-\d{2}-\d{3,7})" + _END, gap=SIGN_GAP),
    labelled("mrn", label("encounter", camel=False), r"(\d{6,12})" + _END, gap=r"[ ]"),
    labelled("mrn", _RECORD_WORD, TOKEN, has_digit, gap=r"[ \t]{0,2}(?i:(?:number|no|id)[ .:]{1,3})?\#"),
    labelled("mrn", _RECORD_WORD, MIXED, has_digit, gap=SIGN_GAP),
    # Called an ID and nothing more: a number of some length, not a field's name with a value in it.
    labelled(
        "record_id",
        r"(?:^|[^A-Za-z0-9_\"'])I[Dd]",
        r"([A-Za-z]{0,6}-?\d{5,12}(?:-[A-Za-z0-9]{1,6})?)(?:\z|[^A-Za-z0-9])",
        gap=r"(?:[ ]?(?i:number|no|nr)\.?)?[ ]?[:#]?[ ]?\#?",
        confidence=0.6,
        digits=5,
    ),
    labelled("plan", _PLAN, TOKEN, has_digit, gap=WORD_GAP),
    labelled(
        "plan", _PLAN_WORD, MIXED, has_digit, gap=r"(?i:[ \t]{0,2}(?:is|was|[:#=\n])?[\s:#=\"'(]{1,6})", confidence=0.8
    ),
    Pattern(
        "mbi",
        _WORD + f"((?i:{_MBI.replace('-?', '-')}))" + _END,
        None,
        0.9,
        trigger=r"\d-[a-z][a-z0-9]\d-[a-z]{2}\d{2}",
        back=20,
    ),
    Pattern("mbi", _WORD + f"({_MBI})" + _END, None, 0.9, trigger=r"\d-?[A-Z]{2}\d{2}", back=16),
    labelled(
        "mbi",
        label("mbi", r"medicare"),
        spread(r"(?i:[1-9][a-z][a-z0-9]\d[\- ]?[a-z][a-z0-9]\d[\- ]?[a-z]{2}\d{2}|[a-z0-9]{11})", 11),
        has_digit,
    ),
    labelled("npi", label("npi", r"national provider"), number(10)),
    Pattern(
        "dea", _WORD + r"([ABCDEFGHJKLMPRSTUX][A-Z9]\d{7})" + _END, checksums.dea, 0.9, trigger=r"[A-Z][A-Z9]\d{7}"
    ),
    labelled("dea", label("dea"), r"((?i:[a-z][\s.\-]{0,3}[a-z9](?:[\s.\-]{0,3}\d){7}))" + _END),
    Pattern("udi", r"\(01\)[ ]?(\d{14})(?:\z|\D)", checksums.gtin, trigger=r"\(01\)"),
    labelled(
        "udi",
        label("udi", "gtin", r"device identifier", r"implant udi \(01\)"),
        r"(?:\(?01\)?[\W_]{0,3})?" + number(14),
    ),
    Pattern("imei", r"(?:^|[^\d.\-])(\d{2}-\d{6}-\d{6}-\d)(?:\z|[^\d\-])", _imei, trigger=r"\d{2}-\d{6}-\d{6}-\d"),
    labelled("imei", label("imei"), number(15, 16)),
    labelled(
        "serial",
        label(
            r"serial",
            r"s/n",
            r"(?-i:SN)",
            r"device (?:id|no|number|serial)",
            r"device_id",
            r"serial_?number",
            r"seriennummer",
            r"n\W{0,3} de serie",
        ),
        r"([A-Za-z0-9](?:[A-Za-z0-9]|[\-/.][A-Za-z0-9]){4,23})" + _END,
        has_digit,
        gap=SIGN_GAP,
    ),
    _of_patient("mrn", 2, _FIELD, has_digit),
    _of_patient("mrn", 3, _FIELD, has_digit),
    _of_patient("date", 7, r"(\d{8})(?:\d{4,6})?(?:\z|\D)"),
    _of_patient("account", 18, _FIELD, has_digit),
    _of_patient("ssn", 19, r"(\d{3}-?\d{2}-?\d{4})(?:\z|\D)"),
)

HEADERS = (header("mrn", _RECORD), header("plan", _PLAN))
