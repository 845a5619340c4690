"""What was fitted is kept, and taken only for what it was made of."""

from pathlib import Path

import pytest

from policies.semantic import Semantics
from proxy.config_routes import RoutePart
from proxy.routing_models import load_embedding, semantics
from proxy.state.shelf import FileShelf

PARTS = (
    RoutePart(
        name="cards", description="lost cards", utterances=("I lost my card", "my card was stolen", "block my card")
    ),
    RoutePart(name="weather", description="rain and sun", utterances=("will it rain", "is it sunny", "how hot is it")),
)


def test_the_embedding_in_the_box_is_the_one_of_its_record() -> None:
    import hashlib

    import numpy as np

    from proxy.routing_models import MODEL

    _, version = load_embedding()
    assert hashlib.sha256(np.load(MODEL.with_suffix(".npy")).tobytes()).hexdigest() == version


def test_a_second_start_fits_nothing_and_places_alike(tmp_path: Path) -> None:
    shelf, fitted = FileShelf(tmp_path / "cache", ".routes"), []
    first = semantics(PARTS, shelf, fitting=fitted.append)
    again = semantics(PARTS, shelf, fitting=fitted.append)
    assert fitted == [6]
    assert isinstance(first, Semantics) and isinstance(again, Semantics)
    for text in ("somebody stole my card", "rain tomorrow?", "x"):
        assert first.place(text) == again.place(text)


def test_other_routes_are_fitted_anew(tmp_path: Path) -> None:
    shelf, fitted = FileShelf(tmp_path / "cache", ".routes"), []
    semantics(PARTS, shelf, fitting=fitted.append)
    changed = PARTS[0].model_copy(update={"utterances": (*PARTS[0].utterances, "freeze my card")})
    semantics((changed, PARTS[1]), shelf, fitting=fitted.append)
    assert fitted == [6, 7]


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 nothing", None])
def test_a_damaged_file_is_made_anew(tmp_path: Path, damage: bytes | None) -> None:
    shelf, fitted = FileShelf(tmp_path / "cache", ".routes"), []
    semantics(PARTS, shelf, fitting=fitted.append)
    (file,) = (tmp_path / "cache").glob("*.routes")
    file.write_bytes(file.read_bytes()[:-200] if damage is None else damage)
    assert semantics(PARTS, shelf, fitting=fitted.append) is not None
    assert fitted == [6, 6]


def test_without_routes_there_is_nothing_to_load() -> None:
    assert semantics(()) is None
