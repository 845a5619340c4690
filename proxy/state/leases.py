"""The thread between a worker and the budget store: it fetches slices ahead of need and settles in batches.

The path only decrements slices in memory.  Where a slice is too small the request waits for this thread once
(an exact grant), which is rare until a budget is nearly spent.  What was spent is settled from the journal's
records, after they are durable: budget counters are a projection of the log, so a crash between two stores
cannot exist.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from compliance.records import Outcome
from policies.budgets import Account, Book, BudgetStore, Hold, Limit, slice_size, window_id, window_kind
from proxy.state.sqlite import StoreFailed

log = logging.getLogger("spillway")

SETTLE_INTERVAL = 0.2  # seconds
TRIM_INTERVAL = 1.0
WAIT_SECONDS = 3.0
"""How long a request may wait for an exact grant before its cloud attempt is given up."""
QUEUE_LIMIT = 10_000

OutcomeId = tuple[str, int]
"""(request, attempt): which outcome's record is meant."""


class BudgetExceeded(Exception):
    """The limit of an account would be passed."""

    def __init__(self, account: Account, limit: int) -> None:
        super().__init__(f"the {account[0]} budget of {account[1]} is spent")
        self.account = account
        self.limit = limit


class BudgetUnavailable(Exception):
    """The store cannot be asked: cloud spending stops, local goes on."""


