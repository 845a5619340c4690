"""What the ledger's sums mean in money: cloud as it was billed, local by the rate card, idle apart.  Pure.

A line is a group of attempts.  The busy cost of each pool is allocated to the lines by the engine time of their attempts,
where reading prompts and writing answers may weigh apart (`engines.ratecard.weight`); what it cost to have the pool idle is
a line of its own, and so the total is what was spent.  All amounts are integer pico-dollars, all times microseconds.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from msgspec import Struct

from compliance.model import LOCAL
from engines.ratecard import MICRO, PeriodCost, RateCard, allocate, busy_time, period_cost, weight
from engines.rates import Price, rates
from proxy.forecast import Forecast
from proxy.periods import DAY as DAY
from proxy.periods import period as period
from proxy.periods import shown, zone_of

COUNTED = (
    "attempts", "requests", "local", "estimated", "input", "cache_read", "cache_write", "output", "reasoning",
    "local_prompt", "local_output",
)  # fmt: skip
MONEY = ("api", "own", "own_prefill", "own_decode", "estimated_api", "avoided")
OWNERS = frozenset({"organisation", "tenant", "team", "project", "key", "user", "tag"})
"""Dimensions that say whose spending it is: what has no name there is unallocated."""


class Against(Struct, frozen=True):
    """The counterfactual: what local answers would have cost at an API.

    `price` gives its price on an ISO day; `changes` are the ISO days on which it changes; `above` is the number of prompt
    tokens above which its long rates count, 0 where it has none.
    """

    name: str
    price: Callable[[str], Price | None]
    changes: tuple[str, ...] = ()
    above: int = 0
    source: str = ""


class Line(Struct):
    """A group's sums.  `api` is what clouds billed, `own` its share of the pools' busy cost, `avoided` what the local part
    would have cost at the counterfactual's price."""

    names: tuple[str, ...] = ()
    attempts: int = 0
    requests: int = 0  # counted at their first attempt
    local: int = 0
    estimated: int = 0
    input: int = 0  # tokens that no cache held
    cache_read: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0  # part of output
    local_prompt: int = 0  # tokens that local engines read, cached or not
    local_output: int = 0
    api: int = 0
    own: int = 0
    own_prefill: int = 0  # of own: reading prompts
    own_decode: int = 0  # of own: writing answers
    estimated_api: int = 0  # of api: whose tokens are estimates or bounds
    avoided: int = 0

    @property
    def cost(self) -> int:
        return self.api + self.own

    @property
    def tokens(self) -> int:
        return self.input + self.cache_read + self.cache_write + self.output

    @property
    def local_tokens(self) -> int:
        return self.local_prompt + self.local_output

    @property
    def api_tokens(self) -> int:
        return self.tokens - self.local_tokens


class Pool(Struct, frozen=True):
    """A pool of one's own over the period.  `engine_us` is the time of its attempts, which may overlap, `guessed_us` the part
    of it that was split into reading and writing by tokens, not measured."""

    engine: str
    spent: PeriodCost
    engine_us: int = 0
    guessed_us: int = 0
    prefill_us: int = 0
    decode_us: int = 0
    output: int = 0

    @property
    def utilisation(self) -> float:
        return self.spent.busy_us / self.spent.period_us if self.spent.period_us else 0.0


class Corrected(Struct, frozen=True):
    """What a vendor billed beyond what the lines have of its model, found by reconciliation; negative: less."""

    vendor: str
    model: str
    amount: int
    cause: str = ""

    @property
    def name(self) -> str:
        return f"{self.vendor}/{self.model}" if self.model else self.vendor


