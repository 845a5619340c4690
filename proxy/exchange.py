"""One request on its way: what came in, what was decided, how each attempt went.

`Exchange` is the only mutable object of a request, and one task owns it.  `Inbound` and `ClientSink` are
the two sides of the client as the pipeline sees them; `ingress` fulfils them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol

from compliance.model import Finding, Verdict
from compliance.pseudonyms import Scope
from compliance.rules import Facts, Labels
from compliance.rulings import Ruling
from engines.model import Request, Target, Usage
from policies.model import Decision
from proxy.auth import Principal
from proxy.heads import Head, Told
from proxy.surfaces import Surface

if TYPE_CHECKING:
    from engines.rates import Price
    from proxy.steering import Steered

Header = tuple[bytes, bytes]
UNTOLD = Told()
Ending = Literal["completed", "failed", "refused", "abandoned", "interrupted"]


class Inbound(Protocol):
    """A request's head, and its body on demand."""

    head: Head
    peer: str  # the client's address; "" where there is none (a Unix socket)

    @property
    def headers(self) -> Mapping[str, str]: ...

    def arrived(self) -> bytes | None:
        """The body, where all of it is here already, which saves waiting for it; None: ask for `body()`."""
        ...

    def stated_length(self) -> int:
        """Bytes of the body, as far as the head says; 0: it does not."""
        ...

    async def body(self) -> bytes:
        """The whole body, decoded; raises `Refusal` (too large, too slow, malformed).  Answers 100-continue."""
        ...


class ClientSink(Protocol):
    """Where an answer goes.  Synchronous: a transform writes from the callback that brought its input."""

    on_resume: Callable[[], None] | None  # called when a paused client reads again
    started: bool  # a byte of the answer has gone to the client (law 6)
    bytes_out: int

    def whole(self, status: int, head: bytes, body: bytes) -> None:
        """Head and body of a complete answer, in one write; `head` are header lines (`engines.http1.header_block`)."""
        ...

    def begin(self, status: int, head: bytes, first: bytes) -> bool:
        """Head and first bytes of a stream, in one write.  True: the client is not reading, pause."""
        ...

    def write(self, data: bytes) -> bool: ...
    def finish(self) -> None:
        """A clean end."""
        ...

    def abort(self) -> None:
        """Cut the connection, so that nobody takes what was written for a whole answer."""
        ...


class Redaction:
    """A request in which all that the rules want replaced is replaced; the map of its scope is on the disk."""

    __slots__ = ("counts", "request", "scope")

    def __init__(self, request: Request, scope: Scope, counts: tuple[tuple[str, int], ...]) -> None:
        self.request = request
        self.scope = scope
        self.counts = counts  # (kind, how many were replaced)


class NotRedacted:
    """Why a request cannot be redacted, so that it stays local: a veto's words."""

    __slots__ = ("detail", "reason")

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason  # unredactable, or pseudonyms (which may pass)
        self.detail = detail


class Attempt:
    """One target tried.  Times are microseconds since the exchange's start; 0: it did not come to that."""

    __slots__ = (
        "answer_findings", "billable", "bytes_in", "capture", "charged", "committed", "connect_us", "cost", "ending", "error", "first_us",
        "hold", "index", "line", "price", "recorded", "redacted", "scope", "scopes", "started_us", "status", "target", "total_us", "usage",
        "verdict",
    )  # fmt: skip

    def __init__(self, index: int, target: Target, started_us: int, verdict: Verdict) -> None:
        self.index = index
        self.target = target
        self.started_us = started_us
        self.verdict = verdict  # for this target
        self.connect_us = self.first_us = self.total_us = 0
        self.committed = False
        self.status = 0
        self.error = ""
        self.ending: Ending = "abandoned"  # what stands if nothing else is said: the task was cancelled
        self.usage: Usage | None = None
        self.cost = 0
        self.price = ""
        self.charged: Price | None = None  # by which its hold was reckoned: it holds until the attempt is over
        self.hold = 0
        self.scopes: tuple[str, ...] = ()
        self.bytes_in = 0
        self.line: Any = None  # of its records (`proxy.recording`), once the first was made
        self.capture: Any = None  # what `proxy.capturing` keeps of it, where something is captured
        self.answer_findings: tuple[Finding, ...] = ()
        self.billable = False  # the engine took the request, and did not refuse it
        self.recorded = False
        self.scope: Scope | None = None  # of what was replaced in the request: the way back for its answer
        self.redacted: tuple[tuple[str, int], ...] = ()


class Exchange:
    """One request from its first byte to its records."""

    __slots__ = (
        "actor", "at", "attempts", "decision", "facts", "id", "inbound", "principal", "queue_us", "redactions", "refused",
        "refused_status", "request", "ruling", "sink", "started", "steered", "surface", "told", "verdict",
    )  # fmt: skip

    def __init__(self, id: str, inbound: Inbound, sink: ClientSink, at: int, started: float) -> None:
        self.id = id
        self.inbound = inbound
        self.sink = sink
        self.at = at  # microseconds since the epoch
        self.started = started  # the loop's clock, seconds
        self.surface: Surface | None = None
        self.principal: Principal | None = None
        self.request: Request | None = None
        self.ruling: Ruling | None = None
        self.facts: Facts | None = None  # what rules look at; None: it was not scanned
        self.verdict: Verdict | None = None  # for a cloud without a contract: the one that is shown
        self.decision: Decision | None = None
        self.steered: Steered | None = None  # by the operator's decisions, where the model has any
        self.attempts: list[Attempt] = []
        self.redactions: dict[Labels, Redaction | NotRedacted] = {}  # by the labels of the targets they are for
        self.queue_us = 0
        self.refused = ""  # the refusal's code, if it ended so
        self.refused_status = 0
        self.actor = ""
        self.told: Told = UNTOLD  # by the head, for the records
