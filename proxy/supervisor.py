"""The parent process: listening sockets, managed engines, workers.

It opens one listening socket for each worker slot (SO_REUSEPORT spreads connections over them) and keeps
them open, so that a worker's death loses no queued connection.  A worker that dies is started again in the
same slot, whose journal it recovers; one that dies again and again is started ever more slowly.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import shutil
import signal
import socket
import struct
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from engines.managed import Launch
from policies.budgets import StoreFailed
from proxy.config import Settings
from proxy.config_budgets import budgets_of
from proxy.config_parts import Prometheus
from proxy.config_redis import SQLITE
from proxy.engine_room import with_managed
from proxy.instance import METRICS_VARIABLE, metrics_directory
from proxy.rostering import Rosters
from proxy.routing_shelves import to_be_fitted
from proxy.workers import WorkerProcess, uninterrupted

if TYPE_CHECKING:
    from proxy.witness import Witnesses

log = logging.getLogger("spillway")

RESTART_PAUSE = 0.2  # seconds before a dead worker is started again, doubled for each death in a row
LONGEST_PAUSE = 10.0
STEADY = 10.0
"""A child that lived this long is forgiven its earlier deaths."""
ENGINE_READY = 120.0  # seconds a managed engine may take to load its model

Announce = Callable[[Settings], None]


class CannotServe(Exception):
    """Spillway cannot start here; the message says why and what to do."""


def run(
    settings: Settings, first: WorkerProcess, *, notes: Sequence[str] = (), announce: Announce | None = None
) -> int:
    """Serve until SIGTERM or SIGINT.  `announce` is called once, when requests are accepted.

    `first` is the first slot's worker, which was begun already.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for note in notes:
        log.info("%s", note)
    state = Path(settings.state.dir)
    for directory, option in ((state, "pass --state-dir"), (Path(settings.audit.dir), "set audit.dir")):
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not os.access(directory, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            raise CannotServe(f"cannot write in the directory {directory}: {error.strerror}; {option}") from None
    if settings.audit.captures is not None:
        from proxy.vaulting import why_not_capture

        if (why := why_not_capture(settings)) is not None:
            raise CannotServe(f"audit.captures: {why}")
    with _only_one(state), contextlib.ExitStack() as stack:
        _settle_orphans(settings)
        sockets = [stack.enter_context(_listen(settings)) for _ in range(settings.listen.worker_count)]
        return asyncio.run(_Supervisor(settings, sockets, first, announce).serve())


def _settle_orphans(settings: Settings) -> None:
    """Budgets of workers that were killed and are not among those that start now."""
    if not budgets_of(settings) or settings.state.store != SQLITE:
        return
    from proxy.state.opening import SQLITE_FILE
    from proxy.state.orphans import settle_orphans
    from proxy.state.sqlite import SQLiteBudgets

    started = [f"slot-{slot}" for slot in range(settings.listen.worker_count)]
    try:
        store = SQLiteBudgets(Path(settings.state.dir) / SQLITE_FILE)
        try:
            settle_orphans(store, Path(settings.audit.dir), started)
        finally:
            store.close()
    except (StoreFailed, OSError, ValueError) as error:
        log.warning("slices of workers that are not started any more stay held: %s", error)


@contextlib.contextmanager
def _only_one(state: Path) -> Iterator[None]:
    """A lock on the state directory: two Spillways in one would share journals and budgets."""
    with open(state / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotServe(
                f"another Spillway uses the state directory {state}; stop it or pass --state-dir"
            ) from None
        yield


def _listen(settings: Settings) -> socket.socket:
    host, port = settings.listen.host, settings.listen.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise CannotServe(f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port") from None
    listener.listen(1024)
    listener.setblocking(False)
    return listener


class _Supervisor:
    def __init__(
        self, settings: Settings, sockets: Sequence[socket.socket], first: WorkerProcess, announce: Announce | None
    ) -> None:
        self._settings = settings
        self._sockets = sockets
        self._announce = announce
        self._stopping = asyncio.Event()
        self._begun: WorkerProcess | None = first
        self._processes: dict[str, Process | WorkerProcess] = {}

    async def serve(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        state = Path(self._settings.state.dir)
        settings, engines = with_managed(self._settings, _free_port)
        witnesses = _witnesses(settings, loop)
        serve_metrics(settings, witnesses)
        handing_out = loop.create_task(witnesses.run()) if witnesses is not None else None
        rosters = Rosters(self._settings)
        signing = loop.create_task(rosters.run())
        await self._fit_routes()
        async with asyncio.TaskGroup() as group:
            for launch in engines:
                await asyncio.to_thread(prepare, launch, state)
                group.create_task(self._keep(launch.name, partial(_start_engine, launch, state)))
            ready = [asyncio.Event() for _ in self._sockets]
            for slot, listener in enumerate(self._sockets):
                start = partial(self._start_worker, settings.dump(), slot, listener, ready[slot])
                group.create_task(self._keep(f"worker {slot}", start))
            announcing = group.create_task(self._announce_when(ready, engines, settings))
            await self._stopping.wait()
            announcing.cancel()
            await self._stop_children()
        signing.cancel()
        await asyncio.to_thread(rosters.sign, keep=True)  # over what the workers signed when they stopped
        if witnesses is not None and handing_out is not None:
            handing_out.cancel()
            await asyncio.wait({handing_out})
            await witnesses.last()
        return 0

    async def _fit_routes(self) -> None:
        """Once for all workers, where it is not done yet; one that should stop meanwhile does not wait for it."""
        if not to_be_fitted(self._settings):
            return
        dump = self._settings.dump()
        with uninterrupted():
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "proxy.fitting", stdin=asyncio.subprocess.PIPE
            )
        fitting = asyncio.create_task(process.communicate(struct.pack(">Q", len(dump)) + dump))
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({fitting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not fitting.done():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        await fitting
        if process.returncode and not self._stopping.is_set():
            log.warning(
                "the routes could not be fitted beforehand (%s): each worker tries", _ending(process.returncode)
            )

    async def _keep(self, name: str, start: Callable[[], Awaitable[Process | WorkerProcess]]) -> None:
        """Start a child again whenever it ends, ever more slowly where it dies in a row."""
        deaths = 0
        while not self._stopping.is_set():
            born = time.monotonic()
            process = self._processes[name] = await start()
            if self._stopping.is_set():
                process.terminate()
            code = await process.wait()
            forget_metrics(process.pid)
            if self._stopping.is_set():
                return
            deaths = 1 if time.monotonic() - born > STEADY else deaths + 1
            pause = min(RESTART_PAUSE * 2 ** (deaths - 1), LONGEST_PAUSE)
            log.error("%s ended (%s); starting it again in %.1f s", name, _ending(code), pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def _start_worker(
        self, dump: bytes, slot: int, listener: socket.socket, ready: asyncio.Event
    ) -> WorkerProcess:
        begun = self._begun
        if begun is not None and begun.slot == slot:
            self._begun = None
        else:
            begun = WorkerProcess(slot)
        await begun.tell(dump, listener, ready)
        return begun

    async def _announce_when(
        self, ready: Sequence[asyncio.Event], engines: Sequence[Launch], settings: Settings
    ) -> None:
        for event in ready:
            await event.wait()
        for launch in engines:
            if not await _answers(launch):
                log.warning("%s does not answer yet; its log is in the state directory", launch.name)
        if self._announce is not None:
            self._announce(settings)

    async def _stop_children(self) -> None:
        """SIGTERM, workers first, so that they drain while their engines still run; SIGKILL past the drain time."""
        alive = {name: process for name, process in self._processes.items() if process.returncode is None}
        workers = [process for name, process in alive.items() if name.startswith("worker")]
        others = [process for name, process in alive.items() if not name.startswith("worker")]
        for group in (workers, others):
            for process in group:
                process.terminate()
            waits = [asyncio.create_task(process.wait()) for process in group]
            if waits:
                _, late = await asyncio.wait(waits, timeout=self._settings.listen.drain + 5)
                for process in group:
                    if late and process.returncode is None:
                        process.kill()


def _witnesses(settings: Settings, loop: asyncio.AbstractEventLoop) -> Witnesses | None:
    if not settings.audit.witness:
        return None
    from proxy.witness import build  # with the client that it hands notes out by, and the verifier

    return build(settings, loop)


async def _start_engine(launch: Launch, state: Path) -> Process:
    with open(state / f"{launch.name.replace(' ', '-').replace('/', '-')}.log", "ab") as output:
        return await asyncio.create_subprocess_exec(
            *launch.command, stdin=asyncio.subprocess.PIPE, stdout=output, stderr=output
        )


async def _answers(launch: Launch) -> bool:
    """Until a managed engine accepts connections: loading a large model takes a while."""
    parts = urlsplit(launch.url)
    until = time.monotonic() + ENGINE_READY
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.close()
            return True
        await asyncio.sleep(0.05)
    return False


def forget_metrics(pid: int) -> None:
    """What a dead worker said of its present state is no longer so; its counts stay."""
    if METRICS_VARIABLE in os.environ:
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(pid)  # type: ignore[no-untyped-call]


def serve_metrics(settings: Settings, witnesses: Witnesses | None = None) -> None:
    """Prometheus metrics of all workers, summed, on a port of their own: workers write them to files."""
    wanted = settings.telemetry.prometheus
    if wanted is False:
        return
    where = Prometheus() if wanted is True else wanted
    directory = metrics_directory(settings)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    os.environ[METRICS_VARIABLE] = str(directory)
    from prometheus_client import CollectorRegistry, start_http_server  # after the variable is set
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    if witnesses is not None:
        registry.register(witnesses)
    try:
        start_http_server(where.port, where.host, registry)
    except OSError as error:
        raise CannotServe(
            f"cannot serve metrics on {where.host}:{where.port}: {error.strerror}; set telemetry.prometheus.port"
        ) from None


def prepare(launch: Launch, state: Path) -> None:
    """Write the smoke-test model where a managed engine wants it and it is not there yet."""
    if launch.smoke_model is not None:
        path = Path(launch.smoke_model)
        if not path.exists():
            from engines.smoke_model import write_smoke_model  # numpy and gguf: not worth their load time elsewhere

            logging.getLogger("gguf").setLevel(logging.WARNING)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_smoke_model(path)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
