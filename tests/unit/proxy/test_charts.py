"""Charts as data: heights and widths are as the amounts are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.charts import bar, columns, nice, short

DOLLAR = 1_000_000_000_000


@given(st.lists(st.tuples(st.integers(0, 10**16), st.integers(0, 10**16)), max_size=70))
def test_a_column_is_as_high_as_its_amount(rows: list[tuple[int, int]]) -> None:
    made = columns(
        [(f"d{n}", [("own", own), ("api", api)], "words") for n, (own, api) in enumerate(rows)], width=800, height=200
    )
    most = max((own + api for own, api in rows), default=0)
    for box in made.boxes:
        assert (
            box.x >= 0 and box.x + box.width <= made.width and box.y >= 11.9 and box.y + box.height <= made.bottom + 0.1
        )
    assert made.ticks[0].text == "$0"
    assert all(a.at > b.at for a, b in zip(made.ticks, made.ticks[1:], strict=False))
    if most:
        tallest = max(sum(box.height for box in made.boxes if box.x == x) for x in {box.x for box in made.boxes})
        top = made.bottom - made.ticks[-1].at
        assert top * 0.49 <= tallest <= top + 0.1  # the axis ends not far above it
    assert len(made.steps) <= 10


def test_pieces_of_a_bar_follow_each_other() -> None:
    first, second = bar([("api", 30), ("own", 0), ("idle", 20)], 100)
    assert (first.kind, first.x, first.width) == ("api", 0, 300)
    assert (second.kind, second.x, second.width) == ("idle", 300, 200)
    assert bar([("api", 0)], 0) == ()


@given(st.integers(1, 10**18))
def test_a_nice_number_is_not_below_and_not_far_above(amount: int) -> None:
    assert amount <= nice(amount) <= max(2.5 * amount, 10)


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "$0"),
        (2_000_000_000, "$0.002"),
        (25 * DOLLAR, "$25"),
        (1_500 * DOLLAR, "$1.5K"),
        (20_000 * DOLLAR, "$20K"),
        (3_000_000 * DOLLAR, "$3M"),
    ],
)
def test_amounts_on_an_axis(amount: int, text: str) -> None:
    assert short(amount) == text
