"""The thread between a worker and the budget store, on real files and a real event loop."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from outcomes import outcome

from policies.budgets import Account, Hold, Limit
from proxy.state.leases import BudgetExceeded, BudgetUnavailable, Leases, scope_labels
from proxy.state.sqlite import SQLiteBudgets, StoreFailed

LIMIT = 1_000


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.state.leases.SETTLE_INTERVAL", 0.01)
    monkeypatch.setattr("proxy.state.leases.TRIM_INTERVAL", 0.02)


class Slot:
    """A worker's leases, and the journal that they learn from."""

    def __init__(self, path: Path, name: str, limits: list[Limit]) -> None:
        self.store = SQLiteBudgets(path)  # to look into; the thread owns its own
        self.leases = Leases(SQLiteBudgets(path), name, limits, asyncio.get_running_loop())
        self.log: list[Any] = []

    def end(self, hold: Hold, cost: int) -> None:
        """An attempt is over: settled, its outcome appended."""
        seq = len(self.log)
        self.leases.settle(hold, cost, outcome=("r", seq))
        self.log.append(outcome("r", seq, seq=seq, cost=cost, hold=hold.amount, scopes=scope_labels(hold.accounts)))

    async def durable(self) -> None:
        """The journal's thread says that the last record is on the disk."""
        await asyncio.to_thread(self.leases.on_durable, self.log[-1:])

    async def spend(self, amount: int, cost: int) -> None:
        hold = await self.leases.reserve(amount)
        self.end(hold, cost)
        await self.durable()


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Callable[..., Slot]]:
    made: list[Slot] = []

    def slot(name: str = "slot-0", *limits: Limit, start: bool = True) -> Slot:
        made.append(Slot(tmp_path / "budgets.db", name, list(limits) or [Limit("org", "month", LIMIT)]))
        if start:
            made[-1].leases.start()
        return made[-1]

    yield slot
    for one in made:
        await asyncio.to_thread(one.leases.close)
        one.store.close()


def account(slot: Slot) -> Account:
    return slot.leases.accounts(time.time())[0]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.002)


