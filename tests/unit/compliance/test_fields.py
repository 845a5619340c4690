from __future__ import annotations

import json
import time
from typing import Any

import pytest

from compliance.fields import MAX_DEPTH, TooDeep, collect, is_tokens, located


def strings(value: Any) -> list[str]:
    return collect(value).strings


def test_keys_values_and_long_numbers_in_document_order() -> None:
    body = {"a": ["x", {"ssn": 123456789}], "b": True, "c": None, "d": 12345, "e": -1234567890.0}
    assert strings(body) == ["a", "x", "ssn", "123456789", "b", "c", "d", "e", "-1234567890"]


def test_numbers_keep_their_digits_and_get_their_leading_zeros_back() -> None:
    assert strings([4111111111111111111, 4111111111111111.0, 12345678, 1234567, 123456]) == [
        "4111111111111111111",
        "4111111111111111",
        "4111111111111110",  # it may have had a fraction that was rounded up when it was parsed
        "012345678",
        "001234567",
    ]


def test_escapes_inside_nested_json_are_decoded() -> None:
    text = '{"ssn": "\\u0031\\u0032\\u0033-45-6789"}'
    assert strings({"arguments": text}) == ["arguments", text, "ssn", "123-45-6789"]
    assert strings(json.dumps({"x": text})) == [json.dumps({"x": text}), "x", text, "ssn", "123-45-6789"]


def test_escapes_in_what_is_no_json_are_left_to_the_forms() -> None:
    texts = ["say \\u0041\\u0042", '{"a": "\\ud800", "b": "\\u0031"', "C:\\users"]
    assert strings(texts) == texts


def test_whole_numbers_of_a_list_that_may_be_one_number_are_read_as_one() -> None:
    assert strings([4111, 1111, 1111, 1111]) == ["4111111111111111"]
    assert strings({"x": [123, 45, 6789]}) == ["x", "123456789"]
    assert strings([1, 2, 3]) == strings([640, 480]) == strings([True, 1]) == strings([-1] * 16) == []
    assert strings([4] * 20) == []
    assert [(field.text, field.exact) for field in located([4] * 16)] == [("4" * 16, False)]


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ({"mrn": 482133}, ["482133"]),
        ({"patient_id": 48213, "width": 48213}, ["48213"]),
        ({"records": [{"value": 4821}, [4822]]}, ["4821", "4822"]),
        ({"zip": 2139}, ["02139"]),
        ({"ssn_last4": 82}, ["0082"]),
        ({"age": 93, "ages": 12, "page": 93, "pageNo": 93}, ["93"]),
        ({"ssn": 512.449182}, ["512.449182"]),
        ({"ssn": 0.512449182, "x": 0.512449182}, [".512449182"]),
        ({"x": 12345678.75}, ["012345678"]),
        ({"x": 1e400, "ssn": -1e400}, []),
        ({"max_tokens": 4096, "seed": 123456, "n": 12, "width": 1024, "x": True, "id": 4096}, []),
    ],
)
def test_short_numbers_are_seen_where_a_key_labels_them_and_are_not_rounded(value: Any, seen: list[str]) -> None:
    assert [text for text in strings(value) if text.lstrip(".")[:1].isdigit()] == seen


@pytest.mark.parametrize(
    "value",
    [
        [123, 45, 6789],
        [123.0, 45.0, 6789.0],
        {"area": 123, "group": 45, "serial": "6789"},
        [[123], ["45"], {"x": 6789}],
    ],
)
def test_the_pieces_of_one_number_under_a_label_are_read_as_one_with_it(value: Any) -> None:
    assert "ssn: 123-45-6789" in strings({"ssn": value})
    assert "ssn: 123-45-6789" in strings({"arguments": json.dumps({"a": [{"ssn": value}]})})
    assert not [text for text in strings({"sizes": value}) if "-45-" in text]


def test_lost_zeros_of_groups_come_back_and_what_is_no_piece_joins_nothing() -> None:
    assert "ssn: 001-02-0003" in strings({"ssn": [1, 2, 3]})
    assert "mrn: 83920174" in strings({"mrn": [8, 3, 9, 2, 0, 1, 7, 4]})
    for value in ([8392, None, 174], [8392, "left"], [8392, 1.5, 174], [8392], ["1"] * 40, [83, 9]):
        assert not [text for text in strings({"mrn": value}) if text.startswith("mrn: ")]


def test_labels_within_labels_are_not_slow() -> None:
    value: Any = [[[[] for _ in range(34)] for _ in range(34)] for _ in range(34)]
    for _ in range(MAX_DEPTH - 4):
        value = {"ssn": value}
    began = time.process_time()
    assert collect(value).strings == ["ssn"] * (MAX_DEPTH - 4)
    assert collect([json.dumps(value), '"ssn": [' * 50_000]).strings
    assert time.process_time() - began < 1.0


def test_a_type_that_is_a_list_is_no_part() -> None:
    schema = {"type": "object", "properties": {"x": {"type": ["string", "null"]}, "y": {"type": {"a": 1}}}}
    assert collect({"tools": [{"function": {"parameters": schema}}]}).opaque == 0


