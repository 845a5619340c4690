"""`spillway budget slots` and `retire` over a real Redis."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from budget_stores import started
from click.testing import Result
from redis_server import RedisServer, redis_server
from typer.testing import CliRunner

from compliance.journal import read
from compliance.records import SlotRetired
from policies.budgets import Ask
from proxy.cli import app
from proxy.state.redis import RedisBudgets, connect

HERE, GONE = "spillway-1f2e3d4c/slot-0", "spillway-99aabbcc/slot-0"
ACCOUNT = ("org", "2999-11")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisServer]:
    monkeypatch.chdir(tmp_path)
    with redis_server(tmp_path / "redis", fsync=None) as one:
        (tmp_path / "spillway.yaml").write_text(f"state: {{store: '{one.url}'}}\n")
        yield one


@pytest.fixture
def store(server: RedisServer) -> Iterator[RedisBudgets]:
    """Two workers, one of which was last heard of two hours ago, and Redis was changed since."""
    made = RedisBudgets(connect(server.url), grace=0)
    started(made, (HERE, GONE))
    made.grant(GONE, [Ask(ACCOUNT, 100, 40, 40)])
    server.command(
        "ZADD", "{spillway}:roster", str(server.client().zscore("{spillway}:roster", HERE) - 7_200_000), GONE
    )
    server.command("SADD", "{spillway}:missing", GONE)
    yield made
    made.close()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["budget", *arguments])


def test_slots_and_who_is_waited_for(store: RedisBudgets) -> None:
    shown = run("slots")
    assert shown.exit_code == 1
    lines = shown.stdout.splitlines()
    assert lines[1].split() == [GONE, "2", "h", "ago", "waited", "for", "1"]
    assert lines[2].startswith(HERE) and "lives" in lines[2]
    rows = json.loads(run("slots", "--json").stdout)
    assert [(row["slot"], row["waited_for"], row["held"]) for row in rows] == [
        (GONE, True, [{"scope": "org", "window": "2999-11", "amount": 40}]), (HERE, False, []),
    ]  # fmt: skip


def test_law_12_who_is_gone_is_retired_and_the_log_says_so(store: RedisBudgets, tmp_path: Path) -> None:
    assert run("retire", GONE, "--reason", "the node was taken away").exit_code == 0
    assert store.usage([ACCOUNT]) == [(0, 0)]
    assert run("slots").exit_code == 0
    (record,) = [one for one in read(tmp_path / "audit" / "cli") if isinstance(one, SlotRetired)]
    assert (record.slot, record.reason) == (GONE, "the node was taken away")
    again = run("retire", GONE, "--reason", "x")
    assert again.exit_code == 1 and "Redis knows no slot" in again.stderr


def test_who_lives_is_not_retired(store: RedisBudgets) -> None:
    refused = run("retire", HERE, "--reason", "x")
    assert refused.exit_code == 1 and "it lives" in refused.stderr
    assert len(store.slots()) == 2


def test_wrong_use(store: RedisBudgets, server: RedisServer, tmp_path: Path) -> None:
    assert run("retire", GONE).exit_code == 2  # no reason
    assert run("retire").exit_code == 2
    assert run("retire", GONE, "--reason", "mail jane.doe@example.com").exit_code == 2
    assert len(store.slots()) == 2
    server.kill()
    for command in (("slots",), ("retire", GONE, "--reason", "x")):
        shown = run(*command)
        assert shown.exit_code == 1 and "the budget store failed: ConnectionError" in shown.stderr
    (tmp_path / "spillway.yaml").write_text("")
    shown = run("slots")
    assert shown.exit_code == 1 and "there is no Redis to ask" in shown.stderr


def test_an_empty_redis(server: RedisServer) -> None:
    shown = run("slots")
    assert (shown.exit_code, shown.stdout) == (0, "")
    assert "knows no worker" in shown.stderr
