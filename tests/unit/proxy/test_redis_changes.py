"""What the budget store does when Redis changes: restarted, flushed, failed over, set back; and about slots that die."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis_server import RedisServer, redis_server, tcp_relay
from redis_stores import ORG, PAST, after_pause, eventually, grant, lost, redis_stores, start

from policies.budgets import StoreFailed, StoreLost
from proxy.state.redis import RedisBudgets


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as started:
        yield started


@pytest.fixture
def clean(server: RedisServer) -> RedisServer:
    server.command("FLUSHALL")
    return server


@pytest.fixture
def own(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that may be killed."""
    with redis_server(tmp_path / "redis") as started:
        yield started


@pytest.fixture
def made() -> Iterator[Callable[..., RedisBudgets]]:
    with redis_stores() as make:
        yield make


@pytest.fixture
def store(clean: RedisServer, made: Callable[..., RedisBudgets]) -> RedisBudgets:
    return made(clean.url, "a", "b")


# --- Redis changes -----------------------------------------------------------------------------------------


def changed_by_flush(server: RedisServer) -> None:
    server.command("FLUSHALL")


def changed_by_restart(server: RedisServer) -> None:
    server.kill()
    server.start()


def changed_by_promotion(server: RedisServer) -> None:
    """It was another's replica for a moment: the same process, perhaps other data."""
    server.command("REPLICAOF", "127.0.0.1", "1")
    server.promote()


@pytest.mark.parametrize("change", [changed_by_flush, changed_by_restart, changed_by_promotion])
def test_law_03_a_changed_server_grants_nothing_until_every_slot_has_restored(
    own: RedisServer, made: Callable[..., RedisBudgets], change: Callable[[RedisServer], None]
) -> None:
    store, other = made(own.url, "a"), made(own.url, "b")
    store.overrides()  # a heartbeat: it learns of the other
    grant(store, "a", ORG, 100, 60)
    store.account("a", 1, {ORG: 10})
    grant(other, "b", ORG, 100, 30)
    change(own)
    for one in (store, other):
        one._lose()
        after_pause(one)
    for call in (
        lambda: grant(store, "a", ORG, 100, 1), lambda: store.give_back("a", {ORG: 1}), lambda: store.hold("a", {}),
        lambda: store.account("a", 2, {ORG: 1}), lambda: store.overrides(), lambda: store.release("a"),
    ):  # fmt: skip
        lost(call)
    store.restore("a", 1, {ORG: 10}, {ORG: 50})
    with pytest.raises(StoreFailed, match="waits for what b spent; start it, or retire it") as refused:
        grant(store, "a", ORG, 100, 1)
    assert not isinstance(refused.value, StoreLost)
    assert store.account("a", 2, {ORG: 5}) == {}  # settling goes on
    lost(lambda: grant(other, "b", ORG, 100, 1))
    other.restore("b", 0, {}, {ORG: 30})
    assert store.usage([ORG]) == [(15, 75)]
    assert grant(store, "a", ORG, 100, 11) == 0
    assert grant(store, "a", ORG, 100, 10) == 10


def test_law_03_a_promoted_replica_that_lacks_the_last_writes(
    tmp_path: Path, made: Callable[..., RedisBudgets]
) -> None:
    """The replica stops hearing of a grant and a settlement that were acknowledged; then it becomes master."""
    with (
        redis_server(tmp_path / "1") as master,
        redis_server(tmp_path / "2") as replica,
        tcp_relay(master.port) as relay,
        tcp_relay(master.port) as stream,
    ):
        replica.follow(master, stream.port)
        store, other = made(relay.url, "a"), made(relay.url, "b")
        eventually(store, ORG, 100, "a", 30)
        eventually(other, ORG, 100, "b", 1)  # the replica knows both
        other.give_back("b", {ORG: 1})
        replica.follow(master, stream.port)
        stream.swallow = True
        store.account("a", 1, {ORG: 25})
        grant(other, "b", ORG, 100, 70)  # all is spent or held now
        master.kill()
        replica.promote()
        relay.target = replica.port
        stale = made(replica.url)
        assert stale.usage([ORG]) == [(0, 30)]  # 70 would be free
        for one in (store, other):
            one._lose()
            after_pause(one)
        lost(lambda: grant(store, "a", ORG, 100, 1))
        store.restore("a", 1, {ORG: 25}, {ORG: 5})
        with pytest.raises(StoreFailed, match="waits for what b spent"):
            grant(store, "a", ORG, 100, 1)
        lost(lambda: other.account("b", 1, {ORG: 40}))
        other.restore("b", 1, {ORG: 40}, {ORG: 30})
        assert grant(store, "a", ORG, 100, 1) == 0
        assert store.usage([ORG]) == [(65, 35)]


