"""Conversations through both dialects and back, and answers whole and streamed that say the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic.types import Message as AnthropicMessage
from anthropic.types import RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import TypeAdapter

from engines import anthropic, openai
from engines.base import Dialect
from engines.errors import Untranslatable
from engines.model import (
    Conversation,
    Done,
    Event,
    Finish,
    Image,
    Message,
    Operation,
    OutputFormat,
    Reasoning,
    ReasoningDelta,
    Request,
    Start,
    Text,
    TextDelta,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
    ToolChoice,
    ToolResult,
    Usage,
    UsageReport,
)  # fmt: skip
from engines.sse import Framer

DIALECTS: dict[str, Dialect] = {"openai": openai.DIALECT, "anthropic": anthropic.DIALECT}
TEXTS = st.text(min_size=1, max_size=10)
IDS = st.from_regex(r"[a-z0-9_-]{1,8}", fullmatch=True)
ARGUMENTS = st.dictionaries(TEXTS, st.integers(), max_size=2).map(
    lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False)
)
IMAGES = st.builds(Image, url=st.just("https://x/y.png")) | st.builds(
    Image, media_type=st.just("image/png"), data=st.just("aGk=")
)
USERS = st.lists(st.builds(Text, TEXTS) | IMAGES, min_size=1, max_size=3).map(tuple)
CALLS = st.lists(st.builds(ToolCall, IDS, IDS, ARGUMENTS), min_size=1, max_size=2, unique_by=lambda call: call.id)


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    """What both dialects can say, in the form that both give back."""
    messages = [Message("user", draw(USERS))]
    for _ in range(draw(st.integers(0, 2))):
        calls = draw(CALLS)
        messages.append(Message("assistant", (Text(draw(TEXTS)), *calls)))
        messages.append(Message("user", tuple(ToolResult(call.id, (Text(draw(TEXTS)),)) for call in calls)))
    tools = tuple(
        draw(st.lists(st.builds(Tool, IDS, TEXTS, st.just({"type": "object", "properties": {}})), max_size=2))
    )
    choice = (
        draw(
            st.sampled_from(
                [None, ToolChoice("auto"), ToolChoice("required"), ToolChoice("none"), ToolChoice("named", "f")]
            )
        )
        if tools
        else None
    )
    return Conversation(
        system=draw(st.sampled_from([(), (Text("be brief"),)])), messages=tuple(messages), stream=draw(st.booleans()), tools=tools,
        tool_choice=choice, max_output=draw(st.integers(2048, 4096)), temperature=draw(st.sampled_from([None, 0.5])),
        stop=draw(st.sampled_from([(), ("x", "y")])), output_format=draw(st.sampled_from([None, OutputFormat({"type": "object"}, None, True)])),
        user=draw(st.sampled_from([None, "u1"])),
    )  # fmt: skip


def through(dialect: Dialect, talk: Conversation) -> Conversation:
    body = dialect.render(talk, model="m", default_max_output=100)
    return dialect.conversation(dialect.parse(Operation.CHAT, body, {}))


def plain(talk: Conversation) -> Any:
    """One message for each run of a role: OpenAI's tool results are messages of their own."""
    rows: list[tuple[str, list[Any]]] = []
    for message in talk.messages:
        if rows and rows[-1][0] == message.role:
            rows[-1][1].extend(message.parts)
        else:
            rows.append((message.role, list(message.parts)))
    name = None if talk.output_format is None else talk.output_format.schema
    return (
        rows,
        talk.system,
        talk.tools,
        talk.tool_choice,
        talk.max_output,
        talk.temperature,
        talk.stop,
        name,
        talk.user,
        talk.stream,
    )


@given(talk=conversations())
def test_a_conversation_survives_both_dialects(talk: Conversation) -> None:
    assert plain(through(openai.DIALECT, talk)) == plain(talk)
    assert plain(through(anthropic.DIALECT, talk)) == plain(talk)
    assert plain(through(anthropic.DIALECT, through(openai.DIALECT, talk))) == plain(talk)


def request(dialect: str, stream: bool, **more: Any) -> Request:
    body = {"model": "mine", "max_tokens": 9, "stream": stream, "messages": [{"role": "user", "content": "hi"}], **more}
    if dialect == "openai":
        body["stream_options"] = {"include_usage": True}
    return DIALECTS[dialect].parse(Operation.CHAT, json.dumps(body).encode(), {})


@st.composite
def answers(draw: st.DrawFn) -> list[Event]:
    """One choice: reasoning, text, interleaved parallel tool calls, a finish, usage."""
    events: list[Event] = [Start("id", "m", 1)]
    events += [ReasoningDelta(0, draw(TEXTS)) for _ in range(draw(st.integers(0, 2)))]
    events += [TextDelta(0, draw(TEXTS)) for _ in range(draw(st.integers(0, 3)))]
    fragments: list[Event] = []
    count = draw(st.integers(0, 3))
    for index in range(count):
        events.append(ToolCallStart(0, index, f"call_{index}", "f"))
        text = draw(ARGUMENTS)
        cut = draw(st.integers(0, len(text)))
        fragments += [ToolCallDelta(0, index, part) for part in (text[:cut], text[cut:]) if part]
    order = draw(st.permutations(range(len(fragments))))
    position = {
        index: iter([f for f in fragments if isinstance(f, ToolCallDelta) and f.index == index])
        for index in range(count)
    }
    for index in order:  # fragments of different calls interleave, those of one call keep their order
        fragment = fragments[index]
        assert isinstance(fragment, ToolCallDelta)
        events.append(next(position[fragment.index]))
    events.append(Finish(0, "tool_calls" if count else draw(st.sampled_from(["stop", "length"]))))
    events.append(UsageReport(Usage(input=5, cache_read=2, output=7)))
    return [*events, Done()]


