"""The transforms of one attempt: engine's bytes in, client's bytes out.  Synchronous, no I/O, no clock.

`StreamSession` works on whole events: it frames, decodes to know what passes, meters, feeds the scanner of
answers, and gives back the bytes for the client: the very frames where both ends speak one dialect (but for
named edits), a translation where they do not.  `WholeSession` does the same for an answer that is not
streamed.  Where identifiers are masked, stop the answer, or are turned back from pseudonyms, events wait in
`proxy.holding` until their text is decided.  Both say `error` instead of inventing a success (law 5): a stream counts as whole only if its
terminal event came and every choice had its finish.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from compliance.model import Finding
from engines.base import Dialect, EventEncoder
from engines.errors import (
    AnswerTooLarge,
    EngineError,
    EngineFault,
    EngineOverloaded,
    RequestRejected,
    TruncatedAnswer,
    Untranslatable,
)
from engines.model import (
    Done,
    ErrorInfo,
    Event,
    Failed,
    Finish,
    Frame,
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
from engines.rawjson import UNREADABLE
from engines.sse import Framer
from proxy.alike import LONGEST, Alike, learned, string_of
from proxy.holding import Answering, Holding, Out

OVERLOADED = frozenset({429, 503, 529})
HELD_LIMIT = 64 * 1024
"""Bytes of pings kept before the first event; past it the oldest are forgotten: they say nothing."""
KEPT_LIMIT = 64 * 1024
"""Characters of an answer that are kept while it lasts, to count its tokens should its engine not get to say them."""
KEPT_PIECES = 32
"""Of them they are joined: a word of its own takes ten times the memory of its letters."""
PIECES = 16
"""Pieces of a stream's text that are counted, kept and scanned together."""
TRIES = 8
"""Times in a row that a likeness of a stream's events is learned and not met again, before it is learned no more."""


class AnswerScan(Protocol):
    """A scanner of answers: text goes in by lane, findings come out at the end."""

    def feed(self, lane: str, text: str) -> None: ...
    def skip(self, lane: str) -> None: ...
    def flush(self) -> tuple[Finding, ...]: ...


def refused(info: ErrorInfo) -> EngineError:
    """The exception for what an engine itself says went wrong.

    401, 403 and 404 are the deployment's fault (Spillway's own credential, a model that is not loaded),
    not the client's: another candidate may do better.
    """
    if info.status in OVERLOADED:
        return EngineOverloaded(f"the engine answered {info.status}", info)
    if info.status >= 500 or info.status in (401, 403, 404):
        return EngineFault(f"the engine answered {info.status}", info)
    return RequestRejected(f"the engine answered {info.status}", info)


class Session(ABC):
    """What a relay needs to know of either kind of session."""

    streamed = False
    committed = False  # the engine has begun to answer

    def __init__(
        self, request: Request, client: Dialect, engine: Dialect, scan: AnswerScan | None, answering: Answering | None
    ) -> None:
        self.request = request
        self.client = client
        self.engine = engine
        self.error: EngineError | None = None
        self.done = False
        self.told = False  # the engine's own error event has reached the client
        self.tee: Callable[[bytes], None] | None = None  # gets the engine's bytes as they come, before they are read
        self.usage: Usage | None = None
        self._length = 0
        self._kept: list[str] | None = None
        self._found: tuple[Finding, ...] | None = None
        self._pieces: list[str] = []  # of text, that are not counted, kept and scanned yet
        self._scan = scan  # of an answer that passes as it comes
        self._holding = Holding(answering, engine.name) if answering is not None else None

    @abstractmethod
    def feed(self, data: bytes) -> bytes:
        """Bytes for the client; may set `done` or `error`."""

    @abstractmethod
    def end(self) -> bytes:
        """The engine's answer ended."""

    def whole(self, body: bytes) -> bytes:
        """`feed` and `end`, of an answer that came at once."""
        return self.feed(body) + self.end()

    @property
    def text_length(self) -> int:
        """Characters of everything the model wrote; for an estimate where usage is missing."""
        self._gather()
        return self._length

    @text_length.setter
    def text_length(self, length: int) -> None:
        self._length = length

    @property
    def kept(self) -> list[str] | None:
        """The first of them, where somebody may count them."""
        self._gather()
        return self._kept

    @kept.setter
    def kept(self, pieces: list[str] | None) -> None:
        self._kept = pieces

    @property
    def scans(self) -> bool:
        """Is the answer looked at?"""
        return self._scan is not None or self._holding is not None

    def findings(self) -> tuple[Finding, ...]:
        """Of the whole answer: to be asked when it is over."""
        if self._found is None:
            self._gather()
            found = self._scan.flush() if self._scan is not None else ()
            self._found = found if self._holding is None else (*found, *self._holding.findings())
        return self._found

    @property
    def usage_final(self) -> bool:
        """Is `usage` that of the whole answer?  A stream may report the prompt's first, and end before the rest."""
        return self.done

    def _gather(self) -> None:
        """What was said since the last time, as one text: one call for many words."""
        pieces = self._pieces
        if pieces:
            text = "".join(pieces)
            pieces.clear()
            self._note_text("text", text)

    def _note_text(self, lane: str, text: str) -> None:
        kept = self._kept
        if kept is not None and self._length < KEPT_LIMIT:
            kept.append(text)
            if len(kept) == KEPT_PIECES:
                kept[:] = ["".join(kept)]
        self._length += len(text)
        if self._scan is not None and (self._holding is None or lane == "opaque"):
            self._scan.feed(lane, text)

    def _note_opaque(self, text: str) -> None:
        """What passes without being understood is scanned as far as it can be read, and else never called clean (law 8)."""
        if text:
            self._note_text("opaque", text)
        elif self._scan is not None:
            self._scan.skip("opaque")


