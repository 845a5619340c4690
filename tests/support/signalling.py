"""Signals of made-up requests."""

from __future__ import annotations

from typing import Any

from policies.model import Facts
from policies.semantic import Placed
from policies.signals import Found, Signals, Who

CODING = Placed("coding", 0.9, 0.8, (("coding", 0.9),), ("coding", 2, 0.7), 0.5)
NOTHING, NOBODY = Found(), Who()


def facts(**more: Any) -> Facts:
    known: dict[str, Any] = {
        "prompt_bytes": 400,
        "prompt_tokens": 100,
        "max_output": None,
        "needs": frozenset({"chat"}),
    }
    return Facts(model="auto", operation="chat", **{**known, **more})


def signals(text: str = "hello", *, found: Found = NOTHING, who: Who = NOBODY, **more: Any) -> Signals:
    body = {"messages": [{"role": "user", "content": text}]}
    sources = {name: more.pop(name) for name in ("place", "complexity", "load") if name in more}
    return Signals(facts(**more), body, who, found, **sources)
