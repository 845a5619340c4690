"""Answers without usage are counted by the tokenizer of the engine that gave them: through the whole way of a request."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from client import Stream, ask, open_stream
from scripted import (
    END,
    SSE_HEAD,
    TOKENIZERS,
    Play,
    Received,
    Script,
    ScriptedEngine,
    answering,
    chat_chunks,
    chunk,
    completion,
    json_answer,
)
from stack import command, llamacpp, running

from compliance.journal import read
from compliance.records import Decision, Outcome, Stopped
from proxy.projections.ledger import Ledger
from proxy.state.charges import spent_by

PATH = "/v1/chat/completions"
STORY = "Tell me a story of a spillway in Überlingen. "
CHAT = {"model": "m", "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": STORY * 3}]}
STREAM = {**CHAT, "stream": True}
WORDS = ["The ", "quick ", "brown ", "fox "]
ROUGH = sum(map(len, WORDS)) // 4  # bytes for a token, where nobody counts


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may take longer than anybody else would wait."""
    monkeypatch.setattr("proxy.counting.PATIENCE", 20.0)


def config(url: str, kind: str = "vllm", **more: Any) -> dict[str, Any]:
    return {"engines": {"home": {"kind": kind, "replicas": [url], "models": {"m": {"id": "smoke-test"}}}}, **more}


def outcomes(directory: Path) -> list[Outcome]:
    return [one for slot in (directory / "audit").glob("slot-*") for one in read(slot) if isinstance(one, Outcome)]


def decided(directory: Path) -> list[Decision]:
    return [one for slot in (directory / "audit").glob("slot-*") for one in read(slot) if isinstance(one, Decision)]


def lines(directory: Path) -> list[dict[str, Any]]:
    (path,) = directory.rglob("ledger.db")
    ledger = Ledger(path)
    found = list(ledger.lines())
    ledger.close()
    return found


def told(count: Any, status: int = 200) -> bytes:
    """vLLM's answer of `vllm_tokenize.json`, with this count."""
    return json_answer({"count": count, "max_model_len": 1024, "tokens": [1, 2], "token_strs": None}, status)


def leaving(tokenizer: Script, words: list[str] = WORDS) -> Script:
    """An engine that streams these words and then waits for its client to leave; and its tokenizer."""

    async def script(received: Received, play: Play) -> bool:
        if received.path in TOKENIZERS:
            return await tokenizer(received, play) is not False
        await play.send(SSE_HEAD + chunk(b"".join(chat_chunks(words)[: len(words) + 1])))
        await play.left()
        return False

    return script


async def by_words(received: Received, play: Play) -> None:
    """A tokenizer of the stand-in engine: words of a text, a hundred for a prompt."""
    question = received.json()
    await play.send(told(len(question["prompt"].split()) if "prompt" in question else 100))


async def left(port: int, mark: bytes = b"fox ", body: dict[str, Any] = STREAM) -> Stream:
    """A client that has seen this much, and is gone."""
    stream = await open_stream(port, PATH, body)
    await stream.until(mark)
    stream.close()
    return stream


async def recorded(spillway: Any, directory: Path, count: int = 1) -> list[Outcome]:
    until = time.monotonic() + 20
    while len(found := outcomes(directory)) < count and time.monotonic() < until:
        await asyncio.sleep(0.01)
    return found


# --- a real engine -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with llamacpp(tmp_path_factory.mktemp("llama")) as url:
        yield url


def post(url: str, body: Any) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    return json.loads(urllib.request.urlopen(request, timeout=10).read())


def held_after(events: int, engine: str) -> Script:
    """A real engine, of whose stream so many events pass: what came is the same for everybody who looks."""
    port = int(engine.rpartition(":")[2])

    async def script(received: Received, play: Play) -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(received.raw)
        try:
            if received.path in TOKENIZERS:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split()[0])
                await play.send(head + await reader.readexactly(length))
                return True
            await reader.readuntil(b"\r\n\r\n")
            passed = b""
            while passed.count(b"\n\n") < events:
                size = int(await reader.readuntil(b"\r\n"), 16)
                passed += (await reader.readexactly(size + 2))[:-2]
            end = [n for n in range(len(passed)) if passed.startswith(b"\n\n", n)][events - 1] + 2
            await play.send(SSE_HEAD + chunk(passed[:end]))
            await play.left()
            return False
        finally:
            writer.close()

    return script


