"""Four worker processes at a nearly spent budget in SQLite: how long their event loops stall, and what stays unused.

    python tests/bench/budget_load.py [--seconds 10] [--json budget-load.json]

Each process paces requests over a chain of four scopes (reserve, a while later settle, durable in another thread) until
the budget is spent and every request is refused.  The first row is the same pace without budgets: what the machine itself
does to an event loop.  Stalls are those of `proxy.stall`; a figure is the upper bound of its bucket.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from outcomes import outcome  # noqa: E402

from policies.scopes import Budget  # noqa: E402
from policies.slices import slice_size  # noqa: E402
from proxy.auth import Principal  # noqa: E402
from proxy.stall import StallMeter  # noqa: E402
from proxy.state.charges import scope_labels  # noqa: E402
from proxy.state.leases import BudgetExceeded, BudgetUnavailable, Leases  # noqa: E402
from proxy.state.sqlite import SQLiteBudgets  # noqa: E402

WORKERS = 4
PACE = 0.002  # seconds between a worker's requests
HELD, COST = 1_000, 400
WHO = Principal("key_1", "app", team="heart", project="triage")
SCOPES = ("org", "team/heart", "project/triage", "each key")
GOAL_MS = 10.0


def limit_of(seconds: float) -> int:
    """Spent after about half of the time."""
    return int(WORKERS * seconds / PACE / 2) * COST


async def work(path: Path, slot: str, seconds: float) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    limit = limit_of(seconds)
    leases = None
    if path.name != "none":
        leases = Leases(SQLiteBudgets(path), slot, [Budget(scope, "month", limit) for scope in SCOPES], loop)
        leases.start()
    counts = {"served": 0, "refused": 0, "unavailable": 0}
    seq = 0

    async def request() -> None:
        nonlocal seq
        if leases is None:
            await asyncio.sleep(0.01)
            counts["served"] += 1
            return
        try:
            hold = await leases.reserve(WHO, "", (HELD, HELD, 1))
        except BudgetExceeded:
            counts["refused"] += 1
            return
        except BudgetUnavailable:
            counts["unavailable"] += 1
            return
        await asyncio.sleep(0.01)
        labels, seq = tuple(scope_labels(hold)), seq + 1
        leases.settle(hold, (COST, COST, 1), outcome=("r", seq))
        counts["served"] += 1
        await asyncio.to_thread(leases.on_durable, [outcome("r", seq, seq=seq, cost=COST, scopes=labels)])

    meter = StallMeter(loop)
    meter.start()
    until = loop.time() + seconds
    tasks: set[asyncio.Task[None]] = set()
    while loop.time() < until:
        task = loop.create_task(request())
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        await asyncio.sleep(PACE)
    await asyncio.gather(*tasks)
    meter.stop()
    free = 0
    if leases is not None:
        free = max([share.free for share in leases.book.slices.values()], default=0)
        await asyncio.to_thread(leases.close)
    return {**counts, **meter.report(), "free": free}


def run(path: Path, seconds: float) -> list[dict[str, Any]]:
    arguments = [sys.executable, __file__, "--seconds", str(seconds), "--path", str(path)]
    workers = [
        subprocess.Popen([*arguments, "--slot", f"slot-{number}"], stdout=subprocess.PIPE, text=True)
        for number in range(WORKERS)
    ]
    return [json.loads(worker.communicate()[0]) for worker in workers]


def row(case: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    sums = {name: sum(one[name] for one in found) for name in ("served", "refused", "unavailable")}
    return {
        "case": case,
        **sums,
        **{name: max(one[name] for one in found) for name in ("p50_ms", "p99_ms", "p999_ms", "free")},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--slot", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.slot is not None:
        import uvloop

        sys.setswitchinterval(0.0005)  # as a worker has it
        print(json.dumps(uvloop.run(work(options.path, options.slot, options.seconds))))
        return 0
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "budgets.db"
        rows = [
            row("no budgets", run(Path(directory) / "none", options.seconds)),
            row("four scopes, spent", run(path, options.seconds)),
        ]
        store = SQLiteBudgets(path)
        limit = limit_of(options.seconds)
        figures = store.current([name for (name,) in store._db.execute("SELECT DISTINCT window FROM shares")])
        store.close()
    left = max(limit - settled - held for settled, held in figures.values())
    for one in rows:
        print("  ".join(f"{name} {value}" for name, value in one.items()))
    allowed = WORKERS * max(HELD, slice_size(limit))
    print(f"limit {limit:,}; settled at the end {limit - left:,}; unused {left:,} (one slice a worker: {allowed:,})")
    if options.json is not None:
        options.json.write_text(
            json.dumps({"goal_p999_ms": GOAL_MS, "unused": left, "allowed": allowed, "rows": rows}, indent=1) + "\n"
        )
    return 0 if left <= allowed and rows[1]["p999_ms"] <= max(GOAL_MS, rows[0]["p999_ms"]) else 1


if __name__ == "__main__":
    raise SystemExit(main())
