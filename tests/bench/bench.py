"""`make bench`: Spillway beside nginx, sglang-router and LiteLLM, on loopback, in one run.

One core for the proxy under test, another for the load, a third for the engine that answers at once where
there is one.  Figures are ratios of this run: machines are noisy, absolute numbers are not compared across runs.
Prints a table and writes bench.json.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import yaml

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
KEY = "spw_bench"
ENGINE_PORTS = {"json": 18701, "sse": 18703}
PACED_PORT = 18702
CORES = sorted(os.sched_getaffinity(0))
PROXY_CORE, LOAD_CORE, ENGINE_CORE = CORES[0], CORES[1 % len(CORES)], CORES[2 if len(CORES) > 2 else 1 % len(CORES)]

PROMPTS = {
    "clean": "Explain how a spillway lets a reservoir give up only what it must, in plain words. " * 24,
    "clinical": "Pt is a 63 y/o with HTN and T2DM on metformin 500 mg BID; BP 142/91, A1c 7.9 %. Assess and plan. "
    * 20,
    "non-ascii": "Erkläre, wie ein Überlauf funktioniert – naïve Größen, 水庫 und «Zitate» inbegriffen. " * 21,
}
EVERYTHING: dict[str, Any] = {
    "budgets": [{"scope": "org", "window": "month", "limit": "$1000000"}],
    "telemetry": {"sample": "5%", "prometheus": {"port": 18790}},
}


def main() -> None:
    """Run the cases that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4, help="of each measurement")
    parser.add_argument("--only", default="", help="a regular expression over case and side")
    parser.add_argument("--quick", action="store_true", help="one second each: to see that it runs")
    options = parser.parse_args()
    if options.quick:
        options.seconds = 1
    wanted = re.compile(options.only)
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(Path(directory), options.seconds, wanted)
        with engine(Path(directory)):
            bench.run()
    rows = with_ratios(bench.rows)
    print(table(rows))
    result = {"machine": machine(), "seconds": options.seconds, "rows": rows}
    (ROOT / "bench.json").write_text(json.dumps(result, indent=1) + "\n")


