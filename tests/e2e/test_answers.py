"""Answers of a real worker and a scripted engine: masked, stopped, and pseudonyms turned back; both dialects."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable
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
    message,
    message_events,
    streaming,
)
from stack import Running, running

from compliance.journal import read
from compliance.pseudonyms import PSEUDONYM
from compliance.records import Outcome

SSN = "078-05-1120"
WORDS = ["Sure", ": the", " SSN", " is ", "078", "-05", "-11", "20", " and", " all", " is", " well", "."]
SAID = "".join(WORDS)
MASKED = SAID.replace(SSN, "[SSN]")
CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 50}
PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}
BOTH = pytest.mark.parametrize(("client", "engine"), [(c, e) for c in PATHS for e in PATHS])


def config(engine: str, url: str, found: str, **compliance: Any) -> dict[str, Any]:
    """One engine that speaks this dialect, at home."""
    row: dict[str, Any] = {
        "kind": "vllm" if engine == "openai" else "anthropic",
        "replicas": [url],
        "models": {"m": {}},
    }
    row |= {"boundary": "local", "timeouts": {"first_event": "400ms", "idle": "400ms", "connect": "1s"}}
    if engine == "anthropic":
        row["key"] = {"env": "K"}
    return {
        "engines": {"home": row},
        "models": {"m": ["home/m"]},
        "compliance": {"tier": "fast", "answers": {"found": found}, **compliance},
    }


def outcome(spillway: Running) -> Outcome:
    journal = spillway.worker.journal
    until = time.monotonic() + 3
    while journal.durable_seq < journal.next_seq - 1 and time.monotonic() < until:
        time.sleep(0.005)
    (record,) = [record for record in read(journal.directory) if isinstance(record, Outcome)]
    return record


def rows_of(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in body.split(b"\n") if line.startswith(b"data: {")]


def text_of(client: str, body: bytes) -> str:
    """What a reader of the stream sees."""
    if client == "anthropic":
        return "".join(row.get("delta", {}).get("text", "") for row in rows_of(body))
    return "".join(c["delta"].get("content") or "" for row in rows_of(body) for c in row.get("choices", []))


def stream_of(engine: str, words: list[str]) -> list[bytes]:
    return chat_chunks(words) if engine == "openai" else message_events(words)


def unnumbered(body: bytes) -> bytes:
    """An answer without its ids and times, in which any digits may stand."""
    return re.sub(rb'"(?:id|created)": ?(?:"[^"]*"|[0-9]+)', b"", body)


def whole_of(engine: str, text: str) -> dict[str, Any]:
    return completion(text) if engine == "openai" else message(text)


@BOTH
async def test_law_08_a_streamed_identifier_is_masked(client: str, engine: str, tmp_path: Path) -> None:
    events = stream_of(engine, WORDS)
    async with ScriptedEngine(streaming(events)) as home:
        async with running(config(engine, home.url, "mask"), tmp_path, environ={"K": "k"}) as spillway:
            answer = await ask(spillway.port, PATHS[client], {**CHAT, "stream": True})
            assert answer.status == 200
            assert text_of(client, answer.body) == MASKED
            told = unnumbered(answer.body)
            assert b"1120" not in told and b"-05" not in told
            if client == engine:  # law 7: what did not change came as it was, in its order
                untouched = [event for event in events if not any(part.encode() in event for part in WORDS[4:8])]
                kept = [event for event in untouched if b'"usage": {"prompt' not in event]
                places = [answer.body.index(event) for event in kept]
                assert places == sorted(places)
            await spillway.settled()
            record = outcome(spillway)
            assert (record.ending, record.error, record.findings) == ("completed", "", ("ssn:1:text",))
            assert record.quality == "exact"


@BOTH
async def test_law_05_an_answer_that_is_stopped_ends_in_an_error(client: str, engine: str, tmp_path: Path) -> None:
    async with ScriptedEngine(streaming(stream_of(engine, WORDS))) as home:
        async with running(config(engine, home.url, "stop"), tmp_path, environ={"K": "k"}) as spillway:
            answer = await ask(spillway.port, PATHS[client], {**CHAT, "stream": True})
            assert answer.status == 200
            assert "Sure: the SSN is ".startswith(text_of(client, answer.body)) and "Sure" in text_of(
                client, answer.body
            )
            told = unnumbered(answer.body)
            assert b"078" not in told and b"1120" not in told
            assert b"[DONE]" not in answer.body and b"message_stop" not in answer.body
            last = rows_of(answer.body)[-1]
            assert last["error"]["code"] == "policy_blocked"
            assert ("type" in last) == (client == "anthropic")
            await spillway.settled()
            record = outcome(spillway)
            assert (record.ending, record.error, record.findings) == ("failed", "policy_blocked", ("ssn:1:text",))


@BOTH
@pytest.mark.parametrize("found", ["mask", "stop", "pass"])
async def test_an_answer_that_is_not_streamed(client: str, engine: str, found: str, tmp_path: Path) -> None:
    sent = whole_of(engine, SAID)
    async with ScriptedEngine(answering(sent)) as home:
        async with running(config(engine, home.url, found), tmp_path, environ={"K": "k"}) as spillway:
            answer = await ask(spillway.port, PATHS[client], CHAT)
            await spillway.settled()
            record = outcome(spillway)
            assert record.findings == ("ssn:1:text",)
            if found == "stop":
                assert (answer.status, answer.json()["error"]["code"]) == (403, "policy_blocked")
                assert answer.headers["x-should-retry"] == "false" and SSN.encode() not in answer.body
                assert (record.ending, record.error) == ("failed", "policy_blocked")
                return
            said = MASKED if found == "mask" else SAID
            assert said in json.dumps(answer.json())
            if client == engine:
                assert answer.body == json.dumps(whole_of(engine, said)).encode()


RULES = [{"name": "hide", "when": {"found": ["pii"]}, "action": "redact"}]
NOTE = "Patient: Odalys Ferncastle, SSN 219-09-9999, has diabetes. Is metformin right?"


def _echo(engine: str, stream: bool, tool: bool) -> Callable[[Received, Play], Any]:
    """An engine that says what it was asked, in pieces of three characters, and two pseudonyms that nobody gave it."""

    async def script(received: Received, play: Play) -> None:
        body = received.json()
        content = body["messages"][-1]["content"]
        text = content if isinstance(content, str) else content[0]["text"]
        said = " ".join(PSEUDONYM.findall(text)) + " [SSN_aaaa] [NAME_zzzz]"
        assert "Ferncastle" not in said
        if not stream:
            await answering(whole_of(engine, said))(received, play)
            return
        pieces = [said[at : at + 3] for at in range(0, len(said), 3)]
        if not tool:
            await streaming(stream_of(engine, pieces))(received, play)
            return
        arguments = json.dumps({"said": said, "n": [1, 2]})
        calls = [arguments[at : at + 3] for at in range(0, len(arguments), 3)]
        await streaming(openai_call(calls) if engine == "openai" else anthropic_call(calls))(received, play)

    return script


def openai_call(pieces: list[str]) -> list[bytes]:
    def event(delta: dict[str, Any], finish: str | None = None) -> bytes:
        row = {"id": "1", "object": "chat.completion.chunk", "model": "m", "created": 1}
        return (
            b"data: "
            + json.dumps({**row, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}).encode()
            + b"\n\n"
        )

    first = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}
    rest = [event({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}) for piece in pieces]
    return [event({"role": "assistant", "tool_calls": [first]}), *rest, event({}, "tool_calls"), b"data: [DONE]\n\n"]


def anthropic_call(pieces: list[str]) -> list[bytes]:
    first, *_, delta, stop = message_events([])
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    rows = [
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "tool_use", "id": "t1", "name": "f", "input": {}},
        },
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
    ]
    return [first, *(f"event: {row['type']}\ndata: {json.dumps(row)}\n\n".encode() for row in rows), delta, stop]


def arguments_of(client: str, body: bytes) -> str:
    if client == "anthropic":
        return "".join(row.get("delta", {}).get("partial_json", "") for row in rows_of(body))
    calls = [call for row in rows_of(body) for c in row["choices"] for call in c["delta"].get("tool_calls", [])]
    return "".join(call["function"].get("arguments", "") for call in calls)


@BOTH
@pytest.mark.parametrize(
    ("form", "found"), [("whole", "pass"), ("stream", "pass"), ("tool", "pass"), ("tool", "mask"), ("stream", "stop")]
)
async def test_pseudonyms_are_turned_back_for_the_client(
    client: str, engine: str, form: str, found: str, tmp_path: Path
) -> None:
    async with ScriptedEngine(_echo(engine, form != "whole", form == "tool")) as cloud:
        settings = config(engine, cloud.url, found, rules=RULES, deadline="20s")
        settings["engines"]["home"] |= {"kind": engine, "boundary": "cloud", "key": {"env": "K"}}
        settings["unpriced"] = {"input": "$1/M", "output": "$1/M"}
        async with running(settings, tmp_path, environ={"K": "k"}) as spillway:
            body = {**CHAT, "messages": [{"role": "user", "content": NOTE}], "stream": form != "whole"}
            answer = await ask(spillway.port, PATHS[client], body)
            assert answer.status == 200, answer.body
            assert b"219-09-9999" not in cloud.raw and b"Ferncastle" not in cloud.raw
            if form == "whole":
                message = answer.json()
                said = (
                    message["content"][0]["text"]
                    if client == "anthropic"
                    else message["choices"][0]["message"]["content"]
                )
            elif form == "stream":
                said = text_of(client, answer.body)
            else:
                said = json.loads(arguments_of(client, answer.body))["said"]
            assert sorted(said.split(" [SSN_aaaa]")[0].split(" ")) == ["219-09-9999", "Ferncastle", "Odalys"], (
                answer.body
            )
            assert said.endswith("[SSN_aaaa] [NAME_zzzz]")
            await spillway.settled()
            assert outcome(spillway).findings == ()  # what the client itself sent is not found in the answer
            log = b"".join(path.read_bytes() for path in spillway.worker.journal.directory.glob("segment-*"))
            assert b"219-09-9999" not in log and b"Ferncastle" not in log  # law 11


async def test_held_text_goes_out_when_the_client_waits_and_the_engine_pauses(tmp_path: Path) -> None:
    """What is closed is not held: a reader sees it while the engine thinks; what is open waits for its end."""

    async def script(received: Received, play: Play) -> None:
        events = chat_chunks(["Hello", " there. ", "Now: ", "078-05"])
        await play.send(SSE_HEAD + chunk(b"".join(events[:5])))
        await asyncio.sleep(0.25)
        rest = [chat_chunks(["-1120 is"])[1], *chat_chunks([" it"])[1:]]
        await play.send(chunk(b"".join(rest)) + END)

    async with ScriptedEngine(script) as home, running(config("openai", home.url, "mask"), tmp_path) as spillway:
        stream = await open_stream(spillway.port, PATHS["openai"], {**CHAT, "stream": True})
        begun = time.perf_counter()
        early = await stream.until(b'"Now: "')
        assert time.perf_counter() - begun < 0.2 and b"078" not in early.partition(b"\r\n\r\n")[2]
        late = await stream.until(b"[DONE]")
        stream.close()
        await asyncio.sleep(0.01)
        assert b"078" not in late and b"1120" not in late and b"[SSN]" in late


async def test_an_engine_whose_first_words_are_held_has_answered_in_time(tmp_path: Path) -> None:
    async def script(received: Received, play: Play) -> None:
        words = chat_chunks(["078", "-05", "-11", "20", " ok"])[1:]
        await play.send(SSE_HEAD)
        for word in words:
            await play.send(chunk(word))
            await asyncio.sleep(0.2)
        await play.send(END)

    async with ScriptedEngine(script) as home, running(config("openai", home.url, "mask"), tmp_path) as spillway:
        answer = await ask(spillway.port, PATHS["openai"], {**CHAT, "stream": True})
        assert (answer.status, text_of("openai", answer.body)) == (200, "[SSN] ok")


async def test_law_05_a_stream_cut_off_within_an_identifier_gives_none_of_it(tmp_path: Path) -> None:
    async with ScriptedEngine(streaming(chat_chunks(WORDS)[:7])) as home:
        async with running(config("openai", home.url, "mask"), tmp_path) as spillway:
            answer = await ask(spillway.port, PATHS["openai"], {**CHAT, "stream": True})
            assert "Sure: the SSN is ".startswith(text_of("openai", answer.body)) and b"078" not in answer.body
            assert rows_of(answer.body)[-1]["error"]["code"] == "truncated_answer"


async def test_law_09_a_client_that_leaves_while_events_are_held(tmp_path: Path) -> None:
    left = asyncio.get_running_loop().create_future()

    async def script(received: Received, play: Play) -> bool:
        await play.send(SSE_HEAD + chunk(b"".join(chat_chunks(["078-05"])[:2])))
        left.set_result(await play.left())
        return False

    async with ScriptedEngine(script) as home, running(config("openai", home.url, "mask"), tmp_path) as spillway:
        stream = await open_stream(spillway.port, PATHS["openai"], {**CHAT, "stream": True})
        await stream.until(b"assistant")
        gone = time.perf_counter()
        stream.close()
        assert await asyncio.wait_for(left, 2) - gone < 0.1
        await asyncio.sleep(0.02)
        await spillway.settled()
        assert outcome(spillway).ending == "abandoned"


async def test_kinds_follow_the_rules_and_the_requests_health_context(tmp_path: Path) -> None:
    words = ["Write", " to", " jo@example.org", " or", " call", " (555) 234-5678", " now", "."]
    rules = [{"name": "ours", "when": {"found": ["email"]}, "action": "allow"}]
    async with ScriptedEngine(streaming(chat_chunks(words))) as home:
        async with running(config("openai", home.url, "mask", rules=rules), tmp_path) as spillway:
            plain = await ask(spillway.port, PATHS["openai"], {**CHAT, "stream": True})
            assert text_of("openai", plain.body) == "".join(words)
            care = [{"role": "user", "content": "The patient has diabetes and takes metformin 500 mg."}]
            health = await ask(spillway.port, PATHS["openai"], {**CHAT, "messages": care, "stream": True})
            assert text_of("openai", health.body) == "Write to jo@example.org or call [PHONE] now."
