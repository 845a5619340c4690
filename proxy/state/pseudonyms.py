"""The way back from pseudonyms to what they stand for: one encrypted map for each scope, in SQLite.

    scopes(scope, used, version)            when a scope was last used; its version grows with what is added, from a random
                                            start: a map that was erased is never taken for its successor
    entries(scope, pseudonym, at, sealed)   one value: AES-256-GCM over its kind and text, bound to scope and pseudonym
    owners(scope, tenant, subject, ...)     whose data a scope's requests were, as records name them: for erasure
    forgotten(scope, at)                    erased, so that what was on its way brings no value back

The keys of a scope, one for MACs and one for sealing, are derived from the key file, so that what is on the disk says
nothing without it.  Scopes that were not used for the time of `keep` are deleted (and overwritten), and count as empty
from that moment on.  All calls block: they are for a thread.  Several workers share one file; a map is read again
where another one has added to it.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct

from compliance.pseudonyms import Known, Scope, normalised
from proxy.state.transactions import immediate

BUSY_SECONDS = 5.0
CUT_SECONDS = 20.0
"""How long an erasure waits until nobody reads the write-ahead log, so that it can be cut."""
CACHED_VALUES = 50_000
"""Values of all scopes that are kept in memory; the scopes that were used last.  Of one scope, all or none."""
TOUCH = 3600.0
"""Seconds after which the use of a scope is written down again; `keep` is never shorter for it."""
PURGED = 200
"""Scopes that are deleted at a time."""
_KEY_BYTES = 32
_NONCE_BYTES = 12
_SCHEMA = """
CREATE TABLE IF NOT EXISTS scopes (
    scope TEXT PRIMARY KEY, used INTEGER NOT NULL, version INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS scopes_used ON scopes (used);
CREATE TABLE IF NOT EXISTS entries (
    scope TEXT NOT NULL, pseudonym TEXT NOT NULL, at INTEGER NOT NULL, sealed BLOB NOT NULL,
    PRIMARY KEY (scope, pseudonym)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS owners (
    scope TEXT NOT NULL, tenant TEXT NOT NULL, subject TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    PRIMARY KEY (scope, tenant, subject)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS forgotten (scope TEXT PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;
"""


class PseudonymsFailed(Exception):
    """The map cannot be read or written now: nothing is redacted, so what would have been stays local."""


class Owner(Struct, frozen=True):
    """Whose data a scope holds, as the log's records name them."""

    tenant: str = ""
    subject: str = ""  # a pseudonym


class Map(Struct, frozen=True):
    """One scope's map and an owner of it; `first` and `last` use by that owner, in seconds since the epoch."""

    scope: str
    tenant: str
    subject: str
    first: int
    last: int


class PseudonymTaken(Exception):
    """Another worker gave a pseudonym to another value in the meantime: open the scope again, and redact again."""


def load_or_create_key(path: Path) -> bytes:
    """The key of the file (32 bytes in base64), made where there is none; only its owner may read it."""
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            part = path.with_name(f"{path.name}.{os.getpid()}")
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(base64.b64encode(os.urandom(_KEY_BYTES)) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(part, path)  # the first of several workers wins
            except FileExistsError:
                pass
            finally:
                part.unlink()
        if path.stat().st_mode & 0o077:
            raise PseudonymsFailed(f"{path} can be read by others; chmod 600 {path}")
        key = base64.b64decode(path.read_bytes(), validate=False)
    except (OSError, ValueError) as error:
        raise PseudonymsFailed(f"the key of pseudonyms cannot be read: {type(error).__name__}") from None
    if len(key) != _KEY_BYTES:
        raise PseudonymsFailed(f"{path} does not hold a key of {_KEY_BYTES} bytes")
    return key


class PseudonymStore:
    """The maps of one host.  Thread-safe; one call at a time."""

    def __init__(
        self, path: Path, key: bytes, *, keep: float, values: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._path = path
        self._key = key
        self._keep = keep
        self._values = values
        self._clock = clock
        self._lock = threading.Lock()
        self._cache: OrderedDict[str, tuple[int, tuple[Known, ...]]] = OrderedDict()
        self._cached = 0
        self._purged = 0.0
        with self._failing():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite gives its other files the same mode
            self._db = sqlite3.connect(path, isolation_level=None, timeout=BUSY_SECONDS, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA secure_delete=ON")
            self._db.executescript(_SCHEMA)

    def identity(self, *parts: str) -> str:
        """The name of a scope, from what belongs to it (who calls, and which conversation): says nothing of either."""
        message = b"".join(len(data := part.encode("utf-8", "replace")).to_bytes(8, "big") + data for part in parts)
        return hmac.new(self._key, b"scope\0" + message, hashlib.sha256).hexdigest()[:32]

    def open(self, identity: str) -> Scope:
        """A scope with what is known of it; raises `PseudonymsFailed`."""
        with self._lock, self._failing():
            self._purge()
            known = self._of(identity)
        return Scope(identity, self._derived(b"mac", identity), known, limit=self._values)

    def known(self, identity: str) -> tuple[Known, ...]:
        """What is known of a scope; the same object while nothing is added.  Raises `PseudonymsFailed`."""
        with self._lock, self._failing():
            return self._of(identity)

    def keep(self, scope: Scope, owner: Owner | None = None) -> None:
        """Write down what an exchange added, and whose it was; returns when it is on the disk.

        Raises `PseudonymsFailed`, `PseudonymTaken`.
        """
        identity, added, now = scope.identity, scope.added, self._clock()
        with self._lock, self._failing():
            if not added:
                row = self._db.execute("SELECT used FROM scopes WHERE scope = ?", (identity,)).fetchone()
                fresh = row is None or row[0] > now - min(TOUCH, self._keep / 4)
                if fresh and (row is None or owner is None or self._owned(identity, owner, now)):
                    return
            with immediate(self._db) as db:
                self._expire(db, identity, now)
                if scope.known and self._was_forgotten(db, identity, scope.known[0].pseudonym):
                    raise PseudonymTaken  # while the exchange went on: it begins again, without what was erased
                if owner is not None:
                    db.execute(
                        "INSERT INTO owners VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET last = excluded.last",
                        (identity, owner.tenant, owner.subject, int(now), int(now)),
                    )
                db.execute(
                    "INSERT INTO scopes VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET used = excluded.used, version = version + ?",
                    (identity, int(now), int.from_bytes(os.urandom(6), "big"), 1 if added else 0),
                )
                count = db.execute("SELECT count(*) FROM entries WHERE scope = ?", (identity,)).fetchone()[0]
                if count + len(added) > self._values:
                    raise PseudonymsFailed("the scope has more values than it may have")
                for at, one in enumerate(scope.known if count == 0 else (), -len(scope.known)):
                    self._insert(db, identity, one, at)  # it expired while the exchange went on: it goes on, too
                for at, one in enumerate(added, count):
                    self._insert(db, identity, one, at)

    @staticmethod
    def _was_forgotten(db: sqlite3.Connection, identity: str, pseudonym: str) -> bool:
        """Was the scope erased since somebody knew of this value in it?"""
        row = db.execute(
            """SELECT 1 FROM forgotten WHERE scope = ? AND NOT EXISTS
               (SELECT 1 FROM entries WHERE entries.scope = forgotten.scope AND pseudonym = ?)""",
            (identity, pseudonym),
        ).fetchone()
        return row is not None

    def _owned(self, identity: str, owner: Owner, now: float) -> bool:
        """Is it known already that the scope is this owner's, up to about now?"""
        row = self._db.execute(
            "SELECT last FROM owners WHERE scope = ? AND tenant = ? AND subject = ?",
            (identity, owner.tenant, owner.subject),
        ).fetchone()
        return row is not None and row[0] > now - min(TOUCH, self._keep / 4)

    # --- erasure ------------------------------------------------------------------------------------------

    def maps(self, *, tenant: str = "", subject: str = "") -> list[Map]:
        """The maps that hold a subject's data, or a tenant's: a row for each owner.  Raises `PseudonymsFailed`."""
        with self._lock, self._failing():
            rows = self._db.execute(
                """SELECT scope, tenant, subject, first, last FROM owners WHERE scope IN
                   (SELECT scope FROM owners WHERE (? != '' AND tenant = ?) OR (? != '' AND subject = ?)) ORDER BY scope""",
                (tenant, tenant, subject, subject),
            ).fetchall()
            return [Map(*row) for row in rows]

    def forget(self, scopes: Iterable[str]) -> int:
        """Erase these scopes' maps; how many there were.  Returns when no copy is left in the file or beside it.

        Raises `PseudonymsFailed`, also where that cannot be said.
        """
        forgotten = 0
        with self._lock, self._failing():
            now = int(self._clock())
            for identity in scopes:
                with immediate(self._db) as db:
                    forgotten += db.execute("DELETE FROM scopes WHERE scope = ?", (identity,)).rowcount
                    db.execute("DELETE FROM entries WHERE scope = ?", (identity,))
                    db.execute("DELETE FROM owners WHERE scope = ?", (identity,))
                    db.execute("INSERT OR REPLACE INTO forgotten VALUES (?, ?)", (identity, now))
                self._forget(identity)
            until = time.monotonic() + CUT_SECONDS
            while self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                if time.monotonic() > until:
                    raise PseudonymsFailed(
                        "the maps are deleted, but the write-ahead log is in use and may hold a copy"
                    )
                time.sleep(0.02)
        return forgotten

    def close(self) -> None:
        with self._lock:
            self._db.close()

    # --- one scope ----------------------------------------------------------------------------------------

    def _of(self, identity: str) -> tuple[Known, ...]:
        row = self._db.execute("SELECT used, version FROM scopes WHERE scope = ?", (identity,)).fetchone()
        if row is None or row[0] <= self._clock() - self._keep:
            return ()
        return self._known(identity, int(row[1]))

    def _known(self, identity: str, version: int) -> tuple[Known, ...]:
        cached = self._cache.get(identity)
        if cached is not None and cached[0] == version:
            self._cache.move_to_end(identity)
            return cached[1]
        rows = self._db.execute(
            "SELECT pseudonym, sealed FROM entries WHERE scope = ? ORDER BY at, pseudonym", (identity,)
        ).fetchall()
        cipher = AESGCM(self._derived(b"seal", identity))
        known = tuple([self._unsealed(cipher, identity, str(row[0]), bytes(row[1])) for row in rows])
        self._remember(identity, version, known)
        return known

    def _remember(self, identity: str, version: int, known: tuple[Known, ...]) -> None:
        self._forget(identity)
        if len(known) > CACHED_VALUES:
            return
        self._cache[identity] = version, known
        self._cached += len(known) + 1  # an empty scope takes room as well
        while self._cached > CACHED_VALUES:
            self._forget(next(iter(self._cache)))

    def _forget(self, identity: str) -> None:
        cached = self._cache.pop(identity, None)
        if cached is not None:
            self._cached -= len(cached[1]) + 1

    def _insert(self, db: sqlite3.Connection, identity: str, one: Known, at: int) -> None:
        cipher = AESGCM(self._derived(b"seal", identity))
        row = db.execute(
            "SELECT sealed FROM entries WHERE scope = ? AND pseudonym = ?", (identity, one.pseudonym)
        ).fetchone()
        if row is not None:
            other = self._unsealed(cipher, identity, one.pseudonym, bytes(row[0]))
            if other.kind == one.kind and normalised(other.kind, other.value) == normalised(one.kind, one.value):
                return
            raise PseudonymTaken
        nonce = os.urandom(_NONCE_BYTES)
        plain = one.kind.encode() + b"\0" + one.value.encode("utf-8", "surrogatepass")
        sealed = nonce + cipher.encrypt(nonce, plain, _bound_to(identity, one.pseudonym))
        db.execute("INSERT INTO entries VALUES (?, ?, ?, ?)", (identity, one.pseudonym, at, sealed))

    def _unsealed(self, cipher: AESGCM, identity: str, pseudonym: str, sealed: bytes) -> Known:
        plain = cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _bound_to(identity, pseudonym))
        kind, _, value = plain.partition(b"\0")
        return Known(pseudonym, kind.decode(), value.decode("utf-8", "surrogatepass"))

    def _derived(self, use: bytes, identity: str) -> bytes:
        """A key of one scope for one use (NIST SP 800-108, one block of HMAC-SHA256)."""
        return hmac.new(self._key, use + b"\0" + identity.encode(), hashlib.sha256).digest()

    # --- expiry -------------------------------------------------------------------------------------------

    def _expire(self, db: sqlite3.Connection, identity: str, now: float) -> None:
        row = db.execute("SELECT used FROM scopes WHERE scope = ?", (identity,)).fetchone()
        if row is not None and row[0] <= now - self._keep:
            db.execute("DELETE FROM entries WHERE scope = ?", (identity,))
            db.execute("DELETE FROM scopes WHERE scope = ?", (identity,))
            db.execute("DELETE FROM owners WHERE scope = ?", (identity,))
            self._forget(identity)

    def _purge(self) -> None:
        """Delete what has expired, once in a while, a bounded number at a time."""
        now = self._clock()
        if abs(now - self._purged) < min(TOUCH, self._keep / 4):
            return
        expired = self._db.execute(
            "SELECT scope FROM scopes WHERE used <= ? LIMIT ?", (int(now - self._keep), PURGED)
        ).fetchall()
        if len(expired) < PURGED:
            self._purged = now
        if expired:
            with immediate(self._db) as db:
                db.execute("DELETE FROM forgotten WHERE at <= ?", (int(now - self._keep),))
                for (identity,) in expired:
                    self._expire(db, identity, now)

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, OverflowError) as error:
            raise PseudonymsFailed(f"the map of pseudonyms failed: {type(error).__name__}") from None
        except (InvalidTag, ValueError):
            raise PseudonymsFailed("the map of pseudonyms was not written with this key, or is damaged") from None


def _bound_to(identity: str, pseudonym: str) -> bytes:
    return identity.encode() + b"\0" + pseudonym.encode()
