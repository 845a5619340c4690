"""Where the longest end of a text begins that could still become an identifier: what a stream must hold back.

For each shape there is an expression of its beginnings: what a text may end with while the shape goes on (`\\d{3}-\\d{2}`
gives `\\d?`, `\\d\\d`, `\\d{3}-`, ...).  A shape counts from the first character of its identifier on: a label alone holds
nothing back.  RE2 runs an expression that is anchored at the end backwards from there, and stops where no beginning
can be longer, so the cost is that of the few words that are held.

It errs on the side of holding: checksums are not asked, and long repetitions count as endless (but for those that
any prose would be).  A word that is not
ended is always held; so identifiers without a space in them need no expression.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache

import re2
from msgspec import Struct

from compliance.detectors.automaton import options
from compliance.detectors.hiding import HIDING, plain_form
from compliance.detectors.model import Pattern

LOOK_BACK = 16_384
"""Characters at a text's end in which beginnings are looked for."""
_WIDEST = 1_000
"""Characters of what an operator's own shape may match, where it is not understood: RE2 counts no further."""
_SAMPLE = "The plan for Monday, 12 May 2025: call (555) 010-0199 or write to Dr. Smith at 5 Main Street, and so on."
_LONG = 8
"""Repetitions of one character above which they are not counted: each costs the automaton a state."""
_PROGRAM = 4_000
"""RE2 instructions of one expression: several small automata stay smaller than one large one."""
_MEMORY = 64 << 20
"""Bytes that RE2 may plan for one expression's automaton: it takes a small part of it, 60 MB for all, also on hostile text.
With half as much the states of ordinary prose are thrown away before they are met again."""

_SPACELESS = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3001\u3002\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"""[^\s"\[\]{{}},{_SPACELESS}]*""")
"""A word, backwards.  Scripts that set no spaces have none."""
_RUN = re.compile(rf"[{_SPACELESS}]")
_MAX_RUN = 64
"""Characters of an identifier in such a script: the part of an address before its `@` has 64 bytes (RFC 5321)."""
_NUMBERS = re.compile(
    r"(?:\b(?:zero|oh|one|two|three|four|five|six|seven|eight|nine|double|triple)\b[\s,.-]{0,3})+(?:\w{0,6})\Z", re.I
)
"""Digits as words."""
_SPOKEN = 24
"""Characters of a text's end in which the last of them stands, whole."""
_ENDS = (b" ", b"\n", b"\t", b'"', b"[", b"]", b"{", b"}", b",", b"\xe0", b"\xe3", b"\xe5")
_GROUP = re.compile(r"\((?:\?(?:(?P<flags>[imsU\-]*):|P?<\w+>))?")
_REPEAT = re.compile(r"(?:[*+?]|\{(?P<least>\d+)(?P<to>,(?P<most>\d*))?\})\??")


class _Unknown(ValueError):
    """RE2 syntax that is not taken apart here."""


class _One(Struct, frozen=True):
    """A character, a class, or (`width` 0) a border."""

    text: str
    width: int = 1


class _Group(Struct, frozen=True):
    """`head` is how it opens when it captures nothing."""

    head: str
    branches: tuple[tuple[_Node, ...], ...]
    captures: bool


class _Repeated(Struct, frozen=True):
    inner: _One | _Group
    least: int
    most: int | None  # None: endless


_Node = _One | _Group | _Repeated


class Openings:
    """The beginnings of all these shapes, compiled.  Thread-safe."""

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        parts: dict[str, None] = {}
        for pattern in patterns:
            try:
                parts.update(dict.fromkeys(beginnings(pattern.shape)))
            except (_Unknown, IndexError, re2.error):  # an operator's own: from a place that its width bounds
                parts[rf"[^\n]{{1,{min(pattern.back, _WIDEST)}}}"] = None
        self._searches = [re2.compile(group, _compact()).search for group in _grouped(list(parts))]
        for at in range(len(_SAMPLE)):  # the automata build their first states here, and not while a stream waits
            self.find(_SAMPLE[:at])

    def find(self, text: str) -> int:
        """Where the held end begins, in code points; len(text) where nothing is held."""
        word = word_start(text)
        text_end = text[-LOOK_BACK:]
        skipped = len(text) - len(text_end)
        start = self._open(text_end)
        if start and not text_end.isascii() and HIDING.search(text_end) is not None:
            plain = plain_form(text_end)
            missing = len(plain) - self._open(plain)  # characters of the plain form; invisible ones lie between
            at = len(text_end)
            while at and missing > 0:
                at -= 1
                missing -= len(plain_form(text_end[at]))
            while at and not plain_form(text_end[at - 1]):
                at -= 1
            start = min(start, at)
        start = min(word, skipped + start)
        for match in _RUN.finditer(text, start, max(start, len(text) - _MAX_RUN)):
            start = match.end()
        return start

    def _open(self, text: str) -> int:
        start = len(text)
        if _NUMBERS.search(text[-_SPOKEN:]) is not None and (spoken := _NUMBERS.search(text)) is not None:
            start = min(start, spoken.start())
        data = text.encode("utf-8", "surrogatepass")
        least = len(data)
        for search in self._searches:
            match = search(data)
            if match is not None and match.start() < least:
                least = match.start()
        if least < len(data):
            start = min(start, len(data[:least].decode("utf-8", "ignore")))
        return start


