"""What is kept of answered requests to learn a scorer from: numbers of each prompt, off the path, sealed.

    the path      hands over a text's first characters, for a share of the requests
    the thread    turns them into features, seals and writes them, and removes what was kept for long enough

Features are content (`policies.remembered` says why), so they lie in a vault of their own beside that of captures: under
a key for each subject or tenant that an erasure destroys, and never in the log, a metric or a message.  By default
nothing is kept of a request in which something was found.  They are no records: what there is no room for, or what
cannot be written, is lost, and only counted.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from msgspec import Struct

from compliance.captures import Capture, Item
from compliance.holds import Hold
from compliance.vault import StillRemoving, Vault, VaultFailed
from engines.base import Dialect
from engines.model import Operation
from policies.complexity import SAMPLE
from policies.escalation import Wanted, answer_of
from policies.signals import last_said
from proxy.background import gather, step_back
from proxy.exchange import Attempt, Exchange
from proxy.held import Reader, wanted_of

if TYPE_CHECKING:
    from policies.embedding import Floats, StaticEmbedding

log = logging.getLogger("spillway")

MAX_WAITING = 1024
"""Texts that wait, each of `SAMPLE` characters at the most, or answers; what comes while so many wait is lost."""
LONGEST_ANSWER = 16_384
"""Bytes of an answer that is read."""
BATCH = 128
PAUSE = 1.0
"""Seconds that the thread waits for more."""
PURGE_SECONDS = 3600.0
TRIM = 1000
"""Requests kept between two looks at how many there are."""
PART = "original"
"""Under this name features lie where a capture would have the prompt."""
_NOTHING = {"original": b"", "sent": b"", "answered": b""}


class Kept(Struct, frozen=True, kw_only=True):
    """What is kept."""

    share: float
    keep: float  # seconds
    most: int
    found: bool  # also of requests in which something was found, or under health context
    tenants: frozenset[str] | None  # None: all


class _Said(Struct):
    """An answer as it came, and what it was asked for."""

    wanted: Wanted
    dialect: Dialect
    streamed: bool
    body: bytes

    def __repr__(self) -> str:  # the default one would print the answer
        return f"_Said({len(self.body)} bytes)"

    def features(self) -> Floats | None:
        """None for what is no prose, or cannot be read."""
        from policies.doubt import doubts

        reader = Reader(self.dialect)
        if self.streamed:
            reader.feed(self.body)
        else:
            reader.whole(self.body)
        said = reader.said()
        if reader.unread or reader.failed or not said or said[0].calls:
            return None
        return doubts(self.wanted.prompt, answer_of(said[0], self.wanted))


class Text(Struct):
    """What waits for the thread.  It holds content: never log it."""

    names: tuple[str, int, int, str, str, str]  # request, attempt, at, organisation, tenant, subject
    text: str = ""
    route: str = ""
    answer: _Said | None = None  # instead of a text

    def __repr__(self) -> str:
        return f"Text({self.names[0]!r})"


class Remembering:
    """One worker's; `note` and `answered` are for its event loop, and neither waits nor touches the disk."""

    def __init__(
        self,
        wanted: Kept,
        open_vault: Callable[[], Vault],
        holding: Callable[[], AbstractContextManager[Callable[[Item], Hold | None]]],
        *,
        clock: Callable[[], int] | None = None,
    ) -> None:
        self._wanted = wanted
        self._open_vault = open_vault
        self._holding = holding
        self._clock = clock or (lambda: time.time_ns() // 1000)
        self._below = int(wanted.share * (1 << 32))
        self._queue: queue.Queue[Text | None] = queue.Queue(MAX_WAITING)
        self._vault: Vault | None = None
        self._embedding: tuple[StaticEmbedding, str] | None = None
        self._trouble = ""
        self._kept_since = TRIM  # so that the first batch looks how many there are
        self.kept = 0
        self.lost = 0
        self._thread = threading.Thread(target=self._run, name="remember", daemon=True)

    def ended(self, exchange: Exchange, attempt: Attempt) -> None:
        """An attempt's outcome was recorded: the first that completed gave the answer."""
        if attempt.ending != "completed":
            return
        before = exchange.attempts[: attempt.index]  # an answer that was held and not given is completed, too
        if not before or not any([other.ending == "completed" for other in before]):
            self.note(exchange)

    def start(self) -> None:
        """Before the first request: what is loaded now holds up none."""
        with contextlib.suppress(OSError, ValueError):  # the thread says so
            self._loaded()
        self._thread.start()

    def close(self) -> None:
        """Until what waits is kept, or lost.  Blocks."""
        self._queue.put(None)
        self._thread.join()

    # --- the path's side --------------------------------------------------------------------------------------

    def note(self, exchange: Exchange) -> None:
        """An answered request; whether it is kept is chance, and its id says which."""
        request = exchange.request
        if request is None or not self._wants(exchange):
            return
        text = last_said(request.body)[:SAMPLE]
        if text.strip():
            route = exchange.steered.route if exchange.steered is not None else ""
            self._put(Text(_names(exchange, 0), text, route))

    def answered(self, exchange: Exchange, dialect: Dialect, *, streamed: bool, body: bytes) -> None:
        """The small model's answer to it, as the client's dialect has it: with the prompt, which `note` keeps, a scorer of
        answers is learnt from it."""
        request = exchange.request
        if request is None or not exchange.attempts or len(body) > LONGEST_ANSWER or not self._wants(exchange):
            return
        said = _Said(wanted_of(request), dialect, streamed, body)
        self._put(Text(_names(exchange, exchange.attempts[-1].index + 1), answer=said))

    def _wants(self, exchange: Exchange) -> bool:
        request, principal, facts, wanted = exchange.request, exchange.principal, exchange.facts, self._wanted
        if request is None or principal is None or request.operation is not Operation.CHAT:
            return False
        if principal.key.startswith("experiment:"):  # a copy: its original is remembered
            return False
        if wanted.tenants is not None and (principal.tenant or "") not in wanted.tenants:
            return False
        if not wanted.found and (
            facts is None or facts.health or (exchange.ruling is not None and exchange.ruling.findings)
        ):
            return False  # facts are missing where it was not scanned: nobody knows what is in it
        return self._drawn(exchange.id)

    def _drawn(self, request: str) -> bool:
        draw = hashlib.blake2b(request.encode(), digest_size=4, person=b"remember").digest()
        return int.from_bytes(draw, "big") < self._below

    def _put(self, one: Text) -> None:
        try:
            self._queue.put_nowait(one)
        except queue.Full:
            self.lost += 1

    # --- the thread's side ------------------------------------------------------------------------------------

    def _run(self) -> None:
        step_back()
        next_purge = 0.0
        while True:
            batch, closing = gather(self._queue, BATCH, PAUSE)
            if batch:
                self._keep(batch)
            if time.monotonic() >= next_purge and not closing:
                self._purge()
                next_purge = time.monotonic() + PURGE_SECONDS / 4
            if closing:
                break
        if self._vault is not None:
            self._vault.close()

    def _keep(self, batch: Sequence[Text]) -> None:
        try:
            self._opened().put(list(self._sealed(batch)), (PART,))
        except Exception as error:  # noqa: BLE001  nothing here may end the thread: what is lost is only counted
            self.lost += len(batch)
            self._failed(error)
            return
        if self._trouble:
            log.warning("what a scorer is learnt from is kept again")
            self._trouble = ""
        self.kept += len(batch)
        self._kept_since += len(batch)
        if self._kept_since >= TRIM:
            self._kept_since = 0
            self._trim()

    def _sealed(self, batch: Sequence[Text]) -> Iterator[Capture]:
        from policies.gain import named_features
        from policies.remembered import pack, pack_answer

        for one in batch:
            if one.answer is not None:
                named = one.answer.features()
                if named is None:
                    continue
                data = pack_answer(named)
            else:
                embedding, version = self._loaded()
                data = pack(named_features(one.text), embedding.read(one.text)[0], one.route, version)
            yield Capture(*one.names, parts={**_NOTHING, PART: data})

    def _loaded(self) -> tuple[StaticEmbedding, str]:
        """A table of the thread's own: one reads texts in one thread at a time.  Its rows are mapped, and shared."""
        if self._embedding is None:
            os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
            from proxy.routing_models import load_embedding

            self._embedding = load_embedding()
        return self._embedding

    def _opened(self) -> Vault:
        if self._vault is None:
            self._vault = self._open_vault()
        return self._vault

    def _failed(self, error: Exception) -> None:
        why = str(error) if isinstance(error, VaultFailed) else type(error).__name__  # others may quote a text
        if why != self._trouble:
            log.error("what a scorer would be learnt from is lost: %s", why)
        self._trouble = why

    def _trim(self) -> None:
        try:
            too_old = self._opened().older_than_newest(self._wanted.most)
            if too_old is not None:
                with self._holding() as held:
                    self._opened().purge(too_old + 1, held)
        except StillRemoving:
            return
        except (VaultFailed, OSError) as error:
            self._failed(error)

    def _purge(self) -> None:
        """Remove what was kept for long enough, if it is this worker's turn."""
        now = self._clock()
        try:
            vault = self._opened()
            with self._holding() as held:
                if vault.turn("purge", int(PURGE_SECONDS * 1_000_000), now):
                    vault.purge(now - int(self._wanted.keep * 1_000_000), held)
        except StillRemoving:
            return  # an erasure, or a new hold: at the next turn
        except (VaultFailed, OSError) as error:
            self._failed(error)


def _names(exchange: Exchange, attempt: int) -> tuple[str, int, int, str, str, str]:
    principal = exchange.principal
    assert principal is not None
    return exchange.id, attempt, exchange.at, principal.organisation, principal.tenant or "", exchange.told.subject
