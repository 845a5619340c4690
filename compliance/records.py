"""Records of the log: what was decided and how it ended, in names and numbers.  Never content.

A record is flat: integers, strings, booleans and tuples of strings (nothing that the collector has to look
at).  Its canonical form is compact JSON with keys in byte order, one record a line; the hash of a line is a
leaf of the log's tree.  Fields are declared in that order, so that encoding is a plain walk.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

NAME_LIMIT = 128
"""Characters of a name that a caller chose, as stored."""


class Record(Struct, kw_only=True, gc=False):
    """Base of all: `at` is microseconds since the epoch, `seq` the index in this log (set by the journal)."""


class Decision(Record, kw_only=True):
    """One attempt was decided.  Durable before the first byte goes to a target outside `local`."""

    action: str
    actor: str
    at: int
    attempt: int
    boundary: str
    edits: tuple[str, ...]
    findings: tuple[str, ...]  # type:count:path
    hold: int  # pico-dollars reserved
    key: str
    kind: str = "decision"
    model: str
    operation: str
    organisation: str
    overflow: str
    policy: str
    project: str
    redacted: tuple[str, ...] = ()  # kind:count, of what was replaced in the text that this attempt sends
    request: str
    routing: str
    rule: str
    scopes: tuple[str, ...]  # scope|window
    seq: int = -1
    stream: bool
    surface: str
    target: str
    team: str
    tenant: str
    trace: str
    vetoes: tuple[str, ...]  # target:reason


class Outcome(Record, kw_only=True):
    """How one attempt ended: one line of the money ledger (law 4)."""

    at: int
    attempt: int
    boundary: str
    bytes_in: int
    bytes_out: int
    cache_read: int
    cache_write_1h: int
    cache_write_5m: int
    committed: bool
    connect_us: int
    cost: int  # pico-dollars
    ending: str  # completed, failed, abandoned, interrupted
    error: str
    findings: tuple[str, ...]  # of the answer
    first_us: int
    hold: int
    input: int
    key: str
    kind: str = "outcome"
    model: str
    organisation: str
    output: int
    price: str
    project: str
    quality: str
    queue_us: int
    reasoning: int
    request: str
    scopes: tuple[str, ...]
    seq: int = -1
    status: int
    target: str
    team: str
    tenant: str = ""
    total_us: int


class Refused(Record, kw_only=True):
    """A request that Spillway refused before, or instead of, an attempt."""

    action: str
    at: int
    code: str
    findings: tuple[str, ...]
    key: str
    kind: str = "refused"
    model: str
    organisation: str
    policy: str
    project: str
    request: str
    rule: str
    seq: int = -1
    status: int
    surface: str
    tenant: str
    vetoes: tuple[str, ...]


class Started(Record, kw_only=True):
    """A worker began to write this log: what it found, and what a crash before it may have lost."""

    at: int
    cut_bytes: int  # of a torn last line
    instance: str
    interrupted: int  # decisions that had no outcome; each gets one after this record
    kind: str = "started"
    lost_window_us: int  # local-only requests of this last window may be missing; 0 after a clean stop
    pid: int
    policy: str
    seq: int = -1
    slot: str
    version: str


class Stopped(Record, kw_only=True):
    """A clean stop: nothing is missing."""

    at: int
    kind: str = "stopped"
    seq: int = -1
    slot: str


class KeyChanged(Record, kw_only=True):
    """A virtual key was made or revoked."""

    actor: str
    at: int
    change: str  # created, revoked
    key: str
    kind: str = "key_changed"
    seq: int = -1


AnyRecord = Decision | Outcome | Refused | Started | Stopped | KeyChanged

_KINDS: dict[str, type[Record]] = {
    "decision": Decision,
    "outcome": Outcome,
    "refused": Refused,
    "started": Started,
    "stopped": Stopped,
    "key_changed": KeyChanged,
}
_encoder = msgspec.json.Encoder()
_decoders = {kind: msgspec.json.Decoder(cls) for kind, cls in _KINDS.items()}
_kind = msgspec.json.Decoder(msgspec.defstruct("Kind", [("kind", str)]))


class UnknownRecord(ValueError):
    """A line that is no record of a known kind."""


def encode(record: Any) -> bytes:
    """The canonical line, without its line end."""
    return _encoder.encode(record)


def decode(line: bytes) -> Any:
    """A record from its line; raises `UnknownRecord`."""
    try:
        return _decoders[_kind.decode(line).kind].decode(line)  # type: ignore[attr-defined]
    except (msgspec.DecodeError, KeyError) as error:
        raise UnknownRecord(f"not a record: {type(error).__name__}") from None


def bounded_name(name: str) -> str:
    """A caller-chosen name as it may be stored: printable and bounded."""
    clean = name if name.isprintable() else "".join(c if c.isprintable() else "?" for c in name)
    return clean if len(clean) <= NAME_LIMIT else clean[: NAME_LIMIT - 1] + "…"
