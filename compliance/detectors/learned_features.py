"""What the learned tier sees of a token: hashes of the word, its beginnings and ends, its shape, its entries in lists.

Used by `training/train.py` and by `compliance.detectors.learned` alike, so that both see the same.
"""

from __future__ import annotations

import re
from zlib import crc32

from compliance.detectors.lexicon import Lexicon

BUCKETS = 1 << 15
"""Rows of hashed features; after them 256 of lexicon flags, 64 of shapes, then those of tokens before and after."""
FLAG_ROWS = 256
SHAPE_ROWS = 64
ROWS = BUCKETS + FLAG_ROWS + SHAPE_ROWS
WORD, FLAGS, SHAPE = 0, 7, 8
"""Positions in a token's features, where training drops some."""
FEATURES = 9
UNKNOWN_WORD = 0
MAX_WORD = 32
MAX_KNOWN = 16_384

TOKEN = re.compile(r"[^\W\d_]+|\d+|\n|[^\s]")


def _bucket(salt: str, part: str) -> int:
    return 1 + crc32((salt + part).encode("utf-8", "surrogatepass")) % (BUCKETS - 1)


def _shape(token: str) -> int:
    """0..15: how it is written."""
    length = len(token)
    if token.isalpha():
        if token.islower():
            return 0 if length > 1 else 1
        if token.isupper():
            return 2 if length == 1 else 3 if length < 5 else 4
        if token[0].isupper() and token[1:].islower():
            return 5 if length > 2 else 6
        return 7
    if token.isdigit():
        return 8 + min(length, 6) - 1
    return 14 if token == "\n" else 15


class Features:
    """Tokens and their features.  Remembers the words it has seen, up to `MAX_KNOWN`.  Thread-safe: a lost entry is made again."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon
        self._known: dict[str, tuple[int, ...]] = {}

    def tokens(self, text: str) -> tuple[list[tuple[int, int]], list[tuple[int, ...]]]:
        """(start, end) of each token, and its `FEATURES` rows."""
        places: list[tuple[int, int]] = []
        rows: list[tuple[int, ...]] = []
        known = self._known
        last = 0
        for match in TOKEN.finditer(text):
            token = match.group()
            start, end = place = match.span()
            key = " " + token if start > last else token
            row = known.get(key)
            if row is None:
                row = self._work_out(token, start > last)
                if len(known) >= MAX_KNOWN:
                    known.clear()
                known[key] = row
            places.append(place)
            rows.append(row)
            last = end
        return places, rows

    def _work_out(self, token: str, spaced: bool) -> tuple[int, ...]:
        shape = _shape(token)
        word = token[:MAX_WORD].lower()
        if token.isdigit():
            word = "0" * min(len(word), 8) if len(word) != 4 or word[:2] not in ("19", "20") else "year"
        return (
            _bucket("w", word), _bucket("a", word[:2]), _bucket("b", word[:3]), _bucket("c", word[:4]),
            _bucket("x", word[-2:]), _bucket("y", word[-3:]), _bucket("z", word[-4:]),
            BUCKETS + self._lexicon.flags(word), BUCKETS + FLAG_ROWS + shape * 2 + spaced,
        )  # fmt: skip
