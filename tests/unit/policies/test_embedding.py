"""Texts to vectors: BERT's way of cutting words, a table in eight bits, n-grams with signs."""

import re
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.embedding import HASHED, StaticEmbedding, buckets, ngrams, pieces, split

VOCABULARY = {"[UNK]": 0, "pass": 1, "##word": 2, "##s": 3, "my": 4, "cafe": 5, "水": 6, "!": 7, "_": 8}


def embedding() -> StaticEmbedding:
    table = np.random.default_rng(1).integers(-127, 128, (len(VOCABULARY), 16)).astype(np.int8)
    return StaticEmbedding(table, np.linspace(0.01, 0.02, 16).astype(np.float32), VOCABULARY)


def test_words_are_cut_as_the_vocabulary_was_made() -> None:
    assert split("My PASSWORDS!") == ["my", "passwords", "!"]
    assert split("Café, naïve") == ["cafe", ",", "naive"]
    assert split("水庫 is") == ["水", "庫", "is"]
    assert split("a_b") == ["a", "_", "b"]
    assert pieces("passwords", VOCABULARY) == (1, 2, 3)
    assert pieces("passport", VOCABULARY) == ()
    assert pieces("p" * 101, {"p" * 101: 1} | VOCABULARY) == (1,)  # known as a whole: its length does not matter
    assert pieces("pass" * 26, VOCABULARY | {"##pass": 9}) == ()


def test_a_vector_is_the_mean_of_its_pieces_and_of_length_one() -> None:
    made = embedding()
    alone = [made.read(word)[0] for word in ("my", "pass", "my pass")]
    assert np.allclose([float(vector @ vector) for vector in alone], 1, atol=1e-6)
    table, scale = made._table, made._scale
    expected = (table[4].astype(np.float32) + table[1]) * scale
    assert np.allclose(alone[2], expected / np.linalg.norm(expected), atol=1e-6)
    assert not made.read("zzz")[0].any()
    assert made.vectors([]).shape == (0, 16)


def test_only_the_beginning_of_a_text_is_read() -> None:
    made = embedding()
    text = "my pass " * 75
    assert len(text) == 600
    assert np.array_equal(made.read(text)[0], made.read(text + "cafe " * 1000)[0])
    assert np.array_equal(made.read(text)[1], made.read(text + "cafe " * 1000)[1])


def test_pairs_depend_on_the_order_of_their_words_and_words_do_not() -> None:
    one, other = set(ngrams([11, 22]).tolist()), set(ngrams([22, 11]).tolist())
    assert one & other == {11, 22}
    assert len(one ^ other) == 2


@given(st.text(max_size=900))
def test_every_text_has_a_vector(text: str) -> None:
    vector, grams = embedding().read(text)
    columns, signs = buckets(grams)
    assert vector.shape == (16,) and np.isfinite(vector).all()
    assert ((columns >= 0) & (columns < HASHED)).all() and set(np.unique(signs)) <= {-1.0, 1.0}


def test_half_a_character_is_read() -> None:
    assert np.isfinite(embedding().read("\ud800 my")[0]).all()


@pytest.mark.parametrize(
    ("table", "scale", "vocabulary"),
    [
        (np.zeros((9, 4), np.float32), np.ones(4, np.float32), VOCABULARY),
        (np.zeros((9, 4), np.int8), np.ones(5, np.float32), VOCABULARY),
        (np.zeros((8, 4), np.int8), np.ones(4, np.float32), VOCABULARY),
    ],
)
def test_tables_that_do_not_fit_are_refused(table: np.ndarray, scale: np.ndarray, vocabulary: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=re.escape("embedding")):
        StaticEmbedding(table, scale, vocabulary)


@given(st.text(max_size=600) | st.text("aβΣ\u0130\u00a0\u2003 _,.-水e\u0301", max_size=80))
def test_a_text_reads_as_the_chain_of_what_stands_between_its_blanks(text: str) -> None:
    made = embedding()
    rows = [row for word in split(text) for row in pieces(word, VOCABULARY)]
    expected = made._table.take(rows, axis=0).astype(np.float32).sum(axis=0) * made._scale
    for _ in range(2):  # words met for the first time, and again
        vector, grams = made._read(text)
        assert np.allclose(vector, expected / max(float(np.linalg.norm(expected)), 1e-12), atol=1e-5)
        assert np.array_equal(grams, ngrams([zlib.crc32(word.encode("utf-8", "replace")) for word in split(text)]))


def test_what_is_long_between_blanks_is_not_kept() -> None:
    made = embedding()
    made.read("my " + "pass" * 100 + " cafe")
    assert set(made._known) == {"my", "cafe"}


def test_forgetting_words_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policies.embedding.REMEMBERED", 2)
    made = embedding()
    first = made.read("my pass cafe my ! pass")
    assert np.array_equal(first[0], made.read("my pass cafe my ! pass")[0])
    assert len(made._known) <= 2
