"""`spillway audit witness`: where the witnesses stand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from proxy.terminal import ConfigOption, JsonOption, StateOption, fail, located, say

if TYPE_CHECKING:
    from proxy.config_parts import WitnessPart


def register(audit_app: typer.Typer) -> None:
    """Put this command under `spillway audit`."""
    audit_app.command(
        "witness",
        epilog="**Examples**\n\n`spillway audit witness`\n\n`spillway audit witness --json` for a check that runs every hour",
    )(audit_witness)


def audit_witness(config: ConfigOption = None, state_dir: StateOption = None, as_json: JsonOption = False) -> None:
    """What each witness has, since when, and what keeps it from more.

    As `spillway serve` wrote it down last. Exit codes: 0 where every witness has the newest checkpoints, 1 where one is
    behind or never got any, 2 where none is configured.
    """
    from proxy.meaning import table
    from proxy.witness import standing

    settings = located(config, state_dir)
    parts = settings.audit.witness
    if not parts:
        fail("no witness is configured: audit.witness names a directory, a bucket or a webhook outside this host", 2)
    known = standing(Path(settings.state.dir))
    rows = [_row(part, known.get(part.name, {})) for part in parts]
    if as_json:
        print(json.dumps(rows))
    else:
        head = ("witness", "where", "last success (UTC)", "logs", "behind", "problem")
        cells = [
            (row["name"], row["where"], _moment(row["last_success"]), str(len(row["logs"])), str(row["behind"]), row["problem"])
            for row in rows
        ]  # fmt: skip
        print(table(head, cells, numbers=False))
    if any(row["behind"] or not row["last_success"] for row in rows):
        if not known:
            say("nothing was handed out yet: `spillway serve` does it, within a minute of its start", "dim")
        raise typer.Exit(1)


def _row(part: WitnessPart, known: dict[str, Any]) -> dict[str, Any]:
    if part.s3 is not None:
        where = f"{part.s3.endpoint}/{part.s3.bucket}/{part.s3.prefix}"
    else:
        where = part.directory or (part.webhook.url if part.webhook is not None else "")
    return {
        "name": part.name,
        "where": where,
        "last_success": known.get("last_success", 0),
        "behind": known.get("behind", 0),
        "problem": known.get("problem", ""),
        "logs": known.get("logs", {}),
    }


def _moment(at: int) -> str:
    import datetime

    return datetime.datetime.fromtimestamp(at / 1e6, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S") if at else "never"
