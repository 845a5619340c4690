"""An unforeseen error is logged by its type and place, never by its message (law 11)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from client import ask
from scripted import ScriptedEngine, answering, completion
from stack import running

from proxy.faults import describe, on_loop_error


def test_law_11_an_exceptions_message_is_not_in_its_description() -> None:
    try:
        b"\xffRumpelstilzchen".decode()
    except UnicodeDecodeError as error:
        text = describe(error)
    assert text.startswith("UnicodeDecodeError at test_faults_words.py:") and "Rumpel" not in text
    assert describe(ValueError("Rumpelstilzchen")) == "ValueError"


def test_law_11_neither_is_it_in_what_the_event_loop_says(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.new_event_loop()
    on_loop_error(loop, {"exception": ValueError("Rumpelstilzchen"), "message": "x"})
    loop.close()
    assert "ValueError" in caplog.text and "Rumpel" not in caplog.text


@pytest.mark.interpreted
async def test_the_unforeseen_is_a_500_in_the_dialects_form(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ScriptedEngine(answering(completion())) as home:
        config = {"engines": {"home": {"kind": "vllm", "replicas": [home.url], "models": {"m": {}}}}}
        async with running(config, tmp_path) as spillway:

            def broken(*_: object, **__: object) -> None:
                raise RuntimeError("Rumpelstilzchen")

            monkeypatch.setattr(spillway.worker.pipeline._chooser, "choose", broken)
            answer = await ask(
                spillway.port, "/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
            )
            assert (answer.status, answer.json()["error"]["code"]) == (500, "internal")
            assert "Rumpel" not in caplog.text and "RuntimeError at pipeline.py" in caplog.text
            assert not home.requests
