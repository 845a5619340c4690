"""Usage -> money, in integer pico-dollars.  Pure.

Prices are rows with a date from which they hold and a source; an operator's rows come before the shipped
ones.  A model without a price is unpriced: None, never zero.  Local targets cost nothing here (price id
"local"): what a pool of one's own costs is worked out by its rate card (`engines.ratecard`).
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

import msgspec
from msgspec import Struct

from engines.model import Usage

LOCAL_PRICE = "local"
METER_LIMIT = 1_000_000_000
"""Tokens of one meter of one answer that are believed: the cost of an absurd report still fits 64 bits."""
ADDED_TOKENS = 1_024
"""Bound of the input tokens that an engine adds to a request by itself."""


class Price(Struct, frozen=True):
    """Pico-dollars a token, for one model from a date on.  A meter that is None costs what `input` costs."""

    model: str  # engine kind/model, e.g. openai/gpt-4o
    input: int
    output: int
    cached: int | None = None
    cache_write: int | None = None
    cache_write_1h: int | None = None
    max_output: int | None = None  # tokens that the model can write at most
    since: str = ""  # ISO date
    source: str = ""

    @property
    def id(self) -> str:
        """Names the row in the ledger."""
        return f"{self.model}@{self.since}" if self.since else self.model


class PriceList:
    """Rows by model; the newest that holds on a day counts, and earlier lists come first."""

    def __init__(self, *lists: Iterable[Price]) -> None:
        self._lists = tuple(_by_model(rows) for rows in lists)

    def find(self, model: str, day: str) -> Price | None:
        """The price of `kind/model` on an ISO day; None: unpriced."""
        for rows in self._lists:
            for price in rows.get(model, ()):
                if price.since <= day:
                    return price
        return None


def cost(usage: Usage, price: Price) -> int:
    """What one answer cost.  Output includes reasoning, which is billed as output.

    The meters are the engine's word: each is taken as between nothing and `METER_LIMIT`.
    """
    write = price.cache_write if price.cache_write is not None else price.input
    return (
        _metered(usage.input) * price.input
        + _metered(usage.cache_read) * (price.cached if price.cached is not None else price.input)
        + _metered(usage.cache_write_5m) * write
        + _metered(usage.cache_write_1h) * (price.cache_write_1h if price.cache_write_1h is not None else write)
        + _metered(usage.output) * price.output
    )


def upper_bound(prompt_bytes: int, max_output: int, choices: int, price: Price) -> int:
    """The most that a request can cost: no more tokens than bytes, at the dearest input meter, all of the output.

    The body's own syntax outweighs the tokens that a chat template adds to a message; what an engine adds
    unasked beside it (Anthropic's prompt for tool use, some hundreds of tokens) is in `ADDED_TOKENS`.
    """
    dearest = max(price.input, price.cached or 0, price.cache_write or 0, price.cache_write_1h or 0)
    return (prompt_bytes + ADDED_TOKENS) * dearest + max_output * choices * price.output


def per_million(dollars: float | str) -> int:
    """Dollars per million tokens as pico-dollars per token, exactly; raises `ValueError` where it is no whole number."""
    amount = Decimal(str(dollars)) * 1_000_000
    if amount != amount.to_integral_value():
        raise ValueError("a price per token is a whole number of pico-dollars")
    return int(amount)


def read_list(text: bytes) -> list[Price]:
    """The rows of a price list in the form of `prices.json`."""
    meters = ("input", "output", "cached", "cache_write", "cache_write_1h")
    rows = msgspec.json.decode(text)["rows"]
    return [msgspec.convert({n: per_million(v) if n in meters else v for n, v in row.items()}, Price) for row in rows]


def _metered(tokens: int) -> int:
    return min(max(tokens, 0), METER_LIMIT)


def _by_model(rows: Iterable[Price]) -> dict[str, list[Price]]:
    table: dict[str, list[Price]] = {}
    for row in rows:
        table.setdefault(row.model, []).append(row)
    for found in table.values():
        found.sort(key=lambda price: price.since, reverse=True)
    return table
