"""Sealed segments never change, what retention removes is named, and no slot vanishes unseen: in log directories and packs."""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from logs import BEGIN, DAY, KEY, POLICY, write_logs
from packs import changed, load, mutate, rehash, sign
from tests_records import decision, outcome

from compliance import attesting, checkpoints, evidence, retention, roster, verify
from compliance.holds import Hold, Holds
from compliance.journal import Journal, JournalDamaged, read
from compliance.lookup import Query, rows
from compliance.records import Attested, KeyChanged, Retention
from compliance.roster import RosterError, sign_roster
from compliance.segments import open_path, opened, read_lines, read_numbered, seal, segment_starts, segments

TIMES = 15 if os.environ.get("SPILLWAY_SOAK") else 1
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
FINGERPRINT = sha256(KEY.public_key().public_bytes_raw()).hexdigest()
ROOT = Path(__file__).resolve().parents[2]
NOBODY: dict[str, Any] = {"id": "h1", "reason": "", "actor": "", "at": 0, "begin": 0, "end": 0, "value": ""}


def write(directory: Path, count: int, *, first: int = 0, slot: str = "slot-0", **options: Any) -> None:
    journal = Journal.open(directory, origin=f"inst/{slot}", key=KEY, **options)
    for number in range(first, first + count):
        journal.append(KeyChanged(actor="", at=BEGIN + number, change="created", key=f"key_{number}"))
    journal.close()


def names(directory: Path) -> list[str]:
    return [segment.path.name for segment in segments(directory)]


def remove(logs: list[Path], before: int, holds: Holds | None = None) -> list[retention.Removal]:
    """What `spillway audit retain` does: a record in the operators' log, then the body."""
    found = retention.plan([log for log in logs if log.name != "cli"], before, holds or Holds())
    journal = Journal.open(logs[0].parent / "cli", origin="inst/cli", key=KEY)
    gone = [removal for removal in found if not removal.kept]
    for one in gone:
        journal.append(
            Retention(
                actor="op", at=BEGIN + 90 * DAY, before=before, first=one.segment.first, last=one.segment.last, origin=one.origin,
                since=one.since, until=one.until,
            )
        )  # fmt: skip
    journal.close()
    for one in gone:
        retention.remove(one)
    sign_roster(logs[0].parent, "inst", KEY, keep=True)
    return found


# --- segments -----------------------------------------------------------------------------------------------


def test_a_sealed_segment_has_its_range_for_a_name_and_may_not_be_written(tmp_path: Path) -> None:
    write(tmp_path, 60, segment_records=25)
    assert names(tmp_path) == [
        "segment-000000000000-000000000024.jsonl", "segment-000000000025-000000000049.jsonl", "segment-000000000050.jsonl",
    ]  # fmt: skip
    modes = [stat.S_IMODE(segment.path.stat().st_mode) for segment in segments(tmp_path)]
    assert modes[:2] == [0o444, 0o444] and modes[2] & 0o200
    before = [segment.path.read_bytes() for segment in segments(tmp_path)[:2]]
    write(tmp_path, 60, first=60, segment_records=25)
    assert [segment.path.read_bytes() for segment in segments(tmp_path)[:2]] == before
    assert [record.seq for record in read(tmp_path)] == list(range(120))
    assert verify.verify_directory(tmp_path).slots[0].problem is None


def test_a_segment_is_sealed_after_a_day_whatever_is_in_it(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, origin="inst/slot-0", key=KEY)
    for at in (0, DAY - 1, DAY, 2 * DAY + 5, 2 * DAY + 6):
        journal.append(KeyChanged(actor="", at=BEGIN + at, change="created", key="k"))
        while journal.unwritten:
            pass  # a group is sealed as a whole
    journal.close()
    assert names(tmp_path) == [
        "segment-000000000000-000000000001.jsonl", "segment-000000000002-000000000002.jsonl", "segment-000000000003.jsonl",
    ]  # fmt: skip


def test_an_idle_log_seals_its_segment_and_goes_on_in_another(tmp_path: Path) -> None:
    now = [BEGIN * 1000]
    journal = Journal.open(tmp_path, origin="inst/slot-0", key=KEY, clock=lambda: now[0])
    journal.append(KeyChanged(actor="", at=BEGIN, change="created", key="k"))
    now[0] += (DAY + 1) * 1000
    sealed = threading.Event()
    for _ in range(200):
        if names(tmp_path) == ["segment-000000000000-000000000000.jsonl"]:
            break
        sealed.wait(0.05)
    else:
        pytest.fail("it was not sealed")
    journal.append(KeyChanged(actor="", at=BEGIN + DAY + 1, change="created", key="k"))
    journal.close()
    assert names(tmp_path)[1:] == ["segment-000000000001.jsonl"]
    assert verify.verify_directory(tmp_path).slots[0].problem is None


