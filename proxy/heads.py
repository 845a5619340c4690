"""The head of a request, and what follows from it alone.

Requests of one application have the same head but for the body's length, and share it (`engines.heads`): so what is
derived of a head is derived once.
"""

from __future__ import annotations

from collections.abc import Mapping

from proxy.auth import credential, digest
from proxy.surfaces import POSTS


class Told:
    """What a head says for the records, as they have it.  Shared by requests: nobody changes it."""

    __slots__ = ("request_class", "stored_trace", "subject", "tags", "trace")

    def __init__(
        self,
        subject: str = "",
        trace: str = "",
        stored_trace: str = "",
        request_class: str = "",
        tags: tuple[str, ...] = (),
    ) -> None:
        self.subject = subject  # a pseudonym
        self.trace = trace  # the client's `traceparent`, which goes on to engines at home
        self.stored_trace = stored_trace  # its pseudonym
        self.request_class = request_class
        self.tags = tags


class Head:
    """A request's line and headers.  Shared by requests, so that nothing of one alone may stand in it: where it is kept,
    `headers` have no Content-Length."""

    __slots__ = ("closes", "digest", "encoded", "headers", "http10", "method", "path", "query", "surface", "told")

    def __init__(self, method: str, target: str, headers: Mapping[str, str], *, http10: bool, closes: bool) -> None:
        self.method = method
        self.path, _, self.query = target.partition("?")
        self.headers = headers
        self.http10 = http10
        self.closes = closes  # the client wants the connection closed
        self.encoded = "content-encoding" in headers
        self.surface = POSTS.get(self.path)
        token = credential(headers, self.query)
        self.digest = None if token is None else digest(token)  # of the client's key, by which it is looked up
        self.told: Told | None = None  # what the recorder makes of it, once it was asked