def meaning(events: list[Event]) -> dict[str, Any]:
    """What an answer says, however it is cut up."""
    said: dict[str, Any] = {"text": "", "reasoning": "", "calls": {}, "finish": None, "usage": None}
    for event in events:
        match event:
            case TextDelta(text=text):
                said["text"] += text
            case ReasoningDelta(text=text):
                said["reasoning"] += text
            case ToolCallStart(index=index, name=name):
                said["calls"][index] = [name, ""]
            case ToolCallDelta(index=index, arguments=arguments):
                said["calls"][index][1] += arguments
            case Finish(reason=reason):
                said["finish"] = reason
            case UsageReport(usage=usage):
                said["usage"] = usage
            case _:
                pass
    said["calls"] = [(name, json.loads(text or "{}")) for _, (name, text) in sorted(said["calls"].items())]
    return said


@pytest.mark.parametrize("name", DIALECTS)
@given(events=answers())
def test_an_answer_means_the_same_whole_and_streamed_in_either_dialect(name: str, events: list[Event]) -> None:
    dialect = DIALECTS[name]
    wanted = meaning(events)
    for stream in (True, False):
        encoder = dialect.encoder(request(name, stream), answer_id="1", created=1)
        out = b"".join(encoder.feed(event) for event in events) + encoder.flush()
        if stream:
            decoder = dialect.decoder()
            back = [event for frame in Framer().feed(out) for event in decoder.feed(frame)]
        else:
            back = list(dialect.decode_answer(Operation.CHAT, out))
        assert meaning(back) == wanted
        official(name, stream, out)


def official(name: str, stream: bool, out: bytes) -> None:
    """The official SDK's own models take what we write."""
    if not stream:
        (ChatCompletion if name == "openai" else AnthropicMessage).model_validate_json(out)
        return
    frames = [frame for frame in Framer().feed(out) if frame.data not in (None, b"[DONE]")]
    for frame in frames:
        assert frame.data is not None
        if name == "openai":
            ChatCompletionChunk.model_validate_json(frame.data)
        elif frame.event != "ping":
            TypeAdapter(RawMessageStreamEvent).validate_json(frame.data)


REFUSED_BY_ANTHROPICS_SIDE: list[tuple[dict[str, Any], str]] = [
    ({"container": "x"}, "container"),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0]"),
    ({"messages": [{"role": "user", "content": [{"type": "document", "source": {}}]}]}, "messages[0].content[0]"),
    ({"thinking": {"type": "between_tools"}}, "thinking"),
    ({"system": [{"type": "image"}]}, "system[0]"),
]
REFUSED_BY_OPENAIS_SIDE: list[tuple[dict[str, Any], str]] = [
    ({"n": 2}, "n"), ({"logprobs": True}, "logprobs"), ({"seed": 1}, "seed"), ({"audio": {}}, "audio"), ({"functions": [{}]}, "functions"),
    ({"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]}, "messages[1]"),
    ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages[0].content[0]"),
    ({"messages": [{"role": "user", "content": "a", "name": "bob"}]}, "messages[0].name"),
    ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice"), ({"response_format": {"type": "grammar"}}, "response_format"),
]  # fmt: skip


@pytest.mark.parametrize(("more", "field"), REFUSED_BY_ANTHROPICS_SIDE + REFUSED_BY_OPENAIS_SIDE)
def test_what_has_no_neutral_word_is_refused_by_its_path(more: dict[str, Any], field: str) -> None:
    name = "anthropic" if (more, field) in REFUSED_BY_ANTHROPICS_SIDE else "openai"
    with pytest.raises(Untranslatable) as refused:
        DIALECTS[name].conversation(request(name, False, **more))
    assert refused.value.field == field


def test_what_the_other_side_cannot_say_is_refused_when_rendered() -> None:
    hidden = Conversation(
        (), (Message("user", (Text("a"),)), Message("assistant", (Reasoning("", redacted="x"),))), False
    )
    unsigned = Conversation((), (Message("user", (Text("a"),)), Message("assistant", (Reasoning("hm"),))), False)
    hot = Conversation((), (Message("user", (Text("a"),)),), False, temperature=1.5)
    mode = Conversation((), (Message("user", (Text("a"),)),), False, output_format=OutputFormat())
    with pytest.raises(Untranslatable):
        openai.DIALECT.render(hidden, model="m", default_max_output=1)
    for talk in (unsigned, hot, mode):
        with pytest.raises(Untranslatable):
            anthropic.DIALECT.render(talk, model="m", default_max_output=1)


def test_meters_are_disjoint() -> None:
    body = {"id": "1", "model": "m", "choices": [], "usage": {
        "prompt_tokens": 100, "completion_tokens": 50, "prompt_tokens_details": {"cached_tokens": 80}, "completion_tokens_details": {"reasoning_tokens": 30}}}  # fmt: skip
    (usage,) = [
        e.usage
        for e in openai.DIALECT.decode_answer(Operation.CHAT, json.dumps(body).encode())
        if isinstance(e, UsageReport)
    ]
    assert usage == Usage(input=20, cache_read=80, output=50, reasoning=30)
    message = {"type": "message", "id": "1", "model": "m", "content": [], "stop_reason": "end_turn", "usage": {
        "input_tokens": 20, "cache_read_input_tokens": 80, "cache_creation_input_tokens": 10,
        "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 6}, "output_tokens": 50}}  # fmt: skip
    (usage,) = [
        e.usage
        for e in anthropic.DIALECT.decode_answer(Operation.CHAT, json.dumps(message).encode())
        if isinstance(e, UsageReport)
    ]
    assert usage == Usage(input=20, cache_read=80, cache_write_5m=4, cache_write_1h=6, output=50)
