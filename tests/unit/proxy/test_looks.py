"""Looks into the log leave records before anything is shown; so do keys and canaries; and one request is told in words."""

from __future__ import annotations

import fcntl
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from auditing import PSEUDONYMS, SUBJECT, looks, small_log, spillway, write
from logs import BEGIN
from tests_records import decision, outcome

from compliance.segments import read_lines
from proxy import control_log
from proxy.fingerprints import account
from proxy.recording import subject_pseudonym, user_pseudonym
from proxy.reports.story import found_words, story, veto_words


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def logs(here: Path) -> Path:
    return small_log(here)


# --- looks --------------------------------------------------------------------------------------------------


def test_each_look_is_recorded_with_its_fields_by_name_and_how_much_was_shown(logs: Path) -> None:
    spillway(
        "search", "--tenant", "clinic", "--finding", "ssn", "--actor", "jane.roe@clinic.example", "--from", "2026-01-01"
    )
    spillway("search", "--tenant", "clinic", "--limit", "2")
    spillway("show", "r0-0-1")
    spillway("show", "no such request at all")
    spillway("export", "--out", "pack", "--request", "r0-0-1", "--format", "csv")
    spillway("report", "refusals")
    spillway("verify")
    spillway("checkpoint")
    spillway("verify", "pack")  # a pack's own reader is no reader of this log
    told = [(look["command"], look["filters"], look["found"], look["request"], look["result"]) for look in looks(logs)]
    assert told == [
        ("search", ["tenant", "actor", "finding"], 0, "", ""),
        ("search", ["tenant"], 2, "", ""),
        ("show", ["request"], 2, "r0-0-1", ""),
        ("show", ["request"], 0, "", ""),
        ("export", ["request"], 3, "", "csv"),  # its two records, and who looked at it
        ("report refusals", [], 18 + 1 + 5, "", ""),
        ("verify", [], 0, "", "consistent, unanchored"),
        ("checkpoint", [], 3, "", ""),
    ]
    first = looks(logs)[0]
    assert first["actor"] == account() and first["begin"] == BEGIN
    whole = b"".join(read_lines(logs / "cli"))
    assert b"jane" not in whole and b"clinic" not in whole and b"no such" not in whole
    shown = spillway("show", "r0-0-1").stdout
    assert f"looked at by {account()}, with show" in shown


def test_looks_are_verified_like_the_rest(logs: Path) -> None:
    spillway("search")
    assert spillway("verify").exit_code == 3
    (segment,) = [path for path in (logs / "cli").glob("segment-*") if b'"command":"search"' in path.read_bytes()]
    segment.chmod(0o644)
    segment.write_bytes(segment.read_bytes().replace(b'"command":"search"', b'"command":"export"'))
    done = spillway("verify")
    assert done.exit_code == 1 and "NOT VERIFIED" in done.stdout


def test_a_search_hides_looks_until_they_are_asked_for(logs: Path) -> None:
    spillway("search")
    assert "log_access" not in spillway("search", "--limit", "0").stdout
    assert spillway("search", "--kind", "log_access").stdout.count("log_access by") == 2
    assert "log_access" in spillway("search", "--actor", account()).stdout


LOOKS = (("search",), ("show", "r0-0-1"), ("export", "--out", "pack"), ("report", "access"), ("attest", "--list"))


