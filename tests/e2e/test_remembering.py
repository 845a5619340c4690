"""What is kept of requests to learn from: numbers under keys, of whom it was said, and gone when it must be."""

from __future__ import annotations

import asyncio
import hashlib
import json
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from captures import everything
from client import ask
from scripted import ScriptedEngine, answering, chat_chunks, completion
from stack import Running, command, running, settings_from
from typer.testing import CliRunner

from compliance.journal import read
from policies.gain import named_features
from policies.remembered import unpack, unpack_answer
from proxy.cli import app
from proxy.own_labels import remembered
from proxy.routing_models import load_embedding
from proxy.vaulting import open_features

PATH = "/v1/chat/completions"
KEYS = {
    name: {"hash": f"sha256:{hashlib.sha256(f'spw_{name}'.encode()).hexdigest()}", "tenant": tenant}
    for name, tenant in (("ward", "clinic"), ("lab", "lab"))
}
TEXT = "Explain how a zebrafish regrows its fins, please."


def config(url: str, **remember: Any) -> dict[str, Any]:
    return {
        "engines": {"home": {"kind": "vllm", "replicas": [url], "models": {"m": {}}}},
        "complexity": {"remember": remember},
        "keys": KEYS,
    }


@asynccontextmanager
async def serving(directory: Path, **remember: Any) -> AsyncIterator[tuple[Running, dict[str, Any]]]:
    async with ScriptedEngine(answering(completion())) as engine:
        whole = config(engine.url, **remember)
        async with running(whole, directory) as spillway:
            yield spillway, whole


async def say(spillway: Running, text: str = TEXT, key: str = "ward", **headers: str) -> str:
    body = {
        "model": "m",
        "messages": [{"role": "system", "content": "You are terse."}, {"role": "user", "content": text}],
    }
    answer = await ask(spillway.port, PATH, body, {"authorization": f"Bearer spw_{key}", **headers})
    assert answer.status == 200
    return answer.headers["x-spillway-request-id"]


def kept(directory: Path, whole: dict[str, Any], request: str) -> Any:
    vault = open_features(settings_from(whole, directory))
    try:
        return remembered(vault, request, load_embedding()[1])
    finally:
        vault.close()


async def test_features_are_kept_sealed_and_nothing_else_is(tmp_path: Path) -> None:
    async with serving(tmp_path) as (spillway, whole):
        request = await say(spillway)
        embeddings = await ask(
            spillway.port, "/v1/embeddings", {"model": "m", "input": TEXT}, {"authorization": "Bearer spw_ward"}
        )
        assert embeddings.status != 500
    found = kept(tmp_path, whole, request)
    embedding, _ = load_embedding()
    assert np.allclose(found.named, named_features(TEXT), atol=0.02)
    assert float(found.vector @ embedding.read(TEXT)[0]) == pytest.approx(1, abs=0.001)
    assert (found.route, found.answer) == ("", None)
    for name in ("features.db", "features.key"):
        assert stat.S_IMODE((tmp_path / "state" / name).stat().st_mode) == 0o600
    raw = everything(tmp_path)
    assert b"zebrafish" not in raw and b"zebra" not in raw
    vector = np.rint(embedding.read(TEXT)[0] / (np.abs(embedding.read(TEXT)[0]).max() / 127)).astype(np.int8).tobytes()
    assert vector not in raw and vector[:32] not in raw  # it is sealed, wherever it lies
    for slot in (tmp_path / "audit").glob("slot-*"):
        assert "zebra" not in " ".join(map(str, read(slot)))


@pytest.mark.parametrize(
    ("text", "remember", "is_kept"),
    [
        (f"{TEXT} My ssn is 123-45-6789.", {}, False),
        (f"{TEXT} My ssn is 123-45-6789.", {"findings": "keep"}, True),
        ("The patient was diagnosed with asthma and takes salbutamol twice daily.", {}, False),
        (TEXT, {"tenants": ["lab"]}, False),
        (TEXT, {"tenants": ["clinic"]}, True),
        (TEXT, {"share": "0%"}, False),
    ],
)
async def test_only_what_was_asked_for_is_kept(
    text: str, remember: dict[str, Any], is_kept: bool, tmp_path: Path
) -> None:
    async with serving(tmp_path, **remember) as (spillway, whole):
        request = await say(spillway, text)
    assert (kept(tmp_path, whole, request) is not None) is is_kept


