"""Anthropic message requests, both directions: body <-> `Conversation`.  For translation between dialects only.

What has no neutral word is refused by its path, never dropped in silence.  One hint is let go, because it
cannot change an answer: `cache_control` asks for a cheaper price on a later request and says nothing to
an engine that caches by itself.  Same-dialect requests keep it, as they keep everything.
"""

from __future__ import annotations

from typing import Any

import msgspec

from engines.anthropic_answers import tool_id
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
        "model", "messages", "stream", "system", "tools", "tool_choice", "max_tokens", "temperature", "top_p", "top_k",
        "stop_sequences", "thinking", "metadata", "output_config", "cache_control",
    }
)  # fmt: skip
_HARMLESS: dict[str, tuple[Any, ...]] = {"service_tier": ("auto", "standard_only"), "speed": ("standard",)}
_EFFORTS = ("low", "medium", "high", "xhigh")
_BUDGETS = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 32768}
LEAST_BUDGET = 1024
"""Tokens of thinking that Anthropic's API demands at least."""


def conversation(request: Request) -> Conversation:
    """The neutral form of a messages request."""
    body = request.body
    for name, value in body.items():
        if name not in _NEUTRAL and value is not None and value not in _HARMLESS.get(name, ()):
            raise Untranslatable(name, "the engine's dialect has no form for this field")
    system = body.get("system")
    metadata = body.get("metadata") or {}
    _only(metadata, "metadata", {"user_id"})
    choice, parallel = _choice(body.get("tool_choice"))
    budget, effort, wanted = _thinking_and_output(body)
    return Conversation(
        system=(Text(system),) if isinstance(system, str) else tuple(_system(system or ())),
        messages=tuple(_message(row, f"messages[{index}]") for index, row in enumerate(body["messages"])),
        stream=request.stream,
        tools=tuple(_tool(row, f"tools[{index}]") for index, row in enumerate(body.get("tools") or ())),
        tool_choice=choice,
        parallel_tool_calls=parallel,
        max_output=request.max_output,
        temperature=body.get("temperature"),
        top_p=body.get("top_p"),
        top_k=body.get("top_k"),
        stop=tuple(body.get("stop_sequences") or ()),
        output_format=wanted,
        reasoning_budget=budget,
        reasoning_effort=effort,
        user=metadata.get("user_id"),
    )


def _system(blocks: Any) -> list[Text]:
    texts = []
    for index, block in enumerate(blocks):
        if block.get("type") != "text":
            raise Untranslatable(f"system[{index}]", "only text can be translated")
        _only(block, f"system[{index}]", {"type", "text", "cache_control"})
        texts.append(Text(block["text"]))
    return texts


def _message(row: dict[str, Any], path: str) -> Message:
    role = row.get("role")
    _only(row, path, {"role", "content"})
    content = row.get("content")
    if role not in ("user", "assistant"):
        raise Untranslatable(f"{path}.role", f"the role {str(role)[:20]!r} has no neutral form")
    if isinstance(content, str):
        return Message(role, (Text(content),))
    return Message(role, tuple(_part(block, f"{path}.content[{index}]") for index, block in enumerate(content or ())))


def _part(block: dict[str, Any], path: str) -> Part:
    kind = block.get("type")
    if kind == "text":
        if block.get("citations"):
            raise Untranslatable(f"{path}.citations", "the engine's dialect has no citations")
        _only(block, path, {"type", "text", "cache_control", "citations"})
        return Text(block["text"])
    if kind == "image":
        _only(block, path, {"type", "source", "cache_control"})
        return _image(block.get("source") or {}, path)
    if kind == "tool_use":
        _only(block, path, {"type", "id", "name", "input", "cache_control", "caller"})
        return ToolCall(
            str(block.get("id")), str(block.get("name")), msgspec.json.encode(block.get("input") or {}).decode()
        )
    if kind == "tool_result":
        _only(block, path, {"type", "tool_use_id", "content", "is_error", "cache_control"})
        return ToolResult(
            str(block.get("tool_use_id")), _result(block.get("content"), path), bool(block.get("is_error"))
        )
    if kind == "thinking":
        _only(block, path, {"type", "thinking", "signature"})
        return Reasoning(str(block.get("thinking") or ""), signature=block.get("signature"))
    if kind == "redacted_thinking":
        return Reasoning("", redacted=str(block.get("data") or ""))
    raise Untranslatable(path, f"a block of type {str(kind)[:30]!r} has no form in the engine's dialect")


