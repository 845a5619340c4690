"""How Spillway stands, for whoever watches it: the answer of `GET /health`, which asks for no key.

200 while requests are served, 503 while a load balancer should send them elsewhere.  Names, numbers and times only.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import msgspec

HEALTH_PATH = "/health"


def health(
    *, draining: bool, writable: bool, waiting: int, serves_without: bool, witnesses: Mapping[str, Mapping[str, Any]],
    drift: Mapping[str, Any] | None = None,
) -> tuple[int, bytes]:  # fmt: skip
    """(status, JSON body).

    `writable`: the audit log can be written; `waiting`: records that are not on the disk yet; `serves_without`: what
    may stay local is served even so; `witnesses`: where each stands, as `proxy.witness` writes it down; `drift`: of this
    worker's traffic, as `proxy.drifting` writes it down.
    """
    behind = any(row.get("behind") for row in witnesses.values())
    drifts = bool(drift and drift.get("alarm"))
    status = "draining" if draining else "degraded" if not writable or behind or drifts else "ok"
    body: dict[str, Any] = {"status": status, "audit": {"writable": writable, "waiting": waiting}}
    if witnesses:
        body["witnesses"] = {
            name: {"behind": row.get("behind", 0), "last_success": _moment(row.get("last_success", 0))}
            for name, row in witnesses.items()
        }
    if drift:
        body["complexity"] = {
            name: drift.get(name) for name in ("alarm", "index", "seen", "strong_share", "calibrated_on")
        }
    return 503 if draining or not (writable or serves_without) else 200, msgspec.json.encode(body)


def _moment(at: int) -> str | None:
    """Microseconds since the epoch as ISO 8601 in UTC; None for never."""
    return datetime.datetime.fromtimestamp(at // 1_000_000, datetime.UTC).isoformat() if at else None
