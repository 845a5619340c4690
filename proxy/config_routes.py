"""The configuration's `routes:`: what a prompt may be about, by description and example."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from proxy.config_parts import Part
from proxy.quantities import Wrong, share


def _threshold(value: Any) -> Any:
    """`auto`, or a probability: or 60%."""
    if value == "auto":
        return value
    if isinstance(value, str):
        value = share(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
        raise Wrong("must be auto, or a probability", "such as auto, or 60%")
    return float(value)


class RoutePart(Part):
    """One route.  At least five utterances are needed for more than a guess; ten are better."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/ -]{0,63}$")
    description: str = Field(min_length=1, description="one line, in the words that users use")
    utterances: tuple[str, ...] = Field((), description="what users say that belongs here")
    negatives: tuple[str, ...] = Field((), description="what sounds alike and belongs to no route")
    threshold: Annotated[float | Literal["auto"], BeforeValidator(_threshold, json_schema_input_type=float | str)] = (
        Field("auto", description="the probability from which the route counts; auto: chosen from the utterances")
    )
