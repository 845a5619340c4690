"""`spillway spend` and `spillway plan` in this process: exit codes, streams, and what people type wrong."""

from __future__ import annotations

import csv
import fcntl
import json
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from outcomes import outcome
from typer.testing import CliRunner

from proxy.cli import app
from proxy.projections.ledger import Ledger

CONFIG = """\
engines:
  gpu:
    kind: vllm
    replicas: ['http://127.0.0.1:9']
    models: {llama: {}}
    cost: {purchase: $60000, life_years: 4, residual: 10%, financing: 5%, watts: {idle: 200, load: 1400}, pue: 1.3, kwh: $0.12}
  sky: {kind: openai, key: {env: SPILLWAY_TEST_KEY}, models: {gpt-4o: {}, big: {id: gpt-4.1}, odd: {}}}
prices: {sky/odd: {input: $1/M, output: $2/M}}
"""
DOLLAR = 1_000_000_000_000
SECOND = 1_000_000


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPILLWAY_TEST_KEY", raising=False)
    (tmp_path / "spillway.yaml").write_text(CONFIG)
    return tmp_path


def spillway(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def served(here: Path) -> None:
    """Ten days ago and now: a local answer and a cloud one each."""
    now = time.time_ns() // 1000
    ledger = Ledger(here / "state" / "ledger.db")
    local: dict[str, Any] = {
        "target": "gpu/llama", "boundary": "local", "price": "local", "connect_us": 10, "total_us": 60 * SECOND + 10,
        "input": 1_000_000, "output": 100_000, "model": "chat",
    }  # fmt: skip
    records = [
        outcome("a", at=now - 10 * 86_400 * SECOND, **local), outcome("b", at=now - 10 * 86_400 * SECOND, cost=2 * DOLLAR, target="sky/gpt-4o"),
        outcome("c", at=now - SECOND, **local), outcome("d", at=now - SECOND, cost=3 * DOLLAR, target="sky/gpt-4o", input=7),
    ]  # fmt: skip
    for seq, record in enumerate(records):
        record.seq = seq
    ledger.project("i/slot-0", records)
    ledger.close()


# --- spend --------------------------------------------------------------------------------------------------


def test_spend_values_local_rows_and_adds_up(here: Path) -> None:
    served(here)
    found = json.loads(spillway("spend", "--by", "target, boundary", "--against", "openai/gpt-4o", "--json").stdout)
    rows = {(row["target"], row["boundary"]): row for row in found["rows"]}
    assert rows["sky/gpt-4o", "cloud"]["cost"] == 5 * DOLLAR
    assert rows["gpu/llama", "local"]["avoided"] == 7 * DOLLAR  # twice 1M in at $2.50 and 0.1M out at $10
    (pool,) = found["pools"]
    assert pool["busy_us"] == 120 * SECOND
    assert rows["gpu/llama", "local"]["own"] == pool["busy_cost"] > 0
    assert found["total"]["spent"] == 5 * DOLLAR + pool["total"]
    table = spillway("spend", "--against", "sky/big").stdout
    assert "idle: gpu" in table and "total" in table and "against sky/big: $5.60 avoided" in table  # 2 x ($2 + $0.80)


def test_what_a_second_of_reading_counts_is_the_operators_word(here: Path) -> None:
    served(here)
    (here / "spillway.yaml").write_text(
        CONFIG.replace("kwh: $0.12}", "kwh: $0.12, prefill_weight: 2.5, prompt_speed: 50}")
    )
    found = json.loads(spillway("spend", "--by", "target", "--json").stdout)
    (pool,) = found["pools"]
    assert "a second of reading counts 2.5" in "".join(found["notes"]) and "50 read in the time of one" in "".join(
        found["notes"]
    )
    # 1M tokens read at 50 in the time of one, 0.1M written: 1 / (1 + 5) of the time
    assert abs(pool["prefill_us"] - pool["engine_us"] // 6) <= 2
    row = next(row for row in found["rows"] if row["local"])
    assert abs(row["own_prefill"] / row["own"] - 2.5 / 7.5) < 1e-6
    wrong = CONFIG.replace("kwh: $0.12}", "kwh: $0.12, prefill_weight: 0}")
    (here / "spillway.yaml").write_text(wrong)
    assert "prefill_weight" in spillway("spend").stderr


def test_spend_of_a_window(here: Path) -> None:
    served(here)
    assert json.loads(spillway("spend", "--window", "1d", "--json").stdout)["total"]["api"] == 3 * DOLLAR
    assert json.loads(spillway("spend", "--json").stdout)["total"]["api"] == 5 * DOLLAR
    day = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 3 * 86_400))
    assert json.loads(spillway("spend", "--from", day, "--json").stdout)["total"]["api"] == 3 * DOLLAR
    assert json.loads(spillway("spend", "--to", day, "--json").stdout)["total"]["api"] == 2 * DOLLAR


