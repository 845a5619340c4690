"""Prompts and answers on their way to the vault: the path hands over references, and a thread does the rest.

    begin(...)   an attempt is about to be sent: its two bodies are kept hold of, and the answer's bytes as they pass
    end(...)     it is over: what there is goes into a queue
    the thread   seals, writes, and records what became of it; removes what was kept for long enough

Everything is bounded: the size of each part, the entries that wait, and all bytes together.  What there is no room for,
or what cannot be written, is `lost`, and a record says so.  With `refuse`, an attempt is not sent while that would be
its fate.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from msgspec import Struct

from compliance.captures import Capture, Item, Kept
from compliance.holds import Hold
from compliance.journal import Journal, JournalError
from compliance.records import Captured, CapturesExpired, Decision
from compliance.sealing import PARTS
from compliance.vault import StillRemoving, Vault, VaultFailed
from proxy.background import gather
from proxy.exchange import Attempt, Exchange
from proxy.session import Session

log = logging.getLogger("spillway")

MAX_WAITING = 4096
"""Captures of one worker that are under way or wait to be written."""
MAX_BYTES = 64_000_000
"""All that they hold together."""
BATCH = 256
PROBE_SECONDS = 1.0
PURGE_SECONDS = 3600.0
PATIENCE = 3.0
"""Seconds that a capture is tried again before it is lost; they wait in memory, within the same bounds."""
PATIENCE_REFUSING = 60.0
"""The same where nothing is sent meanwhile."""
GIVE_UP = 3
"""Failures in a row after which the rest of a batch is not tried any more this time."""
MAX_UNSAID = 4096
"""Records that wait until the log can be written again."""
START_SECONDS = 15.0
LOOK_BACK = 20_000
"""Records of the log in which the start looks for captures that a crash took."""

_NOT_YET = "the vault is not open yet"


class CaptureUnavailable(JournalError):
    """Captures cannot be written, and the operator wants nothing sent without them."""


class Captures(Struct, frozen=True, kw_only=True):
    """What is captured."""

    tenants: frozenset[str] | None  # None: all
    rules: frozenset[str] | None
    parts: tuple[str, ...]
    limit: int  # bytes of each part
    keep: float  # seconds
    refuse: bool

    def wants(self, tenant: str, rule: str) -> bool:
        return (self.tenants is None or tenant in self.tenants) and (self.rules is None or rule in self.rules)


class Pending:
    """One attempt's bytes while it goes on."""

    __slots__ = ("_limit", "answer", "cut", "lost", "names", "original", "sent", "size", "until")

    def __init__(self, exchange: Exchange, attempt: Attempt, sent: bytes, limit: int) -> None:
        request, principal = exchange.request, exchange.principal
        assert request is not None and principal is not None
        raw = request.raw
        self.names = (
            exchange.id,
            attempt.index,
            exchange.at,
            principal.organisation,
            principal.tenant or "",
            exchange.told.subject,
        )
        self.cut = () if len(raw) <= limit and len(sent) <= limit else _cut(raw, sent, limit)
        self.original = raw if len(raw) <= limit else raw[:limit]
        self.sent = sent if len(sent) <= limit else sent[:limit]
        self.answer: list[bytes] = []
        self.size = 0  # of the answer, as kept
        self.lost = ""
        self.until = 0.0  # when it is given up, where it could not be written at once
        self._limit = limit

    def add(self, data: bytes) -> int:
        """Keep some of the answer; how many bytes."""
        room = self._limit - self.size
        if len(data) > room:
            data = data[:room]
            if "answered" not in self.cut:
                self.cut = (*self.cut, "answered")
        if data:
            self.answer.append(data)
            self.size += len(data)
        return len(data)

    def lose(self, why: str) -> int:
        """Give up its bytes; how many they were."""
        given_up = self.bytes
        self.lost, self.original, self.sent, self.answer, self.size = why, b"", b"", [], 0
        return given_up

    @property
    def bytes(self) -> int:
        return len(self.original) + len(self.sent) + self.size

    def capture(self) -> Capture:
        request, attempt, at, organisation, tenant, subject = self.names
        parts = {"original": self.original, "sent": self.sent, "answered": b"".join(self.answer)}
        return Capture(request, attempt, at, organisation, tenant, subject, parts)

    def record(self, kept: Kept, at: int) -> Captured:
        request, attempt, _, _, tenant, subject = self.names
        return _record((request, attempt, tenant, subject), kept, at, cut=self.cut, why=self.lost)


