"""`spillway audit`: verify the log, look into it, and hand out what an auditor needs."""

from __future__ import annotations

import heapq
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from proxy.terminal import ConfigOption, JsonOption, StateOption, database, fail, located, say

if TYPE_CHECKING:
    from compliance.evidence import SlotExport
    from compliance.lookup import Query, Row
    from proxy.config import Settings

audit_app = typer.Typer(
    help="Verify the audit log, search it, and export evidence.", no_args_is_help=True, rich_markup_mode="markdown"
)
_AGO = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LAST_DAY = datetime(9999, 12, 31, tzinfo=UTC)

FromOption = Annotated[
    str | None,
    typer.Option(
        "--from", help="A day, a time (UTC unless it says otherwise), or 30m, 24h, 7d ago. Default: the first."
    ),
]
ToOption = Annotated[
    str | None, typer.Option("--to", help="The same; a day is included whole, a time is not. Default: now.")
]
_Names = list[str] | None
TenantOption = Annotated[_Names, typer.Option(help="A key's label; repeat for more, here and below.")]
ProjectOption = Annotated[_Names, typer.Option("--project", "--application", help="The application.")]
KeyOption = Annotated[_Names, typer.Option("--key", help="A virtual key's id.")]
ActionOption = Annotated[_Names, typer.Option(help="allow, redact, keep_local or block.")]
RuleOption = Annotated[_Names, typer.Option(help="The rule that decided.")]
FindingOption = Annotated[_Names, typer.Option(help="A type found in the request or the answer, such as ssn.")]
TargetOption = Annotated[_Names, typer.Option(help="A target, or an engine for all of its models.")]
RequestOption = Annotated[_Names, typer.Option(help="An x-spillway-request-id.")]
EndingOption = Annotated[_Names, typer.Option(help="completed, failed, abandoned, interrupted, refused or open.")]


