"""What an attempt is charged to, and with how much: the labels of its records.  Pure.

A label is `NAME|WINDOW`, and for an account in tokens `NAME|WINDOW|HELD`: what an attempt without an outcome is charged
after a crash, as money is by the record's `hold`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from compliance.records import Outcome
from engines.rates import METER_LIMIT
from policies.budgets import TOKENS, USD, Account, Amounts
from policies.scopes import unit_of
from policies.slices import Hold

NOTHING: Amounts = (0, 0, 0)
_SURELY = METER_LIMIT.bit_length() - 1
"""Numbers of so many bits are below the limit."""


def label_of(account: Account) -> str:
    """An account as records name it."""
    return f"{account[0]}|{account[1]}"


def scope_labels(hold: Hold) -> list[str]:
    """The accounts of a hold as records name them."""
    tokens = hold.amounts[TOKENS]
    return [f"{share.label}|{tokens}" if share.unit == TOKENS else share.label for share in hold.slices]


def account_of(label: str) -> Account:
    """The account that a label names."""
    name, _, rest = label.partition("|")
    return name, rest.partition("|")[0]


def tokens_of(usage: Any) -> int:
    """All tokens of an outcome or a usage, in and out, cached ones too; each meter as far as it is believed."""
    meters = (usage.input, usage.cache_read, usage.cache_write_5m, usage.cache_write_1h, usage.output)
    a, b, c, d, e = meters
    if not (a | b | c | d | e) >> _SURELY:  # none is negative or near the limit
        return int(a + b + c + d + e)
    return sum([min(max(meter, 0), METER_LIMIT) for meter in meters])


def charges(record: Outcome) -> Iterator[tuple[Account, int]]:
    """What one attempt cost each of its accounts, in the account's unit."""
    for label in record.scopes:
        account, unit, held = _read(label)
        if unit == USD:
            amount = record.cost
        elif unit == TOKENS:
            amount = int(held or 0) if record.ending == "interrupted" else tokens_of(record)
        else:
            amount = 1
        yield account, amount


@lru_cache(4096)
def _read(label: str) -> tuple[Account, int, str]:
    """(account, its unit, HELD): the same few labels come again and again."""
    name, _, rest = label.partition("|")
    window, _, held = rest.partition("|")
    return (name, window), unit_of(name), held


def spent_by(records: Iterable[Any], after: int = -1) -> dict[Account, int]:
    """What the outcomes among these records cost each account; those up to `after` were counted before."""
    spent: dict[Account, int] = {}
    for record in records:
        if type(record) is Outcome and record.seq > after:
            for account, amount in charges(record):
                spent[account] = spent.get(account, 0) + amount
    return spent


def add(into: dict[Account, int], amounts: Mapping[Account, int] | Iterable[tuple[Account, int]]) -> None:
    """Sum up by account."""
    for account, amount in amounts.items() if isinstance(amounts, Mapping) else amounts:
        into[account] = into.get(account, 0) + amount
