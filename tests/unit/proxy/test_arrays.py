"""Structs of arrays in a file that is mapped: what was put in comes out, and damage is known."""

from __future__ import annotations

import json

import numpy as np
import pytest
from msgspec import Struct

from policies.embedding import Floats, Integers
from proxy.arrays import Damaged, pack, unpack


class Inner(Struct, frozen=True):
    weights: Floats
    bias: Floats


class Held(Struct, frozen=True):
    examples: int
    pairs: tuple[tuple[str, str, int], ...]


class Whole(Struct, frozen=True):
    names: tuple[str, ...]
    thresholds: tuple[float | None, ...]
    inner: Inner
    table: Floats
    owners: Integers
    scope: tuple[float, float]
    held: Held
    more: Floats | None = None


WHOLE = Whole(
    ("a", "é"), (None, 0.5), Inner(np.ones((2, 3), np.float32), np.zeros(0, np.float32)),
    np.arange(8, dtype=np.float32).reshape(2, 4), np.array([1, -2, 3]), (0.5, 1.0), Held(2, (("a", "é", 3),)),
)  # fmt: skip


def test_what_was_packed_comes_out_alike_aligned_and_fixed() -> None:
    data = pack(WHOLE)
    found, hash_ = unpack(memoryview(data), Whole)
    assert (found.names, found.thresholds, found.scope, found.held, found.more) == (
        WHOLE.names, WHOLE.thresholds, WHOLE.scope, WHOLE.held, None,
    )  # fmt: skip
    for mine, other in (
        (found.table, WHOLE.table),
        (found.owners, WHOLE.owners),
        (found.inner.weights, WHOLE.inner.weights),
    ):
        assert np.array_equal(mine, other) and mine.dtype == other.dtype and mine.flags.aligned
        with pytest.raises(ValueError):
            mine[...] = 0
    assert pack(WHOLE) == data and len(hash_) == 64


def test_every_damage_is_known() -> None:
    data = pack(WHOLE)
    broken = [b"", data[:4], data[:-1], data + b"x", b"\xff" * 8 + data[8:], data.replace(b'"F32"', b'"F99"', 1)]
    broken += [data.replace(b'"data_offsets":[0,', b'"data_offsets":[9,', 1), data.replace(b'"rest"', b'"tser"', 1)]
    for at in range(len(data) - 60, len(data)):
        broken.append(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    for one in broken:
        with pytest.raises(Damaged):
            unpack(memoryview(one), Whole)


def test_a_file_of_another_kind_is_damaged() -> None:
    with pytest.raises(Damaged):
        unpack(memoryview(pack(WHOLE.inner)), Whole)


def test_it_has_safetensors_form() -> None:
    data = pack(WHOLE)
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    assert (8 + length) % 64 == 0
    start, end = header["table"]["data_offsets"]
    assert header["table"]["dtype"] == "F32" and header["table"]["shape"] == [2, 4]
    assert np.array_equal(np.frombuffer(data[8 + length + start : 8 + length + end], np.float32), WHOLE.table.ravel())
