"""The composition root: the only place where parts meet.

`build_worker` makes a worker from settings.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from compliance.detectors import crowd
from compliance.detectors.custom import custom_patterns
from compliance.detectors.forms import Forms
from compliance.detectors.health import HealthContext
from compliance.detectors.names import Names
from compliance.detectors.patterns import PATTERNS, Patterns
from compliance.identifiers import NAMES
from compliance.journal import Journal, JournalError, JournalFailed, load_or_create_key, read
from compliance.model import LOCAL
from compliance.records import Outcome, PolicyChanged, Started, Stopped
from compliance.rulings import Ruleset
from compliance.scan import QUICK, QUICK_LEARNED, Detector, Scanner
from engines import anthropic, openai
from engines.base import Dialect
from engines.catalog import WILDCARD, Catalog, Entry
from engines.kinds import kind
from engines.model import Target
from engines.rates import PriceList
from engines.tokens import LATEST, installed
from engines.transport import Transport
from policies.experiment import experiment_key
from proxy import pipeline
from proxy.addressing import Addresses, Timeouts
from proxy.admission import Admission
from proxy.alerts import Alerts
from proxy.answering import Answers
from proxy.attempts import Attempts
from proxy.auth import Principal
from proxy.choosing import Chooser
from proxy.config import Settings
from proxy.config_budgets import budgets_of
from proxy.config_rules import asks_everywhere, clinical_tenants, detector_of, rule_of
from proxy.counting import Counting
from proxy.deadlines import Deadlines
from proxy.decision_checks import OF_FINDINGS, OF_ROUTES, asked, candidates_of
from proxy.drawing import Split, Splitting, build_splits, undecided, with_targets
from proxy.experiment_checks import leave, shadow_targets, split_targets
from proxy.feedback import FeedbackDoor
from proxy.fingerprints import Stamps, account, changes, in_force, keep_in_force, keep_text, kept_text, stamps
from proxy.health import Fleet
from proxy.ingress import Door
from proxy.instance import instance_name as instance_name
from proxy.instance import signing_key_path as signing_key_path
from proxy.keyring import Keyring
from proxy.owners import Owners
from proxy.pipeline import Pipeline
from proxy.placing import TRUST, Placing
from proxy.pollers import HealthPoller
from proxy.prices import overrides, price_of, shipped
from proxy.projections.ledger import Ledger, Projector
from proxy.recording import Recorder, pseudonym_key
from proxy.redacting import Redactor, open_store, redacts
from proxy.routing_shelves import graphs, workers_routes
from proxy.spending import Spending
from proxy.state.keys import KeyStore
from proxy.state.leases import Leases
from proxy.state.opening import open_budgets, slot_of
from proxy.state.shelf import FileShelf, Shelves, user_shelf
from proxy.state.telling import Telling
from proxy.steering import Steerer, Steering, build_steerers, widened
from proxy.telemetry import Metrics, Telemetry
from proxy.tokenizing import IDLE, TokenProcess

if TYPE_CHECKING:
    from proxy.capturing import Capturing
    from proxy.complexity_models import Complexity
    from proxy.drifting import Watch
    from proxy.escalating import Doubting
    from proxy.remembering import Remembering
    from proxy.routing_stages import Stages
    from proxy.shadowing import Shadowing

log = logging.getLogger("spillway")

DIALECTS: Mapping[str, Dialect] = {"openai": openai.DIALECT, "anthropic": anthropic.DIALECT}
SYNC_VARIABLE = "SPILLWAY_BENCH_SYNC_MS"
"""Adds so many milliseconds to each sync of the journal: for the benchmark, which compares disks."""
KEY_POLL = 1.0  # seconds
PROOFS = 2 * TRUST
"""Texts that the classifier is tried on before the first request."""
FIRST_SLOT = "slot-0"
"""Its log tells for all of them what the policy changed to."""


def version() -> str:
    """The installed version, `+compiled` where a request's path is; "dev" where Spillway runs from its source tree."""
    try:
        installed = metadata.version("spillway")
    except metadata.PackageNotFoundError:
        return "dev"
    return installed if str(pipeline.__file__).endswith(".py") else f"{installed}+compiled"


