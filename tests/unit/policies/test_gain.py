"""Features, the ridge, its calibration, and what is made of labelled rows."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from outcomes_made import DAY, WIDTH, made_rows, made_scorer

from policies import features, gain
from policies.embedding import SAMPLE, StaticEmbedding
from policies.gain import judge
from policies.learning import Labelled, learn, same_text, table


def value(text: str, name: str) -> float:
    return float(features.features(text)[features.NAMES.index(name)])


def embedding() -> StaticEmbedding:
    words = ["apples", "box", "half", "left", "sold", "question"]
    table = np.random.default_rng(0).integers(-100, 100, (len(words), WIDTH)).astype(np.int8)
    return StaticEmbedding(table, np.ones(WIDTH, np.float32), {word: row for row, word in enumerate(words)})


def labelled(rows: list[dict[str, object]]) -> list[Labelled]:
    return [Labelled(str(row["text"]), float(row["strong"]), float(row["weak"])) for row in rows]  # type: ignore[arg-type]


def test_features_count_what_their_names_say() -> None:
    assert len(features.NAMES) == len(set(features.NAMES)) == len(features.features("x"))
    assert value("twice 3 is 6, and 1/2 of 3 is 1.5", "numbers") == pytest.approx(np.log1p(6))
    assert value("twice 3 is 6, and 1/2 of 3 is 1.5", "distinct numbers") == pytest.approx(np.log1p(5))
    assert value("pay $1,200 or 3%", "largest number") == pytest.approx(np.log1p(1200))
    assert value("What is it?\nA. one\nB. two\nC. three", "choices") == pytest.approx(np.log1p(3))
    assert value("One. Two! Three?", "sentences") == pytest.approx(np.log1p(3))
    assert value("{x} != `y`;", "code marks") > value("x is not y", "code marks") == 0
    assert value("Почему небо голубое", "other alphabets") > 0.8 > value("why is the sky blue", "other alphabets")
    assert value("How many are left if half are sold?", "words of how") > 0


def test_only_the_beginning_of_a_text_is_read() -> None:
    long = "a word, 12 " * 200
    first, second = features.features(long[:SAMPLE] + "?" * 5000), features.features(long[:SAMPLE] + "9 " * 2500)
    assert (first == second).all()


def test_without_calibration_there_is_no_percentile_and_no_decision() -> None:
    scorer, named, vectors = made_scorer()
    scored = judge(scorer, named[0], vectors[0], share=0.5)
    assert (scored.percentile, scored.strong) == (None, None)
    assert scorer.origin.calibrated is None
    assert len(scored.contributions) == 5


def test_few_labels_few_prompts_and_no_differences_are_refused() -> None:
    scorer, named, vectors = made_scorer()
    with pytest.raises(ValueError, match="too few to learn"):
        gain.fit("prompt", named[:20], vectors[:20], np.ones(20), embedding="e", made=DAY)
    with pytest.raises(ValueError, match="same gain"):
        gain.fit("prompt", named, vectors, np.ones(len(named)), embedding="e", made=DAY)
    with pytest.raises(ValueError, match="no finite number"):
        gain.fit("prompt", named, vectors, np.full(len(named), np.nan), embedding="e", made=DAY)
    with pytest.raises(ValueError, match="too few to calibrate"):
        gain.calibrated(scorer, [0.1] * 50, day=DAY, share=0.3)
    with pytest.raises(ValueError, match="no finite number"):
        gain.calibrated(scorer, [0.1] * 100 + [float("inf")], day=DAY, share=0.3)
    with pytest.raises(ValueError, match="share"):
        gain.calibrated(scorer, [0.1] * 100, day=DAY, share=1.3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"form": "scorer 0"}, "another version"),
        ({"features": "features 0"}, "another version"),
        ({"embedding": "other"}, "another embedding"),
    ],
)
def test_a_scorer_of_other_features_is_refused(change: dict[str, str], words: str) -> None:
    scorer, _, _ = made_scorer()
    other = msgspec.structs.replace(scorer, origin=msgspec.structs.replace(scorer.origin, **change))
    with pytest.raises(ValueError, match=words):
        gain.unpack(*gain.pack(other), embedding="e")


def test_parts_that_do_not_fit_are_refused() -> None:
    scorer, named, vectors = made_scorer()
    header, arrays = gain.pack(gain.calibrated(scorer, gain.scores_of(scorer, named, vectors), day=DAY, share=0.3))
    for name, wrong in (
        ("mean", arrays["mean"][:3]),
        ("weights", arrays["weights"] * np.nan),
        ("reference", arrays["reference"][::-1]),
        ("bias", np.zeros(2)),
    ):
        with pytest.raises(ValueError, match="damaged"):
            gain.unpack(header, {**arrays, name: wrong}, embedding="e")
    with pytest.raises(ValueError, match="a part is missing"):
        gain.unpack(header, {name: part for name, part in arrays.items() if name != "reference"}, embedding="e")


def test_rows_of_one_question_are_never_on_both_sides() -> None:
    groups = [
        same_text(text) for text in ["How many?", "how  many", "How many!", "Why?", "why", "Where?", "Who?", "When?"]
    ]
    for learnt, tried in gain.folds(groups, seed=3):
        assert not {groups[at] for at in learnt} & {groups[at] for at in tried}
    assert sorted(np.concatenate([tried for _, tried in gain.folds(groups, 3)])) == list(range(8))


def test_what_is_learnt_is_found_again_and_noise_is_not() -> None:
    learnt = learn(labelled(made_rows(400)), embedding(), "e", made=DAY)
    assert learnt.promotion.promoted
    assert learnt.promotion.apgr is not None and learnt.promotion.apgr > 0.6
    assert learnt.scorer.origin.gate["apgr"] == pytest.approx(learnt.promotion.apgr, abs=1e-4)
    rows = table(learnt, 0.25)
    assert [row.share for row in rows if 0.2 <= row.share <= 0.3] == [0.2, 0.25, 0.3]
    assert rows[-1].quality == 1 and rows[0].quality < rows[5].quality
    assert all(row.low <= row.quality <= row.high for row in rows)
    noise = learn(labelled(made_rows(400, noise=True)), embedding(), "e", made=DAY)
    assert not noise.promotion.promoted
    assert "does not beat" in noise.promotion.why


def test_learning_twice_gives_the_same_scorer() -> None:
    rows = labelled(made_rows(120))
    first, second = (learn(rows, embedding(), "e", made=DAY) for _ in range(2))
    assert gain.pack(first.scorer)[0] == gain.pack(second.scorer)[0]
    assert (first.scorer.weights == second.scorer.weights).all()
    assert first.promotion == second.promotion
