"""Answers of any shape: an engine's bytes are events or malformed, and what a client gets is never made up."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines import anthropic, openai
from engines.base import Dialect
from engines.errors import EngineError, MalformedAnswer, Untranslatable
from engines.model import Event, Failed, Frame, Operation, Request

ONE, OTHER = openai.DIALECT, anthropic.DIALECT
OPENAI_WHOLE: dict[str, Any] = {
    "id": "1", "object": "chat.completion", "created": 5, "model": "m", "error": None,
    "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {
        "role": "assistant", "content": "c", "refusal": None, "reasoning_content": "r",
        "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":[1]}"}}]}}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}},
}  # fmt: skip
ANTHROPIC_WHOLE: dict[str, Any] = {
    "id": "1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "tool_use", "stop_sequence": None,
    "content": [{"type": "thinking", "thinking": "t", "signature": "s"}, {"type": "text", "text": "x", "citations": None},
                {"type": "tool_use", "id": "1", "name": "f", "input": {"a": [1]}}],
    "usage": {"input_tokens": 1, "output_tokens": 2, "cache_creation_input_tokens": 10,
              "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 6}},
}  # fmt: skip
OPENAI_EVENTS: list[dict[str, Any]] = [
    {"id": "1", "model": "m", "created": 5, "choices": [{"index": 0, "delta": {"role": "assistant", "content": "c"}}]},
    {"id": "1", "choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "1", "function": {"name": "f", "arguments": "{"}}]}}]},
    {"id": "1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {"id": "1", "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}},
    {"error": {"message": "busy", "type": "server_error", "code": 503, "param": None}},
]  # fmt: skip
ANTHROPIC_EVENTS: list[dict[str, Any]] = [
    {"type": "message_start", "message": {"id": "1", "model": "m", "usage": {"input_tokens": 1, "cache_creation": {"ephemeral_5m_input_tokens": 4}}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "1", "name": "f", "input": {}}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": "{}"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 5}},
    {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}},
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def put(body: Any, path: tuple[Any, ...], value: Any) -> Any:
    body = copy.deepcopy(body)
    inner = body
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return body


def request(stream: bool) -> Request:
    body = {"model": "m", "max_tokens": 9, "stream": stream, "messages": [{"role": "user", "content": "x"}]}
    return ONE.parse(Operation.CHAT, json.dumps(body).encode(), {})


def written(client: Dialect, events: list[Event], stream: bool) -> None:
    """What a client gets of these events: bytes, or words about why not."""
    encoder = client.encoder(request(stream), answer_id="1", created=1)
    try:
        for event in events:
            encoder.feed(event)
        encoder.flush()
    except (Untranslatable, MalformedAnswer):
        pass


def read_whole(engine: Dialect, raw: bytes) -> None:
    try:
        events = list(engine.decode_answer(Operation.CHAT, raw))
    except MalformedAnswer:
        return
    for client in (ONE, OTHER):
        written(client, events, stream=False)


def read_stream(engine: Dialect, raws: list[bytes]) -> None:
    decoder = engine.decoder()
    events: list[Event] = []
    try:
        for raw in raws:
            events += decoder.feed(Frame(raw=b"", event="", data=raw))
    except MalformedAnswer:
        return
    for client in (ONE, OTHER):
        written(client, [event for event in events if not isinstance(event, Failed)], stream=True)


ODD: tuple[Any, ...] = (
    None, True, 0, 5, -1, 1.5, 1e300, 2**63, 10**30, "", "x", "\ud800", [], [1], [[]], {}, {"type": []}, {"type": "x"}, [{"type": "text"}],
)  # fmt: skip


@pytest.mark.parametrize(
    ("body", "engine"), [(OPENAI_WHOLE, ONE), (ANTHROPIC_WHOLE, OTHER)], ids=["openai", "anthropic"]
)
def test_every_field_of_a_whole_answer_of_every_odd_type(body: dict[str, Any], engine: Dialect) -> None:
    for path in places(body):
        for value in ODD:
            read_whole(engine, json.dumps(put(body, path, value)).encode())


@pytest.mark.parametrize(
    ("rows", "engine"), [(OPENAI_EVENTS, ONE), (ANTHROPIC_EVENTS, OTHER)], ids=["openai", "anthropic"]
)
def test_every_field_of_every_event_of_every_odd_type(rows: list[dict[str, Any]], engine: Dialect) -> None:
    for path in places(rows):
        for value in ODD:
            read_stream(engine, [json.dumps(row).encode() for row in put(rows, path, value)])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "text", "content", "index", "error", "x"]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@given(st.sampled_from([(OPENAI_WHOLE, ONE), (ANTHROPIC_WHOLE, OTHER)]), st.data())
def test_any_value_at_any_place_of_an_answer(way: tuple[dict[str, Any], Dialect], data: st.DataObject) -> None:
    body, engine = way
    path = data.draw(st.sampled_from(list(places(body))))
    read_whole(engine, json.dumps(put(body, path, data.draw(json_values))).encode())


@given(st.sampled_from([(OPENAI_EVENTS, ONE), (ANTHROPIC_EVENTS, OTHER)]), st.data())
def test_any_value_at_any_place_of_a_stream(way: tuple[list[dict[str, Any]], Dialect], data: st.DataObject) -> None:
    rows, engine = way
    path = data.draw(st.sampled_from(list(places(rows))))
    read_stream(engine, [json.dumps(row).encode() for row in put(rows, path, data.draw(json_values))])


@pytest.mark.parametrize(
    ("body", "engine"), [(OPENAI_WHOLE, ONE), (ANTHROPIC_WHOLE, OTHER)], ids=["openai", "anthropic"]
)
@pytest.mark.parametrize("depth", [200, *range(900, 1001, 4), 100_000])
def test_no_depth_of_an_answer_is_too_much(body: dict[str, Any], engine: Dialect, depth: int) -> None:
    """Near the interpreter's own limit what could be read could perhaps not be written."""
    deep = b'{"a":' + b"[" * depth + b"]" * depth + b"}"
    for path in places(body):
        read_whole(engine, json.dumps(put(body, path, "@@")).encode().replace(b'"@@"', deep))
        quoted = json.dumps(deep.decode()).encode()
        read_whole(engine, json.dumps(put(body, path, "@@")).encode().replace(b'"@@"', quoted))
    with_error = b'{"type":"error","error":{"type":"x","message":%b}}' % deep
    read_whole(engine, with_error)
    assert engine.decode_error(500, {}, with_error).status == 500


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("client", [ONE, OTHER], ids=["openai", "anthropic"])
def test_law_05_an_answer_without_an_end_is_no_success(client: Dialect, stream: bool) -> None:
    events = ONE.decode_answer(Operation.CHAT, b'{"id":"1","model":"m","choices":[]}')
    encoder = client.encoder(request(stream), answer_id="1", created=1)
    with pytest.raises(EngineError):
        for event in events:
            encoder.feed(event)
        encoder.flush()
