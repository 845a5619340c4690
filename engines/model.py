"""The vocabulary that dialects, the pipeline and the transport share.  Data only: no I/O, no decisions.

A request is kept as the client sent it (`Request.raw`); where both ends speak one dialect those bytes are
forwarded with named edits.  Where they do not, the request becomes a `Conversation`, and the answer a
sequence of `Event`s: a closed union, matched exhaustively.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

DialectName = Literal["openai", "anthropic"]
Quality = Literal["exact", "estimated", "bounded"]
"""How token counts were known: the engine's word, an estimate from the text, or the most that it can have been."""


class Operation(StrEnum):
    """What an application asks for, whatever the dialect.  The values stand in records."""

    CHAT = "chat"
    EMBEDDINGS = "embeddings"
    COUNT_TOKENS = "count_tokens"


class BadRequest(Exception):
    """The client's body cannot be used: `message` says what would be right, `param` is the field's path."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ErrorInfo(Struct, frozen=True):
    """An error in neutral words; each dialect renders it in its own envelope.

    `type` is the dialect-neutral class (`invalid_request`, `authentication`, `permission`, `not_found`,
    `rate_limit`, `overloaded`, `timeout`, `api`); `code` is a stable machine-readable word.
    """

    status: int
    type: str
    message: str
    code: str | None = None
    param: str | None = None
    retry_after: float | None = None  # seconds


class Request(Struct, frozen=True, gc=False):
    """A client's request, parsed once.  `body` is the parsed `raw`: read it, never change it."""

    dialect: DialectName
    operation: Operation
    model: str
    stream: bool
    raw: bytes
    body: dict[str, Any]
    wants_usage: bool  # the client itself asked for usage in the stream
    max_output: int | None  # tokens; None: not stated
    choices: int  # how many answers are asked for (OpenAI's n)
    needs: frozenset[str]  # capabilities: tools, vision, audio, json_schema, documents, reasoning, logprobs
    headers: dict[str, str] = {}  # dialect headers that travel (anthropic-version, anthropic-beta), lower case


# --- a conversation: the request in neutral form, for translation between dialects only ---------------


class Text(Struct, frozen=True, tag="text"):
    text: str


class Image(Struct, frozen=True, tag="image"):
    """Either `url`, or `media_type` and base64 `data`."""

    url: str | None = None
    media_type: str | None = None
    data: str | None = None
    detail: str | None = None  # OpenAI's low/high/auto


class ToolCall(Struct, frozen=True, tag="tool_call"):
    id: str
    name: str
    arguments: str  # JSON text


class ToolResult(Struct, frozen=True, tag="tool_result"):
    call_id: str
    content: tuple[Text | Image, ...]
    is_error: bool = False


class Reasoning(Struct, frozen=True, tag="reasoning"):
    """`signature` and `redacted` are opaque to everybody but the engine that made them."""

    text: str
    signature: str | None = None
    redacted: str | None = None


Part = Text | Image | ToolCall | ToolResult | Reasoning


class Message(Struct, frozen=True):
    role: Literal["user", "assistant"]
    parts: tuple[Part, ...]
    path: str = "messages"  # where it stands in the client's body: what a refusal names


class Tool(Struct, frozen=True):
    name: str
    description: str | None
    parameters: dict[str, Any]  # JSON Schema
    strict: bool | None = None


class ToolChoice(Struct, frozen=True):
    mode: Literal["auto", "none", "required", "named"]
    name: str | None = None


class OutputFormat(Struct, frozen=True):
    """JSON mode (`schema is None`) or structured output."""

    schema: dict[str, Any] | None = None
    name: str | None = None
    strict: bool | None = None


class Conversation(Struct, frozen=True):
    """A chat request in neutral form.  None means that the client did not say."""

    system: tuple[Text, ...]
    messages: tuple[Message, ...]
    stream: bool
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    max_output: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    output_format: OutputFormat | None = None
    reasoning_budget: int | None = None  # tokens; 0 = explicitly off
    reasoning_effort: str | None = None
    user: str | None = None


# --- events: an answer, streamed or whole ---------------------------------------------------------------


TokenCount = Annotated[int, Meta(ge=0, le=2**40)]
"""Tokens as engines report them: what is settled must be a sum that money can be made of."""


class Usage(Struct, frozen=True, gc=False):
    """Disjoint token meters of one answer: `input` excludes what was read from or written to a cache.

    `output` includes `reasoning` and `audio_output`.  The sum of what was billed is input + cache_read + cache_write_5m +
    cache_write_1h + output.
    """

    input: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    output: int = 0
    reasoning: int = 0
    quality: Quality = "exact"
    prefill_us: int = (
        0  # the engine's own time for reading the prompt and for writing the answer, where it reports them
    )
    decode_us: int = 0
    audio_input: int = 0  # part of `input`
    audio_output: int = 0  # part of `output`
    tier: str = ""  # the service tier that answered, as `engines.rates.tier_of` names it; "": it is not said

    @property
    def prompt(self) -> int:
        """Tokens of the prompt, cached or not."""
        return self.input + self.cache_read + self.cache_write_5m + self.cache_write_1h


