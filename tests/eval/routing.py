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

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[2])]

import routing_complexity  # noqa: E402
import routing_domains  # noqa: E402
import routing_stages  # noqa: E402

from policies.embedding import split  # noqa: E402
from policies.semantic import Cascade, Placed, Route, Semantics, learn  # noqa: E402
from proxy.minilm import JointEmbedding, NotInstalled, load_minilm  # noqa: E402
from proxy.routing_models import load_embedding  # noqa: E402
from proxy.routing_stages import OF_MARGINS  # noqa: E402
from proxy.state.shelf import user_shelf  # noqa: E402

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


def routes_of(rows: Rows) -> list[Route]:
    """A route for each label, whose own words are its description."""
    said: dict[str, list[str]] = {}
    for row in rows:
        said.setdefault(row["label"], []).append(row["text"])
    return [Route(label, label.replace("_", " "), tuple(texts)) for label, texts in sorted(said.items())]


def fitted(routes: list[Route]) -> Semantics:
    """The first stage of these routes."""
    embedding, _ = load_embedding()
    return Semantics(learn(routes, embedding), embedding)


def cascade(first: Semantics, routes: list[Route]) -> Cascade | None:
    """Both stages; None where the second is not installed."""
    static, _ = load_embedding()
    try:
        deep, _ = load_minilm(static.vocabulary, user_shelf(os.environ, ".onnx"))
    except NotInstalled as why:
        print(why, file=sys.stderr)
        return None
    joint = JointEmbedding(static, deep)
    return Cascade(first, Semantics(learn(routes, joint), joint))


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
    semantics = fitted(routes_of(learnt))
    inside = unseen([row for row in rows if row["split"] == "val" and row["label"] != "oos"], learnt)
    outside = [row for row in rows if row["label"] == "oos"]
    yield from judged("CLINC150, first stage", semantics.place, inside, outside, "93.0")
    if (both := cascade(semantics, routes_of(learnt))) is not None:
        yield from judged("CLINC150, cascade", both.place, inside, outside, "95.0")
        share = 100 * float(np.mean([both.unsure(semantics.place(row["text"])) for row in inside]))
        yield line("CLINC150, cascade: asked of the second stage", share, "<= 25", "%")
        yield from timed("CLINC150, cascade", both.place, [row["text"] for row in inside[:1000]])
        found = routing_stages.live(both, [row["text"] for row in inside])
        beside = f"{found.asked:.0f} % asked the second stage, in its thread; {right(found.placed, inside):.2f} % right"
        yield line("CLINC150, cascade as requests wait for it: mean", found.mean, "<= 0.5", "ms", beside)
        yield line("CLINC150, cascade as requests wait for it: p99", found.p99, "<= 7", "ms")


def judged(
    name: str, place: Callable[[str], Placed], inside: Rows, outside: Rows, goal: str
) -> Iterator[dict[str, Any]]:
    """In scope by the best route; out of scope where in scope 93 % are still right, and as the line was chosen."""
    at_home = [place(row["text"]) for row in inside]
    away = [place(row["text"]) for row in outside]
    yield line(f"{name}: in scope", right(at_home, inside), f">= {goal}", "%", "fine-tuned BERT 96.2-96.9 (test rows)")
    correct = [found.best[0][0] == row["label"] for found, row in zip(at_home, inside, strict=True)]
    recall, accuracy = at_accuracy(correct, [f.scope for f in at_home], [f.scope for f in away])
    beside = "fine-tuned BERT 40-52 (test rows)"
    yield line(f"{name}: out of scope, at {100 * accuracy:.1f} % in scope", recall, ">= 66", "%", beside)
    kept = [found.route == row["label"] for found, row in zip(at_home, inside, strict=True)]
    yield line(f"{name}: in scope with threshold auto", 100 * float(np.mean(kept)), ">= 93", "%")
    gone = 100 * float(np.mean([found.route is None for found in away]))
    yield line(f"{name}: out of scope with threshold auto", gone, ">= 66", "%")