@pytest.mark.parametrize("count", [24, 25, 26, 49, 50])
def test_a_restart_goes_on_wherever_the_last_segment_ended(count: int, tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path, count, first=number * count, segment_records=25)
    assert [record.key for record in read(tmp_path)] == [f"key_{number}" for number in range(4 * count)]
    assert [seq for seq, _ in segment_starts(tmp_path)] == list(range(0, 4 * count, 25))
    slot = verify.verify_directory(tmp_path).slots[0]
    assert (slot.problem, slot.records) == (None, 4 * count)


def test_what_an_earlier_version_left_open_is_sealed_at_the_next_start(tmp_path: Path) -> None:
    write(tmp_path, 60, segment_records=25)
    for segment in segments(tmp_path):
        if segment.sealed:
            segment.path.rename(open_path(tmp_path, segment.first))
    write(tmp_path, 1, first=60, segment_records=25)
    assert [segment.sealed for segment in segments(tmp_path)] == [True, True, False]
    assert verify.verify_directory(tmp_path).slots[0].problem is None


@pytest.mark.parametrize("how", ["missing", "shorter", "renamed", "torn"])
def test_a_log_whose_segments_do_not_fit_is_not_continued(how: str, tmp_path: Path) -> None:
    write(tmp_path, 60, segment_records=25)
    mark = json.loads((tmp_path / "frontier.json").read_text())
    one = segments(tmp_path)[1].path
    one.chmod(0o600)
    if how == "missing":
        one.unlink()
    elif how == "renamed":
        one.rename(one.with_name("segment-000000000025-000000000048.jsonl"))
    else:
        (tmp_path / "frontier.json").unlink()  # so that all of it is read again
        one.write_bytes(one.read_bytes()[:-1] if how == "torn" else b"".join(one.read_bytes().splitlines(True)[:-1]))
    assert mark["size"] == 60
    with pytest.raises(JournalDamaged):
        Journal.open(tmp_path, origin="inst/slot-0", key=KEY)
    assert verify.verify_directory(tmp_path).slots[0].problem


def test_a_reader_goes_on_over_segments_that_are_sealed_meanwhile(tmp_path: Path) -> None:
    write(tmp_path, 10, segment_records=25)
    lines = read_numbered(tmp_path, 3)
    journal = Journal.open(tmp_path, origin="inst/slot-0", key=KEY, segment_records=5)
    found = segments(tmp_path)
    journal.append(KeyChanged(actor="", at=BEGIN, change="created", key="k"))
    journal.close()
    assert found[0].path.name == "segment-000000000000.jsonl" and not found[0].path.exists()
    assert [seq for seq, _ in lines][:7] == [3, 4, 5, 6, 7, 8, 9]
    with opened(found[0]) as file:
        assert len(file.readlines()) == 10
    part = verify._read_segment(verify._Segment(found[0].path, 0, -1))
    assert len(part.leaves) == 10 * 32


