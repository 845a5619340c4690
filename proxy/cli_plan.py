"""`spillway plan`: should we buy GPUs?"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from proxy.cli_ledger import AgainstOption, Asked, SinceOption, UntilOption, WindowOption, books, price_against
from proxy.terminal import ConfigOption, JsonOption, StateOption, fail, located

if TYPE_CHECKING:
    from proxy.breakeven import Volume
    from proxy.config import Settings
    from proxy.config_parts import Cost
    from proxy.finance import Report

app = typer.Typer()
_ASSUMED = "utilisation is not stated: this volume is taken to fill the hardware, which counts the most power"


@app.command(
    epilog="**Examples**\n\n`spillway plan --tokens-in 80M --tokens-out 20M --against openai/gpt-4o --purchase '$30000' "
    "--watts-load 700 --kwh '$0.12'`\n\n`spillway plan --api '$900/month' --purchase '$4000' --rent '$150/month'`\n\n"
    "`spillway plan --api '$9000/month' --purchase '$60000' --rented '$2.10/hour' --gpus 2` compares with renting the same\n\n"
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
    rented: Annotated[
        str | None,
        typer.Option(
            help="What the same hardware costs rented, such as $2.10/hour, all hours, or $1500/month: buy or rent?"
        ),
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, max=100_000, help="How many are rented at that price.")] = 1,
    first: SinceOption = None,
    last: UntilOption = None,
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
    stated_busy = _utilisation(utilisation) if utilisation is not None else None
    rent_month = _rented(rented, gpus)
    try:
        settings = located(config, state_dir)
        card = card_of(_card(settings, engine, _given(options)))
        stated = _stated(settings, tokens_in, tokens_out, api, against)
        volume, measured = _volume(settings, stated, Asked(window, first, last), against)
        busy, note = _busy(stated_busy, None if purchase is not None else measured, engine)
    except typer.Exit as ended:  # 1 is an answer here, so that nothing else may end with it
        raise typer.Exit(2) from ended
    found = worked_out(card, volume, busy, rented=rent_month, dearest=_dearest() if stated is not None else None)
    if note:
        found.notes.append(note)
    print(json.dumps(plan_rows(found)) if as_json else plan_words(found))
    if not found.pays:
        raise typer.Exit(1)


# --- what is asked for -------------------------------------------------------------------------------------


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: option for name, option in options.items() if option is not None}


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
    price = price_against(settings, against).price(time.strftime("%Y-%m-%d", time.gmtime()))
    if price is None:
        fail(f"{against!r} has no price today", 2)
    how = f"{inward:,} in at {dollars(price.input * 1_000_000)}/M + {outward:,} out at {dollars(price.output * 1_000_000)}/M"
    note = f"price of {price.id}, source {price.source}; nothing is counted as cached"
    return Volume(tokens_cost(inward, outward, price), f"{how} ({against})", inward + outward or None, (note,))


def _volume(
    settings: Settings, stated: Volume | None, asked: Asked, against: str | None
) -> tuple[Volume, dict[str, int]]:
    """The stated volume, or the ledger's over a period, and how busy each pool would be with it (millionths)."""
    if stated is None:
        with books(settings, asked, against) as (opened, span):
            found = opened.report(("boundary",), span)
            return _from_ledger(found), _measured(found)
    if asked.stated:
        fail("a stated volume has no period: leave --window, --since and --until out", 2)
    return stated, {}


def _measured(found: Report) -> dict[str, int]:
    """How busy each pool was, and with the cloud's tokens would have been, at most all of the time."""
    if not found.against or not found.total.local_tokens:
        return {}
    more = found.total.tokens / found.total.local_tokens
    return {pool.engine: min(1_000_000, round(pool.utilisation * more * 1_000_000)) for pool in found.pools}


def _busy(stated: int | None, measured: dict[str, int] | None, engine: str | None) -> tuple[int, str]:
    """Which utilisation counts: what was stated, what was measured, or all of the time; and a note that says so."""
    if stated is not None:
        return stated, ""
    found = (measured or {}).get(engine) if engine is not None else next(iter((measured or {}).values()), None)
    if not found:
        return 1_000_000, _ASSUMED
    return found, f"utilisation is taken from the ledger, cloud tokens added: {found / 1_000_000:.1%}"


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
        notes.append(f"{pool.engine} was busy {pool.utilisation:.1%} of the period")
    total = found.billed + found.total.avoided
    tokens = sum(line.tokens for line in counted)
    how = f"cloud {dollars(found.billed)}"
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


def _rented(text: str | None, gpus: int) -> int | None:
    """Pico-dollars a month."""
    from proxy.quantities import Wrong, rental

    if text is None:
        return None
    try:
        return rental(text) * gpus
    except Wrong as wrong:
        fail(f"--rented: {wrong}; {wrong.hint}", 2)


def _dearest() -> tuple[str, int]:
    """The model of the price list that costs most for a token, and what it costs."""
    from proxy.prices import shipped

    row = max(shipped(), key=lambda row: max(row.input, row.output))
    return row.model, max(row.input, row.output)
