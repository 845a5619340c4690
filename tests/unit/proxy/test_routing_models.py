"""What was fitted is kept, and taken only for what it was made of."""

import subprocess
import sys
from pathlib import Path

import pytest

from policies.semantic import Semantics
from proxy.config_routes import RoutePart
from proxy.routing_models import load_embedding, semantics
from proxy.routing_names import routes_key
from proxy.state.shelf import FileShelf

ROOT = Path(__file__).resolve().parents[3]
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


def test_what_is_kept_is_mapped_and_only_this_user_may_read_it(tmp_path: Path) -> None:
    shelf = FileShelf(tmp_path / "cache", ".routes")
    found = semantics(PARTS, shelf)
    assert found is not None and not found.fitted.vectors.flags.writeable
    (file,) = (tmp_path / "cache").glob("*.routes")
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert file.stem == routes_key(PARTS)
    assert str(file) in Path("/proc/self/maps").read_text()
    file.chmod(0o666)  # others might have written to it
    fitted: list[int] = []
    assert semantics(PARTS, shelf, fitting=fitted.append) is not None
    assert fitted == [6]


def test_of_those_who_start_at_once_one_fits_and_the_others_take_what_it_made(tmp_path: Path) -> None:
    """Four processes; a fit is slow enough for each to come in its middle."""
    code = """
import sys, time
import policies.semantic, proxy.routing_models as models
from pathlib import Path
from proxy.config_routes import RoutePart
from proxy.state.shelf import FileShelf
learn = models.learn
def slow(*given):
    print("fits", flush=True)
    time.sleep(0.5)
    return learn(*given)
models.learn = slow
parts = [RoutePart(name=n, description=n, utterances=(f"{n} one", f"{n} two", f"{n} three")) for n in ("apples", "pears")]
print("ready", flush=True)
sys.stdin.readline()
print(models.semantics(parts, FileShelf(Path(sys.argv[1]), ".routes")).place("pears").route, flush=True)
"""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "cache")], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]  # fmt: skip
    for one in started:
        assert one.stdout is not None and one.stdout.readline() == "ready\n"
    for one in started:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    said = [one.communicate(timeout=60)[0].split() for one in started]
    assert sorted(map(len, said)) == [1, 1, 1, 2]
    assert {one[-1] for one in said} == {"pears"}


def test_the_name_of_what_is_fitted_is_of_all_that_it_is_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    name = routes_key(PARTS)
    other = PARTS[0].model_copy(update={"negatives": ("let us play cards",)})
    names = {name, routes_key(PARTS[::-1]), routes_key((other, PARTS[1])), routes_key(PARTS, second=True)}
    monkeypatch.setattr("proxy.routing_names.VERSION", "routes 0")
    names.add(routes_key(PARTS))
    monkeypatch.setattr("proxy.routing_names.embedding_hash", lambda: "another")
    names.add(routes_key(PARTS))
    assert len(names) == 6


def test_without_routes_there_is_nothing_to_load() -> None:
    assert semantics(()) is None