class Start(Struct, frozen=True, tag="start", gc=False):
    id: str
    model: str
    created: int = 0  # seconds since the epoch; 0: not known


class TextDelta(Struct, frozen=True, tag="text_delta", gc=False):
    choice: int
    text: str


class RefusalDelta(Struct, frozen=True, tag="refusal_delta", gc=False):
    """The model's own refusal text (OpenAI's `refusal`)."""

    choice: int
    text: str


class ReasoningDelta(Struct, frozen=True, tag="reasoning_delta", gc=False):
    choice: int
    text: str


class ReasoningSeal(Struct, frozen=True, tag="reasoning_seal", gc=False):
    """Anthropic's signature of a thinking block, or a redacted block's data."""

    choice: int
    signature: str | None = None
    redacted: str | None = None


class ToolCallStart(Struct, frozen=True, tag="tool_call_start", gc=False):
    choice: int
    index: int  # among the tool calls of this choice, from 0
    id: str
    name: str


class ToolCallDelta(Struct, frozen=True, tag="tool_call_delta", gc=False):
    choice: int
    index: int
    arguments: str  # a fragment of JSON text


FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "refusal", "pause"]


class Finish(Struct, frozen=True, tag="finish", gc=False):
    choice: int
    reason: FinishReason
    stop_sequence: str | None = None


class UsageReport(Struct, frozen=True, tag="usage", gc=False):
    """Cumulative: a later report replaces an earlier one.

    `alone`: the frame carries nothing but usage (OpenAI's chunk with `choices: []`), so that it can be
    stripped where the client did not ask for it.
    """

    usage: Usage
    alone: bool = False


class Failed(Struct, frozen=True, tag="failed"):
    """An error event inside a stream of status 200."""

    error: ErrorInfo


class Ping(Struct, frozen=True, tag="ping", gc=False):
    """A comment, a ping, or a frame that means nothing to a reader of the answer."""


class Opaque(Struct, frozen=True, tag="opaque", gc=False):
    """Something of the dialect that the neutral form has no word for; it passes where dialects match.

    `carries_text`: a reader would see text in it, so a translation must refuse rather than drop it.  `text` is what
    could be read of it, for whoever looks for identifiers; empty: nothing could, so it must not be called clean.
    """

    what: str
    carries_text: bool = False
    text: str = ""


class Done(Struct, frozen=True, tag="done", gc=False):
    """The dialect's terminal event: `[DONE]`, `message_stop`; for a whole answer, its last byte."""


Event = (
    Start | TextDelta | RefusalDelta | ReasoningDelta | ReasoningSeal | ToolCallStart | ToolCallDelta
    | Finish | UsageReport | Failed | Ping | Opaque | Done
)  # fmt: skip


class Frame(Struct, frozen=True, gc=False):
    """One SSE event as it came: `raw` is every byte of it, its blank line included.

    `event` is the last `event:` field ("" if none), `data` the data lines joined by LF; None if there was
    no data line (a comment).
    """

    raw: bytes
    event: str
    data: bytes | None


class Target(Struct, frozen=True):
    """One model on one engine: what a decision chooses among."""

    name: str  # engine/model, as in configuration, records and x-spillway-target
    engine: str
    kind: str  # a row of engines.kinds
    model: str  # the id that the engine itself knows
    boundary: str  # "local", "cloud" or an operator's own
    origins: tuple[str, ...]  # replicas: scheme://host:port, plus a path prefix if any, no trailing slash
    capabilities: frozenset[str]  # chat, embeddings, count_tokens, tools, vision, json_schema, ...
    context: int | None = None  # tokens; None: not known
    max_output: int | None = None  # tokens; the operator's cap, which bounds a reservation
    key: str | None = msgspec.field(default=None)  # the engine's credential, resolved; never printed
    concurrency: int | None = None  # requests at once on this engine, over all its replicas, per worker
    allowed_peers: tuple[str, ...] = ()  # networks in CIDR that count as this boundary beside loopback and private
    region: str = ""  # by the operator's word, as the two below
    baa_until: int | None = None  # days since the epoch, that day included; None: no business associate agreement
    zero_retention: bool = False

    def __repr__(self) -> str:  # the default one would print the credential
        return f"Target({self.name!r}, boundary={self.boundary!r})"
