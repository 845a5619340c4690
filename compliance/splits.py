"""Values that are split over fields: what their ends and beginnings say together.

Fields are scanned one on each line, so that two numbers that stand in two fields are two numbers.  A value that was
cut goes on in the next field: of the next part or message, or of the next message of the same role; in the next leaf
of an array or of a tool's arguments; in the next key; in the next value of the same key.  Only where one field ends and
the next begins as the pieces of a number, an address or a token do, or as a label and its number, are the two looked at
together, and only what reaches over the border counts.  A row of numbers stays one: of digits alone, a value must be
all of the row.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import accumulate, pairwise
from typing import Any

import msgspec

from compliance.detectors.hiding import plain_form
from compliance.detectors.model import Span
from compliance.detectors.spelling import NUMBER_WORDS
from compliance.fields import KNOWN_KEYS, NUMBER_DIGITS
from compliance.identifiers import FAMILY
from compliance.model import Piece, TextField

MAX_PIECES = 48
"""Fields of one value; more of them in a row are data.  An IBAN has 34 characters."""
REACH = 160
"""Characters of a field that are looked at on either side of a border: a label and half of a value."""
JOINERS = ("", " ", "-")
"""What may have stood where the value was cut."""
_BESIDE = (" ",)
"""What stands between a label and its number."""

_STRUCTURE = frozenset(
    {"role", "type", "id", "model", "tool_call_id", "call_id", "tool_use_id", "object", "media_type", "format", "name"}
)
"""Keys of the dialects between one text and the next."""
_SPOKEN = "name"
"""Of them the one that a caller is free to fill."""
_HANDLE = 24
"""Characters from which on an id that begins with a letter is a handle; those of the dialects have a `_` else."""
_CODED = r"A-Za-z0-9@._%=+/&#;\\\-"
_ENDS = re.compile(rf"(?:[^{_CODED}\s!-~]|[0-9@][{_CODED}]{{0,11}}|[@=\-]|[%\\&#][A-Za-z0-9]{{0,5}})[ ,]?$")
_LAST = 16
"""Characters at the end of a text in which all that `_ENDS` can match stands."""
_BEGINS = re.compile(r"[ ]?(?:[A-Za-z._%=+/&#;\\\-]{0,11}+[0-9@]|[%=\\&\-.]|[^\s!-~])")
_EDGE = 64
"""Characters at either end of a field that say whether a value goes on there."""
_TOKEN = r"[A-Za-z0-9+/_\-]"
_OPEN_END = re.compile(rf"(?:@[A-Za-z0-9.\-]{{0,40}}|(?<!{_TOKEN}){_TOKEN}{{0,40}}[a-z][A-Z]{_TOKEN}{{0,16}})$")
_CAMEL = re.compile(r"[a-z][A-Z]")
_OPEN_BEGIN = re.compile(rf"[A-Za-z0-9._%+\-]{{0,40}}@|{_TOKEN}{{0,16}}[a-z][A-Z]|{_TOKEN}{{0,8}}==?$")
"""The halves of an address or of base64: letters may stand on either side."""
_LEAF = re.compile(rf'"[{_CODED}]{{0,11}}[0-9@]|[:\[] ?"{_TOKEN}{{0,16}}[a-z][A-Z]')
_JSON = frozenset("{[")
_LABELS = frozenset(
    "aadhaar bsn dea iban itin medicare mrn nhs nif npi number passport pesel security ssn tfn vin".split()  # noqa: SIM905
)
_WORDS = frozenset(
    """
    account acct benefits card chart claim encounter id licence license member no num patient phone plan policy record
    routing serial social subscriber tel
    """.split()  # noqa: SIM905
)
"""Last words of a text whose number comes in the next field; ordinary ones only with a sign or filler after them."""
_SAYS = " \t\n:#=.-?\"'*_([,"
_SIGNED = frozenset(":#=?")
_FILLERS = ("is", "was", "number", "no", "num", "#")
_TOKEN_BEGIN = re.compile(r"[\s:#=\-\"'*(]{0,6}(?=[A-Za-z\-]{0,6}[0-9](?:[ .\-/]?[0-9A-Za-z]){3})")
_EXACT = frozenset(("ssn", "itin", "card", "iban", "mbi", "npi", "imei", "vin"))
"""Kinds whose values have a fixed length, so that a label and the pieces after it make no other number."""
_PLAIN = KNOWN_KEYS | {"assistant", "tool"}
_LONGEST_PLAIN = max(map(len, _PLAIN))
_SIGNS = "-./@: "
_SIGNS_FIRST = "-/@"
_GROUPS = frozenset(((3, 2, 4), (4, 6, 5), (4, 6, 4)))
_MESSAGE = re.compile(r"messages\[(\d+)\]|input\[(\d+)\]")
_SAYS_WHEN_OR_WHERE = frozenset(("date", "age", "zip", "place", "name", "address", "record_id"))

Look = Callable[[str], list[Span]]
"""The identifiers of a short text, those of its hidden forms included."""


def may_go_on(strings: Sequence[str]) -> bool:
    """May a value be split over these fields?  Cheap, and seldom so where none is."""
    texts = []
    before = ""
    for text in strings:
        key, before = before, text
        if len(text) <= _LONGEST_PLAIN and text in _PLAIN:  # to look a long text up would be to hash it
            continue
        if not (key in _STRUCTURE and _structural(key, text)):
            texts.append(text)
    if len(texts) < 2:  # there is no border
        return bool(texts) and _may_hold_pieces(texts[0])
    ended = whole = labelled = False
    last = len(texts) - 1
    for index, text in enumerate(texts):
        if whole or _may_hold_pieces(text):
            return True
        head = _head(text)
        if (ended and (head[:1] in _JSON or _begins(head))) or _OPEN_BEGIN.match(head) is not None:
            return True
        if labelled and _TOKEN_BEGIN.match(head) is not None:
            return True
        if index == last:  # nothing follows it
            break
        tail = _tail(text)
        whole = _is_open(tail)
        ended = ended or _ends(tail)
        labelled = labelled or _labels(tail)
    return False


def _structural(key: str, text: str) -> bool:
    """Is the value of such a key a word or a handle of a dialect, and no part of a text?"""
    if key == _SPOKEN:
        return False
    return text[:1].isalpha() and (not key.endswith("id") or "_" in text or len(text) > _HANDLE)


def _labels(tail: str) -> bool:
    """May the next field begin with the number that this one's end names?"""
    bare = tail.rstrip(_SAYS)
    words = bare.lower().rsplit(None, 2)[-2:]
    if not words:
        return False
    last = words[-1].strip(_SAYS).rpartition("_")[2]
    if last in _LABELS:
        return True
    if last in _FILLERS and len(words) > 1:
        return words[0].strip(_SAYS) in _LABELS or words[0].strip(_SAYS) in _WORDS
    return last in _WORDS and not _SIGNED.isdisjoint(tail[len(bare) :])


