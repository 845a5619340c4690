"""The append-only log of one worker slot: a writer thread, group commit, signed checkpoints.

`append` only queues: it never waits and never touches the disk.  A thread writes what has gathered in one
write and one sync, at most every `group_window` seconds while nobody waits, at once when somebody does; then
it tells the event loop once for the whole group.  Every second under traffic, and at the end, a checkpoint of
the tree is signed (C2SP tlog-checkpoint, a signed note with Ed25519).

On disk, in the slot's directory: `segment-<first seq>.jsonl` (a record a line), `checkpoints` (signed notes,
the newest last), `frontier.json` (where the newest checkpoint stood, so that opening reads only what came
after), `key.pub` (the verifier's key), `lock`.
"""

from __future__ import annotations

import asyncio
import base64
import fcntl
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from compliance import checkpoints
from compliance.merkle import Frontier, leaf_hash
from compliance.records import Decision, Outcome, Record, decode, encode

SEGMENT_RECORDS = 10_000
MAX_PENDING = 65_536
GROUP_WINDOW = 0.004  # seconds
GROUP_RECORDS = 256
CHECKPOINT_INTERVAL = 1.0
IDLE_CHECKPOINT = 60.0
_NOTE_TAIL = 8192
"""Bytes that hold the last whole checkpoint."""
_NOTE_END = re.compile("^— .*\n\n".encode(), re.MULTILINE)


class JournalError(Exception):
    """The log cannot take what it should: nothing may leave (law 2)."""


class JournalLocked(JournalError):
    """Another process writes this slot."""


class JournalDamaged(JournalError):
    """The files are not what the last signed checkpoint says."""


class JournalFailed(JournalError):
    """Writing failed; the disk may be full or read-only.  Nothing is acknowledged from here on."""


class JournalFull(JournalError):
    """More records wait than the bound allows: the disk is too slow for the traffic."""


