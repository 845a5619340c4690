"""The audit index: the same rows as reading the logs, whatever the cuts between two looks; thrown away and built again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logs import BEGIN, DAY, KEY, write_logs
from tests_records import decision, outcome

from compliance import checkpoints
from compliance.journal import Journal
from compliance.lookup import Query, Row, rows
from compliance.merkle import leaf_hash
from compliance.records import KeyChanged, encode
from compliance.segments import read_lines, segments
from proxy.projections import audit_index
from proxy.projections.audit_index import AuditIndex


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_logs(tmp_path_factory.mktemp("logs") / "audit")


@pytest.fixture
def index(tmp_path: Path) -> Iterator[AuditIndex]:
    opened = AuditIndex(tmp_path / "index.db")
    yield opened
    opened.close()


def read(logs: list[Path], query: Query) -> list[Row]:
    found = [row for log in logs for row in rows(log, query, origin=f"inst/{log.name}")]
    return sorted(found, key=lambda row: (row.at, row.origin, row.seqs))


def ordered(found: Iterator[Row]) -> list[Row]:
    return sorted(found, key=lambda row: (row.at, row.origin, row.seqs))


QUERIES = [
    Query(),
    Query(begin=BEGIN + DAY, end=BEGIN + 2 * DAY),
    Query(tenant=("clinic", "lab"), project=("app3",)),
    Query(key=("key_1",)),
    Query(action=("allow",), rule=("default",)),
    Query(finding=("ssn",), tenant=("clinic",)),
    Query(finding=("nothing",)),
    Query(target=("sky",)),
    Query(target=("gpu/llama", "sky/other")),
    Query(request=("r0-1-7",)),
    Query(ending=("failed", "open")),
    Query(kind=("key_changed",)),
    Query(kind=("attempt",), actor=("nobody",)),
    Query(actor=("admin",)),
]


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: str(query.chosen() or query.begin))
def test_it_answers_as_the_logs_do(logs: list[Path], index: AuditIndex, query: Query) -> None:
    index.catch_up(logs)
    found = ordered(index.search(query))
    assert found == read(logs, query)
    assert index.count(query) == len(found)


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, 30), min_size=1, max_size=12), chunk=st.integers(1, 7))
def test_it_does_not_matter_when_somebody_looked(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], chunk: int
) -> None:
    """A log that grows between looks, in any pieces: an outcome finds its decision, and nothing is there twice."""
    directory = tmp_path_factory.mktemp("grows")
    log = directory / "slot-0"
    log.mkdir()
    (log / "key.pub").write_text(checkpoints.verifier_key("inst/slot-0", KEY.public_key()) + "\n")
    lines = []
    for n in range(40):
        lines.append(decision(f"r{n}", at=n, findings=("mrn:1:x:90:1-2",) if n % 3 else ()))
        if n >= 5:
            lines.append(outcome(f"r{n - 5}", at=n, connect_us=9, findings=("ssn:2:text",) if n % 2 else ()))
    for seq, record in enumerate(lines):
        record.seq = seq
    path = log / "segment-000000000000.jsonl"
    path.write_bytes(b"")
    opened = AuditIndex(directory / "index.db")
    real, audit_index.CHUNK = audit_index.CHUNK, chunk
    try:
        written = 0
        for cut in [*cuts, len(lines)]:
            with open(path, "ab") as file:
                file.writelines(encode(record) + b"\n" for record in lines[written : written + cut])
            written = min(written + cut, len(lines))
            opened.catch_up([log])
        assert ordered(opened.search(Query())) == read([log], Query())
        assert ordered(opened.search(Query(finding=("ssn",)))) == read([log], Query(finding=("ssn",)))
        assert opened.records("r3") == [
            ("inst/slot-0", lines.index(next(r for r in lines if r.request == "r3"))),
            ("inst/slot-0", next(r.seq for r in lines[::-1] if r.request == "r3")),
        ]
    finally:
        audit_index.CHUNK = real
        opened.close()


def test_it_can_be_thrown_away(logs: list[Path], tmp_path: Path) -> None:
    first = AuditIndex(tmp_path / "index.db")
    first.catch_up(logs)
    before = ordered(first.search(Query()))
    first.close()
    (tmp_path / "index.db").unlink()
    for odd in tmp_path.glob("index.db-*"):
        odd.unlink()
    second = AuditIndex(tmp_path / "index.db")
    second.catch_up(logs)
    assert ordered(second.search(Query())) == before
    second._db.execute("PRAGMA user_version = 77")  # as a later version would have left it
    second.close()
    third = AuditIndex(tmp_path / "index.db")
    assert third.count(Query()) == 0
    third.catch_up(logs)
    assert ordered(third.search(Query())) == before
    third.close()


def test_two_that_look_at_once_add_nothing_twice(
    logs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each chunk says from where it goes on; one who comes second goes on from where the other came to."""
    monkeypatch.setattr(audit_index, "CHUNK", 10)
    first, second = AuditIndex(tmp_path / "index.db"), AuditIndex(tmp_path / "index.db")
    first.catch_up(logs, progress=lambda count: second.catch_up(logs))
    assert ordered(first.search(Query())) == read(logs, Query())
    first.close()
    second.close()


def test_another_log_under_the_same_name_is_read_anew(tmp_path: Path) -> None:
    logs = write_logs(tmp_path / "audit", runs=2)
    opened = AuditIndex(tmp_path / "index.db")
    opened.catch_up(logs)
    shutil.rmtree(tmp_path / "audit")
    other = write_logs(tmp_path / "audit", runs=3, actor="someone")
    opened.catch_up(other)
    assert ordered(opened.search(Query())) == read(other, Query())
    shutil.rmtree(tmp_path / "audit")
    shorter = write_logs(tmp_path / "audit", runs=1, actor="someone")
    opened.catch_up(shorter)
    assert ordered(opened.search(Query())) == read(shorter, Query())
    opened.close()


def test_what_retention_removed_is_forgotten(tmp_path: Path) -> None:
    logs = write_logs(tmp_path / "audit", runs=3)
    opened = AuditIndex(tmp_path / "index.db")
    opened.catch_up(logs)
    log = logs[1]
    first = segments(log)[0]
    assert first.sealed
    leaves = b"".join(leaf_hash(line) for line in read_lines(log, first.first, stop=first.last + 1))
    first.path.with_suffix(".leaves").write_bytes(leaves)
    os.unlink(first.path)
    gone = [row for row in opened.search(Query()) if row.origin == "inst/slot-0" and row.seqs[0] <= first.last]
    assert gone
    opened.catch_up(logs)
    left = list(opened.search(Query()))
    assert not [row for row in left if row.origin == "inst/slot-0" and row.seqs[0] <= first.last]
    assert len(left) == 55 - len(gone)
    assert not any(opened.records(row.request) for row in gone)
    opened.close()


def test_it_holds_whatever_an_engine_reports(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "slot-0", origin="i/slot-0", key=KEY)
    journal.append(decision("a"))
    journal.append(outcome("a", input=1 << 70, cost=1 << 64))
    journal.append(KeyChanged(actor="x", at=3, change="created", key="key_1"))
    journal.close()
    opened = AuditIndex(tmp_path / "index.db")
    opened.catch_up([tmp_path / "slot-0"])
    attempt, event = opened.search(Query())
    assert (attempt.input, attempt.cost) == ((1 << 63) - 1, (1 << 63) - 1)
    assert (event.kind, event.action, event.actor) == ("key_changed", "created", "x")
    assert opened.knows("actor", "x") and not opened.knows("subject", "")
    opened.close()
