"""The fast tier for names, towns and facilities: capitals, titles, labels, lists and what stands around.

One pass finds the runs of capitalised words; each word is looked up once in the lexicon.  A town or a facility is
reported only where the text speaks of one person: `a survey at the university hospital of ...` identifies nobody.
"""

from __future__ import annotations

import re

from msgspec import Struct

from compliance.detectors.automaton import apart
from compliance.detectors.crowd import one_person
from compliance.detectors.lexicon import COMMON, FREQUENT, GIVEN, REGION, SURNAME, TOWN, WORD, Lexicon, lexicon
from compliance.detectors.model import Span
from compliance.detectors.named import named
from compliance.detectors.people import (
    AT,
    CARE,
    EPONYM_NOUNS,
    FACILITY_SURE,
    FACILITY_WORDS,
    IN,
    LABELS,
    LIVES,
    QUALIFIERS,
    TITLES,
    before,
    ends_with,
    labels_a_name,
    names_a_thing,
)

_UPPER = "A-Z" + "".join(chr(code) for code in range(0xC0, 0x530) if chr(code).isupper())
_CAPITALISED_ASCII = re.compile(r"[A-Z][\w'-]*", re.ASCII)
_CAPITALISED = re.compile(f"[{_UPPER}][\\w'’-]*")
"""Without what stands before: `re` looks for the first of a set three times as fast as for a border and a set."""
_KEPT = FACILITY_WORDS | {
    "st",
    "mt",
    "mount",
    "saint",
    "new",
    "north",
    "south",
    "east",
    "west",
    "san",
    "santa",
    "los",
    "las",
    "university",
}
MAX_RUN = 8
MAX_GAP = 6
"""Characters between two words of a run."""
MAX_KNOWN = 16_384
MAX_LENGTH = 40


class _Word(Struct, frozen=True, gc=False):
    start: int
    end: int
    lower: str
    flags: int


class Names:
    """Finds names, towns and facilities.  Thread-safe and deterministic; linear in the text."""

    def __init__(self, words: Lexicon | None = None) -> None:
        self._flags = (words or lexicon()).flags
        self._known: dict[str, tuple[str, int, int]] = {}  # a lost entry is worked out again

    def find(self, text: str) -> list[Span]:
        """Spans of type `name` and `place`, in order."""
        runs = self._runs(text)
        names = list(named(text, self._flags))
        labelled = len(names)
        rest = []
        for run in runs:
            name = self._name(text, run)
            if name is None:
                rest.append(run)
            else:
                names.append(name)
        if labelled:
            names = apart(names)
        if not rest or not (names or one_person(text)):
            return names  # of a place alone, nothing is said
        places = [place for run in rest if (place := self._place(text, run, bool(names))) is not None]
        return apart(names + places) if places else names

    def _look_up(self, word: str) -> tuple[str, int, int]:
        """(in small letters and without a genitive, flags, how much shorter that is)."""
        lower = word.lower()
        flags = self._flags(lower)
        cut = 0
        if not flags and lower.endswith(("'s", "’s")):
            cut = 2
            lower = lower[:-2]
            flags = self._flags(lower)
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        if len(word) <= MAX_LENGTH:
            self._known[word] = lower, flags, cut
        return lower, flags, cut

    def _runs(self, text: str) -> list[list[_Word]]:
        """Capitalised words that stand together, at most `MAX_RUN`; without single words that say nothing."""
        runs: list[list[_Word]] = []
        run: list[_Word] = []
        alone = None  # a word that nothing joined yet: most are such, and common, and never looked at again
        known = self._known
        last = -10
        for match in (_CAPITALISED_ASCII if text.isascii() else _CAPITALISED).finditer(text):
            start, end = match.span()
            if start and text[start - 1].isalnum():
                continue  # in the middle of a word: mRNA
            word = match.group()
            lower, flags, cut = known.get(word) or self._look_up(word)
            if start - last <= MAX_GAP:
                if alone is not None:
                    run, alone = [_Word(*alone)], None
                if len(run) < MAX_RUN and _joins(text[last:start], run[-1]):
                    run.append(_Word(start, end - cut, lower, flags))
                    last = end
                    continue
            if alone is not None:
                if not alone[3] & COMMON:
                    runs.append([_Word(*alone)])
            elif run and (len(run) > 1 or not run[0].flags & COMMON):
                runs.append(run)
            run, alone = [], (start, end - cut, lower, flags)
            last = end
        if alone is not None:
            run = [_Word(*alone)]
        if run and (len(run) > 1 or not run[0].flags & COMMON):
            runs.append(run)
        return runs

    def _place(self, text: str, run: list[_Word], named: bool) -> Span | None:
        """A facility by its words or by the verb before it; a town by the lists and what stands before it."""
        context = before(text, run[0].start)
        care = _cared(context, named)
        if len(run) == 1 and not care and not run[0].flags & TOWN:
            return None  # the usual case
        count = len(run)
        while run and (
            run[0].lower in TITLES
            or (
                not care and run[0].flags & COMMON and not run[0].flags & (TOWN | SURNAME) and run[0].lower not in _KEPT
            )
        ):
            run = run[1:]
        if not run:
            return None
        start, end = run[0].start, run[-1].end
        if text[end : end + 2] in ("'s", "’s"):
            end += 2
        if len(run) < count:
            context = before(text, start)
            care = care or _cared(context, named)
        if self._facility(run, care):
            return Span("place", start, end, 0.8)
        if not care and not (run[0].flags if len(run) == 1 else TOWN) & TOWN:
            return None
        if names_a_thing(text, end) or any(word.lower in EPONYM_NOUNS for word in run):
            return None
        if care and not (len(run) == 1 and (run[0].flags & REGION or (run[0].end - start < 4 and not named))):
            return Span("place", start, end, 0.7)
        whole = text[start : run[-1].end].lower()
        known = run[0].flags if len(run) == 1 else self._flags(whole)
        following = text[end : end + 12].lower()
        if not known & TOWN or known & REGION or following.startswith((" metro", " area", " region")):
            return None
        if (
            ends_with(context, LIVES)
            or (named and (ends_with(context, IN) or context.endswith(",")))
            or following.startswith((" clinic", " hospital", " office", " reside"))
        ):
            return Span("place", start, end, 0.7)
        return None

    def _facility(self, run: list[_Word], care: bool) -> bool:
        kinds = [word.lower in FACILITY_WORDS for word in run]
        own = [word.lower not in FACILITY_WORDS or word.lower in QUALIFIERS for word in run]
        if not any(kinds) or not any(own) or len(run) < 2:
            return False
        return care or any(word.lower in FACILITY_SURE for word in run) or sum(kinds) > 1

    def _name(self, text: str, run: list[_Word]) -> Span | None:
        if len(run) == 1:
            return _single(text, run[0])
        if run[0].lower in TITLES:
            while run and run[0].lower in TITLES:
                run = run[1:]
            return Span("name", run[0].start, _end(text, run[:4]), 0.95) if run else None
        run = _without_heading(run)
        if len(run) == 1:
            return _single(text, run[0])
        for word in run:
            if word.lower in FACILITY_WORDS or word.lower in EPONYM_NOUNS:
                return None
        first, last = run[0], run[-1]
        if len(run) > 5 or names_a_thing(text, last.end) or " of " in text[first.start : last.end]:
            return None
        if last.end - last.start == 1 and len(run) == 2:
            return _with_initial(text, first, last)
        if self._flags(text[first.start : last.end].lower()) & (TOWN | REGION):
            return None
        return _whole_name(text, run)


