"""Law 3 over chains, slices, windows, crashes and recoveries; law 4 over what is projected from the same logs.

The machine below does what a worker's parts do around `Book` and a real store, one step at a time and in any order:
reserve over a chain, end an attempt, make records durable, settle, give back, let time pass, be killed, recover.
`make_store` makes the store of one machine: other stores are proved by a subclass.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from budget_stores import store_at
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from outcomes import decision, outcome
from redis_server import redis_server

from compliance.records import Decision, Outcome
from policies.budgets import REQUESTS, TOKENS, Account, Amounts, Ask, BudgetStore
from policies.scopes import Budget, Who, chain_of
from policies.slices import Book, Hold, slice_size
from policies.windows import window_at
from proxy.projections.ledger import Ledger
from proxy.state.charges import account_of, charges, scope_labels, spent_by
from proxy.state.sqlite import SQLiteBudgets

ROOT = Path(__file__).resolve().parents[2]
BERLIN = ZoneInfo("Europe/Berlin")
BUDGETS = (
    Budget("org", "month", 3_000),
    Budget("org", "day", 1_500, zone=BERLIN),
    Budget("each organisation", "r86400", 800),
    Budget("team/heart", "day", 700),
    Budget("each team", "day", 500),
    Budget("each key", "hour", 900, TOKENS, everywhere=True, zone=BERLIN),
    Budget("each user", "minute", 4, REQUESTS, everywhere=True),
)
CALLERS = (
    Who(team="heart", key="k1", user="u1"),
    Who(team="heart", key="k2"),
    Who("acme", "heart", key="k3", user="u1"),
    Who(team="eyes", key="k1", user="u1"),
)
SLOTS = ("slot-0", "slot-1", "slot-2")
START = 1_792_875_600.0
"""2026-10-24T21:00Z: the evening before the clocks go back in Berlin."""


def chain_at(who: Who, now: float, local: bool) -> list[tuple[Account, Budget, tuple[Account, ...]]]:
    """(account, budget, earlier buckets) of an attempt."""
    found = []
    for name, budget in chain_of(BUDGETS, who):
        if local and not budget.everywhere:
            continue
        window = window_at(budget.window, now, budget.zone)
        found.append(((name, window.id), budget, tuple([(name, earlier) for earlier in window.earlier])))
    return found


class Slot:
    """One worker: its book, its journal (durable, and queued), what is not settled yet."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.durable: list[Any] = []
        self.accounted = -1  # up to which record the store has settled, as far as the worker knows
        self.forget()

    def forget(self) -> None:
        """What a kill takes away: all that is only in memory."""
        self.book = Book()
        self.queued: list[Any] = []
        self.open: list[tuple[str, Hold]] = []
        self.finished: dict[str, tuple[Hold, Amounts]] = {}

    def append(self, record: Any) -> None:
        record.seq = len(self.durable) + len(self.queued)
        self.queued.append(record)

    def flush(self, count: int) -> list[Any]:
        done, self.queued = self.queued[:count], self.queued[count:]
        self.durable += done
        return done

    def unsettled(self) -> dict[Account, int]:
        return spent_by(self.durable, self.accounted)


def usage(store: BudgetStore, account: Account) -> tuple[int, int]:
    return store.usage([account])[0]


