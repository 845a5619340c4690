"""Semantic routing measured against its goals: one table, published baselines beside.

    make eval-routing ARGS="--only clinc"

Reads `routing/` under `SPILLWAY_EVAL_DATA` (default `../shared/data`) and writes `eval-routing.json`.  No question
stands in both the part that is learnt from and the part that is asked.  Made from artefacts of `training/distil.py`.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: timings are of one thread

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from policies.embedding import split
from policies.semantic import Placed, Route, Semantics, learn
from proxy.routing_models import load_embedding

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("SPILLWAY_EVAL_DATA", ROOT.parent / "shared" / "data")) / "routing"
IN_SCOPE = 0.93
"""In-scope accuracy at which the recall of what is out of scope is read."""
Rows = list[dict[str, Any]]


def rows_of(name: str) -> Rows:
    return [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text("utf-8").splitlines()]


def line(what: str, value: float, goal: str, unit: str, beside: str = "") -> dict[str, Any]:
    """One row of the table."""
    way, bound = goal.split()
    met = value >= float(bound) if way == ">=" else value <= float(bound)
    return {"what": what, "value": round(value, 3), "unit": unit, "goal": goal, "met": met, "beside": beside}


def fitted(rows: Rows) -> Semantics:
    """A classifier of the labels of these rows; a label's own words are its description."""
    said: dict[str, list[str]] = {}
    for row in rows:
        said.setdefault(row["label"], []).append(row["text"])
    embedding, _ = load_embedding()
    routes = [Route(label, label.replace("_", " "), tuple(texts)) for label, texts in sorted(said.items())]
    return Semantics(learn(routes, embedding), embedding)


def unseen(asked: Rows, learnt: Rows) -> Rows:
    """Without what was learnt, in the same words."""
    known = {tuple(split(row["text"])) for row in learnt}
    return [row for row in asked if tuple(split(row["text"])) not in known]


def right(placed: Sequence[Placed], rows: Rows) -> float:
    """Percent placed first in their own route, whether in scope or not."""
    return 100 * float(np.mean([found.best[0][0] == row["label"] for found, row in zip(placed, rows, strict=True)]))


def clinc() -> Iterator[dict[str, Any]]:
    """Learnt from the training rows, asked the validation rows; nothing out of scope is learnt from."""
    rows = rows_of("clinc150")
    learnt = [row for row in rows if row["split"] == "train" and row["label"] != "oos"]
    semantics = fitted(learnt)
    inside = unseen([row for row in rows if row["split"] == "val" and row["label"] != "oos"], learnt)
    outside = [row for row in rows if row["label"] == "oos"]
    at_home = [semantics.place(row["text"]) for row in inside]
    away = [semantics.place(row["text"]) for row in outside]
    beside = "fine-tuned BERT 96.2-96.9 (test rows)"
    yield line("CLINC150 in scope, first stage", right(at_home, inside), ">= 93.0", "%", beside)
    correct = [found.best[0][0] == row["label"] for found, row in zip(at_home, inside, strict=True)]
    recall, accuracy = at_accuracy(correct, [f.scope for f in at_home], [f.scope for f in away])
    what = f"CLINC150 out of scope, recall at {100 * accuracy:.1f} % in scope"
    yield line(what, recall, ">= 66", "%", "fine-tuned BERT 40-52 (test rows)")
    kept = [found.route == row["label"] for found, row in zip(at_home, inside, strict=True)]
    yield line("  in scope as placed, threshold auto", 100 * float(np.mean(kept)), ">= 93", "%")
    gone = 100 * float(np.mean([found.route is None for found in away]))
    yield line("  out of scope as placed, threshold auto", gone, ">= 66", "%")


def at_accuracy(correct: Sequence[bool], inside: Sequence[float], outside: Sequence[float]) -> tuple[float, float]:
    """(percent of what is out of scope that is recognised, in-scope accuracy there) at the strictest line of `IN_SCOPE`."""
    best = (0.0, float(np.mean(correct)))
    for at in sorted({*inside, *outside}):
        accuracy = float(np.mean([ok and scope >= at for ok, scope in zip(correct, inside, strict=True)]))
        if accuracy < IN_SCOPE:
            break
        best = (100 * float(np.mean([scope < at for scope in outside])), accuracy)
    return best


def banking() -> Iterator[dict[str, Any]]:
    """Five-fold: each row asked once, of a classifier that has not seen it."""
    rows = rows_of("banking77")
    hits = []
    for fold in range(5):
        learnt = [row for at, row in enumerate(rows) if at % 5 != fold]
        asked = unseen([row for at, row in enumerate(rows) if at % 5 == fold], learnt)
        semantics = fitted(learnt)
        hits.append((right([semantics.place(row["text"]) for row in asked], asked), len(asked)))
    value = sum(share * count for share, count in hits) / sum(count for _, count in hits)
    yield line("Banking77, first stage, five-fold", value, ">= 92.5", "%", "fine-tuned BERT 93.7 (test rows)")


def speed() -> Iterator[dict[str, Any]]:
    """One thread, words met before; and what a process holds more for it."""
    before = psutil.Process().memory_info().rss
    rows = [row for row in rows_of("clinc150") if row["split"] == "train" and row["label"] != "oos"]
    began = time.perf_counter()
    load_embedding()
    yield line("embedding, load", time.perf_counter() - began, "<= 1", "s")
    semantics = fitted([row for at, row in enumerate(rows) if at % 100 < 10])
    held = (psutil.Process().memory_info().rss - before) / 1e6
    texts = [row["text"] for row in rows[:3000]]
    p50, p99 = spent(semantics.place, texts)
    yield line("first stage, up to 60 tokens, p50", p50, "<= 0.1", "ms")
    yield line("first stage, up to 60 tokens, p99", p99, "<= 0.3", "ms")
    long = [(" ".join(texts[at : at + 40]))[:2048] for at in range(0, 1000, 5)]
    yield line("first stage, 2 KB, p50", spent(semantics.place, long)[0], "<= 0.1", "ms")
    yield line("memory added, 150 routes of ten", held, "<= 60", "MB", "after a fit; less where it was kept")


def spent(call: Callable[[str], object], texts: Sequence[str]) -> tuple[float, float]:
    """(p50, p99) milliseconds; each text a second time, the best of three rounds."""
    for text in texts:
        call(text)
    rounds = []
    for _ in range(3):
        times = []
        for text in texts:
            began = time.perf_counter_ns()
            call(text)
            times.append((time.perf_counter_ns() - began) / 1e6)
        rounds.append((float(np.percentile(times, 50)), float(np.percentile(times, 99))))
    return min(rounds)


PARTS = {"clinc": clinc, "banking": banking, "speed": speed}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    options = parser.parse_args()
    if not DATA.exists():
        print(f"{DATA} is not there: nothing is measured", file=sys.stderr)
        return 0
    lines = []
    for name in options.only.split(","):
        for found in PARTS[name]():
            print(f"{found['what']}: {found['value']}", file=sys.stderr)
            lines.append(found)
    width = max(len(found["what"]) for found in lines)
    for found in lines:
        verdict = "met" if found["met"] else f"missed by {abs(found['value'] - float(found['goal'].split()[1])):.3g}"
        value = f"{found['value']:.4g} {found['unit']}"
        print(f"{found['what']:{width}}  {value:>10}  {found['goal']:>8}  {verdict:15}  {found['beside']}".rstrip())
    (ROOT / "eval-routing.json").write_text(json.dumps({"lines": lines}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
