"""The ledger's sums in money, worked out by hand: cloud as billed, local by the rate card, idle apart."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from outcomes import outcome

from engines.ratecard import MICRO, RateCard
from engines.rates import LOCAL_PRICE, Price, Rate
from proxy.finance import Against, Corrected, Report, busy_times, report, tokens_cost
from proxy.finance_tables import spend_csv, spend_rows, spend_table
from proxy.projections.ledger import Ledger

DOLLAR = 1_000_000_000_000
HOUR = 3_600 * MICRO
NOON = int(datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()) * MICRO
# $730 a month is $1 an hour; 1 kW loaded at $0.10 a kWh
CARD = RateCard(rent=730 * DOLLAR, watts_load=1_000, kwh=DOLLAR // 10)
GPT_4O = Price("openai/gpt-4o", input=2_500_000, output=10_000_000, cached=1_250_000)


def local(request: str, at: int, seconds: int, **fields: Any) -> Any:
    given: dict[str, Any] = {"target": "gpu/llama", "boundary": "local", "price": LOCAL_PRICE, "model": "chat"}
    return outcome(request, at=at, connect_us=500, total_us=500 + seconds * MICRO, **given | fields)


def ledger_with(*records: Any) -> Ledger:
    ledger = Ledger(Path(":memory:"))
    for seq, record in enumerate(records):
        record.seq = seq
    ledger.project("o", records)
    return ledger


def made(
    *records: Any,
    by: tuple[str, ...] = ("target",),
    span: tuple[int, int] = (NOON, NOON + 2 * HOUR),
    cards: dict[str, RateCard] | None = None,
    against: Callable[[str], Price | None] | None = None,
) -> Report:
    ledger = ledger_with(*records)
    found = report(
        by, span, ledger.sums(by, *span), busy_times(ledger.intervals(*span)), {"gpu": CARD} if cards is None else cards,
        None if against is None else Against("openai/gpt-4o", against),
    )  # fmt: skip
    ledger.close()
    return found


TWO_HOURS = (
    # from 12:30 to 13:00, and at the same time from 12:45 to 13:00: the pool was busy for half an hour
    local("a", NOON + HOUR, 1_800, team="heart", tenant="care", input=1_000, output=200),
    local("b", NOON + HOUR, 900, team="lung", input=600, cache_read=400, output=100, reasoning=50, quality="estimated"),
    outcome("c", at=NOON + HOUR, team="lung", cost=3 * DOLLAR, input=10, output=5),
)


def test_two_hours_of_a_pool_by_hand() -> None:
    found = made(*TWO_HOURS, by=("team",), against=lambda day: GPT_4O)
    (pool,) = found.pools
    assert pool.spent.busy_us == HOUR // 2
    # rent of two hours $2, a quarter of it busy; half an hour at 1 kW is $0.05
    assert (pool.spent.busy, pool.spent.idle, pool.spent.total) == (
        550_000_000_000,
        1_500_000_000_000,
        2_050_000_000_000,
    )
    heart, lung = sorted(found.lines, key=lambda line: line.names)
    # 1,800 and 900 engine-seconds: two thirds and one third of $0.55; the first part is rounded down
    assert (heart.own, lung.own) == (366_666_666_666, 183_333_333_334)
    assert (heart.api, lung.api) == (0, 3 * DOLLAR)
    # 1,000 x $2.50/M + 200 x $10/M; 600 x $2.50/M + 400 x $1.25/M + 100 x $10/M
    assert (heart.avoided, lung.avoided) == (4_500_000_000, 3_000_000_000)
    assert (lung.attempts, lung.local, lung.estimated, lung.reasoning) == (2, 1, 1, 50)
    assert (lung.input, lung.cache_read, lung.output) == (610, 400, 105)
    assert found.spent == 3 * DOLLAR + pool.spent.total
    assert found.idle == pool.spent.idle
    assert [line.names for line in found.lines] == [("lung",), ("heart",)]  # the dearest first


def test_reading_and_writing_weigh_apart() -> None:
    """One team has long prompts, the other long answers; both took the engine for as long."""
    records = [
        local("a", NOON + HOUR, 1_000, team="long prompts", prefill_us=800 * MICRO, decode_us=200 * MICRO),
        local("b", NOON + HOUR, 1_000, team="long answers", prefill_us=200 * MICRO, decode_us=800 * MICRO),
    ]
    alike = made(*records, by=("team",))
    cost = alike.pools[0].spent.busy
    assert {line.names[0]: line.own for line in alike.lines} == {
        "long prompts": cost // 2,
        "long answers": cost - cost // 2,
    }
    assert alike.total.own_prefill == sum(line.own_prefill for line in alike.lines)
    assert abs(alike.total.own_prefill - cost // 2) <= 2  # of either line less than one is rounded away
    heavy = RateCard(rent=730 * DOLLAR, watts_load=1_000, kwh=DOLLAR // 10, prefill_weight=4 * MICRO)
    weighed = made(*records, by=("team",), cards={"gpu": heavy})
    # 800 x 4 + 200 = 3,400 of 3,400 + 200 x 4 + 800 = 5,000
    assert {line.names[0]: line.own for line in weighed.lines}["long prompts"] in (cost * 34 // 50, cost * 34 // 50 + 1)
    assert weighed.total.own == cost
    assert "a second of reading counts 4, a second of writing 1" in "".join(weighed.notes)


def test_what_has_no_name_is_unallocated() -> None:
    found = made(*TWO_HOURS, outcome("d", at=NOON + HOUR, cost=7), by=("tenant", "target"))
    care = next(line for line in found.lines if line.names[0] == "care")
    assert found.unallocated == found.total.cost - care.cost > 7
    assert "unallocated: $3.18" in spend_table(found)
    assert not made(*TWO_HOURS, by=("target",)).names_owners
    half = made(
        outcome("d", at=NOON, cost=7, team="heart", project=""),
        outcome("e", at=NOON, cost=9, team="heart"),
        by=("team", "project"),
    )
    assert half.unallocated == 7  # of a team, but of none of its projects


def test_corrections_are_lines_of_their_own() -> None:
    ledger = Ledger(Path(":memory:"))
    found = report(
        ("target",),
        (NOON, NOON + HOUR),
        ledger.sums(("target",)),
        {},
        {},
        corrections=[Corrected("openai", "gpt-4o", -2 * DOLLAR, "price")],
    )
    ledger.close()
    assert (found.spent, found.billed) == (-2 * DOLLAR, -2 * DOLLAR)
    assert "correction: openai/gpt-4o" in spend_table(found)
    assert spend_rows(found)["corrections"] == [
        {"vendor": "openai", "model": "gpt-4o", "cost": -2 * DOLLAR, "cause": "price"}
    ]


def test_the_table_lines_up_and_totals() -> None:
    text = spend_table(made(*TWO_HOURS, by=("team", "boundary"), against=lambda day: GPT_4O))
    lines = text.splitlines()
    assert lines[0] == "2026-11-23 12:00:00Z to 2026-11-23 14:00:00Z"
    head, *body = lines[1:7]
    assert " ".join(head.split()) == "team boundary attempts local estimated in cached written out API own cost avoided"
    at = head.index("boundary")
    assert all(row[at - 1] == " " for row in body)
    assert body[-2].startswith("idle: gpu, 25.0% busy") and "$1.50" in body[-2]
    assert body[-1].startswith("total") and "$5.05" in body[-1] and "$2.05" in body[-1]
    assert {len(row) for row in (head, body[0], body[-1])} == {len(head)}
    assert "$0.007500 avoided, $2.05 spent on own engines: $2.04 lost to local serving" in text


def test_days_come_in_order() -> None:
    found = made(
        outcome("a", at=NOON, cost=1), outcome("b", at=NOON + 24 * HOUR, cost=9), by=("day",), span=(NOON, NOON + 48 * HOUR),
    )  # fmt: skip
    assert [line.names for line in found.lines] == [("2026-11-23",), ("2026-11-24",)]


def test_rows_for_scripts_add_up() -> None:
    rows = spend_rows(made(*TWO_HOURS, by=("target",)))
    assert rows["by"] == ["target"]
    assert rows["against"] is None and "avoided" not in rows["total"]
    assert (
        sum(row["cost"] for row in rows["rows"]) + sum(pool["cost"] for pool in rows["pools"]) == rows["total"]["spent"]
    )
    assert rows["pools"][0]["marginal"] == 50_000_000_000


def test_a_spreadsheet_adds_up_and_computes_no_name() -> None:
    records = [*TWO_HOURS, outcome("d", at=NOON, model="=1+1", cost=1)]
    found = made(*records, by=("model",))
    rows = list(csv.DictReader(io.StringIO(spend_csv(found))))
    assert [row["model"] for row in rows if "1+1" in row["model"]] == ["'=1+1"]
    assert [row["line"] for row in rows].count("idle") == 1
    assert sum(round(float(row["cost_usd"]) * 10**12) for row in rows) == found.spent
    assert next(row["cost_usd"] for row in rows if row["line"] == "idle") == "1.500000000000"


def test_what_is_missing_is_said() -> None:
    records = [
        local("a", NOON + HOUR, 10, target="cpu/phi", input=5),
        local("b", NOON + HOUR, 0, input=5),
        outcome("c", at=NOON + HOUR, price="", input=5),
    ]
    found = made(*records, against=lambda day: None)
    notes = "\n".join(found.notes)
    for words in (
        "local attempts without a rate card: 1 (cpu)", "local attempts without engine time: 1",
        "cloud attempts that used tokens without a price: 1", "openai/gpt-4o has no price on 2026-11-23",
    ):  # fmt: skip
        assert words in notes
    assert found.total.own == 0 and found.idle == found.pools[0].spent.total
    assert "note: local attempts" in spend_table(found)


def test_before_its_first_price_nothing_is_avoided() -> None:
    ledger = ledger_with(local("a", NOON + HOUR, 10, input=1_000), local("b", NOON + 30 * HOUR, 10, input=1_000))
    cut = NOON + 12 * HOUR  # midnight
    against = Against("openai/gpt-4o", lambda day: GPT_4O if day >= "2026-11-24" else None, ("2026-11-24",))
    found = report(("model",), (NOON, NOON + 48 * HOUR), ledger.sums(("model",), cuts=(cut,)), {}, {}, against)
    ledger.close()
    assert found.total.avoided == 2_500_000_000
    assert any("has no price before 2026-11-24" in note for note in found.notes)


def test_long_prompts_have_their_own_price() -> None:
    rate = Rate(input=5_000_000, output=20_000_000)
    price = Price("x/y", input=2_500_000, output=10_000_000, long=rate, long_above=1_000)
    ledger = ledger_with(
        local("a", NOON, 10, input=1_000, output=1), local("b", NOON, 10, input=600, cache_read=401, output=1)
    )
    sums = ledger.sums(("model",), cuts=(), above=1_000)
    found = report(("model",), (NOON, NOON + HOUR), sums, {}, {}, Against("x/y", lambda day: price, above=1_000))
    ledger.close()
    assert found.total.avoided == 1_000 * 2_500_000 + 10_000_000 + 1_001 * 5_000_000 + 20_000_000


def test_a_pool_that_nobody_asked_was_idle() -> None:
    found = made()
    assert (found.lines, found.total.attempts) == ([], 0)
    assert found.idle == found.spent == 2 * DOLLAR
    assert "idle: gpu, 0.0% busy" in spend_table(found)
    assert spend_table(made(span=(NOON, NOON)))  # no time, no money


def test_stated_volumes_at_a_price() -> None:
    assert tokens_cost(80_000_000, 20_000_000, GPT_4O) == 400 * DOLLAR  # 80 x $2.50 + 20 x $10