def test_spend_as_csv(here: Path) -> None:
    served(here)
    done = spillway("spend", "--by", "day,target", "--csv", "spend.csv")
    assert "total" in done.stdout and "5 lines in spend.csv" in done.stderr
    with open("spend.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["line"] for row in rows] == ["usage"] * 4 + ["idle"]
    assert spillway("spend", "--csv", "no/such/dir.csv").exit_code == 1


def test_spend_in_every_form_at_once(here: Path) -> None:
    pytest.importorskip("duckdb")
    served(here)
    done = spillway(
        "spend",
        "--by",
        "model",
        "--against",
        "openai/gpt-4o",
        "--html",
        "a.html",
        "--parquet",
        "a.parquet",
        "--csv",
        "a.csv",
        "--json",
    )
    assert done.exit_code == 0
    assert all(f"in a.{form}" in done.stderr for form in ("html", "parquet", "csv"))
    page = (here / "a.html").read_text()
    spent = json.loads(done.stdout)["total"]["spent"]
    assert f'value="{spent // DOLLAR}.{spent % DOLLAR:012d}"' in page
    assert "script" not in page.lower() and "http" not in page.replace("http-equiv", "").replace(
        "https://github.com", ""
    )  # nothing is loaded
    for form in ("--html", "--parquet"):
        assert "cannot be written" in spillway("spend", form, "no/such/file").stderr


def test_a_ledger_in_use_is_not_rebuilt(here: Path) -> None:
    assert "there are no logs in" in spillway("spend", "--rebuild").stderr
    (here / "audit" / "slot-0").mkdir(parents=True)
    (here / "audit" / "slot-0" / "key.pub").write_text("")
    served(here)
    with open(here / "state" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = spillway("spend", "--rebuild")
    assert done.exit_code == 1 and "stop it first" in done.stderr


def test_spend_by_the_days_of_a_time_zone(here: Path) -> None:
    ledger = Ledger(here / "state" / "ledger.db")
    ledger.project("i/slot-0", [outcome("a", at=1_795_476_600_000_000, cost=1, seq=0)])  # 2026-11-23 23:30 UTC
    ledger.close()
    for zone, day in (
        ((), "2026-11-23"),
        (("--tz", "Europe/Vienna"), "2026-11-24"),
        (("--tz", "America/New_York"), "2026-11-23"),
    ):
        (row,) = json.loads(spillway("spend", "--by", "day", "--until", "2026-11-25", *zone, "--json").stdout)["rows"]
        assert row["day"] == day


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("--tz", "Mars/Olympus"), 2, "no time zone"),
        (("--by", "tag:a b"), 2, "cannot list by 'tag:a b'"),
        (("--by", "moon"), 2, "there are day, hour, month, organisation, tenant"),
        (("--by", "day,"), 2, "cannot list by ''"),
        (("--against", "openai/gpt-4oo"), 2, "did you mean 'openai/gpt-4o'?"),
        (("--window", "week"), 2, "no window"),
        (("--window", "day", "--from", "2026-01-01"), 2, "two ways"),
        (("--from", "yesterday"), 2, "no day"),
    ],
    ids=str,
)
def test_spend_typed_wrong(here: Path, arguments: tuple[str, ...], status: int, words: str) -> None:
    served(here)
    done = spillway("spend", *arguments)
    assert (done.exit_code, done.stdout) == (status, "")
    assert words in done.stderr


