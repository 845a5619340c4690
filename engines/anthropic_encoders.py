"""Anthropic's message answers for a client: events -> the Messages API's stream, or one whole message.

Shapes: Anthropic API reference, "Streaming messages" and "Messages"; the types of the `anthropic` package.
"""

from __future__ import annotations

import re
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
from engines.rawjson import nested_object
from engines.sse import event_bytes

_STOP_BACK: dict[FinishReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "refusal": "refusal",
    "pause": "pause_turn",
}
BUFFER_LIMIT = 1024 * 1024
"""Bytes kept while another block is open: Anthropic's blocks come one after another."""
_EVENT_BYTES = 128
"""What a waiting event takes beside its text, about."""

_TOOL_ID = re.compile(r"[^a-zA-Z0-9_-]")


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
        text = event.arguments if isinstance(event, ToolCallDelta) else ""
        self._waiting_bytes += _EVENT_BYTES + len(text)
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
        out += _event_bytes("message_delta", {"delta": _ending(self._finish), "usage": _usage_row(self._usage)})
        return out + _event_bytes("message_stop", {})


class WholeEncoder:
    """Events -> one message."""

    def __init__(self, request: Request, *, answer_id: str, created: int) -> None:
        self._request = request
        self._id = f"msg_{answer_id}"
        self._blocks = _Blocks()
        self._content: list[dict[str, Any]] = []
        self._usage = Usage()
        self._finish: Finish | None = None

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
        content = [block for block in self._content if block != {"type": "text", "text": ""}]
        message = _head(self._id, self._request.model) | {"content": content} | _ending(self._finish)
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


def _ending(finish: Finish | None) -> dict[str, Any]:
    """Why the answer ended, in Anthropic's words; none is made up where the engine gave none."""
    if finish is None:
        raise MalformedAnswer("the answer has no end")
    stopped = finish.reason == "stop" and finish.stop_sequence is not None
    return {
        "stop_reason": "stop_sequence" if stopped else _STOP_BACK[finish.reason],
        "stop_sequence": finish.stop_sequence,
    }


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


def _arguments(text: str) -> dict[str, Any]:
    value = nested_object(text)
    if value is None:
        raise MalformedAnswer("a tool call's arguments are not an object")
    return value
