"""What holding back costs a reader: characters and milliseconds that an answer's text is late, and CPU a kilobyte.

    python tests/bench/answer_delay.py [--tokens-per-second 50]

Prose in tokens of a word each, as engines send them, through the guard that `mask` and `stop` use; with and without
health context (which looks for names as well).  Late is counted from a token's coming to its going, in tokens of the
stream's pace; the last figure is the processor's time.
"""

from __future__ import annotations

import argparse
import re
import statistics
import time

from compliance.detectors.names import Names
from compliance.detectors.openings import Openings
from compliance.detectors.patterns import PATTERNS, Patterns
from compliance.holdback import Guard, Holdback
from compliance.scan import Scanner

TEXTS = {
    "prose": (
        "Most people need between seven and nine hours of sleep, and the simplest way to get there is to keep the same hours every day. "
        "Start with the light: open the curtains soon after you wake, and dim the lamps in the evening. Coffee after lunch stays with you "
        "longer than you would think, so have the last cup before two. If you lie awake for more than twenty minutes, get up, read "
        "something dull, and go back when you are tired. Nothing of this works at once; give it three weeks before you judge. "
    ),
    "list": (
        "1. Open the settings and choose Network.\n2. Under Advanced, set the timeout to 30 seconds and the retries to 5.\n3. Save, then "
        "restart the service: `systemctl restart app`.\n4. Check the log for lines that begin with WARN. In version 2.4.1 the limit is 100.\n"
    ),
    "note": (
        "Seen on March 3, 2026 by Dr. Alma Verhoeven. SSN 078-05-1120, card 4111 1111 1111 1111, call (555) 234-5678. "
        "She lives at 12 Main Street, Springfield, IL 62701, and takes metformin 500 mg twice a day with her meals. "
    ),
}
REPEATS = 8


def measure(text: str, health: bool, scanner: Scanner, openings: Openings) -> tuple[list[int], list[int], float]:
    """(characters held after each token, tokens that each was late, CPU seconds)."""
    guard = Guard(lambda seen: scanner.spans(seen, health=health), openings.find, lambda kind: False, people=health)
    holdback = Holdback(guard, None)
    held: list[int] = []
    late: list[int] = []
    waiting: list[tuple[int, int]] = []
    tokens = re.findall(r"\s*\S{1,6}", text)
    begun = time.process_time()
    for number, token in enumerate(tokens):
        waiting.append((holdback.feed("text", token), number))
        ready = holdback.ready("text")
        while waiting and waiting[0][0] <= ready:
            late.append(number - waiting.pop(0)[1])
        held.append(waiting[-1][0] - (waiting[0][0] - len(tokens[waiting[0][1]])) if waiting else 0)
    holdback.flush("text")
    late += [len(tokens) - number for _, number in waiting]
    return held, late, time.process_time() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens-per-second", type=float, default=50.0)
    pace = 1000 / parser.parse_args().tokens_per_second
    scanner, openings = Scanner(Patterns(), [Names()]), Openings(PATTERNS)
    print(
        f"{'text':8} {'health':6} {'chars held p50':>14} {'p99':>5} {'ms late p50':>12} {'mean':>6} {'p99':>6} {'ms CPU a KB':>12}"
    )
    for name, text in TEXTS.items():
        for health in (False, True):
            measure(text * REPEATS, health, scanner, openings)  # the automata build their states
            held, late, cpu = measure(text * REPEATS, health, scanner, openings)
            row = (statistics.median(held), sorted(held)[int(len(held) * 0.99)])
            ms = (
                statistics.median(late) * pace,
                statistics.fmean(late) * pace,
                sorted(late)[int(len(late) * 0.99)] * pace,
            )
            kilobytes = len(text) * REPEATS / 1024
            print(
                f"{name:8} {'yes' if health else 'no':6} {row[0]:14.0f} {row[1]:5.0f} {ms[0]:12.0f} {ms[1]:6.0f} {ms[2]:6.0f}"
                f" {cpu * 1000 / kilobytes:12.2f}"
            )


if __name__ == "__main__":
    main()