class Worker:
    """One worker's parts, and the order in which they stop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, settings: Settings, slot: str, door: Door, pipeline: Pipeline, transport: Transport,
        journal: Journal, leases: Leases | None, projector: Projector, telemetry: Telemetry, poller: HealthPoller, deadlines: Deadlines,
        keys: KeyStore, keyring: Keyring, fleet: Fleet, redactor: Redactor, counting: Counting,
        capturing: Capturing | None = None, watch: Watch | None = None, remembering: Remembering | None = None,
        shadowing: Shadowing | None = None,
    ) -> None:  # fmt: skip
        self.settings = settings
        self.door = door
        self.pipeline = pipeline
        self.transport = transport
        self.journal = journal
        self.leases = leases
        self.fleet = fleet
        self.deadlines = deadlines
        self._loop = loop
        self._slot = slot
        self._projector = projector
        self._telemetry = telemetry
        self._poller = poller
        self._keys = keys
        self._keyring = keyring
        self._redactor = redactor
        self.counting = counting
        self._capturing = capturing
        self._remembering = remembering
        self.shadowing = shadowing
        if remembering is not None:
            remembering.start()
        self.watch = watch
        self._watch_task = loop.create_task(watch.run()) if watch is not None else None
        self._key_task = loop.create_task(self._watch_keys())

    async def drain(self, seconds: float) -> None:
        """Refuse what is new, let what is in flight end, at most for `seconds`."""
        self.pipeline.draining = self.door.draining = True
        if self.shadowing is not None:
            await self.shadowing.close()  # nobody waits for copies
        until = self._loop.time() + seconds
        while any(engine.in_flight for engine in self.fleet) and self._loop.time() < until:  # noqa: ASYNC110  once in a worker's life
            await asyncio.sleep(0.02)
        await self.door.shutdown(1.0)

    async def close(self) -> None:
        """Stop in the order of what depends on what: the journal's end settles budgets and the ledger."""
        self._key_task.cancel()
        if self.watch is not None and self._watch_task is not None:
            self._watch_task.cancel()
            await asyncio.to_thread(self.watch.close)
        self.pipeline.close()
        if self.shadowing is not None:
            await self.shadowing.close()
        await self._poller.close()
        self.deadlines.close()
        await self.counting.close()  # what waits for its count is settled and recorded
        await self.transport.close()
        if self._capturing is not None:
            await asyncio.to_thread(self._capturing.close)
        if self._remembering is not None:
            await asyncio.to_thread(self._remembering.close)
        if self.journal.healthy:
            self.journal.append(Stopped(at=_now(), slot=self._slot))
        try:
            await asyncio.to_thread(self.journal.close)
        except JournalError as error:
            log.error("%s: %s", self._slot, error)
        if self.leases is not None:
            await asyncio.to_thread(self.leases.close)
        await asyncio.to_thread(self._projector.close)
        await asyncio.to_thread(self._telemetry.close)
        await asyncio.to_thread(self._redactor.close)
        self._keys.close()

    async def _watch_keys(self) -> None:
        if self.settings.audit.witness:
            from proxy.witness import standing  # with the verifier, and pools of processes that it may use

        while True:
            await asyncio.sleep(KEY_POLL)
            if self.settings.audit.witness:
                self.pipeline.witnesses = await asyncio.to_thread(standing, Path(self.settings.state.dir))
            if self.watch is not None:
                self.pipeline.drift = self.watch.standing
            if await asyncio.to_thread(self._keys.changed):
                self._keyring.replace(all_keys(self.settings, await asyncio.to_thread(self._keys.snapshot)))


