"""Identifiers that are spelled: digits as words, one character at a time, with letters for digits, over two lines,
backwards.

These are ways of writing, not codes: each is undone only where its shape says that a number or an address is meant,
and where the shapes of the detectors do not allow for it themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import re2

from compliance.detectors.hiding import Replacement

Border = Callable[[int], bool]
"""Is the line end at this offset the border of two fields?"""

_UNITS = {
    "zero": "0", "oh": "0", "nought": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6",
    "seven": "7", "eight": "8", "nine": "9", "niner": "9",
    "cero": "0", "uno": "1", "una": "1", "dos": "2", "tres": "3", "cuatro": "4", "cinco": "5", "seis": "6", "siete": "7",
    "ocho": "8", "nueve": "9",
    "null": "0", "eins": "1", "zwei": "2", "zwo": "2", "drei": "3", "vier": "4", "fünf": "5", "fuenf": "5", "sechs": "6",
    "sieben": "7", "acht": "8", "neun": "9",
    "zéro": "0", "un": "1", "deux": "2", "trois": "3", "quatre": "4", "cinq": "5", "sept": "7", "huit": "8", "neuf": "9",
}  # fmt: skip
_TEENS = {
    "ten": "10", "eleven": "11", "twelve": "12", "thirteen": "13", "fourteen": "14", "fifteen": "15", "sixteen": "16",
    "seventeen": "17", "eighteen": "18", "nineteen": "19",
}  # fmt: skip
_TENS = {
    "twenty": "2", "thirty": "3", "forty": "4", "fifty": "5", "sixty": "6", "seventy": "7", "eighty": "8", "ninety": "9",
}  # fmt: skip
_TIMES = {"double": 2, "triple": 3}
_BETWEEN = {"dash": "-", "hyphen": "-", "minus": "-", "guion": "-", "guión": "-", "strich": "-", "tiret": "-",
            "dot": ".", "point": ".", "punto": ".", "punkt": ".", "space": " "}  # fmt: skip
NUMBER_WORDS = frozenset((*_UNITS, *_TEENS, *_TENS, *_TIMES, *_BETWEEN))
_ALL_WORDS = "|".join(sorted(NUMBER_WORDS, key=len, reverse=True))
_LEAST_WORDS = 4

_SINGLE = r"[A-Za-z0-9@]"
_SPREAD = r"[._*|\-\n~]{1,3}"
_VISIBLE = "[!-~]"
_LEAST_SINGLES = 7
_LIKE_DIGITS = str.maketrans("OoQDIlZzSsGbBgq", "000011225566899")
_OUTER = r"[OoIl]"
"""Letters for digits at either end, where others are a prefix or a series."""
_LETTER = r"[OoQDIlZzSsGbBgq]"

_LANGUAGES = (
    "zero oh one two three four five six seven eight nine",
    "cero uno una dos tres cuatro cinco seis siete ocho nueve",
    "null eins zwei zwo drei vier fünf fuenf sechs sieben acht neun",
    "zéro un deux trois quatre cinq six sept huit neuf",
)
_ODD_OCTET = r"(?:0\d\d?|2[6-9]\d|25[6-9]|[3-9]\d\d)"
GATES: tuple[tuple[str, str], ...] = (
    *(
        ("words", f"(?i){one}{gap}{two}")
        for language in _LANGUAGES
        for one in language.split()
        for two in language.split()
        for gap in (" ", "-", ", ", "\n")
    ),
    ("words", rf"(?i)(?:{'|'.join(_TENS)})[ \-](?:{'|'.join((*_UNITS, *_TENS, *_TEENS))})[ ,\-]"),
    ("letters", rf"(?:^|[^A-Za-z0-9]){_OUTER}+[ .\-]?\d[ .\-]?\d"),
    (
        "backwards",
        r"\d{2}[A-Z9][A-Z](?:$|[^A-Za-z0-9])|[^A-Za-z0-9][A-Z]\d{8}[^A-Za-z0-9]"
        r"|(?:moc|gro|ten|ude|vog|ed|oc|oi)\.[A-Za-z0-9]",
    ),
    ("singles", rf"(?:[_*|~]{_SINGLE}){{3}}|" + " [!-~]" * 4 + " "),
    (  # without a count: that takes a fifth off the whole pass
        "letters",
        rf"\d(?:[ .\-]?{_LETTER})+[ .\-]?\d|\d[ .\-]?\d[ .\-]?{_OUTER}+(?:$|[^A-Za-z0-9])",
    ),
    ("lines", r"\d ?-?\r?\n[ \t]{0,8}-?\d"),
    ("backwards", r"\d{4}-\d{2}-\d{3}|\.\d{1,3}\.\d{1,3}\."),
)
"""(name, shape) of what ordinary text seldom has."""

# Searched by RE2, which looks at each character once: in text that passed a gate by chance they are looked for in vain.
_RUN = re2.compile(
    rf"(?i)\b(?:{_ALL_WORDS}|\d{{1,4}})(?:[\s,;.\-/]{{1,3}}(?:and\s)?(?:{_ALL_WORDS}|\d{{1,4}})){{{_LEAST_WORDS - 1},}}\b"
)
_SINGLES = re2.compile(
    rf"\b({_SINGLE}(?:{_SPREAD}{_SINGLE}){{{_LEAST_SINGLES - 1},}})\b"
    rf"|(?:^|[\s(\"'=:>\[{{])({_VISIBLE}(?:[ \t]{{1,3}}{_VISIBLE}){{{_LEAST_SINGLES - 1},}})(?:$|[\s,.;:!?)\"'\]}}])"
)
_MIXED = re2.compile(r"\b[0-9OoIl](?:[ .\-]?[0-9OoQDIlZzSsGbBgq]){4,21}[ .\-]?[0-9OoIl]\b")
_CODES = re2.compile(r"\b[0-9A-Z][0-9A-Z.\-]{6,33}\b")
_ADDRESSES = re2.compile(r"\b(?:moc|gro|ten|ude|vog|ed|oc|oi)\.[A-Za-z0-9.\-]{2,63}@[A-Za-z0-9._+\-]{1,64}")
_BACKWARDS = re.compile(
    r"\d{7}[A-Z9][A-Z]|[A-Z0-9]{11,30}\d{2}[A-Z]{2}|\d{4}-\d{2}-\d{3}|[A-Z]\d{8}"
    rf"|(?=\d{{1,3}}(?:\.\d{{1,3}}){{3}}$)(?:\d{{1,3}}\.){{0,3}}{_ODD_OCTET}(?:\.\d{{1,3}}){{0,3}}"
)

_WORD = re.compile(rf"(?i)({_ALL_WORDS}|\d{{1,4}})([\s,;.\-/]*)")
_SPREADS = re.compile(_SPREAD)
_SPACES = re.compile(r"[ \t]{1,3}")
_LETTERS = re.compile(_LETTER)
_NEXT_LINE = re.compile(r"\n[ \t]{0,8}-?(?=[0-9])")
_LINE_END = re.compile(r"([0-9][0-9 -]{0,32}?)( ?-?\r?)$")
_LINE_START = re.compile(r"[0-9][0-9 -]{0,32}")
_NEARBY = 80
"""Characters before and after a number that say whether it stands in prose."""
_NIF_LABEL = re.compile(r"(?i)\b(?:nif|dni|nie)\b")


def words(text: str, hints: frozenset[str]) -> list[Replacement]:
    """Runs of number words as digits.  A pause (a comma, a dash) within a run stays as a hyphen."""
    if "words" not in hints:
        return []
    found: list[Replacement] = []
    for run in _RUN.finditer(text):
        parts = _WORD.findall(run.group())
        if sum(not word.isdecimal() and word.lower() not in _BETWEEN for word, _ in parts) < _LEAST_WORDS:
            continue
        digits = _digits(parts)
        if digits:
            found.append((run.start(), run.end(), digits))
    return found


def _digits(parts: list[tuple[str, str]]) -> str:
    between = {gap.strip() for _, gap in parts[:-1]}
    pauses = len(between) > 1  # where every word is set apart alike, nothing is meant by it
    digits = ""
    times = 1
    tens = ""
    for word, gap in parts:
        word = word.lower()
        if word in _TIMES:
            times = _TIMES[word]
            continue
        if tens and _UNITS.get(word, "0") != "0":
            plain, tens = _UNITS[word], ""
        elif tens:
            digits += "0"
            tens = ""
            plain = _plain(word)
        else:
            plain = _plain(word)
        digits += plain * times
        times = 1
        if word in _TENS:
            tens = word
            if gap.strip() in ("", "-"):
                continue
            digits += "0"
            tens = ""
        if pauses and gap.strip() and word not in _BETWEEN:
            digits += "-"
    return digits + ("0" if tens else "")


def _plain(word: str) -> str:
    if word.isdecimal():
        return word
    return _UNITS.get(word) or _TEENS.get(word) or _TENS.get(word) or _BETWEEN.get(word, "")


def singles(text: str, hints: frozenset[str]) -> list[Replacement]:
    """Characters that are set one by one, together again.  What is wider than the usual gap stays as a gap."""
    if "singles" not in hints:
        return []
    found: list[Replacement] = []
    for run in _SINGLES.finditer(text):
        start, end = run.span(1) if run[1] is not None else run.span(2)
        if not any(map(str.isalnum, text[start:end])):
            continue  # signs alone: `! ! ! !`
        while not text[end - 1].isalnum():  # a dash behind it
            end = len(text[start : end - 1].rstrip()) + start
        spread = _SPREADS if run[1] is not None else _SPACES
        gaps = spread.findall(text[start:end])
        usual = max(set(gaps), key=gaps.count)
        parts = spread.split(text[start:end])
        wider = [" " if len(gap) > len(usual) and gap.isspace() else "" for gap in (*gaps, usual)]
        plain = "".join([part + gap for part, gap in zip(parts, wider, strict=True)])
        if usual.strip() in ("", ".", "-") and plain.isdecimal():
            continue  # shapes allow for that themselves, and for what may stand beside it
        found.append((start, end, plain))
    return found


def letters(text: str, hints: frozenset[str]) -> list[Replacement]:
    """Letters that look like digits, among digits that outnumber them, as the digits."""
    if "letters" not in hints:
        return []
    found: list[Replacement] = []
    for match in _MIXED.finditer(text):
        run = match.group()
        if 2 * sum(map(str.isdigit, run)) > sum(map(str.isalnum, run)):
            at = match.start()
            found += [
                (at + one.start(), at + one.end(), one.group().translate(_LIKE_DIGITS))
                for one in _LETTERS.finditer(run)
            ]
    return found


def broken_lines(text: str, border: Border) -> list[Replacement]:
    """A number of prose that goes on in the next line, whole: not a column of numbers, nor two fields."""
    found: list[Replacement] = []
    for match in _NEXT_LINE.finditer(text):
        at = match.start()
        line = text[max(text.rfind("\n", max(0, at - _NEARBY), at) + 1, at - _NEARBY) : at]
        end = _LINE_END.search(line)
        if end is None:
            continue
        after = _LINE_START.match(text, match.end())
        rest = text[after.end() : after.end() + _NEARBY].partition("\n")[0] if after is not None else ""
        if not (_prose(line[: end.start()]) or _prose(rest)) or border(at):
            continue
        dash = "-" if "-" in end[2] or "-" in match.group() else ""
        grouped = not dash and after is not None and len(end[1].split()[-1]) == 4 == len(after.group().split()[0])
        found.append((at - len(end[2]), match.end(), " " if grouped else dash))
    return found


def _prose(text: str) -> bool:
    return sum(map(str.isalpha, text)) >= 3


def reversed_tokens(text: str, hints: frozenset[str]) -> list[Replacement]:
    """Tokens whose shape is that of an identifier from its end to its beginning, turned."""
    if "backwards" not in hints:
        return []
    found = [
        (match.start(), match.end(), match.group()[::-1])
        for match in _CODES.finditer(text)
        if _BACKWARDS.fullmatch(match.group())
        and _means_it(match.group(), text[max(0, match.start() - 40) : match.start()])
    ]
    if "@" in text:
        found += [(match.start(), match.end(), match.group()[::-1]) for match in _ADDRESSES.finditer(text)]
        found.sort()
    return found


def _means_it(token: str, before: str) -> bool:
    """A letter and digits are a code of any kind: turned they are a NIF only after its label."""
    return not (token[0].isalpha() and token[1:].isdecimal()) or _NIF_LABEL.search(before) is not None
