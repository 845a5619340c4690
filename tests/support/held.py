"""A holdback driven as a stream drives it: text in by pieces, out as soon as it is decided."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

from compliance.detectors.model import Span
from compliance.detectors.names import Names
from compliance.detectors.openings import Openings
from compliance.detectors.patterns import PATTERNS, Patterns
from compliance.holdback import Guard, Holdback
from compliance.scan import Scanner

SCANNER = Scanner(Patterns(), [Names()])
OPENINGS = Openings(PATTERNS)


def guard(*, health: bool = False, stops: bool = False, allowed: Iterable[str] = ()) -> Guard:
    """Everything but `allowed` is masked."""
    passing = frozenset(allowed)

    def look(text: str) -> list[Span]:
        return SCANNER.spans(text, health=health)

    return Guard(look, OPENINGS.find, passing.__contains__, stops, people=health)


def pieces_of(text: str, cuts: Iterable[int]) -> list[str]:
    points = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[a:b] for a, b in itertools.pairwise(points)]


def held_back(
    pieces: Iterable[str],
    guarded: Guard | None,
    original: Callable[[str], str | None] | None = None,
    *,
    json: bool = False,
) -> tuple[str, Holdback, list[str]]:
    """(what went out, the holdback, what each piece became)."""
    holdback = Holdback(guarded, original)
    waiting: list[tuple[int, str]] = []
    out: list[str] = []

    def release() -> None:
        while waiting and holdback.ready("lane") >= waiting[0][0]:
            end, piece = waiting.pop(0)
            out.append(holdback.edited("lane", end - len(piece), end, piece))

    for piece in pieces:
        waiting.append((holdback.feed("lane", piece, json=json), piece))
        release()
    holdback.flush("lane")
    release()
    return "".join(out), holdback, out
