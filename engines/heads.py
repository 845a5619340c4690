"""Heads of HTTP messages that are known byte for byte, so that they need not be parsed again.

A peer sends the same head with each of its messages, but for the body's length.  What a strict parser has accepted once
is kept by its bytes without the digits of that length; a whole message that begins with the same bytes has the same head.
Nothing is accepted here that the parser has not accepted before: any other byte, a body that is not whole yet, or more
behind it, is the parser's.
"""

from __future__ import annotations

import re
from typing import Generic, TypeVar

KnownHead = TypeVar("KnownHead")

REMEMBERED = 512
"""Heads that are kept; the oldest goes first."""
LONGEST = 4096
"""Bytes of a head that is kept."""
FLEETING = frozenset(
    """
    baggage cf-ray idempotency-key openai-processing-ms request-id sentry-trace traceparent tracestate x-amzn-trace-id
    x-b3-spanid x-b3-traceid x-cloud-trace-context x-correlation-id x-request-id
    """.split()  # noqa: SIM905  a list of words reads best as words
)
"""Headers with another value in each message: a head with one would never come again, and push out one that would."""
_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ([0-9]{1,12})\r\n")
_END = b"\r\n\r\n"


class Heads(Generic[KnownHead]):
    """What was made of the heads that came of late."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[bytes, KnownHead] = {}

    def find(self, data: bytes) -> tuple[KnownHead, bytes] | None:
        """What was made of the head, and the body, of `data`: exactly one whole message whose head is known."""
        end, found = _measured(data)
        if found is None:
            return None
        start, stop = found.span(1)
        head = self._known.get(data[:start] + data[stop:end])
        if head is None or len(data) - end - 4 != int(found[1]):
            return None
        return head, data[end + 4 :]

    def learn(self, data: bytes, head: KnownHead) -> None:
        """The parser has accepted `data`, one whole message, and `head` is what follows from its head without its length."""
        end, found = _measured(data)
        if found is not None and end <= LONGEST:
            start, stop = found.span(1)
            if len(self._known) >= REMEMBERED:
                del self._known[next(iter(self._known))]
            self._known[data[:start] + data[stop:end]] = head


def length_of(data: bytes) -> int:
    """Bytes of the message whose head stands at the beginning of `data`; 0 where that cannot be told from its head."""
    end, found = _measured(data)
    return end + 4 + int(found[1]) if found is not None else 0


def _measured(data: bytes) -> tuple[int, re.Match[bytes] | None]:
    """(where the head ends, its Content-Length); None: it is not whole, or has none in its usual form."""
    end = data.find(_END)
    return end, _LENGTH.search(data, 0, end + 2) if end > 0 else None
