"""The spend ledger and the audit index: tables projected from the journals.

One database for all worker slots of an instance; each slot's position stands in the same transaction as its
rows, so a crash repeats nothing and leaves nothing out.  A projector is called with durable records in the
journal's thread and only queues them; its own thread writes, at most twice a second.
"""

from __future__ import annotations

import itertools
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

from compliance.records import Decision, Outcome, Refused
from engines.rates import METER_LIMIT
from proxy.background import step_back

INTERVAL = 0.5  # seconds
QUEUE_LIMIT = 4096
"""Groups of records that may wait; past it the projector reads them from the journal later."""
CHUNK = 5_000
"""Records of one transaction, so that a long log can be projected in bounded memory."""
_LARGEST = (1 << 63) - 1  # what a column can hold
_SCHEMA = """
CREATE TABLE IF NOT EXISTS attempts (
    origin TEXT NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL, request TEXT NOT NULL, attempt INTEGER NOT NULL,
    organisation TEXT NOT NULL, team TEXT NOT NULL, project TEXT NOT NULL, key TEXT NOT NULL, model TEXT NOT NULL,
    target TEXT NOT NULL, boundary TEXT NOT NULL, ending TEXT NOT NULL, error TEXT NOT NULL, quality TEXT NOT NULL,
    input INTEGER NOT NULL, cache_read INTEGER NOT NULL, cache_write_5m INTEGER NOT NULL, cache_write_1h INTEGER NOT NULL,
    output INTEGER NOT NULL, reasoning INTEGER NOT NULL, cost INTEGER NOT NULL, price TEXT NOT NULL,
    tenant TEXT NOT NULL DEFAULT '', engine_us INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (origin, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS requests (
    request TEXT NOT NULL, origin TEXT NOT NULL, seq INTEGER NOT NULL, kind TEXT NOT NULL,
    PRIMARY KEY (request, origin, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS positions (origin TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
"""
_COLUMNS = (
    "at", "request", "attempt", "organisation", "team", "project", "key", "model", "target", "boundary", "ending", "error",
    "quality", "input", "cache_read", "cache_write_5m", "cache_write_1h", "output", "reasoning", "cost", "price", "tenant",
)  # fmt: skip
_columns = attrgetter(*_COLUMNS)
_INSERT = (
    f"INSERT OR IGNORE INTO attempts (origin, seq, {', '.join(_COLUMNS)}, engine_us)"
    f" VALUES ({', '.join('?' * (len(_COLUMNS) + 3))})"
)
_ADDED = {"tenant": "TEXT NOT NULL DEFAULT ''", "engine_us": "INTEGER NOT NULL DEFAULT 0"}
"""Columns that a ledger of an earlier version lacks; its lines keep their defaults."""
_METERS = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output", "reasoning")
_ENGINE = "substr(target, 1, instr(target, '/') - 1)"
DIMENSIONS = {
    "day": "date(at / 1000000, 'unixepoch')",
    **{name: name for name in ("tenant", "team", "project", "key", "model", "target", "boundary")},
}
"""What sums can be grouped by, and how a line says it."""


