"""`spillway audit hold` and `spillway audit erase`: what must be kept, and what must go."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from proxy.reasons import checked_reason, checked_words
from proxy.terminal import ConfigOption, JsonOption, StateOption, fail, located, say

if TYPE_CHECKING:
    from compliance.holds import Hold
    from proxy.config import Settings
    from proxy.erasing import Found, Scope

hold_app = typer.Typer(
    help="Legal holds: what may not be erased, and does not expire.", no_args_is_help=True, rich_markup_mode="markdown"
)
_MICRO = 1_000_000

SubjectOption = Annotated[
    str | None,
    typer.Option(help="Whose data: as in x-spillway-subject; - reads it from standard input, which no list of processes shows."),
]  # fmt: skip
PseudonymOption = Annotated[str | None, typer.Option(help="The same subject as records name it: 32 characters of hex.")]
TenantOption = Annotated[str | None, typer.Option(help="Everything of a tenant.")]
RequestOption = Annotated[str | None, typer.Option(help="One request, by its x-spillway-request-id.")]
ReasonOption = Annotated[
    str, typer.Option(help="Why; it stands in the log for ever, so name no person and nothing of what was said.")
]
ShowOption = Annotated[bool, typer.Option("--dry-run", help="Say what would go, and erase nothing.")]
FromOption = Annotated[
    str | None, typer.Option("--from", help="A period: a day or a time (UTC unless it says otherwise).")
]
ToOption = Annotated[str | None, typer.Option("--to", help="Its end; a day is included whole. Default: it has none.")]


def register(audit_app: typer.Typer) -> None:
    """Put these commands under `spillway audit`."""
    audit_app.add_typer(hold_app, name="hold")
    audit_app.command(
        "erase",
        epilog="**Examples**\n\n`spillway audit erase --subject 4711 --reason 'request 2026-118'`\n\n"
        "`echo 4711 | spillway audit erase --subject - --reason 'request 2026-118' --dry-run`\n\n"
        "`spillway audit erase --request 5f0c9a1b2c3d00000001 --reason 'sent by mistake' --json`",
    )(audit_erase)


def audit_erase(
    reason: ReasonOption,
    subject: SubjectOption = None,
    pseudonym: PseudonymOption = None,
    tenant: TenantOption = None,
    request: RequestOption = None,
    dry_run: ShowOption = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Destroy the keys of captures and commitments, and the maps of pseudonyms, of a subject, a tenant or a request.

    The log's records stay, and it still verifies; they hold no content. A legal hold on anything that would go blocks
    all of it: exit code 1. What was copied elsewhere before, such as a backup of the state directory, is out of reach.
    """
    from compliance.journal import JournalError
    from compliance.vault import StillRemoving, VaultFailed
    from proxy.cli_log import now
    from proxy.control_log import pen
    from proxy.erasing import Blocked, erase, look
    from proxy.fingerprints import account
    from proxy.state.pseudonyms import PseudonymsFailed

    settings = located(config, state_dir)
    scope = _scope(settings, subject, pseudonym, tenant, request)
    reason = checked_reason(reason)
    _need_logs(settings)
    open_ = False
    try:
        if dry_run:
            found = look(settings, scope)
            _print_look(found, as_json)
            raise typer.Exit(0 if found.blocked is None else 1)
        with pen(settings) as log:
            open_ = True
            done = erase(settings, log, scope, reason=reason, actor=account(), now=now)
    except Blocked as blocked:
        if as_json:
            print(json.dumps({"erased": False, "hold": blocked.hold.id, "reason": blocked.hold.reason}))
        fail(f"a legal hold blocks it: {blocked}; nothing was erased", 1)
    except (VaultFailed, PseudonymsFailed, JournalError, StillRemoving, OSError) as failure:
        if not open_ and not dry_run:
            fail(f"nothing was erased, since no record of it can be made: {failure}", 1)
        fail(
            f"{'this cannot be told' if dry_run else 'the erasure did not come to its end'}: {failure}; do it again", 1
        )
    from proxy.reports.model import count

    if as_json:
        row = {"erased": True, "scope": done.scope, "value": done.value}
        print(
            json.dumps(
                {**row, **{name: getattr(done, name) for name in ("keys", "records", "captures", "features", "maps")}}
            )
        )
    elif done.records or done.maps or done.features:
        print(
            f"erased: {count(done.records, 'attempt')} with {count(done.captures, 'capture')}, {count(done.keys, 'data key')},"
            f"{_features(done.features)} {count(done.maps, 'map of pseudonyms', 'maps of pseudonyms')}"
        )
    else:
        print("nothing was kept of it; what is on its way now is not kept either")


