"""The undecided text of one lane of an answer as detectors see it, with the way back to what came.

In arguments of tools the text is JSON, in pieces: escapes are read, and a mask goes where the text stays valid.
"""

from __future__ import annotations

import re

from msgspec import Struct

_TOKEN = re.compile(
    r"""(?P<pair>\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|(?P<unicode>\\u[0-9a-fA-F]{4})"""
    r"""|(?P<escape>\\[^u])|(?P<quote>")|(?P<plain>[^"\\]+)|(?P<odd>\\)""",
    re.DOTALL,
)
_HALF = re.compile(r"(?:\\(?:u[0-9a-fA-F]{0,3})?)?\Z")
"""What may be the beginning of the second half of a pair, at the end of the text."""
_SCALAR = re.compile(r"[^\s\[\]{},:\"]+")
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_WORDS = frozenset({"true", "false", "null"})


class Edit(Struct, frozen=True):
    """Characters of a lane, from its beginning, and what stands in their place.  It may carry an identifier."""

    start: int
    end: int
    text: str

    def __repr__(self) -> str:
        return f"Edit({self.start}, {self.end})"


class Form:
    """The undecided text of a lane as detectors see it, with the way back to the raw characters."""

    __slots__ = ("_json", "_offsets", "_quotes", "_raw", "hidden", "restored", "text")

    def __init__(self, raw: str, inside: bool, json: bool, last: bool) -> None:
        self._raw = raw
        self._offsets: list[int] | None = None
        self._quotes: list[int] = [-1] if inside else []
        self.restored: list[Edit] = []
        self.hidden: list[tuple[int, int]] = []  # where `text` no longer says what stands there
        self.text = raw
        self._json = json
        if json:
            self._read(last)

    def _read(self, last: bool) -> None:
        raw = self._raw
        if "\\" not in raw:
            self._quotes += [match.start() for match in re.finditer('"', raw)]
            return
        out: list[str] = []
        offsets: list[int] = []
        stop = len(raw)
        for token in _TOKEN.finditer(raw):
            start = token.start()
            if not last and _unfinished(token):
                stop = start
                break
            if token["plain"] is not None:
                out.append(token["plain"])
                offsets.extend(range(start, token.end()))
                continue
            if token["quote"] is not None:
                self._quotes.append(start)
            out.append(_character(token))
            offsets.append(start)
        offsets.append(stop)
        self.text = "".join(out)
        self._offsets = offsets

    def raw_offset(self, at: int) -> int:
        return at if self._offsets is None else self._offsets[at]

    def text_offset(self, raw: int) -> int:
        """The first character of the form that comes from `raw` on."""
        if self._offsets is None:
            return raw
        return sum(1 for offset in self._offsets[:-1] if offset < raw)

    def hide(self, start: int, end: int) -> None:
        """To detectors, these characters are a word that says nothing."""
        self.hidden.append((start, end))
        self.text = f"{self.text[:start]}{'x' * (end - start)}{self.text[end:]}"

    def in_string(self, raw: int) -> bool:
        """Is this raw place within a JSON string?  Its opening quote counts as outside, what follows as inside."""
        return sum(1 for quote in self._quotes if quote < raw) % 2 == 1

    def before_scalar(self, raw: int, last: bool) -> int:
        """`raw`, or the beginning of the bare number or word that it would cut in two."""
        if last or self.in_string(raw):
            return raw
        while raw and self._raw[raw - 1] not in ' \t\r\n[]{},:"' and not self.in_string(raw - 1):
            raw -= 1
        return raw

    def masks(self, start: int, end: int, mask: str, *, whole: bool) -> list[Edit]:
        """Edits that mask raw characters: `mask` once, where the identifier begins (`whole`), and nothing for its rest."""
        if not self._json:
            return [Edit(start, end, mask if whole else "")]
        edits: list[Edit] = []
        at = start
        for border in [*(quote for quote in self._quotes if start <= quote < end), end]:
            if border > at and self.in_string(at):
                edits.append(Edit(at, border, mask if whole and not edits else ""))
            elif border > at:
                edits += self._scalars(at, border, mask)
            at = max(at, border + 1)
        return edits

    def _scalars(self, start: int, end: int, mask: str) -> list[Edit]:
        """Bare numbers and words that lie in this part of the text, whole, as strings."""
        while start and self._raw[start - 1] not in ' \t\r\n[]{},:"':
            start -= 1
        return [
            Edit(match.start(), match.end(), f'"{mask}"')
            for match in _SCALAR.finditer(self._raw, start)
            if match.start() < end and match.group() not in _WORDS
        ]


def _unfinished(token: re.Match[str]) -> bool:
    """An escape, or the first half of a pair of them, that may go on behind the text's end."""
    if token["odd"] is not None:
        return True
    half = token["unicode"]
    return half is not None and "d8" <= half[2:4].lower() <= "db" and _HALF.match(token.string, token.end()) is not None


def mask_of(kind: str) -> str:
    """What stands in the place of an identifier: `[SSN]`.  It needs no escape in JSON."""
    return f"[{''.join(c for c in kind.upper() if c.isascii() and (c.isalnum() or c == '_')) or 'HELD'}]"


def _character(token: re.Match[str]) -> str:
    if token["pair"] is not None:
        high, low = int(token["pair"][2:6], 16), int(token["pair"][8:12], 16)
        return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))
    if token["unicode"] is not None:
        return chr(int(token["unicode"][2:], 16))
    if token["escape"] is not None:
        return _ESCAPES.get(token["escape"][1], token["escape"][1])
    return token.group()
