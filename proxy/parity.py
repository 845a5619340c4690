"""What an experiment has come to: both arms side by side, whether parity is shown, and what speaks against believing it.  Pure.

Requests count in the arm that they were drawn into, whatever served them then (intention to treat): who looks at what was
served compares easy requests with hard ones.  What one of the arms could never have served is left out of both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from engines.ratecard import PeriodCost
from policies.parity import (
    CONFIDENCE,
    UNLIKELY,
    Interval,
    Ints,
    Margin,
    chance_of,
    chance_of_split,
    compare,
    mean,
    more_needed,
)
from proxy.projections.sums import Spread, spread
from proxy.projections.trials import Copied, Drawn, Served

ARMS = ("local", "api")
UNITS = {"key": "keys", "application": "applications", "user": "users", "session": "sessions", "request": "requests"}
MILLION = 1_000_000
FEW_UNITS = 60
"""Units below which what none of them is may be as much as 5% of all."""
_UNANSWERED = frozenset({"failed", "unreadable"})


class Judged(Struct, frozen=True):
    """On what an experiment is judged."""

    name: str
    kind: str  # split, shadow
    metric: str  # of feedback, or how answers are compared
    margin: Margin
    margin_words: str  # as the configuration has it
    by: str  # what a split is drawn by

    @property
    def even(self) -> float:
        """Of a shadow: where neither side is better."""
        return 0.5 if self.metric == "judge" else 1.0

    @property
    def least(self) -> float:
        """Of a shadow: the score that is asked for."""
        return self.even * (1 - self.margin.amount) if self.margin.relative else self.even - self.margin.amount


class Side(Struct, frozen=True):
    """One arm.  Amounts are pico-dollars a request."""

    name: str
    requests: int
    units: int
    measured: int
    value: float | None  # the measure's mean
    answered: int
    as_drawn: int  # requests that a target of the arm answered
    billed: float
    own: float  # its share of the busy cost of own engines
    latency: Spread

    @property
    def cost(self) -> float:
        return self.billed + self.own


class Phase(Struct, frozen=True):
    number: int
    share: float  # of units that should be local
    units: int
    local: int


class Parity(Struct, frozen=True):
    """The whole.  `state`: shown, doubtful, open, below, worse, few, nothing."""

    judged: Judged
    period: str
    local: Side
    api: Side
    state: str
    difference: Interval | None
    ratio: Interval | None
    room: Interval | None
    needed: int | None  # more units until it is shown
    needed_requests: int | None
    phases: tuple[Phase, ...]
    excluded: dict[str, int]
    left_out: dict[str, int]  # copies that were not made or not compared, by reason
    split_chance: float | None  # how likely the division is, if units were drawn as declared
    missing_chance: float | None
    notes: tuple[str, ...]
    drawn: int


class Costs:
    """What a microsecond of each own engine cost in the period: its busy cost over all engine time."""

    def __init__(self, periods: Mapping[str, PeriodCost], times: Mapping[str, int]) -> None:
        self._each = {name: cost.busy / times[name] for name, cost in periods.items() if times.get(name)}
        self.unknown: set[str] = set()

    def of(self, attempt: Served) -> float:
        if attempt.boundary != "local":
            return 0.0
        engine = attempt.target.partition("/")[0]
        if engine not in self._each:
            self.unknown.add(engine)
        return self._each.get(engine, 0.0) * attempt.engine_us


def of_split(
    judged: Judged,
    period: str,
    drawn: Sequence[Drawn],
    served: Sequence[Served],
    costs: Costs,
    arms: Mapping[str, frozenset[str]],
) -> Parity:
    """A split experiment.  `arms`: the targets of each."""
    compared = [one for one in drawn if not one.excluded]
    attempts = _by_request(served)
    units = {unit: number for number, unit in enumerate(dict.fromkeys(one.unit for one in compared))}
    measured = [one for one in compared if one.value is not None]
    found = compare(
        np.array([units[one.unit] for one in measured], dtype=np.int64),
        _strata(measured),
        np.array([ARMS.index(one.arm) for one in measured], dtype=np.int64),
        np.array([one.value for one in measured], dtype=np.float64),
        judged.margin,
    )
    sides = []
    for index, arm in enumerate(ARMS):
        own = [one for one in compared if one.arm == arm]
        value = None if found is None else (found.local, found.api)[index]
        sides.append(_side(arm, own, attempts, costs, arms[arm], value))
    local, api = sides
    room = None if found is None else found.room
    once = _once(drawn)
    phases = _phases(once)
    split = _split_chance(once)
    missing = _missing_chance(compared, units)
    needed = None if room is None else more_needed(room, local.units + api.units)
    share = len(measured) / max(1, local.units + api.units)
    return Parity(
        judged=judged, period=period, local=local, api=api, room=room,
        state=_believed(_state(found is not None, room), min(split, missing)),
        difference=found.difference if found else None, ratio=found.ratio if found and found.api > 0 else None,
        needed=needed, needed_requests=None if needed is None else round(needed * share), phases=phases,
        excluded=dict(Counter(one.excluded for one in drawn if one.excluded)), left_out={},
        split_chance=split, missing_chance=missing, drawn=len(drawn),
        notes=_split_notes(judged, found is not None and found.levelled, local, api, split, missing, costs, drawn),
    )  # fmt: skip


def of_shadow(
    judged: Judged, period: str, copied: Sequence[Copied], served: Sequence[Served], costs: Costs, local_target: bool
) -> Parity:
    """A shadow experiment: copies against what clients got.  `local_target`: the copies are the local side."""
    attempts = _by_request(served)
    pairs = [one for one in copied if one.copy]
    scores = np.array([one.score / 1000 for one in pairs if one.score >= 0], dtype=np.float64)
    agreed = mean(scores) if len(scores) else None
    least = judged.least
    room = None if agreed is None else Interval(
        agreed.estimate - least, agreed.low - least, agreed.high - least, agreed.error
    )  # fmt: skip
    clients, copies = [one.request for one in pairs], [one.copy for one in pairs]
    value = float(scores.mean()) if len(scores) else None
    local = _paired("local", copies if local_target else clients, attempts, costs, len(scores), value)
    api = _paired("api", clients if local_target else copies, attempts, costs, len(scores), None)
    needed = None if room is None else more_needed(room, len(scores))
    state, notes = _state(len(scores) > 0, room), _cost_notes(costs)
    unanswered = sum(one.why in _UNANSWERED for one in pairs) if local_target else 0
    if state == "shown" and unanswered and not _surely(scores, unanswered, least):
        state = "doubtful"
        notes.append(
            f"{_share(unanswered, len(pairs))} of the copies had no answer that could be read. If each of those counted as no"
            " agreement, parity would not be shown."
        )
    return Parity(
        judged=judged, period=period, local=local, api=api, state=state, difference=None,
        ratio=agreed, room=room, needed=needed, needed_requests=needed, phases=(), excluded={},
        left_out=dict(Counter(one.why for one in copied if one.why)), split_chance=None, missing_chance=None,
        drawn=len(copied), notes=tuple(notes),
    )  # fmt: skip


def _surely(scores: NDArray[np.float64], unanswered: int, least: float) -> bool:
    """Is what is asked for reached even if what had no answer is nothing worth?"""
    agreed = mean(np.concatenate([scores, np.zeros(unanswered)]))
    return agreed is not None and agreed.low > least


def _state(anything: bool, room: Interval | None) -> str:
    if not anything:
        return "nothing"
    if room is None:
        return "few"
    if room.low > 0:
        return "shown"
    if room.high < 0:
        return "worse"
    return "open" if room.estimate > 0 else "below"


def _believed(state: str, chance: float) -> str:
    """What an interval shows is not shown where the arms are not what chance made them."""
    return "doubtful" if state == "shown" and chance < UNLIKELY else state


def _missing_chance(compared: Sequence[Drawn], units: Mapping[str, int]) -> float:
    """How likely the arms differ at least so much in missing feedback by chance alone; units stay together."""
    found = compare(
        np.array([units[one.unit] for one in compared], dtype=np.int64),
        _strata(compared),
        np.array([ARMS.index(one.arm) for one in compared], dtype=np.int64),
        np.array([one.value is None for one in compared], dtype=np.float64),
        Margin(1.0, relative=False),
        replicates=8,
        whole_units=False,
    )
    gap = found.difference if found is not None else None
    return 1.0 if gap is None else chance_of(gap.estimate / gap.error)


def _by_request(served: Sequence[Served]) -> dict[str, list[Served]]:
    found: dict[str, list[Served]] = {}
    for attempt in served:
        found.setdefault(attempt.request, []).append(attempt)
    return found


def _side(
    arm: str, drawn: Sequence[Drawn], attempts: Mapping[str, list[Served]], costs: Costs, targets: frozenset[str],
    value: float | None,
) -> Side:  # fmt: skip
    requests = [one.request for one in drawn]
    measured = sum(one.value is not None for one in drawn)
    return _filled(arm, requests, attempts, costs, len({one.unit for one in drawn}), measured, value, targets)


def _paired(
    arm: str,
    requests: Sequence[str],
    attempts: Mapping[str, list[Served]],
    costs: Costs,
    measured: int,
    value: float | None,
) -> Side:
    return _filled(arm, requests, attempts, costs, len(requests), measured, value, None)


def _filled(
    arm: str, requests: Sequence[str], attempts: Mapping[str, list[Served]], costs: Costs, units: int, measured: int,
    value: float | None, targets: frozenset[str] | None,
) -> Side:  # fmt: skip
    tried = [attempts.get(request, []) for request in requests]
    ends = [one[-1] for one in tried if one and one[-1].ending == "completed"]
    count = max(1, len(requests))
    return Side(
        name=arm, requests=len(requests), units=units, measured=measured, value=value, answered=len(ends),
        as_drawn=sum(targets is None or end.target in targets for end in ends),
        billed=sum(attempt.cost for one in tried for attempt in one) / count,
        own=sum(costs.of(attempt) for one in tried for attempt in one) / count,
        latency=spread([end.total_us for end in ends]),
    )  # fmt: skip


def _declared(one: Drawn) -> tuple[int, int]:
    """(phase, share of local in millionths) that a request was drawn by: a phase may be given another share as it runs."""
    return one.phase, one.propensity if one.arm == "local" else MILLION - one.propensity


def _strata(drawn: Sequence[Drawn]) -> Ints:
    """Numbers of what requests were drawn by: arms are compared among those that had the same chances."""
    numbers = {declared: number for number, declared in enumerate(sorted({_declared(one) for one in drawn}))}
    return np.array([numbers[_declared(one)] for one in drawn], dtype=np.int64)


def _once(drawn: Sequence[Drawn]) -> dict[tuple[tuple[int, int], str], Drawn]:
    """Every unit counts once in a phase: it was drawn once."""
    units: dict[tuple[tuple[int, int], str], Drawn] = {}
    for one in drawn:
        units.setdefault((_declared(one), one.unit), one)
    return units


def _phases(once: Mapping[tuple[tuple[int, int], str], Drawn]) -> tuple[Phase, ...]:
    whole = Counter(declared for declared, _ in once)
    local = Counter(declared for (declared, _), one in once.items() if one.arm == "local")
    return tuple(
        [Phase(declared[0], declared[1] / MILLION, whole[declared], local[declared]) for declared in sorted(whole)]
    )


def _split_chance(once: Mapping[tuple[tuple[int, int], str], Drawn]) -> float:
    shares: dict[str, list[float]] = {}
    for (_, share), unit in once:
        shares.setdefault(unit, []).append(share / MILLION)
    local = sum(one.arm == "local" for one in once.values())
    return chance_of_split(local, Counter(tuple(sorted(each)) for each in shares.values()))


def _split_notes(
    judged: Judged,
    levelled: bool,
    local: Side,
    api: Side,
    split: float,
    missing: float,
    costs: Costs,
    drawn: Sequence[Drawn],
) -> tuple[str, ...]:
    notes = []
    if split < UNLIKELY:
        notes.append(
            "The division is not the one that was declared, which chance would do once in a thousand times at most:"
            " something other than the draw decides who is in"
            " which arm, or records are missing. Find out why before believing the comparison."
        )
    if missing < UNLIKELY:
        notes.append(
            f"Feedback is missing for {_share(local.requests - local.measured, local.requests)} of local requests and"
            f" {_share(api.requests - api.measured, api.requests)} of API requests, which is more than chance: those without it may"
            " differ from those with it."
        )
    for side in (local, api):
        if side.answered and side.as_drawn < 0.95 * side.answered:
            notes.append(
                f"{_share(side.answered - side.as_drawn, side.answered)} of the answers of the {_called(side.name)} arm came from elsewhere,"
                " because its own targets were busy or failed: the arms are more alike than local and API are."
            )
    kinds = Counter(one.unit_kind for one in drawn)
    if judged.by != "request" and kinds["request"]:
        notes.append(
            f"{_share(kinds['request'], len(drawn))} of the requests named no {judged.by} and were drawn each by itself."
        )
    fewest = min(local.units, api.units)
    if judged.by != "request" and 0 < fewest < FEW_UNITS:
        notes.append(
            f"An arm has only {fewest} {UNITS[judged.by]}, and no interval knows of any that are unlike all of these:"
            f" they may still be {1 - (1 - CONFIDENCE) ** (1 / fewest):.0%} of all."
        )
    if levelled:
        notes.append(
            "An arm has nothing but equal values so far; the interval counts one good and one bad unit more in each arm (Agresti and Caffo)."
        )
    return (*notes, *_cost_notes(costs))


def _cost_notes(costs: Costs) -> list[str]:
    if not costs.unknown:
        return []
    names = ", ".join(sorted(costs.unknown))
    return [
        f"No rate card says what {names} costs, so that local requests are counted as free: give engines.{names.partition(',')[0]}.cost."
    ]


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "0.0%"


def _called(arm: str) -> str:
    return "API" if arm == "api" else arm