def test_the_verifier_reads_with_several_processes_what_it_reads_with_one(tmp_path: Path) -> None:
    """In a process of its own, from a copied file: children find it again."""
    logs = write_logs(tmp_path / "audit")
    shutil.copy(ROOT / "compliance" / "verify.py", tmp_path)
    script = (
        "import runpy, sys; import verify; verify._MUCH_BYTES = verify._MUCH_NOTES = int(sys.argv.pop(1));"
        "verify.os.cpu_count = lambda: 2; sys.exit(verify.main(sys.argv[1:]))"
    )
    said = []
    for number, parallel in enumerate(("0", str(1 << 40), "0")):
        if number == 2:
            one = segments(logs[1])[2].path
            one.chmod(0o600)
            one.write_bytes(one.read_bytes().replace(b'"allow"', b'"block"', 1))
        done = subprocess.run(
            [sys.executable, "-c", script, parallel, str(tmp_path / "audit"), "--key", FINGERPRINT], capture_output=True, text=True,
            cwd=tmp_path, env={name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        )  # fmt: skip
        said.append((done.returncode, done.stdout))
    assert said[0] == said[1] and said[0][0] == verify.VERIFIED, said[0]
    assert said[2][0] == verify.NOT_VERIFIED and "are not those that were signed" in said[2][1]


# --- retention ----------------------------------------------------------------------------------------------


@pytest.fixture
def logs(tmp_path: Path) -> list[Path]:
    return write_logs(tmp_path / "audit")  # a segment a day, five days


def test_retention_removes_whole_segments_and_the_tree_still_verifies(logs: list[Path]) -> None:
    found = remove(logs, BEGIN + 2 * DAY)
    assert [(one.origin, one.segment.first, one.segment.last, one.kept) for one in found] == [
        (origin, first, last, kept)
        for origin in ("inst/slot-0", "inst/slot-1")
        for first, last, kept in ((0, 16, ""), (17, 33, ""))
    ] or {one.kept for one in found} == {retention.KEPT_OPEN}
    report = verify.verify_directory(logs[0].parent, fingerprint=FINGERPRINT)
    assert report.status == verify.VERIFIED, verify.words(report)


def complete(directory: Path, days: int = 5, each: int = 6) -> list[Path]:
    """Two slots with nothing open; tenant and subject change from request to request."""
    for slot in ("slot-0", "slot-1"):
        for day in range(days):
            journal = Journal.open(directory / slot, origin=f"inst/{slot}", key=KEY)
            for i in range(each):
                at = BEGIN + day * DAY + i * 1_000_000
                tenant, subject = ("clinic", "lab")[i % 2], f"{i % 3}" * 32
                journal.append(decision(f"{slot}-{day}-{i}", at=at, tenant=tenant, subject=subject))
                journal.append(outcome(f"{slot}-{day}-{i}", at=at + 1, tenant=tenant))
            journal.close()
    journal = Journal.open(directory / "cli", origin="inst/cli", key=KEY)
    journal.append(KeyChanged(actor="op", at=BEGIN, change="created", key="k"))
    journal.close()
    sign_roster(directory, "inst", KEY, keep=True)
    return sorted(path.parent for path in directory.glob("*/key.pub"))


def test_a_decision_without_an_outcome_stays(logs: list[Path]) -> None:
    """`write_logs` leaves one open each day."""
    assert {one.kept for one in retention.plan(logs[1:], BEGIN + 3 * DAY, Holds())} == {retention.KEPT_OPEN}


def test_what_went_is_named_and_what_stays_is_found(tmp_path: Path) -> None:
    logs = complete(tmp_path / "audit")
    kept = b"".join(verify.read_notes(log / "checkpoints")[0] + b"\n" for log in logs)
    found = remove(logs, BEGIN + 2 * DAY)
    assert [(one.origin, one.segment.first, one.segment.last, one.records, one.kept) for one in found] == [
        (f"inst/{slot}", first, first + 11, 12, "") for slot in ("slot-0", "slot-1") for first in (0, 12)
    ]  # fmt: skip
    assert names(logs[1])[:2] == [
        "segment-000000000000-000000000011.leaves",
        "segment-000000000012-000000000023.leaves",
    ]
    assert not list(logs[1].glob("*.part"))
    for trusted in ({"fingerprint": FINGERPRINT}, {"since": kept}):
        report = verify.verify_directory(tmp_path / "audit", **trusted)  # type: ignore[arg-type]
        assert report.status == verify.VERIFIED, verify.words(report)
    assert "24 records removed by retention" in verify.words(report)
    assert [seq for seq, _ in read_numbered(logs[1])] == list(range(24, 60))
    assert len(list(read_lines(logs[1], 30, stop=40))) == 10
    assert {row.request for row in rows(logs[1], Query())} == {
        f"slot-0-{day}-{i}" for day in (2, 3, 4) for i in range(6)
    }
    journal = Journal.open(logs[1], origin="inst/slot-0", key=KEY)  # and a worker goes on
    assert (journal.next_seq, journal.interrupted) == (60, [])
    journal.append(KeyChanged(actor="", at=BEGIN + 9 * DAY, change="created", key="k"))
    journal.close()
    assert remove(logs, BEGIN + 2 * DAY) == []
    assert verify.verify_directory(tmp_path / "audit", since=kept).status == verify.VERIFIED


@pytest.mark.parametrize(
    ("hold", "stays"),
    [
        ({"scope": "tenant", "value": "clinic"}, {0, 1, 2}),
        ({"scope": "tenant", "value": "nobody"}, set()),
        ({"scope": "subject", "value": "1" * 32}, {0, 1, 2}),
        ({"scope": "request", "value": "slot-0-1-3"}, {1}),
        ({"scope": "period", "begin": BEGIN + DAY, "end": BEGIN + DAY + 10}, {1}),
    ],
)
def test_a_legal_hold_keeps_the_segments_that_it_covers(hold: dict[str, Any], stays: set[int], tmp_path: Path) -> None:
    logs = complete(tmp_path / "audit")
    found = remove(logs, BEGIN + 3 * DAY, Holds([Hold(**(NOBODY | hold))]))
    of_slot = [one for one in found if one.origin == "inst/slot-0"]
    assert {day for day, one in enumerate(of_slot) if one.kept == "hold h1"} == stays
    assert {day for day, one in enumerate(of_slot) if not one.kept} == {0, 1, 2} - stays
    assert verify.verify_directory(tmp_path / "audit", fingerprint=FINGERPRINT).status == verify.VERIFIED


def test_the_outcome_of_a_decision_under_a_hold_stays_with_it(tmp_path: Path) -> None:
    """An outcome names no subject."""
    journal = Journal.open(tmp_path / "slot-0", origin="inst/slot-0", key=KEY, segment_records=2)
    journal.append(decision("a", at=BEGIN, subject="s"))
    journal.append(decision("b", at=BEGIN))
    journal.append(outcome("a", at=BEGIN))
    journal.append(outcome("b", at=BEGIN))
    journal.append(decision("c", at=BEGIN))
    journal.append(outcome("c", at=BEGIN))
    journal.append(decision("d", at=BEGIN + DAY))
    journal.close()
    holds = Holds([Hold(**(NOBODY | {"scope": "subject", "value": "s"}))])
    found = retention.plan([tmp_path / "slot-0"], BEGIN + DAY, holds)
    assert [one.kept for one in found] == ["hold h1", "hold h1", ""]


def test_a_removal_without_its_record_is_not_verified(tmp_path: Path) -> None:
    """Whoever destroys evidence cannot call it retention."""
    logs = complete(tmp_path / "audit")
    for one in retention.plan(logs[1:2], BEGIN + DAY, Holds()):
        retention.remove(one)
    for trusted in ({}, {"fingerprint": FINGERPRINT}):
        report = verify.verify_directory(tmp_path / "audit", **trusted)  # type: ignore[arg-type]
        assert report.status == verify.NOT_VERIFIED
        assert "no signed record of their removal is in these logs" in verify.words(report)
    remove(logs, BEGIN + DAY)  # of the other slot
    assert verify.verify_directory(tmp_path / "audit").status == verify.NOT_VERIFIED
    report = verify.verify_directory(logs[2])  # alone: the record stands in another log
    assert report.status == verify.NOT_VERIFIED and "verify the directory of all logs" in verify.words(report)


def test_a_removal_that_was_interrupted_is_done_again(tmp_path: Path) -> None:
    logs = complete(tmp_path / "audit")
    body = segments(logs[1])[0].path
    content = body.read_bytes()
    remove(logs, BEGIN + DAY)
    body.write_bytes(content)  # hashes and records side by side
    assert verify.verify_directory(tmp_path / "audit", fingerprint=FINGERPRINT).status == verify.VERIFIED
    assert names(logs[1])[0].endswith(".jsonl") and len(list(read_numbered(logs[1]))) == 60
    remove(logs, BEGIN + DAY)
    assert names(logs[1])[0].endswith(".leaves")
    body.write_bytes(content.replace(b'"lab"', b'"bal"', 1))
    assert verify.verify_directory(tmp_path / "audit", fingerprint=FINGERPRINT).status == verify.NOT_VERIFIED


def test_a_pack_says_what_retention_removed_of_its_period(tmp_path: Path) -> None:
    logs = complete(tmp_path / "audit")
    holds = Holds([Hold(**(NOBODY | {"scope": "period", "begin": BEGIN + DAY, "end": BEGIN + DAY + 10}))])
    remove(logs, BEGIN + 3 * DAY, holds)  # days 0 and 2 go, 1 stays
    expected = {
        (0, 9): [(0, 11), (24, 35)], (1, 2): [(0, 11), (24, 35)], (1, 4): [(0, 11), (24, 35)], (3, 4): [(24, 35)], (4, 5): [],
    }  # fmt: skip
    for (first, last), gone in expected.items():
        pack = tmp_path / f"pack-{first}-{last}"
        query = Query(begin=BEGIN + first * DAY if first else 0, end=BEGIN + last * DAY)
        evidence.export(logs, pack, key=KEY, query=query, csv=True)
        report = verify.verify_directory(pack, fingerprint=FINGERPRINT)
        assert report.status == verify.VERIFIED, verify.words(report)
        assert report.slots[1].removed == gone, (first, last)
        assert (pack / "retention.jsonl").exists() == bool(gone)
        assert report.slots[1].records == 12 * len({1, 3, 4} & {*range(first, last)})
        assert ("records removed by retention" in verify.words(report)) == bool(gone)
    evidence.export(logs, tmp_path / "chosen", key=KEY, query=Query(tenant=("lab",)))
    assert verify.verify_directory(tmp_path / "chosen", fingerprint=FINGERPRINT).status == verify.VERIFIED


def test_a_log_of_which_nothing_is_left_goes_on(tmp_path: Path) -> None:
    logs = complete(tmp_path / "audit")
    for log in logs[1:]:
        last = segments(log)[-1]
        seal(last, 59)
    assert len(remove(logs, BEGIN + 50 * DAY)) == 10
    assert all(segment.removed for log in logs[1:] for segment in segments(log))
    for lost in (False, True):
        if lost:  # it is made again from the leaf hashes and the newest checkpoint
            (logs[1] / "frontier.json").unlink()
        journal = Journal.open(logs[1], origin="inst/slot-0", key=KEY)
        journal.append(KeyChanged(actor="", at=BEGIN + 91 * DAY, change="created", key="k"))
        journal.close()
        sign_roster(tmp_path / "audit", "inst", KEY)
        assert verify.verify_directory(tmp_path / "audit", fingerprint=FINGERPRINT).status == verify.VERIFIED


@pytest.mark.parametrize(
    "name", ["segment-000000000000-000000000011.leaves", "segment-000000000024-000000000035.jsonl", "checkpoints"]
)
def test_nothing_is_signed_over_what_was_changed(name: str, tmp_path: Path) -> None:
    """A worker that has to read everything again compares it with the newest checkpoint."""
    logs = complete(tmp_path / "audit")
    remove(logs, BEGIN + DAY)
    (logs[1] / "frontier.json").unlink()
    path = logs[1] / name
    path.chmod(0o600)
    content = path.read_bytes()
    changed_ = (
        content.replace(b'"lab"', b'"bal"', 1)
        if name.endswith("l")
        else content[:40] + bytes([content[40] ^ 1]) + content[41:]
    )
    if name == "checkpoints":
        changed_ = content.replace(b"\n60\n", b"\n59\n")
    assert changed_ != content
    path.write_bytes(changed_)
    with pytest.raises(JournalDamaged):
        Journal.open(logs[1], origin="inst/slot-0", key=KEY)
    path.write_bytes(content)
    with pytest.raises(JournalDamaged, match="not this log's own"):
        Journal.open(logs[1], origin="inst/slot-0", key=OTHER)
    Journal.open(logs[1], origin="inst/slot-0", key=KEY).close()


# --- the roster ---------------------------------------------------------------------------------------------


def test_a_roster_is_signed_where_something_changed_and_kept_once_an_hour(tmp_path: Path) -> None:
    logs = complete(tmp_path / "audit", days=1)
    audit = tmp_path / "audit"
    assert sign_roster(audit, "inst", KEY) is None
    write(tmp_path / "audit" / "slot-0", 1, first=100)
    second = sign_roster(audit, "inst", KEY)
    assert second is not None and second.number == 2
    assert [(entry.origin, entry.size) for entry in second.entries] == [
        ("inst/cli", 1),
        ("inst/slot-0", 13),
        ("inst/slot-1", 12),
    ]
    assert len(verify.read_notes(audit / "rosters")) == 1  # less than an hour
    write(tmp_path / "audit" / "slot-2", 1, slot="slot-2")
    assert sign_roster(audit, "inst", KEY) is not None
    assert len(verify.read_notes(audit / "rosters")) == 2  # a new slot
    write(tmp_path / "audit" / "slot-0", 1, first=101)
    assert sign_roster(audit, "inst", KEY, keep=True) is not None
    assert len(verify.read_notes(audit / "rosters")) == 3 and sign_roster(audit, "inst", KEY, keep=True) is None
    assert len(logs) == 3
    report = verify.verify_directory(audit, fingerprint=FINGERPRINT)
    assert report.status == verify.VERIFIED and report.rosters is not None
    assert (report.rosters.count, report.rosters.number) == (3, 4)
    assert "names 4 logs" in verify.words(report)


def test_no_roster_is_signed_over_less_than_the_last(tmp_path: Path) -> None:
    complete(tmp_path / "audit", days=1)
    shutil.move(tmp_path / "audit" / "slot-1", tmp_path / "slot-1")
    with pytest.raises(RosterError, match="inst/slot-1 is gone"):
        sign_roster(tmp_path / "audit", "inst", KEY)
    write(tmp_path / "audit" / "slot-1", 1)
    (tmp_path / "audit" / "slot-1" / "key.pub").write_text(
        checkpoints.verifier_key("inst/slot-1", KEY.public_key()) + "\n"
    )
    with pytest.raises(RosterError):
        sign_roster(tmp_path / "audit", "inst", KEY)
    with pytest.raises(RosterError, match="not a roster of this key"):
        sign_roster(tmp_path / "audit", "inst", OTHER)


@pytest.mark.parametrize("cut", [1, 2, 5, 60, 200, 10_000])
def test_law_13_rosters_go_on_after_one_that_was_torn(cut: int, tmp_path: Path) -> None:
    complete(tmp_path / "audit", days=1)
    path = tmp_path / "audit" / "rosters"
    whole = path.read_bytes()
    path.write_bytes(whole[: max(0, len(whole) - cut)])
    write(tmp_path / "audit" / "slot-0", 1, first=100)
    # the newest names what was torn off: with nothing kept before it, it cannot be told from a roster that was removed
    (tmp_path / "audit" / "roster").unlink()
    sign_roster(tmp_path / "audit", "inst", KEY, keep=True)
    assert verify.verify_directory(tmp_path / "audit", fingerprint=FINGERPRINT).status == verify.VERIFIED


def test_many_may_sign_at_once(tmp_path: Path) -> None:
    complete(tmp_path / "audit", days=1)
    script = (
        "import sys; sys.path[:0] = [sys.argv[2]]\n"
        "from pathlib import Path\n"
        "from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey\n"
        "from compliance.roster import sign_roster\n"
        "key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))\n"
        "for _ in range(30): sign_roster(Path(sys.argv[1]), 'inst', key, keep=True)\n"
    )
    children = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "audit"), str(ROOT)]) for _ in range(3)]
    for number in range(20):
        write(tmp_path / "audit" / "slot-0", 1, first=100 + number)
        sign_roster(tmp_path / "audit", "inst", KEY, keep=True)
    assert [child.wait() for child in children] == [0, 0, 0]
    report = verify.verify_directory(tmp_path / "audit", fingerprint=FINGERPRINT)
    assert report.status == verify.VERIFIED, verify.words(report)


