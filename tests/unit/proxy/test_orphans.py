"""Slices of slots that are not started any more."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from outcomes import decision, outcome

from compliance.journal import Journal, JournalLocked, load_or_create_key
from policies.budgets import Ask
from policies.windows import window_at
from proxy.state.orphans import settle_orphans
from proxy.state.sqlite import SQLiteBudgets

ORG = ("org", window_at("month", time.time()).id)
TOKENS = ("key/k#tokens-all", window_at("day", time.time()).id)
PAST = ("org", "2020-01")


def test_law_03_13_their_logs_are_settled_and_only_open_attempts_stay_held(tmp_path: Path) -> None:
    logs = tmp_path / "audit"
    key = load_or_create_key(logs / "key")
    labels = (f"org|{ORG[1]}", f"{TOKENS[0]}|{TOKENS[1]}|70")
    journal = Journal.open(logs / "slot-3", origin="i/slot-3", key=key)
    for record in (
        decision("a", hold=50, scopes=labels), outcome("a", hold=50, cost=20, output=9, scopes=labels),
        decision("b", hold=40, scopes=labels), decision("old", scopes=("org|2020-01",)), outcome("old", cost=7, scopes=("org|2020-01",)),
    ):  # fmt: skip
        journal.append(record)
    journal.close()
    live = Journal.open(logs / "slot-0", origin="i/slot-0", key=key)
    other = Journal.open(logs / "slot-4", origin="i/slot-4", key=key)  # somebody writes it
    store = SQLiteBudgets(tmp_path / "budgets.db")
    store.grant("slot-3", [Ask(ORG, 1_000, 300, 300), Ask(TOKENS, 1_000, 200, 200)])
    store.grant("slot-0", [Ask(ORG, 1_000, 5, 5)])
    store.account("slot-3", 1, {ORG: 20, TOKENS: 9})
    store.grant("slot-4", [Ask(ORG, 1_000, 6, 6)])
    for _ in range(2):
        assert settle_orphans(store, logs, ["slot-0", "slot-1"]) == ["slot-3"]
        assert store.usage([ORG, TOKENS, PAST]) == [(20, 40 + 5 + 6), (9, 70), (0, 0)]
    assert store.accounted("slot-3") == 4
    live.close()
    with pytest.raises(JournalLocked):
        Journal.open(logs / "slot-4", origin="i/slot-4", key=key)
    other.close()
    store.close()


def test_law_03_after_the_loss_of_the_file_all_logs_count_before_anybody_is_granted(tmp_path: Path) -> None:
    """Also that of a slot that starts: another worker would be granted what it spent, until it has read its log."""
    logs = tmp_path / "audit"
    key = load_or_create_key(logs / "key")
    labels = (f"org|{ORG[1]}",)
    for slot, cost in (("slot-0", 100), ("slot-1", 200), ("slot-2", 300)):
        journal = Journal.open(logs / slot, origin=f"i/{slot}", key=key)
        for record in (decision("a", hold=400, scopes=labels), outcome("a", hold=400, cost=cost, scopes=labels)):
            journal.append(record)
        journal.append(decision("b", hold=7, scopes=labels))
        journal.close()
    store = SQLiteBudgets(tmp_path / "budgets.db")
    assert settle_orphans(store, logs, ["slot-0", "slot-1"]) == ["slot-0", "slot-1", "slot-2"]
    assert store.usage([ORG]) == [(600, 21)]
    assert store.grant("slot-1", [Ask(ORG, 1_000, 380, 380)])[0].amount == 0
    assert settle_orphans(store, logs, ["slot-0", "slot-1"]) == [
        "slot-2"
    ]  # which still holds what nobody knows the cost of
    store.close()
