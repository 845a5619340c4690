"""Shapes of OpenAI's answers: what is read of a chunk, of a whole completion and of embeddings.  Data only.

OpenAI API reference, "chat completion object" and "chat completion chunk object"; see `engines.openai_answers`.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from engines.model import TokenCount

CHOICES_LIMIT = 4096
"""Choices of one answer; more is no answer of a model."""


class Function(Struct):
    name: str | None = None
    arguments: str | None = None


class ToolCall(Struct):
    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: Function | None = None


class Said(Struct):
    """A chunk's delta or a whole answer's message."""

    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: Function | None = None
    audio: Any = None


class Choice(Struct):
    index: Annotated[int, Meta(ge=0, lt=CHOICES_LIMIT)] = 0
    delta: Said | None = None
    message: Said | None = None
    finish_reason: str | None = None


class Details(Struct):
    audio_tokens: TokenCount | None = None
    cached_tokens: TokenCount | None = None
    cache_write_tokens: TokenCount | None = None
    reasoning_tokens: TokenCount | None = None


class UsagePart(Struct):
    prompt_tokens: TokenCount | None = 0
    completion_tokens: TokenCount | None = 0
    prompt_tokens_details: Details | None = None
    completion_tokens_details: Details | None = None


class Chunk(Struct):
    id: str | None = None
    model: str | None = None
    created: int | float | None = None
    choices: list[Choice] | None = None
    usage: UsagePart | None = None
    service_tier: Any = None  # that answered, whatever was asked for
    timings: Any = None  # llama.cpp's, in the chunk that has the usage
    error: Any = None


class Embeddings(Struct):
    data: list[msgspec.Raw]
    model: str | None = None
    usage: UsagePart | None = None


decode_chunk = msgspec.json.Decoder(Chunk).decode
decode_embeddings = msgspec.json.Decoder(Embeddings).decode
