"""The ledger and the audit index, projected from real logs."""

from __future__ import annotations

import itertools
import sqlite3
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from breaking import broken
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from outcomes import decision, outcome, refused

from compliance.journal import Journal
from compliance.records import Started
from proxy.projections.ledger import Ledger, Projector, rebuild

DAY = 86_400 * 1_000_000
ORIGIN = "i/slot-0"
FIRST_COLUMNS = (
    "origin", "seq", "at", "request", "attempt", "organisation", "team", "project", "key", "model", "target", "boundary",
    "ending", "error", "quality", "input", "cache_read", "cache_write_5m", "cache_write_1h", "output", "reasoning", "cost",
    "price",
)  # fmt: skip


def numbered(*records: Any) -> list[Any]:
    for seq, record in enumerate(records):
        record.seq = seq
    return list(records)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def until_at(ledger: Path, seq: int) -> None:
    """Until a ledger stands at record `seq`, as another process sees it."""
    watch = Ledger(ledger)
    until(lambda: watch.position(ORIGIN) == seq)
    watch.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.projections.ledger.INTERVAL", 0.01)


def test_law_04_one_line_an_attempt_however_often_it_is_projected(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    records = numbered(
        decision("a"), outcome("a", ending="failed", error="engine_overloaded"),
        decision("a", 1), outcome("a", 1, cost=5, input=3, cache_read=2, output=7, reasoning=4, quality="estimated"),
        decision("b"), outcome("b", ending="abandoned", cost=2),
    )  # fmt: skip
    ledger.project(ORIGIN, records[:3])
    ledger.project(ORIGIN, records)
    ledger.project(ORIGIN, records)
    assert len(ledger.rows()) == 3
    assert ledger.position(ORIGIN) == 5
    assert ledger.find("a") == [(ORIGIN, seq) for seq in range(4)]
    assert ledger.find("b") == [(ORIGIN, 4), (ORIGIN, 5)]
    assert ledger.find("c") == []
    (line,) = ledger.sums(("project",))
    assert (line["names"], line["attempts"], line["cost"], line["estimated"]) == (("triage",), 3, 7, 1)
    assert (line["input"], line["cache_read"], line["output"], line["reasoning"]) == (3, 2, 7, 4)
    ledger.close()


def test_slots_are_projected_apart(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    for slot in ("i/slot-0", "i/slot-1"):
        ledger.project(slot, numbered(decision("a"), outcome("a", cost=1)))
    assert [ledger.position(f"i/slot-{n}") for n in range(3)] == [1, 1, -1]
    assert len(ledger.rows()) == 2
    ledger.close()


def test_sums_by_day_model_and_boundary_over_a_period(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    noon = 20_780 * DAY + DAY // 2  # 2026-11-23
    ledger.project(
        ORIGIN,
        numbered(
            outcome("a", at=noon, cost=10, input=4, cache_write_5m=1, cache_write_1h=1, tenant="care"),
            outcome(
                "b", at=noon, boundary="local", target="gpu/llama/70b", model="small", connect_us=100, total_us=1_100
            ),
            outcome("c", at=noon + DAY, cost=7),
        ),
    )
    days = ledger.sums(("day", "boundary"))
    assert [(row["names"], row["date"], row["attempts"], row["cost"]) for row in days] == [
        (("2026-11-23", "cloud"), "2026-11-23", 1, 10), (("2026-11-23", "local"), "2026-11-23", 1, 0),
        (("2026-11-24", "cloud"), "2026-11-24", 1, 7),
    ]  # fmt: skip
    assert {row["names"]: row["cost"] for row in ledger.sums(("tenant",), noon, noon + 1)} == {("care",): 10, ("",): 0}
    assert [(row["engine"], row["engine_us"]) for row in ledger.sums(("target",), 0, noon + 1)] == [
        ("gpu", 1_000), ("openai", 0),
    ]  # fmt: skip
    assert list(ledger.intervals(0, noon + 1)) == [("gpu", noon - 1_000, noon)]
    assert list(ledger.intervals(noon - 10, noon + 1)) == [("gpu", noon - 10, noon)]  # of it what lies in the period
    assert list(ledger.intervals(0, noon)) == []
    assert ledger.since() == noon - 1_000
    with pytest.raises(KeyError):
        ledger.sums(("1; DROP TABLE attempts",))
    ledger.close()


def test_a_ledger_of_an_earlier_version_gets_what_it_lacks(tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / "ledger.db")
    old.execute(f"CREATE TABLE attempts ({', '.join(FIRST_COLUMNS)}, PRIMARY KEY (origin, seq)) WITHOUT ROWID")
    old.execute(
        f"INSERT INTO attempts VALUES ({', '.join('?' * len(FIRST_COLUMNS))})",
        ["o", *(7 if name in ("seq", "at", "input", "cost") else "x" for name in FIRST_COLUMNS[1:])],
    )
    old.commit()
    old.close()
    for _ in range(2):  # and a second time there is nothing to add
        ledger = Ledger(tmp_path / "ledger.db")
        ledger.project(ORIGIN, numbered(outcome("a", tenant="care", connect_us=1, total_us=5)))
        first, second = ledger.lines()
        assert (first["at"], first["input"], first["cost"], first["model"], first["tenant"], first["user"]) == (
            7,
            7,
            7,
            "x",
            "",
            "",
        )
        assert (second["tenant"], second["engine_us"]) == ("care", 4)
        ledger.close()


def test_a_line_has_what_its_decision_said(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.project(
        ORIGIN,
        numbered(
            decision(
                "a", actor="0f3c", tags=("cost-centre=41", "stage=prod"), request_class="batch", stream=True, surface="openai.chat",
                routing="complexity: small", overflow="saturated", action="redact", redacted=("name:2", "ssn:1"),
                findings=("name:2:messages[0].content", "name:1:messages[1].content", "ssn:1:messages[0].content"),
            ),
            outcome("a", connect_us=100, first_us=300, total_us=1_000, status=200),
            decision("b", boundary="local", target="gpu/llama", overflow="unhealthy", stream=True),
            outcome("b", boundary="local", target="gpu/llama", connect_us=100, first_us=300, total_us=1_000, prefill_us=20, decode_us=600),
            outcome("c", connect_us=100, first_us=300, total_us=1_000),  # its decision is not in this log
        ),
    )  # fmt: skip
    a, b, c = ledger.lines()
    assert (a["user"], a["tags"], a["class"]) == ("0f3c", "cost-centre=41\nstage=prod", "batch")
    assert (a["stream"], a["surface"], a["route"], a["overflow"]) == (
        1,
        "openai.chat",
        "complexity: small",
        "saturated",
    )
    assert (a["action"], a["found"], a["redacted"]) == ("redact", 2, 2)
    assert (a["engine_us"], a["prefill_us"], a["decode_us"], a["timing"]) == (900, 200, 700, "stream")
    assert (b["prefill_us"], b["decode_us"], b["timing"]) == (
        20,
        600,
        "engine",
    )  # its own word goes before what was seen
    assert b["overflow"] == ""  # it did not leave
    assert (c["user"], c["timing"], c["engine_us"]) == ("", "", 900)
    ledger.close()


@given(st.lists(st.integers(0, 12), max_size=4).map(sorted))
def test_law_04_a_decision_finds_its_outcome_wherever_the_log_was_cut(cuts: list[int]) -> None:
    records = numbered(
        decision("a", actor="u1", boundary="local", target="gpu/m"), decision("b", actor="u2", tags=("k=v",)), outcome("b", cost=3),
        outcome("a", boundary="local", target="gpu/m", ending="failed"), refused("c", "policy_blocked"),
        decision("a", 1, actor="u1"), outcome("a", 1, cost=4, total_us=2_000),
        decision("d", actor="u3"), decision("d", 1, actor="u3"), outcome("d", ending="failed"), outcome("d", 1, cost=5),
        decision("e", actor="u4"),
    )  # fmt: skip
    whole, parts = Ledger(Path(":memory:")), Ledger(Path(":memory:"))
    whole.project(ORIGIN, records)
    for begin, end in itertools.pairwise([0, *cuts, len(records)]):
        if begin < end:
            parts.project(ORIGIN, records[begin:end])
    assert whole.rows() == parts.rows()
    lines = {(row["request"], row["attempt"]): row for row in parts.lines()}
    assert {key: row["user"] for key, row in lines.items()} == {
        ("a", 0): "u1", ("a", 1): "u1", ("b", 0): "u2", ("d", 0): "u3", ("d", 1): "u3",
    }  # fmt: skip
    assert lines["a", 1]["overflow"] == "failed"  # after a local engine had failed
    assert lines["d", 1]["overflow"] == ""  # after another cloud one
    assert parts._db.execute("SELECT request FROM decided").fetchall() == [
        ("e",)
    ]  # law 10: the others are no more needed
    assert parts.traffic(0, 1 << 62) == whole.traffic(0, 1 << 62)
    assert parts.traffic(0, 1 << 62).refused == {"policy_blocked": 1}
    whole.close()
    parts.close()


def test_an_absurd_report_does_not_stop_the_ledger(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.project(ORIGIN, numbered(outcome("a", input=10**30, output=-(10**30)), outcome("b", cost=3)))
    assert len(ledger.rows()) == 2
    assert ledger.position(ORIGIN) == 1
    ledger.close()


def test_a_failed_batch_leaves_rows_and_position_together(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.project(ORIGIN, numbered(outcome("a")))
    ledger._db.execute("PRAGMA max_page_count = 1")  # no more pages than now: a full disk
    with pytest.raises(sqlite3.Error):
        ledger.project(ORIGIN, numbered(*(outcome(f"{n}" * 50) for n in range(500))))
    assert (ledger.position(ORIGIN), len(ledger.rows())) == (0, 1)
    ledger._db.execute("PRAGMA max_page_count = 100000")
    ledger.project(ORIGIN, numbered(*(outcome(f"{n}" * 50) for n in range(500))))
    assert (ledger.position(ORIGIN), len(ledger.rows())) == (499, 500)
    ledger.close()


def test_a_long_log_is_projected_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.projections.ledger.CHUNK", 7)
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.project(ORIGIN, iter(numbered(*(outcome(str(n)) for n in range(50)))))
    assert (ledger.position(ORIGIN), len(ledger.rows())) == (49, 50)
    ledger.close()


@pytest.mark.usefixtures("quick")
def test_law_04_a_projection_kept_equals_one_rebuilt_from_the_journal(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "log", origin=ORIGIN, key=Ed25519PrivateKey.generate())
    kept = Ledger(tmp_path / "ledger.db")
    projector = Projector(kept, journal.origin, journal.read)
    journal.on_durable(projector.on_durable)
    projector.start()
    journal.append(
        Started(
            at=1,
            cut_bytes=0,
            instance=ORIGIN,
            interrupted=0,
            lost_window_us=0,
            pid=1,
            policy="",
            slot="slot-0",
            version="",
        )
    )
    for n in range(300):
        journal.append(decision(str(n), actor=f"user {n % 7}", tags=(f"k={n % 3}",), findings=("ssn:1:x",)))
        journal.append(outcome(str(n), cost=n))
    journal.close()
    projector.close()
    again, rebuilt = Ledger(tmp_path / "ledger.db"), Ledger(tmp_path / "rebuilt.db")
    rebuilt.project(ORIGIN, journal.read())
    assert again.rows() == rebuilt.rows()
    assert sum(row["cost"] for row in rebuilt.sums(("day",))) == sum(range(300))
    assert {row["names"]: row["cost"] for row in again.sums(("tag:k",))} == {
        (str(k),): sum(range(k, 300, 3)) for k in range(3)
    }
    assert again.find("7") == rebuilt.find("7") == [(ORIGIN, 15), (ORIGIN, 16)]
    again.close()
    rebuilt.close()


@pytest.mark.interpreted
@pytest.mark.parametrize("broken_at", range(7))
def test_law_04_what_breaks_between_two_portions_comes_again_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken_at: int
) -> None:
    """The end of a batch says that it is projected; a portion before it that is there already is passed over."""
    monkeypatch.setattr("proxy.projections.ledger.PAUSE", 0)
    made = [one(name) for name in "abcdefgh" for one in (decision, outcome)]
    records = numbered(*made[:3], *made[4:9], made[3], *made[9:], decision("waits", actor="0f3c"))
    whole, torn = Ledger(tmp_path / "whole.db"), Ledger(tmp_path / "torn.db")
    whole.project(ORIGIN, records)

    with broken(monkeypatch, broken_at):
        torn.project(ORIGIN, records, portion=3)
    assert torn.position(ORIGIN) == (-1 if broken_at < 5 else records[-1].seq)
    torn.project(ORIGIN, records, portion=4)
    late = numbered(*records, outcome("waits"))
    for ledger in (whole, torn):
        ledger.project(ORIGIN, late)
    assert torn.rows() == whole.rows() and len(torn.rows()) == 9
    for name in (*"abcdefgh", "waits"):
        assert torn.find(name) == whole.find(name) and len(torn.find(name)) == 2
    assert next(line["user"] for line in torn.lines() if line["request"] == "waits") == "0f3c"


class Fallible(Ledger):
    """A ledger whose database refuses while `failing`; each refusal is counted."""

    failing = False
    refused = 0

    def project(self, origin: str, records: Iterable[Any], **options: Any) -> None:
        if self.failing:
            self.refused += 1
            raise sqlite3.OperationalError("database is locked")
        super().project(origin, records, **options)


@pytest.mark.interpreted
@pytest.mark.usefixtures("quick")
def test_law_04_what_the_database_did_not_take_is_read_from_the_journal_again(tmp_path: Path) -> None:
    """Later records must not pass earlier ones: those would never get their line."""
    log: list[Any] = []
    ledger = Fallible(tmp_path / "ledger.db")
    projector = Projector(ledger, ORIGIN, lambda start: iter(log[start:]))
    projector.start()

    def append(request: str) -> None:
        log.append(outcome(request, seq=len(log)))
        projector.on_durable([log[-1]])

    append("first")
    until_at(tmp_path / "ledger.db", 0)
    ledger.failing = True
    append("refused")
    until(lambda: ledger.refused > 0)
    append("after it")
    ledger.failing = False
    append("later")
    until_at(tmp_path / "ledger.db", 3)
    projector.close()
    again = Ledger(tmp_path / "ledger.db")
    assert [row["request"] for row in again.lines()] == ["first", "refused", "after it", "later"]
    again.close()


@pytest.mark.usefixtures("quick")
def test_law_04_without_the_journal_nothing_is_written_past_a_gap(tmp_path: Path) -> None:
    """The next start reads on from the position, so it must stand before what is missing."""
    projector = Projector(Ledger(tmp_path / "ledger.db"), ORIGIN)
    log = numbered(outcome("refused"), outcome("queued behind it"))
    projector._missed = True  # the batch before these was refused
    projector.start()
    for record in log:
        projector._waiting.append(record)
    projector.close()
    again = Ledger(tmp_path / "ledger.db")
    assert again.position(ORIGIN) == -1
    again.project(ORIGIN, log)
    assert len(again.rows()) == 2
    again.close()


@pytest.mark.usefixtures("quick")
def test_law_10_a_full_queue_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.projections.ledger.QUEUE_LIMIT", 3)
    log: list[Any] = []
    ledger = Ledger(tmp_path / "ledger.db")
    projector = Projector(ledger, ORIGIN, lambda start: iter(log[start:]))
    for n in range(20):  # its thread does not run yet
        log.append(outcome(str(n), seq=n))
        projector.on_durable([log[-1]])
    projector.start()
    until_at(tmp_path / "ledger.db", 19)
    projector.close()


def test_law_13_a_ledger_made_anew_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    records = numbered(decision("a", actor="u"), outcome("a", cost=3), decision("b"), outcome("b", cost=4))
    path = tmp_path / "ledger.db"
    old = Ledger(path)
    old.project(ORIGIN, numbered(outcome("of another time", cost=9)))
    old.close()
    assert rebuild(path, [(ORIGIN, iter(records)), ("i/slot-1", iter(records))]) == 4
    again = Ledger(path)
    assert {row["cost"] for row in again.sums(("model",))} == {14}
    assert again.position("i/slot-1") == 3
    again.close()
    assert sorted(found.name for found in tmp_path.iterdir()) == ["ledger.db"]


def test_law_13_what_cannot_be_read_leaves_the_old_ledger_as_it_was(tmp_path: Path) -> None:
    def torn() -> Iterable[Any]:
        yield outcome("a", seq=0)
        raise OSError("gone")

    path = tmp_path / "ledger.db"
    old = Ledger(path)
    old.project(ORIGIN, numbered(outcome("kept", cost=9)))
    old.close()
    with pytest.raises(OSError, match="gone"):
        rebuild(path, [(ORIGIN, torn())])
    again = Ledger(path)
    assert [row["request"] for row in again.lines()] == ["kept"]
    again.close()
    assert sorted(found.name for found in tmp_path.iterdir()) == ["ledger.db"]
