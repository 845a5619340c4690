"""A small log with its key, and `spillway` on it in this process, for tests of what people read of the log."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from click.testing import Result
from logs import KEY, write_logs
from typer.testing import CliRunner

from compliance.journal import Journal
from compliance.segments import read_lines
from proxy.cli import app
from proxy.recording import pseudonym_key

SUBJECT = "patient-4711 Quillon Vasterby"
PSEUDONYMS = pseudonym_key(KEY.private_bytes_raw())


def small_log(here: Path) -> Path:
    """The logs of `logs.write_logs`, a day of them, with the key that signed them."""
    audit = here / "audit"
    audit.mkdir()
    (audit / "key").write_bytes(base64.b64encode(KEY.private_bytes_raw()))
    (audit / "key").chmod(0o600)
    write_logs(audit, runs=1)
    return audit


def spillway(*arguments: str, group: str = "audit", **given: Any) -> Result:
    return CliRunner().invoke(app, [group, *arguments], catch_exceptions=False, **given)


def looks(audit: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in read_lines(audit / "cli")]
    return [record for record in found if record["kind"] == "log_access"]


def write(audit: Path, *records: Any, slot: str = "slot-0") -> None:
    journal = Journal.open(audit / slot, origin=f"inst/{slot}", key=KEY)
    for record in records:
        journal.append(record)
    journal.close()
