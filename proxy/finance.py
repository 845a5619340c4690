"""What the ledger's sums mean in money: cloud as it was billed, local by the rate card, idle apart.  Pure.

A line is a group of attempts.  The busy cost of each pool is allocated to the lines by the engine time of their
attempts; what it cost to have the pool idle is a line of its own, and so the total is what was spent.  All amounts are
integer pico-dollars, all times microseconds.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from operator import itemgetter
from typing import Any

from msgspec import Struct

from compliance.model import LOCAL
from engines.ratecard import MICRO, PeriodCost, RateCard, allocate, busy_time, period_cost
from engines.rates import Price
from proxy.meaning import dollars, instant, table
from proxy.quantities import PICO, Wrong, duration

DAY = 86_400 * MICRO
EPOCH = date(1970, 1, 1).toordinal()
COUNTED = ("attempts", "local", "estimated", "input", "cache_read", "cache_write", "output", "reasoning")
MONEY = ("api", "own", "avoided")
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A cell that begins like this would be computed by a spreadsheet, and callers choose names."""


class Line(Struct):
    """A group's sums.  `api` is what clouds billed, `own` its share of the pools' busy cost, `avoided` what the local part
    would have cost at the counterfactual's price."""

    names: tuple[str, ...] = ()
    attempts: int = 0
    local: int = 0
    estimated: int = 0
    input: int = 0  # tokens that no cache held
    cache_read: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0  # part of output
    api: int = 0
    own: int = 0
    avoided: int = 0

    @property
    def cost(self) -> int:
        return self.api + self.own


class Pool(Struct, frozen=True):
    """A pool of one's own over the period."""

    engine: str
    spent: PeriodCost


class Report(Struct, frozen=True):
    """`total` is the lines' sum; with what the pools cost idle it is all that was spent."""

    by: tuple[str, ...]
    start: int
    end: int
    lines: list[Line]
    total: Line
    pools: list[Pool]
    against: str  # the counterfactual's name; empty: none
    notes: list[str]

    @property
    def idle(self) -> int:
        return sum(pool.spent.idle for pool in self.pools)

    @property
    def spent(self) -> int:
        return self.total.cost + self.idle


def report(
    by: Sequence[str],
    period: tuple[int, int],
    sums: Sequence[dict[str, Any]],
    intervals: Iterable[tuple[str, int, int]],
    cards: Mapping[str, RateCard],
    against: tuple[str, Callable[[str], Price | None]] | None = None,
) -> Report:
    """The ledger's `sums` by `by`, valued.  `intervals` are its local attempts by engine and start.

    `against` is a model's name, and its price on an ISO day: what the local answers would have cost there.
    """
    start, end = period
    lines: dict[tuple[str, ...], Line] = {}
    total = Line()
    for row in sums:
        line = lines.setdefault(row["names"], Line(row["names"]))
        for sink in (line, total):
            _add(sink, row)
            if against is not None and row["where"] == LOCAL:
                sink.avoided += _avoided(row, against[1])
    busy = _busy(intervals)
    pools = [Pool(name, period_cost(card, end - start, busy.get(name, 0))) for name, card in cards.items()]
    for pool in pools:
        rows = [row for row in sums if row["where"] == LOCAL and row["engine"] == pool.engine]
        for row, part in zip(rows, allocate(pool.spent.busy, [row["engine_us"] for row in rows]), strict=True):
            lines[row["names"]].own += part
            total.own += part
    ordered = sorted(lines.values(), key=lambda line: (-line.cost, -line.attempts, line.names))
    if by[0] == "day":
        ordered.sort(key=lambda line: line.names[0])
    notes = list(_notes(sums, cards, against))
    return Report(tuple(by), start, end, ordered, total, pools, against[0] if against else "", notes)


def _add(line: Line, row: dict[str, Any]) -> None:
    line.attempts += row["attempts"]
    line.local += row["attempts"] if row["where"] == LOCAL else 0
    line.estimated += row["estimated"]
    line.input += row["input"]
    line.cache_read += row["cache_read"]
    line.cache_write += row["cache_write_5m"] + row["cache_write_1h"]
    line.output += row["output"]
    line.reasoning += row["reasoning"]
    line.api += row["cost"]


