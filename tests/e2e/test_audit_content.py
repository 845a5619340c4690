"""Law 11 over the log and all that is made of it: nothing that a caller wrote is in a record, a search, a story, an export, a
report or a file beside them, in no form that it could be read from or guessed by.

Identifiers and sentences are planted in every place that a caller can write.  What is looked at: every file below the
state and the log, every output of `spillway audit`, and Parquet read back.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import re
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from client import ask
from prometheus_client import CollectorRegistry, generate_latest
from scripted import Received, Script, ScriptedEngine, answering, chat_chunks, completion, message, streaming
from stack import Running, running
from typer.testing import CliRunner

from compliance import records, verify
from compliance.segments import read_lines
from proxy.cli import app

NAME, SSN, MRN = "Quillon Vasterby", "523-86-4917", "MRN 83920174"
EMAIL, PHONE, CARD = "quillon.vasterby@ferncastle.example", "(415) 555-0187", "4556 7375 8689 9855"
SENTENCE = "the walrus of ferncastle sings at midnight"
PLANTED = (NAME, SSN, "83920174", EMAIL, PHONE, CARD, SENTENCE)
CLOUD_KEY, VIRTUAL_KEY = "sk-cloud-7Hq2ZkW9vBnT4xLm", "spw_5tYb8nWq3KdLr7ZxVf2Hj6McPg9Ra4Ue1"
CHAT, MESSAGES, EMBEDDINGS = "/v1/chat/completions", "/v1/messages", "/v1/embeddings"
NOTE = f"The patient {NAME} ({SSN}, {MRN}, {EMAIL}, {PHONE}, {CARD}) has diabetes; {SENTENCE}."


def config(home: str, cloud: str, claude: str) -> dict[str, Any]:
    return {
        "engines": {
            "home": {"kind": "vllm", "replicas": [home], "models": {"m": {"embeddings": True, "tools": True}, "*": {}}},
            "sky": {"kind": "openai", "replicas": [cloud], "boundary": "cloud", "key": {"env": "CLOUD_KEY"}, "models": {"gpt-4o": {"tools": True}}},
            "claude": {"kind": "anthropic", "replicas": [claude], "boundary": "cloud", "key": {"env": "CLOUD_KEY"},
                       "models": {"claude-sonnet-4-6": {}}, "contract": {"baa": {"until": "2099-06-30"}, "zero_retention": True, "region": "us"}},
        },
        "models": {"m": ["home/m", "sky/gpt-4o"], "out": ["claude/claude-sonnet-4-6"], "hidden": ["sky/gpt-4o"], "nowhere": ["sky/gpt-4o"]},
        "compliance": {
            "tier": "fast",
            "tenants": {"care": {"context": "health", "purpose": "treatment: triage of incoming letters"}},
            "rules": [
                {"name": "agreed", "when": {"found": ["pii"], "target": {"contract": "baa"}}, "action": "allow"},
                {"name": "hide", "when": {"found": ["ssn", "mrn", "name", "email", "phone", "card", "date", "url"], "model": "hidden"}, "action": "redact"},
            ],
        },
        "prices": {"sky/gpt-4o": {"input": "$1/M", "output": "$1/M"}, "claude/claude-sonnet-4-6": {"input": "$1/M", "output": "$1/M"}},
        "keys": {"triage": {"hash": "sha256:" + hashlib.sha256(VIRTUAL_KEY.encode()).hexdigest(), "organisation": "clinic", "project": "triage", "tenant": "care"}},
    }  # fmt: skip


def bodies() -> Iterator[tuple[str, Any, dict[str, str]]]:
    """(path, body, headers) with something planted in each place that a caller can write."""
    user = [{"role": "user", "content": NOTE}]
    for value in (NAME, SSN, MRN, EMAIL, PHONE, CARD, SENTENCE):
        call = {
            "id": value,
            "type": "function",
            "function": {"name": "look_up", "arguments": json.dumps({"q": [value], value: 1})},
        }
        schema = {
            "type": "object",
            "properties": {value: {"type": "string", "description": value}},
            "required": [value],
        }
        yield CHAT, {"model": "m", "messages": [{"role": "user", "content": f"about {value}, with diabetes"}]}, {}
        yield CHAT, {"model": "m", "stream": True, "messages": [{"role": "system", "content": value}, *user]}, {}
        yield (
            CHAT,
            {
                "model": "m",
                "messages": [
                    *user,
                    {"role": "assistant", "content": None, "tool_calls": [call]},
                    {"role": "tool", "tool_call_id": value, "content": value},
                ],
            },
            {},
        )
        yield (
            CHAT,
            {
                "model": "m",
                "messages": user,
                "tools": [
                    {"type": "function", "function": {"name": "look_up", "description": value, "parameters": schema}}
                ],
            },
            {},
        )
        yield CHAT, {"model": value, "messages": [{"role": "user", "content": "hi"}]}, {}
        yield CHAT, {"model": f"home/{value}", "messages": [{"role": "user", "content": "hi"}]}, {}
        yield (
            CHAT,
            {
                "model": "m",
                "messages": user,
                "user": value,
                "safety_identifier": value,
                "metadata": {value: value},
                value: value,
                "stop": [value],
            },
            {},
        )
        yield CHAT, {"model": "hidden", "messages": user, "user": value}, {"x-spillway-session": value}
        yield CHAT, {"model": "nowhere", "messages": [{"role": "user", "content": f"{value} {SSN}"}]}, {}
        yield CHAT, {"model": "out", "messages": user}, {"x-spillway-subject": value}
        yield (
            MESSAGES,
            {"model": "out", "max_tokens": 9, "messages": user, "metadata": {"user_id": value}, "system": value},
            {"anthropic-beta": value, "x-spillway-subject": value},
        )
        yield EMBEDDINGS, {"model": "m", "input": [value, NOTE]}, {}
        yield (
            f"{CHAT}?patient={urllib.parse.quote(value)}&key={urllib.parse.quote(value)}",
            {"model": "m", "messages": user},
            {},
        )
        yield f"/v1/{urllib.parse.quote(value)}", {"model": "m", "messages": user}, {}
        headers = {
            "x-spillway-tags": f"patient={value}, {value}={value}, team=blue", "x-spillway-class": value, "x-spillway-subject": value,
            "traceparent": value, "user-agent": value, "x-request-id": value, "cookie": value, "x-odd": value, "referer": value,
        }  # fmt: skip
        yield CHAT, {"model": "m", "messages": user}, headers
        for digits in (
            "".join(filter(str.isdigit, value)),
            value.encode().hex(),
        ):  # a trace's id is the client's choice
            trace = f"00-{digits[:32].rjust(32, 'a')}-{digits[:16].rjust(16, 'b')}-01"
            yield CHAT, {"model": "m", "messages": user}, {"traceparent": trace}
            yield CHAT, {"model": "nowhere", "messages": user}, {"traceparent": trace}
        yield CHAT, {"model": "m", "messages": user}, {"authorization": f"Bearer {value}"}
        yield CHAT, f"not JSON: {value}".encode(), {}
        yield CHAT, {"model": "m", "messages": value}, {}


def forms(value: str) -> Iterator[bytes]:
    """Where a value could still be read, or guessed and compared."""
    plain = {
        value,
        value.lower(),
        value.upper(),
        value.replace("-", ""),
        "".join(filter(str.isalnum, value)),
        value[::-1],
    }
    for one in plain:
        raw = one.encode()
        yield raw
        yield urllib.parse.quote(one).encode()
        yield one.encode("utf-16-le")
        yield raw.hex().encode()
        for shift in range(3):  # base64 of a longer text holds one of these, wherever the value begins in it
            encoded = base64.b64encode(b"\0" * shift + raw)[(0, 2, 3)[shift] :]
            yield encoded.rstrip(b"=")[: -1 if len(raw) % 3 else None]
        for algorithm in ("md5", "sha1", "sha256", "sha512"):
            digest = hashlib.new(algorithm, raw).digest()
            yield digest
            yield digest.hex()[:16].encode()
            yield base64.b64encode(digest)[:20]


NEEDLES = {needle: value for value in (*PLANTED, CLOUD_KEY, VIRTUAL_KEY) for needle in forms(value) if len(needle) >= 8}


def assert_clean(data: bytes, where: str) -> None:
    for needle, value in NEEDLES.items():
        assert needle not in data and needle not in data.lower(), f"{value!r} can be read or guessed in {where}"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the state and the log of a Spillway that got all of it."""
    directory = tmp_path_factory.mktemp("audit")
    asyncio.run(_serve(directory))
    return directory


