"""Spans and metrics, built from what was recorded, off the path.  Never content; never decides; never fails a request.

The path only appends a finished `Exchange`'s numbers to a bounded queue.  Twice a second a thread turns them
into Prometheus metrics, and into OpenTelemetry spans for a sample of them (`proxy.spans`); errors, refusals and
overflow are always kept.
"""

from __future__ import annotations

import logging
import queue
import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from proxy.background import step_back

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

    from proxy.spans import Spans

log = logging.getLogger("spillway")

BACKLOG = 20_000
"""Observations kept while the thread is behind; past it they are dropped and counted."""
INTERVAL = 0.5  # seconds
BATCH = 1000
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Observation(Struct, frozen=True, gc=False):
    """One attempt, or one refusal before any attempt, in numbers and names that are no content."""

    request_id: str
    surface: str
    model: str  # a name of the catalogue, or "other"
    target: str  # "" for a refusal
    boundary: str
    ending: str
    error: str
    at: int  # microseconds since the epoch, of the request's arrival
    start_us: int  # of the attempt, since the arrival
    connect_us: int
    first_us: int
    total_us: int
    input_tokens: int = 0
    output_tokens: int = 0
    cost: int = 0  # pico-dollars
    action: str = ""
    overflow: str = ""
    trace: str = ""  # a W3C traceparent, if the client sent one


class Metrics:
    """The metrics of one process, on a registry of its own."""

    def __init__(self, registry: CollectorRegistry) -> None:
        import prometheus_client as made  # which looks at once whether other processes' metrics are to be summed

        self._made = made
        by = ["surface", "target", "boundary", "ending"]
        self.attempts = made.Counter("spillway_attempts_total", "Attempts by target and ending.", by, registry=registry)
        self.refusals = made.Counter(
            "spillway_refusals_total", "Requests refused by Spillway.", ["surface", "code"], registry=registry
        )
        self.actions = made.Counter("spillway_actions_total", "Verdicts of compliance.", ["action"], registry=registry)
        self.overflow = made.Counter(
            "spillway_overflow_total", "Attempts that left home, by reason.", ["reason"], registry=registry
        )
        self.tokens = made.Counter("spillway_tokens_total", "Tokens metered.", ["target", "meter"], registry=registry)
        self.cost = made.Counter(
            "spillway_cost_dollars_total", "Cost of cloud attempts.", ["target"], registry=registry
        )
        self.first = made.Histogram(
            "spillway_first_event_seconds", "Arrival to first event.", ["target"], buckets=_SECONDS, registry=registry
        )
        self.total = made.Histogram(
            "spillway_request_seconds", "Arrival to end.", ["target", "ending"], buckets=_SECONDS, registry=registry
        )
        self.unwritable = made.Gauge(
            "spillway_audit_unwritable", "Workers whose audit log cannot be written now.", registry=registry, multiprocess_mode="livesum"
        )  # fmt: skip
        self._registry = registry
        self._drift: tuple[Gauge, Gauge] | None = None
        self._second: Counter | None = None
        self._judged: Counter | None = None
        self.dropped = made.Counter(
            "spillway_telemetry_dropped_total", "Observations lost because the thread was behind.", registry=registry
        )

    def second_stage(self, outcome: str) -> None:
        """A text of which the first stage of routes was unsure; made where there is a second."""
        if self._second is None:
            what = "Texts that the first stage of routes was unsure of, by what became of the second: asked, late, share spent, ..."
            self._second = self._made.Counter("spillway_second_stage_total", what, ["outcome"], registry=self._registry)
        self._second.labels(outcome).inc()

    def judged(self, decision: str, why: str) -> None:
        """An answer that was to be read before it went out; made where a decision lets doubtful ones go up."""
        if self._judged is None:
            what = "Answers that were to be read before they went out, by why they went up or stayed."
            self._judged = self._made.Counter(
                "spillway_judged_total", what, ["decision", "why"], registry=self._registry
            )
        self._judged.labels(decision, why).inc()

    def drift(self, index: float | None, alarm: bool) -> None:
        """How unlike its calibration the traffic is that decisions ask the complexity of; made where one asks."""
        if self._drift is None:
            what = "Population stability index of recent complexity against its calibration, of the worker where it is largest."
            self._drift = (
                self._made.Gauge("spillway_complexity_drift", what, registry=self._registry, multiprocess_mode="livemax"),
                self._made.Gauge(
                    "spillway_complexity_drift_alarm", "Workers whose drift alarm rings.", registry=self._registry, multiprocess_mode="livesum"
                ),
            )  # fmt: skip
        self._drift[0].set(index or 0)
        self._drift[1].set(1 if alarm else 0)

    def count(self, batch: Sequence[Observation]) -> None:
        """Add a batch: what is alike is summed first, since finding a labelled child costs more than counting."""
        alike: dict[tuple[str, ...], list[Observation]] = {}
        for seen in batch:
            key: tuple[str, ...] = (
                (seen.surface, seen.target, seen.boundary, seen.ending, seen.action, seen.overflow)
                if seen.target
                else (seen.surface, seen.error)
            )
            found = alike.get(key)
            if found is None:
                alike[key] = [seen]
            else:
                found.append(seen)
        for found in alike.values():
            self._count_alike(found)

    def _count_alike(self, found: Sequence[Observation]) -> None:
        one, number = found[0], len(found)
        if not one.target:
            self.refusals.labels(one.surface, one.error).inc(number)
            return
        self.attempts.labels(one.surface, one.target, one.boundary, one.ending).inc(number)
        self.actions.labels(one.action).inc(number)
        observe_all(self.total.labels(one.target, one.ending), [seen.total_us for seen in found])
        if first := [seen.first_us for seen in found if seen.first_us]:
            observe_all(self.first.labels(one.target), first)
        if one.overflow:
            self.overflow.labels(one.overflow).inc(number)
        into, out = sum([seen.input_tokens for seen in found]), sum([seen.output_tokens for seen in found])
        if into or out:
            self.tokens.labels(one.target, "input").inc(into)
            self.tokens.labels(one.target, "output").inc(out)
        if cost := sum([seen.cost for seen in found]):
            self.cost.labels(one.target).inc(cost / 1e12)


