"""The classifier: it separates what can be separated, and always in the same way."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import linear
from policies.embedding import HASHED, buckets
from policies.linear import Head, fit, minimise, softmax

WORDS = np.array([3, 70, 900, 4000, 123456, 99999], np.int64)


def examples(count: int = 60) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
    """Three classes: one known by its vector, two by a word alone."""
    chance = np.random.default_rng(5)
    reads, labels = [], []
    for number in range(count):
        label = number % 3
        vector = chance.normal(size=8).astype(np.float32)
        vector[0] += 4 if label == 0 else -2
        words = [3, 900] if label == 1 else [70, 900] if label == 2 else [900]
        reads.append((vector / np.linalg.norm(vector), np.array(words, np.int64)))
        labels.append(label)
    return reads, np.array(labels, np.int64)


def taken(head: Head, reads: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    return np.array([int(head.scores(read).argmax()) for read in reads])


def test_it_learns_from_vectors_and_from_words() -> None:
    reads, labels = examples()
    head = fit(reads, labels, 3)
    assert (taken(head, reads) == labels).all()
    fresh, truth = examples(90)
    assert (taken(head, fresh[60:]) == truth[60:]).mean() > 0.9


def test_the_same_examples_give_the_same_classifier() -> None:
    reads, labels = examples()
    one, other = fit(reads, labels, 3), fit(reads, labels, 3)
    assert np.array_equal(one.dense, other.dense) and np.array_equal(one.hashed, other.hashed)


def test_a_negative_is_pushed_away_from_every_class() -> None:
    reads, labels = examples()
    stranger = (reads[0][0], np.array([123456], np.int64))  # looks like the first class but for a word
    before = fit(reads, labels, 3).scores(stranger).max()
    after = fit([*reads, stranger], np.append(labels, -1), 3).scores(stranger).max()
    assert after < before


def test_a_text_without_words_has_scores() -> None:
    reads, labels = examples()
    assert np.isfinite(fit(reads, labels, 3).scores((np.zeros(8, np.float32), np.zeros(0, np.int64)))).all()


def test_texts_of_no_words_at_all_are_learnt_from_by_their_vectors() -> None:
    reads, labels = examples()
    bare = [(vector, np.zeros(0, np.int64)) for vector, _ in reads]
    head = fit(bare, labels, 3)
    assert not head.hashed.any()
    assert (taken(head, bare)[labels == 0] == 0).mean() > 0.9


@given(
    st.lists(st.lists(st.integers(0, 2**32 - 1), max_size=40, unique=True), min_size=1, max_size=60), st.integers(1, 9)
)
def test_products_of_n_grams_are_those_of_the_whole_matrix(texts: list[list[int]], part: int) -> None:
    reads = [(np.zeros(2, np.float32), np.array(grams, np.int64)) for grams in texts]
    whole = np.zeros((len(texts), HASHED), np.float32)
    idf = np.linspace(1, 5, HASHED, dtype=np.float32)
    for row, (_, grams) in zip(whole, reads, strict=True):
        columns, signs = buckets(grams)
        values = signs * idf[columns]
        np.add.at(row, columns, values / max(float(np.sqrt(values @ values)), 1e-6))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear, "PART", part)
        grams = linear._Grams(reads, idf)
    assert grams.used.tolist() == sorted({int(at) for _, found in reads for at in buckets(found)[0]})
    chance = np.random.default_rng(len(texts))
    weights, short = chance.normal(size=(len(grams.used), 3)), chance.normal(size=(len(texts), 3))
    out = np.ones((len(texts), 3), np.float32)
    grams.add_product(weights.astype(np.float32), out)
    assert np.allclose(out, 1 + whole[:, grams.used] @ weights, atol=1e-4)
    back = np.ones((len(grams.used), 3), np.float32)
    grams.add_transposed_product(short.astype(np.float32), back)
    assert np.allclose(back, 1 + whole[:, grams.used].T @ short, atol=1e-4)


def test_a_small_class_is_not_drowned_by_a_large_one() -> None:
    """Texts between two classes go to neither for its size alone: the line stands nearer the middle than without."""
    chance = np.random.default_rng(3)
    reads, labels = [], []
    for number in range(110):
        small = number < 10
        vector = chance.normal(size=4).astype(np.float32) * 0.7 + np.array(
            [1.0 if small else -1.0, 0, 0, 0], np.float32
        )
        reads.append((vector / np.linalg.norm(vector), np.zeros(0, np.int64)))
        labels.append(0 if small else 1)
    fair = fit(reads, np.array(labels, np.int64), 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear, "_fairness", lambda labels, classes: np.ones(classes, np.float32))
        plain = fit(reads, np.array(labels, np.int64), 2)
    middle = (np.array([0, 1, 0, 0], np.float32), np.zeros(0, np.int64))
    assert np.ptp(fair.scores(middle)) < np.ptp(plain.scores(middle))


def test_scores_are_what_the_weights_say() -> None:
    reads, labels = examples()
    head = fit(reads, labels, 3)
    vector, _ = reads[1]
    value = head.idf[3] / np.sqrt(head.idf[3] ** 2)  # one n-gram alone has length one; 3 has no sign bit
    expected = vector @ head.dense + head.bias - value * head.hashed[3]
    assert np.allclose(head.scores((vector, np.array([3], np.int64))), expected, atol=1e-5)


def test_minimise_finds_the_bottom_of_a_valley() -> None:
    scale = np.array([1, 30, 0.2], np.float32)
    aim = np.array([3, -1, 7], np.float32)

    def loss(at: np.ndarray) -> tuple[float, np.ndarray]:
        return float(scale @ (at - aim) ** 2), 2 * scale * (at - aim)

    assert np.allclose(minimise(loss, np.zeros(3, np.float32), 100), aim, atol=1e-2)


def test_softmax_bears_large_scores() -> None:
    assert np.allclose(softmax(np.array([1000.0, 1000.0], np.float32)), 0.5)
