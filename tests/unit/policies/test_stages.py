"""A share of the latest texts, and the words for what became of the second stage."""

from __future__ import annotations

import pytest

from policies.stages import BROKEN, LATE, Share, outcome_of, words_of


def test_a_quiet_worker_s_first_text_gets_it_and_a_burst_spends_the_share() -> None:
    share = Share(0.3, 10)
    assert [share.take() for _ in range(10)] == [True] * 3 + [False] * 7
    assert [share.take() for _ in range(4)] == [True] * 3 + [False]  # as the first ones leave the window


def test_texts_that_do_not_need_it_make_room() -> None:
    share = Share(0.1, 10)
    assert share.take()
    for _ in range(8):
        share.pass_by()
    assert not share.take()
    assert share.take()


@pytest.mark.parametrize(("given", "count"), [(0.0, 0), (0.0009, 0), (0.001, 1), (0.29, 290), (1.0, 1000)])
def test_a_share_is_whole_texts_of_the_window(given: float, count: int) -> None:
    share = Share(given)
    assert sum([share.take() for _ in range(1000)]) == count


def test_an_outcome_is_counted_without_what_was_raised() -> None:
    assert outcome_of(f"{BROKEN} (ValueError)") == BROKEN
    assert words_of(LATE) == "second stage: late"
