"""Anthropic's answers as events: what is not known is never made a success, and never called clean."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engines import anthropic
from engines.errors import MalformedAnswer
from engines.model import Event, Finish, Frame, Opaque, Operation


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
