"""Two workers under load, killed with SIGKILL at random points, again and again.

Afterwards: whatever reached the recording cloud has an earlier decision record; settled and held never pass
the limit; the logs verify; what is projected equals what the journals say.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from client import ask
from stack import ROOT, Command, command, free_port

from compliance.journal import read
from compliance.records import Decision, Outcome, Started
from compliance.verify import verify_directory
from proxy.projections.ledger import Ledger

pytestmark = pytest.mark.e2e
KILLS = 100 if os.environ.get("SPILLWAY_SOAK") else 12
LIMIT = 2 * 10**12  # two dollars in pico-dollars
CHAT = {"model": "m", "max_tokens": 100}


@contextlib.contextmanager
def recording_cloud(record: Path) -> Iterator[str]:
    """A scripted engine in a process of its own that writes down each request before it answers."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tests/support/scripted.py"), "--port", str(port), "--record", str(record)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.stdin.close()
        process.wait(5)
        process.stdout.close()


def config(cloud: str) -> dict[str, Any]:
    return {
        "engines": {"sky": {"kind": "openai", "replicas": [cloud], "boundary": "cloud", "models": {"m": {}}}},
        "prices": {"sky/m": {"input": "$20/M", "output": "$80/M"}},
        "budgets": [{"scope": "org", "window": "month", "limit": "$2"}],
    }


async def load(started: Command, kills: int) -> int:
    """Ask all the time from several clients while workers are killed; the number of answers."""
    answers = 0
    stop = asyncio.Event()

    async def client(number: int) -> None:
        nonlocal answers
        count = 0
        while not stop.is_set():
            count += 1
            body = {**CHAT, "messages": [{"role": "user", "content": f"request {number}.{count}"}]}
            try:
                answer = await ask(started.port, "/v1/chat/completions", body)
                answers += answer.status == 200
                if answer.status == 429:
                    await asyncio.sleep(0.02)
            except Exception:  # noqa: BLE001  a killed worker breaks connections in every way
                await asyncio.sleep(0.01)

    clients = [asyncio.create_task(client(number)) for number in range(8)]
    dice = random.Random(7)
    for _ in range(kills):
        await asyncio.sleep(dice.uniform(0.05, 0.35))
        workers = started.workers()
        if workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(dice.choice(workers), signal.SIGKILL)
        settled, held = usage(started)
        assert settled + held <= LIMIT  # law 3, at every look
    stop.set()
    await asyncio.gather(*clients)
    return answers


def usage(started: Command) -> tuple[int, int]:
    """(settled, held) over all slots, as the store has it."""
    path = started.log.parent / "state" / "budgets.db"
    with contextlib.closing(sqlite3.connect(path, timeout=10)) as db:
        settled = db.execute("SELECT coalesce(sum(settled), 0) FROM accounts").fetchone()[0]
        held = db.execute("SELECT coalesce(sum(outstanding), 0) FROM slices").fetchone()[0]
    return int(settled), int(held)


def test_law_02_03_04_13_sigkill_at_random_points(tmp_path: Path) -> None:
    record = tmp_path / "cloud.jsonl"
    record.touch()
    with recording_cloud(record) as cloud, command(config(cloud), tmp_path) as started:
        answers = asyncio.run(load(started, KILLS))
        assert answers > 0
        time.sleep(1.0)  # a last restart may be on its way
        started.wait_ready()
        assert started.stop() == 0
    slots = sorted((tmp_path / "audit").glob("slot-*"))
    records = {slot.name: list(read(slot)) for slot in slots}
    everything = [record for log in records.values() for record in log]
    # law 13: the logs verify, and every decision has its outcome
    report = verify_directory(tmp_path / "audit")
    assert [slot.problem for slot in report.slots] == [None] * len(report.slots)
    assert [slot.open_decisions for slot in report.slots] == [[]] * len(report.slots)
    starts = [record for record in everything if isinstance(record, Started)]
    assert len(starts) > len(slots)  # some were killed
    # law 2: what reached the cloud was recorded before, as many times
    decisions = [record for record in everything if isinstance(record, Decision)]
    lines = record.read_text().splitlines()
    arrivals = [json.loads(line) for line in lines]
    assert len(arrivals) <= len(decisions)
    recorded_at = sorted(decision.at for decision in decisions)
    for number, arrival in enumerate(sorted(arrival["at"] // 1000 for arrival in arrivals)):
        assert recorded_at[number] <= arrival  # the n-th to arrive had at least n records before it
    assert all(b"request" in base64.b64decode(arrival["body"]) for arrival in arrivals)
    # law 3: what was settled is what the outcomes cost, and it is within the limit
    outcomes = [record for record in everything if isinstance(record, Outcome)]
    settled, held = usage(started)
    assert settled == sum(outcome.cost for outcome in outcomes) <= LIMIT
    assert held == 0  # a clean stop gives everything back
    # law 4: one line per attempt, and the projection rebuilt from the journals equals the one that was kept
    assert len(outcomes) == len(decisions) == len({(outcome.request, outcome.attempt) for outcome in outcomes})
    kept = Ledger(tmp_path / "state" / "ledger.db")
    rebuilt = Ledger(tmp_path / "rebuilt.db")
    for log in records.values():
        origin = next(record.instance for record in log if isinstance(record, Started))
        rebuilt.project(origin, log)
    assert kept.rows() == rebuilt.rows()
    assert len(kept.rows()) == len(outcomes)
    kept.close()
    rebuilt.close()


def test_law_13_sigterm_drains(tmp_path: Path) -> None:
    """A request in flight ends well; the log says stopped; nothing is open."""
    with recording_cloud(tmp_path / "cloud.jsonl") as cloud, command(config(cloud), tmp_path) as started:
        body = {**CHAT, "messages": [{"role": "user", "content": "hello"}]}
        assert asyncio.run(ask(started.port, "/v1/chat/completions", body)).status == 200
        assert started.stop() == 0
    report = verify_directory(tmp_path / "audit")
    assert all(slot.problem is None and not slot.open_decisions for slot in report.slots)
    for slot in (tmp_path / "audit").glob("slot-*"):
        assert list(read(slot))[-1].kind == "stopped"
