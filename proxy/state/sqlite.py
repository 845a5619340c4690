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
from proxy.state.transactions import immediate

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
_USAGE = """
SELECT coalesce((SELECT settled FROM accounts WHERE scope = ? AND window = ?), 0),
       coalesce((SELECT sum(outstanding) FROM slices WHERE scope = ? AND window = ?), 0)
"""


class StoreFailed(Exception):
    """The store cannot be used now: no cloud money is granted."""


class SQLiteBudgets:
    """See `policies.budgets.BudgetStore`.  Amounts are pico-dollars: a 64-bit integer holds nine million dollars.

    One thread at a time may use an object: its connection has one transaction.
    """

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
            settled, held = db.execute(_USAGE, (*account, *account)).fetchone()
            granted = min(want, limit - int(settled) - int(held))
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

    def account(self, slot: str, upto: int, spent: Mapping[Account, int]) -> dict[Account, int]:
        unpaid: dict[Account, int] = {}
        with self._transaction() as db:
            for account, amount in spent.items():
                db.execute(
                    "INSERT INTO accounts VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET settled = settled + excluded.settled",
                    (*account, amount),
                )
                if missing := self._reduce(db, slot, account, amount):
                    unpaid[account] = missing
            db.execute(
                "INSERT INTO slots VALUES (?, ?) ON CONFLICT DO UPDATE SET accounted = excluded.accounted", (slot, upto)
            )
        return unpaid

    def accounted(self, slot: str) -> int:
        with self._failing():
            row = self._db.execute("SELECT accounted FROM slots WHERE slot = ?", (slot,)).fetchone()
        return -1 if row is None else int(row[0])

    def release(self, slot: str) -> None:
        with self._transaction() as db:
            db.execute("DELETE FROM slices WHERE slot = ?", (slot,))

    def usage(self, account: Account) -> tuple[int, int]:
        with self._failing():  # one statement, so that nothing is settled between the two figures
            row = self._db.execute(_USAGE, (*account, *account)).fetchone()
        return int(row[0]), int(row[1])

    def close(self) -> None:
        self._db.close()

    def _reduce(self, db: sqlite3.Connection, slot: str, account: Account, amount: int) -> int:
        """What the slice could not pay.  Never below zero: an attempt that cost more than was set aside has been
        charged in `settled` all the same."""
        where = "WHERE slot = ? AND scope = ? AND window = ?"
        row = db.execute(f"SELECT outstanding FROM slices {where}", (slot, *account)).fetchone()
        outstanding = int(row[0]) if row else 0
        left = max(0, outstanding - amount)
        db.execute(f"UPDATE slices SET outstanding = ? {where}", (left, slot, *account))
        return max(0, amount - outstanding)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._failing(), immediate(self._db) as db:
            yield db

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OverflowError) as error:  # overflow: an amount of more than 64 bits
            raise StoreFailed(f"the budget store {self._path.name} failed: {type(error).__name__}") from None
