"""The configuration's `decisions:` and `routing:`: which targets serve which requests, by what is known of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from policies.conditions import COUNTS, FLAGS, NAMES, PERCENTILE, SEVERAL, SHARES
from proxy.config_parts import Duration, Part
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
Names = Annotated[tuple[str, ...], BeforeValidator(_one_or_more, json_schema_input_type=str | tuple[str, ...])]


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


class RoutingPart(Part):
    """What holds where no decision does."""

    default: Names = Field(
        (), description="targets, or names of models, where no decision matches or one could not be asked"
    )
    deadline: Duration = Field(0.02, description="how long a request waits to be told what it is about")