def observe_all(histogram: Histogram, micros: Sequence[int]) -> None:
    """`observe` each, given in microseconds, in seconds.

    By the client's own parts, one addition for a bucket: `observe` adds twice for each value, and where the values lie in a
    file that processes share, that is 2 us of them.
    """
    bounds = histogram._upper_bounds
    buckets = [0] * len(bounds)
    for value in micros:
        buckets[bisect_left(bounds, value / 1e6)] += 1
    histogram._sum.inc(sum(micros) / 1e6)
    for bucket, number in zip(histogram._buckets, buckets, strict=True):
        if number:
            bucket.inc(number)


class Telemetry:
    """The queue between the path and the thread."""

    def __init__(
        self, *, metrics: Metrics | None, exporter: SpanExporter | None, sample: float, version: str, worker: int
    ) -> None:
        self._metrics = metrics
        self._every = max(1, round(1 / sample)) if sample > 0 else 0
        self._count = 0
        self._waiting: deque[Observation] = deque()
        self._outcomes: deque[str] = deque()  # of second stages
        self._dropped = 0
        self._spans: Spans | None = None
        if exporter is not None:
            from proxy.spans import Spans  # with OpenTelemetry, which whoever sends no spans need not load

            self._spans = Spans(exporter, version, worker)
        self._stop: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self.enabled = metrics is not None or exporter is not None

    def start(self) -> None:
        if self.enabled:
            self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
            self._thread.start()

    def observe(self, seen: Observation) -> None:
        """From the path: an append, or a count where the thread is far behind."""
        if len(self._waiting) < BACKLOG:
            self._waiting.append(seen)
        else:
            self._dropped += 1

    def audit_trouble(self, why: str | None) -> None:
        """The log cannot be written, or can again (None).  From any thread."""
        if self._metrics is not None:
            self._metrics.unwritable.set(0 if why is None else 1)

    def second_stage(self, outcome: str) -> None:
        """From the path, of the few texts that the second stage of routes is for."""
        if self._metrics is not None and len(self._outcomes) < BACKLOG:
            self._outcomes.append(outcome)

    def judged(self, decision: str, why: str) -> None:
        """From the path, of requests whose answers are read."""
        if self._metrics is not None:
            self._metrics.judged(decision, why)

    def drift(self, index: float | None, alarm: bool) -> None:
        """From any thread."""
        if self._metrics is not None:
            self._metrics.drift(index, alarm)

    def close(self) -> None:
        """Handle what is waiting, flush the exporter, end the thread."""
        if self._thread is not None:
            self._stop.put(None)
            self._thread.join(5)
        if self._spans is not None:
            self._spans.close()

    def _run(self) -> None:
        step_back()
        while True:
            try:
                self._stop.get(timeout=INTERVAL)
                self._drain()
                return
            except queue.Empty:
                self._drain()

    def _drain(self) -> None:
        waiting = self._waiting
        while waiting:
            batch = [waiting.popleft() for _ in range(min(len(waiting), BATCH))]
            if self._metrics is not None:
                self._metrics.count(batch)
            if self._spans is not None:
                for seen in batch:
                    if self._sampled(seen):
                        self._spans.add(seen)
        while self._outcomes and self._metrics is not None:
            self._metrics.second_stage(self._outcomes.popleft())
        if self._dropped and self._metrics is not None:
            dropped, self._dropped = self._dropped, 0
            self._metrics.dropped.inc(dropped)

    def _sampled(self, seen: Observation) -> bool:
        self._count += 1
        always = seen.ending != "completed" or bool(seen.overflow)
        return always or (self._every > 0 and self._count % self._every == 0)
