"""What must be held back: whatever a shape can become, its beginning is seen as one at every character."""

from __future__ import annotations

import functools
import random
import re

import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from compliance.detectors.automaton import options
from compliance.detectors.model import Pattern
from compliance.detectors.openings import Openings, _Group, _Node, _One, _Reader, _Repeated, beginnings
from compliance.detectors.patterns import PATTERNS

ALL = Openings(PATTERNS)


@functools.cache
def _bytes_of(one: str) -> list[bytes]:
    matches = re.compile(one.encode("ascii"), re.DOTALL).fullmatch
    return [bytes([code]) for code in (*range(32, 127), 10, *range(128, 256)) if matches(bytes([code]))]


def _written(node: _Node, dice: random.Random) -> bytes:
    """Something that this part of a shape matches."""
    match node:
        case _One(text=text, width=width):
            return dice.choice(_bytes_of(text)) if width else b""
        case _Group(head=head, branches=branches):
            made = b"".join([_written(part, dice) for part in dice.choice(branches)])
            return made if "i" not in head or dice.random() < 0.5 else made.swapcase()
        case _Repeated(inner=inner, least=least, most=most):
            times = dice.randint(least, min(least + 3, least + 3 if most is None else most))
            return b"".join([_written(inner, dice) for _ in range(times)])


def _text(pattern: Pattern, dice: random.Random) -> str | None:
    made = b"".join([_written(part, dice) for part in dice.choice(_Reader(pattern.shape, exact=True).branches())])
    try:
        return made.decode()
    except UnicodeDecodeError:
        return None


LOCATED = [(pattern, re2.compile(pattern.shape.encode("ascii"), options()).search) for pattern in PATTERNS]


@settings(max_examples=12)
@given(st.integers(0, 2**32))
def test_no_character_of_an_identifier_is_released_before_it_is_whole(seed: int) -> None:
    dice = random.Random(seed)
    for pattern, search in LOCATED:
        text = _text(pattern, dice)
        match = search(text.encode()) if text is not None else None
        if text is None or match is None:  # two borders that do not go together
            continue
        start = len(text.encode()[: match.start(1)].decode("utf-8", "ignore"))
        end = len(text.encode()[: match.end()].decode("utf-8", "ignore"))
        last = len(text.encode()[: match.end(1)].decode("utf-8", "ignore"))
        for cut in {start + 1, last, end - 1, *(dice.randint(start + 1, end) for _ in range(4))}:
            if start < cut < end or cut == last < len(text) + 1:
                held = ALL.find(text[:cut])
                assert held <= start, (pattern.type, text[:cut], text[held:cut], text[start:cut])


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("It is 078-05-", " 078-05-"),
        ("It is 078-05-1120", " 078-05-1120"),
        ("It is 078-05-1120. And", " And"),
        ("It is ０７８－０５－", " ０７８－０５－"),
        ("It is 0\u200b7\u200b8\u200b-0", " 0\u200b7\u200b8\u200b-0"),
        ("one two three fo", "one two three fo"),
        ("your SSN: ", ""),
        ("naïve 🙂 and plain, ", ""),
        ("电话 +86 138", " +86 138"),
        ("", ""),
    ],
)
def test_what_is_held(text: str, held: str) -> None:
    assert text[ALL.find(text) :] == held


def test_a_script_without_spaces_is_not_held_for_long() -> None:
    text = "看起来不错我们今天去公园散步然后回家吃饭" * 20
    assert len(text) - ALL.find(text) <= 64


def test_a_shape_that_is_not_understood_holds_what_it_may_reach() -> None:
    odd = Pattern("odd", r"(\pL{3} \pL{3} \d)", back=40)
    text = "and abc def "
    assert Openings([odd]).find(text) == 0
    assert Openings([odd]).find("x" * 100 + "\n" + text) == 101
    assert "abc def"[Openings([Pattern("odd", r"(?:^|\W)(abc \d{4})", back=40)]).find("abc def") :] == "def"


@pytest.mark.parametrize(
    ("shape", "text", "held"),
    [
        (r"(\d{3},\d{4})", "it is 123,45", "123,45"),
        (r"([A-Z]\[\d\]\d{2})", "it is B[1]", "B[1]"),
        (r"(?i)(ab cd)", "it is\nAB c", "AB c"),
        (r"(\x{41}\x{42} \d{3})", "so\nAB 1", "AB 1"),
        (r"((?:x|y){2} [[:digit:]]{3}[^]]\b)", "so xy 12", "xy 12"),
    ],
)
def test_shapes_of_an_operators_own(shape: str, text: str, held: str) -> None:
    assert text[Openings([Pattern("own", shape, back=512)]).find(text) :] == held


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        (r"(a b)", ["(?:(?:(?:a|a(?: |b))|(?:a b)))"]),
        (r"(?:^|\W)(\d{3})(?:\z|\D)", []),
    ],
)
def test_beginnings_of_a_shape(shape: str, wanted: list[str]) -> None:
    found = beginnings(shape)
    assert bool(found) == bool(wanted)
    for text in ("a", "a ", "a b") if wanted else ():
        assert re2.compile(rf"(?:{found[0]})\z".encode(), options()).search(text.encode()) is not None
