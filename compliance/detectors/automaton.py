"""One automaton over the whole text says where something may stand; only there is it looked for.

Each pattern has a trigger: a short expression that occurs in whatever the pattern matches (its label, or the shape
itself).  Hyperscan (the Vectorscan library) finds all triggers in one pass; at each, the pattern's shape is located
by google-re2 in a window of bounded size.  Neither backtracks, and the work is bounded: by `MAX_SPANS` identifiers
of one pattern, `MAX_TRIES` candidates that a check turned down, and so many triggers a byte.  A text past these
bounds raises `TooMany`.  A failed checksum never clears a labelled identifier; it only keeps an unlabelled run of
digits from being one.

Everything is matched against UTF-8 bytes (`\\w`, `\\d` and `\\b` are ASCII's).  Spans are in code points.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import hyperscan
import re2

from compliance.detectors.compiled import Shelf, database
from compliance.detectors.model import Pattern, Span

MAX_SPANS = 256
"""Identifiers located by one pattern, unless the caller wants all; more of them change no verdict."""
MAX_TRIES = 20_000
"""Candidates whose checksums are tried in one text.  A text with more is not scanned to its end."""
TRIGGERS_A_BYTE = 0.5
"""Triggers followed up, above `MAX_TRIES`, for each byte of a text."""

WIDENED = 1 << 20
"""Bytes of windows that were looked at again because a token was longer, above 16 for each byte of a text."""


class TooMany(ValueError):
    """More candidates than are tried: the text is not scanned, so it must not be called clean."""


def options() -> Any:
    """How every shape is compiled: bytes as they are, so that there is nothing to decode and nothing invalid."""
    chosen = re2.Options()
    chosen.encoding = re2.Options.Encoding.LATIN1
    chosen.log_errors = False
    return chosen


_CONTINUATION = bytes(range(0x80, 0xC0))
_NO_DIGITS = bytes(byte for byte in range(256) if not 48 <= byte <= 57)


class Automaton:
    """The compiled patterns.  Thread-safe: each scan takes its own scratch.

    Shapes are compiled `at_once`, or each when its trigger is first seen: 0.3 ms and 17 KB each, and most are never met.
    """

    def __init__(self, patterns: Sequence[Pattern], shelf: Shelf | None = None, *, at_once: bool = True) -> None:
        self._patterns = tuple(patterns)
        self._located: list[Any] = []
        for index, pattern in enumerate(self._patterns):
            self._located.append(_search_of(pattern) if at_once else _when_met(pattern, self._located, index))
        wanted: dict[str, list[int]] = {}
        for index, pattern in enumerate(self._patterns):
            triggers = pattern.trigger or pattern.shape
            for trigger in (triggers,) if isinstance(triggers, str) else triggers:
                wanted.setdefault(trigger, []).append(index)
        self._wanted = [tuple(indexes) for indexes in wanted.values()]
        self._database = database(
            [trigger.encode("ascii") for trigger in wanted], [hyperscan.HS_FLAG_DOTALL] * len(wanted), shelf
        )
        self._scratches: list[Any] = []

    def find(self, text: str, *, most: int = MAX_SPANS, data: bytes | None = None) -> list[Span]:
        """Every identifier of `text`, in order; of overlapping ones of one type, the surest.  Raises `TooMany`.

        `most` of one pattern at the most.  `data`: `text` in UTF-8, where the caller has it.
        """
        if data is None:
            data = text.encode("utf-8", "surrogatepass")
        search = _Search(self._patterns, self._located, self._wanted, data, most)
        scratch = self._scratches.pop() if self._scratches else hyperscan.Scratch(self._database)
        try:
            self._database.scan(data, match_event_handler=search.seen, scratch=scratch)
        except hyperscan.error:
            raise RuntimeError("the automaton did not scan") from None
        finally:
            self._scratches.append(scratch)
        if not search.spans:
            return search.spans
        spans = apart(search.spans)
        return spans if len(data) == len(text) else _in_code_points(spans, data)


def _search_of(pattern: Pattern) -> Any:
    return re2.compile(pattern.shape.encode("ascii"), options()).search


def _when_met(pattern: Pattern, located: list[Any], index: int) -> Any:
    """Takes its own place with the compiled search."""

    def search(data: bytes, at: int, stop: int) -> Any:
        located[index] = _search_of(pattern)
        return located[index](data, at, stop)

    return search


class _Search:
    """Following the triggers of one text, each as it is seen.  Offsets are in bytes."""

    __slots__ = (
        "_data",
        "_found",
        "_left",
        "_located",
        "_most",
        "_patterns",
        "_reached",
        "_tries",
        "_wanted",
        "_widened",
        "spans",
    )

    def __init__(
        self,
        patterns: Sequence[Pattern],
        located: Sequence[Any],
        wanted: Sequence[tuple[int, ...]],
        data: bytes,
        most: int,
    ) -> None:
        self._patterns = patterns
        self._located = located
        self._wanted = wanted
        self._data = data
        self._most = most
        self._left = MAX_TRIES + int(len(data) * TRIGGERS_A_BYTE)
        self._tries = 0
        self._widened = 0
        self._reached: dict[int, int] = {}  # by pattern: the end of what was found last
        self._found: dict[int, int] = {}
        self.spans: list[Span] = []

    def seen(self, trigger: int, _start: int, end: int, _flags: int, _context: object) -> None:
        """A trigger that ends at `end`."""
        self._left -= 1
        if self._left < 0:
            raise TooMany
        for index in self._wanted[trigger]:
            self.follow(index, end)

    def follow(self, index: int, end: int) -> None:
        """Look for a pattern around a trigger that ends at `end`."""
        reached = self._reached.get(index, 0)
        if end <= reached:
            return  # it stands in what was found already
        pattern = self._patterns[index]
        data = self._data
        stop = end + pattern.ahead
        if pattern.digits and len(data[end - 1 : stop].translate(None, _NO_DIGITS)) < pattern.digits:
            return
        at = max(end - pattern.back, reached, 0)
        while (match := self._located[index](data, at, stop)) is not None:
            start, finish = match.span(1)
            if finish >= stop and finish < len(data):
                stop = self._further(at, stop)
                continue
            if pattern.check is None or pattern.check(data[start:finish].decode("utf-8", "replace")):
                self._add(index, pattern, start, finish)
                if finish >= end or self._found[index] >= self._most:
                    return
                at = finish  # a character that bounds one identifier may bound the next as well
                continue
            self._tries += 1
            if self._tries > MAX_TRIES:
                raise TooMany
            at = _next_group(data, start, finish)

    def _further(self, at: int, stop: int) -> int:
        """A wider window, where the match was cut off by the window and not by the text."""
        self._widened += stop - at
        if self._widened > WIDENED + 16 * len(self._data):
            raise TooMany
        return stop + 2 * (stop - at)

    def _add(self, index: int, pattern: Pattern, start: int, finish: int) -> None:
        found = self._found.get(index, 0) + 1
        self._found[index] = found
        self._reached[index] = finish if found < self._most else len(self._data)
        self.spans.append(Span(pattern.type, start, finish, pattern.confidence))


def _next_group(data: bytes, start: int, end: int) -> int:
    """Where to look on after a candidate that is none: its first group of digits may not have belonged to it."""
    after = start
    while after < end and 48 <= data[after] <= 57:
        after += 1
    return after if after > start else end


def apart(spans: list[Span]) -> list[Span]:
    """In order; of those that overlap and are of one type the surest ones, then the longest."""
    if len(spans) < 2:
        return spans
    spans.sort(key=_place)
    taken: dict[str, int] = {}
    for span in spans:  # the usual case: nothing overlaps
        if span.start < taken.get(span.type, 0):
            break
        taken[span.type] = span.end
    else:
        return spans
    kept: list[Span] = []
    by_type: dict[str, list[tuple[int, int]]] = {}
    for span in sorted(spans, key=lambda span: (-span.confidence, span.start - span.end, span.start)):
        others = by_type.setdefault(span.type, [])
        at = bisect_left(others, (span.start, span.end))
        if (at == 0 or others[at - 1][1] <= span.start) and (at == len(others) or others[at][0] >= span.end):
            others.insert(at, (span.start, span.end))
            kept.append(span)
    kept.sort(key=_place)
    return kept


def _place(span: Span) -> int:
    return span.start


def _in_code_points(spans: list[Span], data: bytes) -> list[Span]:
    """Spans in bytes of UTF-8 as spans in code points."""
    points: dict[int, int] = {}
    last = count = 0
    for offset in sorted({offset for span in spans for offset in (span.start, span.end)}):
        count += len(data[last:offset].translate(None, _CONTINUATION))
        points[offset] = count
        last = offset
    return [Span(s.type, points[s.start], points[s.end], s.confidence) for s in spans]
