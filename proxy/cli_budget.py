"""`spillway budget`: how budgets stand, other limits at run time, and what was spent in windows that are over."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from proxy.terminal import ConfigOption, JsonOption, StateOption, database, fail, located, say

if TYPE_CHECKING:
    from policies.budgets import BudgetStore
    from policies.scopes import Budget
    from proxy.config import Settings

budget_app = typer.Typer(
    help="How budgets stand, other limits at run time, and the history.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
SHOWN = 20
"""Accounts of one `each` budget that are listed, the fullest first."""

ScopeArgument = Annotated[
    str, typer.Argument(metavar="SCOPE", help="Such as org, team/oncology, acme:team/oncology or key/key_1f2e.")
]
WindowOption = Annotated[
    str | None, typer.Option(help="Which window's limit, where a scope has several: month, day, or 'rolling 24h'.")
]
UnitOption = Annotated[str | None, typer.Option(help="usd, tokens or requests, where a scope has limits in several.")]


@budget_app.command(
    "show",
    epilog="**Examples**\n\n`spillway budget show`\n\n`spillway budget show team/oncology --json`\n\n"
    "In a bar, `#` is spent and `-` is held: by requests under way, and by workers for those to come.",
)
def show(
    scope: Annotated[str | None, typer.Argument(metavar="SCOPE", help="Only this one. Default: all.")] = None,
    everyone: Annotated[
        bool, typer.Option("--all", help=f"Every account, not only the {SHOWN} fullest of each.")
    ] = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """What is spent, held and left of every budget now. Exit codes: 0, 1 a limit is reached, 2 wrong use."""
    from proxy.budget_tables import standings, standings_rows, standings_table, windows_of

    settings, budgets = _budgets(config, state_dir)
    if scope is not None:
        budgets = _matching(budgets, scope)
    now = time.time()
    with _store(settings) as store:
        rows = standings(budgets, store.current(windows_of(budgets, now)), store.overrides(), now)
    if scope is not None:
        rows = [row for row in rows if row.name.partition("#")[0] in (scope, row.budget.scope)]
        rows = [row for row in rows if row.name.partition("#")[0] == scope] or rows
    left_out = 0
    if not everyone and not as_json:
        kept = [row for row in rows if not row.budget.is_each]
        for budget in budgets:
            of_each = [row for row in rows if row.budget is budget and budget.is_each]
            kept += of_each[:SHOWN]
            left_out += max(0, len(of_each) - SHOWN)
        rows = [row for row in rows if row in kept]
    if as_json:
        print(json.dumps(standings_rows(rows)))
    elif rows:
        print(standings_table(rows))
    else:
        say("nothing was spent under these budgets yet", "dim")
    if left_out:
        say(f"{left_out:,} more accounts; --all lists them", "dim")
    if any(row.settled + row.held >= row.limit for row in rows):
        raise typer.Exit(1)


@budget_app.command(
    "set",
    epilog="**Examples**\n\n`spillway budget set team/oncology '$5000' --reason 'trial until March'`\n\n"
    "`spillway budget set key/key_1f2e '1200 requests' --window minute`\n\n`spillway budget set team/oncology --clear`",
)
def set_limit(
    scope: ScopeArgument,
    amount: Annotated[str | None, typer.Argument(help="Such as '$5000', '2M tokens' or '600 requests'.")] = None,
    window: WindowOption = None,
    unit: UnitOption = None,
    clear: Annotated[bool, typer.Option("--clear", help="Back to what the configuration says.")] = False,
    reason: Annotated[str, typer.Option(help="Why, in words: stands in the log.")] = "",
    config: ConfigOption = None,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set another limit at run time; the log keeps who did it and why. Workers take it up within about a second."""
    from compliance.records import BudgetChanged
    from policies.budgets import StoreFailed
    from policies.windows import words_of
    from proxy.cli_log import changing
    from proxy.config_budgets import amount_words
    from proxy.fingerprints import account
    from proxy.reasons import checked_reason

    if clear == (amount is not None):
        fail("give an amount, such as '$5000', or --clear", 2)
    reason = checked_reason(reason) if reason else ""
    settings, budgets = _budgets(config, state_dir)
    limit, said = (None, unit) if amount is None else _amount(amount, unit)
    budget = _one(_matching(budgets, scope), scope, window, said)
    scope = _account_name(settings, budget, scope)
    name = scope + budget.suffix
    what = f"{name}|{budget.window}"

    with _store(settings) as store:
        before = store.overrides().get(what)
        if clear and before is None:
            fail(f"{scope} has the limit that the configuration says; there is nothing to clear", 1)
        with changing(settings) as log:
            try:
                store.override(what, limit)
            except StoreFailed as error:
                fail(f"nothing was changed: {error}", 1)
            log.write(
                BudgetChanged(
                    actor=account(), at=time.time_ns() // 1000, before=-1 if before is None else before,
                    limit=-1 if limit is None else limit, reason=reason, scope=name, window=budget.window,
                )
            )  # fmt: skip
    now = budget.limit if limit is None else limit
    if as_json:
        print(json.dumps({"account": name, "window": words_of(budget.window), "limit": now, "before": before}))
        return
    words = amount_words(budget.unit, now)
    print(f"{scope}: {words} a {words_of(budget.window)}{', as configured' if limit is None else ''}")


