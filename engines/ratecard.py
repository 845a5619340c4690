"""What a pool of one's own costs: a rate card -> integer pico-dollars for a period.  Pure.

A pool costs money whether it works or not.  So a period's sum is what was spent, and it is cut in two: what the time
costs in which the pool was busy (shared among the attempts that kept it busy), and what it costs to have it idle.
Both add up to the sum, to the pico-dollar.

Depreciation is straight-line, (purchase - residual) / life.  Financing is simple interest on the average of what is
bound in the purchase over its life, (purchase + residual) / 2.  Power is what the pool as a whole draws, busy or idle,
times the power usage effectiveness of where it stands (PUE, ISO/IEC 30134-2).  A year has 365 days, a month a twelfth
of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

MICRO = 1_000_000
YEAR = 365 * 86_400 * MICRO
"""Microseconds."""
MONTH = YEAR // 12
_KWH = 1_000 * 3_600 * MICRO  # watts times microseconds in a kilowatt-hour


class RateCard(Struct, frozen=True):
    """One pool.  Amounts in pico-dollars; `residual`, `financing` (a year), `pue` and `prefill_weight` in millionths of one."""

    purchase: int = 0
    life_us: int = 4 * YEAR
    residual: int = 0
    financing: int = 0
    watts_idle: int = 0
    watts_load: int = 0
    pue: int = MICRO
    kwh: int = 0
    rent: int = 0  # a month
    staff: int = 0  # a month
    prefill_weight: int = MICRO  # what a second of reading a prompt counts, where one of writing counts one
    prompt_speed: int = 20  # tokens read in the time in which one is written; for answers of which neither was measured

    @property
    def residual_value(self) -> int:
        """What it is sold for at the end of its life."""
        return _rounded(self.purchase * self.residual, MICRO)


class PeriodCost(Struct, frozen=True):
    """What a pool cost over a period: pico-dollars, by what it was spent on."""

    period_us: int
    busy_us: int
    depreciation: int
    financing: int
    rent: int
    staff: int
    energy_busy: int
    energy_idle: int

    @property
    def fixed(self) -> int:
        """What does not depend on whether it works."""
        return self.depreciation + self.financing + self.rent + self.staff

    @property
    def total(self) -> int:
        """All that was spent: `busy` and `idle` add up to it."""
        return self.fixed + self.energy_busy + self.energy_idle

    @property
    def cash(self) -> int:
        """What is paid in the period beside the purchase: no depreciation."""
        return self.total - self.depreciation

    @property
    def marginal(self) -> int:
        """The energy of the busy time: what the answers cost beyond having the pool."""
        return self.energy_busy

    @property
    def busy(self) -> int:
        """Fully loaded cost of the busy time: its energy, and its share of what is fixed."""
        return self.energy_busy + (_rounded(self.fixed * self.busy_us, self.period_us) if self.period_us else 0)

    @property
    def idle(self) -> int:
        """What it cost to have the pool while it did nothing."""
        return self.total - self.busy


def period_cost(card: RateCard, period_us: int, busy_us: int) -> PeriodCost:
    """The cost of a period in which the pool was busy for a part of the time; raises `ValueError` where that is no part."""
    if not 0 <= busy_us <= period_us:
        raise ValueError("a pool is busy for a part of the period")
    bound = card.purchase + card.residual_value  # twice the average
    return PeriodCost(
        period_us=period_us,
        busy_us=busy_us,
        depreciation=_rounded((card.purchase - card.residual_value) * period_us, card.life_us),
        financing=_rounded(bound * card.financing * period_us, 2 * MICRO * YEAR),
        rent=_rounded(card.rent * period_us, MONTH),
        staff=_rounded(card.staff * period_us, MONTH),
        energy_busy=_energy(card, card.watts_load, busy_us),
        energy_idle=_energy(card, card.watts_idle, period_us - busy_us),
    )


def weight(card: RateCard, prefill_us: int, decode_us: int) -> tuple[int, int]:
    """What engine time counts in sharing out a pool's busy cost: (of reading prompts, of writing answers).

    An engine that serves many at once reads a prompt with all of its arithmetic, and writes for all of them together: its
    operator may say that a second of the one costs more than a second of the other.  As it comes, both count the same.
    """
    return prefill_us * card.prefill_weight, decode_us * MICRO


def busy_time(intervals: Iterable[tuple[int, int]]) -> int:
    """How long at least one of these (start, end) lasted; they come in the order of their starts."""
    total, reached = 0, None
    for start, end in intervals:
        if reached is None or start > reached:
            total += end - start
            reached = end
        elif end > reached:
            total += end - reached
            reached = end
    return total


def allocate(amount: int, weights: Sequence[int]) -> list[int]:
    """An amount in parts as the weights are: each within one of its exact share, all together the amount.

    Weights are not negative; where all are nothing, nobody is charged.
    """
    whole = sum(weights)
    parts: list[int] = []
    before = passed = 0
    for weight in weights:
        passed += weight
        upto = amount * passed // whole if whole else 0
        parts.append(upto - before)
        before = upto
    return parts


def _energy(card: RateCard, watts: int, duration_us: int) -> int:
    return _rounded(watts * duration_us * card.pue * card.kwh, _KWH * MICRO)


def _rounded(amount: int, by: int) -> int:
    """The quotient, half up."""
    return (2 * amount + by) // (2 * by)
