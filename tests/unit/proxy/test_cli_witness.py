"""`spillway audit witness`, and checkpoints that are kept in a file or a witness's directory."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

import pytest
from click.testing import Result
from logs import KEY, write_logs
from typer.testing import CliRunner

from compliance.witnessing import newest
from proxy.cli import app
from proxy.witness import DirectoryWitness, Keeper, Witnesses

CONFIG = """
audit:
  witness:
    - {name: disk, directory: /mnt/witness}
    - {name: hook, webhook: {url: 'https://auditor.example/in', secret: {env: NOT_NEEDED_HERE}}}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / "key").write_bytes(base64.b64encode(KEY.private_bytes_raw()))
    (tmp_path / "audit" / "key").chmod(0o600)
    write_logs(tmp_path / "audit", runs=3)
    (tmp_path / "state").mkdir()
    return tmp_path


def spillway(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["audit", *arguments], catch_exceptions=False)


def stands(here: Path, **rows: dict[str, object]) -> None:
    (here / "spillway.yaml").write_text(CONFIG)
    (here / "state" / "witness.json").write_text(json.dumps(rows))


def test_where_the_witnesses_stand(here: Path) -> None:
    at = 1_795_000_000_000_000
    logs = {"inst/slot-0": {"note": "n", "records": 51}}
    stands(
        here,
        disk={"behind": 0, "last_success": at, "logs": logs, "problem": ""},
        hook={"behind": 1, "last_success": at, "logs": logs, "problem": "it answers 500"},
    )
    done = spillway("witness")
    head, disk, hook = done.stdout.splitlines()
    assert done.exit_code == 1
    assert disk[head.index("where") :].startswith("/mnt/witness") and "2026-11-18 11:06:40" in disk
    assert hook[head.index("problem") :].rstrip() == "it answers 500"
    rows = json.loads(spillway("witness", "--json").stdout)
    assert [(row["name"], row["behind"], row["last_success"]) for row in rows] == [("disk", 0, at), ("hook", 1, at)]
    assert rows[0]["logs"] == logs
    stands(here, **{name: {"behind": 0, "last_success": at, "logs": {}, "problem": ""} for name in ("disk", "hook")})
    assert spillway("witness").exit_code == 0


def test_witnesses_that_never_got_anything_and_none_at_all(here: Path) -> None:
    stands(here)
    done = spillway("witness")
    assert done.exit_code == 1 and done.stdout.count("never") == 2 and "nothing was handed out yet" in done.stderr
    (here / "spillway.yaml").write_text("")
    done = spillway("witness")
    assert done.exit_code == 2 and "no witness is configured" in done.stderr


def test_checkpoints_are_added_to_a_file_that_anchors_the_log(here: Path) -> None:
    kept = here / "kept.txt"
    assert spillway("checkpoint", "--out", str(kept)).exit_code == 0
    before = kept.read_bytes()
    assert (
        spillway("checkpoint", "--out", str(kept)).exit_code == 0
    )  # a look that leaves a record: there is more to sign
    assert kept.read_bytes().startswith(before) and len(kept.read_bytes()) > len(before)
    done = spillway("verify", "--earlier", str(kept))
    assert done.exit_code == 0, done.stdout
    done = spillway("checkpoint", "--out", "/nowhere/kept.txt")
    assert done.exit_code == 1 and "/nowhere/kept.txt cannot be written" in done.stderr


def test_a_witness_s_directory_anchors_the_log_and_a_pack_of_it(here: Path) -> None:
    disk = here / "disk"
    disk.mkdir()
    keeper = Keeper("disk", DirectoryWitness(disk), every=60, notes=lambda: newest(here / "audit"), standing={})
    asyncio.run(Witnesses([keeper], here / "state").last())
    assert len(list(disk.rglob("*.note"))) == 4
    assert spillway("verify", "--earlier", str(disk)).exit_code == 0
    assert spillway("export", "--since", str(disk), "--out", str(here / "pack")).exit_code == 0
    assert spillway("verify", str(here / "pack"), "--earlier", str(disk)).exit_code == 0
    done = spillway("verify", "--earlier", str(here / "state"))
    assert done.exit_code == 2 and "it holds no file *.note" in done.stderr
    done = spillway("export", "--since", str(here / "nowhere"), "--out", str(here / "other"))
    assert done.exit_code == 1 and "nowhere cannot be read" in done.stderr
