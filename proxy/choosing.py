"""From a request and the state of the engines to a decision: facts in, `policies.decide` out.

Where the only thing that speaks against every local candidate is that it is busy, the request waits for a
place and is decided again, because the world changed while it waited.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from functools import partial

from msgspec.structs import replace

from compliance.model import LOCAL, Verdict
from compliance.rules import Labels
from compliance.rulings import Ruling
from engines.catalog import Entry
from engines.model import Request, Target
from policies.complexity import estimate_tokens, looks_like_code, size
from policies.decide import decide
from policies.model import Candidate, Decision, Facts, Veto
from policies.signals import Found, Signals, Who, names_of
from proxy.addressing import Addresses
from proxy.admission import Admission
from proxy.auth import Principal
from proxy.errors import Refusal
from proxy.exchange import Exchange, NotRedacted, Redaction
from proxy.health import EngineState, Fleet
from proxy.recording import MEDIA, Recorder
from proxy.spending import OutOfBudget, Spending
from proxy.steering import Plan, Steerer, Steering

_BASE64 = re.compile(rb"[A-Za-z0-9+/=]{256,}")
_AT_HOME = frozenset({"boundary", "unredactable"})
_PERMANENT = _AT_HOME | {"decision", "capability", "context", "unpriced", "untranslatable"}
Redactions = Mapping[Labels, Redaction | NotRedacted]
_NONE_TRIED: Redactions = {}

UNRECORDED = ("audit_unavailable", "the log cannot be written")
MAX_ENTRIES = 8192
"""Catalogue entries whose candidates are kept; of more, they are made anew for each request (law 10)."""


class _Runner:
    """One candidate of an entry, with where its state comes from."""

    __slots__ = ("candidate", "engine", "labels", "local", "target")

    def __init__(self, candidate: Candidate, target: Target, engine: EngineState, labels: Labels) -> None:
        self.candidate = candidate
        self.target = target
        self.engine = engine
        self.labels = labels
        self.local = target.boundary == LOCAL


class _Field:
    """All who may run for one entry."""

    __slots__ = ("candidates", "entry", "runners")

    def __init__(self, entry: Entry, runners: list[_Runner]) -> None:
        self.entry = entry
        self.runners = runners
        self.candidates = [runner.candidate for runner in runners]


class Chooser:
    """Gathers the facts and asks for the decision; one object a worker."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        fleet: Fleet,
        admission: Admission,
        spending: Spending,
        addresses: Addresses,
        recorder: Recorder | None = None,
        cheaper: Mapping[str, Target] | None = None,
        steering: Steering | None = None,
    ) -> None:
        self._steering = steering if steering is not None else Steering({})
        self._recorder = recorder
        self._cheaper = cheaper or {}  # what budgets downgrade to, by name
        self._reduced: dict[tuple[str, tuple[str, ...]], Entry] = {}
        self._loop = loop
        self._fleet = fleet
        self._admission = admission
        self._spending = spending
        self._addresses = addresses
        self._runners: dict[int, _Field] = {}  # by the entry's identity, which it keeps alive

    async def choose(
        self, exchange: Exchange, entry: Entry, *, steered: bool = True
    ) -> tuple[Decision, dict[str, Target]]:
        """The decision, with at least one ranked target; raises `Refusal` where there is none.

        Unless `steered`, the entry's candidates stand, and the operator's decisions are not asked.
        """
        request, verdict, ruling, principal = exchange.request, exchange.verdict, exchange.ruling, exchange.principal
        assert request is not None and verdict is not None and ruling is not None and principal is not None
        redactions = exchange.redactions
        facts = facts_of(request, verdict, structure=entry.long_at is not None)
        plan = None
        if steered and (steerer := self._steering.steerers.get(entry.name)) is not None:
            plan = await self._steer(exchange, steerer, facts, entry)
            entry = plan.entry
        targets = entry.by_name
        decision = exchange.decision = self.decide(facts, request, ruling, principal, entry, redactions, plan)
        if decision.ranked:
            return decision, targets
        began = self._loop.time()
        while not decision.ranked:
            busy = next((veto.target for veto in decision.vetoes if veto.reason == "saturated"), None)
            if busy is None or (plan is not None and not plan.waits):
                raise _nowhere(request, verdict, decision)
            await self._admission.wait(self._fleet[targets[busy].engine])
            decision = exchange.decision = self.decide(facts, request, ruling, principal, entry, redactions, plan)
            exchange.queue_us = int((self._loop.time() - began) * 1_000_000)
        return decision, targets

    async def instead(self, exchange: Exchange, entry: Entry, broke: OutOfBudget) -> tuple[Decision, dict[str, Target]]:
        """What a spent budget still allows: local targets (which are waited for), or cheaper ones; raises `broke` where
        it allows nothing, or none of that can serve."""
        budget = broke.spent.budget if broke.spent is not None else None
        if budget is None or budget.at_limit == "refuse":
            raise broke
        if exchange.steered is not None:
            entry = exchange.steered.plan.entry
        home = budget.at_limit == "local_only"
        targets = [target for target in entry.targets if target.boundary == LOCAL]
        if not home:
            targets = [self._cheaper[name] for name in budget.instead if name in self._cheaper]
        key = (entry.name, tuple([target.name for target in targets]))
        reduced = self._reduced.get(key)
        if reduced is None:
            reduced = replace(entry, targets=tuple(targets)) if home else Entry(entry.name, tuple(targets))
            if len(self._reduced) < MAX_ENTRIES:
                self._reduced[key] = reduced
        try:
            decision, by_name = await self.choose(exchange, reduced, steered=False)
        except Refusal as refusal:
            if refusal.code == "no_eligible_target":
                raise broke from None
            raise
        dear = [target.name for target in entry.targets if target.name not in by_name]
        vetoes = [Veto(name, "budget", str(broke.spent)) for name in dear if home or name not in decision.ranked]
        decision = exchange.decision = replace(
            decision, rule=f"budget spent: {budget.at_limit}", vetoes=(*decision.vetoes, *vetoes)
        )
        return decision, by_name

    def decide(
        self,
        facts: Facts,
        request: Request,
        ruling: Ruling,
        principal: Principal,
        entry: Entry,
        redactions: Redactions = _NONE_TRIED,
        plan: Plan | None = None,
    ) -> Decision:
        """One pure decision over the state as it is now.  What was not tried yet is taken to be redactable."""
        now = self._loop.time()
        field = self._runners.get(id(entry)) or self._field_of(entry)
        for runner in field.runners:
            self._update(runner, request, ruling, principal, redactions, now)
        candidates = field.candidates
        if plan is not None and plan.order is not None:
            decision = decide(facts, candidates, steering=plan.order)
            return replace(decision, vetoes=(*decision.vetoes, *plan.vetoes)) if plan.vetoes else decision
        if entry.long_at is None:
            return decide(facts, candidates)
        return decide(facts, candidates, routing=size(facts, long_at=entry.long_at))

    def close(self) -> None:
        """No classifier is asked any more."""
        self._steering.close()

    async def _steer(self, exchange: Exchange, steerer: Steerer, facts: Facts, entry: Entry) -> Plan:
        """Where the operator's decisions send it: asked once a request, whatever happens to its attempts."""
        if exchange.steered is None:
            request, ruling, principal = exchange.request, exchange.ruling, exchange.principal
            assert request is not None and ruling is not None and principal is not None
            health = exchange.facts.health if exchange.facts is not None else False
            signals = self.signals(facts, request, ruling, principal, entry, health=health)
            exchange.steered = await self._steering.ask(steerer, signals)
        return exchange.steered.plan

    def signals(
        self, facts: Facts, request: Request, ruling: Ruling, principal: Principal, entry: Entry, *, health: bool
    ) -> Signals:
        """What decisions may ask about a request."""
        return Signals(
            facts,
            request.body,
            Who(principal.tenant or "", principal.team, principal.organisation, principal.project, principal.name),
            Found(names_of(ruling.findings), health),
            place=self._steering.place,
            complexity=self._steering.complexity,
            load=partial(self._load, entry),
        )

    def _load(self, entry: Entry) -> float | None:
        """The part of the local engines' places that is taken now, in this worker; None: none of them has a limit."""
        engines = {target.engine: self._fleet[target.engine] for target in entry.targets if target.boundary == LOCAL}
        limited = [(engine.in_flight, engine.concurrency) for engine in engines.values() if engine.concurrency]
        places = sum([limit for _, limit in limited])
        return sum([taken for taken, _ in limited]) / places if places else None

    def _update(
        self,
        runner: _Runner,
        request: Request,
        ruling: Ruling,
        principal: Principal,
        redactions: Redactions,
        now: float,
    ) -> None:
        """Write into the candidate what it is at this instant, for this request."""
        candidate, target, engine = runner.candidate, runner.target, runner.engine
        verdict = ruling.on(runner.labels)
        failed = redactions.get(runner.labels) if redactions else None
        if isinstance(failed, NotRedacted):
            allowed, candidate.barred = verdict.allows(target.boundary), (failed.reason, failed.detail)
        else:
            allowed, candidate.barred = verdict.allows(target.boundary, redacted=True), None
        candidate.permitted = allowed and principal.may_reach(target.boundary)
        candidate.healthy = engine.healthy(now)
        candidate.in_flight = engine.in_flight
        candidate.translatable = self._addresses.reachable(target, request)
        if not runner.local:
            candidate.priced = self._spending.priced(target, request)
            if self._recorder is not None and self._recorder.home_only:
                candidate.permitted, candidate.barred = False, UNRECORDED

    def _field_of(self, entry: Entry) -> _Field:
        runners = []
        for target in entry.targets:
            engine = self._fleet[target.engine]
            candidate = Candidate(
                target=target.name,
                engine=target.engine,
                boundary=target.boundary,
                capabilities=target.capabilities,
                context=target.context,
                permitted=False,
                concurrency=engine.concurrency,
                size=entry.sizes.get(target.name),
            )
            runners.append(_Runner(candidate, target, engine, self._addresses.labels(target)))
        field = _Field(entry, runners)
        if len(self._runners) < MAX_ENTRIES:
            self._runners[id(entry)] = field
        return field


