"""A small model answers first and is read; what cannot be trusted goes up.  Scripted engines on real sockets, one fault each."""

from __future__ import annotations

import asyncio
import gc
import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from client import ask, open_stream
from outcomes_made import made_rows
from scripted import (
    END,
    SSE_HEAD,
    Play,
    Received,
    Script,
    ScriptedEngine,
    answering,
    chat_chunks,
    chunk,
    completion,
    message,
    message_events,
    streaming,
)
from stack import Running, running
from typer.testing import CliRunner

from compliance.journal import JournalFailed, read
from compliance.records import Decision, Judged, Outcome, Shadowed
from proxy.cli import app
from proxy.held import HeldSink, Reader
from proxy.synthetic import KINDS, synthetic

PATH = "/v1/chat/completions"
MESSAGES = "/v1/messages"
SSN = "123-45-6789"
REFUSES = "I'm sorry, I cannot help with that."
SURE = "The capital of France is Paris."
BETTER = "From further up."
GOOD = "It is 4.\n#### 4"
HEDGES = "I think it might be perhaps 5, but it is unclear, probably, maybe more; it depends"
KEY = {"anthropic-version": "2023-06-01"}


def chat(text: str = "what is it", **more: Any) -> dict[str, Any]:
    return {"model": "auto", "messages": [{"role": "user", "content": text}], **more}


def config(small: str, large: str, sky: str = "http://127.0.0.1:1", /, **escalate: Any) -> dict[str, Any]:
    option = {"to": ["large/l"], "share": "100%", **escalate}
    return {
        "engines": {
            "small": {"kind": "llama.cpp", "replicas": [small], "models": {"s": {}}},
            "large": {"kind": "vllm", "replicas": [large], "models": {"l": {}}},
            "sky": {"kind": "openai", "replicas": [sky], "boundary": "cloud", "models": {"gpt-4o": {}}},
        },
        "models": {"auto": {"route": True}},
        "decisions": [{"name": "all", "use": ["small/s"], "otherwise": "refuse", "escalate": option}],
        "listen": {"workers": 1},
    }


def records(directory: Path, kind: type[Any]) -> list[Any]:
    return [r for slot in (directory / "audit").glob("slot-*") for r in read(slot) if isinstance(r, kind)]


def judged(directory: Path) -> Judged:
    (one,) = records(directory, Judged)
    assert isinstance(one, Judged)
    return one


def outcomes(directory: Path) -> dict[int, Outcome]:
    return {outcome.attempt: outcome for outcome in records(directory, Outcome)}


def chats(engine: ScriptedEngine) -> list[Received]:
    """What it was asked, without the questions after its health."""
    return [request for request in engine.requests if request.method == "POST"]


class Waits:
    """A script that answers so much, and then waits until whoever asked has left."""

    def __init__(self, said: bytes = b"") -> None:
        self.said = said
        self.left = asyncio.Event()

    async def __call__(self, received: Received, play: Play) -> bool:
        if received.method == "POST":
            if self.said:
                await play.send(SSE_HEAD + chunk(self.said))
            await play.left()
            self.left.set()
        return False


def words(body: bytes) -> str:
    """The text of a streamed chat completion."""
    rows = [json.loads(line[6:]) for line in body.decode().splitlines() if line.startswith("data: {")]
    return "".join([choice["delta"].get("content") or "" for row in rows for choice in row.get("choices", ())])


# --- good and doubtful answers ------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_a_good_answer_goes_out_with_the_engines_own_bytes(stream: bool, tmp_path: Path) -> None:
    """Byte for byte, in a framing and spelling of the engine's own, and with a field that nobody knows."""
    whole = b'{"id":"x" , "choices":[{"index":0,"message":{"role":"assistant","content":"Par\\u0069s."},"finish_reason":"stop"}],"new":1.50}'
    events = [b": hello\n\n", *chat_chunks(["It is ", "Paris."], model="auto")]
    events.insert(2, b'data:{"id":"c","choices":[{"index":0,"delta":{"content":"\\u00fc"}}],"n":1.50}\r\n\r\n')
    script = streaming(events) if stream else answering(whole)
    async with ScriptedEngine(script) as small, ScriptedEngine(answering(completion())) as large:
        async with running(config(small.url, large.url), tmp_path) as spillway:
            body = chat(stream=stream, stream_options={"include_usage": True}) if stream else chat()
            answer = await ask(spillway.port, PATH, body)
            await spillway.settled()
    assert (answer.status, answer.headers["x-spillway-target"]) == (200, "small/s")
    assert answer.body == (b"".join(events) if stream else whole)
    assert not chats(large)
    record, outcome = judged(tmp_path), outcomes(tmp_path)[0]
    assert (record.why, record.doubtful, record.calibrated, record.given, record.up) == ("good", False, False, 0, "")
    assert (outcome.ending, outcome.committed) == ("completed", True)
    assert outcome.bytes_out > len(answer.body)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("text", "fault"),
    [(REFUSES, "it refuses"), ("", "it is empty"), ("So 7 * 8 = 54 eggs.", "it reckons wrong")],
    ids=["refuses", "empty", "reckons"],
)
async def test_a_doubtful_answer_goes_up_and_both_attempts_are_recorded(
    text: str, fault: str, stream: bool, tmp_path: Path
) -> None:
    low = streaming(chat_chunks([text])) if stream else answering(completion(text))
    high = streaming(chat_chunks([BETTER])) if stream else answering(completion(BETTER))
    async with ScriptedEngine(low) as small, ScriptedEngine(high) as large:
        async with running(config(small.url, large.url), tmp_path) as spillway:
            answer = await ask(spillway.port, PATH, chat(stream=stream))
            await spillway.settled()
    assert (answer.status, answer.headers["x-spillway-target"]) == (200, "large/l")
    assert BETTER in (words(answer.body) if stream else answer.body.decode())
    assert text not in answer.body.decode() or not text
    record, ended = judged(tmp_path), outcomes(tmp_path)
    assert (record.why, record.fault, record.attempt, record.given) == ("up", fault, 0, 1)
    assert (record.target, record.up, record.calibrated, record.percentile) == ("small/s", "large/l", False, -1)
    assert {n: (o.target, o.ending, o.committed) for n, o in ended.items()} == {
        0: ("small/s", "completed", False),
        1: ("large/l", "completed", True),
    }
    first, second = sorted(records(tmp_path, Decision), key=lambda decision: decision.attempt)
    assert (first.routing, second.routing) == ("decision: all", "all: its answer was doubtful")
    assert ended[0].output and ended[1].output


