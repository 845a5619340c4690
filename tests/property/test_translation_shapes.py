"""Requests of any shape: they are translated, or refused in words, and never end in anything else."""

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
from engines.errors import Untranslatable
from engines.model import BadRequest, Operation

OPENAI: dict[str, Any] = {
    "model": "m", "stream": True, "stream_options": {"include_usage": True}, "max_tokens": 100, "temperature": 0.5, "top_p": 1, "top_k": 5,
    "stop": ["a"], "user": "u", "reasoning_effort": "low", "parallel_tool_calls": True,
    "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}, "strict": True}},
    "messages": [
        {"role": "system", "content": [{"type": "text", "text": "s"}]},
        {"role": "user", "content": [{"type": "text", "text": "t"}, {"type": "image_url", "image_url": {"url": "http://x", "detail": "high"}}]},
        {"role": "assistant", "content": "c", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "r"},
    ],
}  # fmt: skip
ANTHROPIC: dict[str, Any] = {
    "model": "m", "stream": False, "max_tokens": 4096, "temperature": 0.5, "top_p": 1, "stop_sequences": ["a"],
    "metadata": {"user_id": "u"}, "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
    "thinking": {"type": "enabled", "budget_tokens": 2000}, "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {}}},
    "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}}],
    "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "t"}, {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aa"}}]},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "x", "signature": "y"}, {"type": "tool_use", "id": "1", "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "r"}], "is_error": False}]},
    ],
}  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def put(body: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    body = copy.deepcopy(body)
    inner: Any = body
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return body


def translate(body: dict[str, Any], one: Dialect, other: Dialect) -> bytes:
    request = one.parse(Operation.CHAT, json.dumps(body).encode(), {})
    return other.render(
        one.conversation(request), model="other", default_max_output=100, limit_field="max_tokens", sampling_extensions=True
    )  # fmt: skip


WAYS = [(OPENAI, openai.DIALECT, anthropic.DIALECT), (ANTHROPIC, anthropic.DIALECT, openai.DIALECT)]
ODD: tuple[Any, ...] = (
    None,
    True,
    5,
    -1,
    1.5,
    "",
    "x",
    [],
    [1],
    [[]],
    {},
    {"type": []},
    {"type": 5},
    {"type": "text"},
    [{"type": "text", "text": 5}],
)


@pytest.mark.parametrize(("body", "one", "other"), WAYS, ids=["openai", "anthropic"])
def test_every_field_of_every_odd_type(body: dict[str, Any], one: Dialect, other: Dialect) -> None:
    refused = 0
    for path in places(body):
        for value in ODD:
            try:
                assert isinstance(json.loads(translate(put(body, path, value), one, other)), dict)
            except (BadRequest, Untranslatable):
                refused += 1
    assert refused > 100


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "text", "content", "source", "name", "x"]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@given(st.sampled_from(WAYS), st.data())
def test_any_value_at_any_place(way: tuple[dict[str, Any], Dialect, Dialect], data: st.DataObject) -> None:
    body, one, other = way
    path = data.draw(st.sampled_from(list(places(body))))
    try:
        translate(put(body, path, data.draw(json_values)), one, other)
    except (BadRequest, Untranslatable):
        pass


@pytest.mark.parametrize("dialect", [openai.DIALECT, anthropic.DIALECT])
@pytest.mark.parametrize("open_, close", [(b"[", b"]"), (b'{"a":', b"}")])
@pytest.mark.parametrize("depth", [129, 500, 990, 100_000])
def test_what_is_nested_too_deeply_is_refused(dialect: Dialect, open_: bytes, close: bytes, depth: int) -> None:
    inner = open_ * depth + b"1" + close * depth
    raw = b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"x"}],"x":' + inner + b"}"
    with pytest.raises(BadRequest, match="nested"):
        dialect.parse(Operation.CHAT, raw, {})


@pytest.mark.parametrize("dialect", [openai.DIALECT, anthropic.DIALECT])
def test_many_brackets_are_not_depth(dialect: Dialect) -> None:
    raw = (
        b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"'
        + b"[{" * 500
        + b'"}],"x":['
        + b"[]," * 500
        + b"1]}"
    )
    assert dialect.parse(Operation.CHAT, raw, {}).model == "m"


def test_top_k_goes_only_where_it_is_taken() -> None:
    request = anthropic.DIALECT.parse(
        Operation.CHAT, b'{"model":"m","max_tokens":9,"top_k":5,"messages":[{"role":"user","content":"x"}]}', {}
    )
    talk = anthropic.DIALECT.conversation(request)
    with pytest.raises(Untranslatable, match="top_k"):
        openai.DIALECT.render(talk, model="m", default_max_output=1)
    local = json.loads(openai.DIALECT.render(talk, model="m", default_max_output=1, sampling_extensions=True))
    assert (local["top_k"], local["max_tokens"]) == (5, 9)


def test_the_output_limit_has_the_name_that_the_engine_knows() -> None:
    request = anthropic.DIALECT.parse(
        Operation.CHAT, b'{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"x"}]}', {}
    )
    row = json.loads(
        openai.DIALECT.render(
            anthropic.DIALECT.conversation(request),
            model="o3",
            default_max_output=1,
            limit_field="max_completion_tokens",
        )
    )
    assert row["max_completion_tokens"] == 9 and "max_tokens" not in row


def test_no_limit_as_llama_cpps_callers_say_it() -> None:
    raw = b'{"model":"m","max_tokens":-1,"messages":[{"role":"user","content":"x"}]}'
    request = openai.DIALECT.parse(Operation.CHAT, raw, {})
    assert request.max_output is None and request.raw is raw
    with pytest.raises(BadRequest):
        openai.DIALECT.parse(Operation.CHAT, raw.replace(b"-1", b"-2"), {})


