"""Virtual keys in SQLite: made and revoked by `spillway keys`, read by every worker.

Workers look once a second whether the file changed; a revoked key stops within about that time.
"""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path

import msgspec
from msgspec import Struct

from proxy.auth import PREFIX, Principal, digest, new_token

_SCHEMA = """
CREATE TABLE IF NOT EXISTS keys (
    id TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, name TEXT NOT NULL, organisation TEXT NOT NULL, team TEXT NOT NULL,
    project TEXT NOT NULL, tenant TEXT, models TEXT, boundaries TEXT, created INTEGER NOT NULL, expires INTEGER, revoked INTEGER)
"""


LONGEST_NAME = 200


class KeyRow(Struct, frozen=True, array_like=True):
    """One key as listed: all but the key itself.  Times are seconds since the epoch."""

    id: str
    name: str
    organisation: str
    team: str
    project: str
    tenant: str | None
    models: list[str] | None
    boundaries: list[str] | None
    created: int
    expires: int | None
    revoked: int | None


class NoSuchKey(LookupError):
    """No key has this id or name."""


class KeyStore:
    """The keys of one state directory."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)  # SQLite gives the files beside it the same mode
        self._db = sqlite3.connect(path, isolation_level=None, timeout=5.0, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute(_SCHEMA)
        self._seen = -1

    def create(
        self,
        name: str,
        *,
        organisation: str = "default",
        team: str = "",
        project: str = "",
        tenant: str | None = None,
        models: list[str] | None = None,
        boundaries: list[str] | None = None,
        expires: int | None = None,
    ) -> tuple[str, KeyRow]:
        """(the key, shown this once; its row).  `expires` is in seconds since the epoch.  Raises `ValueError` for a name
        that could not be listed."""
        if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
            raise ValueError(f"a key's name is printable text, up to {LONGEST_NAME} characters")
        token = new_token()
        key_id = f"key_{digest(token)[:12]}"
        created = int(time.time())
        self._db.execute(
            "INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
            (
                key_id,
                digest(token),
                name,
                organisation,
                team,
                project,
                tenant,
                _json(models),
                _json(boundaries),
                created,
                expires,
            ),
        )
        return token, KeyRow(
            key_id, name, organisation, team, project, tenant, models, boundaries, created, expires, None
        )

    def revoke(self, wanted: str) -> list[str]:
        """Revoke by id or by name; the ids.  Raises `NoSuchKey`."""
        now = int(time.time())
        rows = self._db.execute(
            "UPDATE keys SET revoked = ? WHERE (id = ? OR name = ?) AND revoked IS NULL RETURNING id",
            (now, wanted, wanted),
        ).fetchall()
        if not rows:
            if wanted.startswith(PREFIX):
                raise NoSuchKey("give the key's id or name, not the key")
            raise NoSuchKey(f"no key in force has the id or name {wanted!r}")
        return [row[0] for row in rows]

    def list(self) -> list[KeyRow]:
        """All keys, revoked ones included, the newest first."""
        columns = "id, name, organisation, team, project, tenant, models, boundaries, created, expires, revoked"
        rows = self._db.execute(f"SELECT {columns} FROM keys ORDER BY created DESC, id").fetchall()
        return [msgspec.convert((*row[:6], _list(row[6]), _list(row[7]), *row[8:]), KeyRow) for row in rows]

    def snapshot(self) -> dict[str, Principal]:
        """The keys in force: hash -> principal.  A revoked one stays as expired, so that revoking all opens nothing."""
        rows = self._db.execute(
            "SELECT hash, id, name, organisation, team, project, tenant, models, boundaries, expires, revoked FROM keys"
        )
        return {
            row[0]: Principal(
                key=row[1], name=row[2], organisation=row[3], team=row[4], project=row[5], tenant=row[6],
                models=_set(row[7]), boundaries=_set(row[8]),
                expires=0 if row[10] is not None else row[9] * 1_000_000 if row[9] is not None else None,
            )
            for row in rows
        }  # fmt: skip

    def changed(self) -> bool:
        """Has another process changed the file since the last look?"""
        version = self._db.execute("PRAGMA data_version").fetchone()[0]
        changed = version != self._seen
        self._seen = version
        return bool(changed)

    def close(self) -> None:
        self._db.close()


def _json(value: list[str] | None) -> str | None:
    return None if value is None else json.dumps(value)


def _list(text: str | None) -> list[str] | None:
    return None if text is None else list(json.loads(text))


def _set(text: str | None) -> frozenset[str] | None:
    return None if text is None else frozenset(json.loads(text))
