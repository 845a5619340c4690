"""Search and evidence packs over real logs: what is chosen, what is written, what the verifier says of it in words."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from logs import BEGIN, DAY, KEY, POLICY, POLICY_HASH, write_logs
from tests_records import decision, outcome

from compliance import evidence, verify
from compliance.evidence import EvidenceError, export
from compliance.journal import Journal, read_lines
from compliance.lookup import Query, Row, rows
from compliance.roster import sign_roster
from compliance.segments import segments

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_logs(tmp_path_factory.mktemp("logs") / "audit")


def search(logs: list[Path], **wanted: object) -> list[Row]:
    return [row for log in logs for row in rows(log, Query(**wanted))]  # type: ignore[arg-type]


# --- search -------------------------------------------------------------------------------------------------


def test_an_attempt_is_one_row_of_its_decision_and_its_outcome(logs: list[Path]) -> None:
    (row,) = search(logs, request=("r0-1-7",))
    assert (row.at, row.kind, row.ending, row.error) == (
        BEGIN + DAY + 7 * 3_600_000_000,
        "attempt",
        "failed",
        "=timeout",
    )
    assert (row.tenant, row.project, row.target, row.cost, len(row.seqs)) == ("lab", "app3", "gpu/llama", 7, 2)
    assert row.findings == ("ssn:1:messages[0].content",)


def test_each_field_chooses_and_fields_choose_together(logs: list[Path]) -> None:
    assert len(search(logs)) == 91
    assert len(search(logs, tenant=("clinic",))) == 50
    assert len(search(logs, tenant=("clinic", "lab"))) == 90
    assert len(search(logs, project=("app0",))) == 30
    assert len(search(logs, key=("key_1",))) == 1
    assert len(search(logs, action=("allow",))) == len(search(logs, target=("sky",))) == 30
    assert len(search(logs, target=("sky/gpt",))) == 30 and not search(logs, target=("sky/other",))
    assert len(search(logs, rule=("default",))) == 90
    assert len(search(logs, finding=("ssn",))) == 60
    assert len(search(logs, ending=("failed",))) == len(search(logs, ending=("open",))) == 10
    assert len(search(logs, tenant=("clinic",), finding=("ssn",))) == 30
    assert not search(logs, tenant=("nobody",))


def test_the_time_is_the_decisions_and_the_end_is_not_included(logs: list[Path]) -> None:
    at = BEGIN + 2 * DAY
    assert [row.request for row in search(logs, begin=at, end=at + 1)] == ["r0-2-0", "r1-2-0"]
    assert [row.ending for row in search(logs, begin=at, end=at + 1)] == ["completed", "completed"]
    assert not search(logs, begin=at + 1, end=at + 1001)  # two outcomes of earlier decisions lie there
    assert len(search(logs, begin=at)) == 54 and len(search(logs, end=at)) == 37


def test_what_an_answer_held_and_every_token_is_in_the_row(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "slot-0", origin="i/slot-0", key=KEY)
    journal.append(decision("a", findings=("mrn:1:x",)))
    journal.append(decision("a", attempt=1))
    journal.append(outcome("a", findings=("ssn:2:answer",), input=1, cache_read=2, cache_write_5m=3, cache_write_1h=4))
    journal.close()
    first, second = rows(tmp_path / "slot-0", Query(), origin="i/slot-0")
    assert (first.findings, first.input, first.origin) == (("mrn:1:x", "ssn:2:answer"), 10, "i/slot-0")
    assert (second.attempt, second.ending) == (1, "open")
    assert [row.attempt for row in rows(tmp_path / "slot-0", Query(finding=("ssn",)))] == [0]


# --- packs --------------------------------------------------------------------------------------------------


def test_a_pack_of_a_period_holds_the_records_as_they_are_stored(logs: list[Path], tmp_path: Path) -> None:
    query = Query(begin=BEGIN + DAY, end=BEGIN + 2 * DAY)
    done = export(logs, tmp_path / "pack", key=KEY, query=query, csv=True, policy=lambda _: POLICY)
    assert [(slot.folder, slot.records, slot.size, slot.unsigned) for slot in done] == [
        ("cli", 1, 1, 0), ("slot-0", 17, 85, 0), ("slot-1", 17, 85, 0),
    ]  # fmt: skip
    pack = tmp_path / "pack"
    stored = list(read_lines(logs[1], 17, stop=34))
    assert (pack / "slot-0" / "records.jsonl").read_bytes() == b"".join(line + b"\n" for line in stored)
    assert [json.loads(line)["index"] for line in (pack / "slot-0" / "edges.jsonl").read_text().splitlines()] == [
        16,
        34,
    ]
    assert (pack / "policies" / f"{POLICY_HASH}.json").read_bytes() == POLICY
    with open(pack / "slot-0" / "records.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["request"] for row in table] == [json.loads(line)["request"] for line in stored]
    assert {row["error"] for row in table} == {"", "'=timeout"}  # not a formula
    assert not list(tmp_path.glob("*.part"))
    report = verify.verify_directory(pack)
    assert report.status == verify.UNANCHORED and report.pack is not None
    assert (report.pack.policies, report.pack.policies_missing) == ([POLICY_HASH], [])
    said = verify.words(report)
    assert "every signed record of the period is here" in said and "2026-01-02 00:00:00 up to 2026-01-03" in said


def test_a_period_without_records_is_shown_to_have_none(logs: list[Path], tmp_path: Path) -> None:
    for number, query in enumerate((
        Query(begin=BEGIN + DAY // 2, end=BEGIN + DAY // 2 + 1), Query(end=BEGIN), Query(begin=BEGIN + 400 * DAY),
    )):  # fmt: skip
        pack = tmp_path / str(number)
        assert {slot.records for slot in export(logs, pack, key=KEY, query=query)} == {0}
        report = verify.verify_directory(pack)
        assert report.status == verify.UNANCHORED, verify.words(report)


def test_chosen_requests_are_whole_and_nothing_is_said_of_others(logs: list[Path], tmp_path: Path) -> None:
    query = Query(begin=BEGIN, end=BEGIN + 1, tenant=("clinic",))  # before their outcomes
    export(logs, tmp_path / "pack", key=KEY, query=query)
    lines = (tmp_path / "pack" / "slot-0" / "records.jsonl").read_text().splitlines()
    assert [(row["kind"], row["request"]) for row in map(json.loads, lines)] == [
        ("decision", "r0-0-0"), ("outcome", "r0-0-0"),
    ]  # fmt: skip
    report = verify.verify_directory(tmp_path / "pack")
    assert report.status == verify.UNANCHORED
    assert "chosen by   tenant clinic: what is here is in the log" in verify.words(report)
    assert report.pack is not None and report.pack.policies_missing == [POLICY_HASH]


def test_an_auditors_checkpoint_is_continued(logs: list[Path], tmp_path: Path) -> None:
    """Whatever the period; without it the pack says what to ask for."""
    kept = b"".join(verify.read_notes(log / "checkpoints")[0] + b"\n" for log in logs)
    query = Query(begin=BEGIN + 3 * DAY)
    export(logs, tmp_path / "without", key=KEY, query=query)
    report = verify.verify_directory(tmp_path / "without", since=kept)
    assert report.status == verify.NOT_VERIFIED
    assert "ask for an export with --since" in verify.words(report)
    export(logs, tmp_path / "with", key=KEY, query=query, since=kept)
    assert verify.verify_directory(tmp_path / "with", since=kept).status == verify.VERIFIED
    assert verify.verify_directory(logs[0].parent, since=kept).status == verify.VERIFIED


def test_a_log_that_began_after_the_auditors_visit_is_anchored_by_the_key_of_the_others(
    logs: list[Path], tmp_path: Path
) -> None:
    kept = verify.read_notes(logs[1] / "checkpoints")[0]
    export(logs, tmp_path / "pack", key=KEY, query=Query(), since=kept)
    other = write_logs(tmp_path / "other", key=Ed25519PrivateKey.generate(), runs=1)[0]
    shutil.copytree(logs[1], tmp_path / "audit" / "slot-0")
    shutil.copytree(logs[2], tmp_path / "audit" / "slot-1")
    sign_roster(tmp_path / "audit", "inst", KEY)
    for path in (tmp_path / "pack", tmp_path / "audit"):
        assert verify.verify_directory(path, since=kept).status == verify.VERIFIED
    shutil.copytree(other, tmp_path / "audit" / "cli")  # signed by somebody else
    report = verify.verify_directory(tmp_path / "audit", since=kept)
    assert [slot.anchored for slot in report.slots] == [False, True, True]
    assert report.status == verify.NOT_VERIFIED
    assert "not the key that signed the roster" in verify.words(report)
    for name in verify.ROSTER:
        (tmp_path / "audit" / name).unlink()
    report = verify.verify_directory(tmp_path / "audit", since=kept)
    assert [slot.anchored for slot in report.slots] == [False, True, True]
    assert report.status == verify.UNANCHORED and "roster: none" in verify.words(report)


def test_a_log_that_the_auditor_saw_and_that_is_gone_is_missed(logs: list[Path], tmp_path: Path) -> None:
    kept = b"".join(verify.read_notes(log / "checkpoints")[-1] + b"\n" for log in logs)
    shutil.copytree(logs[0].parent, tmp_path / "audit", ignore=shutil.ignore_patterns("slot-1"))
    shutil.copytree(tmp_path / "audit", tmp_path / "fewer", ignore=shutil.ignore_patterns("roster*"))
    fewer = sorted(key.parent for key in (tmp_path / "fewer").glob("*/key.pub"))
    export(fewer, tmp_path / "pack", key=KEY, query=Query())
    for path in (tmp_path / "pack", tmp_path / "audit"):
        report = verify.verify_directory(path, since=kept)
        assert (report.status, report.missing) == (verify.NOT_VERIFIED, ["inst/slot-1"])
        assert "its log is not here" in verify.words(report)
    for given, since in ((logs[:2], b""), (fewer, kept)):
        with pytest.raises(EvidenceError, match="names inst/slot-1, and its log is not among these"):
            export(given, tmp_path / "no", key=KEY, query=Query(), since=since)


def test_no_pack_is_made_of_what_does_not_fit(logs: list[Path], tmp_path: Path) -> None:
    def refused(words: str, given: list[Path] = logs, out: Path = tmp_path / "out", **options: object) -> None:
        with pytest.raises(EvidenceError, match=words):
            export(given, out, **({"key": KEY, "query": Query()} | options))  # type: ignore[arg-type]
        assert not (tmp_path / "out").exists() and not list(tmp_path.glob("*.part"))

    refused("no log", [])
    refused("another key", key=Ed25519PrivateKey.generate())
    refused("not a signed note", since=b"something\n")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    refused("is there already", out=tmp_path / "full")
    assert (tmp_path / "full" / "file").read_text() == "mine"
    refused("cannot be used", out=tmp_path / "full" / "file" / "below")
    shutil.copytree(logs[1], tmp_path / "slot-0")
    segment = segments(tmp_path / "slot-0")[1].path
    segment.chmod(0o600)
    segment.write_bytes(segment.read_bytes().replace(b'"allow"', b'"block"', 1))
    refused("not what its checkpoint says", [tmp_path / "slot-0"])
    notes = tmp_path / "slot-0" / "checkpoints"
    notes.write_bytes(notes.read_bytes().replace(b"\n85\n", b"\n84\n"))
    refused("signature", [tmp_path / "slot-0"])


def test_what_no_checkpoint_covers_yet_is_counted_and_left_out(tmp_path: Path) -> None:
    (log,) = [log for log in write_logs(tmp_path / "audit") if log.name == "slot-0"]
    (tmp_path / "audit" / "roster").unlink()
    notes = verify.read_notes(log / "checkpoints")
    (log / "checkpoints").write_bytes(b"".join(note + b"\n" for note in notes[:4]) + notes[4][:50])
    (slot,) = export([log], tmp_path / "pack", key=KEY, query=Query())
    assert (slot.size, slot.records, slot.unsigned) == (68, 68, 17)
    assert verify.verify_directory(tmp_path / "pack").status == verify.UNANCHORED
    assert evidence.newest(log) is not None and evidence.newest(log)[1].size == 68  # type: ignore[index]


def test_what_nobody_signed_is_not_verified_by_a_fingerprint(tmp_path: Path) -> None:
    """Without its checkpoints a log could hold anything under the right key's name."""
    log = write_logs(tmp_path / "audit", runs=1)[1]
    (tmp_path / "audit" / "roster").unlink()
    fingerprint = verify.verify_directory(log).slots[0].fingerprint
    (log / "checkpoints").unlink()
    report = verify.verify_directory(log, fingerprint=fingerprint)
    assert report.status == verify.UNANCHORED and "nothing is signed yet" in verify.words(report)
    export([log], tmp_path / "pack", key=KEY, query=Query())
    assert verify.verify_directory(tmp_path / "pack", fingerprint=fingerprint).status == verify.UNANCHORED
    assert verify.verify_directory(log, fingerprint=fingerprint[:31]).status == verify.NOT_VERIFIED