class Leases:
    """One worker's budgets.  `reserve` and `settle` are for the event loop; the thread is this object's own."""

    def __init__(self, store: BudgetStore, slot: str, limits: Sequence[Limit], loop: asyncio.AbstractEventLoop) -> None:
        self._store = store
        self._slot = slot
        self._limits = {(limit.scope, limit.window): limit.amount for limit in limits}
        self._loop = loop
        self._book = Book()
        self._asking: dict[Account, asyncio.Future[int]] = {}
        self._finished: dict[OutcomeId, tuple[Hold, int]] = {}  # over, but not yet durably recorded; and their cost
        self._tasks: queue.Queue[Callable[[], None] | None] = queue.Queue(QUEUE_LIMIT)
        self._lock = threading.Lock()  # guards the three below
        self._unsettled: dict[Account, int] = {}
        self._returned: dict[Account, int] = {}
        self._upto = -1
        self._thread = threading.Thread(target=self._run, name="budgets", daemon=True)
        self._accounts: tuple[int, tuple[Account, ...]] = (-1, ())
        self._reservations = 0
        self._seen = 0  # of them at the last look for idle slices
        self.overruns = 0  # attempts that cost more than they had reserved
        self.healthy = True  # the store answered when it was last asked

    # --- the path ---------------------------------------------------------------------------------------

    def accounts(self, now: float) -> tuple[Account, ...]:
        """The accounts that a cloud attempt is charged to at this time (seconds since the epoch)."""
        hour = int(now) // 3600
        if self._accounts[0] != hour:
            at = time.gmtime(now)
            windows = (at.tm_year, at.tm_mon, at.tm_mday, at.tm_hour)
            accounts = tuple((scope, window_id(window, windows)) for scope, window in self._limits)
            self._accounts = (hour, accounts)
            for account, free in self._book.drop_settled(frozenset(accounts)):
                self._give_back(account, free)
        return self._accounts[1]

    async def reserve(self, amount: int) -> Hold:
        """A hold of `amount` on every account; raises `BudgetExceeded` or `BudgetUnavailable`."""
        until = self._loop.time() + WAIT_SECONDS
        while True:
            accounts = self.accounts(time.time())  # a new window may begin while a grant is waited for
            held = self._book.reserve(accounts, amount)
            if isinstance(held, Hold):
                self._reservations += 1
                for account in accounts:
                    self._refill(account)
                return held
            if self._loop.time() > until:
                raise BudgetUnavailable("the budget store did not answer in time")
            await self._more(held, amount)

    def settle(self, hold: Hold, actual: int, outcome: OutcomeId | None = None) -> None:
        """The attempt's true cost; idempotent.  `outcome` names the record that is about to say so.

        What the attempt did not use is free again once that record is durable.  Before, a crash would charge
        the whole hold, and another request might have spent the rest.  Without a record (none was decided, so
        nothing was sent) it is free at once.
        """
        if not self._book.finish(hold):
            return
        if actual > hold.amount:
            self.overruns += 1
        if outcome is None:
            self._book.clear(hold, actual)
        else:
            self._finished[outcome] = (hold, actual)

    # --- the store's thread -----------------------------------------------------------------------------

    def recover(self, records: Iterable[Any], last_seq: int) -> None:
        """At the start: settle what the journal has beyond what was settled, then take the old slices back."""
        accounted = self._store.accounted(self._slot)
        spent: dict[Account, int] = {}
        for record in records:
            if record.seq > accounted and isinstance(record, Outcome):
                _add(spent, record)
        self._store.account(self._slot, last_seq, spent)
        self._store.release(self._slot)

    def accounted(self) -> int:
        """The last record of this slot's journal that is settled."""
        return self._store.accounted(self._slot)

    def start(self) -> None:
        self._thread.start()

    def on_durable(self, records: list[Any]) -> None:
        """From the journal's thread: what these records cost will be settled with the next batch."""
        ended: list[OutcomeId] = []
        with self._lock:
            for record in records:
                if isinstance(record, Outcome) and record.scopes:
                    _add(self._unsettled, record)
                    ended.append((record.request, record.attempt))
            self._upto = records[-1].seq
        if ended:
            self._tell(self._clear, ended)

    def close(self) -> None:
        """Settle what is left, give back what is free, end the thread, close the store.  After the journal's end."""
        if self._thread.is_alive():
            self._tasks.put(None)
            self._thread.join(10)
        if not self._thread.is_alive():
            self._store.close()

    def _run(self) -> None:
        now = time.monotonic()
        settle_at, trim_at = now + SETTLE_INTERVAL, now + TRIM_INTERVAL
        while True:
            now = time.monotonic()
            if now >= settle_at:  # also while tasks keep coming
                settle_at = now + SETTLE_INTERVAL
                self._guarded(self._settle_batch)
                if now >= trim_at:
                    trim_at = now + TRIM_INTERVAL
                    self._guarded(self._look_for_idle)
            try:
                task = self._tasks.get(timeout=max(0.0, settle_at - time.monotonic()))
            except queue.Empty:
                continue
            if task is None:
                self._guarded(self._end)
                return
            self._guarded(task)

    def _guarded(self, task: Callable[[], None]) -> None:
        try:
            task()
        except StoreFailed as error:
            self._failed(error)
        else:
            self.healthy = True

    def _failed(self, error: StoreFailed) -> None:
        if self.healthy:  # said once, not five times a second
            log.warning("%s; cloud spending goes on only with what is set aside here", error)
        self.healthy = False

    def _settle_batch(self) -> None:
        """What was spent, and what is given back.  What the store does not take waits for the next batch."""
        with self._lock:
            spent, self._unsettled = self._unsettled, {}
            returned, self._returned = self._returned, {}
            upto = self._upto
        try:
            if spent:
                unpaid = self._store.account(self._slot, upto, spent)
                spent = {}
                if unpaid:
                    self._tell(self._forgive, unpaid)
            for account in list(returned):
                self._store.give_back(self._slot, account, returned[account])
                del returned[account]
        except StoreFailed:
            with self._lock:
                _merge(self._unsettled, spent)
                _merge(self._returned, returned)
            raise

    def _look_for_idle(self) -> None:
        """Near a limit, what lies idle here would refuse the other workers: all but a small part goes back, and
        all of it where nothing was reserved since the last look."""
        idle, self._seen = self._reservations == self._seen, self._reservations
        for account in self._accounts[1]:
            limit = self._limit(account)
            settled, held = self._store.usage(account)
            keep = slice_size(limit, max(0, limit - settled - held), 0)
            if idle and keep < slice_size(limit, limit, 0):
                keep = 0
            if self._book.free(account) > keep:
                self._tell(self._trim, account, keep)

    def _end(self) -> None:
        self._settle_batch()
        if not self._book.held():
            self._store.release(self._slot)  # all is settled, so nothing of the slices is owed
            return
        for account in self._accounts[1]:
            self._trim(account, 0)
        self._settle_batch()

    # --- from the store's thread back to the loop -------------------------------------------------------

    def _tell(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            pass  # the loop is closed: this worker ends, and its slices with it

    def _clear(self, ended: list[OutcomeId]) -> None:
        for outcome in ended:
            if (finished := self._finished.pop(outcome, None)) is not None:
                self._book.clear(*finished)

    def _forgive(self, unpaid: dict[Account, int]) -> None:
        for account, amount in unpaid.items():
            self._book.forgive(account, amount)

    def _trim(self, account: Account, keep: int) -> None:
        if amount := self._book.take(account, keep):
            self._give_back(account, amount)

    def _give_back(self, account: Account, amount: int) -> None:
        with self._lock:
            _merge(self._returned, {account: amount})

    # --- fetching more ----------------------------------------------------------------------------------

    def _limit(self, account: Account) -> int:
        return self._limits[account[0], window_kind(account[1])]

    def _refill(self, account: Account) -> None:
        """Fetch ahead where less than half a usual slice is free."""
        limit = self._limit(account)
        if account not in self._asking and self._book.free(account) < slice_size(limit, limit, 1) // 2:
            self._ask(account, 1)

    async def _more(self, account: Account, amount: int) -> None:
        """Wait for a grant that is on its way, or ask for exactly what is missing; then the caller tries again."""
        limit = self._limit(account)
        if amount > limit:
            raise BudgetExceeded(account, limit)
        asking = self._asking.get(account)
        exact = asking is None
        if asking is None:
            asking = self._ask(account, amount - self._book.free(account))
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                granted = await asyncio.shield(asking)
        except TimeoutError:
            raise BudgetUnavailable("the budget store did not answer in time") from None
        if exact and not granted:
            raise BudgetExceeded(account, limit)

    def _ask(self, account: Account, least: int) -> asyncio.Future[int]:
        asking: asyncio.Future[int] = self._loop.create_future()
        self._asking[account] = asking
        limit = self._limit(account)

        def fetch() -> None:
            try:
                if self._returned:  # taken back here, but not yet free there: it may be just what is missing
                    self._settle_batch()
                settled, held = self._store.usage(account)
                want = slice_size(limit, max(0, limit - settled - held), least)
                granted = self._store.grant(self._slot, account, limit, want, least)
            except StoreFailed as error:
                self._tell(self._granted, account, asking, 0, error)
                raise
            self._tell(self._granted, account, asking, granted, None)

        try:
            self._tasks.put_nowait(fetch)
        except queue.Full:
            self._granted(account, asking, 0, StoreFailed("the budget store is far behind"))
        return asking

    def _granted(
        self, account: Account, asking: asyncio.Future[int], granted: int, failure: StoreFailed | None
    ) -> None:
        self._asking.pop(account, None)
        if granted and account in self._accounts[1]:
            self._book.add(account, granted)
        elif granted:  # its window ended meanwhile
            self._give_back(account, granted)
        if not asking.done():
            if failure is not None:
                asking.set_exception(BudgetUnavailable(str(failure)))
                asking.exception()  # fetched ahead: perhaps nobody waits for it
            else:
                asking.set_result(granted)


def scope_labels(accounts: Iterable[Account]) -> list[str]:
    """Accounts as records name them: scope|window."""
    return [f"{scope}|{window}" for scope, window in accounts]


def _merge(into: dict[Account, int], amounts: Mapping[Account, int]) -> None:
    for account, amount in amounts.items():
        into[account] = into.get(account, 0) + amount


def _add(spent: dict[Account, int], record: Outcome) -> None:
    for label in record.scopes:
        scope, _, window = label.partition("|")
        spent[scope, window] = spent.get((scope, window), 0) + record.cost
