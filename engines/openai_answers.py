"""OpenAI chat answers from an engine: chunks and whole completions -> events.

Shapes: OpenAI API reference, "chat completion object" and "chat completion chunk object"; with what vLLM,
llama.cpp, llama-cpp-python, Azure and DeepSeek do differently (reasoning fields, empty first choices, null
contents, integer error codes).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engines.errors import MalformedAnswer
from engines.model import (
    Done,
    ErrorInfo,
    Event,
    Failed,
    Finish,
    FinishReason,
    Frame,
    Opaque,
    Operation,
    Ping,
    ReasoningDelta,
    RefusalDelta,
    Start,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
    UsageReport,
)
from engines.openai_shapes import Function, Said, ToolCall, UsagePart, decode_chunk, decode_embeddings
from engines.rates import tier_of
from engines.rawjson import UNREADABLE
from engines.refusals import message_of, neutral_type

_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
LONGEST_TIME = 86_400_000
"""Milliseconds of a time that an engine may report."""
CALLS_LIMIT = 4096
"""Tool calls of one answer; more is no answer of a model."""


class Decoder:
    """One stream's frames -> events."""

    __slots__ = ("_calls", "_latest", "_started", "_tier")

    def __init__(self) -> None:
        self._started = False
        self._tier: Any = None
        self._calls: dict[tuple[int, int | str], tuple[int, str | None]] = {}
        self._latest: dict[int, tuple[int, str | None]] = {}

    def feed(self, frame: Frame) -> Sequence[Event]:
        data = frame.data
        if data is None:
            return (Ping(),)
        if data == b"[DONE]":
            return (Done(),)
        try:
            chunk = decode_chunk(data)
        except UNREADABLE:
            raise MalformedAnswer("an event is not a chat completion chunk") from None
        if chunk.error is not None or frame.event == "error":
            return (Failed(error_of(chunk.error)),)
        events: list[Event] = []
        if not self._started and (chunk.id or chunk.choices):
            self._started = True
            events.append(Start(chunk.id or "", chunk.model or "", int(chunk.created or 0)))
        if chunk.service_tier is not None:
            self._tier = chunk.service_tier
        choices = chunk.choices
        if choices:
            for choice in choices:
                if choice.delta is not None:
                    self._said(choice.index, choice.delta, events)
                if choice.finish_reason:
                    _finish(choice.index, choice.finish_reason, events)
        if chunk.usage is not None:
            events.append(UsageReport(usage_of(chunk.usage, chunk.timings, self._tier), alone=not choices))
        return events or (Ping(),)

    def _said(self, choice: int, said: Said, events: list[Event]) -> None:
        if said.content:
            events.append(TextDelta(choice, said.content))
        reasoning = said.reasoning_content or said.reasoning
        if reasoning:
            events.append(ReasoningDelta(choice, reasoning))
        if said.refusal:
            events.append(RefusalDelta(choice, said.refusal))
        if said.tool_calls:
            for call in said.tool_calls:
                self._call(choice, call, events)
        if said.function_call is not None:
            called = said.function_call
            events.append(Opaque("function_call", carries_text=True, text=called.arguments or called.name or ""))
        if said.audio is not None:
            spoken = said.audio.get("transcript") if isinstance(said.audio, dict) else None
            events.append(Opaque("audio", carries_text=True, text=spoken if isinstance(spoken, str) else ""))

    def _call(self, choice: int, call: ToolCall, events: list[Event]) -> None:
        """A call goes by its index.  Engines that leave it out, or give every call the same, tell calls apart by id."""
        function = call.function or Function()
        key = (call.id or None) if call.index is None else call.index
        known = (
            self._calls.get((choice, key)) if key is not None else None if function.name else self._latest.get(choice)
        )
        if known is None or (call.id and known[1] and call.id != known[1] and function.name):
            index = self._latest[choice][0] + 1 if choice in self._latest else 0
            if index >= CALLS_LIMIT or len(self._calls) >= CALLS_LIMIT:
                raise MalformedAnswer("the answer has too many tool calls")
            known = (index, call.id)
            self._calls[choice, index if key is None else key] = known
            events.append(ToolCallStart(choice, index, call.id or f"call_{choice}_{index}", function.name or ""))
            self._latest[choice] = known
        if function.arguments:
            events.append(ToolCallDelta(choice, known[0], function.arguments))