def _is_open(tail: str) -> bool:
    """Does it end in half of an address or of base64?"""
    return ("@" in tail or _CAMEL.search(tail) is not None) and _OPEN_END.search(tail) is not None


def _ends(tail: str) -> bool:
    """May a number, an address or a token go on after this?"""
    return (
        _ENDS.search(tail, max(0, len(tail) - _LAST)) is not None
        or tail.rpartition(" ")[2].rstrip(",").lower() in NUMBER_WORDS
    )


def _begins(head: str) -> bool:
    return _BEGINS.match(head) is not None or head.lstrip().partition(" ")[0].rstrip(",").lower() in NUMBER_WORDS


def _head(text: str) -> str:
    head = text[:_EDGE]
    return head if head.isascii() else plain_form(head)


def _tail(text: str) -> str:
    tail = text[-_EDGE:]
    return tail if tail.isascii() else plain_form(tail)


def _may_hold_pieces(text: str) -> bool:
    if text[:1] not in _JSON:
        return False
    return "\\u" in text or _LEAF.search(text if text.isascii() else plain_form(text)) is not None


def across(fields: Sequence[TextField], body: Any, look: Look, found: Sequence[Span]) -> list[Span]:
    """What reaches over the borders of fields, a span for each piece of it, in offsets of the joined fields.

    `fields`: as `located` gives them, without the opaque ones; `found`: what was found in them already.
    """
    spans: dict[tuple[str, int, int], Span] = {}
    seen: set[tuple[Piece, ...]] = set()
    look = cache(look)  # rows repeat themselves
    for sequence, apart in _sequences(fields, body):
        for chain in _chains(sequence):
            if len(chain) > MAX_PIECES or chain in seen:
                continue
            seen.add(chain)
            for joiner in _BESIDE if len(chain) == 2 and _after_label(chain, 0, 1) else JOINERS:
                for span in _over_borders(chain, joiner, look, found, apart):
                    spans[span.type, span.start, span.end] = span
    return list(spans.values())


