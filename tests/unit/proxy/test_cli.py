"""The command line in this process: exit codes, what goes to which stream, and what people type wrong.

The command as a process, serving, is tested end to end elsewhere.
"""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from proxy.cli import app
from proxy.config import load

ROOT = Path(__file__).resolve().parents[3]
CONFIG = """\
engines:
  gpu: {kind: vllm, replicas: ['http://127.0.0.1:9'], models: {llama: {}}}
  sky: {kind: openai, key: {env: SPILLWAY_TEST_KEY}, models: {gpt-4o: {}}}
models: {chat: [gpu/llama, sky/gpt-4o]}
"""
BROKEN = """\
listen: {prot: 1}
engines:
  gpu: {kind: vlm, replicas: ['http://127.0.0.1:9'], models: {llama: {}}}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("SPILLWAY_TEST_KEY", "SPILLWAY_API_KEY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def spillway(*arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin, catch_exceptions=False)


# --- check --------------------------------------------------------------------------------------------------


def test_check_prints_every_mistake_with_its_place_and_what_is_right(here: Path) -> None:
    (here / "spillway.yaml").write_text(BROKEN)
    done = spillway("check")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == (
        "spillway.yaml:1: listen.prot: is not a setting\n"
        "    did you mean 'port'?\n"
        "spillway.yaml:3: engines.gpu.kind: 'vlm' is no engine kind\n"
        "    did you mean 'vllm'?\n"
        "2 mistakes\n"
    )


def test_check_for_scripts(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "spillway.yaml").write_text(BROKEN)
    done = spillway("check", "--json")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["valid"], len(found["mistakes"])) == (1, False, 2)
    assert found["mistakes"][0] == {
        "line": 1,
        "path": "listen.prot",
        "wrong": "is not a setting",
        "hint": "did you mean 'port'?",
    }
    (here / "spillway.yaml").write_text(CONFIG)
    monkeypatch.setenv("SPILLWAY_TEST_KEY", "sk-hidden")
    done = spillway("check", "--json")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["valid"]) == (0, True) and "model chat: gpu/llama, then sky/gpt-4o" in found[
        "meaning"
    ]
    assert "sk-hidden" not in done.output


def test_one_mistake_is_one_mistake(here: Path) -> None:
    (here / "spillway.yaml").write_text(CONFIG)
    done = spillway("check")
    assert (
        done.exit_code == 1 and done.stderr.endswith("\n1 mistake\n") and "SPILLWAY_TEST_KEY is not set" in done.stderr
    )


@pytest.mark.parametrize("text", ["\x00", "a: [", "\ufffe", "- x"])
def test_what_is_no_configuration_ends_without_a_traceback(here: Path, text: str) -> None:
    (here / "spillway.yaml").write_text(text)
    done = spillway("check")
    assert done.exit_code == 1 and done.stderr.startswith("spillway.yaml")
    (here / "spillway.yaml").write_bytes(b"\xff\xfe\x00a")
    assert "not UTF-8" in spillway("check").stderr
    assert "Is a directory" in spillway("check", "-c", str(here)).stderr


# --- colours ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("environ", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_are_for_terminals(here: Path, environ: dict[str, str], coloured: bool) -> None:
    (here / "spillway.yaml").write_text(BROKEN)
    ours, theirs = pty.openpty()
    base = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    subprocess.run(
        [sys.executable, "-m", "proxy", "check"], stderr=theirs, check=False, timeout=30,
        env={**base, "PYTHONPATH": str(ROOT), "TERM": "xterm", **environ},
    )  # fmt: skip
    os.close(theirs)
    shown = os.read(ours, 10_000)
    os.close(ours)
    assert b"did you mean" in shown and (b"\x1b[" in shown) == coloured


# --- keys ---------------------------------------------------------------------------------------------------


def test_keys_are_made_in_a_shell_that_has_no_cloud_key(here: Path) -> None:
    (here / "spillway.yaml").write_text(CONFIG)
    made = spillway("keys", "create", "app", "--model", "chat", "--json")
    assert made.exit_code == 0
    row = json.loads(made.stdout)
    assert row["key"].startswith("spw_") and row["id"].startswith("key_")
    listed = json.loads(spillway("keys", "list", "--json").stdout)
    assert [(key["id"], key["models"]) for key in listed] == [(row["id"], ["chat"])]
    assert row["key"] not in json.dumps(listed)
    assert spillway("keys", "revoke", "app").stdout == f"{row['id']}\n"


def test_the_key_alone_goes_to_standard_output(here: Path) -> None:
    done = spillway("keys", "create", "app")
    assert len(done.stdout.strip()) == 47 and "not shown again" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("create", "app", "--model", "chta"), 2, "did you mean 'chat'?"),
        (("create", "app", "--days", "0"), 2, "--days"),
        (("create", "app", "--days", "-3"), 2, "--days"),
        (("create", "app", "--days", "99999999999"), 2, "--days"),
        (("create", "app", "--days", "soon"), 2, "--days"),
        (("create", " "), 2, "printable"),
        (("create",), 2, "name"),
        (("revoke", "nobody"), 1, "keys list"),
        (("revoke", "spw_" + "A" * 43), 1, "not the key"),
    ],
    ids=str,
)
def test_keys_typed_wrong(here: Path, arguments: tuple[str, ...], status: int, words: str) -> None:
    (here / "spillway.yaml").write_text(CONFIG)
    done = spillway("keys", *arguments)
    assert (done.exit_code, done.stdout) == (status, "")
    assert words in done.stderr
    assert json.loads(spillway("keys", "list", "--json").stdout) == []


def test_a_state_directory_holds_the_log_of_its_keys(here: Path) -> None:
    """As `serve --state-dir` keeps it, so that `audit verify --state-dir` finds it."""
    assert spillway("keys", "create", "app", "--state-dir", "elsewhere").exit_code == 0
    assert (here / "elsewhere" / "keys.db").exists() and (here / "elsewhere" / "audit" / "cli").is_dir()
    assert not (here / "audit").exists()
    assert spillway("audit", "verify", "--state-dir", "elsewhere").exit_code == 3


def test_a_state_directory_that_cannot_be_used_is_said_plainly(here: Path) -> None:
    (here / "file").write_text("x")
    (here / "torn").mkdir()
    for name in ("keys.db", "ledger.db"):
        (here / "torn" / name).write_text("no database " * 100)
    for arguments in (("keys", "list"), ("keys", "create", "app"), ("spend",), ("audit", "show", "x")):
        for directory in ("torn", "file/below"):
            done = spillway(*arguments, "--state-dir", directory)
            assert done.exit_code == 1, (arguments, directory)
            assert done.stderr.count("\n") == 1, done.stderr


# --- the rest -----------------------------------------------------------------------------------------------


def test_chat_typed_wrong(here: Path) -> None:
    assert spillway("chat", " ").exit_code == 2
    assert spillway("chat", "-", stdin="").exit_code == 2
    assert spillway("chat", "hi", "--base-url", "ftp://x").exit_code == 2
    for url in ("127.0.0.1:1", "http://127.0.0.1:1/", "127.0.0.1:1/v1"):
        done = spillway("chat", "hi", "--base-url", url)
        assert done.exit_code == 1 and "nobody answers at http://127.0.0.1:1;" in done.stderr


def test_serve_takes_a_gguf_file_and_no_other(here: Path) -> None:
    (here / "model.bin").write_bytes(b"PK\x03\x04")
    for name, words in (("model.bin", "is no GGUF file"), ("none.gguf", "is not there"), (".", "is no GGUF file")):
        done = spillway("serve", "--model", name)
        assert done.exit_code == 2 and words in done.stderr
    (here / "spillway.yaml").write_text(CONFIG)
    assert "without a configuration" in spillway("serve", "--allow-cloud").stderr


def test_explain_needs_no_cloud_key(here: Path) -> None:
    (here / "spillway.yaml").write_text(CONFIG)
    body = json.dumps({"model": "chat", "messages": [{"role": "user", "content": "hello"}]})
    done = spillway("explain", "--json", stdin=body)
    assert done.exit_code == 0 and json.loads(done.stdout)["ranked"][0] == "gpu/llama"
    for wrong, words in (
        ("", "invalid_request"),
        ("[]", "invalid_request"),
        (body.replace("chat", "nope"), "model_not_found"),
    ):
        done = spillway("explain", stdin=wrong)
        assert done.exit_code == 1 and words in done.stderr


COMMANDS = [
    ("serve",), ("check",), ("explain",), ("chat",), ("spend",), ("plan",), ("keys", "create"), ("keys", "revoke"), ("audit", "verify"), ("audit", "show"),
    ("audit", "search"), ("audit", "export"), ("audit", "checkpoint"),
    ("scan",), ("redact",), ("canary",), ("policy", "test"), ("policy", "coverage"),
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_shows_an_example(command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    done = spillway(*command, "--help")
    assert done.exit_code == 0
    assert "Example" in done.stdout and f"spillway {' '.join(command)}" in done.stdout


def test_the_schema_is_json_and_the_modeline_of_the_examples_names_it() -> None:
    assert json.loads(spillway("schema").stdout)["title"] == "Spillway configuration"
    for path in (ROOT / "deploy" / "examples").glob("*.yaml"):
        first = path.read_text().splitlines()[0]
        assert (path.parent / first.partition("$schema=")[2]).resolve() == ROOT / "deploy" / "spillway.schema.json"
        load(path, {}, secrets=False)


def test_a_command_imports_only_what_it_needs() -> None:
    heavy = ["aiohttp", "openai", "opentelemetry", "prometheus_client", "xllamacpp", "numpy", "uvloop"]
    script = f"""
import sys
import proxy.cli
print([name for name in {[*heavy, "pydantic", "yaml"]} if name in sys.modules])
from typer.testing import CliRunner
CliRunner().invoke(proxy.cli.app, ["keys", "list"])
CliRunner().invoke(proxy.cli.app, ["check"])
print([name for name in {heavy} if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout == "[]\n[]\n"
