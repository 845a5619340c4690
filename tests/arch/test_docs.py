"""The documents are tested: what they name exists, and what exists they name."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import typer
import yaml

from proxy.cli import app
from proxy.config import load
from proxy.errors import CODES

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
THREATS = (ROOT / "THREAT_MODEL.md").read_text()
GUIDES = [file.read_text() for file in sorted((ROOT / "deploy" / "guides").glob("*.md"))]


def commands() -> set[str]:
    root = typer.main.get_command(app)
    found = set()
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        below = getattr(command, "commands", None)
        found |= {f"{name} {sub}" for sub in below} if below else {name}
    return found


def test_every_command_is_in_the_readme() -> None:
    for command in commands():
        assert f"spillway {command}" in README, command


def test_the_readme_names_only_commands_and_targets_that_exist() -> None:
    known = {name for command in commands() for name in (command, command.split()[0])}
    for command in re.findall(r"`spillway ([a-z]+(?: [a-z]+)?)", README):
        assert command in known or command.split()[0] in known, command
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`?make ([a-z-]+)", README))
    assert {"run", "test", "bench"} <= named <= targets


def test_every_help_has_examples_and_words() -> None:
    root = typer.main.get_command(app)
    for name in ("serve", "check", "explain", "chat", "scan", "redact", "canary", "spend", "plan"):
        command = root.commands[name]  # type: ignore[attr-defined]
        assert "Examples" in (command.epilog or ""), name
        assert command.help


def test_the_configurations_of_the_documents_load() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", README + "".join(GUIDES), re.DOTALL)
    assert blocks
    for block in blocks:
        load(block, dict.fromkeys(("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "HOOK_SECRET", "REDIS_PASSWORD"), "x"))
        assert yaml.safe_load(block)


def test_every_file_that_a_document_names_is_there() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for text in (README, THREATS, *GUIDES):
        for name in re.findall(r"`((?:proxy|policies|engines|compliance|tests|deploy)/[A-Za-z0-9_./-]+)`", text):
            assert name in listed or any(path.startswith(name.rstrip("/") + "/") for path in listed), name


def test_every_refusal_is_documented() -> None:
    for code in CODES:
        assert f"`{code}`" in README, code
