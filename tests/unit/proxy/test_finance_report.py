"""The pages: one file that loads nothing, with every step of time, and names escaped."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from outcomes import outcome

from engines.ratecard import MICRO, RateCard
from proxy.finance import Report, busy_times, report
from proxy.finance_report import spend_page
from proxy.forecast import Forecast
from proxy.projections.ledger import Ledger

DOLLAR = 1_000_000_000_000
START = 1_795_392_000 * MICRO  # 2026-11-23
HOUR = 3_600 * MICRO


def made(by: str, *records: Any, days: int = 30) -> Report:
    ledger = Ledger(Path(":memory:"))
    for seq, record in enumerate(records):
        record.seq = seq
    ledger.project("o", records)
    span = (START, START + days * 24 * HOUR)
    found = report(
        (by,), span, ledger.sums((by,), *span), busy_times(ledger.intervals(*span)), {"gpu": RateCard(rent=DOLLAR)}
    )
    ledger.close()
    return found


SPARSE = (
    outcome("a", at=START + HOUR, cost=DOLLAR, team="<script>alert(1)</script>"),
    outcome("b", at=START + 9 * 24 * HOUR, cost=DOLLAR, team="heart"),
)


def test_days_without_traffic_stand_in_the_chart() -> None:
    page = spend_page(made("team", *SPARSE), made("day", *SPARSE), [])
    labels = re.findall(r">(\d\d Nov|\d\d Dec)</text>", page)
    assert labels[:3] == ["23 Nov", "24 Nov", "25 Nov"] and "02 Dec" in labels
    assert page.count("<rect") >= 2


def test_hours_without_traffic_stand_in_the_chart() -> None:
    near = (outcome("a", at=START + HOUR, cost=1), outcome("b", at=START + 5 * HOUR, cost=2))
    page = spend_page(made("team", *near, days=1), made("hour", *near, days=1), [])
    assert re.findall(r">(\d\d:00)</text>", page)[:5] == ["01:00", "02:00", "03:00", "04:00", "05:00"]


def test_nothing_is_loaded_or_run_and_names_are_text() -> None:
    page = spend_page(made("team", *SPARSE), made("day", *SPARSE), [made("team", *SPARSE)])
    assert "<script" not in page and "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert not re.search(r"(?:src|href|url|@import|action)\s*[=(]", page)
    assert "default-src 'none'" in page


def test_many_names_are_the_dearest_and_the_rest() -> None:
    many = [outcome(str(n), at=START + HOUR, cost=(n + 1) * DOLLAR, team=f"team {n:02d}") for n in range(20)]
    page = spend_page(made("team", *many), made("day", *many), [made("team", *many)])
    assert "9 others" in page
    assert ">$45.00<" in page  # 1 + 2 + ... + 9


@pytest.mark.parametrize("by", ["team", "day"])
def test_a_period_without_anything_is_a_page_too(by: str) -> None:
    page = spend_page(made(by), made("day"), [made("team")])
    assert "$0.00 was spent" in page or "was spent: $0.00 for APIs" in page
    assert "<svg" in page or "total" in page


def test_the_month_ends_between_two_amounts() -> None:
    found = made("team", *SPARSE)
    month = Forecast("2026-11", 40 * DOLLAR, 80 * DOLLAR, 60 * DOLLAR, 100 * DOLLAR, 28, "how")
    page = spend_page(structs.replace(found, forecast=month), made("day", *SPARSE), [])
    widths = dict(re.findall(r'<rect class="(spent|rest|nothing|range)" x="[\d.]+" y="0" width="([\d.]+)"', page))
    assert widths == {"spent": "400.0", "rest": "400.0", "nothing": "600.0", "range": "400.0"}
    assert "$60.00 to $100.00" in page
    assert "The month" not in spend_page(found, made("day", *SPARSE), [])


def test_a_page_with_too_many_lines_sums_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.finance_report.MOST_LINES", 4)
    many = [outcome(str(n), at=START + HOUR, cost=(n + 1) * DOLLAR, team=f"team {n}", key=f"key {n}") for n in range(6)]
    page = spend_page(made("team", *many), made("day", *many), [])
    table = page[page.index('<table id="lines"') :]
    assert table.count('<tr class="usage">') == 4 and "3 further lines" in table
    assert ">$6.00<" in table and "team 2" not in table  # 1 + 2 + 3


def test_tokens_of_the_page_are_those_of_the_table() -> None:
    """Tokens written to a cache are a column of their own, as in the terminal and in CSV."""
    page = spend_page(made("team", outcome("a", at=START + HOUR, input=207, cache_write_5m=100)), made("day"), [])
    assert re.search(r'data-name="tokens in">207<', page) and re.search(r'data-name="written">100<', page)
    rows = [
        re.sub(r'colspan="(\d+)"', "", row)
        for row in re.findall(r"<tr.*?</tr>", page[page.index('id="lines"') :], re.S)
    ]
    assert len({len(re.findall(r"<t[dh]", row)) for row in rows}) == 1
