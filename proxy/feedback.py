"""`POST /spillway/v1/feedback`: what an application measured of its own requests, as records of the log.

    {"request_id": "...", "metric": "accepted", "value": true}      or a list of such

A metric is a name, a value a finite number or a yes or no: no text can come in here.  It is taken for requests of the same
key, or of another key of the same application; any other id is one that does not exist, and takes as long to be told so.
The answer comes when the records are on the disk.  Of several values of one metric for one request the last one holds.
"""

from __future__ import annotations

import asyncio
import math
import re
import sqlite3
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
from msgspec import Struct

from compliance.journal import Journal
from compliance.records import Feedback
from proxy.auth import Principal
from proxy.errors import Refusal
from proxy.exchange import Inbound
from proxy.owners import Owner, Owners

FEEDBACK_PATH = "/spillway/v1/feedback"
MOST = 256
"""Values in one request."""
LARGEST_BODY = 64 * 1024
METRIC = re.compile(r"[a-z0-9_.-]{1,64}", re.ASCII)
_ID = re.compile(r"[!-~]{1,96}", re.ASCII)
_FIELDS = frozenset({"request_id", "metric", "value"})
LOOKS = (0.0, 0.05, 0.2, 0.75)
"""Seconds before each look for a request: its record may be under way to the disk."""
WAITING, OF_ONE_KEY = 64, 8
"""Requests that wait for their look, in all and of one key; of more it is said that they are too many."""
RATE, BURST = 200.0, 2_000.0
"""Values of one key: a second in the long run, and at once; for each worker."""
MOST_DIGITS = 6
"""In a metric's name: numbers that were issued to somebody are longer."""
MOST_KEYS = 4_096
"""Keys whose rate is remembered."""


class Given(Struct, frozen=True):
    """One value, checked."""

    request: str
    metric: str
    value: str


def parse(raw: bytes) -> tuple[list[Given], bool]:
    """(values, whether they came as a list); raises `Refusal`, which names the place and never repeats what stood there."""
    if len(raw) > LARGEST_BODY:
        raise _too_large()
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        raise _wrong("The body is not valid JSON.", None) from None
    if not isinstance(body, list):
        return [_given(body, "")], False
    if not 1 <= len(body) <= MOST:
        raise _wrong(f"A list holds from 1 to {MOST} values.", None)
    return [_given(item, f"[{number}].") for number, item in enumerate(body)], True


def _given(item: Any, place: str) -> Given:
    if not isinstance(item, dict):
        raise _wrong(
            'Feedback is an object such as {"request_id": "...", "metric": "accepted", "value": true}.', place[:-1]
        )
    if item.keys() != _FIELDS:
        missing = next(iter(sorted(_FIELDS - item.keys())), None)
        words = f"{missing} is missing." if missing else "Feedback has request_id, metric and value, and nothing else."
        raise _wrong(words, f"{place}{missing}" if missing else place[:-1])
    request, metric, value = item["request_id"], item["metric"], item["value"]
    if not isinstance(request, str) or not _ID.fullmatch(request):
        raise _wrong("request_id is what x-spillway-request-id said.", f"{place}request_id")
    if not isinstance(metric, str) or not METRIC.fullmatch(metric) or sum(map(str.isdigit, metric)) > MOST_DIGITS:
        words = f"metric is a name of up to 64 of a-z, 0-9, _, . and -, with at most {MOST_DIGITS} digits."
        raise _wrong(words, f"{place}metric")
    return Given(request, metric, _text(value, f"{place}value"))


def _text(value: Any, place: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        number = float(value) if abs(value) < 1e300 else math.inf
        if math.isfinite(number):
            return repr(int(number)) if number.is_integer() and abs(number) < 2**53 else repr(number)
    raise _wrong("value is a finite number, true or false.", place)


def _too_large() -> Refusal:
    return Refusal("request_too_large", f"Feedback is at most {LARGEST_BODY} bytes; send it in several requests.")


def _wrong(words: str, place: str | None) -> Refusal:
    return Refusal("invalid_request", words, param=place or None)


class FeedbackDoor:
    """One worker's."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, journal: Journal, owners: Owners, clock: Callable[[], int]
    ) -> None:
        """`clock` gives microseconds since the epoch."""
        self._loop = loop
        self._journal = journal
        self._owners = owners
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, "feedback")
        self._waiting: Counter[str] = Counter()  # by key
        self._left: dict[str, tuple[float, float]] = {}  # by key: values that it may give now, and when that was so

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def take(self, principal: Principal, inbound: Inbound) -> bytes:
        """The answer's body, once what can be taken is on the disk; raises `Refusal`, `JournalError`."""
        if inbound.head.method != "POST":
            raise Refusal("method_not_allowed", f"{FEEDBACK_PATH} takes POST.")
        if inbound.stated_length() > LARGEST_BODY:
            raise _too_large()
        values, listed = parse(await inbound.body())
        self._meter(principal, len(values))
        owners = await self._find(principal, {value.request for value in values})
        known = [value for value in values if value.request in owners]
        if not known:
            words = (
                "No request of this application has this id."
                if not listed
                else "No request of this application has one of these ids."
            )
            raise Refusal("not_found", words, param=None if listed else "request_id")
        seq = -1
        for value in known:
            seq = self._journal.append(self._record(principal, value, owners[value.request]))
        await self._journal.wait_durable(seq)
        answer: dict[str, Any] = {"object": "feedback", "accepted": len(known)}
        if listed:
            answer["not_found"] = [n for n, value in enumerate(values) if value.request not in owners]
        return msgspec.json.encode(answer)

    async def _find(self, principal: Principal, requests: set[str]) -> dict[str, Owner]:
        """Those that are the caller's.  What is somebody else's is looked for as long as what is not there."""
        waiting = self._waiting
        if waiting[principal.key] >= OF_ONE_KEY or waiting.total() >= WAITING:
            raise Refusal("rate_limited", "Too much feedback is under way. Try again.", retry_after=1)
        waiting[principal.key] += 1
        try:
            found: dict[str, Owner] = {}
            for pause in LOOKS:
                if pause:
                    await asyncio.sleep(pause)
                found.update(await self._look(requests - found.keys(), principal))
                if len(found) == len(requests):
                    break
            return found
        finally:
            waiting[principal.key] -= 1
            if not waiting[principal.key]:
                del waiting[principal.key]

    async def _look(self, requests: set[str], principal: Principal) -> dict[str, Owner]:
        try:
            return await self._loop.run_in_executor(self._thread, self._owners.find, requests, principal)
        except (sqlite3.Error, OSError):
            raise Refusal(
                "audit_unavailable", "What was asked before cannot be looked up now. Try again.", retry_after=5
            ) from None

    def _meter(self, principal: Principal, count: int) -> None:
        now = self._loop.time()
        left, then = self._left.get(principal.key, (BURST, now))
        left = min(BURST, left + (now - then) * RATE)
        if left < count:
            wait = (count - left) / RATE
            raise Refusal("rate_limited", "This key gives feedback too fast.", retry_after=max(1.0, wait))
        if len(self._left) >= MOST_KEYS and principal.key not in self._left:
            self._left.clear()
        self._left[principal.key] = (left - count, now)

    def _record(self, principal: Principal, value: Given, owner: Owner) -> Feedback:
        return Feedback(
            at=self._clock(), key=principal.key, metric=value.metric, organisation=owner.organisation, project=owner.project,
            request=value.request, team=owner.team, tenant=owner.tenant, value=value.value,
        )  # fmt: skip
