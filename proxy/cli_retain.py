"""`spillway audit retain`: records that are older than they are kept."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from proxy.terminal import ConfigOption, JsonOption, StateOption, fail, located, say

if TYPE_CHECKING:
    from compliance.retention import Removal
    from proxy.config import Settings

OlderOption = Annotated[
    str | None, typer.Option("--keep", help="Days or years, such as 2190d or 6y. Default: audit.retention.")
]
DryOption = Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")]


def register(audit_app: typer.Typer) -> None:
    """Put this command under `spillway audit`."""
    audit_app.command(
        "retain",
        epilog="**Examples**\n\n`spillway audit retain --dry-run`, with `audit: {retention: 6y}` in the configuration\n\n"
        "`spillway audit retain --keep 6y --json`",
    )(audit_retain)


def audit_retain(
    keep: OlderOption = None,
    dry_run: DryOption = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove the records of whole sealed segments that are older than records are kept.

    Their leaf hashes stay, so the log still verifies; what went is itself a record. Nothing goes that a legal hold covers,
    or of which an attempt has not ended; the logs of operators stay whole. A log that does not verify loses nothing.
    """
    from compliance.control import holds_in_force, is_control
    from compliance.journal import slots
    from compliance.records import UnknownRecord
    from compliance.retention import plan
    from proxy.instance import signing_key

    settings = located(config, state_dir)
    seconds = _kept(settings, keep)
    directory = Path(settings.audit.dir)
    logs = slots(directory)
    if not logs:
        fail(f"there is no log in {settings.audit.dir}; --state-dir or --config says where it is", 1)
    before = time.time_ns() // 1000 - int(seconds * 1_000_000)
    try:
        held = holds_in_force(directory, signing_key(settings))
        found = plan([log for log in logs if not is_control(log)], before, held)
        if not dry_run and any(not removal.kept for removal in found):
            found = _remove(settings, logs, before)
    except UnknownRecord:
        _does_not_verify()
    except (OSError, ValueError) as error:
        fail(f"the logs cannot be read: {error}", 1)
    _print(found, before, dry_run=dry_run, as_json=as_json)


def _kept(settings: Settings, keep: str | None) -> float:
    """Seconds that records are kept."""
    from proxy.quantities import Wrong, age

    if keep is not None:
        try:
            return age(keep)
        except Wrong as wrong:
            fail(f"--keep: {wrong}; {wrong.hint}", 2)
    if settings.audit.retention is None:
        fail("nothing says how long records are kept; write audit: {retention: 6y} or pass --keep 6y", 2)
    return settings.audit.retention


def _remove(settings: Settings, logs: Sequence[Path], before: int) -> list[Removal]:
    """What went, and what stayed: each removal is recorded first.  No hold can be placed meanwhile."""
    from compliance import verify
    from compliance.control import holds_in_force, is_control
    from compliance.records import Retention
    from compliance.retention import plan, remove
    from proxy.cli_log import changing, now
    from proxy.fingerprints import account
    from proxy.instance import signing_key

    directory = Path(settings.audit.dir)
    if verify.verify_directory(directory).status == verify.NOT_VERIFIED:
        _does_not_verify()
    with changing(settings) as log:
        held = holds_in_force(directory, signing_key(settings))
        found = plan([log for log in logs if not is_control(log)], before, held)
        for removal in [removal for removal in found if not removal.kept]:
            first, last = removal.segment.first, removal.segment.last
            log.write(
                Retention(
                    actor=account(), at=now(), before=before, first=first, last=last, origin=removal.origin,
                    since=removal.since, until=removal.until,
                )
            )  # fmt: skip
            try:
                remove(removal)
            except OSError as error:
                fail(
                    f"{removal.segment.path} cannot be removed: {error.strerror}; what went before it is gone, do it again",
                    1,
                )
    return found


def _does_not_verify() -> NoReturn:
    fail("the log does not verify, so nothing is removed: `spillway audit verify` says more", 1)


def _print(found: Sequence[Removal], before: int, *, dry_run: bool, as_json: bool) -> None:
    from proxy.meaning import instant, table

    if as_json:
        rows = [
            {
                "origin": one.origin, "first": one.segment.first, "last": one.segment.last, "since": one.since, "until": one.until,
                "records": one.records, "bytes": one.size, "kept": one.kept,
            }
            for one in found
        ]  # fmt: skip
        print(json.dumps({"before": before, "dry_run": dry_run, "segments": rows}))
        return
    if not found:
        say(f"no sealed segment is older than {instant(before)}", "dim")
        return
    goes = "would go" if dry_run else "removed"
    body = [
        (one.origin, f"{one.segment.first}-{one.segment.last}", instant(one.since), instant(one.until), f"stays: {one.kept}" if one.kept else goes)
        for one in found
    ]  # fmt: skip
    print(table(("log", "records", "from", "to", ""), body, numbers=False))
    gone = [one for one in found if not one.kept]
    say(
        f"{sum(one.records for one in gone)} records, {sum(one.size for one in gone)} bytes; leaf hashes stay, so that the"
        f" log verifies",
        "dim",
    )
