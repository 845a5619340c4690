"""The scorecard, worked out by hand, and what it says where something is missing."""

from __future__ import annotations

from typing import Any

import pytest

from engines.ratecard import MICRO, MONTH, YEAR, RateCard, period_cost
from proxy.books import Month
from proxy.finance import Line, Pool, Report
from proxy.projections.sums import Spread, Traffic
from proxy.scorecard import Scorecard, scorecard
from proxy.scorecard_tables import scorecard_rows, scorecard_words, times_of

DOLLAR = 1_000_000_000_000
HOUR = 3_600 * MICRO
START = 1_795_000_000 * MICRO
# $9,000 over four years and $73 a month of rent: a month of 730 hours costs $187.50 + $73
CARD = RateCard(purchase=9_000 * DOLLAR, rent=73 * DOLLAR)
NONE = Spread(0)
QUIET = Traffic(
    requests=0, answered=0, abandoned=0, rejected=0, failed=0, refused={}, local=0, forced={}, chosen=0, held=0, held_left=0,
    held_redacted=0, found=0, found_local=0, latency=dict.fromkeys(("all", "local", "api"), NONE),
    first=dict.fromkeys(("all", "local", "api"), NONE), output=0, busiest_requests=0, busiest_output=0,
)  # fmt: skip


def traffic(**fields: Any) -> Traffic:
    given = {name: getattr(QUIET, name) for name in QUIET.__struct_fields__}
    return Traffic(**{**given, **fields})


def month_of(
    local: Line,
    cloud: Line,
    *,
    against: str = "openai/gpt-4o",
    cards: dict[str, RateCard] | None = None,
    busy: float = 0.7,
) -> Report:
    """A month in which the pool `gpu` was busy for so much of the time."""
    pools = [
        Pool(
            name, period_cost(card, MONTH, round(MONTH * busy)), engine_us=round(3 * MONTH * busy), output=local.output
        )
        for name, card in (cards if cards is not None else {"gpu": CARD}).items()
    ]
    local.own = sum(pool.spent.busy for pool in pools)
    total = Line()
    for line in (local, cloud):
        for name in (
            "attempts",
            "requests",
            "local",
            "input",
            "output",
            "local_prompt",
            "local_output",
            "api",
            "own",
            "avoided",
        ):
            setattr(total, name, getattr(total, name) + getattr(line, name))
    return Report(("target",), START, START + MONTH, [local, cloud], total, pools, against, [])


def local_line(**fields: Any) -> Line:
    given = {
        "attempts": 900, "requests": 900, "local": 900, "input": 80_000_000, "output": 20_000_000, "local_prompt": 80_000_000,
        "local_output": 20_000_000, "avoided": 400 * DOLLAR,
    }  # fmt: skip
    return Line(("gpu/llama",), **{**given, **fields})


def cloud_line(**fields: Any) -> Line:
    return Line(
        ("openai/gpt-4o",),
        **{"attempts": 100, "requests": 100, "input": 900_000, "output": 100_000, "api": 5 * DOLLAR, **fields},
    )


def score(
    found: Report,
    seen: Traffic = QUIET,
    months: tuple[Month, ...] = (),
    cards: dict[str, RateCard] | None = None,
    **models: bool,
) -> Scorecard:
    return scorecard(
        found,
        months,
        seen,
        {"gpu": CARD} if cards is None else cards,
        {f"gpu/{n}": own for n, own in models.items()},
        {"gpu": 8},
    )


def figure(found: Scorecard, name: str) -> Any:
    return next(row for row in found.figures if row.name == name)


def test_costs_by_hand() -> None:
    found = score(month_of(local_line(), cloud_line()))
    # the whole month $260.50 for 100M tokens; 70% busy: 0.7 x 260.50; no power is counted
    assert figure(found, "cost_local").value == 260_500_000_000_000 // 100_000
    assert figure(found, "cost_local_busy").value == 182_350_000_000_000 // 100_000
    assert figure(found, "cost_local_marginal").value == 0
    assert figure(found, "cost_api").value == 5 * DOLLAR // 1_000  # $5 for a million
    assert figure(found, "spent").value == 265_500_000_000_000
    assert figure(found, "baseline").value == 405 * DOLLAR
    assert (figure(found, "saved").value, figure(found, "saved").colour) == (139_500_000_000_000, "green")
    assert figure(found, "margin").value == (400 * DOLLAR - 260_500_000_000_000) // 100_000
    # $9,000 / ($400 - $73)
    assert (figure(found, "payback").value, figure(found, "payback").colour) == (27.5, "green")
    assert figure(found, "three_years").value == 36 * 327 * DOLLAR - 9_000 * DOLLAR
    assert all(row.how for row in found.figures)


def test_what_wears_out_is_bought_again() -> None:
    card = RateCard(purchase=9_000 * DOLLAR, life_us=2 * YEAR, residual=100_000, rent=73 * DOLLAR)
    found = score(month_of(local_line(), cloud_line(), cards={"gpu": card}), cards={"gpu": card})
    assert figure(found, "three_years").value == (36 * 327 - 18_000 + 900) * DOLLAR
    assert (figure(found, "payback").value, figure(found, "payback").colour) == (27.5, "red")  # after its life


def test_what_saves_nothing_is_red_and_never_pays_back() -> None:
    found = score(month_of(local_line(avoided=50 * DOLLAR), cloud_line()))
    for name in ("saved", "margin", "payback", "three_years"):
        assert figure(found, name).colour == "red", name
    assert figure(found, "payback").value is None and figure(found, "payback").how.startswith("never")
    assert "never" in scorecard_words(found, colour=False)


