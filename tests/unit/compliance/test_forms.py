"""Every form that an identifier hides in, alone: found, with its place in the text as it was given."""

from __future__ import annotations

import base64
import gzip
import html
import json
import quopri
import random
import time
import unicodedata
import zlib
from collections.abc import Callable

import pytest
from growth import linear

from compliance.detectors.automaton import TooMany
from compliance.detectors.forms import MAX_LEVELS, Form, Forms
from compliance.detectors.hiding import HIDING, characters, plain_form, shows_all
from compliance.detectors.patterns import Patterns
from compliance.scan import Scanner

FORMS = Forms()
SCANNER = Scanner(Patterns())


def found(text: str) -> list[tuple[str, str]]:
    """(type, what is cut from the text as it was given)."""
    return [(one.type, text[one.start : one.end]) for one in SCANNER.inspect_text(text)]


def last_form(text: str) -> str:
    forms = list(FORMS.of(text))
    return forms[-1].text if forms else text


def b64(text: str | bytes) -> str:
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


WORDS = dict(zip("0123456789", "zero one two three four five six seven eight nine".split(), strict=True))  # noqa: SIM905
CARD = "4111111111111111"

HIDDEN: dict[str, Callable[[str], str]] = {
    "zero width": "\u200b".join,
    "soft hyphen": "\u00ad".join,
    "word joiner": "\u2060".join,
    "variation selector": "\ufe0f".join,
    "marks between": "\u200e\u200f".join,
    "full width": lambda text: "".join(chr(ord(c) + 0xFEE0) for c in text),
    "mathematical digits": lambda text: "".join(chr(0x1D7CE + int(c)) for c in text),
    "digits of another script": lambda text: "".join(chr(0x0966 + int(c)) for c in text),
    "circled": lambda text: "".join("⓪①②③④⑤⑥⑦⑧⑨"[int(c)] for c in text),
    "keycaps": lambda text: "".join(c + "\ufe0f\u20e3" for c in text),
    "tags": lambda text: "".join(chr(0xE0000 + ord(c)) for c in text),
    "struck through": lambda text: "".join(c + "\u0336" for c in text),
    "marks of other scripts": lambda text: "".join(c + "\u20dd\u0591\u3099" for c in text),
    "control characters": "\0".join,
    "deletes": "\b\x7f".join,
    "line separators": "\u2028".join,
    "private use": "\ue000\U0010fffd".join,
    "colours of a terminal": lambda text: "".join(f"\x1b[1;3{c}m{c}\x1b[0m" for c in text),
    "shown backwards": lambda text: f"\u202e{text[::-1]}\u202c",
    "marked, not turned": lambda text: f"\u202e{text}\u202c",
    "spaced": " ".join,
    "dotted": ".".join,
    "no-break spaces": "\u00a0".join,
    "thin spaces": lambda text: "\u2009".join(text[i : i + 4] for i in range(0, len(text), 4)),
    "en dashes": lambda text: "\u2013".join(text[i : i + 4] for i in range(0, len(text), 4)),
    "underscores": "_".join,
    "bars": " | ".join,
    "letters for digits": lambda text: text.replace("1", "l", 6),
    "words": lambda text: " ".join(WORDS[c] for c in text),
    "words and digits": lambda text: " ".join(WORDS[c] if i % 3 else c for i, c in enumerate(text)),
    "percent": lambda text: "".join(f"%{ord(c):02X}" for c in text),
    "percent, twice": lambda text: "".join(f"%25{ord(c):02x}" for c in text),
    "entities": lambda text: "".join(f"&#{ord(c)};" for c in text),
    "hex entities": lambda text: "".join(f"&#x{ord(c):x};" for c in text),
    "json": lambda text: "".join(f"\\u{ord(c):04x}" for c in text),
    "json of digits beyond the first plane": lambda text: json.dumps("".join(chr(0x1D7CE + int(c)) for c in text))[
        1:-1
    ],
    "braced": lambda text: "".join(f"\\u{{{ord(c):x}}}" for c in text),
    "bytes": lambda text: "".join(f"\\x{ord(c):02x}" for c in text),
    "octal": lambda text: "".join(f"\\{ord(c):03o}" for c in text),
    "quoted-printable": lambda text: "".join(f"={ord(c):02X}" for c in text),
    "base64": b64,
    "base64 in one word": lambda text: f"id_{b64(text)}",
    "base64, no padding": lambda text: b64(text).rstrip("="),
    "base64 of a sentence": lambda text: b64(f"please charge the card {text} today, and say so"),
    "base64 with odd bytes": lambda text: b64(f"\0\x01 card {text} thank you".encode() + b"\xff"),
    "base64 of UTF-16": lambda text: b64(text.encode("utf-16-le")),
    "base64, twice": lambda text: b64(b64(text)),
    "base64 in lines": lambda text: base64.encodebytes(("x" * 40 + f" card {text} " + "y" * 40).encode()).decode(),
    "hex": lambda text: text.encode().hex(),
    "hex with spaces": lambda text: text.encode().hex(" "),
    "hex with colons": lambda text: text.encode().hex(":").upper(),
    "hex with 0x": lambda text: ", ".join(f"0x{ord(c):02x}" for c in text),
    "gzip": lambda text: b64(gzip.compress(f"the card is {text}".encode())),
    "a data URL": lambda text: f"data:text/plain;base64,{b64(text)}",
    "gzip in a data URL": lambda text: f"data:application/gzip;base64,{b64(gzip.compress(f'{text}, '.encode() * 9))}",
    "zlib in a data URL": lambda text: f"data:x/y;base64,{b64(zlib.compress(f'the card is {text}'.encode()))}",
}


