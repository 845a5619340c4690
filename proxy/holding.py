"""Events of one answer that wait until the text in them is decided, and how they then go out.  Pure; no clock.

Whole events are held, not characters, in one queue: an event goes out when all its text is decided and every event
before it has gone.  One whose text did not change goes out with the very bytes that it came in (law 7); in another,
the strings that changed are replaced in place, and what repeats their tokens (log probabilities) is taken out.

Under a guard every string of an event is looked at, known or not (law 8), and what could not be looked at ends the
answer.  The queue is bounded: past `MAX_EVENTS` or `MAX_BYTES` the text that it waits for is masked as if it were an
identifier.  Where the stream ends early, what was not decided is not sent.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
from msgspec import Struct

from compliance.holdback import Guard, Holdback
from compliance.model import Finding
from engines.answer_fields import AnswerField, Path, answer_fields, repeated_fields, repeats
from engines.errors import AnswerBlocked, MalformedAnswer
from engines.model import (
    DialectName,
    Done,
    Event,
    Failed,
    Finish,
    Frame,
    Opaque,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from engines.rawjson import UNREADABLE, duplicate_keys, rewritten, value_spans
from engines.sse import event_bytes

MAX_EVENTS = 1024
"""Events that wait."""
MAX_BYTES = 1024 * 1024
"""Bytes that wait, of events as they came."""

SEALED_AFTER = 16
"""Events of one choice without a word of one of its lanes, after which that is taken to be over."""

_EVENT_BYTES = 128
_PLAIN_FRAME = re.compile(rb"(?:event: ?[A-Za-z_.]*\r?\n)?data: ?(?:\r?\n)*")
"""What an event has beside its data, where it has nothing that a reader would see."""
_NAME = re.compile(r"[A-Za-z_.]*")

_decode = msgspec.json.Decoder().decode

Out = bytes | Event
"""What goes out: an event's bytes where both ends speak one dialect, else the event, to be encoded."""


class Answering(Struct, frozen=True):
    """What is done with the text of one answer."""

    guard: Guard | None = None
    original: Callable[[str], str | None] | None = None  # turns a pseudonym of this exchange back
    passed: Callable[[str, str], None] | None = None  # gets (name, text) of what passes, where nothing guards


class _Piece(Struct, frozen=True):
    """A part of a lane that an event carries."""

    lane: str
    start: int
    end: int
    text: str
    path: Path
    choice: int


class _Waiting:
    """An event in the queue."""

    __slots__ = ("changes", "item", "pieces", "repeated", "size")

    def __init__(self, item: Frame | Event, size: int) -> None:
        self.item = item
        self.size = size
        self.pieces: list[_Piece] = []
        self.changes: dict[Path, bytes] = {}  # what is decided already
        self.repeated: list[Path] = []  # goes, if anything else of the event changes


