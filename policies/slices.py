"""A worker's slices of its accounts, and what attempts hold of them: `policies.budgets` says what they are for.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from policies.budgets import USD, Account, Amounts


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


class Hold:
    """What one attempt has reserved in each slice of its chain.  Settling twice does nothing the second time."""

    __slots__ = ("amounts", "open", "slices")

    def __init__(self, amounts: Amounts, slices: Sequence[Slice]) -> None:
        self.amounts = amounts
        self.slices = slices
        self.open = True


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
