"""The thread between a worker and the budget store, on real files and a real event loop."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from outcomes import outcome

from policies.budgets import REQUESTS, TOKENS, Account, Ask, Granted, StoreFailed, StoreLost, StoreUnsure
from policies.scopes import Budget
from policies.slices import Hold
from policies.windows import LATE, window_at
from proxy.auth import LOCAL_OPEN, Principal
from proxy.state.charges import label_of, scope_labels
from proxy.state.leases import BudgetExceeded, BudgetUnavailable, Leases, Share
from proxy.state.sqlite import SQLiteBudgets

LIMIT = 1_000
ORG = Budget("org", "month", LIMIT)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.state.clerk.SETTLE_INTERVAL", 0.01)
    monkeypatch.setattr("proxy.state.clerk.LOOK_INTERVAL", 0.02)
    monkeypatch.setattr("proxy.state.clerk.RETRY_PAUSE", 0.005)
    monkeypatch.setattr("proxy.state.leases.REFUSED_SECONDS", 0.0)
    monkeypatch.setattr("proxy.state.leases.WAIT_SECONDS", 30.0)


class Slot:
    """A worker's leases, and the journal that they learn from."""

    def __init__(self, store: SQLiteBudgets, path: Path, name: str, budgets: Sequence[Budget], **options: Any) -> None:
        self.store = SQLiteBudgets(path)  # to look into; the thread owns its own
        self.log: list[Any] = []
        self.durable_until = 0
        self.leases = Leases(store, name, budgets, asyncio.get_running_loop(), history=self.history, **options)

    def history(self, start: int) -> list[Any]:
        return [record for record in self.log if record.seq >= start]

    async def reserve(self, amount: int, who: Principal = LOCAL_OPEN, user: str = "", **options: Any) -> Hold:
        return await self.leases.reserve(who, user, (amount, amount, 1), **options)

    def end(self, hold: Hold, cost: int) -> None:
        """An attempt is over: settled, its outcome appended."""
        seq = len(self.log)
        self.leases.settle(hold, (cost, cost, 1), outcome=("r", seq))
        labels = tuple(scope_labels(hold))
        self.log.append(outcome("r", seq, seq=seq, cost=cost, input=cost, hold=hold.amounts[0], scopes=labels))

    async def durable(self) -> None:
        """The journal's thread says that the last record is on the disk."""
        await asyncio.to_thread(self.leases.on_durable, self.log[-1:])

    async def spend(self, amount: int, cost: int, who: Principal = LOCAL_OPEN) -> None:
        hold = await self.reserve(amount, who)
        self.end(hold, cost)
        await self.durable()

    def usage(self, account: Account) -> tuple[int, int]:
        return self.store.usage([account])[0]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Callable[..., Slot]]:
    made: list[Slot] = []

    def slot(name: str = "slot-0", *budgets: Budget, start: bool = True, store: Any = None, **options: Any) -> Slot:
        path = tmp_path / "budgets.db"
        made.append(Slot(store or SQLiteBudgets(path), path, name, list(budgets) or [ORG], **options))
        if start:
            made[-1].leases.start()
        return made[-1]

    yield slot
    for one in made:
        await asyncio.to_thread(one.leases.close)
        one.store.close()


def account(slot: Slot) -> Account:
    return slot.leases.accounts(LOCAL_OPEN)[0]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


