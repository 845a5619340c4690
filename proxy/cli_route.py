"""`spillway route` and `spillway routes`: what prompts are about, as the configured routes see it; and the routes' own health."""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from policies.stages import ASKED
from proxy.cli_scan import FileArgument, FormatOption, Rows
from proxy.terminal import ConfigOption, JsonOption, coloured, fail, located, report, say

if TYPE_CHECKING:
    from policies.gain import Scored
    from policies.semantic import Fitted, Held, Placed, Route
    from proxy.complexity_models import Complexity
    from proxy.config import Settings
    from proxy.routing_stages import Stages

app = typer.Typer()
routes_app = typer.Typer(no_args_is_help=True, help="Try the routes that the configuration declares.")
LONG_FIT = 2000
"""Utterances from which it is said that a fit takes a while."""


@app.command(
    epilog="**Examples**\n\n`echo 'I lost my card' | spillway route`\n\n"
    "`spillway route --config spillway.yaml prompts.jsonl > routed.jsonl`"
)
def route(
    file: FileArgument = None,
    form: FormatOption = "auto",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which route a text belongs to.

    Takes text, or JSONL of {"id", "text"}. Prints JSONL of {"id", "route", "probability", "complexity", "percentile",
    "us"}; `route` is null out of scope and where no routes are declared, `complexity` (the predicted gain of the strong
    model) where no scorer is named, `percentile` (0 to 100, of the traffic) where it is not calibrated. With
    `routing.second_stage` also "stage", 1 or 2: which one answered, asked whenever the first is unsure. Of one text on a
    terminal, the three best routes.

    Exit codes for a text: 0 where it belongs to a route, 1 where it does not; for JSONL 0. 2 where a line is not of this
    form (it is named, the others are routed).
    """
    settings = located(config, None)
    scorer = _complexity(settings)
    stages = _stages(settings) if settings.routes or scorer is None else None
    rows = Rows(file, form)
    pretty = not rows.is_jsonl and not as_json and sys.stdout.isatty()
    placed = None
    for row in rows:
        began = time.perf_counter_ns()
        placed = stages.place(row.text) if stages is not None else None
        scored = scorer.judge(row.text) if scorer is not None else None
        spent = round((time.perf_counter_ns() - began) / 1000, 1)
        if pretty:
            print(view(placed, scored, spent, colour=coloured(sys.stdout)))
        else:
            stage = {"stage": _stage(placed)} if placed is not None and settings.routing.second is not None else {}
            print(json.dumps({"id": row.id, **_row(placed, scored), **stage, "us": spent}))
    if rows.bad:
        raise typer.Exit(2)
    if placed is not None and placed.route is None and not rows.is_jsonl:
        raise typer.Exit(1)


def _row(placed: Placed | None, scored: Scored | None) -> dict[str, Any]:
    """A row's figures; null is what is not known."""
    percentile = scored.percentile if scored is not None else None
    return {
        "route": placed.route if placed is not None else None,
        "probability": placed.probability if placed is not None else None,
        "complexity": round(scored.score, 4) if scored is not None else None,
        "percentile": round(100 * percentile, 1) if percentile is not None else None,
    }


def _stage(placed: Placed) -> int:
    return 2 if placed.second == ASKED else 1


def view(placed: Placed | None, scored: Scored | None, spent: float, *, colour: bool) -> str:
    """The best routes with bars, the complexity with its reasons, and why."""
    lines = _routes(placed, colour=colour) if placed is not None else []
    if scored is not None:
        where = (
            "uncalibrated" if scored.percentile is None else f"percentile {100 * scored.percentile:.0f} of your traffic"
        )
        lines.append(f"  complexity: {scored.score:+.3f} ({where})")
        lines += [f"    {name:28} {amount:+.3f}" for name, amount in scored.contributions]
    return "\n".join([*lines, f"  in {spent:.0f} us"])


def _routes(placed: Placed, *, colour: bool) -> list[str]:
    lines = []
    for name, probability in placed.best:
        bar = "█" * round(20 * probability)
        chosen = name == placed.route
        label = typer.style(f"{name:32}", bold=True, fg="green") if colour and chosen else f"{name:32}"
        lines.append(f"  {label} {100 * probability:5.1f} %  {bar}")
    where, number, likeness = placed.nearest
    lines.append("")
    lines.append(
        f"  route: {placed.route or 'none: out of scope'} (scope {placed.scope:+.2f}; zero and more is in scope)"
    )
    lines.append(f"  most like: {where}, utterance {number + 1} (likeness {likeness:.2f})")
    if placed.second:
        lines.append("  by the second stage: the first was unsure")
    return lines


@routes_app.command("report", epilog="**Examples**\n\n`spillway routes report`\n\n`spillway routes report --json`")
def show_report(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Say what is wrong with the routes: repeated and overlapping utterances, thin routes, and what is confused with what.

    Exit codes: 0 where nothing is doubtful, 1 where something is.
    """
    from policies.overlap import doubts
    from proxy.routing_models import routes_of

    settings = located(config, None)
    stages = _stages(settings)
    fitted = stages.first.fitted
    second = stages.both.second.fitted.held if stages.both is not None else None
    routes = routes_of(settings.routes)
    found = doubts(routes, fitted)
    held = fitted.held
    doubtful = bool(found.repeated or found.thin or found.alike)
    if as_json:
        print(
            json.dumps(
                {
                    "routes": len(routes),
                    "held_out": _held(held),
                    **({"second_stage_held_out": _held(second)} if second is not None else {}),
                    "confused": [{"route": a, "taken_for": b, "times": n} for a, b, n in held.confusions],
                    "repeated": [{"route": a, "also": b, "utterance": text} for a, b, text in found.repeated],
                    "alike": [
                        {"first": list(p.first), "second": list(p.second), "likeness": p.likeness} for p in found.alike
                    ],
                    "thin": [{"route": name, "utterances": count} for name, count in found.thin],
                }
            )
        )
    else:
        print("\n".join(_lines(routes, fitted, found, second)))
    if doubtful:
        raise typer.Exit(1)


def _held(held: Held) -> dict[str, Any]:
    return {"examples": held.examples, "right": round(held.right / held.examples, 4) if held.examples else None}


def _lines(routes: list[Route], fitted: Fitted, found: Any, second: Held | None = None) -> list[str]:
    held = fitted.held
    lines = [f"{len(routes)} routes, {sum(len(route.utterances) for route in routes):,} utterances"]
    if held.examples:
        share = f"{100 * held.right / held.examples:.1f} %"
        lines.append(f"Of {held.examples:,} utterances held out in turn, {share} were placed in their own route.")
    if second is not None and second.examples:
        lines.append(f"The second stage alone placed {100 * second.right / second.examples:.1f} % of them there.")
    for title, rows in (
        ("Confused most often", [f"{mine} taken for {other}: {count}" for mine, other, count in held.confusions[:10]]),
        ("Said twice", [f"{mine} and {other}: {text}" for mine, other, text in found.repeated[:20]]),
        (
            "Alike, in two routes",
            [f"{_utterance(routes, p.first)}  ~  {_utterance(routes, p.second)} ({p.likeness})" for p in found.alike],
        ),
        ("Too few utterances to learn from", [f"{name}: {count}" for name, count in found.thin]),
    ):
        if rows:
            lines += ["", title, *[f"  {row}" for row in rows]]
    return lines


def _utterance(routes: list[Route], place: tuple[str, int]) -> str:
    name, number = place
    said = next(route for route in routes if route.name == name).utterances
    return f"{name}: {said[number] if number < len(said) else 'its description'}"


@routes_app.command(
    "test",
    epilog="**Examples**\n\n`spillway routes test cases.jsonl`\n\n"
    'A case: `{"text": "I lost my card", "route": "cards"}`; `"route": null` means out of scope.',
)
def test(
    file: Annotated[Path, typer.Argument(help='JSONL of {"text", "route"}.')],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Try your own cases. Exit codes: 0 where every case is placed as it says, 1 where one is not, 2 for a broken case."""
    stages = _stages(located(config, None))
    names = set(stages.first.fitted.names)
    cases = _cases(file, names)
    wrong, spent = [], []
    for number, (text, expected) in enumerate(cases, 1):
        began = time.perf_counter_ns()
        placed = stages.place(text)
        spent.append((time.perf_counter_ns() - began) / 1000)
        if placed.route != expected:
            wrong.append((number, text, expected, placed))
    if as_json:
        listed = [
            {"case": number, "expected": expected, "route": placed.route, "best": placed.best, "scope": placed.scope}
            for number, _, expected, placed in wrong
        ]
        print(json.dumps({"cases": len(cases), "right": len(cases) - len(wrong), "wrong": listed}))
    else:
        for _, text, expected, placed in wrong:
            print(f"{expected or 'out of scope'} was taken for {placed.route or 'out of scope'}: {text[:100]}")
        print(f"{len(cases) - len(wrong)} of {len(cases)} as expected, {statistics.median(spent):.0f} us each")
    if wrong:
        raise typer.Exit(1)


def _cases(file: Path, names: set[str]) -> list[tuple[str, str | None]]:
    cases = []
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{file} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8 text'}", 2)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            case = json.loads(line)
        except ValueError:
            fail(f"{file}:{number}: is not JSON", 2)
        if not isinstance(case, dict) or not isinstance(case.get("text"), str) or "route" not in case:
            fail(f'{file}:{number}: is not an object of {{"text", "route"}}', 2)
        if case["route"] is not None and case["route"] not in names:
            fail(
                f"{file}:{number}: there is no route {str(case['route'])[:64]!r}; there are {', '.join(sorted(names)[:12])}",
                2,
            )
        cases.append((case["text"], case["route"]))
    if not cases:
        fail(f"{file} holds no cases", 2)
    return cases


def _complexity(settings: Settings) -> Complexity | None:
    """The scorer that the configuration names."""
    from proxy.complexity_models import ScorerInvalid, load_complexity
    from proxy.routing_models import load_embedding

    if settings.complexity.scorer is None:
        return None
    try:
        return load_complexity(settings.complexity, *load_embedding())[0]
    except (ScorerInvalid, OSError) as error:
        fail(str(error), 1)


def _stages(settings: Settings) -> Stages:
    """The configuration's routes, fitted; without any, the end."""
    from proxy.routing_shelves import commands_routes, graphs
    from proxy.routing_stages import load_stages

    def fitting(count: int) -> None:
        if count >= LONG_FIT:
            say(f"fitting the routes on {count:,} utterances: this takes a minute or more, once", "dim")

    if not settings.routes:
        report("The configuration declares no routes. A first one:")
        report(
            "    routes:\n      - {name: cards, description: lost or stolen cards, utterances: [I lost my card, ...]}"
        )
        raise typer.Exit(2)
    try:
        found = load_stages(
            settings.routes, settings.routing.second, commands_routes(settings), graphs(settings), fitting=fitting
        )
    except ValueError as error:
        fail(str(error), 1)
    if found.why:
        say(f"{found.why}; the first stage alone answers", "yellow")
    return found
