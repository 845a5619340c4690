"""`spillway audit`: verify the log, look into it, and hand out what an auditor needs.  Each look leaves a record."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from proxy import cli_reports
from proxy.choice import OPTIONS, Choice, index_of, logs_of, unheard_of, with_choice
from proxy.cli_log import Look, UnrecordedOption
from proxy.terminal import ConfigOption, JsonOption, StateOption, fail, located, say

if TYPE_CHECKING:
    from compliance.evidence import SlotExport
    from compliance.lookup import Row
    from proxy.config import Settings

audit_app = typer.Typer(
    help="Verify the audit log, search it, report on it, and export evidence.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
FORMATS = ("jsonl", "csv", "parquet")
_QUIET = ("log_access", "captured", "judged", "feedback", "assigned", "shadowed")
"""Kinds that a search shows only where they are asked for: they follow other rows, or searches themselves."""
_STATUS = {0: "verified", 1: "not verified", 2: "wrong use", 3: "consistent, unanchored"}


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
    since: Annotated[
        Path | None,
        typer.Option("--since", "--earlier", help="Checkpoints kept from an earlier visit, or a witness's directory."),
    ] = None,
    config: ConfigOption = None,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Verify the log or a pack: 0 verified, 3 consistent but unanchored, 1 not verified.

    A look at this instance's own logs is recorded in them; one at a pack or a copy elsewhere is not.
    """
    from compliance import verify

    settings = located(config, state_dir)
    own = Path(settings.audit.dir)
    where = directory or own
    arguments = [str(where)]
    arguments += ["--key", key] if key else []
    arguments += ["--since", str(since)] if since else []
    status = verify.main([*arguments, *(["--json"] if as_json else [])])
    if _inside(where, own) and any(own.glob("*/key.pub")):
        Look(settings, "verify").record(always=True, result=_STATUS.get(status, str(status)))
    raise typer.Exit(status)


def _inside(path: Path, directory: Path) -> bool:
    """Are these this instance's own logs?"""
    return path.resolve().is_relative_to(directory.resolve())


