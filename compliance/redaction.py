"""What is found in a request, replaced by pseudonyms where it stands.  Pure; what it cannot do safely it refuses.

    1. find: keys, strings and numbers of the body are scanned as one text, the JSON inside of strings apart as well.
    2. replace: each finding that the rules want replaced, every other place where the same value stands, and what
       looked like a pseudonym already; in the bytes that the client sent, which are otherwise left alone.
    3. look again: what would leave is inspected as a request of its own.  What is found in it now goes through 1 and 2
       again, `ROUNDS` times at most.  A body in which anything is left is not given out.

What would break the request by being replaced is left, and the whole is refused: ids, signatures, a dialect's own
numbers, names of tools.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple, Protocol

import msgspec
from msgspec import Struct

from compliance.detectors.automaton import Span
from compliance.fields import KNOWN_KEYS, located
from compliance.jsontext import Clash, Document, Edit, Leaf, NotJson, apply
from compliance.model import Action, Finding
from compliance.pseudonyms import LITERAL, PSEUDONYM, Scope, ScopeFull
from compliance.scan import SEPARATOR, Inspection, NotScanned
from compliance.sought import Sought

ROUNDS = 3
"""Times that a body is redacted: what was replaced changes what surrounds the rest."""

Decides = Callable[[str], Action]
"""What the rules say of one kind of finding, for the target that the body is for."""

_WORDS = frozenset(
    """
    detail effort encoding_format format modalities object reasoning_effort role service_tier status tool_choice
    truncation type verbosity
    """.split()  # noqa: SIM905  a list of words reads best as words
)
"""Keys of a dialect whose values are words of its own."""
_HANDLES = frozenset(
    """
    call_id data encrypted_content file_data file_id id media_type model name previous_response_id signature
    tool_call_id tool_use_id
    """.split()  # noqa: SIM905
)
"""Keys of a dialect whose values mean something to somebody else: with other values the request would be broken."""
_LEAST_NUMBER = 7
"""Digits of a number that is scanned (`compliance.fields`)."""


class Unredactable(Exception):
    """Not everything can be replaced, so nothing may leave.  The reason holds no text of the request."""


class Scans(Protocol):
    """What is asked of a scanner; see `compliance.scan.Scanner`."""

    def spans(self, text: str, parts: Sequence[str] = (), *, health: bool = False) -> list[Span]: ...
    def inspect(self, body: Any, *, health: bool = False) -> Inspection: ...


class Redacted(Struct, frozen=True):
    """A body in which nothing is left that the rules want replaced, and how many of each kind were."""

    raw: bytes
    counts: tuple[tuple[str, int], ...]


class _Region(NamedTuple):
    start: int
    end: int
    kind: str
    found: bool  # by a detector; else the same value as elsewhere, or what looks like a pseudonym


Regions = dict[Leaf, list[_Region]]


def redact_text(text: str, spans: Iterable[Span], scope: Scope) -> str:
    """A plain text with these spans replaced; what looks like a pseudonym in it is escaped.  Raises `ScopeFull`."""
    spans = list(spans)
    regions = [_Region(span.start, span.end, span.type, True) for span in spans]
    sought = Sought([(span.type, text[span.start : span.end]) for span in spans])
    regions += [_Region(*place, False) for place in sought.find(text)]
    regions += [_Region(*match.span(), LITERAL, False) for match in PSEUDONYM.finditer(text)]
    return apply(text, _edits(text, regions, scope, Counter()))


def redact_body(raw: bytes, scanner: Scans, decides: Decides, scope: Scope, *, health: bool) -> Redacted:
    """A request's body, redacted.  Raises `Unredactable`, saying why.

    `health`: there is health context, as the first inspection saw it.
    """
    counts: Counter[str] = Counter()
    try:
        source = raw.decode()
        for turn in range(ROUNDS):
            source = _pass(source, scanner, decides, scope, counts, health, turn)
            if not _anything_left(source, scanner, decides, scope, health):
                return Redacted(source.encode(), tuple(sorted(counts.items())))
    except NotScanned:
        raise Unredactable("it was not scanned to its end") from None
    except ScopeFull:
        raise Unredactable("its conversation has more values than a scope may have") from None
    except Clash:
        raise Unredactable("two keys would become the same") from None
    except (NotJson, ValueError, RecursionError):
        raise Unredactable("its JSON could not be edited") from None
    raise Unredactable("identifiers are left after it was redacted")


def _pass(
    source: str, scanner: Scans, decides: Decides, scope: Scope, counts: Counter[str], health: bool, turn: int
) -> str:
    document = Document(source)
    leaves = list(document.all_leaves())
    regions, values = _found(leaves, scanner, decides, scope, health)
    known = [(one.kind, one.value) for one in scope.known if one.kind != LITERAL and decides(one.kind) != "allow"]
    sought = Sought((*known, *values))
    changes: dict[Leaf, list[Edit]] = {}
    for leaf in leaves:
        of_leaf = regions.get(leaf, [])
        if of_leaf and not _replaceable(leaf):
            raise Unredactable("something was found where nothing can be replaced")
        if leaf.inside is not None:
            continue
        text = leaf.text if leaf.kind != "number" else leaf.raw
        for place in sought.find(text):
            if turn and not _outside(text, Span(place[2], place[0], place[1], 1.0), scope):
                continue  # a word of one of our pseudonyms
            if decides(place[2]) != "redact":
                raise Unredactable(f"{place[2]} may not leave even if it is replaced")
            if _replaceable(leaf):
                of_leaf.append(_Region(*place, False))
            elif _says(leaf):
                raise Unredactable("something was found where nothing can be replaced")
        if turn == 0 and "[" in leaf.text and _replaceable(leaf):
            of_leaf += [_Region(*match.span(), LITERAL, False) for match in PSEUDONYM.finditer(leaf.text)]
        if not of_leaf:
            continue
        if leaf.kind == "number":
            of_leaf = [_Region(0, len(leaf.raw), of_leaf[0].kind, True)]
        changes[leaf] = _edits(text, of_leaf, scope, counts)
    return document.replaced(changes)


def _found(
    leaves: Sequence[Leaf], scanner: Scans, decides: Decides, scope: Scope, health: bool
) -> tuple[Regions, list[tuple[str, str]]]:
    """What detectors find, by the leaf in which it stands; and the values that may stand elsewhere, too."""
    scanned = [leaf for leaf in leaves if leaf.kind != "number" or len(leaf.text.lstrip("-0")) >= _LEAST_NUMBER]
    parts = [leaf.text for leaf in scanned]
    starts = list(accumulate((len(part) + len(SEPARATOR) for part in parts), initial=0))
    text = SEPARATOR.join(parts)
    regions: Regions = {}
    values: list[tuple[str, str]] = []
    for span in scanner.spans(text, parts, health=health):
        action = decides(span.type)
        if action == "allow":
            continue
        pieces = _outside(text, span, scope)
        if action != "redact" and pieces:
            raise Unredactable(f"{span.type} may not leave even if it is replaced")
        for start, end in pieces:
            if (start, end) == (span.start, span.end):
                values.append((span.type, text[start:end].strip()))
            for leaf, region in _clipped(scanned, starts, start, end, span.type):
                _project(leaf, region, regions)
    return regions, [value for value in values if SEPARATOR not in value[1]]


def _outside(text: str, span: Span, scope: Scope) -> list[tuple[int, int]]:
    """The parts of a span that no pseudonym of ours covers."""
    at = span.start
    pieces = []
    margin = 64  # a pseudonym may reach into the span from both sides
    for match in PSEUDONYM.finditer(text, max(0, span.start - margin), span.end + margin):
        if match.end() <= span.start or match.start() >= span.end or scope.original(match.group()) is None:
            continue
        pieces.append((at, match.start()))
        at = match.end()
    if at == span.start:
        return [(span.start, span.end)]
    pieces.append((at, span.end))
    return [(start, end) for start, end in pieces if start < end and any(map(str.isalnum, text[start:end]))]


def _clipped(
    leaves: Sequence[Leaf], starts: Sequence[int], start: int, end: int, kind: str
) -> Iterator[tuple[Leaf, _Region]]:
    """The part of a place in the joined text that stands in each leaf."""
    index = bisect_right(starts, start) - 1
    while index < len(leaves) and starts[index] < end:
        leaf, offset = leaves[index], starts[index]
        first, last = max(start - offset, 0), min(end - offset, len(leaf.text))
        whole = start >= offset and end <= offset + len(leaf.text)
        if first < last and (whole or leaf.kind != "key"):  # between the halves of a value, a key is no part of it
            yield leaf, _Region(first, last, kind, True)
        index += 1


def _project(leaf: Leaf, region: _Region, regions: Regions) -> None:
    """A region of a leaf; of one that holds JSON, as regions of the leaves in it."""
    if leaf.inside is None:
        regions.setdefault(leaf, []).append(region)
        return
    for inner in leaf.inside.leaves:
        if inner.end <= region.start or inner.start >= region.end:
            continue
        first = inner.text_offset(max(region.start - inner.start, 0)) if inner.kind != "number" else 0
        last = len(inner.text)
        if inner.kind != "number" and region.end < inner.end:
            last = inner.text_offset(region.end - inner.start)
        if inner.kind == "key" and (region.start < inner.start or region.end > inner.end):
            continue
        if first < last:
            _project(inner, _Region(first, last, region.kind, region.found), regions)


def _replaceable(leaf: Leaf) -> bool:
    """May this leaf hold a pseudonym, without the request meaning something else or nothing?"""
    if leaf.free:
        return True
    if leaf.kind == "key":
        return leaf.key not in KNOWN_KEYS
    if leaf.kind == "number" or leaf.key in _WORDS:
        return False
    if leaf.key == "data":  # of a document it may be plain text
        return leaf.holder == "source" and " " in leaf.text
    return leaf.key not in _HANDLES or (leaf.key == "name" and leaf.holder == "messages")


def _says(leaf: Leaf) -> bool:
    """May a known value in a leaf that cannot be replaced be more than chance?"""
    if leaf.kind == "number":
        return len(leaf.raw) >= _LEAST_NUMBER
    return leaf.kind == "string" and leaf.key not in _WORDS and leaf.key != "model"


def _edits(text: str, regions: Iterable[_Region], scope: Scope, counts: Counter[str]) -> list[Edit]:
    """Pseudonyms in the place of regions; those that overlap become one, of the kind of the longest."""
    edits: list[Edit] = []
    for region in _merged(text, regions, scope):
        counts[region.kind] += 1
        edits.append(Edit(region.start, region.end, scope.pseudonym(region.kind, text[region.start : region.end])))
    return edits


def _merged(text: str, regions: Iterable[_Region], scope: Scope) -> list[_Region]:
    """Of two kinds at one place the one that the value had first in its conversation: it is to keep its pseudonym."""

    def order(one: _Region) -> tuple[int, int, int, bool, str]:
        return one.start, -one.end, scope.age(one.kind, text[one.start : one.end]), not one.found, one.kind

    merged: list[_Region] = []
    longest = 0
    for region in sorted(_trimmed(text, regions), key=order):
        length = region.end - region.start
        last = merged[-1] if merged else None
        if last is None or region.start >= last.end:
            merged.append(region)
            longest = length
            continue
        kind = region.kind if length > longest else last.kind
        longest = max(longest, length)
        merged[-1] = _Region(last.start, max(last.end, region.end), kind, last.found)
    return merged


def _trimmed(text: str, regions: Iterable[_Region]) -> Iterator[_Region]:
    """Without white space at either end."""
    for region in regions:
        start, end = region.start, min(region.end, len(text))
        while start < end and text[start].isspace():
            start += 1
        while end > start and text[end - 1].isspace():
            end -= 1
        if start < end:
            yield _Region(start, end, region.kind, region.found)


def _anything_left(source: str, scanner: Scans, decides: Decides, scope: Scope, health: bool) -> bool:
    """Is anything left in a redacted body that may not leave as it is?  What stands in our pseudonyms is not.

    Of a finding without a place that cannot be told: then a body is inspected in which every pseudonym is letters.
    """
    body = msgspec.json.decode(source)
    found = [one for one in scanner.inspect(body, health=health).findings if decides(one.type) != "allow"]
    if not found:
        return False
    texts = _texts(body)
    for finding in found:
        if finding.end > finding.start and not any([_covered(t, finding, scope) for t in texts.get(finding.path, ())]):
            return True
    if all([finding.end > finding.start for finding in found]):
        return False
    body = msgspec.json.decode(PSEUDONYM.sub(lambda match: _mute(match.group(), scope), source))
    return any([decides(one.type) != "allow" for one in scanner.inspect(body, health=health).findings])


def _mute(pseudonym: str, scope: Scope) -> str:
    """A pseudonym of ours as a word that is still its own and means nothing."""
    return pseudonym if scope.original(pseudonym) is None else f"[{pseudonym[:-1].rpartition('_')[2]}]"


def _texts(body: Any) -> Mapping[str, list[str]]:
    texts: dict[str, list[str]] = {}
    for field in located(body):
        if field.exact:
            texts.setdefault(field.path, []).append(field.text)
    return texts


def _covered(text: str, finding: Finding, scope: Scope) -> bool:
    return not _outside(text, Span(finding.type, finding.start, finding.end, 1.0), scope)
