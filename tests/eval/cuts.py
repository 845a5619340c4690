"""Streamed answers cut at every point: an identifier is masked wherever the pieces end, and the rest is the same.

Each planted answer goes through the hold-back in two pieces, cut after each of its characters, and once character by
character.  A cut leaks where the value stands in what is sent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from sets import Goal, Line, missing, rows, share
from subject import Subject
from surviving import survives

from compliance.detectors.openings import Openings
from compliance.detectors.patterns import PATTERNS
from compliance.holdback import Guard, Holdback

EACH = 3
"""Answers of each type of identifier: every cut point of each is a scan or two."""
_LANE = "choices[0].text"


def planted() -> Iterator[tuple[str, str, str]]:
    """(type, value, answer): labelled values in a sentence, and names as a model would write them."""
    count: Counter[str] = Counter()
    for row in rows("checksum_vectors"):
        count[row["entity"]] += 1
        if count[row["entity"]] <= EACH:
            yield (
                row["entity"],
                row["value"],
                f"Yes: the {row['context']} is {row['value']}, as you asked.\nAnything else?",
            )
    for row in rows("evasion_vectors"):
        if row["variant"] == "plain" and row["entity"] in ("EMAIL", "PHONE", "IPV4", "DATE_OF_BIRTH", "MRN"):
            yield row["entity"], row["plain"], row["text"]


def cut_points(subject: Subject, show: Callable[[str], None]) -> Iterator[Line]:
    group = "cut points of streamed answers"
    answers = list(planted())
    if not answers:
        yield Line(group, "planted identifiers", missing("no rows"))
        return
    guard = Guard(
        lambda text: subject.scanner.inspect_text(text, health=True),
        Openings(PATTERNS).find,
        lambda kind: False,
        people=subject.tier == "full",
    )
    leaked = different = cuts = 0
    most = 0
    for kind, value, answer in answers:
        whole, _ = masked(guard, [answer])
        ways = [[answer[:at], answer[at:]] for at in range(1, len(answer))] + [list(answer)]
        for pieces in ways:
            sent, held = masked(guard, pieces)
            cuts += 1
            most = max(most, held)
            different += sent != whole
            if survives(value, sent.encode(), [sent]):
                leaked += 1
                show(f"cut {kind}: {pieces[0]!r} gives {sent!r}")
    yield Line(group, f"of {len(answers)} answers, leaking", share(leaked, cuts), Goal("<=", 0))
    yield Line(group, "other than the uncut answer's", share(different, cuts))
    yield Line(group, "characters held back at the most", missing(str(most)))


def masked(guard: Guard, pieces: list[str]) -> tuple[str, int]:
    """What is sent of an answer that came in these pieces, piece by piece; characters held back at the most."""
    holdback = Holdback(guard, None)
    sent = ""
    text = ""
    done = 0
    for piece in [*pieces, ""]:
        text += piece
        if piece:
            holdback.feed(_LANE, piece)
        else:
            holdback.flush(_LANE)
        ready = holdback.ready(_LANE)
        sent += holdback.edited(_LANE, done, ready, text[done:ready])
        done = ready
    return sent, holdback.held_most
