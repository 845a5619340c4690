"""How long the structured detectors take, or looking for what a text hides: microseconds of CPU for each KB of text.

    .venv/bin/python tests/bench/scan_speed.py --size 4096 --rounds 3 --json scan.json
    .venv/bin/python tests/bench/scan_speed.py --forms

Each text is scanned once cold (`first`: the caches of the automata grow) and then `--rounds` times.  The texts are
different from each other: one text scanned again and again would measure caches, not detectors.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from compliance.detectors.forms import Forms
from compliance.detectors.patterns import Patterns, TooMany

DATA = Path(os.environ.get("SPILLWAY_EVAL_DATA", Path(__file__).parents[3] / "shared" / "data")) / "phi"
_WORDS = (  # noqa: SIM905  a list of words reads best as words
    "the of and to a in that it is was for on are with as be at by this had not from have or one you were all we can "
    "an each which their time will way about many then them write would like so these her long make thing see him two "
    "has look more day could go come did number sound no most people my over know water than call first who may down "
    "side been now find any new work part take get place made live where after back little only round man year"
).split()


def made_clean(count: int, size: int, dice: random.Random) -> list[str]:
    """Prose of common words with a number now and then."""
    texts = []
    for _ in range(count):
        words = [dice.choice(_WORDS) if dice.random() > 0.03 else str(dice.randrange(1, 500)) for _ in range(size // 4)]
        texts.append(" ".join(words)[:size])
    return texts


def made_notes(count: int, size: int, dice: random.Random) -> list[str]:
    """Clinical notes, an identifier in each line."""

    def digits(length: int) -> str:
        return "".join(dice.choices("0123456789", k=length))

    lines: Sequence[Callable[[], str]] = (
        lambda: f"MRN: {digits(8)}  DOB: {dice.randrange(1, 12)}/{dice.randrange(1, 28)}/19{digits(2)}",
        lambda: f"Seen on March {dice.randrange(1, 28)}, 20{digits(2)} for follow-up of hypertension.",
        lambda: (
            f"Phone: ({dice.randrange(212, 989)}) {dice.randrange(212, 989)}-{digits(4)}, email p{digits(3)}@example.org"
        ),
        lambda: (
            f"Member ID {dice.choice('ABC')}{digits(9)}, SSN {dice.randrange(100, 600)}-{dice.randrange(10, 99)}-{digits(4)}"
        ),
        lambda: "BP 142/91, pulse 76, potassium 4.1 mmol/L, creatinine 1.2 mg/dL; lisinopril 10 mg daily.",
        lambda: "No chest pain, no dyspnoea. Lungs clear to auscultation. Plan: continue, review in six weeks.",
        lambda: f"Lives at {digits(3)} Oak Street, Springfield, IL 62704.",
    )
    texts = []
    for _ in range(count):
        text = ""
        while len(text) < size:
            text += dice.choice(lines)() + "\n"
        texts.append(text[:size])
    return texts


def of_file(name: str, size: int) -> list[str]:
    """The texts of an evaluation set, joined and cut into pieces of `size`; none where it is absent."""
    path = DATA / name
    if not path.is_file():
        return []
    joined = "\n".join(json.loads(line)["text"] for line in path.read_text().splitlines())
    return [joined[at : at + size] for at in range(0, len(joined) - size, size)]


def measure(find: Callable[[str], Any], texts: Sequence[str]) -> list[float]:
    """CPU microseconds for each KB, sorted."""
    costs = []
    for text in texts:
        began = time.perf_counter()
        try:
            find(text)
        except TooMany:
            pass
        costs.append((time.perf_counter() - began) * 1e6 * 1024 / len(text.encode()))
    return sorted(costs)


def forms_of(forms: Forms) -> Callable[[str], Any]:
    """Looks for what a text hides, and undoes all of it."""
    return lambda text: list(forms.of(text))


def row(name: str, part: str, costs: Sequence[float]) -> dict[str, Any]:
    """One line of the table."""
    return {
        "corpus": name,
        "pass": part,
        "texts": len(costs),
        "mean_us_per_kb": round(sum(costs) / len(costs), 1),
        "p50_us_per_kb": round(costs[len(costs) // 2], 1),
        "p95_us_per_kb": round(costs[int(len(costs) * 0.95)], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096, help="characters of one text (default 4096)")
    parser.add_argument(
        "--count", type=int, default=200, help="texts made for each corpus that is generated (default 200)"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="times that each text is scanned after the first (default 3)"
    )
    parser.add_argument(
        "--forms", action="store_true", help="measure what undoes hidden forms, not what finds identifiers"
    )
    parser.add_argument("--json", type=Path, help="write the rows to this file, too")
    arguments = parser.parse_args()
    began = time.perf_counter()
    find = forms_of(Forms()) if arguments.forms else Patterns().find
    print(f"made ready in {time.perf_counter() - began:.2f} s; microseconds a KB, texts of {arguments.size} characters")
    dice = random.Random(7)
    corpora = {
        "clean, generated": made_clean(arguments.count, arguments.size, dice),
        "notes, generated": made_notes(arguments.count, arguments.size, dice),
        "chat, maths, code, health (negatives)": of_file("negatives.jsonl", arguments.size),
        "clinical prompts (asq_phi)": of_file("asq_phi.jsonl", arguments.size),
        "clinical cases (meddocan_train)": of_file("meddocan_train.jsonl", arguments.size),
    }
    rows = []
    for name, texts in corpora.items():
        if not texts:
            print(f"{name}: no data at {DATA}")
            continue
        rows.append(row(name, "first", measure(find, texts)))
        again = sorted(cost for _ in range(arguments.rounds) for cost in measure(find, texts))
        rows.append(row(name, "again", again))
    for line in rows:
        print(
            f"{line['corpus']:40} {line['pass']:6} {line['texts']:5} texts"
            f"  mean {line['mean_us_per_kb']:7.1f}  p50 {line['p50_us_per_kb']:7.1f}  p95 {line['p95_us_per_kb']:7.1f}"
        )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
