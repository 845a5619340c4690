"""What an attempt may cost, and what it did: prices, reservations and settlements of one worker."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from msgspec.structs import replace

from compliance.model import LOCAL
from engines.kinds import kind
from engines.model import Operation, Request, Target, Usage
from engines.rates import (
    ADDED_TOKENS,
    LOCAL_PRICE,
    Price,
    PriceList,
    Rate,
    charge,
    has_rates,
    rates,
    tier_of,
    upper_bound,
)
from policies.budgets import TOKENS, USD
from policies.scopes import UNITS
from policies.slices import Hold
from policies.windows import words_of
from proxy.counts import NOT_COUNTED, Counts
from proxy.errors import Refusal
from proxy.estimates import IMAGE_TOKENS, final_usage, images, used
from proxy.exchange import Attempt, Exchange
from proxy.ratelimits import ratelimit_headers
from proxy.session import Session
from proxy.state.charges import NOTHING, scope_labels, tokens_of
from proxy.state.leases import BudgetExceeded, BudgetUnavailable, Leases

DEFAULT_MAX_OUTPUT = 128_000
"""Tokens that a model whose maximum is not known may write, for the bound of a reservation."""
MAX_RATES = 4_096
"""Prices and tiers whose rates are kept at hand."""
_EXTRA_METERS = frozenset({"server_tools"})
"""Billed by meters that the price list does not have."""
_OTHERWISE_BILLED = frozenset(
    {"inference_geo", "prediction", "web_search_options", "speed", "service_tier", "modalities"}
)
"""Fields of a request that `_covers` looks at."""
_OTHER_NEEDS = _EXTRA_METERS | {"audio"}


class OutOfBudget(Exception):
    """A candidate fell out because what it can cost could not be reserved.

    `spent` is the account that lacked it; None: the store could not be asked, or there is no price.
    """

    def __init__(self, code: str, words: str, spent: BudgetExceeded | None = None) -> None:
        super().__init__(words)
        self.code = code
        self.words = words
        self.spent = spent

    @property
    def everywhere(self) -> bool:
        """It is a limit on local attempts as well: it says no to the request, and must not spill it to an engine that is paid."""
        return self.spent is not None and self.spent.budget.everywhere

    def refusal(self, dialect: str = "openai") -> Refusal:
        """What the client is told, in headers of its dialect where it was a rate limit."""
        retry_after: float | None = 5 if self.code == "budget_unavailable" else None
        if self.spent is None or self.code != "rate_limited":
            return Refusal(self.code, self.words, retry_after=retry_after)
        spent, now = self.spent, time.time()
        wait = 1.0 if spent.soon else max(1.0, spent.end - now)
        found = ratelimit_headers(dialect, UNITS[spent.budget.unit], spent.limit, spent.left or 0, wait, now)
        return Refusal(self.code, self.words, retry_after=math.ceil(wait), headers=found)


class Spending:
    """Prices by target, and the worker's leases.  Without a budget nothing is reserved, but all is priced."""

    def __init__(
        self,
        prices: PriceList,
        leases: Leases | None,
        overrides: PriceList,
        unpriced: Price | None,
    ) -> None:
        self._prices = prices
        self._leases = leases
        self._overrides = overrides  # by target: engine/model
        self._unpriced = unpriced  # what the operator charges for models without a price
        self.counts_local = leases is not None and leases.counts_local  # local attempts are reserved for, too
        self._found: dict[str, Price | None] = {}
        self._bounds: dict[tuple[int, str, bool, bool], tuple[int, int, Price]] = {}  # by a price that they keep alive
        self._rates: dict[tuple[int, str, bool], tuple[Rate, str, Price]] = {}
        self._day = ""
        self._day_until = 0.0

    def priced(self, target: Target, request: Request) -> bool:
        """Is there a price for what this request could be billed for on this target?"""
        if target.boundary == LOCAL:
            return True
        return self._charged(target, request) is not None

    def _charged(self, target: Target, request: Request) -> Price | None:
        """The price that this request is charged by: the operator's default where the listed one does not cover it."""
        listed = self.price(target)
        return listed if listed is not None and (_plain(request) or _covers(listed, request)) else self._unpriced

    def price(self, target: Target) -> Price | None:
        """The price that holds today; None: unpriced."""
        now = time.time()
        if now >= self._day_until:
            self._found.clear()
            self._day = time.strftime("%Y-%m-%d", time.gmtime(now))
            self._day_until = (now // 86400 + 1) * 86400
        if target.name not in self._found:
            listed = self._overrides.find(target.name, self._day) or self._prices.find(
                f"{kind(target.kind).name}/{target.model}", self._day
            )
            self._found[target.name] = listed or self._unpriced
        return self._found[target.name]

    async def reserve(self, exchange: Exchange, attempt: Attempt, sent: Request | None = None) -> Hold | None:
        """Hold the most that this attempt can cost; raises `OutOfBudget`.

        `sent`: the request as it will be sent, where that is another: pseudonyms may be longer than what they hide.
        """
        request, target, principal = exchange.request, attempt.target, exchange.principal
        assert request is not None and principal is not None
        local = target.boundary == LOCAL
        price = None if local else self._charged(target, request)
        if price is None and not local:
            raise OutOfBudget("no_eligible_target", f"{target.name} has no price.")
        attempt.price = LOCAL_PRICE if price is None else price.id
        attempt.charged = price
        if self._leases is None:
            return None
        most = self._most_output(request, target, price)
        prompt = len(request.raw if sent is None else sent.raw) + images(request) * IMAGE_TOKENS
        bound = 0
        if price is not None:
            plain = _plain(request)
            tier = "" if plain else tier_of(request.body.get("service_tier"))
            bound = self._bound(price, prompt, most * request.choices, tier, not plain and _sounds(request))
        if target.context is not None and local:
            most = min(most, target.context)
        tokens = prompt + ADDED_TOKENS + most * request.choices
        already = _charged_already(exchange.attempts) if exchange.attempts else ()
        try:
            hold = await self._leases.reserve(
                principal, exchange.actor, (bound, tokens, 1), local=local, already=already
            )
        except BudgetExceeded as spent:
            raise _out_of(spent) from None
        except BudgetUnavailable:
            raise OutOfBudget(
                "budget_unavailable", "The budget store cannot be asked, so nothing may be spent now."
            ) from None
        attempt.hold = bound
        attempt.scopes = tuple(scope_labels(hold))
        return hold

    def settle(
        self,
        exchange: Exchange,
        attempt: Attempt,
        hold: Hold | None,
        session: Session | None,
        counts: Counts | None = None,
    ) -> None:
        """Meter the attempt, price it, and give back what it did not use.  Never waits."""
        request = exchange.request
        assert request is not None
        price = attempt.charged
        if session is not None and attempt.billable:
            attempt.usage = final_usage(request, session)
            if attempt.usage is None:
                most = self._most_output(request, attempt.target, price)
                attempt.usage = used(request, attempt.target, session, most, counts or NOT_COUNTED)
        if attempt.target.boundary == LOCAL:
            attempt.price = LOCAL_PRICE
        elif attempt.usage is not None and price is not None:
            usage = attempt.usage
            if self._unpriced is not None and not has_rates(price, usage.tier):
                price = self._unpriced
            if price is self._unpriced:  # which is for whatever has no price of its own
                usage = replace(usage, tier="")
            attempt.cost, attempt.price = self._cost(usage, price)
        if hold is None or self._leases is None:
            return
        if attempt.recorded:
            tokens = tokens_of(attempt.usage) if attempt.usage is not None else 0
            self._leases.settle(hold, (attempt.cost, tokens, 1), outcome=(exchange.id, attempt.index))
        else:  # nothing was sent
            self._leases.settle(hold, NOTHING)

    def _bound(self, price: Price, prompt: int, output: int, tier: str, audio: bool) -> int:
        """`engines.rates.upper_bound`, which is so much for a token in and so much for one out: worked out once."""
        key = (id(price), tier, audio, price.long is not None and prompt + ADDED_TOKENS > price.long_above)
        found = self._bounds.get(key)
        if found is None:
            into = upper_bound(prompt, 0, 1, price, tier, audio=audio)
            out = upper_bound(prompt, 1, 1, price, tier, audio=audio) - into
            if len(self._bounds) >= MAX_RATES:
                self._bounds.clear()
            found = self._bounds[key] = (into // (prompt + ADDED_TOKENS), out, price)
        return (prompt + ADDED_TOKENS) * found[0] + output * found[1]

    def _cost(self, usage: Usage, price: Price) -> tuple[int, str]:
        """`engines.rates.priced`, with the rates found once."""
        key = (id(price), usage.tier, price.long is not None and usage.prompt > price.long_above)
        found = self._rates.get(key)
        if found is None:
            if len(self._rates) >= MAX_RATES:
                self._rates.clear()
            found = self._rates[key] = (*rates(price, usage.tier, usage.prompt), price)
        return charge(usage, found[0]), found[1]

    def _most_output(self, request: Request, target: Target, price: Price | None) -> int:
        if request.max_output is not None:
            return request.max_output
        if request.operation is not Operation.CHAT:
            return 0
        listed = price.max_output if price is not None else None
        return target.max_output or listed or DEFAULT_MAX_OUTPUT


def _out_of(spent: BudgetExceeded) -> OutOfBudget:
    """In words for the developer who reads the error: whose limit, how much, and what to do."""
    scope, window = spent.account[0].partition("#")[0], words_of(spent.budget.window)
    if spent.budget.unit == USD:
        hint = " A smaller max_tokens holds less of it." if spent.left is None else ""
        return OutOfBudget("budget_exceeded", f"This request could pass the limit: {spent}.{hint}", spent)
    limit = f"{spent.limit:,} {UNITS[spent.budget.unit]} {'in any' if spent.budget.window.startswith('r') else 'a'}"
    words = f"This request could pass the limit of {scope}: {limit} {window.removeprefix('rolling ')}."
    if spent.budget.unit == TOKENS:
        words = f"{words[:-1]}, and may use {spent.amount:,}."
    if not spent.budget.is_rate:
        return OutOfBudget("budget_exceeded", words, spent)
    hint = " A smaller max_tokens holds less of it." if spent.budget.unit == TOKENS else ""
    return OutOfBudget("rate_limited", words + hint, spent)


def _charged_already(attempts: Sequence[Attempt]) -> frozenset[str]:
    """The accounts that earlier attempts of the same request were charged to."""
    return frozenset([label for attempt in attempts if attempt.recorded for label in attempt.scopes])


def _covers(price: Price, request: Request) -> bool:
    """Does a listed price say what everything that this request asks for costs?  Of a plain one every price does."""
    body = request.body
    if request.needs & _EXTRA_METERS or body.get("inference_geo") or body.get("prediction"):
        return False
    if body.get("web_search_options") is not None:  # each search is billed
        return False
    if body.get("speed") not in (None, "standard") or not has_rates(price, tier_of(body.get("service_tier"))):
        return False
    return not _sounds(request) or price.audio is not None


def _plain(request: Request) -> bool:
    """Is it billed by what any price has: tokens in and out, of the standard tier?  As nearly all are."""
    return request.needs.isdisjoint(_OTHER_NEEDS) and request.body.keys().isdisjoint(_OTHERWISE_BILLED)


def _sounds(request: Request) -> bool:
    """Does a request hold sound, or ask for it?"""
    modalities = request.body.get("modalities")
    return "audio" in request.needs or (isinstance(modalities, list) and "audio" in modalities)
