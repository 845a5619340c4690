"""What a decision would have said of a past request, of which only some facts were recorded.

A signal that was not recorded might have had any value, so a condition over it has several possible results: true, false,
not known, or a fault.  They are carried through all, any and not (Kleene's logic, as when it was asked), so that what does
not hang on a missing fact is told all the same, and nothing else is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from policies.conditions import All, AnyOf, Expr, Holding, Node, Not, compiled, cost, reads
from policies.signals import STRUCTURES, SignalFailed

FAULT = "fault"
Result = bool | str | None  # str: FAULT
Possible = frozenset[Result]
_UNKNOWN: Possible = frozenset({True, False, None})
_MAY_FAIL = frozenset({"route", "probability", "margin", "complexity"})
"""Signals that a classifier gives; the others are read off."""


class Missing(Exception):
    """A signal that was not recorded."""

    def __init__(self, signal: str) -> None:
        super().__init__(signal)
        self.signal = signal


class Recorded:
    """Stands where `policies.signals.Signals` stands for a live request."""

    def __init__(
        self, known: Mapping[str, Any], said: Mapping[str, bool] | None = None, failed: frozenset[str] = frozenset()
    ) -> None:
        """`known` signals, keywords that were looked for (`said`), and signals that could not be had then (`failed`)."""
        self._known = known
        self._said = said or {}
        self._failed = failed

    def read(self, name: str) -> Any:
        """Raises `Missing`, or `SignalFailed` as it did then."""
        if name in self._known:
            return self._known[name]
        if name in self._failed:
            raise SignalFailed(name, "failed")
        if name == "structure":
            return tuple([one for one in STRUCTURES if self.read(f"structure.{one}")])
        raise Missing(name)

    def says(self, name: str, pattern: Any) -> bool:
        if name not in self._said:
            raise Missing("keywords")
        return self._said[name]


class Told(Struct, frozen=True):
    """Which decision matches: its place, None for none, a fault; or the signals without which it cannot be told."""

    decision: int | None
    fault: bool = False
    missing: tuple[str, ...] = ()


def first(nodes: Sequence[Node], recorded: Recorded) -> Told:
    """The first decision that matches, as `policies.declared.first` finds it."""
    for index, node in enumerate(nodes):
        found = possible(node, recorded)
        if found == {True}:
            return Told(index)
        if found == {FAULT}:
            return Told(None, fault=True)
        if found & {True, FAULT}:
            return Told(None, missing=tuple(sorted(missing_of(node, recorded))))
    return Told(None)


def possible(node: Node, recorded: Recorded) -> Possible:
    """Every result that a condition may have had."""
    if isinstance(node, All):
        return _joined(node.parts, recorded, False)
    if isinstance(node, AnyOf):
        return _joined(node.parts, recorded, True)
    if isinstance(node, Not):
        return frozenset([_negated(one) for one in possible(node.part, recorded)])
    if isinstance(node, Holding) and node.signal == "structure" and len(node.values) > 1:
        ordered = [name for name in STRUCTURES if name in node.values]
        return _joined([Holding("structure", frozenset({name})) for name in ordered], recorded, True)
    try:
        return frozenset({_asked(compiled(node), recorded)})
    except Missing:
        return _UNKNOWN | {FAULT} if isinstance(node, Expr) or reads(node) & _MAY_FAIL else _UNKNOWN


def missing_of(node: Node, recorded: Recorded) -> set[str]:
    """The signals of a condition that were not recorded."""
    if isinstance(node, (All, AnyOf)):
        return set().union(*[missing_of(part, recorded) for part in node.parts])
    if isinstance(node, Not):
        return missing_of(node.part, recorded)
    if isinstance(node, Holding) and node.signal == "keywords":
        return {"keywords"} if possible(node, recorded) == _UNKNOWN else set()
    names = reads(node)
    if isinstance(node, Holding) and node.signal == "structure":
        names = frozenset([f"structure.{name}" for name in node.values])
    found = set()
    for name in names:
        try:
            recorded.read(name)
        except Missing as missing:
            found.add(missing.signal)
        except SignalFailed:
            pass
    return found


def _asked(holds: Callable[[Any], bool | None], recorded: Recorded) -> Result:
    try:
        return holds(recorded)
    except SignalFailed:
        return FAULT


def _joined(parts: Iterable[Node], recorded: Recorded, ends: bool) -> Possible:
    """Parts in the order in which they are asked; one that `ends` it (False of all, True of any) spares the rest."""
    states: Possible = frozenset({not ends})
    for part in sorted(parts, key=cost):
        going = states - {ends, FAULT}
        if not going:
            break
        found = possible(part, recorded)
        states = (states & {ends, FAULT}) | frozenset([_step(state, one, ends) for state in going for one in found])
    return states


def _step(state: Result, one: Result, ends: bool) -> Result:
    if one == FAULT or one is ends:
        return one
    return None if state is None or one is None else state


def _negated(one: Result) -> Result:
    return (not one) if isinstance(one, bool) else one
