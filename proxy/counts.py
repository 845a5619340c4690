"""What was counted of an attempt whose engine did not say its tokens.  Data only.

Whoever counts gives it to whoever estimates the rest: `proxy.counting` and `proxy.estimates`.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from engines.model import Usage


class Counts(Struct, frozen=True):
    """What was counted of an attempt: by its engine's own tokenizer, or (a cloud's) by tiktoken; None: it was not."""

    prompt: int | None = None
    output: int | None = None  # of the first `looked_at` characters of the answer
    looked_at: int = 0


class Said(Protocol):
    """What is known of an answer when it is over."""

    usage: Usage | None
    text_length: int  # characters that the model wrote
    kept: list[str] | None  # the first of them

    @property
    def usage_final(self) -> bool: ...


NOT_COUNTED = Counts()
