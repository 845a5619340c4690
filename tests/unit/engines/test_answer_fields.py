"""Every string of an answer has a place, and can be replaced there without a change to any other byte."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.answer_fields import answer_fields, repeated_fields, repeats
from engines.rawjson import rewritten, value_spans

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


def _places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    found = [path] if isinstance(value, (str, list, dict)) and path else []
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return found + [place for key, inner in members for place in _places(inner, (*path, key))]


def _at(value: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


@given(
    value=st.dictionaries(st.text(max_size=6), values, max_size=4),
    ascii=st.booleans(),
    indent=st.sampled_from([None, 1]),
    data=st.data(),
)
def test_any_value_is_found_and_replaced(
    value: dict[str, Any], ascii: bool, indent: int | None, data: st.DataObject
) -> None:
    raw = json.dumps(value, ensure_ascii=ascii, indent=indent).encode()
    places = _places(value)
    spans = value_spans(raw, set(places))
    assert {path: json.loads(raw[start:end]) for path, (start, end) in spans.items()} == {
        p: _at(value, p) for p in places
    }
    if not places:
        return
    chosen = data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=3, unique=True))
    new = rewritten(raw, {path: b'"new"' for path in chosen})
    for path in chosen:
        if not any(path[: len(other)] == other for other in chosen if other != path):
            assert _at(json.loads(new), path) == "new"
    assert len(rewritten(raw, {}).strip()) == len(raw.strip())


def test_a_place_that_is_not_there() -> None:
    with pytest.raises(KeyError):
        rewritten(b'{"a": 1}', {("a",): b"2"})


def test_lanes_of_an_openai_chunk() -> None:
    calls = [{"index": 1, "id": "c", "function": {"name": "f", "arguments": "{"}}]
    delta = {
        "role": "assistant",
        "content": "a",
        "reasoning": "b",
        "tool_calls": calls,
        "audio": {"transcript": "d", "data": "AAAA"},
    }
    body = {
        "id": "chatcmpl-1",
        "model": "m",
        "choices": [{}, {"index": 2, "delta": delta, "finish_reason": "stop"}],
        "x": {"A B": "e f"},
    }
    found = {field.text: (field.lane, field.name, field.json, field.whole) for field in answer_fields("openai", body)}
    assert found == {
        "a": ("2/content", "text", False, False),
        "b": ("2/reasoning", "reasoning", False, False),
        "{": ("2/call/1", "tool_arguments", True, False),
        "f": ("2/choices.1.delta.tool_calls.0.function.name", "opaque", False, True),
        "d": ("2/choices.1.delta.audio.transcript", "opaque", False, False),
        "A B": ("0/x.*", "opaque", False, True),
        "e f": ("0/x.A B", "opaque", False, True),
    }


def test_what_names_is_no_text_unless_it_looks_like_text() -> None:
    body = {
        "id": "my number",
        "type": "message",
        "stop_reason": "end_turn",
        "role": "12",
        "content": [{"type": "text", "text": ""}],
    }
    assert [field.text for field in answer_fields("anthropic", body)] == ["my number", "12", ""]


def test_lanes_of_an_anthropic_event_and_message() -> None:
    event = {"type": "content_block_delta", "index": 3, "delta": {"type": "input_json_delta", "partial_json": "{"}}
    assert [(f.lane, f.json) for f in answer_fields("anthropic", event)] == [("0/call/3", True)]
    blocks = [{"type": "text", "text": "a"}, {"type": "tool_use", "id": "t", "name": "f", "input": {"a": "b"}}, "odd"]
    found = [(f.path, f.lane, f.value) for f in answer_fields("anthropic", {"content": blocks})]
    assert found == [
        (("content", 0, "text"), "0/text", False),
        (("content", 1, "name"), "0/content.1.name", False),
        (("content", 1, "input"), "0/call/1/input", True),
        (("content", 2), "0/content.2", False),
    ]


def test_tokens_that_repeat_a_text() -> None:
    rows = {"content": [{"token": "a"}, {"token": " b"}]}
    body = {"choices": [{"delta": {"content": "a b"}, "logprobs": rows, "token_ids": [1]}, {"logprobs": 5}]}
    found = {path: (value, text) for path, value, text in repeated_fields(body)}
    assert found == {("choices", 0, "logprobs"): (rows, "a b"), ("choices", 0, "token_ids"): ([1], "a b")}
    assert repeats(rows, "a b")
    for value, text in (
        (rows, "a"),
        ([1], ""),
        ({"content": [{"token": 1}]}, "1"),
        ({**rows, "refusal": [{}]}, "a b"),
        ({}, ""),
    ):
        assert not repeats(value, text)