def _avoided(row: dict[str, Any], price: Callable[[str], Price | None]) -> int:
    found = price(row["date"])
    return 0 if found is None else value(row, found)


def value(row: Mapping[str, int], price: Price) -> int:
    """What a sum's tokens cost at a price: as `engines.rates.cost` has it for one answer, whose bound the ledger has applied."""
    write = price.input if price.cache_write is None else price.cache_write
    return (
        row["input"] * price.input
        + row["cache_read"] * (price.input if price.cached is None else price.cached)
        + row["cache_write_5m"] * write
        + row["cache_write_1h"] * (write if price.cache_write_1h is None else price.cache_write_1h)
        + row["output"] * price.output
    )


def _busy(intervals: Iterable[tuple[str, int, int]]) -> dict[str, int]:
    """How long each engine had at least one attempt."""
    groups = itertools.groupby(intervals, key=itemgetter(0))
    return {engine: busy_time((begin, finish) for _, begin, finish in rows) for engine, rows in groups}


def _notes(
    sums: Sequence[dict[str, Any]],
    cards: Mapping[str, RateCard],
    against: tuple[str, Callable[[str], Price | None]] | None,
) -> Iterable[str]:
    """What is missing, so that nobody takes a figure for more than it is."""
    local = [row for row in sums if row["where"] == LOCAL]
    bare = [row for row in local if row["engine"] not in cards]
    if bare:
        names = ", ".join(sorted({row["engine"] for row in bare}))
        count = sum(row["attempts"] for row in bare)
        yield f"local attempts without a rate card: {count:,} ({names}); what they cost is not known and not in the sums"
    if untimed := sum(row["untimed"] for row in local):
        yield f"local attempts without engine time: {untimed:,}; nothing is allocated to them"
    if unpriced := sum(row["unpriced"] for row in sums if row["where"] != LOCAL):
        yield f"cloud attempts that used tokens without a price: {unpriced:,}; they are not in the sums"
    if against is not None:
        days = {row["date"] for row in local if against[1](row["date"]) is None}
        if days:
            yield f"{against[0]} has no price before {max(days)}: days on which nothing counts as avoided: {len(days)}"
        if local:
            yield "avoided cost counts tokens as the local engine did, cached ones as cached; another tokenizer differs"


# --- for people, scripts and spreadsheets ------------------------------------------------------------------


def spend_table(found: Report) -> str:
    """Lines, what the pools cost idle, and the total, as columns that line up."""
    wide = len(found.by)
    head = [*found.by, "attempts", "local", "estimated", "in", "cached", "written", "out", "API", "own", "cost"]
    body = [_cells(line, line.names) for line in found.lines]
    for pool in found.pools:
        share = pool.spent.busy_us / pool.spent.period_us if pool.spent.period_us else 0.0
        names = [f"idle: {pool.engine}, {share:.1%} busy", *[""] * (wide - 1)]
        idle = dollars(pool.spent.idle)
        body.append([*names, *[""] * 8, idle, idle])
    last = _cells(found.total, ("total", *[""] * (wide - 1)))
    last[-2:] = [dollars(found.total.own + found.idle), dollars(found.spent)]
    body.append(last)
    if found.against:
        head.append("avoided")
        idle_rows = len(found.pools)
        avoided = [*(dollars(line.avoided) for line in found.lines), *[""] * idle_rows, dollars(found.total.avoided)]
        body = [[*row, cell] for row, cell in zip(body, avoided, strict=True)]
    lines = [f"{instant(found.start)} to {instant(found.end)}", table(head, body, names=wide)]
    if found.against:
        saved = found.total.avoided - found.total.own - found.idle
        words = "saved by" if saved >= 0 else "lost to"
        lines.append(
            f"against {found.against}: {dollars(found.total.avoided)} avoided, {dollars(found.total.own + found.idle)} spent "
            f"on own engines: {dollars(abs(saved))} {words} local serving"
        )
    return "\n".join([*lines, *(f"note: {note}" for note in found.notes)])


