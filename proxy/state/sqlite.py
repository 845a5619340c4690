"""The budget store over SQLite: one file, several worker processes, full sync.

    shares(scope, window, slot, settled, outstanding)   of each account and worker: what was spent, as its journal says,
                                                        and what is set aside for it
    slots(slot, accounted)                              up to which record a slot's journal is settled
    overrides(what, amount)                             limits that an operator set at run time
    claims(what, until)                                 alerts that some worker has taken

Every call is one transaction that takes the write lock at its start (BEGIN IMMEDIATE), so that reading what
remains and setting it aside cannot be torn apart.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from policies.budgets import Account, Ask, Granted, StoreFailed, granted
from policies.windows import expires
from proxy.state.transactions import immediate

BUSY_SECONDS = 5.0
"""How long a call may wait for other processes' calls."""
BUSY_TRY_MS = 40
"""SQLite waits ever longer between its tries, up to a tenth of a second: of several processes one may lose every time, for
seconds.  So its waiting is ended early and begun again."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS shares (
    scope TEXT NOT NULL, window TEXT NOT NULL, slot TEXT NOT NULL,
    settled INTEGER NOT NULL DEFAULT 0 CHECK (settled >= 0), outstanding INTEGER NOT NULL DEFAULT 0 CHECK (outstanding >= 0),
    PRIMARY KEY (scope, window, slot)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS outstanding_by_slot ON shares (slot) WHERE outstanding > 0;
CREATE TABLE IF NOT EXISTS slots (slot TEXT PRIMARY KEY, accounted INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS overrides (what TEXT PRIMARY KEY, amount INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS claims (what TEXT PRIMARY KEY, until INTEGER NOT NULL) WITHOUT ROWID;
"""
_EARLIER = """
INSERT INTO shares SELECT scope, window, '', settled, 0 FROM accounts WHERE true
    ON CONFLICT DO UPDATE SET settled = settled + excluded.settled;
INSERT INTO shares SELECT scope, window, slot, 0, outstanding FROM slices WHERE true
    ON CONFLICT DO UPDATE SET outstanding = outstanding + excluded.outstanding;
DROP TABLE accounts;
DROP TABLE slices;
"""
"""A file of the first version kept what was settled in `accounts`, and what was set aside in `slices`."""
_SPENT = """
INSERT INTO shares VALUES (?, ?, ?, ?, 0)
    ON CONFLICT DO UPDATE SET settled = settled + excluded.settled
"""
_SET_ASIDE = """
INSERT INTO shares VALUES (?, ?, ?, 0, ?)
    ON CONFLICT DO UPDATE SET outstanding = outstanding + excluded.outstanding
"""
_ACCOUNTED = "INSERT INTO slots VALUES (?, ?) ON CONFLICT DO UPDATE SET accounted = excluded.accounted"
_ONE = "WHERE scope = ? AND window = ? AND slot = ?"


