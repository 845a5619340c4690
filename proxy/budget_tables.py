"""How budgets stand, for people and for scripts.  Pure: the figures come in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from policies.budgets import USD, Account
from policies.scopes import LEVELS, UNITS, WHOLE, Budget, Who, key_of, matching, name_of
from policies.thresholds import forecast
from policies.windows import Window, window_at, words_of
from proxy.config_budgets import amount_words
from proxy.meaning import dollars, table

BAR = 16
"""Characters of a bar."""


class Standing(Struct, frozen=True):
    """One account in its window of now.  Amounts are in the budget's unit."""

    name: str
    budget: Budget
    window: Window
    limit: int
    overridden: bool
    settled: int
    held: int
    ahead: int | None  # forecast for the window's end; None: too early to say, or rolling

    @property
    def left(self) -> int:
        return max(0, self.limit - self.settled - self.held)


class Past(Struct, frozen=True):
    """One window that is over, or the one of now, as the ledger has it."""

    window: str
    begins: int
    ends: int
    attempts: int
    spent: int
    limit: int


def windows_of(budgets: Iterable[Budget], now: float) -> set[str]:
    """The windows of now, with the earlier buckets of rolling ones."""
    found = [window_at(budget.window, now, budget.zone) for budget in budgets]
    return {name for window in found for name in (window.id, *window.earlier)}


def standings(
    budgets: Sequence[Budget], figures: Mapping[Account, tuple[int, int]], overrides: Mapping[str, int], now: float
) -> list[Standing]:
    """Every account that is known in its window of now, and every budget by name, the fullest last within its level."""
    found = []
    for budget in budgets:
        window = window_at(budget.window, now, budget.zone)
        known = [name for name, one in figures if one in (window.id, *window.earlier)]
        known += [name for name, _, kind in (what.rpartition("|") for what in overrides) if kind == budget.window]
        names = {name for name in known if _is_of(budgets, budget, name)}
        if not names and not budget.is_each:
            names = {budget.scope + budget.suffix}
        for name in sorted(names):
            parts = [figures.get((name, one), (0, 0)) for one in (window.id, *window.earlier)]
            settled, held = sum([part[0] for part in parts]), sum([part[1] for part in parts])
            what = key_of((name, window.id))
            limit = overrides.get(what, budget.limit)
            ahead = None if window.earlier else forecast(settled, window.start, window.end, now)
            found.append(Standing(name, budget, window, limit, what in overrides, settled, held, ahead))
    order = (WHOLE, *LEVELS)
    return sorted(found, key=lambda one: (order.index(one.budget.level), -_share(one), one.name, one.budget.window))


def _is_of(budgets: Sequence[Budget], budget: Budget, name: str) -> bool:
    scope, _, unit = name.partition("#")
    return budget.suffix.removeprefix("#") == unit and budget in matching(budgets, scope)


def standings_table(rows: Sequence[Standing]) -> str:
    """Columns that line up, with a bar of what is spent (#) and held (-)."""
    head = ["scope", "window", "", "spent", "held", "left", "limit", "used", "forecast", "at the limit"]
    body = []
    for row in rows:
        unit = row.budget.unit
        amounts = [_amount(unit, one) for one in (row.settled, row.held, row.left)]
        limit = _amount(unit, row.limit) + ("*" if row.overridden else "")
        ahead = "" if row.ahead is None else _amount(unit, row.ahead)
        used = f"{_share(row):.0%}"
        body.append([_scope(row.name), _window(row), bar(row), *amounts, limit, used, ahead, row.budget.at_limit])
    lines = [table(head, body, names=3)]
    if any(row.overridden for row in rows):
        lines.append("* set with `spillway budget set`; --clear takes it back")
    return "\n".join(lines)


