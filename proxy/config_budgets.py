"""From the budgets of a configuration to those that are kept; and what can be wrong with them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from policies.budgets import REQUESTS, TOKENS, USD
from policies.scopes import LEVELS, UNITS, WHOLE, Budget
from policies.windows import CALENDAR
from proxy import quantities
from proxy.config_errors import Location, nearest
from proxy.quantities import Wrong

if TYPE_CHECKING:
    from proxy.config import Settings
    from proxy.config_parts import BudgetPart

SHORTEST = 60
LONGEST = 366 * 86_400
"""Seconds of a rolling window."""
_NAMED = re.compile(rf"(?:{'|'.join(LEVELS)})/[^|#%\x00-\x20\x7f]{{1,200}}")
EXPERIMENT = "experiment:"
"""Begins the project, and the key, that an experiment's copies are charged to."""
PSEUDONYM = re.compile("[0-9a-f]{16}")
_EACH = re.compile(rf"each (?:{'|'.join(LEVELS)})")


def scope(value: Any) -> str:
    """`org`, `team/oncology` or `each key`; raises `Wrong`."""
    text = value.strip() if isinstance(value, str) else ""
    level, slash, name = text.partition("/")
    if slash and name == "*" and level in LEVELS:
        raise Wrong("a limit for every one of a level is written with each", f"write each {level}")
    if text == WHOLE or _EACH.fullmatch(text) or _NAMED.fullmatch(text):
        return text
    wrong = f"must be {WHOLE}, LEVEL/NAME or each LEVEL, where LEVEL is {', '.join(LEVELS)}"
    raise Wrong(wrong, "such as org, team/oncology or each key")


def window(value: Any) -> str:
    """The kind of `month` ... `minute`, or of `rolling 24h` (`r86400`); raises `Wrong`."""
    text = value.strip() if isinstance(value, str) else ""
    if text in CALENDAR or re.fullmatch(r"r[0-9]{1,9}", text):
        return text
    wrong = f"must be {', '.join(CALENDAR)}, or rolling and a duration"
    if not text.startswith("rolling "):
        near = nearest(text, CALENDAR) if re.fullmatch("[a-zA-Z]{1,9}", text) else ""
        raise Wrong(wrong, near if near.startswith("did") else "such as month, or rolling 24h")
    try:
        seconds = quantities.duration(text.removeprefix("rolling ").strip())
    except Wrong:
        raise Wrong(wrong, "such as rolling 24h") from None
    if seconds != int(seconds) or not SHORTEST <= seconds <= LONGEST:
        raise Wrong("a rolling window is from 60s to 366d long", "such as rolling 24h")
    return f"r{int(seconds)}"


def percent(value: Any) -> Any:
    """Whole percent of `80%`, or `forecast`; raises `Wrong`."""
    if value == "forecast" or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    share = quantities.share(value) * 100
    if share != int(share) or share < 1:
        raise Wrong("a threshold is a whole share from 1% to 100%, or forecast", "such as 80%")
    return int(share)


def budgets_of(settings: Settings) -> list[Budget]:
    """Every limit of the configuration, one for each unit; what copies for experiments may cost is one, too."""
    caps = [
        Budget(f"project/{EXPERIMENT}{part.name}", "month", part.shadow.cap)
        for part in settings.experiments
        if part.shadow is not None and part.shadow.cap is not None
    ]
    return [*(budget for part in settings.budgets for budget in _limits(part)), *caps]


def _limits(part: BudgetPart) -> list[Budget]:
    downgrade = () if isinstance(part.at_limit, str) else part.at_limit.downgrade
    zone = None if part.zone == "UTC" else ZoneInfo(part.zone)
    made = []
    for unit, limit in ((USD, part.limit), (TOKENS, part.tokens), (REQUESTS, part.requests)):
        if limit is None:
            continue
        made.append(
            Budget(
                part.scope,
                part.window,
                limit,
                unit,
                everywhere=unit != USD and part.count != "cloud",
                at_limit=part.at_limit if isinstance(part.at_limit, str) else "downgrade",
                instead=downgrade,
                soft=tuple([one for one in part.soft if isinstance(one, int)]),
                forecast="forecast" in part.soft,
                zone=zone,
            )
        )
    return made


