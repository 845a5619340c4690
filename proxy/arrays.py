"""Arrays and what belongs to them in one file that processes share: safetensors' form, mapped rather than read.

Eight bytes of the header's length, the header in JSON, the numbers.  A file names the SHA-256 of its numbers, so that a
damaged one is known; nothing in it can be executed.
"""

from __future__ import annotations

import hashlib
import math
import typing
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Whole = TypeVar("Whole", bound=msgspec.Struct)

_KINDS: Mapping[str, Any] = {
    "I64": np.int64, "U64": np.uint64, "F64": np.float64, "I32": np.int32, "U32": np.uint32, "F32": np.float32,
    "I16": np.int16, "U16": np.uint16, "F16": np.float16, "I8": np.int8, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip
"""The widest first: as they stand in a file each is aligned."""
_NAMES = {np.dtype(kind): name for name, kind in _KINDS.items()}
_ALIGNED = 64


class Damaged(ValueError):
    """What was kept is not whole, or of another form."""


def pack(whole: msgspec.Struct) -> bytes:
    """A struct whose fields are arrays, structs that hold arrays, or plain values.  Raises TypeError for anything else."""
    arrays: dict[str, Array] = {}
    rest: dict[str, Any] = {}
    for path, value in _parts(whole, ""):
        if isinstance(value, np.ndarray):
            arrays[path] = np.ascontiguousarray(value)
        else:
            rest[path] = msgspec.to_builtins(value)
    order = sorted(arrays, key=lambda path: (list(_KINDS).index(_NAMES[arrays[path].dtype]), path))
    data = b"".join([arrays[path].tobytes() for path in order])
    header: dict[str, Any] = {}
    start = 0
    for path in order:
        array = arrays[path]
        end = start + array.nbytes
        header[path] = {"dtype": _NAMES[array.dtype], "shape": list(array.shape), "data_offsets": [start, end]}
        start = end
    sealed = {"rest": msgspec.json.encode(rest).decode(), "sha256": hashlib.sha256(data).hexdigest()}
    head = msgspec.json.encode({"__metadata__": sealed, **header})
    head += b" " * (-(8 + len(head)) % _ALIGNED)
    return len(head).to_bytes(8, "little") + head + data


def unpack(data: memoryview, kind: type[Whole]) -> tuple[Whole, str]:
    """(what `pack` was given, the hash of its arrays), whose arrays look into `data` and are not to be changed.

    Raises `Damaged`.
    """
    try:
        length = int.from_bytes(data[:8], "little")
        header = msgspec.json.decode(data[8 : 8 + length])
        sealed = header.pop("__metadata__")
        body = data[8 + length :]
        found = hashlib.sha256(body).hexdigest()
        if found != sealed["sha256"]:
            raise Damaged("its hash is another")
        arrays = {path: _array(body, **entry) for path, entry in header.items()}
        return _whole(kind, "", arrays, msgspec.json.decode(sealed["rest"])), found
    except (KeyError, TypeError, AttributeError, ValueError, msgspec.MsgspecError) as error:
        raise Damaged(str(error)) from None


def _array(body: memoryview, dtype: str, shape: list[int], data_offsets: list[int]) -> Array:
    start, end = data_offsets
    kind = np.dtype(_KINDS[dtype])
    if not 0 <= start <= end <= len(body) or end - start != math.prod(shape) * kind.itemsize:
        raise Damaged("an array does not fit its place")
    return np.frombuffer(body[start:end], kind).reshape(shape)


def _parts(whole: msgspec.Struct, path: str) -> Iterator[tuple[str, Any]]:
    for name in whole.__struct_fields__:
        value = getattr(whole, name)
        if isinstance(value, msgspec.Struct) and _holds_arrays(value):
            yield from _parts(value, f"{path}{name}.")
        else:
            yield path + name, value


def _holds_arrays(whole: msgspec.Struct) -> bool:
    values = [getattr(whole, name) for name in whole.__struct_fields__]
    return any(
        [isinstance(one, np.ndarray) or (isinstance(one, msgspec.Struct) and _holds_arrays(one)) for one in values]
    )


def _whole(kind: Any, path: str, arrays: Mapping[str, Array], rest: Mapping[str, Any]) -> Any:
    hints = typing.get_type_hints(kind)
    fields: dict[str, Any] = {}
    for name in kind.__struct_fields__:
        here = path + name
        if here in arrays:
            fields[name] = arrays[here]
        elif here in rest:
            fields[name] = None if rest[here] is None else msgspec.convert(rest[here], hints[name])
        else:
            fields[name] = _whole(hints[name], f"{here}.", arrays, rest)
    return kind(**fields)
