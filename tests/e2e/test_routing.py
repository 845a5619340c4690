"""Short and plain to the small model, the rest to the large one; and waiting for a place where there is no other."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from client import ask, open_stream
from scripted import Play, Received, ScriptedEngine, answering, completion
from stack import running

PATH = "/v1/chat/completions"


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "auto", "messages": [{"role": "user", "content": text}], **more}


@pytest.mark.parametrize(
    ("body", "target"),
    [
        (chat("what is a spillway?"), "small/s"),
        (chat("word " * 3000), "large/l"),
        (chat("fix this:\n```\ndef f():\n    pass\n```"), "large/l"),
        (chat("hi", tools=[{"type": "function", "function": {"name": "f"}}]), "large/l"),
    ],
    ids=["short", "long", "code", "tools"],
)
async def test_length_and_structure_choose_the_size(body: dict[str, Any], target: str, tmp_path: Path) -> None:
    async with ScriptedEngine(answering(completion())) as small, ScriptedEngine(answering(completion())) as large:
        config = {
            "engines": {
                "small": {"kind": "llama.cpp", "replicas": [small.url], "models": {"s": {}}},
                "large": {"kind": "vllm", "replicas": [large.url], "models": {"l": {}}},
            },
            "models": {"auto": {"route": {"small": ["small/s"], "large": ["large/l"]}}},
        }
        async with running(config, tmp_path) as spillway:
            assert (await ask(spillway.port, PATH, body)).headers["x-spillway-target"] == target


async def test_the_other_size_serves_where_the_wanted_one_cannot(tmp_path: Path) -> None:
    async with ScriptedEngine(answering(completion())) as large:
        config = {
            "engines": {
                "small": {"kind": "llama.cpp", "replicas": ["http://127.0.0.1:1"], "models": {"s": {}}},
                "large": {"kind": "vllm", "replicas": [large.url], "models": {"l": {}}},
            },
            "models": {"auto": {"route": {"small": ["small/s"], "large": ["large/l"]}}},
        }
        async with running(config, tmp_path) as spillway:
            assert (await ask(spillway.port, PATH, chat("hi"))).headers["x-spillway-target"] == "large/l"


async def _slow(received: Received, play: Play) -> None:
    await asyncio.sleep(0.15)
    await answering(completion())(received, play)


async def test_a_busy_engine_overflows_where_it_may_and_queues_where_it_must_stay(tmp_path: Path) -> None:
    async with ScriptedEngine(_slow) as home, ScriptedEngine(answering(completion())) as cloud:
        config = {
            "engines": {
                "home": {"kind": "vllm", "replicas": [home.url], "models": {"m": {}}, "concurrency": 1},
                "sky": {"kind": "openai", "replicas": [cloud.url], "boundary": "cloud", "models": {"gpt-4o": {}}},
            },
            "models": {"auto": ["home/m", "sky/gpt-4o"]},
            "listen": {"workers": 1},
        }
        async with running(config, tmp_path) as spillway:
            busy = asyncio.create_task(ask(spillway.port, PATH, chat("one")))
            while not home.requests:
                await asyncio.sleep(0.005)
            over = await ask(spillway.port, PATH, chat("two"))
            assert (over.headers["x-spillway-target"], over.headers["x-spillway-overflow"]) == (
                "sky/gpt-4o",
                "saturated",
            )
            stays = await ask(spillway.port, PATH, chat("three, ssn 123-45-6789"))
            assert (stays.status, stays.headers["x-spillway-target"]) == (200, "home/m")
            assert (await busy).status == 200
            assert len(cloud.requests) == 1


async def test_replicas_share_the_load_and_a_dead_one_is_left_out(tmp_path: Path) -> None:
    async with ScriptedEngine(_slow) as one, ScriptedEngine(_slow) as two:
        engine = {"kind": "vllm", "replicas": [one.url, two.url, "http://127.0.0.1:1"], "models": {"m": {}}}
        config = {"engines": {"home": engine}, "models": {"auto": ["home/m"]}, "limits": {"attempts": 10}}
        async with running(config, tmp_path) as spillway:
            for _ in range(
                6
            ):  # a refused connection is a failure of its replica, and three make it one that is left out
                await asyncio.gather(*(ask(spillway.port, PATH, chat("hi")) for _ in range(3)))
            answers = await asyncio.gather(*(ask(spillway.port, PATH, chat("hi")) for _ in range(8)))
            assert {answer.status for answer in answers} == {200}
            assert min(len(one.requests), len(two.requests)) > 4


async def test_a_stream_is_not_held_up_by_a_client_that_came_before(tmp_path: Path) -> None:
    async with ScriptedEngine(_slow) as home:
        config = {"engines": {"home": {"kind": "vllm", "replicas": [home.url], "models": {"auto": {}}}}}
        async with running(config, tmp_path) as spillway:
            first = await open_stream(spillway.port, PATH, chat("one"))
            assert (await ask(spillway.port, PATH, chat("two"))).status == 200
            first.close()
