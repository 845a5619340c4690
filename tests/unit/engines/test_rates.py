"""Money worked out by hand, and the bound that a reservation stands on."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.model import Usage
from engines.rates import METER_LIMIT, Price, PriceList, cost, per_million, read_list, upper_bound

SHIPPED = read_list(Path(__file__).parents[3].joinpath("engines", "prices.json").read_bytes())
GPT_4O = Price("openai/gpt-4o", input=2_500_000, output=10_000_000, cached=1_250_000)
SONNET = Price(
    "anthropic/sonnet",
    input=3_000_000,
    output=15_000_000,
    cached=300_000,
    cache_write=3_750_000,
    cache_write_1h=6_000_000,
)


def test_a_dollar_per_million_tokens_is_a_million_pico_dollars_per_token() -> None:
    assert per_million(1) == 1_000_000
    assert per_million(0.15) == 150_000
    assert per_million("18.75") == 18_750_000
    with pytest.raises(ValueError, match="whole number"):
        per_million("0.0000001")  # would round to nothing, and nothing is free


@pytest.mark.parametrize(
    ("usage", "price", "pico"),
    [
        # 1,000 in at $2.50/M and 500 out at $10/M: $0.0025 + $0.005
        (Usage(input=1_000, output=500), GPT_4O, 7_500_000_000),
        # OpenAI's prompt of 1,000 of which 400 were cached: 600 x $2.50/M + 400 x $1.25/M + 100 x $10/M = $0.003
        (Usage(input=600, cache_read=400, output=100), GPT_4O, 3_000_000_000),
        # 300 of the output were reasoning: billed as output, once
        (Usage(input=0, output=500, reasoning=300), GPT_4O, 5_000_000_000),
        # $0.00003 + 2,000 x $0.30/M + 1,000 x $3.75/M + 100 x $6/M + 20 x $15/M = 0.00003+0.0006+0.00375+0.0006+0.0003
        (Usage(10, 2_000, 1_000, 100, 20), SONNET, 5_280_000_000),
        # a meter without a price of its own costs what input costs; a one-hour write what a write costs
        (Usage(0, 10, 10, 10, 0), Price("m", input=7, output=9), 210),
        (Usage(0, 0, 0, 10, 0), Price("m", input=7, output=9, cache_write=8), 80),
        (Usage(), SONNET, 0),
    ],
)
def test_cost_by_hand(usage: Usage, price: Price, pico: int) -> None:
    assert cost(usage, price) == pico


def test_an_engine_cannot_earn_money_back_or_overflow_the_books() -> None:
    assert cost(Usage(input=-5, output=-(10**30)), GPT_4O) == 0
    assert cost(Usage(input=10**30), GPT_4O) == METER_LIMIT * GPT_4O.input < 1 << 63


def test_the_newest_row_that_holds_on_the_day() -> None:
    old, new = Price("k/m", 10, 20, since="2025-01-01"), Price("k/m", 5, 6, since="2026-01-01")
    prices = PriceList([old, new])
    assert prices.find("k/m", "2025-12-31") is old
    assert prices.find("k/m", "2026-01-01") is new
    assert prices.find("k/m", "2024-12-31") is None
    assert prices.find("k/other", "2026-01-01") is None  # unpriced, not free


def test_the_operators_rows_come_first() -> None:
    own, shipped = Price("k/m", 1, 1), Price("k/m", 5, 6, since="2026-01-01")
    assert PriceList([own], [shipped]).find("k/m", "2026-06-01") is own
    assert PriceList([], [shipped]).find("k/m", "2026-06-01") is shipped


def test_a_price_is_named_by_model_and_date() -> None:
    assert Price("k/m", 1, 1, since="2026-01-01").id == "k/m@2026-01-01"
    assert Price("k/m", 1, 1).id == "k/m"


meters = st.integers(0, 5_000)
rates = st.integers(0, 10_000_000)


@given(
    st.integers(1, 5_000), st.integers(0, 5_000), st.integers(1, 4), st.tuples(rates, rates), st.tuples(*[st.none() | rates] * 3), st.data()
)  # fmt: skip
def test_law_03_no_answer_within_the_request_costs_more_than_the_bound(
    prompt_bytes: int,
    max_output: int,
    choices: int,
    main: tuple[int, int],
    extra: tuple[int | None, ...],
    data: st.DataObject,
) -> None:
    """However the engine splits a prompt of at most as many tokens as bytes over its input meters."""
    price = Price("k/m", main[0], main[1], cached=extra[0], cache_write=extra[1], cache_write_1h=extra[2])
    cuts = sorted(data.draw(st.lists(st.integers(0, prompt_bytes), min_size=3, max_size=3)))
    parts = [b - a for a, b in zip([0, *cuts], [*cuts, prompt_bytes], strict=True)]
    usage = Usage(*parts, output=data.draw(st.integers(0, max_output * choices)))
    assert cost(usage, price) <= upper_bound(prompt_bytes, max_output, choices, price)


def test_law_03_the_bound_covers_what_an_engine_adds_unasked() -> None:
    """A short request with a tool: Anthropic bills some hundreds of tokens of its own prompt beside it."""
    assert cost(Usage(input=160 + 700, output=10), SONNET) <= upper_bound(160, 10, 1, SONNET)


def test_the_shipped_list_is_sound() -> None:
    today = date.today().isoformat()
    assert len(SHIPPED) >= 20
    assert len({(row.model, row.since) for row in SHIPPED}) == len(SHIPPED)
    for row in SHIPPED:
        assert row.model.partition("/")[0] in ("openai", "anthropic")
        assert row.source.startswith("https://")
        assert date.fromisoformat(row.since).isoformat() <= today
        assert row.input > 0
        assert row.output > row.input or "embedding" in row.model
        assert row.cached is None or 0 < row.cached < row.input
        assert row.max_output is not None
        if row.model.startswith("anthropic/"):  # the vendor's rule: a write of 5 minutes costs 1.25, of an hour 2
            assert row.cache_write == row.input * 5 // 4
            assert row.cache_write_1h == row.input * 2
            assert row.cached == row.input // 10
