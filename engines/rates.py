"""Usage -> money, in integer pico-dollars.  Pure.

Prices are rows with a date from which they hold and a source; an operator's rows come before the shipped
ones.  A model without a price is unpriced: None, never zero.  Local targets cost nothing here (price id
"local"): what a pool of one's own costs is worked out by its rate card (`engines.ratecard`).

One row has the rates of the standard tier, those of other service tiers, and those of long prompts, which hold
for the whole request.  What a row does not say of a tier is not guessed: such an answer costs the dearest that the
row knows (`price_id` then ends in "?"), so that money is never held or booked too low unseen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import msgspec
from msgspec import Struct

from engines.model import Usage

LOCAL_PRICE = "local"
METER_LIMIT = 1_000_000_000
"""Tokens of one meter of one answer that are believed: the cost of an absurd report still fits 64 bits."""
_SURELY = METER_LIMIT.bit_length() - 1
"""Numbers of so many bits are below the limit; a negative one has more."""
ADDED_TOKENS = 1_024
"""Bound of the input tokens that an engine adds to a request by itself."""
STANDARD = "standard"
TIERS = ("batch", "flex", "priority")
"""Service tiers that a price list may have rates for, beside the standard one."""
_DISCOUNTS = ("batch", "flex")
"""Where a row has no rates for one of these, the standard ones count: they are not less."""
_TIER_NAMES = {"": "", "auto": "", "default": STANDARD, "standard": STANDARD, "standard_only": STANDARD}
_METERS = ("input", "output", "cached", "cache_write", "cache_write_1h", "audio", "audio_output")


class Rate(Struct, frozen=True):
    """Pico-dollars a token, by meter.  An input meter that is None costs what `input` costs; audio output what `output` does."""

    input: int
    output: int
    cached: int | None = None
    cache_write: int | None = None
    cache_write_1h: int | None = None
    audio: int | None = None
    audio_output: int | None = None


class Price(Struct, frozen=True):
    """One model from a date on: the rates of the standard tier as `Rate` has them, and those of other cases."""

    model: str  # engine kind/model, e.g. openai/gpt-4o
    input: int
    output: int
    cached: int | None = None
    cache_write: int | None = None
    cache_write_1h: int | None = None
    max_output: int | None = None  # tokens that the model can write at most
    since: str = ""  # ISO date
    source: str = ""
    audio: int | None = None
    audio_output: int | None = None
    tiers: Mapping[str, Rate] = {}
    long: Rate | None = None  # of the standard tier, for prompts of more tokens than `long_above`
    long_above: int = 0
    read: str = ""  # ISO date on which the source was read

    @property
    def id(self) -> str:
        """Names the row in the ledger."""
        return f"{self.model}@{self.since}" if self.since else self.model


def tier_of(said: Any) -> str:
    """A service tier as an answer or a request names it: "" where nothing was said, `standard`, one of `TIERS`, or `other`."""
    if not isinstance(said, str):
        return ""
    known = _TIER_NAMES.get(said)
    return known if known is not None else said if said in TIERS else "other"


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


def has_rates(price: Price, tier: str) -> bool:
    """Does the row say what this tier costs at the most?"""
    return tier in ("", STANDARD, *_DISCOUNTS) or tier in price.tiers


def rates(price: Price, tier: str, prompt: int) -> tuple[Rate, str]:
    """(what a request costs, the row's name in the ledger) by its tier and the tokens of its prompt.

    The name has `+tier` and `+long` where they count, and ends in `?` where the row has no rates for the tier.
    """
    standard = _standard(price)
    name = price.id
    if has_rates(price, tier):
        found = price.tiers.get(tier, standard)
        if tier in _DISCOUNTS:
            found = _filled(found, standard)
        name += f"+{tier}" if tier in price.tiers else ""
    else:
        found = _dearest([standard, *price.tiers.values()])
        name += f"+{tier}?"
    if price.long is not None and prompt > price.long_above:
        found = price.long if found == standard else _scaled(found, price.long, standard)
        name += "+long"
    return found, name


def cost(usage: Usage, price: Price) -> int:
    """What one answer cost.  Output includes reasoning, which is billed as output.

    The meters are the engine's word: each is taken as between nothing and `METER_LIMIT`.
    """
    return priced(usage, price)[0]


def priced(usage: Usage, price: Price) -> tuple[int, str]:
    """What one answer cost, and by which rates (see `rates`)."""
    rate, name = rates(price, usage.tier, usage.prompt)
    return charge(usage, rate), name


def charge(usage: Usage, rate: Rate) -> int:
    """The sum of `metered`, without the list where nothing is sound and every meter is surely believed."""
    into, read, write, write_1h, out = (
        usage.input, usage.cache_read, usage.cache_write_5m, usage.cache_write_1h, usage.output
    )  # fmt: skip
    if usage.audio_input or usage.audio_output or (into | read | write | write_1h | out) >> _SURELY:
        return sum([tokens * each for _, tokens, each in metered(usage, rate)])
    amount = into * rate.input + out * rate.output
    if read:
        amount += read * _or(rate.cached, rate.input)
    if write or write_1h:
        cache_write = _or(rate.cache_write, rate.input)
        amount += write * cache_write + write_1h * _or(rate.cache_write_1h, cache_write)
    return amount


def metered(usage: Usage, rate: Rate) -> list[tuple[str, int, int]]:
    """(meter, tokens, pico-dollars a token) of one answer: disjoint, and together what is billed."""
    heard = min(_believed(usage.audio_input), _believed(usage.input))
    spoken = min(_believed(usage.audio_output), _believed(usage.output))
    return [
        ("input", _believed(usage.input) - heard, rate.input),
        ("audio", heard, _or(rate.audio, rate.input)),
        ("cached", _believed(usage.cache_read), _or(rate.cached, rate.input)),
        ("cache_write", _believed(usage.cache_write_5m), _or(rate.cache_write, rate.input)),
        (
            "cache_write_1h",
            _believed(usage.cache_write_1h),
            _or(rate.cache_write_1h, _or(rate.cache_write, rate.input)),
        ),
        ("output", _believed(usage.output) - spoken, rate.output),
        ("audio_output", spoken, _or(rate.audio_output, rate.output)),
    ]


def upper_bound(
    prompt_bytes: int, max_output: int, choices: int, price: Price, tier: str = "", *, audio: bool = False
) -> int:
    """The most that a request can cost: no more tokens than bytes, at the dearest input meter, all of the output.

    The body's own syntax outweighs the tokens that a chat template adds to a message; what an engine adds
    unasked beside it (Anthropic's prompt for tool use, some hundreds of tokens) is in `ADDED_TOKENS`.  `audio`: it may
    be answered in sound, or holds some.
    """
    prompt = prompt_bytes + ADDED_TOKENS
    # An engine may fall back from the tier that was asked for to the standard one.
    known = {rates(price, name, tokens)[0] for name in (tier, STANDARD) for tokens in (0, prompt)}
    dearest = _dearest(known)
    into = [dearest.input, dearest.cached or 0, dearest.cache_write or 0, dearest.cache_write_1h or 0]
    out = dearest.output
    if audio:
        into.append(dearest.audio or 0)
        out = max(out, dearest.audio_output or 0)
    return prompt * max(into) + max_output * choices * out


def per_million(dollars: float | str) -> int:
    """Dollars per million tokens as pico-dollars per token, exactly; raises `ValueError` where it is no whole number."""
    amount = Decimal(str(dollars)) * 1_000_000
    if amount != amount.to_integral_value():
        raise ValueError("a price per token is a whole number of pico-dollars")
    return int(amount)


def read_list(text: bytes) -> list[Price]:
    """The rows of a price list in the form of `prices.json`."""
    return [msgspec.convert(_in_pico(row), Price) for row in msgspec.json.decode(text)["rows"]]


def _in_pico(row: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {name: per_million(value) if name in _METERS else value for name, value in row.items()}
    if "long" in made:
        long = dict(made["long"])
        made["long_above"] = long.pop("above")
        made["long"] = _in_pico(long)
    if "tiers" in made:
        made["tiers"] = {name: _in_pico(tier) for name, tier in made["tiers"].items()}
    return made


def _standard(price: Price) -> Rate:
    return Rate(
        price.input, price.output, price.cached, price.cache_write, price.cache_write_1h, price.audio, price.audio_output
    )  # fmt: skip


def _filled(rate: Rate, standard: Rate) -> Rate:
    """A discount that says nothing of a meter is none on it."""
    return Rate(
        rate.input,
        rate.output,
        *(
            getattr(standard if getattr(rate, name) is None else rate, name)
            for name in ("cached", "cache_write", "cache_write_1h", "audio", "audio_output")
        ),
    )


def _dearest(known: Iterable[Rate]) -> Rate:
    """Meter by meter the most that any of these rates says."""
    rows = list(known)

    def most(name: str) -> int | None:
        values = [value for value in (getattr(row, name) for row in rows) if value is not None]
        return max(values) if values else None

    return Rate(
        max(row.input for row in rows), max(row.output for row in rows), most("cached"), most("cache_write"),
        most("cache_write_1h"), most("audio"), most("audio_output"),
    )  # fmt: skip


def _scaled(rate: Rate, long: Rate, standard: Rate) -> Rate:
    """A tier's rates for a long prompt: dearer by as much as the standard ones get, rounded up to a pico-dollar."""

    def up(name: str) -> int | None:
        mine: int | None = getattr(rate, name)
        usual, theirs = getattr(standard, name), getattr(long, name)
        return mine if mine is None or not usual or theirs is None else -(-mine * int(theirs) // int(usual))

    return Rate(
        up("input") or 0, up("output") or 0, up("cached"), up("cache_write"), up("cache_write_1h"), up("audio"),
        up("audio_output"),
    )  # fmt: skip


def _believed(tokens: int) -> int:
    return min(max(tokens, 0), METER_LIMIT)


def _or(rate: int | None, otherwise: int) -> int:
    return otherwise if rate is None else rate


def _by_model(rows: Iterable[Price]) -> dict[str, list[Price]]:
    table: dict[str, list[Price]] = {}
    for row in rows:
        table.setdefault(row.model, []).append(row)
    for found in table.values():
        found.sort(key=lambda price: price.since, reverse=True)
    return table
