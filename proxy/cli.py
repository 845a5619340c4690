"""The `spillway` command.

What a command needs is imported inside it: `serve` starts fast because it does not pay for the others.
All read standard input where they take text, write results to standard output, report on standard error,
and exit with 0, 1 (the answer is no) or 2 (wrong use).
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from proxy import (
    cli_audit,
    cli_budget,
    cli_calibrate,
    cli_focus,
    cli_hold,
    cli_parity,
    cli_plan,
    cli_policy,
    cli_prices,
    cli_reconcile,
    cli_replay,
    cli_retain,
    cli_route,
    cli_scan,
    cli_scorecard,
    cli_serve,
    cli_slots,
    cli_spend,
    cli_train,
    cli_vault,
    cli_witness,
)
from proxy.terminal import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    StateOption,
    database,
    fail,
    located,
    print_mistakes,
    read_input,
    say,
    settings_of,
    source_of,
)

if TYPE_CHECKING:
    from compliance.records import KeyChanged
    from proxy.config import Settings
    from proxy.state.keys import KeyRow, KeyStore

app = typer.Typer(
    name="spillway",
    help="A gateway that keeps prompts on local engines and lets only what may leave overflow to the cloud.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
keys_app = typer.Typer(
    help="Make, list and revoke the virtual keys of applications.", no_args_is_help=True, rich_markup_mode="markdown"
)
app.add_typer(keys_app, name="keys")
app.add_typer(cli_audit.audit_app, name="audit")
cli_hold.register(cli_audit.audit_app)
cli_retain.register(cli_audit.audit_app)
cli_witness.register(cli_audit.audit_app)
app.add_typer(cli_vault.vault_app, name="vault")
app.add_typer(cli_scan.app)
app.add_typer(cli_route.app)
app.add_typer(cli_route.routes_app, name="routes")
app.add_typer(cli_calibrate.app)
app.add_typer(cli_train.app)
app.add_typer(cli_spend.app)
app.add_typer(cli_budget.budget_app, name="budget")
cli_slots.register(cli_budget.budget_app)
app.add_typer(cli_parity.app)
app.add_typer(cli_plan.app)
app.add_typer(cli_scorecard.app)
app.add_typer(cli_reconcile.app)
app.add_typer(cli_focus.focus_app, name="focus")
app.add_typer(cli_prices.prices_app, name="prices")
app.add_typer(cli_policy.app)
cli_replay.register(cli_policy.policy_app)
app.add_typer(cli_policy.policy_app, name="policy")
cli_serve.register(app)


def main() -> None:
    """Entry point."""
    app()


@app.command(
    epilog="**Examples**\n\n`spillway check -c spillway.yaml`\n\n`spillway check --explain` says in words what it means"
)
def check(
    config: ConfigOption = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say in words what the configuration means.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check a configuration: every mistake at once, with its line and what would be right."""
    from proxy.config import load
    from proxy.config_errors import ConfigInvalid
    from proxy.meaning import meaning

    path = config or DEFAULT_CONFIG
    try:
        settings = load(path, os.environ)
    except ConfigInvalid as invalid:
        if as_json:
            print(json.dumps({"valid": False, "mistakes": [m._asdict() for m in invalid.mistakes]}))
        else:
            print_mistakes(invalid)
        raise typer.Exit(1) from None
    lines = meaning(settings)
    if as_json:
        print(json.dumps({"valid": True, "policy": settings.policy_hash, "meaning": lines}))
        return
    say(f"{path} is valid (policy {settings.policy_hash})", "green")
    if explain:
        print("\n".join(lines))


