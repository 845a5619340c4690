from __future__ import annotations

import json
import threading
from typing import Any

import pytest
import re2

from compliance.answers import CARRY, MAX_LANES, WINDOW, AnswerScanner
from compliance.detectors.model import Span
from compliance.model import Finding
from compliance.scan import MAX_FINDINGS, NOTHING, Scanner

SCANNER = Scanner()


def body(content: Any, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": content}], **more}


def kinds(value: Any) -> list[tuple[str, str]]:
    return [(finding.type, finding.path) for finding in SCANNER.inspect(value).findings]


def test_a_clean_body_has_no_findings() -> None:
    assert SCANNER.inspect(body("What is the capital of France?", max_tokens=10, temperature=0.5)) == NOTHING


def test_findings_say_where() -> None:
    (found,) = SCANNER.inspect(body([{"type": "text", "text": "Ünlü 😀 123-45-6789"}])).findings
    assert (found.type, found.path, found.start, found.end) == ("ssn", "messages[0].content[0].text", 7, 18)


def test_a_key_labels_its_value_number_or_text() -> None:
    assert kinds({"metadata": {"ssn": 123456789}}) == [("ssn", "metadata.*")]
    assert kinds({"metadata": {"ssn": 12345678}}) == [("ssn", "metadata.*")]
    assert kinds({"metadata": {"ssn": "123456789"}}) == [("ssn", "metadata.*")]
    assert kinds({"metadata": {"id": 123456789}}) == []
    assert kinds(body([{"name": "ssn", "value": "123456789"}])) == [("ssn", "messages[0].content[0].*")]


def test_keys_are_scanned_like_values() -> None:
    assert kinds({"metadata": {"a@b.co": "x"}}) == [("email", "metadata.*")]


@pytest.mark.parametrize(
    "body",
    [
        {"SSN 512-44": {"9182": True}},
        {"ssn": {"512": {"44": {"9182": 1}}}},
        {"MRN": {"4821": {"3377": 1}}},
        {"card 4111 1111": {"1111 1111": True}},
    ],
)
def test_a_value_that_stands_in_keys_alone_is_found_in_them(body: dict[str, Any]) -> None:
    found = SCANNER.inspect({"metadata": body}).findings
    assert {one.type for one in found} & {"ssn", "mrn", "card"}
    assert all(one.end > one.start for one in found)


@pytest.mark.parametrize(
    "body",
    [
        {"mrn": 482133},
        {"patient_mrn": 48213},
        {"ssn": {"area": 512, "group": 4, "serial": 9182}},
        {"ssn": [51, 24, 49, 182]},
        {"mrn": [8, 3, 9, 2, 0, 1, 7, 4]},
        {"ssn": 512.449182},
        {"x": 4111111111111111.9},
    ],
)
def test_numbers_are_found_however_json_has_them(body: dict[str, Any]) -> None:
    assert kinds({"metadata": body})
    found = {kind for kind, _ in kinds({"messages": [{"tool_calls": [{"function": {"arguments": json.dumps(body)}}]}]})}
    assert found or "x" in body


def test_a_value_that_is_split_is_found_in_its_pieces() -> None:
    assert SCANNER.inspect(body(["charge 4111 1111", "1111 1111, ok"])).findings == (
        Finding("card", "messages[0].content[0]", 7, 16),
        Finding("card", "messages[0].content[1]", 0, 9),
    )


def test_nested_arguments_are_found_at_their_leaf_whatever_their_escapes() -> None:
    arguments = json.dumps({"q": "x\ny", "deep": [{"card": "4111 1111 1111 1111"}]}).replace("4111", "\\u0034111")
    found = SCANNER.inspect({"messages": [{"tool_calls": [{"function": {"arguments": arguments}}]}]}).findings
    path = "messages[0].tool_calls[0].function.arguments"
    start = arguments.index("\\u0034")
    assert [(one.type, one.path, one.start, one.end) for one in found] == [
        ("card", path, start, start + 24),  # in the string as it was given
        ("card", f"{path}.*[0].*", 0, 0),
    ]


def test_an_escaped_form_has_its_offsets_in_the_original() -> None:
    (found,) = SCANNER.inspect(body("it is \\u0031\\u0032\\u0033-45-6789")).findings
    assert (found.type, found.path, found.start, found.end) == ("ssn", "messages[0].content", 6, 32)


def test_opaque_parts_are_findings() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 5000}}
    assert {kind for kind, _ in kinds(body([picture]))} == {"opaque"}
    both = kinds(body([{"type": "text", "text": "a@b.co"}, picture]))
    assert both[0] == ("email", "messages[0].content[0].text")
    assert ("opaque", "messages[0].content[1]") in both


def test_findings_are_bounded() -> None:
    found = SCANNER.inspect(body("a@b.co " * 1000)).findings
    assert len(found) == MAX_FINDINGS


class Broken:
    def __init__(self, error: Exception) -> None:
        self._error = error

    def find(self, text: str, *, most: int = 0, data: bytes | None = None) -> list[Span]:
        raise self._error


@pytest.mark.parametrize(
    "error", [re2.error("x"), RecursionError(), ValueError(), UnicodeError(), MemoryError(), RuntimeError()]
)
def test_law_08_a_broken_detector_is_a_finding(error: Exception) -> None:
    scanner = Scanner(Broken(error))
    assert [finding.type for finding in scanner.inspect(body("hello")).findings] == ["scan_failed"]
    assert [finding.type for finding in scanner.inspect_text("hello")] == ["scan_failed"]