def test_the_auditors_roster_anchors_every_slot_at_once(tmp_path: Path) -> None:
    logs = complete(tmp_path / "audit")
    kept = (tmp_path / "audit" / "roster").read_bytes()
    for number in range(3):
        write(tmp_path / "audit" / "slot-0", 5, first=100 + 5 * number)
        sign_roster(tmp_path / "audit", "inst", KEY)
    assert verify.verify_directory(tmp_path / "audit", since=kept).status == verify.VERIFIED
    evidence.export(logs, tmp_path / "pack", key=KEY, query=Query(begin=BEGIN + 3 * DAY), since=kept)
    assert verify.verify_directory(tmp_path / "pack", since=kept).status == verify.VERIFIED
    # another history of one slot, and a roster that names fewer: the owner of the key can sign both
    shutil.rmtree(tmp_path / "audit" / "slot-1")
    for name in verify.ROSTER:
        (tmp_path / "audit" / name).unlink()
    sign_roster(tmp_path / "audit", "inst", KEY)
    assert (
        verify.verify_directory(tmp_path / "audit", fingerprint=FINGERPRINT).status == verify.VERIFIED
    )  # alone it looks well
    report = verify.verify_directory(tmp_path / "audit", since=kept)
    assert report.status == verify.NOT_VERIFIED and report.missing == ["inst/slot-1"]


