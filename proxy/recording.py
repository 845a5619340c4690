"""What happened -> records of the log, and observations for telemetry.

Decisions are recorded before an attempt is dispatched, outcomes when it is over, refusals at the end.  What is
written down of findings is their types, counts and places, never values; names that clients choose are
bounded, and users are pseudonyms under the instance's key.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any

from compliance.journal import Journal, JournalError
from compliance.model import Finding
from compliance.records import Decision, Judged, Outcome, Refused, bounded_name
from engines.catalog import Catalog
from engines.model import Request, Target
from policies.complexity import estimate_tokens
from policies.model import Veto
from proxy.auth import Principal
from proxy.exchange import Attempt, Exchange
from proxy.fingerprints import Stamps
from proxy.heads import Told
from proxy.tags import Labels
from proxy.telemetry import Observation, Telemetry

SUBJECT_HEADER = "x-spillway-subject"
MAX_NAMES = 4096
"""Names of the catalogue that are remembered in their stored form."""
MAX_LINES = 1024
"""Kinds of records whose common part is kept."""
LONGEST_USER = 512
"""Characters of a user's name that tell users apart."""
MAX_PLACES = 8
"""Places written of one type in one field."""
MAX_LISTED = 32
"""Findings and vetoes written of one request."""
MEDIA = frozenset({"vision", "audio", "documents"})
"""Needs that come with bytes in the body that are no text."""
_NAMING = frozenset({"safety_identifier", "user", "metadata"})
_EPOCH = date(1970, 1, 1).toordinal()
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context, section 3.2: anything else is a client's own text, which is never written down."""


