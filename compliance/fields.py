"""Every string of a parsed JSON value: what a scanner must see of a request or an answer.

Keys are scanned like values, long numbers like strings (an SSN needs no quotes), and JSON inside a string
is looked into where its escapes could hide something.  Images, audio, files and token arrays cannot be
scanned: they are reported as opaque, never as clean.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

MAX_DEPTH = 64
NUMBER_DIGITS = 9
"""Digits from which a number is scanned: the shortest identifier of the detectors has nine."""

_OPAQUE_TYPES = frozenset(
    {
        "image_url",
        "input_audio",
        "file",
        "image",
        "document",
        "input_image",
        "input_file",
        "container_upload",
        "audio",
        "video_url",
    }
)
_LEAST_NUMBER: int = 10 ** (NUMBER_DIGITS - 1)
_BASE64 = re.compile(r"[A-Za-z0-9+/_=\r\n-]{256,}")

# Field names of the dialects themselves; any other key was chosen by a caller and is stored as `*`.
KNOWN_KEYS = frozenset(
    """
    arguments assistant audio budget_tokens cache_control call_id citations content custom data description
    detail developer dimensions document effort encoding_format file file_data file_id filename format
    function functions id image image_url include_usage input input_audio input_schema is_error json_schema
    logit_bias logprobs max_completion_tokens max_tokens media_type messages metadata modalities model n name
    output_config parallel_tool_calls parameters parts prediction reasoning reasoning_content reasoning_effort
    refusal response_format role safety_identifier schema seed service_tier signature source stop
    stop_sequences store stream stream_options strict system temperature text thinking title tool_call_id
    tool_calls tool_choice tool_use_id tools top_k top_logprobs top_p type url user user_id
    """.split()  # noqa: SIM905  a list of words reads best as words
)
_CALLERS = frozenset({"metadata", "parameters", "input_schema", "schema", "logit_bias", "arguments"})
"""Below these every key is the caller's own."""


class TooDeep(ValueError):
    """Nested deeper than `MAX_DEPTH`: it is not scanned, so it must not be called clean."""


class Fields:
    """The strings of one value, in document order, and whether something in it is opaque."""

    __slots__ = ("opaque", "strings")

    def __init__(self) -> None:
        self.strings: list[str] = []
        self.opaque = 0


def collect(value: Any) -> Fields:
    """All strings of `value`; raises `TooDeep`."""
    fields = Fields()
    _collect(value, fields, fields.strings.append, "", 0)
    return fields


def _collect(value: Any, fields: Fields, add: Any, key: str, depth: int) -> None:
    kind = type(value)
    if kind is str:
        if len(value) > 255 and unscannable(value, key):
            fields.opaque += 1
            return
        add(value)
        if "\\" in value and value.lstrip()[:1] in ("{", "["):
            _collect_nested(value, fields, add, depth)
    elif kind is dict:
        if depth >= MAX_DEPTH:
            raise TooDeep
        if value.get("type") in _OPAQUE_TYPES:
            fields.opaque += 1
        for name, item in value.items():
            add(name)
            _collect(item, fields, add, name, depth + 1)
    elif kind is list:
        if depth >= MAX_DEPTH:
            raise TooDeep
        if key == "input" and value and is_tokens(value):
            fields.opaque += 1
            return
        for item in value:
            _collect(item, fields, add, key, depth + 1)
    elif kind is int:
        if value >= _LEAST_NUMBER or value <= -_LEAST_NUMBER:
            add(str(value))
    elif kind is float and abs(value) >= _LEAST_NUMBER:
        add(f"{value:.0f}")


def _collect_nested(text: str, fields: Fields, add: Any, depth: int) -> None:
    """JSON inside a string: its escapes (\\u0034) could hide digits from a scan of the text as it is."""
    try:
        inner = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return
    _collect(inner, fields, add, "", depth + 1)


def paths(value: Any) -> Iterator[str]:
    """The path of each string that `collect` gives, in the same order; then those of opaque parts, in theirs."""
    opaque: list[str] = []
    yield from _paths(value, "", "", False, opaque)
    yield from opaque


def _paths(value: Any, path: str, key: str, callers: bool, opaque: list[str]) -> Iterator[str]:
    kind = type(value)
    if kind is str:
        if len(value) > 255 and unscannable(value, key):
            opaque.append(path)
            return
        yield path
        if "\\" in value and value.lstrip()[:1] in ("{", "["):
            try:
                inner = msgspec.json.decode(value)
            except (msgspec.DecodeError, RecursionError):
                return
            yield from _paths(inner, path, "", True, opaque)
    elif kind is dict:
        if value.get("type") in _OPAQUE_TYPES:
            opaque.append(path)
        for name, item in value.items():
            shown = name if name in KNOWN_KEYS and not callers else "*"
            below = f"{path}.{shown}" if path else shown
            yield below
            yield from _paths(
                item, below, name, callers or name in _CALLERS or (name == "input" and path != ""), opaque
            )
    elif kind is list:
        if key == "input" and value and is_tokens(value):
            opaque.append(path)
            return
        for index, item in enumerate(value):
            yield from _paths(item, f"{path}[{index}]", key, callers, opaque)
    elif (kind is int or kind is float) and abs(value) >= _LEAST_NUMBER:
        yield path


def unscannable(text: str, key: str) -> bool:
    """Base64 of something else than text: a data: URL, or a long run of its alphabet under `data`."""
    if text.startswith("data:") and ";base64," in text[:128]:
        return True
    return key in ("data", "file_data") and _BASE64.match(text) is not None


def is_tokens(value: list[Any]) -> bool:
    """Token ids instead of text: what they say is not read here."""
    first = value[0]
    return type(first) is int or (type(first) is list and bool(first) and type(first[0]) is int)
