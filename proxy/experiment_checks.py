"""What experiments say of the rest of the configuration: names that must resolve, arms that must be what they are called."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from engines.kinds import UnknownKind, kind
from policies.conditions import parse
from proxy.config_errors import Location, nearest
from proxy.decision_checks import names_in

if TYPE_CHECKING:
    from proxy.config import Settings
    from proxy.config_experiments import ExperimentPart, Shadow, Split

Found = Iterator[tuple[Location, str, str]]
Wrong = Callable[[str], tuple[str, str] | None]
MOST_ABROAD = 0.05
"""Share of requests of which copies may go outside `local`."""


def problems(
    settings: Settings, wrong_target: Wrong, public: Mapping[str, None], whole: Callable[[str], bool], wild: bool
) -> Found:
    """Every mistake in experiments; the arguments are as of `proxy.decision_checks.problems`."""
    names: set[str] = set()
    split: dict[str, str] = {}  # models whose every request an earlier experiment takes
    for index, part in enumerate(settings.experiments):
        path: Location = ("experiments", index)
        if part.name in names:
            yield (*path, "name"), f"{part.name!r} stands twice", "records and reports go by it"
        names.add(part.name)
        if part.name.endswith(("-judge-1", "-judge-2")):
            yield (*path, "name"), "ends as what a judge is asked does", "records tell copies apart by it"
        node, mistakes = parse(part.when)
        for mistake in mistakes:
            yield (*path, "when", *mistake.path), mistake.wrong, mistake.hint
        if not mistakes:
            yield from names_in(settings, path, node, whole)
        if whole("models") and not wild:
            for place, model in enumerate(part.models or ()):
                if model not in public:
                    yield (*path, "models", place), f"no model is called {model!r}", nearest(model, public)
        if (part.shadow is None) == (part.split is None):
            yield path, "is either a shadow or a split", "such as shadow: {to: gpu/llama-70b, share: 2%}"
        if part.shadow is not None:
            yield from _shadow(settings, (*path, "shadow"), part.shadow, wrong_target)
        if part.split is not None:
            yield from _split(settings, (*path, "split"), part.split, wrong_target)
            yield from _taken(path, part, split)


def _shadow(settings: Settings, path: Location, part: Shadow, wrong_target: Wrong) -> Found:
    if wrong := wrong_target(part.to):
        yield ((*path, "to"), *wrong)
        return
    abroad = _boundary(settings, part.to) != "local"
    if part.share <= 0:
        yield (*path, "share"), "copies nothing", "such as 2%"
    if abroad and part.share > MOST_ABROAD:
        yield (*path, "share"), "copies much to a target that is not local", f"up to {MOST_ABROAD:.0%}"
    if abroad and part.cap is None:
        yield (*path, "cap"), "is missing: copies to a target that is not local cost money", "such as cap: $20"
    if not abroad and part.cap is not None:
        yield (*path, "cap"), "is for copies to a target that is not local", "leave it out"
    if (part.compare == "judge") is not (part.judge is not None):
        yield (*path, "judge"), "and compare: judge belong together", "such as compare: judge, judge: gpu/llama-70b"
    elif part.judge is not None:
        if wrong := wrong_target(part.judge):
            yield ((*path, "judge"), *wrong)
        elif _boundary(settings, part.judge) != "local":
            yield (
                (*path, "judge"),
                f"{part.judge!r} is not local",
                "a judge reads prompts and answers of both sides: it stays at home",
            )
        elif part.judge == part.to:
            yield (*path, "judge"), "would judge itself", "name another local target"
    if part.source is None:
        return
    if part.source == part.to or part.source == part.to.partition("/")[0]:
        yield (*path, "from"), "would compare a target with itself", "name another engine or target, or leave it out"
    elif part.source not in settings.engines and (wrong := wrong_target(part.source)):
        yield (*path, "from"), f"{part.source!r} is no engine and no target", nearest(part.source, settings.engines)


def _split(settings: Settings, path: Location, part: Split, wrong_target: Wrong) -> Found:
    for name, arm, home in (("local", part.local, True), ("api", part.api, False)):
        where = (*path, name)
        if not arm:
            yield where, "names no target", "such as [gpu/llama-70b]" if home else "such as [openai/gpt-4o]"
        for index, target in enumerate(arm):
            if wrong := wrong_target(target):
                yield ((*where, index), *wrong)
            elif target in arm[:index]:
                yield (*where, index), f"{target!r} stands twice", "candidates are tried once, best first"
            elif (_boundary(settings, target) == "local") is not home:
                wrong_place = "is not local" if home else "is local"
                yield (*where, index), f"{target!r} {wrong_place}", "local: holds local targets, api: all others"
    yield from _phases(path, part)


def _phases(path: Location, part: Split) -> Found:
    dated = [phase.since for phase in part.phases if phase.since is not None]
    shares = [phase.share for phase in part.phases]
    for index in range(1, len(shares)):
        if shares[index] <= shares[index - 1]:
            yield (
                (*path, "phases", index),
                "is not more than the phase before",
                "shares of local rise from phase to phase; phase: says which one holds, also an earlier one",
            )
    if dated and len(dated) < len(part.phases) - (part.phases[0].since is None):
        yield (
            (*path, "phases"),
            "have days, but not all of them",
            "give every phase its from:, or none; the first needs none",
        )
    elif dated != sorted(set(dated)):
        yield (*path, "phases"), "do not begin one after the other", "days rise from phase to phase"
    if dated and part.phase is not None:
        yield (*path, "phase"), "stands beside phases with days", "leave it out, or the days"
    elif part.phase is not None and part.phase > len(part.phases):
        yield (*path, "phase"), f"there is no phase {part.phase}", f"from 1 to {len(part.phases)}"


def _taken(path: Location, part: ExperimentPart, split: dict[str, str]) -> Found:
    if not part.models:
        yield path, "is for no model", "say models: [NAME], the names that applications ask for"
    for place, model in enumerate(part.models or ()):
        if model in split:
            wrong = f"every request for {model!r} is split by {split[model]!r} already"
            yield (*path, "models", place), wrong, "put this one first, or say in when: whose requests are whose"
        elif not part.when:
            split[model] = part.name


def _boundary(settings: Settings, target: str) -> str:
    engine = settings.engines[target.partition("/")[0]]
    try:
        return engine.boundary or kind(engine.kind).boundary
    except UnknownKind:
        return engine.boundary or ""  # said where the engine stands


def shadow_targets(settings: Settings) -> tuple[str, ...]:
    """Targets that get copies, or judge them."""
    parts = [part.shadow for part in settings.experiments if part.shadow is not None]
    return tuple(dict.fromkeys([name for part in parts for name in (part.to, part.judge) if name is not None]))


def split_targets(settings: Settings, model: str) -> tuple[str, ...]:
    """Targets of the arms that a model's requests are split into."""
    return tuple(dict.fromkeys(_arms(splits_of(settings, model))))


def _arms(parts: Iterable[ExperimentPart]) -> Iterator[str]:
    for part in parts:
        assert part.split is not None
        yield from (*part.split.local, *part.split.api)


def splits_of(settings: Settings, model: str) -> Sequence[ExperimentPart]:
    """The experiments that split a model's requests, in the order in which they are asked."""
    return [part for part in settings.experiments if part.split is not None and model in (part.models or ())]


def leave(settings: Settings) -> bool:
    """Does an experiment bring requests outside `local` that might not have come there without it?"""
    abroad = [_boundary(settings, target) != "local" for target in shadow_targets(settings)]
    return any(abroad) or any(part.split is not None for part in settings.experiments)
