"""Anthropic's message answers, both directions: stream events and whole messages <-> events.

Shapes: Anthropic API reference, "Streaming messages" and "Messages"; the types of the `anthropic` package.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from engines.errors import MalformedAnswer, Untranslatable
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
    RefusalDelta,
    Request,
    Start,
    TextDelta,
    TokenCount,
    ToolCallDelta,
    ToolCallStart,
    Usage,
    UsageReport,
)
from engines.rawjson import UNREADABLE
from engines.sse import event_bytes

_STOP: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "refusal",
    "pause_turn": "pause",
}
_STOP_BACK: dict[FinishReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "refusal": "refusal",
    "pause": "pause_turn",
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
BUFFER_LIMIT = 1024 * 1024
"""Bytes of tool arguments kept while another block is open: Anthropic's blocks come one after another."""

_TOOL_ID = re.compile(r"[^a-zA-Z0-9_-]")


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


class _Block(Struct):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: Any = None
    citations: list[Any] | None = None


class _Delta(Struct):
    type: str = ""
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    signature: str | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    citation: Any = None


class _Message(Struct):
    id: str | None = None
    type: str | None = None
    model: str | None = None
    content: list[_Block] | None = None
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
_message = msgspec.json.Decoder(_Message).decode


class Decoder:
    """One stream's frames -> events."""

    __slots__ = ("_calls", "_usage")

    def __init__(self) -> None:
        self._calls: dict[int, int] = {}  # block index -> index among the tool calls
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
            return self._delta(event.index, event.delta)
        if kind == "content_block_start" and event.content_block is not None:
            return self._block(event.index, event.content_block, frame.data)
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
        return (Opaque(kind or "event", carries_text=True, text=frame.data.decode("utf-8", "replace")),)

    def _delta(self, index: int, delta: _Delta) -> Sequence[Event]:
        kind = delta.type
        if kind == "text_delta":
            return (TextDelta(0, delta.text or ""),)
        if kind == "input_json_delta":
            call = self._calls.get(index)
            if call is None:
                return (Opaque("server_tool_use", carries_text=True, text=delta.partial_json or ""),)
            return (ToolCallDelta(0, call, delta.partial_json),) if delta.partial_json else (Ping(),)
        if kind == "thinking_delta":
            return (ReasoningDelta(0, delta.thinking or ""),)
        if kind == "signature_delta":
            return (ReasoningSeal(0, signature=delta.signature),)
        return (Opaque(kind, carries_text=True, text=_json_text(delta)),)

    def _block(self, index: int, block: _Block, raw: bytes) -> Sequence[Event]:
        """`raw` is where the block stands: what is not understood of it is to be looked for there."""
        kind = block.type
        if kind == "text":
            return (TextDelta(0, block.text),) if block.text else (TextDelta(0, ""),)
        if kind == "tool_use":
            call = self._calls[index] = len(self._calls)
            start = ToolCallStart(0, call, block.id or "", block.name or "")
            if not block.input:  # in a stream the arguments come as deltas
                return (start,)
            return (start, ToolCallDelta(0, call, msgspec.json.encode(block.input).decode()))
        if kind == "thinking":
            return (ReasoningDelta(0, block.thinking or ""),)
        if kind == "redacted_thinking":
            return (ReasoningSeal(0, redacted=block.data or ""),)
        return (Opaque(kind, carries_text=True, text=raw.decode("utf-8", "replace")),)

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
    for index, block in enumerate(message.content):
        events += decoder._block(index, block, body)
        if block.type == "thinking" and block.signature:
            events.append(ReasoningSeal(0, signature=block.signature))
        if block.citations:
            events.append(Opaque("citations", carries_text=True, text=_json_text(block.citations)))
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


def _json_text(value: Any) -> str:
    """What a part that is not understood says, for whoever must look for identifiers in it."""
    return msgspec.json.encode(value).decode()


def usage_of(usage: _Usage, before: Usage) -> Usage:
    """Disjoint meters: Anthropic's input tokens exclude what was read from or written to the cache."""
    written = usage.cache_creation_input_tokens
    one_hour = usage.cache_creation.ephemeral_1h_input_tokens if usage.cache_creation is not None else None
    details = usage.output_tokens_details
    reasoning = (details.thinking_tokens or details.reasoning_tokens) if details is not None else None
    return Usage(
        input=_or(usage.input_tokens, before.input),
        cache_read=_or(usage.cache_read_input_tokens, before.cache_read),
        cache_write_5m=before.cache_write_5m if written is None else max(0, written - (one_hour or 0)),
        cache_write_1h=_or(one_hour, before.cache_write_1h),
        output=_or(usage.output_tokens, before.output),
        reasoning=_or(reasoning, before.reasoning),
    )


