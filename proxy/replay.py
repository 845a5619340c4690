"""A policy run over recorded facts: where each past request would have gone, as far as its records can tell.

Nothing is scanned, classified or sent again.  What was found in a request, who asked, how large it was and what decisions
read of it stand in its records; rules, conditions in CEL over these, candidates and their order are worked out anew for
the day of the request.  Engines are as they were: one that did not answer then, or had no place, has none now; one that
was no candidate is up and idle.  What hangs on a fact that no record holds is said to be untold, never guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from compliance.model import LOCAL, Finding, Verdict
from compliance.records import Decision, Outcome, Refused
from compliance.rules import CLOUD, HOME, Facts, Labels
from compliance.rulings import Ruling
from engines.catalog import Entry
from engines.model import Target, Usage
from engines.rates import cost
from policies.complexity import size
from policies.conditions import All, Node, parse
from policies.decide import decide
from policies.model import Candidate
from policies.model import Decision as Ranking
from policies.model import Facts as Shape
from policies.replaying import Recorded, first
from policies.signals import Found, kinds_found
from proxy.addressing import Addresses
from proxy.app import (
    DIALECTS,
    all_keys,
    build_catalog,
    build_ruleset,
    build_spending,
    build_steering,
    timeouts_of,
    version,
)
from proxy.auth import LOCAL_OPEN, Principal
from proxy.config_rules import clinical_tenants, speaks_of_people
from proxy.fingerprints import detectors_version
from proxy.past import (
    DAY,
    DOUBTFUL,
    FAILED,
    READ,
    Past,
    Policies,
    Went,
    clear,
    did_fail,
    iso_day,
    kinds_of,
    leaving,
    of_shape,
    record_code,
    record_target,
    shape_of,
    states_of,
    stub,
    unseen,
    was,
)
from proxy.prices import finder, price_of
from proxy.recording import MAX_LISTED
from proxy.steering import Plan, Steerer
from proxy.surfaces import BY_NAME

if TYPE_CHECKING:
    from proxy.config import Settings

_DECIDED = frozenset({"policy_blocked", "no_eligible_target"})
"""Refusals that a policy decides; any other stands as it was, but for those that another policy might not make:"""
_UNLOOKED = frozenset({"model_not_found", "not_scannable"})
"""Refused before all of it was looked at."""
_SEEN_BY = ("engines", "models", "compliance")
"""Parts of a policy that say which models there are, and what of requests must be looked at."""
_NOT_LOOKED_AT = "what was not looked at"
"""Stands beside types of findings."""
_FINAL = frozenset({"request_rejected", "total_timeout", "answer_too_large"})
"""Errors after which no other candidate is asked."""
_OF_ROUTES = ("route", "probability", "margin")


class Untold(Exception):
    """It cannot be told where a request would go; `reason` is a word for tables, `may` which types could leave and how."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Replayed(Struct, frozen=True):
    """One request before and after."""

    request: str
    model: str
    before: Went
    after: Went


