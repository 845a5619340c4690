"""Encoded text, decoded: escapes of URLs, HTML, JSON and quoted-printable; base64, base64url, hex; gzip within them.

Each escape is replaced alone, so that what it stands for keeps its place; a token is replaced as a whole.  What does
not decode to text stays as it is: whether it may be called clean is not decided here.
"""

from __future__ import annotations

import binascii
import html
import re
import zlib
from collections.abc import Iterator

import re2

from compliance.detectors.automaton import TooMany
from compliance.detectors.hiding import Replacement, plain_form

MAX_INFLATED = 1 << 20
"""Bytes that the compressed tokens of one text may hold together."""

_MEMBERS = 64
"""Compressed parts of one token, one behind the other."""

# base64 of three characters of ASCII: in the first of four every second bit is fixed, in the next two one each.
_ONE = "[I-Za-fCDG]"
_TWO = "[A-HQ-Xg-nw-z0-3]"
_THREE = "[ABEFIJMNQRUVYZcdghklopstwx014589]"
_QUAD = f"{_ONE}{_TWO}{_THREE}[A-Za-z0-9+/_-]"
_ANY = "[A-Za-z0-9+/_-]"
_DIGITS = "[MNO][DTjz][AEIMQUYcgk][w-z0-5]"
"""base64 of three digits."""
_PAIR = "[2-7][0-9A-Fa-f]"
_DIGIT = "3[0-9]"

GATES: tuple[tuple[str, str], ...] = (
    ("base64", rf"(?:^|[^A-Za-z0-9]){_QUAD}{_ONE}{_TWO}{_THREE}[A-Za-z0-9+/_=\-]"),
    ("hex", rf"[0-9A-Fa-f]{{18}}|(?:{_DIGIT}[ :,\-]){{3}}|(?:(?:0|\\)x{_PAIR}[ ,;]{{0,2}}){{4}}"),
    ("base64", rf"(?:^|[^A-Za-z0-9])(?:{_ANY}{{4}}){{0,3}}{_DIGITS}"),
    ("base64", "[A-Za-z0-9+/]{10}==?(?:$|[^=A-Za-z0-9])"),
    ("base64", rf"{_ANY}{{20}}"),
    ("hex", rf"(?:{_PAIR}){{6}}"),
    ("base64", ";base64,|H4sI"),
)
"""(name, shape) of what a token of that kind has."""

_PERCENT = re.compile(r"%(?:u[0-9A-Fa-f]{4}|(?:25){0,8}[0-9A-Fa-f]{2}(?:%(?:25){0,8}[0-9A-Fa-f]{2})*)")
_PERCENT_ONE = re.compile(r"%(?:25){0,8}([0-9A-Fa-f]{2})")
_ENTITY = re.compile(r"&(?:amp;){0,8}(#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,30};);?")
_BACKSLASH = re.compile(
    r"\\\\{0,15}(?:u([dD][89abAB][0-9a-fA-F]{2})\\{1,16}u([dD][c-fC-F][0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|u\{0{0,6}([0-9a-fA-F]{1,5})\}"
    r"|U000([0-9a-fA-F]{5})|x([0-9a-fA-F]{2})|([0-7]{3})|([nrtbf\"'/]))"
)
_SIGNS = {"n": "\n", "r": "\r", "t": "\t", "b": "", "f": "\n", '"': '"', "'": "'", "/": "/"}
# A line that ends in = is broken there, unless that is the padding of base64.
_QUOTED = re.compile(
    r"=(?:([0-9A-F]{2}(?:=[0-9A-F]{2})+)|(40)(?=[A-Za-z])"
    r"|(?<=[0-9 .\-]=)\r?\n(?=[0-9 .\-])|(?<=[^\n]{60}=)\r?\n)"
)
"""Lines end at 76 characters (RFC 2045, 6.7), or within a number; elsewhere `=` before a line's end is padding."""

