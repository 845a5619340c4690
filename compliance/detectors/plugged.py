"""A detector that somebody else wrote, held to what a scanner needs of one.

What it raises becomes `Misbehaved`, so that the text counts as not scanned; so does a span outside the text, or of a
kind that rules cannot speak of.  The suite `tests/support/detector_contract.py` tries a detector out.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from compliance.detectors.model import Span
from compliance.identifiers import NAMES

_FOREIGN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    EOFError,
    ImportError,
    LookupError,
    OSError,
    TypeError,
)
"""What is no ValueError or RuntimeError, which a scanner takes as they are."""


class Misbehaved(RuntimeError):
    """A detector raised, or gave what is no finding; names the detector, never the text."""


class Finder(Protocol):
    """What is plugged in."""

    def find(self, text: str) -> list[Span]: ...


class Plugged:
    """`finder` under the name by which the configuration calls it."""

    def __init__(self, name: str, finder: Finder, kinds: Collection[str] = NAMES) -> None:
        self.name = name
        self._finder = finder
        self._kinds = frozenset(kinds)

    def find(self, text: str) -> list[Span]:
        """Its spans, in order.  Raises `Misbehaved`."""
        try:
            spans = sorted(self._finder.find(text), key=lambda span: (span.start, span.end))
        except _FOREIGN as error:
            raise Misbehaved(f"detector {self.name!r} raised {type(error).__name__}") from None
        for span in spans:
            if not (isinstance(span, Span) and span.type in self._kinds and 0 <= span.start < span.end <= len(text)):
                raise Misbehaved(f"detector {self.name!r} gave what is no finding")
        return spans