async def test_it_may_go_up_to_the_cloud_and_both_are_charged(tmp_path: Path) -> None:
    async with ScriptedEngine(answering(completion(REFUSES))) as small:
        async with ScriptedEngine(answering(completion(BETTER, "gpt-4o"))) as sky:
            whole = config(small.url, "http://127.0.0.1:1", sky.url, to=["sky/gpt-4o"])
            whole["budgets"] = [{"scope": "org", "window": "month", "limit": "$10"}]
            async with running(whole, tmp_path) as spillway:
                answer = await ask(spillway.port, PATH, chat())
    assert (answer.headers["x-spillway-target"], answer.headers["x-spillway-overflow"]) == ("sky/gpt-4o", "doubt")
    ended = outcomes(tmp_path)
    assert ended[0].cost == 0 < ended[1].cost < ended[1].hold


async def test_translated_dialects_are_read_and_given_in_the_clients_own(tmp_path: Path) -> None:
    """An application that speaks Anthropic's dialect, engines that speak OpenAI's; and a cloud that speaks the client's."""
    body = {"model": "auto", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}
    for stream in (False, True):
        for text, target in ((SURE, "small/s"), (REFUSES, "claude/c")):
            low = streaming(chat_chunks([text])) if stream else answering(completion(text))
            high = streaming(message_events([BETTER])) if stream else answering(message(BETTER))
            async with ScriptedEngine(low) as small, ScriptedEngine(high) as claude:
                whole = config(small.url, "http://127.0.0.1:1", to=["claude/c"])
                whole["engines"]["claude"] = {
                    "kind": "anthropic", "replicas": [claude.url], "boundary": "cloud", "models": {"c": {"id": "claude-sonnet-4-5"}},
                }  # fmt: skip
                place = tmp_path / f"{stream}{target[:3]}"
                async with running(whole, place) as spillway:
                    answer = await ask(spillway.port, MESSAGES, {**body, "stream": stream}, KEY)
            assert (answer.status, answer.headers["x-spillway-target"]) == (200, target)
            assert (SURE if text == SURE else BETTER) in answer.body.decode()
            if stream:
                assert (
                    answer.body.rstrip().endswith(b'data: {"type": "message_stop"}') or b'"message_stop"' in answer.body
                )
            assert judged(place).why == ("good" if text == SURE else "up")


