"""What budgets are: accounts, amounts, and the stores that slices of them come from.  Pure; amounts are whole numbers.

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

from collections.abc import Collection, Mapping, Sequence
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