@pytest.mark.parametrize("name", HIDDEN)
@pytest.mark.parametrize("around", ["Grüße, 患者: {} – danke", "{}", "please charge {}, and thank you", "number={}\n"])
def test_a_hidden_card_is_cut_from_the_original(name: str, around: str) -> None:
    hidden = HIDDEN[name](CARD)
    text = around.format(hidden)
    cut = [value for kind, value in found(text) if kind == "card"]
    assert cut, name
    start = text.index(hidden)
    assert hidden.strip().strip("\u202e\u202c") in text[start : start + len(hidden)]
    assert all(value in text[max(0, start - 3) : start + len(hidden)] for value in cut)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Ｊｏｈｎ＠ｅｘａｍｐｌｅ．ｃｏｍ", "email"),
        ("１２３－４５－６７８９", "ssn"),
        ("john&#64;example&#46;org", "email"),
        ("john%40example.org", "email"),
        ("jоhn@exаmple.org", "email"),  # Cyrillic o and a
        ("j o h n @ e x a m p l e . o r g", "email"),
        ("gro.elpmaxe@nhoj", "email"),
        ("9876-54-321", "ssn"),
        ("1 2 3 - 4 5 - 6 7 8 9", "ssn"),
        ("SSN one two three, four five, six seven eight nine", "ssn"),
        ("SSN one twenty-three, forty-five, sixty-seven eighty-nine", "ssn"),
        ("SSN uno dos tres cuatro cinco seis siete ocho nueve", "ssn"),
        ("SSN eins zwei drei vier fünf sechs sieben acht neun", "ssn"),
        ("SSN un deux trois quatre cinq six sept huit neuf", "ssn"),
        ("ssn: l23-4S-678O", "ssn"),
        ("ЅЅN: 123456789", "ssn"),  # Cyrillic S
        ("her number is 123-45-\n6789 as I said", "ssn"),
        ("charge 4111 1111\n1111 1111 please", "card"),
        ("SS%4E: 123456789", "ssn"),  # the label hides, too
        ('{"a":"x\\nSSN 123456789"}', "ssn"),
        ("DEA: \u202e7485936XF\u202c", "dea"),
        ("the code is 7485936XF", "dea"),
        ("IBAN 20449909255358338511659850LP", "iban"),
        ("MBI &#49;EG4-TE5-MK73", "mbi"),
    ],
)
def test_other_identifiers_hide_as_well(text: str, kind: str) -> None:
    assert kind in {one for one, _ in found(text)}


