"""Values split over fields: found in their pieces, and rows of numbers left alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from growth import linear

from compliance.fields import collect
from compliance.scan import Scanner
from compliance.splits import MAX_PIECES, may_go_on

SCANNER = Scanner()


def user(*parts: str) -> dict[str, Any]:
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": [{"type": "text", "text": p} for p in parts]}]}


def talk(*turns: str) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {"model": "m", "messages": [{"role": roles[i % 2], "content": turn} for i, turn in enumerate(turns)]}


def said(*turns: tuple[str, str]) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": role, "content": text} for role, text in turns]}


def call(arguments: Any, result: str = "ok") -> dict[str, Any]:
    function = {"name": "f", "arguments": json.dumps(arguments)}
    return {
        "model": "m",
        "messages": [
            {"role": "assistant", "tool_calls": [{"id": "call_1", "type": "function", "function": function}]},
            {"role": "tool", "tool_call_id": "call_1", "content": result},
        ],
    }


def found(body: dict[str, Any]) -> list[tuple[str, str, int, int]]:
    """What is found, but for telephone numbers: the key `text` is a label of them, too."""
    return [(one.type, one.path, one.start, one.end) for one in SCANNER.inspect(body).findings if one.type != "phone"]


PART = "messages[0].content[{}].text"
ARGUMENTS = "messages[0].tool_calls[0].function.arguments"

SPLIT: list[tuple[dict[str, Any], list[tuple[str, str, int, int]]]] = [
    (user("it is 123-45-", "6789, ok"), [("ssn", PART.format(0), 6, 13), ("ssn", PART.format(1), 0, 4)]),
    (user("it is 123-45", "6789, ok"), [("ssn", PART.format(0), 6, 12), ("ssn", PART.format(1), 0, 4)]),
    (user("4111 1111", "1111 1111"), [("card", PART.format(0), 0, 9), ("card", PART.format(1), 0, 9)]),
    (user("41111", "11111111111"), [("card", PART.format(0), 0, 5), ("card", PART.format(1), 0, 11)]),
    (user("write to john@", "example.org"), [("email", PART.format(0), 9, 14), ("email", PART.format(1), 0, 11)]),
    (user("john@exam", "ple.org"), [("email", PART.format(0), 0, 9), ("email", PART.format(1), 0, 7)]),
    (user("john", "@example.org"), [("email", PART.format(0), 0, 4), ("email", PART.format(1), 0, 12)]),
    (user("it is NzYzLTM0", "LTU2NjE="), [("ssn", PART.format(0), 6, 14), ("ssn", PART.format(1), 0, 8)]),
    (
        user("SSN one two three four", "five six seven eight nine"),
        [("ssn", PART.format(0), 4, 22), ("ssn", PART.format(1), 0, 25)],
    ),
    (
        talk("it starts with 123-45-", "Go on.", "6789"),
        [("ssn", "messages[0].content", 15, 22), ("ssn", "messages[2].content", 0, 4)],
    ),
    (
        call({"a": "123-45-", "b": ["6789"]}),
        [("ssn", ARGUMENTS, 7, 14), ("ssn", ARGUMENTS, 24, 28)],
    ),
    (call({"a": "123-45-"}, "6789"), [("ssn", ARGUMENTS, 7, 14), ("ssn", "messages[1].content", 0, 4)]),
    ({"metadata": {"123-45-": 1, "6789": 2}}, [("ssn", "metadata.*", 0, 7), ("ssn", "metadata.*", 0, 4)]),
    ({"user": "123-45-", "metadata": {"x": "6789"}}, [("ssn", "user", 0, 7), ("ssn", "metadata.*", 0, 4)]),
    ({"input": ["4111", "1111", "1111", "1111"]}, [("card", f"input[{i}]", 0, 4) for i in range(4)]),
    ({"input": list("4111111111111111")}, [("card", f"input[{i}]", 0, 1) for i in range(16)]),
    ({"metadata": {"x": [4111, 1111, 1111, 1111]}}, [("card", "metadata.*", 0, 0)]),
    (
        {"messages": [{"role": "user", "name": "123-45", "content": "-6789"}]},
        [("ssn", "messages[0].name", 0, 6), ("ssn", "messages[0].content", 0, 5)],
    ),
    ({"metadata": {"id": "123-45", "name": "-6789"}}, [("ssn", "metadata.*", 0, 6), ("ssn", "metadata.*", 0, 5)]),
    ({"metadata": {"type": "123-45", "role": "-6789"}}, [("ssn", "metadata.*", 0, 6), ("ssn", "metadata.*", 0, 5)]),
    (
        call([{"id": 0, "text": "4111 1111"}, {"id": 1, "text": "1111 1111"}]),
        [("card", ARGUMENTS, 20, 29), ("card", ARGUMENTS, 52, 61)],
    ),
    (
        call([{"id": "0", "text": "123-"}, {"id": "1", "text": "45-6789"}]),
        [("ssn", ARGUMENTS, 22, 26), ("ssn", ARGUMENTS, 51, 58)],
    ),
    (
        {"metadata": {"x": [{"n": "7", "t": "DE89 3704 0044"}, {"n": "8", "t": "0532 0130 00"}]}},
        [("iban", "metadata.*[0].*", 0, 14), ("iban", "metadata.*[1].*", 0, 12)],
    ),
    (
        said(("system", "SSN 123"), ("user", "456789")),
        [("ssn", "messages[0].content", 4, 7), ("ssn", "messages[1].content", 0, 6)],
    ),
    (
        {"input": ["123", "-", "45-6789"]},
        [("ssn", "input[0]", 0, 3), ("ssn", "input[1]", 0, 1), ("ssn", "input[2]", 0, 7)],
    ),
    (
        {"input": ["SSN 1", "23", "456789"]},
        [("ssn", "input[0]", 4, 5), ("ssn", "input[1]", 0, 2), ("ssn", "input[2]", 0, 6)],
    ),
    ({"input": ["it is 123-45-", "", "6789"]}, [("ssn", "input[0]", 6, 13), ("ssn", "input[2]", 0, 4)]),
    (call(["it is 123-45-", " ", "6789"]), [("ssn", ARGUMENTS, 8, 15), ("ssn", ARGUMENTS, 24, 28)]),
    (said(("user", "MRN: "), ("user", "12345678")), [("mrn", "messages[1].content", 0, 8)]),
    (said(("assistant", "What is the MRN?"), ("user", "12345678, I think")), [("mrn", "messages[1].content", 0, 8)]),
    (
        said(("user", "My account number is"), ("assistant", "Go on."), ("user", "12345678")),
        [("account", "messages[2].content", 0, 8)],
    ),
]


@pytest.mark.parametrize("case", range(len(SPLIT)))
def test_a_split_value_is_found_in_its_pieces(case: int) -> None:
    body, expected = SPLIT[case]
    assert found(body) == expected


WHOLE: list[dict[str, Any]] = [
    {"input": ["4111", "1111", "1111", "1111", "1111"]},  # a row of five
    {"input": ["2019", "2020", "2021", "2022"]},
    {"input": ["123", "45", "678"]},
    {"input": ["0.120", "0.340", "0.56"]},
    talk("4111", "1111", "1111", "1111"),  # two people count
    talk("41", "1", "11", "2", "111", "3", "1111", "4", "111111"),  # uneven answers
    user("version 1.2", "3.4 is out"),
    user("I was there in 2020", "2021 was better"),
    user("mail me@work", "then 12 of us"),
    call({"rows": [["12", "7"], ["31", "9"]]}, json.dumps(["2020-01", "2020-02"])),
    {"metadata": {"a": "555", "b": "867", "c": "5309"}},
    talk("Explain the refund policy", "12345-67 is its version"),
    talk("Is there a record", "12345678 rows were read"),
    call([{"n": 4111, "t": "a"}, {"n": 1111, "t": "b"}, {"n": 1111, "t": "c"}, {"n": 1111, "t": "d"}]),
    call([{"t": "4111", "u": "5"}, {"t": "1111", "u": "5"}, {"t": "1111", "u": "5"}, {"t": "1111", "u": "5"}]),
    {"metadata": {"rows": [{"plan": 4111, "number": 1111}, {"plan": 1111, "number": 1111}]}},
]


@pytest.mark.parametrize("case", range(len(WHOLE)))
def test_rows_of_numbers_are_no_identifier(case: int) -> None:
    assert found(WHOLE[case]) == []


def test_what_a_field_holds_whole_is_found_once() -> None:
    assert found(user("john@example.org", "and 12 more")) == [("email", PART.format(0), 0, 16)]
    assert found(user("my SSN is 123-45-6789", "0")) == [("ssn", PART.format(0), 10, 21)]


@pytest.mark.parametrize(
    ("parts", "seen"),
    [(("call (555) 867", "5309 ok"), True), (("555 867", "5309 ok"), False), (("(555) 8", "67"), False)],
)
def test_a_telephone_number_in_two_is_found_where_it_is_written_as_one(parts: tuple[str, str], seen: bool) -> None:
    found = SCANNER.inspect({"input": list(parts)}, health=True).findings
    assert ("phone" in {one.type for one in found}) == seen


def test_an_ordinary_request_is_not_looked_at_twice() -> None:
    plain = talk("What is the capital of France?", "Paris.", "And of Spain? I need 2 answers.")
    assert not may_go_on(collect(plain).strings)
    assert not may_go_on(collect(said(("user", "Tell me of the policy."), ("assistant", "Which?"))).strings)
    assert may_go_on(collect(user("123-45-", "6789")).strings)


def test_long_rows_are_data() -> None:
    assert found({"input": list("4111111111111111")})
    assert found({"input": list("4111111111111111") + ["7"] * MAX_PIECES}) == []


@pytest.mark.parametrize(
    "fields",
    [["1"] * 50_000, ["a1"] * 50_000, ["1" * 100, "x"] * 20_000, ["a@b"] * 30_000, ["{"] * 30_000, ['{"a":"1"}'] * 20_000,
     ["1" * 5_000 + "-"] * 200],
)  # fmt: skip
def test_many_fields_are_not_slow(fields: list[str]) -> None:
    linear(lambda some: SCANNER.inspect({"input": some}), fields[: len(fields) // 4], fields)
