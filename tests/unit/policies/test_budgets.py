"""The arithmetic of slices and holds, by example."""

from __future__ import annotations

import pytest

from policies.budgets import REQUESTS, TOKENS, USD, Account, Amounts, Ask, granted
from policies.slices import Book, Hold, slice_size

ORG: Account = ("org", "2026-11")
TEAM: Account = ("team/radiology#tokens", "2026-11-24")
KEY: Account = ("key/k#requests-all", "2026-11-24T13:05")
UNITS = {ORG: USD, TEAM: TOKENS, KEY: REQUESTS}


def book(**slices: int) -> Book:
    made = Book()
    for name, account in (("org", ORG), ("team", TEAM), ("key", KEY)):
        if name in slices:
            made.slice(account, UNITS[account]).free = slices[name]
    return made


def of(usd: int = 0, tokens: int = 0, requests: int = 0) -> Amounts:
    return usd, tokens, requests


def reserved(made: Book, amounts: Amounts, *accounts: Account) -> Hold:
    hold = made.reserve([made.slice(account, UNITS[account]) for account in accounts or (ORG,)], amounts)
    assert isinstance(hold, Hold)
    return hold


def test_a_hold_takes_and_a_settlement_gives_back_the_rest() -> None:
    made = book(org=100)
    hold = reserved(made, of(60))
    assert (made.free(ORG), made.held()) == (40, 60)
    made.settle(hold, of(25))
    assert (made.free(ORG), made.held()) == (75, 0)


def test_settling_twice_counts_once() -> None:
    made = book(org=100)
    hold = reserved(made, of(60))
    made.settle(hold, of(25))
    made.settle(hold, of(60))
    assert made.free(ORG) == 75
    assert not made.finish(hold)


def test_what_is_finished_stays_held_until_it_is_cleared() -> None:
    made = book(org=100)
    hold = reserved(made, of(60))
    assert made.finish(hold)
    assert (made.free(ORG), made.held()) == (40, 60)  # a crash now would charge all of it
    made.clear(hold, of(25))
    assert (made.free(ORG), made.held()) == (75, 0)


def test_the_whole_chain_or_nothing_each_account_in_its_unit() -> None:
    made = book(org=100, team=50, key=2)
    chain = (ORG, TEAM, KEY)
    short = made.reserve([made.slice(account) for account in chain], of(60, 60, 1))
    assert short is made.slice(TEAM)
    assert (made.free(ORG), made.free(TEAM), made.free(KEY), made.held()) == (100, 50, 2, 0)
    hold = reserved(made, of(60, 50, 1), *chain)
    assert (made.free(ORG), made.free(TEAM), made.free(KEY)) == (40, 0, 1)
    made.settle(hold, of(10, 20, 1))
    assert (made.free(ORG), made.free(TEAM), made.free(KEY), made.held()) == (90, 30, 1, 0)


def test_without_a_slice_nothing_costs_nothing() -> None:
    made = Book()
    assert isinstance(made.reserve([made.slice(ORG)], of()), Hold)
    assert made.reserve([made.slice(ORG)], of(1)) is made.slice(ORG)
    assert isinstance(made.reserve([], of(1, 1, 1)), Hold)  # no budget is about this caller


def test_an_overrun_is_charged_in_full_and_blocks_the_slice_until_the_store_settled_it() -> None:
    made = book(org=100)
    made.settle(reserved(made, of(100)), of(130))
    assert made.free(ORG) == -30
    made.add(ORG, 20)
    assert made.reserve([made.slice(ORG)], of(1)) is made.slice(ORG)
    made.add(ORG, 30)
    assert made.free(ORG) == 20


def test_what_is_forced_is_a_debt_like_an_overrun() -> None:
    made = book(org=10)
    hold = made.force([made.slice(ORG)], of(30))
    assert (made.free(ORG), made.held(), made.owed()) == (-20, 30, {ORG: 10})
    made.settle(hold, of(25))
    assert (made.free(ORG), made.owed()) == (-15, {ORG: 0})


def test_what_is_free_above_a_part_can_be_given_back() -> None:
    made = book(org=100)
    reserved(made, of(30))
    assert made.take(ORG, 10) == 60
    assert made.take(ORG, 10) == 0
    assert made.take(TEAM, 0) == 0
    assert made.free(ORG) == 10


def test_slices_are_dropped_once_nothing_is_held() -> None:
    made = book(org=100, team=50)
    hold = reserved(made, of(20), ORG)
    assert made.drop([made.slice(ORG)]) == {}  # it still holds something
    made.settle(hold, of(5))
    assert made.drop([made.slice(ORG)]) == {ORG: 95}
    made.add(ORG, 10)  # too late: the slice is gone, and nothing comes back to life
    assert made.free(ORG) == 0
    assert list(made.slices) == [TEAM]


@pytest.mark.parametrize(
    ("left", "want", "least", "amount"),
    [
        (5_000, 100, 1, 100),
        (400, 100, 1, 50),  # an eighth of what is left
        (5, 100, 1, 1),
        (5, 100, 5, 5),  # the exact amount
        (5, 100, 6, 0),  # or nothing
        (0, 100, 1, 0),
        (-5, 100, 1, 0),  # a limit that was lowered
        (5_000, 700, 700, 700),  # never less than the need at hand
    ],
)
def test_slices_shrink_near_the_limit(left: int, want: int, least: int, amount: int) -> None:
    assert granted(Ask(ORG, 5_000, want, least), left) == amount


def test_a_slice_is_a_fiftieth_of_money_and_a_twentieth_of_a_count() -> None:
    assert slice_size(5_000) == 100
    assert slice_size(600, REQUESTS) == 30
    assert slice_size(3, REQUESTS) == slice_size(3) == 1
