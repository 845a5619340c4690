"""`spillway policy replay`: another configuration, run over the recorded facts of past traffic."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from proxy.choice import logs_of, period
from proxy.cli_log import Look, UnrecordedOption
from proxy.terminal import JsonOption, StateOption, fail, located, say

if TYPE_CHECKING:
    from proxy.auth import Principal
    from proxy.config import Settings
    from proxy.past import Past
    from proxy.replay_report import Report

UNDER_WAY = 20_000
"""Requests whose records are gathered at once; one that ends later than so many others began is told as it stands."""
COPIES = "experiment:"


def register(policy_app: typer.Typer) -> None:
    policy_app.command(
        "replay",
        epilog="**Examples**\n\n`spillway policy replay --config new.yaml --since 30d`\n\n"
        "`spillway policy replay --config new.yaml --logs spillway.yaml --json`\n\n"
        "In a pipeline: exit code 1 stops a policy under which more sensitive data would leave.",
    )(policy_replay)


def policy_replay(
    config: Annotated[Path, typer.Option("--config", "-c", help="The configuration that is tried.")],
    logs: Annotated[
        Path | None,
        typer.Option("--logs", help="The configuration whose logs are read. Default: the one that is tried."),
    ] = None,
    begin: Annotated[
        str | None, typer.Option("--since", "--from", help="A day, a time, or 30d ago. Default: the first record.")
    ] = None,
    end: Annotated[str | None, typer.Option("--until", "--to", help="The same. Default: now.")] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 1 also where it cannot be told whether more would leave.")
    ] = False,
    unrecorded: UnrecordedOption = False,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a policy over what is recorded of past traffic, and say what would be different.

    Share of local and cloud, cost, refusals, by model and by decision; and which kinds of identifiers would newly leave.
    No request is sent, and no text is needed. What hangs on a fact that no record holds (words in a text, routes that
    are other ones now) is counted as not told.

    Exit codes: 0; 1 where more sensitive data would leave than did; 2 for wrong use.
    """
    from proxy.replay import Replayer
    from proxy.replay_report import Report

    settings = located(config, state_dir)
    where = settings if logs is None else located(logs, state_dir)
    span = period(begin, end)
    found = logs_of(where)
    with contextlib.ExitStack() as stack:
        replayer = Replayer(settings, _keys(where), _percentile(settings, where, stack), logs=Path(where.audit.dir))
        report = Report(replayer)
        for past in _requests(found, span):
            _replay(replayer, report, past)
    Look(where, "policy replay", unrecorded=unrecorded).record(found=report.requests, begin=span[0], end=span[1])
    row = {"config": str(config), "policy": settings.policy_hash, "begin": span[0], "end": span[1], **report.row()}
    print(json.dumps(row) if as_json else report.text())
    if report.more_leaves or (strict and report.may):
        say(
            "more sensitive data would leave than did" if report.more_leaves else "more sensitive data might leave",
            "red",
        )
        raise typer.Exit(1)


def _replay(replayer: Any, report: Report, past: Past) -> None:
    from proxy.replay import Untold

    try:
        replayed = replayer.replay(past)
    except Untold as untold:
        report.not_told(past, untold.reason, replayer.may_leave(past))
        return
    report.add(past, replayed)


def _requests(logs: Sequence[Path], span: tuple[int, int]) -> Iterator[Past]:
    """The requests that came within a period, each with all of its records."""
    from compliance.journal import read_lines
    from compliance.lookup import start_of
    from compliance.records import Assigned, Decision, Outcome, Refused, UnknownRecord, decode
    from proxy.past import Past

    for log in logs:
        waiting: OrderedDict[str, Past] = OrderedDict()
        drawn: OrderedDict[str, None] = OrderedDict()
        try:
            for line in read_lines(log, start_of(log, span[0])):
                record = decode(line)
                if isinstance(record, Assigned):
                    drawn[record.request] = None
                    if len(drawn) > UNDER_WAY:
                        drawn.popitem(last=False)
                if not isinstance(record, (Decision, Outcome, Refused)) or record.key.startswith(COPIES):
                    continue
                past = waiting.get(record.request)
                if past is None:
                    if isinstance(record, Outcome) or not span[0] <= record.at < span[1]:
                        continue  # it began before
                    past = waiting[record.request] = Past(record.request, record.at, [], {})
                    past.drawn = drawn.pop(record.request, 0) is None
                    if len(waiting) > UNDER_WAY:
                        yield waiting.popitem(last=False)[1]
                if isinstance(record, Decision):
                    past.decisions.append(record)
                elif isinstance(record, Outcome):
                    past.outcomes[record.attempt] = record
                else:
                    past.refused = record
        except UnknownRecord as error:
            fail(f"{log}: {error}; `spillway audit verify` says more", 1)
        except OSError as error:
            fail(f"{log} cannot be read: {error.strerror}", 1)
        yield from waiting.values()


def _keys(settings: Settings) -> Mapping[str, Principal]:
    """Keys that were ever made with `spillway keys`."""
    from proxy.state.keys import KeyStore

    path = Path(settings.state.dir) / "keys.db"
    if not path.exists():
        return {}
    try:
        with contextlib.closing(KeyStore(path)) as store:
            return store.snapshot()
    except sqlite3.Error as error:
        fail(f"{path} cannot be used: {error}; --state-dir names another directory", 1)


def _percentile(
    settings: Settings, where: Settings, stack: contextlib.ExitStack
) -> Callable[[str], float | None] | None:
    """The complexity of past requests of which features are kept; None: a scorer, or the features, are not there."""
    from proxy.vaulting import features_path

    if settings.complexity.scorer is None or not features_path(where).exists():
        return None
    from compliance.vault import VaultFailed
    from proxy.complexity_models import ScorerInvalid, load_scorer
    from proxy.own_labels import remembered
    from proxy.routing_models import load_embedding
    from proxy.vaulting import open_features

    version = load_embedding()[1]
    try:
        scorer = load_scorer(Path(settings.complexity.scorer), version)
        vault = open_features(where)
    except (ScorerInvalid, OSError, VaultFailed) as error:
        say(f"the complexity of past requests is not worked out: {error}", "yellow")
        return None
    stack.callback(vault.close)

    def percentile(request: str) -> float | None:
        kept = remembered(vault, request, version)
        if kept is None:
            return None
        found = scorer.percentile(scorer.score(kept.named, kept.vector))
        return None if found is None else 100 * found

    return percentile
