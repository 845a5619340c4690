"""Thresholds of budgets -> webhooks, from a thread of their own: signed, retried, never on a request's path.

The form is that of Standard Webhooks (standardwebhooks.com, 1.0): `webhook-id` is the same in every try, so that a
receiver can tell repetitions; `webhook-signature` is `v1,` and base64 of HMAC-SHA256 over `id.timestamp.body`.  A message
names accounts and amounts, and never a request.  Whoever claimed a threshold tells it: what this process has not
delivered when it ends is lost, and stands in the log all the same.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

log = logging.getLogger("spillway")

QUEUE_LIMIT = 1_000
TIMEOUT = 10.0  # seconds
FIRST_PAUSE = 1.0
"""Seconds before the second try; doubled for each one after."""
LONGEST_PAUSE = 300.0
TRIES = 12
"""Over about half an hour."""
CLOSING = 3.0
"""Seconds that a stopping worker gives to what is still to be told."""
_PREFIX = "whsec_"


class Alert(Struct, frozen=True):
    """One threshold that was reached, or a forecast past the limit.  Amounts are in `unit`; money in pico-dollars."""

    id: str
    at: int  # seconds since the epoch
    scope: str
    window: str
    unit: str  # usd, tokens, requests
    threshold: str  # 80, or forecast
    limit: int
    spent: int
    forecast: int  # 0: too early to say
    begins: int
    ends: int


class Notice(Struct, frozen=True):
    """Anything else that is to be told: numbers and names, never content."""

    id: str
    at: int  # seconds since the epoch
    type: str
    about: str  # for the log, where it cannot be delivered
    data: Mapping[str, Any]


def body_of(alert: Alert | Notice) -> bytes:
    """The message of either."""
    if isinstance(alert, Notice):
        return json.dumps({"type": alert.type, "timestamp": alert.at, "data": dict(alert.data)}).encode()
    return _of_budget(alert)


def _about(alert: Alert | Notice) -> str:
    return alert.about if isinstance(alert, Notice) else f"the budget alert of {alert.scope} for {alert.window}"


def _of_budget(alert: Alert) -> bytes:
    """Money in dollars with twelve places, as text, so that no reader rounds it."""

    def amount(value: int) -> str | int:
        return f"{value // 10**12}.{value % 10**12:012d}" if alert.unit == "usd" else value

    reached = "forecast to pass" if alert.threshold == "forecast" else f"at {alert.threshold}% of"
    data: dict[str, Any] = {
        "scope": alert.scope,
        "window": alert.window,
        "unit": alert.unit,
        "threshold": alert.threshold if alert.threshold == "forecast" else int(alert.threshold),
        "limit": amount(alert.limit),
        "spent": amount(alert.spent),
        "forecast": amount(alert.forecast) if alert.forecast else None,
        "begins": alert.begins,
        "ends": alert.ends,
        "text": f"The budget of {alert.scope} for {alert.window} is {reached} its limit.",
    }
    return json.dumps({"type": "budget.threshold", "timestamp": alert.at, "data": data}).encode()


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """`v1,...` of Standard Webhooks; a secret that begins with `whsec_` is base64 behind it."""
    key = base64.b64decode(secret.removeprefix(_PREFIX)) if secret.startswith(_PREFIX) else secret.encode()
    signed = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


class Alerts:
    """Delivers alerts in their order, one after another."""

    def __init__(self, url: str, secret: str | None = None, proxy: str | None = None) -> None:
        self._url = url
        self._secret = secret
        proxies: Mapping[str, str] = {"http": proxy, "https": proxy} if proxy is not None else {}
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler(dict(proxies)), _NoRedirect())
        self._waiting: queue.Queue[Alert | Notice] = queue.Queue(QUEUE_LIMIT)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)
        self.dropped = 0  # not delivered after every try, or too many at once

    def start(self) -> None:
        self._thread.start()

    def tell(self, alert: Alert | Notice) -> None:
        """From any thread; never waits and never raises."""
        try:
            self._waiting.put_nowait(alert)
        except queue.Full:
            self.dropped += 1
            log.error("more alerts than can be sent: %s is not", _about(alert))

    def close(self) -> None:
        """One more try for what waits, within a short time."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(CLOSING)

    def _run(self) -> None:
        while True:
            try:
                alert = self._waiting.get(timeout=0.2)
            except queue.Empty:
                if self._closing.is_set():
                    return
                continue
            self._deliver(alert)

    def _deliver(self, alert: Alert | Notice) -> None:
        body = body_of(alert)
        pause = FIRST_PAUSE
        for attempt in range(TRIES):
            why = self._post(alert.id, body)
            if why is None:
                return
            if self._closing.is_set() or attempt == TRIES - 1:
                break
            log.warning("%s was not taken (%s); trying again in %.0f s", _about(alert), why, pause)
            self._closing.wait(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
        self.dropped += 1
        log.error("%s was not delivered (%s)", _about(alert), why)

    def _post(self, message_id: str, body: bytes) -> str | None:
        """Why it was not taken; None: it was."""
        if not self._url.startswith(("http://", "https://")):
            return "no http or https URL"
        now = int(time.time())
        headers = {"content-type": "application/json", "webhook-id": message_id, "webhook-timestamp": str(now)}
        if self._secret is not None:
            headers["webhook-signature"] = signature(self._secret, message_id, now, body)
        try:
            request = urllib.request.Request(self._url, body, headers, method="POST")
            with self._opener.open(request, timeout=TIMEOUT) as answer:
                return None if 200 <= answer.status < 300 else f"status {answer.status}"
        except urllib.error.HTTPError as error:
            error.close()
            return f"status {error.code}"
        except (OSError, ValueError) as error:  # the URL may hold a secret: only the kind of error is said
            return type(error).__name__


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A signed message goes to where the operator said, and nowhere else."""

    def redirect_request(self, *arguments: Any) -> None:
        return None
