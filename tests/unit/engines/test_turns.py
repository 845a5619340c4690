"""Steps are taken so many in a turn of the event loop, in order, and each of them once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engines.turns import PAUSE, SHARE, Turns


@pytest.mark.parametrize("most", [1, 3, 8])
async def test_so_many_in_a_turn_and_in_order(most: int) -> None:
    turns = Turns(asyncio.get_running_loop(), most)
    taken: list[int] = []
    for number in range(20):
        turns.add(lambda number=number: taken.append(number))  # type: ignore[misc]
    assert taken == []
    while len(taken) < 20:
        before = len(taken)
        await asyncio.sleep(0)
        assert len(taken) - before <= most
    assert taken == list(range(20))


async def test_steps_that_come_from_a_step_or_behind_one_that_raises_have_their_turn() -> None:
    loop = asyncio.get_running_loop()
    raised: list[Any] = []
    loop.set_exception_handler(lambda _, context: raised.append(context["exception"]))
    turns = Turns(loop, 2)
    taken: list[str] = []

    def raising() -> None:
        turns.add(lambda: taken.append("from it"))
        raise ValueError("a step's own")

    turns.add(raising)
    turns.add(lambda: taken.append("behind it"))
    turns.add(lambda: turns.add(lambda: taken.append("later")))
    for _ in range(10):
        await asyncio.sleep(0)
    assert taken == ["behind it", "from it", "later"] and [str(one) for one in raised] == ["a step's own"]
    turns.add(lambda: taken.append("afterwards"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert taken[-1] == "afterwards"


async def test_a_share_of_time_bounds_a_turn_and_one_step_is_always_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("engines.turns.monotonic", lambda: clock[0])
    turns = Turns(asyncio.get_running_loop(), 9)
    taken: list[int] = []

    def step(number: int, seconds: float) -> None:
        clock[0] += seconds
        taken.append(number)

    for number, seconds in enumerate([SHARE / 4, SHARE / 4, SHARE, SHARE * 9, 0.0]):
        turns.add(lambda number=number, seconds=seconds: step(number, seconds))  # type: ignore[misc]
    for expected in ([0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4]):
        await asyncio.sleep(0)
        assert taken == expected


async def test_there_is_room_for_a_share_without_a_pause_and_where_nobody_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [1.0]
    monkeypatch.setattr("engines.turns.monotonic", lambda: clock[0])
    turns = Turns(asyncio.get_running_loop(), 9)

    def at_once(seconds: float, since: float = PAUSE / 2) -> bool:
        clock[0] += since
        if not turns.room():
            return False
        clock[0] += seconds
        turns.done()
        return True

    assert [at_once(SHARE / 3) for _ in range(4)] == [True, True, True, False]
    assert at_once(SHARE * 2, since=PAUSE * 2), "the loop did something else"
    assert not at_once(0)
    turns.add(lambda: None)
    assert not at_once(0, since=PAUSE * 2), "who came before is first"
    await asyncio.sleep(0)
    assert at_once(0, since=PAUSE * 2)
