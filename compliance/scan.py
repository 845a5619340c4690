"""From a parsed body, or the text of an answer, to findings.  What cannot be scanned is a finding, too.

All strings of a request are joined and scanned once; only on a hit are paths and offsets worked out.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Protocol

import re2

from compliance.detectors.automaton import MAX_SPANS, Automaton, apart
from compliance.detectors.company import together, united
from compliance.detectors.forms import Form, Forms
from compliance.detectors.health import HealthContext
from compliance.detectors.model import Span
from compliance.detectors.patterns import Patterns
from compliance.fields import Fields, collect, located
from compliance.model import Finding, Inspection
from compliance.splits import across, may_go_on

SEPARATOR = "\n"
"""Between fields.  No shape reaches over it but a label's gap: a key may label the value that follows it."""

MAX_CHARS = 64 << 20
"""Characters of one request that are scanned, decoded forms included.  More than that is not called clean."""
MAX_FINDINGS = 256
"""Findings recorded of one request; more of them change no verdict."""

PEOPLE = frozenset(("name", "place", "address"))
"""Kinds that detectors tell from what surrounds them, which a form may have changed without hiding anything."""

_BROKEN = (re2.error, UnicodeError, ValueError, RuntimeError, RecursionError, MemoryError)
"""What a detector may raise.  Each of them makes a finding: a text that was not scanned is not clean."""


class NotScanned(Exception):
    """A text was not scanned to its end: it must not be called clean."""


class Detector(Protocol):
    """Finds identifiers in a text.  Thread-safe and deterministic; what it raises is a finding of its own."""

    def find(self, text: str) -> list[Span]:
        """Spans in code points of `text`, in order."""
        ...


NOTHING = Inspection()
IN_HEALTH = Inspection(health=True)


QUICK = 4096
"""Characters in which the fast tier looks for names in less than a millisecond."""
QUICK_LEARNED = 512
"""The same with the learned tier."""


class Scanner:
    """Finds identifiers in requests and answers.  Thread-safe.

    `patterns` look at every text.  `people` find names and places (the fast tier, the learned one, plugged-in ones);
    these identify somebody only beside health context, so they look at nothing else, unless `always` is set because
    a rule asks for them everywhere.  `quick`: characters in which they find them in about a millisecond.
    """

    def __init__(
        self,
        patterns: Detector | None = None,
        people: Sequence[Detector] = (),
        context: HealthContext | None = None,
        forms: Forms | None = None,
        *,
        max_chars: int = MAX_CHARS,
        quick: int = QUICK,
        always: bool = False,
    ) -> None:
        self._patterns = patterns or Patterns()
        self._people = tuple(people)
        self._max_chars = max_chars
        self._quick = quick
        self._always = always
        self._health = context or HealthContext()
        self._forms = forms or Forms()

    def inspect(self, body: Any, *, health: bool = False) -> Inspection:
        """The findings of a parsed request body.  A body that cannot be scanned gives `scan_failed`.

        `health`: there is health context whatever the text says, because the tenant is tagged with it.
        """
        seen = self._inspect(body, health, self._max_chars)
        assert seen is not None
        return seen

    def glance(self, body: Any, *, health: bool = False) -> Inspection | None:
        """`inspect`, where it takes about a millisecond; None where names are to be looked for in more than `quick`."""
        return self._inspect(body, health, self._quick)

    def _inspect(self, body: Any, health: bool, quick: int) -> Inspection | None:
        try:
            fields = collect(body)
            strings = fields.strings
            text = SEPARATOR.join(strings)
            if len(text) > self._max_chars:
                return FAILED
            data = text.encode("utf-8", "surrogatepass")
            forms = list(self._forms.of(text, strings, data))
            tagged = health
            if not health:
                seen = self._health.health_context(text, data)
                # Each form is looked at, so that one that cannot be is a failure, whatever was seen before.
                health = any([self._health.health_context(form.text) for form in forms]) or seen
            if len(text) > quick and self._people and (health or self._always):
                return None
            spans = self._identifying(text, forms, health, tagged, data)
            if may_go_on(strings):
                where = [field for field in located(body) if field.lane != "opaque"]
                spans += across(where, body, lambda text: self._whole(text, health), spans)
            if not spans and not fields.opaque:
                return IN_HEALTH if health else NOTHING
            return Inspection(_place(body, fields, spans), health)
        except _BROKEN:
            return FAILED

    def inspect_text(self, text: str, path: str = "", *, health: bool = False) -> tuple[Finding, ...]:
        """The findings of one text."""
        if len(text) > self._max_chars:
            return (_failed(path),)
        try:
            data = text.encode("utf-8", "surrogatepass")
            spans = self._identifying(text, list(self._forms.of(text, (), data)), health, health, data)
            if not spans:
                return ()
            return tuple([Finding(s.type, path, s.start, s.end, s.confidence) for s in spans])
        except _BROKEN:
            return (_failed(path),)

    def spans(self, text: str, parts: Sequence[str] = (), *, health: bool = False) -> list[Span]:
        """Every identifier of a text, in code points: for whoever replaces them.  Raises `NotScanned`.

        `parts`: what was joined to `text` with `SEPARATOR`, if it was.
        """
        if len(text) > self._max_chars:
            raise NotScanned
        try:
            spans = self._look(text, health, most=len(text) + 1)
            forms = list(self._forms.of(text, parts))
            for form in forms:
                spans += self._hidden(form, health, most=len(text) + 1)[1]
            return apart(spans) if forms else spans
        except _BROKEN:
            raise NotScanned from None

    def forms(self, text: str, parts: Sequence[str] = ()) -> list[Form]:
        """What a text hides, undone: for whoever looks for known values in it.  Raises `NotScanned`."""
        if len(text) > self._max_chars:
            raise NotScanned
        try:
            return list(self._forms.of(text, parts))
        except _BROKEN:
            raise NotScanned from None

    def _whole(self, text: str, health: bool) -> list[Span]:
        """What stands in a short text or in a form of it."""
        spans = self._look(text, health)
        for form in self._forms.of(text):
            spans += self._hidden(form, health)[1]
        return spans

    def _identifying(self, text: str, forms: Sequence[Form], health: bool, tagged: bool, data: bytes) -> list[Span]:
        """What stands in `text` (`data`: in UTF-8) or in a form of it, as spans of `text`; nothing where all of it
        needs company.
        """
        spans = self._look(text, health, data=data)
        identifies = bool(spans) and bool(together(text, spans, tagged=tagged))
        for form in forms:
            there, here = self._hidden(form, health)
            identifies = identifies or (bool(there) and bool(together(form.text, there, tagged=tagged)))
            spans += here
        if not identifies:
            return []
        return apart(spans) if forms else spans

    def _look(self, text: str, health: bool, most: int = MAX_SPANS, data: bytes | None = None) -> list[Span]:
        """What all detectors find in one text."""
        patterns = self._patterns
        spans = patterns.find(text, most=most, data=data) if isinstance(patterns, Automaton) else patterns.find(text)
        if self._people and (health or self._always):
            before = len(spans)
            for detector in self._people:
                spans += detector.find(text)
            if len(spans) > before:
                spans = apart(united(spans))
        return spans

    def _hidden(self, form: Form, health: bool, most: int = MAX_SPANS) -> tuple[list[Span], list[Span]]:
        """(spans of a form, the same as spans of the text), without the people of what stands in both alike."""
        spans = [
            span
            for span in self._look(form.text, health, most)
            if span.type not in PEOPLE or form.changed(span.start, span.end)
        ]
        return spans, form.back(spans)


