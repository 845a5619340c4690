"""Law 3 over slices, crashes and recoveries; law 4 over what is projected from the same logs.

The machine below does what a worker's parts do around `Book` and the real SQLite store, one step at a time and
in any order: reserve, end an attempt, make records durable, settle, give back, be killed, recover.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from outcomes import decision, outcome

from compliance.records import Decision, Outcome
from policies.budgets import Account, Book, Hold, slice_size
from proxy.projections.ledger import Ledger
from proxy.state.leases import scope_labels
from proxy.state.sqlite import SQLiteBudgets

ROOT = Path(__file__).resolve().parents[2]
MONTH: Account = ("org", "2026-11")
DAY: Account = ("team/radiology", "2026-11-24")
LIMITS = {MONTH: 1_000, DAY: 700}
CHAINS = ((MONTH,), (MONTH, DAY))
SLOTS = ("slot-0", "slot-1", "slot-2")


class Slot:
    """One worker: its book, its journal (durable, and queued), what is not settled yet."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.durable: list[Any] = []
        self.forget()

    def forget(self) -> None:
        """What a kill takes away: all that is only in memory."""
        self.book = Book()
        self.queued: list[Any] = []
        self.open: list[tuple[str, Hold]] = []
        self.finished: dict[str, tuple[Hold, int]] = {}
        self.unsettled: dict[Account, int] = {}

    def append(self, record: Any) -> None:
        record.seq = len(self.durable) + len(self.queued)
        self.queued.append(record)

    def flush(self, count: int) -> list[Any]:
        done, self.queued = self.queued[:count], self.queued[count:]
        self.durable += done
        return done


def labelled(record: Any) -> list[Account]:
    return [(scope, window) for scope, _, window in (label.partition("|") for label in record.scopes)]


def spent_by(records: list[Any]) -> dict[Account, int]:
    spent: dict[Account, int] = {}
    for record in records:
        if isinstance(record, Outcome):
            for account in labelled(record):
                spent[account] = spent.get(account, 0) + record.cost
    return spent


