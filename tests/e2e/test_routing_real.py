"""Routing on real engines, all of it at once: two llama.cpp servers as small and large, and a cloud that records every byte.

What decisions alone do over them is in `test_decisions`; here routes, a calibrated complexity and answers that are read
decide together, in the command's own processes, and what happens is what `spillway explain` says beforehand.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import httptools
import openai
import pytest
from client import ask
from outcomes_made import made_rows
from routes_made import CODING_AND_CARDS as ROUTES
from scripted import Play, Received, ScriptedEngine, answering, chat_chunks, completion, streaming
from stack import command, llamacpp, running, settings_from
from typer.testing import CliRunner

from compliance.journal import read
from compliance.records import Decision, Judged, Outcome
from proxy.cli import app
from proxy.explaining import Explainer

PATH = "/v1/chat/completions"
SSN = "123-45-6789"
CUT: dict[str, Any] = {"max_tokens": 4, "temperature": 0}
"""The tiny model never ends by itself: an answer of so many tokens is cut short."""
WHOLE: dict[str, Any] = {"max_tokens": 60, "temperature": 0, "stop": [f"{letter} " for letter in "adefghlmnorsty"]}
"""With these, what it says is whole, and now and then there is some of it."""


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    directory = tmp_path_factory.mktemp("engines")
    with llamacpp(directory) as small, llamacpp(directory) as large:
        yield small, large


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of prompts, calibrated by the command from made-up labels."""
    directory = tmp_path_factory.mktemp("scorer")
    labels, made = directory / "labels.jsonl", directory / "scorer.npz"
    labels.write_text("".join([json.dumps(row) + "\n" for row in made_rows(300)]))
    result = CliRunner().invoke(app, ["calibrate", "--strong-share", "30%", "--labels", str(labels), "-o", str(made)])
    assert result.exit_code == 0, result.output
    return made


def engines_of(small: str, large: str, cloud: str) -> dict[str, Any]:
    return {
        "small": {"kind": "llama.cpp", "replicas": [small], "models": {"smoke-test": {}}},
        "large": {"kind": "llama.cpp", "replicas": [large], "models": {"smoke-test": {}}},
        "sky": {"kind": "openai", "replicas": [cloud], "boundary": "cloud", "models": {"gpt-4o": {}}},
    }


def up(*to: str) -> dict[str, Any]:
    return {"to": list(to), "share": "100%"}


def config(small: str, large: str, cloud: str, **more: Any) -> dict[str, Any]:
    everyone = ["auto", "gpt-4o"]
    return {
        "engines": engines_of(small, large, cloud),
        "models": {"auto": {"route": True}, "gpt-4o": ["sky/gpt-4o", "large/smoke-test"]},
        "routes": ROUTES,
        "decisions": [
            {"name": "records", "models": everyone, "when": {"found": "pii"}, "use": ["large/smoke-test"],
             "otherwise": "refuse", "priority": 5},
            {"name": "code", "models": everyone, "when": {"route": "coding"}, "use": ["large/smoke-test"],
             "escalate": up("sky/gpt-4o")},
            {"name": "hard", "models": everyone, "when": {"complexity": {"over": 70}}, "use": ["sky/gpt-4o"]},
            {"name": "rest", "models": everyone, "use": ["small/smoke-test"],
             "escalate": up("large/smoke-test", "sky/gpt-4o")},
        ],
        **more,
    }  # fmt: skip


def chat(text: str, model: str = "auto", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def records(directory: Path, kind: type[Any]) -> list[Any]:
    return [r for slot in (directory / "audit").glob("slot-*") for r in read(slot) if isinstance(r, kind)]


def of_request(directory: Path, kind: type[Any], request: str) -> list[Any]:
    return sorted([r for r in records(directory, kind) if r.request == request], key=lambda record: record.attempt)


async def direct(url: str, body: dict[str, Any]) -> Any:
    """What an engine itself says."""
    port = url.rpartition(":")[2]
    return (await ask(int(port), PATH, {**body, "model": "smoke-test"})).json()


@asynccontextmanager
async def recording(url: str) -> AsyncIterator[tuple[str, bytearray]]:
    """A wire to an engine that keeps what comes back over it: (its own address, the bytes)."""
    kept = bytearray()
    port = int(url.rpartition(":")[2])

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, keep: bool) -> None:
        try:
            while data := await reader.read(65536):
                if keep:
                    kept.extend(data)
                writer.write(data)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, to = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(carry(reader, to, False), carry(back, writer, True))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", kept
    finally:
        server.close()


