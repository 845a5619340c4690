"""The lines of the ledger: their columns, how a decision and its outcome become one, and how older tables get them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from msgspec import Struct

from compliance.model import LOCAL
from compliance.records import Decision, Outcome

LARGEST = (1 << 63) - 1  # what a column can hold
_TEXT, _COUNT = "TEXT NOT NULL DEFAULT ''", "INTEGER NOT NULL DEFAULT 0"
_TEXTS = (
    "origin", "request", "organisation", "tenant", "team", "project", "key", "user", "tags", "class", "model", "target",
    "boundary", "surface", "route", "overflow", "action", "ending", "error", "quality", "price", "timing",
)  # fmt: skip
_NAMES = (
    "at", "origin", "seq", "request", "attempt",
    "organisation", "tenant", "team", "project", "key", "user", "tags",
    "class", "model", "target", "boundary", "surface", "stream", "route",
    "overflow", "action", "found", "redacted", "ending", "error", "status",
    "quality", "input", "cache_read", "cache_write_5m", "cache_write_1h",
    "output", "reasoning", "audio_input", "audio_output", "cost", "price", "queue_us", "connect_us",
    "first_us", "total_us", "engine_us", "prefill_us", "decode_us", "timing",
)  # fmt: skip
COLUMNS = {name: _TEXT if name in _TEXTS else _COUNT for name in _NAMES}
"""One line per attempt.  `user` is a pseudonym; `tags` are `name=value`, a line each; `overflow` says why a request left
home, `failed` where a local engine had failed before; `found` is how many kinds of identifiers were found, `redacted` how
many kinds were replaced.  `engine_us` is from the request's way to the engine to the answer's end; `prefill_us` and
`decode_us` are its parts, known as `timing` says: by the `engine`, or by the `stream`'s first event; else both are 0."""
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS attempts (
    {", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())},
    PRIMARY KEY (at, origin, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS decided (
    origin TEXT NOT NULL, request TEXT NOT NULL, attempt INTEGER NOT NULL, {{facts}},
    PRIMARY KEY (origin, request, attempt)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS requests (
    request TEXT NOT NULL, origin TEXT NOT NULL, seq INTEGER NOT NULL, kind TEXT NOT NULL, outcome INTEGER,
    PRIMARY KEY (request, origin, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS refusals (
    at INTEGER NOT NULL, origin TEXT NOT NULL, seq INTEGER NOT NULL, request TEXT NOT NULL, code TEXT NOT NULL,
    action TEXT NOT NULL, PRIMARY KEY (at, origin, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS corrections (
    at INTEGER NOT NULL, origin TEXT NOT NULL, seq INTEGER NOT NULL, vendor TEXT NOT NULL, model TEXT NOT NULL,
    start INTEGER NOT NULL, until INTEGER NOT NULL, amount INTEGER NOT NULL, cause TEXT NOT NULL,
    PRIMARY KEY (origin, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS positions (origin TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
"""


class Facts(Struct, frozen=True):
    """What a line has from its decision.  An outcome without one (of a log that began later) has none of it."""

    user: str = ""
    tags: str = ""
    request_class: str = ""
    surface: str = ""
    stream: int = 0
    route: str = ""
    overflow: str = ""
    action: str = ""
    found: int = 0
    redacted: int = 0


FACTS = Facts.__struct_fields__
_facts = attrgetter(*FACTS)
NOTHING = Facts()
INSERT = f"INSERT OR IGNORE INTO attempts ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
KEEP = f"INSERT OR REPLACE INTO decided VALUES ({', '.join('?' * (3 + len(FACTS)))})"
TAKE = f"SELECT {', '.join(FACTS)} FROM decided WHERE origin = ? AND request = ? AND attempt = ?"


def facts_of(decision: Decision) -> Facts:
    """What a decision says of its line.  Of findings their number, of what is local no overflow."""
    findings = decision.findings
    return Facts(  # by place: one is made for every attempt
        decision.actor,
        "\n".join(decision.tags),
        decision.request_class,
        decision.surface,
        1 if decision.stream else 0,
        decision.routing,
        decision.overflow if decision.boundary != LOCAL else "",
        decision.action,
        len({finding.partition(":")[0] for finding in findings}) if findings else 0,
        len(decision.redacted),
    )


def kept(origin: str, decision: Decision) -> tuple[Any, ...]:
    """A row of decisions whose outcome has not come yet."""
    return (origin, decision.request, decision.attempt, *_facts(facts_of(decision)))


def line(origin: str, end: Outcome, facts: Facts, overflow: str) -> tuple[Any, ...]:
    """The line of an attempt, in the order of `COLUMNS`."""
    engine = max(0, end.total_us - end.connect_us) if end.connect_us > 0 else 0  # 0: never sent, or not known
    prefill, decode, timing = _parts(end, facts, engine)
    return (
        end.at, origin, end.seq, end.request, end.attempt,
        end.organisation, end.tenant, end.team, end.project, end.key, facts.user, facts.tags,
        facts.request_class, end.model, end.target, end.boundary, facts.surface, facts.stream, facts.route,
        overflow, facts.action, facts.found, facts.redacted, end.ending, end.error, end.status,
        end.quality, end.input, end.cache_read, end.cache_write_5m, end.cache_write_1h,
        end.output, end.reasoning, end.audio_input, end.audio_output, end.cost, end.price, end.queue_us, end.connect_us,
        end.first_us, end.total_us, engine, prefill, decode, timing,
    )  # fmt: skip


def _parts(end: Outcome, facts: Facts, engine: int) -> tuple[int, int, str]:
    """How long the engine read and wrote, and how that is known.  No part is longer than the whole."""
    if engine and (end.prefill_us or end.decode_us):
        prefill = min(max(end.prefill_us, 0), engine)
        return prefill, min(max(end.decode_us, 0), engine - prefill), "engine"
    if engine and facts.stream and end.connect_us < end.first_us <= end.total_us:
        return end.first_us - end.connect_us, end.total_us - end.first_us, "stream"
    return 0, 0, ""


def storable(row: Sequence[Any]) -> tuple[Any, ...]:
    """An engine may report any number of tokens; a column holds 64 bits."""
    return tuple([max(-LARGEST, min(value, LARGEST)) if isinstance(value, int) else value for value in row])


def prepare(db: sqlite3.Connection) -> None:
    """The tables, made; of an earlier version, with its lines in the new form.  One of several processes does it."""
    if _current(db):
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        if not _current(db):
            there = _columns(db)
            if there:
                db.execute("ALTER TABLE attempts RENAME TO attempts_before")
            facts = ", ".join(f"{name} {_COUNT if isinstance(value, int) else _TEXT}" for name, value in _defaults())
            db.execute("DROP TABLE IF EXISTS decided")  # at most what was under way then lacks what its decision said
            for statement in _SCHEMA.format(facts=facts).split(";"):
                db.execute(statement)
            if "outcome" not in _columns(db, "requests"):
                db.execute("ALTER TABLE requests ADD COLUMN outcome INTEGER")
            if there:
                both = ", ".join(name for name in there if name in COLUMNS)
                db.execute(f"INSERT INTO attempts ({both}) SELECT {both} FROM attempts_before")
                db.execute("DROP TABLE attempts_before")
        db.execute("COMMIT")
    except sqlite3.Error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _current(db: sqlite3.Connection) -> bool:
    tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not {"decided", "requests", "refusals", "corrections", "positions"} <= tables:
        return False
    if "outcome" not in _columns(db, "requests"):
        return False
    return _columns(db) == list(COLUMNS) and _columns(db, "decided")[3:] == list(FACTS)


def _columns(db: sqlite3.Connection, table: str = "attempts") -> list[str]:
    return [row[1] for row in db.execute(f"PRAGMA table_info({table})")]


def _defaults() -> list[tuple[str, Any]]:
    return [(name, getattr(NOTHING, name)) for name in FACTS]
