"""`spillway spend` and `spillway plan`: what was spent, and whether to buy."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from proxy.terminal import ConfigOption, JsonOption, StateOption, database, fail, located, say

if TYPE_CHECKING:
    from engines.rates import Price
    from proxy.breakeven import Volume
    from proxy.config import Settings
    from proxy.config_parts import Cost
    from proxy.finance import Report

app = typer.Typer()
_ASSUMED = "utilisation is not stated: this volume is taken to fill the hardware, which counts the most power"

FromOption = Annotated[str | None, typer.Option("--from", help="The first day, such as 2026-01-01, in UTC.")]
ToOption = Annotated[str | None, typer.Option("--to", help="The last day. Default: now.")]
WindowOption = Annotated[
    str | None, typer.Option(help="month, day or hour of the calendar, or a duration such as 30d, until now.")
]
AgainstOption = Annotated[
    str | None, typer.Option(help="The API that local answers are compared with, such as openai/gpt-4o.")
]


@app.command(
    epilog="**Examples**\n\n`spillway spend --by day,team --window month`\n\n"
    "`spillway spend --by model --against openai/gpt-4o --csv spend.csv`\n\n`spillway spend --from 2026-01-01 --to 2026-01-31 --json`"
)
def spend(
    by: Annotated[
        str, typer.Option(help="One or more of day, tenant, team, project, key, model, target, boundary.")
    ] = "target",
    first: FromOption = None,
    last: ToOption = None,
    window: WindowOption = None,
    against: AgainstOption = None,
    csv: Annotated[Path | None, typer.Option(help="Write the lines to this file as CSV, too.")] = None,
    config: ConfigOption = None,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """What was spent, cloud as billed and local by the rate card, from the ledger; idle time is a line of its own."""
    from proxy.finance import spend_csv, spend_rows, spend_table

    settings = located(config, state_dir)
    found = _report(settings, _dimensions(by), (window, first, last), against)
    if csv is not None:
        try:
            csv.write_text(spend_csv(found), encoding="utf-8", newline="")
        except OSError as error:
            fail(f"{csv} cannot be written: {error.strerror}", 1)
        say(f"{len(found.lines) + len(found.pools)} lines in {csv}", "dim")
    print(json.dumps(spend_rows(found)) if as_json else spend_table(found))


@app.command(
    epilog="**Examples**\n\n`spillway plan --tokens-in 80M --tokens-out 20M --against openai/gpt-4o --purchase '$30000' "
    "--watts-load 700 --kwh '$0.12'`\n\n`spillway plan --api '$900/month' --purchase '$4000' --rent '$150/month'`\n\n"
    "`spillway plan --engine gpu --window 30d --against openai/gpt-4o --json` asks the ledger"
)
def plan(
    tokens_in: Annotated[str | None, typer.Option(help="Tokens of prompts a month, such as 80M.")] = None,
    tokens_out: Annotated[str | None, typer.Option(help="Tokens of answers a month, such as 20M.")] = None,
    api: Annotated[
        str | None, typer.Option(help="What the API costs, such as $900/month, where that is known.")
    ] = None,
    against: AgainstOption = None,
    utilisation: Annotated[
        str | None, typer.Option(help="How busy this volume keeps the hardware. Default: 100%.")
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            help="The engine whose cost: is the rate card. Default: the only one that has it, unless --purchase is given."
        ),
    ] = None,
    purchase: Annotated[str | None, typer.Option(help="Such as $60000.")] = None,
    life_years: Annotated[str | None, typer.Option(help="Years that it is used. Default: 4.")] = None,
    residual: Annotated[str | None, typer.Option(help="What it is sold for after that, such as 10%.")] = None,
    financing: Annotated[str | None, typer.Option(help="Interest a year, such as 5%.")] = None,
    watts_idle: Annotated[int | None, typer.Option(help="Power that it draws idle.")] = None,
    watts_load: Annotated[int | None, typer.Option(help="Power that it draws at work.")] = None,
    pue: Annotated[str | None, typer.Option(help="Power usage effectiveness, such as 1.3.")] = None,
    kwh: Annotated[str | None, typer.Option(help="Price of a kilowatt-hour, such as $0.12.")] = None,
    rent: Annotated[str | None, typer.Option(help="Rent and other fixed costs, such as $150/month.")] = None,
    staff: Annotated[str | None, typer.Option(help="Such as $500/month.")] = None,
    first: FromOption = None,
    last: ToOption = None,
    window: WindowOption = None,
    config: ConfigOption = None,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Should we buy GPUs? Payback, first year and three years, and how they depend on utilisation and API prices.

    The volume is stated, or taken from the ledger. Exit codes: 0 it pays back within its life, 1 it does not, 2 wrong use.
    """
    from proxy.breakeven import plan as worked_out
    from proxy.breakeven import plan_rows, plan_words
    from proxy.meaning import card_of

    options = {
        "purchase": purchase, "life_years": life_years, "residual": residual, "financing": financing, "pue": pue, "kwh": kwh,
        "rent": rent, "staff": staff, "watts": _given({"idle": watts_idle, "load": watts_load}) or None,
    }  # fmt: skip
    busy = _utilisation(utilisation or "100%")
    try:
        settings = located(config, state_dir)
        card = card_of(_card(settings, engine, _given(options)))
        stated = _stated(settings, tokens_in, tokens_out, api, against)
        volume = _volume(settings, stated, (window, first, last), against)
    except typer.Exit as ended:  # 1 is an answer here, so that nothing else may end with it
        raise typer.Exit(2) from ended
    found = worked_out(card, volume, busy)
    if utilisation is None:
        found.notes.append(_ASSUMED)
    print(json.dumps(plan_rows(found)) if as_json else plan_words(found))
    if not found.pays:
        raise typer.Exit(1)


