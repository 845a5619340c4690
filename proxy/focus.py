"""The ledger as FOCUS 1.4 Cost and Usage rows: cloud attempts by day and meter, corrections, own pools.  Pure.

The specification and its requirements model: focus.finops.org, FOCUS_Spec v1.4.  Of its columns those are written whose
conditions an API's tokens and pools of one's own meet: usage is measured, unit prices are published and may be negotiated,
there are several pricing categories, sub accounts, tags, regions and invoices.

Cloud rows are what the ledger has: a row for each day, price, meter and owner; where the vendor's invoice number is given
they carry it, and with the corrections of `spillway reconcile` their billed cost adds up to the invoice.  Do not merge them
with a FOCUS export of the vendor's own: both speak of the same charges.

Own pools: purchases and what is paid by the month bill, and have no effective cost; the tokens that the pools answered,
and their idle time, have the effective cost, and bill nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from msgspec import Struct

from compliance.model import LOCAL
from engines.model import Usage
from engines.rates import Price, Rate, metered, rates

VERSION = "1.4"
PICO = 1_000_000_000_000
MILLION = 1_000_000
DAY = 86_400 * MILLION
COLUMNS = {
    "BilledCost": "decimal", "BillingAccountId": "string", "BillingAccountName": "string", "BillingCurrency": "string",
    "BillingPeriodEnd": "time", "BillingPeriodStart": "time", "ChargeCategory": "string", "ChargeClass": "string",
    "ChargeDescription": "string", "ChargeFrequency": "string", "ChargePeriodEnd": "time", "ChargePeriodStart": "time",
    "ConsumedQuantity": "decimal", "ConsumedUnit": "string", "ContractedCost": "decimal", "ContractedUnitPrice": "decimal",
    "EffectiveCost": "decimal", "HostProviderName": "string", "InvoiceDetailId": "string", "InvoiceId": "string",
    "InvoiceIssuerName": "string", "ListCost": "decimal", "ListUnitPrice": "decimal", "PricingCategory": "string",
    "PricingQuantity": "decimal", "PricingUnit": "string", "RegionId": "string", "RegionName": "string", "ResourceId": "string",
    "ResourceName": "string", "ResourceType": "string", "ServiceCategory": "string", "ServiceName": "string",
    "ServiceProviderName": "string", "ServiceSubcategory": "string", "SkuId": "string", "SkuMeter": "string",
    "SkuPriceDetails": "json", "SkuPriceId": "string", "SubAccountId": "string", "SubAccountName": "string", "Tags": "json",
}  # fmt: skip
"""Column IDs in order, and what they hold."""
CONDITIONS = frozenset(
    {
        "ACCOUNT_NAMING_SUPPORTED", "BILLING_BASED_ON_PROVISIONED_RESOURCES_SUPPORTED", "INVOICE_ISSUER_PAYABLE_INVOICES_SUPPORTED",
        "MULTIPLE_PRICING_CATEGORIES_SUPPORTED", "NEGOTIATED_PRICING_SUPPORTED", "PUBLIC_PRICE_LIST_SUPPORTED", "REGION_SUPPORTED",
        "RESOURCE_TYPE_ASSIGNMENT_SUPPORTED", "SUB_ACCOUNT_SUPPORTED", "TAGGING_SUPPORTED", "UNIT_PRICING_SUPPORTED",
        "USAGE_MEASUREMENT_SUPPORTED",
    }
)  # fmt: skip
"""The specification's conditions that are met, under which its conditional columns are there."""
METERS = {
    "input": "Input Tokens", "audio": "Audio Input Tokens", "cached": "Cached Input Tokens", "cache_write": "Cache Write Tokens",
    "cache_write_1h": "Cache Write Tokens (1 Hour)", "output": "Output Tokens", "audio_output": "Audio Output Tokens",
}  # fmt: skip
VENDORS = {"openai": ("OpenAI", "OpenAI API"), "anthropic": ("Anthropic", "Claude API")}
TAG_PREFIX = "spillway/"
"""Of the keys of tags that are not the clients' own."""

Row = dict[str, Any]
PriceOf = Callable[[str, str, str], tuple[Price | None, Price | None]]
"""(target, a price's name in the ledger, ISO day) -> (that price, the vendor's list price on the day)."""


class Scope(Struct, frozen=True):
    """Whose bill it is: a month, and what is known of its invoices."""

    start: int  # of the billing period, microseconds since the epoch; as the next, which is exclusive
    end: int
    kinds: Mapping[str, str]  # engine -> kind
    accounts: Mapping[str, str] = {}  # engine -> the vendor's id of the account
    invoices: Mapping[str, str] = {}  # engine -> the vendor's number of the month's invoice
    regions: Mapping[str, str] = {}


class _Group(Struct):
    """Attempts that make one set of rows."""

    meters: dict[str, int]
    amount: int = 0


