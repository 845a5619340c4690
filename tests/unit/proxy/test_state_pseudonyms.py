"""The encrypted maps: kept, shared, bound to their scope, gone when their time is over."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import pytest

from proxy.state.pseudonyms import PseudonymsFailed, PseudonymStore, PseudonymTaken, load_or_create_key

KEY = b"m" * 32


class Clock:
    def __init__(self) -> None:
        self.now = 1_795_000_000.0

    def __call__(self) -> float:
        return self.now


def store(path: Path, *, key: bytes = KEY, clock: Clock | None = None, values: int = 1000) -> PseudonymStore:
    return PseudonymStore(path / "p.db", key, keep=10_000.0, values=values, clock=clock or Clock())


def test_what_was_kept_is_there_for_another_worker(tmp_path: Path) -> None:
    one, two = store(tmp_path), store(tmp_path)
    scope = one.open("a")
    made = [scope.pseudonym("name", "Ann Lee"), scope.pseudonym("ssn", "219-09-9999")]
    assert two.open("a").known == ()
    one.keep(scope)
    assert [(k.pseudonym, k.kind, k.value) for k in two.open("a").known] == [
        (made[0], "name", "Ann Lee"),
        (made[1], "ssn", "219-09-9999"),
    ]
    more = two.open("a")
    more.pseudonym("mrn", "A-1")
    two.keep(more)
    assert [known.value for known in one.open("a").known] == ["Ann Lee", "219-09-9999", "A-1"]
    assert one.open("b").known == ()
    assert one.open("b").pseudonym("name", "Ann Lee") != made[0]


def test_what_is_known_is_one_object_until_more_is_added_and_gone_when_its_time_is_over(tmp_path: Path) -> None:
    clock = Clock()
    one = store(tmp_path, clock=clock)
    scope = one.open("a")
    scope.pseudonym("name", "Ann Lee")
    one.keep(scope)
    known = one.known("a")
    assert [value.value for value in known] == ["Ann Lee"] and one.known("b") == ()
    assert one.known("a") is known
    more = one.open("a")
    more.pseudonym("mrn", "A-1")
    one.keep(more)
    assert len(one.known("a")) == 2
    clock.now += 20_000
    assert one.known("a") == ()


def test_scopes_are_of_whoever_calls(tmp_path: Path) -> None:
    names = {("t1", "k1", "s"), ("t1", "k2", "s"), ("t2", "k1", "s"), ("t1k1", "", "s"), ("t1", "k1s", "")}
    one = store(tmp_path)
    assert (
        one.identity("t1", "k1")
        == store(tmp_path).identity("t1", "k1")
        != store(tmp_path, key=b"o" * 32).identity("t1", "k1")
    )
    assert len({one.identity(*parts) for parts in names}) == len(names)


def test_a_pseudonym_that_another_worker_gave_away_is_not_given_twice(tmp_path: Path) -> None:
    one, two = store(tmp_path), store(tmp_path)
    first, second = one.open("a"), two.open("a")
    made = first.pseudonym("name", "Ann Lee")
    one.keep(first)
    second._taken.clear()
    second.added.append(type(first.added[0])(made, "name", "Somebody Else"))
    with pytest.raises(PseudonymTaken):
        two.keep(second)
    assert [known.value for known in two.open("a").known] == ["Ann Lee"]


def test_the_same_value_from_two_workers_is_one(tmp_path: Path) -> None:
    one, two = store(tmp_path), store(tmp_path)
    first, second = one.open("a"), two.open("a")
    assert first.pseudonym("name", "Ann Lee") == second.pseudonym("name", "ANN LEE")
    one.keep(first)
    two.keep(second)
    assert [known.value for known in one.open("a").known] == ["Ann Lee"]


def test_expiry_counts_from_the_last_use(tmp_path: Path) -> None:
    clock = Clock()
    one = store(tmp_path, clock=clock)
    scope = one.open("a")
    scope.pseudonym("name", "Ann Lee")
    one.keep(scope)
    clock.now += 9_000
    again = one.open("a")
    assert len(again.known) == 1
    one.keep(again)  # nothing new: it was used, and that is all
    clock.now += 9_000
    assert len(one.open("a").known) == 1
    clock.now += 10_001
    assert one.open("a").known == ()
    with sqlite3.connect(tmp_path / "p.db") as db:
        assert db.execute("SELECT count(*) FROM entries").fetchone() == (0,)


def test_a_scope_that_expired_in_the_middle_of_an_exchange_goes_on(tmp_path: Path) -> None:
    clock = Clock()
    one = store(tmp_path, clock=clock)
    scope = one.open("a")
    scope.pseudonym("name", "Ann Lee")
    one.keep(scope)
    scope = one.open("a")
    clock.now += 10_001
    scope.pseudonym("name", "Bo Ek")
    one.keep(scope)
    assert [known.value for known in one.open("a").known] == ["Ann Lee", "Bo Ek"]


def test_another_key_or_a_damaged_row_opens_nothing(tmp_path: Path) -> None:
    one = store(tmp_path)
    scope = one.open("a")
    scope.pseudonym("name", "Ann Lee")
    one.keep(scope)
    with pytest.raises(PseudonymsFailed):
        store(tmp_path, key=b"o" * 32).open("a")
    with sqlite3.connect(tmp_path / "p.db") as db:
        db.execute("UPDATE entries SET pseudonym = '[NAME_zzzz]'")  # bound to its place
    with pytest.raises(PseudonymsFailed):
        store(tmp_path).open("a")
    assert b"Ann" not in (tmp_path / "p.db").read_bytes()


def test_a_scope_does_not_grow_past_its_limit(tmp_path: Path) -> None:
    one, two = store(tmp_path, values=2), store(tmp_path, values=2)
    first, second = one.open("a"), two.open("a")
    for scope, name in ((first, "a"), (first, "b"), (second, "c")):
        scope.pseudonym("name", name)
    one.keep(first)
    with pytest.raises(PseudonymsFailed):
        two.keep(second)


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.state.pseudonyms.CACHED_VALUES", 5)
    one = store(tmp_path)
    for name in "abcdef":
        scope = one.open(name)
        scope.pseudonym("name", "x")
        scope.pseudonym("name", "y")
        one.keep(scope)
        assert len(one.open(name).known) == 2
        assert one._cached <= 5
    assert len(one.open("a").known) == 2


def test_the_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "key"
    key = load_or_create_key(path)
    assert len(key) == 32 and load_or_create_key(path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["key"]
    path.chmod(0o640)
    with pytest.raises(PseudonymsFailed, match="chmod 600"):
        load_or_create_key(path)
    path.chmod(0o600)
    path.write_text("c2hvcnQ=\n")
    with pytest.raises(PseudonymsFailed):
        load_or_create_key(path)


def test_a_store_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    (tmp_path / "p.db").write_bytes(b"this is no database, and long enough to be seen as none" * 20)
    with pytest.raises(PseudonymsFailed):
        store(tmp_path)
