"""The configuration's `decisions:` and `routing:`: which targets serve which requests, by what is known of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from policies.conditions import COUNTS, FLAGS, NAMES, PERCENTILE, SEVERAL, SHARES
from proxy.config_parts import Bytes, Duration, Part, Share, shaped
from proxy.quantities import Wrong


def _table(value: Any) -> Any:
    if not isinstance(value, dict):
        raise Wrong("must be a table of conditions", "such as {route: coding, tokens: {over: 4000}}")
    return value


def _one_or_more(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


_SOME = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
_BOUND = {"type": ["number", "string"]}
_COMPARED = {
    "anyOf": [
        _BOUND,
        {"type": "object", "properties": dict.fromkeys(("over", "under", "at_least", "at_most"), _BOUND), "additionalProperties": False},
    ]
}  # fmt: skip
_FLAG = {"type": "boolean"}
_INNER = {"type": "object"}
_WHEN = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        **dict.fromkeys((*NAMES, *SEVERAL), _SOME),
        **dict.fromkeys((*COUNTS, *SHARES, PERCENTILE), _COMPARED),
        **dict.fromkeys(FLAGS, _FLAG),
        "all": {"type": "array", "items": _INNER},
        "any": {"type": "array", "items": _INNER},
        "not": _INNER,
        "expr": {"type": "string", "description": "a condition in CEL"},
    },
}
When = Annotated[dict[str, Any], BeforeValidator(_table), WithJsonSchema(_WHEN)]
Names = Annotated[tuple[str, ...], BeforeValidator(_one_or_more, json_schema_input_type=str | tuple[str, ...])]


class EscalatePart(Part):
    """The decision's own targets answer first; only answers that cannot be trusted are asked for again, further up.

    An answer is held until it is read, so that a stream begins when it is whole.
    """

    to: Names = Field(description="targets, or names of models, best first")
    share: Share = Field(0.2, description="of the answers that are read: at most so many go up")
    window: int = Field(
        1000,
        ge=1,
        le=100_000,
        description="answers: of any so many in a row, and of all since the start, the share holds",
    )
    threshold: float | None = Field(
        None,
        ge=0,
        le=100,
        description="percentile of doubt from which an answer goes up, where complexity.answers scores it; default: that of the share",
    )
    held: Bytes = Field(
        256_000, ge=1_000, le=16_000_000, description="of an answer; one that is larger goes out unread"
    )
    within: Duration = Field(
        30.0,
        gt=0,
        description="of a request's coming: after it the answer at hand goes out, and nobody further up is waited for",
    )


class DecisionPart(Part):
    """One decision: the first that matches, by priority and then by place, orders the candidates."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.: -]{0,63}$")
    priority: int = Field(0, ge=-1000, le=1000, description="the highest is asked first; equal ones as they stand")
    models: Names | None = Field(
        None, description="the names that applications ask for; default: every model with {route: true}"
    )
    when: Annotated[dict[str, Any], BeforeValidator(_table), WithJsonSchema(_WHEN)] = Field(
        {}, description="conditions that must all hold; none: every request"
    )
    use: Names = Field((), description="targets, or names of models, best first")
    otherwise: Literal["others", "refuse", "wait"] = Field(
        "others",
        description="where none of `use` can serve: the model's other candidates; nobody; or `use`, after a wait for a place",
    )
    escalate: EscalatePart | None = Field(
        None, description="answers are read before they go out, and doubtful ones go up"
    )


class SecondStagePart(Part):
    """How often the second stage of routes is asked, and how long it is waited for."""

    share: Share = Field(
        0.2,
        gt=0,
        le=1,
        description="of the requests whose route is read: at most so many ask it, of every thousand in a worker",
    )
    deadline: Duration = Field(0.025, gt=0, description="how long a request waits for it, its turn included")


class RoutingPart(Part):
    """What holds where no decision does."""

    default: Names = Field(
        (), description="targets, or names of models, where no decision matches or one could not be asked"
    )
    deadline: Duration = Field(0.02, description="how long a request waits to be told what it is about")
    second_stage: Annotated[
        SecondStagePart | bool,
        shaped("must be true, false, or a mapping", "such as {share: 20%, deadline: 25ms}", dict, bool),
    ] = Field(
        False,
        description="ask MiniLM where the first stage of routes is unsure; needs the extra minilm: slower, and more often right",
    )

    @property
    def second(self) -> SecondStagePart | None:
        """The second stage, where it is wanted."""
        if isinstance(self.second_stage, SecondStagePart):
            return self.second_stage
        return SecondStagePart() if self.second_stage else None
