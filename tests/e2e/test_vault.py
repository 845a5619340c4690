"""Captures through the real proxy: kept, opened by two operators, held, erased; and nothing of them outside the vault."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from client import Answer, ask
from scripted import ScriptedEngine, answering, chat_chunks, completion, streaming
from stack import Command, command
from typer.testing import CliRunner

from compliance.control import control_records
from compliance.journal import read
from compliance.masterkeys import FileMaster, MasterKeyFailed
from compliance.records import Captured, Decision
from compliance.verify import verify_directory
from proxy.cli import app

pytestmark = pytest.mark.e2e
SSN, PERSON, WORD = "219-09-9999", "Odalys Ferncastle", "zephyrwort"
SUBJECT = "patient Q-47110815 in ward nine"
PLANTED = (SSN, SSN.replace("-", ""), PERSON, "Ferncastle", WORD, SUBJECT, "Q-47110815")
BODY = {
    "model": "m",
    "messages": [{"role": "user", "content": f"Patient {PERSON}, SSN {SSN}, takes {WORD}. What now?"}],
}
ANSWER = ["Give ", PERSON, " more ", WORD, "."]


class Spillway:
    """The command line on one configuration file, as operators use it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def run(self, *arguments: str, code: int = 0, stdin: str | None = None) -> str:
        """What it printed; where it is to fail, what it said.  In this process: the proxy is the one that has its own."""
        where = ["--config", str(self.directory / "spillway.yaml")]
        done = CliRunner().invoke(app, [*arguments, *where], input=stdin, catch_exceptions=False)
        assert done.exit_code == code, f"{arguments}: {done.exit_code}\n{done.stdout}\n{done.stderr}"
        return done.stdout.strip() if code == 0 else done.stderr

    def records(self, *kinds: str) -> list[Any]:
        return control_records(self.directory / "audit", kinds)

    def files(self) -> dict[str, bytes]:
        """Every byte of every file of state and logs, SQLite's free pages and write-ahead logs included."""
        found = [path for name in ("state", "audit") for path in (self.directory / name).rglob("*") if path.is_file()]
        return {str(path): path.read_bytes() for path in [*found, self.directory / "serve.log"]}


def config(home: str, sky: str, **captures: Any) -> dict[str, Any]:
    return {
        "engines": {
            "home": {"kind": "vllm", "replicas": [home], "models": {"m": {}}},
            "sky": {"kind": "openai", "replicas": [sky], "boundary": "cloud", "models": {"far": {}}},
        },
        "compliance": {
            "tier": "fast", "deadline": "20s", "rules": [{"name": "hide", "when": {"found": ["pii"]}, "action": "redact"}],
        },
        "unpriced": {"input": "$1/M", "output": "$1/M"},
        "keys": {
            "ward": {"hash": f"sha256:{_digest('spw_ward')}", "tenant": "clinic"},
            "lab": {"hash": f"sha256:{_digest('spw_lab')}", "tenant": "lab"},
        },
        "audit": {"captures": captures},
    }  # fmt: skip


def _digest(token: str) -> str:
    from proxy.auth import digest

    return digest(token)


async def say(started: Command, body: Any, *, key: str = "spw_ward", subject: str | None = SUBJECT) -> Answer:
    headers = {"authorization": f"Bearer {key}", **({"x-spillway-subject": subject} if subject is not None else {})}
    return await ask(started.port, "/v1/chat/completions", body, headers)


def captured(directory: Path, count: int) -> list[Captured]:
    """What the log says of captures, once there are so many."""
    until = time.monotonic() + 20
    while True:
        found = [
            record
            for slot in sorted((directory / "audit").glob("slot-*"))
            for record in read(slot)
            if isinstance(record, Captured)
        ]
        if len(found) >= count or time.monotonic() > until:
            return found
        time.sleep(0.05)


def with_config(directory: Path, whole: dict[str, Any]) -> Spillway:
    """The configuration where the commands find it; `stack.command` writes the same with a port."""
    import yaml

    audit = {"dir": str(directory / "audit"), **whole["audit"]}
    whole["audit"] = audit
    (directory / "spillway.yaml").write_text(yaml.safe_dump({"state": {"dir": str(directory / "state")}, **whole}))
    return Spillway(directory)


def in_thread(engines: Any) -> Any:
    return asyncio.run(engines)