class Bench:
    """The cases, one after another; a proxy runs only while it is measured."""

    def __init__(self, directory: Path, seconds: float, wanted: re.Pattern[str]) -> None:
        self.directory = directory
        self.seconds = seconds
        self.wanted = wanted
        self.rows: list[dict[str, Any]] = []

    def run(self) -> None:
        self.loads("nginx", lambda kind: nginx_proxy(self.directory, kind))
        self.loads("sglang-router", lambda kind: sglang(kind))
        self.loads("litellm", lambda kind: litellm(self.directory, kind))
        bare = {"compliance": {"scan": "needed", "answers": {"scan": False}}}
        self.loads("spillway bare", lambda kind: spillway(self.directory, bare, kind))
        self.loads("spillway everything", lambda kind: spillway(self.directory, EVERYTHING, kind))
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
                except LeftOut as why:
                    print(f"{side} is left out: {why}", file=sys.stderr)
                    return
                for size in wanted:
                    wrk(proxy.port, kind, model, prompt, size, 1.0)
                    row = wrk(proxy.port, kind, model, prompt, size, self.seconds)
                    row |= {"case": f"{kind}, {size} connections", "side": side, "kind": kind, "rss_mb": proxy.rss_mb()}
                    self.rows.append(row)
                    print(f"{row['case']:22} {side:42} {row['requests_per_s']:>9,.0f}/s", file=sys.stderr)
            self.after(side, f"{kind}, up to {wanted[-1]} connections", proxy)

    def after(self, side: str, load: str, proxy: Proxy) -> None:
        """What a proxy left behind when it stopped: the stalls of its event loop, the time that it took to listen.

        At saturation one turn of the loop serves every connection that waits, so a stall grows with their number.
        """
        if proxy.stalls is not None and proxy.stalls.exists():
            stall = json.loads(proxy.stalls.read_text())
            self.rows.append(
                {
                    "case": f"stall, {load}",
                    "side": side,
                    "kind": "stall",
                    "p99_ms": stall["p99_ms"],
                    "p999_ms": stall["p999_ms"],
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
        for side, port_of in (("direct", None), ("spillway everything", EVERYTHING)):
            for streams in (100, 400, 700):
                if not self.wanted.search(f"paced {streams} {side}"):
                    continue
                with contextlib.ExitStack() as stack:
                    stack.enter_context(paced_engine())
                    proxy = stack.enter_context(spillway(self.directory, port_of)) if port_of is not None else None
                    row = paced_load(proxy.port if proxy else PACED_PORT, streams, max(4.0, self.seconds), proxy)
                row |= {"case": f"paced, {streams} streams", "side": side, "kind": "paced"}
                self.rows.append(row)
                print(f"{row['case']:22} {side:36} age p99 {row['p99_ms']:.2f} ms", file=sys.stderr)


class LeftOut(Exception):
    """A peer that is not there."""


class Proxy:
    """A proxy under test."""

    def __init__(
        self, process: subprocess.Popen[bytes], port: int, *, stalls: Path | None = None, start_seconds: float = 0.0
    ) -> None:
        self.process = process
        self.port = port
        self.stalls = stalls
        self.start_seconds = start_seconds
        self.last_rss = 0.0

    def worker(self) -> psutil.Process:
        """The process that does the work: the largest of the tree."""
        own = psutil.Process(self.process.pid)
        tree = [own, *own.children(recursive=True)]
        workers = [p for p in tree if "proxy.worker" in " ".join(p.cmdline())]
        return (workers or sorted(tree, key=lambda p: p.memory_info().rss))[-1]

    def rss_mb(self) -> float:
        self.last_rss = round(self.worker().memory_info().rss / 1e6, 1)
        return self.last_rss


@contextlib.contextmanager
def started(
    command: list[str],
    port: int,
    *,
    path: str = "/health",
    core: int = PROXY_CORE,
    environ: dict[str, str] | None = None,
    wait: float = 60,
    cwd: Path | None = None,
) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """A pinned process that answers HTTP on a port; (process, seconds until it did)."""
    began = time.perf_counter()
    process = subprocess.Popen(
        ["taskset", "-c", str(core), *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=cwd or ROOT,
        env={**os.environ, **(environ or {})},
    )
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=1).read()
                break
            except urllib.error.HTTPError:
                break
            except OSError:
                if process.poll() is not None or time.perf_counter() - began > wait:
                    raise LeftOut(f"it did not start: {' '.join(command)[:120]}") from None
                time.sleep(0.01)
        yield process, time.perf_counter() - began
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def spillway(directory: Path, config: dict[str, Any], kind: str = "json", *, sync_ms: int = 0) -> Iterator[Proxy]:
    state = Path(tempfile.mkdtemp(dir=directory))
    port = 18710
    engine_row = {"kind": "openai-compatible", "models": {"m": {"context": 131072}}}
    whole = {
        "listen": {"port": port, "workers": 1},
        "state": {"dir": str(state / "state")},
        "audit": {"dir": str(state / "audit")},
        "engines": {
            "near": {**engine_row, "replicas": [f"http://127.0.0.1:{ENGINE_PORTS[kind]}"]},
            "far": {**engine_row, "replicas": [f"http://127.0.0.1:{ENGINE_PORTS[kind]}"], "boundary": "cloud"},
            "paced": {**engine_row, "replicas": [f"http://127.0.0.1:{PACED_PORT}"]},
        },
        "models": {"m": ["near/m"], "cloud": ["far/m"], "paced": ["paced/m"]},
        "prices": {"far/m": {"input": "$2/M", "output": "$8/M"}},
        "keys": {"bench": {"hash": "sha256:" + hashlib.sha256(KEY.encode()).hexdigest()}},
        **config,
    }
    file = state / "bench.yaml"
    file.write_text(yaml.safe_dump(whole))
    stalls = state / "stalls.json"
    environ = {"SPILLWAY_LOOP_STALL": str(stalls), "SPILLWAY_BENCH_SYNC_MS": str(sync_ms)}
    with started(
        [sys.executable, "-m", "proxy", "serve", "--config", str(file)], port, path="/v1/models", environ=environ
    ) as (process, seconds):
        yield Proxy(process, port, stalls=stalls, start_seconds=seconds)


@contextlib.contextmanager
def nginx_proxy(directory: Path, kind: str) -> Iterator[Proxy]:
    text = f"""upstream e {{ server 127.0.0.1:{ENGINE_PORTS[kind]}; keepalive 512; }}
    server {{ listen 127.0.0.1:18711 backlog=4096; location / {{
      proxy_pass http://e; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }} }}"""
    with started(nginx(directory, "proxy", text), 18711) as (process, _):
        yield Proxy(process, 18711)


@contextlib.contextmanager
def sglang(kind: str) -> Iterator[Proxy]:
    python = ROOT / ".bench/sglang/bin/python"
    if not python.exists():
        raise LeftOut("sglang-router is not installed")
    command = [
        str(python),
        "-m",
        "sglang_router.launch_router",
        "--host",
        "127.0.0.1",
        "--port",
        "18712",
        "--worker-urls",
        f"http://127.0.0.1:{ENGINE_PORTS[kind]}",
    ]
    command += ["--policy", "round_robin", "--prometheus-port", "18791", "--log-level", "error"]
    with started(command, 18712) as (process, _):
        time.sleep(3)  # it looks at its worker first
        yield Proxy(process, 18712)


@contextlib.contextmanager
def litellm(directory: Path, kind: str) -> Iterator[Proxy]:
    command = ROOT / ".bench/litellm/bin/litellm"
    if not command.exists():
        raise LeftOut("LiteLLM is not installed")
    model = {
        "model_name": "m",
        "litellm_params": {
            "model": "openai/m",
            "api_base": f"http://127.0.0.1:{ENGINE_PORTS[kind]}/v1",
            "api_key": "x",
        },
    }
    file = directory / "litellm.yaml"
    file.write_text(yaml.safe_dump({"model_list": [model], "general_settings": {"master_key": f"sk-{KEY}-0123456789"}}))
    environ = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    arguments = [str(command), "--config", str(file), "--port", "18713", "--host", "127.0.0.1", "--num_workers", "1"]
    with started(arguments, 18713, path="/health/liveliness", environ=environ, wait=120, cwd=directory) as (process, _):
        yield Proxy(process, 18713)


# --- the engine and the loads ------------------------------------------------------------------------------


def nginx(directory: Path, name: str, servers: str) -> list[str]:
    if shutil.which("nginx") is None:
        raise LeftOut("nginx is not installed")
    file = directory / f"{name}.conf"
    file.write_text(
        f"daemon off; master_process off; worker_processes 1; pid {directory}/{name}.pid; error_log {directory}/{name}.err;\n"
        "worker_rlimit_nofile 20000; events { worker_connections 8192; }\n"
        "http { access_log off; keepalive_requests 100000000; client_body_buffer_size 64k; client_max_body_size 64m;\n"
        f"client_body_temp_path {directory}/body-{name}; proxy_temp_path {directory}/proxy-{name}; fastcgi_temp_path {directory}/f-{name};\n"
        f"uwsgi_temp_path {directory}/u-{name}; scgi_temp_path {directory}/s-{name};\n{servers} }}"
    )
    return ["nginx", "-c", str(file)]


@contextlib.contextmanager
def engine(directory: Path) -> Iterator[None]:
    """An engine that answers at once: nginx with the bytes of an answer of 0.6 KB, or of a stream of 51 events."""
    text = "A reservoir gives up only what it must, and what it gives up is measured. " * 5
    head = {"id": "chatcmpl-1", "created": 1, "model": "m"}
    usage = {"prompt_tokens": 500, "completion_tokens": 50, "total_tokens": 550}
    whole = {
        **head,
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": usage,
    }
    events = []
    for number in range(49):
        finish = "stop" if number == 48 else None
        events.append(
            {
                **head,
                "object": "chat.completion.chunk",
                "choices": [{"index": 0, "delta": {"content": " water"}, "finish_reason": finish}],
            }
        )
    events.append({**head, "object": "chat.completion.chunk", "choices": [], "usage": usage})
    stream = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    (directory / "stream").write_text(stream)
    (directory / "whole").write_text(json.dumps(whole))
    info = {"model_path": str(directory), "served_model_name": "m", "dp_size": 1, "tp_size": 1, "model_type": "llama"}
    servers = "".join(_engine_server(directory, kind, json.dumps(info)) for kind in ENGINE_PORTS)
    with started(nginx(directory, "engine", servers), ENGINE_PORTS["json"], core=ENGINE_CORE):
        yield


def _engine_server(directory: Path, kind: str, info: str) -> str:
    file, content = {"json": ("whole", "application/json"), "sse": ("stream", "text/event-stream")}[kind]
    models = '{"object":"list","data":[{"id":"m","object":"model","owned_by":"x"}]}'
    infos = "".join(
        f"location = /{name} {{ default_type application/json; return 200 '{info}'; }}\n"
        for name in ("get_model_info", "model_info", "get_server_info", "server_info")
    )
    return f"""server {{ listen 127.0.0.1:{ENGINE_PORTS[kind]} backlog=4096; root {directory}; open_file_cache max=10;
      location = /v1/chat/completions {{ rewrite ^ /{file} last; }}
      location = /{file} {{ internal; default_type {content}; error_page 405 =200 /{file}; }}
      location = /health {{ return 200; }}
      location = /v1/models {{ default_type application/json; return 200 '{models}'; }}
      {infos} }}
    """


def wrk(port: int, kind: str, model: str, prompt: str, connections: int, seconds: float) -> dict[str, Any]:
    """One measurement."""
    environ = {
        **os.environ,
        "BENCH_MODEL": model,
        "BENCH_KIND": kind,
        "BENCH_PROMPT": PROMPTS[prompt],
        "BENCH_KEY": f"sk-{KEY}-0123456789" if port == 18713 else KEY,
    }
    command = [
        "taskset",
        "-c",
        str(LOAD_CORE),
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds:g}s",
        "--latency",
        "--timeout",
        "20s",
        "-s",
        str(HERE / "post.lua"),
        f"http://127.0.0.1:{port}/v1/chat/completions",
    ]
    out = subprocess.run(command, capture_output=True, text=True, env=environ, check=True).stdout
    if bad := re.search(r"Non-2xx.*", out):
        raise SystemExit(f"port {port}: {bad.group()}\n{out}")
    return {
        "requests_per_s": float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1)),  # type: ignore[union-attr]
        "p50_ms": _ms(out, "50%"),
        "p99_ms": _ms(out, "99%"),
    }


