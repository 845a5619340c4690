"""What a cloud attempt is booked at, through the whole way of a request: tiers, unpriced models, answers that end early."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from client import ask, open_stream
from scripted import SSE_HEAD, Play, Received, ScriptedEngine, answering, chat_chunks, chunk, completion, message_events
from stack import running

from compliance.journal import read
from compliance.records import Outcome

FOX = "The quick brown fox jumps over the lazy dog."  # 10 tokens of o200k_base
CHAT = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 500}


def config(openai: str, claude: str = "http://127.0.0.1:9", **more: Any) -> dict[str, Any]:
    return {
        "engines": {
            "sky": {"kind": "openai", "replicas": [openai], "boundary": "cloud", "models": {"gpt-5.4": {}, "gpt-99": {}}},
            "claude": {"kind": "anthropic", "replicas": [claude], "boundary": "cloud", "models": {"claude-sonnet-4-6": {}}},
        },
        **more,
    }  # fmt: skip


def outcomes(spillway: Any) -> list[Outcome]:
    """The outcomes in the log; their writer is a thread."""
    return [record for record in read(spillway.worker.journal.directory) if isinstance(record, Outcome)]


async def outcome_of(spillway: Any) -> Outcome:
    for _ in range(400):
        if found := outcomes(spillway):
            return found[-1]
        await asyncio.sleep(0.01)
    raise AssertionError("no outcome")


def answered(tier: str | None) -> dict[str, Any]:
    usage = {
        "prompt_tokens": 1_000,
        "completion_tokens": 100,
        "total_tokens": 1_100,
        "prompt_tokens_details": {"cached_tokens": 400},
    }
    return {**completion(), "usage": usage, **({"service_tier": tier} if tier else {})}


@pytest.mark.parametrize(
    ("asked", "tier", "pico", "name"),
    [
        # gpt-5.4: $2.50/M, cached $0.25/M, out $15/M (engines/prices.json): 600 x 2.5 + 400 x 0.25 + 100 x 15 = 3,100 per million
        (None, "default", 3_100_000_000, "openai/gpt-5.4@2026-03-05"),
        # flex: $1.25/M, $0.13/M, $7.50/M: 750 + 52 + 750
        ("flex", "flex", 1_552_000_000, "openai/gpt-5.4@2026-03-05+flex"),
        ("flex", None, 1_552_000_000, "openai/gpt-5.4@2026-03-05+flex"),
        # asked for flex, and answered by the standard tier: that is what is billed
        ("flex", "default", 3_100_000_000, "openai/gpt-5.4@2026-03-05"),
        # priority: $5/M, $0.50/M, $30/M
        ("priority", "priority", 6_200_000_000, "openai/gpt-5.4@2026-03-05+priority"),
    ],
)  # fmt: skip
async def test_an_answer_costs_what_its_tier_costs(
    asked: str | None, tier: str | None, pico: int, name: str, tmp_path: Path
) -> None:
    async with ScriptedEngine(answering(answered(tier))) as sky, running(config(sky.url), tmp_path) as spillway:
        body = {**CHAT, "model": "gpt-5.4", **({"service_tier": asked} if asked else {})}
        assert (await ask(spillway.port, "/v1/chat/completions", body)).status == 200
        outcome = await outcome_of(spillway)
        assert (outcome.cost, outcome.price, outcome.quality) == (pico, name, "exact")
        assert (outcome.input, outcome.cache_read, outcome.output) == (600, 400, 100)


async def test_law_03_a_model_without_a_price_is_refused_or_charged_the_operators_default(tmp_path: Path) -> None:
    async with ScriptedEngine(answering(answered(None))) as sky:
        async with running(config(sky.url), tmp_path / "a") as spillway:
            refused = await ask(spillway.port, "/v1/chat/completions", {**CHAT, "model": "gpt-99"})
            assert (
                refused.status in (400, 403, 503) and json.loads(refused.body)["error"]["code"] == "no_eligible_target"
            )
            assert not sky.requests
        default = {"unpriced": {"input": "$100/M", "output": "$200/M"}}
        async with running(config(sky.url, **default), tmp_path / "b") as spillway:
            assert (await ask(spillway.port, "/v1/chat/completions", {**CHAT, "model": "gpt-99"})).status == 200
            outcome = await outcome_of(spillway)
            # 1,000 of prompt at $100/M, cached or not, and 100 out at $200/M
            assert (outcome.cost, outcome.price) == (120_000_000_000, "default")


async def test_a_tier_without_a_price_is_refused_or_charged_the_operators_default(tmp_path: Path) -> None:
    """Anthropic's committed capacity and whatever comes next: nobody knows what it costs."""
    async with ScriptedEngine(answering(answered("scale"))) as sky:
        body = {**CHAT, "model": "gpt-5.4", "service_tier": "scale"}
        async with running(config(sky.url), tmp_path / "a") as spillway:
            assert (await ask(spillway.port, "/v1/chat/completions", body)).status in (400, 403, 503)
            assert not sky.requests
        async with running(
            config(sky.url, unpriced={"input": "$100/M", "output": "$200/M"}), tmp_path / "b"
        ) as spillway:
            assert (await ask(spillway.port, "/v1/chat/completions", body)).status == 200
            assert (await outcome_of(spillway)).price == "default"


async def _half_an_openai_answer(received: Received, play: Play) -> bool:
    await play.send(SSE_HEAD + chunk(b"".join(chat_chunks([FOX, " " + FOX])[:3])))
    await play.left()
    return False


async def _half_an_anthropic_answer(received: Received, play: Play) -> bool:
    events = message_events([FOX, " " + FOX])
    upto = next(n for n, event in enumerate(events) if b"content_block_stop" in event)
    await play.send(SSE_HEAD + chunk(b"".join(events[:upto])))
    await play.left()
    return False


@pytest.mark.parametrize("name", ["gpt-5.4", "claude-sonnet-4-6"])
async def test_law_09_an_answer_that_is_left_is_booked_by_what_came(name: str, tmp_path: Path) -> None:
    """Twenty tokens had come; the engine had not said how many."""
    pytest.importorskip("tiktoken")
    claude = name.startswith("claude")
    path = "/v1/messages" if claude else "/v1/chat/completions"
    async with ScriptedEngine(_half_an_openai_answer) as sky, ScriptedEngine(_half_an_anthropic_answer) as anthropic:
        async with running(config(sky.url, anthropic.url), tmp_path) as spillway:
            stream = await open_stream(spillway.port, path, {**CHAT, "model": name, "stream": True})
            await stream.until(b" The quick")
            stream.close()
            outcome = await outcome_of(spillway)
            assert (outcome.ending, outcome.quality, outcome.output) == ("abandoned", "estimated", 20)
            assert outcome.cost > 0
            if claude:
                assert (outcome.input, outcome.cache_read) == (7, 3)  # as its first event said


async def test_without_the_tokenizer_an_answer_that_is_left_is_booked_at_its_bound(tmp_path: Path) -> None:
    async with (
        ScriptedEngine(_half_an_openai_answer) as sky,
        running(config(sky.url, limits={"tokenizer": "off"}), tmp_path) as spillway,
    ):
        stream = await open_stream(spillway.port, "/v1/chat/completions", {**CHAT, "model": "gpt-5.4", "stream": True})
        await stream.until(b" The quick")
        stream.close()
        outcome = await outcome_of(spillway)
        assert (outcome.ending, outcome.quality) == ("abandoned", "bounded")
        assert outcome.output == len(FOX) * 2 + 1  # a token a byte