def problems(
    settings: Settings, target: Callable[[str], tuple[str, str] | None]
) -> Iterator[tuple[Location, str, str]]:
    """What parts of the budgets say against each other; `target` says what is wrong with a target's name."""
    seen: set[tuple[str, int, bool, str]] = set()
    for index, part in enumerate(settings.budgets):
        path: Location = ("budgets", index)
        if part.limit is None and part.tokens is None and part.requests is None:
            yield path, "limits nothing", "give limit: $2000, or tokens or requests"
        if part.count == "all" and part.limit is not None:
            yield (*path, "count"), "a limit in dollars counts cloud attempts only", "leave it out"
        if part.scope.startswith("user/") and not PSEUDONYM.fullmatch(part.scope[5:]):
            hint = "as the log names them, such as user/3f0a5c7d9e1b2a4c; or each user"
            yield (*path, "scope"), "users are known by their pseudonyms only", hint
        if part.zone != "UTC" and not _is_zone(part.zone):
            yield (
                (*path, "zone"),
                "is no time zone that this host knows",
                nearest(part.zone, sorted(available_timezones())),
            )
            continue
        for budget in _limits(part):
            key = (budget.scope, budget.unit, budget.everywhere, budget.window)
            if key in seen:
                yield path, "limits what an earlier one does", "one limit for a scope, a window and a unit"
            seen.add(key)
        yield from _at_limit(path, part)
        if not isinstance(part.at_limit, str):
            for position, name in enumerate(part.at_limit.downgrade):
                wrong = target(name)
                if wrong is not None:
                    yield ((*path, "at_limit", "downgrade", position), *wrong)
        if "forecast" in part.soft and part.window.startswith("r"):
            yield (*path, "soft"), "a rolling window has no end to forecast", "leave forecast out"


def _at_limit(path: Location, part: BudgetPart) -> Iterator[tuple[Location, str, str]]:
    counted = part.tokens is not None or part.requests is not None
    if part.at_limit == "local_only" and counted and part.count != "cloud":
        yield (*path, "at_limit"), "local attempts count here as well, so none would be left", "give count: cloud"
    if not isinstance(part.at_limit, str):
        if counted:
            yield (
                (*path, "at_limit"),
                "a cheaper model needs as many tokens and requests",
                "downgrade is for limit: $...",
            )
        if not part.at_limit.downgrade:
            yield (*path, "at_limit", "downgrade"), "names no target", "such as [openai/gpt-4o-mini]"


def words_of(budget: Budget, window_words: str, amount: str) -> str:
    """A budget in words, for `check --explain`."""
    whose = (
        "the whole deployment"
        if budget.scope == WHOLE
        else budget.scope
        if budget.is_each
        else f"{budget.level} {budget.scope.partition('/')[2]}"
    )
    what = "attempts" if budget.everywhere else "cloud attempts"
    ending = {
        "refuse": "then they are refused",
        "local_only": "then only local engines answer",
        "downgrade": f"then {', '.join(budget.instead)} answers instead, while that still fits",
    }[budget.at_limit]
    told = [f"{one}%" for one in budget.soft] + (["a forecast past the limit"] if budget.forecast else [])
    alerts = f"; alerts at {', '.join(told)}" if told else ""
    zone = f" ({budget.zone})" if budget.zone is not None else ""
    kind = "rate limit" if budget.is_rate else "budget"
    when = (
        f"in any {window_words.removeprefix('rolling ')}" if window_words.startswith("rolling") else f"a {window_words}"
    )
    return f"{kind}: {what} of {whose} stop at {amount} {when}{zone}, {ending}{alerts}"


def amount_words(unit: int, amount: int) -> str:
    """An amount in its unit: $12.50, 2,000 tokens."""
    if unit == USD:
        return f"${amount / 10**12:,.2f}"
    return f"{amount:,} {UNITS[unit]}"


def _is_zone(name: str) -> bool:
    """Is this a time zone that the host knows?"""
    try:
        ZoneInfo(name)
    except (ValueError, OSError, ZoneInfoNotFoundError):  # no name at all, a directory, or no such zone
        return False
    return True
