from __future__ import annotations
import asyncio, json
from pathlib import Path
import pytest
from client import ask, open_stream
from scripted import ScriptedEngine, answering, completion, streaming, chat_chunks
from stack import running
from typer.testing import CliRunner
from proxy import experiment_checks
from proxy.cli import app
from compliance.records import *
import sys; sys.path.insert(0, str(Path(__file__).parent))
from test_experiments import PATH, TOKEN, chat, config, shadow, split, post, quiet, records, command
import test_escalation as esc

async def _until(test, spillway):
    for _ in range(2000):
        if test(): return
        await asyncio.sleep(0.005)
    raise AssertionError("never")

@pytest.mark.parametrize("how", ["failed", "late"])
async def test_esc(how, tmp_path):
    async def high(received, play):
        if how == "late": await asyncio.sleep(3)
        await answering({"error": {"message": "no"}}, 500)(received, play)
    async with ScriptedEngine(answering(completion(esc.REFUSES))) as small, ScriptedEngine(high) as large, ScriptedEngine(answering(completion(esc.REFUSES))) as other:
        whole = esc.config(small.url, large.url, within="1s")
        whole["engines"]["other"] = {"kind": "vllm", "replicas": [other.url], "models": {"o": {}}}
        whole["experiments"] = [{"name": "copies", "models": ["auto"], "shadow": {"to": "other/o", "share": "100%", "compare": "exact", "from": "small"}}]
        async with running(whole, tmp_path) as spillway:
            answer = await ask(spillway.port, PATH, esc.chat())
            await _until(lambda: records(tmp_path, Shadowed), spillway)
    print(answer.status, answer.headers)
    (s,) = records(tmp_path, Shadowed)
    assert s.score == 1000 and s.why == ""

async def test_budget_and_split(tmp_path):
    budgets = [{"scope": "project/triage", "window": "month", "limit": "$0.000001", "at_limit": "local_only"}]
    sh = {"name":"sh","models":["gpt-4o"],"shadow":{"to":"cpu/s","share":"100%","compare":"exact"}}
    async with ScriptedEngine(answering(completion())) as local, ScriptedEngine(answering(completion())) as cloud:
        whole = config(local.url, cloud.url, split(phase=1), sh, budgets=budgets, listen={"workers": 1})
        whole["engines"]["cpu"]={"kind":"vllm","replicas":[local.url],"models":{"s":{}}}
        async with running(whole, tmp_path) as spillway:
            a = await post(spillway.port, chat())
            await quiet(spillway)
    print(a.status, a.headers, a.body[:100])
    for k in (Assigned, Shadowed, Decision, Outcome):
        for r in records(tmp_path,k): print(r)
    assert a.status==200

async def test_contract_and_key(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment_checks, "MOST_ABROAD", 1.0)
    up = {"name":"up","shadow":{"to":"sky/gpt-4o","share":"100%","cap":"$100"}}
    async with ScriptedEngine(answering(completion())) as local, ScriptedEngine(answering(completion())) as cloud:
        whole = config(local.url, cloud.url, up)
        whole["keys"]["triage"]["boundaries"]=["local"]
        async with running(whole, tmp_path) as spillway:
            for m in ("small",):
                a = await post(spillway.port, chat(model=m))
            await quiet(spillway)
        assert not cloud.requests
    print([ (s.why) for s in records(tmp_path,Shadowed)])

async def test_client_leaves(tmp_path):
    gate = asyncio.Event()
    async def slow(received, play):
        await gate.wait()
        await answering(completion())(received, play)
    async with ScriptedEngine(answering(completion())) as local, ScriptedEngine(slow) as cloud:
        async with running(config(local.url, cloud.url, shadow()), tmp_path) as spillway:
            t = asyncio.create_task(post(spillway.port, chat()))
            while not cloud.requests: await asyncio.sleep(.01)
            t.cancel()
            await asyncio.sleep(.3); gate.set(); await asyncio.sleep(.2)
            await quiet(spillway)
            assert spillway.worker.shadowing._held == 0
    print([s.why for s in records(tmp_path,Shadowed)], [o.ending for o in records(tmp_path,Outcome)])

async def test_disclosures_explain_cli(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment_checks, "MOST_ABROAD", 1.0)
    up = {"name":"up","models":["small"],"shadow":{"to":"sky/gpt-4o","share":"100%","cap":"$100"}}
    async with ScriptedEngine(answering(completion())) as local, ScriptedEngine(answering(completion())) as cloud:
        whole = config(local.url, cloud.url, up, split(phase=2))
        with command(whole, tmp_path) as spillway:
            whole_cfg = (tmp_path/"spillway.yaml")
            a = await post(spillway.port, chat(model="small"), **{"x-spillway-subject":"patient-77"})
            b = await post(spillway.port, chat(model="gpt-4o"), **{"x-spillway-subject":"patient-77"})
            await asyncio.sleep(1)
    cfg = str(tmp_path/"spillway.yaml")
    R=CliRunner()
    def go(*args, **kw):
        r = R.invoke(app, [*args, "--config", cfg], **kw); print("$", " ".join(args), "->", r.exit_code); print(r.output)
        if r.exception and not isinstance(r.exception, SystemExit): raise r.exception
        return r
    rid=a.headers["x-spillway-request-id"]
    go("audit","report","disclosures","--subject","patient-77","--unrecorded")
    go("audit","report","disclosures","--unrecorded")
    go("audit","show",rid,"--unrecorded"); go("audit","show",rid+"-up","--unrecorded")
    go("audit","show",b.headers["x-spillway-request-id"],"--unrecorded")
    go("explain","--help")
    go("parity","up"); go("parity","nope"); go("parity","cutover","--metric","<script>"); go("parity","cutover","--metric","x","--margin","nan"); go("parity","cutover","--metric","x","--margin","0")
    go("parity","cutover","--metric","x","--html","/nonexistent/x.html")
    go("parity","cutover","--metric","<script>alert(1)</script>","--html",str(tmp_path/"p.html"))
    assert "<script>alert" not in (tmp_path/"p.html").read_text()
    go("check","--explain")
    (tmp_path/"r.json").write_text(json.dumps(chat(model="gpt-4o")))
    go("explain",str(tmp_path/"r.json"))
    go("explain",str(tmp_path/"r.json"),"--json")