async def test_schemas_tools_and_log_probabilities_are_read(tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    tools = [{"type": "function", "function": {"name": "add", "parameters": schema}}]

    def calls(name: str, arguments: str) -> dict[str, Any]:
        whole = completion("")
        call = {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}
        whole["choices"][0]["message"] = {"role": "assistant", "content": None, "tool_calls": [call]}
        whole["choices"][0]["finish_reason"] = "tool_calls"
        return whole

    cases: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        (chat(response_format=form), completion('{"n": 4}'), ""),
        (chat(response_format=form), completion('{"n": "four"}'), "it breaks its schema"),
        (chat(response_format=form), completion("Sure! n is 4."), "it breaks its schema"),
        (chat(response_format={"type": "json_object"}), completion("[1]"), "it breaks its schema"),
        (chat(tools=tools), calls("add", '{"n": 4}'), ""),
        (chat(tools=tools), calls("add", '{"n": 4'), "it calls a tool with arguments that do not fit"),
        (chat(tools=tools), calls("substract", "{}"), "it calls a tool that was not offered"),
    ]
    for number, (body, given, fault) in enumerate(cases):
        async with ScriptedEngine(answering(given)) as small, ScriptedEngine(answering(completion(BETTER))) as large:
            async with running(config(small.url, large.url), tmp_path / str(number)) as spillway:
                answer = await ask(spillway.port, PATH, body)
        assert answer.headers["x-spillway-target"] == ("large/l" if fault else "small/s"), body
        assert judged(tmp_path / str(number)).fault == fault


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of answers: the command has learnt that hedging is a bad sign, from labels that hold answers."""
    directory = tmp_path_factory.mktemp("scorer")
    labels, made = directory / "labels.jsonl", directory / "answers.npz"
    rows = [{**row, "weak_answer": GOOD if row["weak"] else HEDGES} for row in made_rows(300, noise=True)]
    labels.write_text("".join([json.dumps(row) + "\n" for row in rows]))
    asked = ["calibrate", "--strong-share", "30%", "--answers", "--labels", str(labels), "-o", str(made)]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0, result.output
    return made


@pytest.mark.parametrize(("text", "why"), [(GOOD, "good"), (HEDGES, "up")])
async def test_a_trained_scorer_says_which_answers_are_doubtful(
    text: str, why: str, scorer: Path, tmp_path: Path
) -> None:
    """Nothing is plainly wrong with either; the record has the percentile and what it was made of."""
    async with (
        ScriptedEngine(answering(completion(text))) as small,
        ScriptedEngine(answering(completion(BETTER))) as large,
    ):
        whole = config(small.url, large.url, threshold=60)
        whole["complexity"] = {"answers": str(scorer)}
        async with running(whole, tmp_path) as spillway:
            answer = await ask(spillway.port, PATH, chat(made_rows(1)[0]["text"]))
    assert answer.headers["x-spillway-target"] == ("large/l" if why == "up" else "small/s")
    record = judged(tmp_path)
    assert (record.why, record.calibrated, record.fault) == (why, True, "")
    assert (record.percentile >= 6000) is (why == "up")
    assert len(record.contributions) == 5 and any([row.startswith("answer: ") for row in record.contributions])
    assert text not in str(record)


async def test_a_scorer_that_breaks_is_done_without_and_said_so(scorer: Path, tmp_path: Path) -> None:
    def broken(prompt: str, answer: Any) -> Any:
        raise RuntimeError(prompt)

    async with (
        ScriptedEngine(answering(completion(HEDGES))) as small,
        ScriptedEngine(answering(completion(BETTER))) as large,
    ):
        whole = config(small.url, large.url)
        whole["complexity"] = {"answers": str(scorer)}
        async with running(whole, tmp_path) as spillway:
            spillway.worker.pipeline._attempts.doubting.scorer = broken  # type: ignore[attr-defined]
            answer = await ask(spillway.port, PATH, chat())
    assert (answer.status, answer.headers["x-spillway-target"]) == (200, "small/s")
    record = judged(tmp_path)
    assert (record.why, record.calibrated, record.contributions) == ("good", False, ("scorer failed=RuntimeError",))


# --- what forbids it ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_law_01_what_must_stay_never_goes_up_whatever_its_answer(stream: bool, tmp_path: Path) -> None:
    low = streaming(chat_chunks([REFUSES])) if stream else answering(completion(REFUSES))
    async with ScriptedEngine(low) as small, ScriptedEngine(answering(completion(BETTER))) as sky:
        async with running(config(small.url, "http://127.0.0.1:1", sky.url, to=["sky/gpt-4o"]), tmp_path) as spillway:
            answer = await ask(spillway.port, PATH, chat(f"the patient's ssn is {SSN}", stream=stream))
            await spillway.settled()
        assert SSN.encode() not in sky.raw and not chats(sky)
    assert answer.headers["x-spillway-target"] == "small/s"
    assert (judged(tmp_path).why, judged(tmp_path).attempt) == ("boundary", -1)


async def test_law_01_a_request_that_is_redacted_goes_up_redacted(tmp_path: Path) -> None:
    async with ScriptedEngine(answering(completion(REFUSES))) as small:
        async with ScriptedEngine(answering(completion(BETTER))) as sky:
            whole = config(small.url, "http://127.0.0.1:1", sky.url, to=["sky/gpt-4o"])
            whole["compliance"] = {"rules": [{"name": "hide", "when": {"found": ["ssn"]}, "action": "redact"}]}
            async with running(whole, tmp_path) as spillway:
                answer = await ask(spillway.port, PATH, chat(f"the patient's ssn is {SSN}"))
            assert answer.headers["x-spillway-target"] == "sky/gpt-4o"
            assert len(chats(sky)) == 1 and SSN.encode() not in sky.raw


async def test_a_budget_that_is_spent_leaves_the_answer_at_hand(tmp_path: Path) -> None:
    async with ScriptedEngine(answering(completion(REFUSES))) as small:
        async with ScriptedEngine(answering(completion(BETTER))) as sky:
            whole = config(small.url, "http://127.0.0.1:1", sky.url, to=["sky/gpt-4o"])
            whole["budgets"] = [{"scope": "org", "window": "month", "limit": "$0"}]
            async with running(whole, tmp_path) as spillway:
                answer = await ask(spillway.port, PATH, chat())
        assert not chats(sky)
    assert (answer.status, answer.headers["x-spillway-target"]) == (200, "small/s")
    assert answer.json()["choices"][0]["message"]["content"] == REFUSES
    assert "x-spillway-overflow" not in answer.headers
    record = judged(tmp_path)
    assert (record.why, record.doubtful, record.given, record.up) == ("budget", True, 0, "")
    assert (outcomes(tmp_path)[0].committed, len(outcomes(tmp_path))) == (True, 1)


async def test_the_share_holds_and_says_so(tmp_path: Path) -> None:
    async with ScriptedEngine(answering(completion(REFUSES))) as small:
        async with ScriptedEngine(answering(completion(BETTER))) as large:
            async with running(config(small.url, large.url, share="25%", window=8), tmp_path) as spillway:
                answers = [await ask(spillway.port, PATH, chat()) for _ in range(16)]
    up = [answer.headers["x-spillway-target"] == "large/l" for answer in answers]
    assert sum(up) == 4 == len(chats(large))
    assert all([sum(up[: n + 1]) <= (n + 1) * 0.25 for n in range(16)])
    assert {record.why for record in records(tmp_path, Judged)} == {"up", "share"}


async def test_without_an_attempt_left_the_answer_at_hand_is_given(tmp_path: Path) -> None:
    """A first candidate fails, a second answers: with two attempts there is none for further up."""
    async with (
        ScriptedEngine(answering({"error": {}}, 500)) as first,
        ScriptedEngine(answering(completion(REFUSES))) as second,
    ):
        async with ScriptedEngine(answering(completion(BETTER))) as large:
            whole = config(first.url, large.url)
            whole["engines"]["other"] = {"kind": "llama.cpp", "replicas": [second.url], "models": {"s": {}}}
            whole["decisions"][0]["use"] = ["small/s", "other/s"]
            whole["limits"] = {"attempts": 2}
            async with running(whole, tmp_path) as spillway:
                answer = await ask(spillway.port, PATH, chat())
        assert not chats(large)
    assert answer.headers["x-spillway-target"] == "other/s"
    assert (judged(tmp_path).why, judged(tmp_path).attempt, judged(tmp_path).given) == ("attempts", 1, 1)


async def test_law_01_over_many_requests_nothing_planted_leaves(tmp_path: Path) -> None:
    """Answers of every kind, streamed and whole, to prompts with identifiers of every kind and to prompts without any."""
    dice = random.Random(7)
    texts = [REFUSES, "", SURE, "7 * 8 = 54", '{"n": 1']
    planted = [synthetic(kind, 7) for kind in KINDS]

    async def low(received: Received, play: Play) -> None:
        if received.method == "POST":
            text = texts[len(received.body) % len(texts)]
            script = streaming(chat_chunks([text])) if received.json().get("stream") else answering(completion(text))
            await script(received, play)

    async with ScriptedEngine(low) as small, ScriptedEngine(answering(completion(BETTER))) as sky:
        async with running(config(small.url, "http://127.0.0.1:1", sky.url, to=["sky/gpt-4o"]), tmp_path) as spillway:
            for number in range(4 * len(planted)):
                inside = planted[number % len(planted)].text if number % 3 else "Say something."
                body = chat(f"{'please ' * dice.randrange(5)}{inside}", stream=bool(number % 2))
                answer = await ask(spillway.port, PATH, body)
                assert answer.status == 200
            await spillway.settled()
        assert len(chats(sky)) > 5
        for one in planted:
            assert one.value.encode() not in sky.raw
    assert {record.why for record in records(tmp_path, Judged)} >= {"boundary", "up", "good"}


@pytest.mark.interpreted
@pytest.mark.parametrize("on_failure", ["refuse", "keep_local"])
async def test_law_02_what_cannot_be_recorded_does_not_go_up(on_failure: str, tmp_path: Path) -> None:
    """The log breaks while the small model's answer is held: nothing is sent, and the operator's word holds."""
    async with (
        ScriptedEngine(answering(completion(REFUSES))) as small,
        ScriptedEngine(answering(completion(BETTER))) as sky,
    ):
        whole = config(small.url, "http://127.0.0.1:1", sky.url, to=["sky/gpt-4o"])
        whole["audit"] = {"dir": str(tmp_path / "audit"), "on_failure": on_failure}
        async with running(whole, tmp_path) as spillway:

            async def broken(seq: int) -> None:
                raise JournalFailed("the disk is full")

            spillway.worker.pipeline._attempts._recorder.durable = broken  # type: ignore[method-assign, union-attr]
            answer = await ask(spillway.port, PATH, chat())
        assert not chats(sky)
    if on_failure == "keep_local":
        assert (answer.status, answer.headers["x-spillway-target"]) == (200, "small/s")
        assert (judged(tmp_path).why, judged(tmp_path).given) == ("audit_unavailable", 0)
    else:
        assert (answer.status, answer.json()["error"]["code"]) == (503, "audit_unavailable")
        assert outcomes(tmp_path)[0].committed is False


async def test_law_03_a_request_that_goes_up_counts_once_and_its_tokens_twice(tmp_path: Path) -> None:
    """One request a month is allowed, and its second attempt is part of it; tokens are those of both."""
    async with (
        ScriptedEngine(answering(completion(REFUSES))) as small,
        ScriptedEngine(answering(completion(BETTER))) as large,
    ):
        whole = config(small.url, large.url)
        whole["budgets"] = [
            {"scope": "org", "window": "month", "requests": 1},
            {"scope": "org", "window": "month", "tokens": 400_000},
        ]
        async with running(whole, tmp_path) as spillway:
            first = await ask(spillway.port, PATH, chat(max_tokens=50))
            second = await ask(spillway.port, PATH, chat(max_tokens=50))
    assert (first.status, first.headers["x-spillway-target"]) == (200, "large/l")
    assert second.status == 429
    file = tmp_path / "spillway.yaml"
    file.write_text(
        yaml.safe_dump({"state": {"dir": str(tmp_path / "state")}, "audit": {"dir": str(tmp_path / "audit")}, **whole})
    )
    shown = CliRunner().invoke(app, ["budget", "show", "-c", str(file), "--json"])
    spent = {row["unit"]: (row["spent"], row["held"]) for row in json.loads(shown.stdout)}
    assert spent == {"requests": (1, 0), "tokens": (18, 0)}


# --- faults further up --------------------------------------------------------------------------------------


async def _resets(received: Received, play: Play) -> bool:
    play.reset()
    return False


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "high",
    [
        answering({"error": {"message": "no"}}, 400),
        answering({"error": {"message": "no"}}, 503),
        _resets,
        streaming([b'data: {"error": {"message": "full", "code": 503}}\n\n']),
        answering(b"nonsense"),
    ],
    ids=["refuses", "busy", "resets", "fails at once", "nonsense"],
)
async def test_where_the_upper_one_fails_before_it_commits_the_held_answer_is_given(
    high: Script, stream: bool, tmp_path: Path
) -> None:
    events = chat_chunks([REFUSES], model="auto")
    low = streaming(events) if stream else answering(completion(REFUSES, "auto"))
    async with ScriptedEngine(low) as small, ScriptedEngine(high) as large:
        async with running(config(small.url, large.url), tmp_path) as spillway:
            answer = await ask(spillway.port, PATH, chat(stream=stream, **_usage(stream)))
            await spillway.settled()
        assert chats(large)
    assert (answer.status, answer.headers["x-spillway-target"]) == (200, "small/s")
    assert answer.body == (b"".join(events) if stream else json.dumps(completion(REFUSES, "auto")).encode())
    record, ended = judged(tmp_path), outcomes(tmp_path)
    assert (record.why, record.given, record.up) == ("failed", 0, "large/l")
    assert (ended[0].ending, ended[0].committed, ended[1].ending, ended[1].committed) == (
        "completed",
        True,
        "failed",
        False,
    )
    assert ended[0].bytes_out > len(answer.body)


def _usage(stream: bool) -> dict[str, Any]:
    return {"stream_options": {"include_usage": True}} if stream else {}


async def test_law_06_an_upper_one_that_breaks_after_the_commit_is_not_replaced(tmp_path: Path) -> None:
    async with ScriptedEngine(streaming(chat_chunks([REFUSES]))) as small:
        async with ScriptedEngine(streaming(chat_chunks(["From ", "further"])[:2], end=False)) as large:
            async with running(config(small.url, large.url), tmp_path) as spillway:
                answer = await ask(spillway.port, PATH, chat(stream=True))
                await spillway.settled()
    assert answer.headers["x-spillway-target"] == "large/l"
    assert b'"error"' in answer.body and b"[DONE]" not in answer.body  # law 5
    assert REFUSES.encode() not in answer.body and words(answer.body) == "From "
    assert (judged(tmp_path).why, judged(tmp_path).given) == ("up", 1)
    assert outcomes(tmp_path)[1].ending == "failed"


@pytest.mark.parametrize("to", ["large/l", "sky/gpt-4o"])
@pytest.mark.parametrize("stream", [False, True])
async def test_nobody_further_up_is_waited_for_beyond_the_deadline(stream: bool, to: str, tmp_path: Path) -> None:
    low, high = streaming(chat_chunks([REFUSES])) if stream else answering(completion(REFUSES)), Waits()
    async with ScriptedEngine(low) as small, ScriptedEngine(high) as upper:
        async with running(config(small.url, upper.url, upper.url, to=[to], within="500ms"), tmp_path) as spillway:
            answer = await ask(spillway.port, PATH, chat(stream=stream))
            await spillway.settled()
            await asyncio.wait_for(high.left.wait(), 5)  # its work has ended as well
        assert chats(upper)
    assert (answer.status, answer.headers["x-spillway-target"]) == (200, "small/s")
    assert REFUSES in (words(answer.body) if stream else answer.body.decode())
    record, ended = judged(tmp_path), outcomes(tmp_path)
    assert (record.why, record.given, record.up) == ("late", 0, to)
    assert (ended[1].ending, ended[1].error, ended[0].committed) == ("failed", "late", True)


async def test_a_busy_upper_one_is_not_waited_for(tmp_path: Path) -> None:
    async with ScriptedEngine(answering(completion(REFUSES))) as small, ScriptedEngine(Waits()) as large:
        whole = config(small.url, large.url)
        whole["engines"]["large"]["concurrency"] = 1
        whole["models"]["direct"] = ["large/l"]
        async with running(whole, tmp_path) as spillway:
            busy = await open_stream(spillway.port, PATH, chat(model="direct"))
            while not chats(large):
                await asyncio.sleep(0.005)
            answer = await ask(spillway.port, PATH, chat())
            busy.close()
    assert answer.headers["x-spillway-target"] == "small/s"
    assert judged(tmp_path).why == "saturated"


async def test_one_that_is_busy_when_the_request_comes_may_be_free_when_its_answer_is_read(tmp_path: Path) -> None:
    """The other one may never be asked, as its prompt must stay: still the answer is held, since the large engine may."""
    free, high = asyncio.Event(), Waits()

    async def low(received: Received, play: Play) -> None:
        await free.wait()
        await answering(completion(REFUSES))(received, play)

    async def upper(received: Received, play: Play) -> bool | None:
        return await (answering(completion(BETTER)) if free.is_set() else high)(received, play)

    async with (
        ScriptedEngine(low) as small,
        ScriptedEngine(upper) as large,
        ScriptedEngine(answering(completion())) as sky,
    ):
        whole = config(small.url, large.url, sky.url, to=["sky/gpt-4o", "large/l"])
        whole["engines"]["large"]["concurrency"] = 1
        whole["models"]["direct"] = ["large/l"]
        async with running(whole, tmp_path) as spillway:
            busy = await open_stream(spillway.port, PATH, chat(model="direct"))
            while not chats(large):
                await asyncio.sleep(0.005)
            asked = asyncio.create_task(ask(spillway.port, PATH, chat(f"my ssn is {SSN}")))
            while not chats(small):
                await asyncio.sleep(0.005)
            busy.close()
            await asyncio.wait_for(high.left.wait(), 5)
            await _until(lambda: not spillway.worker.fleet["large"].in_flight, spillway)
            free.set()
            answer = await asked
        assert not chats(sky)
    assert (answer.status, answer.headers["x-spillway-target"]) == (200, "large/l")


# --- faults below -------------------------------------------------------------------------------------------


async def test_where_the_lower_one_fails_the_ordinary_rules_hold(tmp_path: Path) -> None:
    """Before it answers, and in the middle of a stream that nobody has seen: the next candidate, unread as it is above."""
    broken = streaming(chat_chunks(["half "])[:2], end=False)
    for number, low in enumerate((answering({"error": {}}, 503), _resets, broken)):
        async with ScriptedEngine(low) as small, ScriptedEngine(streaming(chat_chunks([REFUSES]))) as large:
            whole = config(small.url, large.url)
            whole["decisions"][0]["use"] = ["small/s", "large/l"]
            place = tmp_path / str(number)
            async with running(whole, place) as spillway:
                answer = await ask(spillway.port, PATH, chat(stream=True))
                await spillway.settled()
            assert chats(small)
        assert (answer.status, answer.headers["x-spillway-target"]) == (200, "large/l")
        assert words(answer.body) == REFUSES and b'"error"' not in answer.body
        assert not records(place, Judged)
        assert {n: o.committed for n, o in outcomes(place).items()} == {0: False, 1: True}


async def test_where_all_fail_the_client_is_told_so(tmp_path: Path) -> None:
    broken = streaming(chat_chunks(["half "])[:2], end=False)
    async with ScriptedEngine(broken) as small, ScriptedEngine(answering(completion())) as large:
        async with running(config(small.url, large.url), tmp_path) as spillway:
            answer = await ask(spillway.port, PATH, chat(stream=True))
        assert not chats(large)
    assert answer.status == 502 and b"half" not in answer.body


@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_larger_than_is_held_goes_out_unread(stream: bool, tmp_path: Path) -> None:
    text = f"{REFUSES} " + "word " * 400
    low = streaming(chat_chunks([REFUSES, *["word "] * 400])) if stream else answering(completion(text))
    async with ScriptedEngine(low) as small, ScriptedEngine(answering(completion(BETTER))) as large:
        async with running(config(small.url, large.url, held="2KB"), tmp_path) as spillway:
            answer = await ask(spillway.port, PATH, chat(stream=stream))
            await spillway.settled()
        assert not chats(large)
    assert (answer.status, answer.headers["x-spillway-target"]) == (200, "small/s")
    assert REFUSES in (words(answer.body) if stream else answer.body.decode())
    if stream:
        assert answer.body.rstrip().endswith(b"[DONE]") and words(answer.body).count("word ") == 400
    record = judged(tmp_path)
    assert (record.why, record.attempt, record.given, record.target) == ("too_large", 0, 0, "small/s")
    assert 2000 < record.held <= len(answer.body)


async def test_a_slow_answer_is_streamed_from_the_deadline_on(tmp_path: Path) -> None:
    """The rest of it comes only once the client has seen the beginning."""
    events = chat_chunks(["one ", "two ", "three"])
    seen = asyncio.Event()

    async def low(received: Received, play: Play) -> None:
        await play.send(SSE_HEAD + chunk(events[0] + events[1]))
        await seen.wait()
        await play.send(b"".join([chunk(event) for event in events[2:]]) + END)

    async with ScriptedEngine(low) as small, ScriptedEngine(answering(completion())) as large:
        async with running(config(small.url, large.url, within="200ms"), tmp_path) as spillway:
            stream = await open_stream(spillway.port, PATH, chat(stream=True))
            await stream.until(b"one ")
            seen.set()
            await stream.until(b"[DONE]")
            stream.close()
            await spillway.settled()
    assert judged(tmp_path).why == "late"
    assert outcomes(tmp_path)[0].committed


@pytest.mark.parametrize("text", [SURE, REFUSES])
@pytest.mark.parametrize("stream", [False, True])
async def test_law_10_what_was_held_is_gone_when_the_request_is(text: str, stream: bool, tmp_path: Path) -> None:
    """Not only when the collector comes: a held answer may be large."""
    low = streaming(chat_chunks([text])) if stream else answering(completion(text))
    high = streaming(chat_chunks([BETTER])) if stream else answering(completion(BETTER))
    async with ScriptedEngine(low) as small, ScriptedEngine(high) as large:
        async with running(config(small.url, large.url), tmp_path) as spillway:
            gc.collect()
            gc.disable()
            try:
                for _ in range(4):
                    assert (await ask(spillway.port, PATH, chat(stream=stream))).status == 200
                await spillway.settled()
                await asyncio.sleep(0.1)  # the engines' connections have been given back
                left = [one for one in gc.get_objects() if type(one) in (HeldSink, Reader)]
            finally:
                gc.enable()
    assert len(left) <= 1  # of the connection that was used last


# --- clients that leave -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_law_09_a_client_that_leaves_while_an_answer_is_held_ends_the_engines_work(
    stream: bool, tmp_path: Path
) -> None:
    low = Waits(b"".join(chat_chunks(["half "])[:2]) if stream else b"")
    async with ScriptedEngine(low) as small, ScriptedEngine(answering(completion())) as large:
        async with running(config(small.url, large.url), tmp_path) as spillway:
            client = await open_stream(spillway.port, PATH, chat(stream=stream))
            while not chats(small):
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.05)
            client.close()
            await asyncio.wait_for(low.left.wait(), 5)
            await spillway.settled()
        assert not chats(large)
    outcome = outcomes(tmp_path)[0]
    assert (outcome.ending, outcome.committed, outcome.bytes_out) == ("abandoned", False, 0)


async def test_law_09_a_client_that_leaves_while_somebody_is_asked_further_up(tmp_path: Path) -> None:
    high = Waits()
    async with ScriptedEngine(answering(completion(REFUSES))) as small, ScriptedEngine(high) as large:
        async with running(config(small.url, large.url), tmp_path) as spillway:
            client = await open_stream(spillway.port, PATH, chat())
            while not chats(large):
                await asyncio.sleep(0.005)
            client.close()
            await asyncio.wait_for(high.left.wait(), 5)
            await _until(lambda: len(outcomes(tmp_path)) == 2, spillway)
    ended = outcomes(tmp_path)
    assert (ended[0].ending, ended[0].committed) == ("completed", False)
    assert (ended[1].ending, ended[1].committed) == ("abandoned", False)
    assert (judged(tmp_path).given, judged(tmp_path).why, judged(tmp_path).up) == (-1, "up", "large/l")


async def _until(holds: Any, spillway: Running) -> None:
    for _ in range(400):
        await spillway.settled()
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to that")


async def test_law_09_a_client_that_leaves_in_the_middle_of_what_comes_from_further_up(tmp_path: Path) -> None:
    high = Waits(b"".join(chat_chunks(["From "])[:2]))
    async with ScriptedEngine(streaming(chat_chunks([REFUSES]))) as small, ScriptedEngine(high) as large:
        async with running(config(small.url, large.url), tmp_path) as spillway:
            client = await open_stream(spillway.port, PATH, chat(stream=True))
            await client.until(b"From ")
            client.close()
            await asyncio.wait_for(high.left.wait(), 5)
            await _until(lambda: len(outcomes(tmp_path)) == 2, spillway)
    ended = outcomes(tmp_path)
    assert (ended[0].ending, ended[0].committed) == ("completed", False)
    assert (ended[1].ending, ended[1].committed) == ("abandoned", True)


async def test_a_shadow_beside_it_compares_what_the_client_got(tmp_path: Path) -> None:
    """What went up is what is compared, and the held answer is not."""
    async with (
        ScriptedEngine(answering(completion(REFUSES))) as small,
        ScriptedEngine(answering(completion(BETTER))) as large,
    ):
        async with ScriptedEngine(answering(completion(BETTER))) as other:
            whole = config(small.url, large.url)
            whole["engines"]["other"] = {"kind": "vllm", "replicas": [other.url], "models": {"o": {}}}
            whole["experiments"] = [
                {"name": "copies", "models": ["auto"], "shadow": {"to": "other/o", "share": "100%", "compare": "exact"}}
            ]
            async with running(whole, tmp_path) as spillway:
                answer = await ask(spillway.port, PATH, chat())
                await _until(lambda: records(tmp_path, Shadowed), spillway)
    assert answer.headers["x-spillway-target"] == "large/l"
    (shadowed,) = records(tmp_path, Shadowed)
    assert (shadowed.target, shadowed.score, shadowed.why) == ("other/o", 1000, "")


@pytest.mark.parametrize("late", [False, True])
async def test_a_shadow_beside_it_compares_the_held_answer_where_nobody_further_up_has_a_better(
    late: bool, tmp_path: Path
) -> None:
    """Who was asked last is not whose answer the client got."""
    fails = answering({"error": {"message": "no"}}, 500)
    async with (
        ScriptedEngine(answering(completion(REFUSES))) as small,
        ScriptedEngine(Waits() if late else fails) as large,
        ScriptedEngine(answering(completion(REFUSES))) as other,
    ):
        whole = config(small.url, large.url, within="500ms")
        whole["engines"]["other"] = {"kind": "vllm", "replicas": [other.url], "models": {"o": {}}}
        copies = {"to": "other/o", "from": "small", "share": "100%", "compare": "exact"}
        whole["experiments"] = [{"name": "copies", "models": ["auto"], "shadow": copies}]
        async with running(whole, tmp_path) as spillway:
            answer = await ask(spillway.port, PATH, chat())
            await _until(lambda: records(tmp_path, Shadowed), spillway)
    assert (answer.status, answer.headers["x-spillway-target"]) == (200, "small/s")
    assert judged(tmp_path).why == ("late" if late else "failed")
    (shadowed,) = records(tmp_path, Shadowed)
    assert (shadowed.target, shadowed.score, shadowed.why) == ("other/o", 1000, "")


# --- requests that do not use it ----------------------------------------------------------------------------


async def test_other_requests_go_the_ordinary_way(tmp_path: Path) -> None:
    """Under a decision without the option an answer streams as it comes, and is not read."""
    events = chat_chunks([REFUSES, "again"])
    seen = asyncio.Event()

    async def low(received: Received, play: Play) -> None:
        await play.send(SSE_HEAD + chunk(events[0] + events[1]))
        await seen.wait()
        await play.send(b"".join([chunk(event) for event in events[2:]]) + END)

    async with ScriptedEngine(low) as small, ScriptedEngine(answering(completion())) as large:
        whole = config(small.url, large.url)
        whole["decisions"].insert(0, {"name": "plain", "when": {"application": "plain"}, "use": ["small/s"]})
        whole["models"]["direct"] = ["small/s"]
        async with running(whole, tmp_path) as spillway:
            stream = await open_stream(spillway.port, PATH, chat(model="direct", stream=True))
            await stream.until(REFUSES[:10].encode())
            seen.set()
            await stream.until(b"[DONE]")
            stream.close()
            await spillway.settled()
        assert not chats(large)
    assert not records(tmp_path, Judged)


async def test_without_the_option_none_of_it_is_there(tmp_path: Path) -> None:
    from proxy.attempts import Attempts

    async with ScriptedEngine(answering(completion())) as small:
        whole = config(small.url, "http://127.0.0.1:1")
        del whole["decisions"][0]["escalate"]
        async with running(whole, tmp_path) as spillway:
            assert type(spillway.worker.pipeline._attempts) is Attempts


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("schema", ['{"required": [["a"]]}', '{"properties": {"a": {"minimum": ' + "9" * 400 + "}}}"])
async def test_a_schema_that_is_none_costs_no_answer(stream: bool, schema: str, tmp_path: Path) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": json.loads(schema)}}
    script = streaming(chat_chunks(['{"a": 1}'])) if stream else answering(completion('{"a": 1}'))
    async with ScriptedEngine(script) as small, ScriptedEngine(answering(completion())) as large:
        async with running(config(small.url, large.url), tmp_path) as spillway:
            answer = await ask(spillway.port, PATH, chat(stream=stream, response_format=form))
    assert answer.status == 200


async def test_an_answer_that_cannot_be_judged_goes_out_as_it_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is wrong with what reads it: the engine's answer is whole, and the client's."""

    def broken(*_: Any) -> Any:
        raise TypeError("what stood in the answer")

    monkeypatch.setattr("proxy.escalating.judge", broken)
    async with (
        ScriptedEngine(answering(completion(REFUSES))) as small,
        ScriptedEngine(answering(completion())) as large,
    ):
        async with running(config(small.url, large.url), tmp_path) as spillway:
            answer = await ask(spillway.port, PATH, chat())
    assert answer.status == 200 and answer.json()["choices"][0]["message"]["content"] == REFUSES
    assert (judged(tmp_path).why, judged(tmp_path).given) == ("unread", 0)
    assert [outcome.ending for outcome in outcomes(tmp_path).values()] == ["completed"]
