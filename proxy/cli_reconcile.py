"""`spillway reconcile`: what a vendor says was used and billed, beside the ledger; corrections, and what went round."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from proxy.terminal import ConfigOption, JsonOption, StateOption, database, fail, located, say

if TYPE_CHECKING:
    from proxy.config import Settings
    from proxy.reconcile import Booked, Model, Reconciliation, Used
    from proxy.vendor_reports import Report

app = typer.Typer()
VENDORS = ("openai", "anthropic")
_ADVICE = {
    "openai": "an admin key (organisation owners make them: platform.openai.com, Admin keys)",
    "anthropic": "an admin key (sk-ant-admin...; administrators make them in the Console)",
}


@app.command(
    epilog="**Examples**\n\n`OPENAI_ADMIN_KEY=... spillway reconcile openai --month 2026-10 --key key_abc123`\n\n"
    "`spillway reconcile anthropic --month 2026-10 --file usage.json --file costs.json --dry-run`"
)
def reconcile(
    vendor: Annotated[str, typer.Argument(help="openai or anthropic.")],
    month: Annotated[str | None, typer.Option(help="Such as 2026-10, in UTC. Default: the last whole month.")] = None,
    file: Annotated[
        list[Path] | None, typer.Option(help="A downloaded answer of the usage or costs API; repeat for more.")
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(
            help="The vendor's id of a key that Spillway uses; repeat for more. Usage under others went round it."
        ),
    ] = None,
    project: Annotated[
        list[str] | None, typer.Option(help="The vendor's id of a project or workspace that Spillway uses; likewise.")
    ] = None,
    admin_key_env: Annotated[
        str | None, typer.Option(help="The environment variable that holds the admin key. Default: VENDOR_ADMIN_KEY.")
    ] = None,
    admin_key_file: Annotated[Path | None, typer.Option(help="A file that holds the admin key.")] = None,
    base_url: Annotated[str | None, typer.Option(help="Where the vendor's API is. Default: as its SDK has it.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Post no corrections.")] = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare a vendor's month with the ledger: quantities, then money; differences are posted as corrections.

    Names what never passed the proxy. Exit codes: 0 they agree (tokens within 0.5 %, money within 1 %), 1 they do not, or
    something went round the proxy, 2 wrong use.
    """
    from proxy.reconcile import reconcile as compared

    if vendor not in VENDORS:
        fail(f"there is no vendor {vendor!r}; there are {', '.join(VENDORS)}", 2)
    if file and (admin_key_env or admin_key_file or base_url):
        fail("--file says that the report is at hand; an admin key and --base-url are for asking the vendor", 2)
    start, end = _month(month)
    settings = located(config, state_dir)
    report, source = _report(vendor, start, end, file or [], (admin_key_env, admin_key_file), base_url)
    booked = _booked(settings, vendor, start, end)
    found = compared(
        report.used,
        report.billed,
        booked,
        keys=key or (),
        projects=project or (),
        weigh=_weigh(settings, vendor, start),
    )
    posted = 0 if dry_run else _post(settings, vendor, found, (start, end), source)
    if as_json:
        print(json.dumps(_rows(vendor, found, (start, end), posted)))
    else:
        print(_words(vendor, found, start, posted, dry_run))
    _alarm(vendor, found)
    if not found.agrees:
        raise typer.Exit(1)


# --- both sides --------------------------------------------------------------------------------------------


def _month(text: str | None) -> tuple[datetime, datetime]:
    now = datetime.now(UTC)
    if text is None:
        year, month = (now.year, now.month - 1) if now.month > 1 else (now.year - 1, 12)
    else:
        match = re.fullmatch(r"(\d{4})-(\d{2})", text, re.ASCII)
        if match is None or not 1 <= int(match[2]) <= 12 or not 2000 <= int(match[1]) <= 9998:
            fail(f"{text!r} is no month; write 2026-10", 2)
        year, month = int(match[1]), int(match[2])
    start = datetime(year, month, 1, tzinfo=UTC)
    if start > now:
        fail(f"{start:%Y-%m} has not begun", 2)
    return start, datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)