def word_start(text: str) -> int:
    """Where the word begins in which a text ends; len(text) where it does not end in one."""
    word = _WORD.match(text[::-1])
    return len(text) - (word.end() if word is not None else 0)


def beginnings(shape: str) -> list[str]:
    """Expressions (RE2, without the anchor) of what a text may end with while `shape` can go on or ends just there.

    None for a shape whose identifier has no space in it and nothing but a border behind it.
    """
    reader = _Reader(shape)
    branches = reader.branches()
    if not reader.at_end():
        raise _Unknown(shape)
    parts = [part for branch in branches for part in _from_identifier(branch, ())]
    for part in parts:
        re2.compile(part.encode("ascii"), options())
    return parts


def _from_identifier(branch: Sequence[_Node], behind: tuple[_Node, ...]) -> Iterator[str]:
    """The beginnings of a sequence that reach into the captured group."""
    for index, node in enumerate(branch):
        if not isinstance(node, _Group) or not _captures(node):
            continue
        before = "".join(map(_written, branch[:index]))
        after = (*branch[index + 1 :], *behind)
        if node.captures:
            borders = sum(1 for one in after if not (isinstance(one, _One) and not one.width))
            if borders > 1 or not _is_word(node):
                yield f"(?:{before}(?:{_begun(node)}|{_written(node)}{_sequence(after)}))"
            return
        if node.head != "(?:":
            raise _Unknown("an identifier within flags")
        for inner in node.branches:
            yield from (f"(?:{before}{part})" for part in _from_identifier(inner, after))
        return
    if any(isinstance(node, _Repeated) and isinstance(node.inner, _Group) and _captures(node.inner) for node in branch):
        raise _Unknown("a repeated identifier")


def _is_word(node: _Node) -> bool:
    """Is all that it matches within one word?"""
    match node:
        case _One(text=text):
            return not _reaches_over_words(text)
        case _Group(branches=branches):
            return all([_is_word(part) for branch in branches for part in branch])
        case _Repeated(inner=inner):
            return _is_word(inner)


@cache
def _reaches_over_words(text: str) -> bool:
    """Does a class match what ends a word, or bytes of a script without spaces?"""
    matches = re2.compile(text.encode("ascii"), options()).fullmatch
    return any([matches(byte) is not None for byte in _ENDS])


def _captures(group: _Group) -> bool:
    return group.captures or any(
        (isinstance(node, _Group) and _captures(node))
        or (isinstance(node, _Repeated) and isinstance(node.inner, _Group) and _captures(node.inner))
        for branch in group.branches
        for node in branch
    )


def _written(node: _Node) -> str:
    """The node as an expression again, nothing captured, long repetitions endless."""
    match node:
        case _One(text=text):
            return text
        case _Group(head=head, branches=branches):
            return f"{head}{'|'.join(''.join(map(_written, branch)) for branch in branches)})"
        case _Repeated(inner=inner, least=least, most=most):
            return _written(inner) + _times(least, most)


def _beginning(node: _Node) -> str:
    """Every beginning of the node, none and the whole included."""
    match node:
        case _One(text=text, width=width):
            return f"{text}?" if width else ""
        case _Group(head=head, branches=branches):
            return f"{head}{'|'.join(_sequence(branch) for branch in branches)})"
        case _Repeated(inner=inner, most=most):
            if isinstance(inner, _One):
                return _written(inner) + _times(0, most)
            return _written(inner) + _times(0, None if most is None else max(0, most - 1)) + _beginning(inner)


def _begun(node: _Node) -> str | None:
    """The beginnings of the node that are not empty, the whole included; None where it is a border."""
    match node:
        case _One(text=text, width=width):
            return text if width else None
        case _Group(head=head, branches=branches):
            parts = [part for branch in branches if (part := _begun_sequence(branch)) is not None]
            return f"{head}{'|'.join(parts)})" if parts else None
        case _Repeated(inner=inner, most=most):
            if isinstance(inner, _One):
                return _written(inner) + _times(1, most) if inner.width else None
            part = _begun(inner)
            return (
                None if part is None else _written(inner) + _times(0, None if most is None else max(0, most - 1)) + part
            )