def error_of(error: Any, status: int | None = None) -> ErrorInfo:
    """Anthropic's error object; an event has no status of its own, so its type gives one."""
    row: dict[str, Any] = error if isinstance(error, dict) else {}
    kind = str(row.get("type") or "api_error")
    if status is None:
        status = ERROR_STATUS.get(kind, 500)
    neutral = _NEUTRAL.get(kind) or ("api" if status >= 500 else "invalid_request")
    return ErrorInfo(status, neutral, str(row.get("message") or "the engine reported an error"), kind)


def _or(value: int | None, before: int) -> int:
    return before if value is None else value


class _Blocks:
    """Lays neutral events out as Anthropic's content blocks, which come strictly one after another.

    A fragment of a tool call whose block is not the open one waits until the open one closes.
    """

    def __init__(self) -> None:
        self.open: tuple[str, int] | None = None  # (kind, tool call's index)
        self._waiting: dict[int, list[Event]] = {}
        self._waiting_bytes = 0

    def place(self, event: Event) -> list[tuple[str, Event | None]]:
        """Steps to write: ("start", event), ("delta", event), ("stop", None), in order."""
        key = _block_key(event)
        if self.open == key:
            return [("delta", event)]
        if self.open is not None and self.open[0] == "tool" and key[0] == "tool":
            self._wait(key[1], event)  # parallel calls: more of the open one may still come
            return []
        return [*self.close(), *self._begin(event)]

    def close(self) -> list[tuple[str, Event | None]]:
        """End the open block, and write every tool call that waited for it."""
        steps: list[tuple[str, Event | None]] = []
        if self.open is not None:
            steps.append(("stop", None))
            self.open = None
        for call in sorted(self._waiting):
            first, *rest = self._waiting[call]
            steps += [*self._begin(first), *(("delta", event) for event in rest), ("stop", None)]
            self.open = None
        self._waiting.clear()
        self._waiting_bytes = 0
        return steps

    def _begin(self, event: Event) -> list[tuple[str, Event | None]]:
        self.open = _block_key(event)
        return [("start", event)]

    def _wait(self, call: int, event: Event) -> None:
        if isinstance(event, ToolCallDelta):
            self._waiting_bytes += len(event.arguments)
            if self._waiting_bytes > BUFFER_LIMIT:
                raise Untranslatable("tool_calls", "the parallel tool calls are too long to be put in order")
        self._waiting.setdefault(call, []).append(event)


def _block_key(event: Event) -> tuple[str, int]:
    match event:
        case ToolCallStart(index=index) | ToolCallDelta(index=index):
            return ("tool", index)
        case ReasoningDelta():
            return ("thinking", 0)
        case ReasoningSeal(redacted=redacted):
            return ("redacted", 0) if redacted is not None else ("thinking", 0)
        case _:
            return ("text", 0)


class StreamEncoder:
    """Events -> the Messages API's stream.

    OpenAI's engines say their usage last: message_start counts 0, and message_delta carries the true,
    cumulative figures.  So message_delta waits for the usage, or for the end.
    """

    def __init__(self, request: Request, *, answer_id: str, created: int) -> None:
        self._request = request
        self._id = f"msg_{answer_id}"
        self._blocks = _Blocks()
        self._usage = Usage()
        self._finish: Finish | None = None
        self._started = False
        self._index = -1

    def feed(self, event: Event) -> bytes:
        match event:
            case TextDelta() | RefusalDelta() | ReasoningDelta() | ReasoningSeal() | ToolCallStart() | ToolCallDelta():
                _only_first(event.choice)
                return self._start() + self._write(self._blocks.place(event))
            case Finish(choice=choice):
                _only_first(choice)
                self._finish = event
                return self._start() + self._write(self._blocks.close())
            case UsageReport(usage=usage):
                self._usage = usage
                return b""
            case Done():
                return self._start() + self._end()
            case Start():
                return self._start()
            case Ping():
                return event_bytes(b'{"type":"ping"}', "ping") if self._started else b": ping\n\n"
            case Opaque() | Failed():
                return b""

    def flush(self) -> bytes:
        return b""

    def _start(self) -> bytes:
        if self._started:
            return b""
        self._started = True
        message = _head(self._id, self._request.model) | {
            "content": [],
            "usage": _usage_row(self._usage) | {"output_tokens": 0},
        }
        return _event_bytes("message_start", {"message": message})

    def _write(self, steps: list[tuple[str, Event | None]]) -> bytes:
        out = []
        for what, event in steps:
            if event is None:
                out.append(_event_bytes("content_block_stop", {"index": self._index}))
                continue
            if what == "start":
                self._index += 1
                out.append(
                    _event_bytes("content_block_start", {"index": self._index, "content_block": _opening(event)})
                )
            delta = _delta_row(event, opened=what == "start")
            if delta is not None:
                out.append(_event_bytes("content_block_delta", {"index": self._index, "delta": delta}))
        return b"".join(out)

    def _end(self) -> bytes:
        out = self._write(self._blocks.close())
        finish = self._finish or Finish(0, "stop")
        delta = {"stop_reason": stop_reason(finish), "stop_sequence": finish.stop_sequence}
        out += _event_bytes("message_delta", {"delta": delta, "usage": _usage_row(self._usage)})
        return out + _event_bytes("message_stop", {})