async def build_worker(settings: Settings, slot: int, loop: asyncio.AbstractEventLoop) -> Worker:
    """Make a worker: recover its journal and budgets first, then everything that stands on them."""
    state = Path(settings.state.dir)
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    name = f"slot-{slot}"
    signing_key = load_or_create_key(signing_key_path(settings))
    journal = _open_journal(settings, name, signing_key)
    journal.bind(loop)
    journal.on_trouble(partial(_say_trouble, journal, settings))
    leases = _leases(settings, name, loop, journal)
    ledger = Ledger(state / "ledger.db")
    projector = Projector(ledger, journal.origin, journal.read)
    stamped = stamps(settings, [*(price.model for price in shipped()), *settings.prices])
    await _recover(journal, leases, ledger, settings, name, stamped)
    for part in (leases, projector):
        if part is not None:
            journal.on_durable(part.on_durable)
            part.start()
    telemetry = _telemetry(settings, slot)
    telemetry.start()
    journal.on_trouble(telemetry.audit_trouble)
    steerers = build_steering(settings)
    placing = await asyncio.to_thread(build_placing, settings, telemetry.second_stage)
    complexity = await asyncio.to_thread(build_complexity, settings)
    catalog = build_catalog(settings, steerers)
    addresses = Addresses(DIALECTS, {n: timeouts_of(settings, n) for n in settings.engines}, version())
    remembering = _remembering(settings)
    recorder = Recorder(
        journal, telemetry, catalog, stamped, pseudonym_key(signing_key.private_bytes_raw()),
        keeps_local=settings.audit.on_failure == "keep_local", ended=None if remembering is None else remembering.ended,
    )  # fmt: skip
    tiktoken = build_token_counter(settings, loop)
    if tiktoken is not None and settings.limits.tokenizer == "start":
        await tiktoken.count(LATEST, [""])
    spending = build_spending(settings, leases)
    transport = Transport(loop, egress_proxy=settings.egress_proxy)
    fleet = Fleet([*catalog.targets, *cheaper_targets(settings).values()])
    admission = Admission(loop, length=settings.limits.queue.length, max_wait=settings.limits.queue.max_wait)
    deadlines = Deadlines(loop)
    scanner = build_scanner(settings)
    ruleset = build_ruleset(settings)
    redactor = Redactor(
        loop,
        await asyncio.to_thread(open_store, settings),
        scanner,
        DIALECTS,
        deadline=settings.compliance.deadline,
        redacts=redacts(settings),
    )
    capturing = _capturing(settings, journal)
    if capturing is not None:
        await asyncio.to_thread(capturing.start)
    keys = KeyStore(state / "keys.db")
    keys.changed()
    keyring = Keyring(all_keys(settings, keys.snapshot()))
    scored = (None, "") if complexity is None else (complexity.percentile, complexity.scale)
    steering = Steering(steerers, placing, *scored)
    splits = build_experiments(settings)
    drawn_by = experiment_key(pseudonym_key(signing_key.private_bytes_raw()))
    chooser = (Splitting if splits else Chooser)(
        loop,
        fleet,
        admission,
        spending,
        addresses,
        recorder,
        cheaper_targets(settings),
        steering,
    )
    if isinstance(chooser, Splitting):
        chooser.split(splits, drawn_by, journal)
    doubting = await asyncio.to_thread(build_doubting, settings, steerers, chooser)
    attempts = (Attempts if doubting is None else doubting.attempts)(
        loop=loop,
        transport=transport,
        fleet=fleet,
        admission=admission,
        deadlines=deadlines,
        recorder=recorder,
        spending=spending,
        addresses=addresses,
        redactor=redactor,
        answers=build_answers(settings, scanner, ruleset),
        max_attempts=settings.limits.attempts,
        answer_limit=settings.limits.answer,
        durable_local=settings.audit.local == "durable",
        capturing=capturing,
        asks_tokenizers=settings.limits.tokenizer != "off",
        tiktoken=tiktoken,
    )
    shadowing = _shadowing(
        settings, partial(_named, targets=_every(settings)), loop=loop, attempts=attempts, key=drawn_by, journal=journal,
        chooser=chooser, steering=steering, addresses=addresses, fleet=fleet,
        names=frozenset([entry.name for entry in catalog.entries]),
    )  # fmt: skip
    if shadowing is not None and remembering is not None:
        shadowing.remember = remembering.answered
    pipeline = Pipeline(
        loop=loop,
        keyring=keyring,
        catalog=catalog,
        dialects=DIALECTS,
        scanner=scanner,
        ruleset=ruleset,
        chooser=chooser,
        attempts=attempts if shadowing is None else shadowing,
        redactor=redactor,
        recorder=recorder,
        next_id=request_ids(),
        scan_deadline=settings.compliance.deadline,
        scan_when_needed=_scan_when_needed(settings),
        clinical=clinical_tenants(settings),
        feedback=FeedbackDoor(loop, journal, Owners(state / "ledger.db", Path(settings.audit.dir)), _now),
    )
    door = Door(
        pipeline.serve,
        loop,
        body_limit=settings.limits.body,
        header_timeout=settings.limits.header_timeout,
        body_timeout=settings.limits.body_timeout,
        stamp=[(b"x-spillway-policy", settings.policy_hash.encode())],
    )
    poller = HealthPoller(loop, transport, fleet, catalog.targets)
    poller.start()
    return Worker(
        loop,
        settings,
        name,
        door,
        pipeline,
        transport,
        journal,
        leases,
        projector,
        telemetry,
        poller,
        deadlines,
        keys,
        keyring,
        fleet,
        redactor,
        attempts.counting,
        capturing,
        watch=build_watch(settings, complexity, name, telemetry),
        remembering=remembering,
        shadowing=shadowing,
    )


