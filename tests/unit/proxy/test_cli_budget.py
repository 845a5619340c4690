"""`spillway budget` as a user types it."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from outcomes import outcome
from typer.testing import CliRunner

from compliance.journal import read
from compliance.records import BudgetChanged
from policies.budgets import Ask
from policies.windows import window_at
from proxy.cli import app
from proxy.projections.ledger import Ledger
from proxy.state.sqlite import SQLiteBudgets

CONFIG = """
engines: {sky: {kind: openai, replicas: ["http://127.0.0.1:1"], boundary: cloud, models: {m: {}}}}
prices: {sky/m: {input: $20/M, output: $80/M}}
keys: {nightly: {hash: "sha256:%s"}}
budgets:
  - {scope: org, window: month, limit: $2000}
  - {scope: team/oncology, window: month, limit: $300, at_limit: local_only}
  - {scope: team/oncology, window: day, limit: $20}
  - {scope: each team, window: month, limit: $100}
  - {scope: key/nightly, window: day, tokens: 5000}
  - {scope: each key, window: minute, requests: 600}
  - {scope: each user, window: rolling 24h, limit: $5}
""" % ("a" * 64)
DOLLAR = 10**12


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "spillway.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["budget", *arguments])


def rows(*arguments: str) -> dict[str, dict[str, Any]]:
    found = json.loads(run("show", "--json", *arguments).stdout)
    return {f"{row['account']} {row['kind']}": row for row in found}


def spend(home: Path, name: str, kind: str, settled: int, held: int = 0, slot: str = "a") -> None:
    store = SQLiteBudgets(home / "state" / "budgets.db")
    account = (name, window_at(kind, time.time()).id)
    store.grant(slot, [Ask(account, 10**18, settled + held, settled + held)])
    store.account(slot, store.accounted(slot) + 1, {account: settled})
    store.close()


def test_a_key_is_meant_by_its_name_and_charged_by_its_id(home: Path) -> None:
    """A limit for the name would be one for an account that nobody is charged to."""
    assert run("set", "key/nightly", "5 requests").stdout == "key/config:nightly: 5 requests a minute\n"
    assert rows()["key/config:nightly#requests-all minute"]["limit"] == 5
    assert run("set", "key/config:nightly", "6 requests").exit_code == 0
    assert run("set", "user/3f0a5c7d9e1b2a4c", "$5").exit_code == 0
    assert set(rows("user/3f0a5c7d9e1b2a4c")) == {"user/3f0a5c7d9e1b2a4c rolling 24h"}


def test_show_without_anything_spent_lists_budgets_by_name(home: Path) -> None:
    shown = run("show")
    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()
    assert re.split(r" {2,}", lines[0]) == [
        "scope",
        "window",
        "spent",
        "held",
        "left",
        "limit",
        "used",
        "forecast",
        "at the limit",
    ]
    assert [line.split()[0] for line in lines[1:]] == ["org", "team/oncology", "team/oncology", "key/nightly"]
    assert len({len(line.rstrip()) for line in lines}) <= 4  # columns line up


def test_show_says_what_is_spent_and_held_and_exits_with_1_at_a_limit(home: Path) -> None:
    spend(home, "org", "month", 500 * DOLLAR, 100 * DOLLAR)
    spend(home, "team/eyes", "month", 10 * DOLLAR)
    spend(home, "acme:team/ears", "month", 30 * DOLLAR)
    spend(home, "user/3f0a", "r86400", 2 * DOLLAR, slot="b")
    found = rows()
    assert found["org month"]["spent"] == 500 * DOLLAR
    assert (found["org month"]["held"], found["org month"]["left"]) == (100 * DOLLAR, 1_400 * DOLLAR)
    assert found["team/eyes month"]["limit"] == found["acme:team/ears month"]["limit"] == 100 * DOLLAR
    assert found["user/3f0a rolling 24h"]["forecast"] is None
    shown = run("show")
    assert shown.exit_code == 0
    assert "[####-           ]" in shown.stdout
    assert "$500.00" in shown.stdout
    spend(home, "key/nightly#tokens-all", "day", 5_000, slot="c")
    assert run("show").exit_code == 1
    assert run("show", "org").exit_code == 0
    assert list(rows("team/eyes")) == ["team/eyes month"]


def test_of_many_accounts_the_fullest_are_listed(home: Path) -> None:
    for number in range(25):
        spend(home, f"key/k{number}#requests-all", "minute", number + 1, slot=f"s{number}")
    if len(rows()) < 25:
        pytest.skip("the minute turned")
    shown = run("show")
    assert "key/k24 " in shown.stdout and "key/k1 " not in shown.stdout
    assert "5 more accounts" in shown.output
    assert "key/k1 " in run("show", "--all").stdout


def test_set_is_recorded_with_who_and_why_and_taken_back(home: Path) -> None:
    done = run("set", "team/oncology", "$5000", "--window", "month", "--reason", "trial until March")
    assert (done.exit_code, done.stdout) == (0, "team/oncology: $5,000.00 a month\n")
    assert rows()["team/oncology month"]["limit"] == 5_000 * DOLLAR
    assert "$5,000.00*" in run("show").stdout
    assert run("set", "key/nightly", "2k tokens").stdout == "key/nightly: 2,000 tokens a day\n"
    assert run("set", "key/key_1", "1200 requests").exit_code == 0  # one of each
    assert rows()["key/key_1#requests-all minute"]["limit"] == 1_200  # shown before it is used
    cleared = run("set", "team/oncology", "--window", "month", "--clear", "--json")
    assert json.loads(cleared.stdout)["limit"] == 300 * DOLLAR
    assert run("set", "team/oncology", "--window", "month", "--clear").exit_code == 1
    changes = [
        one
        for log in (home / "audit").iterdir()
        if log.is_dir() and (log / "key.pub").exists()
        for one in read(log)
        if isinstance(one, BudgetChanged)
    ]
    assert [(one.scope, one.window, one.limit, one.before, one.reason) for one in changes] == [
        ("team/oncology", "month", 5_000 * DOLLAR, -1, "trial until March"),
        ("key/nightly#tokens-all", "day", 2_000, -1, ""),
        ("key/key_1#requests-all", "minute", 1_200, -1, ""),
        ("team/oncology", "month", -1, 5_000 * DOLLAR, ""),
    ]
    assert all(one.actor for one in changes)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("set", "team/oncology", "$5"), "several limits: month in usd, day in usd"),
        (("set", "team/oncology", "$5", "--window", "week"), "no such limit"),
        (("set", "team/oncology", "$5", "--window", "fortnight"), "must be month"),
        (("set", "team/oncology", "5"), "'$5000', '2M tokens' or '600 requests'"),
        (("set", "team/oncology", "$5,000"), "write $5000"),
        (("set", "org"), "give an amount"),
        (("set", "org", "$5", "--reason", "for SSN 219-09-9999"), "seems to hold ssn"),
        (("set", "org", "$5", "--clear"), "give an amount"),
        (("set", "each key", "5 requests"), "name one of them"),
        (("set", "project/x", "$5"), "no budget is about 'project/x'"),
        (("set", "org", "5 tokens"), "no such limit"),
        (("set", "user/alice", "$5"), "known by their pseudonyms only"),
        (("set", "key/nigthly", "5 requests"), "there is no key 'nigthly'; did you mean 'nightly'?"),
        (("show", "project/x"), "there are org, team/oncology"),
        (("history", "team/oncology"), "several limits"),
        (("history", "org", "--unit", "euro"), "no unit"),
    ],
)
def test_what_is_typed_wrong_is_said(home: Path, arguments: tuple[str, ...], words: str) -> None:
    answer = run(*arguments)
    assert answer.exit_code == 2
    assert words in answer.output


def test_without_budgets_or_a_ledger_it_says_so(home: Path) -> None:
    assert "no ledger" in run("history", "org").output
    (home / "spillway.yaml").write_text("{}")
    assert run("show").exit_code == 1


def test_history_is_what_the_ledger_has_by_window(home: Path) -> None:
    now = int(time.time() * 1e6)
    day = 86_400_000_000
    rows_ = [
        {"at": now, "cost": 3 * DOLLAR, "team": "oncology"},
        {"at": now - day, "cost": 2 * DOLLAR, "team": "oncology"},
        {"at": now - day, "cost": 4 * DOLLAR, "team": "eyes"},
        {"at": now - day, "cost": 0, "boundary": "local", "team": "oncology"},
        {"at": now, "cost": 0, "boundary": "local", "key": "config:nightly", "input": 40, "output": 2},
    ]  # fmt: skip
    (home / "state").mkdir()
    ledger = Ledger(home / "state" / "ledger.db")
    ledger.project("i/slot-0", [outcome(str(seq), seq=seq, **fields) for seq, fields in enumerate(rows_)])
    ledger.close()
    found = json.loads(run("history", "team/oncology", "--window", "day", "--json").stdout)
    assert [(row["attempts"], row["spent"]) for row in found] == [(1, 2 * DOLLAR), (1, 3 * DOLLAR)]
    assert found[0]["ends"] == found[1]["begins"]
    tokens = json.loads(run("history", "key/nightly", "--unit", "tokens", "--json").stdout)
    assert [(row["unit"], row["spent"]) for row in tokens] == [("tokens", 42)]
    table = run("history", "team/oncology", "--window", "day").stdout
    assert table.splitlines()[0].split() == ["window", "attempts", "spent", "of", "today's", "limit"]
    assert "$2.00" in table and "10%" in table
    assert "nothing of team/nobody" in run("history", "team/nobody").output
