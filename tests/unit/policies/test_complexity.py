from __future__ import annotations

from typing import Any

import pytest

from policies.complexity import LONG_AT, MANY_MESSAGES, SAMPLE, estimate_tokens, looks_like_code, size
from policies.model import Facts


def facts(**changes: Any) -> Facts:
    base: dict[str, Any] = {"model": "m", "operation": "chat", "needs": frozenset(), "prompt_bytes": 400,
                            "prompt_tokens": 100, "max_output": None, "messages": 2}  # fmt: skip
    return Facts(**base | changes)


def test_short_and_plain_is_small_and_says_so() -> None:
    routing = size(facts())
    assert (routing.size, routing.why) == ("small", "about 100 tokens, under 1000, plain")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"prompt_tokens": LONG_AT}, "about 1000 tokens, 1000 or more"),
        ({"has_tools": True}, "uses tools"),
        ({"has_code": True}, "holds code"),
        ({"messages": MANY_MESSAGES + 1}, f"{MANY_MESSAGES + 1} messages"),
    ],
)
def test_each_sign_of_weight_makes_it_large(changes: dict[str, Any], why: str) -> None:
    routing = size(facts(**changes))
    assert (routing.size, routing.why) == ("large", why)


def test_just_under_every_threshold_is_small() -> None:
    assert size(facts(prompt_tokens=LONG_AT - 1, messages=MANY_MESSAGES)).size == "small"


def test_the_threshold_is_the_operators() -> None:
    assert size(facts(), long_at=100).size == "large"
    assert size(facts(prompt_tokens=5000), long_at=5001).size == "small"


@pytest.mark.parametrize("size_bytes", [0, 3, 4, 4000])
def test_four_bytes_a_token(size_bytes: int) -> None:
    assert estimate_tokens(size_bytes) == size_bytes // 4


@pytest.mark.parametrize(
    "text",
    ["```\nx\n```", "def main():\n  pass", "class A(B):", "#include <stdio.h>", "function f(x) {", "x => x + 1",
     "<p>hi</p>", "SELECT a FROM b", "why?\nimport os\n"],
)  # fmt: skip
def test_code(text: str) -> None:
    assert looks_like_code(text)
    assert looks_like_code("Please explain: " + text.replace("import", "\nimport"))


@pytest.mark.parametrize(
    "text",
    ["", "What is the capital of France?", "Please select one from the list.", "We import goods by definition.",
     "A first class ticket, 3 < 4 and 5 > 2.", "Patientin, 72 J., Größe 1,70 m – Blutdruck 140/90."],
)  # fmt: skip
def test_prose(text: str) -> None:
    assert not looks_like_code(text)


def test_only_the_sample_is_read() -> None:
    assert looks_like_code("x" * (SAMPLE - 3) + "```")
    assert not looks_like_code("x" * SAMPLE + "```")
