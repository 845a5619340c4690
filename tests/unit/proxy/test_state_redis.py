"""The budget store over Redis, against real servers: what it grants and settles, how it fails, how it is reached."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis_server import RedisServer, TcpRelay, free_port, redis_server, tcp_relay
from redis_stores import CHAIN, NEXT, ORG, PAST, after_pause, grant, lost, redis_stores, start

from policies.budgets import Account, Ask, Granted, StoreFailed, StoreUnsure
from proxy.state import redis_scripts
from proxy.state.redis import RedisBudgets, connect


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


# --- what it grants and settles ----------------------------------------------------------------------------


def test_law_03_grants_count_as_held_and_shrink_until_nothing_remains(store: RedisBudgets) -> None:
    assert store.grant("a", [Ask(ORG, 100, 60, 1)]) == [Granted(12, 0, 12)]  # an eighth
    assert store.grant("b", [Ask(ORG, 100, 60, 50)]) == [Granted(50, 0, 62)]
    assert store.grant("b", [Ask(ORG, 100, 3, 1)]) == [Granted(3, 0, 65)]
    assert store.grant("b", [Ask(ORG, 100, 60, 36)]) == [Granted(0, 0, 65)]  # 35 are left
    assert store.grant("b", [Ask(ORG, 60, 1, 1)]) == [Granted(0, 0, 65)]  # a lowered limit
    assert store.grant("b", [Ask(NEXT, 100, 60, 60)]) == [Granted(60, 0, 60)]  # another window
    assert store.usage([ORG, NEXT, PAST]) == [(0, 65), (0, 60), (0, 0)]


def test_law_03_a_chain_is_asked_for_at_once_and_each_account_keeps_its_limit(store: RedisBudgets) -> None:
    rows = store.grant(
        "a", [Ask(account, limit, 50, 50) for account, limit in zip(CHAIN, (99, 50, 49, 1 << 62), strict=True)]
    )
    assert [row.amount for row in rows] == [50, 50, 0, 50]
    assert store.usage(CHAIN) == [(0, 50), (0, 50), (0, 0), (0, 50)]


def test_law_03_earlier_buckets_of_a_rolling_window_count(store: RedisBudgets) -> None:
    buckets: list[Account] = [("org", f"r86400@{4_000_000 + number}") for number in range(4)]
    for bucket in buckets[:3]:
        assert grant(store, "a", bucket, 100, 30) == 30
    store.account("a", 1, {buckets[0]: 20})
    asked = Ask(buckets[3], 100, 60, 11, tuple(buckets[:3]))
    assert store.grant("b", [asked]) == [Granted(0, 20, 70)]
    assert store.grant("b", [Ask(buckets[3], 100, 10, 10, tuple(buckets[:3]))]) == [Granted(10, 20, 80)]
    assert store.usage([buckets[3]]) == [(0, 10)]


@pytest.mark.parametrize("limit", [1 << 53, (1 << 53) + 1, 10**18 + 1, (1 << 63) - 1])
def test_law_03_to_the_pico_dollar_where_doubles_end(store: RedisBudgets, limit: int) -> None:
    """Past 2**53 a double skips every second number: 9,007 dollars."""
    assert grant(store, "a", ORG, limit, limit - 1) == limit - 1
    assert grant(store, "b", ORG, limit, 2) == 0
    assert grant(store, "b", ORG, limit, 1) == 1
    assert grant(store, "b", ORG, limit, 1) == 0
    assert store.account("a", 1, {ORG: limit - 1}) == {}
    assert store.usage([ORG]) == [(limit - 1, 1)]
    store.give_back("b", {ORG: 1})
    assert store.grant("a", [Ask(ORG, limit, 5, 1)]) == [Granted(1, limit - 1, 1)]


def test_settling_moves_money_from_held_to_settled_and_once(store: RedisBudgets) -> None:
    grant(store, "a", ORG, 100, 60)
    grant(store, "b", ORG, 100, 40)
    assert store.account("a", 7, {ORG: 80, NEXT: 5}) == {ORG: 20, NEXT: 5}
    assert store.account("a", 7, {ORG: 80, NEXT: 5}) == {ORG: 20, NEXT: 5}  # repeated: the same answer
    assert store.account("a", 6, {ORG: 1}) == {}  # older
    assert store.usage([ORG, NEXT]) == [(80, 40), (5, 0)]
    assert (store.accounted("a"), store.accounted("b")) == (7, 0)
    assert store.account("a", 8, {}) == {}
    assert store.accounted("a") == 8


def test_release_and_giving_back_are_for_one_slot_and_never_go_below_nothing(store: RedisBudgets) -> None:
    grant(store, "a", ORG, 100, 10)
    grant(store, "b", ORG, 100, 20)
    store.give_back("b", {ORG: 5, NEXT: 5})
    store.hold("b", {ORG: 99, NEXT: 9})
    assert store.usage([ORG, NEXT]) == [(0, 25), (0, 0)]
    store.hold("b", {ORG: 11})
    assert store.usage([ORG]) == [(0, 21)]
    store.release("a")
    store.release("a")
    assert store.usage([ORG]) == [(0, 11)]
    store.give_back("b", {ORG: 500})
    assert store.usage([ORG]) == [(0, 0)]


def test_an_amount_beyond_64_bits_fails_and_changes_nothing(store: RedisBudgets) -> None:
    with pytest.raises(StoreFailed, match="64 bits"):
        store.account("a", 1, {NEXT: 5, ORG: 1 << 63})
    assert (store.usage([NEXT]), store.accounted("a")) == ([(0, 0)], 0)


def test_what_was_forgotten_with_its_window_is_gone(store: RedisBudgets, clean: RedisServer) -> None:
    assert grant(store, "a", PAST, 100, 60) == 60
    assert store.usage([PAST]) == [(0, 0)]
    grant(store, "a", ORG, 100, 60)
    assert 0 < clean.command("TTL", f"{{spillway}}:account:{ORG[0]}|{ORG[1]}") < 3 * 366 * 86_400
    store.purge(0)
    assert {state.slot: state.held for state in store.slots()} == {"a": {ORG: 60}, "b": {}}


def test_alerts_are_claimed_once_and_limits_are_overridden(
    store: RedisBudgets, made: Callable[..., RedisBudgets], clean: RedisServer
) -> None:
    other = made(clean.url)
    assert [one.claim("org|80", 4_000_000_000) for one in (store, other)] == [True, False]
    assert store.claim("org|100", 1) and other.claim("org|100", 4_000_000_000)  # forgotten
    other.override("org|month", 5)
    other.override("team/x|day", (1 << 63) - 1)
    assert store.overrides() == {"org|month": 5, "team/x|day": (1 << 63) - 1}
    store.override("org|month", None)
    assert other.overrides() == {"team/x|day": (1 << 63) - 1}


def test_every_account_of_a_window(store: RedisBudgets) -> None:
    for account in CHAIN:
        grant(store, "a", account, 100, 7)
    store.account("a", 1, {NEXT: 3})
    assert store.current({NEXT[1], CHAIN[1][1]}) == {NEXT: (3, 0), CHAIN[1]: (0, 7)}


def test_two_deployments_in_one_server(clean: RedisServer, made: Callable[..., RedisBudgets]) -> None:
    one, two = made(clean.url, "a"), made(clean.url, "a", prefix="other")
    grant(one, "a", ORG, 100, 60)
    assert (one.usage([ORG]), two.usage([ORG])) == ([(0, 60)], [(0, 0)])


def test_a_deployment_lies_in_one_slot_of_a_cluster(tmp_path: Path, made: Callable[..., RedisBudgets]) -> None:
    """A node that has the cluster's rules refuses a script over several slots."""
    with redis_server(tmp_path, *clustered()) as node:
        node.command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        until_ok(node)
        store = made(node.url, "a", "b")
        assert [row.amount for row in store.grant("a", [Ask(account, 100, 50, 50) for account in CHAIN])] == [50] * 4
        store.account("a", 1, dict.fromkeys(CHAIN, 20))
        store.restore("b", 1, dict.fromkeys(CHAIN, 3), dict.fromkeys(CHAIN, 4))
        store.override("org|month", 5)
        store.claim("x", 4_000_000_000)
        store.purge(0)
        assert store.current({ORG[1]}) == {ORG: (23, 34)}
        assert store.overrides() == {"org|month": 5}
        slots = {node.command("CLUSTER", "KEYSLOT", key) for key in node.command("KEYS", "*")}
        assert len(slots) == 1


