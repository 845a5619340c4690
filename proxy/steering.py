"""From the configuration to what a model's decisions choose among: each decision with the candidates that it leaves.

Everything that can be is worked out once, at the start: for a request only the conditions are asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from engines.catalog import Entry
from engines.model import Target
from policies.conditions import All, parse
from policies.declared import Choice, Declared, declared, first, in_order, places
from policies.model import Steering as Order
from policies.model import Veto
from policies.signals import NOWHERE, Pending, SignalFailed, Signals, told
from policies.stages import words_of
from proxy.decision_checks import derived, models_of, named_targets, routed_models
from proxy.placing import Placing

if TYPE_CHECKING:
    from policies.semantic import Placed
    from proxy.config import Settings
    from proxy.config_decisions import EscalatePart

UNMATCHED = "no decision matches"
DECISION = "decision: "
MOST_TOLD = 16
"""Signals written of one request."""


class Escalation(Struct, frozen=True):
    """Where a decision's doubtful answers go, and how often; see `proxy.escalating`."""

    decision: str
    entry: Entry  # the candidates further up
    below: frozenset[str]  # targets whose answers are held
    share: float
    window: int
    threshold: float  # a percentile, 0 to 1
    held: int  # bytes
    within: float  # seconds


class Plan(Struct, frozen=True):
    """Where a decision sends a request: its candidates and their order."""

    rule: str
    entry: Entry  # the candidates
    order: Order | None  # None: in their order, local first
    vetoes: tuple[Veto, ...] = ()  # of candidates that the decision shuts out
    waits: bool = True  # for a place, where all candidates are busy
    escalation: Escalation | None = None
    closed: bool = False  # nobody else may be asked, whoever else there is


class Steered(Struct, dict=True):
    """What became of one request's decisions."""

    plan: Plan
    signals: Signals
    fault: str = ""  # why the decisions could not be asked
    us: float = 0.0
    preset: str = ""  # the route, where the application itself asked for it
    scale: str = ""  # what a complexity that was read was calibrated on

    @property
    def decision(self) -> str:
        """The name of the decision that matched."""
        return self.plan.rule.removeprefix(DECISION) if self.plan.rule.startswith(DECISION) else ""

    @property
    def route(self) -> str:
        """What the request is about; "" where nobody asked."""
        if self.preset:
            return self.preset
        placed = self.signals.placed
        return "" if placed is None else placed.route or NOWHERE

    @cached_property
    def told(self) -> tuple[str, ...]:
        """The signals that were read, for records; and what went wrong."""
        rows = told(self.signals.read_so_far)[:MOST_TOLD]
        if self.signals.placed is not None:
            rows = (*rows, _seen(self.signals.placed, self.us))
        if self.scale and "complexity" in self.signals.read_so_far:
            rows = (*rows, f"scale={self.scale}")
        return (*rows, f"fault={self.fault}") if self.fault else rows


def _seen(placed: Placed, us: float) -> str:
    """What the classifier saw: the best routes, how far apart they are, the nearest utterance's number, the scope, and how
    long it all took; and what became of the second stage."""
    best = ", ".join([f"{name} {chance:.2f}" for name, chance in placed.best])
    route, number, likeness = placed.nearest
    seen = f"about={best}; margin {placed.margin:.2f}; like {route} {number + 1} by {likeness:.2f}; scope {placed.scope:+.2f}; {us:.0f} us"
    return f"{seen}; {words_of(placed.second)}" if placed.second else seen


class Steerer(Struct, frozen=True):
    """One model's decisions."""

    decisions: tuple[Declared, ...]
    plans: Mapping[str, Plan]  # by the decision's name
    unmatched: Plan
    failed: Plan
    reads: frozenset[str]
    preset: str = ""

    @property
    def decides(self) -> bool:
        """Is there anything that was declared about it?"""
        return bool(self.decisions or self.preset)

    def steer(self, signals: Signals, clock: Callable[[], int] = time.perf_counter_ns) -> Steered:
        """The plan for a request.  Raises `Pending` where a signal must be waited for."""
        began = clock()
        if self.preset:
            signals.take_route(self.preset)
        choice: Choice = first(self.decisions, signals)
        return self.steered(choice, signals, (clock() - began) / 1000)

    def steered(self, choice: Choice, signals: Signals, us: float) -> Steered:
        if choice.fault:
            return Steered(self.failed, signals, choice.fault, us, self.preset)
        plan = self.unmatched if choice.declared is None else self.plans[choice.declared.name]
        return Steered(plan, signals, "", us, self.preset)


