"""What is found in a request, replaced by pseudonyms where it stands.  Pure; what it cannot do safely it refuses.

    1. find: keys, strings and numbers of the body are scanned as one text, the JSON inside of strings apart as well.
    2. replace: each finding that the rules want replaced, every other place where the same value stands, and what
       looked like a pseudonym already; in the bytes that the client sent, which are otherwise left alone.
    3. look again: what would leave is inspected as a request of its own, and no value that is known may stand in it in
       any form.  What is found in it now goes through 1 and 2 again, `ROUNDS` times at most.  A body in which anything
       is left is not given out.

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

from compliance.detectors.forms import Form
from compliance.detectors.model import Span
from compliance.fields import KNOWN_KEYS, located, may_label, number_texts
from compliance.jsontext import Clash, Document, Edit, Leaf, NotJson, apply
from compliance.model import Action, Finding, Inspection
from compliance.pseudonyms import LITERAL, PSEUDONYM, Scope, ScopeFull
from compliance.scan import SEPARATOR, NotScanned
from compliance.sought import MAX_GAP, Place, Sought

ROUNDS = 3
"""Times that a body is redacted: what was replaced changes what surrounds the rest."""
EDGE = 64
"""Characters at either end of a text in which a value begins or ends that goes on in another."""
_MIDDLE = "|" * (MAX_GAP + 1)

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
    def forms(self, text: str, parts: Sequence[str] = ()) -> Sequence[Form]: ...
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
        values: list[tuple[str, str]] = []  # of this request
        for turn in range(ROUNDS):
            source = _pass(source, scanner, decides, scope, counts, health, turn, values)
            if not _any_known(source, scanner, _sought(decides, scope, values), scope) and not _anything_left(
                source, scanner, decides, scope, health
            ):
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


def known_kinds(raw: bytes, beside: str, scanner: Scans, sought: Sought) -> tuple[str, ...]:
    """The kinds of known values that stand in a request, or in the text beside its body.

    Raises `NotScanned`, also where the body cannot be read as redaction reads it.
    """
    try:
        leaves = list(Document(raw.decode()).all_leaves())
        standing = [region.kind for leaf, region in _standing(leaves, scanner, sought, None) if _speaks(leaf)]
    except (ValueError, RecursionError):
        raise NotScanned from None
    standing += [kind for _, _, kind in _places(beside, [beside], scanner, sought)]
    return tuple(dict.fromkeys(standing))


def _pass(
    source: str,
    scanner: Scans,
    decides: Decides,
    scope: Scope,
    counts: Counter[str],
    health: bool,
    turn: int,
    values: list[tuple[str, str]],
) -> str:
    document = Document(source)
    leaves = list(document.all_leaves())
    regions, found = _found(leaves, scanner, decides, scope, health)
    values += found
    if not all(map(_replaceable, regions)):
        raise Unredactable("something was found where nothing can be replaced")
    for leaf, region in _standing(leaves, scanner, _sought(decides, scope, values), scope):
        if decides(region.kind) != "redact":
            raise Unredactable(f"{region.kind} may not leave even if it is replaced")
        if _replaceable(leaf):
            regions.setdefault(leaf, []).append(region)
        elif _says(leaf):
            raise Unredactable("something was found where nothing can be replaced")
    changes: dict[Leaf, list[Edit]] = {}
    for leaf in leaves:
        if leaf.inside is not None:
            continue
        of_leaf = regions.get(leaf, [])
        if turn == 0 and "[" in leaf.text and _replaceable(leaf):
            of_leaf += [_Region(*match.span(), LITERAL, False) for match in PSEUDONYM.finditer(leaf.text)]
        if not of_leaf:
            continue
        if leaf.kind == "number":
            of_leaf = [_Region(0, len(leaf.raw), of_leaf[0].kind, True)]
        changes[leaf] = _edits(_said(leaf), of_leaf, scope, counts)
    return document.replaced(changes)


def _sought(decides: Decides, scope: Scope, values: Iterable[tuple[str, str]]) -> Sought:
    """All that is known by now and may not leave: of the conversation, and of this request."""
    known = [(one.kind, one.value) for one in (*scope.known, *scope.added) if one.kind != LITERAL]
    return Sought([(kind, value) for kind, value in (*known, *values) if decides(kind) != "allow"])


def _said(leaf: Leaf) -> str:
    return leaf.text if leaf.kind != "number" else leaf.raw


def _standing(
    leaves: Sequence[Leaf], scanner: Scans, sought: Sought, scope: Scope | None
) -> Iterator[tuple[Leaf, _Region]]:
    """Where known values stand, by leaf, also in what is hidden and over the borders of leaves.

    `scope`: what its pseudonyms cover is left out.
    """
    if not sought:
        return
    leaves = [leaf for leaf in leaves if leaf.inside is None]  # else what is in it stands in leaves of its own
    parts = [_said(leaf) for leaf in leaves]
    if scope is not None and scope.issued:
        parts = [PSEUDONYM.sub(lambda match: _blank(match.group(), scope), part) for part in parts]
    starts, text = _joined(parts)
    for start, end, kind in _places(text, parts, scanner, sought):
        standing = list(_clipped(leaves, parts, starts, start, end, kind))
        if len(standing) > 1 and scope is not None and not all([_replaceable(leaf) for leaf, _ in standing]):
            raise Unredactable("something was found where nothing can be replaced")
        for leaf, region in standing:
            yield leaf, region._replace(found=False)
    said = [index for index, leaf in enumerate(leaves) if leaf.kind != "key" and _replaceable(leaf)]
    leaves, cut = [leaves[index] for index in said], [_edges(parts[index]) for index in said]
    starts, text = _joined(cut)
    for start, end, kind in sought.find_joined(text):  # what goes on in the next value, whatever keys stand between
        if bisect_right(starts, start) != bisect_right(starts, end - 1):
            for leaf, region in _clipped(leaves, cut, starts, start, end, kind):
                out = len(_said(leaf)) - len(_edges(_said(leaf))) if region.start > EDGE else 0
                yield leaf, _Region(region.start + out, region.end + out, kind, False)


def _edges(part: str) -> str:
    """A text without its middle, over which no value goes on."""
    return part if len(part) <= 2 * EDGE + len(_MIDDLE) else f"{part[:EDGE]}{_MIDDLE}{part[-EDGE:]}"


def _joined(parts: Sequence[str]) -> tuple[list[int], str]:
    """(where each begins in them as one text, the text)."""
    return list(accumulate((len(part) + len(SEPARATOR) for part in parts), initial=0)), SEPARATOR.join(parts)


def _places(text: str, parts: Sequence[str], scanner: Scans, sought: Sought) -> Iterator[Place]:
    yield from sought.find(text)
    for form in scanner.forms(text, parts):
        for start, end, kind in sought.find(form.text):
            if form.changed(start, end):
                yield *form.origin(start, end), kind


def _blank(pseudonym: str, scope: Scope) -> str:
    """Signs in the place of a pseudonym of ours: no value goes on over so many."""
    return pseudonym if scope.original(pseudonym) is None else "|" * len(pseudonym)


def _any_known(source: str, scanner: Scans, sought: Sought, scope: Scope) -> bool:
    """Does a known value stand in a redacted body?"""
    leaves = list(Document(source).all_leaves())
    return any([_speaks(leaf) for leaf, _ in _standing(leaves, scanner, sought, scope)])


def _speaks(leaf: Leaf) -> bool:
    """Is a known value in this leaf more than chance?"""
    return _replaceable(leaf) or _says(leaf)


def _found(
    leaves: Sequence[Leaf], scanner: Scans, decides: Decides, scope: Scope, health: bool
) -> tuple[Regions, list[tuple[str, str]]]:
    """What detectors find, by the leaf in which it stands; and the values that may stand elsewhere, too."""
    texts = [(leaf, _scanned(leaf)) for leaf in leaves]
    scanned = [leaf for leaf, text in texts if text is not None]
    parts = [text for _, text in texts if text is not None]
    starts, text = _joined(parts)
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
            standing = list(_clipped(scanned, parts, starts, start, end, span.type))
            if (start, end) == (span.start, span.end):
                said = text[start:end] if len(standing) == 1 else "".join([_cut(*one) for one in standing])
                values.append((span.type, said.strip()))
            for leaf, region in standing:
                _project(leaf, region, regions)
    return regions, values


def _scanned(leaf: Leaf) -> str | None:
    """What a scanner sees of a leaf; None: nothing."""
    if leaf.kind != "number":
        return leaf.text
    try:
        value = int(leaf.raw) if leaf.raw.lstrip("-").isdigit() else float(leaf.raw)
    except ValueError:
        return leaf.raw
    label = leaf.key if leaf.key not in KNOWN_KEYS and may_label(leaf.key) else ""
    return SEPARATOR.join(number_texts(value, label)) or None


def _cut(leaf: Leaf, region: _Region) -> str:
    return leaf.text[region.start : region.end] if leaf.kind != "number" else leaf.raw


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
    leaves: Sequence[Leaf], parts: Sequence[str], starts: Sequence[int], start: int, end: int, kind: str
) -> Iterator[tuple[Leaf, _Region]]:
    """The part of a place in the joined text that stands in each leaf."""
    index = bisect_right(starts, start) - 1
    while index < len(leaves) and starts[index] < end:
        leaf, offset, part = leaves[index], starts[index], parts[index]
        first, last = max(start - offset, 0), min(end - offset, len(part))
        whole = start >= offset and end <= offset + len(part)
        between = start < offset and end > offset + len(part)
        if first < last and (whole or leaf.kind != "key" or _is_piece(leaf, part[first:last], between)):
            yield leaf, _Region(first, last, kind, True)
        index += 1


def _is_piece(key: Leaf, piece: str, between: bool) -> bool:
    """Is what stands in a key a part of a value that goes on beside it?  Between the halves of one, a word is none."""
    if any(map(str.isdigit, piece)):
        return True
    return not between and _replaceable(key) and any(map(str.isalpha, piece))


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
        over = region.start < inner.start or region.end > inner.end
        between = region.start < inner.start and region.end > inner.end
        if inner.kind == "key" and over and not _is_piece(inner, inner.text[first:last], between):
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
