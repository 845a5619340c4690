"""What the audit log costs: `python tests/bench/audit_load.py [--quick]`.

Spillway with its log beside the same without (`without_log/`, which replaces methods: so both run from the sources),
alternating in one run, on the cores and with the engine of `make bench`:

    throughput  at 256 connections, local and cloud: with the log over without it; at least 0.75
    CPU         of the worker for each request, with and without: what the log's two records cost; at most 45 us
    added p50   of a cloud attempt, which waits for its record: at a fixed rate, far below saturation, since at saturation
                everybody waits for everybody; in syncs, on this disk and with 3 and 10 ms added to each; under two

A sync is measured on the same disk: an append of one record's size and fdatasync, the median.  Prints a table and
writes audit-load.json.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from backends import engine
from floors import DISTURBED
from loads import PROMPTS, check, wrk
from peers import KEY, SPILLWAY_PORT, spillway
from processes import LOAD_CORE, ROOT, Foreign, LeftOut, Proxy, claim, stay_off_the_measured_cores

HERE = Path(__file__).parent
CONNECTIONS = 256
RATE = 100.0  # requests a second of the latency measurement: one in ten that a worker can do
CALLERS = 32
ENOUGH_THROUGHPUT, MOST_SYNCS, MOST_CPU_US = 0.75, 2.0, 45.0
BUDGET: dict[str, Any] = {"budgets": [{"scope": "org", "window": "month", "limit": "$1000000"}]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="of with and without, alternating")
    parser.add_argument("--rate", type=float, default=RATE, help="requests a second where latency is measured")
    parser.add_argument("--quick", action="store_true", help="one round of one second: to see that it runs")
    parser.add_argument("--caller", type=float, help=argparse.SUPPRESS)  # this file as a load: seconds
    options = parser.parse_args()
    if options.caller is not None:
        print(json.dumps(asyncio.run(call(options.caller, options.rate))))
        return 0
    if options.quick:
        options.seconds, options.rounds = 1, 1
    stay_off_the_measured_cores()
    with tempfile.TemporaryDirectory(dir=ROOT) as directory:  # on a disk: /tmp may be memory
        try:
            claim(SPILLWAY_PORT)
            with engine(Path(directory)):
                rows = measure(Path(directory), options.seconds, options.rounds, options.rate)
        except LeftOut as why:
            raise SystemExit(f"nothing can be measured: {why}") from None
    print(table(rows))
    (ROOT / "audit-load.json").write_text(json.dumps({"rows": rows}, indent=1) + "\n")
    if disturbed := sum(row["foreign_cores"] > DISTURBED for row in rows):
        print(f"{disturbed} rows were measured beside other work (foreign_cores): do not rely on them", file=sys.stderr)
    return 1 if any(row["errors"] for row in rows) else 0


def measure(directory: Path, seconds: float, rounds: int, rate: float) -> list[dict[str, Any]]:
    """The rows of the table: each with its figure, its bound, and what stands behind it."""
    rows = []
    for model, name in (("m", "local"), ("cloud", "cloud")):
        rows += throughput(directory, model, name, seconds, rounds)
    plain = fsync_ms(directory)
    for delay in (0, 3, 10):
        rows.append(waiting(directory, delay, plain, seconds * 2, rounds, rate))
    return rows


# --- throughput and CPU -------------------------------------------------------------------------------------


def throughput(directory: Path, model: str, name: str, seconds: float, rounds: int) -> list[dict[str, Any]]:
    """With and without, alternating; what counts is the median of the rounds' ratios."""
    found: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    foreign = 0.0
    for number in range(rounds):
        for logged in (True, False) if number % 2 == 0 else (False, True):
            with started(directory, logged) as proxy:
                check(proxy.port, "json", model, "clean")
                wrk(proxy.port, "json", model, "clean", CONNECTIONS, min(1.0, seconds))
                with Foreign() as others:
                    before = cpu(proxy)
                    row = wrk(proxy.port, "json", model, "clean", CONNECTIONS, seconds)
                    row["cpu_us"] = (cpu(proxy) - before) * 1e6 / max(1, row["answers"])
                foreign = max(foreign, others.share)
                found[logged].append(row)
                print(f"{name:6} log {'on ' if logged else 'off'} {row['requests_per_s']:>9,.0f}/s", file=sys.stderr)
    pairs = list(zip(found[True], found[False], strict=True))
    errors = sum(row.get("errors", 0) for rows in found.values() for row in rows)
    ratio = statistics.median(on["requests_per_s"] / off["requests_per_s"] for on, off in pairs)
    more = statistics.median(on["cpu_us"] - off["cpu_us"] for on, off in pairs)
    on, off = (statistics.median(row["requests_per_s"] for row in found[logged]) for logged in (True, False))
    behind = {"errors": errors, "foreign_cores": foreign}
    return [
        {
            "case": f"throughput with the log over without, {name}, {CONNECTIONS} connections",
            "figure": round(ratio, 3), "bound": f">= {ENOUGH_THROUGHPUT}", "holds": ratio >= ENOUGH_THROUGHPUT,
            "on_per_s": round(on), "off_per_s": round(off), **behind,
        },
        {
            "case": f"CPU us of a request's two records, {name}",
            "figure": round(more, 1), "bound": f"<= {MOST_CPU_US:.0f}", "holds": more <= MOST_CPU_US, **behind,
        },
    ]  # fmt: skip


