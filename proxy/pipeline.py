"""The one path of a request.

    authenticate -> parse -> classify -> decide -> attempts (each: admit, reserve, record, dispatch, relay,
    settle, record the outcome) -> answer

The stages are named functions in a fixed order, not plug-ins: the order is a security property.  Errors of
compliance, policy, budget and audit refuse the request; telemetry's never do.

Requests that come together go in step: all are parsed in one turn of the event loop, scanned in the next, decided and
sent in the third.  A stage's code and the detectors' tables (some megabytes) are then in the processor's cache for all
but the first, which takes a tenth off everything; and no turn is longer than one stage of a few requests.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from compliance.journal import JournalError
from compliance.model import Inspection, Verdict
from compliance.rules import CLOUD, HOME, Facts
from compliance.rulings import Fixed, Ruleset, Ruling
from compliance.scan import FAILED, Scanner
from engines.base import Dialect
from engines.catalog import Catalog, Entry
from engines.errors import AnswerBlocked, EngineRefused, Untranslatable
from engines.http1 import header_block
from engines.model import BadRequest, ErrorInfo, Request
from engines.turns import NEXT_TURN
from proxy.addressing import beside_the_body
from proxy.attempts import Attempts, Failure, answer_head, passed
from proxy.auth import Principal, host_allowed
from proxy.choosing import Chooser
from proxy.errors import Refusal, failure_info
from proxy.exchange import ClientSink, Exchange, Header, Inbound
from proxy.faults import describe
from proxy.feedback import FEEDBACK_PATH, FeedbackDoor
from proxy.keyring import Keyring
from proxy.listing import models_body
from proxy.recording import Recorder
from proxy.redacting import Redactor
from proxy.spending import OutOfBudget
from proxy.standing import HEALTH_PATH, health
from proxy.surfaces import ANTHROPIC_MODELS, MODELS_PATH, OPENAI_MODELS, POSTS, dialect_of

if TYPE_CHECKING:
    from proxy.shadowing import Shadowing

log = logging.getLogger("spillway")

DAY = 86_400_000_000
"""Microseconds."""
OFF_LOOP_BYTES = 32 * 1024
"""Bodies above this are scanned in a thread, whatever is in them."""
PARSED_AT_ONCE = 8 * OFF_LOOP_BYTES
"""Bodies above this are parsed in a thread."""
SCAN_THREADS = 1
"""More of them would take turns with each other, and with the event loop, in one interpreter."""

NOT_SCANNED = Fixed(Verdict("keep_local", rule="not scanned: every candidate is local"))
"""Never called clean (law 8): it stays where it is."""

_JSON = b"content-type: application/json\r\n"


class Pipeline:
    """One object a worker; `serve` is called for each request."""

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        keyring: Keyring,
        catalog: Catalog,
        dialects: Mapping[str, Dialect],
        scanner: Scanner,
        ruleset: Ruleset,
        chooser: Chooser,
        attempts: Attempts | Shadowing,
        redactor: Redactor,
        recorder: Recorder,
        next_id: Callable[[], str],
        scan_deadline: float,
        scan_when_needed: bool,
        clinical: frozenset[str],
        feedback: FeedbackDoor | None = None,
    ) -> None:
        self._loop = loop
        self._keyring = keyring
        self._catalog = catalog
        self._dialects = dialects
        self._scanner = scanner
        self._ruleset = ruleset
        self._chooser = chooser
        self._attempts = attempts
        self._redactor = redactor
        self._recorder = recorder
        self._next_id = next_id
        self._scan_deadline = scan_deadline
        self._scans = ThreadPoolExecutor(SCAN_THREADS, "scan")
        self._scan_when_needed = scan_when_needed
        self._clinical = clinical  # tenants whose every request has health context
        self._feedback = feedback
        self.draining = False
        self.witnesses: Mapping[str, Mapping[str, Any]] = {}  # as they were written down last
        self.drift: Mapping[str, Any] | None = None  # of complexity, as it was looked at last

    def close(self) -> None:
        """Nothing more is scanned."""
        self._scans.shutdown(wait=False, cancel_futures=True)
        self._chooser.close()
        if self._feedback is not None:
            self._feedback.close()

    async def serve(self, inbound: Inbound, sink: ClientSink) -> None:
        """From a request's head to its answer.  What goes wrong ends here, in the client's own dialect."""
        exchange = Exchange(self._next_id(), inbound, sink, time.time_ns() // 1000, self._loop.time())
        try:
            await self._serve(exchange)
        except Refusal as refusal:
            self._refuse(exchange, refusal)
        except Failure as failure:
            self._fail(exchange, failure)
        except JournalError:
            self._refuse(
                exchange,
                Refusal("audit_unavailable", "The audit log cannot be written, so nothing is sent.", retry_after=5),
            )
        except asyncio.CancelledError:
            exchange.refused = "" if exchange.attempts else "abandoned"
            raise
        except Exception as error:  # the one place that turns the unforeseen into a refusal
            log.error("unforeseen in request %s: %s", exchange.id, describe(error))
            self._refuse(exchange, Refusal("internal", "Spillway failed on this request; its log has the reason."))
        finally:
            self._recorder.close(exchange)

    async def _serve(self, exchange: Exchange) -> None:
        inbound = exchange.inbound
        exchange.surface = inbound.head.surface
        if exchange.surface is None and inbound.head.path == HEALTH_PATH and inbound.head.method in ("GET", "HEAD"):
            self._health(exchange)
            return
        principal = self._authenticate(exchange)
        if exchange.surface is None or inbound.head.method != "POST":
            if inbound.head.path == FEEDBACK_PATH and self._feedback is not None:
                body = await self._feedback.take(principal, inbound)
                exchange.sink.whole(200, _JSON + answer_head(exchange, None), body)
                return
            self._read_only(exchange, principal)
            return
        if self.draining:
            raise Refusal("draining", "This worker is shutting down. Try again.", retry_after=1)
        raw = inbound.arrived()
        if raw is None:
            raw = await inbound.body()
        if len(raw) > PARSED_AT_ONCE:
            request = await self._loop.run_in_executor(None, self._parse, exchange, raw)
        else:
            request = self._parse(exchange, raw)
        exchange.request = request
        self._recorder.identify(exchange)
        await NEXT_TURN  # in step, see above
        entry = self._find_model(principal, request)
        if self._scan_when_needed and entry.local_only:
            exchange.ruling = NOT_SCANNED
        else:
            exchange.ruling = await self._classify(exchange, request, principal)
            await NEXT_TURN
        exchange.verdict = exchange.ruling.on(CLOUD)
        if exchange.verdict.action == "block" and exchange.ruling.on(HOME).action == "block":
            raise Refusal("policy_blocked", f"This request may not be sent anywhere (rule {exchange.verdict.rule!r}).")
        decision, targets = await self._chooser.choose(exchange, entry)
        while exchange.ruling.findings and not await self._attempts.ready(exchange, decision, targets):
            decision, targets = await self._chooser.choose(exchange, entry)  # it cannot be redacted for the first one
        broke: OutOfBudget | None = None
        try:
            await self._attempts.run(exchange, decision, targets)
        except OutOfBudget as out:
            broke = out
        if broke is not None:
            await self._instead(exchange, entry, broke)

    async def _instead(self, exchange: Exchange, entry: Entry, broke: OutOfBudget) -> None:
        """A budget is spent: once more, with what it still allows."""
        try:
            decision, targets = await self._chooser.instead(exchange, entry, broke)
            await self._attempts.run(exchange, decision, targets)
        except OutOfBudget as spent:
            raise spent.refusal(dialect_of(exchange.inbound.head.path, exchange.inbound.headers)) from None

    def _authenticate(self, exchange: Exchange) -> Principal:
        inbound = exchange.inbound
        loopback = inbound.peer in ("127.0.0.1", "::1", "")
        if (
            self._keyring.is_open
            and loopback
            and not host_allowed(inbound.headers.get("host"), inbound.headers.get("origin"))
        ):
            raise Refusal("forbidden_host", "Without keys, only requests addressed to this host itself are served.")
        principal = self._keyring.holder(inbound.head.digest, exchange.at, loopback=loopback)
        if principal is None:
            raise Refusal(
                "unauthenticated",
                "The API key is missing, unknown, expired or revoked. Make one with `spillway keys create`.",
            )
        exchange.principal = principal
        return principal

    def _read_only(self, exchange: Exchange, principal: Principal) -> None:
        """The list of models; everything else does not exist."""
        inbound = exchange.inbound
        dialect = dialect_of(inbound.head.path, inbound.headers)
        path = inbound.head.path
        if path in POSTS:
            raise Refusal("method_not_allowed", f"{path} takes POST.")
        if path != MODELS_PATH and not path.startswith(MODELS_PATH + "/"):
            raise Refusal("not_found", "There is nothing at this path.")
        if inbound.head.method not in ("GET", "HEAD"):
            raise Refusal("method_not_allowed", f"{MODELS_PATH} takes GET.")
        exchange.surface = ANTHROPIC_MODELS if dialect == "anthropic" else OPENAI_MODELS
        body = models_body(dialect, self._catalog, principal, path[len(MODELS_PATH) + 1 :])
        exchange.sink.whole(200, _JSON + answer_head(exchange, None), body)

    def _health(self, exchange: Exchange) -> None:
        """For load balancers and whoever watches: no key, no content."""
        recorder = self._recorder
        status, body = health(
            draining=self.draining, writable=recorder.trouble is None, waiting=recorder.unwritten,
            serves_without=recorder.keeps_local, witnesses=self.witnesses, drift=self.drift,
        )  # fmt: skip
        exchange.sink.whole(status, _JSON + b"cache-control: no-store\r\n", body)

    def _parse(self, exchange: Exchange, raw: bytes) -> Request:
        surface = exchange.surface
        assert surface is not None and surface.operation is not None
        try:
            return self._dialects[surface.dialect].parse(surface.operation, raw, exchange.inbound.headers)
        except BadRequest as bad:
            raise Refusal("invalid_request", str(bad), param=bad.param) from None

    def _find_model(self, principal: Principal, request: Request) -> Entry:
        entry = self._catalog.find(request.model)
        if entry is None or not principal.may_use(request.model):
            raise Refusal(
                "model_not_found",
                "The model does not exist or this key may not use it. GET /v1/models lists what it may.",
                param="model",
            )
        return entry

    async def _classify(self, exchange: Exchange, request: Request, principal: Principal) -> Ruling:
        tagged = principal.tenant in self._clinical
        seen = self._scanner.glance(request.body, health=tagged) if len(request.raw) <= OFF_LOOP_BYTES else None
        if seen is None:
            try:
                async with asyncio.timeout(self._scan_deadline):
                    seen = await self._loop.run_in_executor(
                        self._scans, partial(self._scanner.inspect, request.body, health=tagged)
                    )
            except TimeoutError:
                seen = FAILED
        beside = beside_the_body(request.headers, exchange.inbound.head.query)
        if beside and (more := self._scanner.inspect_text(beside, "query", health=seen.health)):
            seen = Inspection(seen.findings + more, seen.health)
        seen = await self._redactor.recalled(exchange, request, principal, seen, beside)
        assert exchange.surface is not None
        exchange.facts = Facts(
            tenant=principal.tenant or "",
            application=principal.project,
            key=principal.name,
            surface=exchange.surface.name,
            model=request.model,
            health=seen.health,
            today=exchange.at // DAY,
        )
        return self._ruleset.judge(seen.findings, exchange.facts)

    # --- answers that are Spillway's own -----------------------------------------------------------------

    def _refuse(self, exchange: Exchange, refusal: Refusal) -> None:
        exchange.refused = refusal.code
        exchange.refused_status = refusal.status
        self._answer(exchange, refusal.info(), final=refusal.final, more=refusal.headers)

    def _fail(self, exchange: Exchange, failure: Failure) -> None:
        """Every candidate failed: the last engine's own words where the dialects match, else ours."""
        error = failure.error
        target = exchange.attempts[-1].target if exchange.attempts else None
        if not any(
            [attempt.recorded for attempt in exchange.attempts]
        ):  # no engine was asked: it is a refusal (law 12)
            info = failure_info(error)
            exchange.refused, exchange.refused_status = info.code or error.code, info.status
        if (
            failure.same_dialect
            and isinstance(error, EngineRefused)
            and error.upstream is not None
            and error.upstream[0] not in (401, 403)
        ):
            status, headers, body = error.upstream
            exchange.sink.whole(status, passed(tuple(headers)) + answer_head(exchange, target), body)
            return
        self._answer(exchange, failure_info(error), final=isinstance(error, (Untranslatable, AnswerBlocked)))

    def _answer(self, exchange: Exchange, info: ErrorInfo, *, final: bool, more: tuple[Header, ...] = ()) -> None:
        sink = exchange.sink
        if sink.started:
            sink.abort()  # the unforeseen, in mid-answer: nobody must take it for whole
            return
        dialect = self._dialects[dialect_of(exchange.inbound.head.path, exchange.inbound.headers)]
        head = _JSON + answer_head(exchange, exchange.attempts[-1].target if exchange.attempts else None)
        head += header_block(more)
        if final:
            head += b"x-should-retry: false\r\n"
        if info.retry_after is not None:
            head += b"retry-after: %d\r\n" % max(1, round(info.retry_after))
        sink.whole(info.status, head, dialect.error_body(info))
