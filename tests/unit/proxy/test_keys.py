"""Virtual keys in a real SQLite file: only hashes are kept, and a revoked key opens nothing."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from proxy.auth import digest
from proxy.keyring import Keyring
from proxy.state.keys import LONGEST_NAME, KeyStore, NoSuchKey


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path / "state" / "keys.db")


def test_a_key_is_shown_once_and_kept_as_its_hash(store: KeyStore, tmp_path: Path) -> None:
    token, row = store.create("app", project="triage", models=["small"], boundaries=["local"], tenant="care")
    assert store.list() == [row] and row.id.startswith("key_")
    assert token not in repr(row)
    principal = store.snapshot()[digest(token)]
    assert (principal.key, principal.name, principal.project, principal.tenant) == (row.id, "app", "triage", "care")
    assert principal.models == {"small"} and principal.boundaries == {"local"}
    store.close()
    kept = b"".join(path.read_bytes() for path in (tmp_path / "state").iterdir())
    assert token.encode() not in kept and token.removeprefix("spw_").encode() not in kept


def test_only_the_owner_may_read_the_file(store: KeyStore, tmp_path: Path) -> None:
    store.create("app")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "state").iterdir()}
    assert "keys.db" in modes and set(modes.values()) == {0o600}
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_revoking_the_last_key_does_not_open_the_door(store: KeyStore) -> None:
    token, row = store.create("app")
    assert store.revoke(row.id) == [row.id]
    ring = Keyring(store.snapshot())
    assert not ring.is_open
    assert ring.authenticate(token, time.time_ns() // 1000, loopback=True) is None
    assert ring.authenticate(None, time.time_ns() // 1000, loopback=True) is None
    assert store.list()[0].revoked is not None


def test_a_key_is_revoked_by_its_name_too(store: KeyStore) -> None:
    ids = {store.create("app")[1].id for _ in range(2)}
    kept = store.create("other")[1].id
    assert set(store.revoke("app")) == ids
    assert [row.id for row in store.list() if row.revoked is None] == [kept]


def test_what_cannot_be_revoked_is_said_and_a_pasted_key_is_not_repeated(store: KeyStore) -> None:
    token, row = store.create("app")
    with pytest.raises(NoSuchKey, match="id or name, not the key") as pasted:
        store.revoke(token)
    assert token not in str(pasted.value)
    with pytest.raises(NoSuchKey, match="'nobody'"):
        store.revoke("nobody")
    store.revoke(row.id)
    with pytest.raises(NoSuchKey, match="in force"):
        store.revoke(row.id)


def test_a_key_ends_with_its_time(store: KeyStore) -> None:
    token, _ = store.create("app", expires=2_000)
    ring = Keyring(store.snapshot())
    assert ring.authenticate(token, 2_000_000_000 - 1, loopback=False) is not None
    assert ring.authenticate(token, 2_000_000_000, loopback=False) is None


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\x1b[31m", "x" * (LONGEST_NAME + 1)])
def test_a_name_that_could_not_be_listed_is_refused(store: KeyStore, name: str) -> None:
    with pytest.raises(ValueError, match="printable"):
        store.create(name)
    assert store.list() == []


def test_what_another_process_changed_is_noticed(store: KeyStore, tmp_path: Path) -> None:
    token, row = store.create("app")
    store.changed()
    assert not store.changed()
    script = "import sys; from pathlib import Path; from proxy.state.keys import KeyStore; KeyStore(Path(sys.argv[1])).revoke(sys.argv[2])"
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "state" / "keys.db"), row.id],
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])},
    )
    assert store.changed() and not store.changed()
    assert Keyring(store.snapshot()).authenticate(token, time.time_ns() // 1000, loopback=True) is None


def test_many_may_make_keys_at_once(tmp_path: Path) -> None:
    path = tmp_path / "keys.db"
    KeyStore(path).close()

    def make(number: int) -> None:
        store = KeyStore(path)
        for index in range(5):
            store.create(f"{number}-{index}")
        store.close()

    threads = [threading.Thread(target=make, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store = KeyStore(path)
    assert len({row.id for row in store.list()}) == len(store.snapshot()) == 30
