"""From one's own records to what a scorer is learnt from: draws of an experiment, what came of them, and the features
that were kept of the prompts.

A split experiment draws one of two arms for each request, and feedback says how its answer did; the other arm's outcome
is guessed without bias from the draws (`policies.weighing`).  A shadow experiment has both answers: the strong model's
counts as right, and the weak one's as far as it agrees.  What a decision sent somewhere, without a draw, teaches nothing:
requests that went to the strong model were others.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import Struct

from compliance.sealing import PARTS
from policies import features
from policies.gain import Numbers, names_of
from policies.learning import Examples
from policies.remembered import unpack, unpack_answer
from policies.weighing import both, usable

if TYPE_CHECKING:
    from compliance.vault import Vault
    from policies.embedding import Floats
    from proxy.config_experiments import ExperimentPart

MILLION = 1_000_000
MOST_REFERENCE = 20_000
"""Requests that percentiles are taken over, the newest."""
_WORDS = features.NAMES.index("words")


class Nothing(Exception):
    """There is nothing to learn from; the message says what is missing and what would give it."""


class Label(Struct, frozen=True):
    """What one draw came to."""

    request: str
    strong: bool | None  # which arm was drawn; None: both answered, and were compared
    propensity: float
    value: float
    unit: str


class Funnel(Struct):
    """How many draws there were, and what became of them."""

    drawn: int = 0
    excluded: int = 0  # not compared: an arm was not open to them
    certain: int = 0  # drawn while one arm took everything
    unanswered: int = 0  # without feedback, or not compared
    forgotten: int = 0  # of which nothing was kept, or under an earlier version
    used: int = 0
    strong: int = 0  # of these, by the arm that was drawn
    weak: int = 0
    answered: tuple[float, float] = (1.0, 1.0)  # share of each arm's draws with feedback: strong, weak


class Own(Struct, frozen=True):
    """What is learnt from, and where it is from."""

    experiment: str
    metric: str  # "" where answers were compared
    examples: Examples
    requests: tuple[str, ...]  # in the order of the examples
    funnel: Funnel


class Kept(Struct, frozen=True):
    """One prompt as it was remembered."""

    named: Floats
    vector: Floats
    route: str
    same: str
    answer: Floats | None


class Trials:
    """Experiments and feedback as the ledger has them.  Raises `Nothing`, `sqlite3.Error`."""

    def __init__(self, ledger: Path) -> None:
        if not ledger.exists():
            raise Nothing(
                f"there is no ledger in {ledger.parent}: nothing was served yet; --state-dir says where it is"
            )
        self._db = sqlite3.connect(f"file:{ledger}?mode=ro", uri=True, timeout=20.0)
        tables = {row[0] for row in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {"feedback", "assigned", "shadowed"} <= tables:
            self._db.close()
            raise Nothing(
                "the ledger knows of no experiments: it is of an earlier version; `spillway spend --rebuild` makes it anew"
            )

    def close(self) -> None:
        self._db.close()

    def experiment(self, named: str | None) -> tuple[str, str]:
        """(name, split or shadow) of the one that is meant."""
        found = {
            row[0]: kind
            for kind, table in (("shadow", "shadowed"), ("split", "assigned"))
            for row in self._db.execute(f"SELECT DISTINCT experiment FROM {table}")
        }
        if named is not None and named not in found:
            raise Nothing(
                f"no request was drawn for an experiment {named!r}; there are {', '.join(sorted(found)) or 'none'}"
            )
        if not found:
            raise Nothing(
                "no experiment drew a request yet. Feedback alone says how the model that answered did, and not how the other would"
                " have: declare a split or a shadow under experiments:"
            )
        if named is None and len(found) > 1:
            raise Nothing(f"there are several experiments: say which of {', '.join(sorted(found))}")
        name = named or next(iter(found))
        return name, found[name]

    def metric(self, experiment: str, named: str | None) -> str:
        """The measure that is meant, of those that the application gave for this experiment's requests."""
        rows = self._db.execute(
            "SELECT DISTINCT f.metric FROM assigned a JOIN feedback f ON f.request = a.request WHERE a.experiment = ?",
            (experiment,),
        )
        found = sorted([row[0] for row in rows])
        if named is not None and named not in found:
            raise Nothing(
                f"no request of {experiment} has feedback {named!r}; there is {', '.join(found) or 'none at all'}"
            )
        if not found:
            raise Nothing(
                f"no request of {experiment} has feedback: the application gives it with POST /spillway/v1/feedback,"
                ' {"request_id", "metric", "value"}'
            )
        if named is None and len(found) > 1:
            raise Nothing(f"there are several measures: say --metric, one of {', '.join(found)}")
        return named or found[0]

    def split(self, experiment: str, metric: str, span: tuple[int, int], funnel: Funnel) -> list[Label]:
        """The draws that have feedback, and had a chance to fall otherwise."""
        rows = self._db.execute(
            "SELECT a.request, a.arm, a.propensity, a.unit, a.excluded, f.value FROM assigned a LEFT JOIN feedback f"
            " ON f.request = a.request AND f.metric = ? WHERE a.experiment = ? AND a.at >= ? AND a.at < ? ORDER BY a.at, a.request",
            (metric, experiment, *span),
        )
        labels, asked = [], {True: [0, 0], False: [0, 0]}
        for request, arm, millionths, unit, excluded, value in rows:
            funnel.drawn += 1
            propensity = millionths / MILLION
            if excluded:
                funnel.excluded += 1
            elif not usable(propensity):
                funnel.certain += 1
            else:
                strong = arm == "api"
                asked[strong][0] += 1
                if value is None:
                    funnel.unanswered += 1
                    continue
                asked[strong][1] += 1
                labels.append(Label(request, strong, propensity, float(value), unit))
        rates = [given / max(1, count) for count, given in (asked[True], asked[False])]
        funnel.answered = (rates[0], rates[1])
        return labels

    def shadow(self, experiment: str, span: tuple[int, int], funnel: Funnel) -> list[Label]:
        """The draws of which both answers were compared."""
        rows = self._db.execute(
            "SELECT request, propensity, score FROM shadowed WHERE experiment = ? AND at >= ? AND at < ? ORDER BY at, request",
            (experiment, *span),
        )
        labels = []
        for request, millionths, score in rows:
            funnel.drawn += 1
            if score < 0:
                funnel.unanswered += 1
            else:
                labels.append(Label(request, None, millionths / MILLION, score / 1000, request))
        return labels


