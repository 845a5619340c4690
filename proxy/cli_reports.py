"""`spillway audit report` and `spillway audit attest`: what people are asked for, and who answers for it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from proxy.choice import OF_A_SUBJECT, PERIOD, Choice, index_of, logs_of, with_choice
from proxy.cli_log import Look, UnrecordedOption, changing, now
from proxy.reasons import checked_words
from proxy.terminal import ConfigOption, JsonOption, StateOption, fail, located, say

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from proxy.config import Settings

app = typer.Typer()
NAMES = ("disclosures", "access", "policy", "canary", "refusals")
FORMATS = ("text", "markdown", "html")
_SUFFIX = {".html": "html", ".htm": "html", ".md": "markdown", ".txt": "text", "": "text", ".json": "json"}
LONGEST_STATEMENT = 1000


@app.command(
    "report",
    epilog="**Examples**\n\n`spillway audit report disclosures --since 2026-10-01 --until 2026-12-31 --out q4.html`\n\n"
    "`spillway audit report disclosures --subject patient-4711`\n\n`spillway audit report access --since 30d --format markdown`",
)
@with_choice(OF_A_SUBJECT)
def audit_report(
    choice: Choice,
    name: Annotated[str, typer.Argument(metavar="REPORT", help=f"{', '.join(NAMES[:-1])} or {NAMES[-1]}.")],
    out: Annotated[Path | None, typer.Option(help="A file; .html and .md say the format.")] = None,
    format_: Annotated[str | None, typer.Option("--format", help="text, markdown or html.")] = None,
    unrecorded: UnrecordedOption = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """A report for those who ask: what went to whom, who looked, what was changed, whether canaries came home, what was refused.

    Each says its scope, the logs and roots that it was made from, and what it cannot say. It holds no content and no value.
    """
    import msgspec

    from proxy.fingerprints import account
    from proxy.reports.made import REPORTS
    from proxy.reports.render import FORMS
    from proxy.reports.sources import Sources, state_of

    if name not in REPORTS:
        fail(f"there is no report {name!r}; there are {', '.join(NAMES)}", 2)
    if choice.names["subject"] and name != "disclosures":
        fail("--subject is for disclosures", 2)
    form = format_ or _form_of(out)
    as_json = as_json or form == "json"
    if form not in FORMS and not (form == "json" and format_ is None):
        fail(f"there is no format {form!r}; there are {', '.join(FORMATS)}", 2)
    settings = located(config, state_dir)
    logs = logs_of(settings)
    with index_of(settings, logs) as index:
        query = choice.query(settings, index)
        found = index.count(msgspec.structs.replace(query, kind=()))
        recorded = Look(settings, f"report {name}", unrecorded=unrecorded).record(
            filters=choice.filters, found=found, begin=choice.begin, end=choice.end
        )
        audit = Path(settings.audit.dir)
        report = REPORTS[name](Sources(index, audit, state_of(logs), query, now(), account(), recorded))
    page = msgspec.json.encode(report).decode() if as_json else FORMS[form](report).rstrip("\n")
    if out is None:
        print(page)
        return
    try:
        out.write_text(page + "\n", encoding="utf-8")
    except OSError as error:
        fail(f"{out} cannot be written: {error.strerror}", 1)
    say(f"{out}: {report.title}, {'json' if as_json else form}", "dim")


def _form_of(out: Path | None) -> str:
    """The format that the file's name says."""
    form = _SUFFIX.get(out.suffix.lower()) if out is not None else "text"
    if form is None:
        fail(f"{out}: there is no format {out.suffix if out else ''}; write .html (it prints well), .md or .txt", 2)
    return form


@app.command(
    "attest",
    epilog="**Examples**\n\n`spillway audit attest --from 2026-10-01 --to 2026-12-31 --reviewer 'Dana Ortiz' --key dana.pem"
    " --statement 'Reviewed; no disclosure without an agreement.'`\n\n`spillway audit attest --list`\n\n"
    "`ssh-keygen -t ed25519 -f dana` makes a key",
)
@with_choice(PERIOD)
def audit_attest(
    choice: Choice,
    reviewer: Annotated[str, typer.Option(help="Who reviewed.")] = "",
    statement: Annotated[
        str, typer.Option(help="What they say. It stands in the log for good: no names of patients.")
    ] = "",
    key: Annotated[
        Path | None,
        typer.Option(
            help="The reviewer's Ed25519 key (PEM or OpenSSH). Default: the log's own, and the name is only said."
        ),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="What was attested, and whether the signatures fit.")] = False,
    unrecorded: UnrecordedOption = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """A reviewer signs a period: a statement, over the roots of the logs and the counts of what is in them.

    The logs are verified first, and nothing is signed where they do not verify.  With --list, exit code 1 where a signature does not fit, or
    a root is not the log's.
    """
    settings = located(config, state_dir)
    if list_:
        _list(settings, choice, unrecorded=unrecorded, as_json=as_json)
        return
    if choice.end > (present := now()):  # nobody has seen what is still to come
        from proxy.reports.model import moment

        choice = dataclasses.replace(choice, end=present)
        if choice.begin >= present:
            fail("the period has not begun", 2)
        say(f"the period is not over: what is attested ends now, {moment(present)} (UTC)", "yellow")
    _attest(settings, choice, reviewer.strip(), statement.strip(), key, as_json=as_json)


