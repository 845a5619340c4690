"""The command as people use it, right and wrong: real processes, a real llama.cpp, nothing configured."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from stack import ROOT, free_port

pytestmark = pytest.mark.e2e
CLEAN = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
ENVIRON = {**CLEAN, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "200"}


def spillway(
    *arguments: str, directory: Path, stdin: str = "", environ: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "proxy", *arguments]
    return subprocess.run(
        command,
        cwd=directory,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        env={**ENVIRON, **(environ or {})},
    )


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int, list[str]]]:
    """`spillway serve` with nothing configured: (directory, port, what it printed)."""
    directory = tmp_path_factory.mktemp("serve")
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "proxy", "serve", "--port", str(port), "--workers", "2"],
        cwd=directory, env=ENVIRON, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    printed: list[str] = []
    for line in process.stdout:
        printed.append(line)
        if "curl" in line:
            break
    yield directory, port, printed
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    process.stdout.close()


def test_it_serves_without_a_configuration_and_says_how_to_use_it(serving: tuple[Path, int, list[str]]) -> None:
    directory, port, printed = serving
    text = "".join(printed)
    assert "no language model" in text and f"OPENAI_BASE_URL=http://127.0.0.1:{port}/v1" in text
    line = next(line for line in printed if "curl" in line)
    done = subprocess.run(line.strip(), shell=True, capture_output=True, text=True, timeout=30)
    assert json.loads(done.stdout)["object"] == "chat.completion"
    assert (directory / "state" / "smoke-test.gguf").exists()


def test_chat_streams_and_says_who_answered(serving: tuple[Path, int, list[str]]) -> None:
    directory, port, _ = serving
    url = f"http://127.0.0.1:{port}"
    for _ in range(10):  # the smoke-test model may stop at once: one answer in ten is empty
        done = spillway("chat", "hello", "--base-url", url, "--max-tokens", "10", directory=directory)
        if done.stdout.strip():
            break
    assert done.returncode == 0 and done.stdout.strip()
    assert "cpu/smoke-test" in done.stderr
    assert (
        spillway("chat", "-", "--base-url", url, "--max-tokens", "5", directory=directory, stdin="hi").returncode == 0
    )
    wrong = spillway("chat", "hello", "--base-url", url, "--model", "nope", directory=directory)
    assert (wrong.returncode, "model_not_found" in wrong.stderr) == (1, True)
    nobody = spillway("chat", "hello", "--base-url", "http://127.0.0.1:1", directory=directory)
    assert (nobody.returncode, "spillway serve" in nobody.stderr) == (1, True)


def test_the_log_explains_a_request(serving: tuple[Path, int, list[str]]) -> None:
    directory, port, _ = serving
    body = json.dumps(
        {"model": "smoke-test", "messages": [{"role": "user", "content": "ssn 123-45-6789"}], "max_tokens": 3}
    ).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions", body, {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        request_id = answer.headers["x-spillway-request-id"]
        assert answer.headers["x-spillway-action"] == "keep_local"
    for _ in range(40):
        shown = spillway("audit", "show", request_id, directory=directory)
        if shown.returncode == 0 and "completed" in shown.stdout:
            break
        time.sleep(0.1)
    assert "ssn in messages[0].content, characters 4-15" in shown.stdout and "123-45-6789" not in shown.stdout
    rows = json.loads(spillway("audit", "show", request_id, "--json", directory=directory).stdout)
    assert [row["kind"] for row in rows if row["kind"] != "log_access"] == ["decision", "outcome"]
    assert {row["command"] for row in rows if row["kind"] == "log_access"} == {"show"}  # who looked is a part of it
    assert spillway("audit", "show", "nothing", directory=directory).returncode == 1
    verified = spillway("audit", "verify", directory=directory)
    assert (verified.returncode, "consistent" in verified.stdout) == (3, True)
    fingerprint = next(line.split("sha256:")[1] for line in verified.stdout.splitlines() if "sha256:" in line)
    assert spillway("audit", "verify", "--key", fingerprint, directory=directory).returncode == 0
    assert spillway("audit", "verify", "--key", "0" * 64, directory=directory).returncode == 1
    spent = json.loads(spillway("spend", "--json", directory=directory).stdout)
    assert spent["rows"][0]["target"] == "cpu/smoke-test" and spent["total"]["spent"] == 0
    assert "cpu/smoke-test" in spillway("spend", directory=directory).stdout


def test_an_auditor_gets_evidence_from_a_running_log(serving: tuple[Path, int, list[str]]) -> None:
    """Search, a checkpoint kept, traffic, a pack that continues it."""
    directory, _, url = serving[0], serving[1], f"http://127.0.0.1:{serving[1]}"
    assert spillway("chat", "hi", "--base-url", url, "--max-tokens", "2", directory=directory).returncode == 0
    time.sleep(1.5)  # a checkpoint a second
    kept = spillway("audit", "checkpoint", directory=directory)
    (directory / "kept.txt").write_text(kept.stdout)
    assert spillway("chat", "hi", "--base-url", url, "--max-tokens", "2", directory=directory).returncode == 0
    found = spillway("audit", "search", "--ending", "completed", "--json", directory=directory)
    assert {json.loads(line)["target"] for line in found.stdout.splitlines()} == {"cpu/smoke-test"}
    time.sleep(1.5)
    out = directory / "evidence"
    done = spillway("audit", "export", "--from", "1h", "--since", "kept.txt", "--out", str(out), directory=directory)
    assert done.returncode == 0, done.stderr
    verified = spillway("audit", "verify", str(out), "--since", "kept.txt", directory=directory)
    assert (verified.returncode, "1 here, 0 named and not kept" in verified.stdout) == (0, True), verified.stdout


def test_two_cannot_share_a_state_directory(serving: tuple[Path, int, list[str]]) -> None:
    directory, _, _ = serving
    second = spillway("serve", "--port", str(free_port()), directory=directory)
    assert (second.returncode, "another Spillway" in second.stderr) == (1, True)


def test_keys_from_the_terminal(tmp_path: Path) -> None:
    made = spillway("keys", "create", "app", "--model", "m", "--days", "3", directory=tmp_path)
    assert made.returncode == 0 and made.stdout.startswith("spw_")
    row = json.loads(spillway("keys", "create", "other", "--local-only", "--json", directory=tmp_path).stdout)
    listed = spillway("keys", "list", directory=tmp_path).stdout
    assert "app" in listed and "other" in listed and made.stdout.strip() not in listed
    assert spillway("keys", "revoke", row["id"], directory=tmp_path).returncode == 0
    again = spillway("keys", "revoke", row["id"], directory=tmp_path)
    assert (again.returncode, "keys list" in again.stderr) == (1, True)
    rows = json.loads(spillway("keys", "list", "--json", directory=tmp_path).stdout)
    assert {r["name"]: r["revoked"] is None for r in rows} == {"app": True, "other": False}
    assert made.stdout.strip().encode() not in (tmp_path / "state" / "keys.db").read_bytes()
    changes = (tmp_path / "audit" / "cli").glob("segment-*")
    assert sum(path.read_text().count('"key_changed"') for path in changes) == 3
    assert spillway("audit", "verify", directory=tmp_path).returncode == 3


CONFIG = """
engines:
  gpu: {kind: vllm, replicas: ['http://127.0.0.1:9'], models: {m: {context: 100}}}
  sky: {kind: openai, key: {env: K}, models: {gpt-4o: {}}}