_Key = tuple[int, str, str, str, str, str, str, str, str]
_OWNERS = ("organisation", "tenant", "team", "project", "key")


def blank(scope: Scope, start: int, end: int) -> Row:
    """A row of a charge period, of which nothing else is known."""
    row: Row = dict.fromkeys(COLUMNS)
    row.update(
        BillingCurrency="USD", BillingPeriodStart=moment(scope.start), BillingPeriodEnd=moment(scope.end),
        ChargePeriodStart=moment(start), ChargePeriodEnd=moment(end), ServiceCategory="AI and Machine Learning",
        ServiceSubcategory="Generative AI", ChargeFrequency="Usage-Based", ChargeCategory="Usage",
    )  # fmt: skip
    return row


def moment(at: int) -> datetime:
    return datetime.fromtimestamp(at // MILLION, UTC)


def dollars(amount: int) -> Decimal:
    """Pico-dollars exactly."""
    return Decimal(amount) / PICO


def cost_row(row: Row, amount: int, listed: int, contracted: int, *, billed: bool = True) -> Row:
    """The four costs of a charge."""
    row.update(
        BilledCost=dollars(amount if billed else 0), EffectiveCost=dollars(amount), ListCost=dollars(listed),
        ContractedCost=dollars(contracted),
    )  # fmt: skip
    return row


# --- cloud -------------------------------------------------------------------------------------------------


def cloud_rows(lines: Iterable[Mapping[str, Any]], scope: Scope, price_of: PriceOf) -> Iterator[Row]:
    """Rows of the attempts that left home, by day, target, price and owner; and what cannot be broken down into meters."""
    groups: dict[_Key, _Group] = {}
    rest: dict[_Key, int] = {}
    known: dict[tuple[int, str, str], Rate | None] = {}
    for line in lines:
        if line["boundary"] == LOCAL:
            continue
        day = line["at"] // DAY * DAY
        key = (day, line["target"], line["price"], *(line[name] for name in _OWNERS), line["quality"])
        place = key[:3]
        if place not in known:
            own, _ = price_of(line["target"], line["price"], moment(day).strftime("%Y-%m-%d"))
            known[place] = _rate(own, line["price"])
        parts = _parts(line, known[place])
        if parts is None:
            if line["cost"]:
                rest[key] = rest.get(key, 0) + line["cost"]
            continue
        group = groups.setdefault(key, _Group({}))
        for meter, tokens, _ in parts:
            if tokens:
                group.meters[meter] = group.meters.get(meter, 0) + tokens
        group.amount += line["cost"]
    for key in sorted(groups):
        yield from _metered_rows(key, groups[key], scope, price_of)
    for key in sorted(rest):
        yield _unmetered(key, rest[key], scope)


def _parts(line: Mapping[str, Any], rate: Rate | None) -> list[tuple[str, int, int]] | None:
    """A line's meters by the price that it names; None: they do not add up to what it cost (a row that is gone, or money
    that was held for an attempt which a crash ended)."""
    if rate is None:
        return None
    usage = Usage(
        line["input"], line["cache_read"], line["cache_write_5m"], line["cache_write_1h"], line["output"],
        audio_input=line["audio_input"], audio_output=line["audio_output"],
    )  # fmt: skip
    parts = metered(usage, rate)
    return parts if sum([tokens * each for _, tokens, each in parts]) == line["cost"] else None


def _rate(price: Price | None, name: str) -> Rate | None:
    """The rates that a name in the ledger stands for (see `engines.rates.rates`)."""
    if price is None:
        return None
    base, *marks = name.split("+")
    if base != price.id:
        return None
    tier = next((mark for mark in marks if mark != "long"), "").removesuffix("?")
    rate, made = rates(price, tier, price.long_above + 1 if "long" in marks else 0)
    return rate if made == name else None


def _metered_rows(key: _Key, group: _Group, scope: Scope, price_of: PriceOf) -> Iterator[Row]:
    day, target, name = key[:3]
    own, listed = price_of(target, name, moment(day).strftime("%Y-%m-%d"))
    rate = _rate(own, name)
    assert own is not None and rate is not None
    marks = name.partition("+")[2]
    public = _rate(listed, f"{listed.id}{'+' + marks if marks else ''}") if listed is not None else None
    prices = {meter: each for meter, _, each in metered(Usage(), rate)}
    list_prices = {meter: each for meter, _, each in metered(Usage(), public)} if public is not None else prices
    for meter in [meter for meter in METERS if group.meters.get(meter)]:
        tokens = group.meters[meter]
        row = _cloud(key, scope)
        amount = tokens * prices[meter]
        cost_row(row, amount, tokens * list_prices[meter], amount)
        tiers = "".join(f", {mark.removesuffix('?')}" for mark in marks.split("+") if mark)
        row.update(
            ChargeDescription=f"{target}: {METERS[meter].lower()}{tiers}", ConsumedQuantity=Decimal(tokens), ConsumedUnit="Tokens",
            PricingQuantity=Decimal(tokens) / MILLION, PricingUnit="1000000 Tokens", PricingCategory="Other" if marks else "Standard",
            ListUnitPrice=dollars(list_prices[meter] * MILLION), ContractedUnitPrice=dollars(prices[meter] * MILLION),
            SkuId=f"{own.model}/{meter}", SkuMeter=METERS[meter], SkuPriceId=f"{name}/{meter}",
            SkuPriceDetails={"x_Meter": meter, **({"x_Tier": marks} if marks else {})},
        )  # fmt: skip
        yield row


def _unmetered(key: _Key, amount: int, scope: Scope) -> Row:
    """An adjustment: money that is booked, and not for tokens that are known."""
    row = cost_row(_cloud(key, scope), amount, amount, amount)
    row.update(
        ChargeCategory="Adjustment",
        ChargeDescription=f"{key[1]}: booked without a breakdown into meters ({key[2] or 'held for attempts that did not end'})",
    )
    return row


def correction_rows(corrections: Iterable[Mapping[str, Any]], scope: Scope) -> Iterator[Row]:
    """What reconciliation posted for this billing period: adjustments of the vendor's account, on its invoice."""
    for found in corrections:
        engine = next((name for name, kind in scope.kinds.items() if kind == found["vendor"]), found["vendor"])
        row = _vendor(blank(scope, scope.start, scope.end), engine, scope)
        cost_row(row, found["amount"], found["amount"], found["amount"])
        row.update(
            ChargeCategory="Adjustment", ChargeFrequency="One-Time",
            ChargeDescription=f"{found['model'] or 'the account'}: reconciled with the vendor's bill ({found['cause']})",
            Tags={f"{TAG_PREFIX}reconciled": True},
        )  # fmt: skip
        yield row


def _cloud(key: _Key, scope: Scope) -> Row:
    day, target, _, organisation, tenant, team, project, virtual_key, quality = key
    row = _vendor(blank(scope, day, day + DAY), target.partition("/")[0], scope)
    return owned(row, organisation, tenant, team, project, virtual_key, quality)


def owned(row: Row, organisation: str, tenant: str, team: str, project: str, key: str, quality: str) -> Row:
    """Whose a charge is: the project as sub account (else the team), the rest as tags."""
    account = "/".join(part for part in (organisation, team, project) if part)
    row["SubAccountId"] = account or None
    row["SubAccountName"] = (project or team or organisation) or None
    tags = {
        "tenant": tenant,
        "team": team,
        "project": project,
        "key": key,
        "metering": "" if quality == "exact" else quality,
    }
    row["Tags"] = {f"{TAG_PREFIX}{name}": value for name, value in tags.items() if value} or None
    return row


def _vendor(row: Row, engine: str, scope: Scope) -> Row:
    provider, service = VENDORS.get(scope.kinds.get(engine, ""), (engine, f"{engine} API"))
    invoice = scope.invoices.get(engine)
    region = scope.regions.get(engine) or None
    row.update(
        BillingAccountId=scope.accounts.get(engine, engine), BillingAccountName=engine, ServiceName=service,
        ServiceProviderName=provider, HostProviderName=provider, InvoiceIssuerName=provider, InvoiceId=invoice,
        RegionId=region, RegionName=region,
    )  # fmt: skip
    return row


# --- files -------------------------------------------------------------------------------------------------


def numbered(rows: Iterable[Row]) -> list[Row]:
    """Rows of an invoice numbered within it."""
    counts: dict[str, int] = {}
    made = []
    for row in rows:
        invoice = row["InvoiceId"]
        if invoice is not None:
            counts[invoice] = counts.get(invoice, 0) + 1
            row["InvoiceDetailId"] = f"{invoice}/{counts[invoice]}"
        made.append(row)
    return made


def text(value: Any) -> str:
    """A value as the specification writes it in text; nothing for null."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, Decimal):
        plain = format(value.normalize(), "f")
        return "0" if plain == "-0" else plain
    if isinstance(value, dict):
        return json.dumps(value, sort_keys=True, ensure_ascii=False)
    return str(value)


def metadata(created: datetime, generator: str) -> dict[str, Any]:
    """The dataset's schema, which the specification wants beside it."""
    types = {"decimal": "Decimal", "string": "String", "time": "Date/Time", "json": "JSON"}
    return {
        "DataGenerator": {"DataGenerator": generator},
        "Schema": [
            {
                "SchemaId": f"spillway-focus-{VERSION}", "FocusVersion": VERSION, "DatasetId": "CostAndUsage",
                "CreationDate": text(created),
                "ColumnDefinition": [
                    {"ColumnName": name, "DataType": types[kind],
                     **({"ProviderTagPrefixes": [TAG_PREFIX]} if name == "Tags" else {})}
                    for name, kind in COLUMNS.items()
                ],
            }
        ],
    }  # fmt: skip
