"""Feedback and experiments in the ledger: what applications measured, who was drawn into which arm, what copies came to.

Their tables stand beside the lines of money in one database and are filled in the same transactions, so that a request's
measure, arm, cost and latency can be joined by its id.  What the rows are does not depend on the order of the logs.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import Struct

from compliance.records import Assigned, Feedback, Shadowed, feedback_number

RECORDS = (Feedback, Assigned, Shadowed)
_T, _N = "TEXT NOT NULL", "INTEGER NOT NULL"
_TABLES = {
    "feedback": (
        ("request", "metric"),
        {
            "request": _T, "metric": _T, "value": "REAL NOT NULL", "at": _N, "origin": _T, "seq": _N, "key": _T,
            "project": _T, "team": _T, "organisation": _T, "tenant": _T,
        },
    ),
    "assigned": (
        ("experiment", "request"),
        {
            "experiment": _T, "request": _T, "at": _N, "origin": _T, "seq": _N, "arm": _T, "phase": _N, "propensity": _N,
            "unit": _T, "unit_kind": _T, "excluded": _T, "model": _T,
        },
    ),
    "shadowed": (
        ("experiment", "request"),
        {
            "experiment": _T, "request": _T, "at": _N, "origin": _T, "seq": _N, "copy": _T, "target": _T, "propensity": _N,
            "score": _N, "how": _T, "why": _T, "model": _T,
        },
    ),
}  # fmt: skip
"""Key and columns of each; a column has the name of the record's field."""


def _created(name: str) -> str:
    key, columns = _TABLES[name]
    listed = ", ".join(f"{column} {kind}" for column, kind in columns.items())
    return f"CREATE TABLE IF NOT EXISTS {name} ({listed}, PRIMARY KEY ({', '.join(key)})) WITHOUT ROWID"


def _put(name: str) -> str:
    """The last one wins, whichever log is read first."""
    key, columns = _TABLES[name]
    sets = ", ".join(f"{column} = excluded.{column}" for column in columns if column not in key)
    return (
        f"INSERT INTO {name} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))}) ON CONFLICT DO UPDATE SET {sets}"
        f" WHERE (excluded.at, excluded.origin, excluded.seq) > ({name}.at, {name}.origin, {name}.seq)"
    )


_PUT = {name: _put(name) for name in _TABLES}


def prepare(db: sqlite3.Connection) -> None:
    """The tables, made where they are not there."""
    for name in _TABLES:
        db.execute(_created(name))
    db.execute("CREATE INDEX IF NOT EXISTS feedback_by_metric ON feedback (metric, at)")


def put(db: sqlite3.Connection, origin: str, records: list[Any]) -> None:
    """Rows of these records, within the caller's transaction."""
    rows: dict[str, list[tuple[Any, ...]]] = {}
    for record in records:
        rows.setdefault(record.kind, []).append(_row(origin, record))
    for kind, values in rows.items():
        db.executemany(_PUT[kind], values)


def _row(origin: str, record: Any) -> tuple[Any, ...]:
    found = []
    for column in _TABLES[record.kind][1]:
        value = origin if column == "origin" else getattr(record, column)
        found.append(feedback_number(value) if column == "value" else value)
    return tuple(found)


def feedback_of(db: sqlite3.Connection, metric: str, start: int, end: int) -> Iterator[tuple[str, float, int]]:
    """(request, value, when it was given) of a metric, of feedback given in [start, end); the last of each request."""
    yield from db.execute(
        "SELECT request, value, at FROM feedback WHERE metric = ? AND at >= ? AND at < ? ORDER BY at, request",
        (metric, start, end),
    )


class Drawn(Struct, frozen=True):
    """A request that a split experiment took; `value` is what was measured of it, None where nothing was."""

    request: str
    arm: str
    phase: int
    propensity: int  # of its arm, in millionths
    unit: str
    unit_kind: str
    excluded: str
    value: float | None


class Copied(Struct, frozen=True):
    """A request that a shadow experiment drew."""

    request: str
    copy: str
    target: str
    score: int
    why: str
    how: str = ""


class Served(Struct, frozen=True):
    """One attempt."""

    request: str
    target: str
    boundary: str
    ending: str
    cost: int
    total_us: int
    engine_us: int


def drawn_of(db: sqlite3.Connection, experiment: str, metric: str, start: int, end: int) -> list[Drawn]:
    """What a split experiment took in [start, end), with a measure."""
    rows = db.execute(
        "SELECT a.request, arm, phase, propensity, unit, unit_kind, excluded, f.value FROM assigned a"
        " LEFT JOIN feedback f ON f.request = a.request AND f.metric = ?"
        " WHERE a.experiment = ? AND a.at >= ? AND a.at < ? ORDER BY a.at, a.request",
        (metric, experiment, start, end),
    )
    return [Drawn(*row) for row in rows]


def copied_of(db: sqlite3.Connection, experiment: str, start: int, end: int) -> list[Copied]:
    """What a shadow experiment drew in [start, end)."""
    rows = db.execute(
        "SELECT request, copy, target, score, why, how FROM shadowed WHERE experiment = ? AND at >= ? AND at < ? ORDER BY at, request",
        (experiment, start, end),
    )
    return [Copied(*row) for row in rows]


def served_of(db: sqlite3.Connection, requests: Iterable[str], start: int) -> list[Served]:
    """The attempts of these requests that ended after `start`, by request and in their order."""
    db.execute("CREATE TEMP TABLE IF NOT EXISTS wanted (request TEXT PRIMARY KEY) WITHOUT ROWID")
    db.execute("DELETE FROM wanted")
    db.executemany("INSERT OR IGNORE INTO wanted VALUES (?)", [(request,) for request in requests])
    rows = db.execute(
        "SELECT request, target, boundary, ending, cost, total_us, engine_us FROM attempts"
        " WHERE at >= ? AND request IN (SELECT request FROM wanted) ORDER BY request, attempt",
        (start,),
    )
    return [Served(*row) for row in rows]


def measures_of(db: sqlite3.Connection, experiment: str) -> list[tuple[str, int]]:
    """(metric, of how many requests) of a split experiment, the most frequent first."""
    return db.execute(
        "SELECT metric, count(*) FROM assigned a JOIN feedback f ON f.request = a.request WHERE experiment = ?"
        " GROUP BY 1 ORDER BY 2 DESC, 1",
        (experiment,),
    ).fetchall()


def engine_times(db: sqlite3.Connection, start: int, end: int) -> dict[str, int]:
    """Microseconds of attempts of each local engine that ended in [start, end), added up."""
    return dict(
        db.execute(
            "SELECT substr(target, 1, instr(target, '/') - 1), sum(engine_us) FROM attempts"
            " WHERE at >= ? AND at < ? AND boundary = 'local' GROUP BY 1",
            (start, end),
        ).fetchall()
    )


def rows_of(db: sqlite3.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Every row, for comparisons."""
    return {
        name: db.execute(f"SELECT * FROM {name} ORDER BY {', '.join(key)}").fetchall()
        for name, (key, _) in _TABLES.items()
    }
