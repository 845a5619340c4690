"""From a parsed body, or the text of an answer, to findings.  What cannot be scanned is a finding, too.

All strings of a request are joined and scanned once; only on a hit are paths and offsets worked out.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import Any

from compliance.detectors.patterns import Patterns
from compliance.fields import TooDeep, collect, paths
from compliance.model import Finding

SEPARATOR = "\n"
"""Between fields.  No shape reaches over it but a label's gap: a key may label the value that follows it."""

WINDOW = 2048
"""Characters of an answer that are gathered before they are scanned."""
CARRY = 256
"""Characters kept from one window to the next: longer than any identifier but a token."""
MAX_LANES = 64
MAX_FINDINGS = 256
"""Findings recorded of one request; more of them change no verdict."""


class Scanner:
    """Finds identifiers in requests and answers.  Thread-safe."""

    def __init__(self, patterns: Patterns | None = None) -> None:
        self._patterns = patterns or Patterns()

    def inspect(self, body: Any) -> tuple[Finding, ...]:
        """The findings of a parsed request body.  A body that cannot be scanned gives `scan_failed`."""
        try:
            fields = collect(body)
        except (TooDeep, RecursionError):
            return (Finding("scan_failed", "", 0, 0),)
        strings = fields.strings
        try:
            spans = self._patterns.find(SEPARATOR.join(strings))
        except (UnicodeError, ValueError, RuntimeError, MemoryError):
            return (Finding("scan_failed", "", 0, 0),)
        if not spans and not fields.opaque:
            return ()
        where = list(paths(body))
        starts = list(accumulate((len(text) + len(SEPARATOR) for text in strings), initial=0))
        findings = []
        for span in spans[:MAX_FINDINGS]:
            index = bisect_right(starts, span.start) - 1
            offset = starts[index]
            findings.append(Finding(span.type, where[index], span.start - offset, span.end - offset, span.confidence))
        findings += [Finding("opaque", path, 0, 0) for path in where[len(strings) :][:MAX_FINDINGS]]
        return tuple(findings)

    def inspect_text(self, text: str, path: str = "") -> tuple[Finding, ...]:
        """The findings of one text."""
        try:
            return tuple(Finding(s.type, path, s.start, s.end, s.confidence) for s in self._patterns.find(text))
        except (UnicodeError, ValueError, RuntimeError, MemoryError):
            return (Finding("scan_failed", path, 0, 0),)


class AnswerScanner:
    """Scans an answer as it streams, lane by lane, in windows that overlap.  It counts; it holds nothing back.

    Offsets are not kept: a finding's path is its lane.  Memory is bounded by `MAX_LANES` windows.
    """

    __slots__ = ("_counts", "_lanes", "_scanner", "_sizes")

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        self._lanes: dict[str, list[str]] = {}
        self._sizes: dict[str, int] = {}
        self._counts: dict[tuple[str, str], int] = {}

    def feed(self, lane: str, text: str) -> None:
        """More text of one lane (text, tool_arguments, reasoning)."""
        parts = self._lanes.get(lane)
        if parts is None:
            if len(self._lanes) >= MAX_LANES:
                self._counts["scan_failed", lane[:32]] = 1
                return
            parts = self._lanes[lane] = []
            self._sizes[lane] = 0
        parts.append(text)
        size = self._sizes[lane] = self._sizes[lane] + len(text)
        if size >= WINDOW:
            self._scan(lane, last=False)

    def flush(self) -> tuple[Finding, ...]:
        """The findings of the whole answer."""
        for lane in self._lanes:
            self._scan(lane, last=True)
        return tuple(Finding(kind, lane, 0, count) for (kind, lane), count in self._counts.items())

    def _scan(self, lane: str, *, last: bool) -> None:
        """Count what ends before the carry-over; what reaches into it is seen whole in the next window."""
        text = "".join(self._lanes[lane])
        keep = len(text) if last else len(text) - CARRY
        cut = keep
        for finding in self._scanner.inspect_text(text, lane):
            if finding.end <= keep or last:
                self._counts[finding.type, lane] = self._counts.get((finding.type, lane), 0) + 1
            else:
                cut = min(cut, finding.start)
        rest = "" if last else text[max(cut, len(text) - WINDOW) :]
        self._lanes[lane] = [rest]
        self._sizes[lane] = len(rest) if not last else 0