@pytest.mark.parametrize("path", [PATH, "/v1/messages"])
async def test_an_answer_that_is_left_has_the_tokens_that_its_engine_says(
    path: str, llama: str, tmp_path: Path
) -> None:
    """Exactly what llama.cpp's own tokenizer says, and marked as an estimate; also in a client's other dialect."""
    body: dict[str, Any] = {**STREAM, "max_tokens": 200, "temperature": 0}
    if path == "/v1/messages":
        body = {**body, "system": "Be brief.", "messages": CHAT["messages"][1:]}
    async with ScriptedEngine(held_after(13, llama), counts=True) as gate:
        async with running(config(gate.url, "llama.cpp"), tmp_path) as spillway:
            stream = await open_stream(spillway.port, path, body)
            seen = b""
            while len(words := said(seen)) < 12:
                seen += await stream.read_some(1)
            stream.close()
            await recorded(spillway, tmp_path)
    (line,) = lines(tmp_path)
    text = "".join(words)
    counted = await asyncio.to_thread(post, f"{llama}/tokenize", {"content": text})
    whole = await asyncio.to_thread(post, f"{llama}{PATH}", {**CHAT, "max_tokens": 1})
    assert (line["output"], line["input"]) == (len(counted["tokens"]), whole["usage"]["prompt_tokens"])
    assert (line["quality"], line["ending"], line["boundary"]) == ("estimated", "abandoned", "local")
    assert line["output"] != (len(text.encode()) + 3) // 4  # it is not what stands without a count
    asked = [request.json() for request in gate.requests if request.path == "/tokenize"]
    assert [question["content"] for question in asked] == [text]


def said(seen: bytes) -> list[str]:
    """What a client has read of an answer, in either dialect, piece by piece."""
    found = []
    for row in seen.split(b"data: ")[1:]:
        with contextlib.suppress(json.JSONDecodeError):
            event = json.loads(row.split(b"\n", 1)[0])
            if choices := event.get("choices"):
                found.append(choices[0]["delta"].get("content"))
            elif event.get("type") == "content_block_delta":
                found.append(event["delta"]["text"])
    return [text for text in found if text]


# --- stand-ins ---------------------------------------------------------------------------------------------


async def test_vllm_is_asked_as_its_api_wants_to_be_asked(tmp_path: Path) -> None:
    """Text without what a prompt begins with; a prompt by its messages and tools, so that the template is counted, too."""
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
    whole = config("", "vllm")
    async with ScriptedEngine(leaving(by_words), counts=True) as home:
        whole["engines"]["home"] |= {"replicas": [home.url], "key": {"env": "K"}}
        async with running(whole, tmp_path, environ={"K": "secret"}) as spillway:
            await left(spillway.port, body={**STREAM, "tools": tools, "chat_template_kwargs": {"deep": False}})
            (outcome,) = await recorded(spillway, tmp_path)
    assert (outcome.input, outcome.output, outcome.quality, outcome.ending) == (100, 4, "estimated", "abandoned")
    text, prompt = [request.json() for request in home.requests if request.path == "/tokenize"]
    assert text == {"model": "smoke-test", "prompt": "".join(WORDS), "add_special_tokens": False}
    assert prompt == {
        "model": "smoke-test",
        "messages": CHAT["messages"],
        "tools": tools,
        "chat_template_kwargs": {"deep": False},
    }
    assert {request.headers["authorization"] for request in home.requests} == {"Bearer secret"}


async def test_what_a_real_vllm_answered_is_understood(tmp_path: Path) -> None:
    recorded_answer = Path(os.environ.get("SPILLWAY_EVAL_DATA", "../shared/data")) / "wire" / "vllm_tokenize.json"
    if not recorded_answer.exists():
        pytest.skip("the recordings are not there")
    tokenizer = answering(recorded_answer.read_bytes())
    async with ScriptedEngine(leaving(tokenizer), counts=True) as home, running(config(home.url), tmp_path) as spillway:
        await left(spillway.port)
        (outcome,) = await recorded(spillway, tmp_path)
    assert (outcome.input, outcome.output) == (3, 3)


