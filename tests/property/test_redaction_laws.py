"""Law 1 of what is redacted: any body, identifiers in any place; none is left, nothing else is changed, all comes back."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from compliance.detectors.forms import Form
from compliance.detectors.model import Span
from compliance.fields import collect
from compliance.jsontext import Document, Edit
from compliance.model import Action, Finding, Inspection
from compliance.pseudonyms import PSEUDONYM, Scope
from compliance.redaction import redact_body
from compliance.scan import SEPARATOR

_PLANTED = re.compile(r"QX-[0-9]{6}")
KEY = b"k" * 32

planted = st.integers(0, 999_999).map(lambda number: f"QX-{number:06}")
lookalike = st.sampled_from(["[NAME_k7f2]", "[MRN_abcd]", "[TEXT_k7f2]", "[X_", "_k7f2]"])
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
texts = st.lists(
    st.one_of(words, planted, lookalike, st.sampled_from([" ", "\n", '"', "\\", "é", "\U0001f600"])), max_size=6
)
strings = texts.map(" ".join)
keys = st.one_of(strings, st.sampled_from(["text", "name", "id", "type", "content", "note", "url"]))
scalars = st.one_of(
    strings, st.integers(-(10**12), 10**12), st.booleans(), st.none(), st.floats(allow_nan=False, allow_infinity=False)
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=8
)
objects = st.dictionaries(keys, values, max_size=4)
nested = st.builds(
    lambda value, plain: json.dumps({"inner": json.dumps(value, ensure_ascii=plain), "more": value}),
    objects,
    st.booleans(),
)


def _call(arguments: str) -> dict[str, Any]:
    function = {"name": "look_up", "arguments": arguments}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": function}],
    }


messages = st.one_of(
    st.builds(lambda text: {"role": "user", "content": text}, strings),
    st.builds(lambda value: {"role": "user", "content": [{"type": "text", "text": json.dumps(value)}]}, objects),
    st.builds(_call, nested),
    st.builds(lambda text: {"role": "tool", "tool_call_id": "c1", "content": text}, strings),
    st.builds(
        lambda value: {"role": "assistant", "content": [{"type": "tool_use", "id": "u", "name": "f", "input": value}]},
        objects,
    ),
)


class Finder:
    """Finds what is planted, as the scanner does it: all strings joined."""

    def spans(self, text: str, parts: Sequence[str] = (), *, health: bool = False) -> list[Span]:
        return [Span("mrn", *match.span(), 1.0) for match in _PLANTED.finditer(text)]

    def forms(self, text: str, parts: Sequence[str] = ()) -> list[Form]:
        return []

    def inspect(self, body: Any, *, health: bool = False) -> Inspection:
        text = SEPARATOR.join(collect(body).strings)
        return Inspection(tuple([Finding("mrn", "", 0, 0) for _ in self.spans(text)]))


def _decides(kind: str) -> Action:
    return "redact"


def _restored(raw: bytes, scope: Scope) -> Any:
    document = Document(raw.decode())
    changes = {}
    for leaf in document.all_leaves():
        edits = []
        for match in PSEUDONYM.finditer(leaf.text):
            original = scope.original(match.group())
            assert original is not None, "a client's own text was left as it looked"
            edits.append(Edit(*match.span(), original))
        if edits and leaf.inside is None:
            changes[leaf] = edits
    return document.replaced(changes)


def _every_form(value: Any) -> str:
    """The body raw and decoded, with the JSON inside of its strings."""
    whole = [json.dumps(value), json.dumps(value, ensure_ascii=False)]
    whole += [leaf.text for leaf in Document(json.dumps(value)).all_leaves()]
    return "\n".join(whole)


@given(st.lists(messages, min_size=1, max_size=4), objects, objects, st.booleans(), st.booleans())
def test_law_01_nothing_planted_is_left_and_the_rest_is_untouched(
    said: list[Any], metadata: Any, schema: Any, plain: bool, compact: bool
) -> None:
    tool = {"type": "function", "function": {"name": "look_up", "parameters": schema}}
    body = {"model": "m", "messages": said, "metadata": metadata, "tools": [tool], "temperature": 0.50}
    separators = (",", ":") if compact else (" , ", ": ")
    raw = json.dumps(body, ensure_ascii=plain, separators=separators).encode()
    scope = Scope("s", KEY)
    redacted = redact_body(raw, Finder(), _decides, scope, health=False)
    left = json.loads(redacted.raw)
    assert not _PLANTED.search(_every_form(left))
    assert not _PLANTED.search(redacted.raw.decode())
    assert json.loads(_restored(redacted.raw, scope)) == body
    if not _PLANTED.search(_every_form(body)) and not PSEUDONYM.search(_every_form(body)):
        assert redacted.raw == raw
    assert redact_body(raw, Finder(), _decides, Scope("s", KEY, scope.added), health=False).raw == redacted.raw
    assert left["temperature"] == 0.5 and list(left) == list(body)


@given(st.lists(messages, min_size=2, max_size=6), st.data())
def test_a_prefix_of_a_conversation_is_redacted_to_the_same_bytes(said: list[Any], data: st.DataObject) -> None:
    """So that what a cloud has cached of it is used again; also where its first turns are cut off."""
    before = data.draw(st.integers(1, len(said) - 1))
    first = Scope("s", KEY)
    short = redact_body(_chat(said[:before]), Finder(), _decides, first, health=False).raw
    second = Scope("s", KEY, first.added)
    long = redact_body(_chat(said), Finder(), _decides, second, health=False).raw
    assert long.startswith(short.removesuffix(b"]}"))
    tail = redact_body(
        _chat(said[before:]), Finder(), _decides, Scope("s", KEY, [*first.added, *second.added]), health=False
    ).raw
    assert long.endswith(tail.removeprefix(b'{"model": "m", "messages": ['))


def _chat(said: list[Any]) -> bytes:
    return json.dumps({"model": "m", "messages": said}).encode()


_gaps = st.sampled_from(["", "-", " ", ".", "_", ",", "/", " - ", "<br>", "\n"])
numbers = st.integers(10**8, 10**10 - 1).map(str)


@given(numbers, st.lists(_gaps, min_size=10, max_size=10), words, words, st.lists(messages, max_size=2))
def test_law_01_a_known_number_is_left_in_no_grouping(
    number: str, gaps: list[str], before: str, after: str, said: list[Any]
) -> None:
    spelled = "".join([digit + gap for digit, gap in zip(number, gaps, strict=False)])
    text = f"{before}{spelled}{after}"
    known = Scope("s", KEY)
    known.pseudonym("mrn", number)
    raw = _chat([*said, {"role": "user", "content": text}])
    left = redact_body(raw, Finder(), _decides, Scope("s", KEY, known.added), health=False)
    content = PSEUDONYM.sub("!", json.loads(left.raw)["messages"][-1]["content"])
    assert number not in re.sub(r"<br>|[\W_]+", "", content)
    assert json.loads(left.raw)["messages"][-1]["content"] != text


@given(
    st.sampled_from(["Quorl", "Zbigna Quorlson", "Odalys"]), st.sampled_from("_-. 7/"), st.lists(messages, max_size=2)
)
def test_law_01_a_known_name_is_left_in_no_case(name: str, joint: str, said: list[Any]) -> None:
    known = Scope("s", KEY)
    known.pseudonym("name", name)
    joined = name.replace(" ", joint)
    for text in (
        joined.lower(),
        joined.upper(),
        f"my{joint}{joined.lower()}{joint}file",
        f"the{name.replace(' ', '')}",
    ):
        raw = _chat([*said, {"role": "user", "content": text}])
        left = json.loads(redact_body(raw, Finder(), _decides, Scope("s", KEY, known.added), health=False).raw)
        content = PSEUDONYM.sub("!", left["messages"][-1]["content"]).casefold()
        assert not any(word.casefold() in content for word in name.split())


class Labelled(Finder):
    """Finds a name and a number by their labels only, as detectors do."""

    _labels = re.compile(r"(?<=Patient: )Odalys Ferncastle|(?<=MRN: )83920174")

    def spans(self, text: str, parts: Sequence[str] = (), *, health: bool = False) -> list[Span]:
        found = self._labels.finditer(text)
        return [Span("mrn" if match.group().isdigit() else "name", *match.span(), 1.0) for match in found]


again = st.sampled_from(
    [
        "Patient: Odalys Ferncastle",
        "MRN: 83920174",
        "8392-0174",
        "FERNCASTLE",
        "odalys",
        "x_83920174.pdf",
        "hello",
        "8392",
    ]
)


@given(st.lists(st.lists(again, max_size=4).map(", ".join), min_size=1, max_size=5), st.data())
def test_a_prefix_stays_the_same_whatever_form_its_values_have(texts: list[str], data: st.DataObject) -> None:
    said = [{"role": "user", "content": text} for text in ["Patient: Odalys Ferncastle, MRN: 83920174.", *texts]]
    before = data.draw(st.integers(1, len(said)))
    first = Scope("s", KEY)
    short = redact_body(_chat(said[:before]), Labelled(), _decides, first, health=False).raw
    known = Scope("s", KEY, first.added)
    long = redact_body(_chat(said), Labelled(), _decides, known, health=False).raw
    assert long.startswith(short.removesuffix(b"]}"))
    assert not re.search(rb"(?i)odalys|ferncastle|8392-?0174", long)
