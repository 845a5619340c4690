"""Capturing in a running worker: which requests, how much of them, and what becomes of a capture that cannot be written."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from client import Answer, ask, open_stream
from scripted import ScriptedEngine, answering, chat_chunks, completion, json_answer, streaming
from stack import Running, running, settings_from

from compliance.journal import read
from compliance.masterkeys import create_key
from compliance.records import Captured, CapturesExpired, Decision, HoldChanged
from compliance.vault import Vault
from proxy import capturing
from proxy.auth import digest
from proxy.capturing import missed
from proxy.control_log import pen
from proxy.vaulting import open_vault

CHAT = {"model": "m", "messages": [{"role": "user", "content": "a question about zephyrwort"}]}
KEYS = {
    name: {"hash": f"sha256:{digest(f'spw_{name}')}", "tenant": tenant}
    for name, tenant in (("ward", "clinic"), ("lab", "lab"))
}


def config(url: str, **captures: Any) -> dict[str, Any]:
    return {
        "engines": {"home": {"kind": "vllm", "replicas": [url], "models": {"m": {}}}},
        "compliance": {
            "tier": "fast",
            "rules": [{"name": "cards", "when": {"found": ["card"]}, "action": "keep_local"}],
        },
        "keys": KEYS,
        "audit": {"captures": captures},
    }


def where(directory: Path, whole: dict[str, Any]) -> dict[str, Any]:
    """The same, with the log in the directory: `stack.running` takes the audit section as it is."""
    return {**whole, "audit": {"dir": str(directory / "audit"), **whole["audit"]}}


async def say(spillway: Running, body: Any = CHAT, key: str = "ward", **headers: str) -> Answer:
    return await ask(spillway.port, "/v1/chat/completions", body, {"authorization": f"Bearer spw_{key}", **headers})


async def records(spillway: Running, kind: type, count: int) -> list[Any]:
    """These records, once there are so many."""
    until = time.monotonic() + 20
    while True:
        found = [record for record in read(spillway.worker.journal.directory) if isinstance(record, kind)]
        if len(found) >= count or time.monotonic() > until:
            return found
        await asyncio.sleep(0.02)


def opened(directory: Path, whole: dict[str, Any]) -> Vault:
    return open_vault(settings_from(whole, directory))


@pytest.fixture(autouse=True)
def key(tmp_path: Path) -> Path:
    create_key(tmp_path / "state" / "vault.key")
    return tmp_path / "state" / "vault.key"


async def test_only_what_is_wanted_is_captured_and_its_decision_says_so(tmp_path: Path) -> None:
    card = {**CHAT, "messages": [{"role": "user", "content": "my card is 4111 1111 1111 1111"}]}
    async with ScriptedEngine(answering(completion())) as home:
        whole = where(tmp_path, config(home.url, tenants=["clinic"], rules=["cards"]))
        async with running(whole, tmp_path) as spillway:
            for key, body in (("ward", CHAT), ("lab", card), ("ward", card)):
                assert (await say(spillway, body, key)).status == 200
            rows = await records(spillway, Captured, 1)
            decided = await records(spillway, Decision, 3)
        assert [row.capture for row in decided] == [False, False, True]
        assert [row.request for row in rows] == [decided[2].request]
        vault = opened(tmp_path, whole)
        assert next(iter(vault.read(rows[0].request))).data == json.dumps(card).encode()
        vault.close()


async def test_off_by_default_there_is_no_vault_and_no_word_of_it(tmp_path: Path) -> None:
    async with ScriptedEngine(answering(completion())) as home:
        whole = where(tmp_path, {**config(home.url), "audit": {}})
        async with running(whole, tmp_path) as spillway:
            await say(spillway)
            assert not (await records(spillway, Decision, 1))[0].capture
    assert not (tmp_path / "state" / "vault.db").exists()


async def test_an_answer_in_pieces_an_error_and_a_client_that_leaves(tmp_path: Path) -> None:
    frames = chat_chunks(["one ", "two ", "three"])
    refusal = {"error": {"message": "zephyrwort is not known", "type": "invalid_request_error"}}

    async def script(received: Any, play: Any) -> bool | None:
        if b"refuse" in received.body:
            await play.send(json_answer(refusal, 400))
            return None
        if b"leave" in received.body:
            return await streaming(frames[:2], end=False)(received, play) or await play.left() < 0
        return await streaming(frames)(received, play)

    async with ScriptedEngine(script) as home:
        whole = where(tmp_path, config(home.url))
        async with running(whole, tmp_path) as spillway:
            stream = {**CHAT, "stream": True}
            done = await say(spillway, stream)
            refused = await say(spillway, {**CHAT, "user": "refuse"})
            assert (done.status, refused.status) == (200, 400)
            leaving = await open_stream(
                spillway.port, "/v1/chat/completions", {**stream, "user": "leave"}, {"authorization": "Bearer spw_ward"}
            )
            await leaving.until(b"one ")
            leaving.close()
            rows = await records(spillway, Captured, 3)
        assert [row.state for row in rows] == ["kept"] * 3
        vault = opened(tmp_path, whole)
        answers = [vault.read(row.request)[2].data for row in rows]
        assert answers == [b"".join(frames), json.dumps(refusal).encode(), b"".join(frames[:2])]
        vault.close()


async def test_what_is_longer_than_the_limit_is_cut_and_said(tmp_path: Path) -> None:
    async with ScriptedEngine(answering(completion("word " * 2000))) as home:
        whole = where(tmp_path, config(home.url, limit="1KB", parts=["sent", "answered"]))
        async with running(whole, tmp_path) as spillway:
            await say(spillway, {**CHAT, "messages": [{"role": "user", "content": "x" * 5000}]})
            await say(spillway)
            rows = await records(spillway, Captured, 2)
        assert [row.cut for row in rows] == [("original", "sent", "answered"), ("answered",)]
        assert rows[0].parts == ("sent", "answered") and rows[0].original
        vault = opened(tmp_path, whole)
        for row in rows:
            read_back = vault.read(row.request)
            assert [len(part.data) for part in read_back] == [
                1000 if "sent" in row.cut else len(json.dumps(CHAT)),
                1000,
            ]
            assert [part.commitment for part in read_back] == [row.sent, row.answered]
        vault.close()


@pytest.mark.parametrize("lost", ["record", "refuse"])
async def test_a_capture_that_cannot_be_written_is_lost_by_the_records_word_or_refused(
    tmp_path: Path, key: Path, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capturing, "PATIENCE", 0.5)
    key.chmod(0o644)
    async with ScriptedEngine(answering(completion())) as home:
        whole = where(tmp_path, config(home.url, lost=lost))
        async with running(whole, tmp_path) as spillway:
            answer = await say(spillway)
            if lost == "refuse":
                assert answer.status == 503 and answer.json()["error"]["code"] == "audit_unavailable"
                assert not home.requests
            else:
                assert answer.status == 200
                (row,) = await records(spillway, Captured, 1)
                assert (row.state, row.why, row.data_key) == ("lost", "vault", "")
                assert (row.original, row.sent, row.answered) == ("", "", "")
            key.chmod(0o600)
            for _ in range(200):  # until it is tried again
                if (answer := await say(spillway)).status == 200:
                    break
                await asyncio.sleep(0.05)
            rows = await records(spillway, Captured, 1 if lost == "refuse" else 2)
    assert rows[-1].state == "kept"


async def test_a_key_service_that_comes_back_in_time_costs_no_capture(tmp_path: Path) -> None:
    script, away = tmp_path / "kms.py", tmp_path / "away"
    script.write_text(
        "import os, sys\n"
        f"if os.path.exists({str(away)!r}): sys.exit(3)\n"
        "what, data = sys.argv[-1], sys.stdin.buffer.read()\n"
        "sys.stdout.buffer.write(b'v1:' + data[::-1] if what == 'wrap' else data[3:][::-1])\n"
    )
    async with ScriptedEngine(answering(completion())) as home:
        whole = where(tmp_path, config(home.url, lost="refuse", kms={"command": [sys.executable, str(script)]}))
        async with running(whole, tmp_path) as spillway:
            away.touch()
            assert (await say(spillway)).status == 200  # nobody has noticed yet
            for _ in range(200):
                if (await say(spillway)).status == 503:
                    break
                await asyncio.sleep(0.05)
            away.unlink()
            for _ in range(200):
                if (await say(spillway)).status == 200:
                    break
                await asyncio.sleep(0.05)
            sent = len(home.requests)
            rows = await records(spillway, Captured, sent)
    assert [row.state for row in rows] == ["kept"] * sent


async def test_a_damaged_key_costs_its_own_subjects_captures_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capturing, "PATIENCE", 0.5)
    async with ScriptedEngine(answering(completion())) as home:
        whole = where(tmp_path, config(home.url))
        async with running(whole, tmp_path) as spillway:
            await say(spillway, **{"x-spillway-subject": "a"})
            (row,) = await records(spillway, Captured, 1)
        with sqlite3.connect(tmp_path / "state" / "vault.db") as db:
            db.execute("UPDATE keys SET wrapped = zeroblob(92)")
        db.close()
        async with running(whole, tmp_path) as spillway:
            await asyncio.gather(*[say(spillway, **{"x-spillway-subject": name}) for name in "abacab"])
            rows = (await records(spillway, Captured, 7))[1:]
    assert all((one.state == "lost") == (one.subject == row.subject) for one in rows) and len(rows) == 6


async def test_what_there_is_no_room_for_is_lost_and_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capturing, "MAX_BYTES", 3000)
    async with (
        ScriptedEngine(answering(completion("word " * 2000))) as home,
        ScriptedEngine(answering(completion())) as small,
    ):
        for number, engine in enumerate((home, small)):
            whole = where(tmp_path, config(engine.url))
            async with running(whole, tmp_path, slot=number) as spillway:
                for _ in range(3):
                    assert (await say(spillway)).status == 200
                    await asyncio.sleep(0.1)
                rows = await records(spillway, Captured, 3)
            assert {(row.state, row.why) for row in rows} == {("lost", "no_room") if number == 0 else ("kept", "")}


async def test_old_captures_go_but_for_those_under_a_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with ScriptedEngine(answering(completion())) as home:
        whole = where(tmp_path, config(home.url))
        settings = settings_from(whole, tmp_path)
        async with running(whole, tmp_path) as spillway:
            answers = [await say(spillway) for _ in range(3)]
            await records(spillway, Captured, 3)
        held = answers[1].headers["x-spillway-request-id"]

        def place() -> None:
            with pen(settings) as log:
                log.write(
                    HoldChanged(
                        actor="root", at=1, begin=0, change="placed", end=0, hold="hold_1", reason="case", scope="request", value=held
                    )
                )  # fmt: skip

        await asyncio.to_thread(place)
        vault = opened(tmp_path, whole)
        assert len(vault.read(held)) == 3
        with_less = where(tmp_path, config(home.url, keep="1ms"))
        vault.turn("purge", 0, 1)  # long ago
        async with running(with_less, tmp_path) as spillway:
            (row,) = await records(spillway, CapturesExpired, 1)
        assert (row.records, row.captures, row.held, row.keys) == (2, 6, 1, 0)
        assert vault.read(held) and not vault.read(answers[0].headers["x-spillway-request-id"])
        vault.close()


# --- after a crash ---------------------------------------------------------------------------------------------


def test_a_decision_to_capture_without_a_word_of_it_is_missed() -> None:
    from tests_records import decision, outcome

    def said(request: str, seq: int) -> Captured:
        return Captured(
            answered="", at=1, attempt=0, cut=(), data_key="", original="", parts=(), request=request, sent="", seq=seq, state="kept",
            subject="", tenant="", why="",
        )  # fmt: skip

    rows = [
        decision("a", capture=True, seq=0), decision("b", seq=1), decision("c", capture=True, seq=2), outcome("a", seq=3),
        said("a", 4), decision("d", capture=True, seq=5),
    ]  # fmt: skip
    assert [row.request for row in missed(rows, 6)] == ["c", "d"]
    assert [row.request for row in missed(rows, 5)] == ["c"]


async def test_what_the_vault_has_although_the_log_does_not_say_so_is_said_at_the_next_start(tmp_path: Path) -> None:
    async with ScriptedEngine(answering(completion())) as home:
        whole = where(tmp_path, config(home.url))
        async with running(whole, tmp_path) as spillway:
            for _ in range(2):
                await say(spillway)
            rows = await records(spillway, Captured, 2)
        log = tmp_path / "audit" / "slot-0"
        cut_records(log, Captured)  # as a crash between the vault's sync and the log's would
        vault = opened(tmp_path, whole)
        vault.erase("request", rows[1].request)
        vault.close()
        async with running(whole, tmp_path) as spillway:
            again = await records(spillway, Captured, 2)
    assert [(row.request, row.state, row.why) for row in again] == [
        (rows[0].request, "kept", "crash"), (rows[1].request, "lost", "crash"),
    ]  # fmt: skip
    assert [again[0].original, again[0].sent, again[0].answered] == [rows[0].original, rows[0].sent, rows[0].answered]


def cut_records(log: Path, kind: type) -> None:
    """A log as it would be without the records from the first of this kind on, and without a checkpoint."""
    from compliance.records import decode

    (segment,) = log.glob("segment-*.jsonl")
    kept = []
    for line in segment.read_bytes().splitlines(keepends=True):
        record = decode(line[:-1])
        if not isinstance(record, kind) and record.kind != "stopped":
            record.seq = len(kept)
            kept.append(record)
    from compliance.journal import load_or_create_key
    from compliance.merkle import Frontier
    from compliance.records import encode
    from compliance.tails import Voucher

    lines = [encode(record) for record in kept]
    origin = (log / "key.pub").read_text().partition("+")[0]
    Voucher(load_or_create_key(log.parent / "key"), origin).vouch(Frontier(), lines, len(lines) - 1)
    segment.chmod(0o600)
    segment.write_bytes(b"".join(line + b"\n" for line in lines))
    for name in ("checkpoints", "frontier.json"):
        (log / name).unlink(missing_ok=True)
