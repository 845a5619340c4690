"""Redaction over a running worker: what a cloud gets, what is refused or stays at home instead, what is written down."""

from __future__ import annotations

import asyncio
import json
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from client import Answer, ask
from scripted import Play, Received, ScriptedEngine, answering, chat_chunks, completion, message, streaming
from stack import Running, running

from compliance.journal import read
from compliance.pseudonyms import PSEUDONYM
from compliance.records import Decision, Refused
from proxy.auth import digest
from proxy.state.pseudonyms import PseudonymsFailed, PseudonymStore

SSN, PERSON, MRN = "219-09-9999", "Odalys Ferncastle", "83920174"
NOTE = f"Patient: {PERSON}, SSN {SSN}, MRN: {MRN}, has diabetes. Is metformin right for Ferncastle?"
SECRET_TEXTS = (SSN, SSN.replace("-", ""), PERSON, "Ferncastle", MRN)
RULES = [{"name": "hide", "when": {"found": ["pii"]}, "action": "redact"}]


def config(
    cloud: str, home: str | None = None, *, kind: str = "openai", rules: Any = RULES, **more: Any
) -> dict[str, Any]:
    engines: dict[str, Any] = {
        "sky": {
            "kind": kind,
            "replicas": [cloud],
            "boundary": "cloud",
            "models": {"gpt-4o": {}},
            "key": {"env": "CLOUD_KEY"},
        }
    }
    models = ["sky/gpt-4o"]
    if home is not None:
        engines["home"] = {"kind": "vllm", "replicas": [home], "models": {"m": {}}}
        models.append("home/m")
    compliance = {"rules": rules, "tier": "fast", "deadline": "20s", **more}
    return {
        "engines": engines,
        "models": {"m": models},
        "compliance": compliance,
        "unpriced": {"input": "$1/M", "output": "$1/M"},
    }


ENVIRON = {"CLOUD_KEY": "k"}


def chat(*texts: str, **more: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {"model": "m", "messages": [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)], **more}


def records(spillway: Running, kind: type) -> list[Any]:
    """What the log says, once it is on the disk."""
    journal, deadline = spillway.worker.journal, time.monotonic() + 3
    while journal.durable_seq < journal.next_seq - 1 and time.monotonic() < deadline:
        time.sleep(0.005)
    return [record for record in read(spillway.worker.journal.directory) if isinstance(record, kind)]


def assert_clean(raw: bytes) -> None:
    for value in SECRET_TEXTS:
        assert value.encode() not in raw


async def ask_chat(spillway: Running, body: Any, headers: dict[str, str] | None = None, path: str = "") -> Answer:
    return await ask(spillway.port, path or "/v1/chat/completions", body, headers)


async def test_law_01_a_cloud_under_redact_gets_pseudonyms_only(tmp_path: Path) -> None:
    async with (
        ScriptedEngine(answering(completion("fine", "gpt-4o"))) as cloud,
        running(config(cloud.url), tmp_path, environ=ENVIRON) as spillway,
    ):
        answer = await ask_chat(spillway, chat(NOTE, temperature=0.25), path="/v1/chat/completions?patient=Ferncastle")
        assert answer.status == 200
        assert answer.headers["x-spillway-action"] == "redact"
        assert_clean(cloud.raw)
        sent = cloud.requests[0].json()
        assert (sent["model"], sent["temperature"]) == ("gpt-4o", 0.25)
        text = sent["messages"][0]["content"]
        assert {p.split("_")[0] for p in PSEUDONYM.findall(text)} == {"[NAME", "[SSN", "[MRN"}
        assert "has diabetes. Is metformin right for [NAME_" in text
        (decision,) = records(spillway, Decision)
        assert (decision.action, decision.rule, decision.edits) == ("redact", "hide", ("redacted", "model_alias"))
        assert {"mrn:1", "ssn:1", "name:2"} <= set(decision.redacted)


