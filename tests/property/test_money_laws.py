"""Law 4 read as money: however the ledger is grouped, its lines, the idle time and the corrections are what was spent; and every
form of a report has the same numbers."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from outcomes import decision, outcome

from engines.model import Usage
from engines.ratecard import MICRO, RateCard
from engines.rates import Price, Rate, cost
from proxy import parquet
from proxy.finance import COUNTED, MONEY, Against, Corrected, Report, busy_times, report
from proxy.finance_report import spend_page
from proxy.finance_tables import records, spend_csv, spend_rows, spend_table, sql_columns
from proxy.projections.ledger import DIMENSIONS, Ledger

START = 1_795_000_000 * MICRO
END = START + 3 * 86_400 * MICRO
CARDS = {
    "gpu": RateCard(
        purchase=60_000 * 10**12 + 7, residual=100_001, financing=49_999, watts_idle=201, watts_load=1_399, kwh=123_456_789_011,
        prefill_weight=2_700_001, prompt_speed=33,
    ),
    "cpu": RateCard(rent=10**13 + 3),
}  # fmt: skip
PRICE = Price("openai/gpt-4o", input=2_500_000, output=10_000_000, cached=1_250_000)
DEAR = Price(
    "x/y",
    input=3,
    output=15,
    cached=1,
    cache_write=4,
    cache_write_1h=6,
    long=Rate(input=6, output=22, cached=2),
    long_above=900_000,
)
NAMES = st.sampled_from(["", "a", "=b", "<i>c</i>"])
ATTEMPTS = st.lists(
    st.builds(
        dict, at=st.integers(START - 10, END + 10), total_us=st.integers(0, 2 * 86_400 * MICRO), connect_us=st.integers(0, 5),
        first_us=st.integers(0, 86_400 * MICRO), prefill_us=st.sampled_from([0, 0, 7, 10**9]), decode_us=st.sampled_from([0, 0, 3, 10**12]),
        tenant=NAMES, team=NAMES, project=NAMES, key=NAMES, model=NAMES, user=NAMES, stream=st.booleans(),
        tags=st.sampled_from([(), ("k=1",), ("k=2", "z=x"), ("kk=1",)]), attempt=st.integers(0, 1),
        place=st.sampled_from([("gpu/a", "local"), ("gpu/b", "local"), ("cpu/a", "local"), ("bare/a", "local"), ("openai/a", "cloud")]),
        input=st.integers(0, 10**6), output=st.integers(0, 10**6), cache_read=st.integers(0, 10**6), cost=st.integers(0, 10**12),
        quality=st.sampled_from(["exact", "estimated", "bounded"]),
    ),
    max_size=12,
)  # fmt: skip
GROUPS = st.lists(st.sampled_from([*DIMENSIONS, "tag:k"]), min_size=1, max_size=3, unique=True)
CORRECTIONS = st.lists(
    st.builds(Corrected, st.just("openai"), st.sampled_from(["", "gpt-4o"]), st.integers(-(10**13), 10**13)), max_size=2
)


def projected(rows: list[dict[str, Any]]) -> tuple[Ledger, list[Any]]:
    made: list[Any] = []
    for number, row in enumerate(rows):
        fields = dict(row)
        (target, boundary), attempt = fields.pop("place"), fields.pop("attempt")
        user, tags, stream = fields.pop("user"), fields.pop("tags"), fields.pop("stream")
        if boundary == "local":
            fields["cost"] = 0
        given = {"target": target, "boundary": boundary}
        made.append(decision(str(number), attempt, actor=user, tags=tags, stream=stream, seq=2 * number, **given))
        made.append(outcome(str(number), attempt, seq=2 * number + 1, **given, **fields))
    ledger = Ledger(Path(":memory:"))
    ledger.project("o", made)
    return ledger, made[1::2]


def reported(ledger: Ledger, by: list[str], corrections: list[Corrected] | None = None) -> Report:
    sums = ledger.sums(by, START, END, cuts=(), speeds={name: card.prompt_speed for name, card in CARDS.items()})
    return report(
        by, (START, END), sums, busy_times(ledger.intervals(START, END)), CARDS, Against("openai/gpt-4o", lambda day: PRICE),
        corrections=corrections or (),
    )  # fmt: skip


@given(ATTEMPTS, GROUPS)
def test_law_04_grouped_sums_equal_the_totals_and_the_totals_what_was_spent(
    rows: list[dict[str, Any]], by: list[str]
) -> None:
    ledger, ends = projected(rows)
    found = reported(ledger, by)
    ledger.close()
    for name in (*COUNTED, *MONEY):
        assert sum(getattr(line, name) for line in found.lines) == getattr(found.total, name), name
    inside = [one for one in ends if START <= one.at < END]
    assert found.total.attempts == len(inside)
    assert found.total.api == sum(one.cost for one in inside)
    assert found.total.own_prefill + found.total.own_decode == found.total.own
    timed = {pool.engine for pool in found.pools if pool.spent.busy_us}
    assert found.total.own == sum(pool.spent.busy for pool in found.pools if pool.engine in timed)
    assert found.spent == found.total.api + sum(pool.spent.total for pool in found.pools)
    assert len({line.names for line in found.lines}) == len(found.lines)


@given(ATTEMPTS, GROUPS, st.sampled_from(["team", "day", "tag:k", "user"]))
def test_law_04_a_coarser_grouping_says_the_same(rows: list[dict[str, Any]], by: list[str], further: str) -> None:
    """What was billed and avoided to the pico-dollar; shares of a pool within a pico-dollar for each line that is added up."""
    by = [name for name in by if name != further] or ["target"]
    ledger, _ = projected(rows)
    coarse, fine = reported(ledger, by), reported(ledger, [*by, further])
    ledger.close()
    for line in coarse.lines:
        parts = [part for part in fine.lines if part.names[:-1] == line.names]
        for name in (*COUNTED, "api", "estimated_api", "avoided"):
            assert getattr(line, name) == sum(getattr(part, name) for part in parts), name
        pieces = 2 * len(CARDS) * (len(parts) + len(ledger_targets(rows)))
        assert abs(line.own - sum(part.own for part in parts)) <= pieces


METER = st.integers(0, 10**6)


@given(
    st.lists(
        st.builds(Usage, input=METER, cache_read=METER, cache_write_5m=METER, cache_write_1h=METER, output=METER),
        max_size=8,
    ),
    st.sampled_from([PRICE, DEAR]),
)
def test_what_was_avoided_is_what_each_answer_would_have_been_billed(usages: list[Usage], price: Price) -> None:
    meters = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output")
    ledger = Ledger(Path(":memory:"))
    ledger.project(
        "o",
        [
            outcome(str(n), seq=n, at=START, target="gpu/a", boundary="local", **{name: getattr(usage, name) for name in meters})
            for n, usage in enumerate(usages)
        ],
    )  # fmt: skip
    against = Against(price.model, lambda day: price, above=price.long_above)
    sums = ledger.sums(("target",), START, END, cuts=(), above=price.long_above)
    ledger.close()
    assert report(("target",), (START, END), sums, {}, {}, against).total.avoided == sum(
        cost(usage, price) for usage in usages
    )


def ledger_targets(rows: list[dict[str, Any]]) -> set[Any]:
    return {row["place"] for row in rows}


@given(ATTEMPTS, GROUPS, CORRECTIONS)
def test_law_04_every_form_of_a_report_has_the_same_numbers(
    rows: list[dict[str, Any]], by: list[str], corrections: list[Corrected]
) -> None:
    ledger, _ = projected(rows)
    found = reported(ledger, by, corrections)
    page = spend_page(found, reported(ledger, ["day"]), [reported(ledger, ["team"])])
    ledger.close()
    lines = [line.cost for line in found.lines]
    idle = [pool.spent.idle for pool in found.pools]
    wanted = [*lines, *idle, *(row.amount for row in corrections)]
    assert sum(wanted) == found.spent
    sheet = list(csv.DictReader(io.StringIO(spend_csv(found))))
    assert [pico(row["cost_usd"]) for row in sheet] == wanted
    assert [row["line"] for row in sheet] == ["usage"] * len(lines) + ["idle"] * len(idle) + ["correction"] * len(
        corrections
    )
    assert not any(cell.startswith("=") for row in sheet for cell in row.values())
    script = json.loads(json.dumps(spend_rows(found)))
    assert [row["cost"] for part in ("rows", "pools", "corrections") for row in script[part]] == wanted
    assert script["total"]["spent"] == found.spent
    assert [pico(amount) for amount in costs(page)] == [*wanted, found.spent]
    assert "<i>c</i>" not in page
    assert spend_table(found)


def test_parquet_has_the_same_numbers(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    row = {
        "at": START + 10**10, "total_us": 9_000_001, "connect_us": 5, "input": 7, "output": 11, "place": ("gpu/a", "local"), "attempt": 0,
        "user": "u", "tags": ("k=1",), "stream": True, "first_us": 1_000_000, "team": "a",
    }  # fmt: skip
    ledger, _ = projected([row, {**row, "place": ("openai/a", "cloud"), "cost": 123_456_789_012, "team": ""}])
    found = reported(ledger, ["team", "tag:k"], [Corrected("openai", "gpt-4o", -1)])
    ledger.close()
    parquet.write(tmp_path / "it's.parquet", sql_columns(found), records(found))
    read = duckdb.sql(f"SELECT * FROM read_parquet('{tmp_path}/it''s.parquet')")
    assert [name for name, _ in sql_columns(found)] == read.columns
    assert [list(line) for line in read.fetchall()] == records(found)
    total = duckdb.sql(f"SELECT sum(cost_usd), sum(attempts) FROM read_parquet('{tmp_path}/it''s.parquet')").fetchall()[
        0
    ]
    assert total == (Decimal(found.spent).scaleb(-12), 2)
    with pytest.raises(OSError):
        parquet.write(tmp_path / "no" / "such.parquet", sql_columns(found), [])


def pico(dollars: str) -> int:
    return int(Decimal(dollars).scaleb(12))


class _Costs(HTMLParser):
    """The exact amounts in the cost column of the page's lines, and of their total."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = False
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "td":
            self.inside = given.get("data-name") == "cost"
        elif tag == "data" and self.inside:
            self.found.append(given["value"] or "")


def costs(page: str) -> list[str]:
    parser = _Costs()
    parser.feed(page)
    return parser.found
