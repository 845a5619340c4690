"""Replicas that share a budget in a real Redis, which is stopped, frozen, and fails over in the middle of load.

Cloud spending stops, local answers go on, and nothing counts twice: what Redis says was settled is what the journals
of all workers of all replicas say, to the pico-dollar.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from client import ask
from redis_server import RedisServer, TcpRelay, redis_server, tcp_relay
from scripted import ScriptedEngine, answering, completion
from stack import Command, Running, command, running

from compliance.journal import read
from compliance.records import Outcome
from policies.budgets import Account
from proxy.state.redis import RedisBudgets, connect

pytestmark = pytest.mark.e2e
LIMIT = 10**12 // 4  # $0.25
BODY = {"max_tokens": 100, "messages": [{"role": "user", "content": "hello"}]}


def config(cloud: str, home: str, url: str, directory: Path) -> dict[str, Any]:
    return {
        "engines": {
            "sky": {"kind": "openai", "replicas": [cloud], "boundary": "cloud", "models": {"m": {}}},
            "home": {"kind": "vllm", "replicas": [home], "models": {"h": {}}},
        },
        "prices": {"sky/m": {"input": "$20/M", "output": "$80/M"}},
        "budgets": [{"scope": "org", "window": "month", "limit": "$0.25"}, {"scope": "org", "window": "day", "limit": "$0.25"}],
        "state": {"dir": str(directory / "state"), "store": url, "redis": {"grace": "1s"}},
    }  # fmt: skip


async def cloud_asked(port: int, model: str = "m") -> int:
    return (await ask(port, "/v1/chat/completions", {**BODY, "model": model})).status


async def until(condition: Callable[[], Any], wanted: Any = True) -> None:
    """Of a coroutine's function: until it returns what is wanted."""
    async with asyncio.timeout(30):
        while (await condition()) != wanted:
            await asyncio.sleep(0.05)


def outcomes(*directories: Path) -> list[Outcome]:
    logs = [slot for directory in directories for slot in sorted((directory / "audit").glob("slot-*"))]
    return [record for log in logs for record in read(log) if isinstance(record, Outcome)]


def usage(server: RedisServer) -> dict[Account, tuple[int, int]]:
    store = RedisBudgets(connect(server.url))
    windows = {key.rpartition("|")[2] for key in server.command("KEYS", "{spillway}:account:*")}
    found = store.current(windows)
    store.close()
    return found


def agrees(server: RedisServer, *directories: Path) -> int:
    """What is settled is what the journals say, and nothing is held; the sum."""
    spent = outcomes(*directories)
    total = sum(outcome.cost for outcome in spent)
    assert len({(outcome.request, outcome.attempt) for outcome in spent}) == len(spent)
    for length in (len("2026-11"), len("2026-11-24")):  # a midnight may come between
        figures = [figure for (_, window), figure in usage(server).items() if len(window) == length]
        assert (sum(settled for settled, _ in figures), sum(held for _, held in figures)) == (total, 0)
    return total


# --- one worker: Redis away, and back ----------------------------------------------------------------------


@contextlib.asynccontextmanager
async def one_worker(url: str, directory: Path):  # type: ignore[no-untyped-def]
    async with ScriptedEngine(answering(completion())) as cloud, ScriptedEngine(answering(completion())) as home:
        async with running(config(cloud.url, home.url, url, directory), directory) as started:
            started.cloud = cloud  # type: ignore[attr-defined]
            yield started


def stopped(server: RedisServer, relay: TcpRelay) -> Callable[[], None]:
    server.kill()
    return server.start


def frozen(server: RedisServer, relay: TcpRelay) -> Callable[[], None]:
    server.freeze()
    return server.thaw


def slow(server: RedisServer, relay: TcpRelay) -> Callable[[], None]:
    relay.delay = 2.0

    def fast() -> None:
        relay.delay = 0.0

    return fast


def silent(server: RedisServer, relay: TcpRelay) -> Callable[[], None]:
    """It does what it is asked for, and its answers get lost."""
    relay.swallow = True

    def heard() -> None:
        relay.swallow = False

    return heard


@pytest.mark.parametrize("fault", [stopped, frozen, slow, silent])
async def test_law_03_without_redis_cloud_spending_stops_and_local_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Callable[[RedisServer, TcpRelay], Callable[[], None]]
) -> None:
    monkeypatch.setattr("proxy.state.clerk.LEASE_SECONDS", 0.5)
    with redis_server(tmp_path / "redis") as server, tcp_relay(server.port) as relay:
        async with one_worker(relay.url, tmp_path) as started:
            await until(lambda: cloud_asked(started.port), 200)
            heal = await asyncio.to_thread(fault, server, relay)
            await until(lambda: cloud_asked(started.port), 503)
            left = len(started.cloud.requests)
            for _ in range(3):
                assert await cloud_asked(started.port, "h") == 200
                answer = await ask(started.port, "/v1/chat/completions", {**BODY, "model": "m"})
                assert (answer.status, answer.json()["error"]["code"]) == (503, "budget_unavailable")
            assert len(started.cloud.requests) == left
            await asyncio.to_thread(heal)
            await until(lambda: cloud_asked(started.port), 200)
            for _ in range(20):
                assert await cloud_asked(started.port) == 200
        assert agrees(server, tmp_path) > 20 * 10**8


