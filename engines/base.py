"""Protocols: what a dialect must be able to do.  All of it is pure and synchronous.

A dialect is one wire format (OpenAI's, Anthropic's), in both directions: as the client's side it parses
requests and encodes answers and errors; as the engine's side it renders requests and decodes answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from engines.model import Conversation, DialectName, ErrorInfo, Event, Frame, Operation, Request


class EventDecoder(Protocol):
    """Engine's bytes -> events, one decoder an answer.  Never raises on hostile bytes but `MalformedAnswer`."""

    def feed(self, frame: Frame) -> Sequence[Event]:
        """The events of one SSE frame.  Cheap: it runs for every event of every stream."""
        ...


class EventEncoder(Protocol):
    """Events -> client's bytes, one encoder an answer, streamed (SSE frames) or whole (one JSON body)."""

    def feed(self, event: Event) -> bytes:
        """Bytes to write now; b"" where the event only changes what comes later, or the answer is whole.

        Raises `Untranslatable` for an event whose content this dialect cannot carry.
        """
        ...

    def flush(self) -> bytes:
        """What is left after the last event: nothing for a stream (Done ended it), the body for a whole answer."""
        ...


class Dialect(Protocol):
    name: DialectName

    # the client's side
    def parse(self, operation: Operation, raw: bytes, headers: Mapping[str, str]) -> Request:
        """Parse and check what the pipeline needs; raises `BadRequest`.  Unknown fields are left alone."""
        ...

    def encoder(self, request: Request, *, answer_id: str, created: int) -> EventEncoder: ...
    def error_body(self, error: ErrorInfo) -> bytes: ...
    def error_event(self, error: ErrorInfo) -> bytes:
        """An error in mid-stream, as SSE bytes.  After it the stream ends without a success marker."""
        ...

    # from one side to the other
    def conversation(self, request: Request) -> Conversation:
        """The neutral form; raises `Untranslatable` naming the field that it has no word for."""
        ...

    # the engine's side
    def edit(
        self, request: Request, *, model: str, ask_usage: bool, cap: tuple[str, int] | None = None
    ) -> tuple[bytes, tuple[str, ...]]:
        """Same dialect: `raw` with the model's name replaced and, for a stream, usage asked for.

        `cap`: the field and the tokens that are asked for at most where the request states no limit of its output.
        Returns the bytes and the names of the edits made (`model_alias`, `usage_option`, `output_cap`); with no edit
        the very same bytes object.
        """
        ...

    def render(
        self,
        conversation: Conversation,
        *,
        model: str,
        default_max_output: int,
        limit_field: str = "max_tokens",
        sampling_extensions: bool = False,
    ) -> bytes:
        """The neutral form in this dialect; raises `Untranslatable`.

        `default_max_output` is used only where the dialect demands a limit (Anthropic's max_tokens) and the client
        stated none.  `limit_field` and `sampling_extensions` are the engine kind's (`engines.kinds.Kind`).
        """
        ...

    def decoder(self) -> EventDecoder: ...
    def decode_answer(self, operation: Operation, body: bytes, *, read: bool = True) -> Sequence[Event]:
        """A whole answer (status 200, not streamed) as events; raises `MalformedAnswer`.

        Not `read`: what it says is nobody's concern here, so that its usage is enough where it has one.
        """
        ...

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ErrorInfo: ...
    def restore_model(self, raw: bytes, model: str) -> bytes:
        """The client's model name put back into a whole answer or one SSE frame; untouched if absent."""
        ...
