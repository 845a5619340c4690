"""One worker process: `python -m proxy.worker`, started by the supervisor.

Standard input brings the settings (8 bytes of length, then the dump) and stays open as long as the
supervisor lives; its end is a request to stop.  The listening socket is an inherited descriptor, which the
supervisor keeps open too, so that connections wait out a restart instead of being refused.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import signal
import socket
import struct
import sys
from pathlib import Path

import uvloop

from proxy.acceptor import Acceptor
from proxy.app import build_worker
from proxy.config import Settings
from proxy.faults import on_loop_error
from proxy.stall import StallMeter

SWITCH_SECONDS = 0.0002
STALL_VARIABLE = "SPILLWAY_LOOP_STALL"
"""Names a file that gets the event loop's stalls at exit, for the benchmark."""


def main() -> int:
    """Serve until told to stop; 0 after a clean drain."""
    parser = argparse.ArgumentParser(prog="python -m proxy.worker")
    parser.add_argument("--slot", type=int, required=True)
    parser.add_argument("--socket", type=int, required=True, help="descriptor of the listening socket")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s %(levelname)s worker {options.slot}: %(message)s")
    settings = Settings.undump(_read_settings())
    listener = socket.socket(fileno=options.socket)
    return uvloop.run(_serve(settings, options.slot, listener))


def _read_settings() -> bytes:
    stdin = sys.stdin.buffer
    (length,) = struct.unpack(">Q", stdin.read(8))
    return stdin.read(int(length))


async def _serve(settings: Settings, slot: int, listener: socket.socket) -> int:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(on_loop_error)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    watching = await _watch_parent(loop, stop)
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
    print("ready", flush=True)
    await stop.wait()
    acceptor.close()
    await worker.drain(settings.listen.drain)
    await worker.close()
    watching.cancel()
    if path:
        meter.stop()
        Path(path).write_text(json.dumps(meter.report()))
    return 0


async def _watch_parent(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> asyncio.Task[None]:
    """A task that sets `stop` when the supervisor is gone."""
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)

    async def watch() -> None:
        await reader.read()
        stop.set()

    return loop.create_task(watch())


if __name__ == "__main__":
    raise SystemExit(main())
