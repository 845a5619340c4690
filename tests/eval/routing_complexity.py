"""Complexity: what a scorer recovers of the strong model's lead, held out, beside what RouteLLM published.

    .venv/bin/python tests/eval/routing_complexity.py [--data DIRECTORY] [--splits N]

Outcomes are RouteLLM's (gpt-4-1106-preview against Mixtral-8x7B; Apache-2.0) without the rows that it marks
contaminated.  Questions that say the same words are one question, and never on both sides of a split.  Each figure is
the mean over random splits: scorers learn from one part and are measured on all of the rest.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from policies import gain, promotion  # noqa: E402
from policies.doubt import Answer  # noqa: E402
from policies.learning import same_text  # noqa: E402
from proxy.routing_models import load_embedding  # noqa: E402

DATA = ROOT.parent / "shared" / "data" / "routing"
SPLITS = 20
PUBLISHED = {"GSM8K": (0.622, 33.6, 63.3), "MMLU": (0.603, 35.4, 71.6)}
"""RouteLLM's best of each: on a GPU, or over a provider's embeddings.  APGR, CPT(50 %), CPT(80 %)."""
GOALS = {"GSM8K, 300 labels": 0.65, "GSM8K, reading the answer": 0.79, "MMLU, 1,500 labels": 0.61}
EXAM_PAIRS = (
    ("Llama 3.1 70B over 8B", "Meta-Llama-3_1-70B-Instruct", "Meta-Llama-3_1-8B-Instruct"),
    ("Gemini 1.5 Pro over Mixtral", "gemini-1.5-pro-002", "Mixtral-8x7B-Instruct-v0.1"),
)
ROUTER_PAIR = ("llama-3.1-nemotron-51b-instruct", "llama-3.1-8b-instruct")
"""Other pairs and prompts, without goals: they say how far the figures above carry, which is not everywhere."""
SHARES = (0.1, 0.2, 0.3, 0.5, 0.7)


class Line(NamedTuple):
    """One line of the table: (APGR, CPT50, CPT80), their deviations between splits, and APGR's goal."""

    name: str
    values: Any
    spread: Any = None
    goal: float | None = None


class Outcomes(NamedTuple):
    """Questions and both models' outcomes; features and vectors are computed once."""

    texts: list[str]
    gains: Any
    named: Any
    vectors: Any
    answered: Any  # with the answer's features; None where no answers are known
    embedding: str

    def scorer(self, rows: Any, kind: str = "prompt") -> gain.Scorer:
        day = datetime.date(2026, 1, 1).isoformat()
        return gain.fit(
            kind, self.features(kind)[rows], self.vectors[rows], self.gains[rows], embedding=self.embedding, made=day
        )

    def scores(self, scorer: gain.Scorer, rows: Any) -> Any:
        return gain.scores_of(scorer, self.features(scorer.origin.kind)[rows], self.vectors[rows])

    def features(self, kind: str) -> Any:
        return self.answered if kind == "answer" else self.named


def outcomes(file: Path) -> Outcomes:
    """RouteLLM's, without the rows that it marks contaminated."""
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    return _outcomes([row for row in rows if not row.get("contaminated")])


def exam_outcomes(file: Path, strong: str, weak: str) -> Outcomes:
    """MMLU-Pro's, of two models, the options below the question."""
    rows = []
    for line in file.read_text("utf-8").splitlines():
        row = json.loads(line)
        scores = row["scores"]
        if strong in scores and weak in scores:
            options = [f"{chr(65 + at)}. {option}" for at, option in enumerate(row["options"])]
            text = "\n".join([row["text"], *options])
            rows.append({"text": text, "strong": scores[strong], "weak": scores[weak]})
    return _outcomes(rows)


def router_outcomes(file: Path, strong: str, weak: str) -> Outcomes:
    """LLMRouter's, of two models, over all of its tasks."""
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    return _outcomes([{"text": r["text"], "strong": r["scores"][strong], "weak": r["scores"][weak]} for r in rows])


def _outcomes(found: list[dict[str, Any]]) -> Outcomes:
    """Each question once."""
    embedding, version = load_embedding()
    rows = {}
    for row in found:
        rows.setdefault(same_text(row["text"]), row)
    texts = [row["text"] for row in rows.values()]
    answers = [row.get("weak_answer") for row in rows.values()]
    both = None if None in answers else list(zip(texts, answers, strict=True))
    return Outcomes(
        texts=texts,
        gains=np.array([row["strong"] - row["weak"] for row in rows.values()], np.float64),
        named=np.array([gain.named_features(text) for text in texts], np.float64),
        vectors=embedding.vectors(texts).astype(np.float64),
        answered=both and np.array([gain.named_features(text, Answer(said)) for text, said in both], np.float64),
        embedding=version,
    )


def splits(found: Outcomes, labels: int | None, count: int) -> Iterator[tuple[Any, Any]]:
    """(rows to learn from, rows to measure on): so many labels, or four fifths."""
    for seed in range(count):
        order = np.random.default_rng(seed).permutation(len(found.texts))
        learnt = labels or len(order) * 4 // 5
        yield order[:learnt], order[learnt:]


