"""What a report is made from, and what all reports say of that."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from compliance.evidence import EvidenceError, newest
from compliance.lookup import Query
from compliance.segments import segments
from compliance.verify import Broken, read_key
from proxy.projections.audit_index import AuditIndex
from proxy.reports.model import Log, Report, Section, moment, period

LISTED = 500
"""Lines of one table that lists single records; `audit search` prints all."""


class Sources(Struct, frozen=True):
    """The index and the logs behind it, at one instant."""

    index: AuditIndex
    audit: Path
    logs: tuple[Log, ...]
    query: Query
    made: int  # microseconds since the epoch
    by: str
    recorded: bool

    def report(
        self,
        name: str,
        title: str,
        lead: str,
        *,
        figures: Sequence[tuple[str, str]],
        sections: Sequence[Section],
        limits: Sequence[str],
        subject: bool = False,
    ) -> Report:
        """A report over these sources; `subject`: it is one that can be about a subject."""
        scope = [("period", period(self.query.begin, min(self.query.end, self.made)))]
        if subject:
            whose = " or ".join(dict.fromkeys(self.query.subject)) if self.query.subject else "every one"
            scope.append(("subject", whose))
        unsigned = sum(log.records - log.signed for log in self.logs)
        more = [
            "It was read from an index of the logs, whose bytes it does not prove; `spillway audit verify` checks the logs,"
            " and `spillway audit export` writes the same records with their proofs.",
            *([f"{unsigned:,} records are in the logs that no checkpoint covers yet."] if unsigned else []),
            "Records that retention removed from the logs are not in it.",
        ]
        return Report(
            name=name,
            title=title,
            lead=lead,
            scope=tuple(scope),
            figures=tuple(figures),
            sections=tuple(sections),
            limits=(*limits, *more),
            logs=self.logs,
            made=f"{moment(self.made)} (UTC)",
            by=self.by,
            recorded=self.recorded,
        )


def state_of(logs: Sequence[Path]) -> tuple[Log, ...]:
    """Each log as it stands now.  What is wrong with one is said by `audit verify`; here its root is left out."""
    out = []
    for log in logs:
        try:
            origin, _, fingerprint = read_key(log / "key.pub")
            signed = newest(log)
        except (Broken, EvidenceError, OSError):
            out.append(Log(log.name, 0, 0, "not readable: see `spillway audit verify`", ""))
            continue
        size, root = (signed[1].size, signed[1].root.hex()) if signed is not None else (0, "")
        out.append(Log(origin, max(size, _records(log)), size, root, fingerprint))
    return tuple(out)


def _records(log: Path) -> int:
    """Records of a log, also those that retention removed."""
    found = segments(log)
    if not found:
        return 0
    newest_one = found[-1]
    if newest_one.sealed:
        return newest_one.last + 1
    with open(newest_one.path, "rb") as file:
        return newest_one.first + sum(piece.count(b"\n") for piece in iter(lambda: file.read(1 << 20), b""))