def clustered() -> tuple[str, ...]:
    return ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))


def until_ok(node: RedisServer) -> None:
    deadline = time.monotonic() + 30
    while "cluster_state:ok" not in node.command("CLUSTER", "INFO"):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_node_of_a_cluster_that_has_the_keys_is_found(tmp_path: Path, made: Callable[..., RedisBudgets]) -> None:
    with redis_server(tmp_path / "1", *clustered()) as asked, redis_server(tmp_path / "2", *clustered()) as having:
        here = asked.command("CLUSTER", "KEYSLOT", "{spillway}:meta")
        for first, last in ((0, here - 1), (here + 1, 16383)):
            asked.command("CLUSTER", "ADDSLOTSRANGE", str(first), str(last))
        having.command("CLUSTER", "ADDSLOTS", str(here))
        asked.command("CLUSTER", "MEET", "127.0.0.1", str(having.port), having._options[-5])
        for node in (asked, having):
            until_ok(node)
        store = made(asked.url)
        with pytest.raises(StoreFailed, match="lies on another node of its cluster, which is asked next"):
            store.accounted("a")
        start(after_pause(store), "a")
        assert grant(store, "a", ORG, 100, 7) == 7
        assert made(having.url).usage([ORG]) == [(0, 7)]
        having.kill()
        with pytest.raises(StoreUnsure):
            grant(store, "a", ORG, 100, 7)
        having.start()
        until_ok(having)
        with pytest.raises(StoreFailed, match="lies on another node"):  # the configured address is asked again
            grant(after_pause(store), "a", ORG, 100, 7)
        lost(lambda: grant(after_pause(store), "a", ORG, 100, 7))


