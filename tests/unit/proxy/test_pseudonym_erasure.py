"""Maps of pseudonyms by whose they are: a subject's or a tenant's are erased with every copy, and nothing brings them back."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from captures import everything

from compliance.pseudonyms import Scope
from proxy.state.pseudonyms import Owner, PseudonymStore, PseudonymTaken

NOW = 1_795_000_000.0


def store(path: Path, at: float = NOW) -> PseudonymStore:
    return PseudonymStore(path / "p.db", b"m" * 32, keep=10_000.0, values=1000, clock=lambda: at)


def keep(one: PseudonymStore, identity: str, owner: Owner | None, *values: str) -> Scope:
    scope = one.open(identity)
    for value in values:
        scope.pseudonym("name", value)
    one.keep(scope, owner)
    return scope


def sealed(path: Path) -> dict[str, bytes]:
    with sqlite3.connect(path / "p.db") as db:
        found = {
            f"{scope} {number}": bytes(blob)
            for number, (scope, blob) in enumerate(db.execute("SELECT scope, sealed FROM entries"))
        }
    db.close()
    return found


def test_maps_are_found_by_owner_and_gone_with_every_copy(tmp_path: Path) -> None:
    worker, hand = store(tmp_path), store(tmp_path)
    keep(worker, "a", Owner("clinic", "s1"), "Ann Lee", "Bo Ek")
    keep(worker, "b", Owner("clinic", "s2"), "Cy Orr")
    keep(worker, "c", Owner("lab", "s1"), "Di Po")
    keep(worker, "d", Owner("", ""), "El Ri")
    keep(worker, "a", Owner("clinic", "s3"))  # the conversation goes on about somebody else as well
    blobs = sealed(tmp_path)
    assert {one.scope for one in hand.maps(subject="s1")} == {"a", "c"}
    assert [(one.scope, one.subject, one.first, one.last) for one in hand.maps(tenant="clinic")] == [
        ("a", "s1", NOW, NOW), ("a", "s3", NOW, NOW), ("b", "s2", NOW, NOW),
    ]  # fmt: skip
    assert hand.maps(tenant="", subject="") == []
    assert all(blob in everything(tmp_path) for blob in blobs.values())
    assert hand.forget(["a", "c"]) == 2 and hand.forget(["a"]) == 0
    left = everything(tmp_path)
    assert {name.split()[0] for name, blob in blobs.items() if blob in left} == {"b", "d"}
    assert worker.known("a") == () and [one.value for one in worker.known("b")] == ["Cy Orr"]
    assert hand.maps(subject="s1") == [] and hand.maps(tenant="lab") == []
    worker.close()
    hand.close()


def test_what_was_on_its_way_does_not_bring_values_back(tmp_path: Path) -> None:
    worker, other, hand = store(tmp_path), store(tmp_path), store(tmp_path)
    keep(worker, "a", Owner("clinic", "s1"), "Ann Lee")
    under_way = worker.open("a")
    under_way.pseudonym("name", "Bo Ek")
    hand.forget(["a"])
    with pytest.raises(PseudonymTaken):  # so it is redacted again, in the scope as it is now
        worker.keep(under_way, Owner("clinic", "s1"))
    fresh = worker.open("a")
    assert fresh.known == ()
    fresh.pseudonym("name", "Cy Orr")
    worker.keep(fresh, Owner("clinic", "s1"))
    with pytest.raises(PseudonymTaken):
        worker.keep(under_way, Owner("clinic", "s1"))
    assert [one.value for one in other.known("a")] == ["Cy Orr"]
    for one in (worker, other, hand):
        one.close()


def test_a_map_in_memory_is_never_taken_for_the_one_that_came_after_it(tmp_path: Path) -> None:
    worker, other, hand = store(tmp_path), store(tmp_path), store(tmp_path)
    keep(other, "a", None, "Ann Lee")
    assert [one.value for one in worker.known("a")] == ["Ann Lee"]  # it is in this worker's memory now
    hand.forget(["a"])
    keep(other, "a", None, "Bo Ek")
    assert [one.value for one in worker.known("a")] == ["Bo Ek"]
    for one in (worker, other, hand):
        one.close()


def test_owners_expire_with_their_scope(tmp_path: Path) -> None:
    keep(store(tmp_path), "a", Owner("clinic", "s1"), "Ann Lee")
    later = store(tmp_path, NOW + 20_000)
    later.open("b")
    assert later.maps(subject="s1") == []
    later.close()
