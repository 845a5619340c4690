"""FOCUS 1.4, validated by the specification's own rules for columns, types and nulls."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from focus_validator import COLUMNS as KNOWN
from focus_validator import RULES, problems, read_csv
from outcomes import outcome
from typer.testing import CliRunner

from compliance.records import Correction
from engines.ratecard import period_cost
from proxy.cli import app
from proxy.config import load
from proxy.focus import COLUMNS, CONDITIONS, text
from proxy.meaning import card_of
from proxy.projections.ledger import Ledger

CONFIG = """\
engines:
  gpu:
    kind: vllm
    replicas: ['http://127.0.0.1:9']
    models: {llama: {}}
    cost: {purchase: $60000, life_years: 4, residual: 10%, financing: 5%, watts: {idle: 200, load: 1400}, pue: 1.3, kwh: $0.12, rent: $300/month, staff: $500/month}
  bare: {kind: vllm, replicas: ['http://127.0.0.1:9'], models: {m: {}}}
  sky: {kind: openai, key: {env: K}, models: {gpt-5.4: {}, gpt-4o: {}, odd: {}}, contract: {region: eu}}
  claude: {kind: anthropic, key: {env: K}, models: {claude-sonnet-4-6: {}}}
prices:
  sky/gpt-4o: {input: $2/M, cached: $1/M, output: $8/M}
  sky/odd: {input: $1/M, output: $2/M}
