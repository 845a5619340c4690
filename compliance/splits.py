"""Values that are split over fields: what their ends and beginnings say together.

Fields are scanned one on each line, so that two numbers that stand in two fields are two numbers.  A value that was
cut goes on in the next field: of the next part or message, or of the next message of the same role; in the next leaf
of an array or of a tool's arguments; in the next key.  Only where one field ends and the next begins as the pieces of
a number, an address or a token do are the two looked at together, and only what reaches over the border counts.  A row
of numbers stays one: of digits alone, a value must be all of the row.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

import msgspec
from msgspec import Struct

from compliance.detectors.automaton import Span
from compliance.detectors.hiding import plain_form
from compliance.detectors.spelling import NUMBER_WORDS
from compliance.fields import KNOWN_KEYS
from compliance.identifiers import FAMILY
from compliance.model import TextField

MAX_PIECES = 48
"""Fields of one value; more of them in a row are data.  An IBAN has 34 characters."""
REACH = 160
"""Characters of a field that are looked at on either side of a border: a label and half of a value."""
JOINERS = ("", " ", "-")
"""What may have stood where the value was cut."""

_STRUCTURE = frozenset(
    {"role", "type", "id", "model", "tool_call_id", "call_id", "tool_use_id", "object", "media_type", "format", "name"}
)
"""Keys of the dialects between one text and the next."""
_CODED = r"A-Za-z0-9@._%=+/&#;\\\-"
_ENDS = re.compile(rf"(?:[^{_CODED}\s!-~]|[0-9@][{_CODED}]{{0,11}}|[@=\-]|[%\\&#][A-Za-z0-9]{{0,5}})[ ,]?$")
_BEGINS = re.compile(r"[ ]?(?:[A-Za-z._%=+/&#;\\\-]{0,11}+[0-9@]|[%=\\&\-.]|[^\s!-~])")
_EDGE = 64
"""Characters at either end of a field that say whether a value goes on there."""
_TOKEN = r"[A-Za-z0-9+/_\-]"
_OPEN_END = re.compile(rf"(?:@[A-Za-z0-9.\-]{{0,40}}|(?<!{_TOKEN}){_TOKEN}{{0,40}}[a-z][A-Z]{_TOKEN}{{0,16}})$")
_OPEN_BEGIN = re.compile(rf"[A-Za-z0-9._%+\-]{{0,40}}@|{_TOKEN}{{0,16}}[a-z][A-Z]|{_TOKEN}{{0,8}}==?$")
"""The halves of an address or of base64: letters may stand on either side."""
_LEAF = re.compile(rf'"[{_CODED}]{{0,11}}[0-9@]|[:\[] ?"{_TOKEN}{{0,16}}[a-z][A-Z]')
_JSON = frozenset("{[")
_PLAIN = KNOWN_KEYS | {"assistant", "tool"}
_SIGNS = "-./@: "
_GROUPS = frozenset(((3, 2, 4), (4, 6, 5), (4, 6, 4)))
_MESSAGE = re.compile(r"messages\[(\d+)\]|input\[(\d+)\]")
_SAYS_WHEN_OR_WHERE = frozenset(("date", "age", "zip", "place", "name", "address", "record_id"))

Look = Callable[[str], list[Span]]
"""The identifiers of a short text, those of its hidden forms included."""


class Piece(Struct, frozen=True):
    """A part of a field, and where it begins in the joined text of all fields."""

    text: str
    at: int
    side: str = ""  # of the conversation: the role, tools as their caller; empty outside of messages


def may_go_on(strings: Sequence[str]) -> bool:
    """May a value be split over these fields?  Cheap, and seldom so where none is."""
    texts = []
    before = ""
    for text in strings:
        key, before = before, text
        if text not in _PLAIN and key not in _STRUCTURE:
            texts.append(text)
    if len(texts) < 2:  # there is no border
        return bool(texts) and _may_hold_pieces(texts[0])
    ended = whole = False
    for text in texts:
        if whole or _may_hold_pieces(text):
            return True
        head = _head(text)
        if (ended and (head[:1] in _JSON or _begins(head))) or _OPEN_BEGIN.match(head) is not None:
            return True
        tail = _tail(text)
        whole = _OPEN_END.search(tail) is not None
        ended = ended or _ends(tail)
    return False


def _ends(tail: str) -> bool:
    """May a number, an address or a token go on after this?"""
    return _ENDS.search(tail) is not None or tail.rpartition(" ")[2].rstrip(",").lower() in NUMBER_WORDS


def _begins(head: str) -> bool:
    return _BEGINS.match(head) is not None or head.lstrip().partition(" ")[0].rstrip(",").lower() in NUMBER_WORDS


def _head(text: str) -> str:
    head = text[:_EDGE]
    return head if head.isascii() else plain_form(head)


def _tail(text: str) -> str:
    tail = text[-_EDGE:]
    return tail if tail.isascii() else plain_form(tail)


def _may_hold_pieces(text: str) -> bool:
    return text[:1] in _JSON and _LEAF.search(text) is not None


def across(fields: Sequence[TextField], body: Any, look: Look, found: Sequence[Span]) -> list[Span]:
    """What reaches over the borders of fields, a span for each piece of it, in offsets of the joined fields.

    `fields`: as `located` gives them, without the opaque ones; `found`: what was found in them already.
    """
    spans: dict[tuple[str, int, int], Span] = {}
    seen: set[tuple[Piece, ...]] = set()
    for sequence in _sequences(fields, body):
        for chain in _chains(sequence):
            if len(chain) > MAX_PIECES or chain in seen:
                continue
            seen.add(chain)
            for joiner in JOINERS:
                for span in _over_borders(chain, joiner, look, found):
                    spans[span.type, span.start, span.end] = span
    return list(spans.values())


def _sequences(fields: Sequence[TextField], body: Any) -> Iterator[list[Piece]]:
    """Fields that may follow each other: all of them; values; values of one role; keys."""
    starts = accumulate([len(field.text) + 1 for field in fields], initial=0)
    every: list[Piece] = []
    keys: list[Piece] = []
    values: list[Piece] = []
    by_side: dict[str, list[Piece]] = {}
    last = ""
    for field, at in zip(fields, starts, strict=False):
        side = _side(field.path, body)
        pieces = list(_pieces(field.text, at, side))
        if field.key:
            last = field.text
            if last not in _PLAIN:
                every += pieces
                keys += pieces
        elif last not in _STRUCTURE or field.path.endswith("*"):
            every += pieces
            values += pieces
            by_side.setdefault(side, []).extend(pieces)
    yield every
    yield values
    if len(by_side) > 1:
        yield from by_side.values()
    yield keys


def _side(path: str, body: Any) -> str:
    match = _MESSAGE.match(path)
    if match is None:
        return ""
    try:
        role = body["messages" if match[1] else "input"][int(match[1] or match[2])]["role"]
    except (KeyError, IndexError, TypeError):
        return ""
    if role in ("assistant", "tool", "function"):
        return "assistant"
    return role if type(role) is str else ""


def _pieces(text: str, at: int, side: str) -> Iterator[Piece]:
    """A text; of one that is JSON, its strings, which are cut where the fields of a tool are."""
    if text[:1] in _JSON and "\\" not in text:
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            value = None
        if value is not None:
            seen = 0
            for leaf in _leaves(value):
                place = text.find(leaf, seen)
                if place >= 0:
                    seen = place + len(leaf)
                    yield Piece(leaf, at + place, side)
            return
    yield Piece(text, at, side)


def _leaves(value: Any) -> Iterator[str]:
    if type(value) is str:
        yield value
    elif type(value) is int:
        yield str(value)
    elif type(value) is dict:
        for item in value.values():
            yield from _leaves(item)
    elif type(value) is list:
        for item in value:
            yield from _leaves(item)


def _chains(pieces: Sequence[Piece]) -> Iterator[tuple[Piece, ...]]:
    """Runs of pieces each of which may go on in the next; of long ones the end or the beginning."""
    chain: list[Piece] = []
    for left, right in pairwise(pieces):
        if not _goes_on(left.text, right.text):
            if chain:
                yield tuple(chain)
                chain = []
            continue
        if not chain:
            cut = max(0, len(left.text) - REACH)
            chain.append(Piece(left.text[cut:], left.at + cut, left.side))
        chain.append(Piece(right.text[:REACH], right.at, right.side))
        if len(right.text) > REACH:
            yield tuple(chain)
            chain = []
    if chain:
        yield tuple(chain)


def _goes_on(left: str, right: str) -> bool:
    end, begin = _tail(left), _head(right)
    if _ends(end) and _begins(begin):
        return True
    if _OPEN_END.search(end) is not None:
        return begin[:1].isalnum() or begin[:1] in ("@", ".", "=")
    return _OPEN_BEGIN.match(begin) is not None and end[-1:].isalnum()


def _over_borders(chain: Sequence[Piece], joiner: str, look: Look, found: Sequence[Span]) -> Iterator[Span]:
    """The spans of the joined pieces that reach over a border, cut into one for each piece."""
    text = joiner.join([piece.text for piece in chain])
    starts = list(accumulate([len(piece.text) + len(joiner) for piece in chain], initial=0))
    for span in look(text):
        first = bisect_right(starts, span.start) - 1
        last = bisect_right(starts, span.end - 1) - 1
        if first == last or span.type in _SAYS_WHEN_OR_WHERE:
            continue
        cut = []
        for index in range(first, last + 1):
            piece = chain[index]
            start = max(span.start - starts[index], 0)
            end = min(span.end - starts[index], len(piece.text))
            if start < end:
                cut.append(Span(span.type, piece.at + start, piece.at + end, span.confidence))
        if len(cut) < 2 or _known(cut, found):
            continue
        if _whole(text, span, chain[first : last + 1], joiner, [piece.end - piece.start for piece in cut]):
            yield from cut


def _whole(text: str, span: Span, pieces: Sequence[Piece], joiner: str, cut: Sequence[int]) -> bool:
    """Is it a value that was cut, and not a row of values, nor the numbers of a conversation?"""
    value = text[span.start : span.end]
    if span.type == "email":
        return joiner == ""
    signed = joiner == "" and all(piece.text[-1:] in _SIGNS for piece in pieces[:-1])
    if FAMILY.get(span.type) == "context" and not signed:
        return False
    if signed or any(map(str.isalpha, value)):
        return True
    if len({piece.side for piece in pieces if piece.side}) > 1 or not _even(cut):
        return False
    return not (text[: span.start].rstrip(" -")[-1:].isdigit() or text[span.end :].lstrip(" -")[:1].isdigit())


def _even(cut: Sequence[int]) -> bool:
    """Are these the lengths of pieces that somebody cut, in two or evenly, or of the groups that numbers have?"""
    return len(cut) == 2 or tuple(cut) in _GROUPS or (len(set(cut[:-1])) == 1 and cut[-1] <= cut[0])


def _known(cut: Sequence[Span], found: Sequence[Span]) -> bool:
    """Was one of its pieces found to be one by itself, or all of it as one with a label?"""
    return any(
        other.type == piece.type and other.start < piece.end and other.end > piece.start
        for piece in cut
        for other in found
    )
