"""The scorecard: what a CFO and a CTO asked of local serving, each figure with how it was computed, or with what is missing
for it.  Pure: everything comes from the ledger's sums, and nothing is assumed that is not said.

Amounts are pico-dollars.  A figure with a goal has a colour: green where the goal is met, amber where it is nearly (as the goal
says), red else; grey without a goal, or without what it needs.
"""

from __future__ import annotations

import statistics
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from engines.ratecard import MICRO, MONTH, RateCard
from proxy.finance import DAY, Line, Report
from proxy.finance_tables import spanned
from proxy.meaning import dollars

if TYPE_CHECKING:
    from proxy.books import Month
    from proxy.projections.sums import Spread, Traffic

THOUSAND = 1_000
AVAILABLE = 0.999
"""The goal of availability: three nines of requests, 43 minutes of a month."""
OVERFLOW = 0.05
BUSY = (0.60, 0.80)
_AT_FAULT = frozenset(
    {
        "no_eligible_target",
        "queue_timeout",
        "audit_unavailable",
        "budget_unavailable",
        "internal",
        "draining",
        "overloaded",
    }
)
"""Refusals that are a failure of the service; others are rules, limits and mistakes of clients."""


class Figure(Struct, frozen=True):
    """One line.  `value` is None where something is missing, which `how` says then."""

    name: str
    group: str
    title: str
    value: float | int | None
    unit: str  # pico-dollars, share, months, us, per second, count
    how: str
    goal: str = ""
    colour: str = "grey"  # green, amber, red, grey


class Scorecard(Struct, frozen=True):
    period: str
    against: str
    figures: list[Figure]
    notes: list[str]


def scorecard(
    found: Report,
    months: Sequence[Month],
    traffic: Traffic,
    cards: Mapping[str, RateCard],
    models: Mapping[str, bool],
    concurrency: Mapping[str, int | None],
    parity: Figure | None = None,
) -> Scorecard:
    """Worked out from a report by target, the ledger's months, and how its requests went.

    `models` are the configured targets, and whether each is fine-tuned; `concurrency` is what engines take at once;
    `parity` is what an experiment has come to.
    """
    figures = [
        *_costs(found), *_purchase(found, cards), *_variance(months), *_overflow(traffic), *_sensitive(traffic),
        *_times(traffic), *_throughput(found, traffic), *_pools(found, concurrency), parity or _parity(), _available(traffic),
        _tuned(found, models),
    ]  # fmt: skip
    return Scorecard(spanned(found), found.against, figures, list(found.notes))


# --- money -------------------------------------------------------------------------------------------------

_NO_AGAINST = "missing: --against, the API to compare with"
_NO_CARD = "missing: a rate card; cost: {...} of an engine says what it costs"


def _costs(found: Report) -> Iterable[Figure]:
    total, local = found.total, _of_pools(found, {pool.engine for pool in found.pools})
    own = total.own + found.idle
    energy = sum(pool.spent.marginal for pool in found.pools)
    for name, title, cost, what in (
        ("cost_local", "own, 1K tokens", own, "all of the pools, idle included"),
        ("cost_local_busy", "own, 1K tokens, busy time alone", total.own, "busy time"),
        ("cost_local_marginal", "own, 1K tokens, energy alone", energy, "energy while busy"),
    ):
        value = _thousandth(cost, local.local_tokens)
        how = f"{dollars(cost)} ({what}) / {local.local_tokens:,} tokens"
        yield Figure(name, "cost", title, value, "pico-dollars", how if value is not None else _no_local(found))
    value = _thousandth(found.billed, total.api_tokens)
    how = f"{dollars(found.billed)} billed / {total.api_tokens:,} tokens"
    yield Figure(
        "cost_api", "cost", "API, 1K tokens", value, "pico-dollars",
        how if value is not None else "missing: no tokens were answered by an API",
    )  # fmt: skip
    yield Figure(
        "spent", "cost", "spent", found.spent, "pico-dollars",
        f"API {dollars(found.billed)} + own busy {dollars(total.own)} + own idle {dollars(found.idle)}",
    )  # fmt: skip
    yield from _compared(found, local, own)


