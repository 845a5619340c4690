"""Signs the roster over all slots, as often as they sign their checkpoints.  Runs in the supervisor, off the path of requests."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from compliance.journal import CHECKPOINT_INTERVAL, JournalError, load_or_create_key
from compliance.roster import RosterError, sign_roster
from proxy.config import Settings
from proxy.instance import instance_name, signing_key_path

log = logging.getLogger("spillway")


class Rosters:
    """The roster of one instance.  What goes wrong is told once, and tried again."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._told = ""
        self._last = 0  # the number of the newest that was signed here

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(CHECKPOINT_INTERVAL)
            await asyncio.to_thread(self.sign)

    def sign(self, *, keep: bool = False) -> None:
        """Sign one where something changed; never raises what the logs or the disk are the cause of."""
        directory = Path(self._settings.audit.dir)
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            key = load_or_create_key(signing_key_path(self._settings))
            signed = sign_roster(directory, instance_name(directory), key, keep=keep, after=self._last)
            self._last = signed.number if signed is not None else self._last
        except (RosterError, JournalError, OSError, ValueError) as error:
            self._tell(error.strerror or type(error).__name__ if isinstance(error, OSError) else str(error))
        else:
            self._tell("")

    def _tell(self, wrong: str) -> None:
        if wrong and wrong != self._told:
            log.error("the roster of the logs cannot be signed: %s; `spillway audit verify` says more", wrong)
        self._told = wrong