# --- parts from settings -----------------------------------------------------------------------------------


def build_catalog(settings: Settings, steerers: Mapping[str, Steerer] | None = None) -> Catalog:
    """Public names -> targets.  Where no `models` are declared, each engine's model is public under its own name."""
    targets = {target.name: target for name in settings.engines for target in _targets(settings, name)}
    wildcards = tuple(target for target in targets.values() if target.model == WILDCARD)
    entries = _entries(settings, targets)
    if steerers is None:
        steerers = build_steering(settings)
    public = {name: widened(name, entries.get(name), steerers.get(name)) for name in (*entries, *steerers)}
    if settings.experiments:
        for name, entry in public.items():
            arms = [_named(one, targets) for one in split_targets(settings, name)]
            public[name] = with_targets(entry, arms) if arms else entry
    return Catalog(public, wildcards, tuple([_named(one, targets) for one in shadow_targets(settings)]))


def build_experiments(settings: Settings) -> dict[str, tuple[Split, ...]]:
    """The experiments that split requests, by public name."""
    if not settings.experiments:
        return {}
    targets = _every(settings)
    return build_splits(settings, _entries(settings, targets), partial(_named, targets=targets))


def build_steering(settings: Settings) -> dict[str, Steerer]:
    """The declared decisions of each public name that has any, or whose requests are split."""
    routed = any(not isinstance(row, tuple) for row in settings.models.values())
    if not settings.decisions and not routed and not settings.experiments:
        return {}
    targets = _every(settings)
    spending = build_spending(settings, None)

    def dearness(target: Target) -> float:
        price = None if target.boundary == LOCAL else spending.price(target)
        return 0 if price is None else price.input + price.output

    entries = _entries(settings, targets)
    found = build_steerers(settings, entries, lambda name: _named(name, targets), dearness)
    split = [entry for name, entry in entries.items() if split_targets(settings, name)]
    return {**{entry.name: undecided(entry) for entry in split}, **found}


def build_stages(settings: Settings, shelf: FileShelf | Shelves | None = None) -> Stages | None:
    """What tells routes apart, where a decision asks for it; the first time it is fitted, which may take a while."""
    if not asked(settings) & OF_ROUTES:
        return None
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from proxy.routing_stages import load_stages

    found = load_stages(
        settings.routes, settings.routing.second, shelf or workers_routes(settings), graphs(settings),
        fitting=lambda count: log.info("fitting the routes on %d utterances", count),
    )  # fmt: skip
    if found.why:
        log.error("the second stage of routes is not there: %s", found.why)
    return found


def build_placing(settings: Settings, count: Callable[[str], None] | None = None) -> Placing | None:
    """The way to it, proved on the routes' own utterances."""
    stages = build_stages(settings)
    if stages is None:
        return None
    second = settings.routing.second
    placing = Placing(
        stages.first.place, settings.routing.deadline, stages.live(second, count) if second is not None else None
    )
    texts = [text for route in settings.routes for text in (*route.utterances[:2], route.description)]
    placing.prove((texts * PROOFS)[:PROOFS])
    return placing


