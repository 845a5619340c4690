"""Escalation in the configuration, in explanations and in records; and the sinks where only a race would show them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from typer.testing import CliRunner

from compliance.records import Judged
from engines import anthropic, openai
from engines.model import Operation
from policies.escalation import Wanted
from proxy.cli import app
from proxy.config import load
from proxy.config_complexity import ComplexityPart
from proxy.config_errors import ConfigInvalid
from proxy.escalating import _UpperSink, answer_scorer
from proxy.held import Reader, wanted_of
from proxy.meaning import meaning
from proxy.reports.story import story
from proxy.telemetry import Metrics, Telemetry

ENGINES = {
    "small": {"kind": "llama.cpp", "replicas": ["http://127.0.0.1:1"], "models": {"s": {}}},
    "large": {"kind": "vllm", "replicas": ["http://127.0.0.1:2"], "models": {"l": {}}},
    "sky": {"kind": "openai", "key": "env:K", "models": {"gpt-4o": {}}},
}


def whole(escalate: Any, **more: Any) -> dict[str, Any]:
    decision = {"name": "all", "use": ["small/s"], "escalate": escalate, **more.pop("decision", {})}
    engines = {**ENGINES, "sky": {"kind": "openai", "models": {"gpt-4o": {}}, "key": {"env": "K"}}}
    return {"engines": engines, "models": {"auto": {"route": True}}, "decisions": [decision], **more}


def mistakes(escalate: Any, **more: Any) -> dict[str, str]:
    try:
        load(yaml.safe_dump(whole(escalate, **more)), {"K": "k"})
    except ConfigInvalid as invalid:
        return {mistake.path: mistake.wrong for mistake in invalid.mistakes}
    return {}


@pytest.mark.parametrize(
    ("escalate", "more", "path", "wrong"),
    [
        ({"to": []}, {}, "decisions[0].escalate.to", "names no target"),
        ({"to": ["large/x"]}, {}, "decisions[0].escalate.to[0]", "'large/x' is no engine/model, and no model"),
        ({"to": ["auto"]}, {}, "decisions[0].escalate.to[0]", "'auto' is itself decided here"),
        ({"to": ["large/l", "large/l"]}, {}, "decisions[0].escalate.to[1]", "'large/l' stands twice"),
        ({"to": ["small/s"]}, {}, "decisions[0].escalate", "leaves nobody who answers first"),
        ({"to": ["large/l"], "share": "1%", "window": 99}, {}, "decisions[0].escalate.share", "lets none of 99 answers go up"),
        ({"to": ["large/l"]}, {"limits": {"attempts": 1}}, "decisions[0].escalate", "leaves no attempt for further up"),
        ({"to": ["sky/gpt-4o"]}, {"decision": {"when": {"found": "phi"}}}, "decisions[0].escalate.to",
         "can never be asked: what this decision is for stays local by the rules"),
        ({"to": ["sky/gpt-4o"]}, {"decision": {"when": {"found": ["ssn", "card"]}}}, "decisions[0].escalate.to",
         "can never be asked: what this decision is for stays local by the rules"),
        ({"to": ["sky/gpt-4o"]}, {"compliance": {"rules": [{"name": "all", "when": {}, "action": "keep_local"}]}},
         "decisions[0].escalate.to", "can never be asked: what this decision is for stays local by the rules"),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_their_path(escalate: Any, more: Any, path: str, wrong: str) -> None:
    assert mistakes(escalate, **more)[path] == wrong


@pytest.mark.parametrize(
    ("escalate", "more"),
    [
        ({"to": ["large/l", "sky/gpt-4o"]}, {}),
        ({"to": ["large/l"], "share": "1%", "window": 100, "threshold": 90, "held": "64KB", "within": "5s"}, {}),
        ({"to": ["large/l", "sky/gpt-4o"]}, {"decision": {"when": {"found": "phi"}}}),  # the large one may
        ({"to": ["sky/gpt-4o"]}, {"decision": {"when": {"found": "pii"}}}),  # an address without health context leaves
        ({"to": ["sky/gpt-4o"]}, {"decision": {"when": {"found": "ssn"}},
         "compliance": {"rules": [{"name": "hide", "when": {"found": ["ssn"], "tenant": ["a"]}, "action": "redact"}],
                        "tenants": {"a": {}}}}),
        ({"to": ["sky/gpt-4o"]},
         {"compliance": {"rules": [{"name": "one", "when": {"tenant": ["a"]}, "action": "keep_local"}], "tenants": {"a": {}}}}),
        ({"to": ["sky/gpt-4o"]}, {"compliance": {"rules": [
            {"name": "one", "when": {"tenant": ["a"]}, "action": "allow"}, {"name": "all", "when": {}, "action": "keep_local"}],
            "tenants": {"a": {}}}}),
    ],
)  # fmt: skip
def test_what_may_work_is_no_mistake(escalate: Any, more: Any) -> None:
    assert mistakes(escalate, **more) == {}


def test_check_says_in_words_what_it_means() -> None:
    lines = meaning(load(yaml.safe_dump(whole({"to": ["large/l", "sky/gpt-4o"], "share": "12.5%"})), {"K": "k"}))
    assert (
        "decision all: its answers are read before they go out; doubtful ones, 12.5 % at the most, go up to large/l, then sky/gpt-4o"
        in lines
    )


def explain(tmp_path: Path, text: str, escalate: Any, *more: str) -> Any:
    file = tmp_path / "spillway.yaml"
    file.write_text(yaml.safe_dump(whole(escalate)))
    body = json.dumps({"model": "auto", "messages": [{"role": "user", "content": text}]})
    result = CliRunner().invoke(app, ["explain", "-c", str(file), *more], input=body, env={"K": "k"})
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout) if more else result.stdout


def test_explain_says_who_would_be_asked_and_who_not(tmp_path: Path) -> None:
    option = {"to": ["large/l", "sky/gpt-4o"]}
    row = explain(tmp_path, "what is it", option, "--json")["escalation"]
    assert row == {
        "held": True, "to": ["large/l", "sky/gpt-4o"], "vetoes": [], "share": 0.2, "window": 1000, "threshold": 80.0, "calibrated": None,
    }  # fmt: skip
    row = explain(tmp_path, "my ssn is 123-45-6789", option, "--json")["escalation"]
    assert (row["held"], row["to"], [veto["target"] for veto in row["vetoes"]]) == (True, ["large/l"], ["sky/gpt-4o"])
    said = explain(tmp_path, "what is it", option)
    assert "escalates  a doubtful answer goes up to large/l, then sky/gpt-4o: 20 % of any 1,000 at the most" in said
    assert "plain faults alone (uncalibrated)" in said
    said = explain(tmp_path, "my ssn is 123-45-6789", {"to": ["sky/gpt-4o"]})
    assert "escalates  no: its answer goes out as it comes" in said and "not up  sky/gpt-4o: boundary" in said


def test_a_scorer_that_cannot_be_read_leaves_plain_faults(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "answers.npz"
    file.write_text("nonsense")
    assert answer_scorer(ComplexityPart(answers=str(file))) is None
    assert "answers are judged by plain faults alone" in caplog.text
    assert answer_scorer(ComplexityPart()) is None


def test_audit_show_tells_it() -> None:
    record = Judged(
        at=1, attempt=0, calibrated=True, contributions=("answer: wrong equations=+0.120",), decision="all", doubtful=True,
        fault="it reckons wrong", given=1, held=100, held_us=10, percentile=9310, request="r", share=100_000, target="small/s",
        up="large/l", why="up",
    )  # fmt: skip
    fields = {name: getattr(record, name) for name in record.__struct_fields__}
    told = story("r", [fields], [])
    assert "the answer of attempt 0 was read before it went out: it went up" in told
    assert "doubtful, doubt at percentile 93.1" in told and "it reckons wrong" in told
    assert "the answer of attempt 1" in told and "answer: wrong equations=+0.120" in told


def test_metrics_count_answers_by_why() -> None:
    registry = CollectorRegistry()
    telemetry = Telemetry(metrics=Metrics(registry), exporter=None, sample=0, version="1", worker=0)
    assert "judged" not in generate_latest(registry).decode()  # where no decision has the option it is not there
    for why in ("up", "good", "up"):
        telemetry.judged("all", why)
    said = generate_latest(registry).decode()
    assert 'spillway_judged_total{decision="all",why="up"} 2.0' in said
    assert 'spillway_judged_total{decision="all",why="good"} 1.0' in said
    Telemetry(metrics=None, exporter=None, sample=0, version="1", worker=0).judged("all", "up")


# --- what is read -------------------------------------------------------------------------------------------

SCHEMA = {"type": "object", "required": ["n"]}


@pytest.mark.parametrize(
    ("dialect", "body", "wanted"),
    [
        (openai.DIALECT, {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}},
         Wanted("hi", True, SCHEMA)),
        (openai.DIALECT, {"response_format": {"type": "json_object"}}, Wanted("hi", True, None)),
        (openai.DIALECT, {"response_format": {"type": "text"}}, Wanted("hi")),
        (openai.DIALECT, {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, Wanted("hi", True, True)),
        (openai.DIALECT, {"tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}]},
         Wanted("hi", tools={"f": SCHEMA})),
        (openai.DIALECT, {"tools": [{"type": "function", "function": {"name": "f"}}]}, Wanted("hi", tools={"f": None})),
        (anthropic.DIALECT, {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}, Wanted("hi", True, SCHEMA)),
        (anthropic.DIALECT, {"tools": [{"name": "f", "input_schema": SCHEMA}]}, Wanted("hi", tools={"f": SCHEMA})),
        (anthropic.DIALECT, {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, Wanted("hi")),
    ],
)  # fmt: skip
def test_what_a_request_asks_for(dialect: Any, body: dict[str, Any], wanted: Wanted) -> None:
    raw = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}], **body}
    assert wanted_of(dialect.parse(Operation.CHAT, json.dumps(raw).encode(), {})) == wanted


def test_log_probabilities_are_read_where_they_were_asked_for() -> None:
    def tokens(*values: float | None) -> dict[str, Any]:
        return {"content": [{"token": "a", "logprob": value} for value in values]}

    whole = {
        "id": "c",
        "choices": [{"index": 0, "message": {"content": "ab"}, "finish_reason": "stop", "logprobs": tokens(-1, -2)}],
    }
    reader = Reader(openai.DIALECT, logprobs=True)
    reader.whole(json.dumps(whole).encode())
    assert reader.said()[0].logprob == -1.5
    reader = Reader(openai.DIALECT, logprobs=True)
    for value in (-1.0, -3.0, None):
        row = {"id": "c", "choices": [{"index": 0, "delta": {"content": "a"}, "logprobs": tokens(value)}]}
        reader.feed(f"data: {json.dumps(row)}\n\n".encode())
    reader.feed(
        b'data: {"id": "c", "choices": [{"index": 0, "delta": {}, "logprobs": "nonsense"}, {"logprob": 1}]}\n\n'
    )
    assert (reader.said()[0].logprob, reader.said()[0].text) == (-2.0, "aaa")
    reader = Reader(openai.DIALECT)
    reader.whole(json.dumps(whole).encode())
    assert reader.said()[0].logprob is None


@pytest.mark.parametrize("body", [b"nonsense", b"{}", b'{"choices": [{"message": {"audio": {"transcript": "a"}}}]}'])
def test_what_cannot_be_read_is_not_judged(body: bytes) -> None:
    reader = Reader(openai.DIALECT)
    reader.whole(body)
    assert reader.unread


# --- a commit that comes too late ---------------------------------------------------------------------------


class _Client:
    on_resume = None
    started = False
    bytes_out = 0

    def __init__(self) -> None:
        self.calls: list[str] = []

    def whole(self, status: int, headers: Sequence[Any], body: bytes) -> None:
        self.calls.append("whole")

    def begin(self, status: int, headers: Sequence[Any], first: bytes) -> bool:
        self.calls.append("begin")
        return True

    def write(self, data: bytes) -> bool:
        self.calls.append("write")
        return True

    def finish(self) -> None:
        self.calls.append("finish")

    def abort(self) -> None:
        self.calls.append("abort")


async def test_law_06_what_comes_between_the_deadline_and_its_end_is_dropped() -> None:
    """The timeout has cancelled the task, which did not run yet, and the answer's first byte comes: the held one is given."""
    client, committed = _Client(), []
    sink = _UpperSink(client, lambda: committed.append(1))
    seen: list[object] = []

    def late() -> None:
        seen.append(sink.late)
        seen.append(sink.begin(200, b"", b"x"))
        seen.append(sink.write(b"y"))
        sink.finish()
        sink.whole(200, b"", b"z")
        seen.append("through")

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as sink.scope:
            sink.scope.reschedule(0)  # its callback is the loop's next, the task's turn comes after ours
            asyncio.get_running_loop().call_soon(late)
            await asyncio.sleep(5)
    assert seen == [True, False, False, "through"]
    assert client.calls == committed == [] and not sink.started


async def test_what_comes_in_time_commits_and_is_not_cut_off_any_more() -> None:
    client, committed = _Client(), []
    sink = _UpperSink(client, lambda: committed.append(len(client.calls)))
    async with asyncio.timeout(0.02) as sink.scope:
        assert sink.begin(200, b"", b"x") is True
        await asyncio.sleep(0.06)
        sink.write(b"y")
        sink.finish()
    assert (client.calls, committed, sink.started) == (["begin", "write", "finish"], [0], True)
