"""An engine's own times: taken where they can be times, and never a reason to refuse an answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engines.model import Operation, Usage, UsageReport
from engines.openai_answers import decode_answer

WIRE = Path(__file__).resolve().parents[4] / "shared" / "data" / "wire"


def usage(timings: Any) -> Usage:
    body = {
        "id": "a", "choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1}, "timings": timings,
    }  # fmt: skip
    (found,) = [
        event.usage
        for event in decode_answer(Operation.CHAT, json.dumps(body).encode())
        if isinstance(event, UsageReport)
    ]
    return found


def test_milliseconds_become_microseconds() -> None:
    found = usage({"prompt_ms": 0.675, "predicted_ms": 867, "cache_n": 0})
    assert (found.prefill_us, found.decode_us) == (675, 867_000)
    assert (found.input, found.output) == (3, 1)


@pytest.mark.parametrize("value", [None, "12", -1, 10**400, True, {"ms": 1}, [1], 86_400_001])
def test_what_is_no_time_is_none(value: Any) -> None:
    found = usage({"prompt_ms": value, "predicted_ms": 2})
    assert (found.prefill_us, found.decode_us) == (0, 2_000)
    assert usage(value).prefill_us == 0


@pytest.mark.skipif(not WIRE.is_dir(), reason="recorded answers are not here")
def test_as_llama_cpp_reports_them() -> None:
    events = decode_answer(Operation.CHAT, (WIRE / "llamacpp_chat.json").read_bytes())
    (found,) = [event.usage for event in events if isinstance(event, UsageReport)]
    assert (found.prefill_us, found.decode_us) == (227, 315)
