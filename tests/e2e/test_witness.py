"""Witnesses of the running command: what a directory, a bucket and a webhook hold, and what `audit verify` does with it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bucket_server import Bucket
from client import ask
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from scripted import Play, Received, ScriptedEngine, answering, completion
from stack import ROOT, Command, command, free_port

from compliance import verify
from compliance.journal import Journal, load_or_create_key, read

pytestmark = pytest.mark.e2e
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}


def config(engine: str, disk: Path, bucket: str, hook: str, **more: Any) -> dict[str, Any]:
    keys = {"access_key": {"env": "ACCESS"}, "secret_key": {"env": "SECRET"}}
    return {
        "engines": {"home": {"kind": "vllm", "replicas": [engine], "models": {"m": {}}}},
        "listen": {"workers": 1},
        "audit": {
            "dir": str(disk.parent / "audit"),
            "witness": [
                {"name": "disk", "directory": str(disk), "every": "1s"},
                {
                    "name": "bucket", "boundary": "local", "every": "1s",
                    "s3": {"endpoint": bucket, "bucket": "kept", "region": "eu-central-1", **keys},
                },
                {"name": "hook", "boundary": "local", "every": "1s", "webhook": {"url": f"{hook}/in", "secret": {"env": "HOOK"}}},
            ],
        },
        **more,
    }  # fmt: skip


ENVIRON = {"ACCESS": "AKID", "SECRET": "hush", "HOOK": "the-hook-s-secret"}


async def until(true: Callable[[], bool], what: str = "it did not come") -> None:
    for _ in range(3000):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(what)


def spillway(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "proxy", *arguments, "--config", str(directory / "spillway.yaml")],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


def notes_in(disk: Path) -> list[str]:
    return sorted(path.relative_to(disk).as_posix() for path in disk.rglob("*.note"))


async def test_witnesses_get_the_checkpoints_of_the_running_command_and_catch_a_rewritten_log(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    bucket, posts = Bucket("kept", "AKID", "hush"), []

    async def hook(received: Received, play: Play) -> None:
        posts.append(received)
        await play.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async with ScriptedEngine(answering(completion())) as engine, bucket.engine() as s3, ScriptedEngine(hook) as server:
        prometheus = free_port()
        whole = config(engine.url, disk, s3.url, server.url, telemetry={"prometheus": {"port": prometheus}})
        with command(whole, tmp_path, environ=ENVIRON) as started:
            for _ in range(3):
                assert (await ask(started.port, "/v1/chat/completions", CHAT)).status == 200
            await until(lambda: len(bucket.objects) >= 2 and len(posts) >= 2 and len(notes_in(disk)) >= 2)
            # a bucket that is away for a while gets what is newest then
            bucket.out_of_order = "SlowDown"
            before = len(bucket.objects)
            assert (await ask(started.port, "/v1/chat/completions", CHAT)).status == 200
            await until(lambda: "the witness bucket is behind" in started.log.read_text())
            # said first, written down then
            await until(lambda: spillway(tmp_path, "audit", "witness", "--json").returncode == 1)
            said = spillway(tmp_path, "audit", "witness", "--json")
            assert {row["name"]: bool(row["problem"]) for row in json.loads(said.stdout)} == {
                "disk": False, "bucket": True, "hook": False,
            }  # fmt: skip
            health = await until_health(started, lambda body: body["witnesses"]["bucket"]["behind"] > 0)
            assert health["status"] == "degraded" and health["witnesses"]["disk"]["last_success"]
            text = await asyncio.to_thread(
                lambda: urllib.request.urlopen(f"http://127.0.0.1:{prometheus}/metrics").read().decode()
            )
            assert 'spillway_witness_behind{witness="disk"} 0.0' in text
            assert 'spillway_witness_behind{witness="bucket"}' in text
            assert "spillway_audit_unwritable 0.0" in text
            bucket.out_of_order = ""
            await until(lambda: len(bucket.objects) > before)
            await until(lambda: "the witness bucket has the newest checkpoints again" in started.log.read_text())
            assert await asyncio.to_thread(started.stop) == 0
    log = started.log.read_text()
    assert "hush" not in log and "the-hook-s-secret" not in log and "Traceback" not in log
    # at the end every witness has the last checkpoint, which covers the whole log
    records = len(list(read(tmp_path / "audit" / "slot-0")))
    names = notes_in(disk)
    assert any(
        name.split("/")[-2] == "slot-0" and int(name.split("/")[-1].partition("-")[0]) == records for name in names
    )
    assert {name.removeprefix("spillway/") for name in bucket.objects} <= set(names)
    assert {post.headers["x-spillway-note"] for post in posts} >= set(names[-1:])
    assert spillway(tmp_path, "audit", "witness").returncode == 0
    # what the directory holds is an anchor for the log as it is
    done = spillway(tmp_path, "audit", "verify", str(tmp_path / "audit"), "--since", str(disk))
    assert done.returncode == verify.VERIFIED, done.stdout + done.stderr
    # and for a copy, by the file alone
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "audit", copy)
    assert verify.main([str(copy), "--earlier", str(disk)]) == verify.VERIFIED
    # whoever owns the key rewrites the log: by itself it looks well, and the witness says no
    rewrite(copy, tmp_path / "audit" / "key")
    assert verify.main([str(copy / "slot-0")]) == verify.UNANCHORED
    assert verify.main([str(copy / "slot-0"), "--earlier", str(disk)]) == verify.NOT_VERIFIED
    # a slot's log that is gone as a whole is missed, too
    shutil.rmtree(copy / "slot-0")
    assert verify.main([str(copy), "--earlier", str(disk)]) == verify.NOT_VERIFIED


async def until_health(started: Command, true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    for _ in range(3000):
        body: dict[str, Any] = (await ask(started.port, "/health", method="GET")).json()
        with contextlib.suppress(KeyError):
            if true(body):
                return body
        await asyncio.sleep(0.01)
    raise AssertionError(body)


def rewrite(logs: Path, key: Path) -> None:
    """Slot 0's log with one record changed, signed anew by its own key."""
    slot = logs / "slot-0"
    rows = list(read(slot))
    origin = rows[0].instance
    shutil.rmtree(slot)
    journal = Journal.open(slot, origin=origin, key=load_or_create_key(key))
    for row in rows:
        if row.kind == "decision":
            row.rule = "another rule"
        journal.append(row)
    journal.close()


