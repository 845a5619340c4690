"""The lines of the ledger: their columns, and how a decision and its outcome become one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from compliance.model import LOCAL
from compliance.records import Decision, Outcome

LARGEST = (1 << 63) - 1  # what a column can hold
TEXT, _COUNT = "TEXT NOT NULL DEFAULT ''", "INTEGER NOT NULL DEFAULT 0"
_TEXTS = (
    "origin", "request", "organisation", "tenant", "team", "project", "key", "user", "tags", "class", "model", "target",
    "boundary", "surface", "route", "overflow", "action", "ending", "error", "quality", "price", "timing",
)  # fmt: skip
_NAMES = (
    "at", "origin", "seq", "request", "attempt",
    "organisation", "tenant", "team", "project", "key", "user", "tags",
    "class", "model", "target", "boundary", "surface", "stream", "route",
    "overflow", "action", "found", "redacted", "ending", "error", "status",
    "quality", "input", "cache_read", "cache_write_5m", "cache_write_1h",
    "output", "reasoning", "audio_input", "audio_output", "cost", "price", "queue_us", "connect_us",
    "first_us", "total_us", "engine_us", "prefill_us", "decode_us", "timing",
)  # fmt: skip
COLUMNS = {name: TEXT if name in _TEXTS else _COUNT for name in _NAMES}
"""One line per attempt.  `user` is a pseudonym; `tags` are `name=value`, a line each; `overflow` says why a request left
home, `failed` where a local engine had failed before; `found` is how many kinds of identifiers were found, `redacted` how
many kinds were replaced.  `engine_us` is from the request's way to the engine to the answer's end; `prefill_us` and
`decode_us` are its parts, known as `timing` says: by the `engine`, or by the `stream`'s first event; else both are 0."""
KIND = (
    "boundary", "target", "timing", "quality", "price", "ending", "surface", "stream", "attempt", "status", "overflow", "action",
    "found", "redacted", "organisation", "tenant", "team", "project", "key", "model", "class", "tags", "route", "error", "origin",
)  # fmt: skip
"""What most lines share with others, stored once for all of them; first what is asked for most.  A user stands in each
line: there are many."""
NUMBERS = (
    "input", "cache_read", "cache_write_5m", "cache_write_1h", "output", "reasoning", "audio_input", "audio_output", "cost",
    "queue_us", "connect_us", "first_us", "total_us", "engine_us", "prefill_us", "decode_us",
)  # fmt: skip
STORED = ("at", "log", "seq", "request", "decided", "user", "kind", *NUMBERS)
"""A line as it is stored: `log` is the origin's number, `decided` where its decision stands, if that is known."""
FACTS = (
    "seq",
    "user",
    "tags",
    "request_class",
    "surface",
    "stream",
    "route",
    "overflow",
    "action",
    "found",
    "redacted",
)
Facts = tuple[Any, ...]
"""What a line has from its decision, in the order of `FACTS`."""
NOTHING: Facts = (None, "", "", "", "", 0, "", "", "", 0, 0)
"""An outcome without one (of a log that began later) has none of it."""
OVERFLOW = FACTS.index("overflow")


def facts_of(decision: Decision) -> Facts:
    """What a decision says of its line.  Of findings their number, of what is local no overflow."""
    findings, tags = decision.findings, decision.tags
    return (
        decision.seq,
        decision.actor,
        "\n".join(tags) if tags else "",
        decision.request_class,
        decision.surface,
        1 if decision.stream else 0,
        decision.routing,
        decision.overflow if decision.boundary != LOCAL else "",
        decision.action,
        len({finding.partition(":")[0] for finding in findings}) if findings else 0,
        len(decision.redacted),
    )


def line(
    origin: str, log: int, end: Outcome, facts: Facts, overflow: str, kind: Callable[[tuple[Any, ...]], int]
) -> tuple[Any, ...]:
    """The line of an attempt, in the order of `STORED`; `kind` gives the number of what it shares, in the order of `KIND`."""
    decided, user, tags, request_class, surface, stream, route, _, action, found, redacted = facts
    connect, total = end.connect_us, end.total_us
    engine = max(0, total - connect) if connect > 0 else 0  # 0: never sent, or not known
    prefill, decode, timing = _parts(end, stream, engine)
    number = kind((
        end.boundary, end.target, timing, end.quality, end.price, end.ending, surface, stream, end.attempt, end.status, overflow,
        action, found, redacted, end.organisation, end.tenant, end.team, end.project, end.key, end.model, request_class, tags,
        route, end.error, origin,
    ))  # fmt: skip
    return (
        end.at, log, end.seq, end.request, decided, user, number,
        end.input, end.cache_read, end.cache_write_5m, end.cache_write_1h, end.output, end.reasoning, end.audio_input,
        end.audio_output, end.cost, end.queue_us, connect, end.first_us, total, engine, prefill, decode,
    )  # fmt: skip


def _parts(end: Outcome, stream: int, engine: int) -> tuple[int, int, str]:
    """How long the engine read and wrote, and how that is known.  No part is longer than the whole."""
    if engine and (end.prefill_us or end.decode_us):
        prefill = min(max(end.prefill_us, 0), engine)
        return prefill, min(max(end.decode_us, 0), engine - prefill), "engine"
    if engine and stream and end.connect_us < end.first_us <= end.total_us:
        return end.first_us - end.connect_us, end.total_us - end.first_us, "stream"
    return 0, 0, ""


def storable(row: Sequence[Any]) -> tuple[Any, ...]:
    """An engine may report any number of tokens; a column holds 64 bits."""
    return tuple([max(-LARGEST, min(value, LARGEST)) if isinstance(value, int) else value for value in row])
