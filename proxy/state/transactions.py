"""One transaction of SQLite, for every store here: it takes the write lock at once, and ends whatever happens in it."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator


@contextlib.contextmanager
def immediate(db: sqlite3.Connection, patience: float = 0.0) -> Iterator[sqlite3.Connection]:
    """Commits at the end, rolls back where anything is raised.  Raises what SQLite raises.

    `patience`: for so many seconds the lock is asked for again where SQLite's own waiting (its busy timeout) ends.
    """
    until = time.monotonic() + patience
    while True:
        try:
            db.execute("BEGIN IMMEDIATE")
            break
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                raise
    try:
        yield db
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # a full disk may have rolled back by itself
            db.execute("ROLLBACK")
        raise
