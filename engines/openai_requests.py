"""OpenAI chat requests, both directions: body <-> `Conversation`.  For translation between dialects only.

What has no neutral word is refused by its path, never dropped in silence.  `_HARMLESS` lists the fields that
may be left out because their value asks for nothing.
"""

from __future__ import annotations

from typing import Any

import msgspec

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
_EFFORTS = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 32768}


def conversation(request: Request) -> Conversation:
    """The neutral form of a chat completion request."""
    body = request.body
    for name, value in body.items():
        if name not in _NEUTRAL and value is not None and value not in _HARMLESS.get(name, ()):
            raise Untranslatable(name, "the engine's dialect has no form for this field")
    system, messages = _messages(body["messages"])
    stop = body.get("stop")
    effort = body.get("reasoning_effort")
    return Conversation(
        system=system,
        messages=messages,
        stream=request.stream,
        tools=tuple(_tool(tool, f"tools[{index}]") for index, tool in enumerate(body.get("tools") or ())),
        tool_choice=_choice(body.get("tool_choice")),
        parallel_tool_calls=body.get("parallel_tool_calls"),
        max_output=request.max_output,
        temperature=body.get("temperature"),
        top_p=body.get("top_p"),
        top_k=body.get("top_k"),
        stop=() if stop is None else (stop,) if isinstance(stop, str) else tuple(stop),
        output_format=_format(body.get("response_format")),
        reasoning_effort=effort if effort != "none" else None,
        reasoning_budget=0 if effort == "none" else None,
        user=body.get("safety_identifier") or body.get("user"),
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
            system += [part for part in _parts(row.get("content"), f"{path}.content") if isinstance(part, Text)]
        elif role == "user":
            _only(row, path, {"role", "content", "name"})
            if row.get("name"):
                raise Untranslatable(f"{path}.name", "the engine's dialect has no names of speakers")
            messages.append(Message("user", _parts(row.get("content"), f"{path}.content")))
        elif role == "assistant":
            messages.append(Message("assistant", _assistant(row, path)))
        elif role == "tool":
            _only(row, path, {"role", "content", "tool_call_id", "name"})
            content = _parts(row.get("content"), f"{path}.content")
            result = ToolResult(
                str(row.get("tool_call_id") or ""), tuple(p for p in content if isinstance(p, (Text, Image)))
            )
            messages.append(Message("user", (result,)))
        else:
            raise Untranslatable(f"{path}.role", f"the role {str(role)[:20]!r} has no neutral form")
    return tuple(system), tuple(messages)


def _assistant(row: dict[str, Any], path: str) -> tuple[Part, ...]:
    _only(
        row,
        path,
        {
            "role",
            "content",
            "tool_calls",
            "refusal",
            "name",
            "audio",
            "function_call",
            "reasoning_content",
            "reasoning",
            "annotations",
        },
    )
    for name in ("refusal", "audio", "function_call", "name", "annotations"):
        if row.get(name):
            raise Untranslatable(f"{path}.{name}", "the engine's dialect has no form for this field")
    parts: list[Part] = []
    if reasoning := row.get("reasoning_content") or row.get("reasoning"):
        parts.append(Reasoning(str(reasoning)))
    if row.get("content"):
        parts += _parts(row["content"], f"{path}.content")
    for number, call in enumerate(row.get("tool_calls") or ()):
        function = call.get("function")
        if not isinstance(function, dict):
            raise Untranslatable(f"{path}.tool_calls[{number}]", "only function calls can be translated")
        parts.append(
            ToolCall(str(call.get("id") or ""), str(function.get("name") or ""), str(function.get("arguments") or "{}"))
        )
    return tuple(parts)


def _parts(content: Any, path: str) -> tuple[Part, ...]:
    if content is None:
        return ()
    if isinstance(content, str):
        return (Text(content),)
    parts: list[Part] = []
    for index, row in enumerate(content):
        where = f"{path}[{index}]"
        kind = row.get("type") if isinstance(row, dict) else None
        if kind == "text":
            _only(row, where, {"type", "text"})
            parts.append(Text(row["text"]))
        elif kind == "image_url":
            parts.append(_image(row, where))
        else:
            raise Untranslatable(where, f"a part of type {str(kind)[:30]!r} has no form in the engine's dialect")
    return tuple(parts)


def _image(row: dict[str, Any], path: str) -> Image:
    image = row.get("image_url")
    url = image.get("url") if isinstance(image, dict) else image
    if not isinstance(url, str):
        raise Untranslatable(f"{path}.image_url", "an image needs a url")
    detail = image.get("detail") if isinstance(image, dict) else None
    if url.startswith("data:"):
        head, _, data = url[5:].partition(",")
        media, _, encoding = head.partition(";")
        if encoding != "base64":
            raise Untranslatable(f"{path}.image_url", "a data: URL of an image must be base64")
        return Image(media_type=media, data=data, detail=detail)
    return Image(url=url, detail=detail)


def _tool(row: Any, path: str) -> Tool:
    function = row.get("function") if isinstance(row, dict) else None
    if not isinstance(function, dict) or row.get("type", "function") != "function":
        raise Untranslatable(path, "only function tools can be translated")
    parameters = function.get("parameters") or {"type": "object", "properties": {}}
    return Tool(str(function.get("name") or ""), function.get("description"), parameters, function.get("strict"))


def _choice(value: Any) -> ToolChoice | None:
    if value is None:
        return None
    if value in ("auto", "none", "required"):
        return ToolChoice(value)
    if isinstance(value, dict) and value.get("type") == "function" and isinstance(value.get("function"), dict):
        return ToolChoice("named", str(value["function"].get("name")))
    raise Untranslatable("tool_choice", "only auto, none, required and a named function can be translated")


def _format(value: Any) -> OutputFormat | None:
    if value is None or value.get("type") == "text":
        return None
    if value.get("type") == "json_object":
        return OutputFormat()
    if value.get("type") == "json_schema" and isinstance(value.get("json_schema"), dict):
        row = value["json_schema"]
        return OutputFormat(row.get("schema") or {}, row.get("name"), row.get("strict"))
    raise Untranslatable("response_format", "only text, json_object and json_schema can be translated")


def _only(row: dict[str, Any], path: str, known: set[str]) -> None:
    for name, value in row.items():
        if name not in known and value is not None:
            raise Untranslatable(f"{path}.*", "a field that the engine's dialect does not know")


def render(talk: Conversation, *, model: str) -> bytes:
    """A conversation as a chat completion request."""
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
        "max_tokens": talk.max_output,
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
    for index, message in enumerate(talk.messages):
        if message.role == "assistant":
            rows.append(_assistant_row(message, f"messages[{index}]"))
        else:
            rows += _user_rows(message, f"messages[{index}]")
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
    """A budget in tokens as the nearest effort that allows at least as much."""
    if talk.reasoning_effort is not None:
        return talk.reasoning_effort
    if talk.reasoning_budget is None:
        return None
    if talk.reasoning_budget == 0:
        return "none"
    return next((word for word in ("low", "medium", "high") if _EFFORTS[word] >= talk.reasoning_budget), "high")
