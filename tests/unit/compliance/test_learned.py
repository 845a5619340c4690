from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest

import compliance
from compliance.detectors.learned import CHUNK, SIGHT, Learned
from compliance.detectors.learned_features import FEATURES, ROWS, Features
from compliance.detectors.lexicon import lexicon

LEARNED = Learned()
MODELS = Path(compliance.__file__).parent / "models"


def found(text: str) -> list[tuple[str, str]]:
    return [(span.type, text[span.start : span.end]) for span in LEARNED.find(text)]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Please draft a letter to Mrs. Ottilie Braunfels about her asthma inhaler.", "Ottilie Braunfels"),
        ("pt Kwabena Oduro seen today for chest pain, troponin negative", "Kwabena Oduro"),
        ("My patient Siobhan Kerrigan has been taking metformin since spring.", "Siobhan Kerrigan"),
    ],
)
def test_names_in_clinical_prose(text: str, name: str) -> None:
    names = [value for kind, value in found(text) if kind == "name"]
    assert any(name in value or value in name for value in names), names


def test_an_address_is_covered_from_its_number_to_its_street() -> None:
    text = "The patient lives at 4417 Larkspur Hollow Road, Cedar Bluff, and has hypertension."
    covered = "".join(value for kind, value in found(text) if kind in ("address", "place"))
    assert "4417" in covered
    assert "Larkspur" in covered


@pytest.mark.parametrize(
    "text",
    [
        "Compute the integral of x squared from zero to one and explain each step.",
        "def parse(node, items):\n    return [item.value for item in items if item.index > node.index]\n",
        "Addison's disease and the Framingham risk score are discussed in the chapter on endocrinology.",
        "",
        "\n\n\n",
    ],
)
def test_nobody_is_found_where_nobody_is_named(text: str) -> None:
    assert found(text) == []


def test_what_is_found_does_not_depend_on_where_a_chunk_ends() -> None:
    text = "Patient Siobhan Kerrigan was admitted with pneumonia. "
    tokens = len(Features(lexicon()).tokens(text)[0])
    alone = [(span.type, span.start, span.end) for span in LEARNED.find("The clinic is quiet. " + text)]
    assert alone
    for words in range(CHUNK - 2 * SIGHT - tokens, CHUNK + SIGHT, 5):
        before = "word " * words + "The clinic is quiet. "
        shifted = [(s.type, s.start - 5 * words, s.end - 5 * words) for s in LEARNED.find(before + text)]
        assert shifted == alone, words


def test_threads_share_a_model() -> None:
    texts = [f"Patient number {i} is called Siobhan Kerrigan and has asthma." for i in range(40)]
    expected = [LEARNED.find(text) for text in texts]
    results: dict[int, list[object]] = {}

    def work(slot: int) -> None:
        results[slot] = [LEARNED.find(text) for text in texts]

    threads = [threading.Thread(target=work, args=(slot,)) for slot in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(result == expected for result in results.values())


def test_a_model_for_other_features_is_refused(tmp_path: Path) -> None:
    with np.load(MODELS / "names.npz") as arrays:
        changed = dict(arrays)
    changed["table"] = changed["table"][:-1]
    np.savez(tmp_path / "other.npz", **changed)
    with pytest.raises(ValueError, match="other features"):
        Learned(tmp_path / "other.npz")


def test_the_training_record_is_that_of_the_artefact() -> None:
    record = json.loads((MODELS / "names.json").read_text())
    with np.load(MODELS / "names.npz") as arrays:
        assert arrays["table"].shape == (ROWS, record["width"])
        assert arrays["kernel1"].shape == (3, record["hidden"], record["hidden"])
        assert arrays["out"].shape[1] == len(record["labels"])
    assert record["steps"] > 0
    assert record["tokens"] > 1_000_000
    assert record["torch"]
    assert Features(lexicon()).tokens("one")[1][0].__len__() == FEATURES
