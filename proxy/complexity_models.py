"""Scorers as files: one `.npz` with a JSON header, written whole or not at all.  No text stands in it."""

from __future__ import annotations

import contextlib
import io
import os
import zipfile
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from policies.doubt import Answer
from policies.drift import Drift, drift
from policies.embedding import StaticEmbedding
from policies.gain import Scored, Scorer, judge, named_features, pack, unpack

if TYPE_CHECKING:
    from proxy.config_complexity import ComplexityPart

LARGEST = 64 * 2**20
"""Bytes; a scorer has about 20 KB."""
RECENT = 2000
"""Percentiles that are kept in memory to see whether traffic has changed."""
_ZIP = b"PK\x03\x04"


class ScorerInvalid(ValueError):
    """A scorer's file that cannot be used; the message says why and what helps."""


def save_scorer(path: Path, scorer: Scorer) -> None:
    """Write a scorer in place of the one that was there.  Raises OSError, and `ScorerInvalid` where something else is there."""
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as there:
        if there.read(len(_ZIP)) != _ZIP:
            raise ScorerInvalid(f"{path} is no scorer: it is left as it is; name another file")
    header, arrays = pack(scorer)
    out = io.BytesIO()
    np.savez(out, header=np.frombuffer(header, np.uint8), **arrays)  # type: ignore[arg-type]  # the stub takes its flag for one of them
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with open(fresh, "xb") as file:
            file.write(out.getvalue())
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def load_scorer(path: Path, embedding: str) -> Scorer:
    """The scorer of a file, for the embedding of this hash.  Raises `ScorerInvalid`, and OSError where it cannot be read."""
    if path.stat().st_size > LARGEST:
        raise ScorerInvalid(f"{path}: it is no scorer: too large")
    data = path.read_bytes()
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as kept:
            arrays = {name: kept[name] for name in kept.files}
        header = arrays.pop("header").tobytes()
    except (
        ValueError,
        KeyError,
        EOFError,
        TypeError,
        AttributeError,
        NotImplementedError,
        OSError,
        zipfile.BadZipFile,
    ):
        raise ScorerInvalid(f"{path}: it is no scorer, or it is damaged") from None
    try:
        return unpack(header, arrays, embedding=embedding)
    except ValueError as error:
        raise ScorerInvalid(f"{path}: {error}") from None


class Complexity:
    """A scorer in use.  One thread at a time, as the embedding; some tenth of a millisecond a text."""

    def __init__(self, scorer: Scorer, embedding: StaticEmbedding, share: float | None = None) -> None:
        """`share` of strong calls, instead of the one that was calibrated."""
        self.origin = scorer.origin
        self.share = scorer.origin.strong_share if share is None else share
        self._scorer = scorer
        self._embedding = embedding
        self._recent: deque[float] = deque(maxlen=RECENT)

    @property
    def scale(self) -> str:
        """What its percentiles are of, for records; "" where it is not calibrated."""
        if self.origin.calibrated is None:
            return ""
        strong = "" if self.share is None else f"; large from {100 * (1 - self.share):g}"
        return f"{self.origin.calibrated} prompts on {self.origin.calibrated_on}{strong}"

    def judge(self, text: str, answer: Answer | None = None) -> Scored:
        """What the scorer makes of a prompt, or of the weak model's answer to it where it reads answers."""
        if (answer is not None) != (self.origin.kind == "answer"):
            raise ValueError("a scorer of answers needs one, and a scorer of prompts takes none")
        return judge(self._scorer, named_features(text, answer), self._embedding.read(text)[0], self.share)

    def percentile(self, text: str) -> float | None:
        """Of a prompt among the operator's traffic, 0 to 100; None: uncalibrated."""
        scorer = self._scorer  # without the reasons, which cost as much again
        found = scorer.percentile(scorer.score(named_features(text), self._embedding.read(text)[0]))
        if found is None:
            return None
        self._recent.append(found)
        return 100 * found

    def drift(self) -> Drift:
        """How unlike its calibration the latest traffic is that was asked about."""
        return drift(tuple(self._recent), self.origin.calibrated or 0, self.share)


def load_complexity(
    part: ComplexityPart, embedding: StaticEmbedding, version: str
) -> tuple[Complexity | None, Complexity | None]:
    """(the scorer of prompts, the scorer of answers) that a configuration names; `version` is the embedding's hash.

    Raises `ScorerInvalid`, and OSError where a file cannot be read.
    """
    found: list[Complexity | None] = []
    for path, kind in ((part.scorer, "prompt"), (part.answers, "answer")):
        if path is None:
            found.append(None)
            continue
        scorer = load_scorer(Path(path), version)
        if scorer.origin.kind != kind:
            other = "complexity.answers" if kind == "prompt" else "complexity.scorer"
            raise ScorerInvalid(f"{path}: it is a scorer of the other kind: name it in {other}")
        found.append(Complexity(scorer, embedding, part.strong_share if kind == "prompt" else None))
    return found[0], found[1]
