"""Parts of strings replaced in JSON text: at their exact place, and nowhere else."""

from __future__ import annotations

import json

import pytest

from compliance.jsontext import Clash, Document, Edit, Leaf, NotJson, apply


def leaf(document: Document, text: str) -> Leaf:
    return next(one for one in document.all_leaves() if one.text == text)


@pytest.mark.parametrize(
    ("token", "start", "end", "expected"),
    [
        (r'"abc"', 1, 2, r'"aXc"'),
        (r'"\u00e9bc"', 1, 2, r'"\u00e9Xc"'),
        (r'"\ud83d\ude00bc"', 1, 2, r'"\ud83d\ude00Xc"'),
        (r'"\"\\\n\/b\tc"', 4, 5, r'"\"\\\n\/X\tc"'),
        ('"\U0001f600é b"', 3, 4, '"\U0001f600é X"'),
        (r'"ab\u0063d"', 2, 3, r'"abXd"'),
        (r'"a\\u0062c"', 1, 7, r'"aXc"'),
        (r'"abc"', 0, 3, r'"X"'),
    ],
)
def test_a_part_of_a_string_is_replaced_in_its_escapes(token: str, start: int, end: int, expected: str) -> None:
    document = Document(f'{{"k" : [ {token} , 1.50 ]}}')
    (value,) = [one for one in document.leaves if one.kind == "string"]
    assert value.text == json.loads(token)
    assert document.replaced({value: [Edit(start, end, "X")]}) == f'{{"k" : [ {expected} , 1.50 ]}}'


def test_what_is_put_in_is_escaped() -> None:
    document = Document('["ab"]')
    assert document.replaced({document.leaves[0]: [Edit(0, 1, '"\\\n')]}) == r'["\"\\\nb"]'


def test_json_in_json_in_json_stays_json() -> None:
    inner = json.dumps({"id": 123456789, "note": 'he said "Ann"'})
    source = json.dumps({"arguments": json.dumps({"deep": inner, "n": [1, 2]})})
    document = Document(source)
    number = next(one for one in document.all_leaves() if one.kind == "number" and one.raw == "123456789")
    note = leaf(document, 'he said "Ann"')
    changed = document.replaced({number: [Edit(0, 9, "[ID_abcd]")], note: [Edit(9, 12, "[NAME_abcd]")]})
    back = json.loads(json.loads(json.loads(changed)["arguments"])["deep"])
    assert back == {"id": "[ID_abcd]", "note": 'he said "[NAME_abcd]"'}


def test_who_owns_a_part_is_known() -> None:
    source = json.dumps(
        {
            "model": "m", "seed": 1, "input": [{"x": 1}],
            "messages": [{"name": "n", "content": [{"type": "tool_use", "name": "t", "input": {"q": "v"}}]}],
            "metadata": {"k": ["w"]}, "tools": [{"function": {"name": "f", "parameters": {"p": 2}}}],
        }
    )  # fmt: skip
    found = {(one.kind, one.raw): one for one in Document(source).all_leaves()}
    free = {raw for (_, raw), one in found.items() if one.free}
    assert free == {'"q"', '"v"', '"k"', '"w"', '"p"', "2"}
    assert found["string", '"n"'].holder == "messages"
    assert found["string", '"t"'].holder == "content"
    assert found["string", '"f"'].holder == "function"


def test_keys_that_would_become_one_are_refused() -> None:
    document = Document('{"a":{"k1":1,"k2":2},"k1":3}')
    first, second = leaf(document, "k1"), leaf(document, "k2")
    assert document.replaced({first: [Edit(0, 2, "z")]}) == '{"a":{"z":1,"k2":2},"k1":3}'
    with pytest.raises(Clash):
        document.replaced({first: [Edit(0, 2, "z")], second: [Edit(0, 2, "z")]})
    with pytest.raises(Clash):
        document.replaced({first: [Edit(0, 2, "k2")]})


def test_offsets_of_a_token_lead_back_to_the_text() -> None:
    document = Document(r'["a\u00e9\ud83d\ude00b\"c"]')
    (value,) = document.leaves
    for offset, place in enumerate(value.points(range(len(value.text)))):
        assert value.text_offset(place) == offset


def test_opaque_strings_are_no_text() -> None:
    document = Document(json.dumps({"data": "A" * 400, "url": "data:image/png;base64," + "A" * 400, "text": "A" * 400}))
    assert [one.key for one in document.leaves if one.kind == "string"] == ["text"]


def test_without_edits_the_very_text_comes_back() -> None:
    source = '{"a" :1e5, "b":"\\u0061"}'
    document = Document(source)
    assert document.replaced({}) is source
    assert apply("abc", []) == "abc"


@pytest.mark.parametrize("source", ['{"a":1}]}', '["\\ud800"]'])
def test_what_is_no_json_is_refused(source: str) -> None:
    with pytest.raises(NotJson):
        Document(source)


def test_json_without_end_inside_of_json_is_refused() -> None:
    source = "[]"
    for _ in range(12):
        source = json.dumps([source])
    with pytest.raises(NotJson):
        Document(source)
