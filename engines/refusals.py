"""An engine's refusal in neutral words: what both dialects read of an answer that is not status 200."""

from __future__ import annotations

from typing import Any

import msgspec

from engines.rawjson import UNREADABLE

LONGEST_WAIT = 366 * 86_400.0
"""Seconds of a `retry-after` past which it is nonsense."""
SILENT = "the engine reported an error"
"""The message where the engine gave none."""

_TYPES = {
    400: "invalid_request",
    401: "authentication",
    403: "permission",
    404: "not_found",
    408: "timeout",
    413: "invalid_request",
    422: "invalid_request",
    429: "rate_limit",
    503: "overloaded",
    504: "timeout",
    529: "overloaded",
}


def neutral_type(status: int) -> str:
    """The neutral error type of an HTTP status (`engines.model.ErrorInfo.type`)."""
    return _TYPES.get(status, "api" if status >= 500 else "invalid_request")


def seconds(value: str | None) -> float | None:
    """A `retry-after` in seconds; a date, or nonsense (not finite, negative, past a year), is None."""
    try:
        number = float(value) if value is not None else -1.0
    except ValueError:
        return None
    return number if 0 <= number <= LONGEST_WAIT else None  # of NaN both comparisons are false


def body_of(raw: bytes) -> dict[str, Any]:
    """The refusal's object; empty where it is none."""
    try:
        value = msgspec.json.decode(raw)
    except UNREADABLE:
        return {}
    return value if isinstance(value, dict) else {}


def message_of(row: dict[str, Any]) -> str:
    """What the error object says, if it says it in words."""
    message = row.get("message")
    return message if isinstance(message, str) and message else SILENT