def _single(text: str, word: _Word) -> Span | None:
    """One word, with a label."""
    flags = word.flags
    if flags & (COMMON | REGION) or (flags and not flags & (GIVEN | SURNAME)) or word.end - word.start < 3:
        return None
    if (
        not labels_a_name(before(text, word.start), bool(flags))
        or not _written(text, word)
        or names_a_thing(text, word.end)
    ):
        return None
    if word.lower in FACILITY_WORDS or word.lower in EPONYM_NOUNS or word.lower in TITLES:
        return None
    return Span("name", word.start, word.end, 0.7)


def _joins(gap: str, word: _Word) -> bool:
    if gap in (" ", "-", "'s ", "’s "):
        return True
    if gap == ". ":
        return word.lower in TITLES or word.lower in ("st", "mt") or word.end - word.start == 1
    if gap in (" of ", " de ", " von ", " van ", " der ", " la ", " del "):
        return True
    return gap in (" & ", ".") and word.end - word.start == 1


def _cared(context: str, named: bool) -> bool:
    if context.endswith(" the"):
        context = context[:-4]
    return ends_with(context, CARE) or (named and ends_with(context, AT))


def _with_initial(text: str, first: _Word, last: _Word) -> Span | None:
    """`Julie M.`"""
    if first.end - first.start < 2 or (first.flags & COMMON and not first.flags & FREQUENT):
        return None
    after = text[last.end : last.end + 1]
    if after == "." and (first.flags & GIVEN or not first.flags & (COMMON | WORD)):
        return Span("name", first.start, last.end + 1, 0.9)
    if first.flags & GIVEN and (after in (",", ";", ")") or ends_with(before(text, first.start), LABELS)):
        return Span("name", first.start, last.end, 0.8)
    return None


def _whole_name(text: str, run: list[_Word]) -> Span | None:
    """A given name and a surname, by the lists or by a label."""
    first, last = run[0], run[-1]
    if any(word.flags & REGION for word in run[1:]) or all(
        word.flags & COMMON and not word.flags & FREQUENT for word in run
    ):
        return None
    labelled = ends_with(before(text, first.start), LABELS)
    family = any(word.flags & SURNAME for word in run[1:])
    if (
        first.flags & GIVEN
        and family
        and (labelled or not (first.flags & COMMON and last.flags & COMMON and not last.flags & FREQUENT))
    ):
        return Span("name", first.start, last.end, 0.85 if first.flags & FREQUENT else 0.75)
    if labelled and any(_person(word) and _written(text, word) for word in run):
        return Span("name", first.start, last.end, 0.75)
    if (
        len(run) < 4
        and first.flags & GIVEN
        and first.flags & FREQUENT
        and not first.flags & COMMON
        and not last.flags & (COMMON | TOWN)
    ):
        return Span("name", first.start, last.end, 0.7)
    return None


def _person(word: _Word) -> bool:
    return bool(word.flags & (GIVEN | SURNAME)) or not word.flags


def _written(text: str, word: _Word) -> bool:
    """As names are: a capital and small letters, in each of its parts."""
    return all(
        part[:1].isupper() and part[1:].islower() and part.isalpha()
        for part in text[word.start : word.end].replace("’", "'").replace("'", "-").split("-")
    )


def _without_heading(run: list[_Word]) -> list[_Word]:
    """Without the common words that begin a sentence or a line: `Can John Smith`, `Patient Maria`."""
    while len(run) > 1 and run[0].flags & COMMON and not (run[0].flags & FREQUENT and run[0].flags & GIVEN):
        run = run[1:]
    return run


def _end(text: str, run: list[_Word]) -> int:
    """The end of a name, with the point of an initial."""
    last = run[-1]
    if last.end - last.start == 1 and text[last.end : last.end + 1] == ".":
        return last.end + 1
    return last.end