# --- attestations -------------------------------------------------------------------------------------------


def attest(directory: Path, roots: tuple[str, ...], /, **forged: Any) -> None:
    reviewer = Ed25519PrivateKey.from_private_bytes(bytes(range(2, 34)))
    entry = attesting.sign(
        Attested(
            actor="op", at=BEGIN + 20 * DAY, attempts=60, begin=BEGIN, end=BEGIN + 5 * DAY, left=0, refusals=0, reviewer="Dana Ortiz",
            roots=roots, signer="reviewer", signer_key="", statement="Reviewed.",
        ),
        reviewer,
    )  # fmt: skip
    for name, value in forged.items():
        setattr(entry, name, value)
    journal = Journal.open(directory / "cli", origin="inst/cli", key=KEY)
    journal.append(entry)
    journal.close()
    sign_roster(directory, "inst", KEY)


def test_an_attestation_is_verified_in_the_log_and_in_a_pack(tmp_path: Path) -> None:
    logs = complete(tmp_path / "audit")
    newest = [evidence.newest(log) for log in logs]
    attest(
        tmp_path / "audit", tuple(f"{mark.origin} {mark.size} {mark.root.hex()}" for _, mark in filter(None, newest))
    )
    evidence.export(logs, tmp_path / "pack", key=KEY, query=Query())
    for path in (tmp_path / "audit", tmp_path / "pack"):
        report = verify.verify_directory(path, fingerprint=FINGERPRINT)
        assert report.status == verify.VERIFIED, verify.words(report)
        assert [one.reviewer for one in report.slots[0].attested] == ["Dana Ortiz"] and report.slots[0].attested[
            0
        ].own_key
        assert "by 'Dana Ortiz', signed with their key sha256:" in verify.words(report)


