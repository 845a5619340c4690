"""Edits in place: one value changes, every other byte stays."""

from __future__ import annotations

import json
from time import process_time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.model import BadRequest
from engines.rawjson import duplicate_keys, insert, parse_object, replace, top_level_span
from engines.sse import parse

KEYS = st.sampled_from(["model", "a", "messages", 'quo"te', "back\\slash", "é", "", "mod\\u0065l", "x:y"])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**6), 10**6)
    | st.text(max_size=12)
    | st.sampled_from(['"model":"x"', "}{", "\\", '\\"']),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=5)
STYLES: list[dict[str, Any]] = [
    {},
    {"indent": 1},
    {"separators": (",", ":")},
    {"ensure_ascii": False, "separators": (" , ", " : ")},
]


@given(value=OBJECTS, model=VALUES, style=st.sampled_from(STYLES))
def test_law_07_replace_changes_one_value_and_nothing_else(
    value: dict[str, Any], model: Any, style: dict[str, Any]
) -> None:
    value = {**value, "model": model}
    raw = json.dumps(value, **style).encode("utf-8", "surrogatepass")
    try:
        parse_object(raw)
    except BadRequest:
        return  # a lone surrogate
    span = top_level_span(raw, "model")
    assert span is not None
    assert json.loads(raw[span[0] : span[1]]) == model
    edited = replace(raw, ("model",), b'"new"')
    assert edited == raw[: span[0]] + b'"new"' + raw[span[1] :] == replace(raw, ("model",), b'"new"', present=True)
    assert json.loads(edited) == {**value, "model": "new"}


@pytest.mark.parametrize(
    "raw",
    [b'{"model":"old"}', b'{ "model"\t:\r\n "old" }', b'{"a":"model","model":"old"}', b'{"model":"old","a":["model"]}',
     b'{"a":{"model":1},"model":"old"}', b'{"a":[{"model":"x"},{"model":"y"}],"model":"old"}', b'{"model":"old","a":[{"model":"x"}]}',
     b'{"a":{},"model":"old","b":{"model":"x"}}', b'{"a":"{","model":"old","b":"}"}', b'{"a":"{\\"","model":"old","b":{"model":"model"}}',
     b'{"a":"\\\\","model":"old"}', b'{"a":{"model":"x"},"model":"old","b":"model"}', b'{"mod\\u0065l":"old"}', b'data: {"model":"old"}\n\n', b'{"a":"\\"model\\": \\"x\\"","model":"old"}'],
)  # fmt: skip
@pytest.mark.parametrize("present", [False, True])
def test_replace_finds_the_key_and_not_what_looks_like_it(raw: bytes, present: bool) -> None:
    assert replace(raw, ("model",), b'"new"', present=present) == raw.replace(b'"old"', b'"new"')


@given(value=OBJECTS, style=st.sampled_from(STYLES))
def test_insert_adds_one_member(value: dict[str, Any], style: dict[str, Any]) -> None:
    value.pop("new", None)
    raw = json.dumps(value, **style).encode("utf-8", "surrogatepass")
    assert json.loads(insert(raw, "new", b"[1]")) == {**value, "new": [1]}


@given(value=OBJECTS, style=st.sampled_from(STYLES))
def test_there_are_no_duplicates_where_there_are_none(value: dict[str, Any], style: dict[str, Any]) -> None:
    raw = json.dumps(value, **style).encode("utf-8", "surrogatepass")
    try:
        parsed, _ = parse_object(raw)
    except BadRequest:
        return
    assert duplicate_keys(raw, parsed) == ()


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":1,"a":2}',
        b'{"a":{"b":1, "b" :2}}',
        b'[{"x":1,"x":1}]',
        b'{"a":1,"\\u0061":2}',
        b'{"t":"\\":","t":"\\":"}',
        b'{"a":1,"b":{"c":"\\":"},"a":3}',
    ],
)
def test_a_key_that_stands_twice_is_found(raw: bytes) -> None:
    assert duplicate_keys(raw, msgspec.json.decode(raw))


