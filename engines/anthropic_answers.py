"""Anthropic's message answers from an engine: stream events and whole messages -> events.

Shapes: Anthropic API reference, "Streaming messages" and "Messages"; the types of the `anthropic` package.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

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
    ReasoningSeal,
    Start,
    TextDelta,
    TokenCount,
    ToolCallDelta,
    ToolCallStart,
    Usage,
    UsageReport,
)
from engines.rates import tier_of
from engines.rawjson import UNREADABLE, readable
from engines.refusals import message_of

_STOP: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "refusal",
    "pause_turn": "pause",
}
ERROR_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_NEUTRAL = {
    "invalid_request_error": "invalid_request",
    "authentication_error": "authentication",
    "billing_error": "permission",
    "permission_error": "permission",
    "not_found_error": "not_found",
    "request_too_large": "invalid_request",
    "rate_limit_error": "rate_limit",
    "timeout_error": "timeout",
    "overloaded_error": "overloaded",
}
CALLS_LIMIT = 4096
"""Tool calls of one answer; more is no answer of a model."""
_NOTHING = Raw(b"")
_EMPTY = frozenset({b"", b"null", b"[]", b"{}"})


class _Creation(Struct):
    ephemeral_5m_input_tokens: TokenCount | None = None
    ephemeral_1h_input_tokens: TokenCount | None = None


class _OutDetails(Struct):
    thinking_tokens: TokenCount | None = None
    reasoning_tokens: TokenCount | None = None


class _Usage(Struct):
    input_tokens: TokenCount | None = None
    output_tokens: TokenCount | None = None
    cache_read_input_tokens: TokenCount | None = None
    cache_creation_input_tokens: TokenCount | None = None
    cache_creation: _Creation | None = None
    output_tokens_details: _OutDetails | None = None
    service_tier: Any = None  # that answered


class _Block(Struct):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: Raw = _NOTHING
    citations: Raw = _NOTHING


class _Delta(Struct):
    type: str = ""
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    signature: str | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None


class _Message(Struct):
    id: str | None = None
    type: str | None = None
    model: str | None = None
    content: list[Raw] | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: _Usage | None = None
    error: Any = None
    input_tokens: TokenCount | None = None


class _Event(Struct):
    type: str = ""
    message: _Message | None = None
    index: int = 0
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: _Usage | None = None
    error: Any = None


_event = msgspec.json.Decoder(_Event).decode
_block = msgspec.json.Decoder(_Block).decode
_message = msgspec.json.Decoder(_Message).decode


class Decoder:
    """One stream's frames -> events."""

    __slots__ = ("_begun", "_calls", "_usage")

    def __init__(self) -> None:
        self._calls: dict[int, int] = {}  # block index -> index among the tool calls
        self._begun = 0  # tool calls so far
        self._usage = Usage()

    def feed(self, frame: Frame) -> Sequence[Event]:
        if frame.data is None:
            return (Ping(),)
        try:
            event = _event(frame.data)
        except UNREADABLE:
            raise MalformedAnswer("an event is not one of the Messages API") from None
        kind = event.type
        if kind == "content_block_delta" and event.delta is not None:
            return self._delta(event.index, event.delta, frame.data)
        if kind == "content_block_start" and event.content_block is not None:
            return self.block(event.index, event.content_block, frame.data)
        if kind == "content_block_stop":
            return ()
        if kind == "ping":
            return (Ping(),)
        if kind == "message_start" and event.message is not None:
            return (Start(event.message.id or "", event.message.model or ""), self._count(event.message.usage))
        if kind == "message_delta":
            stop = event.delta or _Delta()
            finish = _finish(stop.stop_reason, stop.stop_sequence) if stop.stop_reason else ()
            return (*finish, self._count(event.usage))
        if kind == "message_stop":
            return (Done(),)
        if kind == "error" or event.error is not None:
            return (Failed(error_of(event.error)),)
        return (Opaque(kind or "event", carries_text=True, text=readable(frame.data)),)

    def _delta(self, index: int, delta: _Delta, raw: bytes) -> Sequence[Event]:
        kind = delta.type
        if kind == "text_delta":
            return (TextDelta(0, delta.text or ""),)
        if kind == "input_json_delta":
            call = self._calls.get(index)
            if not delta.partial_json:
                return (Ping(),)
            if call is None:
                return (Opaque("server_tool_use", carries_text=True, text=delta.partial_json),)
            return (ToolCallDelta(0, call, delta.partial_json),)
        if kind == "thinking_delta":
            return (ReasoningDelta(0, delta.thinking or ""),)
        if kind == "signature_delta":
            return (ReasoningSeal(0, signature=delta.signature),)
        return (Opaque(kind or "delta", carries_text=True, text=readable(raw)),)

    def block(self, index: int, block: _Block, raw: bytes) -> Sequence[Event]:
        """A block, or its beginning; `raw` is where it stands: what is not understood of it is to be looked for there."""
        kind = block.type
        if kind == "text":
            said = TextDelta(0, block.text or "")
            cited = bytes(block.citations)
            return (said,) if cited in _EMPTY else (said, Opaque("citations", carries_text=True, text=readable(cited)))
        if kind == "tool_use":
            if self._begun >= CALLS_LIMIT:
                raise MalformedAnswer("the answer has too many tool calls")
            call = self._calls[index] = self._begun
            self._begun += 1
            start = ToolCallStart(0, call, block.id or "", block.name or "")
            arguments = _text(block.input)  # in a stream they come as deltas
            return (start, ToolCallDelta(0, call, arguments)) if arguments else (start,)
        if kind == "thinking":
            thought = ReasoningDelta(0, block.thinking or "")
            return (thought, ReasoningSeal(0, signature=block.signature)) if block.signature else (thought,)
        if kind == "redacted_thinking":
            return (ReasoningSeal(0, redacted=block.data or ""),)
        return (Opaque(kind or "block", carries_text=True, text=readable(raw)),)

    def _count(self, usage: _Usage | None) -> UsageReport:
        """Cumulative: what a later event leaves out stands as it was."""
        if usage is not None:
            self._usage = usage_of(usage, self._usage)
        return UsageReport(self._usage)