def _cells(line: Line, names: Sequence[str]) -> list[str]:
    share = f"{line.local / line.attempts:.1%}" if line.attempts else ""
    estimated = f"{line.estimated / line.attempts:.1%}" if line.attempts else ""
    tokens = (line.input, line.cache_read, line.cache_write, line.output)
    money = (line.api, line.own, line.cost)
    return [
        *(name or "-" if place == 0 else name for place, name in enumerate(names)),
        f"{line.attempts:,}", share, estimated, *(f"{count:,}" for count in tokens), *map(dollars, money),
    ]  # fmt: skip


def spend_rows(found: Report) -> dict[str, Any]:
    """For scripts: amounts are pico-dollars."""
    lines = [
        {**dict(zip(found.by, line.names, strict=True)), **_figures(line, bool(found.against))} for line in found.lines
    ]
    idle = [
        {"engine": pool.engine, "cost": pool.spent.idle, "busy_cost": pool.spent.busy, "total": pool.spent.total,
         "marginal": pool.spent.marginal,
         **{name: getattr(pool.spent, name) for name in pool.spent.__struct_fields__}}
        for pool in found.pools
    ]  # fmt: skip
    total = {**_figures(found.total, bool(found.against)), "idle": found.idle, "spent": found.spent}
    return {
        "from": instant(found.start), "to": instant(found.end), "by": list(found.by), "against": found.against or None,
        "rows": lines, "pools": idle, "total": total, "notes": found.notes,
    }  # fmt: skip


def _figures(line: Line, compared: bool) -> dict[str, int]:
    names = [*COUNTED, *(MONEY if compared else MONEY[:2]), "cost"]
    return {name: getattr(line, name) for name in names}


def spend_csv(found: Report) -> str:
    """One row a line and one for each pool's idle time; their costs add up to what was spent, in dollars and exactly."""
    out = io.StringIO()
    write = csv.writer(out)
    money = [*(MONEY if found.against else MONEY[:2]), "cost"]
    write.writerow(["line", *found.by, *COUNTED, *(f"{name}_usd" for name in money)])
    for line in found.lines:
        counts = [getattr(line, name) for name in COUNTED]
        write.writerow(["usage", *map(_plain, line.names), *counts, *(_exact(getattr(line, name)) for name in money)])
    for pool in found.pools:
        line = Line(own=pool.spent.idle)
        names = [_plain(pool.engine), *[""] * (len(found.by) - 1)]
        write.writerow(["idle", *names, *[0] * len(COUNTED), *(_exact(getattr(line, name)) for name in money)])
    return out.getvalue()


def _plain(name: str) -> str:
    return f"'{name}" if name.startswith(FORMULA) else name


def _exact(amount: int) -> str:
    sign = "-" if amount < 0 else ""
    return f"{sign}{abs(amount) // PICO}.{abs(amount) % PICO:012d}"


def tokens_cost(tokens_in: int, tokens_out: int, price: Price) -> int:
    """Stated volumes at a price; nothing of it is cached."""
    row = {"input": tokens_in, "output": tokens_out, "cache_read": 0, "cache_write_5m": 0, "cache_write_1h": 0}
    return value(row, price)


# --- periods -----------------------------------------------------------------------------------------------


def period(window: str | None, first: str | None, last: str | None, *, since: int | None, now: int) -> tuple[int, int]:
    """[start, end) in microseconds since the epoch, no later than now; raises `Wrong`.

    `window` is month, day or hour (of the calendar, in UTC), or a duration that ends now; `first` and `last` are ISO days,
    both included.  Without any: from the ledger's first attempt, `since`.
    """
    if window is not None and (first is not None or last is not None):
        raise Wrong("--window and --from or --to are two ways to say it", "leave one of them out")
    if window is not None:
        return _window(window, now), now
    start = _day_start(first) if first is not None else since if since is not None else now
    end = now if last is None else min(now, _day_start(last) + DAY)
    if start >= end and (first is not None or last is not None):
        raise Wrong("the period is empty", "--from is before --to, and not in the future")
    return min(start, end), end


def _window(window: str, now: int) -> int:
    moment = datetime.fromtimestamp(now // MICRO, UTC).replace(minute=0, second=0)
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


def _day_start(text: str) -> int:
    try:
        return (date.fromisoformat(text).toordinal() - EPOCH) * DAY
    except ValueError:
        raise Wrong(f"{text!r} is no day", "written as 2026-01-31") from None
