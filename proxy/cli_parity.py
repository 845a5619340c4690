"""`spillway parity`: is local as good as the API, on a measure of one's own?"""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from proxy.cli_ledger import Asked, SinceOption, UntilOption, WindowOption, ZoneOption, books, written
from proxy.cli_log import Look, UnrecordedOption
from proxy.terminal import ConfigOption, JsonOption, StateOption, fail, located

if TYPE_CHECKING:
    from policies.parity import Margin
    from proxy.books import Books
    from proxy.config import Settings
    from proxy.config_experiments import ExperimentPart
    from proxy.parity import Judged, Parity

app = typer.Typer()


@app.command(
    epilog="**Examples**\n\n`spillway parity cutover`\n\n`spillway parity cutover --metric accepted --since 30d --html parity.html`\n\n"
    "`spillway parity cutover --json | jq '.ratio'`\n\n`spillway parity cutover && echo the next phase may begin`"
)
def parity(
    name: Annotated[str, typer.Argument(help="The experiment, as the configuration calls it.")],
    metric: Annotated[
        str | None, typer.Option(help="The measure in applications' feedback. Default: as configured.")
    ] = None,
    margin: Annotated[
        str | None, typer.Option(help="How much worse local may be, such as 5%, or 0.05. Default: as configured.")
    ] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    window: WindowOption = None,
    tz: ZoneOption = None,
    html: Annotated[Path | None, typer.Option(help="Write it as one page to this file, too.")] = None,
    unrecorded: UnrecordedOption = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Quality of local relative to the API with its interval, cost and latency beside it: 0 where parity is shown, 1 where it is
    not (yet).

    A split is judged on feedback (POST /spillway/v1/feedback), a shadow on how far answers agree. The look is recorded in
    the audit log.
    """
    from proxy.parity_tables import as_json as rows_of
    from proxy.parity_tables import text

    settings = located(config, state_dir)
    part = _experiment(settings, name)
    with books(settings, Asked(window, since, until, tz), None) as (opened, span):
        judged = _judged(opened, part, metric, margin)
        since_ever = since is None and window is None
        found = _parity(settings, opened, part, judged, span, first=0 if since_ever else span[0])
    look = Look(settings, "parity", unrecorded=unrecorded)
    look.record(begin=span[0], end=span[1], filters=("experiment", "metric"), found=found.drawn, result=found.state)
    if html is not None:
        from proxy.parity_page import parity_page

        made = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        written(html, lambda path: path.write_text(parity_page(found, made), encoding="utf-8"), "a report")
    print(json.dumps(rows_of(found)) if as_json else text(found))
    if found.state != "shown":
        raise typer.Exit(1)


def _experiment(settings: Settings, name: str) -> ExperimentPart:
    from proxy.config_errors import nearest

    known = {part.name: part for part in settings.experiments}
    if name not in known:
        none = "the configuration declares no experiments; see deploy/examples/cut-over.yaml"
        fail(f"no experiment is called {name!r}; {nearest(name, list(known)) if known else none}", 2)
    return known[name]


def _judged(opened: Books, part: ExperimentPart, metric: str | None, margin: str | None) -> Judged:
    from proxy.config_experiments import margin_of
    from proxy.parity import Judged
    from proxy.projections.trials import measures_of
    from proxy.quantities import Wrong

    try:
        words = margin_of(margin) if margin is not None else part.margin
    except Wrong as wrong:
        fail(f"--margin: {wrong}; {wrong.hint}", 2)
    kept = _margin(words, part.better)
    if part.shadow is not None:
        if metric is not None:
            fail(f"{part.name} is a shadow: it is judged on how far answers agree (compare:), not on feedback", 2)
        if part.shadow.compare is None:
            fail(f"{part.name} does not compare answers; give compare: exact, json or number", 2)
        return Judged(part.name, "shadow", part.shadow.compare, kept, words, "request")
    assert part.split is not None
    found = metric or part.metric
    if found is None:
        measures = [name for name, _ in opened.ask(partial(measures_of, experiment=part.name))]
        given = f"; its requests have {', '.join(measures[:8])}" if measures else ", and its requests have none yet"
        fail(f"on which measure? Give metric: in the experiment, or --metric{given}", 2)
    return Judged(part.name, "split", found, kept, words, part.split.by)


def _margin(words: str, better: str) -> Margin:
    from policies.parity import Margin
    from proxy.quantities import share

    relative = words.endswith("%")
    return Margin(share(words) if relative else float(words), relative, better == "higher")


def _parity(
    settings: Settings, opened: Books, part: ExperimentPart, judged: Judged, span: tuple[int, int], *, first: int
) -> Parity:
    """`first`: from when on requests count; a draw is a moment older than the first attempt in the ledger."""
    from engines.kinds import kind
    from engines.ratecard import period_cost
    from proxy.parity import Costs, of_shadow, of_split
    from proxy.periods import shown
    from proxy.projections import trials

    begin, end = span
    busy = opened.busy(span)
    periods = {
        name: period_cost(card, end - begin, min(busy.get(name, 0), end - begin)) for name, card in opened.cards.items()
    }
    costs = Costs(periods, opened.ask(partial(trials.engine_times, start=begin, end=end)))
    period = f"{shown(begin, opened.zone)} to {shown(end, opened.zone)}"
    if part.shadow is not None:
        copied = opened.ask(partial(trials.copied_of, experiment=part.name, start=first, end=end))
        wanted = [name for one in copied if one.copy for name in (one.request, one.copy)]
        served = opened.ask(partial(trials.served_of, requests=wanted, start=first))
        engine = settings.engines[part.shadow.to.partition("/")[0]]
        return of_shadow(
            judged, period, copied, served, costs, (engine.boundary or kind(engine.kind).boundary) == "local"
        )
    assert part.split is not None
    drawn = opened.ask(partial(trials.drawn_of, experiment=part.name, metric=judged.metric, start=first, end=end))
    served = opened.ask(partial(trials.served_of, requests=[one.request for one in drawn], start=first))
    arms = {"local": frozenset(part.split.local), "api": frozenset(part.split.api)}
    return of_split(judged, period, drawn, served, costs, arms)
