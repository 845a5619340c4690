"""The spend ledger and the audit index: tables projected from the journals.

One database for all worker slots of an instance; each slot's position stands in the same transaction as its
rows, so a crash repeats nothing and leaves nothing out.  A projector is called with durable records in the
journal's thread and only queues them; its own thread writes, at most twice a second.
"""

from __future__ import annotations

import itertools
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from compliance.model import LOCAL
from compliance.records import Correction, Decision, Outcome, Refused
from proxy.background import step_back
from proxy.projections import sums as reading
from proxy.projections import trials
from proxy.projections.lines import (
    COLUMNS,
    INSERT,
    KEEP,
    LARGEST,
    NOTHING,
    TAKE,
    Facts,
    facts_of,
    kept,
    line,
    prepare,
    storable,
)
from proxy.projections.sums import DIMENSIONS as DIMENSIONS
from proxy.projections.sums import Traffic, Zone

T = TypeVar("T")
INTERVAL = 0.5  # seconds
QUEUE_LIMIT = 6_144
"""Records that may wait, some 7 MB, beside as many that are being written; past it the projector reads them from the journal later."""
ENOUGH = 2_048
"""Records that are written before their time comes."""
CHUNK = 5_000
"""Records that are projected together, so that a long log can be projected in bounded memory."""
PORTION = 128
"""Records of one transaction beside an event loop, and `PAUSE` the seconds after it: a thread that wrote thousands without
a pause would take the loop's core for six milliseconds at a time, and the loop's streams would wait."""
PAUSE = 0.002


