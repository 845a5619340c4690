"""The ledger's tables, and how those of an earlier version become them.

A line is stored in two parts: in `lines`, by time, what is its own and the number of a row of `kinds`, which has what it
shares with others: less room, and less work for each.  A view, `attempts`, is both together; another,
`requests`, says where the records of a request stand, with a decision its outcome.  `decided` has the decisions whose
outcome has not come yet, `unpaired` the records that none of these tells of.
"""

from __future__ import annotations

import contextlib
import sqlite3

from proxy.projections.lines import COLUMNS, FACTS, KIND, STORED, TEXT

PATIENCE = 600
"""Seconds that a process waits while another one makes the tables anew."""
_OWN = {**COLUMNS, "log": "INTEGER NOT NULL", "kind": "INTEGER NOT NULL", "decided": "INTEGER"}
_FACTS = [f"{name} {COLUMNS.get(name, TEXT)}" for name in FACTS if name != "seq"]
_TABLES = f"""
CREATE TABLE lines ({", ".join(f"{name} {_OWN[name]}" for name in STORED)}, PRIMARY KEY (at, log, seq)) WITHOUT ROWID;
CREATE TABLE kinds (kind INTEGER PRIMARY KEY, {", ".join(f"{name} {COLUMNS[name]}" for name in KIND)});
CREATE TABLE decided (
    request TEXT NOT NULL, attempt INTEGER NOT NULL, origin TEXT NOT NULL, seq INTEGER, {", ".join(_FACTS)},
    PRIMARY KEY (request, attempt, origin)) WITHOUT ROWID;
CREATE TABLE unpaired (
    request TEXT NOT NULL, origin TEXT NOT NULL, seq INTEGER NOT NULL, kind TEXT NOT NULL,
    PRIMARY KEY (request, origin, seq)) WITHOUT ROWID;
CREATE TABLE positions (log INTEGER PRIMARY KEY, origin TEXT NOT NULL UNIQUE, seq INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS refusals (
    at INTEGER NOT NULL, origin TEXT NOT NULL, seq INTEGER NOT NULL, request TEXT NOT NULL, code TEXT NOT NULL,
    action TEXT NOT NULL, PRIMARY KEY (at, origin, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS corrections (
    at INTEGER NOT NULL, origin TEXT NOT NULL, seq INTEGER NOT NULL, vendor TEXT NOT NULL, model TEXT NOT NULL,
    start INTEGER NOT NULL, until INTEGER NOT NULL, amount INTEGER NOT NULL, cause TEXT NOT NULL,
    PRIMARY KEY (origin, seq)) WITHOUT ROWID"""
_VIEWS = f"""
CREATE INDEX lines_by_request ON lines (request);
CREATE VIEW attempts AS SELECT {", ".join(name if name in STORED else f"kinds.{name}" for name in COLUMNS)}
    FROM lines CROSS JOIN kinds USING (kind);
CREATE VIEW requests AS
    SELECT request, origin, coalesce(decided, seq) seq, iif(decided IS NULL, 'outcome', 'decision') kind,
           iif(decided IS NULL, NULL, seq) outcome FROM lines CROSS JOIN kinds USING (kind)
    UNION ALL SELECT request, origin, seq, 'decision', NULL FROM decided WHERE seq IS NOT NULL
    UNION ALL SELECT request, origin, seq, kind, NULL FROM unpaired"""
INSERT = f"INSERT OR IGNORE INTO lines ({', '.join(STORED)}) VALUES ({', '.join('?' * len(STORED))})"
KEEP_KIND = f"INSERT OR IGNORE INTO kinds (kind, {', '.join(KIND)}) VALUES ({', '.join('?' * (1 + len(KIND)))})"
KEEP = f"INSERT OR REPLACE INTO decided VALUES ({', '.join('?' * (3 + len(FACTS)))})"
TAKE = f"SELECT {', '.join(FACTS)} FROM decided WHERE request = ? AND attempt = ? AND origin = ?"
LEAVE = "DELETE FROM decided WHERE request = ? AND attempt = ? AND origin = ?"
_MADE = ("lines", "kinds", "decided", "unpaired", "positions")
_VIEWED = ("attempts", "requests")