async def test_a_conversation_keeps_its_prefix(tmp_path: Path) -> None:
    """Prompt caches hit: what was sent before is sent in the same bytes again."""
    async with (
        ScriptedEngine(answering(completion("fine", "gpt-4o"))) as cloud,
        running(config(cloud.url), tmp_path, environ=ENVIRON) as spillway,
    ):
        await ask_chat(spillway, chat(NOTE))
        await ask_chat(
            spillway, chat(NOTE, "Yes.", f"And the dose for {PERSON}? Her friend is Patient: Ilka Thornquist.")
        )
        first, second = [received.json()["messages"] for received in cloud.requests]
        assert second[0] == first[0]
        assert_clean(cloud.raw)
        await ask_chat(spillway, chat(NOTE), {"x-spillway-session": "a"})
        await ask_chat(
            spillway, chat("Hello", "Yes?", f"Diabetes again: {PERSON}, Ferncastle."), {"x-spillway-session": "a"}
        )
        third, fourth = [received.json()["messages"] for received in cloud.requests[2:]]
        name = PSEUDONYM.search(third[0]["content"])
        assert name is not None and name.group() in fourth[2]["content"]
        assert third[0] != first[0]  # another scope, other pseudonyms
        assert_clean(cloud.raw)


async def test_the_translation_starts_from_the_redacted_request(tmp_path: Path) -> None:
    async with (
        ScriptedEngine(answering(message("fine", "gpt-4o"))) as cloud,
        running(config(cloud.url, kind="anthropic"), tmp_path, environ=ENVIRON) as spillway,
    ):
        assert (await ask_chat(spillway, chat(NOTE))).status == 200
        assert_clean(cloud.raw)
        (decision,) = records(spillway, Decision)
        assert decision.edits == ("redacted", "translated")


def _unwritable(store: PseudonymStore) -> None:
    def fail(scope: object, owner: object = None) -> None:
        raise PseudonymsFailed("the disk is full")

    store.keep = fail  # type: ignore[method-assign]


def _unreadable(store: PseudonymStore) -> None:
    def fail(identity: object) -> None:
        raise PseudonymsFailed("damaged")

    store.open = fail  # type: ignore[assignment,method-assign]


@pytest.mark.parametrize("fault", [_unwritable, _unreadable])
async def test_law_01_without_its_map_nothing_is_redacted(
    fault: Callable[[PseudonymStore], None], tmp_path: Path
) -> None:
    async with (
        ScriptedEngine(answering(completion("fine", "gpt-4o"))) as cloud,
        ScriptedEngine(answering(completion())) as home,
        running(config(cloud.url, home.url), tmp_path, environ=ENVIRON) as spillway,
    ):
        store = spillway.worker.pipeline._attempts._redactor._store
        assert store is not None
        fault(store)
        # at home it is served, and the decision says why nobody else could
        home_only = await ask_chat(spillway, chat(NOTE))
        assert (home_only.status, home_only.headers["x-spillway-target"]) == (200, "home/m")
        assert cloud.raw == b""
    async with (
        ScriptedEngine(answering(completion("fine", "gpt-4o"))) as cloud,
        running(config(cloud.url), tmp_path / "two", environ=ENVIRON) as spillway,
    ):
        store = spillway.worker.pipeline._attempts._redactor._store
        assert store is not None
        fault(store)
        answer = await ask_chat(spillway, chat(NOTE))
        assert answer.status == 503
        assert answer.json()["error"]["code"] == "no_eligible_target"
        assert cloud.raw == b""
    (refused,) = [record for record in read(tmp_path / "two/audit/slot-0") if isinstance(record, Refused)]
    assert [veto.rsplit(":", 1)[0] for veto in refused.vetoes] == ["sky/gpt-4o:pseudonyms"]


async def test_law_01_what_cannot_be_replaced_stays_at_home(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "Odalys_Ferncastle", "parameters": {"type": "object"}}}
    body = chat(NOTE) | {
        "messages": [{"role": "user", "content": NOTE}, {"role": "tool", "tool_call_id": SSN, "content": "x"}]
    }
    async with (
        ScriptedEngine(answering(completion("fine", "gpt-4o"))) as cloud,
        running(config(cloud.url), tmp_path, environ=ENVIRON) as spillway,
    ):
        refused = await ask_chat(spillway, body)
        assert (refused.status, refused.json()["error"]["code"]) == (403, "no_eligible_target")
        assert "nothing can be replaced" in refused.json()["error"]["message"]
        assert_clean(refused.body)
        refused = await ask_chat(spillway, chat(NOTE, seed=int(SSN.replace("-", "")), tools=[tool]))
        assert refused.status == 403
        assert cloud.raw == b""


