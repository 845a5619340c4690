"""The client's labels for reports: `x-spillway-tags: k=v, k=v` and `x-spillway-class`, bounded.  Pure.

A label is a name of the application's, not text: what does not look like a short name is stored as a pseudonym under the
instance's key, so that lines can still be summed by it, and nobody can read it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping

TAGS_HEADER = "x-spillway-tags"
CLASS_HEADER = "x-spillway-class"
MOST = 8
"""Tags of one request; further ones are left out."""
LONGEST = 1_024
"""Characters of the header that are read."""
REMEMBERED = 1_024
"""Headers whose form is remembered: an application sends few different ones."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,31}", re.ASCII)
_VALUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/+-]{0,47}", re.ASCII)
_MOST_DIGITS = 6  # in a value: numbers that were issued to somebody are longer


class Labels:
    """What the headers of one worker's requests say, in the form that is stored."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._known: dict[str, tuple[str, ...]] = {}
        self._classes: dict[str, str] = {}

    def tags(self, headers: Mapping[str, str]) -> tuple[str, ...]:
        """`name=value`, sorted by name; of a name that is there twice, the last value."""
        header = headers.get(TAGS_HEADER)
        if not header:
            return ()
        known = self._known.get(header)
        if known is None:
            known = self._read(header[:LONGEST])
            if len(self._known) < REMEMBERED and len(header) <= LONGEST:
                self._known[header] = known
        return known

    def request_class(self, headers: Mapping[str, str]) -> str:
        """The class that the request asks for; empty: none."""
        header = headers.get(CLASS_HEADER)
        if not header:
            return ""
        known = self._classes.get(header)
        if known is None:
            known = header if _NAME.fullmatch(header) and _few_digits(header) else self._pseudonym(header)
            if len(self._classes) < REMEMBERED and len(header) <= LONGEST:
                self._classes[header] = known
        return known

    def _read(self, header: str) -> tuple[str, ...]:
        found: dict[str, str] = {}
        for part in header.split(","):
            name, _, value = (word.strip() for word in part.partition("="))
            if not _NAME.fullmatch(name) or not _few_digits(name) or (len(found) == MOST and name not in found):
                continue
            plain = not value or (_VALUE.fullmatch(value) and _few_digits(value))
            found[name] = value if plain else self._pseudonym(value)
        return tuple([f"{name}={found[name]}" for name in sorted(found)])

    def _pseudonym(self, value: str) -> str:
        return "~" + hmac.new(self._key, b"tag\0" + value.encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:16]


def _few_digits(text: str) -> bool:
    return sum(map(str.isdigit, text)) <= _MOST_DIGITS
