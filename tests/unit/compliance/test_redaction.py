"""Redaction of bodies: what is replaced and where, and what is refused instead."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest

from compliance.detectors.automaton import Span
from compliance.fields import collect
from compliance.model import Action, Finding
from compliance.pseudonyms import PSEUDONYM, Known, Scope
from compliance.redaction import Decides, Redacted, Scans, Unredactable, redact_body, redact_text
from compliance.scan import SEPARATOR, Inspection, NotScanned, Scanner

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
        "a-774411 is not XA-774411 nor A-7744112",
    )
    left = redact(body, scanner=Words(name="Zbigna Quorl-Test", mrn="(?<=MRN: )A-774411"))
    texts = [message["content"] for message in json.loads(left.raw)["messages"]]
    (whole,), (number,) = PSEUDONYM.findall(texts[0]), PSEUDONYM.findall(texts[2])
    assert texts[1] == f"QUORL! {whole}, MRN: {number}"
    assert texts[2] == f"{number} is not XA-774411 nor A-7744112"


def test_parts_of_a_name_are_found_as_they_are_written() -> None:
    left = redact(
        chat("Patient: Rosella Dunmorrow.", "rosella oil for Dunmorrow_scan.pdf"),
        scanner=Words(name="Rosella Dunmorrow"),
    )
    text = json.loads(left.raw)["messages"][1]["content"]
    assert re.fullmatch(r"rosella oil for \[NAME_\w+\]_scan.pdf", text)


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