class _Bodies:
    """The bodies of answers, one after the other."""

    def __init__(self, wire: bytes) -> None:
        self.all: list[bytes] = []
        parser = httptools.HttpResponseParser(self)
        parser.feed_data(wire)

    def on_message_begin(self) -> None:
        self.all.append(b"")

    def on_body(self, data: bytes) -> None:
        self.all[-1] += data


# --- answers that are read ----------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_a_doubtful_answer_of_the_small_engine_goes_up_to_the_large_one(
    stream: bool, engines: tuple[str, str], tmp_path: Path
) -> None:
    """Asked with the official SDKs in both dialects; the large engine's answer is what they get, and both are metered."""
    expected = (await direct(engines[1], chat("hello there", **CUT)))["choices"][0]["message"]["content"]
    async with ScriptedEngine(answering(completion())) as cloud:
        async with running(
            config(*engines, cloud.url, routes=[], decisions=[_only("large/smoke-test")]), tmp_path
        ) as spillway:
            texts = [await _with_openai(spillway.url, stream), await _with_anthropic(spillway.url, stream)]
            await spillway.settled()
        assert not cloud.requests
    assert texts == [expected, expected]
    for judged in records(tmp_path, Judged):
        assert (judged.why, judged.fault, judged.given, judged.target) == (
            "up",
            "it is cut short",
            1,
            "small/smoke-test",
        )
        low, high = of_request(tmp_path, Outcome, judged.request)
        assert (low.target, low.ending, low.committed) == ("small/smoke-test", "completed", False)
        assert (high.target, high.ending, high.committed) == ("large/smoke-test", "completed", True)
        assert (low.output, high.output) == (4, 4) and low.quality == high.quality == "exact"
        assert low.input + low.cache_read == high.input + high.cache_read > 0
    assert len(records(tmp_path, Judged)) == 2


def _only(*to: str) -> dict[str, Any]:
    return {"name": "all", "use": ["small/smoke-test"], "otherwise": "refuse", "escalate": up(*to)}


async def _with_openai(url: str, stream: bool) -> str:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        asked: Any = {"model": "auto", "messages": [{"role": "user", "content": "hello there"}], **CUT}
        answer = await client.chat.completions.with_raw_response.create(**asked, stream=stream)
        assert answer.headers["x-spillway-target"] == "large/smoke-test"
        if not stream:
            return str(answer.parse().choices[0].message.content)
        chunks = [chunk async for chunk in answer.parse()]
        return "".join([choice.delta.content or "" for chunk in chunks for choice in chunk.choices])


async def _with_anthropic(url: str, stream: bool) -> str:
    async with anthropic.AsyncAnthropic(base_url=url, api_key="none", max_retries=0) as client:
        asked: Any = {"model": "auto", "messages": [{"role": "user", "content": "hello there"}], "max_tokens": 4}
        asked["extra_body"] = {"temperature": 0}
        if not stream:
            message = await client.messages.create(**asked)
        else:
            async with client.messages.stream(**asked) as events:
                message = await events.get_final_message()
        assert message.stop_reason == "max_tokens"
        return "".join([block.text for block in message.content if block.type == "text"])


