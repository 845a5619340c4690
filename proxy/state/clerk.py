"""The thread between a worker and the budget store: it fetches slices, settles in batches, and watches limits.

What it has to say to the event loop it calls there (`Leases.on_...`).  Of the worker's slices it only reads; a figure
that is a moment old does no harm, because the store decides.
"""

from __future__ import annotations

import concurrent.futures
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from policies.budgets import SHRINK, Account, Ask, BudgetStore, StoreFailed, StoreLost, StoreUnsure
from policies.slices import slice_size
from policies.thresholds import crossed, forecast
from policies.windows import LATE, expires
from proxy.state.charges import add, spent_by

if TYPE_CHECKING:
    from proxy.state.leases import Leases, OutcomeId, Share

log = logging.getLogger("spillway")

SETTLE_INTERVAL = 0.2  # seconds
LOOK_INTERVAL = 1.0
PURGE_INTERVAL = 3600.0
RETRY_PAUSE = 0.05
"""After a failed call, so that a store that refuses at once is not asked without a pause."""
LOOKED_AT = 256
"""Accounts that are looked at in one interval; of more, the others in the next."""
QUIET = 10
"""Looks without a reservation after which an account is forgotten until somebody asks again."""
LOOP_SECONDS = 5.0
LEASE_SECONDS = 5.0
"""A worker that the store has not answered for so long spends nothing more of what was set aside for it."""
SAY_AGAIN = 60.0
"""Seconds after which a warning is given again."""
LOOKS_AT_OWED = 5
MAX_TOLD = 100_000


class OnAlert(Protocol):
    """Who is told of thresholds."""

    def __call__(self, share: Share, percent: int | None, settled: int, ahead: int) -> None:
        """Percent of the limit that was reached, or None for a forecast; what is settled and forecast.  Once over all
        workers; it must not wait."""
        ...

    def close(self) -> None: ...


