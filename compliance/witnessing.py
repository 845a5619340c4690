"""Signed notes on their way out: the newest one of each log and of the roster, under a name that no other ever has.

A witness is a place that whoever owns the signing key cannot take anything back from.  What it holds is a file for
each note, `<origin>/<number>-<hash>.note`: the same note always has the same name, and two notes of one log that
disagree stand side by side.  A newer note covers all that older ones covered, so only the newest is handed out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from compliance import checkpoints, notes, roster, verify
from compliance.checkpoints import BadNote

SUFFIX = ".note"
_ORIGIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")


class Note(Struct, frozen=True):
    """A signed note that leaves."""

    origin: str
    number: int  # records that a checkpoint covers; a roster's own number
    content: bytes

    @property
    def name(self) -> str:
        """Where it is kept: a relative path of safe characters."""
        digest = hashlib.sha256(self.content).hexdigest()[:16]
        return f"{self.origin}/{self.number:012d}-{digest}{SUFFIX}"


def newest(logs: Path) -> list[Note]:
    """The newest note of every log below `logs`, and of the roster over them, where its signature fits.

    What has none yet is left out; `audit verify` says what is wrong with one that does not fit.
    """
    return [note for note in _found(logs) if _ORIGIN.fullmatch(note.origin)]


def _found(logs: Path) -> Iterator[Note]:
    for path in [logs / "roster.pub", *sorted(logs.glob("*/key.pub"))]:
        try:
            origin, key, _ = verify.read_key(path)
            if path.name == "roster.pub":
                content = (logs / "roster").read_bytes()
                yield Note(origin, roster.open_roster(content, key).number, content)
            elif content := notes.last(path.with_name("checkpoints")):
                yield Note(origin, checkpoints.open_note(content, origin, key).size, content)
        except (OSError, BadNote, ValueError, verify.Broken, roster.RosterError):
            continue
