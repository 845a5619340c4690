"""`spillway policy test`, `spillway policy coverage` and `spillway canary`: do the rules do what was meant?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from proxy.terminal import ConfigOption, JsonOption, StateOption, fail, located, print_mistakes, say

if TYPE_CHECKING:
    from compliance.records import CanaryRun
    from proxy.config import Settings

app = typer.Typer()
policy_app = typer.Typer(
    help="Try the rules on cases of your own, or show what is scanned.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@policy_app.command(
    "test",
    epilog="**Examples**\n\n`spillway policy test cases.yaml -c spillway.yaml`\n\n"
    "`spillway policy test deploy/examples/cases/hospital.yaml -c deploy/examples/hospital.yaml --json`",
)
def policy_test(
    file: Annotated[Path, typer.Argument(help="Cases in YAML: prompt or request, who asks, target, expect.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run an operator's cases against the rules: this prompt, this expectation.

    Exit codes: 0 where every case came out as expected, 1 where one did not, or the file has mistakes.
    """
    from proxy.config_errors import ConfigInvalid
    from proxy.policy_cases import Bench, as_rows, cases_table

    bench = Bench(located(config, None))
    try:
        cases = bench.read(file)
    except ConfigInvalid as invalid:
        print_mistakes(invalid)
        raise typer.Exit(1) from None
    results = [bench.run(case, line) for case, line in cases]
    print(json.dumps(as_rows(results)) if as_json else cases_table(results))
    if not all(result.passed for result in results):
        raise typer.Exit(1)


@app.command(
    epilog="**Examples**\n\n`spillway canary -c spillway.yaml`\n\n"
    "`spillway canary --live http://127.0.0.1:8800 --key spw_... --json`"
)
def canary(
    live: Annotated[str | None, typer.Option(help="Send them through the proxy that runs at this address.")] = None,
    key: Annotated[
        str | None, typer.Option(envvar="SPILLWAY_API_KEY", help="With --live: a virtual key, where keys are used.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Default: each that has a target outside `local`.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed gives the same identifiers.")] = None,
    config: ConfigOption = None,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send synthetic identifiers through every surface, kind of field and rule, and say whether every promise held.

    Without --live nothing is sent: each is decided as `explain` would. With --live those that must not leave are sent, and
    who answered is read from the answer, and who was asked from the log in the state directory, where it can be read.

    Exit codes: 0 where every promise held, 1 where one was broken or could not be told.
    """
    import asyncio

    from proxy.canary import Dry, canaries, canary_rows, canary_run, canary_table, hatch
    from proxy.canary_live import Live, NotAnswered
    from proxy.cli_log import now
    from proxy.config_checks import public_models
    from proxy.config_errors import nearest
    from proxy.explaining import Explainer
    from proxy.fingerprints import account

    settings = located(config, state_dir)
    seed = hatch(seed)
    chosen = list(canaries(settings, seed=seed, model=model))
    if not chosen:
        say("no model has a target outside `local`, so nothing can leave; --model names one to try all the same", "dim")
    loop = asyncio.new_event_loop()
    try:
        explainer = Explainer(settings, loop)
        if model is not None and explainer.catalog.find(model) is None:
            fail(f"no model is called {model!r}; {nearest(model, public_models(settings))}", 1)
        if live is None:
            dry = Dry(explainer)
            results = [dry.run(one) for one in chosen]
        else:
            results = Live(settings, explainer, live, key).run(chosen)
    except NotAnswered as silent:
        fail(str(silent), 1)
    finally:
        loop.close()
    _record(settings, canary_run(results, seed, account(), now(), settings.policy_hash, live=live is not None))
    print(json.dumps(canary_rows(results, seed)) if as_json else canary_table(results, seed))
    if any(result.wrong for result in results):
        raise typer.Exit(1)


def _record(settings: Settings, run: CanaryRun) -> None:
    """What came of canaries is a record where there is a log; a configuration may be tried where none is."""
    from proxy.cli_log import NotRecorded, record

    if not any(Path(settings.audit.dir).glob("*/key.pub")):
        say(f"there is no log in {settings.audit.dir}, so this is not recorded", "dim")
        return
    try:
        record(settings, run)
    except NotRecorded as why:
        say(f"the results are not recorded: {why}", "red")


@policy_app.command(
    "coverage", epilog="**Examples**\n\n`spillway policy coverage`\n\n`spillway policy coverage --json`"
)
def policy_coverage(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """What is scanned: every surface, request and answer, every kind of field, by which detectors."""
    from proxy.coverage import coverage, coverage_rows, coverage_table

    settings = located(config, None)
    cells = coverage(settings)
    print(json.dumps(coverage_rows(settings, cells)) if as_json else coverage_table(settings, cells))
