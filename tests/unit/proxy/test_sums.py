"""What is asked of the ledger's lines: by tag, by local day, apart where a price changes; and how requests went."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from outcomes import decision, outcome, refused

from engines.ratecard import MICRO
from proxy.periods import zone_over
from proxy.projections.ledger import Ledger
from proxy.projections.sums import Spread, known, spread

LOCAL: dict[str, Any] = {"target": "gpu/llama", "boundary": "local"}
SECOND = MICRO


def at(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=UTC).timestamp()) * MICRO  # type: ignore[arg-type,misc]


def ledger_of(*records: Any) -> Ledger:
    ledger = Ledger(Path(":memory:"))
    for seq, record in enumerate(records):
        record.seq = seq
    ledger.project("o", records)
    return ledger


def pair(request: str, attempt: int = 0, *, decided: dict[str, Any] | None = None, **fields: Any) -> list[Any]:
    where = {name: fields[name] for name in ("target", "boundary") if name in fields}
    return [decision(request, attempt, **where, **(decided or {})), outcome(request, attempt, **fields)]


def by(ledger: Ledger, *names: str, **options: Any) -> dict[tuple[str, ...], int]:
    found: dict[tuple[str, ...], int] = {}
    for row in ledger.sums(names, **options):
        found[row["names"]] = found.get(row["names"], 0) + row["cost"]
    return found


def test_by_the_value_of_a_tag_and_by_all_of_them() -> None:
    ledger = ledger_of(
        *pair("a", decided={"tags": ("cost-centre=41", "stage=prod")}, cost=1), *pair("b", decided={"tags": ("cost-centre=42",)}, cost=10),
        *pair("c", decided={"tags": ("xcost-centre=43", "cost-centrex=44")}, cost=100), *pair("d", cost=1_000),
        *pair("e", decided={"tags": ("cost-centre=",)}, cost=10_000),
    )  # fmt: skip
    assert by(ledger, "tag:cost-centre") == {("41",): 1, ("42",): 10, ("",): 11_100}
    assert by(ledger, "tag:stage", "tag:cost-centre")["prod", "41"] == 1
    assert by(ledger, "tag")["cost-centre=41, stage=prod",] == 1
    ledger.close()


@pytest.mark.parametrize("name", ["tag:", "tag:a'b", "tag:1", "day;", "seq", "request", "at", ""])
def test_nothing_else_is_a_dimension(name: str) -> None:
    assert not known(name)
    with pytest.raises(KeyError):
        ledger_of().sums((name,))


def test_by_who_and_what_decisions_said() -> None:
    told = {
        "actor": "0f3c",
        "request_class": "batch",
        "routing": "complexity: small",
        "surface": "openai.chat",
        "overflow": "saturated",
    }
    ledger = ledger_of(*pair("a", decided=told, cost=5))
    assert by(ledger, "user", "class", "route", "surface", "overflow") == {
        ("0f3c", "batch", "complexity: small", "openai.chat", "saturated"): 5
    }
    ledger.close()


def test_a_local_day_has_the_hours_of_where_it_is() -> None:
    vienna = ZoneInfo("Europe/Vienna")
    # the night in which the clocks go back, 25 October 2026: 21:59 UTC is still the 24th, and the 25th has 25 hours
    moments = [
        at(2026, 10, 24, 21, 59),
        at(2026, 10, 24, 22),
        at(2026, 10, 25, 0, 30),
        at(2026, 10, 25, 1, 30),
        at(2026, 10, 25, 22, 59),
    ]
    ledger = ledger_of(
        *(outcome(str(n), at=moment, cost=10**n) for n, moment in enumerate(moments)),
        outcome("z", at=at(2026, 10, 25, 23), cost=7),
    )
    zone = zone_over(vienna, moments[0], at(2026, 11, 1))
    assert by(ledger, "day", zone=zone) == {("2026-10-24",): 1, ("2026-10-25",): 11_110, ("2026-10-26",): 7}
    assert by(ledger, "hour", zone=zone)["2026-10-25 02:00",] == 100 + 1_000  # twice that night
    assert by(ledger, "month", zone=zone) == {("2026-10",): 11_118}
    ledger.close()


@given(
    st.lists(st.integers(0, 40 * 86_400), min_size=1, max_size=8),
    st.sampled_from(["Europe/Vienna", "America/St_Johns", "Asia/Kathmandu"]),
)
def test_days_are_those_of_the_standard_library(offsets: list[int], name: str) -> None:
    zone = ZoneInfo(name)
    moments = [at(2026, 10, 10) + second * MICRO for second in offsets]
    ledger = ledger_of(*(outcome(str(n), at=moment, cost=1) for n, moment in enumerate(sorted(moments))))
    found = by(ledger, "day", zone=zone_over(zone, min(moments), max(moments) + 1))
    wanted: dict[tuple[str, ...], int] = {}
    for moment in moments:
        day = (datetime.fromtimestamp(moment // MICRO, zone).date().isoformat(),)
        wanted[day] = wanted.get(day, 0) + 1
    assert found == wanted
    ledger.close()


def test_apart_where_a_price_changes_and_where_prompts_are_long() -> None:
    cut = at(2026, 11, 1)
    ledger = ledger_of(
        outcome("a", at=cut - 1, input=5), outcome("b", at=cut, input=7), outcome("c", at=cut + 1, input=11, cache_read=190_000)
    )  # fmt: skip
    rows = ledger.sums(("model",), cuts=(cut,), above=190_000)
    assert [(row["date"], row["long"], row["input"]) for row in rows] == [
        ("1970-01-01", 0, 5),
        ("2026-11-01", 0, 7),
        ("2026-11-01", 1, 11),
    ]
    assert len(ledger.sums(("model",), cuts=())) == 1
    ledger.close()


def test_more_than_a_column_can_hold_is_summed_exactly() -> None:
    """Pico-dollars of an organisation's years: 64 bits end at $9.2 million."""
    most = (1 << 63) - 1
    ledger = ledger_of(*(outcome(str(n), cost=most, quality="estimated") for n in range(5)), outcome("z", cost=-7))
    (row,) = ledger.sums(("model",))
    assert (row["cost"], row["estimated_cost"]) == (5 * most - 7, 5 * most)
    ledger.close()


