"""The reasons of a decision, for `explain`: what was read and matched, what the classifiers saw, and what weighed most.

The largest contributions hold words of the text, for whoever has it before them; records hold none of this but numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policies.conditions import parse, spoken
from policies.signals import told
from policies.stages import ASKED, words_of
from proxy.drifting import standings, words
from proxy.routing_names import in_force
from proxy.steering import Steered, Steerer

if TYPE_CHECKING:
    from policies.semantic import Placed
    from proxy.complexity_models import Complexity
    from proxy.config import Settings
    from proxy.routing_stages import Stages

LARGEST = 5


def explained(
    steered: Steered, steerer: Steerer, settings: Settings, stages: Stages | None, complexity: Complexity | None
) -> dict[str, Any]:
    """Why a request goes where it goes.  `stages` and `complexity`: those that were asked, if any."""
    signals, placed = steered.signals, steered.signals.placed
    return {
        "matched": steered.decision or None,
        "rule": steered.plan.rule,
        "rejected": _rejected(steered, steerer, settings),
        "fault": steered.fault or None,
        "signals": dict(row.split("=", 1) for row in told(signals.read_so_far, identity=True)),
        "route": steered.route or None,
        "about": None if placed is None else _about(placed, signals.sample, stages),
        "complexity": _complexity(signals.said, complexity, settings) if "complexity" in signals.read_so_far else None,
        "classifiers": in_force(settings) if placed is not None else {},
        "us": round(steered.us, 1),
    }


def _rejected(steered: Steered, steerer: Steerer, settings: Settings) -> list[dict[str, str]]:
    """The decisions that were asked before, and what would have had to hold."""
    conditions = {part.name: spoken(parse(part.when)[0]) for part in settings.decisions}
    rejected = []
    for one in steerer.decisions:
        if one.name == steered.decision or steered.fault.startswith(f"{one.name}: "):
            break
        rejected.append({"decision": one.name, "does_not_hold": conditions.get(one.name, "")})
    return rejected


def _about(placed: Placed, text: str, stages: Stages | None) -> dict[str, Any]:
    route, number, likeness = placed.nearest
    parts = stages.contributions(placed, text) if stages is not None else []
    return {
        "best": [{"route": name, "probability": chance} for name, chance in placed.best],
        "margin": placed.margin,
        "nearest": {"route": route, "utterance": number + 1, "likeness": likeness},
        "scope": placed.scope,
        "stage": "second" if placed.second == ASKED else "first",
        "second_stage": words_of(placed.second) or None,
        "contributions": _largest(parts),
    }


def _complexity(text: str, complexity: Complexity | None, settings: Settings) -> dict[str, Any]:
    """The score and all that it rests on; `percentile` None: uncalibrated."""
    if complexity is None:
        return {"percentile": None, "calibrated": None}
    scored, origin, share = complexity.judge(text), complexity.origin, complexity.share
    return {
        "score": round(scored.score, 4),
        "percentile": None if scored.percentile is None else round(100 * scored.percentile, 1),
        "strong_from": None if share is None else round(100 * (1 - share), 1),
        "strong": scored.strong,
        "calibrated": origin.calibrated,
        "calibrated_on": origin.calibrated_on,
        "labels": origin.labels,
        "made": origin.made,
        "drift": {
            slot: words(row)
            for slot, row in standings(Path(settings.state.dir), origin.made).items()
            if row.get("alarm")
        },
        "contributions": _largest(scored.contributions),
    }


def _largest(parts: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    return [{"of": name, "amount": round(amount, 4)} for name, amount in parts[:LARGEST]]
