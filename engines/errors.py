"""What can go wrong between Spillway and an engine.

    EngineError                      `retryable`: another candidate may be tried (before the commit only)
    ├── ConnectFailed                no connection; not one request byte was sent           retryable
    │   ├── ConnectTimeout
    │   └── BoundaryViolation        the peer's address lies outside the target's boundary   retryable
    ├── EngineTimeout                connected, then too slow                                retryable
    │   ├── FirstEventTimeout        no head, or no first event
    │   ├── IdleTimeout              silence between two events
    │   └── TotalTimeout             the whole attempt took too long                         final
    ├── BrokenAnswer                 the engine broke the protocol                           retryable
    │   ├── ConnectionLost           reset or closed before the answer's end
    │   ├── MalformedAnswer          not HTTP, not JSON, not an event of its dialect
    │   ├── TruncatedAnswer          a stream ended without its terminal event
    │   └── AnswerTooLarge           past the stated bound                                   final
    ├── EngineRefused                the engine answered with an error of its own
    │   ├── EngineOverloaded         429, 503, 529 or an error event saying so               retryable
    │   ├── EngineFault              other 5xx                                               retryable
    │   └── RequestRejected          other 4xx: the same anywhere                            final
    ├── Untranslatable               the other dialect cannot say this                       retryable
    └── AnswerBlocked                the rules end an answer for what stands in it            final

Messages are Spillway's own words: they never carry a peer's bytes, so they may be logged.
"""

from __future__ import annotations

from typing import ClassVar

from engines.model import ErrorInfo


class EngineError(Exception):
    """Base of everything that an attempt can die of.

    `code` is the stable name that records and metrics carry; `info`, where there is one, is what the
    engine itself said (it may quote the prompt, so it goes to the client only, never to a record).
    """

    retryable: ClassVar[bool] = False
    code: ClassVar[str] = "engine_error"
    status: ClassVar[int] = 502

    def __init__(self, message: str = "", info: ErrorInfo | None = None) -> None:
        super().__init__(message or self.code)
        self.info = info


class ConnectFailed(EngineError):
    retryable = True
    code = "connect_failed"


class ConnectTimeout(ConnectFailed):
    code = "connect_timeout"
    status = 504


class BoundaryViolation(ConnectFailed):
    code = "boundary_violation"


class EngineTimeout(EngineError):
    retryable = True
    code = "engine_timeout"
    status = 504


class FirstEventTimeout(EngineTimeout):
    code = "first_event_timeout"


class IdleTimeout(EngineTimeout):
    code = "idle_timeout"


class TotalTimeout(EngineTimeout):
    retryable = False
    code = "total_timeout"


class BrokenAnswer(EngineError):
    retryable = True
    code = "broken_answer"


class ConnectionLost(BrokenAnswer):
    code = "connection_lost"


class MalformedAnswer(BrokenAnswer):
    code = "malformed_answer"


class TruncatedAnswer(BrokenAnswer):
    code = "truncated_answer"


class AnswerTooLarge(BrokenAnswer):
    retryable = False
    code = "answer_too_large"


class EngineRefused(EngineError):
    """The engine answered with an error; `upstream` keeps status, headers and body for a same-dialect client."""

    code = "engine_refused"

    def __init__(
        self,
        message: str = "",
        info: ErrorInfo | None = None,
        *,
        upstream: tuple[int, list[tuple[bytes, bytes]], bytes] | None = None,
    ) -> None:
        super().__init__(message, info)
        self.upstream = upstream


class EngineOverloaded(EngineRefused):
    retryable = True
    code = "engine_overloaded"
    status = 503


class EngineFault(EngineRefused):
    retryable = True
    code = "engine_fault"


class RequestRejected(EngineRefused):
    code = "request_rejected"
    status = 400


class Untranslatable(EngineError):
    """`field` is the path of what the other dialect cannot express, e.g. `messages[2].content[1].audio`."""

    retryable = True
    code = "untranslatable"
    status = 400

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field}: {why}")
        self.field = field


class AnswerBlocked(EngineError):
    """`kind` is what was found.  Another candidate is not tried: it was asked the same."""

    code = "policy_blocked"
    status = 403

    def __init__(self, kind: str) -> None:
        message = f"The answer was ended by policy: it may not hold what was found in it ({kind})."
        super().__init__(
            f"the rules end an answer that holds: {kind}", ErrorInfo(403, "permission", message, self.code)
        )
        self.kind = kind
