"""An experiment of the configuration, asked of the ledger: on what it is judged, and what it has come to (effects: the ledger)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from engines.kinds import kind
from engines.ratecard import period_cost
from policies.parity import Margin
from proxy.config_experiments import margin_of
from proxy.parity import Costs, Judged, Parity, of_shadow, of_split
from proxy.parity_page import COLOURS
from proxy.parity_tables import verdict
from proxy.periods import shown
from proxy.projections import trials
from proxy.projections.trials import Copied
from proxy.quantities import Wrong, share
from proxy.scorecard import Figure

if TYPE_CHECKING:
    from proxy.books import Books
    from proxy.config import Settings
    from proxy.config_experiments import ExperimentPart, Shadow


class NotJudged(Exception):
    """An experiment that nothing judges; the message says what to do."""


def judged_of(opened: Books, part: ExperimentPart, metric: str | None = None, margin: str | None = None) -> Judged:
    """On what an experiment is judged, by the configuration and what is asked for instead; raises `NotJudged`."""
    try:
        words = margin_of(margin) if margin is not None else part.margin
    except Wrong as wrong:
        raise NotJudged(f"--margin: {wrong}; {wrong.hint}") from None
    relative = words.endswith("%")
    kept = Margin(share(words) if relative else float(words), relative, part.better == "higher")
    if part.shadow is not None:
        if metric is not None:
            raise NotJudged(
                f"{part.name} is a shadow: it is judged on how far answers agree (compare:), not on feedback"
            )
        if part.shadow.compare is None:
            raise NotJudged(f"{part.name} does not compare answers; give compare: exact, json, number or judge")
        found = Judged(part.name, "shadow", part.shadow.compare, kept, words, "request")
        if found.least <= 0:
            raise NotJudged(
                f"a margin of {words} asks nothing of {part.name}: scores lie between 0 and 1; give such as 5%"
            )
        return found
    assert part.split is not None
    measure = metric or part.metric
    if measure is None:
        measures = [name for name, _ in opened.ask(partial(trials.measures_of, experiment=part.name))]
        given = f"; its requests have {', '.join(measures[:8])}" if measures else ", and its requests have none yet"
        raise NotJudged(f"on which measure? Give metric: in the experiment, or --metric{given}")
    return Judged(part.name, "split", measure, kept, words, part.split.by)


def parity_of(
    settings: Settings, opened: Books, part: ExperimentPart, judged: Judged, span: tuple[int, int], *, first: int
) -> Parity:
    """What it has come to in a period.  `first`: from when on requests count; a draw is a moment older than its attempt."""
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
        at_home = (engine.boundary or kind(engine.kind).boundary) == "local"
        return of_shadow(judged, period, _as_declared(copied, part.shadow), served, costs, at_home)
    assert part.split is not None
    drawn = opened.ask(partial(trials.drawn_of, experiment=part.name, metric=judged.metric, start=first, end=end))
    served = opened.ask(partial(trials.served_of, requests=[one.request for one in drawn], start=first))
    arms = {"local": frozenset(part.split.local), "api": frozenset(part.split.api)}
    return of_split(judged, period, drawn, served, costs, arms)


def _as_declared(copied: Sequence[Copied], part: Shadow) -> list[Copied]:
    """Copies, of which those count that went where, and were compared as, the configuration says now."""
    return [
        one
        if one.target == part.to and (one.score < 0 or one.how == part.compare)
        else replace(one, copy="", score=-1, why="changed")
        for one in copied
    ]


def parity_figure(settings: Settings, opened: Books, span: tuple[int, int]) -> Figure | None:
    """The scorecard's line: of the first experiment that is judged and has something to compare; None: there is none."""
    found: Parity | None = None
    for part in settings.experiments:
        try:
            judged = judged_of(opened, part)
        except NotJudged:
            continue
        one = parity_of(settings, opened, part, judged, span, first=span[0])
        if one.state != "nothing":
            found = one
            break
        found = found or one
    if found is None:
        return None
    margin = found.judged.margin
    relative = margin.relative or found.judged.kind == "shadow"
    better = margin.higher_is_better or found.judged.kind == "shadow"
    least = found.judged.least if found.judged.kind == "shadow" else 1 - margin.amount
    goal = f"within {margin.amount:g}"
    if relative:
        goal = f">= {least:.1%}" if better else f"<= {1 + margin.amount:.1%}"
    return Figure(
        "parity", "quality", "quality parity with the API", found.ratio.estimate if found.ratio else None, "share",
        f"experiment {found.judged.name}: {verdict(found)}", goal, COLOURS[found.state],
    )  # fmt: skip
