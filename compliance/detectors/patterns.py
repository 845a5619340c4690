"""Shapes of identifiers: one set automaton over the whole text, then locating only what it named.

google-re2 runs in time linear in the text, whatever the text; locating works on one encoding of the text and
stops at `MAX_SPANS` identifiers and `MAX_TRIES` candidates, so no text is slow.  A failed checksum never
clears a labelled identifier; it only keeps an unlabelled run of digits from being one.

The shapes are matched against UTF-8 bytes (`\\w`, `\\d` and `\\b` are ASCII's).  Spans are in code points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import re2
from msgspec import Struct

from compliance.detectors import checksums
from compliance.detectors.hiding import HIDING, offsets_of, plain_form

MAX_SPANS = 256
"""Identifiers located by one shape; more of them change no verdict."""
MAX_TRIES = 20_000
"""Candidates whose checksums are tried in one text.  A text with more is not scanned to its end."""


class TooMany(ValueError):
    """More candidates than are tried: the text is not scanned, so it must not be called clean."""


class Span(Struct, frozen=True):
    """One identifier: code points of the text that was given."""

    type: str
    start: int
    end: int
    confidence: float


class Pattern(Struct, frozen=True):
    """A shape (RE2 syntax, ASCII).  Group 1 is the identifier; `check` gets its text."""

    type: str
    shape: str
    check: Callable[[str], bool] | None = None
    confidence: float = 1.0


# A label reaches its value over punctuation, quotes, the border of two fields and these words, not over prose.
_GAP = r"(?i:(?:[\W_]{0,6}(?:number|num|nbr|no|nr|id|is|was|of|ends|ending|value)s?){0,3}[\W_]{0,12})"
_NOT_A_DECIMAL = r"(?:^|[^\d.]|[^\d]\.)"
_SEP = r"[ .\-]"
_LABELLED_CARD = r"(\d(?:[\s.\-]{0,3}\d){11,18})(?:$|\D)"  # a label vouches for digits however they are set
_LABELLED_SSN = r"(\d(?:[\s.\-]{0,3}\d){8})(?:$|\D)"
_CARD_LABEL = (
    r"(?i:card|visa|master ?card|amex|american express|discover|maestro|diners|jcb|\bcc|_cc|\bpan|_pan)"
    r"(?i:s|_?no|[ _]?num|\#)?"
)
_SSN_LABEL = (
    r"(?:(?i:(?:\b|_)(?:ssn|itin)[a-z_]{0,12})|[a-z]S[Ss][Nn][A-Za-z_]{0,12}"
    r"|(?i:s\.s\.n|\bss ?\#|\bss (?:no|num)|soc(?:ial)?[ ._\-]{0,2}sec(?:urity)?))"
)


def _card(text: str) -> bool:
    return checksums.card(checksums.digits(text))


def _ssn(text: str) -> bool:
    digits = checksums.digits(text)
    return checksums.ssn(digits) or checksums.itin(digits)


def _not_an_asset(text: str) -> bool:
    """`icon@2x.png` is a picture for dense screens, not an address."""
    domain = text.rpartition("@")[2]
    return not (domain[:1].isdigit() and domain[1:3] == "x.")


def _not_words(text: str) -> bool:
    """A token is a long run of its alphabet, or mixes digits and capitals; `sk-learn-...` does neither."""
    if max(map(len, text[3:].replace("_", "-").split("-"))) >= 16:
        return True
    return any(c.isdigit() for c in text) and any(c.isupper() for c in text)


PATTERNS = (
    # Cards: whole, or in the groups that they are printed in; what stands beside them (an expiry, a count) is apart.
    Pattern("card", rf"{_NOT_A_DECIMAL}(\d{{12,19}})(?:$|\D)", _card),
    Pattern("card", rf"{_NOT_A_DECIMAL}([2-6]\d{{3}}(?:{_SEP}\d{{4}}){{3}})(?:$|\D)", _card),
    Pattern("card", rf"{_NOT_A_DECIMAL}([2-6]\d{{3}}(?:{_SEP}\d{{4}}){{3}}{_SEP}\d{{1,3}})(?:$|\D)", _card),
    Pattern("card", rf"{_NOT_A_DECIMAL}(3\d{{3}}{_SEP}\d{{6}}{_SEP}\d{{4,5}})(?:$|\D)", _card),
    Pattern("card", rf"{_NOT_A_DECIMAL}([2-6]\d{{5,7}}{_SEP}\d{{8,13}})(?:$|\D)", _card),
    Pattern("card", rf"{_NOT_A_DECIMAL}([2-6]{_SEP}{{1,3}}\d(?:{_SEP}{{1,3}}\d){{10,17}})(?:$|\D)", _card),
    Pattern("card", _CARD_LABEL + _GAP + _LABELLED_CARD, None, 0.9),
    # Social security and individual taxpayer numbers: dashed, spaced or dotted; bare only with a label.
    Pattern(
        "ssn",
        r"(?:^|[^\d.\-]|[^\d][.\-])(\d{3}-\d{2}-\d{4}|\d{3} \d{2} \d{4}|\d{3}\.\d{2}\.\d{4})(?:-?$|[^\d\-]|-\D)",
        _ssn,
    ),
    Pattern("ssn", _SSN_LABEL + _GAP + _LABELLED_SSN, None, 0.95),
    Pattern(
        "email",
        r"([A-Za-z0-9._%+\-]+@[A-Za-z0-9](?:[A-Za-z0-9\-]*\.)+[A-Za-z]{2,24})(?:$|[^A-Za-z])",
        _not_an_asset,
    ),
    # Internationalised addresses (RFC 6531), with a Latin top-level domain.
    Pattern(
        "email",
        r"([A-Za-z0-9._%+\-\x80-\xff]+@[A-Za-z0-9\-\x80-\xff](?:[A-Za-z0-9\-\x80-\xff]*\.)+[A-Za-z]{2,24})(?:$|[^A-Za-z])",
        _not_an_asset,
        0.9,
    ),
    Pattern("secret", r"(-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----)"),
    Pattern("secret", r"\b((?:AKIA|ASIA)[0-9A-Z]{16})\b"),  # AWS access key ids
    Pattern("secret", r"\b(sk-[A-Za-z0-9_\-]{20,200})", _not_words),  # OpenAI, Anthropic and who copies them
    Pattern("secret", r"\b(gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255})"),
    Pattern("secret", r"\b(xox[abeprs]-[A-Za-z0-9\-]{10,255})"),  # Slack
    Pattern("secret", r"\b(AIza[0-9A-Za-z_\-]{35})"),  # Google API keys
    Pattern("secret", r"\b(eyJ[A-Za-z0-9_\-]{8,}\.eyJ[A-Za-z0-9_\-]{8,}(?:\.[A-Za-z0-9_\-]*)?)"),  # JWT (RFC 7519)
    Pattern("secret", r"\b(spw_[A-Za-z0-9_\-]{43})"),  # Spillway's own keys
)

_CONTINUATION = bytes(range(0x80, 0xC0))


class Patterns:
    """The compiled patterns.  Thread-safe: nothing in it changes after it was made."""

    def __init__(self, patterns: Sequence[Pattern] = PATTERNS) -> None:
        self._patterns = tuple(patterns)
        options = re2.Options()
        options.max_mem = 64 << 20
        options.encoding = re2.Options.Encoding.LATIN1  # bytes as they are: nothing to decode, nothing invalid
        self._set = re2.Set.SearchSet(options)
        shapes = [pattern.shape.encode("ascii") for pattern in self._patterns]
        for shape in shapes:
            self._set.Add(shape)
        self._set.Compile()
        self._located = [re2.compile(shape, options) for shape in shapes]

    def find(self, text: str) -> list[Span]:
        """Every identifier of `text`, in order; of overlapping ones of one type, the surest.  Raises `TooMany`."""
        spans = self._find(text)
        if text.isascii() or HIDING.search(text) is None:
            return spans
        hidden = self._find(plain_form(text))
        if not hidden:
            return spans
        offsets = offsets_of(text)
        spans += [Span(s.type, offsets[s.start], offsets[s.end - 1] + 1, s.confidence) for s in hidden]
        return _apart(spans)

    def _find(self, text: str) -> list[Span]:
        data = text.encode("utf-8", "surrogatepass")
        named = self._set.Match(data)
        if not named:
            return []
        spans: list[Span] = []
        tries = 0
        for index in named:
            tries = self._locate(index, data, spans, tries)
        spans = _apart(spans)
        return spans if len(data) == len(text) else _in_code_points(spans, data)

    def _locate(self, index: int, data: bytes, spans: list[Span], tries: int) -> int:
        """Add the spans (in bytes) of one shape; the tries so far."""
        pattern = self._patterns[index]
        search = self._located[index].search
        at = found = 0
        while found < MAX_SPANS and (match := search(data, at)) is not None:
            start, end = match.span(1)
            if pattern.check is None or pattern.check(match.group(1).decode("utf-8", "replace")):
                spans.append(Span(pattern.type, start, end, pattern.confidence))
                found += 1
                at = end  # a character that bounds one identifier may bound the next as well
                continue
            tries += 1
            if tries > MAX_TRIES:
                raise TooMany
            at = _next_group(data, start, end)
        return tries


def _next_group(data: bytes, start: int, end: int) -> int:
    """Where to look on after a candidate that is none: its first group of digits may not have belonged to it."""
    while start < end and 48 <= data[start] <= 57:
        start += 1
    return start if 48 <= data[start - 1] <= 57 else end


def _apart(spans: list[Span]) -> list[Span]:
    """In order; of two that overlap and are of one type, the surer one, then the longer one."""
    if len(spans) < 2:
        return spans
    kept: list[Span] = []
    reach: dict[str, int] = {}
    for span in sorted(spans, key=lambda span: (span.start, -span.confidence, -span.end)):
        if span.start >= reach.get(span.type, 0):
            reach[span.type] = span.end
            kept.append(span)
            continue
        index = next(i for i in range(len(kept) - 1, -1, -1) if kept[i].type == span.type)
        if (span.confidence, span.end - span.start) > (kept[index].confidence, kept[index].end - kept[index].start):
            kept[index] = span
        reach[span.type] = max(reach[span.type], span.end)
    return kept


def _in_code_points(spans: list[Span], data: bytes) -> list[Span]:
    """Spans in bytes of UTF-8 as spans in code points."""
    points: dict[int, int] = {}
    last = count = 0
    for offset in sorted({offset for span in spans for offset in (span.start, span.end)}):
        count += len(data[last:offset].translate(None, _CONTINUATION))
        points[offset] = count
        last = offset
    return [Span(s.type, points[s.start], points[s.end], s.confidence) for s in spans]
