"""Charts as data: where the rectangles, lines and words of an SVG stand.  The template draws them; nothing here is markup.  Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct


class Box(Struct, frozen=True):
    """One piece of a stack.  `kind` names its colour, `says` is what a reader gets on pointing at it."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    says: str


class Mark(Struct, frozen=True):
    """A word at a place on an axis."""

    at: float
    text: str


class Columns(Struct, frozen=True):
    """A stacked column for each step of time."""

    width: int
    height: int
    left: int
    bottom: int  # where the axis lies
    boxes: tuple[Box, ...]
    ticks: tuple[Mark, ...]  # amounts, at their height
    steps: tuple[Mark, ...]  # days or hours, at their place


Stack = Sequence[tuple[str, int]]
"""(kind, amount) from the bottom up, or from the left."""


def columns(
    rows: Sequence[tuple[str, Stack, str]], *, width: int, height: int, left: int = 64, labels: int = 10
) -> Columns:
    """Columns for (label, stack, words), in order."""
    top, bottom = 12, height - 26
    most = max((sum(amount for _, amount in stack) for _, stack, _ in rows), default=0)
    step = nice(most / 4) if most else 1
    ceiling = step * max(1, math.ceil(most / step))
    right = 18  # half a word of the last step
    each = (width - left - right) / max(1, len(rows))
    thick = min(each * 0.78, 46.0)
    boxes = []
    for place, (_, stack, says) in enumerate(rows):
        x, foot = left + each * place + (each - thick) / 2, float(bottom)
        for kind, amount in stack:
            tall = (bottom - top) * amount / ceiling
            if tall > 0:
                boxes.append(Box(round(x, 2), round(foot - tall, 2), round(thick, 2), round(tall, 2), kind, says))
            foot -= tall
    every = max(1, math.ceil(len(rows) / labels))
    steps = tuple(
        Mark(round(left + each * (place + 0.5), 2), label)
        for place, (label, _, _) in enumerate(rows)
        if place % every == 0
    )
    ticks = tuple(
        Mark(round(bottom - (bottom - top) * step * n / ceiling, 2), short(step * n))
        for n in range(ceiling // step + 1)
    )
    return Columns(width, height, left, bottom, tuple(boxes), ticks, steps)


def bar(stack: Stack, most: int, *, width: int = 1_000) -> tuple[Box, ...]:
    """One stack lying down, `most` of the amount across the whole width."""
    x, boxes = 0.0, []
    for kind, amount in stack:
        wide = width * amount / most if most else 0.0
        if wide > 0:
            boxes.append(Box(round(x, 2), 0, round(wide, 2), 10, kind, ""))
        x += wide
    return tuple(boxes)


def nice(amount: float) -> int:
    """A round number of pico-dollars not below this: 1, 2, 2.5 or 5 times a power of ten."""
    power = 10 ** max(0, math.floor(math.log10(amount))) if amount >= 1 else 1
    for factor in (1, 2, 2.5, 5, 10):
        if factor * power >= amount:
            return max(1, int(factor * power))
    return 10 * int(power)


def short(amount: int) -> str:
    """Dollars on an axis: $0, $0.002, $25, $1.5K, $20K."""
    value = amount / 1_000_000_000_000
    for limit, unit in ((1_000_000, "M"), (1_000, "K")):
        if value >= limit:
            return f"${value / limit:.3g}{unit}"
    return "$0" if not amount else f"${value:.3g}" if value >= 0.001 else f"${value:.1g}"
