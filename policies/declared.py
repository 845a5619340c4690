"""Decisions as an operator declares them: the first that matches says who is asked first, and what else may serve.

A decision orders and narrows candidates; it permits nothing.  What may leave is compliance's word, which stands before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from policies.conditions import All, Holds, Node, compiled, reads
from policies.signals import SignalFailed, Signals

OTHERWISE = ("others", "refuse", "wait")
"""Where none of a decision's own can serve: the model's other candidates; nobody; its own, when they have a place again."""


class Declared(Struct, frozen=True):
    """One decision, ready to be asked."""

    name: str
    use: tuple[str, ...]  # targets, best first
    otherwise: str
    holds: Holds
    reads: frozenset[str]


class Choice(Struct, frozen=True):
    """What the decisions came to.  No `declared`: none matches, or `fault` says why they could not be asked."""

    declared: Declared | None
    fault: str = ""


def declared(name: str, node: Node, use: Sequence[str], otherwise: str = "others") -> Declared:
    return Declared(name, tuple(use), otherwise, compiled(node), reads(node))


def always(name: str, use: Sequence[str]) -> Declared:
    """A decision that matches whatever comes."""
    return declared(name, All(()), use)


def first(decisions: Sequence[Declared], signals: Signals) -> Choice:
    """The first decision that matches.  Where one cannot be asked, because a signal fails, those after it are not asked
    either: they were declared as what holds where it does not.  Raises `Pending` where a signal must be waited for."""
    for decision in decisions:
        try:
            if decision.holds(signals):
                return Choice(decision)
        except SignalFailed as failed:
            return Choice(None, f"{decision.name}: {failed}")
    return Choice(None)


def in_order(rows: Sequence[tuple[int, Any]]) -> list[Any]:
    """Things by their priority, the highest first, then as they stand in the file."""
    return [thing for _, thing in sorted(rows, key=lambda row: -row[0])]


def places(use: Sequence[str]) -> Mapping[str, int]:
    """Where each target stands."""
    return {name: place for place, name in enumerate(use)}
