"""The append-only log of one worker slot: a writer thread, group commit, signed checkpoints.

`append` only queues: it never waits and never touches the disk.  A thread writes what has gathered in one
write and one sync, `group_window` seconds after the first of it was queued, or as soon as somebody waits and the
event loop has nothing else to do; then it tells the event loop once for the whole group.  Every second under
traffic, and at the end, a checkpoint of the tree is signed (C2SP tlog-checkpoint, a signed note with Ed25519).

On disk, in the slot's directory: segments (a record a line; `compliance.segments`), of which only the open one
changes, `checkpoints` (signed notes, the newest last), `frontier.json` (where the newest checkpoint stood, so that
opening reads only what came after), `key.pub` (the verifier's key), `lock`.

Each group ends with a MAC, in its last record (`compliance.tails`): what no checkpoint covers yet is the key's all the same.

A disk that is full, read-only or failing: whoever waits is told at once, and nothing that would have to wait is
taken.  What has happened already (outcomes, refusals, local requests whose records may lag) is kept in memory,
within a bound, and written as soon as the disk takes it, in its sequence.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from compliance import checkpoints, notes
from compliance.merkle import Frontier
from compliance.model import LOCAL
from compliance.records import Decision, Outcome, Record, Refused, decode, encode_all
from compliance.recovery import JournalDamaged as JournalDamaged
from compliance.recovery import JournalError as JournalError
from compliance.recovery import Recovery
from compliance.segments import read_lines as read_lines
from compliance.segments import segment_starts as segment_starts
from compliance.tails import Voucher
from compliance.writing import OpenSegment

SEGMENT_RECORDS = 10_000
SEGMENT_AGE = 86_400 * 1_000_000
"""Microseconds that a segment stays open after its first record."""
MAX_PENDING = 65_536
GROUP_WINDOW = 0.02
"""Seconds that a group gathers.  A group costs a sync and several forced switches of threads, some 500 us, of which each
request has its part; who waits is delayed by it only while the event loop has other work to do."""
GROUP_RECORDS = 256
IDLE_TURN = 0.0001
"""Seconds: an event loop whose turn was shorter had nothing to do."""
RESUMED = 8
"""Waiters that go on in one turn of the event loop: each has a request to send, and a whole group is a turn of 5 ms."""
CHECKPOINT_INTERVAL = 1.0
IDLE_CHECKPOINT = 60.0
LAG = 1.0
"""Seconds that local requests may run ahead of their records; past it they wait for them."""
RETRY = 0.25
"""Seconds between two tries to write what could not be written."""


class JournalLocked(JournalError):
    """Another process writes this slot."""


class JournalFailed(JournalError):
    """Writing fails; the disk may be full or read-only.  Nothing is acknowledged until it works again."""


class JournalFull(JournalError):
    """More records wait than the bound allows: the disk is too slow for the traffic."""


class Journal:
    """One slot's log.  `append` may be called from any thread; waiting is for the bound event loop."""

    def __init__(self, directory: Path, origin: str, key: Ed25519PrivateKey, lock: IO[str], **options: Any) -> None:
        self.directory = directory
        self.origin = origin
        self._key = key
        self._voucher = Voucher(key, origin)
        self._lock_file = lock
        self._window: float = options.get("group_window", GROUP_WINDOW)
        self._group: int = options.get("group_records", GROUP_RECORDS)
        self._max_pending: int = options.get("max_pending", MAX_PENDING)
        self._segment = OpenSegment(
            directory,
            options.get("sync", os.fdatasync),
            records=options.get("segment_records", SEGMENT_RECORDS),
            age=options.get("segment_age", SEGMENT_AGE),
        )
        self._clock: Callable[[], int] = options.get("clock", time.time_ns)
        self._lag = int(options.get("lag", LAG) * 1_000_000)
        self._retry: float = options.get("retry", RETRY)
        self._strict: bool = options.get("durable_local", False)  # local requests wait for their record, too
        self._on_durable: list[Callable[[list[Record]], None]] = []
        self._on_trouble: list[Callable[[str | None], None]] = []
        self._lock = threading.Lock()  # of all that both threads touch; held for moments
        self._condition = threading.Condition(self._lock)  # the writer waits here
        self._pending: list[Record] = []
        self._since = 0.0  # when the first of them was queued: seconds, monotonic
        self._asked = False  # somebody waits for them, and the event loop for nothing else
        self._looking = False  # a look at that is under way on the event loop
        self._turned = 0.0  # when it was last looked: seconds, monotonic
        self._closing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._awaited = -1  # the last record that somebody waits for, or has waited for
        self._waiting = 0  # those who wait for what is pending
        self._inside = 0  # those who wait, and those who know it is written and have not gone on yet
        self._crowd = 1  # how many come to wait at once, as it seems
        self._last_at = 0
        self._written_at = 0  # of the newest record that is on the disk
        self._oldest_at = 0  # of the oldest record that is not durable; 0: there is none
        self._dropped = 0  # refusals that memory had no room for
        self._failure: str | None = None
        self._torn_note = False
        self._checkpoint_due = 0.0
        self._frontier = Frontier()
        self._checkpointed = 0
        self._last_kind = ""
        self._open: dict[tuple[str, int], int] = {}  # decisions without an outcome -> seq, oldest first
        self.cut_bytes = 0
        self.unsigned = 0  # records that were taken over and that no checkpoint had covered
        self.unvouched = 0  # of these, such as a version before `compliance.tails` left
        self.unauthenticated = 0  # records that were not taken over, since the key does not vouch for them
        self.interrupted: list[Decision] = []
        self.clean = True  # the last writer stopped cleanly
        self.dropped = 0  # refusals that were not recorded, because the disk was full for long
        self.may_miss = 0  # microseconds: of local requests, one stretch so long that the last writer may have lost
        self.durable_seq = -1
        self.next_seq = 0
        self._own_thread = threading.Thread(target=self._run, name=f"journal {origin}", daemon=True)

    # --- opening ----------------------------------------------------------------------------------------

    @classmethod
    def open(cls, directory: Path, *, origin: str, key: Ed25519PrivateKey, **options: Any) -> Journal:
        """Lock the slot, cut off a torn last line, recompute the tree since the last checkpoint, start the thread."""
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = open(directory / "lock", "a")  # noqa: SIM115  held until close
        except OSError as error:
            raise JournalFailed(f"the log in {directory} cannot be opened: {error.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise JournalLocked(f"another process writes the log in {directory}") from None
        journal = cls(directory, origin, key, lock, **options)
        try:
            journal._recover()
            _keep(directory / "key.pub", checkpoints.verifier_key(origin, key.public_key()) + "\n")
            journal._own_thread.start()
        except OSError as error:
            lock.close()
            raise JournalFailed(f"the log in {directory} cannot be opened: {error.strerror}") from None
        except BaseException:
            lock.close()
            raise
        return journal

    def _recover(self) -> None:
        found = Recovery(self.directory, self.origin, self._key)
        self._frontier, self._checkpointed, self._last_kind = found.frontier, found.checkpointed, found.last_kind
        self._last_at, self.cut_bytes, self.clean = found.last_at, found.cut_bytes, found.clean
        self.unsigned, self.unvouched, self.unauthenticated = found.unsigned, found.unvouched, found.unauthenticated
        self._written_at = self._last_at
        self.next_seq = self._frontier.size
        self.durable_seq = self.next_seq - 1
        if not self.clean:
            lag = self._lag if found.lag_us is None else found.lag_us
            self.may_miss = min(lag, max(0, self._clock() // 1000 - self._last_at))
        self.interrupted = found.interrupted
        self._open = {(decision.request, decision.attempt): decision.seq for decision in found.interrupted}
        if found.segment is not None:
            self._segment.resume(found.segment, self.next_seq)
        if found.unvouched:
            self._maybe_checkpoint(closing=True)  # before anything that is vouched for stands after it

    # --- the path's side --------------------------------------------------------------------------------

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """The event loop that waits; once, before the first `wait_durable`."""
        self._loop = loop

    @property
    def healthy(self) -> bool:
        return self._failure is None

    @property
    def trouble(self) -> str | None:
        """Why the log cannot be written now, in words for the operator; None: it can."""
        return self._failure

    @property
    def behind(self) -> bool:
        """Is the oldest record that is not on the disk older than local requests may run ahead?"""
        oldest = self._oldest_at
        return oldest != 0 and self._last_at - oldest > self._lag

    @property
    def unwritten(self) -> int:
        """Records that are not on the disk."""
        return self.next_seq - self.durable_seq - 1

    def append(self, record: Any) -> int:
        """Queue a record; its sequence number.  Raises `JournalFailed` or `JournalFull`, and then keeps nothing."""
        with self._lock:
            if self._failure is not None:
                self._admit(record)
            if len(self._pending) >= self._max_pending:
                raise JournalFull("the log's queue is full")
            if self._closing:
                raise JournalFailed("the log is closed")
            seq = record.seq = self.next_seq
            self.next_seq = seq + 1
            if record.at < self._last_at:
                record.at = self._last_at  # the clock was set back; the log's time is not
            else:
                self._last_at = record.at
            if not self._oldest_at:
                self._oldest_at = record.at
            pending = self._pending
            if not pending:
                self._since = time.monotonic()
            pending.append(record)
            if seq == self.durable_seq + 1 or len(pending) == self._group:
                self._condition.notify()
        return seq

    def _admit(self, record: Any) -> None:
        """While the log cannot be written: memory takes what has happened, and nothing that must be durable."""
        assert self._failure is not None
        if not isinstance(record, (Outcome, Refused)):
            local = isinstance(record, Decision) and record.boundary == LOCAL and not self._strict
            if not local or (self._oldest_at and record.at - self._oldest_at > self._lag):
                raise JournalFailed(self._failure)
        if not isinstance(record, Outcome) and len(self._pending) * 2 >= self._max_pending:
            self._dropped += isinstance(record, Refused)
            raise JournalFull("the log's queue is full")  # the other half is for the outcomes of what was taken

    async def wait_durable(self, seq: int) -> None:
        """Until record `seq` is on the disk; raises `JournalFailed`."""
        if seq <= self.durable_seq:
            return
        assert self._loop is not None, "bind() first"
        waiter: asyncio.Future[None] = self._loop.create_future()
        if not self._joined(seq, waiter):
            return
        self._inside += 1
        try:
            await waiter
        finally:
            self._inside -= 1

    def _joined(self, seq: int, waiter: asyncio.Future[None]) -> bool:
        """One more waits, and somebody looks when to write; False: the record became durable just now."""
        assert self._loop is not None
        with self._lock:
            if self._failure is not None:
                raise JournalFailed(self._failure)
            if seq <= self.durable_seq:
                return False
            self._waiters.append((seq, waiter))
            self._awaited = max(self._awaited, seq)
            if self._asked or not self._wanted():
                return True
            self._waiting += 1
            if 2 * self._waiting >= self._crowd:  # half of them: while theirs are written, the others are served
                self._crowd += (self._crowd >> 2) or 1  # until the loop has nothing to do, more could have come
                self._ask()
            elif not self._looking:
                self._looking, self._turned = True, 0.0
                self._loop.call_soon(self._look)
        return True

    def _ask(self) -> None:
        """With the lock held: the group is to be written now."""
        self._asked = True
        self._condition.notify()

    def _wanted(self) -> bool:
        """Does somebody wait for a record that no group has taken yet?"""
        return bool(self._pending) and self._pending[0].seq <= self._awaited  # type: ignore[attr-defined]

    def _look(self) -> None:
        """On the event loop, in each of its turns while somebody waits: has it nothing else to do?  Then write.

        A loop that has will bring more for the same group, and loses nothing by waiting; one that has not waits for this.
        """
        before, self._turned = self._turned, time.monotonic()
        with self._lock:
            self._looking = not self._asked and self._wanted()
            if not self._looking:
                return
            if self._turned - before < IDLE_TURN and self._inside <= len(self._waiters):
                self._looking, self._crowd = False, self._inside
                self._ask()
                return
        assert self._loop is not None
        self._loop.call_soon(self._look)

    def on_durable(self, callback: Callable[[list[Record]], None]) -> None:
        """`callback(records)` in the writer's thread after each group; it must be quick and must not raise."""
        self._on_durable.append(callback)

    def on_trouble(self, callback: Callable[[str | None], None]) -> None:
        """`callback(why)` in the writer's thread when the log cannot be written any more; `callback(None)` when it can."""
        self._on_trouble.append(callback)

    def read(self, start: int = 0) -> Iterator[Any]:
        """Records from `start` on, as they are on the disk."""
        return read(self.directory, start, stop=self.durable_seq + 1)

    def close(self) -> None:
        """Write what waits, sign a last checkpoint, release the lock; `JournalFailed` where records could not be written."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        self._own_thread.join()
        self._segment.close()
        self._lock_file.close()
        if self._failure is not None:
            lost = self.unwritten
            left = f"{lost} records are lost" if lost else "its newest records are not signed"
            raise JournalFailed(f"{self._failure}; {left}")

    # --- the writer's side ------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            batch, closing = self._gather()
            idle = not batch and not closing
            try:
                if self._failure is not None:
                    self._segment.mend()
                if batch:
                    self._write(batch)
                    self._announce(batch)
                    batch = []
                self._maybe_checkpoint(closing)
                if idle and self._segment.old(self._clock() // 1000):
                    self._segment.seal(self._frontier.size)
            except OSError as error:
                self._fail(error, batch)
                if closing:
                    return
                continue
            if self._failure is not None:
                self._recovered()
            if closing and not self._pending:
                return

    def _gather(self) -> tuple[list[Record], bool]:
        """What to write now: at once where somebody waits and nothing more comes, else after the window."""
        condition = self._condition
        with condition:
            if self._failure is not None:
                condition.wait_for(lambda: self._closing, self._retry)
                batch, self._pending = self._pending, []
                return batch, self._closing
            while not self._pending and not self._closing:
                if not condition.wait(CHECKPOINT_INTERVAL) and (
                    self._frontier.size > self._checkpointed or self._segment.old(self._clock() // 1000)
                ):
                    return [], False
            while not (self._asked or self._closing or len(self._pending) >= self._group):
                left = self._since + self._window - time.monotonic()
                if left <= 0 or not condition.wait(left):
                    break
            batch, self._pending = self._pending, []
            self._asked, self._waiting = False, 0
            return batch, self._closing

    def _write(self, batch: list[Record]) -> None:
        """Raises `OSError`; then what stands in the tree (`_frontier`) is on the disk, and nothing else counts."""
        start = 0
        while start < len(batch):
            room = self._segment.room(self._frontier.size, batch[start].at)  # type: ignore[attr-defined]
            part = batch[start : start + room]
            lines = encode_all(part)
            leaves = self._voucher.vouch(self._frontier, lines, part[-1].seq)  # type: ignore[attr-defined]
            self._segment.write(lines)
            self._frontier.extend(leaves)
            self._follow(part)
            start += len(part)

    def _follow(self, part: list[Record]) -> None:
        unended = self._open
        for record in part:
            kind = type(record)
            if kind is Decision:
                unended[record.request, record.attempt] = record.seq  # type: ignore[attr-defined]
            elif kind is Outcome:
                unended.pop((record.request, record.attempt), None)  # type: ignore[attr-defined]
        self._last_kind = part[-1].kind  # type: ignore[attr-defined]  # every record has one
        self._written_at = part[-1].at  # type: ignore[attr-defined]

    def _maybe_checkpoint(self, closing: bool) -> None:
        now = time.monotonic()
        if self._frontier.size == self._checkpointed or (now < self._checkpoint_due and not closing):
            return
        root = self._frontier.root()
        self._sign(root)
        self._checkpoint_due = now + CHECKPOINT_INTERVAL
        self._checkpointed = self._frontier.size
        with contextlib.suppress(OSError):  # a short cut for the next start, which hashes more without it
            self._leave_mark(root)

    def _leave_mark(self, root: bytes) -> None:
        mark: dict[str, Any] = {
            "size": self._frontier.size,
            "frontier": [h.hex() for h in self._frontier.hashes],
            "root": root.hex(),
            "last_kind": self._last_kind,
            "last_at": self._written_at,
            "oldest_open": next(iter(self._open.values()), self._frontier.size),
            "lag_us": self._lag,
        }
        mark["mac"] = self._voucher.mark_mac(mark)
        part = self.directory / "frontier.json.part"
        part.write_text(json.dumps(mark))
        part.replace(self.directory / "frontier.json")

    def _sign(self, root: bytes) -> None:
        """Append a checkpoint; half of one must not stay before the next."""
        path = self.directory / "checkpoints"
        if self._torn_note:
            notes.cut_torn(path)
        self._torn_note = True
        with open(path, "ab", buffering=0) as file:
            note = checkpoints.sign(self.origin, self._frontier.size, root, self._key) + b"\n"
            if file.write(note) < len(note):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
        self._torn_note = False

    def _announce(self, batch: list[Record]) -> None:
        """Tell the event loop once for the whole group, and whoever projects the log."""
        self.durable_seq = batch[-1].seq  # type: ignore[attr-defined]
        with self._condition:
            self._oldest_at = self._pending[0].at if self._pending else 0  # type: ignore[attr-defined]
            ready = [waiter for seq, waiter in self._waiters if seq <= self.durable_seq]
            self._waiters = [entry for entry in self._waiters if entry[0] > self.durable_seq]
        if ready and self._loop is not None:
            self._call(_resolve, ready)
        for callback in self._on_durable:
            callback(batch)

    def _fail(self, error: OSError, batch: list[Record]) -> None:
        """Tell whoever waits, and keep the rest for the next try.  What was half-written is cut off before that."""
        written = self._frontier.size
        if done := [record for record in batch if record.seq < written]:  # type: ignore[attr-defined]
            self._announce(done)
        reason = f"the audit log cannot be written ({error.strerror or type(error).__name__})"
        with self._condition:
            first, self._failure = self._failure is None, reason
            self._pending[:0] = batch[len(done) :]
            self._oldest_at = self._pending[0].at if self._pending else 0  # type: ignore[attr-defined]
            waiters = [waiter for _, waiter in self._waiters]
            self._waiters.clear()
            self._asked, self._waiting = False, 0
        try:
            self._segment.cut()
        except OSError:
            pass  # it is tried again before anything is written
        if waiters and self._loop is not None:
            self._call(_reject, waiters, reason)
        if first:
            for callback in self._on_trouble:
                callback(reason)

    def _recovered(self) -> None:
        with self._condition:
            self._failure, dropped, self._dropped = None, self._dropped, 0
        self.dropped += dropped
        for callback in self._on_trouble:
            callback(None)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)


def _keep(path: Path, text: str) -> None:
    """Write a small file where it does not say so already; on a full disk the old one stays whole."""
    if path.exists() and path.read_text() == text:
        return
    part = path.with_name(f"{path.name}.part")
    part.write_text(text)
    part.replace(path)


def _resolve(waiters: list[asyncio.Future[None]]) -> None:
    for waiter in waiters[:RESUMED]:
        if not waiter.done():
            waiter.set_result(None)
    if len(waiters) > RESUMED:
        waiters[0].get_loop().call_soon(_resolve, waiters[RESUMED:])


def _reject(waiters: list[asyncio.Future[None]], reason: str) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_exception(JournalFailed(reason))


def read(directory: Path, start: int = 0, *, stop: int | None = None) -> Iterator[Any]:
    """Records of a slot's directory from `start` on, up to `stop` (not included), without opening it for writing."""
    return map(decode, read_lines(directory, start, stop=stop))


def slots(directory: Path) -> list[Path]:
    """The slots' directories below `directory`, by name."""
    return sorted(key.parent for key in directory.glob("*/key.pub"))


def load_or_create_key(path: Path) -> Ed25519PrivateKey:
    """The signing key of a file (32 raw bytes in base64), made where there is none; only its owner may read it."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = Ed25519PrivateKey.generate()
        part = path.with_name(f"{path.name}.{os.getpid()}")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(base64.b64encode(key.private_bytes_raw()) + b"\n")
        try:
            os.link(part, path)  # the first of several workers wins
        except FileExistsError:
            pass
        finally:
            part.unlink()
    if path.stat().st_mode & 0o077:
        raise JournalFailed(f"{path} can be read by others; chmod 600 {path}")
    return Ed25519PrivateKey.from_private_bytes(base64.b64decode(path.read_bytes()))
