"""Token prices: the list that is shipped, and the rows of a configuration, which come before it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from engines.rates import Price, read_list

if TYPE_CHECKING:
    from proxy.config_parts import PricePart

_SHIPPED = Path(__file__).parent.parent / "engines" / "prices.json"


def shipped() -> list[Price]:
    """The price list that comes with Spillway, by engine kind/model."""
    return read_list(_SHIPPED.read_bytes())


def price_of(name: str, part: PricePart) -> Price:
    """A price of the configuration."""
    return Price(
        name,
        part.input,
        part.output,
        part.cached,
        part.cache_write,
        part.cache_write_1h,
        since=part.since,
        source="configuration",
    )