class Steering:
    """The decisions of every model that has any, and the parts that they ask."""

    def __init__(
        self,
        steerers: Mapping[str, Steerer],
        place: Callable[[str], Placed] | None = None,
        complexity: Callable[[str], float | None] | None = None,
        scale: str = "",
    ) -> None:
        """`place` says what a text is about; a worker's is a `Placing`.  `complexity` gives a text's percentile in the
        operator's own traffic; None: it is not calibrated.  `scale` says, for records, what it was calibrated on."""
        self.steerers = steerers
        self.place = place
        self.complexity = complexity
        self._scale = scale

    def close(self) -> None:
        if isinstance(self.place, Placing):
            self.place.close()

    async def ask(self, steerer: Steerer, signals: Signals) -> Steered:
        """What one model's decisions say of a request, at the cost of the deadlines at the most."""
        try:
            steered = steerer.steer(signals)
        except Pending as pending:
            steered = await self._later(steerer, signals, pending)
        if self._scale:
            steered.scale = self._scale
        return steered

    async def _later(self, steerer: Steerer, signals: Signals, pending: Pending) -> Steered:
        assert isinstance(self.place, Placing)  # nobody else lets wait
        began = time.perf_counter_ns()
        try:
            signals.give(await self.place.answer(pending))
        except SignalFailed as failed:
            return steerer.steered(Choice(None, str(failed)), signals, (time.perf_counter_ns() - began) / 1000)
        steered = steerer.steer(signals)
        steered.us = (time.perf_counter_ns() - began) / 1000
        return steered


def build_steerers(
    settings: Settings,
    entries: Mapping[str, Entry],
    target: Callable[[str], Target],
    dearness: Callable[[Target], float],
) -> dict[str, Steerer]:
    """By public name, for each that has decisions.  `entries` are the candidates of each public name as if it had none,
    `target` gives a target by its name, `dearness` orders targets by what they cost."""
    made = {}
    order = in_order([(part.priority, part) for part in settings.decisions])
    default = named_targets(settings, settings.routing.default)
    routed = routed_models(settings)
    for name, derivation in derived(settings, entries).items():
        base = entries.get(name) or entries[derivation.of]
        if derivation.order:
            use = derivation.use or _ordered(base, derivation.order, dearness)
            made[name] = _fixed(name, base, use, target)
            continue
        parts = [part for part in order if derivation.of in models_of(settings, part)]
        if not parts and not derivation.route:
            continue
        plans = {}
        ready = []
        for part in parts:
            use = named_targets(settings, part.use)
            ready.append(declared(part.name, parse(part.when)[0], use, part.otherwise))
            plan = plan_of(f"{DECISION}{part.name}", base, use, target, part.otherwise)
            if part.escalate is not None:
                plan = replace(plan, escalation=_escalation(settings, part.name, part.escalate, use, target))
            plans[part.name] = plan
        plain = Plan(UNMATCHED, base, None)
        made[name] = Steerer(
            decisions=tuple(ready),
            plans=plans,
            unmatched=plan_of(UNMATCHED, base, default, target) if default and derivation.of in routed else plain,
            failed=plan_of("routing default", base, default, target) if default else plain,
            reads=frozenset().union(*[one.reads for one in ready]),
            preset=derivation.route,
        )
    return made


def widened(name: str, base: Entry | None, steerer: Steerer | None) -> Entry:
    """A public name with every target that may serve it, whatever is decided.  `base`: None for a name that follows from
    another."""
    if steerer is None:
        assert base is not None
        return base
    base = base or steerer.unmatched.entry
    plans = (steerer.unmatched, steerer.failed, *steerer.plans.values())
    targets = {target.name: target for plan in plans for target in plan.entry.targets}
    upper = [plan.escalation.entry for plan in plans if plan.escalation is not None]
    targets.update({target.name: target for entry in upper for target in entry.targets})
    own = {target.name: target for target in base.targets}
    return Entry(name, tuple({**own, **targets}.values()), base.sizes, base.long_at)


def _ordered(base: Entry, order: str, dearness: Callable[[Target], float]) -> tuple[str, ...]:
    targets = sorted(base.targets, key=dearness, reverse=order == "best")
    return tuple([target.name for target in targets])


def _fixed(name: str, base: Entry, use: Sequence[str], target: Callable[[str], Target]) -> Steerer:
    """A name that is an order in itself."""
    plan = plan_of(f"model: {name}", base, use, target)
    return Steerer((declared(name, All(()), use),), {name: plan}, plan, plan, frozenset())


def plan_of(
    rule: str, base: Entry, use: Sequence[str], target: Callable[[str], Target], otherwise: str = "others"
) -> Plan:
    order = Order(rule, places(use))
    own = tuple([target(name) for name in use])
    others = tuple([other for other in base.targets if other.name not in order.places])
    if otherwise == "others":
        return Plan(rule, Entry(base.name, own + others), order)
    vetoes = tuple([Veto(other.name, "decision", f"{rule} does not use it") for other in others])
    return Plan(rule, Entry(base.name, own), order, vetoes, otherwise == "wait", closed=True)


def _escalation(
    settings: Settings, decision: str, part: EscalatePart, use: Sequence[str], target: Callable[[str], Target]
) -> Escalation:
    to = named_targets(settings, part.to)
    return Escalation(
        decision=decision,
        entry=Entry(f"{DECISION}{decision}", tuple([target(name) for name in to])),
        below=frozenset(use) - frozenset(to),
        share=part.share,
        window=part.window,
        threshold=1 - part.share if part.threshold is None else part.threshold / 100,
        held=part.held,
        within=part.within,
    )
