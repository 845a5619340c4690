"""`spillway reconcile` against scripted vendors on a real socket, through the official SDKs, and from downloaded files."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from outcomes import outcome
from typer.testing import CliRunner
from vendors import ADMIN_KEY, START, Vendor, anthropic_cost, anthropic_used, openai_cost, openai_used, serving

from compliance.journal import read
from proxy.cli import app
from proxy.projections.ledger import Ledger

CONFIG = """\
engines:
  sky: {kind: openai, key: {env: K}, models: {gpt-4o: {}, small: {id: text-embedding-3-small}}}
  claude: {kind: anthropic, key: {env: K}, models: {claude-sonnet-4-6: {}}}
"""
DOLLAR = 10**12
AT = int(START.timestamp()) * 1_000_000 + 7 * 86_400 * 1_000_000
COMPLETIONS, EMBEDDINGS, COSTS = (
    f"/v1/organization/{name}" for name in ("usage/completions", "usage/embeddings", "costs")
)
MESSAGES, COST_REPORT = "/v1/organizations/usage_report/messages", "/v1/organizations/cost_report"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_ADMIN_KEY", "ANTHROPIC_ADMIN_KEY", "OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "spillway.yaml").write_text(CONFIG)
    return tmp_path


def spillway(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["reconcile", *arguments], catch_exceptions=False)


def served(here: Path, *records: Any) -> None:
    ledger = Ledger(here / "state" / "ledger.db")
    for seq, record in enumerate(records):
        record.seq = seq
    ledger.project("i/slot-0", records)
    ledger.close()


def gpt_4o() -> list[Any]:
    """Three answers of gpt-4o in October 2026, at $2.50/M in, $1.25/M cached and $10/M out."""
    return [
        outcome(str(n), at=AT + n, target="sky/gpt-4o", input=300_000, cache_read=100_000, output=20_000, cost=DOLLAR * 1_075 // 1_000)
        for n in range(3)
    ]  # fmt: skip


def openai_october() -> Vendor:
    """The same usage, over five days and three pages."""
    vendor = Vendor()
    day = [openai_used("gpt-4o-2024-08-06", 400_000, 100_000, 20_000)]
    vendor.reports = {
        COMPLETIONS: [day, [], day, [], day],
        EMBEDDINGS: [[]],
        COSTS: [[openai_cost("gpt-4o-2024-08-06, input", 0.75), openai_cost("gpt-4o-2024-08-06, cached input", 0.125)], [],
                [openai_cost("gpt-4o-2024-08-06, output", 0.2)], [openai_cost("gpt-4o-2024-08-06, input", 1.75)],
                [openai_cost("gpt-4o-2024-08-06, output", 0.4)]],
    }  # fmt: skip
    return vendor


def from_api(vendor: Vendor, monkeypatch: pytest.MonkeyPatch, name: str, *more: str) -> Result:
    monkeypatch.setenv(f"{name.upper()}_ADMIN_KEY", ADMIN_KEY)
    with serving(vendor) as url:
        base = f"{url}/v1" if name == "openai" else url
        return spillway(name, "--month", "2026-10", "--base-url", base, *more)


def test_openais_month_through_its_sdk(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served(here, *gpt_4o())
    vendor = openai_october()
    done = from_api(vendor, monkeypatch, "openai", "--json")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["agrees"]) == (0, True)
    (model,) = found["models"]
    assert (
        model["vendor_tokens"]
        == {"input": 900_000, "cache_read": 300_000, "cache_write": 0, "output": 60_000}
        == model["ledger_tokens"]
    )
    assert (
        found["billed"] == found["booked"] == 3 * DOLLAR * 1_075 // 1_000
    )  # $0.75 + 0.125 + 0.2 + 1.75 + 0.4 = $3.225
    pages = [query.get("page", ["-"])[0] for path, query in vendor.asked if path == COMPLETIONS]
    assert pages == ["-", "page_2", "page_4"]
    assert vendor.asked[0][1]["group_by[]"] == ["model", "api_key_id", "project_id"]
    assert vendor.asked[0][1]["start_time"] == [str(int(START.timestamp()))]
    assert ADMIN_KEY not in done.stdout + done.stderr


def test_anthropics_month_through_its_sdk(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sonnet 4.6 at $3/M in, $0.30/M read, $6/M written for an hour, $15/M out; amounts are cents."""
    cost = 900_000_000_000 + 60_000_000_000 + 60_000_000_000 + 750_000_000_000
    served(
        here,
        outcome(
            "a",
            at=AT,
            target="claude/claude-sonnet-4-6",
            input=300_000,
            cache_read=200_000,
            cache_write_1h=10_000,
            output=50_000,
            cost=cost,
        ),
    )
    vendor = Vendor()
    vendor.reports = {
        MESSAGES: [[anthropic_used("claude-sonnet-4-6", 100_000, 0, 10_000)], [anthropic_used("claude-sonnet-4-6", 200_000, 200_000, 40_000, hour=10_000)], []],
        COST_REPORT: [[anthropic_cost("claude-sonnet-4-6", "96.00")], [anthropic_cost("claude-sonnet-4-6", "81.00000")], [anthropic_cost(None, "12.5", "web_search")]],
    }  # fmt: skip
    done = from_api(vendor, monkeypatch, "anthropic", "--json")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["agrees"], found["billed"]) == (0, True, cost)  # $0.90 + 0.06 + 0.06 + 0.75 = $1.77
    assert found["others"] == [{"item": "None Usage", "amount": DOLLAR // 8, "project": ""}]
    assert [query["page"][0] for path, query in vendor.asked if "page" in query] == ["page_2", "page_2"]
    assert vendor.asked[0][1]["starting_at"] == ["2026-10-01T00:00:00Z"] and vendor.asked[0][1]["ending_at"] == [
        "2026-11-01T00:00:00Z"
    ]


def test_a_dearer_bill_is_corrected_once_and_then_agrees(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served(here, *gpt_4o())
    vendor = openai_october()
    vendor.reports[COSTS].append([openai_cost("gpt-4o-2024-08-06, output", 0.322_5)])  # a tenth more
    tried = from_api(vendor, monkeypatch, "openai", "--dry-run")
    assert tried.exit_code == 1 and "corrections would be posted (--dry-run), $0.322500 in all" in tried.stdout
    first = from_api(vendor, monkeypatch, "openai")
    assert first.exit_code == 1 and "corrections posted: 1" in first.stdout and "price" in first.stdout
    ledger = Ledger(here / "state" / "ledger.db")
    (correction,) = ledger.corrections()
    ledger.close()
    assert (correction["vendor"], correction["model"], correction["amount"]) == ("openai", "gpt-4o", 322_500_000_000)
    records = [record for record in read(here / "audit" / "cli") if record.kind == "correction"]
    assert [(r.amount, r.cause, r.source, r.booked, r.billed) for r in records] == [
        (322_500_000_000, "price", "api", 3_225_000_000_000, 3_547_500_000_000)
    ]  # fmt: skip
    second = from_api(vendor, monkeypatch, "openai", "--json")
    assert second.exit_code == 0 and json.loads(second.stdout)["posted"] == 0
    verified = CliRunner().invoke(app, ["audit", "verify"])
    assert verified.exit_code in (0, 3), verified.stderr  # consistent; anchored or not


def test_what_went_round_the_proxy_is_an_alarm(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served(here, *gpt_4o())
    vendor = openai_october()
    vendor.reports[COMPLETIONS][1] = [
        openai_used("gpt-4o-2024-08-06", 50_000, 0, 1_000, key="key_rogue", requests=7), openai_used("o3", 9_000, 0, 100)
    ]  # fmt: skip
    vendor.reports[COSTS].append([openai_cost("gpt-4o-2024-08-06, input", 0.135), openai_cost("o3, input", 0.0188)])
    done = from_api(vendor, monkeypatch, "openai", "--key", "key_ours")
    assert done.exit_code == 1
    assert ": they agree\n" in done.stdout  # what passed; the alarm is beside it
    assert "ALARM: went round the proxy: key key_rogue: gpt-4o-2024-08-06, 51,000 tokens in 7 requests" in done.stderr
    assert "ALARM: went round the proxy: a model that never passed (key key_ours): o3, 9,100 tokens" in done.stderr
    ledger = Ledger(here / "state" / "ledger.db")
    assert (
        ledger.corrections() == []
    )  # the bill of the others is not ours: $0.135 of $3.36 is their part, at list prices
    ledger.close()


def test_a_downloaded_report(here: Path) -> None:
    served(here, *gpt_4o())
    vendor = openai_october()
    vendor.per_page = 31
    pages = [vendor.page(path, {}) for path in (COMPLETIONS, COSTS)]
    late = vendor.bucket(COMPLETIONS, 31, [openai_used("gpt-4o", 10**9, 0, 0)])  # the first of November
    pages[0]["data"].append(late)
    (here / "usage.json").write_text(json.dumps(pages[0]))
    (here / "both.json").write_text(json.dumps({"usage": pages[0], "costs": [pages[1]]}))
    (here / "costs.json").write_text(json.dumps(pages[1]))
    assert spillway("openai", "--month", "2026-10", "--file", "usage.json", "--file", "costs.json").exit_code == 0
    assert spillway("openai", "--month", "2026-10", "--file", "both.json").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("google",), "there is no vendor"),
        (("openai", "--month", "2026-13"), "is no month"),
        (("openai", "--month", "10/2026"), "write 2026-10"),
        (("openai", "--month", "2999-01"), "has not begun"),
        (("openai",), "OPENAI_ADMIN_KEY is not set"),
        (("anthropic", "--admin-key-env", "NOWHERE"), "NOWHERE is not set"),
        (("openai", "--admin-key-file", "nowhere"), "cannot be read"),
        (("openai", "--file", "nowhere.json"), "cannot be read"),
        (("openai", "--file", "bad.json"), "is not JSON"),
        (("openai", "--file", "empty.json"), "hold no report"),
        (("openai", "--file", "odd.json", "--month", "2026-10"), "none of openai's usage or costs"),
        (("openai", "--file", "euro.json", "--month", "2026-10"), "the ledger is in USD"),
        (("openai", "--file", "minus.json", "--month", "2026-10"), "is no count of tokens"),
        (("openai", "--file", "bad.json", "--base-url", "http://x"), "the report is at hand"),
    ],
)
def test_typed_wrong(here: Path, arguments: tuple[str, ...], words: str) -> None:
    served(here, *gpt_4o())
    bucket = Vendor().bucket(COSTS, 3, [])
    files = {
        "bad.json": "{", "empty.json": '{"data": []}', "odd.json": {**bucket, "results": [{"a": 1}]},
        "euro.json": {**bucket, "results": [{"amount": {"value": 1, "currency": "eur"}}]},
        "minus.json": {**bucket, "results": [{**openai_used("m", 1, 0, 0), "output_tokens": -1}]},
    }  # fmt: skip
    for name, value in files.items():
        (here / name).write_text(value if isinstance(value, str) else json.dumps(value))
    done = spillway(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr


@pytest.mark.parametrize(
    ("status", "words"), [(401, "is not accepted"), (403, "takes an admin key"), (404, "answered 404")]
)
def test_a_vendor_that_refuses(here: Path, monkeypatch: pytest.MonkeyPatch, status: int, words: str) -> None:
    served(here, *gpt_4o())
    for name in ("openai", "anthropic"):
        vendor = Vendor()
        vendor.status = status
        done = from_api(vendor, monkeypatch, name)
        assert done.exit_code == 2 and words in done.stderr
        assert ADMIN_KEY not in done.stderr  # the server repeats it


def test_nobody_listens(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served(here, *gpt_4o())
    monkeypatch.setenv("OPENAI_ADMIN_KEY", ADMIN_KEY)
    monkeypatch.setattr("openai._base_client.BaseClient._calculate_retry_timeout", lambda *a, **k: 0.0)
    done = spillway("openai", "--month", "2026-10", "--base-url", "http://127.0.0.1:9/v1")
    assert done.exit_code == 2 and "cannot be reached" in done.stderr


def test_the_last_whole_month_is_meant(here: Path) -> None:
    from proxy.cli_reconcile import _month

    start, end = _month(None)
    now = datetime.now(start.tzinfo)
    assert start < end <= now and start.day == end.day == 1 and (now - end).days < 31