@pytest.mark.parametrize(("detail", "goes"), [(None, True), ("auto", True), ("high", True), ("low", False)])
def test_a_coarser_look_at_an_image_is_refused_rather_than_dropped(detail: str | None, goes: bool) -> None:
    image = {"url": "http://x/y.png", **({"detail": detail} if detail else {})}
    body = {"model": "m", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": image}]}]}
    if goes:
        translate(body, openai.DIALECT, anthropic.DIALECT)
    else:
        with pytest.raises(Untranslatable, match="detail"):
            translate(body, openai.DIALECT, anthropic.DIALECT)


@pytest.mark.parametrize("depth", [*range(120, 140), 500, *range(900, 1001, 10), 100_000])
def test_arguments_of_any_depth_are_translated_or_refused(depth: int) -> None:
    """They stand as text in the body, so the body's own bound does not see them."""
    call = {
        "id": "1",
        "type": "function",
        "function": {"name": "f", "arguments": '{"a":' + "[" * depth + "]" * depth + "}"},
    }
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [call]}]}
    if depth < 128:
        translate(body, openai.DIALECT, anthropic.DIALECT)
    else:
        with pytest.raises(Untranslatable, match="arguments"):
            translate(body, openai.DIALECT, anthropic.DIALECT)


BASE = {"model": "m", "max_tokens": 4096, "messages": [{"role": "user", "content": "x"}]}
IMAGE = {"type": "url", "url": "http://x", "detail": 1}
CALL = {"type": "tool_use", "id": "1", "name": "f", "input": {}}


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": -4}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000, "display": "omitted"}}, "thinking.display"),
        ({"thinking": {"type": "adaptive", "display": "omitted"}}, "thinking.display"), ({"thinking": {}}, "thinking"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
        ({"output_config": {"format": {"type": "json_schema", "schema": {}, "name": "x"}}}, "output_config.format.name"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": IMAGE}]}]}, "messages[0].content[0].source.detail"),
        ({"messages": [{"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x", "x": 1}]}]}, "messages[0].content[0].x"),
        ({"messages": [{"role": "assistant", "content": [{**CALL, "caller": {"type": "code_execution_20250825"}}]}]}, "messages[0].content[0].caller"),
    ],
)  # fmt: skip
def test_anthropics_fields_are_not_dropped_in_silence(more: dict[str, Any], field: str) -> None:
    with pytest.raises(Untranslatable) as refused:
        translate({**BASE, **more}, anthropic.DIALECT, openai.DIALECT)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"tool_choice": "required"}, "tool_choice"), ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "f", "x": 1}}}, "tool_choice.function.x"),
        ({"max_completion_tokens": 5}, "max_tokens"), ({"stream_options": {"x": 1}}, "stream_options.x"),
        ({"response_format": {"type": "text", "x": 1}}, "response_format.x"), ({"reasoning_effort": "Jane Roe"}, "reasoning_effort"),
        ({"messages": [{"role": "assistant", "reasoning": "a", "reasoning_content": "b"}]}, "messages[0].reasoning"),
    ],
)  # fmt: skip
def test_openais_fields_are_not_dropped_in_silence(more: dict[str, Any], field: str) -> None:
    with pytest.raises(Untranslatable) as refused:
        translate({**BASE, **more}, openai.DIALECT, anthropic.DIALECT)
    assert refused.value.field == field
    assert "Jane" not in str(refused.value)


@pytest.mark.parametrize("more", [{"tool_choice": "auto"}, {"tool_choice": "none"}, {"max_completion_tokens": 4096}])
def test_what_asks_for_nothing_more_is_translated(more: dict[str, Any]) -> None:
    plain = translate(BASE, openai.DIALECT, anthropic.DIALECT)
    assert translate({**BASE, **more}, openai.DIALECT, anthropic.DIALECT) == plain


def test_law_03_a_limit_of_nothing_is_not_made_the_default() -> None:
    row = json.loads(translate({**BASE, "max_tokens": 0}, openai.DIALECT, anthropic.DIALECT))
    assert row["max_tokens"] == 0


def test_texts_without_a_character_are_left_out_towards_anthropic() -> None:
    """Its API answers 400 to an empty text block; an empty tool result is common."""
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": ""}}
    body = {
        "model": "m",
        "messages": [
            {"role": "system", "content": ""}, {"role": "user", "content": [{"type": "text", "text": ""}, {"type": "text", "text": "x"}]},
            {"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "1", "content": ""},
        ],
    }  # fmt: skip
    row = json.loads(translate(body, openai.DIALECT, anthropic.DIALECT))
    assert "system" not in row
    assert [message["content"] for message in row["messages"]] == [
        [{"type": "text", "text": "x"}],
        [{"type": "tool_use", "id": "1", "name": "f", "input": {}}],
        [{"type": "tool_result", "tool_use_id": "1", "content": []}],
    ]


def test_what_only_the_other_side_cannot_say_is_named_as_the_client_wrote_it() -> None:
    """A system message is no message of the other dialect, which shifts its numbers."""
    said = [{"role": "system", "content": "s"}, {"role": "user", "content": "x"}]
    unsigned = {"role": "assistant", "content": "", "reasoning_content": "hm"}
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "[]"}}
    for row, field in (
        (unsigned, "messages[2].content"),
        ({"role": "assistant", "tool_calls": [call]}, "messages[2].tool_calls[0].function.arguments"),
    ):
        with pytest.raises(Untranslatable) as refused:
            translate({"model": "m", "messages": [*said, row]}, openai.DIALECT, anthropic.DIALECT)
        assert refused.value.field == field
