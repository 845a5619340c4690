"""Processes under measurement: each pinned to a core, started on a port of its own, and always stopped."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
CORES = sorted(os.sched_getaffinity(0))
PROXY_CORE, LOAD_CORE, ENGINE_CORE = CORES[0], CORES[1 % len(CORES)], CORES[2 if len(CORES) > 2 else 1 % len(CORES)]


class LeftOut(Exception):
    """A peer that is not there, or does not answer as it should."""


def stay_off_the_measured_cores() -> None:
    """Move this process to a core that measures nothing, and allow it and its children the sockets of 700 streams."""
    spare = CORES[3:] or CORES[2:] or CORES
    os.sched_setaffinity(0, spare)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))


def claim(port: int) -> None:
    """Raises LeftOut where somebody else listens: their server would be measured in place of ours."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise LeftOut(f"port {port} is in use: does another benchmark run?") from None


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
        self._stolen = stolen()

    def stolen_ms(self) -> float:
        """What the machine below took of the proxy's core since it listened."""
        return stolen() - self._stolen

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
    claim(port)
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
        stop(process)


class Foreign:
    """What others took of the measured cores meanwhile: a figure taken beside other work is no figure.

    `share` is in cores, of the three.
    """

    def __enter__(self) -> Foreign:
        self.share = 0.0
        self._began, self._busy, self._own = time.perf_counter(), busy(), own()
        return self

    def __exit__(self, *_: object) -> None:
        foreign = (busy() - self._busy) - (own() - self._own)
        self.share = round(max(0.0, foreign / (time.perf_counter() - self._began)), 2)


def busy() -> float:
    """Seconds that the measured cores were not idle.  With interrupts: a process's times hold those that it served."""
    cores = psutil.cpu_times(percpu=True)
    return sum(
        cores[core].user
        + cores[core].nice
        + cores[core].system
        + cores[core].steal
        + cores[core].irq
        + cores[core].softirq
        for core in {PROXY_CORE, LOAD_CORE, ENGINE_CORE}
    )


def stolen() -> float:
    """Milliseconds that the machine below has kept the proxy's core for others, since it started: nothing ran meanwhile."""
    return round(1000 * psutil.cpu_times(percpu=True)[PROXY_CORE].steal)


def own() -> float:
    """Seconds that what this process started has run, ended or not."""
    times = os.times()
    total = times.children_user + times.children_system
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(child.cpu_times()[:2])
    return total


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end; after 20 seconds end it and what it started, so that no worker outlives it."""
    children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
