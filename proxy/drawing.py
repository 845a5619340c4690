"""Split experiments on the path: a request's arm orders its candidates, and what was drawn is written down.

An arm is a preference, never a permission: whoever may not be asked, or cannot serve, is passed over as in any decision.
Requests that one of the arms could never have served (the rules keep them local, a model lacks what they need) are drawn
like all others, and their records say that they are not to be compared: the same in both arms, so that what is compared was
still divided by chance alone.  An experiment that cannot be asked or written down takes no request, nor one for which a
decision says that nobody is to be asked but those whom it names.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from compliance.journal import Journal, JournalError
from compliance.records import Assigned
from engines.catalog import Entry
from engines.model import Target
from policies.conditions import parse
from policies.declared import declared
from policies.experiment import API, LOCAL, Draw, draw
from policies.model import Decision
from policies.signals import Signals
from proxy.auth import Principal
from proxy.choosing import Chooser, facts_of
from proxy.config_experiments import share_at
from proxy.exchange import Exchange
from proxy.experiment_checks import splits_of
from proxy.steering import UNMATCHED, Plan, Steered, Steerer, Steering, plan_of

if TYPE_CHECKING:
    from proxy.config import Settings
    from proxy.config_experiments import ExperimentPart
    from proxy.config_experiments import Split as SplitPart

SESSION_HEADER = "x-spillway-session"
LONGEST_SESSION = 256
"""Characters of a session's name that tell sessions apart."""
EXPERIMENT = "experiment: "
DAY = 86_400_000_000
"""Microseconds."""
_LASTING = frozenset({"boundary", "unredactable", "capability", "context", "unpriced", "untranslatable"})
"""Vetoes that lie in the request, not in the moment."""
_NOBODY = Plan(UNMATCHED, Entry("", ()), None)


class Gate:
    """Whether a request is one that an experiment is about, by its condition; without one, all are."""

    def __init__(self, part: ExperimentPart) -> None:
        one = declared(part.name, parse(part.when)[0], ())
        self._name = f"decision: {part.name}"
        self._steerer = None if not part.when else Steerer(
            (one,), {part.name: Plan(self._name, _NOBODY.entry, None)}, _NOBODY, _NOBODY, one.reads
        )  # fmt: skip

    def holds(self, signals: Signals) -> bool:
        """The same where no signal has to be waited for."""
        return self._steerer is None or self._steerer.steer(signals).plan.rule == self._name

    async def passes(self, signals: Signals, steering: Steering) -> bool:
        """What cannot be told is no."""
        if self._steerer is None:
            return True
        return (await steering.ask(self._steerer, signals)).plan.rule == self._name


class Split:
    """A split experiment, worked out."""

    __slots__ = ("arms", "gate", "name", "part", "plans")

    def __init__(
        self, name: str, part: SplitPart, gate: Gate, plans: Mapping[str, Plan], arms: Mapping[str, tuple[str, ...]]
    ) -> None:
        self.name = name
        self.part = part
        self.gate = gate
        self.plans = plans  # by arm
        self.arms = arms  # targets

    def drawn(
        self, key: bytes, exchange_id: str, principal: Principal, actor: str, session: str, day: int
    ) -> Drawn | None:
        """The arm of a request; None: no phase holds yet."""
        phase = share_at(self.part, day)
        if phase is None:
            return None
        kind, unit = unit_of(self.part.by, exchange_id, principal, actor, session)
        return Drawn(phase[0], kind, phase[1], draw(key, self.name, kind, unit, phase[1]))


class Drawn:
    """What came up for a request, and by which rule."""

    __slots__ = ("draw", "phase", "share", "unit_kind")

    def __init__(self, phase: int, unit_kind: str, share: float, draw: Draw) -> None:
        self.phase = phase  # from 1
        self.unit_kind = unit_kind
        self.share = share  # of local
        self.draw = draw


def unit_of(by: str, exchange_id: str, principal: Principal, actor: str, session: str) -> tuple[str, str]:
    """(kind, what stays together); a request whose user or session is not known is drawn by itself."""
    who = f"{principal.organisation}\0{principal.team}\0{principal.project}"
    if by == "key" and principal.key:
        return by, principal.key
    if by == "application" and principal.project:
        return by, who
    if by == "user" and actor:
        return by, f"{principal.organisation}\0{actor}"
    if by == "session" and session:
        return by, f"{who}\0{principal.key}\0{session[:LONGEST_SESSION]}"
    return "request", exchange_id


