"""What a client is told of a rate limit, in the headers that its SDK knows.  Pure.

Sources: OpenAI, "Rate limits in headers" (x-ratelimit-*, resets as Go durations); Anthropic, "Response headers"
(anthropic-ratelimit-*, resets in RFC 3339).
"""

from __future__ import annotations

import datetime
import math

Headers = tuple[tuple[bytes, bytes], ...]


def ratelimit_headers(dialect: str, unit: str, limit: int, left: int, wait: float, now: float) -> Headers:
    """The limit that was reached, in `requests` or `tokens`; `wait` in seconds until it is fresh, `now` since the epoch."""
    if dialect == "anthropic":
        at = datetime.datetime.fromtimestamp(math.ceil(now + wait), datetime.UTC)
        stem = f"anthropic-ratelimit-{unit}"
        return _encoded(
            {f"{stem}-limit": limit, f"{stem}-remaining": left, f"{stem}-reset": f"{at:%Y-%m-%dT%H:%M:%SZ}"}
        )
    return _encoded(
        {
            f"x-ratelimit-limit-{unit}": limit,
            f"x-ratelimit-remaining-{unit}": left,
            f"x-ratelimit-reset-{unit}": _duration(math.ceil(wait)),
        }
    )


def _duration(seconds: int) -> str:
    """As Go writes it: 1h2m3s."""
    hours, rest = divmod(seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    if hours:
        return f"{hours}h{minutes}m{seconds}s"
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"


def _encoded(headers: dict[str, int | str]) -> Headers:
    return tuple([(name.encode(), str(value).encode()) for name, value in headers.items()])