def _attest(
    settings: Settings, choice: Choice, reviewer: str, statement: str, path: Path | None, *, as_json: bool
) -> None:
    from compliance import verify
    from compliance.attesting import sign
    from compliance.lookup import Query
    from compliance.records import Attested, encode
    from proxy.fingerprints import account
    from proxy.projections.audit_index import LEFT
    from proxy.reports.sources import state_of

    if not reviewer or len(reviewer) > LONGEST_STATEMENT or not reviewer.isprintable():
        fail(f"--reviewer is one line of text, up to {LONGEST_STATEMENT} characters", 2)
    statement = checked_words(statement, "statement", LONGEST_STATEMENT)
    logs = logs_of(settings)
    key = _reviewers_key(path) if path is not None else _own_key(settings)
    report = verify.verify_directory(Path(settings.audit.dir))
    if report.status == verify.NOT_VERIFIED:
        fail("the logs do not verify, so there is nothing to attest to; `spillway audit verify` says more", 1)
    with index_of(settings, logs) as index:
        query = Query(begin=choice.begin, end=choice.end)
        sums = {row[0]: row[1:] for row in index.sums(("count(*)", f"sum({LEFT})"), ("kind",), query)}
    attempts, left = sums.get("attempt", (0, 0))
    entry = sign(
        Attested(
            actor=account(), at=now(), attempts=attempts, begin=choice.begin, end=choice.end, left=left,
            refusals=sums.get("refused", (0, 0))[0], reviewer=reviewer,
            roots=tuple(f"{log.origin} {log.signed} {log.root}" for log in state_of(logs) if log.signed),
            signer="reviewer" if path is not None else "instance", signer_key="", statement=statement,
        ),
        key,
    )  # fmt: skip
    with changing(settings) as log:
        log.write(entry)
    if as_json:
        print(encode(entry).decode())
        return
    from proxy.reports.model import period

    print(f"{reviewer} attested {period(choice.begin, choice.end)}")
    print(
        f"  {attempts:,} attempts, {left:,} of them outside local, {entry.refusals:,} refused; roots of {len(entry.roots)} logs"
    )
    if path is None:
        say("signed by the log's own key: who the reviewer is is only said; --key takes a key of theirs", "dim")


def _list(settings: Settings, choice: Choice, *, unrecorded: bool, as_json: bool) -> None:
    from compliance.attesting import fits
    from proxy.meaning import table
    from proxy.reports.model import moment, period

    logs = logs_of(settings)
    with index_of(settings, logs) as index:
        found = [record for _, record in index.events(("attested",), choice.query(settings, index))]
    Look(settings, "attest", unrecorded=unrecorded).record(found=len(found), begin=choice.begin, end=choice.end)
    known = _roots(logs)
    rows = []
    wrong = False
    for record in found:
        words = [] if fits(record) else ["the signature does not fit"]
        words += [f"{root.split(' ')[0]}: not the log's root" for root in record["roots"] if root not in known]
        wrong = wrong or bool(words)
        rows.append((record, "; ".join(words)))
    if as_json:
        print(json.dumps([record | {"problem": problem} for record, problem in rows]))
    elif rows:
        head = (
            "attested (UTC)",
            "period",
            "reviewer",
            "signed by",
            "attempts",
            "left",
            "refused",
            "check",
            "statement",
        )
        body = []
        for record, problem in rows:
            by = f"{record['signer']}'s key {record['signer_key'][:12]}..."
            cells = [
                moment(record["at"]),
                period(record["begin"], record["end"]).removesuffix(" (UTC)"),
                record["reviewer"],
                by,
            ]
            cells += [f"{record[name]:,}" for name in ("attempts", "left", "refusals")]
            body.append((*cells, problem or "fits", record["statement"]))
        print(table(head, body, numbers=False))
    else:
        say("nothing was attested in this period", "dim")
    if wrong:
        raise typer.Exit(1)


def _roots(logs: list[Path]) -> set[str]:
    """`origin size root` of every checkpoint of the logs."""
    from compliance.evidence import EvidenceError, marks

    found = set()
    for log in logs:
        try:
            found |= {f"{mark.origin} {mark.size} {mark.root.hex()}" for mark in marks(log)}
        except EvidenceError as error:
            say(str(error), "red")
    return found


def _own_key(settings: Settings) -> Ed25519PrivateKey:
    from compliance.journal import JournalError, load_or_create_key
    from proxy.app import signing_key_path

    path = signing_key_path(settings)
    try:
        if path.exists():
            return load_or_create_key(path)
        fail(f"{path} is not there; --key takes the reviewer's own key", 1)
    except JournalError as error:
        fail(str(error), 1)
    except OSError as error:
        fail(f"{path} cannot be read: {error.strerror}", 1)


def _reviewers_key(path: Path) -> Ed25519PrivateKey:
    """A private key from a PEM or OpenSSH file; its passphrase is asked for where it has one."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

    try:
        data = path.read_bytes()
    except FileNotFoundError:
        fail(f"{path} is not there; `ssh-keygen -t ed25519 -f {path}` makes a key for the reviewer alone", 1)
    except OSError as error:
        fail(f"{path} cannot be read: {error.strerror}", 1)
    load = load_ssh_private_key if b"OPENSSH PRIVATE KEY" in data else load_pem_private_key
    try:
        try:
            key = load(data, None)
        except TypeError:  # it has a passphrase
            key = load(data, typer.prompt(f"passphrase of {path}", hide_input=True, err=True).encode())
    except (ValueError, UnsupportedAlgorithm):
        fail(f"{path} holds no private key that can be read, or the passphrase is wrong", 1)
    if not isinstance(key, Ed25519PrivateKey):
        fail(f"{path} holds no Ed25519 key; `ssh-keygen -t ed25519` makes one", 1)
    return key
