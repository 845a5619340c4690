"""`spillway focus export`: the ledger's month as FOCUS 1.4, for FinOps tools."""

from __future__ import annotations

import csv
import io
import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from proxy.terminal import ConfigOption, StateOption, database, fail, located, say

if TYPE_CHECKING:
    from engines.ratecard import RateCard
    from engines.rates import Price
    from proxy.config import Settings
    from proxy.focus import Row, Scope
    from proxy.focus_pools import Purchase
    from proxy.projections.ledger import Ledger

focus_app = typer.Typer(
    help="Costs in the FinOps Open Cost and Usage Specification.", no_args_is_help=True, rich_markup_mode="markdown"
)
MICRO = 1_000_000
DAY = 86_400 * MICRO


@focus_app.command(
    "export",
    epilog="**Examples**\n\n`spillway focus export --month 2026-10 --out october.csv --invoice openai=INV-0042`\n\n"
    "`spillway focus export --out costs.parquet --operator 'St. Elsewhere' --purchase gpu=2026-10-07,R-118,Hardware Ltd`",
)
def focus_export(
    month: Annotated[str | None, typer.Option(help="Such as 2026-10, in UTC. Default: this month so far.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The file. Default: CSV to standard output.")] = None,
    format_: Annotated[
        str | None, typer.Option("--format", help="csv or parquet. Default: as the file's name ends.")
    ] = None,
    invoice: Annotated[
        list[str] | None, typer.Option(help="ENGINE=NUMBER of the vendor's invoice for the month; repeat for more.")
    ] = None,
    account: Annotated[
        list[str] | None, typer.Option(help="ENGINE=ID of the account there. Default: the engine's name.")
    ] = None,
    operator: Annotated[str, typer.Option(help="Who runs the own pools.")] = "Own Operations",
    purchase: Annotated[
        list[str] | None, typer.Option(help="ENGINE=DAY[,INVOICE[,SELLER]] on which a pool was bought in this month.")
    ] = None,
    metadata: Annotated[Path | None, typer.Option(help="Write the dataset's schema as JSON to this file, too.")] = None,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Write a month as FOCUS 1.4 Cost and Usage, CSV or Parquet.

    Each row is a charge: a day's tokens of one meter, price and owner; corrections of `spillway reconcile`; of own pools what
    was paid (which bills) and what was used or idle (which is effective cost). With the vendor's invoice number, the billed
    cost of its rows is the invoice.
    """
    from proxy.focus import numbered

    kind = _format(format_, out)
    settings = located(config, state_dir)
    span = _span(month)
    scope = _scope(settings, span, _pairs(invoice, settings, "--invoice"), _pairs(account, settings, "--account"))
    bought = [_purchase(text, settings, scope) for text in purchase or ()]
    path = Path(settings.state.dir) / "ledger.db"
    if not path.exists():
        fail(f"there is no ledger at {path}; nothing was served from this state directory yet", 1)
    with database(path):
        from proxy.projections.ledger import Ledger

        ledger = Ledger(path)
        try:
            rows = numbered(_rows(settings, ledger, scope, operator.strip() or "Own Operations", bought))
        finally:
            ledger.close()
    if not rows:
        fail(f"the ledger has nothing in {_month_name(scope)}", 1)
    _write(rows, out, kind)
    if metadata is not None:
        _metadata(metadata)
    _summary(rows, scope, out)


# --- what is asked for -------------------------------------------------------------------------------------


def _format(format_: str | None, out: Path | None) -> str:
    kind = format_ or ("parquet" if out is not None and out.suffix == ".parquet" else "csv")
    if kind not in ("csv", "parquet"):
        fail(f"there is no format {kind!r}; there are csv and parquet", 2)
    if kind == "parquet" and out is None:
        fail("Parquet is written to a file: --out costs.parquet", 2)
    return kind


def _span(month: str | None) -> tuple[int, int]:
    now = datetime.now(UTC)
    text = month or f"{now:%Y-%m}"
    match = re.fullmatch(r"(\d{4})-(\d{2})", text, re.ASCII)
    if match is None or not 1 <= int(match[2]) <= 12 or not 2000 <= int(match[1]) <= 9998:
        fail(f"{text!r} is no month; write 2026-10", 2)
    year, number = int(match[1]), int(match[2])
    begin = datetime(year, number, 1, tzinfo=UTC)
    if begin > now:
        fail(f"{text} has not begun", 2)
    end = datetime(year + number // 12, number % 12 + 1, 1, tzinfo=UTC)
    return int(begin.timestamp()) * MICRO, int(end.timestamp()) * MICRO


def _pairs(given: list[str] | None, settings: Settings, option: str) -> dict[str, str]:
    from proxy.config_errors import nearest

    found = {}
    for text in given or ():
        engine, equals, value = text.partition("=")
        if not equals or not value.strip():
            fail(f"{option} takes ENGINE=VALUE, such as {option} openai=INV-0042", 2)
        if engine not in settings.engines:
            fail(f"{option}: there is no engine {engine!r}; {nearest(engine, list(settings.engines))}", 2)
        found[engine] = value.strip()
    return found


def _scope(settings: Settings, span: tuple[int, int], invoices: dict[str, str], accounts: dict[str, str]) -> Scope:
    from proxy.focus import Scope

    kinds = {name: engine.kind for name, engine in settings.engines.items()}
    regions = {name: engine.contract.region for name, engine in settings.engines.items()}
    return Scope(*span, kinds, accounts, invoices, regions)


def _purchase(text: str, settings: Settings, scope: Scope) -> Purchase:
    from proxy.focus_pools import Purchase
    from proxy.meaning import card_of

    engine, _, rest = text.partition("=")
    day, invoice, seller = (part.strip() for part in (*rest.split(",", 2), "", "", "")[:3])
    part = settings.engines.get(engine)
    if part is None or part.cost is None or not part.cost.purchase:
        fail(f"--purchase: {engine!r} is no engine with a purchase in its cost:", 2)
    try:
        at = int(datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC).timestamp()) * MICRO
    except ValueError:
        fail(f"--purchase: {day!r} is no day; write {engine}=2026-10-07", 2)
    if not scope.start <= at < scope.end:
        fail(f"--purchase: {day} is not in {_month_name(scope)}", 2)
    return Purchase(engine, at, card_of(part.cost).purchase, invoice or None, seller)


# --- rows --------------------------------------------------------------------------------------------------


def _rows(settings: Settings, ledger: Ledger, scope: Scope, operator: str, bought: list[Purchase]) -> Iterator[Row]:
    from proxy.focus import cloud_rows, correction_rows
    from proxy.focus_pools import pool_rows, purchase_row
    from proxy.meaning import card_of

    cards = {name: card_of(engine.cost) for name, engine in settings.engines.items() if engine.cost is not None}
    own = _Own(cards)
    yield from cloud_rows(own.aside(ledger.lines(scope.start, scope.end)), scope, _price_of(settings))
    yield from correction_rows(ledger.corrections(scope.start, scope.end), scope)
    days = _days(ledger, scope)
    for engine, card in cards.items():
        counted = [(begin, end, busy.get(engine, 0)) for begin, end, busy in days]
        yield from pool_rows(engine, card, counted, own.used(engine), scope, operator)
    for one in bought:
        yield purchase_row(one, scope, operator)


class _Own:
    """Local lines, gathered by day, target and owner while the others pass."""

    def __init__(self, cards: dict[str, RateCard]) -> None:
        self._cards = cards
        self._sums: dict[tuple[Any, ...], list[int]] = {}

    def aside(self, lines: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for line in lines:
            if line["boundary"] != "local":
                yield line
            elif line["target"].partition("/")[0] in self._cards:
                self._add(line)

    def used(self, engine: str) -> Iterator[Any]:
        from proxy.focus_pools import Usage

        for (day, target, *owner), sums in sorted(self._sums.items()):
            if target.partition("/")[0] == engine:
                yield Usage(day, target, tuple(owner), *sums)

    def _add(self, line: dict[str, Any]) -> None:
        prompt = line["input"] + line["cache_read"] + line["cache_write_5m"] + line["cache_write_1h"]
        prefill, decode = line["prefill_us"], line["decode_us"]
        if not line["timing"]:  # not measured: by the tokens
            read = prompt - line["cache_read"]
            speed = self._cards[line["target"].partition("/")[0]].prompt_speed
            prefill = line["engine_us"] * read // max(1, read + speed * line["output"])
            decode = line["engine_us"] - prefill
        owner = (line["organisation"], line["tenant"], line["team"], line["project"], line["key"], line["quality"])
        sums = self._sums.setdefault((line["at"] // DAY * DAY, line["target"], *owner), [0, 0, 0, 0])
        for place, value in enumerate((prompt, line["output"], prefill, decode)):
            sums[place] += value


def _days(ledger: Ledger, scope: Scope) -> list[tuple[int, int, dict[str, int]]]:
    """(begin, end, busy time by engine) of each day of the month, from where the ledger begins."""
    from proxy.finance import busy_times

    since = ledger.since()
    begin = max(scope.start, since or 0)
    until = min(scope.end, time.time_ns() // 1000)
    days = []
    while begin < until:
        end = min((begin // DAY + 1) * DAY, until)
        days.append((begin, end, busy_times(ledger.intervals(begin, end))))
        begin = end
    return days


def _price_of(settings: Settings) -> Callable[[str, str, str], tuple[Price | None, Price | None]]:
    """(target, name in the ledger, day) -> (as charged, as listed by the vendor), remembered."""
    from functools import cache

    from engines.rates import PriceList
    from proxy.prices import listed_name, overrides, price_of, shipped

    listed = PriceList(shipped())
    known = {row.id: row for row in (*shipped(), *overrides(settings))}
    if not isinstance(settings.unpriced, str):
        known["default"] = price_of("default", settings.unpriced)

    @cache
    def price(target: str, name: str, day: str) -> tuple[Price | None, Price | None]:
        return known.get(name.partition("+")[0]), listed.find(listed_name(settings, target), day)

    return price


# --- files -------------------------------------------------------------------------------------------------


def _write(rows: list[Row], out: Path | None, kind: str) -> None:
    from proxy import parquet
    from proxy.focus import COLUMNS, text

    try:
        if kind == "parquet":
            assert out is not None
            types = {"decimal": "DECIMAL(38, 18)", "string": "VARCHAR", "time": "TIMESTAMPTZ", "json": "VARCHAR"}
            values = [[_cell(row[name], sort) for name, sort in COLUMNS.items()] for row in rows]
            parquet.write(out, [(name, types[sort]) for name, sort in COLUMNS.items()], values)
            return
        made = io.StringIO()
        write = csv.writer(made, lineterminator="\n")
        write.writerow(COLUMNS)
        write.writerows([text(row[name]) for name in COLUMNS] for row in rows)
        if out is None:
            print(made.getvalue(), end="")
        else:
            out.write_text(made.getvalue(), encoding="utf-8", newline="")
    except parquet.NoDuckDB as missing:
        fail(str(missing), 1)
    except OSError as error:
        fail(f"{out} cannot be written: {error.strerror}", 1)


def _cell(value: Any, sort: str) -> Any:
    from decimal import Decimal

    from proxy.focus import text

    if value is None:
        return None
    if sort == "decimal":
        return value.quantize(Decimal("1e-18"))
    return text(value) if sort == "json" else value


def _metadata(path: Path) -> None:
    from proxy.app import version
    from proxy.focus import metadata

    try:
        made = metadata(datetime.now(UTC), f"Spillway {version()}")
        path.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        fail(f"{path} cannot be written: {error.strerror}", 1)


def _summary(rows: list[Row], scope: Scope, out: Path | None) -> None:
    """The sums that somebody will look for, on standard error."""
    invoices: dict[str, Any] = {}
    for row in rows:
        if row["InvoiceId"] is not None:
            invoices[row["InvoiceId"]] = invoices.get(row["InvoiceId"], 0) + row["BilledCost"]
    billed, effective = (sum(row[name] for row in rows) for name in ("BilledCost", "EffectiveCost"))
    where = f" in {out}" if out is not None else ""
    say(f"{len(rows)} rows of {_month_name(scope)}{where}: billed ${billed:,.6f}, effective ${effective:,.6f}", "dim")
    for number, amount in sorted(invoices.items()):
        say(f"invoice {number}: ${amount:,.6f}", "dim")


def _month_name(scope: Scope) -> str:
    return datetime.fromtimestamp(scope.start // MICRO, UTC).strftime("%Y-%m")
