"""The coverage table: every surface, request and answer, every kind of field, and which detectors see it.

Nothing in it is written down: each kind of field of a dialect (`engines.field_kinds`) goes through the scanner as
`serve` would send it there, with a probe in the detectors' places (`compliance.coverage`).
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import msgspec
from msgspec import Struct

from compliance.answers import AnswerScanner
from compliance.coverage import MARK, Find, Probes, Reach, lane_of
from compliance.detectors.patterns import PATTERNS
from compliance.holdback import Guard
from compliance.identifiers import NAMES
from compliance.model import Finding
from compliance.scan import Scanner
from engines.field_kinds import ANSWERS, REQUESTS, FieldKind, planted, stream
from engines.model import Operation, Request
from proxy.app import DIALECTS
from proxy.config import Settings
from proxy.config_rules import asks_everywhere
from proxy.holding import Answering
from proxy.meaning import table
from proxy.session import Session, StreamSession, WholeSession
from proxy.surfaces import BY_NAME, Surface

Phase = Literal["request", "answer", "streamed answer"]
Looks = Literal["not", "passing", "held"]
_LIMIT = 1 << 20


class Cell(Struct, frozen=True):
    """One kind of field on one surface."""

    surface: str
    phase: Phase
    field: str
    path: str
    lane: str
    reach: Reach
    speaks: bool

    @property
    def hole(self) -> bool:
        """Is it text that nobody looks at, without a finding that says so?"""
        return self.speaks and not self.reach.scanned and not self.reach.opaque


def coverage(settings: Settings) -> list[Cell]:
    """The whole table."""
    probes = Probes(always=asks_everywhere(settings))
    looks = looks_of(settings)
    cells: list[Cell] = []
    for surface in BY_NAME.values():
        if surface.operation is None:  # lists of models have no text of anybody's
            continue
        for kind in REQUESTS[surface.dialect, surface.operation]:
            cells.append(_of_request(surface, kind, probes))
        for kind in ANSWERS[surface.dialect, surface.operation]:
            cells += _of_answer(surface, kind, probes, looks)
    return cells


def _of_request(surface: Surface, kind: FieldKind, probes: Probes) -> Cell:
    body = planted(kind.body, MARK)

    def find(scanner: Scanner, health: bool) -> tuple[Finding, ...]:
        return scanner.inspect(body, health=health).findings

    reach = probes.reach(find)
    return Cell(surface.name, "request", kind.name, reach.path, lane_of(body), reach, kind.speaks)


def _of_answer(surface: Surface, kind: FieldKind, probes: Probes, looks: Looks) -> list[Cell]:
    cells = []
    phases: tuple[tuple[Phase, bool], ...] = (("answer", False), ("streamed answer", True))
    for phase, streamed in phases:
        if kind.events if streamed else kind.body is not None:
            reach = probes.reach(answer_finder(surface, kind, MARK, looks, streamed=streamed))
            cells.append(Cell(surface.name, phase, kind.name, "", reach.path, reach, kind.speaks))
    return cells


def looks_of(settings: Settings) -> Looks:
    """How answers are looked at: not at all, counted as they pass, or held back until they are decided."""
    answers = settings.compliance.answers
    return "not" if not answers.scan else "passing" if answers.found == "pass" else "held"


def answer_finder(surface: Surface, kind: FieldKind, text: str, looks: Looks, *, streamed: bool) -> Find:
    """How an answer with `text` in this kind of field gets to a scanner: through the session of an attempt."""

    def find(scanner: Scanner, health: bool) -> tuple[Finding, ...]:
        session = answer_session(surface, scanner, looks, streamed=streamed, health=health)
        session.feed(stream(kind, text) if streamed else msgspec.json.encode(planted(kind.body, text)))
        session.end()
        return session.findings()

    return find


def answer_session(
    surface: Surface, scanner: Scanner, looks: Looks, *, streamed: bool, health: bool = False
) -> Session:
    """The session of an attempt between two ends of the surface's own dialect, as `proxy.answering` sets it up."""
    assert surface.operation is not None
    dialect, operation = DIALECTS[surface.dialect], surface.operation
    scan: AnswerScanner | None = None
    answering: Answering | None = None
    if looks == "held" and operation is Operation.CHAT:
        guard = Guard(partial(scanner.spans, health=health), len, lambda kind: False, people=True)
        answering = Answering(guard)
    elif looks != "not":
        scan = AnswerScanner(scanner)
    request = Request(surface.dialect, operation, "m", streamed, b"{}", {}, True, None, 1, frozenset({operation.value}))
    if streamed:
        return StreamSession(
            request, dialect, dialect, answer_id="a", created=0, restore_model=False, strip_usage=False, scan=scan,
            answering=answering,
        )  # fmt: skip
    return WholeSession(
        request, dialect, dialect, answer_id="a", created=0, restore_model=False, limit=_LIMIT, scan=scan,
        answering=answering,
    )  # fmt: skip


# --- for people and scripts ----------------------------------------------------------------------------------


def detectors(settings: Settings) -> dict[str, tuple[str, ...]]:
    """The detectors in each place: shapes and an operator's own; then who finds names and places."""
    part = settings.compliance
    patterns = ("shapes", *part.detectors)
    people = ("names", *(("learned",) if part.tier == "full" else ()), *part.plugins)
    return {"patterns": patterns, "people": people}


def coverage_table(settings: Settings, cells: list[Cell]) -> str:
    """The table for people."""
    named = detectors(settings)
    sees = {"always": "always", "health": "under health context", "never": "-"}
    rows = []
    for cell in cells:
        if cell.reach.opaque and not cell.reach.scanned:
            told = f"cannot be read: {settings.compliance.opaque}" if cell.phase == "request" else "recorded as opaque"
            patterns = people = "-"
        else:
            told = "" if cell.reach.scanned else "NOT SCANNED" if cell.speaks else "no text"
            patterns, people = sees[cell.reach.patterns], sees[cell.reach.people]
        rows.append((cell.surface, cell.phase, cell.field, cell.path or cell.lane, patterns, people, told))
    head = ("surface", "phase", "field", "recorded as", *[" + ".join(named[place]) for place in named], "")
    kinds = sorted({pattern.type for pattern in PATTERNS}, key=NAMES.index)
    notes = [
        f"shapes find {len(kinds)} kinds: {', '.join(kinds)}",
        f"names and places: {', '.join(named['people'])}; they look "
        + ("everywhere, since a rule asks for it" if asks_everywhere(settings) else "where there is health context"),
    ]
    answers = {
        "not": "are not scanned",
        "passing": "are scanned and counted as they pass",
        "held": "are held back until decided",
    }
    notes.append(f"answers {answers[looks_of(settings)]} (compliance.answers)")
    holes = [cell for cell in cells if cell.hole]
    notes.append(f"{len(cells)} kinds of fields, {len(holes)} not scanned")
    return "\n".join([table(head, rows, numbers=False), "", *notes])


def coverage_rows(settings: Settings, cells: list[Cell]) -> dict[str, Any]:
    """The table for scripts."""
    return {
        "detectors": detectors(settings),
        "kinds": sorted({pattern.type for pattern in PATTERNS}),
        "fields": [{**msgspec.to_builtins(cell), "scanned": cell.reach.scanned, "hole": cell.hole} for cell in cells],
        "holes": sum(cell.hole for cell in cells),
    }
