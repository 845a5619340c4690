"""Where text stands in an answer, by dialect: every string that a reader could see, with its place.

What is known to be no text (ids, names of models, reasons, signatures, encoded bytes) is left out by its key; every
other string counts, also of fields and events that nobody here has heard of.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct

from engines.model import DialectName

Path = tuple[str | int, ...]

_NAMING = frozenset(
    """
    id object model system_fingerprint service_tier finish_reason native_finish_reason stop_reason role type obfuscation
    signature thought_signature data b64_json encrypted_content encrypted_index encrypted_stdout call_id tool_use_id
    file_id container_id media_type status provider format
    """.split()  # noqa: SIM905  a list of words reads best as words
)
"""Keys whose strings are no text of the model, where they look as they should: enumerations, ids, and bytes that only
their maker can read."""
_WORDS = re.compile(r"[A-Za-z_.\-]{0,64}")
_IDS = re.compile(r"[\w.:/+=@|\-]*", re.ASCII)
_ENUMERATIONS = frozenset(
    {
        "object",
        "service_tier",
        "finish_reason",
        "native_finish_reason",
        "stop_reason",
        "role",
        "type",
        "status",
        "format",
    }
)
REPEATING = frozenset({"logprobs", "token_ids", "prompt_token_ids"})
"""Keys under which text is said again, token by token."""
_GROWING = frozenset({"text", "content", "thinking", "reasoning", "summary", "transcript"})
"""Keys of unknown fields that come in pieces, as deltas do."""
_WORD = re.compile(r"[A-Za-z_\-]{1,40}")
"""A key that is a word says nothing of anybody."""
_REASONING = frozenset({"reasoning_content", "reasoning", "thinking"})


class AnswerField(Struct, frozen=True, gc=False):
    """One string of an answer, or of one event of it.  It carries text: only for the moment."""

    path: Path
    lane: str  # strings of one lane are pieces of one text
    name: str  # what records call it: text, reasoning, tool_arguments, opaque
    text: str
    choice: int = 0
    json: bool = False  # the text is JSON itself
    whole: bool = False  # it has no further pieces
    value: bool = False  # not a string: a JSON value, and `text` is to be read from the raw bytes
    key: bool = False  # the name of a member of the object at `path`


def answer_fields(dialect: DialectName, body: Mapping[str, Any]) -> Iterator[AnswerField]:
    """The texts of an event, or of a whole answer."""
    return _openai(body) if dialect == "openai" else _anthropic(body)


def repeated_fields(body: Mapping[str, Any]) -> Iterator[tuple[Path, Any, str]]:
    """(path, value, the text that it should repeat) of what says an OpenAI choice's text again."""
    for position, choice in enumerate(_objects(body.get("choices"))):
        said = choice.get("delta") or choice.get("message")
        content = said.get("content") if isinstance(said, dict) else None
        for key in REPEATING:
            if isinstance(choice.get(key), (dict, list, str)):
                yield ("choices", position, key), choice[key], content if isinstance(content, str) else ""


def repeats(value: Any, text: str) -> bool:
    """Do log probabilities say this text and nothing else?"""
    rows = value.get("content") if isinstance(value, dict) else None
    if not isinstance(rows, list) or value.get("refusal"):
        return False
    tokens = [row.get("token") if isinstance(row, dict) else None for row in rows]
    return all(isinstance(token, str) for token in tokens) and "".join(map(str, tokens)) == text


def _openai(body: Mapping[str, Any]) -> Iterator[AnswerField]:
    yield from _keys(body, (), 0)
    for key, value in body.items():
        if key != "choices":
            yield from _unknown(value, (key,), key, 0)
    for position, choice in enumerate(_objects(body.get("choices"))):
        index = choice.get("index")
        number = index if isinstance(index, int) else position
        yield from _keys(choice, ("choices", position), number)
        for key, value in choice.items():
            path: Path = ("choices", position, key)
            if key in ("delta", "message") and isinstance(value, dict):
                yield from _said(value, path, number)
            else:
                yield from _unknown(value, path, key, number)


