import asyncio, json, sys
sys.path.insert(0, "/work/main/tests/e2e")
from pathlib import Path
import pytest
from test_escalation import *

@pytest.mark.parametrize("schema", [{"required": [["a"]]}, {"properties": {"a": {"minimum": 10**30 and int("9"*400)}}}])
@pytest.mark.parametrize("stream", [False, True])
async def test_hostile_schema(schema, stream, tmp_path):
    body = chat(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}, stream=stream)
    s = streaming(chat_chunks(['{"a": 1}'], model="auto")) if stream else answering(completion('{"a": 1}'))
    async with ScriptedEngine(s) as small, ScriptedEngine(answering(completion())) as large:
        async with running(config(small.url, large.url), tmp_path) as spillway:
            answer = await asyncio.wait_for(ask(spillway.port, PATH, body), 20)
            print(answer.status, answer.body[:300])
            a2 = await asyncio.wait_for(ask(spillway.port, PATH, chat(stream=stream)), 20)
            assert answer.status == 200