# --- lost commands -----------------------------------------------------------------------------------------


@pytest.fixture
def relay(clean: RedisServer) -> Iterator[TcpRelay]:
    with tcp_relay(clean.port) as started:
        yield started


def test_law_03_no_answer_is_not_no(clean: RedisServer, relay: TcpRelay, made: Callable[..., RedisBudgets]) -> None:
    """The server did what was asked; nobody heard.  Each call can be put right, and nothing counts twice."""
    store, watch = made(relay.url, "a", patience=0.5), made(clean.url)

    def unheard(call: Callable[[], object]) -> None:
        relay.swallow = True
        with pytest.raises(StoreUnsure):
            call()
        relay.swallow = False
        after_pause(store)

    unheard(lambda: grant(store, "a", ORG, 100, 60))
    assert watch.usage([ORG]) == [(0, 60)]
    store.hold("a", {ORG: 0})
    assert watch.usage([ORG]) == [(0, 0)]
    grant(store, "a", ORG, 100, 60)
    unheard(lambda: store.give_back("a", {ORG: 10}))
    store.hold("a", {ORG: 50})
    assert watch.usage([ORG]) == [(0, 50)]
    unheard(lambda: store.account("a", 3, {ORG: 55}))
    assert store.account("a", 3, {ORG: 55}) == {ORG: 5}
    assert watch.usage([ORG]) == [(55, 0)]
    unheard(lambda: store.restore("a", 4, {ORG: 60}, {ORG: 7}))
    store.restore("a", 4, {ORG: 60}, {ORG: 7})
    assert watch.usage([ORG]) == [(60, 7)]


def test_law_03_what_a_lost_connection_left_behind_is_refused(store: RedisBudgets, clean: RedisServer) -> None:
    """It may reach the server after the commands of the next connection."""
    grant(store, "a", ORG, 100, 60)
    old = store._sessions["a"]
    store._lose()
    after_pause(store).hold("a", {ORG: 60})
    key = store._account(ORG)
    for script, arguments in (
        (redis_scripts.GRANT, ["0", "100", "9", "9", "0", "4000000000"]),
        (redis_scripts.GIVE_BACK, ["30"]),
        (redis_scripts.HOLD, ["30"]),
        (redis_scripts.RELEASE, []),
        (redis_scripts.ACCOUNT, ["9", "30", "4000000000"]),
        (redis_scripts.RESTORE, ["9", "0", "30", "30", "4000000000"]),
    ):
        assert store._run(script, "a", [key], arguments, session=old) == ["fenced"]
    assert store.usage([ORG]) == [(0, 60)]
    assert store.accounted("a") == 0


