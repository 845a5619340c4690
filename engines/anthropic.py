"""Anthropic's dialect: messages and token counts.  Answers (an engine's, read; a client's, written) and
translation have files of their own.

Source: the Anthropic API reference, and the types of the `anthropic` package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from engines import anthropic_answers, anthropic_encoders, anthropic_requests
from engines.base import EventDecoder, EventEncoder
from engines.model import BadRequest, Conversation, DialectName, ErrorInfo, Event, Operation, Request
from engines.parsing import boolean, checked_body, model_name, some_messages, whole
from engines.rawjson import replace
from engines.refusals import body_of, neutral_type, seconds
from engines.sse import event_bytes

_TRAVELLING = ("anthropic-version", "anthropic-beta")
_TYPE_WORDS = {
    "invalid_request": "invalid_request_error",
    "authentication": "authentication_error",
    "permission": "permission_error",
    "not_found": "not_found_error",
    "rate_limit": "rate_limit_error",
    "overloaded": "overloaded_error",
    "timeout": "timeout_error",
    "api": "api_error",
}
_BLOCK_NEEDS = {
    "image": "vision",
    "document": "documents",
    "search_result": "documents",
    "container_upload": "server_tools",
}
_CHAT = frozenset({"chat"})
_COUNT = frozenset({"count_tokens"})


class Anthropic:
    """See `engines.base.Dialect`."""

    name: DialectName = "anthropic"

    def parse(self, operation: Operation, raw: bytes, headers: Mapping[str, str]) -> Request:
        body = checked_body(raw)
        model = model_name(body)
        messages = some_messages(body)
        limit = whole(body, "max_tokens")
        if limit is None and operation is Operation.CHAT:
            raise BadRequest("max_tokens: field required.", "max_tokens")
        needs = _needs(body, messages)
        return Request(
            dialect="anthropic",
            operation=operation,
            model=model,
            stream=boolean(body, "stream") if operation is Operation.CHAT else False,
            raw=raw,
            body=body,
            wants_usage=True,
            max_output=limit,
            choices=1,
            needs=(needs | _COUNT) if operation is Operation.COUNT_TOKENS else (needs | _CHAT if needs else _CHAT),
            headers={name: headers[name] for name in _TRAVELLING if name in headers},
        )

    def edit(
        self, request: Request, *, model: str, ask_usage: bool, cap: tuple[str, int] | None = None
    ) -> tuple[bytes, tuple[str, ...]]:
        if model == request.model:
            return request.raw, ()
        return replace(request.raw, ("model",), msgspec.json.encode(model), present=True), ("model_alias",)

    def encoder(self, request: Request, *, answer_id: str, created: int) -> EventEncoder:
        if request.stream:
            return anthropic_encoders.StreamEncoder(request, answer_id=answer_id, created=created)
        return anthropic_encoders.WholeEncoder(request, answer_id=answer_id, created=created)

    def error_body(self, error: ErrorInfo) -> bytes:
        row: dict[str, Any] = {"type": _word(error), "message": error.message}
        if error.code is not None:
            row["code"] = error.code
        return msgspec.json.encode({"type": "error", "error": row})

    def error_event(self, error: ErrorInfo) -> bytes:
        return event_bytes(self.error_body(error), "error")

    def conversation(self, request: Request) -> Conversation:
        return anthropic_requests.conversation(request)

    def render(
        self,
        conversation: Conversation,
        *,
        model: str,
        default_max_output: int,
        limit_field: str = "max_tokens",
        sampling_extensions: bool = False,
    ) -> bytes:
        return anthropic_requests.render(conversation, model=model, default_max_output=default_max_output)

    def decoder(self) -> EventDecoder:
        return anthropic_answers.Decoder()

    def decode_answer(self, operation: Operation, body: bytes, *, read: bool = True) -> Sequence[Event]:
        return anthropic_answers.decode_answer(operation, body)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ErrorInfo:
        info = anthropic_answers.error_of(body_of(body).get("error"), status)
        return msgspec.structs.replace(info, type=neutral_type(status), retry_after=seconds(headers.get("retry-after")))

    def restore_model(self, raw: bytes, model: str) -> bytes:
        if raw[:64].lstrip().startswith(b"{"):
            path: tuple[str, ...] = ("model",)
        elif b'"message_start"' in raw:
            path = ("message", "model")
        else:
            return raw  # no other event names the model
        try:
            return replace(raw, path, msgspec.json.encode(model))
        except (KeyError, ValueError):  # no name, or a key that is no text: decoders do not look at those they skip
            return raw


DIALECT = Anthropic()


def _word(error: ErrorInfo) -> str:
    if error.status == 413:
        return "request_too_large"
    return _TYPE_WORDS.get(error.type, "api_error")


def _needs(body: Mapping[str, Any], messages: list[Any]) -> frozenset[str]:
    """What an engine must be able to do."""
    needs: set[str] = set()
    for index, message in enumerate(messages):
        if type(message) is not dict:
            raise BadRequest("Each message must be an object.", f"messages[{index}]")
        content = message.get("content")
        if type(content) is list:
            for position, block in enumerate(content):
                if type(block) is not dict:
                    raise BadRequest("Each content block must be an object.", f"messages[{index}].content[{position}]")
                _block_needs(block, needs)
        elif type(content) is not str:
            raise BadRequest("content must be a string or an array of blocks.", f"messages[{index}].content")
    tools = body.get("tools")
    if tools is not None and type(tools) is not list:
        raise BadRequest("tools must be an array.", "tools")
    for number, tool in enumerate(tools or ()):
        if type(tool) is not dict:
            raise BadRequest("Each tool must be an object.", f"tools[{number}]")
        needs.add("tools" if tool.get("type") in (None, "custom") else "server_tools")
    output = body.get("output_config")
    if type(output) is dict and output.get("format"):
        needs.add("json_schema")
    return frozenset(needs)


def _block_needs(block: dict[str, Any], needs: set[str]) -> None:
    kind = block.get("type")
    if type(kind) is not str:
        return
    need = _BLOCK_NEEDS.get(kind)
    if need is not None:
        needs.add(need)
    inner = block.get("content") if kind == "tool_result" else None
    if type(inner) is list:
        for piece in inner:
            if type(piece) is dict:
                _block_needs(piece, needs)