def timed(name: str, place: Callable[[str], object], texts: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Mean and p99 of one thread; every text once, after twenty others."""
    for text in texts[:20]:
        place(text)
    times = []
    for text in texts[20:]:
        began = time.perf_counter_ns()
        place(text)
        times.append((time.perf_counter_ns() - began) / 1e6)
    yield line(f"{name}: mean", float(np.mean(times)), "<= 0.5", "ms")
    yield line(f"{name}: p99", float(np.percentile(times, 99)), "<= 7", "ms")


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
    """Five-fold in the first stage: each row asked once, of a classifier that has not seen it.  One fold of the cascade."""
    rows = rows_of("banking77")
    hits = []
    beside = "fine-tuned BERT 93.7 (test rows)"
    both: tuple[float, float] | None = None
    for fold in range(5):
        learnt = [row for at, row in enumerate(rows) if at % 5 != fold]
        asked = unseen([row for at, row in enumerate(rows) if at % 5 == fold], learnt)
        semantics = fitted(routes_of(learnt))
        hits.append((right([semantics.place(row["text"]) for row in asked], asked), len(asked)))
        if fold == 0 and (stages := cascade(semantics, routes_of(learnt))) is not None:
            both = right([stages.place(row["text"]) for row in asked], asked), hits[0][0]
    value = sum(share * count for share, count in hits) / sum(count for _, count in hits)
    yield line("Banking77, first stage, five-fold", value, ">= 92.5", "%", beside)
    if both is not None:
        yield line(f"Banking77, cascade, one fold (first stage there {both[1]:.1f})", both[0], ">= 93.5", "%", beside)


def domains() -> Iterator[dict[str, Any]]:
    """vLLM Semantic Router's cases: by each stage, and by the cascade as it is by default and with the share at its most."""
    routes, cases = routing_domains.domains(DATA)
    asked: Rows = [{"text": text, "label": label} for text, label in cases]
    first = fitted(routes)
    alone = [first.place(row["text"]) for row in asked]
    beside = f"{len(asked)} cases; {sum(len(route.utterances) for route in routes):,} exam questions learnt, none of them a case"
    yield line("vLLM-SR's domain cases, first stage", right(alone, asked), ">= 82", "%", beside)
    if (both := cascade(first, routes)) is None:
        return
    again = [both.again(row["text"], placed) for row, placed in zip(asked, alone, strict=True)]
    for name, stages in (
        ("cascade", both),
        ("cascade, `share: 100%`", Cascade(first, both.second, OF_MARGINS)),
    ):
        unsure = [stages.unsure(placed) for placed in alone]
        placed = [new if doubted else old for new, old, doubted in zip(again, alone, unsure, strict=True)]
        beside = f"{100 * float(np.mean(unsure)):.0f} % asked the second stage"
        yield line(f"vLLM-SR's domain cases, {name}", right(placed, asked), ">= 82", "%", beside)
    yield line("vLLM-SR's domain cases, second stage", right(again, asked), ">= 82", "%", "all asked it")


def complexity() -> Iterator[dict[str, Any]]:
    """APGR by RouteLLM's protocol: lines of `tests/eval/routing_complexity.py`, which prints more."""
    for found in routing_complexity.table(DATA, 10):
        if found.goal is not None:
            beside = f"CPT50 {found.values[1]:.0f}, CPT80 {found.values[2]:.0f}; random .50"
            yield line(f"APGR, {found.name}", float(found.values[0]), f">= {found.goal}", "", beside)
    labelled = routing_complexity.outcomes(DATA / "routellm_mmlu.jsonl")
    scorer, texts = labelled.scorer(np.arange(1500)), routing_complexity.unlabelled(DATA)
    errors = np.abs(routing_complexity.share_errors(scorer, texts, 1000, 10))
    beside = f"{100 * float((errors <= 2).mean()):.0f} % of calibrations within 2"
    yield line("strong share after 1,000 prompts, points off", float(errors.mean()), "<= 2", "", beside)


def speed() -> Iterator[dict[str, Any]]:
    """One thread, words met before; and what a process holds more for it."""
    before = psutil.Process().memory_info().rss
    rows = [row for row in rows_of("clinc150") if row["split"] == "train" and row["label"] != "oos"]
    began = time.perf_counter()
    load_embedding()
    yield line("embedding, load", time.perf_counter() - began, "<= 1", "s")
    semantics = fitted(routes_of([row for at, row in enumerate(rows) if at % 100 < 10]))
    held = (psutil.Process().memory_info().rss - before) / 1e6
    texts = [row["text"] for row in rows[:3000]]
    p50, p99 = spent(semantics.place, texts)
    yield line("first stage, up to 60 tokens, p50", p50, "<= 0.1", "ms")
    yield line("first stage, up to 60 tokens, p99", p99, "<= 0.3", "ms")
    long = [(" ".join(texts[at : at + 40]))[:2048] for at in range(0, 1000, 5)]
    yield line("first stage, 2 KB, p50", spent(semantics.place, long)[0], "<= 0.1", "ms")
    yield line("memory added, 150 routes of ten", held, "<= 60", "MB", "after a fit; less where it was kept")
    few = routes_of([row for at, row in enumerate(rows) if at % 100 < 10])
    for stages, name, goal in ((1, "first stage", "<= 60"), (2, "both stages", "<= 150")):
        kept = routing_stages.memory(few, stages)
        beside = kept["why"] or f"of these {kept['own']:.0f} its own, the rest shared with other workers"
        yield line(f"memory of a worker, kept routes, {name}", kept["rss"], goal, "MB", beside)


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


PARTS = {"speed": speed, "complexity": complexity, "clinc": clinc, "banking": banking, "domains": domains}


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
