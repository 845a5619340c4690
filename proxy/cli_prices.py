"""`spillway prices`: what tokens cost, from when on, and where that was read."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import typer

from proxy.terminal import ConfigOption, JsonOption, fail, located, say

if TYPE_CHECKING:
    from engines.rates import Price, Rate
    from proxy.config import Settings

prices_app = typer.Typer(
    help="What tokens cost: the shipped list, and the configuration's own prices.", no_args_is_help=True, rich_markup_mode="markdown"
)  # fmt: skip
OnOption = Annotated[str | None, typer.Option("--on", help="The day, such as 2026-10-01. Default: today, in UTC.")]
_METERS = ("input", "cached", "cache_write", "cache_write_1h", "audio", "output", "audio_output")


@prices_app.command(
    "list",
    epilog="**Examples**\n\n`spillway prices list`\n\n`spillway prices list --vendor anthropic --on 2026-07-01 --json`",
)
def prices_list(
    vendor: Annotated[str | None, typer.Option(help="Only of this engine kind: openai, anthropic.")] = None,
    on: OnOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Every price that holds on a day, in dollars per million tokens; the configuration's own come first."""
    from proxy.meaning import table
    from proxy.prices import finder, overrides, shipped, stale

    day = _day(on)
    settings = located(config, None)
    kinds = sorted({row.model.partition("/")[0] for row in shipped()})
    if vendor is not None and vendor not in kinds:
        fail(f"the list has no prices of {vendor!r}; it has those of {', '.join(kinds)}", 2)
    find = finder(settings)
    own = [row.model for row in overrides(settings)] if vendor is None else []
    names = list(
        dict.fromkeys([*own, *(row.model for row in shipped() if vendor in (None, row.model.partition("/")[0]))])
    )
    found = [price for price in (find(name, day) for name in names) if price is not None]
    if as_json:
        print(json.dumps([_row(price, day) for price in found]))
    elif found:
        head = ("model", "from", "in", "cached", "out", "tiers", "long above", "read", "")
        print(table(head, [_cells(price, day) for price in found], names=2))
    if not found:
        say("no price holds on that day", "dim")
        raise typer.Exit(1)
    if old := sum(stale(price, day) for price in found):
        say(
            f"{old} of {len(found)} were read more than half a year before {day}: look whether they still hold",
            "yellow",
        )


