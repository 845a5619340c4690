"""Webhooks on real sockets: their form, their signature, and what happens when nobody listens."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from scripted import Play, Received, ScriptedEngine, json_answer

from proxy import alerts
from proxy.alerts import Alert, Alerts, body_of, signature

ALERT = Alert(
    id="org|2026-11|80|5", at=1_795_000_000, scope="org", window="2026-11", unit="usd", threshold="80",
    limit=5 * 10**12, spent=4 * 10**12 + 1, forecast=0, begins=1_793_491_200, ends=1_796_083_200,
)  # fmt: skip


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """The example of the specification's own libraries (standard-webhooks, libraries/python/tests)."""
    secret, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b'{"test": 2432232314}'
    made = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body)
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_money_is_text_with_every_place_and_counts_are_numbers() -> None:
    data = json.loads(body_of(ALERT))["data"]
    assert (data["limit"], data["spent"], data["threshold"]) == ("5.000000000000", "4.000000000001", 80)
    assert data["forecast"] is None
    counted = Alert("i", 0, "key/k", "2026-11-24", "tokens", "forecast", 100, 60, 120, 0, 1)
    data = json.loads(body_of(counted))["data"]
    assert (data["limit"], data["forecast"], data["threshold"]) == (100, 120, "forecast")
    assert "forecast to pass" in data["text"]


async def test_it_is_tried_again_until_it_is_taken_and_nothing_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "FIRST_PAUSE", 0.01)
    answers = [
        json_answer({}, 500), json_answer({}, 302, [("location", "http://127.0.0.1:1/elsewhere")]), json_answer({}, 204),
    ]  # fmt: skip

    async def script(received: Received, play: Play) -> bool:
        await play.send(answers[len(ear.requests) - 1])
        return False

    async with ScriptedEngine(script) as ear:
        teller = Alerts(f"{ear.url}/hook?token=t")
        teller.start()
        teller.tell(ALERT)
        async with asyncio.timeout(20):
            while len(ear.requests) < 3:
                await asyncio.sleep(0.01)
        await asyncio.to_thread(teller.close)
    assert teller.dropped == 0
    assert {received.headers["webhook-id"] for received in ear.requests} == {ALERT.id}
    assert "webhook-signature" not in ear.requests[0].headers
    assert [received.path for received in ear.requests] == ["/hook?token=t"] * 3


def test_law_11_nobody_listening_holds_up_nobody_and_tells_no_secret(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(alerts, "TRIES", 2)
    monkeypatch.setattr(alerts, "QUEUE_LIMIT", 1)
    teller = Alerts("http://127.0.0.1:1/SECRET", "SECRET")
    for _ in range(3):
        teller.tell(ALERT)  # not even started: two are too many
    assert teller.dropped == 2
    teller.start()
    until = time.monotonic() + 20
    while teller.dropped < 3 and time.monotonic() < until:
        time.sleep(0.01)
    teller.close()
    assert teller.dropped == 3
    assert "was not delivered (URLError)" in caplog.text
    assert "SECRET" not in caplog.text


@pytest.mark.parametrize("url", ["http://[", "notaurl", "file:///etc/hostname"])
def test_an_address_that_is_none_raises_nothing(
    url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "TRIES", 1)
    teller: Any = Alerts(url)
    teller._deliver(ALERT)
    assert teller.dropped == 1
