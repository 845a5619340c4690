"""The audit index: a row for each attempt, refusal and event of every log, so that a search need not read the logs.

It is filled by whoever looks, from where it stands up to what is on the disk now: workers do nothing for it, and it is
never behind what it is asked for.  It can be thrown away; `spillway audit search` builds it again.  Nothing is proved
by it: a row names its log and its records, and an evidence pack proves those.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec

from compliance.lookup import EXACT, Query, Row, begin, decode, end
from compliance.merkle import leaf_hash
from compliance.segments import read_numbered, segments
from compliance.verify import read_key

VERSION = 1
"""Of the tables; an index of another version is built anew."""
CHUNK = 10_000
"""Records of one transaction."""
_TEXTS = (
    "kind", "request", "tenant", "organisation", "team", "project", "key", "actor", "subject", "surface", "model", "target", "boundary",
    "provider", "region", "contract", "purpose", "action", "rule", "rule_version", "policy", "ending", "error", "sent",
)  # fmt: skip
_NUMBERS = ("at", "attempt", "status", "input", "output", "cost", "total_us", "health", "answered")
_LISTS = ("findings", "redacted")
_FIELDS = (*_NUMBERS, *_TEXTS, *_LISTS)
_COLUMNS = ("origin", "seq", "last", "engine", *_FIELDS, "record")
_SCHEMA = f"""
CREATE TABLE rows (
    id INTEGER PRIMARY KEY, origin TEXT NOT NULL, seq INTEGER NOT NULL, last INTEGER NOT NULL, engine TEXT NOT NULL,
    {", ".join(f"{name} INTEGER NOT NULL" for name in _NUMBERS)},
    {", ".join(f"{name} TEXT NOT NULL" for name in (*_TEXTS, *_LISTS))}, record TEXT);
