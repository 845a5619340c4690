"""`spillway spend`: what was spent, on what and by whom."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from proxy.cli_ledger import (
    AgainstOption,
    Asked,
    SinceOption,
    UntilOption,
    WindowOption,
    ZoneOption,
    books,
    rebuilt,
    written,
)
from proxy.terminal import ConfigOption, JsonOption, StateOption, fail, located

if TYPE_CHECKING:
    from proxy.books import Books
    from proxy.finance import Report

app = typer.Typer()


@app.command(
    epilog="**Examples**\n\n`spillway spend --by day,team --window month`\n\n"
    "`spillway spend --by model --against openai/gpt-4o --csv spend.csv`\n\n"
    "`spillway spend --by tag:cost-centre --since 2026-01-01 --until 2026-01-31 --tz Europe/Vienna --json`\n\n"
    "`spillway spend --by team --against openai/gpt-4o --html spend.html` makes a report that can be mailed and printed"
)
def spend(
    by: Annotated[
        str,
        typer.Option(
            help="One or more of day, hour, month, tenant, team, project, key, user, tag, tag:NAME, model, target, boundary, "
            "organisation, class, route, surface, overflow, ending, quality, price."
        ),
    ] = "target",
    since: SinceOption = None,
    until: UntilOption = None,
    window: WindowOption = None,
    tz: ZoneOption = None,
    against: AgainstOption = None,
    csv: Annotated[Path | None, typer.Option(help="Write the lines to this file as CSV, too.")] = None,
    parquet: Annotated[
        Path | None, typer.Option(help="The same as Parquet; it needs pip install 'spillway[parquet]'.")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="Write a report with charts to this file, too: one page without anything beside it."),
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Make the ledger anew from the logs first. Nothing may serve meanwhile.")
    ] = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """What was spent, cloud as billed and local by the rate card, from the ledger; idle time is a line of its own.

    Users are pseudonyms. Amounts in JSON are pico-dollars; in CSV and Parquet dollars, with every digit.
    """
    from proxy import parquet as parquets
    from proxy.finance_tables import records, spend_csv, spend_rows, spend_table, sql_columns

    names = _dimensions(by)
    settings = located(config, state_dir)
    if rebuild:
        rebuilt(settings)
    with books(settings, Asked(window, since, until, tz), against) as (opened, span):
        month = opened.forecast()
        found = opened.report(names, span, month=None if isinstance(month, str) else month)
        if isinstance(month, str):
            found.notes.append(month)
        else:
            found.notes.append(f"forecast: {month.how}")
        page = _page(opened, span, found) if html is not None else ""
    lines = f"{len(records(found))} lines"
    if csv is not None:
        written(csv, lambda path: path.write_text(spend_csv(found), encoding="utf-8", newline=""), lines)
    if parquet is not None:
        written(parquet, lambda path: parquets.write(path, sql_columns(found), records(found)), lines)
    if html is not None:
        written(html, lambda path: path.write_text(page, encoding="utf-8"), "a report")
    print(json.dumps(spend_rows(found)) if as_json else spend_table(found))


def _page(opened: Books, span: tuple[int, int], found: Report) -> str:
    """The HTML report: beside the lines that were asked for, the days, and who and what cost most."""
    from proxy.finance_report import spend_page

    step = "day" if span[1] - span[0] > 2 * 86_400_000_000 else "hour"
    beside = {name: found if found.by == (name,) else opened.report((name,), span) for name in (step, "team", "target")}
    return spend_page(found, beside[step], [beside["team"], beside["target"]])


def _dimensions(by: str) -> tuple[str, ...]:
    from proxy.projections.sums import DIMENSIONS, known

    names = tuple(dict.fromkeys(name.strip() for name in by.split(",")))
    for name in names:
        if not known(name):
            fail(f"cannot list by {name!r}; there are {', '.join(DIMENSIONS)}, and tag:NAME", 2)
    return names
