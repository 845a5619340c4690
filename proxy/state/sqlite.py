"""The budget store over SQLite: one file, several worker processes, full sync.

    accounts(scope, window, settled)                 what was spent, as the journals say
    slices(slot, scope, window, outstanding)         what is set aside for a worker
    slots(slot, accounted)                           up to which record a slot's journal is settled

Every call is one transaction that takes the write lock at its start (BEGIN IMMEDIATE), so that reading what
remains and setting it aside cannot be torn apart.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path

from policies.budgets import Account

BUSY_SECONDS = 5.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS accounts (
    scope TEXT NOT NULL, window TEXT NOT NULL, settled INTEGER NOT NULL DEFAULT 0 CHECK (settled >= 0),
    PRIMARY KEY (scope, window)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS slices (
    slot TEXT NOT NULL, scope TEXT NOT NULL, window TEXT NOT NULL, outstanding INTEGER NOT NULL CHECK (outstanding >= 0),
    PRIMARY KEY (slot, scope, window)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS slots (slot TEXT PRIMARY KEY, accounted INTEGER NOT NULL) WITHOUT ROWID;
"""


class StoreFailed(Exception):
    """The store cannot be used now: no cloud money is granted."""


class SQLiteBudgets:
    """See `policies.budgets.BudgetStore`.  Amounts are pico-dollars: a 64-bit integer holds nine million dollars."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        with self._failing():
            self._db = sqlite3.connect(path, isolation_level=None, timeout=BUSY_SECONDS, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)

    def grant(self, slot: str, account: Account, limit: int, want: int, least: int) -> int:
        with self._transaction() as db:
            settled, held = self._usage(db, account)
            granted = min(want, limit - settled - held)
            if granted < least or granted <= 0:
                return 0
            db.execute(
                "INSERT INTO slices VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET outstanding = outstanding + excluded.outstanding",
                (slot, *account, granted),
            )
            return granted

    def give_back(self, slot: str, account: Account, amount: int) -> None:
        with self._transaction() as db:
            self._reduce(db, slot, account, amount)

    def account(self, slot: str, upto: int, spent: Mapping[Account, int]) -> None:
        with self._transaction() as db:
            for account, amount in spent.items():
                db.execute(
                    "INSERT INTO accounts VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET settled = settled + excluded.settled",
                    (*account, amount),
                )
                self._reduce(db, slot, account, amount)
            db.execute(
                "INSERT INTO slots VALUES (?, ?) ON CONFLICT DO UPDATE SET accounted = excluded.accounted", (slot, upto)
            )

    def accounted(self, slot: str) -> int:
        with self._failing():
            row = self._db.execute("SELECT accounted FROM slots WHERE slot = ?", (slot,)).fetchone()
        return -1 if row is None else int(row[0])

    def release(self, slot: str) -> None:
        with self._transaction() as db:
            db.execute("DELETE FROM slices WHERE slot = ?", (slot,))

    def usage(self, account: Account) -> tuple[int, int]:
        with self._failing():
            return self._usage(self._db, account)

    def close(self) -> None:
        self._db.close()

    def _usage(self, db: sqlite3.Connection, account: Account) -> tuple[int, int]:
        settled = db.execute("SELECT settled FROM accounts WHERE scope = ? AND window = ?", account).fetchone()
        held = db.execute("SELECT sum(outstanding) FROM slices WHERE scope = ? AND window = ?", account).fetchone()
        return (int(settled[0]) if settled else 0), int(held[0] or 0)

    def _reduce(self, db: sqlite3.Connection, slot: str, account: Account, amount: int) -> None:
        """Never below zero: an attempt that cost more than was set aside has been charged in `settled` all the same."""
        db.execute(
            "UPDATE slices SET outstanding = max(0, outstanding - ?) WHERE slot = ? AND scope = ? AND window = ?",
            (amount, slot, *account),
        )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._failing():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreFailed(f"the budget store {self._path.name} failed: {type(error).__name__}") from None
