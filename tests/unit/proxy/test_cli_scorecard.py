"""`spillway scorecard` in this process: over a real ledger, as words, JSON and a page."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from click.testing import Result
from outcomes import decision, outcome, refused
from typer.testing import CliRunner

from proxy.cli import app
from proxy.projections.ledger import Ledger

CONFIG = """\
engines:
  gpu:
    kind: vllm
    replicas: ['http://127.0.0.1:9']
    models: {llama: {fine_tuned: true}}
    concurrency: 16
    cost: {purchase: $100, watts: {idle: 200, load: 1400}, kwh: $0.12}
  sky: {kind: openai, key: {env: SPILLWAY_TEST_KEY}, models: {gpt-4o: {}}}
"""
SECOND = 1_000_000


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spillway.yaml").write_text(CONFIG)
    return tmp_path


def spillway(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def served(here: Path) -> None:
    now = time.time_ns() // 1000 - SECOND
    home = {"target": "gpu/llama", "boundary": "local"}
    records = []
    for number in range(40):
        at = now - number * 86_400 * SECOND
        records += [
            decision(f"l{number}", at=at, stream=True, action="keep_local", findings=("ssn:1:x",), **home),
            outcome(
                f"l{number}",
                at=at,
                price="local",
                connect_us=10,
                first_us=500_000,
                total_us=60 * SECOND,
                input=500_000,
                output=90_000,
                **home,
            ),
        ]
    records += [
        decision("c", at=now, overflow="saturated", target="sky/gpt-4o"),
        outcome("c", at=now, target="sky/gpt-4o", cost=10**12, input=100_000, output=75_000, total_us=9 * SECOND),
        refused("r", "queue_timeout", at=now),
    ]
    for seq, record in enumerate(records):
        record.seq = seq
    ledger = Ledger(here / "state" / "ledger.db")
    ledger.project("i/slot-0", records)
    ledger.close()


def test_every_figure_of_the_scorecard(here: Path) -> None:
    served(here)
    done = spillway("scorecard", "--against", "openai/gpt-4o", "--html", "card.html", "--json")
    assert done.exit_code == 0 and "in card.html" in done.stderr
    figures = {row["name"]: row for row in json.loads(done.stdout)["figures"]}
    assert {
        "cost_local", "cost_api", "spent", "baseline", "saved", "margin", "payback", "three_years", "month_change", "month_variation",
        "overflow", "api_by_choice", "sensitive_local", "latency_all_p50", "latency_all_p95", "latency_all_p99", "first_all_p50",
        "first_all_p95", "first_all_p99", "throughput_requests", "throughput_output", "utilisation_gpu", "speed_gpu", "parity",
        "availability", "fine_tuned",
    } <= set(figures)  # fmt: skip
    assert all(row["how"] for row in figures.values())
    assert figures["overflow"]["value"] == pytest.approx(1 / 41)
    assert figures["sensitive_local"]["value"] == 1.0
    assert figures["availability"]["value"] == pytest.approx(41 / 42)
    assert figures["latency_all_p99"]["value"] == 60 * SECOND
    assert figures["first_local_p50"]["value"] == 500_000
    assert figures["fine_tuned"]["value"] == 1
    page = (here / "card.html").read_text()
    for row in figures.values():
        assert row["value"] is None or f'id="{row["name"]}"' in page, row["name"]
    words = spillway("scorecard", "--window", "10d").stdout
    assert "missing: --against" in words and "missing: shadow comparisons" in words


def test_a_scorecard_of_nothing_names_what_is_missing(here: Path) -> None:
    assert spillway("scorecard").exit_code == 1
    Ledger(here / "state" / "ledger.db").close()
    done = spillway("scorecard", "--against", "openai/gpt-4o", "--html", "card.html", "--json")
    assert done.exit_code == 0
    figures = {row["name"]: row for row in json.loads(done.stdout)["figures"]}
    assert figures["overflow"]["value"] is None and figures["availability"]["how"] == "missing: requests"
    assert "missing: requests" in (here / "card.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--against", "openai/gpt-4oo"), "did you mean 'openai/gpt-4o'?"), (("--since", "2999-01-01"), "empty"),
        (("--tz", "x"), "no time zone"), (("--window", "day", "--since", "1d"), "two ways"),
    ],
)  # fmt: skip
def test_typed_wrong(here: Path, arguments: tuple[str, ...], words: str) -> None:
    served(here)
    done = spillway("scorecard", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr
