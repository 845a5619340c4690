"""`spillway parity`: is local as good as the API, on a measure of one's own?"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from proxy.cli_ledger import Asked, SinceOption, UntilOption, WindowOption, ZoneOption, books, written
from proxy.cli_log import Look, UnrecordedOption
from proxy.terminal import ConfigOption, JsonOption, StateOption, fail, located

if TYPE_CHECKING:
    from proxy.config import Settings
    from proxy.config_experiments import ExperimentPart

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
    from proxy.judging import NotJudged, judged_of, parity_of
    from proxy.parity_tables import as_json as rows_of
    from proxy.parity_tables import text

    settings = located(config, state_dir)
    part = _experiment(settings, name)
    with books(settings, Asked(window, since, until, tz), None) as (opened, span):
        try:
            judged = judged_of(opened, part, metric, margin)
        except NotJudged as why:
            fail(str(why), 2)
        since_ever = since is None and window is None
        found = parity_of(settings, opened, part, judged, span, first=0 if since_ever else span[0])
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
