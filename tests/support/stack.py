"""A whole Spillway for tests: in this process on a port of its own, or as the real command in processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from proxy.app import Worker, build_worker
from proxy.config import Settings, load

ROOT = Path(__file__).resolve().parents[2]


def settings_from(config: Mapping[str, Any], directory: Path, environ: Mapping[str, str] | None = None) -> Settings:
    """Settings of a configuration given as the YAML file would hold it; state and audit in `directory`."""
    whole = {"state": {"dir": str(directory / "state")}, "audit": {"dir": str(directory / "audit")}, **config}
    return load(yaml.safe_dump(whole), environ or {})


class Running:
    """A worker in this process: `url` to talk to, `worker` to look into."""

    def __init__(self, worker: Worker, port: int) -> None:
        self.worker = worker
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    async def settled(self) -> None:
        """Until every attempt that has ended is settled and recorded: some wait for their engine's count."""
        until = time.monotonic() + 30
        while self.worker.counting.waiting and time.monotonic() < until:
            await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def running(
    config: Mapping[str, Any], directory: Path, *, slot: int = 0, environ: Mapping[str, str] | None = None
) -> AsyncIterator[Running]:
    """A worker on this test's own event loop."""
    loop = asyncio.get_running_loop()
    worker = await build_worker(settings_from(config, directory, environ), slot, loop)
    server = await loop.create_server(worker.door, "127.0.0.1", 0)
    try:
        yield Running(worker, server.sockets[0].getsockname()[1])
    finally:
        server.close()
        await worker.drain(1.0)
        await worker.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Command:
    """`spillway serve` as a user runs it: a supervisor and its workers."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.log = log

    def workers(self) -> list[int]:
        """Process ids of the workers that live now."""
        listed = subprocess.run(
            ["ps", "-o", "pid=,args=", "--ppid", str(self.process.pid)], capture_output=True, text=True, check=False
        )
        return [int(line.split()[0]) for line in listed.stdout.splitlines() if "proxy.worker" in line]

    def wait_ready(self, timeout: float = 20.0) -> None:
        """Until every worker has said that it is ready, and a request is answered at all."""
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise AssertionError(f"spillway ended with {self.process.returncode}:\n{self.log.read_text()}")
            with contextlib.suppress(OSError):
                try:
                    if "Spillway serves on" not in self.log.read_text():
                        raise OSError
                    urllib.request.urlopen(f"{self.url}/v1/models", timeout=1).read()
                    return
                except urllib.error.HTTPError:
                    return
            time.sleep(0.02)
        raise AssertionError(f"spillway did not listen in time:\n{self.log.read_text()}")

    def stop(self, number: int = signal.SIGTERM, timeout: float = 15.0) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout)


@contextlib.contextmanager
def command(
    config: Mapping[str, Any],
    directory: Path,
    *,
    environ: Mapping[str, str] | None = None,
    arguments: tuple[str, ...] = (),
    program: tuple[str, ...] = ("-m", "proxy"),
    patience: float = 20.0,
) -> Iterator[Command]:
    """`python -m proxy serve` on a configuration file, ended at the end.  `patience`: seconds until it must be ready."""
    port = free_port()
    whole = {"state": {"dir": str(directory / "state")}, "audit": {"dir": str(directory / "audit")}, **config}
    whole["listen"] = {"host": "127.0.0.1", "port": port, "workers": 2, **dict(config.get("listen", {}))}
    file = directory / "spillway.yaml"
    file.write_text(yaml.safe_dump(whole))
    log = directory / "serve.log"
    with open(log, "ab") as output:
        process = subprocess.Popen(
            [sys.executable, *program, "serve", "--config", str(file), *arguments],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**os.environ, **(environ or {})},
        )  # fmt: skip
    started = Command(process, port, log)
    try:
        started.wait_ready(patience)
        yield started
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            started.stop()
        if process.poll() is None:
            process.kill()
            process.wait()


@contextlib.contextmanager
def llamacpp(directory: Path, *, embeddings: bool = False, context: int = 2048, slots: int = 4) -> Iterator[str]:
    """A real llama.cpp server on the smoke-test model; its URL."""
    from engines.smoke_model import write_smoke_model

    model = directory / "smoke-test.gguf"
    if not model.exists():
        write_smoke_model(model)
    port = free_port()
    arguments = [sys.executable, "-m", "proxy.llamacpp", str(model), "--port", str(port), "--alias", "smoke-test"]
    arguments += [
        "--slots",
        str(slots),
        "--context",
        str(context),
        "--threads",
        "1",
        *(["--embeddings"] if embeddings else []),
    ]
    log = open(directory / "llamacpp.log", "ab")  # noqa: SIM115  lives as long as the process
    process = subprocess.Popen(arguments, cwd=ROOT, stdin=subprocess.PIPE, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError):
                if json.loads(urllib.request.urlopen(f"{url}/health", timeout=1).read()).get("status") == "ok":
                    break
            if process.poll() is not None or time.monotonic() > until:
                raise AssertionError((directory / "llamacpp.log").read_text()[-2000:])
            time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(10)
        assert process.stdin is not None
        process.stdin.close()
        log.close()