def test_the_verifier_takes_a_pack_from_a_copied_file(logs: list[Path], tmp_path: Path) -> None:
    export(logs, tmp_path / "pack", key=KEY, query=Query(), csv=True)
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(ROOT / "compliance" / "verify.py", tmp_path / "elsewhere")
    fingerprint = verify.verify_directory(tmp_path / "pack").slots[0].fingerprint

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", str(tmp_path / "elsewhere" / "verify.py"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    assert run("pack").returncode == verify.UNANCHORED
    done = run("pack", "--key", f"sha256:{fingerprint}", "--json")
    assert (done.returncode, json.loads(done.stdout)["status"]) == (0, 0), done.stderr
    assert run("pack", "--since", "nowhere").returncode == verify.WRONG_USE
    (tmp_path / "pack" / "manifest.json").unlink()
    done = run("pack", "--key", fingerprint)
    assert done.returncode == verify.NOT_VERIFIED and "manifest.json is missing" in done.stdout


def test_the_steps_of_the_docstring_are_the_steps_of_the_code() -> None:
    source = (ROOT / "compliance" / "verify.py").read_text()
    assert verify.__doc__ is not None
    code = source.partition(verify.__doc__)[2]
    for name in re.findall(r"^    (P?\d+)\. ", verify.__doc__, re.MULTILINE):
        assert re.search(rf"# (?:[^\n]*[ ,])?{name}[a-z]?[.,:]", code), name
    assert len(re.findall(r"^    (P?\d+)\. ", verify.__doc__, re.MULTILINE)) == 20