def _result(content: Any, path: str) -> tuple[Text | Image, ...]:
    if content is None:
        return ()
    if isinstance(content, str):
        return (Text(content),)
    parts: list[Text | Image] = []
    for index, block in enumerate(content):
        part = _part(block, f"{path}.content[{index}]")
        if not isinstance(part, (Text, Image)):
            raise Untranslatable(f"{path}.content[{index}]", "a tool result can hold text and images")
        parts.append(part)
    return tuple(parts)


def _image(source: dict[str, Any], path: str) -> Image:
    if source.get("type") == "base64":
        return Image(media_type=str(source.get("media_type")), data=str(source.get("data")))
    if source.get("type") == "url":
        return Image(url=str(source.get("url")))
    raise Untranslatable(f"{path}.source", "only base64 and url images can be translated")


def _tool(row: dict[str, Any], path: str) -> Tool:
    if row.get("type") not in (None, "custom"):
        raise Untranslatable(path, "tools that Anthropic itself runs have no form in the engine's dialect")
    _only(row, path, {"type", "name", "description", "input_schema", "cache_control", "strict"})
    return Tool(
        str(row.get("name")), row.get("description"), row.get("input_schema") or {"type": "object"}, row.get("strict")
    )


def _choice(value: Any) -> tuple[ToolChoice | None, bool | None]:
    """(choice, parallel tool calls)."""
    if value is None:
        return None, None
    disabled = value.get("disable_parallel_tool_use")
    parallel = None if disabled is None else not disabled
    kind = value.get("type")
    if kind == "tool":
        return ToolChoice("named", str(value.get("name"))), parallel
    modes = {"auto": "auto", "any": "required", "none": "none"}
    if kind not in modes:
        raise Untranslatable("tool_choice", "only auto, any, none and a named tool can be translated")
    return ToolChoice(modes[kind]), parallel  # type: ignore[arg-type]  # the values are the mode's words


def _thinking_and_output(body: dict[str, Any]) -> tuple[int | None, str | None, OutputFormat | None]:
    thinking = body.get("thinking") or {}
    output = body.get("output_config") or {}
    _only(output, "output_config", {"effort", "format"})
    effort = output.get("effort")
    if effort is not None and effort not in _EFFORTS:
        raise Untranslatable("output_config.effort", f"the engine's dialect has no effort {str(effort)[:20]!r}")
    kind = thinking.get("type")
    if kind not in (None, "enabled", "disabled", "adaptive"):
        raise Untranslatable("thinking", "only enabled, adaptive and disabled can be translated")
    budget = 0 if kind == "disabled" else thinking.get("budget_tokens")
    if kind == "adaptive" and effort is None:
        effort = "high"
    wanted = output.get("format")
    if wanted is None:
        return budget, effort, None
    if wanted.get("type") != "json_schema":
        raise Untranslatable("output_config.format", "only json_schema can be translated")
    return budget, effort, OutputFormat(wanted.get("schema") or {}, strict=True)


def _only(row: dict[str, Any], path: str, known: set[str]) -> None:
    for name, value in row.items():
        if name not in known and value is not None:
            raise Untranslatable(f"{path}.*", "a field that the engine's dialect does not know")


def render(talk: Conversation, *, model: str, default_max_output: int) -> bytes:
    """A conversation as a messages request.  Anthropic demands a limit: the client's, or `default_max_output`."""
    limit = talk.max_output or default_max_output
    body: dict[str, Any] = {"model": model, "max_tokens": limit, "messages": _rows(talk), "stream": talk.stream}
    if talk.system:
        body["system"] = [{"type": "text", "text": part.text} for part in talk.system]
    if talk.tools:
        body["tools"] = [_tool_row(tool) for tool in talk.tools]
    choice = _choice_row(talk)
    if choice is not None:
        body["tool_choice"] = choice
    if talk.temperature is not None and talk.temperature > 1:
        raise Untranslatable("temperature", "Anthropic's dialect goes to 1")
    optional = {
        "temperature": talk.temperature,
        "top_p": talk.top_p,
        "top_k": talk.top_k,
        "stop_sequences": list(talk.stop) or None,
        "thinking": _thinking_row(talk, limit),
        "output_config": _output_row(talk),
        "metadata": {"user_id": talk.user} if talk.user else None,
    }
    body.update((name, value) for name, value in optional.items() if value is not None)
    return msgspec.json.encode(body)


