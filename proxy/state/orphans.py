"""Slices of worker slots that are not started any more: their logs say what of them was spent.

A slot that died keeps what was set aside for it until its log is replayed at its next start.  Where fewer workers
start than before it has none, and the budgets that it took slices of would refuse until their windows end.

A store that knows nothing of a slot whose log is there has lost its file: what the slot spent is counted again before any
worker starts, so that none is granted what another has spent.
"""

from __future__ import annotations

import fcntl
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import asdict

from compliance.journal import read
from compliance.records import Decision, Outcome
from policies.budgets import Account
from policies.windows import expires
from proxy.state.charges import add, charges
from proxy.state.sqlite import SQLiteBudgets

log = logging.getLogger("spillway")


def settle_orphans(store: SQLiteBudgets, logs: Path, started: Sequence[str]) -> list[str]:
    """Settle what the logs of other slots have, and take back what they do not hold; the slots.

    An attempt without an outcome may have cost its whole hold, which stays held until the slot is started again.
    """
    settled = []
    unknown = [path.name for path in sorted(logs.glob("slot-*")) if store.accounted(path.name) < 0]
    for slot in dict.fromkeys([*store.holders(), *unknown]):
        directory = logs / slot
        if (
            (slot in started and slot not in unknown)
            or not (directory / "lock").exists()
            or not _free(directory / "lock")
        ):
            continue
        last, spent, held = _read(directory)
        if last < 0:
            continue
        store.restore(slot, last, _live(spent), _live(held))
        settled.append(slot)
    if settled:
        log.info("settled the budgets of worker slots from their logs: %s", ", ".join(settled))
    return settled


def _read(directory: Path) -> tuple[int, dict[Account, int], dict[Account, int]]:
    """(the last record, what was spent, what attempts without an outcome hold) of a log, which may be long."""
    last = -1
    spent: dict[Account, int] = {}
    waiting: dict[tuple[str, int], Decision] = {}
    for record in read(directory):
        last = record.seq
        if isinstance(record, Outcome):
            add(spent, charges(record))
            waiting.pop((record.request, record.attempt), None)
        elif isinstance(record, Decision) and record.scopes:
            waiting[record.request, record.attempt] = record
    held: dict[Account, int] = {}
    for decision in waiting.values():
        add(held, charges(_interrupted(decision)))
    return last, spent, held


def _live(amounts: dict[Account, int]) -> dict[Account, int]:
    now = time.time()
    return {account: amount for account, amount in amounts.items() if expires(account[1]) > now}


def _interrupted(decision: Decision) -> Outcome:
    """The outcome that the slot's next start would write."""
    fields = asdict(decision)
    given: dict[str, Any] = {
        name: fields.get(name, "" if kind == "str" else () if kind.startswith("tuple") else 0)
        for name, kind in Outcome.__annotations__.items()
    }
    given.pop("kind")
    return Outcome(**{**given, "cost": decision.hold, "ending": "interrupted"})


def _free(lock: Path) -> bool:
    """No process writes this slot's log."""
    try:
        with open(lock, "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except OSError:
        return False