@pytest.mark.parametrize("arguments", LOOKS)
def test_a_look_that_cannot_be_recorded_is_refused(
    logs: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setattr(control_log, "OPEN_SECONDS", 0.1)
    spillway("search")
    with open(logs / "cli" / "lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = spillway(*arguments)
        assert (done.exit_code, done.stdout) == (1, "")
        assert "nothing is shown" in done.stderr and "--unrecorded" in done.stderr
        assert not Path("pack").exists()
        done = spillway(*arguments, "--unrecorded")
        assert done.exit_code == 0 and "no record of this look was made" in done.stderr
    if arguments[0] == "report":
        assert "No record of this look was made" in done.stdout
        assert "No record of this look was made" in spillway(*arguments, "--unrecorded").stdout or len(looks(logs)) > 1


def test_unrecorded_hides_nothing_where_a_record_can_be_made(logs: Path) -> None:
    done = spillway("report", "access", "--unrecorded")
    assert done.exit_code == 0 and "No record of this look" not in done.stdout
    assert [look["command"] for look in looks(logs)] == ["report access"]


def test_a_copy_without_the_key_gets_neither_a_key_nor_a_log(logs: Path, here: Path) -> None:
    (logs / "key").unlink()
    before = sorted(path.name for path in logs.rglob("*"))
    assert spillway("search").exit_code == 1
    done = spillway("search", "--unrecorded")
    assert done.exit_code == 0 and "r0-0-1" in done.stdout and "as in a copy" in done.stderr
    assert spillway("verify").exit_code == 3
    assert spillway("search", "--unrecorded", "--subject", "0" * 32).exit_code == 1  # a pseudonym needs no key
    done = spillway("search", "--unrecorded", "--subject", SUBJECT)
    assert done.exit_code == 1 and "takes the log's key" in done.stderr and SUBJECT not in done.stderr
    assert sorted(path.name for path in logs.rglob("*")) == before


def test_two_commands_wait_for_each_other(logs: Path) -> None:
    with open(logs / "cli" / "lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        holder = subprocess.Popen(["sleep", "0.3"], pass_fds=(lock.fileno(),))
    done = spillway("search")  # until that process ends, the lock is held
    assert done.exit_code == 0 and holder.wait() == 0


def test_a_log_that_cannot_be_read_is_said_to_be_damaged(logs: Path) -> None:
    (segment,) = (logs / "slot-0").glob("segment-*")
    segment.chmod(0o644)
    segment.write_bytes(segment.read_bytes().replace(b'{"action"', b'{action"', 1))
    for arguments in (("search",), ("report", "policy"), ("show", "r0-0-1")):
        done = spillway(*arguments)
        assert (done.exit_code, done.stdout) == (1, "") and "record 0 of inst/slot-0 is none" in done.stderr
        assert "verify" in done.stderr and done.stderr.count("\n") == 1


# --- who and whose ------------------------------------------------------------------------------------------


def test_users_and_subjects_are_found_by_their_names_or_pseudonyms(logs: Path) -> None:
    subject, user = subject_pseudonym(PSEUDONYMS, SUBJECT), user_pseudonym(PSEUDONYMS, "jane.roe")
    write(logs, decision("mine", subject=subject, actor=user), outcome("mine"))
    for option, value in (("--subject", SUBJECT), ("--subject", subject), ("--actor", "jane.roe"), ("--actor", user)):
        rows = [json.loads(line) for line in spillway("search", option, value, "--json").stdout.splitlines()]
        assert [row["request"] for row in rows] == ["mine"], option
    spillway("export", "--subject", SUBJECT, "--out", "pack")
    manifest = json.loads(Path("pack/manifest.json").read_text())
    assert manifest["chosen"] == {"subject": [subject]} and SUBJECT not in Path("pack/manifest.json").read_text()


def test_an_account_is_what_the_system_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USER", "LOGNAME", "SUDO_USER"):
        monkeypatch.setenv(name, "somebody else")
    assert "somebody" not in account() and account()


# --- keys and canaries --------------------------------------------------------------------------------------


def test_a_key_that_cannot_be_recorded_is_not_made_but_a_revoked_one_goes(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_log, "OPEN_SECONDS", 0.1)
    assert spillway("create", "app", "--project", "triage", "--local-only", "--days", "2", group="keys").exit_code == 0
    (made,) = [json.loads(line) for line in read_lines(here / "audit" / "cli")]
    assert (made["change"], made["name"], made["project"], made["boundaries"]) == (
        "created",
        "app",
        "triage",
        ["local"],
    )
    assert made["actor"] == account() and made["expires"] > 1_700_000_000 and made["models"] == []
    with open(here / "audit" / "cli" / "lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = spillway("create", "other", group="keys")
        assert (done.exit_code, done.stdout) == (1, "") and "nothing was changed" in done.stderr
        done = spillway("revoke", "app", group="keys")
        assert done.exit_code == 1 and done.stdout.startswith("key_") and "is revoked, but the record" in done.stderr
    rows = json.loads(spillway("list", "--json", group="keys").stdout)
    assert [(row["name"], row["revoked"] is None) for row in rows] == [("app", False)]


# --- one request --------------------------------------------------------------------------------------------


def test_a_story_says_why_and_why_not() -> None:
    assert (
        found_words("ssn:2:messages[0].content:95:4-15,20-31")
        == "ssn x 2 in messages[0].content, characters 4-15, 20-31 (95 % sure)"
    )
    assert found_words("ssn:1:text") == "ssn in text"
    assert found_words("opaque:1:messages[0].content[1]:100") == "opaque in messages[0].content[1] (100 % sure)"
    assert veto_words("ollama/llama3.1:8b:context:about 9000 tokens of 8192") == (
        "ollama/llama3.1:8b: context, the prompt was too long for it (about 9000 tokens of 8192)"
    )
    assert veto_words("gpu/m:somebody's own reason") == "gpu/m:somebody's own reason"
    told = story(
        "r", [{"kind": "decision", "seq": 0, **_fields(decision("r", at=10, boundary="cloud", contract="", overflow="saturated", vetoes=("gpu/m:saturated:1 in flight of 1",)))},
              {"kind": "something new", "seq": 1, "at": 20, "request": "r", "says": "\x1b[2Jword", "empty": ""}], ["i/slot-0, records 0, 1"],
    )  # fmt: skip
    assert "contract    none on record" in told and "it left home because the first choice there: saturated" in told
    assert "gpu/m: saturated, it was busy (1 in flight of 1)" in told
    assert "attempt 0 is open" in told
    assert "something new" in told and "says        ?[2Jword" in told and "\x1b" not in told


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__struct_fields__}


def test_the_detectors_version_follows_what_looks(here: Path) -> None:
    from proxy.config import load
    from proxy.fingerprints import detectors_version

    engines = "engines: {e: {kind: vllm, replicas: ['http://127.0.0.1:9'], models: {m: {}}}}\n"
    own = "compliance: {detectors: {badge: {pattern: 'QX[0-9]{6}', label: badge, matches: ['badge QX123456']}}}\n"
    versions = [
        detectors_version(load(engines + more, {}))
        for more in (
            "",
            own,
            own.replace("{6}", "{7}").replace("123456", "1234567"),
            "compliance: {tier: fast}\n",
            "limits: {attempts: 2}\n",
        )
    ]
    assert len(set(versions)) == 4 and versions[0] == versions[4] and versions[3].startswith("fast-")


def test_parquet_needs_its_extra_and_a_place(logs: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "pack.parquet").write_text("something")
    done = spillway("export", "--out", "pack", "--format", "parquet")
    assert done.exit_code == 1 and "is there already" in done.stderr and not (here / "pack").exists()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = spillway("export", "--out", "other", "--format", "parquet")
    assert done.exit_code == 1 and "spillway[parquet]" in done.stderr and not (here / "other").exists()
    assert not looks(logs)


def test_a_canary_knows_an_undeclared_model_by_its_engine() -> None:
    from proxy.canary import Result
    from proxy.canary_live import _called

    result = Result(
        part="kind", name="ssn", surface="openai.chat", model="canary", finding="ssn", tenant="",
        promise={"sky/canary": "keep_local", "home/m": "allow"}, forbidden=("sky/canary",),
    )  # fmt: skip
    assert _called("sky/~0123456789abcdef", result) == "sky/canary"
    assert _called("other/~0123456789abcdef", result) == "other/~0123456789abcdef"
    assert _called("home/m", result) == "home/m"


def test_what_was_added_to_the_operators_log_is_set_aside_and_told(logs: Path) -> None:
    """A forged last record has no MAC, or one of another place; a killed command's has its own."""
    spillway("search", "--limit", "1")
    segment = max((logs / "cli").glob("segment-*.jsonl"))
    last = json.loads(segment.read_bytes().splitlines()[-1])
    forged = dict(last, seq=last["seq"] + 1, command="nothing")
    segment.write_bytes(
        segment.read_bytes() + json.dumps(forged, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    )
    spillway("search", "--limit", "1")
    records = [json.loads(line) for line in read_lines(logs / "cli")]
    assert [(record["kind"], record.get("unsigned"), record.get("unauthenticated")) for record in records[-3:]] == [
        ("log_access", None, None), ("started", 0, 1), ("log_access", None, None),
    ]  # fmt: skip
    assert not any(record.get("command") == "nothing" for record in records)
    (aside,) = (logs / "cli").glob("unauthenticated-*")
    assert json.loads(aside.read_bytes()) == forged
    row = next(
        line for line in spillway("report", "policy").stdout.splitlines() if "inst/cli" in line and "started" in line
    )
    assert row.split()[-2:] == ["-", "1"]
    spillway("search", "--limit", "1")
    assert sum(json.loads(line)["kind"] == "started" for line in read_lines(logs / "cli")) == 1
