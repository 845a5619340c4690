"""What identifies somebody only in company: a month, `last week`, a doubtful name, the dates and places of a study.

Under health context every name, date and place counts beside another identifier.  Alone, a month, `last year`, what may
not be a name at all or the first name of a word problem tells nobody from anybody else, and in prose about groups (a
study's methods, a page on a disease) the dates and places are the study's.  In a tenant whose every text is a patient's
only the faintest of them need company.
"""

from __future__ import annotations

from compliance.detectors.crowd import cues, many_meant
from compliance.detectors.lexicon import GIVEN, SURNAME, WORD, lexicon
from compliance.detectors.model import Span
from compliance.detectors.named import by_label
from compliance.detectors.people import TITLES, before, labels_a_name, names_a_thing

SURE = 0.6
"""Below it, a date or a place identifies only beside something else."""
_CERTAIN = 0.97
"""From it on, a bare surname is one."""
FAINT = 0.5
"""Below it, even in a tagged tenant."""
_DATES_AND_PLACES = frozenset(("date", "place"))
_LONG = frozenset(("name", "place", "address"))
_SOCIABLE = _DATES_AND_PLACES | {"name", "address"}
_PLAIN = 0.9
"""How sure a listed first name must be to identify with nothing beside it."""
_SUMS = ("how many", "how much", "how long", "how far", "what percentage", "what is the total", "in total?")
_AROUND = (" metro", " area", " region", " county", " suburb")
"""After a town: more people live there than in it."""
_LAND = frozenset(("mount", "mt", "lake", "fort", "port", "cape", "new", "north", "south", "east", "west"))
"""Before what is no surname then."""


def together(text: str, spans: list[Span], *, tagged: bool = False) -> list[Span]:
    """`spans`, or none where each of them is one that needs company.

    `tagged`: the text is a patient's because the tenant says so.
    """
    if any(span.type not in _SOCIABLE for span in spans):
        return spans  # the usual case: there is a number or a contact
    if tagged:
        alone = all(span.type in _DATES_AND_PLACES and span.confidence < FAINT for span in spans)
        return [] if alone else spans
    seen = None
    if not any(_identifies(text, span) for span in spans):
        seen = cues(text)
        if not (seen[0] and any(_identifies(text, span, person=True) for span in spans)):
            return []
    if all(_of_a_study(text, span) for span in spans) and many_meant(*(seen or cues(text))):
        return []
    return spans


def united(spans: list[Span]) -> list[Span]:
    """Names, places and addresses that overlap another of their type as one: each detector sees another end of them."""
    result: list[Span] = []
    last: dict[str, int] = {}
    for span in sorted(spans, key=lambda span: span.start):
        at = last.get(span.type)
        if at is not None and span.type in _LONG and span.start < result[at].end:
            other = result[at]
            end, confidence = max(other.end, span.end), max(other.confidence, span.confidence)
            result[at] = Span(span.type, other.start, end, confidence)
            continue
        last[span.type] = len(result)
        result.append(span)
    return result


def _identifies(text: str, span: Span, *, person: bool = False) -> bool:
    """Would it do so with nothing beside it?  `person`: one person is meant in the text."""
    if span.type == "name":
        return _whole_name(text, span, person=person)
    if span.type not in _DATES_AND_PLACES:
        return True
    if span.confidence < SURE:
        return False
    if span.type == "date":
        return True
    around = text[span.end : span.end + 8].lower().startswith(_AROUND)
    return person and not around and not text[span.start : span.end].islower()


def _whole_name(text: str, span: Span, *, person: bool = False) -> bool:
    """More than a first name or a word that only looks like a name: two words, a title, a label, a person at hand."""
    if names_a_thing(text, span.end):
        return False
    if by_label(text, span):
        return True
    words = [
        word.strip(".,'’").lower() for word in _one_name(text[span.start : span.end]).split() if word[:1].isupper()
    ]
    if not words or words[0] in _LAND:
        return False
    listed = [word for word in words if lexicon().flags(word) & (GIVEN | SURNAME)]
    if listed and len(words) > 1 and span.confidence >= SURE:
        return True
    context = before(text, span.start)
    if context.rpartition(" ")[2].rstrip(".") in TITLES or labels_a_name(context, bool(listed)):
        return True
    if (
        len(words) == 1
        and span.confidence >= _CERTAIN
        and lexicon().flags(words[0]) & (SURNAME | GIVEN | WORD) == SURNAME
    ):
        return True
    if listed and span.confidence >= _PLAIN and not _asks_for_a_sum(text):
        return True
    return person and span.confidence >= SURE


def _asks_for_a_sum(text: str) -> bool:
    """A first name in a word problem, `James takes 2 tablets of 375 mg; how many mg ...`, is nobody's."""
    lowered = text.lower()
    return any(question in lowered for question in _SUMS)


def _one_name(value: str) -> str:
    """Of a list of first names the first; `Quell, Ada` is one name."""
    first, comma, _ = value.partition(",")
    return first if comma and lexicon().flags(first.strip().lower()) & GIVEN else value


def _of_a_study(text: str, span: Span) -> bool:
    """A date, a place, a town with its state, a word that looks like a name: what studies have as well."""
    if span.type == "name":
        return not _whole_name(text, span)
    if span.type == "address":
        return not any(map(str.isdigit, text[span.start : span.end]))
    return True
