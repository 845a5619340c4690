"""Every string of a parsed JSON value: what a scanner must see of a request or an answer.

Keys are scanned like values, long numbers like strings (an SSN needs no quotes), and JSON inside a string
is looked into where its escapes could hide something.  Images, audio, files and token arrays cannot be
scanned: they are reported as opaque, never as clean.

`collect` is the fast walk that every request takes; `located` walks again, with places, when something was
found.  Both give the same strings in the same order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from compliance.model import TextField

MAX_DEPTH = 64
"""Nesting that is walked, JSON inside strings included."""
NUMBER_DIGITS = 9
"""Digits of the shortest number that is an identifier.  One that is shorter by leading zeros gets them back."""

_LEAST_NUMBER: int = 10 ** (NUMBER_DIGITS - 3)
_MOST_GROUPS = 19
_CARD_DIGITS = (13, 19)
_SHORT = 255
"""Characters up to which a string is scanned as text, whatever it looks like."""

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
_BASE64_KEYS = ("data", "file_data")
_BASE64 = re.compile(r"[A-Za-z0-9+/_=\r\n-]*")
_TEXT_TYPE = re.compile(r"data:(?:text/|application/(?:json|xml|yaml|gzip|x-gzip|zlib|x-ndjson)\b)")
"""Media types whose base64 may be text, which detectors decode."""
_EMBEDDED_BASE64 = re.compile(r";base64,[A-Za-z0-9+/_=-]{64}")

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
CALLERS = frozenset({"metadata", "parameters", "input_schema", "schema", "logit_bias", "arguments"})
"""Below these every key is the caller's own."""
_LANES = {
    "arguments": "tool_arguments",
    "input": "tool_arguments",
    "metadata": "metadata",
    "user": "metadata",
    "safety_identifier": "metadata",
    "thinking": "reasoning",
    "reasoning_content": "reasoning",
}


class TooDeep(ValueError):
    """Nested deeper than `MAX_DEPTH`: it is not scanned, so it must not be called clean."""


class Fields:
    """The strings of one value, in document order, and how many parts of it are opaque."""

    __slots__ = ("opaque", "strings")

    def __init__(self) -> None:
        self.strings: list[str] = []
        self.opaque = 0


def collect(value: Any) -> Fields:
    """All strings of `value`; raises `TooDeep`."""
    fields = Fields()
    _collect(value, fields, fields.strings.append, "", 0)
    return fields


def _collect(value: Any, fields: Fields, add: Callable[[str], None], key: str, depth: int) -> None:
    kind = type(value)
    if kind is str:
        if (len(value) > _SHORT and ";base64," in value) or key in _BASE64_KEYS:
            opaque, text = _base64(value, key)
            fields.opaque += opaque
            if not text:
                return
        add(value)
        if "\\" in value:
            inner = _decoded(value)
            if inner is not None:
                _collect(inner, fields, add, "", depth + 1)
    elif kind is dict:
        if depth >= MAX_DEPTH:
            raise TooDeep
        if "type" in value and _is_opaque(value):
            fields.opaque += 1
        for name, item in value.items():
            add(name)
            _collect(item, fields, add, name, depth + 1)
    elif kind is list:
        if depth >= MAX_DEPTH:
            raise TooDeep
        if key == "input" and value and is_tokens(value):
            fields.opaque += 1
        elif value and type(value[0]) is int and (digits := digits_of(value)) is not None:
            add(digits)
        for item in value:
            _collect(item, fields, add, key, depth + 1)
    elif (kind is int or kind is float) and (value >= _LEAST_NUMBER or value <= -_LEAST_NUMBER):
        add(_number(value))


def located(value: Any) -> Iterator[TextField]:
    """The strings of `value` with their places, in the order of `collect`; opaque parts stand between them.

    `value` is one that `collect` took: nothing is refused here.
    """
    return _located(value, "", "", "text", False, 0)