def nested(depth: int) -> Any:
    value: Any = "123-45-6789"
    for _ in range(depth):
        value = [value]
    return value


def test_depth_is_bounded_also_through_nested_json() -> None:
    assert strings(nested(MAX_DEPTH)) == ["123-45-6789"]
    with pytest.raises(TooDeep):
        collect(nested(MAX_DEPTH + 1))
    with pytest.raises(TooDeep):
        collect({"arguments": json.dumps([nested(MAX_DEPTH), "\\"])})
    with pytest.raises(TooDeep):
        collect({"arguments": "[" * 100_000 + '"\\u0031"'})  # deeper than the decoder itself goes


PICTURE = "iVBORw0KGgo" + "A" * 300

OPAQUE: dict[str, Any] = {
    "image_url": {"type": "image_url", "image_url": {"url": "https://host/x.png"}},
    "short data url": {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    "image": {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PICTURE}},
    "audio": {"type": "input_audio", "input_audio": {"data": PICTURE, "format": "wav"}},
    "file": {"type": "file", "file": {"file_data": "data:application/pdf;base64," + PICTURE}},
    "file id": {"type": "file", "file": {"file_id": "file-1"}},
    "pdf": {"type": "document", "source": {"type": "base64", "data": PICTURE}},
    "a data url as text": {"type": "text", "text": "data:image/png;base64," + PICTURE},
    "a picture in a text": {"type": "text", "text": f"look ![x](data:image/png;base64,{PICTURE}) here"},
    "tokens": {"input": [1, 2, 3]},
    "lists of tokens": {"input": [[1, 2], [3]]},
}


@pytest.mark.parametrize("name", OPAQUE)
def test_what_cannot_be_scanned_is_opaque(name: str) -> None:
    body = {"messages": [{"content": [OPAQUE[name]]}]}
    assert collect(body).opaque >= 1
    assert PICTURE not in strings(body)
    assert [field.path for field in located(body) if field.lane == "opaque"]


def test_a_data_url_of_text_is_opaque_and_scanned() -> None:
    for kind in ("text/plain;charset=utf-8", "application/gzip"):
        url = f"data:{kind};base64,{'QUJD' * 100}"
        fields = collect({"content": url})
        assert (fields.opaque, fields.strings) == (1, ["content", url])
        assert [field.lane for field in located({"content": url})] == ["text", "opaque", "text"]


def test_a_document_of_text_is_text() -> None:
    fields = collect({"type": "document", "source": {"type": "text", "data": "My name. " * 40}})
    assert fields.opaque == 0
    assert "My name. " * 40 in fields.strings


@pytest.mark.parametrize(
    "body",
    [
        {"content": "data:x;base64, My SSN is 123-45-6789 " + "x " * 200},
        {"data": "A" * 256 + " SSN 123-45-6789"},
        {"file_data": "data:application/pdf;base64," + "A" * 256 + " SSN 123-45-6789"},
    ],
)
def test_what_only_begins_like_base64_is_scanned(body: dict[str, str]) -> None:
    assert next(iter(body.values())) in strings(body)


def test_text_among_tokens_is_scanned() -> None:
    fields = collect({"input": [1, "SSN 123-45-6789", [2, "x"]]})
    assert fields.opaque == 2
    assert fields.strings == ["input", "SSN 123-45-6789", "x"]


def test_is_tokens() -> None:
    assert is_tokens([1]) and is_tokens([[1]])
    assert not is_tokens(["a"]) and not is_tokens([[]]) and not is_tokens([["a"]]) and not is_tokens([True])


def test_paths_and_lanes() -> None:
    body = {
        "model": "m",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "T0"}]},
            {
                "role": "assistant",
                "tool_calls": [{"function": {"name": "f", "arguments": '{"who": "\\u0054\\u0031"}'}}],
            },
            {"role": "tool", "tool_call_id": "1", "content": "T2"},
            {"role": "user", "content": [{"type": "tool_result", "content": "T3"}]},
            {"role": "assistant", "content": [{"type": "tool_use", "input": {"who": "T4"}}]},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "T5"}]},
            {"patient": "T6"},
        ],
        "metadata": {"name": "T7"},
        "user": "T8",
        "tools": [{"function": {"parameters": {"properties": {"content": {"description": "T9"}}}}}],
    }
    places = {field.text: (field.path, field.lane) for field in located(body)}
    assert {name: places[name] for name in (f"T{i}" for i in range(10))} == {
        "T0": ("messages[0].content[0].text", "text"),
        "T1": ("messages[1].tool_calls[0].function.arguments.*", "tool_arguments"),
        "T2": ("messages[2].content", "tool_result"),
        "T3": ("messages[3].content[0].content", "tool_result"),
        "T4": ("messages[4].content[0].input.*", "tool_arguments"),
        "T5": ("messages[5].content[0].thinking", "reasoning"),
        "T6": ("messages[6].*", "text"),
        "T7": ("metadata.*", "metadata"),
        "T8": ("user", "metadata"),
        "T9": ("tools[0].function.parameters.*.*.*", "text"),
    }
