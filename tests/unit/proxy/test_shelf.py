"""What was compiled is loaded again, and nothing that anybody else could have written."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hyperscan
import pytest

from compliance.detectors import compiled
from compliance.detectors.compiled import database
from proxy.state.shelf import MAX_FILES, FileShelf, Shelves, user_shelf

KEY = "0" * 64
FLAGS = [hyperscan.HS_FLAG_DOTALL]


@pytest.fixture
def shelf(tmp_path: Path) -> FileShelf:
    compiled._database.cache_clear()
    return FileShelf(tmp_path / "cache")


def matches(found: object, text: bytes) -> list[int]:
    ends: list[int] = []
    found.scan(  # type: ignore[attr-defined]
        text,
        match_event_handler=lambda _i, _s, end, _f, _c: ends.append(end),
        scratch=hyperscan.Scratch(found),
    )
    return ends


def test_what_was_kept_is_loaded(shelf: FileShelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert matches(database([rb"ab\d"], FLAGS, shelf), b"xab1") == [4]
    (kept,) = (tmp_path / "cache").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    compiled._database.cache_clear()
    loaded = []
    monkeypatch.setattr(
        compiled.hyperscan,
        "loadb",
        lambda data, mode, real=hyperscan.loadb: loaded.append(len(data)) or real(data, mode),
    )
    assert matches(database([rb"ab\d"], FLAGS, shelf), b"xab1") == [4]
    assert loaded == [kept.stat().st_size]


@pytest.mark.parametrize("damage", [b"", b"junk", None])
def test_a_damaged_file_costs_time_and_nothing_else(shelf: FileShelf, tmp_path: Path, damage: bytes | None) -> None:
    database([b"abc"], FLAGS, shelf)
    (kept,) = (tmp_path / "cache").iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]) if damage is None else damage)
    compiled._database.cache_clear()
    assert matches(database([b"abc"], FLAGS, shelf), b"abc") == [3]


def test_what_others_may_write_is_not_read(shelf: FileShelf, tmp_path: Path) -> None:
    shelf.put(KEY, b"x")
    assert shelf.get(KEY) == b"x"
    file = tmp_path / "cache" / f"{KEY}.hs"
    file.chmod(0o620)
    assert shelf.get(KEY) is None
    file.chmod(0o600)
    (tmp_path / "cache").chmod(0o777)
    assert shelf.get(KEY) is None
    shelf.put("1" * 64, b"y")
    assert not (tmp_path / "cache" / f"{'1' * 64}.hs").exists()


def test_links_are_not_followed(shelf: FileShelf, tmp_path: Path) -> None:
    shelf.put(KEY, b"x")
    file = tmp_path / "cache" / f"{KEY}.hs"
    file.rename(tmp_path / "other")
    file.symlink_to(tmp_path / "other")
    assert shelf.get(KEY) is None


def test_law_10_the_shelf_is_bounded(shelf: FileShelf, tmp_path: Path) -> None:
    for number in range(MAX_FILES + 5):
        shelf.put(f"{number:064}", b"x")
    assert len(list((tmp_path / "cache").iterdir())) == MAX_FILES


def test_where_there_is_no_place_nothing_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    shelf = FileShelf(tmp_path / "file" / "cache")
    shelf.put(KEY, b"x")
    assert shelf.get(KEY) is None
    assert user_shelf({}) is None
    assert user_shelf({"XDG_CACHE_HOME": "relative"}) is None
    assert user_shelf({"HOME": str(tmp_path)}) is not None


def test_of_two_shelves_either_gives_and_the_first_that_can_keeps(tmp_path: Path) -> None:
    first, second = FileShelf(tmp_path / "one"), FileShelf(tmp_path / "two")
    both = Shelves(first, second)
    second.put("a", b"there")
    both.put("b", b"new")
    assert (both.get("a"), both.get("b"), both.get("c")) == (b"there", b"new", None)
    assert first.has("b") and not second.has("b")
    mapped = both.mapped("a")
    assert mapped is not None and bytes(mapped) == b"there" and mapped.readonly
    (tmp_path / "file").write_text("x")
    unwritable = Shelves(FileShelf(tmp_path / "file"), second)
    unwritable.put("c", b"kept elsewhere")
    assert second.get("c") == b"kept elsewhere"
    with unwritable.alone():  # what cannot be locked is made all the same
        pass


def test_only_one_at_a_time_makes_something(tmp_path: Path) -> None:
    """Also among threads of one process: each call opens the lock anew."""
    shelf = FileShelf(tmp_path / "cache")
    inside: list[int] = []
    most: list[int] = []

    def make(_: int) -> None:
        with shelf.alone():
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(make, range(8)))
    assert most == [1] * 8


def test_an_empty_file_and_a_missing_one_are_not_mapped(shelf: FileShelf, tmp_path: Path) -> None:
    assert shelf.mapped("none") is None and shelf.path("none") is None
    shelf.put("empty", b"")
    assert shelf.mapped("empty") is None and shelf.path("empty") is not None
