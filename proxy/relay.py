"""Drives a session: engine's bytes in, client's bytes out, from the socket's own callback.

A relay is the receiver of an engine's connection.  Nothing in it awaits: an event costs no task switch.
Backpressure: when the client stops reading, the engine's socket is paused, and the idle timeout stands
still meanwhile, because a slow reader is not a dead engine.  `finished` resolves once, when the attempt
is over for the client; a connection that still has its answer's last bytes to come is left to the
transport, within a deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from engines.errors import BrokenAnswer, EngineError, FirstEventTimeout, IdleTimeout, MalformedAnswer, TotalTimeout
from engines.http1 import Receiver
from engines.transport import Connection
from engines.turns import Turns
from proxy.addressing import Timeouts
from proxy.deadlines import Deadlines
from proxy.errors import failure_info
from proxy.exchange import ClientSink, Header
from proxy.session import Session, refused

ERROR_BODY_LIMIT = 1024 * 1024
IDLE_LOOKS = 4
"""How often within an idle timeout a stream is looked at: it may last longer by that share."""
DRAIN_SECONDS = 1.0
"""How long a connection may take to end after its terminal event."""


HeadFor = Callable[[Sequence[Header]], bytes]
"""The engine's headers -> the client's, as lines, for an answer of status 200."""


class Relay(Receiver):
    """One attempt's way from the engine to the client."""

    __slots__ = (
        "_connection", "_deadlines", "_drained", "_ends", "_head_for", "_heard", "_last_heard", "_loop", "_paused", "_refusal", "_session",
        "_sink", "_timeouts", "_total_at", "bytes_in", "deadline", "error", "finished", "first_at", "headers", "over", "refusal_body",
        "status",
    )  # fmt: skip

    def __init__(
        self, session: Session, sink: ClientSink, connection: Connection, deadlines: Deadlines, timeouts: Timeouts, head_for: HeadFor,
        loop: asyncio.AbstractEventLoop, now: float, ends: Turns,
    ) -> None:  # fmt: skip
        self._session = session
        self._sink = sink
        self._connection = connection
        self._deadlines = deadlines
        self._timeouts = timeouts
        self._head_for = head_for
        self._loop = loop
        self._ends = ends
        self._refusal: list[bytes] | None = None
        self._paused = False
        self._drained = False
        self.over = False  # for the client; `finished` follows in one of the next turns
        self._heard = False
        self._last_heard = now
        self._total_at = now + timeouts.total
        self.deadline = min(now + timeouts.first_event, self._total_at)
        self.error: EngineError | None = None
        self.finished: asyncio.Future[None] = loop.create_future()
        self.status = 0
        self.headers: Sequence[Header] = ()
        self.first_at = 0.0
        self.bytes_in = 0
        self.refusal_body = b""
        deadlines.add(self)

    # --- the connection's callbacks ---------------------------------------------------------------------

    def on_head(self, status: int, headers: Sequence[Header]) -> None:
        self.status = status
        self.headers = headers
        if status != 200:
            self._refusal = []
        elif self._session.streamed and not _says(headers, b"text/event-stream"):
            self._fail(MalformedAnswer("a stream was asked for and something else was answered"))

    def on_body(self, data: bytes) -> None:
        self.bytes_in += len(data)
        if self.over:
            return
        if self._refusal is not None:
            if self.bytes_in <= ERROR_BODY_LIMIT:
                self._refusal.append(data)
            return
        session = self._session
        if session.tee is not None:
            session.tee(data)
        out = session.feed(data)
        self._heard = True
        if out:
            if not self.first_at:
                self._write(out)
            elif self._sink.write(out) and not self._paused:  # as `_write` does, without its call at every event
                self._pause()
        if session.error is not None:
            self._fail(session.error)
        elif session.done:
            self._settle(None)

    def on_end(self) -> None:
        self._drained = True
        self._deadlines.discard(self)
        if self._unwanted():
            return
        if self._refusal is not None:
            self._refused()
            return
        session = self._session
        body = session.end()
        if session.streamed:
            if body:
                self._write(body)
        elif session.error is None:
            self.first_at = self._loop.time()
            self._sink.whole(200, self._head_for(self.headers), body)
        self._settle(session.error)

    def on_answer(self, headers: Sequence[Header], body: bytes) -> None:
        session = self._session
        if session.streamed or self._unwanted():  # it may be cancelled before `abandon` is called
            self.on_head(200, headers)
            if body and not self.over:  # else its connection was cut, and nothing more is told of it
                self.on_body(body)
            self.on_end()
            return
        self.status, self.headers, self.bytes_in = 200, headers, len(body)
        self._drained = self.over = True
        self._deadlines.discard(self)
        if session.tee is not None:
            session.tee(body)
        answer = session.whole(body)
        self.error = session.error
        if session.error is None:
            self.first_at = self._loop.time()
            self._sink.whole(200, self._head_for(headers), answer)
        if session.scans:
            self._ends.add(self._finish)
        else:
            self.finished.set_result(None)

    def on_error(self, error: EngineError) -> None:
        self._drained = True
        self._deadlines.discard(self)
        if not self._unwanted():
            self._settle(error)

    def moved(self, connection: Connection) -> bool:
        if self._drained or self._unwanted():
            return False
        self._connection = connection
        return True

    def on_deadline(self, now: float) -> None:
        if self._unwanted():  # the answer is out; the connection did not end
            self._deadlines.discard(self)
            self._connection.abort()
        elif now >= self._total_at:
            self._fail(TotalTimeout("the attempt took longer than its total timeout"))
        elif self._begun() and (self._heard or now < self._last_heard + self._timeouts.idle):
            if self._heard:  # since the last look: an event sets a flag, which is cheaper than reading the clock
                self._heard = False
                self._last_heard = now
            self.deadline = min(now + self._timeouts.idle / IDLE_LOOKS, self._total_at)
        elif self._begun():
            self._fail(IdleTimeout("the engine fell silent"))
        else:
            self._fail(FirstEventTimeout("the engine sent nothing in time"))

    def _unwanted(self) -> bool:
        """Is it over, or will it be abandoned, since its task was cancelled?"""
        return self.over or self.finished.done()

    def _begun(self) -> bool:
        """Has the engine begun to answer?  What it said may still be held back."""
        return self.first_at > 0 or self._session.committed

    # --- the client's side ------------------------------------------------------------------------------

    def resume(self) -> None:
        """The client reads again."""
        if self._paused:
            self._paused = False
            self._heard = True
            self.deadline = min(self._loop.time() + self._timeouts.idle / IDLE_LOOKS, self._total_at)
            if not self._drained:
                self._connection.resume_reading()

    def abandon(self) -> None:
        """The client left, or the task was cancelled: the engine's work ends now (law 9)."""
        self.over = True
        self._deadlines.discard(self)
        if not self._drained:
            self._drained = True
            self._connection.abort()
        if not self.finished.done():
            self.finished.cancel()

    def _write(self, data: bytes) -> None:
        if self.first_at:
            paused = self._sink.write(data)
        else:
            self.first_at = self._last_heard = self._loop.time()
            paused = self._sink.begin(200, self._head_for(self.headers), data)
            self.deadline = min(self.first_at + self._timeouts.idle / IDLE_LOOKS, self._total_at)
        if paused and not self._paused:
            self._pause()
        self._heard = True

    def _pause(self) -> None:
        self._paused = True
        self._connection.pause_reading()
        self.deadline = self._total_at

    def _refused(self) -> None:
        body = b"".join(self._refusal or ())
        self.refusal_body = body
        text_headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in self.headers}
        info = self._session.engine.decode_error(self.status, text_headers, body)
        self._settle(refused(info) if self.status >= 400 else BrokenAnswer(f"the engine answered {self.status}"))

    def _fail(self, error: EngineError) -> None:
        if not self._drained:
            self._drained = True
            self._connection.abort()
        self._settle(error)

    def _settle(self, error: EngineError | None) -> None:
        """The attempt is over for the client: an error after the commit becomes an error event (law 5)."""
        self.error = error
        self.over = True
        if self._session.streamed and self.first_at:  # what it wrote may be held, and not be sent yet
            if error is not None and not self._session.told:
                self._sink.write(self._session.client.error_event(failure_info(error)))
            self._sink.finish()
        if self._drained:
            self._deadlines.discard(self)
        else:
            if self._paused:  # nothing more is written, so the rest may drain
                self._paused = False
                self._connection.resume_reading()
            self.deadline = self._loop.time() + DRAIN_SECONDS
        if self._session.streamed or self._session.scans:  # many may end at once; each is then settled and recorded
            self._ends.add(self._finish)
        else:
            self._finish()

    def _finish(self) -> None:
        if not self.finished.done():
            try:
                self._session.findings()  # of all that end in this turn, one after another: see `proxy.pipeline`
            finally:
                self.finished.set_result(None)


def _says(headers: Sequence[Header], kind: bytes) -> bool:
    return any(name == b"content-type" and kind in value.lower() for name, value in headers)