async def _serve(directory: Path) -> None:
    async def local(received: Received, play: Any) -> bool | None:
        body = json.loads(received.body)
        if "embeddings" in received.path:
            return await answering({"object": "list", "model": "m", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}], "usage": {"prompt_tokens": 1, "total_tokens": 1}})(received, play)  # fmt: skip
        if body["model"] != "m":
            return await answering({"error": {"message": f"no model {body['model']}"}}, 404)(received, play)
        if body.get("stream"):
            return await streaming(chat_chunks([f"yes, {NAME}", f" has {SSN}"]))(received, play)
        return await answering(completion(f"Dear {NAME}, your number is {SSN}. {SENTENCE}"))(received, play)

    scripts: list[Script] = [
        local,
        answering(completion(f"{SENTENCE} {SSN}", "gpt-4o")),
        answering(message(f"{NAME} {SSN}", "claude")),
    ]
    async with (
        ScriptedEngine(scripts[0]) as home,
        ScriptedEngine(scripts[1]) as cloud,
        ScriptedEngine(scripts[2]) as claude,
    ):
        whole = config(home.url, cloud.url, claude.url)
        (directory / "spillway.yaml").write_text(
            yaml.safe_dump(
                {"state": {"dir": str(directory / "state")}, "audit": {"dir": str(directory / "audit")}, **whole}
            )
        )
        whole["telemetry"] = {
            "prometheus": {"port": 18797}
        }  # counted, not served: this is a worker without its supervisor
        async with running(whole, directory, environ={"CLOUD_KEY": CLOUD_KEY}) as spillway:
            await _ask_all(spillway)
        metrics = generate_latest(_registry(spillway))
        (directory / "metrics.txt").write_bytes(metrics)
        assert claude.requests and cloud.requests and home.requests


