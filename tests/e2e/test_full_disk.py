"""The disk of the audit log is full: what must be recorded first is refused, the rest follows the configuration, the
operator is told, and Spillway goes on by itself when there is room (laws 2, 12, 13)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from client import Answer, BrokenEnd, ask
from scripted import Play, Received, ScriptedEngine, answering, completion, json_answer
from small_disk import SmallDisk, small_disk
from stack import Command, Running, command, running

from compliance.journal import read
from compliance.records import Decision, Outcome, Refused, Started
from compliance.verify import verify_directory

CHAT = {"model": "home", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}
CLOUD = {**CHAT, "model": "sky"}
EITHER = {**CHAT, "model": "either"}
PATH = "/v1/chat/completions"


def config(home: str, sky: str, disk: SmallDisk, **audit: Any) -> dict[str, Any]:
    return {
        "engines": {
            "home": {"kind": "vllm", "replicas": [home], "models": {"m": {}}, "concurrency": 1},
            "sky": {"kind": "openai", "replicas": [sky], "boundary": "cloud", "models": {"m": {}}},
        },
        "models": {"home": ["home/m"], "sky": ["sky/m"], "either": ["home/m", "sky/m"]},
        "prices": {"sky/m": {"input": "$1/M", "output": "$1/M"}},
        "audit": {"dir": str(disk.path / "audit"), **audit},
        "telemetry": {"prometheus": {"port": 18799}},
    }


async def fill(disk: SmallDisk, spillway: Running) -> None:
    """Until the log can take nothing more: its last pages have room for some records."""
    disk.fill()
    for _ in range(200):
        answer = await ask(spillway.port, PATH, CLOUD)
        if answer.status == 503:
            return
    raise AssertionError("the disk is not full")


async def until(true: Callable[[], bool]) -> None:
    for _ in range(2000):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come")


async def written_again(disk: SmallDisk, spillway: Running) -> None:
    disk.free()
    await until(lambda: spillway.worker.journal.healthy and not spillway.worker.journal.unwritten)


def whole(directory: Path) -> list[Any]:
    """The records of a log that verifies, without a gap."""
    (slot,) = verify_directory(directory / "slot-0").slots
    assert slot.problem is None and not slot.open_decisions
    rows = list(read(directory / "slot-0"))
    assert [row.seq for row in rows] == list(range(len(rows)))
    return rows


async def test_law_02_on_a_full_disk_what_leaves_is_refused_and_the_rest_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with small_disk(tmp_path / "disk", "300k") as disk:
        async with ScriptedEngine(answering(completion())) as home, ScriptedEngine(answering(completion())) as sky:
            async with running(config(home.url, sky.url, disk, lag="1h"), tmp_path) as spillway:
                assert (await ask(spillway.port, "/health", method="GET")).json() == {
                    "status": "ok", "audit": {"writable": True, "waiting": 0},
                }  # fmt: skip
                await fill(disk, spillway)
                arrived = len(sky.requests)
                # refused, in the caller's dialect, with the time to come again
                answer = await ask(spillway.port, PATH, CLOUD)
                assert (answer.status, answer.json()["error"]["code"]) == (503, "audit_unavailable")
                assert int(answer.headers["retry-after"]) > 0 and answer.headers["x-spillway-request-id"]
                answer = await ask(spillway.port, "/v1/messages", CLOUD)
                assert (answer.status, answer.json()["type"]) == (503, "error")
                assert len(sky.requests) == arrived
                # a local one is answered, as `local: deferred` and its lag say
                local = await ask(spillway.port, PATH, CHAT)
                assert local.status == 200
                # the operator is told, once
                health = await ask(spillway.port, "/health", method="GET")
                assert (health.status, health.json()["status"]) == (503, "degraded")
                assert health.json()["audit"]["writable"] is False and health.json()["audit"]["waiting"] > 0
                assert spillway.worker._telemetry._metrics.unwritable._value.get() == 1
                await asyncio.sleep(0.6)
                told = [row.getMessage() for row in caplog.records if "cannot be written" in row.getMessage()]
                assert len(told) == 1 and "No space left on device" in told[0] and str(disk.path) in told[0]
                # and it goes on by itself
                await written_again(disk, spillway)
                assert (await ask(spillway.port, PATH, CLOUD)).status == 200
                assert (await ask(spillway.port, "/health", method="GET")).status == 200
                assert spillway.worker._telemetry._metrics.unwritable._value.get() == 0
                assert sum("is written again" in row.getMessage() for row in caplog.records) == 1
            rows = whole(disk.path / "audit")
            # law 12: also what happened meanwhile stands in the log
            kept = {row.request: row for row in rows if isinstance(row, (Outcome, Refused))}
            assert isinstance(kept[local.headers["x-spillway-request-id"]], Outcome)
            assert kept[answer.headers["x-spillway-request-id"]].code == "audit_unavailable"
            # what left had its decision, and nothing of what was refused did
            sent = [row for row in rows if isinstance(row, Outcome) and row.target == "sky/m" and row.error == ""]
            assert len(sent) == len(sky.requests)
            unsent = [row for row in rows if isinstance(row, Outcome) and row.error == "audit_unavailable"]
            assert all((row.ending, row.cost) == ("failed", 0) for row in unsent)


@pytest.mark.parametrize("audit", [{"local": "durable"}, {"lag": "0s"}])
async def test_law_02_local_requests_that_must_be_recorded_are_refused_as_well(
    audit: dict[str, str], tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", "300k") as disk:
        async with ScriptedEngine(answering(completion())) as home, ScriptedEngine(answering(completion())) as sky:
            async with running(config(home.url, sky.url, disk, **audit), tmp_path) as spillway:
                await fill(disk, spillway)
                await asyncio.sleep(0.01)
                arrived = len(home.requests)
                answer = await ask(spillway.port, PATH, CHAT)
                assert (answer.status, answer.json()["error"]["code"]) == (503, "audit_unavailable")
                assert len(home.requests) == arrived
                await written_again(disk, spillway)
                assert (await ask(spillway.port, PATH, CHAT)).status == 200
            whole(disk.path / "audit")


async def busy(spillway: Running) -> None:
    await until(lambda: spillway.worker.fleet["home"].saturated())


async def test_on_failure_keep_local_waits_for_a_local_engine_instead_of_overflowing(tmp_path: Path) -> None:
    free = asyncio.Event()

    async def slowly(received: Received, play: Play) -> None:
        await free.wait()
        await play.send(json_answer(completion("from home")))

    with small_disk(tmp_path / "disk", "300k") as disk:
        async with ScriptedEngine(slowly) as home, ScriptedEngine(answering(completion("from the sky"))) as sky:
            whole_config = config(home.url, sky.url, disk, on_failure="keep_local")
            whole_config["limits"] = {"queue": {"max_wait": "30s"}}
            async with running(whole_config, tmp_path) as spillway:
                first = asyncio.create_task(ask(spillway.port, PATH, CHAT))
                await busy(spillway)
                overflown = await ask(spillway.port, PATH, EITHER)  # while the log is well, it overflows
                assert overflown.headers["x-spillway-target"] == "sky/m"
                await fill(disk, spillway)
                arrived = len(sky.requests)
                waiting = asyncio.create_task(ask(spillway.port, PATH, EITHER))
                refused = await ask(spillway.port, PATH, CLOUD)  # nothing local can take this one
                assert (refused.status, refused.json()["error"]["code"]) == (503, "audit_unavailable")
                health = await ask(spillway.port, "/health", method="GET")
                assert (health.status, health.json()["status"]) == (200, "degraded")  # it serves
                free.set()
                assert (await first).status == 200
                kept = await waiting
                assert (kept.status, kept.headers["x-spillway-target"]) == (200, "home/m")
                assert len(sky.requests) == arrived
                await written_again(disk, spillway)
            rows = whole(disk.path / "audit")
            (decision,) = [
                row
                for row in rows
                if isinstance(row, Decision) and row.request == kept.headers["x-spillway-request-id"]
            ]
            assert [veto.split(":")[1] for veto in decision.vetoes] == ["audit_unavailable"]  # law 12: why not there


async def test_on_failure_refuse_does_not_overflow_either(tmp_path: Path) -> None:
    free = asyncio.Event()

    async def slowly(received: Received, play: Play) -> None:
        await free.wait()
        await play.send(json_answer(completion()))

    with small_disk(tmp_path / "disk", "300k") as disk:
        async with ScriptedEngine(slowly) as home, ScriptedEngine(answering(completion())) as sky:
            async with running(config(home.url, sky.url, disk), tmp_path) as spillway:
                first = asyncio.create_task(ask(spillway.port, PATH, CHAT))
                await busy(spillway)
                await fill(disk, spillway)
                arrived = len(sky.requests)
                answer = await ask(spillway.port, PATH, EITHER)
                assert (answer.status, answer.json()["error"]["code"]) == (503, "audit_unavailable")
                assert len(sky.requests) == arrived
                free.set()
                assert (await first).status == 200
                await written_again(disk, spillway)
            whole(disk.path / "audit")


async def test_law_13_a_start_on_a_full_disk_waits_for_room_and_then_serves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with small_disk(tmp_path / "disk", "300k") as disk:
        async with ScriptedEngine(answering(completion())) as home, ScriptedEngine(answering(completion())) as sky:
            settings = config(home.url, sky.url, disk)
            async with running(settings, tmp_path) as spillway:
                assert (await ask(spillway.port, PATH, CLOUD)).status == 200
                await fill(disk, spillway)
            assert "records are lost" in caplog.text
            caplog.clear()
            starting = asyncio.create_task(_once(settings, tmp_path))
            await until(lambda: "cannot be written" in caplog.text)
            assert not starting.done()
            disk.free()
            assert await starting == 200
            whole(disk.path / "audit")


async def _once(settings: dict[str, Any], directory: Path) -> int:
    """The first answer that is no refusal: where the last page had room for the start's records, it starts, and refuses
    until there is more."""
    async with running(settings, directory) as spillway:
        while (status := (await ask(spillway.port, PATH, CLOUD)).status) == 503:
            await asyncio.sleep(0.1)
        return status


async def test_law_13_sigkill_while_the_disk_is_full_loses_what_the_start_states_and_nothing_more(
    tmp_path: Path,
) -> None:
    """The real command: what was acknowledged is there, and of local requests that ran ahead the start says how far."""
    with small_disk(tmp_path / "disk", "400k") as disk:
        async with ScriptedEngine(answering(completion())) as home, ScriptedEngine(answering(completion())) as sky:
            whole_config = config(home.url, sky.url, disk, lag="1h")
            whole_config |= {"listen": {"workers": 1}, "compliance": {"tier": "fast"}, "telemetry": {}}
            with command(whole_config, tmp_path) as started:
                answers = [await ask(started.port, PATH, CLOUD) for _ in range(3)]
                disk.fill()
                while answers[-1].status == 200:
                    answers.append(await ask(started.port, PATH, CLOUD))
                assert (answers[-1].status, answers[-1].json()["error"]["code"]) == (503, "audit_unavailable")
                sent = time.time_ns() // 1000
                ahead = await ask(started.port, PATH, CHAT)
                assert ahead.status == 200
                (worker,) = started.workers()
                os.kill(worker, signal.SIGKILL)
                await until(lambda: started.workers() not in ([], [worker]))
                disk.free()
                assert (await served(started)).status == 200
                assert await asyncio.to_thread(started.stop) == 0
                log = started.log.read_text()
                assert "No space left on device" in log and "Traceback" not in log
            rows = whole(disk.path / "audit")
            known = {row.request for row in rows if isinstance(row, Decision)}
            left = [answer.headers["x-spillway-request-id"] for answer in answers if answer.status == 200]
            assert known >= set(left) and len(sky.requests) == len(left) + 1  # and the one after the restart
            assert ahead.headers["x-spillway-request-id"] not in known
            last, start = next(
                (before, row) for before, row in pairwise(rows) if isinstance(row, Started) and row.pid != worker
            )
            assert last.at <= sent <= last.at + start.lost_window_us <= start.at


async def served(started: Command) -> Answer:
    """The first answer that is one: the worker may still be starting."""
    for _ in range(300):
        with contextlib.suppress(OSError, TimeoutError, BrokenEnd):
            return await ask(started.port, PATH, CLOUD)
        await asyncio.sleep(0.1)
    raise AssertionError("nothing is served")