def _report(
    vendor: str,
    start: datetime,
    end: datetime,
    files: list[Path],
    where: tuple[str | None, Path | None],
    base_url: str | None,
) -> tuple[Report, str]:
    """The vendor's side, and where it is from."""
    import hashlib

    from proxy.vendor_reports import Unreadable, from_anthropic, from_files, from_openai

    try:
        if files:
            texts = [_bytes(path) for path in files]
            return from_files(vendor, texts, start, end), f"sha256:{hashlib.sha256(b''.join(texts)).hexdigest()[:16]}"
        secret = _admin_key(vendor, *where)
        ask = from_openai if vendor == "openai" else from_anthropic
        return ask(secret, start, end, base_url), "api"
    except Unreadable as unreadable:
        fail(str(unreadable), 2)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        fail(f"{path} cannot be read: {error.strerror}", 2)


def _admin_key(vendor: str, variable: str | None, path: Path | None) -> str:
    from proxy.vendor_reports import KEY_VARIABLES

    if variable and path:
        fail("--admin-key-env and --admin-key-file are two ways to say it: leave one of them out", 2)
    if path is not None:
        secret = _bytes(path).decode("utf-8", "replace").strip()
        if not secret or not secret.isascii() or not secret.isprintable():
            fail(f"{path} holds no key", 2)
        return secret
    name = variable or KEY_VARIABLES[vendor]
    secret = os.environ.get(name, "").strip()
    if not secret:
        fail(f"{name} is not set: {_ADVICE[vendor]} goes there; or give a downloaded report with --file", 2)
    return secret


def _booked(settings: Settings, vendor: str, start: datetime, end: datetime) -> dict[str, Booked]:
    """The ledger's side: what it has of this vendor's models, with what was corrected before."""
    from proxy.prices import finder
    from proxy.projections.ledger import Ledger
    from proxy.reconcile import Booked, base_name

    path = Path(settings.state.dir) / "ledger.db"
    if not path.exists():
        fail(f"there is no ledger at {path}; nothing was served from this state directory yet", 2)
    engines = {name: part for name, part in settings.engines.items() if part.kind == vendor}
    if not engines:
        fail(f"no engine of kind {vendor} is configured, so nothing can have gone there; --config says which file", 2)
    found: dict[str, Booked] = {}
    find, day = finder(settings), f"{start:%Y-%m-%d}"
    with database(path):
        ledger = Ledger(path)
        try:
            for row in ledger.lines(_us(start), _us(end)):
                engine, _, model = row["target"].partition("/")
                if engine not in engines or not (row["input"] or row["output"] or row["cache_read"] or row["cost"]):
                    continue
                entry = engines[engine].models.get(model)
                name = base_name(entry.id if entry is not None and entry.id else model)
                price = find(row["target"], day)
                _add(found.setdefault(name, Booked()), row, max(1, price.input) if price is not None else 1_000_000)
            for row in ledger.corrections(_us(start), _us(end)):
                if row["vendor"] == vendor:
                    found.setdefault(row["model"], Booked()).corrected += row["amount"]
        finally:
            ledger.close()
    return found


def _add(booked: Booked, row: dict[str, Any], rate: int) -> None:
    """One line; `rate` is what a token of the model's prompt costs, in pico-dollars."""
    written = row["cache_write_5m"] + row["cache_write_1h"]
    booked.attempts += 1
    booked.input += row["input"]
    booked.cache_read += row["cache_read"]
    booked.cache_write += written
    booked.output += row["output"]
    booked.cost += row["cost"]
    tokens = row["input"] + row["cache_read"] + written + row["output"]
    if row["quality"] != "exact":
        booked.estimated += (
            tokens or row["cost"] // rate
        )  # of an attempt that a crash ended only what was held is known


def _weigh(settings: Settings, vendor: str, start: datetime) -> Any:
    """What tokens are worth at list prices; their number, where a model has none."""
    from engines.model import Usage
    from engines.rates import cost
    from proxy.prices import finder

    find = finder(settings)

    def weigh(used: Used) -> int:
        price = find(f"{vendor}/{used.model}", f"{start:%Y-%m-%d}")
        if price is None:
            return used.tokens
        return cost(Usage(used.input, used.cache_read, used.cache_write, 0, used.output), price)

    return weigh


