"""Feedback as it comes in: names and numbers, never text; and whose request that was, found in the logs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from compliance.journal import Journal
from compliance.records import Feedback, Stopped, decode, encode, feedback_number
from proxy.auth import Principal
from proxy.errors import Refusal
from proxy.feedback import LARGEST_BODY, MOST, parse
from proxy.owners import Owner, record_at


def body(**changes: Any) -> bytes:
    return json.dumps({"request_id": "r1", "metric": "accepted", "value": True, **changes}).encode()


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "true"), (False, "false"), (1, "1"), (0.25, "0.25"), (-3.0, "-3"), (1e-9, "1e-09"), (2**60, "1.152921504606847e+18")],
)  # fmt: skip
def test_a_value_is_written_in_one_form(value: Any, text: str) -> None:
    (given_,), listed = parse(body(value=value))
    assert (given_.value, listed) == (text, False)
    assert feedback_number(text) == float(value)


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        (b"{", None), (b"[]", None), (b'"x"', None), (body(value="good"), "value"), (body(value=None), "value"),
        (body(value=[1]), "value"), (body(metric="Accepted"), "metric"), (body(metric=""), "metric"),
        (body(metric="m" * 65), "metric"), (body(metric="ä"), "metric"), (body(metric="ssn-123-45-6789"), "metric"), (body(request_id=7), "request_id"),
        (body(request_id="a b"), "request_id"), (body(request_id="x" * 97), "request_id"), (body(note="text"), None),
        (b'{"request_id":"r1","metric":"m","value":NaN}', None), (b'{"request_id":"r1","metric":"m","value":1e999}', None),
        (b'{"request_id":"r1","metric":"m"}', "value"), (b"[" + body() + b"," + body(value="x") + b"]", "[1].value"),
        (b"[1]", "[0]"), (b"[" * 100_00, None), (b"[" + b",".join([body()] * (MOST + 1)) + b"]", None),
    ],
)  # fmt: skip
def test_what_is_no_feedback_is_refused_by_its_place(raw: bytes, param: str | None) -> None:
    with pytest.raises(Refusal) as refused:
        parse(raw)
    assert (refused.value.code, refused.value.param) == ("invalid_request", param)


def test_what_is_refused_is_not_repeated() -> None:
    with pytest.raises(Refusal) as refused:
        parse(body(value="patient 123-45-6789"))
    assert "123-45" not in refused.value.message


def test_a_large_body_is_refused() -> None:
    with pytest.raises(Refusal, match="several requests"):
        parse(b"[" + b" " * LARGEST_BODY + b"]")


def test_the_record_holds_no_float_and_comes_back() -> None:
    record = Feedback(
        at=1, key="k", metric="m", organisation="o", project="p", request="r", seq=3, team="t", value="0.5"
    )
    line = encode(record)
    assert b'"value":"0.5"' in line
    assert list(json.loads(line)) == sorted(json.loads(line))
    assert decode(line) == record


def test_an_application_is_its_keys_together() -> None:
    mine = Principal(key="k1", name="one", organisation="o", team="t", project="p", tenant="clinic")
    assert Owner("k1", "o", "t", "p", "clinic").is_also(mine)
    assert Owner("k2", "o", "t", "p", "clinic").is_also(mine)  # another key of the application
    assert not Owner("k2", "o", "t", "q", "clinic").is_also(mine)
    assert not Owner("k2", "o", "u", "p", "clinic").is_also(mine)
    assert not Owner("k2", "x", "t", "p", "clinic").is_also(mine)
    assert not Owner("k1", "o", "t", "p", "lab").is_also(mine)  # tenants are kept apart whatever the key
    bare = Principal(key="k1", name="one", organisation="o")
    assert Owner("k1", "o", "", "", "").is_also(bare)
    assert not Owner("k2", "o", "", "", "").is_also(bare)  # no project is no application


@given(sizes=st.lists(st.integers(1, 400), min_size=1, max_size=60), segment=st.integers(1, 25))
def test_every_record_is_found_by_its_sequence(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], segment: int
) -> None:
    directory: Path = tmp_path_factory.mktemp("log")
    journal = Journal.open(directory, origin="o/slot-0", key=Ed25519PrivateKey.generate(), segment_records=segment)
    for number, size in enumerate(sizes):
        journal.append(Stopped(at=number + 1, slot="é" * size))
    journal.close()
    for number, size in enumerate(sizes):
        line = record_at(directory, number)
        assert line is not None
        assert (decode(line).seq, len(decode(line).slot)) == (number, size)
    assert record_at(directory, len(sizes)) is None
