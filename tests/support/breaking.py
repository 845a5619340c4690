"""A ledger whose database breaks between two portions of a batch."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from types import SimpleNamespace

import pytest


@contextlib.contextmanager
def broken(monkeypatch: pytest.MonkeyPatch, portions: int) -> Iterator[None]:
    """What is projected in here breaks off after the pause behind so many portions."""
    left = portions

    def breaks(_seconds: float) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patched, contextlib.suppress(sqlite3.OperationalError):
        patched.setattr("proxy.projections.ledger.time", SimpleNamespace(sleep=breaks))
        yield