class Ledger:
    """The tables.  Amounts are pico-dollars, times microseconds since the epoch."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None, timeout=10.0, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")  # what a power cut loses here is read again from the journal
        self._db.execute("PRAGMA temp_store=MEMORY")  # sums sort
        prepare(self._db)
        trials.prepare(self._db)

    def position(self, origin: str) -> int:
        """The last record of a log that was projected; -1 for none."""
        row = self._db.execute("SELECT seq FROM positions WHERE origin = ?", (origin,)).fetchone()
        return -1 if row is None else int(row[0])

    def project(self, origin: str, records: Iterable[Any], *, portion: int = CHUNK) -> None:
        """Add records of one log, in order; what was projected already is skipped.

        `portion`: records of one transaction; there is a pause after each but the last of `CHUNK`.
        """
        done = self.position(origin)
        fresh = (record for record in records if record.seq > done)
        while chunk := list(itertools.islice(fresh, CHUNK)):
            batch = _Batch(self._db, origin)
            while len(chunk) > portion:
                self._project(batch, chunk[:portion])
                del chunk[:portion]
                time.sleep(PAUSE)
            self._project(batch, chunk, last=True)

    def _project(self, batch: _Batch, records: Sequence[Any], *, last: bool = False) -> None:
        """The position moves with the last portion: after a crash before it the others come again, and change nothing."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for record in records:
                batch.add(record)
            batch.write()
            if last:
                batch.end(records[-1].seq)
            self._db.execute("COMMIT")
        except sqlite3.Error:
            if self._db.in_transaction:  # a full disk may have rolled back by itself
                self._db.execute("ROLLBACK")
            raise

    def find(self, request: str) -> list[tuple[str, int]]:
        """(origin, seq) of every record of a request, in order."""
        rows = self._db.execute("SELECT origin, seq, outcome FROM requests WHERE request = ?", (request,)).fetchall()
        return sorted({(row[0], seq) for row in rows for seq in row[1:] if seq is not None})

    def sums(
        self,
        by: Sequence[str],
        start: int = 0,
        end: int = LARGEST,
        *,
        cuts: Sequence[int] | None = None,
        zone: Zone = reading.UTC_ZONE,
        speeds: Mapping[str, int] | None = None,
        above: int = 0,
    ) -> list[dict[str, Any]]:
        """Attempts that ended in [start, end), summed by these dimensions; see `proxy.projections.sums`."""
        return reading.sums(self._db, by, start, end, cuts=cuts, zone=zone, speeds=speeds or {}, above=above)

    def intervals(self, start: int, end: int) -> Iterator[tuple[str, int, int]]:
        """(engine, from, to) of each local attempt that ended in [start, end), within it; by engine and start."""
        yield from reading.intervals(self._db, start, end)

    def daily(self, start: int, end: int, zone: Zone = reading.UTC_ZONE) -> list[tuple[str, int]]:
        """(ISO day, what clouds billed) of each day in [start, end) on which they were asked."""
        return reading.daily(self._db, start, end, zone)

    def traffic(self, start: int, end: int) -> Traffic:
        """How requests went that ended in [start, end): counts, percentiles, the busiest hour."""
        return reading.traffic(self._db, start, end)

    def since(self) -> int | None:
        """When the first attempt began; None: there is none."""
        row = self._db.execute("SELECT min(at - engine_us) FROM attempts").fetchone()
        return None if row[0] is None else int(row[0])

    def lines(self, start: int = 0, end: int = LARGEST) -> Iterator[dict[str, Any]]:
        """Every line that ended in [start, end), by time: a value for each of `proxy.projections.lines.COLUMNS`."""
        for row in self._db.execute(
            f"SELECT {', '.join(COLUMNS)} FROM attempts WHERE at >= ? AND at < ? ORDER BY at, origin, seq", (start, end)
        ):
            yield dict(zip(COLUMNS, row, strict=True))

    def corrections(self, start: int = 0, end: int = LARGEST) -> list[dict[str, Any]]:
        """What reconciliation has posted for periods that begin in [start, end): pico-dollars to add to the sums."""
        names = ("at", "vendor", "model", "start", "until", "amount", "cause")
        rows = self._db.execute(
            f"SELECT {', '.join(names)} FROM corrections WHERE start >= ? AND start < ? ORDER BY at, origin, seq",
            (start, end),
        )
        return [dict(zip(names, row, strict=True)) for row in rows]

    def feedback(self, metric: str, start: int = 0, end: int = LARGEST) -> Iterator[tuple[str, float, int]]:
        """(request, value, when) of what applications measured; see `proxy.projections.trials`."""
        yield from trials.feedback_of(self._db, metric, start, end)

    def ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """What a question of `proxy.projections.trials` finds."""
        return question(self._db)

    def trials(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row of feedback and experiments, for comparisons."""
        return trials.rows_of(self._db)

    def rows(self) -> list[tuple[Any, ...]]:
        """Every line, for comparisons."""
        return self._db.execute(f"SELECT {', '.join(COLUMNS)} FROM attempts ORDER BY origin, seq").fetchall()

    def finish(self) -> int:
        """All of it into the one file; the number of lines."""
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return int(self._db.execute("SELECT count(*) FROM attempts").fetchone()[0])

    def close(self) -> None:
        self._db.close()


def rebuild(path: Path, logs: Iterable[tuple[str, Iterable[Any]]]) -> int:
    """Make a ledger anew from (origin, records) of every log; how many lines it has.  Nobody else may have it open.

    The old one stands until the new one is whole.
    """
    part = path.with_name(f"{path.name}.rebuilding")
    part.unlink(missing_ok=True)
    ledger = Ledger(part)
    try:
        for origin, records in logs:
            ledger.project(origin, records)
        count = ledger.finish()
    except BaseException:
        ledger.close()
        part.unlink()
        raise
    ledger.close()
    for beside in ("-wal", "-shm"):
        path.with_name(path.name + beside).unlink(missing_ok=True)
    part.replace(path)
    return count


class _Batch:
    """Rows of a few transactions.  A decision waits for its outcome: here, or in a table where that comes later."""

    def __init__(self, db: sqlite3.Connection, origin: str) -> None:
        self._db = db
        self._origin = origin
        self._lines: list[tuple[Any, ...]] = []
        self._requests: list[tuple[str, str, int, str, int | None]] = []
        self._refusals: list[tuple[Any, ...]] = []
        self._corrections: list[tuple[Any, ...]] = []
        self._decided: dict[tuple[str, int], Decision] = {}
        self._taken: list[tuple[str, str, int]] = []
        self._failed_at_home: set[str] = set()
        self._trials: list[Any] = []

    def add(self, record: Any) -> None:
        kind = type(record)
        if kind is Decision:
            self._decided[record.request, record.attempt] = record
        elif kind is Outcome:
            self._end(record)
        elif kind is Refused:
            self._refusals.append((record.at, self._origin, record.seq, record.request, record.code, record.action))
            self._index(record)
        else:
            self._add_other(record)

    def _index(self, record: Decision | Outcome | Refused, outcome: int | None = None) -> None:
        """Where a request's record stands; with a decision its outcome, if it came in the same transaction."""
        self._requests.append((record.request, self._origin, record.seq, record.kind, outcome))

    def _add_other(self, record: Any) -> None:
        if isinstance(record, Correction):
            self._corrections.append(
                (
                    record.at,
                    self._origin,
                    record.seq,
                    record.vendor,
                    record.model,
                    record.begin,
                    record.end,
                    record.amount,
                    record.cause,
                )
            )
        elif isinstance(record, trials.RECORDS):
            self._trials.append(record)

    def write(self) -> None:
        try:
            self._db.executemany(INSERT, self._lines)
        except OverflowError:  # what was inserted before it is ignored the second time
            self._db.executemany(INSERT, map(storable, self._lines))
        self._write_index()
        self._db.executemany("INSERT OR IGNORE INTO refusals VALUES (?, ?, ?, ?, ?, ?)", self._refusals)
        self._db.executemany("INSERT OR IGNORE INTO corrections VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", self._corrections)
        self._db.executemany("DELETE FROM decided WHERE origin = ? AND request = ? AND attempt = ?", self._taken)
        if self._trials:
            trials.put(self._db, self._origin, self._trials)
        for rows in (self._lines, self._refusals, self._corrections, self._taken, self._trials):
            rows.clear()

    def end(self, seq: int) -> None:
        """After the last `write`: what waits is kept, and all up to record `seq` is projected."""
        waiting = list(self._decided.values())
        for decision in waiting:
            self._index(decision)
        self._write_index()
        self._db.executemany(KEEP, [kept(self._origin, decision) for decision in waiting])
        self._db.execute(
            "INSERT INTO positions VALUES (?, ?) ON CONFLICT DO UPDATE SET seq = excluded.seq", (self._origin, seq)
        )

    def _write_index(self) -> None:
        self._db.executemany("INSERT OR IGNORE INTO requests VALUES (?, ?, ?, ?, ?)", self._requests)
        self._requests.clear()

    def _end(self, end: Outcome) -> None:
        facts = self._facts(end)
        overflow = facts.overflow
        if end.boundary == LOCAL and end.ending != "completed":
            self._failed_at_home.add(end.request)
        elif end.boundary != LOCAL and end.attempt and not overflow and self._was_at_home(end):
            overflow = "failed"
        self._lines.append(line(self._origin, end, facts, overflow))

    def _facts(self, end: Outcome) -> Facts:
        found = self._decided.pop((end.request, end.attempt), None)
        if found is not None:
            self._index(found, end.seq)
            return facts_of(found)
        self._index(end)
        key = (self._origin, end.request, end.attempt)
        row = self._db.execute(TAKE, key).fetchone()
        if row is None:
            return NOTHING
        self._taken.append(key)
        return Facts(*row)

    def _was_at_home(self, end: Outcome) -> bool:
        """Did a local engine fail on this request before?  It ended since the request came."""
        if end.request in self._failed_at_home:
            return True
        row = self._db.execute(
            "SELECT 1 FROM attempts WHERE at BETWEEN ? AND ? AND request = ? AND boundary = ? LIMIT 1",
            (end.at - max(0, min(end.total_us, LARGEST >> 1)) - 1_000_000, end.at, end.request, LOCAL),
        ).fetchone()
        return row is not None


class Projector:
    """Feeds one slot's durable records to the ledger, from a thread of its own.

    `read(start)` gives the durable records of the journal from `start` on: what the queue had no room for, or
    the database did not take, is read again.  Without it that happens at the next start.
    """

    def __init__(self, ledger: Ledger, origin: str, read: Callable[[int], Iterable[Any]] | None = None) -> None:
        self._ledger = ledger
        self._origin = origin
        self._read = read
        self._lock = threading.Lock()
        self._waiting: list[Any] = []
        self._wake = threading.Event()
        self._closing = False
        self._missed = False
        self._own_thread = threading.Thread(target=self._run, name="ledger", daemon=True)

    def start(self) -> None:
        self._own_thread.start()

    def on_durable(self, records: list[Any]) -> None:
        """From the journal's thread.  What does not fit is read from the journal later."""
        with self._lock:
            if self._missed or len(self._waiting) + len(records) > QUEUE_LIMIT:
                self._missed = True  # later records must not pass earlier ones
                return
            self._waiting += records
            if len(self._waiting) >= ENOUGH:
                self._wake.set()

    def close(self) -> None:
        if self._own_thread.is_alive():
            self._closing = True
            self._wake.set()
            self._own_thread.join(10)
        self._ledger.close()

    def _run(self) -> None:
        """Sleep while groups gather, then write them at once: a thread that woke for each would take the event loop's turns."""
        step_back()
        closing = False
        while not closing:
            self._wake.wait(INTERVAL)
            self._wake.clear()
            closing = self._closing
            with self._lock:
                batch, self._waiting = self._waiting, []
            self._write(batch)

    def _write(self, batch: list[Any]) -> None:
        """Once something was missed, nothing later is written until the journal has given what is between."""
        try:
            if self._missed and self._read is not None:
                self._missed = False  # before reading: what becomes durable from now on is queued again
                unread = self._read(self._ledger.position(self._origin) + 1)
                self._ledger.project(self._origin, unread, portion=PORTION)
            elif batch and not self._missed:
                self._ledger.project(self._origin, batch, portion=PORTION)
        except (sqlite3.Error, OSError):
            self._missed = True