def _begun_sequence(nodes: Sequence[_Node]) -> str | None:
    whole: str | None = None
    for node in reversed(nodes):
        ways = [way for way in (_begun(node), None if whole is None else _written(node) + whole) if way is not None]
        whole = f"(?:{'|'.join(ways)})" if ways else None
    return whole


def _sequence(nodes: Sequence[_Node]) -> str:
    """Every beginning of a sequence: of its first node, or that one whole and a beginning of the rest."""
    if not nodes:
        return ""
    whole = _beginning(nodes[-1])
    for node in reversed(nodes[:-1]):
        whole = f"(?:{_beginning(node)}|{_written(node)}{whole})"
    return whole


def _times(least: int, most: int | None) -> str:
    if most is None:
        return {0: "*", 1: "+"}.get(least, f"{{{least},}}")
    return f"{{{least},{most}}}"


def _grouped(parts: Sequence[str]) -> Iterator[bytes]:
    """Alternatives together, anchored at the end, as many as make a program of the size that is wanted."""
    group: list[str] = []
    size = 0
    for part in parts:
        cost = re2.compile(part.encode("ascii"), options()).programsize
        if group and size + cost > _PROGRAM:
            yield _anchored(group)
            group, size = [], 0
        group.append(part)
        size += cost
    if group:
        yield _anchored(group)


def _anchored(parts: Sequence[str]) -> bytes:
    return rf"(?s:{'|'.join(parts)})\z".encode("ascii")


def _compact() -> re2.Options:
    chosen: re2.Options = options()
    chosen.max_mem = _MEMORY
    return chosen


class _Reader:
    """A recursive descent over the part of RE2's syntax that shapes are written in."""

    def __init__(self, shape: str, *, exact: bool = False) -> None:
        self._shape = shape
        self._at = 0
        self._exact = exact  # long repetitions are not made endless

    def at_end(self) -> bool:
        return self._at == len(self._shape)

    def branches(self) -> tuple[tuple[_Node, ...], ...]:
        found = [self._sequence()]
        while self._shape[self._at : self._at + 1] == "|":
            self._at += 1
            found.append(self._sequence())
        return tuple(found)

    def _sequence(self) -> tuple[_Node, ...]:
        nodes: list[_Node] = []
        while self._at < len(self._shape) and self._shape[self._at] not in "|)":
            nodes.append(self._repeated(self._atom()))
        return tuple(nodes)

    def _atom(self) -> _One | _Group:
        shape, at = self._shape, self._at
        character = shape[at]
        if character == "[":
            self._at = self._class_end(at)
            return _One(shape[at : self._at])
        if character == "\\":
            if shape[at + 1] in "pPQEC0123456789" or shape.startswith("x{", at + 1):
                raise _Unknown(shape)
            self._at = at + (4 if shape[at + 1] == "x" else 2)
            text = shape[at : self._at]
            return _One(text, 0 if text in (r"\b", r"\B", r"\z", r"\A") else 1)
        if character == "(":
            return self._group()
        self._at += 1
        return _One(character, 0 if character in "^$" else 1)

    def _group(self) -> _Group:
        opened = _GROUP.match(self._shape, self._at)
        assert opened is not None
        self._at = opened.end()
        if opened.group() == "(" and self._shape[self._at : self._at + 1] == "?":
            raise _Unknown(self._shape)
        branches = self.branches()
        if self._shape[self._at : self._at + 1] != ")":
            raise _Unknown(self._shape)
        self._at += 1
        captures = opened.group("flags") is None
        return _Group("(?:" if captures else opened.group(), branches, captures)

    def _class_end(self, at: int) -> int:
        shape = self._shape
        at += 2 if shape[at + 1] == "^" else 1
        if shape[at] == "]":
            at += 1
        while shape[at] != "]":
            at = shape.index(":]", at) + 2 if shape.startswith("[:", at) else at + (2 if shape[at] == "\\" else 1)
        return at + 1

    def _repeated(self, node: _One | _Group) -> _Node:
        found = _REPEAT.match(self._shape, self._at)
        if found is None:
            return node
        self._at = found.end()
        sign = found.group()[0]
        if sign != "{":
            return _Repeated(node, 1 if sign == "+" else 0, 1 if sign == "?" else None)
        least = int(found["least"])
        most = int(found["most"]) if found["most"] else None if found["to"] else least
        endless = isinstance(node, _One) and not node.text.startswith("[^") and r"\xff" not in node.text
        if endless and not self._exact and (most or least) > _LONG:
            least, most = min(least, 1), None
        return _Repeated(node, least, most)
