"""What an answer is booked as where its engine did not get to say what it used."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from engines import anthropic, openai
from engines.model import Operation, Request, Target, Usage
from engines.rates import ADDED_TOKENS, Price, priced, upper_bound
from engines.tokens import Tokens
from proxy.counts import Counts
from proxy.estimates import IMAGE_TOKENS, PROMPT_LIMIT, images, prompt_text, question, used
from proxy.session import KEPT_LIMIT, StreamSession

CLOUD = Target("sky/gpt-5", "sky", "openai", "gpt-5", "cloud", (), frozenset())
HERE = Target("gpu/m", "gpu", "vllm", "m", "local", (), frozenset())
PRICE = Price("openai/gpt-5", input=1_250_000, output=10_000_000, cached=125_000)
TEXT = "The quick brown fox jumps over the lazy dog."  # 10 tokens of o200k_base


def words(text: str) -> int:
    """A tokenizer whose tokens are words."""
    return len(text.split())


def counted(request: Request, live: StreamSession, count: Callable[[str], int] = words) -> Counts:
    asked = question(request, live)
    return asked.counts(request, [count(text) for text in asked.texts])


def estimate(request: Request, live: StreamSession, most: int) -> Usage:
    """Of an attempt at a cloud."""
    return used(request, CLOUD, live, most, counted(request, live))


def request_of(body: dict[str, Any], dialect: Any = openai.DIALECT) -> Request:
    return dialect.parse(Operation.CHAT, json.dumps(body).encode(), {})


def chat(**more: Any) -> Request:
    return request_of(
        {"model": "m", "stream": True, "messages": [{"role": "user", "content": "one two three"}], **more}
    )


def session(request: Request, raw: bytes, dialect: Any = openai.DIALECT, *, end: bool = False) -> StreamSession:
    made = StreamSession(request, dialect, dialect, answer_id="a", created=1, restore_model=False, strip_usage=False)
    made.kept = []
    made.feed(raw)
    if end:
        made.end()
    return made


def delta(text: str) -> bytes:
    row = {"id": "c", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
    return b"data: " + json.dumps(row).encode() + b"\n\n"


def event(**fields: Any) -> bytes:
    return f"event: {fields['type']}\n".encode() + b"data: " + json.dumps(fields).encode() + b"\n\n"


START = event(
    type="message_start",
    message={
        "id": "m",
        "type": "message",
        "model": "m",
        "content": [],
        "usage": {"input_tokens": 1_000, "cache_read_input_tokens": 50, "output_tokens": 1},
    },
)
BLOCK = event(type="content_block_start", index=0, content_block={"type": "text", "text": ""})


def said(text: str) -> bytes:
    return event(type="content_block_delta", index=0, delta={"type": "text_delta", "text": text})


def test_an_interrupted_answer_without_usage_is_estimated_from_what_came() -> None:
    usage = estimate(chat(), session(chat(), delta("a b c ") + delta("d e")), 1_000)
    # "user" and the three words of the prompt, 4 tokens for the message; five words came
    assert usage == Usage(input=4 + 4, output=5, quality="estimated")


def test_an_interrupted_answer_of_anthropics_keeps_the_reported_prompt_and_counts_what_came() -> None:
    """The first event says one token of output: that is not what the answer had when the client left."""
    body = {"model": "m", "max_tokens": 100, "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    request = request_of(body, anthropic.DIALECT)
    live = session(request, START + BLOCK + said("a b c d e f g"), anthropic.DIALECT)
    assert live.usage is not None and live.usage.output == 1 and not live.usage_final
    assert estimate(request, live, 100) == Usage(input=1_000, cache_read=50, output=7, quality="estimated")
    # by hand at $3/M, $0.30/M and $15/M: 1,000 x 3 + 50 x 0.3 + 7 x 15 = 3,120 per million
    sonnet = Price("a/s", input=3_000_000, output=15_000_000, cached=300_000)
    assert priced(estimate(request, live, 100), sonnet)[0] == 3_120_000_000


def test_a_whole_answer_is_the_engines_word() -> None:
    body = {"model": "m", "max_tokens": 100, "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    request = request_of(body, anthropic.DIALECT)
    end = event(type="message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 42})
    live = session(request, START + BLOCK + said("a b") + end, anthropic.DIALECT)
    assert live.usage_final and estimate(request, live, 100) == Usage(input=1_000, cache_read=50, output=42)


def test_the_limit_that_the_client_set_bounds_an_estimate() -> None:
    request = chat(max_tokens=3)
    assert estimate(request, session(request, delta("a b c d e f")), 3).output == 3


def test_without_a_tokenizer_it_is_the_bound_and_says_so() -> None:
    request = chat()
    usage = used(request, CLOUD, session(request, delta("äöü") + delta("xy")), 1_000)
    assert usage == Usage(input=len(request.raw) + ADDED_TOKENS, output=8, quality="bounded")


@pytest.mark.parametrize("is_counted", [True, False])
@pytest.mark.parametrize(
    "raw", [b"", delta("word " * 400), delta("😀" * 3_000), delta("x" * 40_000) + delta("ж" * 60_000)]
)
def test_law_03_an_estimate_costs_no_more_than_what_was_held(raw: bytes, is_counted: bool) -> None:
    request = chat(max_tokens=200)
    live = session(request, raw)
    usage = estimate(request, live, 200) if is_counted else used(request, CLOUD, live, 200)
    assert priced(usage, PRICE)[0] <= upper_bound(len(request.raw), 200, 1, PRICE)


def test_local_answers_are_a_token_for_four_bytes() -> None:
    request = chat()
    live = session(request, delta("x" * 40))
    expected = Usage(input=len(request.raw) // 4, output=10, quality="estimated")
    assert used(request, HERE, live, 1_000) == expected


def test_what_is_kept_of_an_answer_is_bounded_and_scaled() -> None:
    request = chat()
    live = session(request, b"".join(delta("word " * 2_000) for _ in range(20)))  # 200,000 characters, 40,000 words
    assert live.kept is not None and sum(map(len, live.kept)) <= KEPT_LIMIT + 10_000
    usage = estimate(request, live, 10**6)
    assert abs(usage.output - 40_000) <= 5 and usage.quality == "estimated"


def test_the_tier_that_was_asked_for_counts_where_the_answer_did_not_say() -> None:
    request = chat(service_tier="flex")
    assert estimate(request, session(request, delta("a")), 100).tier == "flex"


def test_pictures_are_bounded_not_counted_as_text() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 5_000}}
    request = request_of(
        {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "what is it"}, picture]}]}
    )
    assert images(request) >= 1
    assert prompt_text(request.body)[0].split() == ["user", "text", "what", "is", "it"]
    usage = estimate(request, session(request, delta("a cat")), 100)
    assert usage.quality == "bounded" and usage.input >= IMAGE_TOKENS


def test_law_03_the_largest_picture_is_within_the_bound() -> None:
    """gpt-4o-mini: 2,833 tokens and 5,667 for each of eight tiles of 512 pixels (768 x 2,048)."""
    picture = {"type": "image_url", "image_url": {"url": "https://x.example/a.png", "detail": "high"}}
    request = request_of({"model": "m", "messages": [{"role": "user", "content": [picture, picture]}]})
    assert images(request) * IMAGE_TOKENS >= 2 * (2_833 + 8 * 5_667)


def test_tokens_that_a_client_gave_as_numbers_are_counted() -> None:
    for given, count in (([1, 2, 3], 3), ([[1, 2], [3]], 3), (["two words", "three"], 3)):
        request = openai.DIALECT.parse(Operation.EMBEDDINGS, json.dumps({"model": "m", "input": given}).encode(), {})
        assert estimate(request, session(chat(), b""), 0) == Usage(input=count, quality="estimated")


def test_sound_is_taken_at_its_bound() -> None:
    part = {"type": "input_audio", "input_audio": {"data": "A" * 4_000, "format": "wav"}}
    request = request_of({"model": "m", "messages": [{"role": "user", "content": [part]}]})
    usage = estimate(request, session(request, delta("a")), 100)
    assert usage.quality == "bounded" and usage.input >= 4_000


def test_a_large_prompt_is_looked_at_in_part() -> None:
    request = request_of({"model": "m", "messages": [{"role": "user", "content": "word " * 400_000}] * 2})
    text, length, messages = prompt_text(request.body)
    assert len(text) <= PROMPT_LIMIT + 8 and length == 2 * 2_000_000 + 8 and messages == 2
    usage = estimate(request, session(request, delta("a")), 100)
    assert abs(usage.input - 800_000) < 8_000


def test_by_the_real_encoding() -> None:
    pytest.importorskip("tiktoken")
    tokens = Tokens()
    request = chat()
    live = session(request, delta(TEXT))
    counts = counted(request, live, lambda text: tokens.count(text, "o200k_base"))
    assert used(request, CLOUD, live, 100, counts).output == 10


def test_what_an_engine_counted_stands_for_the_whole_answer_within_its_limit() -> None:
    """Of a long answer the first part was counted; more than was asked for cannot have come, and what was said stands."""
    request = chat()
    live = session(request, delta("x" * KEPT_LIMIT) + delta("y" * KEPT_LIMIT))
    counts = Counts(prompt=12, output=1_000, looked_at=KEPT_LIMIT)
    assert used(request, HERE, live, 10**6, counts) == Usage(input=12, output=2_000, quality="estimated")
    assert used(request, HERE, live, 1_500, counts).output == 1_500
    no_prompt = Counts(output=1_000, looked_at=KEPT_LIMIT)
    assert used(request, HERE, live, 10**6, no_prompt).input == len(request.raw) // 4
    live.usage = Usage(input=9, cache_read=3, output=2_100)
    kept = Usage(input=9, cache_read=3, output=2_100, quality="estimated")
    assert used(request, HERE, live, 10**6, counts) == kept
    nothing = session(request, b"")
    assert used(request, HERE, nothing, 100, Counts(prompt=12, output=0)) == Usage(input=12, quality="estimated")


def test_what_a_local_engine_said_before_it_was_left_is_kept_and_the_rest_is_a_token_for_four_bytes() -> None:
    request = chat()
    live = session(request, delta("x" * 40))
    live.usage = Usage(input=9, cache_read=3, output=2)
    expected = Usage(input=9, cache_read=3, output=10, quality="estimated")
    assert used(request, HERE, live, 1_000) == expected