@budget_app.command(
    "history",
    epilog="**Examples**\n\n`spillway budget history org`\n\n`spillway budget history team/oncology --window day --count 30 --json`",
)
def past(
    scope: ScopeArgument,
    window: WindowOption = None,
    unit: UnitOption = None,
    count: Annotated[int, typer.Option(min=1, max=1000, help="Windows, with the one of now.")] = 6,
    config: ConfigOption = None,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """What was spent in each window, from the ledger. An attempt counts where it ended."""
    from policies.scopes import UNITS
    from policies.windows import seconds_of
    from proxy.budget_tables import history, history_table
    from proxy.projections.ledger import Ledger

    settings, budgets = _budgets(config, state_dir)
    budget = _one(_matching(budgets, scope), scope, window, unit)
    path = Path(settings.state.dir) / "ledger.db"
    if not path.exists():
        fail(f"there is no ledger at {path}; nothing was served from this state directory yet", 1)
    start = int((time.time() - seconds_of(budget.window) * (count + 1)) * 1e6)
    with _store(settings) as store:
        limit = store.overrides().get(f"{scope}{budget.suffix}|{budget.window}", budget.limit)
    with database(path):
        ledger = Ledger(path)
        try:
            found = history(ledger.lines(start), budget, scope + budget.suffix, _key_names(settings), limit)
        finally:
            ledger.close()
    rows = sorted(found.values(), key=lambda row: row.begins)[-count:]
    if as_json:
        fields = ("window", "begins", "ends", "attempts", "spent")
        print(json.dumps([{"unit": UNITS[budget.unit], **{f: getattr(row, f) for f in fields}} for row in rows]))
    elif rows:
        print(history_table(rows, budget.unit))
    else:
        say(f"the ledger has nothing of {scope} in this time", "dim")


# --- what is asked for -------------------------------------------------------------------------------------


def _budgets(config: Path | None, state_dir: Path | None) -> tuple[Settings, list[Budget]]:
    from proxy.config_budgets import budgets_of

    settings = located(config, state_dir)
    budgets = budgets_of(settings)
    if not budgets:
        fail("the configuration has no budgets; write budgets: [{scope: org, window: month, limit: $2000}]", 1)
    return settings, budgets


def _matching(budgets: list[Budget], scope: str) -> list[Budget]:
    from policies.scopes import matching

    if scope.startswith("each "):
        fail(f"{scope!r} is many accounts; name one of them, such as {scope.removeprefix('each ')}/NAME", 2)
    found = matching(budgets, scope)
    if not found:
        there = ", ".join(dict.fromkeys(budget.scope for budget in budgets))
        fail(f"no budget is about {scope!r}; there are {there}", 2)
    return found


def _account_name(settings: Settings, budget: Budget, scope: str) -> str:
    """The account that is meant: keys are charged by their ids and users by their pseudonyms, so that another limit for any
    other name would be no limit at all."""
    from proxy.config_budgets import PSEUDONYM
    from proxy.config_errors import nearest

    before, _, name = scope.partition("/")
    if not budget.is_each or budget.level not in ("key", "user"):
        return scope
    if budget.level == "user":
        if PSEUDONYM.fullmatch(name):
            return scope
        fail(
            "users are known by their pseudonyms only, such as user/3f0a5c7d9e1b2a4c; `spillway spend --by user` has them",
            2,
        )
    known = _key_names(settings)
    ids = [one for one, called in known.items() if called == name and one != name]
    if name in known or (not ids and name.startswith("key_")):  # it may be another host's
        return scope
    if len(ids) > 1:
        fail(f"several keys are called {name!r}; name one by its id: {', '.join(f'{before}/{one}' for one in ids)}", 2)
    if not ids:
        hint = nearest(name, [*known, *known.values()]) or "`spillway keys list` has them"
        fail(f"there is no key {name!r}; {hint}", 2)
    return f"{before}/{ids[0]}"


def _one(budgets: list[Budget], scope: str, window: str | None, unit: str | None) -> Budget:
    """The one that is meant; else the end, with what there is."""
    from policies.scopes import UNITS
    from policies.windows import words_of
    from proxy import config_budgets
    from proxy.quantities import Wrong

    if unit is not None and unit not in UNITS:
        fail(f"{unit!r} is no unit; there are {', '.join(UNITS)}", 2)
    try:
        kind = None if window is None else config_budgets.window(window)
    except Wrong as wrong:
        fail(f"--window {wrong}; {wrong.hint}", 2)
    found = [one for one in budgets if unit in (None, UNITS[one.unit]) and kind in (None, one.window)]
    if len(found) != 1:
        there = ", ".join(f"{words_of(one.window)} in {UNITS[one.unit]}" for one in found or budgets)
        fail(f"{scope} has {'several limits' if found else 'no such limit'}: {there}; --window and --unit say which", 2)
    return found[0]


def _amount(text: str, unit: str | None) -> tuple[int, str]:
    """(limit, unit) of `$5000`, `2M tokens`, `600 requests`."""
    from proxy import quantities
    from proxy.quantities import Wrong

    try:
        if text.lstrip().startswith("$"):
            return quantities.money(text), "usd"
        match = re.fullmatch(r"\s*([0-9][0-9_,.]*\s?[kKmMbB]?)\s*(tokens?|requests?)?\s*", text)
        named = (match[2].rstrip("s") + "s" if match[2] else unit) if match else None
        if match is None or named not in ("tokens", "requests"):
            raise Wrong("an amount is written as '$5000', '2M tokens' or '600 requests'")
        return quantities.count(match[1].strip()), named
    except Wrong as wrong:
        fail(f"{wrong}{f'; {wrong.hint}' if wrong.hint else ''}", 2)


@contextlib.contextmanager
def _store(settings: Settings) -> Iterator[BudgetStore]:
    from policies.budgets import StoreFailed
    from proxy.state.opening import open_budgets

    try:
        store = open_budgets(settings)
    except (StoreFailed, OSError) as error:
        fail(f"{error}; --state-dir names another directory", 1)
    try:
        yield store
    except StoreFailed as error:
        fail(str(error), 1)
    finally:
        store.close()


def _key_names(settings: Settings) -> dict[str, str]:
    """The names of keys by their ids: budgets may be declared by either."""
    from proxy.state.keys import KeyStore

    names = {f"config:{name}": name for name in settings.keys}
    path = Path(settings.state.dir) / "keys.db"
    if path.exists():
        with database(path):
            store = KeyStore(path)
            try:
                names.update((row.id, row.name) for row in store.list())
            finally:
                store.close()
    return names
