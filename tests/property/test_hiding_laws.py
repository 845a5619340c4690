"""Law 1 over what is hidden: by each form, by two forms, in each kind of field, split over fields; it stays local."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from compliance.detectors.forms import Forms
from compliance.rules import CLOUD, Facts
from compliance.rulings import Ruleset
from compliance.scan import Scanner

SCANNER = Scanner()
SAFE = Ruleset()
Hide = Callable[[str], str]

ssns = st.builds(
    "{:03d}-{:02d}-{:04d}".format,
    st.integers(101, 899).filter(lambda area: area != 666),
    st.integers(1, 99),
    st.integers(1, 9999),
)
records = st.from_regex(r"[1-9][0-9]{7}", fullmatch=True)
emails = st.builds(
    "{}@{}.{}".format,
    st.from_regex(r"[a-z]{3,8}[0-9]{0,2}", fullmatch=True),
    st.from_regex(r"[a-z]{4,8}", fullmatch=True),
    st.sampled_from(["com", "org", "health"]),
)
NUMBERS = (("ssn", "SSN {}", ssns), ("card", "card no. {}", st.just("4111111111111111")), ("mrn", "MRN: {}", records))
ADDRESS = ("email", "The patient was diagnosed with diabetes; write to {} about it", emails)


def _each(template: str) -> Hide:
    return lambda text: "".join(template.format(ord(character)) for character in text)


WORDS = dict(zip("0123456789-", "zero one two three four five six seven eight nine dash".split(), strict=True))  # noqa: SIM905

OF_DIGITS: dict[str, Hide] = {
    "words": lambda text: " ".join(WORDS[c] for c in text),
    "letters": lambda text: text.replace("0", "O", 2).replace("1", "l", 2),
    "another script": lambda text: "".join(chr(0x0660 + int(c)) if c.isdigit() else c for c in text),
    "look-alikes": lambda text: text.replace("0", "О", 2),  # Cyrillic
    "spaced": " ".join,
    "dotted": lambda text: ".".join(text.replace("-", "")),
    "en dashes": lambda text: "\u2013".join((text[:3], text[3:5], text[5:])),
}
OF_TEXT: dict[str, Hide] = {
    "nothing": str,
    "zero width": "\u200b".join,
    "soft hyphen": "\u00ad".join,
    "variation selectors": "\ufe0f".join,
    "full width": lambda text: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
    "tags": lambda text: "".join(chr(0xE0000 + ord(c)) if " " <= c <= "~" else c for c in text),
    "shown backwards": lambda text: f"\u202e{text[::-1]}\u202c",
    "percent": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "entities": _each("&#{};"),
    "hex entities": _each("&#x{:x};"),
    "json": lambda text: (
        json.dumps("".join(f"\ue000{c}" for c in text))[1:-1].replace("\\ue000", "")
        if not text.isascii()
        else "".join(f"\\u{ord(c):04x}" for c in text)
    ),
    "quoted-printable": lambda text: "".join(f"={byte:02X}" for byte in text.encode()),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64url": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "hex": lambda text: text.encode().hex(),
    "gzip": lambda text: base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode(),
    "data URL": lambda text: f"data:text/plain;base64,{base64.b64encode(text.encode()).decode()}",
}
SPACED: Hide = " ".join

FIELDS: dict[str, Callable[[str], dict[str, Any]]] = {
    "message": lambda text: {"messages": [{"role": "user", "content": text}]},
    "part": lambda text: {"messages": [{"role": "user", "content": [{"type": "text", "text": text}]}]},
    "system": lambda text: {"system": text, "messages": []},
    "arguments": lambda text: {"messages": [{"tool_calls": [{"function": {"arguments": json.dumps({"a": [text]})}}]}]},
    "result": lambda text: {"messages": [{"role": "tool", "tool_call_id": "1", "content": json.dumps({"a": text})}]},
    "key": lambda text: {"metadata": {text: True}},
    "metadata": lambda text: {"metadata": {"note": text}},
    "user": lambda text: {"user": text},
    "file name": lambda text: {"messages": [{"content": [{"type": "text", "filename": f"{text}.txt"}]}]},
    "list": lambda text: {"input": ["x", text]},
    "schema": lambda text: {"tools": [{"function": {"parameters": {"properties": {"x": {"enum": [text]}}}}}]},
}


def stays(body: dict[str, Any]) -> bool:
    found = SCANNER.inspect({"model": "m", **body})
    return not SAFE.judge(found.findings, Facts(health=found.health)).on(CLOUD).allows("cloud")


@st.composite
def hidden(draw: st.DrawFn) -> tuple[str, str]:
    """(the forms, a sentence whose identifier hides in them)."""
    kind, sentence, values = draw(st.sampled_from((*NUMBERS, ADDRESS)))
    value = draw(values)
    outer = draw(st.sampled_from(sorted(OF_TEXT)))
    inner = draw(st.sampled_from(sorted(OF_TEXT) + (sorted(OF_DIGITS) if kind != "email" else [])))
    # A look-alike in base64 of nine bytes that is not even padded: too short to be told from a name in camel case.
    assume((outer, inner) != ("base64url", "look-alikes"))
    value = OF_TEXT[outer]((OF_TEXT | OF_DIGITS)[inner](value))
    return f"{kind}: {outer} of {inner}", sentence.format(value)


@given(hidden(), st.sampled_from(sorted(FIELDS)))
def test_law_01_what_hides_in_two_forms_stays(case: tuple[str, str], field: str) -> None:
    forms, text = case
    assert stays(FIELDS[field](text)), (forms, field)


@given(st.sampled_from(NUMBERS), st.data(), st.sampled_from(["percent", "entities", "json", "base64", "hex"]))
def test_law_01_what_is_encoded_and_spaced_stays(
    case: tuple[str, str, st.SearchStrategy[str]], data: st.DataObject, form: str
) -> None:
    _, sentence, values = case
    text = sentence.format(SPACED(OF_TEXT[form](data.draw(values))))
    assert stays({"messages": [{"role": "user", "content": text}]}), text


def _messages(pieces: list[str]) -> dict[str, Any]:
    talk = [[{"role": "user", "content": piece}, {"role": "assistant", "content": "Go on."}] for piece in pieces]
    return {"messages": [message for turn in talk for message in turn]}


def _call_and_result(pieces: list[str]) -> dict[str, Any]:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": json.dumps({"a": pieces[:-1]})}}
    return {
        "messages": [
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": pieces[-1]},
        ]
    }


SPLITS: dict[str, Callable[[list[str]], dict[str, Any]]] = {
    "messages": _messages,
    "parts": lambda pieces: {"messages": [{"role": "user", "content": [{"type": "text", "text": p} for p in pieces]}]},
    "list": lambda pieces: {"input": pieces},
    "leaves": lambda pieces: {"messages": [{"tool_calls": [{"function": {"arguments": json.dumps({"a": pieces})}}]}]},
    "arguments and result": _call_and_result,
    "keys": lambda pieces: {"metadata": dict.fromkeys(pieces, True)},
    "metadata": lambda pieces: {"metadata": {f"k{'abcdef'[i]}": piece for i, piece in enumerate(pieces)}},
    "user and metadata": lambda pieces: {"user": pieces[0], "metadata": {"x": pieces[1:]}},
    "file names": lambda pieces: {"messages": [{"content": [{"type": "text", "filename": p} for p in pieces]}]},
}


@given(
    st.sampled_from(
        [ssns, st.just("4111 1111 1111 1111"), st.just("4111111111111111"), emails, st.just("1EG4-TE5-MK73")]
    ),
    st.sampled_from(sorted(SPLITS)),
    st.sampled_from(["nothing", "zero width", "full width", "percent", "json"]),
    st.data(),
)
def test_law_01_what_is_split_over_fields_stays(
    values: st.SearchStrategy[str], where: str, form: str, data: st.DataObject
) -> None:
    value = OF_TEXT[form](data.draw(values))
    cut = data.draw(st.integers(2, len(value) - 2))
    found = SCANNER.inspect(SPLITS[where]([value[:cut], value[cut:]]), health=True)
    assert not SAFE.judge(found.findings, Facts(health=True)).on(CLOUD).allows("cloud"), (where, form, value, cut)


INVISIBLE = (
    "\0\a\b\v\f\x1b\x7f\x85\x9b\u2028\u2029\ufff9\ufffc\ufffd\ue000\uf8ff\U0001d173\U000f0000\U0010fffd\uffff\u0378"
)
MARKS = "\u0301\u0336\u0489\u0591\u064b\u09bc\u1dc0\u20d2\u20dd\u3099\ufe20\U0001e8d0"
odd = st.sampled_from(INVISIBLE + MARKS) | st.characters(categories=["Cc", "Cf", "Co", "Mn", "Me"]).filter(
    lambda character: character not in "\t\n\r\u202e" and not "\U000e0020" <= character <= "\U000e007e"  # tags show
)


@given(st.sampled_from(NUMBERS), odd, st.data())
def test_law_01_a_character_that_shows_nothing_hides_nothing(
    case: tuple[str, str, st.SearchStrategy[str]], character: str, data: st.DataObject
) -> None:
    _, sentence, values = case
    text = sentence.format(data.draw(values))
    cuts = data.draw(st.lists(st.integers(1, len(text)), min_size=1, max_size=4, unique=True))
    hidden = "".join(character * (at in cuts) + one for at, one in enumerate(text)) + character * (len(text) in cuts)
    assert stays({"messages": [{"role": "user", "content": hidden}]}), hidden


printable = st.text(st.characters(codec="utf-8"), max_size=60)


@given(st.lists(printable | hidden().map(lambda case: case[1]), max_size=3))
def test_every_place_in_a_form_leads_to_a_place_in_the_text(parts: list[str]) -> None:
    text = " ".join(parts)
    for form in Forms().of(text):
        reached = 0
        for at in range(len(form.text)):
            start, end = form.origin(at, at + 1)
            assert 0 <= start < end <= len(text)
            assert start >= reached or form.changed(at, at + 1)
            reached = start
            if not form.changed(at, at + 1):
                assert text[start:end] == form.text[at]
