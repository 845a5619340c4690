"""Values that are known to be identifiers, found again wherever else they stand in a text.  Pure.

A detector sees a name by its label once; the same name bare, later on, is as much of a name.  Looked for at the
borders of words only, by the first word, so that the cost is the text's and not the number of values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from compliance.pseudonyms import LITERAL, NUMBERS, normalised

LEAST = 4
"""Characters of the shortest value that is looked for elsewhere; digits of a number that is, in any grouping, are
`LEAST_DIGITS`."""
LEAST_DIGITS = 7

_WORD = re.compile(r"[^\W_]+")  # names of files and tools join words with an underscore
_RUN = re.compile(r"(?<![^\W_])[0-9](?:[ ()./\u2010-\u2015\u00a0-]{0,2}[0-9])+(?![^\W_])")
_TITLES = frozenset(
    "Doctor Nurse Patient Miss Missus Mister Professor Sister Brother Father Mother Judge Captain Officer".split()  # noqa: SIM905
)  # words in a name that say nothing of whose it is

Place = tuple[int, int, str]
"""(start, end, kind)"""


class Sought:
    """Values and their kinds; of one value under two kinds the first counts."""

    __slots__ = ("_by_digits", "_by_word", "_seen")

    def __init__(self, values: Iterable[tuple[str, str]]) -> None:
        self._by_word: dict[str, list[tuple[str, int, str, bool]]] = {}
        self._by_digits: dict[str, str] = {}
        self._seen: set[str] = set()
        for kind, value in values:
            self._add(kind, value)
            if kind == "name":
                words = _WORD.findall(value)
                for word in words if len(words) > 1 else ():
                    if word[0].isupper() and word.isalpha() and word not in _TITLES:
                        self._add(kind, word)

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
        if kind in NUMBERS:
            digits = normalised(kind, value)
            if len(digits) >= LEAST_DIGITS and digits.isascii() and digits.isdigit():
                self._by_digits.setdefault(digits, kind)

    def find(self, text: str) -> Iterator[Place]:
        """Where they stand; places may overlap."""
        by_word = self._by_word
        if by_word:
            for word in _WORD.finditer(text):
                for value, before, kind, loose in by_word.get(word.group().casefold(), ()):
                    start = word.start() - before
                    end = start + len(value)
                    if start >= 0 and _same(text[start:end], value, loose) and _bordered(text, start, end):
                        yield start, end, kind
        if self._by_digits:
            for run in _RUN.finditer(text):
                kind_of = self._by_digits.get("".join(filter(str.isdigit, run.group())))
                if kind_of is not None:
                    yield *run.span(), kind_of


def _same(text: str, value: str, loose: bool) -> bool:
    return text == value or (loose and text.casefold() == value.casefold())


def _bordered(text: str, start: int, end: int) -> bool:
    """Does no word go on at either side?"""
    left = start > 0 and text[start - 1].isalnum() and text[start].isalnum()
    right = end < len(text) and text[end].isalnum() and text[end - 1].isalnum()
    return not (left or right)