def measured(found: Outcomes, labels: int | None, count: int, kind: str = "prompt") -> tuple[Any, Any]:
    """(mean, standard deviation between splits) of APGR, CPT50, CPT80."""
    rows = []
    for learnt, tried in splits(found, labels, count):
        scores, gains = found.scores(found.scorer(learnt, kind), tried), found.gains[tried]
        rows.append(
            (promotion.apgr(scores, gains), *[100 * promotion.cpt(scores, gains, gap) for gap in (0.5, 0.8)])  # type: ignore[operator]
        )
    return np.mean(rows, axis=0), np.std(rows, axis=0)


def by_words(found: Outcomes) -> tuple[float, ...]:
    words = [len(text.split()) for text in found.texts]
    return (promotion.apgr(words, found.gains), *[100 * promotion.cpt(words, found.gains, gap) for gap in (0.5, 0.8)])  # type: ignore[arg-type,operator]


def share_errors(scorer: gain.Scorer, texts: list[str], prompts: int, count: int) -> Any:
    """Share of strong calls on fresh prompts - share asked for, in points, for each calibration and share.

    Each calibration takes so many of the texts, unlabelled, and is tried on all the others.
    """
    embedding, _ = load_embedding()
    named = np.stack([gain.named_features(text) for text in texts]).astype(np.float64)
    scores = gain.scores_of(scorer, named, embedding.vectors(texts).astype(np.float64))
    errors = []
    for seed in range(count):
        reference, fresh = np.split(np.random.default_rng(seed).permutation(len(texts)), [prompts])
        known = gain.calibrated(scorer, scores[reference], day=scorer.origin.made, share=0.3)
        ranks = np.array([known.percentile(float(score)) for score in scores[fresh[:4000]]])
        sent = [float(np.mean([gain.wants_strong(rank, share) for rank in ranks])) for share in SHARES]
        errors.append([100 * (got - share) for got, share in zip(sent, SHARES, strict=True)])
    return np.array(errors)


def unlabelled(data: Path) -> list[str]:
    """Prompts of several kinds, each once: assistants' commands, questions to a bank, sums, exam questions."""
    found = {}
    for name in ("clinc150", "banking77", "gsm8k_train_prompts", "routellm_mmlu"):
        for line in (data / f"{name}.jsonl").read_text("utf-8").splitlines()[:3000]:
            text = json.loads(line)["text"]
            found[same_text(text)] = text
    return list(found.values())


def table(data: Path, count: int) -> list[Line]:
    gsm8k, mmlu = (outcomes(data / f"routellm_{name}.jsonl") for name in ("gsm8k", "mmlu"))
    exam, router = data / "mmlupro.jsonl", data / "llmrouter_scores.jsonl"
    few = max(3, count // 2)
    lines = [Line("random", (0.5, 50.0, 80.0))]

    def add(name: str, found: Outcomes, labels: int | None, times: int, kind: str = "prompt") -> None:
        lines.append(Line(name, *measured(found, labels, times, kind), GOALS.get(name)))

    for name, found in (("GSM8K", gsm8k), ("MMLU", mmlu)):
        lines.append(Line(f"{name}, RouteLLM's best (published)", PUBLISHED[name]))
        lines.append(Line(f"{name}, word count", by_words(found)))
    add("GSM8K, 300 labels", gsm8k, 300, count)
    add("GSM8K, four fifths", gsm8k, None, count)
    add("GSM8K, reading the answer", gsm8k, None, count, "answer")
    add("GSM8K, reading the answer, 300 labels", gsm8k, 300, count, "answer")
    add("MMLU, 1,500 labels", mmlu, 1500, few)
    add("MMLU, four fifths", mmlu, None, few)
    for title, strong, weak in EXAM_PAIRS:
        found = exam_outcomes(exam, strong, weak)
        lines.append(Line(f"MMLU-Pro, {title}, word count", by_words(found)))
        add(f"MMLU-Pro, {title}", found, None, few)
    found = router_outcomes(router, *ROUTER_PAIR)
    lines.append(Line("LLMRouter, 51B over 8B, word count", by_words(found)))
    add("LLMRouter, 51B over 8B", found, None, few)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--splits", type=int, default=SPLITS)
    options = parser.parse_args()
    print(f"{'':46} {'APGR':>6} {'±':>5} {'CPT50':>6} {'CPT80':>6} {'goal':>6}")
    for name, values, spread, goal in table(options.data, options.splits):
        deviation = "" if spread is None else f"{spread[0]:.3f}"
        verdict = "" if goal is None else f">= {goal:.2f} {'met' if values[0] >= goal else 'MISSED'}"
        print(f"{name:46} {values[0]:6.3f} {deviation:>5} {values[1]:6.1f} {values[2]:6.1f}  {verdict}")
    labelled = outcomes(options.data / "routellm_mmlu.jsonl")
    scorer, texts = labelled.scorer(np.arange(1500)), unlabelled(options.data)
    print("\nstrong share on fresh prompts less the share asked for, in points  (goal: within 2)")
    for prompts in (1000, 4000):
        errors = share_errors(scorer, texts, prompts, options.splits)
        print(
            f"  calibrated on {prompts:,} unlabelled prompts: {np.abs(errors).mean():.1f} off on average, "
            f"{100 * (np.abs(errors) <= 2).mean():.0f} % within 2, bias {errors.mean():+.2f}"
        )
    print("± is the deviation between splits, most of it from which rows are measured.")


if __name__ == "__main__":
    main()
