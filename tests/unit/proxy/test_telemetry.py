"""Spans and metrics from observations: off the path, sampled, and never content."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from proxy.spans import parent_context
from proxy.telemetry import BACKLOG, Metrics, Observation, Telemetry, observe_all


def observation(**given: Any) -> Observation:
    row: dict[str, Any] = {
        "request_id": "r1", "surface": "openai.chat", "model": "m", "target": "gpu/llama", "boundary": "local", "ending": "completed", "error": "",
        "at": 1_000_000, "start_us": 10, "connect_us": 20, "first_us": 30_000, "total_us": 90_000, "input_tokens": 5, "output_tokens": 7,
        "cost": 0, "action": "allow", "overflow": "", "trace": "",
    }  # fmt: skip
    return Observation(**(row | given))


def gather(*seen: Observation, sample: float = 1.0) -> tuple[list[Any], str]:
    """(spans, metrics as text) of these observations."""
    exporter, registry = InMemorySpanExporter(), CollectorRegistry()
    telemetry = Telemetry(metrics=Metrics(registry), exporter=exporter, sample=sample, version="1", worker=0)
    telemetry.start()
    for one in seen:
        telemetry.observe(one)
    telemetry.close()
    return list(exporter.get_finished_spans()), generate_latest(registry).decode()


def test_a_span_has_the_times_and_names_of_its_attempt() -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    (span,), _ = gather(observation(trace=trace))
    assert span.name == "chat m"
    assert (span.start_time, span.end_time) == (1_000_010_000, 1_090_000_000)
    assert format(span.context.trace_id, "032x") == trace.split("-")[1]
    assert span.attributes["gen_ai.provider.name"] == "gpu" and span.attributes["gen_ai.usage.output_tokens"] == 7
    assert [event.timestamp for event in span.events] == [1_030_000_000]


def test_a_sample_is_kept_and_every_error_refusal_and_overflow() -> None:
    plain = [observation(request_id=f"p{n}") for n in range(100)]
    kept = [observation(ending="failed", error="idle_timeout"), observation(target="", ending="refused", error="policy_blocked"),
            observation(boundary="cloud", overflow="saturated", cost=5)]  # fmt: skip
    spans, _ = gather(*plain, *kept, sample=0.05)
    assert len(spans) == 5 + 3
    errors = {span.attributes.get("error.type") for span in spans}
    assert {"idle_timeout", "policy_blocked"} <= errors


def test_metrics_count_what_happened() -> None:
    _, text = gather(
        observation(), observation(), observation(boundary="cloud", target="sky/x", overflow="saturated", cost=2 * 10**12),
        observation(target="", ending="refused", error="budget_exceeded"), observation(ending="abandoned", first_us=0),
    )  # fmt: skip
    for line in (
        'spillway_attempts_total{boundary="local",ending="completed",surface="openai.chat",target="gpu/llama"} 2.0',
        'spillway_attempts_total{boundary="local",ending="abandoned",surface="openai.chat",target="gpu/llama"} 1.0',
        'spillway_refusals_total{code="budget_exceeded",surface="openai.chat"} 1.0',
        'spillway_overflow_total{reason="saturated"} 1.0',
        'spillway_cost_dollars_total{target="sky/x"} 2.0',
        'spillway_first_event_seconds_count{target="gpu/llama"} 2.0',
    ):
        assert line in text


def test_law_10_the_queue_is_bounded_and_says_what_it_dropped() -> None:
    registry = CollectorRegistry()
    telemetry = Telemetry(metrics=Metrics(registry), exporter=None, sample=0, version="1", worker=0)
    for _ in range(BACKLOG + 7):
        telemetry.observe(observation())
    telemetry.start()
    telemetry.close()
    assert "spillway_telemetry_dropped_total 7.0" in generate_latest(registry).decode()


def test_law_11_a_broken_traceparent_is_no_parent_and_no_error() -> None:
    for text in ("", "x", "00-zz-yy-01", f"00-{'0' * 32}-{'0' * 16}-01", "00-" + "a" * 32 + "-" + "b" * 16 + "-zz"):
        assert parent_context(text) is None
    gather(observation(trace="garbage"))


def test_many_values_at_once_are_what_they_are_one_by_one() -> None:
    micros = [0, 1, 4_999, 5_000, 5_001, 70_000, 300_000_000, 300_000_001, 10**12]
    texts = []
    for number in range(2):
        registry = CollectorRegistry()
        histogram = Histogram("x", "x", ["y"], buckets=(0.005, 0.01, 300), registry=registry).labels("z")
        if number:
            observe_all(histogram, micros)
        else:
            for value in micros:
                histogram.observe(value / 1e6)
        texts.append([line for line in generate_latest(registry).decode().splitlines() if "created" not in line])
    assert texts[0] == texts[1] and 'x_bucket{le="+Inf",y="z"} 9.0' in texts[0]
