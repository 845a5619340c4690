"""Records of attempts for tests of what is projected from them."""

from __future__ import annotations

from typing import Any

from compliance.records import Decision, Outcome, Refused


def outcome(request: str = "r", attempt: int = 0, *, seq: int = -1, **fields: Any) -> Outcome:
    """An outcome with a plain value in each field that is not given."""
    given: dict[str, Any] = {
        "at": 1_795_000_000_000_000, "boundary": "cloud", "bytes_in": 0, "bytes_out": 0, "cache_read": 0, "cache_write_1h": 0,
        "cache_write_5m": 0, "committed": True, "connect_us": 0, "cost": 0, "ending": "completed", "error": "", "findings": (),
        "first_us": 0, "hold": 0, "input": 0, "key": "key_a", "model": "gpt-4o", "organisation": "default", "output": 0,
        "price": "openai/gpt-4o@2024-11-20", "project": "triage", "quality": "exact", "queue_us": 0, "reasoning": 0, "scopes": (),
        "status": 200, "target": "openai/gpt-4o", "team": "", "total_us": 0,
    }  # fmt: skip
    return Outcome(request=request, attempt=attempt, seq=seq, **{**given, **fields})


def decision(request: str = "r", attempt: int = 0, *, seq: int = -1, **fields: Any) -> Decision:
    """A decision with a plain value in each field that is not given."""
    given: dict[str, Any] = {
        "action": "allow", "actor": "", "at": 1_795_000_000_000_000, "boundary": "cloud", "edits": (), "findings": (), "hold": 0,
        "key": "key_a", "model": "gpt-4o", "operation": "chat", "organisation": "default", "overflow": "", "policy": "p",
        "project": "triage", "routing": "in order", "rule": "default", "scopes": (), "stream": False, "surface": "openai",
        "target": "openai/gpt-4o", "team": "", "tenant": "", "trace": "", "vetoes": (),
    }  # fmt: skip
    return Decision(request=request, attempt=attempt, seq=seq, **{**given, **fields})


def refused(request: str = "r", code: str = "policy_blocked", *, seq: int = -1, **fields: Any) -> Refused:
    """A refusal with a plain value in each field that is not given."""
    given: dict[str, Any] = {
        "action": "block", "at": 1_795_000_000_000_000, "findings": (), "key": "key_a", "model": "gpt-4o", "organisation": "default",
        "policy": "p", "project": "triage", "rule": "default", "status": 403, "surface": "openai", "tenant": "", "vetoes": (),
    }  # fmt: skip
    return Refused(request=request, code=code, seq=seq, **{**given, **fields})
