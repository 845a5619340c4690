"""Values that are known to be identifiers, found again wherever else they stand in a text.  Pure.

A detector sees a name by its label once; the same name bare, later on, is as much of a name.  A value is looked for

    as it was spelled, at the borders of words;
    in its letters and digits alone, however they are grouped or joined: `8392-0174`, `ferncastle_odalys.pdf`.

What could be a plain word is looked for in the first way only.  The cost is the text's, not the number of values.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from compliance.detectors.lexicon import COMMON, WORD, lexicon
from compliance.pseudonyms import LITERAL, NUMBERS

LEAST = 4
"""Characters of the shortest value that is looked for elsewhere."""
LEAST_DIGITS = 6
"""Digits of the shortest number that is looked for in any grouping."""
LEAST_LETTERS = 5
"""Letters of the shortest word that is looked for in any case."""
MAX_GAP = 7
"""Characters between two digits or words of one value: a break in HTML, quotes and brackets of JSON."""
_PART_DIGITS = 7
"""Digits of a part of a value that say whose it is: a phone's without its area, a number's without its letters."""
_INSIDE_DIGITS = 9
"""Digits of a number that is found inside a longer number: a shorter one may be there by chance."""
_LONG = 8
"""Letters of words that are not found between other words by chance."""

_WORD = re.compile(r"[^\W_]+")  # names of files and tools join words with an underscore
_TAG = re.compile(r"</?(?:br|wbr|p|td|th|tr|li|b|i|u|s|em|strong|span|div)\s?/?>", re.IGNORECASE)
_TOKEN = re.compile(rf"{_TAG.pattern}|{_WORD.pattern}", re.IGNORECASE)
"""A word, or what HTML puts between the parts of one."""
_TITLES = frozenset(
    "Doctor Nurse Patient Miss Missus Mister Professor Sister Brother Father Mother Judge Captain Officer".split()  # noqa: SIM905
)  # words in a name that say nothing of whose it is
_LOOSE = frozenset({"ip", "mac", "age", "zip"})
"""Kinds whose digits mean nothing without their signs."""
_MONTHS = {
    month: f"{number:02}"
    for number, month in enumerate("jan feb mar apr may jun jul aug sep oct nov dec".split(), 1)  # noqa: SIM905
}
_NO_SIGNS = {code: None for code in range(128) if not chr(code).isalnum()}
_FEW = 200
"""Values that are looked for one by one."""
_BREAK = "\0"  # no word has it

Place = tuple[int, int, str]
"""(start, end, kind)"""


class _Form(NamedTuple):
    """A value as its letters and digits alone."""

    form: str
    kind: str
    words: int


class Sought:
    """Values and their kinds; of one value under two kinds the first counts."""

    __slots__ = ("_by_head", "_by_word", "_forms", "_seen")

    def __init__(self, values: Iterable[tuple[str, str]]) -> None:
        self._by_word: dict[str, list[tuple[str, int, str, bool]]] = {}
        self._by_head: dict[str, list[_Form]] = {}
        self._seen: set[str] = set()
        self._forms: set[str] = set()
        for kind, value in values:
            self._add(kind, value)
            if kind == "name":
                words = _WORD.findall(value)
                for word in words if len(words) > 1 else ():
                    if word[0].isupper() and word.isalpha() and word not in _TITLES:
                        self._add(kind, word)

    def __bool__(self) -> bool:
        return bool(self._by_word)

    def _add(self, kind: str, value: str) -> None:
        if len(value) < LEAST or kind == LITERAL or value in self._seen:
            return
        self._seen.add(value)
        words = list(_WORD.finditer(value))
        if not words:
            return
        loose = len(words) > 1 or any(map(str.isdigit, value))  # else its case is all that tells it from a plain word
        first = words[0]
        self._by_word.setdefault(first.group().casefold(), []).append((value, first.start(), kind, loose))
        form = "".join([_folded(word.group()) for word in words])
        for other in (form, *_others(kind, form, value)):
            least = LEAST_LETTERS if other.isalpha() else LEAST_DIGITS
            if len(other) >= least and other not in self._forms and kind not in _LOOSE:
                if len(words) == 1 and other.isalpha() and lexicon().flags(other) & COMMON:
                    continue
                self._forms.add(other)
                self._by_head.setdefault(other[:LEAST_LETTERS], []).append(_Form(other, kind, len(words)))

    def find(self, text: str) -> Iterator[Place]:
        """Where they stand; places may overlap."""
        by_word = self._by_word
        if _any_in(by_word, text.casefold()):
            for word in _WORD.finditer(text):
                for value, before, kind, loose in by_word.get(word.group().casefold(), ()):
                    start = word.start() - before
                    end = start + len(value)
                    if start >= 0 and _same(text[start:end], value, loose) and _bordered(text, start, end):
                        yield start, end, kind
        yield from self.find_joined(text)

    def find_joined(self, text: str) -> Iterator[Place]:
        """Where their letters and digits stand, whatever is between these."""
        if not self._forms or not _any_in(self._forms, _squeezed(text)):
            return
        stream, starts, origins = _stream(text)
        by_head = self._by_head
        for at in range(len(stream) - LEAST_LETTERS + 1):
            forms = by_head.get(stream[at : at + LEAST_LETTERS])
            if forms is None:
                continue
            for one in forms:
                if not stream.startswith(one.form, at):
                    continue
                first, last = bisect_right(starts, at) - 1, bisect_right(starts, at + len(one.form) - 1) - 1
                start = origins[first] + at - starts[first]
                end = origins[last] + at + len(one.form) - starts[last]
                if (_stands if one.form.isalpha() else _counts)(text, start, end, one):
                    yield start, end, one.kind


def _any_in(values: Collection[str], text: str) -> bool:
    """May one of these be in the text?  Quick where they are few."""
    return len(values) > _FEW or any([value in text for value in values])


def _squeezed(text: str) -> str:
    """About what `_stream` gives, in a fraction of its time: what is not in it is not there."""
    if "<" in text:
        text = _TAG.sub("", text)
    if text.isascii():
        return text.lower().translate(_NO_SIGNS)
    return "".join(_WORD.findall("".join([_folded(part) for part in text.splitlines()])))


def _stream(text: str) -> tuple[str, list[int], list[int]]:
    """(its letters and digits, folded; where each word begins there; where in the text)."""
    parts: list[str] = []
    starts: list[int] = []
    origins: list[int] = []
    size = before = 0
    for match in _TOKEN.finditer(text):
        word = match.group()
        at, end = match.span()
        if word[0] == "<":
            before = end
            continue
        if at - before > MAX_GAP:
            parts.append(_BREAK)
            starts.append(size)
            origins.append(before)
            size += 1
        parts.append(word.lower() if word.isascii() else _folded(word))
        starts.append(size)
        origins.append(at)
        size += end - at
        before = end
    return "".join(parts), starts, origins


def _folded(word: str) -> str:
    """In lower case, as long as it was."""
    folded = word.casefold()
    if len(folded) == len(word):
        return folded
    return "".join([one if len(one) == 1 else was for was, one in zip(word, map(str.casefold, word), strict=True)])


def _others(kind: str, form: str, value: str) -> Iterator[str]:
    """Other ways in which a number or date is written."""
    if kind == "date":
        yield from _dates(value)
        return
    digits = "".join(filter(str.isdigit, form))
    if kind not in NUMBERS or len(digits) < _PART_DIGITS:
        return
    yield digits
    if len(digits.lstrip("0")) >= _PART_DIGITS:
        yield digits.lstrip("0")  # as a number of JSON
    if kind in ("phone", "fax"):
        if len(digits) > 10:
            yield digits[-10:]
        if len(digits) >= 10:
            yield digits[-7:]


def _dates(value: str) -> Iterator[str]:
    """The digits of a whole date in every order."""
    groups = [_MONTHS.get(word[:3].casefold(), word) for word in re.findall(r"[0-9]+|[A-Za-z]{3,}", value)]
    if len(groups) != 3 or not all(map(str.isdigit, groups)):
        return
    year = next((group for group in groups if len(group) == 4), "")
    rest = [group for group in groups if group != year]
    if not year or len(rest) != 2:
        return
    for one, two in (rest, rest[::-1]):
        yield year + one.zfill(2) + two.zfill(2)
        yield one.zfill(2) + two.zfill(2) + year
        yield one.lstrip("0") + two.lstrip("0") + year


def _same(text: str, value: str, loose: bool) -> bool:
    return (
        text == value or (loose and text.casefold() == value.casefold()) or (text.isupper() and text == value.upper())
    )


def _bordered(text: str, start: int, end: int) -> bool:
    """Does no word go on at either side?"""
    left = start > 0 and text[start - 1].isalnum() and text[start].isalnum()
    right = end < len(text) and text[end].isalnum() and text[end - 1].isalnum()
    return not (left or right)


def _counts(text: str, start: int, end: int, one: _Form) -> bool:
    """Is a number there a known one, and not a part of a longer one?"""
    if len(one.form) >= _INSIDE_DIGITS:
        return True
    left = start > 0 and text[start - 1].isdigit() and text[start].isdigit()
    right = end < len(text) and text[end].isdigit() and text[end - 1].isdigit()
    return not (left or right)


def _stands(text: str, start: int, end: int, one: _Form) -> bool:
    """Are letters there known words, and not a part of others by chance?"""
    whole = text[start:end].isalpha()
    left = _goes_on(text, start)
    right = _goes_on(text, end)
    if not (left or right):
        return whole or one.words > 1 or end - start >= _LONG
    if not whole or (one.words > 1 and len(one.form) < _LONG):
        return False
    first, last = start, end
    while first > 0 and text[first - 1].isalpha():
        first -= 1
    while last < len(text) and text[last].isalpha():
        last += 1
    if len(one.form) < LEAST_LETTERS + 2 and not (
        last - first - len(one.form) <= 2 and (first == start or last == end)
    ):
        return False
    return not lexicon().flags(text[first:last].casefold()) & (COMMON | WORD)


def _goes_on(text: str, at: int) -> bool:
    """Does a word go on over this offset?  A capital after a small letter begins another one."""
    if at <= 0 or at >= len(text) or not (text[at - 1].isalpha() and text[at].isalpha()):
        return False
    return not (text[at - 1].islower() and text[at].isupper())
