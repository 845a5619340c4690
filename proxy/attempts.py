"""Candidates in order, until one answers.

Order on the path, for each attempt: admit -> reserve (only what leaves `local` costs cloud money) -> record
the decision, durably where it leaves `local` (the connection is opened meanwhile; not one request byte is
sent before) -> dispatch -> relay -> settle -> record the outcome.  The last two stand in one `finally` and
never await, so a cancelled request is settled and recorded as well: at once, or where its tokens must be counted by its
engine, by `counting`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from msgspec.structs import replace

from compliance.journal import JournalError, JournalFailed, JournalFull
from compliance.model import LOCAL, Verdict
from engines.base import Dialect
from engines.errors import ConnectFailed, EngineError, EngineRefused, EngineTimeout, RequestRejected, Untranslatable
from engines.model import Operation, Request, Target
from engines.transport import Connection, Transport, header_block
from policies.model import Decision, Veto
from policies.slices import Hold
from proxy.addressing import Address, Addresses
from proxy.admission import Admission
from proxy.answering import Answers
from proxy.counting import Counting
from proxy.counts import Counts
from proxy.deadlines import Deadlines
from proxy.exchange import Attempt, Exchange, Header, NotRedacted, Redaction
from proxy.health import EngineState, Fleet, Origin
from proxy.recording import Recorder
from proxy.redacting import Redactor
from proxy.relay import Relay
from proxy.session import Session, StreamSession, WholeSession
from proxy.spending import OutOfBudget, Spending
from proxy.tokenizing import TokenProcess

if TYPE_CHECKING:
    from proxy.capturing import Capturing

_PASSED = frozenset(
    {
        b"content-type", b"x-request-id", b"request-id", b"retry-after", b"retry-after-ms", b"x-should-retry",
        b"openai-processing-ms", b"openai-version", b"openai-model",
    }
)  # fmt: skip
_PASSED_FAMILIES = (b"x-ratelimit-", b"anthropic-ratelimit-")
_STREAM_HEAD = b"cache-control: no-cache\r\nx-accel-buffering: no\r\n"
_STREAM_TYPE = b"content-type: text/event-stream; charset=utf-8\r\n"
_JSON_TYPE = b"content-type: application/json\r\n"


@lru_cache(maxsize=256)
def passed(headers: tuple[Header, ...]) -> bytes:
    """An engine's headers that reach a client of the same dialect, as lines: an allow-list, so nothing slips through."""
    return header_block([header for header in headers if _passes(header[0])])


@lru_cache(maxsize=1024)
def _passes(name: bytes) -> bool:
    return name in _PASSED or name.startswith(_PASSED_FAMILIES)


@lru_cache(maxsize=1024)
def _fixed_head(target: str, action: str, overflow: str, route: str) -> bytes:
    """What many answers have in common of `answer_head`; what is empty is left out."""
    headers = [(b"target", target), (b"action", action), (b"overflow", overflow), (b"route", route)]
    return header_block([(b"x-spillway-" + name, value.encode("ascii", "replace")) for name, value in headers if value])