class Ledger:
    """The tables.  Amounts are pico-dollars, times microseconds since the epoch."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None, timeout=10.0, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")  # what a power cut loses here is read again from the journal
        self._db.executescript(_SCHEMA)
        self._add_columns()

    def _add_columns(self) -> None:
        """One of the processes that open a ledger at once adds what it lacks."""
        if self._lacking():
            self._db.execute("BEGIN IMMEDIATE")
            for name in self._lacking():
                self._db.execute(f"ALTER TABLE attempts ADD COLUMN {name} {_ADDED[name]}")
            self._db.execute("COMMIT")

    def _lacking(self) -> list[str]:
        there = {row[1] for row in self._db.execute("PRAGMA table_info(attempts)")}
        return [name for name in _ADDED if name not in there]

    def position(self, origin: str) -> int:
        """The last record of a log that was projected; -1 for none."""
        row = self._db.execute("SELECT seq FROM positions WHERE origin = ?", (origin,)).fetchone()
        return -1 if row is None else int(row[0])

    def project(self, origin: str, records: Iterable[Any]) -> None:
        """Add records of one log, in order; what was projected already is skipped."""
        done = self.position(origin)
        fresh = (record for record in records if record.seq > done)
        while chunk := list(itertools.islice(fresh, CHUNK)):
            self._project(origin, chunk)

    def _project(self, origin: str, records: Sequence[Any]) -> None:
        attempts, requests = [], []
        for record in records:
            if isinstance(record, Outcome):
                attempts.append((origin, record.seq, *_columns(record), _engine_time(record)))
            if isinstance(record, (Decision, Outcome, Refused)):
                requests.append((record.request, origin, record.seq, record.kind))
        self._db.execute("BEGIN IMMEDIATE")
        try:
            try:
                self._db.executemany(_INSERT, attempts)
            except OverflowError:  # what was inserted before it is ignored the second time
                self._db.executemany(_INSERT, [tuple(map(_storable, row)) for row in attempts])
            self._db.executemany("INSERT OR IGNORE INTO requests VALUES (?, ?, ?, ?)", requests)
            self._db.execute(
                "INSERT INTO positions VALUES (?, ?) ON CONFLICT DO UPDATE SET seq = excluded.seq",
                (origin, records[-1].seq),
            )
            self._db.execute("COMMIT")
        except sqlite3.Error:
            if self._db.in_transaction:  # a full disk may have rolled back by itself
                self._db.execute("ROLLBACK")
            raise

    def find(self, request: str) -> list[tuple[str, int]]:
        """(origin, seq) of every record of a request, in order."""
        rows = self._db.execute("SELECT origin, seq FROM requests WHERE request = ? ORDER BY origin, seq", (request,))
        return [(row[0], row[1]) for row in rows]

    def sums(self, by: Sequence[str], start: int = 0, end: int = _LARGEST) -> list[dict[str, Any]]:
        """Attempts that ended in [start, end), summed by these of `DIMENSIONS`, and always apart by day, engine and boundary,
        so that each sum has one price and one rate card.  Tokens are those that are believed (see `engines.rates`).

        `engine_us` is engine time within the period; `untimed` counts attempts that an engine took and whose time is
        not known, `unpriced` those that used tokens without a price.  Raises `KeyError` for another name.
        """
        groups = [DIMENSIONS[name] for name in by]
        keys = [*groups, DIMENSIONS["day"], _ENGINE, "boundary"]
        meters = [f"sum(min(max({meter}, 0), {METER_LIMIT}))" for meter in _METERS]
        columns = [
            *keys, "count(*)", "sum(quality = 'estimated')", *meters, "sum(cost)", "sum(min(engine_us, at - ?))",
            "sum(engine_us = 0 AND (input > 0 OR output > 0))",
            "sum(price = '' AND cost = 0 AND (input > 0 OR output > 0))",
        ]  # fmt: skip
        rows = self._db.execute(
            f"SELECT {', '.join(columns)} FROM attempts WHERE at >= ? AND at < ?"
            f" GROUP BY {', '.join(str(number + 1) for number in range(len(keys)))}",
            (start, start, end),
        )
        names = (
            "date", "engine", "where", "attempts", "estimated", *_METERS, "cost", "engine_us", "untimed", "unpriced",
        )  # fmt: skip
        size = len(groups)
        return [{"names": tuple(row[:size]), **dict(zip(names, row[size:], strict=True))} for row in rows]

    def intervals(self, start: int, end: int) -> Iterator[tuple[str, int, int]]:
        """(engine, from, to) of each local attempt that ended in [start, end), within it; by engine and start."""
        yield from self._db.execute(
            f"""SELECT {_ENGINE}, max(at - engine_us, ?), at FROM attempts
                WHERE at >= ? AND at < ? AND boundary = 'local' AND engine_us > 0 ORDER BY 1, 2""",
            (start, start, end),
        )

    def since(self) -> int | None:
        """When the first attempt began; None: there is none."""
        row = self._db.execute("SELECT min(at - engine_us) FROM attempts").fetchone()
        return None if row[0] is None else int(row[0])

    def rows(self) -> list[tuple[Any, ...]]:
        """Every line, for comparisons."""
        return self._db.execute("SELECT * FROM attempts ORDER BY origin, seq").fetchall()

    def close(self) -> None:
        self._db.close()


def _engine_time(outcome: Outcome) -> int:
    """Microseconds from the request's way to the engine to the answer's end; 0: it was never sent, or that is not known."""
    return max(0, outcome.total_us - outcome.connect_us) if outcome.connect_us > 0 else 0


def _storable(value: Any) -> Any:
    """An engine may report any number of tokens; a column holds 64 bits."""
    return max(-_LARGEST, min(value, _LARGEST)) if isinstance(value, int) else value


class Projector:
    """Feeds one slot's durable records to the ledger, from a thread of its own.

    `read(start)` gives the durable records of the journal from `start` on: what the queue had no room for, or
    the database did not take, is read again.  Without it that happens at the next start.
    """

    def __init__(self, ledger: Ledger, origin: str, read: Callable[[int], Iterable[Any]] | None = None) -> None:
        self._ledger = ledger
        self._origin = origin
        self._read = read
        self._waiting: queue.Queue[list[Any] | None] = queue.Queue(QUEUE_LIMIT)
        self._missed = False
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def on_durable(self, records: list[Any]) -> None:
        """From the journal's thread.  What does not fit is read from the journal later."""
        if self._missed:
            return
        try:
            self._waiting.put_nowait(records)
        except queue.Full:
            self._missed = True  # later records must not pass earlier ones

    def close(self) -> None:
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join(10)
        self._ledger.close()

    def _run(self) -> None:
        """Gather for a while, write at once: one commit for many groups."""
        step_back()
        closing = False
        while not closing:
            batch: list[Any] = []
            until = time.monotonic() + INTERVAL
            while (left := until - time.monotonic()) > 0:
                try:
                    group = self._waiting.get(timeout=left)
                except queue.Empty:
                    break
                if group is None:
                    closing = True
                    break
                batch += group
            self._write(batch)

    def _write(self, batch: list[Any]) -> None:
        """Once something was missed, nothing later is written until the journal has given what is between."""
        try:
            if self._missed and self._read is not None:
                self._missed = False  # before reading: what becomes durable from now on is queued again
                self._ledger.project(self._origin, self._read(self._ledger.position(self._origin) + 1))
            elif batch and not self._missed:
                self._ledger.project(self._origin, batch)
        except (sqlite3.Error, OSError):
            self._missed = True
