"""The vault: what is kept can be read, erased data leave no key and no byte, and every key service failure is said."""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
from pathlib import Path

import pytest
from captures import AT, Spy, capture, everything, sealed_keys

from compliance.captures import Item
from compliance.masterkeys import CommandMaster, FileMaster, MasterKeyFailed, NoMaster, create_key
from compliance.sealing import PARTS
from compliance.vault import Held, Vault, VaultFailed


@pytest.fixture
def master(tmp_path: Path) -> Spy:
    create_key(tmp_path / "vault.key")
    return Spy(tmp_path / "vault.key")


def test_what_was_put_is_read_by_another_worker_with_its_commitments(tmp_path: Path, master: Spy) -> None:
    one, two = Vault(tmp_path / "v.db", master), Vault(tmp_path / "v.db", FileMaster(tmp_path / "vault.key"))
    kept = one.put([capture("r1"), capture("r1", attempt=1), capture("r2", subject="")])
    assert [row.state for row in kept] == ["kept"] * 3
    assert kept[0].key == kept[1].key != kept[2].key  # a data key for each subject, else for each tenant
    opened = two.read("r1")
    assert [(row.attempt, row.part, row.data) for row in opened] == [
        (attempt, part, f"{part} of r1, about s1".encode()) for attempt in (0, 1) for part in PARTS
    ]
    assert [row.commitment for row in opened[:3]] == [kept[0].commitments[part] for part in PARTS]
    assert two.read("r9") == []
    assert len(master.wrapped) == 2
    item = two.items("request", "r2")[0]
    assert two.committed(item, "sent", b"sent of r2, about ") == kept[2].commitments["sent"]
    assert two.committed(item, "sent", b"sent of r2, about") != kept[2].commitments["sent"]
    one.close()
    two.close()


def test_nothing_of_the_content_stands_in_the_files_and_only_the_owner_reads_them(tmp_path: Path, master: Spy) -> None:
    vault = Vault(tmp_path / "v.db", master)
    vault.put([capture("r1")])
    assert b"about s1" not in everything(tmp_path) and b"original of" not in everything(tmp_path)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("v.db*")} == {0o600}
    vault.close()
    (tmp_path / "v.db").chmod(0o640)
    with pytest.raises(VaultFailed, match="can be read by others"):
        Vault(tmp_path / "v.db", master)
    assert "about" not in repr(capture("r1")) and "about" not in repr(Vault)


def test_parts_that_are_not_kept_are_committed_to_all_the_same(tmp_path: Path, master: Spy) -> None:
    vault = Vault(tmp_path / "v.db", master)
    (kept,) = vault.put([capture("r1")], [])
    assert kept.parts == () and set(kept.commitments) == set(PARTS) and vault.read("r1") == []
    assert (
        vault.committed(vault.items("request", "r1")[0], "original", b"original of r1, about s1")
        == kept.commitments["original"]
    )
    vault.close()


@pytest.mark.parametrize(
    ("scope", "value", "gone"), [("subject", "s1", {"a", "b"}), ("tenant", "lab", {"b", "c"}), ("request", "c", {"c"})]
)
def test_erasure_leaves_no_key_in_any_file_and_the_rest_as_it_was(
    tmp_path: Path, master: Spy, scope: str, value: str, gone: set[str]
) -> None:
    vault, worker = Vault(tmp_path / "v.db", NoMaster()), Vault(tmp_path / "v.db", master)
    worker.put(
        [capture("a"), capture("b", tenant="lab"), capture("c", subject="s2", tenant="lab"), capture("d", subject="")]
    )
    sealed, wrapped = sealed_keys(tmp_path / "v.db"), list(master.wrapped)
    assert all(blob in everything(tmp_path) for blob in (*sealed.values(), *wrapped))
    removed = vault.erase(scope, value, at=AT)
    assert (removed.records, removed.captures) == (len(gone), 3 * len(gone))
    left = everything(tmp_path)
    for request, blob in sealed.items():
        assert (blob in left) == (request not in gone)
        assert bool(worker.read(request)) == (request not in gone)
    assert sum(blob not in left for blob in wrapped) == removed.keys == (0 if scope == "request" else len(gone))
    assert (tmp_path / "v.db-wal").stat().st_size == 0
    for one in (vault, worker):
        one.close()


def test_what_was_on_its_way_when_its_subject_was_erased_is_not_kept_and_what_comes_later_is(
    tmp_path: Path, master: Spy
) -> None:
    worker = Vault(tmp_path / "v.db", master)
    worker.put([capture("a"), capture("other", subject="s2")])
    with_hand = Vault(tmp_path / "v.db", NoMaster())
    with_hand.erase("subject", "s1", at=AT + 10)
    with_hand.close()
    before, after, other = worker.put(
        [capture("b", at=AT + 10), capture("c", at=AT + 11), capture("d", subject="s2", at=AT + 1)]
    )
    assert (before.state, after.state, other.state) == ("erased", "kept", "kept")
    assert worker.read("b") == [] and len(worker.read("c")) == 3
    assert len(master.wrapped) == 3  # the worker did not go on under the key that was destroyed
    worker.close()


def test_a_hold_keeps_everything(tmp_path: Path, master: Spy) -> None:
    vault = Vault(tmp_path / "v.db", master)
    vault.put([capture("a"), capture("b")])

    def blocks(item: Item) -> object:
        return "hold" if item.request == "b" else None

    with pytest.raises(Held) as held:
        vault.erase("subject", "s1", blocks=blocks)
    assert held.value.hold == "hold"
    assert vault.read("a") and vault.read("b")
    assert vault.put([capture("c")])[0].state == "kept"
    vault.close()


