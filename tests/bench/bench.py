"""`make bench`: Spillway beside nginx, sglang-router and LiteLLM, on loopback, in one run; then the log and the budgets.

One core for the proxy under test, another for the load, a third for the engine that answers at once where
there is one.  Figures are ratios of this run: machines are noisy, absolute numbers are not compared across runs.
Prints a table and writes bench.json.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import json
import platform
import re
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import floors
from backends import PACED_PORT, engine, paced_engine
from floors import DISTURBED, STOLEN, usable
from loads import PROMPTS, check, paced_load, wrk
from peers import COMPILED, PORTS, litellm, nginx_proxy, sglang, spillway
from processes import CORES, ROOT, Foreign, LeftOut, Proxy, claim, stay_off_the_measured_cores

TRIES = 3  # of a measurement beside which others worked
ROUNDS = 6  # answers that each connection should get: a slow proxy is measured longer, not counted as slower still
LONGEST = 30.0  # seconds of one measurement
PAIRS = 5  # rounds of two proxies that are measured alternately
OTHERS = {
    "log, cost": "audit_cost.py",
    "log, load": "audit_load.py",
    "budgets, cost": "budget_cost.py",
    "budgets, load": "budget_load.py",
}
"""Benchmarks of one part each, by the name that `--only` looks at: run after the table, each with a table of its own."""
BARE: dict[str, Any] = {"compliance": {"scan": "needed", "answers": {"scan": False}}}
EVERYTHING: dict[str, Any] = {
    "budgets": [{"scope": "org", "window": "month", "limit": "$1000000"}],
    "telemetry": {"sample": "5%", "prometheus": {"port": 18790}},
}


def main() -> int:
    """Run the cases that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4, help="of each measurement")
    parser.add_argument("--only", default="", help="a regular expression over case and side")
    parser.add_argument("--quick", action="store_true", help="one second each: to see that it runs")
    options = parser.parse_args()
    if options.quick:
        options.seconds = 1
    wanted = re.compile(options.only)
    stay_off_the_measured_cores()
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(Path(directory), options.seconds, wanted)
        try:
            for port in PORTS:
                claim(port)
            with engine(Path(directory)):
                bench.run()
        except LeftOut as why:
            raise SystemExit(f"nothing can be measured: {why}") from None
    rows = with_ratios(bench.rows)
    judged = floors.judge(rows)
    print(table(rows), floors.lines(judged), sep="\n\n")
    result = {"machine": machine(), "seconds": options.seconds, "rows": rows, "floors": judged}
    (ROOT / "bench.json").write_text(json.dumps(result, indent=1) + "\n")
    if disturbed := sum(row.get("foreign_cores", 0) > DISTURBED for row in rows):
        print(f"{disturbed} rows were measured beside other work (foreign_cores): do not rely on them", file=sys.stderr)
    wrong = [row for row in rows if row["side"].startswith("spillway") and row.get("errors")]
    for name, script in OTHERS.items():
        if wanted.search(name) and not options.quick:
            print(f"\n{name}", flush=True)
            subprocess.run([sys.executable, str(Path(__file__).parent / script)], check=False)
    for row in [*bench.failed, *(f"{row['side']}, {row['case']}: {row['errors']} errors" for row in wrong)]:
        print(row, file=sys.stderr)
    return 1 if wrong or bench.failed else 0


