"""Reports say their scope, what they were made from and what they cannot say; a page of one runs nothing."""

from __future__ import annotations

import html.parser
import json
import re
from pathlib import Path
from typing import Any

import pytest
from auditing import PSEUDONYMS, SUBJECT, looks, small_log, spillway, write
from tests_records import decision, outcome

from compliance.records import BreakGlass, CanaryRun, PolicyChanged, Refused, Started, Stopped
from proxy.fingerprints import changes
from proxy.recording import subject_pseudonym
from proxy.reports.changes import rules_changed

REPORTS = ("disclosures", "access", "policy", "canary", "refusals")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def logs(here: Path) -> Path:
    return small_log(here)


class _Page(html.parser.HTMLParser):
    """What a page would run or load."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.asked: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.asked += [name for name, _ in attrs if name in ("src", "href", "onclick", "onload", "onerror", "style")]


@pytest.fixture
def told(logs: Path) -> Path:
    """Logs with a bit of everything, and names that would break out of a page, a table or a terminal."""
    evil = "<script>alert(1)</script> | `x` \x1b[2J"
    write(logs, started(lost_window_us=4000, interrupted=1, actor=evil), Stopped(at=1, slot="slot-0"))
    write(
        logs,
        PolicyChanged(actor=evil, at=1, changed=("compliance.rules.x",), config="c2", config_before="c1", policy="p2", policy_before="p1", version="v"),
        Refused(action="keep_local", at=1, code="no_eligible_target", findings=("ssn:1:x:100:1-2",), key="k", model="m", organisation="o",
                policy="p2", project=evil, request="ref", rule=evil, status=403, surface="openai.chat", tenant="t", vetoes=()),
        CanaryRun(actor=evil, at=1, broken=1, canaries=7, live=True, policy="p2", problems=(evil,), seed=3, unreached=("never",)),
        BreakGlass(actor=evil, at=1, by="dana", opening="o1", reason=evil, request="r", seconds=60, signature="", step="read", until=1, why=""),
        leaving("gone", contract="baa until 2020-01-01", purpose=evil), outcome("gone", connect_us=5),
        leaving("unsent"), outcome("unsent", ending="failed", error="connect_failed"),
        leaving("hidden", redacted=("ssn:1",), action="redact"), outcome("hidden", connect_us=5),
        leaving("nothing", findings=()), outcome("nothing", connect_us=5, findings=("ssn:1:text",)),
        leaving("killed", subject=subject_pseudonym(PSEUDONYMS, SUBJECT)), outcome("killed", ending="interrupted"),
        leaving("unread", findings=("opaque:1:x:100",)), outcome("unread", connect_us=5),
        slot="slot-1",
    )  # fmt: skip
    return logs


def started(**given: Any) -> Started:
    return Started(at=1, cut_bytes=0, instance="inst/slot-0", pid=1, policy="p", slot="slot-0", version="v", **given)


def leaving(request: str, **given: Any) -> Any:
    row = {
        "boundary": "cloud",
        "target": "sky/gpt",
        "provider": "openai",
        "health": True,
        "findings": ("ssn:1:x:100:1-2", "name:1:x:80:5-9"),
    }
    return decision(request, **{**row, **given})


@pytest.mark.parametrize("name", REPORTS)
def test_a_page_holds_what_it_needs_and_nothing_that_runs(told: Path, name: str) -> None:
    assert spillway("report", name, "--out", "page.html").exit_code == 0
    text = Path("page.html").read_text()
    page = _Page()
    page.feed(text)
    assert not {"script", "iframe", "img", "link", "object", "form"} & set(page.tags) and not page.asked
    assert "<script" not in text and "default-src 'none'" in text and "@media print" in text
    assert "&lt;script&gt;" in text or name == "disclosures"


@pytest.mark.parametrize("name", REPORTS)
def test_every_form_says_scope_sources_and_limits(told: Path, name: str) -> None:
    for form in ("text", "markdown", "html"):
        done = spillway("report", name, "--format", form, "--since", "2026-01-01", "--until", "2027-12-31")
        assert done.exit_code == 0
        for wanted in ("What this report cannot say", "What it was made from", "2026-01-01 00:00:00", "inst/slot-1"):
            assert wanted in done.stdout.replace("\\", ""), (name, form, wanted)
        assert "\x1b" not in done.stdout
    row = json.loads(spillway("report", name, "--json").stdout)
    assert row["recorded"] and {log["origin"] for log in row["logs"]} == {"inst/cli", "inst/slot-0", "inst/slot-1"}
    assert all(re.fullmatch("[0-9a-f]{64}", log["root"]) and log["signed"] == log["records"] for log in row["logs"])
    for section in row["sections"]:
        assert all(len(cells) == len(section["head"]) for cells in section["rows"])


def figures(name: str, *arguments: str) -> tuple[dict[str, str], list[Any]]:
    row = json.loads(spillway("report", name, *arguments, "--json").stdout)
    return dict(row["figures"]), row["sections"]


def test_disclosures_count_what_went_in_clear(told: Path) -> None:
    numbers, (sums, each, recipients) = figures("disclosures", "--until", "2030-01-01")
    # Of the logs' own six attempts to a cloud nothing was found in; `unsent` never went, `hidden` was replaced but for a name.
    assert numbers["attempts that left, all in all"] == str(6 + 6)
    assert numbers["disclosures"] == "4" and numbers["subjects named"] == "1"
    whose = {row[1].partition("/")[0]: row[4] for row in each["rows"]}
    assert whose == {
        "gone": "PHI: name, ssn",
        "hidden": "PHI: name",
        "killed": "PHI: name, ssn",
        "unread": "parts that could not be read",
    }
    assert [row[-1] for row in each["rows"] if row[1] == "killed/0"] == ["interrupted, arrival not known"]
    contracts = {row[2] for row in sums["rows"]}
    assert contracts == {"BAA until 2020-01-01 (had ended)", "none on record"}
    assert [row[3] for row in recipients["rows"] if row[0] == "sky (openai)" and row[1] == "none on record"] == ["1"]
    numbers, _ = figures("disclosures", "--subject", SUBJECT)
    assert numbers["disclosures"] == "1"
    assert SUBJECT not in spillway("report", "disclosures", "--subject", SUBJECT).stdout


def test_the_other_reports_count(told: Path) -> None:
    spillway("search", "--limit", "3")
    numbers, (_, each, glass) = figures("access")
    assert numbers == {"looks": "1", "accounts": "1", "captures read": "1"}
    assert [(row[2], row[6]) for row in each["rows"]] == [("search", "3")]
    assert [row[3] for row in glass["rows"]] == ["read"]
    numbers, sections = figures("policy")
    assert (numbers["changes"], numbers["starts after a crash"], numbers["keys made"]) == ("1", "1", "1")
    assert next(row[3:] for row in sections[4]["rows"]) == ["started after a crash", "p", "4 ms", "1 attempt", "-", "-"]
    numbers, sections = figures("canary")
    assert (numbers["runs"], numbers["promises broken"], numbers["last run"]) == ("1", "1", "broken")
    numbers, sections = figures("refusals")
    assert numbers["refused"] == numbers["for what was in them"] == "1"
    assert sections[0]["rows"][0][0] == "no_eligible_target" and sections[0]["rows"][0][3] == "ssn in 1"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(("report", "everything"), "there is no report"), (("report", "policy", "--subject", "x"), "is for disclosures"),
     (("report", "policy", "--format", "pdf"), "there is no format"), (("report", "policy", "--out", "x.pdf"), "there is no format"), (("report", "policy", "--since", "2h", "--until", "3h"), "empty")],
)  # fmt: skip
def test_reports_asked_for_wrong(logs: Path, arguments: tuple[str, ...], words: str) -> None:
    done = spillway(*arguments)
    assert (done.exit_code, done.stdout) == (2, "") and words in done.stderr
    assert not looks(logs)


def test_without_a_canary_no_promise_is_said_to_have_held(logs: Path) -> None:
    told = spillway("report", "canary").stdout
    assert "No canary was tried" in told and "held" not in told


def test_a_file_s_name_says_the_form_whatever_its_case(logs: Path, here: Path) -> None:
    for name, begins in (("a.HTML", "<!doctype"), ("a.json", "{"), ("a.md", "# "), ("a", "Refused")):
        assert spillway("report", "refusals", "--out", name).exit_code == 0
        assert (here / name).read_text().startswith(begins), name


def test_what_changed_is_told_by_paths_and_names_never_values() -> None:
    before = {"engines": {"gpu": {"kind": "vllm", "replicas": ["http://a"]}}, "compliance": {"opaque": "keep_local", "rules": [
        {"name": "a", "action": "allow", "when": {"cel": "1 == 1"}}, {"name": "b", "action": "block", "when": {}}]}}  # fmt: skip
    after = json.loads(json.dumps(before))
    after["engines"]["gpu"]["replicas"] = ["http://b"]
    after["compliance"]["rules"] = [
        {"name": "b", "action": "allow", "when": {}},
        {"name": "c", "action": "block", "when": {}},
    ]
    one, two = json.dumps(before).encode(), json.dumps(after).encode()
    assert changes(one, two) == (
        "compliance.order of rules", "compliance.rules.a removed", "compliance.rules.b", "compliance.rules.c added", "engines.gpu.replicas",
    )  # fmt: skip
    assert changes(one, one) == changes(None, one) == ()
    assert rules_changed(one, two) == ["+ c: block", "- a: allow", "~ b: block → allow"]
    after["compliance"]["rules"] = before["compliance"]["rules"][::-1]
    assert rules_changed(one, json.dumps(after).encode()) == ["their order"]
