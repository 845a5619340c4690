"""What decisions say of each other and of the rest of the configuration: names that must resolve, decisions never reached.

Also which public names there are because of them: for a model `auto` with `{route: true}` an application may also ask for
`auto:cheap`, `auto:best`, or a route by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from compliance.rules import TYPES
from engines.kinds import kind
from policies.conditions import Node, mentioned, parse, reads
from policies.declared import in_order
from policies.shadows import Row, unreached
from policies.signals import NOWHERE
from proxy.config_errors import Location, nearest

if TYPE_CHECKING:
    from proxy.config import Settings
    from proxy.config_decisions import DecisionPart

Found = Iterator[tuple[Location, str, str]]
OF_ROUTES = frozenset({"route", "probability", "margin"})
"""Signals that ask what a prompt is about."""
OF_FINDINGS = frozenset({"found", "health"})
"""Those that ask what was found in it."""
ORDERS = ("cheap", "best")
MOST_EXAMPLES = 20_000
"""As `policies.semantic` has it, whose arrays are not needed here."""


class Derivation(Struct, frozen=True):
    """Where a public name comes from."""

    of: str  # the model whose decisions hold; itself, where it is declared
    route: str = ""  # the route that it names
    order: str = ""  # cheap, best
    use: tuple[str, ...] | None = None  # its targets in order, where the configuration says them


def routed_models(settings: Settings) -> list[str]:
    """Models that decisions alone send somewhere: {route: true}."""
    return [name for name, row in settings.models.items() if not isinstance(row, tuple) and row.route is True]


def derived(settings: Settings, public: Iterable[str]) -> dict[str, Derivation]:
    """Every public name, those that follow from routed models last; a declared name wins over one that follows."""
    names = {name: Derivation(name) for name in public}
    routed = routed_models(settings)
    for model in routed:
        row = settings.models[model]
        assert not isinstance(row, tuple)
        for order, use in (("cheap", row.cheap), ("best", row.best)):
            targets = None if use is None else named_targets(settings, use)
            names.setdefault(f"{model}:{order}", Derivation(model, order=order, use=targets))
    for route in settings.routes if routed else ():
        names.setdefault(route.name, Derivation(routed[0], route=route.name))
    return names


def named_targets(settings: Settings, names: Iterable[str]) -> tuple[str, ...]:
    """Targets, and those of the models that are named, each once."""
    found: dict[str, None] = {}
    for name in names:
        row = settings.models.get(name)
        if row is None:
            found[name] = None
        elif isinstance(row, tuple):
            found.update(dict.fromkeys(row))
        elif row.route is not True:
            found.update(dict.fromkeys((*row.route.small, *row.route.large)))
    return tuple(found)


def models_of(settings: Settings, part: DecisionPart) -> tuple[str, ...]:
    """The models that a decision is for."""
    return tuple(routed_models(settings)) if part.models is None else part.models


def candidates_of(settings: Settings, model: str) -> tuple[str, ...]:
    """The targets that may serve a model of the configuration, in its own order; then those that decisions about it add.

    A routed model whose decisions name none may be served by any, local ones first.
    """
    row = settings.models[model]
    names = dict.fromkeys(own_candidates(settings, model))
    parts = in_order([(part.priority, part) for part in settings.decisions])
    about = [part for part in parts if model in models_of(settings, part)]
    for part in about:
        names.update(dict.fromkeys(named_targets(settings, part.use)))
    if about:
        names.update(dict.fromkeys(named_targets(settings, settings.routing.default)))
    if not isinstance(row, tuple):
        for use in (row.cheap, row.best):
            names.update(dict.fromkeys(named_targets(settings, use or ())))
    return tuple(names) or _every_target(settings)


def own_candidates(settings: Settings, model: str) -> tuple[str, ...]:
    """The targets that a model's own entry names; none for a routed one."""
    row = settings.models[model]
    if isinstance(row, tuple):
        return row
    return () if row.route is True else (*row.route.small, *row.route.large)


def _every_target(settings: Settings) -> tuple[str, ...]:
    rows = [
        ((engine.boundary or kind(engine.kind).boundary) != "local", f"{name}/{model}")
        for name, engine in settings.engines.items()
        for model in engine.models
        if model != "*"
    ]
    return tuple([name for _, name in sorted(rows, key=lambda row: row[0])])


def asked(settings: Settings) -> frozenset[str]:
    """The signals that a decision or an experiment in force may ask for."""
    conditions = [*(part.when for part in settings.decisions), *(part.when for part in settings.experiments)]
    return frozenset().union(*[reads(parse(when)[0]) for when in conditions])