def _sequences(fields: Sequence[TextField], body: Any) -> Iterator[tuple[list[Piece], bool]]:
    """Fields that may follow each other: all of them; values; values of one role; keys; values of one key.

    Of the last, which others stand between, it is said so: they may be the columns of a table.
    """
    starts = accumulate([len(field.text) + 1 for field in fields], initial=0)
    every: list[Piece] = []
    keys: list[Piece] = []
    values: list[Piece] = []
    by_side: dict[str, list[Piece]] = {}
    by_key: dict[str, list[Piece]] = {}
    last = ""
    for field, at in zip(fields, starts, strict=False):
        if not field.text.strip() or (field.number and len(field.text) < NUMBER_DIGITS and field.text.isdigit()):
            continue  # what is cut off around it goes on after it; a short number is seen for its label alone
        if field.key:
            last = field.text
            if last not in _PLAIN:
                key = Piece(field.text, at)
                every.append(key)
                keys.append(key)
            continue
        aside = last in _STRUCTURE and not field.path.endswith("*")
        if aside and _structural(last, field.text):
            continue
        side = _side(field.path, body)
        pieces = [piece for piece in _pieces(field, at, side, last) if piece.text.strip()]
        every += pieces
        if aside:
            continue
        values += pieces
        by_side.setdefault(side, []).extend(pieces)
        for piece in pieces:
            if not piece.number:
                by_key.setdefault(piece.key, []).append(piece)
    yield every, False
    yield values, False
    if len(by_side) > 1:
        for of_side in by_side.values():
            yield of_side, False
    yield keys, False
    if any([piece.number for piece in values]):
        yield [piece for piece in values if not piece.number], False
    if len(by_key) > 1:
        for of_key in by_key.values():
            yield of_key, True


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
    if role in ("system", "developer"):
        return "user"  # both are the caller's
    return role if type(role) is str else ""


def _pieces(field: TextField, at: int, side: str, key: str) -> Iterator[Piece]:
    """A text; of one that is JSON, its strings, which are cut where the fields of a tool are."""
    text = field.text
    if text[:1] in _JSON and "\\" not in text:
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            value = None
        if value is not None:
            seen = 0
            for leaf, below, number in _leaves(value, key):
                place = text.find(leaf, seen)
                if place >= 0:
                    seen = place + len(leaf)
                    yield Piece(leaf, at + place, side, below, number)
            return
    yield Piece(text, at, side, key, field.number and text.isdigit())


def _leaves(value: Any, key: str) -> Iterator[tuple[str, str, bool]]:
    """(text, the key that it stands under, is it a number)."""
    if type(value) is str:
        yield value, key, False
    elif type(value) is int:
        yield str(value), key, True
    elif type(value) is dict:
        for name, item in value.items():
            yield from _leaves(item, name)
    elif type(value) is list:
        for item in value:
            yield from _leaves(item, key)


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
            chain.append(Piece(left.text[cut:], left.at + cut, left.side, left.key, left.number))
        chain.append(Piece(right.text[:REACH], right.at, right.side, right.key, right.number))
        if len(right.text) > REACH:
            yield tuple(chain)
            chain = []
    if chain:
        yield tuple(chain)


