"""`spillway canary --live` against a worker on real sockets: what holds is said to hold, and what leaks is caught."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from scanners import shared_scanner
from scripted import Received, ScriptedEngine, answering, completion, json_answer
from stack import Running, running, settings_from

from proxy.auth import digest
from proxy.canary import Result, canaries
from proxy.canary_live import NOT_SENT, UNSEEN, Live
from proxy.config import Settings
from proxy.explaining import Explainer

TOKEN = "spw_" + "c" * 43


def config(home: str, sky: str, **compliance: Any) -> dict[str, Any]:
    return {
        "engines": {
            "home": {"kind": "vllm", "replicas": [home], "models": {"m": {"embeddings": True}}},
            "sky": {
                "kind": "openai-compatible",
                "replicas": [sky],
                "boundary": "cloud",
                "models": {"m": {"embeddings": True}},
            },
        },
        "models": {"m": ["home/m", "sky/m"]},
        "unpriced": {"input": "$1/M", "output": "$1/M"},
        "keys": {"app": {"hash": f"sha256:{digest(TOKEN)}", "tenant": "clinic", "project": "triage"}},
        "compliance": {"tier": "fast", "tenants": {"clinic": {}, "bank": {}}, **compliance},
    }


RULES = [
    {"name": "mail", "when": {"found": ["email"], "tenant": "clinic"}, "action": "allow"},
    {"name": "others", "when": {"found": ["card"], "tenant": "bank"}, "action": "block"},
    {"name": "no secrets", "when": {"found": ["secret"]}, "action": "block"},
]


@contextlib.asynccontextmanager
async def stage(
    home_script: Any, tmp_path: Path, runs: Any, believed: Any
) -> AsyncIterator[tuple[Running, Settings, ScriptedEngine]]:
    """A worker that runs one configuration, and the settings that are believed of it."""
    async with ScriptedEngine(home_script) as home, ScriptedEngine(answering(completion())) as sky:
        async with running(config(home.url, sky.url, **runs), tmp_path) as spillway:
            yield spillway, settings_from(config(home.url, sky.url, **believed), tmp_path), sky


async def send(url: str, settings: Settings, *parts: str) -> list[Result]:
    """The canaries of these parts, from a thread, as the command does it."""

    def live() -> list[Result]:
        loop = asyncio.new_event_loop()
        try:
            explainer = Explainer(settings, loop)
            chosen = [c for c in canaries(settings, seed=1) if c.part in parts and "anthropic" not in c.surface]
            return Live(settings, explainer, url, TOKEN).run(chosen[::3] if len(chosen) > 12 else chosen)
        finally:
            loop.close()

    return await asyncio.to_thread(live)


async def test_law_01_every_promise_of_a_running_proxy_holds(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("proxy.explaining.build_scanner", shared_scanner)
    rules = {"rules": RULES}
    async with stage(answering(completion()), tmp_path, rules, rules) as (spillway, settings, sky):
        results = await send(spillway.url, settings, "field", "kind", "rule")
        assert [result.wrong for result in results if result.wrong] == []
        assert {result.answered for result in results if result.forbidden and not result.note} == {("home/m",)}
        assert not sky.requests, "nothing that must not leave has left"


async def test_rules_are_asked_with_the_key_that_they_are_about(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("proxy.explaining.build_scanner", shared_scanner)
    rules = {"rules": RULES}
    async with stage(answering(completion()), tmp_path, rules, rules) as (spillway, settings, _):
        results = {result.name: result for result in await send(spillway.url, settings, "rule")}
        assert results["mail"].note == NOT_SENT
        assert results["others"].note == "not sent: it is about tenant bank"
        assert results["no secrets"].note == "policy_blocked" and results["no secrets"].wrong == ()


async def test_law_01_a_proxy_that_runs_other_rules_is_caught(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("proxy.explaining.build_scanner", shared_scanner)
    careless = {"rules": [{"name": "all", "when": {"found": ["pii"]}, "action": "allow"}]}

    async def busy(received: Received, play: Any) -> None:
        await play.send(json_answer({"error": {"message": "busy"}}, 503))

    async with stage(busy, tmp_path, careless, {"rules": RULES}) as (spillway, settings, sky):
        results = [
            result for result in await send(spillway.url, settings, "rule") if result.forbidden and not result.note
        ]
        assert sky.requests, "the scene is set: something left"
        broken = {wrong for result in results for wrong in result.wrong}
        assert (
            "sky/m answered, where the rules say block" in broken
            or "sky/m was asked, where the rules say block" in broken
        )
        assert any(wrong.startswith("another policy is running") for wrong in broken)


async def test_without_the_log_the_result_says_what_was_not_seen(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("proxy.explaining.build_scanner", shared_scanner)
    rules = {"rules": RULES}
    async with stage(answering(completion()), tmp_path, rules, rules) as (spillway, settings, _):
        elsewhere = settings.model_copy(
            update={"state": settings.state.model_copy(update={"dir": str(tmp_path / "none")})}
        )
        results = [result for result in await send(spillway.url, elsewhere, "rule") if result.answered]
        assert all(result.note.endswith(UNSEEN) for result in results)