class Recorder:
    """One worker's pen."""

    def __init__(
        self, journal: Journal, telemetry: Telemetry, catalog: Catalog, stamps: Stamps, pseudonym_key: bytes,
        *, keeps_local: bool = False, ended: Callable[[Exchange, Attempt], None] | None = None,
    ) -> None:  # fmt: skip
        self._journal = journal
        self._ended = ended  # told of each attempt whose outcome was recorded
        self._telemetry = telemetry
        self._stamps = stamps
        self._policy = stamps.policy
        self._pseudonym_key = pseudonym_key
        declared = [*(entry.name for entry in catalog.entries), *stamps.models]
        self._names = {name: bounded_name(name) for name in declared}
        self._declared = {target.name: bounded_name(target.name) for target in catalog.targets}
        self._routes: dict[str, _Route] = {}
        self._lines: dict[tuple[int, str, str, str], _Line] = {}
        self._labels = Labels(pseudonym_key)
        self.keeps_local = keeps_local  # what would leave is served at home while the log cannot be written

    @property
    def behind(self) -> bool:
        """Must local requests wait for their record, because the log is too far behind?"""
        return self._journal.behind

    @property
    def home_only(self) -> bool:
        """May nothing leave now, because the log cannot be written, and is what may stay to be served at home?"""
        return self.keeps_local and not self._journal.healthy

    @property
    def unwritten(self) -> int:
        """Records that are not on the disk yet."""
        return self._journal.unwritten

    @property
    def trouble(self) -> str | None:
        """Why the log cannot be written now; None: it can."""
        return self._journal.trouble

    def identify(self, exchange: Exchange) -> None:
        """Who is behind the request: the user as a pseudonym, and the trace that the client continues."""
        request = exchange.request
        assert request is not None
        user = user_of(request.body)
        if user:
            exchange.actor = user_pseudonym(self._pseudonym_key, user)
        head = exchange.inbound.head
        told = head.told
        if told is None:
            told = head.told = self._told(head.headers)
        exchange.told = told

    def _told(self, headers: Mapping[str, str]) -> Told:
        subject = headers.get(SUBJECT_HEADER)
        trace = headers.get("traceparent", "")
        if not _TRACEPARENT.fullmatch(trace):
            trace = ""
        key = self._pseudonym_key
        return Told(
            subject=subject_pseudonym(key, subject) if subject else "",
            trace=trace,
            stored_trace=trace and trace_pseudonym(key, trace),
            request_class=self._labels.request_class(headers),
            tags=self._labels.tags(headers),
        )

    def decision(self, exchange: Exchange, attempt: Attempt, edits: tuple[str, ...]) -> int:
        """Queue the decision's record; its sequence number."""
        request, decision, verdict = exchange.request, exchange.decision, attempt.verdict
        steered, told, facts = exchange.steered, exchange.told, exchange.facts
        assert request is not None and decision is not None
        line = attempt.line = self._line(exchange, attempt.target)
        record: Decision = line.decision.__copy__()
        record.action = verdict.action
        record.actor = exchange.actor
        record.at = time.time_ns() // 1000
        record.attempt = attempt.index
        record.capture = attempt.capture is not None
        record.edits = edits
        record.hold = attempt.hold
        record.operation = request.operation
        record.overflow = decision.overflow or ""
        record.request = exchange.id
        record.request_class = told.request_class
        record.routing = decision.rule
        record.rule = verdict.rule
        record.rule_version = self._stamps.rules.get(verdict.rule, self._stamps.defaults)
        record.scopes = attempt.scopes
        record.shape = shape_of(request)
        record.stream = request.stream
        record.subject = told.subject
        record.tags = told.tags
        record.trace = told.stored_trace
        if verdict.findings:
            record.findings = summary(verdict.findings)
        if facts is not None:
            record.health = facts.health
        if attempt.redacted:
            record.redacted = tuple([f"{kind}:{count}" for kind, count in attempt.redacted])
        if steered is not None:
            record.decision, record.route, record.signals = steered.decision, steered.route, steered.told
        if decision.vetoes:
            record.vetoes = self._vetoes(decision.vetoes)
        seq = self._journal.append(record)
        attempt.recorded = True
        return seq

    async def durable(self, seq: int) -> None:
        """Until the record is on the disk; raises `JournalError`."""
        await self._journal.wait_durable(seq)

    def outcome(self, exchange: Exchange, attempt: Attempt) -> None:
        """Queue the outcome's record, if the decision's stands; never raises: the answer is out already."""
        self._observe(exchange, attempt)
        if not attempt.recorded:
            return
        usage = attempt.usage
        record: Outcome = attempt.line.outcome.__copy__()
        record.at = time.time_ns() // 1000
        record.attempt = attempt.index
        record.bytes_in = attempt.bytes_in
        record.bytes_out = exchange.sink.bytes_out
        record.committed = attempt.committed
        record.connect_us = attempt.connect_us
        record.cost = attempt.cost
        record.ending = attempt.ending
        record.error = attempt.error
        record.first_us = attempt.first_us
        record.hold = attempt.hold
        record.price = attempt.price
        record.queue_us = exchange.queue_us
        record.request = exchange.id
        record.scopes = attempt.scopes
        record.status = attempt.status
        record.total_us = attempt.total_us
        if attempt.answer_findings:
            record.findings = summary(attempt.answer_findings, counted=True)
        if usage is not None:
            record.audio_input, record.audio_output = usage.audio_input, usage.audio_output
            record.cache_read = usage.cache_read
            record.cache_write_1h, record.cache_write_5m = usage.cache_write_1h, usage.cache_write_5m
            record.decode_us, record.prefill_us = usage.decode_us, usage.prefill_us
            record.input, record.output, record.reasoning = usage.input, usage.output, usage.reasoning
            record.quality = usage.quality
        try:
            self._journal.append(record)
        except JournalError:
            pass  # the journal has said so and refuses what comes next; at the next start this attempt is `interrupted`
        if self._ended is not None:
            self._ended(exchange, attempt)

    def judged(self, record: Judged, lower: Target | None, upper: Target | None) -> None:
        """Queue what was made of an answer that was held; never raises, as `outcome`."""
        self._telemetry.judged(record.decision, record.why)
        record.at = time.time_ns() // 1000
        record.target = self._route(lower).name if lower is not None else ""
        record.up = self._route(upper).name if upper is not None else ""
        try:
            self._journal.append(record)
        except JournalError:
            pass  # its outcome is lost with it, and the journal has said so

    def close(self, exchange: Exchange) -> None:
        """A request that ended without an attempt, or was refused after one, is recorded as refused."""
        if not exchange.refused:
            return
        principal, verdict, decision = exchange.principal, exchange.verdict, exchange.decision
        record = Refused(
            action=verdict.action if verdict else "",
            actor=exchange.actor,
            at=time.time_ns() // 1000,
            code=exchange.refused,
            detectors=self._stamps.detectors if verdict else "",
            findings=summary(verdict.findings) if verdict else (),
            health=exchange.facts.health if exchange.facts is not None else False,
            key=principal.key if principal else "",
            model=self._name(exchange.request.model) if exchange.request else "",
            organisation=principal.organisation if principal else "",
            policy=self._policy,
            project=principal.project if principal else "",
            request=exchange.id,
            rule=verdict.rule if verdict else "",
            rule_version=self._stamps.rules.get(verdict.rule, self._stamps.defaults) if verdict else "",
            shape=shape_of(exchange.request) if exchange.request else "",
            status=exchange.refused_status,
            subject=exchange.told.subject,
            surface=exchange.surface.name if exchange.surface else "",
            team=principal.team if principal else "",
            tenant=(principal.tenant or "") if principal else "",
            trace=exchange.told.stored_trace,
            vetoes=self._vetoes(decision.vetoes) if decision else (),
        )
        if not exchange.attempts:
            self._observe_refusal(exchange)
        try:
            self._journal.append(record)
        except JournalError:
            pass  # nothing was sent, and the client was told

    def _name(self, model: str) -> str:
        """A declared name, or one with a price, as it is.  Any other could be anything, also where an engine takes every
        name, so it is stored as a pseudonym."""
        known = self._names.get(model)
        if known is not None:
            return known
        engine, slash, rest = model.partition("/")
        if slash and rest in self._names and f"{engine}/*" in self._declared:
            return bounded_name(model)
        return "~" + hmac.new(self._pseudonym_key, model.encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:16]

    def _line(self, exchange: Exchange, target: Target) -> _Line:
        """What the records of one key's requests for one model at one target have in common: worked out once."""
        request, principal, surface = exchange.request, exchange.principal, exchange.surface
        assert request is not None and principal is not None
        surface_name = surface.name if surface is not None else ""
        key = (id(principal), request.model, target.name, surface_name)
        line = self._lines.get(key)
        if line is None:
            line = self._new_line(principal, self._name(request.model), target, surface_name)
            if len(self._lines) >= MAX_LINES:
                self._lines.clear()
            self._lines[key] = line
        return line

    def _new_line(self, principal: Principal, model: str, target: Target, surface: str) -> _Line:
        route, stamps = self._route(target), self._stamps
        tenant = principal.tenant or ""
        decision = Decision(
            action="", actor="", at=0, attempt=0, boundary=target.boundary, contract=route.contract, detectors=stamps.detectors,
            edits=(), findings=(), hold=0, key=principal.key, model=model, operation="", organisation=principal.organisation,
            overflow="", policy=self._policy, project=principal.project, provider=target.kind,
            purpose=stamps.purposes.get(tenant, "") if tenant else "", region=target.region, request="", routing="", rule="",
            scopes=(), served=route.served, stream=False, surface=surface, target=route.name, team=principal.team, tenant=tenant,
            trace="", vetoes=(),
        )  # fmt: skip
        outcome = Outcome(
            at=0, attempt=0, boundary=target.boundary, bytes_in=0, bytes_out=0, cache_read=0, cache_write_1h=0, cache_write_5m=0,
            committed=False, connect_us=0, cost=0, ending="", error="", findings=(), first_us=0, hold=0, input=0,
            key=principal.key, model=model, organisation=principal.organisation, output=0, price="", project=principal.project,
            quality="exact", queue_us=0, reasoning=0, request="", scopes=(), status=0, target=route.name, team=principal.team,
            tenant=tenant, total_us=0,
        )  # fmt: skip
        return _Line(principal, decision, outcome)

    def _route(self, target: Target) -> _Route:
        """How records name a target: constant, so worked out once."""
        route = self._routes.get(target.name)
        if route is None:
            name = self._target(target.name)
            route = _Route(
                name, _contract(target), self._served(target), name.partition("~")[0] + "*" if "/~" in name else name
            )
            if len(self._routes) < MAX_NAMES:
                self._routes[target.name] = route
        return route

    def _target(self, name: str) -> str:
        """A target of an engine that takes every name is called by what the client wrote."""
        known = self._declared.get(name)
        if known is not None:
            return known
        engine, _, model = name.partition("/")
        return f"{engine}/{self._name(model)}"

    def _served(self, target: Target) -> str:
        return bounded_name(target.model) if target.name in self._declared else self._name(target.model)

    def _vetoes(self, vetoes: Sequence[Veto]) -> tuple[str, ...]:
        """`target:reason`, and what more there is to say where the reason alone does not say it."""
        return tuple([self._veto(veto) for veto in vetoes[:MAX_LISTED]])

    def _veto(self, veto: Veto) -> str:
        words = f"{self._target(veto.target)}:{veto.reason}"
        return f"{words}:{veto.detail}" if veto.detail and veto.reason != "boundary" else words

    def _observe(self, exchange: Exchange, attempt: Attempt) -> None:
        telemetry = self._telemetry
        if not telemetry.enabled:
            return
        request, usage, decision, target = exchange.request, attempt.usage, exchange.decision, attempt.target
        left = target.boundary != "local" and decision is not None
        telemetry.observe(
            Observation(  # by place: names cost 1.5 us
                exchange.id,
                exchange.surface.name if exchange.surface else "",
                self._name(request.model) if request else "",
                self._route(target).metric,
                target.boundary,
                attempt.ending,
                attempt.error,
                exchange.at,
                attempt.started_us,
                attempt.connect_us,
                attempt.first_us,
                attempt.total_us,
                usage.input + usage.cache_read if usage else 0,
                usage.output if usage else 0,
                attempt.cost,
                exchange.verdict.action if exchange.verdict else "",
                (decision.overflow or "") if left and decision is not None else "",
                exchange.told.trace,
            )
        )

    def _observe_refusal(self, exchange: Exchange) -> None:
        if self._telemetry.enabled:
            self._telemetry.observe(
                Observation(
                    request_id=exchange.id, surface=exchange.surface.name if exchange.surface else "", model="", target="", boundary="",
                    ending="refused", error=exchange.refused, at=exchange.at, start_us=0, connect_us=0, first_us=0, total_us=0,
                    trace=exchange.told.trace,
                )
            )  # fmt: skip


