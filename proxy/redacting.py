"""Requests redacted for a target, off the event loop: read the scope's map, replace, look again, write the map.

Nothing is redacted before an attempt needs it, and then once for all targets with the same labels.  What cannot be
redacted, or whose map cannot be kept, is said by a veto, and stays local.

Under a session that the client names, a value that was replaced once is one that was found wherever it stands later.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from compliance.identifiers import FAMILY
from compliance.model import Action, Finding, Inspection
from compliance.pseudonyms import LITERAL, Known
from compliance.redaction import Unredactable, known_kinds, redact_body
from compliance.rules import Labels
from compliance.rulings import Ruling
from compliance.scan import NotScanned, Scanner
from compliance.sought import Sought
from engines.base import Dialect
from engines.model import BadRequest, Request
from proxy.auth import Principal
from proxy.config import Settings
from proxy.exchange import Exchange, NotRedacted, Redaction
from proxy.state.pseudonyms import Owner, PseudonymsFailed, PseudonymStore, PseudonymTaken, load_or_create_key

log = logging.getLogger("spillway")

T = TypeVar("T")

SESSION_HEADER = "x-spillway-session"
THREADS = 2
MAX_WAITING = 64
"""Requests of one worker that are being redacted, or wait for it; one more stays local."""
CACHED_VALUES = 20_000
"""Values of the sessions that were used last which are kept ready to be looked for."""
TRIES = 3
"""Times that a request is redacted where another worker gave a pseudonym away in the meantime."""

_FAILED = NotRedacted("pseudonyms", "the map of its pseudonyms cannot be read or written")
_BUSY = NotRedacted("pseudonyms", "too many requests are being redacted")
_SLOW = NotRedacted("pseudonyms", "redacting it took too long")
_UNKNOWN = (Finding("scan_failed", "", 0, 0),)
"""Known values were not looked for to the end, so that what has them is not called clean."""


def redacts(settings: Settings) -> bool:
    """Does any rule redact?"""
    return any(rule.action == "redact" for rule in settings.compliance.rules)


def open_store(settings: Settings) -> PseudonymStore | None:
    """The map in the state directory, where a rule redacts; None where it cannot be used, which is said in the log."""
    if not redacts(settings):
        return None
    state, part = Path(settings.state.dir), settings.compliance.pseudonyms
    try:
        key = load_or_create_key(state / "pseudonyms.key")
        return PseudonymStore(state / "pseudonyms.db", key, keep=part.keep, values=part.values)
    except PseudonymsFailed as failure:
        log.error("nothing is redacted: %s", failure)
        return None


class Redactor:
    """One worker's; `store` None: its key or file cannot be used, so that nothing is redacted.

    `redacts`: a rule does.  Else no scope has anything to say.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        store: PseudonymStore | None,
        scanner: Scanner,
        dialects: Mapping[str, Dialect],
        *,
        deadline: float,
        redacts: bool = True,
    ) -> None:
        self._loop = loop
        self._store = store
        self._scanner = scanner
        self._dialects = dialects
        self._deadline = deadline  # seconds
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="redaction")
        self._waiting = 0
        self._redacts = redacts
        self._lock = threading.Lock()
        self._sought: OrderedDict[str, tuple[tuple[Known, ...], Sought]] = OrderedDict()

    async def recalled(
        self, exchange: Exchange, request: Request, principal: Principal, seen: Inspection, beside: str = ""
    ) -> Inspection:
        """What was seen in a request, and what its session knows of it; the map is asked only where one is named.

        `beside`: what is sent beside the body.  A value that was replaced since it identifies under health context
        has that context still.
        """
        if not self._redacts or not exchange.inbound.headers.get(SESSION_HEADER):
            return seen
        found: tuple[Finding, ...] | NotRedacted = _UNKNOWN
        if self._store is not None:
            identity = _identity(self._store, exchange, request, principal)
            found = await self._in_thread(partial(self._look, self._store, identity, request.raw, beside))
        if isinstance(found, NotRedacted):
            found = _UNKNOWN
        kinds = {finding.type for finding in seen.findings}
        health = seen.health or any([FAMILY.get(finding.type) == "context" for finding in found])
        return Inspection((*seen.findings, *[one for one in found if one.type not in kinds]), health)

    def _look(self, store: PseudonymStore, identity: str, raw: bytes, beside: str) -> tuple[Finding, ...]:
        """In a thread."""
        try:
            known = store.known(identity)
            if not known:
                return ()
            kinds = known_kinds(raw, beside, self._scanner, self._ready(identity, known))
            return tuple([Finding(kind, "", 0, 0) for kind in kinds])
        except NotScanned:
            pass
        except PseudonymsFailed as failure:
            log.error("the values of a session were not looked for: %s", failure)
        return _UNKNOWN

    def _ready(self, identity: str, known: tuple[Known, ...]) -> Sought:
        with self._lock:
            cached = self._sought.get(identity)
            if cached is not None and cached[0] is known:
                self._sought.move_to_end(identity)
                return cached[1]
        sought = Sought([(one.kind, one.value) for one in known if one.kind != LITERAL])
        with self._lock:
            self._sought[identity] = known, sought
            self._sought.move_to_end(identity)
            while len(self._sought) > 1 and sum([len(one[0]) for one in self._sought.values()]) > CACHED_VALUES:
                self._sought.popitem(last=False)
        return sought

    async def redacted(self, exchange: Exchange, labels: Labels) -> Redaction | NotRedacted:
        """The exchange's request as it may be sent to a target with these labels, or why there is none."""
        known = exchange.redactions.get(labels)
        if known is None:
            known = exchange.redactions[labels] = await self._redact(exchange, labels)
        return known

    async def _redact(self, exchange: Exchange, labels: Labels) -> Redaction | NotRedacted:
        request, ruling, principal = exchange.request, exchange.ruling, exchange.principal
        assert request is not None and ruling is not None and principal is not None
        if self._store is None:
            return _FAILED
        headers = exchange.inbound.headers
        identity = _identity(self._store, exchange, request, principal)
        owner = Owner(principal.tenant or "", exchange.told.subject)
        return await self._in_thread(
            partial(self._work, self._store, identity, request, headers, ruling, labels, owner)
        )

    async def _in_thread(self, work: Callable[[], T]) -> T | NotRedacted:
        if self._waiting >= MAX_WAITING:
            return _BUSY
        self._waiting += 1
        job = self._threads.submit(work)
        job.add_done_callback(self._done)
        try:
            async with asyncio.timeout(self._deadline):
                return await asyncio.wrap_future(job)
        except TimeoutError:
            return _SLOW

    def _done(self, job: Future[Any]) -> None:
        self._loop.call_soon_threadsafe(self._leave)

    def _leave(self) -> None:
        self._waiting -= 1

    def _work(
        self,
        store: PseudonymStore,
        identity: str,
        request: Request,
        headers: Mapping[str, str],
        ruling: Ruling,
        labels: Labels,
        owner: Owner,
    ) -> Redaction | NotRedacted:
        """In a thread."""

        @cache
        def decides(kind: str) -> Action:
            return ruling.over(kind, labels)

        try:
            for _ in range(TRIES):
                scope = store.open(identity)
                try:
                    redacted = redact_body(
                        request.raw,
                        self._scanner,
                        decides,
                        scope,
                        health=ruling.health,
                    )
                    changed = self._dialects[request.dialect].parse(request.operation, redacted.raw, headers)
                    store.keep(scope, owner)
                except PseudonymTaken:
                    continue
                return Redaction(changed, scope, redacted.counts)
        except Unredactable as why:
            return NotRedacted("unredactable", str(why))
        except BadRequest:
            return NotRedacted("unredactable", "what would be left is no request")
        except PseudonymsFailed as failure:
            log.error("a request was not redacted: %s", failure)
        return _FAILED

    def close(self) -> None:
        """Wait for what is under way; close the map."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        if self._store is not None:
            self._store.close()


def _identity(store: PseudonymStore, exchange: Exchange, request: Request, principal: Principal) -> str:
    """The conversation's scope, bound to who calls: the session that the client names, else how it begins."""
    caller = (principal.organisation, principal.tenant or "", principal.key)
    session = exchange.inbound.headers.get(SESSION_HEADER)
    if session:
        return store.identity("session", *caller, session)
    return store.identity("conversation", *caller, exchange.actor, beginning(request.body))


def beginning(body: Mapping[str, Any]) -> str:
    """What stays the same of a conversation while it goes on: its system prompt and its first user message."""
    messages = body.get("messages")
    if not isinstance(messages, list):
        return _text([body.get("input"), body.get("prompt")])
    kept: list[Any] = [body.get("system")]
    for message in messages:
        kept.append(message)
        if isinstance(message, dict) and message.get("role") == "user":
            break
    return _text([_plain(one) for one in kept])


def _plain(value: Any) -> Any:
    """A message without marks that clients move from turn to turn."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items() if key != "cache_control"}
    return [_plain(one) for one in value] if isinstance(value, list) else value


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()
