"""What is kept of a prompt to learn from later: its named features and its embedding in eight bits.  No text.

That is not nothing: of a short text the embedding, with the named features beside it, gives much of the words away to
whoever has the table (Song and Raghunathan, 2020; Morris et al., 2023), and eight bits hide none of it.  So what is packed
here is content, and is sealed and erased as content is.
"""

from __future__ import annotations

import msgspec
import numpy as np
from msgspec import Struct

from policies import doubt, features
from policies.embedding import Floats

FORM = 1


class Prompt(Struct, frozen=True, array_like=True):
    """A prompt as numbers."""

    form: int
    features: str  # version
    embedding: str  # hash of the table
    named: bytes  # float16
    scale: float  # of the vector's whole numbers
    vector: bytes  # int8
    route: str  # what it was about, where a decision asked


class Answered(Struct, frozen=True, array_like=True):
    """The weak model's answer as numbers, beside its prompt's."""

    form: int
    features: str
    named: bytes  # float16


def pack(named: Floats, vector: Floats, route: str, embedding: str) -> bytes:
    """A prompt's named features and unit vector."""
    scale = max(float(np.abs(vector).max()), 1e-9) / 127
    whole = np.rint(vector / scale).astype(np.int8)
    half = named.astype(np.float16).tobytes()
    return msgspec.msgpack.encode(Prompt(FORM, features.VERSION, embedding, half, scale, whole.tobytes(), route))


def unpack(data: bytes, embedding: str) -> tuple[Floats, Floats, str, str] | None:
    """(named features, vector, route, what tells equal prompts); None for what another version packed.

    Raises ValueError for what is no such thing.
    """
    try:
        row = msgspec.msgpack.decode(data, type=Prompt)
    except msgspec.DecodeError:
        raise ValueError("it is no remembered prompt") from None
    if (row.form, row.features, row.embedding) != (FORM, features.VERSION, embedding):
        return None
    named = np.frombuffer(row.named, np.float16).astype(np.float32)
    if len(named) != len(features.NAMES):
        raise ValueError("its features are not as many as its version has")
    vector = np.frombuffer(row.vector, np.int8).astype(np.float32) * np.float32(row.scale)
    return named, vector, row.route, row.vector.hex()


def pack_answer(named: Floats) -> bytes:
    """The features of an answer, in the order of `policies.doubt.NAMES`."""
    return msgspec.msgpack.encode(Answered(FORM, doubt.VERSION, named.astype(np.float16).tobytes()))


def unpack_answer(data: bytes) -> Floats | None:
    """The same; None for what another version packed.  Raises ValueError for what is no such thing."""
    try:
        row = msgspec.msgpack.decode(data, type=Answered)
    except msgspec.DecodeError:
        raise ValueError("it is no remembered answer") from None
    if (row.form, row.features) != (FORM, doubt.VERSION):
        return None
    named = np.frombuffer(row.named, np.float16).astype(np.float32)
    if len(named) != len(doubt.NAMES):
        raise ValueError("its features are not as many as its version has")
    return named
