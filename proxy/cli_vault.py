"""`spillway vault`: the master key of captures, the operators, and the way to read a capture with a second one's word."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

from proxy.reasons import checked_reason
from proxy.terminal import ConfigOption, JsonOption, StateOption, fail, located, say

if TYPE_CHECKING:
    from compliance.breakglass import Glass, Opening
    from compliance.captures import Opened
    from compliance.vault import Vault
    from proxy.config import Settings
    from proxy.control_log import Pen
    from proxy.opening import Credential

T = TypeVar("T")

vault_app = typer.Typer(
    help="Encrypted captures of prompts and answers: their key, and who may read them.", no_args_is_help=True,
    rich_markup_mode="markdown",
)  # fmt: skip
operator_app = typer.Typer(
    help="Who may ask for a capture, or approve.", no_args_is_help=True, rich_markup_mode="markdown"
)
vault_app.add_typer(operator_app, name="operator")

AsOption = Annotated[
    Path, typer.Option("--as", help="Your operator's key file.", envvar="SPILLWAY_OPERATOR_KEY", show_envvar=True)
]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="What `spillway vault open` printed.")]


@vault_app.command("init", epilog="**Example**\n\n`spillway vault init --config spillway.yaml`")
def vault_init(config: ConfigOption = None, state_dir: StateOption = None) -> None:
    """Make the master key where a file holds it, and try it; where a service keeps it, try that."""
    from compliance.masterkeys import MasterKeyFailed, create_key
    from compliance.sealing import new_key
    from proxy.vaulting import master_key, master_path, vault_path

    settings = located(config, state_dir)
    part = settings.audit.captures
    try:
        if part is None or part.kms is None:
            path = master_path(settings)
            full, why = _from_vault(settings, lambda vault: [not vault.empty()], needs_key=False)
            if not path.exists() and (any(full) or (why and not full and vault_path(settings).exists())):
                fail(
                    f"{path} is not there, and captures are kept under it: restore your copy; another key opens none of them"
                    f" (to give them up, remove {vault_path(settings)} first)",
                    1,
                )
            made = create_key(path)
            say(
                f"{'made' if made else 'there is'} the master key {path}; keep a copy where the captures are not", "dim"
            )
        key, master = new_key(), master_key(settings)
        if master.unwrap(master.wrap(key)) != key:
            fail("the key service does not give back what it wrapped", 1)
    except MasterKeyFailed as failure:
        fail(str(failure), 1)
    print("the master key works")
    if part is None:
        say("nothing is captured yet: write `audit: {captures: {}}` into the configuration", "dim")


# --- operators ----------------------------------------------------------------------------------------------


@operator_app.command(
    "add",
    epilog="**Examples**\n\n`spillway vault operator add alice --out alice.key`\n\n"
    "`spillway vault operator add carol --out carol.key --as alice.key`",
)
def operator_add(
    name: Annotated[str, typer.Argument(help="Who it is.")],
    out: Annotated[
        Path, typer.Option(help="Where the private key is written; give it to its holder, and keep no copy.")
    ],
    introducer: Annotated[
        Path | None,
        typer.Option("--as", help="An operator's key file: who introduces this one; not needed for the first three."),
    ] = None,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Make an operator and its key. The log gets the public half."""
    from compliance.breakglass import public_hex, signed
    from compliance.records import Operator
    from proxy.fingerprints import account
    from proxy.opening import Credential

    settings = located(config, state_dir)
    if not name.isprintable() or not name.strip() or len(name) > 64 or name != name.strip():
        fail("an operator's name is printable text, up to 64 characters", 2)
    by = _credential(introducer) if introducer is not None else None
    with _glass(settings) as (pen, glass, now):
        why = glass.why_not_add(name, by.name if by is not None else "") or (by is not None and _unknown(glass, by))
        if why:
            fail(str(why), 1)
        made = Credential.new(name)
        record = Operator(
            actor=account(), at=now, by=by.name if by is not None else "", change="added", public_key=public_hex(made.key), name=name,
            signature="",
        )  # fmt: skip
        try:
            made.write(out)
        except FileExistsError:
            fail(f"{out} is there already; choose another file", 1)
        except OSError as error:
            fail(f"{out} cannot be written: {error.strerror}", 1)
        pen.write(signed(record, by.key if by is not None else made.key))
    print(f"{name} is an operator; {out} holds the private key")