unpriced: {input: $9/M, output: $90/M}
"""
DOLLAR = 10**12
SECOND = 1_000_000
START = datetime(2026, 10, 1, tzinfo=UTC)
AT = int(START.timestamp()) * SECOND
DAY = 86_400 * SECOND


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spillway.yaml").write_text(CONFIG)
    return tmp_path


def export(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["focus", "export", "--month", "2026-10", *arguments], catch_exceptions=False)


def october() -> list[Any]:
    """Some of everything that a month can hold."""
    local: dict[str, Any] = {
        "target": "gpu/llama",
        "boundary": "local",
        "price": "local",
        "connect_us": 10,
        "total_us": 3_600 * SECOND + 10,
    }
    sky = "openai/gpt-5.4@2026-03-05"
    return [
        # gpt-5.4: $2.50/M, cached $0.25/M, $15/M: 1M x 2.5 + 2M x 0.25 + 0.1M x 15 = $4.50
        outcome("a", at=AT + DAY, target="sky/gpt-5.4", price=sky, input=1_000_000, cache_read=2_000_000, output=100_000, cost=DOLLAR * 9 // 2, team="care"),
        outcome("b", at=AT + DAY + 5, target="sky/gpt-5.4", price=sky, input=200_000, output=0, cost=DOLLAR // 2, team="care"),
        # flex is half; priority twice; long twice in, half more out
        outcome("c", at=AT + DAY, target="sky/gpt-5.4", price=f"{sky}+flex", input=400_000, output=0, cost=DOLLAR // 2),
        outcome("d", at=AT + 2 * DAY, target="sky/gpt-5.4", price=f"{sky}+long", input=300_000, output=10_000, cost=DOLLAR * 1_725 // 1_000, tenant="t"),
        # a negotiated price, below the list's $2.50/M and $10/M
        outcome("e", at=AT + DAY, target="sky/gpt-4o", price="sky/gpt-4o", input=500_000, output=100_000, cost=DOLLAR * 18 // 10, project="", quality="estimated"),
        outcome("f", at=AT + DAY, target="sky/odd", price="sky/odd", input=7, output=3, cost=13_000_000),
        # Anthropic: $3/M, $3.75/M and $6/M written, $0.30/M read, $15/M out, and a batch
        outcome("g", at=AT + 3 * DAY, target="claude/claude-sonnet-4-6", price="anthropic/claude-sonnet-4-6@2026-03-13", input=1_000, cache_read=2_000, cache_write_5m=3_000, cache_write_1h=400, output=500, cost=24_750_000_000),
        outcome("h", at=AT + 3 * DAY, target="claude/claude-sonnet-4-6", price="anthropic/claude-sonnet-4-6@2026-03-13+batch", input=1_000, output=500, cost=5_250_000_000),
        # held for an attempt that a crash ended; a row that is not in the list any more; one that cost nothing
        outcome("i", at=AT + DAY, target="sky/gpt-5.4", price="", cost=DOLLAR // 4, ending="interrupted", quality="estimated"),
        outcome("j", at=AT + DAY, target="sky/gpt-5.4", price="openai/gpt-5.4@2020-01-01", input=10, cost=77),
        outcome("k", at=AT + DAY, target="sky/gpt-5.4", price=sky, ending="failed", error="engine_error"),
        # own pools
        outcome("l", at=AT + DAY + 2 * 3_600 * SECOND, input=900_000, output=50_000, **local),
        outcome("m", at=AT + DAY + 9 * 3_600 * SECOND, input=100_000, cache_read=100, output=0, team="other", **local),
        outcome("n", at=AT + 5 * DAY + 9 * 3_600 * SECOND, input=0, output=0, ending="abandoned", **local),
        outcome("o", at=AT + DAY, input=5, output=5, **{**local, "target": "bare/m"}),
        # of other months
        outcome("p", at=AT - 1, target="sky/gpt-5.4", price=sky, input=1_000_000, cost=DOLLAR * 5 // 2),
        outcome("q", at=AT + 31 * DAY, target="sky/gpt-5.4", price=sky, input=1_000_000, cost=DOLLAR * 5 // 2),
    ]  # fmt: skip


def correction(amount: int, model: str = "gpt-5.4", vendor: str = "openai", begin: int = AT) -> Correction:
    return Correction(actor="ops", amount=amount, at=AT + 40 * DAY, begin=begin, billed=amount, booked=0, cause="price", end=begin + 31 * DAY, model=model, source="api", vendor=vendor)  # fmt: skip


def served(here: Path, records: list[Any]) -> None:
    ledger = Ledger(here / "state" / "ledger.db")
    for seq, record in enumerate(records):
        record.seq = seq
    ledger.project("i/slot-0", records)
    ledger.close()


def rows_of(done: Result) -> list[dict[str, str | None]]:
    assert done.exit_code == 0, done.stderr
    columns, rows = read_csv(done.stdout)
    assert columns == list(COLUMNS)
    return rows


def total(rows: list[dict[str, str | None]], column: str, **where: str | None) -> Decimal:
    return sum(
        (Decimal(row[column] or 0) for row in rows if all(row[name] == value for name, value in where.items())),
        Decimal(0),
    )


def everything(here: Path) -> list[dict[str, str | None]]:
    served(
        here,
        [
            *october(),
            correction(DOLLAR // 10),
            correction(-DOLLAR // 100, "claude-sonnet-4-6", "anthropic"),
            correction(DOLLAR, begin=AT - DAY),
        ],
    )
    return rows_of(
        export(
            "--invoice",
            "sky=INV-1",
            "--account",
            "sky=org-1",
            "--operator",
            "St. Elsewhere",
            "--purchase",
            "gpu=2026-10-07,R-118,Hardware Ltd",
        )
    )


def test_it_is_focus_1_4_by_the_specifications_own_rules(here: Path) -> None:
    rows = everything(here)
    assert problems(list(COLUMNS), rows, CONDITIONS) == []
    assert {row["ChargeCategory"] for row in rows} == {"Usage", "Purchase", "Adjustment"}
    assert {"ProviderName", "PublisherName"}.isdisjoint(COLUMNS) and {
        "ServiceProviderName",
        "HostProviderName",
        "InvoiceIssuerName",
    } <= set(COLUMNS)


def test_billed_cost_adds_up_to_the_ledger_and_its_corrections(here: Path) -> None:
    rows = everything(here)
    inside = [record for record in october() if AT <= record.at < AT + 31 * DAY]
    cloud = Decimal(sum(record.cost for record in inside if record.target.startswith("sky/"))) / DOLLAR
    assert total(rows, "BilledCost", InvoiceId="INV-1") == cloud + Decimal("0.1")  # the invoice, to the pico-dollar
    claude = Decimal(sum(record.cost for record in inside if record.target.startswith("claude/"))) / DOLLAR
    assert total(rows, "BilledCost", ServiceProviderName="Anthropic") == claude - Decimal("0.01")
    details = [row["InvoiceDetailId"] for row in rows if row["InvoiceId"]]
    assert len(details) == len(set(details)) and all(details)
    assert all(row["InvoiceDetailId"] is None for row in rows if row["InvoiceId"] is None)


def test_tokens_stand_in_consumed_quantity_by_meter(here: Path) -> None:
    rows = everything(here)
    meters: dict[tuple[str | None, str | None], Decimal] = defaultdict(Decimal)
    for row in rows:
        if row["ConsumedUnit"] == "Tokens":
            meters[row["ServiceProviderName"], row["SkuMeter"]] += Decimal(row["ConsumedQuantity"] or 0)
    assert (
        meters["Anthropic", "Cache Write Tokens"] == 3_000 and meters["Anthropic", "Cache Write Tokens (1 Hour)"] == 400
    )
    assert meters["OpenAI", "Input Tokens"] == 1_000_000 + 200_000 + 400_000 + 300_000 + 500_000 + 7
    assert meters["OpenAI", "Cached Input Tokens"] == 2_000_000
    assert meters["St. Elsewhere", "Input Tokens"] == 1_000_100 and meters["St. Elsewhere", "Output Tokens"] == 50_000
    (cached,) = [row for row in rows if row["SkuPriceId"] == "openai/gpt-5.4@2026-03-05/cached"]
    # by hand: 2M at $0.25/M
    assert (cached["PricingQuantity"], cached["PricingUnit"], cached["ListUnitPrice"], cached["BilledCost"]) == (
        "2",
        "1000000 Tokens",
        "0.25",
        "0.5",
    )
    assert cached["SubAccountId"] == "default/care/triage" and json.loads(cached["Tags"] or "") == {"spillway/key": "key_a", "spillway/project": "triage", "spillway/team": "care"}  # fmt: skip
    assert (cached["RegionId"], cached["BillingAccountId"]) == ("eu", "org-1")


def test_a_negotiated_price_has_its_list_price_beside(here: Path) -> None:
    rows = [row for row in everything(here) if row["SkuId"] == "sky/gpt-4o/input"]
    (row,) = rows
    # 0.5M at $2/M, where the list says $2.50/M
    assert (row["BilledCost"], row["ListCost"], row["ContractedCost"], row["EffectiveCost"]) == ("1", "1.25", "1", "1")
    assert (row["ContractedUnitPrice"], row["ListUnitPrice"]) == ("2", "2.5")
    assert json.loads(row["Tags"] or "")["spillway/metering"] == "estimated"


def test_tiers_and_long_prompts_are_prices_of_one_sku(here: Path) -> None:
    rows = [row for row in everything(here) if row["SkuId"] == "openai/gpt-5.4/input"]
    assert {row["SkuPriceId"]: (row["ListUnitPrice"], row["PricingCategory"]) for row in rows} == {
        "openai/gpt-5.4@2026-03-05/input": ("2.5", "Standard"), "openai/gpt-5.4@2026-03-05+flex/input": ("1.25", "Other"),
        "openai/gpt-5.4@2026-03-05+long/input": ("5", "Other"),
    }  # fmt: skip


def test_the_default_for_unpriced_models_is_a_price_like_others(here: Path) -> None:
    served(
        here, [outcome("a", at=AT, target="sky/gpt-4o", price="default", input=1_000, output=10, cost=9_900_000_000)]
    )
    rows = [row for row in rows_of(export()) if row["ServiceProviderName"] == "OpenAI"]
    assert [(row["SkuPriceId"], row["BilledCost"], row["ListUnitPrice"]) for row in rows] == [
        ("default/input", "0.009", "2.5"), ("default/output", "0.0009", "10"),
    ]  # fmt: skip
    assert problems(list(COLUMNS), rows, CONDITIONS) == []


def test_money_without_meters_is_an_adjustment(here: Path) -> None:
    rows = [
        row
        for row in everything(here)
        if row["ChargeCategory"] == "Adjustment" and "breakdown" in (row["ChargeDescription"] or "")
    ]
    assert sorted(Decimal(row["BilledCost"] or 0) for row in rows) == [Decimal(77) / DOLLAR, Decimal("0.25")]


def test_purchases_bill_and_use_is_effective_cost(here: Path) -> None:
    rows = everything(here)
    pool = [row for row in rows if row["ResourceId"] == "gpu"]
    bought = [row for row in pool if row["ChargeCategory"] == "Purchase"]
    assert all(row["EffectiveCost"] == "0" and row["BilledCost"] != "0" for row in bought)
    assert {row["ChargeFrequency"] for row in bought} == {"One-Time", "Recurring"}
    (hardware,) = [row for row in bought if row["InvoiceId"]]
    assert (hardware["BilledCost"], hardware["InvoiceId"], hardware["InvoiceIssuerName"], hardware["ChargePeriodStart"]) == (
        "60000", "R-118", "Hardware Ltd", "2026-10-07T00:00:00Z",
    )  # fmt: skip
    used = [row for row in pool if row["ChargeCategory"] == "Usage"]
    assert all(row["BilledCost"] == "0" and row["EffectiveCost"] != "0" for row in used)
    assert {row["SkuMeter"] for row in used} == {"Input Tokens", "Output Tokens", "Idle Time", "Engine Time"}
    # by the rate card: October is over, and the ledger begins on the last day of September, so all of its days count
    card = card_of(load(here / "spillway.yaml", {"K": "k"}).engines["gpu"].cost)  # type: ignore[arg-type]
    busy = [0] * 31
    busy[1], busy[5] = 2 * 3_600 * SECOND, 3_600 * SECOND
    days = [period_cost(card, DAY, each) for each in busy]
    assert total(used, "EffectiveCost") == Decimal(sum(day.total for day in days)) / DOLLAR
    paid = total(bought, "BilledCost", ChargeFrequency="Recurring")
    assert paid == Decimal(sum(day.total - day.depreciation for day in days)) / DOLLAR


def test_effective_cost_is_what_spend_says_was_spent(here: Path) -> None:
    served(here, october())
    spend = CliRunner().invoke(
        app, ["spend", "--from", "2026-10-01", "--to", "2026-10-31", "--json"], catch_exceptions=False
    )
    spent = Decimal(json.loads(spend.stdout)["total"]["spent"]) / DOLLAR
    assert abs(total(rows_of(export()), "EffectiveCost") - spent) < Decimal(
        "1e-9"
    )  # days are rounded to the pico-dollar each


def test_in_the_month_in_which_the_ledger_begins_effective_cost_is_what_spend_says(here: Path) -> None:
    """It begins at half past ten in the morning of the 20th: what own engines cost before is in neither."""
    began = AT + 19 * DAY + 10 * 3_600 * SECOND + 30 * 60 * SECOND
    served(
        here,
        [
            outcome(
                "a",
                at=began + 60 * SECOND,
                target="gpu/llama",
                boundary="local",
                connect_us=10,
                total_us=60 * SECOND + 10,
            )
        ],
    )
    spend = CliRunner().invoke(
        app, ["spend", "--from", "2026-10-01", "--to", "2026-10-31", "--json"], catch_exceptions=False
    )
    found = json.loads(spend.stdout)
    (pool,) = found["pools"]
    assert pool["period_us"] == AT + 31 * DAY - began
    assert any("counted from 2026-10-20 10:30:00Z on, where the ledger begins" in note for note in found["notes"])
    rows = rows_of(export())
    assert abs(total(rows, "EffectiveCost") - Decimal(found["total"]["spent"]) / DOLLAR) < Decimal("1e-9")
    assert [row for row in rows if row["SkuMeter"] in ("Input Tokens", "Output Tokens", "Engine Time")]


def test_as_parquet(here: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    served(here, october())
    assert export("--out", "costs.parquet", "--metadata", "schema.json").exit_code == 0
    text_rows = rows_of(export())
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        kinds = {row[0]: row[1] for row in database.execute("DESCRIBE SELECT * FROM 'costs.parquet'").fetchall()}
        count, billed = database.execute("SELECT count(*), sum(BilledCost) FROM 'costs.parquet'").fetchone()
        nulls = database.execute(
            "SELECT count(*) FROM 'costs.parquet' WHERE ChargeClass IS NOT NULL OR InvoiceId = ''"
        ).fetchone()
        first = database.execute("SELECT min(ChargePeriodStart) FROM 'costs.parquet'").fetchone()
    assert list(kinds) == list(COLUMNS)
    types = {"decimal": "DECIMAL(38,18)", "string": "VARCHAR", "time": "TIMESTAMP WITH TIME ZONE", "json": "VARCHAR"}
    assert {name: types[kind] for name, kind in COLUMNS.items()} == kinds
    assert (count, billed, nulls[0]) == (len(text_rows), total(text_rows, "BilledCost"), 0)
    assert text(first[0].astimezone(UTC)) == "2026-10-01T00:00:00Z"
    schema = json.loads((here / "schema.json").read_text())["Schema"][0]
    assert schema["FocusVersion"] == "1.4" and [row["ColumnName"] for row in schema["ColumnDefinition"]] == list(
        COLUMNS
    )


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"BilledCost": None}, "CAU-BilledCost-C-003-M"),
        ({"BilledCost": "$5"}, "CAU-BilledCost-C-002-M"),
        ({"BilledCost": "+5"}, "CAU-BilledCost-C-002-M"),
        ({"ChargePeriodStart": "2026-10-01"}, "CAU-ChargePeriodStart-C-002-M"),
        ({"ChargePeriodStart": "2026-10-01T00:00:00+00:00"}, "CAU-ChargePeriodStart-C-002-M"),
        ({"ChargeCategory": "Use"}, "CAU-ChargeCategory-C-003-M"),
        ({"ChargeClass": "Late"}, "CAU-ChargeClass-C-005-C"),
        ({"ChargeCategory": "Purchase"}, "CAU-ChargeFrequency-C-004-C"),
        ({"ChargeCategory": "Tax"}, "CAU-SkuPriceId-C-004-C"),
        ({"ConsumedUnit": None}, "CAU-ConsumedUnit-C-006-C"),
        ({"ConsumedQuantity": None, "ConsumedUnit": None}, "CAU-ConsumedQuantity-C-006-C"),
        ({"PricingUnit": "tokens"}, "CAU-PricingUnit-C-003-O"),
        ({"ListCost": "7"}, "CAU-ListCost-C-011-C"),
        ({"ContractedUnitPrice": None}, "CAU-ContractedUnitPrice-C-015-C"),
        ({"ContractedUnitPrice": "-1"}, "CAU-ContractedUnitPrice-C-009-M"),
        ({"SkuPriceId": None}, "CAU-PricingQuantity-C-011-C"),
        ({"ServiceSubcategory": "Bots"}, "CAU-ServiceName-C-008-C"),
        ({"ServiceSubcategory": "Containers"}, "CAU-ServiceSubcategory-C-004-M"),
        ({"ServiceProviderName": None}, "CAU-ServiceProviderName-C-003-M"),
        ({"InvoiceIssuerName": "n/a"}, "NullHandling"),
        ({"Tags": '{"a": {"b": 1}}'}, "CAU-Tags-C-001-M"),
        ({"SubAccountName": None}, "CAU-SubAccountName-C-005-C"),
        ({"RegionName": None}, "CAU-RegionName-C-005-C"),
        ({"SkuPriceId": "openai/gpt-5.4@2026-03-05/cached"}, "CAU-SkuPriceId-C-008-M"),
        ({"BillingCurrency": "dollars"}, "CAU-BillingCurrency-C-003-M"),
    ],
)
def test_the_validator_finds_what_is_wrong(here: Path, change: dict[str, str | None], rule: str) -> None:
    """Each of these mistakes in one row, and none without it."""
    served(here, [one for one in october() if one.target == "sky/gpt-5.4"])
    rows = rows_of(export())
    place = next(n for n, row in enumerate(rows) if row["SkuPriceId"] == "openai/gpt-5.4@2026-03-05/input")
    rows[place] = {**rows[place], **change}
    assert rule in {
        problem.partition(",")[0].partition(":")[0] for problem in problems(list(COLUMNS), rows, CONDITIONS)
    }


def test_the_validator_knows_columns_that_lack_or_are_gone(here: Path) -> None:
    served(here, october())
    rows = rows_of(export())
    fewer = [name for name in COLUMNS if name not in ("HostProviderName", "SkuMeter")]
    assert {line.partition(":")[0] for line in problems(fewer, rows, CONDITIONS)} == {
        "CAU-CostAndUsage-D-075-M",
        "CAU-CostAndUsage-D-059-C",
    }
    older = [*COLUMNS, "ProviderName", "Extra"]
    assert len(problems(older, [{**row, "ProviderName": "x", "Extra": "y"} for row in rows], CONDITIONS)) == 2
    assert len(RULES) == 303 and set(COLUMNS) <= KNOWN


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--month", "2026-1"), "is no month"), (("--month", "2999-01"), "has not begun"), (("--format", "xml"), "there are csv and parquet"),
        (("--format", "parquet"), "--out costs.parquet"), (("--invoice", "sky"), "takes ENGINE=VALUE"), (("--invoice", "ski=1"), "'sky'"),
        (("--account", "x="), "takes ENGINE=VALUE"), (("--purchase", "sky=2026-10-01"), "no engine with a purchase"),
        (("--purchase", "gpu=october"), "is no day"), (("--purchase", "gpu=2026-11-01"), "is not in 2026-10"),
    ],
)  # fmt: skip
def test_typed_wrong(here: Path, arguments: tuple[str, ...], words: str) -> None:
    served(here, october())
    done = export(*arguments)
    assert (done.exit_code, done.stdout) == (2, "") and words in done.stderr


def test_an_empty_month_and_no_ledger(here: Path) -> None:
    done = CliRunner().invoke(app, ["focus", "export", "--month", "2026-10"])
    assert done.exit_code == 1 and "there is no ledger" in done.stderr
    (here / "spillway.yaml").write_text("{}")
    served(here, [outcome("a", at=AT + 100 * DAY)])
    done = CliRunner().invoke(app, ["focus", "export", "--month", "2026-09"])
    assert done.exit_code == 1 and "has nothing in 2026-09" in done.stderr
    done = export("--out", "/nowhere/x.csv")
    assert done.exit_code == 1


def test_dates_are_those_of_utc() -> None:
    assert text(datetime(2026, 10, 1, tzinfo=UTC) + timedelta(hours=1)) == "2026-10-01T01:00:00Z"
    assert [text(Decimal(value)) for value in ("0", "-0", "1E+3", "0.000000000001", "1.50")] == [
        "0",
        "0",
        "1000",
        "0.000000000001",
        "1.5",
    ]
