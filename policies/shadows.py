"""Decisions that can never decide: contradictory ones, and those whose every request an earlier one takes.  Pure.

A condition becomes a union of boxes, in each of which every signal is bounded on its own.  What earlier decisions take
is cut out of a decision's boxes; where nothing is left, it is never reached.  An expression in CEL is a thing that may
hold or not.  Where there are too many boxes nothing is said: what is reported is certain, what is not is not proved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from policies.conditions import (
    FLAGS,
    PERCENTILE,
    SHARES,
    UNKNOWABLE,
    All,
    AnyOf,
    Between,
    Expr,
    Holding,
    Named,
    Node,
    Not,
)

MOST_BOXES = 128
MOST_CUTS = 100_000
"""Of all decisions together: some two seconds."""
ENTRY = "the model asked for"
"""Stands for which models a decision is for, as a signal of its own."""
_FIRST, _LAST = (float("-inf"), 0), (float("inf"), 1)

Position = tuple[float, int]


class Names(Struct, frozen=True):
    """One of these; or, turned round, anything but these.  `unknown`: also where the signal has no value."""

    values: frozenset[str | bool]
    turned: bool = False
    unknown: bool = False


class Span(Struct, frozen=True):
    """A number between two positions."""

    low: Position = _FIRST
    high: Position = _LAST
    unknown: bool = False


Bound = Names | Span
Box = Mapping[str, Bound]
"""By signal; what is not there is not bounded."""


class TooMany(Exception):
    """More boxes than are looked at."""


class World(dict[str, frozenset[str | bool]]):
    """Every value that a signal can have, where that is known; and how often boxes may still be cut."""

    cuts = MOST_CUTS


class Unreached(Struct, frozen=True):
    """A decision that never decides; without `because` it contradicts itself."""

    decision: int
    because: tuple[int, ...]  # earlier decisions that take its requests


class Row(Struct, frozen=True):
    """One decision: its condition, and the models that it is for."""

    node: Node
    models: frozenset[str]


def unreached(rows: Sequence[Row], universes: Mapping[str, frozenset[str]] | None = None) -> list[Unreached]:
    """Which of these decisions, in the order in which they are asked, never decide.

    `universes` holds, of a signal, every value that it can have.
    """
    known = World({flag: frozenset({True, False}) for flag in FLAGS})
    for signal, values in (universes or {}).items():
        known[signal] = frozenset(values)
    found = []
    boxes: list[list[Box] | None] = []
    for number, row in enumerate(rows):
        try:
            mine: list[Box] | None = _boxes(row, known)
        except TooMany:
            mine = None
        boxes.append(mine)
        if mine is None:
            continue
        if not mine:
            found.append(Unreached(number, ()))
            continue
        because = _takers(mine, boxes[:number], known)
        if because:
            found.append(Unreached(number, _needed(mine, boxes, because, known)))
    return found


def _needed(
    mine: list[Box],
    boxes: Sequence[list[Box] | None],
    because: tuple[int, ...],
    known: World,
) -> tuple[int, ...]:
    """Of the decisions that take these boxes those without which they would not."""
    for number in because:
        fewer = [boxes[other] if other != number else None for other in because]
        if len(because) > 1 and _takers(mine, fewer, known):
            because = tuple([other for other in because if other != number])
    return because


def _takers(mine: list[Box], earlier: Sequence[list[Box] | None], known: World) -> tuple[int, ...]:
    """The earlier decisions that together take all of these boxes; none where something is left, or it is not known."""
    left = mine
    because = []
    for number, theirs in enumerate(earlier):
        if not theirs:
            continue
        try:
            rest = _without(left, theirs, known)
        except TooMany:
            continue
        if rest != left:
            because.append(number)
        left = rest
        if not left:
            return tuple(because)
    return ()


def _boxes(row: Row, known: World) -> list[Box]:
    start: Box = {ENTRY: Names(frozenset(row.models))}
    return [box for other in _union(row.node, False, known) if (box := _meet(start, other, known)) is not None]


def _union(node: Node, turned: bool, known: World) -> list[Box]:
    """The boxes in which a condition is true; turned, in which it is false."""
    if isinstance(node, Not):
        return _union(node.part, not turned, known)
    if isinstance(node, (All, AnyOf)):
        parts = [_union(part, turned, known) for part in node.parts]
        if isinstance(node, All) == turned:  # a union
            return _bounded([box for part in parts for box in part])
        boxes: list[Box] = [{}]
        for part in parts:
            boxes = _bounded([box for one in boxes for two in part if (box := _meet(one, two, known)) is not None])
        return boxes
    if isinstance(node, Named):
        return _whole({node.signal: Names(node.values, turned)}, known)
    if isinstance(node, Expr):
        return [{f"expr {node.source}": Names(frozenset({True}), turned)}]
    if isinstance(node, Between):
        first, last = _ends(node.signal)
        low, high = max(first, node.low or first), min(last, node.high or last)
        spans = [Span(first, low), Span(high, last)] if turned else [Span(low, high)]
        return [{node.signal: span} for span in spans if span.low < span.high]
    return _held(node, turned)


def _ends(signal: str) -> tuple[Position, Position]:
    """The positions between which a number can lie."""
    if signal in SHARES:
        return (0, 0), (1, 1)
    return (0, 0), (100, 1) if signal == PERCENTILE else _LAST


def _held(node: Holding, turned: bool) -> list[Box]:
    names = [f"{node.signal} {value}" for value in sorted(node.values)]
    if turned:
        return [{name: Names(frozenset({False})) for name in names}]
    return [{name: Names(frozenset({True}))} for name in names]


def _whole(box: Box, known: World) -> list[Box]:
    return [] if any([_empty(signal, bound, known) for signal, bound in box.items()]) else [box]


def _bounded(boxes: list[Box]) -> list[Box]:
    if len(boxes) > MOST_BOXES:
        raise TooMany
    return boxes


def _meet(one: Box, two: Box, known: World) -> Box | None:
    """What lies in both; None: nothing."""
    joined = dict(one)
    for signal, bound in two.items():
        mine = joined.get(signal)
        both = bound if mine is None else _both(mine, bound)
        if _empty(signal, both, known):
            return None
        joined[signal] = both
    return joined


def _both(one: Bound, two: Bound) -> Bound:
    unknown = one.unknown and two.unknown
    if isinstance(one, Span) and isinstance(two, Span):
        return Span(max(one.low, two.low), min(one.high, two.high), unknown)
    assert isinstance(one, Names) and isinstance(two, Names)
    if one.turned and two.turned:
        return Names(one.values | two.values, True, unknown)
    if one.turned:
        return Names(two.values - one.values, False, unknown)
    if two.turned:
        return Names(one.values - two.values, False, unknown)
    return Names(one.values & two.values, False, unknown)


def _empty(signal: str, bound: Bound, known: World) -> bool:
    if bound.unknown:
        return False
    if isinstance(bound, Span):
        return bound.low >= bound.high
    universe = known.get(signal)
    if universe is None and (signal.startswith(("expr ", "structure ", "found ", "keywords "))):
        universe = frozenset({True, False})
    if bound.turned:
        return universe is not None and universe <= bound.values
    return not bound.values


def _outside(signal: str, bound: Bound) -> list[Bound]:
    """Everything but this, as bounds that do not overlap."""
    may = signal in UNKNOWABLE and not bound.unknown
    if isinstance(bound, Names):
        return [Names(bound.values, not bound.turned, may)]
    first, last = _ends(signal)
    spans = [span for span in (Span(first, bound.low), Span(bound.high, last)) if span.low < span.high]
    if may:
        return [*spans, Span(_LAST, _LAST, True)]
    return list(spans)


def _without(boxes: list[Box], others: Sequence[Box], known: World) -> list[Box]:
    """What of these boxes lies in none of the others."""
    for other in others:
        left: list[Box] = []
        for box in boxes:
            left += _minus(box, other, known)
        boxes = _bounded(left)
    return boxes


def _minus(box: Box, other: Box, known: World) -> list[Box]:
    known.cuts -= 1
    if known.cuts < 0:
        raise TooMany
    if _meet(box, other, known) is None:
        return [box]
    left: list[Box] = []
    inside = box
    for signal, bound in other.items():
        for outer in _outside(signal, bound):
            outside = _meet(inside, {signal: outer}, known)
            if outside is not None:
                left.append(outside)
        within = _meet(inside, {signal: bound}, known)
        assert within is not None  # as the boxes meet
        inside = within
    return left