def test_spend_without_a_ledger_or_with_an_empty_one(here: Path) -> None:
    assert spillway("spend").exit_code == 1
    Ledger(here / "state" / "ledger.db").close()
    done = spillway("spend")
    assert done.exit_code == 0 and "total" in done.stdout


# --- plan ---------------------------------------------------------------------------------------------------


def test_plan_of_stated_volumes(here: Path) -> None:
    wanted = ("plan", "--tokens-in", "800M", "--tokens-out", "200M", "--against", "openai/gpt-4o", "--json")
    done = spillway(*wanted)
    found = json.loads(done.stdout)
    figures = {name: row["value"] for name, row in found["figures"].items()}
    assert figures["api_month"] == 4_000 * DOLLAR  # 800 x $2.50 + 200 x $10
    # all busy: 730 h x 1.4 kW x 1.3 x $0.12 = $159.432, and interest of $137.50
    assert figures["running_month"] == 296_932_000_000_000
    assert figures["payback_months"] == 16.2  # 60,000 / 3,703.068
    assert figures["api_per_million"] == 4 * DOLLAR
    assert (done.exit_code, found["pays_back"]) == (0, True)
    assert any("utilisation is not stated" in note for note in found["notes"])
    half = json.loads(spillway(*wanted, "--utilisation", "50%").stdout)
    # 365 h at 1.4 kW and 365 h at 0.2 kW: $79.716 + $11.388, and the interest
    assert half["figures"]["running_month"]["value"] == 228_604_000_000_000
    assert not any("utilisation is not stated" in note for note in half["notes"])
    assert "800,000,000 in at $2.50/M" in found["figures"]["api_month"]["how"]
    assert spillway(*wanted, "--purchase", "$400000").exit_code == 1


def test_options_change_the_engines_card(here: Path) -> None:
    done = spillway("plan", "--engine", "gpu", "--purchase", "$1200", "--financing", "0%", "--watts-load", "0", "--watts-idle", "0",
                    "--api", "$100/month", "--rent", "$50/month", "--json")  # fmt: skip
    figures = json.loads(done.stdout)["figures"]
    assert figures["payback_months"]["value"] == 24  # 1,200 / (100 - 50)
    # of its residual of 10%: (1,200 - 120) / 48 = $22.50
    assert figures["loaded_month"]["value"] == 72_500_000_000_000


def test_plan_from_the_ledger(here: Path) -> None:
    served(here)
    done = spillway("plan", "--against", "openai/gpt-4o", "--json")
    found = json.loads(done.stdout)
    # $5 of cloud and $7 of local in ten days and a minute, as a month of 365 / 12 days
    assert abs(found["figures"]["api_month"]["value"] / DOLLAR - 12 / 10 * 365 / 12) < 0.05
    assert done.exit_code == 1
    notes = "\n".join(found["notes"])
    assert "gpu was busy 0.0% of the period" in notes and "as if it could be answered locally" in notes
    alone = json.loads(spillway("plan", "--window", "1d", "--json").stdout)
    assert alone["figures"]["api_month"]["value"] == 3 * DOLLAR * 365 // 12
    notes = "\n".join(alone["notes"])
    assert "local attempts that are not counted: 1" in notes and "only 1.0 days" in notes
    assert "payback in months, by utilisation" in spillway("plan").stdout


def test_plan_takes_the_use_of_the_pool_from_the_ledger(here: Path) -> None:
    """Busy for 72 of 240 hours, three quarters of the tokens: with the cloud's, 40%."""
    now = time.time_ns() // 1000
    hour = 3_600 * SECOND
    ledger = Ledger(here / "state" / "ledger.db")
    local: dict[str, Any] = {"target": "gpu/llama", "boundary": "local", "connect_us": 10, "input": 750}
    ledger.project(
        "i/slot-0",
        [
            outcome("a", seq=0, at=now - 168 * hour, total_us=72 * hour + 10, **local),
            outcome("b", seq=1, at=now - hour, target="sky/gpt-4o", input=250, cost=3),
        ],
    )
    ledger.close()
    asked = ("plan", "--against", "openai/gpt-4o", "--json")
    found = json.loads(spillway(*asked).stdout)
    assert abs(found["utilisation"] - 0.4) < 1e-4
    assert "utilisation is taken from the ledger, cloud tokens added: 40.0%" in found["notes"]
    assert json.loads(spillway(*asked, "--utilisation", "50%").stdout)["utilisation"] == 0.5
    other = json.loads(spillway(*asked, "--purchase", "$5").stdout)  # other hardware: nothing was measured of it
    assert other["utilisation"] == 1 and any("not stated" in note for note in other["notes"])