def _rows(talk: Conversation) -> list[dict[str, Any]]:
    """Turns alternate: messages of one role in a row are one, and tool results come first in theirs."""
    rows: list[dict[str, Any]] = []
    for index, message in enumerate(talk.messages):
        blocks = [_block(part, f"messages[{index}].content") for part in message.parts]
        if rows and rows[-1]["role"] == message.role:
            rows[-1]["content"] += blocks
        else:
            rows.append({"role": message.role, "content": blocks})
    for row in rows:
        row["content"].sort(key=lambda block: block["type"] != "tool_result")  # stable: nothing else moves
    return rows


def _block(part: Part, path: str) -> dict[str, Any]:
    match part:
        case Text(text=text):
            return {"type": "text", "text": text}
        case Image():
            return {"type": "image", "source": _source(part)}
        case ToolCall(id=call_id, name=name, arguments=arguments):
            return {"type": "tool_use", "id": tool_id(call_id), "name": name, "input": _input(arguments, path)}
        case ToolResult(call_id=call_id, content=content, is_error=is_error):
            blocks = [_block(piece, path) for piece in content]
            return {
                "type": "tool_result",
                "tool_use_id": tool_id(call_id),
                "content": blocks,
                **({"is_error": True} if is_error else {}),
            }
        case Reasoning(text=text, signature=signature, redacted=redacted):
            if redacted is not None:
                return {"type": "redacted_thinking", "data": redacted}
            if signature is None:
                raise Untranslatable(path, "Anthropic takes thinking only with the signature that it gave")
            return {"type": "thinking", "thinking": text, "signature": signature}


def _source(image: Image) -> dict[str, Any]:
    if image.url is not None:
        return {"type": "url", "url": image.url}
    return {"type": "base64", "media_type": image.media_type, "data": image.data}


def _input(arguments: str, path: str) -> Any:
    try:
        value = msgspec.json.decode(arguments or "{}")
    except msgspec.DecodeError:
        value = None
    if not isinstance(value, dict):
        raise Untranslatable(path, "a tool call's arguments must be a JSON object")
    return value


def _tool_row(tool: Tool) -> dict[str, Any]:
    row: dict[str, Any] = {"name": tool.name, "input_schema": tool.parameters}
    if tool.description is not None:
        row["description"] = tool.description
    if tool.strict:
        row["strict"] = True
    return row


def _choice_row(talk: Conversation) -> dict[str, Any] | None:
    if not talk.tools:
        return None
    choice = talk.tool_choice
    if choice is None and talk.parallel_tool_calls is None:
        return None
    words = {"auto": "auto", "required": "any", "none": "none", "named": "tool"}
    row: dict[str, Any] = {"type": words[choice.mode] if choice is not None else "auto"}
    if choice is not None and choice.mode == "named":
        row["name"] = choice.name
    if talk.parallel_tool_calls is not None and row["type"] != "none":
        row["disable_parallel_tool_use"] = not talk.parallel_tool_calls
    return row


def _thinking_row(talk: Conversation, limit: int) -> dict[str, Any] | None:
    budget = talk.reasoning_budget
    if budget is None and talk.reasoning_effort is not None:
        budget = _BUDGETS.get(talk.reasoning_effort)
        if budget is None:
            raise Untranslatable(
                "reasoning_effort", f"Anthropic's dialect has no effort {talk.reasoning_effort[:20]!r}"
            )
        budget = max(LEAST_BUDGET, min(budget, limit // 2))
    if budget is None:
        return None
    if budget == 0:
        return {"type": "disabled"}
    if budget >= limit:
        raise Untranslatable("reasoning_effort", "the output limit leaves no room for thinking; raise max_tokens")
    return {"type": "enabled", "budget_tokens": budget}


def _output_row(talk: Conversation) -> dict[str, Any] | None:
    wanted = talk.output_format
    if wanted is None:
        return None
    if wanted.schema is None:
        raise Untranslatable(
            "response_format", "Anthropic's dialect has no JSON mode without a schema; send a json_schema"
        )
    return {"format": {"type": "json_schema", "schema": wanted.schema}}
