"""OpenAI's dialect: chat/completions and embeddings.  Answers (an engine's, read; a client's, written) and translation
have files of their own.

Source: the OpenAI API reference, and the types of the `openai` package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from engines import openai_answers, openai_encoders, openai_requests
from engines.base import EventDecoder, EventEncoder
from engines.model import BadRequest, Conversation, DialectName, ErrorInfo, Event, Operation, Request
from engines.parsing import boolean, checked_body, model_name, output_limit, some_messages, whole
from engines.rawjson import insert, replace, top_level_span
from engines.refusals import body_of, seconds

_TYPE_WORDS = {
    "invalid_request": "invalid_request_error",
    "authentication": "authentication_error",
    "permission": "permission_error",
    "not_found": "not_found_error",
    "rate_limit": "rate_limit_error",
    "overloaded": "server_error",
    "timeout": "timeout_error",
    "api": "server_error",
}
_PART_NEEDS = {"image_url": "vision", "input_audio": "audio", "file": "documents"}
_ASKING = frozenset({"tools", "functions", "logprobs", "response_format"})
_CHAT = frozenset({"chat"})
_EMBEDDINGS = frozenset({"embeddings"})
_USAGE = b'{"include_usage":true}'


class OpenAI:
    """See `engines.base.Dialect`."""

    name: DialectName = "openai"

    def parse(self, operation: Operation, raw: bytes, headers: Mapping[str, str]) -> Request:
        body = checked_body(raw)
        model = model_name(body)
        if operation is Operation.EMBEDDINGS:
            if body.get("input") is None:
                raise BadRequest("input is required: a string, or an array of strings or of tokens.", "input")
            return Request("openai", operation, model, False, raw, body, False, 0, 1, _EMBEDDINGS)
        messages = some_messages(body)
        stream = boolean(body, "stream")
        options = body.get("stream_options")
        if options is not None and not isinstance(options, dict):
            raise BadRequest("stream_options must be an object.", "stream_options")
        return Request(
            dialect="openai",
            operation=operation,
            model=model,
            stream=stream,
            raw=raw,
            body=body,
            wants_usage=bool(options and options.get("include_usage")),
            max_output=output_limit(body, "max_completion_tokens", "max_tokens"),
            choices=whole(body, "n") or 1,
            needs=_needs(body, messages),
        )

    def edit(
        self, request: Request, *, model: str, ask_usage: bool, cap: tuple[str, int] | None = None
    ) -> tuple[bytes, tuple[str, ...]]:
        raw = request.raw
        edits: tuple[str, ...] = ()
        if model != request.model:
            raw = replace(raw, ("model",), msgspec.json.encode(model), present=True)
            edits = ("model_alias",)
        if request.stream and ask_usage and not request.wants_usage:
            raw = _asking_usage(raw, request.body)
            edits += ("usage_option",)
        if cap is not None and request.max_output is None and request.operation is Operation.CHAT:
            raw = _capped(raw, request.body, *cap)
            edits += ("output_cap",)
        return raw, edits

    def encoder(self, request: Request, *, answer_id: str, created: int) -> EventEncoder:
        if request.stream:
            return openai_encoders.StreamEncoder(request, answer_id=answer_id, created=created)
        return openai_encoders.WholeEncoder(request, answer_id=answer_id, created=created)

    def error_body(self, error: ErrorInfo) -> bytes:
        return msgspec.json.encode({"error": _error_row(error)})

    def error_event(self, error: ErrorInfo) -> bytes:
        return b"data: %b\n\n" % self.error_body(error)

    def conversation(self, request: Request) -> Conversation:
        return openai_requests.conversation(request)

    def render(
        self,
        conversation: Conversation,
        *,
        model: str,
        default_max_output: int,
        limit_field: str = "max_tokens",
        sampling_extensions: bool = False,
    ) -> bytes:
        return openai_requests.render(
            conversation, model=model, limit_field=limit_field, sampling_extensions=sampling_extensions
        )

    def decoder(self) -> EventDecoder:
        return openai_answers.Decoder()

    def decode_answer(self, operation: Operation, body: bytes, *, read: bool = True) -> Sequence[Event]:
        return openai_answers.decode_answer(operation, body, read=read)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ErrorInfo:
        row = body_of(body)
        info = openai_answers.error_of(row.get("error", row), status)
        return msgspec.structs.replace(info, retry_after=seconds(headers.get("retry-after")))

    def restore_model(self, raw: bytes, model: str) -> bytes:
        try:
            return replace(raw, ("model",), msgspec.json.encode(model))
        except (KeyError, ValueError):  # no name, or a key that is no text: decoders do not look at those they skip
            return raw


DIALECT = OpenAI()


def _needs(body: Mapping[str, Any], messages: list[Any]) -> frozenset[str]:
    """What an engine must be able to do.  Plain chats share one object."""
    needs: set[str] = set()
    for index, message in enumerate(messages):
        if type(message) is not dict:
            raise BadRequest("Each message must be an object.", f"messages[{index}]")
        content = message.get("content")
        if type(content) is list:
            for position, part in enumerate(content):
                if type(part) is not dict:
                    raise BadRequest("Each content part must be an object.", f"messages[{index}].content[{position}]")
                kind = part.get("type")
                need = _PART_NEEDS.get(kind) if type(kind) is str else None
                if need is not None:
                    needs.add(need)
        elif content is not None and type(content) is not str:
            raise BadRequest("content must be a string or an array of parts.", f"messages[{index}].content")
    if not _ASKING.isdisjoint(body):
        if body.get("tools") or body.get("functions"):
            needs.add("tools")
        if body.get("logprobs"):
            needs.add("logprobs")
        form = body.get("response_format")
        if type(form) is dict and form.get("type") in ("json_schema", "json_object"):
            needs.add("json_schema" if form["type"] == "json_schema" else "json_mode")
    return frozenset(needs) | _CHAT if needs else _CHAT


def _asking_usage(raw: bytes, body: Mapping[str, Any]) -> bytes:
    if "stream_options" not in body:
        return insert(raw, "stream_options", _USAGE)
    options = body["stream_options"]
    if options is None:
        return replace(raw, ("stream_options",), _USAGE)
    if "include_usage" in options:
        return replace(raw, ("stream_options", "include_usage"), b"true")
    span = top_level_span(raw, "stream_options")
    assert span is not None
    return raw[: span[0]] + insert(raw[span[0] : span[1]], "include_usage", b"true") + raw[span[1] :]


def _capped(raw: bytes, body: Mapping[str, Any], field: str, tokens: int) -> bytes:
    """With a limit of the output; null and -1 (llama.cpp's endless) are none."""
    endless = [name for name in ("max_completion_tokens", "max_tokens") if name in body and body[name] in (None, -1)]
    for name in endless:
        raw = replace(raw, (name,), b"%d" % tokens)
    return raw if endless else insert(raw, field, b"%d" % tokens)


def _error_row(error: ErrorInfo) -> dict[str, Any]:
    return {
        "message": error.message,
        "type": _TYPE_WORDS.get(error.type, "server_error"),
        "param": error.param,
        "code": error.code,
    }
