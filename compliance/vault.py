"""Captures: prompts and answers, encrypted, and the keys without which nobody reads them or checks a commitment.

    keys(id, organisation, tenant, subject, wrapped)     data keys, one for each subject, else for each tenant
    records(request, attempt, key, at, sealed)           record keys, one for each attempt
    captures(request, attempt, part, size, sealed)       content
    erased(scope, value, at)                             so that what was on its way is not kept afterwards

One SQLite file for the workers of a host.  What is deleted is overwritten, and the write-ahead log cut to nothing, before
a call that erases returns: afterwards no file here holds a key that opens what was erased, not even with the master
key.  What was copied elsewhere before (a backup, a snapshot) is out of reach.  All calls block: they are for a thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct

from compliance.captures import Capture, Item, Kept, Opened, Removed
from compliance.masterkeys import MasterKey, MasterKeyFailed
from compliance.sealing import (
    KEY_BYTES,
    PARTS,
    Place,
    SealBroken,
    commitment,
    framed,
    new_key,
    open_part,
    open_record_key,
    seal_part,
    seal_record_key,
)

T = TypeVar("T")

BUSY_SECONDS = 20.0
"""How long a writer waits for its turn: an erasure may take a while, and a capture is off the path."""
CUT_SECONDS = 20.0
"""How long an erasure waits until nobody reads the write-ahead log, so that it can be cut."""
CUT_TRY_MS = 200
CACHED_KEYS = 1024
"""Data keys that a worker remembers unwrapped."""
TRIES = 4
"""Times that a batch is written again because another process changed a data key meanwhile."""
CHUNK = 500
_SCHEMA = """
CREATE TABLE IF NOT EXISTS keys (
    id TEXT PRIMARY KEY, organisation TEXT NOT NULL, tenant TEXT NOT NULL, subject TEXT NOT NULL, wrapped BLOB NOT NULL,
    UNIQUE (organisation, tenant, subject)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS records (
    request TEXT NOT NULL, attempt INTEGER NOT NULL, key TEXT NOT NULL, at INTEGER NOT NULL,
    sealed BLOB NOT NULL, PRIMARY KEY (request, attempt)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS records_key ON records (key);
CREATE INDEX IF NOT EXISTS records_at ON records (at);
CREATE TABLE IF NOT EXISTS captures (
    request TEXT NOT NULL, attempt INTEGER NOT NULL, part TEXT NOT NULL, size INTEGER NOT NULL, sealed BLOB NOT NULL,
    PRIMARY KEY (request, attempt, part));
CREATE TABLE IF NOT EXISTS erased (scope TEXT NOT NULL, value TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (scope, value));
CREATE TABLE IF NOT EXISTS turns (name TEXT PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;
"""
_ITEM = "SELECT r.request, r.attempt, r.at, k.tenant, k.subject, r.key FROM records r JOIN keys k ON k.id = r.key"
_WHERE = {"subject": "k.subject = ?", "tenant": "k.tenant = ?", "request": "r.request = ?"}


class VaultFailed(Exception):
    """The vault cannot be read or written now; the message names no content."""


class Vault:
    """The captures of one host.  Thread-safe; one call at a time."""

    def __init__(self, path: Path, master: MasterKey, *, clock: Callable[[], int] | None = None) -> None:
        self._path = path
        self._master = master
        self._clock = clock or (lambda: time.time_ns() // 1000)
        self._lock = threading.Lock()
        self._cache: OrderedDict[str, bytes] = OrderedDict()  # data keys by id
        self._destroyed = 0  # how often keys were destroyed, when the cache was last looked at
        with self._failing():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite gives its other files the same mode
            if path.stat().st_mode & 0o077:
                raise VaultFailed(f"{path} can be read by others; chmod 600 {path}")
            self._db = sqlite3.connect(path, isolation_level=None, timeout=BUSY_SECONDS, check_same_thread=False)
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", "temp_store=MEMORY"):
                self._db.execute(f"PRAGMA {pragma}")
            self._db.executescript(_SCHEMA)

    # --- writing ----------------------------------------------------------------------------------------------

    def put(self, captures: Sequence[Capture], kept_parts: Sequence[str] = PARTS) -> list[Kept]:
        """Keep these, of each the parts named, all or none; returns when they are on the disk.  Raises `VaultFailed`."""
        with self._lock, self._failing():
            for _ in range(TRIES):
                self._forget_destroyed()
                keys = {scope: self._data_key(scope) for scope in {_scope(one) for one in captures}}
                sealed = [_Sealed(one, keys[_scope(one)], kept_parts) for one in captures]
                with contextlib.suppress(_KeyChanged), self._transaction() as db:
                    return self._put(db, sealed, keys)
        raise VaultFailed("data keys were changed again and again while captures were written")

    def _put(
        self, db: sqlite3.Connection, sealed: Sequence[_Sealed], keys: Mapping[tuple[str, str, str], _DataKey]
    ) -> list[Kept]:
        last = db.execute("SELECT max(at) FROM erased").fetchone()[0]
        erased = [last is not None and one.capture.at <= last and self._was_erased(db, one.capture) for one in sealed]
        fresh = [one for one, gone in zip(sealed, erased, strict=True) if not gone]
        for scope in {_scope(one.capture) for one in fresh}:
            self._settle(db, scope, keys[scope])
        db.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?)", [one.record for one in fresh])
        db.executemany("INSERT INTO captures VALUES (?, ?, ?, ?, ?)", [row for one in fresh for row in one.parts])
        return [Kept("erased") if gone else one.kept for one, gone in zip(sealed, erased, strict=True)]

    def _was_erased(self, db: sqlite3.Connection, one: Capture) -> bool:
        """A request that came before an erasure of its scope is not kept after it."""
        row = db.execute(
            """SELECT 1 FROM erased WHERE at >= ? AND ((scope = 'request' AND value = ?) OR (scope = 'tenant' AND value = ?)
               OR (scope = 'subject' AND value = ?)) LIMIT 1""",
            (one.at, one.request, one.tenant, one.subject),
        ).fetchone()
        return row is not None

    def probe(self) -> None:
        """Write something, and ask for the master key; raises `VaultFailed`."""
        with self._lock, self._failing():
            key = new_key()
            if self._master.unwrap(self._master.wrap(key)) != key:
                raise VaultFailed("the key service did not give back what it wrapped")
            with self._transaction() as db:
                db.execute("INSERT INTO turns VALUES ('probe', 0) ON CONFLICT DO UPDATE SET at = at + 1")

    # --- data keys --------------------------------------------------------------------------------------------

    def _data_key(self, scope: tuple[str, str, str]) -> _DataKey:
        """A scope's key, a new one where there is none.  Outside of a transaction: a key service may be slow."""
        row = self._db.execute(
            "SELECT id, wrapped FROM keys WHERE organisation = ? AND tenant = ? AND subject = ?", scope
        ).fetchone()
        if row is not None:
            return _DataKey(str(row[0]), self._unwrapped(str(row[0]), scope, bytes(row[1])))
        key_id, key = os.urandom(16).hex(), new_key()
        return _DataKey(key_id, key, self._master.wrap(_binding(key_id, scope) + key))

    def _settle(self, db: sqlite3.Connection, scope: tuple[str, str, str], key: _DataKey) -> None:
        """The key is the scope's own still, or becomes it; raises `_KeyChanged`."""
        row = db.execute("SELECT id FROM keys WHERE organisation = ? AND tenant = ? AND subject = ?", scope).fetchone()
        if row is None and key.fresh:
            db.execute("INSERT INTO keys VALUES (?, ?, ?, ?, ?)", (key.id, *scope, key.fresh))
            self._cache[key.id] = key.key  # if this is rolled back, no row names it, and it is never used
        elif row is None or row[0] != key.id:
            raise _KeyChanged

    def _unwrapped(self, key_id: str, scope: tuple[str, str, str], wrapped: bytes) -> bytes:
        key = self._cache.get(key_id)
        if key is None:
            plain, binding = self._master.unwrap(wrapped), _binding(key_id, scope)
            if len(plain) != len(binding) + KEY_BYTES or not hmac.compare_digest(plain[: len(binding)], binding):
                raise SealBroken("a data key does not belong to its subject or tenant")
            key = self._cache[key_id] = plain[len(binding) :]
        self._cache.move_to_end(key_id)
        while len(self._cache) > CACHED_KEYS:
            self._cache.popitem(last=False)
        return key

    def _forget_destroyed(self) -> None:
        """Keys that another process destroyed leave this one's memory, too."""
        row = self._db.execute("SELECT at FROM turns WHERE name = 'destroyed'").fetchone()
        if row is not None and row[0] != self._destroyed:
            self._destroyed = row[0]
            self._cache.clear()

    # --- reading ----------------------------------------------------------------------------------------------

    def empty(self) -> bool:
        """Is nothing here that the master key would open?"""
        with self._lock, self._failing():
            return self._db.execute("SELECT 1 FROM keys LIMIT 1").fetchone() is None

    def older_than_newest(self, most: int) -> int | None:
        """The time of the newest record beyond the `most` newest ones: what came until then is too much.  None: nothing is."""
        with self._lock, self._failing():
            row = self._db.execute("SELECT at FROM records ORDER BY at DESC LIMIT 1 OFFSET ?", (most,)).fetchone()
        return None if row is None else int(row[0])

    def newest(self, most: int, *, begin: int = 0, end: int = (1 << 62)) -> list[str]:
        """Requests that came in [begin, end) and of which something is held, the newest first."""
        with self._lock, self._failing():
            rows = self._db.execute(
                "SELECT request FROM records WHERE at >= ? AND at < ? GROUP BY request ORDER BY max(at) DESC LIMIT ?",
                (begin, end, most),
            )
            return [str(row[0]) for row in rows]

    def items(self, scope: str, value: str) -> list[Item]:
        """What is held under a subject's pseudonym, a tenant or a request id, by name, the oldest first."""
        with self._lock, self._failing():
            return list(self._items(self._db, scope, value))

    def survey(self, scope: str, value: str, blocks: Callable[[Item], T | None]) -> tuple[int, T | None]:
        """(how many attempts are held under a scope, the first thing that `blocks` gives for one of them)."""
        count, blocked = 0, None
        with self._lock, self._failing():
            for count, item in enumerate(self._items(self._db, scope, value), start=1):  # noqa: B007  counted
                blocked = blocked or blocks(item)
        return count, blocked

    def read(self, request: str, parts: Sequence[str] = PARTS) -> list[Opened]:
        """A request's captures in the clear; none where none is kept.

        Raises `VaultFailed`, also where a byte of them was changed or stands in another's place.
        """
        with self._lock, self._failing():
            opened = []
            for item in list(self._items(self._db, "request", request)):
                place = Place(item.key, item.request, item.attempt)
                record_key = self._record_key(place)
                rows = self._db.execute(
                    "SELECT part, sealed FROM captures WHERE request = ? AND attempt = ?", (request, item.attempt)
                )
                found = {str(part): bytes(sealed) for part, sealed in rows}
                for part in [part for part in PARTS if part in parts and part in found]:
                    data = open_part(record_key, part, found[part], place)
                    opened.append(Opened(item.attempt, part, data, commitment(record_key, part, data, place)))
            return opened

    def kept(self, request: str, attempt: int) -> Kept | None:
        """What is kept of an attempt, with the commitments to it; None: nothing.  Raises `VaultFailed`."""
        item = next((one for one in self.items("request", request) if one.attempt == attempt), None)
        if item is None:
            return None
        opened = [one for one in self.read(request) if one.attempt == attempt]
        marks = {one.part: one.commitment for one in opened}
        return Kept("kept", item.key, marks, tuple(marks))

    def committed(self, item: Item, part: str, data: bytes) -> str:
        """The commitment that these bytes would have as this part of an attempt.  Raises `VaultFailed`."""
        with self._lock, self._failing():
            place = Place(item.key, item.request, item.attempt)
            return commitment(self._record_key(place), part, data, place)

    def _record_key(self, place: Place) -> bytes:
        row = self._db.execute(
            """SELECT k.organisation, k.tenant, k.subject, k.wrapped, r.sealed FROM records r JOIN keys k ON k.id = r.key
               WHERE r.request = ? AND r.attempt = ?""",
            (place.request, place.attempt),
        ).fetchone()
        if row is None:
            raise VaultFailed("the keys of this attempt are destroyed")
        self._forget_destroyed()
        data_key = self._unwrapped(place.key, (row[0], row[1], row[2]), bytes(row[3]))
        return open_record_key(data_key, bytes(row[4]), place)

    @staticmethod
    def _items(db: sqlite3.Connection, scope: str, value: str) -> Iterator[Item]:
        rows = db.execute(f"{_ITEM} WHERE {_WHERE[scope]} ORDER BY r.at, r.request, r.attempt", (value,))
        return map(_item, rows)

    # --- erasing ----------------------------------------------------------------------------------------------

    def erase(
        self, scope: str, value: str, *, blocks: Callable[[Item], object] | None = None, at: int | None = None
    ) -> Removed:
        """Destroy the keys of a subject (its pseudonym), a tenant or a request, and then the captures.

        `blocks` is asked for each item; the first thing that it gives is raised in `Held`, and nothing is erased.
        Returns when no copy is left in the files; raises `VaultFailed` where that cannot be said, and can be called
        again.  `at`: what came up to then is not kept afterwards, either; now, if not said.
        """
        with self._lock, self._failing():
            with self._transaction() as db:
                records, attempts = 0, []
                for records, item in enumerate(self._items(db, scope, value), start=1):  # noqa: B007  counted
                    if blocks is not None and (hold := blocks(item)):
                        raise Held(hold)
                    if scope == "request":
                        attempts.append((item.request, item.attempt))
                db.execute(
                    "INSERT INTO erased VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET at = max(at, excluded.at)",
                    (scope, value, self._clock() if at is None else at),
                )
                keys = captures = 0
                if scope == "request":
                    captures = self._remove(db, attempts)
                else:
                    keys = db.execute(f"DELETE FROM keys AS k WHERE {_WHERE[scope]}", (value,)).rowcount
                self._count_destroyed(db)
            self._cache.clear()
            captures += self._remove_orphans()
            self._cut()
            return Removed(keys, records, captures)

    def purge(self, before: int, blocks: Callable[[Item], object]) -> Removed:
        """Remove what came before this time, but for what is held, and data keys that nothing needs any more.

        Raises `VaultFailed`.
        """
        records = captures = held = 0
        last: tuple[int, str, int] = (-1, "", 0)
        with self._lock, self._failing():
            while True:
                with self._transaction() as db:
                    rows = db.execute(
                        f"{_ITEM} WHERE r.at < ? AND (r.at, r.request, r.attempt) > (?, ?, ?) ORDER BY r.at, r.request, r.attempt LIMIT ?",
                        (before, *last, CHUNK),
                    ).fetchall()
                    items = [_item(row) for row in rows]
                    free = [(item.request, item.attempt) for item in items if not blocks(item)]
                    captures += self._remove(db, free)
                    records += len(free)
                    held += len(items) - len(free)
                if len(items) < CHUNK:
                    break
                last = (items[-1].at, items[-1].request, items[-1].attempt)
            with self._transaction() as db:
                keys = db.execute("DELETE FROM keys WHERE id NOT IN (SELECT key FROM records)").rowcount
                if keys:
                    self._count_destroyed(db)
            if records or keys:
                self._cut()
        return Removed(keys, records, captures, held)

    def turn(self, name: str, every: int, now: int) -> bool:
        """Is it time again, and this process's turn?  `every` and `now` in microseconds."""
        with self._lock, self._failing(), self._transaction() as db:
            row = db.execute("SELECT at FROM turns WHERE name = ?", (name,)).fetchone()
            if row is not None and row[0] <= now < row[0] + every:
                return False
            db.execute("INSERT INTO turns VALUES (?, ?) ON CONFLICT DO UPDATE SET at = excluded.at", (name, now))
        return True

    @staticmethod
    def _remove(db: sqlite3.Connection, attempts: Sequence[tuple[str, int]]) -> int:
        """These attempts' keys and captures; how many captures there were."""
        db.executemany("DELETE FROM records WHERE request = ? AND attempt = ?", attempts)
        return sum(
            [db.execute("DELETE FROM captures WHERE request = ? AND attempt = ?", one).rowcount for one in attempts]
        )

    def _remove_orphans(self) -> int:
        """What lies under keys that are destroyed, a bounded number at a time, so that workers can write between them."""
        captures = 0
        while True:
            with self._transaction() as db:
                rows = db.execute(
                    "SELECT request, attempt FROM records WHERE key NOT IN (SELECT id FROM keys) LIMIT ?", (CHUNK,)
                ).fetchall()
                captures += self._remove(db, rows)
            if len(rows) < CHUNK:
                return captures

    @staticmethod
    def _count_destroyed(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO turns VALUES ('destroyed', 1) ON CONFLICT DO UPDATE SET at = at + 1")

    def _cut(self) -> None:
        """Leave nothing in the write-ahead log: it holds pages as they were.

        Each try is short: while it waits for readers, nobody can write.
        """
        until = time.monotonic() + CUT_SECONDS
        self._db.execute(f"PRAGMA busy_timeout = {CUT_TRY_MS}")
        try:
            while self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                if time.monotonic() > until:
                    raise VaultFailed(
                        "it is deleted, but the write-ahead log is in use and may hold a copy; do it again"
                    )
                time.sleep(0.02)
        finally:
            self._db.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")

    def close(self) -> None:
        with self._lock:
            self._cache.clear()
            self._db.close()

    # --- one transaction --------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # a full disk may have rolled back by itself
                self._db.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, OverflowError) as error:
            name = getattr(error, "sqlite_errorname", None) or getattr(error, "strerror", None)
            raise VaultFailed(f"the vault's file failed: {type(error).__name__} ({name})") from None
        except (MasterKeyFailed, SealBroken) as error:
            raise VaultFailed(str(error)) from None


class StillRemoving(Exception):
    """Something else holds the lock under which holds are placed and things removed: try again."""


class Held(Exception):
    """Something is under a hold: nothing was erased."""

    def __init__(self, hold: object) -> None:
        super().__init__("a hold stands")
        self.hold = hold


class _KeyChanged(Exception):
    """Another process made or destroyed a data key meanwhile."""


class _DataKey(Struct, frozen=True):
    id: str
    key: bytes
    fresh: bytes = b""  # wrapped, where it is not in the file yet

    def __repr__(self) -> str:
        return f"_DataKey({self.id!r})"


class _Sealed:
    """A capture as its rows, sealed before the file is locked."""

    __slots__ = ("capture", "kept", "parts", "record")

    def __init__(self, one: Capture, key: _DataKey, kept_parts: Sequence[str]) -> None:
        self.capture = one
        place, record_key = Place(key.id, one.request, one.attempt), new_key()
        sealed_key = seal_record_key(key.key, record_key, place)
        self.record = one.request, one.attempt, key.id, one.at, sealed_key
        self.parts = [
            (one.request, one.attempt, part, len(data), seal_part(record_key, part, data, place))
            for part, data in one.parts.items()
            if part in kept_parts
        ]
        marks = {part: commitment(record_key, part, one.parts[part], place) for part in PARTS}
        self.kept = Kept("kept", key.id, marks, tuple([part for part in PARTS if part in kept_parts]))


def _item(row: tuple[Any, ...]) -> Item:
    return Item(*row)


def _scope(one: Capture) -> tuple[str, str, str]:
    return one.organisation, one.tenant, one.subject


def _binding(key_id: str, scope: tuple[str, str, str]) -> bytes:
    """Whose key it is, wrapped with the key itself: one row cannot stand in another's place."""
    return hashlib.sha256(framed(key_id, *scope)).digest()
