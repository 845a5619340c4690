"""Witnesses on real disks and sockets: what they are given, what they refuse, what becomes of what could not be given."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bucket_server import Bucket
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from logs import KEY, write_logs
from scripted import Play, Received, ScriptedEngine

from compliance import notes, verify
from compliance.roster import sign_roster
from compliance.witnessing import Note, newest
from engines.sigv4 import Credentials
from engines.transport import Transport
from proxy.config import Settings, load
from proxy.config_parts import Bucket as BucketPart
from proxy.witness import (
    BucketWitness,
    DirectoryWitness,
    Keeper,
    WebhookWitness,
    WitnessError,
    Witnesses,
    _Http,
    build,
    standing,
)

NOTE = Note("inst/slot-0", 7, b"inst/slot-0\n7\nAAAA\n\n\xe2\x80\x94 inst/slot-0 BBBB\n")
SECRET = "the-secret-of-the-hook"


def settings(tmp_path: Path, witnesses: str) -> Settings:
    text = f"state: {{dir: {tmp_path}/state}}\naudit:\n  dir: {tmp_path}/audit\n  witness:\n{witnesses}"
    return load(text, {"ACCESS": "AKID", "SECRET": "hush", "HOOK": SECRET})


# --- the newest notes of a log ------------------------------------------------------------------------------


def test_the_newest_whole_note_of_each_log_and_of_the_roster_is_found(tmp_path: Path) -> None:
    write_logs(tmp_path)
    path = tmp_path / "slot-0" / "checkpoints"
    whole = path.read_bytes()
    sign_roster(tmp_path, "inst", KEY)
    assert [(note.origin, note.number) for note in newest(tmp_path)] == [
        ("inst/roster", 1), ("inst/cli", 1), ("inst/slot-0", 85), ("inst/slot-1", 85),
    ]  # fmt: skip
    for cut in range(1, len(whole), 7):
        path.write_bytes(whole[: len(whole) - cut])
        found = [note.number for note in newest(tmp_path) if note.origin == "inst/slot-0"]
        assert not found or found[0] < 85, cut
        assert not found or notes.last(path) in verify.split_notes(whole)


def test_a_note_that_the_log_s_key_did_not_sign_is_not_handed_out(tmp_path: Path) -> None:
    write_logs(tmp_path)
    other = tmp_path / "other"
    write_logs(other, key=Ed25519PrivateKey.generate())
    (other / "slot-0" / "checkpoints").rename(tmp_path / "slot-0" / "checkpoints")
    assert [note.origin for note in newest(tmp_path)] == ["inst/roster", "inst/cli", "inst/slot-1"]


def test_two_logs_of_one_origin_get_two_names(tmp_path: Path) -> None:
    write_logs(tmp_path / "a")
    write_logs(tmp_path / "b", actor="somebody else")
    a, b = newest(tmp_path / "a")[2], newest(tmp_path / "b")[2]
    assert (a.origin, a.number) == (b.origin, b.number) and a.name != b.name


# --- a directory --------------------------------------------------------------------------------------------


async def test_a_directory_gets_each_note_once_and_never_loses_one(tmp_path: Path) -> None:
    witness = DirectoryWitness(tmp_path)
    await witness.hand(NOTE)
    await witness.hand(NOTE)
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.note")] == [NOTE.name]
    path = tmp_path / NOTE.name
    assert path.read_bytes() == NOTE.content and path.stat().st_mode & 0o777 == 0o444
    assert len(list(path.parent.iterdir())) == 1  # no part is left
    path.chmod(0o644)
    path.write_bytes(b"changed")
    with pytest.raises(WitnessError, match="something else"):
        await witness.hand(NOTE)
    assert path.read_bytes() == b"changed"


async def test_a_directory_that_is_not_mounted_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(WitnessError, match="is its disk mounted"):
        await DirectoryWitness(tmp_path / "not there").hand(NOTE)
    assert not (tmp_path / "not there").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
async def test_a_full_directory_keeps_nothing_half_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], check=False).returncode:
        pytest.skip("may not mount")
    try:
        filler = tmp_path / "filler"
        with pytest.raises(OSError, match="No space"), open(filler, "wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        with pytest.raises(WitnessError, match="No space left"):
            await DirectoryWitness(tmp_path).hand(NOTE)
        assert not [path for path in tmp_path.rglob("*") if path.is_file() and path != filler]
        filler.unlink()
        await DirectoryWitness(tmp_path).hand(NOTE)
        assert (tmp_path / NOTE.name).read_bytes() == NOTE.content
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


# --- a bucket -----------------------------------------------------------------------------------------------


def bucket_witness(transport: Transport, url: str, secret: str = "hush", **more: Any) -> BucketWitness:
    part = BucketPart.model_validate(
        {
            "endpoint": url, "bucket": "kept", "region": "eu-central-1", "prefix": "clinic/a b",
            "access_key": {"env": "A"}, "secret_key": {"env": "S"}, **more,
        }
    )  # fmt: skip
    return BucketWitness(_Http(transport, url, "s3", "local"), part, Credentials("AKID", secret))


async def test_a_bucket_gets_a_signed_and_locked_object(tmp_path: Path) -> None:
    bucket = Bucket("kept", "AKID", "hush")
    transport = Transport(asyncio.get_running_loop())
    async with bucket.engine() as server:
        witness = bucket_witness(transport, server.url, retain="2190d")
        await witness.hand(NOTE)
        await witness.hand(NOTE)  # after a restart that forgot: it is there
        await bucket_witness(transport, server.url, lock="none").hand(Note("inst/slot-1", 1, b"n"))
    await transport.close()
    assert bucket.answers == [(200, ""), (412, "PreconditionFailed"), (200, "")]
    key = f"clinic/a b/{NOTE.name}"
    assert bucket.objects[key] == NOTE.content
    mode, until = bucket.locks[key]
    assert mode == "COMPLIANCE" and until > "2032"
    assert [lock for other, lock in bucket.locks.items() if other != key] == [("", "")]


@pytest.mark.parametrize(
    ("wrong", "code"), [({"secret": "guessed"}, "SignatureDoesNotMatch"), ({"bucket": "elsewhere"}, "NoSuchBucket")]
)
async def test_a_bucket_that_refuses_says_why_without_secrets(wrong: dict[str, str], code: str) -> None:
    bucket = Bucket("kept", "AKID", "hush")
    transport = Transport(asyncio.get_running_loop())
    async with bucket.engine() as server:
        with pytest.raises(WitnessError, match=code) as caught:
            await bucket_witness(transport, server.url, **wrong).hand(NOTE)
    await transport.close()
    assert not bucket.objects and "guessed" not in str(caught.value)


async def test_a_bucket_without_conditions_is_written_all_the_same() -> None:
    bucket = Bucket("kept", "AKID", "hush")
    bucket.knows_conditions = False
    transport = Transport(asyncio.get_running_loop())
    async with bucket.engine() as server:
        await bucket_witness(transport, server.url).hand(NOTE)
    await transport.close()
    assert list(bucket.objects.values()) == [NOTE.content]


# --- a webhook ----------------------------------------------------------------------------------------------


async def test_a_webhook_gets_the_note_with_a_mac_over_time_and_body() -> None:
    status = 204

    async def answer(received: Received, play: Play) -> None:
        await play.send(f"HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n".encode())

    transport = Transport(asyncio.get_running_loop())
    async with ScriptedEngine(answer) as server:
        witness = WebhookWitness(
            _Http(transport, server.url, "hook", "local"), "/in", SECRET, wall=lambda: 1700000000.5
        )
        await witness.hand(NOTE)
        status = 409
        await witness.hand(NOTE)
        status = 302
        with pytest.raises(WitnessError, match="answers 302"):
            await witness.hand(NOTE)
        first = server.requests[0]
    await transport.close()
    assert (first.method, first.path, first.body) == ("POST", "/in", NOTE.content)
    mac = hmac.new(SECRET.encode(), b"1700000000." + NOTE.content, hashlib.sha256).hexdigest()
    assert first.headers["x-spillway-signature"] == f"t=1700000000,v1={mac}"
    assert first.headers["x-spillway-note"] == NOTE.name
    assert SECRET.encode() not in first.raw


# --- rounds -------------------------------------------------------------------------------------------------


class Flaky:
    """Takes notes, or says no."""

    def __init__(self) -> None:
        self.got: list[Note] = []
        self.says_no = False

    async def hand(self, note: Note) -> None:
        if self.says_no:
            raise WitnessError("it is out of order")
        self.got.append(note)


def note(number: int, origin: str = "inst/slot-0") -> Note:
    return Note(origin, number, b"%d" % number)


def keeper(flaky: Flaky, notes: Callable[[], list[Note]], before: dict[str, Any] | None = None) -> Keeper:
    return Keeper("outside", flaky, every=60.0, notes=notes, standing=before or {})


async def test_law_10_a_witness_that_was_away_gets_the_newest_of_each_log_and_no_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    flaky, count = Flaky(), 1
    idle = keeper(flaky, list)
    await idle.round()
    assert idle.pause() == 2  # it looks again soon, until there was something
    one = keeper(flaky, lambda: [note(count), note(count, "inst/slot-1")])
    await one.round()
    assert [(got.origin, got.number) for got in flaky.got] == [("inst/slot-0", 1), ("inst/slot-1", 1)]
    flaky.says_no = True
    pauses = []
    with caplog.at_level(logging.INFO, "spillway"):
        for count in range(2, 40):  # noqa: B007  the lambda reads it
            await one.round()
            pauses.append(one.pause())
        assert one.behind == 2 and one.standing()["problem"] == "it is out of order"
        assert pauses[:4] == [1, 2, 4, 8] and max(pauses) == 60
        flaky.says_no = False
        await one.round()
    assert [got.number for got in flaky.got[2:]] == [39, 39]
    assert one.behind == 0 and one.pause() == 60
    assert [record.getMessage() for record in caplog.records] == [
        "the witness outside is behind (checkpoints waiting: 2): it is out of order; it is tried again",
        "the witness outside has the newest checkpoints again",
    ]


async def test_a_restart_knows_what_was_handed_out_and_sees_a_log_that_was_cut(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    flaky = Flaky()
    first = Witnesses([keeper(flaky, lambda: [note(5)])], tmp_path)
    await first.last()
    again = keeper(flaky, lambda: [note(5)], standing(tmp_path)["outside"])
    await again.round()
    assert len(flaky.got) == 1 and again.last_success > 0
    cut = keeper(flaky, lambda: [note(3)], standing(tmp_path)["outside"])
    await cut.round()
    assert "has 3 records, the witness outside saw 5: it was cut" in caplog.text
    assert [got.number for got in flaky.got] == [5, 3]  # the witness is to have the proof of it


async def test_witnesses_of_a_configuration_are_given_the_logs(tmp_path: Path) -> None:
    write_logs(tmp_path / "audit")
    (tmp_path / "state").mkdir()
    (tmp_path / "disk").mkdir()
    bucket, posts = Bucket("kept", "AKID", "hush"), []

    async def hook(received: Received, play: Play) -> None:
        posts.append(received)
        await play.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async with bucket.engine() as s3, ScriptedEngine(hook) as server:
        config = settings(
            tmp_path,
            f"    - {{name: disk, directory: {tmp_path}/disk}}\n"
            f"    - name: bucket\n      boundary: local\n      s3: {{endpoint: '{s3.url}', bucket: kept, region: eu-central-1,"
            " access_key: {env: ACCESS}, secret_key: {env: SECRET}}\n"
            f"    - {{name: hook, boundary: local, webhook: {{url: '{server.url}/in', secret: {{env: HOOK}}}}}}\n",
        )
        witnesses = build(config, asyncio.get_running_loop())
        assert witnesses is not None
        await witnesses.last()
    names = sorted(note.name for note in newest(tmp_path / "audit"))
    assert (
        sorted(path.relative_to(tmp_path / "disk").as_posix() for path in (tmp_path / "disk").rglob("*.note")) == names
    )
    assert sorted(bucket.objects) == [f"spillway/{name}" for name in names]
    assert sorted(post.headers["x-spillway-note"] for post in posts) == names
    where = standing(tmp_path / "state")
    assert {name: row["behind"] for name, row in where.items()} == {"disk": 0, "bucket": 0, "hook": 0}
    samples = {
        (sample.name, sample.labels["witness"]): sample.value
        for family in witnesses.collect()
        for sample in family.samples
    }
    assert samples["spillway_witness_behind", "disk"] == 0
    assert samples["spillway_witness_last_success_seconds", "hook"] > 1.7e9


def test_a_state_file_that_is_none_is_no_reason_not_to_start(tmp_path: Path) -> None:
    for text in ("", "{", "[]", '"x"'):
        (tmp_path / "witness.json").write_text(text)
        assert standing(tmp_path) == {}
