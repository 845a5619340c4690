"""Official SDKs, unmodified: only their base URL and key differ.  The engine is the real llama.cpp server."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from scripted import (
    Play,
    Received,
    ScriptedEngine,
    answering,
    chat_chunks,
    completion,
    message,
    message_events,
    streaming,
)
from stack import Command, command, llamacpp, running

pytestmark = pytest.mark.e2e
HELLO: list[Any] = [{"role": "user", "content": "hello there"}]


@pytest.fixture(scope="module")
def spillway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """The command with two workers before a real llama.cpp, one for text and one for embeddings."""
    directory = tmp_path_factory.mktemp("sdks")
    with llamacpp(directory) as chat, llamacpp(directory, embeddings=True) as vectors:
        engines = {
            "cpu": {"kind": "llama.cpp", "replicas": [chat], "models": {"smoke-test": {"context": 2048}}},
            "vec": {"kind": "llama.cpp", "replicas": [vectors], "models": {"vectors": {"embeddings": True}}},
        }
        models = {
            "smoke-test": ["cpu/smoke-test"],
            "gpt-4o": ["cpu/smoke-test"],
            "claude-sonnet-4-6": ["cpu/smoke-test"],
            "vectors": ["vec/vectors"],
        }
        with command({"engines": engines, "models": models}, directory) as started:
            yield started


@pytest.fixture
def client(spillway: Command) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{spillway.url}/v1", api_key="any", max_retries=0) as made:
        yield made


@pytest.fixture
def claude(spillway: Command) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=spillway.url, api_key="any", max_retries=0) as made:
        yield made


def test_openai_whole(client: openai.OpenAI) -> None:
    answer = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=HELLO, max_tokens=12)
    assert answer.headers["x-spillway-target"] == "cpu/smoke-test"
    said = answer.parse()
    assert said.model == "gpt-4o"
    assert said.choices[0].finish_reason in ("stop", "length")
    assert said.usage is not None and said.usage.completion_tokens <= 12


def test_openai_streamed(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="gpt-4o", messages=HELLO, max_tokens=12, stream=True))
    assert all(chunk.model == "gpt-4o" and chunk.usage is None for chunk in chunks)
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices][-1] in ("stop", "length")
    with_usage = list(
        client.chat.completions.create(
            model="gpt-4o", messages=HELLO, max_tokens=5, stream=True, stream_options={"include_usage": True}
        )
    )
    assert with_usage[-1].usage is not None and with_usage[-1].choices == []


def test_openai_embeddings(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="vectors", input=["hello", "there"])
    assert [len(row.embedding) for row in answer.data] == [64, 64]
    assert (
        len(client.embeddings.create(model="vectors", input="hello", encoding_format="float").data[0].embedding) == 64
    )


def test_openai_models(client: openai.OpenAI) -> None:
    assert {model.id for model in client.models.list()} == {"smoke-test", "gpt-4o", "claude-sonnet-4-6", "vectors"}
    assert client.models.retrieve("gpt-4o").id == "gpt-4o"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nothing")


def test_openai_errors_are_its_own(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="nothing", messages=HELLO)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as empty:
        client.chat.completions.create(model="gpt-4o", messages=[])
    assert empty.value.param == "messages"
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "very long " * 9000}])
    assert long.value.code == "no_eligible_target"
    with pytest.raises(openai.NotFoundError):
        client.post("/no/such/path", cast_to=object)


def test_anthropic_whole(claude: anthropic.Anthropic) -> None:
    said = claude.messages.create(model="claude-sonnet-4-6", messages=HELLO, max_tokens=12, system="be brief")
    assert said.model == "claude-sonnet-4-6" and said.type == "message"
    assert said.stop_reason in ("end_turn", "max_tokens")
    assert said.usage.input_tokens + (said.usage.cache_read_input_tokens or 0) > 0
    if said.content:
        assert said.content[0].type == "text"


def test_anthropic_streamed(claude: anthropic.Anthropic) -> None:
    with claude.messages.stream(model="claude-sonnet-4-6", messages=HELLO, max_tokens=12) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == "".join(block.text for block in final.content if block.type == "text")
    assert final.stop_reason in ("end_turn", "max_tokens")
    assert final.usage.output_tokens > 0


def test_anthropic_count_tokens_and_models(claude: anthropic.Anthropic) -> None:
    assert claude.messages.count_tokens(model="claude-sonnet-4-6", messages=HELLO).input_tokens > 3
    assert "claude-sonnet-4-6" in {model.id for model in claude.models.list()}
    assert claude.models.retrieve("gpt-4o").id == "gpt-4o"


def test_anthropic_errors_are_its_own(claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        claude.messages.create(model="nothing", messages=HELLO, max_tokens=5)
    assert missing.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]
    with pytest.raises(anthropic.BadRequestError):
        claude.messages.create(model="claude-sonnet-4-6", messages=HELLO, max_tokens=5, container="x")  # type: ignore[call-overload]


def test_langchain_of_both(spillway: Command) -> None:
    from langchain_anthropic import ChatAnthropic
    from langchain_openai import ChatOpenAI, OpenAIEmbeddings

    chat = ChatOpenAI(model="gpt-4o", base_url=f"{spillway.url}/v1", api_key="any", max_retries=0, max_tokens=10)
    assert chat.invoke("hello").response_metadata["model_name"] == "gpt-4o"
    assert "".join(str(piece.content) for piece in chat.stream("hello")) is not None
    other = ChatAnthropic(model="claude-sonnet-4-6", base_url=spillway.url, api_key="any", max_retries=0, max_tokens=10)
    assert other.invoke("hello").usage_metadata["output_tokens"] > 0
    assert list(other.stream("hello"))
    vectors = OpenAIEmbeddings(
        model="vectors", base_url=f"{spillway.url}/v1", api_key="any", check_embedding_ctx_length=False
    )
    assert len(vectors.embed_query("hello")) == 64


@pytest.mark.node
def test_the_javascript_sdk(spillway: Command) -> None:
    folder = Path(__file__).parent
    if not (folder / "node_modules" / "openai").exists():
        pytest.fail("the JavaScript SDK is not installed: run `make node-sdk`")
    done = subprocess.run(
        ["node", "sdk.mjs"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "BASE_URL": f"{spillway.url}/v1"},
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["whole"] == "gpt-4o" and said["missing"] == 404
    assert said["finish"] in ("stop", "length") and said["usage"] > 0 and said["vector"] == 64


# --- across the dialects, against engines that are scripted ------------------------------------------------


TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "looks",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()


@pytest.fixture
async def clouds(tmp_path: Path) -> AsyncIterator[tuple[int, ScriptedEngine, ScriptedEngine]]:
    """Spillway before a scripted OpenAI and a scripted Anthropic; pictures may leave here."""

    async def like_openai(received: Received, play: Play) -> None:
        if b'"tools"' in received.body:
            call = {"id": "call.1", "type": "function", "function": {"name": "look", "arguments": '{"city":"Bonn"}'}}
            row = completion()
            row["choices"][0] |= {
                "finish_reason": "tool_calls",
                "message": {"role": "assistant", "content": None, "tool_calls": [call]},
            }
            await answering(row)(received, play)
        else:
            await (
                streaming(chat_chunks(["he", "llo"])) if received.json()["stream"] else answering(completion("hello"))
            )(received, play)

    async def like_anthropic(received: Received, play: Play) -> None:
        if b'"tools"' in received.body:
            row = message()
            row |= {
                "stop_reason": "tool_use",
                "content": [{"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"city": "Bonn"}}],
            }
            await answering(row)(received, play)
        else:
            await (
                streaming(message_events(["he", "llo"]))
                if received.json().get("stream")
                else answering(message("hello"))
            )(received, play)

    async with ScriptedEngine(like_openai) as one, ScriptedEngine(like_anthropic) as two:
        engines = {
            "o": {"kind": "openai", "replicas": [one.url], "boundary": "cloud", "models": {"gpt-4o": {}}},
            "a": {"kind": "anthropic", "replicas": [two.url], "boundary": "cloud", "models": {"claude-haiku-4-5": {}}},
        }
        async with running({"engines": engines, "compliance": {"opaque": "allow"}}, tmp_path) as spillway:
            yield spillway.port, one, two


async def test_the_openai_sdk_reaches_anthropic(clouds: tuple[int, ScriptedEngine, ScriptedEngine]) -> None:
    port, _, engine = clouds
    async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="any", max_retries=0) as client:
        ask = client.chat.completions.create
        said = await ask(
            model="claude-haiku-4-5",
            messages=[{"role": "system", "content": "brief"}, *HELLO],
            stop=["x"],
            temperature=0.5,
        )
        assert said.choices[0].message.content == "hello" and said.choices[0].finish_reason == "stop"
        assert said.usage is not None and said.usage.prompt_tokens == 7
        sent = engine.requests[-1].json()
        assert (
            sent["system"] == [{"type": "text", "text": "brief"}]
            and sent["stop_sequences"] == ["x"]
            and sent["max_tokens"] > 0
        )
        text = ""
        async for chunk in await ask(model="claude-haiku-4-5", messages=HELLO, stream=True):
            text += chunk.choices[0].delta.content or "" if chunk.choices else ""
        assert text == "hello"
        parts: Any = [
            {"type": "text", "text": "what"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
        ]
        called = await ask(
            model="claude-haiku-4-5",
            messages=[{"role": "user", "content": parts}],
            tools=[TOOL],
            tool_choice="required",
        )
        call = called.choices[0].message.tool_calls[0]  # type: ignore[index]
        assert (call.id, json.loads(call.function.arguments)) == ("toolu_1", {"city": "Bonn"})  # type: ignore[union-attr]
        sent = engine.requests[-1].json()
        assert sent["tool_choice"] == {"type": "any"} and sent["messages"][0]["content"][1]["source"]["data"] == PIXEL
        history: Any = [
            *HELLO,
            called.choices[0].message,
            {"role": "tool", "tool_call_id": "toolu_1", "content": "rain"},
        ]
        await ask(model="claude-haiku-4-5", messages=history)
        assert engine.requests[-1].json()["messages"][2]["content"][0]["type"] == "tool_result"


async def test_the_anthropic_sdk_reaches_openai(clouds: tuple[int, ScriptedEngine, ScriptedEngine]) -> None:
    port, engine, _ = clouds
    async with anthropic.AsyncAnthropic(base_url=f"http://127.0.0.1:{port}", api_key="any", max_retries=0) as client:
        said = await client.messages.create(
            model="gpt-4o", messages=HELLO, max_tokens=20, system="brief", stop_sequences=["x"]
        )
        assert said.content[0].text == "hello" and said.stop_reason == "end_turn"  # type: ignore[union-attr]
        assert engine.requests[-1].json()["messages"][0] == {"role": "system", "content": "brief"}
        async with client.messages.stream(model="gpt-4o", messages=HELLO, max_tokens=20) as stream:
            assert await stream.get_final_text() == "hello"
            assert (await stream.get_final_message()).usage.output_tokens == 2
        tool: Any = {"name": "look", "input_schema": {"type": "object"}}
        called = await client.messages.create(
            model="gpt-4o", messages=HELLO, max_tokens=20, tools=[tool], tool_choice={"type": "any"}
        )
        block = called.content[0]
        assert (block.type, block.id, block.input, called.stop_reason) == (
            "tool_use",
            "call_1",
            {"city": "Bonn"},
            "tool_use",
        )  # type: ignore[union-attr]
        result: Any = {"type": "tool_result", "tool_use_id": "call_1", "content": "rain", "is_error": True}
        history: Any = [*HELLO, {"role": "assistant", "content": called.content}, {"role": "user", "content": [result]}]
        await client.messages.create(model="gpt-4o", messages=history, max_tokens=20)
        assert engine.requests[-1].json()["messages"][2] == {
            "role": "tool",
            "tool_call_id": "call_1",
            "content": "Error: rain",
        }


UNTRANSLATABLE: list[tuple[str, dict[str, Any], str]] = [
    ("claude-haiku-4-5", {"seed": 1}, "seed"),
    ("claude-haiku-4-5", {"n": 2}, "n"),
    ("claude-haiku-4-5", {"response_format": {"type": "json_object"}}, "response_format"),
    ("claude-haiku-4-5", {"frequency_penalty": 0.5}, "frequency_penalty"),
    ("claude-haiku-4-5", {"extra_body": {"unheard_of": 1}}, "unheard_of"),
]


@pytest.mark.parametrize(("model", "options", "field"), UNTRANSLATABLE, ids=[row[2] for row in UNTRANSLATABLE])
async def test_what_the_other_side_cannot_express_is_refused_not_dropped(
    model: str, options: dict[str, Any], field: str, clouds: tuple[int, ScriptedEngine, ScriptedEngine]
) -> None:
    port, _, engine = clouds
    async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="any", max_retries=0) as client:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(model=model, messages=HELLO, **options)
        assert refused.value.code in ("untranslatable", "no_eligible_target")
        if refused.value.code == "untranslatable":
            assert field in refused.value.message
        assert not engine.requests
