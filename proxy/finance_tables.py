"""A spend report for people, scripts, spreadsheets and analysts: the same lines and the same numbers in each form.

The columns are said once, in `columns` and `records`: CSV and Parquet are written from them, and the HTML report shows them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from proxy.finance import COUNTED, MONEY, Line, Pool, Report
from proxy.meaning import dollars, table
from proxy.periods import shown, zone_of

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A cell that begins like this would be computed by a spreadsheet, and callers choose names."""


def spend_table(found: Report) -> str:
    """Lines, what the pools cost idle, and the total, as columns that line up; then what else is to be known."""
    wide = len(found.by)
    head = [*found.by, "attempts", "local", "estimated", "in", "cached", "written", "out", "API", "own", "cost"]
    body = [_cells(line, [name or "-" for name in line.names]) for line in found.lines]
    for pool in found.pools:
        names = [f"idle: {pool.engine}, {pool.utilisation:.1%} busy", *[""] * (wide - 1)]
        idle = dollars(pool.spent.idle)
        body.append([*names, *[""] * 8, idle, idle])
    for row in found.corrections:
        amount = dollars(row.amount)
        body.append([f"correction: {row.name}", *[""] * (wide - 1), *[""] * 7, amount, "", amount])
    last = _cells(found.total, ("total", *[""] * (wide - 1)))
    last[-3:] = [dollars(found.billed), dollars(found.total.own + found.idle), dollars(found.spent)]
    body.append(last)
    if found.against:
        head.append("avoided")
        avoided = [
            *(dollars(line.avoided) for line in found.lines),
            *[""] * (len(found.pools) + len(found.corrections)),
            dollars(found.total.avoided),
        ]
        body = [[*row, cell] for row, cell in zip(body, avoided, strict=True)]
    lines = [spanned(found), table(head, body, names=wide), *words(found)]
    return "\n".join([*lines, *(f"note: {note}" for note in found.notes)])


def spanned(found: Report) -> str:
    """The period in words."""
    return f"{instant_in(found, found.start)} to {instant_in(found, found.end)}"


def instant_in(found: Report, at: int) -> str:
    """A moment in the report's zone."""
    return shown(at, zone_of(found.zone))


def words(found: Report) -> list[str]:
    """What was avoided, what is nobody's, and what the month will have cost: a line each."""
    lines = []
    if found.against:
        own = found.total.own + found.idle
        saved = found.total.avoided - own
        verb = "saved by" if saved >= 0 else "lost to"
        lines.append(
            f"against {found.against}: {dollars(found.total.avoided)} avoided, {dollars(own)} spent "
            f"on own engines: {dollars(abs(saved))} {verb} local serving"
        )
    if found.names_owners and found.unallocated:
        share = found.unallocated / found.total.cost if found.total.cost else 0.0
        lines.append(
            f"unallocated: {dollars(found.unallocated)} ({share:.1%} of what was used) has no name in {', '.join(found.by)}"
        )
    if found.total.estimated_api:
        share = found.total.estimated_api / found.total.api
        lines.append(
            f"estimated: {dollars(found.total.estimated_api)} ({share:.1%}) of the API cost rests on estimated tokens"
        )
    if found.forecast is not None:
        month = found.forecast
        lines.append(
            f"forecast for {month.month}: {dollars(month.expected)}, between {dollars(month.low)} and {dollars(month.high)}; "
            f"{dollars(month.spent)} so far"
        )
    return lines


def _cells(line: Line, names: Sequence[str]) -> list[str]:
    share = f"{line.local / line.attempts:.1%}" if line.attempts else ""
    estimated = f"{line.estimated / line.attempts:.1%}" if line.attempts else ""
    tokens = (line.input, line.cache_read, line.cache_write, line.output)
    money = (line.api, line.own, line.cost)
    return [
        *names, f"{line.attempts:,}", share, estimated, *(f"{count:,}" for count in tokens), *map(dollars, money),
    ]  # fmt: skip


