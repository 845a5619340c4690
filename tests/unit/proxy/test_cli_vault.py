"""`spillway vault`, `audit hold` and `audit erase` in this process: wrong use, tables, and what each leaves in the log."""

from __future__ import annotations

import json
import stat
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from captures import Spy, capture, everything
from click.testing import Result
from tests_records import decision
from typer.testing import CliRunner

from compliance import breakglass
from compliance.control import control_records, holds_in_force
from compliance.journal import load_or_create_key as load_key
from compliance.masterkeys import create_key
from compliance.vault import Vault
from compliance.verify import verify_directory
from proxy.cli import app
from proxy.control_log import pen
from proxy.state.pseudonyms import Owner, PseudonymStore, load_or_create_key

REASON = ("--reason", "request 2026-118")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spillway.yaml").write_text(yaml.safe_dump({"audit": {"captures": {}}}))
    return tmp_path


def spillway(*arguments: str, code: int = 0, stdin: str | None = None) -> Result:
    done = CliRunner().invoke(app, list(arguments), input=stdin, catch_exceptions=False)
    assert done.exit_code == code, f"{arguments}: {done.exit_code}\n{done.stdout}\n{done.stderr}"
    return done


def kept(here: Path, *requests: str, subject: str = "s1", tenant: str = "clinic") -> None:
    create_key(here / "state" / "vault.key")
    vault = Vault(here / "state" / "vault.db", Spy(here / "state" / "vault.key"))
    now = time.time_ns() // 1000
    vault.put([capture(request, subject=subject, tenant=tenant, at=now) for request in requests])
    vault.close()


def operators(*names: str) -> None:
    for name in names:
        spillway("vault", "operator", "add", name, "--out", f"{name}.key")


def steps(here: Path) -> list[tuple[str, str, str]]:
    return [(row.by, row.step, row.why) for row in control_records(here / "audit", ["break_glass"])]


# --- the master key and the operators ---------------------------------------------------------------------------


def test_init_makes_the_key_once_and_refuses_one_that_others_can_read(here: Path) -> None:
    assert spillway("vault", "init").stdout == "the master key works\n"
    before = (here / "state" / "vault.key").read_bytes()
    assert "there is the master key" in spillway("vault", "init").stderr
    assert (here / "state" / "vault.key").read_bytes() == before
    (here / "state" / "vault.key").chmod(0o644)
    assert "chmod 600" in spillway("vault", "init", code=1).stderr
    (here / "spillway.yaml").write_text(yaml.safe_dump({"audit": {"captures": {"kms": {"command": ["/bin/false"]}}}}))
    assert "ended with 1 on wrap" in spillway("vault", "init", code=1).stderr


def test_operators_are_listed_and_their_keys_are_for_their_holders_alone(here: Path) -> None:
    assert "make two" in spillway("vault", "operator", "list").stderr
    operators("alice", "bob", "cy")
    assert stat.S_IMODE((here / "alice.key").stat().st_mode) == 0o600
    assert "introduced by one of them" in spillway("vault", "operator", "add", "dee", "--out", "dee.key", code=1).stderr
    assert not (here / "dee.key").exists()
    spillway("vault", "operator", "add", "dee", "--out", "dee.key", "--as", "alice.key")
    assert (
        "is there already"
        in spillway("vault", "operator", "add", "eve", "--out", "bob.key", "--as", "cy.key", code=1).stderr
    )
    assert (
        "choose another name"
        in spillway("vault", "operator", "add", "bob", "--out", "b.key", "--as", "cy.key", code=1).stderr
    )
    assert "printable" in spillway("vault", "operator", "add", " x", "--out", "x.key", code=2).stderr
    spillway("vault", "operator", "remove", "bob", "--as", "cy.key")
    assert "is no operator" in spillway("vault", "operator", "remove", "bob", "--as", "cy.key", code=1).stderr
    assert "no operator's here" in spillway("vault", "operator", "remove", "cy", "--as", "bob.key", code=1).stderr
    rows = json.loads(spillway("vault", "operator", "list", "--json").stdout)
    assert [(row["name"], row["by"]) for row in rows] == [("alice", ""), ("cy", ""), ("dee", "alice")]
    head, *lines = spillway("vault", "operator", "list").stdout.splitlines()
    assert [line[head.index("introduced by") :].split()[0] for line in lines] == ["-", "-", "alice"]
    assert json.loads((here / "alice.key").read_text())["private"].encode() not in everything(here / "audit")


