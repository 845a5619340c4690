"""Canaries through the running proxy.  Only those that must not leave are sent.

Who answered is told by the answer's `x-spillway-target`.  Who was asked at all, failed attempts included, is told by the
log, where the state directory of the proxy can be read; where it cannot, the result says so.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from compliance.journal import read
from compliance.model import LOCAL
from compliance.records import Decision, Refused
from proxy.app import all_keys
from proxy.auth import LOCAL_OPEN, Principal
from proxy.canary import Canary, Promises, Result
from proxy.config import Settings
from proxy.explaining import Explainer
from proxy.keyring import Keyring
from proxy.projections.ledger import Ledger
from proxy.state.keys import KeyStore
from proxy.surfaces import POSTS

TIMEOUT = 120.0
"""Seconds for one answer."""
PATIENCE = 5.0
"""Seconds until the log's index must know a request; it is about one behind."""
NOT_SENT = "may leave: not sent"
UNSEEN = "the log could not be read: attempts that failed were not seen"
UNRECORDED = "the log has nothing of it"
_UNLOOKED = frozenset({"unauthenticated", "forbidden_host", "model_not_found", "invalid_request", "not_found"})
"""Refusals that come before the text was looked at."""


class NotAnswered(Exception):
    """Nobody answers at this address, or not to this key; the message says what would be right."""


class Answer(Struct, frozen=True):
    """What is told of one request."""

    status: int
    request: str
    target: str
    action: str
    code: str


