"""Look into a log: one row for each attempt, refusal or event of a period, chosen by names.  Never content.

An attempt's row joins its decision's record with its outcome's; its time is the decision's.  Records are read as
they are stored, so that kinds which a later version writes are rows as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from compliance.journal import read_lines, segment_starts

LATEST = (1 << 62) - 1
EXACT = ("tenant", "project", "key", "actor", "subject", "action", "rule", "request", "ending", "kind")


class Query(Struct, frozen=True, kw_only=True):
    """What is looked for: begin <= time < end (microseconds since the epoch), and for each field any of its values.

    `target` also takes an engine's name for all of its models, `finding` a type found in the request or the answer.
    `kind` is attempt, or a record's kind.
    """

    begin: int = 0
    end: int = LATEST
    tenant: tuple[str, ...] = ()
    project: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    actor: tuple[str, ...] = ()
    subject: tuple[str, ...] = ()
    action: tuple[str, ...] = ()
    rule: tuple[str, ...] = ()
    finding: tuple[str, ...] = ()
    target: tuple[str, ...] = ()
    request: tuple[str, ...] = ()
    ending: tuple[str, ...] = ()
    kind: tuple[str, ...] = ()

    def chosen(self) -> dict[str, tuple[str, ...]]:
        """The fields that choose, besides the time."""
        return {name: getattr(self, name) for name in (*EXACT, "finding", "target") if getattr(self, name)}

    def matches(self, row: Row) -> bool:
        """Is this row wanted, whatever its time?"""
        if any((wanted := getattr(self, name)) and getattr(row, name) not in wanted for name in EXACT):
            return False
        if self.target and row.target not in self.target and row.target.partition("/")[0] not in self.target:
            return False
        return not self.finding or any(found.partition(":")[0] in self.finding for found in row.findings)


class Row(Struct, kw_only=True):
    """One attempt, refusal or event, as `Decision`, `Outcome` and `Refused` name its parts; empty where there is none."""

    origin: str
    seqs: tuple[int, ...]  # of its records
    at: int
    kind: str  # attempt, or a record's kind
    request: str = ""
    attempt: int = 0
    tenant: str = ""
    organisation: str = ""
    team: str = ""
    project: str = ""
    key: str = ""
    actor: str = ""
    subject: str = ""
    surface: str = ""
    model: str = ""
    target: str = ""
    boundary: str = ""
    provider: str = ""
    region: str = ""
    contract: str = ""
    purpose: str = ""
    action: str = ""  # of an event, what was done
    rule: str = ""
    rule_version: str = ""
    policy: str = ""
    health: bool = False
    findings: tuple[str, ...] = ()  # type:count:path and more, of the request, then of the answer
    answered: int = 0  # how many of the findings, the last ones, are of the answer
    redacted: tuple[str, ...] = ()  # kind:count
    ending: str = ""  # as an outcome's; refused; open, where no outcome is recorded yet
    error: str = ""  # an outcome's, or a refusal's code
    status: int = 0
    input: int = 0
    output: int = 0
    cost: int = 0  # pico-dollars
    total_us: int = 0
    sent: str = ""  # yes; no: the connection was never opened; maybe: nothing tells. Of an attempt


_DONE = ("change", "command", "step", "state")
"""Fields of events that say what was done."""
_SHARED = frozenset(Row.__struct_fields__) - {"origin", "seqs", "sent", "answered"}
decode = msgspec.json.Decoder(dict[str, Any]).decode


def rows(directory: Path, query: Query, *, origin: str = "", stop: int | None = None) -> Iterator[Row]:
    """The rows of one slot's log that are wanted, as they end; those without an outcome come last."""
    pending: dict[tuple[str, int], Row] = {}
    for line in read_lines(directory, start_of(directory, query.begin), stop=stop):
        record = decode(line)
        if record["at"] >= query.end and not pending:
            return
        kind = record["kind"]
        if kind == "outcome":
            row = pending.pop((record["request"], record["attempt"]), None)
            if row is not None:
                end(row, record)
        elif query.begin <= record["at"] < query.end:
            row = begin(origin, record)
            if kind == "decision":
                pending[row.request, row.attempt] = row
                row = None
        else:
            row = None
        if row is not None and query.matches(row):
            yield row
    yield from filter(query.matches, pending.values())


def start_of(directory: Path, begin: int) -> int:
    """Where to begin to read: the last segment that began before the period."""
    start = 0
    for seq, line in segment_starts(directory) if begin else ():
        if decode(line)["at"] >= begin:
            break
        start = seq
    return start


def begin(origin: str, record: dict[str, Any]) -> Row:
    """The row of a record that is no outcome."""
    row = Row(origin=origin, seqs=(record["seq"],), **{name: record[name] for name in _SHARED & record.keys()})
    row.findings = tuple(row.findings)
    row.redacted = tuple(row.redacted)
    if row.kind == "decision":
        row.kind, row.ending, row.sent = "attempt", "open", "maybe"
    elif row.kind == "refused":
        row.ending, row.error = "refused", record["code"]
    elif not row.action:
        row.action = str(next((record[name] for name in _DONE if record.get(name)), ""))
    return row


def end(row: Row, record: dict[str, Any]) -> None:
    """An attempt's row with its outcome."""
    row.seqs = (*row.seqs, record["seq"])
    row.findings = (*row.findings, *record["findings"])
    row.answered = len(record["findings"])
    for name in ("ending", "error", "status", "input", "output", "cost", "total_us"):
        setattr(row, name, record[name])
    row.sent = "yes" if record["connect_us"] else "maybe" if record["ending"] == "interrupted" else "no"
    row.input += record["cache_read"] + record["cache_write_5m"] + record["cache_write_1h"]
