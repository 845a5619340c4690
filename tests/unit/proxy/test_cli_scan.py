"""`spillway scan`: its input and output, exit codes for scripts, and what a terminal shows."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from scanners import shared_scanner
from typer.testing import CliRunner

from compliance.model import Finding, Inspection, Verdict
from proxy.cli import app
from proxy.cli_scan import view, visible

ROOT = Path(__file__).resolve().parents[3]
NOTE = "Patient: Ilona Varga, SSN 123-45-6789, seen for asthma"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("proxy.app.build_scanner", shared_scanner)
    return tmp_path


def scan(*arguments: str, stdin: str | bytes = "", tier: str = "fast") -> Result:
    return CliRunner().invoke(app, ["scan", "--tier", tier, *arguments], input=stdin, catch_exceptions=False)


def rows(done: Result) -> list[Any]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_text_gives_one_row_with_offsets_in_code_points() -> None:
    text = "näive 🦉 " + NOTE + "\n"
    done = scan(stdin=text)
    (row,) = rows(done)
    assert done.exit_code == 1 and done.stderr == ""
    assert row["id"] is None and row["health_context"] is True and row["action"] == "keep_local"
    found = {finding["type"]: text[finding["start"] : finding["end"]] for finding in row["findings"]}
    assert found == {"name": "Ilona Varga", "ssn": "123-45-6789"}
    assert all(0 < finding["confidence"] <= 1 for finding in row["findings"])


def test_a_text_that_may_leave_is_a_yes() -> None:
    done = scan(stdin="What is the capital of France?")
    assert (done.exit_code, rows(done)) == (
        0,
        [{"id": None, "findings": [], "health_context": False, "action": "allow"}],
    )
    assert scan(stdin="").exit_code == 0


def test_the_full_tier_is_the_default(here: Path) -> None:
    (here / "spillway.yaml").write_text("compliance: {tier: fast}")
    assert scan("--help").exit_code == 0 and "full" in scan("--help").stdout
    assert rows(scan(stdin=NOTE, tier="full"))[0]["action"] == "keep_local"
    done = CliRunner().invoke(app, ["scan"], input=NOTE, catch_exceptions=False)  # as configured
    assert rows(done)[0]["action"] == "keep_local"


@pytest.mark.parametrize("form", ["auto", "jsonl"])
def test_rows_of_jsonl_keep_their_ids_whatever_they_are(here: Path, form: str) -> None:
    given = [{"id": 7, "text": NOTE}, {"id": "é", "text": "hello"}, {"text": "x"}, {"id": {"a": [1]}, "text": ""}]
    lines = "\n\n".join(json.dumps(row) for row in given)
    (here / "in.jsonl").write_text(lines)
    for done in (scan("--format", form, stdin=lines), scan("in.jsonl", "--format", form)):
        assert done.exit_code == 0, "a batch that was scanned is no failure"
        assert [row["id"] for row in rows(done)] == [7, "é", None, {"a": [1]}]
        assert [row["action"] for row in rows(done)] == ["keep_local", "allow", "allow", "allow"]
    assert scan("--exit-code", "--format", form, stdin=lines).exit_code == 1
    assert scan("--exit-code", "--format", form, stdin='{"text": "hello"}').exit_code == 0


def test_a_bad_line_is_named_and_the_others_are_scanned() -> None:
    lines = ['{"id": 1, "text": "hello"}', "", '{"id": 2, "text": ', "[1]", '{"id": 3}', '{"text": 4}', '{"text": "x"}']
    done = scan(stdin="\n".join(lines))
    assert done.exit_code == 2 and len(rows(done)) == 2
    assert done.stderr.splitlines() == [
        "standard input:3: is not JSON: Expecting value",
        'standard input:4: is not an object of {"id", "text"}',
        "standard input:5: has no text",
        "standard input:6: has a text that is no string",
    ]
    assert scan(stdin=b'{"text": "a"}\n{"text": "\xff"}').stderr == "standard input:2: is not UTF-8 text\n"
    deep = '{"text": "a"}\n{"a": ' + "[" * 100_000
    assert scan(stdin=deep).exit_code == 2


def test_a_broken_first_row_is_not_taken_for_a_text() -> None:
    done = scan(stdin='\n{"id": 1, "text": "SSN 123-45-6789\n')
    assert (done.exit_code, done.stdout) == (2, "") and done.stderr.startswith("standard input:2: is not JSON")
    body = '{"messages": [{"type": "text", "text": "SSN 123-45-6789"}]}'
    assert rows(scan(stdin=body))[0]["action"] == "keep_local", "a request's body is a text like any other"
    assert rows(scan("--format", "text", stdin='{"text": "hello"}\n{"text": "x"}'))[0]["id"] is None


@pytest.mark.parametrize(
    ("arguments", "stdin", "words"),
    [
        (("none.txt",), "", "cannot be read: No such file"),
        (("--format", "xml"), "", "auto, text, jsonl"),
        (("--tier", "best"), "", "fast and full"),
        ((), b"\xff\xfe", "not UTF-8"),
    ],
)
def test_wrong_use_is_said_in_one_line(arguments: tuple[str, ...], stdin: str | bytes, words: str) -> None:
    done = scan(*arguments, stdin=stdin)
    assert done.exit_code == 2 and words in done.stderr and done.stderr.count("\n") == 1


def test_the_rules_of_a_configuration_decide(here: Path) -> None:
    (here / "my.yaml").write_text(
        "compliance: {rules: [{name: numbers, when: {found: [ssn]}, action: block}, {name: n, when: {found: [name]}, action: allow}]}"
    )
    assert rows(scan("--config", "my.yaml", stdin=NOTE))[0]["action"] == "block"
    (here / "my.yaml").write_text("complaince: {}")
    done = scan("--config", "my.yaml", stdin=NOTE)
    assert done.exit_code == 1 and "my.yaml:1: complaince" in done.stderr


@pytest.mark.parametrize("plain", [False, True])
def test_a_terminal_shows_the_text_with_what_was_found(here: Path, plain: bool) -> None:
    (here / "note.txt").write_text(NOTE)
    environ = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "proxy", "scan", "note.txt", "--tier", "fast"], stdout=theirs, check=False, timeout=60,
        env={**environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", **({"NO_COLOR": "1"} if plain else {})},
    )  # fmt: skip
    os.close(theirs)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert done.returncode == 1
    assert ("\x1b[" in shown) is not plain
    assert ("[ssn: 123-45-6789]" in shown) is plain
    assert "name of a person" in shown and "health context: yes" in shown and "action: keep_local" in shown


def test_the_view_shows_control_characters_and_does_not_obey_them() -> None:
    text = "a\x1b]0;owned\x07 b\u202e\tc\n4111\x1b[2J"
    shown = view(text, Inspection((Finding("card", "", 20, 24),)), Verdict("keep_local"), colour=False)
    assert "\x1b" not in shown and "\x07" not in shown and "\u202e" not in shown
    assert "<001b>]0;owned<0007> b<202e>\tc\n" in shown
    assert visible("é🦉\n") == "é🦉\n"


def test_the_view_marks_overlaps_once_and_names_what_was_not_read() -> None:
    found = (
        Finding("plan", "", 0, 8),
        Finding("mrn", "", 2, 8),
        Finding("opaque", "", 0, 0),
        Finding("badge", "", 9, 11),
    )
    shown = view("12345678 XY", Inspection(found), Verdict("keep_local", found, "default"), colour=False)
    assert shown.splitlines()[0] == "[plan: 12345678] [badge: XY]"
    assert "could not be looked into" in shown and "of your own" in shown
    assert "nothing was found" in view("x", Inspection(), Verdict("allow"), colour=True)


# --- redact --------------------------------------------------------------------------------------------------

PSEUDONYM = r"\[[A-Z_]+_[a-z2-7]+\]"


def redact(*arguments: str, stdin: str | bytes = "") -> Result:
    return CliRunner().invoke(app, ["redact", "--tier", "fast", *arguments], input=stdin, catch_exceptions=False)


def test_redact_leaves_no_identifier_and_one_pseudonym_for_a_value() -> None:
    lines = [{"id": number, "text": f"{NOTE}. Call Ilona Varga."} for number in (1, 2)]
    lines.append({"id": 3, "text": "What is the capital of France?"})
    done = redact(stdin="\n".join(map(json.dumps, lines)))
    assert done.exit_code == 0 and "Varga" not in done.output and "123-45" not in done.output
    first, second, third = rows(done)
    assert re.fullmatch(rf"Patient: ({PSEUDONYM}), SSN {PSEUDONYM}, seen for asthma\. Call \1\.", first["text"]), first
    assert (first["id"], second["text"]) == (1, first["text"]), "the same in the whole output"
    assert third == lines[2]
    again = rows(redact(stdin="\n".join(map(json.dumps, lines))))
    assert again[0]["text"] != first["text"], "and another in the next: the key is thrown away"


def test_redact_keeps_json_valid_and_what_looks_like_a_pseudonym_apart() -> None:
    (row,) = rows(redact(stdin='{"note": "SSN 123-45-6789", "n": [1, "[NAME_abcd]"]}\n'))
    inner = json.loads(row["text"])
    assert re.fullmatch(f"SSN {PSEUDONYM}", inner["note"]) and inner["n"][0] == 1
    assert inner["n"][1] != "[NAME_abcd]" and inner["n"][1].startswith("[TEXT_")


def test_redact_prints_a_text_as_text_where_it_is_asked_to() -> None:
    done = redact("--text", stdin="SSN 123-45-6789\nsecond line\n")
    assert re.fullmatch(rf"SSN {PSEUDONYM}\nsecond line\n", done.stdout)
    assert json.loads(redact("--json", stdin="hello").stdout) == {"id": None, "text": "hello"}


def test_what_cannot_be_redacted_is_null_and_never_the_text() -> None:
    picture = "data:image/png;base64," + "A" * 400
    lines = [json.dumps({"id": 1, "text": f"{picture}"}), json.dumps({"id": 2, "text": "SSN 123-45-6789 \ud800"})]
    done = redact(stdin="\n".join(lines))
    assert done.exit_code == 1 and [row["text"] for row in rows(done)] == [None, None]
    assert [line.partition(": ")[0] for line in done.stderr.splitlines()] == ["standard input:1", "standard input:2"]
    assert "123-45" not in done.output
    assert redact(stdin='{"text": "x"}\nno').exit_code == 2


def test_redact_leaves_what_the_rules_let_go(here: Path) -> None:
    (here / "my.yaml").write_text("compliance: {rules: [{name: n, when: {found: [name]}, action: allow}]}")
    (row,) = rows(redact("--config", "my.yaml", stdin=NOTE))
    assert "Ilona Varga" in row["text"] and "123-45" not in row["text"]


@pytest.mark.parametrize(
    "text", ["Seen at Pelbrack Hospital for asthma.", "[NAME_abcd] is a pseudonym", "Jane Roe called"]
)
def test_redact_leaves_a_text_that_may_leave_as_it_is(text: str) -> None:
    assert rows(scan(stdin=text))[0]["action"] == "allow"
    assert rows(redact(stdin=text)) == [{"id": None, "text": text}]