def test_plan_buy_or_rent(here: Path) -> None:
    asked = ("plan", "--api", "$9000/month", "--purchase", "$36500", "--rented", "$2.50/hour", "--gpus", "2")
    figures = {name: row["value"] for name, row in json.loads(spillway(*asked, "--json").stdout)["figures"].items()}
    assert figures["rent_month"] == 3_650 * DOLLAR  # 730 hours, two of them
    assert figures["buy_over_rent_months"] == 10
    assert "over three years buying is cheapest" in spillway(*asked).stdout
    assert spillway(*asked[:-4], "--rented", "2.50").exit_code == 2


WRONG: list[tuple[tuple[str, ...], str]] = [
    ((), "no ledger"),
    (("--api", "$5"), "write $5/month"),
    (("--api", "$5/month", "--engine", "cpu"), "no engine 'cpu'"),
    (("--api", "$5/month", "--engine", "sky"), "has no cost"),
    (("--api", "$5/month", "--purchase", "60000"), "--purchase an amount of money"),
    (("--api", "$5/month", "--life-years", "four"), "--life-years must be a number"),
    (("--api", "$5/month", "--watts-load", "100"), "less than what it draws idle"),
    (("--api", "$5/month", "--watts-load", "-1"), "--watts-load must be at least 0"),
    (("--api", "$5/month", "--purchase", "$0"), "nothing is bought"),
    (("--api", "$5/month", "--against", "openai/gpt-4o"), "leave one of them out"),
    (("--api", "$5/month", "--window", "month"), "has no period"),
    (("--api", "$5/month", "--utilisation", "0%"), "more than nothing"),
    (("--api", "$5/month", "--utilisation", "60"), "write 60%"),
    (("--api", "$5/month", "--rented", "$5"), "such as $2.10/hour"),
    (("--tokens-in", "1M"), "--against says"),
    (("--tokens-in", "many", "--against", "openai/gpt-4o"), "such as 80M"),
    (("--tokens-in", "1M", "--against", "openai/none"), "has no price"),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG, ids=str)
def test_plan_typed_wrong_is_never_an_answer(here: Path, arguments: tuple[str, ...], words: str) -> None:
    done = spillway("plan", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr


def test_plan_of_an_empty_ledger_or_a_broken_configuration_is_no_answer(here: Path) -> None:
    Ledger(here / "state" / "ledger.db").close()
    assert "nothing in this period" in spillway("plan").stderr
    assert spillway("plan").exit_code == 2
    (here / "spillway.yaml").write_text("engines: []")
    assert spillway("plan", "--api", "$5/month", "--purchase", "$5").exit_code == 2


def test_a_price_of_the_configuration_comes_first(here: Path) -> None:
    done = spillway("plan", "--tokens-in", "1M", "--tokens-out", "1M", "--against", "sky/odd", "--json")
    assert json.loads(done.stdout)["figures"]["api_month"]["value"] == 3 * DOLLAR


def test_the_meaning_of_a_rate_card_and_what_it_does_not_change(here: Path) -> None:
    explained = spillway("check", "--explain")
    assert explained.exit_code == 1  # the secret is missing
    (here / "spillway.yaml").write_text(CONFIG.replace("key: {env: SPILLWAY_TEST_KEY}", "key: {file: k}"))
    (here / "k").write_text("sk")
    explained = spillway("check", "--explain")
    # 1,125 + 137.50 + 730 h x 0.2 kW x 1.3 x $0.12 = $22.776
    assert "engine gpu: costs $1,285.28 a month when it is idle, all included" in explained.stdout
    policy = json.loads(spillway("check", "--json").stdout)["policy"]
    text = (here / "spillway.yaml").read_text()
    (here / "spillway.yaml").write_text(text.replace("$60000", "$70000"))
    assert json.loads(spillway("check", "--json").stdout)["policy"] == policy  # it decides nothing
