"""Where text lives in each dialect: one sample of every kind of field that a request or an answer can have.

A sample is a whole body in which `HERE` stands where the text would be, as a value or as a key; `planted` puts a text
there.  The table of what is scanned is made from these, and its test plants identifiers in them.  A field that a
dialect does not know yet is a kind of its own: `any other field`.

Source: the API references of OpenAI and Anthropic, and what engines add to OpenAI's dialect.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from engines.model import DialectName, Operation

HERE = "<here>"
_PIXEL = "iVBORw0KGgo" + "A" * 300  # long enough to be taken for base64, and no picture of anything


class FieldKind(Struct, frozen=True):
    """One kind of field.  `body` is a request's body, or an answer that is not streamed (None: only streams have it);
    `events` are an answer's events, each (SSE event name, its data)."""

    name: str
    body: Any = None
    events: tuple[tuple[str, Any], ...] = ()
    speaks: bool = True  # False: no text by nature, such as a picture or a vector


def planted(sample: Any, text: str) -> Any:
    """A copy of a sample with `text` in place of `HERE`."""
    if isinstance(sample, str):
        return sample.replace(HERE, text)
    if isinstance(sample, dict):
        return {planted(name, text): planted(value, text) for name, value in sample.items()}
    if isinstance(sample, (list, tuple)):
        return [planted(item, text) for item in sample]
    return sample


def stream(kind: FieldKind, text: str) -> bytes:
    """The events of an answer as an engine sends them, with `text` planted."""
    out = []
    for name, data in kind.events:
        line = data.encode() if data == "[DONE]" else msgspec.json.encode(planted(data, text))
        out.append((b"event: %b\n" % name.encode() if name else b"") + b"data: %b\n\n" % line)
    return b"".join(out)


# --- OpenAI's requests ---------------------------------------------------------------------------------------


def _says(*messages: Any, **more: Any) -> Any:
    return {"model": "m", "messages": [*messages], **more}


def _user(content: Any) -> Any:
    return _says({"role": "user", "content": content})


def _asked(**more: Any) -> Any:
    return _says({"role": "user", "content": "go"}, **more)


def _call(name: str, arguments: Any) -> Any:
    called = {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}
    return _says({"role": "assistant", "content": None, "tool_calls": [called]})


def _tool(name: str = "look_up", description: str = "", parameters: Any = None) -> Any:
    row = {"name": name, "description": description, "parameters": parameters or {"type": "object", "properties": {}}}
    return _asked(tools=[{"type": "function", "function": row}])


def _schema(name: str, **row: Any) -> Any:
    return {"type": "object", "properties": {name: {"type": "string", **row}}}


def _quoted(value: Any) -> str:
    """Arguments as they travel: JSON text inside a JSON string."""
    return msgspec.json.encode(value).decode()