class SQLiteBudgets:
    """See `policies.budgets.BudgetStore`.  Amounts fit 64 bits: nine million dollars in pico-dollars.

    One thread at a time may use an object: its connection has one transaction.  A file that cannot be opened is tried again
    at every call, so that a worker whose store is damaged starts all the same, and serves what costs nothing.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._opened: sqlite3.Connection | None = None
        with contextlib.suppress(StoreFailed), self._failing():
            _ = self._db

    def grant(self, slot: str, asks: Sequence[Ask]) -> list[Granted]:
        found = []
        with self._transaction() as db:
            for ask in asks:
                settled, held = _figures(db, ask.account, ask.also)
                amount = granted(ask, ask.limit - settled - held)
                if amount:
                    db.execute(_SET_ASIDE, (*ask.account, slot, amount))
                found.append(Granted(amount, settled, held + amount))
        return found

    def give_back(self, slot: str, amounts: Mapping[Account, int]) -> None:
        with self._transaction() as db:
            for account, amount in amounts.items():
                _reduce(db, slot, account, amount)

    def account(self, slot: str, upto: int, spent: Mapping[Account, int]) -> dict[Account, int]:
        unpaid: dict[Account, int] = {}
        with self._transaction() as db:
            if upto <= _accounted(db, slot):
                return {}
            for account, amount in spent.items():
                db.execute(_SPENT, (*account, slot, amount))
                if missing := _reduce(db, slot, account, amount):
                    unpaid[account] = missing
            db.execute(_ACCOUNTED, (slot, upto))
        return unpaid

    def accounted(self, slot: str) -> int:
        with self._failing():
            return _accounted(self._db, slot)

    def release(self, slot: str) -> None:
        with self._transaction() as db:
            db.execute("UPDATE shares SET outstanding = 0 WHERE slot = ? AND outstanding > 0", (slot,))

    def usage(self, accounts: Sequence[Account]) -> list[tuple[int, int]]:
        with self._failing():  # a statement an account, so that nothing is settled between its two figures
            return [_figures(self._db, account) for account in accounts]

    def hold(self, slot: str, outstanding: Mapping[Account, int]) -> None:
        with self._transaction() as db:
            for account, amount in outstanding.items():
                db.execute(f"UPDATE shares SET outstanding = min(outstanding, ?) {_ONE}", (amount, *account, slot))

    def restore(self, slot: str, upto: int, spent: Mapping[Account, int], outstanding: Mapping[Account, int]) -> None:
        with self._transaction() as db:
            db.execute("DELETE FROM shares WHERE slot = ?", (slot,))
            for account, amount in spent.items():
                db.execute(_SPENT, (*account, slot, amount))
            for account, amount in outstanding.items():
                db.execute(_SET_ASIDE, (*account, slot, amount))
            db.execute(_ACCOUNTED, (slot, upto))

    def claim(self, what: str, until: int) -> bool:
        with self._transaction() as db:
            db.execute("DELETE FROM claims WHERE until < ?", (int(time.time()),))
            return db.execute("INSERT OR IGNORE INTO claims VALUES (?, ?)", (what, until)).rowcount == 1

    def overrides(self) -> dict[str, int]:
        with self._failing():
            return {str(what): int(amount) for what, amount in self._db.execute("SELECT what, amount FROM overrides")}

    def override(self, what: str, limit: int | None) -> None:
        with self._transaction() as db:
            if limit is None:
                db.execute("DELETE FROM overrides WHERE what = ?", (what,))
            else:
                db.execute(
                    "INSERT INTO overrides VALUES (?, ?) ON CONFLICT DO UPDATE SET amount = excluded.amount",
                    (what, limit),
                )

    def holders(self) -> list[str]:
        """Slots that something is set aside for."""
        with self._failing():
            rows = self._db.execute("SELECT DISTINCT slot FROM shares WHERE outstanding > 0 ORDER BY slot").fetchall()
        return [str(slot) for (slot,) in rows]

    def current(self, windows: Collection[str]) -> dict[Account, tuple[int, int]]:
        marks = ", ".join("?" * len(windows))
        with self._failing():
            rows = self._db.execute(
                f"SELECT scope, window, sum(settled), sum(outstanding) FROM shares WHERE window IN ({marks}) GROUP BY 1, 2",
                tuple(windows),
            ).fetchall()
        return {(str(scope), str(window)): (int(settled), int(held)) for scope, window, settled, held in rows}

    def purge(self, now: int) -> None:
        with self._failing():
            rows = self._db.execute("SELECT DISTINCT window FROM shares").fetchall()
        gone = [(window,) for (window,) in rows if expires(str(window)) <= now]
        if gone:
            with self._transaction() as db:
                db.executemany("DELETE FROM shares WHERE window = ?", gone)

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()

    @property
    def _db(self) -> sqlite3.Connection:
        if self._opened is None:
            db = sqlite3.connect(self._path, isolation_level=None, timeout=BUSY_SECONDS, check_same_thread=False)
            try:
                db.execute("PRAGMA journal_mode=WAL")
                db.execute("PRAGMA synchronous=FULL")
                db.executescript(_SCHEMA)
                self._take_over(db)
                db.execute(f"PRAGMA busy_timeout = {BUSY_TRY_MS}")
            except BaseException:
                db.close()
                raise
            self._opened = db
        return self._opened

    def _take_over(self, opened: sqlite3.Connection) -> None:
        there = "SELECT 1 FROM sqlite_master WHERE name = 'accounts'"
        if opened.execute(there).fetchone() is None:
            return
        with immediate(opened) as db:
            if db.execute(there).fetchone() is not None:  # another process may have been first
                for statement in _EARLIER.split(";"):
                    db.execute(statement)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._failing(), immediate(self._db, patience=BUSY_SECONDS) as db:
            yield db

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OverflowError) as error:  # overflow: an amount of more than 64 bits
            if type(error) is sqlite3.DatabaseError:  # the very class: it is no database, or its pages are torn
                raise StoreFailed(
                    f"the budget store {self._path} is damaged; stop Spillway and remove {self._path.name}*, and the next start "
                    "makes the counters anew from the log (limits of `spillway budget set` must be set again)"
                ) from None
            raise StoreFailed(f"the budget store {self._path.name} failed: {type(error).__name__}") from None


def _figures(db: sqlite3.Connection, account: Account, also: Sequence[Account] = ()) -> tuple[int, int]:
    """(settled, held) over all slots, of a rolling window over its buckets."""
    marks = ", ?" * len(also)
    row = db.execute(
        f"SELECT sum(settled), sum(outstanding) FROM shares WHERE scope = ? AND window IN (?{marks})",
        (*account, *(window for _, window in also)),
    ).fetchone()
    return int(row[0] or 0), int(row[1] or 0)


def _accounted(db: sqlite3.Connection, slot: str) -> int:
    row = db.execute("SELECT accounted FROM slots WHERE slot = ?", (slot,)).fetchone()
    return -1 if row is None else int(row[0])


def _reduce(db: sqlite3.Connection, slot: str, account: Account, amount: int) -> int:
    """What the slice could not pay.  Never below zero: an attempt that cost more than was set aside has been
    charged in `settled` all the same."""
    row = db.execute(f"SELECT outstanding FROM shares {_ONE}", (*account, slot)).fetchone()
    outstanding = int(row[0]) if row else 0
    if outstanding:
        db.execute(f"UPDATE shares SET outstanding = ? {_ONE}", (max(0, outstanding - amount), *account, slot))
    return max(0, amount - outstanding)
