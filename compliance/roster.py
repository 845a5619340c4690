"""The roster: one signed note over every slot's origin, size and root, so that no whole slot can vanish unseen (effects: files).

Beside the slots, in the directory of the logs:

    roster        the newest
    rosters       those kept of before, one at most every `HISTORY` seconds, each ended by a blank line; append-only
    roster.pub    the key (C2SP verifier key)

The text of a roster (C2SP signed-note, signed under its own name by the key of the logs):

    INSTANCE/roster
    NUMBER                   counts the rosters of this instance
    TIME                     microseconds since the epoch
    PREVIOUS                 base64 of the SHA-256 of the last note in `rosters`, of nothing where there is none
    ORIGIN SIZE ROOT         of each slot, by origin: what its newest signed checkpoint says; ROOT in base64

A slot that a roster named is in every later one, with no fewer records: a roster is not signed otherwise.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import time
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Struct

from compliance import checkpoints, notes
from compliance.checkpoints import BadNote, Checkpoint
from compliance.merkle import EMPTY_ROOT
from compliance.segments import sync_directory

HISTORY = 3600.0
"""Seconds between two rosters that are kept; the newest always is, and one with other slots.  Each says all that those
before it said, so more of them prove no more, and whoever verifies checks each signature: 9,000 a year."""


class RosterError(Exception):
    """No roster can be signed: what the slots say does not go on from what was signed before."""


class Roster(Struct, frozen=True):
    """What one roster says."""

    number: int
    at: int  # microseconds since the epoch
    previous: bytes
    entries: tuple[Checkpoint, ...]  # by origin


def sign_roster(
    directory: Path, instance: str, key: Ed25519PrivateKey, *, keep: bool = False, after: int = 0
) -> Roster | None:
    """Sign a roster over the slots below `directory`; None where nothing changed since the newest.

    `keep` adds it to those kept, whatever their age; `after`: the number of one that the caller knows was signed, so that
    nobody takes the rosters away and has them begun anew.  Any process may call it, one at a time does the work.  Raises
    `RosterError`, and `OSError`.
    """
    name = f"{instance}/roster"
    with open(directory / "roster.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        notes.cut_torn(directory / "rosters")
        kept = notes.last(directory / "rosters")
        newest = read_newest(directory, key.public_key())
        entries = _entries(directory, key.public_key())
        if after > (newest.number if newest is not None else 0):
            raise RosterError(f"roster number {after} was taken away")
        if newest is not None:
            _check_continues(newest, entries)
            if entries == newest.entries and not (keep and kept != (directory / "roster").read_bytes()):
                return None
        at = max(time.time_ns() // 1000, newest.at if newest else 0)
        roster = Roster(newest.number + 1 if newest else 1, at, hashlib.sha256(kept).digest(), entries)
        note = _note(name, roster, key)
        _replace(directory / "roster.pub", checkpoints.verifier_key(name, key.public_key()).encode() + b"\n")
        _replace(directory / "roster", note)
        if keep or _is_due(kept, name, roster, key.public_key()):
            with open(directory / "rosters", "ab") as file:
                file.write(note + b"\n")
                file.flush()
                os.fsync(file.fileno())
        return roster


def read_newest(directory: Path, key: Ed25519PublicKey) -> Roster | None:
    """The newest roster, once its signature is verified; raises `RosterError` where it does not fit."""
    try:
        note = (directory / "roster").read_bytes()
    except FileNotFoundError:
        return None
    return open_roster(note, key)


def open_roster(note: bytes, key: Ed25519PublicKey) -> Roster:
    """What a roster says, once its signature is verified; raises `RosterError`."""
    name = note.partition(b"\n")[0].decode("utf-8", "replace")
    try:
        _, number, at, previous, *lines = checkpoints.open_text(note, name, key).split("\n")[:-1]
        entries = [line.rsplit(" ", 2) for line in lines]
        return Roster(
            int(number),
            int(at),
            base64.b64decode(previous),
            tuple([Checkpoint(origin, int(size), base64.b64decode(root)) for origin, size, root in entries]),
        )
    except ValueError as error:  # a note that is none, too
        raise RosterError(f"not a roster of this key: {error}") from None


def _entries(directory: Path, key: Ed25519PublicKey) -> tuple[Checkpoint, ...]:
    """The newest signed checkpoint of every slot, by origin."""
    found = []
    for public in directory.glob("*/key.pub"):
        origin = public.read_text().split("+", 1)[0]
        note = notes.last(public.with_name("checkpoints"))
        try:
            found.append(checkpoints.open_note(note, origin, key) if note else Checkpoint(origin, 0, EMPTY_ROOT))
        except BadNote as error:
            raise RosterError(f"{public.parent}: {error}") from None
    return tuple(sorted(found, key=lambda entry: entry.origin))


def _check_continues(newest: Roster, entries: tuple[Checkpoint, ...]) -> None:
    now = {entry.origin: entry for entry in entries}
    for before in newest.entries:
        after = now.get(before.origin)
        if after is None:
            raise RosterError(f"the log of {before.origin} is gone; the last roster named it")
        if after.size < before.size or (after.size == before.size and after.root != before.root):
            raise RosterError(f"the log of {before.origin} is not what the last roster said")


def _is_due(kept: bytes, name: str, roster: Roster, key: Ed25519PublicKey) -> bool:
    """Is it time to keep one, or are other slots in it than in the last that was kept?"""
    if not kept:
        return True
    last = open_roster(kept, key)
    others = {entry.origin for entry in last.entries} != {entry.origin for entry in roster.entries}
    return others or roster.at - last.at >= HISTORY * 1_000_000


def _note(name: str, roster: Roster, key: Ed25519PrivateKey) -> bytes:
    lines = [name, str(roster.number), str(roster.at), base64.b64encode(roster.previous).decode()]
    lines += [f"{entry.origin} {entry.size} {base64.b64encode(entry.root).decode()}" for entry in roster.entries]
    return checkpoints.sign_text(name, "\n".join(lines) + "\n", key)


def _replace(path: Path, content: bytes) -> None:
    if path.exists() and path.read_bytes() == content:
        return
    part = path.with_name(f"{path.name}.part")
    with open(part, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync_directory(path.parent)