def _compared(found: Report, local: Line, own: int) -> Iterable[Figure]:
    """Against the API: `local` is what pools with a rate card answered, so that both sides are of the same tokens."""
    if not found.against:
        yield Figure("baseline", "cost", "all of it at the API", None, "pico-dollars", _NO_AGAINST)
        yield Figure("saved", "cost", "saved against all-API", None, "pico-dollars", _NO_AGAINST, "> $0")
        yield Figure("margin", "cost", "margin, 1K tokens", None, "pico-dollars", _NO_AGAINST, "> $0")
        return
    baseline = found.billed + local.avoided
    yield Figure(
        "baseline", "cost", f"all of it at {found.against}", baseline, "pico-dollars",
        f"API as billed {dollars(found.billed)} + local tokens at {found.against} {dollars(local.avoided)}",
    )  # fmt: skip
    saved = baseline - found.spent
    share = f", {saved / baseline:.1%} of it" if baseline else ""
    yield Figure(
        "saved", "cost", "saved against all-API", saved if found.pools else None, "pico-dollars",
        f"{dollars(baseline)} - {dollars(found.spent)}{share}" if found.pools else _NO_CARD,
        "> $0", "grey" if not found.pools else "green" if saved > 0 else "red",
    )  # fmt: skip
    margin = _thousandth(local.avoided - own, local.local_tokens)
    how = f"({dollars(local.avoided)} at {found.against} - {dollars(own)} own) / {local.local_tokens:,} tokens"
    yield Figure(
        "margin", "cost", "margin, 1K tokens", margin, "pico-dollars", how if margin is not None else _no_local(found),
        "> $0", "grey" if margin is None else "green" if margin > 0 else "red",
    )  # fmt: skip


def _of_pools(found: Report, engines: Container[str]) -> Line:
    """What these engines answered."""
    whole = Line()
    for line in found.lines:
        if line.names[0].partition("/")[0] in engines:
            whole.local_prompt += line.local_prompt
            whole.local_output += line.local_output
            whole.avoided += line.avoided
    return whole


def _no_local(found: Report) -> str:
    return "missing: no tokens were answered by a pool with a rate card" if found.pools else _NO_CARD


def _thousandth(amount: int, tokens: int) -> int | None:
    return amount * THOUSAND // tokens if tokens else None


def _purchase(found: Report, cards: Mapping[str, RateCard]) -> Iterable[Figure]:
    """Payback and three years of the pools that were bought: what they answered would have cost, against running them."""
    bought = {name: card for name, card in cards.items() if card.purchase}
    avoided = _of_pools(found, bought).avoided
    length = found.observed
    missing = (
        _NO_AGAINST if not found.against else "missing: a rate card with a purchase" if not bought
        else "missing: local answers in this period" if not avoided or not length else ""
    )  # fmt: skip
    payback, three_years = (
        ("payback", "cost", "payback of the purchase"),
        ("three_years", "cost", "saved in three years"),
    )
    if missing:
        yield Figure(*payback, None, "months", missing, "within its life")
        yield Figure(*three_years, None, "pico-dollars", missing, "> $0")
        return
    month = f"{dollars(avoided)} avoided in {length / DAY:,.1f} days, as a month"
    api = avoided * MONTH // length
    purchase = sum(card.purchase for card in bought.values())
    running = sum(pool.spent.cash for pool in found.pools if pool.engine in bought) * MONTH // length
    saving = api - running
    life = min(card.life_us for card in bought.values()) / MONTH
    months = purchase / saving if saving > 0 else None
    yield Figure(
        *payback, None if months is None else round(months, 1), "months",
        f"{dollars(purchase)} / ({dollars(api)} - {dollars(running)}) a month; {month}" if months is not None
        else f"never: running the pools costs {dollars(running)} a month, and saves {dollars(api)}",
        "within its life", "green" if months is not None and months <= life else "red",
    )  # fmt: skip
    after = sum(_replaced(card) for card in bought.values())
    three = 36 * saving - after
    yield Figure(
        *three_years, three, "pico-dollars", f"36 x {dollars(saving)} - {dollars(after)} for what is bought, sold and bought again",
        "> $0", "green" if three > 0 else "red",
    )  # fmt: skip


