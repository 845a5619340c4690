"""One transaction of SQLite, for every store here: it takes the write lock at once, and ends whatever happens in it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator


@contextlib.contextmanager
def immediate(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Commits at the end, rolls back where anything is raised.  Raises what SQLite raises."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # a full disk may have rolled back by itself
            db.execute("ROLLBACK")
        raise
