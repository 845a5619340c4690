"""Periods of a report, in a time zone: what people type, as moments; and the calendar of a zone as steps.  Pure.

Moments are microseconds since the epoch.  A day begins when the zone's clocks say midnight.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from engines.ratecard import MICRO
from proxy.quantities import Wrong, duration

DAY = 86_400 * MICRO
Zone = tuple[tuple[int, int], ...]
"""(from, seconds east of UTC), in order; the first holds for all that is before."""


def zone_of(name: str | None) -> tzinfo:
    """A time zone by its name in the IANA database; none: UTC.  Raises `Wrong`."""
    if name is None or name.upper() == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ValueError, OSError):  # ZoneInfoNotFoundError is a KeyError with a message of its own
        raise Wrong(f"{name!r} is no time zone", "such as Europe/Vienna, America/New_York or UTC") from None
    except KeyError:
        raise Wrong(f"{name!r} is no time zone", "such as Europe/Vienna, America/New_York or UTC") from None


def period(
    window: str | None, first: str | None, last: str | None, *, since: int | None, now: int, zone: tzinfo = UTC
) -> tuple[int, int]:
    """[start, end), no later than now; raises `Wrong`.

    `window` is month, day or hour of the calendar, or a duration that ends now.  `first` and `last` are ISO days, both
    included, or moments (2026-01-31T12:00), or for `first` a duration.  Without any: from the ledger's first attempt, `since`.
    """
    if window is not None and (first is not None or last is not None):
        raise Wrong("--window and --since or --until are two ways to say it", "leave one of them out")
    if window is not None:
        return _window(window, now, zone), now
    start = _moment(first, now, zone, after=False) if first is not None else since if since is not None else now
    end = now if last is None else min(now, _moment(last, now, zone, after=True))
    if start >= end and (first is not None or last is not None):
        raise Wrong("the period is empty", "--since is before --until, and not in the future")
    return min(start, end), end


def zone_over(zone: tzinfo, start: int, end: int) -> Zone:
    """A zone's offsets over a period: one, and another for each change of its clocks."""
    steps = [(start, _offset(zone, start))]
    at = start
    while at < end:
        after = min(at + 7 * DAY, end)
        if _offset(zone, after) != steps[-1][1]:
            steps.append(_change(zone, at, after))
        at = after
    return tuple(steps)


def months(start: int, end: int, zone: tzinfo = UTC) -> list[tuple[int, int]]:
    """The calendar months that a period touches, each whole."""
    found = []
    moment = datetime.fromtimestamp(start // MICRO, zone)
    year, month = moment.year, moment.month
    while (begin := _at(date(year, month, 1), zone)) < end:
        year, month = (year, month + 1) if month < 12 else (year + 1, 1)
        found.append((begin, _at(date(year, month, 1), zone)))
    return found


def midnight(day: str, zone: tzinfo = UTC) -> int:
    """When an ISO day begins."""
    return _at(date.fromisoformat(day), zone)


def day_of(at: int, zone: tzinfo = UTC) -> date:
    """The day at a moment."""
    return datetime.fromtimestamp(at // MICRO, zone).date()


def shown(at: int, zone: tzinfo = UTC) -> str:
    """A moment for people, with the zone's offset."""
    moment = datetime.fromtimestamp(at // MICRO, zone)
    return moment.strftime("%Y-%m-%d %H:%M:%SZ") if zone is UTC else moment.strftime("%Y-%m-%d %H:%M:%S %Z")


def _at(day: date, zone: tzinfo) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()) * MICRO


def _offset(zone: tzinfo, at: int) -> int:
    return int((datetime.fromtimestamp(at // MICRO, zone).utcoffset() or timedelta()).total_seconds())


def _change(zone: tzinfo, before: int, after: int) -> tuple[int, int]:
    """When the offset becomes what it is at `after`, to the second."""
    wanted = _offset(zone, after)
    low, high = before // MICRO, after // MICRO
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _offset(zone, middle * MICRO) == wanted else (middle, high)
    return high * MICRO, wanted


def _window(window: str, now: int, zone: tzinfo) -> int:
    moment = datetime.fromtimestamp(now // MICRO, zone).replace(minute=0, second=0)
    starts = {"hour": moment, "day": moment.replace(hour=0), "month": moment.replace(hour=0, day=1)}
    if window in starts:
        return int(starts[window].timestamp()) * MICRO
    try:
        length = round(duration(window) * MICRO)
    except Wrong:
        raise Wrong(f"{window!r} is no window", "month, day, hour, or a duration such as 30d") from None
    if not length:
        raise Wrong("the period is empty", "such as 30d")
    return now - length


def _moment(text: str, now: int, zone: tzinfo, *, after: bool) -> int:
    """A day's begin (or, `after`, its end), a moment, or so long before now."""
    try:
        day = date.fromisoformat(text)
        return _at(day + timedelta(days=1) if after else day, zone)
    except (ValueError, OverflowError):
        pass
    try:
        moment = datetime.fromisoformat(text)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp()) * MICRO
    except (ValueError, OverflowError, OSError):
        pass
    try:
        return now - round(duration(text) * MICRO)
    except Wrong:
        raise Wrong(f"{text!r} is no day", "written as 2026-01-31, 2026-01-31T12:00, or 30d before now") from None