def test_law_03_an_old_file_is_an_old_copy(own: RedisServer, made: Callable[..., RedisBudgets], tmp_path: Path) -> None:
    store = made(own.url, "a", "b")
    grant(store, "a", ORG, 100, 10)
    own.kill()
    shutil.copytree(own.directory / "appendonlydir", tmp_path / "backup")
    own.start()
    after_pause(store)
    lost(lambda: grant(store, "a", ORG, 100, 80))
    for slot in ("a", "b"):
        store.restore(slot, 0, {}, {ORG: 10} if slot == "a" else {})
    assert grant(store, "a", ORG, 100, 80) == 80
    own.kill()
    shutil.rmtree(own.directory / "appendonlydir")
    shutil.copytree(tmp_path / "backup", own.directory / "appendonlydir")
    own.start()
    store._lose()
    after_pause(store)
    assert store.usage([ORG]) == [(0, 10)]
    lost(lambda: grant(store, "b", ORG, 100, 80))


def test_slots_that_were_silent_in_a_fresh_copy_are_not_waited_for(
    own: RedisServer, made: Callable[..., RedisBudgets]
) -> None:
    """All that they did is in it.  In an old copy it may not be."""
    store = made(own.url, "a", "gone")
    grant(store, "gone", ORG, 100, 10)
    silent = own.client().zscore("{spillway}:roster", "gone") - 61_000
    own.command("ZADD", "{spillway}:roster", str(silent), "gone")
    changed_by_restart(own)
    after_pause(store)
    store.restore("a", 0, {}, {})
    assert grant(store, "a", ORG, 100, 90) == 90  # what it holds is still held
    assert grant(store, "a", ORG, 100, 1) == 0
    own.command("ZADD", "{spillway}:roster", str(silent), "a")  # nobody was heard of for a minute
    changed_by_restart(own)
    store._lose()
    after_pause(store).restore("a", 0, {}, {ORG: 90})
    with pytest.raises(StoreFailed, match="waits for what gone spent"):
        grant(store, "a", ORG, 100, 1)


def test_law_03_who_was_waited_for_is_waited_for_still_after_another_change(
    own: RedisServer, made: Callable[..., RedisBudgets]
) -> None:
    store = made(own.url, "a", "gone")
    changed_by_restart(own)
    store._lose()
    after_pause(store).restore("a", 0, {}, {})
    own.command(
        "ZADD", "{spillway}:roster", "XX", str(own.client().zscore("{spillway}:roster", "gone") - 61_000), "gone"
    )
    changed_by_restart(own)
    store._lose()
    after_pause(store).restore("a", 0, {}, {})
    with pytest.raises(StoreFailed, match="waits for what gone spent"):
        grant(store, "a", ORG, 100, 1)


def test_a_slot_that_never_comes_back_is_retired_by_the_operator(
    own: RedisServer, made: Callable[..., RedisBudgets]
) -> None:
    store = made(own.url, "a", "gone")
    store.account("gone", 3, {ORG: 20})
    grant(store, "gone", ORG, 100, 10)
    changed_by_restart(own)
    store._lose()
    after_pause(store).restore("a", 0, {}, {})
    assert [(state.slot, state.missing, state.held) for state in store.slots()] == [
        ("gone", True, {ORG: 10}),
        ("a", False, {}),
    ]
    assert store.retire("gone") and not store.retire("gone") and not store.retire("nobody")
    assert [state.slot for state in store.slots()] == ["a"]
    assert store.usage([ORG]) == [(20, 0)]  # what it spent stays spent
    assert grant(store, "a", ORG, 100, 80) == 80
    # it comes back after all: its journal counts, once
    start(store, "gone", 5, {ORG: 21})
    assert store.usage([ORG]) == [(21, 80)]
    assert len(store.slots()) == 2


def test_law_03_a_retired_slot_that_lives_must_give_its_part_again(store: RedisBudgets) -> None:
    grant(store, "b", ORG, 100, 60)
    store.retire("b")
    lost(lambda: store.account("b", 1, {ORG: 5}))
    store.restore("b", 1, {ORG: 5}, {ORG: 55})
    assert store.usage([ORG]) == [(5, 55)]


def test_law_03_workers_remember_whom_a_server_forgot(
    clean: RedisServer, made: Callable[..., RedisBudgets], tmp_path: Path
) -> None:
    """Redis loses everything while all are stopped: the first that starts says for whom to wait."""
    memory = tmp_path / "slots.json"
    store = made(clean.url, "a", "b", memory=memory)
    store.overrides()
    clean.command("FLUSHALL")
    again = made(clean.url, "a", memory=memory)
    with pytest.raises(StoreFailed, match="waits for what b spent"):
        grant(again, "a", ORG, 100, 1)
    start(made(clean.url), "b", 9, {ORG: 95})
    assert grant(again, "a", ORG, 100, 6) == 0
    assert grant(again, "a", ORG, 100, 5) == 5
    assert again.retire("b")
    again.overrides()
    changed_by_flush(clean)
    third = made(clean.url, "a", memory=memory)
    assert grant(third, "a", ORG, 100, 5) == 5  # nobody waits for who was retired