def _said(said: Mapping[str, Any], path: Path, choice: int) -> Iterator[AnswerField]:
    """A chunk's delta or a whole answer's message."""
    yield from _keys(said, path, choice)
    for key, value in said.items():
        here = (*path, key)
        if key in ("content", "refusal") and isinstance(value, str):
            yield AnswerField(here, f"{choice}/{key}", "text", value, choice)
        elif key in _REASONING and isinstance(value, str):
            yield AnswerField(here, f"{choice}/{key}", "reasoning", value, choice)
        elif key == "tool_calls":
            for position, call in enumerate(_objects(value)):
                label = call.get("index", call.get("id") or position)
                yield from _call(call, (*here, position), f"{choice}/call/{label}", choice)
        elif key == "function_call" and isinstance(value, dict):
            yield from _function(value, here, f"{choice}/function_call", choice)
        else:
            yield from _unknown(value, here, key, choice)


def _call(call: Mapping[str, Any], path: Path, lane: str, choice: int) -> Iterator[AnswerField]:
    yield from _keys(call, path, choice)
    for key, value in call.items():
        if key == "function" and isinstance(value, dict):
            yield from _function(value, (*path, key), lane, choice)
        else:
            yield from _unknown(value, (*path, key), key, choice)


def _function(function: Mapping[str, Any], path: Path, lane: str, choice: int) -> Iterator[AnswerField]:
    yield from _keys(function, path, choice)
    for key, value in function.items():
        if key == "arguments" and isinstance(value, str):
            yield AnswerField((*path, key), lane, "tool_arguments", value, choice, json=True)
        else:
            yield from _unknown(value, (*path, key), key, choice)


def _anthropic(body: Mapping[str, Any]) -> Iterator[AnswerField]:
    index = body.get("index")
    yield from _keys(body, (), 0)
    for key, value in body.items():
        if (key == "delta" and isinstance(value, dict)) or (key == "content_block" and isinstance(value, dict)):
            yield from _block(value, (key,), f"0/call/{index}", "0/")
        elif key == "content" and isinstance(value, list):
            for position, block in enumerate(value):
                if isinstance(block, dict):
                    yield from _block(block, (key, position), f"0/call/{position}", "0/")
                else:
                    yield from _unknown(block, (key, position), key, 0)
        else:
            yield from _unknown(value, (key,), key, 0)


def _block(block: Mapping[str, Any], path: Path, call: str, lane: str) -> Iterator[AnswerField]:
    """A content block, or a delta of one."""
    yield from _keys(block, path, 0)
    for key, value in block.items():
        here = (*path, key)
        if key == "text" and isinstance(value, str):
            yield AnswerField(here, f"{lane}text", "text", value)
        elif key == "thinking" and isinstance(value, str):
            yield AnswerField(here, f"{lane}thinking", "reasoning", value)
        elif key == "partial_json" and isinstance(value, str):
            yield AnswerField(here, call, "tool_arguments", value, json=True)
        elif key == "input" and isinstance(value, dict):
            if value:
                yield AnswerField(here, f"{call}/input", "tool_arguments", "", json=True, whole=True, value=True)
        else:
            yield from _unknown(value, here, key, 0)


def _unknown(value: Any, path: Path, key: str, choice: int) -> Iterator[AnswerField]:
    """Every string below a field that has no word of its own."""
    stack: list[tuple[Any, Path, str]] = [(value, path, key)]
    while stack:
        item, here, name = stack.pop()
        if isinstance(item, str):
            if item and not _silent(name, item):
                lane = f"{choice}/{'.'.join(map(str, here))}"
                yield AnswerField(here, lane, "opaque", item, choice, whole=name not in _GROWING)
        elif isinstance(item, dict):
            yield from _keys(item, here, choice)
            stack += [
                (inner, (*here, inner_key), inner_key)
                for inner_key, inner in item.items()
                if inner_key not in REPEATING
            ]
        elif isinstance(item, list):
            stack += [(inner, (*here, position), name) for position, inner in enumerate(item)]


def _keys(item: Mapping[str, Any], path: Path, choice: int) -> Iterator[AnswerField]:
    """Names of members that are no words."""
    lane = f"{choice}/{'.'.join(map(str, path))}.*"
    return (
        AnswerField(path, lane, "opaque", member, choice, whole=True, key=True)
        for member in item
        if not _WORD.fullmatch(member)
    )


def _silent(key: str, text: str) -> bool:
    """Is this no text: does it look like what its key names?"""
    return key in _NAMING and (_WORDS if key in _ENUMERATIONS else _IDS).fullmatch(text) is not None


def _objects(value: Any) -> list[dict[str, Any]]:
    """The objects of a list, in their places; an empty one where something else stands."""
    return [item if isinstance(item, dict) else {} for item in value] if isinstance(value, list) else []