async def test_law_13_a_worker_starts_without_redis_and_settles_when_it_comes(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis") as server:
        async with one_worker(server.url, tmp_path) as started:
            await until(lambda: cloud_asked(started.port), 200)
        server.kill()
        async with one_worker(server.url, tmp_path) as started:
            assert await cloud_asked(started.port, "h") == 200
            assert await cloud_asked(started.port) == 503
            await asyncio.to_thread(server.start)
            await until(lambda: cloud_asked(started.port), 200)
        agrees(server, tmp_path)


async def test_law_03_a_flushed_redis_is_filled_from_the_journal(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis") as server:
        async with one_worker(server.url, tmp_path) as started:
            await until(lambda: cloud_asked(started.port), 200)
            for _ in range(30):
                await cloud_asked(started.port)
            server.command("FLUSHALL")
            for _ in range(30):
                await cloud_asked(started.port)  # from what was set aside, while the counters are rebuilt
            await until(lambda: asyncio.to_thread(lambda: bool(usage(server))))
        agrees(server, tmp_path)
    assert len(outcomes(tmp_path)) > 31


# --- two replicas of two workers, under load ---------------------------------------------------------------


class Load:
    """Clients that ask all the time, cloud and local, of every replica."""

    def __init__(self, *replicas: Command) -> None:
        self.cloud = self.refused = self.local = 0
        self._stopping = False
        self._clients = [
            asyncio.create_task(self._ask(replica.port, model))
            for replica in replicas
            for model in ("m", "m", "m", "h")
        ]

    async def _ask(self, port: int, model: str) -> None:
        while not self._stopping:
            try:
                status = await cloud_asked(port, model)
            except Exception:  # noqa: BLE001  a killed worker breaks connections in every way
                status = 0
            self.local += model == "h" and status == 200
            self.cloud += model == "m" and status == 200
            self.refused += status in (429, 503)
            await asyncio.sleep(0.0 if status == 200 else 0.02)

    async def more(self, name: str, count: int) -> None:
        """Until so many more have been counted."""
        wanted = getattr(self, name) + count

        async def enough() -> bool:
            return bool(getattr(self, name) >= wanted)

        await until(enough)

    async def stop(self) -> None:
        self._stopping = True
        await asyncio.gather(*self._clients)


async def test_law_03_redis_fails_over_under_load_and_a_worker_is_killed(tmp_path: Path) -> None:
    """Two failovers: to a replica that has all, and to one that has missed the last writes."""
    dice = random.Random(5)
    with (
        redis_server(tmp_path / "redis-1") as first, redis_server(tmp_path / "redis-2") as second,
        redis_server(tmp_path / "redis-3") as third, tcp_relay(first.port) as relay, tcp_relay(second.port) as stream,
    ):  # fmt: skip
        second.follow(first)
        async with ScriptedEngine(answering(completion())) as cloud, ScriptedEngine(answering(completion())) as home:
            a, b = tmp_path / "a", tmp_path / "b"
            a.mkdir()
            b.mkdir()
            with (
                command(config(cloud.url, home.url, relay.url, a), a) as one,
                command(config(cloud.url, home.url, relay.url, b), b) as two,
            ):
                load = Load(one, two)
                await load.more("cloud", 40)
                # the master dies
                first.kill()
                relay.target = second.port
                await asyncio.to_thread(second.promote)
                await load.more("local", 20)
                await load.more("cloud", 20)
                # a worker is killed, and the next replica is not told all
                await asyncio.to_thread(third.follow, second, stream.port)
                os.kill(dice.choice(one.workers()), signal.SIGKILL)
                stream.swallow = True
                await load.more("cloud", 20)
                second.kill()
                relay.target = third.port
                await asyncio.to_thread(third.promote)
                await load.more("local", 20)
                await load.more("cloud", 20)  # every worker has said what it has: before, the counters may say more
                within(third)
                # and then the budget is spent
                await load.more("refused", 400)
                within(third)
                await load.more("local", 20)
                await load.stop()
        total = agrees(third, a, b)
        assert LIMIT // 2 < total <= LIMIT
        answers = [outcome for outcome in outcomes(a, b) if outcome.boundary == "cloud"]
        assert load.cloud <= len(answers)  # each answer has its line


def within(server: RedisServer) -> None:
    for settled, held in usage(server).values():
        assert settled + held <= LIMIT


def test_a_running_worker_is_named_by_its_log(tmp_path: Path) -> None:
    """Two replicas have a slot 0 each."""

    async def names() -> list[str]:
        with redis_server(tmp_path / "redis") as server:
            async with one_worker(server.url, tmp_path) as started:
                assert isinstance(started, Running)
                store = RedisBudgets(connect(server.url))
                found = [state.slot for state in store.slots()]
                store.close()
                assert found == [started.worker.journal.origin]
                return found

    (name,) = asyncio.run(names())
    assert name.startswith("spillway-") and name.endswith("/slot-0")
