"""Records as one Parquet file, for analysts: a column for every field of every kind that there is (effects: files)."""

from __future__ import annotations

import importlib.util
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_type_hints

from compliance.records import KINDS

MISSING = 'Parquet needs DuckDB: pip install "spillway[parquet]"'
_TYPES: dict[Any, str] = {int: "BIGINT", bool: "BOOLEAN", str: "VARCHAR"}


class NotWritten(Exception):
    """The file could not be written; why, in words."""


def available() -> bool:
    """Is what writes Parquet here?"""
    return importlib.util.find_spec("duckdb") is not None


def columns() -> dict[str, set[str]]:
    """Name -> DuckDB types of every field of a record, in byte order; kinds may mean different things by one name."""
    found: dict[str, set[str]] = {}
    for kind in KINDS.values():
        for name, hint in get_type_hints(kind).items():
            found.setdefault(name, set()).add("VARCHAR[]" if typing.get_origin(hint) is tuple else _TYPES[hint])
    return dict(sorted(found.items()))


def _columns() -> tuple[str, str]:
    """(how they are read, how they are written): what is a number to some kinds and text to others is two columns."""
    read, written = [], []
    for name, kinds in columns().items():
        if len(kinds) == 1:
            read.append(f"'{name}': '{next(iter(kinds))}'")
            written.append(f'"{name}"')
        else:
            number = f'TRY_CAST("{name}" AS BIGINT)'
            read.append(f"'{name}': 'VARCHAR'")
            written += [f'{number} AS "{name}"', f'CASE WHEN {number} IS NULL THEN "{name}" END AS "{name}_text"']
    return ", ".join(read), ", ".join(written)


def write(records: Sequence[Path], out: Path) -> int:
    """Write these files of records as `out`; the number of rows.  `log` is the folder that a record is from.

    Fields of kinds that are not known here are left out, and the MACs of groups (`compliance.tails`).  Raises `NotWritten`.
    """
    import duckdb

    fields, names = _columns()
    files = [str(path.resolve()) for path in records]
    read = f"read_json(?, format = 'newline_delimited', columns = {{{fields}}}, filename = true, maximum_object_size = 16777216)"
    target = str(out.resolve()).replace("'", "''")
    try:
        with duckdb.connect(config={"threads": 1}) as database:
            database.execute(
                f"COPY (SELECT regexp_extract(filename, '([^/]+)/[^/]+$', 1) AS log, {names} FROM {read} ORDER BY log, seq)"
                f" TO '{target}' (FORMAT parquet, COMPRESSION zstd)",
                [files],
            )
            row = database.execute("SELECT count(*) FROM read_parquet(?)", [str(out)]).fetchone()
    except duckdb.Error as error:
        raise NotWritten(str(error).split("\n")[0]) from None
    return int(row[0]) if row is not None else 0
