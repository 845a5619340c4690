"""Shapes of identifiers: one set automaton over the whole text, then locating only what it named.

google-re2 runs in time linear in the text, whatever the text (no pattern can be made slow).  A failed
checksum never clears a labelled identifier; it only keeps an unlabelled run of digits from being one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

import re2
from msgspec import Struct

from compliance.detectors import checksums


class Span(Struct, frozen=True):
    """One identifier: code points of the text that was given."""

    type: str
    start: int
    end: int
    confidence: float


class Pattern(Struct, frozen=True):
    """A shape.  Group 1 is the identifier; `check` gets its digits."""

    type: str
    shape: str
    check: Callable[[str], bool] | None = None
    confidence: float = 1.0


_CARD = r"(\d(?:[ .\-]?\d){11,18})"
_SSN = r"(\d{3}[ .\-]?\d{2}[ .\-]?\d{4})"
_GAP = r"(?:\W{0,6}(?:number|num|nr|no|id|is|was|of|ends)\b){0,3}\W{0,8}"

PATTERNS = (
    Pattern("card", r"(?:^|[^\d.])" + _CARD + r"(?:$|[^\d])", checksums.card),
    Pattern("card", r"(?i)\b(?:card|visa|mastercard|amex|discover|pan)" + _GAP + _CARD + r"(?:$|\D)", None, 0.9),
    Pattern(
        "ssn",
        r"(?:^|[^\d.\-])(\d{3}-\d{2}-\d{4}|\d{3} \d{2} \d{4}|\d{3}\.\d{2}\.\d{4})(?:$|[^\d\-])",
        lambda digits: checksums.ssn(digits) or checksums.itin(digits),
    ),
    Pattern("ssn", r"(?i)\b(?:ssn|s\.s\.n|itin|social[ _\-]?security|soc[ .]{0,2}sec)[._#:]{0,2}" + _GAP + _SSN + r"(?:$|\D)", None, 0.95),
    Pattern("ssn", r"(?i)(?:ssn|social_?security|socialSecurity)\w{0,12}\W{1,8}" + _SSN + r"(?:$|\D)", None, 0.95),
    Pattern("email", r"([A-Za-z0-9._%+\-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9\-]{0,62}\.){1,8}[A-Za-z]{2,24})(?:$|[^A-Za-z])"),
    Pattern("secret", r"(-----BEGIN (?:[A-Z]{1,12} ){0,3}PRIVATE KEY-----)"),
    Pattern("secret", r"\b((?:AKIA|ASIA)[0-9A-Z]{16})\b"),
    Pattern("secret", r"\b(sk-(?:ant-|proj-|svcacct-|admin-)?[A-Za-z0-9_\-]{20,200})"),
    Pattern("secret", r"\b(gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255})"),
    Pattern("secret", r"\b(xox[abeprs]-[A-Za-z0-9\-]{10,255})"),
    Pattern("secret", r"\b(AIza[0-9A-Za-z_\-]{35})"),
    Pattern("secret", r"\b(eyJ[A-Za-z0-9_\-]{8,}\.eyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,})"),
    Pattern("secret", r"\b(spw_[A-Za-z0-9_\-]{43})"),
)  # fmt: skip

_DIGITS = re.compile(r"\D")
_ZERO_WIDTH = (
    "\u00ad\u034f\u061c\u180e\u200b\u200c\u200d\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufe00-\ufe0f\ufeff"
)
_SPACES = "\u00a0\u2000-\u200a\u202f\u205f\u3000"
_DASHES = "\u2010-\u2015\u2043\u2212\ufe58\ufe63\uff0d"
_OTHER_DIGITS = "\u0660-\u0669\u06f0-\u06f9\u0966-\u096f\u09e6-\u09ef\u0e50-\u0e59\U0001d7ce-\U0001d7ff"
# Typography (dashes, wide spaces) hides something only next to a digit; the rest has no business in a prompt.
_HIDING = re.compile(
    f"[{_ZERO_WIDTH}{_OTHER_DIGITS}\u2460-\u24ff\uff01-\uff5e\u2070-\u209c\u00b2\u00b3\u00b9]|(?<=[0-9])[{_SPACES}{_DASHES}]"
)
_IS_ZERO_WIDTH = re.compile(f"[{_ZERO_WIDTH}]")
_IS_SPACE = re.compile(f"[{_SPACES}]")
_IS_DASH = re.compile(f"[{_DASHES}]")


class Patterns:
    """The compiled patterns.  Thread-safe: nothing in it changes after it was made."""

    def __init__(self, patterns: tuple[Pattern, ...] = PATTERNS) -> None:
        self._patterns = patterns
        options = re2.Options()
        options.max_mem = 64 << 20
        self._set = re2.Set.SearchSet(options)
        for pattern in patterns:
            self._set.Add(pattern.shape)
        self._set.Compile()
        self._located = [re2.compile(pattern.shape, options) for pattern in patterns]

    def find(self, text: str) -> list[Span]:
        """Every identifier of `text`, in order; overlapping ones of one type are one."""
        if text.isascii() or _HIDING.search(text) is None:
            return self._find(text)
        plain, offsets = normalise(text)
        return [Span(s.type, offsets[s.start], offsets[s.end - 1] + 1, s.confidence) for s in self._find(plain)]

    def _find(self, text: str) -> list[Span]:
        named = self._set.Match(text)
        if not named:
            return []
        spans = [span for index in named for span in self._locate(index, text)]
        spans.sort(key=lambda span: (span.start, -span.end))
        kept: list[Span] = []
        for span in spans:
            if not any(other.type == span.type and span.start < other.end for other in kept[-4:]):
                kept.append(span)
        return kept

    def _locate(self, index: int, text: str) -> list[Span]:
        pattern = self._patterns[index]
        spans = []
        at = 0
        while (match := self._located[index].search(text, at)) is not None:
            start, end = match.span(1)
            if pattern.check is None or pattern.check(_DIGITS.sub("", match.group(1))):
                spans.append(Span(pattern.type, start, end, pattern.confidence))
            at = max(end, at + 1)  # a character that bounds one identifier may bound the next as well
        return spans


def normalise(text: str) -> tuple[str, list[int]]:
    """`text` in plain form, and for each of its characters the offset in `text` that it came from.

    Zero-width characters go; spaces, dashes and digits of all kinds become the ASCII ones; compatibility forms
    (full-width, circled) become what they stand for (Unicode NFKC).
    """
    out: list[str] = []
    offsets: list[int] = []
    for offset, character in enumerate(text):
        if character < "\x80":
            plain = character
        elif _IS_ZERO_WIDTH.match(character):
            continue
        elif _IS_SPACE.match(character):
            plain = " "
        elif _IS_DASH.match(character):
            plain = "-"
        elif (digit := unicodedata.decimal(character, None)) is not None:
            plain = str(digit)
        else:
            plain = unicodedata.normalize("NFKC", character)
        out.append(plain)
        offsets.extend([offset] * len(plain))
    return "".join(out), offsets