@hold_app.command(
    "add",
    epilog="**Examples**\n\n`spillway audit hold add --tenant clinic --reason 'case 12/2026'`\n\n"
    "`spillway audit hold add --from 2026-03-01 --to 2026-03-31 --reason 'inquiry of the data protection office'`",
)
def hold_add(
    reason: ReasonOption,
    subject: SubjectOption = None,
    pseudonym: PseudonymOption = None,
    tenant: TenantOption = None,
    request: RequestOption = None,
    begin: FromOption = None,
    end: ToOption = None,
    config: ConfigOption = None,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Place a hold on a subject, a tenant, a request or a period; its id is printed."""
    from compliance.records import HoldChanged
    from proxy.fingerprints import account

    settings = located(config, state_dir)
    first, last = _period(begin, end)
    if begin is not None or end is not None:
        if any(one is not None for one in (subject, pseudonym, tenant, request)):
            fail("a hold is on one thing: a period, or a subject, a tenant or a request", 2)
        kind, value = "period", ""
    else:
        scope = _scope(settings, subject, pseudonym, tenant, request, of_hold=True)
        kind, value = scope.kind, scope.value
    hold, reason = f"hold_{os.urandom(5).hex()}", checked_reason(reason)

    def place(at: int) -> Any:
        return HoldChanged(
            actor=account(), at=at, begin=first, change="placed", end=last, hold=hold, reason=reason, scope=kind, value=value
        )  # fmt: skip

    _write(settings, place)
    print(json.dumps({"hold": hold, "scope": kind, "value": value, "begin": first, "end": last}) if as_json else hold)
    if value and not _heard_of(settings, kind, value):
        say(
            f"no record of any time is of this {kind}: is it spelt as the records have it? The hold is in force",
            "yellow",
        )


@hold_app.command(
    "release", epilog="**Example**\n\n`spillway audit hold release hold_1f2e3d4c5b --reason 'case closed'`"
)
def hold_release(
    hold: Annotated[str, typer.Argument(metavar="ID", help="The hold's id.")],
    reason: ReasonOption,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Release a hold."""
    from compliance.records import HoldChanged
    from proxy.fingerprints import account

    settings = located(config, state_dir)
    try:
        one = {found.id: found for found in _holds(settings)}[hold]
    except KeyError:
        fail(f"no hold in force is called {hold!r}; `spillway audit hold list` shows them", 1)
    reason = checked_reason(reason)

    def release(at: int) -> Any:
        return HoldChanged(
            actor=account(), at=at, begin=one.begin, change="released", end=one.end, hold=hold, reason=reason,
            scope=one.scope, value=one.value,
        )  # fmt: skip

    _write(settings, release)
    print(hold)


@hold_app.command("list", epilog="**Example**\n\n`spillway audit hold list --json`")
def hold_list(config: ConfigOption = None, state_dir: StateOption = None, as_json: JsonOption = False) -> None:
    """The holds in force, the oldest first."""
    from proxy.cli_log import Look
    from proxy.meaning import table

    settings = located(config, state_dir)
    found = _holds(settings)
    if found:
        Look(settings, "audit hold list").record(found=len(found), always=True)
    if as_json:
        print(json.dumps([{name: getattr(hold, name) for name in hold.__struct_fields__} for hold in found]))
    elif found:
        head = ("hold", "since (UTC)", "on", "by", "reason")
        print(table(head, [(h.id, _when(h.at), _on(h), h.actor, h.reason) for h in found], numbers=False))
    else:
        say("there is no hold", "dim")


# --- what these commands share ------------------------------------------------------------------------------


def _write(settings: Settings, make: Callable[[int], Any]) -> None:
    """A record of a hold, while nothing is being removed."""
    from compliance.vault import StillRemoving
    from proxy.cli_log import changing, now
    from proxy.vaulting import removing

    try:
        with changing(settings) as pen, removing(settings):  # in this order, as `audit erase` takes them
            pen.write(make(now()))
    except StillRemoving:
        fail("nothing was changed: captures are being removed just now; try again", 1)


def _heard_of(settings: Settings, kind: str, value: str) -> bool:
    """Has a record this subject, tenant or request?  A hold on a name that was typed wrong would keep nothing."""
    from proxy.choice import index_of, logs_of

    try:
        with index_of(settings, logs_of(settings)) as index:
            return index.heard_of(kind, value)
    except typer.Exit:  # the logs cannot be read: the hold is placed all the same
        return True


def _holds(settings: Settings) -> list[Hold]:
    from compliance.control import holds_in_force
    from proxy.instance import signing_key

    try:
        return list(holds_in_force(Path(settings.audit.dir), signing_key(settings)))
    except OSError as error:
        fail(f"{error.filename} cannot be read: {error.strerror}", 1)


def _scope(
    settings: Settings, subject: str | None, pseudonym: str | None, tenant: str | None, request: str | None, *, of_hold: bool = False
) -> Scope:  # fmt: skip
    """The one thing that the options name."""
    from proxy.erasing import Scope

    given = {"subject": subject, "pseudonym": pseudonym, "tenant": tenant, "request": request}
    named = {name: value for name, value in given.items() if value is not None}
    if len(named) != 1:
        period = " or a period with --from and --to" if of_hold else ""
        fail(f"name one thing: --subject (or --pseudonym), --tenant or --request{period}", 2)
    ((name, value),) = named.items()
    if name == "subject":
        return Scope("subject", _pseudonym(settings, sys.stdin.readline() if value == "-" else value))
    if not value.strip() or not value.isprintable():
        fail(f"--{name} takes a name", 2)
    if name == "request" and (not value.isalnum() or len(value) > 64):
        fail("--request takes what x-spillway-request-id said", 2)
    if name == "tenant":
        checked_words(value, "tenant", 200)  # it stands in the log as it is; a patient is --subject
    if name == "pseudonym" and (len(value) != 32 or set(value) - set("0123456789abcdef")):
        fail("--pseudonym takes 32 characters of hex, as records have them; --subject takes what the header said", 2)
    return Scope("subject" if name == "pseudonym" else name, value)


def _pseudonym(settings: Settings, subject: str) -> str:
    """A subject as records name it, under this instance's key."""
    from compliance.journal import JournalError, load_or_create_key
    from proxy.app import signing_key_path
    from proxy.recording import pseudonym_key, subject_pseudonym

    if not subject.strip():
        fail("--subject takes what x-spillway-subject said", 2)
    path = signing_key_path(settings)
    if not path.exists():
        fail(
            f"{path} is not there; subjects are known under the log's key: --state-dir or --config says where it is", 1
        )
    try:
        return subject_pseudonym(pseudonym_key(load_or_create_key(path).private_bytes_raw()), subject)
    except (JournalError, OSError) as error:
        fail(f"the log's key cannot be used: {error}", 1)


def _need_logs(settings: Settings) -> None:
    from compliance.journal import slots

    if not slots(Path(settings.audit.dir)):
        fail(f"there is no log in {settings.audit.dir}; --state-dir or --config says where it is", 1)


def _period(begin: str | None, end: str | None) -> tuple[int, int]:
    """[begin, end) in microseconds since the epoch; (0, 0): none is named."""
    if begin is None and end is None:
        return 0, 0
    first = 0 if begin is None else _moment(begin, after=False)
    last = (1 << 62) - 1 if end is None else _moment(end, after=True)
    if last <= first:
        fail("the period is empty: --from must lie before --to", 2)
    return first, last


def _moment(text: str, *, after: bool) -> int:
    try:
        moment = datetime.fromisoformat(text)
        if len(text) == 10 and after:
            moment = datetime.combine(date.fromisoformat(text) + timedelta(days=1), moment.time())
    except (ValueError, OverflowError):
        fail(f"{text!r} is no time; write 2026-11-30, 2026-11-30T14:00 or 2026-11-30T14:00+01:00", 2)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _print_look(found: Found, as_json: bool) -> None:
    blocked = found.blocked
    if as_json:
        row = {"attempts": found.attempts, "features": found.features, "maps": found.maps}
        print(json.dumps({**row, "hold": blocked.id if blocked is not None else None}))
        return
    from proxy.reports.model import count

    maps_ = count(found.maps, "map of pseudonyms", "maps of pseudonyms")
    print(f"would go: what is kept of {count(found.attempts, 'attempt')},{_features(found.features)} and {maps_}")
    if blocked is not None:
        say(f"a legal hold blocks it: hold {blocked.id}: {blocked.reason}", "red")


def _features(number: int) -> str:
    """What was kept to learn from, where there was any."""
    from proxy.reports.model import count

    return f" the numbers of {count(number, 'text')}," if number else ""


def _when(at: int) -> str:
    return datetime.fromtimestamp(at / _MICRO, UTC).strftime("%Y-%m-%d %H:%M")


def _on(hold: Hold) -> str:
    if hold.scope != "period":
        return f"{hold.scope} {hold.value}"
    begin = _when(hold.begin) if hold.begin else "the beginning"
    return f"{begin} to {_when(hold.end) if hold.end < (1 << 62) - 1 else 'the end of the hold'}"
