"""The ledger's sums in money, worked out by hand: cloud as billed, local by the rate card, idle apart."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from outcomes import outcome

from engines.ratecard import MICRO, RateCard
from engines.rates import LOCAL_PRICE, Price
from proxy.finance import Report, period, report, spend_csv, spend_rows, spend_table, tokens_cost
from proxy.projections.ledger import Ledger
from proxy.quantities import Wrong

DOLLAR = 1_000_000_000_000
HOUR = 3_600 * MICRO
NOON = int(datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()) * MICRO
# $730 a month is $1 an hour; 1 kW loaded at $0.10 a kWh
CARD = RateCard(rent=730 * DOLLAR, watts_load=1_000, kwh=DOLLAR // 10)
GPT_4O = Price("openai/gpt-4o", input=2_500_000, output=10_000_000, cached=1_250_000)


def local(request: str, at: int, seconds: int, **fields: Any) -> Any:
    given: dict[str, Any] = {"target": "gpu/llama", "boundary": "local", "price": LOCAL_PRICE, "model": "chat"}
    return outcome(request, at=at, connect_us=500, total_us=500 + seconds * MICRO, **given | fields)


def made(
    *records: Any,
    by: tuple[str, ...] = ("target",),
    span: tuple[int, int] = (NOON, NOON + 2 * HOUR),
    cards: dict[str, RateCard] | None = None,
    against: Callable[[str], Price | None] | None = None,
) -> Report:
    ledger = Ledger(Path(":memory:"))
    for seq, record in enumerate(records):
        record.seq = seq
    ledger.project("o", records)
    found = report(
        by, span, ledger.sums(by, *span), ledger.intervals(*span), {"gpu": CARD} if cards is None else cards,
        None if against is None else ("openai/gpt-4o", against),
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
        "cloud attempts that used tokens without a price: 1", "openai/gpt-4o has no price before 2026-11-23",
    ):  # fmt: skip
        assert words in notes
    assert found.total.own == 0 and found.idle == found.pools[0].spent.total
    assert "note: local attempts" in spend_table(found)


def test_a_pool_that_nobody_asked_was_idle() -> None:
    found = made()
    assert (found.lines, found.total.attempts) == ([], 0)
    assert found.idle == found.spent == 2 * DOLLAR
    assert "idle: gpu, 0.0% busy" in spend_table(found)
    assert spend_table(made(span=(NOON, NOON)))  # no time, no money


def test_stated_volumes_at_a_price() -> None:
    assert tokens_cost(80_000_000, 20_000_000, GPT_4O) == 400 * DOLLAR  # 80 x $2.50 + 20 x $10


# --- periods ------------------------------------------------------------------------------------------------


def at(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=UTC).timestamp()) * MICRO  # type: ignore[arg-type,misc]


NOW = at(2026, 11, 23, 14, 30, 5)


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ((None, None, None), at(2026, 11, 1, 5), NOW),
        (("month", None, None), at(2026, 11, 1), NOW),
        (("day", None, None), at(2026, 11, 23), NOW),
        (("hour", None, None), at(2026, 11, 23, 14), NOW),
        (("30m", None, None), at(2026, 11, 23, 14, 0, 5), NOW),
        ((None, "2026-10-01", "2026-10-31"), at(2026, 10, 1), at(2026, 11, 1)),
        ((None, "2026-11-20", None), at(2026, 11, 20), NOW),
        ((None, "2026-11-20", "2026-11-30"), at(2026, 11, 20), NOW),  # the rest of it was not spent yet
        ((None, None, "2026-11-02"), at(2026, 11, 1, 5), at(2026, 11, 3)),
    ],
)
def test_periods(asked: tuple[str | None, str | None, str | None], start: int, end: int) -> None:
    assert period(*asked, since=at(2026, 11, 1, 5), now=NOW) == (start, end)


def test_an_empty_ledger_has_an_empty_period() -> None:
    assert period(None, None, None, since=None, now=NOW) == (NOW, NOW)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("day", "2026-11-01", None), "two ways"),
        (("week", None, None), "no window"),
        (("0s", None, None), "empty"),
        ((None, "2026-11-31", None), "no day"),
        ((None, "tomorrow", None), "no day"),
        ((None, "2026-11-02", "2026-11-01"), "empty"),
        ((None, "2027-01-01", None), "empty"),
    ],
)
def test_periods_typed_wrong(asked: tuple[str | None, str | None, str | None], words: str) -> None:
    with pytest.raises(Wrong, match=words):
        period(*asked, since=0, now=NOW)
