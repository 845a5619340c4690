"""What happened -> records of the log, and observations for telemetry.

Decisions are recorded before an attempt is dispatched, outcomes when it is over, refusals at the end.  What is
written down of findings is their types, counts and places, never values; names that clients choose are
bounded, and users are pseudonyms under the instance's key.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from compliance.journal import Journal, JournalError
from compliance.model import Finding
from compliance.records import Decision, Outcome, Refused, bounded_name
from engines.catalog import Catalog
from policies.model import Veto
from proxy.exchange import Attempt, Exchange
from proxy.telemetry import Observation, Telemetry

MAX_NAMES = 4096
"""Names of the catalogue that are remembered in their stored form."""
MAX_LISTED = 32
"""Findings and vetoes written of one request."""
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context, section 3.2: anything else is a client's own text, which is never written down."""


class Recorder:
    """One worker's pen."""

    def __init__(
        self, journal: Journal, telemetry: Telemetry, catalog: Catalog, policy: str, pseudonym_key: bytes
    ) -> None:
        self._journal = journal
        self._telemetry = telemetry
        self._catalog = catalog
        self._policy = policy
        self._pseudonym_key = pseudonym_key
        self._names: dict[str, str] = {}

    def identify(self, exchange: Exchange) -> None:
        """Who is behind the request: the user as a pseudonym, and the trace that the client continues."""
        request = exchange.request
        assert request is not None
        user = _user(request.body)
        if user:
            exchange.actor = hmac.new(self._pseudonym_key, user.encode("utf-8", "replace"), hashlib.sha256).hexdigest()[
                :16
            ]
        trace = exchange.inbound.headers.get("traceparent", "")
        exchange.trace = trace if _TRACEPARENT.fullmatch(trace) else ""

    def decision(self, exchange: Exchange, attempt: Attempt, edits: tuple[str, ...]) -> int:
        """Queue the decision's record; its sequence number."""
        request, decision, principal, verdict = exchange.request, exchange.decision, exchange.principal, attempt.verdict
        assert request is not None and decision is not None and principal is not None
        target = attempt.target
        record = Decision(
            action=verdict.action,
            actor=exchange.actor,
            at=time.time_ns() // 1000,
            attempt=attempt.index,
            boundary=target.boundary,
            edits=edits,
            findings=summary(verdict.findings) if verdict.findings else (),
            hold=attempt.hold,
            key=principal.key,
            model=self._name(request.model),
            operation=request.operation.value,
            organisation=principal.organisation,
            overflow=decision.overflow or "",
            policy=self._policy,
            project=principal.project,
            redacted=tuple([f"{kind}:{count}" for kind, count in attempt.redacted]) if attempt.redacted else (),
            request=exchange.id,
            routing=decision.rule,
            rule=verdict.rule,
            scopes=attempt.scopes,
            stream=request.stream,
            surface=exchange.surface.name if exchange.surface is not None else "",
            target=target.name,
            team=principal.team,
            tenant=principal.tenant or "",
            trace=exchange.trace,
            vetoes=_vetoes(decision.vetoes) if decision.vetoes else (),
        )
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
        request, principal = exchange.request, exchange.principal
        assert request is not None and principal is not None
        usage = attempt.usage
        record = Outcome(
            at=time.time_ns() // 1000,
            attempt=attempt.index,
            boundary=attempt.target.boundary,
            bytes_in=attempt.bytes_in,
            bytes_out=exchange.sink.bytes_out,
            cache_read=usage.cache_read if usage else 0,
            cache_write_1h=usage.cache_write_1h if usage else 0,
            cache_write_5m=usage.cache_write_5m if usage else 0,
            committed=attempt.committed,
            connect_us=attempt.connect_us,
            cost=attempt.cost,
            ending=attempt.ending,
            error=attempt.error,
            findings=summary(attempt.answer_findings, counted=True) if attempt.answer_findings else (),
            first_us=attempt.first_us,
            hold=attempt.hold,
            input=usage.input if usage else 0,
            key=principal.key,
            model=self._name(request.model),
            organisation=principal.organisation,
            output=usage.output if usage else 0,
            price=attempt.price,
            project=principal.project,
            quality=usage.quality if usage else "exact",
            queue_us=exchange.queue_us,
            reasoning=usage.reasoning if usage else 0,
            request=exchange.id,
            scopes=attempt.scopes,
            status=attempt.status,
            target=attempt.target.name,
            team=principal.team,
            tenant=principal.tenant or "",
            total_us=attempt.total_us,
        )
        try:
            self._journal.append(record)
        except JournalError:
            pass  # the journal has said so and refuses what comes next; at the next start this attempt is `interrupted`

    def close(self, exchange: Exchange) -> None:
        """A request that ended without an attempt, or was refused after one, is recorded as refused."""
        if not exchange.refused:
            return
        principal, verdict, decision = exchange.principal, exchange.verdict, exchange.decision
        record = Refused(
            action=verdict.action if verdict else "",
            at=time.time_ns() // 1000,
            code=exchange.refused,
            findings=summary(verdict.findings) if verdict else (),
            key=principal.key if principal else "",
            model=self._name(exchange.request.model) if exchange.request else "",
            organisation=principal.organisation if principal else "",
            policy=self._policy,
            project=principal.project if principal else "",
            request=exchange.id,
            rule=verdict.rule if verdict else "",
            status=exchange.refused_status,
            surface=exchange.surface.name if exchange.surface else "",
            tenant=(principal.tenant or "") if principal else "",
            vetoes=_vetoes(decision.vetoes) if decision else (),
        )
        if not exchange.attempts:
            self._observe_refusal(exchange)
        try:
            self._journal.append(record)
        except JournalError:
            pass  # nothing was sent, and the client was told

    def _name(self, model: str) -> str:
        """A catalogue's name as it is; any other could be anything, so it is stored as a pseudonym."""
        known = self._names.get(model)
        if known is not None:
            return known
        if self._catalog.find(model) is not None:
            name = bounded_name(model)
            if len(self._names) < MAX_NAMES:
                self._names[model] = name
            return name
        return "~" + hmac.new(self._pseudonym_key, model.encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:16]

    def _observe(self, exchange: Exchange, attempt: Attempt) -> None:
        telemetry = self._telemetry
        if not telemetry.enabled:
            return
        request, usage, decision = exchange.request, attempt.usage, exchange.decision
        left = attempt.target.boundary != "local" and decision is not None
        telemetry.observe(
            Observation(
                request_id=exchange.id,
                surface=exchange.surface.name if exchange.surface else "",
                model=self._name(request.model) if request else "",
                target=attempt.target.name,
                boundary=attempt.target.boundary,
                ending=attempt.ending,
                error=attempt.error,
                at=exchange.at,
                start_us=attempt.started_us,
                connect_us=attempt.connect_us,
                first_us=attempt.first_us,
                total_us=attempt.total_us,
                input_tokens=usage.input + usage.cache_read if usage else 0,
                output_tokens=usage.output if usage else 0,
                cost=attempt.cost,
                action=exchange.verdict.action if exchange.verdict else "",
                overflow=(decision.overflow or "") if left and decision is not None else "",
                trace=exchange.trace,
            )
        )

    def _observe_refusal(self, exchange: Exchange) -> None:
        if self._telemetry.enabled:
            self._telemetry.observe(
                Observation(
                    request_id=exchange.id, surface=exchange.surface.name if exchange.surface else "", model="", target="", boundary="",
                    ending="refused", error=exchange.refused, at=exchange.at, start_us=0, connect_us=0, first_us=0, total_us=0,
                    trace=exchange.trace,
                )
            )  # fmt: skip