@pytest.mark.parametrize(
    "forged",
    [
        {"reviewer": "Somebody Else"}, {"statement": "Nothing found."}, {"left": 1}, {"end": BEGIN}, {"signer": "instance"},
        {"signer_key": "AAAA"}, {"signature": ""}, {"roots": ()},
    ],
)  # fmt: skip
def test_an_attestation_that_the_owner_of_the_log_changed_is_not_verified(
    forged: dict[str, Any], tmp_path: Path
) -> None:
    logs = complete(tmp_path / "audit", days=1)
    attest(tmp_path / "audit", (f"inst/slot-0 12 {'0' * 64}",), **forged)
    evidence.export(logs, tmp_path / "pack", key=KEY, query=Query())
    for path in (tmp_path / "audit", tmp_path / "pack"):
        report = verify.verify_directory(path, fingerprint=FINGERPRINT)
        assert report.status == verify.NOT_VERIFIED and "attestation whose signature" in verify.words(report)


def test_an_attestation_to_another_history_is_not_verified(tmp_path: Path) -> None:
    complete(tmp_path / "audit", days=1)
    attest(tmp_path / "audit", (f"inst/slot-0 12 {'0' * 64}",))
    report = verify.verify_directory(tmp_path / "audit", fingerprint=FINGERPRINT)
    assert report.status == verify.NOT_VERIFIED and "never signed" in verify.words(report)


# --- mutations of a directory of logs -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """Logs with sealed, open and removed segments, several rosters, and what an auditor kept of an earlier visit."""
    directory = tmp_path_factory.mktemp("pristine") / "audit"
    logs = complete(directory)
    kept = b"".join(verify.read_notes(log / "checkpoints")[-1] + b"\n" for log in logs)
    kept += (directory / "roster").read_bytes() + b"\n"
    remove(logs, BEGIN + 2 * DAY)
    for number in range(3):
        write(directory / "slot-0", 4, first=100 + 4 * number)
        sign_roster(directory, "inst", KEY, keep=number != 2)
    return directory, kept


def believed(directory: Path) -> list[str]:
    """The files that say something to an auditor."""
    unread = {"lock", "frontier.json", "roster.lock"}
    return sorted(
        file.relative_to(directory).as_posix()
        for file in directory.rglob("*")
        if file.is_file() and file.name not in unread
    )


