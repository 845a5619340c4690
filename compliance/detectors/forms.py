"""The forms that identifiers hide in, undone step by step, each with its way back to the text as it was given.

A step replaces parts of a text (`Replacement`); a `Form` is the text after it.  Steps build on each other, since forms
are put into each other: invisible characters and look-alikes, then escapes, then encoded tokens, then what is spelled,
up to `MAX_LEVELS` times.  A span of a form leads back to all of what it was made from: of an encoded token, the whole
token.

What ordinary text has is tested by one pass of Hyperscan, so that only a text that may hide something costs more.  Which
shapes share an expression, and in which order the expressions stand, was found by trying (`tests/bench/scan_speed.py
--forms` measures it): Hyperscan makes other automata of each way, and most are slower.
A text that hides more than the bounds allow raises `TooMany`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import hyperscan

from compliance.detectors import encodings, hiding, spelling
from compliance.detectors.automaton import TooMany
from compliance.detectors.compiled import Shelf, database
from compliance.detectors.hiding import OVERRIDE, Replacement
from compliance.detectors.model import Span

_WORDLIKE = 0
"""The gate of base64, which some words pass, too: those are of small letters alone."""

MAX_LEVELS = 3
"""How often an encoded form is looked for in a decoded one."""
MAX_GROWTH = 1 << 20
"""Characters that the forms of one text may have beyond 16 times those of the text."""

Step = Callable[[str, frozenset[str]], list[Replacement]]


class Form:
    """A text with parts replaced, and where each part came from in the text before."""

    __slots__ = ("_before", "_ends", "_origins", "_starts", "text")

    def __init__(self, before: Form | str, replacements: Sequence[Replacement]) -> None:
        """`before`: the text, or the form of it, that the replacements were made in."""
        text = before if isinstance(before, str) else before.text
        self._before = None if isinstance(before, str) else before
        parts: list[str] = []
        self._starts: list[int] = []  # of each part, here
        self._origins: list[int] = []  # where it began before
        self._ends: list[int] = []  # where it ended before; 0: as it was, character for character
        at = size = 0
        for start, end, new in replacements:
            if start > at:
                self._part(size, at, 0)
                parts.append(text[at:start])
                size += start - at
            if new:
                self._part(size, start, end)
                parts.append(new)
                size += len(new)
            at = end
        if at < len(text) or not parts:
            self._part(size, at, 0)
            parts.append(text[at:])
        self.text: str = "".join(parts)

    def _part(self, start: int, origin: int, end: int) -> None:
        self._starts.append(start)
        self._origins.append(origin)
        self._ends.append(end)

    def origin(self, start: int, end: int) -> tuple[int, int]:
        """From where to where in the text as it was given: what `start` to `end` here was made from."""
        first = bisect_right(self._starts, start) - 1
        last = bisect_right(self._starts, max(start, end - 1)) - 1
        begin = self._origins[first] + (0 if self._ends[first] else start - self._starts[first])
        finish = self._ends[last] or self._origins[last] + end - self._starts[last]
        return (begin, finish) if self._before is None else self._before.origin(begin, finish)

    def changed(self, start: int, end: int) -> bool:
        """Does anything from `start` to `end` stand for something else in the text as it was given?"""
        first = bisect_right(self._starts, start) - 1
        last = bisect_right(self._starts, max(start, end - 1)) - 1
        if first != last or self._ends[first]:
            return True
        offset = self._origins[first] - self._starts[first]
        return self._before is not None and self._before.changed(start + offset, end + offset)

    def back(self, spans: Sequence[Span]) -> list[Span]:
        """Spans of this form as spans of the text as it was given."""
        return [Span(span.type, *self.origin(span.start, span.end), span.confidence) for span in spans]


class Forms:
    """Finds out which forms a text has.  Thread-safe: each pass takes its own scratch."""

    def __init__(self, shelf: Shelf | None = None) -> None:
        gates = (*encodings.GATES, *spelling.GATES, *hiding.GATES)
        self._names = [name for name, _ in gates]
        self._database = database(
            [shape.encode("utf-8") for _, shape in gates],
            [
                hyperscan.HS_FLAG_DOTALL | (0 if index == _WORDLIKE else hyperscan.HS_FLAG_SINGLEMATCH)
                for index in range(len(gates))
            ],
            shelf,
        )
        self._scratches: list[Any] = []

    def hints(self, text: str) -> frozenset[str]:
        """The names of the gates that `text` passes: what it may hide.  Escapes need none."""
        return self._hints(text.encode("utf-8", "surrogatepass"))

    def _hints(self, data: bytes) -> frozenset[str]:
        scratch = self._scratches.pop() if self._scratches else hyperscan.Scratch(self._database)
        seen: list[int] = []
        try:
            self._database.scan(data, match_event_handler=_matched, context=(data, seen), scratch=scratch)
        except hyperscan.error:
            raise RuntimeError("the forms of a text were not determined") from None
        finally:
            self._scratches.append(scratch)
        return frozenset([self._names[index] for index in seen]) if seen else _NONE

    def of(self, text: str, parts: Sequence[str] = (), data: bytes | None = None) -> Sequence[Form] | Iterator[Form]:
        """The forms of `text`, none where it hides nothing.  Raises `TooMany`.

        `parts`: the fields that were joined to `text`, one on each line: no number goes on over their borders.
        `data`: `text` in UTF-8, where the caller has it.
        """
        hints = self._hints(text.encode("utf-8", "surrogatepass") if data is None else data)
        if not hints and not encodings.escaped(text) and (text.isascii() or hiding.shows_all(text)):
            return ()  # no step would find anything
        return self._forms(text, hints, parts)

    def _forms(self, text: str, hints: frozenset[str], parts: Sequence[str]) -> Iterator[Form]:
        turned = OVERRIDE in text
        for form in self._undone(text, hints, _STEPS, parts):
            turned = turned or OVERRIDE in form.text
            yield form
        if turned:  # what an override is put around may stand there as it is, or backwards
            yield from self._undone(text, hints, _TURNING, parts)

    def _undone(
        self, text: str, hints: frozenset[str], order: Sequence[Sequence[Step | None]], parts: Sequence[str]
    ) -> Iterator[Form]:
        """The forms after each group of steps that did something."""
        left = 16 * len(text) + MAX_GROWTH
        form: Form | None = None
        for level in range(MAX_LEVELS + 1):
            begun = form
            for steps in order:
                before = form
                for step in steps:
                    now = text if form is None else form.text
                    found = step(now, hints) if step is not None else _joined_lines(now, hints, form, parts)
                    if found:
                        form = Form(text if form is None else form, found)
                        hints = self.hints(form.text)
                if form is None or form is before:
                    continue
                left -= len(form.text)
                if left < 0 or (level == MAX_LEVELS and steps is not _SPELLED):
                    raise TooMany
                yield form
            if form is begun:
                return


def _matched(index: int, _start: int, end: int, _flags: int, context: tuple[bytes, list[int]]) -> None:
    data, seen = context
    if index != _WORDLIKE or (_WORDLIKE not in seen and not data[end - 8 : end].islower()):
        seen.append(index)


def _joined_lines(text: str, hints: frozenset[str], form: Form | None, parts: Sequence[str]) -> list[Replacement]:
    if "lines" not in hints:
        return []
    borders = {end - 1 for end in accumulate([len(part) + 1 for part in parts])}

    def border(offset: int) -> bool:
        return (offset if form is None else form.origin(offset, offset + 1)[0]) in borders

    return spelling.broken_lines(text, border)


_NONE: frozenset[str] = frozenset()
_SPELLED: tuple[Step | None, ...] = (spelling.words, spelling.singles, spelling.letters, None, spelling.reversed_tokens)
_STEPS: tuple[tuple[Step | None, ...], ...] = (
    (hiding.characters, encodings.escapes),
    (encodings.tokens,),
    (encodings.quoted,),
    _SPELLED,
)
_TURNING: tuple[tuple[Step | None, ...], ...] = ((hiding.turned, hiding.characters), *_STEPS)
