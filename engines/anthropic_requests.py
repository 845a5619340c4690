"""Anthropic message requests, both directions: body <-> `Conversation`.  For translation between dialects only.

What has no neutral word is refused by its path, never dropped in silence.  What is let go cannot change an answer:

- `cache_control` asks for a cheaper price on a later request and says nothing to an engine that caches by itself;
- a thinking block's signature means something only to the engine that made it;
- an image's `detail`, where it is `auto` or `high`: Anthropic looks as closely as it can, so `low` is refused;
- the name of an output schema, which OpenAI's dialect demands and Anthropic's has not;
- a text without a character in it, which Anthropic's API refuses.

Same-dialect requests keep all of it, as they keep everything.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from engines.anthropic_encoders import tool_id
from engines.checked import listed, mapped, maybe, named, only, typed
from engines.effort import budget_of
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
        "model", "messages", "stream", "system", "tools", "tool_choice", "max_tokens", "temperature", "top_p", "top_k",
        "stop_sequences", "thinking", "metadata", "output_config", "cache_control",
    }
)  # fmt: skip
_HARMLESS: dict[str, tuple[Any, ...]] = {"service_tier": ("auto", "standard_only"), "speed": ("standard",)}
_MODES: dict[str, Literal["auto", "required", "none"]] = {"auto": "auto", "any": "required", "none": "none"}
_EFFORTS = ("low", "medium", "high", "xhigh")
_NO_TEXT = Text("")


def conversation(request: Request) -> Conversation:
    """The neutral form of a messages request.

    A field of the wrong type is refused here too: an engine that speaks Anthropic's dialect may say so better.
    """
    body = request.body
    for name, value in body.items():
        if name not in _NEUTRAL and value is not None and value not in _HARMLESS.get(name, ()):
            raise Untranslatable(named(name), "the engine's dialect has no form for this field")
    metadata = mapped(body.get("metadata"), "metadata")
    only(metadata, "metadata", {"user_id"})
    choice, parallel = _choice(body.get("tool_choice"))
    budget, effort, wanted = _thinking_and_output(body)
    return Conversation(
        system=_system(body.get("system")),
        messages=tuple(_message(row, f"messages[{index}]") for index, row in enumerate(body["messages"])),
        stream=request.stream,
        tools=tuple(_tool(row, f"tools[{index}]") for index, row in enumerate(listed(body.get("tools"), "tools"))),
        tool_choice=choice,
        parallel_tool_calls=parallel,
        max_output=request.max_output,
        temperature=maybe(body, "temperature", float),
        top_p=maybe(body, "top_p", float),
        top_k=maybe(body, "top_k", int),
        stop=tuple(
            typed(word, f"stop_sequences[{index}]", str)
            for index, word in enumerate(listed(body.get("stop_sequences"), "stop_sequences"))
        ),
        output_format=wanted,
        reasoning_budget=budget,
        reasoning_effort=effort,
        user=maybe(metadata, "user_id", str, "metadata"),
    )


def _system(value: Any) -> tuple[Text, ...]:
    if isinstance(value, str):
        return (Text(value),)
    texts = []
    for index, row in enumerate(listed(value, "system")):
        path = f"system[{index}]"
        block = typed(row, path, dict)
        if block.get("type") != "text":
            raise Untranslatable(path, "only text can be translated")
        only(block, path, {"type", "text", "cache_control"})
        texts.append(Text(typed(block.get("text"), f"{path}.text", str)))
    return tuple(texts)


def _message(row: dict[str, Any], path: str) -> Message:
    role = row.get("role")
    only(row, path, {"role", "content"})
    content = row.get("content")
    if role != "user" and role != "assistant":
        raise Untranslatable(f"{path}.role", "this role has no neutral form")
    if isinstance(content, str):
        return Message(role, (Text(content),), path)
    blocks = listed(content, f"{path}.content")
    return Message(role, tuple(_part(block, f"{path}.content[{index}]") for index, block in enumerate(blocks)), path)


def _part(row: Any, path: str) -> Part:
    block = typed(row, path, dict)
    kind = block.get("type")
    if kind == "text":
        if block.get("citations"):
            raise Untranslatable(f"{path}.citations", "the engine's dialect has no citations")
        only(block, path, {"type", "text", "cache_control", "citations"})
        return Text(typed(block.get("text"), f"{path}.text", str))
    if kind == "image":
        only(block, path, {"type", "source", "cache_control"})
        return _image(mapped(block.get("source"), f"{path}.source"), f"{path}.source")
    if kind == "tool_use":
        only(block, path, {"type", "id", "name", "input", "cache_control", "caller"})
        if mapped(block.get("caller"), f"{path}.caller").get("type", "direct") != "direct":
            raise Untranslatable(f"{path}.caller", "the engine's dialect has no calls from within code")
        return ToolCall(
            typed(block.get("id"), f"{path}.id", str),
            typed(block.get("name"), f"{path}.name", str),
            msgspec.json.encode(mapped(block.get("input"), f"{path}.input")).decode(),
        )
    if kind == "tool_result":
        only(block, path, {"type", "tool_use_id", "content", "is_error", "cache_control"})
        return ToolResult(
            typed(block.get("tool_use_id"), f"{path}.tool_use_id", str),
            _result(block.get("content"), f"{path}.content"),
            bool(maybe(block, "is_error", bool, path)),
        )
    if kind == "thinking":
        only(block, path, {"type", "thinking", "signature"})
        return Reasoning(maybe(block, "thinking", str, path) or "", signature=maybe(block, "signature", str, path))
    if kind == "redacted_thinking":
        only(block, path, {"type", "data"})
        return Reasoning("", redacted=maybe(block, "data", str, path) or "")
    raise Untranslatable(path, "a block of this type has no form in the engine's dialect")


def _result(content: Any, path: str) -> tuple[Text | Image, ...]:
    if isinstance(content, str):
        return (Text(content),)
    parts: list[Text | Image] = []
    for index, block in enumerate(listed(content, path)):
        part = _part(block, f"{path}[{index}]")
        if not isinstance(part, (Text, Image)):
            raise Untranslatable(f"{path}[{index}]", "a tool result can hold text and images")
        parts.append(part)
    return tuple(parts)


def _image(source: dict[str, Any], path: str) -> Image:
    if source.get("type") == "base64":
        only(source, path, {"type", "media_type", "data"})
        return Image(
            media_type=typed(source.get("media_type"), f"{path}.media_type", str),
            data=typed(source.get("data"), f"{path}.data", str),
        )
    if source.get("type") == "url":
        only(source, path, {"type", "url"})
        return Image(url=typed(source.get("url"), f"{path}.url", str))
    raise Untranslatable(path, "only base64 and url images can be translated")


def _tool(row: dict[str, Any], path: str) -> Tool:
    if row.get("type") not in (None, "custom"):
        raise Untranslatable(path, "tools that Anthropic itself runs have no form in the engine's dialect")
    only(row, path, {"type", "name", "description", "input_schema", "cache_control", "strict"})
    return Tool(
        typed(row.get("name"), f"{path}.name", str),
        maybe(row, "description", str, path),
        maybe(row, "input_schema", dict, path) or {"type": "object"},
        maybe(row, "strict", bool, path),
    )


def _choice(value: Any) -> tuple[ToolChoice | None, bool | None]:
    """(choice, parallel tool calls)."""
    if value is None:
        return None, None
    row = typed(value, "tool_choice", dict)
    only(row, "tool_choice", {"type", "name", "disable_parallel_tool_use"})
    disabled = maybe(row, "disable_parallel_tool_use", bool, "tool_choice")
    parallel = None if disabled is None else not disabled
    kind = row.get("type")
    if kind == "tool":
        return ToolChoice("named", typed(row.get("name"), "tool_choice.name", str)), parallel
    mode = _MODES.get(kind) if isinstance(kind, str) else None
    if mode is None:
        raise Untranslatable("tool_choice", "only auto, any, none and a named tool can be translated")
    return ToolChoice(mode), parallel


def _thinking_and_output(body: dict[str, Any]) -> tuple[int | None, str | None, OutputFormat | None]:
    """(budget of thinking in tokens, effort, form of the answer)."""
    output = mapped(body.get("output_config"), "output_config")
    only(output, "output_config", {"effort", "format"})
    effort = maybe(output, "effort", str, "output_config")
    if effort is not None and effort not in _EFFORTS:
        raise Untranslatable("output_config.effort", "the engine's dialect has no such effort")
    budget, adaptive = _thinking(body.get("thinking"))
    if adaptive and effort is None:
        effort = "high"
    if output.get("format") is None:
        return budget, effort, None
    path = "output_config.format"
    wanted = typed(output["format"], path, dict)
    if wanted.get("type") != "json_schema":
        raise Untranslatable(path, "only json_schema can be translated")
    only(wanted, path, {"type", "schema"})
    return budget, effort, OutputFormat(typed(wanted.get("schema"), f"{path}.schema", dict), strict=True)


def _thinking(value: Any) -> tuple[int | None, bool]:
    """(budget in tokens: 0 is off, None not stated; is the model itself to choose?)."""
    if value is None:
        return None, False
    row = typed(value, "thinking", dict)
    kind = row.get("type")
    if kind == "enabled":
        only(row, "thinking", {"type", "budget_tokens"})
        budget = typed(row.get("budget_tokens"), "thinking.budget_tokens", int)
        if budget < 1:
            raise Untranslatable("thinking.budget_tokens", "must be at least 1")
        return budget, False
    if kind != "disabled" and kind != "adaptive":
        raise Untranslatable("thinking", "only enabled, adaptive and disabled can be translated")
    only(row, "thinking", {"type"})
    return (0, False) if kind == "disabled" else (None, True)


def render(talk: Conversation, *, model: str, default_max_output: int) -> bytes:
    """A conversation as a messages request.  Anthropic demands a limit: the client's, or `default_max_output`."""
    limit = default_max_output if talk.max_output is None else talk.max_output
    body: dict[str, Any] = {"model": model, "max_tokens": limit, "messages": _rows(talk), "stream": talk.stream}
    system = [{"type": "text", "text": part.text} for part in talk.system if part.text]
    if system:
        body["system"] = system
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
    for message in talk.messages:
        blocks = [_block(part, f"{message.path}.content") for part in message.parts if part != _NO_TEXT]
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
            return {"type": "image", "source": _source(part, path)}
        case ToolCall(id=call_id, name=name, arguments=arguments):
            return {"type": "tool_use", "id": tool_id(call_id), "name": name, "input": _input(arguments, path)}
        case ToolResult(call_id=call_id, content=content, is_error=is_error):
            blocks = [_block(piece, path) for piece in content if piece != _NO_TEXT]
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