class Clerk:
    """One worker's way to the store.  `ask`, `give_back` and `spent` may be called from any thread."""

    def __init__(
        self,
        store: BudgetStore,
        slot: str,
        leases: Leases,
        history: Callable[[int], Iterable[Any]] | None,
        on_alert: OnAlert | None,
    ) -> None:
        self._store = store
        self._slot = slot
        self._leases = leases
        self._history = history
        self._on_alert = on_alert
        self._thread = threading.Thread(target=self._run, name="budgets", daemon=True)
        self._condition = threading.Condition()  # guards the six below
        self._asks: list[tuple[Share, Ask]] = []
        self._unsettled: dict[Account, int] = {}
        self._returned: dict[Account, int] = {}
        self._upto = -1
        self._version = 0  # of the two sums
        self._closing = False
        self._batch: tuple[int, dict[Account, int]] | None = None  # on its way: repeated as it is until it is answered
        self._settled = -1  # the last record that was settled
        self._unrecovered: int | None = None  # a start that the store did not take: up to which record
        self._unsure = False
        self._doubtful: set[Account] = (
            set()
        )  # that were perhaps granted or given back; their slices may be forgotten here
        self._lost = False
        self._failing_since = 0.0
        self._overrides: dict[str, int] = {}
        self._next = 0  # where the next look begins
        self._told: dict[str, float] = {}  # alerts that some worker has taken, and until when that holds
        self.healthy = True  # the store answered when it was last asked
        self._said = ("", 0.0)  # the last warning, and when
        self._unsaid = False  # whether its end is still to be said

    # --- from the loop and the journal ------------------------------------------------------------------

    def ask(self, share: Share, ask: Ask) -> None:
        """Answered by `Leases.on_granted` or `on_refused`."""
        with self._condition:
            self._asks.append((share, ask))
            self._condition.notify()

    def give_back(self, amounts: Mapping[Account, int]) -> None:
        """With the next settlement, or before the next grant."""
        with self._condition:
            add(self._returned, amounts)
            self._version += 1

    def spent(self, amounts: Mapping[Account, int], upto: int, ended: Sequence[OutcomeId]) -> None:
        """Durable records up to `upto` say so."""
        with self._condition:
            add(self._unsettled, amounts)
            self._upto = upto
            self._version += 1
            if ended:  # told before the lock is free: whoever sees this version comes after it on the loop
                self._tell(self._leases.on_ended, ended)

    # --- beginning and end ------------------------------------------------------------------------------

    def recover(self, last_seq: int) -> None:
        """At a start: settle what the journal has beyond what was settled, then take the old slices back.

        Where the store cannot be asked, that is done before anything else is asked of it: local traffic goes on.
        """
        self._upto = last_seq
        self._unrecovered = last_seq
        self._guarded(lambda: True)

    def _recover(self, last_seq: int) -> None:
        assert self._history is not None
        accounted = self._store.accounted(self._slot)
        records = (record for record in self._history(accounted + 1) if record.seq <= last_seq)
        self._store.account(self._slot, last_seq, spent_by(records, accounted))
        self._store.release(self._slot)
        self._settled = max(last_seq, accounted)
        self._unrecovered = None

    def accounted(self) -> int:
        return self._store.accounted(self._slot)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Settle what is left, give back what is free; then the thread ends and the store is closed."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        if self._thread.is_alive():
            self._thread.join(10)
        if not self._thread.is_alive():
            self._store.close()
        if self._on_alert is not None:
            self._on_alert.close()

    # --- the thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        now = time.monotonic()
        settle_at, look_at, purge_at = now + SETTLE_INTERVAL, now + LOOK_INTERVAL, now + PURGE_INTERVAL
        while True:
            with self._condition:
                if not self._asks and not self._closing:
                    self._condition.wait(max(0.0, settle_at - time.monotonic()))
                asks, self._asks = self._asks, []
                closing = self._closing
            if asks:  # somebody waits: before all else
                self._fetch(asks)
            now = time.monotonic()
            if now >= settle_at and not closing:  # also while asks keep coming
                settle_at = now + SETTLE_INTERVAL
                self._guarded(self._settle)
            if now >= look_at and not closing:
                look_at = now + LOOK_INTERVAL
                self._guarded(self._look)
            if now >= purge_at and not closing:
                purge_at = now + PURGE_INTERVAL
                self._guarded(self._purge)
            if closing and not asks:
                self._guarded(self._end)
                return

    def _guarded(self, task: Callable[[], bool]) -> StoreFailed | None:
        """Do what may ask the store, and says whether it did; what came in between, or None."""
        try:
            if self._unrecovered is not None:
                self._recover(self._unrecovered)
            if self._lost:
                self._restore()
            if self._unsure:
                self._reconcile()
            asked = task()
        except StoreFailed as error:
            self._lost = self._lost or isinstance(error, StoreLost)
            self._unsure = self._unsure or isinstance(error, StoreUnsure)
            self._failed(error)
            return error
        if asked and not self.healthy and self._unsaid:
            log.warning("the budget store answers again")
            self._unsaid = False
        self.healthy = self.healthy or asked
        return None

    def _failed(self, error: StoreFailed) -> None:
        now = time.monotonic()
        if self.healthy:
            self._failing_since = now
            if self._said[0] != str(error) or now - self._said[1] > SAY_AGAIN:  # some calls may work, and others not
                log.warning("%s; cloud spending ends with what is set aside here, or after %d s", error, LEASE_SECONDS)
                self._said, self._unsaid = (str(error), now), True
        elif now - self._failing_since > LEASE_SECONDS:
            self._tell(self._leases.on_cut_off)
        self.healthy = False

    def _fetch(self, asks: Sequence[tuple[Share, Ask]]) -> None:
        """All that was asked for since, in one call."""
        found: list[Any] = []

        def fetch() -> bool:
            if self._returned:  # taken back here, but not yet free there: it may be just what is missing
                self._settle()
            try:
                found.extend(self._store.grant(self._slot, [ask for _, ask in asks]))
            except StoreUnsure:
                self._doubtful.update([ask.account for _, ask in asks])
                raise
            return True

        failure = self._guarded(fetch)
        shares = [share for share, _ in asks]
        if failure is None:
            self._tell(self._leases.on_granted, list(zip(shares, found, strict=True)))
        else:
            self._tell(self._leases.on_refused, shares, str(failure))
            time.sleep(RETRY_PAUSE)

    def _settle(self) -> bool:
        """What was spent, and what is given back.  A batch that the store did not answer is sent again as it was."""
        asked = self._settle_spent()
        with self._condition:
            returned, self._returned = self._returned, {}
        if not returned:
            return asked
        try:
            self._store.give_back(self._slot, returned)
        except StoreUnsure:
            self._doubtful.update(returned)  # `hold` will say what is left
            raise
        except StoreFailed:
            self.give_back(returned)
            raise
        return True

    def _settle_spent(self) -> bool:
        with self._condition:
            if self._batch is None and self._unsettled:
                self._batch = (self._upto, self._unsettled)
                self._unsettled = {}
        if self._batch is None:
            return False
        unpaid = self._store.account(self._slot, *self._batch)
        self._settled, self._batch = self._batch[0], None
        if unpaid:
            self._tell(self._leases.on_unpaid, unpaid)
        return True

    def _purge(self) -> bool:
        self._store.purge(int(time.time()))
        return True

    def _end(self) -> bool:
        while self._settle_spent():  # a batch that was under way, and what came since
            pass
        owed = self._on_loop(self._leases.book.owed)
        if owed is not None and not self._leases.book.held():
            self._store.release(self._slot)  # all is settled, so nothing of the slices is owed
        else:  # what is still held will be charged at the next start
            self._settle()
            free = {share.account: share.free for share in self._leases.book.slices.values() if share.free > 0}
            self._store.give_back(self._slot, free)
        return True

    # --- after failures ---------------------------------------------------------------------------------

    def _reconcile(self) -> None:
        """A grant or a return may have been carried out or not: the store is told what is really here."""
        owed = self._owed()
        if owed is not None:
            self._store.hold(self._slot, {**dict.fromkeys(self._doubtful, 0), **owed})
            self._doubtful.clear()
            self._unsure = False

    def _owed(self) -> dict[Account, int] | None:
        """All that the store must have set aside for this worker now.

        Where something became durable or was given back meanwhile it would be counted twice, so it is looked at again;
        in the end too much does no harm, since `hold` never raises a figure.
        """
        owed: dict[Account, int] = {}
        for _ in range(LOOKS_AT_OWED):
            version = self._version
            found = self._on_loop(self._leases.book.owed)
            if found is None:
                return None
            owed = found
            with self._condition:
                add(owed, self._unsettled)
                add(owed, self._returned)
                if version == self._version:
                    break
        if self._batch is not None:
            add(owed, self._batch[1])
        return owed

    def _forget_returned(self) -> dict[Account, int]:
        """On the loop, where slices are given back: what is owed without what was given back and is not yet told."""
        with self._condition:
            self._returned = {}
        return self._leases.book.owed()

    def _restore(self) -> None:
        """The counters may lack what was acknowledged: this slot's part of them, from its journal."""
        if self._history is None:
            raise StoreLost("the budget store has lost its counters, and there is no journal to restore them from")
        with self._condition:
            upto = max(self._upto, self._settled)
            self._unsettled = {}  # all of it is in what is read now
        self._batch = None
        owed = self._on_loop(self._forget_returned)
        if owed is None:
            raise StoreFailed("the event loop did not answer")
        now = time.time()
        spent = spent_by(record for record in self._history(0) if record.seq <= upto)
        live = {account: amount for account, amount in spent.items() if expires(account[1]) > now}
        self._store.restore(self._slot, upto, live, {account: amount for account, amount in owed.items() if amount})
        self._settled = upto
        self._lost = self._unsure = False

    # --- looking ----------------------------------------------------------------------------------------

    def _look(self) -> bool:
        """Near a limit, what lies idle here would refuse other workers; thresholds; windows that are about to begin."""
        overrides = self._store.overrides()
        if overrides != self._overrides:
            self._overrides = overrides
            self._tell(self._leases.on_overrides, overrides)
        now = time.time()
        shares: list[Any] = list(self._leases.book.slices.values())
        over, coming, watched = [], [], []
        for share in shares:
            share.quiet = share.quiet + 1 if share.used == share.seen else 0
            share.seen = share.used
            if share.end <= now or (share.quiet >= QUIET and not share.free):
                if share.end + LATE <= now or _unused(share):
                    over.append(share)
                continue
            watched.append(share)
            if not share.quiet and share.end - now < 2.5 * LOOK_INTERVAL:
                coming.append(share)
        keep, gone = self._compared(self._chosen(watched), now)
        if keep or gone or over:
            self._tell(self._leases.on_idle, keep, gone + over)
        if coming:
            self._tell(self._leases.on_window, coming)
        return True

    def _chosen(self, watched: Sequence[Share]) -> list[Share]:
        """As many as are looked at in one interval, in turn."""
        start = self._next % len(watched) if watched else 0
        chosen: list[Share] = []
        accounts = 0
        for share in (*watched[start:], *watched[:start]):
            accounts += 1 + len(share.also)
            if accounts > LOOKED_AT and chosen:
                break
            chosen.append(share)
        self._next = start + len(chosen)
        return chosen

    def _compared(self, shares: Sequence[Share], now: float) -> tuple[list[tuple[Share, int]], list[Share]]:
        """(what may be kept of each that has too much, which are to be forgotten)."""
        keep, gone = [], []
        accounts = [account for share in shares for account in (share.account, *share.also)]
        figures = iter(self._store.usage(accounts)) if accounts else iter(())
        for share in shares:
            settled, held = next(figures)
            for _ in share.also:
                more = next(figures)
                settled, held = settled + more[0], held + more[1]
            full = slice_size(share.limit, share.unit)
            may = min(full, max(0, share.limit - settled - held) // SHRINK)
            kept = 0 if share.quiet and may < full else may
            if share.quiet >= QUIET and _unused(share):
                gone.append(share)
            elif share.free > kept:
                keep.append((share, kept))
            if self._on_alert is not None and (share.budget.soft or share.budget.forecast):
                self._alert(share, settled, now)
        return keep, gone

    def _alert(self, share: Share, settled: int, now: float) -> None:
        """Each threshold once a window, over all workers: whoever claims it first tells."""
        assert self._on_alert is not None
        budget = share.budget
        ahead = forecast(settled, share.start, share.end, now) if not share.also else None
        reached: list[int | None] = [*crossed(settled, share.limit, budget.soft)]
        if budget.forecast and ahead is not None and ahead > share.limit > settled:
            reached.append(None)
        rolling = bool(share.also)
        for percent in reached:
            word = "forecast" if percent is None else str(percent)
            what = f"{share.account[0]}|{budget.window if rolling else share.account[1]}|{share.limit}|{word}"
            if self._told.get(what, 0.0) > now:
                continue
            length = (share.end - share.start) * len(share.also)
            until = int(now + length) if rolling else expires(share.account[1])  # what rolls may be reached again
            if self._store.claim(what, until):
                self._on_alert(share, percent, settled, ahead or 0)
            if len(self._told) >= MAX_TOLD:
                self._told.clear()  # the store still knows
            self._told[what] = until

    # --- back to the loop -------------------------------------------------------------------------------

    def _tell(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            self._leases.loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            pass  # the loop is closed: this worker ends, and its slices with it

    def _on_loop(self, function: Callable[[], Any]) -> Any | None:
        """What a function says on the loop, after all that was told before; None: the loop does not answer."""
        answer: concurrent.futures.Future[Any] = concurrent.futures.Future()

        def run() -> None:
            if not answer.cancelled():
                answer.set_result(function())

        self._tell(run)
        try:
            return answer.result(LOOP_SECONDS)
        except (TimeoutError, concurrent.futures.TimeoutError):
            return None


def _unused(share: Share) -> bool:
    """Nothing is held, asked for or owed."""
    return not share.held and share.asking is None and share.free >= 0
