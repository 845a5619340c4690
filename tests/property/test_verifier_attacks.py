"""What somebody who owns the files, but not the key, may try on a directory of logs; and what a pack may not say."""

from __future__ import annotations

import base64
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from auditing import write
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from logs import BEGIN, DAY, KEY, write_logs
from tests_records import decision

from compliance import evidence, verify
from compliance.lookup import Query
from compliance.roster import sign_roster
from compliance.segments import segments

KEY_FINGERPRINT = verify.hashlib.sha256(KEY.public_key().public_bytes_raw()).hexdigest()
MINUTE = 60_000_000


@pytest.fixture
def audit(tmp_path: Path) -> Path:
    write_logs(tmp_path / "audit", runs=1)
    return tmp_path / "audit"


def verified(path: Path) -> verify.Report:
    return verify.verify_directory(path, fingerprint=KEY_FINGERPRINT)


def attestation(seq: int, at: int, key: Ed25519PrivateKey, **fields: Any) -> bytes:
    """A record `attested` of whoever has this key, as `compliance.attesting` would sign it."""
    record = {
        "actor": "x", "at": at, "attempts": 1, "begin": 1, "end": 2, "kind": "attested", "left": 0, "refusals": 0,
        "reviewer": "Dana Ortiz", "roots": [], "seq": seq, "signer": "reviewer", "statement": "Reviewed.",
        "signer_key": base64.b64encode(key.public_key().public_bytes_raw()).decode(), **fields,
    }  # fmt: skip
    said = {name: value for name, value in record.items() if name not in ("at", "seq")}
    text = b"spillway attestation\n" + json.dumps(said, sort_keys=True, separators=(",", ":")).encode()
    record["signature"] = base64.b64encode(key.sign(text)).decode()
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def append(log: Path, make: Callable[[int, int], bytes]) -> None:
    """A line after the last record, which no checkpoint covers."""
    path = segments(log)[-1].path
    last = json.loads(path.read_bytes().splitlines()[-1])
    with open(path, "ab") as file:
        file.write(make(last["seq"] + 1, last["at"] + 1))


def test_what_nobody_signed_attests_to_nothing(audit: Path) -> None:
    """Anybody can append to the open segment, and sign with a key made for it."""
    append(audit / "slot-0", lambda seq, at: attestation(seq, at, Ed25519PrivateKey.generate()))
    report = verified(audit)
    assert not any(slot.attested for slot in report.slots)
    assert "Dana" not in verify.words(report) and "unsigned    1 at the end" in verify.words(report)


@pytest.mark.parametrize(
    "fields", [{"begin": "x"}, {"end": None}, {"reviewer": {"a": 1}}, {"signer": 1}, {"end": True}]
)
def test_an_attestation_of_another_form_is_an_answer_and_no_crash(audit: Path, fields: dict[str, Any]) -> None:
    append(audit / "slot-0", lambda seq, at: attestation(seq, at, KEY, **fields))
    report = verified(audit)
    assert report.status == verify.NOT_VERIFIED and "attestation" in verify.words(report)


def test_a_name_that_was_only_said_stands_under_the_logs_own_key(audit: Path) -> None:
    slot = verify.Slot("x", fingerprint="aa")
    said = verify.Attestation(1, 1, 1, 2, "Dana Ortiz", False, "bb", [])
    with pytest.raises(verify.Broken, match="another key"):
        verify._checked(said, slot)
    for own, fingerprint, is_own in ((True, "bb", True), (True, "aa", False), (False, "aa", False)):
        said = verify.Attestation(1, 1, 1, 2, "Dana Ortiz", own, fingerprint, [])
        assert verify._checked(said, slot).own_key is is_own


def test_rosters_cut_back_to_before_a_log_began_are_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With them goes the log that only later ones named: who looked, and who read a capture."""
    audit = tmp_path / "audit"
    write_logs(audit, runs=1)
    for name in ("roster", "rosters"):
        (audit / name).unlink()
    shutil.move(audit / "cli", tmp_path / "cli")
    clock = [BEGIN + DAY]
    monkeypatch.setattr(time, "time_ns", lambda: clock[0] * 1000)
    sign_roster(audit, "inst", KEY, keep=True)
    before = {name: (audit / name).read_bytes() for name in ("roster", "rosters")}
    shutil.move(tmp_path / "cli", audit / "cli")
    for minute in range(1, 4):
        clock[0] = BEGIN + DAY + minute * MINUTE
        write(audit, decision(f"later-{minute}", at=clock[0]))
        sign_roster(audit, "inst", KEY)
    assert verified(audit).status == verify.VERIFIED
    shutil.rmtree(audit / "cli")
    for name, content in before.items():
        (audit / name).write_bytes(content)
    report = verified(audit)
    assert report.status == verify.NOT_VERIFIED and "later ones are missing" in verify.words(report)
    # a second between a checkpoint and its roster is no lack
    shutil.copytree(audit, tmp_path / "other")
    clock[0] = BEGIN + DAY + 3 * MINUTE - 10_000_000
    sign_roster(tmp_path / "other", "inst", KEY)
    assert verified(tmp_path / "other").status == verify.VERIFIED


def test_a_roster_that_was_taken_away_is_not_begun_anew_by_who_signed_it(audit: Path) -> None:
    from compliance.roster import RosterError

    last = verified(audit).rosters
    assert last is not None
    for name in ("roster", "rosters"):
        (audit / name).unlink()
    with pytest.raises(RosterError, match="taken away"):
        sign_roster(audit, "inst", KEY, after=last.number)
    assert not (audit / "roster").exists()
    assert sign_roster(audit, "inst", KEY) is not None


def test_names_of_files_neither_move_the_cursor_nor_say_anything(audit: Path) -> None:
    (audit / "slot-0").rename(audit / "slot-0\x1b[2J\n  verified\n")
    report = verified(audit)
    told = verify.words(report)
    assert told.count("\n  verified") == 2 and "\x1b" not in told and "slot-0\\x1b[2J\\n  verified\\n" in told
    assert report.status == verify.NOT_VERIFIED and "holds the log of inst/slot-0" in told


def test_two_logs_that_stand_in_each_others_place_are_told(audit: Path) -> None:
    """All that is in them fits: whoever looks for a worker's log by its name would read another's."""
    (audit / "slot-0").rename(audit / "other")
    (audit / "slot-1").rename(audit / "slot-0")
    (audit / "other").rename(audit / "slot-1")
    report = verified(audit)
    assert report.status == verify.NOT_VERIFIED
    assert [bool(slot.problem) for slot in report.slots] == [False, True, True]
    assert verified(audit / "slot-1").slots[0].problem is None  # one that was taken out of its directory has no place


def test_a_pack_says_up_to_when_it_is_complete(audit: Path, tmp_path: Path) -> None:
    """A period may end long after its pack was made; and a checkpoint may be younger than the pack."""
    logs = sorted(path.parent for path in audit.glob("*/key.pub"))
    evidence.export(logs, tmp_path / "pack", key=KEY, query=Query(begin=0, end=BEGIN + 100_000 * DAY))
    report = verified(tmp_path / "pack")
    assert report.rosters is not None
    assert f"of the period up to {verify._moment(report.rosters.at)}, when its logs" in verify.words(report)
    write(audit, decision("later", at=BEGIN + 2 * DAY))
    younger = (audit / "slot-0" / "checkpoints").read_bytes()
    told = verify.words(verify.verify_directory(tmp_path / "pack", since=younger))
    assert "the pack was made before it, or the log was cut" in told
