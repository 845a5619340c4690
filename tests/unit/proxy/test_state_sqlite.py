"""The budget store over SQLite: what it grants, what it settles, and how it fails."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from policies.budgets import Account, Ask, Granted, StoreFailed
from policies.windows import LATE, expires
from proxy.state.sqlite import SQLiteBudgets

ORG: Account = ("org", "2026-11")
NEXT: Account = ("org", "2026-12")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "budgets.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteBudgets]:
    made = SQLiteBudgets(path)
    yield made
    made.close()


def grant(
    store: SQLiteBudgets, slot: str, account: Account = ORG, *, limit: int = 100, want: int, least: int = 1
) -> int:
    (got,) = store.grant(slot, [Ask(account, limit, max(want, least), least)])
    return got.amount


def whole(store: SQLiteBudgets, slot: str, amount: int, account: Account = ORG, limit: int = 100) -> int:
    """Exactly this much, or nothing."""
    return grant(store, slot, account, limit=limit, want=amount, least=amount)


def usage(store: SQLiteBudgets, account: Account = ORG) -> tuple[int, int]:
    return store.usage([account])[0]


def test_law_03_grants_count_as_held_until_nothing_remains(store: SQLiteBudgets) -> None:
    assert whole(store, "a", 60) == 60
    assert grant(store, "b", want=60) == 5  # an eighth of what is left
    assert whole(store, "b", 36) == 0
    assert whole(store, "b", 35) == 35
    assert grant(store, "b", want=1) == 0
    assert usage(store) == (0, 100)
    assert whole(store, "b", 60, NEXT) == 60  # another window is another account


def test_law_03_a_chain_is_granted_account_by_account(store: SQLiteBudgets) -> None:
    asks = [Ask(ORG, 100, 90, 90), Ask(NEXT, 10, 20, 20)]
    assert store.grant("a", asks) == [Granted(90, 0, 90), Granted(0, 0, 0)]
    assert store.usage([ORG, NEXT]) == [(0, 90), (0, 0)]


def test_law_03_earlier_buckets_count_against_a_rolling_limit(store: SQLiteBudgets) -> None:
    first, second, third = (("key/k", f"r60@{number}") for number in (1, 2, 3))
    assert whole(store, "a", 60, first) == 60
    store.account("a", 0, {first: 40})
    assert store.grant("b", [Ask(second, 100, 41, 41, (first,))]) == [Granted(0, 40, 20)]
    assert store.grant("b", [Ask(second, 100, 40, 40, (first,))]) == [Granted(40, 40, 60)]
    assert store.grant("b", [Ask(third, 100, 61, 61, (second,))]) == [Granted(0, 0, 40)]  # the first is past
    assert store.grant("b", [Ask(third, 100, 60, 60, (second,))]) == [Granted(60, 0, 100)]


def test_a_lowered_limit_grants_nothing_more(store: SQLiteBudgets) -> None:
    whole(store, "a", 60)
    assert grant(store, "a", limit=50, want=10) == 0


def test_settling_moves_money_from_held_to_settled(store: SQLiteBudgets) -> None:
    whole(store, "a", 60)
    store.account("a", 7, {ORG: 25})
    assert usage(store) == (25, 35)
    store.give_back("a", {ORG: 35, NEXT: 3})
    assert (usage(store), usage(store, NEXT)) == ((25, 0), (0, 0))
    assert (store.accounted("a"), store.accounted("b")) == (7, -1)


def test_law_03_a_settlement_that_is_repeated_counts_once(store: SQLiteBudgets) -> None:
    whole(store, "a", 60)
    for _ in range(2):
        store.account("a", 7, {ORG: 25})
    store.account("a", 6, {ORG: 25})
    assert (usage(store), store.accounted("a")) == ((25, 35), 7)


def test_what_a_slice_cannot_pay_is_settled_all_the_same(store: SQLiteBudgets) -> None:
    whole(store, "a", 60)
    assert store.account("a", 0, {ORG: 80, NEXT: 5}) == {ORG: 20, NEXT: 5}
    assert usage(store) == (80, 0)
    assert usage(store, NEXT) == (5, 0)


def test_release_is_for_one_slot(store: SQLiteBudgets) -> None:
    whole(store, "a", 10)
    whole(store, "b", 20)
    store.release("a")
    assert usage(store) == (0, 20)


def test_hold_lowers_and_never_raises(store: SQLiteBudgets) -> None:
    whole(store, "a", 30)
    store.hold("a", {ORG: 40, NEXT: 5})
    assert (usage(store), usage(store, NEXT)) == ((0, 30), (0, 0))
    for _ in range(2):
        store.hold("a", {ORG: 12})
    assert usage(store) == (0, 12)


def test_restore_replaces_a_slots_part(store: SQLiteBudgets) -> None:
    whole(store, "a", 30)
    whole(store, "b", 20)
    store.account("b", 1, {ORG: 5})
    for _ in range(2):
        store.restore("a", 9, {ORG: 11}, {ORG: 7})
    assert usage(store) == (5 + 11, 15 + 7)
    assert (store.accounted("a"), store.accounted("b")) == (9, 1)


def test_an_alert_is_claimed_once_until_it_is_forgotten(store: SQLiteBudgets, path: Path) -> None:
    other = SQLiteBudgets(path)
    assert store.claim("org|2026-11|80", 4_000_000_000)
    assert not other.claim("org|2026-11|80", 4_000_000_000)
    assert other.claim("org|2026-11|50", 1)
    assert store.claim("org|2026-11|50", 1)
    other.close()


def test_overrides_are_set_and_taken_back(store: SQLiteBudgets) -> None:
    store.override("org|month", 5)
    store.override("org|month", 7)
    store.override("key/k|day", 1)
    assert store.overrides() == {"org|month": 7, "key/k|day": 1}
    store.override("org|month", None)
    assert store.overrides() == {"key/k|day": 1}


def test_current_and_purge(store: SQLiteBudgets) -> None:
    whole(store, "a", 10)
    whole(store, "b", 20)
    whole(store, "a", 5, NEXT)
    store.account("a", 0, {ORG: 4})
    assert store.current(["2026-11"]) == {ORG: (4, 26)}
    assert store.current([]) == {}
    store.purge(expires("2026-11") - 1)
    assert usage(store) == (4, 26)
    store.purge(expires("2026-11"))
    assert (usage(store), usage(store, NEXT)) == ((0, 0), (0, 5))
    assert expires("2026-11") > 1_796_083_200 + LATE  # the end of November in UTC


def test_all_of_it_outlives_the_process(store: SQLiteBudgets, path: Path) -> None:
    whole(store, "a", 60)
    store.account("a", 3, {ORG: 10})
    again = SQLiteBudgets(path)
    assert (usage(again), again.accounted("a"), again.accounted("b")) == ((10, 50), 3, -1)
    again.close()


def test_a_file_of_the_first_version_is_taken_over(path: Path) -> None:
    path.parent.mkdir()
    old = sqlite3.connect(path)
    old.executescript("""
        CREATE TABLE accounts (scope TEXT, window TEXT, settled INTEGER, PRIMARY KEY (scope, window)) WITHOUT ROWID;
        CREATE TABLE slices (slot TEXT, scope TEXT, window TEXT, outstanding INTEGER, PRIMARY KEY (slot, scope, window)) WITHOUT ROWID;
        CREATE TABLE slots (slot TEXT PRIMARY KEY, accounted INTEGER NOT NULL) WITHOUT ROWID;
        INSERT INTO accounts VALUES ('org', '2026-11', 40); INSERT INTO slots VALUES ('a', 12);
        INSERT INTO slices VALUES ('a', 'org', '2026-11', 7), ('b', 'org', '2026-11', 2);
    """)
    old.close()
    for _ in range(2):
        store = SQLiteBudgets(path)
        assert (usage(store), store.accounted("a")) == ((40, 9), 12)
        store.close()


def test_a_locked_store_fails_and_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.state.sqlite.BUSY_SECONDS", 0.02)
    store = SQLiteBudgets(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreFailed, match=r"budgets\.db failed: OperationalError"):
        whole(store, "a", 60)
    assert usage(store) == (0, 0)  # reading goes on
    other.execute("ROLLBACK")
    other.close()
    assert whole(store, "a", 60) == 60
    store.close()


def test_a_full_disk_fails_and_heals(store: SQLiteBudgets) -> None:
    assert whole(store, "a", 60) == 60
    store._db.execute("PRAGMA max_page_count = 1")  # SQLite takes it as: no more than now
    many = {(f"scope {number} {'x' * 400}", "2026-11"): 1 for number in range(200)}
    with pytest.raises(StoreFailed):
        store.account("a", 9, many)
    assert (store.accounted("a"), usage(store)) == (-1, (0, 60))
    store._db.execute("PRAGMA max_page_count = 100000")
    store.account("a", 9, many)
    assert store.accounted("a") == 9


def test_an_amount_beyond_64_bits_fails_and_changes_nothing(store: SQLiteBudgets) -> None:
    with pytest.raises(StoreFailed):
        store.account("a", 1, {NEXT: 5, ORG: 1 << 63})
    assert (usage(store, NEXT), store.accounted("a")) == ((0, 0), -1)
    store.account("a", 1, {NEXT: 5})
    assert usage(store, NEXT) == (5, 0)


def test_a_file_that_is_no_database_fails(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database, but long enough to be looked at" * 100)
    store = SQLiteBudgets(path)  # a worker starts all the same
    for _ in range(2):
        with pytest.raises(StoreFailed, match=r"budgets\.db is damaged; stop Spillway and remove budgets\.db\*"):
            store.accounted("a")
    path.unlink()
    assert store.accounted("a") == -1
    store.close()
