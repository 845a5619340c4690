"""Both stages as a worker runs them: what a request waits for them, and what a process holds for them.

Lines of `tests/eval/routing.py`.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from policies.semantic import Cascade, Placed, Route
from policies.signals import Pending
from policies.stages import ASKED
from proxy.placing import TRUST, Placing
from proxy.routing_stages import OF_MARGINS
from proxy.second_stage import SecondStage

ROOT = Path(__file__).resolve().parents[2]
SHARE, DEADLINE = 0.2, 0.025
"""As the configuration has them by default."""

_HELD = """
import json, os, sys
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
import psutil
import numpy, msgspec, proxy.config_routes  # what any worker with routes has loaded
process = psutil.Process()
before = process.memory_full_info()
from pathlib import Path
from proxy.config_decisions import SecondStagePart
from proxy.routing_stages import load_stages
from proxy.state.shelf import FileShelf, user_shelf
parts = [proxy.config_routes.RoutePart(**row) for row in json.load(open(sys.argv[1] + "/routes.json"))]
second = SecondStagePart() if sys.argv[2] == "2" else None
stages = load_stages(parts, second, FileShelf(Path(sys.argv[1]) / "kept", ".routes"), user_shelf(os.environ, ".onnx"))
for part in parts:
    for text in part.utterances:
        placed = stages.first.place(text)
        if stages.both is not None:
            stages.both.again(text, placed)
after = process.memory_full_info()
print(json.dumps({"rss": after.rss - before.rss, "own": after.uss - before.uss, "why": stages.why}))
"""


class Waited(NamedTuple):
    """What requests waited, in milliseconds, the share that the second stage answered in percent, and what was placed."""

    mean: float
    p99: float
    asked: float
    placed: list[Placed]


def live(cascade: Cascade, texts: Sequence[str]) -> Waited:
    """One request after the other through `Placing`, with the share and the deadline that a worker has by default."""
    both = Cascade(cascade.first, cascade.second, SHARE * OF_MARGINS)
    stage = SecondStage(both.unsure, both.again, share=SHARE, deadline=DEADLINE)
    placing = Placing(both.first.place, 1.0, stage)
    placing.prove(list(texts[:1]) * TRUST)
    times: list[float] = []
    found: list[Placed] = []

    async def run() -> None:
        for text in texts:
            began = time.perf_counter_ns()
            try:
                placed = placing(text)
            except Pending as pending:
                placed = await placing.answer(pending)
            times.append((time.perf_counter_ns() - began) / 1e6)
            found.append(placed)

    asyncio.run(run())
    placing.close()
    asked = 100 * float(np.mean([placed.second == ASKED for placed in found]))
    return Waited(float(np.mean(times)), float(np.percentile(times, 99)), asked, found)


def memory(routes: Sequence[Route], stages: int) -> dict[str, Any]:
    """Megabytes that a process of its own holds more for routes that are kept: all, and what it shares with nobody."""
    with tempfile.TemporaryDirectory() as directory:
        rows = [
            {"name": route.name, "description": route.description, "utterances": route.utterances} for route in routes
        ]
        (Path(directory) / "routes.json").write_text(json.dumps(rows))
        command = [sys.executable, "-c", _HELD, directory, str(stages)]
        found: dict[str, Any] = {}
        for _ in range(2):  # the first fits
            made = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
            found = json.loads(made.stdout)
    return {"rss": found["rss"] / 1e6, "own": found["own"] / 1e6, "why": found["why"]}
