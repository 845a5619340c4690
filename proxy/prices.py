"""Token prices: the list that is shipped, and the rows of a configuration, which come before it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from engines.kinds import kind
from engines.rates import Price, PriceList, Rate, read_list

if TYPE_CHECKING:
    from proxy.config import Settings
    from proxy.config_parts import PricePart, RatePart

STALE_DAYS = 180
"""A row that was read longer ago is worth another look: vendors change prices several times a year."""
OWN = "configuration"
_SHIPPED = Path(__file__).parent.parent / "engines" / "prices.json"


@cache
def shipped() -> tuple[Price, ...]:
    """The price list that comes with Spillway, by engine kind/model."""
    return tuple(read_list(_SHIPPED.read_bytes()))


def overrides(settings: Settings) -> list[Price]:
    """The configuration's own prices, by target: engine/model."""
    rows = []
    for name, part in settings.prices.items():
        rows += [price_of(name, one) for one in (part if isinstance(part, tuple) else (part,))]
    return rows


def price_of(name: str, part: PricePart) -> Price:
    """A price of the configuration."""
    tiers = {"batch": part.batch, "flex": part.flex, "priority": part.priority}
    return Price(
        name,
        part.input,
        part.output,
        part.cached,
        part.cache_write,
        part.cache_write_1h,
        part.max_output,
        since=part.since,
        source=OWN,
        audio=part.audio,
        audio_output=part.audio_output,
        tiers={tier: _rate(rates) for tier, rates in tiers.items() if rates is not None},
        long=_rate(part.long) if part.long is not None else None,
        long_above=part.long.above if part.long is not None else 0,
    )


def _rate(part: RatePart) -> Rate:
    return Rate(
        part.input, part.output, part.cached, part.cache_write, part.cache_write_1h, part.audio, part.audio_output
    )  # fmt: skip


def listed_name(settings: Settings, name: str) -> str:
    """How the shipped list calls a target, or a model named kind/model, whose price is asked for."""
    engine, _, model = name.partition("/")
    part = settings.engines.get(engine)
    if part is None:
        return name
    entry = part.models.get(model)
    return f"{kind(part.kind).name}/{entry.id if entry is not None and entry.id else model}"


def finder(settings: Settings) -> Callable[[str, str], Price | None]:
    """(target or kind/model, ISO day) -> its price; None: unpriced.  As an attempt is priced, but for `unpriced:`."""
    own, listed = PriceList(overrides(settings)), PriceList(shipped())

    def find(name: str, day: str) -> Price | None:
        return own.find(name, day) or listed.find(listed_name(settings, name), day)

    return find


def stale(price: Price, day: str) -> bool:
    """Was a shipped row read so long ago that it is worth another look?"""
    if price.source == OWN or not price.read:
        return False
    return (date.fromisoformat(day) - date.fromisoformat(price.read)).days > STALE_DAYS


def known_names(settings: Settings) -> list[str]:
    """Every name that a price may be asked for by."""
    targets = [f"{engine}/{model}" for engine, part in settings.engines.items() for model in part.models]
    return list(dict.fromkeys([*settings.prices, *targets, *(row.model for row in shipped())]))
