"""Records for tests, with what a test does not care about filled in."""

from __future__ import annotations

from typing import Any

from compliance.records import Decision, Outcome


def decision(request: str, **given: Any) -> Decision:
    row: dict[str, Any] = {
        "action": "allow", "actor": "", "at": 1, "attempt": 0, "boundary": "local", "edits": (), "findings": (), "hold": 0, "key": "k",
        "model": "m", "operation": "chat", "organisation": "o", "overflow": "", "policy": "p", "project": "", "request": request,
        "routing": "r", "rule": "default", "scopes": (), "stream": False, "surface": "openai.chat", "target": "e/m", "team": "",
        "tenant": "", "trace": "", "vetoes": (),
    }  # fmt: skip
    return Decision(**(row | given))


def outcome(request: str, **given: Any) -> Outcome:
    row: dict[str, Any] = {
        "at": 1, "attempt": 0, "boundary": "local", "bytes_in": 0, "bytes_out": 0, "cache_read": 0, "cache_write_1h": 0,
        "cache_write_5m": 0, "committed": True, "connect_us": 0, "cost": 0, "ending": "completed", "error": "", "findings": (),
        "first_us": 0, "hold": 0, "input": 0, "key": "k", "model": "m", "organisation": "o", "output": 0, "price": "local", "project": "",
        "quality": "exact", "queue_us": 0, "reasoning": 0, "request": request, "scopes": (), "status": 200, "target": "e/m", "team": "",
        "total_us": 0,
    }  # fmt: skip
    return Outcome(**(row | given))