def shape_of(request: Request) -> str:
    """What a replay asks of a request's size, in few bytes: tokens, messages, most output, and what it needs beside its
    operation.

    The tokens are the estimate that decisions read; `?` where pictures and the like stand in the body, which it leaves out.
    """
    messages = request.body.get("messages")
    count = len(messages) if isinstance(messages, list) else 0
    needs = request.needs
    tokens: int | str = estimate_tokens(len(request.raw))
    if len(needs) < 2:
        return f"{tokens} {count} {request.max_output or 0}"
    if needs & MEDIA:
        tokens = "?"
    return f"{tokens} {count} {request.max_output or 0} {','.join(sorted(needs - {request.operation.value}))}"


def summary(findings: Sequence[Finding], *, counted: bool = False) -> tuple[str, ...]:
    """`type:count:path:confidence:start-end,...` of each type and place, bounded; the confidence is the highest, in percent.

    Where no place in the field is known it is `type:count:path:confidence`.  With `counted` a finding's end is its count,
    and `type:count:path` is all that is known: an answer is not kept, so that places in it mean nothing.
    """
    if not counted and len(findings) == 1:
        one = findings[0]
        return (f"{one.type}:1:{one.path}:{_places(findings)}",)
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.type, finding.path), []).append(finding)
    rows = list(groups.items())[:MAX_LISTED]
    if counted:
        return tuple([f"{kind}:{sum([one.end for one in found])}:{path}" for (kind, path), found in rows])
    return tuple([f"{kind}:{len(found)}:{path}:{_places(found)}" for (kind, path), found in rows])


