"""Asks local engines on their intervals whether they are there, so that decisions know before requests do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

from engines.errors import EngineError
from engines.kinds import kind
from engines.model import Target
from engines.transport import Transport
from proxy.health import Fleet, Origin

INTERVAL = 2.0  # seconds
TIMEOUT = 1.5


class HealthPoller:
    """One task for each replica of each local engine; clouds are not probed, their attempts say enough."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, transport: Transport, fleet: Fleet, targets: Iterable[Target]
    ) -> None:
        self._loop = loop
        self._transport = transport
        self._fleet = fleet
        self._targets = {
            target.engine: target for target in targets if target.boundary == "local" and kind(target.kind).health_path
        }
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        for name, target in self._targets.items():
            for origin in self._fleet[name].origins:
                self._tasks.append(self._loop.create_task(self._watch(target, origin)))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _watch(self, target: Target, origin: Origin) -> None:
        path = kind(target.kind).health_path
        assert path is not None
        while True:
            await asyncio.sleep(INTERVAL)
            if await self._well(target, origin.url, path.encode()):
                if not origin.in_flight or origin.failures:
                    origin.succeeded()
            else:
                origin.failed(self._loop.time())

    async def _well(self, target: Target, url: str, path: bytes) -> bool:
        try:
            async with asyncio.timeout(TIMEOUT):
                status, _, _ = await self._transport.fetch(target, url, b"GET", path, [], timeout=TIMEOUT)
        except (EngineError, TimeoutError):
            return False
        return status < 500
