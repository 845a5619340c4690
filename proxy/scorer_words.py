"""What `calibrate` and `train` ask and say of a scorer: shares, what the gate measured, where one in use stands."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxy.terminal import fail, say

if TYPE_CHECKING:
    from policies.gain import Origin, Scorer
    from policies.learning import Learnt
    from policies.promotion import Promotion, Quality
    from proxy.config import Settings

ENOUGH = 1000
"""Prompts that set a share within about two points."""
_CLEAR = 0.02
"""Below this lead over its rival, more labels are no honest advice."""


def aim(strong_share: str | None, quality: str | None) -> tuple[float | None, float | None]:
    """(share, quality): one of them."""
    if (strong_share is None) == (quality is None):
        fail("say one of --strong-share 30% and --quality 95%", 2)
    if strong_share is not None:
        return fraction(strong_share, "--strong-share"), None
    return None, fraction(quality or "", "--quality")


def fraction(text: str, option: str) -> float:
    """0.3 of `30%` or `0.3`."""
    bare = text.strip()
    try:
        value = float(bare.removesuffix("%")) / (100 if bare.endswith("%") else 1)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        fail(f"{option} is a share: such as 30%, or 0.3", 2)
    return value


def gate_row(learnt: Learnt) -> dict[str, Any]:
    gate = learnt.promotion
    figures = {name: getattr(gate, name) for name in ("apgr", "low", "high", "words", "routes")}
    rounded = {name: None if value is None else round(value, 4) for name, value in figures.items()}
    return {"labels": len(learnt.strong), **rounded, "promoted": gate.promoted, "why": gate.why}


def made_row(learnt: Learnt | None, made: Scorer, share: float, shown: list[Quality], path: Path) -> dict[str, Any]:
    table = [{name: round(getattr(row, name), 4) for name in ("share", "quality", "low", "high")} for row in shown]
    gate = gate_row(learnt) if learnt is not None else {"labels": made.origin.labels, **made.origin.gate}
    found = {"kind": made.origin.kind, "share": share, "calibrated": made.origin.calibrated, "table": table}
    return gate | found | {"written": str(path)}


def print_gate(gate: Promotion, labels: int, what: str) -> None:
    """What the gate measured, beside its rivals."""
    print(f"learnt from {labels:,} {what}, measured on parts held out in turn:")
    if gate.apgr is None or gate.low is None or gate.high is None:
        print("  no gap between the two models to recover")
        return
    print(f"  APGR {gate.apgr:.3f} (95 % interval {gate.low:.3f} to {gate.high:.3f})")
    beside = [("random", 0.5), ("word count", gate.words), ("each route's mean", gate.routes)]
    print("  beside it: " + ", ".join([f"{name} {value:.3f}" for name, value in beside if value is not None]))


def print_table(shown: list[Quality], share: float) -> None:
    """What each share of strong calls gives."""
    print(f"\n  {'strong calls':>12}  {'quality':>8}  95 % interval")
    for row in shown:
        mark = "  <- chosen" if abs(row.share - share) < 1e-4 else ""
        interval = f"{100 * row.low:5.1f} to {100 * row.high:5.1f} %"
        print(f"  {100 * row.share:>10.0f} %  {100 * row.quality:>6.1f} %  {interval}{mark}")
    print("\n  quality is relative to always asking the strong model")


def print_calibration(origin: Origin, share: float, target: float | None) -> None:
    why = f", the least that keeps {100 * target:g} % of the quality" if target is not None else ""
    print(f"\ncalibrated on {origin.calibrated:,} prompts: {100 * share:g} % go to the strong model{why}")
    if (origin.calibrated or 0) < ENOUGH:
        say(f"on fewer than {ENOUGH:,} prompts the share of fresh traffic may be several points off", "yellow")


def needed(gate: Promotion, labels: int) -> str:
    """What a refused scorer would need, in words: the interval narrows with the root of the labels."""
    if gate.apgr is None or gate.low is None:
        return "a strong model that does better on some prompts: until then, ask the weak one"
    rival = max(0.5, gate.routes or 0.0)
    lead = gate.apgr - rival
    if lead < _CLEAR:
        return (
            f"it leads by {max(0.0, lead):.3f}: more labels alone will hardly help; what the models gain does not show in the"
            " prompts, or the measure is too noisy"
        )
    more = math.ceil(labels * ((gate.apgr - gate.low) / lead) ** 2 / 50) * 50
    return f"about {more:,} labels, if what was measured stays as it is; there are {labels:,}"


def status_row(settings: Settings) -> dict[str, Any]:
    """The scorers that the configuration names, and how the workers' traffic stands to them."""
    from proxy.complexity_models import ScorerInvalid, load_scorer
    from proxy.drifting import standings
    from proxy.routing_models import load_embedding

    _, version = load_embedding()
    found: dict[str, Any] = {}
    for option in ("scorer", "answers"):
        named = getattr(settings.complexity, option)
        if named is None:
            found[option] = None
            continue
        try:
            origin = load_scorer(Path(named), version).origin
        except (ScorerInvalid, OSError) as error:
            found[option] = {"file": named, "problem": str(error)}
            continue
        data = Path(named).read_bytes()
        found[option] = {
            "file": named, "bytes": len(data), "hash": hashlib.sha256(data).hexdigest()[:32], "kind": origin.kind, "made": origin.made,
            "labels": origin.labels, "calibrated": origin.calibrated, "calibrated_on": origin.calibrated_on,
            "strong_share": settings.complexity.strong_share if option == "scorer" and settings.complexity.strong_share is not None
            else origin.strong_share,
            "gate": origin.gate,
        }  # fmt: skip
    scorer = found["scorer"]
    found["drift"] = standings(Path(settings.state.dir), scorer.get("made")) if scorer is not None else {}
    return found


def status_words(row: dict[str, Any]) -> str:
    from proxy.drifting import words

    lines = []
    for option in ("scorer", "answers"):
        found = row[option]
        if found is None:
            lines.append(f"{option:8} none: the configuration names no file under complexity: {option}:")
            continue
        if "problem" in found:
            lines.append(f"{option:8} {found['problem']}")
            continue
        lines.append(f"{option:8} {found['file']}, {found['bytes']:,} bytes, {found['hash']}")
        gate = found["gate"]
        measured = f"; APGR {gate['apgr']:.3f} ({gate['low']:.3f} to {gate['high']:.3f})" if "low" in gate else ""
        lines.append(f"         learnt on {found['made']} from {found['labels']:,} labels{measured}")
        if found["calibrated"] is None:
            lines.append("         uncalibrated: nothing is decided by it")
        else:
            share = (
                "" if found["strong_share"] is None else f": {100 * found['strong_share']:g} % go to the strong model"
            )
            lines.append(f"         calibrated on {found['calibrated_on']} on {found['calibrated']:,} prompts{share}")
    for slot, standing in row["drift"].items():
        lines.append(f"{slot:8} {words(standing)}")
    if not row["drift"]:
        lines.append("drift    not known: no worker that asks for complexity has looked yet")
    return "\n".join(lines)