def _places(found: Sequence[Finding]) -> str:
    sure = round(100 * max([one.confidence for one in found]))
    places = [f"{one.start}-{one.end}" for one in found[:MAX_PLACES] if one.end]
    if not places:
        return str(sure)
    return f"{sure}:{','.join(places)}{',...' if len(found) > MAX_PLACES else ''}"


class _Line:
    """Records to be copied: what stands in them holds for all of a line's requests."""

    __slots__ = ("decision", "outcome", "principal")

    def __init__(self, principal: Principal, decision: Any, outcome: Any) -> None:
        self.principal = principal  # which stays alive with it, so that no other can have its id
        self.decision = decision  # Decision and Outcome, whose `__copy__` msgspec does not declare
        self.outcome = outcome


class _Route:
    """What records say of a target."""

    __slots__ = ("contract", "metric", "name", "served")

    def __init__(self, name: str, contract: str, served: str, metric: str) -> None:
        self.name = name
        self.contract = contract
        self.served = served
        self.metric = metric
        """As metrics and spans call it: an engine's undeclared models together, however many names clients make up."""


def _contract(target: Target) -> str:
    """What was agreed, with its last day: whether it was in force then is told by the record's time."""
    parts = []
    if target.baa_until is not None:
        parts.append(f"baa until {date.fromordinal(target.baa_until + _EPOCH).isoformat()}")
    if target.zero_retention:
        parts.append("zero_retention")
    return ", ".join(parts)