class Journal:
    """One slot's log.  `append` may be called from any thread; waiting is for the bound event loop."""

    def __init__(self, directory: Path, origin: str, key: Ed25519PrivateKey, lock: IO[str], **options: Any) -> None:
        self.directory = directory
        self.origin = origin
        self._key = key
        self._lock_file = lock
        self._window: float = options.get("group_window", GROUP_WINDOW)
        self._group: int = options.get("group_records", GROUP_RECORDS)
        self._segment_records: int = options.get("segment_records", SEGMENT_RECORDS)
        self._max_pending: int = options.get("max_pending", MAX_PENDING)
        self._sync: Callable[[int], None] = options.get("sync", os.fdatasync)
        self._clock: Callable[[], int] = options.get("clock", time.time_ns)
        self._on_durable: list[Callable[[list[Record]], None]] = []
        self._lock = threading.Lock()  # of all that both threads touch; held for moments
        self._condition = threading.Condition(self._lock)  # the writer waits here
        self._pending: list[Record] = []
        self._waiting = 0  # waiters for durability
        self._closing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._last_at = 0
        self._failure: str | None = None
        self._checkpoint_due = 0.0
        self._frontier = Frontier()
        self._checkpointed = 0
        self._last_kind = ""
        self._open: dict[tuple[str, int], int] = {}  # decisions without an outcome -> seq, oldest first
        self.cut_bytes = 0
        self.interrupted: list[Decision] = []
        self.clean = True  # the last writer stopped cleanly
        self.durable_seq = -1
        self.next_seq = 0
        self._file: IO[bytes] | None = None
        self._file_records = 0
        self._offset = 0
        self._thread = threading.Thread(target=self._run, name=f"journal {origin}", daemon=True)

    # --- opening ----------------------------------------------------------------------------------------

    @classmethod
    def open(cls, directory: Path, *, origin: str, key: Ed25519PrivateKey, **options: Any) -> Journal:
        """Lock the slot, cut off a torn last line, recompute the tree since the last checkpoint, start the thread."""
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = open(directory / "lock", "a")  # noqa: SIM115  held until close
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise JournalLocked(f"another process writes the log in {directory}") from None
        journal = cls(directory, origin, key, lock, **options)
        try:
            journal._recover()
            (directory / "key.pub").write_text(checkpoints.verifier_key(origin, key.public_key()) + "\n")
            journal._thread.start()
        except (OSError, JournalError) as error:
            lock.close()
            if isinstance(error, OSError):
                raise JournalFailed(f"the log in {directory} cannot be opened: {error.strerror}") from None
            raise
        return journal

    def _recover(self) -> None:
        _cut_torn_note(self.directory / "checkpoints")
        segments = self._segments()
        mark = self._load_mark()
        self._frontier = Frontier(mark["size"], [bytes.fromhex(h) for h in mark["frontier"]])
        if self._frontier.root().hex() != mark["root"]:
            raise JournalDamaged("frontier.json does not fit its own root")
        self._checkpointed = mark["size"]
        self._last_kind = mark["last_kind"]
        self._last_at = mark["last_at"]
        there = 0
        for path in segments:
            first = int(path.stem.removeprefix("segment-"))
            if path == segments[-1] or first + self._segment_records > self._frontier.size:
                there = self._replay(path, first, is_last=path == segments[-1])
        if there < self._checkpointed:
            raise JournalDamaged(f"the log has {there} records, its checkpoint says {self._checkpointed}")
        self.next_seq = self._frontier.size
        self.durable_seq = self.next_seq - 1
        self.clean = self._last_kind in ("stopped", "")
        open_decisions: dict[tuple[str, int], Decision] = {}
        for record in read(self.directory, mark["oldest_open"]):
            if isinstance(record, Decision):
                open_decisions[record.request, record.attempt] = record
            elif isinstance(record, Outcome):
                open_decisions.pop((record.request, record.attempt), None)
        self.interrupted = list(open_decisions.values())
        self._open = {key: decision.seq for key, decision in open_decisions.items()}
        if segments:
            self._file = open(segments[-1], "r+b", buffering=0)  # noqa: SIM115
            self._file.seek(0, os.SEEK_END)
            self._offset = self._file.tell()
            self._file_records = self.next_seq - int(segments[-1].stem.removeprefix("segment-"))

    def _replay(self, path: Path, first: int, *, is_last: bool) -> int:
        """Hash what came after the checkpoint; cut a torn tail off the last segment.  The sequence after its last record."""
        with open(path, "r+b") as file:
            seq = first
            good = 0
            for line in file:
                if not line.endswith(b"\n"):
                    break
                if seq >= self._frontier.size:
                    self._frontier.append(leaf_hash(line[:-1]))
                    record = decode(line[:-1])
                    self._last_kind = record.kind
                    self._last_at = max(self._last_at, record.at)
                seq += 1
                good += len(line)
            file.seek(0, os.SEEK_END)
            if file.tell() > good:
                if not is_last:
                    raise JournalDamaged(f"{path.name} is torn in the middle of the log")
                self.cut_bytes = file.tell() - good
                file.truncate(good)
                os.fsync(file.fileno())
        return seq

    def _load_mark(self) -> dict[str, Any]:
        path = self.directory / "frontier.json"
        if not path.exists():
            return {
                "size": 0,
                "frontier": [],
                "root": Frontier().root().hex(),
                "last_kind": "",
                "last_at": 0,
                "oldest_open": 0,
            }
        mark: dict[str, Any] = json.loads(path.read_text())
        return mark

    def _segments(self) -> list[Path]:
        return sorted(self.directory.glob("segment-*.jsonl"))

    # --- the path's side --------------------------------------------------------------------------------

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """The event loop that waits; once, before the first `wait_durable`."""
        self._loop = loop

    @property
    def healthy(self) -> bool:
        return self._failure is None

    def append(self, record: Any) -> int:
        """Queue a record; its sequence number.  Raises `JournalFailed` or `JournalFull`, and then keeps nothing."""
        with self._lock:
            if self._failure is not None:
                raise JournalFailed(self._failure)
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
            self._pending.append(record)
            if seq == self.durable_seq + 1 or len(self._pending) == self._group:
                self._condition.notify()
        return seq

    async def wait_durable(self, seq: int) -> None:
        """Until record `seq` is on the disk; raises `JournalFailed`."""
        if seq <= self.durable_seq:
            return
        assert self._loop is not None, "bind() first"
        waiter: asyncio.Future[None] = self._loop.create_future()
        with self._condition:
            if self._failure is not None:
                raise JournalFailed(self._failure)
            self._waiters.append((seq, waiter))
            self._waiting += 1
            if self._waiting == 1:
                self._condition.notify()
        await waiter

    def on_durable(self, callback: Callable[[list[Record]], None]) -> None:
        """`callback(records)` in the writer's thread after each group; it must be quick and must not raise."""
        self._on_durable.append(callback)

    def read(self, start: int = 0) -> Iterator[Any]:
        """Records from `start` on, as they are on the disk."""
        return read(self.directory, start, stop=self.durable_seq + 1)

    def close(self) -> None:
        """Write what waits, sign a last checkpoint, release the lock."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        self._thread.join()
        if self._file is not None:
            self._file.close()
        self._lock_file.close()

    # --- the writer's side ------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            batch, closing = self._gather()
            try:
                if batch:
                    self._write(batch)
                self._maybe_checkpoint(closing)
            except OSError as error:
                self._fail(error, len(batch))
                return
            if batch:
                self._announce(batch)
            if closing and not self._pending:
                return

    def _gather(self) -> tuple[list[Record], bool]:
        """What to write now: at once where somebody waits, else after the window, so that a group gathers."""
        condition = self._condition
        with condition:
            while not self._pending and not self._closing:
                if not condition.wait(CHECKPOINT_INTERVAL) and self._frontier.size > self._checkpointed:
                    return [], False
            if not self._waiting and not self._closing and len(self._pending) < self._group:
                condition.wait_for(
                    lambda: self._waiting or self._closing or len(self._pending) >= self._group, self._window
                )
            batch, self._pending = self._pending, []
            self._waiting = 0
            return batch, self._closing

    def _write(self, batch: list[Record]) -> None:
        lines = [encode(record) for record in batch]
        start = 0
        while start < len(lines):
            if self._file is None or self._file_records >= self._segment_records:
                self._next_segment(self._frontier.size)
            assert self._file is not None
            part = lines[start : start + self._segment_records - self._file_records]
            data = memoryview(b"\n".join(part) + b"\n")
            while data:  # a full disk takes a part, and refuses at the next write
                data = data[self._file.write(data) :]
            self._sync(self._file.fileno())
            self._offset = self._file.tell()
            for line in part:
                self._frontier.append(leaf_hash(line))
            self._file_records += len(part)
            start += len(part)
        for record in batch:
            if isinstance(record, Decision):
                self._open[record.request, record.attempt] = record.seq
            elif isinstance(record, Outcome):
                self._open.pop((record.request, record.attempt), None)
        self._last_kind = batch[-1].kind  # type: ignore[attr-defined]  # every record has one

    def _next_segment(self, first: int) -> None:
        if self._file is not None:
            self._file.close()
        path = self.directory / f"segment-{first:012d}.jsonl"
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115
        self._file_records = 0
        self._offset = 0
        directory = os.open(self.directory, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _maybe_checkpoint(self, closing: bool) -> None:
        now = time.monotonic()
        if self._frontier.size == self._checkpointed or (now < self._checkpoint_due and not closing):
            return
        self._checkpoint_due = now + CHECKPOINT_INTERVAL
        root = self._frontier.root()
        note = checkpoints.sign(self.origin, self._frontier.size, root, self._key)
        with open(self.directory / "checkpoints", "ab") as file:
            file.write(note + b"\n")
            file.flush()
            os.fsync(file.fileno())
        mark = {
            "size": self._frontier.size,
            "frontier": [h.hex() for h in self._frontier.hashes],
            "root": root.hex(),
            "last_kind": self._last_kind,
            "last_at": self._last_at,
            "oldest_open": next(iter(self._open.values()), self._frontier.size),
        }
        part = self.directory / "frontier.json.part"
        part.write_text(json.dumps(mark))
        part.replace(self.directory / "frontier.json")
        self._checkpointed = self._frontier.size

    def _announce(self, batch: list[Record]) -> None:
        """Tell the event loop once for the whole group, and whoever projects the log."""
        self.durable_seq = batch[-1].seq  # type: ignore[attr-defined]
        with self._condition:
            ready = [waiter for seq, waiter in self._waiters if seq <= self.durable_seq]
            self._waiters = [entry for entry in self._waiters if entry[0] > self.durable_seq]
        if ready and self._loop is not None:
            self._call(_resolve, ready)
        for callback in self._on_durable:
            callback(batch)

    def _fail(self, error: OSError, lost: int) -> None:
        """Take back a half-written group, so that the log still verifies; refuse everything from here on."""
        reason = f"the audit log cannot be written ({error.strerror or type(error).__name__})"
        try:
            if self._file is not None:
                self._file.truncate(self._offset)
        except OSError:
            reason += "; its last line may be torn"
        with self._condition:
            self._failure = reason
            waiters = [waiter for _, waiter in self._waiters]
            self._waiters.clear()
            self._pending.clear()
        if waiters and self._loop is not None:
            self._call(_reject, waiters, reason)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)


def _cut_torn_note(path: Path) -> None:
    """Cut off a checkpoint that a crash left unfinished: the next one must not run together with it."""
    if not path.exists():
        return
    with open(path, "r+b") as file:
        start = max(0, file.seek(0, os.SEEK_END) - _NOTE_TAIL)
        file.seek(start)
        tail = file.read()
        whole = [match.end() for match in _NOTE_END.finditer(tail)]
        end = start + whole[-1] if whole else start
        if end < start + len(tail) and (whole or start == 0):
            file.truncate(end)
            os.fsync(file.fileno())


def _resolve(waiters: list[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)


def _reject(waiters: list[asyncio.Future[None]], reason: str) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_exception(JournalFailed(reason))


def read(directory: Path, start: int = 0, *, stop: int | None = None) -> Iterator[Any]:
    """Records of a slot's directory from `start` on, up to `stop` (not included), without opening it for writing."""
    return map(decode, read_lines(directory, start, stop=stop))


def read_lines(directory: Path, start: int = 0, *, stop: int | None = None) -> Iterator[bytes]:
    """The same records as they are stored: canonical lines, without their line ends."""
    segments = sorted(directory.glob("segment-*.jsonl"))
    for number, path in enumerate(segments):
        seq = int(path.stem.removeprefix("segment-"))
        if number + 1 < len(segments) and int(segments[number + 1].stem.removeprefix("segment-")) <= start:
            continue
        with open(path, "rb") as file:
            for line in file:
                if (stop is not None and seq >= stop) or not line.endswith(b"\n"):
                    return
                if seq >= start:
                    yield line[:-1]
                seq += 1


def segment_starts(directory: Path) -> Iterator[tuple[int, bytes]]:
    """(sequence, first record's line) of each segment that holds a record, oldest first: where to begin to read."""
    for path in sorted(directory.glob("segment-*.jsonl")):
        with open(path, "rb") as file:
            line = file.readline()
        if line.endswith(b"\n"):
            yield int(path.stem.removeprefix("segment-")), line[:-1]


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