def _failed(path: str) -> Finding:
    return Finding("scan_failed", path, 0, 0)


FAILED = Inspection((_failed(""),), health=True)
"""What was not scanned, or not to its end."""


def _bounded(spans: list[Span]) -> list[Span]:
    """At most `MAX_FINDINGS`, and one of each kind beside: a kind that is not recorded would not be judged."""
    if len(spans) <= MAX_FINDINGS:
        return spans
    first = {span.type: span for span in reversed(spans)}
    later = [span for span in spans[MAX_FINDINGS:] if first.get(span.type) is span]
    return spans[:MAX_FINDINGS] + later


def _place(body: Any, fields: Fields, spans: list[Span]) -> tuple[Finding, ...]:
    """Spans of the joined text as findings in their fields; then the opaque parts."""
    where = list(located(body))
    opaque = [Finding("opaque", field.path, 0, 0) for field in where if field.lane == "opaque"]
    where = [field for field in where if field.lane != "opaque"]
    if len(where) != len(fields.strings):  # the two walks disagree: found all the same, without a place
        return tuple([Finding(span.type, "", 0, 0, span.confidence) for span in _bounded(spans)] + opaque)
    starts = list(accumulate((len(text) + len(SEPARATOR) for text in fields.strings), initial=0))
    findings: list[Finding] = []
    for span in _bounded(spans):
        index = bisect_right(starts, span.start) - 1
        of_values: list[Finding] = []
        of_keys: list[Finding] = []
        while index < len(where) and starts[index] < span.end:
            field, offset = where[index], starts[index]
            start, end = max(span.start - offset, 0), min(span.end - offset, len(field.text))
            whole = span.end <= offset + len(SEPARATOR) + len(field.text) and span.start >= offset
            if start < end:
                start, end = (start, end) if field.exact else (0, 0)
                piece = Finding(span.type, field.path, start, end, span.confidence)
                (of_values if whole or not field.key else of_keys).append(piece)
            index += 1
        # Between the halves of a value, a key is no part of it, but a value that stands in keys alone is found there.
        findings += of_values or of_keys
    return tuple(findings + opaque[:MAX_FINDINGS])
