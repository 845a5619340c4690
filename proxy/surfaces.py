"""The doors that applications know: method and path -> dialect and operation.  Rows of data."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from engines.model import DialectName, Operation


class Surface(Struct, frozen=True):
    """One door.  `operation` is None for the list of models, which no engine is asked for."""

    name: str  # as in records: dialect.operation
    dialect: DialectName
    operation: Operation | None


OPENAI_CHAT = Surface("openai.chat", "openai", Operation.CHAT)
OPENAI_EMBEDDINGS = Surface("openai.embeddings", "openai", Operation.EMBEDDINGS)
OPENAI_MODELS = Surface("openai.models", "openai", None)
ANTHROPIC_MESSAGES = Surface("anthropic.messages", "anthropic", Operation.CHAT)
ANTHROPIC_COUNT_TOKENS = Surface("anthropic.count_tokens", "anthropic", Operation.COUNT_TOKENS)
ANTHROPIC_MODELS = Surface("anthropic.models", "anthropic", None)

POSTS: Mapping[str, Surface] = {
    "/v1/chat/completions": OPENAI_CHAT,
    "/v1/embeddings": OPENAI_EMBEDDINGS,
    "/v1/messages": ANTHROPIC_MESSAGES,
    "/v1/messages/count_tokens": ANTHROPIC_COUNT_TOKENS,
}

MODELS_PATH = "/v1/models"
"""Both dialects have it; the caller's headers tell which one is meant."""

BY_NAME: Mapping[str, Surface] = {
    surface.name: surface for surface in (*POSTS.values(), OPENAI_MODELS, ANTHROPIC_MODELS)
}


def dialect_of(path: str, headers: Mapping[str, str]) -> DialectName:
    """The dialect that a caller speaks, told from the path where it is known, else from its headers."""
    surface = POSTS.get(path)
    if surface is not None:
        return surface.dialect
    if path.startswith("/v1/messages") or "anthropic-version" in headers:
        return "anthropic"
    return "openai"