async def whole_life(directory: Path) -> None:
    """One request after another in a running proxy; commands run beside it in threads."""
    frames = chat_chunks(ANSWER)
    async with ScriptedEngine(streaming(frames)) as home, ScriptedEngine(answering(completion(), 200)) as sky:
        whole = config(home.url, sky.url)
        spillway = with_config(directory, whole)
        cli = asyncio.to_thread
        assert "vault init" in await cli(spillway.run, "serve", code=1)  # nothing is captured under no key
        await cli(spillway.run, "vault", "init")
        with command(whole, directory) as started:
            raw = json.dumps({**BODY, "stream": True}).encode()
            streamed = await say(started, raw)
            assert streamed.status == 200
            far_raw = json.dumps({**BODY, "model": "far"}).encode()
            far = await say(started, far_raw, subject="somebody else")
            assert far.status == 200, far.body
            other = await say(started, {**BODY, "stream": True}, key="spw_lab", subject=None)
            first, second = streamed.headers["x-spillway-request-id"], far.headers["x-spillway-request-id"]
            third = other.headers["x-spillway-request-id"]
            rows = {row.request: row for row in await cli(captured, directory, 3)}
            assert {row.state for row in rows.values()} == {"kept"} and len(
                {row.data_key for row in rows.values()}
            ) == 3
            assert rows[third].tenant == "lab" and rows[third].subject == "" and rows[first].subject
            await outside_the_vault(spillway, (*PLANTED, "somebody else"))
            await read_by_two(
                spillway, first, {"original": raw, "sent": home.requests[0].body, "answered": b"".join(frames)}
            )
            sent = sky.requests[0].body
            assert sent != far_raw and SSN.encode() not in sent
            await read_by_two(spillway, second, {"original": far_raw, "sent": sent}, begin=False)
            await held_and_erased(spillway, first, second, third)
            again = await say(started, raw)  # the subject comes back: under a new key
            rows = {row.request: row for row in await cli(captured, directory, 4)}
            fourth = rows.pop(again.headers["x-spillway-request-id"])
            assert fourth.state == "kept" and fourth.data_key not in {row.data_key for row in rows.values()}
        await outside_the_vault(spillway, (*PLANTED, "somebody else"))
        report = verify_directory(directory / "audit")
        assert report.slots and all(slot.problem is None and not slot.open_decisions for slot in report.slots)


async def outside_the_vault(spillway: Spillway, planted: tuple[str, ...]) -> None:
    """No file holds what was said, or of whom; not plain, and not in base64."""
    files = await asyncio.to_thread(spillway.files)
    assert len(files) > 8
    for name, data in files.items():
        for text in planted:
            assert text.encode() not in data, (name, text)
            for shift in range(3):
                inner = base64.b64encode(b"x" * shift + text.encode())[4 if shift else 0 : -4]
                assert len(inner) < 12 or inner not in data, (name, text)


async def read_by_two(spillway: Spillway, request: str, parts: dict[str, bytes], *, begin: bool = True) -> None:
    cli, at = asyncio.to_thread, spillway.directory
    alice, bob = ("--as", str(at / "alice.key")), ("--as", str(at / "bob.key"))
    if begin:
        await cli(spillway.run, "vault", "operator", "add", "alice", "--out", str(at / "alice.key"))
        await cli(spillway.run, "vault", "operator", "add", "bob", "--out", str(at / "bob.key"))
    opening = await cli(spillway.run, "vault", "open", request, "--reason", "complaint of the ward", *alice)
    assert "it is waiting" in await cli(spillway.run, "vault", "read", opening, *alice, code=1)
    assert "who asks cannot approve" in await cli(spillway.run, "vault", "approve", opening, *alice, code=1)
    await cli(spillway.run, "vault", "approve", opening, *bob)
    assert "only who asked may read" in await cli(spillway.run, "vault", "read", opening, *bob, code=1)
    rows = json.loads(await cli(spillway.run, "vault", "read", opening, *alice, "--json"))
    shown = {row["part"]: row for row in rows}
    assert all(row["fits"] for row in rows) and set(shown) == {"original", "sent", "answered"}
    for part, data in parts.items():
        assert shown[part]["text"].encode() == data
    steps = [(row.by, row.step) for row in spillway.records("break_glass") if row.opening == opening]
    assert steps == [
        ("alice", "asked"), ("alice", "denied"), ("alice", "denied"), ("bob", "approved"), ("bob", "denied"), ("alice", "read"),
    ]  # fmt: skip


