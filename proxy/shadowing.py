"""Shadow experiments: a random share of answered requests also goes to another target, and the answers are compared.

Nothing of it is on the client's path: the copy begins when the client has its answer, in a task of its own, of which there
are few; where all are taken a copy is left out, and that is written down.  A copy is an attempt like any other: the same
verdict must allow its target, its cost is reserved, and its decision is on the disk before a byte is sent (laws 1 to 4).  It
is charged to the experiment, not to the application: its project and its key are `experiment:NAME`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

from compliance.journal import Journal, JournalError
from compliance.model import LOCAL
from compliance.records import Shadowed
from engines.base import Dialect
from engines.catalog import Entry
from engines.model import Operation, Target
from policies.experiment import MILLION, number
from policies.model import Decision
from policies.signals import last_said
from proxy.addressing import Addresses
from proxy.attempts import Attempts, Failure
from proxy.auth import Principal
from proxy.choosing import Chooser, facts_of
from proxy.comparing import FULL, NOT_COMPARED, Said, judge_body, preferred, said, score
from proxy.config_budgets import EXPERIMENT
from proxy.drawing import Gate
from proxy.exchange import Attempt, ClientSink, Exchange
from proxy.faults import describe
from proxy.heads import Head, Told
from proxy.health import Fleet
from proxy.spending import OutOfBudget
from proxy.steering import Steering
from proxy.surfaces import Surface

if TYPE_CHECKING:
    from proxy.config import Settings
    from proxy.config_experiments import Shadow as ShadowPart

log = logging.getLogger("spillway")

LONGEST_ANSWER = 256 * 1024
"""Bytes of an answer that are kept until it is compared; a longer one is not compared."""
MOST_HELD = 64
"""Requests that are drawn and whose answer is on its way, in each worker."""
SHADOW = "shadow"
"""The surface of copies, as records have it."""
PATIENCE = 300.0
"""Seconds that a copy may take, whatever its engine's own timeouts are."""


class Remember(Protocol):
    def __call__(self, exchange: Exchange, dialect: Dialect, *, streamed: bool, body: bytes) -> None: ...


class Tee:
    """The client's side of an answer, of which the bytes are kept as well."""

    __slots__ = ("_parts", "_sink", "cut", "size", "status", "streamed")

    def __init__(self, sink: ClientSink) -> None:
        self._sink = sink
        self._parts: list[bytes] = []
        self.size = 0
        self.cut = False
        self.status = 0
        self.streamed = False

    @property
    def kept(self) -> bytes:
        return b"".join(self._parts)

    @property
    def started(self) -> bool:
        return self._sink.started

    @started.setter
    def started(self, value: bool) -> None:
        self._sink.started = value

    @property
    def bytes_out(self) -> int:
        return self._sink.bytes_out

    @bytes_out.setter
    def bytes_out(self, value: int) -> None:
        self._sink.bytes_out = value

    @property
    def on_resume(self) -> Callable[[], None] | None:
        return self._sink.on_resume

    @on_resume.setter
    def on_resume(self, value: Callable[[], None] | None) -> None:
        self._sink.on_resume = value

    def whole(self, status: int, head: bytes, body: bytes) -> None:
        self.status = status
        self._keep(body)
        self._sink.whole(status, head, body)

    def begin(self, status: int, head: bytes, first: bytes) -> bool:
        self.status, self.streamed = status, True
        self._keep(first)
        return self._sink.begin(status, head, first)

    def write(self, data: bytes) -> bool:
        self._keep(data)
        return self._sink.write(data)

    def finish(self) -> None:
        self._sink.finish()

    def abort(self) -> None:
        self.cut = True
        self._sink.abort()

    def _keep(self, data: bytes) -> None:
        self.size += len(data)
        if self.size > LONGEST_ANSWER:
            self.cut = True
            self._parts.clear()
        elif not self.cut:
            self._parts.append(data)


class _Nobody:
    """Where a copy's answer goes: nowhere.  A `Tee` over it keeps what is compared."""

    __slots__ = ("bytes_out", "on_resume", "started")

    def __init__(self) -> None:
        self.on_resume: Callable[[], None] | None = None
        self.started = False
        self.bytes_out = 0

    def whole(self, status: int, head: bytes, body: bytes) -> None:
        self.started = True

    def begin(self, status: int, head: bytes, first: bytes) -> bool:
        self.started = True
        return False

    def write(self, data: bytes) -> bool:
        return False

    def finish(self) -> None: ...
    def abort(self) -> None: ...