@audit_app.command(
    "show",
    epilog="**Examples**\n\n`spillway audit show 5f0c9a1b2c3d00000001`\n\n`spillway audit show 5f0c9a1b2c3d00000001 --json`",
)
def audit_show(
    request: Annotated[str, typer.Argument(metavar="ID", help="The x-spillway-request-id of an answer.")],
    unrecorded: UnrecordedOption = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """One request: what was found, what was decided by which rule, why not otherwise, how it ended, who looked at it.

    `--json` prints its records as the logs hold them. Exit codes: 0 where there is such a request, 1 where there is none.
    """
    from compliance.lookup import Query, decode
    from compliance.segments import read_lines
    from compliance.verify import read_key
    from proxy.reports.rules import rule_says
    from proxy.reports.story import story

    if not request.strip():
        fail("ID is what x-spillway-request-id said", 2)
    settings = located(config, state_dir)
    logs = logs_of(settings)
    with index_of(settings, logs) as index:
        found = index.records(request)
        gone = [record for _, record in index.events(("erased", "captures_expired"), Query())]
    Look(settings, "show", unrecorded=unrecorded).record(
        filters=("request",), found=len(found), request=request if found else ""
    )
    if not found:
        fail(f"no log in {settings.audit.dir} has a request {request}", 1)
    by_origin = {read_key(log / "key.pub")[0]: log for log in logs}
    lines = [next(read_lines(by_origin[origin], seq, stop=seq + 1), b"") for origin, seq in found]
    if not all(lines):
        fail(f"the index names records that {settings.audit.dir} does not hold; `spillway audit verify` says more", 1)
    records = sorted((decode(line) for line in lines), key=lambda record: record["at"])
    if as_json:
        print(json.dumps(records))
        return
    where: dict[str, list[str]] = {}
    for origin, seq in found:
        where.setdefault(origin, []).append(str(seq))
    places = [f"{origin}, records {', '.join(seqs)}" for origin, seqs in where.items()]
    print(story(request, records, places, lambda policy, rule: rule_says(Path(settings.audit.dir), policy, rule), gone))


@audit_app.command(
    "search",
    epilog="**Examples**\n\n`spillway audit search --from 24h --action keep_local`\n\n"
    "`spillway audit search --from 2026-11-01 --to 2026-11-30 --tenant clinic --finding ssn --limit 0 --json`\n\n"
    "`spillway audit search --kind log_access` shows who looked",
)
@with_choice(OPTIONS)
def audit_search(
    choice: Choice,
    limit: Annotated[int, typer.Option(min=0, help="The newest so many; 0 for all.")] = 50,
    unrecorded: UnrecordedOption = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search the logs: who, when, what was decided, where it went, how it ended; never content.

    One line for each attempt, refusal, change and start, the oldest first. Several values of one option mean any of them.
    `--json` prints a JSON object a line. Exit codes: 0 where something was found, 1 where nothing was.
    """
    import msgspec

    settings = located(config, state_dir)
    logs = logs_of(settings)
    hide = () if choice.names["kind"] or choice.names["actor"] else _QUIET
    with index_of(settings, logs) as index:
        query = choice.query(settings, index)
        count = index.count(query, hide=hide)
        shown = min(count, limit) if limit else count
        unheard = [] if count else unheard_of(choice, query, index)
        Look(settings, "search", unrecorded=unrecorded).record(
            filters=choice.filters, found=shown, begin=choice.begin, end=choice.end
        )
        found: Iterator[Row] = index.search(query, limit=limit, hide=hide)
        if as_json:
            for row in found:
                print(msgspec.json.encode(row).decode())
        elif count:
            print(_table(list(found)))
    if count > shown:
        say(f"the newest {shown} of {count}; --limit 0 prints all", "dim")
    if not count:
        say("nothing was found", "dim")
        for words in unheard:
            say(words, "yellow")
        raise typer.Exit(1)


@audit_app.command(
    "export",
    epilog="**Examples**\n\n`spillway audit export --from 2026-10-01 --to 2026-12-31 --out evidence`\n\n"
    "`spillway audit export --request 5f0c9a1b2c3d00000001 --checkpoints kept.txt --format csv --out evidence`\n\n"
    "`spillway audit export --from 30d --format parquet --out evidence` writes evidence.parquet beside it",
)
@with_choice(OPTIONS)
def audit_export(
    choice: Choice,
    out: Annotated[Path, typer.Option("--out", help="The pack's directory; it must not hold anything yet.")],
    since: Annotated[
        Path | None,
        typer.Option(
            "--since",
            "--checkpoints",
            help="Checkpoints that the auditor kept: the pack proves that the log continues them.",
        ),
    ] = None,
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            help="jsonl; csv for tables in the pack, which the verifier compares; parquet for one beside it.",
        ),
    ] = "jsonl",
    unrecorded: UnrecordedOption = False,
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
    from compliance.verify import kept as kept_notes
    from proxy.app import signing_key_path

    if format_ not in FORMATS:
        fail(f"there is no format {format_!r}; there are {', '.join(FORMATS[:-1])} and {FORMATS[-1]}", 2)
    settings = located(config, state_dir)
    logs = logs_of(settings)
    if not out.exists() and _inside(out, Path(settings.audit.dir)):
        fail(f"{out} lies among the logs; a pack belongs somewhere else", 2)
    beside = _beside(out) if format_ == "parquet" else None
    path = signing_key_path(settings)
    if not path.exists():
        fail(f"{path} is not there; the log's key signs the pack", 1)
    try:
        kept = kept_notes(since) if since is not None else b""
        with index_of(settings, logs) as index:
            query = choice.query(settings, index)
            if query.chosen() and not index.count(query):
                Look(settings, "export", unrecorded=unrecorded).record(
                    filters=choice.filters, found=0, begin=choice.begin, end=choice.end, result=format_
                )
                why = "; ".join(unheard_of(choice, query, index))
                fail(f"nothing was found, so there is nothing to prove{': ' if why else ''}{why}", 1)
        done = export(
            logs, out, key=load_or_create_key(path), query=query, csv=format_ == "csv", since=kept,
            policy=lambda hash_: _policy(settings, hash_),
        )  # fmt: skip
    except (EvidenceError, JournalError) as error:
        fail(str(error), 1)
    except OSError as error:
        hint = "; --since takes checkpoints that were kept, and --from says when the period begins" if since else ""
        fail(f"{error.filename} cannot be read: {error.strerror}{hint}", 1)
    try:
        count = sum(slot.records for slot in done)
        recorded = Look(settings, "export", unrecorded=unrecorded).record(
            filters=choice.filters, found=count, begin=choice.begin, end=choice.end, result=format_
        )
    except typer.Exit:
        shutil.rmtree(out)  # nothing is handed out of which there is no record
        raise
    rows = _write_parquet(out, beside) if beside is not None else 0
    if as_json:
        print(json.dumps([{name: getattr(slot, name) for name in slot.__struct_fields__} for slot in done]))
        return
    print("\n".join(map(_exported, done)))
    if beside is not None:
        print(f"{beside}: {rows} rows")
    if not recorded:
        print("made without a record of this look (--unrecorded)")
    say(f"verify it with `python verify.py {out} --key sha256:...`, from compliance/verify.py", "dim")


def _beside(out: Path) -> Path:
    """The table's path, once it is known that it can be written."""
    from proxy.reports import parquet

    path = out.with_name(f"{out.name}.parquet")
    if path.exists():
        fail(f"{path} is there already", 1)
    if not parquet.available():
        fail(parquet.MISSING, 1)
    return path


def _write_parquet(out: Path, beside: Path) -> int:
    from proxy.reports import parquet

    try:
        return parquet.write(sorted(out.glob("*/records.jsonl")), beside)
    except parquet.NotWritten as error:
        fail(f"the pack is in {out}, but {beside} could not be written: {error}", 1)


@audit_app.command(
    "checkpoint",
    epilog="**Examples**\n\n`spillway audit checkpoint > kept.txt`, then later `spillway audit verify --since kept.txt`\n\n"
    "`spillway audit checkpoint --json`",
)
def audit_checkpoint(
    out: Annotated[
        Path | None, typer.Option("--out", help="Add them to this file as well; it keeps what it has.")
    ] = None,
    config: ConfigOption = None,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the newest signed checkpoint of every log, and the roster over all, for an auditor to keep outside."""
    from compliance.evidence import EvidenceError, newest, newest_roster
    from compliance.verify import read_key

    settings = located(config, state_dir)
    logs = logs_of(settings)
    # Recorded first, so that what is handed out covers this very look.
    Look(settings, "checkpoint").record(always=True, found=len(logs))
    found = []
    try:
        roster = newest_roster(Path(settings.audit.dir))
        for log in logs_of(settings):
            mark = newest(log)
            if mark is None:
                say(f"{log.name}: nothing is signed yet", "dim")
                continue
            signed, checkpoint = mark
            found.append((signed.decode(), checkpoint, read_key(log / "key.pub")[2]))
    except EvidenceError as error:
        fail(str(error), 1)
    if as_json:
        rows: list[dict[str, Any]] = [
            {"origin": mark.origin, "size": mark.size, "root": mark.root.hex(), "key": f"sha256:{key}", "note": note}
            for note, mark, key in found
        ]
        if roster is not None:
            rows.append({"origin": roster[1], "number": roster[2].number, "at": roster[2].at, "note": roster[0]})
        print(json.dumps(rows))
    notes = [note for note, _, _ in found] + ([roster[0]] if roster is not None else [])
    for note in notes if not as_json else ():
        print(note)  # with a blank line after it, as the logs hold them
    if out is not None and found:
        try:
            with open(out, "a", encoding="utf-8") as file:
                file.write("".join(f"{note}\n" for note in notes))
        except OSError as error:
            fail(f"{out} cannot be written: {error.strerror}", 1)
    for key in sorted({key for _, _, key in found}):
        say(f"the key's fingerprint is sha256:{key}", "dim")
    if not found:
        raise typer.Exit(1)


audit_app.add_typer(cli_reports.app)


# --- what these commands share ------------------------------------------------------------------------------


def _exported(slot: SlotExport) -> str:
    later = f"; {slot.unsigned} more are not signed yet" if slot.unsigned else ""
    return f"{slot.folder}: {slot.records} records, proved by the checkpoint of {slot.size}{later}"


def _policy(settings: Settings, hash_: str) -> bytes | None:
    """What a policy's hash was taken over: kept beside the logs, or the configuration at hand."""
    from proxy.fingerprints import kept_text

    kept = kept_text(Path(settings.audit.dir), hash_)
    if kept is not None:
        return kept
    return settings.policy_material if hash_ == settings.policy_hash else None


def _table(rows: list[Row]) -> str:
    """A line for each row; what was found as types, without the places, and apart what only the answer held."""
    from proxy.meaning import dollars, table
    from proxy.reports.model import moment

    head = (
        "time (UTC)", "request", "try", "tenant", "project", "key", "action", "rule", "found", "target", "ending", "cost",
    )  # fmt: skip
    body = []
    for row in rows:
        found = _found(row)
        ending = f"{row.ending} ({row.error})" if row.error else row.ending or row.kind
        if row.kind not in ("attempt", "refused") and row.actor:
            ending += f" by {row.actor}"
        tried = row.kind == "attempt"
        cells = (
            moment(row.at), row.request, str(row.attempt) if tried else "", row.tenant, row.project, row.key, row.action, row.rule,
            found, row.target, ending, dollars(row.cost) if tried else "",
        )  # fmt: skip
        body.append(tuple(_printable(cell) for cell in cells))
    return table(head, body, numbers=False)


def _found(row: Row) -> str:
    """`email,phone; answer: ssn`: what stood in the answer never left by this request, and is no reason for what was decided."""
    asked = len(row.findings) - row.answered
    parts = [
        ",".join(dict.fromkeys(finding.partition(":")[0] for finding in some))
        for some in (row.findings[:asked], row.findings[asked:])
    ]
    return "; ".join([*filter(None, parts[:1]), *(f"answer: {kinds}" for kinds in parts[1:] if kinds)])


def _printable(cell: str) -> str:
    """A name that a configuration gave may hold what would move the cursor."""
    return cell if cell.isprintable() else "".join(c if c.isprintable() else "?" for c in cell)
