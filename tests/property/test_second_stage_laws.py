"""The second stage under any order of events: its share, its deadline and its bound hold, and nobody is left behind.

Time moves by hand and the thread is real: what is asked of both is the same however slow the machine is.
"""

from __future__ import annotations

import asyncio

from gated import DEADLINE, FIRST, SURE, Asked, Gated
from hand_clock import HandClock, run
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.semantic import Placed
from policies.stages import ASKED, BROKEN, BUSY, LATE, RESTING, SPENT, Share, outcome_of
from proxy.second_stage import WAITING

steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.booleans()),
        st.tuples(st.just("let go"), st.booleans()),  # and whether it is broken
        st.tuples(st.just("time"), st.floats(0.001, 0.03)),
        st.tuples(st.just("leave"), st.integers(0, 9)),
    ),
    max_size=40,
)


@given(st.floats(0, 1), st.integers(1, 40), st.lists(st.booleans(), max_size=300))
def test_law_10_of_any_window_no_more_than_the_share(share: float, window: int, needs: list[bool]) -> None:
    kept = Share(share, window)
    took = [need and kept.take() if need else bool(kept.pass_by()) for need in needs]
    for start in range(len(took)):
        assert sum(took[start : start + window]) <= share * window + 1e-6
    if share == 1:
        assert took == needs


@given(st.integers(1, 40), st.integers(0, 40), st.integers(1, 3))
def test_what_leaves_the_window_is_free_again(window: int, count: int, rounds: int) -> None:
    """Nothing of the share is lost: where every text needs it, each window spends it whole."""
    count = min(count, window)
    kept = Share(count / window, window)
    assert sum([kept.take() for _ in range(window * rounds)]) == count * rounds


@settings(max_examples=60, deadline=None)
@given(steps, st.sampled_from([0.2, 0.5, 1.0]))
def test_law_10_whatever_happens_the_deadline_the_share_and_the_bound_hold(
    acts: list[tuple[str, float]], share: float
) -> None:
    clock = HandClock()

    async def main() -> None:
        stage = Gated(clock, share=share, window=10)
        left: dict[str, float] = {}
        turns: list[bool] = []  # of every text placed: did it take of the share?
        settled: list[Placed] = []
        try:
            for number, (act, value) in enumerate(acts):
                if act == "ask":
                    one = stage.ask(f"text {number}", FIRST if value else SURE)
                    turns.append(isinstance(one, Asked))
                    if isinstance(one, Placed):
                        settled.append(one)
                    await stage.settle()
                elif act == "let go":
                    stage.broken = bool(value)
                    await stage.let_go()
                elif act == "time":
                    await stage.pass_time(float(value))
                else:
                    waiting = [one for one in stage.asked if not one.task.done()]
                    if waiting:
                        gone = waiting[int(value) % len(waiting)]
                        gone.task.cancel()
                        await asyncio.gather(gone.task, return_exceptions=True)
                        left[gone.text] = clock.now
                        await stage.settle()
                assert stage.stage._waiting <= WAITING
                for one in stage.asked:  # nobody waits past the deadline
                    assert one.task.done() or clock.now < one.at + DEADLINE
        finally:
            await stage.end()
        assert stage.stage._waiting == 0
        for start in range(len(turns)):
            assert sum(turns[start : start + 10]) <= share * 10
        asked_at = {one.text: one.at for one in stage.asked}
        for text, began in stage.began:  # what is late, or nobody waits for, is not begun
            assert began < asked_at[text] + DEADLINE
            assert text not in left or began <= left[text]
        assert len(stage.began) == len({text for text, _ in stage.began})
        outcomes = []
        for one in stage.asked:
            if one.task.cancelled():
                continue
            found = one.task.result()
            outcomes.append(found.second)
            assert outcome_of(found.second) in (ASKED, LATE, BROKEN)
            # Whoever is not answered has the first stage's answer, marked and otherwise as it was.
            assert found.route == (f"second of {one.text}" if found.second == ASKED else FIRST.route)
            assert (found.margin, found.best) == (FIRST.margin, FIRST.best)
        for found in settled:
            assert found is SURE or found.second in (SPENT, BUSY, RESTING)
        told = [*outcomes, *[found.second for found in settled if found is not SURE]]
        # Those that the end of the test cancelled, and clients that left, were never told anything.
        assert sorted(map(outcome_of, told)) == sorted(stage.counted)

    run(clock, main())