class Report(Struct, frozen=True):
    """`total` is the lines' sum; with what the pools cost idle, and what vendors billed beyond it, it is all that was spent."""

    by: tuple[str, ...]
    start: int
    end: int
    lines: list[Line]
    total: Line
    pools: list[Pool]
    against: str  # the counterfactual's name; empty: none
    notes: list[str]
    zone: str = "UTC"
    forecast: Forecast | None = None  # of the calendar month
    corrections: tuple[Corrected, ...] = ()
    known_from: int = 0  # where the ledger begins: pools are counted from then on

    @property
    def observed(self) -> int:
        """How long the ledger has seen of the period, in microseconds."""
        return _observed(self.start, self.end, self.known_from)

    @property
    def corrected(self) -> int:
        return sum(row.amount for row in self.corrections)

    @property
    def billed(self) -> int:
        """What APIs cost, corrections included."""
        return self.total.api + self.corrected

    @property
    def idle(self) -> int:
        return sum(pool.spent.idle for pool in self.pools)

    @property
    def spent(self) -> int:
        return self.total.cost + self.idle + self.corrected

    @property
    def unallocated(self) -> int:
        """Of the lines' cost, what has no name in a dimension that says whose it is."""
        owners = [place for place, name in enumerate(self.by) if name.partition(":")[0] in OWNERS]
        return sum(line.cost for line in self.lines if any(not line.names[place] for place in owners))

    @property
    def names_owners(self) -> bool:
        return any(name.partition(":")[0] in OWNERS for name in self.by)


def report(
    by: Sequence[str],
    period: tuple[int, int],
    sums: Sequence[dict[str, Any]],
    busy: Mapping[str, int],
    cards: Mapping[str, RateCard],
    against: Against | None = None,
    *,
    zone: str = "UTC",
    forecast: Forecast | None = None,
    corrections: Sequence[Corrected] = (),
    known_from: int = 0,
) -> Report:
    """The ledger's `sums` by `by`, valued.  `busy` is how long each engine was, as `busy_times` has it.

    Pools cost from `known_from` on: whether they were busy before the ledger began, or there at all, nobody has seen.
    """
    start, end = period
    length = _observed(start, end, known_from)
    lines: dict[tuple[str, ...], Line] = {}
    total = Line()
    for row in sums:
        line = lines.setdefault(row["names"], Line(row["names"]))
        for sink in (line, total):
            _add(sink, row)
            if against is not None and row["where"] == LOCAL:
                sink.avoided += _avoided(row, against)
    pools = [_pool(name, period_cost(card, length, busy.get(name, 0)), sums) for name, card in cards.items()]
    for pool in pools:
        _share_out(pool, cards[pool.engine], sums, lines, total)
    ordered = sorted(lines.values(), key=lambda line: (-line.cost, -line.attempts, line.names))
    if by[0] in ("day", "hour", "month"):
        ordered.sort(key=lambda line: line.names[0])
    notes = list(_notes(sums, cards, pools, against))
    if pools and start < known_from:
        notes.insert(0, f"own engines are counted from {shown(known_from, zone_of(zone))} on, where the ledger begins")
    name = against.name if against else ""
    return Report(
        tuple(by),
        start,
        end,
        ordered,
        total,
        pools,
        name,
        notes,
        zone=zone,
        forecast=forecast,
        corrections=tuple(corrections),
        known_from=known_from,
    )


def _observed(start: int, end: int, known_from: int) -> int:
    return max(0, end - max(start, known_from))


def _add(line: Line, row: Mapping[str, Any]) -> None:
    line.attempts += row["attempts"]
    line.requests += row["requests"]
    line.estimated += row["estimated"]
    written = row["cache_write_5m"] + row["cache_write_1h"]
    line.input += row["input"]
    line.cache_read += row["cache_read"]
    line.cache_write += written
    line.output += row["output"]
    line.reasoning += row["reasoning"]
    line.api += row["cost"]
    line.estimated_api += row["estimated_cost"]
    if row["where"] == LOCAL:
        line.local += row["attempts"]
        line.local_prompt += row["input"] + row["cache_read"] + written
        line.local_output += row["output"]


def _pool(engine: str, spent: PeriodCost, sums: Sequence[Mapping[str, Any]]) -> Pool:
    rows = [row for row in sums if row["where"] == LOCAL and row["engine"] == engine]
    names = ("engine_us", "guessed_us", "prefill_us", "decode_us", "output")
    return Pool(engine, spent, *(sum(row[name] for row in rows) for name in names))


