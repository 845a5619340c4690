"""What routing has learnt: the embedding in the box, and the operator's routes fitted on it.

A fit of a few routes takes milliseconds, one of fifteen thousand utterances a minute, so what was fitted is kept by the
hash of all that it was made of: one process fits, the others wait, and all map the same file.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np

from policies.embedding import Embedding, StaticEmbedding
from policies.semantic import Fitted, Route, Semantics, learn
from proxy.arrays import Damaged, pack, unpack
from proxy.config_routes import RoutePart
from proxy.routing_names import EMBEDDING as MODEL
from proxy.routing_names import routes_key


class Shelf(Protocol):
    """Where what was fitted is kept for other processes.  No call raises; see `proxy.state.shelf`."""

    def mapped(self, key: str) -> memoryview | None: ...

    def put(self, key: str, data: bytes) -> None: ...

    def alone(self) -> contextlib.AbstractContextManager[None]: ...


class EmbeddingRecord(msgspec.Struct):
    """What stands beside the table."""

    table_sha256: str
    scale: list[float]
    vocabulary: list[str]


def load_embedding(path: Path = MODEL) -> tuple[StaticEmbedding, str]:
    """The embedding, and its hash.  The table is mapped, so that processes share its memory.

    Raises ValueError for files that do not fit each other.
    """
    record = msgspec.json.decode(path.with_suffix(".json").read_bytes(), type=EmbeddingRecord)
    table = np.load(path.with_suffix(".npy"), mmap_mode="r", allow_pickle=False)
    pieces = {piece: row for row, piece in enumerate(record.vocabulary)}
    return StaticEmbedding(table, np.array(record.scale, np.float32), pieces), record.table_sha256


def routes_of(parts: Sequence[RoutePart]) -> list[Route]:
    """The configuration's routes as `policies` takes them."""
    return [
        Route(
            name=part.name,
            description=part.description,
            utterances=part.utterances,
            negatives=part.negatives,
            threshold=None if part.threshold == "auto" else float(part.threshold),
        )
        for part in parts
    ]


def semantics(
    parts: Sequence[RoutePart], shelf: Shelf | None = None, *, fitting: Callable[[int], None] | None = None
) -> Semantics | None:
    """The routes ready for use; None where none are declared.  `fitting` hears, before a fit, how many utterances it is of."""
    if not parts:
        return None
    embedding, _ = load_embedding()
    return Semantics(fitted_on(parts, embedding, routes_key(parts), shelf, fitting), embedding)


def fitted_on(
    parts: Sequence[RoutePart],
    embedding: Embedding,
    key: str,
    shelf: Shelf | None,
    fitting: Callable[[int], None] | None = None,
) -> Fitted:
    """What was kept under `key`, or else fitted and kept: by one process at a time.  Raises ValueError, as `learn` does."""
    if shelf is None:
        return _fit(parts, embedding, fitting)
    kept = _kept(shelf, key)
    if kept is not None:
        return kept
    with shelf.alone():
        kept = _kept(shelf, key)  # another process was quicker
        if kept is not None:
            return kept
        fitted = _fit(parts, embedding, fitting)
        shelf.put(key, pack(fitted))
    return _kept(shelf, key) or fitted  # mapped, and so shared


def _fit(parts: Sequence[RoutePart], embedding: Embedding, fitting: Callable[[int], None] | None) -> Fitted:
    routes = routes_of(parts)
    if fitting is not None:
        fitting(sum(len(route.utterances) for route in routes))
    return learn(routes, embedding)


def _kept(shelf: Shelf, key: str) -> Fitted | None:
    """What was kept; None where it is not there, or damaged: then it is fitted again."""
    data = shelf.mapped(key)
    if data is None:
        return None
    try:
        fitted, _ = unpack(data, Fitted)
    except Damaged:
        return None
    if isinstance(data.obj, mmap.mmap):
        data.obj.madvise(mmap.MADV_DONTNEED)  # its hash was looked at; what is not used need not stay in memory
    return fitted
