"""The arithmetic of budgets: slices, holds, settlements.  Synchronous and pure; amounts are pico-dollars.

A worker holds a *slice* of each budget: an amount that the store has set aside for it, so that a reservation
is a decrement in memory and nothing on the path waits for a store.  What the store has set aside counts as
held for everybody else, so over all workers settled + held <= limit at every instant (law 3):

    limit >= settled (in the store) + the sum of all slices' outstanding amounts (in the store)
    a slice's outstanding amount = free + held by requests + spent but not yet accounted (in memory)

A request holds the upper bound of what its attempt can cost.  What it did not use is free again only when the
record that says so is durable: until then a crash would charge the whole hold, so nobody else may have it.

The law is thus kept by the bound being one.  Should an engine bill more all the same, the excess is charged in
full: the slice goes below zero and grants nothing until the store has settled what it could not pay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct

PICO = 1_000_000_000_000
"""Pico-dollars in a dollar."""

Account = tuple[str, str]
"""(scope, window), e.g. ("org", "2026-11")."""


class Limit(Struct, frozen=True):
    """One budget: so much money for a scope in each window of the calendar (UTC)."""

    scope: str
    window: str  # month, day, hour
    amount: int


class Hold(Struct):
    """What one attempt has reserved.  Settling twice does nothing the second time."""

    amount: int
    accounts: tuple[Account, ...]
    open: bool = True


class Slice:
    """One worker's share of one account."""

    __slots__ = ("free", "held")

    def __init__(self) -> None:
        self.free = 0
        self.held = 0


class BudgetStore(Protocol):
    """Where slices come from.  Every call is one transaction; none is made on the path of a request.

    A call that raises has changed nothing, so that it can be made again.
    """

    def grant(self, slot: str, account: Account, limit: int, want: int, least: int) -> int:
        """Set aside up to `want`, at least `least` or nothing; the amount granted."""
        ...

    def give_back(self, slot: str, account: Account, amount: int) -> None: ...
    def account(self, slot: str, upto: int, spent: Mapping[Account, int]) -> dict[Account, int]:
        """Settle what the slot's journal says was spent, up to record `upto`.

        Returns what a slice could not pay, because attempts cost more than they had held.
        """
        ...

    def accounted(self, slot: str) -> int:
        """The last record of the slot's journal that has been settled; -1 for none."""
        ...

    def release(self, slot: str) -> None:
        """Take back everything set aside for a slot (it has just started, its journal is settled)."""
        ...

    def usage(self, account: Account) -> tuple[int, int]:
        """(settled, held) of an account, over all slots."""
        ...

    def close(self) -> None: ...


class Book:
    """A worker's slices.  One event loop uses it; nothing in it waits."""

    def __init__(self) -> None:
        self._slices: dict[Account, Slice] = {}

    def reserve(self, accounts: tuple[Account, ...], amount: int) -> Hold | Account:
        """A hold on every account, or the first account whose slice is too small (and then no hold at all)."""
        slices = []
        for account in accounts:
            share = self._slices.get(account)
            if share is None or share.free < amount:
                return account
            slices.append(share)
        for share in slices:
            share.free -= amount
            share.held += amount
        return Hold(amount, accounts)

    def finish(self, hold: Hold) -> bool:
        """The attempt is over, its money still held; False if it was over before."""
        was_open, hold.open = hold.open, False
        return was_open

    def settle(self, hold: Hold, actual: int) -> None:
        """The attempt cost `actual`; the rest of its hold is free again.  The second time nothing happens."""
        if self.finish(hold):
            self.clear(hold, actual)

    def clear(self, hold: Hold, actual: int) -> None:
        """After `finish`, once: `actual` of the hold is spent, the rest is free."""
        for account in hold.accounts:
            share = self._slices.get(account)
            if share is not None:
                share.held -= hold.amount
                share.free += hold.amount - actual

    def add(self, account: Account, amount: int) -> None:
        """The store granted more."""
        self._slices.setdefault(account, Slice()).free += amount

    def forgive(self, account: Account, amount: int) -> None:
        """The store has settled what the slice could not pay: the debt is gone."""
        share = self._slices.get(account)
        if share is not None:
            share.free += amount

    def take(self, account: Account, keep: int) -> int:
        """Remove what is free above `keep`, to be given back; the amount."""
        share = self._slices.get(account)
        if share is None or share.free <= keep:
            return 0
        excess = share.free - keep
        share.free = keep
        return excess

    def free(self, account: Account) -> int:
        share = self._slices.get(account)
        return share.free if share is not None else 0

    def held(self) -> int:
        """What attempts hold now, over all accounts; 0: none is under way."""
        return sum(share.held for share in self._slices.values())

    def drop_settled(self, live: frozenset[Account]) -> list[tuple[Account, int]]:
        """Slices of windows that are over and hold nothing: removed, with what is to be given back."""
        gone = [
            (account, share.free) for account, share in self._slices.items() if account not in live and share.held == 0
        ]
        for account, _ in gone:
            del self._slices[account]
        return [(account, free) for account, free in gone if free > 0]


def slice_size(limit: int, remaining: int, least: int) -> int:
    """How much to ask for: a fiftieth of the limit, less as the limit nears, never less than the need at hand.

    Small slices near the end keep what idle workers hold from refusing the others.
    """
    return max(least, min(limit // 50, remaining // 8))


def window_id(window: str, at: tuple[int, int, int, int]) -> str:
    """The window that a UTC time (year, month, day, hour) falls into: 2026-11, 2026-11-24, 2026-11-24T13."""
    year, month, day, hour = at
    if window == "month":
        return f"{year:04d}-{month:02d}"
    if window == "day":
        return f"{year:04d}-{month:02d}-{day:02d}"
    if window == "hour":
        return f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}"
    raise ValueError(f"no window called {window!r}: there are month, day and hour")


def window_kind(window: str) -> str:
    """The kind of a window from its id: `window_id` backwards."""
    return {7: "month", 10: "day", 13: "hour"}[len(window)]
