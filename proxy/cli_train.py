"""`spillway train`: a scorer learnt from one's own records, put in the place of the one in use where it passes the gate."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from proxy.choice import period
from proxy.scorer_words import (
    fraction,
    gate_row,
    made_row,
    needed,
    print_calibration,
    print_gate,
    print_table,
)
from proxy.terminal import ConfigOption, JsonOption, StateOption, fail, located, say

if TYPE_CHECKING:
    from policies.gain import Scorer
    from policies.learning import Learnt
    from proxy.config import Settings
    from proxy.own_labels import Own

app = typer.Typer()


@app.command(
    epilog="**Examples**\n\n`spillway train -c spillway.yaml --dry-run`: what would come of it, and why not\n\n"
    "`spillway train parity --metric resolved --quality 95%`\n\n"
    "`spillway train parity --since 30d --strong-share 30% --json`\n\n"
    "Needs `complexity: {scorer: complexity.npz, remember: {share: 100%}}` and a split or a shadow under `experiments:`."
)
def train(
    experiment: Annotated[
        str | None, typer.Argument(help="Whose draws are learnt from. Default: the only one that there is.")
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric", help="The feedback that counts, of a split. Default: the experiment's, or the only one."
        ),
    ] = None,
    strong_share: Annotated[
        str | None,
        typer.Option("--strong-share", help="Prompts that go to the strong model: 30%. Default: as it is now."),
    ] = None,
    quality: Annotated[
        str | None, typer.Option("--quality", help="Quality to keep, of always asking the strong model: 95%.")
    ] = None,
    answers: Annotated[
        bool, typer.Option("--answers", help="A scorer of the small model's answers, from a shadow experiment.")
    ] = False,
    begin: Annotated[
        str | None, typer.Option("--from", "--since", help="A day, a time, or 30d ago. Default: the first.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", "--until", help="The same. Default: now.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure everything, and write nothing.")] = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Learn from your own traffic which prompts gain from the strong model, and promote what is proved.

    An experiment's draws and your application's feedback say what each model is worth for which prompts. The scorer takes
    the place of the one that the configuration names only where the lower end of its interval beats random, and each
    route's mean; the word count stands beside. The promotion is a record of the log; workers use it from their next
    start on.

    Exit codes: 0 where it was promoted (or would be, with --dry-run); 1 where it was refused, and nothing was written;
    2 for wrong use.
    """
    settings = located(config, state_dir)
    share, target = _aim(strong_share, quality)
    option = "answers" if answers else "scorer"
    path = _output(settings, option)
    span = period(begin, end)
    share = share if share is not None or target is not None else _share_now(settings, path, answers)
    with _refusing(as_json):
        own, learnt, scores = _learn(settings, experiment, metric, span, answers)
    if not learnt.promotion.promoted:
        _refuse(own, learnt, as_json)
    if target is not None:
        share = _share_for(learnt, target)
    assert share is not None
    made = _calibrated(learnt.scorer, scores, share, target, as_json)
    found = _promote(settings, path, option, own, made) if not dry_run else None
    _say(own, learnt, made, share, target, found, path, as_json)


# --- what is asked for -------------------------------------------------------------------------------------------


def _aim(strong_share: str | None, quality: str | None) -> tuple[float | None, float | None]:
    """(share, quality): one of them, or neither."""
    if strong_share is not None and quality is not None:
        fail("say one of --strong-share 30% and --quality 95%", 2)
    share = None if strong_share is None else fraction(strong_share, "--strong-share")
    return share, None if quality is None else fraction(quality, "--quality")


def _output(settings: Settings, option: str) -> Path:
    named = getattr(settings.complexity, option)
    if named is None:
        fail(f"where to? name the file in the configuration: complexity: {{{option}: complexity.npz}}", 2)
    return Path(named)


def _share_now(settings: Settings, path: Path, answers: bool) -> float:
    """The share of strong calls that is in force."""
    from proxy.complexity_models import ScorerInvalid, load_scorer
    from proxy.routing_models import load_embedding

    if settings.complexity.strong_share is not None and not answers:
        return settings.complexity.strong_share
    share = None
    with contextlib.suppress(ScorerInvalid, OSError):
        share = load_scorer(path, load_embedding()[1]).origin.strong_share
    if share is None:
        fail("how often may the strong model be asked? Say --strong-share 30%, or --quality 95%", 2)
    return share


# --- what is learnt ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _refusing(as_json: bool) -> Iterator[None]:
    """What cannot be learnt from is an answer: no."""
    from compliance.vault import VaultFailed
    from proxy.own_labels import Nothing

    try:
        yield
    except (Nothing, ValueError) as why:
        _no(str(why), as_json)
    except VaultFailed as failure:
        fail(f"what was kept of prompts cannot be read: {failure}", 1)
    except sqlite3.Error as error:
        fail(f"the ledger cannot be read: {error}", 1)


def _no(why: str, as_json: bool) -> NoReturn:
    if as_json:
        print(json.dumps({"promoted": False, "why": why, "written": None}))
    fail(f"refused: {why}. Nothing was written", 1)