def test_nested_paths_and_escaped_keys() -> None:
    raw = b'{"m\\u006fdel":"a","x":{"model":"b"}}'
    assert replace(raw, ("model",), b"1") == b'{"m\\u006fdel":1,"x":{"model":"b"}}'
    assert replace(raw, ("x", "model"), b"1") == b'{"m\\u006fdel":"a","x":{"model":1}}'
    with pytest.raises(KeyError):
        replace(raw, ("y",), b"1")


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[1]", b'"x"', b"null", b'{"a":NaN}', b'{"a":1}x', b"\xff", b'{"a":"\xff"}', b"[" * 200_000]
)
def test_what_is_no_object_is_refused_in_words(raw: bytes) -> None:
    with pytest.raises(BadRequest) as refused:
        parse_object(raw)
    assert str(refused.value).startswith("The body")


@pytest.mark.parametrize(
    ("raw", "paths"),
    [
        (b'{"a":1,"a":2}', ("a",)),
        (b'{"a":{"b":[1,{"c":1,"c":2}]}}', ("a.b[1].c",)),
        (b'{"t":"\\":","a":[],"\\u0061":[]}', ("a",)),
    ],
)
def test_a_repeated_key_is_named_by_its_path(raw: bytes, paths: tuple[str, ...]) -> None:
    assert duplicate_keys(raw, msgspec.json.decode(raw)) == paths


def test_law_10_many_keys_with_one_repeated_are_checked_in_linear_time() -> None:
    raw = b"{" + b",".join(b'"k%d":1' % number for number in range(50_000)) + b',"k1":2}'
    value = msgspec.json.decode(raw)
    began = process_time()
    assert duplicate_keys(raw, value) == ("k1",)
    assert process_time() - began < 2  # measured 0.04 s; one look at every pair of keys takes half a minute


@given(value=OBJECTS, style=st.sampled_from(STYLES))
def test_a_key_that_only_an_inner_object_has_is_not_found(value: dict[str, Any], style: dict[str, Any]) -> None:
    outer = {"in": {**value, "model": "x"}, 'quo"model': "x", "z": value}
    raw = json.dumps(outer, **style).encode("utf-8", "surrogatepass")
    with pytest.raises(KeyError):
        replace(raw, ("model",), b'"new"')


@pytest.mark.parametrize(
    ("raw", "edited"),
    [
        (b'data: {"model":"x","c":[{"d":{}}]}\n\n', b'data: {"model":"N","c":[{"d":{}}]}\n\n'),
        (b'data: {"c":[{"d":{}}],"model":"x"}\n\n', b'data: {"c":[{"d":{}}],"model":"N"}\n\n'),
        (b'data: {"c":[{}],"model":"x","u":{}}\n\n', b'data: {"c":[{}],"model":"N","u":{}}\n\n'),
        (b'data: {"t":"\\u00e9",\ndata: "model":"x"\ndata: }\n\n', b'data: {"t":"\\u00e9",\ndata: "model":"N" }\n\n'),
        (b'event: "model":"x"\ndata: {"model":"x","a":1}\n\n', b'event: "model":"x"\ndata: {"model":"N","a":1}\n\n'),
        (b': "model":"x"\ndata: {"model":"x"}\n\n', b': "model":"x"\ndata: {"model":"N"}\n\n'),
        (b'data: {"model":\ndata: "x"}\n\n', b'data: {"model":\ndata: "N"}\n\n'),
        (b'data: {"model"\r\ndata: : "x","a":{}}\n\n', b'data: {"model"\r\ndata: : "N","a":{}}\n\n'),
        (b'data: {"t":"\\u00e9","model":"x"\ndata: ,"a":1}\n\n', b'data: {"t":"\\u00e9","model":"N" ,"a":1}\n\n'),
    ],
)
def test_an_event_is_edited_as_its_object_is(raw: bytes, edited: bytes) -> None:
    done = replace(raw, ("model",), b'"N"')
    frames = [parse(done).data, parse(edited).data]
    assert json.loads(frames[0] or b"") == json.loads(frames[1] or b"")
    if raw.count(b"data:") == 1:
        assert done == edited


def test_insert_keeps_the_space_that_was_there() -> None:
    assert insert(b'{ "a": 1\n}\n', "b", b"2") == b'{ "a": 1,"b":2\n}\n'
    assert insert(b"{ }", "b", b"2") == b'{"b":2 }'
