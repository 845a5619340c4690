"""A parity report in words: for a terminal, for somebody from finance, and for scripts.  Pure."""

from __future__ import annotations

import textwrap
from typing import Any

import msgspec

from policies.parity import FEWEST, UNLIKELY, Interval
from proxy.meaning import dollars, table
from proxy.parity import ARMS, UNITS, Parity, Side

STATES = {
    "shown": "parity is shown",
    "doubtful": "in doubt",
    "open": "not shown yet",
    "below": "not shown",
    "worse": "local is worse than allowed",
    "few": "not shown yet",
    "nothing": "nothing to compare yet",
}
WIDTH = 100


def verdict(found: Parity) -> str:
    """One or two sentences that can be read out."""
    judged = found.judged
    words = STATES[found.state][0].upper() + STATES[found.state][1:]
    if found.state == "nothing":
        return f"{words}: {_why_nothing(found)}"
    if found.state == "few":
        units = UNITS[judged.by]
        side = min((found.local, found.api), key=lambda one: one.units)
        if judged.kind == "split" and side.units < FEWEST:
            return (
                f"{words}: the {called(side.name)} arm has {side.units} {units if side.units != 1 else units[:-1]}, and below {FEWEST}"
                " no interval is drawn, since it would promise too much."
            )
        return f"{words}: too little was measured, or it does not vary, so that no interval can be drawn."
    text = f"{words}: {_reached(found)}; {_asked(found)}."
    if found.state == "doubtful":
        why = "the arms are not as chance would have made them"
        if judged.kind == "shadow":
            why = "too many copies were not answered"
        text += f" The interval alone would show parity, but {why}: see the notes."
    if found.state == "open" and found.needed is not None:
        text += f" About {_more(found)} would show it, if it stays as it is."
    elif found.state == "below":
        text += " What was measured lies below what is asked for: more of the same will not show it."
    return text


def _why_nothing(found: Parity) -> str:
    judged = found.judged
    if not found.drawn:
        return "the experiment took no request in this period."
    if judged.kind == "shadow":
        return "no copy could be compared; see what was left out below."
    for side in (found.local, found.api):
        if not side.requests:
            return f"no request was drawn into the {called(side.name)} arm; with all or none of the units local there is no comparison."
    measured = found.local.measured + found.api.measured
    if not measured:
        return f"applications gave no feedback on {judged.metric!r} for its requests (POST /spillway/v1/feedback)."
    return "no phase has measured requests in both arms."


def _reached(found: Parity) -> str:
    if found.judged.kind == "shadow":
        assert found.ratio is not None
        if found.judged.metric == "judge":
            return f"by its judge, local wins {_range(found.ratio, percent)} of the comparisons, ties counted half"
        return f"local agrees with the API on {_range(found.ratio, percent)}"
    metric = found.judged.metric
    if found.judged.margin.relative and found.ratio is not None:
        return f"on {metric}, local reaches {_range(found.ratio, percent)} of the API's figure"
    assert found.difference is not None
    return f"on {metric}, local differs from the API by {_range(found.difference, signed)}"


def _range(interval: Interval, write: Any) -> str:
    return f"{write(interval.estimate)} (with 95% confidence between {write(interval.low)} and {write(interval.high)})"


def _asked(found: Parity) -> str:
    margin = found.judged.margin
    if found.judged.kind == "shadow":
        return f"at least {percent(found.judged.least)} was asked for"
    if margin.relative:
        if margin.higher_is_better:
            return f"at least {percent(1 - margin.amount)} was asked for"
        return f"at most {percent(1 + margin.amount)} is allowed, since lower is better"
    return f"up to {margin.amount:g} {'below' if margin.higher_is_better else 'above'} is allowed"


def _more(found: Parity) -> str:
    assert found.needed is not None
    units = UNITS[found.judged.by]
    if found.judged.kind == "shadow":
        return f"{rounded(found.needed)} more compared copies"
    if units == "requests":
        return f"{rounded(found.needed_requests or 0)} more measured requests"
    return f"{rounded(found.needed)} more {units} ({rounded(found.needed_requests or 0)} measured requests)"


def rounded(count: int) -> str:
    """Two digits of it, upwards: an estimate must not look exact."""
    size = 10 ** max(0, len(str(count)) - 2)
    return f"{-(-count // size) * size:,}"


def called(arm: str) -> str:
    return "API" if arm == "api" else arm


def percent(value: float) -> str:
    return f"{value:.1%}"


def signed(value: float) -> str:
    return f"{value:+.3g}"


def rows(found: Parity) -> list[tuple[str, str, str]]:
    """(what, local, API) of the table."""
    shadow = found.judged.kind == "shadow"
    local, api = found.local, found.api
    lines = [("requests compared" if not shadow else "pairs", f"{local.requests:,}", f"{api.requests:,}")]
    if not shadow and found.judged.by != "request":
        lines.append((UNITS[found.judged.by], f"{local.units:,}", f"{api.units:,}"))
    if shadow:
        what = "won, by the judge" if found.judged.metric == "judge" else f"agreement ({found.judged.metric})"
        other = None if local.value is None or found.judged.metric != "judge" else 1 - local.value
        lines.append((what, _figure(local.value, shadow=True), "reference" if other is None else percent(other)))
        lines.append(("compared", f"{local.measured:,}", ""))
    else:
        lines.append((found.judged.metric, _figure(local.value), _figure(api.value)))
        lines.append(("measured", f"{local.measured:,}", f"{api.measured:,}"))
        lines.append(("feedback missing", _missing(local), _missing(api)))
        lines.append(("answered", _part(local.answered, local.requests), _part(api.answered, api.requests)))
        lines.append(("by its own targets", _part(local.as_drawn, local.answered), _part(api.as_drawn, api.answered)))
    lines.append(("cost a request", _cost(local.cost), _cost(api.cost)))
    for rank in ("p50", "p95"):
        lines.append((f"latency {rank}", _time(getattr(local.latency, rank)), _time(getattr(api.latency, rank))))
    return lines


