"""How hard a model is to think: OpenAI's dialect says it in words, Anthropic's in a budget of tokens.

The budgets are a convention, since neither vendor states one: 1,024 is the least that Anthropic's API takes, 32,768
about the most that its guide to extended thinking advises without batches.
"""

from __future__ import annotations

LEAST_BUDGET = 1024
"""Tokens of thinking that Anthropic's API demands at least."""

_BUDGETS = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 32768}


def budget_of(effort: str, limit: int) -> int | None:
    """Tokens for an effort, at most half of the output limit; None where the word is not known."""
    budget = _BUDGETS.get(effort)
    return None if budget is None else max(LEAST_BUDGET, min(budget, limit // 2))


def effort_of(budget: int) -> str:
    """The least effort that allows as much, of those that every reasoning model knows; 0 tokens are `none`."""
    if budget == 0:
        return "none"
    return next((word for word in ("low", "medium") if _BUDGETS[word] >= budget), "high")
