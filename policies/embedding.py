"""Text -> a vector, in microseconds: the mean of one row for each word piece, and hashed words and pairs of words.

The table is distilled from all-MiniLM-L6-v2 by `training/distil.py`: what the model makes of each word piece alone,
turned so that the first dimensions carry most, weighted by rarity, as in Model2Vec (Minish, 2024; after SIF: Arora et
al., 2017), int8 with a scale for each dimension.  Words are cut as BERT's uncased tokenizer cuts them (WordPiece:
Wu et al., 2016), so that its vocabulary serves.  The n-grams see what a mean cannot: exact words, and their order
(feature hashing with signs: Weinberger et al., 2009).
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

SAMPLE = 600
"""Characters of a text that are read: a prompt says what it is about early."""
HASHED = 4096
"""Buckets of hashed words and pairs of words."""
MAX_WORD = 100
"""Characters; a longer word is one unknown piece, as in BERT."""
REMEMBERED = 32_768
"""Words, as they stand between blanks, whose pieces are kept; all are forgotten when there are more."""
MAX_CHUNK = 32
"""Characters; what is longer, such as an address, hardly comes again and is not kept."""

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Entry = tuple[bytes, bytes]
"""Rows of the pieces and hashes of the words of what stands between two blanks: 64-bit numbers, to be strung together."""

_WORD = re.compile(r"[^\W_]+|[^\w\s]|_")
_CJK = re.compile("[㐀-䶿一-鿿豈-﫿\U00020000-\U0002fa1f]")
_SIGNS = np.array([-1, 1], np.float32)  # by the highest of 32 bits
_PAIR = 0x9E3779B1  # 2**32 over the golden ratio: a bucket of a pair depends on the order of its words


class Embedding(Protocol):
    """Reads texts: what routes are learnt on."""

    says: float
    """How far its likeness of a text to a route's description goes, in points of the classifier's score."""

    def read(self, text: str) -> tuple[Floats, Integers]:
        """(a vector of length one, zero where nothing is known; its n-grams, for `buckets`)."""
        ...


class StaticEmbedding:
    """The table in use.  Deterministic; one thread at a time."""

    says = 2.0  # a mean of words knows little of what a description means: chosen on CLINC150, five utterances a route

    def __init__(self, table: npt.NDArray[np.int8], scale: Floats, vocabulary: Mapping[str, int]) -> None:
        """`table` has a row for each word piece, `scale` a factor for each of its columns, `vocabulary` the rows'
        numbers.  Raises ValueError where they do not fit each other."""
        if table.dtype != np.int8 or table.ndim != 2 or scale.shape != (table.shape[1],):
            raise ValueError("the embedding's table and scale do not fit each other")
        if len(vocabulary) != table.shape[0]:
            raise ValueError("the embedding's vocabulary has another number of pieces than its table")
        self._table = table
        self._scale = scale.astype(np.float32)
        self.vocabulary = vocabulary
        self._last: tuple[str, tuple[Floats, Integers]] | None = None
        self._known: dict[str, Entry] = {}
        self.width = int(table.shape[1])

    def twin(self) -> StaticEmbedding:
        """The same table, for another thread."""
        return StaticEmbedding(self._table, self._scale, self.vocabulary)

    def read(self, text: str) -> tuple[Floats, Integers]:
        """(the unit vector of a text, zero where no word is known; its n-grams, for `buckets`).  Not to be changed."""
        if self._last is not None and self._last[0] == text:  # a route and its complexity ask for the same text
            return self._last[1]
        read = self._read(text)
        self._last = (text, read)
        return read

    def _read(self, text: str) -> tuple[Floats, Integers]:
        known = self._known
        entries = [known.get(chunk) or self._learn(chunk) for chunk in text[:SAMPLE].lower().split()]
        rows = np.frombuffer(b"".join([entry[0] for entry in entries]), np.int64)
        hashes = np.frombuffer(b"".join([entry[1] for entry in entries]), np.int64)
        if not len(rows):
            return np.zeros(self.width, np.float32), ngrams(hashes)
        # Whole numbers below 2**24: their sum is exact, and the product of a row of ones is the quickest way to it.
        vector = (np.ones(len(rows), np.float32) @ self._table.take(rows, axis=0).astype(np.float32)) * self._scale
        norm = float(np.sqrt(vector @ vector))
        return (vector / norm if norm else vector).astype(np.float32, copy=False), ngrams(hashes)

    def pieces(self, text: str) -> tuple[list[str], list[tuple[int, ...]]]:
        """The words that are read of a text, and each one's rows."""
        words = split(text[:SAMPLE])
        return words, [pieces(word, self.vocabulary) for word in words]

    def parts(self, text: str) -> tuple[list[str], Floats]:
        """The words that are read of a text, and what each adds to its vector: (words, width), which sums to it."""
        words, rows = self.pieces(text)
        parts = np.zeros((len(words), self.width), np.float32)
        for part, own in zip(parts, rows, strict=True):
            part[:] = self._table.take(own, axis=0).astype(np.float32).sum(axis=0) * self._scale
        whole = parts.sum(axis=0)
        norm = float(np.sqrt(whole @ whole))
        return words, parts / norm if norm else parts

    def vectors(self, texts: Sequence[str]) -> Floats:
        """(texts, width)"""
        return np.stack([self.read(text)[0] for text in texts]) if texts else np.zeros((0, self.width), np.float32)

    def _learn(self, chunk: str) -> Entry:
        """What stands between two blanks: no word reaches over one, so that a text is the chain of its chunks."""
        words = split(chunk)
        rows = [row for word in words for row in pieces(word, self.vocabulary)]
        hashes = [zlib.crc32(word.encode("utf-8", "replace")) for word in words]
        entry = np.array(rows, np.int64).tobytes(), np.array(hashes, np.int64).tobytes()
        if len(chunk) <= MAX_CHUNK:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[chunk] = entry
        return entry


def split(text: str) -> list[str]:
    """Words and signs of a text as BERT's uncased tokenizer sees them: lower case, without accents."""
    if not text.isascii():
        text = unicodedata.normalize("NFD", text.lower())
        text = "".join([char for char in text if unicodedata.category(char) != "Mn"])
        text = _CJK.sub(r" \g<0> ", text)
    else:
        text = text.lower()
    return _WORD.findall(text)


def pieces(word: str, vocabulary: Mapping[str, int]) -> tuple[int, ...]:
    """Rows of a word's pieces, the longest first; empty where it cannot be put together."""
    whole = vocabulary.get(word)
    if whole is not None:
        return (whole,)
    if len(word) > MAX_WORD:
        return ()
    found = []
    start = 0
    while start < len(word):
        prefix = "##" if start else ""
        for end in range(len(word), start, -1):
            row = vocabulary.get(prefix + word[start:end])
            if row is not None:
                found.append(row)
                start = end
                break
        else:
            return ()
    return tuple(found)


def ngrams(hashes: Sequence[int] | Integers) -> Integers:
    """32-bit hashes of words -> those of the words and of each two neighbours, every one once."""
    words = np.array(hashes, np.int64)
    if len(words) > 1:
        pairs = (words[:-1] * 31 + words[1:]) * _PAIR & 0xFFFFFFFF
        words = np.concatenate((words, pairs ^ pairs >> 15))
    words.sort()
    first = np.ones(len(words), np.bool_)
    np.not_equal(words[1:], words[:-1], out=first[1:])
    return words[first]


def buckets(grams: Integers) -> tuple[Integers, Floats]:
    """(bucket of each n-gram, its sign): signs let collisions cancel rather than add."""
    return grams & (HASHED - 1), _SIGNS[grams >> 31]
