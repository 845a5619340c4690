"""Captures: sealed bytes open in their own place alone, and what is erased is in no file, whatever came before it."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path

import pytest
from captures import AT, Spy, capture, everything
from hypothesis import given, settings
from hypothesis import strategies as st

from compliance.masterkeys import NoMaster, create_key
from compliance.sealing import (
    PARTS,
    Place,
    SealBroken,
    commitment,
    framed,
    open_part,
    open_record_key,
    seal_part,
    seal_record_key,
)
from compliance.vault import Vault, VaultFailed

names = st.text(max_size=12)
places = st.builds(Place, names, names, st.integers(0, 9))
keys = st.binary(min_size=32, max_size=32)


# --- binding --------------------------------------------------------------------------------------------------


@given(keys, keys, places, places, st.sampled_from(PARTS), st.sampled_from(PARTS), st.binary(max_size=200))
def test_what_is_sealed_opens_with_its_key_in_its_place_and_nowhere_else(
    key: bytes, other_key: bytes, place: Place, other: Place, part: str, other_part: str, data: bytes
) -> None:
    sealed = seal_part(key, part, data, place)
    assert open_part(key, part, sealed, place) == data
    for wrong in ((other_key, part, place), (key, other_part, place), (key, part, other)):
        if wrong != (key, part, place):
            with pytest.raises(SealBroken):
                open_part(wrong[0], wrong[1], sealed, wrong[2])
    with pytest.raises(SealBroken):
        open_record_key(key, sealed, place)  # nor as what it is not
    if other != place:
        with pytest.raises(SealBroken):
            open_record_key(key, seal_record_key(key, other_key, place), other)


@given(keys, places, st.binary(max_size=60), st.data())
def test_no_changed_cut_or_longer_ciphertext_opens(key: bytes, place: Place, data: bytes, draw: st.DataObject) -> None:
    sealed = seal_part(key, "sent", data, place)
    at = draw.draw(st.integers(0, len(sealed) - 1))
    flip = draw.draw(st.integers(1, 255))
    more = draw.draw(st.binary(min_size=1, max_size=5))
    for changed in (
        sealed[:at] + bytes([sealed[at] ^ flip]) + sealed[at + 1 :],
        sealed[:at],
        sealed + more,
        more + sealed,
    ):
        with pytest.raises(SealBroken):
            open_part(key, "sent", changed, place)


@given(st.lists(names, max_size=5), st.lists(names, max_size=5))
def test_no_two_lists_of_names_are_bound_alike(one: list[str], two: list[str]) -> None:
    assert (framed(*one) == framed(*two)) == (one == two)


@given(
    keys, places, places, st.sampled_from(PARTS), st.sampled_from(PARTS), st.binary(max_size=50), st.binary(max_size=50)
)
def test_a_commitment_is_to_these_bytes_in_this_part_of_this_attempt(
    key: bytes, place: Place, other: Place, part: str, other_part: str, data: bytes, other_data: bytes
) -> None:
    same = (place, part, data) == (other, other_part, other_data)
    assert (commitment(key, part, data, place) == commitment(key, other_part, other_data, other)) == same


# --- rows of the file ------------------------------------------------------------------------------------------

COLUMNS = [("keys", "wrapped"), ("records", "sealed"), ("captures", "sealed")]


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(COLUMNS), st.data())
def test_no_row_can_stand_in_anothers_place(column: tuple[str, str], draw: st.DataObject) -> None:
    """Two ciphertexts of a column are swapped: neither is taken for the other, and all others open as before."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        master = _master(directory)
        vault = Vault(directory / "v.db", master)
        vault.put([capture(f"r{number}", subject=f"s{number % 3}", attempt=number % 2) for number in range(6)])
        vault.close()
        table, blob = column
        key = "id" if table == "keys" else "request || attempt" + (" || part" if table == "captures" else "")
        with sqlite3.connect(directory / "v.db") as db:
            rows = db.execute(f"SELECT {key}, {blob} FROM {table} ORDER BY 1").fetchall()
            one, two = draw.draw(st.lists(st.sampled_from(rows), min_size=2, max_size=2, unique=True))
            for row, other in ((one, two), (two, one)):
                db.execute(f"UPDATE {table} SET {blob} = ? WHERE {key} = ?", (other[1], row[0]))
        db.close()
        again = Vault(directory / "v.db", master)
        read = broken = 0
        for number in range(6):
            try:
                opened = again.read(f"r{number}")
            except VaultFailed:
                broken += 1
                continue
            read += 1
            assert [piece.data for piece in opened] == [
                f"{part} of r{number}, about s{number % 3}".encode() for part in PARTS
            ]
        again.close()
        assert broken >= 1 and read + broken == 6
        assert read >= 6 - (4 if table == "keys" else 2)