def keep_policy(logs: Path, hash_: str, material: bytes) -> None:
    """Keep beside the logs what a policy's hash was taken over: records name the hash, evidence packs hold both."""
    path = logs / "policies" / f"{hash_}.json"
    if not path.exists():
        path.parent.mkdir(exist_ok=True, mode=0o700)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_bytes(material)
        part.replace(path)


def summary(findings: Iterable[Finding], *, counted: bool = False) -> tuple[str, ...]:
    """`type:count:path` of each type and place, bounded.  With `counted`, a finding's end is its count."""
    counts: dict[tuple[str, str], int] = {}
    for finding in findings:
        key = (finding.type, finding.path)
        counts[key] = counts.get(key, 0) + (finding.end if counted else 1)
    return tuple([f"{kind}:{count}:{path}" for (kind, path), count in list(counts.items())[:MAX_LISTED]])


def _vetoes(vetoes: Iterable[Veto]) -> tuple[str, ...]:
    return tuple([f"{veto.target}:{veto.reason}" for veto in list(vetoes)[:MAX_LISTED]])


def _user(body: Mapping[str, object]) -> str:
    """The end user, where the dialect says who it is."""
    user = body.get("safety_identifier") or body.get("user")
    if user is None and isinstance(metadata := body.get("metadata"), dict):
        user = metadata.get("user_id")
    return user[:512] if isinstance(user, str) else ""