def decode_answer(operation: Operation, body: bytes) -> Sequence[Event]:
    """A whole message as events; a token count is a usage."""
    try:
        message = _message(body)
    except UNREADABLE:
        raise MalformedAnswer("the answer is not a message") from None
    if message.error is not None or message.type == "error":
        return (Failed(error_of(message.error)),)
    if operation is Operation.COUNT_TOKENS:
        if message.input_tokens is None:
            raise MalformedAnswer("the answer has no input_tokens")
        return (UsageReport(Usage()), Done())
    if message.content is None:
        raise MalformedAnswer("the answer has no content")
    decoder = Decoder()
    events: list[Event] = [Start(message.id or "", message.model or "")]
    for index, raw in enumerate(message.content):
        try:
            block = _block(raw)
        except UNREADABLE:
            raise MalformedAnswer("a block is not one of the Messages API") from None
        events += decoder.block(index, block, bytes(raw))
    events += _finish(message.stop_reason, message.stop_sequence)
    if message.usage is not None:
        events.append(UsageReport(usage_of(message.usage, Usage())))
    events.append(Done())
    return events


def _finish(word: str | None, stop_sequence: str | None) -> Sequence[Event]:
    """An answer's end.  An unknown reason may be a failure: it passes where dialects match, and is refused where it would
    have to be translated, rather than made a success."""
    reason = _STOP.get(word) if word is not None else None
    if reason is None:
        return (Opaque("stop_reason", carries_text=True, text=word or "none"), Finish(0, "stop", stop_sequence))
    return (Finish(0, reason, stop_sequence),)


def _text(raw: Raw) -> str:
    """The JSON text of a tool call's arguments; empty where there are none."""
    text = bytes(raw)
    try:
        return "" if text in _EMPTY else text.decode()
    except UnicodeDecodeError:
        raise MalformedAnswer("a tool call's arguments are not UTF-8") from None


def usage_of(usage: _Usage, before: Usage) -> Usage:
    """Disjoint meters: Anthropic's input tokens exclude what was read from or written to the cache.

    A stream's last event has the cache's total without its parts: what was known of the parts stands, and the
    rest is of the cheaper, usual kind.
    """
    total, parts = usage.cache_creation_input_tokens, usage.cache_creation
    five = parts.ephemeral_5m_input_tokens if parts is not None else None
    one_hour = _or(parts.ephemeral_1h_input_tokens if parts is not None else None, before.cache_write_1h)
    silent = total is None and five is None
    details = usage.output_tokens_details
    reasoning = (details.thinking_tokens or details.reasoning_tokens) if details is not None else None
    return Usage(
        input=_or(usage.input_tokens, before.input),
        cache_read=_or(usage.cache_read_input_tokens, before.cache_read),
        cache_write_5m=before.cache_write_5m if silent else max(five or 0, (total or 0) - one_hour),
        cache_write_1h=one_hour,
        output=_or(usage.output_tokens, before.output),
        reasoning=_or(reasoning, before.reasoning),
        tier=before.tier if usage.service_tier is None else tier_of(usage.service_tier),
    )


def error_of(error: Any, status: int | None = None) -> ErrorInfo:
    """Anthropic's error object; an event has no status of its own, so its type gives one."""
    row: dict[str, Any] = error if isinstance(error, dict) else {}
    word = row.get("type")
    kind = word if isinstance(word, str) and word else "api_error"
    if status is None:
        status = ERROR_STATUS.get(kind, 500)
    neutral = _NEUTRAL.get(kind) or ("api" if status >= 500 else "invalid_request")
    return ErrorInfo(status, neutral, message_of(row), kind)


def _or(value: int | None, before: int) -> int:
    return before if value is None else value