def _replaced(card: RateCard) -> int:
    """What the purchases of three years cost: as `proxy.breakeven` counts them."""
    span = 36 * MONTH
    return -(-span // card.life_us) * card.purchase - span // card.life_us * card.residual_value


def _variance(months: Sequence[Month]) -> Iterable[Figure]:
    whole = [month for month in months if month.whole]
    if len(whole) < 2:
        how = f"missing: two whole calendar months; the ledger has {len(whole)}"
        yield Figure("month_change", "cost", "last month against the one before", None, "share", how)
        yield Figure("month_variation", "cost", "variation of monthly spend", None, "share", how)
        return
    before, last = whole[-2:]
    change = last.spent / before.spent - 1 if before.spent else None
    yield Figure(
        "month_change", "cost", "last month against the one before", change, "share",
        f"{last.name} {dollars(last.spent)}, {before.name} {dollars(before.spent)}" if change is not None
        else f"missing: {before.name} cost nothing",
    )  # fmt: skip
    spent = [month.spent for month in whole[-12:]]
    mean = sum(spent) / len(spent)
    yield Figure(
        "month_variation", "cost", "variation of monthly spend", statistics.pstdev(spent) / mean if mean else None, "share",
        f"standard deviation / mean of {len(spent)} whole months, mean {dollars(round(mean))}",
    )  # fmt: skip


# --- where requests went -----------------------------------------------------------------------------------


def _overflow(traffic: Traffic) -> Iterable[Figure]:
    forced = sum(traffic.forced.values())
    if not traffic.requests:
        yield Figure(
            "overflow", "traffic", "overflowed to an API", None, "share", "missing: requests", f"< {OVERFLOW:.0%}"
        )
        yield Figure("api_by_choice", "traffic", "sent to an API by choice", None, "share", "missing: requests")
        return
    share = forced / traffic.requests
    reasons = ", ".join(f"{name} {count:,}" for name, count in sorted(traffic.forced.items())) or "none"
    yield Figure(
        "overflow", "traffic", "overflowed to an API", share, "share",
        f"{forced:,} of {traffic.requests:,} requests left because local engines were busy, down or failed ({reasons})",
        f"< {OVERFLOW:.0%}", _colour(share < OVERFLOW, share < 2 * OVERFLOW),
    )  # fmt: skip
    yield Figure(
        "api_by_choice", "traffic", "sent to an API by choice", traffic.chosen / traffic.requests, "share",
        f"{traffic.chosen:,} of {traffic.requests:,}: a model, a size or a capability that only the API has",
    )  # fmt: skip


def _sensitive(traffic: Traffic) -> Iterable[Figure]:
    goal = "100%"
    if not traffic.held:
        yield Figure(
            "sensitive_local", "traffic", "sensitive requests kept local", None, "share",
            "missing: requests that a rule keeps local or redacts; there were none in this period", goal,
        )  # fmt: skip
    else:
        kept = traffic.held - traffic.held_left - traffic.held_redacted
        under = (
            f", {traffic.held_redacted:,} left with pseudonyms in place of what was found"
            if traffic.held_redacted
            else ""
        )
        share = kept / traffic.held
        colour = "red" if traffic.held_left else "amber" if traffic.held_redacted else "green"
        yield Figure(
            "sensitive_local", "traffic", "sensitive requests kept local", share, "share",
            f"{kept:,} of {traffic.held:,} requests that the rules keep local or redact{under}; {traffic.held_left:,} left as they were",
            goal, colour,
        )  # fmt: skip
    share_found = traffic.found_local / traffic.found if traffic.found else None
    yield Figure(
        "found_local", "traffic", "requests with any identifier, local", share_found, "share",
        f"{traffic.found_local:,} of {traffic.found:,}; the rest is what the rules allow to leave (a name without context), or redacted"
        if traffic.found else "missing: requests in which an identifier was found",
    )  # fmt: skip


# --- how well they were served -----------------------------------------------------------------------------


MEASURED = {
    "latency": ("arrival to end", "completed", "requests"), "first": ("arrival to first token", "streamed", "answers"),
}  # fmt: skip
PLACES = {"all": "", "local": "local ", "api": "API "}


def _times(traffic: Traffic) -> Iterable[Figure]:
    for name, (title, noun, what) in MEASURED.items():
        spreads = traffic.latency if name == "latency" else traffic.first
        for place, where in PLACES.items():
            seen: Spread = spreads[place]
            if not seen.count and place != "all":
                continue
            for rank in ("p50", "p95", "p99"):
                how = f"{seen.count:,} {noun} {where}{what}; nearest rank" if seen.count else f"missing: {noun} {what}"
                value = getattr(seen, rank) if seen.count else None
                yield Figure(
                    f"{name}_{place}_{rank}", "service", f"{title} {rank}, {where or 'all'}".strip(), value, "us", how
                )


def _throughput(found: Report, traffic: Traffic) -> Iterable[Figure]:
    seconds = found.observed / MICRO
    if not seconds:
        yield Figure("throughput", "service", "throughput", None, "per second", "missing: a period")
        return
    yield Figure(
        "throughput_requests", "service", "requests answered, a second", traffic.answered / seconds, "per second",
        f"{traffic.answered:,} in {seconds / 86_400:,.1f} days; {traffic.busiest_requests:,} in the busiest hour",
    )  # fmt: skip
    yield Figure(
        "throughput_output", "service", "tokens written, a second", traffic.output / seconds, "per second",
        f"{traffic.output:,}; {traffic.busiest_output:,} in the busiest hour",
    )  # fmt: skip


def _pools(found: Report, concurrency: Mapping[str, int | None]) -> Iterable[Figure]:
    goal = f"{BUSY[0]:.0%} to {BUSY[1]:.0%}"
    if not found.pools:
        yield Figure("utilisation", "service", "pool utilisation", None, "share", _NO_CARD, goal)
    for pool in found.pools:
        busy = pool.utilisation
        mean = pool.engine_us / pool.spent.busy_us if pool.spent.busy_us else 0.0
        limit = concurrency.get(pool.engine)
        of = f" of {limit}" if limit else ""
        yield Figure(
            f"utilisation_{pool.engine}", "service", f"utilisation of {pool.engine}", busy, "share",
            f"at least one request for {pool.spent.busy_us / 3_600 / MICRO:,.1f} of {pool.spent.period_us / 3_600 / MICRO:,.1f} hours; "
            f"{mean:.1f}{of} at once meanwhile",
            goal, _colour(BUSY[0] <= busy <= BUSY[1], 0.4 <= busy <= 0.9),
        )  # fmt: skip
        if pool.spent.busy_us:
            yield Figure(
                f"speed_{pool.engine}", "service", f"tokens written by {pool.engine}, a busy second", pool.output * MICRO / pool.spent.busy_us,
                "per second", f"{pool.output:,} in {pool.spent.busy_us / 3_600 / MICRO:,.1f} busy hours",
            )  # fmt: skip


def _parity() -> Figure:
    return Figure(
        "parity", "quality", "quality parity with the API", None, "share",
        "missing: shadow comparisons, or a split with feedback; see experiments: and spillway parity",
    )  # fmt: skip


def _available(traffic: Traffic) -> Figure:
    refused = sum(count for code, count in traffic.refused.items() if code in _AT_FAULT)
    asked = traffic.answered + traffic.failed + refused
    goal = f">= {AVAILABLE:.1%}"
    if not asked:
        return Figure("availability", "service", "availability", None, "share", "missing: requests", goal)
    share = traffic.answered / asked
    return Figure(
        "availability", "service", "availability", share, "share",
        f"{traffic.answered:,} answered, {traffic.failed:,} failed, {refused:,} refused for want of an engine; not counted: "
        f"{traffic.abandoned:,} that clients gave up, {traffic.rejected:,} wrong requests, rules and limits",
        goal, _colour(share >= AVAILABLE, share >= 0.99),
    )  # fmt: skip


def _tuned(found: Report, models: Mapping[str, bool]) -> Figure:
    tuned = sorted(name for name, own in models.items() if own)
    used = {line.names[0] for line in found.lines if line.local or line.api}
    if not tuned:
        how = "missing: no model of the configuration is marked fine_tuned: true"
        return Figure("fine_tuned", "quality", "own fine-tuned models", None, "count", how)
    served = [name for name in tuned if name in used]
    return Figure(
        "fine_tuned",
        "quality",
        "own fine-tuned models",
        len(served),
        "count",
        f"of {len(tuned)} configured: {', '.join(tuned)}",
    )


def _colour(good: bool, near: bool) -> str:
    return "green" if good else "amber" if near else "red"