def _share_out(
    pool: Pool, card: RateCard, sums: Sequence[Mapping[str, Any]], lines: Mapping[tuple[str, ...], Line], total: Line
) -> None:
    """The pool's busy cost, in parts as the rows' engine time weighs."""
    rows = [row for row in sums if row["where"] == LOCAL and row["engine"] == pool.engine]
    weights = [weight(card, row["prefill_us"], row["decode_us"]) for row in rows]
    parts = allocate(pool.spent.busy, [sum(pair) for pair in weights])
    for row, part, (read, written) in zip(rows, parts, weights, strict=True):
        prefill = part * read // (read + written) if part else 0
        for sink in (lines[row["names"]], total):
            sink.own += part
            sink.own_prefill += prefill
            sink.own_decode += part - prefill


def _avoided(row: Mapping[str, Any], against: Against) -> int:
    found = against.price(row["date"])
    return 0 if found is None else value(row, found)


def value(row: Mapping[str, Any], price: Price) -> int:
    """What a sum's tokens cost at a price's standard tier: as `engines.rates.cost` has it for one answer, whose bound the
    ledger has applied.  `long` says that the prompts are those above the price's threshold."""
    rate, _ = rates(price, "", price.long_above + 1 if row.get("long") else 0)
    write = rate.input if rate.cache_write is None else rate.cache_write
    return int(
        row["input"] * rate.input
        + row["cache_read"] * (rate.input if rate.cached is None else rate.cached)
        + row["cache_write_5m"] * write
        + row["cache_write_1h"] * (write if rate.cache_write_1h is None else rate.cache_write_1h)
        + row["output"] * rate.output
    )


def busy_times(intervals: Iterable[tuple[str, int, int]]) -> dict[str, int]:
    """How long each engine had at least one attempt."""
    groups = itertools.groupby(intervals, key=itemgetter(0))
    return {engine: busy_time((begin, finish) for _, begin, finish in rows) for engine, rows in groups}


def _notes(
    sums: Sequence[Mapping[str, Any]], cards: Mapping[str, RateCard], pools: Sequence[Pool], against: Against | None
) -> Iterable[str]:
    """What is missing, so that nobody takes a figure for more than it is."""
    local = [row for row in sums if row["where"] == LOCAL]
    bare = [row for row in local if row["engine"] not in cards]
    if bare:
        names = ", ".join(sorted({row["engine"] for row in bare}))
        count = sum(row["attempts"] for row in bare)
        yield f"local attempts without a rate card: {count:,} ({names}); what they cost is not known and not in the sums"
    if untimed := sum(row["untimed"] for row in local):
        yield f"local attempts without engine time: {untimed:,}; nothing is allocated to them"
    if unpriced := sum(row["unpriced"] for row in sums if row["where"] != LOCAL):
        yield f"cloud attempts that used tokens without a price: {unpriced:,}; they are not in the sums"
    yield from _allocation_notes(cards, pools)
    if against is not None:
        days = {row["date"] for row in local if against.price(row["date"]) is None}
        if days:
            when = (
                f"before {against.changes[0]}"
                if against.changes and min(days) < against.changes[0]
                else f"on {min(days)}"
            )
            yield f"{against.name} has no price {when}: what was answered then does not count as avoided"
        if local:
            yield (
                f"avoided: what the local answers would have cost at {against.name}{against.source}, tokens as the local "
                "engine counted them, cached ones as cached; another tokenizer differs"
            )


def _allocation_notes(cards: Mapping[str, RateCard], pools: Sequence[Pool]) -> Iterable[str]:
    for pool in pools:
        card = cards[pool.engine]
        if not pool.engine_us:
            continue
        words = f"{pool.engine}: busy cost is allocated by engine time; a second of reading counts {card.prefill_weight / MICRO:g}"
        words += ", a second of writing 1"
        if pool.guessed_us:
            share = pool.guessed_us / pool.engine_us
            words += (
                f"; {share:.0%} of the time is split by tokens ({card.prompt_speed} read in the time of one written), "
                "the rest as it was measured"
            )
        yield words


def tokens_cost(tokens_in: int, tokens_out: int, price: Price) -> int:
    """Stated volumes at a price; nothing of it is cached."""
    row = {"input": tokens_in, "output": tokens_out, "cache_read": 0, "cache_write_5m": 0, "cache_write_1h": 0}
    return value(row, price)
