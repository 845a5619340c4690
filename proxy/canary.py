"""Canaries: synthetic identifiers through every surface, kind of field and rule of a configuration.

Each canary has a promise, taken from the rules alone: which of the model's targets may get a request in which an
identifier of this kind was found.  Whether it holds is asked of the whole: of a decision made from the text
(`Dry`), or of the running proxy, whose answer names the target, and whose log names every attempt (`proxy.canary_live`).
A canary whose identifier is not found has lost its promise, too.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from compliance.identifiers import FAMILY
from compliance.model import LOCAL, Action, Finding
from compliance.records import CanaryRun, bounded_name
from compliance.rules import CLOUD, UNREAD
from engines.catalog import WILDCARD
from engines.field_kinds import REQUESTS, planted
from engines.kinds import kind as engine_kind
from engines.model import Operation
from proxy.auth import LOCAL_OPEN, Principal
from proxy.config import Settings
from proxy.config_parts import RulePart
from proxy.decision_checks import candidates_of
from proxy.errors import Refusal
from proxy.explaining import Explainer
from proxy.meaning import table
from proxy.surfaces import BY_NAME, Surface
from proxy.synthetic import KINDS, synthetic

PLAIN = "Say hello."
SELF_STANDING = ("card", "iban", "secret")
"""Kinds that are found wherever they stand, without a label: they go through every kind of field."""
_GROUPS: Mapping[str, tuple[str, ...]] = {"pii": ("card", "mrn", "name"), "phi": ("mrn", "name", "date")}
PROBLEMS, PROBLEM_LIMIT = 32, 300
"""Broken promises that a record names, and the characters of each."""
SHOWN = 6
"""Canaries named under one broken promise."""
OTHER_RULE = "decided by another rule"
_UNSENT = frozenset({"model"})
"""Kinds of fields that decide themselves whether the request is looked at."""
Part = Literal["field", "kind", "rule"]


class Canary(Struct, frozen=True):
    """One request.  `finding` is the kind that must be found in it; "" where it holds none."""

    part: Part
    name: str  # of the field, the kind or the rule
    surface: str
    model: str
    finding: str
    body: dict[str, Any]
    principal: Principal


class Result(Struct, frozen=True):
    """What became of one canary.  `wrong` is empty where its promise held; `note` says what could not be told."""

    part: Part
    name: str
    surface: str
    model: str
    finding: str
    tenant: str
    promise: Mapping[str, Action]  # by target
    forbidden: tuple[str, ...]  # the targets that must never get it
    answered: tuple[str, ...] = ()  # the targets that would be asked, best first; or that were
    wrong: tuple[str, ...] = ()
    note: str = ""


def canaries(settings: Settings, *, seed: int, model: str | None = None) -> Iterator[Canary]:
    """Every canary of a configuration: the same for the same seed."""
    models = [model] if model is not None else models_of(settings)
    surfaces = [surface for surface in BY_NAME.values() if surface.operation is not None]
    for name in models:
        for surface in surfaces:
            yield from _fields(surface, name, seed)
            yield from _kinds(settings, surface, name, seed)
        for rule in settings.compliance.rules:
            yield from _of_rule(settings, rule, name, seed)


def models_of(settings: Settings) -> list[str]:
    """The models with a target outside `local`, since from the others nothing can leave."""
    cloud = {n for n, e in settings.engines.items() if (e.boundary or engine_kind(e.kind).boundary) != LOCAL}
    if settings.models:
        rows = {public: candidates_of(settings, public) for public in settings.models}
        return [public for public, targets in rows.items() if any(t.partition("/")[0] in cloud for t in targets)]
    names = [model for name in settings.engines if name in cloud for model in settings.engines[name].models]
    return [("canary" if model == WILDCARD else model) for model in dict.fromkeys(names)]


def _fields(surface: Surface, model: str, seed: int) -> Iterator[Canary]:
    """One identifier in every kind of field, and every kind of part that cannot be read."""
    assert surface.operation is not None
    for number, field in enumerate(REQUESTS[surface.dialect, surface.operation]):
        if field.name in _UNSENT:
            continue
        kind = SELF_STANDING[number % len(SELF_STANDING)] if field.speaks else "opaque"
        text = synthetic(kind, seed + number).value if field.speaks else ""
        body = _asked(surface, model, planted(field.body, text))
        yield Canary("field", field.name, surface.name, model, kind, body, LOCAL_OPEN)


def _kinds(settings: Settings, surface: Surface, model: str, seed: int) -> Iterator[Canary]:
    """Every kind of identifier, and the operator's own by their examples."""
    for kind in (*KINDS, *settings.compliance.detectors):
        yield Canary(
            "kind", kind, surface.name, model, kind, plain(surface, model, _text(settings, kind, seed)), LOCAL_OPEN
        )


