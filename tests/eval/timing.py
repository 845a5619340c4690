"""Milliseconds of CPU for each KB: at three sizes, of prompts, of health text and of text made to be slow."""

from __future__ import annotations

import time
from collections.abc import Iterator

from sets import Figure, Goal, Line, benign, missing, rows
from subject import Subject, body_of

SIZES = (1_000, 10_000, 100_000)
_GROUP = "speed: ms per KB, median"
_GOALS = {"fast": 0.1, "full": 3.0}
_HOSTILE = {
    "digits": "1234567890" * 10_000,
    "digits, spaced": "1 2 3 4 5 6 7 8 9 0 " * 5_000,
    "groups of digits": "123-45-6789 " * 8_000,
    "labels without values": "MRN SSN: card number phone: " * 3_600,
    "at signs": "a@" * 50_000,
    "points": "1." * 50_000,
    "capitals": "A B. " * 20_000,
    "names": "Dr. Maria Lopez " * 6_000,
    "one word": "A" * 100_000,
    "hiding characters": "1\u200b" * 50_000,
    "escapes": "%41&#65;\\u0041" * 7_000,
    "base64": "QUJD" * 25_000,
}

_IN_HEALTH = "A patient with hypertension. "
"""So that names and places are looked for as well."""


def speed(subject: Subject) -> Iterator[Line]:
    """The goal is for text of all kinds, and for health text, where both tiers look."""
    goal = Goal("<=", _GOALS[subject.tier], " ms")
    kinds = {
        "text without health context": _joined("gsm8k", "humaneval", "mt_bench", "clinc"),
        "health text": _joined("pubmedqa", "medquad"),
        "ASQ-PHI positives": "\n".join(row["text"] for row in rows("asq_phi") if row["spans"]),
    }
    everything: list[float] = []
    for label, whole in kinds.items():
        mine: list[float] = []
        for size in SIZES:
            costs = _costs(subject, whole, size)
            mine += costs
            yield Line(_GROUP, f"{label}, {size // 1000} KB", _median(costs))
        yield Line(
            _GROUP,
            f"{label}, all sizes, --tier {subject.tier}",
            _median(mine),
            goal if label == "health text" else None,
        )
        everything += mine
    yield Line(_GROUP, f"all of them, --tier {subject.tier}", _median(everything), goal)
    for label, text in _HOSTILE.items():
        took = _cost(subject, _IN_HEALTH + text)
        yield Line("speed: ms per KB, hostile", label, Figure(took, f"{took:.3f} ms"))


def _joined(*names: str) -> str:
    return "\n".join(row["text"] for row in benign() if row["set"] in names)


def _costs(subject: Subject, whole: str, size: int) -> list[float]:
    pieces = [whole[at : at + size] for at in range(0, min(len(whole) - size + 1, max(size * 12, 200_000)), size)]
    for piece in pieces[:2]:
        _cost(subject, piece)  # the caches of automata and lexicon
    return [_cost(subject, piece) for piece in pieces]


def _cost(subject: Subject, text: str) -> float:
    body = body_of(text)
    began = time.thread_time()
    subject.scanner.inspect(body)
    return (time.thread_time() - began) * 1e6 / len(text.encode())


def _median(costs: list[float]) -> Figure:
    if not costs:
        return missing("too little text")
    middle = sorted(costs)[len(costs) // 2]
    return Figure(middle, f"{middle:.3f} ms of {len(costs)} texts")
