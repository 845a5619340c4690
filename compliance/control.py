"""What operators have decided, read from their own logs: every slot but the workers' (effects: files).

Holds, operators and openings are projections of these records.  So retention leaves the segments of these logs alone:
they are few, and what is in force stands in them.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from compliance.holds import KINDS, Holds, holds
from compliance.journal import read_lines
from compliance.records import decode

_WORKERS = re.compile(r"slot-\d+")


def is_control(slot: Path) -> bool:
    """Is this slot's directory one of operators, and not of a worker?"""
    return not _WORKERS.fullmatch(slot.name)


def control_records(logs: Path, kinds: Collection[str]) -> list[Any]:
    """Records of these kinds in the operators' logs, the oldest first.  Raises `OSError`."""
    marks = [b'"kind":"%b"' % kind.encode() for kind in kinds]
    found: list[Any] = []
    for key in sorted(logs.glob("*/key.pub")):
        if is_control(key.parent):
            lines = [line for line in read_lines(key.parent) if any([mark in line for mark in marks])]
            found += [record for record in map(decode, lines) if record.kind in kinds]
    return sorted(found, key=lambda record: record.at)


def holds_in_force(logs: Path) -> Holds:
    """Raises `OSError`."""
    return holds(control_records(logs, KINDS))
