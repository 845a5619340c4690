"""What commands ask of a ledger's file: months, forecasts and the counterfactual, over a real one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from outcomes import outcome

from engines.ratecard import MICRO
from proxy.books import Books, counterfactual
from proxy.config import Settings, load
from proxy.forecast import Forecast
from proxy.projections.ledger import Ledger

DOLLAR = 1_000_000_000_000
HOUR = 3_600 * MICRO
CONFIG = """\
engines:
  gpu: {kind: vllm, replicas: ['http://127.0.0.1:9'], models: {llama: {}}, cost: {rent: $730/month}}
  sky: {kind: openai, key: {env: SPILLWAY_TEST_KEY}, models: {gpt-4o: {}, big: {id: gpt-4.1}, odd: {}}}
prices:
  sky/odd: {input: $1/M, output: $2/M}
"""


def at(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=UTC).timestamp()) * MICRO  # type: ignore[arg-type,misc]


NOW = at(2026, 11, 26)


@pytest.fixture
def settings() -> Settings:
    return load(CONFIG, os.environ, secrets=False)


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A dollar of cloud at noon of each day since the middle of September, and an hour of the pool."""
    ledger = Ledger(tmp_path / "ledger.db")
    first, records = at(2026, 9, 15, 12), []
    for number, moment in enumerate(range(first, NOW, 24 * HOUR)):
        where: dict[str, Any] = {"target": "gpu/llama", "boundary": "local", "connect_us": 1, "total_us": 1 + HOUR}
        records += [outcome(f"c{number}", at=moment, cost=DOLLAR), outcome(f"l{number}", at=moment, **where)]
    for seq, record in enumerate(records):
        record.seq = seq
    ledger.project("o", records)
    ledger.close()
    yield tmp_path / "ledger.db"


def test_months_are_apart_and_only_whole_ones_are_whole(path: Path, settings: Settings) -> None:
    books = Books(path, settings, now=NOW)
    assert books.since is not None
    found = books.months((books.since, NOW))
    assert [(month.name, month.api // DOLLAR, month.whole) for month in found] == [
        ("2026-09", 16, False), ("2026-10", 31, True), ("2026-11", 25, False),
    ]  # fmt: skip
    # $730 a month of 730 hours is $1 an hour: October has 744 of them
    assert found[1].own == 744 * DOLLAR
    books.close()


def test_the_forecast_is_of_the_month_where_somebody_lives(path: Path, settings: Settings) -> None:
    books = Books(path, settings, now=NOW)
    found = books.forecast()
    assert isinstance(found, Forecast)
    assert found.spent == 25 * DOLLAR + 600 * DOLLAR  # 25 days, and $1 an hour since the month began
    assert found.expected == found.low == found.high == (30 + 720) * DOLLAR
    books.close()
    abroad = Books(path, settings, now=at(2026, 10, 31, 23), zone=ZoneInfo("Europe/Vienna"), zone_name="Europe/Vienna")
    there = abroad.forecast()
    assert isinstance(there, Forecast) and there.month == "2026-11"  # it is November there
    abroad.close()


def test_an_empty_or_a_young_ledger_has_no_forecast(tmp_path: Path, settings: Settings) -> None:
    books = Books(tmp_path / "ledger.db", settings, now=NOW)
    assert books.forecast() == "no forecast: the ledger is empty"
    assert books.months((0, NOW)) == [] and books.since is None
    books.close()
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.project("o", [outcome("a", at=NOW - 1, seq=0)])
    ledger.close()
    books = Books(tmp_path / "ledger.db", settings, now=NOW)
    assert books.forecast() == "no forecast: 0 complete days were seen, and it takes 7"
    books.close()


def test_a_report_counts_what_was_avoided_and_a_pool_is_busy_once(path: Path, settings: Settings) -> None:
    books = Books(path, settings, now=NOW, against=counterfactual(settings, "sky/odd"))
    found = books.report(("boundary",), (at(2026, 11, 1), at(2026, 11, 2)))
    (pool,) = found.pools
    assert (pool.spent.busy_us, found.spent) == (HOUR, 25 * DOLLAR)
    assert books.busy((at(2026, 11, 1), at(2026, 11, 2))) == {"gpu": HOUR}
    books.close()


def test_the_counterfactual_is_a_target_or_a_listed_model(settings: Settings) -> None:
    own = counterfactual(settings, "sky/odd")
    assert own is not None and own.price("2026-11-23") is not None and own.source == " (prices of the configuration)"
    named, listed = counterfactual(settings, "sky/big"), counterfactual(settings, "openai/gpt-4.1")
    assert named is not None and listed is not None
    assert named.price("2026-11-23") == listed.price("2026-11-23") is not None
    assert listed.changes and listed.price("2000-01-01") is None
    assert counterfactual(settings, "sky/gpt-0") is None
    assert counterfactual(settings, "gpu/llama") is None