OPENAI_CHAT = (
    FieldKind("message text", _user(HERE)),
    FieldKind("message text, in parts", _user([{"type": "text", "text": HERE}])),
    FieldKind("system message", _says({"role": "system", "content": HERE})),
    FieldKind("developer message", _says({"role": "developer", "content": HERE})),
    FieldKind("assistant's text", _says({"role": "assistant", "content": HERE})),
    FieldKind("assistant's refusal", _says({"role": "assistant", "refusal": HERE})),
    FieldKind("assistant's reasoning", _says({"role": "assistant", "content": "x", "reasoning_content": HERE})),
    FieldKind("speaker's name", _says({"role": "user", "content": "go", "name": HERE})),
    FieldKind("tool arguments, a value", _call("f", _quoted({"a": [{"b": HERE}]}))),
    FieldKind("tool arguments, a key", _call("f", _quoted({HERE: 1}))),
    FieldKind("tool arguments, not JSON", _call("f", HERE)),
    FieldKind("called tool's name", _call(HERE, "{}")),
    FieldKind(
        "function call (of old)", _says({"role": "assistant", "function_call": {"name": "f", "arguments": HERE}})
    ),
    FieldKind("tool result", _says({"role": "tool", "tool_call_id": "c1", "content": HERE})),
    FieldKind(
        "tool result, JSON in it", _says({"role": "tool", "tool_call_id": "c1", "content": _quoted({"a": HERE})})
    ),
    FieldKind("tool's name", _tool(name=HERE)),
    FieldKind("tool's description", _tool(description=HERE)),
    FieldKind("tool's parameters, a description", _tool(parameters=_schema("p", description=HERE))),
    FieldKind("tool's parameters, a key", _tool(parameters=_schema(HERE))),
    FieldKind("tool's parameters, a choice", _tool(parameters=_schema("p", enum=[HERE]))),
    FieldKind("tool choice", _asked(tool_choice={"type": "function", "function": {"name": HERE}})),
    FieldKind(
        "answer's schema",
        _asked(
            response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": _schema("p", const=HERE)}}
        ),
    ),
    FieldKind("prediction", _asked(prediction={"type": "content", "content": HERE})),
    FieldKind("metadata, a value", _asked(metadata={"case": HERE})),
    FieldKind("metadata, a key", _asked(metadata={HERE: "x"})),
    FieldKind("user", _asked(user=HERE)),
    FieldKind("safety identifier", _asked(safety_identifier=HERE)),
    FieldKind("stop sequence", _asked(stop=["x", HERE])),
    FieldKind("model", {"model": HERE, "messages": [{"role": "user", "content": "go"}]}),
    FieldKind("picture's address", _user([{"type": "image_url", "image_url": {"url": f"https://example.org/{HERE}"}}])),
    FieldKind("file's name", _user([{"type": "file", "file": {"filename": HERE, "file_id": "f1"}}])),
    FieldKind(
        "picture",
        _user([{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{_PIXEL}"}}]),
        speaks=False,
    ),
    FieldKind("file", _user([{"type": "file", "file": {"file_data": _PIXEL}}]), speaks=False),
    FieldKind(
        "sound", _user([{"type": "input_audio", "input_audio": {"data": _PIXEL, "format": "wav"}}]), speaks=False
    ),
    FieldKind("any other field, a value", _asked(field_of_tomorrow={"deep": [{"er": HERE}]})),
    FieldKind("any other field, a key", _asked(field_of_tomorrow={HERE: 1})),
    FieldKind("any other part", _user([{"type": "part_of_tomorrow", "inside": {"it": HERE}}])),
)

OPENAI_EMBEDDINGS = (
    FieldKind("input", {"model": "m", "input": HERE}),
    FieldKind("input, several", {"model": "m", "input": ["x", HERE]}),
    FieldKind("user", {"model": "m", "input": "x", "user": HERE}),
    FieldKind("input as tokens", {"model": "m", "input": [[1, 2, 3]]}, speaks=False),
    FieldKind("any other field, a value", {"model": "m", "input": "x", "field_of_tomorrow": [HERE]}),
    FieldKind("any other field, a key", {"model": "m", "input": "x", "field_of_tomorrow": {HERE: 1}}),
)

# --- Anthropic's requests ------------------------------------------------------------------------------------


def _turn(role: str, *blocks: Any) -> Any:
    return {"model": "m", "max_tokens": 1, "messages": [{"role": role, "content": list(blocks)}]}


def _with(**more: Any) -> Any:
    return {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "go"}], **more}


def _result(content: Any) -> Any:
    return _turn("user", {"type": "tool_result", "tool_use_id": "t1", "content": content})


def _document(source: Any, **more: Any) -> Any:
    return _turn("user", {"type": "document", "source": source, **more})


ANTHROPIC_MESSAGES = (
    FieldKind("message text", {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": HERE}]}),
    FieldKind("message text, in blocks", _turn("user", {"type": "text", "text": HERE})),
    FieldKind("system prompt", _with(system=HERE)),
    FieldKind("system prompt, in blocks", _with(system=[{"type": "text", "text": HERE}])),
    FieldKind("assistant's text", _turn("assistant", {"type": "text", "text": HERE})),
    FieldKind("assistant's thinking", _turn("assistant", {"type": "thinking", "thinking": HERE, "signature": "s"})),
    FieldKind(
        "tool arguments, a value", _turn("assistant", {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": [HERE]}})
    ),
    FieldKind(
        "tool arguments, a key", _turn("assistant", {"type": "tool_use", "id": "t1", "name": "f", "input": {HERE: 1}})
    ),
    FieldKind("called tool's name", _turn("assistant", {"type": "tool_use", "id": "t1", "name": HERE, "input": {}})),
    FieldKind("tool result", _result(HERE)),
    FieldKind("tool result, in blocks", _result([{"type": "text", "text": HERE}])),
    FieldKind("tool's name", _with(tools=[{"name": HERE, "input_schema": _schema("p")}])),
    FieldKind("tool's description", _with(tools=[{"name": "f", "description": HERE, "input_schema": _schema("p")}])),
    FieldKind("tool's parameters, a key", _with(tools=[{"name": "f", "input_schema": _schema(HERE)}])),
    FieldKind("tool's parameters, a description", _with(tools=[{"name": "f", "input_schema": _schema("p", description=HERE)}])),
    FieldKind("tool choice", _with(tool_choice={"type": "tool", "name": HERE})),
    FieldKind("document's text", _document({"type": "text", "media_type": "text/plain", "data": HERE})),
    FieldKind("document's content", _document({"type": "content", "content": [{"type": "text", "text": HERE}]})),
    FieldKind("document's title", _document({"type": "text", "media_type": "text/plain", "data": "x"}, title=HERE)),
    FieldKind("document's context", _document({"type": "text", "media_type": "text/plain", "data": "x"}, context=HERE)),
    FieldKind("document's address", _document({"type": "url", "url": f"https://example.org/{HERE}"})),
    FieldKind(
        "search result",
        _turn("user", {"type": "search_result", "source": "x", "title": "x", "content": [{"type": "text", "text": HERE}]}),
    ),
    FieldKind("metadata, the user's id", _with(metadata={"user_id": HERE})),
    FieldKind("metadata, a key", _with(metadata={HERE: "x"})),
    FieldKind("stop sequence", _with(stop_sequences=["x", HERE])),
    FieldKind("answer's schema", _with(output_config={"format": {"type": "json_schema", "schema": _schema("p", const=HERE)}})),
    FieldKind("model", {"model": HERE, "max_tokens": 1, "messages": [{"role": "user", "content": "go"}]}),
    FieldKind(
        "picture",
        _turn("user", {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": _PIXEL}}),
        speaks=False,
    ),
    FieldKind(
        "PDF", _document({"type": "base64", "media_type": "application/pdf", "data": _PIXEL}), speaks=False
    ),
    FieldKind("file by its id", _turn("user", {"type": "container_upload", "file_id": "f1"}), speaks=False),
    FieldKind("any other field, a value", _with(field_of_tomorrow={"deep": [{"er": HERE}]})),
    FieldKind("any other field, a key", _with(field_of_tomorrow={HERE: 1})),
    FieldKind("any other block", _turn("user", {"type": "block_of_tomorrow", "inside": {"it": HERE}})),
)  # fmt: skip

# --- OpenAI's answers ----------------------------------------------------------------------------------------


def _completion(name: str, said: Any, delta: Any = None, *, speaks: bool = True, finish: str = "stop") -> FieldKind:
    """A kind of field that a completion's message and its chunks both have."""
    head = {"id": "a1", "model": "m"}
    chunks = (
        {**head, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta or said}]},
        {**head, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]},
        "[DONE]",
    )
    whole = {"index": 0, "message": {"role": "assistant", **said}, "finish_reason": finish}
    return FieldKind(
        name,
        {**head, "object": "chat.completion", "choices": [whole]},
        tuple(("", chunk) for chunk in chunks),
        speaks,
    )


def _called(**function: Any) -> Any:
    return {"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": {"name": "f", **function}}]}


OPENAI_COMPLETION = (
    _completion("answer's text", {"content": HERE}),
    _completion("refusal", {"refusal": HERE}),
    _completion("reasoning", {"reasoning_content": HERE}),
    _completion("reasoning (another name)", {"reasoning": HERE}),
    _completion("tool arguments", _called(arguments=_quoted({"a": HERE})), finish="tool_calls"),
    _completion("called tool's name", _called(name=HERE, arguments="{}"), finish="tool_calls"),
    _completion("function call (of old)", {"function_call": {"name": "f", "arguments": HERE}}),
    _completion("sound's transcript", {"audio": {"id": "x", "transcript": HERE}}),
    _completion("sound", {"audio": {"id": "x", "data": _PIXEL}}, speaks=False),
    _completion("unknown ending", {"content": "x"}, finish=HERE),
    _completion("any other field", {"content": "x", "field_of_tomorrow": {"deep": HERE}}),
)
OPENAI_VECTORS = (FieldKind("vectors", {"data": [{"index": 0, "embedding": [0.5]}], "model": "m"}, speaks=False),)

# --- Anthropic's answers -------------------------------------------------------------------------------------


def _message(name: str, block: Any, start: Any, delta: Any = None, *, stop: str = "end_turn") -> FieldKind:
    """A kind of field that a message's block has: whole, and as its beginning and a delta."""
    head = {"id": "a1", "type": "message", "role": "assistant", "model": "m"}
    usage = {"input_tokens": 1, "output_tokens": 1}
    events = [
        {"type": "message_start", "message": {**head, "content": [], "usage": usage}},
        {"type": "content_block_start", "index": 0, "content_block": start},
        *([{"type": "content_block_delta", "index": 0, "delta": delta}] if delta else []),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": stop}, "usage": usage},
        {"type": "message_stop"},
    ]
    whole = {**head, "content": [block], "stop_reason": stop, "usage": usage}
    return FieldKind(name, whole, tuple((event["type"], event) for event in events))


_CITED = {"type": "text", "text": "x", "citations": [{"type": "char_location", "cited_text": HERE}]}
_SEARCHED = {"type": "web_search_tool_result", "tool_use_id": "s1", "content": [{"title": HERE}]}
_TOMORROW = {"type": "block_of_tomorrow", "inside": {"it": HERE}}
_SEARCH = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": HERE}}
_USE = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}

ANTHROPIC_MESSAGE = (
    _message(
        "answer's text",
        {"type": "text", "text": HERE},
        {"type": "text", "text": ""},
        {"type": "text_delta", "text": HERE},
    ),
    _message(
        "thinking",
        {"type": "thinking", "thinking": HERE},
        {"type": "thinking", "thinking": ""},
        {"type": "thinking_delta", "thinking": HERE},
    ),
    _message(
        "tool arguments",
        {**_USE, "input": {"a": HERE}},
        _USE,
        {"type": "input_json_delta", "partial_json": _quoted({"a": HERE})},
        stop="tool_use",
    ),
    _message("called tool's name", {**_USE, "name": HERE}, {**_USE, "name": HERE}, stop="tool_use"),
    _message("citations", _CITED, _CITED),
    _message("server tool's arguments", _SEARCH, _SEARCH),
    _message("server tool's results", _SEARCHED, _SEARCHED),
    _message("unknown ending", {"type": "text", "text": "x"}, {"type": "text", "text": "x"}, stop=HERE),
    _message("any other block", _TOMORROW, _TOMORROW),
    _message(
        "any other field", {"type": "text", "text": "x", "field": HERE}, {"type": "text", "text": "x", "field": HERE}
    ),
)
ANTHROPIC_COUNT = (FieldKind("count", {"input_tokens": 1}, speaks=False),)

REQUESTS: dict[tuple[DialectName, Operation], tuple[FieldKind, ...]] = {
    ("openai", Operation.CHAT): OPENAI_CHAT,
    ("openai", Operation.EMBEDDINGS): OPENAI_EMBEDDINGS,
    ("anthropic", Operation.CHAT): ANTHROPIC_MESSAGES,
    ("anthropic", Operation.COUNT_TOKENS): ANTHROPIC_MESSAGES,
}
"""The kinds of fields of a request, by dialect and operation.  A surface whose row is missing fails a test."""

ANSWERS: dict[tuple[DialectName, Operation], tuple[FieldKind, ...]] = {
    ("openai", Operation.CHAT): OPENAI_COMPLETION,
    ("openai", Operation.EMBEDDINGS): OPENAI_VECTORS,
    ("anthropic", Operation.CHAT): ANTHROPIC_MESSAGE,
    ("anthropic", Operation.COUNT_TOKENS): ANTHROPIC_COUNT,
}
"""The same of answers."""