@audit_app.command(
    "verify",
    epilog="**Examples**\n\n`spillway audit verify`\n\n`spillway audit verify ./audit --key sha256:3f9a...` with a fingerprint"
    " you know\n\n`spillway audit verify ./evidence --since kept.txt`",
)
def audit_verify(
    directory: Annotated[
        Path | None, typer.Argument(help="An evidence pack, a log, or a directory of logs. Default: as configured.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="The key's fingerprint, known from elsewhere.")] = None,
    since: Annotated[Path | None, typer.Option(help="Checkpoints kept from an earlier visit.")] = None,
    config: ConfigOption = None,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Verify the log or a pack: 0 verified, 3 consistent but unanchored, 1 not verified."""
    from compliance import verify

    arguments = [str(directory or located(config, state_dir).audit.dir)]
    arguments += ["--key", key] if key else []
    arguments += ["--since", str(since)] if since else []
    raise typer.Exit(verify.main([*arguments, *(["--json"] if as_json else [])]))


@audit_app.command("show", epilog="**Example**\n\n`spillway audit show 5f0c9a1b2c3d00000001`")
def audit_show(
    request: Annotated[str, typer.Argument(metavar="ID", help="The x-spillway-request-id of an answer.")],
    config: ConfigOption = None,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """What was decided for one request, why, and how it ended."""
    from compliance.journal import read
    from compliance.records import encode
    from proxy.meaning import timeline
    from proxy.projections.ledger import Ledger

    settings = located(config, state_dir)
    path = Path(settings.state.dir) / "ledger.db"
    with database(path):
        found = Ledger(path).find(request) if path.exists() else []
    if not found:
        fail(f"the index has no request {request}; it is about a second behind the log", 1)
    logs = [Path(settings.audit.dir) / origin.rpartition("/")[2] for origin, _ in found]
    rows = [next(read(log, seq, stop=seq + 1), None) for log, (_, seq) in zip(logs, found, strict=True) if log.is_dir()]
    records = [record for record in rows if record is not None]
    if len(records) < len(found):
        fail(f"the index names records that {settings.audit.dir} does not hold; `spillway audit verify` says more", 1)
    print(json.dumps([json.loads(encode(record)) for record in records]) if as_json else timeline(records))


@audit_app.command(
    "search",
    epilog="**Examples**\n\n`spillway audit search --from 24h --action keep_local`\n\n"
    "`spillway audit search --from 2026-11-01 --to 2026-11-30 --tenant clinic --finding ssn --limit 0 --json`",
)
def audit_search(
    begin: FromOption = None,
    end: ToOption = None,
    tenant: TenantOption = None,
    project: ProjectOption = None,
    key: KeyOption = None,
    action: ActionOption = None,
    rule: RuleOption = None,
    finding: FindingOption = None,
    target: TargetOption = None,
    request: RequestOption = None,
    ending: EndingOption = None,
    limit: Annotated[int, typer.Option(min=0, help="The newest so many; 0 for all.")] = 50,
    config: ConfigOption = None,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search the logs: who, when, what was decided, where it went, how it ended; never content.

    One line for each attempt, refusal, change and start, the oldest first. Several values of one option mean any of them.
    `--json` prints a JSON object a line. Exit codes: 0 where something was found, 1 where nothing was.
    """
    import msgspec

    query = _query(
        begin, end, tenant=tenant, project=project, key=key, action=action, rule=rule, finding=finding, target=target, request=request,
        ending=ending,
    )  # fmt: skip
    count = 0

    def counted() -> Iterator[Row]:
        nonlocal count
        for count, row in enumerate(_search(located(config, state_dir), query), start=1):  # noqa: B007  counted outside
            yield row

    found = heapq.nlargest(limit, counted(), key=_newest) if limit else sorted(counted(), key=_newest, reverse=True)
    found.reverse()
    if as_json:
        for row in found:
            print(msgspec.json.encode(row).decode())
    elif found:
        print(_table(found))
    if count > len(found):
        say(f"the newest {len(found)} of {count}; --limit 0 prints all", "dim")
    if not found:
        say("nothing was found", "dim")
        raise typer.Exit(1)


@audit_app.command(
    "export",
    epilog="**Examples**\n\n`spillway audit export --from 2026-10-01 --to 2026-12-31 --out evidence`\n\n"
    "`spillway audit export --request 5f0c9a1b2c3d00000001 --since kept.txt --format csv --out evidence`",
)
def audit_export(
    out: Annotated[Path, typer.Option("--out", help="The pack's directory; it must not hold anything yet.")],
    begin: FromOption = None,
    end: ToOption = None,
    tenant: TenantOption = None,
    project: ProjectOption = None,
    key: KeyOption = None,
    action: ActionOption = None,
    rule: RuleOption = None,
    finding: FindingOption = None,
    target: TargetOption = None,
    request: RequestOption = None,
    ending: EndingOption = None,
    since: Annotated[
        Path | None,
        typer.Option(help="Checkpoints that the auditor kept: the pack proves that the log continues them."),
    ] = None,
    format_: Annotated[str, typer.Option("--format", help="jsonl, or csv for a table beside the records.")] = "jsonl",
    config: ConfigOption = None,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write an evidence pack for an auditor: records, proofs, checkpoints, keys, policies and a signed manifest.

    Of a period alone the pack shows that it is complete. Options that choose requests give these whole, from every log,
    and the pack then shows that what it holds is in the log, not that it holds everything.
    """
    from compliance.evidence import EvidenceError, export
    from compliance.journal import JournalError, load_or_create_key
    from proxy.app import signing_key_path

    if format_ not in ("jsonl", "csv"):
        fail(f"there is no format {format_!r}; there are jsonl and csv", 2)
    query = _query(
        begin, end, tenant=tenant, project=project, key=key, action=action, rule=rule, finding=finding, target=target, request=request,
        ending=ending,
    )  # fmt: skip
    settings = located(config, state_dir)
    logs = _logs(settings)
    path = signing_key_path(settings)
    if not path.exists():
        fail(f"{path} is not there; the log's key signs the pack", 1)
    try:
        kept = since.read_bytes() if since is not None else b""
        done = export(
            logs,
            out,
            key=load_or_create_key(path),
            query=query,
            csv=format_ == "csv",
            since=kept,
            policy=lambda hash_: _policy(settings, hash_),
        )
    except (EvidenceError, JournalError) as error:
        fail(str(error), 1)
    except OSError as error:
        fail(f"{error.filename} cannot be read: {error.strerror}", 1)
    if as_json:
        print(json.dumps([{name: getattr(slot, name) for name in slot.__struct_fields__} for slot in done]))
    else:
        print("\n".join(map(_exported, done)))
        say(f"verify it with `python verify.py {out} --key sha256:...`, from compliance/verify.py", "dim")


@audit_app.command(
    "checkpoint",
    epilog="**Examples**\n\n`spillway audit checkpoint > kept.txt`, then later `spillway audit verify --since kept.txt`\n\n"
    "`spillway audit checkpoint --json`",
)
def audit_checkpoint(config: ConfigOption = None, state_dir: StateOption = None, as_json: JsonOption = False) -> None:
    """Print the newest signed checkpoint of every log, for an auditor to keep outside."""
    from compliance.evidence import EvidenceError, newest
    from compliance.verify import read_key

    found = []
    try:
        for log in _logs(located(config, state_dir)):
            mark = newest(log)
            if mark is None:
                say(f"{log.name}: nothing is signed yet", "dim")
                continue
            signed, checkpoint = mark
            found.append((signed.decode(), checkpoint, read_key(log / "key.pub")[2]))
    except EvidenceError as error:
        fail(str(error), 1)
    if as_json:
        print(
            json.dumps(
                [
                    {
                        "origin": mark.origin,
                        "size": mark.size,
                        "root": mark.root.hex(),
                        "key": f"sha256:{key}",
                        "note": note,
                    }
                    for note, mark, key in found
                ]
            )
        )
    else:
        for note, _, _ in found:
            print(note)  # with a blank line after it, as the logs hold them
    for key in sorted({key for _, _, key in found}):
        say(f"the key's fingerprint is sha256:{key}", "dim")
    if not found:
        raise typer.Exit(1)


# --- what these commands share ------------------------------------------------------------------------------


def _exported(slot: SlotExport) -> str:
    later = f"; {slot.unsigned} more are not signed yet" if slot.unsigned else ""
    return f"{slot.folder}: {slot.records} records, proved by the checkpoint of {slot.size}{later}"


def _logs(settings: Settings) -> list[Path]:
    from compliance.journal import slots

    logs = slots(Path(settings.audit.dir))
    if not logs:
        fail(f"there is no log in {settings.audit.dir}; --state-dir or --config says where it is", 1)
    return logs


def _search(settings: Settings, query: Query) -> Iterator[Row]:
    from compliance.lookup import rows
    from compliance.verify import read_key

    for log in _logs(settings):
        yield from rows(log, query, origin=read_key(log / "key.pub")[0])


def _newest(row: Row) -> tuple[int, str, tuple[int, ...]]:
    return row.at, row.origin, row.seqs


def _query(begin: str | None, end: str | None, **names: list[str] | None) -> Query:
    from compliance.lookup import Query

    first, last = _period(begin, end)
    return Query(begin=first, end=last, **{name: tuple(values or ()) for name, values in names.items()})


def _policy(settings: Settings, hash_: str) -> bytes | None:
    """What a policy's hash was taken over: kept beside the logs, or the configuration at hand."""
    path = Path(settings.audit.dir) / "policies" / f"{Path(hash_).name}.json"
    if path.is_file():
        return path.read_bytes()
    return settings.policy_material if hash_ == settings.policy_hash else None


def _period(begin: str | None, end: str | None) -> tuple[int, int]:
    """[begin, end) in microseconds since the epoch."""
    now = datetime.now(UTC)
    first = 0 if begin is None else _microseconds(_moment(begin, now))
    last = _moment(end, now) if end is not None else now
    if end is not None and len(end) == 10:  # a day
        last = min(last, _LAST_DAY - timedelta(days=1)) + timedelta(days=1)
    if _microseconds(last) <= first:
        fail("the period is empty: --from must lie before --to", 2)
    return first, _microseconds(last)


def _moment(text: str, now: datetime) -> datetime:
    ago = re.fullmatch(r"(\d{1,6})([mhdw])", text)
    try:
        if ago is not None:
            return now - timedelta(**{_AGO[ago[2]]: int(ago[1])})
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        fail(f"{text!r} is no time; write 2026-11-30, 2026-11-30T14:00, 2026-11-30T14:00+01:00, 30m, 24h or 7d", 2)


def _microseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _table(rows: list[Row]) -> str:
    """A line for each row; what was found as types, without the places."""
    from proxy.meaning import dollars, table

    head = (
        "time (UTC)",
        "request",
        "try",
        "tenant",
        "project",
        "key",
        "action",
        "rule",
        "found",
        "target",
        "ending",
        "cost",
    )
    body = []
    for row in rows:
        when = datetime.fromtimestamp(row.at / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S")
        found = ",".join(dict.fromkeys(finding.partition(":")[0] for finding in row.findings))
        ending = f"{row.ending} ({row.error})" if row.error else row.ending or row.kind
        attempt = str(row.attempt) if row.kind == "attempt" else ""
        cost = dollars(row.cost) if row.kind == "attempt" else ""
        cells = (
            when,
            row.request,
            attempt,
            row.tenant,
            row.project,
            row.key,
            row.action,
            row.rule,
            found,
            row.target,
            ending,
            cost,
        )
        body.append(tuple(_printable(cell) for cell in cells))
    return table(head, body, numbers=False)


def _printable(cell: str) -> str:
    """A name that a configuration gave may hold what would move the cursor."""
    return cell if cell.isprintable() else "".join(c if c.isprintable() else "?" for c in cell)
