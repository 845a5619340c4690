"""The text of an answer, as it streams -> what was found in it.

`AnswerScanner` counts and holds nothing back: for answers that pass whatever is found.  What masks, stops or restores
is `compliance.holdback`.
"""

from __future__ import annotations

from compliance.model import Finding
from compliance.scan import Scanner

WINDOW = 2048
"""Characters of an answer that are gathered before they are scanned."""
PIECES = 32
"""Pieces after which they are joined: a string of a few characters takes ten times its length."""
CARRY = 256
"""Characters kept from one window to the next: longer than any identifier with its label, but for a token."""
MAX_LANES = 64


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
