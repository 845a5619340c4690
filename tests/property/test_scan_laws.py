"""Laws 1 and 8 over generated requests: what identifies stays, and what was not scanned is not clean."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from compliance.answers import AnswerScanner
from compliance.fields import KNOWN_KEYS, MAX_DEPTH, collect, located
from compliance.rules import CLOUD, Facts, Rule
from compliance.rulings import Ruleset
from compliance.scan import Scanner

SCANNER = Scanner()
SAFE = Ruleset()

LETTERS = "abcdefghijklmnopqrstuvwxyz"
ssns = st.builds(
    "{:03d}-{:02d}-{:04d}".format,
    st.integers(1, 899).filter(lambda area: area != 666),
    st.integers(1, 99),
    st.integers(1, 9999),
)


def _with_luhn(digits: str) -> str:
    total = sum(sum(divmod(int(d) * (2 - i % 2), 10)) for i, d in enumerate(reversed(digits)))
    return digits + str(-total % 10)


@st.composite
def cards(draw: st.DrawFn) -> str:
    prefix, length = draw(
        st.sampled_from([("4", 16), ("51", 16), ("2221", 16), ("6011", 16), ("34", 15), ("3530", 16)])
    )
    free = length - len(prefix) - 1
    number = _with_luhn(prefix + "".join(draw(st.lists(st.sampled_from("0123456789"), min_size=free, max_size=free))))
    separator = draw(st.sampled_from(["", " ", "-"]))
    if length == 15:
        return separator.join((number[:4], number[4:10], number[10:]))
    return separator.join(number[i : i + 4] for i in range(0, 16, 4))


emails = st.builds(
    "{}@{}.{}".format,
    st.text(LETTERS + "0123456789._", min_size=1, max_size=20),
    st.text(LETTERS, min_size=1, max_size=20),
    st.sampled_from(["com", "org", "de", "health"]),
)
secrets = st.builds("{}{}".format, st.just("sk-"), st.text(LETTERS + "0123456789ABC", min_size=24, max_size=48)) | st.builds(
    "{}{}".format, st.sampled_from(["ghp_", "AKIA"]), st.text("ABCDEFGH0123", min_size=36, max_size=36)
).map(lambda s: s[:20] if s.startswith("AKIA") else s)  # fmt: skip
identifiers = st.one_of(
    st.tuples(st.just("ssn"), ssns),
    st.tuples(st.just("card"), cards()),
    st.tuples(st.just("email"), emails),
    st.tuples(st.just("secret"), secrets),
)

texts = st.text(max_size=30)
keys = texts | st.sampled_from(["ssn", "mrn", "patient_zip", "age", "value", "ssn_last4", "n", "id", "data", "input"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(keys, inner, max_size=4)
        | st.dictionaries(keys, inner, max_size=3).map(json.dumps)
    ),
    max_leaves=12,
)


def escaped(text: str) -> str:
    return "".join(f"\\u{ord(character):04x}" for character in text)


def _in_arguments(text: str) -> Any:
    return {"function": {"name": "f", "arguments": '{"x": [{"y": "' + escaped(f" {text} ") + '"}]}'}}


def _twice_nested(text: str) -> Any:
    return {"arguments": json.dumps({"x": '["' + escaped(text) + '"]'})}


PLACES: dict[str, Callable[[str], Any]] = {
    "value": lambda text: {"content": text},
    "sentence": lambda text: {"content": f"Please look at {text}, and answer."},
    "key": lambda text: {text: 1},
    "list": lambda text: [["x"], [text]],
    "json": lambda text: {"arguments": json.dumps({"a": {text: "b"}})},
    "arguments": _in_arguments,
    "twice nested": _twice_nested,
    "escapes in prose": lambda text: f"say {escaped(text)} loudly",
    "full-width": lambda text: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
    "zero-width": lambda text: "\u200b".join(text),
}


@st.composite
def planted(draw: st.DrawFn) -> tuple[str, str, Any]:
    """(type, place, a body that holds an identifier there, among other things)."""
    kind, text = draw(identifiers)
    place = draw(st.sampled_from(sorted(PLACES)))
    what = PLACES[place](text)
    body = draw(st.dictionaries(texts, values, max_size=3))
    messages: list[Any] = [draw(values), {"role": "user", "content": "hi"}]
    messages.insert(draw(st.integers(0, 2)), what)
    return kind, place, {"model": "m", "messages": messages, **{f"x{k}": v for k, v in body.items()}}


@given(planted())
def test_law_01_an_identifier_anywhere_keeps_the_request_local(case: tuple[str, str, Any]) -> None:
    kind, place, body = case
    found = SCANNER.inspect(body).findings
    assert kind in {finding.type for finding in found}, place
    verdict = SAFE.judge(found, Facts(health=True)).on(CLOUD)
    assert verdict.allows("local")
    assert not verdict.allows("cloud")


@given(ssns, st.sampled_from(["ssn", "patient_ssn", "SSN", "socialSecurityNumber", "social security number"]))
def test_law_01_a_labelled_number_needs_no_quotes(ssn: str, label: str) -> None:
    number = int(ssn.replace("-", ""))
    assume(number >= 1_000_000)
    assert [finding.type for finding in SCANNER.inspect({"metadata": {label: number}}).findings] == ["ssn"]
    assert [
        finding.type for finding in SCANNER.inspect({"arguments": json.dumps({label: f"{number:09d}"})}).findings
    ] == ["ssn"]


@given(planted())
def test_law_11_no_finding_carries_what_was_found_or_a_key_that_the_caller_chose(case: tuple[str, str, Any]) -> None:
    _, _, body = case
    for finding in SCANNER.inspect(body).findings:
        names = [name for name in re.split(r"\.|\[\d+\]", finding.path) if name]
        assert set(names) <= KNOWN_KEYS | {"*"}


@given(values | planted().map(lambda case: case[2]))
def test_both_walks_give_the_same_strings(body: Any) -> None:
    fields = collect(body)
    where = list(located(body))
    assert [field.text for field in where if field.lane != "opaque"] == fields.strings
    assert sum(field.lane == "opaque" for field in where) == fields.opaque


@given(planted())
def test_offsets_lie_within_their_field(case: tuple[str, str, Any]) -> None:
    _, _, body = case
    by_path: dict[str, list[str]] = {}
    for field in located(body):
        by_path.setdefault(field.path, []).append(field.text)
    for finding in SCANNER.inspect(body).findings:
        if (finding.start, finding.end) != (0, 0):
            assert any(0 <= finding.start < finding.end <= len(text) for text in by_path[finding.path])


opaque_parts = st.sampled_from(
    [
        {"type": "image_url", "image_url": {"url": "https://host/x.png"}},
        {"type": "image", "source": {"type": "base64", "data": "A" * 400}},
        {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64," + "A" * 400}},
        {"type": "text", "text": "data:image/png;base64," + "A" * 400},
    ]
)
permissive = Ruleset([Rule("everything may leave", "allow", frozenset({"card", "ssn", "email", "secret"}))])


@given(opaque_parts, st.lists(values, max_size=3), st.integers(0, 3))
def test_law_08_what_cannot_be_scanned_stays(part: Any, others: list[Any], at: int) -> None:
    content = [*others[:at], part, *others[at:]]
    found = SCANNER.inspect({"messages": [{"content": content}]}).findings
    assert "opaque" in {finding.type for finding in found}
    assert not permissive.judge(found, Facts()).on(CLOUD).allows("cloud")


@given(values, st.integers(MAX_DEPTH, MAX_DEPTH + 40), st.booleans())
def test_law_08_too_deep_stays(value: Any, depth: int, as_json: bool) -> None:
    body: Any = [value, "x"]
    for _ in range(depth):
        body = [body]
    if as_json:
        body = {"arguments": json.dumps([body, "\n"])}
    found = SCANNER.inspect(body).findings
    assert "scan_failed" in {finding.type for finding in found}
    assert not permissive.judge(found, Facts()).on(CLOUD).allows("cloud")


@given(st.lists(planted(), min_size=1, max_size=3), st.integers(1, 50))
def test_law_08_too_long_stays(cases: list[tuple[str, str, Any]], bound: int) -> None:
    found = Scanner(SCANNER._patterns, max_chars=bound).inspect([case[2] for case in cases]).findings
    assert (
        not permissive.judge(found, Facts()).on(CLOUD).allows("cloud") or sum(map(len, collect(cases).strings)) <= bound
    )


@given(st.text(), st.lists(st.tuples(identifiers, st.integers(0, 3000)), max_size=4), st.data())
def test_an_answer_is_counted_alike_however_it_is_cut(
    odd: str, parts: list[tuple[tuple[str, str], int]], data: st.DataObject
) -> None:
    text = odd + "".join(f"{' word' * (gap // 5)} {identifier} " for (_, identifier), gap in parts)
    whole: dict[str, int] = {}
    for finding in SCANNER.inspect_text(text):
        whole[finding.type] = whole.get(finding.type, 0) + 1
    scanner = AnswerScanner(SCANNER)
    at = 0
    while at < len(text):
        step = data.draw(st.integers(1, 1500))
        scanner.feed("text", text[at : at + step])
        at += step
    assert {finding.type: finding.end for finding in scanner.flush()} == whole
