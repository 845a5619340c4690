"""How a label stands before its value: the parts that labelled shapes are made of.

A label reaches its value over punctuation, quotes, the border of two fields and a few words, not over prose.
All parts are RE2 syntax over UTF-8 bytes; a letter beyond ASCII counts as punctuation here.
"""

from __future__ import annotations

from collections.abc import Callable

from compliance.detectors.automaton import Pattern

GAP = r"(?i:(?:[\W_]{0,6}(?:number|num|nbr|no|nr|id|code|is|was|of|ends|ending|value)s?){0,3}[\W_]{0,12})"
"""Between a label and digits."""
WORD_GAP = r"(?i:(?:[\W_]{1,6}(?:number|num|nbr|no|nr|id|ids|code|is|was|value)){0,3}[\W_]{1,12})"
"""Between a label and a token of letters and digits: at least one character that is neither."""
SIGN_GAP = (
    r"(?i:[\W_]{0,3}(?:number|numbers|num|nbr|no|nr|id|ids)[\W_]{1,12}(?:is[\W_]{1,4})?|[ \t]{0,2}[:#=\n][\W_]{0,10})"
)
"""The same for a label that is an ordinary word: a sign, or a word for `number`, makes it one."""

_TAIL = r"(?:[^a-z]|\z|(?:s|number|num|nbr|no|nr|id|code|is|was|of|ends|ending|value)(?:[^a-z]|\z|number|no|id|is|of))"
"""What may follow a label: not the rest of a longer word."""

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


def number(least: int, most: int | None = None) -> str:
    """`least` to `most` digits, however they are set: a label vouches for them.  As group 1."""
    times = f"{least - 1}" if most is None or most == least else f"{least - 1},{most - 1}"
    return rf"(\d(?:[\s.\-/]{{0,3}}\d){{{times}}})(?:\z|\D)"


def spread(shape: str, length: int) -> str:
    """`length` capitals or digits, however they are set, or `shape`, whole.  As group 1."""
    return rf"({shape}|[A-Z0-9](?:[\s.\-]{{0,3}}[A-Z0-9]){{{length - 1}}})(?:\z|[^A-Za-z0-9])"


def labelled(
    kind: str,
    words: str,
    value: str,
    check: Callable[[str], bool] | None = None,
    *,
    gap: str = GAP,
    confidence: float = 0.95,
    digits: int = 2,
) -> Pattern:
    """A value that its label vouches for."""
    return Pattern(kind, words + gap + value, check, confidence, trigger=words + _TAIL, digits=digits)


def has_digit(text: str) -> bool:
    """A token with at least two digits: not a word, nor one with a number behind it."""
    return sum(character.isdigit() for character in text) >= 2