def build_complexity(settings: Settings) -> Complexity | None:
    """What gives a prompt's percentile in the operator's own traffic, where a decision asks for it; None: uncalibrated."""
    if settings.complexity.scorer is None or "complexity" not in asked(settings):
        return None
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from proxy.complexity_models import ScorerInvalid, load_complexity
    from proxy.routing_models import load_embedding

    try:
        prompts, _ = load_complexity(settings.complexity, *load_embedding())
    except (ScorerInvalid, OSError) as error:
        log.error("complexity is not calibrated for decisions: %s", error)
        return None
    return prompts


def build_doubting(settings: Settings, steerers: Mapping[str, Steerer], chooser: Chooser) -> Doubting | None:
    """What judges answers, where a decision lets doubtful ones go up; None: none does, and none of it is loaded."""
    if not any([part.escalate is not None for part in settings.decisions]):
        return None
    from proxy.escalating import Doubting, answer_scorer, escalations_of

    return Doubting(escalations_of(steerers), answer_scorer(settings.complexity), chooser)


# What only some configurations have is loaded where one has it.


def _remembering(settings: Settings) -> Remembering | None:
    if settings.complexity.remember is None:
        return None
    from proxy.vaulting import build_remembering

    return build_remembering(settings)


def _capturing(settings: Settings, journal: Journal) -> Capturing | None:
    if settings.audit.captures is None:
        return None
    from proxy.vaulting import build_capturing

    return build_capturing(settings, journal)


def _shadowing(settings: Settings, target: Callable[[str], Target], **parts: Any) -> Shadowing | None:
    if not settings.experiments:
        return None
    from proxy.shadowing import shadowing_of

    return shadowing_of(settings, target, **parts)


def build_watch(settings: Settings, complexity: Complexity | None, slot: str, telemetry: Telemetry) -> Watch | None:
    """What sees that traffic is no longer like the scorer's calibration; None: there is none that a decision asks for."""
    if complexity is None or complexity.origin.calibrated is None:
        return None
    from proxy.drifting import Watch

    alerts = _alerts(settings)
    if alerts is not None:
        alerts.start()
    return Watch(
        complexity.drift, complexity.origin, Path(settings.state.dir), slot, every=settings.complexity.drift_every,
        alerts=alerts, measure=telemetry.drift,
    )  # fmt: skip


def _entries(settings: Settings, targets: Mapping[str, Target]) -> dict[str, Entry]:
    """The public names, as if no decision had been declared."""
    entries: dict[str, Entry] = {}
    for public, row in settings.models.items():
        if isinstance(row, tuple):
            entries[public] = Entry(public, tuple(_named(target, targets) for target in row))
        elif row.route is True:
            entries[public] = Entry(
                public, tuple(_named(target, targets) for target in candidates_of(settings, public))
            )
        else:
            sizes = {name: "small" for name in row.route.small} | {name: "large" for name in row.route.large}
            names = dict.fromkeys((*row.route.small, *row.route.large))
            entries[public] = Entry(public, tuple(_named(n, targets) for n in names), sizes, row.route.long_at)
    if not settings.models:
        by_name: dict[str, list[Target]] = {}
        for target in sorted(targets.values(), key=lambda target: target.boundary != "local"):
            if target.model != WILDCARD:
                by_name.setdefault(target.name.partition("/")[2], []).append(target)
        entries = {public: Entry(public, tuple(found)) for public, found in by_name.items()}
    return entries


def cheaper_targets(settings: Settings) -> dict[str, Target]:
    """What budgets downgrade to, by name."""
    targets = {target.name: target for name in settings.engines for target in _targets(settings, name)}
    names = [name for budget in budgets_of(settings) for name in budget.instead]
    return {name: _named(name, targets) for name in names}


def _every(settings: Settings) -> dict[str, Target]:
    """Every target that is declared, by name."""
    return {target.name: target for name in settings.engines for target in _targets(settings, name)}


