"""A decision without sending anything: what `spillway explain` prints, and what the canaries ask."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from compliance.model import Finding
from compliance.rules import CLOUD, HOME, Facts, Labels, Ruling
from engines.model import BadRequest, Target
from proxy.addressing import Addresses
from proxy.admission import Admission
from proxy.app import (
    DIALECTS,
    build_catalog,
    build_complexity,
    build_ruleset,
    build_scanner,
    build_semantics,
    build_spending,
    build_steering,
    timeouts_of,
    version,
)
from proxy.auth import LOCAL_OPEN, Principal
from proxy.choosing import Chooser, facts_of
from proxy.config import Settings
from proxy.config_rules import clinical_tenants
from proxy.errors import Refusal
from proxy.health import Fleet
from proxy.steering import Steering, explained
from proxy.surfaces import BY_NAME

if TYPE_CHECKING:
    from policies.semantic import Placed

_DAY = 86_400


class Explainer:
    """Makes decisions as a worker with these settings would, its engines up and idle."""

    def __init__(self, settings: Settings, loop: asyncio.AbstractEventLoop) -> None:
        self.settings = settings
        self._steerers = build_steering(settings)
        self.catalog = build_catalog(settings, self._steerers)
        self._place: Callable[[str], Placed] | None = None
        self._classifier: str | None = None
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
            steering=Steering(self._steerers, self._about, build_complexity(settings)),
        )

    def _about(self, text: str) -> Placed:
        """What a text is about; the classifier is loaded when it is asked for the first time."""
        if self._place is None:
            found = build_semantics(self.settings)
            assert found is not None  # as a decision asks for it
            found.place(text)  # so that what is timed is the asking
            from proxy.routing_models import MODEL

            # It names the table by its own hash.
            self._classifier = hashlib.sha256(MODEL.with_suffix(".json").read_bytes()).hexdigest()[:16]
            self._place = found.place
        return self._place(text)

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
            "decided": explained(steered, self._classifier) if steered is not None else None,
            "policy": self.settings.policy_hash,
            "config": self.settings.config_hash,
            "assumed": "every engine up and idle",
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
