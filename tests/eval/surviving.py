"""Does a value of an evaluation set stand in what was received?

It is searched for raw, decoded (the strings of a JSON body), normalised (NFKC, small letters, one space) and de-spaced
(letters and digits alone).  A value stands at words' borders, so that a state of two letters is not found in the
middle of a word; without spaces there are no borders, so there only values of `LEAST` letters and digits are searched
for.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

LEAST = 6
_NOT_TEXT = re.compile(r"[^\w]|_")
NO_IDENTIFIERS = frozenset(("email",))
"""Labels of the set that are a word for an identifier and not one."""


def strings_of(value: Any) -> Iterator[str]:
    """All strings of a JSON value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from strings_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings_of(inner)


def normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def despaced(text: str) -> str:
    return _NOT_TEXT.sub("", normal(text))


def survives(value: str, received: bytes, texts: Sequence[str]) -> bool:
    """Does a value stand in what was received?"""
    if value.encode() in received and _stands(value, received.decode("utf-8", "replace")):
        return True
    if any(_stands(normal(value), normal(text)) for text in texts):
        return True
    bare = despaced(value)
    return len(bare) >= LEAST and any(bare in despaced(text) for text in texts)


def _stands(value: str, text: str) -> bool:
    """At words' borders."""
    if value not in text:
        return False
    return re.search(rf"(?<![^\W_]){re.escape(value)}(?![^\W_])", text) is not None
