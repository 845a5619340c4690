"""Short streams in the shapes that engines really send: LF line ends, null contents, usage last, parallel tools."""

from __future__ import annotations

import json
from typing import Any


def _data(value: Any) -> bytes:
    return b"data: " + json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode() + b"\n\n"


def _event(name: str, **fields: Any) -> bytes:
    return f"event: {name}\n".encode() + _data({"type": name, **fields})


def _chunk(model: str, choices: list[Any], **more: Any) -> bytes:
    return _data(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1795403507,
            "model": model,
            "choices": choices,
            **more,
        }
    )


def _delta(finish: str | None = None, **delta: Any) -> list[Any]:
    return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]


_USAGE = {
    "prompt_tokens": 16,
    "completion_tokens": 4,
    "total_tokens": 20,
    "prompt_tokens_details": {"cached_tokens": 15},
}
DONE = b"data: [DONE]\n\n"

LLAMACPP = b"".join(
    [
        _data({"choices": [{"finish_reason": None, "index": 0, "delta": {"role": "assistant", "content": None}}], "created": 1, "id": "chatcmpl-C", "model": "tiny-gguf", "object": "chat.completion.chunk"}),
        *(_chunk("tiny-gguf", _delta(content=word)) for word in (" with", " naïve", " 日本", " 🙂")),
        _chunk("tiny-gguf", [{"finish_reason": "length", "index": 0, "delta": {}}], timings={"predicted_ms": 0.3}),
        _chunk("tiny-gguf", [], usage=_USAGE),
        DONE,
    ]
)  # fmt: skip

VLLM = b"".join(
    [
        b": connected\n\n",
        _chunk("tiny-llama", _delta(role="assistant", content=""), prompt_token_ids=None),
        _chunk("tiny-llama", _delta(content=" as")),
        _chunk("tiny-llama", _delta(reasoning="hm")),
        _chunk("tiny-llama", _delta("stop", content=""), stop_reason=None),
        _chunk("tiny-llama", [], usage=_USAGE),
        DONE,
    ]
)

VLLM_CONTINUOUS_USAGE = b"".join(
    [
        _chunk("t", _delta(role="assistant", content=""), usage={"prompt_tokens": 13, "completion_tokens": 0}),
        _chunk("t", _delta(content="a"), usage={"prompt_tokens": 13, "completion_tokens": 1}),
        _chunk("t", _delta("stop"), usage={"prompt_tokens": 13, "completion_tokens": 1}),
        DONE,
    ]
)


def _call(index: int, arguments: str, **first: Any) -> dict[str, Any]:
    name = first.pop("name", None)
    function = {"name": name, "arguments": arguments} if name else {"arguments": arguments}
    return {"index": index, **first, "function": function}


OPENAI_TOOLS = b"".join(
    [
        _chunk("gpt", []),  # Azure begins with an empty list of choices
        _chunk(
            "gpt",
            _delta(
                role="assistant", content=None, tool_calls=[_call(0, "", id="call_a", type="function", name="look")]
            ),
        ),
        _chunk("gpt", _delta(tool_calls=[_call(0, '{"ci')])),
        _chunk("gpt", _delta(tool_calls=[_call(1, "", id="call_b", type="function", name="find")])),
        _chunk("gpt", _delta(tool_calls=[_call(1, '{"q":'), _call(0, 'ty":"Köln"}')])),
        _chunk("gpt", _delta(tool_calls=[_call(1, '"x"}')])),
        _chunk("gpt", _delta("tool_calls")),
        _chunk("gpt", [], usage=_USAGE),
        DONE,
    ]
)

ANTHROPIC_TOOLS = b"".join(
    [
        _event("message_start", message={"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": [], "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 9, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 3, "cache_creation": {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 2}, "output_tokens": 1}}),
        _event("content_block_start", index=0, content_block={"type": "thinking", "thinking": "", "signature": ""}),
        _event("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "hmm é"}),
        _event("content_block_delta", index=0, delta={"type": "signature_delta", "signature": "c2ln"}),
        _event("content_block_stop", index=0),
        b'event: ping\ndata: {"type": "ping"}\n\n',
        _event("content_block_start", index=1, content_block={"type": "text", "text": ""}),
        _event("content_block_delta", index=1, delta={"type": "text_delta", "text": "Let me look."}),
        _event("content_block_stop", index=1),
        _event("content_block_start", index=2, content_block={"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}),
        _event("content_block_delta", index=2, delta={"type": "input_json_delta", "partial_json": ""}),
        _event("content_block_delta", index=2, delta={"type": "input_json_delta", "partial_json": '{"city": "Köln"}'}),
        _event("content_block_stop", index=2),
        _event("message_delta", delta={"stop_reason": "tool_use", "stop_sequence": None}, usage={"output_tokens": 42}),
        _event("message_stop"),
    ]
)  # fmt: skip
