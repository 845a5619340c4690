"""`spillway budget slots` and `spillway budget retire`: the workers that share budgets in Redis, and those that are gone."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from proxy.reasons import checked_reason
from proxy.terminal import ConfigOption, JsonOption, StateOption, fail, located, say

if TYPE_CHECKING:
    from proxy.config import Settings
    from proxy.state.redis import RedisBudgets

ALIVE = 60.0
"""Seconds: who was heard of since then lives, and is not retired."""
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def register(budget_app: typer.Typer) -> None:
    """Put these commands under `spillway budget`."""
    budget_app.command(
        "slots",
        epilog="**Examples**\n\n`spillway budget slots`\n\n`spillway budget slots --json | jq '.[] | select(.waited_for)'`",
    )(slots)
    budget_app.command(
        "retire",
        epilog="**Examples**\n\n`spillway budget retire spillway-1f2e3d4c/slot-0 --reason 'node 7 was taken away'`\n\n"
        "What it has settled stays spent. What it had set aside is free, so its last attempts may count late or never: "
        "retire only what has stopped for good, and start what can be started.",
    )(retire)


def slots(config: ConfigOption = None, state_dir: StateOption = None, as_json: JsonOption = False) -> None:
    """The workers that a Redis knows, and which of them nothing is granted without. Exit codes: 0, 1 one is waited for."""
    from policies.budgets import StoreFailed
    from proxy.meaning import table

    store = _store(located(config, state_dir))
    try:
        found = sorted(store.slots(), key=lambda state: (not state.missing, state.slot))
    except StoreFailed as error:
        fail(str(error), 1)
    finally:
        store.close()
    if as_json:
        rows = [
            {
                "slot": state.slot, "silent_s": None if state.silent == float("inf") else round(state.silent, 3),
                "waited_for": state.missing,
                "held": [{"scope": name, "window": window, "amount": held} for (name, window), held in state.held.items()],
            }
            for state in found
        ]  # fmt: skip
        print(json.dumps(rows))
    elif found:
        body = [
            [state.slot, _ago(state.silent), _standing(state.silent, state.missing), str(len(state.held))]
            for state in found
        ]
        print(table(["slot", "heard of", "", "accounts held"], body, names=3))
    else:
        say("this Redis knows no worker of this deployment yet", "dim")
    waited = [state.slot for state in found if state.missing]
    if waited:
        say(
            "nothing is granted before those waited for have started; spillway budget retire says that one is gone",
            "dim",
        )
        raise typer.Exit(1)


def retire(
    slot: Annotated[str, typer.Argument(metavar="SLOT", help="As spillway budget slots names it.")],
    reason: Annotated[str, typer.Option(help="Why, in words: stands in the log.")],
    config: ConfigOption = None,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say that a worker has stopped for good: nobody waits for it, and what was set aside for it is free.

    Exit codes: 0, 1 there is no such worker or it lives, 2 wrong use.
    """
    from compliance.records import SlotRetired
    from policies.budgets import StoreFailed
    from proxy.cli_log import changing
    from proxy.fingerprints import account

    reason = checked_reason(reason)
    settings = located(config, state_dir)
    store = _store(settings)
    try:
        found = {state.slot: state for state in store.slots()}
        if slot not in found:
            fail(f"Redis knows no slot {slot!r}; spillway budget slots lists them", 1)
        if found[slot].silent < ALIVE:
            fail(
                f"{slot} was heard of {_ago(found[slot].silent)}: it lives, or was stopped a moment ago; stop it, and wait a minute",
                1,
            )
        with changing(settings) as log:
            try:
                store.retire(slot)
            except StoreFailed as error:
                fail(f"nothing was changed: {error}", 1)
            log.write(SlotRetired(actor=account(), at=time.time_ns() // 1000, reason=reason, slot=slot))
    except StoreFailed as error:
        fail(str(error), 1)
    finally:
        store.close()
    print(json.dumps({"retired": slot}) if as_json else f"{slot} is retired")


def _store(settings: Settings) -> RedisBudgets:
    from policies.budgets import StoreFailed
    from proxy.config_redis import SQLITE
    from proxy.state.opening import open_redis

    if settings.state.store == SQLITE:
        fail(f"budgets are kept in {Path(settings.state.dir)}, for this host alone; there is no Redis to ask", 1)
    try:
        return open_redis(settings)
    except StoreFailed as error:
        fail(str(error), 1)


def _standing(silent: float, missing: bool) -> str:
    if missing:
        return "waited for"
    return "lives" if silent < ALIVE else "silent"


def _ago(seconds: float) -> str:
    if seconds == float("inf"):
        return "never"
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return "now"
