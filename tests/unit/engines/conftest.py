"""What touches sockets runs on the event loop of production and on asyncio's own: their corners differ."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

from engines.transport import Transport


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@pytest.fixture(params=["at once", "in a later turn"])
async def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Transport]:
    """What an engine says is read as it comes, or, where much comes together, in a later turn of the event loop."""
    if request.param != "at once":
        monkeypatch.setattr("engines.turns.Turns.room", lambda turns: False)
    made = Transport(asyncio.get_running_loop())
    yield made
    await made.close()