_BASE64 = re.compile(r"(?<![A-Za-z0-9+/_\-])[A-Za-z0-9+/_\-]{7,}+={0,2}")
_MEDIA_TYPE = 120
"""Characters before base64 in which the beginning of its data: URL (RFC 2397) stands."""
_DATA_URL = re.compile(r"data:[A-Za-z0-9/+.;=\-]{0,100};base64,$")
_LINE = 40
"""Characters of the shortest line of base64 that goes on in the next."""
_NEW_LINE = re.compile(r"\r?\n[ \t]{0,8}")
_BASE64_PART = re.compile(r"[A-Za-z0-9]{7,}={0,2}")
_SHAPE = re.compile(rf"{_QUAD}{_ONE}{_TWO}|(?:{_ANY}{{4}}){{0,3}}{_DIGITS}")
_SPACE = re.compile(r"\s+")
_LONG = 20
_PADDED = 12
_SAMPLE = 4096
_PRINTABLE = bytes((9, 10, 13, *range(32, 127)))
_SURE = 12
"""Bytes that are not all printable ASCII by chance."""
_STANDARD = str.maketrans("-_", "+/")
_HEX = re2.compile(
    r"\b(?:0[xX]|\\x)?((?:[0-9A-Fa-f]{2}){4,})\b"
    r"|\b(?:0x)?([0-9A-Fa-f]{2}(?:(?:[ :,;\-]{1,2}|\\x)(?:0x)?[0-9A-Fa-f]{2}){3,})\b"
)
_NOT_HEX = re.compile(r"0x|[^0-9A-Fa-f]")
_COMPRESSED = (b"\x1f\x8b", b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")


def escaped(text: str) -> bool:
    """Does anything in `text` look like an escape, of `escapes` or of `quoted`?"""
    return (
        ("%" in text and _PERCENT.search(text) is not None)
        or ("=" in text and _QUOTED.search(text) is not None)
        or ("&" in text and _ENTITY.search(text) is not None)
        or ("\\" in text and _BACKSLASH.search(text) is not None)
    )


def escapes(text: str, _hints: frozenset[str] = frozenset()) -> list[Replacement]:
    """Each escape as the character that it stands for."""
    found: list[Replacement] = []
    if "%" in text:
        found += _percent(text)
    if "&" in text:
        for match in _ENTITY.finditer(text):
            plain = html.unescape(f"&{match[1].removesuffix(';')};")
            if plain[:1] != "&" or len(plain) == 1:
                found.append((match.start(), match.end(), plain))
    if "\\" in text:
        found += [(match.start(), match.end(), _unescaped(match)) for match in _BACKSLASH.finditer(text)]
    return _apart(found) if found else found


def _apart(found: list[Replacement]) -> list[Replacement]:
    """In order, without those that overlap one before them."""
    found.sort()
    kept: list[Replacement] = []
    end = 0
    for one in found:
        if one[0] >= end:
            kept.append(one)
            end = one[1]
    return kept


def _percent(text: str) -> Iterator[Replacement]:
    for run in _PERCENT.finditer(text):
        if run.group()[1] == "u":
            yield run.start(), run.end(), chr(int(run.group()[2:], 16))
            continue
        escaped = list(_PERCENT_ONE.finditer(run.group()))
        data = bytes([int(one[1], 16) for one in escaped])
        if data.isascii():
            at = run.start()
            for one, byte in zip(escaped, data, strict=True):
                yield at + one.start(), at + one.end(), chr(byte)
        else:  # several of them are one character
            yield run.start(), run.end(), data.decode("utf-8", "replace")


def _unescaped(match: re.Match[str]) -> str:
    high, low, short, braced, long, byte, octal, sign = match.groups()
    if sign:
        return _SIGNS[sign]
    if high:
        return chr(0x10000 + ((int(high, 16) & 0x3FF) << 10) + (int(low, 16) & 0x3FF))
    if octal:
        return chr(int(octal, 8))
    return chr(int(short or braced or long or byte, 16))


def quoted(text: str, _hints: frozenset[str] = frozenset()) -> list[Replacement]:
    """Quoted-printable: two escapes in a row or more, a line end that is none, an `@`.

    One escape alone is an equation as well, and padding at a line's end is a line end that is none, so tokens go first.
    """
    return list(_quoted(text)) if "=" in text else []


def _quoted(text: str) -> Iterator[Replacement]:
    for match in _QUOTED.finditer(text):
        data = bytes.fromhex((match[1] or match[2] or "").replace("=", ""))
        if not data.isascii():
            yield match.start(), match.end(), data.decode("utf-8", "replace")
            continue
        yield match.start(), match.end() if not data else match.start() + 3, chr(data[0]) if data else ""
        for index in range(1, len(data)):
            yield match.start() + 3 * index, match.start() + 3 * index + 3, chr(data[index])


def tokens(text: str, hints: frozenset[str]) -> list[Replacement]:
    """Each token of hex or base64 that holds text, as that text.  Raises `TooMany`."""
    found: list[Replacement] = []
    if "hex" in hints:
        for match in _HEX.finditer(text):
            plain = _text(bytes.fromhex(match[1] or _NOT_HEX.sub("", match[2])))
            if plain is not None:
                found.append((match.start(), match.end(), plain))
    if "base64" in hints:
        left = MAX_INFLATED
        for start, end, token in _base64_runs(text):
            data = _decoded(token)
            if data[:2] in _COMPRESSED:
                data = _inflated(data, left)
                left -= len(data)
            text_of = _text(data)
            if text_of is not None:
                url = _DATA_URL.search(text, max(0, start - _MEDIA_TYPE), start)
                found.append((url.start() if url is not None else start, end, text_of))
    return _apart(found) if found else found


def _base64_runs(text: str) -> Iterator[tuple[int, int, str]]:
    """(start, end, token) of what may be base64 of text: runs of its alphabet, or the words that they are made of."""
    for start, end in _joined_lines(text):
        run = text[start:end]
        if _promising(run) and (run.isalnum() or _holds_text(run)):
            yield start, end, run
        elif "\n" in run:  # lines that are no continuation
            for line in _BASE64.finditer(run):
                if _promising(line.group()) and _holds_text(line.group()):
                    yield start + line.start(), start + line.end(), line.group()
        elif not run.isalnum():
            for part in _BASE64_PART.finditer(run):
                if _promising(part.group()):
                    yield start + part.start(), start + part.end(), part.group()


def _joined_lines(text: str) -> Iterator[tuple[int, int]]:
    """Runs of the alphabet of base64, those in full lines as one."""
    start = end = -1
    for match in _BASE64.finditer(text):
        first, last = match.span()
        if start >= 0:
            gap = _NEW_LINE.match(text, end)
            if gap is not None and gap.end() == first and end - max(start, text.rfind("\n", start, end)) >= _LINE:
                end = last
                continue
            yield start, end
        start, end = first, last
    if start >= 0:
        yield start, end


def _holds_text(run: str) -> bool:
    data = _decoded(run)
    return data[:2] in _COMPRESSED or _text(data) is not None


def _promising(run: str) -> bool:
    """Does it begin as base64 of text does, or is it long and of mixed characters?"""
    if _SHAPE.match(run) or (run[-1] == "=" and len(run) >= _PADDED):
        return True
    return len(run) >= _LONG and not run.islower() and not run.isupper()


def _decoded(token: str) -> bytes:
    """The bytes of base64 or base64url without regard to its padding; empty where it is neither."""
    plain = _SPACE.sub("", token).translate(_STANDARD).rstrip("=")
    if len(plain) % 4 == 1:
        plain = plain[:-1]
    try:
        return binascii.a2b_base64(plain + "=" * (-len(plain) % 4))
    except binascii.Error:
        return b""


def _inflated(data: bytes, most: int) -> bytes:
    """What gzip or zlib made of it, up to where it is broken; raises `TooMany` above `most` bytes."""
    plain = b""
    for _ in range(_MEMBERS):
        stream = zlib.decompressobj(wbits=47)
        try:
            plain += stream.decompress(data, most - len(plain) + 1)
        except zlib.error:
            return plain
        if len(plain) > most:
            raise TooMany
        data = stream.unused_data
        if data[:2] not in _COMPRESSED:
            return plain
    raise TooMany


def _text(data: bytes) -> str | None:
    """`data` as text, if it is text that says something."""
    if len(data) < 4:
        return None
    if data[1::2].count(0) > len(data) // 3:
        data = data.replace(b"\0", b"")  # UTF-16 of ASCII
    try:
        plain = data.decode("utf-8")
    except UnicodeDecodeError:
        plain = ""
    if plain and _says_something(plain if plain.isascii() else plain_form(plain)):
        return plain
    head = data[:_SAMPLE]  # a few odd bytes in a text do not hide it
    if len(data) < _SURE or 8 * len(head.translate(None, _PRINTABLE)) > len(head):
        return None
    return data.decode("utf-8", "replace")


def _says_something(plain: str) -> bool:
    """No control characters, and mostly letters, digits and spaces; in a short one digits or an address."""
    if len(plain) < 4 or not _SPACE.sub("", plain).isprintable():
        return False
    if len(plain) >= _SURE and plain.isascii():
        return True
    if 4 * sum([character.isalnum() or character.isspace() for character in plain]) < 3 * len(plain):
        return False
    return len(plain) >= 8 or "@" in plain or sum(map(str.isdigit, plain)) >= 4
