"""`spillway audit` in this process: search, export, checkpoint and verify over small logs."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from auditing import write
from click.testing import Result
from logs import BEGIN, DAY, KEY, write_logs
from tests_records import decision, outcome
from typer.testing import CliRunner

from compliance import verify
from compliance.records import BreakGlass, Captured, CapturesExpired, Erased, PolicyChanged
from proxy.cli import app
from proxy.config import load


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def logs(here: Path) -> list[Path]:
    (here / "audit").mkdir()
    (here / "audit" / "key").write_bytes(base64.b64encode(KEY.private_bytes_raw()))
    (here / "audit" / "key").chmod(0o600)
    return write_logs(here / "audit", runs=3)


def spillway(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["audit", *arguments], catch_exceptions=False)


def test_search_prints_a_table_that_lines_up(logs: list[Path]) -> None:
    done = spillway("search", "--from", "2026-01-02", "--to", "2026-01-02", "--tenant", "lab", "--project", "app3")
    assert (done.exit_code, done.stderr) == (0, "")
    head, *lines = done.stdout.splitlines()
    assert [line[:30].split() for line in lines[:2]] == [
        ["2026-01-02", "03:00:00", "r0-1-3"], ["2026-01-02", "03:00:00", "r1-1-3"],
    ]  # fmt: skip
    assert len(lines) == 4
    for name, cell in (
        ("target", "gpu/llama"),
        ("ending", "failed (=timeout)"),
        ("found", "ssn"),
        ("action", "keep_local"),
    ):
        assert lines[2][head.index(name) :].startswith(cell), lines[2]


def test_search_prints_rows_for_scripts_and_the_newest_of_many(logs: list[Path]) -> None:
    done = spillway("search", "--ending", "open", "--json", "--limit", "0")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["request"] for row in rows] == ["r0-0-8", "r1-0-8", "r0-1-8", "r1-1-8", "r0-2-8", "r1-2-8"]
    assert rows[0]["origin"] == "inst/slot-0" and rows[0]["findings"] == ["ssn:1:messages[0].content"]
    done = spillway("search", "--ending", "open", "--json", "--limit", "2")
    assert [json.loads(line)["request"] for line in done.stdout.splitlines()] == ["r0-2-8", "r1-2-8"]
    assert "the newest 2 of 6" in done.stderr
    assert "key_1" in spillway("search", "--key", "key_1").stdout
    done = spillway("search", "--request", "nothing")
    assert (done.exit_code, done.stdout) == (1, "") and "nothing was found" in done.stderr


@pytest.mark.parametrize(
    "wrong", [["--from", "tomorrow"], ["--from", "1h", "--to", "2h"], ["--from", "999999w"], ["--limit", "-1"]]
)
def test_times_typed_wrong(logs: list[Path], wrong: list[str]) -> None:
    done = spillway("search", *wrong)
    assert (done.exit_code, done.stdout) == (2, "")


def test_times_are_utc_unless_they_say_otherwise(logs: list[Path]) -> None:
    for begin, end, count in (
        ("2026-01-01T01:00", "2026-01-01T02:00", 2),
        ("2026-01-01T01:00+01:00", "2026-01-01T02:00:00+01:00", 2),
        ("2026-01-01T01:00:00.000001", "2026-01-01T02:00:00.000001", 2),
        ("2026-01-01", "2026-01-01", 18),
        ("2025-01-01", "9999-12-31", 55),
    ):
        done = spillway("search", "--from", begin, "--to", end, "--json", "--limit", "0")
        assert len(done.stdout.splitlines()) == count, (begin, end)


def test_a_checkpoint_kept_anchors_what_comes_later(here: Path, logs: list[Path]) -> None:
    done = spillway("checkpoint")
    assert done.exit_code == 0 and "sha256:" in done.stderr
    (here / "kept.txt").write_text(done.stdout)
    rows = json.loads(spillway("checkpoint", "--json").stdout)
    # The look itself is in the log of the command line, and what is handed out covers it.
    assert [(row["origin"], row["size"]) for row in rows[:-1]] == [
        ("inst/cli", 3),
        ("inst/slot-0", 51),
        ("inst/slot-1", 51),
    ]
    logs_of_workers = "".join(row["note"] + "\n" for row in rows[1:-1])
    assert done.stdout.startswith("inst/cli\n2\n") and f"{logs_of_workers}inst/roster\n" in done.stdout
    assert rows[-1]["origin"] == "inst/roster" and "inst/slot-1 51 " in rows[-1]["note"]
    assert spillway("verify", "--since", "kept.txt").exit_code == 0
    write_logs(here / "audit", runs=1)  # a further day, written by the same slots
    assert spillway("verify", "--since", "kept.txt", "--key", rows[0]["key"]).exit_code == 0
    done = spillway("export", "--since", "kept.txt", "--out", "pack", "--from", "2026-01-03")
    assert done.exit_code == 0, done.stderr
    assert spillway("verify", "pack", "--since", "kept.txt").exit_code == 0
    assert spillway("verify", "pack").exit_code == 3


def test_export_writes_a_pack_that_verifies(here: Path, logs: list[Path]) -> None:
    done = spillway("export", "--from", "2026-01-02", "--to", "2026-01-02", "--out", "pack", "--format", "csv")
    assert done.exit_code == 0 and "slot-0: 17 records, proved by the checkpoint of 51" in done.stdout
    assert (here / "pack" / "slot-0" / "records.csv").exists()
    key = verify.verify_directory(logs[0]).slots[0].fingerprint
    done = spillway("verify", "pack", "--key", f"sha256:{key}")
    assert done.exit_code == 0 and "every signed record of the period is here" in done.stdout
    assert spillway("verify", "pack", "--key", "sha256:" + "0" * 64).exit_code == 1
    done = spillway("export", "--request", "r0-1-3", "--out", "one", "--json")
    assert [(row["folder"], row["records"]) for row in json.loads(done.stdout)] == [
        ("cli", 0),
        ("slot-0", 2),
        ("slot-1", 0),
    ]
    assert "chosen by   request r0-1-3" in spillway("verify", "one").stdout


def test_export_keeps_the_policy_that_it_knows(here: Path, logs: list[Path]) -> None:
    from tests_records import decision

    from compliance.journal import Journal

    (here / "spillway.yaml").write_text(
        "engines:\n  gpu: {kind: vllm, replicas: ['http://127.0.0.1:9'], models: {llama: {}}}\n"
    )
    settings = load(here / "spillway.yaml", {})
    (here / "audit" / "policies").mkdir()
    (here / "audit" / "policies" / "7c1ed6c607adac7449e36445801dba18.json").write_text('{"a policy":"whole"}')
    journal = Journal.open(logs[1], origin="inst/slot-0", key=KEY)
    journal.append(decision("now", policy=settings.policy_hash))
    journal.close()
    assert spillway("export", "--out", "pack").exit_code == 0
    held = {path.stem: path.read_bytes() for path in (here / "pack" / "policies").iterdir()}
    assert held == {
        "7c1ed6c607adac7449e36445801dba18": b'{"a policy":"whole"}',
        settings.policy_hash: settings.policy_material,
    }
    assert "2 here, 0 named and not kept" in spillway("verify", "pack").stdout


def test_export_says_what_is_in_the_way(here: Path, logs: list[Path]) -> None:
    def says(words: str, *arguments: str, status: int = 1) -> None:
        done = spillway("export", *arguments)
        assert (done.exit_code, done.stdout) == (status, ""), arguments
        assert words in done.stderr and done.stderr.count("\n") == 1

    says("there is no format", "--out", "pack", "--format", "xlsx", status=2)
    says("cannot be read", "--out", "pack", "--since", "nowhere")
    says("is there already", "--out", "audit")
    says("there is no log", "--out", "pack", "--state-dir", "elsewhere")
    (here / "audit" / "key").chmod(0o644)
    says("chmod 600", "--out", "pack")
    (here / "audit" / "key").unlink()
    says("the log's key signs the pack", "--out", "pack")
    assert not (here / "pack").exists()


def test_no_log_is_no_answer(here: Path) -> None:
    for arguments in (("search",), ("checkpoint",), ("verify",)):
        assert spillway(*arguments).exit_code == 1


def test_what_no_record_can_hold_is_a_slip_and_no_answer(logs: list[Path]) -> None:
    """ "Nothing was found" for a word that was typed wrong would read as if it had never happened."""
    for arguments, words in (
        (("--action", "allowed"), "keep_local"),
        (("--ending", "done"), "completed"),
        (("--tenant", " "), "--tenant is empty"),
        (("--subject", ""), "--subject is empty"),
    ):
        done = spillway("search", *arguments)
        assert (done.exit_code, done.stdout) == (2, "") and words in done.stderr, arguments
    for arguments, heard in (
        (("--finding", "SSN"), False), (("--finding", "ssn", "--from", "2020-01-01", "--to", "2020-01-02"), True),
        (("--target", "gpu", "--tenant", "nobody"), False), (("--target", "cpu"), False), (("--kind", "attempts"), False),
    ):  # fmt: skip
        done = spillway("search", *arguments)
        assert (done.exit_code, done.stdout) == (1, ""), arguments
        assert ("no record of any time has" in done.stderr) is not heard, arguments


def test_what_only_the_answer_held_is_told_apart(here: Path, logs: list[Path]) -> None:
    write(here / "audit", decision("told", findings=("email:1:x",)), outcome("told", findings=("ssn:1:text",)))
    write(here / "audit", decision("heard"), outcome("heard", findings=("ssn:1:text",)))
    assert "email; answer: ssn" in spillway("search", "--request", "told").stdout
    assert "  answer: ssn  " in spillway("search", "--request", "heard").stdout


def test_an_empty_id_is_no_request(logs: list[Path]) -> None:
    """It would be that of everything which is of no request at all."""
    write(
        logs[0].parent,
        PolicyChanged(
            actor="a", at=1, changed=(), config="c", config_before="", policy="p", policy_before="", version="v"
        ),
    )
    for empty in ("", "  "):
        done = spillway("show", empty)
        assert (done.exit_code, done.stdout) == (2, "")


def test_a_period_given_where_checkpoints_belong(here: Path, logs: list[Path]) -> None:
    done = spillway("export", "--since", "2026-01-01", "--out", "pack")
    assert done.exit_code == 1 and "--from says when the period begins" in done.stderr
    assert not (here / "pack").exists()


def test_captures_and_steps_towards_them_are_told_in_words(here: Path, logs: list[Path]) -> None:
    step = {
        "actor": "root",
        "at": 1,
        "by": "alice",
        "opening": "o1",
        "reason": "case 9",
        "request": "q",
        "seconds": 1800,
        "signature": "",
    }
    write(
        here / "audit",
        decision("q"), outcome("q"),
        Captured(answered="aa", at=1, attempt=0, cut=("sent",), data_key="d1", original="bb", parts=("original", "answered"), request="q",
                 sent="", state="kept", subject="", tenant="clinic", why=""),
        BreakGlass(**step, step="approved", until=1_767_225_600_000_000, why=""),
        BreakGlass(**step, step="denied", until=0, why="who asks cannot approve"),
    )  # fmt: skip
    told = spillway("show", "q").stdout
    for words in (
        "was kept, encrypted: original, answered; cut at the limit: sent", "d1, of tenant clinic", "answered aa",
        "operator alice approved that it is read, for 30 minutes", "until       2026-01-01 00:00:00 (UTC)",
        "operator alice was refused a step towards reading it: who asks cannot approve",
    ):  # fmt: skip
        assert words in told, words


def test_a_capture_that_was_erased_or_expired_is_told_as_no_more(here: Path, logs: list[Path]) -> None:
    base = BEGIN + 20_000 * DAY
    day = f"{datetime.fromtimestamp(base / 1e6, UTC):%Y-%m-%d}"

    def captured(request: str, at: int = 5, **fields: Any) -> Captured:
        row = {"subject": "s" * 32, "tenant": "clinic", "state": "kept", **fields}
        return Captured(
            answered="aa", at=base + at, attempt=0, cut=(), data_key="d1", original="bb", parts=("original",), request=request, sent="",
            why="", **row,
        )  # fmt: skip

    def erased(scope: str, value: str, state: str, at: int = 9) -> Erased:
        return Erased(
            actor="root", at=base + at, captures=1, hold="", keys=1, maps=0, reason="request of the patient", records=1, scope=scope,
            state=state, value=value,
        )  # fmt: skip

    others = [
        decision("b"),
        captured("b", subject="t" * 32, tenant="lab"),
        decision("c"),
        captured("c", subject="", tenant="x"),
    ]
    write(here / "audit", decision("a"), captured("a"), *others)
    assert "no more" not in spillway("show", "a").stdout
    write(here / "audit", erased("subject", "s" * 32, "begun"), slot="cli")
    assert f"an erasure was begun on {day} 00:00:00Z, and its end is not recorded" in spillway("show", "a").stdout
    write(here / "audit", erased("subject", "s" * 32, "done"), erased("tenant", "lab", "blocked"), slot="cli")
    told = spillway("show", "a").stdout
    assert f"no more     erased on {day} 00:00:00Z by root, with all of this subject: request of the patient" in told
    assert "no more" not in spillway("show", "b").stdout + spillway("show", "c").stdout
    write(here / "audit", erased("request", "b", "done"), slot="cli")
    assert "with this request alone" in spillway("show", "b").stdout
    write(here / "audit", CapturesExpired(at=base + 20, before=base + 6, captures=1, held=2, keys=0, records=1))
    told = spillway("show", "c").stdout
    assert "removed on" in told and "older than captures are kept, unless a hold kept it (2 were kept)" in told
    # what was captured anew after an erasure is there
    write(here / "audit", decision("e"), captured("e", at=40))
    assert "was kept, encrypted" in spillway("show", "e").stdout and "no more" not in spillway("show", "e").stdout


def test_no_pack_of_nothing_and_none_among_the_logs(here: Path, logs: list[Path]) -> None:
    done = spillway("export", "--request", "nosuch", "--tenant", "clinik", "--out", "pack")
    assert done.exit_code == 1 and "nothing was found" in done.stderr and "tenant 'clinik'" in done.stderr
    done = spillway("export", "--out", str(here / "audit" / "pack"))
    assert done.exit_code == 2 and "among the logs" in done.stderr
    assert not (here / "pack").exists() and not (here / "audit" / "pack").exists()
    assert (
        spillway("export", "--from", "2020-01-01", "--to", "2020-01-02", "--out", "pack").exit_code == 0
    )  # there was nothing