# --- what is asked for -------------------------------------------------------------------------------------


def _dimensions(by: str) -> tuple[str, ...]:
    from proxy.projections.ledger import DIMENSIONS

    names = tuple(dict.fromkeys(name.strip() for name in by.split(",")))
    for name in names:
        if name not in DIMENSIONS:
            fail(f"cannot list by {name!r}; there are {', '.join(DIMENSIONS)}", 2)
    return names


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: option for name, option in options.items() if option is not None}


def _report(
    settings: Settings, by: tuple[str, ...], asked: tuple[str | None, str | None, str | None], against: str | None
) -> Report:
    """The ledger's report over the period that was asked for."""
    from proxy.finance import period, report
    from proxy.meaning import card_of
    from proxy.projections.ledger import Ledger
    from proxy.quantities import Wrong

    price = (against, _price(settings, against)) if against is not None else None
    path = Path(settings.state.dir) / "ledger.db"
    if not path.exists():
        fail(f"there is no ledger at {path}; nothing was served from this state directory yet", 1)
    cards = {name: card_of(engine.cost) for name, engine in settings.engines.items() if engine.cost is not None}
    with database(path):
        ledger = Ledger(path)
        try:
            span = period(*asked, since=ledger.since(), now=time.time_ns() // 1000)
            return report(by, span, ledger.sums(by, *span), ledger.intervals(*span), cards, price)
        except Wrong as wrong:
            fail(f"{wrong}; {wrong.hint}", 2)
        finally:
            ledger.close()


def _price(settings: Settings, name: str) -> Callable[[str], Price | None]:
    """The price of an API's model by day: the operator's, by engine/model, before the shipped list's, by kind/model."""
    from engines.kinds import kind
    from engines.rates import PriceList
    from proxy.config_errors import nearest
    from proxy.prices import price_of, shipped

    rows = shipped()
    prices = PriceList(rows)
    engine, _, model = name.partition("/")
    part = settings.engines.get(engine)
    entry = part.models.get(model) if part is not None else None
    listed = f"{kind(part.kind).name}/{entry.id if entry and entry.id else model}" if part is not None else name
    own = settings.prices.get(name)
    override = price_of(name, own) if own is not None else None
    known = [*settings.prices, *(row.model for row in rows)]
    if override is None and listed not in known:
        fail(f"{name!r} has no price; {nearest(name, known)}", 2)

    def on(day: str) -> Price | None:
        return override if override is not None else prices.find(listed, day)

    return on


def _stated(
    settings: Settings, tokens_in: str | None, tokens_out: str | None, api: str | None, against: str | None
) -> Volume | None:
    """The volume that the options state; None: they state none, so the ledger is asked."""
    from proxy.breakeven import Volume
    from proxy.finance import tokens_cost
    from proxy.meaning import dollars
    from proxy.quantities import Wrong, count, monthly

    if api is None and tokens_in is None and tokens_out is None:
        return None
    try:
        inward, outward = (0 if text is None else count(text) for text in (tokens_in, tokens_out))
        if api is not None:
            if against is not None:
                fail("--api says what it costs, and --against asks for it: leave one of them out", 2)
            return Volume(monthly(api), "as stated", inward + outward or None)
    except Wrong as wrong:
        fail(f"{wrong}; {wrong.hint}", 2)
    if against is None:
        fail("--against says which API these tokens would go to, such as openai/gpt-4o", 2)
    price = _price(settings, against)(time.strftime("%Y-%m-%d", time.gmtime()))
    if price is None:
        fail(f"{against!r} has no price today", 2)
    how = f"{inward:,} in at {dollars(price.input * 1_000_000)}/M + {outward:,} out at {dollars(price.output * 1_000_000)}/M"
    note = f"price of {price.id}, source {price.source}; nothing is counted as cached"
    return Volume(tokens_cost(inward, outward, price), f"{how} ({against})", inward + outward or None, (note,))


def _volume(
    settings: Settings, stated: Volume | None, asked: tuple[str | None, str | None, str | None], against: str | None
) -> Volume:
    """The stated volume, or the ledger's over a period."""
    if stated is None:
        return _from_ledger(_report(settings, ("boundary",), asked, against))
    if any(asked):
        fail("a stated volume has no period: leave --window, --from and --to out", 2)
    return stated


def _from_ledger(found: Report) -> Volume:
    """What the ledger's period would be in a month: cloud as billed, local at the counterfactual's price."""
    from engines.ratecard import MONTH
    from proxy.breakeven import Volume
    from proxy.finance import DAY
    from proxy.meaning import dollars

    length = found.end - found.start
    if not found.total.attempts or not length:
        fail("the ledger has nothing in this period; state a volume with --tokens-in, --tokens-out and --against", 2)
    notes = list(found.notes)
    counted = [line for line in found.lines if found.against or line.local < line.attempts]
    local = found.total.local
    if local and not found.against:
        notes.append(
            f"local attempts that are not counted: {local:,}; --against says what they would have cost at an API"
        )
    if not local:
        notes.append("there are no local rows: how busy this volume keeps the hardware is not measured but assumed")
    if found.total.attempts > local:
        notes.append("all cloud traffic counts as if it could be answered locally")
    if found.total.estimated:
        notes.append(f"the tokens of {found.total.estimated:,} of {found.total.attempts:,} attempts are estimates")
    if length < 7 * DAY:
        notes.append(f"the period has only {length / DAY:.1f} days, and is taken as if every day were like it")
    for pool in found.pools:
        notes.append(f"{pool.engine} was busy {pool.spent.busy_us / length:.1%} of the period")
    total = found.total.api + found.total.avoided
    tokens = sum(line.input + line.cache_read + line.cache_write + line.output for line in counted)
    how = f"cloud {dollars(found.total.api)}"
    how += f" + local at {found.against} {dollars(found.total.avoided)}" if found.against else ""
    return Volume(
        total * MONTH // length,
        f"{how} in {length / DAY:,.1f} days of the ledger, as 30.4",
        tokens * MONTH // length or None,
        tuple(notes),
    )


def _card(settings: Settings, engine: str | None, options: dict[str, Any]) -> Cost:
    """The rate card of an engine, with what the options say instead."""
    from pydantic import ValidationError

    from proxy.config_errors import from_validation, nearest
    from proxy.config_parts import Cost, Watts

    cards = {name: part.cost for name, part in settings.engines.items() if part.cost is not None}
    if engine is not None and engine not in settings.engines:
        fail(f"there is no engine {engine!r}; {nearest(engine, list(settings.engines))}", 2)
    if engine is not None and engine not in cards:
        fail(f"engine {engine!r} has no cost: in the configuration", 2)
    if engine is None and len(cards) > 1 and "purchase" not in options:
        fail(f"several engines have a rate card; --engine says which: {', '.join(cards)}", 2)
    base = cards[engine] if engine is not None else None
    if base is None:
        base = next(iter(cards.values())) if len(cards) == 1 and "purchase" not in options else Cost()
    try:
        given = Cost.model_validate(options)
    except ValidationError as error:
        for _, mistake in from_validation(error, Cost, options, {}):
            name = mistake.path.replace("_", "-").replace(".", "-")
            fail(f"--{name} {mistake.wrong}{f'; {mistake.hint}' if mistake.hint else ''}", 2)
        raise  # there is always a mistake
    changes = {name: getattr(given, name) for name in options if name != "watts"}
    idle, load = (options.get("watts", {}).get(name, getattr(base.watts, name)) for name in ("idle", "load"))
    if load < idle:
        fail("--watts-load is less than what it draws idle", 2)
    card = base.model_copy(update={**changes, "watts": Watts(idle=idle, load=load)})
    if not card.purchase:
        fail("nothing is bought: give --purchase '$60000', or an engine with cost: {purchase: ...}", 2)
    return card


def _utilisation(text: str) -> int:
    """Millionths of one, and not nothing."""
    from engines.ratecard import MICRO
    from proxy.quantities import Wrong, share

    try:
        busy = round(share(text) * MICRO)
    except Wrong as wrong:
        fail(f"--utilisation: {wrong}; {wrong.hint}", 2)
    if not busy:
        fail("--utilisation is more than nothing: the volume keeps the hardware busy", 2)
    return busy
