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
from typing import Any

import numpy as np

from policies.semantic import Cascade, Route
from policies.signals import Pending
from policies.stages import ASKED
from proxy.placing import TRUST, Placing
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


def live(both: Cascade, texts: Sequence[str]) -> dict[str, float]:
    """One request after the other through `Placing`, as a worker does it: milliseconds, and the share that was answered
    by the second stage."""
    stage = SecondStage(both.unsure, both.again, share=SHARE, deadline=DEADLINE)
    placing = Placing(both.first.place, 1.0, stage)
    placing.prove(list(texts[:1]) * TRUST)
    times: list[float] = []
    asked = 0

    async def run() -> None:
        nonlocal asked
        for text in texts:
            began = time.perf_counter_ns()
            try:
                placed = placing(text)
            except Pending as pending:
                placed = await placing.answer(pending)
            times.append((time.perf_counter_ns() - began) / 1e6)
            asked += placed.second == ASKED

    asyncio.run(run())
    placing.close()
    return {"mean": float(np.mean(times)), "p99": float(np.percentile(times, 99)), "asked": 100 * asked / len(texts)}


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
