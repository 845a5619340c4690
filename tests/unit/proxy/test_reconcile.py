"""A vendor's month beside the ledger's: what agrees, what is corrected, what went round the proxy."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.reconcile import LEAST, Billed, Booked, Used, base_name, reconcile, within

DOLLAR = 10**12


def booked(tokens_in: int, tokens_out: int, cost: int, **more: int) -> Booked:
    return Booked(attempts=10, input=tokens_in, output=tokens_out, cost=cost, **more)


def test_a_snapshot_is_its_model() -> None:
    assert base_name("gpt-4o-2024-08-06") == base_name("gpt-4o") == "gpt-4o"
    assert base_name("claude-haiku-4-5-20251001") == "claude-haiku-4-5"
    assert base_name("gpt-4o-mini") == "gpt-4o-mini" and base_name("claude-sonnet-4-6") == "claude-sonnet-4-6"


def test_tolerances_are_shares_of_the_larger() -> None:
    assert within(1_000, 1_005, Fraction(5, 1_000)) and not within(1_000, 1_006, Fraction(5, 1_000))
    assert within(0, 0, Fraction(1, 100)) and not within(0, 1, Fraction(1, 100))


def test_a_month_that_agrees() -> None:
    found = reconcile(
        [Used("gpt-4o-2024-08-06", 600_000, 400_000, 0, 100_000, 50)], [Billed(3 * DOLLAR, "gpt-4o-2024-08-06, input", "gpt-4o-2024-08-06")],
        {"gpt-4o": Booked(50, 600_400, 400_000, 0, 100_000, 0, 3 * DOLLAR)},
    )  # fmt: skip
    assert found.agrees and [model.verdict for model in found.models] == ["agrees"]
    assert found.around == [] and found.corrections == []


def test_the_price_was_another_one() -> None:
    """The tokens agree to the last one, the bill is a tenth dearer: the whole difference is posted."""
    found = reconcile(
        [Used("m", 1_000_000, output=10_000)],
        [Billed(11 * DOLLAR, model="m")],
        {"m": booked(1_000_000, 10_000, 10 * DOLLAR)},
    )
    (model,) = found.models
    assert (model.verdict, model.cause, model.correction) == ("price", "price", DOLLAR)
    assert not found.agrees
    again = reconcile(
        [Used("m", 1_000_000, output=10_000)],
        [Billed(11 * DOLLAR, model="m")],
        {"m": booked(1_000_000, 10_000, 10 * DOLLAR, corrected=DOLLAR)},
    )
    assert again.agrees and again.corrections == []


def test_estimates_explain_what_they_can() -> None:
    """Of 1,100 tokens 300 were estimated: a vendor that counted 1,300 is not contradicted, and the bill is what counts."""
    mine = booked(1_000, 100, 9 * DOLLAR, estimated=300)
    found = reconcile([Used("m", 1_200, output=100)], [Billed(10 * DOLLAR, model="m")], {"m": mine})
    (model,) = found.models
    assert (model.verdict, model.cause, model.correction) == ("quantity", "quantity", DOLLAR) and found.around == []


def test_more_was_used_than_passed() -> None:
    """Twice the tokens at twice the bill: half went round, and nothing of it is booked."""
    found = reconcile(
        [Used("m", 2_000_000, output=20_000, requests=30)],
        [Billed(20 * DOLLAR, model="m")],
        {"m": booked(1_000_000, 10_000, 10 * DOLLAR)},
    )
    (model,), (gap,) = found.models, found.around
    assert (model.verdict, model.correction) == ("surplus", 0)
    assert (gap.why, gap.used.tokens, gap.amount, gap.used.requests) == ("surplus", 1_010_000, 10 * DOLLAR, 20)
    assert not found.agrees and found.billed == 10 * DOLLAR


def test_foreign_keys_projects_and_models_are_named_and_not_booked() -> None:
    used = [
        Used("m", 1_000, output=100, requests=5, key="ours"), Used("m", 3_000, output=300, requests=2, key="theirs", project="p9"),
        Used("m", 2_000, output=200, requests=1, key="theirs", project="p9"), Used("other", 500, output=50, key="ours"),
    ]  # fmt: skip
    found = reconcile(
        used,
        [Billed(66 * DOLLAR, model="m"), Billed(DOLLAR, model="other")],
        {"m": booked(1_000, 100, 11 * DOLLAR)},
        keys=["ours"],
    )
    assert [(row.why, row.used.key, row.used.model, row.used.tokens, row.amount) for row in found.around] == [
        ("key", "theirs", "m", 5_500, 55 * DOLLAR), ("model", "ours", "other", 550, DOLLAR),
    ]  # fmt: skip
    (model,) = found.models
    assert (model.verdict, model.billed, model.correction) == ("agrees", 11 * DOLLAR, 0)
    assert not found.agrees
    by_project = reconcile(
        used, [Billed(66 * DOLLAR, model="m", project="p9")], {"m": booked(1_000, 100, 0)}, projects=["p1"]
    )
    assert {row.why for row in by_project.around} == {"project", "model"} and by_project.billed == 0


def test_the_ledger_has_more_than_the_vendor() -> None:
    found = reconcile(
        [Used("m", 500, output=50)], [Billed(5 * DOLLAR, model="m")], {"m": booked(1_000, 100, 10 * DOLLAR)}
    )
    (model,) = found.models
    assert (model.verdict, model.cause, model.correction) == ("unbilled", "quantity", -5 * DOLLAR)
    assert not found.agrees


def test_items_that_are_for_no_model_are_listed() -> None:
    found = reconcile(
        [Used("m", 1_000)],
        [Billed(DOLLAR, model="m"), Billed(7, "web search tool calls")],
        {"m": booked(1_000, 0, DOLLAR)},
    )
    assert [row.item for row in found.others] == ["web search tool calls"] and found.agrees


amounts = st.integers(0, 10**15)
counts = st.integers(0, 10**9)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), counts, counts), max_size=6),
    st.dictionaries(st.sampled_from("abc"), amounts),
    st.dictionaries(st.sampled_from("abc"), st.tuples(counts, counts, amounts, counts)),
)
def test_after_its_corrections_a_second_look_posts_nothing(
    used: list[tuple[str, int, int]], bills: dict[str, int], mine: dict[str, tuple[int, int, int, int]]
) -> None:
    """And the ledger's sum is then what the vendor billed for what passed, but for less than a millionth of a dollar a model."""
    rows = [Used(name, into, output=out) for name, into, out in used]
    items = [Billed(amount, model=name) for name, amount in bills.items()]
    ledger = {name: booked(into, out, cost, estimated=guessed) for name, (into, out, cost, guessed) in mine.items()}
    first = reconcile(rows, items, ledger)
    for model in first.corrections:
        ledger[model.name].corrected += model.correction
    second = reconcile(rows, items, ledger)
    assert second.corrections == []
    assert abs(
        second.billed - second.booked - sum(model.passed for model in second.models if model.verdict == "unseen")
    ) < LEAST * max(1, len(ledger))


@pytest.mark.parametrize("weigh", [lambda used: 0, lambda used: used.output])
def test_weights_that_are_nothing_divide_nothing(weigh: object) -> None:
    found = reconcile(
        [Used("m", 10, key="a"), Used("m", 20, key="b")],
        [Billed(DOLLAR, model="m")],
        {"m": booked(10, 0, DOLLAR)},
        keys=["a"],
        weigh=weigh,
    )  # type: ignore[arg-type]
    assert [row.why for row in found.around] == ["key"]