class Splitting(Chooser):
    """A chooser of a worker with split experiments."""

    _splits: Mapping[str, Sequence[Split]]
    _key: bytes
    _journal: Journal

    def split(self, splits: Mapping[str, Sequence[Split]], key: bytes, journal: Journal) -> None:
        """Once it is made: `splits` by public name, in the order in which they are asked; `key` draws."""
        self._splits = splits
        self._key = key
        self._journal = journal

    async def choose(
        self, exchange: Exchange, entry: Entry, *, steered: bool = True
    ) -> tuple[Decision, dict[str, Target]]:
        splits = self._splits.get(entry.name)
        if splits is None or not steered or exchange.steered is not None:
            return await super().choose(exchange, entry, steered=steered)
        found = await self._assigned(exchange, entry, splits)
        if found is None:
            return await super().choose(exchange, entry)
        split, drawn, signals = found
        if not self._journal.healthy:
            return await super().choose(exchange, entry)
        exchange.steered = Steered(split.plans[drawn.draw.arm], signals)
        try:
            return await super().choose(exchange, entry)
        finally:
            self._tell(exchange, split, drawn)

    async def _assigned(
        self, exchange: Exchange, entry: Entry, splits: Sequence[Split]
    ) -> tuple[Split, Drawn, Signals] | None:
        request, verdict, ruling, principal = exchange.request, exchange.verdict, exchange.ruling, exchange.principal
        assert request is not None and verdict is not None and ruling is not None and principal is not None
        health = exchange.facts.health if exchange.facts is not None else False
        facts = facts_of(request, verdict, structure=entry.long_at is not None)
        plan: Plan | None = None
        steerer = self._steering.steerers.get(entry.name)
        if steerer is not None and any([plan.closed for plan in steerer.plans.values()]):
            plan = await self._steer(exchange, steerer, facts, entry)
        for split in splits:
            if shut_out(split, plan):
                continue
            signals = self.signals(facts, request, ruling, principal, entry, health=health)
            if await split.gate.passes(signals, self._steering):
                session = exchange.inbound.headers.get(SESSION_HEADER, "")
                drawn = split.drawn(self._key, exchange.id, principal, exchange.actor, session, exchange.at // DAY)
                if drawn is not None:
                    return split, drawn, signals
        return None

    def _tell(self, exchange: Exchange, split: Split, drawn: Drawn) -> None:
        """Before the request's decision is: also where nobody can serve it."""
        principal, request = exchange.principal, exchange.request
        assert principal is not None and request is not None
        record = Assigned(
            arm=drawn.draw.arm, at=time.time_ns() // 1000, excluded=excluded(exchange.decision, split.arms), experiment=split.name,
            key=principal.key, model=request.model, organisation=principal.organisation, phase=drawn.phase,
            project=principal.project, propensity=drawn.draw.propensity, request=exchange.id, team=principal.team,
            tenant=principal.tenant or "", unit=drawn.draw.unit, unit_kind=drawn.unit_kind,
        )  # fmt: skip
        try:
            self._journal.append(record)
        except JournalError:
            pass  # the decision's record does not go through either, or the request is served without being compared


def shut_out(split: Split, plan: Plan | None) -> bool:
    """Does a decision say that nobody else is to be asked, and is one of the arms somebody else?"""
    if plan is None or not plan.closed:
        return False
    return not all([target in plan.entry.by_name for arm in split.arms.values() for target in arm])


def excluded(decision: Decision | None, arms: Mapping[str, tuple[str, ...]]) -> str:
    """Why a request could never have been served by one of the arms; "" where it could by both."""
    if decision is None:
        return ""
    lasting = {veto.target: veto.reason for veto in decision.vetoes if veto.reason in _LASTING}
    for arm in (API, LOCAL):
        if all([target in lasting for target in arms[arm]]):
            return lasting[arms[arm][0]]
    return ""


def build_splits(
    settings: Settings, entries: Mapping[str, Entry], target: Callable[[str], Target]
) -> dict[str, tuple[Split, ...]]:
    """The split experiments of each public name; `entries` are its candidates as if it had none."""
    return {
        name: splits for name, entry in entries.items() if (splits := tuple(_splits(settings, name, entry, target)))
    }


def _splits(settings: Settings, name: str, entry: Entry, target: Callable[[str], Target]) -> Iterator[Split]:
    for part in splits_of(settings, name):
        assert part.split is not None
        arms = {LOCAL: part.split.local, API: part.split.api}
        whole = with_targets(entry, [target(one) for one in (*part.split.local, *part.split.api)])
        plans = {
            arm: plan_of(f"{EXPERIMENT}{part.name}, {arm}", whole, targets, target) for arm, targets in arms.items()
        }
        yield Split(part.name, part.split, Gate(part), plans, arms)


def with_targets(entry: Entry, more: Sequence[Target]) -> Entry:
    """An entry that these targets may serve as well."""
    targets = {one.name: one for one in (*entry.targets, *more)}
    return Entry(entry.name, tuple(targets.values()), entry.sizes, entry.long_at)


def explained(
    splits: Sequence[Split],
    key: bytes | None,
    signals: Signals,
    principal: Principal,
    actor: str,
    day: int,
    decided: Plan | None = None,
) -> tuple[list[dict[str, Any]], Plan | None]:
    """(what each experiment would do with a request that was not sent, the plan of the first that takes it).  `decided`: the
    plan of the decision that matched.

    Without the instance's key, or where a request is drawn by itself, nobody can say which arm it would be.
    """
    rows: list[dict[str, Any]] = []
    plan: Plan | None = None
    taken = False
    for split in splits:
        phase = share_at(split.part, day)
        about = not taken and phase is not None and not shut_out(split, decided) and split.gate.holds(signals)
        row: dict[str, Any] = {"name": split.name, "takes": about, "by": split.part.by}
        if phase is not None:
            row |= {"phase": phase[0], "share": phase[1]}
        if about and phase is not None:
            taken = True
            kind, unit = unit_of(split.part.by, "", principal, actor, "")
            sure = {0.0: API, 1.0: LOCAL}.get(phase[1])
            drawn = draw(key, split.name, kind, unit, phase[1]) if key is not None and kind != "request" else None
            arm = sure or (drawn.arm if drawn is not None else None)
            row |= {"unit": kind, "arm": arm}
            plan = split.plans[arm] if arm is not None else None
        rows.append(row)
    return rows, plan


def undecided(entry: Entry) -> Steerer:
    """For a public name without decisions, so that an experiment's plan has a place to be put."""
    plain = Plan(UNMATCHED, entry, None)
    return Steerer((), {}, plain, plain, frozenset())