def _goes_on(left: str, right: str) -> bool:
    end, begin = _tail(left), _head(right)
    if _ends(end) and _begins(begin):
        return True
    if _TOKEN_BEGIN.match(begin) is not None and _labels(end):
        return True
    if _is_open(end):
        return begin[:1].isalnum() or begin[:1] in ("@", ".", "=")
    return _OPEN_BEGIN.match(begin) is not None and end[-1:].isalnum()


def _over_borders(
    chain: Sequence[Piece], joiner: str, look: Look, found: Sequence[Span], apart: bool
) -> Iterator[Span]:
    """The spans of the joined pieces that reach over a border, cut into one for each piece."""
    text = joiner.join([piece.text for piece in chain])
    starts = list(accumulate([len(piece.text) + len(joiner) for piece in chain], initial=0))
    for span in look(text):
        first = bisect_right(starts, span.start) - 1
        last = bisect_right(starts, span.end - 1) - 1
        if span.type in _SAYS_WHEN_OR_WHERE or (not joiner and _after_label(chain, first, last)):
            continue  # with a space, a label is no part of its number
        if first == last and not _labelled_before(chain, first, span.start - starts[first]):
            continue
        cut = []
        for index in range(first, last + 1):
            piece = chain[index]
            start = max(span.start - starts[index], 0)
            end = min(span.end - starts[index], len(piece.text))
            if start < end:
                cut.append(Span(span.type, piece.at + start, piece.at + end, span.confidence))
        if not cut or (len(cut) == 1 and first != last) or _known(cut, found):
            continue
        lengths = [piece.end - piece.start for piece in cut]
        if first == last or _whole(text, span, chain[first : last + 1], joiner, lengths, apart):
            yield from cut
        elif span.type in _EXACT and not any([one.type == span.type for one in look(text[span.start : span.end])]):
            yield from cut  # a label stands before it, else it would be none


def _after_label(chain: Sequence[Piece], first: int, last: int) -> bool:
    """Does a border from piece `first` to `last` part a label from its number?"""
    return any(not _ends(end) and _labels(end) for end in [_tail(chain[index].text) for index in range(first, last)])


def _labelled_before(chain: Sequence[Piece], index: int, offset: int) -> bool:
    """Does what begins at this offset of a piece have its label at the end of the piece before?"""
    if index == 0 or not _labels(_tail(chain[index - 1].text)):
        return False
    match = _TOKEN_BEGIN.match(chain[index].text)
    return match is not None and offset <= match.end()


def _whole(text: str, span: Span, pieces: Sequence[Piece], joiner: str, cut: Sequence[int], apart: bool) -> bool:
    """Is it a value that was cut, and not a row of values, nor the numbers of a conversation?"""
    value = text[span.start : span.end]
    if span.type == "email":
        return joiner == ""
    signed = joiner == "" and all(
        left.text[-1:] in _SIGNS or right.text[:1] in _SIGNS_FIRST for left, right in pairwise(pieces)
    )
    if FAMILY.get(span.type) == "context" and not signed and not (span.type == "phone" and _called(value, cut)):
        return False
    if signed or any(map(str.isalpha, value)):
        return True
    if len({piece.side for piece in pieces if piece.side}) > 1 or not _even(cut) or (apart and len(cut) > 2):
        return False
    return not (text[: span.start].rstrip(" -")[-1:].isdigit() or text[span.end :].lstrip(" -")[:1].isdigit())


def _called(value: str, cut: Sequence[int]) -> bool:
    """Is it a telephone number in two, written as one?"""
    return len(cut) == 2 and value.lstrip()[:1] in "(+" and sum(map(str.isdigit, value)) >= 10


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
