"""The budget stores that the laws are proved over, by where they lie: a file's path, or a Redis URL."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import proxy.state.redis
from policies.budgets import BudgetStore
from proxy.state.redis import RedisBudgets, connect
from proxy.state.sqlite import SQLiteBudgets


def store_at(where: str, *slots: str, patient: bool = False) -> BudgetStore:
    """A store in which these slots have started.  `patient`: accounts do not expire, whenever a test's time is."""
    if not where.startswith("redis:"):
        return SQLiteBudgets(Path(where))
    proxy.state.redis.TIMEOUT = 10.0  # a busy machine is no fault
    if patient:
        proxy.state.redis.expires = lambda window: 4_000_000_000  # type: ignore[assignment]
    return started(RedisBudgets(connect(where), grace=0), slots)


def started(store: BudgetStore, slots: Iterable[str]) -> BudgetStore:
    """Each of the slots has told the store that its journal is empty."""
    for slot in slots:
        store.account(slot, store.accounted(slot), {})
    return store
