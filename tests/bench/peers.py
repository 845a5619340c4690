"""What is measured: Spillway, and beside it nginx, sglang-router and LiteLLM, each with one worker."""

from __future__ import annotations

import contextlib
import hashlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from backends import ENGINE_PORTS, PACED_PORT, nginx
from processes import ROOT, LeftOut, Proxy, started

COMPILED = ROOT / "build/compiled"
"""What the wheel of `make wheel` has."""
KEY = "spw_bench"
LITELLM_KEY = f"sk-{KEY}-0123456789"
SPILLWAY_PORT, NGINX_PORT, SGLANG_PORT, LITELLM_PORT = 18710, 18711, 18712, 18713
PORTS = (SPILLWAY_PORT, NGINX_PORT, SGLANG_PORT, LITELLM_PORT, PACED_PORT, *ENGINE_PORTS.values())
TARGETS = {"m": "near/m", "cloud": "far/m"}
"""Which engine Spillway must send each model to."""


@contextlib.contextmanager
def spillway(
    directory: Path,
    config: dict[str, Any],
    kind: str = "json",
    *,
    sync_ms: int = 0,
    environ: dict[str, str] | None = None,
    interpreted: bool = False,
) -> Iterator[Proxy]:
    """A worker as the compiled wheel installs it; with `interpreted`, as it runs from the sources."""
    if not interpreted and not (COMPILED / "proxy").exists():
        raise LeftOut("it is not compiled: `make wheel`")
    state = Path(tempfile.mkdtemp(dir=directory))
    port = SPILLWAY_PORT
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
    environ = {"SPILLWAY_LOOP_STALL": str(stalls), "SPILLWAY_BENCH_SYNC_MS": str(sync_ms), **(environ or {})}
    if not interpreted:
        environ |= {"PYTHONSAFEPATH": "1", "PYTHONPATH": str(COMPILED)}
    with started(
        [sys.executable, "-m", "proxy", "serve", "--config", str(file)], port, path="/v1/models", environ=environ
    ) as (process, seconds):
        yield Proxy(process, port, stalls=stalls, start_seconds=seconds)


@contextlib.contextmanager
def nginx_proxy(directory: Path, kind: str) -> Iterator[Proxy]:
    text = f"""upstream e {{ server 127.0.0.1:{ENGINE_PORTS[kind]}; keepalive 512; }}
    server {{ listen 127.0.0.1:{NGINX_PORT} backlog=4096; location / {{
      proxy_pass http://e; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }} }}"""
    with started(nginx(directory, "proxy", text), NGINX_PORT) as (process, _):
        yield Proxy(process, NGINX_PORT)


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
        str(SGLANG_PORT),
        "--worker-urls",
        f"http://127.0.0.1:{ENGINE_PORTS[kind]}",
    ]
    command += ["--policy", "round_robin", "--prometheus-port", "18791", "--log-level", "error"]
    with started(command, SGLANG_PORT) as (process, _):
        time.sleep(3)  # it looks at its worker first
        yield Proxy(process, SGLANG_PORT)


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
    file.write_text(yaml.safe_dump({"model_list": [model], "general_settings": {"master_key": LITELLM_KEY}}))
    environ = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    arguments = [
        str(command),
        "--config",
        str(file),
        "--port",
        str(LITELLM_PORT),
        "--host",
        "127.0.0.1",
        "--num_workers",
        "1",
    ]
    with started(arguments, LITELLM_PORT, path="/health/liveliness", environ=environ, wait=120, cwd=directory) as (
        process,
        _,
    ):
        yield Proxy(process, LITELLM_PORT)
