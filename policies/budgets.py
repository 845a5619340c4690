"""The arithmetic of budgets: slices, holds, settlements.  Synchronous and pure; amounts are whole numbers.

A worker holds a *slice* of each account: an amount that the store has set aside for it, so that a reservation
is a decrement in memory and nothing on the path waits for a store.  What the store has set aside counts as
held for everybody else, so over all workers settled + held <= limit at every instant (law 3):

    limit >= settled (in the store) + the sum of all slices' outstanding amounts (in the store)
    a slice's outstanding amount = free + held by requests + spent but not yet accounted (in memory)

A request holds the upper bound of what its attempt can cost, over its whole chain of accounts or over none.  What
it did not use is free again only when the record that says so is durable: until then a crash would charge the
whole hold, so nobody else may have it.

The law is thus kept by the bound being one.  Should an engine bill more all the same, the excess is charged in
full: the slice goes below zero and grants nothing until the store has settled what it could not pay.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

PICO = 1_000_000_000_000
"""Pico-dollars in a dollar."""
SHRINK = 8
"""The share of what is left that one grant may take: an eighth, unless the need at hand is more."""

Account = tuple[str, str]
"""(name, window), e.g. ("team/oncology", "2026-11"), ("key/k_12#requests-all", "2026-11-24T13:05")."""

Amounts = tuple[int, int, int]
"""What one attempt holds or cost: (pico-dollars, tokens, requests)."""
USD, TOKENS, REQUESTS = range(3)
"""Units, by their place in `Amounts`."""


class Ask(Struct, frozen=True):
    """A slice that is wanted: up to `want`, at least `least` or nothing.

    `also` are the other buckets of a rolling window: what is settled and held in them counts against the limit, too.
    """

    account: Account
    limit: int
    want: int
    least: int
    also: tuple[Account, ...] = ()


class Granted(Struct, frozen=True):
    """What an ask got (0: not even its least was left), and the figures after it, over all slots and `also`."""

    amount: int
    settled: int
    held: int


class StoreFailed(Exception):
    """The store cannot be used now, and nothing was changed.

    StoreFailed
    ├── StoreUnsure     it may have been changed: no answer came
    └── StoreLost       the counters may lack what was acknowledged: each slot must restore its part
    """


class StoreUnsure(StoreFailed):
    """No answer came: the call may have been carried out."""


class StoreLost(StoreFailed):
    """The counters may lack acknowledged writes: nothing is granted until they are restored from the journals."""


class BudgetStore(Protocol):
    """Where slices come from.  Every call is atomic for each account; none is made on the path of a request.

    Raises `StoreFailed` and its kinds, and nothing else.
    """

    def grant(self, slot: str, asks: Sequence[Ask]) -> list[Granted]:
        """Set aside what is asked for, one after another: `granted()` of what is left of each."""
        ...

    def give_back(self, slot: str, amounts: Mapping[Account, int]) -> None: ...
    def account(self, slot: str, upto: int, spent: Mapping[Account, int]) -> dict[Account, int]:
        """Settle what the slot's journal says was spent since the last call, up to record `upto`.

        Returns what slices could not pay, because attempts cost more than they had held.  With an `upto` that was
        accounted before it is a repetition, and changes nothing.
        """
        ...

    def accounted(self, slot: str) -> int:
        """The last record of the slot's journal that has been settled; -1 for none."""
        ...

    def release(self, slot: str) -> None:
        """Take back everything set aside for a slot (it has just started, its journal is settled)."""
        ...

    def usage(self, accounts: Sequence[Account]) -> list[tuple[int, int]]:
        """(settled, held) of each account, over all slots."""
        ...

    def hold(self, slot: str, outstanding: Mapping[Account, int]) -> None:
        """The slot has no more than this of each: after a call whose fate is not known.  Never raises an amount."""
        ...

    def restore(self, slot: str, upto: int, spent: Mapping[Account, int], outstanding: Mapping[Account, int]) -> None:
        """Replace the slot's part: all that its journal spent up to `upto`, and what it has set aside now."""
        ...

    def claim(self, what: str, until: int) -> bool:
        """True for the first caller over all workers; forgotten after `until` (seconds since the epoch)."""
        ...

    def overrides(self) -> dict[str, int]:
        """Limits that an operator set at run time, by `NAME|KIND` (`team/oncology|month`)."""
        ...

    def override(self, what: str, limit: int | None) -> None:
        """Set one; None takes it back."""
        ...

    def current(self, windows: Collection[str]) -> dict[Account, tuple[int, int]]:
        """Every account known in these windows: (settled, held).  May be slow."""
        ...

    def purge(self, now: int) -> None:
        """Forget accounts that have expired (`policies.windows.expires`)."""
        ...

    def close(self) -> None: ...


