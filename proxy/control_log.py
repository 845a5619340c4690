"""The log of what operators do: who holds, erases, asks and approves.  Written here record by record, each durable at once.

It is a slot of its own beside the workers' (`cli`), so what is in force is read from few records, whatever the traffic.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from compliance.journal import Journal, JournalError, JournalFailed, JournalLocked, load_or_create_key
from compliance.records import Started
from compliance.roster import RosterError, sign_roster
from proxy.app import instance_name, signing_key_path
from proxy.config import Settings
from proxy.fingerprints import account

SLOT = "cli"
OPEN_SECONDS = 10.0
"""How long one command waits for another one that writes."""
DURABLE_SECONDS = 10.0


class Pen:
    """An open log: each record is on the disk when `write` returns."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def write(self, record: Any) -> Any:
        """The record, as it stands in the log.  Raises `JournalError`."""
        seq = self._journal.append(record)
        until = time.monotonic() + DURABLE_SECONDS
        while self._journal.durable_seq < seq:
            if not self._journal.healthy or time.monotonic() > until:
                raise JournalFailed(self._journal.trouble or "the log could not be written in time")
            time.sleep(0.001)
        return record


@contextlib.contextmanager
def pen(settings: Settings) -> Iterator[Pen]:
    """The operators' log, open for writing; one command at a time has it.  Raises `JournalError`."""
    directory = Path(settings.audit.dir)
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = load_or_create_key(signing_key_path(settings))
        journal = _open(directory, f"{instance_name(directory)}/{SLOT}", key)
    except OSError as error:
        raise JournalFailed(f"the log in {directory} cannot be opened: {error.strerror}") from None
    try:
        if journal.unsigned or journal.unauthenticated:
            Pen(journal).write(_taken_over(journal))
        yield Pen(journal)
    finally:
        with contextlib.suppress(JournalError):  # whoever wrote something was told already
            journal.close()
        with contextlib.suppress(RosterError, OSError):  # the supervisor tells it
            sign_roster(directory, instance_name(directory), key)


def _taken_over(journal: Journal) -> Started:
    """Each command signs what it wrote when it ends.  What stands there unsigned was left by one that was killed, which the
    key vouches for; or it was added by somebody else who can write the file, and is set aside: this record says how much."""
    return Started(
        actor=account(), at=time.time_ns() // 1000, cut_bytes=journal.cut_bytes, instance=journal.origin, interrupted=0,
        lost_window_us=0, pid=os.getpid(), policy="", slot=SLOT, unauthenticated=journal.unauthenticated,
        unsigned=journal.unsigned, unvouched=journal.unvouched, version="",
    )  # fmt: skip


def _open(directory: Path, origin: str, key: Any) -> Journal:
    until = time.monotonic() + OPEN_SECONDS
    while True:
        try:
            return Journal.open(directory / SLOT, origin=origin, key=key)
        except JournalLocked:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