async def test_a_share_is_kept_by_chance(tmp_path: Path) -> None:
    async with serving(tmp_path, share="40%") as (spillway, whole):
        requests = [await say(spillway, f"{TEXT} {number}") for number in range(120)]
    vault = open_features(settings_from(whole, tmp_path))
    held = set(vault.newest(1000))
    vault.close()
    assert held < set(requests)
    assert 25 < len(held) < 75  # six standard deviations


async def test_an_erasure_takes_them_with_every_copy(tmp_path: Path) -> None:
    async with serving(tmp_path) as (spillway, whole):
        hers = await say(spillway, **{"x-spillway-subject": "p-1"})
        his = await say(spillway, **{"x-spillway-subject": "p-2"})
        theirs = await say(spillway, key="lab")
    file = tmp_path / "spillway.yaml"
    file.write_text(
        json.dumps({**whole, "state": {"dir": str(tmp_path / "state")}, "audit": {"dir": str(tmp_path / "audit")}})
    )
    sealed = blobs(tmp_path)
    look = CliRunner().invoke(
        app, ["audit", "erase", "--subject", "p-1", "--reason", "asked", "--dry-run", "--json", "-c", str(file)]
    )
    assert json.loads(look.stdout) == {"attempts": 0, "features": 1, "maps": 0, "hold": None}
    run = CliRunner().invoke(app, ["audit", "erase", "--subject", "p-1", "--reason", "asked", "-c", str(file)])
    assert run.exit_code == 0, run.output
    assert "the numbers of 1 text" in run.stdout
    assert kept(tmp_path, whole, hers) is None and kept(tmp_path, whole, his) is not None
    raw = everything(tmp_path)
    assert [blob in raw for request, blob in sealed.items() if request == hers] == [False]
    assert all(blob in raw for request, blob in sealed.items() if request != hers)
    run = CliRunner().invoke(app, ["audit", "erase", "--tenant", "lab", "--reason", "asked", "-c", str(file)])
    assert run.exit_code == 0, run.output
    assert kept(tmp_path, whole, theirs) is None and kept(tmp_path, whole, his) is not None


def blobs(directory: Path) -> dict[str, bytes]:
    import contextlib
    import sqlite3

    with contextlib.closing(sqlite3.connect(directory / "state" / "features.db")) as db:
        return {request: bytes(sealed) for request, sealed in db.execute("SELECT request, sealed FROM captures")}


async def test_a_hold_blocks_the_erasure(tmp_path: Path) -> None:
    async with serving(tmp_path) as (spillway, whole):
        request = await say(spillway)
    file = tmp_path / "spillway.yaml"
    file.write_text(
        json.dumps({**whole, "state": {"dir": str(tmp_path / "state")}, "audit": {"dir": str(tmp_path / "audit")}})
    )
    placed = CliRunner().invoke(
        app, ["audit", "hold", "add", "--tenant", "clinic", "--reason", "case", "-c", str(file)]
    )
    assert placed.exit_code == 0, placed.output
    run = CliRunner().invoke(app, ["audit", "erase", "--tenant", "clinic", "--reason", "asked", "-c", str(file)])
    assert run.exit_code == 1
    assert kept(tmp_path, whole, request) is not None


async def test_what_is_older_than_it_is_kept_goes_and_so_does_what_is_too_much(tmp_path: Path) -> None:
    async with serving(tmp_path, most=100) as (spillway, whole):
        remembering = spillway.worker._remembering
        assert remembering is not None
        first = await say(spillway)
        for number in range(130):
            await say(spillway, f"{TEXT} {number}")
        await asyncio.to_thread(until, lambda: remembering.kept == 131)
        remembering._trim()
        vault = remembering._opened()
        assert len(vault.newest(1000)) == 100 and first not in vault.newest(1000)
        remembering._clock = lambda: 1 << 60
        remembering._purge()
        assert vault.newest(1000) == []
    assert kept(tmp_path, whole, first) is None


