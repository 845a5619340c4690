"""The cloud leak rate: the real proxy between a recording cloud and a local engine, both on real sockets.

Every positive prompt of ASQ-PHI is sent to a model whose local engine is down, so that only the cloud answers.  Then all bytes that the cloud
received are searched for each of the prompt's values (`surviving.py`).  One value that is found is a leak.
The hard negatives go the same way: they must reach the cloud as they are, or the leak rate proves nothing.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from client import ask
from scripted import Received, ScriptedEngine, answering, completion
from sets import Figure, Goal, Line, missing, rows, say, share
from stack import running
from subject import body_of
from surviving import NO_IDENTIFIERS, strings_of, survives

from proxy.config_errors import ConfigInvalid

_DOWN = {"error": {"message": "down", "type": "server_error"}}
Show = Callable[[str], None]
RULES: dict[str, list[dict[str, Any]]] = {
    "keep_local": [],
    "redact": [{"name": "redact", "when": {"found": ["phi", "pii"]}, "action": "redact"}],
}
_GROUP = "cloud leak rate, real proxy"
_GOALS = {"keep_local": Goal("<=", 0), "redact": Goal("<=", 1)}


def texts_of(request: Received) -> list[str]:
    try:
        return list(strings_of(json.loads(request.body)))
    except ValueError:
        return [request.raw.decode("utf-8", "replace")]


class Sent:
    """What became of the prompts under one action."""

    def __init__(self) -> None:
        self.positives = self.leaked = self.reached = self.failed = 0
        self.negatives = self.changed = 0
        self.stray = 0  # bytes at the cloud outside whole requests


async def leak_rate(tier: str, action: str, show: Show) -> list[Line]:
    """One action's lines."""
    name = f"ASQ-PHI positives, {action}"
    try:
        with tempfile.TemporaryDirectory(prefix="spillway-eval-") as directory:
            sent = await _send(tier, action, Path(directory), show)
    except FileNotFoundError:
        return [Line(_GROUP, name, missing("no learned model"), _GOALS[action])]
    except ConfigInvalid as error:
        say(f"{action}: {error}")
        return [Line(_GROUP, name, missing("not there"), _GOALS[action])]
    leaked = share(sent.leaked, sent.positives)
    if action == "redact" and not sent.reached:
        leaked = missing("not there: all kept local")
    if sent.changed == sent.negatives:
        leaked = missing("nothing reaches the cloud")  # then nothing is proved
    return [
        Line(_GROUP, name, leaked, _GOALS[action]),
        Line(_GROUP, f"{name}: reached the cloud at all", share(sent.reached, sent.positives)),
        Line(_GROUP, f"{name}: answered with an error", share(sent.failed, sent.positives)),
        Line(
            _GROUP,
            f"ASQ-PHI hard negatives, {action}: route or text changed",
            share(sent.changed, sent.negatives),
            Goal("<=", 1),
        ),
        Line(
            _GROUP,
            f"bytes at the cloud outside requests, {action}",
            Figure(sent.stray, str(sent.stray)),
            Goal("<=", 0, " bytes"),
        ),
    ]


def _configuration(cloud: str, home: str, tier: str, action: str) -> dict[str, Any]:
    """The local engine is down, so that whatever may leave does."""
    return {
        "engines": {
            "cloud": {"kind": "openai", "replicas": [cloud], "boundary": "cloud", "models": {"gpt-4o": {}}},
            "home": {"kind": "openai-compatible", "replicas": [home], "models": {"m": {}}},
        },
        "models": {"m": ["home/m", "cloud/gpt-4o"]},
        "compliance": {"tier": tier, "rules": RULES[action]},
    }


async def _send(tier: str, action: str, directory: Path, show: Show) -> Sent:
    sent = Sent()
    prompts = rows("asq_phi")
    async with ScriptedEngine(answering(completion())) as cloud, ScriptedEngine(answering(_DOWN, 503)) as home:
        config = _configuration(cloud.url, home.url, tier, action)
        async with running(config, directory) as spillway:
            for index, row in enumerate(prompts):
                answer = await ask(spillway.port, "/v1/chat/completions", body_of(row["text"]))
                posts = [request for request in cloud.requests if request.method == "POST"]
                _count(sent, action, row, answer.status, cloud.requests, posts, show)
                cloud.requests.clear()
                home.requests.clear()
                if index % 100 == 99:
                    say(f"  {tier}, {action}: {index + 1} of {len(prompts)} prompts")
        sent.stray = len(cloud.raw) - sum(len(request.raw) for request in cloud.requests)
    return sent


def _count(
    sent: Sent,
    action: str,
    row: dict[str, Any],
    status: int,
    received: list[Received],
    posts: list[Received],
    show: Show,
) -> None:
    texts = [text for request in received for text in texts_of(request)]
    if not row["spans"]:
        sent.negatives += 1
        if not posts or row["text"] not in texts:
            sent.changed += 1
            show(f"changed {action}: {row['text']!r} to {texts}")
        return
    sent.positives += 1
    sent.failed += status != 200
    sent.reached += bool(posts)
    whole = b"".join(request.raw for request in received)
    values = {span["value"] for span in row["spans"]} - NO_IDENTIFIERS
    lost = [value for value in values if survives(value, whole, texts)] if whole else []
    sent.leaked += bool(lost)
    for value in lost:
        show(f"leak {action}: {value!r} of {row['text']!r} in {texts}")
