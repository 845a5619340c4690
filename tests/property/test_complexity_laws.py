"""What holds of every scorer: an order, a share, a sum, a gate, and no prompt that breaks it."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from outcomes_made import DAY, WIDTH, made_scorer

from policies import doubt, features, gain, promotion
from policies.doubt import Answer, doubts, evaluate, plain_fault
from policies.gain import judge, named_features, wants_strong

SCORER, NAMED, VECTORS = made_scorer()
KNOWN = gain.calibrated(SCORER, gain.scores_of(SCORER, NAMED, VECTORS), day=DAY, share=0.3)
ANY_TEXT = st.text(st.characters(), max_size=700) | st.sampled_from(
    [
        "",
        "\ud800" * 40,
        "9" * 5000,
        "(" * 5000,
        "1+" * 3000,
        "<<1/0=3>>",
        "<<9*9" * 900,
        "####",
        "\\boxed{",
        "1e999",
        "٣=٣",
        "\x00" * 900,
    ]
)
NUMBER = st.floats(-1e6, 1e6)


@given(a=NUMBER, b=NUMBER)
def test_a_higher_score_has_no_lower_percentile(a: float, b: float) -> None:
    low, high = sorted((a, b))
    first, second = KNOWN.percentile(low), KNOWN.percentile(high)
    assert first is not None and second is not None and 0 <= first <= second <= 1


@given(percentile=st.floats(0, 1), a=st.floats(0, 1), b=st.floats(0, 1))
def test_a_larger_share_takes_all_that_a_smaller_takes(percentile: float, a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert wants_strong(percentile, high) or not wants_strong(percentile, low)
    assert wants_strong(percentile, 1) and not wants_strong(percentile, 0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), share=st.floats(0, 1), shape=st.sampled_from(["normal", "lognormal", "uniform"]))
def test_a_threshold_is_a_share_of_like_traffic(seed: int, share: float, shape: str) -> None:
    dice = np.random.default_rng(seed)
    draw = {"normal": dice.normal, "lognormal": dice.lognormal, "uniform": dice.uniform}[shape]
    scorer = gain.calibrated(SCORER, draw(size=20_000), day=DAY, share=share)
    ranks = [scorer.percentile(float(score)) for score in draw(size=20_000)]
    sent = float(np.mean([wants_strong(rank, share) for rank in ranks if rank is not None]))
    assert abs(sent - share) <= 0.02  # nine deviations of so many prompts are 0.04 at most, and four are 0.02


@given(
    named=st.lists(st.floats(-1e9, 1e9), min_size=len(features.NAMES), max_size=len(features.NAMES)),
    vector=st.lists(st.floats(-1, 1), min_size=WIDTH, max_size=WIDTH),
)
def test_contributions_add_up_to_the_score(named: list[float], vector: list[float]) -> None:
    row, dense = np.array(named, np.float32), np.array(vector, np.float32)
    parts = KNOWN.contributions(row, dense)
    assert sum([part for _, part in parts]) == pytest.approx(KNOWN.score(row, dense), abs=1e-9)
    scored = judge(KNOWN, row, dense)
    sizes = [abs(part) for name, part in parts if name != "base"]
    assert [abs(part) for _, part in scored.contributions] == sizes[:5] == sorted(sizes, reverse=True)[:5]


@settings(deadline=None)
@given(text=ANY_TEXT, said=ANY_TEXT, logprob=st.none() | st.floats(), schema=st.none() | st.booleans())
def test_no_prompt_and_no_answer_breaks_a_score(
    text: str, said: str, logprob: float | None, schema: bool | None
) -> None:
    answer = Answer(said, "stop", schema, logprob)
    found = named_features(text, answer)
    assert found.shape == (len(features.NAMES) + len(doubt.NAMES),)
    assert np.isfinite(found).all()
    assert doubts(text, answer).shape == (len(doubt.NAMES),)
    plain_fault(answer)
    scored = judge(KNOWN, named_features(text), np.zeros(WIDTH, np.float32))
    assert scored.percentile is not None and np.isfinite(scored.score)


@given(text=st.text("0123456789.+-*/() x", max_size=60))
def test_arithmetic_never_raises_and_never_gives_what_is_no_number(text: str) -> None:
    worth = evaluate(text)
    assert worth is None or np.isfinite(worth)


@given(a=st.integers(0, 999), b=st.integers(1, 99), c=st.integers(0, 99))
def test_arithmetic_is_that_of_python(a: int, b: int, c: int) -> None:
    for text in (f"{a} + {b}*{c}", f"({a}-{b}) / {b} - {c}", f"-{a}*({b}+{c})"):
        assert evaluate(text) == pytest.approx(eval(text))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_what_is_packed_is_what_is_unpacked(seed: int) -> None:
    scorer, named, vectors = made_scorer(seed, rows=60)
    for kept in (
        scorer,
        gain.calibrated(scorer, np.tile(gain.scores_of(scorer, named, vectors), 2), day=DAY, share=0.25),
    ):
        again = gain.unpack(*gain.pack(kept), embedding="e")
        assert again.origin == kept.origin
        assert again.score(named[0], vectors[0]) == kept.score(named[0], vectors[0])
        assert again.percentile(0.1) == kept.percentile(0.1)


@given(st.binary(max_size=200))
def test_a_damaged_header_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        gain.unpack(data, gain.pack(KNOWN)[1], embedding="e")


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_only_what_chance_could_not_do_is_promoted(seed: int) -> None:
    dice = np.random.default_rng(seed)
    gains = dice.choice([-1.0, 0.0, 1.0], size=400, p=[0.1, 0.5, 0.4])
    scores = dice.normal(size=400)
    gate = promotion.promote(scores, gains, [1] * 400)
    assert gate.apgr is not None and gate.low is not None and gate.high is not None
    assert gate.low <= gate.apgr <= gate.high
    assert gate.promoted == (gate.low > 0.5)
    reversed_ = promotion.promote(-gains + 0.1 * scores, gains, [1] * 400)
    assert not reversed_.promoted  # the opposite of what is right
    assert promotion.promote(gains, gains, [1] * 400).promoted


def test_random_scorers_are_refused_but_for_the_intervals_share() -> None:
    """One in forty is above a two-sided 95 % interval by chance."""
    dice = np.random.default_rng(0)
    gains = dice.choice([-1.0, 0.0, 1.0], size=200, p=[0.1, 0.5, 0.4])
    passed = sum([promotion.promote(dice.normal(size=200), gains, [1] * 200).promoted for _ in range(80)])
    assert passed <= 6


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.sampled_from([-1.0, 0.0, 1.0])), min_size=1, max_size=60).filter(
        lambda rows: sum([gain for _, gain in rows]) > 0
    )
)
def test_apgr_is_the_area_below_the_curve(rows: list[tuple[int, float]]) -> None:
    scores, gains = np.array([row[0] for row in rows], float), np.array([row[1] for row in rows])
    shares, recovered = promotion.curve(scores, gains)
    assert recovered is not None
    area = float((np.diff(shares) * (recovered[1:] + recovered[:-1]) / 2).sum())
    assert promotion.apgr(scores, gains) == pytest.approx(area)
    assert promotion.apgr(np.zeros(len(gains)), gains) == pytest.approx(0.5)


def test_a_header_holds_no_text() -> None:
    fields = msgspec.to_builtins(KNOWN.origin)
    assert set(fields) == {
        "form", "kind", "features", "embedding", "made", "labels", "penalty", "calibrated", "calibrated_on",
        "strong_share", "quality", "gate",
    }  # fmt: skip
