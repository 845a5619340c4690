"""The scorecard for people and scripts.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxy.meaning import dollars, table
from proxy.scorecard import MEASURED, PLACES, Figure, Scorecard

GROUPS = {"cost": "Cost", "traffic": "Where requests went", "service": "How they were served", "quality": "Quality"}
_ANSI = {"green": "32", "amber": "33", "red": "31"}


def grouped(found: Scorecard) -> list[tuple[str, list[Figure]]]:
    return [(title, [row for row in found.figures if row.group == name]) for name, title in GROUPS.items()]


def shown(figure: Figure) -> str:
    """A value with its unit, for people."""
    value = figure.value
    if value is None:
        return "never" if figure.name == "payback" and not figure.how.startswith("missing") else "-"
    match figure.unit:
        case "pico-dollars":
            return dollars(int(value))
        case "share":
            return (
                f"{value:+.1%}"
                if figure.name == "month_change"
                else f"{value:.2%}"
                if 0.99 < value < 1
                else f"{value:.1%}"
            )
        case "us":
            return f"{value / 1_000_000:,.2f} s" if value >= 1_000_000 else f"{value / 1_000:,.0f} ms"
        case "months":
            return f"{value:,.1f} months"
        case "count":
            return f"{value:,.0f}"
        case _:
            return f"{value:,.1f}" if value >= 10 else f"{value:,.3f}"


def scorecard_words(found: Scorecard, *, colour: bool) -> str:
    """A table for each group; the mark before a figure says how it stands to its goal."""
    lines = [found.period]
    together = {row[0].name: (title, row) for title, row in times_of(found)}
    follow = {figure.name for _, row in together.values() for figure in row[1:]}
    for title, rows in grouped(found):
        body = [_cells(row, together) for row in rows if row.name not in follow]
        text = table(("", title, "", "goal", "how"), body, numbers=False)
        lines += [
            "",
            *(
                _painted(line, row[0]) if colour else line
                for line, row in zip(text.splitlines(), (("",), *body), strict=True)
            ),
        ]
    return "\n".join([*lines, "", *(f"note: {note}" for note in found.notes)]).rstrip()


def _cells(row: Figure, together: Mapping[str, tuple[str, list[Figure]]]) -> tuple[str, ...]:
    """One figure, or three percentiles."""
    if row.name in together:
        title, figures = together[row.name]
        name, _, how = title.partition(": ")
        return "", f"{name}, p50, p95, p99", ", ".join(map(shown, figures)), "", how
    return row.colour if row.goal else "", row.title, shown(row), row.goal, row.how


def _painted(line: str, colour: str) -> str:
    code = _ANSI.get(colour)
    return f"\x1b[{code}m{line[: len(colour)]}\x1b[0m{line[len(colour) :]}" if code else line


def scorecard_rows(found: Scorecard) -> dict[str, Any]:
    """For scripts: amounts are pico-dollars, times microseconds, shares fractions of one."""
    return {
        "period": found.period, "against": found.against or None, "notes": found.notes,
        "figures": [{name: getattr(row, name) for name in row.__struct_fields__} for row in found.figures],
    }  # fmt: skip


def times_of(found: Scorecard) -> list[tuple[str, list[Figure]]]:
    """Percentiles beside each other: (what was measured, p50, p95 and p99)."""
    figures = {figure.name: figure for figure in found.figures}
    return [
        (
            f"{MEASURED[name][0]}, {where.strip() or 'all'}: {figures[f'{name}_{place}_p50'].how}",
            [figures[f"{name}_{place}_{rank}"] for rank in ("p50", "p95", "p99")],
        )
        for name in MEASURED
        for place, where in PLACES.items()
        if f"{name}_{place}_p50" in figures
    ]