class Holding:
    """The queue of one answer, streamed or whole."""

    def __init__(self, answering: Answering, dialect: DialectName) -> None:
        self.most_events = 0  # that waited at once
        self._guard = answering.guard
        self._passed = answering.passed
        self._holdback = Holdback(answering.guard, answering.original, answering.passed)
        self._dialect: DialectName = dialect  # the engine's
        self._queue: deque[_Waiting] = deque()
        self._bytes = 0
        self._lanes: dict[int, set[str]] = {}
        self._turns: dict[int, int] = {}  # events with text, by choice
        self._heard: dict[str, int] = {}  # the last of them, by lane

    def findings(self) -> tuple[Finding, ...]:
        return self._holdback.findings()

    # --- streams ----------------------------------------------------------------------------------------

    def frame(self, frame: Frame, events: Sequence[Event]) -> list[Out]:
        """One more event as it came, and what it means; what can go out now, in order.

        `check` then says whether the answer must end there.
        """
        if self._guard is None and len(events) == 1 and not self._queue:  # most events of an answer that passes
            event = events[0]
            if type(event) is TextDelta and "[" not in event.text:
                if self._passed is not None:
                    self._passed("text", event.text)
                return [frame.raw]
        waiting = _Waiting(frame, len(frame.raw))
        if any([type(event) is Failed for event in events]):
            self._drop()
        if frame.data is None:
            self._comment(frame, waiting)
        elif frame.data != b"[DONE]":
            self._read(waiting, frame)
        return self._push(waiting, events)

    def event(self, event: Event) -> list[Out]:
        """The same for an event that is to be encoded in another dialect."""
        waiting = _Waiting(event, _EVENT_BYTES)
        if type(event) is Failed:
            self._drop()
        field = _field_of(event)
        if field is not None:
            waiting.size += len(field.text)
            self._take(waiting, field)
        return self._push(waiting, (event,))

    def ready(self) -> list[Out]:
        """What can go out now."""
        out: list[Out] = []
        queue, holdback = self._queue, self._holdback
        while queue and all([holdback.ready(piece.lane) >= piece.end for piece in queue[0].pieces]):
            waiting = queue.popleft()
            self._bytes -= waiting.size
            out.append(self._finished(waiting))
        return out

    # --- whole answers ----------------------------------------------------------------------------------

    def body(self, body: bytes, events: Sequence[Event]) -> bytes:
        """A whole answer of the same dialect as it is to be sent; raises `AnswerBlocked`."""
        waiting = _Waiting(Frame(body, "", body), len(body))
        self._unreadable(events)
        self._read(waiting, Frame(body, "", body), whole=True)
        self._flush(self._lanes)
        self.check()
        changes = self._changes(waiting)
        return rewritten(body, changes) if changes else body

    def events(self, events: Sequence[Event]) -> list[Event]:
        """A whole answer's events as they are to be encoded; raises `AnswerBlocked`."""
        self._unreadable(events)
        held: list[_Waiting] = []
        for event in events:
            waiting = _Waiting(event, 0)
            if (field := _field_of(event)) is not None:
                self._take(waiting, field, whole=True)
            held.append(waiting)
        self._flush(self._lanes)
        self.check()
        out = [self._finished(waiting) for waiting in held]
        return [event for event in out if not isinstance(event, bytes)]

    # --- in ---------------------------------------------------------------------------------------------

    def _push(self, waiting: _Waiting, events: Sequence[Event]) -> list[Out]:
        self._unreadable(events)
        if self._holdback.stopped:
            return self.ready()
        self._queue.append(waiting)
        self._bytes += waiting.size
        self._seal(waiting)
        for event in events:
            if type(event) is Finish:
                self._flush([event.choice])
            elif type(event) is Done or type(event) is Failed:
                self._flush(self._lanes)
        out = self.ready()
        while len(self._queue) > MAX_EVENTS or self._bytes > MAX_BYTES:
            if self._holdback.stopped:
                break
            for piece in self._queue[0].pieces:
                if self._holdback.ready(piece.lane) < piece.end:
                    self._holdback.force(piece.lane)
                    self._holdback.flush(piece.lane)  # half an escape, at the most
            out += self.ready()
        self.most_events = max(self.most_events, len(self._queue))
        return out

    def check(self) -> None:
        """Raises `AnswerBlocked` where the answer must end here."""
        if self._holdback.stopped:
            raise AnswerBlocked(self._holdback.stopped)

    def _read(self, waiting: _Waiting, frame: Frame, *, whole: bool = False) -> None:
        """Every text of a frame, or of a whole answer, into its lane."""
        assert frame.data is not None
        try:
            body = _decode(frame.data)
        except UNREADABLE:
            raise MalformedAnswer("an event is not JSON") from None
        if not isinstance(body, dict):
            raise MalformedAnswer("an event is not an object")
        if self._guard is not None and duplicate_keys(frame.data, body):
            raise MalformedAnswer("an event has a key twice, so it cannot be looked at")
        for field in answer_fields(self._dialect, body):
            if field.value:
                ((start, end),) = value_spans(frame.data, {field.path}).values()
                field = msgspec.structs.replace(field, text=frame.data[start:end].decode())
            if self._guard is not None or field.name != "opaque":
                self._take(waiting, field, whole=whole)
        for path, value, text in repeated_fields(body):
            if self._guard is not None and not repeats(value, text):
                waiting.changes[path] = b"null"
            else:
                waiting.repeated.append(path)

    def _take(self, waiting: _Waiting, field: AnswerField, *, whole: bool = False) -> None:
        if not field.text:
            return
        holdback = self._holdback
        end = holdback.feed(field.lane, field.text, name=field.name, json=field.json, whole=whole or field.whole)
        piece = _Piece(field.lane, end - len(field.text), end, field.text, field.path, field.choice)
        if not field.whole:
            self._lanes.setdefault(field.choice, set()).add(field.lane)
            waiting.pieces.append(piece)
            return
        holdback.flush(field.lane)
        if not holdback.stopped:
            changed = holdback.edited(piece.lane, piece.start, piece.end, piece.text)
            if changed != piece.text:
                new = changed.encode() if field.value else b"null" if field.key else msgspec.json.encode(changed)
                waiting.changes[field.path] = new
                if not field.path:  # the outermost object itself cannot go without saying it
                    raise AnswerBlocked("opaque")
        holdback.close(field.lane)

    def _comment(self, frame: Frame, waiting: _Waiting) -> None:
        """A comment may say anything; readers see none of it."""
        if self._guard is None:
            return
        text = frame.raw.decode("utf-8", "replace")
        self._holdback.feed("comment", text, name="opaque", whole=True)
        self._holdback.flush("comment")
        if self._holdback.edited("comment", 0, len(text), text) != text:
            waiting.item = Frame(b": ping\n\n", "", None)
        self._holdback.close("comment")

    def _seal(self, waiting: _Waiting) -> None:
        """Where a choice has gone on with another part of it, what came before will hardly be continued."""
        if not waiting.pieces or self._guard is None:
            return
        for choice in {piece.choice for piece in waiting.pieces}:
            now = self._turns[choice] = self._turns.get(choice, 0) + 1
            for piece in waiting.pieces:
                if piece.choice == choice:
                    self._heard[piece.lane] = now
            lanes = self._lanes[choice]
            if len(lanes) > 1:
                for lane in lanes:
                    if now - self._heard.get(lane, now) == SEALED_AFTER:
                        self._holdback.seal(lane)

    def _unreadable(self, events: Iterable[Event]) -> None:
        for event in events:
            if type(event) is Opaque and event.carries_text and not event.text:
                self._holdback.skip("opaque")

    def _flush(self, choices: Iterable[int]) -> None:
        for choice in list(choices):
            for lane in self._lanes.get(choice, ()):
                self._holdback.flush(lane)

    def _drop(self) -> None:
        if self._guard is None:
            self._flush(self._lanes)
            return
        self._queue.clear()
        self._bytes = 0

    # --- out --------------------------------------------------------------------------------------------

    def _changes(self, waiting: _Waiting) -> dict[Path, bytes]:
        changes = dict(waiting.changes)
        for piece in waiting.pieces:
            changed = self._holdback.edited(piece.lane, piece.start, piece.end, piece.text)
            if changed != piece.text:
                changes[piece.path] = msgspec.json.encode(changed)
        if changes:
            changes.update((path, b"null") for path in waiting.repeated)
        return changes

    def _finished(self, waiting: _Waiting) -> Out:
        item = waiting.item
        if isinstance(item, Frame):
            changes = self._changes(waiting)
            return self._frame_bytes(item, changes)
        for piece in waiting.pieces:
            changed = self._holdback.edited(piece.lane, piece.start, piece.end, piece.text)
            if changed != piece.text:
                return _with_text(item, changed)
        return item

    def _frame_bytes(self, frame: Frame, changes: Mapping[Path, bytes]) -> bytes:
        data = frame.data
        if data is None:
            return frame.raw
        new = rewritten(data, changes) if changes else data
        extra = frame.raw.replace(data, b"", 1)
        if self._guard is not None and not _PLAIN_FRAME.fullmatch(extra):
            event = frame.event if _NAME.fullmatch(frame.event) else ""
            return event_bytes(new.replace(b"\n", b" "), event)
        if not changes:
            return frame.raw
        if data in frame.raw:
            return frame.raw.replace(data, new, 1)
        return event_bytes(new.replace(b"\n", b" "), frame.event)


def _field_of(event: Event) -> AnswerField | None:
    match event:
        case TextDelta(choice=choice, text=text):
            return AnswerField((), f"{choice}/text", "text", text, choice)
        case RefusalDelta(choice=choice, text=text):
            return AnswerField((), f"{choice}/refusal", "text", text, choice)
        case ReasoningDelta(choice=choice, text=text):
            return AnswerField((), f"{choice}/reasoning", "reasoning", text, choice)
        case ToolCallDelta(choice=choice, index=index, arguments=arguments):
            return AnswerField((), f"{choice}/call/{index}", "tool_arguments", arguments, choice, json=True)
        case _:
            return None


def _with_text(event: Event, text: str) -> Event:
    match event:
        case TextDelta() | RefusalDelta() | ReasoningDelta():
            return msgspec.structs.replace(event, text=text)
        case ToolCallDelta():
            return msgspec.structs.replace(event, arguments=text)
        case _:
            return event
