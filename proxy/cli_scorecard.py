"""`spillway scorecard`: what a CFO and a CTO asked of local serving, each figure with how it was computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from proxy.cli_ledger import AgainstOption, Asked, SinceOption, UntilOption, WindowOption, ZoneOption, books, written
from proxy.terminal import ConfigOption, JsonOption, StateOption, coloured, located

if TYPE_CHECKING:
    from proxy.books import Books
    from proxy.config import Settings
    from proxy.scorecard import Figure

app = typer.Typer()


@app.command(
    epilog="**Examples**\n\n`spillway scorecard --window 30d --against openai/gpt-4o`\n\n"
    "`spillway scorecard --since 2026-01-01 --until 2026-03-31 --against openai/gpt-4o --html scorecard.html`\n\n"
    "`spillway scorecard --json | jq '.figures[] | select(.colour == \"red\")'`"
)
def scorecard(
    since: SinceOption = None,
    until: UntilOption = None,
    window: WindowOption = None,
    tz: ZoneOption = None,
    against: AgainstOption = None,
    html: Annotated[Path | None, typer.Option(help="Write it as one page to this file, too.")] = None,
    config: ConfigOption = None,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Cost, overflow, sensitive requests kept local, latency, use of the hardware, availability: with goals, and how each was
    computed, or what is missing for it."""
    import sys

    from proxy.scorecard import scorecard as worked_out
    from proxy.scorecard_tables import scorecard_rows, scorecard_words

    settings = located(config, state_dir)
    with books(settings, Asked(window, since, until, tz), against) as (opened, span):
        found = worked_out(
            opened.report(("target",), span), opened.months((opened.since or span[0], opened.now)), opened.traffic(span), opened.cards,
            {
                f"{name}/{model}": entry is not None and entry.fine_tuned
                for name, engine in settings.engines.items()
                for model, entry in engine.models.items()
            },
            {name: engine.concurrency for name, engine in settings.engines.items()},
            _experiment(settings, opened, span) if settings.experiments else None,
        )  # fmt: skip
    if html is not None:
        from proxy.finance_report import scorecard_page

        written(html, lambda path: path.write_text(scorecard_page(found), encoding="utf-8"), "a report")
    print(json.dumps(scorecard_rows(found)) if as_json else scorecard_words(found, colour=coloured(sys.stdout)))


def _experiment(settings: Settings, opened: Books, span: tuple[int, int]) -> Figure | None:
    """What an experiment says of quality."""
    from proxy.judging import parity_figure

    return parity_figure(settings, opened, span)