def spend_rows(found: Report) -> dict[str, Any]:
    """For scripts: amounts are pico-dollars."""
    compared = bool(found.against)
    lines = [{**dict(zip(found.by, line.names, strict=True)), **_figures(line, compared)} for line in found.lines]
    month = found.forecast
    return {
        "from": instant_in(found, found.start), "to": instant_in(found, found.end), "zone": found.zone, "by": list(found.by),
        "against": found.against or None, "rows": lines, "pools": [_pool_row(pool) for pool in found.pools],
        "corrections": [
            {"vendor": row.vendor, "model": row.model, "cost": row.amount, "cause": row.cause} for row in found.corrections
        ],
        "total": {
            **_figures(found.total, compared), "idle": found.idle, "corrected": found.corrected, "spent": found.spent,
            "unallocated": found.unallocated if found.names_owners else None,
        },
        "forecast": None if month is None else {name: getattr(month, name) for name in month.__struct_fields__},
        "notes": found.notes,
    }  # fmt: skip


def _pool_row(pool: Pool) -> dict[str, Any]:
    spent = pool.spent
    return {
        "engine": pool.engine, "cost": spent.idle, "busy_cost": spent.busy, "total": spent.total, "marginal": spent.marginal,
        **{name: getattr(spent, name) for name in spent.__struct_fields__},
        **{name: getattr(pool, name) for name in ("engine_us", "guessed_us", "prefill_us", "decode_us", "output")},
        "utilisation": pool.utilisation,
    }  # fmt: skip


def _figures(line: Line, compared: bool) -> dict[str, int]:
    names = [*COUNTED, *(name for name in MONEY if compared or name != "avoided"), "cost"]
    return {name: getattr(line, name) for name in names}


# --- one row a line, one for each pool's idle time, one for each correction ---------------------------------


def money_of(found: Report) -> list[str]:
    """The amounts that a row has."""
    return [*(name for name in MONEY if found.against or name != "avoided"), "cost"]


def columns(found: Report) -> list[str]:
    return ["line", *found.by, *COUNTED, *(f"{name}_usd" for name in money_of(found))]


def records(found: Report) -> list[list[Any]]:
    """Their costs add up to what was spent; amounts are exact decimals of dollars."""
    money = money_of(found)
    rows: list[list[Any]] = []
    idle = [("idle", (pool.engine, *[""] * (len(found.by) - 1)), Line(own=pool.spent.idle)) for pool in found.pools]
    corrected = [
        ("correction", (row.name, *[""] * (len(found.by) - 1)), Line(api=row.amount)) for row in found.corrections
    ]
    for kind, names, line in [*(("usage", line.names, line) for line in found.lines), *idle, *corrected]:
        rows.append(
            [kind, *names, *(getattr(line, name) for name in COUNTED), *(exact(getattr(line, name)) for name in money)]
        )
    return rows


def spend_csv(found: Report) -> str:
    """For spreadsheets."""
    out = io.StringIO()
    write = csv.writer(out)
    write.writerow([_plain(name) for name in columns(found)])
    for row in records(found):
        write.writerow(
            [
                _plain(cell) if isinstance(cell, str) else f"{cell:f}" if isinstance(cell, Decimal) else cell
                for cell in row
            ]
        )
    return out.getvalue()


def sql_columns(found: Report) -> list[tuple[str, str]]:
    """The columns with their SQL types, for Parquet: counts are whole, amounts have every digit."""
    kinds = ["VARCHAR"] * (1 + len(found.by)) + ["BIGINT"] * len(COUNTED) + ["DECIMAL(38, 12)"] * len(money_of(found))
    return list(zip(columns(found), kinds, strict=True))


def exact(amount: int) -> Decimal:
    """Pico-dollars as dollars, every digit."""
    return Decimal((int(amount < 0), tuple(map(int, str(abs(amount)))), -12))


def _plain(name: str) -> str:
    return f"'{name}" if name.startswith(FORMULA) else name