def test_a_credential_that_others_can_read_or_that_is_none(here: Path) -> None:
    kept(here, "r1")
    operators("alice")
    (here / "alice.key").chmod(0o640)
    assert "chmod 600" in spillway("vault", "open", "r1", "--as", "alice.key", *REASON, code=2).stderr
    (here / "no.key").write_text("{}")
    (here / "no.key").chmod(0o600)
    assert "no operator's key file" in spillway("vault", "open", "r1", "--as", "no.key", *REASON, code=2).stderr
    assert "cannot be read" in spillway("vault", "open", "r1", "--as", "away.key", *REASON, code=2).stderr


# --- opening ----------------------------------------------------------------------------------------------------


def test_every_step_leaves_its_record_also_what_is_refused(here: Path) -> None:
    kept(here, "r1")
    operators("alice", "bob", "cy")
    assert "nothing is kept" in spillway("vault", "open", "r2", "--as", "alice.key", *REASON, code=1).stderr
    assert "REQUEST_ID" in spillway("vault", "open", "r 2", "--as", "alice.key", *REASON, code=2).stderr
    opening = spillway("vault", "open", "r1", "--as", "alice.key", *REASON).stdout.strip()
    spillway("vault", "read", opening, "--as", "alice.key", code=1)
    spillway("vault", "approve", opening, "--as", "alice.key", code=1)
    assert "alice may read request r1 until" in spillway("vault", "approve", opening, "--as", "bob.key").stdout
    spillway("vault", "approve", opening, "--as", "cy.key", code=1)
    spillway("vault", "read", opening, "--as", "bob.key", code=1)
    spillway("vault", "operator", "remove", "cy", "--as", "bob.key")
    spillway("vault", "read", opening, "--as", "cy.key", code=1)
    assert "there is no request" in spillway("vault", "read", "nothing", "--as", "alice.key", code=1).stderr
    assert "no part" in spillway("vault", "read", opening, "--as", "alice.key", "--part", "all", code=2).stderr
    done = spillway("vault", "read", opening, "--as", "alice.key", "--part", "answered", code=1)
    assert done.stdout == "answered of r1, about s1" and "no commitment to it" in done.stderr  # no worker wrote it
    assert steps(here) == [
        ("alice", "denied", "nothing is kept of this request"), ("alice", "asked", ""), ("alice", "denied", "it is waiting"),
        ("alice", "denied", "who asks cannot approve"), ("bob", "approved", ""), ("cy", "denied", "it is approved"),
        ("bob", "denied", "only who asked may read"), ("cy", "denied", "the key of 'cy' is no operator's here"),
        ("alice", "read", ""),
    ]  # fmt: skip
    glass = breakglass.Glass(control_records(here / "audit", breakglass.KINDS))
    assert glass.openings[opening].approver == "bob"
    report = verify_directory(here / "audit")
    assert [slot.problem for slot in report.slots] == [None]
    assert b"about s1" not in everything(here / "audit")


def test_an_opening_expires_and_can_be_declined(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept(here, "r1")
    operators("alice", "bob")
    first, second = [
        spillway("vault", "open", "r1", "--as", "alice.key", *REASON, "--minutes", "5").stdout.strip() for _ in range(2)
    ]
    spillway("vault", "approve", first, "--as", "bob.key")
    assert "declined" in spillway("vault", "approve", second, "--as", "bob.key", "--decline").stdout
    assert "it is declined" in spillway("vault", "read", second, "--as", "alice.key", code=1).stderr
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + 301 * 1_000_000_000)
    assert "it is expired" in spillway("vault", "read", first, "--as", "alice.key", code=1).stderr
    assert steps(here)[-1] == ("alice", "expired", "it is expired")
    rows = json.loads(spillway("vault", "list", "--json").stdout)
    assert [(row["id"], row["state"]) for row in rows] == [(first, "expired"), (second, "declined")]
    assert spillway("vault", "list").stdout.count("\n") == 3


