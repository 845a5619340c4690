"""What a worker process does once its modules are loaded: it waits to be told what to serve, builds it, serves.

Standard input is a socket that brings the settings and the listening socket, and stays open as long as the supervisor
lives; its end is a request to stop.  The supervisor keeps the listening socket open too, so that connections wait out a
restart instead of being refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import gc
import json
import logging
import os
import resource
import signal
import socket
import sys
from pathlib import Path

import uvloop

from proxy.acceptor import Acceptor
from proxy.app import build_worker
from proxy.config import Settings
from proxy.faults import on_loop_error
from proxy.instance import METRICS_VARIABLE, metrics_directory
from proxy.stall import StallMeter
from proxy.workers import READY, told

DESCRIPTORS = 8192
"""Room for open files that is made at start."""
SWITCH_SECONDS = 0.0002
STALL_VARIABLE = "SPILLWAY_LOOP_STALL"
"""Names a file that gets the event loop's stalls at exit, for the benchmark."""


def run(slot: int) -> int:
    """Serve until told to stop; 0 after a clean drain."""
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s %(levelname)s worker {slot}: %(message)s")
    channel = socket.socket(fileno=sys.stdin.fileno())
    task = told(channel)
    if task is None:
        return 0
    settings, listener = Settings.undump(task[0]), task[1]
    if settings.telemetry.prometheus is not False:
        os.environ[METRICS_VARIABLE] = str(metrics_directory(settings))
    return uvloop.run(_serve(settings, slot, listener, channel))


async def _serve(settings: Settings, slot: int, listener: socket.socket, channel: socket.socket) -> int:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(on_loop_error)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # see `proxy.workers`
    supervisor, tell = await asyncio.open_connection(sock=channel)
    watching = loop.create_task(_watch(supervisor, stop))
    worker = await build_worker(settings, slot, loop)
    # What was built at start lives for ever: the collector need not look at it again.  Requests make hardly any
    # cycles, so it looks seldom, and at few objects at a time: nothing is served meanwhile, and 10,000 take 3 ms.
    gc.collect()
    _give_back()
    gc.freeze()
    gc.set_threshold(2_000, 5, 2_000)
    gc.enable()
    # The journal's and the ledger's threads work in Python, too: with the default of 5 ms each of them could keep
    # the event loop waiting that long.
    sys.setswitchinterval(SWITCH_SECONDS)
    _make_room()
    acceptor = Acceptor(loop, listener, worker.door)
    acceptor.start()
    meter = StallMeter(loop)
    if path := os.environ.get(STALL_VARIABLE):
        meter.start()
    tell.write(READY)
    await stop.wait()
    acceptor.close()
    await worker.drain(settings.listen.drain)
    await worker.close()
    watching.cancel()
    if path:
        meter.stop()
        Path(path).write_text(json.dumps(meter.report()))
    return 0


def _make_room() -> None:
    """A file that is opened past the end of a process's table of them makes the kernel wait for every core (expand_fdtable,
    synchronize_rcu): 15 ms, at the 64th, 128th, 256th ... socket of a loop that serves hundreds of streams.  The table
    never shrinks, so a high number that is used once makes it large enough."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    high = DESCRIPTORS if most == resource.RLIM_INFINITY else min(DESCRIPTORS, most)
    with contextlib.suppress(OSError):
        os.close(fcntl.fcntl(sys.stdin.fileno(), fcntl.F_DUPFD_CLOEXEC, high - 1))


def _give_back() -> None:
    """To the system, what was freed since the start: 2 MB, and 15 MB where automata had to be compiled.  glibc keeps it
    otherwise; another C library has no such call."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


async def _watch(supervisor: asyncio.StreamReader, stop: asyncio.Event) -> None:
    """When the supervisor is gone, it is over."""
    with contextlib.suppress(OSError):
        await supervisor.read()
    stop.set()
