"""The evaluation sets, and the shares with their intervals that the table is made of."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal
from zlib import crc32

from msgspec import Struct

DATA = Path(os.environ.get("SPILLWAY_EVAL_DATA", Path(__file__).parents[3] / "shared" / "data")) / "phi"
BENIGN = ("gsm8k", "humaneval", "mt_bench", "clinc", "pubmedqa", "medquad")
NOT_MEASURED = "not measured"


class Goal(Struct, frozen=True):
    """What a figure has to reach."""

    way: Literal["<=", ">="]
    bound: float
    unit: str = " %"

    def __str__(self) -> str:
        return f"{self.way} {self.bound:g}{self.unit}"

    def judged(self, value: float | None) -> str:
        """`met`, or by how much it is missed."""
        if value is None:
            return NOT_MEASURED
        over = value - self.bound if self.way == "<=" else self.bound - value
        return "met" if over <= 1e-9 else f"missed by {over:.3g}{self.unit}"


class Figure(Struct, frozen=True):
    """One cell of the table: `value` in the unit of the goal (per cent where it is a share), None: not measured."""

    value: float | None
    text: str


class Line(Struct, frozen=True):
    """One row of the table, for one tier."""

    group: str
    name: str
    figure: Figure
    goal: Goal | None = None


def missing(why: str) -> Figure:
    return Figure(None, why)


def share(hits: int, count: int) -> Figure:
    """`hits` of `count` in per cent, with the 95 % interval (Wilson 1927)."""
    if not count:
        return missing("no rows")
    z, p = 1.96, hits / count
    middle = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    low, high = max(0.0, 100 * (middle - half)), min(100.0, 100 * (middle + half))
    return Figure(100 * p, f"{100 * p:.2f} % ({hits}/{count}; {low:.2f}-{high:.2f})")


@cache
def rows(name: str) -> tuple[dict[str, Any], ...]:
    """The rows of one set; none where the file is absent."""
    path = DATA / f"{name}.jsonl"
    if not path.is_file():
        say(f"no {path.name}: its lines are left out")
        return ()
    return tuple(json.loads(line) for line in path.read_text().splitlines())


def benign() -> Iterator[dict[str, Any]]:
    """Texts in which nobody is meant, without those that the learned tier was trained on."""
    return (row for row in rows("negatives") if not trained_on(row))


def trained_on(row: dict[str, Any]) -> bool:
    """Half of two sets is training data (`training/generate.py`, `held_out`): it measures nothing here."""
    return row["set"] in ("medquad", "clinc") and not _held_out(row["text"])


def untrained(name: str) -> Iterator[dict[str, Any]]:
    """The rows of a labelled set that the learned tier has not seen: one in ten, of `TRAINED_WHOLE` none, so all."""
    for row in rows(name):
        text = row["text"]
        if name not in _TRAINED or (_held_out(text) and crc32(text.encode()) % 5 == 0):
            yield row


_TRAINED = frozenset(("wikigold", "btc_h", "wnut17_train"))
TRAINED_WHOLE = frozenset(("meddocan_train",))
"""Only what patterns find of them is a measurement."""


def _held_out(text: str) -> bool:
    return crc32(text[:200].encode()) % 2 == 0


def say(word: str) -> None:
    """Progress: what is being measured is no part of the table."""
    print(word, file=sys.stderr, flush=True)
