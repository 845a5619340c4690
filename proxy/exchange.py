"""One request on its way: what came in, what was decided, how each attempt went.

`Exchange` is the only mutable object of a request, and one task owns it.  `Inbound` and `ClientSink` are
the two sides of the client as the pipeline sees them; `ingress` fulfils them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol

from msgspec import Struct

from compliance.model import Finding, Verdict
from compliance.pseudonyms import Scope
from compliance.rules import Facts, Labels, Ruling
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


class Redaction(Struct, frozen=True):
    """A request in which all that the rules want replaced is replaced; the map of its scope is on the disk."""

    request: Request
    scope: Scope
    counts: tuple[tuple[str, int], ...]  # (kind, how many were replaced)


class NotRedacted(Struct, frozen=True):
    """Why a request cannot be redacted, so that it stays local: a veto's words."""

    reason: str  # unredactable, or pseudonyms (which may pass)
    detail: str


class Attempt(Struct, eq=False):
    """One target tried.  Times are microseconds since the exchange's start; 0: it did not come to that."""

    index: int
    target: Target
    started_us: int
    verdict: Verdict  # for this target
    connect_us: int = 0
    first_us: int = 0
    total_us: int = 0
    committed: bool = False
    status: int = 0
    error: str = ""
    ending: Ending = "abandoned"  # what stands if nothing else is said: the task was cancelled
    usage: Usage | None = None
    cost: int = 0
    price: str = ""
    charged: Price | None = None  # by which its hold was reckoned: it holds until the attempt is over
    hold: int = 0
    scopes: tuple[str, ...] = ()
    bytes_in: int = 0
    line: Any = None  # of its records (`proxy.recording`), once the first was made
    capture: Any = None  # what `proxy.capturing` keeps of it, where something is captured
    answer_findings: tuple[Finding, ...] = ()
    billable: bool = False  # the engine took the request, and did not refuse it
    recorded: bool = False
    scope: Scope | None = None  # of what was replaced in the request: the way back for its answer
    redacted: tuple[tuple[str, int], ...] = ()


class Exchange(Struct, eq=False):
    """One request from its first byte to its records."""

    id: str
    inbound: Inbound
    sink: ClientSink
    at: int  # microseconds since the epoch
    started: float  # the loop's clock, seconds
    surface: Surface | None = None
    principal: Principal | None = None
    request: Request | None = None
    ruling: Ruling | None = None
    facts: Facts | None = None  # what rules look at; None: it was not scanned
    verdict: Verdict | None = None  # for a cloud without a contract: the one that is shown
    decision: Decision | None = None
    steered: Steered | None = None  # by the operator's decisions, where the model has any
    attempts: list[Attempt] = []
    redactions: dict[Labels, Redaction | NotRedacted] = {}  # by the labels of the targets they are for
    queue_us: int = 0
    refused: str = ""  # the refusal's code, if it ended so
    refused_status: int = 0
    actor: str = ""
    told: Told = UNTOLD  # by the head, for the records
