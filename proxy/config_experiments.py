"""The configuration's `experiments:`: traffic that is copied to another target, or split between local and API, to compare them."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from proxy import quantities
from proxy.config_decisions import Names, When
from proxy.config_parts import EPOCH, Day, Money, Part, Share, shaped
from proxy.quantities import Wrong

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,39}$"


class Phase(Part):
    """One step of a split: how much of it is local, and from which day."""

    share: Share = Field(description="of the units that are local")
    since: Day | None = Field(None, alias="from", description="its first day, in UTC")


def _phase(value: Any) -> Any:
    if isinstance(value, (dict, Phase)):
        return value
    return {"share": value}


def margin_of(value: Any) -> Any:
    """`5%` of the API's figure, or a difference in the measure's own units; kept as a share below zero or a number."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not 0 < value < 1e9:
            raise Wrong("a margin is more than nothing", "such as 5%, or 0.05 in the measure's own units")
        return str(float(value))
    if isinstance(value, str) and not value.endswith("%"):
        try:
            number = float(value)
        except ValueError:
            raise Wrong("a margin is a share, or a number", "such as 5%, or 0.05 in the measure's own units") from None
        return margin_of(number)
    if not 0 < quantities.share(value) < 1:
        raise Wrong("a margin is more than nothing and less than all", "such as 5%")
    return value.replace(" ", "")


class Shadow(Part):
    """A random share of requests is also sent to another target, off the client's path."""

    to: str = Field(description="the target that gets the copies, such as gpu/llama-70b")
    source: str | None = Field(
        None, alias="from", description="an engine or a target: only of requests that it answered; default: any other"
    )
    share: Share = Field(description="of the requests; up to 5% where the target is not local")
    compare: Literal["exact", "json", "number", "judge"] | None = Field(
        None, description="how two answers are compared; nothing of them is kept but the score"
    )
    judge: str | None = Field(
        None, description="for compare: judge, the local target that is asked, in both orders, which answer is better"
    )
    cap: Money | None = Field(None, description="a calendar month; needed where the target is not local")
    running: int = Field(4, ge=1, le=64, description="copies at once in each worker; more are left out")


class Split(Part):
    """Requests go to local targets or to an API by a stable hash of who asks, in phases."""

    by: Literal["request", "session", "user", "key", "application"] = Field(
        "request", description="what stays together; a request without a session or a user is drawn by itself"
    )
    local: Names = Field(description="targets of the local arm, best first")
    api: Names = Field(description="targets of the API arm, best first")
    phases: Annotated[
        tuple[Annotated[Phase, BeforeValidator(_phase)], ...],
        shaped("must be a list of shares", "such as [0%, 50%, 80%, 95%]", list, tuple),
    ] = Field(description="how much is local in each: shares, or {from: 2026-03-01, share: 50%}", min_length=1)
    phase: int | None = Field(None, ge=1, description="which phase holds, where they have no days; default: the first")


class ExperimentPart(Part):
    """One experiment: `shadow` or `split`, and on what it is judged."""

    name: str = Field(pattern=NAME)
    models: Names | None = Field(None, description="the names that applications ask for; a shadow's default: all")
    when: When = Field({}, description="conditions that must all hold, as of decisions; none: every request")
    shadow: Shadow | None = None
    split: Split | None = None
    metric: str | None = Field(
        None, pattern=r"^[a-z0-9_.-]{1,64}$", description="the measure in applications' feedback that it is judged on"
    )
    better: Literal["higher", "lower"] = Field("higher", description="which values of the measure are good")
    margin: Annotated[str, BeforeValidator(margin_of, json_schema_input_type=str | float)] = Field(
        "5%", description="how much worse local may be: 5% of the API's figure, or 0.05 in the measure's own units"
    )


def share_at(split: Split, day: int) -> tuple[int, float] | None:
    """(phase from 1, share of local) on a day since the epoch; None: it has not begun."""
    if any(phase.since is not None for phase in split.phases):
        begun = [n for n, phase in enumerate(split.phases, 1) if phase.since is None or phase.since <= day]
        if not begun:
            return None
        number = begun[-1]
    else:
        number = split.phase or 1
    return number, split.phases[number - 1].share


def day_words(day: int) -> str:
    """An ISO day."""
    return datetime.date.fromordinal(day + EPOCH).isoformat()
