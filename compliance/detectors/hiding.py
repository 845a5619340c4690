"""Characters that stand for others: invisible ones, control characters, marks over others, other scripts' digits,
full-width and circled forms (Unicode NFKC), every dash and space, look-alikes of other scripts, and text that is shown
backwards.

Only the characters named here are touched, so the cost is theirs, not the text's.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

_INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u20e3\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e001f\U000e007f-\U000e01ef"
)
_SPACES = "\u00a0\u1680\u2000-\u200a\u202f\u205f\u2800\u3000"
_DASHES = (
    "\u058a\u05be\u1806\u2010-\u2015\u2043\u207b\u208b\u2212\u2e3a\u2e3b\u301c\u30fb\ufe31\ufe32\ufe58\ufe63\uff0d"
)
_DOTS = "\u00b7\u2024\u2027\u3002\uff0e\uff61"
_FORMS = (
    "\u00aa\u00b2\u00b3\u00b9\u00ba\u02b0-\u02b8\u1d2c-\u1d6a\u2070-\u209c\u2100-\u2188\u2460-\u24ff\u2776-\u2793\u3251-\u325f"
    "\ufb00-\ufb06\ufe50-\ufe6b\uff01-\uff5e"
)
# Digits and letters beyond the first plane lie in one wide range, and a hidden ASCII that models read (Unicode,
# "Tags"), more invisible ones and private use in another: `re` tests each such range at every character, so two are
# cheaper than thirty.
_BEYOND = "\U00010480-\U0001ffff\U00032000-\U0010ffff"
_NOTHING = frozenset(("Cc", "Cf", "Co", "Cn", "Mn", "Me", "Zl", "Zp"))
"""Categories (Unicode, table 12) of what shows nothing of its own, or hangs on another character."""
_ODD = "\ufffc\ufffd"
"""What stands where something could not be shown."""
_MAX_KNOWN = 8192

Replacement = tuple[int, int, str]
"""(start, end, what stands there instead), in order and apart."""


def _digits() -> str:
    """The decimal digits of all scripts of the first plane.  A block of ten starts at a code ending in 0 or 6."""
    return "".join(
        f"{chr(code)}-{chr(code + 9)}"
        for code in sorted((*range(0x660, 0xAC00, 16), *range(0x666, 0xAC00, 16)))
        if unicodedata.decimal(chr(code), None) == 0
    )


def _unseen() -> tuple[str, str]:
    """Of the first plane: (control, format, private and unassigned characters and line separators, marks)."""
    known = re.compile(f"[\\t\\n\\r{_INVISIBLE}{_SPACES}{_DASHES}{_DOTS}{_FORMS}]")
    others: list[int] = []
    marks: list[int] = []
    for code in (
        *range(0x3100),
        *range(0x4DB6, 0x4DC0),
        *range(0xA48D, 0xAC00),
        *range(0xD7A4, 0xD800),
        *range(0xE000, 0x10000),
    ):
        category = unicodedata.category(chr(code))
        if category in _NOTHING and known.match(chr(code)) is None:
            (marks if category in ("Mn", "Me") else others).append(code)
    return _ranges(others), _ranges(marks)


def _ranges(codes: list[int]) -> str:
    """Ascending codes as the inside of a character class."""
    runs: list[list[int]] = []
    for code in codes:
        if runs and code == runs[-1][1] + 1:
            runs[-1][1] = code
        else:
            runs.append([code, code])
    return "".join([f"{re.escape(chr(first))}-{re.escape(chr(last))}" for first, last in runs])


_UNSEEN, _MARKS = _unseen()
HIDING = re.compile(f"[{_INVISIBLE}{_UNSEEN}{_ODD}{_SPACES}{_DASHES}{_DOTS}{_FORMS}{_digits()}{_BEYOND}]")
"""One character that may not be what it stands for."""

CONTROLS = "controls"
GATES: tuple[tuple[str, str], ...] = ((CONTROLS, r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"),)
"""(name, shape) of what ordinary text of ASCII has not."""
_ORDINARY_ASCII = bytes((9, 10, 13, *range(32, 127)))
_FEW = 16
"""Hiding characters, each other than the rest, that are looked for one by one: `str.find` is 50 times as fast as `re`."""

_INVISIBLE_RE = re.compile(f"[{_INVISIBLE}{_UNSEEN}{_ODD}]")
_COLOURED = re.compile(rf"\x1b\[[0-?]{{0,32}}[ -/]{{0,4}}[@-~]|{HIDING.pattern}")
"""The same, and control sequences of a terminal (ECMA-48, 5.4)."""
_KINDS = ((re.compile(f"[{_SPACES}]"), " "), (re.compile(f"[{_DASHES}]"), "-"), (re.compile(f"[{_DOTS}]"), "."))
_known: dict[str, str] = {}
_alone: dict[str, bool] = {}


# Letters of other scripts that look like a letter or digit of ASCII: the common ones of Unicode's confusables
# (UTS 39) in the scripts that keyboards have.
_LOOKS = (
    ("АВЕЅЗІЈКМНОРСТУХЬбаеорсухѕіјԁԛԝһӏӀпгѵҮү", "ABES3IJKMHOPCTYXb6aeopcyxsijdqwhlInrvYy"),
    ("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧοναρικχγυϲϹϳ", "ABEZHIKMNOPTYXovapikxyucCj"),
    ("օՏսհոզց", "oSuhnqg"),
    ("ᎪᏴᏟᎠᎬᎻᎫᏦᏞᎷᏢᏚᎢᏙᏔᏃ", "ABCDEHJKLMPSTVWZ"),
    ("ıɑɡǀᴏᴠᴡᴢꜱ", "iaglovwzs"),
)
_LIKE = {ord(other): plain for others, plains in _LOOKS for other, plain in zip(others, plains, strict=True)}
_SCRIPT = {other: index for index, (others, _) in enumerate(_LOOKS) for other in others}
_LIKE_RE = re.compile(f"[{''.join(map(re.escape, _SCRIPT))}]")
_LIKE_WORD = re.compile(rf"(?<!\w)[A-Za-z0-9_{''.join(_SCRIPT)}]+(?!\w)")
_MARK = re.compile(f"[{_MARKS}]")
_MARKED = re.compile(f"(?<=[ -~])[{_MARKS}]+")
"""Marks over characters of ASCII: struck through, underlined, ringed."""
OVERRIDE = "\u202e"
"""What follows is shown from right to left."""
_TURNED = re.compile("\u202e([^\u202c\u202e\n]*)\u202c?")


def plain_form(text: str) -> str:
    """`text` with every hiding character as what it stands for; the invisible ones gone."""
    return HIDING.sub(lambda match: _plain(match.group()), text)


def characters(text: str, hints: frozenset[str] = frozenset()) -> list[Replacement]:
    """What stands for other characters, as what it stands for."""
    if text.isascii() and CONTROLS not in hints:
        return []
    odd = [character for character in _distinct(text) if not _stands_for_itself(character)]
    if not odd:
        return []
    hiding = [character for character in odd if HIDING.match(character)]
    if "\x1b" in text or len(hiding) > _FEW:
        found = [
            (match.start(), match.end(), plain)
            for match in (_COLOURED if "\x1b" in text else HIDING).finditer(text)
            if (plain := _plain(match.group())) != match.group()  # an emoji hides nothing
        ]
    else:
        found = [(at, at + 1, _plain(character)) for character in hiding for at in _places(text, character)]
    if any(map(_MARK.match, odd)):
        found += [(match.start(), match.end(), "") for match in _MARKED.finditer(text)]
    if not _SCRIPT.keys().isdisjoint(odd):
        found += _alike(text)
    found.sort()
    return found


def shows_all(text: str) -> bool:
    """Does `characters` find nothing, for sure?  Cheap where the characters of a text were met before."""
    return all(map(_stands_for_itself, _distinct(text)))


def _distinct(text: str) -> set[str]:
    """The different characters of `text` but for the ordinary ones of ASCII."""
    return set(text.encode("utf-8", "surrogatepass").translate(None, _ORDINARY_ASCII).decode("utf-8", "surrogatepass"))


def _stands_for_itself(character: str) -> bool:
    """Is it no hiding character, no mark and no look-alike?  An emoji hides nothing."""
    alone = _alone.get(character)
    if alone is None:
        alone = (
            (HIDING.match(character) is None or _plain(character) == character)
            and _MARK.match(character) is None
            and character not in _SCRIPT
        )
        if len(_alone) < _MAX_KNOWN:
            _alone[character] = alone
    return alone


def _places(text: str, character: str) -> Iterator[int]:
    at = text.find(character)
    while at >= 0:
        yield at
        at = text.find(character, at + 1)


def _alike(text: str) -> list[Replacement]:
    """Look-alikes in words that mix scripts, or that stand in a text of mostly ASCII."""
    mostly = 2 * len(text.encode("ascii", "ignore")) > len(text)
    found: list[Replacement] = []
    for word in _LIKE_WORD.finditer(text):
        letters = word.group()
        if letters.isascii():
            continue
        if mostly or len({_SCRIPT.get(letter, -1) for letter in letters}) > 1:
            at = word.start()
            found += [
                (at + index, at + index + 1, _LIKE[ord(letter)])
                for index, letter in enumerate(letters)
                if letter in _SCRIPT
            ]
    return found


def turned(text: str, _hints: frozenset[str] = frozenset()) -> list[Replacement]:
    """What an override shows from right to left (UAX 9, RLO), in the order in which it is seen."""
    if OVERRIDE not in text:
        return []
    return [(match.start(), match.end(), match.group(1)[::-1]) for match in _TURNED.finditer(text)]


def _plain(character: str) -> str:
    plain = _known.get(character)
    if plain is None:
        plain = _work_out(character)
        if len(_known) < _MAX_KNOWN:
            _known[character] = plain
    return plain


def _work_out(character: str) -> str:
    if len(character) > 1 or _INVISIBLE_RE.match(character):
        return ""
    for kind, plain in _KINDS:
        if kind.match(character):
            return plain
    if "\U000e0020" <= character <= "\U000e007e":
        return chr(ord(character) - 0xE0000)
    if character > "\uffff" and unicodedata.category(character) in _NOTHING:
        return ""
    digit = unicodedata.digit(character, None)
    return str(digit) if digit is not None else unicodedata.normalize("NFKC", character)
