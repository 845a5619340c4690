"""The loads: wrk with a POST of 2 KB, and paced streams."""

from __future__ import annotations

import http.client
import json
import math
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from backends import ANSWERS
from paced import EVENTS_PER_SECOND
from peers import KEY, LITELLM_KEY, LITELLM_PORT, TARGETS
from processes import LOAD_CORE, ROOT, LeftOut, Proxy

HERE = Path(__file__).parent
PROMPTS = {
    "clean": "Explain how a spillway lets a reservoir give up only what it must, in plain words. " * 24,
    "clinical": "Pt is a 63 y/o with HTN and T2DM on metformin 500 mg BID; BP 142/91, A1c 7.9 %. Assess and plan. "
    * 20,
    "non-ascii": "Erkläre, wie ein Überlauf funktioniert – naïve Größen, 水庫 und «Zitate» inbegriffen. " * 21,
}


def key_of(port: int) -> str:
    """LiteLLM wants a key of its own form."""
    return LITELLM_KEY if port == LITELLM_PORT else KEY


def check(port: int, kind: str, model: str, prompt: str) -> None:
    """One request whose answer is read: what passes on half an answer, or another engine's, is not measured.

    Raises LeftOut.
    """
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": PROMPTS[prompt]}]}
    if kind == "sse":
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key_of(port)}"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        if answer.status != 200:
            raise LeftOut(f"it answers {answer.status}")
        if said(kind, text) != ANSWERS[kind]:
            raise LeftOut("it does not pass the answer on whole")
        target = answer.headers.get("x-spillway-target")
        if target is not None and target != TARGETS[model]:
            raise LeftOut(f"{model} was answered by {target}")
    except (OSError, http.client.HTTPException, ValueError, LookupError) as error:
        raise LeftOut(f"its answer cannot be read: {type(error).__name__}") from error
    finally:
        connection.close()


def said(kind: str, text: str) -> str:
    """The words of an answer; of a stream only if it came to its end."""
    if kind == "json":
        return str(json.loads(text)["choices"][0]["message"]["content"])
    events = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    if not events or events.pop() != "[DONE]":
        return ""
    return "".join(choice["delta"].get("content") or "" for event in events for choice in json.loads(event)["choices"])


def wrk(port: int, kind: str, model: str, prompt: str, connections: int, seconds: float) -> dict[str, Any]:
    """One measurement."""
    environ = {
        **os.environ,
        "BENCH_MODEL": model,
        "BENCH_KIND": kind,
        "BENCH_PROMPT": PROMPTS[prompt],
        "BENCH_KEY": key_of(port),
    }
    command = [
        "taskset",
        "-c",
        str(LOAD_CORE),
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{math.ceil(seconds)}s",
        "--latency",
        "--timeout",
        "20s",
        "-s",
        str(HERE / "post.lua"),
        f"http://127.0.0.1:{port}/v1/chat/completions",
    ]
    out = subprocess.run(command, capture_output=True, text=True, env=environ, check=True).stdout
    answers = int(re.search(r"(\d+) requests in", out).group(1))  # type: ignore[union-attr]
    row: dict[str, Any] = {
        "answers": answers,
        "requests_per_s": float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1)),  # type: ignore[union-attr]
        "p50_ms": _ms(out, "50%"),
        "p99_ms": _ms(out, "99%"),
    }
    errors = re.findall(r"Non-2xx or 3xx responses: (\d+)|(?:connect|read|write|timeout) (\d+)", out)
    if failed := sum(int(one or other) for one, other in errors):
        row["errors"] = failed
    return row


def _ms(out: str, share: str) -> float:
    match = re.search(rf"\s{share}\s+([\d.]+)(us|ms|s)", out)
    assert match is not None
    return round(float(match.group(1)) * {"us": 0.001, "ms": 1, "s": 1000}[match.group(2)], 3)


def paced_load(port: int, streams: int, seconds: float, proxy: Proxy | None) -> dict[str, Any]:
    """Streams of 50 events a second each; the age of an event when the client has it."""
    before = proxy.worker().memory_info().rss if proxy else 0
    cpu = sum(proxy.worker().cpu_times()[:2]) if proxy else 0.0
    command = [
        "taskset",
        "-c",
        str(LOAD_CORE),
        sys.executable,
        str(HERE / "paced.py"),
        "load",
        "--port",
        str(port),
        "--streams",
        str(streams),
        "--seconds",
        str(seconds),
        "--key",
        KEY,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    rss = before
    while proxy is not None and process.poll() is None:
        rss = max(rss, proxy.worker().memory_info().rss)
        time.sleep(0.3)
    out = json.loads(process.communicate()[0])
    out["arrived"] = round(out["events"] / (streams * seconds * EVENTS_PER_SECOND), 3)
    if proxy is not None:
        out["kb_per_stream"] = round((rss - before) / 1000 / streams, 1)
        out["cpu_us_per_event"] = round(
            (sum(proxy.worker().cpu_times()[:2]) - cpu) * 1e6 / max(1, out["all_events"]), 1
        )
    return out
