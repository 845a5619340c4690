"""Two workers under load, killed with SIGKILL at random points, again and again: about ten times, and hundreds of times
in the slow tier (SPILLWAY_SOAK; SPILLWAY_KILLS says how often).

Afterwards: whatever reached the recording cloud has a decision record that was durable before, and an outcome or an
`interrupted` one; of local requests no more is missing than the start records state; settled and held never pass the
limit; the logs verify; what is projected equals what the journals say.
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
from typing import Any, NamedTuple

import pytest
from client import ask
from stack import ROOT, Command, command, free_port

from compliance.journal import read
from compliance.records import Decision, Outcome, Refused, Started
from compliance.verify import verify_directory
from proxy.projections.ledger import Ledger

pytestmark = pytest.mark.e2e
KILLS = int(os.environ.get("SPILLWAY_KILLS") or (300 if os.environ.get("SPILLWAY_SOAK") else 10))
DOLLARS = 2 + KILLS // 50
LIMIT = DOLLARS * 10**12  # in pico-dollars
SYNC_MS = 5
"""Added to every sync, so that a request that did not wait for one is seen."""
CHAT = {"model": "m", "max_tokens": 100}
AT_HOME = {"model": "h", "max_tokens": 100}
QUICKLY = "import proxy.supervisor as s; s.LONGEST_PAUSE = 0.2; from proxy.cli import main; main()"
"""The command, but that workers that died many times in a row are not kept waiting: that is what is done to them here."""


class Asked(NamedTuple):
    """A request that a client had an answer to; times are microseconds since the epoch."""

    local: bool
    words: str
    id: str
    sent: int
    answered: int


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


def config(cloud: str, home: str = "") -> dict[str, Any]:
    engines: dict[str, Any] = {"sky": {"kind": "openai", "replicas": [cloud], "boundary": "cloud", "models": {"m": {}}}}
    if home:
        engines["home"] = {"kind": "vllm", "replicas": [home], "models": {"h": {}}}
    return {
        "engines": engines,
        "prices": {"sky/m": {"input": "$20/M", "output": "$80/M"}},
        "budgets": [{"scope": "org", "window": "month", "limit": f"${DOLLARS}"}],
        "compliance": {"tier": "fast"},  # it starts sooner
    }


class Load:
    """Clients that ask all the time, half of them at home, while workers are killed."""

    def __init__(self, started: Command) -> None:
        self.asked: list[Asked] = []
        self.killed: dict[int, int] = {}  # when, by process
        self._started = started
        self._stop = False

    async def run(self, kills: int) -> None:
        clients = [asyncio.create_task(self._client(number)) for number in range(8)]
        dice = random.Random(7)
        while len(self.killed) < kills:
            # sometimes while a worker starts or has just begun, sometimes in the midst of its work
            wanted = len(self.asked) + dice.choice([0, 0, dice.randrange(40)])
            until = time.monotonic() + 15
            await asyncio.sleep(dice.uniform(0.0, 0.25))
            while len(self.asked) < wanted and time.monotonic() < until:
                await asyncio.sleep(dice.uniform(0.0, 0.01))
            workers = [pid for pid in await asyncio.to_thread(self._started.workers) if pid not in self.killed]
            if workers:
                pid = dice.choice(workers)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                self.killed[pid] = now()
            settled, held = usage(self._started)
            assert settled + held <= LIMIT  # law 3, at every look
        self._stop = True
        await asyncio.gather(*clients)

    async def _client(self, number: int) -> None:
        count, local = 0, number % 2 == 0
        while not self._stop:
            count += 1
            words = f"request {number}.{count} of {os.getpid()}"
            body = {**(AT_HOME if local else CHAT), "messages": [{"role": "user", "content": words}]}
            sent = now()
            try:
                answer = await ask(self._started.port, "/v1/chat/completions", body)
            except Exception:  # noqa: BLE001  a killed worker breaks connections in every way
                await asyncio.sleep(0.01)
                continue
            if answer.status == 200:
                self.asked.append(Asked(local, words, answer.headers["x-spillway-request-id"], sent, now()))
            else:
                await asyncio.sleep(0.02)


def now() -> int:
    return time.time_ns() // 1000


def usage(started: Command) -> tuple[int, int]:
    """(settled, held) over all slots, as the store has it."""
    path = started.log.parent / "state" / "budgets.db"
    with contextlib.closing(sqlite3.connect(path, timeout=10)) as db:
        settled, held = db.execute(
            "SELECT coalesce(sum(settled), 0), coalesce(sum(outstanding), 0) FROM shares"
        ).fetchone()
    return int(settled), int(held)


def test_law_02_03_04_13_sigkill_at_random_points(tmp_path: Path) -> None:
    record, at_home = tmp_path / "cloud.jsonl", tmp_path / "home.jsonl"
    record.touch()
    with (
        recording_cloud(record) as cloud,
        recording_cloud(at_home) as home,
        command(
            config(cloud, home), tmp_path, environ={"SPILLWAY_BENCH_SYNC_MS": str(SYNC_MS)}, program=("-c", QUICKLY)
        ) as started,
    ):
        load = Load(started)
        asyncio.run(load.run(KILLS))
        assert load.asked
        until_all_serve(started, tmp_path / "audit")
        started.wait_ready()
        assert started.stop(timeout=60) == 0
    slots = sorted((tmp_path / "audit").glob("slot-*"))
    records = {slot.name: list(read(slot)) for slot in slots}
    everything = [record for log in records.values() for record in log]
    # law 13: the logs verify, without a gap, and every decision has its outcome
    report = verify_directory(tmp_path / "audit")
    assert [slot.problem for slot in report.slots] == [None] * len(report.slots)
    assert [slot.open_decisions for slot in report.slots] == [[]] * len(report.slots)
    assert all([row.seq for row in log] == list(range(len(log))) for log in records.values())
    starts = [record for record in everything if isinstance(record, Started)]
    assert len(starts) > len(slots)  # some were killed
    decisions = [record for record in everything if isinstance(record, Decision) and record.boundary == "cloud"]
    arrivals = [json.loads(line) for line in record.read_text().splitlines()]
    durable_before_it_left(load.asked, decisions, arrivals)
    missing = within_what_the_starts_state(load, records)
    # law 3: what was settled is what the outcomes cost, and it is within the limit
    outcomes = [record for record in everything if isinstance(record, Outcome)]
    settled, held = usage(started)
    assert settled == sum(outcome.cost for outcome in outcomes) <= LIMIT
    assert held == 0  # a clean stop gives everything back
    # law 4: one line per attempt, and the projection rebuilt from the journals equals the one that was kept
    every = [record for record in everything if isinstance(record, Decision)]
    assert len(outcomes) == len(every) == len({(outcome.request, outcome.attempt) for outcome in outcomes})
    kept = Ledger(tmp_path / "state" / "ledger.db")
    rebuilt = Ledger(tmp_path / "rebuilt.db")
    for log in records.values():
        origin = next(record.instance for record in log if isinstance(record, Started))
        rebuilt.project(origin, log)
    assert kept.rows() == rebuilt.rows()
    assert len(kept.rows()) == len(outcomes)
    kept.close()
    rebuilt.close()
    print(
        f"{len(load.killed)} kills, {len(starts)} starts; {len(load.asked)} answers; {len(arrivals)} requests at the cloud, "
        f"{len(decisions)} decisions; {sum(row.ending == 'interrupted' for row in outcomes)} interrupted; "
        f"{missing} local answers without a record"
    )


def until_all_serve(started: Command, logs: Path) -> None:
    """Until whatever was killed last has begun anew, in its own log."""
    for _ in range(600):
        alive = set(started.workers())
        begun = [[row.pid for row in read(slot) if isinstance(row, Started)][-1:] for slot in logs.glob("slot-*")]
        if len(alive) == len(begun) == 2 and alive == {pid for pids in begun for pid in pids}:
            return
        time.sleep(0.1)
    raise AssertionError("a worker did not start again")


def durable_before_it_left(asked: list[Asked], decisions: list[Decision], arrivals: list[dict[str, Any]]) -> None:
    """Law 2: each request that reached the cloud had its own decision, and a sync took place between the two."""
    assert all(b"request" in base64.b64decode(arrival["body"]) for arrival in arrivals)
    wait = SYNC_MS * 1000
    recorded_at = sorted(decision.at for decision in decisions)
    for number, arrived in enumerate(sorted(arrival["at"] // 1000 for arrival in arrivals)):
        assert recorded_at[number] + wait <= arrived  # the n-th to arrive had at least n durable records before it
    by_id = {decision.request: decision.at for decision in decisions}
    arrived_at = {
        json.loads(base64.b64decode(arrival["body"]))["messages"][0]["content"]: arrival["at"] // 1000
        for arrival in arrivals
    }
    assert len(arrived_at) == len(arrivals)  # nothing was sent twice
    answered = [one for one in asked if not one.local]
    assert all(by_id[one.id] + wait <= arrived_at[one.words] for one in answered)


def within_what_the_starts_state(load: Load, records: dict[str, list[Any]]) -> int:
    """Law 13: local answers without a record, which are few; each within the stretch that the next start states."""
    known: set[str] = set()
    process: dict[str, int] = {}  # by the part of a request's id that one process gives to all of its own
    ended: dict[
        int, tuple[int, int, int]
    ] = {}  # by process: its last record's time, the next start's, what that states
    for log in records.values():
        pid = 0
        for before, row in zip([None, *log], log, strict=False):
            if isinstance(row, Started):
                if before is not None:
                    ended[pid] = before.at, row.at, row.lost_window_us
                pid = row.pid
            elif isinstance(row, (Decision, Refused)):
                known.add(row.request)
                process[row.request[:12]] = pid
    missing: dict[int, list[Asked]] = {}
    for one in load.asked:
        if one.id not in known:
            assert one.local  # what left is never missing
            missing.setdefault(process.get(one.id[:12], 0), []).append(one)
    unknown = missing.pop(0, [])  # of processes that left no record of any request
    for pid, lost in missing.items():
        last, start, stated = ended[pid]
        assert pid in load.killed and stated > 0
        assert all(last <= one.answered and one.sent <= load.killed[pid] for one in lost)
        assert max(one.sent for one in lost) - min(one.answered for one in lost) <= stated <= start - last
    killed = sorted(load.killed.values())
    assert all(any(one.sent <= when for when in killed) for one in unknown)
    return len(unknown) + sum(len(lost) for lost in missing.values())


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