class Failure(Exception):
    """Every candidate was tried.  `error` is the last one's; `same_dialect` lets its own words pass."""

    def __init__(self, error: EngineError, same_dialect: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.same_dialect = same_dialect


class Attempts:
    """Runs the attempts of one exchange after another; one object a worker."""

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        transport: Transport,
        fleet: Fleet,
        admission: Admission,
        deadlines: Deadlines,
        recorder: Recorder,
        spending: Spending,
        addresses: Addresses,
        redactor: Redactor,
        answers: Answers,
        max_attempts: int,
        answer_limit: int,
        durable_local: bool,
        capturing: Capturing | None = None,
        asks_tokenizers: bool = True,
        tiktoken: TokenProcess | None = None,
    ) -> None:
        self._loop = loop
        self._transport = transport
        self._fleet = fleet
        self._admission = admission
        self._deadlines = deadlines
        self._recorder = recorder
        self._spending = spending
        self._addresses = addresses
        self._redactor = redactor
        self._answers = answers
        self._max_attempts = max_attempts
        self._answer_limit = answer_limit
        self._durable_local = durable_local
        self._capturing = capturing
        self.counting = Counting(loop, transport, self._finish, tiktoken, asks=asks_tokenizers)

    async def ready(self, exchange: Exchange, decision: Decision, targets: dict[str, Target]) -> bool:
        """Can the first choice get what it may get?  False: it must be redacted and cannot be, so decide again."""
        assert exchange.ruling is not None
        if not decision.ranked:
            return True
        labels = self._addresses.labels(targets[decision.ranked[0]])
        if exchange.ruling.on(labels).action != "redact":
            return True
        return type(await self._redactor.redacted(exchange, labels)) is not NotRedacted

    async def run(self, exchange: Exchange, decision: Decision, targets: dict[str, Target]) -> None:
        """Try the ranked candidates.  Returns when one has answered (or failed after the commit, which the
        client was told in its stream); raises `Failure` when none could, `OutOfBudget` when only money lacked."""
        request, ruling = exchange.request, exchange.ruling
        assert request is not None and ruling is not None
        addresses = self._addresses
        client = addresses.dialects[request.dialect]
        failure: Failure | None = None
        broke: OutOfBudget | None = None
        unrecorded = False
        for name in decision.ranked:
            if len(exchange.attempts) >= self._max_attempts:
                break
            target = targets[name]
            address = addresses.find(target, request.operation)
            verdict = ruling.on(address.labels)
            redaction: Redaction | None = None
            if verdict.action == "redact":
                redacted = await self._redactor.redacted(exchange, address.labels)
                if isinstance(redacted, NotRedacted):
                    _veto(exchange, name, redacted)
                    continue
                redaction = redacted
            engine = self._fleet[target.engine]
            origin = engine.pick(self._loop.time())
            if origin is None or (exchange.attempts and engine.saturated()):
                continue  # the world changed while another candidate was tried
            try:
                error = await self._attempt(exchange, client, address, verdict, engine, origin, redaction)
            except OutOfBudget as refusal:
                broke = refusal
                if refusal.everywhere:
                    break
                continue
            except (JournalFailed, JournalFull):
                if not (self._recorder.keeps_local and any(targets[n].boundary == LOCAL for n in decision.ranked)):
                    raise
                unrecorded = True
                continue
            if error is None or exchange.sink.started:
                return
            failure = Failure(error, address.dialect is client)
            if not error.retryable:
                break
        if unrecorded:
            raise JournalFailed("the log cannot be written")
        if failure is not None:
            raise failure
        if broke is not None:
            raise broke
        raise Failure(ConnectFailed("no engine could be reached"), same_dialect=False)

    async def _attempt(
        self, exchange: Exchange, client: Dialect, address: Address, verdict: Verdict, engine: EngineState, origin: Origin,
        redaction: Redaction | None,
    ) -> EngineError | None:  # fmt: skip
        """One target, once.  The error that ended it, or None."""
        target = address.target
        request = exchange.request if redaction is None else redaction.request
        assert request is not None
        loop, recorder, local = self._loop, self._recorder, target.boundary == LOCAL
        now = loop.time()
        if not verdict.allows(target.boundary, redacted=redaction is not None):
            raise RuntimeError("a target was chosen that this request may not be sent to")
        attempt = Attempt(len(exchange.attempts), target, _us(now - exchange.started), verdict)
        if redaction is not None:
            attempt.scope, attempt.redacted = redaction.scope, redaction.counts
        hold = None
        if not local or self._spending.counts_local:
            hold = await self._spending.reserve(
                exchange, attempt, request
            )  # raises OutOfBudget: then there was no attempt
        exchange.attempts.append(attempt)
        self._admission.enter(engine)
        origin.in_flight += 1
        relay: Relay | None = None
        session: Session | None = None
        error: EngineError | None = None
        try:
            body, edits = self._render(request, client, address, target.max_output if hold is not None else None)
            if redaction is not None:
                edits = ("redacted", *edits)
            session = self._session(exchange, client, attempt, address)
            if self._capturing is not None:
                self._capturing.begin(exchange, attempt, body, session)
            session.kept = []
            seq = recorder.decision(exchange, attempt, edits)
            waits = not local or self._durable_local or recorder.behind
            connection = None if waits else self._transport.try_pooled(target, origin.url)
            if connection is None:
                connection = await self._dispatchable(address, origin, seq if waits else None)
                now = loop.time()
            attempt.connect_us = _us(now - exchange.started)
            relay = self._relay(exchange, attempt, address, session, connection, now)
            path, headers = address.line(
                request, exchange.inbound.head.query, exchange.told.trace, plain=redaction is not None
            )
            connection.request(b"POST", path, headers, body, relay, reusable=address.reusable or not request.stream)
            try:
                await relay.finished
            finally:  # a client that leaves now had all that there was
                if relay.over:
                    error = relay.error
                    attempt.ending = "completed" if error is None else "failed"
        except EngineError as failed:
            error = failed
            attempt.ending = "failed"
        except JournalError:
            attempt.ending, attempt.error = "failed", "audit_unavailable"
            raise
        finally:
            if relay is not None:
                self._after(exchange, attempt, relay, error)
            self._judge(origin, error, attempt)
            attempt.error = error.code if error is not None else attempt.error
            attempt.total_us = _us(loop.time() - exchange.started)
            origin.in_flight -= 1
            self._admission.leave(engine)
            if relay is None or session is None:
                self._finish(exchange, attempt, hold, None)
            else:
                attempt.answer_findings = session.findings()
                if not self.counting.take(exchange, attempt, session, hold, address, origin.url, body):
                    self._finish(exchange, attempt, hold, session)
            if attempt.capture is not None and self._capturing is not None:
                self._capturing.end(attempt, session, relay.refusal_body if relay is not None else b"")
        return error

    def _finish(
        self, exchange: Exchange, attempt: Attempt, hold: Hold | None, session: Session | None, counts: Counts | None = None
    ) -> None:  # fmt: skip
        """Settle and record; `session` where the engine was asked."""
        self._spending.settle(exchange, attempt, hold, session, counts)
        self._recorder.outcome(exchange, attempt)

    def _after(self, exchange: Exchange, attempt: Attempt, relay: Relay, error: EngineError | None) -> None:
        exchange.sink.on_resume = None
        if attempt.ending == "abandoned":
            relay.abandon()
        attempt.status = relay.status
        attempt.bytes_in = relay.bytes_in
        attempt.committed = exchange.sink.started
        attempt.billable = relay.status in (0, 200)  # no answer yet: the engine may have begun, and would bill it
        attempt.first_us = _us(relay.first_at - exchange.started) if relay.first_at else 0
        if isinstance(error, EngineRefused) and relay.refusal_body:
            error.upstream = (relay.status, list(relay.headers), relay.refusal_body)

    async def _dispatchable(self, address: Address, origin: Origin, seq: int | None) -> Connection:
        """An open connection, once the decision's record `seq` is on the disk; None: it need not be."""
        transport, target, timeout = self._transport, address.target, address.timeouts.connect
        if seq is None:
            return await transport.open(target, origin.url, timeout=timeout)
        connection = transport.try_pooled(target, origin.url)
        if connection is not None:
            try:
                await self._recorder.durable(seq)
            except BaseException:
                connection.release()
                raise
            return connection
        opening = self._loop.create_task(transport.open(target, origin.url, timeout=timeout))
        try:
            await self._recorder.durable(seq)
            return await opening
        except BaseException:
            if not opening.done():
                opening.cancel()
            elif not opening.cancelled() and opening.exception() is None:
                opening.result().release()
            raise

    def _render(
        self, request: Request, client: Dialect, address: Address, cap: int | None
    ) -> tuple[bytes, tuple[str, ...]]:
        """The body for an engine.  `cap`: what was reserved for the output where the request states no limit."""
        engine = address.dialect
        if client is engine:
            return engine.edit(
                request, model=address.target.model, ask_usage=address.honours_usage_option,
                cap=None if cap is None else (address.limit_field, cap),
            )  # fmt: skip
        if request.operation is not Operation.CHAT:
            raise Untranslatable("request", f"{request.operation} has no form in the dialect of {address.target.name}")
        conversation = client.conversation(request)
        capped = cap is not None and conversation.max_output is None
        if capped:
            conversation = replace(conversation, max_output=cap)
        body = engine.render(
            conversation,
            model=address.target.model,
            default_max_output=address.target.max_output or address.default_max_output,
            limit_field=address.limit_field,
            sampling_extensions=address.sampling_extensions,
        )
        return body, ("translated", "output_cap") if capped else ("translated",)

    def _session(self, exchange: Exchange, client: Dialect, attempt: Attempt, address: Address) -> Session:
        request = exchange.request
        assert request is not None
        scan, answering = self._answers.of(exchange, address.labels, attempt.scope)
        restore = address.target.model != request.model
        answer_id = f"spw-{exchange.id}"
        created = exchange.at // 1_000_000
        if request.stream:
            return StreamSession(
                request, client, address.dialect, answer_id=answer_id, created=created, restore_model=restore,
                strip_usage=not request.wants_usage, scan=scan, answering=answering,
            )  # fmt: skip
        return WholeSession(
            request, client, address.dialect, answer_id=answer_id, created=created, restore_model=restore,
            limit=self._answer_limit, scan=scan, answering=answering,
        )  # fmt: skip

    def _relay(
        self,
        exchange: Exchange,
        attempt: Attempt,
        address: Address,
        session: Session,
        connection: Connection,
        now: float,
    ) -> Relay:
        same = session.client is session.engine

        def head_for(headers: Sequence[Header]) -> bytes:
            if session.streamed:
                kind = passed(tuple(headers)) if same else _STREAM_TYPE
                return kind + _STREAM_HEAD + answer_head(exchange, attempt.target)
            return (passed(tuple(headers)) if same else _JSON_TYPE) + answer_head(exchange, attempt.target)

        relay = Relay(
            session,
            exchange.sink,
            connection,
            self._deadlines,
            address.timeouts,
            head_for,
            self._loop,
            now,
            self._transport.turns,
        )
        exchange.sink.on_resume = relay.resume
        return relay

    def _judge(self, origin: Origin, error: EngineError | None, attempt: Attempt) -> None:
        """What an attempt says about its replica's health.  A refused request or a busy engine says nothing."""
        if error is None:
            if attempt.ending == "completed":
                origin.succeeded()
        elif isinstance(error, RequestRejected):
            origin.succeeded()
        elif isinstance(error, (ConnectFailed, EngineTimeout)) or (
            attempt.status >= 500 and attempt.status not in (503, 529)
        ):
            origin.failed(self._loop.time())


def answer_head(exchange: Exchange, target: Target | None) -> bytes:
    """Spillway's own headers on an answer (contracts.md, "Headers"), as lines."""
    verdict, decision, steered = exchange.verdict, exchange.decision, exchange.steered
    overflow = ""
    if target is not None:
        if exchange.attempts:
            verdict = exchange.attempts[-1].verdict
        if target.boundary != LOCAL and decision is not None:
            overflow = decision.overflow or ""
    fixed = _fixed_head(
        target.name if target is not None else "",
        verdict.action if verdict is not None and verdict.action != "allow" else "",
        overflow,
        steered.route if steered is not None else "",
    )
    return b"x-spillway-request-id: %b\r\n%b" % (exchange.id.encode(), fixed)


def _veto(exchange: Exchange, name: str, why: NotRedacted) -> None:
    """The decision, without a target that turned out not to be allowed."""
    decision = exchange.decision
    assert decision is not None
    exchange.decision = replace(
        decision,
        ranked=tuple([other for other in decision.ranked if other != name]),
        vetoes=(*decision.vetoes, Veto(name, why.reason, why.detail)),
    )


def _us(seconds: float) -> int:
    return int(seconds * 1_000_000)
