"""The budget store over SQLite: what it grants, what it settles, and how it fails."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from policies.budgets import Account
from proxy.state.sqlite import SQLiteBudgets, StoreFailed

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


def test_grants_count_as_held_until_nothing_remains(store: SQLiteBudgets) -> None:
    assert store.grant("a", ORG, limit=100, want=60, least=1) == 60
    assert store.grant("b", ORG, limit=100, want=60, least=1) == 40  # what is left
    assert store.grant("b", ORG, limit=100, want=1, least=1) == 0
    assert store.usage(ORG) == (0, 100)
    assert store.grant("b", NEXT, limit=100, want=60, least=1) == 60  # another window is another account


def test_the_exact_amount_or_nothing(store: SQLiteBudgets) -> None:
    store.grant("a", ORG, limit=100, want=70, least=1)
    assert store.grant("b", ORG, limit=100, want=31, least=31) == 0
    assert store.grant("b", ORG, limit=100, want=30, least=30) == 30


def test_a_lowered_limit_grants_nothing_more(store: SQLiteBudgets) -> None:
    store.grant("a", ORG, limit=100, want=70, least=1)
    assert store.grant("b", ORG, limit=50, want=10, least=1) == 0


def test_settling_moves_money_from_held_to_settled(store: SQLiteBudgets) -> None:
    store.grant("a", ORG, limit=100, want=60, least=1)
    assert store.account("a", 7, {ORG: 25}) == {}
    assert store.usage(ORG) == (25, 35)
    assert store.accounted("a") == 7
    store.give_back("a", ORG, 35)
    assert store.usage(ORG) == (25, 0)
    assert store.grant("b", ORG, limit=100, want=100, least=1) == 75


def test_what_a_slice_cannot_pay_is_settled_all_the_same(store: SQLiteBudgets) -> None:
    store.grant("a", ORG, limit=100, want=60, least=1)
    assert store.account("a", 0, {ORG: 80, NEXT: 5}) == {ORG: 20, NEXT: 5}
    assert store.usage(ORG) == (80, 0)
    assert store.usage(NEXT) == (5, 0)


def test_release_is_for_one_slot(store: SQLiteBudgets) -> None:
    store.grant("a", ORG, limit=100, want=10, least=1)
    store.grant("b", ORG, limit=100, want=20, least=1)
    store.release("a")
    assert store.usage(ORG) == (0, 20)


def test_all_of_it_outlives_the_process(store: SQLiteBudgets, path: Path) -> None:
    store.grant("a", ORG, limit=100, want=60, least=1)
    store.account("a", 3, {ORG: 10})
    again = SQLiteBudgets(path)
    assert (again.usage(ORG), again.accounted("a"), again.accounted("b")) == ((10, 50), 3, -1)
    again.close()


def test_a_locked_store_fails_and_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.state.sqlite.BUSY_SECONDS", 0.02)
    store = SQLiteBudgets(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreFailed, match=r"budgets\.db failed: OperationalError"):
        store.grant("a", ORG, limit=100, want=60, least=1)
    assert store.usage(ORG) == (0, 0)  # reading goes on
    other.execute("ROLLBACK")
    other.close()
    assert store.grant("a", ORG, limit=100, want=60, least=1) == 60
    store.close()


def test_a_full_disk_fails_and_heals(store: SQLiteBudgets) -> None:
    assert store.grant("a", ORG, limit=100, want=60, least=1) == 60
    store._db.execute("PRAGMA max_page_count = 1")  # SQLite takes it as: no more than now
    many = {(f"scope {number} {'x' * 400}", "2026-11"): 1 for number in range(200)}
    with pytest.raises(StoreFailed):
        store.account("a", 9, many)
    assert (store.accounted("a"), store.usage(ORG)) == (-1, (0, 60))
    store._db.execute("PRAGMA max_page_count = 100000")
    store.account("a", 9, many)
    assert store.accounted("a") == 9


def test_an_amount_beyond_64_bits_fails_and_changes_nothing(store: SQLiteBudgets) -> None:
    with pytest.raises(StoreFailed):
        store.account("a", 1, {NEXT: 5, ORG: 1 << 63})
    assert (store.usage(NEXT), store.accounted("a")) == ((0, 0), -1)
    store.account("a", 1, {NEXT: 5})
    assert store.usage(NEXT) == (5, 0)


def test_a_file_that_is_no_database_fails(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(StoreFailed):
        SQLiteBudgets(path)