class _Copied:
    """A request's head as a copy has it: nothing of the client's but its query."""

    __slots__ = ("head", "peer")

    def __init__(self, query: str) -> None:
        self.peer = ""
        self.head = Head("POST", f"?{query}", {}, http10=False, closes=False)

    @property
    def headers(self) -> Mapping[str, str]:
        return self.head.headers

    def stated_length(self) -> int:
        return 0

    def arrived(self) -> bytes:
        return b""

    async def body(self) -> bytes:
        return b""


class Shadow(Struct, frozen=True):
    """A shadow experiment, worked out."""

    name: str
    part: ShadowPart
    models: frozenset[str] | None
    gate: Gate
    entry: Entry  # its target alone
    judge: Entry | None = None  # likewise

    @property
    def target(self) -> Target:
        return self.entry.targets[0]

    def is_about(self, attempt: Attempt) -> bool:
        """Was it answered by what the experiment compares with its target?"""
        answered, wanted = attempt.target, self.part.source
        if answered.name == self.target.name:
            return False
        return wanted is None or wanted in (answered.name, answered.engine)


class Shadowing:
    """Stands before the attempts of a worker with shadow experiments."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        attempts: Attempts,
        shadows: Sequence[Shadow],
        *,
        key: bytes,
        journal: Journal,
        chooser: Chooser,
        steering: Steering,
        addresses: Addresses,
        fleet: Fleet,
        names: frozenset[str],
    ) -> None:
        """`names` are the public names of the configuration: others are not written down."""
        self._loop = loop
        self._attempts = attempts
        self._shadows = shadows
        self._key = key
        self._journal = journal
        self._chooser = chooser
        self._steering = steering
        self._addresses = addresses
        self._fleet = fleet
        self._names = names
        self._tasks: dict[str, set[asyncio.Task[None]]] = {shadow.name: set() for shadow in shadows}
        self._held = 0
        self._closed = False
        self.ready = attempts.ready
        self.remember: Remember | None = None  # the weaker answer of two that are compared, where it is learnt from

    @property
    def running(self) -> int:
        """Copies that are under way."""
        return sum(map(len, self._tasks.values()))

    async def run(self, exchange: Exchange, decision: Decision, targets: dict[str, Target]) -> None:
        """The attempts, as without experiments; where a request is drawn, its copy is begun after it."""
        drawn = self._drawn(exchange)
        if not drawn or self._closed:
            await self._attempts.run(exchange, decision, targets)
            return
        if self._held >= MOST_HELD:
            await self._attempts.run(exchange, decision, targets)
            self._leave_out(drawn, exchange)
            return
        tee = Tee(exchange.sink)
        exchange.sink = tee
        self._held += 1
        try:
            await self._attempts.run(exchange, decision, targets)
        finally:
            self._held -= 1
        given = _given(exchange)
        if given is not None and given.ending == "completed" and tee.status == 200:
            for shadow in drawn:
                self._begin(shadow, exchange, given, tee)

    async def close(self) -> None:
        """No copy is begun any more; those under way end, and are recorded as abandoned."""
        self._closed = True
        tasks = [task for tasks in self._tasks.values() for task in tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- what is drawn ------------------------------------------------------------------------------------------

    def _drawn(self, exchange: Exchange) -> list[Shadow]:
        request = exchange.request
        assert request is not None
        if request.operation is not Operation.CHAT:
            return []
        return [
            shadow
            for shadow in self._shadows
            if (shadow.models is None or request.model in shadow.models)
            and number(self._key, shadow.name, SHADOW, exchange.id)[0] < shadow.part.share
        ]

    def _leave_out(self, drawn: Sequence[Shadow], exchange: Exchange) -> None:
        for shadow in drawn:
            given = _given(exchange)
            if given is not None and shadow.is_about(given):
                self._tell(shadow, exchange, why="busy")

    def _begin(self, shadow: Shadow, exchange: Exchange, given: Attempt, tee: Tee) -> None:
        tasks = self._tasks[shadow.name]
        if self._closed or not shadow.is_about(given):
            return
        if len(tasks) >= shadow.part.running:
            self._tell(shadow, exchange, why="busy")
            return
        task = self._loop.create_task(self._copy(shadow, exchange, given, tee))
        tasks.add(task)
        task.add_done_callback(lambda done: self._ended(tasks, done))

    def _ended(self, tasks: set[asyncio.Task[None]], task: asyncio.Task[None]) -> None:
        tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("unforeseen in a copy for an experiment: %s", describe(error))

    # --- a copy -------------------------------------------------------------------------------------------------

    async def _copy(self, shadow: Shadow, exchange: Exchange, given: Attempt, tee: Tee) -> None:
        request, verdict, ruling, principal = exchange.request, exchange.verdict, exchange.ruling, exchange.principal
        assert request is not None and verdict is not None and ruling is not None and principal is not None
        health = exchange.facts.health if exchange.facts is not None else False
        facts = facts_of(request, verdict, structure=False)
        signals = self._chooser.signals(facts, request, ruling, principal, shadow.entry, health=health)
        if not await shadow.gate.passes(signals, self._steering):
            return
        if _shut_out(shadow.target, exchange):
            self._tell(shadow, exchange, why="decision")
            return
        if ruling.on(self._addresses.labels(shadow.target)).action == "redact":
            self._tell(shadow, exchange, why="redacted")  # the answer to another text compares nothing
            return
        decision = self._chooser.decide(facts, request, ruling, principal, shadow.entry)
        why = decision.vetoes[0].reason if not decision.ranked else "busy" if self._crowded(shadow.target) else ""
        if why:
            self._tell(shadow, exchange, why=why)
            return
        sink = Tee(_Nobody())
        copy = self._of(shadow, exchange, sink)
        copy.decision = Decision(decision.ranked, (), f"experiment: {shadow.name}")
        why = await self._sent(copy, copy.decision, shadow.target)
        points = NOT_COMPARED
        if not why and shadow.part.compare is not None:
            points, why = await self._compared(shadow, exchange, given, tee, sink)
        self._tell(shadow, exchange, why=why, copy=copy.id if copy.attempts else "", points=points)

    async def _sent(self, copy: Exchange, decision: Decision, target: Target) -> str:
        """Send it; why there is no answer, or nothing."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._attempts.run(copy, decision, {target.name: target})
        except OutOfBudget:
            return "budget"
        except JournalError:
            return "audit_unavailable"
        except (Failure, TimeoutError):
            return "failed"
        return "" if copy.attempts and copy.attempts[-1].ending == "completed" else "failed"

    def _crowded(self, target: Target) -> bool:
        """Would a copy take a place that somebody's request may need?"""
        engine = self._fleet[target.engine]
        return engine.concurrency is not None and 2 * engine.in_flight >= engine.concurrency

    def _of(self, shadow: Shadow, exchange: Exchange, sink: ClientSink) -> Exchange:
        principal = exchange.principal
        assert principal is not None and exchange.surface is not None
        name = f"{EXPERIMENT}{shadow.name}"
        copy = Exchange(
            f"{exchange.id}-{shadow.name}",
            _Copied(exchange.inbound.head.query),
            sink,
            time.time_ns() // 1000,
            self._loop.time(),
        )
        copy.surface = Surface(SHADOW, exchange.surface.dialect, exchange.surface.operation)
        copy.principal = Principal(
            key=name, name=name, organisation=principal.organisation, project=name, tenant=principal.tenant,
            models=principal.models, boundaries=principal.boundaries,
        )  # fmt: skip
        copy.request, copy.ruling, copy.facts = exchange.request, exchange.ruling, exchange.facts
        copy.verdict, copy.told = exchange.verdict, Told(subject=exchange.told.subject)
        return copy

    async def _compared(
        self, shadow: Shadow, exchange: Exchange, given: Attempt, tee: Tee, sink: Tee
    ) -> tuple[int, str]:
        """(score, why there is none).  The API's answer is the reference; between two of a kind, the client's."""
        assert exchange.surface is not None and shadow.part.compare is not None
        if tee.cut or sink.cut:
            return NOT_COMPARED, "too_long"
        dialect: Dialect = self._addresses.dialects[exchange.surface.dialect]
        clients, copied = said(dialect, tee.streamed, tee.kept), said(dialect, sink.streamed, sink.kept)
        if clients is None or copied is None:
            return NOT_COMPARED, "unreadable"
        turned = given.target.boundary == LOCAL and shadow.target.boundary != LOCAL
        reference, other = (copied, clients) if turned else (clients, copied)
        if shadow.judge is not None:
            return await self._judged(shadow, shadow.judge, exchange, reference, other)
        points = score(shadow.part.compare, reference, other)
        if self.remember is not None and points != NOT_COMPARED:
            weaker = tee if turned else sink
            self.remember(exchange, dialect, streamed=weaker.streamed, body=weaker.kept)
        return points, "incomparable" if points == NOT_COMPARED else ""

    async def _judged(
        self, shadow: Shadow, judge: Entry, exchange: Exchange, reference: Said, other: Said
    ) -> tuple[int, str]:
        """How a local judge finds the other answer beside the reference: 1000 better, 0 worse; asked in both orders, because
        judges like what they read first."""
        question = last_said(exchange.request.body) if exchange.request is not None else ""
        points = 0
        for turn, pair in enumerate(((reference, other), (other, reference)), 1):
            reply, why = await self._asked(shadow, judge, exchange, judge_body(question, *pair, judge.name), turn)
            found = preferred(reply)
            if why or found is None:
                return NOT_COMPARED, why or "unreadable"
            points += FULL // 4 if not found else FULL // 2 * (found == 3 - turn)
        return points, ""

    async def _asked(
        self, shadow: Shadow, judge: Entry, exchange: Exchange, raw: bytes, turn: int
    ) -> tuple[Said | None, str]:
        dialect = self._addresses.dialects["openai"]
        sink = Tee(_Nobody())
        asking = self._of(shadow, exchange, sink)
        asking.id = f"{asking.id}-judge-{turn}"
        asking.surface = Surface(SHADOW, "openai", Operation.CHAT)
        request = asking.request = dialect.parse(Operation.CHAT, raw, {})
        verdict, ruling, principal = asking.verdict, asking.ruling, asking.principal
        assert verdict is not None and ruling is not None and principal is not None
        decision = self._chooser.decide(facts_of(request, verdict, structure=False), request, ruling, principal, judge)
        if not decision.ranked or self._crowded(judge.targets[0]):
            return None, "judge_busy"
        asking.decision = Decision(decision.ranked, (), f"experiment: {shadow.name}, judge")
        if await self._sent(asking, asking.decision, judge.targets[0]):
            return None, "judge_failed"
        return said(dialect, sink.streamed, sink.kept), ""

    def _tell(
        self, shadow: Shadow, exchange: Exchange, *, why: str, copy: str = "", points: int = NOT_COMPARED
    ) -> None:
        principal, request = exchange.principal, exchange.request
        assert principal is not None and request is not None
        record = Shadowed(
            at=time.time_ns() // 1000, copy=copy, experiment=shadow.name, how=(shadow.part.compare or "") if points >= 0 else "",
            key=principal.key, model=request.model if request.model in self._names else "", organisation=principal.organisation,
            project=principal.project, propensity=round(shadow.part.share * MILLION), request=exchange.id, score=points,
            target=shadow.target.name, team=principal.team, tenant=principal.tenant or "", why=why,
        )  # fmt: skip
        try:
            self._journal.append(record)
        except JournalError:
            pass  # nothing was sent that has no record of its own