def _learn(
    settings: Settings, experiment: str | None, metric: str | None, span: tuple[int, int], answers: bool
) -> tuple[Own, Learnt, list[float]]:
    """(what is learnt from, the scorer with its proof, the scores of the traffic that was remembered)."""
    from policies.gain import LEAST_LABELS
    from policies.learning import learn_from
    from proxy.own_labels import Nothing, Trials, gather, in_words, reference
    from proxy.routing_models import load_embedding
    from proxy.vaulting import features_path, open_features

    version = load_embedding()[1]
    with contextlib.ExitStack() as stack:
        trials = Trials(Path(settings.state.dir) / "ledger.db")
        stack.callback(trials.close)
        if not features_path(settings).exists():
            trials.experiment(experiment)
            raise Nothing("nothing is kept of prompts; complexity: {remember: {share: 100%}} keeps what is learnt from")
        vault = open_features(settings)
        stack.callback(vault.close)
        own = gather(
            trials,
            vault,
            version,
            experiment=experiment,
            metric=metric,
            span=span,
            answers=answers,
            experiments=settings.experiments,
        )
        if own.funnel.used < LEAST_LABELS:
            raise Nothing(
                f"{in_words(own.funnel)}: at least {LEAST_LABELS} are needed to learn at all, and some hundreds to pass the gate"
            )
        learnt = learn_from(own.examples, version, made=_today())
        known = dict(zip(own.requests, [float(score) for score in learnt.scores], strict=True))
        scores = reference(vault, version, own.examples.kind, span, learnt.scorer.score, known)
    return own, learnt, scores


def _share_for(learnt: Learnt, target: float) -> float:
    from policies.promotion import share_for

    found = share_for(learnt.ranks, learnt.strong, learnt.weak, target)
    return 1.0 if found is None else found


def _calibrated(scorer: Scorer, scores: list[float], share: float, target: float | None, as_json: bool) -> Scorer:
    import msgspec

    from policies.gain import calibrated

    try:
        made = calibrated(scorer, scores, day=_today(), share=share)
    except ValueError as error:
        _no(str(error), as_json)
    return msgspec.structs.replace(made, origin=msgspec.structs.replace(made.origin, quality=target))


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


# --- what is written ---------------------------------------------------------------------------------------------


def _promote(settings: Settings, path: Path, option: str, own: Own, made: Scorer) -> dict[str, Any]:
    """Put it in place and say so in the log; where no record can be made, nothing is put."""
    from compliance.records import ScorerPromoted
    from proxy.cli_log import changing, now
    from proxy.complexity_models import ScorerInvalid, save_scorer
    from proxy.fingerprints import account

    before = _hash(path)
    gate = made.origin.gate
    with changing(settings) as log:
        try:
            save_scorer(path, made)
        except ScorerInvalid as invalid:
            fail(str(invalid), 2)
        except OSError as error:
            fail(f"{path} cannot be written: {error.strerror}; nothing was promoted", 1)
        size, after = path.stat().st_size, _hash(path)
        log.write(
            ScorerPromoted(
                actor=account(), apgr=_millionths(gate["apgr"]), at=now(), bytes=size, calibrated=made.origin.calibrated or 0,
                experiment=own.experiment, hash=after, hash_before=before, high=_millionths(gate["high"]), labels=made.origin.labels,
                low=_millionths(gate["low"]), metric=own.metric, option=option, routes=_millionths(gate["routes"]) if "routes" in gate else -1,
                strong_share=_millionths(made.origin.strong_share or 0), words=_millionths(gate.get("words", 0)),
            )
        )  # fmt: skip
    return {"bytes": size, "hash": after, "hash_before": before or None}


def _hash(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:32]
    except OSError:
        return ""


def _millionths(value: float) -> int:
    return round(value * 1_000_000)


# --- what is said ------------------------------------------------------------------------------------------------


def _refuse(own: Own, learnt: Learnt, as_json: bool) -> NoReturn:
    gate = learnt.promotion
    wanted = needed(gate, len(learnt.strong))
    if as_json:
        print(json.dumps({**_origin(own), **gate_row(learnt), "needed": wanted, "written": None}))
    else:
        print_gate(gate, len(learnt.strong), _of(own))
        _print_funnel(own)
    fail(f"refused: {gate.why}. What it would take: {wanted}. Nothing was written", 1)


def _say(
    own: Own, learnt: Learnt, made: Scorer, share: float, target: float | None, found: dict[str, Any] | None, path: Path,
    as_json: bool,
) -> None:  # fmt: skip
    from policies.learning import table

    shown = table(learnt, share)
    if as_json:
        row = made_row(learnt, made, share, shown, path) | (found or {"written": None})
        print(json.dumps({**_origin(own), **row}))
    else:
        print_gate(learnt.promotion, len(learnt.strong), _of(own))
        _print_funnel(own)
        print_table(shown, share)
        print_calibration(made.origin, share, target)
    if found is None:
        say("it would be promoted; with --dry-run nothing is written", "green")
    else:
        say(
            f"promoted: {path}, {found['bytes']:,} bytes, {found['hash']}; workers use it from their next start on",
            "green",
        )


def _of(own: Own) -> str:
    measured = f"measured by {own.metric}" if own.metric else "whose answers were compared"
    return f"requests of {own.experiment}, {measured}"


def _print_funnel(own: Own) -> None:
    from proxy.own_labels import in_words

    print(f"  {in_words(own.funnel)}")
    strong, weak = own.funnel.answered
    if own.metric and min(strong, weak) < 0.8 * max(strong, weak):
        say(
            f"feedback came for {100 * strong:.0f} % of the strong arm and {100 * weak:.0f} % of the weak one: where that hangs on"
            " how good an answer was, what is learnt is off",
            "yellow",
        )


def _origin(own: Own) -> dict[str, Any]:
    funnel = own.funnel
    counts = {
        name: getattr(funnel, name) for name in ("drawn", "excluded", "certain", "unanswered", "forgotten", "used")
    }
    return {"experiment": own.experiment, "metric": own.metric or None, "draws": counts}