def _text(settings: Settings, kind: str, seed: int) -> str:
    own = settings.compliance.detectors.get(kind)
    return own.matches[0] if own is not None else synthetic(kind, seed).text


def plain(surface: Surface, model: str, text: str) -> dict[str, Any]:
    """The plainest request of a surface."""
    if surface.operation is Operation.EMBEDDINGS:
        return _asked(surface, model, {"input": text})
    return _asked(surface, model, {"messages": [{"role": "user", "content": text}]})


def _asked(surface: Surface, model: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The body for this model, and for the shortest answer."""
    short = {"max_tokens": 1} if surface.operation is Operation.CHAT else {}
    return {**body, **short, "model": model}


def _of_rule(settings: Settings, part: RulePart, model: str, seed: int) -> Iterator[Canary]:
    """What this rule speaks of, from whom it speaks of."""
    when = part.when
    if when.model and model not in when.model:
        return
    principal = Principal(
        key="canary" if when.key else "",
        name=when.key[0] if when.key else LOCAL_OPEN.name,
        project=when.application[0] if when.application else "",
        tenant=when.tenant[0] if when.tenant else None,
    )
    surface = BY_NAME[when.surface[0]] if when.surface else BY_NAME["openai.chat"]
    wanted = [kind for found in when.found for kind in _GROUPS.get(found, (found,))]
    if not when.found:
        yield Canary("rule", part.name, surface.name, model, "", plain(surface, model, PLAIN), principal)
        wanted = ["mrn", "name"]
    for kind in dict.fromkeys(wanted):
        if kind in UNREAD:
            body = next((f.body for f in REQUESTS[surface.dialect, surface.operation] if not f.speaks), None)  # type: ignore[index]
            if kind == "opaque" and body is not None:
                yield Canary("rule", part.name, surface.name, model, kind, _asked(surface, model, body), principal)
            continue
        text = _text(settings, kind, seed)
        yield Canary("rule", part.name, surface.name, model, kind, plain(surface, model, text), principal)


# --- promises ------------------------------------------------------------------------------------------------


class Promises:
    """What the rules say of a finding alone, whatever else is in its text; but for whether that speaks of health, as `MRN`
    does by itself: rules for `phi` go by it."""

    def __init__(self, explainer: Explainer) -> None:
        self._explainer = explainer
        self._health: dict[tuple[str, ...], bool] = {}  # the same text goes through every surface and model

    def of(self, canary: Canary) -> Result:
        """The promise of a canary: a result in which nothing has happened yet."""
        findings = (Finding(canary.finding, "", 0, 0),) if canary.finding else ()
        health = FAMILY.get(canary.finding) == "context" or self._speaks_of_health(canary)
        ruling = self._explainer.judge(findings, canary.principal, canary.surface, canary.model, health=health)
        targets = self._explainer.targets(canary.model)
        verdicts = {name: ruling.on(labels) for name, (_, labels) in targets.items()}
        decided = {verdict.rule for verdict in (*verdicts.values(), ruling.on(CLOUD))}
        return Result(
            part=canary.part,
            name=canary.name,
            surface=canary.surface,
            model=canary.model,
            finding=canary.finding,
            tenant=canary.principal.tenant or "",
            promise={name: verdict.action for name, verdict in verdicts.items()},
            forbidden=tuple(
                name
                for name, verdict in verdicts.items()
                if not verdict.allows(targets[name][0].boundary, redacted=True)
            ),
            note=OTHER_RULE if canary.part == "rule" and canary.name not in decided else "",
        )

    def _speaks_of_health(self, canary: Canary) -> bool:
        if not canary.finding:
            return False
        key = (canary.part, canary.name, canary.finding, canary.principal.tenant or "")
        if key not in self._health:
            try:
                row = self._explainer.explain(canary.surface, msgspec.json.encode(canary.body), canary.principal)
                self._health[key] = bool(row["health_context"])
            except Refusal:
                return False
        return self._health[key]


class Dry:
    """Asks for decisions, and sends nothing."""

    def __init__(self, explainer: Explainer) -> None:
        self._explainer = explainer
        self._promises = Promises(explainer)

    def run(self, canary: Canary) -> Result:
        """One canary: is it found, and would nobody be asked who must not be?"""
        result = self._promises.of(canary)
        try:
            row = self._explainer.explain(canary.surface, msgspec.json.encode(canary.body), canary.principal)
        except Refusal as refusal:
            return msgspec.structs.replace(result, wrong=(f"was not looked at: {refusal.message}",))
        wrong = []
        if canary.finding and canary.finding not in {finding["type"] for finding in row["findings"]}:
            wrong.append(f"{canary.finding} was not found")
        ranked = tuple(row["ranked"])
        wrong += [
            f"{t} would be asked, where the rules say {result.promise[t]}" for t in ranked if t in result.forbidden
        ]
        return msgspec.structs.replace(result, answered=ranked, wrong=tuple(wrong))


def hatch(seed: int | None) -> int:
    """The seed: as given, or a new one."""
    return seed if seed is not None else random.randrange(1 << 31)


# --- for people and scripts ----------------------------------------------------------------------------------


def canary_table(results: Sequence[Result], seed: int) -> str:
    """Results for people: a line for each surface and each rule, and every promise that was broken."""
    rows = []
    for title, group in _grouped(results):
        broken = sum(bool(result.wrong) for result in group)
        local = sum(bool(result.forbidden) for result in group)
        rows.append((title, str(len(group)), str(local), str(broken) if broken else "-"))
    lines = [table(("canaries", "sent through", "must not leave", "broken"), rows)]
    places: dict[str, list[str]] = {}
    for result in results:
        whose = f", tenant {result.tenant}" if result.tenant else ""
        for wrong in result.wrong:
            places.setdefault(wrong, []).append(
                f"{result.surface}, {result.part} {result.name}, model {result.model}{whose}"
            )
    for wrong, where in places.items():
        more = f" and {len(where) - SHOWN} more" if len(where) > SHOWN else ""
        lines += [
            f"BROKEN  {wrong}:",
            *(f"        {place}" for place in where[:SHOWN]),
            *([f"       {more}"] if more else []),
        ]
    unreached = _unreached(results)
    lines += [
        f"rule {name!r} decided over none of its canaries: an earlier one, or its conditions, came first"
        for name in unreached
    ]
    broken = sum(bool(result.wrong) for result in results)
    lines.append(f"{len(results)} canaries, {broken} broken promises (seed {seed})")
    return "\n".join(lines)


def _grouped(results: Sequence[Result]) -> list[tuple[str, list[Result]]]:
    groups: dict[str, list[Result]] = {}
    for result in results:
        title = f"rule {result.name}" if result.part == "rule" else f"{result.surface}, every {result.part}"
        groups.setdefault(title, []).append(result)
    return list(groups.items())


def _unreached(results: Sequence[Result]) -> list[str]:
    reached: dict[str, bool] = {}
    for result in results:
        if result.part == "rule":
            reached[result.name] = reached.get(result.name, False) or result.note != OTHER_RULE
    return [name for name, found in reached.items() if not found]


def canary_run(results: Sequence[Result], seed: int, actor: str, at: int, policy: str, *, live: bool) -> CanaryRun:
    """Results for the log."""
    problems = [
        bounded_name(f"{result.surface}, {result.part} {result.name}, model {result.model}: {wrong}", PROBLEM_LIMIT)
        for result in results
        for wrong in result.wrong
    ]
    return CanaryRun(
        actor=actor, at=at, broken=sum(bool(result.wrong) for result in results), canaries=len(results), live=live, policy=policy,
        problems=tuple(problems[:PROBLEMS]), seed=seed, unreached=tuple(_unreached(results)),
    )  # fmt: skip


def canary_rows(results: Sequence[Result], seed: int) -> dict[str, Any]:
    """Results for scripts."""
    return {
        "seed": seed,
        "held": sum(not result.wrong for result in results),
        "broken": sum(bool(result.wrong) for result in results),
        "unreached_rules": _unreached(results),
        "canaries": [msgspec.to_builtins(result) for result in results],
    }