class Restoring:
    """Puts the client's model name back into the events of one stream.

    An engine's events begin alike, up to the model's name and behind it; so what was found in one holds for the next that
    begins with the same bytes, as long as no second name follows.
    """

    __slots__ = ("_begin", "_dialect", "_instead", "_model", "_name")

    def __init__(self, dialect: Dialect, model: str) -> None:
        self._dialect = dialect
        self._model = model
        self._name = msgspec.json.encode(model)
        self._begin = self._instead = (
            b""  # an event's bytes to the end of its model's name: the engine's and the client's
        )

    def event(self, raw: bytes) -> bytes:
        begin = self._begin
        if begin and raw.startswith(begin) and raw.find(b'"model"', len(begin)) < 0:
            return self._instead + raw[len(begin) :]
        restored = self._dialect.restore_model(raw, self._model)
        if restored is not raw:
            self._remember(raw, restored)
        return restored

    def _remember(self, raw: bytes, restored: bytes) -> None:
        at = restored.find(self._name)
        end = at + len(self._name)
        rest = len(restored) - end
        if raw[:at] == restored[:at] and raw[len(raw) - rest :] == restored[end:]:
            self._begin, self._instead = raw[: len(raw) - rest], restored[:end]


class StreamSession(Session):
    """One streamed answer.

    `committed` turns true with the first event that says something: until then nothing is given out, and an
    error may still send the request elsewhere.  Pings that came before are given out with it.
    """

    streamed = True

    def __init__(
        self,
        request: Request,
        client: Dialect,
        engine: Dialect,
        *,
        answer_id: str,
        created: int,
        restore_model: bool,
        strip_usage: bool,
        scan: AnswerScan | None = None,
        answering: Answering | None = None,
    ) -> None:
        super().__init__(request, client, engine, scan, answering)
        self.committed = False
        self._framer = Framer()
        self._decoder = engine.decoder()
        self._encoder: EventEncoder | None = None
        if client is not engine:
            self._encoder = client.encoder(request, answer_id=answer_id, created=created)
        self._restoring = Restoring(client, request.model) if restore_model and client is engine else None
        self._alike: Alike | None = None
        self._tries = TRIES if answering is None else 0
        self._strip_usage = strip_usage
        self._held: list[bytes] = []  # pings before the first event
        self._held_bytes = 0
        self._given = False  # a byte was given out
        self._started = 0  # the choices that began, a bit for each: a set of its own takes as much memory as ten events
        self._finished = 0

    @property
    def usage_final(self) -> bool:
        return self.done or self._all_finished()

    def _all_finished(self) -> bool:
        return self._finished != 0 and not self._started & ~self._finished

    def feed(self, data: bytes) -> bytes:
        alike = self._alike
        if alike is not None and data.startswith(alike.head) and data.endswith(alike.tail):
            quoted = data[alike.start : alike.stop]
            try:
                text = string_of(quoted) if len(quoted) < LONGEST else ""
            except UNREADABLE:
                text = ""
            if text:  # nearly every event of a stream
                pieces = self._pieces
                pieces.append(text)
                if len(pieces) >= PIECES:
                    self._tries = TRIES
                    self._gather()
                if self._encoder is not None:
                    return self._translated(TextDelta(alike.choice, text))
                return alike.before + quoted + alike.behind if alike.changed else data
        return self._feed(data)

    def _feed(self, data: bytes) -> bytes:
        """Anything that an engine may send."""
        self._alike = None
        out: list[bytes] = []
        frames: Sequence[Frame] = ()
        events: Sequence[Event] = ()
        try:
            frames = self._framer.feed(data)
            for frame in frames:
                events = self._frame(frame, out)
                if self.done or self.error is not None:
                    break
        except EngineError as error:
            self.error = error
        given = self._given_out(out)
        if self._tries and given and len(frames) == 1 and len(events) == 1:
            self._learn(frames[0], events[0], data)
        return given

    def _translated(self, event: Event) -> bytes:
        out: list[bytes] = []
        try:
            self._encode(event, out)
        except EngineError as error:
            self.error = error
        return b"".join(out)

    def _learn(self, frame: Frame, event: Event, data: bytes) -> None:
        if type(event) is TextDelta and event.text and frame.raw == data and self.error is None:
            self._tries -= 1
            restoring = self._restoring
            self._alike = learned(self.engine, frame, event, None if restoring is None else restoring.event)

    def end(self) -> bytes:
        out: list[bytes] = []
        if not self.done and self.error is None:
            try:
                for frame in self._framer.flush():
                    self._frame(frame, out)
            except EngineError as error:
                self.error = error
        given = self._given_out(out)
        if not self.done and self.error is None:
            self.error = TruncatedAnswer("the stream ended without its terminal event")
        return given

    def _given_out(self, out: list[bytes]) -> bytes:
        if not self.committed:
            self._hold(out)
            return b""
        if self._held:
            out[:0] = self._held
            self._held = []
        if out:
            self._given = True
        return out[0] if len(out) == 1 else b"".join(out)

    def _frame(self, frame: Frame, out: list[bytes]) -> Sequence[Event]:
        events = self._decoder.feed(frame)
        strip = False
        for event in events:
            if type(event) is TextDelta:  # nearly every event of a stream
                self.committed = True
                self._started |= 1 << event.choice
                self._pieces.append(event.text)
                if len(self._pieces) >= PIECES or len(event.text) > LONGEST:
                    self._gather()
            elif type(event) is UsageReport:
                self.usage = event.usage
                strip = event.alone and self._strip_usage
            else:
                self._note(event)
            if self.error is not None and not (self.committed if self._holding is None else self._given):
                return events
            if self._encoder is not None:
                if self._holding is None:
                    self._encode(event, out)
                else:
                    self._give(self._holding.event(event), out)
                    self._holding.check()
        if self._encoder is None and not strip and not (self.done and self.error is not None):
            if self._holding is None:
                out.append(self._named(frame.raw))
            else:
                self._give(self._holding.frame(frame, events), out)
                self._holding.check()
        return events

    def _named(self, raw: bytes) -> bytes:
        return raw if self._restoring is None else self._restoring.event(raw)

    def _give(self, ready: Sequence[Out], out: list[bytes]) -> None:
        for one in ready:
            if isinstance(one, bytes):
                out.append(self._named(one))
            else:
                self._encode(one, out)

    def _encode(self, event: Event, out: list[bytes]) -> None:
        assert self._encoder is not None
        if type(event) is Failed:
            out.append(self.client.error_event(event.error))
        elif not (self.done and self.error is not None):
            encoded = self._encoder.feed(event)
            if encoded:
                out.append(encoded)

    def _note(self, event: Event) -> None:
        self._gather()
        match event:
            case TextDelta(choice=choice, text=text):
                self._say(choice)
                self._note_text("text", text)
            case ToolCallDelta(choice=choice, arguments=arguments):
                self._say(choice)
                self._note_text("tool_arguments", arguments)
            case ReasoningDelta(choice=choice, text=text):
                self._say(choice)
                self._note_text("reasoning", text)
            case RefusalDelta(choice=choice, text=text):
                self._say(choice)
                self._note_text("text", text)
            case ToolCallStart(choice=choice):
                self._say(choice)
            case ReasoningSeal(choice=choice):
                self._say(choice)
            case Finish(choice=choice):
                self._say(choice)
                self._finished |= 1 << choice
            case Start():
                self.committed = True
            case Opaque(what=what, carries_text=carries_text, text=text):
                self.committed = True
                if carries_text and self._encoder is not None:
                    raise Untranslatable(what, "the client's dialect has no form for it")
                if carries_text:
                    self._note_opaque(text)
            case Failed(error=info):
                self.error = refused(info)
                self.told = self.committed if self._holding is None else self._given
            case Done():
                self._finish()
            case UsageReport() | Ping():
                pass

    def _say(self, choice: int) -> None:
        self.committed = True
        self._started |= 1 << choice

    def _finish(self) -> None:
        self.done = True
        if not self._all_finished():
            self.error = TruncatedAnswer("the stream was ended before its answer was finished")

    def _hold(self, out: list[bytes]) -> None:
        for piece in out:
            self._held_bytes += len(piece)
            if self._held_bytes <= HELD_LIMIT:
                self._held.append(piece)