class WholeEncoder:
    """Events -> one message."""

    def __init__(self, request: Request, *, answer_id: str, created: int) -> None:
        self._request = request
        self._id = f"msg_{answer_id}"
        self._blocks = _Blocks()
        self._content: list[dict[str, Any]] = []
        self._usage = Usage()
        self._finish = Finish(0, "stop")

    def feed(self, event: Event) -> bytes:
        match event:
            case TextDelta() | RefusalDelta() | ReasoningDelta() | ReasoningSeal() | ToolCallStart() | ToolCallDelta():
                _only_first(event.choice)
                self._gather(self._blocks.place(event))
            case Finish(choice=choice):
                _only_first(choice)
                self._finish = event
                self._gather(self._blocks.close())
            case UsageReport(usage=usage):
                self._usage = usage
            case Start() | Done() | Ping() | Opaque() | Failed():
                pass
        return b""

    def flush(self) -> bytes:
        self._gather(self._blocks.close())
        for block in self._content:
            if block["type"] == "tool_use":
                block["input"] = _arguments(block.pop("_json"))
        stop = {"stop_reason": stop_reason(self._finish), "stop_sequence": self._finish.stop_sequence}
        content = [block for block in self._content if block != {"type": "text", "text": ""}]
        message = _head(self._id, self._request.model) | {"content": content} | stop
        return msgspec.json.encode(message | {"usage": _usage_row(self._usage)})

    def _gather(self, steps: list[tuple[str, Event | None]]) -> None:
        for what, event in steps:
            if event is None:
                continue
            if what == "start":
                block = _opening(event)
                if block["type"] == "tool_use":
                    block["_json"] = ""
                self._content.append(block)
            delta = _delta_row(event, opened=what == "start")
            if delta is not None:
                block = self._content[-1]
                field = {
                    "text_delta": "text",
                    "thinking_delta": "thinking",
                    "signature_delta": "signature",
                    "input_json_delta": "_json",
                }[delta["type"]]
                block[field] += next(value for name, value in delta.items() if name != "type")


def stop_reason(finish: Finish) -> str:
    """The neutral reason in Anthropic's words."""
    if finish.reason == "stop" and finish.stop_sequence is not None:
        return "stop_sequence"
    return _STOP_BACK[finish.reason]


def tool_id(call_id: str) -> str:
    """An id in the alphabet that Anthropic takes (letters, digits, _ and -)."""
    return _TOOL_ID.sub("_", call_id) or "call"


def _opening(event: Event) -> dict[str, Any]:
    match event:
        case ToolCallStart(id=call_id, name=name):
            return {"type": "tool_use", "id": tool_id(call_id), "name": name, "input": {}}
        case ReasoningSeal(redacted=redacted) if redacted is not None:
            return {"type": "redacted_thinking", "data": redacted}
        case ReasoningDelta() | ReasoningSeal():
            return {"type": "thinking", "thinking": "", "signature": ""}
        case _:
            return {"type": "text", "text": ""}


def _delta_row(event: Event, *, opened: bool) -> dict[str, Any] | None:
    """The delta of an event; None where the block's opening says it all."""
    match event:
        case TextDelta(text=text) | RefusalDelta(text=text):
            return {"type": "text_delta", "text": text} if text or not opened else None
        case ReasoningDelta(text=text):
            return {"type": "thinking_delta", "thinking": text} if text or not opened else None
        case ReasoningSeal(signature=signature) if signature is not None:
            return {"type": "signature_delta", "signature": signature}
        case ToolCallDelta(arguments=arguments):
            return {"type": "input_json_delta", "partial_json": arguments}
        case _:
            return None


def _head(message_id: str, model: str) -> dict[str, Any]:
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "stop_reason": None,
        "stop_sequence": None,
    }


def _usage_row(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input,
        "cache_creation_input_tokens": usage.cache_write_5m + usage.cache_write_1h,
        "cache_read_input_tokens": usage.cache_read,
        "output_tokens": usage.output,
    }


def _event_bytes(name: str, fields: dict[str, Any]) -> bytes:
    return event_bytes(msgspec.json.encode({"type": name, **fields}), name)


def _only_first(choice: int) -> None:
    if choice:
        raise Untranslatable("choices", "Anthropic's dialect has one choice")


def _arguments(text: str) -> Any:
    try:
        value = msgspec.json.decode(text or "{}")
    except UNREADABLE:
        raise MalformedAnswer("a tool call's arguments are not JSON") from None
    if not isinstance(value, dict):
        raise MalformedAnswer("a tool call's arguments are not an object")
    return value