class Budgets(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.store = SQLiteBudgets(self.directory / "budgets.db")
        self.store._db.execute("PRAGMA synchronous=OFF")  # the machine does not lose power
        self.slots = {name: Slot(name) for name in SLOTS}
        self.requests = 0
        self.excess = dict.fromkeys(LIMITS, 0)  # billed beyond what was held

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.directory)

    # --- what happens ---------------------------------------------------------------------------------------

    @rule(name=st.sampled_from(SLOTS), chain=st.sampled_from(CHAINS), amount=st.integers(0, 400), decided=st.booleans())
    def reserve(self, name: str, chain: tuple[Account, ...], amount: int, decided: bool) -> None:
        slot = self.slots[name]
        if (hold := self.try_reserve(slot, chain, amount)) is None:
            return
        if not decided:  # its client left before the decision was recorded: nothing was sent
            slot.book.settle(hold, 0)
            return
        request = f"r{self.requests}"
        self.requests += 1
        slot.append(decision(request, hold=amount, scopes=scope_labels(chain)))
        slot.open.append((request, hold))

    def try_reserve(self, slot: Slot, chain: tuple[Account, ...], amount: int) -> Hold | None:
        while True:
            held = slot.book.reserve(chain, amount)
            if isinstance(held, Hold):
                return held
            limit, least = LIMITS[held], amount - slot.book.free(held)
            settled, out = self.store.usage(held)
            want = slice_size(limit, max(0, limit - settled - out), least)
            granted = self.store.grant(slot.name, held, limit, want, max(1, least))
            if not granted:
                return None
            slot.book.add(held, granted)

    @precondition(lambda self: any(slot.open for slot in self.slots.values()))
    @rule(data=st.data(), part=st.integers(0, 100), over=st.integers(0, 50) | st.just(0))
    def end(self, data: st.DataObject, part: int, over: int) -> None:
        """An attempt is over; rarely, the engine billed more than the bound."""
        slot = data.draw(st.sampled_from([slot for slot in self.slots.values() if slot.open]))
        request, hold = slot.open.pop(data.draw(st.integers(0, len(slot.open) - 1)))
        cost = hold.amount * part // 100
        if part == 100 and over:
            cost += over
            for account in hold.accounts:
                self.excess[account] += over
        assert slot.book.finish(hold)
        slot.finished[request] = (hold, cost)
        slot.append(outcome(request, cost=cost, hold=hold.amount, scopes=scope_labels(hold.accounts)))

    @rule(name=st.sampled_from(SLOTS), count=st.integers(1, 6))
    def sync(self, name: str, count: int) -> None:
        """A group of records is on the disk: what the attempts did not use is free again."""
        slot = self.slots[name]
        done = slot.flush(count)
        for record in done:
            if isinstance(record, Outcome):
                slot.book.clear(*slot.finished.pop(record.request))
        for account, amount in spent_by(done).items():
            slot.unsettled[account] = slot.unsettled.get(account, 0) + amount

    @rule(name=st.sampled_from(SLOTS))
    def settle(self, name: str) -> None:
        slot = self.slots[name]
        spent, slot.unsettled = slot.unsettled, {}
        for account, amount in self.store.account(name, len(slot.durable) - 1, spent).items():
            slot.book.forgive(account, amount)

    @rule(name=st.sampled_from(SLOTS), account=st.sampled_from(list(LIMITS)), keep=st.integers(0, 60))
    def trim(self, name: str, account: Account, keep: int) -> None:
        if amount := self.slots[name].book.take(account, keep):
            self.store.give_back(name, account, amount)

    @rule(name=st.sampled_from(SLOTS), written=st.integers(0, 6), repeated=st.booleans())
    def kill(self, name: str, written: int, repeated: bool) -> None:
        """SIGKILL, with some of the queue on the disk that nobody in memory knew of; then a new start."""
        slot = self.slots[name]
        slot.flush(written)
        slot.forget()
        ended = {record.request for record in slot.durable if isinstance(record, Outcome)}
        for record in list(slot.durable):
            if isinstance(record, Decision) and record.request not in ended:
                slot.append(
                    outcome(
                        record.request, cost=record.hold, hold=record.hold, scopes=record.scopes, ending="interrupted"
                    )
                )
        slot.flush(len(slot.queued))
        for _ in range(2 if repeated else 1):  # killed again before the slices were taken back
            accounted = self.store.accounted(name)
            self.store.account(name, len(slot.durable) - 1, spent_by(slot.durable[accounted + 1 :]))
        self.store.release(name)

    # --- what must hold -------------------------------------------------------------------------------------

    @invariant()
    def law_03_settled_and_held_stay_within_the_limit(self) -> None:
        for account, limit in LIMITS.items():
            settled, held = self.store.usage(account)
            assert settled + held <= limit + self.excess[account]

    @invariant()
    def the_store_holds_what_the_workers_have(self) -> None:
        """To the pico-dollar: a difference would be money that nobody can spend, or that two can."""
        for account in LIMITS:
            have = 0
            for slot in self.slots.values():
                share = slot.book._slices.get(account)
                have += (share.free + share.held if share else 0) + slot.unsettled.get(account, 0)
            assert self.store.usage(account)[1] == have

    @invariant()
    def a_crash_now_would_stay_within_the_limit(self) -> None:
        """Everything charged that any next start could charge: open decisions count with their whole hold."""
        for account, limit in LIMITS.items():
            worst = 0
            for slot in self.slots.values():
                records = slot.durable + slot.queued
                costs = {r.request: max(r.cost, r.hold) for r in slot.queued if isinstance(r, Outcome)}
                known = {r.request: r.cost for r in slot.durable if isinstance(r, Outcome)}
                for record in records:
                    if isinstance(record, Decision) and account in labelled(record):
                        worst += known.get(record.request, costs.get(record.request, record.hold))
            assert worst <= limit + self.excess[account]

    @rule()
    def law_03_when_all_is_settled_all_that_is_left_can_be_spent(self) -> None:
        """No hold is leaked, so no refusal is for ever."""
        for slot in self.slots.values():
            while slot.open:
                request, hold = slot.open.pop()
                slot.book.finish(hold)
                slot.finished[request] = (hold, 0)
                slot.append(outcome(request, cost=0, hold=hold.amount, scopes=scope_labels(hold.accounts)))
            self.sync(slot.name, len(slot.queued))
            self.settle(slot.name)
            for account in LIMITS:
                self.trim(slot.name, account, 0)
        for account, limit in LIMITS.items():
            settled, held = self.store.usage(account)
            costs = sum(spent_by(slot.durable).get(account, 0) for slot in self.slots.values())
            assert (settled, held) == (costs, 0)
            left = max(0, limit - settled)
            slot = self.slots["slot-1"]
            hold = self.try_reserve(slot, (account,), left)
            assert hold is not None or left == 0
            if hold is not None:
                assert self.try_reserve(self.slots["slot-2"], (account,), 1) is None
                slot.book.settle(hold, 0)

    @rule()
    def law_04_a_line_an_attempt_and_the_ledger_is_what_was_settled(self) -> None:
        for slot in self.slots.values():
            self.sync(slot.name, len(slot.queued))
            self.settle(slot.name)
        ledger = Ledger(self.directory / "ledger.db")
        ledger._db.execute("PRAGMA synchronous=OFF")
        for slot in self.slots.values():
            ledger.project(f"i/{slot.name}", slot.durable)
        outcomes = [r for slot in self.slots.values() for r in slot.durable if isinstance(r, Outcome)]
        rows = ledger.rows()
        ledger.close()
        assert len(rows) == len(outcomes) == len({record.request for record in outcomes})
        assert sum(row["cost"] for row in self.spend()) == sum(record.cost for record in outcomes)
        assert self.store.usage(MONTH)[0] == sum(record.cost for record in outcomes)  # every chain has it

    def spend(self) -> list[dict[str, Any]]:
        ledger = Ledger(self.directory / "ledger.db")
        rows = ledger.sums(("project",))
        ledger.close()
        return rows