CREATE UNIQUE INDEX by_record ON rows (origin, seq);
CREATE INDEX by_time ON rows (at);
CREATE INDEX by_request ON rows (request) WHERE request != '';
CREATE INDEX by_subject ON rows (subject, at) WHERE subject != '';
CREATE INDEX by_actor ON rows (actor, at) WHERE actor != '';
CREATE INDEX by_event ON rows (kind, at) WHERE record IS NOT NULL;
CREATE TABLE found (type TEXT NOT NULL, row INTEGER NOT NULL, PRIMARY KEY (type, row)) WITHOUT ROWID;
CREATE TABLE positions (origin TEXT PRIMARY KEY, seq INTEGER NOT NULL, leaf BLOB NOT NULL) WITHOUT ROWID;
"""
_INSERT = f"INSERT OR IGNORE INTO rows ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
_ENDED = ("ending", "error", "status", "input", "output", "cost", "total_us", "sent")
_LARGEST = (1 << 63) - 1
_columns = attrgetter(*_NUMBERS, *_TEXTS)
_KINDS_OF_TRAFFIC = frozenset({"attempt", "refused"})

LEFT = "boundary NOT IN ('', 'local')"
"""The condition of attempts that went to a target outside `local`."""

Progress = Callable[[int], None]
"""Told after each chunk how many records were read."""


class Unreadable(Exception):
    """A line of a log is no record: it was damaged, and cannot be told of."""


class AuditIndex:
    """The tables.  Times are microseconds since the epoch, amounts pico-dollars.  Raises `sqlite3.Error`, `OSError`."""

    def __init__(self, path: Path) -> None:
        path.touch(mode=0o600)
        self._db = sqlite3.connect(path, isolation_level=None, timeout=60.0)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=OFF")  # what a power cut loses or breaks here is built again
        self._db.execute("PRAGMA cache_size=-65536")
        if self._version() != VERSION:
            self._build_anew()

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    def _build_anew(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        if self._version() != VERSION:  # another process was not first
            for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                self._db.execute(f"DROP TABLE {name}")
            for statement in filter(str.strip, _SCHEMA.split(";")):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {VERSION}")
        self._db.execute("COMMIT")

    # --- filling ------------------------------------------------------------------------------------------------

    def catch_up(self, logs: Iterable[Path], progress: Progress = lambda count: None) -> None:
        """Project what the logs hold beyond what is here; forget what retention removed."""
        for log in logs:
            origin = read_key(log / "key.pub")[0]
            self._forget_removed(log, origin)
            while not self._follow(log, origin, progress):
                pass  # another process has been here meanwhile: go on from where it came to

    def _follow(self, log: Path, origin: str, progress: Progress) -> bool:
        """From the position on; False: the position was moved by somebody else."""
        position, leaf = self._position(origin)
        lines = read_numbered(log, max(position, 0))
        if position >= 0:
            seq, line = next(lines, (-1, b""))
            if (seq == position and leaf_hash(line) != leaf) or (seq < 0 and self._shorter(log, position)):
                self._forget(origin)  # another log under the same name
                return False
            if seq > position:  # that record was removed since
                lines = itertools.chain([(seq, line)], lines)
        while chunk := list(itertools.islice(lines, CHUNK)):
            if not self._project(origin, chunk, position):
                return False
            position = chunk[-1][0]
            progress(len(chunk))
        return True

    def behind(self, logs: Iterable[Path]) -> int:
        """About how many records are not here yet."""
        count = 0
        for log in logs:
            found = segments(log)
            if found:
                newest = found[-1]
                count += max(0, newest.first - self._position(read_key(log / "key.pub")[0])[0])
        return count

    def _position(self, origin: str) -> tuple[int, bytes]:
        row = self._db.execute("SELECT seq, leaf FROM positions WHERE origin = ?", (origin,)).fetchone()
        return (-1, b"") if row is None else (row[0], row[1])

    def _shorter(self, log: Path, position: int) -> bool:
        """Does the log end before this record?  Not where it is only that its records were removed."""
        found = segments(log)
        return not found or not found[-1].removed or found[-1].last < position

    def _forget(self, origin: str) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute("DELETE FROM found WHERE row IN (SELECT id FROM rows WHERE origin = ?)", (origin,))
        self._db.execute("DELETE FROM rows WHERE origin = ?", (origin,))
        self._db.execute("DELETE FROM positions WHERE origin = ?", (origin,))
        self._db.execute("COMMIT")

    def _forget_removed(self, log: Path, origin: str) -> None:
        """What retention removed from the log is removed here, as soon as somebody looks."""
        for segment in segments(log):
            if not segment.removed:
                continue
            span = (origin, segment.first, segment.last)
            if not self._db.execute(
                "SELECT 1 FROM rows WHERE origin = ? AND seq BETWEEN ? AND ? LIMIT 1", span
            ).fetchone():
                continue
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(
                "DELETE FROM found WHERE row IN (SELECT id FROM rows WHERE origin = ? AND seq BETWEEN ? AND ?)", span
            )
            self._db.execute("DELETE FROM rows WHERE origin = ? AND seq BETWEEN ? AND ?", span)
            self._db.execute("COMMIT")

    def _project(self, origin: str, chunk: Sequence[tuple[int, bytes]], after: int) -> bool:
        """Add these records, in one transaction; a decision is joined with its outcome, wherever that is.

        False: the index is not at `after` any more, and nothing was added.
        """
        fresh: dict[tuple[str, int], Row] = {}
        made: list[tuple[Row, str | None]] = []
        late: list[dict[str, Any]] = []
        for seq, line in chunk:
            try:
                record = decode(line)
                if record["kind"] == "outcome":
                    row = fresh.pop((record["request"], record["attempt"]), None)
                    if row is None:
                        late.append(record)
                    else:
                        end(row, record)
                    continue
                row = begin(origin, record)
            except (msgspec.DecodeError, LookupError, TypeError, ValueError):
                raise Unreadable(f"record {seq} of {origin} is none") from None
            if row.kind == "attempt":
                fresh[row.request, row.attempt] = row
            made.append((row, None if row.kind in _KINDS_OF_TRAFFIC else line.decode()))
        self._db.execute("BEGIN IMMEDIATE")
        try:
            if self._position(origin)[0] != after:
                self._db.execute("ROLLBACK")
                return False
            stored = [_stored(row, record) for row, record in made]
            try:
                self._db.executemany(_INSERT, stored)
            except OverflowError:  # what was inserted before it is ignored the second time
                self._db.executemany(_INSERT, [tuple(map(_bounded, values)) for values in stored])
            kinds = [(kind, origin, row.seqs[0]) for row, _ in made if row.findings for kind in _types(row.findings)]
            self._tell_found(kinds)
            for record in late:
                self._end(origin, record)
            seq, line = chunk[-1]
            self._db.execute(
                "INSERT INTO positions VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET seq = excluded.seq, leaf = excluded.leaf",
                (origin, seq, leaf_hash(line)),
            )
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        return True

    def _tell_found(self, kinds: Iterable[tuple[str, str, int]]) -> None:
        self._db.executemany("INSERT OR IGNORE INTO found SELECT ?, id FROM rows WHERE origin = ? AND seq = ?", kinds)

    def _end(self, origin: str, record: dict[str, Any]) -> None:
        """The outcome of an attempt that was decided in an earlier chunk."""
        found = self._db.execute(
            f"SELECT id, {_SELECTED} FROM rows WHERE request = ? AND attempt = ? AND origin = ? AND kind = 'attempt'",
            (record["request"], record["attempt"], origin),
        ).fetchone()
        if found is None:
            return  # its decision was removed
        row = _row(found[1:])
        end(row, record)
        values = [_bounded(getattr(row, name)) for name in _ENDED]
        sets = ", ".join(f"{name} = ?" for name in (*_ENDED, "answered", "findings", "last"))
        self._db.execute(
            f"UPDATE rows SET {sets} WHERE id = ?",
            (*values, row.answered, _listed(row.findings), record["seq"], found[0]),
        )
        self._tell_found([(kind, origin, row.seqs[0]) for kind in _types(row.findings)])

    # --- looking ------------------------------------------------------------------------------------------------

    def count(self, query: Query, *, hide: Sequence[str] = ()) -> int:
        """How many rows are wanted; `hide`: kinds that are not."""
        where, values = _where(query, hide)
        return int(self._db.execute(f"SELECT count(*) FROM rows WHERE {where}", values).fetchone()[0])

    def search(self, query: Query, *, limit: int = 0, left: bool = False, hide: Sequence[str] = ()) -> Iterator[Row]:
        """The rows that are wanted, the oldest first; with a limit, the newest so many.

        `left`: only attempts that went to a target outside `local`.
        """
        where, values = _where(query, hide)
        if left:
            where += f" AND {LEFT}"
        found = f"SELECT {_SELECTED}, at AS t, id AS i FROM rows WHERE {where}"
        if limit:
            found = f"SELECT * FROM ({found} ORDER BY at DESC, id DESC LIMIT {int(limit)}) ORDER BY t, i"
        else:
            found += " ORDER BY at, id"
        for row in self._db.execute(found, values):
            yield _row(row[:-2])

    def events(self, kinds: Sequence[str], query: Query) -> Iterator[tuple[Row, dict[str, Any]]]:
        """(row, record) of the events of these kinds, the oldest first."""
        where, values = _where(msgspec.structs.replace(query, kind=tuple(kinds)))
        for row in self._db.execute(
            f"SELECT {_SELECTED}, record FROM rows WHERE record IS NOT NULL AND {where} ORDER BY at, id", values
        ):
            yield _row(row[:-1]), decode(row[-1])

    def sums(self, what: Sequence[str], by: Sequence[str], query: Query) -> list[tuple[Any, ...]]:
        """(values of `by`, then of the SQL expressions `what`) for each group; both are this program's own words."""
        where, values = _where(query)
        columns = ", ".join((*by, *what))
        order = ", ".join(by)
        return self._db.execute(
            f"SELECT {columns} FROM rows WHERE {where} GROUP BY {order} ORDER BY {order}", values
        ).fetchall()

    def records(self, request: str) -> list[tuple[str, int]]:
        """(origin, sequence) of what the logs hold of a request: of an attempt both its records."""
        found = self._db.execute("SELECT origin, seq, last FROM rows WHERE request = ? ORDER BY at, id", (request,))
        return [(row[0], seq) for row in found for seq in dict.fromkeys(row[1:])]

    def knows(self, field: str, value: str) -> bool:
        """Is this an actor or a subject as records name them?"""
        assert field in ("actor", "subject")
        found = self._db.execute(f"SELECT 1 FROM rows WHERE {field} = ? AND {field} != '' LIMIT 1", (value,))
        return found.fetchone() is not None

    def heard_of(self, field: str, value: str) -> bool:
        """Has a record of any time this value, as a search compares it?"""
        query = msgspec.structs.replace(Query(), **{field: (value,)})
        return next(self.search(query, limit=1), None) is not None

    def close(self) -> None:
        self._db.close()


