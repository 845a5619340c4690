"""A small model answers first, is read, and only where its answer cannot be trusted is a larger one asked.

    hold -> the decision's own targets -> read -> good: out it goes, byte for byte
                                             -> doubtful: may it go up (verdict, budget share, money, a place)?
                                                no, or whoever is asked fails before it commits: the held answer

It is an option of a decision.  A request without it goes the ordinary way, and a deployment without it has plain
`Attempts`.  The order on the path is that of every attempt: the one further up has its own verdict, redaction, hold and
record, and both are charged.  Nothing has gone to the client while an answer is held (law 6).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from compliance.journal import JournalError
from compliance.records import Judged
from engines.model import Operation, Target
from policies.escalation import Judgement, Scorer, Share, Wanted, judge
from policies.model import Decision
from policies.slices import Hold
from proxy.attempts import Attempts, Failure
from proxy.choosing import Chooser, facts_of
from proxy.counts import Counts
from proxy.exchange import Attempt, ClientSink, Exchange
from proxy.faults import describe
from proxy.held import HeldSink, wanted_of
from proxy.session import Session
from proxy.spending import OutOfBudget
from proxy.steering import Escalation, Steerer

if TYPE_CHECKING:
    from proxy.complexity_models import Complexity
    from proxy.config_complexity import ComplexityPart

log = logging.getLogger("spillway")

DOUBT = "doubt"
"""Why an answer left home, where the target further up is not local."""
_LASTING = frozenset({"boundary", "unredactable", "capability", "context", "unpriced", "untranslatable"})
"""Vetoes that will still stand when an answer has been read."""
_MOST_CONTRIBUTIONS = 5


class Doubting:
    """What a worker judges answers with; one a worker."""

    def __init__(self, escalations: Mapping[str, Escalation], model: Complexity | None, chooser: Chooser) -> None:
        """`escalations` by the rule of the decision that they are an option of."""
        self.escalations = escalations
        self.scorer: Scorer | None = model.judge if model is not None else None
        self.chooser = chooser
        self.shares = {one.decision: Share(one.share, one.window) for one in escalations.values()}

    def attempts(self, **parts: Any) -> Attempts:
        """As `Attempts` is made, for a worker with the option."""
        made = Escalating(**parts)
        made.doubting = self
        return made


def escalations_of(steerers: Mapping[str, Steerer]) -> dict[str, Escalation]:
    """The decisions that have the option, by their rule."""
    plans = [plan for steerer in steerers.values() for plan in steerer.plans.values()]
    return {plan.rule: plan.escalation for plan in plans if plan.escalation is not None}


def answer_scorer(part: ComplexityPart) -> Complexity | None:
    """What was trained to judge answers; None: nothing was, so that only plain faults are seen."""
    if part.answers is None:
        return None
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from proxy.complexity_models import ScorerInvalid, load_complexity
    from proxy.routing_models import load_embedding

    try:
        return load_complexity(part, *load_embedding())[1]
    except (ScorerInvalid, OSError) as error:
        log.error("answers are judged by plain faults alone: %s", error)
        return None


class Escalating(Attempts):
    """Attempts of a worker with decisions of which one at least has the option."""

    doubting: Doubting  # set once it is made

    async def run(self, exchange: Exchange, decision: Decision, targets: dict[str, Target]) -> None:
        escalation = self.doubting.escalations.get(decision.rule)
        if escalation is None or exchange.request is None or exchange.request.operation is not Operation.CHAT:
            await super().run(exchange, decision, targets)
            return
        going = _Going(exchange, escalation, self.doubting, self._loop.time)
        barred = going.barred()
        if barred:
            going.why = barred
            try:
                await super().run(exchange, decision, targets)
            finally:
                self._record(going)
            return
        await self._held(going, decision, targets)

    async def _held(self, going: _Going, decision: Decision, targets: dict[str, Target]) -> None:
        exchange, real = going.exchange, going.exchange.sink
        request = exchange.request
        assert request is not None
        dialect = self._addresses.dialects[request.dialect]
        held = going.held = HeldSink(
            real,
            dialect,
            limit=going.escalation.held,
            deadline=exchange.started + going.escalation.within,
            lower=going.lower,
            judge=lambda sink: self._keep(going, sink),
            logprobs=bool(request.body.get("logprobs")),
        )
        exchange.sink = held
        self._deadlines.add(held)
        try:
            await super().run(exchange, decision, targets)
            if held.kept:
                await self._up(going, held, real)
        finally:
            self._deadlines.discard(held)
            self._settle(going)
            exchange.sink = real
            if going.why != "up":
                exchange.decision = decision
            self._record(going)
            going.held = None  # they know each other: what was held goes now, not when the collector comes

    def _keep(self, going: _Going, held: HeldSink) -> bool:
        """Is this answer, which is whole, not to be given out yet?"""
        going.answered()
        if held.reader.unread:
            going.why = "unread"
            going.share.stay()
            return False
        try:
            going.judgement = judge(held.reader.said(), going.wanted, self.doubting.scorer, going.escalation.threshold)
        except Exception as error:  # noqa: BLE001  a fault in reading an answer is no fault of the answer: it goes out
            log.error("an answer could not be judged: %s", describe(error))
            going.why = "unread"
            going.share.stay()
            return False
        if not going.judgement.doubtful:
            going.why = "good"
        elif len(going.exchange.attempts) >= self._max_attempts:
            going.why = "attempts"
        else:
            going.why = going.decide() or ("" if going.share.left else "share")
        if going.why:
            going.share.stay()
            return False
        going.share.take()
        going.why = "up"
        return True

    async def _up(self, going: _Going, held: HeldSink, real: ClientSink) -> None:
        """Ask further up; where nobody there commits to an answer in time, the held one is given."""
        exchange, before = going.exchange, len(going.exchange.attempts)
        upper = exchange.sink = _UpperSink(real, lambda: self._settle(going))
        decision = exchange.decision = going.decision
        assert decision is not None
        vetoes = len(decision.vetoes)
        try:
            async with asyncio.timeout_at(exchange.started + going.escalation.within) as upper.scope:
                await super().run(exchange, decision, going.escalation.entry.by_name)
        except TimeoutError:
            if not upper.late:
                raise
            going.why = "late"
            for attempt in exchange.attempts[before:]:  # of those that its engine is still asked to count
                _was_late(attempt)
        except OutOfBudget:
            going.why = "budget"
        except Failure:
            more = exchange.decision.vetoes[vetoes:] if exchange.decision is not None else ()
            going.why = "failed" if len(exchange.attempts) > before else more[-1].reason if more else "unhealthy"
        except JournalError:
            if not self._recorder.keeps_local:
                raise
            going.why = "audit_unavailable"
        if not real.started:
            exchange.sink = held
            held.release()

    # --- records ------------------------------------------------------------------------------------------

    def _finish(
        self, exchange: Exchange, attempt: Attempt, hold: Hold | None, session: Session | None, counts: Counts | None = None
    ) -> None:  # fmt: skip
        sink = exchange.sink
        if type(sink) is HeldSink and sink.kept:  # whether its answer is given is not known yet
            sink.waiting = (attempt, hold, session)
            return
        if type(sink) is _UpperSink and sink.late:
            _was_late(attempt)
        super()._finish(exchange, attempt, hold, session, counts)

    def _settle(self, going: _Going) -> None:
        """The attempt whose answer was held is settled and recorded, now that it is known what became of it."""
        held = going.held
        if held is None or held.waiting is None:
            return
        (attempt, hold, session), held.waiting = held.waiting, None
        attempt.committed = held.started
        super()._finish(going.exchange, attempt, hold, session)

    def _record(self, going: _Going) -> None:
        """What was made of the answer.  Nothing is written of a request that nobody below answered."""
        held, exchange, judgement = going.held, going.exchange, going.judgement
        given = next((attempt for attempt in reversed(exchange.attempts) if attempt.committed), None)
        if held is not None and held.let_go and not going.why:
            going.why, going.attempt, going.size = held.let_go, given, held.size
            going.share.stay()
        if not going.why:
            return
        asked = exchange.attempts[going.attempt.index + 1 :] if going.attempt is not None else ()
        scored = judgement.scored if judgement is not None else None
        percentile = scored.percentile if scored is not None else None
        parts = scored.contributions[:_MOST_CONTRIBUTIONS] if scored is not None else ()
        notes = [f"{name}={part:+.3f}" for name, part in parts]
        if judgement is not None and judgement.failed:
            notes.append(f"scorer failed={judgement.failed}")
        record = Judged(
            at=0,
            attempt=going.attempt.index if going.attempt is not None else -1,
            calibrated=judgement is not None and judgement.calibrated,
            contributions=tuple(notes),
            decision=going.escalation.decision,
            doubtful=judgement is not None and judgement.doubtful,
            fault=judgement.fault if judgement is not None else "",
            given=given.index if given is not None else -1,
            held=going.size,
            held_us=going.at_us,
            percentile=-1 if percentile is None else round(percentile * 10_000),
            request=exchange.id,
            share=round(going.share.taken * 1_000_000),
            target="",
            up="",
            why=going.why,
        )
        self._recorder.judged(
            record,
            going.attempt.target if going.attempt is not None else None,
            asked[-1].target if asked else None,
        )


class _Going:
    """One request's way, as far as it is known."""

    __slots__ = (
        "_clock", "_doubting", "_names", "at_us", "attempt", "decision", "escalation", "exchange", "held", "judgement", "share",
        "size", "why",
    )  # fmt: skip

    def __init__(
        self, exchange: Exchange, escalation: Escalation, doubting: Doubting, clock: Callable[[], float]
    ) -> None:
        self.exchange = exchange
        self.escalation = escalation
        self.share = doubting.shares[escalation.decision]
        self.decision: Decision | None = None  # who is asked further up
        self.held: HeldSink | None = None
        self.judgement: Judgement | None = None
        self.attempt: Attempt | None = None  # whose answer was read
        self.why = ""
        self.size = 0
        self.at_us = 0
        self._doubting = doubting
        self._names = escalation.entry.by_name
        self._clock = clock

    @property
    def wanted(self) -> Wanted:
        request = self.exchange.request
        assert request is not None
        return wanted_of(request)

    def barred(self) -> str:
        """Why no answer to this request can go up, so that none need be held; "": it may."""
        why = self.decide()
        if self.decision is not None and not all([veto.reason in _LASTING for veto in self.decision.vetoes]):
            why = ""
        if not why and not self.share.left:
            why = "share"
        if why == "share":
            self.share.stay()
        return why

    def decide(self) -> str:
        """Who may be asked further up, as it is now; why nobody may."""
        exchange = self.exchange
        request, verdict, ruling, principal = exchange.request, exchange.verdict, exchange.ruling, exchange.principal
        assert request is not None and verdict is not None and ruling is not None and principal is not None
        facts = facts_of(request, verdict, structure=False)
        entry = self.escalation.entry
        found = self._doubting.chooser.decide(facts, request, ruling, principal, entry, exchange.redactions)
        leaves = bool(found.ranked) and self._names[found.ranked[0]].boundary != "local"
        self.decision = replace(
            found, rule=f"{self.escalation.decision}: its answer was doubtful", overflow=DOUBT if leaves else None
        )
        return "" if found.ranked else _first_reason(found)

    def lower(self) -> bool:
        """Is it a target below that answers now?"""
        return self.exchange.attempts[-1].target.name in self.escalation.below

    def answered(self) -> None:
        """The answer that is held is whole."""
        held = self.held
        assert held is not None
        self.attempt = self.exchange.attempts[-1]
        self.size = held.size
        self.at_us = int((self._clock() - self.exchange.started) * 1_000_000)