@pytest.mark.parametrize("stream", [False, True])
async def test_law_07_a_good_answer_of_a_real_engine_is_given_byte_for_byte(
    stream: bool, engines: tuple[str, str], tmp_path: Path
) -> None:
    """The bytes on the engine's own wire, with its timings and whatever else it says."""
    body = chat("hello there", "smoke-test", max_tokens=40, temperature=0, stop=[" through"], stream=stream)
    if stream:
        body["stream_options"] = {"include_usage": True}
    said = (await direct(engines[0], {**body, "stream": False, "stream_options": None}))["choices"][0]
    assert said["finish_reason"] == "stop" and said["message"]["content"].strip()
    async with ScriptedEngine(answering(completion())) as cloud, recording(engines[0]) as (small, wire):
        whole = config(small, engines[1], cloud.url, routes=[], models={"smoke-test": ["small/smoke-test"]})
        whole["decisions"] = [{**_only("large/smoke-test", "sky/gpt-4o"), "models": ["smoke-test"]}]
        async with running(whole, tmp_path) as spillway:
            answer = await ask(spillway.port, PATH, body)
            await spillway.settled()
        assert not cloud.requests
    assert (answer.status, answer.headers["x-spillway-target"]) == (200, "small/smoke-test")
    assert answer.body in _Bodies(bytes(wire)).all and len(answer.body) > 100
    (judged,) = records(tmp_path, Judged)
    assert (judged.why, judged.given) == ("good", 0)


# --- all of it at once --------------------------------------------------------------------------------------

PROMPTS = [
    "please fix a bug in my module",
    "I lost my card yesterday",
    "what about the weather",
    *[row["text"] for row in made_rows(24, seed=5)],
]
NAMES = ["auto", "gpt-4o", "auto:cheap", "auto:best", "coding", "cards"]


async def test_what_explain_says_is_what_happens(engines: tuple[str, str], scorer: Path, tmp_path: Path) -> None:
    """Routes, complexity and answers decide between two engines and a cloud, for every name that may be asked for.

    Two workers of the command serve.  Whether an answer is doubtful is asked of the engine itself: is it cut short?
    """
    bodies = [
        chat(
            text,
            NAMES[number % len(NAMES)] if number % 2 else "auto",
            stream=number % 4 == 0,
            **(WHOLE if number % 3 == 1 else CUT),
        )
        for number, text in enumerate(PROMPTS)
    ]
    urls = dict(zip(("small/smoke-test", "large/smoke-test"), engines, strict=True))
    async with ScriptedEngine(_cloud) as cloud:
        whole = config(*engines, cloud.url, complexity={"scorer": str(scorer)})
        said = await asyncio.to_thread(_explained, whole, tmp_path, bodies)
        with command(whole, tmp_path, patience=120) as spillway:
            answers = [await ask(spillway.port, PATH, body) for body in bodies]
    served: dict[str, set[str]] = {}
    for body, row, answer in zip(bodies, said, answers, strict=True):
        option, first = row["escalation"], row["ranked"][0]
        doubtful = option is not None and await _cut_short(urls[first], body)
        expected = option["to"][0] if doubtful else first
        assert (answer.status, answer.headers["x-spillway-target"]) == (200, expected), body
        request = answer.headers["x-spillway-request-id"]
        decisions, judged = of_request(tmp_path, Decision, request), of_request(tmp_path, Judged, request)
        assert [one.target for one in decisions] == list(dict.fromkeys([first, expected]))
        assert decisions[0].decision == (row["decided"]["matched"] or "")
        assert [(one.why, one.given) for one in judged] == [("up", 1) if doubtful else ("good", 0)] * (
            option is not None
        )
        served.setdefault(decisions[0].decision, set()).add(expected)
    assert served["rest"] == {"small/smoke-test", "large/smoke-test"}  # the premise: each of them decided something
    assert served["code"] >= {"sky/gpt-4o"} and served["hard"] == {"sky/gpt-4o"}


async def _cut_short(url: str, body: dict[str, Any]) -> bool:
    said = (await direct(url, {**body, "stream": False}))["choices"][0]
    return said["finish_reason"] == "length" or not said["message"]["content"].strip()


