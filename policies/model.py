"""The vocabulary of decisions.  Data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from msgspec import Struct


class Facts(Struct, frozen=True, gc=False):
    """What is known of one request when it is decided.  Derived from it once; never its text."""

    model: str  # as the client asked
    operation: str  # chat, embeddings, count_tokens
    needs: frozenset[str]  # capabilities that a target must have
    prompt_bytes: int
    prompt_tokens: int  # an estimate from the bytes, for context limits and routing
    max_output: int | None
    messages: int = 0
    stream: bool = False
    has_code: bool = False
    has_tools: bool = False
    action: str = "allow"  # the verdict's action
    rule: str = "default"  # the compliance rule behind it


@dataclass(slots=True)
class Candidate:
    """A target with its state at this instant.

    What is fixed of a target is written once, its state before each decision: a decision keeps names, not candidates.
    """

    target: str  # engine/model
    engine: str
    boundary: str
    capabilities: frozenset[str]
    context: int | None
    permitted: bool  # the verdict and the key both allow this boundary
    barred: tuple[str, str] | None = None  # where not: a reason and words of its own
    healthy: bool = True  # probes and circuit breaker
    in_flight: int = 0
    concurrency: int | None = None
    priced: bool = True  # a cloud target without a price is refused
    translatable: bool = True
    size: str | None = None  # "small" or "large" where the model's routing distinguishes them


class Veto(Struct, frozen=True, gc=False):
    """Why a candidate was not chosen.  `reason` is a stable word that records, metrics and people read."""

    target: str
    reason: (
        str  # boundary, unredactable, pseudonyms, unhealthy, capability, context, saturated, unpriced, untranslatable,
    )
    # decision, size, outranked
    detail: str = ""


class Decision(Struct, frozen=True, gc=False):
    """Targets to try in order, and why each other one was not chosen."""

    ranked: tuple[str, ...]
    vetoes: tuple[Veto, ...]
    rule: str  # the routing rule that ordered them: "candidates in order", "complexity: short and plain", ...
    overflow: str | None = None  # why the first choice left home, where it did: the local veto's reason


class Steering(Struct, frozen=True):
    """What a declared decision says of the order: its rule's name, and the place of each target that it names."""

    rule: str
    places: Mapping[str, int]
