"""OpenTelemetry spans from observations.  Attribute names follow its semantic conventions for generative AI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

if TYPE_CHECKING:
    from proxy.telemetry import Observation


class Spans:
    """Makes spans and hands them to an exporter, whose thread sends them."""

    def __init__(self, exporter: SpanExporter, version: str, worker: int) -> None:
        resource = Resource.create(
            {"service.name": "spillway", "service.version": version, "service.instance.id": str(worker)}
        )
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("spillway", version)

    def close(self) -> None:
        """Flush the exporter."""
        self._provider.shutdown()

    def add(self, seen: Observation) -> None:
        operation = seen.surface.partition(".")[2] or seen.surface
        start = (seen.at + seen.start_us) * 1000
        span = self._tracer.start_span(
            f"{operation} {seen.model}",
            context=parent_context(seen.trace),
            kind=SpanKind.CLIENT if seen.target else SpanKind.SERVER,
            start_time=start,
            attributes=attributes(seen, operation),
        )
        if seen.error:
            span.set_status(Status(StatusCode.ERROR, seen.error))
        if seen.first_us:
            span.add_event("first event", timestamp=(seen.at + seen.first_us) * 1000)
        span.end(end_time=(seen.at + seen.total_us) * 1000)


def attributes(seen: Observation, operation: str) -> dict[str, Any]:
    """A span's attributes: every one is a name or a number from this allow-list."""
    engine, _, model = seen.target.partition("/")
    row: dict[str, Any] = {
        "gen_ai.operation.name": operation,
        "gen_ai.request.model": seen.model,
        "spillway.request_id": seen.request_id,
        "spillway.ending": seen.ending,
        "spillway.action": seen.action,
    }
    if seen.target:
        row |= {
            "gen_ai.provider.name": engine,
            "gen_ai.response.model": model,
            "gen_ai.usage.input_tokens": seen.input_tokens,
            "gen_ai.usage.output_tokens": seen.output_tokens,
            "spillway.boundary": seen.boundary,
            "spillway.connect_us": seen.connect_us,
            "spillway.cost_picodollars": seen.cost,
        }
    if seen.overflow:
        row["spillway.overflow"] = seen.overflow
    if seen.error:
        row["error.type"] = seen.error
    return row


def parent_context(traceparent: str) -> Any:
    """The OpenTelemetry context of a W3C `traceparent` (Trace Context, section 3.2), or None."""
    parts = traceparent.split("-")
    if len(parts) < 4 or len(parts[1]) != 32 or len(parts[2]) != 16:
        return None
    try:
        context = SpanContext(
            int(parts[1], 16), int(parts[2], 16), is_remote=True, trace_flags=TraceFlags(int(parts[3][:2], 16))
        )
    except ValueError:
        return None
    return set_span_in_context(NonRecordingSpan(context)) if context.is_valid else None