def test_a_frozen_server_fails_and_answers_again(
    own: RedisServer, made: Callable[..., RedisBudgets], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.state.redis.PAUSE", 60.0)
    store = made(own.url, "a", patience=0.5)
    grant(store, "a", ORG, 100, 60)
    own.freeze()
    with pytest.raises(StoreUnsure):
        store.account("a", 1, {ORG: 10})
    with pytest.raises(StoreFailed, match="a moment ago"):
        store.account("a", 1, {ORG: 10})
    with pytest.raises(StoreFailed):
        after_pause(store).account("a", 1, {ORG: 10})
    own.thaw()
    assert after_pause(store).account("a", 1, {ORG: 10}) == {}
    assert store.usage([ORG]) == [(10, 50)]


def test_a_server_that_is_not_there_fails_and_changes_nothing(
    tmp_path: Path, made: Callable[..., RedisBudgets]
) -> None:
    with redis_server(tmp_path) as gone:
        store = made(gone.url)
    for call in (
        lambda: store.accounted("a"), lambda: store.usage([ORG]), lambda: store.claim("x", 1), lambda: store.overrides(),
        lambda: store.purge(0), lambda: store.grant("a", [Ask(ORG, 1, 1, 1)]), lambda: store.slots(), lambda: store.current({"x"}),
    ):  # fmt: skip
        after_pause(store)
        with pytest.raises(StoreFailed, match="the budget store failed: ConnectionError"):
            call()


def test_the_scripts_are_sent_again_where_the_server_forgot_them(store: RedisBudgets, clean: RedisServer) -> None:
    grant(store, "a", ORG, 100, 60)
    clean.command("SCRIPT", "FLUSH")
    assert grant(store, "a", ORG, 100, 40) == 40


def test_a_server_that_drops_keys_is_not_used(own: RedisServer, made: Callable[..., RedisBudgets]) -> None:
    own.command("CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "volatile-lru")
    with pytest.raises(StoreFailed, match=r"may drop keys \(volatile-lru\): set its maxmemory-policy to noeviction"):
        made(own.url, "a")
    own.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
    store = made(own.url, "a")
    own.command("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(StoreFailed, match="refused: OutOfMemoryError"):
        grant(store, "a", ORG, 100, 1)
    own.command("CONFIG", "SET", "maxmemory", "0")
    assert store.usage([ORG]) == [(0, 0)]


# --- how it is reached -------------------------------------------------------------------------------------


def test_a_user_with_a_password(own: RedisServer) -> None:
    rights = "~{spillway}:* +@read +@write +@connection +@scripting -@dangerous +info +time +wait"
    own.command("ACL", "SETUSER", "spillway", "on", ">hunter2", *rights.split())
    store = RedisBudgets(connect(own.url, user="spillway", password="hunter2"), grace=0)
    start(store, "a")
    assert grant(store, "a", ORG, 100, 1) == 1
    store.overrides()
    store.purge(0)
    assert store.current({ORG[1]}) == {ORG: (0, 1)}
    assert len(store.slots()) == 1 and store.retire("a")
    store.close()
    wrong = RedisBudgets(connect(own.url, user="spillway", password="wrong-word"))
    with pytest.raises(StoreFailed, match="AuthenticationError") as refused:
        wrong.accounted("a")
    assert "wrong-word" not in str(refused.value)
    wrong.close()


def test_over_tls_with_certificates_both_ways(tmp_path: Path) -> None:
    certificates(tmp_path)
    tls = ["--tls-port", "0", "--tls-cert-file", "c.crt", "--tls-key-file", "c.key", "--tls-ca-cert-file", "ca.crt"]
    flags = [str(tmp_path / word) if word.endswith((".crt", ".key")) else word for word in tls]
    with redis_server(tmp_path / "redis", *flags) as server:
        server.command("CONFIG", "SET", "tls-port", str(port := free_port()))
        url = f"rediss://localhost:{port}/0"
        names = {"ca": str(tmp_path / "ca.crt"), "cert": str(tmp_path / "c.crt"), "key": str(tmp_path / "c.key")}
        store = RedisBudgets(connect(url, **names), grace=0)
        start(store, "a")
        store.close()
        unknown, nameless, stranger = {"ca": names["ca"]}, {key: names[key] for key in ("cert", "key")}, names
        for address, options in ((url, unknown), (url, nameless), (url.replace("localhost", "127.0.0.1"), stranger)):
            refused = RedisBudgets(connect(address, **options))  # type: ignore[arg-type]
            with pytest.raises(StoreFailed, match="ConnectionError"):
                refused.accounted("a")
            refused.close()


def certificates(directory: Path) -> None:
    """An authority of its own, and a certificate for localhost."""
    for command in (
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.crt",
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -addext subjectAltName=DNS:localhost"
        " -keyout c.key -out c.csr",
        "x509 -req -in c.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -copy_extensions copy -out c.crt",
    ):
        subprocess.run(["openssl", *command.split()], cwd=directory, check=True, capture_output=True)
