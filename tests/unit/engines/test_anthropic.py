"""Anthropic's dialect: what is read of a request, the one edit, whose model's name a client sees."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engines.anthropic import DIALECT
from engines.model import BadRequest, ErrorInfo, Operation, Request


def body(**more: Any) -> bytes:
    row = {"model": "small", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], **more}
    return json.dumps({name: value for name, value in row.items() if value is not ...}).encode()


def parse(operation: Operation = Operation.CHAT, **more: Any) -> Request:
    return DIALECT.parse(operation, body(**more), {"anthropic-beta": "a,b", "x-other": "c"})


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"model": 5}, "model"), ({"messages": []}, "messages"), ({"messages": ["x"]}, "messages[0]"), ({"max_tokens": ...}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"), ({"max_tokens": 10**30}, "max_tokens"), ({"max_tokens": True}, "max_tokens"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"), ({"tools": 5}, "tools"), ({"tools": [5]}, "tools[0]"),
        ({"messages": [{"role": "user", "content": [5]}]}, "messages[0].content[0]"), ({"stream": "yes"}, "stream"),
    ],
)  # fmt: skip
def test_a_wrong_type_is_named_by_its_path(more: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        parse(**more)
    assert refused.value.param == param


def test_a_count_of_tokens_needs_no_limit_and_never_streams() -> None:
    request = parse(Operation.COUNT_TOKENS, max_tokens=..., stream=True)
    assert (request.max_output, request.stream, request.needs) == (None, False, frozenset({"count_tokens"}))
    assert request.headers == {"anthropic-beta": "a,b"}


@pytest.mark.parametrize("style", [{}, {"indent": 1}, {"separators": (",", ":")}])
def test_law_07_the_models_name_is_the_only_edit(style: dict[str, Any]) -> None:
    said = {
        "messages": [{"role": "user", "content": 'say "model": "small"'}],
        "system": "\\",
        "model": "small",
        "max_tokens": 9,
    }
    raw = json.dumps(said, **style).encode()
    request = DIALECT.parse(Operation.CHAT, raw, {})
    assert DIALECT.edit(request, model="small", ask_usage=True) == (raw, ())
    edited, names = DIALECT.edit(request, model="large", ask_usage=True)
    before, after = raw.rsplit(b'"small"', 1)
    assert (edited, names) == (before + b'"large"' + after, ("model_alias",))


@pytest.mark.parametrize(
    ("raw", "restored"),
    [
        (b'{"model":"up","content":[]}', b'{"model":"mine","content":[]}'),
        (b' \n{"model":"up"}', b' \n{"model":"mine"}'),
        # What a whole answer quotes is no event.
        (b'{"content":[{"input":{"a":"message_start"}}],"model":"up"}', b'{"content":[{"input":{"a":"message_start"}}],"model":"mine"}'),
        (b'event: message_start\ndata: {"type":"message_start","message":{"model":"up"}}\n\n', b'event: message_start\ndata: {"type":"message_start","message":{"model":"mine"}}\n\n'),
        (b'event: ping\ndata: {"type":"ping"}\n\n', b'event: ping\ndata: {"type":"ping"}\n\n'),
        (b'{"type":"error","error":{"model":"up"}}', b'{"type":"error","error":{"model":"up"}}'),
    ],
)  # fmt: skip
def test_the_clients_model_is_restored_where_it_stands(raw: bytes, restored: bytes) -> None:
    assert DIALECT.restore_model(raw, "mine") == restored


@pytest.mark.parametrize(
    ("status", "raw", "expected"),
    [
        (529, b'{"type":"error","error":{"type":"overloaded_error","message":"m"}}', ErrorInfo(529, "overloaded", "m", "overloaded_error")),
        (400, b'{"type":"error","error":{"type":5,"message":[]}}', ErrorInfo(400, "invalid_request", "the engine reported an error", "api_error")),
        (503, b"<html>", ErrorInfo(503, "overloaded", "the engine reported an error", "api_error")),
        (500, b"[" * 100_000, ErrorInfo(500, "api", "the engine reported an error", "api_error")),
    ],
)  # fmt: skip
def test_errors_in_neutral_words(status: int, raw: bytes, expected: ErrorInfo) -> None:
    assert DIALECT.decode_error(status, {}, raw) == expected
