"""A decision without sending anything: what `spillway explain` prints, and what the canaries ask."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from compliance.model import Finding
from compliance.rules import CLOUD, HOME, Facts, Labels
from compliance.rulings import Ruling
from engines.model import BadRequest, Operation, Request, Target
from policies.experiment import experiment_key
from policies.model import Decision
from policies.model import Facts as RequestFacts
from policies.signals import Signals
from proxy.addressing import Addresses
from proxy.admission import Admission
from proxy.app import (
    DIALECTS,
    build_catalog,
    build_complexity,
    build_experiments,
    build_ruleset,
    build_scanner,
    build_spending,
    build_stages,
    build_steering,
    timeouts_of,
    version,
)
from proxy.auth import LOCAL_OPEN, Principal
from proxy.choosing import Chooser, facts_of
from proxy.config import Settings
from proxy.config_rules import clinical_tenants
from proxy.drawing import Split
from proxy.drawing import explained as drawn
from proxy.errors import Refusal
from proxy.health import Fleet
from proxy.instance import signing_key
from proxy.reasoning import explained
from proxy.recording import pseudonym_key, user_of, user_pseudonym
from proxy.routing_shelves import commands_routes
from proxy.steering import Plan, Steered, Steerer, Steering
from proxy.surfaces import BY_NAME

if TYPE_CHECKING:
    from policies.semantic import Placed
    from proxy.complexity_models import Complexity
    from proxy.routing_stages import Stages

_DAY = 86_400


class Explainer:
    """Makes decisions as a worker with these settings would, its engines up and idle."""

    def __init__(self, settings: Settings, loop: asyncio.AbstractEventLoop) -> None:
        self.settings = settings
        self._steerers = build_steering(settings)
        self._splits = build_experiments(settings)
        self.catalog = build_catalog(settings, self._steerers)
        self._complexity = build_complexity(settings)
        self._stages: Stages | None = None
        self._answers: tuple[Complexity | None] | None = None  # what judges answers, once it was asked for
        self._ruleset = build_ruleset(settings)
        self._scanner = build_scanner(settings)
        self._clinical = clinical_tenants(settings)
        self._addresses = Addresses(DIALECTS, {n: timeouts_of(settings, n) for n in settings.engines}, version())
        self._chooser = Chooser(
            loop,
            Fleet(self.catalog.targets),
            Admission(loop, length=0, max_wait=0),
            build_spending(settings, None),
            self._addresses,
            steering=Steering(self._steerers, self._about, self._complexity.percentile if self._complexity else None),
        )

    def _about(self, text: str) -> Placed:
        """What a text is about; the classifier is loaded when it is asked for the first time."""
        if self._stages is None:
            self._stages = build_stages(self.settings, commands_routes(self.settings))
            assert self._stages is not None  # as a decision asks for it
            self._stages.place(text)  # so that what is timed is the asking
        return self._stages.place(text)

    def explain(self, surface_name: str, raw: bytes, principal: Principal = LOCAL_OPEN) -> dict[str, Any]:
        """The decision for a request body, unsent.  Raises `Refusal` where it would not even be looked at."""
        surface = BY_NAME[surface_name]
        assert surface.operation is not None
        try:
            request = DIALECTS[surface.dialect].parse(surface.operation, raw, {})
        except BadRequest as bad:
            raise Refusal("invalid_request", str(bad), param=bad.param) from None
        entry = self.catalog.find(request.model)
        if entry is None or not principal.may_use(request.model):
            raise Refusal("model_not_found", f"no model is called {request.model!r}", param="model")
        seen = self._scanner.inspect(request.body, health=principal.tenant in self._clinical)
        ruling = self.judge(seen.findings, principal, surface_name, request.model, health=seen.health)
        verdict = ruling.on(CLOUD)
        blocked = verdict.action == "block" and ruling.on(HOME).action == "block"
        facts = facts_of(request, verdict, structure=entry.long_at is not None)
        steered = None
        if (steerer := self._steerers.get(entry.name)) is not None:
            signals = self._chooser.signals(facts, request, ruling, principal, entry, health=seen.health)
            steerer.steer(signals)  # once to load what it asks for, once to be timed
            signals = self._chooser.signals(facts, request, ruling, principal, entry, health=seen.health)
            steered = steerer.steer(signals)
        plan = steered.plan if steered is not None else None
        experiments = None
        if (splits := self._splits.get(entry.name)) is not None:
            signals = self._chooser.signals(facts, request, ruling, principal, entry, health=seen.health)
            experiments, taken = self._drawn(splits, signals, principal, request, plan)
            plan = taken or plan
        decision = self._chooser.decide(
            facts, request, ruling, principal, plan.entry if plan is not None else entry, plan=plan
        )
        return {
            "model": request.model,
            "surface": surface_name,
            "action": verdict.action,
            "rule": verdict.rule,
            "health_context": seen.health,
            "findings": [msgspec.to_builtins(finding) for finding in verdict.findings],
            "routing": decision.rule,
            "ranked": list(decision.ranked) if not blocked else [],
            "vetoes": [msgspec.to_builtins(veto) for veto in decision.vetoes],
            "overflow": decision.overflow,
            "facts": {"prompt_tokens": facts.prompt_tokens, "needs": sorted(facts.needs), "stream": facts.stream},
            "decided": self._reasons(steered, steerer)
            if steered is not None and steerer is not None and steerer.decides
            else None,
            "experiments": experiments,
            "escalation": self._escalation(plan, decision, facts, request, ruling, principal),
            "policy": self.settings.policy_hash,
            "config": self.settings.config_hash,
            "assumed": "every engine up and idle",
        }

    def _drawn(
        self, splits: Sequence[Split], signals: Signals, principal: Principal, request: Request, decided: Plan | None
    ) -> tuple[list[dict[str, Any]], Plan | None]:
        try:
            own = signing_key(self.settings)
        except OSError:
            own = None
        pseudonyms = pseudonym_key(own.private_bytes_raw()) if own is not None else None
        user = user_of(request.body)
        actor = user_pseudonym(pseudonyms, user) if user and pseudonyms is not None else ""
        key = experiment_key(pseudonyms) if pseudonyms is not None else None
        return drawn(splits, key, signals, principal, actor, int(time.time()) // _DAY, decided)

    def _reasons(self, steered: Steered, steerer: Steerer) -> dict[str, Any]:
        return explained(steered, steerer, self.settings, self._stages, self._complexity)

    def _escalation(
        self,
        plan: Plan | None,
        decision: Decision,
        facts: RequestFacts,
        request: Request,
        ruling: Ruling,
        principal: Principal,
    ) -> dict[str, Any] | None:
        """Who is asked further up where the answer is doubtful; None where the decision has no such option."""
        option = plan.escalation if plan is not None else None
        if option is None or request.operation is not Operation.CHAT:
            return None
        up = self._chooser.decide(facts, request, ruling, principal, option.entry)
        if self._answers is None:
            from proxy.escalating import answer_scorer

            self._answers = (answer_scorer(self.settings.complexity),)
        (model,) = self._answers
        return {
            "held": bool(up.ranked) and bool(decision.ranked) and decision.ranked[0] in option.below,
            "to": list(up.ranked),
            "vetoes": [msgspec.to_builtins(veto) for veto in up.vetoes],
            "share": option.share,
            "window": option.window,
            "threshold": round(100 * option.threshold, 3),
            "calibrated": model.origin.calibrated if model is not None else None,
        }

    def judge(
        self, findings: tuple[Finding, ...], principal: Principal, surface: str, model: str, *, health: bool
    ) -> Ruling:
        """What the rules say of these findings, whatever text they might be of."""
        return self._ruleset.judge(
            findings,
            Facts(
                tenant=principal.tenant or "",
                application=principal.project,
                key=principal.name,
                surface=surface,
                model=model,
                health=health or principal.tenant in self._clinical,
                today=int(time.time()) // _DAY,
            ),
        )

    def targets(self, model: str) -> Mapping[str, tuple[Target, Labels]]:
        """The candidates of a model, with what rules may know of them."""
        entry = self.catalog.find(model)
        return {t.name: (t, self._addresses.labels(t)) for t in entry.targets} if entry is not None else {}