def _registry(spillway: Running) -> CollectorRegistry:
    """The worker's own metrics; its telemetry has written all by now."""
    registry = CollectorRegistry()
    for metric in vars(spillway.worker._telemetry._metrics).values():
        if hasattr(metric, "collect"):  # those that exist only once something was counted are not there yet
            registry.register(metric)
    return registry


async def _ask_all(spillway: Running) -> None:
    statuses: dict[int, int] = {}
    for path, body, headers in bodies():
        answer = await ask(spillway.port, path, body, {"authorization": f"Bearer {VIRTUAL_KEY}", **headers})
        statuses[answer.status] = statuses.get(answer.status, 0) + 1
        assert answer.headers["x-spillway-request-id"]
    assert statuses[200] > 40 and statuses[401] and statuses[400] and statuses[403] and statuses[404], statuses


def spillway(directory: Path, *arguments: str, status: int = 0) -> str:
    done: Result = CliRunner().invoke(
        app, ["audit", *arguments, "--config", str(directory / "spillway.yaml")], catch_exceptions=False
    )
    assert done.exit_code == status, (arguments, done.output)
    output = done.stdout + done.stderr
    assert_clean(output.encode(), f"the output of audit {arguments[0]}")
    return done.stdout


def test_law_11_what_is_looked_for_would_be_found() -> None:
    """The needles find what they are for: a check that cannot fail shows nothing."""
    for data in (NOTE.encode(), base64.b64encode(b"xy" + NOTE.encode()), NOTE[::-1].encode(), NOTE.encode().hex().encode(),
                 hashlib.sha256(SSN.encode()).hexdigest().encode(), hashlib.sha256(SENTENCE.encode()).digest()):  # fmt: skip
        with pytest.raises(AssertionError):
            assert_clean(data, "a test")


def test_law_11_no_record_and_no_file_holds_what_a_caller_wrote(served: Path) -> None:
    seen = {json.loads(line)["kind"] for line in read_lines(served / "audit" / "slot-0")}
    assert {"started", "policy_changed", "decision", "outcome", "refused", "stopped"} <= seen
    for path in sorted(served.rglob("*")):
        if path.is_file() and path.name not in ("key", "spillway.yaml"):
            assert_clean(path.read_bytes(), str(path.relative_to(served)))


def test_law_10_names_that_clients_make_up_are_one_line_of_metrics(served: Path) -> None:
    text = (served / "metrics.txt").read_text()
    targets = set(re.findall(r'spillway_attempts_total\{.*?target="(.*?)"', text))
    assert targets == {"home/m", "home/*", "sky/gpt-4o", "claude/claude-sonnet-4-6"}