def pseudonym_key(signing_key: bytes) -> bytes:
    """The instance's key for pseudonyms of users and subjects, from the log's signing key."""
    return hmac.new(signing_key, b"spillway pseudonyms", hashlib.sha256).digest()


def user_pseudonym(key: bytes, user: str) -> str:
    """Who is behind a request, as records have it: 64 bits of a MAC, in hex."""
    return hmac.new(key, user[:LONGEST_USER].encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:16]


def trace_pseudonym(key: bytes, traceparent: str) -> str:
    """The trace that a client continues, as records have it: 128 bits of a MAC over its trace id, in hex.

    The id itself is 32 digits of the client's choice, and could spell a number of somebody's record.  Records of one trace
    have the same; a span of the export has the real id, and the request's id, which is in the record.
    """
    return hmac.new(key, b"trace\0" + traceparent[3:35].encode(), hashlib.sha256).hexdigest()[:32]


def subject_pseudonym(key: bytes, subject: str) -> str:
    """Whose data a request is, as records have it: 128 bits of a MAC, in hex."""
    return hmac.new(key, b"subject\0" + subject.strip().encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()[
        :32
    ]


def user_of(body: Mapping[str, object]) -> str:
    """The end user, where the dialect says who it is."""
    if _NAMING.isdisjoint(body):
        return ""
    user = body.get("safety_identifier") or body.get("user")
    if user is None and isinstance(metadata := body.get("metadata"), dict):
        user = metadata.get("user_id")
    return user if isinstance(user, str) else ""