def test_a_captures_text_cannot_steer_the_terminal(here: Path) -> None:
    from proxy.cli_vault import _shown

    assert _shown("a\x1b[2Jb\nc\td\u202e") == "a\\x1b[2Jb\nc\td\\x202e"


# --- holds and erasure --------------------------------------------------------------------------------------------


def test_holds_are_placed_listed_and_released_and_the_log_is_what_holds_them(here: Path) -> None:
    assert "there is no hold" in spillway("audit", "hold", "list").stderr
    one = spillway("audit", "hold", "add", "--tenant", "clinic", "--reason", "case 12/2026").stdout.strip()
    two = spillway(
        "audit", "hold", "add", "--from", "2026-03-01", "--to", "2026-03-31", "--reason", "inquiry of 2026-03-01"
    )
    three = json.loads(
        spillway("audit", "hold", "add", "--subject", "-", *REASON, "--json", stdin="Q-47110815\n").stdout
    )
    assert len(three["value"]) == 32 and b"Q-47110815" not in b"".join(
        p.read_bytes() for p in (here / "audit" / "cli").iterdir()
    )
    rows = json.loads(spillway("audit", "hold", "list", "--json").stdout)
    assert [(row["id"], row["scope"], row["value"]) for row in rows] == [
        (one, "tenant", "clinic"), (two.stdout.strip(), "period", ""), (three["hold"], "subject", three["value"]),
    ]  # fmt: skip
    table = spillway("audit", "hold", "list").stdout
    assert "2026-03-01 00:00 to 2026-04-01 00:00" in table and "tenant clinic" in table
    assert spillway("audit", "hold", "release", one, "--reason", "case closed").stdout.strip() == one
    assert "no hold in force" in spillway("audit", "hold", "release", one, *REASON, code=1).stderr
    (here / "state").mkdir(exist_ok=True)
    assert {hold.id for hold in holds_in_force(here / "audit")} == {two.stdout.strip(), three["hold"]}
    changes = [(row.change, bool(row.actor)) for row in control_records(here / "audit", ["hold"])]
    assert changes == [("placed", True)] * 3 + [("released", True)]


def test_a_hold_on_a_name_that_no_record_has_says_so(here: Path) -> None:
    """It would keep nothing, and nobody would know until it is too late."""
    assert "--from and --to" in spillway("audit", "hold", "add", *REASON, code=2).stderr
    kept(here, "r1")
    with pen_of(here) as log:
        log.write(decision("r1", tenant="clinic"))
    add = ("audit", "hold", "add", *REASON, "--tenant")
    assert "no record" not in spillway(*add, "clinic").stderr
    done = spillway(*add, "clinik")
    assert "no record of any time is of this tenant" in done.stderr
    assert len(control_records(here / "audit", ["hold"])) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "name one thing"),
        (("--tenant", "a", "--request", "b"), "name one thing"),
        (("--tenant", " "), "takes a name"),
        (("--tenant", "SSN 219-09-9999"), "seems to hold ssn"),
        (("--request", "219-09-9999"), "x-spillway-request-id"),
        (("--pseudonym", "4711"), "32 characters"),
        (("--subject", " "), "x-spillway-subject"),
    ],
)
def test_wrong_use_is_told_apart_from_no(here: Path, arguments: tuple[str, ...], words: str) -> None:
    with pen_of(here):
        pass
    assert words in spillway("audit", "erase", *arguments, *REASON, code=2).stderr
    assert words in spillway("audit", "hold", "add", *arguments, *REASON, code=2).stderr


def pen_of(here: Path):
    from proxy.config import load

    return pen(load(here / "spillway.yaml", {}, secrets=False))


