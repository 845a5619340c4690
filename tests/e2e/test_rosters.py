"""The supervisor's roster over the slots of a running Spillway, and what `spillway audit` says of a slot that is gone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from logs import DAY
from stack import ROOT, free_port
from tests_records import decision, outcome

from compliance import verify
from compliance.journal import Journal, load_or_create_key

pytestmark = pytest.mark.e2e
CLEAN = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
ENVIRON = {**CLEAN, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "200"}


def spillway(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "proxy", *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        env=ENVIRON,
    )


def serve(directory: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "proxy", "serve", "--port", str(free_port()), "--workers", "2"],
        cwd=directory, env=ENVIRON, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if "curl" in line:
            break
    return process


def named(directory: Path) -> set[str]:
    """The slots that rosters name so far."""
    found = verify.verify_directory(directory / "audit").rosters
    assert found is None or found.problem is None
    return {origin.rpartition("/")[2] for origin in found.marks} if found is not None else set()


def test_the_roster_names_every_slot_over_restarts_and_kills(tmp_path: Path) -> None:
    (tmp_path / "spillway.yaml").write_text("audit: {retention: 6y}\n")
    for way in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
        process = serve(tmp_path)
        until = time.monotonic() + 30
        while not {"slot-0", "slot-1"} <= named(tmp_path):
            assert time.monotonic() < until
            time.sleep(0.1)
        process.send_signal(way)
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()
        if way == signal.SIGKILL:
            time.sleep(3)  # workers notice that the supervisor is gone, and stop
    assert spillway(tmp_path, "keys", "create", "app").returncode == 0
    assert named(tmp_path) == {"cli", "slot-0", "slot-1"}
    kept = spillway(tmp_path, "audit", "checkpoint")
    assert kept.stdout.count("/roster\n") == 1
    (tmp_path / "kept.txt").write_text(kept.stdout)
    report = verify.verify_directory(tmp_path / "audit", since=kept.stdout.encode())
    assert report.status == verify.VERIFIED, verify.words(report)
    assert all(slot.covered == slot.records for slot in report.slots)
    done = spillway(tmp_path, "audit", "retain", "--dry-run", "--json")
    assert (done.returncode, json.loads(done.stdout)["segments"]) == (0, []), done.stderr
    shutil.rmtree(tmp_path / "audit" / "slot-1")
    for arguments in ([], ["--since", "kept.txt"]):
        gone = spillway(tmp_path, "audit", "verify", *arguments)
        assert gone.returncode == 1 and "slot-1, and its log is not here" in gone.stdout


def test_old_records_go_while_workers_write(tmp_path: Path) -> None:
    """Two slots with three days of 400 days ago, gone on with by workers; retention, a kill, a restart."""
    audit = tmp_path / "audit"
    audit.mkdir()
    (audit / "instance").write_text("inst")
    key = load_or_create_key(audit / "key")
    old = time.time_ns() // 1000 - 400 * DAY
    for slot in ("slot-0", "slot-1"):
        for day in range(3):
            journal = Journal.open(audit / slot, origin=f"inst/{slot}", key=key)
            for number in range(20):
                at = old + day * DAY + number
                journal.append(decision(f"{slot}-{day}-{number}", at=at))
                journal.append(outcome(f"{slot}-{day}-{number}", at=at))
            journal.close()
    (tmp_path / "spillway.yaml").write_text("audit: {retention: 1y}\n")
    for way in (signal.SIGKILL, signal.SIGTERM):
        process = serve(tmp_path)
        done = spillway(tmp_path, "audit", "retain", "--json")
        assert done.returncode == 0, done.stderr
        gone = json.loads(done.stdout)["segments"]
        assert [(row["records"], row["kept"]) for row in gone] == ([(40, "")] * 6 if way == signal.SIGKILL else [])
        process.send_signal(way)
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()
        if way == signal.SIGKILL:
            time.sleep(3)
    report = verify.verify_directory(audit, fingerprint=verify.read_key(audit / "slot-0" / "key.pub")[2])
    assert report.status == verify.VERIFIED, verify.words(report)
    assert [(slot.origin, slot.removed) for slot in report.slots[1:]] == [
        (f"inst/{slot}", [(0, 39), (40, 79), (80, 119)]) for slot in ("slot-0", "slot-1")
    ]
    found = spillway(tmp_path, "audit", "search", "--kind", "started", "--json", "--limit", "0")
    assert found.stdout.count('"started"') == 4, found.stderr