def says_the_same(name: str, before: bytes, after: bytes) -> bool:
    """Nothing but a torn end was added, or a line end taken off: what a crash leaves, and nobody was promised."""
    if name.endswith(("checkpoints", "rosters")):
        try:
            return verify.split_notes(before) == verify.split_notes(after)
        except verify.Broken:
            return False
    is_open = name.endswith(".jsonl") and name.count("-") == 2
    return is_open and after.startswith(before) and b"\n" not in after[len(before) :]


def test_no_changed_file_of_a_log_directory_is_verified(pristine: tuple[Path, bytes], tmp_path: Path) -> None:
    """Any file changed, dropped, added, moved or put in another's place, against a fingerprint, an earlier visit or both."""
    directory, kept = pristine
    copy = tmp_path / "audit"
    shutil.copytree(directory, copy, copy_function=shutil.copyfile)
    assert verify.verify_directory(copy, fingerprint=FINGERPRINT, since=kept).status == verify.VERIFIED
    files = believed(copy)
    whole = {name: (copy / name).read_bytes() for name in files}
    contents = list(whole.values())
    dice = random.Random(5)
    for number in range(600 * TIMES):
        name = dice.choice(files)
        how = dice.choice(("change",) * 6 + ("gone", "moved"))
        path = copy / name
        after = mutate(whole[name], dice, contents) if how == "change" else b""
        if how == "change":
            path.write_bytes(after)
        elif how == "gone":
            path.unlink()
        else:
            path.rename(path.with_name(f"{path.name}.old"))
        trusted = dice.choice(
            ({"fingerprint": FINGERPRINT}, {"since": kept}, {"fingerprint": FINGERPRINT, "since": kept})
        )
        report = verify.verify_directory(copy, **trusted)
        path.with_name(f"{path.name}.old").unlink(missing_ok=True)
        path.write_bytes(whole[name])
        if how == "change" and says_the_same(name, whole[name], after):
            continue
        assert report.status == verify.NOT_VERIFIED, (number, name, how, trusted.keys(), after, verify.words(report))


def test_no_slot_vanishes_and_none_is_put_in_anothers_place(pristine: tuple[Path, bytes], tmp_path: Path) -> None:
    directory, kept = pristine
    slots = sorted(key.parent.name for key in directory.glob("*/key.pub"))
    edits: list[Callable[[Path], Any]] = []
    for slot in slots:
        edits.append(lambda copy, slot=slot: shutil.rmtree(copy / slot))  # type: ignore[misc]
        edits.append(lambda copy, slot=slot: (copy / slot / "key.pub").unlink())  # type: ignore[misc]
        for other in slots:
            if other != slot:
                edits.append(lambda copy, slot=slot, other=other: _put_in_place(copy / slot, copy / other))  # type: ignore[misc]
    for number, edit in enumerate(edits):
        for trusted in ({}, {"fingerprint": FINGERPRINT}, {"since": kept}):
            copy = tmp_path / f"{number}"
            shutil.copytree(directory, copy, copy_function=shutil.copyfile)
            edit(copy)
            report = verify.verify_directory(copy, **trusted)  # type: ignore[arg-type]
            assert report.status == verify.NOT_VERIFIED, (number, verify.words(report))
            shutil.rmtree(copy)


def _put_in_place(slot: Path, other: Path) -> None:
    shutil.rmtree(slot)
    shutil.copytree(other, slot, copy_function=shutil.copyfile)


def test_without_its_roster_a_directory_is_not_anchored(pristine: tuple[Path, bytes], tmp_path: Path) -> None:
    """Somebody who removes a slot removes the rosters, too: what is left is never called verified."""
    directory, kept = pristine
    copy = tmp_path / "audit"
    shutil.copytree(directory, copy)
    for name in verify.ROSTER:
        (copy / name).unlink()
    report = verify.verify_directory(copy, fingerprint=FINGERPRINT)
    assert report.status == verify.UNANCHORED and "a whole log could be missing unseen" in verify.words(report)
    shutil.rmtree(copy / "slot-1")
    assert verify.verify_directory(copy, fingerprint=FINGERPRINT).status == verify.UNANCHORED
    assert verify.verify_directory(copy, since=kept).status == verify.NOT_VERIFIED


def test_a_slot_cut_to_an_earlier_checkpoint_is_missed_by_the_roster(
    pristine: tuple[Path, bytes], tmp_path: Path
) -> None:
    """All of its own files fit; with the key's fingerprint alone nothing else would tell."""
    directory, _ = pristine
    for keep in range(1, 8):
        copy = tmp_path / str(keep)
        shutil.copytree(directory, copy, copy_function=shutil.copyfile)
        log = copy / "slot-0"
        notes = verify.read_notes(log / "checkpoints")[:keep]
        (log / "checkpoints").write_bytes(b"".join(note + b"\n" for note in notes))
        size = int(notes[-1].split(b"\n")[1])
        for segment in reversed(segments(log)):
            if segment.first >= size:
                segment.path.unlink()
        last = segments(log)[-1]
        if last.last >= size or not last.sealed:
            lines = last.path.read_bytes().splitlines(True)[: size - last.first]
            last.path.unlink()
            open_path(log, last.first).write_bytes(b"".join(lines))
        alone = verify.verify_directory(log)
        assert alone.slots[0].problem is None or alone.slots[0].removed
        report = verify.verify_directory(copy, fingerprint=FINGERPRINT)
        assert report.status == verify.NOT_VERIFIED, (keep, size)
        assert "which the roster repeats" in verify.words(report)