def bar(row: Standing) -> str:
    """`[#####---        ]`: what is spent, what is held for requests and workers, what is left."""
    if row.limit <= 0:
        return f"[{'#' * BAR}]"
    spent = min(BAR, row.settled * BAR // row.limit)
    both = min(BAR, -(-(row.settled + row.held) * BAR // row.limit))
    return f"[{'#' * spent}{'-' * (both - spent)}{' ' * (BAR - both)}]"


def standings_rows(rows: Sequence[Standing]) -> list[dict[str, Any]]:
    """For scripts: money in pico-dollars."""
    return [
        {
            "account": row.name,
            "scope": _scope(row.name),
            "unit": UNITS[row.budget.unit],
            "counts": "all" if row.budget.everywhere else "cloud",
            "window": row.window.id,
            "kind": words_of(row.budget.window),
            "begins": int(row.window.start),
            "ends": int(row.window.end),
            "limit": row.limit,
            "overridden": row.overridden,
            "spent": row.settled,
            "held": row.held,
            "left": row.left,
            "forecast": row.ahead,
            "at_limit": row.budget.at_limit,
        }
        for row in rows
    ]


def history(
    lines: Iterable[Mapping[str, Any]], budget: Budget, name: str, key_names: Mapping[str, str], limit: int
) -> dict[str, Past]:
    """What was charged to an account, by window, from the ledger's lines.

    An attempt counts in the window in which it ended, so figures may differ at a window's edge from those that were
    settled: there it counts when it was reserved.
    """
    found: dict[str, Past] = {}
    requests: set[tuple[str, str]] = set()
    window: Window | None = None
    for line in lines:
        at = line["at"] / 1e6
        if window is None or not window.start <= at < window.end:
            window = _whole(budget, at)
        if line["boundary"] == "local" and not budget.everywhere:
            continue
        key = line["key"]
        who = Who(line["organisation"], line["team"], line["project"], key, line["user"], key_names.get(key, ""))
        if name_of(budget, who) != name:
            continue
        amount = 1
        if budget.unit == USD:
            amount = line["cost"]
        elif UNITS[budget.unit] == "tokens":
            meters = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output")
            amount = sum([line[meter] for meter in meters])
        elif (line["request"], window.id) in requests:
            amount = 0
        else:
            requests.add((line["request"], window.id))
        past = found.get(window.id) or Past(window.id, int(window.start), int(window.end), 0, 0, limit)
        found[window.id] = Past(past.window, past.begins, past.ends, past.attempts + 1, past.spent + amount, past.limit)
    return found


def _whole(budget: Budget, at: float) -> Window:
    """A calendar window, or a stretch as long as a rolling one."""
    if not budget.window.startswith("r"):
        return window_at(budget.window, at, budget.zone)
    length = int(budget.window[1:])
    number = int(at // length)
    name = datetime.fromtimestamp(number * length, UTC).strftime("%Y-%m-%dT%H:%M")
    return Window(name, number * length, (number + 1) * length)


def history_table(rows: Sequence[Past], unit: int) -> str:
    """The newest last."""
    body = [
        [
            row.window,
            f"[{'#' * min(BAR, row.spent * BAR // row.limit if row.limit > 0 else BAR):<{BAR}}]",
            f"{row.attempts:,}",
            _amount(unit, row.spent),
            f"{row.spent / row.limit:.0%}" if row.limit > 0 else "",
        ]
        for row in rows
    ]
    return table(["window", "", "attempts", "spent", "of today's limit"], body, names=2)


def _share(row: Standing) -> float:
    return (row.settled + row.held) / row.limit if row.limit > 0 else 1.0


def _scope(name: str) -> str:
    return name.partition("#")[0]


def _window(row: Standing) -> str:
    zone = "" if row.budget.zone is None else f" {row.budget.zone}"
    unit = "" if row.budget.unit == USD else f" {UNITS[row.budget.unit]}"
    kind = words_of(row.budget.window)
    name = "" if row.window.earlier else f" {row.window.id}"
    return f"{kind}{name}{zone}{unit}"


def _amount(unit: int, amount: int) -> str:
    return dollars(amount) if unit == USD else f"{amount:,}"


def amount_of(budget: Budget, amount: int) -> str:
    """An amount of a budget in words."""
    return amount_words(budget.unit, amount)
