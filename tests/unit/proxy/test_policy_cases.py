"""`spillway policy test`: an operator's cases, right and wrong, and the example that is shipped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result
from scanners import shared_scanner
from typer.testing import CliRunner

from proxy.cli import app

EXAMPLES = Path(__file__).resolve().parents[3] / "deploy" / "examples"
CONFIG = """\
engines:
  home: {kind: vllm, replicas: ['http://127.0.0.1:9'], models: {m: {}}}
  sky: {kind: openai, key: {env: NONE}, models: {gpt-4o: {}}, contract: {baa: {until: 2027-06-30}, region: eu}}
models: {m: [home/m, sky/gpt-4o]}
compliance:
  tier: fast
  tenants: {clinic: {context: health}}
  rules:
    - {name: agreed, when: {found: [phi], tenant: clinic, target: {contract: baa, region: eu}}, action: allow}
    - {name: no embeddings, when: {surface: openai.embeddings, application: triage}, action: block}
keys: {app: {hash: 'sha256:0000000000000000000000000000000000000000000000000000000000000000', tenant: clinic, project: triage}}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("proxy.policy_cases.build_scanner", shared_scanner)
    (tmp_path / "spillway.yaml").write_text(CONFIG)
    return tmp_path


def policy_test(text: str, *arguments: str) -> Result:
    Path("cases.yaml").write_text(text)
    return CliRunner().invoke(app, ["policy", "test", "cases.yaml", *arguments], catch_exceptions=False)


def test_every_way_to_say_who_asks_for_what(here: Path) -> None:
    done = policy_test("""\
cases:
  - {name: no tenant, prompt: Jane Roe called, expect: {action: allow, found: []}}
  - {name: the tag makes it a patient's, tenant: clinic, prompt: Mrs Jane Roe called, expect: {action: keep_local, found: [name]}}
  - {name: of the key, key: app, prompt: Mrs Jane Roe called, target: sky/gpt-4o, day: 2027-06-30, expect: {action: allow, rule: agreed}}
  - {name: it ended, key: app, prompt: Mrs Jane Roe called, target: sky/gpt-4o, day: 2027-07-01, expect: keep_local}
  - {name: labels, tenant: clinic, prompt: Mrs Jane Roe, target: {region: eu, baa: 2027-01-01}, day: 2026-12-31, expect: allow}
  - {name: other labels, tenant: clinic, prompt: Mrs Jane Roe, target: {region: us, baa: 2027-01-01}, day: 2026-12-31, expect: keep_local}
  - {name: home, tenant: clinic, prompt: Mrs Jane Roe, target: home/m, expect: {not_found: [ssn]}}
  - {name: surface, surface: openai.embeddings, key: app, prompt: hello, expect: {action: block, rule: no embeddings}}
  - {name: key over key, surface: openai.embeddings, key: app, application: other, prompt: hello, expect: allow}
  - {name: a body, surface: anthropic.messages, request: {system: [{text: 4111 1111 1111 1111}]}, expect: {found: [card]}}
""")
    assert (done.exit_code, "10 cases, 0 failed" in done.stdout) == (0, True), done.output


def test_a_case_that_fails_says_what_was_expected_and_where(here: Path) -> None:
    text = """\
cases:
  - {name: fine, prompt: hello, expect: allow}
  - name: wrong
    prompt: SSN 123-45-6789
    expect: {action: allow, rule: mine, found: [card], not_found: [ssn]}
  - {name: nothing, prompt: SSN 123-45-6789, expect: {found: []}}
"""
    done = policy_test(text)
    assert done.exit_code == 1 and done.stderr == ""
    assert (
        done.stdout.splitlines()[-7:]
        == [
            "FAILED  wrong    keep_local  ssn    default: ssn stays local",
            "        line 3: expected action allow",
            "        line 3: expected rule 'mine'",
            "        line 3: expected to find card",
            "        line 3: expected not to find ssn",
            *done.stdout.splitlines()[-2:],
        ][-7:]
        or "expected to find nothing" in done.stdout
    )
    row = json.loads(policy_test(text, "--json").stdout)
    assert (row["passed"], row["failed"]) == (1, 2)
    assert row["cases"][0] == {
        "name": "fine", "line": 2, "action": "allow", "rule": "default", "found": [], "health_context": False, "wrong": [], "passed": True,
    }  # fmt: skip
    assert row["cases"][1]["wrong"] == [
        "expected action allow", "expected rule 'mine'", "expected to find card", "expected not to find ssn",
    ]  # fmt: skip
    assert "123-45-6789" not in json.dumps(row)


