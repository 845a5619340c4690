"""OpenAI chat requests, both directions: body <-> `Conversation`.  For translation between dialects only.

What has no neutral word is refused by its path, never dropped in silence.  `_HARMLESS` lists the fields that
may be left out because their value asks for nothing.  Of two names for the end user the newer one
(`safety_identifier`) goes on; `stream_options` say only how the stream to this client is framed.
"""

from __future__ import annotations

from typing import Any

import msgspec

from engines.checked import listed, mapped, maybe, named, only, typed
from engines.effort import effort_of
from engines.errors import Untranslatable
from engines.model import (
    Conversation,
    Image,
    Message,
    OutputFormat,
    Part,
    Reasoning,
    Request,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from engines.rawjson import nested_object

_NEUTRAL = frozenset(
    {
        "model", "messages", "stream", "stream_options", "tools", "tool_choice", "parallel_tool_calls", "max_tokens",
        "max_completion_tokens", "temperature", "top_p", "top_k", "stop", "response_format", "reasoning_effort", "user",
        "safety_identifier",
    }
)  # fmt: skip
_HARMLESS: dict[str, tuple[Any, ...]] = {
    "n": (1,), "logprobs": (False,), "top_logprobs": (0,), "store": (False,), "frequency_penalty": (0,), "presence_penalty": (0,),
    "logit_bias": ({},), "metadata": ({},), "modalities": (["text"],), "service_tier": ("auto", "default"), "tools": ([],),
    "verbosity": ("medium",),
}  # fmt: skip
_STREAM_OPTIONS = frozenset({"include_usage", "include_obfuscation"})
_ASSISTANT = frozenset(
    {
        "role", "content", "tool_calls", "refusal", "name", "audio", "function_call", "reasoning_content", "reasoning",
        "annotations",
    }
)  # fmt: skip


def conversation(request: Request) -> Conversation:
    """The neutral form of a chat completion request.

    A field of the wrong type is refused here too: an engine that speaks OpenAI's dialect may say so better.
    """
    body = request.body
    for name, value in body.items():
        if name not in _NEUTRAL and value is not None and value not in _HARMLESS.get(name, ()):
            raise Untranslatable(named(name), "the engine's dialect has no form for this field")
    limits = {body[name] for name in ("max_tokens", "max_completion_tokens") if body.get(name) is not None}
    if len(limits) > 1:
        raise Untranslatable("max_tokens", "two output limits that differ; send one")
    only(mapped(body.get("stream_options"), "stream_options"), "stream_options", _STREAM_OPTIONS)
    system, messages = _messages(body["messages"])
    effort = maybe(body, "reasoning_effort", str)
    return Conversation(
        system=system,
        messages=messages,
        stream=request.stream,
        tools=tuple(_tool(tool, f"tools[{index}]") for index, tool in enumerate(listed(body.get("tools"), "tools"))),
        tool_choice=_choice(body.get("tool_choice")),
        parallel_tool_calls=maybe(body, "parallel_tool_calls", bool),
        max_output=request.max_output,
        temperature=maybe(body, "temperature", float),
        top_p=maybe(body, "top_p", float),
        top_k=maybe(body, "top_k", int),
        stop=_stop(body.get("stop")),
        output_format=_format(body.get("response_format")),
        reasoning_effort=effort if effort != "none" else None,
        reasoning_budget=0 if effort == "none" else None,
        user=maybe(body, "safety_identifier", str) or maybe(body, "user", str),
    )


def _messages(rows: list[Any]) -> tuple[tuple[Text, ...], tuple[Message, ...]]:
    system: list[Text] = []
    messages: list[Message] = []
    for index, row in enumerate(rows):
        path = f"messages[{index}]"
        role = row.get("role")
        if role in ("system", "developer"):
            if messages:
                raise Untranslatable(
                    path, "a system message after the conversation began has no place in the engine's dialect"
                )
            only(row, path, {"role", "content"})
            system += _texts(row.get("content"), f"{path}.content")
        elif role == "user":
            only(row, path, {"role", "content", "name"})
            if row.get("name"):
                raise Untranslatable(f"{path}.name", "the engine's dialect has no names of speakers")
            messages.append(Message("user", _parts(row.get("content"), f"{path}.content"), path))
        elif role == "assistant":
            messages.append(Message("assistant", _assistant(row, path), path))
        elif role == "tool":
            only(row, path, {"role", "content", "tool_call_id", "name"})  # the name repeats the call's
            call_id = typed(row.get("tool_call_id"), f"{path}.tool_call_id", str)
            result = ToolResult(call_id, _parts(row.get("content"), f"{path}.content"))
            messages.append(Message("user", (result,), path))
        else:
            raise Untranslatable(f"{path}.role", "this role has no neutral form")
    return tuple(system), tuple(messages)


def _texts(content: Any, path: str) -> list[Text]:
    """What stands in a system message: text alone, since the other dialect's system prompt holds nothing else."""
    texts: list[Text] = []
    for index, part in enumerate(_parts(content, path)):
        if not isinstance(part, Text):
            raise Untranslatable(f"{path}[{index}]", "a system message can hold only text in the engine's dialect")
        texts.append(part)
    return texts


def _assistant(row: dict[str, Any], path: str) -> tuple[Part, ...]:
    only(row, path, _ASSISTANT)
    for name in ("refusal", "audio", "function_call", "name", "annotations"):
        if row.get(name):
            raise Untranslatable(f"{path}.{name}", "the engine's dialect has no form for this field")
    parts: list[Part] = []
    thoughts = [maybe(row, name, str, path) for name in ("reasoning_content", "reasoning") if row.get(name)]
    if len(set(thoughts)) > 1:
        raise Untranslatable(f"{path}.reasoning", "differs from reasoning_content; send one")
    parts += [Reasoning(thought) for thought in thoughts[:1] if thought]
    if row.get("content"):
        parts += _parts(row["content"], f"{path}.content")
    for number, call in enumerate(listed(row.get("tool_calls"), f"{path}.tool_calls")):
        parts.append(_call(call, f"{path}.tool_calls[{number}]"))
    return tuple(parts)


def _call(call: Any, path: str) -> ToolCall:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or call.get("type", "function") != "function":
        raise Untranslatable(path, "only function calls can be translated")
    only(call, path, {"id", "type", "index", "function"})
    only(function, f"{path}.function", {"name", "arguments"})
    arguments = typed(function.get("arguments", "{}"), f"{path}.function.arguments", str) or "{}"
    if nested_object(arguments) is None:
        raise Untranslatable(f"{path}.function.arguments", "must be a JSON object, not too deeply nested")
    name = typed(function.get("name"), f"{path}.function.name", str)
    return ToolCall(typed(call.get("id"), f"{path}.id", str), name, arguments)


def _parts(content: Any, path: str) -> tuple[Text | Image, ...]:
    if content is None:
        return ()
    if isinstance(content, str):
        return (Text(content),)
    parts: list[Text | Image] = []
    for index, row in enumerate(listed(content, path)):
        where = f"{path}[{index}]"
        kind = row.get("type") if isinstance(row, dict) else None
        if kind == "text":
            only(row, where, {"type", "text"})
            parts.append(Text(typed(row.get("text"), f"{where}.text", str)))
        elif kind == "image_url":
            only(row, where, {"type", "image_url"})
            parts.append(_image(row.get("image_url"), f"{where}.image_url"))
        else:
            raise Untranslatable(where, "a part of this type has no form in the engine's dialect")
    return tuple(parts)


def _image(image: Any, path: str) -> Image:
    detail = None
    if isinstance(image, dict):
        only(image, path, {"url", "detail"})
        detail = maybe(image, "detail", str, path)
        image = image.get("url")
    url = typed(image, f"{path}.url", str)
    if url.startswith("data:"):
        head, _, data = url[5:].partition(",")
        media, _, encoding = head.partition(";")
        if encoding != "base64":
            raise Untranslatable(path, "a data: URL of an image must be base64")
        return Image(media_type=media, data=data, detail=detail)
    return Image(url=url, detail=detail)


def _tool(row: Any, path: str) -> Tool:
    function = row.get("function") if isinstance(row, dict) else None
    if not isinstance(function, dict) or row.get("type", "function") != "function":
        raise Untranslatable(path, "only function tools can be translated")
    only(row, path, {"type", "function"})
    path += ".function"
    only(function, path, {"name", "description", "parameters", "strict"})
    return Tool(
        typed(function.get("name"), f"{path}.name", str),
        maybe(function, "description", str, path),
        maybe(function, "parameters", dict, path) or {"type": "object", "properties": {}},
        maybe(function, "strict", bool, path),
    )


def _choice(value: Any) -> ToolChoice | None:
    if value is None:
        return None
    if value in ("auto", "none", "required"):
        return ToolChoice(value)
    if isinstance(value, dict) and value.get("type") == "function" and isinstance(value.get("function"), dict):
        only(value, "tool_choice", {"type", "function"})
        only(value["function"], "tool_choice.function", {"name"})
        return ToolChoice("named", typed(value["function"].get("name"), "tool_choice.function.name", str))
    raise Untranslatable("tool_choice", "only auto, none, required and a named function can be translated")


def _format(value: Any) -> OutputFormat | None:
    if value is None:
        return None
    path = "response_format"
    kind = typed(value, path, dict).get("type")
    only(value, path, {"type", "json_schema"})
    if kind == "text":
        return None
    if kind == "json_object":
        return OutputFormat()
    if kind == "json_schema" and isinstance(value.get("json_schema"), dict):
        row = value["json_schema"]
        path += ".json_schema"
        only(row, path, {"schema", "name", "strict"})
        schema = maybe(row, "schema", dict, path) or {}
        return OutputFormat(schema, maybe(row, "name", str, path), maybe(row, "strict", bool, path))
    raise Untranslatable(path, "only text, json_object and json_schema can be translated")


def _stop(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    return tuple(typed(word, f"stop[{index}]", str) for index, word in enumerate(listed(value, "stop")))


def render(talk: Conversation, *, model: str, limit_field: str, sampling_extensions: bool) -> bytes:
    """A conversation as a chat completion request.

    `limit_field` is what the engine calls the output limit; `sampling_extensions`: it takes `top_k`.
    """
    if talk.top_k is not None and not sampling_extensions:
        raise Untranslatable("top_k", "the engine's dialect has no form for this field")
    body: dict[str, Any] = {"model": model, "messages": _rows(talk), "stream": talk.stream}
    if talk.stream:
        body["stream_options"] = {"include_usage": True}
    if talk.tools:
        body["tools"] = [_tool_row(tool) for tool in talk.tools]
    if talk.tool_choice is not None:
        named = talk.tool_choice.mode == "named"
        body["tool_choice"] = (
            {"type": "function", "function": {"name": talk.tool_choice.name}} if named else talk.tool_choice.mode
        )
    optional = {
        "parallel_tool_calls": talk.parallel_tool_calls if talk.tools else None,
        limit_field: talk.max_output,
        "temperature": talk.temperature,
        "top_p": talk.top_p,
        "top_k": talk.top_k,
        "stop": list(talk.stop) or None,
        "response_format": _format_row(talk.output_format),
        "reasoning_effort": _effort(talk),
        "user": talk.user,
    }
    body.update((name, value) for name, value in optional.items() if value is not None)
    return msgspec.json.encode(body)


def _rows(talk: Conversation) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    if talk.system:
        rows.append({"role": "system", "content": "\n\n".join(part.text for part in talk.system)})
    for message in talk.messages:
        if message.role == "assistant":
            rows.append(_assistant_row(message, message.path))
        else:
            rows += _user_rows(message, message.path)
    return rows


def _user_rows(message: Message, path: str) -> list[dict[str, Any]]:
    """A user's turn: its tool results are messages of their own, before what else was said."""
    rows: list[dict[str, Any]] = []
    said: list[dict[str, Any]] = []
    for part in message.parts:
        if isinstance(part, ToolResult):
            if any(isinstance(piece, Image) for piece in part.content):
                raise Untranslatable(f"{path}.content", "a tool result with an image has no form in OpenAI's dialect")
            text = "".join(piece.text for piece in part.content if isinstance(piece, Text))
            rows.append(
                {"role": "tool", "tool_call_id": part.call_id, "content": f"Error: {text}" if part.is_error else text}
            )
        elif isinstance(part, Text):
            said.append({"type": "text", "text": part.text})
        elif isinstance(part, Image):
            said.append({"type": "image_url", "image_url": _image_row(part)})
        else:
            raise Untranslatable(f"{path}.content", "a user's turn can hold text, images and tool results")
    if len(said) == 1 and said[0]["type"] == "text":
        rows.append({"role": "user", "content": said[0]["text"]})
    elif said or not rows:
        rows.append({"role": "user", "content": said})
    return rows


def _assistant_row(message: Message, path: str) -> dict[str, Any]:
    texts: list[str] = []
    calls: list[dict[str, Any]] = []
    reasoning: list[str] = []
    for part in message.parts:
        if isinstance(part, Text):
            texts.append(part.text)
        elif isinstance(part, ToolCall):
            calls.append(
                {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": part.arguments}}
            )
        elif isinstance(part, Reasoning):
            if part.redacted is not None:
                raise Untranslatable(f"{path}.content", "redacted thinking has no form in OpenAI's dialect")
            reasoning.append(part.text)
        else:
            raise Untranslatable(f"{path}.content", "an assistant's turn can hold text, reasoning and tool calls")
    row: dict[str, Any] = {"role": "assistant", "content": "".join(texts) if texts or not calls else None}
    if reasoning:
        row["reasoning_content"] = "".join(reasoning)
    if calls:
        row["tool_calls"] = calls
    return row


def _image_row(image: Image) -> dict[str, Any]:
    url = image.url if image.url is not None else f"data:{image.media_type};base64,{image.data}"
    return {"url": url, **({"detail": image.detail} if image.detail else {})}


def _tool_row(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.parameters}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _format_row(wanted: OutputFormat | None) -> dict[str, Any] | None:
    if wanted is None:
        return None
    if wanted.schema is None:
        return {"type": "json_object"}
    row: dict[str, Any] = {"name": wanted.name or "answer", "schema": wanted.schema}
    if wanted.strict is not None:
        row["strict"] = wanted.strict
    return {"type": "json_schema", "json_schema": row}


def _effort(talk: Conversation) -> str | None:
    if talk.reasoning_effort is not None or talk.reasoning_budget is None:
        return talk.reasoning_effort
    return effort_of(talk.reasoning_budget)