async def test_with_a_slice_at_hand_nothing_is_awaited(make: Callable[..., Slot]) -> None:
    slot = make()
    slot.leases.settle(await slot.reserve(5), (0, 0, 0))
    other = sqlite3.connect(slot.store._path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")  # the store answers nobody
    path = slot.reserve(5)
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
    with pytest.raises(BudgetExceeded, match=r"too little is left of the org budget of \d{4}-\d\d$") as refused:
        await slot.reserve(1)
    assert (refused.value.account, refused.value.limit) == (account(slot), LIMIT)
    await until(lambda: slot.usage(account(slot)) == (LIMIT, 0))


async def test_somebody_who_waits_comes_before_settling_and_looking(
    make: Callable[..., Slot], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under load each call of the store takes long: a grant must not queue behind the thread's own errands, or requests
    are given up while money is there."""
    order: list[str] = []

    class Telling(SQLiteBudgets):
        def grant(self, slot: str, asks: Sequence[Ask]) -> list[Granted]:
            order.append("grant")
            return super().grant(slot, asks)

        def overrides(self) -> dict[str, int]:
            order.append("look")
            time.sleep(0.05)
            return super().overrides()

    monkeypatch.setattr("proxy.state.clerk.LOOK_INTERVAL", 0.0)
    monkeypatch.setattr("proxy.state.clerk.SETTLE_INTERVAL", 0.0)
    slot = make(store=Telling(make(start=False).store._path))
    await until(lambda: "look" in order)
    order.clear()
    await asyncio.gather(*[slot.reserve(20) for _ in range(10)])
    assert order.count("look") <= 2 * order.count("grant")


async def test_what_was_taken_back_a_moment_ago_refuses_nobody(make: Callable[..., Slot]) -> None:
    """An idle slice on its way back to the store is free neither here nor there, until somebody asks."""
    slot = make()
    slot.leases.settle(await slot.reserve(500), (0, 0, 0))
    for _ in range(20):
        slot.leases.on_idle([(share, 0) for share in slot.leases.book.slices.values()], ())
        slot.leases.settle(await slot.reserve(LIMIT), (0, 0, 0))


async def test_a_request_larger_than_the_limit_is_refused_at_once(make: Callable[..., Slot]) -> None:
    with pytest.raises(BudgetExceeded):
        await make().reserve(LIMIT + 1)


async def test_law_03_what_was_not_used_is_free_only_when_its_record_is_durable(make: Callable[..., Slot]) -> None:
    """Before, a crash would charge the whole hold: another request must not have spent the rest."""
    slot = make()
    slot.end(await slot.reserve(LIMIT), 10)
    with pytest.raises(BudgetExceeded):
        await slot.reserve(LIMIT - 10)
    await slot.durable()
    slot.leases.settle(await slot.reserve(LIMIT - 10), (0, 0, 0))


async def test_without_a_record_it_is_free_at_once_and_once(make: Callable[..., Slot]) -> None:
    slot = make()
    hold = await slot.reserve(LIMIT)
    slot.leases.settle(hold, (0, 0, 0))
    slot.leases.settle(hold, (0, 0, 0), outcome=("r", 0))
    slot.leases.settle(await slot.reserve(LIMIT), (0, 0, 0))
    with pytest.raises(BudgetExceeded):
        await slot.reserve(LIMIT + 1)


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

    await asyncio.wait_for(everything(), 20)
    await until(lambda: second.usage(account(second)) == (LIMIT, 0))


async def test_law_03_many_at_once_over_two_workers(make: Callable[..., Slot]) -> None:
    slots = [make("slot-0"), make("slot-1")]
    settled_by_us = 0

    async def one(number: int) -> None:
        nonlocal settled_by_us
        slot = slots[number % 2]
        try:
            hold = await slot.reserve(30)
        except BudgetExceeded:
            return
        await asyncio.sleep(0)
        slot.end(hold, number % 31)
        settled_by_us += number % 31
        await asyncio.to_thread(slot.leases.on_durable, [slot.log[-1]])
        settled, held = slot.usage(account(slot))
        assert settled + held <= LIMIT

    tasks = [asyncio.create_task(one(number)) for number in range(120)]
    await asyncio.gather(*tasks)
    assert 0 < settled_by_us <= LIMIT
    await until(lambda: slots[0].usage(account(slots[0]))[0] == settled_by_us)


# --- chains, units and windows -------------------------------------------------------------------------------

CHAIN = [
    Budget("org", "month", 10_000),
    Budget("team/heart", "month", 1_000, at_limit="local_only"),
    Budget("each key", "day", 500, TOKENS, everywhere=True),
    Budget("each user", "minute", 3, REQUESTS, everywhere=True),
]
NURSE = Principal("key_n", "nurse", team="heart")
CLERK = Principal("key_c", "clerk", team="admin")


async def test_law_03_every_scope_of_a_chain_holds(make: Callable[..., Slot]) -> None:
    slot = make("slot-0", *CHAIN)
    names = [name for name, _ in slot.leases.accounts(NURSE, "u1")]
    assert names == ["org", "team/heart", "key/key_n#tokens-all", "user/u1#requests-all"]
    assert [name for name, _ in slot.leases.accounts(CLERK)] == ["org", "key/key_c#tokens-all"]
    assert [name for name, _ in slot.leases.accounts(NURSE, local=True)] == ["key/key_n#tokens-all"]
    slot.end(await slot.reserve(400, NURSE), 400)
    with pytest.raises(BudgetExceeded, match=r"key/key_n#tokens-all budget of \d{4}-\d\d-\d\d$") as refused:
        await slot.reserve(101, NURSE)
    assert (refused.value.budget, refused.value.limit) == (CHAIN[2], 500)
    with pytest.raises(BudgetExceeded, match="key/key_n"):
        await slot.reserve(101, NURSE, local=True)  # local attempts count in tokens, too
    slot.end(await slot.reserve(101, CLERK), 101)  # another key, another team


async def test_law_03_requests_of_a_user_are_counted_once_each(make: Callable[..., Slot]) -> None:
    slot = make("slot-0", *CHAIN)
    for _ in range(2):
        hold = await slot.reserve(1, NURSE, "u1", local=True)
        again = await slot.reserve(1, NURSE, "u1", already=scope_labels(hold))  # the cloud, after it failed
        assert [share.account[0] for share in again.slices] == ["org", "team/heart", "key/key_n#tokens-all"]
        slot.end(hold, 1)
        slot.end(again, 1)
    slot.end(await slot.reserve(1, NURSE, "u1"), 1)
    with pytest.raises(BudgetExceeded) as refused:
        await slot.reserve(1, NURSE, "u1")
    assert refused.value.budget.is_rate
    assert 0 < refused.value.end - time.time() <= 60
    slot.end(await slot.reserve(1, NURSE, "u2"), 1)


async def test_month_and_day_of_one_scope_both_hold(make: Callable[..., Slot]) -> None:
    slot = make("slot-0", ORG, Budget("org", "day", 100))
    await slot.spend(100, 100)
    with pytest.raises(BudgetExceeded) as refused:
        await slot.reserve(1)
    assert refused.value.limit == 100
    month, day = slot.leases.accounts(LOCAL_OPEN)
    await until(lambda: slot.usage(month)[0] == slot.usage(day)[0] == 100)


async def test_a_new_window_starts_afresh_and_the_old_slice_goes_back(
    make: Callable[..., Slot], monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = make("slot-0", Budget("org", "hour", LIMIT))
    (old,) = slot.leases.accounts(LOCAL_OPEN)
    slot.leases.settle(await slot.reserve(LIMIT), (0, 0, 0))
    real = time.time
    monkeypatch.setattr("time.time", lambda: real() + 3600)
    (new,) = slot.leases.accounts(LOCAL_OPEN)
    assert old != new
    await until(lambda: slot.usage(old) == (0, 0))
    await until(lambda: old not in slot.leases.book.slices)
    slot.leases.settle(await slot.reserve(LIMIT), (0, 0, 0))


async def test_the_first_slice_of_the_next_window_is_fetched_ahead(
    make: Callable[..., Slot], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: 1_800_000_059.97)  # a minute is about to end
    slot = make("slot-0", Budget("org", "minute", LIMIT))
    slot.leases.settle(await slot.reserve(5), (0, 0, 0))
    await until(lambda: len(slot.leases.book.slices) == 2)
    following = list(slot.leases.book.slices.values())[1]
    await until(lambda: following.free > 0)


async def test_law_03_a_leaked_hold_ends_with_its_window(
    make: Callable[..., Slot], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attempt whose outcome could never be recorded keeps its money until then, and memory not for longer."""
    slot = make("slot-0", Budget("org", "hour", LIMIT))
    (old,) = slot.leases.accounts(LOCAL_OPEN)
    leaked = await slot.reserve(LIMIT)
    real = time.time
    monkeypatch.setattr("time.time", lambda: real() + 3_600)
    slot.leases.settle(await slot.reserve(LIMIT), (0, 0, 0))
    await asyncio.sleep(0.1)
    assert slot.leases.book.slices[old].held == LIMIT
    monkeypatch.setattr("time.time", lambda: real() + 7_200 + LATE)
    await until(lambda: old not in slot.leases.book.slices)
    slot.leases.settle(leaked, (0, 0, 0))  # too late, and harmless
    slot.leases.settle(await slot.reserve(LIMIT), (0, 0, 0))


async def test_law_10_accounts_that_nobody_uses_are_forgotten(
    make: Callable[..., Slot], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.state.leases.MAX_SLICES", 40)
    monkeypatch.setattr("proxy.state.clerk.QUIET", 1 << 40)
    slot = make("slot-0", Budget("each user", "month", LIMIT))
    for number in range(40):
        slot.leases.settle(await slot.reserve(5, user=f"u{number}"), (0, 0, 0))
    with pytest.raises(BudgetUnavailable, match="more accounts"):
        slot.leases.accounts(LOCAL_OPEN, "one too many")
    monkeypatch.setattr("proxy.state.clerk.QUIET", 3)
    await until(lambda: not slot.leases.book.slices)
    assert slot.store.current([slot.leases.accounts(LOCAL_OPEN, "u1")[0][1]]).get(("user/u1", "x"), (0, 0)) == (0, 0)
    slot.leases.settle(await slot.reserve(LIMIT, user="u1"), (0, 0, 0))


async def test_a_limit_that_is_set_at_run_time_holds_from_the_next_look(make: Callable[..., Slot]) -> None:
    slot = make()
    slot.store.override("org|month", 50)
    await until(
        lambda: all(share.limit == 50 for share in slot.leases.book.slices.values()) and bool(slot.leases._overrides)
    )
    with pytest.raises(BudgetExceeded) as refused:
        await slot.reserve(51)
    assert refused.value.limit == 50
    slot.store.override("org|month", None)
    await until(lambda: not slot.leases._overrides)
    slot.leases.settle(await slot.reserve(51), (0, 0, 0))


# --- alerts --------------------------------------------------------------------------------------------------


async def test_each_threshold_is_told_once_over_all_workers(make: Callable[..., Slot]) -> None:
    told: list[tuple[str, int | None]] = []

    class Tell:
        def __call__(self, share: Share, percent: int | None, settled: int, ahead: int) -> None:
            told.append((share.account[0], percent))

        def close(self) -> None: ...

    budget = Budget("org", "month", LIMIT, soft=(50, 80, 100))
    slots = [make(f"slot-{number}", budget, on_alert=Tell()) for number in range(2)]
    await slots[0].spend(500, 500)
    await until(lambda: told == [("org", 50)])
    await slots[1].spend(300, 300)
    await slots[0].spend(100, 100)
    await until(lambda: sorted(told, key=str) == [("org", 50), ("org", 80)])
    await slots[1].spend(100, 100)
    await until(lambda: ("org", 100) in told)
    await asyncio.sleep(0.1)
    assert len(told) == 3


async def test_a_forecast_past_the_limit_is_told_once(
    make: Callable[..., Slot], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int | None, int, int]] = []

    class Tell:
        def __call__(self, share: Share, percent: int | None, settled: int, ahead: int) -> None:
            told.append((percent, settled, ahead))

        def close(self) -> None: ...

    real, begun = time.time, time.time()
    monkeypatch.setattr("time.time", lambda: 1_793_000_000 // 86_400 * 86_400 + 43_200 + real() - begun)  # noon
    slot = make("slot-0", Budget("org", "day", LIMIT, forecast=True), on_alert=Tell())
    await slot.spend(400, 400)  # 800 at midnight
    await asyncio.sleep(0.1)
    assert told == []
    await slot.spend(200, 200)
    await until(lambda: bool(told))
    await asyncio.sleep(0.1)
    ((percent, settled, ahead),) = told
    assert (percent, settled) == (None, 600)
    assert LIMIT < ahead <= 1_200


async def test_law_03_at_the_limit_no_more_than_a_slice_a_worker_is_unused(make: Callable[..., Slot]) -> None:
    budgets = [
        Budget("org", "month", 10_000),
        Budget("each key", "month", 10_000),
        Budget("org", "day", 10_000, TOKENS),
    ]
    slots = [make(f"slot-{number}", *budgets) for number in range(4)]
    spent = 0

    async def until_refused(slot: Slot) -> None:
        nonlocal spent
        while True:
            try:
                hold = await slot.reserve(7)
            except BudgetExceeded:
                return
            slot.end(hold, 7)
            spent += 7
            await slot.durable()

    await asyncio.gather(*[until_refused(slot) for slot in slots])
    assert 10_000 - 4 * (10_000 // 50) <= spent <= 10_000
    month = account(slots[0])
    await until(lambda: slots[0].usage(month)[0] == spent)


# --- a store that fails --------------------------------------------------------------------------------------


async def test_a_store_that_cannot_be_asked_stops_spending_until_it_can(
    make: Callable[..., Slot], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.state.sqlite.BUSY_SECONDS", 0.02)
    slot = make()
    which = account(slot)
    await slot.spend(10, 10)
    await until(lambda: slot.usage(which)[0] == 10)
    other = sqlite3.connect(slot.store._path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(BudgetUnavailable):
        await slot.reserve(900)
    await slot.spend(5, 5)  # from the slice at hand; its settlement fails
    await until(lambda: not slot.leases.healthy)
    other.execute("ROLLBACK")
    other.close()
    await until(lambda: slot.usage(which)[0] == 15)  # once, and all of it
    await slot.spend(900, 900)
    await until(lambda: slot.usage(which)[0] == 915 and slot.leases.healthy)


class Failing(SQLiteBudgets):
    """A store that fails at the calls named, before it has carried them out or after."""

    before: Collection[str] = ()
    after: Collection[str] = ()
    error: type[StoreFailed] = StoreFailed
    failures = 0

    def _try(self, name: str, *arguments: Any) -> Any:
        if name in self.before:
            self.failures += 1
            raise self.error("no")
        found = getattr(SQLiteBudgets, name)(self, *arguments)
        if name in self.after:
            self.failures += 1
            raise self.error("no answer")
        return found

    def grant(self, slot: str, asks: Sequence[Ask]) -> list[Granted]:
        found: list[Granted] = self._try("grant", slot, asks)
        return found

    def account(self, slot: str, upto: int, spent: Mapping[Account, int]) -> dict[Account, int]:
        found: dict[Account, int] = self._try("account", slot, upto, spent)
        return found

    def give_back(self, slot: str, amounts: Mapping[Account, int]) -> None:
        self._try("give_back", slot, amounts)

    def usage(self, accounts: Sequence[Account]) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = self._try("usage", accounts)
        return found

    def overrides(self) -> dict[str, int]:
        found: dict[str, int] = self._try("overrides")
        return found

    def accounted(self, slot: str) -> int:
        found: int = self._try("accounted", slot)
        return found


ALL = ("grant", "account", "give_back", "usage", "overrides", "accounted")


async def test_what_is_set_aside_here_is_spent_no_more_when_the_store_is_silent_for_long(
    make: Callable[..., Slot], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.state.clerk.LEASE_SECONDS", 0.05)
    slot = make(start=False)
    store = Failing(slot.store._path)
    slot = make(store=store)
    hold = await slot.reserve(500)
    slot.end(hold, 10)
    await slot.durable()
    await until(lambda: slot.usage(account(slot))[0] == 10)
    store.before = ALL
    await until(lambda: slot.leases.book.free(account(slot)) == 0)
    with pytest.raises(BudgetUnavailable):
        await slot.reserve(1)
    store.before = ()
    await until(lambda: slot.leases.healthy)
    await slot.spend(990, 990)
    await until(lambda: slot.usage(account(slot)) == (LIMIT, 0))


async def test_where_the_operator_says_so_the_cloud_goes_on_without_the_store(make: Callable[..., Slot]) -> None:
    store = Failing(make(start=False).store._path)
    slot = make(store=store, go_on=True)
    store.before = ALL
    for _ in range(3):
        await slot.spend(400, 400)
    store.before = ()
    await until(lambda: slot.usage(account(slot)) == (1_200, 0))  # charged in full; the limit was passed knowingly
    with pytest.raises(BudgetExceeded):
        await slot.reserve(1)
    assert slot.leases.book.free(account(slot)) == 0


async def test_local_goes_on_without_the_store_and_is_counted_later(make: Callable[..., Slot]) -> None:
    store = Failing(make(start=False).store._path)
    store.before = ALL
    slot = make("slot-0", Budget("org", "month", LIMIT, TOKENS, everywhere=True), store=store)
    hold = await slot.reserve(70, local=True)
    slot.end(hold, 30)
    await slot.durable()
    with pytest.raises(BudgetUnavailable):
        await slot.reserve(70)
    store.before = ()
    await until(lambda: slot.usage(account(slot))[0] == 30)
    await until(lambda: slot.leases.book.free(account(slot)) >= 0)


@pytest.mark.parametrize("name", ["account", "give_back", "grant"])
@pytest.mark.parametrize(("when", "error"), [("before", StoreFailed), ("before", StoreUnsure), ("after", StoreUnsure)])
async def test_law_03_a_call_that_failed_counts_once_whether_it_was_carried_out_or_not(
    make: Callable[..., Slot], name: str, when: str, error: type[StoreFailed]
) -> None:
    store = Failing(make(start=False).store._path)
    slot = make(store=store)
    which = account(slot)
    await slot.spend(300, 30)
    await until(lambda: slot.usage(which)[0] == 30)
    store.error = error
    setattr(store, when, (name,))
    hold = await slot.reserve(5)
    slot.end(hold, 5)
    await slot.durable()
    if name == "account":  # on a slow machine the settlement may come later than the request
        await until(lambda: store.failures)
    slot.leases.on_idle([(share, 7) for share in slot.leases.book.slices.values()], ())
    try:
        slot.leases.settle(await slot.reserve(400), (0, 0, 0))
    except BudgetUnavailable:
        pass
    else:  # a return that failed before the request came keeps nothing from it
        assert name == "give_back"
    await asyncio.sleep(0.1)
    setattr(store, when, ())
    await until(lambda: slot.leases.healthy and slot.usage(which)[0] == 35)
    slot.leases.on_idle([(share, 0) for share in slot.leases.book.slices.values()], ())
    await until(lambda: slot.usage(which) == (35, 0))
    slot.leases.settle(await slot.reserve(LIMIT - 35), (0, 0, 0))


async def test_law_03_lost_counters_are_restored_from_the_journal(make: Callable[..., Slot]) -> None:
    """As after a new master of Redis that lacks acknowledged writes."""
    store = Failing(make(start=False).store._path)
    slot, other = make(store=store), make("slot-1")
    which = account(slot)
    await slot.spend(300, 120)
    await other.spend(50, 50)
    open_hold = await slot.reserve(100)
    await until(lambda: slot.usage(which)[0] == 170)
    store.error, store.before = StoreLost, ("grant", "overrides")
    with pytest.raises(BudgetUnavailable):
        await slot.reserve(500)
    await slot.spend(10, 7)
    wiped = sqlite3.connect(slot.store._path)
    wiped.execute("DELETE FROM shares WHERE slot = 'slot-0'")
    wiped.commit()
    wiped.close()
    store.before = ()
    await until(lambda: slot.leases.healthy and slot.usage(which)[0] == 120 + 50 + 7)
    settled, held = slot.usage(which)
    assert held >= 100
    with pytest.raises(BudgetExceeded):
        await other.reserve(LIMIT - settled - 99)
    slot.end(open_hold, 100)
    await slot.durable()
    await until(lambda: slot.usage(which)[0] == 277)


async def test_an_overrun_is_charged_in_full_counted_and_leaves_no_debt(make: Callable[..., Slot]) -> None:
    slot = make()
    which = account(slot)
    hold = await slot.reserve(100)
    slot.end(hold, 150)
    await slot.durable()
    assert slot.leases.overruns == 1
    await until(lambda: slot.usage(which)[0] == 150)
    await until(lambda: slot.leases.book.free(which) >= 0)
    await slot.spend(LIMIT - 150, LIMIT - 150)
    await until(lambda: slot.usage(which) == (LIMIT, 0))


# --- start and end -------------------------------------------------------------------------------------------


async def test_law_13_recovery_settles_the_journal_once_and_takes_the_slices_back(make: Callable[..., Slot]) -> None:
    slot = make()
    which = account(slot)
    labels = (label_of(which),)
    await slot.spend(300, 100)
    await until(lambda: slot.usage(which)[0] == 100)
    again = make(start=False)
    again.log = [
        *slot.log,
        outcome("r", 1, seq=1, cost=40, scopes=labels),  # durable, not yet settled when the worker was killed
        outcome("s", 0, seq=2, cost=200, scopes=labels, ending="interrupted"),
        outcome("t", 0, seq=3, cost=0, boundary="local"),
        outcome("u", 0, seq=4, cost=9, scopes=labels),  # written since: not for the recovery
    ]
    slot.store.grant("slot-0", [Ask(which, LIMIT, 100, 100)])  # what the killed worker held
    for _ in range(2):  # a crash between the two steps repeats them
        again.leases.recover(3)
        assert again.usage(which) == (340, 0)
    assert again.leases.accounted() == 3


async def test_law_13_a_start_that_the_store_does_not_take_is_made_up_for(make: Callable[..., Slot]) -> None:
    store = Failing(make(start=False).store._path)
    store.before = ALL
    slot = make(start=False, store=store)
    which = account(slot)
    slot.log = [outcome("r", 0, seq=0, cost=40, scopes=(label_of(which),))]
    slot.leases.recover(0)
    slot.leases.start()
    with pytest.raises(BudgetUnavailable):
        await slot.reserve(1)
    store.before = ()
    await until(lambda: slot.usage(which) == (40, 0))
    await slot.spend(60, 60)
    await until(lambda: slot.usage(which)[0] == 100)


async def test_law_13_tokens_of_an_interrupted_attempt_are_what_it_held(make: Callable[..., Slot]) -> None:
    slot = make("slot-0", *CHAIN, start=False)
    hold = slot.leases.book.force(slot.leases._slices(NURSE, "u1", False, ()), (70, 300, 1))
    labels = tuple(scope_labels(hold))
    slot.log = [outcome("r", 0, seq=0, cost=70, hold=70, scopes=labels, ending="interrupted")]
    slot.leases.recover(0)
    accounts = slot.leases.accounts(NURSE, "u1")
    assert [slot.usage(one)[0] for one in accounts] == [70, 70, 300, 1]


async def test_closing_settles_and_holds_nothing(make: Callable[..., Slot]) -> None:
    slot = make()
    which = account(slot)
    await slot.spend(100, 60)
    await asyncio.to_thread(slot.leases.close)
    assert slot.usage(which) == (60, 0)


async def test_closing_with_an_open_hold_keeps_it_held(make: Callable[..., Slot]) -> None:
    """Its outcome was never recorded: the next start charges it, so the money must still be there."""
    slot = make()
    which = account(slot)
    await slot.spend(100, 60)
    await slot.reserve(70)
    await asyncio.to_thread(slot.leases.close)
    assert slot.usage(which) == (60, 70)


async def test_law_03_a_rolling_window_sees_the_bucket_after_it(
    make: Callable[..., Slot], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker has a slice of the next bucket, fetched ahead or because its clock is ahead: the other is granted the rest only."""
    rolling = Budget("org", "r300000", LIMIT)  # buckets of 10,000 seconds
    ahead, behind = make("slot-0", rolling), make("slot-1", rolling)
    began = window_at("r300000", time.time()).start
    clock = SimpleNamespace(time=lambda: began + 10_001)
    monkeypatch.setattr("proxy.state.leases.time", clock)
    await ahead.reserve(300)
    clock.time = lambda: began + 9_999
    with pytest.raises(BudgetExceeded):
        await behind.reserve(701)
    first = await behind.reserve(700)
    clock.time = lambda: began + 10_001
    with pytest.raises(BudgetExceeded):
        await ahead.reserve(1)
    assert first.open


async def test_what_a_large_hold_leaves_does_not_refuse_other_workers(
    make: Callable[..., Slot], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes back with the next settlement, before anybody looks; until then the other is told that it will not be long."""
    monkeypatch.setattr("proxy.state.clerk.LOOK_INTERVAL", 3_600.0)
    one, other = make("slot-0"), make("slot-1")
    hold = await one.reserve(900)
    with pytest.raises(BudgetExceeded) as refused:
        await other.reserve(800)
    assert refused.value.soon
    one.end(hold, 10)
    await one.durable()
    await until(lambda: sum(one.usage(account(one))) <= 10 + LIMIT // 8)
    await other.reserve(800)
    with pytest.raises(BudgetExceeded) as refused:
        await other.reserve(995)
    assert not refused.value.soon


async def test_a_request_that_could_cost_more_than_all_of_a_budget_is_told_so(make: Callable[..., Slot]) -> None:
    with pytest.raises(BudgetExceeded, match=r"^more than the whole of the org budget of"):
        await make().reserve(LIMIT + 1)
