"""One worker process: `python -m proxy.worker`, started by the supervisor (see `proxy.workers`).

Standard input is a socket that brings the settings and the listening socket, and stays open as long as the supervisor
lives; its end is a request to stop.  The supervisor keeps the listening socket open too, so that connections wait out a
restart instead of being refused.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import os
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

SWITCH_SECONDS = 0.0002
STALL_VARIABLE = "SPILLWAY_LOOP_STALL"
"""Names a file that gets the event loop's stalls at exit, for the benchmark."""


def main() -> int:
    """Serve until told to stop; 0 after a clean drain."""
    parser = argparse.ArgumentParser(prog="python -m proxy.worker")
    parser.add_argument("--slot", type=int, required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s %(levelname)s worker {options.slot}: %(message)s")
    channel = socket.socket(fileno=sys.stdin.fileno())
    task = told(channel)
    if task is None:
        return 0
    settings, listener = Settings.undump(task[0]), task[1]
    if settings.telemetry.prometheus is not False:
        os.environ[METRICS_VARIABLE] = str(metrics_directory(settings))
    return uvloop.run(_serve(settings, options.slot, listener, channel))


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
    # cycles, so it looks seldom.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    # The journal's and the ledger's threads work in Python, too: with the default of 5 ms each of them could keep
    # the event loop waiting that long.
    sys.setswitchinterval(SWITCH_SECONDS)
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


async def _watch(supervisor: asyncio.StreamReader, stop: asyncio.Event) -> None:
    """When the supervisor is gone, it is over."""
    with contextlib.suppress(OSError):
        await supervisor.read()
    stop.set()


if __name__ == "__main__":
    raise SystemExit(main())
