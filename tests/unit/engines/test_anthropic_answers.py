"""Anthropic's answers as events: what is not known is never made a success, and never called clean."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engines import anthropic
from engines.errors import MalformedAnswer
from engines.model import (
    Event,
    Finish,
    Frame,
    Opaque,
    Operation,
    Ping,
    ToolCallDelta,
    ToolCallStart,
    Usage,
    UsageReport,
)


def whole(**changes: Any) -> list[Event]:
    message = {
        "id": "1", "type": "message", "role": "assistant", "model": "m", "content": [{"type": "text", "text": "hi"}],
        "stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 2},
    }  # fmt: skip
    return list(anthropic.DIALECT.decode_answer(Operation.CHAT, json.dumps(message | changes).encode()))


def streamed(event: dict[str, Any]) -> list[Event]:
    data = json.dumps(event).encode()
    return list(anthropic.DIALECT.decoder().feed(Frame(raw=b"", event=event["type"], data=data)))


@pytest.mark.parametrize("word", ["abort", "", None, "compaction"])
def test_law_05_an_unknown_stop_reason_is_never_translated_into_success(word: str | None) -> None:
    events = whole(stop_reason=word)
    assert any(isinstance(event, Opaque) and event.what == "stop_reason" and event.carries_text for event in events)
    if word:
        opaque, finish, _ = streamed({"type": "message_delta", "delta": {"stop_reason": word}, "usage": {}})
        assert (opaque, finish) == (Opaque("stop_reason", carries_text=True, text=word), Finish(0, "stop"))


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("end_turn", "stop"), ("stop_sequence", "stop"), ("max_tokens", "length"), ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"), ("refusal", "refusal"), ("pause_turn", "pause"),
    ],
)  # fmt: skip
def test_known_stop_reasons(word: str, reason: str) -> None:
    assert [event.reason for event in whole(stop_reason=word) if isinstance(event, Finish)] == [reason]
    assert not any(isinstance(event, Opaque) for event in whole(stop_reason=word))


@pytest.mark.parametrize("tokens", [-1, 2**41, 1.5, "many"])
@pytest.mark.parametrize(
    "meter", ["input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"]
)
def test_law_04_token_counts_that_are_none_are_refused(meter: str, tokens: Any) -> None:
    with pytest.raises(MalformedAnswer):
        whole(usage={meter: tokens})
    with pytest.raises(MalformedAnswer):
        streamed({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {meter: tokens}})


def test_law_08_what_is_not_understood_can_be_looked_into() -> None:
    block = {"type": "web_search_tool_result", "tool_use_id": "1", "content": [{"title": "Jane Roe 078-05-1120"}]}
    (said,) = [event for event in whole(content=[block]) if isinstance(event, Opaque)]
    assert "078-05-1120" in said.text
    (said,) = streamed({"type": "content_block_start", "index": 0, "content_block": block})
    assert isinstance(said, Opaque) and "078-05-1120" in said.text
    (said,) = streamed({"type": "something_new", "text": "078-05-1120"})
    assert isinstance(said, Opaque) and "078-05-1120" in said.text


def test_law_08_a_delta_of_a_kind_not_known_is_looked_into_as_it_came() -> None:
    delta = {"type": "compaction_delta", "content": 'J\u00f6rg "Roe" 078-05-1120', "mrn": 4711}
    (said,) = streamed({"type": "content_block_delta", "index": 0, "delta": delta})
    assert isinstance(said, Opaque) and said.carries_text
    assert 'J\u00f6rg "Roe" 078-05-1120' in said.text and "4711" in said.text  # the escapes of JSON are undone


def test_law_08_citations_are_looked_into_whole_and_streamed() -> None:
    block = {"type": "text", "text": "x", "citations": [{"type": "page_location", "cited_text": "078-05-1120"}]}
    (said,) = [event for event in whole(content=[block]) if isinstance(event, Opaque)]
    assert said.what == "citations" and "078-05-1120" in said.text
    _, said_too = streamed({"type": "content_block_start", "index": 0, "content_block": block})
    assert said_too == said
    delta = {"type": "citations_delta", "citation": {"cited_text": "078-05-1120"}}
    (cited,) = streamed({"type": "content_block_delta", "index": 0, "delta": delta})
    assert isinstance(cited, Opaque) and "078-05-1120" in cited.text


def test_law_08_an_empty_fragment_of_a_server_tools_input_hides_nothing() -> None:
    delta = {"type": "input_json_delta", "partial_json": ""}
    assert streamed({"type": "content_block_delta", "index": 0, "delta": delta}) == [Ping()]


def test_law_10_what_is_not_understood_is_kept_once() -> None:
    blocks = [{"type": "web_search_tool_result", "content": "x" * 100} for _ in range(50)]
    said = [event.text for event in whole(content=blocks) if isinstance(event, Opaque)]
    assert len(said) == 50 and sum(len(text) for text in said) < 50 * 200


def test_law_10_tool_calls_are_bounded() -> None:
    decoder = anthropic.DIALECT.decoder()
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "1", "name": "f"}}
    frame = Frame(raw=b"", event="", data=json.dumps(block).encode())
    with pytest.raises(MalformedAnswer):
        for _ in range(5000):
            decoder.feed(frame)


def test_two_calls_in_one_place_are_two() -> None:
    decoder = anthropic.DIALECT.decoder()
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "1", "name": "f"}}
    frame = Frame(raw=b"", event="", data=json.dumps(block).encode())
    found = [event.index for _ in range(3) for event in decoder.feed(frame) if isinstance(event, ToolCallStart)]
    assert found == [0, 1, 2]


def test_arguments_are_the_very_text_that_the_model_wrote() -> None:
    message = b'{"type":"message","content":[{"type":"tool_use","id":"1","name":"f","input":{"n": 1.50, "s": "\\u00e9"}}],"stop_reason":"tool_use"}'
    (said,) = [
        event for event in anthropic.DIALECT.decode_answer(Operation.CHAT, message) if isinstance(event, ToolCallDelta)
    ]
    assert said.arguments == '{"n": 1.50, "s": "\\u00e9"}'


def meters(*usages: dict[str, Any]) -> Usage:
    decoder = anthropic.DIALECT.decoder()
    found = Usage()
    for number, usage in enumerate(usages):
        row = (
            {"type": "message_start", "message": {"usage": usage}}
            if not number
            else {"type": "message_delta", "usage": usage}
        )
        for event in decoder.feed(Frame(raw=b"", event="", data=json.dumps(row).encode())):
            found = event.usage if isinstance(event, UsageReport) else found
    return found


@pytest.mark.parametrize(
    ("usages", "five", "hour"),
    [
        # The last event has the total alone: what was written for an hour is not billed a second time.
        (({"cache_creation_input_tokens": 10, "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 6}}, {"cache_creation_input_tokens": 10}), 4, 6),
        (({"cache_creation_input_tokens": 10}, {"output_tokens": 1}), 10, 0),
        (({"cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 6}},), 4, 6),  # parts alone
        (({"cache_creation_input_tokens": 10, "cache_creation": {"ephemeral_1h_input_tokens": 6}},), 4, 6),
        (({"cache_creation_input_tokens": 3, "cache_creation": {"ephemeral_1h_input_tokens": 6}},), 0, 6),  # contradictory: the dearer
        (({"cache_creation_input_tokens": 10}, {"cache_creation_input_tokens": 12}), 12, 0),
    ],
)  # fmt: skip
def test_law_04_cache_writes_are_counted_once(usages: tuple[dict[str, Any], ...], five: int, hour: int) -> None:
    found = meters(*usages)
    assert (found.cache_write_5m, found.cache_write_1h) == (five, hour)
