"""From a parsed body, or the text of an answer, to findings.  What cannot be scanned is a finding, too.

All strings of a request are joined and scanned once; only on a hit are paths and offsets worked out.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import Any

import re2

from compliance.detectors.patterns import Patterns, Span
from compliance.fields import Fields, collect, located
from compliance.model import Finding

SEPARATOR = "\n"
"""Between fields.  No shape reaches over it but a label's gap: a key may label the value that follows it."""

MAX_CHARS = 64 << 20
"""Characters of one request that are scanned, decoded forms included.  More than that is not called clean."""
WINDOW = 2048
"""Characters of an answer that are gathered before they are scanned."""
PIECES = 32
"""Pieces after which they are joined: a string of a few characters takes ten times its length."""
CARRY = 256
"""Characters kept from one window to the next: longer than any identifier with its label, but for a token."""
MAX_LANES = 64
MAX_FINDINGS = 256
"""Findings recorded of one request; more of them change no verdict."""

_BROKEN = (re2.error, UnicodeError, ValueError, RuntimeError, RecursionError, MemoryError)
"""What a detector may raise.  Each of them makes a finding: a text that was not scanned is not clean."""


class Scanner:
    """Finds identifiers in requests and answers.  Thread-safe."""

    def __init__(self, patterns: Patterns | None = None, *, max_chars: int = MAX_CHARS) -> None:
        self._patterns = patterns or Patterns()
        self._max_chars = max_chars

    def inspect(self, body: Any) -> tuple[Finding, ...]:
        """The findings of a parsed request body.  A body that cannot be scanned gives `scan_failed`."""
        try:
            fields = collect(body)
            text = SEPARATOR.join(fields.strings)
            if len(text) > self._max_chars:
                return (_failed(""),)
            spans = self._patterns.find(text)
            return _place(body, fields, spans) if spans or fields.opaque else ()
        except _BROKEN:
            return (_failed(""),)

    def inspect_text(self, text: str, path: str = "") -> tuple[Finding, ...]:
        """The findings of one text."""
        if len(text) > self._max_chars:
            return (_failed(path),)
        try:
            return tuple([Finding(s.type, path, s.start, s.end, s.confidence) for s in self._patterns.find(text)])
        except _BROKEN:
            return (_failed(path),)


def _failed(path: str) -> Finding:
    return Finding("scan_failed", path, 0, 0)


def _place(body: Any, fields: Fields, spans: list[Span]) -> tuple[Finding, ...]:
    """Spans of the joined text as findings in their fields; then the opaque parts."""
    where = list(located(body))
    opaque = [Finding("opaque", field.path, 0, 0) for field in where if field.lane == "opaque"]
    where = [field for field in where if field.lane != "opaque"]
    if len(where) != len(fields.strings):  # the two walks disagree: found all the same, without a place
        return tuple([Finding(span.type, "", 0, 0, span.confidence) for span in spans[:MAX_FINDINGS]] + opaque)
    starts = list(accumulate((len(text) + len(SEPARATOR) for text in fields.strings), initial=0))
    findings = []
    for span in spans[:MAX_FINDINGS]:
        index = bisect_right(starts, span.start) - 1
        field, offset = where[index], starts[index]
        start, end = (span.start - offset, span.end - offset) if field.exact else (0, 0)
        findings.append(Finding(span.type, field.path, start, min(end, len(field.text)), span.confidence))
    return tuple(findings + opaque[:MAX_FINDINGS])


class _Lane:
    """The end of one lane's text: what was not scanned yet, after what was."""

    __slots__ = ("base", "parts", "size")

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.size = 0
        self.base = 0  # where `parts` begin in the whole lane, in characters


class AnswerScanner:
    """Scans an answer as it streams, lane by lane, in windows that overlap.  It counts; it holds nothing back.

    Offsets are not kept: a finding's path is its lane, its end how many there were.  Memory is bounded by
    `MAX_LANES` windows.
    """

    __slots__ = ("_counts", "_ends", "_lanes", "_scanner")

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        self._lanes: dict[str, _Lane] = {}
        self._ends: dict[tuple[str, str], int] = {}
        self._counts: dict[tuple[str, str], int] = {}

    def feed(self, lane: str, text: str) -> None:
        """More text of one lane (text, tool_arguments, reasoning)."""
        state = self._lanes.get(lane)
        if state is None:
            if len(self._lanes) >= MAX_LANES:
                self._counts["scan_failed", "*"] = 1
                return
            state = self._lanes[lane] = _Lane()
        state.parts.append(text)
        state.size += len(text)
        if state.size >= WINDOW:
            self._scan(lane, state, last=False)
        elif len(state.parts) >= PIECES:
            state.parts = ["".join(state.parts)]

    def skip(self, lane: str) -> None:
        """Something of a lane could not be read: it is a finding, since not scanned is not clean."""
        self._counts["opaque", lane] = self._counts.get(("opaque", lane), 0) + 1

    def flush(self) -> tuple[Finding, ...]:
        """The findings of the whole answer."""
        for lane, state in self._lanes.items():
            self._scan(lane, state, last=True)
        return tuple([Finding(kind, lane, 0, count) for (kind, lane), count in self._counts.items()])

    def _scan(self, lane: str, state: _Lane, *, last: bool) -> None:
        """Count what is whole.  What touches the end may go on: it is kept, with its label, for the next window."""
        text = "".join(state.parts)
        final = len(text) if last else len(text) - 2
        cut = len(text) - CARRY
        for finding in self._scanner.inspect_text(text, lane):
            key = finding.type, lane
            if finding.start < 2 and state.base and finding.type != "scan_failed":
                continue  # cut off at its left: the window before has seen it whole
            begin = finding.start - CARRY // 2
            if finding.end > final and len(text) - begin <= WINDOW // 2:
                cut = min(cut, begin)
            elif finding.type == "scan_failed" or state.base + finding.start >= self._ends.get(key, 0):
                self._counts[key] = self._counts.get(key, 0) + 1
                self._ends[key] = state.base + finding.end
        cut = len(text) if last else max(cut, 0)
        state.base += cut
        state.parts = [text[cut:]]
        state.size = len(text) - cut
