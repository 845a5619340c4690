"""What a client may see when Spillway itself says no.

Every refusal has one of the codes of `CODES`; its dialect renders it in its own envelope.  Messages are
Spillway's own words and say what to do.  What an engine said passes as it came, elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from engines.errors import EngineError, EngineTimeout
from engines.model import ErrorInfo


class Code(Struct, frozen=True):
    status: int
    type: str  # the neutral type of `engines.model.ErrorInfo`
    final: bool  # official SDKs must not try again: x-should-retry: false


CODES: Mapping[str, Code] = {
    "unauthenticated": Code(401, "authentication", True),
    "forbidden_host": Code(403, "permission", True),
    "not_found": Code(404, "not_found", True),
    "method_not_allowed": Code(405, "invalid_request", True),
    "invalid_request": Code(400, "invalid_request", True),
    "unsupported_encoding": Code(415, "invalid_request", True),
    "request_too_large": Code(413, "invalid_request", True),
    "request_timeout": Code(408, "timeout", True),
    "model_not_found": Code(404, "not_found", True),
    "policy_blocked": Code(403, "permission", True),
    "not_scannable": Code(403, "permission", True),
    "untranslatable": Code(400, "invalid_request", True),
    "no_eligible_target": Code(503, "overloaded", False),
    "queue_timeout": Code(503, "overloaded", False),
    "budget_exceeded": Code(429, "rate_limit", True),
    "budget_unavailable": Code(503, "overloaded", False),
    "rate_limited": Code(429, "rate_limit", False),
    "audit_unavailable": Code(503, "overloaded", False),
    "draining": Code(503, "overloaded", False),
    "engine_error": Code(502, "api", False),
    "engine_timeout": Code(504, "timeout", False),
    "internal": Code(500, "api", False),
}


_KINDS = {400: "invalid_request", 403: "permission"}
"""Of refusals with another status than their code's own: what is for good must not be called overloaded."""


class Refusal(Exception):
    """A request that ends here.  `retry_after` is in seconds; `param` the path of the offending field."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int | None = None,
        param: str | None = None,
        retry_after: float | None = None,
        final: bool | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(message)
        self.status = CODES[code].status if status is None else status
        self.code = code
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.final = CODES[code].final if final is None else final
        self.headers = headers  # beside those of every answer

    def info(self) -> ErrorInfo:
        row = CODES[self.code]
        kind = row.type if self.status == row.status else _KINDS.get(self.status, row.type)
        return ErrorInfo(self.status, kind, self.message, self.code, self.param, self.retry_after)


def failure_info(error: EngineError) -> ErrorInfo:
    """What a client is told of an attempt that failed: the engine's own words where it said something."""
    if error.info is not None:
        return error.info
    kind = "timeout" if isinstance(error, EngineTimeout) else "invalid_request" if error.status == 400 else "api"
    return ErrorInfo(error.status, kind, f"The engine could not answer: {error}.", error.code)
