"""Windows of budgets: of the calendar in a time zone, or rolling.  Pure; times are seconds since the epoch.

A calendar window is named by its local time: `2026-11`, `2026-W48` (ISO 8601), `2026-11-24`, `2026-11-24T13`,
`2026-11-24T13:05`.  A day is as long as the clock makes it: 23 or 25 hours where summer time begins or ends.  An
hour outside UTC carries its offset (`2026-10-25T02+01:00`), because a local hour can come twice in a night.
Minutes are those of UTC: zones differ by quarters of an hour.

A rolling window is counted in `BUCKETS` buckets (`r86400@20781`: length in seconds, number of the bucket).  The
bucket of now and that many before it count: an amount is felt for at least the window's length, and at most one
bucket longer.  So in no stretch of time as long as the window is more spent than the limit.
"""

from __future__ import annotations

import datetime
import re
from bisect import bisect_left

from msgspec import Struct

CALENDAR = ("month", "week", "day", "hour", "minute")
BUCKETS = 30
"""Buckets of a rolling window: it is precise to one of them, 3 % of its length."""
DAY = 86_400
MINUTE = 60
LATE = 2 * DAY
"""After a window's end its account is kept so long: attempts of its last moments may settle late."""
_ZONES = 14 * 3600
"""No zone lies further from UTC."""
_ROLLING = re.compile(r"r([0-9]+)@(-?[0-9]+)")
_UTC = datetime.UTC


class Window(Struct, frozen=True):
    """One window: `start <= now < end`.  `earlier` are the buckets that count beside a rolling window's own.

    `following` is the bucket after it.  A slice of it may be out already, fetched ahead or by a worker whose clock is ahead:
    who asks for one of these two must see the other, or both would be granted what is left.
    """

    id: str
    start: float
    end: float
    earlier: tuple[str, ...] = ()
    following: tuple[str, ...] = ()


def window_at(kind: str, now: float, zone: datetime.tzinfo | None = None) -> Window:
    """The window of a kind (`month` ... `minute`, or `r86400`) that a time falls into; without a zone, in UTC."""
    if kind.startswith("r"):
        return _rolling(int(kind[1:]), now)
    if kind == "minute":
        return _aligned(now, MINUTE, "%Y-%m-%dT%H:%M")
    if kind == "hour":
        return _aligned(now, 3600, "%Y-%m-%dT%H") if zone is None else _local_hour(now, zone)
    zone = zone or _UTC
    day = datetime.datetime.fromtimestamp(now, zone).date()
    if kind == "day":
        name, first, after = day.isoformat(), day, day + datetime.timedelta(days=1)
    elif kind == "week":
        year, week, weekday = day.isocalendar()
        first = day - datetime.timedelta(days=weekday - 1)
        name, after = f"{year:04d}-W{week:02d}", first + datetime.timedelta(days=7)
    elif kind == "month":
        first = day.replace(day=1)
        name, after = f"{day.year:04d}-{day.month:02d}", _next_month(first)
    else:
        raise ValueError(f"no window called {kind!r}: there are {', '.join(CALENDAR)} and rolling ones")
    return Window(name, _midnight(first, zone), _midnight(after, zone))


def kind_of(window: str) -> str:
    """The kind of a window, from its id."""
    if window.startswith("r"):
        return window.partition("@")[0]
    if "T" in window:
        return "minute" if re.fullmatch(r"[0-9-]+T\d\d:\d\d", window) else "hour"
    if "W" in window:
        return "week"
    return {7: "month", 10: "day"}[len(window)]


def expires(window: str) -> int:
    """From when a window's account cannot count any more, whatever its zone was: seconds since the epoch."""
    match = _ROLLING.fullmatch(window)
    if match is not None:
        length, number = int(match[1]), int(match[2])
        return int((number + 1) * bucket_seconds(length)) + length + LATE
    kind = kind_of(window)
    if kind == "week":
        first = datetime.date.fromisoformat(f"{window}-1") + datetime.timedelta(days=7)
    elif kind == "month":
        first = _next_month(datetime.date.fromisoformat(f"{window}-01"))
    else:
        first = datetime.date.fromisoformat(window[:10]) + datetime.timedelta(days=1)
    return int(_midnight(first, _UTC)) + _ZONES + LATE


def seconds_of(kind: str) -> float:
    """About how long a window of a kind is."""
    if kind.startswith("r"):
        return float(kind[1:])
    return {"month": 30.4375 * DAY, "week": 7.0 * DAY, "day": float(DAY), "hour": 3600.0, "minute": 60.0}[kind]


def bucket_seconds(length: int) -> float:
    """How long a bucket of a rolling window is."""
    return length / BUCKETS


def words_of(kind: str) -> str:
    """As a configuration says it: `month`, `rolling 24h`."""
    if not kind.startswith("r"):
        return kind
    length = int(kind[1:])
    for seconds, unit in ((DAY, "d"), (3600, "h"), (60, "m")):
        if length % seconds == 0 and length != DAY * (unit == "d"):  # 24h, as one says
            return f"rolling {length // seconds}{unit}"
    return f"rolling {length}s"


def _rolling(length: int, now: float) -> Window:
    width = bucket_seconds(length)
    number = int(now // width)
    earlier = tuple([f"r{length}@{before}" for before in range(number - BUCKETS, number)])
    following = (f"r{length}@{number + 1}",)
    return Window(f"r{length}@{number}", number * width, (number + 1) * width, earlier, following)


def _aligned(now: float, seconds: int, form: str) -> Window:
    start = now // seconds * seconds
    return Window(datetime.datetime.fromtimestamp(start, _UTC).strftime(form), start, start + seconds)


def _local_hour(now: float, zone: datetime.tzinfo) -> Window:
    """An hour of the local clock; one that a change of the clock cuts is shorter."""
    offset = _offset(now, zone)
    start = (now + offset) // 3600 * 3600 - offset
    end = start + 3600
    at = datetime.datetime.fromtimestamp(now, zone)
    sign, minutes = "-" if offset < 0 else "+", abs(offset) // 60
    name = f"{at:%Y-%m-%dT%H}{sign}{minutes // 60:02d}:{minutes % 60:02d}"
    if _offset(start, zone) != offset:
        start = _change(start, now, zone)
    if _offset(end - 1, zone) != offset:
        end = _change(now, end - 1, zone)
    return Window(name, start, end)


def _change(before: float, after: float, zone: datetime.tzinfo) -> float:
    """The first whole second in (before, after] at which the offset is that of `after`."""
    last = _offset(after, zone)
    first = int(before)
    seconds = range(first, int(after) + 1)
    return float(first + bisect_left(seconds, True, key=lambda at: _offset(at, zone) == last))


def _offset(at: float, zone: datetime.tzinfo) -> int:
    delta = datetime.datetime.fromtimestamp(at, zone).utcoffset()
    return int(delta.total_seconds()) if delta is not None else 0


def _midnight(day: datetime.date, zone: datetime.tzinfo) -> float:
    """When a day begins: where the clock skips midnight, with what comes after it (PEP 495 reads it so)."""
    return datetime.datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()


def _next_month(first: datetime.date) -> datetime.date:
    return (first + datetime.timedelta(days=32)).replace(day=1)
