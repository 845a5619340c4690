"""Who is calling -> the accounts that an attempt is charged to.  Pure.

Budgets are declared for one scope (`org`: the whole deployment; `team/oncology`) or for each of a level (`each key`).
The levels lie in one hierarchy, organisation > team > project > key > user, and an attempt is charged to every
budget that its caller comes under: its chain.  For one level, unit and window a budget for a scope by name takes the
place of the one for each.

An account's name holds the organisation where that is not `default`, so that teams of one name in two organisations
have an account each: `acme:team/oncology`.  What callers' names hold is escaped as in URLs where it would be taken
for structure.  The unit follows `#`, and `-all` where local attempts count as well: `key/k_12#requests-all`.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from urllib.parse import quote, unquote

from msgspec import Struct

from policies.budgets import REQUESTS, TOKENS, USD
from policies.windows import kind_of, seconds_of

LEVELS = ("organisation", "team", "project", "key", "user")
DEFAULT = "default"
"""The organisation of keys that name none."""
WHOLE = "org"
UNITS = ("usd", "tokens", "requests")
"""By their place in `policies.budgets.Amounts`."""
RATE = 3600.0
"""Seconds: a count in a window up to this long is a rate limit (429 `rate_limited`), not a budget."""
_SAFE = "!$&'()*+,-./:;<=>?@[]^_`{}~"


class Who(Struct, frozen=True):
    """The caller.  `user` is a pseudonym; "" on any level: not known, so no budget of that level holds."""

    organisation: str = DEFAULT
    team: str = ""
    project: str = ""
    key: str = ""
    user: str = ""
    key_name: str = ""


class Budget(Struct, frozen=True):
    """One limit as declared.  `limit` is in its unit: pico-dollars, tokens or requests."""

    scope: str  # org, LEVEL/NAME, each LEVEL
    window: str  # month, week, day, hour, minute, or r86400 (rolling, in seconds)
    limit: int
    unit: int = USD
    everywhere: bool = False  # local attempts count, too
    at_limit: str = "refuse"  # refuse, downgrade, local_only
    instead: tuple[str, ...] = ()  # cheaper targets, for downgrade
    soft: tuple[int, ...] = ()  # percent of the limit at which somebody is told
    forecast: bool = False  # tell when the window's end is forecast to pass the limit
    zone: datetime.tzinfo | None = None

    @property
    def level(self) -> str:
        """organisation ... user, or `org`."""
        return self.scope.removeprefix("each ").partition("/")[0]

    @property
    def is_each(self) -> bool:
        return self.scope.startswith("each ")

    @property
    def is_rate(self) -> bool:
        return self.unit != USD and seconds_of(self.window) <= RATE

    @property
    def suffix(self) -> str:
        """What follows the scope in the account's name."""
        if self.unit == USD:
            return ""
        return f"#{UNITS[self.unit]}{'-all' if self.everywhere else ''}"


def chain_of(budgets: Sequence[Budget], who: Who) -> list[tuple[str, Budget]]:
    """(account's name, budget) of all that a caller comes under, in the order of the hierarchy."""
    found: dict[tuple[str, int, bool, str], tuple[str, Budget]] = {}
    for budget in sorted(budgets, key=_rank):  # by name before each
        kind = (budget.level, budget.unit, budget.everywhere, budget.window)
        if kind not in found and (name := name_of(budget, who)) is not None:
            found[kind] = (name, budget)
    return list(found.values())


def name_of(budget: Budget, who: Who) -> str | None:
    """The account that a caller's attempts are charged to under a budget; None: it is not about them."""
    level = budget.level
    if level == WHOLE:
        return WHOLE + budget.suffix
    value: str = getattr(who, level)
    if budget.is_each:
        if not value:
            return None
    else:
        wanted = budget.scope.partition("/")[2]
        if wanted != value and not (level == "key" and wanted == who.key_name):
            return None
        value = wanted
    name = f"{level}/{quote(value, safe=_SAFE)}{budget.suffix}"
    if who.organisation in ("", DEFAULT) or level == "organisation":
        return name
    return f"{_organisation(who.organisation)}:{name}"


def root_of(name: str) -> str:
    """The organisation whose account this is; "" for the whole deployment's."""
    first, slash, rest = name.partition("/")
    if not slash:
        return ""
    organisation, colon, _ = first.partition(":")
    if colon:
        return organisation
    return _organisation(unquote(rest.partition("#")[0])) if first == "organisation" else DEFAULT


def unit_of(name: str) -> int:
    """The unit of an account, from its name."""
    unit = name.partition("#")[2]
    return TOKENS if unit.startswith("tokens") else REQUESTS if unit.startswith("requests") else USD


def counts_local(name: str) -> bool:
    """Do local attempts count on this account?"""
    return name.endswith("-all") and "#" in name


def key_of(account: tuple[str, str]) -> str:
    """What an operator's override of a limit goes by: the same in every window."""
    return f"{account[0]}|{kind_of(account[1])}"


def _organisation(name: str) -> str:
    return quote(name, safe="!$&'()*+,-.;<=>?@[]^_`{}~")


def _rank(budget: Budget) -> tuple[int, bool]:
    return (0 if budget.level == WHOLE else 1 + LEVELS.index(budget.level)), budget.is_each


def matching(budgets: Sequence[Budget], scope: str) -> list[Budget]:
    """The budgets that an account's name, without its unit, comes under: those by name before those for each."""
    plain = scope.partition("/")
    level = plain[0].rpartition(":")[2] if plain[1] else plain[0]
    wanted = unquote(f"{level}/{plain[2]}" if plain[1] else level)
    found = [budget for budget in budgets if budget.level == level and (budget.is_each or budget.scope == wanted)]
    named = {(budget.unit, budget.everywhere, budget.window) for budget in found if not budget.is_each}
    return [one for one in found if not one.is_each or (one.unit, one.everywhere, one.window) not in named]
