"""What is found on a host when nothing is configured: by scripted engines on real ports."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from scripted import Play, Received, ScriptedEngine, json_answer

from proxy.config import build
from proxy.discovery import find_engines, quickstart
from proxy.engine_room import with_managed

NOBODY = {"vllm": 1, "llama.cpp": 1, "ollama": 1, "lmstudio": 1}


def listing(rows: list[dict[str, Any]], **more: Any) -> Any:
    async def script(received: Received, play: Play) -> bool:
        if received.path == "/v1/models":
            await play.send(json_answer({"object": "list", "data": rows}))
        else:
            await play.send(json_answer(more[received.path]) if received.path in more else json_answer({}, 404))
        return False

    return script


async def test_engines_are_recognised_by_what_they_say() -> None:
    vllm = listing([{"id": "a", "owned_by": "vllm", "max_model_len": 1024}])
    cpp = listing([{"id": "b", "owned_by": "llamacpp", "meta": {"n_ctx": 2048}}])
    ollama = listing([{"id": "c", "owned_by": "library"}], **{"/api/version": {"version": "1"}})
    async with ScriptedEngine(vllm) as one, ScriptedEngine(cpp) as two, ScriptedEngine(ollama) as three:
        ports = {**NOBODY, "vllm": one.port, "llama.cpp": two.port, "ollama": three.port}
        found = await asyncio.to_thread(find_engines, "127.0.0.1", ports)
        assert [(f.kind, f.models) for f in found] == [
            ("vllm", {"a": 1024}),
            ("llama.cpp", {"b": 2048}),
            ("ollama", {"c": None}),
        ]


async def test_a_stranger_on_the_port_is_left_alone() -> None:
    async with (
        ScriptedEngine(listing([{"id": "a", "owned_by": "somebody"}])) as one,
        ScriptedEngine(listing([], **{"/": 1})) as two,
    ):
        ports = {**NOBODY, "vllm": one.port, "ollama": two.port}
        assert await asyncio.to_thread(find_engines, "127.0.0.1", ports) == []


def test_a_model_file_is_served_by_llamacpp(tmp_path: Path) -> None:
    model = tmp_path / "phi-3.gguf"
    value, notes = quickstart(allow_cloud=False, model=model, environ={"OPENAI_API_KEY": "x"})
    settings = build(value, {})
    assert "--allow-cloud" in notes[-1]
    managed, (launch,) = with_managed(settings, lambda: 4242)
    assert managed.engines["cpu"].replicas == ("http://127.0.0.1:4242",)
    assert str(model) in launch.command and launch.smoke_model is None


def test_the_cloud_is_used_only_when_it_is_allowed(tmp_path: Path) -> None:
    environ = {"OPENAI_API_KEY": "x"}
    value, notes = quickstart(allow_cloud=True, model=tmp_path / "m.gguf", environ=environ)
    assert set(value["engines"]) == {"cpu", "openai"}
    assert any("ANTHROPIC_API_KEY is not set" in note for note in notes)
    assert build(value, environ).secret("engines.openai.key") == "x"
    value, _ = quickstart(allow_cloud=False, model=tmp_path / "m.gguf", environ=environ)
    assert set(value["engines"]) == {"cpu"}