class Capturing:
    """One worker's; `begin` and `end` are for its event loop, and neither waits nor touches the disk."""

    def __init__(
        self,
        journal: Journal,
        wanted: Captures,
        open_vault: Callable[[], Vault],
        holding: Callable[[], AbstractContextManager[Callable[[Item], Hold | None]]],
        *,
        clock: Callable[[], int] | None = None,
    ) -> None:
        self._journal = journal
        self._wanted = wanted
        self._open_vault = open_vault
        self._holding = holding  # what a hold keeps, while nobody places one
        self._clock = clock or (lambda: time.time_ns() // 1000)
        self._queue: queue.SimpleQueue[Pending | None] = queue.SimpleQueue()
        # Each of these is written by one side only, so that neither waits for the other.
        self._begun = 0
        self._taken = 0  # bytes
        self._over = 0  # that needed no thread, or never began
        self._given_up = 0
        self._done = 0  # the thread's
        self._freed = 0
        self._trouble = _NOT_YET  # why nothing can be written now; the thread's
        self._looked = threading.Event()
        self._vault: Vault | None = None
        self._again: list[Pending] = []  # what could not be written yet
        self._patience = PATIENCE_REFUSING if wanted.refuse else PATIENCE
        self._unsaid: deque[Any] = deque()
        self._began_at = journal.next_seq
        self._thread = threading.Thread(target=self._run, name="captures", daemon=True)

    def start(self) -> None:
        """Returns when it is known whether captures can be written, or after a while.  Blocks: for a thread."""
        self._thread.start()
        self._looked.wait(START_SECONDS)

    def close(self) -> None:
        """Until what waits is written, or lost and recorded; before the journal closes."""
        self._queue.put(None)
        self._thread.join()

    # --- the path's side --------------------------------------------------------------------------------------

    def begin(self, exchange: Exchange, attempt: Attempt, sent: bytes, session: Session) -> None:
        """Before an attempt is recorded and sent; raises `CaptureUnavailable`."""
        principal = exchange.principal
        assert principal is not None
        if not self._wanted.wants(principal.tenant or "", attempt.verdict.rule):
            return
        full = self._begun - self._over - self._done >= MAX_WAITING or self._held >= MAX_BYTES
        if self._wanted.refuse and (full or self._trouble):
            raise CaptureUnavailable("captures cannot be written now")
        pending = attempt.capture = Pending(exchange, attempt, sent, self._wanted.limit)
        self._begun += 1
        if full:
            pending.lose("no_room")
            return
        self._taken += pending.bytes
        session.tee = partial(self._add, pending)

    def end(self, attempt: Attempt, session: Session | None, refusal: bytes) -> None:
        """The attempt is over; `refusal`: what the engine said instead of an answer."""
        pending, attempt.capture = attempt.capture, None
        if pending is None:
            return
        if session is not None:
            session.tee = None
        if refusal:
            self._add(pending, refusal)
        if not attempt.recorded:  # nothing was sent
            self._over += 1
            self._given_up += pending.lose("")
        elif pending.lost:
            self._over += 1
            self._say(pending.record(Kept("lost"), self._clock()))
        else:
            self._queue.put(pending)

    def _add(self, pending: Pending, data: bytes) -> None:
        if pending.lost:
            return
        self._taken += pending.add(data)
        if self._held > MAX_BYTES:
            self._given_up += pending.lose("no_room")

    @property
    def _held(self) -> int:
        return self._taken - self._given_up - self._freed

    # --- the thread's side ------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._probe()
        self._looked.set()
        try:
            self._say_missed()
            self._serve()
        finally:
            self._trouble = self._trouble or "the thread that writes them ended"
            if self._vault is not None:
                self._vault.close()

    def _serve(self) -> None:
        next_purge = next_try = 0.0
        while True:
            batch, closing = gather(self._queue, BATCH, PROBE_SECONDS)
            now = time.monotonic()
            if self._again and (closing or now >= next_try):
                batch, self._again = [*self._again, *batch], []
            if batch:
                self._write(batch, last=closing)
                next_try = now + PROBE_SECONDS
            elif self._trouble and now >= next_try:
                self._probe()
                next_try = now + PROBE_SECONDS
            if now >= next_purge and not self._trouble and not closing:
                self._purge()
                next_purge = now + PURGE_SECONDS / 4
            self._say_again()
            if closing:
                return

    def _write(self, batch: Sequence[Pending], *, last: bool) -> None:
        """Keep them; what cannot be written is tried again for a while, but for the `last` time."""
        now = time.monotonic()
        for pending, kept in zip(batch, self._put(batch), strict=True):
            if kept is None and not last and now < (pending.until or now + self._patience):
                pending.until = pending.until or now + self._patience
                self._again.append(pending)
                continue
            if kept is None:
                pending.lost = "vault"
            self._say(pending.record(kept or Kept("lost"), self._clock()))
            self._freed += pending.bytes
            self._done += 1

    def _put(self, batch: Sequence[Pending]) -> list[Kept | None]:
        """Where they cannot be kept together, one by one, so that a damaged key costs its own subject's alone."""
        try:
            kept = self._opened().put([pending.capture() for pending in batch], self._wanted.parts)
            self._well()
            return [*kept]
        except VaultFailed as failure:
            self._failed(failure)
            if len(batch) == 1:
                return [None]
        found: list[Kept | None] = []
        misses = 0
        for pending in batch:
            found.append(self._put([pending])[0] if misses < GIVE_UP else None)
            misses = misses + 1 if found[-1] is None else 0
        return found

    def _opened(self) -> Vault:
        if self._vault is None:
            self._vault = self._open_vault()
        return self._vault

    def _probe(self) -> None:
        try:
            self._opened().probe()
            self._well()
        except VaultFailed as failure:
            self._failed(failure)

    def _well(self) -> None:
        if self._trouble not in ("", _NOT_YET):
            log.warning("captures are written again")
        self._trouble = ""

    def _failed(self, failure: VaultFailed) -> None:
        if self._trouble != str(failure):
            what = "what would be captured is refused" if self._wanted.refuse else "captures are lost"
            log.error("%s: %s", what, failure)
        self._trouble = str(failure)

    def _purge(self) -> None:
        """Remove what was kept for long enough, if it is this worker's turn."""
        now = self._clock()
        before = now - int(self._wanted.keep * 1_000_000)
        try:
            vault = self._opened()
            with self._holding() as held:
                if not vault.turn("purge", int(PURGE_SECONDS * 1_000_000), now):
                    return
                removed = vault.purge(before, held)
        except StillRemoving:
            return  # an erasure, or a new hold: at the next turn
        except (VaultFailed, OSError) as failure:
            log.error("captures that are old enough were not removed: %s", failure)
            return
        if removed.records or removed.keys:
            self._say(
                CapturesExpired(
                    at=now, before=before, captures=removed.captures, held=removed.held, keys=removed.keys, records=removed.records
                )
            )  # fmt: skip

    # --- records ----------------------------------------------------------------------------------------------

    def _say(self, record: Any) -> None:
        """Queue a record; where the log takes none, it waits here.  From either side: a deque is safe for both."""
        try:
            self._journal.append(record)
        except JournalError:
            if len(self._unsaid) < MAX_UNSAID:  # the next start finds the others missing, and says that they are lost
                self._unsaid.append(record)

    def _say_again(self) -> None:
        while self._unsaid and self._journal.healthy:
            try:
                self._journal.append(self._unsaid[0])
            except JournalError:
                return
            self._unsaid.popleft()

    def _say_missed(self) -> None:
        """After a crash: decided and to be captured, and no record says what became of it."""
        try:
            for one in missed(self._journal.read(max(0, self._began_at - LOOK_BACK)), self._began_at):
                names = one.request, one.attempt, one.tenant, one.subject
                self._say(_record(names, self._found(one), self._clock(), why="crash"))
        except (OSError, ValueError) as error:
            log.error("captures that a crash took are not recorded: %s", type(error).__name__)

    def _found(self, decision: Decision) -> Kept:
        """What the vault has of an attempt after all."""
        try:
            return self._opened().kept(decision.request, decision.attempt) or Kept("lost")
        except VaultFailed:
            return Kept("lost")


def missed(records: Iterable[Any], until: int) -> list[Decision]:
    """Decisions below this sequence that were to be captured, and whose captures nobody heard of."""
    waiting: dict[tuple[str, int], Decision] = {}
    for record in records:
        if record.seq >= until:
            break
        if isinstance(record, Decision) and record.capture:
            waiting[record.request, record.attempt] = record
        elif isinstance(record, Captured):
            waiting.pop((record.request, record.attempt), None)
    return list(waiting.values())


def _record(
    names: tuple[str, int, str, str], kept: Kept, at: int, *, cut: tuple[str, ...] = (), why: str = ""
) -> Captured:
    request, attempt, tenant, subject = names
    marks = [kept.commitments.get(part, "") for part in PARTS]
    return Captured(
        answered=marks[2], at=at, attempt=attempt, cut=cut, data_key=kept.key, original=marks[0], parts=kept.parts,
        request=request, sent=marks[1], state=kept.state, subject=subject, tenant=tenant, why=why,
    )  # fmt: skip


def _cut(raw: bytes, sent: bytes, limit: int) -> tuple[str, ...]:
    return tuple([part for part, data in (("original", raw), ("sent", sent)) if len(data) > limit])