class Live:
    """The running proxy, and the configuration that it is believed to run."""

    def __init__(self, settings: Settings, explainer: Explainer, url: str, key: str | None) -> None:
        self._settings = settings
        self._explainer = explainer
        self._promises = Promises(explainer)
        self._key = key
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise NotAnswered(f"{url!r} is no http or https URL, such as http://127.0.0.1:8800")
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname, parts.port
        self._principal = self._who(key)

    def run(self, chosen: Sequence[Canary]) -> list[Result]:
        """Every canary: sent, or with the reason why not."""
        results: list[Result] = []
        sent: list[str] = []
        for canary in chosen:
            result = self._promises.of(msgspec.structs.replace(canary, principal=self._principal))
            asked = ""
            if not self._suits(canary.principal):
                result = msgspec.structs.replace(result, note=f"not sent: {_whose(canary.principal)}")
            elif not self._principal.may_use(canary.model):
                result = msgspec.structs.replace(result, note="not sent: this key may not use the model")
            elif not result.forbidden:
                result = msgspec.structs.replace(result, note=NOT_SENT)
            else:
                answer = self._ask(canary)
                result, asked = self._judged(result, answer), answer.request
            results.append(result)
            sent.append(asked)
        return self._by_the_log(results, sent)

    def _who(self, key: str | None) -> Principal:
        path = Path(self._settings.state.dir) / "keys.db"
        stored: Mapping[str, Principal] = {}
        if path.exists():
            with contextlib.suppress(sqlite3.Error), contextlib.closing(KeyStore(path)) as store:
                stored = store.snapshot()
        keyring = Keyring(all_keys(self._settings, stored))
        principal = keyring.authenticate(key, time.time_ns() // 1000, loopback=True)
        if principal is None:
            raise NotAnswered(
                "no key in force has this token, so what its tenant is promised cannot be told; --key names one of the"
                " configuration, or of the state directory (--state-dir)"
            )
        return principal

    def _suits(self, wanted: Principal) -> bool:
        """Is this key one of whom the canary's rule speaks?"""
        mine = self._principal
        return wanted == LOCAL_OPEN or (
            (wanted.tenant is None or wanted.tenant == mine.tenant)
            and (not wanted.project or wanted.project == mine.project)
            and (not wanted.key or wanted.name == mine.name)
        )

    def _ask(self, canary: Canary) -> Answer:
        path = next(path for path, surface in POSTS.items() if surface.name == canary.surface)
        headers = {"content-type": "application/json", "anthropic-version": "2023-06-01"}
        if self._key is not None:
            headers["authorization"] = f"Bearer {self._key}"
        make = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = make(self._host, self._port, timeout=TIMEOUT)
        try:
            connection.request("POST", path, msgspec.json.encode(canary.body), headers)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            words = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise NotAnswered(f"no answer from {self._host}: {words}; start it with `spillway serve`") from None
        finally:
            connection.close()
        told = {name: response.headers.get(f"x-spillway-{name}", "") for name in ("request-id", "target", "action")}
        if not told["request-id"]:
            raise NotAnswered(f"what answers at {self._host} is no Spillway: it gives no x-spillway-request-id")
        code = _code(body) if response.status >= 400 else ""
        return Answer(response.status, told["request-id"], told["target"], told["action"], code)

    def _judged(self, result: Result, answer: Answer) -> Result:
        """By the answer alone."""
        wrong = list(result.wrong)
        if answer.code in _UNLOOKED and not answer.target:
            wrong.append(f"was not looked at: {answer.code}")
        elif answer.target:
            wrong += self._mistakes(result, answer.target, answer.action, "answered")
        answered = (answer.target,) if answer.target else ()
        note = answer.code or result.note
        return msgspec.structs.replace(result, answered=answered, wrong=tuple(wrong), note=note)

    def _mistakes(self, result: Result, target: str, action: str, did: str) -> list[str]:
        """What speaks against this target having had the request."""
        if target not in result.promise:
            return [f"{target} {did}, and is no candidate of this configuration"]
        if target in result.forbidden:
            return [f"{target} {did}, where the rules say {result.promise[target]}"]
        there = self._explainer.targets(result.model)[target][0]
        if result.promise[target] == "redact" and there.boundary != LOCAL and action != "redact":
            return [f"{target} {did} without redaction"]
        return []

    # --- the log -------------------------------------------------------------------------------------------

    def _by_the_log(self, results: list[Result], sent: Sequence[str]) -> list[Result]:
        """What the log says of each request: every attempt, what was found, and under which policy."""
        records = self._records({request for request in sent if request})
        out = []
        for result, request in zip(results, sent, strict=True):
            if not request:
                out.append(result)
                continue
            rows = records.get(request)
            if not rows:
                out.append(
                    msgspec.structs.replace(
                        result, note="; ".join(filter(None, (result.note, UNRECORDED if records else UNSEEN)))
                    )
                )
                continue
            wrong = list(result.wrong)
            for row in rows:
                if isinstance(row, Decision):
                    wrong += self._mistakes(result, _called(row.target, result), row.action, "was asked")
                if row.policy != self._settings.policy_hash:
                    wrong.append(f"another policy is running: {row.policy}, not {self._settings.policy_hash}")
                if result.finding and result.finding not in {found.partition(":")[0] for found in row.findings}:
                    wrong.append(f"{result.finding} was not found")
            out.append(msgspec.structs.replace(result, wrong=tuple(dict.fromkeys(wrong))))
        return out

    def _records(self, wanted: set[str]) -> dict[str, list[Decision | Refused]]:
        """Decisions and refusals by request; of a request that the index does not know in time, nothing."""
        path = Path(self._settings.state.dir) / "ledger.db"
        found: dict[str, list[Decision | Refused]] = {}
        if not wanted or not path.exists():
            return found
        spans: dict[str, tuple[int, int]] = {}
        until = time.monotonic() + PATIENCE
        try:
            with contextlib.closing(Ledger(path)) as ledger:
                for request in wanted:
                    while not (rows := ledger.find(request)) and time.monotonic() < until:
                        time.sleep(0.1)
                    for origin, seq in rows:
                        first, last = spans.get(origin, (seq, seq))
                        spans[origin] = min(first, seq), max(last, seq)
            for origin, (first, last) in spans.items():
                log = Path(self._settings.audit.dir) / origin.rpartition("/")[2]
                for record in read(log, first, stop=last + 1):
                    if isinstance(record, (Decision, Refused)) and record.request in wanted:
                        found.setdefault(record.request, []).append(record)
        except (sqlite3.Error, OSError):
            return {}
        return found


def _called(target: str, result: Result) -> str:
    """A recorded target as the configuration calls it: an undeclared name of a model stands there as a pseudonym."""
    engine, _, model = target.partition("/")
    same = [name for name in result.promise if name.partition("/")[0] == engine]
    return same[0] if model.startswith("~") and len(same) == 1 else target


def _whose(principal: Principal) -> str:
    """Whose key is needed."""
    wanted = {
        "tenant": principal.tenant,
        "application": principal.project,
        "key": principal.name if principal.key else "",
    }
    return "it is about " + ", ".join(f"{name} {value}" for name, value in wanted.items() if value)


def _code(body: bytes) -> str:
    """The code of a refusal, in either dialect."""
    try:
        value: Any = json.loads(body)
    except ValueError:
        return ""
    error = value.get("error") if isinstance(value, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, str) else ""
