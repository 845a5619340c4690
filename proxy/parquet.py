"""Rows as a Parquet file, by DuckDB, which is imported only here and only when one is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


class NoDuckDB(Exception):
    """Parquet is written by DuckDB, and it is not installed."""


def write(path: Path, columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[Any]]) -> None:
    """A file of these (name, SQL type); raises `NoDuckDB`, and `OSError` where it cannot be written."""
    try:
        import duckdb
    except ImportError:
        raise NoDuckDB("Parquet needs DuckDB: pip install 'spillway[parquet]'") from None
    names = ['"' + name.replace('"', '""') + '"' for name, _ in columns]
    with duckdb.connect(":memory:") as database:
        kinds = [kind for _, kind in columns]
        database.execute(f"CREATE TABLE made ({', '.join(f'{n} {k}' for n, k in zip(names, kinds, strict=True))})")
        if rows:
            database.executemany(f"INSERT INTO made VALUES ({', '.join('?' * len(columns))})", rows)
        target = str(path).replace("'", "''")
        try:
            database.execute(f"COPY made TO '{target}' (FORMAT parquet)")
        except duckdb.Error as error:
            raise OSError(1, str(error).splitlines()[0]) from None
