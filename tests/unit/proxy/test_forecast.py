"""The month's forecast, worked out by hand."""

from __future__ import annotations

import math
from datetime import date, timedelta

from proxy.forecast import Forecast, forecast

DOLLAR = 1_000_000_000_000
TODAY = date(2026, 11, 25)  # a Wednesday; five days are left: Thursday and Friday, the weekend, Monday
LAST = date(2026, 11, 30)


def days(count: int, weekday: int, weekend: int) -> dict[date, int]:
    found = (TODAY - timedelta(days=ahead) for ahead in range(1, count + 1))
    return {day: (weekend if day.weekday() >= 5 else weekday) * DOLLAR for day in found}


def made(daily: dict[date, int], **given: int) -> Forecast:
    asked = {"api": 200 * DOLLAR, "own_spent": 10 * DOLLAR, "own_month": 12 * DOLLAR, **given}
    found = forecast(daily, TODAY, 0.5, LAST, **asked)
    assert isinstance(found, Forecast)
    return found


def test_days_that_are_all_alike_leave_no_doubt() -> None:
    found = made(days(28, 10, 2))
    # half of today, Thursday, Friday and Monday at $10, Saturday and Sunday at $2: 35 + 4
    assert found.expected == (200 + 12 + 39) * DOLLAR
    assert found.low == found.high == found.expected
    assert (found.spent, found.month, found.days) == (210 * DOLLAR, "2026-11", 28)


def test_the_interval_is_that_of_a_sum_around_an_estimated_mean() -> None:
    daily = days(28, 10, 2)
    weekdays = sorted(day for day in daily if day.weekday() < 5)
    for place, day in enumerate(weekdays):  # $9 and $11 in turns; weekends are as before
        daily[day] += DOLLAR if place % 2 else -DOLLAR
    found = made(daily)
    assert found.expected == 251 * DOLLAR
    deviation = math.sqrt(20 * 1 / 26)  # 20 weekdays a dollar off, 28 days and two means
    swing = 1.2816 * deviation * math.sqrt(5.5 + 3.5**2 / 20 + 2**2 / 8)
    assert abs((found.high - found.expected) / DOLLAR - swing) < 1e-9
    assert abs((found.expected - found.low) / DOLLAR - swing) < 1e-9


def test_it_is_never_below_what_was_spent() -> None:
    daily = days(10, 0, 0)
    daily[TODAY - timedelta(days=1)] = 1_000 * DOLLAR
    found = made(daily)
    assert found.low == 212 * DOLLAR  # the whole of the pools' month is certain
    assert found.high > found.expected > found.low


def test_too_few_days_say_nothing() -> None:
    few = forecast(days(6, 1, 1), TODAY, 0.5, LAST, api=0, own_spent=0, own_month=0)
    assert few == "no forecast: 6 complete days were seen, and it takes 7"
    long_ago = {TODAY - timedelta(days=ahead): DOLLAR for ahead in range(29, 60)}
    assert isinstance(forecast(long_ago, TODAY, 0.5, LAST, api=0, own_spent=0, own_month=0), str)


def test_on_the_last_day_little_is_left() -> None:
    found = forecast(days(28, 10, 2), LAST, 0.25, LAST, api=300 * DOLLAR, own_spent=0, own_month=0)
    assert isinstance(found, Forecast)
    assert found.expected == 302_500_000_000_000  # a quarter of a Monday