def _us(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000_000


# --- what becomes of it ------------------------------------------------------------------------------------


def _post(settings: Settings, vendor: str, found: Reconciliation, span: tuple[datetime, datetime], source: str) -> int:
    """Corrections into the command line's log, and from there into the ledger; how many."""
    from compliance.records import Correction
    from proxy.cli_log import changing, now
    from proxy.fingerprints import account

    wanted = found.corrections
    if not wanted:
        return 0
    with changing(settings) as log:
        for model in wanted:
            log.write(
                Correction(
                    actor=account(), amount=model.correction, at=now(), begin=_us(span[0]),
                    billed=model.booked.cost + model.booked.corrected + model.correction,
                    booked=model.booked.cost + model.booked.corrected, cause=model.cause, end=_us(span[1]), model=model.name,
                    source=source, vendor=vendor,
                )
            )  # fmt: skip
    _project(settings)
    return len(wanted)


def _project(settings: Settings) -> None:
    """What the command line's log has, into the ledger: no worker does that."""
    from compliance.journal import read
    from proxy.app import instance_name
    from proxy.control_log import SLOT
    from proxy.projections.ledger import Ledger

    logs = Path(settings.audit.dir)
    path = Path(settings.state.dir) / "ledger.db"
    origin = f"{instance_name(logs)}/{SLOT}"
    with database(path):
        ledger = Ledger(path)
        try:
            ledger.project(origin, read(logs / SLOT, ledger.position(origin) + 1))
        finally:
            ledger.close()


def _alarm(vendor: str, found: Reconciliation) -> None:
    """What went round the proxy, on standard error, so that a nightly job's mail says it."""
    from proxy.meaning import dollars

    for row in found.around:
        what = {
            "key": f"key {row.used.key}", "project": f"project {row.used.project}", "model": "a model that never passed",
            "surplus": "more than passed",
        }[row.why]  # fmt: skip
        whose = f" (key {row.used.key})" if row.why != "key" and row.used.key else ""
        count = row.used.requests
        calls = f" in {count:,} request{'s' if count > 1 else ''}" if count else ""
        say(
            f"ALARM: went round the proxy: {what}{whose}: {row.used.model}, {row.used.tokens:,} tokens{calls},"
            f" about {dollars(row.amount)} at {vendor}",
            "red",
        )


def _rows(vendor: str, found: Reconciliation, span: tuple[datetime, datetime], posted: int) -> dict[str, Any]:
    """For scripts: amounts are pico-dollars."""
    return {
        "vendor": vendor, "from": f"{span[0]:%Y-%m-%d}", "to": f"{span[1]:%Y-%m-%d}", "agrees": found.agrees,
        "billed": found.billed, "booked": found.booked, "posted": posted,
        "models": [_row(model) for model in found.models],
        "around": [
            {"why": row.why, "key": row.used.key, "project": row.used.project, "model": row.used.model,
             "tokens": row.used.tokens, "requests": row.used.requests, "amount": row.amount}
            for row in found.around
        ],
        "others": [{"item": row.item, "amount": row.amount, "project": row.project} for row in found.others],
    }  # fmt: skip


def _row(model: Model) -> dict[str, Any]:
    meters = ("input", "cache_read", "cache_write", "output")
    return {
        "model": model.name, "verdict": model.verdict,
        "vendor_tokens": {name: getattr(model.used, name) for name in meters},
        "ledger_tokens": {name: getattr(model.booked, name) for name in meters},
        "estimated_tokens": model.booked.estimated, "billed": model.billed, "booked": model.booked.cost,
        "corrected": model.booked.corrected, "difference": model.difference, "correction": model.correction, "cause": model.cause,
    }  # fmt: skip


def _words(vendor: str, found: Reconciliation, start: datetime, posted: int, dry_run: bool) -> str:
    from proxy.meaning import dollars, table

    head = ("model", "in", "in here", "out", "out here", "billed", "booked", "corrected", "difference", "")
    body = []
    for model in found.models:
        used, booked = model.used, model.booked
        tokens = (
            used.input + used.cache_read + used.cache_write,
            booked.input + booked.cache_read + booked.cache_write,
        )
        cells = [f"{count:,}" for count in (*tokens, used.output, booked.output)]
        money = [dollars(amount) for amount in (model.billed, booked.cost, booked.corrected, model.difference)]
        body.append([model.name, *cells, *money, model.verdict])
    lines = [f"{vendor}, {start:%B %Y}, as billed and as booked here", table(head, body)] if body else []
    for row in found.others:
        lines.append(f"billed, and not for tokens of a model here: {row.item or 'no name'}: {dollars(row.amount)}")
    total = f"for what passed: billed {dollars(found.billed)}, booked {dollars(found.booked)}"
    lines.append(f"{total}: {found.words}")
    if wanted := found.corrections:
        what = "would be posted (--dry-run)" if dry_run else f"posted: {posted}"
        lines.append(f"corrections {what}, {dollars(sum(model.correction for model in wanted))} in all")
    return "\n".join(lines)
