"""What operators have decided, read from their own logs: every slot but the workers' (effects: files).

Holds, operators and openings are projections of these records.  So retention leaves the segments of these logs alone:
they are few, and what is in force stands in them.

Who has the log's key believes only what was signed with it, or what it vouches for (`compliance.tails`): nobody lifts a
hold by a line in a file.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from compliance import checkpoints, notes
from compliance.checkpoints import Checkpoint
from compliance.holds import KINDS, Holds, holds
from compliance.journal import read_lines
from compliance.merkle import EMPTY_ROOT, Frontier
from compliance.records import decode
from compliance.tails import Chain, NotSigned, Voucher

_WORKERS = re.compile(r"slot-\d+")


def is_control(slot: Path) -> bool:
    """Is this slot's directory one of operators, and not of a worker?"""
    return not _WORKERS.fullmatch(slot.name)


def control_records(logs: Path, kinds: Collection[str], key: Ed25519PrivateKey | None = None) -> list[Any]:
    """Records of these kinds in the operators' logs, the oldest first.  Raises `OSError`, also where a log is not what was
    signed (EBADMSG).

    `key`: the one that signs the logs; None: it is not here, as in a copy, and the logs are read as they stand.
    """
    marks = [b'"kind":"%b"' % kind.encode() for kind in kinds]
    found: list[Any] = []
    for public in sorted(logs.glob("*/key.pub")):
        log = public.parent
        if is_control(log):
            lines = read_lines(log) if key is None else genuine_lines(log, key)
            found += [decode(line) for line in lines if any([mark in line for mark in marks])]
    return sorted([record for record in found if record.kind in kinds], key=lambda record: record.at)


def genuine_lines(log: Path, key: Ed25519PrivateKey) -> list[bytes]:
    """The lines of a log that are signed, or vouched for, by its key.  Raises as `control_records`."""
    origin = (log / "key.pub").read_text().split("+", 1)[0]
    try:
        note = notes.last(log / "checkpoints")  # before the lines, which may become more
        signed = checkpoints.open_note(note, origin, key.public_key()) if note else Checkpoint(origin, 0, EMPTY_ROOT)
        chain = Chain(Voucher(key, origin), Frontier(), signed, marked=False)
        lines = []
        genuine = 0
        for line in read_lines(log):
            lines.append(line)
            if chain.line(line):
                genuine = len(lines)
        if chain.end():
            genuine = len(lines)
        if genuine < signed.size:
            raise NotSigned(f"there are {genuine} records, and {signed.size} were signed")
    except (checkpoints.BadNote, NotSigned) as wrong:
        raise OSError(errno.EBADMSG, f"{wrong}; `spillway audit verify` says more", str(log)) from None
    return lines[:genuine]


def holds_in_force(logs: Path, key: Ed25519PrivateKey | None = None) -> Holds:
    """Raises as `control_records`."""
    return holds(control_records(logs, KINDS, key))
