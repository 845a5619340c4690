"""What commands ask of the ledger's file: spend reports over a period, its months, and how requests went.

One object for one command: the ledger open, the configuration's rate cards and the price list at hand, the clock read once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, date, timedelta, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct

from engines.ratecard import RateCard, period_cost
from proxy.finance import Against, Corrected, Report, busy_times, report
from proxy.forecast import LOOK_BACK, Forecast, forecast
from proxy.meaning import card_of
from proxy.periods import DAY, day_of, midnight, months, period, zone_over
from proxy.prices import finder, listed_name, overrides, shipped
from proxy.projections.ledger import Ledger
from proxy.projections.sums import Traffic

if TYPE_CHECKING:
    from engines.rates import Price
    from proxy.config import Settings

T = TypeVar("T")


class Month(Struct, frozen=True):
    """What a calendar month cost; `whole`: it lies in the ledger from its begin to its end."""

    name: str
    api: int
    own: int
    whole: bool

    @property
    def spent(self) -> int:
        return self.api + self.own


class Books:
    """A ledger that is read.  Amounts are pico-dollars, times microseconds since the epoch."""

    def __init__(
        self,
        path: Path,
        settings: Settings,
        *,
        now: int,
        zone: tzinfo = UTC,
        zone_name: str = "UTC",
        against: Against | None = None,
    ) -> None:
        self._ledger = Ledger(path)
        self.now = now
        self.zone = zone
        self._zone_name = zone_name
        self.against = against
        self.cards: dict[str, RateCard] = {
            name: card_of(engine.cost) for name, engine in settings.engines.items() if engine.cost is not None
        }
        self._busy: dict[tuple[int, int], dict[str, int]] = {}
        self.since = self._ledger.since()

    def close(self) -> None:
        self._ledger.close()

    def span(self, window: str | None, first: str | None, last: str | None) -> tuple[int, int]:
        """The period that was asked for; raises `proxy.quantities.Wrong`."""
        return period(window, first, last, since=self.since, now=self.now, zone=self.zone)

    def report(self, by: Sequence[str], span: tuple[int, int], *, month: Forecast | None = None) -> Report:
        """What was spent in a period, by these dimensions."""
        against = self.against
        cuts = [midnight(day) for day in against.changes] if against is not None else []
        sums = self._ledger.sums(
            by, *span, cuts=cuts, zone=zone_over(self.zone, *span),
            speeds={name: card.prompt_speed for name, card in self.cards.items()}, above=against.above if against else 0,
        )  # fmt: skip
        corrections = [
            Corrected(row["vendor"], row["model"], row["amount"], row["cause"])
            for row in self._ledger.corrections(*span)
        ]
        return report(
            by,
            span,
            sums,
            self.busy(span),
            self.cards,
            against,
            zone=self._zone_name,
            forecast=month,
            corrections=corrections,
            known_from=self.since or 0,
        )

    def busy(self, span: tuple[int, int]) -> dict[str, int]:
        """How long each engine had an attempt in a period."""
        if span not in self._busy:
            self._busy[span] = busy_times(self._ledger.intervals(*span)) if self.cards else {}
        return self._busy[span]

    def ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """What a question of `proxy.projections.trials` finds in the ledger."""
        return self._ledger.ask(question)

    def traffic(self, span: tuple[int, int]) -> Traffic:
        return self._ledger.traffic(*span)

    def forecast(self) -> Forecast | str:
        """What this calendar month will have cost, or why that cannot be said."""
        if self.since is None:
            return "no forecast: the ledger is empty"
        today = day_of(self.now, self.zone)
        ((begin, end),) = months(self.now, self.now + 1, self.zone)
        tomorrow = midnight((today + timedelta(days=1)).isoformat(), self.zone)
        first = max(day_of(self.since, self.zone) + timedelta(days=1), today - timedelta(days=LOOK_BACK))
        seen = (midnight(first.isoformat(), self.zone), midnight(today.isoformat(), self.zone))
        daily = {first + timedelta(days=ahead): 0 for ahead in range((today - first).days)}
        for line in self._days(seen) if daily else ():
            daily[line[0]] = line[1]
        own_spent, own_month = self._own(max(begin, min(self.since, self.now)), end)
        return forecast(
            daily, today, (tomorrow - self.now) / DAY, day_of(end - 1, self.zone),
            api=sum(amount for _, amount in self._days((begin, self.now))), own_spent=own_spent, own_month=own_month,
        )  # fmt: skip

    def months(self, span: tuple[int, int]) -> list[Month]:
        """Each calendar month of a period: API as billed, own pools by the rate card."""
        found = []
        for begin, end in months(*span, self.zone) if self.since is not None else []:
            inside = (max(begin, span[0]), min(end, span[1]))
            busy = self.busy(inside)
            own = sum(
                period_cost(card, inside[1] - inside[0], busy.get(name, 0)).total for name, card in self.cards.items()
            )
            api = sum(amount for _, amount in self._days(inside))
            found.append(Month(day_of(begin, self.zone).strftime("%Y-%m"), api, own, inside == (begin, end)))
        return found

    def _days(self, span: tuple[int, int]) -> list[tuple[date, int]]:
        """(day, API spend) of a period, where there was any traffic."""
        return [(date.fromisoformat(day), cost) for day, cost in self._ledger.daily(*span, zone_over(self.zone, *span))]

    def _own(self, since: int, end: int) -> tuple[int, int]:
        """What pools cost from `since` until now, and what they will until the month's end if they stay as busy."""
        spent = whole = 0
        length = self.now - since
        busy = self.busy((since, self.now))
        for name, card in self.cards.items():
            share = busy.get(name, 0)
            spent += period_cost(card, length, share).total
            whole += period_cost(card, end - since, share * (end - since) // length if length else 0).total
        return spent, whole


def counterfactual(settings: Settings, name: str) -> Against | None:
    """The price that local answers are compared with: of a target of the configuration, or of a model of the shipped list,
    named kind/model.  None: it has none."""
    listed = listed_name(settings, name)
    own = [row for row in overrides(settings) if row.model == name]
    rows = own or [row for row in shipped() if row.model == listed]
    if not rows:
        return None
    find = finder(settings)

    def on(day: str) -> Price | None:
        return find(name, day)

    changes = sorted({row.since for row in [*own, *(row for row in shipped() if row.model == listed)] if row.since})
    thresholds = [row.long_above for row in rows if row.long is not None]
    newest = max(rows, key=lambda row: row.since)
    where = "the configuration" if own else newest.source
    return Against(name, on, tuple(changes), min(thresholds, default=0), f" (prices of {where})")