def gather(
    trials: Trials,
    vault: Vault,
    embedding: str,
    *,
    experiment: str | None,
    metric: str | None,
    span: tuple[int, int],
    answers: bool,
    experiments: Sequence[ExperimentPart] = (),
) -> Own:
    """Everything that can be learnt from.  `embedding`: the hash of the one in use; `answers`: for a scorer of answers;
    `experiments`: as they are declared, for the measure that one is judged on.

    Raises `Nothing`, `VaultFailed`, `sqlite3.Error`.
    """
    name, how = trials.experiment(experiment)
    funnel = Funnel()
    part = next((one for one in experiments if one.name == name), None)
    if how == "split":
        if answers:
            raise Nothing(
                f"{name} is a split: each request has one answer. A scorer of answers needs a shadow experiment, where the small"
                " model's answer and the strong one's stand side by side"
            )
        measure = trials.metric(name, metric or (part.metric if part is not None else None))
        labels = trials.split(name, measure, span, funnel)
    else:
        if metric is not None:
            raise Nothing(f"{name} is a shadow experiment: its answers are compared, and no --metric is asked")
        measure = ""
        labels = trials.shadow(name, span, funnel)
    found = [(label, kept) for label in labels if (kept := remembered(vault, label.request, embedding)) is not None]
    if answers:
        found = [(label, kept) for label, kept in found if kept.answer is not None]
    funnel.forgotten = len(labels) - len(found)
    funnel.used = len(found)
    funnel.strong = sum([label.strong is not False for label, _ in found])
    funnel.weak = sum([label.strong is not True for label, _ in found])
    if not found:
        raise Nothing(f"{in_words(funnel)}: {_missing(funnel, answers)}")
    lower = part is not None and part.better == "lower" and part.metric == measure
    strong, weak = _outcomes(name, [label for label, _ in found], lower=lower)
    kind = "answer" if answers else "prompt"
    rows = [_named(kept, kind) for _, kept in found]
    examples = Examples(
        kind=kind,
        named=np.array(rows, np.float64).reshape(len(rows), len(names_of(kind))),
        vectors=np.array([kept.vector for _, kept in found], np.float64),
        strong=strong,
        weak=weak,
        groups=[kept.same for _, kept in found],
        routes=[kept.route for _, kept in found],
        words=[float(kept.named[_WORDS]) for _, kept in found],
        clusters=[label.unit for label, _ in found],
    )
    return Own(name, measure, examples, tuple([label.request for label, _ in found]), funnel)


