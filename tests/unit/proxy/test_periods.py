"""Periods as people type them, in time zones whose clocks change."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from engines.ratecard import MICRO
from proxy.periods import day_of, midnight, months, period, shown, zone_of, zone_over
from proxy.quantities import Wrong

VIENNA = ZoneInfo("Europe/Vienna")


def at(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=UTC).timestamp()) * MICRO  # type: ignore[arg-type,misc]


NOW = at(2026, 11, 23, 14, 30, 5)


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ((None, None, None), at(2026, 11, 1, 5), NOW),
        (("month", None, None), at(2026, 11, 1), NOW),
        (("day", None, None), at(2026, 11, 23), NOW),
        (("hour", None, None), at(2026, 11, 23, 14), NOW),
        (("30m", None, None), at(2026, 11, 23, 14, 0, 5), NOW),
        ((None, "2026-10-01", "2026-10-31"), at(2026, 10, 1), at(2026, 11, 1)),
        ((None, "2026-11-20", None), at(2026, 11, 20), NOW),
        ((None, "2026-11-20", "2026-11-30"), at(2026, 11, 20), NOW),  # the rest of it was not spent yet
        ((None, None, "2026-11-02"), at(2026, 11, 1, 5), at(2026, 11, 3)),
        ((None, "2026-11-20T06:30", "2026-11-20T07:00"), at(2026, 11, 20, 6, 30), at(2026, 11, 20, 7)),
        ((None, "2026-11-20T06:30+02:00", None), at(2026, 11, 20, 4, 30), NOW),
        ((None, "2d", None), at(2026, 11, 21, 14, 30, 5), NOW),
    ],
)
def test_periods(asked: tuple[str | None, str | None, str | None], start: int, end: int) -> None:
    assert period(*asked, since=at(2026, 11, 1, 5), now=NOW) == (start, end)


def test_an_empty_ledger_has_an_empty_period() -> None:
    assert period(None, None, None, since=None, now=NOW) == (NOW, NOW)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("day", "2026-11-01", None), "two ways"),
        (("week", None, None), "no window"),
        (("0s", None, None), "empty"),
        ((None, "2026-11-31", None), "no day"),
        ((None, "tomorrow", None), "no day"),
        ((None, "2026-11-02", "2026-11-01"), "empty"),
        ((None, "2027-01-01", None), "empty"),
    ],
)
def test_periods_typed_wrong(asked: tuple[str | None, str | None, str | None], words: str) -> None:
    with pytest.raises(Wrong, match=words):
        period(*asked, since=0, now=NOW)


# --- time zones -----------------------------------------------------------------------------------------------


def test_a_day_begins_at_midnight_where_somebody_lives() -> None:
    assert midnight("2026-11-23", VIENNA) == at(2026, 11, 22, 23)
    assert midnight("2026-07-01", VIENNA) == at(2026, 6, 30, 22)
    assert day_of(at(2026, 11, 22, 23, 30), VIENNA).isoformat() == "2026-11-23"
    assert period(None, "2026-11-20", "2026-11-20", since=0, now=NOW, zone=VIENNA) == (
        at(2026, 11, 19, 23),
        at(2026, 11, 20, 23),
    )
    assert period("month", None, None, since=0, now=NOW, zone=VIENNA) == (at(2026, 10, 31, 23), NOW)
    assert period(None, "2026-11-20T12:00", None, since=0, now=NOW, zone=VIENNA) == (at(2026, 11, 20, 11), NOW)


def test_a_zone_is_its_offsets_and_when_they_change() -> None:
    # 29 March and 25 October 2026, 01:00 UTC: Directive 2000/84/EC, articles 2 and 3
    assert zone_over(VIENNA, at(2026, 1, 1), at(2026, 12, 31)) == (
        (at(2026, 1, 1), 3_600), (at(2026, 3, 29, 1), 7_200), (at(2026, 10, 25, 1), 3_600),
    )  # fmt: skip
    assert zone_over(UTC, 0, NOW) == ((0, 0),)
    assert zone_over(VIENNA, NOW, NOW) == ((NOW, 3_600),)


def test_months_are_whole_and_follow_each_other() -> None:
    found = months(at(2026, 11, 23), at(2027, 1, 1), UTC)
    assert found == [(at(2026, 11, 1), at(2026, 12, 1)), (at(2026, 12, 1), at(2027, 1, 1))]
    assert months(at(2026, 11, 23), at(2026, 11, 24), VIENNA) == [(at(2026, 10, 31, 23), at(2026, 11, 30, 23))]


@pytest.mark.parametrize("name", ["Europe/Wien", "../etc/passwd", "", "/etc/localtime", "CET-1\0"])
def test_what_is_no_zone_is_said_to_be_none(name: str) -> None:
    with pytest.raises(Wrong, match="no time zone"):
        zone_of(name)


def test_zones_by_name() -> None:
    assert zone_of(None) is zone_of("utc") is UTC
    assert shown(at(2026, 11, 23), zone_of("Europe/Vienna")) == "2026-11-23 01:00:00 CET"