@app.command(
    epilog="""**Examples**\n\n`echo '{"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}' | spillway explain`\n\n"""
    "`spillway explain request.json --surface anthropic.messages --json`"
)
def explain(
    file: Annotated[Path | None, typer.Argument(help="A request body. Default: standard input.")] = None,
    surface: Annotated[
        str, typer.Option(help="openai.chat, openai.embeddings, anthropic.messages or anthropic.count_tokens.")
    ] = "openai.chat",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the decision for a request, without sending it."""
    import asyncio

    from proxy.errors import Refusal
    from proxy.explaining import Explainer
    from proxy.meaning import decision_words
    from proxy.surfaces import BY_NAME

    if surface not in BY_NAME or BY_NAME[surface].operation is None:
        known = ", ".join(name for name, row in BY_NAME.items() if row.operation is not None)
        fail(f"there is no surface {surface!r}; there are {known}", 2)
    raw = read_input(file)
    settings = settings_of(source_of(config)[0], secrets=False)
    loop = asyncio.new_event_loop()
    try:
        row = Explainer(settings, loop).explain(surface, raw)
    except Refusal as refusal:
        fail(f"{refusal.code}: {refusal.message}", 1)
    finally:
        loop.close()
    print(json.dumps(row) if as_json else decision_words(row))
    if not row["ranked"]:
        raise typer.Exit(1)


@app.command(
    epilog="**Examples**\n\n`spillway chat 'why is the sky blue?'`\n\n"
    "`spillway chat --model gpt-4o --key spw_... 'hello'`\n\n`cat notes.txt | spillway chat -`"
)
def chat(
    prompt: Annotated[str, typer.Argument(help="What to say; - reads standard input.")],
    model: Annotated[str | None, typer.Option(help="Default: the first that the server lists.")] = None,
    base_url: Annotated[str, typer.Option(help="Where Spillway listens.")] = "http://127.0.0.1:8800",
    key: Annotated[
        str | None, typer.Option(envvar="SPILLWAY_API_KEY", help="A virtual key, where keys are used.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="How long the answer may be.")] = 256,
) -> None:
    """Send one prompt and stream the answer; which target answered goes to standard error."""
    import openai

    text = sys.stdin.read() if prompt == "-" else prompt
    if not text.strip():
        fail("there is nothing to say: give a prompt, or - and text on standard input", 2)
    base_url = _base_url(base_url)
    client = openai.OpenAI(base_url=f"{base_url}/v1", api_key=key or "none", max_retries=0)
    try:
        name = model or _first_model(client)
        with client.chat.completions.with_streaming_response.create(
            model=name, messages=[{"role": "user", "content": text}], max_tokens=max_tokens, stream=True
        ) as answer:
            say(
                f"{answer.headers.get('x-spillway-target')} · request {answer.headers.get('x-spillway-request-id')}",
                "dim",
            )
            for chunk in answer.parse():
                for choice in chunk.choices:
                    print(choice.delta.content or "", end="", flush=True)
            print()
    except openai.APIConnectionError:
        fail(f"nobody answers at {base_url}; start it with `spillway serve`, or pass --base-url", 1)
    except openai.APIStatusError as error:
        fail(
            f"{error.status_code} {error.code or ''}: {error.body.get('message') if isinstance(error.body, dict) else error.message}",
            1,
        )
    except openai.APIError as error:
        fail(f"the stream ended with an error: {error.message}", 1)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the configuration, for editors."""
    from proxy.config import schema as of_settings

    print(json.dumps(of_settings(), indent=2))


@keys_app.command(
    "create",
    epilog="**Examples**\n\n`spillway keys create triage-app --project triage --model gpt-4o`\n\n`spillway keys create research --local-only --json`",
)
def keys_create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    organisation: Annotated[str, typer.Option(help="Who pays.")] = "default",
    team: Annotated[str, typer.Option(help="Whose part of the organisation.")] = "",
    project: Annotated[str, typer.Option(help="The application.")] = "",
    tenant: Annotated[str | None, typer.Option(help="A label that compliance rules speak of.")] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="A model that it may use; repeat for more. Default: all.")
    ] = None,
    local_only: Annotated[bool, typer.Option("--local-only", help="Nothing under this key may leave.")] = False,
    days: Annotated[int | None, typer.Option(min=1, max=36_500, help="Days until it expires. Default: never.")] = None,
    config: ConfigOption = None,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key. It is shown once; only its hash is kept."""
    import time

    from proxy.cli_log import changing

    settings = located(config, state_dir)
    _need_models(settings, model or [])
    with _keys(settings) as store, changing(settings) as log:
        try:
            token, row = store.create(
                name, organisation=organisation, team=team, project=project, tenant=tenant, models=model or None,
                boundaries=["local"] if local_only else None,
                expires=None if days is None else int(time.time()) + days * 86_400,
            )  # fmt: skip
        except ValueError as wrong:
            fail(str(wrong), 2)
        log.write(_key_changed(row, "created"))
    if as_json:
        print(json.dumps({"key": token, "id": row.id, "name": row.name, "created": row.created}))
    else:
        print(token)
        say(f"{row.id} for {name}: keep it now, it is not shown again", "dim")


@keys_app.command("list")
def keys_list(config: ConfigOption = None, state_dir: StateOption = None, as_json: JsonOption = False) -> None:
    """List keys, never the keys themselves."""
    from proxy.meaning import keys_table

    with _keys(located(config, state_dir)) as store:
        rows = store.list()
    if as_json:
        print(json.dumps([{name: getattr(row, name) for name in row.__struct_fields__} for row in rows]))
    elif rows:
        print(keys_table(rows))
    else:
        say("there is no key yet: make one with `spillway keys create NAME`", "dim")


@keys_app.command("revoke", epilog="**Example**\n\n`spillway keys revoke key_1f2e3d4c5b6a`")
def keys_revoke(
    wanted: Annotated[str, typer.Argument(metavar="ID", help="A key's id or name.")],
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Revoke a key; running workers stop serving it within about a second."""
    from proxy.cli_log import NotRecorded, record
    from proxy.state.keys import NoSuchKey

    settings = located(config, state_dir)
    with _keys(settings) as store:
        try:
            revoked = store.revoke(wanted)
        except NoSuchKey as missing:
            fail(f"{missing.args[0]}; `spillway keys list` shows them", 1)
        rows = [row for row in store.list() if row.id in revoked]
    for row in rows:
        print(row.id)
    try:  # a key that must go goes, also where that cannot be written down
        for row in rows:
            record(settings, _key_changed(row, "revoked"))
    except NotRecorded as why:
        fail(f"the key is revoked, but the record of it could not be written: {why}", 1)