@contextlib.contextmanager
def started(directory: Path, logged: bool, sync_ms: int = 0) -> Iterator[Proxy]:
    environ = {} if logged else {"PYTHONPATH": f"{HERE / 'without_log'}{os.pathsep}{ROOT}"}
    with spillway(directory, BUDGET, sync_ms=sync_ms, environ=environ, interpreted=True) as proxy:
        yield proxy


def cpu(proxy: Proxy) -> float:
    """Seconds that the worker has worked, in all of its threads."""
    return sum(proxy.worker().cpu_times()[:2])


# --- what waiting costs -------------------------------------------------------------------------------------


def waiting(directory: Path, delay: int, plain: float, seconds: float, rounds: int, rate: float) -> dict[str, Any]:
    """The added p50 of a cloud attempt, in syncs."""
    added, foreign, errors = [], 0.0, 0
    for _ in range(rounds):
        p50 = {}
        for logged in (True, False):
            with started(directory, logged, delay if logged else 0) as proxy:
                check(proxy.port, "json", "cloud", "clean")
                with Foreign() as others:
                    row = load(seconds, rate)
                foreign, errors = max(foreign, others.share), errors + row["errors"]
                p50[logged] = row["p50_ms"]
        added.append(p50[True] - p50[False])
        print(f"cloud  sync +{delay} ms: p50 {p50[True]:.2f} ms, without the log {p50[False]:.2f} ms", file=sys.stderr)
    sync = plain + delay
    more = statistics.median(added)
    return {
        "case": f"added p50 of a cloud attempt in syncs, sync {f'+{delay} ms' if delay else 'of this disk'}",
        "figure": round(more / sync, 2), "bound": f"< {MOST_SYNCS:.0f}", "holds": more / sync < MOST_SYNCS,
        "added_p50_ms": round(more, 3), "sync_ms": round(sync, 3), "rate": rate, "errors": errors, "foreign_cores": foreign,
    }  # fmt: skip


def fsync_ms(directory: Path, count: int = 200) -> float:
    """Milliseconds of an append of one record's size with its fdatasync, on the log's disk: the median."""
    took = []
    with open(directory / "sync", "ab", buffering=0) as file:
        for _ in range(count):
            began = time.perf_counter()
            file.write(b"x" * 900)
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - began)
    return statistics.median(took) * 1000


def load(seconds: float, rate: float) -> dict[str, Any]:
    """`call` in a process of its own, on the load's core."""
    command = ["taskset", "-c", str(LOAD_CORE), sys.executable, __file__, "--caller", str(seconds), "--rate", str(rate)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=ROOT)
    row: dict[str, Any] = json.loads(done.stdout)
    return row


async def call(seconds: float, rate: float) -> dict[str, Any]:
    """Requests at random times, so many a second on the whole: no one waits for another's answer to ask."""
    body = json.dumps({"model": "cloud", "messages": [{"role": "user", "content": PROMPTS["clean"]}]}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {KEY}\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode()
    took: list[float] = []
    errors = 0
    until = time.perf_counter() + seconds
    warm = until - seconds * 0.9

    async def caller(number: int) -> None:
        nonlocal errors
        dice = random.Random(number)
        reader, writer = await asyncio.open_connection("127.0.0.1", SPILLWAY_PORT)
        while True:
            await asyncio.sleep(dice.expovariate(rate / CALLERS))
            began = time.perf_counter()
            if began > until:
                break
            writer.write(head + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            lines = dict(line.lower().split(b": ", 1) for line in answer.split(b"\r\n")[1:] if b": " in line)
            await reader.readexactly(int(lines[b"content-length"]))
            errors += b" 200 " not in answer.split(b"\r\n")[0]
            if began > warm:
                took.append(time.perf_counter() - began)
        writer.close()

    await asyncio.gather(*map(caller, range(CALLERS)))
    return {"p50_ms": statistics.median(took) * 1000, "answers": len(took), "errors": errors}


def table(rows: list[dict[str, Any]]) -> str:
    """Aligned, for people."""
    names = ("on_per_s", "off_per_s", "added_p50_ms", "sync_ms", "errors", "foreign_cores")
    lines = [
        (
            row["case"], f"{row['figure']:g}", row["bound"], "holds" if row["holds"] else "DOES NOT HOLD",
            ", ".join(f"{name} {row[name]}" for name in names if row.get(name)),
        )
        for row in rows
    ]  # fmt: skip
    widths = [max(len(line[i]) for line in lines) for i in range(4)]
    return "\n".join(
        f"{case:{widths[0]}}  {figure:>{widths[1]}}  {bound:{widths[2]}}  {verdict:{widths[3]}}  {more}".rstrip()
        for case, figure, bound, verdict, more in lines
    )


if __name__ == "__main__":
    sys.exit(main())
