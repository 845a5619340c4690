"""What the figures must reach: a floor below which the gateway is not fit, and a goal."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

Rows = list[dict[str, Any]]
DISTURBED = 0.05  # cores taken by others, above which a row is not to be relied upon
STOLEN = 10.0  # milliseconds of the proxy's core, above which a stall or an age is the machine's: a thousandth of some seconds
ANSWERS_EACH = 2  # a connection; a rate from fewer is the length of the measurement, not the proxy's speed
LEAST_PAIRS = 3  # rounds without which a median says nothing
CLOUD_3MS = "spillway everything, cloud, sync +3 ms"


def usable(row: dict[str, Any]) -> bool:
    """Whether a throughput may stand in a ratio: nobody else took the cores, and enough was answered."""
    if "requests_per_s" not in row or row.get("foreign_cores", 0.0) > DISTURBED:
        return False
    return bool(row["answers"] >= ANSWERS_EACH * int(re.findall(r"\d+", row["case"])[-1]))


@dataclass(frozen=True)
class Bound:
    """One figure.  `at_least`: larger is better; else the figure must stay under `floor`."""

    name: str
    measure: Callable[[Rows], float | None]
    floor: float
    goal: float
    at_least: bool = False

    def judge(self, rows: Rows) -> dict[str, Any]:
        """`{"name", "measured", "floor", "goal", "verdict"}`; measured is None where its cases did not run."""
        value = self.measure(rows)
        return {
            "name": self.name,
            "measured": value,
            "floor": self.floor,
            "goal": self.goal,
            "verdict": self._verdict(value),
        }

    def _verdict(self, value: float | None) -> str:
        if value is None:
            return "not measured"
        if self.at_least:
            return "goal" if value >= self.goal else "floor" if value >= self.floor else "below the floor"
        return "goal" if value < self.goal else "floor" if value < self.floor else "below the floor"


def beside(side: str, peer: str, *cases: str) -> Callable[[Rows], float | None]:
    """The smallest median of the cases; None unless each was measured beside the peer often enough."""

    def measure(rows: Rows) -> float | None:
        pairs = {r["case"]: r["ratios"] for r in rows if r["kind"] == "pair" and (r["side"], r["peer"]) == (side, peer)}
        found = [round(median(pairs[case]), 2) for case in cases if len(pairs.get(case, ())) >= LEAST_PAIRS]
        return min(found) if len(found) == len(cases) else None

    return measure


def worst(
    field: str, kind: str | None = None, side: str = "spillway", case: str = ""
) -> Callable[[Rows], float | None]:
    """The largest value of a field in the rows of a side."""

    def measure(rows: Rows) -> float | None:
        found = [
            row[field]
            for row in rows
            if row.get("foreign_cores", 0.0) <= DISTURBED
            and row.get("stolen_ms", 0.0) <= STOLEN
            and field in row
            and row["side"].startswith(side)
            and kind in (None, row["kind"])
            and case in row["case"]
        ]
        return max(found, default=None)

    return measure


JSON = ("json, 32 connections", "json, 256 connections")
BOUNDS = (
    Bound(
        "bare, of sglang-router, the worse of 32 and 256",
        beside("spillway bare", "sglang-router", *JSON),
        1.0,
        1.3,
        True,
    ),
    Bound("everything, +3 ms, 256, of sglang-router", beside(CLOUD_3MS, "sglang-router", JSON[1]), 0.4, 0.6, True),
    Bound("everything, +3 ms, 256, times the best of LiteLLM", beside(CLOUD_3MS, "litellm", JSON[1]), 60, 100, True),
    Bound("p99.9 stall under wrk, ms", worst("p999_ms", "stall", "spillway everything", "connections"), 10, 10),
    Bound("p99.9 stall under paced streams, ms", worst("p999_ms", "stall", "spillway everything", "paced"), 10, 10),
    Bound("700 paced streams, p99 age, ms", worst("p99_ms", "paced", case="700"), 5, 5),
    Bound("700 paced streams, KB a stream", worst("kb_per_stream", case="700"), 25, 25),
    Bound("start to listening, s", worst("seconds", "start"), 1.5, 1.5),
    Bound("RSS of a worker, MB", worst("rss_mb"), 120, 120),
)


def judge(rows: Rows) -> list[dict[str, Any]]:
    """Every bound over the rows of one run."""
    return [bound.judge(rows) for bound in BOUNDS]


def lines(judged: list[dict[str, Any]]) -> str:
    """Aligned, for people."""
    width = max(len(row["name"]) for row in judged)
    out = []
    for row in judged:
        value = "-" if row["measured"] is None else f"{row['measured']:g}"
        out.append(
            f"{row['name'].ljust(width)}  {value:>8}  floor {row['floor']:g}, goal {row['goal']:g}: {row['verdict']}"
        )
    return "\n".join(out)
