"""Somebody who owns the files of a worker's log, but not its key, adds to it while the worker is stopped (law 13)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from client import ask
from scripted import ScriptedEngine, answering, completion
from stack import running

from compliance.journal import read
from compliance.records import Outcome, Started
from compliance.verify import verify_directory

PATH = "/v1/chat/completions"
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}


def config(home: str) -> dict[str, Any]:
    return {
        "engines": {"home": {"kind": "vllm", "replicas": [home], "models": {"m": {}}}},
        "compliance": {"tier": "fast"},
    }


async def test_a_worker_sets_aside_what_its_key_does_not_vouch_for_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = tmp_path / "audit" / "slot-0"
    async with ScriptedEngine(answering(completion())) as home:
        async with running(config(home.url), tmp_path) as spillway:
            assert (await ask(spillway.port, PATH, CHAT)).status == 200
        before = list(read(log))
        (segment,) = log.glob("segment-*.jsonl")
        outcome = next(json.loads(line) for line in segment.read_bytes().splitlines() if b'"kind":"outcome"' in line)
        forged = [
            json.dumps(
                outcome | {"cost": 10**12, "request": f"forged-{n}", "seq": len(before) + n},
                sort_keys=True,
                separators=(",", ":"),
            )
            for n in range(3)
        ]
        with open(segment, "a") as file:
            file.write("\n".join(forged) + "\n")
        caplog.clear()
        async with running(config(home.url), tmp_path) as spillway:
            assert (await ask(spillway.port, PATH, CHAT)).status == 200
    started = [row for row in read(log) if isinstance(row, Started)]
    assert [(row.unsigned, row.unvouched, row.unauthenticated) for row in started] == [(0, 0, 0), (0, 0, 3)]
    assert not any(row.request.startswith("forged") for row in read(log) if isinstance(row, Outcome))
    assert "3 records at its end were not written by this log's key" in caplog.text
    (aside,) = log.glob("unauthenticated-*.jsonl")
    assert aside.read_text().splitlines() == forged
    (slot,) = verify_directory(log).slots
    assert (slot.problem, slot.covered) == (None, slot.records)