def test_packs_with_removed_records_are_not_changed_by_whoever_has_the_key_alone(
    pristine: tuple[Path, bytes], tmp_path: Path
) -> None:
    """The owner of the key edits what a pack says of retention and of the roster, and signs it anew."""
    directory, kept = pristine
    logs = sorted(key.parent for key in directory.glob("*/key.pub"))
    pack = tmp_path / "pack"
    evidence.export(logs, pack, key=KEY, query=Query(), since=kept, policy=lambda _: POLICY)
    assert verify.verify_directory(pack, fingerprint=FINGERPRINT, since=kept).status == verify.VERIFIED
    before = load(pack)
    dice = random.Random(6)
    victims = ["retention.jsonl", "roster", "slot-0/records.jsonl", "slot-0/checkpoints", "slot-1/proofs.jsonl"]
    for number in range(150 * TIMES):
        after = dict(before)
        victim = dice.choice(victims)
        how = dice.choice(("change", "change", "gone", "removed"))
        edit: Callable[[dict[str, Any]], None] = lambda manifest: None  # noqa: E731
        if how == "removed":  # the manifest claims more, or less
            slot, more = dice.choice((1, 2)), [dice.randrange(60), dice.randrange(60)]

            def edit(manifest: dict[str, Any], slot: int = slot, more: list[int] = more) -> None:
                part = manifest["slots"][slot]
                part["removed"] = dice.choice(([], part["removed"][:1], [*part["removed"], more], [more]))

            if not more:
                continue
        elif how == "gone":
            del after[victim]
        else:
            after[victim] = mutate(after[victim], dice, list(before.values()))
        rehash(after, edit)
        sign(after, KEY)
        if after == before:
            continue
        with changed(pack, before, after):
            report = verify.verify_directory(pack, fingerprint=FINGERPRINT, since=dice.choice((None, kept)))
        if how == "gone" and victim == "roster" and report.status == verify.UNANCHORED:
            continue
        assert report.status == verify.NOT_VERIFIED, (number, how, victim, verify.words(report))


def test_a_line_that_a_shape_takes_is_canonical(tmp_path: Path) -> None:
    """The verifier's patterns take no line that decoding and encoding would not, nor do they read anything else in it."""
    dice = random.Random(7)
    samples = [
        b'{"at":5,"attempt":0,"found":["a","b"],"kind":"decision","request":"r","sent":true,"seq":1}',
        b'{"at":5,"kind":"started","n":0,"seq":1,"slot":"s"}',
    ]
    part = verify._Part()
    shapes: list[Any] = []
    for line in samples:
        verify._slowly(line, 1, "here", part, shapes)
    assert len(shapes) == 2 and all(verify._quickly(line, shapes) for line in samples)
    taken = 0
    for _ in range(20_000 * TIMES):
        line = bytearray(dice.choice(samples))
        for _ in range(dice.choice((1, 1, 2, 3))):
            at = dice.randrange(len(line))
            piece = dice.choice(
                (
                    b'"',
                    b",",
                    b":",
                    b"0",
                    b"-",
                    b"1",
                    b".5",
                    b"[]",
                    b"\\",
                    b"\\u0041",
                    b" ",
                    b"\xc3\xa9",
                    b"\xff",
                    b"\x01",
                    b"true",
                    b"e1",
                )
            )
            line[at : at + dice.choice((0, 1, 2))] = piece
        text = bytes(line)
        plain = verify._is_utf8(text) and not any(code in text for code in verify._CONTROLS) and b"\\" not in text
        found = verify._quickly(text, shapes) if plain else None
        if found is not None:
            taken += 1
            assert verify._facts(verify._canonical(text, "here"), "here")[:3] == found[:3], text
    assert taken > 100


def test_roster_text_is_strict() -> None:
    key = KEY.public_key()
    head = "inst/roster\n1\n5\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"
    line = "inst/slot-0 1 47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"
    good = checkpoints.sign_text("inst/roster", head + line, KEY)
    assert verify._open_roster(good, "inst/roster", key).entries["inst/slot-0"][0] == 1
    assert roster.open_roster(good, key).entries[0].size == 1
    for text in (
        head + line + line, head + "other/slot-0 1 47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n", head + "inst/slot-0 1\n",
        head + line.replace(" 1 ", " 01 "), head + line.replace(" 1 ", " -1 "), head + line.replace("47D", "46"), head.replace("\n1\n", "\n\u0661\n"),
        "inst/roster\n1\n5\n", head.replace("inst", "else", 1), head + line.replace("=", ""),
    ):  # fmt: skip
        with pytest.raises(verify.Broken):
            verify._open_roster(checkpoints.sign_text("inst/roster", text, KEY), "inst/roster", key)
    with pytest.raises(verify.Broken):
        verify._open_roster(good + good.split(b"\n\n")[1], "inst/roster", key)
