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
_EXACT = ("tenant", "project", "key", "action", "rule", "request", "ending")


class Query(Struct, frozen=True, kw_only=True):
    """What is looked for: begin <= time < end (microseconds since the epoch), and for each field any of its values.

    `target` also takes an engine's name for all of its models, `finding` a type found in the request or the answer.
    """

    begin: int = 0
    end: int = LATEST
    tenant: tuple[str, ...] = ()
    project: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    action: tuple[str, ...] = ()
    rule: tuple[str, ...] = ()
    finding: tuple[str, ...] = ()
    target: tuple[str, ...] = ()
    request: tuple[str, ...] = ()
    ending: tuple[str, ...] = ()

    def chosen(self) -> dict[str, tuple[str, ...]]:
        """The fields that choose, besides the time."""
        return {name: getattr(self, name) for name in (*_EXACT, "finding", "target") if getattr(self, name)}

    def matches(self, row: Row) -> bool:
        """Is this row wanted, whatever its time?"""
        if any((wanted := getattr(self, name)) and getattr(row, name) not in wanted for name in _EXACT):
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
    surface: str = ""
    model: str = ""
    target: str = ""
    boundary: str = ""
    action: str = ""
    rule: str = ""
    policy: str = ""
    findings: tuple[str, ...] = ()  # type:count:path, of the request, then of the answer
    ending: str = ""  # as an outcome's; refused; open, where no outcome is recorded yet
    error: str = ""  # an outcome's, or a refusal's code
    status: int = 0
    input: int = 0
    output: int = 0
    cost: int = 0  # pico-dollars
    total_us: int = 0


_SHARED = frozenset(Row.__struct_fields__) - {"origin", "seqs"}
_decode = msgspec.json.Decoder(dict[str, Any]).decode


def rows(directory: Path, query: Query, *, origin: str = "", stop: int | None = None) -> Iterator[Row]:
    """The rows of one slot's log that are wanted, as they end; those without an outcome come last."""
    pending: dict[tuple[str, int], Row] = {}
    for line in read_lines(directory, _start(directory, query.begin), stop=stop):
        record = _decode(line)
        if record["at"] >= query.end and not pending:
            return
        kind = record["kind"]
        if kind == "outcome":
            row = pending.pop((record["request"], record["attempt"]), None)
            if row is not None:
                _end(row, record)
        elif query.begin <= record["at"] < query.end:
            row = _begin(origin, record)
            if kind == "decision":
                pending[row.request, row.attempt] = row
                row = None
        else:
            row = None
        if row is not None and query.matches(row):
            yield row
    yield from filter(query.matches, pending.values())


def _start(directory: Path, begin: int) -> int:
    """Where to begin to read: the last segment that began before the period."""
    start = 0
    for seq, line in segment_starts(directory) if begin else ():
        if _decode(line)["at"] >= begin:
            break
        start = seq
    return start


def _begin(origin: str, record: dict[str, Any]) -> Row:
    row = Row(origin=origin, seqs=(record["seq"],), **{name: record[name] for name in _SHARED & record.keys()})
    row.findings = tuple(row.findings)
    if row.kind == "decision":
        row.kind, row.ending = "attempt", "open"
    elif row.kind == "refused":
        row.ending, row.error = "refused", record["code"]
    elif row.kind == "key_changed":
        row.action = record["change"]
    return row


def _end(row: Row, record: dict[str, Any]) -> None:
    row.seqs = (*row.seqs, record["seq"])
    row.findings = (*row.findings, *record["findings"])
    for name in ("ending", "error", "status", "input", "output", "cost", "total_us"):
        setattr(row, name, record[name])
    row.input += record["cache_read"] + record["cache_write_5m"] + record["cache_write_1h"]