async def test_a_cloud_that_falls_in_for_home_gets_the_redacted_request(tmp_path: Path) -> None:
    async def down(received: Received, play: Play) -> bool:
        return False

    async with (
        ScriptedEngine(down) as home,
        ScriptedEngine(answering(completion("fine", "gpt-4o"))) as cloud,
        running(config(cloud.url, home.url), tmp_path, environ=ENVIRON) as spillway,
    ):
        answer = await ask_chat(spillway, chat(NOTE))
        assert answer.headers["x-spillway-target"] == "sky/gpt-4o"
        assert home.requests[0].json()["messages"][0]["content"] == NOTE
        assert_clean(cloud.raw)
        first, second = records(spillway, Decision)
        assert (first.edits, first.redacted, first.action) == ((), (), "keep_local")
        assert (second.edits, second.action) == (("redacted", "model_alias"), "redact")


async def test_nothing_of_a_map_stands_on_the_disk_in_the_clear(tmp_path: Path) -> None:
    async with (
        ScriptedEngine(answering(completion("fine", "gpt-4o"))) as cloud,
        running(config(cloud.url), tmp_path, environ=ENVIRON) as spillway,
    ):
        for n in range(3):
            assert (await ask_chat(spillway, chat(f"{NOTE} {n}"))).status == 200
        await asyncio.sleep(0)
    state = tmp_path / "state"
    assert stat.S_IMODE((state / "pseudonyms.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((state / "pseudonyms.db").stat().st_mode) == 0o600
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert_clean(path.read_bytes())


async def test_tool_arguments_stay_json_in_json(tmp_path: Path) -> None:
    arguments = json.dumps({"patient": {"name": PERSON, "ssn": int(SSN.replace("-", "")), SSN: [MRN, 'a "b"']}})
    call = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": arguments}}
    body = {
        "model": "m",
        "messages": [
            {"role": "user", "content": NOTE},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": f"record of {SSN}"},
        ],
    }
    async with (
        ScriptedEngine(answering(completion("fine", "gpt-4o"))) as cloud,
        running(config(cloud.url), tmp_path, environ=ENVIRON) as spillway,
    ):
        assert (await ask_chat(spillway, body)).status == 200
        assert_clean(cloud.raw)
        messages = cloud.requests[0].json()["messages"]
        patient = json.loads(messages[1]["tool_calls"][0]["function"]["arguments"])["patient"]
        (key,) = [key for key in patient if PSEUDONYM.fullmatch(key)]
        assert messages[2]["content"] == f"record of {key}"
        assert patient["ssn"] == key
        assert patient[key][1] == 'a "b"'


async def test_a_session_of_one_key_opens_nothing_of_another(tmp_path: Path) -> None:
    tokens = ["spw_one", "spw_two"]
    keys = {f"app{n}": {"hash": f"sha256:{digest(token)}"} for n, token in enumerate(tokens)}
    async with (
        ScriptedEngine(answering(completion("fine", "gpt-4o"))) as cloud,
        running({**config(cloud.url), "keys": keys}, tmp_path, environ=ENVIRON) as spillway,
    ):
        for token in (*tokens, tokens[0]):
            headers = {"authorization": f"Bearer {token}", "x-spillway-session": "shared"}
            assert (await ask_chat(spillway, chat(NOTE), headers)).status == 200
        sent = [PSEUDONYM.findall(received.body.decode()) for received in cloud.requests]
        assert sent[0] == sent[2]
        assert not set(sent[0]) & set(sent[1])
        assert b"shared" not in cloud.raw


async def test_law_01_what_cannot_be_redacted_waits_for_a_busy_home(tmp_path: Path) -> None:
    release = asyncio.Event()

    async def slow(received: Received, play: Play) -> bool | None:
        await release.wait()
        return await answering(completion())(received, play)

    async with (
        ScriptedEngine(slow) as home,
        ScriptedEngine(answering(completion("fine", "gpt-4o"))) as cloud,
    ):
        settings = config(cloud.url, home.url)
        settings["engines"]["home"]["concurrency"] = 1
        async with running({**settings, "listen": {"workers": 1}}, tmp_path, environ=ENVIRON) as spillway:
            first = asyncio.create_task(ask_chat(spillway, chat("hello")))
            while not home.requests:
                await asyncio.sleep(0.01)
            body = chat(NOTE) | {"previous_response_id": f"r-{SSN}"}
            second = asyncio.create_task(ask_chat(spillway, body))
            await asyncio.sleep(0.3)
            assert not second.done()
            release.set()
            assert (await first).status == 200
            assert (await second).headers["x-spillway-target"] == "home/m"
            assert cloud.raw == b""
            vetoes = records(spillway, Decision)[-1].vetoes
            assert "sky/gpt-4o:unredactable:something was found where nothing can be replaced" in vetoes


@pytest.mark.parametrize("stream", [False, True])
async def test_the_client_gets_its_own_words_back(stream: bool, tmp_path: Path) -> None:
    """A model that repeats what it was told, in pieces that cut every pseudonym."""

    async def echo(received: Received, play: Play) -> bool | None:
        text = received.json()["messages"][0]["content"]
        if not stream:
            return await answering(completion(text, "gpt-4o"))(received, play)
        pieces = [text[at : at + 3] for at in range(0, len(text), 3)]
        return await streaming(chat_chunks(pieces, model="gpt-4o"))(received, play)

    said = f"{NOTE} And [NAME_abcd] is no name."
    async with ScriptedEngine(echo) as cloud, running(config(cloud.url), tmp_path, environ=ENVIRON) as spillway:
        answer = await ask_chat(spillway, chat(said, stream=stream))
        assert answer.status == 200
        assert_clean(cloud.raw)
        if stream:
            lines = [line.removeprefix(b"data: ") for line in answer.body.split(b"\n\n") if line.startswith(b"data: {")]
            choices = [choice for line in lines for choice in json.loads(line)["choices"]]
            text = "".join([choice["delta"].get("content") or "" for choice in choices])
        else:
            text = answer.json()["choices"][0]["message"]["content"]
        assert text == said


LATER = ("what of 83920174?", "and 219099999", "how is ferncastle doing", "see file83920174.pdf")


async def test_law_01_what_a_session_knows_does_not_leave_bare(tmp_path: Path) -> None:
    """Also after a restart, and where nothing else in the request is found by itself."""
    session = {"x-spillway-session": "s"}
    async with ScriptedEngine(answering(completion("fine", "gpt-4o"))) as cloud:
        for start in range(2):
            async with running(config(cloud.url), tmp_path, environ=ENVIRON) as spillway:
                if not start:
                    assert (await ask_chat(spillway, chat(NOTE), session)).status == 200
                for text in LATER:
                    answer = await ask_chat(spillway, chat(text), session)
                    assert (answer.status, answer.headers["x-spillway-action"]) == (200, "redact"), text
                query = await ask_chat(spillway, chat("hello"), session, "/v1/chat/completions?q=Ferncastle")
                assert query.status == 200
                plain = await ask_chat(spillway, chat("Is a fern a plant?"), session)
                assert plain.status == 200 and "x-spillway-action" not in plain.headers
        assert_clean(cloud.raw)
        assert b"ferncastle" not in cloud.raw
        sent = [received.json()["messages"] for received in cloud.requests]
        again = len(LATER) + 2
        assert sent[1 : 1 + again] == sent[1 + again :]


async def test_law_01_a_session_that_cannot_be_read_stays_at_home(tmp_path: Path) -> None:
    asked: list[str] = []

    def fail(identity: str) -> None:
        asked.append(identity)
        raise PseudonymsFailed("damaged")

    async with (
        ScriptedEngine(answering(completion("fine", "gpt-4o"))) as cloud,
        running(config(cloud.url), tmp_path, environ=ENVIRON) as spillway,
    ):
        store = spillway.worker.pipeline._redactor._store
        assert store is not None
        store.known = fail  # type: ignore[assignment,method-assign]
        assert (await ask_chat(spillway, chat("hello"))).status == 200
        assert not asked  # nothing is read where no session is named
        refused = await ask_chat(spillway, chat("what of 83920174?"), {"x-spillway-session": "s"})
        assert (refused.status, len(asked)) == (403, 1)
        spillway.worker.pipeline._redactor._store = None
        assert (await ask_chat(spillway, chat("hello"), {"x-spillway-session": "s"})).status == 403
        assert len(cloud.requests) == 1