models: {m: [gpu/m, sky/gpt-4o]}
"""


def test_check_and_explain(tmp_path: Path) -> None:
    (tmp_path / "spillway.yaml").write_text(CONFIG)
    environ = {"K": "x"}
    checked = spillway("check", "--explain", directory=tmp_path, environ=environ)
    assert checked.returncode == 0 and "model m: gpu/m, then sky/gpt-4o" in checked.stdout
    assert spillway("check", directory=tmp_path).returncode == 1  # K is not set
    plain = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}]})
    shown = spillway("explain", directory=tmp_path, stdin=plain, environ=environ)
    assert shown.returncode == 0 and "1.      gpu/m" in shown.stdout
    long = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello " * 200}]})
    row = json.loads(spillway("explain", "--json", directory=tmp_path, stdin=long, environ=environ).stdout)
    assert row["ranked"] == ["sky/gpt-4o"] and row["overflow"] == "context"
    stays = spillway(
        "explain", directory=tmp_path, stdin=long.replace("hello", "4111 1111 1111 1111", 1), environ=environ
    )
    assert (stays.returncode, "keep_local" in stays.stdout, "would be refused" in stays.stdout) == (1, True, True)


WRONG = [
    (("serve", "--config", "none.yaml"), 1, "No such file"),
    (("serve", "--model", "none.gguf"), 2, "GGUF"),
    (("serve", "--port", "99999"), 1, "listen.port"),
    (("check", "--config", "none.yaml"), 1, "--config"),
    (("explain", "--surface", "nope"), 2, "openai.chat"),
    (("explain", "none.json"), 2, "cannot be read"),
    (("spend", "--by", "moon"), 2, "day"),
    (("spend",), 1, "no ledger"),
    (("keys", "revoke", "nope"), 1, "keys list"),
    (("scan", "none.txt"), 2, "cannot be read"),
    (("redact", "--tier", "best"), 2, "fast and full"),
    (("policy", "test", "none.yaml"), 1, "cannot be read"),
    (("canary", "--model", "x", "--live", "http://127.0.0.1:1"), 1, "no model is called 'x'"),
    (("nope",), 2, "No such command"),
]


@pytest.mark.parametrize(("arguments", "status", "words"), WRONG, ids=[" ".join(row[0]) for row in WRONG])
def test_what_people_type_wrong(arguments: tuple[str, ...], status: int, words: str, tmp_path: Path) -> None:
    done = spillway(*arguments, directory=tmp_path)
    assert done.returncode == status, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_said_plainly(tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = spillway("serve", "--port", str(taken.getsockname()[1]), directory=tmp_path)
    assert (done.returncode, "--port" in done.stderr) == (1, True)


@pytest.mark.parametrize(("part", "says"), [("state", "--state-dir"), ("audit", "audit.dir")])
def test_a_directory_that_cannot_be_written_is_said_plainly(part: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    config = tmp_path / "spillway.yaml"
    places = {"state": tmp_path / "state", "audit": tmp_path / "audit"} | {part: tmp_path / "file" / "in"}
    config.write_text("".join([f"{name}: {{dir: {place}}}\n" for name, place in places.items()]))
    run = spillway("serve", "-c", str(config), "--port", str(free_port()), directory=tmp_path)
    assert run.returncode == 1 and "Traceback" not in run.stderr
    assert f"cannot write in the directory {tmp_path / 'file' / 'in'}" in run.stderr and says in run.stderr


@pytest.mark.parametrize("after", [0.15, 0.4, 0.8, 1.5])
def test_ctrl_c_while_it_starts_shows_no_traceback_and_leaves_nothing_running(after: float, tmp_path: Path) -> None:
    """A terminal sends it to every process, the worker that loads its modules among them."""
    config = tmp_path / "spillway.yaml"
    config.write_text(
        'engines: {m: {kind: vllm, replicas: ["http://127.0.0.1:9"], models: {m: {}}}}\nmodels: {m: [m/m]}\n'
    )
    process = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); import proxy.__main__ as m; m.main()",
         "serve", "-c", str(config), "--port", str(free_port())],
        cwd=tmp_path, env=ENVIRON, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(after)
    os.killpg(process.pid, signal.SIGINT)
    printed = process.communicate(timeout=60)[0]  # to the end: no process holds the pipe any more
    assert "Traceback" not in printed and process.returncode in (0, 130, -signal.SIGINT)
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_when_the_supervisor_is_killed_nothing_is_left_running(tmp_path: Path) -> None:
    import psutil

    port = free_port()
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "proxy", "serve", "--port", str(port), "--workers", "2"],
            cwd=tmp_path,
            env=ENVIRON,
            stdout=log,
            stderr=log,
        )
    for _ in range(200):
        if "curl" in (tmp_path / "log").read_text():
            break
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) == 3
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=10)
    for child in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    assert not alive