# --- what the commands share -------------------------------------------------------------------------------


@contextlib.contextmanager
def _keys(settings: Settings) -> Iterator[KeyStore]:
    from proxy.state.keys import KeyStore

    path = Path(settings.state.dir) / "keys.db"
    with database(path), contextlib.closing(KeyStore(path)) as store:
        yield store


def _need_models(settings: Settings, models: list[str]) -> None:
    """A key for a model that nobody can ask for is a slip of the pen, where a configuration says which there are."""
    from proxy.config_checks import public_models
    from proxy.config_errors import nearest

    known = public_models(settings)
    for model in models if known else ():
        if model not in known:
            fail(f"no model is called {model!r}; {nearest(model, known)}", 2)


def _base_url(url: str) -> str:
    """As people type it: without a scheme, with the /v1 that SDKs want, with a slash at the end."""
    url = url.rstrip("/").removesuffix("/v1")
    if "://" not in url:
        url = f"http://{url}"
    if not url.startswith(("http://", "https://")):
        fail("--base-url takes an http or https URL, such as http://127.0.0.1:8800", 2)
    return url


def _key_changed(row: KeyRow, change: str) -> KeyChanged:
    """A key's change as a record of the command line's own log."""
    from compliance.records import KeyChanged
    from proxy.cli_log import now
    from proxy.fingerprints import account

    return KeyChanged(
        actor=account(), at=now(), boundaries=tuple(row.boundaries or ()), change=change, expires=row.expires or 0, key=row.id,
        models=tuple(row.models or ()), name=row.name, organisation=row.organisation, project=row.project, team=row.team,
        tenant=row.tenant or "",
    )  # fmt: skip


def _first_model(client: Any) -> str:
    models = [model.id for model in client.models.list()]
    if not models:
        fail("the server lists no model; pass one with --model", 1)
    return str(models[0])
