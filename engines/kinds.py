"""Engine kinds as rows of data: what differs between engines stands here, never as a branch in the pipeline.

Measured on vLLM 0.32, the llama.cpp server of 2026-10 and llama-cpp-python 0.3.36; Ollama and LM Studio by
their documentation.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from engines.model import DialectName, Operation

OPENAI_PATHS = {Operation.CHAT: "/v1/chat/completions", Operation.EMBEDDINGS: "/v1/embeddings"}
ANTHROPIC_PATHS = {Operation.CHAT: "/v1/messages", Operation.COUNT_TOKENS: "/v1/messages/count_tokens"}
COUNTING_PATHS = {**OPENAI_PATHS, Operation.COUNT_TOKENS: ANTHROPIC_PATHS[Operation.COUNT_TOKENS]}
"""Of engines of OpenAI's dialect that count tokens for Anthropic's clients."""
CHAT = frozenset({"chat", "tools", "json_mode", "json_schema"})


class Tokenizer(Struct, frozen=True):
    """Where an engine says how many tokens a text has: JSON is posted, JSON comes back."""

    path: str
    text: str  # the field that the text goes into
    count: str  # the field of the number in the answer, or of a list that has an item for each token
    prompt_path: str  # where a chat's body goes, for the tokens of its prompt
    prompt_count: str  # as `count`
    more: Mapping[str, Any] = {}  # sent beside the text
    prompt_fields: tuple[str, ...] | None = None  # what goes there of the body; None: the body as it is


class Kind(Struct, frozen=True):
    """One kind of engine."""

    name: str
    title: str
    dialect: DialectName
    paths: Mapping[Operation, str]
    capabilities: frozenset[str]  # what a model has unless its row in the configuration says otherwise
    auth: Literal["bearer", "x-api-key"] = "bearer"
    boundary: str = "local"
    url: str | None = None  # where the kind has one address in the world
    port: int | None = None  # where it listens on a host by default
    models_path: str = "/v1/models"
    health_path: str | None = "/v1/models"
    load_path: str | None = None  # its own gauges
    headers: tuple[tuple[str, str], ...] = ()  # sent unless the client's own stands
    # Operations answered in another dialect than the kind's own: vLLM and llama.cpp count tokens for Anthropic's clients.
    foreign: Mapping[Operation, DialectName] = {}
    # llama.cpp says keep-alive on a stream and closes right after it: pooled reuse fails every second time.
    reuse_after_stream: bool = True
    # llama-cpp-python ignores stream_options: usage is estimated there.
    honours_usage_option: bool = True
    # What answers without usage are counted by.  llama-cpp-python has /extras/tokenize/count, but there any request that comes
    # while it streams cuts that stream off (its `interrupt_requests`, on by default): it is not asked.
    tokenizer: Tokenizer | None = None
    # top_k is an extension of OpenAI's dialect that local engines take and OpenAI refuses.
    sampling_extensions: bool = False
    # OpenAI's reasoning models refuse max_tokens, and all its models take max_completion_tokens; local engines know the old name.
    limit_field: str = "max_tokens"


KINDS: Mapping[str, Kind] = {
    row.name: row
    for row in (
        Kind(
            name="vllm", title="vLLM", dialect="openai", paths=COUNTING_PATHS,
            capabilities=CHAT | {"logprobs", "count_tokens"}, port=8000, health_path="/health", load_path="/metrics",
            foreign={Operation.COUNT_TOKENS: "anthropic"}, sampling_extensions=True,
            tokenizer=Tokenizer(
                "/tokenize", "prompt", "count", "/tokenize", "count", more={"add_special_tokens": False},
                prompt_fields=(
                    "messages", "tools", "chat_template", "chat_template_kwargs", "add_generation_prompt", "continue_final_message",
                ),
            ),
        ),
        Kind(
            name="llama.cpp", title="llama.cpp server", dialect="openai",
            paths=COUNTING_PATHS,
            capabilities=CHAT | {"logprobs", "count_tokens"}, port=8080, health_path="/health", load_path="/slots",
            foreign={Operation.COUNT_TOKENS: "anthropic"}, reuse_after_stream=False, sampling_extensions=True,
            tokenizer=Tokenizer("/tokenize", "content", "tokens", "/v1/chat/completions/input_tokens", "input_tokens"),
        ),
        Kind(
            name="llama-cpp-python", title="llama-cpp-python server", dialect="openai", paths=OPENAI_PATHS,
            capabilities=CHAT | {"logprobs"}, port=8000, honours_usage_option=False, sampling_extensions=True,
        ),
        Kind(
            name="ollama", title="Ollama", dialect="openai", paths=OPENAI_PATHS, capabilities=CHAT, port=11434,
            health_path="/api/version", load_path="/api/ps",
        ),
        Kind(
            name="lmstudio", title="LM Studio", dialect="openai", paths=OPENAI_PATHS, capabilities=CHAT, port=1234,
            sampling_extensions=True,
        ),
        Kind(
            name="openai-compatible", title="an OpenAI-compatible server", dialect="openai", paths=OPENAI_PATHS,
            capabilities=CHAT | {"logprobs"},
        ),
        Kind(
            name="openai", title="OpenAI", dialect="openai", paths=OPENAI_PATHS, boundary="cloud", url="https://api.openai.com",
            capabilities=CHAT | {"embeddings", "vision", "audio", "documents", "logprobs", "choices"}, health_path=None,
            limit_field="max_completion_tokens",
        ),
        Kind(
            name="anthropic", title="Anthropic", dialect="anthropic", paths=ANTHROPIC_PATHS, boundary="cloud",
            url="https://api.anthropic.com", auth="x-api-key", headers=(("anthropic-version", "2023-06-01"),),
            capabilities=frozenset({"chat", "count_tokens", "tools", "vision", "documents", "json_schema", "server_tools"}),
            health_path=None,
        ),
    )
}  # fmt: skip


class UnknownKind(ValueError):
    """The message names the kinds that there are, the nearest first."""


def kind(name: str) -> Kind:
    """The row of a kind; raises `UnknownKind`."""
    row = KINDS.get(name)
    if row is None:
        near = difflib.get_close_matches(name, KINDS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UnknownKind(f"{name!r} is no engine kind: {hint}there are {', '.join(KINDS)}")
    return row
