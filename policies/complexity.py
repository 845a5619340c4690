"""The first routing decision: length and structure choose between a small and a large model.

A declared rule, not a trained score: it says `uncalibrated` of itself, and is replaced by a scorer that was
calibrated on an operator's own traffic.
"""

from __future__ import annotations

import re2
from msgspec import Struct

from policies.model import Facts

LONG_AT = 1000
"""Tokens of prompt from which a request counts as large, unless configured."""
MANY_MESSAGES = 12
SAMPLE = 600
"""Characters of text that structure is read from."""

_CODE = re2.compile(  # linear in the text, and a tenth of the time that `re` takes for so many alternatives
    r"(?m)```|\bdef \w+\(|\bclass \w+[:({]|#include\b|\bfunction \w*\(|=>|</\w+>|\bSELECT\b.{1,80}\bFROM\b|^\s*import \w"
)


class Routing(Struct, frozen=True):
    """Which size a request asks for, and why in words."""

    size: str  # small or large
    why: str


def estimate_tokens(size_bytes: int) -> int:
    """Tokens of a text of so many bytes: four bytes a token.

    Overestimates English by about a tenth, underestimates digits and CJK: good for routing, not for money.
    """
    return size_bytes // 4


def looks_like_code(sample: str) -> bool:
    """Does this text (at most `SAMPLE` characters of it are read) hold code?"""
    return _CODE.search(sample[:SAMPLE]) is not None


def size(facts: Facts, *, long_at: int = LONG_AT) -> Routing:
    """Short and plain goes to the small model; long, with code, with tools or far into a conversation to the large one."""
    if facts.prompt_tokens >= long_at:
        return Routing("large", f"about {facts.prompt_tokens} tokens, {long_at} or more")
    if facts.has_tools:
        return Routing("large", "uses tools")
    if facts.has_code:
        return Routing("large", "holds code")
    if facts.messages > MANY_MESSAGES:
        return Routing("large", f"{facts.messages} messages")
    return Routing("small", f"about {facts.prompt_tokens} tokens, under {long_at}, plain")