def _source(image: Image, path: str) -> dict[str, Any]:
    if image.detail not in (None, "auto", "high"):  # Anthropic looks at every image as closely as it can
        raise Untranslatable(f"{path}.detail", "Anthropic's dialect has no coarser look at an image; leave it out")
    if image.url is not None:
        return {"type": "url", "url": image.url}
    return {"type": "base64", "media_type": image.media_type, "data": image.data}


def _input(arguments: str, path: str) -> Any:
    value = nested_object(arguments)
    if value is None:
        raise Untranslatable(path, "a tool call's arguments must be a JSON object, not too deeply nested")
    return value


def _tool_row(tool: Tool) -> dict[str, Any]:
    row: dict[str, Any] = {"name": tool.name, "input_schema": tool.parameters}
    if tool.description is not None:
        row["description"] = tool.description
    if tool.strict:
        row["strict"] = True
    return row


def _choice_row(talk: Conversation) -> dict[str, Any] | None:
    choice = talk.tool_choice
    if not talk.tools:
        if choice is not None and choice.mode in ("required", "named"):
            raise Untranslatable("tool_choice", "there are no tools to choose from")
        return None
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
        budget = budget_of(talk.reasoning_effort, limit)
        if budget is None:
            raise Untranslatable("reasoning_effort", "Anthropic's dialect has no such effort")
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
