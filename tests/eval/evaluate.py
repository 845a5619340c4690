"""Compliance measured against its goals: one table, the fast tier beside the full one.

    make eval-compliance ARGS="--tier fast --only leaks,over-action --show asq --presidio"

Reads `phi/` under `SPILLWAY_EVAL_DATA` (default `../shared/data`) and writes `eval-compliance.json`.  Shares stand
with their 95 % interval (Wilson).  Goals are those of the full tier; what is judged is the full tier where it was
measured, else the fast one.  Texts that the learned tier was trained on are left out.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: timings are of one thread

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import cuts
import leaks
import presidio
import quality
import timing
from sets import DATA, NOT_MEASURED, Figure, Line, say
from subject import Subject, subjects

TIERS = ("fast", "full")
PARTS = ("leaks", "over-action", "coverage", "labelled", "prompts", "cuts", "speed")
_EMPTY = Figure(None, NOT_MEASURED)


def measure(subject: Subject, part: str, show: Callable[[str], None]) -> Iterator[Line]:
    """The lines of one part for one tier."""
    if part == "leaks":
        for action in leaks.RULES:
            yield from asyncio.run(leaks.leak_rate(subject.tier, action, show))
    elif part == "over-action":
        yield from quality.over_action(subject, show)
    elif part == "coverage":
        yield from quality.coverage(subject, show)
    elif part == "labelled":
        yield from quality.labelled(subject, show)
    elif part == "prompts":
        yield from quality.prompts(subject, show)
    elif part == "cuts":
        yield from cuts.cut_points(subject, show)
    else:
        yield from timing.speed(subject)


class Table:
    """Lines of both tiers, side by side, in the order in which they came."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, str], dict[str, Line]] = {}

    def add(self, tier: str, line: Line) -> None:
        self._lines.setdefault((line.group, line.name), {})[tier] = line

    def rows(self) -> Iterator[tuple[str, str, Figure, Figure, str, str]]:
        """(group, name, fast, full, goal, judgement)."""
        groups = list(dict.fromkeys(group for group, _ in self._lines))
        for (group, name), of in sorted(self._lines.items(), key=lambda line: groups.index(line[0][0])):
            fast, full = (of[tier].figure if tier in of else _EMPTY for tier in TIERS)
            goal = judged = ""
            measured = next((of[tier] for tier in ("full", "fast") if tier in of), None)
            if measured is not None and measured.goal is not None:
                goal, judged = str(measured.goal), measured.goal.judged(measured.figure.value)
                if "full" not in of:
                    judged += " (fast)"
            yield group, name, fast, full, goal, judged

    def print(self) -> None:
        rows = [
            (name, fast.text, full.text, goal, judged, group) for group, name, fast, full, goal, judged in self.rows()
        ]
        heads = ("", "fast", "full", "goal", "")
        widths = [max([len(row[at]) for row in rows] + [len(heads[at])]) for at in range(4)]
        print("  ".join(f"{head:{width}}" for head, width in zip(heads, widths, strict=False)).rstrip())
        last = ""
        for *cells, judged, group in rows:
            if group != last:
                print(f"\n{group}")
                last = group
            print("  ".join([*(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True)), judged]).rstrip())

    def json(self) -> str:
        return json.dumps(
            [
                {
                    "group": group, "name": name, "goal": goal, "judged": judged,
                    "fast": {"value": fast.value, "text": fast.text}, "full": {"value": full.value, "text": full.text},
                }
                for group, name, fast, full, goal, judged in self.rows()
            ],
            indent=1,
        )  # fmt: skip


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tier", choices=TIERS, help="only this one (default: both)")
    parser.add_argument("--only", default="", help=f"parts, comma-separated, of {', '.join(PARTS)}")
    parser.add_argument("--json", type=Path, default=Path("eval-compliance.json"))
    parser.add_argument("--model", type=Path, help="another file of the learned tier (not for the real proxy)")
    parser.add_argument("--presidio", action="store_true", help="Microsoft Presidio beside it: takes minutes")
    parser.add_argument("--show", help="print what was missed or wrong whose line begins so, on stderr; '' is all")
    return parser.parse_args()


def main() -> None:
    options = _arguments()
    if not DATA.is_dir():
        sys.exit(f"no data at {DATA}: set SPILLWAY_EVAL_DATA")
    parts = options.only.split(",") if options.only else list(PARTS)
    if unknown := set(parts) - set(PARTS):
        sys.exit(f"no such part: {', '.join(sorted(unknown))}")
    table = Table()

    def show(line: str) -> None:
        if options.show is not None and line.startswith(options.show):
            say(line)

    tiers = (options.tier,) if options.tier else TIERS
    chosen = subjects(tiers, options.model)
    for part in parts:
        for tier, subject in chosen.items():
            if isinstance(subject, str):
                say(f"{part}, {tier}: {subject}")
                continue
            say(f"{part}, {tier}")
            for line in measure(subject, part, show):
                table.add(tier, line)
    if options.presidio:
        for line in presidio.lines():
            table.add("fast" if options.tier == "fast" else "full", line)
    table.print()
    options.json.write_text(table.json() + "\n")


if __name__ == "__main__":
    main()
