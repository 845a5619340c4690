"""`spillway audit attest`: a reviewer's signature over a period, its counts and the roots of the logs."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from auditing import small_log, spillway, write
from click.testing import Result
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from logs import BEGIN, DAY, KEY

from compliance import attesting
from compliance.segments import read_lines
from proxy.fingerprints import account


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def logs(here: Path) -> Path:
    return small_log(here)


def attest(*more: str) -> Result:
    return spillway(
        "attest",
        "--from",
        "2026-01-01",
        "--to",
        "2026-01-31",
        "--reviewer",
        "Dana Ortiz",
        "--statement",
        "Reviewed.",
        *more,
    )


def attested(audit: Path) -> list[dict[str, Any]]:
    return [record for line in read_lines(audit / "cli") if (record := json.loads(line))["kind"] == "attested"]


def test_a_reviewer_signs_a_period_over_the_roots_of_the_logs(logs: Path, here: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "dana"], check=True)
    assert attest("--key", "dana").exit_code == 0
    assert "is only said" in attest().stderr
    pem = here / "dana.pem"
    pem.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert attest("--key", "dana.pem").exit_code == 0
    records = attested(logs)
    assert [record["signer"] for record in records] == ["reviewer", "instance", "reviewer"]
    assert all(attesting.fits(record) for record in records)
    first = records[0]
    assert (first["attempts"], first["left"], first["refusals"]) == (18, 6, 0)
    assert (first["begin"], first["end"], first["actor"]) == (BEGIN, BEGIN + 31 * DAY, account())
    assert [root.split(" ")[:2] for root in first["roots"]] == [
        ["inst/cli", "1"],
        ["inst/slot-0", "17"],
        ["inst/slot-1", "17"],
    ]
    done = spillway("attest", "--list")
    assert done.exit_code == 0 and done.stdout.count("fits") == 3 and "Dana Ortiz" in done.stdout
    assert spillway("verify").exit_code == 3


@pytest.mark.parametrize(
    "field", ["statement", "reviewer", "roots", "left", "end", "signer", "signer_key", "signature"]
)
def test_an_attestation_that_was_changed_does_not_fit(logs: Path, field: str) -> None:
    attest()
    (record,) = attested(logs)
    value = record[field]
    changed = value[:-1] if isinstance(value, (str, list)) else value + 1
    assert attesting.fits(record) and not attesting.fits(record | {field: changed})
    assert not attesting.fits({name: value for name, value in record.items() if name != field})


def test_an_attestation_over_another_log_is_told(logs: Path) -> None:
    record = attesting.sign(
        attesting.Attested(actor="x", at=1, attempts=0, begin=0, end=1, left=0, refusals=0, reviewer="Dana", roots=("inst/slot-0 17 " + "0" * 64,),
                           signer="instance", signer_key="", statement="All well."), KEY,
    )  # fmt: skip
    write(logs, record, slot="cli")
    done = spillway("attest", "--list")
    assert done.exit_code == 1 and "inst/slot-0: not the log's root" in done.stdout
    record.signature = base64.b64encode(bytes(64)).decode()
    write(logs, record, slot="cli")
    assert "the signature does not fit" in spillway("attest", "--list").stdout


def test_what_cannot_be_attested(logs: Path, here: Path) -> None:
    assert spillway("attest", "--reviewer", "Dana").exit_code == 2
    assert spillway("attest", "--reviewer", "Dana", "--statement", "two\nlines").exit_code == 2
    assert "is not there" in attest("--key", "nowhere").stderr
    (here / "odd.pem").write_bytes(
        generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    assert "no Ed25519 key" in attest("--key", "odd.pem").stderr
    (here / "text").write_text("no key")
    assert "no private key" in attest("--key", "text").stderr
    (segment,) = [path for path in (logs / "slot-0").glob("segment-*")]
    segment.chmod(0o644)
    segment.write_bytes(segment.read_bytes().replace(b'"tenant":"clinic"', b'"tenant":"clinik"', 1))
    assert "do not verify" in attest().stderr
    assert not attested(logs)


def test_nobody_attests_to_what_is_still_to_come(logs: Path) -> None:
    done = spillway(
        "attest", "--from", "2026-01-01", "--to", "9998-12-31", "--reviewer", "Dana Ortiz", "--statement", "Reviewed."
    )
    assert done.exit_code == 0 and "the period is not over" in done.stderr
    (record,) = attested(logs)
    assert record["end"] <= record["at"]
    done = spillway(
        "attest", "--from", "9998-01-01", "--reviewer", "Dana Ortiz", "--statement", "Reviewed.", "--to", "9998-12-31"
    )
    assert done.exit_code == 2 and "has not begun" in done.stderr


def test_a_statement_names_no_patient_and_a_missing_key_can_be_made(logs: Path, here: Path) -> None:
    common = ("attest", "--from", "2026-01-01", "--to", "2026-01-31", "--reviewer", "Dana Ortiz", "--statement")
    done = spillway(*common, "Reviewed, but for SSN 219-09-9999")
    assert done.exit_code == 2 and "seems to hold ssn" in done.stderr
    done = spillway(*common, "Reviewed.", "--key", "dana")
    assert done.exit_code == 1 and "ssh-keygen -t ed25519 -f dana" in done.stderr
    assert b"219-09" not in b"".join(path.read_bytes() for path in here.rglob("*") if path.is_file())
    assert not attested(logs)