async def test_an_engine_that_gives_no_usage_is_asked_and_one_that_does_is_not(tmp_path: Path) -> None:
    async def script(received: Received, play: Play) -> None:
        answer = completion("The quick brown fox")
        if b"silent" in received.body:
            del answer["usage"]
        if received.path in TOKENIZERS:
            await by_words(received, play)
        elif received.json().get("stream"):
            events = chat_chunks(WORDS, usage=b"silent" not in received.body)
            await play.send(SSE_HEAD + chunk(b"".join(events)) + END)
        else:
            await play.send(json_answer(answer))

    silent = [{"role": "user", "content": "be silent"}]
    async with ScriptedEngine(script, counts=True) as home, running(config(home.url), tmp_path) as spillway:
        for body in (CHAT, STREAM):
            assert (await ask(spillway.port, PATH, body)).status == 200
        assert not [request for request in home.requests if request.path in TOKENIZERS]
        for body in (CHAT, STREAM):
            assert (await ask(spillway.port, PATH, {**body, "messages": silent})).status == 200
        found = await recorded(spillway, tmp_path, 4)
    meters = [(one.input, one.output, one.quality, one.ending) for one in found]
    assert meters[0] == (7, 2, "exact", "completed") and meters[1] == (7, 4, "exact", "completed")
    assert meters[2:] == [(100, 4, "estimated", "completed")] * 2


async def test_what_the_engine_did_say_is_not_asked_for(tmp_path: Path) -> None:
    """Usage with each event, as vLLM gives it on request: the prompt's tokens are the engine's word."""
    events = chat_chunks(WORDS)[: len(WORDS) + 1]
    usage = {"prompt_tokens": 33, "completion_tokens": 2, "total_tokens": 35}
    rows = [json.loads(event[6:]) | {"usage": usage} for event in events]

    async def script(received: Received, play: Play) -> bool:
        if received.path in TOKENIZERS:
            await by_words(received, play)
            return True
        await play.send(SSE_HEAD + chunk(b"".join([b"data: " + json.dumps(row).encode() + b"\n\n" for row in rows])))
        await play.left()
        return False

    async with ScriptedEngine(script, counts=True) as home, running(config(home.url), tmp_path) as spillway:
        await left(spillway.port)
        (outcome,) = await recorded(spillway, tmp_path)
    assert (outcome.input, outcome.output, outcome.quality) == (33, 4, "estimated")
    assert len([request for request in home.requests if request.path in TOKENIZERS]) == 1


async def down(received: Received, play: Play) -> bool:
    play.reset()
    return False


async def silent(received: Received, play: Play) -> bool:
    await play.left()
    return False


NONSENSE = [-1, 1.5, True, "4", None, 2**50, {}, "x" * 9]


