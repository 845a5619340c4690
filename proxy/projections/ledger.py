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
from proxy.projections.lines import COLUMNS, LARGEST, NOTHING, OVERFLOW, Facts, facts_of, line, storable
from proxy.projections.sums import DIMENSIONS as DIMENSIONS
from proxy.projections.sums import Traffic, Zone
from proxy.projections.tables import INSERT, KEEP, KEEP_KIND, LEAVE, TAKE, prepare

T = TypeVar("T")
INTERVAL = 0.5  # seconds
QUEUE_LIMIT = 6_144
"""Records that may wait, some 7 MB, beside as many that are being written; past it the projector reads them from the journal later."""
ENOUGH = 2_048
"""Records that are written before their time comes."""
CHUNK = 5_000
"""Records that are projected together, so that a long log can be projected in bounded memory."""
PORTION = 192
"""Records of one transaction beside an event loop, and `PAUSE` the seconds after it: a thread that wrote thousands without
a pause would take the loop's core for six milliseconds at a time, and the loop's streams would wait."""
PAUSE = 0.002
KINDS = 4_096
"""Kinds of lines that are remembered, some 2 MB.  What was forgotten, or another process stored, is stored once more: to
look for it would cost more than a row, and each new one comes with a line."""
KEPT = 4_096
"""Decisions without an outcome, beside those of the last batch, that are remembered and not looked up, some 2 MB."""


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
        self._kinds = _Kinds(self._db)
        self._kept: dict[tuple[str, int, str], Facts] = {}
        self._whole: set[str] = set()  # logs whose last batch was written to its end

    def position(self, origin: str) -> int:
        """The last record of a log that was projected; -1 for none."""
        row = self._db.execute("SELECT seq FROM positions WHERE origin = ?", (origin,)).fetchone()
        return -1 if row is None else int(row[0])

    def project(self, origin: str, records: Iterable[Any], *, portion: int = CHUNK) -> None:
        """Add records of one log, in order; what was projected already is skipped.

        `portion`: records of one transaction, and rows of decisions that wait; there is a pause between two.
        """
        done = self.position(origin)
        if origin not in self._whole:  # what a batch that broke off kept comes again
            self._kept.clear()
            self._db.execute("DELETE FROM decided WHERE origin = ? AND seq > ?", (origin, done))
        fresh = (record for record in records if record.seq > done)
        while chunk := list(itertools.islice(fresh, CHUNK)):
            batch = _Batch(self._db, origin, chunk[-1].seq, self._kinds, self._kept)
            self._whole.discard(origin)
            while self._project(batch, chunk[:portion], portion if len(chunk) <= portion else 0):
                del chunk[:portion]
                time.sleep(PAUSE)
            self._whole.add(origin)

    def _project(self, batch: _Batch, records: Sequence[Any], room: int) -> bool:
        """Is more to be written?  The position moves with the last: after a crash before it all comes again, and changes nothing.

        `room`: rows of decisions that wait, once all records are written.
        """
        self._db.execute("BEGIN IMMEDIATE")
        try:
            batch.begin()
            for record in records:
                batch.add(record)
            batch.write()
            more = not room or batch.settle(room)
            self._db.execute("COMMIT")
        except BaseException:
            self._kinds.forget()  # some may not be there
            if self._db.in_transaction:  # a full disk may have rolled back by itself
                self._db.execute("ROLLBACK")
            raise
        return more

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


