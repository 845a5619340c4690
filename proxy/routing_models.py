"""What routing has learnt: the embedding in the box, and the operator's routes fitted on it.

A fit of a few routes takes milliseconds, one of fifteen thousand utterances a minute, so what was fitted is kept in the
user's cache directory, by the hash of all that it was made of.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from policies.embedding import StaticEmbedding
from policies.linear import Head
from policies.semantic import Fitted, Held, Route, Semantics, learn
from proxy.config_routes import RoutePart

if TYPE_CHECKING:
    from compliance.detectors.compiled import Shelf

MODEL = Path(__file__).parent.parent / "policies" / "models" / "embedding"
VERSION = "routes 1"
"""Changes with what is fitted, so that nothing of an older version is taken for it."""


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
    embedding, version = load_embedding()
    routes = routes_of(parts)
    key = hashlib.sha256(msgspec.json.encode((VERSION, version, routes))).hexdigest()[:32]
    kept = shelf.get(key) if shelf is not None else None
    if kept is not None and (fitted := _read(kept)) is not None:
        return Semantics(fitted, embedding)
    if fitting is not None:
        fitting(sum(len(route.utterances) for route in routes))
    fitted = learn(routes, embedding)
    if shelf is not None:
        shelf.put(key, _written(fitted))
    return Semantics(fitted, embedding)


class _Rest(msgspec.Struct):
    """What of `Fitted` is no array."""

    names: tuple[str, ...]
    thresholds: tuple[float | None, ...]
    sharpness: float
    scope: tuple[float, float, float]
    held: Held


_ARRAYS = ("vectors", "owners", "firsts", "descriptions")
_HEAD = ("dense", "hashed", "bias", "idf")


def _written(fitted: Fitted) -> bytes:
    arrays: dict[str, Any] = {name: getattr(fitted, name) for name in _ARRAYS}
    arrays |= {f"head_{name}": getattr(fitted.head, name) for name in _HEAD}
    rest = _Rest(fitted.names, fitted.thresholds, fitted.sharpness, fitted.scope, fitted.held)
    out = io.BytesIO()
    np.savez(out, rest=np.frombuffer(msgspec.json.encode(rest), np.uint8), **arrays)
    return out.getvalue()


def _read(kept: bytes) -> Fitted | None:
    """What was kept; None where it cannot be read: then it is fitted again."""
    try:
        with np.load(io.BytesIO(kept), allow_pickle=False) as arrays:
            rest = msgspec.json.decode(arrays["rest"].tobytes(), type=_Rest)
            head = Head(**{name: arrays[f"head_{name}"] for name in _HEAD})
            return Fitted(
                names=rest.names,
                thresholds=rest.thresholds,
                head=head,
                sharpness=rest.sharpness,
                scope=rest.scope,
                held=rest.held,
                **{name: arrays[name] for name in _ARRAYS},
            )
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, msgspec.DecodeError):
        return None