def _targets(settings: Settings, name: str) -> list[Target]:
    engine = settings.engines[name]
    row = kind(engine.kind)
    origins = tuple(url.rstrip("/") for url in engine.replicas) or ((row.url,) if row.url else ())
    made = []
    for public, model in engine.models.items():
        capabilities = set(row.capabilities)
        if model is not None:
            wanted = {
                "tools": model.tools,
                "vision": model.vision,
                "embeddings": model.embeddings,
                "json_schema": model.json_schema,
            }
            for capability, has in wanted.items():
                capabilities = (
                    capabilities | {capability}
                    if has
                    else capabilities - {capability}
                    if has is False
                    else capabilities
                )
        made.append(
            Target(
                name=f"{name}/{public}",
                engine=name,
                kind=engine.kind,
                model=(model.id if model is not None else None) or public,
                boundary=engine.boundary or row.boundary,
                origins=origins,
                capabilities=frozenset(capabilities),
                context=model.context if model is not None else None,
                max_output=model.max_output if model is not None else None,
                key=settings.secret(f"engines.{name}.key"),
                concurrency=_share(engine.concurrency, settings.listen.worker_count),
                allowed_peers=engine.peers,
                region=engine.contract.region,
                baa_until=engine.contract.baa.until if engine.contract.baa is not None else None,
                zero_retention=engine.contract.zero_retention,
            )
        )
    return made


def _named(name: str, targets: Mapping[str, Target]) -> Target:
    """A declared target, or one of a wildcard engine under the model's name."""
    found = targets.get(name)
    if found is None:
        engine, _, model = name.partition("/")
        found = msgspec.structs.replace(targets[f"{engine}/{WILDCARD}"], name=name, model=model)
    return found


