"""How a label stands before its value: the parts that labelled shapes are made of.

A label reaches its value over punctuation, quotes, the border of two fields and a few words, not over prose.
All parts are RE2 syntax over UTF-8 bytes; a letter beyond ASCII counts as punctuation here.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from compliance.detectors.model import Pattern

_TAG = r"</?[A-Za-z][^<>]*>"
_FILLED = (
    r"n(?:umbers?|um|br|o|rs?)|ids?|codes?|is|was|values?|on (?:file|record)|which|w(?:ould|ill) be|here|below|equals"
    r"|(?:of|for) (?:[a-z]{2,5} )?(?:patient|client|member|pt)"
)
_ASIDE = (
    rf"{_TAG}"
    r"|\([a-z][^()\d\n]*\)"  # (verified by the clerk)
    r"|[a-z]+=[\"'][^\"'<>]*[\"']"  # the rest of a tag whose name is the label: <mrn type="x">
    r"|(?:system|type|use)[\"']?\s{0,2}[:\n][\s\"']*[^\s\"']+[\"',\s]+value"
)
"""What may stand between a label and its value beside punctuation: tags, brackets, the other fields of a JSON object.

Without counts: each would cost the automata as many copies, and the window bounds what they take.
"""

GAP = rf"(?i:(?:[\W_]*(?:{_FILLED}|of|ends|ending|{_ASIDE}))*[\W_]*)"
"""Between a label and digits."""
WORD_GAP = rf"(?i:(?:[\W_]+(?:{_FILLED})|[\W_]*(?:{_ASIDE}))*(?:[\W_]+|{_TAG}))"
"""Between a label and a token of letters and digits: at least one character that is neither."""
SIGN_GAP = (
    r"(?i:[\W_]{0,3}(?:number|numbers|num|nbr|no|nr|id|ids)[\W_]{1,12}(?:is[\W_]{1,4})?|[ \t]{0,2}[:#=\n][\W_]{0,10})"
)
"""The same for a label that is an ordinary word: a sign, or a word for `number`, makes it one."""

_WORD_AFTER = r"\z|(?:s|number|num|nbr|no|nr|id|code|is|was|of|ends|ending|value)(?:[^a-z]|\z|number|no|id|is|of)"
_TAIL = rf"(?:[^a-z]|{_WORD_AFTER})"
"""What may follow a label: not the rest of a longer word."""
_KEY_TAIL = rf"(?:[^a-z\n]|\n[^r]|{_WORD_AFTER})"
"""The same of `messages`, which is a key of every chat: there `role` follows it, and no value of its own."""

TOKEN = r"([A-Za-z0-9](?:[A-Za-z0-9]|[\-/._]{1,2}[A-Za-z0-9]){3,19})(?:\z|[^A-Za-z0-9])"
MIXED = r"([A-Za-z]{1,6}[\-/]?\d{4,10}(?:[\-/][A-Za-z0-9]{1,8})?|\d{6,12})(?:\z|[^A-Za-z0-9])"
"""A token that nobody takes for a word, an amount or a year."""

_BEFORE = r"(?:^|[^A-Za-z0-9])"


def label(*words: str, camel: bool = True) -> str:
    """A label that begins at a word's border, or (`camel`) as a part of a name in camel case.

    Words are RE2 syntax in lower case.
    """
    plain = [word for word in words if word.isalpha() and len(word) > 2] if camel else []
    shape = f"(?i:{_BEFORE}(?:{'|'.join(words)}))"
    if plain:
        inner = "|".join(f"{word.capitalize()}|{word.upper()}" for word in plain)
        shape = f"(?:{shape}|[a-z](?:{inner}))"
    return shape


_BETWEEN = r"[^A-Za-z0-9]*"
"""Between two digits that a label vouches for: anything but letters, pictures and letters beyond ASCII included."""
_TAGGED = r"(?:[^A-Za-z0-9]*|</?[A-Za-z]{1,6}>)"
"""The same, or a tag: `512<br>44<br>9182`."""


def number(least: int, most: int | None = None) -> str:
    """`least` to `most` digits, however they are set: a label vouches for them.  As group 1.

    A count that is not fixed ends at what separates sentences and lists: `83920174, 45 years`.
    """
    if most is None or most == least:
        return rf"(\d(?:{_BETWEEN}\d){{{least - 1}}})(?:\z|\D)"
    return rf"(\d(?:[\s.\-/]{{0,3}}\d){{{least - 1},{most - 1}}})(?:\z|\D)"


def tagged(count: int) -> str:
    """The same with tags between."""
    return rf"(\d(?:{_TAGGED}\d){{{count - 1}}})(?:\z|\D)"


def parted(least: int, most: int) -> str:
    """The same for a count that is not fixed, with anything between: for a check such as `evenly`."""
    return rf"(\d(?:{_BETWEEN}\d){{{least - 1},{most - 1}}})(?:\z|\D)"


_PARTS = re.compile(r"[^0-9]+")


def evenly(text: str) -> bool:
    """Digits in parts that one and the same sign separates, and not as a list's or a sentence's are."""
    between = set(_PARTS.findall(text))
    return len(between) == 1 and between.isdisjoint((", ", "; ", ": ", "\n", ". ", " ("))


def spread(shape: str, length: int) -> str:
    """`length` capitals or digits, however they are set, or `shape`, whole.  As group 1."""
    return rf"({shape}|[A-Z0-9](?:[\s.\-]{{0,3}}[A-Z0-9]){{{length - 1}}})(?:\z|[^A-Za-z0-9])"


def trigger_of(words: str, *, key: bool = False) -> str:
    """What a label's occurrence ends with: shapes of one label share it.  `key`: of `messages`."""
    return words + (_KEY_TAIL if key else _TAIL)


def labelled(
    kind: str,
    words: str,
    value: str,
    check: Callable[[str], bool] | None = None,
    *,
    gap: str = GAP,
    confidence: float = 0.95,
    digits: int = 2,
    trigger: str | tuple[str, ...] | None = None,
) -> Pattern:
    """A value that its label vouches for.  `trigger`: where it is not that of the label."""
    return Pattern(
        kind, words + gap + value, check, confidence, trigger=trigger or trigger_of(words), ahead=320, digits=digits
    )


_OWNED = (
    r"(?i:[\W_]{1,4}(?:is|was|being|as)(?:[\W_]{1,4}(?:my|his|her|their|our|your|the|an?|patient'?s?|client'?s?|member'?s?)){0,3}"
    r"|[\W_]{0,2}[=(]|[\W_]{1,2}(?:my|his|her|their))"
)


def called(kind: str, words: str, value: str) -> Pattern:
    """A value before its label: `... is my SSN`."""
    shape = rf"(?:^|[^\w.\-/])({value}){_OWNED}[\W_]{{0,3}}"
    return Pattern(kind, shape + words, has_digit, 0.9, trigger=trigger_of(words), back=160)


def has_digit(text: str) -> bool:
    """A token with at least two digits: not a word, nor one with a number behind it."""
    return sum(character.isdigit() for character in text) >= 2
