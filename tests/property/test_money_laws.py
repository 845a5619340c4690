"""Law 4 read as money: however the ledger is grouped, its lines and the idle time are what was spent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from outcomes import outcome

from engines.ratecard import MICRO, RateCard
from engines.rates import Price
from proxy.finance import COUNTED, MONEY, report
from proxy.projections.ledger import DIMENSIONS, Ledger

START = 1_795_000_000 * MICRO
END = START + 3 * 86_400 * MICRO
CARDS = {
    "gpu": RateCard(purchase=60_000 * 10**12 + 7, residual=100_001, financing=49_999, watts_idle=201, watts_load=1_399, kwh=123_456_789_011),
    "cpu": RateCard(rent=10**13 + 3),
}  # fmt: skip
PRICE = Price("openai/gpt-4o", input=2_500_000, output=10_000_000, cached=1_250_000)
NAMES = st.sampled_from(["", "a", "b"])
ATTEMPTS = st.lists(
    st.builds(
        dict, at=st.integers(START - 10, END + 10), total_us=st.integers(0, 2 * 86_400 * MICRO), connect_us=st.integers(0, 5),
        tenant=NAMES, team=NAMES, project=NAMES, key=NAMES, model=NAMES,
        place=st.sampled_from([("gpu/a", "local"), ("gpu/b", "local"), ("cpu/a", "local"), ("bare/a", "local"), ("openai/a", "cloud")]),
        input=st.integers(0, 10**6), output=st.integers(0, 10**6), cache_read=st.integers(0, 10**6), cost=st.integers(0, 10**12),
        quality=st.sampled_from(["exact", "estimated"]),
    ),
    max_size=12,
)  # fmt: skip


def record(seq: int, fields: dict[str, Any]) -> Any:
    target, boundary = fields.pop("place")
    if boundary == "local":
        fields["cost"] = 0
    return outcome(str(seq), seq=seq, target=target, boundary=boundary, **fields)


@given(ATTEMPTS, st.lists(st.sampled_from(list(DIMENSIONS)), min_size=1, max_size=3, unique=True))
def test_law_04_grouped_sums_equal_the_totals_and_the_totals_what_was_spent(
    rows: list[dict[str, Any]], by: list[str]
) -> None:
    records = [record(seq, dict(row)) for seq, row in enumerate(rows)]
    ledger = Ledger(Path(":memory:"))
    ledger.project("o", records)
    found = report(
        by,
        (START, END),
        ledger.sums(by, START, END),
        ledger.intervals(START, END),
        CARDS,
        ("openai/gpt-4o", lambda day: PRICE),
    )
    ledger.close()
    for name in (*COUNTED, *MONEY):
        assert sum(getattr(line, name) for line in found.lines) == getattr(found.total, name), name
    inside = [one for one in records if START <= one.at < END]
    assert found.total.attempts == len(inside)
    assert found.total.api == sum(one.cost for one in inside)
    timed = {pool.engine for pool in found.pools if pool.spent.busy_us}
    assert found.total.own == sum(pool.spent.busy for pool in found.pools if pool.engine in timed)
    assert found.spent == found.total.api + sum(pool.spent.total for pool in found.pools)
    assert len({line.names for line in found.lines}) == len(found.lines)