def test_law_11_no_output_holds_what_a_caller_wrote(served: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in spillway(served, "search", "--limit", "0", "--json").splitlines()]
    assert len(rows) > 100
    spillway(served, "search", "--limit", "0")
    assert any(row["rule"] == "agreed" and row["boundary"] == "cloud" for row in rows)
    kinds = [
        next(row for row in rows if row["ending"] == ending and row["boundary"] == boundary)
        for ending, boundary in (("completed", "local"), ("completed", "cloud"), ("refused", ""))
    ]
    for row in kinds:
        words = spillway(served, "show", row["request"])
        assert row["request"] in words and row["policy"] in words
        assert row["rule"] != "agreed" or "(pii found towards a target of baa in force: allow)" in words
        spillway(served, "show", row["request"], "--json")
    for subject in (NAME, SSN):
        found = spillway(served, "search", "--subject", subject, "--json").splitlines()
        assert found and len({json.loads(line)["subject"] for line in found}) == 1
        spillway(served, "report", "disclosures", "--subject", subject)
    assert spillway(served, "search", "--actor", EMAIL, "--json")
    for name in ("disclosures", "access", "policy", "canary", "refusals"):
        for form in ("text", "markdown", "html"):
            assert spillway(served, "report", name, "--format", form)
        spillway(served, "report", name, "--json")
    spillway(served, "attest", "--reviewer", "Dana Ortiz", "--statement", "Reviewed.")
    spillway(served, "attest", "--list")
    spillway(served, "export", "--out", str(tmp_path / "csv"), "--format", "csv")
    spillway(served, "export", "--out", str(tmp_path / "chosen"), "--subject", NAME)
    spillway(served, "export", "--out", str(tmp_path / "pack"), "--format", "parquet")
    for path in sorted(tmp_path.rglob("*")):
        if path.is_file():
            assert_clean(path.read_bytes(), path.name)
    assert verify.verify_directory(tmp_path / "pack").status == verify.UNANCHORED
    spillway(served, "verify", status=3)
    for path in sorted(served.rglob("*")):  # the looks themselves are recorded, and the index is kept
        if path.is_file() and path.name not in ("key", "spillway.yaml"):
            assert_clean(path.read_bytes(), str(path.relative_to(served)))