def prepare(db: sqlite3.Connection) -> None:
    """The tables, made; of an earlier version, with its lines in the new form.  One of several processes does it."""
    with contextlib.closing(sqlite3.connect(":memory:")) as fresh:
        fresh.executescript(f"{_TABLES};{_VIEWS}")
        expected = _there(fresh)
    if _there(db) == expected:
        return
    (wait,) = db.execute("PRAGMA busy_timeout").fetchone()
    db.execute(f"PRAGMA busy_timeout = {PATIENCE * 1000}")
    db.execute("BEGIN IMMEDIATE")
    try:
        if _there(db) != expected:
            _make(db, expected)
        db.execute("COMMIT")
    except sqlite3.Error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    db.execute(f"PRAGMA busy_timeout = {wait}")


def _there(db: sqlite3.Connection) -> dict[str, list[str]]:
    """The columns of each of the ledger's tables and views."""
    found = {
        name: [row[1] for row in db.execute(f"PRAGMA table_info({name})")]
        for name in (*_MADE, *_VIEWED, "refusals", "corrections")
    }
    return {name: columns for name, columns in found.items() if columns}


def _make(db: sqlite3.Connection, expected: dict[str, list[str]]) -> None:
    there = _there(db)
    db.execute("DROP INDEX IF EXISTS lines_by_request")
    tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    for name in _VIEWED:
        if name in there and name not in tables:
            db.execute(f"DROP VIEW {name}")
    before = [name for name in (*_MADE, *_VIEWED) if name in tables]
    for name in before:
        db.execute(f"ALTER TABLE {name} RENAME TO {name}_before")
    for statement in _TABLES.split(";"):
        db.execute(statement)
    for name in _MADE:
        if name in before:
            both = ", ".join(column for column in there[name] if column in expected[name])
            db.execute(f"INSERT INTO {name} ({both}) SELECT {both} FROM {name}_before")
    if "attempts" in before:
        _part(db, there["attempts"], there.get("requests", []))
    for name in before:
        db.execute(f"DROP TABLE {name}_before")
    for statement in _VIEWS.split(";"):
        db.execute(statement)


def _part(db: sqlite3.Connection, columns: list[str], index: list[str]) -> None:
    """Lines of a version that had all of each in one table, `columns` of them, and an index of its own, or none."""
    value = {name: f"a.{name}" if name in columns else "''" if kind == TEXT else "0" for name, kind in COLUMNS.items()}
    kinds = ", ".join(KIND)
    db.execute(
        f"INSERT INTO kinds ({kinds}) SELECT DISTINCT {', '.join(value[name] for name in KIND)} FROM attempts_before a"
    )
    db.execute("INSERT OR IGNORE INTO positions (origin, seq) SELECT DISTINCT origin, -1 FROM kinds")
    db.execute(f"CREATE INDEX kinds_whole ON kinds ({kinds})")
    value |= {"log": "(SELECT log FROM positions p WHERE p.origin = a.origin)", "kind": "k.kind", "decided": "NULL"}
    if "outcome" in index:
        where = "r.request = a.request AND r.origin = a.origin AND r.outcome = a.seq"
        value["decided"] = f"(SELECT r.seq FROM requests_before r WHERE {where})"
    db.execute(  # a line whose kind were not found would have none, which the table does not take
        f"INSERT INTO lines ({', '.join(STORED)}) SELECT {', '.join(value[name] for name in STORED)} FROM attempts_before a"
        f" LEFT JOIN kinds k ON {' AND '.join(f'k.{name} = {value[name]}' for name in KIND)}"
    )
    db.execute("DROP INDEX kinds_whole")
    if index:
        alone = "AND outcome IS NULL" if "outcome" in index else ""
        db.execute(
            f"INSERT INTO unpaired SELECT request, origin, seq, kind FROM requests_before WHERE kind != 'outcome' {alone}"
        )