def _located(value: Any, path: str, key: str, lane: str, callers: bool, depth: int) -> Iterator[TextField]:
    kind = type(value)
    if kind is str:
        yield from _located_string(value, path, key, lane, depth)
    elif kind is dict:
        if "type" in value and _is_opaque(value):
            yield TextField(path, "opaque", "")
        lane = _lane_of(value, lane)
        for name, item in value.items():
            shown = name if name in KNOWN_KEYS and not callers else "*"
            below = f"{path}.{shown}" if path else shown
            inside = lane if callers or (name == "input" and path == "") else _LANES.get(name, lane)
            yield TextField(below, inside, name, key=True)
            yield from _located(
                item, below, name, inside, callers or name in CALLERS or (name == "input" and path != ""), depth + 1
            )
    elif kind is list:
        if key == "input" and value and is_tokens(value):
            yield TextField(path, "opaque", "")
        elif value and type(value[0]) is int and (digits := digits_of(value)) is not None:
            yield TextField(path, lane, digits, exact=False)
        for index, item in enumerate(value):
            yield from _located(item, f"{path}[{index}]", key, lane, callers, depth + 1)
    elif (kind is int or kind is float) and (value >= _LEAST_NUMBER or value <= -_LEAST_NUMBER):
        yield TextField(path, lane, _number(value), exact=False)


def _located_string(value: str, path: str, key: str, lane: str, depth: int) -> Iterator[TextField]:
    if (len(value) > _SHORT and ";base64," in value) or key in _BASE64_KEYS:
        opaque, text = _base64(value, key)
        if opaque:
            yield TextField(path, "opaque", "")
        if not text:
            return
    yield TextField(path, lane, value)
    if "\\" in value:
        inner = _decoded(value)
        if inner is not None:
            for field in _located(inner, path, "", lane, True, depth + 1):
                yield TextField(field.path, field.lane, field.text, exact=False, key=field.key)


def _lane_of(value: dict[str, Any], lane: str) -> str:
    """A tool's result is one by its message's role or its block's type."""
    if value.get("role") == "tool" or value.get("type") == "tool_result":
        return "tool_result"
    return lane


def _decoded(text: str) -> Any:
    """The JSON value that `text` is, or None."""
    if text.lstrip()[:1] in ("{", "["):
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError:
            pass
        except RecursionError:
            raise TooDeep from None
    return None


def _number(value: int | float) -> str:
    """A number as the digits that an identifier would have had in quotes."""
    return (str(value) if type(value) is int else f"{value:.0f}").zfill(NUMBER_DIGITS)


def _is_opaque(value: dict[str, Any]) -> bool:
    """A part whose content is not text: it says so by its type."""
    kind = value["type"]
    if type(kind) is not str or kind not in _OPAQUE_TYPES:
        return False
    source = value.get("source")
    return not (kind == "document" and type(source) is dict and source.get("type") in ("text", "content"))


def _base64(text: str, key: str) -> tuple[int, bool]:
    """(opaque parts in a long string, whether it is to be scanned as text).

    A data: URL, or base64 under a key that holds it, is opaque where it is base64 to its last character:
    a prefix alone must not hide what follows it.
    """
    if len(text) <= _SHORT:
        return 0, True
    start = text.find(";base64,", 0, 128) + 8 if text.startswith("data:") else 0
    if (start > 7 or key in _BASE64_KEYS) and _BASE64.fullmatch(text, start):
        return 1, _TEXT_TYPE.match(text) is not None  # opaque all the same: whether it is text is not known here
    return (1 if _EMBEDDED_BASE64.search(text) else 0), True


def is_text(text: str, key: str) -> bool:
    """Is a string that stands under `key` scanned as text?  Else it is opaque to its last character."""
    return ((len(text) <= _SHORT or ";base64," not in text) and key not in _BASE64_KEYS) or _base64(text, key)[1]


def digits_of(value: list[Any]) -> str | None:
    """The digits of a list of whole numbers that could be one number in pieces: a card's, or three groups of an SSN."""
    if len(value) > _MOST_GROUPS or not all([type(item) is int and 0 <= item < _LEAST_NUMBER for item in value]):
        return None
    digits = "".join(map(str, value))
    if _CARD_DIGITS[0] <= len(digits) <= _CARD_DIGITS[1]:
        return digits
    return digits if len(digits) == NUMBER_DIGITS and len(value) in (3, NUMBER_DIGITS) else None


def is_tokens(value: list[Any]) -> bool:
    """Token ids instead of text: what they say is not read here."""
    first = value[0]
    return type(first) is int or (type(first) is list and bool(first) and type(first[0]) is int)
