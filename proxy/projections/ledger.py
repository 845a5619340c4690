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
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

from compliance.records import Decision, Outcome, Refused
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
    PRIMARY KEY (origin, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS requests (
    request TEXT NOT NULL, origin TEXT NOT NULL, seq INTEGER NOT NULL, kind TEXT NOT NULL,
    PRIMARY KEY (request, origin, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS positions (origin TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
"""
_COLUMNS = (
    "at", "request", "attempt", "organisation", "team", "project", "key", "model", "target", "boundary", "ending", "error",
    "quality", "input", "cache_read", "cache_write_5m", "cache_write_1h", "output", "reasoning", "cost", "price",
)  # fmt: skip
_columns = attrgetter(*_COLUMNS)
_INSERT = f"INSERT OR IGNORE INTO attempts (origin, seq, {', '.join(_COLUMNS)}) VALUES ({', '.join('?' * (len(_COLUMNS) + 2))})"


class Ledger:
    """The tables.  Amounts are pico-dollars, times microseconds since the epoch."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None, timeout=10.0, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")  # what a power cut loses here is read again from the journal
        self._db.executescript(_SCHEMA)

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
                attempts.append((origin, record.seq, *_columns(record)))
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

    def spend(self, by: str) -> list[dict[str, Any]]:
        """Attempts, tokens and cost by one column (model, target, boundary, project, key) or by day."""
        group = "date(at / 1000000, 'unixepoch')" if by == "day" else by
        if by not in (*_COLUMNS, "day"):
            raise ValueError(f"no such column: {by}")
        rows = self._db.execute(
            f"""SELECT {group} AS name, count(*), sum(boundary = 'local'), sum(input + cache_read + cache_write_5m + cache_write_1h),
                sum(output), sum(cost), sum(quality = 'estimated') FROM attempts GROUP BY name ORDER BY sum(cost) DESC, count(*) DESC"""
        )
        names = ("name", "attempts", "local", "input", "output", "cost", "estimated")
        return [dict(zip(names, row, strict=True)) for row in rows]

    def rows(self) -> list[tuple[Any, ...]]:
        """Every line, for comparisons."""
        return self._db.execute("SELECT * FROM attempts ORDER BY origin, seq").fetchall()

    def close(self) -> None:
        self._db.close()


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
