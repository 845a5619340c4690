"""What a calendar month will have cost: what was spent, and what its remaining days cost if they are like the last four weeks.
Pure.

API spend: for each remaining day the mean of the complete days among the last 28 (weekdays and weekends apart where there are
two of each); today counts by what is left of it.  The interval is that of a sum of independent days around an estimated mean:
z times the days' standard deviation s times sqrt(n + sum of n_k^2/m_k), n days remaining, n_k of them of a kind of which m_k were
seen; 80 %, z = 1.2816; never below what was spent.  Own pools: the whole month by the rate card, as busy as they were so far.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, timedelta

from msgspec import Struct

from proxy.meaning import dollars

LOOK_BACK = 28
"""Days; four of each weekday."""
FEWEST = 7
"""Complete days without which nothing is said."""
_Z = 1.2816  # the 90th percentile of the normal distribution: a tenth is left out on either side
METHOD = (
    "API: spent so far, and for each day left the mean of the last {days} complete days{apart}; 80 % interval from their "
    "spread (standard deviation {deviation}). Own pools: the whole month by the rate card"
)


class Forecast(Struct, frozen=True):
    """Of a month, in pico-dollars: `spent` so far, `expected` at its end, which lies between `low` and `high` in 8 of 10 cases."""

    month: str
    spent: int
    expected: int
    low: int
    high: int
    days: int  # seen
    how: str


def forecast(
    daily: Mapping[date, int],
    today: date,
    left_of_today: float,
    last: date,
    *,
    api: int,
    own_spent: int,
    own_month: int,
) -> Forecast | str:
    """The month that ends with day `last`; where too little was seen, why there is no forecast.

    `daily` is API spend by complete day, its zeros included; `api` is the month's so far, `own_spent` and `own_month` are what
    pools cost until now and in the whole month.
    """
    seen = {day: amount for day, amount in daily.items() if 0 < (today - day).days <= LOOK_BACK}
    if len(seen) < FEWEST:
        return f"no forecast: {len(seen)} complete days were seen, and it takes {FEWEST}"
    kinds = {
        True: [a for d, a in seen.items() if d.weekday() >= 5],
        False: [a for d, a in seen.items() if d.weekday() < 5],
    }
    apart = min(map(len, kinds.values())) >= 2
    groups = kinds if apart else {True: list(seen.values()), False: list(seen.values())}
    means = {kind: sum(values) / len(values) for kind, values in groups.items()}
    left = {True: 0.0, False: 0.0}
    left[today.weekday() >= 5] += left_of_today
    for ahead in range(1, (last - today).days + 1):
        left[(today + timedelta(days=ahead)).weekday() >= 5] += 1.0
    squares = sum((amount - means[day.weekday() >= 5]) ** 2 for day, amount in seen.items())
    deviation = math.sqrt(squares / max(1, len(seen) - (2 if apart else 1)))
    if apart:
        spread = sum(left.values()) + sum(left[kind] ** 2 / len(groups[kind]) for kind in left)
    else:
        spread = sum(left.values()) + sum(left.values()) ** 2 / len(seen)
    more = sum(left[kind] * means[kind] for kind in left)
    swing = _Z * deviation * math.sqrt(spread)
    how = METHOD.format(
        days=len(seen), apart=", weekdays and weekends apart" if apart else "", deviation=dollars(round(deviation))
    )
    fixed = api + own_month
    return Forecast(
        month=last.strftime("%Y-%m"),
        spent=api + own_spent,
        expected=fixed + round(more),
        low=fixed + max(0, round(more - swing)),
        high=fixed + round(more + swing),
        days=len(seen),
        how=how,
    )