def test_engine_time_is_split_as_measured_and_else_by_tokens() -> None:
    whole = {**LOCAL, "connect_us": 1, "total_us": 1 + 100 * SECOND}
    ledger = ledger_of(
        *pair("engine", **whole, prefill_us=2 * SECOND, decode_us=30 * SECOND, input=10, output=10),
        *pair("stream", decided={"stream": True}, **whole, first_us=1 + 40 * SECOND, input=10, output=10),
        *pair(
            "whole", **whole, input=150, cache_write_5m=50, cache_read=10**6, output=30
        ),  # 200 read at 20, 30 written: a quarter
    )
    (row,) = ledger.sums(("target",))
    assert row["engine_us"] == 300 * SECOND
    assert row["prefill_us"] == (2 + 40 + 25) * SECOND
    assert row["decode_us"] == (30 + 60 + 75) * SECOND
    assert row["guessed_us"] == 100 * SECOND
    (fast,) = ledger.sums(("target",), speeds={"gpu": 60, "o'brien": 3})
    assert fast["prefill_us"] == (2 + 40 + 10) * SECOND  # 200 / (200 + 60 x 30)
    ledger.close()


# --- how requests went ----------------------------------------------------------------------------------------


def test_a_request_of_several_attempts_counts_once() -> None:
    held = {"action": "keep_local", "findings": ("ssn:1:x",)}
    ledger = ledger_of(
        *pair("answered", decided=held, **LOCAL, output=10, total_us=3 * SECOND),
        *pair("failed over", **LOCAL, ending="failed"), *pair("failed over", 1, total_us=5 * SECOND, output=20),
        *pair("busy", decided={"overflow": "saturated"}, total_us=4 * SECOND),
        *pair("chosen", decided={"overflow": "capability", "action": "redact", "redacted": ("name:1",), "findings": ("name:1:x",)}, total_us=6 * SECOND),
        *pair("leaked", decided=held, total_us=6 * SECOND),
        *pair("wrong", **LOCAL, ending="failed", status=400),
        *pair("down", **LOCAL, ending="failed", status=500), *pair("down", 1, **LOCAL, ending="failed", status=502),
        *pair("gone", **LOCAL, ending="abandoned"),
        refused("blocked"), refused("nobody", "no_eligible_target"), refused("down", "budget_exceeded"),
    )  # fmt: skip
    found = ledger.traffic(0, 1 << 62)
    assert (found.requests, found.answered, found.abandoned, found.rejected, found.failed) == (8, 5, 1, 1, 1)
    assert found.refused == {"policy_blocked": 1, "no_eligible_target": 1}  # the third had been asked for
    assert (found.local, found.forced, found.chosen) == (4, {"saturated": 1, "failed": 1}, 2)
    assert (found.held, found.held_left, found.held_redacted) == (3, 1, 1)
    assert (found.found, found.found_local) == (3, 1)
    assert found.latency["local"] == Spread(1, 3 * SECOND, 3 * SECOND, 3 * SECOND)
    assert found.latency["api"] == Spread(4, 5 * SECOND, 6 * SECOND, 6 * SECOND)
    assert (found.output, found.busiest_requests, found.busiest_output) == (30, 5, 30)
    assert ledger.traffic(0, 1).requests == 0
    ledger.close()


def test_time_to_the_first_token_is_that_of_streams() -> None:
    ledger = ledger_of(
        *pair("a", decided={"stream": True}, **LOCAL, connect_us=1, first_us=SECOND, total_us=2 * SECOND),
        *pair("b", **LOCAL, connect_us=1, first_us=9 * SECOND, total_us=9 * SECOND),
    )
    assert ledger.traffic(0, 1 << 62).first["all"] == Spread(1, SECOND, SECOND, SECOND)
    ledger.close()


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=300))
def test_percentiles_are_nearest_rank(times: list[int]) -> None:
    """The smallest value that at least so many of a hundred do not pass."""
    found = spread(times)
    for rank, value in ((50, found.p50), (95, found.p95), (99, found.p99)):
        assert value in times
        assert sum(time <= value for time in times) * 100 >= rank * len(times)
        assert sum(time < value for time in times) * 100 < rank * len(times)
    assert spread([]) == Spread(0)
