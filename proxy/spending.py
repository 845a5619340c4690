"""What an attempt may cost, and what it did: prices, reservations and settlements of one worker."""

from __future__ import annotations

import time
from collections.abc import Mapping

from compliance.model import LOCAL
from engines.kinds import kind
from engines.model import Request, Target
from engines.rates import LOCAL_PRICE, Price, PriceList, cost, upper_bound
from policies.budgets import Hold
from proxy.errors import Refusal
from proxy.exchange import Attempt, Exchange
from proxy.session import Session
from proxy.state.leases import BudgetExceeded, BudgetUnavailable, Leases, scope_labels

DEFAULT_MAX_OUTPUT = 128_000
"""Tokens that a model whose maximum is not known may write, for the bound of a reservation."""
IMAGE_TOKENS = 16_384
"""Bound of an image's tokens: one given by URL has hardly any bytes in the request."""
_EXTRA_METERS = frozenset({"audio", "server_tools"})
"""Billed by meters that the price list does not have."""
_STANDARD_TIERS = frozenset({None, "auto", "default", "flex", "standard_only"})


class OutOfBudget(Exception):
    """A candidate fell out because its money could not be reserved."""

    def __init__(self, code: str, words: str) -> None:
        super().__init__(words)
        self.code = code
        self.words = words

    def refusal(self) -> Refusal:
        retry_after = 5 if self.code == "budget_unavailable" else None
        return Refusal(self.code, self.words, retry_after=retry_after)


class Spending:
    """Prices by target, and the worker's leases.  Without a budget nothing is reserved, but all is priced."""

    def __init__(
        self, prices: PriceList, leases: Leases | None, overrides: Mapping[str, Price], unpriced: Price | None
    ) -> None:
        self._prices = prices
        self._leases = leases
        self._overrides = overrides  # by target: engine/model
        self._unpriced = unpriced  # what the operator charges for models without a price
        self._found: dict[str, Price | None] = {}
        self._day = ""
        self._day_until = 0.0

    def priced(self, target: Target, request: Request) -> bool:
        """Is there a price for what this request could be billed for on this target?"""
        if target.boundary == LOCAL:
            return True
        body = request.body
        surcharged = body.get("service_tier") not in _STANDARD_TIERS or body.get("speed") not in (None, "standard")
        if surcharged or request.needs & _EXTRA_METERS or body.get("inference_geo") or body.get("prediction"):
            return self._unpriced is not None
        return self.price(target) is not None

    def price(self, target: Target) -> Price | None:
        """The price that holds today; None: unpriced."""
        now = time.time()
        if now >= self._day_until:
            self._found.clear()
            self._day = time.strftime("%Y-%m-%d", time.gmtime(now))
            self._day_until = (now // 86400 + 1) * 86400
        if target.name not in self._found:
            listed = self._overrides.get(target.name) or self._prices.find(
                f"{kind(target.kind).name}/{target.model}", self._day
            )
            self._found[target.name] = listed or self._unpriced
        return self._found[target.name]

    async def reserve(self, exchange: Exchange, attempt: Attempt) -> Hold | None:
        """Hold the most that this attempt can cost; raises `OutOfBudget`."""
        request = exchange.request
        assert request is not None
        price = self.price(attempt.target)
        if price is None:
            raise OutOfBudget("no_eligible_target", f"{attempt.target.name} has no price.")
        attempt.price = price.id
        if self._leases is None:
            return None
        images = request.raw.count(b'"image') if "vision" in request.needs else 0
        bound = upper_bound(
            len(request.raw) + images * IMAGE_TOKENS,
            self._most_output(request, attempt.target, price),
            request.choices,
            price,
        )
        try:
            hold = await self._leases.reserve(bound)
        except BudgetExceeded as exceeded:
            raise OutOfBudget("budget_exceeded", f"This request could pass the limit: {exceeded}.") from None
        except BudgetUnavailable:
            raise OutOfBudget(
                "budget_unavailable", "The budget store cannot be asked, so nothing may be spent now."
            ) from None
        attempt.hold = bound
        attempt.scopes = tuple(scope_labels(hold.accounts))
        return hold

    def settle(self, exchange: Exchange, attempt: Attempt, hold: Hold | None, session: Session | None) -> None:
        """Meter the attempt, price it, and give back what it did not use.  Never waits."""
        request = exchange.request
        assert request is not None
        if session is not None and attempt.billable:
            attempt.usage = session.final_usage(len(request.raw) // 4)
        if attempt.target.boundary == LOCAL:
            attempt.price = LOCAL_PRICE
            return
        price = self.price(attempt.target)
        if attempt.usage is not None and price is not None:
            attempt.cost = cost(attempt.usage, price)
        if hold is not None and self._leases is not None:
            record = (exchange.id, attempt.index) if attempt.recorded else None
            self._leases.settle(hold, attempt.cost, outcome=record)

    def _most_output(self, request: Request, target: Target, price: Price) -> int:
        if request.max_output is not None:
            return request.max_output
        return target.max_output or price.max_output or DEFAULT_MAX_OUTPUT
