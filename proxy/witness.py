"""Witnesses: signed checkpoints handed to places that whoever owns the signing key cannot take them back from.

A directory on another disk, an S3-compatible bucket with object lock, or a webhook.  It runs in the supervisor, off
the path of requests: each witness has a task of its own, which hands out the newest checkpoint of every log, at most
one a log each interval.  What could not be handed out is tried again, ever more slowly; a newer checkpoint takes the
place of an older one that still waits, since it covers all of it, so no more than one a log ever waits.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import hashlib
import hmac
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

from compliance.witnessing import Note, newest
from engines.addresses import address_of
from engines.errors import EngineError
from engines.model import Target
from engines.sigv4 import Credentials, Scope, signed_headers
from engines.transport import Transport
from proxy.config import Settings
from proxy.config_parts import Bucket, Webhook, WitnessPart
from proxy.faults import describe

log = logging.getLogger("spillway")

TIMEOUT = 15.0  # seconds for one note
FIRST_LOOK = 2.0  # seconds between two looks for something to hand out, until there was something
FIRST_PAUSE = 1.0  # seconds after a failure, doubled up to the longest
LONGEST_PAUSE = 60.0
LAST_ROUND = 5.0  # seconds at the end, for the checkpoints that the workers signed when they stopped
STANDING = "witness.json"
_CODE = re.compile(rb"<Code>([A-Za-z0-9]{1,64})</Code>")


class WitnessError(Exception):
    """A note could not be handed out; the message says why, in words for the operator and without secrets."""


class Witness(Protocol):
    """A place that takes notes.  `hand` returns once the note is kept there, also if it was already."""

    async def hand(self, note: Note) -> None: ...


class DirectoryWitness:
    """A directory, which must be there: one that is made where another disk should be mounted would be no witness."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def hand(self, note: Note) -> None:
        try:
            await asyncio.to_thread(self._write, note)
        except OSError as error:
            raise WitnessError(f"{self._directory} cannot be written ({error.strerror})") from None

    def _write(self, note: Note) -> None:
        if not self._directory.is_dir():
            raise WitnessError(f"{self._directory} is not there; is its disk mounted?")
        path = self._directory / note.name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o444)
        try:
            with open(descriptor, "wb") as file:
                file.write(note.content)
                file.flush()
                os.fsync(file.fileno())
            _link(part, path)
        except FileExistsError:
            if path.read_bytes() != note.content:
                raise WitnessError(f"{path} is there already and holds something else") from None
        finally:
            with contextlib.suppress(OSError):
                part.unlink()
        for directory in (path.parent, self._directory):
            _sync(directory)