_SELECTED = ", ".join(("origin", "seq", "last", *_FIELDS))


def _stored(row: Row, record: str | None) -> tuple[Any, ...]:
    findings, redacted = row.findings, row.redacted
    return (
        row.origin,
        row.seqs[0],
        row.seqs[-1],
        row.target.partition("/")[0],
        *_columns(row),
        _listed(findings) if findings else "",
        _listed(redacted) if redacted else "",
        record,
    )


def _row(values: Sequence[Any]) -> Row:
    origin, seq, last, *fields = values
    named = dict(zip(_FIELDS, fields, strict=True))
    for name in _LISTS:
        named[name] = tuple(named[name].split("\n")) if named[name] else ()
    named["health"] = bool(named["health"])
    return Row(origin=origin, seqs=(seq,) if seq == last else (seq, last), **named)


def _listed(values: Sequence[str]) -> str:
    """A list in a column; what is in it are words of Spillway's own, without line ends."""
    return "\n".join(values)


def _types(findings: Sequence[str]) -> Iterator[str]:
    return iter(dict.fromkeys(finding.partition(":")[0] for finding in findings))


def _bounded(value: Any) -> Any:
    """An engine may report any number of tokens; a column holds 64 bits."""
    return max(-_LARGEST, min(value, _LARGEST)) if isinstance(value, int) else value


def _where(query: Query, hide: Sequence[str] = ()) -> tuple[str, list[Any]]:
    """The condition, and its values."""
    parts = ["at >= ? AND at < ?"]
    values: list[Any] = [query.begin, min(query.end, _LARGEST)]
    for name in EXACT:
        if wanted := getattr(query, name):
            parts.append(
                f"{name} IN ({_marks(wanted)})"
                + (f" AND {name} != ''" if name in ("actor", "request", "subject") else "")
            )
            values += wanted
    if query.kind and _KINDS_OF_TRAFFIC.isdisjoint(query.kind):
        parts.append("record IS NOT NULL")  # events have an index of their own
    if query.target:
        parts.append(f"(target IN ({_marks(query.target)}) OR engine IN ({_marks(query.target)}))")
        values += [*query.target, *query.target]
    if hide:
        parts.append(f"kind NOT IN ({_marks(hide)})")
        values += hide
    if query.finding:
        parts.append(f"id IN (SELECT row FROM found WHERE type IN ({_marks(query.finding)}))")
        values += query.finding
    return " AND ".join(parts), values


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))
