"""Law 4 read by a FinOps tool: whatever the ledger holds, its FOCUS rows are valid, and add up to it to the pico-dollar."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from focus_validator import problems
from hypothesis import given
from hypothesis import strategies as st

from engines.model import Usage
from engines.ratecard import RateCard, period_cost
from engines.rates import TIERS, Price, Rate, priced
from proxy.focus import COLUMNS, CONDITIONS, DAY, Scope, cloud_rows, correction_rows, dollars, numbered, text
from proxy.focus_pools import Usage as Used
from proxy.focus_pools import pool_rows

START = 1_790_812_800_000_000  # 2026-10-01
SCOPE = Scope(
    START,
    START + 31 * DAY,
    {"sky": "openai", "claude": "anthropic", "other": "openai-compatible"},
    {},
    {"sky": "I-1"},
    {"claude": "us"},
)
LISTED = Price("openai/m", 2_500_000, 15_000_000, 250_000, 3_125_000, since="2026-01-01", audio=40_000_000, audio_output=80_000_000,
               tiers={"flex": Rate(1_250_000, 7_500_000), "priority": Rate(5_000_000, 30_000_000, 500_000)}, long=Rate(5_000_000, 22_500_000), long_above=1_000)  # fmt: skip
OWN = Price("sky/own", 3, 7, since="", source="configuration")
PRICES = {
    "sky/m": (LISTED, LISTED),
    "sky/own": (OWN, LISTED),
    "claude/m": (LISTED, None),
    "other/m": (OWN, None),
    "sky/gone": (None, None),
}
names = st.sampled_from(["", "a", "b/c", "ä"])
counts = st.integers(0, 5_000)


@st.composite
def lines(draw: st.DrawFn) -> dict[str, Any]:
    target = draw(st.sampled_from(sorted(PRICES)))
    usage = Usage(
        draw(counts),
        draw(counts),
        draw(counts),
        draw(counts),
        draw(counts),
        audio_input=draw(counts),
        audio_output=draw(counts),
        tier=draw(st.sampled_from(["", "standard", "other", *TIERS])),
    )
    price = PRICES[target][0]
    cost, name = priced(usage, price) if price is not None else (draw(st.integers(0, 10**15)), "gone@2020-01-01")
    if draw(st.integers(0, 9)) == 0:
        cost = draw(st.integers(0, 10**15))  # held for an attempt that a crash ended, say
    return {
        "at": START + draw(st.integers(0, 31 * DAY - 1)), "target": target, "boundary": draw(st.sampled_from(["cloud", "cloud", "local"])), "price": name,
        **{field: draw(names) for field in ("organisation", "tenant", "team", "project", "key")}, "quality": draw(st.sampled_from(["exact", "estimated", "bounded"])),
        "input": usage.input, "cache_read": usage.cache_read, "cache_write_5m": usage.cache_write_5m, "cache_write_1h": usage.cache_write_1h,
        "output": usage.output, "audio_input": usage.audio_input, "audio_output": usage.audio_output, "cost": cost,
    }  # fmt: skip


def price_of(target: str, name: str, day: str) -> tuple[Price | None, Price | None]:
    return PRICES[target]


def checked(rows: list[Mapping[str, Any]]) -> None:
    as_text = [{name: text(row[name]) or None for name in COLUMNS} for row in rows]
    assert problems(list(COLUMNS), as_text, CONDITIONS) == []


@given(st.lists(lines(), max_size=12), st.lists(st.integers(-(10**15), 10**15), max_size=3))
def test_law_04_billed_cost_is_what_the_ledger_booked_and_corrected(
    attempts: list[dict[str, Any]], amounts: list[int]
) -> None:
    corrections = [{"vendor": "openai", "model": "m", "amount": amount, "cause": "price"} for amount in amounts]
    rows = numbered([*cloud_rows(attempts, SCOPE, price_of), *correction_rows(corrections, SCOPE)])
    checked(rows)
    cloud = [line for line in attempts if line["boundary"] == "cloud"]
    assert sum((row["BilledCost"] for row in rows), Decimal(0)) == dollars(
        sum(line["cost"] for line in cloud) + sum(amounts)
    )
    assert all(row["BilledCost"] == row["EffectiveCost"] for row in rows)
    tokens = sum((row["ConsumedQuantity"] or 0 for row in rows), Decimal(0))
    assert tokens <= sum(
        sum(line[name] for name in ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output"))
        for line in cloud
    )


owners = st.tuples(names, names, names, names, names, st.just("exact"))
cards = st.builds(
    RateCard, purchase=st.integers(0, 10**17), residual=st.integers(0, 10**6), financing=st.integers(0, 10**5), watts_idle=st.integers(0, 10**4),
    watts_load=st.integers(0, 10**4), kwh=st.integers(0, 10**12), rent=st.integers(0, 10**15), staff=st.integers(0, 10**15),
)  # fmt: skip


@given(
    cards,
    st.lists(st.tuples(st.integers(1, DAY), st.integers(0, DAY)), min_size=1, max_size=3),
    st.lists(
        st.tuples(st.integers(0, 2), owners, counts, counts, st.integers(0, DAY), st.integers(0, DAY)), max_size=6
    ),
)
def test_law_04_effective_cost_of_a_pool_is_what_was_spent_on_it(
    card: RateCard, spans: list[tuple[int, int]], used: list[tuple[Any, ...]]
) -> None:
    """Used and idle together; and what was paid for it in the period bills, but for the purchase, which bills when it is bought."""
    days = [(START + n * DAY, START + n * DAY + length, min(busy, length)) for n, (length, busy) in enumerate(spans)]
    usages = [
        Used(START + n % len(days) * DAY, "gpu/m", owner, prompt, output, prefill, decode)
        for n, owner, prompt, output, prefill, decode in used
    ]
    rows = numbered(pool_rows("gpu", card, days, usages, SCOPE, "Us"))
    checked(rows)
    spent = [period_cost(card, end - begin, busy) for begin, end, busy in days]
    assert sum((row["EffectiveCost"] for row in rows), Decimal(0)) == dollars(sum(day.total for day in spent))
    assert sum((row["BilledCost"] for row in rows), Decimal(0)) == dollars(
        sum(day.total - day.depreciation for day in spent)
    )
