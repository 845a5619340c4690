"""Money worked out by hand, and the bound that a reservation stands on."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.model import Usage
from engines.rates import (
    METER_LIMIT,
    TIERS,
    Price,
    PriceList,
    Rate,
    charge,
    cost,
    has_rates,
    metered,
    per_million,
    priced,
    read_list,
    tier_of,
    upper_bound,
)

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


TIERED = Price(
    "openai/m", input=2_500_000, output=15_000_000, cached=250_000, since="2026-03-05",
    tiers={"flex": Rate(1_250_000, 7_500_000, 130_000), "priority": Rate(5_000_000, 30_000_000, 500_000)},
    long=Rate(5_000_000, 22_500_000, 500_000), long_above=272_000,
)  # fmt: skip


@pytest.mark.parametrize(
    ("usage", "pico", "name"),
    [
        # 1,000 in, 2,000 cached, 100 out: $0.0025 + $0.0005 + $0.0015 = $0.0045; nothing was said of a tier, or standard
        (Usage(input=1_000, cache_read=2_000, output=100), 4_500_000_000, "openai/m@2026-03-05"),
        (Usage(input=1_000, cache_read=2_000, output=100, tier="standard"), 4_500_000_000, "openai/m@2026-03-05"),
        # flex: $0.00125 + $0.00026 + $0.00075
        (Usage(input=1_000, cache_read=2_000, output=100, tier="flex"), 2_260_000_000, "openai/m@2026-03-05+flex"),
        # priority: $0.005 + $0.001 + $0.003
        (
            Usage(input=1_000, cache_read=2_000, output=100, tier="priority"),
            9_000_000_000,
            "openai/m@2026-03-05+priority",
        ),
        # 272,000 of prompt are not above; one token more, cached or not, and everything is dearer
        (Usage(input=272_000), 680_000_000_000, "openai/m@2026-03-05"),
        (Usage(input=271_000, cache_read=1_001, output=10), 1_355_725_500_000, "openai/m@2026-03-05+long"),
        # flex and long: twice $1.25/M, 1.5 times $7.50/M: 300,000 x $2.50/M + 1,000 x $11.25/M
        (Usage(input=300_000, output=1_000, tier="flex"), 761_250_000_000, "openai/m@2026-03-05+flex+long"),
        # nobody says what "scale" costs: the dearest that is known, and the name says so
        (Usage(input=1_000, output=100, tier="other"), 8_000_000_000, "openai/m@2026-03-05+other?"),
        # batch is a discount that this row does not have: it is not more than the standard price
        (Usage(input=1_000, output=100, tier="batch"), 4_000_000_000, "openai/m@2026-03-05"),
    ],
)
def test_tiers_and_long_prompts_by_hand(usage: Usage, pico: int, name: str) -> None:
    assert priced(usage, TIERED) == (pico, name)


def test_sound_is_billed_apart_and_once() -> None:
    # gpt-audio by the list: text $2.50/M in and $10/M out, sound $32/M in and $64/M out; 600 of 1,000 in and 50 of 80 out
    # are sound: 400 x 2.5 + 600 x 32 + 30 x 10 + 50 x 64 = 1,000 + 19,200 + 300 + 3,200 dollars per million
    price = PriceList(SHIPPED).find("openai/gpt-audio", "2026-01-01")
    assert price is not None
    usage = Usage(input=1_000, output=80, audio_input=600, audio_output=50)
    assert cost(usage, price) == 23_700 * 1_000_000
    absurd = Usage(input=10, audio_input=500)  # more sound than there are tokens
    assert cost(absurd, price) == 10 * 32_000_000


def test_tiers_as_vendors_call_them() -> None:
    assert [tier_of(said) for said in (None, "auto", "default", "standard", "flex", "batch", "priority")] == [
        "", "", "standard", "standard", "flex", "batch", "priority",
    ]  # fmt: skip
    assert tier_of("scale") == "other" and tier_of(7) == "" and tier_of("x" * 10_000) == "other"
    assert has_rates(TIERED, "priority") and has_rates(GPT_4O, "flex") and not has_rates(GPT_4O, "priority")


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
    tiers = {
        name: Rate(data.draw(rates), data.draw(rates), data.draw(st.none() | rates))
        for name in data.draw(st.sets(st.sampled_from(TIERS)))
    }
    long = Rate(main[0] * 2, main[1] * 2) if data.draw(st.booleans()) else None
    price = Price(
        "k/m", main[0], main[1], cached=extra[0], cache_write=extra[1], cache_write_1h=extra[2], tiers=tiers, long=long,
        long_above=data.draw(st.integers(0, 6_000)),
    )  # fmt: skip
    asked = data.draw(st.sampled_from(["", "standard", *TIERS, "other"]))
    answered = data.draw(st.sampled_from([asked, "", "standard"]))  # an engine may fall back to its standard tier
    cuts = sorted(data.draw(st.lists(st.integers(0, prompt_bytes), min_size=3, max_size=3)))
    parts = [b - a for a, b in zip([0, *cuts], [*cuts, prompt_bytes], strict=True)]
    usage = Usage(*parts, output=data.draw(st.integers(0, max_output * choices)), tier=answered)
    assert cost(usage, price) <= upper_bound(prompt_bytes, max_output, choices, price, asked)


@given(st.integers(0, 5_000), st.integers(0, 5_000), st.data())
def test_law_03_the_bound_of_sound_covers_any_share_of_it(prompt: int, output: int, data: st.DataObject) -> None:
    price = Price(
        "k/m", 2_500_000, 10_000_000, audio=data.draw(st.none() | rates), audio_output=data.draw(st.none() | rates)
    )
    usage = Usage(
        prompt,
        output=output,
        audio_input=data.draw(st.integers(0, 6_000)),
        audio_output=data.draw(st.integers(0, 6_000)),
    )
    assert cost(usage, price) <= upper_bound(prompt, output, 1, price, audio=True)


def test_law_03_the_bound_covers_what_an_engine_adds_unasked() -> None:
    """A short request with a tool: Anthropic bills some hundreds of tokens of its own prompt beside it."""
    assert cost(Usage(input=160 + 700, output=10), SONNET) <= upper_bound(160, 10, 1, SONNET)


def test_the_shipped_list_is_sound() -> None:
    assert len(SHIPPED) >= 80
    assert len({(row.model, row.since) for row in SHIPPED}) == len(SHIPPED)
    for row in SHIPPED:
        assert row.model.partition("/")[0] in ("openai", "anthropic")
        assert row.source.startswith("https://")
        assert date.fromisoformat(row.since) <= date.fromisoformat(row.read)
        assert row.input > 0
        assert row.output > row.input or "embedding" in row.model
        assert row.cached is None or 0 < row.cached < row.input
        assert row.max_output is not None
        assert set(row.tiers) <= set(TIERS)
        for tier, rate in row.tiers.items():
            assert (rate.input > row.input) is (tier == "priority"), (row.model, tier)
            assert (rate.output > row.output) is (tier == "priority"), (row.model, tier)
        if row.long is not None:
            assert row.long.input > row.input and row.long.output > row.output and row.long_above >= 100_000
        if row.model.startswith("anthropic/"):  # the vendor's rule: a write of 5 minutes costs 1.25, of an hour 2
            assert row.cache_write == row.input * 5 // 4
            assert row.cache_write_1h == row.input * 2
            assert row.cached is not None and row.cached <= row.input // 10


COMMUNITY = Path(__file__).parents[4] / "shared" / "data" / "prices" / "community_prices_2026-07.json"
_NAMES = {
    "input": "input_cost_per_token", "output": "output_cost_per_token", "cached": "cache_read_input_token_cost",
    "cache_write": "cache_creation_input_token_cost", "cache_write_1h": "cache_creation_input_token_cost_above_1hr",
    "audio": "input_cost_per_audio_token", "audio_output": "output_cost_per_audio_token",
}  # fmt: skip
_SUFFIXES = {"batch": "_batches", "flex": "_flex", "priority": "_priority"}


@pytest.mark.skipif(not COMMUNITY.exists(), reason="the community's price list is not here")
def test_the_shipped_list_says_what_the_communitys_list_of_july_2026_says() -> None:
    """Every meter, tier and long rate that both have, of the rows that held at the end of July 2026."""
    theirs = json.loads(COMMUNITY.read_text())
    ours = PriceList(SHIPPED)
    compared = 0
    for name, row in theirs.items():
        if not isinstance(row, dict) or row.get("litellm_provider") not in ("openai", "anthropic"):
            continue
        mine = ours.find(f"{row['litellm_provider']}/{name}", "2026-07-29")  # the day before the next change
        if mine is None:
            continue
        cases = [(mine, "")] + [(mine.tiers[t], s) for t, s in _SUFFIXES.items() if t in mine.tiers]
        cases += (
            [(mine.long, "_above_272k_tokens" if name.startswith("gpt") else "_above_200k_tokens")] if mine.long else []
        )
        for rate, suffix in cases:
            for meter, key in _NAMES.items():
                value = getattr(rate, meter)
                if f"{key}{suffix}" in row and not (suffix and meter == "cache_write_1h"):
                    assert value == round(row[f"{key}{suffix}"] * 1e12), (name, meter, suffix)
                    compared += 1
        if row.get("max_output_tokens") and row.get("mode") == "chat":
            assert mine.max_output == row["max_output_tokens"], name
    assert compared > 400


TOKENS = st.sampled_from([0, 0, 1, 7, METER_LIMIT - 1, METER_LIMIT, METER_LIMIT + 1, -1, 1 << 70])
EACH = st.integers(0, 10**8)
MAYBE = st.none() | EACH


@given(
    st.builds(Usage, TOKENS, TOKENS, TOKENS, TOKENS, TOKENS, audio_input=TOKENS, audio_output=TOKENS),
    st.builds(Rate, EACH, EACH, MAYBE, MAYBE, MAYBE, MAYBE, MAYBE),
)
def test_a_charge_is_the_sum_of_its_meters(usage: Usage, rate: Rate) -> None:
    assert charge(usage, rate) == sum(tokens * each for _, tokens, each in metered(usage, rate))
