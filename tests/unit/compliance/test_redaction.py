"""Redaction of bodies: what is replaced and where, and what is refused instead."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest

from compliance.detectors.forms import Form
from compliance.detectors.model import Span
from compliance.fields import collect
from compliance.model import Action, Finding, Inspection
from compliance.pseudonyms import PSEUDONYM, Known, Scope
from compliance.redaction import Decides, Redacted, Scans, Unredactable, known_kinds, redact_body, redact_text
from compliance.scan import SEPARATOR, NotScanned, Scanner
from compliance.sought import Sought

SCANNER = Scanner()
KEY = b"k" * 32
SSN = "219-09-9999"


def scope(*known: Known, limit: int = 10_000) -> Scope:
    return Scope("s", KEY, known, limit=limit)


def always(kind: str) -> Action:
    return "redact"


def redact(body: Any, to: Scope | None = None, *, scanner: Scans = SCANNER, decides: Decides = always) -> Redacted:
    return redact_body(json.dumps(body).encode(), scanner, decides, to or scope(), health=True)


def chat(*texts: str, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text} for text in texts], **more}


class Words:
    """Finds words: as `kinds` says, by pattern."""

    def __init__(self, **kinds: str) -> None:
        self.kinds = kinds

    def spans(self, text: str, parts: Sequence[str] = (), *, health: bool = False) -> list[Span]:
        return [Span(kind, *m.span(), 1.0) for kind, pattern in self.kinds.items() for m in re.finditer(pattern, text)]

    def forms(self, text: str, parts: Sequence[str] = ()) -> list[Form]:
        return []

    def inspect(self, body: Any, *, health: bool = False) -> Inspection:
        return Inspection(tuple([Finding(s.type, "", 0, 0) for s in self.spans(SEPARATOR.join(collect(body).strings))]))


def test_the_257th_identifier_goes_like_the_first() -> None:
    numbers = [f"{100 + n // 90}-{10 + n % 90}-{1000 + n}" for n in range(700)]
    left = redact(chat(" and ".join(f"SSN {number}" for number in numbers), "bare " + numbers[-1]))
    assert not any(number.encode() in left.raw for number in numbers)
    assert dict(left.counts)["ssn"] == 701


def test_only_what_the_rules_want_is_replaced() -> None:
    def decides(kind: str) -> Action:
        return "redact" if kind == "ssn" else "allow"

    left = redact(chat(f"SSN {SSN}, mail a.lee@example.org"), decides=decides)
    assert b"a.lee@example.org" in left.raw and SSN.encode() not in left.raw


def test_what_must_stay_is_not_sent_replaced() -> None:
    """The first look did not see it (it sees so many of a kind); this one does."""

    def decides(kind: str) -> Action:
        return "keep_local" if kind == "ssn" else "redact"

    with pytest.raises(Unredactable, match="ssn"):
        redact(chat(f"SSN {SSN}"), decides=decides)


def test_a_value_found_by_its_label_is_found_bare() -> None:
    body = chat(
        "Patient name: Zbigna Quorl-Test.",
        "QUORL! zbigna quorl-test, MRN: A-774411",
        "a-774411 is in XA-774411, not A-7744112",
    )
    left = redact(body, scanner=Words(name="Zbigna Quorl-Test", mrn="(?<=MRN: )A-774411"))
    texts = [message["content"] for message in json.loads(left.raw)["messages"]]
    (whole,), (part, _, number) = PSEUDONYM.findall(texts[0]), PSEUDONYM.findall(texts[1])
    assert texts[1] == f"{part}! {whole}, MRN: {number}"
    assert texts[2] == f"{number} is in X{number}, not A-7744112"


def test_parts_of_a_name_that_are_plain_words_are_found_as_they_are_written() -> None:
    left = redact(
        chat("Patient: Rose Dunmorrow.", "rose oil for Dunmorrow_scan.pdf and ROSE"),
        scanner=Words(name="Rose Dunmorrow"),
    )
    text = json.loads(left.raw)["messages"][1]["content"]
    assert re.fullmatch(r"rose oil for \[NAME_\w+\]_scan.pdf and \[NAME_\w+\]", text)


NAME = "Odalys Ferncastle"
AGAIN = [
    ("name", NAME, text)
    for text in (
        "ferncastle", "FERNCASTLE", "odalys_ferncastle", "OdalysFerncastle", "ferncastleOdalys", "oferncastle",
        "ferncastle_odalys_2024.pdf", "ferncastle_dob", "myFerncastleNote", "Fern-castle", "odalys.f@example.org",
        "\uff26erncastle", "Fern\u200bcastle", "RmVybmNhc3RsZQ==",
    )
] + [
    ("mrn", "83920174", text)
    for text in (
        "8392-0174", "83 92 01 74", "8 3 9 2 0 1 7 4", "83.920.174", "id83920174", "file83920174.pdf", "8392<br>0174",
        "8\u200b3\u200b9\u200b20174", "\uff18\uff13\uff19\uff12\uff10\uff11\uff17\uff14", "%38%33%39%32%30%31%37%34",
        "&#56;&#51;&#57;&#50;&#48;&#49;&#55;&#52;", "ODM5MjAxNzQ=", "\u0668\u0663\u0669\u0662\u0660\u0661\u0667\u0664",
        "eight three nine two zero one seven four",
    )
] + [
    ("plan", "ABC123456", "ABC-123456"),
    ("plan", "ABC-1234567", "1234567"),
    *[("ssn", SSN, text) for text in ("219_09_9999", "219,09,9999", "219099999-2", "x219099999y", "9219099999")],
    *[("date", "1945-03-12", text) for text in ("19450312", "3/12/1945", "12.03.1945")],
    *[("date", "March 12, 1945", text) for text in ("19450312", "1945-03-12")],
    *[("phone", "+1 (512) 555-0147", text) for text in ("555-0147", "wa.me/15125550147", "5125550147")],
    ("account", "4417-882-19", "441788219"),
    ("staff", "EMP 774-4112", "emp7744112"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value", "again"), AGAIN)
def test_a_known_value_stands_nowhere_else_in_any_form(kind: str, value: str, again: str) -> None:
    class Once(Words):
        def forms(self, text: str, parts: Sequence[str] = ()) -> list[Form]:
            return SCANNER.forms(text, parts)

    finder = Once(**{kind: f"(?<=it is ){re.escape(value)}"})
    first = scope()
    left = json.loads(redact(chat(f"it is {value}.", f"see {again} here"), first, scanner=finder).raw)
    assert again not in left["messages"][1]["content"] and PSEUDONYM.search(left["messages"][1]["content"])
    later = json.loads(redact(chat(f"see {again} here"), scope(*first.added), scanner=finder).raw)
    assert later["messages"][0] == left["messages"][1]


@pytest.mark.parametrize(
    "text",
    [
        "all challenges were met", "a parallel engine", "normal length", "the 1839201745 th", "8.3 of 92 or 0174",
        "rose and mark leer", "remark leery", "ferns at the castle",
    ],
)  # fmt: skip
def test_what_only_looks_like_a_known_value_stays(text: str) -> None:
    values = [("name", "Mark Lee"), ("name", "Rose Allen"), ("name", NAME), ("mrn", "83920174"), ("ip", "10.0.0.12")]
    known = [Known(f"[X_abc{chr(97 + n)}]", kind, value) for n, (kind, value) in enumerate(values)]
    assert json.loads(redact(chat(text), scope(*known)).raw)["messages"][0]["content"] == text


SPLIT: list[tuple[Any, str]] = [
    ({"SSN 219-09": {"9999": True}}, "219-09\n9999"),
    ({"ssn": {"219": {"09": {"9999": 1}}}}, "219\n09\n9999"),
    ({"SSN 219-09-": "9999"}, "219-09-\n9999"),
    ({"card 4111 1111": {"1111 1111": True}}, "4111 1111\n1111 1111"),
]


@pytest.mark.parametrize(("value", "found"), SPLIT)
def test_a_value_that_is_split_over_keys_is_replaced_in_each(value: Any, found: str) -> None:
    use = {"type": "tool_use", "id": "u", "name": "f", "input": value}
    body = chat("x") | {"messages": [{"role": "assistant", "content": [use]}]}
    left = json.loads(redact(body, scanner=Words(ssn=re.escape(found))).raw)["messages"][0]["content"][0]["input"]
    assert not re.search("219|09|9999|1111", json.dumps(left))
    arguments = {"name": "f", "arguments": json.dumps(value)}
    call = {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": arguments}]}
    left = json.loads(redact(chat("x") | {"messages": [call]}, scanner=Words(ssn=re.escape(found))).raw)
    assert not re.search("219|09|9999|1111", left["messages"][0]["tool_calls"][0]["function"]["arguments"])


@pytest.mark.parametrize("number", [482133, 48213377, -482133, 4821.0])
def test_a_short_number_under_a_label_is_replaced(number: float) -> None:
    use = {"type": "tool_use", "id": "u", "name": "f", "input": {"patient_mrn": number, "age": 7}}
    left = redact(chat("x") | {"messages": [{"role": "assistant", "content": [use]}]}, scanner=Words(mrn="4821[0-9]*"))
    made = json.loads(left.raw)["messages"][0]["content"][0]["input"]
    assert PSEUDONYM.fullmatch(made["patient_mrn"]) and made["age"] == 7


def test_law_01_a_split_value_in_a_dialects_own_part_is_refused() -> None:
    tools = [{"type": "function", "function": {"name": "219-09"}}, {"9999": True}]
    with pytest.raises(Unredactable):
        redact(chat("x", tools=tools), scanner=Words(ssn="219-09\n9999"))


def test_law_01_a_known_value_that_is_split_over_messages_does_not_leave() -> None:
    one = Known("[SSN_abcd]", "ssn", SSN)
    for fill in ("", "la " * 100):
        texts = chat(f"{fill}and 219-", f"09-9999 too {fill}")
        left = json.loads(redact(texts, scope(one), scanner=Words(x="$^")).raw)["messages"]
        assert [PSEUDONYM.sub("_", message["content"]) for message in left] == [f"{fill}and _", f"_ too {fill}"]


def test_what_a_session_knows_is_seen_in_a_request() -> None:
    sought = Sought([("name", NAME), ("ssn", SSN)])

    def kinds(*texts: str, beside: str = "", **more: Any) -> set[str]:
        return set(known_kinds(json.dumps(chat(*texts, **more)).encode(), beside, SCANNER, sought))

    assert kinds("what of Ferncastle and 219099999?") == {"name", "ssn"}
    assert kinds("hello", beside="q=ferncastle") == {"name"}
    assert kinds("hello", metadata={"MjE5MDk5OTk5": 1}) == {"ssn"}
    assert kinds("nothing of it", beside="q=fern") == set()
    with pytest.raises(NotScanned):
        known_kinds(b"\xff", "", SCANNER, sought)


def test_numbers_are_found_in_any_grouping() -> None:
    left = redact(chat(f"SSN {SSN}", "again 219 09 9999, 219099999."))
    assert len(set(PSEUDONYM.findall(left.raw.decode()))) == 1
    assert dict(left.counts) == {"ssn": 3}


def test_what_the_scope_knows_is_replaced_when_its_label_is_cut_off() -> None:
    first = scope()
    redact(chat("Patient: Rosella Dunmorrow."), first, scanner=Words(name="(?<=Patient: )Rosella Dunmorrow"))
    later = scope(*first.added)
    left = redact(chat("Is Rosella Dunmorrow well?"), later, scanner=Words(name="(?<=Patient: )Rosella Dunmorrow"))
    assert first.added[0].pseudonym in left.raw.decode()
    assert later.original(first.added[0].pseudonym) == "Rosella Dunmorrow"


def test_a_value_split_over_parts_is_replaced_in_each() -> None:
    left = redact({"model": "m", "input": ["number QX-12", "3456 is it"]}, scanner=Words(mrn="QX-12\n3456"))
    assert [PSEUDONYM.sub("_", text) for text in json.loads(left.raw)["input"]] == ["number _", "_ is it"]


REFUSED: dict[str, dict[str, Any]] = {
    "a dialect's number": chat("SSN below", seed=219099999, ssn=219099999),
    "an id": chat("x") | {"messages": [{"role": "tool", "tool_call_id": SSN, "content": "x"}]},
    "a tool's name": chat("x", tools=[{"type": "function", "function": {"name": SSN}}]),
    "a known value in an id": chat(f"SSN {SSN}") | {"previous_response_id": f"r-{SSN}"},
    "the model": chat("x") | {"model": SSN},
    "a signature": chat("x")
    | {"messages": [{"role": "assistant", "content": [{"type": "thinking", "thinking": "t", "signature": SSN}]}]},
    "two keys that would be one": chat("x", metadata={SSN: 1, SSN.replace("-", " "): 2}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_law_01_what_cannot_be_replaced_is_refused(case: str) -> None:
    with pytest.raises(Unredactable):
        redact(REFUSED[case])


def test_a_text_document_is_text() -> None:
    source = {"type": "text", "media_type": "text/plain", "data": f"SSN {SSN} of her"}
    body = chat("x") | {"messages": [{"role": "user", "content": [{"type": "document", "source": source}]}]}
    assert b"of her" in redact(body).raw


class Twice(Words):
    """Sees more once the first is gone; `deep`: always more."""

    def __init__(self, deep: bool) -> None:
        super().__init__(name="Alpha")
        self._deep = deep

    def spans(self, text: str, parts: Sequence[str] = (), *, health: bool = False) -> list[Span]:
        if "Alpha" not in text:
            self.kinds = {"name": "Beta" if "Beta" in text or not self._deep else "Gamma|Delta|$^"}
        return super().spans(text)

    def inspect(self, body: Any, *, health: bool = False) -> Inspection:
        text = SEPARATOR.join(collect(body).strings)
        left = "Beta" in text or (self._deep and "Omega" in text)
        return Inspection((Finding("name", "", 0, 0),) if left else ())


def test_what_comes_up_after_the_first_round_is_replaced_in_the_next() -> None:
    assert b"Beta" not in redact(chat("Alpha and Beta"), scanner=Twice(deep=False)).raw
    with pytest.raises(Unredactable, match="left"):
        redact(chat("Alpha and Beta and Omega"), scanner=Twice(deep=True))


def test_law_08_what_was_not_scanned_to_its_end_does_not_leave() -> None:
    class Fails(Words):
        def spans(self, text: str, parts: Sequence[str] = (), *, health: bool = False) -> list[Span]:
            raise NotScanned

    with pytest.raises(Unredactable, match="scanned"):
        redact(chat("x"), scanner=Fails())


def test_opaque_parts_leave_only_where_they_may() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 400}}
    body = chat("x") | {"messages": [{"role": "user", "content": [{"type": "text", "text": f"SSN {SSN}"}, image]}]}
    with pytest.raises(Unredactable):
        redact(body, decides=lambda kind: "keep_local" if kind == "opaque" else "redact")
    left = redact(body, decides=lambda kind: "allow" if kind == "opaque" else "redact")
    assert b"A" * 400 in left.raw and SSN.encode() not in left.raw


def test_a_full_scope_redacts_nothing() -> None:
    with pytest.raises(Unredactable, match="scope"):
        redact(chat(f"SSN {SSN}, SSN 219-09-9998"), scope(limit=1))


def test_a_reason_holds_nothing_of_the_request() -> None:
    for body in REFUSED.values():
        with pytest.raises(Unredactable) as caught:
            redact(body)
        assert "219" not in str(caught.value)


def test_a_label_does_not_make_a_finding_of_its_own_pseudonym() -> None:
    """`MRN: [MRN_k7f2]` is a label and a token with a digit; it is what was put there."""
    for number in range(40):
        text = f"MRN: A{number}774411, account number 99{number}81723, member ID W{number}4442211, SSN {100 + number}-45-6789"
        left = redact(chat(text))
        assert left.raw.count(b"[") == 5


def test_a_plain_text() -> None:
    text = f"SSN {SSN} of [NAME_k7f2], again 219099999"
    one = scope()
    made = redact_text(text, SCANNER.spans(text), one)
    assert SSN not in made and "219099999" not in made and "[NAME_k7f2]" not in made
    assert PSEUDONYM.sub(lambda match: one.original(match.group()) or "?", made) == text.replace("219099999", SSN)
    assert redact_text("nothing", [], one) == "nothing"
    both = [Span("name", 0, 8, 0.9), Span("place", 4, 13, 0.9)]
    assert PSEUDONYM.fullmatch(redact_text("Anna Lee Town", both, one))
