"""Answers compared: what was said is read back in the client's dialect, and a score comes of it."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from scripted import chat_chunks, completion, message, message_events

from engines import anthropic, openai
from proxy.comparing import LONGEST_JUDGED, MOST_VALUES, NOT_COMPARED, Said, judge_body, preferred, said, score


def test_what_was_said_is_read_back_in_every_form() -> None:
    words = Said("four patients")
    assert said(openai.DIALECT, False, json.dumps(completion("four patients")).encode()) == words
    assert said(openai.DIALECT, True, b"".join(chat_chunks(["four ", "patients"]))) == words
    assert said(anthropic.DIALECT, False, json.dumps(message("four patients")).encode()) == words
    assert said(anthropic.DIALECT, True, b"".join(message_events(["four ", "patients"]))) == words
    assert said(openai.DIALECT, False, b"no answer") is None


def test_of_a_text_with_more_values_than_are_compared_no_more_are_held() -> None:
    """However deep they lie: the place of each is as long as it is deep."""
    peaks = []
    for count in (MOST_VALUES + 1, 16 * MOST_VALUES):
        text = "[" * 200 + ",".join(["1"] * count) + "]" * 200
        tracemalloc.start()
        assert score("json", Said(text), Said(text)) == NOT_COMPARED
        peaks.append(tracemalloc.get_traced_memory()[1] - 24 * len(text))
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
    assert score("json", Said("[[" + "1," * 2_000 + '{"a": 1}]]'), Said("[[" + "1," * 2_000 + '{"a": 1}]]')) == 1000


def test_tool_calls_are_part_of_it() -> None:
    whole = completion("")
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a": 1}'}}
    whole["choices"][0]["message"] = {"role": "assistant", "content": None, "tool_calls": [call]}
    whole["choices"][0]["finish_reason"] = "tool_calls"
    assert said(openai.DIALECT, False, json.dumps(whole).encode()) == Said("", (("look", '{"a": 1}'),))


@pytest.mark.parametrize(
    ("how", "reference", "other", "points"),
    [
        ("exact", "a  b\n", " a b", 1000), ("exact", "a", "A", 0), ("exact", "", "", 1000),
        ("number", "so it is 1,204.50.", "= 1204.5", 1000), ("number", "12", "13", 0), ("number", "none", "1", NOT_COMPARED),
        ("number", "it is 3", "three", 0), ("number", "-4", "-4.0", 1000), ("number", "1e3", "1000", 1000),
        ("json", '{"a": 1, "b": "x"}', '{"b": " x", "a": 1.0}', 1000), ("json", '{"a": 1, "b": 2}', '{"a": 1, "b": 3}', 500),
        ("json", '{"a": 1}', '{"a": 1, "b": 2, "c": 3, "d": 4}', 250), ("json", '{"a": true}', '{"a": 1}', 0),
        ("json", '{"a": 1}', "sorry", 0), ("json", "sorry", '{"a": 1}', NOT_COMPARED), ("json", "[]", "[]", 1000),
        ("json", '```json\n{"a": 1}\n```', '{"a": 1}', 1000), ("json", '{"a": []}', '{"a": [1]}', 0), ("json", "3", "3", NOT_COMPARED),
        ("none", "a", "a", NOT_COMPARED),
    ],
)  # fmt: skip
def test_scores(how: str, reference: str, other: str, points: int) -> None:
    assert score(how, Said(reference), Said(other)) == points


def test_scores_of_tool_calls() -> None:
    one, two = Said("", (("look", '{"a": 1, "b": 2}'),)), Said("let me", (("look", '{"b": 2, "a": 1}'),))
    assert score("json", one, two) == 1000
    assert score("exact", one, Said("", two.calls)) == 1000
    assert score("json", one, Said("", (("find", '{"a": 1, "b": 2}'),))) == 666
    assert score("json", one, Said("I cannot")) == 0


@pytest.mark.parametrize(
    ("reply", "found"),
    [("1", 1), ("Answer 2 is better", 2), ("same", 0), ("It is a tie.", 0), ("Two", 2), ("**1**", 1), ("neither", None), ("", None),
     ("12", None)],
)  # fmt: skip
def test_what_a_judge_prefers(reply: str, found: int | None) -> None:
    assert preferred(Said(reply)) == found
    assert preferred(None) is None


def test_what_a_judge_reads_is_bounded() -> None:
    body = json.loads(judge_body("q" * 100_000, Said("a" * 100_000), Said("b", (("look", "{}"),)), "gpu/j"))
    assert len(body["messages"][1]["content"]) < 2 * LONGEST_JUDGED + 500
    assert "[calls look with {}]" in body["messages"][1]["content"]


def test_a_nested_bomb_is_no_trouble() -> None:
    deep = "[" * 50_000 + "]" * 50_000
    assert score("json", Said(deep), Said("[1]")) == NOT_COMPARED
    wide = json.dumps(list(range(20_000)))
    assert score("json", Said(wide), Said(wide)) == NOT_COMPARED