def test_mistakes_are_all_told_with_their_lines(here: Path) -> None:
    done = policy_test("""\
cases:
  - name: a
    prompt: x
    expect: keep_locl
  - name: b
    promt: x
    expect: allow
  - name: c
    prompt: x
    day: soon
    expect: {}
""")
    assert (done.exit_code, done.stdout) == (1, "")
    lines = done.stderr.splitlines()
    assert "cases.yaml:4: cases[0].expect: must be one of: allow, redact, keep_local, block" in lines
    assert "cases.yaml:6: cases[1].promt: is not a setting" in lines and "    did you mean 'prompt'?" in lines
    assert "cases.yaml:10: cases[2].day: must be a day" in lines
    assert "cases.yaml:11: cases[2].expect: expects nothing" in lines and lines[-1] == "4 mistakes"


def test_names_that_nothing_has_are_mistakes(here: Path) -> None:
    done = policy_test("""\
cases:
  - {name: a, prompt: x, surface: openai.chta, expect: allow}
  - {name: b, prompt: x, target: sky/gpt-5, expect: allow}
  - {name: c, prompt: x, target: {boundary: moon, provider: opnai}, expect: allow}
  - {name: d, prompt: x, key: ap, expect: {found: [sn], not_found: [phi]}}
  - {name: e, prompt: x, request: {}, expect: allow}
""")
    assert done.exit_code == 1 and "cases.yaml:6: cases[4]: needs a prompt, or a request, and not both" in done.stderr
    done = policy_test(Path("cases.yaml").read_text().replace(", request: {}", ""))
    for line, place, hint in (
        (2, "cases[0].surface", "did you mean 'openai.chat'?"),
        (3, "cases[1].target", "did you mean 'sky/gpt-4o'?"),
        (4, "cases[2].target.boundary", "there are local, cloud"),
        (4, "cases[2].target.provider", "did you mean 'openai'?"),
        (5, "cases[3].key", "did you mean 'app'?"),
        (5, "cases[3].expect.found[0]", "did you mean 'ssn'?"),
        (5, "cases[3].expect.not_found[0]", "did you mean 'npi'?"),
    ):
        assert f"cases.yaml:{line}: {place}: " in done.stderr and hint in done.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cases.yaml: cases: is required"),
        ("cases: []", "holds no case"),
        ("- x", "must be a mapping"),
        ("cases: [", "is not YAML"),
        ("cases:\n  - 7\n", "cases.yaml:2: cases[0]: must be a mapping"),
        ("cases: [{name: a, prompt: x, target: 7, expect: allow}]", "such as openai/gpt-4o"),
        ("cases: [{name: a, expect: allow}]", "needs a prompt"),
    ],
)
def test_what_is_no_file_of_cases_ends_without_a_traceback(here: Path, text: str, words: str) -> None:
    done = policy_test(text)
    assert done.exit_code == 1 and words in done.stderr, done.stderr
    missing = CliRunner().invoke(app, ["policy", "test", "none.yaml"], catch_exceptions=False)
    assert missing.exit_code == 1 and "none.yaml: cannot be read" in missing.stderr


@pytest.mark.parametrize("path", sorted((EXAMPLES / "cases").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_examples_hold_for_their_configuration(path: Path) -> None:
    arguments = ["policy", "test", str(path), "--config", str(EXAMPLES / path.name)]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