def test_what_is_old_goes_but_for_what_is_held_and_keys_go_with_the_last_capture(tmp_path: Path, master: Spy) -> None:
    vault = Vault(tmp_path / "v.db", master)
    vault.put([capture(f"r{number}", subject=f"s{number % 7}", at=AT + number) for number in range(1300)])
    vault.put([capture("young", subject="s1", at=AT + 5000)])
    removed = vault.purge(AT + 5000, lambda item: item.subject == "s3")
    held = len(range(3, 1300, 7))
    assert (removed.records, removed.held, removed.captures, removed.keys) == (1300 - held, held, 3 * (1300 - held), 5)
    assert vault.read("young") and vault.read("r3") and not vault.read("r4")
    assert (tmp_path / "v.db-wal").stat().st_size == 0
    assert vault.purge(AT + 5000, lambda item: None).records == held
    assert sum(blob in everything(tmp_path) for blob in master.wrapped) == 1
    assert vault.put([capture("r2000", at=AT + 6000)])[0].state == "kept"
    vault.close()


def test_turns_are_taken_once(tmp_path: Path, master: Spy) -> None:
    one, two = Vault(tmp_path / "v.db", master), Vault(tmp_path / "v.db", master)
    assert one.turn("purge", 1000, 5000) and not two.turn("purge", 1000, 5999) and two.turn("purge", 1000, 6000)
    assert one.turn("purge", 1000, 10)  # the clock was set back
    one.close()
    two.close()


# --- master keys ----------------------------------------------------------------------------------------------


def test_a_master_keys_file_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "vault.key"
    with pytest.raises(MasterKeyFailed, match="vault init"):
        FileMaster(path)
    assert create_key(path) and not create_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    blob = FileMaster(path).wrap(b"k" * 64)
    assert FileMaster(path).unwrap(blob) == b"k" * 64 and b"k" * 16 not in blob
    with pytest.raises(MasterKeyFailed):
        FileMaster(path).unwrap(blob[:-1] + bytes([blob[-1] ^ 1]))
    for mode in (0o640, 0o604, 0o660):
        path.chmod(mode)
        with pytest.raises(MasterKeyFailed, match=f"chmod 600 {path}"):
            FileMaster(path)
    path.chmod(0o600)
    path.write_text("c2hvcnQ=")
    with pytest.raises(MasterKeyFailed, match="does not hold a key"):
        FileMaster(path)


SERVICE = """
import sys
what, data = sys.argv[-1], sys.stdin.buffer.read()
if what == "wrap":
    sys.stdout.buffer.write(b"v1:" + bytes(b ^ 0x5A for b in data))
elif data.startswith(b"v1:"):
    sys.stdout.buffer.write(bytes(b ^ 0x5A for b in data[3:]))
else:
    sys.exit(4)
"""


def test_a_command_keeps_the_master_key(tmp_path: Path) -> None:
    script = tmp_path / "kms.py"
    script.write_text(SERVICE)
    vault = Vault(tmp_path / "v.db", CommandMaster([sys.executable, str(script)]))
    vault.probe()
    vault.put([capture("a")])
    vault.close()
    again = Vault(tmp_path / "v.db", CommandMaster([sys.executable, str(script)]))
    assert len(again.read("a")) == 3
    again.close()
    with pytest.raises(MasterKeyFailed, match="ended with 4 on unwrap"):
        CommandMaster([sys.executable, str(script)]).unwrap(b"else")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["/nowhere/kms"], "cannot be run"),
        ([sys.executable, "-c", "pass"], "with nothing"),
        ([sys.executable, "-c", "print('x' * 100_000)"], "too much"),
        ([sys.executable, "-c", "import time; time.sleep(60)"], "did not wrap"),
    ],
)
def test_a_command_that_fails_loses_nothing_that_was_kept_before(
    tmp_path: Path, master: Spy, command: list[str], words: str
) -> None:
    good = Vault(tmp_path / "v.db", master)
    good.put([capture("a")])
    bad = Vault(tmp_path / "v.db", CommandMaster(command, seconds=0.5))
    with pytest.raises(VaultFailed, match=words):
        bad.put([capture("b", subject="s9"), capture("c", subject="s8")])
    with pytest.raises(VaultFailed):
        bad.probe()
    assert good.read("a") and not good.read("b")
    assert bad.erase("subject", "s1", at=AT).records == 1  # a key service that is away does not stand in its way
    good.close()
    bad.close()


@pytest.mark.parametrize("column", ["wrapped", "subject", "tenant"])
def test_a_data_key_cannot_be_given_to_somebody_else(tmp_path: Path, master: Spy, column: str) -> None:
    """Else who writes the file could have an erasure destroy another one's key."""
    vault = Vault(tmp_path / "v.db", master)
    vault.put([capture("a"), capture("b", subject="s2", tenant="lab")])
    vault.close()
    with sqlite3.connect(tmp_path / "v.db") as db:
        rows = db.execute(f"SELECT id, {column} FROM keys").fetchall()
        for (key_id, _), (_, value) in zip(rows, reversed(rows), strict=True):
            db.execute(f"UPDATE keys SET {column} = ? WHERE id = ?", (value, key_id))
    db.close()
    again = Vault(tmp_path / "v.db", master)
    for request in ("a", "b"):
        with pytest.raises(VaultFailed):
            again.read(request)
    again.close()


def test_a_file_that_is_no_database_is_said_without_its_content(tmp_path: Path, master: Spy) -> None:
    path = tmp_path / "v.db"
    path.write_bytes(os.urandom(9000))
    path.chmod(0o600)
    with pytest.raises(VaultFailed, match="file failed: DatabaseError"):
        Vault(path, master)
