"""The coverage table tells the truth: identifiers planted in every kind of field of every surface (law 8).

The table comes from probes; here real identifiers go through the real scanner, as `serve` has it.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from compliance.scan import Scanner
from engines.field_kinds import ANSWERS, HERE, REQUESTS, FieldKind, planted, stream
from proxy.app import DIALECTS, build_scanner
from proxy.cli import app
from proxy.config import Settings, load
from proxy.coverage import Cell, Looks, answer_finder, answer_session, coverage
from proxy.surfaces import BY_NAME, Surface

CARD = "4111 1111 1111 1111"
PERSON = "Dr. Maria Kowalski"
RULES = "compliance: {tier: fast, rules: [{name: n, when: {found: [name], health: false}, action: keep_local}]}"
PASSING_HOLES = {"called tool's name", "any other field"}
"""What answers may hold unread where they are counted as they pass; where they are held back, nothing.  The table says
so, and so does the threat model."""
ANSWERING = {"passing": "}", "held": ", answers: {found: mask}}", "not": ", answers: {scan: false}}"}
SURFACES = [surface for surface in BY_NAME.values() if surface.operation is not None]


@cache
def configured(text: str) -> tuple[Settings, Scanner, list[Cell]]:
    made = load(text, {})
    return made, build_scanner(made), coverage(made)


def kinds(surface: Surface, table: Any) -> tuple[FieldKind, ...]:
    return table[surface.dialect, surface.operation]  # type: ignore[no-any-return]


def cell(cells: list[Cell], surface: Surface, phase: str, field: str) -> Cell:
    (found,) = [c for c in cells if (c.surface, c.phase, c.field) == (surface.name, phase, field)]
    return found


@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
def test_law_08_what_the_table_says_of_requests_is_so(surface: Surface) -> None:
    _, scanner, cells = configured("compliance: {tier: fast}")
    for kind in kinds(surface, REQUESTS):
        row = cell(cells, surface, "request", kind.name)
        body = planted(kind.body, CARD)
        DIALECTS[surface.dialect].parse(surface.operation, msgspec.json.encode(body), {})  # type: ignore[arg-type]
        found = {finding.type for finding in scanner.inspect(body).findings}
        assert ("card" in found) == (row.reach.patterns == "always") == kind.speaks, kind.name
        assert ("opaque" in found) == row.reach.opaque, kind.name
        assert row.reach.opaque is not kind.speaks or "address" in kind.name or "file's name" in kind.name, kind.name
        body = planted(kind.body, PERSON)
        assert "name" not in {finding.type for finding in scanner.inspect(body).findings}
        named = "name" in {finding.type for finding in scanner.inspect(body, health=True).findings}
        assert named == (row.reach.people == "health") == kind.speaks, kind.name


@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("looks", ["passing", "held", "not"])
def test_law_08_what_the_table_says_of_answers_is_so(surface: Surface, streamed: bool, looks: Looks) -> None:
    _, scanner, cells = configured(RULES[:-1] + ANSWERING[looks])
    for kind in kinds(surface, ANSWERS):
        if streamed and not kind.events:
            continue
        row = cell(cells, surface, "streamed answer" if streamed else "answer", kind.name)
        found = {
            finding.type for finding in answer_finder(surface, kind, CARD, looks, streamed=streamed)(scanner, False)
        }
        assert ("card" in found) == (row.reach.patterns == "always"), kind.name
        assert ("opaque" in found) == row.reach.opaque, kind.name
        found = {
            finding.type for finding in answer_finder(surface, kind, PERSON, looks, streamed=streamed)(scanner, False)
        }
        assert ("name" in found) == (row.reach.people == "always"), kind.name
        if looks == "not":
            assert row.hole is kind.speaks, kind.name
        else:
            assert not row.hole or (looks == "passing" and kind.name in PASSING_HOLES), kind.name


@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
def test_the_samples_are_answers_that_the_dialect_takes(surface: Surface) -> None:
    _, scanner, _ = configured("compliance: {tier: fast}")
    for kind in kinds(surface, ANSWERS):
        for streamed in (False, True) if kind.events else (False,):
            session = answer_session(surface, scanner, "passing", streamed=streamed)
            session.feed(stream(kind, "x") if streamed else msgspec.json.encode(planted(kind.body, "x")))
            session.end()
            assert session.done and session.error is None, (kind.name, streamed)


def test_no_request_has_text_that_nobody_reads() -> None:
    _, _, cells = configured("compliance: {tier: fast}")
    assert [c for c in cells if c.phase == "request" and c.hole] == []
    assert {c.field for c in cells if c.hole} <= PASSING_HOLES


def test_every_surface_has_its_kinds_of_fields_and_each_its_place() -> None:
    for surface in SURFACES:
        for table in (REQUESTS, ANSWERS):
            names = [kind.name for kind in kinds(surface, table)]
            assert names and len(set(names)) == len(names)
        for kind in kinds(surface, REQUESTS):
            assert (HERE in json.dumps(kind.body)) is kind.speaks, kind.name


def test_a_rule_that_asks_for_names_everywhere_is_in_the_table() -> None:
    _, _, cells = configured(RULES)
    assert {c.reach.people for c in cells if c.speaks and not c.hole} == {"always"}


NAMES = st.text(st.characters(codec="ascii", categories=("L",)), min_size=1, max_size=8).map(lambda name: f"x_{name}")
WRAPPED = st.recursive(
    st.just(HERE),
    lambda inner: st.one_of(
        st.builds(lambda name, value: {name: value}, NAMES, inner), st.builds(lambda value: [1, value, "x"], inner)
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SURFACES), NAMES, WRAPPED, st.booleans())
def test_law_08_a_field_that_no_dialect_knows_is_scanned(surface: Surface, name: str, value: Any, as_key: bool) -> None:
    _, scanner, _ = configured("compliance: {tier: fast}")
    body = {**planted(kinds(surface, REQUESTS)[0].body, "go"), name: {HERE: 1} if as_key else value}
    found = scanner.inspect(planted(body, CARD)).findings
    assert "card" in {finding.type for finding in found}
    assert all(finding.path.startswith("*") for finding in found)


def test_the_command_prints_the_table() -> None:
    done = CliRunner().invoke(app, ["policy", "coverage"], catch_exceptions=False)
    assert done.exit_code == 0
    line = next(line for line in done.stdout.splitlines() if "tool arguments, a key" in line)
    assert "messages[0].tool_calls[0].function.arguments" in line and "always" in line and "under health" in line
    assert "picture" in done.stdout and "cannot be read: keep_local" in done.stdout
    rows = json.loads(CliRunner().invoke(app, ["policy", "coverage", "--json"]).stdout)
    assert rows["detectors"]["people"] == ["names", "learned"] and "ssn" in rows["kinds"]
    assert rows["holes"] == sum(row["hole"] for row in rows["fields"])