class _Kinds:
    """Numbers of the kinds of lines.  A new one gets the next number, within a transaction: no other process can give it."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._known: dict[tuple[Any, ...], int] = {}
        self._new: list[tuple[Any, ...]] = []
        self._last = 0

    def number(self, kind: tuple[Any, ...]) -> int:
        known = self._known.get(kind)
        return self._add(kind) if known is None else known

    def _add(self, kind: tuple[Any, ...]) -> int:
        if not self._new:
            self._last = self._db.execute("SELECT coalesce(max(kind), 0) FROM kinds").fetchone()[0]
        if len(self._known) >= KINDS:
            self._known.clear()
        self._last += 1
        self._known[kind] = self._last
        self._new.append((self._last, *kind))
        return self._last

    def write(self) -> None:
        _insert(self._db, KEEP_KIND, self._new)

    def forget(self) -> None:
        """After a transaction that failed."""
        self._known.clear()
        self._new.clear()


def _insert(db: sqlite3.Connection, statement: str, rows: list[Any]) -> None:
    """All of these rows, which are few or many, and then none."""
    if not rows:
        return
    try:
        db.executemany(statement, rows)
    except OverflowError:  # what was inserted before it is ignored the second time
        db.executemany(statement, map(storable, rows))
    rows.clear()


class _Batch:
    """Rows of a few transactions.  A decision waits for its outcome: here, or in a table where that comes later."""

    def __init__(
        self, db: sqlite3.Connection, origin: str, last: int, kinds: _Kinds, kept: dict[tuple[str, int, str], Facts]
    ) -> None:
        self._db = db
        self._origin = origin
        self._last = last
        self._log = 0
        self._kinds = kinds
        self._kept = kept
        self._lines: list[tuple[Any, ...]] = []
        self._unpaired: list[tuple[Any, ...]] = []
        self._refusals: list[tuple[Any, ...]] = []
        self._corrections: list[tuple[Any, ...]] = []
        self._decided: dict[tuple[str, int], Decision] = {}
        self._taken: list[tuple[str, int, str]] = []
        self._failed_at_home: set[str] = set()
        self._trials: list[Any] = []

    def begin(self) -> None:
        """In the first transaction: the number of this log, which a new one is given."""
        if not self._log:
            self._db.execute("INSERT OR IGNORE INTO positions (origin, seq) VALUES (?, -1)", (self._origin,))
            row = self._db.execute("SELECT log FROM positions WHERE origin = ?", (self._origin,)).fetchone()
            self._log = row[0]

    def add(self, record: Any) -> None:
        kind = type(record)
        if kind is Decision:
            self._decided[record.request, record.attempt] = record
        elif kind is Outcome:
            self._end(record)
        elif kind is Refused:
            self._refusals.append((record.at, self._origin, record.seq, record.request, record.code, record.action))
            self._unpaired.append((record.request, self._origin, record.seq, record.kind))
        else:
            self._add_other(record)

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
        self._kinds.write()
        _insert(self._db, INSERT, self._lines)
        _insert(self._db, "INSERT OR IGNORE INTO unpaired VALUES (?, ?, ?, ?)", self._unpaired)
        _insert(self._db, "INSERT OR IGNORE INTO refusals VALUES (?, ?, ?, ?, ?, ?)", self._refusals)
        _insert(self._db, "INSERT OR IGNORE INTO corrections VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", self._corrections)
        if self._trials:
            trials.put(self._db, self._origin, self._trials)
            self._trials.clear()

    def settle(self, room: int) -> bool:
        """After the last `write`: decisions that wait no more go, and those that do are kept, up to `room` of both.

        Are there more?  If not, all up to the batch's last record is projected.
        """
        self._taken.sort()  # neighbours lie in one page
        taken = self._taken[:room]
        del self._taken[:room]
        keys = list(self._decided)[: room - len(taken)]
        waiting = {(*key, self._origin): facts_of(self._decided.pop(key)) for key in keys}
        _insert(self._db, LEAVE, taken)
        _insert(self._db, KEEP, [(*key, *facts) for key, facts in waiting.items()])
        if len(self._kept) + len(waiting) > KEPT:
            self._kept.clear()
        self._kept.update(waiting)
        if self._taken or self._decided:
            return True
        self._db.execute("UPDATE positions SET seq = ? WHERE log = ?", (self._last, self._log))
        return False

    def _end(self, end: Outcome) -> None:
        facts = self._facts(end)
        overflow: str = facts[OVERFLOW]
        if end.boundary == LOCAL and end.ending != "completed":
            self._failed_at_home.add(end.request)
        elif end.boundary != LOCAL and end.attempt and not overflow and self._was_at_home(end):
            overflow = "failed"
        self._lines.append(line(self._origin, self._log, end, facts, overflow, self._kinds.number))

    def _facts(self, end: Outcome) -> Facts:
        found = self._decided.pop((end.request, end.attempt), None)
        if found is not None:
            return facts_of(found)
        key = (end.request, end.attempt, self._origin)
        facts = self._kept.pop(key, None) or self._db.execute(TAKE, key).fetchone()
        if facts is None:
            return NOTHING
        self._taken.append(key)
        return facts

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
