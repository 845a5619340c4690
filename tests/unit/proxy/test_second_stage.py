"""The second stage is asked off the loop, until a deadline, and nobody pays for what nobody waits for.  Time moves by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from gated import DEADLINE, FIRST, SURE, Gated, answers
from hand_clock import HandClock, run

from policies.stages import words_of
from proxy.second_stage import PATIENCE, WAITING

Play = Callable[[Gated], Awaitable[None]]


def gated(play: Play, **more: float | bool) -> Gated:
    clock = HandClock()
    made: list[Gated] = []

    async def main() -> None:
        stage = Gated(clock, **more)  # type: ignore[arg-type]
        made.append(stage)
        try:
            await play(stage)
        finally:
            await stage.end()

    run(clock, main())
    return made[0]


def test_a_sure_text_asks_nobody() -> None:
    async def play(stage: Gated) -> None:
        assert stage.ask("sure", SURE) is SURE

    found = gated(play)
    assert not found.began and not found.counted
    assert found.stage._thread is None  # nor does it start a thread


def test_an_unsure_one_is_answered_by_the_second_stage() -> None:
    async def play(stage: Gated) -> None:
        asked = stage.ask("text")
        await stage.let_go()
        assert asked.task.result().route == "second of text"

    assert gated(play).counted == ["asked"]


def test_a_slow_one_costs_its_deadline_and_what_waits_behind_it_is_never_begun() -> None:
    async def play(stage: Gated) -> None:
        asked = [stage.ask(f"text {n}") for n in range(4)]
        await stage.pass_time(DEADLINE * 0.9)
        assert not any([one.task.done() for one in asked])
        await stage.pass_time(DEADLINE * 0.2)
        assert answers(asked) == ["late"] * 4
        assert [one.task.result().route for one in asked] == [FIRST.route] * 4
        later = stage.ask("while it is stuck")
        assert later.second == "busy"  # and pays nothing
        await stage.let_go()
        assert [text for text, _ in stage.began] == ["text 0"]
        good = stage.ask("afterwards")
        await stage.let_go()
        assert answers([good]) == ["asked"]

    assert gated(play).counted == ["late"] * 4 + ["busy", "asked"]


def test_the_wait_for_a_turn_counts() -> None:
    async def play(stage: Gated) -> None:
        first = stage.ask("first")
        await stage.pass_time(DEADLINE / 2)
        second = stage.ask("second")
        await stage.pass_time(DEADLINE / 4)
        await stage.let_go()
        assert answers([first]) == ["asked"]
        await stage.pass_time(DEADLINE * 0.8)
        assert answers([second]) == ["late"]

    gated(play)


def test_no_more_wait_than_may() -> None:
    async def play(stage: Gated) -> None:
        asked = []
        for n in range(WAITING + 3):
            asked.append(stage.ask(str(n)))
            await asyncio.sleep(0)
        assert answers(asked[WAITING:]) == ["busy"] * 3
        for _ in range(WAITING):
            await stage.let_go()
        assert answers(asked[:WAITING]) == ["asked"] * WAITING

    gated(play, window=1000)


def test_the_share_is_kept_and_said() -> None:
    async def play(stage: Gated) -> None:
        asked = []
        for n in range(20):
            asked.append(stage.ask(str(n)))
            await stage.let_go()
        assert answers(asked) == (["asked"] * 3 + ["share spent"] * 7) * 2

    found = gated(play, share=0.3, window=10)
    assert (found.counted.count("asked"), found.counted.count("share spent")) == (6, 14)


def test_a_broken_one_says_what_it_raised_and_never_the_text_and_rests_ever_longer() -> None:
    async def play(stage: Gated) -> None:
        stage.broken = True
        seen = []
        for n in range(30):
            seen.append(stage.ask(f"secret {n}"))
            await stage.let_go()
        told = answers(seen)
        assert set(told) == {"broken (RuntimeError)", "resting"}
        assert told[:PATIENCE] == ["broken (RuntimeError)"] * PATIENCE
        gaps = "".join("b" if one.startswith("b") else "r" for one in told[PATIENCE:])
        assert gaps == "rb" + "rrb" + "rrrrb" + "rrrrrrrrb" + "r" * 8
        assert not any(["secret" in words_of(one) for one in told])
        stage.broken = False
        good = [stage.ask("good again") for _ in range(9)]
        await stage.let_go()
        assert answers(good) == ["resting"] * 8 + ["asked"]
        good = stage.ask("at once")
        await stage.let_go()
        assert answers([good]) == ["asked"]

    assert set(gated(play, window=1000).counted[:30]) == {"broken", "resting"}


def test_a_stalled_loop_does_not_make_the_thread_work_for_nobody() -> None:
    """The loop could not end the wait in time; the thread knows by the clock that it is over."""

    async def play(stage: Gated) -> None:
        stage.ask("at work")
        stage.ask("waiting")
        await stage.settle()
        stage.clock.now += 2 * DEADLINE
        stage.release()  # and the loop does not run
        until = time.monotonic() + 20
        while stage.stage._began is not None or not stage.stage._questions.empty():
            time.sleep(0.0005)
            assert time.monotonic() < until
        time.sleep(0.01)
        assert [text for text, _ in stage.began] == ["at work"]

    gated(play)


def test_one_that_is_always_late_rests_and_one_that_answers_is_forgiven() -> None:
    async def play(stage: Gated) -> None:
        async def late() -> None:
            asked = stage.ask("slow")
            await stage.pass_time(DEADLINE)
            assert answers([asked]) == ["late"]
            await stage.let_go()

        async def quick() -> None:
            asked = stage.ask("quick")
            await stage.let_go()
            assert answers([asked]) == ["asked"]

        for _ in range(3):
            for _ in range(PATIENCE - 1):
                await late()
            await quick()
        for _ in range(PATIENCE):
            await late()
        assert answers([stage.ask("next")]) == ["resting"]

    gated(play, window=1000)


def test_texts_that_the_first_stage_is_sure_of_make_room_in_the_share() -> None:
    async def play(stage: Gated) -> None:
        asked = [stage.ask("one")]
        await stage.let_go()
        asked.append(stage.ask("two"))
        for _ in range(8):
            assert stage.ask("sure", SURE) is SURE
        asked.append(stage.ask("three"))
        await stage.let_go()
        assert answers(asked) == ["asked", "share spent", "asked"]

    gated(play, share=0.1, window=10)


def test_a_client_that_leaves_takes_its_question_along() -> None:
    async def play(stage: Gated) -> None:
        ahead, gone = stage.ask("ahead"), stage.ask("gone")
        await stage.settle()
        gone.task.cancel()
        await asyncio.gather(gone.task, return_exceptions=True)
        assert gone.task.cancelled()
        await stage.let_go()
        assert answers([ahead]) == ["asked"]
        assert [text for text, _ in stage.began] == ["ahead"]
        assert stage.stage._waiting == 0

    assert gated(play).counted == ["asked"]


def test_one_that_leaves_in_the_middle_counts_neither_for_nor_against_it() -> None:
    async def play(stage: Gated) -> None:
        for _ in range(PATIENCE + 2):
            asked = stage.ask("gone")
            await stage.settle()
            asked.task.cancel()
            await stage.let_go()
        asked = stage.ask("next")
        await stage.let_go()
        assert answers([asked]) == ["asked"]

    gated(play)


@pytest.mark.parametrize("second", ["asked", "share spent", "busy", "resting", "late", "broken (ValueError)"])
def test_every_outcome_has_words(second: str) -> None:
    expected = second if second.partition(" (")[0] in ("asked", "late", "broken") else f"not asked: {second}"
    assert words_of(second) == f"second stage: {expected}"
    assert words_of("") == ""
