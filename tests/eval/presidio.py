"""Microsoft Presidio beside it: the same prompts, by its own analyser in its own environment."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quality import COVERED, replaced
from sets import BENIGN, Figure, Line, benign, missing, rows, say, share
from surviving import NO_IDENTIFIERS, survives

from compliance.model import Finding

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / ".bench" / "presidio"
_GROUP = "Presidio beside it"
_BENIGN_ROWS = 100
"""Of each benign set: it takes 10 to 50 ms a text."""


def lines() -> Iterator[Line]:
    """Its figures; one line that says why, where it cannot be run."""
    python = HOME / "bin" / "python"
    if not _installed(python):
        yield Line(_GROUP, "presidio-analyzer", missing("cannot be installed here"))
        return
    prompts = rows("asq_phi")
    synthetic = rows("presidio_synth_v2")
    quiet = [row for name in BENIGN for row in [row for row in benign() if row["set"] == name][:_BENIGN_ROWS]]
    name, answers = _analyse(python, [row["text"] for row in (*prompts, *synthetic, *quiet)])
    yield Line(_GROUP, "what ran", missing(name))
    yield from _prompts(prompts, answers[: len(prompts)])
    yield from _covered(synthetic, answers[len(prompts) : len(prompts) + len(synthetic)])
    acted: Counter[str] = Counter()
    for row, (_, spans) in zip(quiet, answers[len(prompts) + len(synthetic) :], strict=True):
        acted[row["set"]] += bool(spans)
    counts = Counter(row["set"] for row in quiet)
    for part in BENIGN:
        yield Line(_GROUP, f"{part}: something found", share(acted[part], counts[part]))
    texts = [row["text"] for row in (*prompts, *synthetic, *quiet)]
    costs = sorted(took * 1000 / max(1, len(text)) for text, (took, _) in zip(texts, answers, strict=True))
    middle = costs[len(costs) // 2]
    yield Line(_GROUP, "ms per KB, these texts, median", Figure(middle, f"{middle:.1f} ms"))


def _prompts(prompts: tuple[dict[str, Any], ...], answers: list[Any]) -> Iterator[Line]:
    lost = nothing = positives = changed = 0
    for row, (_, spans) in zip(prompts, answers, strict=True):
        if not row["spans"]:
            changed += bool(spans)
            continue
        positives += 1
        nothing += not spans
        left = replaced(row["text"], [Finding(kind, "", start, end) for kind, start, end in spans])
        values = {span["value"] for span in row["spans"]} - NO_IDENTIFIERS
        lost += any(survives(value, b"", [left]) for value in values)
    yield Line(_GROUP, "ASQ-PHI positives: nothing found (keep_local leaks)", share(nothing, positives))
    yield Line(_GROUP, "ASQ-PHI positives: a value is left after replacing (redact leaks)", share(lost, positives))
    yield Line(_GROUP, "ASQ-PHI hard negatives changed", share(changed, len(prompts) - positives))


def _covered(synthetic: tuple[dict[str, Any], ...], answers: list[Any]) -> Iterator[Line]:
    hits: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    kind_of = {label: kind for kind, labels in COVERED.items() for label in labels}
    for row, (_, spans) in zip(synthetic, answers, strict=True):
        found = _mask(row["text"], spans)
        for span in row["spans"]:
            if (kind := kind_of.get(span["label"])) is not None:
                hits[kind] += sum(found[span["start"] : span["end"]])
                sizes[kind] += span["end"] - span["start"]
    for kind in COVERED:
        value = 100 * hits[kind] / max(1, sizes[kind])
        yield Line(_GROUP, f"presidio_synth_v2: characters of {kind}", Figure(value, f"{value:.1f} %"))


def _mask(text: str, spans: list[Any]) -> bytearray:
    found = bytearray(len(text))
    for _, start, end in spans:
        found[start:end] = b"\1" * (end - start)
    return found


def _installed(python: Path) -> bool:
    """Made once, with pip, in `.bench`."""
    try:
        if not python.exists():
            say("  installing presidio-analyzer in .bench/presidio")
            subprocess.run([sys.executable, "-m", "venv", str(HOME)], check=True, capture_output=True)
            subprocess.run([python, "-m", "pip", "install", "-q", "presidio-analyzer"], check=True, capture_output=True)
        subprocess.run([python, "-c", "import presidio_analyzer"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def _analyse(python: Path, texts: list[str]) -> tuple[str, list[Any]]:
    """(what ran, [[milliseconds, spans]] of each text)."""
    say(f"  Presidio over {len(texts)} texts")
    script = Path(__file__).with_name("beside.py")
    given = "".join(json.dumps(text) + "\n" for text in texts)
    ran = subprocess.run([python, script], input=given, capture_output=True, text=True, check=True)
    first, *rest = ran.stdout.splitlines()
    return json.loads(first), [json.loads(line) for line in rest]
