"""Laws 1, 8 and 11 over a running worker: random rules, failing engines, overflow, identifiers in every field and form.

An identifier that no rule lets go must be nowhere at a cloud, raw or decoded; and none at all in the log, in what is
written to disk, in spans, in metrics or in a refusal.  `SPILLWAY_SOAK=1` runs many more.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import random
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from client import Answer, BrokenEnd, ask
from scripted import Play, Received, Script, ScriptedEngine, answering, chat_chunks, completion, message, streaming
from stack import running, settings_from

from compliance.detectors.checksums import luhn
from proxy.config import ConfigInvalid

ROUNDS = 60 if os.environ.get("SPILLWAY_SOAK") else 8
REQUESTS = 25


class Planted:
    """One identifier as it stands in a request, and what must not be found of it."""

    def __init__(self, kind: str, text: str, value: str, *, health: bool = False) -> None:
        self.kind = kind
        self.text = text
        self.value = value
        self.health = health  # it identifies somebody only beside health context


def _digits(dice: random.Random, count: int) -> str:
    return "".join(str(dice.randrange(10)) for _ in range(count))


def _card(dice: random.Random) -> str:
    body = "4" + _digits(dice, 14)
    return next(body + str(last) for last in range(10) if luhn(body + str(last)))


def _ssn(dice: random.Random) -> str:
    return f"{dice.randint(100, 665)}-{dice.randint(10, 99)}-{dice.randint(1000, 9999)}"


def planted(dice: random.Random) -> Planted:
    kind = dice.choice(("ssn", "card", "mrn", "secret", "email", "phone", "date"))
    if kind == "ssn":
        value = _ssn(dice)
        return Planted(kind, value, value)
    if kind == "card":
        value = _card(dice)
        return Planted(kind, value, value)
    if kind == "mrn":
        value = _digits(dice, 8)
        return Planted(kind, f"MRN: {value}", value)
    if kind == "secret":
        value = "sk-proj-" + "".join(dice.choice("abcdefghkmnpqrstuvwxyzABCDEFGH23456789") for _ in range(32))
        return Planted(kind, value, value)
    if kind == "email":
        value = f"kq{_digits(dice, 7)}@example.org"
        return Planted(kind, value, value, health=True)
    if kind == "phone":
        value = f"({dice.randint(201, 989)}) {dice.randint(200, 999)}-{dice.randint(1000, 9999)}"
        return Planted(kind, f"phone {value}", value, health=True)
    value = f"{dice.randint(1, 12):02}/{dice.randint(1, 28):02}/{dice.randint(1931, 2009)}"
    return Planted(kind, f"DOB {value}", value, health=True)


def _base64(text: str) -> str:
    return base64.b64encode(f"note: {text} end".encode()).decode()


FORMS: dict[str, Callable[[str], str]] = {
    "plain": lambda text: text,
    "zero-width": lambda text: "\u200b".join(text),
    "full-width": lambda text: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
    "escaped": lambda text: "".join(f"\\u{ord(c):04x}" for c in text),
    "percent": lambda text: "".join(f"%{ord(c):02X}" for c in text),
    "entities": lambda text: "".join(f"&#{ord(c)};" for c in text),
    "base64": _base64,
    "hex": lambda text: f"note: {text} end".encode().hex(),
}


def _call(arguments: Any) -> dict[str, Any]:
    function = {"name": "look_up", "arguments": json.dumps(arguments)}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": function}],
    }


def _chat(*messages: Any, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [*messages, {"role": "user", "content": "Please go on."}], **more}


def _tool(description: str, name: str = "q") -> dict[str, Any]:
    schema = {"type": "object", "properties": {name: {"type": "string", "description": description}}}
    return {"type": "function", "function": {"name": "look_up", "description": "looks up", "parameters": schema}}


def _said(content: Any, **more: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 20, "messages": [{"role": "user", "content": content}], **more}


OPENAI, ANTHROPIC, EMBEDDINGS = "/v1/chat/completions", "/v1/messages", "/v1/embeddings"
PLACES: dict[str, tuple[str, Callable[[str], dict[str, Any]]]] = {
    "user text": (OPENAI, lambda t: _chat({"role": "user", "content": f"about {t} now"})),
    "content part": (OPENAI, lambda t: _chat({"role": "user", "content": [{"type": "text", "text": f"see {t} ."}]})),
    "system": (OPENAI, lambda t: _chat({"role": "system", "content": f"You serve {t} ."})),
    "name": (OPENAI, lambda t: _chat({"role": "user", "name": t, "content": "hello"})),
    "tool description": (OPENAI, lambda t: _chat(tools=[_tool(f"for {t} only")])),
    "tool parameter": (OPENAI, lambda t: _chat(tools=[_tool("x", name=t)])),
    "argument": (OPENAI, lambda t: _chat(_call({"deep": [{"q": f"is {t} ."}]}), {"role": "tool", "tool_call_id": "c1", "content": "ok"})),
    "argument key": (OPENAI, lambda t: _chat(_call({t: 1}), {"role": "tool", "tool_call_id": "c1", "content": "ok"})),
    "tool result": (OPENAI, lambda t: _chat(_call({}), {"role": "tool", "tool_call_id": "c1", "content": f'{{"r": "{t} ."}}'})),
    "metadata": (OPENAI, lambda t: _chat(metadata={"note": f"on {t} ."}, store=False)),
    "user field": (OPENAI, lambda t: _chat(user=t)),
    "schema": (OPENAI, lambda t: _chat(response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": {"description": t}}})),
    "an unknown field": (OPENAI, lambda t: _chat(x_extra={"a": [t]})),
    "anthropic text": (ANTHROPIC, lambda t: _said(f"about {t} now")),
    "anthropic system": (ANTHROPIC, lambda t: _said("hi", system=[{"type": "text", "text": f"serve {t} ."}])),
    "anthropic tool result": (ANTHROPIC, lambda t: _said([{"type": "tool_result", "tool_use_id": "t1", "content": f"r {t} ."}])),
    "anthropic document": (ANTHROPIC, lambda t: _said([{"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": f"d {t} ."}}])),
    "anthropic user": (ANTHROPIC, lambda t: _said("hi", metadata={"user_id": t})),
    "embeddings": (EMBEDDINGS, lambda t: {"model": "m", "input": f"about {t} now"}),
    "embeddings list": (EMBEDDINGS, lambda t: {"model": "m", "input": ["one", f"about {t} now"]}),
}  # fmt: skip
HEALTH = "The patient has type 2 diabetes and takes metformin 500 mg. "


def request(dice: random.Random, what: Planted, place: str, form: str, *, health: bool) -> tuple[str, dict[str, Any]]:
    path, build = PLACES[place]
    body = build(FORMS[form](what.text))
    if health:
        if path == EMBEDDINGS:
            body["input"] = [HEALTH, *(body["input"] if isinstance(body["input"], list) else [body["input"]])]
        else:
            body["messages"].insert(0, {"role": "user", "content": HEALTH})
    if path != EMBEDDINGS and dice.random() < 0.5:
        body["stream"] = True
    return path, body


# --- engines -----------------------------------------------------------------------------------------------


async def _close(received: Received, play: Play) -> bool:
    return False


async def _echo(received: Received, play: Play) -> None:
    """A local engine that quotes the prompt in its error: for the client's eyes, and nobody else's."""
    await answering({"error": {"message": received.body.decode("utf-8", "replace"), "code": 500}}, 500)(received, play)


def home_scripts(dice: random.Random) -> Script:
    """Serves, or fails in some way, anew for each request."""
    failing: list[Script] = [
        _close,
        _echo,
        answering({"error": {"message": "busy"}}, 503),
        streaming(chat_chunks(["a"])[:2]),
    ]

    async def script(received: Received, play: Play) -> bool | None:
        if dice.random() < 0.6:
            return await dice.choice(failing)(received, play)
        return await serve(received, play)

    return script


async def serve(received: Received, play: Play) -> bool | None:
    body = json.loads(received.body)
    if "embeddings" in received.path:
        value: Any = {"object": "list", "model": "m", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
                      "usage": {"prompt_tokens": 1, "total_tokens": 1}}  # fmt: skip
        return await answering(value)(received, play)
    if "messages" in received.path:
        return await answering(message())(received, play)
    if body.get("stream"):
        return await streaming(chat_chunks(["fine", " so"]))(received, play)
    return await answering(completion())(received, play)


def rules(dice: random.Random, config: dict[str, Any], directory: Path) -> list[dict[str, Any]]:
    """Up to three rules, put into `config`; what they may let go is judged by `may_leave`."""
    drawn: list[dict[str, Any]] = []
    config["compliance"] = {"rules": drawn, "tier": "fast"}
    for number in range(dice.randrange(4)):
        when: dict[str, Any] = {
            "found": dice.sample(["ssn", "card", "mrn", "secret", "email", "phone", "date", "pii", "phi"], 2)
        }
        if dice.random() < 0.3:
            when["health"] = dice.random() < 0.5
        if dice.random() < 0.4:
            when["target"] = dice.choice([{"boundary": "cloud"}, {"contract": "baa"}, {"region": "eu"}])
        drawn.append(
            {"name": f"rule {number}", "when": when, "action": dice.choice(["allow", "redact", "keep_local", "block"])}
        )
        try:
            settings_from(config, directory)
        except ConfigInvalid:  # an earlier rule leaves it nothing to decide
            drawn.pop()
    return drawn


def may_leave(drawn: list[dict[str, Any]], kind: str) -> bool:
    """Could any rule let the value itself go?  Generous: what it says no to must hold without a doubt."""
    return any(rule["action"] == "allow" and {kind, "pii", "phi"} & set(rule["when"]["found"]) for rule in drawn)


def configuration(dice: random.Random, home: str, cloud: str, contracted: str, spans: str) -> dict[str, Any]:
    timeouts = {"connect": "500ms", "first_event": "1s", "idle": "500ms", "total": "5s"}
    today = {"until": "2020-01-01"} if dice.random() < 0.5 else {"until": "2099-01-01"}
    return {
        "engines": {
            "home": {"kind": "vllm", "replicas": [home], "models": {"m": {"embeddings": True}}, "timeouts": timeouts},
            "sky": {"kind": "openai", "replicas": [cloud], "boundary": "cloud", "models": {"gpt-4o": {}}, "timeouts": timeouts},
            "claude": {"kind": "anthropic", "replicas": [contracted], "boundary": "cloud", "models": {"opus": {}}, "timeouts": timeouts,
                       "contract": {"baa": today, "region": dice.choice(["eu", "us"])}},
        },
        "models": {"m": dice.sample(["home/m", "sky/gpt-4o", "claude/opus"], 3)},
        "prices": {"sky/gpt-4o": {"input": "$1/M", "output": "$1/M"}, "claude/opus": {"input": "$1/M", "output": "$1/M"}},
        "telemetry": {"otlp": spans, "sample": "100%"},
    }  # fmt: skip


# --- what must not be found --------------------------------------------------------------------------------


def readings(data: bytes) -> list[str]:
    """The text of some bytes: as it is, unescaped, in plain letters, without what may stand between digits."""
    text = data.decode("utf-8", "replace")
    escaped = re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), text.replace("\\\\u", "\\u"))
    plain = unicodedata.normalize("NFKC", escaped).replace("\u200b", "")
    found = [text, plain, re.sub(r"%([0-9A-F]{2})", lambda match: chr(int(match[1], 16)), plain)]
    found.append(re.sub(r"&#(\d+);", lambda match: chr(int(match[1])), plain))
    for run in re.findall(r"[A-Za-z0-9+/]{24,}", text):
        found.append(base64.b64decode(run[: len(run) // 4 * 4]).decode("utf-8", "replace"))
    found += [
        bytes.fromhex(run[: len(run) // 2 * 2]).decode("utf-8", "replace") for run in re.findall(r"[0-9a-f]{24,}", text)
    ]
    return found


def holds(data: bytes, what: Planted) -> bool:
    return any(what.value in reading for reading in readings(data))


def files(directory: Path) -> bytes:
    return b"\0".join(file.read_bytes() for file in sorted(directory.rglob("*")) if file.is_file())


@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_law_01_08_11_nothing_local_leaves_and_nothing_is_told(
    seed: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dice = random.Random(seed)
    caplog.set_level(logging.DEBUG)
    sent = 0
    async with (
        ScriptedEngine(home_scripts(dice)) as home,
        ScriptedEngine(serve) as cloud,
        ScriptedEngine(serve) as contracted,
        ScriptedEngine(answering({})) as collector,
    ):
        config = configuration(dice, home.url, cloud.url, contracted.url, collector.url)
        drawn = rules(dice, config, tmp_path)
        everything: list[tuple[Planted, str, str]] = []
        async with running(config, tmp_path) as spillway:
            for _ in range(REQUESTS):
                what, place, form = planted(dice), dice.choice(list(PLACES)), dice.choice(list(FORMS))
                health = what.health or dice.random() < 0.3
                path, body = request(dice, what, place, form, health=health)
                everything.append((what, place, form))
                try:
                    answer = await ask(spillway.port, path, body)
                except BrokenEnd:
                    answer = Answer(0, {}, b"")
                gone = cloud.raw + contracted.raw
                sent += 1
                if not may_leave(drawn, what.kind):
                    assert not holds(gone, what), (what.kind, place, form, drawn)
                if answer.headers.get("x-spillway-target") is None:
                    assert not holds(answer.body, what), (what.kind, place, form, answer.body)
        told = {"log": caplog.text.encode(), "disk": files(tmp_path), "spans": collector.raw}
        for where, data in told.items():
            for what, place, form in everything:
                assert not holds(data, what), (where, what.kind, place, form)
    assert sent == REQUESTS
    assert collector.requests, "no span was exported, so nothing was proved of them"


@pytest.mark.parametrize("where", ["query", "anthropic-beta"])
async def test_law_08_what_stands_beside_the_body_is_scanned_as_well(where: str, tmp_path: Path) -> None:
    async with ScriptedEngine(_close) as home, ScriptedEngine(serve) as cloud:
        config = configuration(random.Random(1), home.url, cloud.url, cloud.url, "http://127.0.0.1:1")
        config["compliance"] = {"tier": "fast"}
        del config["telemetry"]
        async with running(config, tmp_path) as spillway:
            plain = {"anthropic-version": "2023-06-01", "anthropic-beta": "prompt-caching-2024-07-31"}
            fine = await ask(spillway.port, f"{ANTHROPIC}?beta=true&key=sk-proj-{'aB3' * 12}", _said(HEALTH), plain)
            assert fine.status == 200 and cloud.requests
            before = len(cloud.requests)
            ssn = "512-44-9182"
            for value in (ssn, f"x-2024-07-31,{ssn}", f"ssn-{ssn.replace('-', '')}-2024-01-01"):
                if where == "query":
                    answer = await ask(spillway.port, f"{ANTHROPIC}?about={value}", _said("hello"))
                else:
                    answer = await ask(spillway.port, ANTHROPIC, _said("hello"), {**plain, where: value})
                assert answer.status >= 500  # only the broken local engine was left
            assert len(cloud.requests) == before


async def test_law_01_redacted_requests_take_no_words_of_the_clients_headers_along(tmp_path: Path) -> None:
    async with ScriptedEngine(_close) as home, ScriptedEngine(serve) as cloud:
        config = configuration(random.Random(1), home.url, cloud.url, cloud.url, "http://127.0.0.1:1")
        config["compliance"] = {
            "tier": "fast",
            "rules": [{"name": "r", "when": {"found": ["pii"]}, "action": "redact"}],
        }
        config["models"] = {"m": ["claude/opus"]}
        del config["telemetry"]
        async with running(config, tmp_path) as spillway:
            ssn = "512-44-9182"
            headers = {"anthropic-version": ssn, "anthropic-beta": f"context-1m-2025-08-07,{ssn}", "traceparent": ssn}
            answer = await ask(spillway.port, f"{ANTHROPIC}?about={ssn}", _said(f"SSN {ssn}"), headers)
            assert answer.status == 200
            (received,) = cloud.requests
            assert ssn.encode() not in cloud.raw
            assert received.headers["anthropic-beta"] == "context-1m-2025-08-07"
            assert received.headers["anthropic-version"] == "2023-06-01"
        assert ssn.encode() not in files(tmp_path)