@pytest.mark.parametrize(
    "tokenizer",
    [
        down,
        silent,
        answering({"detail": "Not Found"}, 404),
        answering(b"{"),
        answering([4]),
        answering({"count": 4}, 500),
        *(answering({"count": count}) for count in NONSENSE),
    ],
)
async def test_without_a_count_the_estimate_stands(
    tokenizer: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if tokenizer is silent:
        monkeypatch.setattr("proxy.counting.PATIENCE", 0.05)
    async with ScriptedEngine(leaving(tokenizer), counts=True) as home:
        async with running(config(home.url), tmp_path) as spillway:
            await left(spillway.port)
            (outcome,) = await recorded(spillway, tmp_path)
    assert [request.path for request in home.requests].count("/tokenize") >= 1
    (decision,) = decided(tmp_path)
    assert decision.attempt == outcome.attempt == 0
    assert (outcome.output, outcome.quality, outcome.ending) == (ROUGH, "estimated", "abandoned")
    assert outcome.input == len(json.dumps(STREAM)) // 4


async def test_an_engine_that_went_down_leaves_the_estimate(tmp_path: Path) -> None:
    """It broke off in mid-answer, and nothing listens there any more."""
    gone = asyncio.Event()

    async def script(received: Received, play: Play) -> bool:
        await play.send(SSE_HEAD + chunk(b"".join(chat_chunks(WORDS)[: len(WORDS) + 1])))
        await gone.wait()
        play.reset()
        return False

    async with ScriptedEngine(script, counts=True) as home, running(config(home.url), tmp_path) as spillway:
        stream = await open_stream(spillway.port, PATH, STREAM)
        await stream.until(b"fox ")
        home._server.close()
        gone.set()
        await stream.until(b"error")
        (outcome,) = await recorded(spillway, tmp_path)
        stream.close()
    assert (outcome.output, outcome.quality, outcome.ending) == (ROUGH, "estimated", "failed")


async def test_law_01_text_goes_to_the_replica_that_wrote_it_and_never_to_a_cloud(tmp_path: Path) -> None:
    """Two replicas, and a cloud that runs vLLM as well."""
    async with (
        ScriptedEngine(leaving(by_words), counts=True) as one,
        ScriptedEngine(leaving(by_words), counts=True) as two,
        ScriptedEngine(leaving(by_words), counts=True) as sky,
    ):
        whole = config("")
        whole["engines"]["home"]["replicas"] = [one.url, two.url]
        whole["engines"]["sky"] = {"kind": "vllm", "replicas": [sky.url], "boundary": "cloud", "models": {"far": {}}}
        whole["unpriced"] = {"input": "$1/M", "output": "$1/M"}
        async with running(whole, tmp_path) as spillway:
            streams = [await open_stream(spillway.port, PATH, STREAM) for _ in range(2)]
            for stream in streams:
                await stream.until(b"fox ")
            streams[0].close()
            (outcome,) = await recorded(spillway, tmp_path)
            questions = [[r for r in engine.requests if r.path in TOKENIZERS] for engine in (one, two)]
            assert sorted(map(len, questions)) == [0, 2]
            await left(spillway.port, body={**STREAM, "model": "far"})
            streams[1].close()
            found = await recorded(spillway, tmp_path, 3)
    assert [request.path for request in sky.requests] == [PATH]
    assert [one.quality for one in found if one.boundary == "cloud"] in (["estimated"], ["bounded"])
    assert [request.path for request in (*one.requests, *two.requests)].count("/tokenize") == 4
    assert outcome.output == 4


async def test_with_no_tokenizer_wanted_no_engine_is_asked(tmp_path: Path) -> None:
    async with ScriptedEngine(leaving(by_words), counts=True) as home:
        async with running(config(home.url, limits={"tokenizer": "off"}), tmp_path) as spillway:
            await left(spillway.port)
            (outcome,) = await recorded(spillway, tmp_path)
    assert outcome.output == ROUGH and [request.path for request in home.requests] == [PATH]


async def test_of_a_long_answer_the_first_part_is_asked_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A single piece of a megabyte; 64 Ki characters of it are counted.  What is larger than memory has room for is not."""
    answer = completion("word " * 200_000)
    del answer["usage"]

    async def script(received: Received, play: Play) -> None:
        await (by_words if received.path in TOKENIZERS else answering(answer))(received, play)

    async with ScriptedEngine(script, counts=True) as home, running(config(home.url), tmp_path) as spillway:
        assert (await ask(spillway.port, PATH, CHAT)).status == 200
        (outcome,) = await recorded(spillway, tmp_path)
    (question,) = [r.json() for r in home.requests if r.path in TOKENIZERS and "prompt" in r.json()]
    assert len(question["prompt"]) == 64 * 1024
    monkeypatch.setattr("proxy.counting.MAX_BYTES", 1_000_000)
    async with ScriptedEngine(script, counts=True) as home, running(config(home.url), tmp_path / "b") as spillway:
        assert (await ask(spillway.port, PATH, CHAT)).status == 200
        await recorded(spillway, tmp_path / "b")
    assert [request.path for request in home.requests] == [PATH]
    assert 128_000 >= outcome.output > 127_000  # what a model may write where nobody says: 200,000 is more


async def test_a_picture_is_not_sent_twice(tmp_path: Path) -> None:
    """Its tokens are no text; the answer's are."""
    look = [
        {"type": "text", "text": "what?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    ]
    whole = config("")
    async with ScriptedEngine(leaving(by_words), counts=True) as home:
        whole["engines"]["home"] |= {"replicas": [home.url], "models": {"m": {"vision": True}}}
        async with running(whole, tmp_path) as spillway:
            await left(spillway.port, body={**STREAM, "messages": [{"role": "user", "content": look}]})
            (outcome,) = await recorded(spillway, tmp_path)
    assert outcome.output == 4 and outcome.input != 100
    assert not [r for r in home.requests if r.path in TOKENIZERS and b"image" in r.body]


async def test_law_10_what_waits_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the bound an attempt is settled at once, by the estimate."""
    monkeypatch.setattr("proxy.counting.MAX_WAITING", 1)
    free = asyncio.Event()

    async def slowly(received: Received, play: Play) -> None:
        await free.wait()
        await by_words(received, play)

    async with ScriptedEngine(leaving(slowly), counts=True) as home, running(config(home.url), tmp_path) as spillway:
        await left(spillway.port)
        while len(home.requests) < 2:
            await asyncio.sleep(0.002)
        await left(spillway.port)
        (early,) = await recorded(spillway, tmp_path)
        free.set()
        found = await recorded(spillway, tmp_path, 2)
    assert early.output == ROUGH and sorted(one.output for one in found) == [4, ROUGH]
    assert spillway.worker.counting.waiting == 0


async def test_law_04_lines_of_one_request_stand_in_the_order_of_its_attempts(tmp_path: Path) -> None:
    """A first engine that breaks before it said anything is not counted: the ledger must see it before the second."""
    async with ScriptedEngine(down, counts=True) as home, ScriptedEngine(answering(completion())) as sky:
        whole = config(home.url)
        whole["engines"]["sky"] = {
            "kind": "openai",
            "replicas": [sky.url],
            "boundary": "cloud",
            "models": {"gpt-5.4": {}},
        }
        whole["models"] = {"m": ["home/m", "sky/gpt-5.4"]}
        async with running(whole, tmp_path) as spillway:
            assert (await ask(spillway.port, PATH, CHAT)).status == 200
            await recorded(spillway, tmp_path, 2)
    assert [(one["attempt"], one["overflow"]) for one in lines(tmp_path)] == [(0, ""), (1, "failed")]
    assert not [request for request in home.requests if request.path in TOKENIZERS]


async def test_law_03_the_sum_of_the_ledger_is_the_sum_of_the_settlements(tmp_path: Path) -> None:
    """Many leave at once, some are counted and some are not; every token budget has what the ledger has."""
    asked = 0

    async def mostly(received: Received, play: Play) -> bool | None:
        nonlocal asked
        asked += 1
        return await (down if asked % 3 == 0 else by_words)(received, play)

    budgets = [{"scope": "org", "window": "day", "tokens": 10_000_000}]
    async with ScriptedEngine(leaving(mostly), counts=True) as home:
        async with running(config(home.url, budgets=budgets), tmp_path) as spillway:
            await asyncio.gather(*(left(spillway.port) for _ in range(40)))
            await recorded(spillway, tmp_path, 40)
    found = outcomes(tmp_path)
    ((_, spent),) = spent_by(found).items()
    rows = lines(tmp_path)
    assert len(rows) == len({one["request"] for one in rows}) == 40  # law 4
    assert {one["output"] for one in rows} == {4, ROUGH} and {one["input"] for one in rows} > {100}
    assert sum(one["input"] + one["output"] for one in rows) == spent
    with contextlib.closing(sqlite3.connect(tmp_path / "state" / "budgets.db")) as db:
        assert db.execute("SELECT sum(settled), sum(outstanding) FROM shares").fetchall() == [(spent, 0)]


async def test_law_13_a_stop_records_what_still_waits(tmp_path: Path) -> None:
    """A worker that is told to stop does not wait for an engine that is silent."""
    async with ScriptedEngine(leaving(silent), counts=True) as home:
        async with running(config(home.url), tmp_path) as spillway:
            await left(spillway.port)
            while len(home.requests) < 2:
                await asyncio.sleep(0.002)
            assert outcomes(tmp_path) == []
            await spillway.worker.counting.close(0)
            assert spillway.worker.counting.waiting == 0
    records = list(read(tmp_path / "audit" / "slot-0"))
    assert isinstance(records[-1], Stopped)
    (outcome,) = [one for one in records if isinstance(one, Outcome)]
    assert (outcome.output, outcome.ending) == (ROUGH, "abandoned")


@pytest.mark.e2e
async def test_law_13_a_kill_meanwhile_leaves_one_line(tmp_path: Path) -> None:
    """It had not ended: the next start says that it was interrupted."""
    workers: list[int] = []

    async def killing(received: Received, play: Play) -> bool:
        os.kill(workers.pop(), signal.SIGKILL)
        return False

    async with ScriptedEngine(leaving(killing), counts=True) as home:
        serving = command(config(home.url, listen={"workers": 1}), tmp_path)
        started = await asyncio.to_thread(serving.__enter__)
        try:
            workers += await asyncio.to_thread(started.workers)
            stream = await open_stream(started.port, PATH, STREAM)
            await stream.until(b"fox ")
            while not decided(tmp_path):  # a local request may run ahead of its record, and a crash may lose both
                await asyncio.sleep(0.01)
            stream.close()
            (outcome,) = await recorded(None, tmp_path)
            assert (outcome.ending, outcome.cost) == ("interrupted", 0)
        finally:
            await asyncio.to_thread(serving.__exit__, None, None, None)
    assert not workers
    (line,) = lines(tmp_path)
    assert line["ending"] == "interrupted"
