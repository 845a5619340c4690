"""Budget stores over real Redis servers, and what workers do with them."""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Callable, Iterator

import pytest

from policies.budgets import Account, Ask, StoreFailed, StoreLost
from proxy.state.redis import RedisBudgets, connect

YEAR = datetime.date.today().year + 1  # accounts of the past are forgotten at once
ORG: Account = ("org", f"{YEAR}-11")
NEXT: Account = ("org", f"{YEAR}-12")
CHAIN: tuple[Account, ...] = (
    ORG,
    ("acme:team/oncology", f"{YEAR}-W48"),
    ("key/k_12#requests-all", f"{YEAR}-11-24T13:05"),
    ("acme:user/3f{x}..#tokens", f"{YEAR}-11-24"),
)
PAST: Account = ("org", "2020-01")


@contextlib.contextmanager
def redis_stores() -> Iterator[Callable[..., RedisBudgets]]:
    """Makes stores, and closes them at the end."""
    stores: list[RedisBudgets] = []

    def make(url: str, *slots: str, grace: float = 0, patience: float = 10.0, **options: object) -> RedisBudgets:
        """A store that waits so long for answers (a busy machine is no fault), and slots that have started on it."""
        store = RedisBudgets(connect(url), grace=grace, **options)  # type: ignore[arg-type]
        store._client.connection_pool.connection_kwargs["socket_timeout"] = patience
        stores.append(store)
        for slot in slots:
            start(store, slot)
        return store

    yield make
    for store in stores:
        store.close()


def start(store: RedisBudgets, slot: str, upto: int = 0, spent: dict[Account, int] | None = None) -> None:
    """What a worker does when it starts with a journal that cost so much."""
    store.accounted(slot)
    store.account(slot, upto, spent or {})
    store.release(slot)


def grant(store: RedisBudgets, slot: str, account: Account, limit: int, amount: int) -> int:
    return store.grant(slot, [Ask(account, limit, amount, amount)])[0].amount


def after_pause(store: RedisBudgets) -> RedisBudgets:
    store._again_at = 0.0  # the moment in which nothing is tried is over
    return store


def eventually(store: RedisBudgets, account: Account, limit: int, slot: str, amount: int) -> None:
    """Granted, once a replica has confirmed the slot: where the machine is busy that takes a moment."""
    deadline = time.monotonic() + 20
    while True:
        try:
            assert grant(after_pause(store), slot, account, limit, amount) == amount
            return
        except StoreFailed:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def lost(call: Callable[[], object]) -> None:
    with pytest.raises(StoreLost, match="its counters are rebuilt from the ledger"):
        call()
