"""The door: bounds, smuggling, slow clients, keys, hosts, and forms of address."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from client import ask, raw, request_bytes
from scripted import ScriptedEngine, answering, completion
from stack import running

from compliance.records import Decision
from proxy.auth import digest
from proxy.state.keys import KeyStore

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
PATH = "/v1/chat/completions"


def config(url: str, **more: Any) -> dict[str, Any]:
    return {"engines": {"home": {"kind": "vllm", "replicas": [url], "models": {"m": {}}}}, **more}


async def test_law_10_a_body_over_the_limit_is_a_413_in_the_dialects_form(tmp_path: Path) -> None:
    async with (
        ScriptedEngine(answering(completion())) as home,
        running(config(home.url, limits={"body": "10KB"}), tmp_path) as spillway,
    ):
        big = {**CHAT, "messages": [{"role": "user", "content": "x" * 20_000}]}
        answer = await ask(spillway.port, PATH, big)
        assert (answer.status, answer.json()["error"]["code"]) == (413, "request_too_large")
        assert (await ask(spillway.port, "/v1/messages", big)).json()["error"]["type"] == "request_too_large"
        chunked = b"POST %b HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: chunked\r\n\r\n" % PATH.encode()
        assert (await raw(spillway.port, chunked + b"4000\r\n" + b"x" * 0x4000 + b"\r\n0\r\n\r\n")).status == 413
        assert not home.requests


async def test_law_10_a_compressed_body_is_decoded_with_a_bound(tmp_path: Path) -> None:
    async with (
        ScriptedEngine(answering(completion())) as home,
        running(config(home.url, limits={"body": "100KB"}), tmp_path) as spillway,
    ):
        plain = json.dumps(CHAT).encode()
        for name, packed in (
            ("gzip", gzip.compress(plain)),
            ("deflate", zlib.compress(plain)),
            ("deflate", zlib.compress(plain)[2:-4]),
        ):
            assert (await ask(spillway.port, PATH, packed, {"content-encoding": name})).status == 200
            assert home.requests[-1].body == plain and "content-encoding" not in home.requests[-1].headers
        bomb = await ask(spillway.port, PATH, gzip.compress(b" " * 50_000_000), {"content-encoding": "gzip"})
        assert bomb.status == 413
        assert (await ask(spillway.port, PATH, plain, {"content-encoding": "br"})).status == 415
        assert (await ask(spillway.port, PATH, b"junk", {"content-encoding": "gzip"})).status == 400
        assert len(home.requests) == 3


SMUGGLED = {
    "length and chunked": b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nabcde",
    "chunked is not last": b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "space before the colon": b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length : 4\r\n\r\nabcd",
    "signed length": b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: +4\r\n\r\nabcd",
    "not http": b"\x16\x03\x01\x02\x00\r\n\r\n",
    "a head without end": b"GET / HTTP/1.1\r\nx: " + b"y" * 100_000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("how", SMUGGLED)
async def test_request_smuggling_is_refused(how: str, tmp_path: Path) -> None:
    async with ScriptedEngine(answering(completion())) as home, running(config(home.url), tmp_path) as spillway:
        answer = await raw(spillway.port, SMUGGLED[how])
        assert answer.status == 400
        assert answer.headers.get("connection") == "close"
        assert answer.json()["error"]["type"] == "invalid_request_error"
        assert not home.requests


async def test_slow_clients_are_timed_out(tmp_path: Path) -> None:
    limits = {"header_timeout": "200ms", "body_timeout": "200ms"}
    async with (
        ScriptedEngine(answering(completion())) as home,
        running(config(home.url, limits=limits), tmp_path) as spillway,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", spillway.port)
        writer.write(b"POST /v1/chat")
        assert await asyncio.wait_for(reader.read(), 2) == b""  # closed without a word: there is no request yet
        writer.close()
        slow = request_bytes(PATH, CHAT)
        answer = await raw(spillway.port, slow[:-5])
        assert (answer.status, answer.json()["error"]["code"]) == (408, "request_timeout")


async def test_the_key_is_checked_before_a_body_is_asked_for(tmp_path: Path) -> None:
    keys = {"app": {"hash": f"sha256:{digest('spw_right')}"}}
    async with (
        ScriptedEngine(answering(completion())) as home,
        running(config(home.url, keys=keys), tmp_path) as spillway,
    ):
        head = b"POST %b HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 100000\r\n" % PATH.encode()
        answer = await raw(spillway.port, head + b"authorization: Bearer wrong\r\n\r\n")
        assert (answer.status, answer.json()["error"]["code"]) == (401, "unauthenticated")
        assert answer.headers["x-should-retry"] == "false"
        reader, writer = await asyncio.open_connection("127.0.0.1", spillway.port)
        body = json.dumps(CHAT).encode()
        writer.write(head.replace(b"100000", b"%d" % len(body)) + b"authorization: Bearer spw_right\r\n\r\n")
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 2) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_keys_scope_models_and_boundaries_and_stop_when_revoked(tmp_path: Path) -> None:
    async with ScriptedEngine(answering(completion())) as home, ScriptedEngine(answering(completion())) as cloud:
        settings = config(home.url)
        settings["engines"]["sky"] = {
            "kind": "openai",
            "boundary": "cloud",
            "replicas": [cloud.url],
            "models": {"gpt-4o": {}},
        }
        store = KeyStore(tmp_path / "state" / "keys.db")
        token, row = store.create("app", models=["m"])
        local, _ = store.create("ward", boundaries=["local"])
        async with running(settings, tmp_path) as spillway:
            assert (await ask(spillway.port, PATH, CHAT)).status == 401  # a key exists, so one is needed
            for header in ({"authorization": f"Bearer {token}"}, {"x-api-key": token}, {"api-key": token}):
                assert (await ask(spillway.port, PATH, CHAT, header)).status == 200
            other = {**CHAT, "model": "gpt-4o"}
            assert (await ask(spillway.port, PATH, other, {"x-api-key": token})).status == 404
            refused = await ask(spillway.port, PATH, other, {"x-api-key": local})
            assert (refused.status, refused.json()["error"]["code"]) == (403, "no_eligible_target")
            assert not cloud.requests
            listed = await ask(spillway.port, "/v1/models", headers={"x-api-key": token}, method="GET")
            assert [model["id"] for model in listed.json()["data"]] == ["m"]
            store.revoke(row.id)
            for _ in range(40):
                if (await ask(spillway.port, PATH, CHAT, {"x-api-key": token})).status == 401:
                    break
                await asyncio.sleep(0.05)
            else:
                pytest.fail("a revoked key was still served after two seconds")
        store.close()


async def test_without_keys_no_web_page_can_spend(tmp_path: Path) -> None:
    async with ScriptedEngine(answering(completion())) as home, running(config(home.url), tmp_path) as spillway:
        for headers in ({"host": "evil.example"}, {"origin": "https://evil.example"}, {"origin": "null"}):
            answer = await ask(spillway.port, PATH, CHAT, headers)
            assert (answer.status, answer.json()["error"]["code"]) == (403, "forbidden_host")
        for headers in ({"host": "localhost:8800"}, {"host": "[::1]:1", "origin": "http://localhost:3000"}):
            assert (await ask(spillway.port, PATH, CHAT, headers)).status == 200
        assert len(home.requests) == 2


async def test_unknown_paths_and_methods_in_the_surfaces_own_form(tmp_path: Path) -> None:
    async with ScriptedEngine(answering(completion())) as home, running(config(home.url), tmp_path) as spillway:
        answer = await ask(spillway.port, "/v1/files", CHAT)
        assert (answer.status, answer.json()["error"]["code"]) == (404, "not_found")
        answer = await ask(spillway.port, "/v1/messages/batches", CHAT, {"anthropic-version": "2023-06-01"})
        assert (answer.status, answer.json()["type"]) == (404, "error")
        assert (await ask(spillway.port, PATH, method="GET")).status == 405
        assert not home.requests


WRONG: list[tuple[str, Any, str | None]] = [
    (PATH, b"{", None),
    (PATH, b"[]", None),
    (PATH, b'{"model":"m","messages":[{"role":"user","content":"\xff"}]}', None),
    (PATH, b'{"model":"m","model":"n","messages":[]}', "model"),
    (PATH, {"messages": CHAT["messages"]}, "model"),
    (PATH, {"model": "m", "messages": "hello"}, "messages"),
    (PATH, {"model": "m", "messages": [1]}, "messages[0]"),
    (PATH, {**CHAT, "stream": "yes"}, "stream"),
    (PATH, {**CHAT, "max_tokens": -2}, "max_tokens"),
    (PATH, b"[" * 100_000, None),
    ("/v1/messages", CHAT, None),
    ("/v1/embeddings", {"model": "m"}, "input"),
]


@pytest.mark.parametrize(("path", "body", "param"), WRONG)
async def test_bad_input_is_a_clear_400(path: str, body: Any, param: str | None, tmp_path: Path) -> None:
    async with ScriptedEngine(answering(completion())) as home, running(config(home.url), tmp_path) as spillway:
        answer = await ask(spillway.port, path, body)
        assert answer.status == 400
        assert answer.json()["error"]["type"] == "invalid_request_error"
        if param is not None:
            assert answer.json()["error"]["param"] == param
        assert not home.requests


async def test_a_connection_is_kept_and_pipelined_requests_are_answered_in_order(tmp_path: Path) -> None:
    async with ScriptedEngine(answering(completion())) as home, running(config(home.url), tmp_path) as spillway:
        reader, writer = await asyncio.open_connection("127.0.0.1", spillway.port)
        writer.write(
            request_bytes("/v1/models", b"", method="GET") + request_bytes(PATH, CHAT) + request_bytes("/nowhere", b"")
        )
        seen = []
        for _ in range(3):
            head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 3)).lower()
            seen.append(head.split(b" ")[1])
            length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
        assert seen == [b"200", b"200", b"404"]
        writer.close()


async def test_law_11_no_content_in_any_log_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    secret = "Rumpelstilzchen"
    bodies: list[Any] = [
        {**CHAT, "messages": [{"role": "user", "content": secret}]},
        {**CHAT, "model": secret},
        {**CHAT, "user": secret},
    ]
    error = {"error": {"message": f"you said {secret}"}}
    async with ScriptedEngine(answering(error, 500)) as home, running(config(home.url), tmp_path) as spillway:
        for body in bodies:
            await ask(spillway.port, PATH, body, {"authorization": f"Bearer {secret}"})
        directory = spillway.worker.journal.directory
    assert secret not in caplog.text
    for path in [*directory.rglob("*"), *(tmp_path / "state").rglob("*")]:
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path


async def test_every_answer_names_the_policy_that_its_record_names(tmp_path: Path) -> None:
    async with (
        ScriptedEngine(answering(completion())) as home,
        running(config(home.url), tmp_path) as spillway,
    ):
        served = await ask(spillway.port, PATH, CHAT)
        lost = await ask(spillway.port, "/v1/nothing", CHAT)
        models = await ask(spillway.port, "/v1/models", method="GET")
        policy = served.headers["x-spillway-policy"]
        assert served.status == 200 and lost.status == 404 and models.status == 200
        assert lost.headers["x-spillway-policy"] == models.headers["x-spillway-policy"] == policy
        journal = spillway.worker.journal
        await journal.wait_durable(journal.next_seq - 1)
        assert [record.policy for record in journal.read() if isinstance(record, Decision)] == [policy]