async def _cloud(received: Received, play: Play) -> None:
    if received.json().get("stream"):
        await streaming(chat_chunks(["from ", "above"]))(received, play)
    else:
        await answering(completion("from above"))(received, play)


def _explained(whole: dict[str, Any], directory: Path, bodies: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    loop = asyncio.new_event_loop()
    explainer = Explainer(settings_from(whole, directory / "explained"), loop)
    try:
        return [explainer.explain("openai.chat", json.dumps(body).encode()) for body in bodies]
    finally:
        loop.close()


async def test_law_01_phi_stays_whatever_routes_complexity_and_answers_say(
    engines: tuple[str, str], scorer: Path, tmp_path: Path
) -> None:
    """Every decision wants the cloud, and every answer is doubtful: nothing of it leaves, and it is answered at home."""
    decisions = [
        {
            "name": "code",
            "models": ["auto", "gpt-4o"],
            "when": {"route": "coding"},
            "use": ["sky/gpt-4o", "large/smoke-test"],
        },
        {
            "name": "hard",
            "models": ["auto", "gpt-4o"],
            "when": {"complexity": {"over": 50}},
            "use": ["sky/gpt-4o", "large/smoke-test"],
        },
        {"name": "rest", "models": ["auto", "gpt-4o"], "use": ["small/smoke-test"], "escalate": up("sky/gpt-4o")},
    ]
    texts = [f"{text} The patient's ssn is {SSN}." for text in PROMPTS[:12]]
    async with ScriptedEngine(_cloud) as cloud:
        whole = config(*engines, cloud.url, complexity={"scorer": str(scorer)}, decisions=decisions)
        with command(whole, tmp_path, patience=120) as spillway:
            for number, text in enumerate(texts):
                body = chat(text, NAMES[number % len(NAMES)], stream=bool(number % 2), **CUT)
                answer = await ask(spillway.port, PATH, body)
                assert answer.status == 200 and answer.headers["x-spillway-target"].endswith("/smoke-test"), body
            harmless = await ask(spillway.port, PATH, chat("what about the weather", **CUT))
            assert harmless.headers["x-spillway-target"] == "sky/gpt-4o"  # the premise: it would have gone up
        assert SSN.encode() not in cloud.raw and len([one for one in cloud.requests if one.method == "POST"]) == 1
    assert {one.why for one in records(tmp_path, Judged)} == {"boundary", "up"}
    assert {one.boundary for one in records(tmp_path, Decision) if one.findings} == {"local"}


async def test_a_classifier_that_is_always_too_slow_leaves_the_declared_default(
    engines: tuple[str, str], scorer: Path, tmp_path: Path
) -> None:
    """No classifier answers in a microsecond: every request that asks it is served by the default, and its record says why."""
    decisions = [
        {"name": "plain", "when": {"structure": "code"}, "use": ["large/smoke-test"]},
        {"name": "cards", "when": {"route": "cards"}, "use": ["sky/gpt-4o"]},
        {"name": "rest", "use": ["sky/gpt-4o"]},
    ]
    routing = {"default": ["small/smoke-test"], "deadline": "0.001ms"}
    async with ScriptedEngine(_cloud) as cloud:
        whole = config(*engines, cloud.url, decisions=decisions, routing=routing)
        with command(whole, tmp_path, patience=120) as spillway:
            slow = await asyncio.gather(*[ask(spillway.port, PATH, chat("I lost my card", **CUT)) for _ in range(8)])
            quick = await ask(spillway.port, PATH, chat("```x = 1```", **CUT))  # asks no classifier
        assert not cloud.requests
    assert {(answer.status, answer.headers["x-spillway-target"]) for answer in slow} == {(200, "small/smoke-test")}
    assert quick.headers["x-spillway-target"] == "large/smoke-test"
    for answer in slow:
        (record,) = of_request(tmp_path, Decision, answer.headers["x-spillway-request-id"])
        assert (record.routing, record.decision) == ("routing default", "")
        assert [row for row in record.signals if row.startswith("fault=")] == ["fault=route took longer than 0 ms"]
