"""OpenAI's chat answers for a client: events -> chunks, or one whole completion.

Shapes: OpenAI API reference, "chat completion object" and "chat completion chunk object".  A signature of reasoning
matters only to the engine that made it, and is left out.
"""

from __future__ import annotations

from typing import Any

import msgspec

from engines.errors import MalformedAnswer, Untranslatable
from engines.model import (
    Done,
    Event,
    Failed,
    Finish,
    FinishReason,
    Opaque,
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
from engines.sse import event_bytes

_FINISH_BACK = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "content_filter",
}
_DONE = b"data: [DONE]\n\n"


class StreamEncoder:
    """Events -> chat completion chunks."""

    def __init__(self, request: Request, *, answer_id: str, created: int) -> None:
        self._head = {
            "id": f"chatcmpl-{answer_id}",
            "object": "chat.completion.chunk",
            "created": created,
            "model": request.model,
        }
        self._wants_usage = request.wants_usage
        self._usage: Usage | None = None
        self._roles: set[int] = set()
        self._finished = False

    def feed(self, event: Event) -> bytes:
        match event:
            case TextDelta(choice=choice, text=text):
                return self._delta(choice, {"content": text} if text else {})
            case RefusalDelta(choice=choice, text=text):
                return self._delta(choice, {"refusal": text})
            case ReasoningDelta(choice=choice, text=text):
                return self._delta(choice, {"reasoning_content": text})
            case ToolCallStart(choice=choice, index=index, id=call_id, name=name):
                call = {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
                return self._delta(choice, {"tool_calls": [call]})
            case ToolCallDelta(choice=choice, index=index, arguments=arguments):
                return self._delta(choice, {"tool_calls": [{"index": index, "function": {"arguments": arguments}}]})
            case Finish(choice=choice, reason=reason):
                self._finished = True
                return self._chunk(
                    [{"index": choice, "delta": {}, "logprobs": None, "finish_reason": finish_back(reason)}]
                )
            case UsageReport(usage=usage):
                self._usage = usage
                return b""
            case Done():
                if not self._finished:
                    raise MalformedAnswer("the answer has no end")
                usage_chunk = self._chunk([], self._usage or Usage(quality="estimated")) if self._wants_usage else b""
                return usage_chunk + _DONE
            case Start():
                return self._delta(0, {})
            case Ping():
                return b": ping\n\n"
            case ReasoningSeal(redacted=redacted):
                return _seal(redacted)
            case Opaque() | Failed():
                return b""

    def flush(self) -> bytes:
        return b""

    def _delta(self, choice: int, delta: dict[str, Any]) -> bytes:
        if choice not in self._roles:
            self._roles.add(choice)
            delta = (
                {"role": "assistant", "content": "", **delta}
                if "content" not in delta
                else {"role": "assistant", **delta}
            )
        elif not delta:
            return b""
        return self._chunk([{"index": choice, "delta": delta, "logprobs": None, "finish_reason": None}])

    def _chunk(self, choices: list[dict[str, Any]], usage: Usage | None = None) -> bytes:
        row: dict[str, Any] = {**self._head, "choices": choices}
        if self._wants_usage:
            row["usage"] = None if usage is None else usage_row(usage)
        return event_bytes(msgspec.json.encode(row))


class WholeEncoder:
    """Events -> one chat completion."""

    def __init__(self, request: Request, *, answer_id: str, created: int) -> None:
        self._head = {
            "id": f"chatcmpl-{answer_id}",
            "object": "chat.completion",
            "created": created,
            "model": request.model,
        }
        self._texts: dict[tuple[int, str], list[str]] = {}
        self._calls: dict[tuple[int, int], dict[str, Any]] = {}
        self._finish: dict[int, str] = {}
        self._usage = Usage(quality="estimated")

    def feed(self, event: Event) -> bytes:
        match event:
            case TextDelta(choice=choice, text=text):
                self._texts.setdefault((choice, "content"), []).append(text)
            case RefusalDelta(choice=choice, text=text):
                self._texts.setdefault((choice, "refusal"), []).append(text)
            case ReasoningDelta(choice=choice, text=text):
                self._texts.setdefault((choice, "reasoning_content"), []).append(text)
            case ToolCallStart(choice=choice, index=index, id=call_id, name=name):
                self._calls[choice, index] = {
                    "id": call_id,
                    "type": "function",
                    "function": {"name": name, "arguments": ""},
                }
            case ToolCallDelta(choice=choice, index=index, arguments=arguments):
                self._calls[choice, index]["function"]["arguments"] += arguments
            case Finish(choice=choice, reason=reason):
                self._finish[choice] = finish_back(reason)
            case UsageReport(usage=usage):
                self._usage = usage
            case ReasoningSeal(redacted=redacted):
                _seal(redacted)
            case Start() | Done() | Ping() | Opaque() | Failed():
                pass
        return b""

    def flush(self) -> bytes:
        if not self._finish:
            raise MalformedAnswer("the answer has no end")
        choices = [self._choice(choice) for choice in sorted(self._finish)]
        return msgspec.json.encode({**self._head, "choices": choices, "usage": usage_row(self._usage)})

    def _choice(self, choice: int) -> dict[str, Any]:
        def joined(field: str) -> str | None:
            return "".join(self._texts[choice, field]) if (choice, field) in self._texts else None

        message: dict[str, Any] = {"role": "assistant", "content": joined("content"), "refusal": joined("refusal")}
        if (reasoning := joined("reasoning_content")) is not None:
            message["reasoning_content"] = reasoning
        calls = [call for (owner, _), call in sorted(self._calls.items()) if owner == choice]
        if calls:
            message["tool_calls"] = calls
        return {"index": choice, "message": message, "logprobs": None, "finish_reason": self._finish[choice]}


def finish_back(reason: FinishReason) -> str:
    """The neutral reason in OpenAI's words; a paused turn has none."""
    word = _FINISH_BACK.get(reason)
    if word is None:
        raise Untranslatable("stop_reason", f"OpenAI's dialect has no word for {reason!r}")
    return word


def usage_row(usage: Usage) -> dict[str, Any]:
    """OpenAI's usage object: prompt tokens include what was cached."""
    prompt = usage.input + usage.cache_read + usage.cache_write_5m + usage.cache_write_1h
    return {
        "prompt_tokens": prompt,
        "completion_tokens": usage.output,
        "total_tokens": prompt + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def _seal(redacted: str | None) -> bytes:
    """A signature only matters to the engine that made it, and goes with the reasoning; hidden reasoning is content."""
    if redacted is not None:
        raise Untranslatable("content.redacted_thinking", "OpenAI's dialect cannot carry it")
    return b""