def facts_of(request: Request, verdict: Verdict, *, structure: bool) -> Facts:
    """What a decision may read of a request: sizes and shapes, never its text.

    `structure` looks whether there is code: only where a decision in force asks.
    """
    body = request.body
    messages = body.get("messages")
    size_bytes = len(request.raw)
    text_bytes = size_bytes
    if request.needs & MEDIA:  # an image's base64 is no text, and would fill any context
        text_bytes -= sum(len(run) for run in _BASE64.findall(request.raw))
    return Facts(
        model=request.model,
        operation=request.operation,
        needs=request.needs,
        prompt_bytes=size_bytes,
        prompt_tokens=estimate_tokens(text_bytes),
        max_output=request.max_output,
        messages=len(messages) if isinstance(messages, list) else 0,
        stream=request.stream,
        has_code=structure and looks_like_code(_last_text(messages)),
        has_tools="tools" in request.needs,
        action=verdict.action,
        rule=verdict.rule,
    )


def _last_text(messages: object) -> str:
    """The text of the last message: what is asked now."""
    last = messages[-1] if isinstance(messages, list) and messages else None
    content = last.get("content") if isinstance(last, dict) else None
    if isinstance(content, list):
        content = next((part.get("text") for part in content if isinstance(part, dict) and "text" in part), None)
    return content if isinstance(content, str) else ""


def _nowhere(request: Request, verdict: Verdict, decision: Decision) -> Refusal:
    """Why nothing can answer, in words for the developer who reads the error."""
    reasons = {veto.reason for veto in decision.vetoes}
    if UNRECORDED[0] in reasons:
        text = "The audit log cannot be written, so nothing leaves, and no local engine can take this."
        return Refusal("audit_unavailable", text, retry_after=5)
    listed = "; ".join(
        f"{veto.target}: {veto.reason}{f' ({veto.detail})' if veto.detail else ''}" for veto in decision.vetoes
    )
    if verdict.action in ("keep_local", "redact") and reasons & _AT_HOME:
        text = f"This prompt must stay local (rule {verdict.rule!r}), and no local engine can take it: {listed}."
    else:
        text = f"No engine can take this request for model {request.model!r}: {listed}."
    if reasons <= _PERMANENT:
        status = 403 if reasons & _AT_HOME else 400
        return Refusal("no_eligible_target", text, status=status, final=True)
    return Refusal("no_eligible_target", text, retry_after=2)
