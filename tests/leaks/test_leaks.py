"""Ten thousand requests leave nothing behind: no task, no socket, no memory."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from typing import Any

import psutil
from client import ask, open_stream
from scripted import Play, Received, ScriptedEngine, answering, chat_chunks, completion, streaming
from stack import running

TOTAL = 10_000
CLIENTS = 20
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


async def test_ten_thousand_requests_leave_tasks_sockets_and_memory_flat(tmp_path: Path) -> None:
    """Whole and streamed answers, refusals and engines' errors, over kept connections and new ones."""
    count = 0

    async def script(received: Received, play: Play) -> bool | None:
        nonlocal count
        count += 1
        home.requests.clear()  # the scripted engine keeps what it receives; that is not what is measured
        if count % 50 == 0:
            await answering({"error": {"message": "no"}}, 500)(received, play)
            return None
        if b'"stream"' in received.body:
            return await streaming(chat_chunks(["a", "b"]))(received, play)
        await answering(completion())(received, play)
        return None

    async with ScriptedEngine(script) as home:
        config: dict[str, Any] = {
            "engines": {"home": {"kind": "openai-compatible", "replicas": [home.url], "models": {"m": {}}}}
        }
        async with running(config, tmp_path) as spillway:
            await _many(spillway.port, 1500)
            before = _held(spillway.worker.transport.open_connections)
            await _many(spillway.port, TOTAL)
            after = _held(spillway.worker.transport.open_connections)
            assert spillway.worker.fleet["home"].in_flight == 0
            assert len(spillway.worker.deadlines) == 0
    assert after["tasks"] <= before["tasks"] + 2
    assert after["files"] <= before["files"] + CLIENTS
    assert after["upstream"] <= CLIENTS
    assert after["rss"] - before["rss"] < 12e6, (before, after)


async def _many(port: int, total: int) -> None:
    async def client(number: int) -> None:
        for turn in range(total // CLIENTS):
            if turn % 40 == 7:  # leaves in the middle
                stream = await open_stream(port, "/v1/chat/completions", {**CHAT, "stream": True})
                stream.close()
            else:
                body = {**CHAT, "stream": True} if turn % 3 == 0 else CHAT if turn % 10 else {**CHAT, "model": "nope"}
                await ask(port, "/v1/chat/completions", body)

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    await asyncio.sleep(0.3)


def _held(upstream: int) -> dict[str, float]:
    gc.collect()
    process = psutil.Process()
    return {
        "tasks": len(asyncio.all_tasks()),
        "files": process.num_fds(),
        "rss": process.memory_info().rss,
        "upstream": upstream,
    }
