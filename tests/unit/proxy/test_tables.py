"""How the ledger stores its lines: kinds of lines once, decisions that wait, and files of earlier versions."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from breaking import broken
from hypothesis import given
from hypothesis import strategies as st
from outcomes import decision, outcome

from proxy.projections.ledger import Ledger, rebuild
from proxy.projections.lines import COLUMNS, FACTS, KIND, LARGEST, NOTHING, STORED
from proxy.projections.tables import prepare

ORIGIN, OTHER = "i/slot-0", "i/slot-1"
WHOLE = f"""
CREATE TABLE attempts ({", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())}, PRIMARY KEY (at, origin, seq)) WITHOUT ROWID;
CREATE TABLE decided (
    origin TEXT NOT NULL, request TEXT NOT NULL, attempt INTEGER NOT NULL, user TEXT NOT NULL DEFAULT '', tags TEXT NOT NULL DEFAULT '',
    request_class TEXT NOT NULL DEFAULT '', surface TEXT NOT NULL DEFAULT '', stream INTEGER NOT NULL DEFAULT 0,
    route TEXT NOT NULL DEFAULT '', overflow TEXT NOT NULL DEFAULT '', action TEXT NOT NULL DEFAULT '',
    found INTEGER NOT NULL DEFAULT 0, redacted INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (origin, request, attempt)) WITHOUT ROWID;
CREATE TABLE requests (
    request TEXT NOT NULL, origin TEXT NOT NULL, seq INTEGER NOT NULL, kind TEXT NOT NULL, outcome INTEGER,
    PRIMARY KEY (request, origin, seq)) WITHOUT ROWID;
CREATE TABLE refusals (
    at INTEGER NOT NULL, origin TEXT NOT NULL, seq INTEGER NOT NULL, request TEXT NOT NULL, code TEXT NOT NULL,
    action TEXT NOT NULL, PRIMARY KEY (at, origin, seq)) WITHOUT ROWID;
CREATE TABLE corrections (
    at INTEGER NOT NULL, origin TEXT NOT NULL, seq INTEGER NOT NULL, vendor TEXT NOT NULL, model TEXT NOT NULL,
    start INTEGER NOT NULL, until INTEGER NOT NULL, amount INTEGER NOT NULL, cause TEXT NOT NULL,
    PRIMARY KEY (origin, seq)) WITHOUT ROWID;
CREATE TABLE positions (origin TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID"""
"""The tables of the version before, which had a line in one row, and a row for each request."""


def numbered(*records: Any) -> list[Any]:
    for seq, record in enumerate(records):
        record.seq = seq
    return list(records)


def various(count: int) -> list[Any]:
    """Lines of which few are of the same kind, each with its decision."""
    made: list[Any] = []
    for n in range(count):
        fields = {"status": 200 + n % 5, "price": f"p{n % 3}", "error": "" if n % 4 else f"e{n}", "model": f"m{n % 11}"}
        made.append(
            decision(f"r{n}", actor=f"u{n % 7}", tags=(f"case={n % 13}",), request_class=f"c{n % 2}", stream=n % 2 == 0)
        )
        made.append(
            outcome(
                f"r{n}",
                at=1_795_000_000_000_000 + n,
                cost=n,
                input=n * 7,
                connect_us=5,
                first_us=9,
                total_us=n,
                **fields,
            )
        )
    return numbered(*made)


def kinds(ledger: Ledger) -> int:
    return int(ledger._db.execute("SELECT count(*) FROM kinds").fetchone()[0])


def expected(path: Path, logs: dict[str, list[Any]]) -> list[tuple[Any, ...]]:
    rebuild(path, logs.items())
    ledger = Ledger(path)
    rows = ledger.rows()
    ledger.close()
    return rows


# --- kinds of lines ----------------------------------------------------------------------------------------


def test_each_column_is_stored_once() -> None:
    assert sorted([*KIND, *STORED]) == sorted([*COLUMNS.keys() - {"origin"}, "origin", "kind", "log", "decided"])
    assert len(FACTS) == len(NOTHING)


def test_lines_of_one_kind_share_its_row(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    records = numbered(*(outcome(str(n), cost=n, input=n, total_us=n) for n in range(100)), outcome("x", status=500))
    ledger.project(ORIGIN, records[:50])
    ledger.project(ORIGIN, records[50:])
    assert (len(ledger.rows()), kinds(ledger)) == (101, 2)
    ledger.close()


@pytest.mark.parametrize("remembered", [1, 3, 4_096])
def test_law_04_lines_are_the_same_however_many_kinds_are_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remembered: int
) -> None:
    whole = expected(tmp_path / "whole.db", {ORIGIN: various(300)})
    monkeypatch.setattr("proxy.projections.ledger.KINDS", remembered)
    ledger = Ledger(tmp_path / "ledger.db")
    records = various(300)
    for begin in range(0, len(records), 37):
        ledger.project(ORIGIN, records[begin : begin + 37])
        ledger.project(ORIGIN, records[: begin + 37])
    assert ledger.rows() == whole
    assert [row["request"] for row in ledger.lines()] == [f"r{n}" for n in range(300)]
    assert kinds(ledger) <= 300  # never more than lines
    ledger.close()


def test_law_04_kinds_that_a_failed_transaction_took_with_it_are_stored_again(tmp_path: Path) -> None:
    """Else the next lines of those kinds would have none, or that of a stranger."""
    records = various(400)
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.project(ORIGIN, records[:20])
    (pages,) = ledger._db.execute("PRAGMA page_count").fetchone()
    ledger._db.execute(f"PRAGMA max_page_count = {pages + 3}")  # a full disk
    with pytest.raises(sqlite3.Error):
        ledger.project(ORIGIN, records)
    ledger._db.execute("PRAGMA max_page_count = 100000")
    between = Ledger(tmp_path / "ledger.db")  # another process takes the numbers that were not stored
    between.project(OTHER, various(30))
    between.close()
    ledger.project(ORIGIN, records)
    assert ledger.rows() == expected(tmp_path / "whole.db", {ORIGIN: records, OTHER: various(30)})
    ledger.close()


def test_law_04_an_error_in_a_record_takes_nothing_with_it(tmp_path: Path) -> None:
    records = various(40)
    ledger = Ledger(tmp_path / "ledger.db")
    torn = [*records[:30], outcome("torn", seq=30, connect_us=1, total_us="late")]
    with pytest.raises(TypeError):
        ledger.project(ORIGIN, torn)
    assert (ledger.position(ORIGIN), ledger.rows()) == (-1, [])
    ledger.project(ORIGIN, records)
    assert ledger.rows() == expected(tmp_path / "whole.db", {ORIGIN: records})
    ledger.close()


def test_law_04_processes_that_store_kinds_by_turns_do_not_mix_them_up(tmp_path: Path) -> None:
    logs = {ORIGIN: various(120), OTHER: various(90)}
    ledgers = {origin: Ledger(tmp_path / "ledger.db") for origin in logs}
    for begin in range(0, 240, 16):
        for origin, records in logs.items():
            ledgers[origin].project(origin, records[begin : begin + 16], portion=5)
    assert ledgers[ORIGIN].rows() == expected(tmp_path / "whole.db", logs)
    for ledger in ledgers.values():
        ledger.close()


def test_what_does_not_fit_a_column_is_the_largest_that_does(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    absurd = outcome("a", input=10**30, output=-(10**30), status=10**20, total_us=1 << 64, connect_us=1)
    ledger.project(ORIGIN, numbered(outcome("b"), absurd, outcome("c", cost=3), outcome("d", status=10**20)))
    lines = {row["request"]: row for row in ledger.lines()}
    a = lines["a"]
    assert (a["input"], a["output"], a["status"], a["engine_us"]) == (LARGEST, -LARGEST, LARGEST, LARGEST)
    assert [lines[name]["status"] for name in "bcd"] == [200, 200, LARGEST]
    assert ledger.position(ORIGIN) == 3
    ledger.close()


@pytest.mark.parametrize(
    ("question", "ways"),
    [
        ("SELECT sum(cost) FROM attempts WHERE at >= 1 AND at < 2 AND boundary = 'local'", {"lines USING PRIMARY KEY (at>? AND at<?)"}),
        ("SELECT * FROM attempts WHERE at >= 1 AND at < 2 ORDER BY at, origin, seq", {"lines USING PRIMARY KEY (at>? AND at<?)"}),
        (
            "SELECT origin, seq, outcome FROM requests WHERE request = 'a'",
            {"lines USING INDEX lines_by_request (request=?)", "decided USING PRIMARY KEY (request=?)", "unpaired USING PRIMARY KEY (request=?)"},
        ),
        (
            "SELECT code FROM refusals r WHERE NOT EXISTS (SELECT 1 FROM attempts a WHERE a.request = r.request)",
            {"lines USING INDEX lines_by_request (request=?)"},
        ),
    ],
)  # fmt: skip
def test_questions_find_their_lines_by_time_or_request(question: str, ways: set[str]) -> None:
    ledger = Ledger(Path(":memory:"))
    plan = [str(row[3]) for row in ledger._db.execute(f"EXPLAIN QUERY PLAN {question}")]
    found = {step.removeprefix("SEARCH ") for step in plan if step.startswith("SEARCH ")}
    assert found - {"kinds USING INTEGER PRIMARY KEY (rowid=?)"} == ways, plan
    assert not any(step.startswith("SCAN") and step not in ("SCAN requests", "SCAN r") for step in plan), plan
    ledger.close()


# --- decisions that wait -----------------------------------------------------------------------------------


@given(st.permutations(range(8)), st.sets(st.integers(1, 15)), st.sets(st.integers(1, 15)), st.integers(0, 3))
def test_law_04_a_decision_waits_in_memory_or_in_the_table(
    order: list[int], cuts: set[int], restarts: set[int], remembered: int
) -> None:
    """Wherever batches end, and wherever a process ended that had it in memory."""
    records = numbered(
        *(decision(str(n), actor=f"u{n}", tags=(f"k={n}",)) for n in range(8)),
        *(outcome(str(n), cost=n) for n in order),
    )
    whole, parts = Ledger(Path(":memory:")), Ledger(Path(":memory:"))
    whole.project(ORIGIN, records)
    begin = 0
    for end in [*sorted(cuts), len(records)]:
        parts.project(ORIGIN, records[begin:end], portion=3)
        assert parts.find("5") == [(ORIGIN, one.seq) for one in records[:end] if one.request == "5"]
        if restarts & set(range(begin, end)) or len(parts._kept) > remembered:
            parts._kept.clear()
            parts._kinds.forget()
        begin = end
    assert parts.rows() == whole.rows()
    assert [(row["request"], row["user"], row["tags"]) for row in parts.lines()] == [
        (str(n), f"u{n}", f"k={n}") for n in order
    ]
    assert parts._db.execute("SELECT count(*) FROM decided").fetchone() == (0,)
    for ledger in (whole, parts):
        assert ledger.find("5") == [(ORIGIN, one.seq) for one in records if one.request == "5"]
        ledger.close()


def test_decisions_that_wait_are_remembered_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.projections.ledger.KEPT", 10)
    ledger = Ledger(tmp_path / "ledger.db")
    records = numbered(*(decision(str(n), actor=f"u{n}") for n in range(40)), *(outcome(str(n)) for n in range(40)))
    for begin in range(0, 40, 4):
        ledger.project(ORIGIN, records[begin : begin + 4])
        assert len(ledger._kept) <= 10
    ledger.project(ORIGIN, records[40:])
    assert [row["user"] for row in ledger.lines()] == [f"u{n}" for n in range(40)]
    assert not ledger._kept
    ledger.close()


@pytest.mark.interpreted
@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("broken_at", range(8))
def test_law_04_what_breaks_while_decisions_that_waited_get_their_outcomes_comes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken_at: int, restarted: bool
) -> None:
    """Each line that is there before the break has its decision's facts, and no decision waits for ever."""
    decisions = [decision(str(n), actor=f"u{n}", tags=(f"k={n}",)) for n in range(12)]
    records = numbered(*decisions, *(outcome(str(n), cost=n, error=f"e{n}") for n in range(12)))
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.project(ORIGIN, records[:12])

    with broken(monkeypatch, broken_at):
        ledger.project(ORIGIN, records, portion=3)
    assert len(ledger.rows()) == min(3 * broken_at + 3, 12)
    if restarted:
        ledger.close()
        ledger = Ledger(tmp_path / "ledger.db")
    ledger.project(ORIGIN, records, portion=5)
    assert ledger.rows() == expected(tmp_path / "whole.db", {ORIGIN: records})
    assert [ledger.find(str(n)) for n in range(12)] == [[(ORIGIN, n), (ORIGIN, n + 12)] for n in range(12)]
    assert ledger._db.execute("SELECT count(*) FROM decided").fetchone() == (0,)
    ledger.close()


@pytest.mark.interpreted
@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("broken_at", range(7))
def test_law_10_a_decision_that_was_kept_before_a_break_does_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken_at: int, restarted: bool
) -> None:
    """It comes again, and this time its outcome may come with it."""
    records = numbered(*(decision(str(n), actor=f"u{n}") for n in range(12)), *(outcome(str(n)) for n in range(12)))
    ledger = Ledger(tmp_path / "ledger.db")

    with broken(monkeypatch, broken_at):
        ledger.project(ORIGIN, records[:12], portion=3)
    (kept,) = ledger._db.execute("SELECT count(*) FROM decided").fetchone()
    assert (kept, ledger.position(ORIGIN)) == (max(0, 3 * broken_at - 6), -1 if broken_at < 6 else 11)
    if restarted:
        ledger.close()
        ledger = Ledger(tmp_path / "ledger.db")
    ledger.project(ORIGIN, records, portion=24)
    assert ledger._db.execute("SELECT count(*) FROM decided").fetchone() == (0,)
    assert ledger.rows() == expected(tmp_path / "whole.db", {ORIGIN: records})
    ledger.close()


# --- earlier versions --------------------------------------------------------------------------------------


@pytest.fixture
def before(tmp_path: Path) -> Iterator[tuple[Path, list[tuple[Any, ...]]]]:
    """A file of the version before, and its lines: of two logs, some of one kind, paired with their decisions or not."""
    path = tmp_path / "ledger.db"
    lines = []
    for n in range(200):
        row = {name: 0 if "INTEGER" in kind else "" for name, kind in COLUMNS.items()}
        row |= {
            "at": 1_000 + n // 3,
            "origin": (ORIGIN, OTHER)[n % 2],
            "seq": 2 * n + 1,
            "request": f"r{n}",
            "model": f"m{n % 3}",
        }
        row |= {
            "tags": f"a={n % 5}\nb=x'y",
            "user": f"u{n}",
            "status": 200 + n % 2,
            "cost": LARGEST - n,
            "input": -n,
            "engine_us": n,
        }
        row |= {
            "boundary": "local" if n % 4 else "cloud",
            "attempt": n % 2,
            "decode_us": 7,
            "timing": "engine",
            "found": n % 3,
        }
        lines.append(tuple(row[name] for name in COLUMNS))
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode=WAL")
    db.executescript(WHOLE)
    db.executemany(f"INSERT INTO attempts VALUES ({', '.join('?' * len(COLUMNS))})", lines)
    for n in range(200):
        origin = (ORIGIN, OTHER)[n % 2]
        rows = [(2 * n, "decision", 2 * n + 1)] if n % 5 else [(2 * n, "decision", None), (2 * n + 1, "outcome", None)]
        db.executemany("INSERT INTO requests VALUES (?, ?, ?, ?, ?)", [(f"r{n}", origin, *row) for row in rows])
    db.execute(
        "INSERT INTO requests VALUES ('no', ?, 500, 'refused', NULL), ('waits', ?, 501, 'decision', NULL)",
        (ORIGIN, ORIGIN),
    )
    db.execute("INSERT INTO refusals VALUES (1010, ?, 500, 'no', 'policy_blocked', 'block')", (ORIGIN,))
    db.execute("INSERT INTO refusals VALUES (1010, ?, 502, 'r4', 'upstream', '')", (ORIGIN,))
    db.execute(
        "INSERT INTO decided VALUES (?, 'waits', 0, '0f3c', 'k=v', '', 'openai', 1, '', '', 'allow', 0, 0)", (ORIGIN,)
    )
    db.execute("INSERT INTO corrections VALUES (5, ?, 9, 'openai', 'gpt-4o', 1, 2, 3, 'bill')", (ORIGIN,))
    db.execute("INSERT INTO positions VALUES (?, 501)", (ORIGIN,))
    db.commit()
    db.close()
    yield path, sorted(lines, key=lambda row: (row[1], row[2]))


def goes_on(path: Path, lines: list[tuple[Any, ...]]) -> None:
    """Nothing of the file before is lacking, and the log goes on where it was."""
    ledger = Ledger(path)
    assert ledger.rows() == lines
    assert (ledger.position(ORIGIN), ledger.position(OTHER)) == (501, -1)
    for n in range(200):
        assert ledger.find(f"r{n}") == [((ORIGIN, OTHER)[n % 2], seq) for seq in (2 * n, 2 * n + 1)]
    assert (ledger.find("no"), ledger.find("waits")) == ([(ORIGIN, 500)], [(ORIGIN, 501)])
    assert ledger.traffic(0, 2_000).refused == {"policy_blocked": 1}  # the other one had an attempt
    assert [row["cause"] for row in ledger.corrections()] == ["bill"]
    ledger.project(
        ORIGIN, [outcome("waits", seq=502, at=9_000), decision("new", seq=503), outcome("new", seq=504, at=9_001)]
    )
    waited, _ = ledger.lines(9_000)
    assert (waited["user"], waited["tags"], waited["stream"], waited["surface"]) == ("0f3c", "k=v", 1, "openai")
    assert (ledger.find("waits"), ledger.find("new")) == (
        [(ORIGIN, 501), (ORIGIN, 502)],
        [(ORIGIN, 503), (ORIGIN, 504)],
    )
    ledger.project(OTHER, [outcome("r1", seq=3, at=1_000, cost=9)])  # comes again: there is a line
    assert len(ledger.rows()) == 202
    assert (
        ledger._db.execute(
            "SELECT name FROM sqlite_master WHERE name LIKE '%before' OR name = 'kinds_whole'"
        ).fetchall()
        == []
    )
    ledger.close()


def test_a_ledger_of_the_version_before_is_taken_over(before: tuple[Path, list[tuple[Any, ...]]]) -> None:
    goes_on(*before)


def test_one_of_several_takes_a_ledger_over(before: tuple[Path, list[tuple[Any, ...]]]) -> None:
    path, lines = before
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(Ledger, [path] * 4))
    for ledger in opened:
        assert ledger.rows() == lines
        ledger.close()
    goes_on(path, lines)


def test_a_disk_that_is_full_leaves_the_ledger_as_it_was(before: tuple[Path, list[tuple[Any, ...]]]) -> None:
    path, lines = before
    db = sqlite3.connect(path, isolation_level=None)
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    for room in (0, 2, 5):
        db.execute(f"PRAGMA max_page_count = {pages + room}")
        with pytest.raises(sqlite3.Error):
            prepare(db)
        assert db.execute("SELECT * FROM attempts ORDER BY origin, seq").fetchall() == lines
        assert not db.in_transaction
    db.close()
    goes_on(path, lines)


def test_a_ledger_with_kinds_that_lacks_a_column_keeps_their_numbers(tmp_path: Path) -> None:
    """A process of the version before may still write: its kinds must stay what they were."""
    records = various(60)
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.project(ORIGIN, records)
    rows, numbers = ledger.rows(), ledger._db.execute("SELECT kind, model, status FROM kinds").fetchall()
    ledger.close()
    db = sqlite3.connect(tmp_path / "ledger.db")
    for statement in (
        "DROP VIEW attempts",
        "ALTER TABLE lines DROP COLUMN reasoning",
        "ALTER TABLE kinds DROP COLUMN route",
    ):
        db.execute(statement)
    db.close()
    again = Ledger(tmp_path / "ledger.db")
    assert [row[:18] + row[19:] for row in again.rows()] == [row[:18] + row[19:] for row in rows]
    assert {row["route"] for row in again.lines()} == {""}
    assert again._db.execute("SELECT kind, model, status FROM kinds").fetchall() == numbers
    assert again.find("r7") == [(ORIGIN, 14), (ORIGIN, 15)]
    again.close()
