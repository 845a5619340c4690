"""What `GET /health` says."""

from __future__ import annotations

import json

import pytest

from proxy.standing import health

FINE = {"disk": {"behind": 0, "last_success": 1_795_000_000_123_456, "problem": "/mnt/x: of no concern to others"}}


@pytest.mark.parametrize(
    ("given", "status", "word"),
    [
        ({}, 200, "ok"),
        ({"draining": True}, 503, "draining"),
        ({"writable": False}, 503, "degraded"),
        ({"writable": False, "serves_without": True}, 200, "degraded"),
        ({"witnesses": {"disk": {"behind": 2}}}, 200, "degraded"),
    ],
)
def test_a_load_balancer_is_told_where_requests_are_served(given: dict[str, object], status: int, word: str) -> None:
    usual = {"draining": False, "writable": True, "waiting": 3, "serves_without": False, "witnesses": FINE}
    code, body = health(**(usual | given))  # type: ignore[arg-type]
    assert (code, json.loads(body)["status"]) == (status, word)


def test_names_numbers_and_times_and_nothing_else() -> None:
    _, body = health(draining=False, writable=True, waiting=3, serves_without=False, witnesses=FINE)
    assert json.loads(body) == {
        "status": "ok",
        "audit": {"writable": True, "waiting": 3},
        "witnesses": {"disk": {"behind": 0, "last_success": "2026-11-18T11:06:40+00:00"}},
    }
    _, body = health(draining=False, writable=True, waiting=0, serves_without=False, witnesses={"new": {}})
    assert json.loads(body)["witnesses"] == {"new": {"behind": 0, "last_success": None}}