def _link(part: Path, path: Path) -> None:
    """Give a finished file its name, and never another's; raises `FileExistsError`."""
    try:
        os.link(part, path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        if path.exists():  # a file system without hard links; nobody else writes here
            raise FileExistsError(path) from None
        part.rename(path)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that has no such thing
            raise
    finally:
        os.close(descriptor)


class _Http:
    """One origin, reached as engines are: the same proxy, the same TLS, the same check of a local peer."""

    def __init__(self, transport: Transport, origin: str, name: str, boundary: str) -> None:
        self._transport = transport
        self._origin = origin
        self._target = Target(
            name=f"witness/{name}", engine="witness", kind="witness", model=name,
            boundary=boundary, origins=(origin,), capabilities=frozenset(),
        )  # fmt: skip

    async def send(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        """(status, body); raises `WitnessError` where there is no answer."""
        lines = [(name.encode(), value.encode()) for name, value in headers.items() if name != "host"]
        try:
            status, _, answer = await self._transport.fetch(
                self._target, self._origin, method.encode(), path.encode(), lines, body, timeout=TIMEOUT, limit=65_536
            )
        except EngineError as error:
            words = str(error).replace("the engine's", "its").replace("the engine", "it")
            raise WitnessError(f"no answer: {words}") from None
        return status, answer


class BucketWitness:
    """An S3-compatible bucket: an object for each note, locked for a time, never written over."""

    def __init__(
        self, http: _Http, part: Bucket, credentials: Credentials, *, wall: Callable[[], float] = time.time
    ) -> None:
        self._http = http
        self._part = part
        self._credentials = credentials
        self._host = address_of(part.endpoint).header.decode()
        self._wall = wall

    async def hand(self, note: Note) -> None:
        status, answer = await self._put(note, only_new=True)
        if status == 501:  # a server that does not know the condition: its lock keeps what was there
            status, answer = await self._put(note, only_new=False)
        if status in (200, 412):  # 412: it is there; its name holds its hash
            return
        code = _CODE.search(answer)
        raise WitnessError(f"the bucket answers {status}{f' ({code[1].decode()})' if code else ''}")

    async def _put(self, note: Note, *, only_new: bool) -> tuple[int, bytes]:
        part, now = self._part, self._wall()
        path = quote(f"/{part.bucket}/{part.prefix}/{note.name}".replace("//", "/"), safe="/-_.~")
        digest = hashlib.sha256(note.content)
        headers = {  # one checksum must be there where an object is locked; older servers know the first alone
            "host": self._host,
            "content-md5": base64.b64encode(hashlib.md5(note.content, usedforsecurity=False).digest()).decode(),
            "content-type": "text/plain; charset=utf-8",
            "x-amz-checksum-sha256": base64.b64encode(digest.digest()).decode(),
            "x-amz-content-sha256": digest.hexdigest(),
        }
        if only_new:
            headers["if-none-match"] = "*"
        if part.lock != "none":
            headers["x-amz-object-lock-mode"] = part.lock.upper()
            headers["x-amz-object-lock-retain-until-date"] = _iso(now + part.retain)
        at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        scope = Scope(at, part.region, "s3")
        signed = signed_headers("PUT", path, headers, digest.hexdigest(), self._credentials, scope)
        return await self._http.send("PUT", path, signed, note.content)


class WebhookWitness:
    """A POST of each note; `x-spillway-signature: t=<seconds>,v1=<HMAC-SHA256 over "<seconds>.<body>" in hex>`."""

    def __init__(self, http: _Http, path: str, secret: str, *, wall: Callable[[], float] = time.time) -> None:
        self._http = http
        self._path = path
        self._secret = secret.encode()
        self._wall = wall

    async def hand(self, note: Note) -> None:
        at = str(int(self._wall()))
        mac = hmac.digest(self._secret, at.encode() + b"." + note.content, "sha256").hex()
        headers = {
            "content-type": "text/plain; charset=utf-8",
            "idempotency-key": note.name,
            "x-spillway-note": note.name,
            "x-spillway-signature": f"t={at},v1={mac}",
        }
        status, _ = await self._http.send("POST", self._path, headers, note.content)
        if not (200 <= status < 300 or status == 409):  # 409: it has this one
            raise WitnessError(f"it answers {status}")


class Keeper:
    """One witness, and how far it is."""

    def __init__(
        self, name: str, witness: Witness, *, every: float, notes: Callable[[], list[Note]], standing: Mapping[str, Any]
    ) -> None:
        self.name = name
        self._witness = witness
        self._every = every
        self._notes = notes
        self._has: dict[str, tuple[int, str]] = {
            origin: (row["records"], row["note"]) for origin, row in standing.get("logs", {}).items()
        }
        self.last_success: int = standing.get("last_success", 0)  # microseconds since the epoch
        self.behind = 0  # logs whose newest checkpoint it has not, after a try that failed
        self.problem = ""
        self._failures = 0
        self._handed = False  # anything, since the start

    async def run(self) -> None:
        while True:
            await self.round()
            await asyncio.sleep(self.pause())

    def pause(self) -> float:
        if not self.problem:
            return self._every if self._handed else min(self._every, FIRST_LOOK)
        return min(FIRST_PAUSE * float(1 << min(self._failures - 1, 16)), LONGEST_PAUSE)

    async def round(self) -> None:
        """Hand out what is new; never raises but for cancellation."""
        waiting = [note for note in await asyncio.to_thread(self._notes) if self._new(note)]
        try:
            while waiting:
                await self._witness.hand(waiting[0])
                note = waiting.pop(0)
                self._has[note.origin] = (note.number, note.name)
                self.last_success = time.time_ns() // 1000
                self._handed = True
        except WitnessError as error:
            self._failed(str(error), len(waiting))
            return
        if self.problem:
            log.warning("the witness %s has the newest checkpoints again", self.name)
        self.problem, self.behind, self._failures = "", 0, 0

    def _new(self, note: Note) -> bool:
        number, name = self._has.get(note.origin, (0, ""))
        if note.number < number:
            log.error("the log %s has %d records, the witness %s saw %d: it was cut", note.origin, note.number, self.name, number)  # fmt: skip
        return note.name != name

    def _failed(self, why: str, waiting: int) -> None:
        self._failures += 1
        if why != self.problem:
            log.error(
                "the witness %s is behind (checkpoints waiting: %d): %s; it is tried again", self.name, waiting, why
            )
        self.problem, self.behind = why, waiting

    def standing(self) -> dict[str, Any]:
        """For people, scripts and the next start."""
        return {
            "behind": self.behind,
            "last_success": self.last_success,
            "logs": {origin: {"note": name, "records": number} for origin, (number, name) in self._has.items()},
            "problem": self.problem,
        }


class Witnesses:
    """All of them, and the file that says where they stand."""

    def __init__(self, keepers: list[Keeper], state: Path, transport: Transport | None = None) -> None:
        self.keepers = keepers
        self._path = state / STANDING
        self._transport = transport
        self._said = ""

    async def run(self) -> None:
        """Until cancelled.  A fault of its own is said, and ends it: requests do not suffer from it."""
        try:
            async with asyncio.TaskGroup() as group:
                for keeper in self.keepers:
                    group.create_task(keeper.run())
                while True:
                    await asyncio.sleep(1.0)
                    await self.keep()
        except ExceptionGroup as errors:
            log.error("checkpoints are handed out no more: %s", describe(errors.exceptions[0]))

    async def last(self) -> None:
        """What the workers signed when they stopped; then close."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_ROUND):
                await asyncio.gather(*(keeper.round() for keeper in self.keepers))
        await self.keep()
        if self._transport is not None:
            await self._transport.close()

    async def keep(self) -> None:
        """Write down where they stand, where that changed; a full disk is no reason to stop."""
        text = json.dumps({keeper.name: keeper.standing() for keeper in self.keepers}, sort_keys=True)
        if text != self._said:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(_replace, self._path, text)
                self._said = text

    def collect(self) -> Iterator[Any]:
        """For Prometheus: when each witness took a checkpoint last, and how many wait for it."""
        from prometheus_client.core import GaugeMetricFamily

        last = GaugeMetricFamily(
            "spillway_witness_last_success_seconds", "When a witness took a checkpoint last.", labels=["witness"]
        )
        behind = GaugeMetricFamily(
            "spillway_witness_behind", "Checkpoints that a witness could not be given.", labels=["witness"]
        )
        for keeper in self.keepers:
            last.add_metric([keeper.name], keeper.last_success / 1e6)
            behind.add_metric([keeper.name], keeper.behind)
        yield last
        yield behind


def build(settings: Settings, loop: asyncio.AbstractEventLoop) -> Witnesses | None:
    """The witnesses of a configuration; None where there is none."""
    if not settings.audit.witness:
        return None
    state, logs = Path(settings.state.dir), Path(settings.audit.dir)
    transport = Transport(loop, egress_proxy=settings.egress_proxy)
    known = standing(state)
    keepers = []
    for index, part in enumerate(settings.audit.witness):
        witness = _witness(settings, part, f"audit.witness[{index}]", transport)
        keepers.append(
            Keeper(part.name, witness, every=part.every, notes=lambda: newest(logs), standing=known.get(part.name, {}))
        )
    return Witnesses(keepers, state, transport)


def _witness(settings: Settings, part: WitnessPart, path: str, transport: Transport) -> Witness:
    if part.s3 is not None:
        credentials = Credentials(
            settings.secret(f"{path}.s3.access_key") or "",
            settings.secret(f"{path}.s3.secret_key") or "",
            settings.secret(f"{path}.s3.session_token"),
        )
        return BucketWitness(
            _Http(transport, part.s3.endpoint.rstrip("/"), part.name, part.boundary), part.s3, credentials
        )
    if part.webhook is not None:
        return _webhook(part.webhook, part, settings.secret(f"{path}.webhook.secret") or "", transport)
    assert part.directory is not None
    return DirectoryWitness(Path(part.directory))


def _webhook(hook: Webhook, part: WitnessPart, secret: str, transport: Transport) -> WebhookWitness:
    parts = urlsplit(hook.url)
    origin = f"{parts.scheme}://{parts.netloc}"
    return WebhookWitness(_Http(transport, origin, part.name, part.boundary), parts.path or "/", secret)


def standing(state: Path) -> dict[str, Any]:
    """Where the witnesses stood when that was last written down; empty where it never was."""
    try:
        found = json.loads((state / STANDING).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _replace(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_text(text)
    part.replace(path)


def _iso(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