TestLaw03Law04Budgets = Budgets.TestCase
TestLaw03Law04Budgets.settings = settings(stateful_step_count=40)


@given(st.lists(st.integers(0, 30), max_size=12), st.data())
def test_law_04_however_a_log_is_cut_the_projection_is_the_same(costs: list[int], data: st.DataObject) -> None:
    """In any batches, with any of them repeated."""
    records: list[Any] = []
    for number, cost in enumerate(costs):
        records += [decision(str(number)), outcome(str(number), cost=cost)]
    for seq, record in enumerate(records):
        record.seq = seq
    kept, whole = Ledger(Path(":memory:")), Ledger(Path(":memory:"))
    whole.project("o", records)
    end = 0
    while end < len(records):
        start = data.draw(st.integers(0, end))
        end = data.draw(st.integers(end + 1, len(records)))
        kept.project("o", records[start:end])
    assert kept.rows() == whole.rows()
    assert kept.position("o") == whole.position("o") == len(records) - 1
    assert sum(row["cost"] for row in kept.sums(("day",))) == sum(costs)
    kept.close()
    whole.close()


WORKER = """
import json, random, sys
from pathlib import Path
from policies.budgets import Book, Hold, slice_size
from proxy.state.sqlite import SQLiteBudgets

path, slot, limit = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
account, dice, store, book = ("org", "2026-11"), random.Random(slot), SQLiteBudgets(path), Book()
book.add(account, store.grant(slot, account, limit, 100, 1))  # SQLite's lock is not fair: each has a share
print("ready", flush=True)
sys.stdin.readline()  # all start together
total = unsettled = seq = 0
while True:
    amount = dice.randint(1, 9)
    hold = book.reserve((account,), amount)
    if not isinstance(hold, Hold):
        settled, held = store.usage(account)
        assert settled + held <= limit, (settled, held)
        least = amount - book.free(account)
        granted = store.grant(slot, account, limit, slice_size(limit, limit - settled - held, least), least)
        if not granted and book.free(account):
            amount = book.free(account)
        elif not granted and not store.grant(slot, account, limit, 1, 1):
            break
        elif not granted:
            granted, amount = 1, 1
        book.add(account, granted)
        hold = book.reserve((account,), amount)
    if not isinstance(hold, Hold):
        continue
    cost = dice.randint(1, hold.amount)
    book.settle(hold, cost)
    total += cost
    unsettled += cost
    seq += 1
    if seq % 16 == 0:
        store.account(slot, seq, {account: unsettled})
        unsettled = 0
    if seq % 50 == 0:
        store.give_back(slot, account, book.take(account, 0))
store.account(slot, seq, {account: unsettled})
print(json.dumps({"total": total, "free": book.free(account)}))
"""


def test_law_03_four_processes_spend_the_last_pico_dollar_and_no_more(tmp_path: Path) -> None:
    limit = 20_000
    path = tmp_path / "budgets.db"
    watch = SQLiteBudgets(path)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(path), f"slot-{number}", str(limit)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True,
        )
        for number in range(4)
    ]  # fmt: skip
    for worker in workers:
        assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    looks = 0
    while any(worker.poll() is None for worker in workers):
        settled, held = watch.usage(("org", "2026-11"))
        assert settled + held <= limit
        looks += 1
    results = [json.loads(worker.communicate()[0]) for worker in workers]
    assert looks > 0
    assert sum(result["total"] for result in results) == limit
    assert all(result["total"] > 0 and result["free"] == 0 for result in results)
    assert watch.usage(("org", "2026-11")) == (limit, 0)
    watch.close()
