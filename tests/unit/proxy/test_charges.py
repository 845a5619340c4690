"""What a record charges, and that the shortcuts of `Spending` say what the rates do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from outcomes import outcome

from engines.model import Usage
from engines.rates import METER_LIMIT, Price, PriceList, Rate, priced, upper_bound
from policies.budgets import REQUESTS, TOKENS
from policies.slices import Hold, Slice
from proxy.spending import Spending
from proxy.state.charges import account_of, charges, label_of, scope_labels, tokens_of

ORG, KEY, USER = ("org", "2026-11"), ("key/k#tokens-all", "2026-11-24T13:05"), ("user/u#requests", "r60@17")
HOLD = Hold((700, 50, 1), [Slice(ORG), Slice(KEY, TOKENS), Slice(USER, REQUESTS)])
METERS = st.one_of(st.integers(0, 10**6), st.integers(METER_LIMIT - 2, METER_LIMIT + 2), st.integers(-5, 2**40))


def test_labels_name_accounts_and_what_was_held_in_tokens() -> None:
    labels = scope_labels(HOLD)
    assert labels == ["org|2026-11", "key/k#tokens-all|2026-11-24T13:05|50", "user/u#requests|r60@17"]
    assert [account_of(label) for label in labels] == [ORG, KEY, USER]
    assert label_of(USER) == labels[2]


def test_each_account_is_charged_in_its_unit() -> None:
    labels = tuple(scope_labels(HOLD))
    ended = outcome(
        cost=9, input=3, cache_read=4, cache_write_5m=1, cache_write_1h=1, output=5, reasoning=2, scopes=labels
    )
    assert dict(charges(ended)) == {ORG: 9, KEY: 14, USER: 1}
    crashed = outcome(cost=700, hold=700, scopes=labels, ending="interrupted")
    assert dict(charges(crashed)) == {ORG: 700, KEY: 50, USER: 1}


@given(METERS, METERS, METERS, METERS, METERS)
def test_tokens_are_believed_meter_by_meter(a: int, b: int, c: int, d: int, e: int) -> None:
    usage = Usage(input=a, cache_read=b, cache_write_5m=c, cache_write_1h=d, output=e)
    assert tokens_of(usage) == sum(min(max(meter, 0), METER_LIMIT) for meter in (a, b, c, d, e))


PRICE = Price(
    "sky/m", 3, 11, 1, long=Rate(5, 17), long_above=10_000, tiers={"priority": Rate(7, 23)}, audio=40, audio_output=80
)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 30_000), st.integers(0, 5_000), st.integers(1, 4), st.sampled_from(["", "priority", "flex", "other"]), st.booleans()
        ),
        min_size=1, max_size=8,
    )
)  # fmt: skip
def test_law_03_a_bound_worked_out_once_is_the_bound(cases: list[tuple[int, int, int, str, bool]]) -> None:
    spending = Spending(PriceList(), None, PriceList(), None)
    for prompt, output, choices, tier, audio in cases:
        expected = upper_bound(prompt, output, choices, PRICE, tier, audio=audio)
        assert spending._bound(PRICE, prompt, output * choices, tier, audio) == expected


@given(st.lists(st.builds(Usage, input=st.integers(0, 20_000), cache_read=st.integers(0, 9_000), output=st.integers(0, 9_000), tier=st.sampled_from(["", "priority", "flex", "other"])), min_size=1, max_size=8))  # fmt: skip
def test_law_04_a_cost_by_rates_found_once_is_the_cost(usages: list[Usage]) -> None:
    spending = Spending(PriceList(), None, PriceList(), None)
    for usage in usages:
        assert spending._cost(usage, PRICE) == priced(usage, PRICE)