@pytest.mark.parametrize("content", ["", "[", "7", '{"a": 1}'])
def test_a_damaged_memory_is_no_memory(
    clean: RedisServer, made: Callable[..., RedisBudgets], tmp_path: Path, content: str
) -> None:
    memory = tmp_path / "slots.json"
    memory.write_text(content)
    store = made(clean.url, "a", memory=memory)
    store.overrides()
    assert memory.read_text() == '["a"]'


def test_unknown_slots_have_a_moment_to_make_themselves_known(
    clean: RedisServer, made: Callable[..., RedisBudgets]
) -> None:
    store = made(clean.url, "a", grace=3600)
    with pytest.raises(StoreFailed, match="waits for workers to make themselves known"):
        grant(store, "a", ORG, 100, 1)
    assert grant(made(clean.url, "b"), "b", ORG, 100, 1) == 1  # the time is what each is told


def test_law_13_a_start_on_a_server_that_lost_all_settles_the_whole_journal(
    clean: RedisServer, made: Callable[..., RedisBudgets]
) -> None:
    store = made(clean.url)
    start(store, "a", 9, {ORG: 70, PAST: 5})
    assert (store.accounted("a"), store.usage([ORG])) == (9, [(70, 0)])
    start(store, "a", 12, {})
    changed_by_flush(clean)
    again = made(clean.url)
    assert again.accounted("a") == -1
    again.account("a", 12, {ORG: 70, PAST: 5})
    again.account("a", 13, {ORG: 1})
    assert (again.accounted("a"), again.usage([ORG])) == (13, [(71, 0)])


def test_law_03_a_new_slot_is_known_to_a_replica_before_it_gets_anything(
    tmp_path: Path, made: Callable[..., RedisBudgets]
) -> None:
    with redis_server(tmp_path / "1") as master, redis_server(tmp_path / "2") as replica:
        replica.follow(master)
        replica.freeze()
        for _ in range(2):
            with pytest.raises(
                StoreFailed, match=r"no replica of the budget store has confirmed this worker|TimeoutError"
            ):
                grant(made(master.url, "a"), "a", ORG, 100, 1)
        replica.thaw()
        store = made(master.url, "a")
        eventually(store, ORG, 100, "a", 1)
        assert replica.client().zscore("{spillway}:roster", "a") is not None
        assert grant(store, "a", ORG, 100, 1) == 1


def test_a_replica_takes_nothing(tmp_path: Path, made: Callable[..., RedisBudgets]) -> None:
    with redis_server(tmp_path / "1") as master, redis_server(tmp_path / "2") as replica:
        store = made(replica.url, "a")
        replica.follow(master)
        with pytest.raises(StoreFailed, match="refused: ReadOnlyError"):
            grant(store, "a", ORG, 100, 1)


@pytest.mark.parametrize("fsync", ["always", "everysec"])
def test_law_13_a_killed_server_has_all_that_it_answered(
    tmp_path: Path, made: Callable[..., RedisBudgets], fsync: str
) -> None:
    """Its file is written before it answers; `everysec` is about a host that loses power."""
    with redis_server(tmp_path, fsync=fsync) as server:
        store = made(server.url, "a")
        for upto in range(1, 200):
            assert grant(store, "a", ORG, 1_000, 3) == 3
            store.account("a", upto, {ORG: 2})
        changed_by_restart(server)
        assert made(server.url).usage([ORG]) == [(398, 199)]


# --- slots that die ----------------------------------------------------------------------------------------


def test_what_is_set_aside_for_a_dead_slot_is_free_after_a_day(
    clean: RedisServer, made: Callable[..., RedisBudgets]
) -> None:
    store = made(clean.url, "a", "dead")
    for slot in ("a", "dead"):
        grant(store, slot, ORG, 100, 40)
    store.account("dead", 5, {ORG: 7})
    store.purge(0)
    assert store.usage([ORG]) == [(7, 73)]
    day_ago = clean.client().zscore("{spillway}:roster", "dead") - 86_401_000
    clean.command("ZADD", "{spillway}:roster", str(day_ago), "dead")
    store.purge(0)
    assert store.usage([ORG]) == [(7, 40)]
    # it lives: it has less than it thinks, until it has said what it has
    lost(lambda: store.account("dead", 6, {ORG: 10}))
    store.restore("dead", 6, {ORG: 17}, {ORG: 23})
    assert store.usage([ORG]) == [(17, 63)]


def test_a_dead_slot_that_a_rebuild_waits_for_is_not_forgotten(
    clean: RedisServer, made: Callable[..., RedisBudgets], tmp_path: Path
) -> None:
    memory = tmp_path / "slots.json"
    memory.write_text('["a", "dead"]')
    store = made(clean.url, "a", memory=memory)
    store.purge(0)
    with pytest.raises(StoreFailed, match="waits for what dead spent"):
        grant(store, "a", ORG, 100, 1)
    assert {state.slot: state.silent for state in store.slots()}["dead"] == float("inf")
