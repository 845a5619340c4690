"""Should we buy GPUs?  What a volume costs at an API against a purchase and its rate card.  Pure.

Payback is simple: the purchase divided by what is saved a month, where the saving is what the API would have cost less
what running the pool costs in cash (energy, rent, staff, interest; no depreciation, since the purchase is the thing paid
back).  Renting the same hardware is its price a month and the staff, nothing else.  Utilisation is the share of the time in
which the pool is busy; the volume is proportional to it.  Amounts are integer pico-dollars, shares millionths of one.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Any, NamedTuple

from msgspec import Struct

from engines.ratecard import MICRO, MONTH, RateCard, period_cost
from proxy.meaning import dollars, table

UTILISATIONS = (250_000, 500_000, 750_000, 1_000_000)
API_CHANGES = (-500_000, -250_000, 0, 250_000)
MILLION = 1_000_000


class Volume(Struct, frozen=True):
    """What is asked of an API in a month."""

    api: int  # what it costs there
    how: str
    tokens: int | None = None  # None: not stated
    notes: tuple[str, ...] = ()


class Figure(NamedTuple):
    """`value` is None where there is none: it never pays back, or what it needs is missing."""

    name: str
    value: int | float | None
    unit: str  # pico-dollars, months or pico-dollars per million tokens
    how: str


class Case(Struct, frozen=True):
    """One assumption on utilisation and API prices, and what follows.  `spent` is what three years cost, whoever serves:
    api, buy, and rent where that was asked for."""

    utilisation: int
    api_change: int
    api: int  # a month
    running: int  # a month
    payback: Fraction | None  # months; None: never
    first_year: int  # what is left over of it, the purchase paid
    three_years: int
    spent: dict[str, int]

    @property
    def cheapest(self) -> str:
        return min(self.spent, key=lambda way: self.spent[way])

    @property
    def saving(self) -> int:
        return self.api - self.running


class Plan(Struct, frozen=True):
    """The answer: `pays` where the purchase is back within its life."""

    pays: bool
    figures: list[Figure]
    base: Case
    cases: list[Case]  # by utilisation, then by API prices
    notes: list[str]


def plan(
    card: RateCard,
    volume: Volume,
    utilisation: int,
    *,
    rented: int | None = None,
    dearest: tuple[str, int] | None = None,
) -> Plan:
    """Worked out for a volume that keeps the pool busy for `utilisation` of the time.

    `rented` is what the same hardware costs a month where it is rented instead.  `dearest` is the model of the price list that
    costs most for a token: a stated cost above it does not follow from the stated tokens, and a note says so.
    """
    base = _case(card, volume.api, utilisation, utilisation, 0, rented)
    cases = [
        _case(card, volume.api, utilisation, busy, change, rented)
        for busy in sorted({*UTILISATIONS, utilisation})
        for change in API_CHANGES
    ]
    life = Fraction(card.life_us, MONTH)
    pays = base.payback is not None and base.payback <= life
    figures = [*_figures(card, volume, base, life), *(_rent_figures(card, base, rented) if rented is not None else ())]
    return Plan(pays, figures, base, cases, [*_notes(card, volume), *_implied(card, volume, base, dearest)])


def _case(card: RateCard, api: int, stated: int, utilisation: int, change: int, rented: int | None) -> Case:
    """`api` is the month's cost at the stated utilisation and at today's prices."""
    api = api * utilisation * (MICRO + change) // (stated * MICRO)
    running = period_cost(card, MONTH, MONTH * utilisation // MICRO).cash
    saving = api - running
    spent = {"api": 36 * api, "buy": 36 * api - _after(card, saving, 36)}
    if rented is not None:
        spent["rent"] = 36 * (rented + card.staff)
    return Case(
        utilisation=utilisation,
        api_change=change,
        api=api,
        running=running,
        payback=Fraction(card.purchase, saving) if saving > 0 else None,
        first_year=_after(card, saving, 12),
        three_years=_after(card, saving, 36),
        spent=spent,
    )


def _after(card: RateCard, saving: int, months: int) -> int:
    """What is left over after so many months: what wore out in between was sold and bought again."""
    span = months * MONTH
    bought, sold = -(-span // card.life_us), span // card.life_us
    return months * saving - bought * card.purchase + sold * card.residual_value


def _figures(card: RateCard, volume: Volume, base: Case, life: Fraction) -> Iterable[Figure]:
    busy = base.utilisation / MICRO
    month = period_cost(card, MONTH, MONTH * base.utilisation // MICRO)
    energy = month.energy_busy + month.energy_idle
    yield Figure("api_month", base.api, "pico-dollars", volume.how)
    yield Figure(
        "running_month", base.running, "pico-dollars",
        f"at {busy:.0%} busy: energy {dollars(energy)} + rent {dollars(month.rent)} + staff {dollars(month.staff)}"
        f" + interest {dollars(month.financing)}",
    )  # fmt: skip
    yield Figure("saving_month", base.saving, "pico-dollars", f"{dollars(base.api)} - {dollars(base.running)}")
    yield Figure("purchase", card.purchase, "pico-dollars", "as stated")
    yield Figure(
        "payback_months", None if base.payback is None else round(float(base.payback), 2), "months",
        "nothing is saved" if base.payback is None else f"{dollars(card.purchase)} / {dollars(base.saving)}",
    )  # fmt: skip
    yield Figure("life_months", round(float(life), 2), "months", "as stated; after it the hardware is sold")
    yield Figure("first_year", base.first_year, "pico-dollars", _after_words(card, base, 12))
    yield Figure("three_years", base.three_years, "pico-dollars", _after_words(card, base, 36))
    yield Figure(
        "loaded_month", month.total, "pico-dollars",
        f"running {dollars(base.running)} + depreciation {dollars(month.depreciation)}",
    )  # fmt: skip
    for name, cost, what in (("api_per_million", base.api, "API"), ("own_per_million", month.total, "fully loaded")):
        if volume.tokens:
            words = f"{what} {dollars(cost)} a month / {volume.tokens / MILLION:,.3f}M tokens"
            yield Figure(name, cost * MILLION // volume.tokens, "pico-dollars per million tokens", words)
        else:
            yield Figure(name, None, "pico-dollars per million tokens", "the tokens of a month are not known")


def _rent_figures(card: RateCard, base: Case, rented: int) -> Iterable[Figure]:
    """Buying against renting the same hardware."""
    month = rented + card.staff
    staff = f" + staff {dollars(card.staff)}" if card.staff else ""
    yield Figure("rent_month", month, "pico-dollars", f"rented {dollars(rented)}{staff}")
    ahead = month - base.running
    yield Figure(
        "buy_over_rent_months", round(card.purchase / ahead, 2) if ahead > 0 else None, "months",
        f"{dollars(card.purchase)} / ({dollars(month)} - {dollars(base.running)})" if ahead > 0
        else "running it costs as much as the rent",
    )  # fmt: skip
    for way in ("api", "rent", "buy"):
        words = {
            "api": f"36 x {dollars(base.api)}", "rent": f"36 x {dollars(month)}",
            "buy": f"36 x {dollars(base.running)} and the purchases",
        }  # fmt: skip
        yield Figure(f"{way}_three_years", base.spent[way], "pico-dollars", words[way])


def _implied(card: RateCard, volume: Volume, base: Case, dearest: tuple[str, int] | None) -> Iterable[str]:
    """A stated cost that the stated tokens cannot have: what does follow."""
    if dearest is None or not volume.tokens or base.api <= volume.tokens * dearest[1]:
        return
    name, each = dearest
    most = volume.tokens * each
    saving = most - base.running
    then = f"pays back in {float(Fraction(card.purchase, saving)):,.1f} months" if saving > 0 else "never pays back"
    yield (
        f"the stated API cost is {dollars(base.api * MILLION // volume.tokens)} for a million tokens, and the dearest of the price "
        f"list, {name}, costs {dollars(each * MILLION)}: at most {dollars(most)} a month for these tokens, with which it {then}"
    )


def _after_words(card: RateCard, base: Case, months: int) -> str:
    span = months * MONTH
    bought, sold = -(-span // card.life_us), span // card.life_us
    times = f"{bought} x " if bought > 1 else ""
    back = f" + {sold} x {dollars(card.residual_value)} for the old" if sold and card.residual else ""
    return f"{months} x {dollars(base.saving)} - {times}{dollars(card.purchase)}{back}"


def _notes(card: RateCard, volume: Volume) -> Iterable[str]:
    yield from volume.notes
    if not volume.api:
        yield "the volume costs nothing at the API, so nothing can be saved"
    if not (card.watts_load and card.kwh):
        yield "no power is counted: give watts and the price of a kilowatt-hour, unless the rent includes it"
    if not card.staff:
        yield "no staff is counted"
    yield "whether the hardware can answer this volume, and as well as the API, is not judged here"


# --- for people and scripts --------------------------------------------------------------------------------

_TITLES = {
    "api_month": "API, a month", "running_month": "running own, a month", "saving_month": "saved, a month",
    "purchase": "purchase", "payback_months": "payback", "life_months": "life", "first_year": "after the first year",
    "three_years": "after three years", "loaded_month": "fully loaded, a month", "api_per_million": "API, 1M tokens",
    "own_per_million": "own, 1M tokens", "rent_month": "rented, a month", "buy_over_rent_months": "payback over renting",
    "api_three_years": "three years of API", "rent_three_years": "three years rented", "buy_three_years": "three years owned",
}  # fmt: skip


def plan_words(found: Plan) -> str:
    """Figures with how they were computed, what they depend on, and the answer."""
    busies = list(dict.fromkeys(case.utilisation for case in found.cases))
    rows = [(_TITLES[figure.name], _shown(figure), figure.how) for figure in found.figures]
    lines = [
        table(("figure", "value", "how"), rows, numbers=False),
        "",
        "payback in months, by utilisation and API prices",
    ]
    head = ("busy", *(f"API {change / MICRO:+.0%}" if change else "API as now" for change in API_CHANGES))
    body = [
        (f"{busy / MICRO:.0%}", *(_months(case.payback) for case in found.cases if case.utilisation == busy))
        for busy in busies
    ]
    lines += [table(head, body), "", "left over after three years, by utilisation and API prices"]
    body = [
        (f"{busy / MICRO:.0%}", *(dollars(case.three_years) for case in found.cases if case.utilisation == busy))
        for busy in busies
    ]
    lines += [table(head, body), ""]
    if "rent" in found.base.spent:
        body = [
            (f"{busy / MICRO:.0%}", *(case.cheapest for case in found.cases if case.utilisation == busy))
            for busy in busies
        ]
        lines += ["cheapest over three years, by utilisation and API prices", table(head, body), ""]
    lines.append(verdict(found))
    return "\n".join([*lines, *(f"note: {note}" for note in found.notes)])


def verdict(found: Plan) -> str:
    """The answer in one line."""
    life = next(figure.value for figure in found.figures if figure.name == "life_months")
    if found.base.payback is None:
        return "it does not pay back: running it costs as much as the API, or more"
    where = "within" if found.pays else "after"
    words = f"it pays back in {_months(found.base.payback)} months, {where} its life of {life:g}"
    way = {"api": "the API", "buy": "buying", "rent": "renting"}[found.base.cheapest]
    return f"{words}; over three years {way} is cheapest" if "rent" in found.base.spent else words


def _months(payback: Fraction | None) -> str:
    return "never" if payback is None else f"{float(payback):,.1f}"


def _shown(figure: Figure) -> str:
    if figure.value is None:
        return "never" if figure.unit == "months" else "not known"
    return f"{figure.value:,.1f} months" if figure.unit == "months" else dollars(int(figure.value))


def plan_rows(found: Plan) -> dict[str, Any]:
    """For scripts: amounts are pico-dollars."""
    return {
        "pays_back": found.pays,
        "utilisation": found.base.utilisation / MICRO,
        "figures": {
            figure.name: {"value": figure.value, "unit": figure.unit, "how": figure.how} for figure in found.figures
        },
        "sensitivity": [
            {
                "utilisation": case.utilisation / MICRO,
                "api_change": case.api_change / MICRO,
                "api_month": case.api,
                "running_month": case.running,
                "payback_months": None if case.payback is None else round(float(case.payback), 2),
                "first_year": case.first_year,
                "three_years": case.three_years,
                "spent_three_years": case.spent,
                "cheapest": case.cheapest,
            }
            for case in found.cases
        ],
        "notes": found.notes,
    }
