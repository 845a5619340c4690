"""Usage of every provider, streamed and not, and what it costs: worked out by hand, with the price's source beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from engines import anthropic, openai
from engines.errors import MalformedAnswer
from engines.model import Event, Operation, Usage, UsageReport
from engines.rates import Price, PriceList, priced, read_list
from engines.sse import Framer

SHIPPED = PriceList(read_list(Path(__file__).parents[3].joinpath("engines", "prices.json").read_bytes()))
DAY = "2026-07-29"


def price(name: str, day: str = DAY) -> Price:
    found = SHIPPED.find(name, day)
    assert found is not None
    return found


def last_usage(events: Sequence[Event]) -> Usage:
    return [event.usage for event in events if isinstance(event, UsageReport)][-1]


def streamed(dialect: Any, *frames: dict[str, Any], end: bytes = b"") -> Usage:
    raw = b"".join(b"data: " + json.dumps(frame).encode() + b"\n\n" for frame in frames) + end
    decoder, events = dialect.decoder(), []
    for frame in Framer().feed(raw):
        events += decoder.feed(frame)
    return last_usage(events)


def whole(dialect: Any, answer: dict[str, Any], operation: Operation = Operation.CHAT) -> Usage:
    return last_usage(dialect.decode_answer(operation, json.dumps(answer).encode()))


def completion(usage: dict[str, Any], **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "Hello."}
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "usage": usage,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], **more,
    }  # fmt: skip


def chunks(usage: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", **more}
    delta = {"index": 0, "delta": {"role": "assistant", "content": "Hello."}, "finish_reason": None}
    finish = {"index": 0, "delta": {}, "finish_reason": "stop"}
    return [
        {**base, "choices": [delta], "usage": None},
        {**base, "choices": [finish], "usage": None},
        {**base, "choices": [], "usage": usage},
    ]


# OpenAI: https://developers.openai.com/api/docs/pricing, as the list of July 2026 has it (see engines/prices.json)
GPT_5 = {  # the shape of a real answer: cached and reasoning tokens inside the totals
    "prompt_tokens": 2_006, "completion_tokens": 300, "total_tokens": 2_306,
    "prompt_tokens_details": {"cached_tokens": 1_920, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 192, "audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
}  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("name", "usage", "tier", "pico"),
    [
        # gpt-5: $1.25/M in, $0.125/M cached, $10/M out: 86 x 1.25 + 1,920 x 0.125 + 300 x 10 = 107.5 + 240 + 3,000 per million
        ("openai/gpt-5", GPT_5, "default", 3_347_500_000),
        # flex is half of each: 1,673.75
        ("openai/gpt-5", GPT_5, "flex", 1_673_750_000),
        # priority is twice: 6,695
        ("openai/gpt-5", GPT_5, "priority", 6_695_000_000),
        # gpt-4o-mini, nothing cached: $0.15/M and $0.60/M: 1,000 x 0.15 + 50 x 0.6 = 180 per million
        ("openai/gpt-4o-mini", {"prompt_tokens": 1_000, "completion_tokens": 50, "total_tokens": 1_050}, None, 180_000_000),
        # gpt-5.4 above 272,000 tokens: $5/M, cached $0.50/M, out $22.50/M: 100,000 x 5 + 200,000 x 0.5 + 1,000 x 22.5
        (
            "openai/gpt-5.4",
            {"prompt_tokens": 300_000, "completion_tokens": 1_000, "prompt_tokens_details": {"cached_tokens": 200_000}},
            "default",
            622_500_000_000,
        ),
        # gpt-5.6-sol writes its cache at $6.25/M: 500 x 5 + 1,000 x 6.25 + 10 x 30 = 2,500 + 6,250 + 300
        (
            "openai/gpt-5.6-sol",
            {"prompt_tokens": 1_500, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 1_000}},
            "default",
            9_050_000_000,
        ),
        # gpt-audio: text $2.50/M and $10/M, sound $32/M and $64/M: 20 x 2.5 + 100 x 32 + 10 x 10 + 60 x 64
        (
            "openai/gpt-audio",
            {
                "prompt_tokens": 120, "completion_tokens": 70,
                "prompt_tokens_details": {"audio_tokens": 100}, "completion_tokens_details": {"audio_tokens": 60},
            },
            None,
            7_190_000_000,
        ),
    ],
)  # fmt: skip
def test_openai_by_hand(name: str, usage: dict[str, Any], tier: str | None, pico: int, stream: bool) -> None:
    more = {} if tier is None else {"service_tier": tier}
    found = (
        streamed(openai.DIALECT, *chunks(usage, **more), end=b"data: [DONE]\n\n")
        if stream
        else whole(openai.DIALECT, completion(usage, **more))
    )
    assert priced(found, price(name))[0] == pico
    assert found.quality == "exact"
    assert found.prompt + found.output == usage["prompt_tokens"] + usage["completion_tokens"]  # disjoint: nothing twice


def test_a_tier_counts_also_where_the_chunk_of_the_usage_does_not_name_it() -> None:
    frames = chunks(GPT_5, service_tier="flex")
    del frames[-1]["service_tier"]
    assert streamed(openai.DIALECT, *frames).tier == "flex"


def test_openai_embeddings_by_hand() -> None:
    # text-embedding-3-small: $0.02/M (https://openai.com/api/pricing): 5,000 x 0.02 = 100 per million
    answer = {"object": "list", "data": [], "model": "m", "usage": {"prompt_tokens": 5_000, "total_tokens": 5_000}}
    usage = whole(openai.DIALECT, answer, Operation.EMBEDDINGS)
    assert priced(usage, price("openai/text-embedding-3-small"))[0] == 100_000_000


# Anthropic: https://platform.claude.com/docs/en/about-claude/pricing: Sonnet 4.6 $3/M in, $3.75/M and $6/M written to the cache
# for 5 minutes and an hour, $0.30/M read, $15/M out; Message Batches: half of each
SONNET = {
    "input_tokens": 21, "cache_creation_input_tokens": 1_200, "cache_read_input_tokens": 4_000, "output_tokens": 393,
    "cache_creation": {"ephemeral_5m_input_tokens": 1_000, "ephemeral_1h_input_tokens": 200}, "service_tier": "standard",
}  # fmt: skip
# 21 x 3 + 1,000 x 3.75 + 200 x 6 + 4,000 x 0.3 + 393 x 15 = 63 + 3,750 + 1,200 + 1,200 + 5,895 = 12,108 per million
SONNET_PICO = 12_108_000_000


def message(usage: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [{"type": "text", "text": "Hello."}],
        "stop_reason": "end_turn", "stop_sequence": None, "usage": usage,
    }  # fmt: skip


def events_of(start: dict[str, Any], end: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "type": "message_start",
            "message": {"id": "msg_1", "type": "message", "model": "m", "content": [], "usage": start},
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello."}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": end},
        {"type": "message_stop"},
    ]


def test_anthropic_by_hand() -> None:
    usage = whole(anthropic.DIALECT, message(SONNET))
    assert usage == Usage(21, 4_000, 1_000, 200, 393, tier="standard")
    assert priced(usage, price("anthropic/claude-sonnet-4-6"))[0] == SONNET_PICO


@pytest.mark.parametrize("cumulative", [False, True])
def test_anthropic_streamed_by_hand(cumulative: bool) -> None:
    """The prompt's meters come first, the output's cumulative; the newer API repeats all of them at the end."""
    start = {**SONNET, "output_tokens": 3}
    end = {"output_tokens": 393}
    if cumulative:
        end = {key: SONNET[key] for key in SONNET if key not in ("cache_creation", "service_tier")}
    usage = streamed(anthropic.DIALECT, *events_of(start, end))
    assert priced(usage, price("anthropic/claude-sonnet-4-6"))[0] == SONNET_PICO


def test_anthropics_batch_by_hand() -> None:
    usage = whole(anthropic.DIALECT, message({**SONNET, "service_tier": "batch"}))
    cost, name = priced(usage, price("anthropic/claude-sonnet-4-6"))
    assert (cost, name) == (SONNET_PICO // 2, "anthropic/claude-sonnet-4-6@2026-03-13+batch")


def test_anthropics_committed_tier_has_no_public_price_and_is_never_cheap() -> None:
    usage = whole(anthropic.DIALECT, message({**SONNET, "service_tier": "priority"}))
    cost, name = priced(usage, price("anthropic/claude-sonnet-4-6"))
    assert cost == SONNET_PICO and name.endswith("+priority?")


def test_a_long_prompt_by_hand() -> None:
    """Sonnet 4.5 above 200,000 tokens, cached ones included: $6/M, $0.60/M read, $22.50/M out."""
    usage = whole(
        anthropic.DIALECT, message({"input_tokens": 150_000, "cache_read_input_tokens": 60_000, "output_tokens": 1_000})
    )
    # 150,000 x 6 + 60,000 x 0.6 + 1,000 x 22.5 = 900,000 + 36,000 + 22,500 per million
    assert priced(usage, price("anthropic/claude-sonnet-4-5"))[0] == 958_500_000_000


def test_a_price_holds_from_its_day_on() -> None:
    """Luna cost $1/M until 30 July 2026, and $0.20/M from then on (the vendor's changelog; see engines/prices.json)."""
    usage = Usage(input=100_000)
    assert priced(usage, price("openai/gpt-5.6-luna", "2026-07-29"))[0] == 10**11
    assert priced(usage, price("openai/gpt-5.6-luna", "2026-07-30"))[0] == 10**11 // 5


@pytest.mark.parametrize("count", [-1, 2**41, 1.5, "7", True])
def test_absurd_counts_are_refused_in_either_dialect(count: Any) -> None:
    for usage in (
        {"input_tokens": count, "output_tokens": 1},
        {"input_tokens": 1, "output_tokens": 1, "cache_creation": {"ephemeral_1h_input_tokens": count}},
    ):
        with pytest.raises(MalformedAnswer):
            whole(anthropic.DIALECT, message(usage))
        with pytest.raises(MalformedAnswer):
            streamed(anthropic.DIALECT, *events_of(usage, {"output_tokens": 1}))
    for usage in (
        {"prompt_tokens": count, "completion_tokens": 1},
        {"prompt_tokens": 1, "completion_tokens_details": {"audio_tokens": count}},
    ):
        with pytest.raises(MalformedAnswer):
            whole(openai.DIALECT, completion(usage))


@pytest.mark.parametrize("tier", [7, ["flex"], {"a": 1}, "x" * 100_000])
def test_a_tier_that_is_none_ends_no_answer(tier: Any) -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    assert whole(openai.DIALECT, completion(usage, service_tier=tier)).tier in ("", "other")
    assert whole(anthropic.DIALECT, message({"input_tokens": 1, "output_tokens": 1, "service_tier": tier})).tier in (
        "",
        "other",
    )


WIRE = Path(__file__).parents[4] / "shared" / "data" / "wire"


@pytest.mark.skipif(not WIRE.is_dir(), reason="the recorded bytes are not here")
def test_recorded_local_engines_report_disjoint_meters() -> None:
    """vLLM and llama.cpp, whole and streamed: prompt and answer are counted once each."""
    for name in ("vllm_chat.json", "llamacpp_chat.json", "llamacpppy_chat.json"):
        body = WIRE.joinpath(name).read_bytes()
        said = json.loads(body)["usage"]
        usage = last_usage(openai.DIALECT.decode_answer(Operation.CHAT, body))
        assert (usage.prompt, usage.output) == (said["prompt_tokens"], said["completion_tokens"]), name
    for name, dialect in (
        ("vllm_messages_stream.txt", anthropic.DIALECT),
        ("llamacpp_messages_stream.txt", anthropic.DIALECT),
        ("vllm_chat_stream.txt", openai.DIALECT),
    ):
        decoder, events = dialect.decoder(), []
        raw = WIRE.joinpath(name).read_bytes()
        raw = raw[max(raw.find(b"event:"), 0) if dialect is anthropic.DIALECT else raw.find(b"data:") :]
        for frame in Framer().feed(raw):
            events += decoder.feed(frame)
        usage = last_usage(events)
        assert usage.prompt > 0 and usage.output > 0, name
