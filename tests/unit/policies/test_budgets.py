"""The arithmetic of slices and holds, by example."""

from __future__ import annotations

import pytest

from policies.budgets import Account, Book, Hold, slice_size, window_id, window_kind

ORG: Account = ("org", "2026-11")
TEAM: Account = ("team/radiology", "2026-11-24")


def book(**slices: int) -> Book:
    made = Book()
    if "org" in slices:
        made.add(ORG, slices["org"])
    if "team" in slices:
        made.add(TEAM, slices["team"])
    return made


def reserved(made: Book, amount: int, *accounts: Account) -> Hold:
    hold = made.reserve(accounts or (ORG,), amount)
    assert isinstance(hold, Hold)
    return hold


def test_a_hold_takes_and_a_settlement_gives_back_the_rest() -> None:
    made = book(org=100)
    hold = reserved(made, 60)
    assert (made.free(ORG), made.held()) == (40, 60)
    made.settle(hold, 25)
    assert (made.free(ORG), made.held()) == (75, 0)


def test_settling_twice_counts_once() -> None:
    made = book(org=100)
    hold = reserved(made, 60)
    made.settle(hold, 25)
    made.settle(hold, 60)
    assert made.free(ORG) == 75
    assert not made.finish(hold)


def test_what_is_finished_stays_held_until_it_is_cleared() -> None:
    made = book(org=100)
    hold = reserved(made, 60)
    assert made.finish(hold)
    assert (made.free(ORG), made.held()) == (40, 60)  # a crash now would charge all of it
    made.clear(hold, 25)
    assert (made.free(ORG), made.held()) == (75, 0)


def test_all_scopes_or_none() -> None:
    made = book(org=100, team=50)
    assert made.reserve((ORG, TEAM), 60) == TEAM
    assert (made.free(ORG), made.free(TEAM), made.held()) == (100, 50, 0)
    hold = reserved(made, 50, ORG, TEAM)
    assert (made.free(ORG), made.free(TEAM)) == (50, 0)
    made.settle(hold, 20)
    assert (made.free(ORG), made.free(TEAM)) == (80, 30)


def test_an_account_without_a_slice_is_short() -> None:
    assert Book().reserve((ORG,), 0) == ORG


def test_an_overrun_is_charged_in_full_and_blocks_the_slice_until_the_store_settled_it() -> None:
    made = book(org=100)
    made.settle(reserved(made, 100), 130)
    assert made.free(ORG) == -30
    made.add(ORG, 20)
    assert made.reserve((ORG,), 1) == ORG
    made.forgive(ORG, 30)
    assert made.free(ORG) == 20


def test_what_is_free_above_a_part_can_be_given_back() -> None:
    made = book(org=100)
    reserved(made, 30)
    assert made.take(ORG, 10) == 60
    assert made.take(ORG, 10) == 0
    assert made.take(TEAM, 0) == 0
    assert made.free(ORG) == 10


def test_slices_of_past_windows_go_once_nothing_is_held() -> None:
    made = book(org=100, team=50)
    hold = reserved(made, 20, ORG)
    assert made.drop_settled(frozenset({TEAM})) == []  # it still holds something
    made.settle(hold, 5)
    assert made.drop_settled(frozenset({TEAM})) == [(ORG, 95)]
    assert made.drop_settled(frozenset({TEAM})) == []
    made.forgive(ORG, 10)  # too late: the slice is gone, and nothing comes back to life
    assert made.free(ORG) == 0


def test_slices_shrink_near_the_limit() -> None:
    assert slice_size(5_000, 5_000, 1) == 100  # a fiftieth
    assert slice_size(5_000, 400, 1) == 50  # an eighth of what remains
    assert slice_size(5_000, 0, 1) == 1
    assert slice_size(5_000, 0, 0) == 0  # at the end nothing is kept idle
    assert slice_size(5_000, 5_000, 700) == 700  # never less than the need at hand


def test_windows_of_the_calendar() -> None:
    at = (2026, 2, 3, 4)
    for kind, name in (("month", "2026-02"), ("day", "2026-02-03"), ("hour", "2026-02-03T04")):
        assert window_id(kind, at) == name
        assert window_kind(name) == kind
    with pytest.raises(ValueError, match="fortnight"):
        window_id("fortnight", at)
