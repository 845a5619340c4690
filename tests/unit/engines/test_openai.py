"""OpenAI's dialect: what is read of a request, the edits, the decoder on what engines really send, errors."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import MalformedAnswer, Untranslatable
from engines.model import (
    BadRequest,
    Conversation,
    Done,
    ErrorInfo,
    Event,
    Failed,
    Finish,
    Frame,
    Opaque,
    Operation,
    Ping,
    ReasoningDelta,
    ReasoningSeal,
    RefusalDelta,
    Request,
    Start,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
    UsageReport,
)
from engines.openai import DIALECT

HELLO = [{"role": "user", "content": "hi"}]


def body(**more: Any) -> bytes:
    return json.dumps({"model": "small", "messages": HELLO, **more}).encode()


def parse(**more: Any) -> Request:
    return DIALECT.parse(Operation.CHAT, body(**more), {})


# --- requests ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "needs"),
    [
        ({}, set()),
        ({"tools": [{"type": "function"}]}, {"tools"}),
        ({"functions": [{"name": "f"}]}, {"tools"}),
        ({"tools": []}, set()),
        ({"logprobs": True}, {"logprobs"}),
        ({"response_format": {"type": "json_schema"}}, {"json_schema"}),
        ({"response_format": {"type": "json_object"}}, {"json_mode"}),
        ({"response_format": {"type": "text"}}, set()),
        ({"reasoning_effort": "high"}, set()),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}, {"type": "input_audio"}, {"type": "file"}]}]}, {"vision", "audio", "documents"}),
        ({"messages": [{"role": "user", "content": [{"type": []}, {"type": "of the future"}]}]}, set()),
    ],
)  # fmt: skip
def test_what_a_request_needs(more: dict[str, Any], needs: set[str]) -> None:
    assert parse(**more).needs == needs | {"chat"}


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"model": "x" * 257}, "model"),
        ({"model": 5}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [1]}, "messages[0]"),
        ({"messages": [*HELLO, {"role": "user", "content": 5}]}, "messages[1].content"),
        ({"messages": [{"role": "user", "content": ["hi"]}]}, "messages[0].content[0]"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": []}, "stream_options"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"max_completion_tokens": True}, "max_completion_tokens"),
        ({"n": 1.5}, "n"),
    ],
)
def test_a_wrong_type_is_named_by_its_path(more: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        parse(**more)
    assert refused.value.param == param


def test_a_key_that_stands_twice_is_refused() -> None:
    raw = b'{"model":"small","messages":[{"role":"user","content":"a","content":"b"}]}'
    with pytest.raises(BadRequest) as refused:
        DIALECT.parse(Operation.CHAT, raw, {})
    assert refused.value.param == "messages[0].content"


@pytest.mark.parametrize("given_input", ["a", ["a", "b"], [1, 2], [[1, 2], [3]]])
def test_embeddings(given_input: Any) -> None:
    raw = json.dumps({"model": "e", "input": given_input, "encoding_format": "base64", "dimensions": 8}).encode()
    request = DIALECT.parse(Operation.EMBEDDINGS, raw, {})
    assert (request.needs, request.stream, request.max_output) == ({"embeddings"}, False, 0)
    assert DIALECT.edit(request, model="e", ask_usage=True) == (raw, ())
    answer = b'{"object":"list","data":[{"index":0,"embedding":"AAAA"}],"model":"e","usage":{"prompt_tokens":3,"total_tokens":3}}'
    assert DIALECT.decode_answer(Operation.EMBEDDINGS, answer) == (UsageReport(Usage(input=3)), Done())


# --- edits ------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(['"model":"small"', '\\"model":"small"']),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["model", "stream_options", "include_usage", 'x"model', "é"]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
STYLES: list[dict[str, Any]] = [{}, {"indent": 2}, {"separators": (",", ":")}, {"ensure_ascii": False}]


@given(
    extra=st.dictionaries(st.sampled_from(["tools", "metadata", 'x"model', "zz"]), JSON, max_size=3),
    options=st.sampled_from(
        [..., None, {}, {"include_usage": False}, {"include_usage": True}, {"other": {"model": 1}}]
    ),
    order=st.randoms(use_true_random=False),
    style=st.sampled_from(STYLES),
    stream=st.booleans(),
    model=st.sampled_from(["small", "an/other-é"]),
)
def test_law_07_an_edit_changes_what_it_names_and_nothing_else(
    extra: dict[str, Any], options: Any, order: Any, style: dict[str, Any], stream: bool, model: str
) -> None:
    members = [("model", "small"), ("messages", HELLO), ("stream", stream), ("temperature", 0.70), *extra.items()]
    if options is not ...:
        members.append(("stream_options", options))
    order.shuffle(members)
    value = dict(members)
    raw = json.dumps(value, **style).encode("utf-8", "surrogatepass")
    try:
        request = DIALECT.parse(Operation.CHAT, raw, {})
    except BadRequest:
        return  # a lone surrogate
    out, edits = DIALECT.edit(request, model=model, ask_usage=True)
    if not edits:
        assert out is raw
        return
    expected = {**value, "model": model}
    if "usage_option" in edits:
        expected["stream_options"] = {**(value.get("stream_options") or {}), "include_usage": True}
        assert stream and not request.wants_usage
    assert json.loads(out) == expected
    assert ("model_alias" in edits) == (model != "small")
    # All that differs lies in one span for each edit: take the edited values out of both, and the rest is equal.
    assert skeleton(out, {"model", "stream_options"}) == skeleton(raw, {"model", "stream_options"})


def skeleton(raw: bytes, without: set[str]) -> list[str]:
    """The top-level members' own text, in order, but for those named: a reader of its own, on json's scanner."""
    text = raw.decode("utf-8", "surrogatepass")
    decode = json.JSONDecoder().raw_decode
    rows = []
    at = text.index("{") + 1
    while True:
        start = at
        while text[at] in " \t\r\n":
            at += 1
        if text[at] == "}":
            return rows
        key, at = decode(text, at)
        at = text.index(":", at) + 1
        while text[at] in " \t\r\n":
            at += 1
        _, at = decode(text, at)
        if key not in without:
            rows.append(text[start:at].strip())
        while text[at] in " \t\r\n":
            at += 1
        at += text[at] == ","


@pytest.mark.parametrize(
    ("raw", "edited"),
    [
        (b'{"model":"small","messages":[{}],"stream":true}', b'{"model":"small","messages":[{}],"stream":true,"stream_options":{"include_usage":true}}'),
        (b'{"stream_options": null ,"model":"small","messages":[{}],"stream":true}', b'{"stream_options": {"include_usage":true} ,"model":"small","messages":[{}],"stream":true}'),
        (b'{"stream_options":{"include_usage" : false},"model":"small","messages":[{}],"stream":true}', b'{"stream_options":{"include_usage" : true},"model":"small","messages":[{}],"stream":true}'),
        (b'{"stream_options":{ "x": 1e2 },"model":"small","messages":[{}],"stream":true}', b'{"stream_options":{ "x": 1e2,"include_usage":true },"model":"small","messages":[{}],"stream":true}'),
    ],
)  # fmt: skip
def test_law_07_usage_is_asked_for_in_place(raw: bytes, edited: bytes) -> None:
    request = DIALECT.parse(Operation.CHAT, raw, {})
    assert DIALECT.edit(request, model="small", ask_usage=True) == (edited, ("usage_option",))
    assert DIALECT.edit(request, model="small", ask_usage=False) == (raw, ())


def test_an_alias_spelled_in_escapes_is_found() -> None:
    raw = b'{"tools":[{"model":"small"}],"mod\\u0065l":"small","messages":[{}],"seed":1.0e0}'
    request = DIALECT.parse(Operation.CHAT, raw, {})
    out, _ = DIALECT.edit(request, model="big", ask_usage=True)
    assert out == raw.replace(b'\\u0065l":"small"', b'\\u0065l":"big"')


def test_the_clients_model_is_restored_where_it_stands_and_nowhere_else() -> None:
    frame = b'data: {"id":"1","model":"gguf","choices":[{"delta":{"content":"\\"model\\":\\"gguf\\""}}]}\n\n'
    assert DIALECT.restore_model(frame, "mine") == frame.replace(b'"model":"gguf"', b'"model":"mine"', 1)
    for raw in (
        b": ping\n\n",
        b"data: [DONE]\n\n",
        b'data: {"error":{"model":"gguf"}}\n\n',
        b'data: {"usage":null}\n\n',
    ):
        assert DIALECT.restore_model(raw, "mine") is raw


# --- answers ----------------------------------------------------------------------------------------------


def feed(*chunks: Any) -> list[Event]:
    decoder = DIALECT.decoder()
    out: list[Event] = []
    for chunk in chunks:
        data = chunk if isinstance(chunk, bytes) else json.dumps(chunk).encode()
        out += decoder.feed(Frame(b"data: %b\n\n" % data, "", data))
    return out


def chunk(*, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"id": "1", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


START = Start("1", "m", 0)


@pytest.mark.parametrize(
    ("delta", "event"),
    [
        ({"content": "a"}, TextDelta(0, "a")),
        ({"reasoning_content": "a"}, ReasoningDelta(0, "a")),  # llama.cpp, DeepSeek
        ({"reasoning": "a"}, ReasoningDelta(0, "a")),  # vLLM
        ({"refusal": "a"}, RefusalDelta(0, "a")),
        ({"audio": {"id": "x", "transcript": "a"}}, Opaque("audio", carries_text=True, text="a")),
        ({"function_call": {"name": "f", "arguments": "{}"}}, Opaque("function_call", carries_text=True, text="{}")),
    ],
)
def test_what_a_delta_says(delta: dict[str, Any], event: Event) -> None:
    assert feed(chunk(**delta)) == [START, event]


@pytest.mark.parametrize(
    "said", [{"content": None}, {"content": ""}, {"role": "assistant"}, {"tool_calls": None}, {"of the future": 1}]
)
def test_a_delta_that_says_nothing(said: dict[str, Any]) -> None:
    assert feed(chunk(**said), chunk(**said)) == [START, Ping()]


def test_azure_begins_with_no_choices_and_no_id() -> None:
    first = {"id": "", "model": "", "choices": [], "prompt_filter_results": [{}]}
    assert feed(first, chunk(content="a")) == [Ping(), START, TextDelta(0, "a")]


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("tool_calls", "tool_calls"),
        ("function_call", "tool_calls"),
        ("content_filter", "content_filter"),
    ],
)
def test_finish_reasons(word: str, reason: Any) -> None:
    assert feed(chunk(finish=word)) == [START, Finish(0, reason)]


def test_law_05_a_reason_that_is_not_known_is_never_translated_into_success() -> None:
    """vLLM ends an aborted request with "abort": the choice has ended, but how cannot be said in other words."""
    opaque = Opaque("finish_reason", carries_text=True, text="abort")
    assert feed(chunk(finish="abort")) == [START, opaque, Finish(0, "stop")]
    whole = b'{"id":"1","model":"m","choices":[{"index":0,"message":{"content":"a"},"finish_reason":null}]}'
    assert Opaque("finish_reason", carries_text=True, text="none") in DIALECT.decode_answer(Operation.CHAT, whole)


def call(arguments: str | None = None, **more: Any) -> dict[str, Any]:
    name = more.pop("name", None)
    return {**more, "function": {"arguments": arguments, **({"name": name} if name else {})}}


A = [ToolCallStart(0, 0, "a", "f"), ToolCallDelta(0, 0, "{}")]
B = [ToolCallStart(0, 1, "b", "g"), ToolCallDelta(0, 1, "[]")]


@pytest.mark.parametrize(
    "streamed",
    [
        [[call("", index=0, id="a", name="f")], [call("{}", index=0)], [call("", index=1, id="b", name="g")], [call("[]", index=1)]],
        [[call("{}", index=0, id="a", name="f"), call("[]", index=1, id="b", name="g")]],
        [[call("{}", index=0, id="a", name="f")], [call("[]", index=0, id="b", name="g")]],  # every call at index 0
        [[call("{}", id="a", name="f")], [call("[]", id="b", name="g")]],  # no index
        [[call("{}", id="a", name="f"), call("[]", id="b", name="g")]],
        [[call("", id="a", name="f")], [call("{}", id="a")], [call("", id="b", name="g")], [call("[]")]],
        [[call("{}", index=0, id="a", name="f")], [call(None, index=0, id="a", name="f")], [call("[]", index=1, id="b", name="g")]],
    ],
)  # fmt: skip
def test_tool_calls_are_told_apart_however_an_engine_numbers_them(streamed: list[Any]) -> None:
    events = feed(*(chunk(tool_calls=calls) for calls in streamed))
    assert [event for event in events if not isinstance(event, Ping)] == [START, *A, *B]


def test_tool_calls_without_ids_or_numbers_get_their_own() -> None:
    events = feed(chunk(tool_calls=[call("{}", name="f"), call("[]", name="g", id="")]))
    assert [event.index for event in events if isinstance(event, ToolCallStart)] == [0, 1]
    assert len({event.id for event in events if isinstance(event, ToolCallStart)}) == 2
    message = {"tool_calls": [call("{}", name="f", id=""), call("[]", name="f", id="")]}
    whole = json.dumps({"id": "1", "choices": [{"message": message, "finish_reason": "tool_calls"}]}).encode()
    events = list(DIALECT.decode_answer(Operation.CHAT, whole))
    assert [event.index for event in events if isinstance(event, ToolCallDelta)] == [0, 1]


def test_law_10_tool_calls_are_bounded() -> None:
    calls = [call("{}", index=number, id=f"c{number}", name="f") for number in range(5000)]
    with pytest.raises(MalformedAnswer):
        feed(chunk(tool_calls=calls))


def test_usage_alone_and_with_choices() -> None:
    row = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": None, "completion_tokens_details": None}
    usage = Usage(input=9, output=2)
    assert feed({"id": "1", "model": "m", "choices": [], "usage": row}) == [START, UsageReport(usage, alone=True)]
    assert feed({**chunk(content="a"), "usage": row}) == [START, TextDelta(0, "a"), UsageReport(usage)]


@pytest.mark.parametrize("count", [-1, 2**41, 10**30, "9", 1.5])
def test_law_03_a_meter_that_is_no_count_is_not_settled(count: Any) -> None:
    with pytest.raises(MalformedAnswer):
        feed({"id": "1", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": count}})


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        ({"message": "busy", "type": "Service Unavailable", "param": None, "code": 503}, 503, "overloaded"),
        ({"message": "slow down", "type": "requests", "code": "rate_limit_exceeded"}, 429, "rate_limit"),
        ({"message": "too long", "code": 400}, 400, "invalid_request"),
        ({"message": "x", "code": 7}, 500, "api"),
        ({"message": "x", "code": True}, 500, "api"),
        ("it broke", 500, "api"),
        ({}, 500, "api"),
    ],
)
def test_an_error_inside_a_stream_of_status_200(error: Any, status: int, kind: str) -> None:
    (event,) = feed({"error": error})
    assert isinstance(event, Failed)
    assert (event.error.status, event.error.type) == (status, kind)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"1", b'{"choices":5}', b'{"choices":[{"delta":{"content":"\xff"}}]}', b"[" * 100_000]
)
def test_what_is_no_chunk_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedAnswer):
        feed(data)


# --- errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "raw", "expected"),
    [
        (400, b'{"error":{"code":400,"message":"too long","type":"exceed_context_size_error","n_ctx":2048}}', ErrorInfo(400, "invalid_request", "too long", "400")),
        (404, b'{"error":{"message":"no such model","type":"NotFoundError","param":"model","code":404}}', ErrorInfo(404, "not_found", "no such model", "404", "model")),
        (429, b'{"error":{"message":"m","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}', ErrorInfo(429, "rate_limit", "m", "insufficient_quota")),
        (401, b'{"error":{"message":"m","type":"authentication_error","param":null,"code":null}}', ErrorInfo(401, "authentication", "m", "authentication_error")),
        (503, b"<html>busy</html>", ErrorInfo(503, "overloaded", "the engine reported an error")),
        (504, b"", ErrorInfo(504, "timeout", "the engine reported an error")),
        (500, b"\xff\xfe", ErrorInfo(500, "api", "the engine reported an error")),
        (500, b"[" * 100_000, ErrorInfo(500, "api", "the engine reported an error")),
    ],
)  # fmt: skip
def test_errors_in_neutral_words(status: int, raw: bytes, expected: ErrorInfo) -> None:
    assert DIALECT.decode_error(status, {}, raw) == expected


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("3", 3.0), ("0.5", 0.5), ("0", 0.0), ("-1", None), ("nan", None), ("inf", None), ("1e300", None), ("Wed, 21 Oct 2026 07:28:00 GMT", None)],
)  # fmt: skip
def test_retry_after_is_a_usable_number_or_nothing(header: str, seconds: float | None) -> None:
    assert DIALECT.decode_error(429, {"retry-after": header}, b"").retry_after == seconds


def test_own_errors_have_openais_envelope() -> None:
    error = ErrorInfo(429, "rate_limit", "slow", "budget_exceeded", "model")
    row = {"error": {"message": "slow", "type": "rate_limit_error", "param": "model", "code": "budget_exceeded"}}
    assert json.loads(DIALECT.error_body(error)) == row
    event = DIALECT.error_event(error)
    assert event.startswith(b"data: ") and event.endswith(b"\n\n") and json.loads(event[6:]) == row


# --- translation ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"messages": [{"role": "system", "content": [{"type": "image_url", "image_url": {"url": "https://x/y"}}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "system", "content": "a", "name": "n"}]}, "messages[0].name"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {}}]}]}, "messages[0].content[0].cache_control"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x", "crop": 1}}]}]}, "messages[0].content[0].image_url.crop"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "a", "type": "custom", "custom": {}}]}]}, "messages[0].tool_calls[0]"),
        ({"messages": [{"role": "function", "name": "f", "content": "a"}]}, "messages[0].role"),
        ({"tools": [{"type": "function", "function": {"name": "f"}, "cache_control": {}}]}, "tools[0].cache_control"),
        ({"tools": [{"type": "function", "function": {"name": "f", "examples": [1]}}]}, "tools[0].function.examples"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}, "description": "d"}}}, "response_format.json_schema.description"),
        ({"prompt_cache_key": "k"}, "prompt_cache_key"),
        ({"Jane Doe 123-45-6789": 1}, "*"),  # what a client wrote is in no message
    ],
)  # fmt: skip
def test_nothing_is_dropped_in_silence(more: dict[str, Any], field: str) -> None:
    with pytest.raises(Untranslatable) as refused:
        DIALECT.conversation(parse(**more))
    assert refused.value.field == field


@pytest.mark.parametrize(
    "more",
    [{"n": 1}, {"store": False}, {"logprobs": False}, {"presence_penalty": 0.0}, {"response_format": {"type": "text"}}, {"seed": None}],
)  # fmt: skip
def test_a_field_that_asks_for_nothing_is_harmless(more: dict[str, Any]) -> None:
    assert DIALECT.conversation(parse(**more)) == DIALECT.conversation(parse())


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4)
    | st.sampled_from(["user", "assistant", "tool", "system", "text", "image_url", "function", "json_schema", "data:x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["role", "content", "type", "text", "image_url", "url", "detail", "tool_calls", "tool_call_id", "id",
                         "function", "name", "arguments", "json_schema", "schema", "parameters", "strict", "reasoning"]), inner, max_size=5),
    max_leaves=14,
)  # fmt: skip
FIELDS = [
    "messages", "tools", "tool_choice", "stop", "response_format", "temperature", "top_p", "top_k", "user", "n",
    "safety_identifier", "reasoning_effort", "parallel_tool_calls", "stream_options", "functions", "max_tokens",
]  # fmt: skip


@pytest.mark.parametrize("name", FIELDS)
@given(value=ANY)
def test_a_field_of_any_shape_is_understood_or_refused_in_words(name: str, value: Any) -> None:
    try:
        talk = DIALECT.conversation(parse(**{name: value}))
        assert isinstance(talk, Conversation)
        DIALECT.render(talk, model="m", default_max_output=1)
    except (BadRequest, Untranslatable):
        pass


@given(roles=st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "tool", "system"])}, optional={
    "content": ANY, "tool_calls": ANY, "tool_call_id": ANY, "reasoning": ANY}), min_size=1, max_size=3))  # fmt: skip
def test_messages_of_any_shape_are_understood_or_refused_in_words(roles: list[dict[str, Any]]) -> None:
    try:
        DIALECT.render(DIALECT.conversation(parse(messages=roles)), model="m", default_max_output=1)
    except (BadRequest, Untranslatable):
        pass


def encode(stream: bool, *events: Event) -> bytes:
    options = {"stream_options": {"include_usage": True}} if stream else {}
    encoder = DIALECT.encoder(parse(stream=stream, **options), answer_id="1", created=1)
    return b"".join(encoder.feed(event) for event in events) + encoder.flush()


@pytest.mark.parametrize("stream", [True, False])
def test_what_openai_cannot_say_is_refused_and_what_it_can_is_said(stream: bool) -> None:
    with pytest.raises(Untranslatable):
        encode(stream, Finish(0, "pause"))
    with pytest.raises(Untranslatable):
        encode(stream, ReasoningSeal(0, redacted="x"))
    assert b'"finish_reason":"content_filter"' in encode(stream, TextDelta(0, "no"), Finish(0, "refusal"), Done())
    assert b'"reasoning_content":"hm"' in encode(stream, ReasoningDelta(0, "hm"), Finish(0, "stop"), Done())


def test_usage_comes_before_done_and_only_where_it_was_asked_for() -> None:
    events = [START, TextDelta(0, "a"), Finish(0, "stop"), UsageReport(Usage(input=2, cache_read=3, output=4)), Done()]
    out = encode(True, *events)
    *_, last, done, end = out.split(b"\n\n")
    assert (done, end) == (b"data: [DONE]", b"")
    row = json.loads(last[6:])
    assert row["choices"] == []
    assert (row["usage"]["prompt_tokens"], row["usage"]["completion_tokens"], row["usage"]["total_tokens"]) == (5, 4, 9)
    quiet = DIALECT.encoder(parse(stream=True), answer_id="1", created=1)
    assert b"usage" not in b"".join(quiet.feed(event) for event in events)
