"""Break-glass: who may read a capture, worked out from signed records of the log.  Pure: the time comes in.

An operator holds an Ed25519 key; the log holds its public half.  One operator asks for a request's capture and says
why, another one approves, and then the first may read it for a limited time.  Each step is a record that the one who
took it has signed, so that an auditor can tell without Spillway that two keys took part.

It is proved that two keys signed, not that two people did: the first three operators are taken on the word of whoever
runs the command, later ones are introduced by an operator, and nobody's request is approved by somebody whom he
introduced himself, or who was introduced by such a one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Struct

from compliance.records import BreakGlass, Operator
from compliance.sealing import framed

KINDS = frozenset({"operator", "break_glass"})
"""The kinds of records that are looked at here; all others may be left out."""
UNINTRODUCED = 3
"""Operators that nobody needs to introduce: two, and one in case a key is lost."""
LAPSE = 24 * 3600 * 1_000_000
"""Microseconds that a request waits for its approval."""
LONGEST = 24 * 3600
"""Seconds that an approval can last."""


class Known(Struct, frozen=True):
    """An operator in force."""

    name: str
    key: str  # Ed25519 public key, hex
    by: str  # who introduced it; "": nobody
    at: int


class Opening(Struct):
    """One request to read a capture, and what became of it."""

    id: str
    request: str
    reason: str
    by: str
    seconds: int
    at: int
    approver: str = ""
    declined: str = ""  # by whom
    until: int = 0  # microseconds since the epoch

    def state(self, now: int) -> str:
        """waiting, approved, declined, expired (its time, or the time to approve it, is over)."""
        if self.declined:
            return "declined"
        if self.approver:
            return "approved" if now < self.until else "expired"
        return "waiting" if now < self.at + LAPSE else "expired"


def signed(record: BreakGlass | Operator, key: Ed25519PrivateKey) -> Any:
    """The record with its signature."""
    record.signature = key.sign(statement(record)).hex()
    return record


def statement(record: BreakGlass | Operator) -> bytes:
    """What is signed of a record: all but its time and place in the log, and the host's account."""
    if isinstance(record, Operator):
        return framed("spillway operator 1", record.change, record.name, record.public_key, record.by)
    return framed(
        "spillway break-glass 1", record.step, record.opening, record.request, record.reason, record.by,
        str(record.seconds), str(record.until),
    )  # fmt: skip


def valid(record: BreakGlass | Operator, key: str) -> bool:
    """Did the holder of this public key sign the record?"""
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(
            bytes.fromhex(record.signature), statement(record)
        )
    except (InvalidSignature, ValueError):
        return False
    return True


def public_hex(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes_raw().hex()


class Glass:
    """Operators and openings after the records so far, the oldest first.  What is not rightly signed counts for nothing."""

    def __init__(self, records: Iterable[Any] = ()) -> None:
        self.operators: dict[str, Known] = {}
        self.openings: dict[str, Opening] = {}
        self._introduced: dict[str, str] = {}  # also those who are gone, so that nobody gets rid of his chain
        for record in records:
            if isinstance(record, Operator):
                self._operator(record)
            elif isinstance(record, BreakGlass):
                self._step(record)

    # --- who --------------------------------------------------------------------------------------------------

    def why_not_add(self, name: str, by: str) -> str:
        """Why nobody of this name may be added by this operator ("": nobody introduces it); "": it may be."""
        if name in self._introduced:
            return f"there is, or was, an operator {name!r}; choose another name"
        if by and by not in self.operators:
            return f"{by!r} is no operator"
        if not by and len(self._introduced) >= UNINTRODUCED:
            return "the first three are there: another operator is introduced by one of them, with --as"
        return ""

    def _operator(self, record: Operator) -> None:
        if record.change == "removed":
            by = self.operators.get(record.by)
            if by is not None and valid(record, by.key):
                self.operators.pop(record.name, None)
            return
        introducer = self.operators.get(record.by) if record.by else None
        rightly = valid(record, introducer.key) if introducer is not None else valid(record, record.public_key)
        if rightly and not self.why_not_add(record.name, record.by):
            self.operators[record.name] = Known(record.name, record.public_key, record.by, record.at)
            self._introduced[record.name] = record.by

    def _made_by(self, name: str, maker: str) -> bool:
        """Was `name` introduced by `maker`, or by somebody whom `maker` introduced, and so on?"""
        while name := self._introduced.get(name, ""):
            if name == maker:
                return True
        return False

    # --- what -------------------------------------------------------------------------------------------------

    def why_not_ask(self, by: str, seconds: int) -> str:
        if by not in self.operators:
            return f"{by!r} is no operator"
        return "" if 0 < seconds <= LONGEST else f"the time to read is between 1 s and {LONGEST} s"

    def why_not_approve(self, opening: str, by: str, now: int) -> str:
        """Why this operator cannot approve (or decline) this opening now; "": it may."""
        one = self.openings.get(opening)
        if one is None:
            return "there is no such request"
        if by not in self.operators:
            return f"{by!r} is no operator"
        if one.by == by:
            return "who asks cannot approve"
        if self._made_by(by, one.by):
            return f"{by!r} was introduced by {one.by!r}, who asks"
        state = one.state(now)
        return "" if state == "waiting" else f"it is {state}"

    def why_not_read(self, opening: str, by: str, now: int) -> str:
        """Why this operator cannot read under this opening now; "": it may."""
        one = self.openings.get(opening)
        if one is None:
            return "there is no such request"
        if by not in self.operators:
            return f"{by!r} is no operator"
        if one.by != by:
            return "only who asked may read"
        if one.state(now) != "approved":
            return f"it is {one.state(now)}"
        return "" if one.approver in self.operators else "who approved it is no operator any more"

    def _step(self, record: BreakGlass) -> None:
        by = self.operators.get(record.by)
        if by is None or not valid(record, by.key):
            return
        if record.step == "asked":
            if record.opening not in self.openings and not self.why_not_ask(record.by, record.seconds):
                self.openings[record.opening] = Opening(
                    record.opening, record.request, record.reason, record.by, record.seconds, record.at
                )
        elif record.step in ("approved", "declined") and not self.why_not_approve(record.opening, record.by, record.at):
            one = self.openings[record.opening]
            if record.step == "declined":
                one.declined = record.by
            elif self._same(record, one) and record.at < record.until <= record.at + (one.seconds + 60) * 1_000_000:
                one.approver, one.until = record.by, record.until

    @staticmethod
    def _same(record: BreakGlass, one: Opening) -> bool:
        """Was approved what was asked for?"""
        return (record.request, record.reason, record.seconds) == (one.request, one.reason, one.seconds)
