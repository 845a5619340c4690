"""Places in JSON text: every key, string and number with where it stands, and parts of them replaced there.  Pure.

The text is never written anew: what is not replaced keeps its bytes, its order, its escapes and its number formats.
A string that holds a JSON object or array itself (a tool call's arguments) is a document of its own inside; what is
replaced in it stays valid JSON in it.

Offsets are code points of the text that was given: UTF-8 decoded and encoded again gives the same bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import msgspec

from compliance.fields import CALLERS, NUMBER_DIGITS, is_text

MAX_INSIDE = 8
"""JSON in a string of JSON in a string ...: no further."""

_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|-?[0-9][0-9.eE+-]*+|[{}\[\],:]', re.DOTALL)
_UNIT = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\.|[^\\]++", re.DOTALL
)
_decode = msgspec.json.Decoder(str).decode

Kind = Literal["string", "key", "number"]


class NotJson(ValueError):
    """Not the JSON that it was taken for, or JSON inside JSON without end."""


class Clash(ValueError):
    """Two keys of one object would become the same."""


class Edit(NamedTuple):
    """The code points from `start` to `end` become `text`."""

    start: int
    end: int
    text: str


class Leaf:
    """One key, string or number.  `start` and `end`: its token in the document that it stands in, quotes included."""

    __slots__ = ("end", "free", "holder", "inside", "key", "kind", "object", "raw", "start", "text")

    def __init__(
        self, kind: Kind, start: int, end: int, raw: str, text: str, key: str, holder: str, free: bool, within: int
    ) -> None:
        self.kind: Kind = kind
        self.start = start
        self.end = end
        self.raw = raw  # the token as it stands
        self.text = text  # what it says; of a number, its digits as an identifier would have them
        self.key = key  # the key whose value it is, or is in an array of; a key's own name
        self.holder = holder  # the key of the object that it is in
        self.free = free  # in a part whose keys and types are the caller's own, not a dialect's
        self.object = within  # the same number: in the same object
        self.inside: Document | None = None

    def points(self, offsets: Sequence[int]) -> list[int]:
        """Ascending offsets in `text` as offsets in `raw`."""
        if "\\" not in self.raw:
            return [offset + 1 for offset in offsets]
        made = []
        at, seen = 1, 0
        units = _UNIT.finditer(self.raw, 1, len(self.raw) - 1)
        unit = next(units, None)
        for offset in offsets:
            while unit is not None and seen + _length(unit) <= offset:
                seen += _length(unit)
                at = unit.end()
                unit = next(units, None)
            made.append(at + (offset - seen))  # inside a run of plain characters, or right at a unit's start
        return made

    def text_offset(self, offset: int) -> int:
        """An offset in `raw` as the one in `text` that it belongs to, rounded down."""
        if "\\" not in self.raw:
            return max(0, min(offset - 1, len(self.text)))
        seen = 0
        for unit in _UNIT.finditer(self.raw, 1, len(self.raw) - 1):
            if unit.end() > offset:
                escaped = unit.group()[0] == "\\"
                return seen if escaped else seen + max(0, offset - unit.start())
            seen += _length(unit)
        return seen


def _length(unit: re.Match[str]) -> int:
    """Code points that a unit stands for."""
    return 1 if unit.group()[0] == "\\" else unit.end() - unit.start()


class _Frame:
    """An object or array that is open."""

    __slots__ = ("expecting_key", "free", "holder", "is_object", "key", "number")

    def __init__(self, is_object: bool, key: str, holder: str, free: bool, number: int) -> None:
        self.is_object = is_object
        self.key = key  # of an object: its last key; of an array: the key that the array is the value of
        self.holder = holder  # the key that the object, or the nearest one around the array, is the value of
        self.free = free
        self.number = number
        self.expecting_key = is_object


class Document:
    """A JSON text and its leaves in order.  Raises `NotJson`; of what is JSON it checks only as much as it needs."""

    __slots__ = ("leaves", "source")

    def __init__(self, source: str, *, free: bool = False, depth: int = 0) -> None:
        self.source = source
        try:
            self.leaves = list(_leaves(source, free))
            for leaf in self.leaves:
                if leaf.kind == "string" and leaf.text[:64].lstrip()[:1] in ("{", "["):
                    leaf.inside = _inside(leaf.text, depth)
        except (ValueError, RecursionError, IndexError):
            raise NotJson from None

    def all_leaves(self) -> Iterator[Leaf]:
        """Its leaves in order; those inside of a string right after it."""
        for leaf in self.leaves:
            yield leaf
            if leaf.inside is not None:
                yield from leaf.inside.all_leaves()

    def replaced(self, changes: Mapping[Leaf, Sequence[Edit]]) -> str:
        """The text with parts of leaves replaced.  Edits are offsets in a leaf's `text`, ascending and apart; a
        number is replaced as a whole, and becomes a string.  Raises `Clash`."""
        edits = self._edits(changes)
        return apply(self.source, edits) if edits else self.source

    def _edits(self, changes: Mapping[Leaf, Sequence[Edit]]) -> list[Edit]:
        made: list[Edit] = []
        touched: set[int] = set()
        for leaf in self.leaves:
            edits = changes.get(leaf, ()) if leaf.inside is None else leaf.inside._edits(changes)
            if not edits:
                continue
            if leaf.kind == "key":
                touched.add(leaf.object)
            if leaf.kind == "number":
                made.append(Edit(leaf.start, leaf.end, json.dumps(edits[0].text, ensure_ascii=False)))
                continue
            places = leaf.points([offset for edit in edits for offset in (edit.start, edit.end)])
            for edit, start, end in zip(edits, places[::2], places[1::2], strict=True):
                made.append(Edit(leaf.start + start, leaf.start + end, json.dumps(edit.text, ensure_ascii=False)[1:-1]))
        if touched:
            self._check_keys(changes, touched)
        return made

    def _check_keys(self, changes: Mapping[Leaf, Sequence[Edit]], touched: set[int]) -> None:
        names: set[tuple[int, str]] = set()
        for leaf in self.leaves:
            if leaf.kind == "key" and leaf.object in touched:
                name = leaf.object, apply(leaf.text, changes.get(leaf, ()))
                if name in names:
                    raise Clash
                names.add(name)


def apply(text: str, edits: Iterable[Edit]) -> str:
    """`text` with ascending edits that do not overlap."""
    parts: list[str] = []
    at = 0
    for edit in edits:
        parts += (text[at : edit.start], edit.text)
        at = edit.end
    parts.append(text[at:])
    return "".join(parts)


def _inside(text: str, depth: int) -> Document | None:
    """The document in a string, where there is one."""
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None
    if depth >= MAX_INSIDE:
        raise NotJson
    return Document(text, free=True, depth=depth + 1)


def _leaves(source: str, free: bool) -> Iterator[Leaf]:
    stack: list[_Frame] = [_Frame(False, "", "", free, 0)]
    count = 0
    for match in _TOKEN.finditer(source):
        raw = match.group()
        mark = raw[0]
        frame = stack[-1]
        if mark == '"':
            text = raw[1:-1] if "\\" not in raw else _decode(raw.encode("utf-8", "surrogatepass"))
            if frame.expecting_key:
                frame.key = text
                frame.expecting_key = False
                yield Leaf("key", *match.span(), raw, text, text, frame.holder, frame.free, frame.number)
            elif is_text(text, frame.key):
                yield Leaf("string", *match.span(), raw, text, frame.key, frame.holder, _free(frame), frame.number)
        elif mark in "{[":
            count += 1
            holder = frame.key if mark == "{" else frame.holder
            stack.append(_Frame(mark == "{", frame.key, holder, _free(frame), count))
        elif mark in "}]":
            stack.pop()
        elif mark == ",":
            frame.expecting_key = frame.is_object
        elif mark != ":":
            yield Leaf("number", *match.span(), raw, _digits(raw), frame.key, frame.holder, _free(frame), frame.number)


def _free(frame: _Frame) -> bool:
    """Is the value that comes now the caller's own?"""
    return frame.free or frame.key in CALLERS or (frame.key == "input" and frame.holder != "")


def _digits(raw: str) -> str:
    """A number as a scanner sees it (`compliance.fields`): an identifier's leading zeros are back."""
    if raw.lstrip("-").isdigit():
        return raw.zfill(NUMBER_DIGITS)
    try:
        return f"{float(raw):.0f}".zfill(NUMBER_DIGITS)
    except (ValueError, OverflowError):
        return raw


def apart(edits: Sequence[Edit]) -> bool:
    """Are the edits in order, without overlaps?"""
    return all(first.end <= second.start for first, second in pairwise(edits))