# --- erasure ---------------------------------------------------------------------------------------------------

steps = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 3), st.integers(0, 2), st.sampled_from([5, 400, 9000])),
    st.tuples(st.just("erase"), st.sampled_from(["subject", "tenant", "request"]), st.integers(0, 5), st.just(0)),
    st.tuples(st.just("purge"), st.integers(0, 30), st.just(0), st.just(0)),
)


@settings(max_examples=30, deadline=None)
@given(st.lists(steps, min_size=1, max_size=25))
def test_law_what_is_erased_is_in_no_file_and_all_else_can_be_read(script: list[tuple]) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        master = _master(directory)
        workers = [Vault(directory / "v.db", master) for _ in range(2)]
        hand = Vault(directory / "v.db", NoMaster())
        living: dict[str, tuple[str, str, int]] = {}
        gone: set[str] = set()
        clock = AT
        for number, (what, *given_) in enumerate(script):
            clock += 1_000_000
            if what == "put":
                subject, tenant, size = f"s{given_[0]}" if given_[0] else "", f"t{given_[1]}", given_[2]
                one = capture(f"r{number}", subject=subject, tenant=tenant, at=clock)
                one.parts = {part: data * (size // 5) for part, data in one.parts.items()}
                assert workers[number % 2].put([one])[0].state == "kept"
                living[one.request] = (subject, tenant, clock)
            elif what == "erase":
                scope = given_[0]
                value = f"{ {'subject': 's', 'tenant': 't', 'request': 'r'}[scope] }{given_[1]}"
                place = {"subject": 0, "tenant": 1}.get(scope)
                dead = {r for r, row in living.items() if (r == value if place is None else row[place] == value)}
                assert hand.erase(scope, value, at=clock).records == len(dead)
                gone |= dead
            else:
                before = AT + given_[0] * 1_000_000
                dead = {request for request, row in living.items() if row[2] < before}
                assert hand.purge(before, lambda item: None).records == len(dead)
                gone |= dead
            living = {request: row for request, row in living.items() if request not in gone}
        _nothing_is_left(directory, master, living, gone, hand)
        for vault in (*workers, hand):
            vault.close()


def _nothing_is_left(directory: Path, master: Spy, living: dict, gone: set[str], hand: Vault) -> None:
    """With the master key at hand: every key that opens something belongs to what lives."""
    hand.erase("request", "of nobody", at=AT)  # cuts the write-ahead log, as every erasure does
    reader = Vault(directory / "v.db", master)
    assert all(len(reader.read(request)) == 3 for request in living)
    assert all(reader.read(request) == [] for request in gone)
    reader.close()
    with sqlite3.connect(directory / "v.db") as db:
        kept = {bytes(row[0]) for row in db.execute("SELECT wrapped FROM keys")}
        requests = {row[0] for row in db.execute("SELECT request FROM records UNION SELECT request FROM captures")}
    db.close()
    assert requests == set(living)
    left = everything(directory)
    for blob in master.wrapped:
        if blob not in kept:
            assert blob not in left and blob[:24] not in left and blob[-24:] not in left


def _master(directory: Path) -> Spy:
    create_key(directory / "vault.key")
    return Spy(directory / "vault.key")
