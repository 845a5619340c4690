"""Prices of the list and of the configuration, by day, and `spillway prices`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from engines.model import Usage
from engines.rates import Price, priced
from proxy.cli import app
from proxy.config import Settings, load
from proxy.config_errors import ConfigInvalid
from proxy.prices import finder, overrides, shipped, stale

ENGINES = """\
engines:
  sky: {kind: openai, key: {env: K}, models: {gpt-4o: {}, mine: {id: gpt-5.4}, gpt-9: {}}}
  gpu: {kind: vllm, replicas: ['http://127.0.0.1:9'], models: {llama: {}}}
"""


def settings(prices: str) -> Settings:
    return load(ENGINES + prices, {"K": "k"})


def mistakes(prices: str) -> list[tuple[str, str]]:
    with pytest.raises(ConfigInvalid) as invalid:
        settings(prices)
    return [(mistake.path, mistake.wrong) for mistake in invalid.value.mistakes]


DATED = """\
prices:
  sky/gpt-4o:
    - {from: 2026-01-01, input: $2/M, output: $8/M}
    - {from: 2026-07-01, input: $1/M, output: $4/M, flex: {input: $0.50/M, output: $2/M}, long: {above: 100000, input: $2/M, output: $6/M}, audio: $9/M}
"""


def test_the_operators_rows_have_days_too() -> None:
    find = finder(settings(DATED))
    named = [find("sky/gpt-4o", day) for day in ("2025-12-31", "2026-01-01", "2026-06-30", "2026-07-01")]
    assert [price.id if price else None for price in named] == [
        "openai/gpt-4o@2024-11-20",  # before the operator's first row the list counts
        "sky/gpt-4o@2026-01-01", "sky/gpt-4o@2026-01-01", "sky/gpt-4o@2026-07-01",
    ]  # fmt: skip
    assert find("sky/gpt-9", "2026-07-01") is None  # unpriced
    mine = find("sky/mine", "2026-07-01")
    assert mine is not None and mine.model == "openai/gpt-5.4"


def test_tiers_and_long_prompts_of_the_operators_own() -> None:
    (_, price) = overrides(settings(DATED))
    # 150,000 in and 10 out, flex and long: twice $0.50/M and 1.5 times $2/M: $0.15 + $0.00003
    assert priced(Usage(input=150_000, output=10, tier="flex"), price) == (
        150_030_000_000,
        "sky/gpt-4o@2026-07-01+flex+long",
    )
    assert price.audio == 9_000_000 and price.long_above == 100_000


def test_a_discount_that_says_nothing_of_a_meter_is_none_on_it() -> None:
    price = next(row for row in shipped() if row.model == "openai/gpt-5.4")
    # batch halves $2.50/M and $15/M; the list has no batch price of cached tokens: $0.25/M as ever, not $1.25/M
    assert priced(Usage(input=1_000, cache_read=1_000, output=100, tier="batch"), price)[0] == 2_250_000_000


@pytest.mark.parametrize(
    ("prices", "path", "wrong"),
    [
        ("prices: {sky/gpt-4o: 5}", "prices.sky/gpt-4o", "must be a price, or a list of prices"),
        ("prices: {sky/gpt-4o: []}", "prices.sky/gpt-4o", "different first days"),
        ("prices: {sky/gpt-4o: [{input: $1/M, output: $1/M}, {input: $2/M, output: $1/M}]}", "prices.sky/gpt-4o", "different first days"),
        ("prices: {sky/gpt-4o: [{input: $1/M, output: $1/M}, {from: 2026-02-30, input: $2/M, output: $1/M}]}", "prices.sky/gpt-4o[1].from", "is no day"),
        ("prices: {sky/gpt-4o: {input: $1/M, output: $1/M, long: {input: $1/M, output: $1/M}}}", "prices.sky/gpt-4o.long.above", "is required"),
        ("prices: {sky/gpt-4o: {input: $1/M, output: $1/M, turbo: {input: $1/M, output: $1/M}}}", "prices.sky/gpt-4o.turbo", "is not a setting"),
        ("prices: {sky/gpt-4o: {input: $1/M, output: $1/M, flex: {input: 1, output: $1/M}}}", "prices.sky/gpt-4o.flex.input", "dollars per million"),
        ("prices: {sky/none: [{input: $1/M, output: $1/M}]}", "prices.sky/none", ""),
    ],
)  # fmt: skip
def test_mistakes_have_their_place(prices: str, path: str, wrong: str) -> None:
    found = mistakes(prices)
    assert any(place == path and wrong in words for place, words in found), found


def test_old_rows_are_worth_another_look() -> None:
    price = Price("openai/m", 1, 1, source="https://x", read="2026-07-31")
    assert not stale(price, "2026-12-31") and stale(price, "2027-02-01")
    assert not stale(Price("sky/m", 1, 1, source="configuration"), "2030-01-01")


# --- the command -------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("K", raising=False)
    (tmp_path / "spillway.yaml").write_text(ENGINES + DATED)
    return tmp_path


def spillway(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["prices", *arguments], catch_exceptions=False)


def test_show_says_every_meter_and_where_it_was_read(here: Path) -> None:
    done = spillway("show", "sky/mine", "--on", "2026-10-01")
    assert done.exit_code == 0
    assert "openai/gpt-5.4 on 2026-10-01, from 2026-03-05" in done.stdout and "$0.25" in done.stdout
    assert "priority" in done.stdout and "above 272,000" in done.stdout and "read 2026-07-31" in done.stdout
    found = json.loads(spillway("show", "openai/gpt-5.4", "--on", "2026-10-01", "--json").stdout)
    assert (found["input"], found["long"]["above"], found["tiers"]["flex"]["output"]) == (2_500_000, 272_000, 7_500_000)
    own = spillway("show", "sky/gpt-4o", "--on", "2026-03-01")
    assert (
        "$2" in own.stdout
        and "source: this configuration" in own.stdout
        and "also: from 2026-07-01, $1 in, $4 out" in own.stdout
    )


def test_show_of_an_unpriced_model_says_what_becomes_of_it(here: Path) -> None:
    done = spillway("show", "sky/gpt-9", "--on", "2026-10-01")
    assert done.exit_code == 1 and "unpriced" in done.stdout and "refused" in done.stdout
    (here / "spillway.yaml").write_text(ENGINES + "unpriced: {input: $9/M, output: $99/M}\n")
    done = spillway("show", "sky/gpt-9", "--json")
    assert done.exit_code == 1 and "$9 in and $99 out" in json.loads(done.stdout)["then"]
    assert spillway("show", "openai/gpt-5", "--on", "2024-01-01").exit_code == 1  # before its first day


def test_list_is_every_price_of_a_day(here: Path) -> None:
    rows = json.loads(spillway("list", "--on", "2026-10-01", "--json").stdout)
    names = [row["model"] for row in rows]
    assert len(names) == len(set(names)) > 70 and names[0] == "sky/gpt-4o"
    luna: dict[str, Any] = next(row for row in rows if row["model"] == "openai/gpt-5.6-luna")
    assert luna["input"] == 200_000
    before = json.loads(spillway("list", "--on", "2026-07-29", "--vendor", "openai", "--json").stdout)
    assert next(row for row in before if row["model"] == "openai/gpt-5.6-luna")["input"] == 1_000_000
    assert all(row["model"].startswith("openai/") for row in before)
    late = spillway("list", "--on", "2027-08-01")
    assert late.exit_code == 0 and "old" in late.stdout and "half a year" in late.stderr
    assert spillway("list", "--on", "2019-01-01", "--vendor", "openai").exit_code == 1


def test_check_is_for_a_nightly_job(here: Path) -> None:
    done = spillway("check", "--on", "2026-10-01", "--json")
    states = {row["target"]: row["state"] for row in json.loads(done.stdout)["targets"]}
    assert done.exit_code == 1 and states == {"sky/gpt-4o": "priced", "sky/mine": "priced", "sky/gpt-9": "unpriced"}
    assert "old" in spillway("check", "--on", "2027-10-01").stdout
    (here / "spillway.yaml").write_text(ENGINES.replace(", gpt-9: {}", ""))
    assert spillway("check", "--on", "2026-10-01").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("show", "openai/gpt-5x"), "gpt-5"),
        (("show", "x/y", "--on", "monday"), "is no day"),
        (("list", "--vendor", "google"), "anthropic, openai"),
    ],
)
def test_typed_wrong(here: Path, arguments: tuple[str, ...], words: str) -> None:
    done = spillway(*arguments)
    assert (done.exit_code, done.stdout) == (2, "") and words in done.stderr
