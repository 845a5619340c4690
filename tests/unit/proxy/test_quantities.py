"""Amounts with units: exact where they are right, and a word on what was meant where they are wrong."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.quantities import MOST_MONEY, PICO, Wrong, age, count, duration, money, monthly, share, size, token_price

RIGHT: list[tuple[Callable[[Any], Any], str, Any]] = [
    (duration, "2s", 2.0), (duration, "1500ms", 1.5), (duration, "5m", 300.0), (duration, "1h", 3600.0), (duration, "30d", 2_592_000.0),
    (duration, "0.5 s", 0.5), (duration, "0s", 0.0), (duration, " 2s ", 2.0),
    (age, "6y", 6 * 366 * 86_400.0), (age, "2190d", 2190 * 86_400.0), (age, "0.5 y", 183 * 86_400.0), (age, "100y", 100 * 366 * 86_400.0),
    (size, "64MB", 64_000_000), (size, "1KiB", 1024), (size, "1.5 GiB", 1_610_612_736),
    (share, "5%", 0.05), (share, "0.5%", 0.005), (share, "100%", 1.0), (share, "0%", 0.0),
    (money, "$20000", 20_000 * PICO), (money, "$ 20_000", 20_000 * PICO), (money, "$0.000000000001", 1), (money, f"${MOST_MONEY}", MOST_MONEY * PICO),
    (monthly, "$500/month", 500 * PICO), (monthly, "$ 0.50/month", PICO // 2), (monthly, "$0/month", 0),
    (count, "80M", 80_000_000), (count, "1.5k", 1_500), (count, "20,000", 20_000), (count, "2B", 2_000_000_000), (count, "0", 0),
    (token_price, "$2.50/M", 2_500_000), (token_price, "$0.000001/M", 1), (token_price, "$0/M", 0),
]  # fmt: skip

WRONG: list[tuple[Callable[[Any], Any], Any, str]] = [
    (duration, 2, "such as 2s"), (duration, "2", "such as 2s"), (duration, 0.5, "such as 0.5s"), (duration, "5sec", "write 5s"),
    (duration, "5 seconds", "write 5s"), (duration, "10 Min", "write 10m"), (duration, "5S", "write 5s"), (duration, "2 parsecs", "such as 2s"),
    (duration, "-2s", "such as 2s"), (duration, "2e3s", "such as 2s"), (duration, "9999d", "such as 2s"), (duration, True, "such as 2s"),
    (duration, None, "such as 2s"), (duration, [2], "such as 2s"), (duration, "٢s", "such as 2s"), (duration, "2s\n3s", "such as 2s"),
    (age, 6, "such as 6y"), (age, "6 years", "write 6y"), (age, "30 days", "write 30d"), (age, "12m", "such as 6y"), (age, "0y", "such as 6y"),
    (age, "101y", "such as 6y"), (age, "for ever", "such as 6y"),
    (size, 64, "such as 64MB"), (size, 64_000_000, "such as 64MB"), (size, "64mb", "write 64MB"), (size, "64M", "write 64MB"),
    (size, "9999999GB", "such as 64MB"),
    (share, 0.05, "write 5%"), (share, 5, "write 5%"), (share, "120%", "such as 5%"), (share, "$5", "such as 5%"),
    (money, 20000, "write $20000"), (money, "20,000", "write $20000"), (money, "$20,000", "write $20000"), (money, "$20k", "write $20000"),
    (money, "20000$", "write $20000"), (money, "20000 USD", "write $20000"), (money, "$1.5M", "write $1500000"),
    (money, "20000€", "such as $20000"), (money, "$-5", "such as $20000"), (money, True, "such as $20000"), (money, "$9000001", ""),
    (money, "$0.0000000000001", ""),
    (monthly, "$500", "write $500/month"), (monthly, 500, "write $500/month"), (monthly, "$500/mo", "write $500/month"),
    (monthly, "$6000/year", "write $500/month"), (monthly, "$100/year", "such as $500/month"), (monthly, "free", "such as $500/month"),
    (monthly, "$9000001/month", ""), (count, "many", "such as 80M"), (count, "0.5", "such as 80M"), (count, 5, "such as 80M"),
    (count, "2000000B", "such as 80M"),
    (token_price, "$2.50", "write $2.50/M"), (token_price, 10, "write $10/M"), (token_price, "$0.0000025", "write $2.50/M"),
    (token_price, 2.5e-06, "write $2.50/M"), (token_price, "$2.50/1M", "write $2.50/M"), (token_price, "$10/m", "write $10/M"),
    (token_price, "$0.002/K", "write $2/M"), (token_price, "2.50/MTok", "write $2.50/M"), (token_price, "free", "such as $2.50/M"),
    (token_price, "$0.0000005/M", ""),
]  # fmt: skip

WRITTEN = [row for row in WRONG if row[2].startswith("write")]


@pytest.mark.parametrize(("parse", "text", "amount"), RIGHT, ids=[f"{row[0].__name__} {row[1]}" for row in RIGHT])
def test_amounts_are_exact(parse: Callable[[Any], Any], text: str, amount: Any) -> None:
    assert parse(text) == amount


@pytest.mark.parametrize(("parse", "value", "hint"), WRONG, ids=[f"{row[0].__name__} {row[1]!a}" for row in WRONG])
def test_what_is_no_amount_is_told_what_would_be_one(parse: Callable[[Any], Any], value: Any, hint: str) -> None:
    with pytest.raises(Wrong, match=r"needs a unit|is written") as wrong:
        parse(value)
    assert wrong.value.hint == hint


@pytest.mark.parametrize(("parse", "value", "hint"), WRITTEN, ids=[f"{row[0].__name__} {row[1]!a}" for row in WRITTEN])
def test_what_is_suggested_is_an_amount(parse: Callable[[Any], Any], value: Any, hint: str) -> None:
    assert parse(hint.removeprefix("write ")) is not None


@given(st.decimals(min_value=0, max_value=MOST_MONEY, places=6))
def test_money_is_never_rounded(amount: Decimal) -> None:
    assert money(f"${amount:f}") == amount * PICO
    assert token_price(f"${amount:f}/M") == amount * 1_000_000


@given(st.text(max_size=30), st.sampled_from([duration, size, share, money, monthly, count, token_price]))
def test_other_text_is_refused_and_not_repeated(text: str, parse: Callable[[Any], Any]) -> None:
    marked = f"k{text}é"  # no amount begins or ends like this
    with pytest.raises(Wrong) as wrong:
        parse(marked)
    assert "é" not in f"{wrong.value}{wrong.value.hint}"
