"""Every way in which an engine can fail, against a scripted engine on a real socket, and how it must end."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from client import ask, open_stream
from scripted import (
    END,
    SSE_HEAD,
    Play,
    Received,
    ScriptedEngine,
    answering,
    chat_chunks,
    chunk,
    completion,
    json_answer,
    message_events,
    streaming,
)
from stack import Running, running

from compliance.journal import read
from compliance.records import Decision, Outcome, Refused

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
TIMEOUTS = {"connect": "300ms", "first_event": "300ms", "idle": "300ms", "total": "5s"}


def config(home: str, cloud: str | None = None, **more: Any) -> dict[str, Any]:
    """A local engine, and a cloud behind it."""
    engines: dict[str, Any] = {"home": {"kind": "vllm", "replicas": [home], "models": {"m": {}}, "timeouts": TIMEOUTS}}
    models = ["home/m"]
    if cloud is not None:
        engines["sky"] = {
            "kind": "openai",
            "replicas": [cloud],
            "boundary": "cloud",
            "models": {"gpt-4o": {}},
            "timeouts": TIMEOUTS,
        }
        models.append("sky/gpt-4o")
    return {"engines": engines, "models": {"m": models}, **more}


def records(running: Running, *kinds: type) -> list[Any]:
    """What the log says, once it is on the disk."""
    deadline = time.monotonic() + 3
    journal = running.worker.journal
    while journal.durable_seq < journal.next_seq - 1 and time.monotonic() < deadline:
        time.sleep(0.005)
    return [record for record in read(journal.directory) if isinstance(record, kinds)]


async def hang(received: Received, play: Play) -> bool:
    await play.left()
    return False


async def reset(received: Received, play: Play) -> bool:
    play.reset()
    return False


async def close(received: Received, play: Play) -> bool:
    return False


async def garbage(received: Received, play: Play) -> bool:
    await play.send(b"this is not HTTP\r\n\r\n")
    return False


async def malformed(received: Received, play: Play) -> None:
    await play.send(json_answer(b'{"choices": '))


async def short(received: Received, play: Play) -> bool:
    await play.send(json_answer(completion())[:-5])
    return False


OVERLOADED = answering({"error": {"message": "busy", "type": "x", "code": 503}}, 503)
FIRST_EVENT_ERROR = streaming([b'data: {"error": {"message": "busy", "code": 503}}\n\n', b"data: [DONE]\n\n"])

RETRYABLE = {
    "connection closed before an answer": (close, "connection_lost"),
    "reset before an answer": (reset, "connection_lost"),
    "slow headers": (hang, "first_event_timeout"),
    "not http": (garbage, "malformed_answer"),
    "malformed json": (malformed, "malformed_answer"),
    "cut short": (short, "connection_lost"),
    "503": (OVERLOADED, "engine_overloaded"),
    "429": (answering({"error": {"message": "slow down"}}, 429, [("retry-after", "7")]), "engine_overloaded"),
    "500": (answering({"error": {"message": "dead"}}, 500), "engine_fault"),
    "401 of our own key": (answering({"error": {"message": "bad key"}}, 401), "engine_fault"),
    "404 of a model that is not loaded": (answering({"error": {"message": "no such model"}}, 404), "engine_fault"),
}


@pytest.mark.parametrize("fault", RETRYABLE)
async def test_a_fault_before_the_commit_overflows_to_the_next_candidate(fault: str, tmp_path: Path) -> None:
    script, code = RETRYABLE[fault]
    async with (
        ScriptedEngine(script) as home,
        ScriptedEngine(answering(completion("from the cloud", "gpt-4o"))) as cloud,
        running(config(home.url, cloud.url), tmp_path) as spillway,
    ):
        answer = await ask(spillway.port, "/v1/chat/completions", CHAT)
        assert answer.status == 200
        assert answer.headers["x-spillway-target"] == "sky/gpt-4o"
        assert answer.json()["model"] == "m"  # the client's own name comes back
        first, second = records(spillway, Outcome)
        assert (first.target, first.ending, first.error) == ("home/m", "failed", code)
        assert (second.target, second.ending) == ("sky/gpt-4o", "completed")
        assert [decision.attempt for decision in records(spillway, Decision)] == [0, 1]


async def test_connection_refused_overflows(tmp_path: Path) -> None:
    async with (
        ScriptedEngine(answering(completion())) as cloud,
        running(config("http://127.0.0.1:1", cloud.url), tmp_path) as spillway,
    ):
        answer = await ask(spillway.port, "/v1/chat/completions", CHAT)
        assert (answer.status, answer.headers["x-spillway-target"]) == (200, "sky/gpt-4o")
        assert records(spillway, Outcome)[0].error == "connect_failed"


async def test_law_06_an_error_in_the_first_event_counts_as_before_the_commit(tmp_path: Path) -> None:
    async with ScriptedEngine(FIRST_EVENT_ERROR) as home, ScriptedEngine(streaming(chat_chunks(["a", "b"]))) as cloud:
        async with running(config(home.url, cloud.url), tmp_path) as spillway:
            answer = await ask(spillway.port, "/v1/chat/completions", {**CHAT, "stream": True})
            assert answer.headers["x-spillway-target"] == "sky/gpt-4o"
            assert answer.body.endswith(b"data: [DONE]\n\n")
            assert b"busy" not in answer.body


async def _reset_in_mid_stream(received: Received, play: Play) -> bool:
    await play.send(SSE_HEAD + chunk(b"".join(chat_chunks(["a", "b"])[:2])))
    await asyncio.sleep(0.05)
    play.reset()
    return False


async def _silence_in_mid_stream(received: Received, play: Play) -> bool:
    await play.send(SSE_HEAD + chunk(b"".join(chat_chunks(["a", "b"])[:2])))
    await play.left()
    return False


async def _broken_event(received: Received, play: Play) -> bool:
    await play.send(SSE_HEAD + chunk(chat_chunks(["a"])[0]) + chunk(b"data: {broken\n\n") + END)
    return True


BROKEN_STREAMS = {
    "reset in mid-stream": (_reset_in_mid_stream, "connection_lost"),
    "silence in mid-stream": (_silence_in_mid_stream, "idle_timeout"),
    "end without the terminal event": (streaming(chat_chunks(["a", "b"])[:3]), "truncated_answer"),
    "done without a finish": (streaming([*chat_chunks(["a"])[:2], b"data: [DONE]\n\n"]), "truncated_answer"),
    "an event that is no json": (_broken_event, "malformed_answer"),
}


@pytest.mark.parametrize("fault", BROKEN_STREAMS)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_law_05_a_stream_that_breaks_after_the_commit_ends_in_an_error_event(
    fault: str, path: str, tmp_path: Path
) -> None:
    script, code = BROKEN_STREAMS[fault]
    async with ScriptedEngine(script) as home, ScriptedEngine(streaming(chat_chunks(["never"]))) as cloud:
        async with running(config(home.url, cloud.url), tmp_path) as spillway:
            answer = await ask(spillway.port, path, {**CHAT, "stream": True, "max_tokens": 10})
            assert answer.status == 200
            assert b"[DONE]" not in answer.body and b"message_stop" not in answer.body and b'"stop"' not in answer.body
            last = answer.body.rstrip(b"\n").split(b"\n\n")[-1]
            assert (b"event: error" in last) if path == "/v1/messages" else last.startswith(b'data: {"error":')
            assert not cloud.requests  # law 6: no switch after the commit
            await spillway.settled()
            (outcome,) = records(spillway, Outcome)
            assert (outcome.ending, outcome.error, outcome.committed) == ("failed", code, True)
            assert outcome.quality == "estimated"  # what came before the break was metered


async def test_an_error_event_of_the_engine_in_mid_stream_reaches_the_client_as_it_is(tmp_path: Path) -> None:
    error = b'data: {"error": {"message": "the engine died", "code": 500}}\n\n'
    async with ScriptedEngine(streaming([*chat_chunks(["a"])[:2], error, b"data: [DONE]\n\n"])) as home:
        async with running(config(home.url), tmp_path) as spillway:
            answer = await ask(spillway.port, "/v1/chat/completions", {**CHAT, "stream": True})
            assert answer.body.endswith(error)


async def test_an_over_long_prompt_that_answers_nothing_is_no_success(tmp_path: Path) -> None:
    async with ScriptedEngine(streaming([])) as home, running(config(home.url), tmp_path) as spillway:
        answer = await ask(spillway.port, "/v1/chat/completions", {**CHAT, "stream": True})
        assert answer.status == 502
        assert answer.json()["error"]["code"] == "truncated_answer"


async def test_a_request_that_the_engine_rejects_is_not_tried_elsewhere_and_passes_as_it_is(tmp_path: Path) -> None:
    body = b'{"error":{"code":400,"message":"too long","type":"exceed_context_size_error","n_ctx":2048}}'
    async with (
        ScriptedEngine(answering(body, 400, [("x-request-id", "theirs")])) as home,
        ScriptedEngine(answering(completion())) as cloud,
        running(config(home.url, cloud.url), tmp_path) as spillway,
    ):
        answer = await ask(spillway.port, "/v1/chat/completions", CHAT)
        assert (answer.status, answer.body, answer.headers["x-request-id"]) == (400, body, "theirs")
        assert not cloud.requests
        translated = await ask(spillway.port, "/v1/messages", {**CHAT, "max_tokens": 5})
        assert (translated.status, translated.json()["type"]) == (400, "error")
        assert translated.json()["error"]["type"] == "invalid_request_error"


async def test_retry_after_of_the_last_engine_reaches_the_client(tmp_path: Path) -> None:
    script, _ = RETRYABLE["429"]
    async with ScriptedEngine(script) as home, running(config(home.url), tmp_path) as spillway:
        answer = await ask(spillway.port, "/v1/chat/completions", CHAT)
        assert (answer.status, answer.headers["retry-after"]) == (429, "7")
        translated = await ask(spillway.port, "/v1/messages", {**CHAT, "max_tokens": 5})
        assert (translated.status, translated.headers["retry-after"]) == (429, "7")


async def test_attempts_are_capped(tmp_path: Path) -> None:
    async with ScriptedEngine(OVERLOADED) as home, ScriptedEngine(OVERLOADED) as cloud:
        settings = config(home.url, cloud.url, limits={"attempts": 1})
        async with running(settings, tmp_path) as spillway:
            answer = await ask(spillway.port, "/v1/chat/completions", CHAT)
            assert answer.status == 503
            assert (len(home.requests), len(cloud.requests)) == (1, 0)


async def _slow_answer(received: Received, play: Play) -> bool:
    global left_at
    left_at = await play.left()
    return False


async def _slow_stream(received: Received, play: Play) -> bool:
    global left_at
    await play.send(SSE_HEAD + chunk(b"".join(chat_chunks(["a"])[:2])))
    left_at = await play.left()
    return False


left_at = 0.0


@pytest.mark.parametrize("phase", ["waiting", "streaming"])
async def test_law_09_when_the_client_leaves_the_engine_is_left_within_100_ms(phase: str, tmp_path: Path) -> None:
    global left_at
    left_at = 0.0
    script = _slow_answer if phase == "waiting" else _slow_stream
    async with ScriptedEngine(script) as home, running(config(home.url), tmp_path) as spillway:
        stream = await open_stream(spillway.port, "/v1/chat/completions", {**CHAT, "stream": phase == "streaming"})
        if phase == "streaming":
            await stream.until(b"data: ")
        while not home.requests:
            await asyncio.sleep(0.005)
        gone = time.perf_counter()
        stream.close()
        while not left_at:
            await asyncio.sleep(0.005)
            assert time.perf_counter() - gone < 2
        assert left_at - gone < 0.1
        await asyncio.sleep(0.02)
        await spillway.settled()
        (outcome,) = records(spillway, Outcome)
        assert (outcome.ending, outcome.quality) == ("abandoned", "estimated")
        assert spillway.worker.fleet["home"].in_flight == 0


async def test_law_09_a_client_that_leaves_while_queued_is_taken_out_of_the_queue(tmp_path: Path) -> None:
    settings = config("", None)
    async with ScriptedEngine(hang) as home:
        settings = config(home.url)
        settings["engines"]["home"] |= {"concurrency": 1, "timeouts": {**TIMEOUTS, "first_event": "5s"}}
        settings |= {"limits": {"queue": {"max_wait": "5s", "length": 1}}, "listen": {"workers": 1}}
        async with running(settings, tmp_path) as spillway:
            first = await open_stream(spillway.port, "/v1/chat/completions", CHAT)
            while not home.requests:
                await asyncio.sleep(0.005)
            second = await open_stream(spillway.port, "/v1/chat/completions", CHAT)
            await asyncio.sleep(0.05)
            full = await ask(spillway.port, "/v1/chat/completions", CHAT)
            assert (full.status, full.json()["error"]["code"]) == (503, "queue_timeout")
            assert full.headers["retry-after"] == "1"
            second.close()
            await asyncio.sleep(0.05)
            assert len(home.requests) == 1  # it never reached the engine
            first.close()


async def test_law_10_a_slow_reader_does_not_grow_memory(tmp_path: Path) -> None:
    sent = 0

    async def flood(received: Received, play: Play) -> bool:
        nonlocal sent
        await play.send(SSE_HEAD)
        event = chat_chunks(["x" * 16000])[1]
        for _ in range(4000):  # 64 MB
            await play.send(chunk(event))
            sent += len(event)
        return False

    async with ScriptedEngine(flood) as home, running(config(home.url), tmp_path) as spillway:
        stream = await open_stream(spillway.port, "/v1/chat/completions", {**CHAT, "stream": True})
        await stream.until(b"data: ")
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.2)
        assert sent < 16_000_000  # sockets' buffers, not ours
        await asyncio.sleep(0.4)  # longer than the idle timeout: a slow reader is not a dead engine
        more = await stream.read_some(3_000_000)
        assert b'"error"' not in more[-20_000:]
        stream.close()


async def test_law_01_what_must_stay_local_reaches_no_cloud_on_any_path(tmp_path: Path) -> None:
    """Overflow, retry, streamed or not, either dialect: a planted identifier never arrives."""
    secret = "123-45-6789"
    async with ScriptedEngine(OVERLOADED) as home, ScriptedEngine(answering(completion())) as cloud:
        async with running(config(home.url, cloud.url), tmp_path) as spillway:
            for path in ("/v1/chat/completions", "/v1/messages"):
                for stream in (False, True):
                    body = {
                        **CHAT,
                        "messages": [{"role": "user", "content": f"ssn {secret}"}],
                        "stream": stream,
                        "max_tokens": 5,
                    }
                    answer = await ask(spillway.port, path, body)
                    assert answer.status == 503, answer.body
                    assert answer.headers["x-spillway-action"] == "keep_local"
            assert cloud.connections == 0 and len(home.requests) == 4
            (decision, *_) = records(spillway, Decision)
            assert (decision.action, decision.findings) == ("keep_local", ("ssn:1:messages[0].content:100:4-15",))
            assert decision.vetoes == ("sky/gpt-4o:boundary",)
            log = b"".join(path.read_bytes() for path in spillway.worker.journal.directory.glob("segment-*"))
            assert secret.encode() not in log  # law 11


async def test_law_01_only_cloud_and_it_must_stay_local_is_refused_in_words(tmp_path: Path) -> None:
    async with ScriptedEngine(answering(completion())) as cloud:
        settings = config("http://127.0.0.1:1", cloud.url)
        settings["models"] = {"m": ["sky/gpt-4o"]}
        async with running(settings, tmp_path) as spillway:
            body = {**CHAT, "messages": [{"role": "user", "content": "card 4111 1111 1111 1111"}]}
            answer = await ask(spillway.port, "/v1/chat/completions", body)
            assert (answer.status, answer.json()["error"]["code"]) == (403, "no_eligible_target")
            assert "must stay local" in answer.json()["error"]["message"]
            assert answer.headers["x-should-retry"] == "false"
            (refused,) = records(spillway, Refused)
            assert (refused.code, refused.vetoes) == ("no_eligible_target", ("sky/gpt-4o:boundary",))


async def test_law_07_same_dialect_same_bytes(tmp_path: Path) -> None:
    """Odd spacing, escapes, unknown fields and number formats arrive as they were sent, and answers as they came."""
    raw = b'{ "model" : "m","messages":[{"role":"user","content":"caf\\u00e9 \\/ 1e0"} ] , "temperature":1.0e0,"x_new":{"a":[1 ,2]}}'
    events = [b": a comment\n\n", *chat_chunks(["a"], usage=False)]
    whole = b'{"id":"1", "object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"\\u00e9"},"finish_reason":"stop"}] }'

    async def script(received: Received, play: Play) -> None:
        await (streaming(events) if b'"stream"' in received.body else answering(whole))(received, play)

    async with ScriptedEngine(script) as home, running(config(home.url), tmp_path) as spillway:
        answer = await ask(spillway.port, "/v1/chat/completions", raw)
        assert answer.body == whole
        assert home.requests[0].body == raw
        streamed = raw[:-1] + b',"stream":true}'
        answer = await ask(spillway.port, "/v1/chat/completions", streamed)
        assert home.requests[1].body == streamed[:-1] + b',"stream_options":{"include_usage":true}}'  # the named edit
        assert answer.body == b"".join(events)


async def test_law_12_every_answer_has_an_id_that_the_log_explains(tmp_path: Path) -> None:
    async with ScriptedEngine(answering(completion())) as home, running(config(home.url), tmp_path) as spillway:
        bodies: list[tuple[str, Any]] = [
            ("/v1/chat/completions", CHAT), ("/v1/chat/completions", {**CHAT, "model": "nope"}), ("/v1/chat/completions", b"{"),
            ("/nowhere", CHAT), ("/v1/messages", {"model": "m"}),
        ]  # fmt: skip
        ids = [(await ask(spillway.port, path, body)).headers["x-spillway-request-id"] for path, body in bodies]
        assert len(set(ids)) == len(ids)
        written = {record.request for record in records(spillway, Decision, Refused)}
        assert set(ids) <= written


async def test_credentials_of_the_client_never_reach_an_engine(tmp_path: Path) -> None:
    headers = {
        "authorization": "Bearer spw_mine",
        "x-api-key": "spw_mine",
        "cookie": "a=b",
        "x-spillway-tags": "a=b",
        "connection": "x-odd",
        "x-odd": "1",
    }
    async with ScriptedEngine(answering(completion())) as home, running(config(home.url), tmp_path) as spillway:
        answer = await ask(spillway.port, "/v1/chat/completions?a=1&key=spw_mine", CHAT, headers)
        assert answer.status == 200
        (received,) = home.requests
        assert b"spw_mine" not in received.raw and received.path == "/v1/chat/completions?a=1"
        assert not {"authorization", "x-api-key", "cookie", "x-spillway-tags", "x-odd"} & set(received.headers)


async def test_the_anthropic_stream_of_an_anthropic_cloud_passes_byte_for_byte(tmp_path: Path) -> None:
    events = message_events(["a", "b"])
    async with ScriptedEngine(streaming(events)) as cloud:
        settings = {
            "engines": {
                "claude": {
                    "kind": "anthropic",
                    "replicas": [cloud.url],
                    "boundary": "cloud",
                    "models": {"*": {}},
                    "key": {"env": "K"},
                }
            },
        }
        async with running(settings, tmp_path, environ={"K": "theirs"}) as spillway:
            body = {
                "model": "claude-haiku-4-5",
                "max_tokens": 10,
                "stream": True,
                "messages": [{"role": "user", "content": "hi"}],
            }
            answer = await ask(
                spillway.port,
                "/v1/messages?beta=true",
                body,
                {"anthropic-beta": "a-1", "anthropic-version": "2023-06-01"},
            )
            assert answer.body == b"".join(events)
            (received,) = cloud.requests
            assert received.headers["x-api-key"] == "theirs"
            assert received.headers["anthropic-beta"] == "a-1" and received.path == "/v1/messages?beta=true"


async def test_law_12_what_no_engine_could_be_asked_for_is_a_refusal_in_the_log(tmp_path: Path) -> None:
    async with ScriptedEngine(answering(completion())) as home, running(config(home.url), tmp_path) as spillway:
        body = {**CHAT, "max_tokens": 5, "container": "c_1"}  # nothing of OpenAI's dialect says that
        answer = await ask(spillway.port, "/v1/messages", body)
        assert answer.status == 400
        (refused,) = records(spillway, Refused)
        assert (refused.request, refused.code) == (answer.headers["x-spillway-request-id"], "untranslatable")
        assert not home.requests


async def test_law_13_who_leaves_when_all_has_come_has_completed_however_many_end_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is out before its attempt's turn to be settled, and many clients close then."""
    monkeypatch.setattr("engines.turns.SHARE", 0.0)
    streams, gate = 24, asyncio.Event()
    frames = chat_chunks(["a", "b"])

    async def script(received: Received, play: Play) -> None:
        await play.send(SSE_HEAD + chunk(frames[0]) + chunk(frames[1]))
        await gate.wait()
        await play.send(chunk(b"".join(frames[2:])) + b"0\r\n\r\n")

    async def client(port: int) -> None:
        stream = await open_stream(port, "/v1/chat/completions", {**CHAT, "stream": True})
        await stream.until(b"data: ")
        waiting.append(stream)
        await stream.until(b"[DONE]")
        stream.close()

    waiting: list[Any] = []
    async with ScriptedEngine(script) as home, running(config(home.url), tmp_path) as spillway:
        clients = [asyncio.create_task(client(spillway.port)) for _ in range(streams)]
        while len(waiting) < streams:
            await asyncio.sleep(0.01)
        gate.set()
        await asyncio.gather(*clients)
        while len(outcomes := records(spillway, Outcome)) < streams:
            await asyncio.sleep(0.02)
            await spillway.settled()
        assert {outcome.ending for outcome in outcomes} == {"completed"}
