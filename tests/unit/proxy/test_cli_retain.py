"""`spillway audit retain` in this process, over small logs: what goes, what stays, and what is refused."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path

import pytest
from click.testing import Result
from logs import DAY, KEY
from tests_records import decision, outcome
from typer.testing import CliRunner

from compliance import verify
from compliance.journal import Journal, read
from compliance.records import HoldChanged
from compliance.roster import sign_roster
from compliance.segments import segments
from proxy.cli import app

YEARS = 400 * DAY


@pytest.fixture
def audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three days of 400 days ago, and one of today."""
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / "audit"
    directory.mkdir()
    (directory / "key").write_bytes(base64.b64encode(KEY.private_bytes_raw()))
    (directory / "key").chmod(0o600)
    (directory / "instance").write_text("inst")
    now = time.time_ns() // 1000
    for slot in ("slot-0", "slot-1"):
        for at in (now - YEARS, now - YEARS + DAY, now - YEARS + 2 * DAY, now):
            journal = Journal.open(directory / slot, origin=f"inst/{slot}", key=KEY)
            journal.append(decision(f"{slot}-{at}", at=at, tenant="clinic" if slot == "slot-1" else "lab"))
            journal.append(outcome(f"{slot}-{at}", at=at, tenant="clinic" if slot == "slot-1" else "lab"))
            journal.close()
    sign_roster(directory, "inst", KEY, keep=True)
    return directory


def hold(audit: Path, **given: object) -> None:
    journal = Journal.open(audit / "cli", origin="inst/cli", key=KEY)
    row = {
        "actor": "op",
        "at": 1,
        "begin": 0,
        "change": "placed",
        "end": 0,
        "hold": "h1",
        "reason": "case",
        "scope": "tenant",
        "value": "clinic",
    }
    journal.append(HoldChanged(**(row | given)))  # type: ignore[arg-type]
    journal.close()


def spillway(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["audit", *arguments], catch_exceptions=False)


def removed(log: Path) -> list[bool]:
    return [segment.removed for segment in segments(log)]


def test_what_is_older_goes_and_is_recorded(audit: Path) -> None:
    fingerprint = verify.read_key(audit / "slot-0" / "key.pub")[2]
    dry = spillway("retain", "--keep", "1y", "--dry-run")
    assert dry.exit_code == 0 and dry.stdout.count("would go") == 6 and "leaf hashes stay" in dry.stderr
    assert removed(audit / "slot-0") == [False] * 4
    done = spillway("retain", "--keep", "1y", "--json")
    assert done.exit_code == 0, done.stderr
    rows = json.loads(done.stdout)["segments"]
    assert [(row["origin"], row["first"], row["last"], row["kept"]) for row in rows][:3] == [
        ("inst/slot-0", 0, 1, ""), ("inst/slot-0", 2, 3, ""), ("inst/slot-0", 4, 5, ""),
    ]  # fmt: skip
    assert removed(audit / "slot-0") == removed(audit / "slot-1") == [True, True, True, False]
    records = [record for record in read(audit / "cli") if record.kind == "retention"]
    assert [(record.origin, record.first, record.last) for record in records] == [
        (r["origin"], r["first"], r["last"]) for r in rows
    ]
    assert all(record.actor and record.since <= record.until < record.before for record in records)
    verified = spillway("verify", "--key", fingerprint)
    assert verified.exit_code == 0 and verified.stdout.count("6 records removed by retention") == 2
    again = spillway("retain", "--keep", "1y")
    assert again.exit_code == 0 and "no sealed segment is older" in again.stderr


def test_a_hold_keeps_what_it_covers_and_says_so(audit: Path) -> None:
    hold(audit)
    done = spillway("retain", "--keep", "1y")
    assert done.exit_code == 0 and done.stdout.count("stays: hold h1") == 3 and done.stdout.count("removed") == 3
    assert removed(audit / "slot-1") == [False] * 4 and removed(audit / "slot-0") == [True, True, True, False]
    hold(audit, change="released")
    assert spillway("retain", "--keep", "1y").stdout.count("removed") == 3
    assert removed(audit / "slot-1") == [True, True, True, False]


def test_a_log_that_does_not_verify_loses_nothing(audit: Path) -> None:
    victim = segments(audit / "slot-1")[0].path
    victim.chmod(0o600)
    victim.write_bytes(victim.read_bytes().replace(b'"clinic"', b'"clinix"', 1))
    done = spillway("retain", "--keep", "1y")
    assert (done.exit_code, done.stdout) == (1, "") and "does not verify" in done.stderr
    assert removed(audit / "slot-0") == [False] * 4
    victim.write_bytes(b"nonsense\n")
    assert spillway("retain", "--keep", "1y").exit_code == 1


def test_how_long_must_be_said(audit: Path) -> None:
    done = spillway("retain")
    assert done.exit_code == 2 and "audit: {retention: 6y}" in done.stderr
    for wrong in ("6", "6 years", "0d", "for ever"):
        done = spillway("retain", "--keep", wrong)
        assert (done.exit_code, done.stdout) == (2, "") and "--keep" in done.stderr
    (audit.parent / "spillway.yaml").write_text("audit: {retention: 1y}\n")
    assert spillway("retain", "--dry-run").stdout.count("would go") == 6
    (audit.parent / "spillway.yaml").write_text("audit: {retention: 2y}\n")
    assert "no sealed segment is older" in spillway("retain").stderr
    (audit.parent / "spillway.yaml").write_text("audit: {dir: elsewhere}\n")
    assert spillway("retain", "--keep", "1y").exit_code == 1
