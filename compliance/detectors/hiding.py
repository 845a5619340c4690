"""Light forms that digits and addresses hide in, undone: invisible characters, other scripts' digits,
full-width and circled forms (Unicode NFKC), every dash and space.

Only the characters named here are touched, so the cost is theirs, not the text's.  The offsets back to the
original are worked out only when something was found.
"""

from __future__ import annotations

import re
import unicodedata

_INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u20e3\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e001f\U000e007f-\U000e01ef"
)
_SPACES = "\u00a0\u1680\u2000-\u200a\u202f\u205f\u2800\u3000"
_DASHES = (
    "\u058a\u05be\u1806\u2010-\u2015\u2043\u207b\u208b\u2212\u2e3a\u2e3b\u301c\u30fb\ufe31\ufe32\ufe58\ufe63\uff0d"
)
_DOTS = "\u00b7\u2024\u2027\u3002\uff0e\uff61"
_FORMS = "\u00b2\u00b3\u00b9\u2070-\u209c\u2460-\u24ff\u2776-\u2793\u3251-\u325f\ufe50-\ufe6b\uff01-\uff5e"
# Digits and letters beyond the first plane lie in one wide range, and a hidden ASCII that models read (Unicode,
# "Tags") in another: `re` tests each such range at every character, so two are cheaper than thirty.
_BEYOND = "\U00010480-\U0001fbff\U000e0000-\U000e01ef"
_MAX_KNOWN = 8192


def _digits() -> str:
    """The decimal digits of all scripts of the first plane.  A block of ten starts at a code ending in 0 or 6."""
    return "".join(
        f"{chr(code)}-{chr(code + 9)}"
        for code in range(0x660, 0xAC00)
        if code % 16 in (0, 6) and unicodedata.decimal(chr(code), None) == 0
    )


HIDING = re.compile(f"[{_INVISIBLE}{_SPACES}{_DASHES}{_DOTS}{_FORMS}{_digits()}{_BEYOND}]")
"""One character that may not be what it stands for."""

_INVISIBLE_RE = re.compile(f"[{_INVISIBLE}]")
_KINDS = ((re.compile(f"[{_SPACES}]"), " "), (re.compile(f"[{_DASHES}]"), "-"), (re.compile(f"[{_DOTS}]"), "."))
_known: dict[str, str] = {}


def plain_form(text: str) -> str:
    """`text` with every hiding character as what it stands for; the invisible ones gone."""
    return HIDING.sub(lambda match: _plain(match.group()), text)


def offsets_of(text: str) -> list[int]:
    """For each character of `plain_form(text)`, the offset in `text` that it came from."""
    offsets: list[int] = []
    at = 0
    for match in HIDING.finditer(text):
        start = match.start()
        offsets.extend(range(at, start))
        offsets.extend([start] * len(_plain(match.group())))
        at = start + 1
    offsets.extend(range(at, len(text)))
    return offsets


def _plain(character: str) -> str:
    plain = _known.get(character)
    if plain is None:
        plain = _work_out(character)
        if len(_known) < _MAX_KNOWN:
            _known[character] = plain
    return plain


def _work_out(character: str) -> str:
    if _INVISIBLE_RE.match(character):
        return ""
    for kind, plain in _KINDS:
        if kind.match(character):
            return plain
    if "\U000e0020" <= character <= "\U000e007e":
        return chr(ord(character) - 0xE0000)
    digit = unicodedata.digit(character, None)
    return str(digit) if digit is not None else unicodedata.normalize("NFKC", character)
