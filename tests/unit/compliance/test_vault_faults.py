"""The vault when things go wrong: a crash in the middle of an erasure, a full disk, workers that write meanwhile."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path

import pytest
from captures import AT, Spy, capture, everything, sealed_keys

from compliance.masterkeys import FileMaster, NoMaster, create_key
from compliance.vault import Vault, VaultFailed


@pytest.fixture
def master(tmp_path: Path) -> Spy:
    create_key(tmp_path / "vault.key")
    return Spy(tmp_path / "vault.key")


def test_an_erasure_that_a_crash_cut_short_has_destroyed_the_keys_and_is_done_again(
    tmp_path: Path, master: Spy, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = Vault(tmp_path / "v.db", master)
    vault.put([capture(f"r{number}") for number in range(5)])

    def crash(self: Vault) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(Vault, "_remove_orphans", crash)
    with pytest.raises(KeyboardInterrupt):
        vault.erase("subject", "s1", at=AT)
    monkeypatch.undo()
    assert vault.read("r1") == [] and vault.items("subject", "s1") == []
    with sqlite3.connect(tmp_path / "v.db") as db:
        assert db.execute("SELECT count(*) FROM captures").fetchone() == (15,)
    db.close()
    removed = vault.erase("subject", "s1", at=AT)
    assert (removed.keys, removed.records, removed.captures) == (0, 0, 15)
    assert not any(blob in everything(tmp_path) for blob in master.wrapped)
    vault.close()


def test_an_erasure_that_cannot_cut_the_log_says_so_and_can_be_done_again(
    tmp_path: Path, master: Spy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compliance.vault.CUT_SECONDS", 0.1)
    vault = Vault(tmp_path / "v.db", master)
    vault.put([capture("r1")])
    reader = sqlite3.connect(tmp_path / "v.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM keys").fetchone()  # somebody who still sees the file as it was
    with pytest.raises(VaultFailed, match="write-ahead log is in use"):
        vault.erase("subject", "s1", at=AT)
    reader.close()
    vault.erase("subject", "s1", at=AT)
    assert not any(blob in everything(tmp_path) for blob in master.wrapped)
    vault.close()


def test_a_full_disk_keeps_none_of_a_batch_and_all_that_was_there(tmp_path: Path, master: Spy) -> None:
    vault = Vault(tmp_path / "v.db", master)
    vault.put([capture("r1")])
    pages = vault._db.execute("PRAGMA page_count").fetchone()[0]
    vault._db.execute(f"PRAGMA max_page_count = {pages + 2}")
    big = [capture(f"big{number}") for number in range(50)]
    for one in big:
        one.parts = {part: data * 200 for part, data in one.parts.items()}
    with pytest.raises(VaultFailed, match="file failed"):
        vault.put(big)
    assert len(vault.read("r1")) == 3 and not any(vault.read(one.request) for one in big)
    assert vault.erase("request", "r1").records == 1  # there is always room to erase
    vault._db.execute("PRAGMA max_page_count = 1000000")
    assert {kept.state for kept in vault.put(big)} == {"kept"}
    vault.close()


def test_law_workers_that_write_while_a_subject_is_erased_keep_nothing_from_before_it(
    tmp_path: Path, master: Spy
) -> None:
    """Two workers write, a third hand erases again and again; each capture is kept whole, or gone with its keys."""
    hand = Vault(tmp_path / "v.db", NoMaster())
    kept: list[tuple[str, int]] = []
    erased_at: list[int] = []
    failures: list[BaseException] = []
    clock = iter(range(AT, AT + 10**9))
    lock = threading.Lock()

    def tick() -> int:
        with lock:
            return next(clock)

    def work(name: str) -> None:
        worker = Vault(tmp_path / "v.db", FileMaster(tmp_path / "vault.key"))
        try:
            for number in range(60):
                batch = [
                    capture(f"{name}{number}{who}", subject=who, at=tick()) for who in ("s1", "s2") for _ in range(1)
                ]
                for one, row in zip(batch, worker.put(batch), strict=True):
                    if row.state == "kept":
                        kept.append((one.request, one.at))
        except BaseException as error:  # noqa: BLE001  shown by the test's own thread
            failures.append(error)
        finally:
            worker.close()

    threads = [threading.Thread(target=work, args=(name,)) for name in ("x", "y")]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        at = tick()
        hand.erase("subject", "s1", at=at)
        erased_at.append(at)
        time.sleep(0.02)  # SQLite's turns are not fair: without a pause the workers would hardly get any
    for thread in threads:
        thread.join()
    assert failures == []
    reader = Vault(tmp_path / "v.db", master)
    last = erased_at[-1]
    for request, at in kept:
        readable = len(reader.read(request))
        assert readable == 3 if request.endswith("s2") else readable in ((0,) if at <= last else (0, 3))
    assert sum(len(reader.read(request)) == 3 for request, _ in kept if request.endswith("s2")) == 120
    hand.erase("subject", "s1", at=tick())
    left = everything(tmp_path)
    living = sealed_keys(tmp_path / "v.db")
    assert len(living) == 120 and all(blob in left for blob in living.values())
    with sqlite3.connect(tmp_path / "v.db") as db:
        assert db.execute("SELECT DISTINCT subject FROM keys").fetchall() == [("s2",)]
    db.close()
    reader.close()
    hand.close()
