"""JSON bodies as bytes: parsed once, edited in place.

What is not edited stays as the client wrote it: order, number formats, escapes, duplicate keys.  Edits find
the byte span of one value and replace it.  The structure is found by a scanner that skips whole strings, so
nothing inside a string can be taken for structure (RFC 8259).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import msgspec

from engines.model import BadRequest

# One token of interest: a whole string, or a bracket, comma or colon.  What lies between is numbers, words and space.
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],:]', re.DOTALL)
_KEY_LIKE = re.compile(rb'"[ \t\r\n]*:')
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_SPACE = b" \t\r\n"
MAX_DEPTH = 128
"""Nesting of a body: schemas of tools go to ten or twenty, and what engines and scanners bear lies above."""
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding hostile bytes as JSON can raise."""

_STRING_VALUE = re.compile(rb'[ \t\r\n]*:[ \t\r\n]*("[^"\\]*")')  # behind its key, and without escapes
_BETWEEN = re.compile(rb"(?:[ \t\r\n:]|data:)*+")  # a key and its value, also where lines cut an event there
_decode = msgspec.json.Decoder().decode


def parse_object(raw: bytes) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(the body as a dict, `duplicate_keys` of it); raises `BadRequest` saying what is wrong with it (never quoting it)."""
    try:
        value = _decode(raw)
    except msgspec.DecodeError as error:
        raise BadRequest(f"The body is not valid JSON: {error}.") from None
    except UnicodeDecodeError:
        raise BadRequest("The body is not valid UTF-8.") from None
    except RecursionError:
        raise BadRequest("The body is nested too deeply.") from None
    if not isinstance(value, dict):
        raise BadRequest(f"The body must be a JSON object, not {_kind(value)}.")
    keys, containers = _counted(value)
    if containers > MAX_DEPTH and _deeper(value, MAX_DEPTH):
        raise BadRequest(f"The body is nested more than {MAX_DEPTH} levels deep.")
    return value, _repeated_keys(raw, keys)


def nested_object(text: str) -> dict[str, Any] | None:
    """The object that stands as JSON text inside a body (a tool call's arguments); no text is an empty one.

    None where it is no object, or nested so deeply that it could not be written again.
    """
    try:
        value = _decode(text or "{}")
    except UNREADABLE:
        return None
    return None if not isinstance(value, dict) or _deeper(value, MAX_DEPTH) else value


def readable(raw: bytes) -> str:
    """JSON text with the escapes in its strings undone: for whoever looks for identifiers in what is not understood."""
    if b"\\" in raw:
        raw = _STRING.sub(_unescaped, raw)
    return raw.decode("utf-8", "replace")


def duplicate_keys(raw: bytes, value: Any) -> tuple[str, ...]:
    """Paths (`a.b[2].c`) of keys that stand twice in one object of `raw`, which parses to `value`; the first few.

    Parsers disagree on which of the two counts, so what was scanned here might not be what an engine reads.
    Every key is followed by a colon: where there are no more of them than keys, or no more key-like places, there is
    no duplicate, and nothing more is done.
    """
    return _repeated_keys(raw, _counted(value)[0])


def _repeated_keys(raw: bytes, keys: int) -> tuple[str, ...]:
    return () if raw.count(b":") == keys or len(_KEY_LIKE.findall(raw)) == keys else _repeated(raw)


def _repeated(raw: bytes) -> tuple[str, ...]:
    any_found = False

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal any_found
        row = dict(items)
        if len(row) == len(items):
            return row
        any_found = True
        return _Repeating(row, tuple(name for name, count in Counter(name for name, _ in items).items() if count > 1))

    try:
        tree = json.loads(raw, object_pairs_hook=pairs, parse_int=str, parse_float=str)  # numbers do not matter here
    except (ValueError, RecursionError):
        return ("?",)
    return _repeated_paths(tree) if any_found else ()


def top_level_span(raw: bytes, key: str) -> tuple[int, int] | None:
    """(start, end) of the value of a top-level key; None if absent.  Bodies with a key twice are refused before."""
    for name, start, end in _members(raw, 0):
        if name == key:
            return start, end
    return None


def replace(raw: bytes, path: tuple[str, ...], new: bytes, *, present: bool = False) -> bytes:
    """`raw`, an object or an SSE event of one, with the value at a path of keys replaced; KeyError where there is none.

    `present`: the caller knows that the object has the key (it was parsed), so one place in `raw` must be it.
    """
    start, end = (_string_span(raw, path[0], present) if len(path) == 1 else None) or _span(raw, path)
    return raw[:start] + new + raw[end:]


def insert(raw: bytes, key: str, value: bytes) -> bytes:
    """`raw` with a member added at the end of the top-level object."""
    before = raw[: raw.rindex(b"}")].rstrip(_SPACE)
    comma = b"" if before.endswith(b"{") else b","
    return before + comma + msgspec.json.encode(key) + b":" + value + raw[len(before) :]


def value_spans(raw: bytes, wanted: Collection[tuple[str | int, ...]]) -> dict[tuple[str | int, ...], tuple[int, int]]:
    """(start, end) of strings, objects and arrays at these paths of keys and places in valid JSON; of a key twice, the last."""
    found: dict[tuple[str | int, ...], tuple[int, int]] = {}
    path: list[str | int] = []  # of the value that is being read
    opened: list[int] = []  # where the objects and arrays around it begin
    expecting_key = False
    for token in _TOKEN.finditer(raw):
        mark = raw[token.start()]
        if mark == 0x22:  # a string
            if expecting_key:
                path[-1] = _text(token.group())
                expecting_key = False
            elif tuple(path) in wanted:
                found[tuple(path)] = token.span()
        elif mark == 0x7B or mark == 0x5B:  # { [
            opened.append(token.start())
            expecting_key = mark == 0x7B
            path.append("" if expecting_key else 0)
        elif mark == 0x7D or mark == 0x5D:  # } ]
            path.pop()
            start = opened.pop()
            expecting_key = False
            if tuple(path) in wanted:
                found[tuple(path)] = start, token.end()
        elif mark == 0x2C:  # ,
            last = path[-1]
            if isinstance(last, int):
                path[-1] = last + 1
            else:
                expecting_key = True
    return found


def rewritten(raw: bytes, changes: Mapping[tuple[str | int, ...], bytes]) -> bytes:
    """Valid JSON with the strings, objects and arrays at these paths replaced; KeyError where there is none."""
    spans = value_spans(raw, changes)
    out: list[bytes] = []
    at = 0
    for path in sorted(changes, key=lambda path: spans[path]):
        start, end = spans[path]
        if start >= at:  # else it lies within what is replaced already
            out += (raw[at:start], changes[path])
            at = end
    out.append(raw[at:])
    return b"".join(out)


def _string_span(raw: bytes, key: str, present: bool) -> tuple[int, int] | None:
    """The span of a plain string value, where its key is provably one of the outermost object.

    Inside a string a quote is escaped, so a match whose quote is not escaped is a key.  It is one of the outermost
    object if only that one's brace was opened before it, or if only that one's is closed after it: so a key is found
    at once before the long parts of a body and behind them.  Else it must be known to be `present`, and stand once: a
    key in escapes could hide (\\u006d), so any escape of that kind sends the search to the scanner, as all doubt does.
    """
    if not key.isascii() or not key.isidentifier():
        return None
    quoted = b'"%b"' % key.encode()
    first = raw.find(quoted)
    if first < 0:
        return None
    value = _plain_value(raw, first, quoted)
    if value is not None and raw.count(b"{", 0, first) == 1:
        return value
    last = raw.rfind(quoted)
    if last != first:
        value = _plain_value(raw, last, quoted)
    if value is None:
        return None
    if raw.find(b"}", raw.find(b"}", value[1]) + 1) < 0:
        return value
    return value if present and last == first and b"\\u00" not in raw else None


def _plain_value(raw: bytes, at: int, quoted: bytes) -> tuple[int, int] | None:
    """The span of the string behind this key, where neither has escapes."""
    if raw[at - 1 : at] == b"\\":
        return None
    value = _STRING_VALUE.match(raw, at + len(quoted))
    return None if value is None else value.span(1)


def _span(raw: bytes, path: tuple[str, ...]) -> tuple[int, int]:
    start, end = 0, len(raw)
    for key in path:
        for name, first, last in _members(raw, start):
            if name == key:
                start, end = first, last
                break
        else:
            raise KeyError(key)
    return start, end


def _members(raw: bytes, start: int) -> Iterator[tuple[str, int, int]]:
    """(key, value's start, value's end) of each member of the object that begins at or after `start`."""
    depth = 0
    key: str | None = None
    value_at = 0
    expecting_key = expecting_colon = False
    for token in _TOKEN.finditer(raw, start):
        mark = raw[token.start()]
        if mark == 0x22:  # a string
            if depth == 1 and expecting_key:
                key = _text(token.group())
                expecting_key, expecting_colon = False, True
        elif mark == 0x7B or mark == 0x5B:  # { [
            depth += 1
            if depth == 1:
                if mark != 0x7B:
                    return
                expecting_key = True
        elif mark == 0x3A:  # :
            if depth == 1 and expecting_colon:  # others at this depth are of `data:`, where lines cut an event
                value_at = token.end()
                expecting_colon = False
        else:  # } ] ,
            if depth == 1 and key is not None:
                yield (key, *_trimmed(raw, value_at, token.start()))
                key = None
            if mark == 0x2C:
                expecting_key = depth == 1
            else:
                depth -= 1
                if depth == 0:
                    return


def _trimmed(raw: bytes, start: int, end: int) -> tuple[int, int]:
    between = _BETWEEN.match(raw, start, end)
    start = between.end() if between is not None else start
    while end > start and raw[end - 1] in _SPACE:
        end -= 1
    return start, end


def _unescaped(match: re.Match[bytes]) -> bytes:
    token = match.group()
    if b"\\" not in token:
        return token
    try:
        return b'"%b"' % _text(token).encode("utf-8", "replace")  # a lone surrogate has no bytes
    except ValueError:
        return token


def _text(token: bytes) -> str:
    if b"\\" not in token:
        return token[1:-1].decode()
    value: str = json.loads(token)
    return value


class _Repeating(dict[str, Any]):
    """An object in which `names` stand more than once."""

    __slots__ = ("names",)

    def __init__(self, row: dict[str, Any], names: tuple[str, ...]) -> None:
        super().__init__(row)
        self.names = names


def _repeated_paths(tree: Any, most: int = 8) -> tuple[str, ...]:
    found: list[str] = []
    stack: list[tuple[str, Any]] = [("", tree)]
    while stack and len(found) < most:
        path, item = stack.pop()
        if isinstance(item, dict):
            prefix = f"{path}." if path else ""
            if isinstance(item, _Repeating):
                found += [prefix + name for name in item.names[: most - len(found)]]
            stack += [(prefix + name, inner) for name, inner in item.items() if isinstance(inner, dict | list)]
        else:
            stack += [(f"{path}[{at}]", inner) for at, inner in enumerate(item) if isinstance(inner, dict | list)]
    return tuple(found)


def _deeper(value: Any, most: int) -> bool:
    """Is anything nested in more than `most` objects and arrays?"""
    level = [value]
    for _ in range(most):
        level = [
            inner
            for item in level
            for inner in (item.values() if type(item) is dict else item)
            if type(inner) is dict or type(inner) is list
        ]
        if not level:
            return False
    return True


def _counted(value: Any) -> tuple[int, int]:
    """(keys, containers) of a parsed value."""
    keys = containers = 0
    inside = [value]
    for item in inside:  # which grows as it is read
        kind = type(item)
        if kind is str:  # nearly all of them
            continue
        if kind is dict:
            containers += 1
            keys += len(item)
            inside.extend(item.values())
        elif kind is list:
            containers += 1
            inside.extend(item)
    return keys, containers


def _kind(value: Any) -> str:
    names = {
        list: "an array",
        str: "a string",
        int: "a number",
        float: "a number",
        bool: "a boolean",
        type(None): "null",
    }
    return names.get(type(value), "something else")
