"""A report as data: what it is about, what it was made from, its tables, and what it cannot say.  Pure."""

from __future__ import annotations

from datetime import UTC, datetime

from msgspec import Struct


class Section(Struct, frozen=True):
    """One table.  Columns whose place is in `numbers` are set to the right."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: frozenset[int] = frozenset()
    note: str = ""
    empty: str = "None."


class Log(Struct, frozen=True):
    """A log that a report was made from, as it stood then."""

    origin: str
    records: int
    signed: int  # records under its newest checkpoint
    root: str  # of that checkpoint, hex
    key: str  # the fingerprint of the key that signed it, hex


class Report(Struct, frozen=True):
    """One report.  `scope` and `figures` are (name, value)."""

    name: str
    title: str
    lead: str
    scope: tuple[tuple[str, str], ...]
    figures: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]
    limits: tuple[str, ...]
    logs: tuple[Log, ...]
    made: str
    by: str
    recorded: bool  # the look that this report is has a record in the log


def moment(at: int) -> str:
    """Microseconds since the epoch as people write a time, in UTC."""
    return datetime.fromtimestamp(at / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S")


def day(at: int) -> str:
    """The day of it."""
    return datetime.fromtimestamp(at / 1e6, UTC).strftime("%Y-%m-%d")


def period(begin: int, end: int) -> str:
    """A period in words; its end is not included."""
    return f"{moment(begin) if begin else 'the first record'} up to {moment(end)} (UTC)"


def count(number: int, one: str, many: str = "") -> str:
    """`1 look`, `2 looks`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
