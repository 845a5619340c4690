"""Spend and the scorecard as pages: one file each, with charts, nothing loaded from elsewhere; for mail, screens and paper.

Every amount that is shown stands in the page exactly, as the value of its `data` element.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cache

import jinja2
from msgspec import Struct

from proxy.charts import Box, bar, columns
from proxy.finance import COUNTED, MONEY, Line, Report
from proxy.finance_tables import exact, spanned
from proxy.meaning import dollars
from proxy.scorecard import Figure, Scorecard
from proxy.scorecard_tables import grouped, times_of
from proxy.scorecard_tables import shown as shown_figure

MOST_BARS = 12
"""Rows of a chart by name; the others are one row."""
MOST_LINES = 2_000
"""Lines of the table: a page with more opens slowly and cannot be mailed; the others are one line."""


class Tile(Struct, frozen=True):
    name: str
    amount: int | None
    text: str
    note: str = ""


class Row(Struct, frozen=True):
    """A bar with its name and its amount; `kind` tints the name where it is no ordinary row."""

    name: str
    boxes: tuple[Box, ...]
    amount: int
    text: str


class Bars(Struct, frozen=True):
    title: str
    rows: list[Row]


def spend_page(found: Report, steps: Report, beside: Sequence[Report]) -> str:
    """The report of `found`, with the same period by day or hour, and by what else costs most."""
    names = ", ".join(found.by)
    return _template("spend.html.j2").render(
        found=found, lines=_lines(found), period=spanned(found), lead=_lead(found), tiles=_tiles(found), whole=_whole(found), names=names,
        wide=columns(_steps(steps), width=1_080, height=250, labels=12) if steps.lines else None,
        narrow=columns(_steps(steps), width=420, height=250, left=52, labels=4) if steps.lines else None,
        month=_month(found), step=steps.by[0], bars=[_bars(report) for report in beside if _telling(report)],
        idle=[(pool, pool.utilisation) for pool in found.pools],
    )  # fmt: skip


def scorecard_page(found: Scorecard) -> str:
    """The scorecard as a page."""
    counts = {
        colour: sum(figure.colour == colour and bool(figure.goal) for figure in found.figures)
        for colour in ("green", "amber", "red", "grey")
    }
    times = [(title, row) for title, row in times_of(found) if row[0].value is not None]
    timed = {figure.name for _, row in times for figure in row}
    groups = [(title, [figure for figure in rows if figure.name not in timed]) for title, rows in grouped(found)]
    return _template("scorecard.html.j2").render(
        found=found, groups=groups, counts=counts, times=times, latency=_latency(found)
    )


def _lines(found: Report) -> list[Line]:
    """The lines of the table; where there are too many, the last is the sum of the rest."""
    if len(found.lines) <= MOST_LINES:
        return found.lines
    head, rest = found.lines[: MOST_LINES - 1], found.lines[MOST_LINES - 1 :]
    last = Line((f"{len(rest):,} further lines", *[""] * (len(found.by) - 1)))
    for line in rest:
        for name in (*COUNTED, *MONEY):
            setattr(last, name, getattr(last, name) + getattr(line, name))
    return [*head, last]


def _lead(found: Report) -> str:
    total = found.total
    own = total.own + found.idle
    words = f"{dollars(found.spent)} was spent: {dollars(found.billed)} for APIs and {dollars(own)} for own engines"
    words += f", {dollars(found.idle)} of it while they were idle." if found.pools else "."
    if total.requests:
        words += f" {total.local / total.attempts:.1%} of {total.attempts:,} attempts were answered locally."
    if found.against:
        saved = total.avoided - own
        words += (
            f" At {found.against} the local answers would have cost {dollars(total.avoided)}: {dollars(abs(saved))} "
        )
        words += "saved." if saved >= 0 else "more was spent."
    return words


def _tiles(found: Report) -> list[Tile]:
    total = found.total
    tiles = [
        Tile("spent", found.spent, dollars(found.spent)),
        Tile("APIs, as billed", found.billed, dollars(found.billed), _estimated(total)),
        Tile("own engines, busy", total.own, dollars(total.own)),
        Tile("own engines, idle", found.idle, dollars(found.idle)),
    ]
    if found.against:
        tiles.append(Tile(f"avoided at {found.against}", total.avoided, dollars(total.avoided)))
    if found.names_owners:
        tiles.append(
            Tile("unallocated", found.unallocated, dollars(found.unallocated), "no name in " + ", ".join(found.by))
        )
    if found.forecast is not None:
        month = found.forecast
        between = f"{dollars(month.low)} to {dollars(month.high)}; {dollars(month.spent)} so far"
        tiles.append(Tile(f"forecast for {month.month}", month.expected, dollars(month.expected), between))
    return tiles


def _estimated(total: Line) -> str:
    if not total.api:
        return ""
    return f"{total.estimated_api / total.api:.1%} on estimated tokens"


def _whole(found: Report) -> Bars:
    """What was spent in its parts, and beside it what all of it would have cost at the API."""
    total = found.total
    spent = [("api", found.billed), ("own", total.own), ("idle", found.idle)]
    rows = [("spent", spent, found.spent)]
    if found.against:
        rows.append(
            (
                f"all at {found.against}",
                [("api", found.billed), ("avoided", total.avoided)],
                found.billed + total.avoided,
            )
        )
    most = max(amount for _, _, amount in rows)
    return Bars("", [Row(name, bar(stack, most), amount, dollars(amount)) for name, stack, amount in rows])


def _month(found: Report) -> Bars | None:
    """The month so far, what is expected of it, and between which amounts it will end."""
    month = found.forecast
    if month is None or month.high <= 0:
        return None
    rest = max(0, month.expected - month.spent)
    spread = f"{dollars(month.low)} to {dollars(month.high)}"
    rows = [
        Row(
            "expected",
            bar([("spent", month.spent), ("rest", rest)], month.high),
            month.expected,
            dollars(month.expected),
        ),
        Row(
            "in 8 of 10 cases",
            bar([("nothing", month.low), ("range", month.high - month.low)], month.high),
            month.high,
            spread,
        ),
    ]
    return Bars(f"The month {month.month}", rows)


def _steps(report: Report) -> list[tuple[str, list[tuple[str, int]], str]]:
    """(label, stack, words) of each day or hour; days on which nothing happened are there, too."""
    lines = {line.names[0]: line for line in report.lines}
    daily = report.by == ("day",)
    step, form = (timedelta(days=1), "%Y-%m-%d") if daily else (timedelta(hours=1), "%Y-%m-%d %H:00")
    moment, last = (datetime.strptime(name, form) for name in (report.lines[0].names[0], report.lines[-1].names[0]))
    rows = []
    while moment <= last:
        name = moment.strftime(form)
        line = lines.get(name, Line((name,)))
        label = f"{moment:%d %b}" if daily else f"{moment:%H:00}"
        says = f"{name}: API {dollars(line.api)}, own {dollars(line.own)}"
        rows.append((label, [("own", line.own), ("api", line.api)], says))
        moment += step
    return rows


def _bars(report: Report) -> Bars:
    """Who or what cost most, and the rest as one row."""
    lines = sorted(report.lines, key=lambda line: (-line.cost, line.names))
    head, rest = (lines, []) if len(lines) <= MOST_BARS else (lines[: MOST_BARS - 1], lines[MOST_BARS - 1 :])
    most = max([*(line.cost for line in head), sum(line.cost for line in rest)], default=0)
    rows = [_row(line.names[0] or f"no {report.by[0]}", line.own, line.api, most) for line in head]
    if rest:
        rows.append(_row(f"{len(rest)} others", sum(line.own for line in rest), sum(line.api for line in rest), most))
    return Bars(f"By {report.by[0]}", rows)


def _row(name: str, own: int, api: int, most: int) -> Row:
    return Row(name, bar([("own", own), ("api", api)], most), own + api, dollars(own + api))


def _telling(report: Report) -> bool:
    """Is there anything to compare?"""
    return len(report.lines) > 1


class Times(Struct, frozen=True):
    """Latency percentiles as bars."""

    title: str
    rows: list[tuple[str, tuple[Box, ...], str]]


def _latency(found: Scorecard) -> list[Times]:
    figures = {figure.name: figure for figure in found.figures}
    charts = []
    for name, title in (("latency", "Arrival to end"), ("first", "Arrival to first token")):
        rows: list[tuple[str, Figure]] = [
            (f"{'API' if place == 'api' else place}, {rank}", figures[f"{name}_{place}_{rank}"])
            for place in ("local", "api") for rank in ("p50", "p95", "p99") if f"{name}_{place}_{rank}" in figures
        ]  # fmt: skip
        most = max((int(figure.value or 0) for _, figure in rows), default=0)
        if most:
            bars = [
                (
                    label,
                    bar([("own" if label.startswith("local") else "api", int(f.value or 0))], most),
                    shown_figure(f),
                )
                for label, f in rows
            ]
            charts.append(Times(title, bars))
    return charts


@cache
def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("proxy", "templates"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(usd=dollars, exact=lambda amount: f"{exact(amount):f}", shown=shown_figure)
    return environment.get_template(name)