CLEAN = [
    "one two three four five six seven eight nine ten",
    "It was the year two thousand and five, and four of five said so.",
    "a b c d e f g h i j k l m n o p",
    "x - y - z - a - b - c - d - e",
    "Die Straße ist lang; Москва, Сор, рост 180 см.",
    "Φ 12, Ω 4711, α = 0.05, χ² = 12.34",
    "100% of 50%25 is 20&30; AT&T; R&amp;D",
    "commit 3a7bd3e2360a3d29eea436fcfb7e44c735d117c4",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "dGhpcyBpcyBhIHRlc3Qgb2YgYmFzZTY0",  # this is a test of base64
    "1234\n5678\n9012\n3456\n",
    "12345678\n87654321",
    "version 1.15.300.2 of 2023-12-1001",
    "C:\\users\\new\\table",
    r"a = b'\x00\x01'; re.compile(r'\d+\n')",
    "x=30&y=31&z=32",
    "product B12345678, lot 10SB2012Z",
]


@pytest.mark.parametrize("text", CLEAN)
def test_what_hides_nothing(text: str) -> None:
    assert found(text) == []


def test_plain_text_has_no_form() -> None:
    assert list(FORMS.of("What is 12% of 4,711? Costs & benefits, e.g. x = y.\nThanks, 007")) == []
    assert FORMS.hints("The patient was seen in 2021 with a potassium of 4.1 mmol/L and BP 142/91.") == frozenset()


def test_fields_are_not_broken_lines() -> None:
    parts = ("please add 40401060", "28104486 to it")
    text = "\n".join(parts)
    assert [form.text for form in FORMS.of(text)] == ["please add 4040106028104486 to it"]
    assert list(FORMS.of(text, parts)) == []


# --- places ----------------------------------------------------------------------------------------------------


def test_the_way_back_goes_through_every_step() -> None:
    inner = "SSN 123-45-6789"
    text = f"é {b64('x ' + ''.join(f'%{ord(c):02x}' for c in inner) + ' y')} ü"
    form = list(FORMS.of(text))[-1]
    start = form.text.index("123")
    assert form.text[start : start + 11] == "123-45-6789"
    assert text[slice(*form.origin(start, start + 11))] == text[2:-2]  # all of the token
    assert form.origin(0, 2) == (0, 2)
    assert form.changed(start, start + 11) and not form.changed(0, 2)


def test_a_form_keeps_what_it_does_not_replace() -> None:
    form = Form("abcdef", [(1, 2, "XYZ"), (3, 5, ""), (5, 6, "!")])
    assert form.text == "aXYZc!"
    assert [form.origin(i, i + 1) for i in range(6)] == [(0, 1), (1, 2), (1, 2), (1, 2), (2, 3), (5, 6)]
    assert form.origin(0, 6) == (0, 6)
    assert Form("ab", [(0, 2, "")]).text == ""


def test_every_decimal_digit_of_unicode_is_known() -> None:
    digits = [chr(c) for c in range(0x80, 0x110000) if unicodedata.decimal(chr(c), None) is not None]
    assert len(digits) > 600
    assert all(HIDING.match(d) and plain_form(d) == str(unicodedata.decimal(d)) for d in digits)


def test_the_map_leads_each_character_to_where_it_stood() -> None:
    text = "a\u200b\u2460\u216b ½ ﷺ４\U0001f100 é \U0001f600x"
    form = Form(text, characters(text))
    assert form.text == plain_form(text)
    places = [form.origin(i, i + 1) for i in range(len(form.text))]
    assert places == sorted(places)
    assert all(text[start] == form.text[i] or HIDING.match(text[start]) for i, (start, _) in enumerate(places))
    assert text[places[-1][0]] == "x"


# --- bounds ----------------------------------------------------------------------------------------------------


def nested(text: str, times: int) -> str:
    for _ in range(times):
        text = b64(f"see {text}")
    return text


def test_forms_within_forms_are_bounded_and_never_called_clean() -> None:
    assert "ssn" in {kind for kind, _ in found(nested("SSN 123-45-6789", MAX_LEVELS))}
    assert found(nested("nothing in it", MAX_LEVELS)) == []
    for hidden in ("SSN 123-45-6789", "nothing in it"):
        assert [kind for kind, _ in found(nested(hidden, MAX_LEVELS + 1))] == ["scan_failed"]


def test_a_bomb_is_not_inflated() -> None:
    bomb = f"data:application/gzip;base64,{b64(gzip.compress(bytes(50 << 20)))}"
    began = time.process_time()
    assert [kind for kind, _ in found(bomb)] == ["scan_failed"]
    assert time.process_time() - began < 1
    within = b64(gzip.compress(b"x" * 100_000 + b" card 4111111111111111"))
    assert [kind for kind, _ in found(within)] == ["card"]
    two = gzip.compress(b"nothing here") + gzip.compress(b" card 4111111111111111")
    assert [kind for kind, _ in found(b64(two))] == ["card"]