def granted(ask: Ask, left: int) -> int:
    """What an ask gets of what is left of its limit: small slices near the end keep what idles from refusing others."""
    if left < ask.least or left <= 0:
        return 0
    return min(ask.want, max(ask.least, left // SHRINK))


class Slice:
    """One worker's share of one account.  `asking` belongs to whoever fetches more."""

    __slots__ = ("account", "asking", "free", "held", "label", "low", "unit", "used")

    def __init__(self, account: Account, unit: int = USD) -> None:
        self.account = account
        self.label = f"{account[0]}|{account[1]}"  # as records name it
        self.unit = unit
        self.free = 0
        self.held = 0
        self.low = 0  # below it more is fetched ahead
        self.used = 0  # reservations made
        self.asking: object | None = None

    @property
    def owed(self) -> int:
        """What the store must have set aside for it, beside what is spent and not accounted."""
        return max(0, self.free + self.held)


class Hold(Struct):
    """What one attempt has reserved in each slice of its chain.  Settling twice does nothing the second time."""

    amounts: Amounts
    slices: Sequence[Slice]
    open: bool = True


class Book:
    """A worker's slices.  One event loop uses it; nothing in it waits."""

    def __init__(self) -> None:
        self.slices: dict[Account, Slice] = {}

    def slice(self, account: Account, unit: int = USD) -> Slice:
        """The slice of an account; an empty one where there is none yet."""
        share = self.slices.get(account)
        if share is None:
            share = self.slices[account] = Slice(account, unit)
        return share

    def reserve(self, slices: Sequence[Slice], amounts: Amounts) -> Hold | Slice:
        """A hold on every slice, or the first slice that is too small (and then no hold at all)."""
        for share in slices:
            if share.free < amounts[share.unit]:
                return share
        return self.force(slices, amounts)

    def force(self, slices: Sequence[Slice], amounts: Amounts) -> Hold:
        """A hold on every slice, whatever is free: the debt is settled like an overrun."""
        for share in slices:
            amount = amounts[share.unit]
            share.free -= amount
            share.held += amount
            share.used += 1
        return Hold(amounts, slices)

    def finish(self, hold: Hold) -> bool:
        """The attempt is over, its money still held; False if it was over before."""
        was_open, hold.open = hold.open, False
        return was_open

    def settle(self, hold: Hold, actual: Amounts) -> None:
        """The attempt cost `actual`; the rest of its hold is free again.  The second time nothing happens."""
        if self.finish(hold):
            self.clear(hold, actual)

    def clear(self, hold: Hold, actual: Amounts) -> None:
        """After `finish`, once: `actual` of the hold is spent, the rest is free."""
        amounts = hold.amounts
        for share in hold.slices:
            amount = amounts[share.unit]
            share.held -= amount
            share.free += amount - actual[share.unit]

    def add(self, account: Account, amount: int) -> None:
        """The store granted more, or has settled what the slice could not pay."""
        share = self.slices.get(account)
        if share is not None:
            share.free += amount

    def take(self, account: Account, keep: int) -> int:
        """Remove what is free above `keep`, to be given back; the amount."""
        share = self.slices.get(account)
        if share is None or share.free <= keep:
            return 0
        excess = share.free - keep
        share.free = keep
        return excess

    def free(self, account: Account) -> int:
        share = self.slices.get(account)
        return share.free if share is not None else 0

    def held(self) -> int:
        """Whether attempts hold anything now, over all accounts; 0: none is under way."""
        return sum([share.held for share in self.slices.values()])

    def owed(self) -> dict[Account, int]:
        """What the store must have set aside for this worker, but for what is spent and not accounted."""
        return {account: share.owed for account, share in self.slices.items()}

    def drop(self, shares: Iterable[Slice]) -> dict[Account, int]:
        """Forget those of these slices that hold nothing; what is to be given back."""
        back: dict[Account, int] = {}
        for share in shares:
            if share.held or share.asking is not None or share.free < 0:
                continue
            del self.slices[share.account]
            if share.free:
                back[share.account] = share.free
        return back


def slice_size(limit: int, unit: int = USD) -> int:
    """How much to ask for at most: a fiftieth of a limit in money, a twentieth of a count, at least one."""
    return max(1, limit // (50 if unit == USD else 20))