def _given(exchange: Exchange) -> Attempt | None:
    """Whose answer the client has: not always the last that was asked."""
    return next((attempt for attempt in reversed(exchange.attempts) if attempt.committed), None)


def _shut_out(target: Target, exchange: Exchange) -> bool:
    """Would a copy bring outside what a decision lets nobody be asked but those whom it names?"""
    if exchange.steered is None or target.boundary == LOCAL:
        return False
    plan = exchange.steered.plan
    return plan.closed and target.name not in plan.entry.by_name


def build_shadows(settings: Settings, target: Callable[[str], Target]) -> list[Shadow]:
    """The shadow experiments of a configuration."""
    found = []
    for part in settings.experiments:
        if part.shadow is not None:
            models = None if part.models is None else frozenset(part.models)
            entry = Entry(f"experiment: {part.name}", (target(part.shadow.to),))
            judge = None
            if part.shadow.judge is not None:
                judge = Entry(f"judge: {part.name}", (target(part.shadow.judge),))
            found.append(Shadow(part.name, part.shadow, models, Gate(part), entry, judge))
    return found


def shadowing_of(settings: Settings, target: Callable[[str], Target], **parts: Any) -> Shadowing | None:
    """What stands before the attempts; None: no experiment copies anything."""
    shadows = build_shadows(settings, target)
    return Shadowing(shadows=shadows, **parts) if shadows else None