@operator_app.command("remove", epilog="**Example**\n\n`spillway vault operator remove bob --as alice.key`")
def operator_remove(
    name: Annotated[str, typer.Argument(help="Who it is.")],
    credential: AsOption,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Remove an operator; what it approved cannot be read any more. Its name is not given again."""
    from compliance.breakglass import signed
    from compliance.records import Operator
    from proxy.fingerprints import account

    settings, by = located(config, state_dir), _credential(credential)
    with _glass(settings) as (pen, glass, now):
        if why := _unknown(glass, by):
            fail(why, 1)
        one = glass.operators.get(name)
        if one is None:
            fail(f"{name!r} is no operator; `spillway vault operator list` shows them", 1)
        record = Operator(
            actor=account(), at=now, by=by.name, change="removed", public_key=one.key, name=name, signature=""
        )
        pen.write(signed(record, by.key))
    print(name)


@operator_app.command("list", epilog="**Example**\n\n`spillway vault operator list --json`")
def operator_list(config: ConfigOption = None, state_dir: StateOption = None, as_json: JsonOption = False) -> None:
    """The operators, who introduced them, and their public keys."""
    from proxy.meaning import table

    rows = list(_read_glass(located(config, state_dir)).operators.values())
    if as_json:
        print(json.dumps([{"name": one.name, "key": one.key, "by": one.by, "at": one.at} for one in rows]))
    elif rows:
        body = [(one.name, _when(one.at), one.by or "-", one.key) for one in rows]
        print(table(("operator", "since (UTC)", "introduced by", "public key"), body, numbers=False))
    else:
        say("there is no operator yet: make two with `spillway vault operator add NAME --out FILE`", "dim")


# --- asking, approving, reading -----------------------------------------------------------------------------


@vault_app.command(
    "open",
    epilog="**Example**\n\n`spillway vault open 5f0c9a1b2c3d00000001 --reason 'complaint 17' --as alice.key`, and then another"
    " operator's `spillway vault approve`",
)
def vault_open(
    request: Annotated[str, typer.Argument(metavar="REQUEST_ID", help="The x-spillway-request-id of an answer.")],
    credential: AsOption,
    reason: Annotated[str, typer.Option(help="Why; it stands in the log for ever, so name no person.")],
    minutes: Annotated[int, typer.Option(min=1, max=1440, help="How long it may be read, from the approval on.")] = 30,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Ask to read a request's capture; the id to approve is printed. It lapses after a day."""
    settings, by = located(config, state_dir), _credential(credential)
    reason = checked_reason(reason)
    if not request.isalnum() or len(request) > 64:
        fail("REQUEST_ID is what x-spillway-request-id said", 2)
    with _glass(settings) as (pen, glass, now):
        why = _unknown(glass, by) or glass.why_not_ask(by.name, minutes * 60)
        fields: dict[str, Any] = {
            "opening": os.urandom(8).hex(),
            "request": request,
            "reason": reason,
            "seconds": minutes * 60,
        }
        if why:
            _deny(pen, by, now, why, **fields)
        kept, why = _from_vault(settings, lambda vault: vault.items("request", request), needs_key=False)
        if not kept:
            _deny(pen, by, now, why or "nothing is kept of this request", **fields)
        _step(pen, by, now, "asked", **fields)
    print(fields["opening"])


@vault_app.command("approve", epilog="**Example**\n\n`spillway vault approve 1f2e3d4c5b6a7988 --as bob.key`")
def vault_approve(
    opening: IdArgument,
    credential: AsOption,
    decline: Annotated[bool, typer.Option("--decline", help="Say no instead, for good.")] = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Approve that another operator reads a capture, or decline it."""
    settings, by = located(config, state_dir), _credential(credential)
    with _glass(settings) as (pen, glass, now):
        one = _opening(glass, opening)
        why = _unknown(glass, by) or glass.why_not_approve(opening, by.name, now)
        if why:
            _deny(pen, by, now, why, expired=one.state(now) == "expired", **_of(one))
        until = 0 if decline else now + one.seconds * 1_000_000
        _step(pen, by, now, "declined" if decline else "approved", until=until, **_of(one))
    print(f"declined {opening}" if decline else f"{one.by} may read request {one.request} until {_when(until)} UTC")
    say(f"asked by {one.by}: {one.reason}", "dim")


@vault_app.command(
    "read",
    epilog="**Examples**\n\n`spillway vault read 1f2e3d4c5b6a7988 --as alice.key`\n\n"
    "`spillway vault read 1f2e3d4c5b6a7988 --as alice.key --part answered > answer.bin`",
)
def vault_read(
    opening: IdArgument,
    credential: AsOption,
    part: Annotated[
        str | None, typer.Option(help="original, sent or answered, alone and as it was. Default: all.")
    ] = None,
    config: ConfigOption = None,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read what was approved, in its time; the record of it is on the disk before anything is shown.

    What is shown fits its commitment in the log, or the command says that it does not and ends with 1.
    """
    from compliance.sealing import PARTS
    from proxy.opening import commitments

    if part is not None and part not in PARTS:
        fail(f"there is no part {part!r}; there are {', '.join(PARTS)}", 2)
    settings, by = located(config, state_dir), _credential(credential)
    with _glass(settings) as (pen, glass, now):
        one = _opening(glass, opening)
        why = _unknown(glass, by) or glass.why_not_read(opening, by.name, now)
        if why:
            _deny(pen, by, now, why, expired=one.state(now) == "expired", **_of(one))
        wanted = PARTS if part is None else (part,)
        opened, why = _from_vault(settings, lambda vault: vault.read(one.request, wanted))
        if not opened:
            _deny(pen, by, now, why or "nothing is kept of this request any more", **_of(one))
        _step(pen, by, now, "read", until=one.until, **_of(one))
    marks = commitments(settings, one.request)
    said = [marks.get((piece.attempt, piece.part)) for piece in opened]
    fits = [None if mark is None else mark == piece.commitment for mark, piece in zip(said, opened, strict=True)]
    if part is not None and not as_json:
        for piece in opened:
            sys.stdout.buffer.write(piece.data)
    else:
        _print(opened, fits, as_json)
    for fit, words in ((False, "does not fit its commitment in the log"), (None, "the log has no commitment to it")):
        parts = [
            f"{piece.part} of attempt {piece.attempt}" for piece, one in zip(opened, fits, strict=True) if one is fit
        ]
        if parts:
            fail(f"{', '.join(parts)}: {words}", 1)


@vault_app.command("list", epilog="**Example**\n\n`spillway vault list --json`")
def vault_list(config: ConfigOption = None, state_dir: StateOption = None, as_json: JsonOption = False) -> None:
    """What operators have asked to read, and what became of it."""
    from proxy.cli_log import Look, now
    from proxy.meaning import table

    at = now()
    settings = located(config, state_dir)
    rows = list(_read_glass(settings).openings.values())
    if rows:
        Look(settings, "vault list").record(found=len(rows), always=True)
    if as_json:
        print(
            json.dumps(
                [
                    {**{name: getattr(one, name) for name in one.__struct_fields__}, "state": one.state(at)}
                    for one in rows
                ]
            )
        )
    elif rows:
        head = ("id", "asked (UTC)", "request", "by", "state", "approved by", "until (UTC)", "reason")
        body = []
        for one in rows:
            who, until = one.approver or one.declined or "-", _when(one.until) if one.until else "-"
            body.append((one.id, _when(one.at), one.request, one.by, one.state(at), who, until, one.reason))
        print(table(head, body, numbers=False))
    else:
        say("nobody has asked for a capture", "dim")


# --- what these commands share ------------------------------------------------------------------------------


@contextlib.contextmanager
def _glass(settings: Settings) -> Iterator[tuple[Pen, Glass, int]]:
    """The log open for a step, what is in force by it, and the time: nobody else takes a step meanwhile."""
    from proxy.cli_log import changing, now

    with changing(settings) as pen:
        yield pen, _read_glass(settings), now()


def _read_glass(settings: Settings) -> Glass:
    from compliance.breakglass import KINDS, Glass
    from compliance.control import control_records
    from proxy.instance import signing_key

    try:
        return Glass(control_records(Path(settings.audit.dir), KINDS, signing_key(settings)))
    except OSError as error:
        fail(f"{error.filename} cannot be read: {error.strerror}", 1)


def _from_vault(settings: Settings, look: Callable[[Vault], list[T]], *, needs_key: bool = True) -> tuple[list[T], str]:
    """(what is there, why nothing can be told)."""
    from compliance.vault import VaultFailed
    from proxy.vaulting import open_vault, vault_path

    if not vault_path(settings).exists():
        return [], f"there are no captures in {vault_path(settings).parent}"
    try:
        with contextlib.closing(open_vault(settings, needs_key=needs_key)) as vault:
            return look(vault), ""
    except VaultFailed as failure:
        return [], str(failure)


def _credential(path: Path) -> Credential:
    from proxy.opening import Credential, CredentialInvalid

    try:
        return Credential.read(path)
    except CredentialInvalid as invalid:
        fail(str(invalid), 2)


def _unknown(glass: Glass, by: Credential) -> str:
    """Why this credential counts for nothing; "": it is an operator's."""
    from compliance.breakglass import public_hex

    known = glass.operators.get(by.name)
    if known is None or known.key != public_hex(by.key):
        return f"the key of {by.name!r} is no operator's here"
    return ""


def _opening(glass: Glass, opening: str) -> Opening:
    one = glass.openings.get(opening)
    if one is None:
        fail(f"there is no request {opening!r}; `spillway vault list` shows them", 1)
    return one


def _of(one: Opening) -> dict[str, Any]:
    return {"opening": one.id, "request": one.request, "reason": one.reason, "seconds": one.seconds}


def _step(pen: Pen, by: Credential, now: int, step: str, *, until: int = 0, why: str = "", **fields: Any) -> None:
    from compliance.breakglass import signed
    from compliance.records import BreakGlass
    from proxy.fingerprints import account

    record = BreakGlass(
        actor=account(), at=now, by=by.name, signature="", step=step, until=until, why=why, **fields
    )  # fmt: skip
    pen.write(signed(record, by.key))


def _deny(pen: Pen, by: Credential, now: int, why: str, *, expired: bool = False, **fields: Any) -> NoReturn:
    """What was not granted leaves its record, too."""
    _step(pen, by, now, "expired" if expired else "denied", why=why, **fields)
    fail(why, 1)


def _print(opened: list[Opened], fits: list[bool | None], as_json: bool) -> None:
    if as_json:
        rows = [
            {
                "attempt": one.attempt, "part": one.part, "text": one.data.decode("utf-8", "backslashreplace"),
                "commitment": one.commitment, "fits": fit,
            }
            for one, fit in zip(opened, fits, strict=True)
        ]  # fmt: skip
        print(json.dumps(rows))
        return
    for one, fit in zip(opened, fits, strict=True):
        word = {
            True: "fits its commitment",
            False: "DOES NOT FIT its commitment",
            None: "without a commitment in the log",
        }[fit]
        print(f"--- attempt {one.attempt}, {one.part}, {len(one.data)} bytes, {word}")
        print(_shown(one.data.decode("utf-8", "backslashreplace")))


def _shown(text: str) -> str:
    """Line ends and tabs as they are; what would steer a terminal as its number."""
    return "".join([c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text])


def _when(at: int) -> str:
    return datetime.fromtimestamp(at / 1_000_000, UTC).strftime("%Y-%m-%d %H:%M")