class Budgets(RuleBasedStateMachine):
    make_store: Callable[[Path], BudgetStore]

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.store: BudgetStore = type(self).make_store(self.directory)
        self.slots = {name: Slot(name) for name in SLOTS}
        self.now = START
        self.requests = 0
        self.known: dict[Account, tuple[Budget, tuple[Account, ...]]] = {}
        self.excess: dict[Account, int] = {}  # billed beyond what was held

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.directory)

    # --- what happens ---------------------------------------------------------------------------------------

    @rule(
        name=st.sampled_from(SLOTS), who=st.sampled_from(CALLERS), usd=st.integers(0, 400), tokens=st.integers(0, 300),
        local=st.booleans(), decided=st.booleans(),
    )  # fmt: skip
    def reserve(self, name: str, who: Who, usd: int, tokens: int, local: bool, decided: bool) -> None:
        slot = self.slots[name]
        amounts = (0 if local else usd, tokens, 1)
        if (hold := self.try_reserve(slot, who, amounts, local)) is None:
            return
        if not decided:  # its client left before the decision was recorded: nothing was sent
            slot.book.settle(hold, (0, 0, 0))
            return
        request = f"r{self.requests}"
        self.requests += 1
        slot.append(decision(request, hold=amounts[0], scopes=tuple(scope_labels(hold))))
        slot.open.append((request, hold))

    @rule(
        name=st.sampled_from(SLOTS), who=st.sampled_from(CALLERS), usd=st.integers(100, 400), part=st.sampled_from([0, 50, 100]),
        settled=st.booleans(), repeated=st.booleans(),
    )  # fmt: skip
    def attempt(self, name: str, who: Who, usd: int, part: int, settled: bool, repeated: bool) -> None:
        """A whole one, its records durable: what most of a day is made of."""
        slot = self.slots[name]
        if (hold := self.try_reserve(slot, who, (usd, usd // 2, 1), False)) is None:
            return
        request = f"r{self.requests}"
        self.requests += 1
        slot.append(decision(request, hold=usd, scopes=tuple(scope_labels(hold))))
        self.finish(slot, request, hold, usd * part // 100, usd * part // 200)
        self.sync(name, len(slot.queued))
        if settled:
            self.settle(name, repeated)

    def try_reserve(self, slot: Slot, who: Who, amounts: Amounts, local: bool) -> Hold | None:
        chain = chain_at(who, self.now, local)
        shares = []
        for account, budget, also in chain:
            self.known[account] = (budget, also)
            shares.append(slot.book.slice(account, budget.unit))
        held = slot.book.reserve(shares, amounts)
        if isinstance(held, Hold):
            return held
        asks = []
        for share, (account, budget, also) in zip(shares, chain, strict=True):
            missing = amounts[budget.unit] - share.free
            if missing > 0:
                want = max(missing, slice_size(budget.limit, budget.unit))
                asks.append(Ask(account, budget.limit, want, missing, also))
        for ask, granted in zip(asks, self.store.grant(slot.name, asks), strict=True):
            slot.book.add(ask.account, granted.amount)
        held = slot.book.reserve(shares, amounts)
        return held if isinstance(held, Hold) else None

    @precondition(lambda self: any(slot.open for slot in self.slots.values()))
    @rule(data=st.data(), part=st.integers(0, 100), over=st.integers(0, 50) | st.just(0))
    def end(self, data: st.DataObject, part: int, over: int) -> None:
        """An attempt is over; rarely, the engine billed more than the bound."""
        slot = data.draw(st.sampled_from([slot for slot in self.slots.values() if slot.open]))
        request, hold = slot.open.pop(data.draw(st.integers(0, len(slot.open) - 1)))
        cost, tokens = hold.amounts[0] * part // 100, hold.amounts[1] * part // 100
        if part == 100 and over:
            for share in hold.slices:
                if share.unit != REQUESTS and (share.unit == TOKENS or hold.amounts[0]):
                    self.excess[share.account] = self.excess.get(share.account, 0) + over
            cost, tokens = cost + (over if hold.amounts[0] else 0), tokens + over
        self.finish(slot, request, hold, cost, tokens)

    def finish(self, slot: Slot, request: str, hold: Hold, cost: int, tokens: int) -> None:
        assert slot.book.finish(hold)
        slot.finished[request] = (hold, (cost, tokens, 1))
        labels = tuple(scope_labels(hold))
        slot.append(outcome(request, cost=cost, output=tokens, hold=hold.amounts[0], scopes=labels))

    @rule(name=st.sampled_from(SLOTS), count=st.integers(1, 6))
    def sync(self, name: str, count: int) -> None:
        """A group of records is on the disk: what the attempts did not use is free again."""
        slot = self.slots[name]
        for record in slot.flush(count):
            if isinstance(record, Outcome):
                slot.book.clear(*slot.finished.pop(record.request))

    @rule(name=st.sampled_from(SLOTS), repeated=st.booleans())
    def settle(self, name: str, repeated: bool) -> None:
        """With an answer that was lost, the same is said again."""
        slot = self.slots[name]
        upto, spent = len(slot.durable) - 1, slot.unsettled()
        if upto == slot.accounted:
            return
        unpaid = self.store.account(name, upto, spent)
        if repeated:
            assert self.store.account(name, upto, spent) in ({}, unpaid)
        slot.accounted = upto
        for account, amount in unpaid.items():
            slot.book.add(account, amount)

    @rule(name=st.sampled_from(SLOTS), data=st.data(), keep=st.integers(0, 60))
    def trim(self, name: str, data: st.DataObject, keep: int) -> None:
        book = self.slots[name].book
        if book.slices:
            account = data.draw(st.sampled_from(sorted(book.slices)))
            if amount := book.take(account, keep):
                self.store.give_back(name, {account: amount})

    @rule(seconds=st.sampled_from([20, 60, 1_800, 3_600, 30_000, 86_400]))
    def time_passes(self, seconds: int) -> None:
        """Windows end, also those of a day with 25 hours; slices of the old ones go back where nothing is held."""
        self.now += seconds
        live = {account for who in CALLERS for account, _, _ in chain_at(who, self.now, False)}
        for slot in self.slots.values():
            over = [share for account, share in slot.book.slices.items() if account not in live]
            if back := slot.book.drop(over):
                self.store.give_back(slot.name, back)

    @rule(name=st.sampled_from(SLOTS), written=st.integers(0, 6), repeated=st.booleans())
    def kill(self, name: str, written: int, repeated: bool) -> None:
        """SIGKILL, with some of the queue on the disk that nobody in memory knew of; then a new start."""
        slot = self.slots[name]
        slot.flush(written)
        slot.forget()
        ended = {record.request for record in slot.durable if isinstance(record, Outcome)}
        for record in list(slot.durable):
            if isinstance(record, Decision) and record.request not in ended:
                end = outcome(
                    record.request, cost=record.hold, hold=record.hold, scopes=record.scopes, ending="interrupted"
                )
                slot.append(end)
        slot.flush(len(slot.queued))
        for _ in range(2 if repeated else 1):  # killed again before the slices were taken back
            accounted = self.store.accounted(name)
            self.store.account(name, len(slot.durable) - 1, spent_by(slot.durable, accounted))
        slot.accounted = len(slot.durable) - 1
        self.store.release(name)

    @rule(name=st.sampled_from(SLOTS), written=st.booleans())
    def unsure(self, name: str, written: bool) -> None:
        """A grant or a return whose answer was lost: the store is told what is really here."""
        slot = self.slots[name]
        if slot.book.slices and written:
            account = next(iter(slot.book.slices))
            budget, also = self.known[account]
            self.store.grant(name, [Ask(account, budget.limit, 50, 1, also)])
        owed = dict.fromkeys(self.known, 0) | slot.book.owed()
        for account, amount in slot.unsettled().items():
            owed[account] = owed.get(account, 0) + amount
        for _ in range(2):
            self.store.hold(name, owed)

    # --- what must hold -------------------------------------------------------------------------------------

    @invariant()
    def law_03_settled_and_held_stay_within_the_limit(self) -> None:
        """Over every account, and of rolling windows over their buckets."""
        for account, (budget, also) in self.known.items():
            figures = self.store.usage([account, *also])
            spent = sum(settled + held for settled, held in figures)
            assert spent <= budget.limit + sum(self.excess.get(one, 0) for one in (account, *also)), account

    @invariant()
    def the_store_holds_what_the_workers_have(self) -> None:
        """To the pico-dollar: a difference would be money that nobody can spend, or that two can.

        A slice in debt has nothing; what it could not pay of what is not settled yet is not set aside either.
        """
        have: dict[Account, int] = {}
        for slot in self.slots.values():
            unsettled = slot.unsettled()
            for account in {*slot.book.slices, *unsettled}:
                share = slot.book.slices.get(account)
                owed = (share.free + share.held if share else 0) + unsettled.get(account, 0)
                have[account] = have.get(account, 0) + max(0, owed)
        accounts = list(self.known)
        found = dict(zip(accounts, self.store.usage(accounts), strict=True)) if accounts else {}
        for account in accounts:
            assert found[account][1] == have.get(account, 0), account

    @invariant()
    def a_crash_now_would_stay_within_the_limit(self) -> None:
        """Everything charged that any next start could charge: open decisions count with their whole hold."""
        worst: dict[Account, int] = {}
        for slot in self.slots.values():
            costs = {r.request: r for r in slot.durable if isinstance(r, Outcome)}
            queued = {r.request: r for r in slot.queued if isinstance(r, Outcome)}
            for record in slot.durable + slot.queued:
                if not isinstance(record, Decision):
                    continue
                crashed = outcome(record.request, cost=record.hold, scopes=record.scopes, ending="interrupted")
                most = dict(charges(costs.get(record.request, crashed)))
                if record.request in queued:
                    for account, amount in charges(queued[record.request]):
                        most[account] = max(most[account], amount)
                for account, amount in most.items():
                    worst[account] = worst.get(account, 0) + amount
        for account, amount in worst.items():
            assert amount <= self.known[account][0].limit + self.excess.get(account, 0), account

    @rule()
    def law_03_when_all_is_settled_all_that_is_left_can_be_spent(self) -> None:
        """No hold is leaked, so no refusal is for ever."""
        for slot in self.slots.values():
            while slot.open:
                request, hold = slot.open.pop()
                self.finish(slot, request, hold, 0, 0)
            self.sync(slot.name, len(slot.queued))
            self.settle(slot.name, False)
            for account in list(slot.book.slices):
                self.trim_all(slot, account)
        spent: dict[Account, int] = {}
        for slot in self.slots.values():
            for account, amount in spent_by(slot.durable).items():
                spent[account] = spent.get(account, 0) + amount
        for account, (budget, also) in list(self.known.items()):
            assert usage(self.store, account) == (spent.get(account, 0), 0)
            left = budget.limit - sum(settled for settled, _ in self.store.usage([account, *also]))
            if left <= 0:
                continue
            (whole,) = self.store.grant("slot-1", [Ask(account, budget.limit, left, left, also)])
            assert whole.amount == left
            (more,) = self.store.grant("slot-2", [Ask(account, budget.limit, 1, 1, also)])
            assert more.amount == 0
            self.store.give_back("slot-1", {account: left})

    def trim_all(self, slot: Slot, account: Account) -> None:
        if amount := slot.book.take(account, 0):
            self.store.give_back(slot.name, {account: amount})

    @rule()
    def law_04_a_line_an_attempt_and_the_ledger_is_what_was_settled(self) -> None:
        for slot in self.slots.values():
            self.sync(slot.name, len(slot.queued))
            self.settle(slot.name, False)
        ledger = Ledger(self.directory / "ledger.db")
        ledger._db.execute("PRAGMA synchronous=OFF")
        for slot in self.slots.values():
            ledger.project(f"i/{slot.name}", slot.durable)
        outcomes = [r for slot in self.slots.values() for r in slot.durable if isinstance(r, Outcome)]
        rows = ledger.rows()
        assert len(rows) == len(outcomes) == len({record.request for record in outcomes})
        assert sum(row["cost"] for row in ledger.sums(("project",))) == sum(record.cost for record in outcomes)
        ledger.close()
        months = [account for account in self.known if account[0] == "org" and len(account[1]) == 7]
        settled = sum(usage(self.store, account)[0] for account in months)
        charged = [r for r in outcomes if any(account_of(label) in months for label in r.scopes)]
        assert settled == sum(record.cost for record in charged)
        assert all(record.cost == 0 for record in outcomes if record not in charged)  # local ones cost no money


def sqlite_store(directory: Path) -> BudgetStore:
    store = SQLiteBudgets(directory / "budgets.db")
    store._db.execute("PRAGMA synchronous=OFF")  # the machine does not lose power
    return store


class SQLiteMachine(Budgets):
    make_store = staticmethod(sqlite_store)


TestLaw03Law04Budgets = SQLiteMachine.TestCase
TestLaw03Law04Budgets.settings = settings(stateful_step_count=40)


def test_law_03_04_over_redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.state.redis.expires", lambda window: 4_000_000_000)  # the machine's time is its own
    with redis_server(tmp_path, fsync=None) as server:

        class RedisMachine(Budgets):
            @staticmethod
            def make_store(directory: Path) -> BudgetStore:
                server.command("FLUSHALL")
                return store_at(server.url, *SLOTS)

        run_state_machine_as_test(RedisMachine, settings=settings(stateful_step_count=30))


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
from policies.budgets import Ask
from policies.slices import Book, Hold, slice_size
sys.path.append("tests/support")
from budget_stores import store_at

slot, limit = sys.argv[2], int(sys.argv[3])
dice, store, book = random.Random(slot), store_at(sys.argv[1], slot, patient=True), Book()
accounts = [("org", "2026-11"), ("team/a", "2026-11"), ("key/k#tokens-all", "2026-11-24"), ("user/u", "2026-11-24")]
shares = [book.slice(account) for account in accounts]

def more(want, least):
    asks = [Ask(s.account, limit, max(least - s.free, want), least - s.free) for s in shares if s.free < least]
    got = store.grant(slot, asks)
    for ask, one in zip(asks, got):
        assert one.settled + one.held <= limit, one
        book.add(ask.account, one.amount)
    return all(one.amount for one in got)

assert more(100, 1)  # SQLite's lock is not fair: each has a share
print("ready", flush=True)
sys.stdin.readline()  # all start together
total = unsettled = seq = 0
while True:
    amount = dice.randint(1, 9)
    if not more(slice_size(limit), amount):
        amount = min(share.free for share in shares)
        if amount <= 0 and not more(1, 1):
            break
        amount = max(1, amount)
    hold = book.reserve(shares, (amount, amount, 1))
    if not isinstance(hold, Hold):
        continue
    cost = dice.randint(1, amount)
    book.settle(hold, (cost, cost, 1))
    total += cost
    unsettled += cost
    seq += 1
    if seq % 16 == 0:
        for _ in range(2):  # as after an answer that was lost
            store.account(slot, seq, {account: unsettled for account in accounts})
        unsettled = 0
    if seq % 50 == 0:
        store.give_back(slot, {account: book.take(account, 0) for account in accounts})
store.account(slot, seq + 1, {account: unsettled for account in accounts})
store.give_back(slot, {account: book.take(account, 0) for account in accounts})
print(json.dumps({"total": total}))
"""


ACCOUNTS = [("org", "2026-11"), ("team/a", "2026-11"), ("key/k#tokens-all", "2026-11-24"), ("user/u", "2026-11-24")]


@pytest.fixture(params=["sqlite", "redis"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where a store lies that several processes share."""
    if request.param == "sqlite":
        yield str(tmp_path / "budgets.db")
    else:
        with redis_server(tmp_path) as server:
            yield server.url


def test_law_03_four_processes_spend_the_last_pico_dollar_and_no_more(where: str) -> None:
    limit = 20_000
    watch = store_at(where)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, where, f"slot-{number}", str(limit)],
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
        assert all(settled + held <= limit for settled, held in watch.usage(ACCOUNTS))
        looks += 1
    results = [json.loads(worker.communicate()[0]) for worker in workers]
    assert looks > 0
    assert sum(result["total"] for result in results) == limit
    assert all(result["total"] > 0 for result in results)
    assert watch.usage(ACCOUNTS) == [(limit, 0)] * 4
    watch.close()