def test_local_tokens_without_a_rate_card_make_nothing_cheaper() -> None:
    """Another engine answered nine times as much, and nobody knows what it costs."""
    report = month_of(local_line(), cloud_line())
    bare = Line(("cpu/phi",), attempts=9, local=9, local_prompt=900_000_000, avoided=3_600 * DOLLAR)
    report.lines.append(bare)
    report.total.local_prompt += bare.local_prompt
    report.total.avoided += bare.avoided
    found = score(report)
    assert figure(found, "cost_local").value == 260_500_000_000_000 // 100_000
    assert figure(found, "saved").value == 139_500_000_000_000
    assert figure(found, "payback").value == 27.5


def test_what_is_missing_is_named() -> None:
    bare = score(month_of(local_line(avoided=0), cloud_line(api=0, input=0, output=0), against="", cards={}), cards={})
    missing = {row.name: row.how for row in bare.figures if row.value is None}
    assert {"cost_local", "cost_api", "baseline", "saved", "margin", "payback", "three_years", "month_change", "overflow", "sensitive_local",
            "utilisation", "parity", "availability", "fine_tuned", "latency_all_p50", "first_all_p99"} <= set(missing)  # fmt: skip
    assert all(how.startswith("missing: ") for how in missing.values())
    assert "rate card" in missing["cost_local"] and "--against" in missing["margin"]
    assert "shadow" in missing["parity"] and "fine_tuned: true" in missing["fine_tuned"]
    assert all(row.colour == "grey" for row in bare.figures if row.value is None)


@pytest.mark.parametrize(
    ("forced", "colour"), [(0, "green"), (49, "green"), (50, "amber"), (99, "amber"), (100, "red")]
)
def test_overflow_is_what_was_forced_out(forced: int, colour: str) -> None:
    found = score(
        month_of(local_line(), cloud_line()),
        traffic(requests=1_000, local=700, forced={"saturated": forced}, chosen=300 - forced),
    )
    assert (figure(found, "overflow").value, figure(found, "overflow").colour) == (forced / 1_000, colour)
    assert figure(found, "api_by_choice").value == (300 - forced) / 1_000


@pytest.mark.parametrize(
    ("left", "redacted", "share", "colour"),
    [(0, 0, 1.0, "green"), (0, 5, 0.95, "amber"), (1, 0, 0.99, "red"), (1, 5, 0.94, "red")],
)
def test_one_sensitive_request_that_left_as_it_was_is_red(left: int, redacted: int, share: float, colour: str) -> None:
    found = score(
        month_of(local_line(), cloud_line()), traffic(requests=100, held=100, held_left=left, held_redacted=redacted)
    )
    assert figure(found, "sensitive_local").value == pytest.approx(share)
    assert figure(found, "sensitive_local").colour == colour


@pytest.mark.parametrize(
    ("busy", "colour"), [(0.6, "green"), (0.8, "green"), (0.5, "amber"), (0.9, "amber"), (0.3, "red"), (0.95, "red")]
)
def test_utilisation(busy: float, colour: str) -> None:
    found = score(month_of(local_line(), cloud_line(), busy=busy))
    assert figure(found, "utilisation_gpu").value == pytest.approx(busy)
    assert figure(found, "utilisation_gpu").colour == colour
    assert "3.0 of 8 at once" in figure(found, "utilisation_gpu").how
    assert figure(found, "speed_gpu").value == pytest.approx(20_000_000 * MICRO / (MONTH * busy))


def test_availability_counts_what_the_service_owed() -> None:
    seen = traffic(
        answered=9_989,
        failed=10,
        abandoned=50,
        rejected=40,
        refused={"policy_blocked": 70, "queue_timeout": 1, "rate_limited": 9},
    )
    found = figure(score(month_of(local_line(), cloud_line()), seen), "availability")
    assert (found.value, found.colour) == (0.9989, "amber")


def test_months_against_each_other() -> None:
    months = tuple(
        Month(name, api * DOLLAR, 100 * DOLLAR, whole)
        for name, api, whole in (
            ("2026-07", 900, False),
            ("2026-08", 100, True),
            ("2026-09", 200, True),
            ("2026-10", 300, True),
            ("2026-11", 1, False),
        )
    )
    found = score(month_of(local_line(), cloud_line()), months=months)
    assert figure(found, "month_change").value == pytest.approx(400 / 300 - 1)
    assert figure(found, "month_variation").value == pytest.approx((2 / 3) ** 0.5 * 100 / 300)  # of 200, 300 and 400
    assert "2026-10 $400.00, 2026-09 $300.00" in figure(found, "month_change").how


def test_models_of_ones_own_are_counted_where_they_served() -> None:
    found = figure(score(month_of(local_line(), cloud_line()), llama=True, other=True, base=False), "fine_tuned")
    assert (found.value, found.how) == (1, "of 2 configured: gpu/llama, gpu/other")


def test_times_stand_together_for_people_and_apart_for_scripts() -> None:
    seen = traffic(
        requests=3,
        answered=3,
        latency={
            "all": Spread(3, 1_500_000, 2_000_000, 2_500_000),
            "local": Spread(3, 900, 2_000_000, 2_500_000),
            "api": NONE,
        },
    )
    found = score(month_of(local_line(), cloud_line()), seen)
    assert figure(found, "latency_all_p95").value == 2_000_000
    assert "latency_api_p50" not in {row.name for row in found.figures}
    words = scorecard_words(found, colour=False)
    assert "1.50 s, 2.00 s, 2.50 s" in words and "1 ms, 2.00 s, 2.50 s" in words
    assert [title.partition(":")[0] for title, _ in times_of(found)] == [
        "arrival to end, all",
        "arrival to end, local",
        "arrival to first token, all",
    ]
    assert len(scorecard_rows(found)["figures"]) == len(found.figures)
    assert "\x1b[" not in words and "\x1b[32mgreen\x1b[0m" in scorecard_words(found, colour=True)
