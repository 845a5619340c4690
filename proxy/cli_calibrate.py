"""`spillway calibrate`: a scorer for one's own traffic, learnt from labels, set by a share or by quality, proved before use."""

from __future__ import annotations

import datetime
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from proxy.scorer_words import (
    aim,
    gate_row,
    made_row,
    print_calibration,
    print_gate,
    print_table,
    status_row,
    status_words,
)
from proxy.terminal import ConfigOption, JsonOption, StateOption, fail, located, open_input, report, say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from policies.doubt import Answer
    from policies.embedding import StaticEmbedding
    from policies.gain import Scorer
    from policies.learning import Labelled, Learnt
    from policies.promotion import Quality
    from proxy.config import Settings

app = typer.Typer()
_BAD_SHOWN = 20


@app.command(
    epilog="**Examples**\n\n`spillway calibrate --strong-share 30% --labels labels.jsonl prompts.jsonl`\n\n"
    "`spillway calibrate --quality 95% labels.jsonl --output complexity.npz`\n\n"
    "`spillway calibrate --strong-share 20% prompts.jsonl`: with the scorer that is there\n\n"
    "`spillway calibrate --status -c spillway.yaml`\n\n"
    'A label: `{"text": "...", "strong": 1, "weak": 0}`; beside it may stand `"route"`, and with `"weak_answer"` the '
    'answer is read as well (`"finish"`, `"schema"`, `"logprob"` where they are known).'
)
def calibrate(
    file: Annotated[
        Path | None,
        typer.Argument(help='JSONL of {"text"}: your own traffic. With --quality and without --labels, the labels.'),
    ] = None,
    strong_share: Annotated[
        str | None, typer.Option("--strong-share", help="Prompts that go to the strong model: 30%, or 0.3.")
    ] = None,
    quality: Annotated[
        str | None, typer.Option("--quality", help="Quality to keep, of always asking the strong model: 95%, or 0.95.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", help='JSONL of {"text", "strong", "weak"}: how both models did.')
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The scorer's file. Default: as the configuration names it.")
    ] = None,
    answers: Annotated[
        bool, typer.Option("--answers", help="Of the weak model's answers: each row holds a weak_answer.")
    ] = False,
    status: Annotated[
        bool, typer.Option("--status", help="Say how the scorer in use was made, and whether traffic is still like it.")
    ] = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Learn which prompts gain from the strong model, and set how many go there.

    With labels, a scorer is learnt from them, and measured on rows that it has not seen. It is written only where the
    lower end of its interval beats random, and each route's mean where the labels name routes. Your own prompts, without
    labels, then turn its scores into percentiles, so that a threshold is a share of your traffic. No text is kept.

    Exit codes: 0 where the scorer was written; 1 where it was refused, and nothing was written; 2 for wrong input. With
    --status 1 where the drift alarm of a worker rings, or a scorer cannot be used.
    """
    if status:
        _status(located(config, state_dir), as_json)
        return
    share, target = aim(strong_share, quality)
    source, prompts = (labels, file) if labels is not None else (file, None) if target is not None else (None, file)
    path = _output(output, config, answers)
    embedding, version = _embedding()
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    learnt = None
    if target is not None and source is None:
        fail("--quality needs labels: how both models did on each prompt", 2)
    if source is not None:
        rows = list(_labelled(source, answers))
        learnt = _learn(rows, embedding, version, day)
        if not learnt.promotion.promoted:
            _refuse(learnt, as_json)
        scorer = learnt.scorer
        share = _share_for(learnt, target) if target is not None else share
    else:
        rows = []
        scorer = _existing(path, version)
        if (scorer.origin.kind == "answer") != answers:
            fail(f"{path} reads {'answers: say --answers' if not answers else 'prompts alone: leave --answers out'}", 2)
    assert share is not None
    scores = _reference(prompts, rows, learnt, scorer, embedding, answers)
    made = _calibrated(scorer, scores, day, share, target)
    _write(path, made)
    shown = _table(learnt, share) if learnt is not None else []
    if as_json:
        print(json.dumps(made_row(learnt, made, share, shown, path)))
        return
    _print(learnt, made, share, target, shown)
    say(f"written to {path}", "green")


def _status(settings: Settings, as_json: bool) -> None:
    row = status_row(settings)
    print(json.dumps(row) if as_json else status_words(row))
    broken = any([found is not None and "problem" in found for found in (row["scorer"], row["answers"])])
    if broken or any([standing.get("alarm") for standing in row["drift"].values()]):
        raise typer.Exit(1)


# --- what is asked for -------------------------------------------------------------------------------------------


def _output(output: Path | None, config: Path | None, answers: bool) -> Path:
    if output is not None:
        return output
    part = located(config, None).complexity
    named = part.answers if answers else part.scorer
    if named is None:
        name = "answers" if answers else "scorer"
        fail(f"where to? say --output PATH, or name it in the configuration: complexity: {{{name}: complexity.npz}}", 2)
    return Path(named)


# --- what is read ------------------------------------------------------------------------------------------------


def _objects(file: Path | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) of each line; every broken line is named, and ends the command before anything is learnt."""
    name = str(file) if file is not None else "standard input"
    bad = 0
    with open_input(file, "JSONL") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if isinstance(row, dict) and isinstance(row.get("text"), str):
                yield f"{name}:{number}", row
                continue
            bad += 1
            if bad <= _BAD_SHOWN:
                report(f"{name}:{number}: {_wrong(row)}")
    if bad:
        fail(f"{bad} line{'s' if bad > 1 else ''} of {name} cannot be used", 2)


def _wrong(row: Any) -> str:
    if not isinstance(row, dict):
        return 'is no JSON object of {"text"}'
    return "has no text" if "text" not in row else "has a text that is no string"


def _labelled(file: Path, answers: bool) -> Iterator[Labelled]:
    from policies.learning import Labelled

    for place, row in _objects(file):
        strong, weak = _measure(row, "strong", place), _measure(row, "weak", place)
        route = row.get("route")
        if route is not None and not isinstance(route, str):
            fail(f"{place}: has a route that is no string", 2)
        yield Labelled(row["text"], strong, weak, _answer(row, place) if answers else None, route)


def _measure(row: dict[str, Any], side: str, place: str) -> float:
    value = row.get(side)
    if not isinstance(value, (int, float)) or not math.isfinite(value) or not 0 <= value <= 1e6:
        fail(f"{place}: needs a number from 0 as {side!r}: how that model did, such as 1 for right and 0 for wrong", 2)
    return float(value)


def _answer(row: dict[str, Any], place: str) -> Answer:
    from policies.doubt import Answer

    text, finish, schema, logprob = (row.get(name) for name in ("weak_answer", "finish", "schema", "logprob"))
    if not isinstance(text, str):
        fail(f'{place}: --answers needs a "weak_answer" in each row', 2)
    return Answer(
        text,
        finish if isinstance(finish, str) else None,
        schema if isinstance(schema, bool) else None,
        float(logprob) if isinstance(logprob, (int, float)) and math.isfinite(logprob) else None,
    )


def _embedding() -> tuple[StaticEmbedding, str]:
    from proxy.routing_models import load_embedding

    try:
        return load_embedding()
    except (OSError, ValueError) as error:
        fail(f"the embedding cannot be loaded: {error}", 1)


def _existing(path: Path, version: str) -> Scorer:
    from proxy.complexity_models import ScorerInvalid, load_scorer

    try:
        return load_scorer(path, version)
    except ScorerInvalid as invalid:
        fail(str(invalid), 1)
    except OSError as error:
        fail(f"{path} cannot be read: {error.strerror}; --labels LABELS learns a scorer", 2)


# --- what is made ------------------------------------------------------------------------------------------------


def _learn(rows: list[Labelled], embedding: StaticEmbedding, version: str, day: str) -> Learnt:
    from policies.learning import learn

    try:
        return learn(rows, embedding, version, made=day)
    except ValueError as error:
        fail(str(error), 2)


def _share_for(learnt: Learnt, target: float) -> float:
    from policies.promotion import share_for

    found = share_for(learnt.ranks, learnt.strong, learnt.weak, target)
    assert found is not None  # the strong model alone has quality 1, and no more can be asked for
    return found


def _reference(
    prompts: Path | None,
    rows: list[Labelled],
    learnt: Learnt | None,
    scorer: Scorer,
    embedding: StaticEmbedding,
    answers: bool,
) -> list[float]:
    """Scores of the operator's traffic.  A prompt that was learnt from counts with its held-out score: a scorer is too sure of those."""
    from policies.gain import named_features
    from policies.learning import same_text

    held = {}
    if learnt is not None:
        if prompts is None:
            return [float(score) for score in learnt.scores]
        held = {same_text(row.text): float(score) for row, score in zip(rows, learnt.scores, strict=True)}
    scores = []
    for place, row in _objects(prompts):
        answer = _answer(row, place) if answers else None
        known = held.get(same_text(row["text"])) if held else None
        scores.append(
            known
            if known is not None
            else scorer.score(named_features(row["text"], answer), embedding.read(row["text"])[0])
        )
    return scores


def _calibrated(scorer: Scorer, scores: list[float], day: str, share: float, target: float | None) -> Scorer:
    import msgspec

    from policies.gain import calibrated

    try:
        made = calibrated(scorer, scores, day=day, share=share)
    except ValueError as error:
        fail(str(error), 2)
    return msgspec.structs.replace(made, origin=msgspec.structs.replace(made.origin, quality=target))


def _write(path: Path, scorer: Scorer) -> None:
    from proxy.complexity_models import ScorerInvalid, save_scorer

    try:
        save_scorer(path, scorer)
    except ScorerInvalid as invalid:
        fail(str(invalid), 2)
    except OSError as error:
        fail(f"{path} cannot be written: {error.strerror}", 1)


# --- what is said ------------------------------------------------------------------------------------------------


def _refuse(learnt: Learnt, as_json: bool) -> None:
    gate = learnt.promotion
    if as_json:
        print(json.dumps(gate_row(learnt) | {"written": None}))
    fail(f"refused: {gate.why}. Nothing was written; more labels narrow the interval", 1)


def _table(learnt: Learnt, share: float) -> list[Quality]:
    from policies.learning import table

    return table(learnt, share)


def _print(learnt: Learnt | None, made: Scorer, share: float, target: float | None, shown: list[Quality]) -> None:
    origin = made.origin
    if learnt is not None:
        print_gate(learnt.promotion, origin.labels, "labelled prompts")
        print_table(shown, share)
    else:
        print(f"the scorer of {origin.made}, learnt from {origin.labels:,} labelled prompts, calibrated anew")
    print_calibration(origin, share, target)
