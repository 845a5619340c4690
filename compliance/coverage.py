"""Which detectors see which field: found out by putting a mark there and looking who saw it.  Pure.

A `Scanner` has two places for detectors: `patterns` see every text, `people` see a text under health context, or
always where a rule asks for them.  A probe that finds nothing but the mark takes each place in turn, so that what is
said of a field is what the scanner does, not what somebody wrote down of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from msgspec import Struct

from compliance.detectors.health import HealthContext
from compliance.detectors.model import Span
from compliance.fields import located
from compliance.model import Finding
from compliance.scan import Scanner

MARK = "mark7of7the7probe"
"""What a probe finds.  No detector of identifiers knows it, and no health context is in it."""
_KIND = "mark"

Sees = Literal["always", "health", "never"]
Find = Callable[[Scanner, bool], tuple[Finding, ...]]
"""How a field gets to a scanner: (scanner, whether there is health context) -> findings."""


class Reach(Struct, frozen=True):
    """Who sees a field.  `opaque`: nobody can read it, which is itself a finding."""

    patterns: Sees
    people: Sees
    opaque: bool
    path: str  # as findings of it would be recorded; empty where there are none

    @property
    def scanned(self) -> bool:
        """Does anything at all look at it?"""
        return self.patterns != "never"


class _Mark:
    """A detector that finds the mark."""

    def find(self, text: str) -> list[Span]:
        at = text.find(MARK)
        return [] if at < 0 else [Span(_KIND, at, at + len(MARK), 1.0)]


class _Nothing:
    """A detector that finds nothing."""

    def find(self, text: str) -> list[Span]:
        return []


class Probes:
    """Scanners with a probe in each place.  `always`: as the scanner that is asked about has it."""

    def __init__(self, *, always: bool) -> None:
        context = HealthContext()
        self._patterns = Scanner(_Mark(), (), context)
        self._people = Scanner(_Nothing(), (_Mark(),), context, always=always)

    def reach(self, find: Find) -> Reach:
        """Who sees the field that `find` puts before a scanner."""
        seen = find(self._patterns, False)
        marks = [finding for finding in seen if finding.type == _KIND]
        opaque = [finding for finding in seen if finding.type == "opaque"]
        return Reach(
            patterns="always" if marks else "health" if _marked(find(self._patterns, True)) else "never",
            people="always"
            if _marked(find(self._people, False))
            else "health"
            if _marked(find(self._people, True))
            else "never",
            opaque=bool(opaque),
            path=(marks or opaque or [Finding("", "", 0, 0)])[0].path,
        )


def _marked(findings: tuple[Finding, ...]) -> bool:
    return any(finding.type == _KIND for finding in findings)


def lane_of(body: Any) -> str:
    """The lane of the field of a request in which the mark stands; `opaque` where nothing can be read."""
    fields = list(located(body))
    lanes = [field.lane for field in fields if MARK in field.text]
    return lanes[0] if lanes else "opaque" if any(field.lane == "opaque" for field in fields) else ""
