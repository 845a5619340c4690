"""The classifier is asked in place while it is good, and never waited for longer than the deadline."""

from __future__ import annotations

import asyncio
import threading

import pytest
from msgspec.structs import replace
from signalling import CODING

from policies.semantic import Placed
from policies.signals import Pending, SignalFailed
from proxy.placing import TRUST, Placing
from proxy.second_stage import SecondStage

LONG, SHORT = 30.0, 0.02  # seconds
TEXTS = ["text"] * TRUST


async def test_a_good_one_is_asked_in_place_from_the_start() -> None:
    placing = Placing(lambda _: CODING, LONG)
    with pytest.raises(Pending):
        placing("text")
    placing.prove(TEXTS)
    assert placing.trusted
    assert placing("text") is CODING


async def test_a_slow_one_costs_each_request_its_deadline_and_no_more() -> None:
    free = threading.Event()

    def stuck(_: str) -> Placed:
        free.wait(10)
        return CODING

    placing = Placing(stuck, SHORT)
    try:
        with pytest.raises(SignalFailed, match="took longer than 20 ms"):
            await placing.later("text")
        with pytest.raises(SignalFailed, match="took longer than 20 ms"):  # though its turn never came
            await placing.later("text")
        with pytest.raises(Pending):
            placing("text")
    finally:
        free.set()
        placing.close()


async def test_one_that_fails_is_not_asked_in_place_until_it_is_good_again() -> None:
    broken = True

    def sometimes(_: str) -> Placed:
        if broken:
            raise ValueError("with the text in it")
        return CODING

    placing = Placing(sometimes, LONG)
    broken = False
    placing.prove(TEXTS)
    broken = True
    with pytest.raises(ValueError):
        placing("text")
    with pytest.raises(Pending):
        placing("text")
    with pytest.raises(SignalFailed, match=r"route failed \(ValueError\)$"):
        await placing.later("text")
    broken = False
    for _ in range(TRUST):
        assert not placing.trusted
        assert await placing.later("text") is CODING
    assert placing("text") is CODING
    placing.close()


async def test_a_broken_one_does_not_hold_up_the_start() -> None:
    def broken(_: str) -> Placed:
        raise ValueError

    placing = Placing(broken, LONG)
    placing.prove(TEXTS)
    assert not placing.trusted


async def test_an_answer_that_came_late_is_used_and_the_next_is_waited_for_no_longer() -> None:
    placing = Placing(lambda _: CODING, LONG)
    placing.prove(TEXTS)
    placing._deadline = -1.0  # everything is late now
    assert placing("text") is CODING
    with pytest.raises(Pending):
        placing("text")


async def test_those_who_ask_at_once_are_answered_in_turn() -> None:
    placing = Placing(lambda _: CODING, LONG)
    assert await asyncio.gather(*[placing.later("text") for _ in range(20)]) == [CODING] * 20
    placing.close()


async def test_a_request_that_goes_away_does_not_take_the_answer_with_it() -> None:
    began, free = threading.Event(), threading.Event()

    def waits(_: str) -> Placed:
        began.set()
        free.wait(10)
        return CODING

    placing = Placing(waits, LONG)
    asked = asyncio.create_task(placing.later("text"))
    await asyncio.to_thread(began.wait, 10)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    free.set()
    while placing._asked is not None:
        await asyncio.sleep(0.005)
    assert await placing.later("text") is CODING
    placing.close()


async def test_where_the_first_is_unsure_the_second_is_waited_for_and_a_sure_one_is_not() -> None:
    asked: list[str] = []

    def again(text: str, placed: Placed) -> Placed:
        asked.append(text)
        return replace(placed, route="second", second="asked")

    stage = SecondStage(lambda placed: placed.margin < 0.5, again, share=1.0, deadline=LONG)
    unsure = replace(CODING, margin=0.1)
    placing = Placing(lambda text: unsure if text == "unsure" else CODING, LONG, stage)
    placing.prove(["unsure"] * TRUST)
    assert not asked  # a start asks nobody
    assert placing("text") is CODING
    with pytest.raises(Pending) as pending:
        placing("unsure")
    assert pending.value.placed is unsure
    assert (await placing.answer(pending.value)).route == "second"
    placing._good = 0  # the first is not trusted: both are waited for, one after the other
    for text, route in (("unsure", "second"), ("text", "coding")):
        with pytest.raises(Pending) as pending:
            placing(text)
        assert (await placing.answer(pending.value)).route == route
    assert asked == ["unsure", "unsure"]
    placing.close()