def test_periods_and_reasons_that_are_none(here: Path) -> None:
    add = ("audit", "hold", "add")
    assert "is no time" in spillway(*add, "--from", "yesterday", *REASON, code=2).stderr
    assert "is empty" in spillway(*add, "--from", "2026-03-02", "--to", "2026-03-01", *REASON, code=2).stderr
    assert "one thing" in spillway(*add, "--from", "2026-03-02", "--tenant", "a", *REASON, code=2).stderr
    for reason, words in (
        (" ", "one line"),
        ("x" * 501, "one line"),
        ("a\nb", "one line"),
        ("SSN 219-09-9999", "ssn"),
        ("ask bob@example.com", "email"),
    ):
        assert words in spillway(*add, "--tenant", "a", "--reason", reason, code=2).stderr
    assert not control_records(here / "audit", ["hold"])
    assert "no log" in spillway("audit", "erase", "--tenant", "a", *REASON, code=1).stderr


def test_an_erasure_says_what_it_came_to_and_a_hold_blocks_it(here: Path) -> None:
    hold = spillway("audit", "hold", "add", "--request", "r2", "--reason", "case 12/2026").stdout.strip()
    kept(here, "r1", "r2")
    kept(here, "r3", subject="", tenant="lab")
    maps = PseudonymStore(
        here / "state" / "pseudonyms.db", load_or_create_key(here / "state" / "pseudonyms.key"), keep=9e9, values=100
    )
    for identity, owner in (("a", Owner("clinic", "")), ("b", Owner("lab", ""))):
        scope = maps.open(identity)
        scope.pseudonym("name", "Ann Lee")
        maps.keep(scope, owner)
    dry = spillway("audit", "erase", "--tenant", "clinic", *REASON, "--dry-run", code=1)
    assert "2 attempts, and 1 map of" in dry.stdout and hold in dry.stderr
    blocked = spillway("audit", "erase", "--tenant", "clinic", *REASON, "--json", code=1)
    assert json.loads(blocked.stdout) == {"erased": False, "hold": hold, "reason": "case 12/2026"}
    done = spillway("audit", "erase", "--tenant", "lab", *REASON)
    assert done.stdout == "erased: 1 attempt with 3 captures, 1 data key, 1 map of pseudonyms\n"
    assert "nothing was kept of it" in spillway("audit", "erase", "--tenant", "lab", *REASON).stdout
    assert maps.known("b") == () and maps.known("a")
    spillway("audit", "hold", "release", hold, "--reason", "case closed")
    row = json.loads(spillway("audit", "erase", "--tenant", "clinic", *REASON, "--json").stdout)
    assert row == {
        "erased": True,
        "scope": "tenant",
        "value": "clinic",
        "keys": 1,
        "records": 2,
        "captures": 6,
        "features": 0,
        "maps": 1,
    }
    assert [(row.value, row.state, row.hold) for row in control_records(here / "audit", ["erased"])] == [
        ("clinic", "blocked", hold), ("lab", "begun", ""), ("lab", "done", ""), ("lab", "begun", ""), ("lab", "done", ""),
        ("clinic", "begun", ""), ("clinic", "done", ""),
    ]  # fmt: skip
    report = verify_directory(here / "audit")
    assert [slot.problem for slot in report.slots] == [None]
    maps.close()


def test_a_hold_on_a_period_covers_what_fell_into_it(here: Path) -> None:
    spillway("audit", "hold", "add", "--from", "2020-01-01", "--to", "2020-12-31", *REASON)
    kept(here, "r1")
    assert "1 attempt " in spillway("audit", "erase", "--request", "r1", *REASON).stdout
    kept(here, "r2")
    spillway("audit", "hold", "add", "--from", "2020-01-01", *REASON)
    assert "legal hold" in spillway("audit", "erase", "--request", "r2", *REASON, code=1).stderr
    assert "nothing was kept" in spillway("audit", "erase", "--subject", "somebody else", *REASON).stdout


