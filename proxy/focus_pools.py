"""Own pools as FOCUS rows: purchases and monthly payments bill; tokens and idle time have the effective cost.  Pure.

The effective cost of a pool over the period is what `spillway spend` says was spent on it, by its rate card: the busy
part shared out by engine time, reading apart from writing, and the idle part a row of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal, localcontext
from typing import Any

from msgspec import Struct

from engines.ratecard import PeriodCost, RateCard, allocate, period_cost, weight
from proxy.focus import DAY, MILLION, TAG_PREFIX, Row, Scope, blank, cost_row, dollars, owned

_PAID = {"rent": "rent", "staff": "staff", "financing": "financing", "energy": "electricity"}


class Purchase(Struct, frozen=True):
    """A pool that was bought in this billing period."""

    engine: str
    at: int
    amount: int
    invoice: str | None = None
    seller: str = ""


class Usage(Struct, frozen=True):
    """What one owner used of a pool on a day."""

    day: int
    target: str
    owner: tuple[str, str, str, str, str, str]  # organisation, tenant, team, project, key, quality
    prompt: int
    output: int
    prefill_us: int
    decode_us: int


def pool_rows(
    engine: str,
    card: RateCard,
    days: Sequence[tuple[int, int, int]],
    used: Iterable[Usage],
    scope: Scope,
    operator: str,
) -> Iterator[Row]:
    """Rows of one pool.  `days` are (begin, end, busy microseconds) of each day of the period."""
    by_day: dict[int, list[Usage]] = {}
    for row in used:
        by_day.setdefault(row.day, []).append(row)
    paid = dict.fromkeys(_PAID, 0)
    for begin, end, busy in days:
        spent = period_cost(card, end - begin, min(busy, end - begin))
        for name in paid:
            paid[name] += spent.energy_busy + spent.energy_idle if name == "energy" else getattr(spent, name)
        yield from _day(engine, card, (begin, end), spent, by_day.get(begin // DAY * DAY, []), scope, operator)
    if days:
        span = (days[0][0], days[-1][1])
        for name, amount in paid.items():
            if amount:
                yield _bill(engine, scope, operator, span, amount, _PAID[name], "Recurring", None)


def purchase_row(bought: Purchase, scope: Scope, operator: str) -> Row:
    """What was paid for a pool: billed once, and no effective cost of its own."""
    begin = bought.at // DAY * DAY
    row = _bill(
        bought.engine, scope, operator, (begin, begin + DAY), bought.amount, "purchase", "One-Time", bought.invoice
    )
    if bought.seller:
        row["InvoiceIssuerName"] = bought.seller
    return row


def _bill(
    engine: str,
    scope: Scope,
    operator: str,
    span: tuple[int, int],
    amount: int,
    what: str,
    how_often: str,
    invoice: str | None,
) -> Row:
    row = _pool(engine, scope, operator, span)
    cost_row(row, amount, amount, amount)
    row.update(
        ChargeCategory="Purchase", ChargeFrequency=how_often, ChargeDescription=f"{engine}: {what}", EffectiveCost=Decimal(0),
        InvoiceId=invoice, PricingCategory="Standard", PricingQuantity=Decimal(1), PricingUnit="Units",
        ListUnitPrice=dollars(amount), ContractedUnitPrice=dollars(amount), SkuId=f"{engine}/{what}", SkuPriceId=f"{engine}/{what}",
        SkuMeter=what.capitalize(), SkuPriceDetails={"x_Meter": what}, Tags={f"{TAG_PREFIX}pool": engine},
    )  # fmt: skip
    return row


def _day(
    engine: str,
    card: RateCard,
    span: tuple[int, int],
    spent: PeriodCost,
    used: Sequence[Usage],
    scope: Scope,
    operator: str,
) -> Iterator[Row]:
    weights = [weight(card, row.prefill_us, row.decode_us) for row in used]
    shares = allocate(spent.busy, [sum(each) for each in weights])
    for row, each, share in zip(used, weights, shares, strict=True):
        reading, writing = allocate(share, each) if share else (0, 0)
        yield from _tokens(engine, row, (reading, writing), span, scope, operator)
    idle = spent.idle + spent.busy - sum(shares)  # busy time that no line explains is nobody's
    if idle:
        seconds = max(0, spent.period_us - spent.busy_us) // MILLION
        yield _priced(
            _pool(engine, scope, operator, span), engine, "idle", "Idle Time", idle, max(1, seconds), "Seconds",
            f"{engine}: idle time", {f"{TAG_PREFIX}pool": engine},
        )  # fmt: skip


def _tokens(
    engine: str, used: Usage, parts: tuple[int, int], span: tuple[int, int], scope: Scope, operator: str
) -> Iterator[Row]:
    """A row for each side that has tokens; what one side cost without any goes to the other."""
    counts = {"input": used.prompt, "output": used.output}
    costs = dict(zip(counts, parts, strict=True))
    for meter, other in (("input", "output"), ("output", "input")):
        if not counts[meter] and counts[other]:
            costs[other] += costs.pop(meter)
    names = {"input": "Input Tokens", "output": "Output Tokens"}
    if not any(counts.values()):
        amount = sum(costs.values())
        if not amount:
            return
        seconds = max(1, (used.prefill_us + used.decode_us) // MILLION)
        row = owned(_pool(engine, scope, operator, span), *used.owner)
        tags = row["Tags"]
        yield _priced(
            row,
            used.target,
            "time",
            "Engine Time",
            amount,
            seconds,
            "Seconds",
            f"{used.target}: engine time without tokens",
            tags,
        )
        return
    for meter, amount in costs.items():
        if counts[meter]:
            row = owned(_pool(engine, scope, operator, span), *used.owner)
            what = f"{used.target}: {names[meter].lower()}"
            yield _priced(row, used.target, meter, names[meter], amount, counts[meter], "Tokens", what, row["Tags"])


def _priced(
    row: Row,
    sku: str,
    meter: str,
    name: str,
    amount: int,
    quantity: int,
    unit: str,
    what: str,
    tags: Mapping[str, Any] | None,
) -> Row:
    """A charge that bills nothing; its unit price is what it came to."""
    cost_row(row, amount, amount, amount, billed=False)
    with localcontext() as context:
        context.prec = 30
        each = dollars(amount) / quantity
    row.update(
        ChargeDescription=what, ConsumedQuantity=Decimal(quantity), ConsumedUnit=unit, PricingCategory="Standard",
        PricingQuantity=Decimal(quantity), PricingUnit=unit, ListUnitPrice=each, ContractedUnitPrice=each, SkuId=f"{sku}/{meter}",
        SkuMeter=name, SkuPriceId=f"{sku}/{meter}", SkuPriceDetails={"x_Meter": meter}, Tags=tags,
    )  # fmt: skip
    return row


def _pool(engine: str, scope: Scope, operator: str, span: tuple[int, int]) -> Row:
    row = blank(scope, *span)
    row.update(
        BillingAccountId=scope.accounts.get(engine, operator), BillingAccountName=operator, ServiceName="Own Models",
        ServiceProviderName=operator, HostProviderName=operator, InvoiceIssuerName=operator, ResourceId=engine,
        ResourceType="Model Serving Pool", RegionId=scope.regions.get(engine) or None, RegionName=scope.regions.get(engine) or None,
    )  # fmt: skip
    return row