def _outcomes(name: str, labels: Sequence[Label], *, lower: bool) -> tuple[Numbers, Numbers]:
    values = np.array([label.value for label in labels], np.float64)
    if lower:  # is better: as far as each stays below the highest
        values = values.max() - values
    if not np.isfinite(values).all() or float(values.min()) < 0:
        raise Nothing(
            "the measure is below zero for some requests: give one of which more is better and none is below zero"
        )
    if labels[0].strong is None:
        return np.ones(len(labels)), values
    try:
        return both(values, [bool(label.strong) for label in labels], [label.propensity for label in labels])
    except ValueError as error:
        raise Nothing(f"{name}: {error}") from None


def remembered(vault: Vault, request: str, embedding: str) -> Kept | None:
    """What is kept of a request's prompt, and of an answer; None: nothing that this version can use.  Raises `VaultFailed`."""
    prompt, answer = None, None
    with contextlib.suppress(ValueError):
        for part in vault.read(request, PARTS[:1]):
            if part.attempt == 0:
                prompt = unpack(part.data, embedding)
            elif answer is None:
                answer = unpack_answer(part.data)
    return None if prompt is None else Kept(*prompt, answer)


def reference(
    vault: Vault, embedding: str, kind: str, span: tuple[int, int], score: Any, known: Mapping[str, float]
) -> list[float]:
    """The scores of the traffic that was remembered, the newest of it; of what was learnt from, the held-out ones."""
    return list(_scores(vault, embedding, kind, span, score, known))


def _scores(
    vault: Vault, embedding: str, kind: str, span: tuple[int, int], score: Any, known: Mapping[str, float]
) -> Iterator[float]:
    for request in vault.newest(MOST_REFERENCE, begin=span[0], end=span[1]):
        if request in known:
            yield known[request]
            continue
        kept = remembered(vault, request, embedding)
        if kept is not None and (kind == "prompt" or kept.answer is not None):
            yield float(score(_named(kept, kind), kept.vector))


def _named(kept: Kept, kind: str) -> Floats:
    if kind == "prompt":
        return kept.named
    assert kept.answer is not None
    return np.concatenate((kept.named, kept.answer))


def in_words(funnel: Funnel) -> str:
    """What became of the draws."""
    parts = [f"{funnel.drawn:,} drawn"]
    for count, what in (
        (funnel.excluded, "not comparable"),
        (funnel.certain, "drawn while one arm took all"),
        (funnel.unanswered, "without a measure"),
        (funnel.forgotten, "of which no features are kept"),
    ):
        if count:
            parts.append(f"{count:,} {what}")
    arms = f" ({funnel.strong:,} strong, {funnel.weak:,} weak)" if funnel.used and funnel.strong != funnel.weak else ""
    return ", ".join([*parts, f"{funnel.used:,} used{arms}"])


def _missing(funnel: Funnel, answers: bool) -> str:
    if not funnel.drawn:
        return "the period holds no draw"
    if funnel.forgotten:
        more = " and of held answers" if answers else ""
        return (
            f"features of prompts{more} are kept where the configuration says complexity: {{remember: {{share: 100%}}}}"
        )
    return "there is nothing to learn from"