def problems(
    settings: Settings,
    wrong_target: Callable[[str], tuple[str, str] | None],
    public: Mapping[str, None],
    whole: Callable[[str], bool],
    wild: bool,
) -> Found:
    """Every mistake in decisions.  `wrong_target` says what is wrong with a target's name, `public` holds the names that
    applications can ask for, `whole` whether a section has been read without mistakes, `wild` whether any name goes."""
    yield from _routes(settings, whole)
    parts = settings.decisions
    nodes: list[Node | None] = []
    names: set[str] = set()
    for index, part in enumerate(parts):
        path: Location = ("decisions", index)
        if part.name in names:
            yield (*path, "name"), f"{part.name!r} stands twice", "records name the decision that matched"
        names.add(part.name)
        node, mistakes = parse(part.when)
        for mistake in mistakes:
            yield (*path, "when", *mistake.path), mistake.wrong, mistake.hint
        nodes.append(None if mistakes else node)
        yield from names_in(settings, path, node, whole)
        yield from uses_in(settings, (*path, "use"), part.use, wrong_target, needed=True)
        if whole("models"):
            yield from _models(settings, path, part, public, wild)
    yield from uses_in(settings, ("routing", "default"), settings.routing.default, wrong_target, needed=False)
    if settings.routing.deadline <= 0:
        yield ("routing", "deadline"), "must be more than nothing", "such as 20ms"
    for name, row in settings.models.items():
        if not isinstance(row, tuple):
            for order, use in (("cheap", row.cheap), ("best", row.best)):
                if use is not None and row.route is not True:
                    yield ("models", name, order), "is for a model with route: true", "leave it out"
                elif use is not None:
                    yield from uses_in(settings, ("models", name, order), use, wrong_target, needed=True)
    if whole("decisions") and whole("models"):
        yield from _unreached(settings, nodes)


def _routes(settings: Settings, whole: Callable[[str], bool]) -> Found:
    names = [route.name for route in settings.routes]
    for index, name in enumerate(names):
        if name == NOWHERE:
            yield ("routes", index, "name"), f"{NOWHERE!r} is what belongs to no route", "call it something else"
        elif name in names[:index]:
            yield ("routes", index, "name"), f"{name!r} stands twice", "put their utterances together"
    if len(names) == 1 and whole("routes"):
        yield ("routes",), "holds one route, which cannot be told from others", "declare a second, such as small talk"
    if sum([max(1, len(route.utterances)) for route in settings.routes]) > MOST_EXAMPLES:
        yield ("routes",), f"have more than {MOST_EXAMPLES:,} utterances together", "ten for each route are enough"


def names_in(settings: Settings, path: Location, node: Node, whole: Callable[[str], bool]) -> Found:
    """Routes and types that a condition names."""
    where = (*path, "when")
    routes = [route.name for route in settings.routes]
    if not whole("routes"):
        return
    if reads(node) & OF_ROUTES and not routes:
        yield (
            where,
            "asks what a prompt is about, and no routes are declared",
            "declare routes: with a description and utterances each",
        )
    elif routes:
        for name in sorted(mentioned(node, "route") - {NOWHERE, *routes}):
            yield where, f"{name!r} is no route", nearest(name, [*routes, NOWHERE])
    kinds = (*TYPES, *settings.compliance.detectors)
    if whole("compliance"):
        for name in sorted(mentioned(node, "found") - set(kinds)):
            yield where, f"{name!r} is nothing that is found", nearest(name, kinds)


def uses_in(
    settings: Settings,
    path: Location,
    use: Sequence[str],
    wrong_target: Callable[[str], tuple[str, str] | None],
    *,
    needed: bool,
) -> Found:
    """Targets, and models that stand for theirs, where a list of them is asked for."""
    if needed and not use:
        yield path, "names no target", "such as use: [gpu/llama-70b, openai/gpt-4o]"
    for index, name in enumerate(use):
        row = settings.models.get(name)
        if row is not None and not isinstance(row, tuple) and row.route is True:
            yield (
                (*path, index),
                f"{name!r} is itself decided here",
                "name targets, or models with targets of their own",
            )
        elif row is None and (wrong := wrong_target(name)) is not None:
            near = nearest(name, settings.models) if "/" not in name else ""
            yield (*path, index), f"{wrong[0]}, and no model", near if near.startswith("did you mean") else wrong[1]
        elif name in use[:index]:
            yield (*path, index), f"{name!r} stands twice", "candidates are tried once, best first"


def _models(settings: Settings, path: Location, part: DecisionPart, public: Mapping[str, None], wild: bool) -> Found:
    if part.models is None and not routed_models(settings):
        yield path, "is for no model", "declare models: {auto: {route: true}}, or say models: [NAME] here"
    for index, model in enumerate(part.models or ()):
        if model not in public:
            wrong = f"no model is called {model!r}"
            hint = "declare it under models, so that decisions can be about it" if wild else nearest(model, public)
            yield (*path, "models", index), wrong, hint
        elif ":" in model and model not in settings.models and model.rpartition(":")[2] in ORDERS:
            yield (*path, "models", index), f"{model!r} is an order in itself", f"write {model.rpartition(':')[0]}"


def _unreached(settings: Settings, nodes: Sequence[Node | None]) -> Found:
    """Decisions that contradict themselves, or whose every request an earlier one takes."""
    order = in_order([(part.priority, index) for index, part in enumerate(settings.decisions)])
    order = [index for index in order if nodes[index] is not None and models_of(settings, settings.decisions[index])]
    rows = []
    for index in order:
        node = nodes[index]
        assert node is not None
        rows.append(Row(node, frozenset(models_of(settings, settings.decisions[index]))))
    routes = frozenset([route.name for route in settings.routes]) | {NOWHERE}
    for found in unreached(rows, {"route": routes}):
        part = settings.decisions[order[found.decision]]
        where: Location = ("decisions", order[found.decision])
        if not found.because:
            yield (
                (*where, "when"),
                f"decision {part.name!r} contradicts itself: no request can match it",
                "leave out what contradicts",
            )
            continue
        earlier = " and ".join([repr(settings.decisions[order[number]].name) for number in found.because])
        yield (
            where,
            f"decision {part.name!r} is never reached: {earlier} {'take' if len(found.because) > 1 else 'takes'} all of its requests",
            "put it first, give it a higher priority, or leave it out",
        )