def _finish(choice: int, word: str | None, events: list[Event]) -> None:
    """A choice's end.  An unknown reason may be a failure ("abort", "error"): it passes where dialects match, and is
    refused where it would have to be translated, rather than made a success."""
    reason = _FINISH.get(word) if word is not None else None
    if reason is None:
        events.append(Opaque("finish_reason", carries_text=True, text=word or "none"))
    events.append(Finish(choice, reason or "stop"))


def decode_answer(operation: Operation, body: bytes, *, read: bool = True) -> Sequence[Event]:
    """A whole answer as events; for embeddings its usage alone, since vectors say nothing to a reader."""
    try:
        if operation is Operation.EMBEDDINGS:
            answer = decode_embeddings(body)
            usage = () if answer.usage is None else (UsageReport(usage_of(answer.usage)),)
            return (*usage, Done())
        chunk = decode_chunk(body)
    except UNREADABLE:
        raise MalformedAnswer("the answer is not a completion") from None
    if chunk.error is not None:
        return (Failed(error_of(chunk.error)),)
    if chunk.choices is None:
        raise MalformedAnswer("the answer has no choices")
    if not read and chunk.usage is not None:
        return UsageReport(usage_of(chunk.usage, chunk.timings, chunk.service_tier)), Done()
    decoder = Decoder()
    events: list[Event] = [Start(chunk.id or "", chunk.model or "", int(chunk.created or 0))]
    for choice in chunk.choices:
        if choice.message is not None:
            for position, call in enumerate(choice.message.tool_calls or ()):
                call.index = position  # a whole answer counts by place
            decoder._said(choice.index, choice.message, events)
        _finish(choice.index, choice.finish_reason, events)
    if chunk.usage is not None:
        events.append(UsageReport(usage_of(chunk.usage, chunk.timings, chunk.service_tier)))
    events.append(Done())
    return events


def usage_of(usage: UsagePart, timings: Any = None, tier: Any = None) -> Usage:
    """Disjoint meters: OpenAI's prompt tokens include the cached ones, and those of sound."""
    details = usage.prompt_tokens_details
    if details is None and usage.completion_tokens_details is None and timings is None and tier is None:
        return Usage(input=usage.prompt_tokens or 0, output=usage.completion_tokens or 0)
    cached = (details.cached_tokens or 0) if details is not None else 0
    written = (details.cache_write_tokens or 0) if details is not None else 0
    out = usage.completion_tokens_details
    reasoning = (out.reasoning_tokens or 0) if out is not None else 0
    heard = (details.audio_tokens or 0) if details is not None else 0
    spoken = (out.audio_tokens or 0) if out is not None else 0
    prompt = usage.prompt_tokens or 0
    return Usage(
        input=max(0, prompt - cached - written),
        cache_read=cached,
        cache_write_5m=written,
        output=usage.completion_tokens or 0,
        reasoning=reasoning,
        prefill_us=_micro(timings, "prompt_ms"),
        decode_us=_micro(timings, "predicted_ms"),
        audio_input=heard,
        audio_output=spoken,
        tier=tier_of(tier) if tier is not None else "",
    )


def _micro(timings: Any, name: str) -> int:
    """Microseconds of a time that the engine reports in milliseconds; 0: it says nothing that can be one."""
    value = timings.get(name) if isinstance(timings, dict) else None
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < LONGEST_TIME:
        return 0  # NaN compares as false
    return round(value * 1000)


def error_of(error: Any, status: int | None = None) -> ErrorInfo:
    """OpenAI's error object, or what engines send instead of one; `status` is HTTP's, where there is one."""
    row: dict[str, Any] = error if isinstance(error, dict) else {"message": error}
    code, kind, param = row.get("code"), row.get("type"), row.get("param")
    if status is None:
        status = code if isinstance(code, int) and 400 <= code <= 599 else 429 if code == "rate_limit_exceeded" else 500
    word = str(code) if isinstance(code, (str, int)) else kind if isinstance(kind, str) else None
    return ErrorInfo(
        status=status,
        type=neutral_type(status),
        message=message_of(row),
        code=word,
        param=param if isinstance(param, str) else None,
    )
