"""What is asked of the ledger's lines: sums by any of its dimensions, when engines were busy, how requests went.

A dimension is a column, a part of the calendar (day, hour, month, in a time zone), or `tag:NAME`, the value of one tag.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from engines.rates import METER_LIMIT

Zone = tuple[tuple[int, int], ...]
"""(from, seconds east of UTC), in order: a time zone over a period, as `proxy.periods.zone_over` gives it."""
UTC_ZONE: Zone = ((0, 0),)
MICRO = 1_000_000
DAY = 86_400
METERS = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output", "reasoning")
FORCED = ("saturated", "unhealthy", "failed")
"""Reasons of overflow that are load or failure; any other is a choice: of a model, a size, a capability."""
PROMPT_SPEED = 20
"""Tokens that an engine is taken to read in the time in which it writes one, where nothing was measured."""
DIMENSIONS = {
    "day": "day", "hour": "hour", "month": "month",
    **{
        name: name
        for name in ("organisation", "tenant", "team", "project", "key", "user", "model", "target", "boundary", "class", "route",
                     "surface", "overflow", "ending", "quality", "price")
    },
    "tag": "replace(tags, char(10), ', ')",
}  # fmt: skip
"""What sums can be grouped by beside `tag:NAME`, and how a line says it."""
_SPLIT = 1_000_000
"""Costs are summed in two parts: what an organisation spends in a year can pass the 64 bits of pico-dollars, $9.2 million."""
_TAG = re.compile(r"tag:([A-Za-z][A-Za-z0-9_.-]{0,31})", re.ASCII)
_CALENDAR = {"day": (DAY, "%Y-%m-%d"), "hour": (3_600, "%Y-%m-%d %H:00"), "month": (DAY, "%Y-%m")}


def known(name: str) -> bool:
    """Can sums be grouped by this?"""
    return name in DIMENSIONS or _TAG.fullmatch(name) is not None


def sums(
    db: sqlite3.Connection,
    by: Sequence[str],
    start: int,
    end: int,
    *,
    cuts: Sequence[int] | None,
    zone: Zone,
    speeds: Mapping[str, int],
    above: int = 0,
) -> list[dict[str, Any]]:
    """Attempts that ended in [start, end), summed by these dimensions, and always apart by target and boundary, and by what
    lies between `cuts` (moments at which a price changes; None: by day in UTC), and by whether the prompt has more tokens
    than `above` (0: not apart), so that each sum has one price and one rate card.  Tokens are those that are believed (see `engines.rates`).

    `prefill_us` and `decode_us` are parts of the engine time: as they were measured, and of what was not (`guessed_us`) by
    the tokens, where an engine reads `speeds` of them (by engine's name) while it writes one.  `untimed` counts attempts
    that an engine took and whose time is not known, `unpriced` those that used tokens without a price.
    Raises `KeyError` for an unknown dimension.
    """
    groups = [_group(name, zone) for name in by]
    segment = f"at / {DAY * MICRO}" if cuts is None else _case("at", [(cut, n + 1) for n, cut in enumerate(cuts)], 0)
    long = f"input + cache_read + cache_write_5m + cache_write_1h > {int(above)}" if above else "0"
    keys = {f"g{place}": group for place, group in enumerate(groups)}
    keys |= {"segment": segment, "target": "target", "place": "boundary", "long": long}
    read = "(max(input, 0) + max(cache_write_5m, 0) + max(cache_write_1h, 0))"
    share = f"min(1.0, 1.0 * {read} / max(1, {read} + {_speed(speeds)} * max(output, 0)))"
    values = {
        "attempts": "1", "requests": "attempt = 0", "estimated": "quality != 'exact'",
        **{meter: f"min(max({meter}, 0), {METER_LIMIT})" for meter in METERS},
        "cost": f"cost % {_SPLIT}", "cost_high": f"cost / {_SPLIT}",
        "estimated_cost": f"CASE quality WHEN 'exact' THEN 0 ELSE cost % {_SPLIT} END",
        "estimated_cost_high": f"CASE quality WHEN 'exact' THEN 0 ELSE cost / {_SPLIT} END",
        "engine_us": "engine_us",
        "prefill_us": f"CASE WHEN timing != '' THEN prefill_us WHEN boundary = 'local' THEN CAST(engine_us * {share} AS INTEGER) ELSE 0 END",
        "decode_us": "CASE timing WHEN '' THEN engine_us ELSE prefill_us + decode_us END",  # less prefill_us, below
        "guessed_us": "CASE timing WHEN '' THEN engine_us ELSE 0 END",
        "untimed": "engine_us = 0 AND (input > 0 OR output > 0)",
        "unpriced": "price = '' AND cost = 0 AND (input > 0 OR output > 0)",
    }  # fmt: skip
    rows = _grouped(db, keys, values, start, end)
    return [_sum(row, by, len(groups), (*list(keys)[len(groups) :], *values), cuts) for row in rows]


def _grouped(
    db: sqlite3.Connection,
    keys: Mapping[str, str],
    values: Mapping[str, str],
    start: int,
    end: int,
    *,
    where: str = "1",
) -> list[tuple[Any, ...]]:
    """Sums by keys: added up in a table of the groups, which takes half the time of GROUP BY, since that sorts every line."""
    db.execute("DROP TABLE IF EXISTS temp.grouped")
    db.execute(
        f"CREATE TEMP TABLE grouped ({', '.join([*keys, *values])}, PRIMARY KEY ({', '.join(keys)})) WITHOUT ROWID"
    )
    db.execute(
        f"INSERT INTO grouped SELECT {', '.join([*keys.values(), *values.values()])} FROM attempts WHERE at >= ? AND at < ? AND {where}"
        f" ON CONFLICT DO UPDATE SET {', '.join(f'{name} = {name} + excluded.{name}' for name in values)}",
        (start, end),
    )
    return db.execute("SELECT * FROM grouped").fetchall()


def daily(db: sqlite3.Connection, start: int, end: int, zone: Zone) -> list[tuple[str, int]]:
    """(ISO day, what clouds billed) of each day in [start, end) on which they were asked."""
    values = {"low": f"cost % {_SPLIT}", "high": f"cost / {_SPLIT}"}
    rows = _grouped(db, {"day": _group("day", zone)}, values, start, end, where="boundary != 'local'")
    return [(_label("day", day), low + _SPLIT * high) for day, low, high in rows]


def _sum(
    row: Sequence[Any], by: Sequence[str], size: int, names: Sequence[str], cuts: Sequence[int] | None
) -> dict[str, Any]:
    found: dict[str, Any] = dict(zip(names, row[size:], strict=True))
    found["where"] = found.pop("place")
    found["decode_us"] -= found["prefill_us"]
    for name in ("cost", "estimated_cost"):
        found[name] += _SPLIT * found.pop(f"{name}_high")
    labels = [_label(name, value) for name, value in zip(by, row[:size], strict=True)]
    segment = found.pop("segment")
    moment = segment * DAY if cuts is None else cuts[segment - 1] // MICRO if segment else 0
    return {
        "names": tuple(labels),
        "date": datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d"),
        "engine": found["target"].partition("/")[0],
        **found,
    }


def _group(name: str, zone: Zone) -> str:
    if name in _CALENDAR:
        return (
            f"(at / {MICRO} + {_case('at', zone[1:], zone[0][1])}) / {_CALENDAR[name][0]}"
            if name != "month"
            else (f"strftime('%Y-%m', at / {MICRO} + {_case('at', zone[1:], zone[0][1])}, 'unixepoch')")
        )
    tag = _TAG.fullmatch(name)
    if tag is None:
        return f'"{name}"' if DIMENSIONS[name] == name else DIMENSIONS[name]
    begin = f"char(10) || '{tag[1]}='"
    lines = "char(10) || tags || char(10)"
    place = f"instr({lines}, {begin})"
    after = f"substr({lines}, {place} + {len(tag[1]) + 2})"
    return f"CASE {place} WHEN 0 THEN '' ELSE substr({after}, 1, instr({after}, char(10)) - 1) END"


def _label(name: str, value: Any) -> str:
    if name in _CALENDAR and name != "month":
        seconds, form = _CALENDAR[name]
        return datetime.fromtimestamp(value * seconds, UTC).strftime(form)
    return str(value)


def _case(column: str, steps: Sequence[tuple[int, int]], first: int) -> str:
    """A value that changes at moments: of the last (moment, value) that is not after the column."""
    if not steps:
        return str(int(first))
    return (
        "CASE "
        + " ".join(f"WHEN {column} >= {int(at)} THEN {int(v)}" for at, v in reversed(steps))
        + f" ELSE {int(first)} END"
    )


def _speed(speeds: Mapping[str, int]) -> str:
    """Tokens read for each that is written, by engine."""
    if not speeds:
        return str(PROMPT_SPEED)
    arms = " ".join(f"WHEN '{name.replace(chr(39), chr(39) * 2)}' THEN {int(speed)}" for name, speed in speeds.items())
    return f"(CASE substr(target, 1, instr(target, '/') - 1) {arms} ELSE {PROMPT_SPEED} END)"


def intervals(db: sqlite3.Connection, start: int, end: int) -> Iterator[tuple[str, int, int]]:
    """(engine, from, to) of each local attempt that ended in [start, end), within it; by engine and start."""
    yield from db.execute(
        """SELECT substr(target, 1, instr(target, '/') - 1), max(at - engine_us, ?), at FROM attempts
           WHERE at >= ? AND at < ? AND boundary = 'local' AND engine_us > 0 ORDER BY 1, 2""",
        (start, start, end),
    )


# --- how requests went -------------------------------------------------------------------------------------


class Spread(Struct, frozen=True):
    """Percentiles of a time, in microseconds, by nearest rank; `count` of what."""

    count: int
    p50: int = 0
    p95: int = 0
    p99: int = 0


class Traffic(Struct, frozen=True):
    """Requests of a period that an engine was asked for, and those that were refused before.  Copies for experiments are
    nobody's requests."""

    requests: int
    answered: int  # an attempt completed
    abandoned: int  # by the client, before any did
    rejected: int  # by every engine as wrong: the client's own mistake
    failed: int  # the rest
    refused: dict[str, int]  # by code, of requests that no engine was asked for
    local: int  # nothing but local engines were asked
    forced: dict[str, int]  # requests that left for want of a local engine, by reason
    chosen: int  # requests that left for another reason
    held: int  # sensitive by the rules: to be kept local, or redacted
    held_left: int  # of these, sent out as they were
    held_redacted: int  # of these, sent out under pseudonyms
    found: int  # requests in which any identifier was found
    found_local: int
    latency: dict[str, Spread]  # all, local, api: arrival to end of completed requests
    first: dict[str, Spread]  # arrival to the first event of streamed ones
    output: int  # tokens
    busiest_requests: int  # of one hour
    busiest_output: int


_REQUEST = f"""
SELECT {{most}}(ending = 'completed') ok, {{most}}(ending = 'abandoned') gone,
       {{least}}(ending = 'failed' AND status BETWEEN 400 AND 499 AND status NOT IN (401, 403, 404, 408, 429)) wrong,
       {{most}}(boundary != 'local') out,
       {{most}}(CASE WHEN boundary != 'local' AND overflow IN {FORCED} THEN overflow ELSE '' END) reason,
       {{most}}(action NOT IN ('', 'allow')) held, {{most}}(found > 0) found,
       {{most}}(boundary != 'local' AND redacted = 0) bare
FROM attempts WHERE at >= :start AND at < :end AND surface != 'shadow' AND request {{which}} IN (SELECT request FROM repeated)"""
_REQUESTS = f"""
SELECT count(*), sum(ok), sum(NOT ok AND gone), sum(NOT ok AND NOT gone AND wrong), sum(NOT ok AND NOT gone AND NOT wrong),
       sum(NOT out), sum(out AND reason = ''), sum(held), sum(held AND bare), sum(held AND NOT bare AND out),
       sum(found), sum(found AND NOT out), {", ".join(f"sum(reason = '{word}')" for word in FORCED)}
FROM ({_REQUEST.format(most="", least="", which="NOT")}
UNION ALL {_REQUEST.format(most="max", least="min", which="")} GROUP BY request)"""
"""Requests with one attempt, which are most, need no grouping: it sorts."""


def traffic(db: sqlite3.Connection, start: int, end: int) -> Traffic:
    """How the requests of a period went.  One of several attempts counts once."""
    span = {"start": start, "end": end}
    db.execute("CREATE TEMP TABLE IF NOT EXISTS repeated (request TEXT PRIMARY KEY) WITHOUT ROWID")
    db.execute("DELETE FROM repeated")
    db.execute(
        "INSERT OR IGNORE INTO repeated SELECT request FROM attempts WHERE at >= :start AND at < :end AND attempt > 0",
        span,
    )
    counts = [value or 0 for value in db.execute(_REQUESTS, span).fetchone()]
    requests, answered, abandoned, rejected, failed, local, chosen, held, bare, redacted, found, found_local, *left = (
        counts
    )
    refused = dict(
        db.execute(
            """SELECT code, count(*) FROM refusals r WHERE at >= :start AND at < :end AND NOT EXISTS
               (SELECT 1 FROM attempts a WHERE a.request = r.request) GROUP BY 1""",
            span,
        ).fetchall()
    )
    latency, first = _times(db, span)
    values = {"answered": "ending = 'completed'", "output": f"min(max(output, 0), {METER_LIMIT})"}
    hours = [row[1:] for row in _grouped(db, {"hour": f"at / {3_600 * MICRO}"}, values, start, end)]
    return Traffic(
        requests=requests, answered=answered, abandoned=abandoned, rejected=rejected, failed=failed, refused=refused,
        local=local, forced={word: count for word, count in zip(FORCED, left, strict=True) if count}, chosen=chosen,
        held=held, held_left=bare, held_redacted=redacted, found=found, found_local=found_local,
        latency=latency, first=first, output=sum(row[1] for row in hours),
        busiest_requests=max((row[0] for row in hours), default=0), busiest_output=max((row[1] for row in hours), default=0),
    )  # fmt: skip


def _times(db: sqlite3.Connection, span: dict[str, int]) -> tuple[dict[str, Spread], dict[str, Spread]]:
    totals: dict[str, list[int]] = {"all": [], "local": [], "api": []}
    firsts: dict[str, list[int]] = {"all": [], "local": [], "api": []}
    for home, total, first in db.execute(
        """SELECT boundary = 'local', total_us, CASE WHEN stream THEN first_us ELSE 0 END FROM attempts
           WHERE at >= :start AND at < :end AND ending = 'completed' AND total_us > 0 AND surface != 'shadow'""",
        span,
    ):
        totals["local" if home else "api"].append(total)
        if first > 0:
            firsts["local" if home else "api"].append(first)
    for times in (totals, firsts):
        times["all"] = times["local"] + times["api"]
    return {name: spread(times) for name, times in totals.items()}, {
        name: spread(times) for name, times in firsts.items()
    }


def spread(times: Sequence[int]) -> Spread:
    """Percentiles by nearest rank: a value that was measured, never one between two."""
    ordered = sorted(times)
    count = len(ordered)
    if not count:
        return Spread(0)
    at = [ordered[-(-count * rank // 100) - 1] for rank in (50, 95, 99)]
    return Spread(count, *at)
