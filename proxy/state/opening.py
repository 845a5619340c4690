"""The budget store that a configuration asks for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from policies.budgets import BudgetStore, StoreFailed
from proxy.config import Settings
from proxy.config_redis import SQLITE
from proxy.quantities import Wrong
from proxy.secrets import value_of
from proxy.state.sqlite import SQLiteBudgets

if TYPE_CHECKING:
    from proxy.state.redis import RedisBudgets

SQLITE_FILE = "budgets.db"
MEMORY_FILE = "redis-slots.json"


def open_budgets(settings: Settings) -> BudgetStore:
    """Raises `StoreFailed` where a file is no database or a password is not there; Redis is reached at the first call."""
    if settings.state.store == SQLITE:
        return SQLiteBudgets(Path(settings.state.dir) / SQLITE_FILE)
    return open_redis(settings)


def open_redis(settings: Settings) -> RedisBudgets:
    """The store at the URL of `state.store`."""
    from proxy.state.redis import RedisBudgets, connect  # its client is an extra

    part = settings.state.redis
    client = connect(
        settings.state.store, user=part.user, password=_password(settings), ca=part.ca, cert=part.cert, key=part.key
    )
    return RedisBudgets(client, part.prefix, memory=Path(settings.state.dir) / MEMORY_FILE, grace=part.grace)


def slot_of(settings: Settings, slot: str, origin: str) -> str:
    """What a worker is called in the store: on one host its slot, among several its log's origin."""
    return slot if settings.state.store == SQLITE else origin


def _password(settings: Settings) -> str | None:
    """Commands read a configuration without its secrets; this one they need."""
    known, reference = settings.secret("state.redis.password"), settings.state.redis.password
    if known is not None or reference is None:
        return known
    try:
        return value_of(reference, os.environ)
    except Wrong as wrong:
        raise StoreFailed(f"state.redis.password: {wrong}; {wrong.hint}") from None