class Bench:
    """The cases, one after another; a proxy runs only while it is measured."""

    def __init__(self, directory: Path, seconds: float, wanted: re.Pattern[str]) -> None:
        self.directory = directory
        self.seconds = seconds
        self.wanted = wanted
        self.rows: list[dict[str, Any]] = []
        self.failed: list[str] = []  # Spillway is never left out: it is what is measured

    def run(self) -> None:
        self.first_start()
        self.loads("nginx", lambda kind: nginx_proxy(self.directory, kind))
        self.loads("sglang-router", lambda kind: sglang(kind))
        self.loads("litellm", lambda kind: litellm(self.directory, kind))
        for name, config in (("bare", BARE), ("everything", EVERYTHING)):
            start = partial(spillway, self.directory, config)
            self.loads(f"spillway {name}", start)
            self.loads(f"spillway {name}, interpreted", partial(start, interpreted=True), kinds=("json",))
        for delay in (0, 3, 10):
            side = f"spillway everything, cloud, sync +{delay} ms"
            start = partial(spillway, self.directory, EVERYTHING, sync_ms=delay)
            self.loads(side, start, model="cloud", kinds=("json",))
        for name in PROMPTS:
            self.loads(
                f"spillway everything, {name} prompts",
                partial(spillway, self.directory, EVERYTHING),
                prompt=name,
                kinds=("json",),
                sizes=(32,),
            )
        self.paced()
        self.pairs("spillway bare", partial(spillway, self.directory, BARE), "sglang-router", sglang, (32, 256))
        start = partial(spillway, self.directory, EVERYTHING, sync_ms=3)
        self.pairs(floors.CLOUD_3MS, start, "sglang-router", sglang, (256,), model="cloud")
        self.pairs(floors.CLOUD_3MS, start, "litellm", partial(litellm, self.directory), (256,), model="cloud", at=32)

    def first_start(self) -> None:
        """A user's first start compiles the automata, which takes 2 s of CPU; all later ones load them.  It is a row of its
        own.  What an installation has is here from now on, too: the modules' bytecode, and automata."""
        for place in (ROOT, COMPILED):
            for package in ("compliance", "engines", "policies", "proxy"):
                compileall.compile_dir(place / package, quiet=2)
        if self.wanted.search("first start spillway everything"):
            with (
                tempfile.TemporaryDirectory() as cache,
                spillway(self.directory, EVERYTHING, environ={"XDG_CACHE_HOME": cache}) as proxy,
            ):
                row = {"case": "first start", "side": "spillway everything", "kind": "first start"}
                self.rows.append({**row, "seconds": round(proxy.start_seconds, 2), "rss_mb": proxy.rss_mb()})
        with spillway(self.directory, EVERYTHING):
            pass

    def loads(
        self,
        side: str,
        start: Any,
        *,
        model: str = "m",
        prompt: str = "clean",
        kinds: Any = ("json", "sse"),
        sizes: Any = (32, 256),
    ) -> None:
        for kind in kinds:
            wanted = [size for size in sizes if self.wanted.search(f"{kind} {size} {side}")]
            if not wanted:
                continue
            with contextlib.ExitStack() as stack:
                try:
                    proxy = stack.enter_context(start(kind))
                    check(proxy.port, kind, model, prompt)
                except LeftOut as why:
                    self.leave_out(f"{side}, {kind}", why)
                    continue
                for size in wanted:
                    row = self.undisturbed(partial(wrk, proxy.port, kind, model, prompt, size), size)
                    row |= {"case": f"{kind}, {size} connections", "side": side, "kind": kind, "rss_mb": proxy.rss_mb()}
                    self.rows.append(row)
                    print(f"{row['case']:22} {side:42} {row['requests_per_s']:>9,.0f}/s", file=sys.stderr)
            self.after(side, f"{kind}, up to {wanted[-1]} connections", proxy)

    def pairs(
        self, side: str, start: Any, peer: str, start_peer: Any, sizes: Any, *, model: str = "m", at: int | None = None
    ) -> None:
        """Two proxies alternately: the machine's speed changes within minutes, and so does any ratio of two rows of the table.

        What floors are judged by.  `at`: connections of the peer, where it is faster with others.
        """
        sizes = [size for size in sizes if self.wanted.search(f"pairs {size} {side}, {peer}")]
        if not sizes:
            return
        with contextlib.ExitStack() as stack:
            try:
                one, other = stack.enter_context(start("json")), stack.enter_context(start_peer("json"))
                check(one.port, "json", model, "clean")
                check(other.port, "json", "m", "clean")
            except LeftOut as why:
                self.leave_out(f"{side}, {peer}, alternately", why)
                return
            for size in sizes:
                case, ratios = f"json, {size} connections", []
                loads = {
                    side: (partial(wrk, one.port, "json", model, "clean", size), size),
                    peer: (partial(wrk, other.port, "json", "m", "clean", at or size), at or size),
                }
                for round_ in range(PAIRS):
                    order = (side, peer) if round_ % 2 else (peer, side)  # neither is always the first
                    rows = {who: self.undisturbed(*loads[who]) | {"case": f"json, {loads[who][1]}"} for who in order}
                    if all(map(usable, rows.values())):
                        ratios.append(round(rows[side]["requests_per_s"] / rows[peer]["requests_per_s"], 2))
                self.rows.append({"case": case, "side": side, "kind": "pair", "peer": peer, "ratios": ratios})
                print(f"{case:22} {side:42} of {peer}, alternately: {ratios}", file=sys.stderr)

    def undisturbed(self, load: Any, connections: int) -> dict[str, Any]:
        """Measure long enough for the rate, and again where others took of the cores: never for what came out."""
        rate = load(1.0)["requests_per_s"]
        seconds = min(LONGEST, max(self.seconds, ROUNDS * connections / max(rate, 0.1)))
        for _ in range(TRIES):
            with Foreign() as foreign:
                row: dict[str, Any] = load(seconds)
            row["foreign_cores"] = foreign.share
            if foreign.share <= DISTURBED:
                break
        return row

    def leave_out(self, side: str, why: LeftOut) -> None:
        line = f"{side} is left out: {why}"
        print(line, file=sys.stderr)
        if side.startswith("spillway"):
            self.failed.append(line)

    def after(self, side: str, load: str, proxy: Proxy) -> None:
        """What a proxy left behind when it stopped: the stalls of its event loop, the time that it took to listen."""
        if proxy.stalls is not None and proxy.stalls.exists():
            stall = json.loads(proxy.stalls.read_text())
            self.rows.append(
                {
                    "case": f"stall, {load}",
                    "side": side,
                    "kind": "stall",
                    "p99_ms": stall["p99_ms"],
                    "p999_ms": stall["p999_ms"],
                    "stolen_ms": proxy.stolen_ms(),
                }
            )
            self.rows.append(
                {
                    "case": "start to listening",
                    "side": side,
                    "kind": "start",
                    "seconds": round(proxy.start_seconds, 2),
                    "rss_mb": proxy.last_rss,
                }
            )

    def paced(self) -> None:
        for side, config in (("direct", None), ("spillway everything", EVERYTHING)):
            for streams in (100, 400, 700):
                if self.wanted.search(f"paced {streams} {side}"):
                    try:
                        row, proxy = self.paced_streams(config, streams)
                        for _ in range(TRIES - 1):
                            if row["foreign_cores"] > DISTURBED or row.get("stolen_ms", 0.0) > STOLEN:
                                row, proxy = self.paced_streams(config, streams)
                    except LeftOut as why:
                        self.leave_out(f"{side}, paced, {streams} streams", why)
                        continue
                    row |= {"case": f"paced, {streams} streams", "side": side, "kind": "paced"}
                    self.rows.append(row)
                    print(f"{row['case']:22} {side:36} age p99 {row['p99_ms']:.2f} ms", file=sys.stderr)
                    if proxy is not None:
                        self.after(side, row["case"], proxy)

    def paced_streams(self, config: dict[str, Any] | None, streams: int) -> tuple[dict[str, Any], Proxy | None]:
        """One measurement; without a configuration, of the load and the engine alone: the floor of every age."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(paced_engine())
            proxy = stack.enter_context(spillway(self.directory, config)) if config is not None else None
            with Foreign() as foreign:
                row = paced_load(proxy.port if proxy else PACED_PORT, streams, max(4.0, self.seconds), proxy)
            row["foreign_cores"] = foreign.share
            if proxy is not None:
                row |= {"rss_mb": proxy.rss_mb(), "stolen_ms": proxy.stolen_ms()}
        return row, proxy


def with_ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each throughput beside the peers' of the same case."""
    peers = ("nginx", "sglang-router", "litellm")
    figures = {(row["case"], row["side"]): row["requests_per_s"] for row in rows if usable(row)}
    for row in rows:
        if usable(row):
            row["ratio"] = {
                peer: round(row["requests_per_s"] / figures[row["case"], peer], 2)
                for peer in peers
                if figures.get((row["case"], peer))
            }
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Aligned, for people."""
    head = ["case", "side", "req/s", "p50 ms", "p99 ms", "RSS MB", "/nginx", "/sglang", "/litellm", "more"]
    body = []
    for row in rows:
        ratio = row.get("ratio", {})
        extra = [f"of {row['peer']}, alternately: {row['ratios']}"] if row["kind"] == "pair" else []
        extra += [
            f"{name} {row[name]}"
            for name in (
                "p999_ms",
                "stolen_ms",
                "seconds",
                "kb_per_stream",
                "cpu_us_per_event",
                "arrived",
                "streams_ended",
                "errors",
                "foreign_cores",
            )
            if name in row
        ]
        speed = f"{row['requests_per_s']:,.0f}" if "requests_per_s" in row else ""
        cells = [
            row["case"],
            row["side"],
            speed,
            *(f"{row[n]:g}" if n in row else "" for n in ("p50_ms", "p99_ms", "rss_mb")),
        ]
        body.append(
            [
                *cells,
                *(f"{ratio[p]:g}" if p in ratio else "" for p in ("nginx", "sglang-router", "litellm")),
                ", ".join(extra),
            ]
        )
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]

    def line(cells: list[str]) -> str:
        return "  ".join(
            c.ljust(w) if i in (0, 1, 9) else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()

    return "\n".join(line(cells) for cells in [head, *body])


def machine() -> dict[str, Any]:
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "cpu": model.group(1) if model else platform.processor(),
        "cores": len(CORES),
        "python": platform.python_version(),
        "kernel": platform.release(),
    }


if __name__ == "__main__":
    sys.exit(main())
