"""A worker's budgets, on its event loop: reservations out of slices in memory, and their settlement.

The path only decrements slices in memory.  Where a slice is too small the request waits for the store's thread
(`clerk`) once, for an exact grant, which is rare until a budget is nearly spent.  What was spent is settled from the
journal's records, after they are durable: budget counters are a projection of the log, so a crash between two stores
cannot exist.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from compliance.records import Outcome
from policies.budgets import REQUESTS, SHRINK, Account, Amounts, Ask, BudgetStore, Granted
from policies.scopes import Budget, Who, chain_of, key_of
from policies.slices import Book, Hold, Slice, slice_size
from policies.windows import LATE, Window, window_at
from proxy.auth import Principal
from proxy.state.charges import add, spent_by
from proxy.state.clerk import Clerk, OnAlert

WAIT_SECONDS = 5.0
"""How long a request may wait for a grant before its attempt is given up."""
REFUSED_SECONDS = 0.02
"""How long a refusal stands: of a flood past a limit the store is asked once in that time."""
MAX_CHAINS = 20_000
"""Callers whose accounts are kept at hand; past it they are all looked up anew."""
MAX_SLICES = 100_000
"""Accounts of one worker; a caller past it waits until idle ones are given back (law 10)."""

OutcomeId = tuple[str, int]
"""(request, attempt): which outcome's record is meant."""


