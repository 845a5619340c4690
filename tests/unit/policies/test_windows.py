"""Windows: their names, and that they tile time in every zone."""

from __future__ import annotations

import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from policies.windows import BUCKETS, CALENDAR, LATE, bucket_seconds, expires, kind_of, window_at, words_of

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = [
    None, *map(ZoneInfo, (
        "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "America/Havana", "America/Asuncion",
        "Pacific/Apia", "Asia/Beirut", "Africa/Casablanca", "Asia/Kathmandu", "America/St_Johns", "Antarctica/Troll",
    )),
]  # fmt: skip


def at(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("kind", "zone", "now", "name", "hours"),
    [
        ("month", None, "2026-02-03T04:05:06Z", "2026-02", 28 * 24),
        ("month", BERLIN, "2026-02-28T23:30:00Z", "2026-03", 31 * 24 - 1),  # already March there; the clock skips an hour
        ("week", None, "2027-01-01T00:00:00Z", "2026-W53", 7 * 24),
        ("day", None, "2026-02-03T04:05:06Z", "2026-02-03", 24),
        ("day", BERLIN, "2026-03-29T12:00:00Z", "2026-03-29", 23),
        ("day", BERLIN, "2026-10-25T12:00:00Z", "2026-10-25", 25),
        ("hour", None, "2026-02-03T04:05:06Z", "2026-02-03T04", 1),
        ("hour", BERLIN, "2026-10-25T00:30:00Z", "2026-10-25T02+02:00", 1),
        ("hour", BERLIN, "2026-10-25T01:30:00Z", "2026-10-25T02+01:00", 1),  # the same hour again
        ("hour", ZoneInfo("Asia/Kolkata"), "2026-02-03T04:05:06Z", "2026-02-03T09+05:30", 1),
        ("minute", BERLIN, "2026-02-03T04:05:06Z", "2026-02-03T04:05", 1 / 60),
    ],
)  # fmt: skip
def test_windows_of_the_calendar(kind: str, zone: ZoneInfo | None, now: str, name: str, hours: float) -> None:
    window = window_at(kind, at(now), zone)
    assert window.id == name
    assert window.end - window.start == hours * 3600
    assert window.start <= at(now) < window.end
    assert kind_of(name) == kind


def test_an_unknown_window_is_said() -> None:
    with pytest.raises(ValueError, match="fortnight"):
        window_at("fortnight", 0.0)


@given(
    st.sampled_from((*CALENDAR, "r60", "r86400", "r2592000")),
    st.sampled_from(ZONES),
    st.floats(0, 4_000_000_000),
)
@example("day", ZoneInfo("America/Asuncion"), at("2024-03-24T02:30:00Z"))  # 23:30 for the second time
@example("hour", ZoneInfo("Australia/Lord_Howe"), at("2026-04-04T15:10:00Z"))  # half an hour comes twice
@example("day", ZoneInfo("Pacific/Apia"), at("2011-12-30T09:59:59Z"))  # a day is left out
def test_law_03_windows_tile_time(kind: str, zone: ZoneInfo | None, now: float) -> None:
    """Every moment lies in one window; the next begins where it ends, under another name."""
    window = window_at(kind, now, zone)
    assert window.start <= now < window.end
    following = window_at(kind, window.end, zone)
    assert following.start == pytest.approx(window.end, abs=1e-6)
    assert following.id != window.id
    assert window_at(kind, max(now, (now + window.end) / 2 - 1e-6), zone).id == window.id
    assert kind_of(window.id) == kind
    assert expires(window.id) >= window.end + LATE


@given(st.sampled_from(("r60", "r3600", "r86400")), st.floats(0, 4_000_000_000), st.floats(0, 1))
def test_law_03_a_rolling_window_counts_at_least_its_length(kind: str, now: float, part: float) -> None:
    length = int(kind[1:])
    counted = {window_at(kind, now).id, *window_at(kind, now).earlier}
    assert len(counted) == BUCKETS + 1
    assert window_at(kind, max(0.0, now - length * part)).id in counted or now < length
    assert window_at(kind, now + length + bucket_seconds(length) * 1.001).id not in counted
    assert window_at(kind, now).id not in window_at(kind, now + length + bucket_seconds(length) * 1.001).earlier


def test_in_words() -> None:
    assert [words_of(kind) for kind in ("month", "r86400", "r2592000", "r5400", "r90")] == [
        "month", "rolling 24h", "rolling 30d", "rolling 90m", "rolling 90s",
    ]  # fmt: skip