class _UpperSink:
    """The client's sink while somebody further up is asked: what comes in time commits, what comes later is dropped."""

    __slots__ = ("_commit", "_sink", "bytes_out", "scope", "started")

    scope: asyncio.Timeout

    def __init__(self, real: ClientSink, commit: Callable[[], None]) -> None:
        self._sink = real
        self._commit = commit
        self.started = False
        self.bytes_out = real.bytes_out

    @property
    def late(self) -> bool:
        """Nobody committed in time."""
        return self.scope.expired()

    @property
    def on_resume(self) -> Callable[[], None] | None:
        return self._sink.on_resume

    @on_resume.setter
    def on_resume(self, call: Callable[[], None] | None) -> None:
        self._sink.on_resume = call

    def whole(self, status: int, head: bytes, body: bytes) -> None:
        if self._commits():
            self._sink.whole(status, head, body)
            self.bytes_out = self._sink.bytes_out

    def begin(self, status: int, head: bytes, first: bytes) -> bool:
        if not self._commits():
            return False
        paused = self._sink.begin(status, head, first)
        self.bytes_out = self._sink.bytes_out
        return paused

    def write(self, data: bytes) -> bool:
        if not self.started:
            return False
        paused = self._sink.write(data)
        self.bytes_out = self._sink.bytes_out
        return paused

    def finish(self) -> None:
        if self.started:
            self._sink.finish()
            self.bytes_out = self._sink.bytes_out

    def abort(self) -> None:
        self._sink.abort()

    def _commits(self) -> bool:
        """The first byte of its answer is there.  False: too late, the held answer is on its way."""
        if self.late:
            return False
        self.scope.reschedule(None)
        self._commit()
        self.started = True
        return True


def _first_reason(decision: Decision) -> str:
    """Why nobody may be asked: what speaks against the first of them."""
    return decision.vetoes[0].reason if decision.vetoes else "unhealthy"


def _was_late(attempt: Attempt) -> None:
    """Its task was cancelled, but not by a client that left."""
    if attempt.ending == "abandoned":
        attempt.ending, attempt.error = "failed", "late"
