"""The learned tier: a small token classifier that finds names, places, facilities and addresses.

Hashed features of each token are summed, four convolutions of width 3 with gaps of 1, 2, 4 and 8 tokens see 15 tokens
to either side, and a softmax says what each token is.  The model (`compliance/models/names.npz`, int8 and float16) is
made by `training/train.py`; its training record lies beside it.  NumPy alone, linear in the text, in chunks of
`CHUNK` tokens that overlap by what the convolutions see.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compliance.detectors.crowd import about_many, one_person
from compliance.detectors.learned_features import ROWS, Features
from compliance.detectors.lexicon import FREQUENT, GIVEN, REGION, SURNAME, WORD, Lexicon, lexicon
from compliance.detectors.model import Span
from compliance.detectors.people import TITLES, before, names_a_thing

CHUNK = 1024
"""Tokens worked on at once; with `SIGHT` on either side: about 1.5 MB."""
SIGHT = 15

_OUTSIDE, _NAME, _PLACE, _FACILITY, _ADDRESS = range(5)
_TYPES = {_NAME: "name", _PLACE: "place", _FACILITY: "place", _ADDRESS: "address"}
_BRIDGES = frozenset((" ", "'", "’", "-", " - ", "&", " & ", ".", ". ", "'s ", "’s "))
_INSIDE = "'’-"
_PARTS = re.compile(r"[\s.,'’\-&]")
_CERTAIN = 0.97
MAX_WORD = 32
_Floats = npt.NDArray[np.float32]


class Learned:
    """Finds who and where.  Thread-safe and deterministic.  Raises ValueError for a model that does not fit."""

    def __init__(self, path: Path | None = None, words: Lexicon | None = None, *, threshold: float = 0.5) -> None:
        self._threshold = threshold
        words = words or lexicon()
        self._flags = words.flags
        self._features = Features(words)
        with np.load(path or Path(__file__).parent.parent / "models" / "names.npz", allow_pickle=False) as arrays:
            model = {name: arrays[name] for name in arrays.files}
        self._table: Any = model["table"]
        self._scale: Any = model["scale"]
        if self._table.shape[0] != ROWS or self._table.dtype != np.int8:
            raise ValueError("the model was made for other features")
        self._dilations = [int(gap) for gap in model["dilations"]]
        self._kernels = [_flat(model[f"kernel{index}"]) for index in range(len(self._dilations))]
        self._biases = [model[f"bias{index}"].astype(np.float32) for index in range(len(self._dilations))]
        self._out = model["out"].astype(np.float32)
        self._out_bias = model["out_bias"].astype(np.float32)

    def find(self, text: str) -> list[Span]:
        """Names, places, facilities and addresses of `text`, in order."""
        places, rows = self._features.tokens(text)
        if not rows:
            return []
        kinds: list[int] = []
        sure: list[float] = []
        for begin in range(0, len(rows), CHUNK):
            first = max(0, begin - SIGHT)
            chances = self._chances(rows[first : begin + CHUNK + SIGHT])[begin - first :][:CHUNK]
            kind, chance = self._decide(chances)
            kinds += kind
            sure += chance
        return self._sensible(text, _runs(text, places, kinds, sure))

    def _sensible(self, text: str, found: list[Span]) -> list[Span]:
        """Without what cannot be: acronyms, eponyms, words of prose about groups; places where nobody is meant."""
        whole = [span for one in found if (span := _whole_words(text, one)) is not None]
        many = bool(whole) and about_many(text)
        loud = sum(map(str.isupper, text)) > 0.6 * max(1, sum(map(str.isalpha, text))) if whole else False
        kept = []
        named = False
        for span in whole:
            if span.type == "name":
                if not self._name(text, span, many, loud):
                    continue
                named = True
            elif span.type == "address":
                value = text[span.start : span.end]
                if not any(map(str.isdigit, value)) or sum(map(str.isalpha, value)) < (4 if many else 3):
                    continue
            kept.append(span)
        if any(span.type == "place" for span in kept) and (many or not (named or one_person(text))):
            kept = [span for span in kept if span.type != "place"]
        return kept

    def _name(self, text: str, span: Span, many: bool, loud: bool) -> bool:
        value = text[span.start : span.end]
        parts = [part for part in _PARTS.split(value) if part]
        if not parts or any(map(str.isdigit, value)):
            return False
        titled = before(text, span.start).rpartition(" ")[2].rstrip(".") in TITLES
        if names_a_thing(text, span.end) and not titled:
            return False
        known = [self._flags(part.lower()) for part in parts]
        listed = any(flags & (GIVEN | SURNAME) for flags in known)
        if len(parts) == 1:
            only, flags = parts[0], known[0]
            if flags & REGION and not flags & FREQUENT:
                return False
            if only.islower() and not titled and (not listed or (flags & WORD and span.confidence < _CERTAIN)):
                return False
            if only.isupper() and len(only) > 1 and not loud and not titled and not (flags & FREQUENT):
                return False
        return not many or titled or (listed and len(parts) > 1 and all(part[0].isupper() for part in parts))

    def _decide(self, chances: _Floats) -> tuple[list[int], list[float]]:
        """The kind of each token that is surely enough none of the harmless ones, else 0; and how sure."""
        found = chances[:, _NAME : _ADDRESS + 1]
        total = found.sum(axis=1)
        kind = np.where(total >= self._threshold, found.argmax(axis=1) + 1, _OUTSIDE)
        return kind.tolist(), total.tolist()

    def _chances(self, rows: list[tuple[int, ...]]) -> _Floats:
        """(tokens, labels): the softmax."""
        wanted = np.array(rows, dtype=np.int32)
        x = np.einsum("tfw,tf->tw", self._table[wanted].astype(np.float32), self._scale[wanted])
        for index, gap in enumerate(self._dilations):
            y = _convolve(x, gap, self._kernels[index], self._biases[index])
            x = y if index == 0 else x + y
        logits: _Floats = x @ self._out + self._out_bias
        logits -= logits.max(axis=1, keepdims=True)
        np.exp(logits, out=logits)
        logits /= logits.sum(axis=1, keepdims=True)
        return logits


def _flat(kernel: Any) -> _Floats:
    """(taps, in, out) as (taps * in, out)."""
    flat: _Floats = kernel.reshape(-1, kernel.shape[2]).astype(np.float32)
    return flat


def _convolve(x: _Floats, gap: int, kernel: _Floats, bias: _Floats) -> _Floats:
    """Width 3, `gap` tokens apart, zeros beyond the ends; then the positive part."""
    length, width = x.shape
    padded = np.zeros((length + 2 * gap, width), np.float32)
    padded[gap : gap + length] = x
    taps = np.concatenate((padded[:length], padded[gap : gap + length], padded[2 * gap :]), axis=1)
    y: _Floats = taps @ kernel
    y += bias
    np.maximum(y, 0, out=y)
    return y


def _runs(text: str, places: list[tuple[int, int]], kinds: list[int], sure: list[float]) -> list[Span]:
    """Runs of tokens of one kind.  Only an address goes on over a line's end; one token of another kind is no gap."""
    spans: list[Span] = []
    index, count = 0, len(kinds)
    while index < count:
        kind = kinds[index]
        if kind == _OUTSIDE or text[places[index][0]] == "\n":
            index += 1
            continue
        first = index
        while index < count and kinds[index] == kind and (kind == _ADDRESS or text[places[index][0]] != "\n"):
            index += 1
        start, end = places[first][0], places[index - 1][1]
        chance = round(max(sure[first:index]), 3)
        last = spans[-1] if spans else None
        if last is not None and last.type == _TYPES[kind] and text[last.end : start] in _BRIDGES:
            spans[-1] = Span(last.type, last.start, end, max(chance, last.confidence))
        else:
            spans.append(Span(_TYPES[kind], start, end, chance))
    return spans


def _whole_words(text: str, span: Span) -> Span | None:
    """Out to the borders of words, in from punctuation."""
    start, end = span.start, span.end
    while start < end and not text[start].isalnum():
        start += 1
    while end > start and not (text[end - 1].isalnum() or text[end - 1] == "."):
        end -= 1
    if start == end:
        return None
    least, most = max(0, start - MAX_WORD), min(len(text), end + MAX_WORD)
    while start > least and (
        text[start - 1].isalpha() or (text[start - 1] in _INSIDE and start > 1 and text[start - 2].isalpha())
    ):
        start -= 1
    while (
        end < most
        and text[end - 1].isalpha()
        and (text[end].isalpha() or (text[end] in _INSIDE and end + 1 < len(text) and text[end + 1].isalpha()))
    ):
        end += 1
    return Span(span.type, start, end, span.confidence)