@prices_app.command(
    "show",
    epilog="**Examples**\n\n`spillway prices show openai/gpt-5.4`\n\n`spillway prices show gpu-cloud/gpt-4o --on 2026-03-01 --json`",
)
def prices_show(
    model: Annotated[
        str, typer.Argument(help="A target (engine/model) of the configuration, or kind/model of the list.")
    ],
    on: OnOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """One model's price on a day: every meter and tier, its source, and its other prices. Exit code 1: it is unpriced."""
    from proxy.config_errors import nearest
    from proxy.prices import finder, known_names, listed_name, overrides, shipped

    day = _day(on)
    settings = located(config, None)
    rows = [row for row in (*overrides(settings), *shipped()) if row.model in (model, listed_name(settings, model))]
    if not rows and model not in known_names(settings):
        fail(f"{model!r} has no price; {nearest(model, known_names(settings))}", 2)
    price = finder(settings)(model, day)
    if price is None:
        said = {"model": model, "on": day, "unpriced": True, "then": _unpriced(settings)}
        print(json.dumps(said) if as_json else f"{model} is unpriced on {day}: {_unpriced(settings)}")
        raise typer.Exit(1)
    others = sorted((row for row in rows if row is not price), key=lambda row: row.since)
    if as_json:
        print(json.dumps({**_row(price, day), "others": [_row(row, day) for row in others]}))
        return
    print("\n".join(_words(price, day)))
    for row in others:
        since = row.since or "always"
        print(f"also: from {since}, {_dollars(row.input)} in, {_dollars(row.output)} out per million ({row.source})")


@prices_app.command(
    "check", epilog="**Example**\n\n`spillway prices check -c spillway.yaml || mail -s 'prices' finance@example.org`"
)
def prices_check(on: OnOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Has every cloud target of the configuration a price, and was it read within half a year? Exit code 1: not all."""
    from engines.kinds import kind
    from proxy.meaning import table
    from proxy.prices import finder, stale

    day = _day(on)
    settings = located(config, None)
    find = finder(settings)
    rows = []
    for name, engine in settings.engines.items():
        if (engine.boundary or kind(engine.kind).boundary) == "local":
            continue
        for model in engine.models:
            price = find(f"{name}/{model}", day) if model != "*" else None
            state = (
                "any model"
                if model == "*"
                else "unpriced"
                if price is None
                else "old"
                if stale(price, day)
                else "priced"
            )
            rows.append(
                {
                    "target": f"{name}/{model}",
                    "state": state,
                    "price": price.id if price else None,
                    "read": price.read if price else None,
                }
            )
    bad = [row for row in rows if row["state"] in ("unpriced", "old")]
    if as_json:
        print(json.dumps({"on": day, "good": not bad, "targets": rows}))
    elif rows:
        head = ("target", "", "price", "read")
        print(
            table(
                head,
                [[str(row[name] or "-") for name in ("target", "state", "price", "read")] for row in rows],
                numbers=False,
            )
        )
    else:
        say("no cloud target is configured", "dim")
    if any(row["state"] == "unpriced" for row in rows):
        say(f"unpriced: {_unpriced(settings)}", "yellow")
    if bad:
        raise typer.Exit(1)


# --- words -------------------------------------------------------------------------------------------------


def _day(on: str | None) -> str:
    try:
        return date.fromisoformat(on).isoformat() if on is not None else datetime.now(UTC).date().isoformat()
    except ValueError:
        fail(f"{on!r} is no day; write 2026-10-01", 2)


def _unpriced(settings: Settings) -> str:
    """What becomes of requests to a model without a price."""
    from proxy.prices import price_of

    if isinstance(settings.unpriced, str):
        return "requests to it are refused; give it a price in prices:, or all such models one in unpriced:"
    price = price_of("default", settings.unpriced)
    return f"charged as unpriced: says, {_dollars(price.input)} in and {_dollars(price.output)} out per million"


def _dollars(pico: int | None) -> str:
    """Dollars per million tokens of pico-dollars per token, to the last place that there is."""
    if pico is None:
        return "-"
    whole, _, places = f"{(Decimal(pico) / 1_000_000).normalize():f}".partition(".")
    return f"${whole}.{places.ljust(2, '0')}" if places else f"${whole}"


def _cells(price: Price, day: str) -> list[str]:
    from proxy.prices import stale

    long = f"{price.long_above:,}" if price.long is not None else "-"
    return [
        price.model, price.since or "always", _dollars(price.input), _dollars(price.cached), _dollars(price.output),
        " ".join(sorted(price.tiers)) or "-", long, price.read or price.source, "old" if stale(price, day) else "",
    ]  # fmt: skip


def _rates(rate: Price | Rate) -> dict[str, Any]:
    return {name: value for name in _METERS if (value := getattr(rate, name)) is not None}


def _row(price: Price, day: str) -> dict[str, Any]:
    """For scripts: pico-dollars per token, which are dollars per million tokens times a million."""
    from proxy.prices import stale

    row: dict[str, Any] = {
        "model": price.model, "since": price.since or None, "id": price.id, **_rates(price), "max_output": price.max_output,
        "tiers": {name: _rates(rate) for name, rate in price.tiers.items()}, "source": price.source, "read": price.read or None,
        "old": stale(price, day),
    }  # fmt: skip
    if price.long is not None:
        row["long"] = {"above": price.long_above, **_rates(price.long)}
    return row


def _words(price: Price, day: str) -> list[str]:
    from proxy.meaning import table
    from proxy.prices import OWN, stale

    kinds: list[tuple[str, Price | Rate]] = [("standard", price), *sorted(price.tiers.items())]
    if price.long is not None:
        kinds.append((f"above {price.long_above:,}", price.long))
    meters = [name for name in _METERS if any(getattr(rate, name) is not None for _, rate in kinds)]
    body = [[name, *(_dollars(getattr(rate, meter)) for meter in meters)] for name, rate in kinds]
    head = ["$ per million", *(meter.replace("_", " ") for meter in meters)]
    lines = [f"{price.model} on {day}, from {price.since or 'always'} ({price.id})", table(head, body)]
    if price.source == OWN:
        lines.append("source: this configuration")
    else:
        old = ": more than half a year ago, so look whether it still holds" if stale(price, day) else ""
        lines.append(f"source: {price.source}, read {price.read or 'long ago'}{old}")
    return lines