class Replayer:
    """A configuration, ready to be asked about the past."""

    def __init__(
        self,
        settings: Settings,
        stored: Mapping[str, Principal],
        percentile: Callable[[str], float | None] | None = None,
        *,
        logs: Path | None = None,
    ) -> None:
        """`stored` keys by hash; `percentile` gives the complexity of a request of which features are kept (0 to 100);
        `logs`: beside which the texts of past policies are kept, where these are not this configuration's."""
        self.settings = settings
        self._steerers = build_steering(settings)
        self._catalog = build_catalog(settings, self._steerers)
        self._ruleset = build_ruleset(settings)
        self._clinical = clinical_tenants(settings)
        self._addresses = Addresses(DIALECTS, {n: timeouts_of(settings, n) for n in settings.engines}, version())
        self._spending = build_spending(settings, None)
        self._price = finder(settings)
        self._unpriced = None if isinstance(settings.unpriced, str) else price_of("default", settings.unpriced)
        self._keys = {one.key: one for one in all_keys(settings, stored).values()} | {"": LOCAL_OPEN}
        self._nodes: dict[str, Node] = {part.name: parse(part.when)[0] for part in settings.decisions}
        self._people = speaks_of_people(settings.compliance.rules)
        self._percentile = percentile
        self._policies = Policies(settings, logs or Path(settings.audit.dir))

    @cached_property
    def detectors(self) -> str:
        """As records name the detectors of this configuration."""
        return detectors_version(self.settings)

    def replay(self, past: Past) -> Replayed:
        """Raises `Untold`."""
        before = was(past)
        after = self._would(past, before)
        self._draws(past, after)
        if self._people and after.where == "cloud" and self._not_looked_for(past.record):
            raise Untold("a rule speaks of names or places, which were not looked for in it then")
        return Replayed(past.request, past.record.model, before, after)

    def _not_looked_for(self, record: Decision | Refused) -> bool:
        return not record.health and not self._policies.looked_everywhere(record.policy)

    def may_leave(self, past: Past) -> frozenset[str]:
        """Types that the rules let leave in the clear to one of the model's targets, where it cannot be told whether they
        would; nothing of what left then."""
        record = past.record
        if record.model.startswith("~") and record_code(past) in _UNLOOKED:
            return frozenset({_NOT_LOOKED_AT})
        entry, principal = self._catalog.find(record.model), self._keys.get(record.key)
        if entry is None or principal is None:
            return frozenset()
        ruling = self._ruling(record, principal)
        steerer = self._steerers.get(entry.name)
        plans = () if steerer is None else (*steerer.plans.values(), steerer.unmatched, steerer.failed)
        targets = [target for one in (entry, *[plan.entry for plan in plans]) for target in one.targets]
        places = [self._addresses.labels(target) for target in targets] + self._drawn_to(record.model)
        return self._in_the_clear(past, ruling, principal, places) - was(past).leaves.keys()

    def _drawn_to(self, model: str) -> list[Labels]:
        """Where else this policy's experiments may bring a request."""
        parts = [part for part in self.settings.experiments if part.models is None or model in part.models]
        names = [name for part in parts if part.split is not None for name in (*part.split.local, *part.split.api)]
        names += [part.shadow.to for part in parts if part.shadow is not None]
        return [labels for name in names if (labels := self.labels_of(name)) is not None]

    @staticmethod
    def _in_the_clear(past: Past, ruling: Ruling, principal: Principal, places: Sequence[Labels]) -> frozenset[str]:
        """Types that the rules let leave in the clear to one of these targets."""
        record = past.record
        unlooked = unseen(record) or record_code(past) in _UNLOOKED
        found: set[str] = set()
        for labels in places:
            verdict = ruling.on(labels)
            if (
                labels.boundary != LOCAL
                and verdict.allows(labels.boundary, redacted=True)
                and principal.may_reach(labels.boundary)
            ):
                found |= {_NOT_LOOKED_AT} if unlooked else clear(record, verdict)
        return frozenset(found)

    def _draws(self, past: Past, after: Went) -> None:
        """Raises `Untold` where an experiment that was not there then may let more leave."""
        record = past.record
        places = self._drawn_to(record.model)
        if after.where == "refused" or not places or self._policies.same(record.policy, "experiments"):
            return
        principal = self._keys[record.key]
        found = self._in_the_clear(past, self._ruling(record, principal), principal, places)
        if found - was(past).leaves.keys() - after.leaves.keys():
            raise Untold("an experiment may draw it, and draws are not replayed")

    # --- one request --------------------------------------------------------------------------------------------

    def _would(self, past: Past, before: Went) -> Went:
        record = past.record
        if before.where == "refused" and not past.decisions and record_code(past) not in _DECIDED:
            return self._stays_refused(past, before)
        self._tellable(past)
        principal = self._keys[record.key]
        entry = self._catalog.find(record.model)
        if entry is None or not principal.may_use(record.model):
            return Went("refused", rule="model_not_found")
        if unseen(record):
            if not entry.local_only:
                raise Untold("it was not scanned: every candidate was local then")
            if past.decisions and record_target(past) in entry.by_name:
                return before
        ruling = self._ruling(record, principal)
        if ruling.on(CLOUD).action == "block" and ruling.on(HOME).action == "block":
            return Went("refused", rule="policy_blocked")
        shape = shape_of(record, ruling.on(CLOUD))
        plan = self._plan(past, entry, shape, ruling, principal)
        chosen = plan.entry if plan is not None else entry
        ranking = self._ranked(past, chosen, plan, shape, ruling, principal)
        return self._went(past, before, chosen, plan, ranking, ruling)

    def _stays_refused(self, past: Past, before: Went) -> Went:
        """What was refused for another reason than by a policy's decision, unless this policy might not refuse it."""
        record, code = past.record, record_code(past)
        if code == "budget_exceeded" and not self._policies.same(record.policy, "budgets", "prices", "unpriced"):
            raise Untold("a budget was spent then, and budgets are not replayed")
        undeclared = record.model.startswith("~")
        if code not in _UNLOOKED or (
            (undeclared or code == "not_scannable") and self._policies.same(record.policy, *_SEEN_BY)
        ):
            return before
        if undeclared:
            raise Untold("its model is not declared, and records hold no such name")
        principal = self._keys.get(record.key)
        if principal is None:
            raise Untold("its key is known no more")
        if self._catalog.find(record.model) is None or not principal.may_use(record.model):
            return Went("refused", rule="model_not_found")
        raise Untold("it was refused before all of it was looked at")

    def _tellable(self, past: Past) -> None:
        record = past.record
        principal = self._keys.get(record.key)
        if past.decisions and past.decisions[0].attempt:
            raise Untold("its first attempt lies before the records that are read")
        if record.model.startswith("~"):
            raise Untold("its model is not declared, and records hold no such name")
        if principal is None:
            raise Untold("its key is known no more")
        if len(record.findings) >= MAX_LISTED:
            raise Untold("more was found in it than records list")
        if record.surface not in BY_NAME or BY_NAME[record.surface].operation is None:
            raise Untold("it is no request of an application")
        if past.decisions and past.decisions[0].routing.startswith("budget spent"):
            raise Untold("a budget was spent then, and budgets are not replayed")
        if past.drawn:
            raise Untold("an experiment drew its target")
        tagged = self._policies.clinical(record.policy)
        if record.health and record.tenant in tagged and record.tenant not in self._clinical:
            raise Untold("its tenant was tagged with health context, so records do not say whether the text has any")

    def _ruling(self, record: Decision | Refused, principal: Principal) -> Ruling:
        kinds = kinds_of(record)
        tenant = principal.tenant or ""
        return self._ruleset.judge(
            [Finding(kind, "", 0, 0) for kind in kinds],
            Facts(
                tenant=tenant, application=principal.project, key=principal.name, surface=record.surface, model=record.model,
                health=record.health or tenant in self._clinical, today=record.at // DAY,
            ),
        )  # fmt: skip

    def _plan(self, past: Past, entry: Entry, shape: Shape, ruling: Ruling, principal: Principal) -> Plan | None:
        """What the decisions say, or None where the model has none."""
        steerer = self._steerers.get(entry.name)
        if steerer is None:
            return None
        recorded = self._recorded(past, shape, ruling, principal, steerer)
        told = first([self._nodes.get(one.name, All(())) for one in steerer.decisions], recorded)
        if told.missing:
            raise Untold(f"records do not hold its {' or '.join(told.missing)}")
        if told.fault:
            return steerer.failed
        return steerer.unmatched if told.decision is None else steerer.plans[steerer.decisions[told.decision].name]

    def _recorded(self, past: Past, shape: Shape, ruling: Ruling, principal: Principal, steerer: Steerer) -> Recorded:
        record = past.record
        health = record.health or (principal.tenant or "") in self._clinical  # a ruling over nothing found says no
        known: dict[str, Any] = {
            "found": kinds_found(Found(kinds_of(record), health)),
            "health": health, "model": record.model, "tenant": principal.tenant or "", "team": principal.team,
            "organisation": principal.organisation, "application": principal.project, "key": principal.name,
            **of_shape(record, shape),
        }  # fmt: skip
        said: dict[str, bool] = {}
        failed: set[str] = set()
        for row in record.signals if isinstance(record, Decision) else ():
            name, _, word = row.partition("=")
            if name == "fault":
                failed.update(FAILED.findall(word))
                failed.update(_OF_ROUTES if "route" in failed else ())
            elif name.startswith("keywords("):
                said[name] = word == "yes"
            elif name in READ and name not in known:
                known[name] = READ[name](word)
        if not self._policies.same_routes(record.policy):
            for name in _OF_ROUTES:
                known.pop(name, None)
        if not self._policies.same_scorer(record.policy):
            known.pop("complexity", None)
        if "complexity" in steerer.reads and "complexity" not in known and self._percentile is not None:
            found = self._percentile(past.request)
            if found is not None:
                known["complexity"] = found
        if steerer.preset:
            known |= {"route": steerer.preset, "probability": 1.0, "margin": 1.0}
        return Recorded(known, said, frozenset(failed))

    def _ranked(
        self, past: Past, entry: Entry, plan: Plan | None, shape: Shape, ruling: Ruling, principal: Principal
    ) -> Ranking:
        states = states_of(past)
        request = stub(past.record, shape)
        unsaid = shape.prompt_tokens < 0
        candidates = []
        for target in entry.targets:
            verdict = ruling.on(self._addresses.labels(target))
            state = states.get(target.name, "")
            barred = state in ("unredactable", "pseudonyms") or (
                target.boundary != LOCAL and "audit_unavailable" in states.values()
            )
            if unsaid and target.context is not None:
                raise Untold("records do not hold its size, which a target's context is compared with")
            candidates.append(
                Candidate(
                    target=target.name, engine=target.engine, boundary=target.boundary, capabilities=target.capabilities,
                    context=target.context,
                    permitted=verdict.allows(target.boundary, redacted=not barred) and principal.may_reach(target.boundary),
                    barred=(state, "") if barred else None, healthy=state != "unhealthy", in_flight=int(state == "saturated"),
                    concurrency=1 if state == "saturated" else None, priced=self._spending.priced(target, request),
                    translatable=self._addresses.reachable(target, request), size=entry.sizes.get(target.name),
                )
            )  # fmt: skip
        if plan is not None and plan.order is not None:
            return decide(shape, candidates, steering=plan.order)
        if entry.long_at is None:
            return decide(shape, candidates)
        return decide(
            shape, candidates, routing=size(self._sized(past.record, shape, entry.long_at), long_at=entry.long_at)
        )

    @staticmethod
    def _sized(record: Decision | Refused, shape: Shape, long_at: int) -> Shape:
        """With what is known of code in it, where the size hangs on that."""
        if shape.prompt_tokens < 0:
            raise Untold("records do not hold its size")
        plain = size(shape, long_at=long_at).size == "small"
        routing = record.routing if isinstance(record, Decision) else ""
        if not plain or routing.startswith("complexity: small"):
            return shape
        if routing == "complexity: large (holds code)":
            return Shape(**{name: getattr(shape, name) for name in shape.__struct_fields__} | {"has_code": True})
        raise Untold("records do not hold whether there is code in it")

    def _went(
        self, past: Past, before: Went, entry: Entry, plan: Plan | None, ranking: Ranking, ruling: Ruling
    ) -> Went:
        record = past.record
        ranked = list(ranking.ranked)
        if not ranked and (plan is None or plan.waits):  # it would wait for a place, and get one
            ranked = [veto.target for veto in ranking.vetoes if veto.reason == "saturated"][:1]
        rule = ranking.rule
        if not ranked:
            return Went("refused", rule="no_eligible_target")
        tried = self._tried(past, ranked)
        same = bool(past.decisions) and ranked[0] == past.decisions[0].target and self._goes_on(past, tried)
        reads = plan.escalation if plan is not None else None
        if reads is not None and ranked[0] in reads.below and not (same and self._read_alike(record, reads.decision)):
            raise Untold("a decision reads its answer, and no record says how doubtful that is")
        if same:
            return self._as_it_was(past, before, entry, ruling, rule, goes_up=reads is not None)
        targets = [entry.by_name[name] for name in tried]
        leaves = leaving(
            [(target.name, target.boundary, clear(record, self._verdict(ruling, target))) for target in targets]
        )
        last = targets[-1]
        where = LOCAL if last.boundary == LOCAL else "cloud"
        return Went(where, last.name, rule, self._cost(past, last), leaves)

    @staticmethod
    def _failed(past: Past) -> dict[str, Outcome]:
        """What did not answer, by target."""
        ended = [(one.target, past.outcomes.get(one.attempt)) for one in past.decisions]
        return {target: outcome for target, outcome in ended if outcome is not None and did_fail(outcome)}

    def _tried(self, past: Past, ranked: Sequence[str]) -> list[str]:
        """Those of the ranked that would be asked, one after another: what failed then fails again."""
        failed, tried = self._failed(past), []
        for name in ranked[: self.settings.limits.attempts]:
            tried.append(name)
            if name not in failed or failed[name].error in _FINAL:
                break
        return tried

    def _goes_on(self, past: Past, tried: Sequence[str]) -> bool:
        """Would the same targets be asked, one after another, as were then?  Under the same policy they would, whatever kept
        one of them from being asked."""
        asked = [one.target for one in past.decisions if not one.routing.endswith(DOUBTFUL)]
        return past.record.policy == self.settings.policy_hash or len(tried) == 1 == len(asked) or tried == asked

    def _read_alike(self, record: Decision | Refused, decision: str) -> bool:
        """Was its answer read as this decision would have it read?"""
        if not isinstance(record, Decision):
            return False
        now = next((part.escalate for part in self.settings.decisions if part.name == decision), None)
        then = self._policies.escalation(record.policy, record.decision)
        return now is not None and then == now.model_dump(mode="json")

    def _as_it_was(self, past: Past, before: Went, entry: Entry, ruling: Ruling, rule: str, *, goes_up: bool) -> Went:
        """The same first choice: what came after it stays as it was, but for targets that text may not go to any more, and
        for doubtful answers where none is asked for again (`goes_up`)."""
        known = self._catalog.targets
        by_name = {target.name: target for target in (*known, *entry.targets)}
        rows = []
        going = [one for one in past.decisions if goes_up or not one.routing.endswith(DOUBTFUL)]
        if len(going) < len(past.decisions):  # the answer that was held then would have gone out
            last, spent = (
                going[-1],
                sum([one.cost for at, one in past.outcomes.items() if at in {d.attempt for d in going}]),
            )
            before = Went(LOCAL if last.boundary == LOCAL else "cloud", last.target, before.rule, spent)
        for one in going:
            target = by_name.get(one.target)
            if target is None:
                continue
            verdict = self._verdict(ruling, target)
            if verdict.allows(target.boundary, redacted=True):
                rows.append((target.name, target.boundary, clear(past.record, verdict)))
        if not rows or rows[-1][0] != going[-1].target:
            if before.where == "refused":
                return Went("refused", before.target, before.rule, before.cost, leaving(rows))
            return Went("refused", rule="no_eligible_target", leaves=leaving(rows))
        return Went(
            before.where, before.target, rule if before.where != "refused" else before.rule, before.cost, leaving(rows)
        )

    def _verdict(self, ruling: Ruling, target: Target) -> Verdict:
        return ruling.on(self._addresses.labels(target))

    def _cost(self, past: Past, target: Target) -> int | None:
        """What the recorded tokens cost there on that day."""
        if target.boundary == LOCAL:
            return 0
        ended = [past.outcomes[one.attempt] for one in past.decisions if one.attempt in past.outcomes]
        used = next((one for one in reversed(ended) if one.input or one.output or one.cache_read), None)
        price = self._price(target.name, iso_day(past.at)) or self._unpriced
        if used is None or price is None:
            return None
        usage = Usage(
            input=used.input, cache_read=used.cache_read, cache_write_5m=used.cache_write_5m, cache_write_1h=used.cache_write_1h,
            output=used.output, reasoning=used.reasoning, audio_input=used.audio_input, audio_output=used.audio_output,
        )  # fmt: skip
        return cost(usage, price)

    def labels_of(self, target: str) -> Labels | None:
        """What rules know of a target of this configuration."""
        engine = target.partition("/")[0]
        found = next((one for one in self._catalog.targets if one.name == target), None) or next(
            (one for one in self._catalog.targets if one.engine == engine), None
        )
        return None if found is None else self._addresses.labels(found)
