"""All shapes of structured identifiers, compiled once."""

from __future__ import annotations

from collections.abc import Sequence

from compliance.detectors import (
    secrets,
    shapes_contact,
    shapes_date,
    shapes_government,
    shapes_health,
    shapes_national,
    shapes_payment,
    shapes_place,
)
from compliance.detectors.automaton import MAX_SPANS, MAX_TRIES, Automaton, TooMany, apart
from compliance.detectors.compiled import Shelf
from compliance.detectors.model import Pattern, Span
from compliance.detectors.tables import columns

__all__ = ["MAX_SPANS", "MAX_TRIES", "PATTERNS", "Pattern", "Patterns", "Span", "TooMany"]

PATTERNS: tuple[Pattern, ...] = (
    *shapes_payment.SHAPES,
    *shapes_government.SHAPES,
    *shapes_health.SHAPES,
    *shapes_national.SHAPES,
    *secrets.SHAPES,
    *shapes_contact.SHAPES,
    *shapes_date.SHAPES,
    *shapes_place.SHAPES,
)

_HEADERS = (*shapes_government.HEADERS, *shapes_health.HEADERS)


class Patterns(Automaton):
    """The compiled patterns of this package, and what an operator adds.  Thread-safe."""

    def __init__(
        self, patterns: Sequence[Pattern] = PATTERNS, custom: Sequence[Pattern] = (), shelf: Shelf | None = None
    ) -> None:
        super().__init__((*patterns, *custom, *(_HEADERS if patterns is PATTERNS else ())), shelf, at_once=False)

    def find(self, text: str, *, most: int = MAX_SPANS, data: bytes | None = None) -> list[Span]:
        """Every identifier of `text`, in order, those in the columns of tables with them."""
        spans = super().find(text, most=most, data=data)
        if not spans:
            return spans
        spans, tables = columns(text, spans, most)
        return apart(spans) if tables else spans