class WholeSession(Session):
    """One answer that is not streamed: collected up to `limit` bytes, then passed or translated."""

    def __init__(
        self,
        request: Request,
        client: Dialect,
        engine: Dialect,
        *,
        answer_id: str,
        created: int,
        restore_model: bool,
        limit: int,
        scan: AnswerScan | None = None,
        answering: Answering | None = None,
    ) -> None:
        super().__init__(request, client, engine, scan, answering)
        self._answer_id = answer_id
        self._created = created
        self._restore = request.model if restore_model and client is engine else None
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> bytes:
        self._size += len(data)
        if self._size > self._limit:
            self._parts.clear()
            self.error = AnswerTooLarge(f"the answer is larger than {self._limit} bytes")
        else:
            self._parts.append(data)
        return b""

    def end(self) -> bytes:
        if self.error is not None:
            return b""
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        return self._read(body)

    def whole(self, body: bytes) -> bytes:
        if len(body) > self._limit:
            return super().whole(body)
        return self._read(body)

    def _read(self, body: bytes) -> bytes:
        """What the client gets of it."""
        try:
            read = self.client is not self.engine or self.scans
            events = self.engine.decode_answer(self.request.operation, body, read=read)
            self._note_all(events)
            if self.error is None:
                self.done = True
                if self.client is self.engine:
                    return self._passed(body if self._holding is None else self._holding.body(body, events))
                return self._translated(events if self._holding is None else self._holding.events(events))
        except EngineError as error:
            self.error = error
        return b""

    def _note_all(self, events: Sequence[Event]) -> None:
        """What was metered and what failed; the text only where it is scanned, or must be counted for an estimate."""
        for event in events:
            if type(event) is UsageReport:
                self.usage = event.usage
            elif type(event) is Failed:
                self.error = refused(event.error)
        if self._scan is not None or self.usage is None:
            for event in events:
                self._note(event)

    def _passed(self, body: bytes) -> bytes:
        return body if self._restore is None else self.client.restore_model(body, self._restore)

    def _translated(self, events: Sequence[Event]) -> bytes:
        encoder = self.client.encoder(self.request, answer_id=self._answer_id, created=self._created)
        out = []
        for event in events:
            if type(event) is Opaque and event.carries_text:
                raise Untranslatable(event.what, "the client's dialect has no form for it")
            out.append(encoder.feed(event))
        out.append(encoder.flush())
        return b"".join(out)

    def _note(self, event: Event) -> None:
        """What a reader would see."""
        if type(event) is TextDelta or type(event) is RefusalDelta:
            self._note_text("text", event.text)
        elif type(event) is ReasoningDelta:
            self._note_text("reasoning", event.text)
        elif type(event) is ToolCallDelta:
            self._note_text("tool_arguments", event.arguments)
        elif type(event) is Opaque and event.carries_text:
            self._note_opaque(event.text)