def test_a_line_that_somebody_wrote_into_the_log_releases_no_hold_and_approves_nothing(here: Path) -> None:
    """By who owns the files and not the key: while no command runs, and also for who only reads."""
    kept(here, "r1")
    hold = spillway("audit", "hold", "add", "--tenant", "clinic", *REASON).stdout.strip()
    (segment,) = (here / "audit" / "cli").glob("segment-*.jsonl")
    before = segment.read_bytes()
    placed = json.loads(before.splitlines()[-1])
    forged = {name: value for name, value in placed.items() if name != "seq_mac"} | {
        "change": "released",
        "seq": placed["seq"] + 1,
    }

    def appended(row: dict[str, Any]) -> None:
        with open(segment, "ab") as file:
            file.write(json.dumps(row, sort_keys=True, separators=(",", ":")).encode() + b"\n")

    appended(forged)
    key = load_key(here / "audit" / "key")
    assert [one.id for one in holds_in_force(here / "audit", key)] == [hold]
    assert [row["id"] for row in json.loads(spillway("audit", "hold", "list", "--json").stdout)] == [hold]
    appended(
        json.loads(segment.read_bytes().splitlines()[-1])
        | {"change": "released", "kind": "hold", "seq": 99, "hold": hold}
    )
    assert hold in spillway("audit", "erase", "--tenant", "clinic", *REASON, "--dry-run", code=1).stderr
    assert hold in spillway("audit", "erase", "--tenant", "clinic", *REASON, code=1).stderr
    assert [slot.problem for slot in verify_directory(here / "audit").slots] == [None]
    assert "released" not in segment.read_text()
    # and one that was signed is not changed
    segment.write_bytes(segment.read_bytes().replace(b'"placed"', b'"lifted"'))
    assert "not those that were signed" in spillway("audit", "erase", "--tenant", "clinic", *REASON, code=1).stderr
    assert "not those that were signed" in spillway("audit", "hold", "list", code=1).stderr


def test_nothing_is_erased_where_no_record_can_be_made(here: Path) -> None:
    kept(here, "r1")
    with pen_of(here):
        pass
    (here / "audit" / "key").chmod(0o644)
    assert "nothing was erased" in spillway("audit", "erase", "--request", "r1", *REASON, code=1).stderr
    vault = Vault(here / "state" / "vault.db", Spy(here / "state" / "vault.key"))
    assert len(vault.read("r1")) == 3
    vault.close()


def test_nothing_is_held_or_erased_while_something_else_is_removed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from proxy.config import load
    from proxy.vaulting import removing

    kept(here, "r1")
    with pen_of(here):
        pass
    monkeypatch.setattr("proxy.vaulting.LOCK_SECONDS", 0.1)
    with removing(load(here / "spillway.yaml", {}, secrets=False)):
        assert (
            "being removed just now" in spillway("audit", "hold", "add", "--tenant", "clinic", *REASON, code=1).stderr
        )
        assert "did not come to its end" in spillway("audit", "erase", "--request", "r1", *REASON, code=1).stderr
    assert not control_records(here / "audit", ["hold", "erased"])
    assert "1 attempt " in spillway("audit", "erase", "--request", "r1", *REASON).stdout


def test_a_step_whose_record_cannot_be_made_is_not_taken(here: Path) -> None:
    kept(here, "r1")
    operators("alice", "bob")
    opening = spillway("vault", "open", "r1", "--as", "alice.key", *REASON).stdout.strip()
    spillway("vault", "approve", opening, "--as", "bob.key")
    (here / "audit" / "key").chmod(0o644)
    done = spillway("vault", "read", opening, "--as", "alice.key", code=1)
    assert done.stdout == "" and "no record of it can be made" in done.stderr


def test_no_new_master_key_is_made_over_captures_of_another(here: Path) -> None:
    """Whoever lost the file would make one, and capture on under it, while nothing of before can be read."""
    key = here / "state" / "vault.key"
    kept(here, "r1")
    spillway("vault", "init")
    lost = key.read_bytes()
    key.unlink()
    assert "restore your copy" in spillway("vault", "init", code=1).stderr
    assert not key.exists()
    key.write_bytes(lost)
    key.chmod(0o600)
    assert "works" in spillway("vault", "init").stdout