@pytest.mark.parametrize("value", ["4111 " * 60_000, "[" * 1000 + '"\\u0031"' + "]" * 1000])
def test_law_08_a_text_past_the_bounds_is_a_finding(value: str) -> None:
    assert kinds(body(value)) == [("scan_failed", "")]


def test_law_08_too_much_text_is_a_finding() -> None:
    scanner = Scanner(max_chars=100)
    assert [f.type for f in scanner.inspect(body("x" * 200)).findings] == ["scan_failed"]
    assert [f.type for f in scanner.inspect_text("x" * 200)] == ["scan_failed"]


def test_a_huge_integer_does_not_break_the_scan() -> None:
    assert kinds({"n": 10**400}) == []
    assert kinds({"n": 10**5000}) == [("scan_failed", "")]  # past what Python prints


def test_threads_share_a_scanner() -> None:
    bodies = [body(f"mail {'x' * i}{i}@example.org and 123-45-6789") for i in range(200)]
    expected = [SCANNER.inspect(value) for value in bodies]
    results: list[Any] = [None] * 4

    def work(slot: int) -> None:
        results[slot] = [SCANNER.inspect(value) for value in bodies]

    threads = [threading.Thread(target=work, args=(slot,)) for slot in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 4


# --- answers ---------------------------------------------------------------------------------------------------


def counts(scanner: AnswerScanner) -> dict[tuple[str, str], int]:
    return {(finding.type, finding.path): finding.end for finding in scanner.flush()}


@pytest.mark.parametrize(
    "identifier", ["SSN: 123456789", "4111 1111 1111 1111", "a@b.co", "card no 4111 1111 1111 1112"]
)
def test_an_identifier_is_counted_once_wherever_the_window_is_cut(identifier: str) -> None:
    for before in [*range(WINDOW - CARRY - 60, WINDOW + 20, 7), *range(WINDOW - 40, WINDOW + 5)]:
        scanner = AnswerScanner(SCANNER)
        for character in "x " * (before // 2) + " " * (before % 2) + identifier + " y" * 2 * WINDOW:
            scanner.feed("text", character)
        assert list(counts(scanner).values()) == [1], before


def test_each_identifier_of_a_long_answer_is_counted() -> None:
    scanner = AnswerScanner(SCANNER)
    text = "".join(f"Patient {i}: SSN {100 + i}-45-6789, mail p{i}@example.org. " for i in range(500))
    for at in range(0, len(text), 13):
        scanner.feed("text", text[at : at + 13])
    assert counts(scanner) == {("ssn", "text"): 500, ("email", "text"): 500}


def test_lanes_are_apart() -> None:
    scanner = AnswerScanner(SCANNER)
    for lane, part in (
        ("text", "123-45-"),
        ("tool_arguments", "6789 a@b"),
        ("text", "6789"),
        ("tool_arguments", ".co "),
    ):
        scanner.feed(lane, part)
    assert counts(scanner) == {("ssn", "text"): 1, ("email", "tool_arguments"): 1}


def test_the_end_of_a_long_number_is_no_card() -> None:
    scanner = AnswerScanner(SCANNER)
    after = " y" * ((CARRY - 16) // 2)  # so that the text kept for the next window begins within the number
    scanner.feed("text", "x " * WINDOW + "9" * 300 + "4111111111111111" + after)
    scanner.feed("text", " z" * WINDOW)
    assert counts(scanner) == {}


def test_a_token_longer_than_the_carry_is_counted_once_at_every_cut() -> None:
    token = "eyJhbGciOiJIUzI1NiJ9.eyJ" + "Ab1" * 150 + ".c2ln"
    for before in range(WINDOW - len(token) - 10, WINDOW + 10, 9):
        scanner = AnswerScanner(SCANNER)
        scanner.feed("text", ("x " * WINDOW)[: before - 1] + " " + token[: max(1, WINDOW - before)])
        scanner.feed("text", token[max(1, WINDOW - before) :] + " y" * 2 * WINDOW)
        assert counts(scanner) == {("secret", "text"): 1}, before


def test_memory_is_bounded() -> None:
    scanner = AnswerScanner(SCANNER)
    for number in range(MAX_LANES + 10):
        scanner.feed(f"lane{number}", "a@b.co")
    found = counts(scanner)
    assert found["scan_failed", "*"] == 1
    assert len(found) == MAX_LANES + 1
    token = "eyJ" + "a" * 50 + ".eyJ" + "b" * 100_000
    for text in ("a" * 100_000, "1-" * 50_000, "a@" + "bb." * 30_000, token):
        scanner = AnswerScanner(SCANNER)
        for at in range(0, len(text), 100):
            scanner.feed("text", text[at : at + 100])
            assert sum(map(len, scanner._lanes["text"].parts)) < WINDOW + 100


def test_an_answer_that_was_not_scanned_says_so() -> None:
    scanner = AnswerScanner(Scanner(Broken(ValueError())))
    scanner.feed("text", "x" * 3 * WINDOW)
    assert counts(scanner).keys() == {("scan_failed", "text")}