def _figure(value: float | None, *, shadow: bool = False) -> str:
    if value is None:
        return "-"
    return percent(value) if shadow else f"{value:.4g}"


def _missing(side: Side) -> str:
    return _part(side.requests - side.measured, side.requests)


def _part(part: int, whole: int) -> str:
    return percent(part / whole) if whole else "-"


def _cost(amount: float) -> str:
    return dollars(round(amount))


def _time(us: int) -> str:
    return "-" if not us else f"{us / 1e6:,.2f} s" if us >= 1_000_000 else f"{us / 1e3:,.0f} ms"


def interval_lines(found: Parity) -> list[tuple[str, str]]:
    """(name, interval in words)."""
    lines = []
    if found.ratio is not None:
        name = (
            "local of API"
            if found.judged.kind != "shadow"
            else "won"
            if found.judged.metric == "judge"
            else "agreement"
        )
        lines.append(
            (
                name,
                f"{percent(found.ratio.estimate)}, 95% interval {percent(found.ratio.low)} to {percent(found.ratio.high)}",
            )
        )
    if found.difference is not None:
        one = found.difference
        lines.append(
            ("local less API", f"{signed(one.estimate)}, 95% interval {signed(one.low)} to {signed(one.high)}")
        )
    return lines


def text(found: Parity) -> str:
    """For a terminal."""
    judged = found.judged
    out = [f"Experiment {judged.name}, {found.period}", ""]
    out += textwrap.wrap(verdict(found), WIDTH)
    body = rows(found)
    out += ["", table(("", "local", "API"), body)]
    facts = interval_lines(found)
    facts += [(f"phase {p.number}", _phase(p.share, p.local, p.units, judged.by)) for p in found.phases]
    if found.split_chance is not None:
        facts.append(("division", "as it was declared" if found.split_chance >= UNLIKELY else "not as it was declared"))
    facts += [
        ("left out", f"{count:,} requests: {EXCLUDED.get(why, why)}") for why, count in sorted(found.excluded.items())
    ]
    facts += [
        ("left out", f"{count:,} copies: {LEFT_OUT.get(why, why)}") for why, count in sorted(found.left_out.items())
    ]
    width = max((len(name) for name, _ in facts), default=0)
    out += ["", *(f"{name.ljust(width)}  {words}" for name, words in facts)]
    for note in found.notes:
        out += ["", *textwrap.wrap(f"note: {note}", WIDTH)]
    return "\n".join(out)


def _phase(share: float, local: int, units: int, by: str) -> str:
    return f"{local:,} of {units:,} {UNITS[by]} local, {percent(local / units)}; {percent(share)} was declared"


EXCLUDED = {
    "boundary": "the rules or the key keep them local",
    "unredactable": "they could not be redacted",
    "capability": "one of the arms cannot do what they ask for",
    "context": "too long for one of the arms",
    "unpriced": "the API has no price for them",
    "untranslatable": "no form that one of the arms understands",
}
LEFT_OUT = {
    "boundary": "not sent, the rules or the key keep them local",
    "decision": "not sent, a decision lets nobody else be asked",
    "redacted": "not sent, they would have had to be redacted",
    "busy": "not sent, too many were under way, or their engine was busy",
    "saturated": "not sent, their engine was busy",
    "unhealthy": "not sent, their engine was not healthy",
    "budget": "not sent, the cap or a budget is spent",
    "unpriced": "not sent, their target has no price",
    "capability": "not sent, their target cannot do what they ask for",
    "context": "not sent, too long for their target",
    "audit_unavailable": "not sent, the log could not be written",
    "failed": "not answered",
    "too_long": "not compared, an answer was too long",
    "unreadable": "not compared, an answer could not be read",
    "judge_busy": "not compared, the judge was busy",
    "judge_failed": "not compared, the judge did not answer",
    "changed": "not counted, they went to another target or were compared in another way than is declared now",
    "incomparable": "not compared, the reference had nothing of this kind in it",
}


def as_json(found: Parity) -> dict[str, Any]:
    """For scripts: amounts are pico-dollars a request, times microseconds, shares fractions of one."""
    judged = found.judged

    def side(one: Side) -> dict[str, Any]:
        row: dict[str, Any] = msgspec.to_builtins(one)
        return {**row, "cost": one.cost, "missing": one.requests - one.measured}

    whole: dict[str, Any] = msgspec.to_builtins(found)
    return {
        "experiment": judged.name, "kind": judged.kind, "metric": judged.metric, "by": judged.by, "period": found.period,
        "margin": judged.margin_words, "better": "higher" if judged.margin.higher_is_better else "lower",
        "state": found.state, "shown": found.state == "shown", "verdict": verdict(found),
        **{arm: side(one) for arm, one in zip(ARMS, (found.local, found.api), strict=True)},
        **{name: whole[name] for name in ("ratio", "difference", "room", "needed", "needed_requests", "phases", "excluded",
                                          "left_out", "split_chance", "missing_chance", "notes", "drawn")},
    }  # fmt: skip
