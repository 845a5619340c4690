"""The vocabulary of compliance: boundaries, findings, verdicts.  Data only."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

LOCAL = "local"
"""The boundary that is always inside: this host and its own network."""

Action = Literal["allow", "redact", "keep_local", "block"]


class TextField(Struct, frozen=True, gc=False):
    """One string of a request or answer, with its place.  Only for the moment of scanning: it carries text."""

    path: str  # as in messages[2].content[0].text; keys that the caller chose are written `*`
    lane: str  # text, tool_arguments, tool_result, reasoning, metadata; opaque where there is no text to scan
    text: str
    exact: bool = True  # False: `text` is a decoded form, so that offsets in it mean nothing to the original
    key: bool = False  # the name of a field, not its value
    number: bool = False  # `text` shows numbers, and is no string that was cut elsewhere


class Finding(Struct, frozen=True, gc=False):
    """One identifier in one field.  Never carries the value.

    `start` and `end` are code points in the field's original string; `path` is as in `messages[0].content`,
    with keys that the caller chose written `*`.  Both 0: somewhere in the field (an escaped form, an opaque part).
    """

    type: str  # card, ssn, email, secret; opaque, scan_failed where something was not scanned
    path: str
    start: int
    end: int
    confidence: float = 1.0


class Verdict(Struct, frozen=True, gc=False):
    """Where a request may go.  It binds every attempt, retry and follow-up."""

    action: Action
    findings: tuple[Finding, ...] = ()
    rule: str = "default"  # the name of the rule that decided
    redact: frozenset[str] = frozenset()  # kinds of findings to be replaced, where the action is `redact`

    def allows(self, boundary: str, *, redacted: bool = False) -> bool:
        """May text under this verdict be sent to a target inside `boundary`?

        `redacted`: it is the text in which all that `redact` names has been replaced.
        """
        if self.action == "block":
            return False
        return self.action == "allow" or boundary == LOCAL or (redacted and self.action == "redact")


class Inspection(Struct, frozen=True, gc=False):
    """What was found in a request, and whether it speaks of care, of its payment or of claims."""

    findings: tuple[Finding, ...] = ()
    health: bool = False


class Piece(Struct, frozen=True):
    """A part of a field, and where it begins in the joined text of all fields."""

    text: str
    at: int
    side: str = ""  # of the conversation: the role, tools as their caller; empty outside of messages
    key: str = ""  # whose value it is
    number: bool = False  # of JSON, or an id that stands between texts: it need be no part of what goes on
