"""A parity report as a page: one file with its chart, nothing loaded from elsewhere.  Pure."""

from __future__ import annotations

from functools import cache

import jinja2
from msgspec import Struct

from policies.parity import Interval
from proxy.charts import Mark
from proxy.parity import UNITS, Parity
from proxy.parity_tables import EXCLUDED, LEFT_OUT, STATES, percent, rows, signed, verdict

COLOURS = {
    "shown": "green",
    "doubtful": "amber",
    "open": "amber",
    "few": "grey",
    "nothing": "grey",
    "below": "red",
    "worse": "red",
}
WIDTH, HEIGHT = 1_000, 132
_LEFT, _RIGHT = 40, 40


class Whisker(Struct, frozen=True):
    """An interval drawn on a line: places are along it."""

    low: float
    high: float
    estimate: float
    margin: float  # where what is asked for begins
    even: float  # where both arms are alike
    good_left: bool  # what is better lies to the left
    ticks: tuple[Mark, ...]
    words: tuple[str, str, str, str]  # low, estimate, high, margin
    says: str


def whisker(found: Parity) -> Whisker | None:
    """The interval that parity is judged by, with its margin."""
    margin, shadow = found.judged.margin, found.judged.kind == "shadow"
    better = 1.0 if margin.higher_is_better or shadow else -1.0
    if found.ratio is not None and (margin.relative or shadow):
        asked = found.judged.least if shadow else 1 - better * margin.amount
        return _drawn(found.ratio, asked, found.judged.even if shadow else 1.0, better < 0, percent, found)
    if found.difference is not None:
        return _drawn(found.difference, -better * margin.amount, 0.0, better < 0, signed, found)
    return None


def _drawn(interval: Interval, margin: float, even: float, good_left: bool, write: object, found: Parity) -> Whisker:
    assert callable(write)
    low, high = min(interval.low, margin, even), max(interval.high, margin, even)
    room = (high - low) * 0.16 or 0.1
    low, high = low - room, high + room

    def at(value: float) -> float:
        return round(_LEFT + (WIDTH - _LEFT - _RIGHT) * (value - low) / (high - low), 1)

    step = _step((high - low) / 7)
    first = int(low // step) + 1
    ticks = tuple([Mark(at(number * step), write(number * step)) for number in range(first, int(high // step) + 1)])
    unit = "of the API's figure" if write is percent and found.judged.kind == "split" else ""
    return Whisker(
        at(interval.low), at(interval.high), at(interval.estimate), at(margin), at(even), good_left, ticks,
        (write(interval.low), write(interval.estimate), write(interval.high), write(margin)),
        f"{write(interval.estimate)}, between {write(interval.low)} and {write(interval.high)} {unit}".strip(),
    )  # fmt: skip


def _step(least: float) -> float:
    """A round distance of ticks, not below this."""
    power = 1e-12
    while power * 10 < least:
        power *= 10
    return next((factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= least), 10 * power)


def parity_page(found: Parity, made: str) -> str:
    """The report as a page."""
    judged = found.judged
    return _template().render(
        found=found, judged=judged, state=STATES[found.state], colour=COLOURS[found.state], verdict=verdict(found),
        rows=rows(found), chart=whisker(found), width=WIDTH, height=HEIGHT, units=UNITS[judged.by], made=made,
        excluded=[(count, EXCLUDED.get(why, why)) for why, count in sorted(found.excluded.items())],
        left_out=[(count, LEFT_OUT.get(why, why)) for why, count in sorted(found.left_out.items())],
        asked=_asked(found),
    )  # fmt: skip


def _asked(found: Parity) -> str:
    judged = found.judged
    if judged.kind == "shadow":
        if judged.metric == "judge":
            return f"a judge's preference, within {judged.margin_words} of even"
        return f"agreement by {judged.metric}, at most {judged.margin_words} less than all"
    direction = "higher" if judged.margin.higher_is_better else "lower"
    return f"{judged.metric} ({direction} is better), within {judged.margin_words}"


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("proxy", "templates"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(percent=percent)
    return environment.get_template("parity.html.j2")