def test_parquet_holds_every_record_of_the_pack(served: Path, tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    spillway(served, "export", "--out", str(tmp_path / "pack"), "--format", "parquet")
    stored = [
        json.loads(line)
        for path in sorted(tmp_path.glob("pack/*/records.jsonl"))
        for line in path.read_text().splitlines()
    ]
    table = duckdb.sql(f"SELECT * FROM '{tmp_path / 'pack.parquet'}'")
    names = table.columns
    rows = [dict(zip(names, row, strict=True)) for row in table.fetchall()]
    assert len(rows) == len(stored)
    by_place = {(row["log"], row["seq"]): row for row in rows}
    for path in sorted(tmp_path.glob("pack/*/records.jsonl")):
        for line in path.read_text().splitlines():
            record = {name: value for name, value in json.loads(line).items() if name != "seq_mac"}
            row = by_place[path.parent.name, record["seq"]]
            assert {name: row[name] for name in record} == record
            assert all(row[name] is None for name in names if name not in record and name not in ("log", "hold_text"))
    assert_clean(json.dumps(rows).encode(), "the Parquet file")


def test_law_12_a_decision_says_all_that_it_rests_on(served: Path) -> None:
    lines = [json.loads(line) for line in read_lines(served / "audit" / "slot-0")]
    left = next(line for line in lines if line["kind"] == "decision" and line["target"] == "claude/claude-sonnet-4-6")
    assert (left["provider"], left["region"], left["contract"]) == (
        "anthropic",
        "us",
        "baa until 2099-06-30, zero_retention",
    )
    assert (left["purpose"], left["tenant"], left["project"]) == (
        "treatment: triage of incoming letters",
        "care",
        "triage",
    )
    assert left["health"] and left["action"] == "allow" and left["rule"] == "agreed" and len(left["rule_version"]) == 12
    assert left["detectors"].startswith("fast-") and (served / "audit" / "policies" / f"{left['policy']}.json").exists()
    found = {one.split(":")[0]: one.split(":") for one in left["findings"]}
    assert {"ssn", "name", "email", "phone", "card", "mrn"} <= found.keys()
    kind, count, path, sure, places = found["ssn"]
    assert (kind, count, path) == ("ssn", "1", "messages[0].content") and 0 < int(sure) <= 100
    start, end = map(int, places.split("-"))
    assert NOTE[start:end] == SSN
    refused = next(line for line in lines if line["kind"] == "refused" and line["code"] == "no_eligible_target")
    assert (
        refused["vetoes"] == ["sky/gpt-4o:boundary"]
        and refused["health"]
        and refused["rule_version"].startswith("defaults-")
    )
    names = {line["model"] for line in lines if line["kind"] in ("decision", "refused")}
    assert {"m", "out", "hidden", "nowhere"} <= names and all(
        name.startswith("~") for name in names - {"m", "out", "hidden", "nowhere", ""}
    )
    for line in lines:
        assert type(records.decode(json.dumps(line).encode())).__struct_fields__ == tuple(
            sorted(line.keys() - {"seq_mac"})
        )


def test_disclosures_name_recipient_contract_purpose_and_what_went(served: Path) -> None:
    report = json.loads(spillway(served, "report", "disclosures", "--subject", NAME, "--json"))
    table = report["sections"][0]
    lines = [dict(zip(table["head"], row, strict=True)) for row in table["rows"]]
    assert {(line["recipient"], line["contract"], line["purpose"]) for line in lines} == {
        (
            "claude (anthropic, us)",
            "BAA until 2099-06-30 (in force), zero retention",
            "treatment: triage of incoming letters",
        )
    }
    assert sum(int(line["number"]) for line in lines) == 2
    assert all(line["what went"].startswith("PHI: ") and "ssn" in line["what went"] for line in lines)
    whole = json.loads(spillway(served, "report", "disclosures", "--json"))
    replaced = {name: value for name, value in whole["figures"]}["left with identifiers replaced"]
    assert int(replaced) == 7  # the requests for the model that is only redacted
    assert os.path.basename(served) not in json.dumps(whole)


async def test_starts_and_changes_of_policy_are_recorded_with_their_texts(tmp_path: Path) -> None:
    """A first start, the same again, another policy, another configuration: three changes, each with what changed."""
    first = {"engines": {"home": {"kind": "vllm", "replicas": ["http://127.0.0.1:9"], "models": {"m": {}}}}}
    second = {
        **first,
        "compliance": {"rules": [{"name": "secrets go nowhere", "when": {"found": ["secret"]}, "action": "block"}]},
    }
    third = {**second, "limits": {"attempts": 2}}
    for whole in (first, first, second, third):
        async with running({**whole, "compliance": {"tier": "fast", **whole.get("compliance", {})}}, tmp_path):
            pass
    lines = [json.loads(line) for line in read_lines(tmp_path / "audit" / "slot-0")]
    starts = [line for line in lines if line["kind"] == "started"]
    changed = [line for line in lines if line["kind"] == "policy_changed"]
    assert len(starts) == 4 and all(line["actor"] and line["lost_window_us"] == 0 for line in starts)
    assert [line["changed"] for line in changed] == [
        [],
        ["compliance.order of rules", "compliance.rules.secrets go nowhere added"],
        ["limits.attempts"],
    ]
    assert [line["policy_before"] for line in changed] == ["", changed[0]["policy"], changed[1]["policy"]]
    assert (
        changed[1]["policy"] == changed[2]["policy"] == starts[3]["policy"]
        and changed[2]["config"] == starts[3]["config"]
    )
    for line in changed:
        for name in (line["policy"], line["config"]):
            text = (tmp_path / "audit" / "policies" / f"{name}.json").read_bytes()
            assert hashlib.sha256(text).hexdigest()[:32] == name
    async with running({**first, "compliance": {"tier": "fast"}}, tmp_path, slot=1):
        pass  # one log tells for all
    assert not [line for line in read_lines(tmp_path / "audit" / "slot-1") if b"policy_changed" in line]
    arguments = [
        "audit",
        "export",
        "--kind",
        "policy_changed",
        "--out",
        str(tmp_path / "pack"),
        "--state-dir",
        str(tmp_path / "state"),
    ]
    (tmp_path / "spillway.yaml").write_text(yaml.safe_dump({"audit": {"dir": str(tmp_path / "audit")}}))
    done = CliRunner().invoke(app, [*arguments, "--config", str(tmp_path / "spillway.yaml")], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert {path.stem for path in (tmp_path / "pack" / "policies").iterdir()} == {line["policy"] for line in changed}
