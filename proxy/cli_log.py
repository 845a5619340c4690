"""The command line's own log: changes that it makes, and every look into the logs, are records of the slot `cli`.

A look is recorded before anything of it is shown; where that cannot be done, it is refused.  `--unrecorded` lets it go
on where no record can be made (a copy on read-only storage, an auditor's account), and whatever is printed then says
so; where a record can be made it is made all the same, so that the option hides nothing.  `verify` and `checkpoint`
show no records, only sizes and roots: they always answer, and say on standard error if that could not be recorded,
since a log that is damaged must not be able to keep that to itself.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from proxy.terminal import fail, say

if TYPE_CHECKING:
    from proxy.config import Settings
    from proxy.control_log import Pen

UnrecordedOption = Annotated[
    bool,
    typer.Option(
        "--unrecorded",
        help="Look even where no record of it can be made, as in a read-only copy; the output says so.",
    ),
]


class NotRecorded(Exception):
    """The command line's log cannot be written; the message says why."""


def record(settings: Settings, entry: Any) -> None:
    """One record, on the disk; raises `NotRecorded`."""
    from compliance.journal import JournalError
    from proxy.control_log import pen

    _need_key(settings)
    try:
        with pen(settings) as log:
            log.write(entry)
    except JournalError as error:
        raise NotRecorded(str(error)) from None
    except OSError as error:
        raise NotRecorded(f"{error.filename or settings.audit.dir}: {error.strerror}") from None


def _need_key(settings: Settings) -> None:
    """In a copy of logs no key is made, and no log is begun: it would look like one of theirs."""
    from proxy.app import signing_key_path

    path = signing_key_path(settings)
    if not path.exists() and any(Path(settings.audit.dir).glob("*/key.pub")):
        raise NotRecorded(f"{path}, the key that signs the logs, is not there, as in a copy")


@contextlib.contextmanager
def changing(settings: Settings) -> Iterator[Pen]:
    """The log, open before something is changed: where no record can be made, nothing is changed, and the command ends."""
    from compliance.journal import JournalError
    from proxy.control_log import pen

    entered = False
    try:
        _need_key(settings)
        with pen(settings) as log:
            entered = True
            yield log
    except (JournalError, NotRecorded, OSError) as error:
        words = error.strerror if isinstance(error, OSError) else str(error)
        if entered:
            fail(f"the change is in force, but its record could not be written: {words}", 1)
        fail(f"nothing was changed, since no record of it can be made: {words}", 1)


def now() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000


class Look:
    """What a command is about to show of the logs."""

    def __init__(self, settings: Settings, command: str, *, unrecorded: bool = False) -> None:
        self._settings = settings
        self._command = command
        self._unrecorded = unrecorded
        self.recorded = False

    def record(self, *, always: bool = False, **fields: Any) -> bool:
        """Make the record of this look; False: it could not be made, and the look may go on.

        `always`: the look goes on whatever happens (see above).  Else, without --unrecorded, that is the end.
        """
        from compliance.records import LogAccess
        from proxy.fingerprints import account

        try:
            record(self._settings, LogAccess(actor=account(), at=now(), command=self._command, **fields))
        except NotRecorded as why:
            if not always and not self._unrecorded:
                fail(
                    f"this look cannot be recorded, so nothing is shown: {why}; run it as the account that owns"
                    f" {self._settings.audit.dir}, or on a copy that cannot be written with --unrecorded",
                    1,
                )
            say(f"no record of this look was made: {why}", "yellow")
            return False
        self.recorded = True
        return True