def test_earlier_checkpoints_of_another_instance_or_of_nothing_are_no_anchor(tmp_path: Path) -> None:
    from logs import write_logs

    write_logs(tmp_path / "logs")
    (tmp_path / "empty").mkdir()
    assert verify.main([str(tmp_path / "logs"), "--since", str(tmp_path / "empty")]) == verify.WRONG_USE
    other = tmp_path / "other"
    (other / "inst" / "slot-0").mkdir(parents=True)
    write_logs(tmp_path / "forged", key=Ed25519PrivateKey.generate())
    forged = (tmp_path / "forged" / "slot-0" / "checkpoints").read_bytes().split(b"\n\n")
    (other / "inst" / "slot-0" / "1.note").write_bytes(b"\n\n".join(forged[:2]) + b"\n")
    assert verify.main([str(tmp_path / "logs" / "slot-0"), "--since", str(other)]) == verify.NOT_VERIFIED


def test_an_evidence_pack_continues_every_checkpoint_of_a_witness(tmp_path: Path) -> None:
    from logs import BEGIN, DAY, KEY, write_logs

    from compliance.evidence import EvidenceError, export
    from compliance.lookup import Query

    disk = tmp_path / "disk"
    logs = write_logs(tmp_path / "logs")
    for log in logs:
        for note in verify.read_notes(log / "checkpoints"):
            path = disk / log.name / f"{len(list(disk.rglob('*.note')))}.note"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(note)
    assert len(list(disk.rglob("*.note"))) > 10
    query = Query(begin=0, end=BEGIN + 9 * DAY)
    export(logs, tmp_path / "pack", key=KEY, query=query, since=verify.kept(disk))
    assert verify.main([str(tmp_path / "pack"), "--earlier", str(disk)]) == verify.VERIFIED
    shutil.rmtree(tmp_path / "logs")
    logs = write_logs(tmp_path / "logs", actor="somebody else")  # rewritten, by the owner of the key
    with contextlib.suppress(EvidenceError):  # not even a pack is made of it
        export(logs, tmp_path / "other", key=KEY, query=query, since=verify.kept(disk))
        assert verify.main([str(tmp_path / "other"), "--earlier", str(disk)]) == verify.NOT_VERIFIED
    export(logs, tmp_path / "alone", key=KEY, query=query)
    assert verify.main([str(tmp_path / "alone"), "--earlier", str(disk)]) == verify.NOT_VERIFIED