HOSTILE = {
    "percent": "%31" * 100_000,
    "entities": "&#49;" * 60_000,
    "ampersands": "&amp;" * 60_000,
    "backslashes": "\\" * 300_000,
    "escapes": "\\u0031" * 50_000,
    "quoted": "=31" * 100_000,
    "base64": b64("4111 " * 45_000),
    "base64 words": "MTIzNDU2 " * 33_000,
    "base64 parts": "MTIzNDU2-" * 33_000,
    "base64 lines": ("A" * 64 + "\n") * 4_600,
    "hex": "31" * 150_000,
    "hex pairs": "31 " * 100_000,
    "words": "one " * 75_000,
    "tens": "twenty-" * 42_000,
    "singles": "a " * 150_000,
    "letters": "1l" * 150_000,
    "spaced letters": "l 1 " * 75_000,
    "lines": "x 1\n" * 75_000,
    "backwards": "7485936XF " * 30_000,
    "addresses backwards": "moc.a@" * 50_000,
    "overrides": "\u202e1" * 150_000,
    "zero width": "4\u200b" * 150_000,
    "look-alikes": "aа" * 150_000,
    "marks": "1\u0336" * 150_000,
    "one word": "а" * 300_000,
    "noise": "".join(random.Random(5).choices("%&\\=;#xu0134 \n\u200bаOl@.-_MTIzNDU2", k=300_000)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_text_is_slow(name: str) -> None:
    def undo(text: str) -> None:
        try:
            assert len(list(FORMS.of(text))) <= 4 * (MAX_LEVELS + 1)
        except TooMany:
            pass

    text = HOSTILE[name]
    linear(undo, text[: len(text) // 4], text)


def test_quoted_printable_soft_line_ends() -> None:
    text = quopri.encodestring(f"{'x' * 60} card 4111111111111111 thanks".encode()).decode()
    assert "=\n" in text
    assert [kind for kind, _ in found(text)] == ["card"]


def test_html_is_read_as_html_does() -> None:
    assert last_form(html.escape("a < b & 'c'")) == "a < b & 'c'"
    assert last_form("&unknown; &#x110000; &#0;") != ""


def test_the_padding_of_base64_does_not_join_it_to_the_next_field() -> None:
    """As quoted-printable would: a line that ends in = goes on there."""
    token = b64("note: 4157368193036427 end")
    assert token.endswith("=")
    assert SCANNER.inspect({"name": token, "content": "hello there"}).findings[0].type == "card"


@pytest.mark.parametrize(
    "text", ["wow ! ! ! ! ! ! ! ! @ you", ". . . . . . . . . .", "a ? ? ? ? ? ? ? b", "( - - - - - - - - - )"]
)
def test_law_10_signs_set_one_by_one_end(text: str) -> None:
    assert found(text) == []


def test_no_ordinary_character_of_ascii_hides_anything() -> None:
    ordinary = "\t\n\r" + "".join(map(chr, range(32, 127)))
    assert HIDING.search(ordinary) is None and shows_all(ordinary)


@pytest.mark.parametrize(
    "text", ["Größe, Übung; naïve", "会议改到下周", "привет", "😀 fine", "a\u0301b", "1\u00b2", "\u200b", "x\ud800"]
)
def test_what_shows_all_has_no_form_of_its_characters(text: str) -> None:
    assert not (shows_all(text) and characters(text))


def test_few_and_many_hiding_characters_are_found_alike() -> None:
    digits = "".join(chr(0x660 + digit) for digit in range(10)) + "".join(chr(0xFF10 + digit) for digit in range(10))
    for text in ("x\uff11y\u2013z\uff11 \u200b", digits):
        expected = [(m.start(), m.end(), plain_form(m.group())) for m in HIDING.finditer(text)]
        assert characters(text) == expected


@pytest.mark.parametrize("text", ["OOOOOOOOO1234567890", "123-45-67B9", "l23-45-6789", "123-45-678O"])
def test_letters_among_digits_are_hinted(text: str) -> None:
    assert "letters" in FORMS.hints(text)