def _ms(out: str, share: str) -> float:
    match = re.search(rf"\s{share}\s+([\d.]+)(us|ms|s)", out)
    assert match is not None
    return round(float(match.group(1)) * {"us": 0.001, "ms": 1, "s": 1000}[match.group(2)], 3)


@contextlib.contextmanager
def paced_engine() -> Iterator[None]:
    with started(
        [sys.executable, str(HERE / "paced.py"), "engine", "--port", str(PACED_PORT)], PACED_PORT, core=ENGINE_CORE
    ):
        yield


def paced_load(port: int, streams: int, seconds: float, proxy: Proxy | None) -> dict[str, Any]:
    """Streams of 50 events a second each; the age of an event when the client has it."""
    before = proxy.worker().memory_info().rss if proxy else 0
    cpu = sum(proxy.worker().cpu_times()[:2]) if proxy else 0.0
    command = [
        "taskset",
        "-c",
        str(LOAD_CORE),
        sys.executable,
        str(HERE / "paced.py"),
        "load",
        "--port",
        str(port),
        "--streams",
        str(streams),
        "--seconds",
        str(seconds),
        "--key",
        KEY,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    rss = before
    while proxy is not None and process.poll() is None:
        rss = max(rss, proxy.worker().memory_info().rss)
        time.sleep(0.3)
    out = json.loads(process.communicate()[0])
    if proxy is not None:
        out["kb_per_stream"] = round((rss - before) / 1000 / streams, 1)
        out["cpu_us_per_event"] = round(
            (sum(proxy.worker().cpu_times()[:2]) - cpu) * 1e6 / max(1, out["all_events"]), 1
        )
    return out


# --- results -----------------------------------------------------------------------------------------------


def with_ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each throughput beside the peers' of the same case."""
    peers = ("nginx", "sglang-router", "litellm")
    figures = {(row["case"], row["side"]): row["requests_per_s"] for row in rows if "requests_per_s" in row}
    for row in rows:
        if "requests_per_s" in row:
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
        extra = [
            f"{name} {row[name]}"
            for name in ("p999_ms", "seconds", "kb_per_stream", "cpu_us_per_event", "streams_ended")
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
    main()