async def test_with_a_slice_at_hand_nothing_is_awaited(make: Callable[..., Slot]) -> None:
    slot = make()
    slot.leases.settle(await slot.leases.reserve(5), 0)
    other = sqlite3.connect(slot.store._path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")  # the store answers nobody
    path = slot.leases.reserve(5)
    with pytest.raises(StopIteration) as returned:
        path.send(None)
    assert isinstance(returned.value.value, Hold)
    other.execute("ROLLBACK")
    other.close()


async def test_law_03_the_last_pico_dollar_can_be_spent_and_no_more(make: Callable[..., Slot]) -> None:
    slot = make()
    for _ in range(9):
        await slot.spend(111, 111)
    await slot.spend(1, 1)  # 1,000 of 1,000
    with pytest.raises(BudgetExceeded, match=r"the org budget of \d{4}-\d\d is spent") as refused:
        await slot.leases.reserve(1)
    assert (refused.value.account, refused.value.limit) == (account(slot), LIMIT)
    await until(lambda: slot.store.usage(account(slot)) == (LIMIT, 0))


async def test_what_was_taken_back_a_moment_ago_refuses_nobody(make: Callable[..., Slot]) -> None:
    """An idle slice on its way back to the store is free neither here nor there, until somebody asks."""
    slot = make()
    slot.leases.settle(await slot.leases.reserve(500), 0)
    for _ in range(20):
        slot.leases._trim(account(slot), 0)
        slot.leases.settle(await slot.leases.reserve(LIMIT), 0)


async def test_a_request_larger_than_the_limit_is_refused_at_once(make: Callable[..., Slot]) -> None:
    with pytest.raises(BudgetExceeded):
        await make().leases.reserve(LIMIT + 1)


async def test_law_03_what_was_not_used_is_free_only_when_its_record_is_durable(make: Callable[..., Slot]) -> None:
    """Before, a crash would charge the whole hold: another request must not have spent the rest."""
    slot = make()
    slot.end(await slot.leases.reserve(LIMIT), 10)
    with pytest.raises(BudgetExceeded):
        await slot.leases.reserve(LIMIT - 10)
    await slot.durable()
    slot.leases.settle(await slot.leases.reserve(LIMIT - 10), 0)


async def test_without_a_record_it_is_free_at_once_and_once(make: Callable[..., Slot]) -> None:
    slot = make()
    hold = await slot.leases.reserve(LIMIT)
    slot.leases.settle(hold, 0)
    slot.leases.settle(hold, 0, outcome=("r", 0))
    slot.leases.settle(await slot.leases.reserve(LIMIT), 0)
    with pytest.raises(BudgetExceeded):
        await slot.leases.reserve(LIMIT + 1)


async def test_two_workers_what_lies_idle_at_one_reaches_the_other(make: Callable[..., Slot]) -> None:
    first, second = make("slot-0"), make("slot-1")
    await first.spend(900, 0)  # a slice of 900 lies idle at the first
    left = LIMIT

    async def everything() -> None:
        nonlocal left
        while left:
            try:
                await second.spend(50, 50)
                left -= 50
            except BudgetExceeded:
                await asyncio.sleep(0.002)

    await asyncio.wait_for(everything(), 5)
    await until(lambda: second.store.usage(account(second)) == (LIMIT, 0))


async def test_law_03_many_at_once_over_two_workers(make: Callable[..., Slot]) -> None:
    slots = [make("slot-0"), make("slot-1")]
    settled_by_us = 0

    async def one(number: int) -> None:
        nonlocal settled_by_us
        slot = slots[number % 2]
        try:
            hold = await slot.leases.reserve(30)
        except BudgetExceeded:
            return
        await asyncio.sleep(0)
        slot.end(hold, number % 31)
        settled_by_us += number % 31
        await asyncio.to_thread(slot.leases.on_durable, [slot.log[-1]])
        settled, held = slot.store.usage(account(slot))
        assert settled + held <= LIMIT

    tasks = [asyncio.create_task(one(number)) for number in range(120)]
    await asyncio.gather(*tasks)
    assert 0 < settled_by_us <= LIMIT
    await until(lambda: slots[0].store.usage(account(slots[0]))[0] == settled_by_us)


async def test_month_and_day_of_one_scope_both_hold(make: Callable[..., Slot]) -> None:
    slot = make("slot-0", Limit("org", "month", LIMIT), Limit("org", "day", 100))
    await slot.spend(100, 100)
    with pytest.raises(BudgetExceeded) as refused:
        await slot.leases.reserve(1)
    assert refused.value.limit == 100
    month, day = slot.leases.accounts(time.time())
    await until(lambda: slot.store.usage(month)[0] == slot.store.usage(day)[0] == 100)


async def test_a_new_window_starts_afresh_and_the_old_slice_goes_back(make: Callable[..., Slot]) -> None:
    slot = make("slot-0", Limit("org", "hour", LIMIT))
    (old,) = slot.leases.accounts(time.time())
    slot.leases.settle(await slot.leases.reserve(LIMIT), 0)
    (new,) = slot.leases.accounts(time.time() + 3600)
    assert old != new
    await until(lambda: slot.store.usage(old) == (0, 0))


async def test_a_store_that_cannot_be_asked_stops_spending_until_it_can(
    make: Callable[..., Slot], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.state.sqlite.BUSY_SECONDS", 0.02)
    slot = make()
    which = account(slot)
    await slot.spend(10, 10)
    await until(lambda: slot.store.usage(which)[0] == 10)
    other = sqlite3.connect(slot.store._path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(BudgetUnavailable):
        await slot.leases.reserve(900)
    await slot.spend(10, 10)  # from the slice at hand; its settlement fails
    await until(lambda: not slot.leases.healthy)
    other.execute("ROLLBACK")
    other.close()
    await until(lambda: slot.store.usage(which)[0] == 20)  # once, and all of it
    await slot.spend(900, 900)
    await until(lambda: slot.store.usage(which)[0] == 920 and slot.leases.healthy)


async def test_a_full_queue_refuses_and_forgets_no_hold(
    make: Callable[..., Slot], monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = make()
    which = account(slot)
    slot.leases.settle(await slot.leases.reserve(5), 0)
    await until(lambda: not slot.leases._asking)
    free = slot.leases._book.free(which)

    def full(_: object) -> None:
        raise queue.Full

    with monkeypatch.context() as patch:
        patch.setattr(slot.leases._tasks, "put_nowait", full)
        hold = await slot.leases.reserve(free)  # wants a refill, and cannot have it
        with pytest.raises(BudgetUnavailable):
            await slot.leases.reserve(LIMIT // 2)
    slot.leases.settle(hold, 0)
    slot.leases.settle(await slot.leases.reserve(LIMIT // 2), 0)  # asked again, and answered


async def test_an_overrun_is_charged_in_full_counted_and_leaves_no_debt(make: Callable[..., Slot]) -> None:
    slot = make()
    which = account(slot)
    hold = await slot.leases.reserve(100)
    slot.end(hold, 150)
    await slot.durable()
    assert slot.leases.overruns == 1
    await until(lambda: slot.store.usage(which)[0] == 150)
    await until(lambda: slot.leases._book.free(which) >= 0)
    await slot.spend(LIMIT - 150, LIMIT - 150)
    await until(lambda: slot.store.usage(which) == (LIMIT, 0))


async def test_law_13_recovery_settles_the_journal_once_and_takes_the_slices_back(make: Callable[..., Slot]) -> None:
    slot = make()
    which = account(slot)
    labels = scope_labels([which])
    await slot.spend(300, 100)
    await until(lambda: slot.store.usage(which)[0] == 100)
    log = [
        *slot.log,
        outcome("r", 1, seq=1, cost=40, scopes=labels),  # durable, not yet settled when the worker was killed
        outcome("s", 0, seq=2, cost=200, scopes=labels, ending="interrupted"),
        outcome("t", 0, seq=3, cost=0, boundary="local"),
    ]
    slot.store.grant("slot-0", which, LIMIT, 100, 1)  # what the killed worker held
    again = make(start=False)
    for _ in range(2):  # a crash between the two steps repeats them
        again.leases.recover(log, 3)
        assert again.store.usage(which) == (340, 0)
    assert again.leases.accounted() == 3


async def test_closing_settles_and_holds_nothing(make: Callable[..., Slot]) -> None:
    slot = make()
    which = account(slot)
    await slot.spend(100, 60)
    await asyncio.to_thread(slot.leases.close)
    assert slot.store.usage(which) == (60, 0)


async def test_closing_with_an_open_hold_keeps_it_held(make: Callable[..., Slot]) -> None:
    """Its outcome was never recorded: the next start charges it, so the money must still be there."""
    slot = make()
    which = account(slot)
    await slot.spend(100, 60)
    await slot.leases.reserve(70)
    await asyncio.to_thread(slot.leases.close)
    assert slot.store.usage(which) == (60, 70)


class Refusing(SQLiteBudgets):
    """A store that fails at the calls named."""

    refuses: frozenset[str] = frozenset()

    def account(self, slot: str, upto: int, spent: Mapping[Account, int]) -> dict[Account, int]:
        if "account" in self.refuses:
            raise StoreFailed("no")
        return super().account(slot, upto, spent)

    def give_back(self, slot: str, account: Account, amount: int) -> None:
        if "give_back" in self.refuses:
            raise StoreFailed("no")
        super().give_back(slot, account, amount)


@pytest.mark.parametrize("refuses", ["account", "give_back"])
async def test_law_03_what_the_store_did_not_take_is_settled_later_and_once(tmp_path: Path, refuses: str) -> None:
    store = Refusing(tmp_path / "budgets.db")
    leases = Leases(store, "slot-0", [Limit("org", "month", LIMIT)], asyncio.get_running_loop())
    (which,) = leases.accounts(time.time())
    leases._book.add(which, store.grant("slot-0", which, LIMIT, 100, 1))
    hold = leases._book.reserve((which,), 40)
    assert isinstance(hold, Hold)
    leases.settle(hold, 30, outcome=("r", 0))
    leases.on_durable([outcome("r", seq=0, cost=30, hold=40, scopes=scope_labels([which]))])
    await asyncio.sleep(0)
    leases._trim(which, 0)
    store.refuses = frozenset({refuses})
    for _ in range(2):
        with pytest.raises(StoreFailed):
            leases._settle_batch()
    store.refuses = frozenset()
    leases._settle_batch()
    leases._settle_batch()
    assert store.usage(which) == (30, 0)
    store.close()


async def test_law_03_what_was_given_back_is_not_given_back_again(tmp_path: Path) -> None:
    """The store takes the month's amount and fails at the day's: only that one is left for the next time."""
    store = Refusing(tmp_path / "budgets.db")
    limits = [Limit("org", "month", LIMIT), Limit("org", "day", LIMIT)]
    leases = Leases(store, "slot-0", limits, asyncio.get_running_loop())
    accounts = leases.accounts(time.time())
    for which in accounts:
        leases._book.add(which, store.grant("slot-0", which, LIMIT, 100, 1))
        leases._book.take(which, 60)
        leases._give_back(which, 40)
    first = store.give_back

    def once(slot: str, account: Account, amount: int) -> None:
        first(slot, account, amount)
        store.refuses = frozenset({"give_back"})

    store.give_back = once  # type: ignore[method-assign]
    with pytest.raises(StoreFailed):
        leases._settle_batch()
    del store.give_back
    store.refuses = frozenset()
    leases._settle_batch()
    assert [store.usage(which) for which in accounts] == [(0, 60), (0, 60)]
    store.close()