class Share(Slice):
    """A slice with the budget that it belongs to.  `seen` and `quiet` are the clerk's."""

    __slots__ = (
        "also",
        "budget",
        "end",
        "limit",
        "most",
        "quiet",
        "refused",
        "refused_until",
        "seen",
        "settled",
        "start",
    )

    def __init__(self, account: Account, budget: Budget, window: Window, limit: int) -> None:
        super().__init__(account, budget.unit)
        self.budget = budget
        self.bound(limit)
        self.settled = 0  # over all workers, when a grant was last asked for
        self.start = window.start
        self.end = window.end
        self.also = tuple([(account[0], beside) for beside in (*window.earlier, *window.following)])
        self.refused = 0  # what was missing and not granted
        self.refused_until = 0.0  # the loop's clock
        self.seen = 0
        self.quiet = 0

    def bound(self, limit: int) -> None:
        """Its limit, and with it how much may lie idle here: what one large hold leaves would refuse other workers."""
        self.limit = limit
        self.most = max(slice_size(limit, self.unit), limit // SHRINK)


class Asking:
    """A grant that is on its way: how much at least, and who waits for it."""

    __slots__ = ("answer", "least")

    def __init__(self, answer: asyncio.Future[int], least: int) -> None:
        self.answer = answer
        self.least = least


class _Chain:
    """The slices that one caller's attempts are charged to, until the first of their windows ends."""

    __slots__ = ("principal", "slices", "until")

    def __init__(self, principal: Principal, slices: tuple[Share, ...], until: float) -> None:
        self.principal = principal
        self.slices = slices
        self.until = until


class BudgetExceeded(Exception):
    """The limit of an account would be passed."""

    def __init__(self, share: Share, left: int | None, amount: int) -> None:
        which = f"the {share.account[0]} budget of {share.account[1]}"
        lacks = f"more than the whole of {which}" if left is None else f"too little is left of {which}"
        super().__init__(lacks)
        self.amount = amount
        self.soon = amount <= share.limit - share.settled  # what others hold is enough: it may be free in a moment
        self.account = share.account
        self.limit = share.limit
        self.budget = share.budget
        self.end = share.end
        self.left = left  # as far as it is known


class BudgetUnavailable(Exception):
    """The store cannot be asked: cloud spending stops, local goes on."""


class Leases:
    """One worker's budgets.  `reserve` and `settle` are for the event loop.

    `history(start)` gives the journal's durable records from a sequence on: what counters are restored from.
    `go_on`: where the store cannot be asked, cloud attempts go on, and what they cost is settled later.
    """

    def __init__(
        self,
        store: BudgetStore,
        slot: str,
        budgets: Sequence[Budget],
        loop: asyncio.AbstractEventLoop,
        *,
        history: Callable[[int], Iterable[Any]] | None = None,
        go_on: bool = False,
        on_alert: OnAlert | None = None,
    ) -> None:
        self._budgets = tuple(budgets)
        self._loop = loop
        self._go_on = go_on
        self._book = Book()
        self._chains: dict[tuple[str, str, bool], _Chain] = {}
        self._overrides: Mapping[str, int] = {}
        self._finished: dict[OutcomeId, tuple[Hold, Amounts]] = {}  # over, not yet durably recorded; and their cost
        self._clerk = Clerk(store, slot, self, history, on_alert)
        self.counts_local = any([budget.everywhere for budget in budgets])
        self.overruns = 0  # attempts that cost more than they had reserved

    @property
    def healthy(self) -> bool:
        """The store answered when it was last asked."""
        return self._clerk.healthy

    # --- the path ---------------------------------------------------------------------------------------

    async def reserve(
        self, principal: Principal, user: str, amounts: Amounts, *, local: bool = False, already: Collection[str] = ()
    ) -> Hold:
        """A hold on every account of the caller; raises `BudgetExceeded` or `BudgetUnavailable`.

        A local attempt is charged only where a budget counts those, too.  `already` are the labels of what earlier
        attempts of the same request were charged to: it is one request.
        """
        slices = self._slices(principal, user, local, already)
        held = self._book.reserve(slices, amounts)
        if type(held) is Hold:
            for share in slices:
                if share.free < share.low and share.asking is None:
                    self._ask(share, 1, amounts[share.unit])
            return held
        try:
            return await self._wait(principal, user, local, already, amounts)
        except BudgetUnavailable:
            if not local and not self._go_on:
                raise
            return self._book.force(self._slices(principal, user, local, already), amounts)

    def settle(self, hold: Hold, actual: Amounts, outcome: OutcomeId | None = None) -> None:
        """The attempt's true cost; idempotent.  `outcome` names the record that is about to say so.

        What the attempt did not use is free again once that record is durable.  Before, a crash would charge
        the whole hold, and another request might have spent the rest.  Without a record (none was decided, so
        nothing was sent) it is free at once.
        """
        if not self._book.finish(hold):
            return
        if actual[0] > hold.amounts[0] or actual[1] > hold.amounts[1]:
            self.overruns += 1
        if outcome is None:
            self._book.clear(hold, actual)
        else:
            self._finished[outcome] = (hold, actual)

    def accounts(self, principal: Principal, user: str = "", *, local: bool = False) -> tuple[Account, ...]:
        """The accounts that an attempt of this caller is charged to now."""
        return tuple([share.account for share in self._slices(principal, user, local, ())])

    def _slices(self, principal: Principal, user: str, local: bool, already: Collection[str]) -> Sequence[Share]:
        now = time.time()
        chain = self._chains.get((principal.key, user, local))
        if chain is None or now >= chain.until or chain.principal is not principal:
            chain = self._chain(principal, user, local, now)
        if not already:
            return chain.slices
        return [share for share in chain.slices if share.unit != REQUESTS or share.label not in already]

    def _chain(self, principal: Principal, user: str, local: bool, now: float) -> _Chain:
        who = Who(
            principal.organisation, principal.team, principal.project, principal.key, user, key_name=principal.name
        )
        slices, until = [], float("inf")
        for name, budget in chain_of(self._budgets, who):
            if local and not budget.everywhere:
                continue
            window = window_at(budget.window, now, budget.zone)
            slices.append(self._share(name, budget, window))
            until = min(until, window.end)
        if len(self._chains) >= MAX_CHAINS:
            self._chains.clear()
        chain = self._chains[principal.key, user, local] = _Chain(principal, tuple(slices), until)
        return chain

    def _share(self, name: str, budget: Budget, window: Window) -> Share:
        account = (name, window.id)
        share = self._book.slices.get(account)
        if share is None:
            if len(self._book.slices) >= MAX_SLICES:
                raise BudgetUnavailable("there are more accounts than one worker keeps")
            limit = self._overrides.get(key_of(account), budget.limit)
            share = self._book.slices[account] = Share(account, budget, window, limit)
        assert isinstance(share, Share)
        return share

    # --- fetching more ----------------------------------------------------------------------------------

    async def _wait(
        self, principal: Principal, user: str, local: bool, already: Collection[str], amounts: Amounts
    ) -> Hold:
        until = self._loop.time() + WAIT_SECONDS
        while True:
            slices = self._slices(principal, user, local, already)  # a new window may begin while a grant is waited for
            held = self._book.reserve(slices, amounts)
            if type(held) is Hold:
                return held
            if self._loop.time() >= until:
                raise BudgetUnavailable("the budget store did not answer in time")
            await self._more(slices, amounts, until)

    async def _more(self, slices: Sequence[Share], amounts: Amounts, until: float) -> None:
        """Wait for grants that are on their way, or ask for exactly what is missing; then the caller tries again."""
        waits = []
        for share in slices:
            amount = amounts[share.unit]
            if share.free >= amount:
                continue
            missing = amount - share.free
            if amount > share.limit:
                raise BudgetExceeded(share, None, amount)
            if missing >= share.refused and self._loop.time() < share.refused_until:
                raise BudgetExceeded(share, max(0, share.free), amount)
            asking = share.asking
            if asking is None:
                asking = self._ask(share, missing, amount)
            assert isinstance(asking, Asking)
            waits.append((share, asking))
        for share, asking in waits:
            try:
                async with asyncio.timeout_at(until):
                    granted = await asyncio.shield(asking.answer)
            except TimeoutError:
                raise BudgetUnavailable("the budget store did not answer in time") from None
            if not granted and amounts[share.unit] - share.free >= asking.least:
                share.refused, share.refused_until = asking.least, self._loop.time() + REFUSED_SECONDS
                raise BudgetExceeded(share, max(0, share.free), amounts[share.unit])

    def _ask(self, share: Share, least: int, amount: int) -> Asking:
        """Fetch more: a usual slice, or what an attempt like this one holds."""
        share.asking = asking = Asking(self._loop.create_future(), least)
        want = max(least, amount, slice_size(share.limit, share.unit))
        self._clerk.ask(share, Ask(share.account, share.limit, want, least, share.also))
        return asking

    def on_granted(self, answers: Sequence[tuple[Slice, Granted]]) -> None:
        """From the clerk: slices have grown, or not even their least was left."""
        for share, granted in answers:
            share.free += granted.amount
            if isinstance(share, Share):
                share.settled = granted.settled
            share.low = (granted.amount + 1) // 2  # the less there is, the later more is fetched ahead
            self._answer(share, granted.amount)

    def on_refused(self, shares: Sequence[Slice], why: str) -> None:
        """From the clerk: the store could not be asked."""
        for share in shares:
            asking = share.asking
            share.asking = None
            if isinstance(asking, Asking) and not asking.answer.done():
                asking.answer.set_exception(BudgetUnavailable(why))
                asking.answer.exception()  # fetched ahead: perhaps nobody waits for it

    def _answer(self, share: Slice, amount: int) -> None:
        asking = share.asking
        share.asking = None
        if isinstance(asking, Asking) and not asking.answer.done():
            asking.answer.set_result(amount)

    # --- what else the clerk says -----------------------------------------------------------------------

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Where the `on_` methods must be called."""
        return self._loop

    @property
    def book(self) -> Book:
        """The slices; the clerk only looks at them."""
        return self._book

    def on_ended(self, ended: Sequence[OutcomeId]) -> None:
        """The records of these outcomes are durable: what they did not use is free."""
        back: dict[Account, int] = {}
        for outcome in ended:
            if (finished := self._finished.pop(outcome, None)) is not None:
                self._book.clear(*finished)
                for share in finished[0].slices:
                    if isinstance(share, Share) and share.free > share.most:
                        add(back, {share.account: self._book.take(share.account, share.most)})
        if back:
            self._clerk.give_back(back)

    def on_unpaid(self, unpaid: Mapping[Account, int]) -> None:
        """The store has settled what slices could not pay: the debt is gone."""
        for account, amount in unpaid.items():
            self._book.add(account, amount)

    def on_idle(self, keep: Sequence[tuple[Slice, int]], gone: Sequence[Slice]) -> None:
        """Give back what is free above these amounts, and forget slices whose window is over, or that nobody uses."""
        back: dict[Account, int] = {}
        for share, amount in keep:
            if taken := self._book.take(share.account, amount):
                back[share.account] = taken
        if gone:
            present = [share for share in gone if self._book.slices.get(share.account) is share]
            back.update(self._book.drop(present))
            for share in present:  # held by an attempt that was never recorded: the store has forgotten it by now
                if isinstance(share, Share) and share.end + LATE <= time.time():
                    self._book.slices.pop(share.account, None)
            self._chains.clear()  # they may name what is gone
        if back:
            self._clerk.give_back(back)

    def on_cut_off(self) -> None:
        """The store has not answered for a while: what is free is given back, as soon as it can be."""
        if not self._go_on:
            self.on_idle([(share, 0) for share in self._book.slices.values()], ())

    def on_window(self, shares: Sequence[Slice]) -> None:
        """Windows that are about to begin: their first slices are fetched ahead, so that nobody waits for them."""
        for share in shares:
            assert isinstance(share, Share)
            window = window_at(share.budget.window, share.end, share.budget.zone)
            if window.id == share.account[1] or len(self._book.slices) >= MAX_SLICES:
                continue
            following = self._share(share.account[0], share.budget, window)
            if following.asking is None and not following.free:
                self._ask(following, 1, 1)

    def on_overrides(self, overrides: Mapping[str, int]) -> None:
        """An operator has set other limits."""
        self._overrides = overrides
        for share in self._book.slices.values():
            if isinstance(share, Share):
                share.bound(overrides.get(key_of(share.account), share.budget.limit))

    # --- beginning and end ------------------------------------------------------------------------------

    def recover(self, last_seq: int) -> None:
        """At the start: settle what the journal has beyond what was settled, then take the old slices back."""
        self._clerk.recover(last_seq)

    def accounted(self) -> int:
        """The last record of this slot's journal that is settled."""
        return self._clerk.accounted()

    def start(self) -> None:
        self._clerk.start()

    def on_durable(self, records: list[Any]) -> None:
        """From the journal's thread: what these records cost will be settled with the next batch."""
        outcomes = [record for record in records if type(record) is Outcome and record.scopes]
        self._clerk.spent(spent_by(outcomes), records[-1].seq, [(one.request, one.attempt) for one in outcomes])

    def close(self) -> None:
        """Settle what is left, give back what is free, end the thread, close the store.  After the journal's end."""
        self._clerk.close()