async def held_and_erased(spillway: Spillway, first: str, second: str, third: str) -> None:
    cli, at = asyncio.to_thread, spillway.directory
    why = ("--reason", "request of the data subject")
    before = await cli(spillway.files)
    db = at / "state" / "vault.db"
    keys = await cli(wrapped_keys, db)
    hold = await cli(spillway.run, "audit", "hold", "add", "--request", first, "--reason", "case of the ombudsman")
    blocked = await cli(spillway.run, "audit", "erase", "--subject", SUBJECT, *why, code=1)
    assert "case of the ombudsman" in blocked and hold in blocked
    assert await cli(spillway.run, "audit", "erase", "--tenant", "clinic", *why, code=1)
    await cli(spillway.run, "audit", "erase", "--request", second, *why)  # nobody holds that one
    await cli(spillway.run, "audit", "hold", "release", hold, "--reason", "case closed")
    assert "0 maps" in await cli(spillway.run, "audit", "erase", "--subject", "-", *why, stdin=SUBJECT + "\n")
    assert "2 maps" not in await cli(spillway.run, "audit", "erase", "--subject", "somebody else", *why)
    states = [(row.scope, row.state) for row in spillway.records("erased")]
    assert states == [
        ("subject", "blocked"), ("tenant", "blocked"), ("request", "begun"), ("request", "done"), ("subject", "begun"),
        ("subject", "done"), ("subject", "begun"), ("subject", "done"),
    ]  # fmt: skip
    maps = [row.maps for row in spillway.records("erased") if row.state == "done"]
    assert maps == [0, 0, 1]  # what was redacted was of somebody else
    files = await cli(spillway.files)
    joined, was = b"".join(files.values()), b"".join(before.values())
    master = FileMaster(at / "state" / "vault.key")
    living = await cli(wrapped_keys, db)
    assert len(keys) == 3 and len(living) == 1
    for key_id, blob in keys.items():
        assert blob in was and (blob in joined) == (key_id in living)
    assert opens_anything(joined, master, keys) == len(living)  # every byte, with the master key at hand
    alice = ("--as", str(at / "alice.key"))
    for request in (first, second):
        assert "nothing is kept" in await cli(
            spillway.run, "vault", "open", request, "--reason", "again", *alice, code=1
        )
    assert await cli(spillway.run, "vault", "open", third, "--reason", "again", *alice)


def wrapped_keys(path: Path) -> dict[str, bytes]:
    import sqlite3

    with sqlite3.connect(path, timeout=10) as db:
        found = {row[0]: bytes(row[1]) for row in db.execute("SELECT id, wrapped FROM keys")}
    db.close()
    return found


def opens_anything(data: bytes, master: FileMaster, keys: dict[str, bytes]) -> int:
    """How many places of these bytes are a data key wrapped under the master key: each offset is tried that could be one."""
    size = {len(blob) for blob in keys.values()}
    assert len(size) == 1
    (length,) = size
    heads = {blob[:2] for blob in keys.values()}
    count = 0
    for head in heads:  # of a copy that was cut or moved, too
        at = data.find(head)
        while at >= 0:
            try:
                master.unwrap(data[at : at + length])
                count += 1
            except MasterKeyFailed:
                pass
            at = data.find(head, at + 1)
    return count


def test_a_captures_whole_life(tmp_path: Path) -> None:
    asyncio.run(whole_life(tmp_path))


def test_kill_and_restart_what_a_crash_took_is_said_to_be_lost(tmp_path: Path) -> None:
    """SIGKILL in mid-traffic: every decision that was to be captured is kept, lost or erased by the log's word."""
    import signal

    async def life() -> None:
        async with ScriptedEngine(answering(completion())) as home, ScriptedEngine(answering(completion())) as sky:
            whole = config(home.url, sky.url)
            spillway = with_config(tmp_path, whole)
            await asyncio.to_thread(spillway.run, "vault", "init")
            whole["listen"] = {"workers": 1}
            with command(whole, tmp_path) as started:
                for _ in range(3):
                    asks = [asyncio.create_task(say(started, BODY)) for _ in range(40)]
                    await asyncio.sleep(0.15)
                    for worker in await asyncio.to_thread(started.workers):
                        os.kill(worker, signal.SIGKILL)
                    await asyncio.gather(*asks, return_exceptions=True)
                    await asyncio.to_thread(_until_ready, started)
                assert (await say(started, BODY)).status == 200
                assert await asyncio.to_thread(started.stop) == 0

    asyncio.run(life())
    records = [record for slot in sorted((tmp_path / "audit").glob("slot-*")) for record in read(slot)]
    decided = {(row.request, row.attempt) for row in records if isinstance(row, Decision) and row.capture}
    said = [(row.request, row.attempt) for row in records if isinstance(row, Captured)]
    assert decided and set(said) == decided and len(said) == len(decided)
    assert {row.state for row in records if isinstance(row, Captured)} <= {"kept", "lost"}
    assert verify_directory(tmp_path / "audit").slots[0].problem is None


def _until_ready(started: Command) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            if asyncio.run(say(started, BODY)).status == 200:
                return
        except Exception:  # noqa: BLE001  a worker that is not there breaks connections in every way
            time.sleep(0.05)
    raise AssertionError(started.log.read_text())
