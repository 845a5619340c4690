"""Legal holds: what may not be erased, and does not expire.  A projection of the log's records, so none can be lost.  Pure.

Whoever removes anything asks `Holds.blocks` for each record that it would remove.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import Struct

from compliance.records import HoldChanged

SCOPES = ("subject", "tenant", "request", "period")
KINDS = frozenset({"hold"})
"""The kinds of records that `holds` looks at; all others may be left out."""


class Hold(Struct, frozen=True):
    """One hold in force."""

    id: str
    scope: str  # one of SCOPES
    value: str  # a subject's pseudonym, a tenant, a request id; "" for a period
    begin: int  # of a period, microseconds since the epoch: begin <= t < end
    end: int
    reason: str
    actor: str
    at: int  # when it was placed


class Holds:
    """The holds in force."""

    def __init__(self, active: Iterable[Hold] = ()) -> None:
        self._active = tuple(active)

    def __iter__(self) -> Iterator[Hold]:
        return iter(self._active)

    def __len__(self) -> int:
        return len(self._active)

    def __getitem__(self, hold: str) -> Hold:
        """By its id; raises `KeyError`."""
        for one in self._active:
            if one.id == hold:
                return one
        raise KeyError(hold)

    def blocks(
        self, *, subject: str = "", tenant: str = "", request: str = "", span: tuple[int, int] | None = None
    ) -> Hold | None:
        """The first hold that something is under: whose it is, of which request, and from when to when (inclusive).

        What is not said is not looked at; None: it may go.
        """
        named = {"subject": subject, "tenant": tenant, "request": request}
        for hold in self._active:
            if hold.scope == "period":
                if span is not None and hold.begin <= span[1] and span[0] < hold.end:
                    return hold
            elif hold.value and named[hold.scope] == hold.value:
                return hold
        return None

    def blocks_record(self, record: Any) -> Hold | None:
        """The same for a record of the log.  An outcome names no subject: ask for its decision."""
        return self.blocks(
            subject=getattr(record, "subject", ""),
            tenant=getattr(record, "tenant", ""),
            request=getattr(record, "request", ""),
            span=(record.at, record.at),
        )


def holds(records: Iterable[Any]) -> Holds:
    """The holds in force after these records, the oldest first; records of other kinds are passed over."""
    placed: dict[str, Hold] = {}
    released = set()
    for record in records:
        if not isinstance(record, HoldChanged):
            continue
        if record.change == "placed":
            placed[record.hold] = Hold(
                record.hold,
                record.scope,
                record.value,
                record.begin,
                record.end,
                record.reason,
                record.actor,
                record.at,
            )
        else:
            released.add(record.hold)
    return Holds(sorted([one for one in placed.values() if one.id not in released], key=lambda one: (one.at, one.id)))