async def test_workers_share_the_store(tmp_path: Path) -> None:
    async with ScriptedEngine(answering(completion())) as engine:
        whole = config(engine.url)
        with command({**whole, "listen": {"workers": 2}}, tmp_path) as served:
            bodies = [{"model": "m", "messages": [{"role": "user", "content": f"{TEXT} {n}"}]} for n in range(60)]
            key = {"authorization": "Bearer spw_ward"}
            answers = await asyncio.gather(*[ask(served.port, PATH, body, key) for body in bodies])
            assert served.stop() == 0
    requests = {answer.headers["x-spillway-request-id"] for answer in answers}
    vault = open_features(settings_from(whole, tmp_path))
    assert (
        set(vault.newest(1000)) == requests and len({request[:12] for request in requests}) == 2
    )  # ids of two workers
    vault.close()


async def test_a_store_that_cannot_be_written_costs_no_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "features.db").write_bytes(b"no database, and some more bytes than a header has" * 40)
    (tmp_path / "state" / "features.db").chmod(0o600)
    async with serving(tmp_path) as (spillway, _):
        for _ in range(3):
            await say(spillway)
        remembering = spillway.worker._remembering
        assert remembering is not None
        await asyncio.to_thread(until, lambda: remembering.lost == 3)
    said = [row.getMessage() for row in caplog.records if "learnt from is lost" in row.getMessage()]
    assert len(said) == 1 and "zebra" not in caplog.text


@pytest.mark.interpreted
@pytest.mark.parametrize("streamed", [False, True])
async def test_an_answers_features_stand_beside_its_prompts(streamed: bool, tmp_path: Path) -> None:
    from engines.openai import DIALECT
    from policies.doubt import Answer, doubts

    said = "It regrows them from a blastema."
    body = json.dumps(completion(said)).encode()
    if streamed:
        body = b"".join(chat_chunks([said]))
    async with serving(tmp_path) as (spillway, whole):
        remembering = spillway.worker._remembering
        assert remembering is not None
        recorder = spillway.worker.pipeline._attempts._recorder
        outcome = recorder.outcome

        def outcome_and_answer(exchange: Any, attempt: Any) -> None:
            outcome(exchange, attempt)
            remembering.answered(exchange, DIALECT, streamed=streamed, body=body)
            remembering.answered(exchange, DIALECT, streamed=streamed, body=body + b" " * 20_000)  # too long

        recorder.outcome = outcome_and_answer
        request = await say(spillway)
    found = kept(tmp_path, whole, request)
    assert found.answer is not None and np.allclose(found.answer, doubts(TEXT, Answer(said, "stop")), atol=0.02)
    assert b"blastema" not in everything(tmp_path)


async def test_a_prompt_that_two_models_answered_is_kept_once(tmp_path: Path) -> None:
    """The small one's answer was held and doubtful, the large one's was given: both completed."""
    async with ScriptedEngine(answering(completion(""))) as small, ScriptedEngine(answering(completion())) as large:
        whole = config(small.url, share="100%")
        whole["engines"]["large"] = {"kind": "vllm", "replicas": [large.url], "models": {"l": {}}}
        whole["models"] = {"m": {"route": True}}
        escalate = {"to": ["large/l"], "share": "100%"}
        whole["decisions"] = [{"name": "all", "use": ["home/m"], "otherwise": "refuse", "escalate": escalate}]
        async with running(whole, tmp_path) as spillway:
            requests = [await say(spillway, f"{TEXT} {n}") for n in range(3)]
        assert len(large.requests) >= 3
    assert [kept(tmp_path, whole, request) is not None for request in requests] == [True] * 3


def test_what_another_version_packed_is_not_read(tmp_path: Path) -> None:
    from policies.remembered import pack, pack_answer

    embedding, version = load_embedding()
    data = pack(named_features(TEXT), embedding.read(TEXT)[0], "coding", version)
    found = unpack(data, version)
    assert found is not None and found[2] == "coding"
    assert unpack(data, "another") is None
    empty = unpack(pack(named_features(""), embedding.read("")[0], "", version), version)
    assert empty is not None and not empty[1].any()
    for broken in (b"", b"\x93\x01\x02\x03", data[:-20], data + b"x"):
        with pytest.raises(ValueError):
            unpack(broken, version)
        with pytest.raises(ValueError):
            unpack_answer(broken)
    with pytest.raises(ValueError):
        unpack_answer(pack_answer(np.zeros(3, np.float32)))


def until(condition: Any) -> None:
    import time

    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