def _share(concurrency: int | None, workers: int) -> int | None:
    """A worker's part of an engine's concurrency: at least one, and never more than the whole over all workers."""
    return None if concurrency is None else max(1, concurrency // workers)


def timeouts_of(settings: Settings, engine: str) -> Timeouts:
    part = settings.engines[engine].timeouts
    return Timeouts(part.connect, part.first_event, part.idle, part.total)


def build_ruleset(settings: Settings) -> Ruleset:
    return Ruleset([rule_of(part) for part in settings.compliance.rules], opaque=settings.compliance.opaque)


def build_scanner(settings: Settings) -> Scanner:
    """The detectors that the configuration asks for, loaded: some 0.1 s."""
    part = settings.compliance
    people: list[Detector] = [Names()]
    quick = QUICK
    if part.tier == "full":
        quick = QUICK_LEARNED
        # NumPy and its 11 MB are for the tier that needs them; threads of its own would take the traffic's cores.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        from compliance.detectors.learned import Learned

        people.append(Learned())
    if part.plugins:
        from proxy.plugins import load

        quick = 0  # how fast they are is not known
        people += [load(name, (*NAMES, *part.detectors)) for name in part.plugins]
    custom = custom_patterns([detector_of(name, one) for name, one in part.detectors.items()])
    shelf = user_shelf(os.environ)
    crowd.prepare(shelf)
    patterns = Patterns(custom=custom, shelf=shelf)
    return Scanner(patterns, people, HealthContext(shelf), Forms(shelf), quick=quick, always=asks_everywhere(settings))


def build_answers(settings: Settings, scanner: Scanner, ruleset: Ruleset) -> Answers:
    """What becomes of identifiers in answers; where they are held back, what they may begin with is compiled: 0.3 s."""
    part = settings.compliance.answers
    if not part.scan:
        return Answers(None, ruleset)
    if part.found == "pass":
        return Answers(scanner, ruleset)
    custom = custom_patterns([detector_of(name, one) for name, one in settings.compliance.detectors.items()])
    from compliance.detectors.openings import Openings

    openings = Openings((*PATTERNS, *custom))
    return Answers(scanner, ruleset, part.found, openings.find, people_always=asks_everywhere(settings))


def _scan_when_needed(settings: Settings) -> bool:
    """A rule that blocks must see every request; an answer is judged under its request's health context."""
    if settings.compliance.answers.found != "pass":
        return False
    if leave(settings):  # what a copy, or an arm, brings outside must have been looked at
        return False
    if asked(settings) & OF_FINDINGS:  # a decision that asks what was found must not be told that nothing was
        return False
    return settings.compliance.scan == "needed" and all(rule.action != "block" for rule in settings.compliance.rules)


def build_token_counter(settings: Settings, loop: asyncio.AbstractEventLoop) -> TokenProcess | None:
    """What counts a cloud's tokens where it did not say them; None: they are bounded by bytes."""
    chosen = settings.limits.tokenizer
    if chosen == "off" or not installed():
        return None
    return TokenProcess(loop, idle=math.inf if chosen == "start" else IDLE)


def build_spending(settings: Settings, leases: Leases | None) -> Spending:
    unpriced = None if isinstance(settings.unpriced, str) else price_of("default", settings.unpriced)
    return Spending(PriceList(shipped()), leases, PriceList(overrides(settings)), unpriced)


def all_keys(settings: Settings, stored: Mapping[str, Principal]) -> dict[str, Principal]:
    """Keys of the configuration and of the store, by hash."""
    declared = {
        part.hash.removeprefix("sha256:"): Principal(
            key=f"config:{name}", name=name, organisation=part.organisation, team=part.team, project=part.project, tenant=part.tenant,
            models=None if part.models is None else frozenset(part.models),
            boundaries=None if part.boundaries is None else frozenset(part.boundaries),
            expires=None if part.expires is None else _day_end(part.expires),
        )
        for name, part in settings.keys.items()
    }  # fmt: skip
    return {**stored, **declared}


def _day_end(day: str) -> int:
    """The end of an ISO day in UTC, in microseconds since the epoch."""
    return (int(time.mktime(time.strptime(day, "%Y-%m-%d")) - time.timezone) + 86_400) * 1_000_000


def request_ids() -> Any:
    """Unique ids: a random part for this process, and a count."""
    start = os.urandom(6).hex()
    count = iter(range(1 << 62))
    return lambda: f"{start}{next(count):08x}"


def _now() -> int:
    return time.time_ns() // 1000


# --- the journal and what stands on it ---------------------------------------------------------------------


def _open_journal(settings: Settings, slot: str, key: Any) -> Journal:
    directory = Path(settings.audit.dir)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    options: dict[str, Any] = {"lag": settings.audit.may_lag, "durable_local": settings.audit.local == "durable"}
    delay = float(os.environ.get(SYNC_VARIABLE, "0")) / 1000
    if delay:

        def slow_sync(descriptor: int) -> None:
            os.fdatasync(descriptor)
            time.sleep(delay)

        options["sync"] = slow_sync
    journal = Journal.open(directory / slot, origin=f"{instance_name(directory)}/{slot}", key=key, **options)
    if journal.unauthenticated:
        log.error(
            "%s: %d records at its end were not written by this log's key, or by halves: they are set aside in %s, in"
            " unauthenticated-*.jsonl",
            journal.origin, journal.unauthenticated, journal.directory,
        )  # fmt: skip
    if journal.unvouched:
        log.warning(
            "%s: its last %d records were left by a version that vouched for none before they were signed: they are taken as"
            " they stand", journal.origin, journal.unvouched,
        )  # fmt: skip
    with contextlib.suppress(OSError):  # an evidence pack names what was not kept
        keep_text(directory, settings.policy_hash, settings.policy_material)
        keep_text(directory, settings.config_hash, settings.config_material)
    return journal


def _say_trouble(journal: Journal, settings: Settings, why: str | None) -> None:
    """To the operator, once when it begins and once when it ends."""
    if why is None:
        lost = f"; {journal.dropped} refusals were too many to be kept" if journal.dropped else ""
        log.warning("%s: the audit log is written again%s", journal.origin, lost)
        return
    audit = settings.audit
    home = "is served by local engines where it can be" if audit.on_failure == "keep_local" else "is refused"
    rest = "so are local requests" if audit.local == "durable" else f"local requests go on for {audit.may_lag:.0f} s"
    log.error("%s: %s; what would leave %s, %s. Make room or repair the disk of %s", journal.origin, why, home, rest, audit.dir)  # fmt: skip


def _leases(settings: Settings, slot: str, loop: asyncio.AbstractEventLoop, journal: Journal) -> Leases | None:
    budgets = budgets_of(settings)
    if not budgets:
        return None
    store = open_budgets(settings)
    return Leases(
        store, slot_of(settings, slot, journal.origin), budgets, loop, history=journal.read,
        go_on=settings.state.on_failure == "go_on", on_alert=Telling(journal, _alerts(settings)),
    )  # fmt: skip


def _alerts(settings: Settings) -> Alerts | None:
    if settings.alerts is None:
        return None
    url = settings.alerts.url
    address = url if isinstance(url, str) else settings.secret("alerts.url") or ""
    return Alerts(address, settings.secret("alerts.secret"), settings.egress_proxy)


async def _recover(
    journal: Journal, leases: Leases | None, ledger: Ledger, settings: Settings, slot: str, stamped: Stamps
) -> None:
    """After a crash: say what is missing, end what was open, and settle from the log (law 13)."""
    interrupted = journal.interrupted
    journal.append(
        Started(
            actor=account(), at=_now(), config=stamped.config, cut_bytes=journal.cut_bytes, detectors=stamped.detectors,
            instance=journal.origin, interrupted=len(interrupted),
            lost_window_us=journal.may_miss, pid=os.getpid(), policy=settings.policy_hash, slot=slot,
            unauthenticated=journal.unauthenticated, unsigned=journal.unsigned, unvouched=journal.unvouched, version=version(),
        )
    )  # fmt: skip
    changed = _policy_change(settings, stamped) if slot == FIRST_SLOT else None
    if changed is not None:
        try:
            journal.append(changed)
        except JournalFailed:
            changed = None  # the next start says so
    for decision in interrupted:
        journal.append(
            Outcome(
                at=_now(), attempt=decision.attempt, boundary=decision.boundary, bytes_in=0, bytes_out=0, cache_read=0, cache_write_1h=0,
                cache_write_5m=0, committed=False, connect_us=0,
                cost=decision.hold,  # what it really cost is not known: the most that it can have
                ending="interrupted", error="interrupted", findings=(), first_us=0, hold=decision.hold, input=0, key=decision.key,
                model=decision.model, organisation=decision.organisation, output=0, price="", project=decision.project, quality="estimated",
                queue_us=0, reasoning=0, request=decision.request, scopes=decision.scopes, status=0, target=decision.target,
                team=decision.team, tenant=decision.tenant, total_us=0,
            )
        )  # fmt: skip
    last = journal.next_seq - 1
    await _until_durable(journal, last)
    if changed is not None:
        with contextlib.suppress(OSError):  # then the next start says so again
            keep_in_force(Path(settings.audit.dir), stamped.policy, stamped.config)

    def catch_up() -> None:
        if leases is not None:
            leases.recover(last)
        ledger.project(journal.origin, read(journal.directory, ledger.position(journal.origin) + 1))

    await asyncio.to_thread(catch_up)


async def _until_durable(journal: Journal, seq: int) -> None:
    """Nothing is served before the start stands in the log; on a full disk that may take until there is room."""
    while True:
        try:
            return await journal.wait_durable(seq)
        except JournalFailed:
            await asyncio.sleep(0.25)


def _policy_change(settings: Settings, stamped: Stamps) -> PolicyChanged | None:
    """What is another policy or configuration than the last that was recorded; None: it is the same."""
    logs = Path(settings.audit.dir)
    policy, config = in_force(logs)
    if (policy, config) == (stamped.policy, stamped.config):
        return None
    return PolicyChanged(
        actor=account(), at=_now(), changed=changes(kept_text(logs, config), kept_text(logs, stamped.config)), config=stamped.config,
        config_before=config, policy=stamped.policy, policy_before=policy, version=version(),
    )  # fmt: skip


def _telemetry(settings: Settings, slot: int) -> Telemetry:
    metrics = None
    if settings.telemetry.prometheus is not False:
        from prometheus_client import CollectorRegistry

        metrics = Metrics(CollectorRegistry())
    exporter = None
    if settings.telemetry.otlp is not None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter(endpoint=f"{settings.telemetry.otlp.rstrip('/')}/v1/traces")
    return Telemetry(
        metrics=metrics, exporter=exporter, sample=settings.telemetry.sample, version=version(), worker=slot
    )
